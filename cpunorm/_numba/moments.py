"""Mean and variance.  The numerics are those of the Cython kernels (the header of `_kernels.pyx` says why they hold).

In a part of a domain d = x - k is summed, s = sum d and q = sum d^2, in chains of at most CHAIN values of the input's
type, chains in pairs, the rest in float64; then mean = k + s/n and M2 = q - s^2/n.  k is the mean of the first values,
bettered where it is badly placed; what left the range of the type is done again in float64.  Parts are merged in a
fixed tree (Chan et al.).
"""

import math

import numpy as np

from cpunorm._numba.lanes import (
    add,
    apart,
    first,
    fma,
    inlined,
    itemsize,
    jit,
    lanes,
    load,
    load_first,
    load_some,
    pointer,
    shifted,
    stack,
    store,
    sub,
    sum_of,
    vector,
    widened,
    zeros,
)
from cpunorm._numba.plan import ABOUT_ZERO, BLOCK, CHAIN, LARGEST, TALL, domain_at
from cpunorm._numba.walk import READ, clear, lines_at, move, place_of

__all__ = [
    "ROW_LIMIT",
    "block_sums",
    "left_range",
    "merge",
    "merge_folds",
    "merge_group",
    "merge_tree",
    "not_negative",
    "part_moments",
    "settled",
    "start_of",
    "tile_moments",
]

ROW_LIMIT, COLUMN_LIMIT = 5.0, 4.0  # k is badly placed where so many times s^2 > n q
LEAST_VAR, MOST_VAR = 1e-280, 1.7e308  # where squares of float64 keep their digits


# Of rows.


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
    if ROW_LIMIT * s * s > (probe - start) * q:
        k += type(k)(s / (probe - start))
        s, q = sums(plan, x, start, probe, k, buffer)
    if probe < stop:
        more, squares = sums(plan, x, probe, stop, k, buffer)
        s, q = s + more, q + squares
        if ROW_LIMIT * s * s > n * q:
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


# Of columns.


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
def bettered(shift, total, squares, n, columns):
    """Move the shifts that are badly placed; how many were."""
    moved = 0
    for c in range(columns):
        if COLUMN_LIMIT * total[c] * total[c] > n * squares[c]:
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
    number, like = 1, zeros(x, x[0])
    while number < 32 and 2 * number <= stop - start:  # a power of 2, by which division is exact
        number *= 2
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
