"""The slow half of each check of moments and standardize, as `_arguments` is of the norms'."""

import itertools
from collections.abc import Sequence

import numpy as np

from cpunorm._arguments import HALVES, as_out, check_array
from cpunorm._memory import empty_like
from cpunorm._scalars import integer, real

__all__ = [
    "bounds",
    "chosen_values",
    "reduced_axes",
    "statistics_result",
]


def reduced_axes(function, axis, ndim):
    """`axis` as a sorted tuple of the axes that it names.

    Raises
    ------
    TypeError
        Neither an int nor a sequence of ints.
    numpy.exceptions.AxisError
        An axis that there is not.
    ValueError
        The same axis twice.
    """
    given = [integer(f"{function}: axis", one) for one in ((axis,) if np.ndim(axis) == 0 else axis)]
    for one in given:
        if not -ndim <= one < ndim:
            raise np.exceptions.AxisError(f"{function}: axis {one} is out of range for {ndim} dimensions")
    axes = sorted(one % ndim for one in given)
    for one, other in itertools.pairwise(axes):
        if one == other:
            raise ValueError(f"{function}: axis {one} is named twice: {axis}")
    return tuple(axes)


def chosen_values(function, x, where, lengths, length_axis):
    """Which values count in statistics, as a bool array of the shape of x, or None for all of them.

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


def bounds(function, clip):
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


def statistics_result(function, x, dtype, out, **others):
    """`out`, checked, or a new array for the result of statistics: in the order of x, of `dtype`, or of what x gives.

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
