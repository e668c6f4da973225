"""What every norm keeps to: exact results of exact data, parameters, constant domains, half precision, no values."""

import ml_dtypes
import numpy as np
import oracle
import pytest
from arrays import lying_at
from norms import NORMS, affine, balanced, first, last
from strided import channels_last

import cpunorm
from cpunorm.functional import group_norm

pytestmark = pytest.mark.usefixtures("engine")

FROM_BATCH = [name for name in NORMS if name != "batch_norm inference"]
SHAPES = [(6, 4), (9, 6, 2), (3, 6, 70), (2, 4, 5, 7), (2, 6, 2, 3, 4)]
ONE_GROUP = NORMS["group_norm"]._replace(
    call=lambda x, *values, **options: group_norm(x, 1, *values, **options),
    truth=lambda x, *values: oracle.group_norm(x, 1, *values),
)
# Of a power of two values per domain of most norms; few and many domains, short and long ones.
EXACT = [(2, 6), (128, 4), (3, 4096), (2, 2, 1), (1, 2, 2), (4, 6, 32), (8, 6, 128), (2, 16, 1024), (64, 8, 16)]


@pytest.fixture(params=NORMS)
def norm(request):
    return NORMS[request.param]


def formats(norm):
    return ("channels_first", "channels_last") if norm.has_channels else ("channels_first",)


def called(norm, x, weight, bias, eps, data_format):
    """Of x with its channels first, whatever the format of the call; so is the result."""
    if data_format == "channels_first":
        return norm.call(x, weight, bias, eps)
    return first(norm.call(last(x), weight, bias, eps, data_format=data_format))


def over(norm, vector, x):
    """A weight or bias as it is broadcast over x with its channels first."""
    return vector.reshape(-1, *[1] * (x.ndim - 2)) if norm.has_channels else vector


def only(given, norm, weight, bias):
    """The two, or None in the place of one that is not `given`; rms_norm has no bias."""
    return weight if given in ("weight", "both") else None, bias if given in (
        "bias",
        "both",
    ) and norm.has_mean else None


@pytest.mark.parametrize("mean", [0, 1, -1000, 2**20])
@pytest.mark.parametrize("name", FROM_BATCH)
def test_exact(name, mean):
    """Half of a domain's values 1/2 above its mean, half below: with eps 3/4 nothing may be off by one bit."""
    norm = NORMS[name]
    for shape in norm.of(EXACT):
        domains = norm.domains(np.empty(shape))
        size = np.count_nonzero(domains == 0)
        if size == 1 or size.bit_count() != 1:
            continue
        z = np.empty(shape, np.float32)
        order = np.argsort(domains, axis=None, kind="stable")
        z.flat[order] = (balanced(size) * np.float32([[1], [-1], [-1]])[np.arange(z.size // size) % 3]).reshape(-1)
        x = z + np.float32(mean) + domains % 1000 if norm.has_mean else z
        weight, bias = (np.arange(v.size, dtype=np.float32).reshape(v.shape) for v in affine(norm.shape(x)))
        weight, bias = only("both", norm, np.exp2(weight % 5), -bias)
        expected = z * over(norm, weight, x) + (0 if bias is None else over(norm, bias, x))
        for layout in (x, np.asfortranarray(x), channels_last(x)):
            np.testing.assert_array_equal(norm.call(layout.astype(np.float32), weight, bias, 0.75), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", [name for name in FROM_BATCH if NORMS[name].has_mean])
def test_a_constant_domain_gives_the_bias(name, dtype):
    """Whatever rounding its mean would take: 1000 times what is left of it would show."""
    norm = NORMS[name]
    for shape in norm.of([(4, 2), (4, 8, 2), (4, 8, 7), (2, 4, 500), (2, 4, 3000), (2, 4, 5, 7)]):
        x = np.array([0, 3, -1e4, 0.5], dtype)[norm.domains(np.empty(shape)) % 4]
        weight, bias = affine(norm.shape(x), dtype)
        y = norm.call(x, weight * 0 + 1000, bias * 1e5, 1e-5)
        np.testing.assert_array_equal(y, np.broadcast_to(over(norm, bias * 1e5, x), shape))


@pytest.mark.parametrize("name", [name for name in FROM_BATCH if name != "batch_norm training"])  # which refuses it
def test_zero_eps(name):
    norm = NORMS[name]
    for shape in norm.of([(2, 4), (2, 4, 16)]):
        domains = norm.domains(np.empty(shape))
        z = balanced(domains.size).reshape(shape)
        y = norm.call(np.where(domains == 0, 0, z).astype(np.float32), None, None, 0.0)
        np.testing.assert_array_equal(y, np.where(domains == 0, np.nan, 2 * z))


@pytest.mark.parametrize("given", ["none", "weight", "bias", "both"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weight_and_bias_are_independent(norm, given, dtype):
    for shape in norm.of(SHAPES):
        x = np.random.default_rng(7).standard_normal(shape).astype(dtype) * 2 + 3
        size = int(np.prod(norm.shape(x)))
        weight, bias = (
            np.resize(np.array(v, dtype), size).reshape(norm.shape(x))
            for v in ([1.5, -2, 0, 1e2, 1e-3], [0, 1, -1e2, 0.1, 7, -1])
        )
        weight, bias = only(given, norm, weight, bias)
        expected = norm.truth(x, weight, bias, 1e-5)
        for data_format in formats(norm):
            y = called(norm, x, weight, bias, 1e-5, data_format)
            assert (np.abs(y - expected) <= oracle.bound(expected, dtype, weight, bias, kappa=300)).all()


@pytest.mark.parametrize("given", ["weight", "bias", "both"])
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm", "group_norm in one group"])
@pytest.mark.parametrize("threads", [1, 2])
def test_of_many_rows_weights_may_lie_anywhere(name, given, threads):
    """Those that a vector's reads would find in two lines of the cache are copied by each thread; no more is read."""
    norm = NORMS.get(name, ONE_GROUP)
    x = np.random.default_rng(5).standard_normal((300, 7, 30) if norm.has_channels else (300, 211), np.float32)
    values = only(given, norm, *np.random.default_rng(6).standard_normal((2, *norm.shape(x)), np.float32))
    expected = norm.truth(x, *values, 1e-5)
    cpunorm.set_num_threads(threads)
    for data_format in formats(norm):
        results = set()
        for place in range(16):
            placed = [v if v is None else lying_at(place, v, np.nan) for v in values]
            y = called(norm, x, *placed, 1e-5, data_format)
            assert (np.abs(y - expected) <= oracle.bound(expected, y.dtype, *values)).all()
            results.add(y.tobytes())
        assert len(results) == 1


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
@pytest.mark.parametrize("parameters", ["half", "float32"])
@pytest.mark.parametrize("name", FROM_BATCH)
def test_half_precision(name, half, parameters):
    """Computed in float32, with parameters of either, and rounded once."""
    norm, dtype = NORMS[name], np.dtype(getattr(ml_dtypes, half, half))
    x = (np.random.default_rng(9).standard_normal((6, 4, 60)) * 2 + 5).astype(dtype)
    inner = dtype if parameters == "half" else np.float32
    weight, bias = only("both", norm, *(v.astype(inner) for v in affine(norm.shape(x))))
    y = norm.call(x, weight, bias, 1e-5)
    expected = norm.truth(*(v if v is None else v.astype(np.float64) for v in (x, weight, bias)), 1e-5)
    unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[half]
    assert y.dtype == dtype
    assert (np.abs(y.astype(float) - expected) <= unit * np.abs(expected) + 1e-5).all()


# No values.


def test_empty(norm):
    for shape in norm.of([(0, 4), (2, 0), (0, 0), (0, 4, 3), (2, 0, 3), (2, 4, 0), (0, 4, 2, 2), (2, 4, 0, 5)]):
        x = np.empty(shape, np.float32)
        weight, bias = norm.affine(x)
        y = norm.call(x, weight, bias, 1e-5)
        assert (y.shape, y.dtype) == (shape, np.float32)
        assert y is not x
        assert norm.call(x, weight, bias, 1e-5, out=y) is y


def test_empty_with_a_wrong_weight_is_an_error(norm):
    x = np.empty((0, 4, 3), np.float32)
    with pytest.raises(RuntimeError, match="weight"):
        norm.call(x, np.ones(5, np.float32), None, 1e-5)
