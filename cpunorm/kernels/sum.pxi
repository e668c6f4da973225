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


cdef void normalise_short_rows(const Job* job, char* sums, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    """sums, as they are computed, of `count` rows from `first` on, in place, by lanes as any others so short."""
    cdef Job rows = job[0]
    cdef Norm* n = &rows.n
    n.element = 0 if is_half(n.element) else n.element
    rows.lines, rows.far, rows.traffic = lines_of[n.element], False, job.packed
    n.samples, n.channels, n.groups = 1, count, count
    n.x.data = n.y.data = sums
    n.x.channel = n.y.channel = job.positions
    if n.mean != NULL:
        n.mean, n.var = n.mean + first, n.var + first
    cut_rows(&rows)
    forward_lanes(&rows, 1)


cdef void normalise_values(const Job* job, char* sums, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    """The same of rows of one value, which are the columns of a line as they lie."""
    cdef const Norm* n = &job.n
    cdef const Lines* real = lines_of[0]
    cdef Aligned mean[VALUES]
    cdef Aligned m2[VALUES]
    cdef float[3 * VALUES] coefficients
    cdef char* high = <char*> coefficients
    cdef char* scale = <char*> &coefficients[VALUES]
    cdef char* shift = <char*> &coefficients[2 * VALUES]
    cdef Py_ssize_t stop = first + count, some
    while first < stop:
        some = min(<Py_ssize_t> VALUES, stop - first)
        real.column_moments(sums, some, 1, some, False, job.rule, 0, mean, m2)
        coefficients_of(job, 0, first, some, mean, m2, high, scale, shift)
        if n.mean != NULL:
            memcpy(n.mean + first, mean, some * sizeof(double))
            memcpy(n.var + first, m2, some * sizeof(double))
        if n.along:
            real.apply_columns_along(sums, sums, some, 1, 0, 0, high, scale, shift, n.weight, n.bias, 0, &job.packed)
        else:
            real.apply_columns(sums, sums, some, 1, 0, 0, high, scale, shift, &job.packed)
        sums += some * sizeof(float)
        first += some


cdef void work_sum(void* context, int thread, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The rows start..stop, of which some are summed, then normalised while the sums are in L1.

    Those are read where they were stored, or in a tile, unrounded, if `total` is of a half type or streamed.
    """
    cdef Job* job = <Job*> context
    cdef const Norm* n = &job.n
    cdef const Lines* real = lines_of[0] if is_half(n.element) else job.lines
    cdef Py_ssize_t width = n.inner, count, i, at
    cdef char* tile = on_line(job.tiles) + thread * apart(job.tile * width * real.size)
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
    if foresees or job.tiles != NULL:
        traffic.x_ahead = 0  # what is normalised has just been written
    if is_half(n.element):
        traffic.y_ahead = 0  # y is the tile
    while start < stop:
        count, at = min(job.tile, stop - start), start * width
        sums = tile if job.tiles != NULL else <char*> n.total + at * job.lines.size
        y = sums if is_half(n.element) else y_at(job, at)
        add_rows(job, start, count, sums, &job.traffic)
        if takes_lanes(job):
            if width == 1:
                normalise_values(job, sums, start, count)
            else:
                normalise_short_rows(job, sums, start, count)
            job.lines.narrow(sums, y_at(job, at), count * width, traffic.streamed)
            start += count
            continue
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
            real.apply_along(sums, y, width, count, width, width, high, scale, shift, 1, n.weight, n.bias, &traffic)
        else:
            real.apply_constant(sums, y, width, count, width, width, high, scale, shift, 1, &traffic)
        if is_half(n.element):
            job.lines.narrow(sums, y_at(job, at), count * width, traffic.streamed)
        start += count
    end_stream()


cdef void forward_sum(Job* job, int threads) noexcept nogil:
    cdef Norm* n = &job.n
    cdef const Lines* real = lines_of[0] if is_half(n.element) else job.lines
    cdef Py_ssize_t rows = n.samples * n.channels
    see_total(job)
    job.tile = 1
    if n.inner <= real.block:
        job.tile = max(<Py_ssize_t> 1, NEAR_BYTES // (n.inner * real.size))
        if not takes_lanes(job):
            job.tile = min(job.tile, <Py_ssize_t> TOGETHER)
    if is_half(n.element) or job.traffic.streamed:
        job.tiles = <char*> malloc(STEP_BYTES + threads * apart(job.tile * n.inner * real.size))
        if job.tiles == NULL:
            job.failed = True
            return
    share(work_sum, job, rows, threads)
    free(job.tiles)


cdef inline bint takes_lanes(const Job* job) noexcept nogil:
    """Whether rows of sums, each of which is in one piece, are normalised by lanes."""
    return is_lane_row(job) and not is_better_alone(job)


cdef inline bint sums_first(const Job* job) noexcept nogil:
    """Whether rows are so short, or lie across each other, that all are summed, then normalised as any others are.

    Those that fill a line of the cache aren't where the sum is streamed, and would have to be read again.
    """
    cdef bint read_again = not job.traffic.streamed or job.positions * job.lines.size < STEP_BYTES
    return not is_half(job.n.element) and (job.columns or is_lane_row(job) and read_again)


cdef inline bint lie_alike(const Norm* n) noexcept nogil:
    """Whether y is laid out as x."""
    return (n.x.inner == n.y.inner or n.inner == 1) and (n.x.middle == n.y.middle or n.middle == 1) and (
        n.x.outer == n.y.outer or n.outer == 1) and (n.x.channel == n.y.channel or n.channels == 1) and (
        n.x.sample == n.y.sample or n.samples == 1)


cdef inline void see_total(Job* job) noexcept nogil:
    """x is what the addend is added to; from then on, it is the sum."""
    job.summand, job.n.x = job.n.x, job.n.y
    job.n.x.data = job.n.total
    job.traffic.x_ahead = AHEAD if job.far else 0  # no hardware follows three or four runs at once


cdef void add_rows(
    const Job* job, Py_ssize_t first, Py_ssize_t count, char* sums, const Traffic* traffic
) noexcept nogil:
    """total, and sums as they are computed, = x + addend of `count` rows, which may lie apart in x alone.

    Those are packed first if `total` is streamed: the ends of each row, stored as usual, would hold up what is. Sums of
    a half type take more room, and never overtake what is packed at its end.
    """
    cdef const Norm* n = &job.n
    cdef const Operand* x = &job.summand
    cdef int size = job.lines.size, computed = 4 if is_half(n.element) else size
    cdef Py_ssize_t at = first * job.positions * size, bytes = job.positions * size, row, sample
    cdef bint gaps = x.channel != job.positions or n.samples > 1 and x.sample != n.channels * x.channel
    cdef bint packs = gaps and traffic.streamed
    cdef char* packed = sums + count * job.positions * (computed - size)
    cdef const char* source
    for row in range(count if gaps else 1):
        sample = (first + row) // n.channels
        source = <const char*> x.data + (sample * x.sample + (first + row - sample * n.channels) * x.channel) * size
        if packs:
            if traffic.x_ahead:
                fetch_bytes(source + traffic.x_ahead, bytes, False)
            memcpy(packed + row * bytes, source, bytes)
        elif gaps:
            job.lines.add(source, <const char*> n.addend + at + row * bytes, <char*> n.total + at + row * bytes,
                          sums + row * job.positions * computed, job.positions, traffic)
    if packs or not gaps:
        job.lines.add(packed if packs else source, <const char*> n.addend + at, <char*> n.total + at, sums,
                      count * job.positions, traffic)


cdef void work_add(void* context, int thread, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The rows start..stop of x + addend; if all lie alike, the values."""
    cdef const Job* job = <const Job*> context
    cdef const Norm* n = &job.n
    cdef Traffic traffic = Traffic(job.traffic.x_ahead, job.traffic.y_ahead, False, False, 0, 0)
    cdef Py_ssize_t at = start * job.lines.size
    if job.alike:
        job.lines.add(<const char*> job.summand.data + at, <const char*> n.addend + at, <char*> n.total + at,
                      <char*> n.total + at, stop - start, &traffic)
    else:
        add_rows(job, start, stop - start, <char*> n.total + at * job.positions, &traffic)


cdef void add_all(Job* job, int threads) noexcept nogil:
    """total = x + addend, which is x from then on."""
    job.alike = lie_alike(&job.n)
    see_total(job)
    share(work_add, job, job.n.samples * job.n.channels * (job.positions if job.alike else 1), threads)
