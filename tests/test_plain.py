"""normalize, local_response_norm and LocalResponseNorm: half an ulp from the truth, torch as second witness.

Deliberate differences from torch: no overflow, a NaN number (`p`, `alpha`, ...) is an error, a float16 `eps` is not 0,
integer and complex input is refused by both functions.
"""

import copy
import math
import pickle

import hypothesis
import ml_dtypes
import numpy as np
import pytest
from hypothesis import strategies as st
from norms import values
from strided import LAYOUTS, embed, surroundings

import cpunorm
from cpunorm.functional import local_response_norm, normalize

FLOATS = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
SHAPE = (2, 6, 4, 5)
POWERS = [2.0, 1.0, 0, 3.5, 0.5, 20.0, -1.0, -2.5, math.inf, -math.inf]
FUNCTIONS = {"normalize": normalize, "local_response_norm": lambda x, **options: local_response_norm(x, 3, **options)}


def exact_normalize(x, p=2.0, dim=1, eps=1e-12):
    """In extended precision, whose range is enough for all powers here."""
    axes = tuple(range(x.ndim)) if dim == () else dim
    x = np.asarray(x, np.longdouble)
    a = np.abs(x)
    with np.errstate(all="ignore"):
        if p == 0:
            norm = (x != 0).sum(axis=axes, keepdims=True)
        elif np.isinf(p):
            norm = (a.max if p > 0 else a.min)(axis=axes, keepdims=True)
        else:
            norm = (a**p).sum(axis=axes, keepdims=True) ** (np.longdouble(1) / p)
        return x / np.maximum(norm, eps)


def exact_local_response_norm(x, size, alpha=1e-4, beta=0.75, k=1.0):
    """(N, C, ...), channel by channel."""
    x = np.asarray(x, np.longdouble)
    y = np.empty_like(x)
    with np.errstate(all="ignore"):
        for c in range(x.shape[1]):
            window = x[:, max(0, c - size // 2) : c + (size - 1) // 2 + 1]
            y[:, c] = x[:, c] / (k + alpha * (window**2).sum(axis=1) / size) ** np.longdouble(beta)
    return y


EXACT = {"normalize": exact_normalize, "local_response_norm": lambda x: exact_local_response_norm(x, 3)}


def assert_rounded(y, expected):
    """y is `expected` rounded to its dtype: half an ulp (and a little for the arithmetic), several for float64."""
    assert y.shape == expected.shape
    with np.errstate(all="ignore"):
        ulps = 64 if y.dtype == np.float64 else 0.5 + 2.0**-10
        allowed = ulps * np.spacing(np.abs(y)).astype(np.float64)
        finite = np.isfinite(expected) & np.isfinite(y.astype(np.float64))
        error = np.abs(y.astype(np.longdouble) - expected)
        beyond = expected[~finite].astype(y.dtype)
    assert (error[finite] <= allowed[finite]).all()
    np.testing.assert_array_equal(y[~finite].astype(np.float64), beyond.astype(np.float64))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("p", POWERS)
@pytest.mark.parametrize("dim", [0, 1, -1, (1, 3), (), [0, -2]])
def test_normalize_is_rounded_once(dtype, p, dim):
    x = values(SHAPE, dtype) - dtype(100)
    y = normalize(x, p, dim)
    assert y.dtype == dtype
    assert_rounded(y, exact_normalize(x, p, tuple(dim) if isinstance(dim, list) else dim))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 11, 12, 1000])
@pytest.mark.parametrize("constants", [(1e-4, 0.75, 1.0), (2.0, 0.5, 0.0), (1e-2, -1.0, 3.0), (1.0, 2.0, 1.0)])
def test_local_response_norm_is_rounded_once(dtype, size, constants):
    for shape in (SHAPE, (2, 6, 7), (1, 6, 2, 3, 4)):
        x = values(shape, dtype) - dtype(100)
        y = local_response_norm(x, size, *constants)
        assert y.dtype == dtype
        assert_rounded(y, exact_local_response_norm(x, size, *constants))


@pytest.mark.parametrize(("dtype", "large"), [(np.float32, 1e30), (np.float32, 1e-40), (np.float64, 1e300)])
@pytest.mark.parametrize("p", POWERS)
def test_normalize_does_not_overflow(dtype, large, p):
    x = values((3, 50), dtype) * dtype(large / 200)
    y = normalize(x, p, eps=0)
    assert np.isfinite(y).all()
    assert_rounded(
        y,
        exact_normalize(x.astype(np.longdouble) * np.longdouble(2) ** -round(math.log2(large)), p, eps=0)
        if p
        else x / np.longdouble(50),
    )


def test_local_response_norm_does_not_overflow():
    x = np.full((1, 3, 2), 1e30, np.float32)
    y = local_response_norm(x, 3, alpha=3.0, beta=0.5)
    np.testing.assert_allclose(y[0, :, 0], [2**-0.5, 3**-0.5, 2**-0.5], rtol=1e-6)


special = st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0]) | st.floats(0.125, 8, width=32)
rows = st.integers(1, 5).flatmap(lambda n: st.lists(st.lists(special, min_size=n, max_size=n), min_size=1, max_size=4))


@pytest.mark.parametrize("p", POWERS)
@hypothesis.given(rows, st.sampled_from([0, 1, (0, 1)]), st.sampled_from([1e-12, 0.0, 2.5, -1.0, math.inf]))
def test_normalize_as_torch(p, rows, dim, eps):
    torch = pytest.importorskip("torch")
    x = np.array(rows, np.float64)
    expected = torch.nn.functional.normalize(torch.from_numpy(x), p, dim, eps).numpy()
    np.testing.assert_allclose(normalize(x, p, dim, eps), expected, rtol=1e-11)


@hypothesis.given(
    st.data(),
    st.integers(1, 9),
    st.sampled_from([1e-4, 1.0, -0.5]),
    st.sampled_from([0.75, 2.0, -1.0, 0.0]),
    st.sampled_from([1.0, 0.0, 2.0]),
    st.sampled_from([(2, 5, 3), (1, 1, 2), (2, 4, 3, 2), (1, 3, 2, 1, 2)]),
)
def test_local_response_norm_as_torch(data, size, alpha, beta, k, shape):
    torch = pytest.importorskip("torch")
    count = math.prod(shape)
    x = np.array(data.draw(st.lists(special, min_size=count, max_size=count))).reshape(shape)
    order = data.draw(st.permutations(range(len(shape))))
    expected = torch.nn.functional.local_response_norm(torch.from_numpy(x), size, alpha, beta, k).numpy()
    ours = local_response_norm(embed(x, order, 2, 1), size, alpha, beta, k)
    np.testing.assert_allclose(ours, expected, rtol=1e-11)
    last = local_response_norm(np.moveaxis(x, 1, -1), size, alpha, beta, k, data_format="channels_last")
    np.testing.assert_array_equal(np.moveaxis(last, -1, 1), ours)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_any_memory_and_out(name, layout, dtype):
    run, plain = FUNCTIONS[name], values(SHAPE, dtype)
    x, out = LAYOUTS[layout](plain), LAYOUTS[layout](np.zeros_like(plain))
    expected, around = run(plain), surroundings(x)
    y = run(x)
    np.testing.assert_array_equal(y, expected)
    assert np.argsort(y.strides).tolist() == np.argsort(np.abs(x.strides)).tolist()
    assert run(x, out=out) is out
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(x, plain)
    assert run(x, out=x) is x
    np.testing.assert_array_equal(x, expected)
    assert surroundings(x) == around


@pytest.mark.parametrize("name", FUNCTIONS)
def test_byte_order(name):
    x = values(SHAPE)
    y = FUNCTIONS[name](x.astype(">f4"))
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, FUNCTIONS[name](x))


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 2), (2, 3, 0)])
def test_empty(name, shape):
    x = np.ones(shape, np.float32)
    assert FUNCTIONS[name](x).shape == shape
    assert FUNCTIONS[name](x, out=x) is x


def test_float16_eps_is_not_0():
    np.testing.assert_array_equal(normalize(np.zeros((2, 3), np.float16)), 0)


def test_without_axes():
    """As torch, which takes it for a vector of one value."""
    assert normalize(np.array(-3.0), dim=0) == -1
    assert normalize(np.array(-3.0, np.float32), dim=-1).shape == ()
    assert normalize(np.array(-3.0), dim=()) == -1


BAD = np.ones((2, 3, 4), np.float32)


def read_only():
    out = np.ones_like(BAD)
    out.flags.writeable = False
    return out


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("x", "out", "error", "says"),
    [
        ([1.0], None, TypeError, "input must be a numpy.ndarray, got builtins.list"),
        (np.ma.ones((2, 3, 4)), None, TypeError, "masked"),
        (BAD.astype(int), None, NotImplementedError, "int64"),
        (BAD.astype(complex), None, NotImplementedError, "complex128"),
        (BAD.astype(object), None, TypeError, "object"),
        (BAD, [1.0], TypeError, "out must be a numpy.ndarray"),
        (BAD, read_only(), ValueError, "read-only"),
        (BAD, np.ones((2, 3, 5), np.float32), RuntimeError, r"\(2, 3, 5\)"),
        (BAD, np.ones((2, 3, 4)), RuntimeError, "float64"),
        (BAD, BAD[::-1], RuntimeError, "overlaps the input"),
    ],
    ids=str,
)
def test_refused(name, x, out, error, says):
    with pytest.raises(error, match=f"{name}: .*{says}") as caught:
        FUNCTIONS[name](x, out=out)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("shape", "options", "error", "says"),
    [
        ((2, 3), {"dim": 2}, IndexError, "from -2 to 1 for 2 dimensions, got 2"),
        ((2, 3), {"dim": -3}, IndexError, "-3"),
        ((2, 3), {"dim": (0, 2)}, IndexError, "2"),
        ((), {}, IndexError, "from -1 to 0 for 0 dimensions, got 1"),
        ((2, 3), {"dim": (0, 0)}, RuntimeError, r"twice: \(0, 0\)"),
        ((2, 3), {"dim": (1, -1)}, RuntimeError, r"twice: \(1, -1\)"),
        ((2, 3), {"dim": 1.0}, TypeError, "1.0"),
        ((2, 3), {"dim": True}, TypeError, "True"),
        ((2, 3), {"dim": "1"}, TypeError, "'1'"),
        ((2, 3), {"eps": None}, TypeError, "None"),
        ((2, 3), {"eps": "a"}, TypeError, "'a'"),
        ((3, 0), {"p": math.inf}, RuntimeError, r"p=inf .*\(3, 0\)"),
        ((3, 0), {"p": -1.0}, RuntimeError, r"p=-1.0 .*\(3, 0\)"),
        ((0, 3), {"p": -math.inf, "dim": (0, 1)}, RuntimeError, "p=-inf"),
    ],
)
def test_normalize_refuses_what_torch_does(shape, options, error, says):
    torch = pytest.importorskip("torch")
    with pytest.raises(error):
        torch.nn.functional.normalize(torch.ones(shape), **options)
    with pytest.raises(error, match=says) as caught:
        normalize(np.ones(shape, np.float32), **options)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("shape", "options", "error", "says"),
    [
        ((2, 3), {}, ValueError, r"at least 3 dimensions .*\(2, 3\)"),
        ((2, 3, 4), {"size": 0}, RuntimeError, "positive, got 0"),
        ((2, 3, 4), {"size": -1}, RuntimeError, "-1"),
        ((2, 3, 4), {"size": 2.0}, TypeError, "size must be an int, got 2.0"),
        ((2, 3, 4), {"size": True}, TypeError, "True"),
        ((2, 3, 4), {"size": None}, TypeError, "None"),
        ((2, 3, 4), {"alpha": None}, TypeError, "alpha .*None"),
        ((2, 3, 4), {"alpha": "1"}, TypeError, "alpha .*'1'"),
        ((2, 3, 4), {"beta": "1"}, TypeError, "beta .*'1'"),
        ((2, 3, 4), {"k": "1"}, TypeError, "k .*'1'"),
    ],
)
def test_local_response_norm_refuses_what_torch_does(shape, options, error, says):
    torch = pytest.importorskip("torch")
    options = {"size": 2} | options
    with pytest.raises(error):
        torch.nn.functional.local_response_norm(torch.ones(shape), **options)
    with pytest.raises(error, match=says) as caught:
        local_response_norm(np.ones(shape, np.float32), **options)
    assert type(caught.value) is error


def test_refused_here_alone():
    for name in ("alpha", "beta", "k"):
        with pytest.raises(ValueError, match=f"{name} must not be NaN"):
            local_response_norm(BAD, 2, **{name: math.nan})
    for name in ("p", "eps"):
        with pytest.raises(ValueError, match=f"{name} must not be NaN"):
            normalize(BAD, **{name: math.nan})
    with pytest.raises(TypeError, match="'fro'"):
        normalize(BAD, "fro")
    with pytest.raises(ValueError, match="'NCHW'"):
        local_response_norm(BAD, 2, data_format="NCHW")


def test_module():
    torch = pytest.importorskip("torch")
    norm, theirs = cpunorm.LocalResponseNorm(3, 0.1, beta=0.5, k=2.0), torch.nn.LocalResponseNorm(3, 0.1, 0.5, k=2.0)
    assert repr(norm) == repr(theirs)
    assert repr(cpunorm.LocalResponseNorm(2)) == repr(torch.nn.LocalResponseNorm(2))
    assert norm.state_dict() == theirs.state_dict() == {}
    norm.load_state_dict({})
    x, out = values(SHAPE), np.empty(SHAPE, np.float32)
    np.testing.assert_allclose(norm(x, out=out), theirs(torch.from_numpy(x)).numpy(), rtol=1e-5)
    assert norm.eval().train().training
    for twin in (copy.copy(norm), copy.deepcopy(norm), pickle.loads(pickle.dumps(norm))):
        np.testing.assert_array_equal(twin(x), out)
    last = cpunorm.LocalResponseNorm(3, 0.1, 0.5, 2.0, data_format="channels_last")
    np.testing.assert_array_equal(last(np.moveaxis(x, 1, -1)), np.moveaxis(out, 1, -1))
