"""Who is measured: one registry of libraries. A new one is a class with a method per norm, and its place in `PEERS`.

A method takes the case and its arrays and returns a `Call`; a norm or mode that the library lacks returns None
(or has no method) and is shown as n/a. Everything that is no part of the call is done before: conversion, parameters.

Channels-last cases are the same memory to everyone, (N, H, W, C), each in their own idiom: cpunorm with
``data_format="channels_last"``, torch as an (N, C, H, W) tensor in ``torch.channels_last`` memory format,
NumPy with the channels on the last axis.
"""

import contextlib
import importlib.util
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

import cpunorm

from .cases import EPS, MOMENTUM


class Call(NamedTuple):
    """A case as a library's users call it, ready to be called with no argument."""

    fresh: Callable  # returns a new output, as most people call it
    into: Callable | None = None  # writes into a given output and returns it


class Peer:
    """What all libraries have in common.

    Attributes
    ----------
    name : str
        In options, tables and JSON.
    package : str
        What is imported.
    version : str
    takes_out : bool
        Whether some of its calls have an `into`.
    """

    name = package = version = ""
    takes_out = False

    def __init__(self, threads):
        self.threads = threads

    @classmethod
    def installed(cls):
        """Whether the library can be imported here."""
        return importlib.util.find_spec(cls.package) is not None

    def context(self):
        """A context manager in which the calls are made."""
        return contextlib.nullcontext()

    def to_numpy(self, case, y):
        """An output as an ndarray in the case's layout."""
        return y


class CPUNorm(Peer):
    """This library, on one of its engines."""

    name = package = "cpunorm"
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


class NumPy(Peer):
    """The norms as people write them in NumPy."""

    name = package = "numpy"
    version = np.__version__

    def batch_norm(self, case, a):
        """Mean and variance over all axes but the channels'."""
        x, rank = a.x, a.x.ndim
        axes = tuple(range(rank - 1)) if case.channels_last else (0, *range(2, rank))
        per_channel = (-1,) if case.channels_last else (1, -1, *[1] * (rank - 2))
        running_mean, running_var, weight, bias = (
            v.reshape(per_channel) for v in (a.running_mean, a.running_var, a.weight, a.bias)
        )
        count = x.size // weight.size

        def evaluation():
            return (x - running_mean) / np.sqrt(running_var + EPS) * weight + bias

        def training():
            mean = x.mean(axis=axes, keepdims=True)
            var = x.var(axis=axes, keepdims=True)
            running_mean[...] = (1 - MOMENTUM) * running_mean + MOMENTUM * mean.reshape(per_channel)
            running_var[...] = (1 - MOMENTUM) * running_var + MOMENTUM * var.reshape(per_channel) * count / (count - 1)
            return (x - mean) / np.sqrt(var + EPS) * weight + bias

        return Call(training if case.mode == "train" else evaluation)

    def layer_norm(self, case, a):
        """Mean and variance over the last axis."""

        def call():
            mean = a.x.mean(axis=-1, keepdims=True)
            var = a.x.var(axis=-1, keepdims=True)
            return (a.x - mean) / np.sqrt(var + EPS) * a.weight + a.bias

        return Call(call)

    def group_norm(self, case, a):
        """Reshape to groups, mean and variance over each, reshape back."""
        samples, channels, *spatial = case.layer.shape
        size = channels // case.layer.groups
        if case.channels_last:
            grouped, axes, per_channel = (samples, *spatial, case.layer.groups, size), (1, 2, 4), (-1,)
        else:
            grouped, axes, per_channel = (samples, case.layer.groups, size, *spatial), (2, 3, 4), (1, -1, 1, 1)
        weight, bias = a.weight.reshape(per_channel), a.bias.reshape(per_channel)

        def call():
            groups = a.x.reshape(grouped)
            mean = groups.mean(axis=axes, keepdims=True)
            var = groups.var(axis=axes, keepdims=True)
            return ((groups - mean) / np.sqrt(var + EPS)).reshape(a.x.shape) * weight + bias

        return Call(call)


class Torch(Peer):
    """`torch.nn.functional`, eager, in inference mode."""

    name = package = "torch"
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

    def batch_norm(self, case, a):
        """`torch.nn.functional.batch_norm`; into a given output `torch.native_batch_norm`, the function below it."""
        x, weight, bias, *running = self._tensors(case, a.x, a.weight, a.bias, a.running_mean, a.running_var)
        training = case.mode == "train"
        saved = self.torch.empty((2, weight.numel() if training else 0), dtype=weight.dtype)
        out = (self.torch.empty_like(x), *saved)
        arguments = weight, bias, *running, training, MOMENTUM, EPS

        def into():
            return self.torch.native_batch_norm(x, *arguments, out=out)[0]

        functional = self.torch.nn.functional
        return Call(partial(functional.batch_norm, x, *running, weight, bias, training, MOMENTUM, EPS), into)

    def layer_norm(self, case, a):
        """`torch.nn.functional.layer_norm`; torch has no variant that computes in a given output."""
        x, weight, bias = self._tensors(case, a.x, a.weight, a.bias)
        return Call(partial(self.torch.nn.functional.layer_norm, x, a.weight.shape, weight, bias, EPS))

    def group_norm(self, case, a):
        """`torch.nn.functional.group_norm`; torch has no variant that computes in a given output."""
        x, weight, bias = self._tensors(case, a.x, a.weight, a.bias)
        return Call(partial(self.torch.nn.functional.group_norm, x, case.layer.groups, weight, bias, EPS))


PEERS = {peer.name: peer for peer in (NumPy, Torch)}
