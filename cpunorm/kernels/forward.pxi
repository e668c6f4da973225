# Forward: y from x, by rows, columns or lanes; what is shared by threads, and how.
# Included by _kernels.pyx, whose header says how and why.

ctypedef void (*work_function)(void* context, int thread, Py_ssize_t start, Py_ssize_t stop) noexcept nogil


cdef void share(work_function work, void* context, Py_ssize_t units, int threads) noexcept nogil:
    """work(context, thread, start, stop) over 0..units, shared evenly by up to `threads` threads."""
    cdef int thread = 0, size = 1
    cdef Team team
    if threads == 1 or units == 1:
        work(context, 0, 0, units)
    else:
        start_team(&team)
        with parallel(num_threads=threads):
            thread, size = join_team(&team), team_size()
            work(context, thread, units * thread // size, units * (thread + 1) // size)
            leave_team(&team)


# Apply by rows: a line is the inner positions of one channel.

cdef void apply_rows(
    const Job* job, Py_ssize_t sample, Py_ssize_t outer, Py_ssize_t middle, Py_ssize_t start, Py_ssize_t length,
    Py_ssize_t channel, Py_ssize_t channels, const char* high, const char* scale, const char* shift, Traffic traffic,
) noexcept nogil:
    """The `length` values from `start` on of the lines of `channels` channels, whose coefficients are given."""
    cdef double packed[MOST_BLOCK]
    cdef const Norm* n = &job.n
    cdef int size = job.lines.size
    cdef Py_ssize_t place = (outer * n.middle + middle) * n.inner + start, c, i, some
    cdef Py_ssize_t weights = channel * job.along_step + place
    cdef const char* x = x_at(job, sample * n.x.sample + outer * n.x.outer + middle * n.x.middle + start * n.x.inner
                              + channel * n.x.channel)
    cdef char* y = y_at(job, sample * n.y.sample + outer * n.y.outer + middle * n.y.middle + start * n.y.inner
                        + channel * n.y.channel)
    if (n.x.inner == 1 and n.y.inner == 1) or n.inner == 1:
        if not n.along:
            job.lines.apply_constant(
                x, y, length, channels, n.x.channel, n.y.channel, high, scale, shift, 1, traffic)
        elif job.along_step == 0:
            job.lines.apply_along(
                x, y, length, channels, n.x.channel, n.y.channel, high, scale, shift,
                <const char*> n.weight + weights * size, <const char*> n.bias + weights * size, traffic)
        else:
            for c in range(channels):
                job.lines.apply_along(
                    x + c * n.x.channel * size, y + c * n.y.channel * size, length, 1, 0, 0,
                    high + c * size, scale + c * size, shift + c * size,
                    <const char*> n.weight + (weights + c * job.along_step) * size,
                    <const char*> n.bias + (weights + c * job.along_step) * size, traffic)
        return
    for c in range(channels):
        i = 0
        while i < length:
            some = min(<Py_ssize_t> job.lines.block, length - i)
            copy(<char*> packed, 1, x + (c * n.x.channel + i * n.x.inner) * size, n.x.inner, some, size)
            if n.along:
                job.lines.apply_along(
                    packed, packed, some, 1, 0, 0, high + c * size, scale + c * size, shift + c * size,
                    <const char*> n.weight + (weights + c * job.along_step + i) * size,
                    <const char*> n.bias + (weights + c * job.along_step + i) * size, Traffic(0, 0))
            else:
                job.lines.apply_constant(
                    packed, packed, some, 1, 0, 0, high + c * size, scale + c * size, shift + c * size, 1,
                    Traffic(0, 0))
            copy(y + (c * n.y.channel + i * n.y.inner) * size, n.y.inner, <char*> packed, 1, some, size)
            i += some


cdef void work_apply_rows(void* context, int thread, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The pieces start..stop of all lines (sample, outer, middle, piece, channel), from the end on: what the moments
    read last is still in cache."""
    cdef const Job* job = <const Job*> context
    cdef const Norm* n = &job.n
    cdef Py_ssize_t length = ceil_div(n.inner, job.pieces), unit, first, channel, piece, middle, outer, sample
    cdef Py_ssize_t many = max(<Py_ssize_t> 1, PART // length), at
    while start < stop:
        # as many channels as share a place, and a cache
        unit = stop - 1
        channel = unit % n.channels
        unit //= n.channels
        first = max(start, stop - 1 - channel, stop - many)
        channel -= stop - 1 - first
        piece, unit = unit % job.pieces, unit // job.pieces
        middle, unit = unit % n.middle, unit // n.middle
        outer, sample = unit % n.outer, unit // n.outer
        at = (sample * n.channels + channel) * job.lines.size
        apply_rows(job, sample, outer, middle, piece * length, min(length, n.inner - piece * length), channel,
                   stop - first, job.high + at, job.scale + at, job.shift + at, job.traffic)
        stop = first
    end_stream()


# Rows: a thread takes whole domains, moments and apply; where they are few and large, parts of them.

cdef void apply_domain(
    const Job* job, Py_ssize_t sample, Py_ssize_t channel, Py_ssize_t channels, const char* high, const char* scale,
    const char* shift, Traffic traffic,
) noexcept nogil:
    """All lines of some channels of one sample."""
    cdef const Norm* n = &job.n
    cdef Py_ssize_t outer, middle
    if n.along and (n.outer > 1 or n.middle > 1):
        apply_gathered(job, sample, channel, channels, high, scale, shift)
        return
    if (channels == 1 and n.middle == 1 and not n.along and n.x.inner == 1 and n.y.inner == 1
            and job.positions * job.lines.size <= STRIP_BYTES):
        job.lines.apply_constant(
            x_at(job, sample * n.x.sample + channel * n.x.channel),
            y_at(job, sample * n.y.sample + channel * n.y.channel),
            n.inner, n.outer, n.x.outer, n.y.outer, high, scale, shift, 0, traffic)
        return
    for outer in range(n.outer - 1, -1, -1):  # backwards: the samples that were read last are still in cache
        for middle in range(n.middle):
            apply_rows(job, sample, outer, middle, 0, n.inner, channel, channels, high, scale, shift, traffic)


cdef void apply_gathered(
    const Job* job, Py_ssize_t sample, Py_ssize_t channel, Py_ssize_t channels, const char* high, const char* scale,
    const char* shift,
) noexcept nogil:
    """`apply_domain` of lines that don't follow each other, with weights along all of them."""
    cdef double packed[MOST_BLOCK]
    cdef const Norm* n = &job.n
    cdef Axis axes[3]
    cdef int size = job.lines.size
    cdef Py_ssize_t c, i, some, weights
    axes[0] = Axis(n.outer, n.x.outer, n.y.outer)
    axes[1], axes[2] = Axis(n.middle, n.x.middle, n.y.middle), Axis(n.inner, n.x.inner, n.y.inner)
    for c in range(channels):
        i = 0
        while i < job.positions:
            some = min(<Py_ssize_t> MOST_BLOCK, job.positions - i)
            weights = ((channel + c) * job.along_step + i) * size
            gather(<char*> packed, x_at(job, sample * n.x.sample + (channel + c) * n.x.channel), axes, i, some, size)
            job.lines.apply_along(
                packed, packed, some, 1, 0, 0, high + c * size, scale + c * size, shift + c * size,
                <const char*> n.weight + weights, <const char*> n.bias + weights, Traffic(0, 0))
            scatter(y_at(job, sample * n.y.sample + (channel + c) * n.y.channel), <char*> packed, axes, i, some, size)
            i += some


cdef void work_rows(void* context, int thread, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """Moments and apply of the domains start..stop, of all (sample, group)."""
    cdef Job* job = <Job*> context
    cdef const Norm* n = &job.n
    cdef Py_ssize_t index = start, sample, group, part, at, i, count
    cdef bint single = job.count == 1 and job.even and job.length <= job.lines.block, fetched = False
    cdef Py_ssize_t most = 1, near
    cdef Moments moments[TOGETHER]
    cdef double means[TOGETHER]
    cdef double vars_[TOGETHER]
    cdef double coefficients[3 * TOGETHER]
    cdef double* mean = means
    cdef double* var = vars_
    cdef char* high = <char*> coefficients
    cdef char* scale = <char*> &coefficients[TOGETHER]
    cdef char* shift = <char*> &coefficients[2 * TOGETHER]
    cdef Moments* parts
    cdef int size = job.lines.size
    cdef Traffic traffic = job.traffic
    if single and job.member == 1 and stop - start > 1:
        near = STREAMED_BYTES if traffic.streamed else NEAR_BYTES
        most = max(<Py_ssize_t> 1, min(<Py_ssize_t> TOGETHER, near // (job.length * size)))
        if most >= 4:
            most = most // 4 * 4
        if job.far:
            traffic.ahead = most * n.x.channel * size
        fetched = job.far  # while the ones before are applied: hardware doesn't foresee them, for those are read twice
    while index < stop:
        sample = index // n.groups if n.samples > 1 else 0
        group = index - sample * n.groups
        count = min(most, stop - index, n.groups - group)
        if single:
            job.lines.row_moments(domain_of(job, index), job.length, <int> count, n.x.channel * job.member,
                                  job.far and not fetched, job.rule, moments)
        elif job.parts == 1:
            moments[0] = part_moments(job, domain_of(job, index), 0)
        else:
            parts = job.moments + index * job.parts
            for part in range(job.parts):
                parts[part] = part_moments(job, domain_of(job, index), part)
            merge_tree(parts, job.parts)
            moments[0] = parts[0]
        for i in range(count):
            means[i], vars_[i] = moments[i].mean, moments[i].m2 / moments[i].count
        group *= job.member
        if job.member > 1:
            at = index * job.member
            mean, var = job.means + at, job.m2s + at
            for i in range(job.member):
                mean[i], var[i] = means[0], vars_[0]
            high, scale, shift = job.high + at * size, job.scale + at * size, job.shift + at * size
        coefficients_of(job, sample, group, count * job.member, mean, var, high, scale, shift)
        if n.mean != NULL:
            for i in range(count):
                n.mean[index + i], n.var[index + i] = mean[i * job.member], var[i * job.member]
        apply_domain(job, sample, group, count * job.member, high, scale, shift, traffic)
        index += count
    end_stream()


cdef void coefficients_of(
    const Job* job, Py_ssize_t sample, Py_ssize_t channel, Py_ssize_t channels, double* mean, double* var, char* high,
    char* scale, char* shift,
) noexcept nogil:
    """Coefficients of some channels of one sample from their mean and variance."""
    cdef const Norm* n = &job.n
    cdef Py_ssize_t at = channel * job.lines.size, c
    job.lines.channel_coefficients(
        channels, mean, var, n.eps,
        NULL if n.along or n.weight == NULL else <const char*> n.weight + at,
        NULL if n.along or n.bias == NULL else <const char*> n.bias + at, high, scale, shift)
    if n.element == 1 and n.statistic != GIVEN:
        for c in range(channels):
            if not LEAST_VAR <= var[c] + n.eps <= MOST_VAR:
                extreme_coefficients(job, sample, channel + c, &mean[c], &var[c], high + c * sizeof(double),
                                     scale + c * sizeof(double), shift + c * sizeof(double))


cdef void extreme_coefficients(
    const Job* job, Py_ssize_t sample, Py_ssize_t channel, double* mean, double* var, char* high, char* scale,
    char* shift,
) noexcept nogil:
    """The same of a channel whose variance left the range of float64: from its values times a power of 2."""
    cdef const Norm* n = &job.n
    cdef Py_ssize_t first = channel // job.member * job.member, c, outer, middle, inner, again
    cdef double power = 2.0 ** 600 if var[0] < 1 else 2.0 ** -600, count = job.member * job.positions
    cdef double centre = 0, total, squares, d, weight
    cdef const double* x
    for again in range(2):
        total = squares = 0
        for c in range(first, first + job.member):
            for outer in range(n.outer):
                for middle in range(n.middle):
                    x = <const double*> x_at(job, sample * n.x.sample + c * n.x.channel + outer * n.x.outer
                                             + middle * n.x.middle)
                    for inner in range(n.inner):
                        d = x[inner * n.x.inner] * power - centre
                        total += d
                        squares += d * d
        if not job.rule.about_zero:
            centre += total / count
    squares = (squares if job.rule.about_zero else squares - total * (total / count)) / count
    if squares - squares != 0:  # Inf or NaN among the values
        return
    mean[0], var[0] = centre / power, squares / power / power
    weight = power if n.along or n.weight == NULL else power * (<const double*> n.weight)[channel]
    job.lines.channel_coefficients(
        1, mean, &squares, n.eps * power * power, &weight,
        NULL if n.along or n.bias == NULL else <const char*> n.bias + channel * sizeof(double), high, scale, shift)


cdef void forward_rows(Job* job, int threads) noexcept nogil:
    cdef Norm* n = &job.n
    cdef Py_ssize_t domains = n.samples * n.groups, i, c
    cdef bint shared = job.parts > 1 and threads > 1 and domains < 4 * threads
    if job.parts > 1:
        job.moments = <Moments*> malloc(domains * job.parts * sizeof(Moments))
        job.failed |= job.moments == NULL
    if shared or job.member > 1:
        allocate_coefficients(job, n.samples * n.channels)
    if job.failed:
        return
    if not shared:
        share(work_rows, job, domains, threads)
        return
    share(work_parts, job, domains * job.parts, threads)
    for i in range(domains):
        merge_tree(job.moments + i * job.parts, job.parts)
        for c in range(i * job.member, (i + 1) * job.member):
            job.means[c] = job.moments[i * job.parts].mean
            job.m2s[c] = job.moments[i * job.parts].m2 / job.moments[i * job.parts].count
    apply_all(job, threads)
    if n.mean != NULL:
        for i in range(domains):
            n.mean[i], n.var[i] = job.means[i * job.member], job.m2s[i * job.member]


cdef void allocate_coefficients(Job* job, Py_ssize_t count) noexcept nogil:
    """Room for mean, var, high, scale and shift of `count` channels."""
    job.means = <double*> malloc(count * (2 * sizeof(double) + 3 * job.lines.size))
    if job.means == NULL:
        job.failed = True
        return
    job.m2s = job.means + count
    job.high = <char*> (job.m2s + count)
    job.scale = job.high + count * job.lines.size
    job.shift = job.scale + count * job.lines.size


cdef void apply_all(Job* job, int threads) noexcept nogil:
    """Apply with the means and variances (in m2s) of all samples and channels, by rows, lines shared by the threads."""
    cdef const Norm* n = &job.n
    cdef Py_ssize_t sample, lines = n.samples * n.outer * n.middle * n.channels, at
    cdef int size = job.lines.size
    for sample in range(n.samples):
        at = sample * n.channels
        coefficients_of(job, sample, 0, n.channels, job.means + at, job.m2s + at,
                        job.high + at * size, job.scale + at * size, job.shift + at * size)
    job.pieces = ceil_div(n.inner, PIECE) if lines < 4 * threads else 1
    share(work_apply_rows, job, lines * job.pieces, threads)


# Columns.

cdef struct Strip:
    # Moments of the columns of a strip, then mean and variance of its channels, and their coefficients.
    double* means
    double* m2s
    char* high
    char* scale
    char* shift


cdef inline size_t strip_bytes(const Job* job) noexcept nogil:
    cdef Py_ssize_t columns = job.strip * job.fold
    return <size_t> ceil_div(columns * (2 * job.parts * sizeof(double) + 3 * job.lines.size), 64) * 64


cdef void allocate_strips(Job* job, Py_ssize_t threads) noexcept nogil:
    """Room for a strip of each thread, before the first one writes: y may be x, which is to stay whole on failure."""
    job.means = <double*> malloc(threads * strip_bytes(job))
    job.failed |= job.means == NULL


cdef inline Strip strip_of(const Job* job, int thread) noexcept nogil:
    cdef Py_ssize_t columns = job.strip * job.fold, size = job.lines.size
    cdef Strip strip
    strip.means = <double*> (<char*> job.means + thread * strip_bytes(job))
    strip.m2s = strip.means + job.parts * columns
    strip.high = <char*> (strip.m2s + job.parts * columns)
    strip.scale, strip.shift = strip.high + columns * size, strip.high + 2 * columns * size
    return strip


cdef void finish_strip(
    const Job* job, Strip* strip, Py_ssize_t sample, Py_ssize_t column, Py_ssize_t columns
) noexcept nogil:
    """From the moments of all parts to the coefficients of the columns."""
    cdef const Norm* n = &job.n
    cdef Py_ssize_t lines = job.tall // job.fold, left = job.tall % job.fold * job.wide
    cdef Py_ssize_t channel = column // job.width, channels = columns // job.width, c, g
    cdef const char* x = x_at(job, sample * n.x.sample)
    cdef double packed[MOST_LANES]
    merge_columns(strip.means, strip.m2s, columns * job.fold, job.parts, job.part_lines, lines)
    if left:  # lines that no fold takes: one more in the first columns
        pack_rest(job, <char*> packed, x, left)
        job.lines.column_moments(packed, left, 1, left, 0, job.rule, <double> lines, strip.means, strip.m2s)
    channels_of(job, columns, strip.means, strip.m2s, left)
    coefficients_of(job, sample, channel, channels, strip.means, strip.m2s, strip.high, strip.scale, strip.shift)
    if n.mean != NULL:
        for g in range(channels // job.member):
            c = sample * n.groups + channel // job.member + g
            n.mean[c], n.var[c] = strip.means[g * job.member], strip.m2s[g * job.member]
    spread(strip, channels, job.width, job.lines.size)


cdef inline void spread(Strip* strip, Py_ssize_t channels, Py_ssize_t width, int size) noexcept nogil:
    """Coefficients of channels become those of their `width` columns each."""
    if width > 1:
        widen(strip.high, strip.high, channels, width, size)
        widen(strip.scale, strip.scale, channels, width, size)
        widen(strip.shift, strip.shift, channels, width, size)


cdef void pack_rest(const Job* job, char* target, const char* x, Py_ssize_t left) noexcept nogil:
    """target = the first `left` values of the lines that no fold takes."""
    cdef Py_ssize_t i, c, at
    for i in range(left):
        c = i % job.wide
        at = (offset_in(job.line_axes, 3, job.tall // job.fold * job.fold + i // job.wide, False)
              + c // job.width * job.n.x.channel)
        if job.width > 1:
            at += offset_in(job.run, 3, c % job.width, False)
        copy(target + i * job.lines.size, 1, x + at * job.lines.size, 1, 1, job.lines.size)


cdef void apply_columns(
    const Job* job, Py_ssize_t sample, Py_ssize_t line, Py_ssize_t stop, Py_ssize_t column, Py_ssize_t columns,
    const char* high, const char* scale, const char* shift,
) noexcept nogil:
    """The lines line..stop of one sample in `columns` columns, whose coefficients are given."""
    cdef double packed[MOST_BLOCK]
    cdef double repeated[3 * FOLDED]
    cdef const Norm* n = &job.n
    cdef const Axis* inner = &job.line_axes[2]
    cdef int size = job.lines.size
    cdef Py_ssize_t x_line, y_line, at, many, i, some, fold = 1, x_column, y_column, x_pitch, y_pitch
    cdef const char* x = x_at(job, sample * n.x.sample)
    cdef char* y = y_at(job, sample * n.y.sample)
    cdef const char* w
    cdef const char* b
    cdef bint unit = columns == 1
    if job.width > 1:
        unit = even_pitch(job.run, 3, False) == 1 and even_pitch(job.run, 3, True) == 1 and (
            n.channels == 1 or n.x.channel == job.width and n.y.channel == job.width)
        x_column = y_column = 1
    else:
        x_column, y_column = n.x.channel, n.y.channel
        unit = unit or x_column == 1 and y_column == 1
    if job.width > 1 and not unit:
        apply_uneven(job, sample, line, stop, column, columns, high, scale, shift)
        return
    if not n.along and job.width == 1 and columns == job.wide and columns < job.lines.lanes and not (
            unit and even_pitch(job.line_axes, 3, False) == columns and even_pitch(job.line_axes, 3, True) == columns):
        apply_packed(job, sample, line, stop, high, scale, shift)
        return
    x_pitch, y_pitch = even_pitch(job.line_axes, 3, False), even_pitch(job.line_axes, 3, True)
    if unit and not n.along and column == 0 and columns == job.wide and x_pitch == columns and y_pitch == columns:
        while columns * fold % job.lines.lanes and 2 * fold * columns <= FOLDED and 4 * fold <= stop - line:
            fold *= 2
        if fold > 1:  # short lines follow each other: many are walked as one
            for i in range(fold):
                memcpy(<char*> repeated + i * columns * size, high, columns * size)
                memcpy(<char*> &repeated[FOLDED] + i * columns * size, scale, columns * size)
                memcpy(<char*> &repeated[2 * FOLDED] + i * columns * size, shift, columns * size)
            many = (stop - line) // fold
            job.lines.apply_columns(
                x + line * columns * size, y + line * columns * size, columns * fold, many, columns * fold,
                columns * fold, repeated, &repeated[FOLDED], &repeated[2 * FOLDED], job.traffic)
            line += many * fold
    while line < stop:
        at = line % inner.length
        many = min(inner.length - at, stop - line)
        x_line = offset_in(job.line_axes, 2, line // inner.length, False) + at * inner.x + column * x_column
        y_line = offset_in(job.line_axes, 2, line // inner.length, True) + at * inner.y + column * y_column
        x_pitch, y_pitch = inner.x, inner.y
        if many == 1 and inner.length == 1 and unit:  # (outer, middle) may lie evenly all the same
            many = min(job.line_axes[1].length - line % job.line_axes[1].length, stop - line)
            x_pitch, y_pitch = job.line_axes[1].x, job.line_axes[1].y
            if job.line_axes[1].length == 1:
                many = stop - line
                x_pitch, y_pitch = job.line_axes[0].x, job.line_axes[0].y
        w = <const char*> n.weight + line * size
        b = <const char*> n.bias + line * size
        if unit and n.along:
            job.lines.apply_columns_along(
                x + x_line * size, y + y_line * size, columns, many, x_pitch, y_pitch, high, scale, shift, w, b, 0,
                job.traffic)
        elif unit:
            job.lines.apply_columns(
                x + x_line * size, y + y_line * size, columns, many, x_pitch, y_pitch, high, scale, shift,
                job.traffic)
        else:
            many = 1
            i = 0
            while i < columns:
                some = min(<Py_ssize_t> job.lines.block, columns - i)
                copy(<char*> packed, 1, x + (x_line + i * x_column) * size, x_column, some, size)
                if n.along:
                    job.lines.apply_columns_along(
                        packed, packed, some, 1, 0, 0, high + i * size, scale + i * size, shift + i * size, w, b, 0,
                        Traffic(0, 0))
                else:
                    job.lines.apply_columns(
                        packed, packed, some, 1, 0, 0, high + i * size, scale + i * size, shift + i * size,
                        Traffic(0, 0))
                copy(y + (y_line + i * y_column) * size, y_column, <char*> packed, 1, some, size)
                i += some
        line += many


cdef void apply_packed(
    const Job* job, Py_ssize_t sample, Py_ssize_t line, Py_ssize_t stop, const char* high, const char* scale,
    const char* shift,
) noexcept nogil:
    """`apply_columns` of short lines that don't follow each other: many become one."""
    cdef double packed[MOST_BLOCK]
    cdef double repeated[3 * FOLDED]
    cdef Axis axes[3]
    cdef Axis columns = Axis(job.wide, job.n.x.channel, job.n.y.channel)
    cdef int size = job.lines.size
    cdef Py_ssize_t fold = FOLDED // job.wide, most = MOST_BLOCK // (fold * job.wide) * fold, lines, i, bytes, whole
    cdef const char* x = x_at(job, sample * job.n.x.sample)
    cdef char* y = y_at(job, sample * job.n.y.sample)
    bytes = job.wide * size
    for i in range(fold):
        memcpy(<char*> repeated + i * bytes, high, bytes)
        memcpy(<char*> &repeated[FOLDED] + i * bytes, scale, bytes)
        memcpy(<char*> &repeated[2 * FOLDED] + i * bytes, shift, bytes)
    axes[0], axes[1], axes[2] = job.line_axes[1], job.line_axes[2], columns
    while line < stop:  # not beyond one index of the outermost axis: gather takes three
        lines = job.line_axes[1].length * job.line_axes[2].length
        i = line // lines
        lines = min(most, stop - line, (i + 1) * lines - line)
        line -= i * job.line_axes[1].length * job.line_axes[2].length
        gather(<char*> packed, x + i * job.line_axes[0].x * size, axes, line * job.wide, lines * job.wide, size)
        whole = lines // fold
        job.lines.apply_columns(packed, packed, fold * job.wide, whole, fold * job.wide, fold * job.wide, repeated,
                                &repeated[FOLDED], &repeated[2 * FOLDED], Traffic(0, 0))
        if lines % fold:
            job.lines.apply_columns(
                <char*> packed + whole * fold * bytes, <char*> packed + whole * fold * bytes, lines % fold * job.wide,
                1, 0, 0, repeated, &repeated[FOLDED], &repeated[2 * FOLDED], Traffic(0, 0))
        scatter(y + i * job.line_axes[0].y * size, <char*> packed, axes, line * job.wide, lines * job.wide, size)
        line += i * job.line_axes[1].length * job.line_axes[2].length + lines


cdef void apply_uneven(
    const Job* job, Py_ssize_t sample, Py_ssize_t line, Py_ssize_t stop, Py_ssize_t column, Py_ssize_t columns,
    const char* high, const char* scale, const char* shift,
) noexcept nogil:
    """`apply_columns` of runs that don't follow each other: run by run."""
    cdef double packed[MOST_LANES]
    cdef const Norm* n = &job.n
    cdef int size = job.lines.size
    cdef Py_ssize_t c, i, channel
    for i in range(line, stop):
        c = 0
        while c < columns:
            channel = (column + c) // job.width
            gather(<char*> packed, x_at(job, sample * n.x.sample + channel * n.x.channel
                                        + offset_in(job.line_axes, 3, i, False)), job.run, 0, job.width, size)
            job.lines.apply_constant(packed, packed, job.width, 1, 0, 0, high + c * size, scale + c * size,
                                     shift + c * size, 0, Traffic(0, 0))
            scatter(y_at(job, sample * n.y.sample + channel * n.y.channel + offset_in(job.line_axes, 3, i, True)),
                    <char*> packed, job.run, 0, job.width, size)
            c += job.width


cdef void work_columns(void* context, int thread, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """Moments and apply of the strips start..stop, of all (sample, strip)."""
    cdef Job* job = <Job*> context
    cdef Strip strip = strip_of(job, thread)
    cdef Py_ssize_t unit, sample, column, columns, part, lines = job.tall // job.fold, at
    for unit in range(start, stop):
        sample, column = unit // job.strips, unit % job.strips * job.strip
        columns = min(job.strip, job.wide - column)
        for part in range(job.parts):
            at = part * columns * job.fold
            columns_moments(job, x_at(job, sample * job.n.x.sample), part * job.part_lines,
                            min((part + 1) * job.part_lines, lines), column, columns * job.fold, strip.means + at,
                            strip.m2s + at)
        finish_strip(job, &strip, sample, column, columns)
        apply_backwards(job, sample, 0, job.tall, column, columns, strip.high, strip.scale, strip.shift)
    end_stream()


cdef void apply_backwards(
    const Job* job, Py_ssize_t sample, Py_ssize_t line, Py_ssize_t stop, Py_ssize_t column, Py_ssize_t columns,
    const char* high, const char* scale, const char* shift,
) noexcept nogil:
    """`apply_columns` from the last lines on: those were read last and are still in cache."""
    cdef Py_ssize_t chunk = max(<Py_ssize_t> 1, PART // columns), first
    while line < stop:
        first = max(line, stop - chunk)
        apply_columns(job, sample, first, stop, column, columns, high, scale, shift)
        stop = first


cdef struct Shared:
    # One sample whose lines all threads share.
    Job* job
    Strip* strip
    Py_ssize_t sample


cdef void work_column_parts(void* context, int thread, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    cdef Shared* shared = <Shared*> context
    cdef Job* job = shared.job
    cdef Py_ssize_t part, at, lines = job.tall // job.fold
    for part in range(start, stop):
        at = part * job.wide * job.fold
        columns_moments(job, x_at(job, shared.sample * job.n.x.sample), part * job.part_lines,
                        min((part + 1) * job.part_lines, lines), 0, job.wide * job.fold, shared.strip.means + at,
                        shared.strip.m2s + at)


cdef void work_apply_columns(void* context, int thread, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The lines start..stop of all samples (of one, if `sample` is not negative)."""
    cdef Shared* shared = <Shared*> context
    cdef Job* job = shared.job
    cdef Py_ssize_t sample, first
    if shared.sample >= 0:
        apply_backwards(job, shared.sample, start, stop, 0, job.wide, shared.strip.high, shared.strip.scale,
                        shared.strip.shift)
    else:
        while start < stop:
            sample = (stop - 1) // job.tall
            first = max(start, sample * job.tall)
            apply_backwards(job, sample, first - sample * job.tall, stop - sample * job.tall, 0, job.wide,
                            shared.strip.high, shared.strip.scale, shared.strip.shift)
            stop = first
    end_stream()


cdef void forward_columns(Job* job, int threads) noexcept nogil:
    """A thread takes whole strips; where those are few and tall, all share the lines of each sample."""
    cdef Py_ssize_t units = job.n.samples * job.strips, sample, whole = job.width * job.member
    cdef Strip strip
    cdef Shared shared
    if threads > 1 and job.fold == 1 and units % threads and units < 4 * threads and (
            job.strip >= 2 * NARROW and job.tall <= TALL_STRIP):
        job.strip = min(ceil_div(max(ceil_div(job.wide, 2 * threads), <Py_ssize_t> NARROW), whole) * whole, job.wide)
        job.strips = ceil_div(job.wide, job.strip)
        units = job.n.samples * job.strips
    if threads == 1 or units >= 4 * threads or units % threads == 0 or job.strips > 1:
        allocate_strips(job, threads)
        if not job.failed:
            share(work_columns, job, units, threads)
        return
    allocate_strips(job, 1)
    if job.failed:
        return
    strip = strip_of(job, 0)
    shared.job, shared.strip = job, &strip
    for sample in range(job.n.samples):
        shared.sample = sample
        share(work_column_parts, &shared, job.parts, threads)
        finish_strip(job, &strip, sample, 0, job.wide)
        share(work_apply_columns, &shared, job.tall, threads)


# Lanes: domains of so few values that each takes a lane; a tile of them is packed into L1, turned.

cdef struct Turn:
    # A tile of `window` domains, whose values lie at these offsets from their first.
    Job* job
    Py_ssize_t window
    bint within  # windows lie within samples, all samples of one window before the next; else over all domains
    Py_ssize_t x[LANE_VALUES]
    Py_ssize_t y[LANE_VALUES]
    Py_ssize_t in_order[LANE_VALUES]


cdef inline void turn(
    char* target, const char* source, Py_ssize_t stride, Py_ssize_t lanes, const Py_ssize_t* offsets, int values,
    int size, bint back,
) noexcept nogil:
    """target (values, lanes) = source, domains `stride` apart; `back`: source (values, lanes) to such a target."""
    cdef Py_ssize_t lane
    cdef int v
    if size == 4 and not back:
        for v in range(values):
            for lane in range(lanes):
                (<uint32_t*> target)[v * MOST_LANES + lane] = (<const uint32_t*> source)[lane * stride + offsets[v]]
    elif size == 4:
        for lane in range(lanes):
            for v in range(values):
                (<uint32_t*> target)[lane * stride + offsets[v]] = (<const uint32_t*> source)[v * MOST_LANES + lane]
    elif not back:
        for v in range(values):
            for lane in range(lanes):
                (<uint64_t*> target)[v * MOST_LANES + lane] = (<const uint64_t*> source)[lane * stride + offsets[v]]
    else:
        for lane in range(lanes):
            for v in range(values):
                (<uint64_t*> target)[lane * stride + offsets[v]] = (<const uint64_t*> source)[v * MOST_LANES + lane]


cdef void work_lanes(void* context, int thread, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The windows start..stop."""
    cdef const Turn* t = <const Turn*> context
    cdef const Job* job = t.job
    cdef const Norm* n = &job.n
    cdef int size = job.lines.size, values = <int> job.positions
    cdef double tile[LANE_VALUES * MOST_LANES]
    cdef double matrix[2 * LANE_VALUES * MOST_LANES]
    cdef double mean[MOST_LANES]
    cdef double m2[MOST_LANES]
    cdef double coefficients[3 * MOST_LANES]
    cdef char* high = <char*> coefficients
    cdef char* scale = <char*> &coefficients[MOST_LANES]
    cdef char* shift = <char*> &coefficients[2 * MOST_LANES]
    cdef char* weights = <char*> matrix
    cdef char* biases = <char*> &matrix[LANE_VALUES * MOST_LANES]
    cdef Py_ssize_t unit, first, count, sample, group, lane, some, known = -1, at
    for unit in range(start, stop):
        if t.within:
            sample, group = unit % n.samples, unit // n.samples * t.window
            count = min(t.window, n.groups - group)
            first = sample * n.groups + group
        else:
            first = unit * t.window
            count = min(t.window, n.samples * n.groups - first)
        if job.along_step and known != first % n.groups:
            known = first % n.groups
            lane = 0
            while lane < count or lane < t.window and not t.within:
                group = (known + lane) % n.groups
                some = min(n.groups - group, t.window - lane)
                at = group * job.along_step * size
                turn(weights + lane * size, <const char*> n.weight + at, job.along_step, some, t.in_order, values, size,
                     False)
                turn(biases + lane * size, <const char*> n.bias + at, job.along_step, some, t.in_order, values, size,
                     False)
                lane += some
        lane = 0
        while lane < count:
            sample, group = (first + lane) // n.groups, (first + lane) % n.groups
            some = min(n.groups - group, count - lane)
            turn(<char*> tile + lane * size, x_at(job, sample * n.x.sample + group * n.x.channel), n.x.channel, some,
                 t.x, values, size, False)
            lane += some
        job.lines.column_moments(tile, MOST_LANES, values, count, 0, job.rule, 0, mean, m2)
        for lane in range(count):
            m2[lane] = m2[lane] / values
        lane = 0
        while lane < count:
            sample, group = (first + lane) // n.groups, (first + lane) % n.groups
            some = min(n.groups - group, count - lane)
            coefficients_of(job, sample, group, some, mean + lane, m2 + lane, high + lane * size, scale + lane * size,
                            shift + lane * size)
            lane += some
        if n.mean != NULL:
            for lane in range(count):
                n.mean[first + lane], n.var[first + lane] = mean[lane], m2[lane]
        if n.along:
            job.lines.apply_columns_along(
                tile, tile, count, values, MOST_LANES, MOST_LANES, high, scale, shift,
                weights if job.along_step else n.weight, biases if job.along_step else n.bias,
                MOST_LANES if job.along_step else 0, Traffic(0, 0))
        else:
            job.lines.apply_columns(tile, tile, count, values, MOST_LANES, MOST_LANES, high, scale, shift,
                                    Traffic(0, 0))
        lane = 0
        while lane < count:
            sample, group = (first + lane) // n.groups, (first + lane) % n.groups
            some = min(n.groups - group, count - lane)
            turn(y_at(job, sample * n.y.sample + group * n.y.channel), <char*> tile + lane * size, n.y.channel, some,
                 t.y, values, size, True)
            lane += some


cdef void forward_lanes(Job* job, int threads) noexcept nogil:
    cdef Turn t
    cdef Axis axes[5]
    cdef Norm* n = &job.n
    cdef Py_ssize_t v, lanes = MOST_LANES, units
    t.job = job
    axes[0], axes[1] = job.segments[0], job.segments[1]
    axes[2], axes[3], axes[4] = job.run[0], job.run[1], job.run[2]
    for v in range(job.positions):
        t.x[v] = offset_in(axes, 5, v, False)
        t.y[v] = offset_in(axes, 5, v, True)
        t.in_order[v] = v
    t.window, t.within = lanes, False
    if n.along and job.along_step:
        t.within = n.groups >= lanes
        if not t.within:
            t.window = lanes // n.groups * n.groups
    units = n.samples * ceil_div(n.groups, t.window) if t.within else ceil_div(n.samples * n.groups, t.window)
    share(work_lanes, &t, units, threads)


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
    spread(&strip, n.channels, job.width, job.lines.size)
    shared.job, shared.strip, shared.sample = job, &strip, -1
    share(work_apply_columns, &shared, n.samples * job.tall, threads)


cdef void begin(Job* job, const Norm* norm) noexcept nogil:
    """A norm as it is seen; `finish` frees what that took."""
    cdef Py_ssize_t count
    memset(job, 0, sizeof(job[0]))
    job.n = norm[0]
    job.lines = lines_of[norm.element]
    job.rule.tiny = TINY[norm.element] if norm.eps < HIDING else 0
    job.rule.about_zero = norm.statistic == ABOUT_ZERO
    see(job)
    if job.n.along and job.n.weight == NULL and job.n.bias == NULL:
        job.n.along = False
    elif job.n.along and (job.n.weight == NULL or job.n.bias == NULL):
        count = job.positions * (job.n.channels if job.along_step else 1)
        job.constant = <char*> malloc(count * job.lines.size)
        if job.constant == NULL:
            job.failed = True
            return
        fill(job.constant, count, 1 if job.n.weight == NULL else 0, norm.element)
        if job.n.weight == NULL:
            job.n.weight = job.constant
        else:
            job.n.bias = job.constant


cdef void finish(Job* job) noexcept nogil:
    free(job.constant)
    free(job.expanded)
    free(job.moments)
    free(job.means)


cdef Way way_of(Job* job) noexcept nogil:
    """Which way the norm goes, its domains cut accordingly."""
    cdef const Norm* n = &job.n
    if not job.columns:
        cut_rows(job)
    if n.statistic == GIVEN:
        if (not job.columns and 1 < job.length < LANE_ROW and job.count >= 4
                and even_pitch(job.run, 3, False) == 1 and even_pitch(job.run, 3, True) == 1
                and n.x.channel == job.length and n.y.channel == job.length):
            job.columns = True
        if not job.columns:
            return ROWS_WAY
        cut_columns(job, job.length if job.length > 1 else 1)
        return COLUMNS_WAY
    if not job.columns and job.member == 1 and job.positions <= (LANE_VALUES if job.scattered else LANE_ROW):
        return LANES_WAY
    if job.columns or (job.count > 1 and job.length < NARROW_RUN and not n.along and job.member == 1):
        cut_columns(job, 1 if job.columns else job.length)
        return COLUMNS_WAY
    return ROWS_WAY


cdef int forward(const Norm* norm, int threads) noexcept nogil:
    """y from x: KernelSet's forward."""
    cdef Job job
    cdef Way way
    begin(&job, norm)
    if not job.failed:
        way = way_of(&job)
        if norm.statistic == GIVEN:
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
    begin(&job, norm)
    if not job.failed:
        plan.way = way_of(&job)
        plan.packed = plan.way == LANES_WAY or (job.line_pitch == 0 if plan.way == COLUMNS_WAY else not job.even)
        plan.far, plan.streamed = job.far, job.traffic.streamed
    finish(&job)
    return -1 if job.failed else 0


cdef void fill(char* target, Py_ssize_t count, int value, int element) noexcept nogil:
    """target = `value`, count times."""
    cdef Py_ssize_t i
    for i in range(count):
        if element == 0:
            (<float*> target)[i] = value
        else:
            (<double*> target)[i] = value
