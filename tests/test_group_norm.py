"""GroupNorm by hand, its two limits, single-value rules; what all norms share: test_norms.py."""

import numpy as np
import oracle
import pytest
from norms import first, last

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


@pytest.mark.parametrize("groups", [1, 3, 6])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_weight_and_bias_follow_the_channel(groups, data_format):
    norm = cpunorm.GroupNorm(groups, 6, data_format=data_format)
    norm.weight[:], norm.bias[:] = [1.5, -2, 0, 1e2, 1e-3, 1], [0, 1, -1e2, 0.1, 7, -1]
    for shape in ((3, 6, 1), (2, 6, 70), (2, 6, 5, 7)):
        x = np.random.default_rng(2).standard_normal(shape).astype(np.float32) * 2 + 3
        y = norm(x) if data_format == "channels_first" else first(norm(last(x)))
        assert_bound(y, oracle.group_norm(x, groups, norm.weight, norm.bias), norm.weight, norm.bias)


@pytest.mark.parametrize("positions", [1, 3])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_each_of_many_groups_has_weights_of_its_own(positions, data_format):
    """So many that they don't fit into the lanes of a window: it takes other weights than the one before."""
    x = np.random.default_rng(3).standard_normal((3, 300, positions)).astype(np.float32) * 2 + 3
    weight, bias = np.linspace(0.5, 1.5, 300, dtype=np.float32), np.linspace(1, -1, 300, dtype=np.float32)
    if data_format == "channels_first":
        y = group_norm(x, 150, weight, bias)
    else:
        y = first(group_norm(last(x), 150, weight, bias, data_format=data_format))
    assert_bound(y, oracle.group_norm(x, 150, weight, bias), weight, bias)


@pytest.mark.parametrize("positions", [(2,), (7,), (32,), (33,), (2, 3), (2, 2, 2)])
@pytest.mark.parametrize(("groups", "member"), [(4, 64), (3, 77), (2, 16)])
@pytest.mark.parametrize("cropped", [False, True])
def test_lines_of_a_group_share_its_weights(positions, groups, member, cropped):
    """Channels last, so few positions that a group is a few lines: the same weights for each of them."""
    channels = groups * member
    rng = np.random.default_rng(4)
    x = (rng.standard_normal((5, *positions, channels + 9)) * 2 + 3).astype(np.float32)[..., 4:-5]
    weight, bias = np.linspace(0.5, 1.5, channels, dtype=np.float32), np.linspace(1, -1, channels, dtype=np.float32)
    residual = rng.standard_normal(x.shape).astype(np.float32)
    dense = np.ascontiguousarray(x)
    y = group_norm(x if cropped else dense, groups, weight, bias, data_format="channels_last")
    expected = oracle.group_norm(first(dense), groups, weight, bias)
    assert_bound(first(y), expected, weight, bias)
    for given in ({"weight": weight}, {"bias": bias}):
        y = group_norm(x if cropped else dense, groups, **given, data_format="channels_last")
        assert_bound(first(y), oracle.group_norm(first(dense), groups, **given), **given)
    total = expected + first(residual)
    allowed = oracle.bound(expected, np.float32, weight, bias) + oracle.UNIT[np.dtype(np.float32)] * np.abs(total)
    for activation, last_step in (
        ("relu", 0),
        ("tanh", 2 * oracle.UNIT[np.dtype(np.float32)]),
    ):  # neither is steeper than 1
        y = group_norm(
            dense, groups, weight, bias, data_format="channels_last", residual=residual, activation=activation
        )
        assert (np.abs(first(y) - oracle.ACTIVATIONS[activation](total)) <= allowed + last_step).all()


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


def test_no_groups():
    with pytest.raises(RuntimeError, match="0"):
        group_norm(np.ones((2, 4), np.float32), 0)
    with pytest.raises(ValueError, match="0"):
        cpunorm.GroupNorm(0, 4)
