"""JAX."""

import os

import numpy as np

from .base import Call
from .numpy import NumPy


class JAX(NumPy):
    """What people write in NumPy, in `jax.numpy` under `jax.jit`, until the result is there."""

    name = "jax"
    packages = ("jax",)
    settle = 0.01
    compiles = True
    activations = ("relu", "relu6", "leaky_relu", "silu", "gelu", "gelu_tanh", "sigmoid", "tanh")

    def __init__(self, threads):
        super().__init__(threads)
        import jax

        self.jax = jax
        self.numpy = jax.numpy
        self.version = jax.__version__

    def context(self):
        """With float64, which JAX has only on demand."""
        return self.jax.enable_x64(True)

    def has(self, case):
        """A process has a thread for each CPU that it may use, since its first call; and there are no views."""
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return super().has(case) and self.threads == cpus and case.norm != "standardize_sliding"

    def to_numpy(self, case, y):
        """The values."""
        return np.asarray(y)

    def _activate(self, name, y):
        if name in ("gelu", "gelu_tanh"):
            return self.jax.nn.gelu(y, approximate=name == "gelu_tanh")
        return getattr(self.jax.nn, name)(y)

    def _array(self, array):
        return None if array is None else self.numpy.array(array)

    def _call(self, function, *arrays):
        jitted = self.jax.jit(function)
        arrays = [self._array(array) for array in arrays]
        return Call(lambda: self.jax.block_until_ready(jitted(*arrays)))

    def _train(self, function, *arrays):
        jitted = self.jax.jit(function)
        x, *running = (self._array(array) for array in arrays[:3])
        others = [self._array(array) for array in arrays[3:]]

        def call():
            y, *running[:] = self.jax.block_until_ready(jitted(x, *running, *others))
            return y

        return Call(call, running=lambda: [np.asarray(values).ravel() for values in running])
