# Walking: an array seen as lines, whatever its strides; what isn't contiguous is packed into L1 and is so then.
# Included by _kernels.pyx, whose header says how and why.

cdef enum:
    SHORT = 32  # positions below which the channels of a group are seen as positions


cdef struct Axis:
    Py_ssize_t length, x, y  # strides in values


cdef struct Job:
    # A norm and how it is run; `work` functions get it with a range of units.
    Norm n
    const Lines* lines
    Traffic traffic
    bint far  # past the caches
    double tiny  # see OUT_OF_RANGE
    Py_ssize_t positions, member  # of a channel; channels of a domain
    Py_ssize_t along_step  # from the weights of one channel to the next, if they run along positions
    void* expanded  # weight and bias made longer, to be freed
    bint columns  # channels lie inside positions: vectors run across them
    bint apart  # channels are rows or samples, whose bits may not depend on their number
    # Moments of rows: how a domain is cut.
    Axis segments[2]
    Axis run[3]
    Py_ssize_t count, length  # segments of a domain, values of a run
    Py_ssize_t pitch  # from one segment to the next, if all is even in x and runs are contiguous; else 0
    bint even
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
    bint failed  # no memory


cdef inline Py_ssize_t ceil_div(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return (a + b - 1) // b


cdef inline const char* x_at(const Job* job, Py_ssize_t offset) noexcept nogil:
    return <const char*> job.n.x.data + offset * job.lines.size


cdef inline char* y_at(const Job* job, Py_ssize_t offset) noexcept nogil:
    return <char*> job.n.y.data + offset * job.lines.size


cdef inline void copy(
    char* target, Py_ssize_t to_stride, const char* source, Py_ssize_t stride, Py_ssize_t n, int size
) noexcept nogil:
    """target = source, n values of `size` bytes."""
    cdef Py_ssize_t i
    if to_stride == 1 and stride == 1 and n >= 16:
        memcpy(target, source, n * size)
    elif size == 4:
        for i in range(n):
            (<uint32_t*> target)[i * to_stride] = (<const uint32_t*> source)[i * stride]
    else:
        for i in range(n):
            (<uint64_t*> target)[i * to_stride] = (<const uint64_t*> source)[i * stride]


cdef void widen(char* target, const char* source, Py_ssize_t count, Py_ssize_t width, int size) noexcept nogil:
    """target (count, width) = source (count, 1); from the end on, for they may begin at the same place."""
    cdef Py_ssize_t i = count, j
    cdef uint32_t single
    cdef uint64_t double_
    while i > 0:
        i -= 1
        if size == 4:
            single = (<const uint32_t*> source)[i]
            for j in range(width):
                (<uint32_t*> target)[i * width + j] = single
        else:
            double_ = (<const uint64_t*> source)[i]
            for j in range(width):
                (<uint64_t*> target)[i * width + j] = double_


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


cdef void gather(
    char* target, Py_ssize_t to_stride, const char* source, const Axis* axes, int number, Py_ssize_t start,
    Py_ssize_t n, int size,
) noexcept nogil:
    """target = the n values from `start` on, in logical order, of the axes seen as one."""
    cdef const Axis* last = &axes[number - 1]
    cdef Py_ssize_t i = 0, at, many
    while i < n:
        at = (start + i) % last.length
        many = min(last.length - at, n - i)
        copy(target + i * to_stride * size, to_stride,
             source + (offset_in(axes, number - 1, (start + i) // last.length, False) + at * last.x) * size, last.x,
             many, size)
        i += many


cdef void scatter(
    char* target, const char* source, Py_ssize_t from_stride, const Axis* axes, int number, Py_ssize_t start,
    Py_ssize_t n, int size,
) noexcept nogil:
    """The n values from `start` on, in logical order, of the axes seen as one = source."""
    cdef const Axis* last = &axes[number - 1]
    cdef Py_ssize_t i = 0, at, many
    while i < n:
        at = (start + i) % last.length
        many = min(last.length - at, n - i)
        copy(target + (offset_in(axes, number - 1, (start + i) // last.length, True) + at * last.y) * size, last.y,
             source + i * from_stride * size, from_stride, many, size)
        i += many


cdef void see(Job* job) noexcept nogil:
    """Decide how the norm is run.  Depends on lengths, and on which axes lie inside which, alone."""
    cdef Norm* n = &job.n
    cdef Py_ssize_t bytes
    job.member = n.channels // n.groups
    job.positions = n.outer * n.middle * n.inner
    job.columns = n.channels > 1 and (job.positions == 1 or not inside(n.inner, n.x.inner, n))
    job.along_step = 0
    job.apart = n.along
    if n.statistic == CENTRED:
        if job.columns and job.positions == 1:
            see_channels_as_positions(job)
        elif (not job.columns and job.member > 1 and n.outer == 1 and job.positions < SHORT
              and inside(n.middle, n.x.middle, n)):
            see_channels_as_positions(job)
        if not job.columns and n.channels == 1 and n.samples > 1 and (n.along or n.weight == NULL and n.bias == NULL):
            # rows in one place
            n.channels = n.groups = n.samples
            n.x.channel, n.y.channel = n.x.sample, n.y.sample
            n.samples = 1
            job.along_step = 0
            job.columns = job.positions > 1 and not inside(n.inner, n.x.inner, n)
            job.apart = True
    bytes = 2 * n.samples * n.channels * job.positions * job.lines.size
    job.far = bytes > FAR_BYTES
    job.traffic.ahead = AHEAD if job.far else 0
    job.traffic.streamed = STREAM_BYTES > 0 and bytes >= STREAM_BYTES and n.x.data != n.y.data


cdef void see_channels_as_positions(Job* job) noexcept nogil:
    """Groups become channels, and the channels of a group an axis of its positions: short lines become one longer."""
    cdef Norm* n = &job.n
    cdef Py_ssize_t count = n.channels * job.positions
    cdef int size = job.lines.size
    cdef char* longer
    if not n.along and job.positions > 1 and (n.weight != NULL or n.bias != NULL):
        longer = job.expanded = <char*> malloc(2 * count * size)
        if longer == NULL:
            job.failed = True
            return
        if n.weight != NULL:
            widen(longer, <const char*> n.weight, n.channels, job.positions, size)
        if n.bias != NULL:
            widen(longer + count * size, <const char*> n.bias, n.channels, job.positions, size)
        n.weight = longer if n.weight != NULL else NULL
        n.bias = longer + count * size if n.bias != NULL else NULL
    if job.positions == 1:
        n.inner, n.x.inner, n.y.inner = job.member, n.x.channel, n.y.channel
    else:
        n.outer, n.x.outer, n.y.outer = job.member, n.x.channel, n.y.channel
    if not n.along and (n.weight != NULL or n.bias != NULL):
        n.along = True
        job.along_step = job.member * job.positions
    n.x.channel *= job.member
    n.y.channel *= job.member
    n.channels = n.groups
    job.positions *= job.member
    job.member = 1
    job.columns = False
