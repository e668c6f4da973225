"""The same bits at any number of threads, in any batch, on every way into a kernel."""

import numpy as np
import pytest
from norms import EPS, NORMS, affine, running, values

import cpunorm
from cpunorm.functional import batch_norm, group_norm, layer_norm

pytestmark = pytest.mark.usefixtures("engine")

THREADS = (1, 2, 3, 8)

# Below and above the size that goes parallel (65536 elements): many domains, few and large ones, odd lengths.
SHAPES = [(3, 6, 50), (16, 32, 20, 21), (1, 4, 201, 199), (2, 70002), (70002, 2), (1, 2, 140001), (7, 12, 997)]


def bits_at_each_number_of_threads(run):
    for number in THREADS:
        with cpunorm.num_threads(number):
            yield [array.tobytes() for array in run()]


def assert_same_bits(run):
    one, *more = bits_at_each_number_of_threads(run)
    for number, bits in zip(THREADS[1:], more, strict=True):
        assert bits == one, f"{number} threads give other bits than one"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NORMS)
def test_any_number_of_threads(name, shape):
    x = values(shape)
    assert_same_bits(lambda: [NORMS[name].run(x)])


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if len(shape) > 2])
@pytest.mark.parametrize("name", [name for name in NORMS if NORMS[name].has_channels])
def test_any_number_of_threads_with_channels_last(name, shape):
    x = np.ascontiguousarray(np.moveaxis(values(shape), 1, -1))
    assert_same_bits(lambda: [NORMS[name].run(x, data_format="channels_last")])


@pytest.mark.parametrize("shape", [(1, 3, 512, 512), (2, 500_000), (32, 32, 33, 31)])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_training_statistics_at_any_number_of_threads(shape, layout):
    x = values(shape)
    if layout == "channels_last":
        x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)

    def run():
        statistics = running(shape[1])
        return [batch_norm(x, *statistics, training=True), *statistics]

    assert_same_bits(run)


@pytest.mark.parametrize("name", NORMS)
def test_float64_and_strided_input_at_any_number_of_threads(name):
    wide = values((4, 10, 41, 57), np.float64)
    strided = values((4, 10, 82, 60))[:, :, ::-2, 1:-2]
    assert_same_bits(lambda: [NORMS[name].run(wide), NORMS[name].run(strided)])


@pytest.mark.parametrize("shape", [(5, 6, 50), (33, 4, 700), (3, 8, 91, 97), (3, 2, 70_001), (9000, 8)])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("name", [name for name in NORMS if NORMS[name].per_sample])
def test_a_sample_has_the_same_bits_in_any_batch(name, layout, shape):
    x = values(shape)
    if layout == "channels_last":
        x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    whole = NORMS[name].run(x)
    for part in (slice(1), slice(2, 3), slice(1, 4), slice(-2, None)):
        np.testing.assert_array_equal(NORMS[name].run(x[part]), whole[part])


@pytest.mark.parametrize("shape", [(3, 6, 50), (2, 4, 40001)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_express_lane_gives_the_bits_of_the_general_way(shape, order):
    """An eps that is no plain float, a momentum that is an int, a list: all unusual, none different."""
    x, (weight, bias), eps = values(shape).copy(order), affine(shape[1]), np.float64(EPS)
    for training in (True, False):
        plain, general = running(shape[1]), running(shape[1])
        np.testing.assert_array_equal(
            batch_norm(x, *plain, weight, bias, training, 1.0, EPS),
            batch_norm(x, *general, weight, bias, training, 1, eps),
        )
        np.testing.assert_array_equal(plain, general)
    np.testing.assert_array_equal(group_norm(x, 2, weight, bias, EPS), group_norm(x, 2, weight, bias, eps))
    row = shape[2:]
    np.testing.assert_array_equal(layer_norm(x, row, *affine(row), EPS), layer_norm(x, list(row), *affine(row), eps))


@pytest.mark.parametrize("name", NORMS)
def test_again_and_into_out_gives_the_same_bits(name):
    x = values((4, 6, 40, 90))
    first = NORMS[name].run(x)
    np.testing.assert_array_equal(NORMS[name].run(x), first)
    np.testing.assert_array_equal(NORMS[name].run(x, out=np.full_like(x, np.nan)), first)
    np.testing.assert_array_equal(NORMS[name].run(x, out=x), first)
