"""add_layer_norm and add_rms_norm: the norm of the unrounded sum, and that sum rounded to the input's type."""

import itertools

import ml_dtypes
import numpy as np
import oracle
import pytest
from arrays import memory
from engines import LEVELS
from norms import EPS, affine, parameter_dtype
from strided import LAYOUTS, surroundings

import cpunorm
from cpunorm import functional

DTYPES = [np.dtype(t) for t in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)]
# Rows of one value to more than a part of 65536, around a vector, a block of 32 steps of 4, a tile of 16 KiB.
WIDTHS = [*range(1, 9), 15, 16, 17, 33, 63, 64, 65, 130, 768, 1023, 2048, 2049, 4096, 4099, 8191, 70001]


class Add:
    """One of the two as the tests call it, beside what the oracle expects of the sum."""

    def __init__(self, name, has_bias):
        self.function, self.has_bias = getattr(functional, name), has_bias

    def parameters(self, x):
        weight, bias = affine(x.shape[-1:], parameter_dtype(x))
        return (weight, bias) if self.has_bias else (weight,)

    def run(self, x, residual, **options):
        return self.function(x, residual, x.shape[-1:], *self.parameters(x), eps=EPS, **options)

    def expected(self, x, residual):
        truth = oracle.layer_norm if self.has_bias else oracle.rms_norm
        wide = parameter_dtype(x)
        return truth(x.astype(wide) + residual.astype(wide), x.shape[-1:], *self.parameters(x), eps=EPS)


ADDS = {"add_layer_norm": Add("add_layer_norm", True), "add_rms_norm": Add("add_rms_norm", False)}


@pytest.fixture(params=ADDS)
def add(request):
    return ADDS[request.param]


def pair(shape, dtype, offset=3.0):
    rng = np.random.default_rng(sum(shape))
    return tuple((rng.standard_normal(shape) * 2 + offset).astype(dtype) for _ in range(2))


def rounded_sum(x, residual):
    wide = parameter_dtype(x)
    return (x.astype(wide) + residual.astype(wide)).astype(x.dtype)


def assert_right(results, add, x, residual, activation=None):
    y, total = results
    before = add.expected(x, residual)
    expected = oracle.activated(before, activation)
    wide = np.dtype(parameter_dtype(x))
    allowed = 1.13 * oracle.bound(before, wide, weight=1.5, bias=1.0, kappa=1e5) + 2 * oracle.UNIT[wide]
    if x.dtype.itemsize == 2:  # y lies between what the ends are rounded to
        low, high = ((expected + e).astype(np.float32).astype(x.dtype).astype(float) for e in (-allowed, allowed))
        assert ((low <= y.astype(float)) & (y.astype(float) <= high)).all()
    else:
        assert (np.abs(y - expected) <= allowed).all()
    assert y.dtype == total.dtype == x.dtype
    np.testing.assert_array_equal(total, rounded_sum(x, residual))


@pytest.mark.parametrize("width", WIDTHS)
def test_rows_of_any_width(engine, add, width):
    for dtype, rows in itertools.product(DTYPES, (1, 2, 17, 300) if width < 300 else (1, 3)):
        x, residual = pair((rows, width), dtype)
        before = x.copy(), residual.copy()
        results = add.run(x, residual)
        assert_right(results, add, x, residual)
        np.testing.assert_array_equal(x, before[0])
        np.testing.assert_array_equal(residual, before[1])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
def test_activation(engine, add, dtype, activation):
    for shape in ((5, 7), (3, 4, 768), (2, 3000)):
        x, residual = pair(shape, dtype, 0.0)
        assert_right(add.run(x, residual, activation=activation), add, x, residual, activation)


TARGETS = {
    "y into x": {"out": "input"},
    "y into the residual": {"out": "residual"},
    "the sum into x": {"sum_out": "input"},
    "the sum into the residual": {"sum_out": "residual"},
    "both": {"out": "input", "sum_out": "residual"},
    "both crosswise": {"out": "residual", "sum_out": "input"},
    "others": {"out": "new", "sum_out": "other"},
    "y alone": {"out": "new"},
    "the sum alone": {"sum_out": "new"},
}


@pytest.mark.parametrize("names", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_into_any_memory(engine, add, names, layout):
    kinds = itertools.cycle(DTYPES)
    for shape in ((4, 6), (3, 4, 33), (2, 5, 700)):
        x, residual = pair(shape, next(kinds))
        rooms = {"input": x, "residual": residual, "new": np.zeros_like(x), "other": np.zeros_like(x)}
        rooms = {name: LAYOUTS[layout](room) for name, room in rooms.items()}
        around = {name: surroundings(room) for name, room in rooms.items()}
        targets = {target: rooms[name] for target, name in names.items()}
        expected = add.run(rooms["input"].copy(order="K"), rooms["residual"].copy(order="K"))
        assert_right(expected, add, x, residual)
        y, total = add.run(rooms["input"], rooms["residual"], **targets)
        assert "out" not in targets or y is targets["out"]
        assert "sum_out" not in targets or total is targets["sum_out"]
        np.testing.assert_array_equal(y, expected[0])
        np.testing.assert_array_equal(total, expected[1])
        for name, plain in (("input", x), ("residual", residual)):
            if name not in names.values():
                np.testing.assert_array_equal(rooms[name], plain)
        assert {name: surroundings(room) for name, room in rooms.items()} == around


def test_layouts_that_differ(engine, add):
    """The order of axes may change the last bits, as that of a norm's input may; nothing else of a layout does."""
    for shape in ((2, 5, 70), (3, 40, 9)):
        x, residual = pair(shape, np.float32)
        for a, b in itertools.product(LAYOUTS.values(), repeat=2):
            y, total = add.run(a(x), b(residual))
            assert_right((y, total), add, x, residual)
            expected = add.run(a(x).copy(order="K"), b(residual).copy(order="K"))
            np.testing.assert_array_equal(y, expected[0])
            np.testing.assert_array_equal(total, expected[1])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_that_lie_apart(engine, add, dtype):
    """In x alone, for they are not copied; with gaps, axes that don't merge, in another order."""
    x, residual = pair((3, 4, 5, 130), dtype)
    room = np.full((6, 4, 9, 140), np.nan, dtype)
    for width, lie in itertools.product(
        (1, 3, 130),
        (
            lambda wide: wide[::2, :, :5],
            lambda wide: wide[:3, :, 1:6],
            lambda wide: wide[:3, :, ::2],
            lambda wide: wide[2::-1, :, 4:],
            lambda wide: wide.reshape(6, 9, 4, 140).transpose(0, 2, 1, 3)[1:4, :, 2:7],
        ),
    ):
        apart = lie(room)[..., 7 : 7 + width]
        plain = x[..., :width].copy()
        apart[...] = plain
        beside = residual[..., :width].copy()
        for got, wanted in zip(add.run(apart, beside), add.run(plain, beside), strict=True):
            np.testing.assert_array_equal(got, wanted)
        y, total = add.run(apart, beside, sum_out=beside)
        assert total is beside
        np.testing.assert_array_equal(y, add.run(plain, residual[..., :width].copy())[0])


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_rows_that_lie_across_each_other(engine, add, dtype):
    """In all four, as channels that are moved: all threads make the sum as they lie, which is normalised by columns."""
    for shape, axes in (
        ((3, 4, 33), (0, 2, 1)),
        ((2, 20, 130), (0, 2, 1)),
        ((1, 200, 700), (0, 2, 1)),  # in strips
        ((2, 70, 5, 9), (0, 2, 3, 1)),
        ((2, 5, 3, 90), (3, 0, 2, 1)),
    ):
        x, residual = (values.transpose(axes) for values in pair(shape, dtype))
        expected = None
        for threads, names in itertools.product((1, 3), TARGETS.values()):
            rooms = {"input": x.copy("K"), "residual": residual.copy("K"), "new": x.copy("K"), "other": x.copy("K")}
            with cpunorm.num_threads(threads):
                results = add.run(rooms["input"], rooms["residual"], **{to: rooms[name] for to, name in names.items()})
            if expected is None:
                expected = [result.copy() for result in results]
                assert_right(results, add, x, residual)
                assert results[0].strides == results[1].strides == x.copy("K").strides
            for got, wanted in zip(results, expected, strict=True):
                np.testing.assert_array_equal(got, wanted)


def test_twice_the_same_array(engine, add):
    for dtype in DTYPES:
        x, _ = pair((5, 70), dtype)
        expected = add.run(x, x.copy())
        for options in ({}, {"out": x.copy()}):
            for got, wanted in zip(add.run(x, x, **options), expected, strict=True):
                np.testing.assert_array_equal(got, wanted)
        for got, wanted in zip(add.run(x, x, sum_out=x), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_same_bits_at_any_number_of_threads_and_in_any_batch(engine, add, dtype):
    for shape in ((700, 129), (3, 50001), (40, 4096)):
        x, residual = pair(shape, dtype)
        expected = add.run(x, residual)
        for threads in (1, 3, 8):
            with cpunorm.num_threads(threads):
                for got, wanted in zip(add.run(x, residual), expected, strict=True):
                    np.testing.assert_array_equal(got, wanted)
        for got, wanted in zip(add.run(x[1:3], residual[1:3]), expected, strict=True):
            np.testing.assert_array_equal(got, wanted[1:3])


@pytest.mark.parametrize("half", DTYPES[2:], ids=str)
def test_the_sum_is_not_rounded_before_it_is_normalised(engine, add, half):
    """1 + 2^-12 in each half type is 1: only the unrounded sum still has the difference."""
    x = np.ones((3, 64), half)
    residual = np.where(np.arange(64) % 2, 2.0**-12, -(2.0**-12)).astype(half) * np.ones((3, 1), half)
    y, total = functional.add_layer_norm(x, residual, 64, eps=0.0)
    assert (total.astype(float) == rounded_sum(x, residual).astype(float)).all()
    np.testing.assert_array_equal(y.astype(float), np.where(np.arange(64) % 2, 1.0, -1.0) * np.ones((3, 1)))


def test_values_that_are_not_finite_or_leave_the_range(engine, add):
    """They spoil their own row; squares beyond the range of float32 do not."""
    for dtype, width in itertools.product(DTYPES, (7, 64, 5000)):
        x, residual = pair((6, width), dtype)
        clean = add.run(x, residual)
        x[1, 3], residual[2, 5], x[3, 0], residual[3, 0] = np.nan, np.inf, np.inf, -np.inf
        y, total = add.run(x, residual)
        assert np.isnan(y[1].astype(float)).all()
        assert np.isnan(y[3].astype(float)).all()
        assert np.isnan(y[2, 5].astype(float))
        np.testing.assert_array_equal(y[[0, 4, 5]], clean[0][[0, 4, 5]])
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(total.astype(float), rounded_sum(x, residual).astype(float))
    x = np.float32([[1e30, -2e30, 3e30, 5e29], [1e-30, 2e-30, -1e-30, 0]])
    assert_right(add.run(x, x / 2), add, x, x / 2)


def test_parameters(engine, add):
    """Of either type, or none; 1 + weight."""
    for dtype in DTYPES:
        x, residual = pair((3, 40), dtype)
        plain = add.function(x, residual, 40, eps=EPS)
        ones = np.ones(40, dtype)
        for got, wanted in zip(add.function(x, residual, (40,), ones, eps=EPS), plain, strict=True):
            np.testing.assert_array_equal(got, wanted)
        if not add.has_bias:
            offset = add.function(x, residual, 40, ones * 0, EPS, unit_offset=True)
            np.testing.assert_array_equal(offset[0], plain[0])
            np.testing.assert_array_equal(
                add.function(x, residual, 40)[0],
                add.function(x, residual, 40, None, np.finfo(parameter_dtype(x)).eps)[0],
            )
    x, residual = pair((2, 3, 4, 5), np.float32)
    y, total = add.function(x, residual, (4, 5), eps=EPS)
    flat = add.function(x.reshape(6, 20), residual.reshape(6, 20), 20, eps=EPS)
    np.testing.assert_array_equal(y.reshape(6, 20), flat[0])
    np.testing.assert_array_equal(total.reshape(6, 20), flat[1])


def test_of_no_values(engine, add):
    for shape in ((0, 4), (2, 0), (0, 0)):
        x = np.empty(shape, np.float32)
        y, total = add.run(x, x.copy())
        assert y.shape == total.shape == shape
        assert add.run(x, x.copy(), sum_out=total)[1] is total


@pytest.mark.slow
@pytest.mark.parametrize("engine", LEVELS, indirect=True)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [17, 45, 768, 1001, 70001])
def test_stored_past_the_caches(engine, add, dtype, width):
    """The same bits as in place, where nothing is; and of rows that lie apart, which are packed."""
    rows = (28 << 20) // dtype.itemsize // width
    x = np.resize(pair((1, 300_007), dtype)[0], (rows, width))
    residual = np.resize(pair((1, 200_003), dtype)[1], (rows, width))
    with cpunorm.num_threads(3):
        for room in add.run(x, residual):
            room.fill(0)
        y, total = add.run(x, residual)
        apart = np.full((rows, width + 3), np.nan, dtype)[:, 1:-2]
        apart[...] = x
        for got, wanted in zip(add.run(apart, residual), (y, total), strict=True):
            np.testing.assert_array_equal(got, wanted)
        add.run(x, residual, out=x, sum_out=residual)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(total, residual)


# Bad input: nothing is written.


ROOM = np.zeros(30, np.float32)
HERE, THERE = ROOM[:12].reshape(3, 4), ROOM[1:13].reshape(3, 4)
CASES = [
    ({"residual": [[1.0]]}, TypeError, ["residual", "list"]),
    ({"residual": np.ma.zeros((3, 4), np.float32)}, TypeError, ["residual", "masked"]),
    ({"residual": np.zeros((3, 1), np.float32)}, RuntimeError, ["residual", "(3, 4)", "(3, 1)"]),
    ({"residual": np.zeros(4, np.float32)}, RuntimeError, ["residual", "(3, 4)", "(4,)"]),
    ({"residual": np.zeros((3, 4))}, RuntimeError, ["residual", "float32", "float64"]),
    ({"input": np.zeros((3, 4), np.int32)}, NotImplementedError, ["input", "int32"]),
    ({"input": np.zeros((3, 4), np.uint16)}, NotImplementedError, ["input", "uint16"]),
    ({"normalized_shape": 3}, RuntimeError, ["normalized_shape", "3"]),
    ({"normalized_shape": ()}, RuntimeError, ["normalized_shape"]),
    ({"weight": np.ones(3, np.float32)}, RuntimeError, ["weight", "(4,)", "(3,)"]),
    ({"weight": np.ones(4)}, RuntimeError, ["weight", "float64"]),
    ({"eps": -1.0}, ValueError, ["eps", "-1"]),
    ({"eps": "x"}, TypeError, ["eps", "x"]),
    ({"activation": "swish"}, ValueError, ["relu, relu6", "swish"]),
    ({"activation": 1}, TypeError, ["activation", "1"]),
    *(
        case
        for name in ("out", "sum_out")
        for case in [
            ({name: [1.0]}, TypeError, [name, "list"]),
            ({name: np.broadcast_to(np.float32(0), (3, 4))}, ValueError, [name, "read-only"]),
            ({name: np.zeros((4, 3), np.float32)}, RuntimeError, [name, "(4, 3)"]),
            ({name: np.zeros((3, 4))}, RuntimeError, [name, "float64"]),
            (
                {"input": ROOM[:12].reshape(3, 4), name: ROOM[1:13].reshape(3, 4)},
                RuntimeError,
                [name, "overlaps input"],
            ),
            ({"residual": HERE, name: THERE}, RuntimeError, [name, "residual"]),
            ({"weight": ROOM[:4], name: HERE}, RuntimeError, [name, "overlaps weight"]),
        ]
    ),
    ({"out": HERE, "sum_out": HERE}, RuntimeError, ["out overlaps sum_out"]),
    ({"out": HERE, "sum_out": THERE}, RuntimeError, ["out overlaps sum_out"]),
]


@pytest.mark.parametrize(("wrong", "error", "says"), CASES, ids=lambda v: ", ".join(v) if isinstance(v, dict) else None)
def test_bad_input(engine, add, wrong, error, says):
    good = {"input": np.ones((3, 4), np.float32), "residual": np.ones((3, 4), np.float32), "normalized_shape": 4}
    given = {**good, "out": np.zeros((3, 4), np.float32), "sum_out": np.zeros((3, 4), np.float32), **wrong}
    before = memory(given)
    with pytest.raises(error) as caught:
        add.function(**given)
    assert type(caught.value) is error
    assert all(word in str(caught.value) for word in says), caught.value
    assert memory(given) == before


def test_no_eps(engine, add):
    """RMSNorm knows one of its own; LayerNorm doesn't."""
    arrays = np.ones((2, 3, 4), np.float32)
    if not add.has_bias:
        plain = add.function(*arrays, 4, eps=float(np.finfo(np.float32).eps))
        np.testing.assert_array_equal(add.function(*arrays, 4, eps=None)[0], plain[0])
    else:
        with pytest.raises(TypeError, match="eps"):
            add.function(*arrays, 4, eps=None)
