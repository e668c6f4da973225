"""Statistics in Numba: each slice as a row of float64, summed in two parts, block by block.

Two reads of a block, its sum and the squares about its mean, and Chan's merge of blocks: as in kernels/statistics.h,
without its quick sums; by vectors where all values count.  On one thread; what doesn't lie as a row is copied.
"""

import math

import numba
import numpy as np

from cpunorm._kernels_reference import window
from cpunorm._numba.lanes import (
    add,
    first,
    fma,
    greater,
    lanes,
    lesser,
    load,
    load_first,
    pointer,
    stack,
    store,
    sub,
    vector,
    zeros,
)

__all__ = ["moments", "slide", "standardize"]

BLOCK = 4096  # values that are read twice from cache


def jit(function):
    """Compile through Numba's cache on disk, if there is a place for one."""
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(function, cache=True, **options)
    except RuntimeError:
        return numba.njit(function, **options)


@jit
def two_sum(a, b):
    """a + b and what its rounding left."""
    total = a + b
    moved = total - a
    return total, (a - (total - moved)) + (b - moved)


@jit
def two_product(a, b):
    """a * b and what its rounding left (Dekker, 1971)."""
    big = 134217729.0
    product, moved_a, moved_b = a * b, big * a, big * b
    a_high, b_high = moved_a - (moved_a - a), moved_b - (moved_b - b)
    a_low, b_low = a - a_high, b - b_high
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


@jit
def clear(record):
    """The record of no values."""
    record[:5], record[5], record[6] = 0, np.inf, -np.inf


@jit
def merge_block(record, count, mean, rest, squares, squares_low, least, most):
    """Merge a block of `count` values with the mean `mean` + `rest` into the record of a slice."""
    mean, rest = two_sum(mean, rest)
    n, both = record[0], record[0] + count
    if n == 0:
        record[0], record[1], record[2] = count, mean, rest
        record[3], record[4] = two_sum(squares, squares_low)
        record[5], record[6] = least, most
        return
    d, d_low = two_sum(mean, -record[1])
    d, d_low = two_sum(d, d_low + (rest - record[2]))
    share = count / both
    product, product_low = two_product(share, both)
    share_low = ((count - product) - product_low) / both
    moved, moved_low = two_product(d, share)
    high, left = two_sum(record[1], moved)
    left += record[2] + moved_low + d * share_low + d_low * share
    record[0] = both
    record[1], record[2] = two_sum(high, left)
    between, between_low = two_product(d, d)
    weight, weight_low = two_product(n, share)
    term, term_low = two_product(between, weight)
    term_low += between * (weight_low + n * share_low) + (between_low + 2 * d * d_low) * weight
    squares, left = two_sum(squares, record[3])
    total, more = two_sum(squares, term)
    record[3], record[4] = two_sum(total, left + more + term_low + squares_low + record[4])
    record[5], record[6] = min(record[5], least), max(record[6], most)


@jit
def row_moments(high, low, chosen, record):
    """The record of one row of values high + low, of those that are chosen."""
    for start in range(0, len(high), BLOCK):
        stop = min(start + BLOCK, len(high))
        count, total, rest, least, most, nan = 0.0, 0.0, 0.0, np.inf, -np.inf, False
        for i in range(start, stop):
            if chosen[i]:
                total, left = two_sum(total, high[i])
                rest += left
                total, left = two_sum(total, low[i])
                rest += left
                value = high[i] + low[i]
                least, most, nan = min(least, value), max(most, value), nan or value != value
                count += 1
        if count == 0:
            continue
        if total - total != 0:
            record[0] += count
            record[1] += total
            record[2], record[3], record[4] = 0, np.nan, 0
            record[5], record[6] = (np.nan, np.nan) if nan else (min(record[5], least), max(record[6], most))
            continue
        mean, squares, lost = (total + rest) / count, 0.0, 0.0
        product, product_low = two_product(mean, count)
        rest = ((total - product) - product_low + rest) / count
        for i in range(start, stop):
            if chosen[i]:
                d = (high[i] - mean) + (low[i] - rest)
                square, left = two_product(d, d)
                lost += left
                squares, left = two_sum(squares, square)
                lost += left
        if record[1] - record[1] != 0:
            record[0] += count
            continue
        if squares - squares != 0:
            squares, lost = np.inf, 0.0
        merge_block(record, count, mean, rest, squares, lost, least, most)


@jit
def joined(totals, rests, number):
    """The sum of so many lanes, each in two parts."""
    room = stack(128, 0.0)  # of two vectors
    store(room, 0, totals)
    store(room, 64, rests)
    total, rest = room[0], room[64]
    for i in range(1, number):
        total, left = two_sum(total, room[i])
        rest += room[64 + i] + left
    return total, rest


@jit
def added(total, rest, values):
    """`two_sum` of vectors, what is left added to `rest`."""
    both = add(total, values)
    moved = sub(both, total)
    return both, add(rest, add(sub(total, sub(both, moved)), sub(values, moved)))


@jit
def plain_moments(row, record):
    """`row_moments` of values that all count, by vectors; False if one is not finite, or squares left the range."""
    values = pointer(np.intp(row.ctypes.data), 0.0)
    wide, zero, big = lanes(values), zeros(values, 0.0), vector(values, 134217729.0)
    for start in range(0, len(row), BLOCK):
        n = min(BLOCK, len(row) - start)
        number = min(n, wide)
        total, rest, least, most = zero, zero, vector(values, np.inf), vector(values, -np.inf)
        for i in range(0, n - wide + 1, wide):
            v = load(values, start + i, zero)
            total, rest = added(total, rest, v)
            least, most = lesser(v, least), greater(v, most)
        tail = n % wide
        v = load_first(values, start + n - tail, tail, zero)
        total, rest = added(total, rest, v)
        room = stack(128, 0.0)
        store(room, 0, least)
        store(room, 64, most)
        low, high = np.inf, -np.inf
        for i in range(wide if n >= wide else 0):
            low, high = min(low, room[i]), max(high, room[64 + i])
        for i in range(start + n - tail, start + n):
            low, high = min(low, values[i]), max(high, values[i])
        one, left = joined(total, rest, number)
        if one - one != 0:
            return False
        mean = (one + left) / n
        product, product_low = two_product(mean, float(n))
        mean_low = ((one - product) - product_low + left) / n
        centre, centre_low = vector(values, mean), vector(values, mean_low)
        total, rest = zero, zero
        for i in range(0, n, wide):
            if i + wide <= n:
                d = sub(sub(load(values, start + i, zero), centre), centre_low)
            else:
                d = first(sub(sub(load_first(values, start + i, tail, zero), centre), centre_low), tail)
            square, moved = fma(d, d, zero), fma(big, d, zero)
            part = sub(moved, sub(moved, d))
            lost = sub(d, part)
            total, rest = added(total, rest, square)
            lost = fma(lost, lost, fma(add(part, part), lost, fma(part, part, sub(zero, square))))
            rest = add(rest, lost)
        squares, left = joined(total, rest, number)
        if squares - squares != 0:
            return False
        merge_block(record, float(n), mean, mean_low, squares, left, low, high)
    return True


@jit
def all_moments(high, low, chosen, records):
    """The moments of all rows."""
    for row in range(len(high)):
        clear(records[row])
        row_moments(high[row], low[row], chosen[row], records[row])


@jit
def all_plain_moments(high, records):
    """The same of values that all count and have no low part; how many rows, of count 0, are left to `row_moments`."""
    left = 0
    for row in range(len(high)):
        clear(records[row])
        if not plain_moments(high[row], records[row]):
            clear(records[row])
            left += 1
    return left


def moments(x, axes, where, omit):
    """The record (7, *kept) of an array; see `_kernels_reference.moments`."""
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    lengths = [x.shape[axis] for axis in kept]
    size = x.size // max(math.prod(lengths), 1)

    def rows(array, dtype):
        return np.ascontiguousarray(array.transpose(*kept, *axes), dtype).reshape(-1, size)

    high = rows(x, np.float64)
    records = np.empty((len(high), 7))
    wide = x.dtype.itemsize == 8 and x.dtype.kind != "f"  # integers that a float64 can't hold
    left = slice(None)
    if not (wide or omit or where is not None):
        if not all_plain_moments(high, records):
            return records.T.reshape(7, *lengths)
        left = records[:, 0] == 0
    high = high[left]
    low = (rows(x, np.longdouble) - high).astype(np.float64) if wide else np.broadcast_to(0.0, high.shape)
    chosen = np.broadcast_to(True, high.shape) if where is None else rows(where, np.bool)
    found = np.empty((len(high), 7))
    all_moments(high, low, chosen & (high == high) if omit else chosen, found)
    found[np.isfinite(found[:, 1]) & ~np.isfinite(found[:, 3]), 3:5] = np.inf, 0  # squares beyond float64
    records[left] = found
    return records.T.reshape(7, *lengths)


@jit
def standardize_rows(z, mean, scale, shift, least, most):
    """Each row of z about its mean, by its scale, clipped."""
    for row in range(len(z)):
        for i in range(z.shape[1]):
            value = (z[row, i] - mean[row]) * scale[row] + shift[row]
            z[row, i] = least if value < least else most if value > most else value


def standardize(x, axes, mean, scale, shift, least, most, y):
    """y = (x - mean) * scale + shift, clipped; see `_kernels_reference.standardize`."""
    order = [axis for axis in range(x.ndim) if axis not in axes] + list(axes)
    z = np.array(x.transpose(order), np.float64, order="C")
    standardize_rows(z.reshape(mean.size, -1), mean.ravel(), scale.ravel(), shift.ravel(), least, most)
    with np.errstate(all="ignore"):
        y.transpose(order)[...] = z


window = jit(window)


@jit
def slide_rows(rows, length, least, centred, scaled, z):
    """The windows along each row; a window's moments are taken anew for each frame."""
    frames = rows.shape[1]
    low, chosen = np.zeros(frames), np.ones(frames, np.bool_)
    record = np.empty(7)
    for x, y in zip(rows, z):  # noqa: B905 - Numba's has no strict
        for frame in range(frames):
            first, last = window(frame, frames, length, least, centred)
            clear(record)
            row_moments(x[first:last], low[first:last], chosen[first:last], record)
            y[frame] = (x[frame] - record[1]) - record[2]
            if scaled:
                y[frame] = 0 if record[3] == 0 else y[frame] / np.sqrt(record[3] / record[0])


def slide(x, axis, length, least, centred, scaled, y):
    """y = x about, and by the deviation of, windows along `axis`; see `_kernels_reference.slide`."""
    rows = np.array(np.moveaxis(x, axis, -1), np.float64, order="C")
    z = np.empty_like(rows)
    slide_rows(rows.reshape(-1, x.shape[axis]), length, least, centred, scaled, z.reshape(-1, x.shape[axis]))
    with np.errstate(all="ignore"):
        np.moveaxis(y, axis, -1)[...] = z
