"""NumPy."""

from functools import partial

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..cases import EPS, MOMENTUM, NORMS, WINDOW, window_of
from .base import Call, Peer


class NumPy(Peer):
    """The norms as people write them in NumPy."""

    name = "numpy"
    packages = ("numpy",)
    version = np.__version__
    numpy = np
    activations: tuple[str, ...] = ("relu",)

    def has(self, case):
        """What NumPy computes in, with the activations that it has."""
        known = case.layer.activation in (None, *self.activations)
        return super().has(case) and known and case.dtype in ("float32", "float64")

    def _activate(self, name, y):
        return self.numpy.maximum(y, 0)

    def _call(self, function, *arrays):
        return Call(partial(function, *arrays))

    def _train(self, function, x, mean, var, *others):
        def call():
            y, mean[...], var[...] = function(x, mean, var, *others)
            return y

        return Call(call)

    def _in_steps(self, case, function):
        """`function` between the steps that people write before and after it, whose second argument is the residual."""
        name, summed = case.layer.activation, NORMS[case.norm].sums

        def steps(x, residual, *parameters):
            y = function(x + residual if summed else x, *parameters)
            y = y if summed or residual is None else y + residual
            return y if name is None else self._activate(name, y)

        return steps

    def _normalize(self, x, mean, var, weight, bias):
        return (x - mean) / self.numpy.sqrt(var + EPS) * weight + bias

    def batch_norm(self, case, a):
        """Mean and variance over all axes but the channels'."""
        rank = a.x.ndim
        channels = rank - 1 if case.channels_last else 1
        axes = tuple(axis for axis in range(rank) if axis != channels)
        vectors = [np.expand_dims(v, axes) for v in (a.running_mean, a.running_var, a.weight, a.bias)]
        count = a.x.size // a.weight.size

        normalize = self._in_steps(case, self._normalize)

        def train(x, running_mean, running_var, residual, weight, bias):
            mean = x.mean(axis=axes, keepdims=True)
            var = x.var(axis=axes, keepdims=True)
            running_mean = (1 - MOMENTUM) * running_mean + MOMENTUM * mean
            running_var = (1 - MOMENTUM) * running_var + MOMENTUM * var * count / (count - 1)
            return normalize(x, residual, mean, var, weight, bias), running_mean, running_var

        if case.mode == "train":
            return self._train(train, a.x, *vectors[:2], a.residual, *vectors[2:])
        return self._call(normalize, a.x, a.residual, *vectors)

    def layer_norm(self, case, a):
        """Mean and variance over the last axis."""

        def layer_norm(x, weight, bias):
            mean = x.mean(axis=-1, keepdims=True)
            var = x.var(axis=-1, keepdims=True)
            return self._normalize(x, mean, var, weight, bias)

        return self._call(self._in_steps(case, layer_norm), a.x, a.residual, a.weight, a.bias)

    def rms_norm(self, case, a):
        """Mean square over the last axis."""

        def rms_norm(x, weight):
            return x / self.numpy.sqrt(self.numpy.square(x).mean(axis=-1, keepdims=True) + EPS) * weight

        return self._call(self._in_steps(case, rms_norm), a.x, a.residual, a.weight)

    add_layer_norm, add_rms_norm = layer_norm, rms_norm

    def instance_norm(self, case, a):
        """Mean and variance over all axes but the samples' and channels'."""
        rank = a.x.ndim
        axes = tuple(range(1, rank - 1) if case.channels_last else range(2, rank))
        per_channel = (-1,) if case.channels_last else (-1, *(1,) * (rank - 2))

        def instance_norm(x, weight, bias):
            return self._normalize(x, x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True), weight, bias)

        affine = a.weight.reshape(per_channel), a.bias.reshape(per_channel)
        return self._call(self._in_steps(case, instance_norm), a.x, a.residual, *affine)

    def group_norm(self, case, a):
        """Reshape to groups, mean and variance over each, reshape back."""
        samples, channels, *spatial = case.layer.shape
        groups, rank = (case.layer.groups, channels // case.layer.groups), len(case.layer.shape)
        if case.channels_last:
            grouped, axes, per_channel = (samples, *spatial, *groups), (*range(1, rank - 1), rank), (-1,)
        else:
            grouped, axes, per_channel = (
                (samples, *groups, *spatial),
                tuple(range(2, rank + 1)),
                (-1, *(1,) * (rank - 2)),
            )

        def group_norm(x, weight, bias):
            groups = x.reshape(grouped)
            mean = groups.mean(axis=axes, keepdims=True)
            var = groups.var(axis=axes, keepdims=True)
            return ((groups - mean) / self.numpy.sqrt(var + EPS)).reshape(x.shape) * weight + bias

        affine = a.weight.reshape(per_channel), a.bias.reshape(per_channel)
        return self._call(self._in_steps(case, group_norm), a.x, a.residual, *affine)

    def normalize_image(self, case, a):
        """In float32, then brought into the layout."""

        def normalize(x, mean, std):
            y = (x.astype(np.float32) * np.float32(case.scale) - mean) / std
            return y if case.result == "HWC" else self.numpy.array(y.transpose(2, 0, 1), order="C")

        return self._call(normalize, a.x, a.running_mean, a.running_var)

    def moments(self, case, a):
        """Two functions."""
        return self._call(lambda x: (x.mean(case.axis), x.var(case.axis)), a.x)

    def standardize(self, case, a):
        """One line."""

        def standardize(x):
            return (x - x.mean(case.axis, keepdims=True)) / x.std(case.axis, keepdims=True)

        return self._call(standardize, a.x)

    def standardize_sliding(self, case, a):
        """Moments of all windows, looked up."""
        start = window_of(np.arange(len(a.x)), len(a.x))

        def standardize(x):
            windows = sliding_window_view(x, WINDOW, axis=0)
            return (x - windows.mean(-1)[start]) / windows.std(-1)[start]

        return self._call(standardize, a.x)
