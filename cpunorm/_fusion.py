"""BatchNorm in evaluation folded into the weights of the layer before it, as `torch.nn.utils.fusion` does.

Evaluation is ``y = scale * (x - bn_rm) + bn_b`` with ``scale = bn_w / sqrt(bn_rv + bn_eps)``; what is linear before it
takes it in.  All in float64, rounded once.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpunorm import _running
from cpunorm._arguments import HALVES, check_array
from cpunorm._scalars import boolean, positive_eps
from cpunorm._types import Array, Scalar, Shape

__all__ = ["fuse_conv_bn_weights", "fuse_linear_bn_weights"]

FLOATS = ("float32", "float64", *HALVES)


def _check_arrays(function, lengths, **arrays):
    """Raise unless all are arrays of floats, and those named in `lengths` vectors so long; some may be None."""
    for name, array in arrays.items():
        if array is None and name in ("conv_b", "linear_b", "bn_w", "bn_b"):
            continue
        check_array(f"{function}: {name}", array)
        if array.dtype.name not in FLOATS:
            raise RuntimeError(f"{function}: {name} must have one of the dtypes {', '.join(FLOATS)}, got {array.dtype}")
        if name in lengths and array.shape != (lengths[name],):
            raise RuntimeError(f"{function}: {name} must have shape ({lengths[name]},), got {array.shape}")


def _scale_and_bias(function, bias, bias_dtype, bn_rm, bn_rv, bn_eps, bn_w, bn_b):
    """The factor of each channel, in float64, and the bias of the fused layer."""
    eps = positive_eps(function, bn_eps, zero_allowed=True)
    given = _running.snapshot([bias, bn_rm, bn_rv, bn_w, bn_b])  # of one moment, if the module trains meanwhile
    defaults = (0.0, None, None, 1.0, 0.0)
    bias, mean, var, weight, shift = (
        default if array is None else array.astype(np.float64) for array, default in zip(given, defaults, strict=True)
    )
    with np.errstate(all="ignore"):  # a variance that makes no sense gives NaN or Inf, as in torch
        scale = weight / np.sqrt(var + eps)
        return scale, ((bias - mean) * scale + shift).astype(bias_dtype)


def _scaled(weight, scale):
    """`weight` * `scale`, computed in float64 and rounded to the weight's dtype."""
    with np.errstate(all="ignore"):
        return (weight.astype(np.float64) * scale).astype(weight.dtype)


def fuse_conv_bn_weights(
    conv_w: Array[Shape, Scalar],
    conv_b: NDArray[Any] | None,
    bn_rm: NDArray[Any],
    bn_rv: NDArray[Any],
    bn_eps: float,
    bn_w: NDArray[Any] | None,
    bn_b: NDArray[Any] | None,
    transpose: bool = False,
) -> tuple[Array[Shape, Scalar], NDArray[Any]]:
    r"""Fold a BatchNorm in evaluation into the convolution before it: `torch.nn.utils.fusion.fuse_conv_bn_weights`.

    .. math:: w'_c = w_c \frac{\gamma_c}{\sqrt{\sigma_c^2 + \epsilon}}, \qquad
              b'_c = (b_c - \mu_c) \frac{\gamma_c}{\sqrt{\sigma_c^2 + \epsilon}} + \beta_c

    Parameters
    ----------
    conv_w : ndarray, (C, C_in / groups, ...) or, transposed, (C_in, C / groups, ...)
        The weight of the convolution; float16, bfloat16, float32 or float64, as all others, in any mix.
    conv_b : ndarray, (C,), or None
        Its bias.
    bn_rm, bn_rv : ndarray, (C,)
        Running mean and variance.
    bn_eps : float
        Not negative.
    bn_w, bn_b : ndarray, (C,), or None
        Weight and bias of the BatchNorm.
    transpose : bool
        Whether the convolution is a transposed one. Its number of groups is C / ``conv_w.shape[1]``. (torch's function
        raises an error for these, or returns a weight of another shape.)

    Returns
    -------
    weight : ndarray
        Of the shape and dtype of `conv_w`.
    bias : ndarray, (C,)
        In the dtype of `conv_b`, or of `conv_w` if that is None.

    Raises
    ------
    RuntimeError
        Shapes that don't go together; a dtype that is no floating-point one.
    ValueError
        A negative or NaN `bn_eps`.
    TypeError
        Arguments that are not arrays, or `transpose` not a bool.

    Notes
    -----
    Computed in float64 and rounded once, so each weight is the nearest to the exact product. The fused layer rounds in
    another order than the two did: outputs differ by a few units in the last place of the largest term of their sums.

    References
    ----------
    Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
    CVPR 2018 (arXiv:1712.05877), section 3.2.

    Examples
    --------
    >>> import numpy as np, cpunorm
    >>> rng = np.random.default_rng(0)
    >>> conv_w, conv_b = rng.standard_normal((4, 3, 1, 1)), rng.standard_normal(4)
    >>> mean, var, eps = np.arange(4.0), np.array([1, 0.25, 4, 16]), 1e-5
    >>> bn_w, bn_b = np.array([1.0, 2, 3, 4]), np.arange(4.0)
    >>> weight, bias = cpunorm.fuse_conv_bn_weights(conv_w, conv_b, mean, var, eps, bn_w, bn_b)

    The largest relative change of a weight, here that of a channel with variance 1/4 and weight 2:

    >>> round(float(np.abs(weight / conv_w - 1).max()), 4)
    2.9999

    One layer now does what two did:

    >>> x = rng.standard_normal((8, 3, 5, 5))
    >>> def conv(x, w, b):
    ...     return np.einsum("oi,nihw->nohw", w[:, :, 0, 0], x) + b[:, None, None]
    >>> y = cpunorm.functional.batch_norm(conv(x, conv_w, conv_b), mean, var, bn_w, bn_b, eps=eps)
    >>> np.allclose(y, conv(x, weight, bias), rtol=0, atol=1e-13)
    True
    """
    function = "fuse_conv_bn_weights"
    check_array(f"{function}: bn_rm", bn_rm)
    channels = bn_rm.size
    lengths = dict.fromkeys(("conv_b", "bn_rm", "bn_rv", "bn_w", "bn_b"), channels)
    _check_arrays(function, lengths, conv_w=conv_w, conv_b=conv_b, bn_rm=bn_rm, bn_rv=bn_rv, bn_w=bn_w, bn_b=bn_b)
    transpose = boolean(f"{function}: transpose", transpose)
    axes = conv_w.shape[:2]
    groups = (channels // max(axes[-1], 1) or 1) if transpose and axes else 1
    if len(axes) < 2 or axes[transpose] * groups != channels or axes[0] % groups:
        kind = "a transposed" if transpose else "a"
        raise RuntimeError(
            f"{function}: conv_w of shape {conv_w.shape} is not that of {kind} convolution to {channels} channels"
        )
    scale, bias = _scale_and_bias(
        function, conv_b, (conv_w if conv_b is None else conv_b).dtype, bn_rm, bn_rv, bn_eps, bn_w, bn_b
    )
    # a transposed convolution's rows are inputs, those of a group lead to its own share of the channels
    scale = scale.reshape(groups, axes[1]).repeat(axes[0] // groups, axis=0) if transpose else scale[:, np.newaxis]
    return _scaled(conv_w, scale.reshape(*scale.shape, *[1] * (conv_w.ndim - 2))), bias


def fuse_linear_bn_weights(
    linear_w: Array[Shape, Scalar],
    linear_b: NDArray[Any] | None,
    bn_rm: NDArray[Any],
    bn_rv: NDArray[Any],
    bn_eps: float,
    bn_w: NDArray[Any] | None,
    bn_b: NDArray[Any] | None,
) -> tuple[Array[Shape, Scalar], NDArray[Any]]:
    r"""Fold a BatchNorm in evaluation into the linear layer before it: `torch.nn.utils.fusion.fuse_linear_bn_weights`.

    The formula is that of `fuse_conv_bn_weights`.

    Parameters
    ----------
    linear_w : ndarray, (out_features, in_features)
        The weight of the layer; float16, bfloat16, float32 or float64, as all others, in any mix.
    linear_b : ndarray, (out_features,), or None
        Its bias.
    bn_rm, bn_rv : ndarray, (C,)
        Running mean and variance. C is out_features, or 1.
    bn_eps : float
        Not negative.
    bn_w, bn_b : ndarray, (C,), or None
        Weight and bias of the BatchNorm. (torch's function takes no None.)

    Returns
    -------
    weight : ndarray
        Of the shape and dtype of `linear_w`.
    bias : ndarray, (out_features,)
        In the dtype of `linear_b`, or of `linear_w` if that is None.

    Raises
    ------
    RuntimeError
        Shapes that don't go together; a dtype that is no floating-point one.
    ValueError
        A negative or NaN `bn_eps`.
    TypeError
        Arguments that are not arrays.

    References
    ----------
    As of `fuse_conv_bn_weights`.

    Examples
    --------
    >>> import numpy as np, cpunorm
    >>> linear_w = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    >>> mean, var = np.array([1, 2], np.float32), np.array([4, 0.25], np.float32)
    >>> weight, bias = cpunorm.fuse_linear_bn_weights(linear_w, None, mean, var, 0.0, None, None)
    >>> weight
    array([[0.5, 1. ],
           [6. , 8. ]], dtype=float32)
    >>> bias
    array([-0.5, -4. ], dtype=float32)

    The largest relative change of a weight:

    >>> float(np.abs(weight / linear_w - 1).max())
    1.0
    """
    function = "fuse_linear_bn_weights"
    check_array(f"{function}: linear_w", linear_w)
    check_array(f"{function}: bn_rm", bn_rm)
    if linear_w.ndim != 2:
        raise RuntimeError(
            f"{function}: linear_w must have shape (out_features, in_features), got shape {linear_w.shape}"
        )
    outputs = len(linear_w)
    features = 1 if bn_rm.size == 1 else outputs
    lengths = {"linear_b": outputs} | dict.fromkeys(("bn_rm", "bn_rv", "bn_w", "bn_b"), features)
    _check_arrays(
        function, lengths, linear_w=linear_w, linear_b=linear_b, bn_rm=bn_rm, bn_rv=bn_rv, bn_w=bn_w, bn_b=bn_b
    )
    scale, bias = _scale_and_bias(
        function, linear_b, (linear_w if linear_b is None else linear_b).dtype, bn_rm, bn_rv, bn_eps, bn_w, bn_b
    )
    return _scaled(linear_w, scale[:, np.newaxis]), np.broadcast_to(bias, outputs).copy()
