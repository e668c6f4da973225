"""The norms of torch that have no statistics: in NumPy alone, computed in float64 and rounded once.

`cpunorm.functional` says what all norms have in common; these take no part in engines, ISA levels and threads.
"""

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from cpunorm._arguments import as_input, as_out, channel_axis
from cpunorm._call import deliver
from cpunorm._foreign import is_foreign, with_ndarrays
from cpunorm._scalars import integer, real
from cpunorm._types import AnyArray, Array, DataFormat, Out, Scalar, Shape

__all__ = ["local_response_norm", "normalize"]


def _axes(dim, ndim):
    """`dim` as the axes that it names, all for an empty one.

    Raises
    ------
    TypeError
        Neither an int nor a sequence of ints.
    IndexError
        An axis that there is not.
    RuntimeError
        The same axis twice.
    """
    given = [integer("normalize: dim", d) for d in ((dim,) if np.ndim(dim) == 0 else dim)]
    least = max(ndim, 1)  # an array without axes passes for one with one
    for d in given:
        if not -least <= d < least:
            raise IndexError(f"normalize: dim must be from {-least} to {least - 1} for {ndim} dimensions, got {d}")
    axes = tuple(d % least for d in given)
    if len(set(axes)) < len(axes):
        raise RuntimeError(f"normalize: dim names an axis twice: {dim}")
    return axes[:ndim] or tuple(range(ndim))


def _lp_norm(x, p, axes):
    """The p-norm of float64 x over `axes`, which stay with length 1."""
    if p == 0:
        return np.count_nonzero(x, axis=axes, keepdims=True).astype(np.float64)
    x = np.abs(x)
    extreme = x.max(axis=axes, keepdims=True, initial=0) if p > 0 else x.min(axis=axes, keepdims=True)
    if np.isinf(p):
        return extreme
    # In units of the value that counts most, no power that matters leaves float64's range; 0, Inf and NaN are no unit.
    unit = np.where((extreme > 0) & (extreme < np.inf), extreme, 1.0)
    x /= unit
    x **= p
    return unit * x.sum(axis=axes, keepdims=True) ** (1 / p)


@overload
def normalize(
    input: Array[Shape, Scalar],
    p: float = 2.0,
    dim: int | Sequence[int] = 1,
    eps: float = 1e-12,
    out: Array[Shape, Scalar] | None = None,
) -> Array[Shape, Scalar]: ...
@overload
def normalize(
    input: AnyArray,
    p: float = 2.0,
    dim: int | Sequence[int] = 1,
    eps: float = 1e-12,
    out: None = None,
) -> NDArray[Any]: ...
@overload
def normalize(
    input: AnyArray,
    p: float = 2.0,
    dim: int | Sequence[int] = 1,
    eps: float = 1e-12,
    *,
    out: Out,
) -> Out: ...
def normalize(
    input: Any,
    p: float = 2.0,
    dim: int | Sequence[int] = 1,
    eps: float = 1e-12,
    out: Any = None,
) -> Any:
    r"""Divide by the p-norm along an axis: `torch.nn.functional.normalize`.

    .. math:: y = \frac{x}{\max(\lVert x \rVert_p, \epsilon)}, \qquad
              \lVert x \rVert_p = \Bigl(\sum_i \lvert x_i \rvert^p\Bigr)^{1/p}

    Parameters
    ----------
    input : ndarray of any shape
        float16, bfloat16, float32 or float64, any strides; computed in float64.
    p : float
        The exponent. ``inf`` and ``-inf`` are the largest and smallest absolute value, 0 counts what is not 0.
    dim : int or sequence of int
        The axis, or the axes that are taken together; all of them, if it is empty.
    eps : float
        The least that is divided by.
    out : ndarray, optional
        Where to write the result: the input's shape and dtype, writeable; may be `input` itself.

    Returns
    -------
    ndarray
        Shape, dtype and stride order of the input, or `out`.

    Raises
    ------
    IndexError
        A `dim` that the input does not have.
    RuntimeError
        An axis twice in `dim`, or empty with an infinite or negative `p`; an `out` of another shape or dtype or that
        overlaps. Its subclass NotImplementedError for integer, bool and complex input.
    ValueError
        A NaN `p` or `eps`; a read-only `out`.
    TypeError
        Arguments that are not arrays, or not numbers.

    Notes
    -----
    Powers are taken of values relative to the largest (for negative `p` the smallest), so nothing overflows, in float64
    neither. Where torch's float32 norm of values near 1e30 is infinite and its result 0, this one is right; a float16
    `eps` is not 0 here.

    Examples
    --------
    >>> import numpy as np
    >>> from cpunorm.functional import normalize
    >>> normalize(np.array([[3, 4], [0, 0]], np.float32))
    array([[0.6, 0.8],
           [0. , 0. ]], dtype=float32)
    >>> normalize(np.array([[3, -4]], np.float32) * 2.0**100)
    array([[ 0.6, -0.8]], dtype=float32)
    """
    if is_foreign(input) or is_foreign(out):
        return with_ndarrays(normalize, "normalize", {"input": input, "out": out}, p=p, dim=dim, eps=eps)
    x, dtype = as_input("normalize", input, out)
    dtype = dtype or x.dtype
    p, axes, eps = real("normalize: p", p), _axes(dim, x.ndim), real("normalize: eps", eps)
    if out is not None:
        as_out("normalize", out, input, dtype)
    if (p < 0 or p == np.inf) and x.size == 0 and any(x.shape[axis] == 0 for axis in axes):
        raise RuntimeError(f"normalize: there is no norm with p={p} of axis {dim} of shape {x.shape}, which is empty")
    y = x.astype(np.float64)
    with np.errstate(all="ignore"):
        y /= np.maximum(_lp_norm(y, p, axes), eps)
    return deliver(y, out, dtype)


@overload
def local_response_norm(
    input: Array[Shape, Scalar],
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    data_format: DataFormat = "channels_first",
    out: Array[Shape, Scalar] | None = None,
) -> Array[Shape, Scalar]: ...
@overload
def local_response_norm(
    input: AnyArray,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    data_format: DataFormat = "channels_first",
    out: None = None,
) -> NDArray[Any]: ...
@overload
def local_response_norm(
    input: AnyArray,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    data_format: DataFormat = "channels_first",
    out: Out,
) -> Out: ...
def local_response_norm(
    input: Any,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    data_format: DataFormat = "channels_first",
    out: Any = None,
) -> Any:
    r"""Divide by a power of the mean square of neighbouring channels: `torch.nn.functional.local_response_norm`.

    .. math:: y_c = x_c \Bigl(k + \frac{\alpha}{\mathit{size}}
              \sum_{c' = c - \lfloor \mathit{size} / 2 \rfloor}^{c + \lfloor (\mathit{size} - 1) / 2 \rfloor}
              x_{c'}^2 \Bigr)^{-\beta}

    where channels that do not exist count as zeros.

    Parameters
    ----------
    input : ndarray, (N, C, ...) or (N, ..., C)
        At least three axes; float16, bfloat16, float32 or float64, any strides; computed in float64.
    size : int
        The number of neighbours, positive.
    alpha, beta, k : float
    data_format : {"channels_first", "channels_last"}
    out : ndarray, optional
        Where to write the result: the input's shape and dtype, writeable; may be `input` itself.

    Returns
    -------
    ndarray
        Shape, dtype and stride order of the input, or `out`.

    Raises
    ------
    ValueError
        Fewer than three axes; a NaN `alpha`, `beta` or `k`; a bad `data_format`; a read-only `out`.
    RuntimeError
        A `size` below 1; an `out` of another shape or dtype or that overlaps. Its subclass NotImplementedError for
        integer, bool and complex input.
    TypeError
        Arguments that are not arrays, or not numbers.

    References
    ----------
    Krizhevsky, Sutskever and Hinton, ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012,
    section 3.3.

    Examples
    --------
    >>> import numpy as np
    >>> from cpunorm.functional import local_response_norm
    >>> local_response_norm(np.ones((1, 4, 1), np.float32), 2, alpha=2, beta=1)[0, :, 0].round(4)
    array([0.5   , 0.3333, 0.3333, 0.3333], dtype=float32)
    """
    function = "local_response_norm"
    if is_foreign(input) or is_foreign(out):
        others = {"size": size, "alpha": alpha, "beta": beta, "k": k, "data_format": data_format}
        return with_ndarrays(local_response_norm, function, {"input": input, "out": out}, **others)
    x, dtype = as_input(function, input, out)
    dtype = dtype or x.dtype
    if x.ndim < 3:
        raise ValueError(f"{function}: expected at least 3 dimensions (samples, channels, ...), got {x.shape}")
    axis = channel_axis(function, x, data_format)
    size = integer(f"{function}: size", size)
    if size < 1:
        raise RuntimeError(f"{function}: size must be positive, got {size}")
    alpha, beta, k = (real(f"{function}: {n}", v) for n, v in (("alpha", alpha), ("beta", beta), ("k", k)))
    if out is not None:
        as_out(function, out, input, dtype)
    y = x.astype(np.float64)
    with np.errstate(all="ignore"):
        squares = np.moveaxis(np.square(y), axis, 0)
        sums, channels = np.zeros_like(squares), len(squares)
        for offset in range(max(-(size // 2), 1 - channels), min((size - 1) // 2, channels - 1) + 1):
            low, high = max(0, -offset), min(channels, channels - offset)
            sums[low:high] += squares[low + offset : high + offset]
        y /= np.moveaxis((sums * (alpha / size) + k) ** beta, 0, axis)
    return deliver(y, out, dtype)
