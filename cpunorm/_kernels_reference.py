"""The kernel set in float64 NumPy: slow, obvious, the oracle of the other engines.

One function, of what `_norm.pxd` describes; its caller is `_call`, and an engine checks nothing.
"""

import math

import numpy as np

__all__ = ["ACTIVATIONS", "forward"]


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _hardsigmoid(x):
    return np.clip(x + 3, 0, 6) / 6


def _gelu(x):
    return x * (np.frompyfunc(math.erfc, 1, 1)(x * -math.sqrt(0.5)).astype(np.float64) / 2)


def _gelu_tanh(x):
    return x * _sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


ACTIVATIONS = {
    "relu": lambda x: np.where(x < 0, 0, x),
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky_relu": lambda x: np.where(x < 0, 0.01 * x, x),
    "silu": lambda x: x * _sigmoid(x),
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "hardswish": lambda x: x * _hardsigmoid(x),
    "hardsigmoid": _hardsigmoid,
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
}


def forward(x, y, groups, along, given, about_zero, mean, var, weight, bias, eps, residual, activation):
    """y = (x - mean) / sqrt(var + eps) * weight + bias.

    Parameters
    ----------
    x, y : ndarray, (samples, outer, middle, channels, inner)
        Canonical views of one dtype, float32 or float64, with any strides; y is written, and may be x, or None.
    groups : int
        Domains of a sample: what shares its moments are neighbouring channels at all positions.
    along : bool
        Whether weight and bias follow the positions (outer, middle, inner), not the channels.
    given : bool
        Whether mean and var are those of each channel; else they are written, for each (sample, group), if not None.
    about_zero : bool
        Whether the mean is 0 by definition.
    weight, bias : ndarray or None
        Contiguous vectors in the dtype of x.
    residual : ndarray or None
        Like y, which it may be: what is added to it.
    activation : str or None
        Of `ACTIVATIONS`.
    """
    samples, outer, middle, channels, inner = x.shape
    shape = (samples, outer, middle, groups, channels // groups, inner)
    with np.errstate(all="ignore"):  # Inf and NaN spread as the formula says, in silence
        z = x.astype(np.float64).reshape(shape)
        if given:
            mu, sigma2 = (moment.reshape(1, 1, 1, groups, -1, 1) for moment in (mean, var))
        else:
            axes = (1, 2, 4, 5)
            mu = 0 if about_zero else z.mean(axis=axes, keepdims=True)
            sigma2 = np.square(z - mu).mean(axis=axes, keepdims=True)
            if mean is not None:
                mean[:], var[:] = np.ravel(mu), sigma2.ravel()
        z = ((z - mu) / np.sqrt(sigma2 + eps)).reshape(x.shape)
        follow = (outer, middle, 1, inner) if along else (channels, 1)
        if weight is not None:
            z *= weight.reshape(follow)
        if bias is not None:
            z += bias.reshape(follow)
        if residual is not None:
            z += residual
        if activation is not None:
            z = ACTIVATIONS[activation](z)
        if y is not None:
            y[...] = z
