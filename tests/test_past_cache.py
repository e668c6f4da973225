"""Outputs too large for the caches are stored around them (in place they never are): the same bits either way."""

import numpy as np
import pytest
from engines import LEVELS

import cpunorm
from cpunorm import standardize
from cpunorm.functional import add_rms_norm, batch_norm, group_norm, layer_norm

VALUES = 13 << 20  # of float32: input and output are 104 MiB, over any share of a cache that is counted on


def channel_vectors(channels, dtype):
    return (np.linspace(start, 1.5, channels, dtype=dtype) for start in (-0.5, 0.5, 0.25, -1))


def batch_norm_inference(x, **options):
    mean, var, weight, bias = channel_vectors(x.shape[1 if "data_format" not in options else -1], x.dtype)
    return batch_norm(x, mean, var, weight, bias, **options)


def batch_norm_training(x, **options):
    return batch_norm(x, None, None, training=True, **options)


def batch_norm_inference_and_residual(x, **options):
    residual = np.resize(np.arange(251, dtype=x.dtype), x.shape)
    return batch_norm_inference(x, residual=residual, activation="relu", **options)


def layer_norm_of_rows(x, **options):
    _, _, weight, bias = channel_vectors(x.shape[-1], x.dtype)
    return layer_norm(x, x.shape[-1:], weight, bias, **options)


def group_norm_of_channels(x, **options):
    return group_norm(x, 4, **options)


def add_rms_norm_of_rows(x, **options):
    return add_rms_norm(x, x, x.shape[-1:], **options)[0]


def standardize_columns(x, **options):
    return standardize(x, tuple(range(x.ndim - 1)), **options)


LAST = {"data_format": "channels_last"}

# Lines that end and start on a cache line, and lines that don't.
CASES = {
    "batch_norm inference": (batch_norm_inference, (8, 16, 112, 64), {}),
    "batch_norm inference, odd lines": (batch_norm_inference, (8, 16, 113, 61), {}),
    "batch_norm inference, short lines": (batch_norm_inference, (16, 512, 7, 7), {}),
    "batch_norm inference, short lines, residual, relu": (batch_norm_inference_and_residual, (16, 64, 1, 130), {}),
    "batch_norm inference, short lines, silu": (batch_norm_inference, (16, 64, 1, 131), {"activation": "silu"}),
    "batch_norm inference, short lines, float16": (batch_norm_inference, (16, 64, 1, 130), {}),
    "batch_norm inference, channels_last": (batch_norm_inference, (8, 28, 28, 64), LAST),
    "batch_norm inference, channels_last, odd lines": (batch_norm_inference, (8, 28, 28, 67), LAST),
    "batch_norm training": (batch_norm_training, (8, 16, 112, 64), {}),
    "batch_norm training, odd lines": (batch_norm_training, (8, 16, 113, 61), {}),
    "batch_norm training, channels_last": (batch_norm_training, (8, 28, 28, 64), LAST),
    "batch_norm inference, colours last": (batch_norm_inference, (8, 28, 28, 3), LAST),
    "batch_norm training of few channels": (batch_norm_training, (1, 3, 1024, 64), {}),
    "group_norm": (group_norm_of_channels, (2, 16, 112, 64), {}),
    "group_norm, channels_last": (group_norm_of_channels, (2, 28, 28, 64), LAST),
    "layer_norm": (layer_norm_of_rows, (64, 1024), {}),
    "layer_norm, odd rows": (layer_norm_of_rows, (64, 1001), {}),
    "layer_norm, short rows": (layer_norm_of_rows, (64, 203), {}),
    "layer_norm, short rows, float16": (layer_norm_of_rows, (64, 203), {}),
    "layer_norm of few rows": (layer_norm_of_rows, (2, 70001), {}),
    "layer_norm and gelu, odd rows": (layer_norm_of_rows, (64, 1001), {"activation": "gelu"}),
    "add and rms_norm": (add_rms_norm_of_rows, (64, 1024), {}),
    "add and rms_norm, odd rows": (add_rms_norm_of_rows, (64, 1001), {}),
    "standardize": (standardize_columns, (1000, 64), {}),
    "standardize, odd lines": (standardize_columns, (1000, 61), {}),
    "standardize, long lines": (standardize_columns, (100, 3001), {}),
}


STARTS = [0, 1]  # of an output in its memory, in values: where NumPy begins, and beside that


@pytest.fixture(scope="module")
def large():
    return np.random.default_rng(0).standard_normal(VALUES, np.float32)


def enlarged(shape, axis, large, dtype):
    """An array of `shape`, but for as much more along `axis` as it takes."""
    shape = list(shape)
    shape[axis] *= -(-VALUES * 4 // int(np.prod(shape)) // dtype.itemsize)
    return np.resize(large, shape).astype(dtype, copy=False)


@pytest.mark.slow
@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("engine", LEVELS, indirect=True)
@pytest.mark.parametrize("name", CASES)
def test_has_the_bits_of_the_result_in_place(name, large):
    run, shape, options = CASES[name]
    dtype = np.dtype(np.float16 if "float16" in name else np.float32)
    x = enlarged(shape, axis=-1 if "few" in name else 0, large=large, dtype=dtype)
    with cpunorm.num_threads(3):
        run(x, **options).fill(np.nan)  # the next output takes this one's memory: what isn't stored shows
        y = run(x, **options)
        room = np.full(x.size + 16, np.nan, x.dtype)
        for start in STARTS:
            room.fill(np.nan)
            out = room[start : start + x.size].reshape(x.shape)
            assert run(x, out=out, **options) is out
            np.testing.assert_array_equal(out, y)
            assert np.isnan(room[:start]).all()
            assert np.isnan(room[start + x.size :]).all()
        assert run(x, out=x, **options) is x
    np.testing.assert_array_equal(y, x)
