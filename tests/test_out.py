"""`out=`: any separate memory of the right shape and dtype, or the input itself; everything else is an error."""

import hypothesis
import numpy as np
import pytest
from arrays import memory, ramp
from hypothesis import strategies as st
from norms import NORMS, assert_close, values
from numpy.lib.stride_tricks import as_strided
from strided import LAYOUTS, surroundings

import cpunorm
from cpunorm import functional

SHAPE = (2, 6, 4, 5)


@pytest.fixture(params=NORMS)
def norm(request):
    return NORMS[request.param]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_written_wherever_it_lies(engine, norm, layout):
    for dtype in (np.float32, np.float64):
        x = values(SHAPE, dtype)
        out = LAYOUTS[layout](np.zeros_like(x))
        around = surroundings(out)
        assert norm.run(x, out=out) is out
        assert_close(out, norm, x)
        assert surroundings(out) == around
        np.testing.assert_array_equal(x, values(SHAPE, dtype))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_in_place_has_the_bits_of_a_fresh_output(engine, norm, layout):
    for dtype in (np.float32, np.float64, np.float16):
        x = LAYOUTS[layout](values(SHAPE, dtype))
        around, expected = surroundings(x), norm.run(x)
        assert norm.run(x, out=x) is x
        np.testing.assert_array_equal(x, expected)
        assert surroundings(x) == around


def test_in_place_by_another_view_of_the_same_elements(engine, norm):
    x = values((1, 6, 4, 5))
    same = as_strided(x, strides=(8, *x.strides[1:]))  # the stride of an axis of length 1 means nothing
    expected = norm.run(x)
    np.testing.assert_array_equal(norm.run(same, out=x), expected)


def test_interleaved_with_the_input(engine, norm):
    both = np.empty((2, 6, 4, 10), np.float32)
    x, out = both[..., ::2], both[..., 1::2]
    x[...] = values(SHAPE)
    norm.run(x, out=out)
    assert_close(out, norm, values(SHAPE))
    np.testing.assert_array_equal(x, values(SHAPE))


def test_byte_order(engine):
    """The output is native, so a big-endian input can't take it, but native memory can."""
    x = values(SHAPE).astype(">f4")
    out = np.empty(SHAPE, np.float32)
    assert functional.group_norm(x, 3, out=out) is out
    np.testing.assert_array_equal(out, functional.group_norm(values(SHAPE), 3))
    with pytest.raises(RuntimeError, match=r"dtype float32, got >f4"):
        functional.group_norm(x, 3, out=x)


def read_only():
    out = np.empty(SHAPE, np.float32)
    out.flags.writeable = False
    return out


@pytest.mark.parametrize(
    ("out", "error", "says"),
    [
        ([[1.0]], TypeError, "list"),
        ("out", TypeError, "str"),
        (1.0, TypeError, "float"),
        (memoryview(b""), ValueError, "read-only"),
        ({}, TypeError, "dict"),
        (np.float32(1), TypeError, "float32"),
        (np.ma.zeros(SHAPE, np.float32), TypeError, "masked"),
        (read_only(), ValueError, "read-only"),
        (np.broadcast_to(np.float32(0), SHAPE), ValueError, "read-only"),
        (np.empty((2, 6, 4), np.float32), RuntimeError, "(2, 6, 4)"),
        (np.empty((2, 6, 4, 1), np.float32), RuntimeError, "(2, 6, 4, 1)"),
        (np.empty((1, *SHAPE), np.float32), RuntimeError, "(1, 2, 6, 4, 5)"),
        (np.empty((2, 6, 5, 4), np.float32), RuntimeError, "(2, 6, 5, 4)"),
        (np.empty(0, np.float32), RuntimeError, "(0,)"),
        (np.empty(SHAPE, np.float64), RuntimeError, "float64"),
        (np.empty(SHAPE, np.float16), RuntimeError, "float16"),
        (np.empty(SHAPE, np.int32), RuntimeError, "int32"),
        (np.empty(SHAPE, object), RuntimeError, "object"),
        (np.empty(SHAPE, ">f4"), RuntimeError, ">f4"),
        (as_strided(np.empty(5, np.float32), SHAPE, (0, 0, 0, 4)), RuntimeError, "itself"),
        (as_strided(np.empty(52, np.float32), SHAPE, (96, 16, 4, 4)), RuntimeError, "itself"),
    ],
    ids=lambda value: (
        str(value).partition(" at ")[0][:20]
        if not isinstance(value, np.ndarray)
        else f"{value.dtype}{list(value.shape)}"
    ),
)
def test_refused(engine, out, error, says):
    x = values(SHAPE)
    before = memory({"x": x, "out": out})
    for norm in NORMS.values():
        with pytest.raises(error, match="out") as caught:
            norm.run(x, out=out)
        assert type(caught.value) is error
        assert says in str(caught.value)
        assert memory({"x": x, "out": out}) == before


# From a memory of 300 elements, the first 216 of them the input, to an `out` that shares some.
PARTLY = {
    "shifted by one": lambda memory: memory[1:217].reshape(6, 6, 6),
    "shifted by a row": lambda memory: memory[6:222].reshape(6, 6, 6),
    "samples swapped": lambda memory: memory[:216].reshape(6, 6, 6)[::-1],
    "last axis flipped": lambda memory: memory[:216].reshape(6, 6, 6)[:, :, ::-1],
    "transposed": lambda memory: memory[:216].reshape(6, 6, 6).transpose(0, 2, 1),
}


@pytest.mark.parametrize("view", PARTLY)
def test_partial_overlap(engine, norm, view):
    both = values((300,))
    x, out = both[:216].reshape(6, 6, 6), PARTLY[view](both)
    before = both.tobytes()
    with pytest.raises(RuntimeError, match="overlaps the input"):
        norm.run(x, out=out)
    assert both.tobytes() == before


@pytest.mark.parametrize("name", ["running_mean", "running_var", "weight", "bias"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("place", [slice(0, 6), slice(6, 12), slice(0, 12, 2)], ids=str)
def test_overlap_with_a_parameter(engine, name, training, place):
    out = ramp((2, 6)) + 1
    given = {"weight": np.ones(6, np.float32), "bias": None, "running_mean": np.zeros(6, np.float32)}
    given |= {"running_var": np.ones(6, np.float32), name: out.reshape(-1)[place]}
    before = memory({"out": out} | given)
    with pytest.raises(RuntimeError, match=f"out overlaps {name}"):
        functional.batch_norm(ramp((2, 6)), **given, training=training, out=out)
    assert memory({"out": out} | given) == before
    if name in ("weight", "bias"):
        with pytest.raises(RuntimeError, match=f"out overlaps {name}"):
            functional.group_norm(ramp((2, 6)), 3, **{name: given[name]}, out=out)
        with pytest.raises(RuntimeError, match=f"out overlaps {name}"):
            functional.layer_norm(ramp((2, 6)), 6, **{name: given[name]}, out=out)
        assert memory({"out": out} | given) == before


@st.composite
def views(draw):
    """The offset and the strides of a (3, 4) view in a memory of 64 elements."""
    offset, inside, outside = draw(st.tuples(st.integers(0, 16), st.integers(1, 4), st.integers(0, 3)))
    rows_outside = draw(st.booleans())
    strides = (3 * inside + 1 + outside, inside) if rows_outside else (inside, 2 * inside + 1 + outside)
    return offset, draw(st.sampled_from([strides, (1, 1), (0, 1), (2, 1)]))


@hypothesis.given(views(), views())
def test_right_or_refused(engine, source, target):
    """Whatever the two views: the right result and nothing else touched, or an error and nothing touched at all."""
    base, indices = values((64,)), np.arange(64)

    def view(array, offset, strides):
        return as_strided(array[offset:], (3, 4), np.multiply(strides, array.itemsize))

    x, out, written = view(base, *source), view(base, *target), view(indices, *target)
    before, expected = base.copy(), functional.layer_norm(x.copy(), 4)
    twice = np.unique(written).size < written.size
    if twice or (source != target and np.shares_memory(x, out)):
        with pytest.raises(RuntimeError, match="overlap"):
            functional.layer_norm(x, 4, out=out)
    else:
        functional.layer_norm(x, 4, out=out)
        np.testing.assert_allclose(out, expected, rtol=0, atol=1e-6)  # in another order of axes, other roundings
        base[written] = before[written]
    np.testing.assert_array_equal(base, before)


def test_modules_take_it(engine):
    x = values(SHAPE)
    for module in (
        cpunorm.BatchNorm2d(6),
        cpunorm.BatchNorm2d(6).eval(),
        cpunorm.GroupNorm(3, 6),
        cpunorm.LayerNorm(5),
    ):
        expected, out = module(x), np.empty_like(x)
        assert module(x, out=out) is out
        np.testing.assert_array_equal(out, expected)
