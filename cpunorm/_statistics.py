"""Statistics and preprocessing of arrays."""

import numpy as np

from cpunorm import _reduction
from cpunorm._moments import VARIES, Moments

__all__ = ["moments"]


def moments(x, axis=None, *, where=None, lengths=None, length_axis=1, nan="propagate", dtype=np.float64):
    """Placeholder docs."""
    x = _reduction.as_tallied("moments", x)
    axes = _reduction.as_axes("moments", axis, x.ndim)
    omit = nan == "omit" and x.dtype.kind not in "biu"
    record = _reduction.moments(x, axes, where, omit)
    if omit or where is not None:
        same = VARIES
    else:
        same = 1
        for a in axes:
            same *= x.shape[a]
    return Moments(record, same, None if axis is None else axes, dtype)
