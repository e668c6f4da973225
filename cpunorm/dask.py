"""Statistics of dask arrays: a `Moments` per chunk, merged as a tree (extra ``dask``)."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

try:
    import dask
    import dask.array
except ModuleNotFoundError:
    message = 'cpunorm.dask needs dask; please run: pip install "cpunorm[dask]"'
    raise ModuleNotFoundError(message, name="dask") from None

import cpunorm
from cpunorm import _reduction
from cpunorm._moments import VARIES, Moments

__all__ = ["moments", "standardize"]


def _check(function, array):
    if not isinstance(array, dask.array.Array):
        raise TypeError(f"cpunorm.dask.{function}: expected a dask array, got {type(array).__qualname__}")


def _chunk_moments(chunk, axes, nan):
    """The moments of a chunk, in silence if it is empty: others may not be."""
    chunk = _reduction.as_tallied("moments", chunk)
    omit = nan == "omit" and chunk.dtype.kind not in "biu"
    return Moments(_reduction.moments(chunk, axes, None, omit), VARIES, axes)


def _beside(parts, shape, axis, same_count, dtype):
    """The moments of all slices from those of chunks of them, which are in the order of `shape`."""
    records = np.empty(len(parts), object)
    records[:] = [part._record for part in parts]
    blocks = records.reshape(shape).tolist()
    record = np.block(blocks) if shape else blocks
    return Moments(record, same_count, axis, dtype)


def moments(
    array: Any,
    axis: int | Sequence[int] | None = None,
    *,
    nan: Literal["propagate", "omit"] = "propagate",
    dtype: DTypeLike = np.float64,
) -> Any:
    """`cpunorm.moments` of a dask array, lazily.

    Parameters
    ----------
    array : dask.array.Array
    axis : int, sequence of int or None
        The axes that are taken together; None for all.
    nan : {"propagate", "omit"}
    dtype : dtype-like
        In which the moments are shown.

    Returns
    -------
    dask.delayed.Delayed
        Its ``compute()`` gives the `Moments`.

    Raises
    ------
    TypeError
        Not a dask array.
    ValueError
        An axis twice, another `nan`, or chunks of unknown size.
    numpy.exceptions.AxisError
        An axis that there is not.

    Notes
    -----
    Each chunk is read once. Chunks are merged two by two in a tree that depends on their number alone, so the bits do
    not depend on scheduler, workers and the order in which they finish.

    Examples
    --------
    >>> import dask.array, cpunorm.dask
    >>> cpunorm.dask.moments(dask.array.arange(10, chunks=3)).compute()
    Moments(count=10, mean=4.5, std=2.8722813232690143, min=0.0, max=9.0, axis=None)
    """
    _check("moments", array)
    axes = _reduction.as_axes("moments", axis, array.ndim)
    if nan not in ("propagate", "omit"):
        raise ValueError(f"cpunorm.dask.moments: nan must be 'propagate' or 'omit', got {nan!r}")
    if np.isnan(array.size):
        raise ValueError(f"cpunorm.dask.moments: chunks of unknown size: {array.chunks}; see compute_chunk_sizes")
    chunk_moments, merge = dask.delayed(_chunk_moments, pure=True), dask.delayed(Moments.__add__, pure=True)
    blocks = array.to_delayed()
    kept = [a for a in range(array.ndim) if a not in axes]
    rows = blocks.transpose(*kept, *axes).reshape(*(blocks.shape[a] for a in kept), -1)
    found = []
    for index in np.ndindex(rows.shape[:-1]):
        parts = [chunk_moments(block, axes, nan) for block in rows[index]]
        while len(parts) > 1:
            pairs = zip(parts[::2], parts[1::2], strict=False)
            parts = [merge(*pair) for pair in pairs] + parts[len(parts) // 2 * 2 :]
        found.append(parts[0])
    same = VARIES if nan == "omit" else int(np.prod([array.shape[a] for a in axes]))
    return dask.delayed(_beside)(found, rows.shape[:-1], None if axis is None else axes, same, dtype)


_moments = moments  # for where an argument has its name


def _standardize_chunk(chunk, found, axes, options, block_info=None):
    """A chunk standardized by the moments of its slices."""
    where = [slice(*span) for a, span in enumerate(block_info[0]["array-location"]) if a not in axes]
    own = Moments(np.ascontiguousarray(found._record[(slice(None), *where)]), VARIES, axes)
    return cpunorm.standardize(chunk, axes, moments=own, **options)


def standardize(
    array: Any,
    axis: int | Sequence[int] | None = None,
    *,
    moments: Moments | None = None,
    nan: Literal["propagate", "omit"] = "propagate",
    dtype: DTypeLike | None = None,
    **options: Any,
) -> Any:
    """`cpunorm.standardize` of a dask array, lazily, chunk by chunk by the moments of all of them.

    Parameters
    ----------
    array : dask.array.Array
    axis : int, sequence of int or None
        The axes that are taken together; None for all.
    moments : Moments or delayed Moments, optional
        Given ones instead of those of `array`.
    nan : {"propagate", "omit"}
    dtype : dtype-like, optional
        Of the result; that of `array`, float32 for integers, by default.
    **options
        `eps`, `floor`, `ddof` and `clip`, as in `cpunorm.standardize`.

    Returns
    -------
    dask.array.Array
        With the chunks of `array`.

    Raises
    ------
    TypeError
        Not a dask array.
    ValueError
        As `moments`.
    numpy.exceptions.AxisError
        An axis that there is not.

    Examples
    --------
    >>> import dask.array, cpunorm.dask
    >>> cpunorm.dask.standardize(dask.array.arange(4.0, chunks=2)).compute().round(4)
    array([-1.3416, -0.4472,  0.4472,  1.3416])
    """
    _check("standardize", array)
    axes = _reduction.as_axes("standardize", axis, array.ndim)
    found = _moments(array, axis, nan=nan) if moments is None else moments
    result = np.dtype(dtype or (np.float32 if array.dtype.kind in "biu" else array.dtype))
    options = options | {"dtype": result}
    return array.map_blocks(
        _standardize_chunk, found, axes, options, dtype=result, meta=np.empty((0,) * array.ndim, result)
    )
