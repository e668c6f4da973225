"""What is compiled for each element and kind of plan: one step of a phase."""

import math

import numpy as np

from cpunorm._numba.apply import (
    apply_along,
    apply_columns,
    apply_constant,
    apply_rows,
    finish_columns,
    scaled,
    set_coefficients,
    spread,
    times,
)
from cpunorm._numba.lanes import (
    add,
    apart,
    fma,
    jit,
    lanes,
    load,
    load_some,
    pointer,
    shifted,
    stack,
    store_some,
    zeros,
)
from cpunorm._numba.moments import (
    ROW_LIMIT,
    block_sums,
    left_range,
    merge_tree,
    not_negative,
    part_moments,
    settled,
    start_of,
    tile_moments,
)
from cpunorm._numba.plan import (
    ABOUT_ZERO,
    APPLY,
    FINISH,
    GIVEN,
    MOMENTS,
    SPREAD,
    WHOLE,
    apply_lines,
    domain_at,
    plan_at,
)
from cpunorm._numba.walk import READ, carry_run, clear, transpose, write

__all__ = ["STEPS"]


@jit
def add_up(plan, start, stop, like):
    """total = x + addend, of the values start..stop."""
    norm = plan.norm
    x, addend, total = pointer(plan.summand, like), pointer(norm.addend, like), pointer(norm.total, like)
    zero = zeros(x, like)
    for i in range(start, stop, lanes(x)):
        n = stop - i
        store_some(total, i, n, add(load_some(x, i, n, zero), load_some(addend, i, n, zero)))


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
        elif ROW_LIMIT * s * s > size * q:
            k += kind(s / size)
            s, q = block_sums(source, n, k)
        mean, m2 = k + s / size, not_negative(q - s * (s / size))
        if left_range(x, q, size, plan.tiny):
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
        norm, buffer = plan.norm, stack(2048, x[0])
        first, stop, part, parts = i // plan.parts, i // plan.parts + 1, i % plan.parts, 1
        if phase == FINISH:
            finish_domain(plan, x, i, pointer(plan.scratch + i * plan.slot, 0.0))
            return 0
        if phase == WHOLE:
            first, stop, part, parts = i * plan.chunk, min((i + 1) * plan.chunk, plan.domains), 0, plan.parts
        if norm.addend and phase <= MOMENTS:
            last = (stop - 1) * plan.size + min((part + parts) * plan.part, plan.size)
            add_up(plan, first * plan.size + part * plan.part, last, zero)
        for d in range(first, stop):
            here = pointer(plan.scratch + (slot if phase == WHOLE else d) * plan.slot, 0.0)
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
                z = scaled(load(block, i, like), high, scale, shift)
                if along:
                    z = fma(z, load(weights, i, like), load(biases, i, like))
                store_some(block, i, n, z)
            if norm.y.data:
                write(plan, transpose, y, block, size * wide, norm.y, plan.values.y, plan.dense_y, d, n)
            d += n
        return 0

    return short


STEPS = rows_of, columns_of, short_of  # of each kind
