# LayerNorm: moments of rows, then apply.
# Included by _kernels.pyx, whose header says how and why.

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
