"""How values that do not lie as a loop wants them are moved through a buffer, and what y goes through at its end."""

import numpy as np

from cpunorm._numba.lanes import address_of, apart, call, inlined, jit, lanes, load_some, shifted, store_some, zeros
from cpunorm._numba.plan import FUNCTION, domain_at

__all__ = [
    "READ",
    "carry_run",
    "clear",
    "copy",
    "following",
    "lines_at",
    "move",
    "pack_lines",
    "place_of",
    "transpose",
    "write",
]

READ, WRITE, ADD = map(np.intp, range(3))  # of `carry`; not literals, for which Numba compiles functions twice


@inlined
def place_of(n, run):
    """The indices of the run of that number."""
    if run == 0:
        return 0, 0, 0
    return run // n[2] // n[1], run // n[2] % n[1], run % n[2]


@inlined
def following(n, i, j, k):
    """The place after (i, j, k)."""
    k += 1
    if k == n[2]:
        k = 0
        j += 1
        if j == n[1]:
            j = 0
            i += 1
    return i, j, k


@inlined
def copy(source, source_step, target, target_step, n):
    """n values."""
    if source_step == 1 and target_step == 1:
        like = zeros(source, source[0])
        for i in range(0, n, lanes(source)):
            store_some(target, i, n - i, load_some(source, i, n - i, like))
    else:
        for i in range(n):
            target[i * target_step] = source[i * source_step]


@inlined
def carry(memory, memory_step, place, step, n, what):
    """READ: n values from memory to a place in a buffer; WRITE: back; ADD: added to those in the buffer."""
    if what == READ:
        copy(memory, memory_step, place, step, n)
    elif what == WRITE:
        copy(place, step, memory, memory_step, n)
    else:
        for i in range(n):
            place[i * step] += memory[i * memory_step]


@jit
def move(p, n, strides, start, stop, buffer, step, what):
    """`carry` the values start..stop of a sequence."""
    apart()
    i, j, k = place_of(n, start // n[3])
    at, begin = start, start % n[3]
    while at < stop:
        some = min(stop - at, n[3] - begin)
        memory = shifted(p, i * strides[0] + j * strides[1] + k * strides[2] + begin * strides[3])
        carry(memory, strides[3], shifted(buffer, (at - start) * step), step, some, what)
        at += some
        begin = 0
        i, j, k = following(n, i, j, k)


@inlined
def write(plan, carried, y, buffer, n, *where):
    """y = n values in the buffer, after the residual is added to them and the activation done."""
    if plan.norm.residual:
        carried(plan, shifted(y, plan.residual), buffer, ADD, *where)
    if plan.norm.activation == FUNCTION:
        call(plan.norm.function, address_of(buffer), n)
    elif plan.norm.activation:
        call(plan.norm.function, np.intp(plan.norm.element), np.intp(plan.norm.activation), address_of(buffer), n)
    carried(plan, y, buffer, WRITE, *where)


@inlined
def carry_run(plan, p, buffer, what, step, n):
    """`carry` n values at p, `step` apart."""
    carry(p, step, buffer, 1, n, what)


@inlined
def lines_at(plan, x, pitch, line, number, column, columns, buffer):
    """Lines of the sample at x and their pitch: in memory, or, where they don't lie evenly, packed."""
    if pitch:
        return shifted(x, line * pitch + column), pitch
    pack_lines(plan, x, buffer, READ, line, number, column, columns)
    return buffer, lanes(x)


@jit
def pack_lines(plan, p, buffer, what, line, number, column, columns):
    """`carry` some columns of lines of the sample at p; the buffer has one vector for each line."""
    apart()
    axes, along = plan.lines, plan.columns
    strides, along_strides, pitch = axes.y, along.y, plan.dense_y
    if what == READ:
        strides, along_strides, pitch = axes.x, along.x, plan.dense_x
    for row in range(number):
        at = column
        if pitch:
            memory = shifted(p, (line + row) * pitch + column)
            carry(memory, 1, shifted(buffer, row * lanes(p)), 1, columns, what)
            continue
        while at < column + columns:
            some, start = min(column + columns - at, plan.wide - at % plan.wide), at % plan.wide
            index = (line + row) * plan.fold + at // plan.wide
            i, j, k = place_of(axes.n, index // axes.n[3])
            offset = i * strides[0] + j * strides[1] + k * strides[2] + index % axes.n[3] * strides[3]
            place = shifted(buffer, row * lanes(p) + at - column)
            move(shifted(p, offset), along.n, along_strides, start, start + some, place, np.intp(1), what)
            at += some


@inlined
def clear(p, n):
    """n values are 0."""
    for i in range(n):
        p[i] = 0


@jit
def transpose(plan, p, block, what, operand, strides, dense, d, n):
    """`carry` the values of n domains from d on, which are columns of the block."""
    apart()
    wide, size = lanes(p), plan.size
    if dense and operand.channel == size and (plan.norm.samples == 1 or operand.sample == plan.norm.groups * size):
        memory = shifted(p, d * size)
        for i in range(size):
            carry(shifted(memory, i), size, shifted(block, i * wide), 1, n, what)
    else:
        for j in range(n):
            memory = shifted(p, domain_at(plan, operand, d + j))
            move(memory, plan.values.n, strides, 0, size, shifted(block, j), wide, what)
