"""The kernel set in float64 NumPy: slow, obvious, the oracle of the other engines.

The kernel set
--------------
Four functions, the same in every engine.  Callers are `cpunorm.functional` and the tests; arguments
have been checked there, an engine checks nothing.

- ``x`` and ``y`` are *canonical views* (`cpunorm._layout`) of equal shape and dtype, float32 or float64,
  with any strides; ``y`` may be ``x`` itself.
- ``weight`` and ``bias`` are contiguous vectors in the dtype of ``x``, or None.
- ``mean`` and ``var`` are contiguous float64 vectors, one value per channel; ``var`` is biased.
- ``num_threads`` is an upper limit; the result has the same bits whatever it is.
"""

import numpy as np

__all__ = ["batch_norm_inference", "batch_norm_training", "group_norm", "layer_norm"]


def _normalize(x, y, mean, var, weight, bias, eps):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, everything broadcast against x."""
    with np.errstate(all="ignore"):  # Inf and NaN spread as the formula says, in silence
        z = (x.astype(np.float64) - mean) / np.sqrt(var + eps)
        if weight is not None:
            z *= weight
        if bias is not None:
            z += bias
        y[...] = z


def _moments(x, axes):
    """Mean and biased variance over `axes`, kept as axes of length 1."""
    with np.errstate(all="ignore"):
        z = x.astype(np.float64)
        mean = z.mean(axis=axes, keepdims=True)
        return mean, np.square(z - mean).mean(axis=axes, keepdims=True)


def _along_channels(vector):
    return None if vector is None else vector[:, None]


def batch_norm_training(x, y, mean, var, weight, bias, eps, num_threads):
    """x, y: (outer, middle, channels, inner); writes the batch's moments to `mean` and `var`."""
    batch_mean, batch_var = _moments(x, (0, 1, 3))
    mean[:], var[:] = batch_mean.ravel(), batch_var.ravel()
    _normalize(x, y, batch_mean, batch_var, _along_channels(weight), _along_channels(bias), eps)


def batch_norm_inference(x, y, mean, var, weight, bias, eps, num_threads):
    """x, y: (outer, middle, channels, inner)."""
    mean, var, weight, bias = map(_along_channels, (mean, var, weight, bias))
    _normalize(x, y, mean, var, weight, bias, eps)


def group_norm(x, y, groups, weight, bias, eps, num_threads):
    """x, y: (samples, middle, channels, inner); moments per sample over `channels // groups` channels."""
    samples, middle, channels, inner = x.shape
    grouped = x.reshape(samples, middle, groups, channels // groups, inner)
    mean, var = (
        np.repeat(moment.reshape(samples, 1, groups, 1), channels // groups, axis=2)
        for moment in _moments(grouped, (1, 3, 4))
    )
    _normalize(x, y, mean, var, _along_channels(weight), _along_channels(bias), eps)


def layer_norm(x, y, weight, bias, eps, num_threads):
    """x, y: (outer, middle, width); moments per row of `width` values."""
    mean, var = _moments(x, 2)
    _normalize(x, y, mean, var, weight, bias, eps)
