"""An array, in whatever layout, seen as the canonical view that the kernels walk; nothing is copied here.

Two views exist.  NCHW and NHWC are two stride patterns of the first.

- the *channel view* ``(outer, middle, channels, inner)`` for BatchNorm and GroupNorm: all axes but the
  channels', neighbours that lie evenly in memory merged.  Three places for them are enough for every
  strided array up to rank 4, whatever was sliced, flipped or transposed.
- the *row view* ``(outer, middle, width)`` for LayerNorm.

Input and output are collapsed together, so that one index means the same element in both.
"""

from cpunorm._memory import strided

__all__ = ["channel_view", "is_walkable", "row_view", "sample_view"]


def is_walkable(array):
    """Whether a kernel can step through the memory of `array`: aligned, whole elements apart."""
    return array.flags.aligned and all(stride % array.itemsize == 0 for stride in array.strides)


def _merge(x, y, axes):
    """`axes` as a list of (length, stride in x, stride in y), neighbours merged where both arrays allow it."""
    merged = []
    for axis in axes:
        length, sx, sy = x.shape[axis], x.strides[axis], y.strides[axis]
        if length == 1:
            continue
        if merged and merged[-1][1] == length * sx and merged[-1][2] == length * sy:
            merged[-1] = (merged[-1][0] * length, sx, sy)
        else:
            merged.append((length, sx, sy))
    return merged


def _outermost_first(x, axes):
    """`axes` from the largest stride of x to the smallest: the order in which memory is best walked."""
    return sorted(axes, key=lambda axis: -abs(x.strides[axis]))


def _views(x, y, *places):
    """x and y as arrays whose axes are `places`; None when one place would have to hold two axes."""
    if any(len(place) > 1 for place in places):
        return None
    lengths, strides_x, strides_y = zip(*(place[0] if place else (1, 0, 0) for place in places), strict=True)
    return strided(x, lengths, strides_x), strided(y, lengths, strides_y)


def _split(merged):
    """Up to three merged axes as the places (outer, middle, inner), filled from inner, outer, middle."""
    return merged[:-1][:1], merged[1:-1], merged[-1:]


def channel_view(x, y, axis):
    """(outer, middle, channels, inner) of x and y; BatchNorm's, which may reorder all axes but `axis`.

    Returns None when more than three axes are left after merging (possible from rank 5 on).
    """
    others = [a for a in range(x.ndim) if a != axis]
    outer, middle, inner = _split(_merge(x, y, _outermost_first(x, others)))
    channels = [(x.shape[axis], x.strides[axis], y.strides[axis])]
    return _views(x, y, outer, middle, channels, inner)


def sample_view(x, y, axis):
    """(samples, middle, channels, inner) of x and y; GroupNorm's, whose first axis stays the samples'."""
    others = [a for a in range(1, x.ndim) if a != axis]
    spatial = _merge(x, y, _outermost_first(x, others))
    samples, channels = ([(x.shape[a], x.strides[a], y.strides[a])] for a in (0, axis))
    return _views(x, y, samples, spatial[:-1], channels, spatial[-1:])


def row_view(x, y, normalized_ndim):
    """(outer, middle, width) of x and y: the last `normalized_ndim` axes are the width.

    Returns None when they don't lie evenly in memory, or the other axes need more than two places.
    """
    leading = x.ndim - normalized_ndim
    rows = _merge(x, y, _outermost_first(x, range(leading)))
    width = _merge(x, y, range(leading, x.ndim))
    return _views(x, y, rows[:-1], rows[-1:], width)
