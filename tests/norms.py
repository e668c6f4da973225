"""The norms as the cross-cutting tests call them, each beside what the oracle expects."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import oracle

from cpunorm import functional

EPS = 1e-5
GROUPS = 2
OFFSET, SCALE = 100.0, 3.0  # of `values`
KAPPA = 1e5  # conditioning of `values`: OFFSET / SCALE is 33, but the two values of a short row may lie close together


@functools.cache
def fixed(shape):
    return np.random.default_rng(0).standard_normal(shape) * SCALE + OFFSET


def values(shape, dtype=np.float32):
    """New values whose mean is far from zero, the same at every call."""
    return fixed(tuple(shape)).astype(dtype)


@functools.cache
def affine(shape, dtype=np.float32):
    """A weight between 0.5 and 1.5 and a bias between -1 and 1, no two alike."""
    count = int(np.prod(shape))
    return tuple(np.linspace(*ends, count).reshape(shape).astype(dtype) for ends in ((0.5, 1.5), (1, -1)))


def balanced(count):
    """`count` values -1/2 or 1/2, by the Thue-Morse sequence: the mean is 0 in every 2^k that follow each other or lie
    2^m apart, so that no way to cut them into blocks has to round. With eps = 3/4 the standard deviation is 1.
    """
    return np.array([0.5 - position.bit_count() % 2 for position in range(count)], np.float32)


def running(channels, dtype=np.float32):
    """Running statistics near those of `values`."""
    return tuple((middle + np.linspace(-1, 1, channels)).astype(dtype) for middle in (OFFSET, SCALE**2))


def parameter_dtype(x):
    """float64 for float64, else float32, which goes with float32 and half precision."""
    return np.float64 if x.dtype.newbyteorder("=") == np.float64 else np.float32


def channels(x, data_format="channels_first"):
    return x.shape[1 if data_format == "channels_first" else -1]


def unchanged(x, **options):
    """The norm that changes nothing, but that -0 may become 0."""
    count = channels(x, options.get("data_format", "channels_first"))
    mean, var = np.zeros((2, count), parameter_dtype(x))
    return functional.batch_norm(x, mean, var + 1, eps=0.0, **options)


def batch_norm_training(x, weight, bias, eps, **options):
    return functional.batch_norm(x, None, None, weight, bias, True, 0.1, eps, **options)


def batch_norm_inference(x, weight, bias, eps, **options):
    statistics = running(channels(x, options.get("data_format", "channels_first")), parameter_dtype(x))
    return functional.batch_norm(x, *statistics, weight, bias, False, 0.1, eps, **options)


def group_norm(x, weight, bias, eps, **options):
    return functional.group_norm(x, GROUPS, weight, bias, eps, **options)


def instance_norm(x, weight, bias, eps, **options):
    return functional.instance_norm(x, None, None, weight, bias, eps=eps, **options)


def rms_norm(x, weight, bias, eps, **options):
    return functional.rms_norm(x, x.shape[-1:], weight, eps, **options)


def layer_norm(x, weight, bias, eps, **options):
    return functional.layer_norm(x, x.shape[-1:], weight, bias, eps, **options)


def layer_norm_of_samples(x, weight, bias, eps, **options):
    return functional.layer_norm(x, x.shape[1:], weight, bias, eps, **options)


def each(x):
    """A number for each element of x."""
    return np.arange(x.size).reshape(x.shape)


def of_axes(x, *axes):
    """A number for each place along `axes`."""
    lengths = [length if axis in axes else 1 for axis, length in enumerate(x.shape)]
    return np.broadcast_to(np.arange(np.prod(lengths)).reshape(lengths), x.shape)


class Norm(NamedTuple):
    """`call(x, weight, bias, eps, **options)` is cpunorm's, `truth(x, weight, bias, eps)` the oracle's.

    `domains(x)` numbers, for each element, the domain whose statistics it is normalised with.
    """

    call: Callable
    truth: Callable
    domains: Callable
    parameters: slice = slice(1, 2)  # the axes, channels first, that weight and bias have
    per_sample: bool = True  # no sample sees another
    has_mean: bool = True  # and a bias
    least_axes: int = 2

    @property
    def has_channels(self):
        return self.parameters == slice(1, 2)

    def shape(self, x, data_format="channels_first"):
        """The shape of weight and bias."""
        return (channels(x, data_format),) if self.has_channels else x.shape[self.parameters]

    def affine(self, x, data_format="channels_first"):
        weight, bias = affine(self.shape(x, data_format), parameter_dtype(x))
        return weight, bias if self.has_mean else None

    def run(self, x, **options):
        return self.call(x, *self.affine(x, options.get("data_format", "channels_first")), EPS, **options)

    def expected(self, x):
        return self.truth(x, *self.affine(x), EPS)

    def of(self, shapes):
        """Those of the shapes that it takes."""
        return [shape for shape in shapes if len(shape) >= self.least_axes]


NORMS = {
    "batch_norm training": Norm(batch_norm_training, oracle.batch_norm, lambda x: of_axes(x, 1), per_sample=False),
    "batch_norm inference": Norm(
        batch_norm_inference,
        lambda x, *parameters: oracle.batch_norm(x, *parameters, running(x.shape[1], parameter_dtype(x))),
        each,
    ),
    "group_norm": Norm(
        group_norm,
        lambda x, *parameters: oracle.group_norm(x, GROUPS, *parameters),
        lambda x: of_axes(x, 0, 1) // (x.shape[1] // GROUPS),
    ),
    "instance_norm": Norm(instance_norm, oracle.instance_norm, lambda x: of_axes(x, 0, 1), least_axes=3),
    "rms_norm": Norm(
        rms_norm,
        lambda x, weight, bias, eps: oracle.rms_norm(x, x.shape[-1:], weight, eps),
        lambda x: of_axes(x, *range(x.ndim - 1)),
        parameters=slice(-1, None),
        has_mean=False,
    ),
    "layer_norm": Norm(
        layer_norm,
        lambda x, *parameters: oracle.layer_norm(x, x.shape[-1:], *parameters),
        lambda x: of_axes(x, *range(x.ndim - 1)),
        parameters=slice(-1, None),
    ),
    "layer_norm of samples": Norm(
        layer_norm_of_samples,
        lambda x, *parameters: oracle.layer_norm(x, x.shape[1:], *parameters),
        lambda x: of_axes(x, 0),
        parameters=slice(1, None),
    ),
}


def last(x):
    """x, whose channels are first, in new memory with its channels last."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def first(y):
    """y, whose channels are last, seen with its channels first."""
    return np.moveaxis(y, -1, 1)


def assert_close(y, norm, x):
    """`y` is what the oracle expects of `x` (made like `values`), within the bound for its dtype."""
    expected = norm.expected(x)
    allowed = oracle.bound(expected, parameter_dtype(x), weight=1.5, bias=1.0, kappa=KAPPA)
    if y.dtype.itemsize == 2:  # rounded once more: half a unit in the last place of the half-precision type
        allowed = allowed + np.abs(expected) * 2.0 ** (-11 if y.dtype == np.float16 else -8)
    error = np.abs(y.astype(np.float64) - expected)
    assert y.shape == x.shape
    assert (error <= allowed).all(), f"error {np.max(error / allowed):.3g} times what is allowed"
