"""What every engine must come close to: the formulas in float64, and the bound that they are held to.

Written from the papers, not from the package: arrays are (N, C, ...), nothing is clever.
"""

import math

import numpy as np

UNIT = {np.dtype(np.float32): 2.0**-24, np.dtype(np.float64): 2.0**-53}


def _affine(z, weight, bias, axis):
    shape = [1] * z.ndim
    shape[axis] = -1
    if weight is not None:
        z = z * np.asarray(weight, np.float64).reshape(shape)
    if bias is not None:
        z = z + np.asarray(bias, np.float64).reshape(shape)
    return z


def _standardize(x, axes, eps):
    x = np.asarray(x, np.longdouble)
    mean = x.mean(axis=axes, keepdims=True)
    var = np.square(x - mean).mean(axis=axes, keepdims=True)
    return ((x - mean) / np.sqrt(var + eps)).astype(np.float64)


def batch_norm(x, weight=None, bias=None, eps=1e-5, running=None):
    """(N, C, ...), with the batch's statistics or with `running` = (mean, var)."""
    if running is None:
        z = _standardize(x, (0, *range(2, x.ndim)), eps)
    else:
        mean, var = (np.asarray(r, np.float64).reshape(1, -1, *[1] * (x.ndim - 2)) for r in running)
        z = (np.asarray(x, np.float64) - mean) / np.sqrt(var + eps)
    return _affine(z, weight, bias, 1)


def layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    """(..., *normalized_shape); weight and bias of normalized_shape."""
    z = _standardize(x, tuple(range(x.ndim - len(normalized_shape), x.ndim)), eps)
    if weight is not None:
        z = z * np.asarray(weight, np.float64)
    if bias is not None:
        z = z + np.asarray(bias, np.float64)
    return z


def rms_norm(x, normalized_shape, weight=None, eps=1e-5):
    """(..., *normalized_shape); weight of normalized_shape."""
    z = np.asarray(x, np.longdouble)
    axes = tuple(range(x.ndim - len(normalized_shape), x.ndim))
    z = (z / np.sqrt(np.square(z).mean(axis=axes, keepdims=True) + eps)).astype(np.float64)
    return z if weight is None else z * np.asarray(weight, np.float64)


def instance_norm(x, weight=None, bias=None, eps=1e-5):
    """(N, C, ...)."""
    return _affine(_standardize(x, tuple(range(2, x.ndim)), eps), weight, bias, 1)


def group_norm(x, groups, weight=None, bias=None, eps=1e-5):
    """(N, C, ...)."""
    z = _standardize(x.reshape(x.shape[0], groups, -1), (2,), eps).reshape(x.shape)
    return _affine(z, weight, bias, 1)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _clipped(x):
    return np.minimum(np.maximum(x + 3, 0), 6) / 6


# Of float64; each is a product or quotient without cancellation, so that its tails have their digits.
ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.minimum(np.maximum(x, 0), 6),
    "leaky_relu": lambda x: np.where(x > 0, x, x * 0.01),
    "silu": lambda x: x * _sigmoid(x),
    "gelu": lambda x: x * np.vectorize(math.erfc, otypes=[float])(x / -math.sqrt(2)) / 2,
    "gelu_tanh": lambda x: x * _sigmoid(math.sqrt(8 / math.pi) * (x + 0.044715 * x**3)),
    "hardswish": lambda x: x * _clipped(x),
    "hardsigmoid": _clipped,
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
}


def activated(x, activation):
    """`activation`, None or a name, of a float64 x."""
    with np.errstate(all="ignore"):
        return x if activation is None else ACTIVATIONS[activation](x)


def bound(expected, dtype, weight=None, bias=None, kappa=1.0):
    """Largest allowed |error|, elementwise, of a result in `dtype` whose float64 value is `expected`.

    float32: 2e-6 on the scale of the normalised values, which the project promises at any offset, plus the
    roundings of the arithmetic that grow with the value itself (subtract, scale, weight, bias: 8 half-ulps).
    float64: the same roundings, and the mean's own rounding, which conditioning `kappa` = sqrt(sum x^2 / S) multiplies.
    """
    unit = UNIT[np.dtype(dtype)]
    scale = 1.0 if weight is None else float(np.max(np.abs(weight), initial=0.0))
    shift = 0.0 if bias is None else float(np.max(np.abs(bias), initial=0.0))
    promised = 2e-6 if np.dtype(dtype) == np.float32 else 64 * unit * kappa
    return promised * scale + 8 * unit * (np.abs(expected) + scale + shift)
