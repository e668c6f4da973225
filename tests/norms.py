"""The norms as the cross-cutting tests call them, with weight and bias, each beside what the oracle expects."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import oracle

from cpunorm import functional

EPS = 1e-5
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
    return OFFSET + np.linspace(-1, 1, channels).astype(dtype), SCALE**2 + np.linspace(-1, 1, channels).astype(dtype)


def parameter_dtype(x):
    """float64 for float64, else float32, which goes with float32 and half precision."""
    return np.float64 if x.dtype.newbyteorder("=") == np.float64 else np.float32


def channels(x, data_format="channels_first"):
    return x.shape[1 if data_format == "channels_first" else -1]


def batch_norm_training(x, **options):
    count = channels(x, options.get("data_format", "channels_first"))
    return functional.batch_norm(x, None, None, *affine(count, parameter_dtype(x)), True, 0.1, EPS, **options)


def batch_norm_inference(x, **options):
    count, dtype = channels(x, options.get("data_format", "channels_first")), parameter_dtype(x)
    return functional.batch_norm(x, *running(count, dtype), *affine(count, dtype), False, 0.1, EPS, **options)


def group_norm(x, **options):
    count = channels(x, options.get("data_format", "channels_first"))
    return functional.group_norm(x, 2, *affine(count, parameter_dtype(x)), EPS, **options)


def rms_norm(x, **options):
    return functional.rms_norm(x, x.shape[-1:], affine(x.shape[-1:], parameter_dtype(x))[0], EPS, **options)


def layer_norm(x, **options):
    return functional.layer_norm(x, x.shape[-1:], *affine(x.shape[-1:], parameter_dtype(x)), EPS, **options)


def layer_norm_of_samples(x, **options):
    return functional.layer_norm(x, x.shape[1:], *affine(x.shape[1:], parameter_dtype(x)), EPS, **options)


class Norm(NamedTuple):
    """`run(x, **options)` is cpunorm's, `expected(x)` the oracle's; `per_sample` if no sample sees another."""

    run: Callable
    expected: Callable
    per_sample: bool = True
    has_channels: bool = True


NORMS = {
    "batch_norm training": Norm(
        batch_norm_training, lambda x: oracle.batch_norm(x, *affine(x.shape[1], parameter_dtype(x)), EPS), False
    ),
    "batch_norm inference": Norm(
        batch_norm_inference,
        lambda x: oracle.batch_norm(
            x, *affine(x.shape[1], parameter_dtype(x)), EPS, running(x.shape[1], parameter_dtype(x))
        ),
    ),
    "group_norm": Norm(group_norm, lambda x: oracle.group_norm(x, 2, *affine(x.shape[1], parameter_dtype(x)), EPS)),
    "rms_norm": Norm(
        rms_norm,
        lambda x: oracle.rms_norm(x, x.shape[-1:], affine(x.shape[-1:], parameter_dtype(x))[0], EPS),
        has_channels=False,
    ),
    "layer_norm": Norm(
        layer_norm,
        lambda x: oracle.layer_norm(x, x.shape[-1:], *affine(x.shape[-1:], parameter_dtype(x)), EPS),
        has_channels=False,
    ),
    "layer_norm of samples": Norm(
        layer_norm_of_samples,
        lambda x: oracle.layer_norm(x, x.shape[1:], *affine(x.shape[1:], parameter_dtype(x)), EPS),
        has_channels=False,
    ),
}


def assert_close(y, norm, x):
    """`y` is what the oracle expects of `x` (made like `values`), within the bound for its dtype."""
    expected = norm.expected(x)
    allowed = oracle.bound(expected, parameter_dtype(x), weight=1.5, bias=1.0, kappa=KAPPA)
    if y.dtype.itemsize == 2:  # rounded once more: half a unit in the last place of the half-precision type
        allowed = allowed + np.abs(expected) * 2.0 ** (-11 if y.dtype == np.float16 else -8)
    error = np.abs(y.astype(np.float64) - expected)
    assert y.shape == x.shape
    assert (error <= allowed).all(), f"error {np.max(error / allowed):.3g} times what is allowed"
