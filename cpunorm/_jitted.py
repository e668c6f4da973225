"""What Numba compiles: the loops of `_kernels_numba`, one body for float32 and float64.

The numerics are those of the Cython kernels, and the header of `_kernels.pyx` says why they hold: blocks of shifted
sums in the input's type, merged in float64 by Chan's update; float32 blocks whose squares left the range done again in
float64; the mean applied in two parts; a domain cut into parts by its shape alone, the parts merged in a fixed tree.

What differs is who makes vectors: LLVM does, of the plain loops below. For a sum it needs leave to reorder the
additions, `REASSOCIATE`; the flag sits on each instruction, so the subtraction of the shift, in `less`, lacks it and
stays as written. A loop over several arrays is vectorised behind a check, made when it runs, that they don't overlap,
which an array normalised in place never passes: such loops come twice.

An array is seen as lines, (i, j, k, length): `channels_first` as (outer, channels, middle, inner), `channels_last` as
(outer, middle, inner, channels), rows as (outer, middle, 1, width). A domain is what shares its moments.

Against the Cython kernels (turn by turn, AVX-512, two cores) calls take 1.05 to 1.25 times as long on one thread, up to
1.45 on two, where lines are long: a call's way through Python and Numba's start of a team are 20 to 30 us of that. They
take longer where Cython does what Numba can't say: 1.5 to 1.8 times for rows of 768, each of which ends in a division
and a square root that wait; 1.4 to 2.5 for lines of some 50 values, whose last vector Cython masks and for which it
steps through memory without a slice each; 1.3 to 1.9 in channels_last training of few lines, for it keeps the sums in
registers.

All of it is in one file because Numba's cache on disk looks at no other when it asks whether a kernel has changed.
"""

import functools
import math

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array
from numpy.lib.stride_tricks import as_strided

__all__ = ["OPTIONS", "normalize_domains", "normalize_given", "normalize_lines"]

CONTRACT = {"contract"}  # a * b + c in one rounding: the only liberty that the shift and the two-part mean survive
REASSOCIATE = CONTRACT | {"reassoc", "nsz"}  # a sum in any order; for `shifted_sum` and `shifted_squares` alone

OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": CONTRACT}
jit = functools.partial(numba.njit, **OPTIONS, no_cpython_wrapper=True, no_cfunc_wrapper=True)  # not called by Python
inlined = functools.partial(jit, forceinline=True)  # what a short line would spend more time to call than to run

VECTORS = 64  # values that LLVM takes at once, at most
BLOCK = 2048  # values that are summed in their own type before they are merged in float64
ROWS = 64  # the same in channels_last, where each channel is summed by itself
PART = 65536  # values of a part: what one thread takes of a domain that several share
STEP = 256  # values of a line for which memory is fetched ahead at once
AHEAD = 4096  # bytes ahead to fetch: hardware's own prefetch stops at the end of a page of this size
FOLDED = 512  # values of a channels_last line, if lines of few channels can be walked as one
TINY, LARGEST = 1e-36, float(np.finfo(np.float32).max)  # of a mean and a sum of squares that kept their digits


def _view(array, layout):
    """Signature and code of an intrinsic that gives `array` another type and no owner."""
    signature = types.Array(array.dtype, array.ndim, layout, readonly=not array.mutable)(array)

    def code(context, builder, signature, arguments):
        view = make_array(signature.return_type)(context, builder, arguments[0])
        view.meminfo = cgutils.get_null_value(view.meminfo.type)
        view.parent = cgutils.get_null_value(view.parent.type)
        return view._getvalue()

    return signature, code


@intrinsic
def borrowed(typing_context, array):
    """An argument without its reference count, which threads that slice it would write to by turns, slowly."""
    return _view(array, array.layout)


@intrinsic
def dense(typing_context, line):
    """A borrowed line whose elements follow each other, with that said in its type."""
    return _view(line, "C")


def _prefetch(write):
    """An intrinsic that fetches the cache line of one element of a line, there or past its end."""

    def intrinsic_of(typing_context, line, index):
        def code(context, builder, signature, arguments):
            data = make_array(signature.args[0])(context, builder, arguments[0]).data
            address = builder.gep(data, [arguments[1]])
            flag = ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [address.type, flag, flag, flag])
            prefetch = builder.module.declare_intrinsic("llvm.prefetch", (address.type,), kind)
            builder.call(prefetch, [address, flag(write), flag(3), flag(1)])
            return context.get_dummy_value()

        return types.void(line, types.intp), code

    return intrinsic(intrinsic_of)


prefetch_read, prefetch_write = _prefetch(0), _prefetch(1)


@inlined
def fetch(x, y, start, stop):
    """Fetch the values start..stop of two dense lines, those of y to be written."""
    for i in range(start, stop, 64 // x.itemsize):
        prefetch_read(x, i)
        prefetch_write(y, i)


@inlined
def is_dense(line):
    """Whether the elements of `line` follow each other."""
    return line.strides[0] == line.itemsize


# Which lines, and how they are cut.


@inlined
def line_count(x):
    """How many lines x has."""
    return x.shape[0] * x.shape[1] * x.shape[2]


@inlined
def place(x, index):
    """(i, j, k) of a line of x."""
    if index == 0:
        return 0, 0, 0  # most often; divisions take as long as a short line
    return index // x.shape[2] // x.shape[1], index // x.shape[2] % x.shape[1], index % x.shape[2]


@inlined
def following(x, i, j, k):
    """The place after (i, j, k), without the divisions of `place`."""
    k += 1
    if k == x.shape[2]:
        k = 0
        j += 1
        if j == x.shape[1]:
            j = 0
            i += 1
    return i, j, k


@jit
def cut(lines, length):
    """How lines are cut: (parts, parts that share a line, lines of a part, values of a line in a part)."""
    along = (length + PART - 1) // PART
    part_lines = max(1, PART // length) if along == 1 else 1
    return along * ((lines + part_lines - 1) // part_lines), along, part_lines, (length + along - 1) // along


@inlined
def part_of(x, pieces, part):
    """The lines first..last and the values start..stop of them in one part of x, cut into `pieces`."""
    parts, along, lines, length = pieces
    if parts == 1:
        return 0, line_count(x), 0, x.shape[3]
    first, start = part // along * lines, part % along * length
    return first, min(first + lines, line_count(x)), start, min(start + length, x.shape[3])


@inlined
def domain(x, outer, channels, sample, group):
    """The lines of a domain of x, channels_first: `outer` i of each sample, `channels` j of each group."""
    return x[sample * outer : (sample + 1) * outer, group * channels : (group + 1) * channels]


# Moments: (count, mean, m2) in float64.


@inlined
def less(x, shift):
    """x - shift, not to be reordered."""
    return x - shift


@inlined(fastmath=REASSOCIATE)
def shifted_sum(x, shift):
    """Sum d with d = x - shift."""
    total = x.dtype.type(0)
    for i in range(x.size):
        total += less(x[i], shift)
    return total


@inlined(fastmath=REASSOCIATE)
def shifted_squares(x, shift):
    """Sum d and sum d^2 with d = x - shift."""
    total = squares = x.dtype.type(0)
    for i in range(x.size):
        d = less(x[i], shift)
        total += d
        squares += d * d
    return total, squares


@inlined
def out_of_range(squares, n):
    """Whether a float32 sum of n squares overflowed, or underflowed so far that digits are lost."""
    return not (n * TINY <= squares <= LARGEST)


@jit
def exact_moments(x):
    """Two passes in float64; constant values, the usual reason to be here, in one."""
    different = 0
    for value in x:
        different += value != x[0]
    if different == 0:
        return float(x.size), float(x[0]), float(x[0] - x[0])  # NaN for Inf
    mean = m2 = 0.0
    for value in x:
        mean += value
    mean /= x.size
    for value in x:
        m2 += (value - mean) ** 2
    return float(x.size), mean, m2


@inlined
def difference(a, b):
    """a - b; 0 for two equal infinities."""
    return 0.0 if a == b else a - b


@inlined
def merge(a, b):
    """a and b together: Chan's update."""
    if a[0] == 0:
        return b
    count = a[0] + b[0]
    share, delta = b[0] / count, difference(b[1], a[1])
    return count, a[1] + delta * share, a[2] + (b[2] + delta * delta * (a[0] * share))


@jit
def merge_tree(parts):
    """All rows (count, mean, m2) of `parts`, merged pairwise in an order that depends on their number alone."""
    parts = borrowed(parts)
    step = 1
    while step < len(parts):
        for i in range(0, len(parts) - step, 2 * step):
            a, b = parts[i], parts[i + step]
            a[0], a[1], a[2] = merge((a[0], a[1], a[2]), (b[0], b[1], b[2]))
        step *= 2
    return parts[0, 0], parts[0, 1], parts[0, 2]


@jit
def add_block(moments, x):
    """`moments` and those of the dense block x together."""
    kind, n = x.dtype.type, float(x.size)
    shift = kind(moments[1])
    if moments[0] < n:  # the mean of fewer values is no good estimate
        sample = x[: min(x.size, max(VECTORS, x.size // 4 // VECTORS * VECTORS))]  # a quarter
        shift = x[0] + kind(shifted_sum(sample, x[0]) / sample.size)
    whole = x.size // VECTORS * VECTORS
    total, squares = shifted_squares(x[:whole], shift)
    # The rest by itself: LLVM adds it value by value, which to the sum of a whole block costs one rounding each.
    rest_total, rest_squares = shifted_squares(x[whole:], shift)
    total, squares = float(total) + rest_total, float(squares) + rest_squares
    if x.itemsize == 4 and out_of_range(squares, n):
        return merge(moments, exact_moments(x))
    mean, m2 = total / n, squares - total * (total / n)
    return merge(moments, (n, shift + mean, 0.0 if m2 < 0 else m2))


@jit
def copy(x, y):
    """y = x; y is dense."""
    if is_dense(x):
        source = dense(x)
        for i in range(y.size):
            y[i] = source[i]
    else:
        for i in range(y.size):
            y[i] = x[i]


@jit
def part_moments(x, pieces, part):
    """Moments of one part of the domain x; short or strided lines are gathered into blocks."""
    first, last, start, stop = part_of(x, pieces, part)
    i, j, k = place(x, first)
    moments = 0.0, 0.0, 0.0
    if is_dense(x[0, 0, 0]) and stop - start >= BLOCK // 4:
        for _ in range(first, last):
            line = dense(x[i, j, k])
            for at in range(start, stop, BLOCK):
                moments = add_block(moments, line[at : min(at + BLOCK, stop)])
            i, j, k = following(x, i, j, k)
        return moments
    block, filled = np.empty(min(BLOCK, (last - first) * (stop - start)), x.dtype), 0
    for _ in range(first, last):
        at = start
        while at < stop:
            n = min(block.size - filled, stop - at)
            copy(x[i, j, k, at : at + n], block[filled : filled + n])
            at += n
            filled += n
            if filled == block.size:
                moments = add_block(moments, block)
                filled = 0
        i, j, k = following(x, i, j, k)
    return add_block(moments, block[:filled]) if filled else moments


# Moments of every channel, channels_last: mean and m2 are float64 vectors.


@jit
def add_differences(x, shift, total):
    """Total += x - shift."""
    for c in range(total.size):
        total[c] += x[c] - shift[c]


@inlined
def add_squares(x, z, shift, total, squares):
    """Total += d and squares += d^2 with d = x - shift, and the same with the line z."""
    for c in range(total.size):
        d, e = x[c] - shift[c], z[c] - shift[c]
        total[c] += d + e
        squares[c] += d * d + e * e


@jit
def block_moments(shift, total, squares, n, mean, m2):
    """Mean and m2 of n lines from their sums; returns how many channels left the range of float32."""
    left = 0
    for c in range(mean.size):
        mean[c] = shift[c] + total[c] / n
        value = squares[c] - total[c] * (total[c] / n)
        m2[c] = 0.0 if value < 0 else value
        left += out_of_range(squares[c], n)
    return left if shift.itemsize == 4 else 0


@jit
def merge_lines(mean, m2, count, block_mean, block_m2, n):
    """Mean and m2 of `count` lines and those of n more together."""
    share = n / (count + n)
    for c in range(mean.size):
        delta = difference(block_mean[c], mean[c])
        mean[c] += delta * share
        m2[c] += block_m2[c] + delta * delta * (count * share)


@jit
def fill(x, value):
    """x = value; an assignment to a slice takes seconds to compile."""
    for i in range(x.size):
        x[i] = value


@jit
def lines_moments(x, first, stop, mean, m2):
    """Mean and m2 of the lines first..stop of x, in blocks of ROWS."""
    work, block = np.empty((3, mean.size), x.dtype), np.empty((2, mean.size))
    shift, total, squares = work[0], work[1], work[2]
    for start in range(first, stop, ROWS):
        n = min(ROWS, stop - start)
        i, j, k = place(x, start)
        fill(total, 0)
        if start == first:
            copy(dense(x[i, j, k]), shift)
            for _ in range(n):
                add_differences(dense(x[i, j, k]), shift, total)
                i, j, k = following(x, i, j, k)
            for c in range(shift.size):
                shift[c] += total[c] / x.dtype.type(n)
            fill(total, 0)
            i, j, k = place(x, start)
        else:
            copy(mean, shift)
        fill(squares, 0)
        for _ in range(n // 2):
            line = dense(x[i, j, k])
            i, j, k = following(x, i, j, k)
            add_squares(line, dense(x[i, j, k]), shift, total, squares)
            i, j, k = following(x, i, j, k)
        if n % 2:
            add_squares(dense(x[i, j, k]), shift, shift, total, squares)  # shift - shift adds nothing
        block_mean, block_m2 = (mean, m2) if start == first else (block[0], block[1])
        if block_moments(shift, total, squares, float(n), block_mean, block_m2):
            column = np.empty(n, x.dtype)
            for c in range(mean.size):
                if out_of_range(squares[c], float(n)):
                    for row in range(n):
                        i, j, k = place(x, start + row)
                        column[row] = x[i, j, k, c]
                    _, block_mean[c], block_m2[c] = exact_moments(column)
        if start > first:
            merge_lines(mean, m2, float(start - first), block_mean, block_m2, float(n))


# Apply: y = ((x - high) - low) * scale + shift.  A table holds these four, (samples, 4, channels).


@inlined
def set_coefficients(table, channel, mean, rstd, weight, bias):
    """One column of a table (4, channels)."""
    kind = table.dtype.type
    table[0, channel] = kind(mean)
    table[1, channel] = kind(mean - table[0, channel])
    table[2, channel] = kind(rstd * weight)
    table[3, channel] = bias


@numba.njit(inline="always")
def centred(x, high, low):
    """x - mean, the mean in two parts."""
    return (x - high) - low


@inlined
def apply_constant(x, y, high, low, scale, shift):
    """A line with one set of coefficients: channels_first."""
    if x.ctypes.data == y.ctypes.data:
        for i in range(y.size):
            y[i] = centred(y[i], high, low) * scale + shift
    else:
        for i in range(y.size):
            y[i] = centred(x[i], high, low) * scale + shift


@inlined
def apply_row(x, y, high, low, rstd, weight, bias):
    """A line with a weight and bias for each value: rows."""
    if x.ctypes.data == y.ctypes.data:
        for i in range(y.size):
            y[i] = centred(y[i], high, low) * rstd * weight[i] + bias[i]
    else:
        for i in range(y.size):
            y[i] = centred(x[i], high, low) * rstd * weight[i] + bias[i]


@inlined
def apply_channels(x, y, high, low, scale, shift):
    """A line with coefficients for each value: channels_last."""
    if x.ctypes.data == y.ctypes.data:
        for i in range(y.size):
            y[i] = centred(y[i], high[i], low[i]) * scale[i] + shift[i]
    else:
        for i in range(y.size):
            y[i] = centred(x[i], high[i], low[i]) * scale[i] + shift[i]


@jit
def apply_part(x, y, pieces, table, weight, bias, rows, part):
    """One part of the lines of x, channels_first or rows."""
    table = borrowed(table)
    first, last, start, stop = part_of(x, pieces, part)
    i, j, k = place(x, first)
    both_dense = is_dense(x[0, 0, 0]) and is_dense(y[0, 0, 0])
    for _ in range(first, last):
        source, target, c = x[i, j, k, start:stop], y[i, j, k, start:stop], table[i if len(table) > 1 else 0, :, j]
        if rows and both_dense:
            s, t, w, b = dense(source), dense(target), weight[start:stop], bias[start:stop]
            for at in range(0, s.size, STEP):
                to = min(at + STEP, s.size)
                fetch(s, t, at + s.size, to + s.size)  # of the next row
                apply_row(s[at:to], t[at:to], c[0], c[1], c[2], w[at:to], b[at:to])
        elif rows:
            apply_row(source, target, c[0], c[1], c[2], weight[start:stop], bias[start:stop])
        elif both_dense:
            s, t = dense(source), dense(target)
            for at in range(0, s.size, STEP):
                to = min(at + STEP, s.size)
                fetch(s, t, at + AHEAD // s.itemsize, to + AHEAD // s.itemsize)
                apply_constant(s[at:to], t[at:to], c[0], c[1], c[2], c[3])
        else:
            apply_constant(source, target, c[0], c[1], c[2], c[3])
        i, j, k = following(x, i, j, k)


@jit
def apply_lines(x, y, table, first, last):
    """The lines first..last of x, channels_last."""
    table = borrowed(table)
    i, j, k = place(x, first)
    both_dense = is_dense(x[0, 0, 0]) and is_dense(y[0, 0, 0])
    for _ in range(first, last):
        source, target, c = x[i, j, k], y[i, j, k], table[i if len(table) > 1 else 0]
        if both_dense:
            s, t = dense(source), dense(target)
            fetch(s, t, AHEAD // s.itemsize, AHEAD // s.itemsize + s.size)
            apply_channels(s, t, c[0], c[1], c[2], c[3])
        else:
            apply_channels(source, target, c[0], c[1], c[2], c[3])
        i, j, k = following(x, i, j, k)


# Steps of the kernels.


@inlined
def finish_domain(moments, i, mean, var, table, first, channels, weight, bias, eps, rows):
    """Moments of the domain i go to mean and var, its coefficients into `channels` columns of a table (4, channels)."""
    count, domain_mean, m2 = moments
    domain_var = m2 / count
    if mean.size:
        mean[i], var[i] = domain_mean, domain_var
    rstd, one, zero = 1 / math.sqrt(domain_var + eps), table.dtype.type(1), table.dtype.type(0)
    for c in range(first, first + channels):
        set_coefficients(table, c, domain_mean, rstd, one if rows else weight[c], zero if rows else bias[c])


@jit
def moments_of_part(x, pieces, outer, channels, groups, i, parts):
    """Moments of one part of one domain: i counts the parts of all."""
    parts, index, part = borrowed(parts), i // pieces[0], i % pieces[0]
    row = parts[index, part]
    row[0], row[1], row[2] = part_moments(domain(x, outer, channels, index // groups, index % groups), pieces, part)


@jit
def whole_domain(x, y, pieces, outer, channels, groups, i, parts, table, mean, var, weight, bias, eps, rows):
    """Moments and apply of the domain i."""
    parts, table = borrowed(parts), borrowed(table)
    n = i // groups
    c = i - n * groups
    source, target = domain(x, outer, channels, n, c), domain(y, outer, channels, n, c)
    for part in range(pieces[0]):
        row = parts[i, part]
        row[0], row[1], row[2] = part_moments(source, pieces, part)
    finish_domain(merge_tree(parts[i]), i, mean, var, table[n], c * channels, channels, weight, bias, eps, rows)
    for part in range(pieces[0]):
        coefficients = table[n : n + 1, :, c * channels : (c + 1) * channels]
        apply_part(source, target, pieces, coefficients, weight, bias, rows, part)


@jit
def foldable(x, y, samples):
    """How many lines of x and y, channels_last, are walked as one: a power of 2, the lines following each other."""
    channels, times = x.shape[3], 1
    stride = channels * x.itemsize
    if x.shape[0] == samples and x.shape[1] == 1 and x.strides[2] == y.strides[2] == stride and is_dense(y[0, 0, 0]):
        while 2 * times * channels <= FOLDED and 2 * times <= x.shape[2]:
            times *= 2
    return times


@jit
def folded(x, times):
    """The lines of x, `times` as one; the last x.shape[2] % times are left out."""
    i, j, k, c = x.strides
    shape = x.shape[0], x.shape[1], x.shape[2] // times, x.shape[3] * times
    return as_strided(x, shape, (i, j, k * times, c))


@jit
def apply_rest(x, y, table, times):
    """Apply of the lines that `folded` leaves out; returns the coefficients of the others, `times` in a row."""
    samples, channels, left = len(table), x.shape[3], x.shape[2] % times
    repeated = np.empty((samples, 4, channels * times), table.dtype)
    for n in range(samples):
        for i in range(4):
            for j in range(times):
                copy(table[n, i], repeated[n, i, j * channels : (j + 1) * channels])
        if left:
            source, target = x[n : n + 1, :, x.shape[2] - left :], y[n : n + 1, :, x.shape[2] - left :]
            apply_lines(source, target, table[n : n + 1], np.intp(0), left)
    return repeated


@inlined
def line_parts(x):
    """How many lines make a part, channels_last, and how many parts x has then; a part's first block is read twice."""
    step = max(ROWS, 2 * PART // x.shape[3] // ROWS * ROWS)
    return step, (line_count(x) + step - 1) // step


@jit
def moments_of_lines(x, samples, i, means, m2s):
    """Row i = (sample, part) of means and m2s: the moments of every channel."""
    means, m2s = borrowed(means), borrowed(m2s)
    outer, parts, step = x.shape[0] // samples, len(means) // samples, line_parts(x)[0]
    source, first = x[i // parts * outer : (i // parts + 1) * outer], i % parts * step
    lines_moments(source, first, min(first + step, line_count(source)), means[i], m2s[i])


@jit
def merge_parts(means, m2s, part_lines, lines):
    """Row 0 of means and m2s (parts, channels): all parts, merged pairwise in a fixed order."""
    step = 1
    while step < len(means):
        for a in range(0, len(means) - step, 2 * step):
            b = a + step
            n = min((b + step) * part_lines, lines) - b * part_lines
            merge_lines(means[a], m2s[a], float(step * part_lines), means[b], m2s[b], float(n))
        step *= 2


@jit
def finish_groups(means, m2s, lines, rest, n, groups, mean, var, table, weight, bias, eps):
    """`finish_domain` of the groups of sample n: each channel's moments over `lines`, and `rest` (lines, channels)."""
    means, m2s, table, channels = borrowed(means), borrowed(m2s), borrowed(table), rest.shape[1] // groups
    for group in range(groups):
        first, moments = group * channels, (0.0, 0.0, 0.0)
        for c in range(first, first + channels):
            for at in range(c, means.size, rest.shape[1]):
                moments = merge(moments, (float(lines), means[at], m2s[at]))
            if len(rest):
                moments = merge(moments, exact_moments(rest[:, c]))
        finish_domain(moments, n * groups + group, mean, var, table, first, channels, weight, bias, eps, False)


@jit
def apply_step(x, y, pieces, table, weight, bias, last, i):
    """Apply to part i of all lines, in either layout."""
    if last:
        step, _ = line_parts(x)
        apply_lines(x, y, table, i * step, min((i + 1) * step, line_count(x)))
    else:
        apply_part(x, y, pieces, table, weight, bias, False, i)


# Kernels, compiled in `_kernels_numba`.  A parallel loop costs a second of compilation, so each kernel has one, which
# it enters once or twice; and the same loop for one thread, for a parallel region costs a microsecond and a forked
# child can't enter it.  The index is np.intp in both, so that the functions above are compiled once.


def normalize_domains(x, y, samples, groups, mean, var, weight, bias, eps, rows, threads):
    """channels_first and rows: a thread takes whole domains; where they are few and large, parts of them."""
    x, y, mean, var, weight, bias = (
        borrowed(x),
        borrowed(y),
        borrowed(mean),
        borrowed(var),
        borrowed(weight),
        borrowed(bias),
    )
    domains, outer, channels = samples * groups, x.shape[0] // samples, x.shape[1] // groups
    one, every = cut(line_count(x) // domains, x.shape[3]), cut(line_count(x), x.shape[3])
    parts, table = np.empty((domains, one[0], 3)), np.empty((samples, 4, x.shape[1]), x.dtype)
    whole = threads == 1 or one[0] == 1 or domains >= 4 * threads
    for phase in range(1 if whole else 2):
        if phase == 1:
            for i in range(domains):
                moments, c = merge_tree(parts[i]), i % groups * channels
                finish_domain(moments, i, mean, var, table[i // groups], c, channels, weight, bias, eps, rows)
        if threads == 1:
            for i in range(domains):
                whole_domain(x, y, one, outer, channels, groups, i, parts, table, mean, var, weight, bias, eps, rows)
        else:
            steps = domains if whole else domains * one[0] if phase == 0 else every[0]
            for step in numba.prange(steps):
                i = np.intp(step)
                if whole:
                    whole_domain(
                        x, y, one, outer, channels, groups, i, parts, table, mean, var, weight, bias, eps, rows
                    )
                elif phase == 0:
                    moments_of_part(x, one, outer, channels, groups, i, parts)
                else:
                    apply_part(x, y, every, table, weight, bias, rows, i)


def normalize_lines(x, y, samples, groups, mean, var, weight, bias, eps, threads):
    """channels_last: moments of each channel by parts of the lines, channels merged into groups, then apply."""
    x, y, mean, var, weight, bias = (
        borrowed(x),
        borrowed(y),
        borrowed(mean),
        borrowed(var),
        borrowed(weight),
        borrowed(bias),
    )
    times = foldable(x, y, samples)
    f, g = folded(x, times), folded(y, times)
    lines, parts = line_count(f) // samples, line_parts(f[: f.shape[0] // samples])[1]
    unused = cut(1, 1)
    means, m2s = np.empty((samples * parts, f.shape[3])), np.empty((samples * parts, f.shape[3]))
    table = np.empty((samples, 4, x.shape[3]), x.dtype)
    repeated = table
    for phase in range(2):
        if phase == 1:
            for n in range(samples):
                at, rest = n * parts, x[n, 0, x.shape[2] // times * times :]
                merge_parts(means[at : at + parts], m2s[at : at + parts], line_parts(f)[0], lines)
                finish_groups(means[at], m2s[at], lines, rest, n, groups, mean, var, table[n], weight, bias, eps)
            repeated = apply_rest(x, y, table, times)
        steps = samples * parts if phase == 0 else line_parts(f)[1]
        if threads == 1:
            for i in range(steps):
                if phase == 0:
                    moments_of_lines(f, samples, i, means, m2s)
                else:
                    apply_step(f, g, unused, repeated, weight, bias, True, i)
        else:
            for step in numba.prange(steps):
                i = np.intp(step)
                if phase == 0:
                    moments_of_lines(f, samples, i, means, m2s)
                else:
                    apply_step(f, g, unused, repeated, weight, bias, True, i)


def normalize_given(x, y, mean, var, weight, bias, eps, last, threads):
    """Apply with the mean and var of each channel, channels_last or channels_first."""
    x, y, mean, var, weight, bias = (
        borrowed(x),
        borrowed(y),
        borrowed(mean),
        borrowed(var),
        borrowed(weight),
        borrowed(bias),
    )
    table = np.empty((1, 4, mean.size), x.dtype)
    for c in range(mean.size):
        set_coefficients(table[0], c, mean[c], 1 / math.sqrt(var[c] + eps), weight[c], bias[c])
    times = foldable(x, y, 1) if last else 1
    f, g = folded(x, times), folded(y, times)
    repeated = apply_rest(x, y, table, times) if last else table
    every = cut(line_count(f), f.shape[3])
    steps = line_parts(f)[1] if last else every[0]
    if threads == 1:
        for i in range(steps):
            apply_step(f, g, every, repeated, weight, bias, last, i)
    else:
        for step in numba.prange(steps):
            apply_step(f, g, every, repeated, weight, bias, last, np.intp(step))
