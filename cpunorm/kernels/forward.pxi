# Forward: y from x; which way is taken.
# Included by _kernels.pyx, whose header says how and why.

# Given statistics: apply alone.

cdef void forward_given(Job* job, int threads) noexcept nogil:
    cdef Norm* n = &job.n
    cdef Strip strip
    cdef Shared shared
    if not job.columns:
        cut_rows(job)
        if (1 < job.length < LANE_ROW and job.count >= 4
                and even_pitch(job.run, 3, False) == 1 and even_pitch(job.run, 3, True) == 1
                and n.x.channel == job.length and n.y.channel == job.length):
            job.columns = True
    if not job.columns:
        allocate_coefficients(job, n.channels)
        if job.failed:
            return
        memcpy(job.means, n.mean, n.channels * sizeof(double))
        memcpy(job.m2s, n.var, n.channels * sizeof(double))
        apply_all(job, threads)
        return
    cut_columns(job, job.length if job.length > 1 else 1)
    job.strip, job.parts = job.wide, 0
    allocate_strips(job, 1)
    if job.failed:
        return
    strip = strip_of(job, 0)
    coefficients_of(job, 0, 0, n.channels, n.mean, n.var, strip.high, strip.scale, strip.shift)
    spread(&strip, n.channels, job.width, job.lines.computed)
    shared.job, shared.strip, shared.sample = job, &strip, -1
    share(work_apply_columns, &shared, n.samples * job.tall, threads)


cdef int forward(const Norm* norm, int threads) noexcept nogil:
    """y from x: KernelSet's forward."""
    cdef Job job
    cdef char* constant = NULL
    cdef Py_ssize_t i, count
    memset(&job, 0, sizeof(job))
    job.n = norm[0]
    job.lines = lines_of[norm.element]
    job.rule.tiny = TINY[norm.element] if norm.eps < HIDING else 0
    job.rule.about_zero = norm.statistic == ABOUT_ZERO
    if is_half(norm.parameter_element):
        widen_parameters(&job)
    if not job.failed:
        see(&job)
    if job.n.along and job.n.weight == NULL and job.n.bias == NULL:
        job.n.along = False
    elif job.n.along and (job.n.weight == NULL or job.n.bias == NULL):
        count = job.positions * (job.n.channels if job.along_step else 1)
        constant = <char*> malloc(count * job.lines.computed)
        job.failed |= constant == NULL
        if constant != NULL:
            fill(constant, count, 1 if job.n.weight == NULL else 0, job.lines.computed)
            if job.n.weight == NULL:
                job.n.weight = constant
            else:
                job.n.bias = constant
    if not job.failed:
        if job.n.addend != NULL:
            forward_sum(&job, threads)
        elif job.n.statistic == GIVEN:
            forward_given(&job, threads)
        else:
            if not job.columns:
                cut_rows(&job)
            if not job.columns and job.member == 1 and job.positions <= (LANE_VALUES if job.scattered else LANE_ROW):
                forward_lanes(&job, threads)
            elif job.columns or (job.count > 1 and job.length < NARROW_RUN and not job.n.along and job.member == 1):
                cut_columns(&job, 1 if job.columns else job.length)
                forward_columns(&job, threads)
            else:
                forward_rows(&job, threads)
    free(constant)
    free(job.widened)
    free(job.expanded)
    free(job.moments)
    free(job.means)
    return -1 if job.failed else 0


cdef void widen_parameters(Job* job) noexcept nogil:
    """weight and bias in what is computed in."""
    cdef Norm* n = &job.n
    cdef const Lines* lines = lines_of[n.parameter_element]
    cdef Py_ssize_t count = n.outer * n.middle * n.inner if n.along else n.channels
    job.widened = <char*> malloc(2 * count * lines.computed)
    if job.widened == NULL:
        job.failed = True
        return
    if n.weight != NULL:
        lines.widen(n.weight, job.widened, count)
        n.weight = job.widened
    if n.bias != NULL:
        lines.widen(n.bias, job.widened + count * lines.computed, count)
        n.bias = job.widened + count * lines.computed


cdef void fill(char* target, Py_ssize_t count, int value, int size) noexcept nogil:
    """target = `value`, count times."""
    cdef Py_ssize_t i
    for i in range(count):
        if size == sizeof(float):
            (<float*> target)[i] = value
        else:
            (<double*> target)[i] = value
