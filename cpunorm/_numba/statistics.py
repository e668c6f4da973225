"""Statistics in Numba: each slice as a row of float64, summed in two parts, block by block.

Two reads of a block, its sum and the squares about its mean, and Chan's merge of blocks: as in kernels/statistics.h,
without its quick sums.  On one thread; what doesn't lie as a row is copied.
"""

import numba
import numpy as np

from cpunorm._kernels_reference import window

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
def all_moments(high, low, chosen, records):
    """`row_moments` of all rows."""
    for row in range(len(high)):
        row_moments(high[row], low[row], chosen[row], records[row])


def moments(x, axes, where, omit):
    """The record (7, *kept) of an array; see `_kernels_reference.moments`."""
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    lengths = [x.shape[axis] for axis in kept]
    size = x.size // max(int(np.prod(lengths)), 1)

    def rows(array, dtype):
        return np.ascontiguousarray(array.transpose(*kept, *axes), dtype).reshape(-1, size)

    high = rows(x, np.float64)
    wide = x.dtype.itemsize == 8 and x.dtype.kind != "f"  # integers that a float64 can't hold
    low = (rows(x, np.longdouble) - high).astype(np.float64) if wide else np.zeros_like(high)
    chosen = np.ones(high.shape, np.bool) if where is None else rows(where, np.bool)
    if omit:
        chosen = chosen & (high == high)
    records = np.zeros((len(high), 7))
    records[:, 5], records[:, 6] = np.inf, -np.inf
    all_moments(high, low, chosen, records)
    records[np.isfinite(records[:, 1]) & ~np.isfinite(records[:, 3]), 3:5] = np.inf, 0  # squares beyond float64
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
            record[:5], record[5], record[6] = 0, np.inf, -np.inf
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
