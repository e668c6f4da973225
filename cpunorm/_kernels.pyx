# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The kernel set in Cython (see `_kernels_reference` for what the set promises to its callers).

Built once per ISA level: `_kernels_v3.pyx` and `_kernels_v4.pyx` include this file and are compiled with other flags.

Numerics
--------
Moments are taken over blocks.  In a block, d = x - k is summed in LANES independent lanes of the input's
type: s = sum d, q = sum d^2; then mean = k + s/n and M2 = q - s^2/n, and blocks are merged in float64:

    mean = mean_a + (mean_b - mean_a) n_b/n,    M2 = M2_a + M2_b + (mean_b - mean_a)^2 n_a n_b/n

(Welford 1962; Chan, Golub and LeVeque 1983).  The shift k of a block is the mean of all before it; a block longer than
all before it (so also the first) is read twice, from L1, to have its own mean for k.  So n_a >= n_b where k is
mean_a, and what q holds beyond M2_b, n_b (mean_b - mean_a)^2, is at most twice what the merge adds to M2: no
cancellation, whatever the data.  float32 blocks whose q left the range of float32 are done again in float64.

The mean is applied in two parts, y = ((x - mean_hi) - mean_lo) * scale + bias, so a large mean costs no digits.
That, and the shift, die by reassociation: never build this with -ffast-math or -fassociative-math.

Where a domain is cut into parts depends on its shape alone, and parts are merged in a fixed tree: the same bits at any
number of threads.

Vectors
-------
Loops over LANES with a constant trip count are what the compiler turns into vectors: accumulators live in arrays of
LANES, and a result goes through such an array before it is stored, so that y may be x without an alias check.
"""

from cython.parallel cimport prange
from cpython.pycapsule cimport PyCapsule_New
from libc.float cimport FLT_MAX
from libc.math cimport sqrt
from libc.stdlib cimport free, malloc

cimport numpy as cnp

from cpunorm._kernel_set cimport (
    KernelSet,
    Walk,
    inference_function,
    rows_function,
    training_function,
)

cnp.import_array()

cdef extern from *:
    """
    #if defined(__AVX512F__)
    enum { LANES = 64 };
    #elif defined(__AVX2__)
    enum { LANES = 32 };
    #else
    enum { LANES = 16 };
    #endif
    """
    enum: LANES

cdef enum:
    BLOCK = 32 * LANES  # elements that are summed in the input's type before they are merged in float64
    ROWS = 64  # the same in channels_last, where each channel has one lane
    PART = 65536  # elements of a part: what one thread takes of a domain that several share
    FOLDED = 512  # values of a channels_last line, if lines of few channels can be walked as one
    PIECE = 8192  # elements of the smallest piece of a long line that is worth a thread's while

cdef double TINY = 1e-36  # mean squares of float32 below this have lost digits to underflow

ctypedef fused real:
    float
    double

cdef struct Moments:
    double count, mean, m2


# Moments: every function below is called from the two layouts' `grouped_*` and from `layer_norm` alone.

cdef inline void merge(Moments* a, double count, double mean, double m2) noexcept nogil:
    """a = a and (count, mean, m2) together: Chan's update, in float64."""
    cdef double total = a.count + count
    cdef double share = count / total
    cdef double delta = mean - a.mean
    a.mean += delta * share
    a.m2 += m2 + delta * delta * (a.count * share)
    a.count = total


cdef void merge_tree(Moments* parts, Py_ssize_t count) noexcept nogil:
    """parts[0] = all parts, merged pairwise in an order that depends on their number alone."""
    cdef Py_ssize_t i, step = 1
    while step < count:
        i = 0
        while i + step < count:
            merge(&parts[i], parts[i + step].count, parts[i + step].mean, parts[i + step].m2)
            i += 2 * step
        step *= 2


cdef inline double fold(real* lanes) noexcept nogil:
    """The sum of LANES lanes, pairwise."""
    cdef int l
    if LANES == 64:
        for l in range(32):
            lanes[l] += lanes[l + 32]
    if LANES >= 32:
        for l in range(16):
            lanes[l] += lanes[l + 16]
    for l in range(8):
        lanes[l] += lanes[l + 8]
    for l in range(4):
        lanes[l] += lanes[l + 4]
    return (<double> lanes[0] + <double> lanes[1]) + (<double> lanes[2] + <double> lanes[3])


cdef inline double shifted_sum(const real* x, Py_ssize_t n, real shift) noexcept nogil:
    """sum (x - shift) over n contiguous values."""
    cdef real s[LANES]
    cdef Py_ssize_t i = 0
    cdef int l, rest
    for l in range(LANES):
        s[l] = 0
    while i + LANES <= n:
        for l in range(LANES):
            s[l] += x[i + l] - shift
        i += LANES
    rest = <int> (n - i)
    if rest:
        for l in range(LANES):
            s[l] += x[i + l] - shift if l < rest else 0
    return fold(s)


cdef inline void shifted_squares(
    const real* x, Py_ssize_t n, real shift, double* total, double* squares
) noexcept nogil:
    """total = sum d and squares = sum d^2 with d = x - shift, over n contiguous values."""
    cdef real s[LANES]
    cdef real q[LANES]
    cdef real d
    cdef Py_ssize_t i = 0
    cdef int l, rest
    for l in range(LANES):
        s[l] = 0
        q[l] = 0
    while i + LANES <= n:
        for l in range(LANES):
            d = x[i + l] - shift
            s[l] += d
            q[l] += d * d
        i += LANES
    rest = <int> (n - i)
    if rest:
        for l in range(LANES):
            d = x[i + l] - shift if l < rest else 0
            s[l] += d
            q[l] += d * d
    total[0] = fold(s)
    squares[0] = fold(q)


cdef inline bint out_of_range(real tag, double squares, double n) noexcept nogil:
    """Whether a float32 sum of n squares overflowed, or underflowed so far that digits are lost."""
    if real is float:
        return not (n * TINY <= squares <= FLT_MAX)
    else:
        return False


cdef void exact_moments(const real* x, Py_ssize_t stride, Py_ssize_t n, double* mean, double* m2) noexcept nogil:
    """Two passes in float64 over n values `stride` apart; constant values, the usual reason to be here, in one."""
    cdef Py_ssize_t i, different = 0
    cdef double total = 0, squares = 0, d
    for i in range(n):
        different += x[i * stride] != x[0]
    if different == 0:
        mean[0] = x[0]
        m2[0] = x[0] - x[0]  # NaN for Inf
        return
    for i in range(n):
        total += x[i * stride]
    mean[0] = total / n
    for i in range(n):
        d = x[i * stride] - mean[0]
        squares += d * d
    m2[0] = squares


cdef void add_block(Moments* moments, const real* x, Py_ssize_t n) noexcept nogil:
    """moments += the moments of n <= BLOCK contiguous values."""
    cdef double total, squares, mean, m2
    cdef real shift
    if moments.count < n:
        shift = x[0] + <real> (shifted_sum(x, n, x[0]) / n)
    else:
        shift = <real> moments.mean
    shifted_squares(x, n, shift, &total, &squares)
    if out_of_range(shift, squares, n):
        exact_moments(x, 1, n, &mean, &m2)
    else:
        mean = shift + total / n
        m2 = squares - total * (total / n)
        if m2 < 0:
            m2 = 0
    merge(moments, n, mean, m2)


# Apply.

cdef struct Line:
    # How n values of x go to y: their strides, in elements.
    Py_ssize_t n, x_stride, y_stride


cdef inline void two_parts(double mean, real* high, real* low) noexcept nogil:
    """mean = high + low, as exactly as two values of the input's type can say it."""
    high[0] = <real> mean
    low[0] = <real> (mean - high[0])


cdef inline void apply_constant(
    const real* x, real* y, Line line, real high, real low, real scale, real bias
) noexcept nogil:
    """y = ((x - high) - low) * scale + bias with the same four along the line: channels_first."""
    cdef real z[LANES]
    cdef Py_ssize_t i = 0
    cdef int l, rest
    if line.x_stride != 1 or line.y_stride != 1:
        for i in range(line.n):
            y[i * line.y_stride] = ((x[i * line.x_stride] - high) - low) * scale + bias
        return
    while i + LANES <= line.n:
        for l in range(LANES):
            z[l] = ((x[i + l] - high) - low) * scale + bias
        for l in range(LANES):
            y[i + l] = z[l]
        i += LANES
    rest = <int> (line.n - i)
    if rest:
        for l in range(LANES):
            if l < rest:
                z[l] = ((x[i + l] - high) - low) * scale + bias
        for l in range(LANES):
            if l < rest:
                y[i + l] = z[l]


cdef inline void apply_channels(
    const real* x, real* y, Line line, const real* high, const real* low, const real* scale, const real* bias
) noexcept nogil:
    """y = ((x - high) - low) * scale + bias with vectors along the line: channels_last."""
    cdef real z[LANES]
    cdef Py_ssize_t i = 0
    cdef int l, rest
    if line.x_stride != 1 or line.y_stride != 1:
        for i in range(line.n):
            y[i * line.y_stride] = ((x[i * line.x_stride] - high[i]) - low[i]) * scale[i] + bias[i]
        return
    while i + LANES <= line.n:
        for l in range(LANES):
            z[l] = ((x[i + l] - high[i + l]) - low[i + l]) * scale[i + l] + bias[i + l]
        for l in range(LANES):
            y[i + l] = z[l]
        i += LANES
    rest = <int> (line.n - i)
    if rest:
        for l in range(LANES):
            if l < rest:
                z[l] = ((x[i + l] - high[i + l]) - low[i + l]) * scale[i + l] + bias[i + l]
        for l in range(LANES):
            if l < rest:
                y[i + l] = z[l]


cdef inline void apply_row(
    const real* x, real* y, Line line, real high, real low, real rstd, const real* weight, const real* bias
) noexcept nogil:
    """y = ((x - high) - low) * rstd * weight + bias with vectors weight and bias along the line: LayerNorm."""
    cdef real z[LANES]
    cdef Py_ssize_t i = 0
    cdef int l, rest
    if line.x_stride != 1 or line.y_stride != 1:
        for i in range(line.n):
            y[i * line.y_stride] = ((x[i * line.x_stride] - high) - low) * rstd * weight[i] + bias[i]
        return
    while i + LANES <= line.n:
        for l in range(LANES):
            z[l] = ((x[i + l] - high) - low) * rstd * weight[i + l] + bias[i + l]
        for l in range(LANES):
            y[i + l] = z[l]
        i += LANES
    rest = <int> (line.n - i)
    if rest:
        for l in range(LANES):
            if l < rest:
                z[l] = ((x[i + l] - high) - low) * rstd * weight[i + l] + bias[i + l]
        for l in range(LANES):
            if l < rest:
                y[i + l] = z[l]


cdef struct Coefficients:
    # Four vectors of `samples * channels` values of the input's type, one allocation: high, low, scale, bias.
    void* high
    void* low
    void* scale
    void* bias


cdef bint allocate(real tag, Coefficients* c, Py_ssize_t count) noexcept nogil:
    """Room for four vectors of `count`; False when there is none. `free(c.high)` returns it."""
    cdef real* memory = <real*> malloc(4 * count * sizeof(real))
    if memory == NULL:
        return False
    c.high, c.low, c.scale, c.bias = memory, memory + count, memory + 2 * count, memory + 3 * count
    return True


cdef inline void set_coefficients(
    Coefficients* c, Py_ssize_t i, double mean, double rstd, const real* weight, const real* bias, Py_ssize_t channel
) noexcept nogil:
    two_parts(mean, <real*> c.high + i, <real*> c.low + i)
    (<real*> c.scale)[i] = <real> (rstd if weight == NULL else rstd * weight[channel])
    (<real*> c.bias)[i] = 0 if bias == NULL else bias[channel]


# Walking the lines of a layout.  A line is what lies between two steps of the inner loop: one channel of
# one sample in channels_first (inner values), all channels of one position in channels_last.

cdef inline bint channels_last(const Walk* w) noexcept nogil:
    return w.x_channel == 1 and w.channels > 1 and (w.x_inner != 1 or w.inner == 1)


cdef void apply_first(
    const real* x, real* y, const Walk* w, const Coefficients* c, Py_ssize_t pieces, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """The pieces start..stop of all lines (sample, outer, channel, middle), each cut into `pieces`."""
    cdef Py_ssize_t length = (w.inner + pieces - 1) // pieces
    cdef Py_ssize_t unit = start, rest = start // pieces, piece = start % pieces
    cdef Py_ssize_t middle = rest % w.middle, channel = rest // w.middle % w.channels
    cdef Py_ssize_t outer = rest // (w.middle * w.channels) % w.outer
    cdef Py_ssize_t sample = rest // (w.middle * w.channels * w.outer), i
    cdef const real* source
    cdef real* target
    cdef Line line = Line(0, w.x_inner, w.y_inner)
    while unit < stop:
        source = (x + sample * w.x_sample + outer * w.x_outer + channel * w.x_channel + middle * w.x_middle
                  + piece * length * w.x_inner)
        target = (y + sample * w.y_sample + outer * w.y_outer + channel * w.y_channel + middle * w.y_middle
                  + piece * length * w.y_inner)
        line.n = min(length, w.inner - piece * length)
        i = sample * w.channels + channel
        apply_constant(source, target, line, (<real*> c.high)[i], (<real*> c.low)[i], (<real*> c.scale)[i],
                       (<real*> c.bias)[i])
        unit += 1
        piece += 1
        if piece == pieces:
            piece = 0
            middle += 1
            if middle == w.middle:
                middle = 0
                channel += 1
                if channel == w.channels:
                    channel = 0
                    outer += 1
                    if outer == w.outer:
                        outer = 0
                        sample += 1


cdef void apply_last(
    const real* x, real* y, const Walk* w, const Coefficients* c, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """The lines start..stop of all lines (sample, outer, middle, inner), each of all channels."""
    cdef Py_ssize_t unit = start, inner = start % w.inner, middle = start // w.inner % w.middle
    cdef Py_ssize_t outer = start // (w.inner * w.middle) % w.outer
    cdef Py_ssize_t sample = start // (w.inner * w.middle * w.outer), i
    cdef Line line = Line(w.channels, w.x_channel, w.y_channel)
    while unit < stop:
        i = sample * w.channels
        apply_channels(
            x + sample * w.x_sample + outer * w.x_outer + middle * w.x_middle + inner * w.x_inner,
            y + sample * w.y_sample + outer * w.y_outer + middle * w.y_middle + inner * w.y_inner,
            line, <real*> c.high + i, <real*> c.low + i, <real*> c.scale + i, <real*> c.bias + i)
        unit += 1
        inner += 1
        if inner == w.inner:
            inner = 0
            middle += 1
            if middle == w.middle:
                middle = 0
                outer += 1
                if outer == w.outer:
                    outer = 0
                    sample += 1


cdef inline Py_ssize_t foldable(const Walk* w, Py_ssize_t width) noexcept nogil:
    """How many lines of few channels, if they follow each other in memory, are walked as one of up to `width` values."""
    cdef Py_ssize_t fold = 1
    if w.outer == 1 and w.middle == 1 and w.x_inner == w.channels and w.y_inner == w.channels and w.y_channel == 1:
        while 2 * fold * w.channels <= width and 2 * fold <= w.inner:
            fold *= 2
    return fold


cdef inline Walk folded(const Walk* w, Py_ssize_t fold) noexcept nogil:
    """The Walk whose lines are `fold` lines of w (the last w.inner % fold lines are left out)."""
    cdef Walk f = w[0]
    f.channels, f.inner = w.channels * fold, w.inner // fold
    f.x_inner, f.y_inner = f.channels, f.channels
    return f


cdef void repeat(const real* source, real* target, Py_ssize_t samples, Py_ssize_t channels, Py_ssize_t times) noexcept nogil:
    """target (samples, times, channels) = source (samples, channels)."""
    cdef Py_ssize_t sample, i, channel
    for sample in range(samples):
        for i in range(times):
            for channel in range(channels):
                target[(sample * times + i) * channels + channel] = source[sample * channels + channel]


cdef void apply_all(const real* x, real* y, const Walk* w, const Coefficients* c, int threads) noexcept nogil:
    """y from x with coefficients per sample and channel, the lines shared evenly by the threads."""
    cdef int thread
    cdef bint last = channels_last(w)
    cdef Py_ssize_t fold = foldable(w, FOLDED) if last else 1, pieces = 1, lines, sample
    cdef Walk f = folded(w, fold) if fold > 1 else w[0]
    cdef Coefficients repeated
    cdef const Coefficients* all = c
    if fold > 1 and allocate(<real> 0, &repeated, f.samples * f.channels):
        repeat(<real*> c.high, <real*> repeated.high, w.samples, w.channels, fold)
        repeat(<real*> c.low, <real*> repeated.low, w.samples, w.channels, fold)
        repeat(<real*> c.scale, <real*> repeated.scale, w.samples, w.channels, fold)
        repeat(<real*> c.bias, <real*> repeated.bias, w.samples, w.channels, fold)
        all = &repeated
        for sample in range(w.samples):
            apply_last(x, y, w, c, sample * w.inner + fold * f.inner, (sample + 1) * w.inner)
    else:
        f = w[0]
    lines = f.samples * f.outer * f.middle * (f.inner if last else f.channels)
    if not last and lines < 4 * threads:
        pieces = (f.inner + PIECE - 1) // PIECE
        lines *= pieces
    if threads == 1:
        apply_lines(x, y, &f, all, last, pieces, 0, lines)
    else:
        for thread in prange(threads, num_threads=threads, schedule="static"):
            apply_lines(x, y, &f, all, last, pieces, lines * thread // threads, lines * (thread + 1) // threads)
    if all == &repeated:
        free(repeated.high)


cdef void apply_lines(
    const real* x, real* y, const Walk* w, const Coefficients* c, bint last, Py_ssize_t pieces,
    Py_ssize_t start, Py_ssize_t stop,
) noexcept nogil:
    if last:
        apply_last(x, y, w, c, start, stop)
    else:
        apply_first(x, y, w, c, pieces, start, stop)


cdef int batch_norm_inference_of(
    const real* x, real* y, const Walk* w, const double* mean, const double* var,
    const real* weight, const real* bias, double eps, int threads,
) noexcept nogil:
    cdef Coefficients c
    cdef Py_ssize_t channel
    if not allocate(<real> 0, &c, w.channels):
        return -1
    for channel in range(w.channels):
        set_coefficients(&c, channel, mean[channel], 1 / sqrt(var[channel] + eps), weight, bias, channel)
    apply_all(x, y, w, &c, threads)
    free(c.high)
    return 0


# channels_first moments: a domain is `segments` runs of `length` values each.

cdef struct Domain:
    Py_ssize_t channels, length  # channels of the domain; values of one segment
    Py_ssize_t segments  # outer * channels * middle
    # How a domain is cut: `across` parts of `part_segments` segments, times `along` parts of `part_length` values.
    Py_ssize_t across, along, part_segments, part_length


cdef Domain cut_domain(const Walk* w, Py_ssize_t channels) noexcept nogil:
    cdef Domain d
    d.channels, d.length = channels, w.inner
    if w.outer == 1 and w.middle == 1 and w.x_channel == w.inner * w.x_inner:
        d.channels, d.length = 1, channels * w.inner  # the channels of a group follow each other: one run
    d.segments = w.outer * d.channels * w.middle
    d.along = (d.length + PART - 1) // PART
    d.part_length = (d.length + d.along - 1) // d.along
    d.part_segments = max(1, PART // d.length) if d.along == 1 else 1
    d.across = (d.segments + d.part_segments - 1) // d.part_segments
    return d


cdef Moments part_moments(const real* x, const Walk* w, const Domain* d, Py_ssize_t part) noexcept nogil:
    """Moments of one part of the domain that starts at x; short or strided segments are gathered into a block."""
    cdef Moments moments = Moments(0, 0, 0)
    cdef real gathered[BLOCK]
    cdef Py_ssize_t segment = part // d.along * d.part_segments
    cdef Py_ssize_t stop = min(segment + d.part_segments, d.segments)
    cdef Py_ssize_t first = part % d.along * d.part_length
    cdef Py_ssize_t length = min(d.part_length, d.length - first)
    cdef Py_ssize_t middle = segment % w.middle, channel = segment // w.middle % d.channels
    cdef Py_ssize_t outer = segment // (w.middle * d.channels), i, n, filled = 0
    cdef const real* source
    while segment < stop:
        source = x + outer * w.x_outer + channel * w.x_channel + middle * w.x_middle + first * w.x_inner
        i = 0
        if w.x_inner == 1 and length >= BLOCK // 4:
            while i < length:
                n = min(<Py_ssize_t> BLOCK, length - i)
                add_block(&moments, source + i, n)
                i += n
        while i < length:
            n = min(BLOCK - filled, length - i)
            gather(source + i * w.x_inner, w.x_inner, &gathered[filled], n)
            filled += n
            i += n
            if filled == BLOCK:
                add_block(&moments, &gathered[0], filled)
                filled = 0
        segment += 1
        middle += 1
        if middle == w.middle:
            middle = 0
            channel += 1
            if channel == d.channels:
                channel = 0
                outer += 1
    if filled:
        add_block(&moments, &gathered[0], filled)
    return moments


cdef inline void gather(const real* x, Py_ssize_t stride, real* target, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    if stride == 1:
        for i in range(n):
            target[i] = x[i]
    else:
        for i in range(n):
            target[i] = x[i * stride]


cdef void apply_domain(
    const real* x, real* y, const Walk* w, Py_ssize_t channels, const Moments* moments, const real* weight,
    const real* bias, double eps,
) noexcept nogil:
    """y from x for the `channels` channels of the domain that starts at x and y, while it is still in cache."""
    cdef Py_ssize_t channel, outer, middle
    cdef double rstd = 1 / sqrt(moments.m2 / moments.count + eps)
    cdef real high, low, scale, shift
    cdef Line line = Line(w.inner, w.x_inner, w.y_inner)
    two_parts(moments.mean, &high, &low)
    for channel in range(channels):
        scale = <real> (rstd if weight == NULL else rstd * weight[channel])
        shift = 0 if bias == NULL else bias[channel]
        for outer in range(w.outer):
            for middle in range(w.middle):
                apply_constant(
                    x + outer * w.x_outer + channel * w.x_channel + middle * w.x_middle,
                    y + outer * w.y_outer + channel * w.y_channel + middle * w.y_middle,
                    line, high, low, scale, shift)


cdef void whole_domain(
    const real* x, real* y, const Walk* w, const Domain* d, Moments* parts, Py_ssize_t groups, Py_ssize_t index,
    double* mean, double* var, const real* weight, const real* bias, double eps,
) noexcept nogil:
    """Moments and apply of the domain `index` = (sample, group), by one thread."""
    cdef Moments alone
    cdef Py_ssize_t part, channels = w.channels // groups
    cdef Py_ssize_t sample = index // groups, channel = index % groups * channels
    cdef const real* source = x + sample * w.x_sample + channel * w.x_channel
    if d.across * d.along == 1:
        alone = part_moments(source, w, d, 0)
        parts = &alone
    else:
        parts += index * d.across * d.along
        for part in range(d.across * d.along):
            parts[part] = part_moments(source, w, d, part)
        merge_tree(parts, d.across * d.along)
    if mean != NULL:
        mean[index], var[index] = parts.mean, parts.m2 / parts.count
    apply_domain(
        source, y + sample * w.y_sample + channel * w.y_channel, w, channels, parts,
        weight + channel if weight != NULL else NULL, bias + channel if bias != NULL else NULL, eps)


cdef int grouped_first(
    const real* x, real* y, const Walk* w, Py_ssize_t groups, double* mean, double* var,
    const real* weight, const real* bias, double eps, int threads,
) noexcept nogil:
    """channels_first: a thread takes whole domains; where they are few and large, parts of them."""
    cdef Py_ssize_t channels = w.channels // groups, domains = w.samples * groups
    cdef Domain d = cut_domain(w, channels)
    cdef Py_ssize_t n_parts = d.across * d.along, index, i, channel
    cdef Moments* parts = NULL
    cdef Coefficients c
    cdef double rstd
    if n_parts > 1:
        parts = <Moments*> malloc(domains * n_parts * sizeof(Moments))
        if parts == NULL:
            return -1
    if n_parts > 1 and threads > 1 and domains < 4 * threads:
        if not allocate(<real> 0, &c, w.samples * w.channels):
            free(parts)
            return -1
        for i in prange(domains * n_parts, num_threads=threads, schedule="static"):
            parts[i] = part_moments(
                x + i // n_parts // groups * w.x_sample + i // n_parts % groups * channels * w.x_channel,
                w, &d, i % n_parts)
        for index in range(domains):
            i = index * n_parts
            merge_tree(&parts[i], n_parts)
            rstd = 1 / sqrt(parts[i].m2 / parts[i].count + eps)
            if mean != NULL:
                mean[index], var[index] = parts[i].mean, parts[i].m2 / parts[i].count
            for channel in range(channels):
                set_coefficients(
                    &c, index * channels + channel, parts[i].mean, rstd, weight, bias,
                    index % groups * channels + channel)
        apply_all(x, y, w, &c, threads)
        free(c.high)
    elif threads == 1 or domains == 1:
        for index in range(domains):
            whole_domain(x, y, w, &d, parts, groups, index, mean, var, weight, bias, eps)
    else:
        for index in prange(domains, num_threads=threads, schedule="static"):
            whole_domain(x, y, w, &d, parts, groups, index, mean, var, weight, bias, eps)
    free(parts)
    return 0


# channels_last moments: each channel has a lane of its own, ROWS lines make a block.

cdef inline void tile_moments(
    const real* const* lines, Py_ssize_t n, Py_ssize_t width, bint first, double count, double* mean, double* m2,
) noexcept nogil:
    """mean and m2 of `width` <= LANES channels, known for `count` lines, with n <= ROWS more lines."""
    cdef real k[LANES]
    cdef real s[LANES]
    cdef real q[LANES]
    cdef real d
    cdef double block_mean[LANES]
    cdef double block_m2[LANES]
    cdef double share = n / (count + n), between = count * share, delta
    cdef Py_ssize_t r
    cdef int l, lanes = <int> width, redo = 0
    cdef const real* x
    for l in range(LANES):
        k[l] = 0
        s[l] = 0
        q[l] = 0
    if first:
        for l in range(lanes):
            k[l] = lines[0][l]
        if lanes == LANES:
            for r in range(n):
                x = lines[r]
                for l in range(LANES):
                    s[l] += x[l] - k[l]
        else:
            for r in range(n):
                x = lines[r]
                for l in range(lanes):
                    s[l] += x[l] - k[l]
        for l in range(LANES):
            k[l] += s[l] / n
            s[l] = 0
    else:
        for l in range(lanes):
            k[l] = <real> mean[l]
    if lanes == LANES:
        for r in range(n):
            x = lines[r]
            for l in range(LANES):
                d = x[l] - k[l]
                s[l] += d
                q[l] += d * d
    else:
        for r in range(n):
            x = lines[r]
            for l in range(lanes):
                d = x[l] - k[l]
                s[l] += d
                q[l] += d * d
    for l in range(lanes):
        block_mean[l] = k[l] + <double> s[l] / n
        block_m2[l] = max(q[l] - <double> s[l] * s[l] / n, 0.0)
        redo += out_of_range(k[l], q[l], n)
    if redo:
        for l in range(lanes):
            if out_of_range(k[l], q[l], n):
                exact_column(lines, l, n, &block_mean[l], &block_m2[l])
    for l in range(lanes):
        delta = block_mean[l] - mean[l]
        mean[l] += delta * share
        m2[l] += block_m2[l] + delta * delta * between


cdef void exact_column(
    const real* const* lines, int lane, Py_ssize_t n, double* mean, double* m2
) noexcept nogil:
    """`exact_moments` of one channel of n <= ROWS lines."""
    cdef real column[ROWS]
    cdef Py_ssize_t r
    for r in range(n):
        column[r] = lines[r][lane]
    exact_moments(&column[0], 1, n, mean, m2)


cdef void lines_moments(
    const real* x, const Walk* w, Py_ssize_t start, Py_ssize_t stop, double* mean, double* m2
) noexcept nogil:
    """mean and m2 of every channel over the lines start..stop (outer, middle, inner) of one sample."""
    cdef const real* lines[ROWS]
    cdef Py_ssize_t inner = start % w.inner, middle = start // w.inner % w.middle
    cdef Py_ssize_t outer = start // (w.inner * w.middle), line = start, n, channel, r
    for channel in range(w.channels):
        mean[channel] = 0
        m2[channel] = 0
    while line < stop:
        n = min(<Py_ssize_t> ROWS, stop - line)
        for r in range(n):
            lines[r] = x + outer * w.x_outer + middle * w.x_middle + inner * w.x_inner
            inner += 1
            if inner == w.inner:
                inner = 0
                middle += 1
                if middle == w.middle:
                    middle = 0
                    outer += 1
        channel = 0
        while channel < w.channels:
            tile_moments(lines, n, min(<Py_ssize_t> LANES, w.channels - channel), line == start, <double> (line - start),
                         mean + channel, m2 + channel)
            for r in range(n):
                lines[r] += LANES
            channel += LANES
        line += n


cdef void merge_lines(
    double* means, double* m2s, Py_ssize_t channels, Py_ssize_t parts, Py_ssize_t part_lines, Py_ssize_t lines
) noexcept nogil:
    """Row 0 of means and m2s (parts, channels) = all parts, merged pairwise in a fixed order."""
    cdef Py_ssize_t i, channel, step = 1
    cdef double n_a, n_b, delta
    cdef double* a
    cdef double* b
    while step < parts:
        i = 0
        while i + step < parts:
            n_a = step * part_lines
            n_b = min((i + 2 * step) * part_lines, lines) - (i + step) * part_lines
            a = means + i * channels
            b = means + (i + step) * channels
            for channel in range(channels):
                delta = b[channel] - a[channel]
                a[channel] += delta * (n_b / (n_a + n_b))
                m2s[i * channels + channel] += (
                    m2s[(i + step) * channels + channel] + delta * delta * (n_a * n_b / (n_a + n_b)))
            i += 2 * step
        step *= 2


cdef int grouped_last(
    const real* x, real* y, const Walk* w, Py_ssize_t groups, double* mean, double* var,
    const real* weight, const real* bias, double eps, int threads,
) noexcept nogil:
    """channels_last: moments of each channel by parts of the lines, channels merged into groups, then apply."""
    cdef Py_ssize_t fold = foldable(w, LANES), channels = w.channels // groups
    cdef Walk f = folded(w, fold)
    cdef Py_ssize_t lines = f.outer * f.middle * f.inner, rest = w.inner - fold * f.inner
    cdef Py_ssize_t part_lines = max(<Py_ssize_t> ROWS, PART // f.channels // ROWS * ROWS)
    cdef Py_ssize_t parts = (lines + part_lines - 1) // part_lines, i, sample, group, channel, line, column
    cdef Py_ssize_t size = parts * f.channels
    cdef double* means = <double*> malloc(2 * w.samples * size * sizeof(double))
    cdef double* m2s = means + w.samples * size
    cdef double rest_mean, rest_m2, rstd
    cdef Moments moments
    cdef Coefficients c
    if means == NULL:
        return -1
    if not allocate(<real> 0, &c, w.samples * w.channels):
        free(means)
        return -1
    if threads == 1:
        for i in range(w.samples * parts):
            lines_moments(x + i // parts * w.x_sample, &f, i % parts * part_lines, min((i % parts + 1) * part_lines, lines),
                          means + i * f.channels, m2s + i * f.channels)
    else:
        for i in prange(w.samples * parts, num_threads=threads, schedule="static"):
            lines_moments(x + i // parts * w.x_sample, &f, i % parts * part_lines, min((i % parts + 1) * part_lines, lines),
                          means + i * f.channels, m2s + i * f.channels)
    for sample in range(w.samples):
        i = sample * size
        merge_lines(means + i, m2s + i, f.channels, parts, part_lines, lines)
        for group in range(groups):
            moments = Moments(0, 0, 0)
            for channel in range(group * channels, (group + 1) * channels):
                for line in range(fold):
                    column = i + line * w.channels + channel
                    merge(&moments, <double> lines, means[column], m2s[column])
                if rest:
                    exact_moments(x + sample * w.x_sample + (w.inner - rest) * w.x_inner + channel, w.x_inner, rest,
                                  &rest_mean, &rest_m2)
                    merge(&moments, <double> rest, rest_mean, rest_m2)
            if mean != NULL:
                mean[sample * groups + group], var[sample * groups + group] = moments.mean, moments.m2 / moments.count
            rstd = 1 / sqrt(moments.m2 / moments.count + eps)
            for channel in range(group * channels, (group + 1) * channels):
                set_coefficients(&c, sample * w.channels + channel, moments.mean, rstd, weight, bias, channel)
    free(means)
    apply_all(x, y, w, &c, threads)
    free(c.high)
    return 0


cdef int grouped_of(
    const real* x, real* y, const Walk* w, Py_ssize_t groups, double* mean, double* var,
    const real* weight, const real* bias, double eps, int threads,
) noexcept nogil:
    if channels_last(w):
        return grouped_last(x, y, w, groups, mean, var, weight, bias, eps, threads)
    return grouped_first(x, y, w, groups, mean, var, weight, bias, eps, threads)


# Rows.

cdef inline void apply_width(
    const real* x, real* y, Line line, const Moments* moments, const real* weight, const real* bias, double eps
) noexcept nogil:
    cdef real high, low, rstd = <real> (1 / sqrt(moments.m2 / moments.count + eps))
    two_parts(moments.mean, &high, &low)
    if weight == NULL:
        apply_constant(x, y, line, high, low, rstd, 0)
    else:
        apply_row(x, y, line, high, low, rstd, weight, bias)


cdef void whole_row(
    const real* x, real* y, const Walk* w, const Domain* d, Moments* parts, Py_ssize_t index,
    const real* weight, const real* bias, double eps,
) noexcept nogil:
    cdef Moments alone
    cdef Py_ssize_t part
    cdef const real* source = x + index // w.middle * w.x_sample + index % w.middle * w.x_middle
    cdef Line line = Line(w.inner, w.x_inner, w.y_inner)
    if d.along == 1:
        alone = part_moments(source, w, d, 0)
        parts = &alone
    else:
        parts += index * d.along
        for part in range(d.along):
            parts[part] = part_moments(source, w, d, part)
        merge_tree(parts, d.along)
    apply_width(source, y + index // w.middle * w.y_sample + index % w.middle * w.y_middle, line, parts, weight, bias, eps)


cdef int layer_norm_of(
    const real* x, real* y, const Walk* w, const real* weight, const real* bias, double eps, int threads
) noexcept nogil:
    """A thread takes whole rows; where they are few and long, parts of them."""
    cdef Py_ssize_t rows = w.samples * w.middle, index, i, at
    cdef Domain d = Domain(1, w.inner, 1, 1, (w.inner + PART - 1) // PART, 1, 0)
    cdef real* constant = NULL
    cdef Moments* parts = NULL
    d.part_length = (d.length + d.along - 1) // d.along
    if (weight == NULL) != (bias == NULL):
        constant = <real*> malloc(w.inner * sizeof(real))
        if constant == NULL:
            return -1
        for i in range(w.inner):
            constant[i] = 1 if weight == NULL else 0
        if weight == NULL:
            weight = constant
        else:
            bias = constant
    if d.along > 1:
        parts = <Moments*> malloc(rows * d.along * sizeof(Moments))
        if parts == NULL:
            free(constant)
            return -1
    if d.along > 1 and threads > 1 and rows < 4 * threads:
        for i in prange(rows * d.along, num_threads=threads, schedule="static"):
            index = i // d.along
            parts[i] = part_moments(
                x + index // w.middle * w.x_sample + index % w.middle * w.x_middle, w, &d, i % d.along)
        for index in range(rows):
            merge_tree(&parts[index * d.along], d.along)
        for i in prange(rows * d.along, num_threads=threads, schedule="static"):
            index = i // d.along
            at = i % d.along * d.part_length
            apply_width(
                x + index // w.middle * w.x_sample + index % w.middle * w.x_middle + at * w.x_inner,
                y + index // w.middle * w.y_sample + index % w.middle * w.y_middle + at * w.y_inner,
                Line(min(d.part_length, d.length - at), w.x_inner, w.y_inner), &parts[index * d.along],
                weight + at if weight != NULL else NULL, bias + at if bias != NULL else NULL, eps)
    elif threads == 1 or rows == 1:
        for index in range(rows):
            whole_row(x, y, w, &d, parts, index, weight, bias, eps)
    else:
        for index in prange(rows, num_threads=threads, schedule="static"):
            whole_row(x, y, w, &d, parts, index, weight, bias, eps)
    free(parts)
    free(constant)
    return 0


# The kernel set, for C and for Python.

cdef KernelSet kernel_set
kernel_set.batch_norm_inference[0] = <inference_function> &batch_norm_inference_of[float]
kernel_set.batch_norm_inference[1] = <inference_function> &batch_norm_inference_of[double]
kernel_set.grouped[0] = <training_function> &grouped_of[float]
kernel_set.grouped[1] = <training_function> &grouped_of[double]
kernel_set.layer_norm[0] = <rows_function> &layer_norm_of[float]
kernel_set.layer_norm[1] = <rows_function> &layer_norm_of[double]

KERNEL_SET = PyCapsule_New(&kernel_set, "cpunorm.KernelSet", NULL)


cdef inline Walk channel_walk(cnp.ndarray x, cnp.ndarray y, bint samples):
    """The Walk of two canonical views; their first axis is the samples' or `outer`."""
    cdef Walk w = Walk(1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(x)
    if samples:
        w.samples, w.x_sample, w.y_sample = x.shape[0], x.strides[0] // size, y.strides[0] // size
    else:
        w.outer, w.x_outer, w.y_outer = x.shape[0], x.strides[0] // size, y.strides[0] // size
    w.middle, w.x_middle, w.y_middle = x.shape[1], x.strides[1] // size, y.strides[1] // size
    if x.ndim == 4:
        w.channels, w.x_channel, w.y_channel = x.shape[2], x.strides[2] // size, y.strides[2] // size
    w.inner, w.x_inner, w.y_inner = x.shape[x.ndim - 1], x.strides[x.ndim - 1] // size, y.strides[x.ndim - 1] // size
    return w


cdef inline void* data(object vector):
    return NULL if vector is None else cnp.PyArray_DATA(vector)


cdef inline int kind(cnp.ndarray x):
    return 0 if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32 else 1


cdef int raise_if(int failed) except -1:
    if failed:
        raise MemoryError("cpunorm: no memory for the scratch of a kernel")
    return 0


def batch_norm_training(cnp.ndarray x, cnp.ndarray y, cnp.ndarray mean, cnp.ndarray var, weight, bias, double eps, int num_threads):
    """x, y: (outer, middle, channels, inner); writes the batch's moments to `mean` and `var`."""
    cdef Walk w = channel_walk(x, y, False)
    cdef training_function function = kernel_set.grouped[kind(x)]
    cdef const void* source = data(x)
    cdef void* target = data(y)
    cdef double* means = <double*> data(mean)
    cdef double* vars_ = <double*> data(var)
    cdef const void* weights = data(weight)
    cdef const void* biases = data(bias)
    cdef int failed
    with nogil:
        failed = function(source, target, &w, w.channels, means, vars_, weights, biases, eps, num_threads)
    raise_if(failed)


def batch_norm_inference(cnp.ndarray x, cnp.ndarray y, cnp.ndarray mean, cnp.ndarray var, weight, bias, double eps, int num_threads):
    """x, y: (outer, middle, channels, inner)."""
    cdef Walk w = channel_walk(x, y, False)
    cdef inference_function function = kernel_set.batch_norm_inference[kind(x)]
    cdef const void* source = data(x)
    cdef void* target = data(y)
    cdef const double* means = <const double*> data(mean)
    cdef const double* vars_ = <const double*> data(var)
    cdef const void* weights = data(weight)
    cdef const void* biases = data(bias)
    cdef int failed
    with nogil:
        failed = function(source, target, &w, means, vars_, weights, biases, eps, num_threads)
    raise_if(failed)


def group_norm(cnp.ndarray x, cnp.ndarray y, Py_ssize_t groups, weight, bias, double eps, int num_threads):
    """x, y: (samples, middle, channels, inner); moments per sample over `channels // groups` channels."""
    cdef Walk w = channel_walk(x, y, True)
    cdef training_function function = kernel_set.grouped[kind(x)]
    cdef const void* source = data(x)
    cdef void* target = data(y)
    cdef const void* weights = data(weight)
    cdef const void* biases = data(bias)
    cdef int failed
    with nogil:
        failed = function(source, target, &w, groups, NULL, NULL, weights, biases, eps, num_threads)
    raise_if(failed)


def layer_norm(cnp.ndarray x, cnp.ndarray y, weight, bias, double eps, int num_threads):
    """x, y: (outer, middle, width); moments per row of `width` values."""
    cdef Walk w = channel_walk(x, y, True)
    cdef rows_function function = kernel_set.layer_norm[kind(x)]
    cdef const void* source = data(x)
    cdef void* target = data(y)
    cdef const void* weights = data(weight)
    cdef const void* biases = data(bias)
    cdef int failed
    with nogil:
        failed = function(source, target, &w, weights, biases, eps, num_threads)
    raise_if(failed)
