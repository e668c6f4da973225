"""Any strided, read-only, misaligned or byte-swapped array works, into any other, and nothing but `out` is written."""

import itertools

import hypothesis
import ml_dtypes
import numpy as np
import oracle
import pytest
from hypothesis import strategies as st
from norms import EPS, KAPPA, NORMS, affine, assert_close, first, last, values
from strided import LAYOUTS, channels_last, embed, packed, surroundings, unaligned

from cpunorm.functional import batch_norm, group_norm, layer_norm

pytestmark = pytest.mark.usefixtures("engine")

# Rank 2 to 5; lines shorter and longer than a vector in both layouts; some of a size whose short runs are copied.
SHAPES = [(9, 6), (4, 4, 70), (2, 34, 5), (5, 6, 5, 7), (2, 4, 3, 40), (2, 4, 3, 2, 5), (2, 2, 3, 5, 18)]
WITH_CHANNELS = [name for name, norm in NORMS.items() if norm.has_channels]


@pytest.fixture(params=NORMS)
def norm(request):
    return NORMS[request.param]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_input_of_any_layout(norm, layout):
    for shape, dtype in zip(norm.of(SHAPES + SHAPES[:3]), itertools.cycle([np.float32, np.float32, np.float64])):
        plain = values(shape, dtype)
        x = LAYOUTS[layout](plain)
        around = surroundings(x)
        y = norm.run(x)
        assert_close(y, norm, plain)
        assert y.dtype == dtype
        assert y.flags.writeable
        np.testing.assert_array_equal(x, plain)
        assert surroundings(x) == around


@pytest.mark.parametrize("layout", LAYOUTS)
def test_out_of_any_layout(norm, layout):
    for shape, source in itertools.product(norm.of(SHAPES), (embed, channels_last)):
        x = source(values(shape))
        out = LAYOUTS[layout](np.full(shape, np.nan, np.float32))
        around = surroundings(out)
        assert norm.run(x, out=out) is out
        assert_close(out, norm, values(shape))
        np.testing.assert_array_equal(x, values(shape))
        assert surroundings(out) == around


@pytest.mark.parametrize("layout", LAYOUTS)
def test_in_place_in_any_layout(norm, layout):
    for shape in norm.of(SHAPES):
        x = LAYOUTS[layout](values(shape))
        around = surroundings(x)
        assert norm.run(x, out=x) is x
        assert_close(x, norm, values(shape))
        assert surroundings(x) == around


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_short_runs_have_the_bits_of_a_copy(engine, norm, layout, dtype):
    """Whether they are copied first or not: sizes on both sides of where that begins.

    The reference's values are looked at above; its bits are those of NumPy's sums.
    """
    if engine[0] == "reference":
        pytest.skip("NumPy's sums depend on strides")
    for shape in norm.of([(3, 6, 4, 9), (7, 6, 4, 9)]):
        plain = values(shape, dtype)
        residual, dense = LAYOUTS[layout](plain[::-1]), LAYOUTS[layout](plain).copy("K")
        for told in ({}, {"residual": residual}):
            expected = norm.run(dense, **told)
            for out in (
                None,
                LAYOUTS[layout](plain),
                LAYOUTS[layout](plain).copy("K"),
                np.empty_like(plain),
                "in place",
            ):
                x = LAYOUTS[layout](plain)
                y = norm.run(x, out=x if isinstance(out, str) else out, **told)
                np.testing.assert_array_equal(y, expected)
                assert y is x or np.array_equal(x, plain)


@pytest.mark.parametrize("name", WITH_CHANNELS)
def test_data_format_channels_last_is_the_transposed_computation(name):
    for shape in SHAPES[1:]:
        x = channels_last(values(shape))
        y = NORMS[name].run(np.moveaxis(x, 1, -1), data_format="channels_last")
        np.testing.assert_array_equal(first(y), NORMS[name].run(x))
        assert y.flags.c_contiguous
        assert_close(first(y), NORMS[name], values(shape))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", WITH_CHANNELS)
def test_data_format_channels_last_in_any_layout(name, layout):
    norm = NORMS[name]
    for shape in norm.of(SHAPES):
        x = LAYOUTS[layout](last(values(shape)))
        out = LAYOUTS[layout](np.empty(x.shape, np.float32))
        for y in (norm.run(x, data_format="channels_last"), norm.run(x, data_format="channels_last", out=out)):
            assert_close(first(y), norm, values(shape))


def test_output_has_the_strides_of_a_dense_input(norm):
    for shape in norm.of(SHAPES):
        for order in (range(len(shape)), reversed(range(len(shape))), (0, *range(2, len(shape)), 1)):
            x = embed(values(shape), order)
            assert norm.run(x).strides == x.strides


# Inputs that no output could have: repeated elements, byte order, read-only memory.


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_broadcast_input(norm, axis):
    for shape in norm.of(SHAPES):
        x = np.broadcast_to(values(shape).take([0], axis), shape)
        assert_close(norm.run(x), norm, x)
        assert_close(norm.run(x, out=np.empty(shape, np.float32)), norm, x)


def test_sliding_windows(norm):
    x = np.lib.stride_tricks.sliding_window_view(values((3, 4, 90)), 30, axis=2).swapaxes(2, 3)
    assert_close(norm.run(x), norm, np.ascontiguousarray(x))


KINDS = ["contiguous", "channels_last strides", "cropped", "backwards", "unaligned", "packed"]  # of LAYOUTS


def test_read_only_input(norm):
    for layout in KINDS:
        x = LAYOUTS[layout](values((2, 4, 5, 7)))
        x.flags.writeable = False
        assert_close(norm.run(x), norm, values((2, 4, 5, 7)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_swapped_bytes(norm, dtype):
    plain = values((2, 4, 5, 7), dtype)
    for layout in KINDS:
        x = LAYOUTS[layout](plain.astype(np.dtype(dtype).newbyteorder()))
        y = norm.run(x)
        assert y.dtype == dtype
        assert_close(y, norm, plain)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_half_precision(norm, layout):
    for shape, dtype in itertools.product(SHAPES[1:4], (np.float16, ml_dtypes.bfloat16)):
        plain = values(shape).astype(dtype)
        x, out = LAYOUTS[layout](plain), LAYOUTS[layout](plain)
        around = surroundings(out)
        y = norm.run(x)
        assert y.dtype == dtype
        assert_close(y, norm, plain)
        assert norm.run(x, out=out) is out
        np.testing.assert_array_equal(out, y)
        assert surroundings(out) == around
        assert norm.run(x, out=x) is x
        np.testing.assert_array_equal(x, y)


# Parameters and running statistics, strided, misaligned and byte-swapped.

VECTORS = {
    "strided": lambda vector: embed(vector, steps=3, margin=1),
    "backwards": lambda vector: embed(vector, steps=-1, margin=1),
    "unaligned": unaligned,
    "packed": packed,
    "swapped": lambda vector: embed(vector.astype(vector.dtype.newbyteorder())),
}


@pytest.mark.parametrize("vector", VECTORS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parameters_and_running_statistics_of_any_layout(vector, dtype):
    lay = VECTORS[vector]
    x = values((3, 6, 20), dtype)
    weight, bias = affine(6, dtype)
    np.testing.assert_array_equal(group_norm(x, 3, lay(weight), lay(bias)), group_norm(x, 3, weight, bias))
    np.testing.assert_array_equal(
        layer_norm(x, 20, lay(weight.repeat(4)[:20]), lay(bias.repeat(4)[:20])),
        layer_norm(x, 20, weight.repeat(4)[:20], bias.repeat(4)[:20]),
    )
    for training in (True, False):
        plain = np.linspace(-1, 1, 6).astype(dtype), np.linspace(1, 2, 6).astype(dtype)
        strided = lay(plain[0]), lay(plain[1])
        around = [surroundings(statistic) for statistic in strided]
        y = batch_norm(x, *strided, lay(weight), lay(bias), training, 0.3)
        np.testing.assert_array_equal(y, batch_norm(x, *plain, weight, bias, training, 0.3))
        np.testing.assert_array_equal(strided, plain)
        assert [surroundings(statistic) for statistic in strided] == around


def test_parameters_of_several_axes_in_any_order():
    x, (weight, bias) = values((3, 4, 5, 6)), affine((4, 5, 6))
    expected = layer_norm(x, (4, 5, 6), weight, bias)
    for layout in LAYOUTS.values():
        np.testing.assert_array_equal(layer_norm(x, (4, 5, 6), layout(weight), layout(bias)), expected)


# Everything at once.


@st.composite
def layouts(draw, ndim):
    """A function that embeds an array of `ndim` axes in any order, steps and margin."""
    order = draw(st.permutations(range(ndim)))
    steps = draw(st.tuples(*[st.sampled_from([1, 1, 1, -1, 2, -3])] * ndim))
    margin = draw(st.sampled_from([0, 0, 1]))
    return lambda array: embed(array, order, steps, margin)


@hypothesis.given(st.data())
@hypothesis.settings(max_examples=3 * hypothesis.settings.default.max_examples)
def test_any_strides_at_all(data):
    norm = NORMS[data.draw(st.sampled_from(sorted(NORMS)))]
    shape = data.draw(st.lists(st.sampled_from([1, 2, 3, 4, 5, 17]), min_size=3, max_size=6))
    shape[1] *= 2  # even: two groups
    hypothesis.assume(np.prod(shape[2:]) > 1 and np.prod(shape) < 20000)
    plain = values(shape, data.draw(st.sampled_from([np.float32, np.float64])))
    x = data.draw(layouts(len(shape)))(plain)
    out = data.draw(st.just(x) | layouts(len(shape)).map(lambda lay: lay(np.zeros_like(plain))))
    around = surroundings(out)
    assert_close(norm.run(x), norm, plain)
    assert norm.run(x, out=out) is out
    assert_close(out, norm, plain)
    assert surroundings(out) == around
    if out is not x:
        np.testing.assert_array_equal(x, plain)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("residual", [False, True])
def test_samples_inside_a_power_of_2_apart(dtype, residual):
    """A copy puts them first, a line of the cache apart; what is added lies as it likes."""
    plain = values((17, 4, 64), dtype)
    for layout in ("fortran", "samples inside"):
        x = LAYOUTS[layout](plain)
        added = LAYOUTS["channels_last strides"](values(plain.shape, dtype)[::-1]) if residual else None
        expected = oracle.group_norm(plain, 2, eps=EPS) + (0 if added is None else added.astype(np.float64))
        for out in (None, x.copy("K"), np.zeros_like(plain)):
            y = group_norm(x, 2, eps=EPS, residual=added, out=out)
            np.testing.assert_array_less(np.abs(y - expected), oracle.bound(expected, dtype, kappa=KAPPA))
            np.testing.assert_array_equal(x, plain)


def test_many_axes():
    """As many as NumPy has: more than any view holds."""
    x = values((2, 2) + (1, 2, 1) * 4 + (3,) * 2)
    x = x[..., ::-1, ::2]
    np.testing.assert_array_less(
        np.abs(group_norm(x, 2) - oracle.group_norm(x, 2, eps=EPS)), oracle.bound(0, np.float32)
    )
