"""y from x and the moments: coefficients, and the formula."""

import math

import numpy as np

from cpunorm._numba.lanes import (
    apart,
    fma,
    inlined,
    jit,
    lanes,
    load_some,
    pointer,
    shifted,
    store_some,
    sub,
    vector,
    zeros,
)
from cpunorm._numba.moments import merge, merge_folds, merge_group, settled
from cpunorm._numba.plan import BLOCK, GIVEN
from cpunorm._numba.walk import carry_run, copy, following, lines_at, pack_lines, place_of, write

__all__ = [
    "apply_along",
    "apply_columns",
    "apply_constant",
    "apply_rows",
    "finish_columns",
    "scaled",
    "set_coefficients",
    "spread",
    "times",
]

LOW = 16  # lines that a tile of columns is applied to before its neighbour: what lies behind each other is read so


@inlined
def scaled(value, high, scale, shift):
    """The formula of y, before a weight and bias along positions."""
    return fma(sub(value, high), scale, shift)


@inlined
def apply_constant(x, y, n, high, scale, shift):
    """y = (x - high) * scale + shift."""
    mean, factor, term = vector(x, high), vector(x, scale), vector(x, shift)
    for i in range(0, n, lanes(x)):
        z = scaled(load_some(x, i, n - i, mean), mean, factor, term)
        store_some(y, i, n - i, z)


@inlined
def apply_along(x, y, n, high, scale, shift, weight, bias):
    """y = ((x - high) * scale + shift) * weight + bias, these two along the line."""
    mean, factor, term = vector(x, high), vector(x, scale), vector(x, shift)
    for i in range(0, n, lanes(x)):
        z = scaled(load_some(x, i, n - i, mean), mean, factor, term)
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


@jit
def finish_columns(plan, x, sample, column, n, moments, table, buffer):
    """From mean and M2 of n columns, which are whole groups, mean and rstd of these, and the columns' coefficients."""
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
                z = scaled(load_some(source, i * gap, m, like), high, scale, shift)
                if along:
                    z = fma(z, vector(x, weight[line + i]), vector(x, bias[line + i]))
                store_some(target, i * y_gap, kept, z)
            if packed:
                write(plan, pack_lines, y, buffer, number * lanes(x), line, number, column + c, some)


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
