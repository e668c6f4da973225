"""BatchNorm's numbers, running statistics and few values; what all norms share: test_norms.py."""

import itertools

import numpy as np
import oracle
import pytest
from norms import balanced
from strided import channels_last

import cpunorm
from cpunorm.functional import batch_norm

pytestmark = pytest.mark.usefixtures("engine")


def arange(*shape, dtype=np.float32):
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


def assert_digits(actual, printed):
    """Equal to the four decimals that were printed."""
    np.testing.assert_allclose(actual, np.broadcast_to(printed, np.shape(actual)), rtol=0, atol=0.5001e-4)


def assert_bound(y, expected, weight=None, bias=None, kappa=1.0):
    assert (np.abs(y - expected) <= oracle.bound(expected, y.dtype, weight, bias, kappa)).all()


# The numbers printed in the tutorials (torch-compatible to the digits given).


def test_2d_arange_12():
    y = cpunorm.BatchNorm2d(3)(arange(1, 3, 2, 2))
    assert_digits(y.reshape(3, 4), [-1.3416, -0.4472, 0.4472, 1.3416])


def test_2d_arange_24():
    y = cpunorm.BatchNorm2d(3)(arange(2, 3, 2, 2))
    assert_digits(y[0].reshape(3, 4), [-1.2288, -1.0650, -0.9012, -0.7373])
    assert_digits(y[1].reshape(3, 4), [0.7373, 0.9012, 1.0650, 1.2288])


def test_2d_arange_36():
    norm = cpunorm.BatchNorm2d(3, affine=False)
    y = norm(arange(3, 3, 2, 2))
    assert_digits(y[0].reshape(3, 4), [-1.3690, -1.2676, -1.1661, -1.0647])
    assert_digits(norm.running_mean, [1.35, 1.75, 2.15])
    assert_digits(norm.running_var, 11.5091)


def test_1d_arange_20():
    norm = cpunorm.BatchNorm1d(5, affine=False)
    y = norm(arange(4, 5))
    assert_digits(y.T, [-1.3416, -0.4472, 0.4472, 1.3416])
    assert_digits(norm.running_mean, [0.75, 0.85, 0.95, 1.05, 1.15])
    assert_digits(norm.running_var, 5.0667)


def test_1d_arange_18():
    norm = cpunorm.BatchNorm1d(2, affine=False)
    y = norm(arange(3, 2, 3))
    assert_digits(y[0, 0], [-1.4094, -1.2081, -1.0067])
    assert_digits(norm.running_mean, [0.7, 1.0])
    assert_digits(norm.running_var, 3.6750)


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_3d_means_are_over_samples_depth_height_and_width(data_format):
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5, 6)).astype(np.float32) + 7
    norm = cpunorm.BatchNorm3d(3, momentum=1.0, data_format=data_format)
    y = norm(x if data_format == "channels_first" else np.ascontiguousarray(np.moveaxis(x, 1, -1)))
    y = y if data_format == "channels_first" else np.moveaxis(y, -1, 1)
    assert norm.running_mean.shape == (3,)
    np.testing.assert_allclose(norm.running_mean, x.mean((0, 2, 3, 4), np.float64), rtol=1e-7)
    np.testing.assert_allclose(norm.running_var, x.var((0, 2, 3, 4), np.float64, ddof=1), rtol=1e-6)
    assert_bound(y, oracle.batch_norm(x))


# Exact data: mean, variance and every result are representable, so nothing may be off by one bit.


def test_exact_statistics():
    for mean, samples, length in itertools.product([0, 1, -1000, 2**20], [2, 8, 128], [1, 16, 1024]):
        z = balanced(samples * length).reshape(samples, 1, length) * np.float32([1, -1, 1, 1, -1])[:, None]
        x = z + np.arange(5, dtype=np.float32)[:, None] + np.float32(mean)
        for layout in (x, np.asfortranarray(x), channels_last(x)):
            running_mean, running_var = np.zeros(5, np.float32), np.ones(5, np.float32)
            batch_norm(layout, running_mean, running_var, training=True, momentum=1.0)
            np.testing.assert_allclose(running_mean, np.float32(mean) + np.arange(5), rtol=0, atol=1e-16)
            unbiased = 0.25 * samples * length / (samples * length - 1)
            np.testing.assert_array_equal(running_var, np.full(5, unbiased, np.float32))


def test_exact_inference():
    x = arange(4, 3, 5) - 8
    y = batch_norm(
        x,
        np.array([1, 2, 3], np.float32),
        np.array([4, 0.25, 1], np.float32) - 0.125,
        np.array([1, -1, 8], np.float32),
        np.array([0.5, 0, -2], np.float32),
        eps=0.125,
    )
    scale, bias = np.array([0.5, -2, 8])[:, None], np.array([0.5, 0, -2])[:, None]
    np.testing.assert_array_equal(y, (x - np.array([1, 2, 3])[:, None]) * scale + bias)


# Running statistics.


@pytest.mark.parametrize("momentum", [0, 0.1, 0.5, 1, 1.5, -0.25, np.float32(0.125)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_running_update_is_biased_for_the_output_and_unbiased_for_the_buffers(momentum, dtype):
    x = np.random.default_rng(1).gamma(2, 3, (5, 4, 3)).astype(dtype)
    running_mean, running_var = arange(4, dtype=dtype) - 1, arange(4, dtype=dtype) + 1
    moved_mean = (1 - momentum) * (np.arange(4) - 1.0) + momentum * x.mean((0, 2), np.float64)
    moved_var = (1 - momentum) * (np.arange(4) + 1.0) + momentum * x.var((0, 2), np.float64, ddof=1)
    y = batch_norm(x, running_mean, running_var, training=True, momentum=momentum)
    assert_bound(y, oracle.batch_norm(x), kappa=3.0)
    unit = 8 * oracle.UNIT[np.dtype(dtype)]  # computed in float64, rounded to `dtype` once
    np.testing.assert_allclose(running_mean, moved_mean, rtol=unit, atol=16 * unit)
    np.testing.assert_allclose(running_var, moved_var, rtol=unit, atol=16 * unit)


def test_momentum_zero_keeps_every_bit_and_one_forgets():
    x = np.random.default_rng(2).standard_normal((8, 3, 5)).astype(np.float32)
    running_mean, running_var = np.float32([1e-30, 1e30, 0.1]), np.float32([3, 1e-40, 7])
    kept = running_mean.copy(), running_var.copy()
    batch_norm(x, running_mean, running_var, training=True, momentum=0)
    np.testing.assert_array_equal((running_mean, running_var), kept)
    batch_norm(x, running_mean, running_var, training=True, momentum=1)
    np.testing.assert_allclose(running_mean, x.mean((0, 2), np.float64), rtol=2.0**-23, atol=1e-7)
    np.testing.assert_allclose(running_var, x.var((0, 2), np.float64, ddof=1), rtol=1e-6)


def test_the_old_running_statistics_do_not_reach_a_training_output():
    x = np.random.default_rng(3).standard_normal((6, 3, 4)).astype(np.float32)
    polluted = np.full(3, np.nan, np.float32), np.full(3, -5, np.float32)
    np.testing.assert_array_equal(batch_norm(x, *polluted, training=True), batch_norm(x, None, None, training=True))


def test_cumulative_average():
    batches = np.random.default_rng(4).standard_normal((5, 6, 3)).astype(np.float32) + 2
    norm = cpunorm.BatchNorm1d(3, momentum=None)
    for batch in batches:
        norm(batch)
    np.testing.assert_allclose(norm.running_mean, batches.mean((0, 1), np.float64), rtol=1e-6)
    np.testing.assert_allclose(norm.running_var, batches.var(1, np.float64, ddof=1).mean(0), rtol=1e-6)
    assert norm.num_batches_tracked == 5


def test_running_statistics_of_offset_data_keep_their_digits():
    """E[x^2] - E[x]^2 would be off by 1e5 here."""
    x = (np.random.default_rng(5).standard_normal((64, 3, 50)) + 1e6).astype(np.float32)
    running_mean, running_var = np.zeros(3, np.float32), np.ones(3, np.float32)
    batch_norm(x, running_mean, running_var, training=True, momentum=1)
    np.testing.assert_allclose(running_mean, x.mean((0, 2), np.float64), rtol=2.0**-23)
    np.testing.assert_allclose(running_var, x.var((0, 2), np.float64, ddof=1), rtol=1e-6)


# Inference.


@pytest.mark.parametrize("offset", [0, 1e2, 1e4, 1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inference(offset, dtype):
    running = (np.array([0.25, -1, 0.5, 2]) + offset).astype(dtype), np.array([4, 3, 5, 0.1], dtype)
    kept = [statistic.copy() for statistic in running]
    weight, bias = np.array([1, -0.3, 2, 0], dtype), np.array([0.1, 0, -3, 1], dtype)
    for shape in ((1, 4), (7, 4), (1, 4, 1), (2, 4, 70), (3, 4, 9, 9), (2, 4, 3, 5, 7)):
        x = (np.random.default_rng(6).standard_normal(shape) * 2 + offset).astype(dtype)
        y = batch_norm(x, *running, weight, bias, eps=1e-3)
        # the mean is given, not computed: no conditioning, and the scale is that of the largest |z| * weight
        expected = oracle.batch_norm(x, weight, bias, 1e-3, running)
        assert_bound(y, expected, weight, bias)
        np.testing.assert_array_equal(running, kept)


def test_inference_with_zero_eps():
    x = arange(2, 3)
    y = batch_norm(x, np.zeros(3, np.float32), np.full(3, 4, np.float32), eps=0.0)
    np.testing.assert_array_equal(y, x / 2)


def test_dividing_by_zero_is_silent_and_as_the_formula_says():
    y = batch_norm(np.float32([[1, 0, -2]]), np.zeros(3, np.float32), np.zeros(3, np.float32), eps=0.0)
    np.testing.assert_array_equal(y, [[np.inf, np.nan, -np.inf]])


# Few values, or none.


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4), (2, 3, 0, 5), (2, 0, 4), (0, 0)])
def test_an_empty_batch_moves_no_statistics(shape):
    running_mean, running_var = np.full(shape[1], 7, np.float32), np.full(shape[1], 8, np.float32)
    assert batch_norm(np.empty(shape, np.float32), running_mean, running_var, training=True).shape == shape
    assert (running_mean == 7).all()
    assert (running_var == 8).all()


def test_an_empty_batch_counts():
    norm = cpunorm.BatchNorm1d(3)
    assert norm(np.empty((0, 3), np.float32)).shape == (0, 3)
    assert norm.num_batches_tracked == 1
    np.testing.assert_array_equal(norm.running_mean, np.zeros(3))
    np.testing.assert_array_equal(norm.running_var, np.ones(3))


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1), (1, 3, 1, 1), (1, 1)])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_one_value_per_channel_is_an_error_in_training_alone(shape, data_format):
    x = np.ones(shape, np.float32)
    if data_format == "channels_last":
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    running_mean, running_var = np.zeros(shape[1], np.float32), np.ones(shape[1], np.float32)
    with pytest.raises(ValueError, match="1 value per channel"):
        batch_norm(x, running_mean, running_var, training=True, data_format=data_format)
    np.testing.assert_array_equal(running_mean, 0)
    np.testing.assert_array_equal(running_var, 1)
    y = batch_norm(x, running_mean, running_var, data_format=data_format)
    np.testing.assert_allclose(y, 1, rtol=1e-5)


def test_two_values_per_channel():
    y = batch_norm(np.float32([[0, 5, -1], [2, 5, 1]]), None, None, training=True, eps=1e-12)
    np.testing.assert_allclose(y, [[-1, 0, -1], [1, 0, 1]], rtol=0, atol=2e-7)


# Half precision: computed in float32, with float32 or half-precision parameters and statistics.


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("parameters", ["half", "float32"])
def test_half_precision(name, parameters):
    dtype = np.dtype(np.float16) if name == "float16" else np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    inner = dtype if parameters == "half" else np.dtype(np.float32)
    x = (np.random.default_rng(9).standard_normal((6, 3, 40)) * 2 + 5).astype(dtype)
    weight, bias = np.array([1, -2, 0.5]).astype(inner), np.array([0, 1, -1]).astype(inner)
    running_mean, running_var = np.zeros(3, inner), np.ones(3, inner)
    y = batch_norm(x, running_mean, running_var, weight, bias, True, 1.0)
    wide = x.astype(np.float64)
    expected = oracle.batch_norm(wide, weight.astype(float), bias.astype(float))
    half_ulp = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
    assert y.dtype == dtype
    assert (np.abs(y.astype(float) - expected) <= half_ulp[name] * np.abs(expected) + 1e-5).all()
    rtol = half_ulp[name] if parameters == "half" else 1e-6
    assert running_mean.dtype == inner
    np.testing.assert_allclose(running_mean.astype(float), wide.mean((0, 2)), rtol=rtol)
    np.testing.assert_allclose(running_var.astype(float), wide.var((0, 2), ddof=1), rtol=rtol)
