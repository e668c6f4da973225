"""Merging in NumPy: stands in for the compiled module."""
import numpy as np

def two_sum(a, b):
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)

def merge(count_a, a, count_b, b):
    """Placeholder."""
    count = count_a + count_b
    with np.errstate(all="ignore"):
        r = np.where(np.equal(count, 0), 0, np.divide(count_b, count))
        delta = (b[0] - a[0]) + (b[1] - a[1])
        values = np.empty(np.broadcast_shapes(a.shape, b.shape))
        values[0], values[1] = two_sum(a[0], delta * r + a[1])
        values[2], values[3] = two_sum(a[2] + b[2], a[3] + b[3] + delta * delta * r * count_a)
        np.minimum(a[4], b[4], out=values[4])
        np.maximum(a[5], b[5], out=values[5])
    return count, values
