"""bottleneck."""

import numpy as np

from ..cases import WINDOW, window_of
from .base import Call, Peer


class Bottleneck(Peer):
    """Its functions that leave NaN out, which it has alone: in C, one thread, along one axis or all."""

    name = "bottleneck"
    packages = ("bottleneck",)

    def __init__(self, threads):
        super().__init__(threads)
        import bottleneck

        self.bottleneck = bottleneck
        self.version = bottleneck.__version__

    def has(self, case):
        """What it doesn't leave to NumPy."""
        plain = case.dtype in ("float32", "float64") and case.mode is None
        return super().has(case) and plain and (case.axis is None or len(case.axis) == 1)

    def moments(self, case, a):
        """Two functions."""
        axis = case.axis and case.axis[0]
        return Call(lambda: (self.bottleneck.nanmean(a.x, axis), self.bottleneck.nanvar(a.x, axis)))

    def standardize_sliding(self, case, a):
        """Moments of the windows that end at each frame, looked up."""
        last = window_of(np.arange(len(a.x)), len(a.x)) + WINDOW - 1

        def standardize():
            mean, std = (move(a.x, WINDOW, axis=0) for move in (self.bottleneck.move_mean, self.bottleneck.move_std))
            return (a.x - mean[last]) / std[last]

        return Call(standardize)
