"""The kernel set in float64 NumPy: slow, obvious, the oracle of the other engines.

Functions of what `_norm.pxd` and `_reduction.pxd` describe; their callers are `_call` and `_reduction`, and an engine
checks nothing.
"""

import math

import numpy as np

__all__ = ["ACTIVATIONS", "forward", "moments", "slide", "standardize", "window"]


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


def moments(x, axes, where, omit):
    """Count, mean and sum of squared deviations, these two in two parts, least and most, of slices of x.

    Parameters
    ----------
    x : ndarray
    axes : tuple of int
        Those that are reduced.
    where : ndarray of bool or None
        What counts; of the shape of x.
    omit : bool
        Whether NaN does not count.

    Returns
    -------
    ndarray of float64, (7, *kept)
    """
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    shape = *(x.shape[axis] for axis in kept), -1

    def rows(array):
        return np.ascontiguousarray(array.transpose(*kept, *axes)).reshape(shape)

    z = rows(x).astype(np.longdouble)
    chosen = np.ones(z.shape, np.bool) if where is None else rows(where)
    if omit:
        chosen = chosen & (z == z)
    integers = x.dtype.kind in "iu"
    count = chosen.sum(-1)

    def mean_of(values):
        counted = np.where(chosen, values, 0)
        total = counted.sum(-1)
        if integers:  # sums of both parts of 64 bits are exact
            high = np.floor(counted * 2.0**-32) * 2.0**32
            total = high.sum(-1) + (counted - high).sum(-1)
        return total / np.maximum(count, 1)

    record = np.empty((7, *z.shape[:-1]))
    with np.errstate(all="ignore"):
        mean = mean_of(z)
        near = z - z[..., :1] if integers else z  # a mean of 64 bits has no digits left for its fraction
        m2 = np.square(np.where(chosen, near - mean_of(near)[..., None], 0)).sum(-1)
        record[0], record[1], record[3] = count, mean, m2
        record[2] = np.nan_to_num(mean - record[1], posinf=0, neginf=0)
        record[4] = np.nan_to_num(m2 - record[3], posinf=0, neginf=0)
    record[5] = np.where(chosen, z, np.inf).min(-1)
    record[6] = np.where(chosen, z, -np.inf).max(-1)
    return record


def standardize(x, axes, mean, scale, shift, least, most, y):
    """y = (x - mean) * scale + shift, clipped to least and most; the three are of the kept axes."""
    with np.errstate(all="ignore"):
        z = x.astype(np.float64) - np.expand_dims(mean, axes)
        z *= np.expand_dims(scale, axes)
        z += np.expand_dims(shift, axes)
        y[...] = np.clip(z, least, most)


def window(frame, frames, length, least, centred):
    """The frames whose moments a frame gets: first and last + 1."""
    first = frame - length // 2 if centred else frame - length
    last = first + length if centred else frame + 1
    first, last = max(first, 0), last - min(first, 0)
    if not centred:
        last = max(frame + 1, least)
    return max(first - max(last - frames, 0), 0), min(last, frames)


def slide(x, axis, length, least, centred, scaled, y):
    """y = x about, and by the deviation of, the window around (behind) each frame along `axis`."""
    x, y = np.moveaxis(x, axis, 0), np.moveaxis(y, axis, 0)
    for frame in range(len(x)):
        first, last = window(frame, len(x), length, least, centred)
        record = moments(x[first:last], (0,), None, False)
        with np.errstate(all="ignore"):
            z = (x[frame].astype(np.float64) - record[1]) - record[2]
            y[frame] = np.where(record[3] == 0, 0, z / np.sqrt(record[3] / record[0])) if scaled else z
