# Walking: an array seen as lines, whatever its strides; what isn't contiguous is packed into L1 and is so then.
# Included by _kernels.pyx, whose header says how and why.

cdef enum:
    BESIDE = 4096  # values from a packed line to what is added to it
    SHORT = 32  # positions below which the channels of a group are seen as positions
    SHEET = 16384  # values of a sample up to which that is so in channels_last, too, if it is one group


cdef struct Longer:
    # weight and bias to be made longer: runs of `run` of `count` values, each `times` over (0: as they are).
    Py_ssize_t count, times, run


cdef struct Job:
    # A norm and how it is run; `work` functions get it with their thread's number and a range of units.
    Norm n
    const Lines* lines
    Traffic traffic
    Traffic packed  # of lines that are packed, BESIDE which lies what is added to them
    bint far  # past L2 ...
    bint past  # ... and half of the last-level cache
    bint fetched  # moments of runs fetch what they read next
    Rule rule
    Py_ssize_t positions, member  # of a channel; channels of a domain
    Py_ssize_t along_step  # from the weights of one channel to the next, if they run along positions
    char* constant  # a weight of 1 or bias of 0 along positions, to be freed
    char* widened  # weight and bias of a half type, to be freed
    Longer longer
    bint repeated  # weight and bias run along the innermost positions of a domain, of which there are several runs
    char* expanded  # room for them, of each thread if `shared_out`, to be freed
    bint shared_out  # each thread makes its own: what one has just written takes another long to read
    bint scattered  # domains lie scattered in short samples
    bint whole  # a few channels lie inside positions, which are one run all the same, however they lie
    bint columns  # channels lie inside positions: vectors run across them
    bint apart  # channels are rows or samples, whose bits may not depend on their number
    # Moments of rows: how a domain is cut.
    Axis segments[2]
    Axis run[3]
    Py_ssize_t count, length  # segments of a domain, values of a run
    Py_ssize_t pitch  # from one segment to the next, if all is even in x and runs are contiguous; else 0
    bint even
    Py_ssize_t together  # domains whose segments share pages; 0 where segments are longer, or one
    Py_ssize_t block_rows, along, across, part_length, part_segments, parts
    Moments* moments  # of parts
    # Moments of columns: `tall` lines of `wide` columns, `width` neighbours of each channel, `fold` lines seen as one.
    Axis line_axes[3]
    Py_ssize_t tall, wide, width, fold, line_pitch, strip, strips, part_lines
    double* means
    double* m2s
    # Coefficients of each sample and channel; y = (x - high) * scale + shift.
    char* high
    char* scale
    char* shift
    Py_ssize_t pieces  # of a long line
    Operand summand  # of a sum: what the addend is added to; x is the sum
    bint alike  # whether that lies as the sum does, so that it is one run
    Py_ssize_t tile  # rows whose moments are taken together ...
    char* tiles  # ... and room for their sums, of each thread, or NULL
    bint failed  # no memory


cdef inline Py_ssize_t ceil_div(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return (a + b - 1) // b


cdef inline const char* x_at(const Job* job, Py_ssize_t offset) noexcept nogil:
    return <const char*> job.n.x.data + offset * job.lines.size


cdef inline bint is_half(int element) noexcept nogil:
    return element > 1


cdef inline char* beside(char* packed) noexcept nogil:
    return packed + BESIDE * sizeof(double)


cdef inline char* y_at(const Job* job, Py_ssize_t offset) noexcept nogil:
    return <char*> job.n.y.data + offset * job.lines.size


ctypedef fused unit:  # a value of each size, as bits
    uint16_t
    uint32_t
    uint64_t


cdef inline void copy_of(
    unit* target, Py_ssize_t to_stride, const unit* source, Py_ssize_t stride, Py_ssize_t n
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        target[i * to_stride] = source[i * stride]


cdef inline void copy(
    char* target, Py_ssize_t to_stride, const char* source, Py_ssize_t stride, Py_ssize_t n, int size
) noexcept nogil:
    """target = source, n values of `size` bytes."""
    if to_stride == 1 and stride == 1 and n >= 16:
        memcpy(target, source, n * size)
    elif size == 4:
        copy_of(<uint32_t*> target, to_stride, <const uint32_t*> source, stride, n)
    elif size == 2:
        copy_of(<uint16_t*> target, to_stride, <const uint16_t*> source, stride, n)
    else:
        copy_of(<uint64_t*> target, to_stride, <const uint64_t*> source, stride, n)


cdef inline bint is_lane_row(const Job* job) noexcept nogil:
    return job.positions * job.lines.computed <= LANE_BYTES


cdef inline bint is_better_alone(const Job* job) noexcept nogil:
    """Whether a row, if it is in one piece and between no others, is as fast alone as in a lane; not of a half type,
    whose tails take longer."""
    cdef int size = job.lines.size
    return not is_half(job.n.element) and job.positions * size > (ALONE_BYTES if size == 4 else ALONE_BYTES - 16)


cdef inline bint inside(Py_ssize_t length, Py_ssize_t stride, const Norm* n) noexcept nogil:
    """Whether an axis of positions lies inside the channels in memory."""
    return length == 1 or n.channels == 1 or labs(stride) < labs(n.x.channel)


cdef inline Py_ssize_t even_pitch(const Axis* axes, int number, bint of_y) noexcept nogil:
    """The stride of all axes seen as one, or 0 if they don't lie evenly."""
    cdef Py_ssize_t pitch = 0, length = 1, stride
    cdef int i
    for i in range(number - 1, -1, -1):
        if axes[i].length == 1:
            continue
        stride = axes[i].y if of_y else axes[i].x
        if pitch == 0:
            pitch = stride
            if pitch == 0:
                return 0
        elif stride != length * pitch:
            return 0
        length *= axes[i].length
    return 1 if pitch == 0 else pitch


cdef inline Py_ssize_t offset_in(const Axis* axes, int number, Py_ssize_t index, bint of_y) noexcept nogil:
    """Where the values of all axes but the last, which `index` counts in logical order, begin."""
    cdef Py_ssize_t offset = 0, stride
    cdef int i
    for i in range(number - 1, -1, -1):
        if index == 0:
            break
        stride = axes[i].y if of_y else axes[i].x
        offset += index % axes[i].length * stride
        index //= axes[i].length
    return offset


cdef void walk_runs(
    char* target, const char* source, const Axis* axes, Py_ssize_t i, Py_ssize_t j, Py_ssize_t k, Py_ssize_t n,
    int size, bint back,
) noexcept nogil:
    """`walk` where values of the innermost axis follow each other."""
    cdef Py_ssize_t outer = axes[0].y if back else axes[0].x, middle = axes[1].y if back else axes[1].x
    cdef Py_ssize_t length = axes[2].length, many, some, at
    while n > 0:
        many, some = 1, min(length - k, n)
        if some == length:
            many = min(axes[1].length - j, n // length)
        at = (i * outer + j * middle + k) * size
        if back:
            copy_runs(target + at, source, many, some * size, middle * size, some * size)
            source += many * some * size
        else:
            copy_runs(target, source + at, many, some * size, some * size, middle * size)
            target += many * some * size
        n -= many * some
        k = 0
        j += many
        if j == axes[1].length:
            j = 0
            i += 1


cdef void walk(
    char* target, const char* source, const Axis* given, Py_ssize_t start, Py_ssize_t n, int size, bint back
) noexcept nogil:
    """target = the n values from `start` on, in logical order, of three axes as one; `back`: those of y = source."""
    cdef Axis[3] axes
    cdef Py_ssize_t k = start, line = 0, many, offset, i = 0, j
    axes[0], axes[1], axes[2] = given[0], given[1], given[2]
    if (axes[1].y == axes[2].length * axes[2].y) if back else (axes[1].x == axes[2].length * axes[2].x):
        axes[2].length *= axes[1].length
        axes[1].length = 1
    if k >= axes[2].length:  # a division takes as long as twenty values
        line = k // axes[2].length
        k -= line * axes[2].length
    j = line
    if j >= axes[1].length:
        i = j // axes[1].length
        j -= i * axes[1].length
    if (axes[2].y if back else axes[2].x) == 1:
        walk_runs(target, source, axes, i, j, k, n, size, back)
        return
    while n > 0:
        many = min(axes[2].length - k, n)
        if back:
            offset = i * axes[0].y + j * axes[1].y + k * axes[2].y
            copy(target + offset * size, axes[2].y, source, 1, many, size)
            source += many * size
        else:
            offset = i * axes[0].x + j * axes[1].x + k * axes[2].x
            copy(target, 1, source + offset * size, axes[2].x, many, size)
            target += many * size
        n -= many
        k = 0
        j += 1
        if j == axes[1].length:
            j = 0
            i += 1


cdef inline void gather(
    char* target, const char* source, const Axis* axes, Py_ssize_t start, Py_ssize_t n, int size
) noexcept nogil:
    """target = the n values from `start` on, in logical order, of three axes of x seen as one."""
    walk(target, source, axes, start, n, size, False)


cdef inline void scatter(
    char* target, const char* source, const Axis* axes, Py_ssize_t start, Py_ssize_t n, int size
) noexcept nogil:
    """The n values from `start` on, in logical order, of three axes of y seen as one = source."""
    walk(target, source, axes, start, n, size, True)


cdef inline void gather_beside(
    const Job* job, char* packed, const char* y, const Axis* axes, Py_ssize_t start, Py_ssize_t n
) noexcept nogil:
    """What is added to the n values of y from `start` on, in logical order, of three axes seen as one."""
    cdef Axis[3] of_y
    cdef int i
    for i in range(3):
        of_y[i] = Axis(axes[i].length, axes[i].y, 0)
    gather(beside(packed), y + job.traffic.residual, of_y, start, n, job.lines.size)


cdef void see(Job* job, int threads) noexcept nogil:
    """Decide how the norm is run.  What decides on bits are lengths, and which axes lie inside which, alone."""
    cdef Norm* n = &job.n
    cdef Py_ssize_t bytes
    cdef bint again, single, long_run, slow
    cdef int arrays = 2 + (n.residual != NULL) + 2 * (n.addend != NULL)
    job.member = 1 if n.groups == n.channels else n.channels // n.groups
    job.positions = n.outer * n.middle * n.inner
    job.columns = n.channels > 1 and (job.positions == 1 or not inside(n.inner, n.x.inner, n))
    job.apart = n.along
    if n.statistic != GIVEN:
        if job.columns:
            if not n.along and job.member == 1 and job.positions <= LANE_VALUES and n.channels < MOST_LANES:
                job.scattered, job.columns = True, False
            elif not n.along and job.member == 1 and job.positions <= SHORT_SAMPLE and n.channels <= FEW_CHANNELS:
                job.whole, job.columns = True, False
            elif not n.along and job.member > 1 and n.outer == 1 and job.positions * n.channels <= SHEET and (
                    n.groups == 1 or job.positions * job.member <= LANE_VALUES
                    or job.positions <= (FEW_LINES // 2 if is_half(n.element) else FEW_LINES)
                    and job.member >= job.lines.lanes):
                job.scattered = n.groups > 1 and job.positions * job.member <= LANE_VALUES
                see_channels_as_positions(job, True)
            elif not n.along and job.positions == 1:
                see_channels_as_positions(job, True)
            elif n.along and is_lane_row(job) and (n.x.channel != 1 or n.channels <= (
                    FEW_ROWS if job.positions <= FEW_POSITIONS else FEW_LONGER_ROWS)):
                job.columns = False
        elif (job.member > 1 and n.outer == 1 and inside(n.middle, n.x.middle, n) and (
                job.positions < SHORT
                or job.positions < NARROW_RUN and job.positions * job.member <= SHORT_SAMPLE)):
            see_channels_as_positions(job, False)
        if not job.columns and n.channels == 1 and n.samples > 1:
            # rows in one place
            if not n.along:
                job.longer = Longer(n.channels, n.samples, 1)
            n.channels = n.groups = n.samples
            n.x.channel, n.y.channel = n.x.sample, n.y.sample
            n.samples = 1
            job.along_step = 0
            job.columns = job.positions > 1 and not inside(n.inner, n.x.inner, n)
            job.apart = True
    bytes = n.samples * n.channels * job.positions * job.lines.size
    job.far = 2 * bytes > max(<Py_ssize_t> FAR_BYTES, threads * HALF_L2)
    job.past = 0 < last_level < 2 * arrays * bytes
    single = n.outer * n.middle == 1
    long_run = (n.inner * job.member if single else n.inner) * job.lines.size >= LONG_BYTES
    again = n.statistic != GIVEN and not job.columns
    # Below AVX-512, a half takes tens of operations: memory keeps up with sums that aren't streamed, and is read by
    # hardware in time for tiles down columns, which are one line tall if they fetch.
    slow = is_half(n.element) and VECTOR_BYTES < 64
    job.traffic.streamed = n.x.data != n.y.data and not (slow and n.addend != NULL) and streaming_pays(
        arrays * bytes, threads if long_run or not again else 1, again)  # of short rows as one thread does
    # Where hardware foresees runs, it fetches too little while they are applied, if it follows stores, too, or they are
    # streamed: then is fetched, not with the moments.  Short rows in cache, which share what is loaded of a weight if
    # nothing is fetched, are better left alone.
    job.fetched = job.far and not (foresees and (job.traffic.streamed or follows and (
        job.past or single and long_run)))
    job.traffic.x_ahead = AHEAD if job.far and (
        not foresees or job.traffic.streamed and not (slow and job.columns)
        or not job.columns and n.inner * job.lines.size > RUN_BYTES) else 0
    # Of stores it loses short and scattered segments, of a page at most, where one domain is done after the other.
    job.traffic.y_ahead = AHEAD if job.far and (not foresees or n.statistic != GIVEN and (
        not follows or n.outer * n.middle > 1 and n.inner * job.lines.size <= AHEAD)) else 0
    job.traffic.added, job.traffic.activation = n.residual != NULL, n.activation
    if n.residual != NULL:
        job.traffic.residual = <const char*> n.residual - <const char*> n.y.data
    job.packed = Traffic(0, 0, False, job.traffic.added, n.activation, BESIDE * sizeof(double))


cdef void see_channels_as_positions(Job* job, bint innermost) noexcept nogil:
    """Groups become channels, and the channels of a group an axis of its positions, the innermost or the outermost.

    So short lines become one longer, whose weights are those of the channels, as often as needed; or, where the
    channels of a group are a line, and lines of groups lie between each other, they are the same for all lines.
    """
    cdef Norm* n = &job.n
    cdef bint weighted = n.weight != NULL or n.bias != NULL
    job.repeated = (weighted and innermost and n.groups > 1 and job.positions > 1 and job.member >= SHORT_RUN
                    and job.positions * job.member > LANE_VALUES and n.x.channel == 1 and n.y.channel == 1)
    if job.positions > 1 and not job.repeated:
        job.longer = Longer(n.channels, job.positions, job.member if innermost else 1)
    if weighted:
        n.along = True
        job.along_step = job.member if job.repeated else job.member * job.positions
    if innermost:
        n.outer, n.x.outer, n.y.outer = n.middle, n.x.middle, n.y.middle
        n.middle, n.x.middle, n.y.middle = n.inner, n.x.inner, n.y.inner
        n.inner, n.x.inner, n.y.inner = job.member, n.x.channel, n.y.channel
    else:
        n.outer, n.x.outer, n.y.outer = job.member, n.x.channel, n.y.channel
    n.x.channel *= job.member
    n.y.channel *= job.member
    n.channels = n.groups
    job.positions *= job.member
    job.member = 1
    job.columns = False
    join_positions(n)


cdef inline Py_ssize_t longer_bytes(const Job* job) noexcept nogil:
    """Of a weight that is made longer."""
    return on_lines(job.longer.count * job.longer.times * job.lines.computed)


cdef void make_room_for_longer(Job* job, int threads) noexcept nogil:
    """For each thread if they are several; for one, the weights are made longer at once."""
    if job.longer.times == 0 or job.n.weight == NULL and job.n.bias == NULL:
        return
    job.expanded = <char*> malloc(STEP_BYTES + threads * apart(2 * longer_bytes(job)))
    job.shared_out = threads > 1
    if job.expanded == NULL:
        job.failed = True
    elif not job.shared_out:
        lengthen(job, 0)


cdef void lengthen(Job* job, int thread) noexcept nogil:
    """weight and bias become (count / run, times, run), in the room of that thread."""
    cdef Py_ssize_t bytes = longer_bytes(job)
    cdef char* target = on_line(job.expanded) + thread * apart(2 * bytes)
    if job.n.weight != NULL:
        lengthen_one(job, target, <const char*> job.n.weight)
        job.n.weight = target
    if job.n.bias != NULL:
        lengthen_one(job, target + bytes, <const char*> job.n.bias)
        job.n.bias = target + bytes


cdef void lengthen_one(const Job* job, char* target, const char* source) noexcept nogil:
    cdef const Longer* longer = &job.longer
    cdef int size = job.lines.computed
    cdef Py_ssize_t i, j, bytes = longer.run * size
    if longer.run == 1:
        repeat(target, source, longer.count, longer.times, size)
        return
    for i in range(longer.count // longer.run):
        for j in range(longer.times):
            copy(target, 1, source, 1, longer.run, size)
            target += bytes
        source += bytes


cdef void join_positions(Norm* n) noexcept nogil:
    """Axes of positions that lie evenly become one."""
    cdef Py_ssize_t pass_
    for pass_ in range(2):
        if n.inner == 1 or (n.x.middle == n.inner * n.x.inner and n.y.middle == n.inner * n.y.inner) or n.middle == 1:
            if n.inner == 1:
                n.x.inner, n.y.inner = n.x.middle, n.y.middle
            n.inner *= n.middle
            n.middle, n.x.middle, n.y.middle = n.outer, n.x.outer, n.y.outer
            n.outer, n.x.outer, n.y.outer = 1, 0, 0
