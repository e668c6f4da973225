"""What Numba compiles: the kernel set of `_norm.pxd`, in float32 and float64.

The numerics are those of the Cython kernels (the header of `_kernels.pyx` says why they hold): in a part of a domain
d = x - k is summed, s = sum d and q = sum d^2, in chains of at most CHAIN values of the input's type, chains in pairs,
the rest in float64; then mean = k + s/n and M2 = q - s^2/n.  k is the mean of the first values, bettered where
2 s^2 > n q; what left the range of float32 is done again in float64.  Parts are merged in a fixed tree (Chan et al.).

How a norm is seen depends on lengths and on the order of axes in memory alone, and so do its bits:

    rows     the values of a domain follow each other: vectors run along them
    columns  neighbouring channels, with the positions inside them, are columns of lines: each lane is one column
    short    domains of few values: LANES of them are transposed into L1, and are columns there

What does not lie as a loop wants it, in x or y, is moved through a buffer.
"""

import functools
import math

import numba
import numpy as np
from numba.np.numpy_support import from_dtype

from cpunorm._numba.activations import ACTIVATIONS
from cpunorm._numba.lanes import (
    REGISTERS,
    add,
    address_of,
    apart,
    call,
    exchange,
    first,
    fma,
    free,
    get_threads,
    inlined,
    itemsize,
    jit,
    lanes,
    load,
    load_first,
    malloc,
    pointer,
    record_at,
    set_threads,
    shifted,
    stack,
    state,
    store,
    store_first,
    sub,
    sum_of,
    thread_id,
    vector,
    widened,
    zeros,
)

__all__ = ["NORM", "STEPS", "compiled", "forward_of", "norm_at", "share_of"]  # and numbers, for `engine`

INT, CINT, DOUBLE = np.intp, np.int32, np.float64
GIVEN, ABOUT_ZERO = 1, 2  # of `Statistic`
FUNCTION = ACTIVATIONS  # of `Activation`
OPERAND = np.dtype([(name, INT) for name in ("data", "sample", "outer", "middle", "channel", "inner")], align=True)
NORM = np.dtype(  # the fields of `_norm.pxd`
    [(name, INT) for name in ("samples", "outer", "middle", "channels", "inner")]
    + [("x", OPERAND), ("y", OPERAND), ("element", CINT), ("statistic", CINT), ("groups", INT), ("along", CINT)]
    + [("weight", INT), ("bias", INT), ("parameter_element", CINT), ("residual", INT), ("activation", CINT)]
    + [(name, INT) for name in ("function", "addend", "total", "mean", "var")]
    + [("eps", DOUBLE)],
    align=True,
)
AXES = np.dtype([(name, INT, 4) for name in ("n", "x", "y")])  # lengths and strides, outermost first
ROWS, COLUMNS, SHORT = range(3)  # kinds
KINDS, PHASES = 3, 5
READ, WRITE, ADD = map(np.intp, range(3))  # of `carry`; not literals, for which Numba compiles functions twice
SPREAD, WHOLE, MOMENTS, FINISH, APPLY = range(5)  # phases
PLAN = np.dtype(
    [
        ("norm", NORM),
        ("values", AXES),  # a domain as a sequence of values
        ("lines", AXES),  # the same, axes of channels and of positions not merged; in columns, the lines of a sample
        ("columns", AXES),  # of a line
        ("kind", INT),
        ("channel_axis", INT),  # of `lines`; -1 if a domain has one channel
        ("step", INT),  # from the weights of one channel to the next
        ("member", INT),  # channels of a domain
        ("inside", INT),  # positions inside a channel
        ("domains", INT),
        ("size", INT),  # values of a domain; in columns, lines of a sample
        ("wide", INT),  # columns of a line,
        ("fold", INT),  # of which so many are seen as one
        ("part", INT),  # values (lines) of a part
        ("parts", INT),  # of a domain (sample)
        ("chunk", INT),  # domains (columns) that are done at once
        ("chunks", INT),
        ("simple", INT),  # dense rows: `simple_rows` of one block, `given_rows`
        ("whole", INT),  # moments, then y, of a chunk; otherwise all moments, then all of y
        ("spread", INT),  # values of a longer weight and bias,
        ("repeated", INT),  # each so many times
        ("weight", INT),  # addresses
        ("bias", INT),
        ("summand", INT),  # the address of what the addend is added to; x is the total then
        ("finish", INT),  # whether y goes through `write`
        ("residual", INT),  # values from y to the residual
        ("bytes", INT),  # of the scratch
        ("scratch", INT),  # the address of float64 mean and M2 of each part (and column)
        ("slot", INT),  # bytes of the scratch of a thread, if `whole`
        ("dense_x", INT),  # whether values (columns) follow each other, and lines lie evenly
        ("dense_y", INT),
        ("tiny", DOUBLE),  # a mean square below this has lost its digits
    ],
    align=True,
)

NORM_WORDS, PLAN_WORDS = NORM.itemsize // 8, PLAN.itemsize // 8

# The memory `state`: addresses of functions (first those of the steps of each element and kind), and what is asked.
SHARE, FORWARD, COMPILE, REGIONS, MOST_THREADS, ACTIVATE = range(2 * KINDS, 2 * KINDS + 6)
STATE_WORDS = ACTIVATE + 2 * ACTIVATIONS  # from ACTIVATE on, the activations of each element
ANY, FREE, TAKEN = range(3)  # parallel regions at a time: any number; one, and there is none; one or none, and no more

CHAIN = 8  # values that a lane adds up before its sum is added to others
BLOCK = 4 * CHAIN  # vectors of a block, whose sum is added to others in float64
TALL = 64  # lines of a block of columns
LOW = 16  # lines that a tile of columns is applied to before its neighbour: what lies behind each other is read so
PART = 32768  # values of a part
TOGETHER = 4096  # values of the rows that are done at once, so that the latencies of their ends overlap
NARROW = 32  # positions below which channels and the positions inside them are columns
FEW = 20  # values of a short domain
FOLDED = 512  # columns of a line, if lines of few columns can be seen as one
TILE = 16384  # values of a step of the apply
TINY, LARGEST = 1e-36, float(np.finfo(np.float32).max)  # of a mean square and a sum that kept their digits
LEAST_VAR, MOST_VAR = 1e-280, 1.7e308  # where squares of float64 keep their digits

norm_at, plan_at = record_at(from_dtype(NORM)), record_at(from_dtype(PLAN))


# One vector, whole or its first lanes.


@inlined
def load_some(p, i, n, like):
    """The first n lanes of a vector, which may be all."""
    return load(p, i, like) if n >= lanes(p) else load_first(p, i, n, like)


@inlined
def store_some(p, i, n, value):
    """Write the first n lanes, which may be all."""
    store(p, i, value) if n >= lanes(p) else store_first(p, i, n, value)


# Walking: axes seen as one sequence.


@inlined
def set_axis(axes, at, n, x, y):
    """Axis `at` of `axes`."""
    axes.n[at], axes.x[at], axes.y[at] = n, x, y


@jit
def merged(axes, apart):
    """Merge neighbours that lie evenly, but for the axis `apart`; returns where that is now, or -1."""
    to, place = 3, 3 if apart == 3 and axes.n[3] > 1 else -1
    for a in range(2, -1, -1):
        n, x, y = axes.n[a], axes.x[a], axes.y[a]
        even = x == axes.n[to] * axes.x[to] and y == axes.n[to] * axes.y[to] and to != place and a != apart
        if n == 1:
            continue
        if axes.n[to] == 1:
            set_axis(axes, to, n, x, y)
        elif even:
            axes.n[to] *= n
        else:
            to -= 1
            set_axis(axes, to, n, x, y)
        if a == apart:
            place = to
    for a in range(to):
        set_axis(axes, a, 1, 0, 0)
    return place


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
    if plan.norm.activation:
        call(plan.norm.function, address_of(buffer), n)
    carried(plan, y, buffer, WRITE, *where)


@inlined
def even(n, strides, gap):
    """Whether all axes are one, of the stride `gap`."""
    return n[0] == n[1] == n[2] == 1 and (strides[3] == gap or n[3] == 1)


# Moments of rows.


@inlined
def left_range(p, q, n, tiny):
    """Whether a sum of n squares is no number, or underflowed so far that digits are lost."""
    return not (n * tiny <= q <= LARGEST) if itemsize(p) == 4 else q - q != 0


@inlined
def not_negative(value):
    """0 for what is negative; NaN stays."""
    return 0.0 if value < 0 else value


@jit
def block_sums(p, n, k):
    """Sum d and sum d^2, d = x - k, of n <= BLOCK vectors of values, in the type of k."""
    shift, zero = vector(p, k), zeros(p, k)
    total = squares = zero
    for start in range(0, n, CHAIN * lanes(p)):
        s = q = zero
        stop = min(start + CHAIN * lanes(p), n)
        rest = (stop - start) % lanes(p)
        for i in range(start, stop - rest, lanes(p)):
            d = sub(load(p, i, zero), shift)
            s = add(s, d)
            q = fma(d, d, q)
        if rest:
            d = first(sub(load_first(p, stop - rest, rest, zero), shift), rest)
            s = add(s, d)
            q = fma(d, d, q)
        total = add(total, s)
        squares = add(squares, q)
    return sum_of(total), sum_of(squares)


@jit
def sums(plan, x, start, stop, k, buffer):
    """`block_sums` of the values start..stop of the domain at x."""
    apart()
    axes = plan.values
    total = squares = 0.0
    i = start
    while i < stop:
        n = min(BLOCK * lanes(x), stop - i)
        if plan.dense_x:
            block = shifted(x, i)
        elif axes.x[3] == 1 and i % axes.n[3] + n <= axes.n[3]:
            a, b, c = place_of(axes.n, i // axes.n[3])
            block = shifted(x, a * axes.x[0] + b * axes.x[1] + c * axes.x[2] + i % axes.n[3])
        else:
            move(x, axes.n, axes.x, i, i + n, buffer, np.intp(1), READ)
            block = buffer
        s, q = block_sums(block, n, k)
        total += s
        squares += q
        i += n
    return total, squares


@inlined
def start_of(plan, x, start, stop, buffer):
    """A shift of the type of x: the mean of the first values."""
    n = min(8, stop - start)
    block = shifted(x, start)
    if not plan.dense_x:
        move(x, plan.values.n, plan.values.x, start, start + n, buffer, np.intp(1), READ)
        block = buffer
    base = block[0]
    if n < 8:
        return base
    return base + (
        ((block[1] - base) + (block[2] - base) + (block[3] - base))
        + ((block[4] - base) + (block[5] - base) + (block[6] - base) + (block[7] - base))
    ) * type(base)(0.125)


@jit
def part_moments(plan, x, start, stop, buffer):
    """Mean and M2 of the values start..stop of the domain at x."""
    apart()
    n = float(stop - start)
    k = start_of(plan, x, start, stop, buffer)
    if plan.norm.statistic == ABOUT_ZERO:
        _, q = sums(plan, x, start, stop, type(k)(0), buffer)
        if left_range(x, q, n, plan.tiny):
            _, q = sums(plan, x, start, stop, 0.0, buffer)
        return 0.0, q
    probe = min(start + BLOCK * lanes(x), stop)
    s, q = sums(plan, x, start, probe, k, buffer)
    if 2 * s * s > (probe - start) * q:
        k += type(k)(s / (probe - start))
        s, q = sums(plan, x, start, probe, k, buffer)
    if probe < stop:
        more, squares = sums(plan, x, probe, stop, k, buffer)
        s, q = s + more, q + squares
        if 2 * s * s > n * q:
            k += type(k)(s / n)
            s, q = sums(plan, x, start, stop, k, buffer)
    if left_range(x, q, n, plan.tiny):
        return exact_moments(plan, x, start, stop, buffer)
    return k + s / n, not_negative(q - s * (s / n))


@jit
def exact_moments(plan, x, start, stop, buffer):
    """`part_moments` in float64."""
    apart()
    move(x, plan.values.n, plan.values.x, start, start + 1, buffer, np.intp(1), READ)
    n, k = float(stop - start), float(buffer[0])
    mean = k + sums(plan, x, start, stop, k, buffer)[0] / n
    if mean - mean != 0:  # NaN, or the infinity that the values come to
        return sums(plan, x, start, stop, 0.0, buffer)[0] / n, np.nan
    s, q = sums(plan, x, start, stop, mean, buffer)
    return mean + s / n, not_negative(q - s * (s / n))


@inlined
def settled(plan, p, d, mean, var):
    """Mean, variance and 1 / sqrt(variance + eps) of the domain d of values like p's, from its first two."""
    if itemsize(p) == 8 and not (LEAST_VAR <= var + plan.norm.eps <= MOST_VAR):
        return extreme(plan, pointer(plan.norm.x.data, 0.0), d, mean, var)
    return mean, var, 1 / math.sqrt(var + plan.norm.eps)


@jit
def extreme(plan, x, d, mean, var):
    """`settled` of a domain whose variance left the range of float64: from its values times a power of 2."""
    apart()
    norm, power, centre = plan.norm, 2.0**600 if var < 1 else 2.0**-600, 0.0
    n, about_zero = float(plan.member * norm.outer * norm.middle * norm.inner), norm.statistic == ABOUT_ZERO
    domain, squares = shifted(x, domain_at(plan, norm.x, d)), 0.0
    for _ in range(2):
        total = squares = 0.0
        for c in range(plan.member):
            for i in range(norm.outer):
                for j in range(norm.middle):
                    line = shifted(domain, c * norm.x.channel + i * norm.x.outer + j * norm.x.middle)
                    for k in range(norm.inner):
                        value = line[k * norm.x.inner] * power - centre
                        total += value
                        squares += value * value
        if not about_zero:
            centre += total / n
            squares -= total * (total / n)
    squares /= n
    if squares - squares != 0:  # Inf or NaN among the values
        return mean, var, 1 / math.sqrt(var + norm.eps)
    return centre / power, squares / power / power, power / math.sqrt(squares + norm.eps * power * power)


@inlined
def merge(n, mean, m2, other_n, other_mean, other_m2):
    """Mean and M2 of both: Chan's update."""
    share, delta = other_n / (n + other_n), other_mean - mean
    moved = delta * share
    moved = moved if moved - moved == 0 else other_mean  # two infinities come to one, or to NaN
    return mean + moved, m2 + (other_m2 + delta * delta * (n * share))


@jit
def merge_tree(moments, parts, part, size, columns):
    """Row 0 of `moments` (parts, 2, columns) = all, merged pairwise in an order that depends on their number alone."""
    apart()
    step = 1
    while step < parts:
        for i in range(0, parts - step, 2 * step):
            a, b = shifted(moments, i * 2 * columns), shifted(moments, (i + step) * 2 * columns)
            n, other = float(step * part), float(min((i + 2 * step) * part, size) - (i + step) * part)
            for c in range(columns):
                a[c], a[columns + c] = merge(n, a[c], a[columns + c], other, b[c], b[columns + c])
        step *= 2


# y of rows.


@inlined
def apply_constant(x, y, n, high, scale, shift):
    """y = (x - high) * scale + shift."""
    mean, factor, term = vector(x, high), vector(x, scale), vector(x, shift)
    for i in range(0, n, lanes(x)):
        z = fma(sub(load_some(x, i, n - i, mean), mean), factor, term)
        store_some(y, i, n - i, z)


@inlined
def apply_along(x, y, n, high, scale, shift, weight, bias):
    """y = ((x - high) * scale + shift) * weight + bias, these two along the line."""
    mean, factor, term = vector(x, high), vector(x, scale), vector(x, shift)
    for i in range(0, n, lanes(x)):
        z = fma(sub(load_some(x, i, n - i, mean), mean), factor, term)
        z = fma(z, load_some(weight, i, n - i, mean), load_some(bias, i, n - i, mean))
        store_some(y, i, n - i, z)


@inlined
def times(low, factor):
    """The product; an exact mean has no low part, nor has Inf, and none is not to meet an infinite scale."""
    return low * factor if low == low and low != 0 else 0.0


@inlined
def coefficients(plan, rstd, low, like, channel):
    """scale and shift of a channel; without weight and bias for -1."""
    norm, kind = plan.norm, type(like)
    factor = rstd * pointer(norm.weight, like)[channel] if norm.weight and channel >= 0 else rstd
    return kind(factor), kind(
        (pointer(norm.bias, like)[channel] if norm.bias and channel >= 0 else 0.0) - times(low, factor)
    )


@inlined
def carry_run(plan, p, buffer, what, step, n):
    """`carry` n values at p, `step` apart."""
    carry(p, step, buffer, 1, n, what)


@jit
def apply_rows(plan, x, y, d, start, stop, mean, rstd, buffer):
    """The values start..stop of the domain d, which x and y point to."""
    apart()
    norm, c = plan.norm, d % plan.norm.groups * plan.member
    high = type(x[0])(mean)
    low = mean - high
    along = norm.along and plan.weight
    axes = plan.values if along else plan.lines
    n, channel_axis = axes.n, plan.channel_axis
    i, j, k = place_of(n, start // n[3])
    at, begin = start, start % n[3]
    weight, bias = pointer(plan.weight, high), pointer(plan.bias, high)
    scale, shift = coefficients(plan, rstd, low, high, -1 if norm.along else c)
    while at < stop:
        some = min(stop - at, n[3] - begin)
        source = shifted(x, i * axes.x[0] + j * axes.x[1] + k * axes.x[2] + begin * axes.x[3])
        target = shifted(y, i * axes.y[0] + j * axes.y[1] + k * axes.y[2] + begin * axes.y[3])
        packed = plan.finish or axes.y[3] != 1
        if packed or axes.x[3] != 1:
            some = min(some, BLOCK * lanes(x))
        if axes.x[3] != 1:
            copy(source, axes.x[3], buffer, 1, some)
            source = buffer
        place = buffer if packed else target
        if along:
            offset = c * plan.step + at
            apply_along(source, place, some, high, scale, shift, shifted(weight, offset), shifted(bias, offset))
        else:
            if channel_axis >= 0:
                channel = c + (k if channel_axis == 2 else j if channel_axis == 1 else i)
                scale, shift = coefficients(plan, rstd, low, high, channel)
            apply_constant(source, place, some, high, scale, shift)
        if packed:
            write(plan, carry_run, target, buffer, some, axes.y[3], some)
        at += some
        begin += some
        if begin == n[3]:
            begin = 0
            i, j, k = following(n, i, j, k)


# Columns.


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


@jit
def column_sums(p, pitch, number, n, shift, total, squares, like):
    """Add sum d and sum d^2, d = x - shift, of up to TALL lines to those of n columns; `like` is of the type of d."""
    apart()
    zero, wide = zeros(p, like), zeros(p, 0.0)
    k = load(shift, 0, zero)
    chains = squared = zero
    for start in range(0, number, CHAIN):
        s = q = zero
        for i in range(start, min(start + CHAIN, number)):
            d = sub(load_some(p, i * pitch, n, zero), k)
            s = add(s, d)
            q = fma(d, d, q)
        chains = add(chains, s)
        squared = add(squared, q)
    store(total, 0, add(load(total, 0, wide), widened(chains)))
    store(squares, 0, add(load(squares, 0, wide), widened(squared)))


@jit
def tile_sums(plan, x, pitch, start, stop, column, n, shift, total, squares, buffer, like):
    """`column_sums` of the lines start..stop of the sample at x."""
    apart()
    for line in range(start, stop, TALL):
        number = min(TALL, stop - line)
        p, gap = lines_at(plan, x, pitch, line, number, column, n, buffer)
        column_sums(p, gap, number, n, shift, total, squares, like)


@inlined
def clear(p, n):
    """n values are 0."""
    for i in range(n):
        p[i] = 0


@inlined
def bettered(shift, total, squares, n, columns):
    """Move the shifts that are badly placed; how many were."""
    moved = 0
    for c in range(columns):
        if 2 * total[c] * total[c] > n * squares[c]:
            shift[c] += type(shift[0])(total[c] / n)
            moved += 1
    return moved


@jit
def squares_about_zero(plan, x, pitch, start, stop, column, n, mean, m2, buffer):
    """`tile_moments` of norms whose mean is 0 by definition."""
    apart()
    shift, total, left = stack(64, x[0]), stack(64, 0.0), 0
    wide, exact = stack(64, 0.0), stack(64, 0.0)
    for c in range(64):
        shift[c], total[c], wide[c], exact[c] = 0, 0, 0, 0
    tile_sums(plan, x, pitch, start, stop, column, n, shift, total, exact, buffer, x[0])
    for c in range(n):
        mean[c], m2[c] = 0.0, exact[c]
        left += left_range(x, exact[c], float(stop - start), plan.tiny)
    if left:
        clear(total, 64)
        clear(exact, 64)
        tile_sums(plan, x, pitch, start, stop, column, n, wide, total, exact, buffer, 0.0)
        for c in range(n):
            if left_range(x, m2[c], float(stop - start), plan.tiny):
                m2[c] = exact[c]


@jit
def tile_moments(plan, x, pitch, start, stop, column, n, mean, m2, buffer):
    """Mean and M2 of n columns, no more than a vector has, over the lines start..stop of the sample at x."""
    apart()
    shift, total, squares = stack(64, x[0]), stack(64, 0.0), stack(64, 0.0)
    number, like = stop - start, zeros(x, x[0])
    number = 8 if number >= 8 else 4 if number >= 4 else 2 if number >= 2 else 1  # whose mean is exact for equal values
    lines = float(stop - start)
    if plan.norm.statistic == ABOUT_ZERO:
        squares_about_zero(plan, x, pitch, start, stop, column, n, mean, m2, buffer)
        return
    p, gap = lines_at(plan, x, pitch, start, number, column, n, buffer)
    base = load_some(p, 0, n, like)
    if number > 1:
        s = like
        for i in range(1, number):
            s = add(s, sub(load_some(p, i * gap, n, like), base))
        base = fma(s, vector(x, type(x[0])(1 / number)), base)
    store(shift, 0, base)
    if number == stop - start == 1:
        for c in range(n):
            mean[c], m2[c] = shift[c], shift[c] - shift[c]
        return
    clear(total, 64)
    clear(squares, 64)
    probe = min(start + TALL, stop)
    tile_sums(plan, x, pitch, start, probe, column, n, shift, total, squares, buffer, x[0])
    if bettered(shift, total, squares, float(probe - start), n):
        clear(total, n)
        clear(squares, n)
        tile_sums(plan, x, pitch, start, probe, column, n, shift, total, squares, buffer, x[0])
    if probe < stop:
        tile_sums(plan, x, pitch, probe, stop, column, n, shift, total, squares, buffer, x[0])
        if bettered(shift, total, squares, lines, n):
            clear(total, n)
            clear(squares, n)
            tile_sums(plan, x, pitch, start, stop, column, n, shift, total, squares, buffer, x[0])
    left, each = 0, 1 / lines
    for c in range(n):
        step = total[c] * each
        mean[c] = shift[c] + step
        m2[c] = not_negative(squares[c] - total[c] * step)
        left += left_range(x, squares[c], lines, plan.tiny)
    if left:
        exact_columns(plan, x, pitch, start, stop, column, n, squares, mean, m2, buffer)


@jit
def exact_columns(plan, x, pitch, start, stop, column, n, squares, mean, m2, buffer):
    """`tile_moments` in float64, of the columns whose squares left the range of float32."""
    apart()
    lines = float(stop - start)
    shift, total, exact = stack(64, 0.0), stack(64, 0.0), stack(64, 0.0)
    p, _ = lines_at(plan, x, pitch, start, np.intp(1), column, n, buffer)
    for c in range(n):
        shift[c] = p[c]
    for attempt in range(2):
        clear(total, 64)
        clear(exact, 64)
        tile_sums(plan, x, pitch, start, stop, column, n, shift, total, exact, buffer, 0.0)
        for c in range(n):
            mean_c = shift[c] + total[c] / lines
            if attempt == 0:
                shift[c] = mean_c if mean_c - mean_c == 0 else 0.0  # from 0 on, infinities come to one, or to NaN
            elif left_range(x, squares[c], lines, plan.tiny):
                mean[c], m2[c] = mean_c, not_negative(exact[c] - total[c] * (total[c] / lines))


@jit
def merge_folds(plan, mean, m2, wide):
    """The first `wide` columns = those of all lines, where `fold` of them are seen as one; returns their lines."""
    lines, left, step = plan.size // plan.fold, plan.size % plan.fold, plan.fold
    while step > 1:
        step //= 2
        times = plan.fold // step // 2
        for f in range(step):
            n = float(times * lines + (left - f + 2 * step - 1) // (2 * step))
            other = float(times * lines + (left - f + step - 1) // (2 * step))
            for c in range(f * wide, (f + 1) * wide):
                at = c + step * wide
                mean[c], m2[c] = merge(n, mean[c], m2[c], other, mean[at], m2[at])
    return float(plan.size)


@jit
def merge_group(mean, m2, lines, group):
    """Mean and variance of `group` columns of so many lines."""
    total = plain = squares = 0.0
    base = mean[0]  # so that a large mean costs no digits
    for start in range(0, group, 16):
        part = part_plain = 0.0
        for c in range(start, min(start + 16, group)):
            part += mean[c] - base
            part_plain += mean[c]
        total += part
        plain += part_plain
    middle = base + total / group if total - total == 0 else plain / group
    for start in range(0, group, 16):
        part = 0.0
        for c in range(start, min(start + 16, group)):
            part += m2[c] + lines * (mean[c] - middle) ** 2
        squares += part
    return middle, squares / (lines * group)


@jit
def finish_columns(plan, x, sample, column, n, moments, table, buffer):
    """From mean and M2 of n columns, which are whole groups, mean and rstd of these, and coefficients of the columns."""
    norm, mean, var, group = plan.norm, moments, shifted(moments, n), plan.member * plan.inside
    wide, first_group, lines = n // plan.fold, column // group, plan.size // plan.fold
    if norm.statistic != GIVEN:
        left = plan.size % plan.fold * plan.wide
        for at in range(0, left, lanes(x)):
            some = min(lanes(x), left - at)
            p, _ = lines_at(plan, x, plan.dense_x, lines, np.intp(1), at, some, buffer)
            for c in range(at, at + some):
                mean[c], var[c] = merge(float(lines), mean[c], var[c], 1.0, np.float64(p[c - at]), 0.0)
        lines = merge_folds(plan, mean, var, wide)
        for g in range(wide // group):
            if group == 1:
                var[g] /= lines
            else:  # to where nothing is read any more
                mean[g], var[g] = merge_group(shifted(mean, g * group), shifted(var, g * group), lines, group)
    known = sample * norm.groups + first_group
    known_mean, known_var = shifted(pointer(norm.mean, 0.0), known), shifted(pointer(norm.var, 0.0), known)
    for g in range(wide // group):
        if norm.statistic == GIVEN:
            mean[g], var[g] = known_mean[g], 1 / math.sqrt(known_var[g] + norm.eps)
        else:
            mean[g], squared, var[g] = settled(plan, x, known + g, mean[g], var[g])
            if norm.mean:
                known_mean[g], known_var[g] = mean[g], squared
    channels = wide // plan.inside
    spread_out(mean, channels // plan.member, plan.member, 1)
    spread_out(var, channels // plan.member, plan.member, 1)
    set_coefficients(plan, column // plan.inside, channels, n, mean, var, table)
    for row in range(3):
        spread_out(shifted(table, row * n), channels, plan.inside, plan.fold)


@jit
def spread_out(p, n, each, times):
    """Each of n values `each` times, all that `times` times, in place."""
    if each > 1:
        for i in range(n - 1, -1, -1):
            for j in range(each):
                p[i * each + j] = p[i]
    for i in range(n * each, n * each * times):
        p[i] = p[i - n * each]


@jit
def set_coefficients(plan, channel, n, gap, mean, rstd, table):
    """high, scale and shift, rows of the table `gap` apart, of n channels; `mean` and `rstd` are used up."""
    apart()
    norm, kind = plan.norm, type(table[0])
    high, scale, shift = table, shifted(table, gap), shifted(table, 2 * gap)
    weight, bias = shifted(pointer(norm.weight, table[0]), channel), shifted(pointer(norm.bias, table[0]), channel)
    for c in range(n):
        high[c] = kind(mean[c])
        mean[c] -= high[c]
    if norm.weight and not norm.along:
        for c in range(n):
            rstd[c] *= weight[c]
    for c in range(n):
        scale[c], shift[c] = kind(rstd[c]), kind(-times(mean[c], rstd[c]))
    if norm.bias and not norm.along:
        for c in range(n):
            shift[c] = kind(bias[c] - times(mean[c], rstd[c]))


@jit
def apply_columns(plan, x, y, start, stop, column, n, table, stride, buffer):
    """y of the lines start..stop, n columns from `column` on; coefficients are at `table`, rows `stride` apart."""
    apart()
    norm, like = plan.norm, zeros(x, x[0])
    weight, bias = pointer(plan.weight, x[0]), pointer(plan.bias, x[0])
    along = norm.along and plan.weight
    for line in range(start, stop, LOW):
        number = min(LOW, stop - line)
        for c in range(0, n, lanes(x)):
            m = n - c
            some = min(m, lanes(x))
            high, scale = load_some(table, c, m, like), load_some(table, stride + c, m, like)
            shift = load_some(table, 2 * stride + c, m, like)
            source, gap = lines_at(plan, x, plan.dense_x, line, number, column + c, some, buffer)
            packed = plan.finish or not plan.dense_y
            target, y_gap, kept = buffer, lanes(x), lanes(x)
            if not packed:
                target, y_gap, kept = shifted(y, line * plan.dense_y + column + c), plan.dense_y, m
            for i in range(number):
                z = fma(sub(load_some(source, i * gap, m, like), high), scale, shift)
                if along:
                    z = fma(z, vector(x, weight[line + i]), vector(x, bias[line + i]))
                store_some(target, i * y_gap, kept, z)
            if packed:
                write(plan, pack_lines, y, buffer, number * lanes(x), line, number, column + c, some)


# Short domains.


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


# Plans: how a norm is seen and cut.


@inlined
def domain_at(plan, operand, d):
    """Where the domain d starts."""
    groups, step = plan.norm.groups, plan.member * operand.channel
    return d * step if plan.norm.samples == 1 else d // groups * operand.sample + d % groups * step


@inlined
def is_inside(norm, n, stride):
    """Whether an axis of positions lies inside the channels in memory."""
    return n == 1 or norm.channels == 1 or abs(stride) < abs(norm.x.channel)


@jit
def make_plan(plan, threads):
    """Fill in `plan`, all but the norm and what is in its scratch."""
    norm, vector = plan.norm, REGISTERS // (8 if plan.norm.element else 4)
    outer, middle, inner = (
        is_inside(norm, norm.outer, norm.x.outer),
        is_inside(norm, norm.middle, norm.x.middle),
        is_inside(norm, norm.inner, norm.x.inner),
    )
    positions = norm.outer * norm.middle * norm.inner
    inside = (norm.outer if outer else 1) * (norm.middle if middle else 1) * (norm.inner if inner else 1)
    plan.member, plan.step, plan.repeated = norm.channels // norm.groups, 0, 1
    short = inside == positions < NARROW and (plan.member == 1 or norm.outer == 1)
    if short and norm.statistic != GIVEN and not norm.along:
        # Short lines of the channels of a group make one: these are an axis of positions, weight and bias run along.
        plan.repeated, norm.along, norm.channels = positions, 1, norm.groups
        if plan.member > 1:
            norm.outer, norm.x.outer, norm.y.outer = plan.member, norm.x.channel, norm.y.channel
            norm.x.channel, norm.y.channel = norm.x.channel * plan.member, norm.y.channel * plan.member
        plan.step = positions = inside = plan.member * positions
        plan.member, outer, middle, inner = 1, True, True, True
    plan.spread = 0
    if norm.along and (norm.weight or norm.bias) and (plan.repeated > 1 or not (norm.weight and norm.bias)):
        plan.spread = plan.step * norm.groups if plan.step else positions
    plan.inside, plan.domains = inside, norm.samples * norm.groups
    if norm.along:
        plan.kind = SHORT if inside == positions <= FEW else COLUMNS if inside == 1 < positions else ROWS
        if plan.kind != COLUMNS:
            outer = middle = inner = True  # in the order of the weights, whatever it is in memory
    else:
        plan.kind = COLUMNS if inside < NARROW and norm.channels > 1 else ROWS
    if norm.statistic == GIVEN and plan.kind == ROWS and norm.samples == 1 and not outer:
        # in the order of memory
        norm.samples, norm.x.sample, norm.y.sample, norm.outer = norm.outer, norm.x.outer, norm.y.outer, 1
        positions //= norm.samples
        plan.domains *= norm.samples
    plan.tiny = TINY if norm.eps < TINY else 0.0
    plan.finish = norm.residual or norm.activation
    plan.residual = (norm.residual - norm.y.data) // (8 if norm.element else 4)
    # The axes outside the channels, the channels, the axes inside.
    lines, values, at, channel = plan.lines, plan.values, 0, 0
    for side in range(2):
        if outer == (side == 1):
            set_axis(lines, at, norm.outer, norm.x.outer, norm.y.outer)
            at += 1
        if middle == (side == 1):
            set_axis(lines, at, norm.middle, norm.x.middle, norm.y.middle)
            at += 1
        if inner == (side == 1):
            set_axis(lines, at, norm.inner, norm.x.inner, norm.y.inner)
            at += 1
        if side == 0:
            channel = at
            set_axis(lines, at, plan.member, norm.x.channel, norm.y.channel)
            at += 1
    columns = plan.columns
    for a in range(4):
        set_axis(values, a, lines.n[a], lines.x[a], lines.y[a])
        set_axis(columns, a, lines.n[a] if a > channel else 1, lines.x[a], lines.y[a])
    if plan.kind == COLUMNS:
        set_axis(columns, channel, norm.channels, norm.x.channel, norm.y.channel)
        for a in range(channel, 4):
            set_axis(lines, a, 1, 0, 0)
        merged(columns, -1)
        merged(lines, -1)
        plan.wide, plan.size = norm.channels * inside, positions // inside
        plan_columns(plan, threads, 8 if norm.element else 4)
        return
    merged(values, -1)
    plan.channel_axis = merged(lines, channel if plan.member > 1 else -1)
    plan.dense_x, plan.dense_y = even(values.n, values.x, 1), even(values.n, values.y, 1)
    plan.size, plan.part = positions * plan.member, PART
    plan.parts = (plan.size + PART - 1) // PART
    plan.chunk = max(1, TOGETHER // plan.size)
    if plan.kind == SHORT:
        plan.chunk = (plan.chunk + vector - 1) // vector * vector
    plan.whole = threads == 1 or plan.parts == 1 or plan.domains >= 4 * threads
    plan.slot = 16 * plan.parts
    dense = plan.dense_x and plan.dense_y
    plain = norm.along or not (norm.weight or norm.bias)
    given = norm.statistic == GIVEN and plan.parts == 1 and not plan.finish
    one_block = norm.statistic != GIVEN and plain and plan.size <= BLOCK * vector
    plan.simple = dense and norm.y.data and (given or one_block)
    plan.bytes = plan.slot * (threads if plan.whole else plan.domains)


@inlined
def pitch_of(plan, columns, lines):
    """The distance of lines that lie evenly and whose columns follow each other; 0 for others."""
    if not (even(plan.columns.n, columns, 1) and even(plan.lines.n, lines, lines[3])):
        return 0
    pitch = lines[3] if plan.size > 1 else plan.wide
    return pitch * plan.fold if plan.fold == 1 or pitch == plan.wide else 0


@jit
def plan_columns(plan, threads, size):
    """How lines are cut."""
    norm = plan.norm
    plan.fold = 1
    while not norm.along and 2 * plan.fold * plan.wide <= FOLDED and 2 * plan.fold <= plan.size:
        plan.fold *= 2
    plan.dense_x, plan.dense_y = (
        pitch_of(plan, plan.columns.x, plan.lines.x),
        pitch_of(plan, plan.columns.y, plan.lines.y),
    )
    columns, lines, group = plan.wide * plan.fold, plan.size // plan.fold, plan.member * plan.inside
    plan.part = max(TALL, 2 * PART // columns // TALL * TALL)
    plan.parts = 1 if norm.statistic == GIVEN else (lines + plan.part - 1) // plan.part
    plan.chunk = columns if plan.fold > 1 else min(columns, (FOLDED + group - 1) // group * group)
    plan.chunks = (columns + plan.chunk - 1) // plan.chunk
    plan.whole = threads == 1 or norm.samples * plan.chunks >= 4 * threads
    if not plan.whole:
        plan.chunk, plan.chunks = columns, 1
    plan.slot = plan.chunk * (16 * plan.parts + 3 * size) + 7 & -8
    plan.bytes = plan.slot * (threads if plan.whole else norm.samples)


# The sum that rows are those of.


@jit
def add_up(plan, start, stop, like):
    """total = x + addend, of the values start..stop."""
    norm = plan.norm
    x, addend, total = pointer(plan.summand, like), pointer(norm.addend, like), pointer(norm.total, like)
    for i in range(start, stop):
        total[i] = x[i] + addend[i]


# Steps: `whole`, all of some domains; or in three phases the moments of parts, the coefficients, and y.


@jit
def simple_rows(plan, d, stop, x, y):
    """Domains of one block each, with weight and bias along them or none, in dense memory."""
    apart()
    norm, n, buffer = plan.norm, plan.size, stack(2048, x[0])
    size, kind, along = float(n), type(x[0]), norm.along and plan.weight
    known_mean, known_var = pointer(norm.mean, 0.0), pointer(norm.var, 0.0)
    group = d % norm.groups
    for domain in range(d, stop):
        source, target = shifted(x, domain_at(plan, norm.x, domain)), shifted(y, domain_at(plan, norm.y, domain))
        k = start_of(plan, source, 0, n, buffer)
        if norm.statistic == ABOUT_ZERO:
            k = kind(0)
        s, q = block_sums(source, n, k)
        if norm.statistic == ABOUT_ZERO:
            s = 0.0
        mean, m2 = k + s / size, not_negative(q - s * (s / size))
        if 2 * s * s > size * q or left_range(x, q, size, plan.tiny):
            mean, m2 = part_moments(plan, source, np.intp(0), n, buffer)
        mean, var, rstd = settled(plan, x, domain, mean, m2 / size)
        if norm.mean:
            known_mean[domain], known_var[domain] = mean, var
        high, place = kind(mean), buffer if plan.finish else target
        scale, shift = kind(rstd), kind(-times(mean - high, rstd))
        if along:
            w = shifted(pointer(plan.weight, high), group * plan.step)
            apply_along(source, place, n, high, scale, shift, w, shifted(pointer(plan.bias, high), group * plan.step))
        else:
            apply_constant(source, place, n, high, scale, shift)
        if plan.finish:
            write(plan, carry_run, target, buffer, n, 1, n)
        group = group + 1 if group + 1 < norm.groups else 0


@jit
def given_rows(plan, d, stop, x, y):
    """Channels with given mean and variance in dense memory."""
    apart()
    norm, n, mean, var, table = plan.norm, plan.size, stack(64, 0.0), stack(64, 0.0), stack(192, x[0])
    while d < stop:
        channel = d % norm.groups
        some = min(64, stop - d, norm.groups - channel)
        for c in range(some):
            mean[c] = pointer(norm.mean, 0.0)[channel + c]
            var[c] = 1 / math.sqrt(pointer(norm.var, 0.0)[channel + c] + norm.eps)
        set_coefficients(plan, channel, some, 64, mean, var, table)
        for c in range(some):
            source, target = shifted(x, domain_at(plan, norm.x, d + c)), shifted(y, domain_at(plan, norm.y, d + c))
            apply_constant(source, target, n, table[c], table[64 + c], table[128 + c])
        d += some


@jit
def finish_domain(plan, p, d, moments):
    """From mean and M2 of the parts of a domain its mean and 1 / sqrt(var + eps), in place of the first."""
    norm = plan.norm
    known_mean, known_var = pointer(norm.mean, 0.0), pointer(norm.var, 0.0)
    if norm.statistic == GIVEN:
        moments[0], moments[1] = known_mean[d % norm.groups], 1 / math.sqrt(known_var[d % norm.groups] + norm.eps)
        return
    merge_tree(moments, plan.parts, plan.part, plan.size, np.intp(1))
    moments[0], var, moments[1] = settled(plan, p, d, moments[0], moments[1] / plan.size)
    if norm.mean:
        known_mean[d], known_var[d] = moments[0], var


@inlined
def apply_lines(plan):
    """Lines of a step of the apply."""
    return max(1, TILE // (plan.wide * plan.fold))


@jit
def steps_of(plan, phase):
    """How many steps a phase has; 0 if it is left out."""
    columns, samples = plan.kind == COLUMNS, plan.norm.samples
    if phase == SPREAD:
        return min(plan.spread, 1)
    if (phase == WHOLE) != (plan.whole != 0):
        return 0
    if phase == WHOLE:
        return samples * plan.chunks if columns else (plan.domains + plan.chunk - 1) // plan.chunk
    if phase == FINISH:
        return samples if columns else plan.domains
    if (phase == MOMENTS and plan.norm.statistic == GIVEN) or (phase == APPLY and not plan.norm.y.data):
        return 0
    if phase == APPLY and columns:
        tall = apply_lines(plan)
        return samples * ((plan.size // plan.fold + tall - 1) // tall)
    return (samples if columns else plan.domains) * plan.parts


@jit
def spread(plan, like):
    """Weight and bias as long as the positions they run along; 1 and 0 where there are none."""
    apart()
    norm, weight, bias = plan.norm, pointer(plan.weight, like), pointer(plan.bias, like)
    n = plan.spread // plan.repeated
    for i in range(n):
        weight[i] = pointer(norm.weight, like)[i] if norm.weight else 1
        bias[i] = pointer(norm.bias, like)[i] if norm.bias else 0
    spread_out(weight, n, plan.repeated, 1)
    spread_out(bias, n, plan.repeated, 1)
    return 0


def rows_of(zero, version):
    """Step i of a phase of a plan of rows."""

    def rows(address, phase, i, slot):
        _ = version  # so that Numba's cache, which looks at one file, asks for it
        plan = plan_at(address)
        if phase == SPREAD:
            return spread(plan, zero)
        x, y = pointer(plan.norm.x.data, zero), pointer(plan.norm.y.data, zero)
        if plan.simple:
            d, stop = i * plan.chunk, min((i + 1) * plan.chunk, plan.domains)
            if plan.norm.addend:
                add_up(plan, d * plan.size, stop * plan.size, zero)
            given_rows(plan, d, stop, x, y) if plan.norm.statistic == GIVEN else simple_rows(plan, d, stop, x, y)
            return 0
        norm, buffer, moments = plan.norm, stack(2048, x[0]), pointer(plan.scratch, 0.0)
        first, stop, part, parts = i // plan.parts, i // plan.parts + 1, i % plan.parts, 1
        if phase == FINISH:
            finish_domain(plan, x, i, shifted(moments, 2 * i * plan.parts))
            return 0
        if phase == WHOLE:
            first, stop, part, parts = i * plan.chunk, min((i + 1) * plan.chunk, plan.domains), 0, plan.parts
        if norm.addend and phase <= MOMENTS:
            last = (stop - 1) * plan.size + min((part + parts) * plan.part, plan.size)
            add_up(plan, first * plan.size + part * plan.part, last, zero)
        for d in range(first, stop):
            here = shifted(moments, 2 * plan.parts * (slot if phase == WHOLE else d))
            source = shifted(x, domain_at(plan, norm.x, d))
            if phase != APPLY and norm.statistic != GIVEN:
                for p in range(part, part + parts):
                    to = min((p + 1) * plan.part, plan.size)
                    here[2 * p], here[2 * p + 1] = part_moments(plan, source, p * plan.part, to, buffer)
            if phase == WHOLE:
                finish_domain(plan, x, d, here)
            if phase != MOMENTS and norm.y.data:
                target, to = shifted(y, domain_at(plan, norm.y, d)), min((part + parts) * plan.part, plan.size)
                apply_rows(plan, source, target, d, part * plan.part, to, here[0], here[1], buffer)
        return 0

    return rows


def columns_of(zero, version):
    """Step i of a phase of a plan of columns."""

    def columns(address, phase, i, slot):
        _ = version
        plan = plan_at(address)
        if phase == SPREAD:
            return spread(plan, zero)
        x, y = pointer(plan.norm.x.data, zero), pointer(plan.norm.y.data, zero)
        norm, buffer, like = plan.norm, stack(4096, x[0]), x[0]
        lines, all_columns = plan.size // plan.fold, plan.wide * plan.fold
        if phase == WHOLE:
            sample, column, part, parts = i // plan.chunks, i % plan.chunks * plan.chunk, 0, plan.parts
        elif phase == MOMENTS:
            sample, column, part, parts, slot = i // plan.parts, 0, i % plan.parts, 1, i // plan.parts
        else:
            sample, column, part, parts, slot = i, 0, 0, 0, i
        if phase == APPLY:
            tall = apply_lines(plan)
            steps = (lines + tall - 1) // tall
            sample, part, slot = i // steps, i % steps * tall, i // steps
        n = min(plan.chunk, all_columns - column)
        source = shifted(x, sample * norm.x.sample)
        target = shifted(y, sample * norm.y.sample)
        moments = pointer(plan.scratch + slot * plan.slot, 0.0)
        table = pointer(plan.scratch + slot * plan.slot + plan.chunk * 16 * plan.parts, like)
        if norm.statistic != GIVEN:
            for p in range(part, part + parts if phase <= MOMENTS else part):
                here = shifted(moments, 2 * p * n)
                for c in range(0, n, lanes(x)):
                    some, to = min(lanes(x), n - c), min((p + 1) * plan.part, lines)
                    mean, m2 = shifted(here, c), shifted(here, n + c)
                    tile_moments(plan, source, plan.dense_x, p * plan.part, to, column + c, some, mean, m2, buffer)
        if phase in (WHOLE, FINISH):
            if norm.statistic != GIVEN:
                merge_tree(moments, plan.parts, plan.part, lines, n)
            finish_columns(plan, source, sample, column, n, moments, table, buffer)
            if plan.size % plan.fold and norm.y.data:
                m = plan.size % plan.fold * plan.wide
                apply_columns(plan, source, target, lines, lines + 1, column, m, table, n, buffer)
        if phase == WHOLE and norm.y.data:
            apply_columns(plan, source, target, part, lines, column, n, table, n, buffer)
        elif phase == APPLY:
            apply_columns(plan, source, target, part, min(part + tall, lines), column, n, table, n, buffer)
        return 0

    return columns


def short_of(zero, version):
    """Step i of a phase of a plan of short domains, a vector of them at a time."""

    def short(address, phase, i, slot):
        _ = version
        plan = plan_at(address)
        if phase == SPREAD:
            return spread(plan, zero)
        x, y = pointer(plan.norm.x.data, zero), pointer(plan.norm.y.data, zero)
        norm, size, wide, like = plan.norm, plan.size, lanes(x), zeros(x, x[0])
        block, weights, biases = stack(1280, x[0]), stack(1280, x[0]), stack(1280, x[0])
        mean, m2, table = stack(64, 0.0), stack(64, 0.0), stack(192, x[0])
        along, weight, bias = norm.along and plan.weight, pointer(plan.weight, x[0]), pointer(plan.bias, x[0])
        start = d = i * plan.chunk
        stop = min(start + plan.chunk, plan.domains)
        if norm.addend:
            add_up(plan, start * size, stop * size, zero)
        while d < stop:
            n = min(wide, stop - d)
            if along and (d == start or wide % norm.groups):
                for j in range(n):
                    at = (d + j) % norm.groups * plan.step
                    for i in range(size):
                        weights[i * wide + j], biases[i * wide + j] = weight[at + i], bias[at + i]
            if n < wide:
                clear(block, size * wide)
            transpose(plan, x, block, READ, norm.x, plan.values.x, plan.dense_x, d, n)
            tile_moments(plan, block, wide, np.intp(0), size, np.intp(0), n, mean, m2, block)
            for j in range(n):
                mean[j], var, m2[j] = settled(plan, x, d + j, mean[j], m2[j] / size)
                if norm.mean:
                    pointer(norm.mean, 0.0)[d + j], pointer(norm.var, 0.0)[d + j] = mean[j], var
            set_coefficients(plan, np.intp(0), n, n, mean, m2, table)
            high, scale, shift = (
                load_some(table, 0, n, like),
                load_some(table, n, n, like),
                load_some(table, 2 * n, n, like),
            )
            for i in range(0, size * wide, wide):
                z = fma(sub(load(block, i, like), high), scale, shift)
                if along:
                    z = fma(z, load(weights, i, like), load(biases, i, like))
                store_some(block, i, n, z)
            if norm.y.data:
                write(plan, transpose, y, block, size * wide, norm.y, plan.values.y, plan.dense_y, d, n)
            d += n
        return 0

    return short


STEPS = rows_of, columns_of, short_of  # of each kind


@functools.partial(numba.njit, parallel=True, nogil=True, error_model="numpy", no_cpython_wrapper=True)
def parallel_steps(step, plan, phase, steps):
    """All steps of a phase, by all threads."""
    for i in numba.prange(steps):
        call(step, plan, phase, np.intp(i), thread_id())


def share_of(version):
    """Take all steps of a phase, on up to `threads` threads: those that Numba has, and no more regions than it can."""

    def share(step, plan, phase, steps, threads):
        _ = version
        memory, before = pointer(state(), 0), get_threads()
        threads = min(threads, memory[MOST_THREADS])
        if threads > 1 and (memory[REGIONS] == ANY or exchange(memory, REGIONS, FREE, TAKEN)):
            set_threads(threads)
            parallel_steps(step, plan, phase, steps)
            set_threads(before)
            exchange(memory, REGIONS, TAKEN, FREE)
        else:
            for i in range(steps):
                call(step, plan, phase, i, 0)
        return 0

    return share


@inlined
def compiled(index):
    """The address of one of the functions in the state, compiled now if it isn't yet."""
    memory = pointer(state(), 0)
    if memory[index] == 0:
        call(memory[COMPILE], index)
    return memory[index]


def forward_of(version):
    """`KernelSet.forward`."""

    def forward(address, threads):
        _ = version
        norm, words = pointer(address, 0), stack(PLAN_WORDS, 0)
        for i in range(NORM_WORDS):
            words[i] = norm[i]
        here = address_of(words)
        plan = plan_at(here)
        plan.summand = plan.norm.x.data
        if plan.norm.addend:
            plan.norm.x.data = plan.norm.total
        if 0 < plan.norm.activation < FUNCTION:
            plan.norm.function = compiled(ACTIVATE + plan.norm.element * ACTIVATIONS + plan.norm.activation)
        make_plan(plan, threads)
        size = 8 if plan.norm.element else 4
        step = compiled(plan.norm.element * KINDS + plan.kind)
        plan.scratch = malloc(plan.bytes + 2 * plan.spread * size)
        if plan.scratch == 0 or step == 0 or (plan.norm.activation and plan.norm.function == 0):
            return -1
        plan.weight, plan.bias = plan.norm.weight, plan.norm.bias
        if plan.spread:
            plan.weight = plan.scratch + plan.bytes
            plan.bias = plan.weight + plan.spread * size
        for phase in range(PHASES):
            steps = steps_of(plan, phase)
            if threads == 1 or steps <= 1 or (phase == FINISH and plan.kind == ROWS):
                for i in range(steps):
                    call(step, here, phase, i, 0)
            else:
                call(compiled(SHARE), step, here, phase, steps, threads)
        free(plan.scratch)
        return 0

    return forward
