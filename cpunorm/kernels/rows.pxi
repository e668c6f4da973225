# Forward by rows: a line is the inner positions of one channel.
# Included by _kernels.pyx, whose header says how and why.

cdef void apply_rows(
    const Job* job, Py_ssize_t sample, Py_ssize_t outer, Py_ssize_t middle, Py_ssize_t start, Py_ssize_t length,
    Py_ssize_t channel, Py_ssize_t lines, bint down, const char* high, const char* scale, const char* shift,
    const Traffic* traffic,
) noexcept nogil:
    """The `length` values from `start` on of lines of as many channels, whose coefficients are given, or, if `down`, of
    lines of one channel, one for each `middle`: of those whose weights don't run along them."""
    cdef Aligned packed_values[BESIDE + MOST_BLOCK]
    cdef char* packed = <char*> packed_values
    cdef const Norm* n = &job.n
    cdef int size = job.lines.size, computed = job.lines.computed
    cdef Py_ssize_t x_pitch = n.x.middle if down else n.x.channel, y_pitch = n.y.middle if down else n.y.channel
    cdef int step = 0 if down else 1
    cdef Py_ssize_t place = (outer * n.middle + middle) * n.inner + start, c, i, some, at
    cdef Py_ssize_t weights = channel * job.along_step + place
    cdef const char* x = x_at(job, sample * n.x.sample + outer * n.x.outer + middle * n.x.middle + start * n.x.inner
                              + channel * n.x.channel)
    cdef char* y = y_at(job, sample * n.y.sample + outer * n.y.outer + middle * n.y.middle + start * n.y.inner
                        + channel * n.y.channel)
    if (n.x.inner == 1 and n.y.inner == 1) or n.inner == 1:
        if not n.along:
            job.lines.apply_constant(x, y, length, lines, x_pitch, y_pitch, high, scale, shift, step, traffic)
        elif job.along_step == 0:
            job.lines.apply_along(
                x, y, length, lines, x_pitch, y_pitch, high, scale, shift, 1,
                <const char*> n.weight + weights * computed, <const char*> n.bias + weights * computed, traffic)
        else:
            for c in range(lines):
                at = (weights + c * job.along_step) * computed
                job.lines.apply_along(
                    x + c * x_pitch * size, y + c * y_pitch * size, length, 1, 0, 0,
                    high + c * computed, scale + c * computed, shift + c * computed, 0, <const char*> n.weight + at,
                    <const char*> n.bias + at, traffic)
        return
    for c in range(lines):
        i = 0
        while i < length:
            some = min(<Py_ssize_t> job.lines.block, length - i)
            at = (c * y_pitch + i * n.y.inner) * size
            copy(packed, 1, x + (c * x_pitch + i * n.x.inner) * size, n.x.inner, some, size)
            if job.traffic.added:
                copy(beside(packed), 1, y + at + job.traffic.residual, n.y.inner, some, size)
            if n.along:
                job.lines.apply_along(
                    packed, packed, some, 1, 0, 0, high + c * computed, scale + c * computed, shift + c * computed, 0,
                    <const char*> n.weight + (weights + c * job.along_step + i) * computed,
                    <const char*> n.bias + (weights + c * job.along_step + i) * computed, &job.packed)
            else:
                job.lines.apply_constant(
                    packed, packed, some, 1, 0, 0, high + c * step * computed, scale + c * step * computed,
                    shift + c * step * computed, 1, &job.packed)
            copy(y + at, n.y.inner, packed, 1, some, size)
            i += some


cdef inline bint goes_down(const Norm* n) noexcept nogil:
    """Whether lines of a channel, in the order of memory, have the next middle place before the next channel."""
    return not n.along and n.middle > 1 and inside(n.middle, n.x.middle, n)


cdef void work_apply_rows(void* context, int thread, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The pieces start..stop of all lines (sample, outer, middle, channel, piece), or, if they go down, (sample, outer,
    channel, middle, piece): from the end on where moments were read, for what they read last is still in cache."""
    cdef const Job* job = <const Job*> context
    cdef const Norm* n = &job.n
    cdef Py_ssize_t length = ceil_div(n.inner, job.pieces), unit, first, last, channel, piece, middle, outer, sample
    cdef bint down = goes_down(n)
    # units that are done at once: pieces of a line, or lines
    cdef Py_ssize_t neighbours = job.pieces if job.pieces > 1 else n.middle if down else n.channels, at
    cdef Py_ssize_t many = max(<Py_ssize_t> 1, PART // length)
    while start < stop:
        if n.statistic == GIVEN:
            first, last = start, min(stop, start // neighbours * neighbours + neighbours)
            start = last
        else:
            first, last = max(start, (stop - 1) // neighbours * neighbours, stop - many), stop
            stop = first
        piece, unit = first % job.pieces, first // job.pieces
        if down:
            middle, unit = unit % n.middle, unit // n.middle
        channel, unit = unit % n.channels, unit // n.channels
        if not down:
            middle, unit = unit % n.middle, unit // n.middle
        outer, sample = unit % n.outer, unit // n.outer
        at = (sample * n.channels + channel) * job.lines.computed
        apply_rows(job, sample, outer, middle, piece * length,
                   min(((last - first) if job.pieces > 1 else 1) * length, n.inner - piece * length), channel,
                   1 if job.pieces > 1 else last - first, down, job.high + at, job.scale + at, job.shift + at,
                   &job.traffic)
    end_stream()


# Rows: a thread takes whole domains, moments and apply; where they are few and large, parts of them.

cdef inline bint is_packed(const Norm* n, Py_ssize_t channels) noexcept nogil:
    """Whether short runs are packed to be applied: strided ones, or those of few channels, which are a call each."""
    return n.x.inner != 1 or n.y.inner != 1 or channels < TOGETHER


cdef void apply_domain(
    const Job* job, Py_ssize_t sample, Py_ssize_t channel, Py_ssize_t channels, const char* high, const char* scale,
    const char* shift,
) noexcept nogil:
    """All lines of some channels of one sample."""
    cdef const Norm* n = &job.n
    cdef int computed = job.lines.computed
    cdef Py_ssize_t outer, middle, c, at, many
    cdef Traffic first = job.traffic
    if job.together:  # no line comes after it: to fetch where no memory is takes longer than from memory
        first.y_ahead = 0
    if job.repeated:
        for c in range(channels):
            at = (channel + c) * job.along_step * computed
            for outer in range(n.outer - 1, -1, -1):
                job.lines.apply_along(
                    x_at(job, sample * n.x.sample + outer * n.x.outer + (channel + c) * n.x.channel),
                    y_at(job, sample * n.y.sample + outer * n.y.outer + (channel + c) * n.y.channel),
                    n.inner, n.middle, n.x.middle, n.y.middle, high + c * computed, scale + c * computed,
                    shift + c * computed, 0, <const char*> n.weight + at, <const char*> n.bias + at, &job.traffic)
        return
    if n.outer * n.middle > 1 and (n.inner < ALONG_RUN if n.along else n.inner < SHORT_RUN and is_packed(n, channels)):
        apply_gathered(job, sample, channel, channels, high, scale, shift)
        return
    if (channels == 1 and n.middle == 1 and not n.along and n.x.inner == 1 and n.y.inner == 1
            and job.positions * job.lines.size <= STRIP_BYTES):
        job.lines.apply_constant(
            x_at(job, sample * n.x.sample + channel * n.x.channel),
            y_at(job, sample * n.y.sample + channel * n.y.channel),
            n.inner, n.outer, n.x.outer, n.y.outer, high, scale, shift, 0, &job.traffic)
        return
    if goes_down(n):
        many = max(<Py_ssize_t> 1, STRIP_BYTES // (n.inner * job.lines.size))
        for outer in range(n.outer - 1, -1, -1):
            for c in range(channels):
                at = c * computed
                middle = n.middle
                while middle > 0:
                    middle -= many
                    apply_rows(job, sample, outer, max(middle, <Py_ssize_t> 0), 0, n.inner, channel + c,
                               min(many, middle + many), True, high + at, scale + at, shift + at, &job.traffic)
        return
    for outer in range(n.outer - 1, -1, -1):  # backwards: the samples that were read last are still in cache
        for middle in range(n.middle - 1, -1, -1):
            apply_rows(job, sample, outer, middle, 0, n.inner, channel, channels, False, high, scale, shift,
                       &job.traffic if middle else &first)


cdef void apply_gathered(
    const Job* job, Py_ssize_t sample, Py_ssize_t channel, Py_ssize_t channels, const char* high, const char* scale,
    const char* shift,
) noexcept nogil:
    """`apply_domain` of short lines that don't follow each other, or with weights along all of them."""
    cdef Aligned packed_values[BESIDE + MOST_BLOCK]
    cdef char* packed = <char*> packed_values
    cdef const Norm* n = &job.n
    cdef Axis axes[3]
    cdef int size = job.lines.size, computed = job.lines.computed
    cdef Py_ssize_t c, i, some, weights
    cdef char* y
    axes[0] = Axis(n.outer, n.x.outer, n.y.outer)
    axes[1], axes[2] = Axis(n.middle, n.x.middle, n.y.middle), Axis(n.inner, n.x.inner, n.y.inner)
    for c in range(channels):
        i = 0
        while i < job.positions:
            some = min(<Py_ssize_t> MOST_BLOCK, job.positions - i)
            weights = ((channel + c) * job.along_step + i) * computed
            y = y_at(job, sample * n.y.sample + (channel + c) * n.y.channel)
            gather(packed, x_at(job, sample * n.x.sample + (channel + c) * n.x.channel), axes, i, some, size)
            if job.packed.added:
                gather_beside(job, packed, y, axes, i, some)
            if n.along:
                job.lines.apply_along(
                    packed, packed, some, 1, 0, 0, high + c * computed, scale + c * computed, shift + c * computed, 0,
                    <const char*> n.weight + weights, <const char*> n.bias + weights, &job.packed)
            else:
                job.lines.apply_constant(
                    packed, packed, some, 1, 0, 0, high + c * computed, scale + c * computed, shift + c * computed, 0,
                    &job.packed)
            scatter(y, packed, axes, i, some, size)
            i += some


cdef void work_apply_gathered(void* context, int thread, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The domains start..stop, of all (sample, channel)."""
    cdef const Job* job = <const Job*> context
    cdef Py_ssize_t unit, at
    for unit in range(start, stop):
        at = unit * job.lines.computed
        apply_gathered(job, unit // job.n.channels, unit % job.n.channels, 1, job.high + at, job.scale + at,
                       job.shift + at)


cdef inline bint is_single(const Job* job) noexcept nogil:
    """Whether a domain is one run, summed as one block."""
    return job.count == 1 and job.even and job.length <= job.lines.block


cdef void work_rows(void* context, int thread, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """Moments and apply of the domains start..stop, of all (sample, group)."""
    cdef Job mine
    cdef Job* job = <Job*> context
    if job.shared_out:
        mine = job[0]
        lengthen(&mine, thread)
        job = &mine
    cdef const Norm* n = &job.n
    cdef Py_ssize_t index = start, sample, group, part, at, i, count
    cdef Moments moments[TOGETHER]
    cdef double means[TOGETHER]
    cdef double vars_[TOGETHER]
    cdef double coefficients[3 * TOGETHER]
    cdef double* mean = means
    cdef double* var = vars_
    cdef char* high = <char*> coefficients
    cdef char* scale = <char*> &coefficients[TOGETHER]
    cdef char* shift = <char*> &coefficients[2 * TOGETHER]
    while index < stop:
        sample = index // n.groups if n.samples > 1 else 0
        group = index - sample * n.groups
        count = min(job.tile, stop - index, n.groups - group)
        if is_single(job):
            job.lines.row_moments(domain_of(job, index), job.length, <int> count, n.x.channel * job.member,
                                  job.fetched, job.rule, moments)
        elif job.parts == 1:
            part_moments(job, domain_of(job, index), 0, count, moments)
        else:
            for part in range(job.parts):
                part_moments(job, domain_of(job, index), part, count, moments)
                for i in range(count):
                    job.moments[(index + i) * job.parts + part] = moments[i]
            for i in range(count):
                merge_tree(&job.moments[(index + i) * job.parts], job.parts)
                moments[i] = job.moments[(index + i) * job.parts]
        for i in range(count):
            means[i], vars_[i] = moments[i].mean, moments[i].m2 / moments[i].count
        group *= job.member
        if job.member > 1:
            at = index * job.member
            mean, var = job.means + at, job.m2s + at
            for i in range(count * job.member):
                mean[i], var[i] = means[i // job.member], vars_[i // job.member]
            at *= job.lines.computed
            high, scale, shift = job.high + at, job.scale + at, job.shift + at
        coefficients_of(job, sample, group, count * job.member, mean, var, high, scale, shift)
        if n.mean != NULL:
            for i in range(count):
                n.mean[index + i], n.var[index + i] = mean[i * job.member], var[i * job.member]
        if n.y.data != NULL:
            apply_domain(job, sample, group, count * job.member, high, scale, shift)
        index += count
    end_stream()


cdef void coefficients_of(
    const Job* job, Py_ssize_t sample, Py_ssize_t channel, Py_ssize_t channels, double* mean, double* var, char* high,
    char* scale, char* shift,
) noexcept nogil:
    """Coefficients of some channels from their mean and variance; beyond a sample's those of the next."""
    cdef const Norm* n = &job.n
    cdef Py_ssize_t at = channel * job.lines.computed, c
    cdef const char* weight = NULL if n.along or n.weight == NULL else <const char*> n.weight + at
    cdef const char* bias = NULL if n.along or n.bias == NULL else <const char*> n.bias + at
    cdef bint scale_alone = job.rule.about_zero and weight == NULL and bias == NULL
    job.lines.channel_coefficients(
        channels, NULL if scale_alone else mean, var, n.eps, weight, bias, high, scale, shift)
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
    cdef Py_ssize_t beyond = channel // n.channels
    cdef Py_ssize_t first = channel % n.channels // job.member * job.member, c, outer, middle, inner, again
    cdef double power = 2.0 ** 600 if var[0] < 1 else 2.0 ** -600, count = job.member * job.positions
    cdef double centre = 0, total, squares, d, weight
    cdef const double* x
    for again in range(2):
        total = squares = 0
        for c in range(first, first + job.member):
            for outer in range(n.outer):
                for middle in range(n.middle):
                    x = <const double*> x_at(job, (sample + beyond) * n.x.sample + c * n.x.channel + outer * n.x.outer
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


cdef inline bint lies_badly(const void* line) noexcept nogil:
    """Whether vectors of a line that is read again and again lie in two lines of the cache each."""
    return <size_t> line % STEP_BYTES != 0


cdef void forward_rows(Job* job, int threads) noexcept nogil:
    cdef Norm* n = &job.n
    cdef Py_ssize_t domains = n.samples * n.groups, bytes = job.positions * job.member * job.lines.size, near, i, c
    # What channels that lie between each other write by turns, in pieces of less than a page, hardware fetches for the
    # threads of both.
    cdef bint between = n.samples == 1 and n.y.data != NULL and not job.repeated and (
        labs(n.y.channel) < labs(n.y.middle) and n.channels * n.inner * job.lines.size < AHEAD * threads)
    cdef bint shared = threads > 1 and (between or job.parts > 1 and domains < 4 * threads)
    if shared or job.parts > 1:
        job.moments = <Moments*> malloc(domains * job.parts * sizeof(Moments))
        job.failed |= job.moments == NULL
    if shared or job.member > 1:
        allocate_coefficients(job, n.samples * n.channels)
    if n.along and not job.along_step and not job.repeated and not job.longer.times and (
            domains >= ALIGNING_ROWS * threads) and (lies_badly(n.weight) or lies_badly(n.bias)):
        job.longer = Longer(job.positions, 1, job.positions)
    make_room_for_longer(job, 1 if shared else threads)
    if job.failed:
        return
    if not shared:
        job.tile = max(<Py_ssize_t> 1, job.together)
        if domains > 1 and is_single(job):
            near = STREAMED_BYTES if job.traffic.streamed else FAR_NEAR_BYTES if job.far else NEAR_BYTES
            job.tile = max(<Py_ssize_t> 1, min(<Py_ssize_t> TOGETHER, near // bytes))
            if job.tile >= 4:
                job.tile = job.tile // 4 * 4
        # What the moments have read and fetched; what is added they haven't.
        if bytes <= HALF_L2 and (job.together or job.fetched and n.residual == NULL):
            job.traffic.x_ahead = 0
        if job.together:
            job.traffic.y_ahead = -n.y.middle * job.lines.size if job.far else 0  # what comes next
        share(work_rows, job, domains, threads)
        return
    share(work_parts, job, domains * job.parts, threads)
    for i in range(domains):
        merge_tree(job.moments + i * job.parts, job.parts)
        for c in range(i * job.member, (i + 1) * job.member):
            job.means[c] = job.moments[i * job.parts].mean
            job.m2s[c] = job.moments[i * job.parts].m2 / job.moments[i * job.parts].count
    if n.y.data != NULL:
        apply_all(job, threads)
    if n.mean != NULL:
        for i in range(domains):
            n.mean[i], n.var[i] = job.means[i * job.member], job.m2s[i * job.member]


cdef void allocate_coefficients(Job* job, Py_ssize_t count) noexcept nogil:
    """Room for mean, var, high, scale and shift of `count` channels."""
    job.means = <double*> malloc(count * (2 * sizeof(double) + 3 * job.lines.computed))
    if job.means == NULL:
        job.failed = True
        return
    job.m2s = job.means + count
    job.high = <char*> (job.m2s + count)
    job.scale = job.high + count * job.lines.computed
    job.shift = job.scale + count * job.lines.computed


cdef void apply_all(Job* job, int threads) noexcept nogil:
    """Apply with the means and variances (in m2s) of all samples and channels, by rows, lines shared by the threads."""
    cdef const Norm* n = &job.n
    cdef Py_ssize_t sample, lines = n.samples * n.outer * n.middle * n.channels, at
    cdef int computed = job.lines.computed
    for sample in range(n.samples):
        at = sample * n.channels
        coefficients_of(job, sample, 0, n.channels, job.means + at, job.m2s + at,
                        job.high + at * computed, job.scale + at * computed, job.shift + at * computed)
    if (n.inner < SHORT_RUN and is_packed(n, n.channels) and n.outer * n.middle > 1
            and n.samples * n.channels >= threads):
        share(work_apply_gathered, job, n.samples * n.channels, threads)
        return
    job.pieces = ceil_div(n.inner, PIECE) if lines < 4 * threads else 1
    share(work_apply_rows, job, lines * job.pieces, threads)
