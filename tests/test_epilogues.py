"""What is done to y before it is stored: a residual added, then an activation."""

import copy
import itertools
import pickle

import ml_dtypes
import numpy as np
import oracle
import pytest
from arrays import memory
from norms import KAPPA, NORMS, first, last, parameter_dtype, unchanged, values
from strided import LAYOUTS, surroundings

import cpunorm
from cpunorm import functional

ACTIVATIONS = list(oracle.ACTIVATIONS)
STEEPEST = 1.5  # slope of an activation: hardswish's at 3
SHAPES = [(9, 6), (70, 4), (3, 4, 70), (2, 34, 5), (2, 6, 5, 7), (2, 4, 3, 2, 5)]


@pytest.fixture(params=NORMS)
def norm(request):
    return NORMS[request.param]


# Activations, of what the norm that changes nothing hands on.


def every_exponent(each=24):
    """`each` random float32 values of both signs for every exponent, subnormal ones too, and what is special."""
    rng = np.random.default_rng(0)
    bits = (np.arange(512, dtype=np.uint32)[:, None] << 23) | rng.integers(0, 1 << 23, (512, each), np.uint32)
    near = [rng.uniform(-low, low, 4000) for low in (1, 4, 20, 110)]
    ends = np.arange(-20, 20, 1 / 128)  # of polynomials that hold for a piece
    special = [0, -0.0, 3, -3, 6, np.inf, -np.inf, np.nan, 3.4028235e38, -3.4028235e38, 1e-45, -1e-45, 1.1754944e-38]
    return np.concatenate([bits.view(np.float32).ravel(), *(np.float32(part) for part in (*near, ends, special))])


def distance(y, expected):
    """In units of the last place of y's type, at the expected value."""
    with np.errstate(over="ignore"):
        rounded = expected.astype(y.dtype)
        unit = np.abs(np.spacing(np.abs(rounded)).astype(float))
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    finite = np.isfinite(unit)
    np.testing.assert_array_equal(y[~finite], rounded[~finite])
    return np.max(np.abs(y[finite] - expected[finite]) / unit[finite])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_two_units_in_the_last_place_of_float32(engine, activation):
    """By rows, by columns, in lanes, with tails; those with an exponential are below one."""
    x = every_exponent()
    with np.errstate(invalid="ignore"):  # signalling NaN
        expected = oracle.activated(x.astype(np.float64), activation)
    for shape in ((1, x.size), (1, 1, x.size), (x.size, 1)):
        assert distance(unchanged(x.reshape(shape), activation=activation).ravel(), expected) <= 2
    for width in (3, 7, 37):
        count = x.size // width * width
        y = unchanged(x[:count].reshape(1, width, -1), activation=activation)
        assert distance(y.ravel(), expected[:count]) <= 2
        y = unchanged(x[:count].reshape(1, -1, width), activation=activation, data_format="channels_last")
        assert distance(y.ravel(), expected[:count]) <= 2


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_none_is_above_one(engine, activation):
    x = np.concatenate([np.float32([np.inf, 1e30, 50]), np.arange(0, 30, 1 / 512, np.float32)]).reshape(1, -1)
    y = unchanged(np.concatenate([x, -x]), activation=activation)
    assert np.abs(y).max() == 1
    np.testing.assert_array_equal(y[0, :3], 1)
    np.testing.assert_allclose(y[1, :3], -1 if activation == "tanh" else 0, atol=1e-21)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_float64(engine, activation):
    """4 ulp; what gelu and gelu_tanh are an exponential of is rounded before: as many more as that is steep there.

    The compiled kernels' gelu is within 5 ulp up to its tail, where it is the C library's.
    """
    mpmath = pytest.importorskip("mpmath")
    mpmath.mp.prec = 120
    exact = {
        "silu": lambda v: v / (1 + mpmath.exp(-v)),
        "gelu": lambda v: v * mpmath.erfc(-v / mpmath.sqrt(2)) / 2,
        "gelu_tanh": lambda v: v / (1 + mpmath.exp(-mpmath.sqrt(8 / mpmath.pi) * (v + mpmath.mpf(0.044715) * v**3))),
        "sigmoid": lambda v: 1 / (1 + mpmath.exp(-v)),
        "tanh": mpmath.tanh,
    }
    rng = np.random.default_rng(0)
    highest = 760 if engine[0] == "cython" else 37  # subnormal ones at the end
    lows = (1e-300, 1e-20, 1e-3, 1, 2, 4, 14, 20, 37, 690, highest)
    x = np.concatenate([rng.uniform(-low, low, 40) for low in lows])
    if activation in exact:
        expected = np.array([float(exact[activation](mpmath.mpf(v))) for v in x.tolist()])
    else:
        expected = oracle.activated(x, activation)
    steepness = {"gelu": 2 * x**2, "gelu_tanh": np.abs(1.6 * x + 0.22 * x**3)}.get(activation, 0 * x)
    if engine[0] == "cython" and activation == "gelu":
        steepness = np.where(x < -14, steepness, 1)
    y = unchanged(x.reshape(1, 1, -1), activation=activation).ravel()
    unit = np.spacing(np.abs(expected))
    assert (np.abs(y - expected) <= (4 + np.where(x < 0, steepness, 0)) * unit).all()


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_of_every_half(engine, activation, half):
    """Of the unrounded value, rounded once."""
    dtype = np.dtype(getattr(ml_dtypes, half, half))
    x = np.arange(65536, dtype=np.uint16).view(dtype)
    with np.errstate(invalid="ignore"):
        wide = oracle.activated(x.astype(np.float64), activation)
    y = unchanged(x.reshape(1, 2, -1), activation=activation).ravel()
    with np.errstate(all="ignore"):
        allowed = 2 * np.abs(np.spacing(wide.astype(np.float32)).astype(float))
        low, high = ((wide + sign * allowed).astype(np.float32).astype(dtype).astype(float) for sign in (-1, 1))
        same = ((low <= y.astype(float)) & (y.astype(float) <= high)) | (np.isnan(wide) & np.isnan(y.astype(float)))
        same |= np.isinf(wide.astype(np.float32)) & (y.astype(float) == wide.astype(np.float32))
    assert same.all(), (x[~same], y[~same], wide[~same])


# Norms.


def assert_finished(y, norm, x, residual, activation):
    """y is what the oracle expects of x (made like `values`) and the other two."""
    before = norm.expected(x) + (0 if residual is None else residual.astype(float))
    expected = oracle.activated(before, activation)
    unit = oracle.UNIT[np.dtype(parameter_dtype(x))]
    allowed = oracle.bound(before, parameter_dtype(x), weight=1.5, bias=1.0, kappa=KAPPA)
    allowed = STEEPEST * (allowed + unit * (0 if residual is None else np.abs(residual.astype(float)))) + 4 * unit
    if y.dtype.itemsize == 2:
        allowed = allowed * 1.01 + np.abs(expected) * 2.0 ** (-11 if y.dtype == np.float16 else -8)
    assert (np.abs(y.astype(float) - expected) <= allowed).all()


def residual_like(x):
    return (np.random.default_rng(5).standard_normal(x.shape) * 2).astype(x.dtype)


@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_with_and_without_a_residual(engine, norm, activation, dtype):
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    for shape in norm.of(SHAPES):
        x = values(shape).astype(dtype)
        for residual in (None, residual_like(x)):
            assert_finished(norm.run(x, activation=activation, residual=residual), norm, x, residual, activation)
            if norm.has_channels:
                other = None if residual is None else last(residual)
                y = norm.run(last(x), activation=activation, residual=other, data_format="channels_last")
                assert_finished(first(y), norm, x, residual, activation)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_residual_of_any_layout(engine, norm, layout):
    """The same bits, into any memory, and nothing else is written."""
    kinds = itertools.product((np.float32, np.float64, np.float16, ml_dtypes.bfloat16), (None, "relu", "gelu"))
    for shape, (dtype, activation) in zip(itertools.cycle(norm.of(SHAPES)), kinds):
        x = values(shape).astype(dtype)
        plain = residual_like(x)
        expected = norm.run(x, residual=plain, activation=activation)
        assert_finished(expected, norm, x, plain, activation)
        residual = LAYOUTS[layout](plain)
        around = surroundings(residual)
        for out in (None, np.empty_like(x), x.copy("K"), LAYOUTS[layout](x)):
            y = norm.run(x, residual=residual, activation=activation, out=out)
            assert out is None or y is out
            np.testing.assert_array_equal(y, expected)
        inside = LAYOUTS[layout](x)
        assert norm.run(inside, residual=plain, activation=activation, out=inside) is inside
        assert_finished(inside, norm, x, plain, activation)
        np.testing.assert_array_equal(residual, plain)
        assert norm.run(x, residual=residual, activation=activation, out=residual) is residual
        np.testing.assert_array_equal(residual, expected)
        assert surroundings(residual) == around


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_the_input_as_its_own_residual(engine, norm, dtype):
    """x + norm(x), which may go into x."""
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    for shape in norm.of(SHAPES):
        x = values(shape).astype(dtype)
        expected = norm.run(x, residual=x.copy(), activation="relu")
        np.testing.assert_array_equal(norm.run(x, residual=x, activation="relu"), expected)
        x = x.copy()
        assert norm.run(x, residual=x, activation="relu", out=x) is x
        np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_an_unrounded_result(engine, norm, dtype):
    """`out` of float32: the residual, of the half type, is added to what is not rounded."""
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    for shape in norm.of(SHAPES):
        x = values(shape).astype(dtype)
        residual, out = residual_like(x), np.empty(shape, np.float32)
        y = norm.run(x, residual=residual, activation="silu")
        assert norm.run(x, residual=residual, activation="silu", out=out) is out
        assert_finished(out, norm, x, residual, "silu")
        np.testing.assert_array_equal(out.astype(dtype), y)


def test_of_no_values(engine, norm):
    for shape in norm.of([(0, 4), (0, 4, 3), (2, 4, 0), (0, 4, 2, 2)]):
        x = np.empty(shape, np.float32)
        assert norm.run(x, activation="gelu", residual=x.copy()).shape == shape
        with pytest.raises(RuntimeError, match="residual"):
            norm.run(x, residual=np.empty((1, *shape), np.float32))


# Modules.

MODULES = {
    "BatchNorm1d": (lambda **given: cpunorm.BatchNorm1d(4, **given), (3, 4, 5)),
    "BatchNorm2d": (lambda **given: cpunorm.BatchNorm2d(4, **given), (3, 4, 5, 2)),
    "BatchNorm3d": (lambda **given: cpunorm.BatchNorm3d(4, **given), (3, 4, 5, 2, 2)),
    "GroupNorm": (lambda **given: cpunorm.GroupNorm(2, 4, **given), (3, 4, 5)),
    "LayerNorm": (lambda **given: cpunorm.LayerNorm((4, 5), **given), (3, 4, 5)),
    "RMSNorm": (lambda **given: cpunorm.RMSNorm(5, **given), (3, 4, 5)),
    "InstanceNorm1d": (lambda **given: cpunorm.InstanceNorm1d(4, affine=True, **given), (3, 4, 5)),
    "InstanceNorm2d": (lambda **given: cpunorm.InstanceNorm2d(4, affine=True, **given), (3, 4, 5, 2)),
    "InstanceNorm3d": (lambda **given: cpunorm.InstanceNorm3d(4, affine=True, **given), (3, 4, 5, 2, 2)),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules(name):
    """Normalised, residual added, activated: as the module without activation does it, and in copies of it too."""
    make, shape = MODULES[name]
    x, rng = values(shape), np.random.default_rng(6)
    residual = residual_like(x)
    module, plain = make(activation="silu"), make()
    state = {key: rng.uniform(0.5, 1.5, v.shape) for key, v in plain.state_dict().items() if v.ndim}
    for each in (module, plain):
        each.load_state_dict(state, strict=False)
    assert repr(module) == repr(plain)[:-1] + ", activation='silu')"
    assert list(module.state_dict()) == list(plain.state_dict())
    for training in (True, False):
        copies = [module, copy.copy(module), copy.deepcopy(module), pickle.loads(pickle.dumps(module))]
        copies[0], copies[1] = copies[1], copies[0]  # they share statistics
        for number, each in enumerate(copies):
            if number == 1 and training:
                continue
            each.train(training)
            assert each.activation == "silu"
            y = each(x, residual=residual)
            if number == 0:
                plain.train(training)
                steps = oracle.activated(plain(x).astype(float) + residual, "silu")
            np.testing.assert_allclose(y, steps, rtol=1e-5, atol=1e-5)
        out = residual.copy()
        module.eval()
        assert module(x, residual=out, out=out) is out


def test_frozen():
    module = cpunorm.FrozenBatchNorm2d(4)
    x = values((2, 4, 3, 3))
    np.testing.assert_array_equal(
        module(x, residual=x),
        functional.batch_norm(
            x, module.running_mean, module.running_var, module.weight, module.bias, residual=x, eps=module.eps
        ),
    )


@pytest.mark.parametrize("name", MODULES)
def test_modules_refuse_an_unknown_activation(name):
    make, _ = MODULES[name]
    with pytest.raises(ValueError, match=rf"{name}: activation must be one of relu, .*got 'swish'"):
        make(activation="swish")
    with pytest.raises(TypeError, match="activation"):
        make(activation=1)


# Bad input: nothing is written.

SHAPE = (2, 6, 4, 5)


def refused(norm, error, says, **options):
    x = values(SHAPE).copy()
    options = {key: value(x) if callable(value) and key != "activation" else value for key, value in options.items()}
    arrays = {"x": x, **options}
    before = memory(arrays)
    with pytest.raises(error) as caught:
        norm.run(x, **options)
    assert type(caught.value) is error
    for word in says:
        assert word in str(caught.value)
    assert memory(arrays) == before


@pytest.mark.parametrize("activation", ["swish", "ReLU", "", "relu "])
def test_an_unknown_activation(engine, norm, activation):
    refused(norm, ValueError, [*ACTIVATIONS, repr(activation)], activation=activation, out=np.empty_like)


@pytest.mark.parametrize("activation", [1, b"relu", ["relu"], np.tanh(1), True], ids=repr)
def test_no_activation_at_all(engine, norm, activation):
    refused(norm, TypeError, ["activation", "str"], activation=activation, out=np.empty_like)


def test_a_function_needs_numba(engine, norm):
    if engine[0] != "numba":
        refused(norm, TypeError, ["numba", "lambda"], activation=lambda v: v, out=np.empty_like)


@pytest.mark.parametrize(
    ("residual", "error", "says"),
    [
        (lambda x: x.tolist(), TypeError, ["list"]),
        (lambda x: 1.0, TypeError, ["float"]),
        (lambda x: np.ma.array(x), TypeError, ["masked"]),
        (lambda x: x[:1], RuntimeError, [str(SHAPE), "(1, 6, 4, 5)"]),
        (lambda x: x[0], RuntimeError, [str(SHAPE), "(6, 4, 5)"]),
        (lambda x: x.astype(np.float64), RuntimeError, ["float32", "float64"]),
        (lambda x: x.astype(np.float16), RuntimeError, ["float32", "float16"]),
        (lambda x: x.astype(np.int32), RuntimeError, ["float32", "int32"]),
    ],
)
def test_a_wrong_residual(engine, norm, residual, error, says):
    refused(norm, error, ["residual", *says], residual=residual, out=np.empty_like)


def test_out_over_part_of_the_residual(engine, norm):
    room = np.zeros(241, np.float32)
    refused(norm, RuntimeError, ["overlaps residual"], residual=room[:240].reshape(SHAPE), out=room[1:].reshape(SHAPE))
    room = room[:240].reshape(SHAPE)
    refused(norm, RuntimeError, ["overlaps residual"], residual=room, out=room[::-1])


def test_training_that_is_refused_moves_nothing(engine):
    x = values((3, 4, 5))
    mean, var = np.zeros((2, 4), np.float32)
    for options in ({"activation": "swish"}, {"residual": x[:1]}):
        with pytest.raises((ValueError, RuntimeError)):
            functional.batch_norm(x, mean, var, training=True, **options)
    assert not mean.any()
    assert not var.any()
