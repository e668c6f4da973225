# Apply: y = ((x - high) - low) * scale + bias along one line, and over all lines of a layout.
# Included by _kernels.pyx, whose header says how and why.

cdef struct Line:
    # How n values of x go to y: their strides, in elements; how far ahead to fetch, where that isn't AHEAD; whether y
    # is stored past the caches.
    Py_ssize_t n, x_stride, y_stride, ahead
    bint streamed


cdef inline bint past_cache(const real* x, const real* y, const Walk* w) noexcept nogil:
    """Whether x and y together are too large to be found in cache by whoever reads y."""
    return STREAM_BYTES > 0 and x != y and (
        2 * <Py_ssize_t> sizeof(real) * w.samples * w.outer * w.middle * w.channels * w.inner >= STREAM_BYTES)


cdef inline void put(real* y, const real* z, int width, int n, bint streamed) noexcept nogil:
    """y = z, n <= width values that are in registers; `width` is a constant, and only whole widths are streamed."""
    cdef int j
    if streamed:
        stream(y, z, width * <int> sizeof(real))
    else:
        for j in range(width):
            if j < n:
                y[j] = z[j]


cdef inline void two_parts(double mean, real* high, real* low) noexcept nogil:
    """mean = high + low, as exactly as two values of the input's type can say it."""
    high[0] = <real> mean
    low[0] = <real> (mean - high[0])


# One step of a line: n <= width values; `width`, LANES or VECTOR, is a constant, so that the loop becomes vectors.

cdef inline void step_constant(
    const real* x, real* y, int width, int n, bint streamed, real high, real low, real scale, real bias
) noexcept nogil:
    cdef real z[LANES]
    cdef int j
    for j in range(width):
        z[j] = ((x[j] - high) - low) * scale + bias if j < n else 0
    put(y, &z[0], width, n, streamed)


cdef inline void step_channels(
    const real* x, real* y, int width, int n, bint streamed,
    const real* high, const real* low, const real* scale, const real* bias
) noexcept nogil:
    cdef real z[LANES]
    cdef int j
    for j in range(width):
        z[j] = ((x[j] - high[j]) - low[j]) * scale[j] + bias[j] if j < n else 0
    put(y, &z[0], width, n, streamed)


cdef inline void step_row(
    const real* x, real* y, int width, int n, bint streamed,
    real high, real low, real rstd, const real* weight, const real* bias
) noexcept nogil:
    cdef real z[LANES]
    cdef int j
    for j in range(width):
        z[j] = ((x[j] - high) - low) * rstd * weight[j] + bias[j] if j < n else 0
    put(y, &z[0], width, n, streamed)


cdef inline void apply_constant(
    const real* x, real* y, Line line, real high, real low, real scale, real bias
) noexcept nogil:
    """y = ((x - high) - low) * scale + bias with the same four along the line: channels_first."""
    cdef Py_ssize_t i = 0, n = line.n, ahead = AHEAD // <int> sizeof(real)
    if line.x_stride != 1 or line.y_stride != 1:
        for i in range(n):
            y[i * line.y_stride] = ((x[i * line.x_stride] - high) - low) * scale + bias
        return
    if line.streamed and <size_t> y % 64 == 0:
        while i + LANES <= n:
            will_read(x + i + ahead)
            step_constant(x + i, y + i, LANES, LANES, True, high, low, scale, bias)
            i += LANES
    while i + LANES <= n:
        will_write(y + i + ahead)
        step_constant(x + i, y + i, LANES, LANES, False, high, low, scale, bias)
        i += LANES
    while i + VECTOR <= n:
        step_constant(x + i, y + i, VECTOR, VECTOR, False, high, low, scale, bias)
        i += VECTOR
    if i < n:
        step_constant(x + i, y + i, VECTOR, <int> (n - i), False, high, low, scale, bias)


cdef inline void apply_channels(
    const real* x, real* y, Line line, const real* high, const real* low, const real* scale, const real* bias
) noexcept nogil:
    """y = ((x - high) - low) * scale + bias with vectors along the line: channels_last."""
    cdef Py_ssize_t i = 0, n = line.n, ahead = AHEAD // <int> sizeof(real)
    if line.x_stride != 1 or line.y_stride != 1:
        for i in range(n):
            y[i * line.y_stride] = ((x[i * line.x_stride] - high[i]) - low[i]) * scale[i] + bias[i]
        return
    if line.streamed and <size_t> y % 64 == 0:
        while i + LANES <= n:
            will_read(x + i + ahead)
            step_channels(x + i, y + i, LANES, LANES, True, high + i, low + i, scale + i, bias + i)
            i += LANES
    while i + LANES <= n:
        will_read(x + i + ahead)
        will_write(y + i + ahead)
        step_channels(x + i, y + i, LANES, LANES, False, high + i, low + i, scale + i, bias + i)
        i += LANES
    while i + VECTOR <= n:
        step_channels(x + i, y + i, VECTOR, VECTOR, False, high + i, low + i, scale + i, bias + i)
        i += VECTOR
    if i < n:
        step_channels(x + i, y + i, VECTOR, <int> (n - i), False, high + i, low + i, scale + i, bias + i)


cdef inline void apply_row(
    const real* x, real* y, Line line, real high, real low, real rstd, const real* weight, const real* bias
) noexcept nogil:
    """y = ((x - high) - low) * rstd * weight + bias with vectors weight and bias along the line: LayerNorm."""
    cdef Py_ssize_t i = 0, n = line.n
    if line.x_stride != 1 or line.y_stride != 1:
        for i in range(n):
            y[i * line.y_stride] = ((x[i * line.x_stride] - high) - low) * rstd * weight[i] + bias[i]
        return
    # The next rows are fetched here: hardware doesn't foresee them while this one is read twice.
    if line.streamed and <size_t> y % 64 == 0:
        while i + LANES <= n:
            will_read(x + i + line.ahead)
            step_row(x + i, y + i, LANES, LANES, True, high, low, rstd, weight + i, bias + i)
            i += LANES
    while i + LANES <= n:
        will_read(x + i + line.ahead)
        will_write(y + i + line.ahead)
        step_row(x + i, y + i, LANES, LANES, False, high, low, rstd, weight + i, bias + i)
        i += LANES
    while i + VECTOR <= n:
        step_row(x + i, y + i, VECTOR, VECTOR, False, high, low, rstd, weight + i, bias + i)
        i += VECTOR
    if i < n:
        step_row(x + i, y + i, VECTOR, <int> (n - i), False, high, low, rstd, weight + i, bias + i)


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


cdef inline Py_ssize_t digit(Py_ssize_t* number, Py_ssize_t base) noexcept nogil:
    """The last digit of a number, which loses it. Most are all there is: a division costs as much as a short line."""
    cdef Py_ssize_t last = number[0]
    if last < base:
        number[0] = 0
        return last
    number[0] = last // base
    return last % base


cdef void apply_first(
    const real* x, real* y, const Walk* w, const Coefficients* c, bint streamed, Py_ssize_t pieces,
    Py_ssize_t start, Py_ssize_t stop,
) noexcept nogil:
    """The pieces start..stop of all lines, in the order (sample, outer, middle, piece, channel)."""
    cdef Py_ssize_t length = w.inner if pieces == 1 else (w.inner + pieces - 1) // pieces
    cdef Py_ssize_t unit = start, channel, last, piece, middle, outer, sample, i
    cdef const real* source
    cdef real* target
    cdef Line line = Line(0, w.x_inner, w.y_inner, 0, streamed)
    while unit < stop:
        sample = unit
        channel, piece = digit(&sample, w.channels), digit(&sample, pieces)
        middle, outer = digit(&sample, w.middle), digit(&sample, w.outer)
        last = min(w.channels, channel + stop - unit)
        source = (x + sample * w.x_sample + outer * w.x_outer + middle * w.x_middle + piece * length * w.x_inner
                  + channel * w.x_channel)
        target = (y + sample * w.y_sample + outer * w.y_outer + middle * w.y_middle + piece * length * w.y_inner
                  + channel * w.y_channel)
        line.n = min(length, w.inner - piece * length)
        unit += last - channel
        for i in range(sample * w.channels + channel, sample * w.channels + last):
            apply_constant(source, target, line, (<real*> c.high)[i], (<real*> c.low)[i], (<real*> c.scale)[i],
                           (<real*> c.bias)[i])
            source += w.x_channel
            target += w.y_channel


cdef void apply_last(
    const real* x, real* y, const Walk* w, const Coefficients* c, bint streamed, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """The lines start..stop of all lines (sample, outer, middle, inner), each of all channels."""
    cdef Py_ssize_t unit = start, sample = start, i
    cdef Py_ssize_t inner = digit(&sample, w.inner), middle = digit(&sample, w.middle), outer = digit(&sample, w.outer)
    cdef Line line = Line(w.channels, w.x_channel, w.y_channel, 0, streamed)
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
    """How many lines, if they follow each other in memory, are walked as one of up to `width` values."""
    cdef Py_ssize_t fold = 1
    if w.outer == 1 and w.middle == 1 and w.x_inner == w.channels and w.y_inner == w.channels and w.y_channel == 1:
        while 2 * fold * w.channels <= width and 2 * fold <= w.inner:
            fold *= 2
    return fold


cdef inline Walk folded(const Walk* w, Py_ssize_t fold) noexcept nogil:
    """The Walk whose lines are `fold` lines of w (the last w.inner % fold lines are left out)."""
    cdef Walk f = w[0]
    f.channels, f.inner = w.channels * fold, w.inner // fold
    f.x_inner, f.y_inner = w.x_inner * fold, w.y_inner * fold
    return f


cdef void repeat(
    const real* source, real* target, Py_ssize_t samples, Py_ssize_t channels, Py_ssize_t times
) noexcept nogil:
    """target (samples, times, channels) = source (samples, channels)."""
    cdef Py_ssize_t sample, i, channel
    for sample in range(samples):
        for i in range(times):
            for channel in range(channels):
                target[(sample * times + i) * channels + channel] = source[sample * channels + channel]


cdef void apply_all(
    const real* x, real* y, const Walk* w, const Coefficients* c, bint streamed, int threads
) noexcept nogil:
    """y from x with coefficients per sample and channel, the lines shared evenly by the threads."""
    cdef int thread = 0, size = 1
    cdef Team team
    cdef bint last = channels_last(w)
    cdef Py_ssize_t fold = foldable(w, FOLDED) if last else 1, pieces = 1, lines, sample
    cdef Walk f = folded(w, fold)
    cdef Coefficients repeated
    cdef const Coefficients* all = c
    if fold > 1 and allocate(<real> 0, &repeated, f.samples * f.channels):
        repeat(<real*> c.high, <real*> repeated.high, w.samples, w.channels, fold)
        repeat(<real*> c.low, <real*> repeated.low, w.samples, w.channels, fold)
        repeat(<real*> c.scale, <real*> repeated.scale, w.samples, w.channels, fold)
        repeat(<real*> c.bias, <real*> repeated.bias, w.samples, w.channels, fold)
        all = &repeated
        for sample in range(w.samples):
            apply_last(x, y, w, c, False, sample * w.inner + fold * f.inner, (sample + 1) * w.inner)
    else:
        f = w[0]
    lines = f.samples * f.outer * f.middle * (f.inner if last else f.channels)
    if not last and lines < 4 * threads:
        pieces = (f.inner + PIECE - 1) // PIECE
        lines *= pieces
    if threads == 1:
        apply_lines(x, y, &f, all, streamed, last, pieces, 0, lines)
    else:
        start_team(&team)
        with parallel(num_threads=threads):
            thread, size = join_team(&team), team_size()
            apply_lines(
                x, y, &f, all, streamed, last, pieces, lines * thread // size, lines * (thread + 1) // size)
            leave_team(&team)
    if all == &repeated:
        free(repeated.high)


cdef void apply_lines(
    const real* x, real* y, const Walk* w, const Coefficients* c, bint streamed, bint last, Py_ssize_t pieces,
    Py_ssize_t start, Py_ssize_t stop,
) noexcept nogil:
    """The lines start..stop by one thread, from the end on: what the moments read last is still in cache."""
    cdef Py_ssize_t length = w.channels if last else (w.inner + pieces - 1) // pieces, chunk = stop - start, first
    if chunk * length > PART:
        chunk = max(<Py_ssize_t> 1, PART // length)
    while start < stop:
        first = max(start, stop - chunk)
        if last:
            apply_last(x, y, w, c, streamed, first, stop)
        else:
            apply_first(x, y, w, c, streamed, pieces, first, stop)
        stop = first
    end_stream()
