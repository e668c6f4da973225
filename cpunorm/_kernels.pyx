# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The kernel set in Cython (see `_kernels_reference` for what the set promises to its callers).

Built once per ISA level: `_kernels_v3.pyx` and `_kernels_v4.pyx` include this file and are compiled with other flags.

Numerics
--------
Moments are taken over blocks.  In a block, d = x - k is summed in LANES independent lanes of the input's
type: s = sum d, q = sum d^2; then mean = k + s/n and M2 = q - s^2/n, and blocks are merged in float64:

    mean = mean_a + (mean_b - mean_a) n_b/n,    M2 = M2_a + M2_b + (mean_b - mean_a)^2 n_a n_b/n

(Welford 1962; Chan, Golub and LeVeque 1983).  The shift k is the mean of earlier values, taken anew whenever their
number has doubled; a block longer than all before it (so also the first) takes the mean of its first quarter, which
is then read twice, from L1.  (In channels_last, where a channel has one lane and its sums round more, it is the first
half.)  So k is always the mean of at least a quarter of the values that are summed with it, and what their q holds
beyond their own M2 is at most a few times what the merges add to the total: no cancellation, whatever the data.
float32 blocks whose q left the range of float32 are done again in float64.

The mean is applied in two parts, y = ((x - mean_hi) - mean_lo) * scale + bias, so a large mean costs no digits.
That, and the shift, die by reassociation: never build this with -ffast-math or -fassociative-math.

Where a domain is cut into parts depends on its shape alone, and parts are merged in a fixed tree: the same bits at any
number of threads.

Vectors
-------
Loops over LANES with a constant trip count are what the compiler turns into vectors: accumulators live in arrays of
LANES, and a result goes through such an array before it is stored, so that y may be x without an alias check.
What Cython can't say of vectors is in _vectors.h.

Memory
------
What is past the caches costs most, so x is read again while it is still in cache (backwards, domain by domain, sample
by sample), lines are fetched a page ahead, and y, where x and y don't fit the last-level cache, is stored around it.
"""

from cython.parallel cimport parallel
from cpython.pycapsule cimport PyCapsule_New
from libc.float cimport DBL_MAX, FLT_MAX
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

cdef extern from "_vectors.h":
    enum: LANES
    void prefetch_read(const void* address) noexcept nogil
    void prefetch_write(const void* address) noexcept nogil
    double fold_floats(const float* lanes) noexcept nogil
    double fold_doubles(const double* lanes) noexcept nogil
    void stream(void* y, const void* z, int bytes) noexcept nogil
    void end_stream() noexcept nogil
    Py_ssize_t stream_bytes() noexcept nogil

cdef extern from "_team.h":
    ctypedef struct Team:
        pass
    void start_team(Team* team) noexcept nogil
    int join_team(Team* team) noexcept nogil
    int team_size() noexcept nogil
    void leave_team(Team* team) noexcept nogil

cdef enum:
    VECTOR = LANES // 4  # values of one vector register; LANES keeps four of them busy
    BLOCK = 32 * LANES  # elements that are summed in the input's type before they are merged in float64
    ROWS = 64  # the same in channels_last, where each channel has one lane
    AHEAD = 4096  # bytes ahead to fetch: hardware's own prefetch stops at the end of a page of this size
    TOGETHER = 1024  # values of the short domains whose moments are taken together
    MOST_TOGETHER = 4
    PART = 65536  # elements of a part: what one thread takes of a domain that several share
    FOLDED = 512  # values of a channels_last line, if lines of few channels can be walked as one
    PIECE = 8192  # elements of the smallest piece of a long line that is worth a thread's while

cdef Py_ssize_t STREAM_BYTES = stream_bytes()
cdef double TINY = 1e-36  # mean squares of float32 below this have lost digits to underflow

ctypedef fused real:
    float
    double


cdef inline void will_read(const real* x) noexcept nogil:
    """Fetch the LANES values from x on."""
    cdef int line
    for line in range(LANES * <int> sizeof(real) // 64):
        prefetch_read(<const char*> x + 64 * line)


cdef inline void will_write(const real* y) noexcept nogil:
    """Fetch the LANES values from y on, to be written."""
    cdef int line
    for line in range(LANES * <int> sizeof(real) // 64):
        prefetch_write(<const char*> y + 64 * line)


include "_moments.pxi"
include "_apply.pxi"


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
    apply_all(x, y, w, &c, past_cache(x, y, w), threads)
    free(c.high)
    return 0


cdef void apply_domain(
    const real* x, real* y, const Walk* w, Py_ssize_t channels, const Moments* moments, const real* weight,
    const real* bias, double eps,
) noexcept nogil:
    """y from x for the `channels` channels of the domain that starts at x and y, while it is still in cache."""
    cdef Py_ssize_t channel, outer, middle
    cdef double rstd = 1 / sqrt(moments.m2 / moments.count + eps)
    cdef real high, low, scale, shift
    cdef Line line = Line(w.inner, w.x_inner, w.y_inner, 0, past_cache(x, y, w))
    two_parts(moments.mean, &high, &low)
    for channel in range(channels):
        scale = <real> (rstd if weight == NULL else rstd * weight[channel])
        shift = 0 if bias == NULL else bias[channel]
        for outer in range(w.outer - 1, -1, -1):  # backwards: the samples that were read last are still in cache
            for middle in range(w.middle):
                apply_constant(
                    x + outer * w.x_outer + channel * w.x_channel + middle * w.x_middle,
                    y + outer * w.y_outer + channel * w.y_channel + middle * w.y_middle,
                    line, high, low, scale, shift)


cdef void whole_domains(
    const real* x, real* y, const Walk* w, const Domain* d, Moments* parts, Py_ssize_t groups,
    Py_ssize_t start, Py_ssize_t stop, double* mean, double* var, const real* weight, const real* bias, double eps,
) noexcept nogil:
    """Moments and apply of the domains start..stop, of all (sample, group), by one thread."""
    cdef Py_ssize_t channels = w.channels // groups, index = start, channel
    cdef const real* sources[MOST_TOGETHER]
    cdef Moments moments[MOST_TOGETHER]
    cdef int i, count, most = together(w, d)
    while index < stop:
        count = <int> min(<Py_ssize_t> max(1, most), stop - index)
        for i in range(count):
            sources[i] = x + (index + i) // groups * w.x_sample + (index + i) % groups * channels * w.x_channel
        if most:
            moments_together(sources, count, d.length, moments)
        else:
            moments[0] = domain_moments(sources[0], w, d, parts, index)
        for i in range(count):
            if mean != NULL:
                mean[index], var[index] = moments[i].mean, moments[i].m2 / moments[i].count
            channel = index % groups * channels
            apply_domain(
                sources[i], y + index // groups * w.y_sample + channel * w.y_channel, w, channels, &moments[i],
                weight + channel if weight != NULL else NULL, bias + channel if bias != NULL else NULL, eps)
            index += 1
    end_stream()


cdef void parts_of_domains(
    const real* x, const Walk* w, const Domain* d, Moments* parts, Py_ssize_t groups, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """Moments of the parts start..stop, of all (sample, group, part)."""
    cdef Py_ssize_t count = d.across * d.along, channels = w.channels // groups, i, domain
    for i in range(start, stop):
        domain = i // count
        parts[i] = part_moments(
            x + domain // groups * w.x_sample + domain % groups * channels * w.x_channel, w, d, i % count)


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
    cdef int thread = 0, size = 1
    cdef Team team
    if n_parts > 1:
        parts = <Moments*> malloc(domains * n_parts * sizeof(Moments))
        if parts == NULL:
            return -1
    if n_parts > 1 and threads > 1 and domains < 4 * threads:
        if not allocate(<real> 0, &c, w.samples * w.channels):
            free(parts)
            return -1
        start_team(&team)
        with parallel(num_threads=threads):
            thread, size = join_team(&team), team_size()
            parts_of_domains(x, w, &d, parts, groups, domains * n_parts * thread // size,
                             domains * n_parts * (thread + 1) // size)
            leave_team(&team)
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
        apply_all(x, y, w, &c, past_cache(x, y, w), threads)
        free(c.high)
    elif threads == 1 or domains == 1:
        whole_domains(x, y, w, &d, parts, groups, 0, domains, mean, var, weight, bias, eps)
    else:
        start_team(&team)
        with parallel(num_threads=threads):
            thread, size = join_team(&team), team_size()
            whole_domains(x, y, w, &d, parts, groups, domains * thread // size, domains * (thread + 1) // size,
                          mean, var, weight, bias, eps)
            leave_team(&team)
    free(parts)
    return 0


cdef struct Scratch:
    # For one sample in channels_last: means and m2s (parts, channels), and the coefficients of its channels.
    double* means
    double* m2s
    Coefficients coefficients


cdef void parts_of_lines(
    const real* x, const Walk* w, Py_ssize_t part_lines, Py_ssize_t start, Py_ssize_t stop, double* means, double* m2s
) noexcept nogil:
    """Moments of each channel over the parts start..stop of the lines of one sample."""
    cdef Py_ssize_t lines = w.outer * w.middle * w.inner, i
    for i in range(start, stop):
        lines_moments(x, w, i * part_lines, min((i + 1) * part_lines, lines),
                      means + i * w.channels, m2s + i * w.channels)


cdef void sample_last(
    const real* x, real* y, const Walk* w, Scratch* scratch, bint streamed, Py_ssize_t groups,
    double* mean, double* var, const real* weight, const real* bias, double eps, int threads,
) noexcept nogil:
    """One sample: moments of each channel by parts of the lines, channels merged into groups, then apply."""
    cdef Py_ssize_t fold = foldable(w, LANES), channels = w.channels // groups
    cdef Walk f = folded(w, fold)
    cdef Py_ssize_t lines = f.outer * f.middle * f.inner, rest = w.inner - fold * f.inner
    cdef Py_ssize_t part_lines = lines_of_part(f.channels)
    cdef Py_ssize_t parts = (lines + part_lines - 1) // part_lines, group, channel, line, column
    cdef double rest_mean, rest_m2, rstd
    cdef double* means = scratch.means
    cdef double* m2s = scratch.m2s
    cdef Moments moments
    cdef int thread = 0, size = 1
    cdef Team team
    if threads == 1:
        parts_of_lines(x, &f, part_lines, 0, parts, means, m2s)
    else:
        start_team(&team)
        with parallel(num_threads=threads):
            thread, size = join_team(&team), team_size()
            parts_of_lines(x, &f, part_lines, parts * thread // size, parts * (thread + 1) // size, means, m2s)
            leave_team(&team)
    merge_lines(means, m2s, f.channels, parts, part_lines, lines)
    for group in range(groups):
        moments = Moments(0, 0, 0)
        for channel in range(group * channels, (group + 1) * channels):
            for line in range(fold):
                column = line * w.channels + channel
                merge(&moments, <double> lines, means[column], m2s[column])
            if rest:
                exact_moments(x + (w.inner - rest) * w.x_inner + channel, w.x_inner, Block(rest, 1, 0),
                              &rest_mean, &rest_m2)
                merge(&moments, <double> rest, rest_mean, rest_m2)
        if mean != NULL:
            mean[group], var[group] = moments.mean, moments.m2 / moments.count
        rstd = 1 / sqrt(moments.m2 / moments.count + eps)
        for channel in range(group * channels, (group + 1) * channels):
            set_coefficients(&scratch.coefficients, channel, moments.mean, rstd, weight, bias, channel)
    apply_all(x, y, w, &scratch.coefficients, streamed, threads)


cdef void samples_last(
    const real* x, real* y, const Walk* w, Scratch* scratch, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t groups,
    double* mean, double* var, const real* weight, const real* bias, double eps, int threads,
) noexcept nogil:
    """The samples start..stop, one after another, so that the second reading of each finds it in cache."""
    cdef Py_ssize_t sample
    cdef Walk one = w[0]
    one.samples = 1
    for sample in range(start, stop):
        sample_last(x + sample * w.x_sample, y + sample * w.y_sample, &one, scratch, past_cache(x, y, w), groups,
                    mean, var, weight, bias, eps, threads)


cdef int grouped_last(
    const real* x, real* y, const Walk* w, Py_ssize_t groups, double* mean, double* var,
    const real* weight, const real* bias, double eps, int threads,
) noexcept nogil:
    """channels_last: a thread takes whole samples, if they are many or small; else all share each sample."""
    cdef Py_ssize_t fold = foldable(w, LANES), part_lines = lines_of_part(w.channels * fold)
    cdef Py_ssize_t room = w.outer * w.middle * w.inner // fold // part_lines * w.channels * fold + w.channels * fold
    cdef int teams = 1, thread = 0, size = 1
    cdef Team team
    cdef Scratch* scratch
    if threads > 1 and w.samples >= threads and (w.samples % threads == 0 or w.samples >= 4 * threads):
        teams = threads
    scratch = <Scratch*> malloc(teams * sizeof(Scratch))
    if scratch == NULL:
        return -1
    cdef double* means = <double*> malloc(2 * teams * room * sizeof(double))
    cdef Coefficients c
    if means == NULL or not allocate(<real> 0, &c, teams * w.channels):
        free(means)
        free(scratch)
        return -1
    for thread in range(teams):
        scratch[thread].means = means + 2 * thread * room
        scratch[thread].m2s = means + (2 * thread + 1) * room
        scratch[thread].coefficients = Coefficients(
            <real*> c.high + thread * w.channels, <real*> c.low + thread * w.channels,
            <real*> c.scale + thread * w.channels, <real*> c.bias + thread * w.channels)
    if teams == 1:
        samples_last(x, y, w, scratch, 0, w.samples, groups, mean, var, weight, bias, eps, threads)
    else:
        start_team(&team)
        with parallel(num_threads=threads):
            thread, size = join_team(&team), team_size()
            samples_last(x, y, w, &scratch[thread], w.samples * thread // size, w.samples * (thread + 1) // size,
                         groups, mean, var, weight, bias, eps, 1)
            leave_team(&team)
    free(c.high)
    free(means)
    free(scratch)
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


cdef void whole_rows(
    const real* x, real* y, const Walk* w, const Domain* d, Moments* parts, Py_ssize_t start, Py_ssize_t stop,
    const real* weight, const real* bias, double eps,
) noexcept nogil:
    """Moments and apply of the rows start..stop, by one thread."""
    cdef Py_ssize_t index = start
    cdef const real* sources[MOST_TOGETHER]
    cdef Moments moments[MOST_TOGETHER]
    cdef Line line = Line(w.inner, w.x_inner, w.y_inner, 0, past_cache(x, y, w))
    cdef int i, count, most = together(w, d)
    line.ahead = w.inner * most if most else AHEAD // <int> sizeof(real)
    while index < stop:
        count = <int> min(<Py_ssize_t> max(1, most), stop - index)
        for i in range(count):
            sources[i] = x + (index + i) // w.middle * w.x_sample + (index + i) % w.middle * w.x_middle
        if most:
            moments_together(sources, count, d.length, moments)
        else:
            moments[0] = domain_moments(sources[0], w, d, parts, index)
        for i in range(count):
            apply_width(
                sources[i], y + index // w.middle * w.y_sample + index % w.middle * w.y_middle, line, &moments[i],
                weight, bias, eps)
            index += 1
    end_stream()


cdef void parts_of_rows(
    const real* x, real* y, const Walk* w, const Domain* d, const Moments* parts, Py_ssize_t start, Py_ssize_t stop,
    const real* weight, const real* bias, double eps,
) noexcept nogil:
    """Apply of the parts start..stop, of all (row, part); the moments of a row stand in its first part."""
    cdef Py_ssize_t i, row, at
    cdef Line line = Line(0, w.x_inner, w.y_inner, AHEAD // <int> sizeof(real), past_cache(x, y, w))
    for i in range(start, stop):
        row, at = i // d.along, i % d.along * d.part_length
        line.n = min(d.part_length, d.length - at)
        apply_width(
            x + row // w.middle * w.x_sample + row % w.middle * w.x_middle + at * w.x_inner,
            y + row // w.middle * w.y_sample + row % w.middle * w.y_middle + at * w.y_inner,
            line, &parts[row * d.along], weight + at if weight != NULL else NULL, bias + at if bias != NULL else NULL,
            eps)
    end_stream()


cdef int layer_norm_of(
    const real* x, real* y, const Walk* w, const real* weight, const real* bias, double eps, int threads
) noexcept nogil:
    """A thread takes whole rows; where they are few and long, parts of them."""
    cdef Py_ssize_t rows = w.samples * w.middle, index, i, count
    cdef int thread = 0, size = 1
    cdef Team team
    cdef Domain d = Domain(1, w.inner, 1, 0, 1, (w.inner + PART - 1) // PART, 1, 0)
    cdef Walk v = w[0]  # the rows of a sample seen as its channels
    v.middle, v.channels, v.x_channel = 1, w.middle, w.x_middle
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
        count = rows * d.along
        start_team(&team)
        with parallel(num_threads=threads):
            thread, size = join_team(&team), team_size()
            parts_of_domains(x, &v, &d, parts, w.middle, count * thread // size, count * (thread + 1) // size)
            leave_team(&team)
        for index in range(rows):
            merge_tree(&parts[index * d.along], d.along)
        start_team(&team)
        with parallel(num_threads=threads):
            thread, size = join_team(&team), team_size()
            parts_of_rows(x, y, w, &d, parts, count * thread // size, count * (thread + 1) // size,
                          weight, bias, eps)
            leave_team(&team)
    elif threads == 1 or rows == 1:
        whole_rows(x, y, w, &d, parts, 0, rows, weight, bias, eps)
    else:
        start_team(&team)
        with parallel(num_threads=threads):
            thread, size = join_team(&team), team_size()
            whole_rows(x, y, w, &d, parts, rows * thread // size, rows * (thread + 1) // size, weight, bias, eps)
            leave_team(&team)
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


def batch_norm_training(
    cnp.ndarray x, cnp.ndarray y, cnp.ndarray mean, cnp.ndarray var, weight, bias, double eps, int num_threads
):
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


def batch_norm_inference(
    cnp.ndarray x, cnp.ndarray y, cnp.ndarray mean, cnp.ndarray var, weight, bias, double eps, int num_threads
):
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
