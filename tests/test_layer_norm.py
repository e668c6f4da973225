"""layer_norm and LayerNorm: the numbers, normalized_shape in all its forms, the small and empty cases."""

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
@pytest.mark.parametrize("width", [2, 6, 16, 34, 62, 128, 1022, 1026, 2050, 5000])
def test_exact(mean, width):
    """In each pair one value half above the mean, one half below: variance 1/4, plus eps 3/4 is 1."""
    first = np.random.default_rng(width).choice([-0.5, 0.5], (3, width // 2, 1))
    z = np.concatenate([first, -first], 2).reshape(3, width).astype(np.float32)
    weight = np.float32(2) ** (np.arange(width, dtype=np.float32) % 5)
    bias = -np.arange(width, dtype=np.float32)
    x = z + np.float32(mean) + arange(3, 1)
    for layout in (x, np.asfortranarray(x)):
        np.testing.assert_array_equal(layer_norm(layout, width, weight, bias, 0.75), z * weight + bias)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [1, 2, 7, 500, 3000])
def test_a_constant_row_gives_the_bias(dtype, width):
    x = np.broadcast_to(np.array([0, 3, -1e4, 0.5], dtype)[:, None], (4, width))
    bias = np.linspace(-1, 1e5, width).astype(dtype)
    y = layer_norm(x, width, np.full(width, 1e3, dtype), bias)
    np.testing.assert_array_equal(y, np.broadcast_to(bias, x.shape))


def test_zero_eps():
    y = layer_norm(np.float32([[3, 1], [5, 5]]), 2, eps=0.0)
    np.testing.assert_array_equal(y, [[1, -1], [np.nan, np.nan]])


# normalized_shape.


@pytest.mark.parametrize("given", [4, np.int64(4), (4,), [4], np.array([4]), np.array(4)])
def test_every_form_of_normalized_shape(given):
    x = arange(2, 3, 4)
    np.testing.assert_array_equal(layer_norm(x, given), layer_norm(x, (4,)))
    np.testing.assert_array_equal(cpunorm.LayerNorm(given)(x), layer_norm(x, (4,)))


@pytest.mark.parametrize("shape", [(6,), (3, 50), (2, 3, 40), (2, 3, 4, 5), (2, 1, 3, 2, 7), (1, 1, 1), (5, 1)])
@pytest.mark.parametrize("parameters", ["none", "weight", "bias", "both"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_number_of_trailing_axes(shape, parameters, dtype):
    rng = np.random.default_rng(len(shape))
    x = (rng.standard_normal(shape) * 3 - 2).astype(dtype)
    for ndim in range(1, len(shape) + 1):
        normalized_shape = shape[-ndim:]
        weight, bias = rng.standard_normal((2, *normalized_shape)).astype(dtype) * 4
        weight = weight if parameters in ("weight", "both") else None
        bias = bias if parameters in ("bias", "both") else None
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


# Writing into `out`.


@pytest.mark.parametrize(("shape", "ndim"), [((7,), 1), ((9, 4), 1), ((3, 2, 33), 1), ((3, 4, 5), 2), ((2, 3, 70), 3)])
def test_out_and_in_place(shape, ndim):
    x = np.random.default_rng(8).standard_normal(shape).astype(np.float32)
    fresh = layer_norm(x, shape[-ndim:])
    out = np.full_like(x, np.nan)
    assert layer_norm(x, shape[-ndim:], out=out) is out
    np.testing.assert_array_equal(out, fresh)
    assert layer_norm(x, shape[-ndim:], out=x) is x
    np.testing.assert_array_equal(x, fresh)


# No rows, no values.


@pytest.mark.parametrize(
    ("shape", "normalized_shape"),
    [((0, 4), (4,)), ((4, 0), (0,)), ((0, 0), (0,)), ((2, 3, 0), (3, 0)), ((2, 0, 4), (4,)), ((2, 0, 4), (0, 4))],
)
def test_empty(shape, normalized_shape):
    x = np.empty(shape, np.float32)
    weight = np.ones(normalized_shape, np.float32)
    y = layer_norm(x, normalized_shape, weight, weight)
    assert y.shape == shape
    assert y.dtype == np.float32
    assert y is not x
    assert layer_norm(x, normalized_shape, weight, weight, out=y) is y


def test_no_rows_with_a_wrong_weight_is_an_error():
    with pytest.raises(RuntimeError, match="weight"):
        layer_norm(np.empty((0, 4), np.float32), 4, np.ones(3, np.float32))


# Half precision: computed in float32, with float32 or half-precision parameters.


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("parameters", ["half", "float32"])
def test_half_precision(name, parameters):
    dtype = np.dtype(np.float16) if name == "float16" else np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    inner = dtype if parameters == "half" else np.dtype(np.float32)
    rng = np.random.default_rng(9)
    x = (rng.standard_normal((6, 120)) * 2 + 5).astype(dtype)
    weight, bias = rng.standard_normal((2, 120)).astype(inner)
    y = layer_norm(x, 120, weight, bias)
    expected = oracle.layer_norm(x.astype(np.float64), (120,), weight.astype(float), bias.astype(float))
    half_ulp = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[name]
    assert y.dtype == dtype
    assert (np.abs(y.astype(float) - expected) <= half_ulp * np.abs(expected) + 1e-5).all()
