"""The kernel set in float64 NumPy: slow, obvious, the oracle of the other engines.

One function, of what `_norm.pxd` describes; its caller is `_call`, and an engine checks nothing.
"""

import numpy as np

__all__ = ["forward"]


def forward(x, y, groups, along, given, about_zero, mean, var, weight, bias, eps):
    """y = (x - mean) / sqrt(var + eps) * weight + bias.

    Parameters
    ----------
    x, y : ndarray, (samples, outer, middle, channels, inner)
        Canonical views of one dtype, float32 or float64, with any strides; y is written, and may be x.
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
                mean[:], var[:] = mu.ravel(), sigma2.ravel()
        z = ((z - mu) / np.sqrt(sigma2 + eps)).reshape(x.shape)
        follow = (outer, middle, 1, inner) if along else (channels, 1)
        if weight is not None:
            z *= weight.reshape(follow)
        if bias is not None:
            z += bias.reshape(follow)
        y[...] = z
