"""cpunorm itself."""

import contextlib
from functools import partial

import numpy as np

import cpunorm

from ..cases import EPS, MOMENTUM
from .base import Call, Peer


class CPUNorm(Peer):
    """This library, on one of its engines."""

    name = "cpunorm"
    packages = ("cpunorm",)
    takes_out = True
    version = cpunorm.__version__

    def __init__(self, threads, engine):
        super().__init__(threads)
        self.engine = engine

    @contextlib.contextmanager
    def context(self):
        """Its engine and number of threads."""
        with cpunorm.engine(self.engine), cpunorm.num_threads(self.threads):
            yield

    def _call(self, case, function, x, *arguments):
        channels_last = {"data_format": "channels_last"} if case.channels_last else {}
        call = partial(function, x, *arguments, **channels_last)
        return Call(call, partial(call, out=np.empty_like(x)))

    def batch_norm(self, case, a):
        """`cpunorm.functional.batch_norm`."""
        statistics = a.running_mean, a.running_var
        training = case.mode == "train"
        return self._call(
            case, cpunorm.functional.batch_norm, a.x, *statistics, a.weight, a.bias, training, MOMENTUM, EPS
        )

    def layer_norm(self, case, a):
        """`cpunorm.functional.layer_norm`."""
        return self._call(case, cpunorm.functional.layer_norm, a.x, a.weight.shape, a.weight, a.bias, EPS)

    def group_norm(self, case, a):
        """`cpunorm.functional.group_norm`."""
        return self._call(case, cpunorm.functional.group_norm, a.x, case.layer.groups, a.weight, a.bias, EPS)
