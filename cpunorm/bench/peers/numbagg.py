"""numbagg."""

import contextlib
from functools import partial

import numpy as np

from ..cases import WINDOW, window_of
from .base import Call, Peer


class Numbagg(Peer):
    """Its functions that leave NaN out, which it has alone: compiled by Numba, on its threads."""

    name = "numbagg"
    packages = ("numbagg",)
    settle = 0.01
    compiles = True

    def __init__(self, threads):
        super().__init__(threads)
        import numba
        import numbagg

        self.numba, self.numbagg = numba, numbagg
        self.version = numbagg.__version__

    def has(self, case):
        """What Numba computes in."""
        return super().has(case) and case.dtype in ("float32", "float64") and case.mode is None

    @contextlib.contextmanager
    def context(self):
        """Its number of threads."""
        before = self.numba.get_num_threads()
        self.numba.set_num_threads(min(self.threads, self.numba.config.NUMBA_NUM_THREADS))
        try:
            yield
        finally:
            self.numba.set_num_threads(before)

    def moments(self, case, a):
        """Two functions."""
        mean, var = partial(self.numbagg.nanmean, axis=case.axis), partial(self.numbagg.nanvar, axis=case.axis, ddof=0)
        return Call(lambda: (mean(a.x), var(a.x)))

    def standardize_sliding(self, case, a):
        """Moments of the windows that end at each frame, of which it divides by one less, looked up."""
        last = window_of(np.arange(len(a.x)), len(a.x)) + WINDOW - 1
        biased = np.float32(np.sqrt((WINDOW - 1) / WINDOW))

        def standardize():
            mean, std = (move(a.x, window=WINDOW, axis=0) for move in (self.numbagg.move_mean, self.numbagg.move_std))
            return (a.x - mean[last]) / (std[last] * biased)

        return Call(standardize)
