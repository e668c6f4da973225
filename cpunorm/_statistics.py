"""Statistics of arrays, and arrays brought to mean 0 and deviation 1.

What all have in common: `x` is an ndarray of bool, integers, float16, bfloat16, float32 or float64, of any strides;
`axis` names the axes that are taken together. One read, on all cores where that pays, without a copy of `x`.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cpunorm import _reduction
from cpunorm._arguments import HALVES, as_out, boolean, check_array, integer, positive_eps, real
from cpunorm._memory import empty_like
from cpunorm._moments import DTYPES, VARIES, Moments
from cpunorm._progress import track

__all__ = ["moments", "standardize", "standardize_sliding"]

NAN = ("propagate", "omit")
PIECE = 2**26  # bytes of an array from one step of a bar to the next


def _chosen(function, x, where, lengths, length_axis):
    """Which values count, as a bool array of the shape of x, or None for all of them.

    Raises
    ------
    TypeError
        A `where` that is no bool array, or `lengths` that aren't ints.
    ValueError
        They don't fit x.
    """
    if where is not None:
        if not isinstance(where, np.ndarray) or where.dtype != np.bool:
            raise TypeError(f"{function}: where must be a bool array, got {getattr(where, 'dtype', type(where))}")
        check_array(f"{function}: where", where)
        try:
            where = np.broadcast_to(where, x.shape)
        except ValueError:
            raise ValueError(f"{function}: where of shape {where.shape} does not broadcast to {x.shape}") from None
    if lengths is None:
        return where
    axis = integer(f"{function}: length_axis", length_axis)
    if not -x.ndim <= axis < x.ndim or axis % x.ndim == 0:
        raise ValueError(f"{function}: length_axis must be an axis of {x.shape} other than 0, got {length_axis}")
    axis %= x.ndim
    if hasattr(lengths, "mask"):
        raise TypeError(f"{function}: lengths must be plain ints, got a masked array (masks are not supported)")
    lengths = np.asarray(lengths)
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"{function}: lengths must be ints, got {lengths.dtype}")
    if lengths.shape != x.shape[:1]:
        raise ValueError(f"{function}: expected {x.shape[0]} lengths, one per entry of axis 0, got {lengths.shape}")
    beyond = lengths[(lengths < 0) | (lengths > x.shape[axis])]
    if beyond.size:
        raise ValueError(f"{function}: lengths must be from 0 to {x.shape[axis]}, got {beyond[0]}")
    valid = np.arange(x.shape[axis]) < lengths[:, None]
    valid = np.broadcast_to(valid.reshape([n if a in (0, axis) else 1 for a, n in enumerate(x.shape)]), x.shape)
    return valid if where is None else valid & where


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


def _tally(function, x, axis, where, lengths, length_axis, nan, progress=False):
    """x as it was walked, the reduced axes, which values counted, the record, and the count if all slices have it."""
    x = _reduction.as_tallied(function, x)
    axes = _reduction.as_axes(function, axis, x.ndim)
    if nan not in NAN:
        raise ValueError(f"{function}: nan must be one of {NAN}, got {nan!r}")
    if where is not None or lengths is not None:
        where = _chosen(function, x, where, lengths, length_axis)
    omit = nan == "omit" and x.dtype.kind not in "biu"
    same = VARIES if omit or where is not None else math.prod([x.shape[a] for a in axes])
    return x, axes, where, (_piecewise if progress else _reduction.moments)(x, axes, where, omit), same


def _of_one(x, axis, where, lengths, length_axis, nan, dtype, progress=False):
    """The moments of one array, in silence where there are none."""
    _, axes, _, record, same = _tally("moments", x, axis, where, lengths, length_axis, nan, progress)
    return Moments(record, same, None if axis is None else axes, dtype)


def moments(
    x: NDArray[Any] | Iterator[NDArray[Any]],
    axis: int | Sequence[int] | None = None,
    *,
    where: NDArray[np.bool] | None = None,
    lengths: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    length_axis: int = 1,
    nan: Literal["propagate", "omit"] = "propagate",
    dtype: DTypeLike = np.float64,
    progress: bool = False,
) -> Moments:
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
    progress = boolean("moments: progress", progress)
    if not isinstance(x, np.ndarray) and isinstance(x, Iterator):
        if lengths is not None:
            raise ValueError("moments: lengths are of one array, not of an iterator of arrays")
        arrays = track(x) if progress else x
        found = Moments.merge(_of_one(array, axis, where, None, length_axis, nan, dtype) for array in arrays)
    else:
        found = _of_one(x, axis, where, lengths, length_axis, nan, dtype, progress)
    if found._same_count == 0 or (found._same_count == VARIES and not found._record[0].all()):
        warnings.warn("moments: mean of empty slice", RuntimeWarning, stacklevel=2)
    return found


def _result(function, x, dtype, out, **others):
    """`out`, checked, or a new array for the result: in the order of x, of `dtype`, or of what x gives.

    `others`, by their names, are read while it is written.

    Raises
    ------
    TypeError
        A `dtype` that is not float16, bfloat16, float32 or float64.
    RuntimeError, ValueError
        An `out` that can't take it.
    """
    default = x.dtype if x.dtype.kind not in "biu" else np.dtype(np.float32)
    dtype = np.dtype(default if dtype is None else dtype) if out is None or dtype is not None else out.dtype
    if dtype.newbyteorder("=") not in (np.float32, np.float64) and dtype.name not in HALVES:
        raise TypeError(f"{function}: the result must be float16, bfloat16, float32 or float64, got {dtype}")
    if out is None:
        return empty_like(x, dtype)
    as_out(function, out, x, dtype, **others)
    return out


@overload
def standardize(
    x: NDArray[Any],
    axis: int | Sequence[int] | None = None,
    *,
    moments: Moments | None = None,
    eps: float = 0.0,
    floor: float | None = None,
    ddof: int = 0,
    where: NDArray[np.bool] | None = None,
    lengths: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    length_axis: int = 1,
    nan: Literal["propagate", "omit"] = "propagate",
    clip: tuple[float, float] | None = None,
    dtype: DTypeLike | None = None,
    out: NDArray[Any] | None = None,
    return_moments: Literal[False] = False,
) -> NDArray[Any]: ...
@overload
def standardize(
    x: NDArray[Any],
    axis: int | Sequence[int] | None = None,
    *,
    moments: Moments | None = None,
    eps: float = 0.0,
    floor: float | None = None,
    ddof: int = 0,
    where: NDArray[np.bool] | None = None,
    lengths: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    length_axis: int = 1,
    nan: Literal["propagate", "omit"] = "propagate",
    clip: tuple[float, float] | None = None,
    dtype: DTypeLike | None = None,
    out: NDArray[Any] | None = None,
    return_moments: Literal[True],
) -> tuple[NDArray[Any], Moments]: ...
def standardize(
    x: NDArray[Any],
    axis: int | Sequence[int] | None = None,
    *,
    moments: Moments | None = None,
    eps: float = 0.0,
    floor: float | None = None,
    ddof: int = 0,
    where: NDArray[np.bool] | None = None,
    lengths: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    length_axis: int = 1,
    nan: Literal["propagate", "omit"] = "propagate",
    clip: tuple[float, float] | None = None,
    dtype: DTypeLike | None = None,
    out: NDArray[Any] | None = None,
    return_moments: bool = False,
) -> NDArray[Any] | tuple[NDArray[Any], Moments]:
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
    function = "standardize"
    given, x = x, _reduction.as_tallied(function, x)
    axes = _reduction.as_axes(function, axis, x.ndim)
    eps = positive_eps(function, eps, True)
    floor = 0.0 if floor is None else real(f"{function}: floor", floor)
    ddof = integer(f"{function}: ddof", ddof)
    if floor < 0 or ddof < 0:
        raise ValueError(f"{function}: floor and ddof must not be negative, got {floor} and {ddof}")
    least, most = (-math.inf, math.inf) if clip is None else _bounds(function, clip)
    if boolean(f"{function}: return_moments", return_moments) and moments is not None:
        raise ValueError(f"{function}: moments are given, return_moments=True has nothing to return")
    kept = tuple(n for a, n in enumerate(x.shape) if a not in axes)
    if moments is None:
        _, _, chosen, record, same = _tally(function, x, axes, where, lengths, length_axis, nan)
        moments = Moments(record, same, None if axis is None else axes)
    elif not isinstance(moments, Moments):
        raise TypeError(f"{function}: moments must be Moments, got {type(moments).__qualname__}")
    elif moments.shape != kept:
        raise ValueError(f"{function}: expected moments of shape {kept}, got {moments.shape}")
    else:
        chosen = _chosen(function, x, where, lengths, length_axis)
    result = _result(function, x if out is None else given, dtype, out, where=where, moments=moments._record)
    left_out = None if chosen is None else ~chosen
    target = result if _reduction.is_walkable(result) else empty_like(result, result.dtype.newbyteorder("="))
    _reduction.standardize(x, axes, moments._record, ddof, eps, floor, least, most, target)
    if left_out is not None:
        np.copyto(target, 0, where=left_out)
    if target is not result:
        np.copyto(result, target)
    return (result, moments) if return_moments else result


def _bounds(function, clip):
    """`clip` as two floats.

    Raises
    ------
    TypeError
        Not a pair of numbers.
    ValueError
        The greater first, or NaN.
    """
    if not isinstance(clip, Sequence) or len(clip) != 2:
        raise TypeError(f"{function}: clip must be a pair of floats, got {clip!r}")
    least, most = (real(f"{function}: clip", bound) for bound in clip)
    if least > most:
        raise ValueError(f"{function}: clip must be the lesser and the greater bound, got {clip!r}")
    return least, most


def standardize_sliding(
    x: NDArray[Any],
    window: int,
    axis: int = 0,
    *,
    center: bool = True,
    min_window: int = 100,
    var: bool = True,
    dtype: DTypeLike | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
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
    given, x = x, _reduction.as_tallied(function, x)
    (axis,) = _reduction.as_axes(function, integer(f"{function}: axis", axis), x.ndim)
    window, min_window = integer(f"{function}: window", window), integer(f"{function}: min_window", min_window)
    if window < 1 or min_window < 1:
        raise ValueError(f"{function}: window and min_window must be positive, got {window} and {min_window}")
    center, var = boolean(f"{function}: center", center), boolean(f"{function}: var", var)
    result = _result(function, x if out is None else given, dtype, out)
    inside = not _reduction.is_walkable(result) or (out is not None and np.may_share_memory(out, x))
    target = empty_like(result, result.dtype.newbyteorder("=")) if inside else result
    _reduction.slide(x, axis, window, min_window, center, var, target)
    if inside:
        np.copyto(result, target)
    return result
