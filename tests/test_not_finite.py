"""NaN and Inf spoil exactly their own domain of statistics; large finite values spoil nothing."""

import itertools

import numpy as np
import pytest
from norms import NORMS, assert_close, first, last, running, values

from cpunorm.functional import batch_norm, group_norm, layer_norm

pytestmark = pytest.mark.usefixtures("engine")

BAD = [np.nan, np.inf, -np.inf]
SHAPES = [(2, 6, 7), (3, 4, 5, 70), (2, 4, 2600), (5, 80, 3)]
PLACES = ["first", "middle", "last", "tail"]


def position(place, shape):
    """An index: at the start, where a shift may be estimated, inside, at the end, just before it."""
    size = int(np.prod(shape))
    return np.unravel_index({"first": 0, "middle": size // 2 + 1, "last": size - 1, "tail": size - 2}[place], shape)


def run(name, x, layout):
    if layout == "channels_first":
        return NORMS[name].run(x)
    return first(NORMS[name].run(last(x), data_format=layout))


def run_without_parameters(name, x, layout, eps):
    if layout == "channels_first":
        return NORMS[name].call(x, None, None, eps)
    return first(NORMS[name].call(last(x), None, None, eps, data_format=layout))


# Not rms_norm, which has no mean: Inf makes zeros of its row, see test_rms_norm.py.
LAYOUTS = [(name, "channels_first") for name in NORMS if NORMS[name].has_mean]
LAYOUTS += [(name, "channels_last") for name in NORMS if NORMS[name].has_channels]
FROM_BATCH = [pair for pair in LAYOUTS if "inference" not in pair[0]]


@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_spoils_its_own_domain(name, layout):
    for shape, dtype in itertools.product(SHAPES, (np.float32, np.float64)):
        domains, clean = NORMS[name].domains(np.empty(shape)), run(name, values(shape, dtype), layout)
        for place, bad in itertools.product(PLACES, BAD):
            x, index = values(shape, dtype), position(place, shape)
            x[index] = bad
            spoilt = domains == domains[index]
            y = run(name, x, layout)
            if name == "batch_norm inference":
                np.testing.assert_equal(y[index], bad)  # the weights are positive
            else:
                assert np.isnan(y[spoilt]).all()
            y[spoilt] = clean[spoilt]
            np.testing.assert_array_equal(y, clean)


def test_several_at_once():
    x = values((4, 3, 1500))
    x[0, 0, 5], x[1, 0, 900], x[3, 2, 1499] = np.inf, -np.inf, np.nan
    y = batch_norm(x, None, None, training=True)
    np.testing.assert_array_equal(np.isnan(y).all((0, 2)), [True, False, True])
    assert np.isfinite(y[:, 1]).all()
    rows = np.isnan(layer_norm(x, 1500))
    np.testing.assert_array_equal(rows.all(2), rows.any(2))
    assert rows[0, 0].all()
    assert rows[1, 0].all()
    assert rows[3, 2].all()
    assert rows.sum() == 3 * 1500
    assert np.isnan(group_norm(x, 3)).sum() == 3 * 1500


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("momentum", [0.0, 0.1, 1.0])
def test_running_statistics_of_that_channel_alone(bad, momentum):
    x = values((4, 5, 300))
    clean, statistics = running(5), running(5)
    batch_norm(x, *clean, training=True, momentum=momentum)
    x[2, 3, 17] = bad
    batch_norm(x, *statistics, training=True, momentum=momentum)
    for spoilt, kept in zip(statistics, clean, strict=True):
        assert not np.isfinite(spoilt[3])
        np.testing.assert_array_equal(np.delete(spoilt, 3), np.delete(kept, 3))


@pytest.mark.parametrize("length", [3, 600])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_channel_of_inf_alone_has_no_variance(length, order):
    x = values((4, 2, length)).copy(order)
    x[:, 1] = np.inf
    running_mean, running_var = running(2)
    y = batch_norm(x, running_mean, running_var, training=True)
    np.testing.assert_array_equal(np.isnan(y).all((0, 2)), [False, True])
    np.testing.assert_array_equal(running_mean[1], np.inf)
    assert np.isnan(running_var[1])
    assert np.isnan(layer_norm(np.full((2, length), np.inf, np.float32), length)).all()


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_a_parameter_or_statistic_that_is_nan_spoils_its_channel(which, layout):
    x = values((3, 4, 70))
    vectors = [*running(4), np.ones(4, np.float32), np.zeros(4, np.float32)]
    vectors[which][2] = np.nan
    y = batch_norm(np.moveaxis(x, 1, -1).copy() if layout == "channels_last" else x, *vectors, data_format=layout)
    y = np.moveaxis(y, -1, 1) if layout == "channels_last" else y
    np.testing.assert_array_equal(np.isnan(y).all((0, 2)), [False, False, True, False])
    assert np.isfinite(np.delete(y, 2, 1)).all()


def test_infinite_bias_and_weight():
    x = np.float32([[[-1, 0, 1]]])
    y = layer_norm(x, 3, np.float32([1, np.inf, np.inf]), np.float32([np.inf, 0, -1]))
    np.testing.assert_array_equal(y, [[[np.inf, np.nan, np.inf]]])


@pytest.mark.parametrize("name", [name for name, layout in FROM_BATCH if layout == "channels_first"])
@pytest.mark.parametrize("scale", [2.0**63, 2.0**64, 2.0**90, 2.0**115])
def test_large_values_do_not_overflow_the_variance(name, scale):
    """A power of two changes no digit but eps's."""
    for shape in SHAPES:
        x = values(shape) - np.float32(100)
        y = NORMS[name].run(x * np.float32(scale))
        assert np.isfinite(y).all()
        exact = (x * np.float32(scale)).astype(np.float64)
        np.testing.assert_allclose(y, NORMS[name].expected(exact), rtol=0, atol=2e-5 if np.abs(y).max() > 10 else 4e-6)


@pytest.mark.parametrize("scale", [2.0**-600, 2.0**-530, 2.0**500, 2.0**512, 2.0**700, 2.0**1015])
@pytest.mark.parametrize(("name", "layout"), FROM_BATCH)
def test_float64_keeps_its_digits_where_squares_leave_its_range(engine, name, layout, scale):
    """In every layout; without eps, which would hide small values, a power of two changes no digit."""
    if engine[0] == "reference":
        pytest.skip("plain NumPy in float64")
    if name == "batch_norm training" and scale < 1:
        pytest.skip("has an eps, and any hides these")
    for shape in NORMS[name].of([*SHAPES, (3, 200, 2), (40000, 6)]):
        x = values(shape, np.float64) - 100
        eps = 0.0 if name != "batch_norm training" else np.nextafter(0, 1)
        y = run_without_parameters(name, x * scale, layout, eps)
        exact = run_without_parameters(name, x, layout, eps)
        np.testing.assert_allclose(y, exact, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("name", "layout"), FROM_BATCH)
def test_a_large_constant_has_no_variance_in_any_layout(engine, name, layout):
    if engine[0] == "reference":
        pytest.skip("plain NumPy in float64")
    for dtype, size in [(np.float32, 3e38), (np.float64, 1e150), (np.float64, 1e160), (np.float64, 1.7e308)]:
        for shape in SHAPES:
            x = np.full(shape, size, dtype)
            np.testing.assert_array_equal(run_without_parameters(name, x, layout, 1e-5), np.zeros(shape))


def test_running_statistics_of_large_float64():
    for order in "CF":
        x = np.array([[-1e200, 1.0], [1e200, 3.0]] * 9).copy(order)
        mean, var = np.ones(2), np.ones(2)
        batch_norm(x, mean, var, training=True, momentum=1.0)
        np.testing.assert_array_equal(mean, [0, 2])
        np.testing.assert_allclose(var, [np.inf, 18 / 17])


def test_large_values_in_inference():
    x = np.float32([[1e30, -1e30, 3e38]])
    y = batch_norm(x, np.float32([1e30, 1e30, 0]), np.float32([1, 1e38, 3e38]))
    np.testing.assert_allclose(y, [[0, -2e30 / 1e19, 3e38 / 3e38**0.5]], rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in NORMS if NORMS[name].has_mean])
def test_a_large_value_leaves_the_other_domains_alone(name):
    shape = (3, 4, 5, 70)
    x = values(shape)
    clean = NORMS[name].run(x)
    index = (1, 2, 3, 4)
    x[index] = 1e30
    y = NORMS[name].run(x)
    domains = NORMS[name].domains(x)
    spoilt = domains == domains[index]
    assert np.isfinite(y).all()
    y[spoilt] = clean[spoilt]
    np.testing.assert_array_equal(y, clean)
    assert_close(clean, NORMS[name], values(shape))


def test_half_precision_beyond_its_range_is_infinite():
    """float16 ends at 65504; warnings are errors here, and torch gives none."""
    x = np.array([[1, -1], [3, 5]], np.float16)
    small, one = np.full(2, 1e-12, np.float32), np.zeros(2, np.float32)
    y = batch_norm(x, one, small, np.full(2, 1e6, np.float32), None, eps=0.0)
    np.testing.assert_array_equal(y, np.array([[np.inf, -np.inf], [np.inf, np.inf]], np.float16))
    running_mean, running_var = np.zeros(2, np.float16), np.ones(2, np.float16)
    batch_norm(np.array([[-6e4, 1], [6e4, 2]], np.float16), running_mean, running_var, training=True, momentum=1.0)
    np.testing.assert_array_equal(running_var, np.array([np.inf, 0.5], np.float16))
