"""`cpunorm.standardize` and `standardize_sliding` against the formulas in long double."""

import ml_dtypes
import numpy as np
import pytest

import cpunorm
from cpunorm import moments, standardize, standardize_sliding

DTYPES = [
    np.float32,
    np.float64,
    np.float16,
    ml_dtypes.bfloat16,
    np.bool,
    np.uint8,
    np.int8,
    np.uint16,
    np.int32,
    np.int64,
]
DIGITS = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}
rng = np.random.default_rng(16)


def expected(x, axes, eps=0.0, ddof=0):
    z = x.astype(np.longdouble)
    z -= z.flat[0]  # so that the oracle's own mean has digits to spare
    mean = z.mean(axes, keepdims=True)
    var = np.square(z - mean).sum(axes, keepdims=True) / (np.prod([x.shape[axis] for axis in axes]) - ddof)
    return (z - mean) / np.sqrt(np.where(var + eps == 0, 1, var + eps))


def assert_close(y, z):
    """Rounded once from float64, whose own error is about 9 half units at most: 4 of the deviation, then its root, its
    reciprocal, two subtractions and the product. The oracle's own, of its mean, is some 2**-60 of the deviation."""
    digits = DIGITS[y.dtype.name]
    unit = np.ldexp(1.0, np.frexp(z.astype(np.float64))[1] - digits)
    smallest = 2.0**-24 if y.dtype.name == "float16" else 0
    error = np.abs(y.astype(np.longdouble) - z)
    assert (error <= (4.5 if digits == 53 else 0.51) * unit + smallest + (1e-18 if digits == 53 else 1e-15)).all()


def data(dtype, shape):
    if np.dtype(dtype).kind in "biu":
        return rng.integers(0, 2 if dtype is np.bool else 100, shape).astype(dtype)
    return (3 + rng.standard_normal(shape)).astype(dtype)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_every_dtype_and_layout(dtype):
    for shape, axes, turn in (
        ((900,), (0,), None),
        ((50, 70), (0,), None),
        ((50, 70), (1,), None),
        ((600, 3), (0,), None),
        ((300, 5), (1,), None),
        ((3, 700), (1,), None),
        ((50, 70), (0,), (1, 0)),
        ((6, 5, 7, 9), (0, 2, 3), None),
        ((6, 5, 7, 9), (0, 2, 3), (0, 2, 3, 1)),
        ((6, 5, 7, 9), (1, 3), (3, 0, 2, 1)),
    ):
        x = data(dtype, shape)
        if turn is not None:
            x = np.ascontiguousarray(x.transpose(turn)).transpose(np.argsort(turn))
        y = standardize(x, axes)
        assert y.dtype == (dtype if np.dtype(dtype).kind not in "biu" else np.float32)
        assert np.argsort(y.strides).tolist() == np.argsort(x.strides).tolist()
        assert_close(y, expected(x, axes))
        half = x[tuple(slice(None, None, 2) for _ in shape)]
        assert_close(standardize(half, axes, dtype=np.float64), expected(half, axes))


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    "dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16], ids=lambda d: np.dtype(d).name
)
def test_in_place_and_into(dtype):
    x = data(dtype, (40, 30))
    y = standardize(x, 0)
    for out in (
        np.empty_like(x),
        np.empty((30, 40), dtype).T,
        np.empty((80, 60), dtype)[::2, ::2],
        np.empty_like(x)[::-1],
    ):
        assert standardize(x, 0, out=out) is out
        assert np.array_equal(out, y)
    assert standardize(x, 0, out=x) is x
    assert np.array_equal(x, y)


@pytest.mark.usefixtures("engine")
def test_odd_memory():
    x = rng.standard_normal((20, 3))
    y = standardize(x, 0)
    out = np.empty(x.nbytes + 1, np.uint8)[1:].view(np.float64).reshape(x.shape)
    assert not out.flags.aligned
    for target in (out, np.empty_like(x, ">f8")):
        assert np.array_equal(standardize(x, 0, out=target, dtype=target.dtype), y)
    assert np.array_equal(standardize(x.astype(">f8"), 0), y)


@pytest.mark.usefixtures("engine")
def test_constant_slices_are_zeros():
    x = np.full((1000, 3), [0.1, 1e30, -7], np.float32)
    for given in (x, x.astype(np.float64), np.full((5, 3), 9, np.uint8)):
        assert not standardize(given, 0).any()
    assert not standardize_sliding(x, 7).any()


def test_far_from_zero(engine):
    """Where x - mean has few digits of a mean that is a float64; NumPy's float32 line has none."""
    x = 1e8 + rng.standard_normal((500, 2))
    if engine[0] != "reference":  # whose mean is a long double, not two doubles
        assert_close(standardize(x, 0), expected(x, (0,)))
    x = (2.0**24 + rng.integers(0, 5, (500, 2))).astype(np.float32)
    assert_close(standardize(x, 0), expected(x, (0,)))


@pytest.mark.usefixtures("engine")
def test_options():
    x = rng.standard_normal((60, 4))
    assert_close(standardize(x, 0, eps=0.5), expected(x, (0,), eps=0.5))
    assert_close(standardize(x, 0, ddof=1), expected(x, (0,), ddof=1))
    assert_close(standardize(x), expected(x, (0, 1)))
    assert_close(standardize(x, 0, floor=2.0) * 2, expected(x, (0,)) * x.std(0))
    clipped = standardize(x, 0, clip=(-1, 0.5))
    assert np.array_equal(clipped, np.clip(standardize(x, 0), -1, 0.5))
    y, found = standardize(x, 0, return_moments=True)
    assert found == moments(x, 0)
    assert np.array_equal(y, standardize(x, 0, moments=found))
    other = rng.standard_normal((7, 4))
    np.testing.assert_allclose(standardize(other, 0, moments=found), (other - x.mean(0)) / x.std(0), rtol=1e-12)


@pytest.mark.usefixtures("engine")
def test_what_does_not_count():
    x = rng.standard_normal((3, 9, 2)).astype(np.float32)
    y = standardize(x, 1, lengths=[9, 4, 1])
    assert_close(y[1, :4], expected(x[1, :4], (0,)))
    assert not y[1, 4:].any()
    assert not y[2].any()
    where = x[..., :1] > 0
    y = standardize(x, (0, 1), where=where)
    assert_close(y[where[..., 0]], expected(x[where[..., 0]], (0,)))
    assert not y[~where[..., 0]].any()
    x[0, 3, 0] = np.nan
    assert np.isnan(standardize(x, (0, 1))[..., 0]).all()
    y = standardize(x, (0, 1), nan="omit")
    assert np.argwhere(np.isnan(y)).tolist() == [[0, 3, 0]]
    assert_close(y[..., 0][~np.isnan(y[..., 0])], expected(x[..., 0][~np.isnan(x[..., 0])], (0,)))


@pytest.mark.usefixtures("engine")
def test_nothing():
    assert standardize(np.zeros((0, 3)), 0).shape == (0, 3)
    assert standardize(np.zeros((3, 0)), 1).shape == (3, 0)
    assert standardize_sliding(np.zeros((0, 3)), 5).shape == (0, 3)
    assert np.array_equal(standardize(np.array(5.0)), np.array(0.0))


def kaldi(x, window, center, least, var):
    """apply-cmvn-sliding, frame by frame, in long double."""
    y = np.empty(x.shape, np.longdouble)
    for t in range(len(x)):
        start = t - window // 2 if center else t - window
        end = start + window if center else t + 1
        if start < 0:
            end -= start
            start = 0
        if not center and end > t:
            end = max(t + 1, least)
        if end > len(x):
            start, end = max(start - (end - len(x)), 0), len(x)
        frames = x[start:end].astype(np.longdouble)
        y[t] = x[t] - frames.mean(0)
        if var:
            deviation = frames.std(0)
            y[t] = np.where(deviation == 0, 0, y[t] / np.where(deviation == 0, 1, deviation))
    return y


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("var", [True, False])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize(
    ("frames", "window", "least"), [(50, 8, 3), (50, 7, 20), (5, 9, 2), (5, 2, 9), (1, 1, 1), (40, 1, 1)]
)
def test_sliding(frames, window, least, center, var):
    x = (5 + rng.standard_normal((frames, 150))).astype(np.float32)
    y = standardize_sliding(x, window, center=center, min_window=least, var=var)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, kaldi(x, window, center, least, var).astype(np.float64), rtol=1e-6, atol=1e-7)


@pytest.mark.usefixtures("engine")
def test_sliding_along_any_axis():
    x = rng.standard_normal((3, 40, 5))
    for axis in (0, 1, 2, -2):
        y = standardize_sliding(x, 6, axis)
        z = np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)
        z = kaldi(z, 6, True, 100, True).reshape(np.moveaxis(x, axis, 0).shape)
        np.testing.assert_allclose(np.moveaxis(y, axis, 0), z.astype(np.float64), rtol=1e-12, atol=1e-13)
    assert np.array_equal(
        standardize_sliding(x[:, ::2, ::-1], 6, 1)[..., ::-1], standardize_sliding(x[:, ::2].copy(), 6, 1)
    )
    assert np.array_equal(standardize_sliding(x, 6, 1, out=x), x)


def test_sliding_does_not_drift():
    """A million frames, with a loud one, one that is no number and silence among them."""
    x = rng.standard_normal((1_000_000, 3))
    x[1000], x[2000, 0], x[3000:4000] = 1e25, np.nan, 0.25
    y = standardize_sliding(x, 300)
    assert np.flatnonzero(np.isnan(y[:, 0])).tolist() == list(range(2000 - 149, 2000 + 151))
    assert not y[3150:3850].any()
    for start in (5000, 999_000):
        z = kaldi(x[start : start + 1000], 300, True, 100, True)[200:800]
        assert np.abs(y[start + 200 : start + 800] - z).max() < 1e-14


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("shape", [(70_001,), (300, 300), (40, 3, 700)])
def test_bits_at_any_number_of_threads(shape):
    x = rng.standard_normal(shape).astype(np.float32)
    found = []
    for threads in (1, 2, 3):
        with cpunorm.num_threads(threads):
            found.append((standardize(x, 0).tobytes(), standardize_sliding(x[:100], 30).tobytes()))
    assert found[0] == found[1] == found[2]


X, MANY = np.zeros((4, 3)), np.zeros(24)
ROOM = MANY[:12].reshape(4, 3)
IN_ROOM = cpunorm.Moments(MANY[:21].reshape(7, 3), 1, (0,))


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TypeError, "must be a numpy.ndarray, got builtins.list", lambda: standardize([1.0])),
        (TypeError, "complex128", lambda: standardize(X.astype(complex))),
        (np.exceptions.AxisError, "axis 2", lambda: standardize(X, 2)),
        (ValueError, "eps must be >= 0, got -1", lambda: standardize(X, 0, eps=-1.0)),
        (ValueError, "floor must not be NaN", lambda: standardize(X, 0, floor=np.nan)),
        (ValueError, "not be negative, got -1.0 and 0", lambda: standardize(X, 0, floor=-1)),
        (ValueError, "not be negative, got 0.0 and -1", lambda: standardize(X, 0, ddof=-1)),
        (TypeError, "clip must be a pair of floats, got 3", lambda: standardize(X, 0, clip=3)),
        (ValueError, r"lesser and the greater bound, got \(1, 0\)", lambda: standardize(X, 0, clip=(1, 0))),
        (TypeError, "moments must be Moments, got tuple", lambda: standardize(X, 0, moments=(0, 1))),
        (ValueError, r"moments of shape \(3,\), got \(4,\)", lambda: standardize(X, 0, moments=moments(X, 1))),
        (ValueError, "nothing to return", lambda: standardize(X, 0, moments=moments(X, 0), return_moments=True)),
        (TypeError, "got int64", lambda: standardize(X, 0, dtype=np.int64)),
        (ValueError, "does not broadcast", lambda: standardize(X, 0, where=np.ones(4, bool))),
        (RuntimeError, "out must have the input's shape", lambda: standardize(X, 0, out=np.zeros(3))),
        (RuntimeError, "out must have dtype float32", lambda: standardize(X, 0, out=X, dtype=np.float32)),
        (TypeError, "got int64", lambda: standardize(X, 0, out=np.zeros((4, 3), np.int64))),
        (RuntimeError, "partly overlaps", lambda: standardize(X[:3], 0, out=X[1:])),
        (
            RuntimeError,
            "overlaps itself",
            lambda: standardize(X, 0, out=np.lib.stride_tricks.as_strided(X, (4, 3), (8, 8))),
        ),
        (RuntimeError, "out overlaps where", lambda: standardize(X, 0, out=ROOM, where=ROOM.view(bool)[:, :3])),
        (RuntimeError, "out overlaps moments", lambda: standardize(X, 0, out=ROOM, moments=IN_ROOM)),
        (ValueError, "read-only", lambda: standardize(X, 0, out=np.broadcast_to(1.0, (4, 3)))),
        (TypeError, "window must be an int, got 2.5", lambda: standardize_sliding(X, 2.5)),
        (ValueError, "must be positive, got 0 and 100", lambda: standardize_sliding(X, 0)),
        (TypeError, "axis must be an int, got None", lambda: standardize_sliding(X, 2, None)),
        (np.exceptions.AxisError, "axis 2", lambda: standardize_sliding(X, 2, 2)),
        (TypeError, "center must be a bool", lambda: standardize_sliding(X, 2, center=1)),
    ],
)
def test_bad_input(error, message, call):
    before = X.copy()
    with pytest.raises(error, match=message):
        call()
    assert np.array_equal(X, before)
