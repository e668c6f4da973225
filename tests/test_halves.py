"""float16 and bfloat16: loaded without loss, computed as float32, rounded once to nearest even."""

import itertools

import engines
import ml_dtypes
import numpy as np
import oracle
import pytest
from norms import EPS, KAPPA, NORMS, affine, first, last, running, unchanged, values
from strided import LAYOUTS, surroundings

from cpunorm.functional import batch_norm, layer_norm

pytestmark = pytest.mark.usefixtures("engine")

SHAPES = [(9, 6), (70, 4), (3, 4, 70), (2, 34, 5), (2, 6, 5, 7), (2, 4, 3, 2, 5)]
# Every bit pattern by rows, by columns and in lanes, alone and with tails.
WAYS = [(1, 2, 32768), (2, 3, 10923), (1, 65536), (9363, 7), (65536, 1), (512, 32, 4), (3, 7283, 3)]


@pytest.fixture(params=["float16", "bfloat16"])
def half(request):
    return np.dtype(getattr(ml_dtypes, request.param, request.param))


@pytest.fixture(params=NORMS)
def norm(request):
    return NORMS[request.param]


def rounded(x, dtype):
    """By NumPy or ml_dtypes, in silence where it becomes infinite."""
    with np.errstate(all="ignore"):
        return x.astype(np.float32).astype(dtype)


def assert_rounded_once(y, expected, allowed):
    """y lies between what the ends of expected +- allowed are rounded to."""
    low, high = (rounded(end, y.dtype).astype(float) for end in (expected - allowed, expected + allowed))
    wrong = (y.astype(float) < low) | (y.astype(float) > high) | (np.isnan(y) != np.isnan(expected))
    assert not wrong.any(), f"{y[wrong][0]} instead of {expected[wrong][0]}, {np.count_nonzero(wrong)} of {y.size}"


def assert_same(a, b):
    """The same bits, but for those of NaN."""
    nan = np.isnan(b)
    np.testing.assert_array_equal(np.isnan(a), nan)
    np.testing.assert_array_equal(a.view(np.uint16)[~nan], b.view(np.uint16)[~nan])


# Loads and stores.


@pytest.mark.parametrize("shape", WAYS, ids=str)
def test_every_bit_pattern_comes_through(half, shape):
    x = np.resize(np.arange(65536, dtype=np.uint16), shape).view(half)
    results = [
        unchanged(x),
        unchanged(x.astype(half.newbyteorder())),
        first(unchanged(last(x), data_format="channels_last")),
    ]
    for layout in ("every second of the last axis", "fortran", "unaligned"):
        results.append(unchanged(LAYOUTS[layout](x)))
    infinite, quiet = (0x7C00, 0x0200) if half == np.float16 else (0x7F80, 0x0040)
    nan = (x.view(np.uint16) & 0x7FFF) > infinite  # ml_dtypes warns of signalling ones
    for y in results:
        y = np.ascontiguousarray(y)
        assert y.dtype == half
        np.testing.assert_array_equal(y[~nan].astype(float), x[~nan].astype(float))  # -0 + 0 is 0
        assert np.isnan(y[nan]).all()
        assert (y[nan].view(np.uint16) & quiet).all()


@pytest.mark.parametrize("layout", ["contiguous", "every second of the last axis", "unaligned"])
def test_every_bit_pattern_of_running_statistics(half, layout):
    patterns = np.arange(65536, dtype=np.uint16).view(half)
    x, one = np.zeros((2, 65536), half), np.ones(65536, half)
    with np.errstate(invalid="ignore"):  # of a variance below zero, and signalling NaN
        exact = patterns.astype(np.float32)
        for of_half, of_float in (((patterns, one), (exact, one)), ((one, patterns), (one, exact))):
            given = [LAYOUTS[layout](s) for s in of_half]
            y, expected = batch_norm(x, *given), batch_norm(x, *(s.astype(np.float32) for s in of_float))
            assert_same(y, expected)


@pytest.mark.parametrize("shape", WAYS, ids=str)
def test_every_bit_pattern_into_float32(half, shape):
    x = np.resize(np.arange(65536, dtype=np.uint16), shape).view(half)
    out = np.empty(shape, np.float32)
    assert unchanged(x, out=out) is out
    with np.errstate(invalid="ignore"):  # signalling NaN
        np.testing.assert_array_equal(out, x.astype(np.float32))


def ties(half):
    """Between each two neighbours of the type what lies in the middle, and the float32 values beside it; all signs."""
    x = np.arange(0x7C00 if half == np.float16 else 0x7F80, dtype=np.uint16).view(half).astype(np.float64)
    with np.errstate(all="ignore"):
        middle = ((x[:-1] + x[1:]) / 2).astype(np.float32)
        beyond = (
            np.float32([65519, 65520, 65521, 1e30, 3.4e38]) if half == np.float16 else np.float32([3.3961e38, 3.4e38])
        )
    middle = np.concatenate([middle, beyond])
    around = [np.nextafter(middle, np.float32(0)), middle, np.nextafter(middle, np.float32(3.4e38))]
    return np.concatenate([*around, *(-v for v in around)])


def test_every_tie_goes_to_even(half):
    """A float32 bias is all that comes out for zeros."""
    bias = ties(half)
    expected = rounded(bias, half)
    zeros = np.zeros((3, bias.size), half)
    mean, var = np.zeros((2, bias.size), np.float32)
    for y in (
        batch_norm(zeros, mean, var + 1, bias=bias, eps=0.0),
        batch_norm(zeros.reshape(3, -1, 1), mean, var + 1, bias=bias, eps=0.0)[..., 0],
        layer_norm(zeros, bias.shape, bias=bias),
        layer_norm(zeros[:, ::-1], bias.shape, bias=bias),
    ):
        for row in y:
            assert_same(row, expected)


def test_every_nan_of_a_float32_bias_comes_out_as_one(half):
    """Whatever its payload is: to round one of all ones as a number would carry it to zero."""
    bits = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7FC07FFF, 0x7FFFC000, 0x7F808001, 0x7F800001], np.uint32)
    bias = np.resize(bits, 41).view(np.float32)
    zeros, (mean, var) = np.zeros((3, 41), half), np.zeros((2, 41), np.float32)
    for y in (
        batch_norm(zeros, mean, var + 1, bias=bias),
        batch_norm(zeros.reshape(3, -1, 1), mean, var + 1, bias=bias),
        layer_norm(zeros, bias.shape, bias=bias),
    ):
        assert np.isnan(y).all()


# Norms.


def parameters(norm, x, given):
    """weight and bias of `given` dtype, or none."""
    if given is None:
        return None, None
    weight, bias = affine(norm.shape(x), given)
    return weight, bias if norm.has_mean else None


@pytest.mark.parametrize("layout", ["contiguous", "channels_last strides", "fortran", "every second", "unaligned"])
def test_half_an_ulp(norm, half, layout):
    for shape, given in itertools.product(norm.of(SHAPES), (None, half, np.dtype(np.float32))):
        plain = values(shape).astype(half)
        x = LAYOUTS[layout](plain)
        weight, bias = parameters(norm, x, given)
        wide = [None if v is None else v.astype(np.float64) for v in (weight, bias)]
        expected = norm.truth(plain.astype(np.float64), *wide, EPS)
        if norm is NORMS["batch_norm inference"]:
            if given == half:
                continue  # the running statistics of the table are float32, and all parameters are of one dtype
            expected = oracle.batch_norm(plain.astype(np.float64), *wide, EPS, running(shape[1]))
        allowed = oracle.bound(expected, np.float32, weight=1.5, bias=1.0, kappa=KAPPA)
        around = surroundings(x)
        y = norm.call(x, weight, bias, EPS)
        assert y.dtype == half
        assert_rounded_once(y, expected, allowed)
        out = np.empty(shape, np.float32)
        assert norm.call(x, weight, bias, EPS, out=out) is out
        assert (np.abs(out - expected) <= allowed).all()
        assert_same(out.astype(half), np.ascontiguousarray(y))
        assert norm.call(x, weight, bias, EPS, out=x) is x
        assert_same(np.ascontiguousarray(x), np.ascontiguousarray(y))
        assert surroundings(x) == around


@pytest.mark.parametrize("given", ["half", "float32"])
@pytest.mark.parametrize("training", [True, False])
def test_running_statistics_of_either_type(half, given, training):
    """Read in evaluation; in training moved by what is computed in float64 of the unrounded input."""
    dtype = half if given == "half" else np.dtype(np.float32)
    for shape, data_format in itertools.product(
        [(9, 6), (3, 6, 70), (2, 6, 5, 7)], ("channels_first", "channels_last")
    ):
        plain = (np.random.default_rng(1).standard_normal(shape) * 2 + 3).astype(half)
        x = plain if data_format == "channels_first" else last(plain)
        mean, var = (np.linspace(*ends, 6).astype(dtype) for ends in ((2, 4), (3, 5)))
        old = mean.astype(float), var.astype(float)
        weight, bias = affine((6,), dtype)
        y = batch_norm(x, mean, var, weight, bias, training, 0.25, EPS, data_format=data_format)
        y = y if data_format == "channels_first" else np.ascontiguousarray(first(y))
        wide = plain.astype(float), weight.astype(float), bias.astype(float), EPS
        expected = oracle.batch_norm(*wide, None if training else old)
        assert_rounded_once(y, expected, oracle.bound(expected, np.float32, weight=1.5, bias=1.0))
        if training:
            z = np.moveaxis(plain.astype(float), 1, 0).reshape(6, -1)
            for now, before, batch in zip((mean, var), old, (z.mean(1), z.var(1, ddof=1)), strict=True):
                moved = 0.75 * before + 0.25 * batch
                unit = {2: 2.0**-11 if half == np.float16 else 2.0**-8, 4: 2.0**-22}[dtype.itemsize]
                assert (np.abs(now.astype(float) - moved) <= unit * np.abs(moved) * 1.001).all()
        else:
            np.testing.assert_array_equal(mean.astype(float), old[0])


@pytest.mark.parametrize("engine", engines.COMPILED_FIRST, indirect=True)
@pytest.mark.parametrize(
    "layout", ["contiguous", "channels_last strides", pytest.param("fortran", marks=pytest.mark.slow)]
)
def test_the_bits_of_float32_rounded(norm, half, layout):
    """With infinite values, NaN, the largest and the smallest ones among them, too."""
    info = ml_dtypes.finfo(half)
    for shape in norm.of([*SHAPES, (3, 8, 700), (2, 4, 41, 57), (2, 35002), (2500, 8), (1, 4, 3, 3000)]):
        plain = np.random.default_rng(2).standard_normal(shape).astype(half)
        for special in ((), (info.max, info.smallest_subnormal), (np.inf, -np.inf, np.nan)):
            for place, value in enumerate(special, 1):
                plain.flat[place * plain.size // 4] = value
            y, wide = (norm.run(LAYOUTS[layout](plain.astype(dtype))) for dtype in (half, np.float32))
            assert_same(np.ascontiguousarray(y), rounded(wide, half))


def test_sums_beyond_the_range_of_float16():
    """Values near 60000, whose squares float16 doesn't have: as if they were float32."""
    x = (np.random.default_rng(3).standard_normal((4, 300)) * 3000 + 50000).astype(np.float16)
    expected = oracle.layer_norm(x.astype(float), (300,))
    assert_rounded_once(layer_norm(x, 300), expected, oracle.bound(expected, np.float32))


@pytest.mark.parametrize("other", ["running_mean", "running_var", "weight", "bias"])
def test_one_parameter_of_another_type_is_refused(other):
    """Wherever it stands, and whichever of the rest are left out."""
    x = np.ones((4, 3, 2), np.float16)
    statistics = {name: np.ones(3, np.float32) for name in ("running_mean", "running_var")}
    for given in ({"weight"}, {"bias"}, {"weight", "bias"}, set()):
        vectors = statistics | {name: np.ones(3, np.float32) for name in given}
        if other in vectors:
            vectors[other] = vectors[other].astype(np.float16)
            with pytest.raises(RuntimeError, match="mixed dtypes"):
                batch_norm(x, **vectors)
