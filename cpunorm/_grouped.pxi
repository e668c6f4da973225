# BatchNorm's training and GroupNorm: moments of domains of channels, in either layout, then apply.
# Included by _kernels.pyx, whose header says how and why.

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
    """channels_last: a thread takes whole samples, if they share out evenly or are many; else all share each sample."""
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
