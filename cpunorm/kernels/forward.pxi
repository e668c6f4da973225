# Forward: y from x; which way is taken.
# Included by _kernels.pyx, whose header says how and why.

# Given statistics: apply alone.

cdef void forward_given(Job* job, int threads) noexcept nogil:
    cdef Norm* n = &job.n
    cdef Strip strip
    cdef Shared shared
    if not job.columns:
        allocate_coefficients(job, n.channels)
        if job.failed:
            return
        memcpy(job.means, n.mean, n.channels * sizeof(double))
        memcpy(job.m2s, n.var, n.channels * sizeof(double))
        apply_all(job, threads)
        return
    job.strip, job.parts = job.wide, 0
    allocate_strips(job, 1)
    if job.failed:
        return
    strip = strip_of(job, 0)
    coefficients_of(job, 0, 0, n.channels, n.mean, n.var, strip.high, strip.scale, strip.shift)
    spread(&strip, n.channels, job.width, job.lines.computed)
    shared.job, shared.strip, shared.sample = job, &strip, -1
    share(work_apply_columns, &shared, n.samples * job.tall, threads)


cdef void begin(Job* job, const Norm* norm, int threads) noexcept nogil:
    """A norm as it is seen; `finish` frees what that took."""
    cdef Py_ssize_t count
    cdef char* constant
    memset(job, 0, sizeof(job[0]))
    job.n = norm[0]
    job.lines = lines_of[norm.element]
    job.rule.tiny = TINY[norm.element] if norm.eps < HIDING else 0
    job.rule.about_zero = norm.statistic == ABOUT_ZERO
    if is_half(norm.parameter_element):
        widen_parameters(job)
    if not job.failed:
        see(job, threads)
    if job.n.along and job.n.weight == NULL and job.n.bias == NULL:
        job.n.along = False
    elif job.n.along and (job.n.weight == NULL or job.n.bias == NULL):
        count = job.positions * (job.n.channels if job.along_step else 1)
        job.constant = <char*> malloc(STEP_BYTES + count * job.lines.computed)
        job.failed |= job.constant == NULL
        if job.constant != NULL:
            constant = on_line(job.constant)
            fill(constant, count, 1 if job.n.weight == NULL else 0, job.lines.computed)
            if job.n.weight == NULL:
                job.n.weight = constant
            else:
                job.n.bias = constant


cdef void finish(Job* job) noexcept nogil:
    free(job.constant)
    free(job.widened)
    free(job.expanded)
    free(job.moments)
    free(job.means)


cdef Way way_of(Job* job) noexcept nogil:
    """Which way the norm goes, its domains cut accordingly."""
    cdef const Norm* n = &job.n
    cdef bint alone
    if n.addend != NULL and not sums_first(job):
        return SUM_WAY
    if not job.columns:
        cut_rows(job)
    if n.statistic == GIVEN:
        if not job.columns and job.count >= 4 and 1 < job.length and (
                job.length < SHORT_RUN or job.length < NARROW_RUN and n.channels * job.length <= FOLDED) and (
                even_pitch(job.run, 3, False) != 1 or even_pitch(job.run, 3, True) != 1
                or n.x.channel == job.length and n.y.channel == job.length):
            job.columns = True  # not of runs in one piece with gaps between them
        if not job.columns:
            return ROWS_WAY
        cut_columns(job, job.length if job.length > 1 else 1)
        return COLUMNS_WAY
    alone = job.count == 1 and inside(n.inner, n.x.inner, n) and is_better_alone(job)
    if not job.columns and job.member == 1 and (
            job.positions <= LANE_VALUES if job.scattered else is_lane_row(job) and not alone):
        return LANES_WAY
    if job.columns or (job.count > 1 and job.length < COLUMN_RUN and not n.along and job.member == 1):
        cut_columns(job, 1 if job.columns else job.length)
        return COLUMNS_WAY
    return ROWS_WAY


cdef int forward(const Norm* norm, int threads) noexcept nogil:
    """y from x: KernelSet's forward."""
    cdef Job job
    cdef Way way = ROWS_WAY
    begin(&job, norm, threads)
    if not job.failed:
        way = way_of(&job)
        if way != ROWS_WAY:
            make_room_for_longer(&job, 1)
    if not job.failed:
        if norm.addend != NULL and (way == ROWS_WAY or way == LANES_WAY):
            add_all(&job, threads)
        if way == SUM_WAY:
            forward_sum(&job, threads)
        elif norm.statistic == GIVEN:
            forward_given(&job, threads)
        elif way == LANES_WAY:
            forward_lanes(&job, threads)
        elif way == COLUMNS_WAY:
            forward_columns(&job, threads)
        else:
            forward_rows(&job, threads)
    finish(&job)
    return -1 if job.failed else 0


cdef int explain(const Norm* norm, Plan* plan) noexcept nogil:
    """KernelSet's explain: what `forward` would do."""
    cdef Job job
    begin(&job, norm, 1)
    if not job.failed:
        plan.way = way_of(&job)
        plan.packed = plan.way == LANES_WAY or plan.way == ROWS_WAY and not job.even or (
            plan.way == COLUMNS_WAY and job.line_pitch == 0)
        plan.far, plan.streamed = job.far, job.traffic.streamed
    finish(&job)
    return -1 if job.failed else 0


cdef void activate(Py_ssize_t element, Py_ssize_t activation, void* values, Py_ssize_t n) noexcept nogil:
    """An activation of n values in place, float32 or float64: for the engine whose loops are compiled elsewhere."""
    cdef Next nothing
    memset(&nothing, 0, sizeof(nothing))
    if element == FLOAT64:
        activate_double(<int> activation, <double*> values, <double*> values, n, False, nothing)
    else:
        activate_float(<int> activation, <float*> values, <float*> values, n, False, nothing)


cdef void widen_parameters(Job* job) noexcept nogil:
    """weight and bias in what is computed in."""
    cdef Norm* n = &job.n
    cdef const Lines* lines = lines_of[n.parameter_element]
    cdef Py_ssize_t count = n.outer * n.middle * n.inner if n.along else n.channels
    cdef Py_ssize_t bytes = on_lines(count * lines.computed)
    cdef char* target
    job.widened = <char*> malloc(STEP_BYTES + 2 * bytes)
    if job.widened == NULL:
        job.failed = True
        return
    target = on_line(job.widened)
    if n.weight != NULL:
        lines.widen(n.weight, target, count)
        n.weight = target
    if n.bias != NULL:
        lines.widen(n.bias, target + bytes, count)
        n.bias = target + bytes


cdef void fill(char* target, Py_ssize_t count, int value, int size) noexcept nogil:
    """target = `value`, count times."""
    cdef Py_ssize_t i
    for i in range(count):
        if size == sizeof(float):
            (<float*> target)[i] = value
        else:
            (<double*> target)[i] = value
