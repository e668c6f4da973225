# Copying an array into one whose axes lie otherwise: by tiles, so that each cache line is used whole.
# Included by _kernels.pyx.

cdef enum:
    BLOCK_SIDE = 64  # of a unit of work, whose lines stay in L1 whatever their distance
    FETCHED_SIDE = 32  # from which on its lines of y, each of which is written in pieces, are fetched before


cdef struct Blocks:
    const Copy* copy
    int inner, other  # y's innermost axis, and x's innermost of the rest
    Py_ssize_t across, along  # blocks of the other and of the inner axis


cdef void work_copy(void* context, int thread, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    cdef const Blocks* blocks = <const Blocks*> context
    cdef const Copy* c = blocks.copy
    cdef const Axis* inner = &c.axes[blocks.inner]
    cdef const Axis* other = &c.axes[blocks.other]
    cdef Axis one = Axis(1, 0, 0)
    cdef Py_ssize_t block, rest, x, y, row, rows, column, columns, i
    cdef int axis
    cdef const char* source
    cdef char* target
    if blocks.other == blocks.inner:
        other = &one
    for block in range(start, stop):
        column = block % blocks.along * BLOCK_SIDE
        row = block // blocks.along % blocks.across * BLOCK_SIDE
        rest = block // blocks.along // blocks.across
        columns = min(<Py_ssize_t> BLOCK_SIDE, inner.length - column)
        rows = min(<Py_ssize_t> BLOCK_SIDE, other.length - row)
        x, y = row * other.x + column * inner.x, row * other.y + column * inner.y
        for axis in range(c.count):
            if axis != blocks.inner and axis != blocks.other:
                x += rest % c.axes[axis].length * c.axes[axis].x
                y += rest % c.axes[axis].length * c.axes[axis].y
                rest //= c.axes[axis].length
        source, target = c.x + x * c.size, c.y + y * c.size
        if inner.x == 1 and inner.y == 1:
            copy_runs(target, source, rows, columns * c.size, other.y * c.size, other.x * c.size)
        else:
            if min(rows, columns) >= FETCHED_SIDE:
                for i in range(rows):
                    fetch_bytes(target + i * other.y * c.size, columns * c.size, True)
            copy_block(target, source, c.size, rows, columns, other.y, inner.y, other.x, inner.x)


cdef void copy_array(const Copy* c, int threads) noexcept nogil:
    """KernelSet's copy."""
    cdef Blocks blocks = Blocks(c, 0, 0, 1, 1)
    cdef Py_ssize_t outer = 1
    cdef int axis
    for axis in range(1, c.count):
        if labs(c.axes[axis].y) < labs(c.axes[blocks.inner].y):
            blocks.inner = axis
    blocks.other = blocks.inner
    for axis in range(c.count):
        if axis != blocks.inner and (
                blocks.other == blocks.inner or labs(c.axes[axis].x) < labs(c.axes[blocks.other].x)):
            blocks.other = axis
    for axis in range(c.count):
        if axis != blocks.inner and axis != blocks.other:
            outer *= c.axes[axis].length
    blocks.along = ceil_div(c.axes[blocks.inner].length, BLOCK_SIDE)
    if blocks.other != blocks.inner:
        blocks.across = ceil_div(c.axes[blocks.other].length, BLOCK_SIDE)
    share(work_copy, &blocks, outer * blocks.across * blocks.along, threads)
