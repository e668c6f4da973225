"""group_norm and GroupNorm: the construction by hand, its two limits, the single-value rules, the empty cases."""

import numpy as np
import oracle
import pytest
from norms import balanced

import cpunorm
from cpunorm.functional import group_norm, layer_norm

pytestmark = pytest.mark.usefixtures("engine")


def arange(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def assert_bound(y, expected, weight=None, bias=None):
    assert y.shape == expected.shape
    assert (np.abs(y - expected) <= oracle.bound(expected, y.dtype, weight, bias)).all()


def test_is_split_var_mean_normalize_concatenate():
    """The tutorials' construction: num_groups=2, num_channels=4 on (2, 4, 2, 2) random values."""
    x = np.random.default_rng(0).random((2, 4, 2, 2), np.float32)
    wide = x.astype(np.float64)
    normalized = [
        (half - half.mean((1, 2, 3), keepdims=True)) / np.sqrt(half.var((1, 2, 3), keepdims=True) + 1e-5)
        for half in np.split(wide, 2, axis=1)
    ]
    assert_bound(cpunorm.GroupNorm(2, 4)(x), np.concatenate(normalized, axis=1))
    assert_bound(cpunorm.GroupNorm(2, 4, affine=False).eval()(x), np.concatenate(normalized, axis=1))


@pytest.mark.parametrize("shape", [(3, 6), (2, 6, 35), (2, 6, 5, 7), (2, 6, 2, 3, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_limits(shape, dtype):
    """One group is LayerNorm over a sample; as many groups as channels is each channel of each sample by itself."""
    x = (np.random.default_rng(1).standard_normal(shape) * 2 + 9).astype(dtype)
    assert_bound(group_norm(x, 1), oracle.layer_norm(x, shape[1:]))
    np.testing.assert_allclose(group_norm(x, 1), layer_norm(x, shape[1:]), rtol=0, atol=2e-6)
    if len(shape) > 2:
        assert_bound(group_norm(x, 6), oracle.layer_norm(x, shape[2:]))


# Exact data: mean, variance and every result are representable, so nothing may be off by one bit.


@pytest.mark.parametrize("mean", [0.0, 1.0, -1000.0, 2.0**20])
@pytest.mark.parametrize(("channels", "length"), [(2, 1), (1, 32), (8, 16), (16, 32), (4, 1024), (8, 512)])
def test_exact(mean, channels, length):
    z = np.tile(balanced(channels * length), (6, 1)) * np.float32([1, -1, 1, 1, -1, -1])[:, None]
    x = (z + np.float32(mean) + arange(6, 1)).reshape(2, 3 * channels, length)
    weight = np.float32(2) ** (arange(3 * channels) % 5)
    bias = -arange(3 * channels)
    expected = z.reshape(x.shape) * weight[:, None] + bias[:, None]
    for layout in (x, np.asfortranarray(x), np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2)):
        np.testing.assert_array_equal(group_norm(layout, 3, weight, bias, 0.75), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("length", [1, 7, 500, 3000])
def test_a_constant_group_gives_its_bias(dtype, length):
    x = np.broadcast_to(np.array([0, 3, -1e4, 0.5], dtype).repeat(2)[:, None], (2, 8, length))
    bias = np.linspace(-1, 1e5, 8).astype(dtype)
    y = group_norm(x, 4, np.full(8, 1e3, dtype), bias)
    np.testing.assert_array_equal(y, np.broadcast_to(bias[:, None], x.shape))


def test_zero_eps():
    y = group_norm(np.float32([[3, 1, 5, 5]]), 2, eps=0.0)
    np.testing.assert_array_equal(y, [[1, -1, np.nan, np.nan]])


@pytest.mark.parametrize("given", ["none", "weight", "bias", "both"])
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("shape", [(3, 6, 1), (2, 6, 70), (2, 6, 5, 7)])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_weight_and_bias_follow_the_channel(given, groups, shape, data_format):
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32) * 2 + 3
    weight = np.float32([1.5, -2, 0, 1e2, 1e-3, 1]) if given in ("weight", "both") else None
    bias = np.float32([0, 1, -1e2, 0.1, 7, -1]) if given in ("bias", "both") else None
    norm = cpunorm.GroupNorm(groups, 6, data_format=data_format)
    norm.weight, norm.bias = weight, bias
    if data_format == "channels_first":
        y = norm(x)
    else:
        y = np.moveaxis(norm(np.ascontiguousarray(np.moveaxis(x, 1, -1))), -1, 1)
    assert_bound(y, oracle.group_norm(x, groups, weight, bias), weight, bias)


@pytest.mark.parametrize("shape", [(9, 4), (2, 4, 33), (3, 4, 5, 6), (2, 4, 2, 3, 4)])
@pytest.mark.parametrize("groups", [1, 2])
def test_out_and_in_place(shape, groups):
    x = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    fresh = group_norm(x, groups)
    out = np.full_like(x, np.nan)
    assert group_norm(x, groups, out=out) is out
    np.testing.assert_array_equal(out, fresh)
    assert group_norm(x, groups, out=x) is x
    np.testing.assert_array_equal(x, fresh)


# Few values, or none.


@pytest.mark.parametrize("shape", [(1, 4), (1, 4, 1), (1, 4, 1, 1)])
def test_one_value_per_group_in_the_whole_batch_is_an_error_in_eval_too(shape):
    x = np.ones(shape, np.float32)
    with pytest.raises(ValueError, match="1 value per group"):
        group_norm(x, 4)
    with pytest.raises(ValueError, match="1 value per group"):
        cpunorm.GroupNorm(4, 4).eval()(x)


@pytest.mark.parametrize("shape", [(2, 4), (5, 4, 1), (2, 4, 1, 1)])
def test_several_samples_with_one_value_per_group_give_the_bias(shape):
    bias = np.float32([0, 1, -2, 0.1])
    y = group_norm(arange(*shape) * 1e3, 4, np.float32([1, 2, 3, 4]), bias)
    np.testing.assert_array_equal(y.reshape(-1, 4), np.tile(bias, (shape[0], 1)))


@pytest.mark.parametrize(
    ("shape", "groups"),
    [((0, 4), 2), ((0, 4, 3), 4), ((2, 0, 3), 1), ((2, 0), 3), ((2, 4, 0), 2), ((1, 4, 0), 4), ((0, 0), 1)],
)
def test_empty(shape, groups):
    x = np.empty(shape, np.float32)
    weight = np.ones(shape[1], np.float32)
    y = group_norm(x, groups, weight, weight)
    assert y.shape == shape
    assert y.dtype == np.float32
    assert y is not x
    assert group_norm(x, groups, weight, weight, out=y) is y


def test_no_samples_with_a_wrong_weight_is_an_error():
    with pytest.raises(RuntimeError, match="weight"):
        group_norm(np.empty((0, 4), np.float32), 2, np.ones(3, np.float32))


def test_no_groups():
    with pytest.raises(RuntimeError, match="0"):
        group_norm(np.ones((2, 4), np.float32), 0)
    with pytest.raises(ValueError, match="0"):
        cpunorm.GroupNorm(0, 4)


# Half precision: computed in float32, with float32 or half-precision parameters.


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("parameters", ["half", "float32"])
def test_half_precision(name, parameters):
    dtype = np.dtype(np.float16) if name == "float16" else np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    inner = dtype if parameters == "half" else np.dtype(np.float32)
    x = (np.random.default_rng(9).standard_normal((3, 4, 60)) * 2 + 5).astype(dtype)
    weight, bias = np.array([1, -2, 0.5, 3]).astype(inner), np.array([0, 1, -1, 0.1]).astype(inner)
    y = group_norm(x, 2, weight, bias)
    expected = oracle.group_norm(x.astype(np.float64), 2, weight.astype(float), bias.astype(float))
    half_ulp = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[name]
    assert y.dtype == dtype
    assert (np.abs(y.astype(float) - expected) <= half_ulp * np.abs(expected) + 1e-5).all()
