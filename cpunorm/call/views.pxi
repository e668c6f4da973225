# Seeing arrays along the axes of a Norm.
# Included by _call.pyx.

cdef inline int log2_size(object x) noexcept:
    """The logarithm of the size of an element: strides are shifted by it, for a division takes ten times as long."""
    cdef Py_ssize_t size = itemsize_of(x)
    return 2 if size == 4 else 3 if size == 8 else 1


cdef inline int see(Axis* axes, object x, object y, int start, int stop, int without, bint sort) noexcept:
    """The axes start..stop but `without`, outermost in memory first if `sort`, merged; how many are left."""
    cdef int axis, count = 0, at, size = log2_size(x)
    cdef Axis one
    for axis in range(start, stop):
        one = Axis(length_of(x, axis), stride_of(x, axis) >> size, stride_of(y, axis) >> size)
        if axis == without or one.length == 1:
            continue
        at = count
        if sort:
            while at > 0 and labs(axes[at - 1].x) < labs(one.x):
                axes[at] = axes[at - 1]
                at -= 1
        axes[at] = one
        count += 1
    stop, count = count, 0
    for at in range(stop):
        one = axes[at]
        if count and axes[count - 1].x == one.length * one.x and axes[count - 1].y == one.length * one.y:
            axes[count - 1] = Axis(axes[count - 1].length * one.length, one.x, one.y)
        else:
            axes[count] = one
            count += 1
    return count


cdef inline bint place_positions(Norm* n, const Axis* axes, int count) noexcept:
    """`axes`, innermost last, as (outer, middle, inner); False if they are more than there are places."""
    n.outer = n.middle = n.inner = 1
    n.x.outer = n.x.middle = n.x.inner = n.y.outer = n.y.middle = n.y.inner = 0
    if count > 0:
        n.inner, n.x.inner, n.y.inner = axes[count - 1].length, axes[count - 1].x, axes[count - 1].y
    if count > 1:
        n.middle, n.x.middle, n.y.middle = axes[count - 2].length, axes[count - 2].x, axes[count - 2].y
    if count > 2:
        n.outer, n.x.outer, n.y.outer = axes[0].length, axes[0].x, axes[0].y
    return count <= 3


cdef inline void place_channels(Norm* n, object x, object y, int axis) noexcept:
    cdef int size = log2_size(x)
    n.channels = length_of(x, axis)
    n.x.channel, n.y.channel = stride_of(x, axis) >> size, stride_of(y, axis) >> size


cdef bint place_batch(Norm* n, object x, object y, int axis, int start) noexcept:
    """BatchNorm's view, all axes but the channels' being positions."""
    cdef Axis axes[MOST_AXES]
    place_channels(n, x, y, axis)
    n.groups = n.channels
    return place_positions(n, axes, see(axes, x, y, start, ndim_of(x), axis, True))


cdef inline bint is_across(object x) noexcept:
    """Whether the first axis is the innermost in memory."""
    cdef int axis
    for axis in range(1, ndim_of(x)):
        if length_of(x, axis) > 1 and labs(stride_of(x, axis)) <= labs(stride_of(x, 0)):
            return False
    return size_of(x) > length_of(x, 0) > 1


cdef bint place_samples(Norm* n, object x, object y, int axis, int start, bint dense) noexcept:
    """GroupNorm's view: the first axis is the samples'.

    The outer place is for dense arrays whose samples or channels lie between positions: others become dense first, lest
    their bits were different from those of the dense array with the same order of axes.
    """
    cdef Axis axes[MOST_AXES]
    cdef int size = log2_size(x)
    cdef int count = see(axes, x, y, 1, ndim_of(x), axis, True)
    if is_across(x):
        return False
    place_channels(n, x, y, axis)
    if start == 0:
        n.samples = length_of(x, 0)
        n.x.sample, n.y.sample = stride_of(x, 0) >> size, stride_of(y, 0) >> size
    return count < (4 if dense else 3) and place_positions(n, axes, count)


cdef bint place_rows(Norm* n, object x, object y, int leading, int start) noexcept:
    """LayerNorm's view: what is normalised are positions, each row is a channel."""
    cdef Axis axes[MOST_AXES]
    cdef bint fit = place_positions(n, axes, see(axes, x, y, leading, ndim_of(x), -1, False))
    cdef int count = see(axes, x, y, start, leading, -1, True)
    if count > 0:
        n.channels, n.x.channel, n.y.channel = axes[count - 1].length, axes[count - 1].x, axes[count - 1].y
    if count > 1:
        n.samples, n.x.sample, n.y.sample = axes[0].length, axes[0].x, axes[0].y
    n.groups = n.channels
    return fit and count <= 2


cdef enum View:
    BATCH, SAMPLES, ROWS


cdef inline bint place(Norm* n, View view, object x, object y, int axis, int start, bint dense) noexcept:
    """See x and y from their axis `start` on; those before are walked from outside."""
    n.samples = n.channels = 1
    n.x.sample = n.x.channel = n.y.sample = n.y.channel = 0
    if view == BATCH:
        return place_batch(n, x, y, axis, start)
    if view == SAMPLES:
        return place_samples(n, x, y, axis, start, dense)
    return place_rows(n, x, y, axis, start)
