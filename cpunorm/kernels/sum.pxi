# Forward of a sum: rows of x + addend, which is kept, too.
# Included by _kernels.pyx, whose header says how and why.

cdef Moments sum_moments(const Lines* lines, const char* x, Py_ssize_t length, Rule rule) noexcept nogil:
    """Moments of a long row, block by block."""
    cdef Moments all, block
    cdef Py_ssize_t i = 0, n
    cdef double shift = 0
    while i < length:
        n = min(<Py_ssize_t> lines.block, length - i)
        block = lines.block_moments(x + i * lines.size, n, 1, 0, False, rule, i == 0, &shift)
        if i == 0:
            all = block
        else:
            merge(&all, &block)
        i += n
    return all


cdef void work_sum(void* context, int thread, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The rows start..stop, of which some are summed, then normalised while the sums are in L1.

    Those are read where they were stored, or in a tile, unrounded, if `total` is of a half type or streamed.
    """
    cdef Job* job = <Job*> context
    cdef const Norm* n = &job.n
    cdef const Lines* real = lines_of[0] if is_half(n.element) else job.lines
    cdef Py_ssize_t width = n.inner, count, i, at, bytes
    cdef char* tile = job.tiles + thread * job.tile * width * real.size
    cdef char* sums
    cdef char* y
    cdef Moments[TOGETHER] moments
    cdef double[TOGETHER] mean
    cdef double[TOGETHER] var
    cdef double[3 * TOGETHER] coefficients
    cdef char* high = <char*> coefficients
    cdef char* scale = <char*> &coefficients[TOGETHER]
    cdef char* shift = <char*> &coefficients[2 * TOGETHER]
    cdef Traffic traffic = job.traffic
    if is_half(n.element):
        traffic.ahead = 0  # y is the tile
    while start < stop:
        count, at = min(job.tile, stop - start), start * width
        sums = tile if job.tiles != NULL else <char*> n.total + at * job.lines.size
        y = sums if is_half(n.element) else y_at(job, at)
        bytes = at * job.lines.size
        job.lines.add(<const char*> job.summand + bytes, <const char*> n.addend + bytes, <char*> n.total + bytes, sums,
                      count * width, &job.traffic)
        if width <= real.block:
            real.row_moments(sums, width, <int> count, width, False, job.rule, moments)
        else:
            moments[0] = sum_moments(real, sums, width, job.rule)
        for i in range(count):
            mean[i], var[i] = moments[i].mean, moments[i].m2 / moments[i].count
        coefficients_of(job, 0, start, count, mean, var, high, scale, shift)
        if n.mean != NULL:
            memcpy(n.mean + start, mean, count * sizeof(double))
            memcpy(n.var + start, var, count * sizeof(double))
        if n.along:
            real.apply_along(sums, y, width, count, width, width, high, scale, shift, n.weight, n.bias, &traffic)
        else:
            real.apply_constant(sums, y, width, count, width, width, high, scale, shift, 1, &traffic)
        if is_half(n.element):
            job.lines.narrow(sums, y_at(job, at), count * width, traffic.streamed)
        start += count
    end_stream()


cdef void forward_sum(Job* job, int threads) noexcept nogil:
    cdef Norm* n = &job.n
    cdef const Lines* real = lines_of[0] if is_half(n.element) else job.lines
    job.summand, job.n.x.data = n.x.data, n.total
    job.tile = 1
    if n.inner <= real.block:
        job.tile = max(<Py_ssize_t> 1, min(<Py_ssize_t> TOGETHER, NEAR_BYTES // (n.inner * real.size)))
    if is_half(n.element) or job.traffic.streamed:
        job.tiles = <char*> malloc(threads * job.tile * n.inner * real.size)
        if job.tiles == NULL:
            job.failed = True
            return
    share(work_sum, job, n.channels, threads)
    free(job.tiles)


cdef inline bint sums_first(const Job* job) noexcept nogil:
    """Whether rows are so short that all are summed, then normalised as any others are."""
    return is_lane_row(job) and not is_half(job.n.element)


cdef void work_add(void* context, int thread, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The parts start..stop of x + addend."""
    cdef const Job* job = <const Job*> context
    cdef const Norm* n = &job.n
    cdef Py_ssize_t first = start * PART, bytes = first * job.lines.size
    cdef Traffic traffic = Traffic(job.traffic.ahead, job.traffic.both, False, False, 0, 0)
    job.lines.add(<const char*> n.x.data + bytes, <const char*> n.addend + bytes, <char*> n.total + bytes,
                  <char*> n.total + bytes, min(stop * PART, n.channels * job.positions) - first, &traffic)


cdef void add_all(Job* job, int threads) noexcept nogil:
    """total = x + addend, which is x from then on."""
    share(work_add, job, ceil_div(job.n.channels * job.positions, PART), threads)
    job.n.x.data = job.n.total
