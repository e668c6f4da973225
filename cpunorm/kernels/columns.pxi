# Forward by columns: a line runs across the channels.
# Included by _kernels.pyx, whose header says how and why.

cdef struct Strip:
    # Moments of the columns of a strip, then mean and variance of its channels, and their coefficients.
    double* means
    double* m2s
    char* high
    char* scale
    char* shift


cdef inline Py_ssize_t strip_bytes(const Job* job) noexcept nogil:
    return apart(job.strip * job.fold * (2 * job.parts * <Py_ssize_t> sizeof(double) + 3 * job.lines.computed))


cdef void allocate_strips(Job* job, Py_ssize_t threads) noexcept nogil:
    """Room for a strip of each thread, before the first one writes: y may be x, which is to stay whole on failure."""
    job.means = <double*> malloc(STEP_BYTES + threads * strip_bytes(job))
    job.failed |= job.means == NULL


cdef inline Strip strip_of(const Job* job, int thread) noexcept nogil:
    cdef Py_ssize_t columns = job.strip * job.fold, bytes = columns * job.lines.computed
    cdef Strip strip
    strip.means = <double*> (on_line(job.means) + thread * strip_bytes(job))
    strip.m2s = strip.means + job.parts * columns
    strip.high = <char*> (strip.m2s + job.parts * columns)
    strip.scale, strip.shift = strip.high + bytes, strip.high + 2 * bytes
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
        pack_rest(job, <char*> packed, x)
        job.lines.column_moments(packed, left, 1, left, 0, job.rule, <double> lines, strip.means, strip.m2s)
    channels_of(job, columns, strip.means, strip.m2s, left)
    coefficients_of(job, sample, channel, channels, strip.means, strip.m2s, strip.high, strip.scale, strip.shift)
    if n.mean != NULL:
        for g in range(channels // job.member):
            c = sample * n.groups + channel // job.member + g
            n.mean[c], n.var[c] = strip.means[g * job.member], strip.m2s[g * job.member]
    spread(strip, channels, job.width, job.lines.computed)


cdef inline void spread(Strip* strip, Py_ssize_t channels, Py_ssize_t width, int size) noexcept nogil:
    """Coefficients of channels become those of their `width` columns each."""
    if width > 1:
        repeat(strip.high, strip.high, channels, width, size)
        repeat(strip.scale, strip.scale, channels, width, size)
        repeat(strip.shift, strip.shift, channels, width, size)


cdef void pack_rest(const Job* job, char* target, const char* x) noexcept nogil:
    """target = the lines that no fold takes."""
    cdef Py_ssize_t line, c
    cdef int size = job.lines.size
    cdef const char* values
    for line in range(job.tall // job.fold * job.fold, job.tall):
        values = x + offset_in(job.line_axes, 3, line, False) * size
        if job.width == 1:
            copy(target, 1, values, job.n.x.channel, job.wide, size)
        else:
            for c in range(job.n.channels):
                gather(target + c * job.width * size, values + c * job.n.x.channel * size, job.run, 0, job.width, size)
        target += job.wide * size


cdef void apply_columns(
    const Job* job, Py_ssize_t sample, Py_ssize_t line, Py_ssize_t stop, Py_ssize_t column, Py_ssize_t columns,
    const char* high, const char* scale, const char* shift,
) noexcept nogil:
    """The lines line..stop of one sample in `columns` columns, whose coefficients are given."""
    cdef Aligned packed_values[BESIDE + MOST_BLOCK]
    cdef char* packed = <char*> packed_values
    cdef const Norm* n = &job.n
    cdef const Axis* inner = &job.line_axes[2]
    cdef int size = job.lines.size, computed = job.lines.computed
    cdef Py_ssize_t x_line, y_line, at, many, i, some, x_column, y_column, x_pitch, y_pitch
    cdef const char* x = x_at(job, sample * n.x.sample)
    cdef char* y = y_at(job, sample * n.y.sample)
    cdef const char* w
    cdef const char* b
    cdef bint unit = columns == 1, follow
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
    follow = unit and even_pitch(job.line_axes, 3, False) == columns and even_pitch(job.line_axes, 3, True) == columns
    if columns == job.wide and (not n.along or n.activation > RELU):  # else a line's weight is a constant of its own
        at = line * columns * size
        if follow and not n.along and columns <= FOLDED:
            apply_flat(job, x + at, y + at, columns, stop - line, high, scale, shift, &job.traffic)
            return
        if follow and n.along and columns < job.lines.lanes:
            apply_flat_along(job, x + at, y + at, columns, line, stop - line, high, scale, shift, &job.traffic)
            return
        if not follow and columns < job.lines.lanes and job.width == 1:
            apply_packed(job, sample, line, stop, high, scale, shift)
            return
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
        w = <const char*> n.weight + line * computed
        b = <const char*> n.bias + line * computed
        if unit and n.along:
            job.lines.apply_columns_along(
                x + x_line * size, y + y_line * size, columns, many, x_pitch, y_pitch, high, scale, shift, w, b, 0,
                &job.traffic)
        elif unit:
            job.lines.apply_columns(
                x + x_line * size, y + y_line * size, columns, many, x_pitch, y_pitch, high, scale, shift,
                &job.traffic)
        else:
            many = 1
            i = 0
            while i < columns:
                some = min(<Py_ssize_t> job.lines.block, columns - i)
                at = (y_line + i * y_column) * size
                copy(packed, 1, x + (x_line + i * x_column) * size, x_column, some, size)
                if job.packed.added:
                    copy(beside(packed), 1, y + at + job.traffic.residual, y_column, some, size)
                if n.along:
                    job.lines.apply_columns_along(
                        packed, packed, some, 1, 0, 0, high + i * computed, scale + i * computed, shift + i * computed,
                        w, b, 0, &job.packed)
                else:
                    job.lines.apply_columns(
                        packed, packed, some, 1, 0, 0, high + i * computed, scale + i * computed, shift + i * computed,
                        &job.packed)
                copy(y + at, y_column, packed, 1, some, size)
                i += some
        line += many


cdef void apply_flat(
    const Job* job, const char* x, char* y, Py_ssize_t columns, Py_ssize_t lines, const char* high, const char* scale,
    const char* shift, const Traffic* traffic,
) noexcept nogil:
    """`apply_columns` of lines that follow each other: as one, in steps that begin where y is aligned."""
    cdef Aligned repeated[3 * FOLDED]
    cdef int size = job.lines.size, computed = job.lines.computed
    cdef Py_ssize_t fold = 1, head = 0, left = lines * columns, some = 0, many
    while columns * fold % job.lines.lanes and 2 * fold * columns <= FOLDED and 4 * fold <= lines:
        fold *= 2
    if left > (STEP_BYTES // size if traffic.streamed else ALIGNING_VALUES):
        head = <Py_ssize_t> (-<size_t> y % STEP_BYTES) // size
    left -= head
    while head:
        some = min(head, columns)
        job.lines.apply_columns(x, y, some, 1, 0, 0, high, scale, shift, traffic)
        x += some * size
        y += some * size
        head -= some
    some %= columns
    if fold > 1 or some:
        rotate(<char*> repeated, high, columns, fold, some, computed)
        rotate(<char*> &repeated[FOLDED], scale, columns, fold, some, computed)
        rotate(<char*> &repeated[2 * FOLDED], shift, columns, fold, some, computed)
        high, scale, shift = <char*> repeated, <char*> &repeated[FOLDED], <char*> &repeated[2 * FOLDED]
    columns *= fold
    many = left // columns
    job.lines.apply_columns(x, y, columns, many, columns, columns, high, scale, shift, traffic)
    left -= many * columns
    if left:
        many *= columns * size
        job.lines.apply_columns(x + many, y + many, left, 1, 0, 0, high, scale, shift, traffic)


cdef void apply_flat_along(
    const Job* job, const char* x, char* y, Py_ssize_t columns, Py_ssize_t line, Py_ssize_t lines, const char* high,
    const char* scale, const char* shift, const Traffic* traffic,
) noexcept nogil:
    """`apply_columns` of short lines that follow each other, each with a weight of its own: many as one."""
    cdef Aligned repeated[5 * FOLDED]
    cdef int computed = job.lines.computed
    cdef char* weights = <char*> &repeated[3 * FOLDED]
    cdef char* biases = <char*> &repeated[4 * FOLDED]
    cdef Py_ssize_t most = FOLDED // columns, stop = line + lines, many, at, bytes
    many = min(most, lines)
    rotate(<char*> repeated, high, columns, many, 0, computed)
    rotate(<char*> &repeated[FOLDED], scale, columns, many, 0, computed)
    rotate(<char*> &repeated[2 * FOLDED], shift, columns, many, 0, computed)
    while line < stop:
        many, at = min(most, stop - line), line * computed
        repeat(weights, <const char*> job.n.weight + at, many, columns, computed)
        repeat(biases, <const char*> job.n.bias + at, many, columns, computed)
        job.lines.apply_columns_along(x, y, many * columns, 1, 0, 0, repeated, &repeated[FOLDED],
                                      &repeated[2 * FOLDED], weights, biases, 1, traffic)
        bytes = many * columns * job.lines.size
        x += bytes
        y += bytes
        line += many


cdef inline void rotate(
    char* target, const char* source, Py_ssize_t columns, Py_ssize_t fold, Py_ssize_t start, int size
) noexcept nogil:
    """target = the columns from `start` on and again from the first, `fold` times as many as there are."""
    cdef Py_ssize_t bytes = columns * size, all = fold * bytes
    start *= size
    memcpy(target, source + start, bytes - start)
    memcpy(target + bytes - start, source, start)
    while bytes < all:
        memcpy(target + bytes, target, min(bytes, all - bytes))
        bytes *= 2


cdef void apply_packed(
    const Job* job, Py_ssize_t sample, Py_ssize_t line, Py_ssize_t stop, const char* high, const char* scale,
    const char* shift,
) noexcept nogil:
    """`apply_columns` of short lines that don't follow each other: as many as fit are packed."""
    cdef Aligned packed_values[BESIDE + MOST_BLOCK]
    cdef char* packed = <char*> packed_values
    cdef Axis axes[3]
    cdef int size = job.lines.size
    cdef Py_ssize_t within = job.line_axes[1].length * job.line_axes[2].length, lines, at, x_outer, y_outer
    axes[0], axes[1] = job.line_axes[1], job.line_axes[2]
    axes[2] = Axis(job.wide, job.n.x.channel, job.n.y.channel)
    while line < stop:  # not beyond one index of the outermost axis: gather takes three
        at = line % within
        lines = min(MOST_BLOCK // job.wide, stop - line, within - at)
        x_outer = sample * job.n.x.sample + line // within * job.line_axes[0].x
        y_outer = sample * job.n.y.sample + line // within * job.line_axes[0].y
        gather(packed, x_at(job, x_outer), axes, at * job.wide, lines * job.wide, size)
        if job.packed.added:
            gather_beside(job, packed, y_at(job, y_outer), axes, at * job.wide, lines * job.wide)
        if job.n.along:
            apply_flat_along(job, packed, packed, job.wide, line, lines, high, scale, shift, &job.packed)
        else:
            apply_flat(job, packed, packed, job.wide, lines, high, scale, shift, &job.packed)
        scatter(y_at(job, y_outer), packed, axes, at * job.wide, lines * job.wide, size)
        line += lines


cdef void apply_uneven(
    const Job* job, Py_ssize_t sample, Py_ssize_t line, Py_ssize_t stop, Py_ssize_t column, Py_ssize_t columns,
    const char* high, const char* scale, const char* shift,
) noexcept nogil:
    """`apply_columns` of runs that don't follow each other: as many at once as one walk takes."""
    cdef Aligned packed_values[BESIDE + MOST_BLOCK]
    cdef char* packed = <char*> packed_values
    cdef const Norm* n = &job.n
    cdef int size = job.lines.size, computed = job.lines.computed
    cdef Py_ssize_t c, i, channel, some, lines, many = 1, most = job.width
    cdef const char* x
    cdef char* y
    cdef Axis axes[3]
    axes[0], axes[1], axes[2] = job.run[0], job.run[1], job.run[2]
    if job.run[0].length == 1:
        axes[0] = Axis(n.channels, n.x.channel, n.y.channel)
        most = max(most, job.lines.block // job.width * job.width)
    if axes[0].length * axes[1].length * axes[2].length == columns and job.run[1].length == 1 and (
            2 * columns <= MOST_BLOCK):
        axes[1] = axes[0]
        many = MOST_BLOCK // columns
    i = line
    while i < stop:
        x = x_at(job, sample * n.x.sample + offset_in(job.line_axes, 3, i, False))
        y = y_at(job, sample * n.y.sample + offset_in(job.line_axes, 3, i, True))
        if many > 1:  # whole lines: one walk takes several
            lines = min(many, job.line_axes[1].length - i % job.line_axes[1].length, stop - i)
            axes[0] = Axis(lines, job.line_axes[1].x, job.line_axes[1].y)
            gather(packed, x, axes, 0, lines * columns, size)
            if job.packed.added:
                gather_beside(job, packed, y, axes, 0, lines * columns)
            job.lines.apply_columns(packed, packed, columns, lines, columns, columns, high, scale, shift, &job.packed)
            scatter(y, packed, axes, 0, lines * columns, size)
            i += lines
            continue
        c = 0
        while c < columns:
            some, channel = min(most, columns - c), (column + c) // job.width
            gather(packed, x + channel * n.x.channel * size, axes, 0, some, size)
            if job.packed.added:
                gather_beside(job, packed, y + channel * n.y.channel * size, axes, 0, some)
            job.lines.apply_columns(packed, packed, some, 1, 0, 0, high + c * computed, scale + c * computed,
                                    shift + c * computed, &job.packed)
            scatter(y + channel * n.y.channel * size, packed, axes, 0, some, size)
            c += some
        i += 1


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
        if job.n.y.data != NULL:
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
    cdef Py_ssize_t sample, last
    if shared.sample >= 0:
        apply_backwards(job, shared.sample, start, stop, 0, job.wide, shared.strip.high, shared.strip.scale,
                        shared.strip.shift)
    else:
        while start < stop:
            sample = start // job.tall
            last = min(stop, (sample + 1) * job.tall)
            apply_columns(job, sample, start - sample * job.tall, last - sample * job.tall, 0, job.wide,
                          shared.strip.high, shared.strip.scale, shared.strip.shift)
            start = last
    end_stream()


cdef void forward_columns(Job* job, int threads) noexcept nogil:
    """A thread takes whole strips; where those are few and tall, all share the lines of each sample."""
    cdef Py_ssize_t units = job.n.samples * job.strips, sample
    cdef bint whole
    cdef Strip strip
    cdef Shared shared
    if threads > 1 and job.fold == 1 and units % threads and units < 4 * threads and (
            job.wide >= 2 * NARROW and job.tall <= TALL_STRIP):
        set_strips(job, 2 * threads if job.strips == 1 else ceil_div(job.strips, threads) * threads)
        units = job.n.samples * job.strips
    whole = threads == 1 or units >= 4 * threads or units % threads == 0 or job.strips > 1
    allocate_strips(job, threads if whole else 1)
    if job.failed:
        return
    if job.n.addend != NULL:  # not before: `total` may be what is added
        add_all(job, threads)
    if job.strips > 1:  # a page ahead is another strip: of y come so many lines, and x has been read
        job.traffic.x_ahead = 0
        job.traffic.y_ahead = 0 if foresees or not job.far else (
            ceil_div(AHEAD, job.strip * job.lines.size) * even_pitch(job.line_axes, 3, True) * job.lines.size)
    if whole:
        share(work_columns, job, units, threads)
        return
    strip = strip_of(job, 0)
    shared.job, shared.strip = job, &strip
    for sample in range(job.n.samples):
        shared.sample = sample
        share(work_column_parts, &shared, job.parts, threads)
        finish_strip(job, &strip, sample, 0, job.wide)
        if job.n.y.data != NULL:
            share(work_apply_columns, &shared, job.tall, threads)
