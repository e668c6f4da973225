# cython: language_level=3, binding=True, embedsignature=False, wraparound=False
"""Statistics of arrays, and arrays brought to mean 0 and deviation 1.

What all have in common: `x` is an ndarray of bool, integers, float16, bfloat16, float32 or float64, of any strides;
`axis` names the axes that are taken together. One read, on all cores where that pays, without a copy of `x`.
"""

# Here are names, defaults and what they mean, and what is made of the arguments: each has a fast test in C; where it
# fails, a function of `_statistics_arguments` converts the argument or raises.

import warnings
from collections.abc import Iterator

import numpy as np

cimport numpy as cnp
from cpython.float cimport PyFloat_CheckExact
from cpython.long cimport PyLong_CheckExact
from libc.math cimport INFINITY

from cpunorm cimport _reduction
from cpunorm._memory cimport new_like
from cpunorm._reduction cimport BF16, as_axes, as_tallied, element_of, is_walkable

from cpunorm import _statistics_arguments
from cpunorm._scalars import boolean, integer, positive_eps, real
from cpunorm._memory import empty_like
from cpunorm._moments import DTYPES, VARIES, Moments
from cpunorm._progress import track

cnp.import_array()

__all__ = ["moments", "standardize", "standardize_sliding"]

NAN = ("propagate", "omit")
PIECE = 2**26  # bytes of an array from one step of a bar to the next


def _piecewise(x, axes, where, omit):
    """What `_reduction.moments` gives, read under a bar; what is large in pieces along the axis that lies outermost."""
    axis, pieces = None, [...]
    if x.nbytes > PIECE:
        axis = max(range(x.ndim), key=lambda a: abs(x.strides[a]) * (x.shape[a] > 1))
        step = max(1, PIECE * x.shape[axis] // x.nbytes)
        pieces = [(slice(None),) * axis + (slice(at, at + step),) for at in range(0, x.shape[axis], step)]
    records = (_reduction.moments(x[p], axes, where if where is None else where[p], omit) for p in track(pieces))
    if axis is None or axis in axes:
        return Moments.merge(Moments(record, VARIES, axes) for record in records)._record
    return np.concatenate([*records], 1 + sum(a not in axes for a in range(axis)))


cdef inline object chosen(str function, object x, object where, object lengths, object length_axis):
    """Which values count, as a bool array of the shape of x, or None for all of them."""
    if where is None and lengths is None:
        return None
    return _statistics_arguments.chosen_values(function, x, where, lengths, length_axis)


cdef object moments_of(
    str function, object x, object axis, tuple axes, object where, object nan, object dtype, bint progress
):
    """The moments of one array, `axes` of it being what `axis` names; `where` of its shape or None."""
    if nan not in NAN:
        raise ValueError(f"{function}: nan must be one of {NAN}, got {nan!r}")
    cdef bint omit = nan == "omit" and element_of(x) <= BF16
    record = _piecewise(x, axes, where, omit) if progress else _reduction.moments(x, axes, where, omit)
    cdef Py_ssize_t same = 1
    for a in axes:
        same *= cnp.PyArray_DIM(x, a)
    return Moments(record, VARIES if omit or where is not None else same, None if axis is None else axes, dtype)


cdef object of_one(
    object x, object axis, object where, object lengths, object length_axis, object nan, object dtype, bint progress
):
    """`moments` of one array, in silence where there are none."""
    x = as_tallied("moments", x)
    cdef tuple axes = as_axes("moments", axis, cnp.PyArray_NDIM(x))
    where = chosen("moments", x, where, lengths, length_axis)
    return moments_of("moments", x, axis, axes, where, nan, dtype, progress)


def _of_all(arrays, axis, where, nan, dtype):
    """`moments` of all arrays together."""
    return Moments.merge(of_one(x, axis, where, None, 1, nan, dtype, False) for x in arrays)


def moments(
    x, axis=None, *, where=None, lengths=None, length_axis=1, nan="propagate", dtype=np.float64, progress=False
):
    r"""Count, mean, sum of squared deviations, minimum and maximum, in one read.

    .. math:: \bar x = \frac{1}{n} \sum_i x_i, \qquad M_2 = \sum_i (x_i - \bar x)^2

    Parameters
    ----------
    x : ndarray of any shape, or an iterator of such
        bool, integers, float16, bfloat16, float32 or float64; any strides; may be a memmap. The moments of an iterator
        are those of all its arrays together; one after the other is read, and let go.
    axis : int, sequence of int or None
        The axes that are taken together; None for all.
    where : ndarray of bool, optional
        Which values count; broadcasts to the shape of `x`.
    lengths : sequence of int, optional
        How many positions along `length_axis` count, of each entry of axis 0: (N, T, ...) of padded sequences.
    length_axis : int
    nan : {"propagate", "omit"}
        What a NaN does: its slice becomes NaN, or it doesn't count.
    dtype : dtype-like
        In which the moments are shown, float64, float32 or float16. Inside they are float64 in two parts.
    progress : bool
        Whether to show a bar on a terminal, by rich: of the arrays of an iterator, or of what is read of one that is
        large. Such a one is read in pieces then, which are merged as `Moments` are; its last digits may be others.

    Returns
    -------
    Moments

    Raises
    ------
    ModuleNotFoundError
        A bar without rich.
    TypeError
        Not an ndarray, or one of complex numbers, objects, times; a `where` that isn't of bool; `lengths` that are
        not ints.
    numpy.exceptions.AxisError
        An axis that there is not.
    ValueError
        An axis twice; a `where` that does not broadcast, lengths beyond their axis, or of an iterator; another `nan` or
        `dtype`; an iterator of nothing, or of arrays whose kept axes differ.

    Warns
    -----
    RuntimeWarning
        A slice without values, as in NumPy. Its moments are NaN, its count is 0.

    Notes
    -----
    Mean and variance are within 4 units in the last place of the exact ones, those of float32 for float32 and half
    precision, of float64 for the others: however large the mean is beside the deviation, and however small, down to
    2**-90 of the values. Sums of integers of 8 and 16 bits are exact. (NumPy's float32 mean of 20 million ones, along
    the first axis of two, is 0.84.) The bits do not depend on the number of threads.

    Examples
    --------
    >>> import numpy as np, cpunorm
    >>> images = np.array([[[[0, 50], [100, 250]]], [[[50, 50], [100, 200]]]], np.uint8)
    >>> cpunorm.moments(images, axis=(0, 2, 3))
    Moments(count=8, mean=[100.], std=[79.0569415], min=[0.], max=[250.], axis=(0, 2, 3))
    >>> padded = np.array([[1.0, 2.0, 0.0], [3.0, 4.0, 5.0]])
    >>> cpunorm.moments(padded, axis=1, lengths=[2, 3]).mean
    array([1.5, 4. ])
    >>> batches = (np.full(2, value) for value in (1.0, 2.0, 3.0))
    >>> cpunorm.moments(batches).mean
    np.float64(2.0)

    References
    ----------
    Chan, Golub and LeVeque, Algorithms for computing the sample variance, The American Statistician 37, 1983.
    """
    if dtype not in DTYPES and np.dtype(dtype) not in DTYPES:
        raise ValueError(f"moments: dtype must be float64, float32 or float16, got {dtype!r}")
    if progress is not False:
        progress = boolean("moments: progress", progress)
    if not cnp.PyArray_Check(x) and isinstance(x, Iterator):
        if lengths is not None:
            raise ValueError("moments: lengths are of one array, not of an iterator of arrays")
        found = _of_all(track(x) if progress else x, axis, where, nan, dtype)
    else:
        found = of_one(x, axis, where, lengths, length_axis, nan, dtype, progress)
    if found._same_count == 0 or (found._same_count == VARIES and not found._record[0].all()):
        warnings.warn("moments: mean of empty slice", RuntimeWarning, stacklevel=1)  # the caller: this has no frame
    return found


cdef bint is_apart(object out, object array) noexcept:
    """Whether the memory of an array, contiguous as `out` is, has no byte in common with it; None has no memory."""
    if array is None:
        return True
    cdef char* start = cnp.PyArray_BYTES(out)
    cdef char* other = cnp.PyArray_BYTES(array)
    return cnp.PyArray_IS_C_CONTIGUOUS(array) and (
        start + cnp.PyArray_NBYTES(out) <= other or other + cnp.PyArray_NBYTES(array) <= start)


cdef bint is_plain_out(object out, object x, object where, object record) noexcept:
    """Whether `out` is writeable, of plain floats, as contiguous as x, and x itself or apart from all that is read."""
    cdef int axis
    if not (cnp.PyArray_CheckExact(out) and cnp.PyArray_TYPE(out) in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64)
            and cnp.PyArray_ISCARRAY(out) and cnp.PyArray_ISCARRAY_RO(x)
            and cnp.PyArray_NDIM(out) == cnp.PyArray_NDIM(x)):
        return False
    for axis in range(cnp.PyArray_NDIM(x)):
        if cnp.PyArray_DIM(out, axis) != cnp.PyArray_DIM(x, axis):
            return False
    return (is_apart(out, x) or cnp.PyArray_DATA(out) == cnp.PyArray_DATA(x)
            and cnp.PyArray_TYPE(out) == cnp.PyArray_TYPE(x)) and is_apart(out, where) and is_apart(out, record)


cdef object result_of(str function, object x, object dtype, object out, object where, object record):
    """`out`, checked, or a new array for the result; `where` and `record` are read while it is written."""
    if dtype is None and (element_of(x) <= BF16 if out is None else is_plain_out(out, x, where, record)):
        return new_like(x) if out is None else out
    return _statistics_arguments.statistics_result(function, x, dtype, out, where=where, moments=record)


def standardize(
    x,
    axis=None,
    *,
    moments=None,
    eps=0.0,
    floor=None,
    ddof=0,
    where=None,
    lengths=None,
    length_axis=1,
    nan="propagate",
    clip=None,
    dtype=None,
    out=None,
    return_moments=False,
):
    r"""Bring slices to mean 0 and deviation 1.

    .. math:: y = \frac{x - \bar x}{\max(\sqrt{\sigma^2 + \epsilon}, \mathit{floor})}

    Slices whose values are all the same become zeros, as in scikit-learn.

    Parameters
    ----------
    x : ndarray of any shape
        bool, integers, float16, bfloat16, float32 or float64; any strides.
    axis : int, sequence of int or None
        The axes that are taken together; None for all.
    moments : Moments, optional
        Given mean and deviation, one of each slice, instead of those of `x`.
    eps : float
        Added to the variance.
    floor : float, optional
        The least that is divided by.
    ddof : int
        The variance is m2 / (count - ddof).
    where, lengths, length_axis, nan
        Which values count, as in `cpunorm.moments`. Those that `where` and `lengths` leave out become 0; NaN stays NaN.
    clip : (float, float), optional
        The least and the greatest that comes out.
    dtype : dtype-like, optional
        Of the result: float16, bfloat16, float32 or float64. By default that of `x`, float32 for integers.
    out : ndarray, optional
        Where to write the result: the shape of `x`, writeable; may be `x` itself.
    return_moments : bool
        Whether to return the moments, too.

    Returns
    -------
    ndarray, or (ndarray, Moments)
        Shape and stride order of `x`, or `out`.

    Raises
    ------
    TypeError
        As `cpunorm.moments`; `moments` that aren't; a result of another dtype.
    numpy.exceptions.AxisError
        An axis that there is not.
    ValueError
        As `cpunorm.moments`; `moments` of another shape, or to be returned though given; a negative
        `eps`, `floor` or `ddof`; a `clip` that isn't a pair, the lesser first; a read-only `out`.
    RuntimeError
        An `out` of another shape or dtype, or that partly overlaps `x`.

    Notes
    -----
    Computed in float64, with the mean in two parts, and rounded once.

    Examples
    --------
    >>> import numpy as np, cpunorm
    >>> table = np.array([[1.0, 7.0], [2.0, 7.0], [3.0, 7.0]])
    >>> cpunorm.standardize(table, axis=0)
    array([[-1.22474487,  0.        ],
           [ 0.        ,  0.        ],
           [ 1.22474487,  0.        ]])
    """
    cdef str function = "standardize"
    cdef double least = -INFINITY, most = INFINITY
    given, x = x, as_tallied(function, x)
    cdef tuple axes = as_axes(function, axis, cnp.PyArray_NDIM(x))
    if not (PyFloat_CheckExact(eps) and eps >= 0):
        eps = positive_eps(function, eps, True)
    floor = 0.0 if floor is None else real(f"{function}: floor", floor)
    if not PyLong_CheckExact(ddof):
        ddof = integer(f"{function}: ddof", ddof)
    if floor < 0 or ddof < 0:
        raise ValueError(f"{function}: floor and ddof must not be negative, got {floor} and {ddof}")
    if clip is not None:
        least, most = _statistics_arguments.bounds(function, clip)
    if return_moments is not False:
        return_moments = boolean(f"{function}: return_moments", return_moments)
        if return_moments and moments is not None:
            raise ValueError(f"{function}: moments are given, return_moments=True has nothing to return")
    where = chosen(function, x, where, lengths, length_axis)
    if moments is None:
        moments = moments_of(function, x, axis, axes, where, nan, np.float64, False)
    else:
        _check_moments(function, moments, x, axes)
    record = moments._record
    result = result_of(function, x if out is None else given, dtype, out, where, record)
    left_out = None if where is None else ~where
    target = result if is_walkable(result) else empty_like(result, result.dtype.newbyteorder("="))
    _reduction.standardize(x, axes, record, ddof, eps, floor, least, most, target)
    if left_out is not None:
        np.copyto(target, 0, where=left_out)
    if target is not result:
        np.copyto(result, target)
    return (result, moments) if return_moments else result


def _check_moments(function, moments, x, axes):
    """Raise unless `moments` are one of each slice of x.

    Raises
    ------
    TypeError
        No Moments.
    ValueError
        Of another shape.
    """
    if not isinstance(moments, Moments):
        raise TypeError(f"{function}: moments must be Moments, got {type(moments).__qualname__}")
    kept = tuple([n for a, n in enumerate(x.shape) if a not in axes])
    if moments.shape != kept:
        raise ValueError(f"{function}: expected moments of shape {kept}, got {moments.shape}")


def standardize_sliding(x, window, axis=0, *, center=True, min_window=100, var=True, dtype=None, out=None):
    r"""Bring each frame to mean 0 and deviation 1 of the frames around it.

    Sliding cepstral mean and variance normalisation, on the windows of Kaldi's ``apply-cmvn-sliding``.

    Parameters
    ----------
    x : ndarray of any shape
        bool, integers, float16, bfloat16, float32 or float64; any strides.
    window : int
        Frames of a window.
    axis : int
        The axis of the frames; (T, D) has it first. Each slice along it is normalised by itself.
    center : bool
        Whether a window lies around its frame (moved inwards at both ends), or is the frame and `window` before it.
    min_window : int
        Frames of a window at the beginning, where too few are behind; with ``center=False`` alone.
    var : bool
        Whether to divide by the deviation, too.
    dtype : dtype-like, optional
        Of the result: float16, bfloat16, float32 or float64. By default that of `x`, float32 for integers.
    out : ndarray, optional
        Where to write the result: the shape of `x`, writeable; may be `x` itself.

    Returns
    -------
    ndarray
        Shape and stride order of `x`, or `out`. Frames whose window is constant are 0, with `var`.

    Raises
    ------
    TypeError
        As `cpunorm.moments`; a `window` that isn't an int.
    numpy.exceptions.AxisError
        An axis that there is not.
    ValueError
        A `window` or `min_window` below 1, or a read-only `out`.
    RuntimeError
        An `out` of another shape or dtype, or that partly overlaps `x`.

    Notes
    -----
    The sums of a window are updated by the frames that enter and leave it, in two parts, and taken anew where what left
    was so large that it took digits along: the last of a million frames is as right as the first. Where a window is
    constant, Kaldi divides by 1e-5.

    Examples
    --------
    >>> import numpy as np, cpunorm
    >>> frames = np.arange(6.0)[:, None] ** 2
    >>> cpunorm.standardize_sliding(frames, 3)[:, 0].round(4)
    array([-0.9806, -0.3922, -0.202 , -0.1355, -0.1018,  1.2725])

    References
    ----------
    Povey et al., The Kaldi speech recognition toolkit, ASRU 2011.
    """
    function = "standardize_sliding"
    given, x = x, as_tallied(function, x)
    (axis,) = as_axes(function, integer(f"{function}: axis", axis), cnp.PyArray_NDIM(x))
    window, min_window = integer(f"{function}: window", window), integer(f"{function}: min_window", min_window)
    if window < 1 or min_window < 1:
        raise ValueError(f"{function}: window and min_window must be positive, got {window} and {min_window}")
    center, var = boolean(f"{function}: center", center), boolean(f"{function}: var", var)
    result = result_of(function, x if out is None else given, dtype, out, None, None)
    inside = not is_walkable(result) or (out is not None and np.may_share_memory(out, x))
    target = empty_like(result, result.dtype.newbyteorder("=")) if inside else result
    _reduction.slide(x, axis, window, min_window, center, var, target)
    if inside:
        np.copyto(result, target)
    return result
