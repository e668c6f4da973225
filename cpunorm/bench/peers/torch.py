"""torch, eager and compiled."""

import contextlib
import os
import shutil
from functools import partial

from ..cases import EPS, MOMENTUM
from .base import Call, Peer


class Torch(Peer):
    """`torch.nn.functional`, eager, in inference mode."""

    name = "torch"
    packages = ("torch",)
    takes_out = True

    def __init__(self, threads):
        super().__init__(threads)
        import torch

        self.torch = torch
        self.version = torch.__version__

    @contextlib.contextmanager
    def context(self):
        """Inference mode and its number of threads."""
        before = self.torch.get_num_threads()
        self.torch.set_num_threads(self.threads)
        try:
            with self.torch.inference_mode():
                yield
        finally:
            self.torch.set_num_threads(before)

    def to_numpy(self, case, y):
        """The same memory, in the case's layout."""
        return (y.movedim(1, -1) if case.channels_last else y).numpy()

    def _tensors(self, case, x, *vectors):
        x = self.torch.from_numpy(x)
        return x.movedim(-1, 1) if case.channels_last else x, *map(self.torch.from_numpy, vectors)

    def _call(self, function, *arguments, into=None):
        return Call(partial(function, *arguments), into)

    def batch_norm(self, case, a):
        """`torch.nn.functional.batch_norm`; into a given output `torch.native_batch_norm`, the function below it."""
        x, weight, bias, *running = self._tensors(case, a.x, a.weight, a.bias, a.running_mean, a.running_var)
        training = case.mode == "train"
        saved = self.torch.empty((2, weight.numel() if training else 0), dtype=weight.dtype)
        out = (self.torch.empty_like(x), *saved)
        arguments = weight, bias, *running, training, MOMENTUM, EPS

        def into():
            return self.torch.native_batch_norm(x, *arguments, out=out)[0]

        batch_norm = self.torch.nn.functional.batch_norm
        return self._call(batch_norm, x, *running, weight, bias, training, MOMENTUM, EPS, into=into)

    def layer_norm(self, case, a):
        """`torch.nn.functional.layer_norm`; torch has no variant that computes in a given output."""
        x, weight, bias = self._tensors(case, a.x, a.weight, a.bias)
        return self._call(self.torch.nn.functional.layer_norm, x, a.weight.shape, weight, bias, EPS)

    def group_norm(self, case, a):
        """`torch.nn.functional.group_norm`; torch has no variant that computes in a given output."""
        x, weight, bias = self._tensors(case, a.x, a.weight, a.bias)
        return self._call(self.torch.nn.functional.group_norm, x, case.layer.groups, weight, bias, EPS)


class CompiledTorch(Torch):
    """The same functions under `torch.compile`, for the case's shape alone; it makes its outputs itself."""

    name = "torch.compile"
    takes_out = False
    compiles = True

    @classmethod
    def installed(cls):
        """Whether torch is, and the C++ compiler that it calls."""
        return super().installed() and shutil.which(os.environ.get("CXX", "g++")) is not None

    def _call(self, function, *arguments, into=None):
        self.torch.compiler.reset()  # what other cases left would be looked through in every call
        return Call(partial(self.torch.compile(function, dynamic=False, fullgraph=True), *arguments))
