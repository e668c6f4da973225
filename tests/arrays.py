"""Arrays for tests of rules, and what shows that a call left them alone."""

import numpy as np

# The BatchNorm classes, and a shape with 3 channels for each.
BATCH_NORMS = {"BatchNorm1d": (4, 3), "BatchNorm2d": (4, 3, 2, 2), "BatchNorm3d": (4, 3, 2, 2, 2)}


def ramp(shape, dtype=np.float32):
    """0, 1, 2, ... in that shape."""
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def memory(arguments):
    """Dtype, shape and bytes of every array among the arguments."""
    arrays = {k: v for k, v in arguments.items() if isinstance(v, np.ndarray) and not v.dtype.hasobject}
    return {k: (v.dtype, v.shape, v.tobytes()) for k, v in arrays.items()}


def lying_at(place, values, beside):
    """A copy of contiguous values, the first one the `place`-th of a line of the cache, and `beside` all around them.

    Others are given back as they are.
    """
    if not values.flags.c_contiguous:
        return values
    line = 64 // values.itemsize
    room = np.full(values.size + 6 * line, beside, values.dtype)
    first = 2 * line - room.ctypes.data % 64 // values.itemsize + place % line
    copy = room[first : first + values.size].reshape(values.shape)
    copy[...] = values
    return copy
