"""Statistics and preprocessing of arrays."""

import numpy as np

from cpunorm._moments import Moments

__all__ = ["moments"]


def moments(x, axis=None, *, where=None, lengths=None, length_axis=1, nan="propagate", dtype=np.float64):
    """Placeholder in NumPy, until there are kernels."""
    axes = tuple(range(x.ndim)) if axis is None else tuple(a % x.ndim for a in ((axis,) if np.ndim(axis) == 0 else axis))
    z = np.asarray(x, np.float64)
    mean = z.mean(axes, keepdims=True)
    m2 = np.square(z - mean).sum(axes)
    mean = mean.squeeze(axes)
    low = np.zeros_like(mean)
    values = np.stack([mean, low, m2, low, z.min(axes), z.max(axes)])
    return Moments(x.size // max(mean.size, 1), values, None if axis is None else axes, dtype)
