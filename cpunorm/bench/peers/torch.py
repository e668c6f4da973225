"""torch, eager and compiled."""

import contextlib
import os
import shutil
from functools import partial

import numpy as np

from ..cases import NORMS, WINDOW, window_of
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

    def has(self, case):
        """The norms of `torch.nn.functional`, and what has a method here."""
        return case.norm in NORMS or super().has(case)

    def to_numpy(self, case, y):
        """The same memory, in the case's layout."""
        if isinstance(y, tuple):
            return super().to_numpy(case, tuple(self.to_numpy(case, v) for v in y))
        y = y.movedim(1, -1) if case.channels_last else y
        return y.view(self.torch.int16).numpy().view(case.dtype) if case.dtype == "bfloat16" else y.numpy()

    def _tensor(self, value):
        """The same memory as a tensor, if it is an array."""
        if not isinstance(value, np.ndarray):
            return value
        if value.dtype.name == "bfloat16":
            return self.torch.from_numpy(value.view(np.int16)).view(self.torch.bfloat16)
        return self.torch.from_numpy(value)

    def _in_steps(self, case, function, residual):
        """`function` between the steps that people write before and after it."""
        name, summed = case.layer.activation, NORMS[case.norm].sums
        functions = self.torch.nn.functional
        activate = (
            partial(functions.gelu, approximate="tanh") if name == "gelu_tanh" else name and getattr(functions, name)
        )

        def steps(x, *arguments):
            y = function(x + residual if summed else x, *arguments)
            y = y if summed or residual is None else y + residual
            return y if activate is None else activate(y)

        return steps

    def _call(self, function, *arguments, into=None):
        return Call(partial(function, *arguments), into)

    def prepare(self, case, a):
        """`torch.nn.functional`'s function; into a given output only BatchNorm's, `torch.native_batch_norm`."""
        if case.norm not in NORMS:
            return super().prepare(case, a)
        x, residual = (
            v.movedim(-1, 1) if case.channels_last and v is not None else v
            for v in map(self._tensor, (a.x, a.residual))
        )
        arguments = map(self._tensor, NORMS[case.norm].arguments(case, a))
        function, arguments, into = (
            getattr(self.torch.nn.functional, case.norm.removeprefix("add_")),
            [*arguments],
            None,
        )
        if residual is not None or case.layer.activation is not None:
            function = self._in_steps(case, function, residual)
        elif case.norm == "batch_norm":
            mean, var, weight, bias, training, *rest = arguments
            saved = self.torch.empty((2, weight.numel() if training else 0), dtype=weight.dtype)
            out = (self.torch.empty_like(x), *saved)

            def into():
                return self.torch.native_batch_norm(x, weight, bias, mean, var, training, *rest, out=out)[0]

        return self._call(function, x, *arguments, into=into)

    def normalize_image(self, case, a):
        """What torchvision's `to_tensor` and `normalize` do with torch."""
        planar = case.result == "CHW"

        def normalize(x, mean, std):
            y = x.permute(2, 0, 1).contiguous() if planar else x
            y = y.to(self.torch.float32).div(255) if case.mode == "uint8" else y.clone()
            return y.sub_(mean).div_(std)

        vectors = [self.torch.from_numpy(v) for v in (a.running_mean, a.running_var)]
        vectors = [v[:, None, None] if planar else v for v in vectors]
        return self._call(normalize, self.torch.from_numpy(a.x), *vectors)

    def moments(self, case, a):
        """`torch.var_mean`, of what has no mean in torch as float32."""

        def moments(x):
            var, mean = self.torch.var_mean(x.float() if case.mode == "uint8" else x, case.axis, correction=0)
            return mean, var

        return self._call(moments, self._tensor(a.x))

    def standardize(self, case, a):
        """By `torch.var_mean`."""

        def standardize(x):
            var, mean = self.torch.var_mean(x, case.axis, correction=0, keepdim=True)
            return (x - mean) / var.sqrt()

        return self._call(standardize, self._tensor(a.x))

    def standardize_sliding(self, case, a):
        """By `torch.var_mean` of all windows."""

        def standardize(x, start):
            var, mean = self.torch.var_mean(x.unfold(0, WINDOW, 1), -1, correction=0)
            return (x - mean[start]) / var[start].sqrt()

        start = self.torch.from_numpy(window_of(np.arange(len(a.x)), len(a.x)))
        return self._call(standardize, self._tensor(a.x), start)


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
