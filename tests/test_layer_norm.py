"""LayerNorm's numbers, normalized_shape in all its forms; what all norms share: test_norms.py."""

import numpy as np
import oracle
import pytest

import cpunorm
from cpunorm.functional import layer_norm

pytestmark = pytest.mark.usefixtures("engine")


def arange(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def assert_bound(y, expected, weight=None, bias=None):
    assert y.shape == expected.shape
    assert (np.abs(y - expected) <= oracle.bound(expected, y.dtype, weight, bias)).all()


# The numbers printed in the tutorials (torch-compatible to the digits given).


def test_arange_12():
    y = cpunorm.LayerNorm(4)(arange(3, 4))
    np.testing.assert_allclose(y, [[-1.3416, -0.4472, 0.4472, 1.3416]] * 3, rtol=0, atol=0.5001e-4)


def test_two_axes_of_arange_48():
    y = cpunorm.LayerNorm([3, 4])(arange(2, 2, 3, 4))
    block = np.linspace(-1.5933, 1.5933, 12).reshape(3, 4)
    np.testing.assert_allclose(y, np.broadcast_to(block, y.shape), rtol=0, atol=1e-4)
    np.testing.assert_allclose(y[..., [0, 2], [0, 3]], np.full((2, 2, 2), [-1.5933, 1.5933]), rtol=0, atol=0.5001e-4)


# Exact data: mean, variance and every result are representable, so nothing may be off by one bit.


@pytest.mark.parametrize("mean", [0.0, 1.0, -1000.0, 2.0**20])
@pytest.mark.parametrize("width", [6, 34, 62, 1022, 1026, 5000])  # powers of two: test_norms.py
def test_exact(mean, width):
    """In each pair one value half above the mean, one half below: variance 1/4, plus eps 3/4 is 1."""
    first = np.random.default_rng(width).choice([-0.5, 0.5], (3, width // 2, 1))
    z = np.concatenate([first, -first], 2).reshape(3, width).astype(np.float32)
    weight = np.float32(2) ** (np.arange(width, dtype=np.float32) % 5)
    bias = -np.arange(width, dtype=np.float32)
    x = z + np.float32(mean) + arange(3, 1)
    for layout in (x, np.asfortranarray(x)):
        np.testing.assert_array_equal(layer_norm(layout, width, weight, bias, 0.75), z * weight + bias)


# normalized_shape.


@pytest.mark.parametrize("given", [4, np.int64(4), (4,), [4], np.array([4]), np.array(4)])
def test_every_form_of_normalized_shape(given):
    x = arange(2, 3, 4)
    np.testing.assert_array_equal(layer_norm(x, given), layer_norm(x, (4,)))
    np.testing.assert_array_equal(cpunorm.LayerNorm(given)(x), layer_norm(x, (4,)))


@pytest.mark.parametrize("shape", [(6,), (3, 50), (2, 3, 40), (2, 3, 4, 5), (2, 1, 3, 2, 7), (1, 1, 1), (5, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_number_of_trailing_axes(shape, dtype):
    rng = np.random.default_rng(len(shape))
    x = (rng.standard_normal(shape) * 3 - 2).astype(dtype)
    for ndim in range(1, len(shape) + 1):
        normalized_shape = shape[-ndim:]
        weight, bias = rng.standard_normal((2, *normalized_shape)).astype(dtype) * 4
        y = layer_norm(x, normalized_shape, weight, bias)
        assert_bound(y, oracle.layer_norm(x, normalized_shape, weight, bias), weight, bias)


def test_weight_and_bias_follow_the_position_not_the_row():
    x = arange(5, 2, 3)
    weight, bias = arange(2, 3) - 2, 10 * arange(2, 3)
    z = layer_norm(x, (2, 3))
    np.testing.assert_allclose(layer_norm(x, (2, 3), weight, bias), z * weight + bias, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("width", [1, 5, 16, 100, 768, 4097])
@pytest.mark.parametrize("rows", [1, 2, 9])
def test_widths(width, rows):
    rng = np.random.default_rng(width)
    x = rng.standard_normal((rows, width)).astype(np.float32) * 5 + 1
    weight, bias = rng.standard_normal((2, width)).astype(np.float32)
    norm = cpunorm.LayerNorm(width)
    norm.weight[:], norm.bias[:] = weight, bias
    assert_bound(norm(x), oracle.layer_norm(x, (width,), weight, bias), weight, bias)


# No rows, no values.


@pytest.mark.parametrize(
    ("shape", "normalized_shape"),
    [((4, 0), (0,)), ((2, 3, 0), (3, 0)), ((2, 0, 4), (4,)), ((2, 0, 4), (0, 4))],
)
def test_empty(shape, normalized_shape):
    x = np.empty(shape, np.float32)
    weight = np.ones(normalized_shape, np.float32)
    assert layer_norm(x, normalized_shape, weight, weight).shape == shape
