# Forward by lanes: domains of so few values that each takes a lane; a tile of them is packed into L1, turned.
# Included by _kernels.pyx, whose header says how and why.

cdef struct Turn:
    # A tile of `window` domains, whose values lie at these offsets from their first, `x_run` and `y_run` in a row.
    Job* job
    Py_ssize_t window
    bint within  # windows lie within samples, all samples of one window before the next; else over all domains
    bint going_on  # a tile goes on with the next sample's domains and the weights of these ...
    bint even  # ... which lie as those of one
    const Py_ssize_t* x
    const Py_ssize_t* y
    Py_ssize_t x_run, y_run


cdef void turn_of(
    unit* target, const unit* source, const Py_ssize_t* places, Py_ssize_t lanes, const Py_ssize_t* offsets,
    Py_ssize_t values, bint back,
) noexcept nogil:
    cdef Py_ssize_t lane, v
    if back:
        for lane in range(lanes):
            for v in range(values):
                target[places[lane] + offsets[v]] = source[v * MOST_LANES + lane]
    else:
        for v in range(values):
            for lane in range(lanes):
                target[v * MOST_LANES + lane] = source[places[lane] + offsets[v]]


cdef inline void turn(
    char* target, const char* source, const Py_ssize_t* places, Py_ssize_t lanes, const Py_ssize_t* offsets,
    Py_ssize_t run, Py_ssize_t values, int size, bint back,
) noexcept nogil:
    """target (values, lanes) = source, domains at `places`; `back`: source (values, lanes) to such a target."""
    cdef Py_ssize_t v = 0
    if run == values or run >= TURNED_RUN:
        while v < values:
            if back:
                turn_run(target + offsets[v] * size, source + v * MOST_LANES * size, size, places, lanes, run, True)
            else:
                turn_run(target + v * MOST_LANES * size, source + offsets[v] * size, size, places, lanes, run, False)
            v += run
    elif size == 4:
        turn_of(<uint32_t*> target, <const uint32_t*> source, places, lanes, offsets, values, back)
    elif size == 2:
        turn_of(<uint16_t*> target, <const uint16_t*> source, places, lanes, offsets, values, back)
    else:
        turn_of(<uint64_t*> target, <const uint64_t*> source, places, lanes, offsets, values, back)


cdef inline void fetch_target(
    const char* y, const Py_ssize_t* offsets, Py_ssize_t run, Py_ssize_t lanes, Py_ssize_t values, int size
) noexcept nogil:
    """For writing, domains that follow each other a page ahead; where their runs do, those that come now: in pieces."""
    cdef Py_ssize_t v = 0, bytes = lanes * run * size
    if run == values:
        fetch_bytes(y + AHEAD, bytes, True)
    elif bytes >= RUN_BYTES:
        while v < values:
            fetch_bytes(y + offsets[v] * size, bytes, True)
            v += run


cdef Py_ssize_t run_of(const Py_ssize_t* offsets, Py_ssize_t values) noexcept nogil:
    """How many values follow each other, in all runs alike."""
    cdef Py_ssize_t v, run = 1
    while run < values and offsets[run] == run:
        run += 1
    for v in range(values):
        if values % run or offsets[v] != offsets[v - v % run] + v % run:
            return 1
    return run


cdef inline Py_ssize_t seen_at_once(
    const Turn* t, Py_ssize_t domain, Py_ssize_t most, Py_ssize_t* sample, Py_ssize_t* group
) noexcept nogil:
    """Where a domain is, and how many from there on, `most` at most, are taken with it."""
    cdef const Norm* n = &t.job.n
    sample[0] = 0 if n.samples == 1 else domain // n.groups
    group[0] = domain - sample[0] * n.groups
    return most if t.going_on else min(n.groups - group[0], most)


cdef inline void find_places(
    Py_ssize_t* places, const Operand* a, Py_ssize_t group, Py_ssize_t groups, Py_ssize_t lanes
) noexcept nogil:
    """Where `lanes` domains lie from the first one on, group `group` of `groups` in its sample."""
    cdef Py_ssize_t lane, at = 0
    for lane in range(lanes):
        places[lane] = at
        at += a.channel
        group += 1
        if group == groups:
            group = 0
            at += a.sample - groups * a.channel


cdef void work_lanes(void* context, int thread, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The windows start..stop."""
    cdef const Turn* t = <const Turn*> context
    cdef const Job* job = t.job
    cdef const Norm* n = &job.n
    cdef int size = job.lines.size, computed = job.lines.computed, values = <int> job.positions
    cdef bint uneven = t.going_on and not t.even
    # values of a row each in a line of the cache of its own are read across each other: no run to hardware
    cdef bint fetched = job.far and (not foresees or values * size > STEP_BYTES)
    cdef Py_ssize_t x_places[MOST_LANES]
    cdef Py_ssize_t y_places[MOST_LANES]
    cdef Aligned tile_values[BESIDE + LANE_VALUES * MOST_LANES]
    cdef char* tile = <char*> tile_values
    cdef const char* x
    cdef char* y
    cdef Aligned matrix[2 * LANE_VALUES * MOST_LANES]
    cdef Aligned mean[MOST_LANES]
    cdef Aligned m2[MOST_LANES]
    cdef Aligned coefficients[3 * MOST_LANES]
    cdef char* high = <char*> coefficients
    cdef char* scale = <char*> &coefficients[MOST_LANES]
    cdef char* shift = <char*> &coefficients[2 * MOST_LANES]
    cdef char* weights = <char*> matrix
    cdef char* biases = <char*> &matrix[LANE_VALUES * MOST_LANES]
    cdef Py_ssize_t unit, first, count, sample, group, lane, some, known = -1, at
    cdef Py_ssize_t most = min(t.window, n.samples * n.groups)  # lanes that are ever used
    if not uneven:
        find_places(x_places, &n.x, 0, most, most)
        find_places(y_places, &n.y, 0, most, most)
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
            while lane < count or lane < most and not t.within:
                group = (known + lane) % n.groups
                some = min(n.groups - group, t.window - lane)
                at = group * job.along_step * computed
                copy_block(weights + lane * computed, <const char*> n.weight + at, computed, values, some, MOST_LANES,
                           1, 1, job.along_step)
                copy_block(biases + lane * computed, <const char*> n.bias + at, computed, values, some, MOST_LANES, 1,
                           1, job.along_step)
                lane += some
        if uneven:
            find_places(x_places, &n.x, first % n.groups, n.groups, count)
            find_places(y_places, &n.y, first % n.groups, n.groups, count)
        lane = 0
        while lane < count:
            some = seen_at_once(t, first + lane, count - lane, &sample, &group)
            x = x_at(job, sample * n.x.sample + group * n.x.channel)
            if fetched and not uneven and n.x.channel == values:
                fetch_bytes(x + AHEAD, some * values * size, False)
            turn(tile + lane * size, x, x_places, some, t.x, t.x_run, values, size, False)
            if job.packed.added:
                y = y_at(job, sample * n.y.sample + group * n.y.channel) + job.traffic.residual
                turn(beside(tile) + lane * size, y, y_places, some, t.y, t.y_run, values, size, False)
            lane += some
        job.lines.column_moments(tile, MOST_LANES, values, count, 0, job.rule, 0, mean, m2)
        divide(m2, count, values)  # as columns do: which of both ways short rows go depends on strides
        lane = 0
        while lane < count:
            some = seen_at_once(t, first + lane, count - lane, &sample, &group)
            at = lane * computed
            coefficients_of(job, sample, group, some, mean + lane, m2 + lane, high + at, scale + at, shift + at)
            lane += some
        if n.mean != NULL:
            for lane in range(count):
                n.mean[first + lane], n.var[first + lane] = mean[lane], m2[lane]
        if n.y.data == NULL:
            continue
        if n.along:
            job.lines.apply_columns_along(
                tile, tile, count, values, MOST_LANES, MOST_LANES, high, scale, shift,
                weights if job.along_step else n.weight, biases if job.along_step else n.bias,
                MOST_LANES if job.along_step else 0, &job.packed)
        else:
            job.lines.apply_columns(tile, tile, count, values, MOST_LANES, MOST_LANES, high, scale, shift, &job.packed)
        lane = 0
        while lane < count:
            some = seen_at_once(t, first + lane, count - lane, &sample, &group)
            y = y_at(job, sample * n.y.sample + group * n.y.channel)
            if job.traffic.y_ahead and not uneven and n.y.channel == t.y_run:
                fetch_target(y, t.y, t.y_run, some, values, size)
            turn(y, tile + lane * size, y_places, some, t.y, t.y_run, values, size, True)
            lane += some


cdef void forward_lanes(Job* job, int threads) noexcept nogil:
    cdef Turn t
    cdef Axis axes[5]
    cdef Norm* n = &job.n
    cdef Py_ssize_t v, lanes = MOST_LANES, units
    cdef Py_ssize_t x[LANE_VALUES]
    cdef Py_ssize_t y[LANE_VALUES]
    t.job = job
    axes[0], axes[1] = job.segments[0], job.segments[1]
    axes[2], axes[3], axes[4] = job.run[0], job.run[1], job.run[2]
    for v in range(job.positions):
        x[v], y[v] = offset_in(axes, 5, v, False), offset_in(axes, 5, v, True)
    t.x, t.y, t.x_run, t.y_run = x, y, run_of(x, job.positions), run_of(y, job.positions)
    t.window, t.within = lanes, False
    if n.along and job.along_step:
        t.within = n.groups >= lanes
        if not t.within:
            t.window = lanes // n.groups * n.groups
    t.even = n.x.sample == n.groups * n.x.channel and (
        n.y.data == NULL or n.y.sample == n.groups * n.y.channel)
    t.going_on = n.samples > 1 and n.groups < (lanes if t.even else FEW_GROUPS)
    if t.going_on and not n.along:
        job.longer = Longer(n.channels, 1 + ceil_div(lanes, n.groups), n.channels)
        make_room_for_longer(job, 1)
        if job.failed:
            return
    units = n.samples * ceil_div(n.groups, t.window) if t.within else ceil_div(n.samples * n.groups, t.window)
    share(work_lanes, &t, units, threads)
