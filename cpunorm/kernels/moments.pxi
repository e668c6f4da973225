# Moments: of parts of domains (rows), of columns; how both are cut and merged.
# Included by _kernels.pyx, whose header says how and why.

cdef inline void merge(Moments* a, const Moments* b) noexcept nogil:
    """a = a and b together: Chan's update, in float64."""
    cdef double total = a.count + b.count
    cdef double share = b.count / total, delta = b.mean - a.mean, step = delta * share
    a.m2 += b.m2 + delta * delta * (a.count * share)
    a.mean += step if step - step == 0 else b.mean  # the Inf or NaN that both come to
    a.count = total


cdef void merge_tree(Moments* parts, Py_ssize_t count) noexcept nogil:
    """parts[0] = all parts, merged pairwise in an order that depends on their number alone."""
    cdef Py_ssize_t i, step = 1
    while step < count:
        i = 0
        while i + step < count:
            merge(&parts[i], &parts[i + step])
            i += 2 * step
        step *= 2


# Rows: a domain is `count` segments of `length` values, which lie inside all that tells domains apart.

cdef void cut_rows(Job* job) noexcept nogil:
    """How the domains of rows are cut: by lengths alone."""
    cdef Norm* n = &job.n
    cdef Axis outer = Axis(n.outer, n.x.outer, n.y.outer), middle = Axis(n.middle, n.x.middle, n.y.middle)
    cdef Axis channels = Axis(job.member, n.x.channel, n.y.channel), one = Axis(1, 0, 0)
    cdef int lanes = job.lines.lanes
    job.segments[0] = job.segments[1] = job.run[0] = one
    job.run[1], job.run[2] = one, Axis(n.inner, n.x.inner, n.y.inner)
    if job.whole or inside(n.outer, n.x.outer, n) and inside(n.middle, n.x.middle, n):
        if job.member == 1:
            job.run[0], job.run[1] = outer, middle
        elif n.outer == 1:
            job.run[0], job.run[1] = channels, middle
        else:
            job.segments[0], job.run[0], job.run[1] = channels, outer, middle
    elif inside(n.middle, n.x.middle, n):
        job.segments[0], job.run[0], job.run[1] = outer, channels, middle
    elif job.member == 1:
        job.segments[0], job.segments[1] = outer, middle
    else:
        job.segments[0], job.segments[1], job.run[1] = (outer if n.outer > 1 else middle), one, channels
        if n.outer > 1:
            job.segments[1] = middle
    job.count = job.segments[0].length * job.segments[1].length
    job.length = job.run[0].length * job.run[1].length * job.run[2].length
    job.pitch = even_pitch(job.segments, 2, False)
    job.even = even_pitch(job.run, 3, False) == 1 and (job.count == 1 or job.pitch != 0)
    job.along = job.across = job.parts = job.block_rows = job.part_segments = 1
    job.part_length = job.length
    if job.even and n.outer == 1 and job.count == n.middle > 1 and job.member == 1 and (
            job.length * job.lines.size < 2 * AHEAD):
        job.together = max(<Py_ssize_t> 1, min(<Py_ssize_t> TOGETHER, AHEAD // (job.length * job.lines.size)))
    if job.count == 1 and job.length <= PART:  # one part: spared the divisions, which take as long as a short row
        return
    job.along = ceil_div(job.length, PART)
    job.part_length = ceil_div(job.length, job.along)
    job.block_rows = max(<Py_ssize_t> 1, STEPS // ceil_div(job.length, lanes)) if job.length < job.lines.block else 1
    if job.along == 1:
        job.part_segments = max(<Py_ssize_t> 1, PART // job.length // job.block_rows) * job.block_rows
    job.across = ceil_div(job.count, job.part_segments)
    job.parts = job.across * job.along


cdef void part_moments(
    const Job* job, const char* x, Py_ssize_t part, Py_ssize_t domains, Moments* all
) noexcept nogil:
    """Moments of one part of each of `domains` domains, the first of which starts at x, the others where channels do.

    Blocks of as many segments as fit, or of pieces of one. Segments of several domains that share a page follow each
    other, so that it is read as a whole.
    """
    cdef Aligned packed[MOST_BLOCK]
    cdef double shift[TOGETHER]
    cdef Py_ssize_t segment = part // job.along * job.part_segments, row, i, n, rows, domain, begin = segment
    cdef Py_ssize_t stop = min(segment + job.part_segments, job.count)
    cdef Py_ssize_t first = part % job.along * job.part_length
    cdef Py_ssize_t length = min(job.part_length, job.length - first), pitch
    cdef Moments block
    cdef int size = job.lines.size
    cdef const char* source
    cdef const char* begins
    cdef bint far = job.fetched and job.together == 0, fresh
    while segment < stop:
        rows = min(job.block_rows, stop - segment)
        for domain in range(domains):
            begins = x + domain * job.n.x.channel * size
            i = 0
            while i < length:
                n = min(<Py_ssize_t> job.lines.block, length - i)
                fresh = segment == begin and i == 0
                if job.even:
                    source, pitch = begins + (segment * job.pitch + first + i) * size, job.pitch
                else:
                    source, pitch = <const char*> packed, n
                    for row in range(rows):
                        gather(<char*> packed + row * n * size,
                               begins + offset_in(job.segments, 2, segment + row, False) * size, job.run, first + i, n,
                               size)
                block = job.lines.block_moments(source, n, rows, pitch, far, job.rule, fresh, &shift[domain])
                if fresh:
                    all[domain] = block
                else:
                    merge(&all[domain], &block)
                i += n
        segment += rows


cdef inline const char* domain_of(const Job* job, Py_ssize_t index) noexcept nogil:
    """Where the domain `index`, of all (sample, group), starts in x."""
    cdef Py_ssize_t sample = index // job.n.groups if job.n.samples > 1 else 0
    return x_at(job, sample * job.n.x.sample + (index - sample * job.n.groups) * job.member * job.n.x.channel)


cdef void work_parts(void* context, int thread, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """Moments of the parts start..stop, of all (sample, group, part)."""
    cdef const Job* job = <const Job*> context
    cdef Py_ssize_t i
    for i in range(start, stop):
        part_moments(job, domain_of(job, i // job.parts), i % job.parts, 1, &job.moments[i])


# Columns: vectors run across neighbouring columns, each of which has moments of its own.

cdef void cut_columns(Job* job, Py_ssize_t width) noexcept nogil:
    """Lines and columns of a sample; if `width` > 1, `run` are columns, `width` of a channel, and `segments` lines."""
    cdef Norm* n = &job.n
    cdef Py_ssize_t strip
    cdef bint unit = n.x.channel == width or n.channels == 1
    job.width = width
    if width > 1:
        job.line_axes[0], job.line_axes[1], job.line_axes[2] = job.segments[0], job.segments[1], Axis(1, 0, 0)
        unit = unit and even_pitch(job.run, 3, False) == 1
    else:
        job.line_axes[0] = Axis(n.outer, n.x.outer, n.y.outer)
        job.line_axes[1] = Axis(n.middle, n.x.middle, n.y.middle)
        job.line_axes[2] = Axis(n.inner, n.x.inner, n.y.inner)
        unit = n.x.channel == 1 or n.channels == 1
    job.tall = job.positions // width
    job.wide = n.channels * width
    if job.far and job.wide * job.lines.size > (TILE_BYTES if job.past else RUN_BYTES):
        job.traffic.x_ahead = AHEAD  # whatever hardware foresees, tiles down wide lines are no run
    job.fold = 1
    while not job.apart and 2 * job.fold * job.wide <= job.lines.lanes and 2 * job.fold <= job.tall:
        job.fold *= 2
    job.line_pitch = even_pitch(job.line_axes, 3, False) if unit else 0
    if job.fold > 1 and job.line_pitch != job.wide:
        job.line_pitch = 0
    job.part_lines = ROWS_APART if job.apart else max(
        <Py_ssize_t> ROWS, COLUMNS_PART // (job.wide * job.fold) // ROWS * ROWS)
    job.parts = ceil_div(job.tall // job.fold, job.part_lines)
    # Strips are columns whose lines stay in L2 from the moments to the apply; where lines are too many, all columns.
    strip = STRIP_BYTES // (job.tall * job.lines.size)
    job.strip, job.strips = job.wide, 1
    if job.fold == 1 and NARROW <= strip < job.wide:
        set_strips(job, ceil_div(job.wide, strip))


cdef void set_strips(Job* job, Py_ssize_t strips) noexcept nogil:
    """So many strips or fewer, all but the last of one width: of whole domains, and of whole steps if they can."""
    cdef Py_ssize_t whole = job.width * job.member, step = whole * max(<Py_ssize_t> 1, job.lines.lanes // whole)
    job.strip = min(ceil_div(max(ceil_div(job.wide, strips), <Py_ssize_t> NARROW), step) * step, job.wide)
    job.strips = ceil_div(job.wide, job.strip)


cdef void pack_lines(
    const Job* job, char* target, const char* x, Py_ssize_t line, Py_ssize_t lines, Py_ssize_t column,
    Py_ssize_t columns,
) noexcept nogil:
    """target (lines, columns) = those of the sample at x, `fold` lines of which are one."""
    cdef const Axis* inner = &job.line_axes[2]
    cdef Py_ssize_t i = line * job.fold, stop = (line + lines) * job.fold, at = 0, k = inner.length, j, p
    cdef Py_ssize_t offsets[NARROW_RUN]
    cdef int size = job.lines.size
    cdef Py_ssize_t some = 1
    cdef const char* source
    columns //= job.fold
    cdef bint runs = job.width == 1 and (job.n.x.channel == 1 or columns == 1)
    if job.width > 1:
        for p in range(job.width):
            offsets[p] = offset_in(job.run, 3, p, False)
    while i < stop:
        if k == inner.length:
            k = i % inner.length
            at = offset_in(job.line_axes, 2, i // inner.length, False) + k * inner.x
        if runs:
            some = min(inner.length - k, stop - i)
            source = x + (at + column * job.n.x.channel) * size
            copy_runs(target, source, some, columns * size, columns * size, inner.x * size)
        elif job.width == 1:
            copy(target, 1, x + (at + column * job.n.x.channel) * size, job.n.x.channel, columns, size)
        else:
            source = x + (at + column // job.width * job.n.x.channel) * size
            p = column % job.width
            for j in range(columns):
                copy(target + j * size, 1, source + offsets[p] * size, 1, 1, size)
                p += 1
                if p == job.width:
                    p = 0
                    source += job.n.x.channel * size
        target += some * columns * size
        at += some * inner.x
        k += some
        i += some


cdef void columns_moments(
    const Job* job, const char* x, Py_ssize_t line, Py_ssize_t stop, Py_ssize_t column, Py_ssize_t columns,
    double* mean, double* m2,
) noexcept nogil:
    """mean and m2 of `columns` columns from `column` on over the (folded) lines line..stop of the sample at x."""
    cdef Aligned packed[MOST_TILE]
    cdef Py_ssize_t first = line, lines, i, some, pitch = job.line_pitch * job.fold
    cdef bint far = job.far and (not foresees or columns * job.lines.size > RUN_BYTES)
    while line < stop:
        lines = min(<Py_ssize_t> ROWS, stop - line)
        if job.line_pitch:
            job.lines.column_moments(
                x + (line * pitch + column) * job.lines.size, pitch, <int> lines, columns, far, job.rule,
                <double> (line - first), mean, m2)
        else:
            i = 0
            while i < columns:
                some = min(<Py_ssize_t> job.lines.lanes, columns - i)
                pack_lines(job, <char*> packed, x, line, lines, column + i, some)
                job.lines.column_moments(
                    packed, some, <int> lines, some, 0, job.rule, <double> (line - first), mean + i, m2 + i)
                i += some
        line += lines


cdef void merge_columns(
    double* means, double* m2s, Py_ssize_t columns, Py_ssize_t parts, Py_ssize_t part_lines, Py_ssize_t lines
) noexcept nogil:
    """Row 0 of means and m2s (parts, columns) = all parts, merged pairwise in a fixed order."""
    cdef Py_ssize_t i, c, step = 1
    cdef double n_a, n_b, delta, share, between, moved
    cdef double* a
    cdef double* b
    cdef double* a2
    cdef double* b2
    while step < parts:
        i = 0
        while i + step < parts:
            n_a = step * part_lines
            n_b = min((i + 2 * step) * part_lines, lines) - (i + step) * part_lines
            share, between = n_b / (n_a + n_b), n_a * (n_b / (n_a + n_b))
            a, b = means + i * columns, means + (i + step) * columns
            a2, b2 = m2s + i * columns, m2s + (i + step) * columns
            for c in range(columns):
                delta = b[c] - a[c]
                moved = delta * share
                a[c] += moved if moved - moved == 0 else b[c]
                a2[c] += b2[c] + delta * delta * between
            i += 2 * step
        step *= 2


cdef inline void divide(double* values, Py_ssize_t n, Py_ssize_t number) noexcept nogil:
    """values /= number: a power of 2 by a product, which has the same bits."""
    cdef Py_ssize_t i
    cdef double inverse = 1.0 / number
    if number & (number - 1):
        for i in range(n):
            values[i] = values[i] / <double> number
    else:
        for i in range(n):
            values[i] = values[i] * inverse


cdef void channels_of(
    const Job* job, Py_ssize_t columns, double* mean, double* m2, Py_ssize_t left
) noexcept nogil:
    """From moments of columns to the mean and variance of each channel of theirs: those of its whole domain.

    The first `left` columns have one line more, for `fold` lines are seen as one.
    """
    cdef Py_ssize_t channels = columns // job.width, group = job.member * job.width, g, c, f, i
    cdef double lines = job.tall // job.fold, count, total, squares, n, delta
    if group == 1 and job.fold == 1:
        divide(m2, columns, job.tall)
        return
    for g in range(channels // job.member):
        count = total = squares = 0
        if job.fold == 1:
            merge_columns_of(mean + g * group, m2 + g * group, group, lines, &total, &squares)
            for c in range(g * job.member, (g + 1) * job.member):
                mean[c], m2[c] = total, squares / (lines * group)
            continue
        for f in range(job.fold):
            for i in range(f * job.wide + g * group, f * job.wide + (g + 1) * group):
                n = lines + 1 if i < left else lines
                count += n
                total += n * (mean[i] - mean[g * group])  # from one of them on, so that a large mean costs no digits
        total = mean[g * group] + total / count
        if total - total != 0:  # the Inf or NaN that all come to
            total = 0
            for f in range(job.fold):
                for i in range(f * job.wide + g * group, f * job.wide + (g + 1) * group):
                    total += mean[i]
        for f in range(job.fold):
            for i in range(f * job.wide + g * group, f * job.wide + (g + 1) * group):
                n = lines + 1 if i < left else lines
                delta = mean[i] - total
                squares += m2[i] + n * delta * delta
        for c in range(g * job.member, (g + 1) * job.member):
            # written to where nothing is read any more: channel c <= column g * group
            mean[c], m2[c] = total, squares / count
