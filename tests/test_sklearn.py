"""`cpunorm.sklearn.StandardScaler` is scikit-learn's, but for its speed and its last digits."""

import itertools

import numpy as np
import pytest

pytest.importorskip("sklearn")

import sklearn.base
from scipy import sparse
from sklearn import pipeline, preprocessing
from sklearn.utils import estimator_checks

from cpunorm.sklearn import StandardScaler

rng = np.random.default_rng(3)


@pytest.mark.slow
def test_check_estimator():
    results = estimator_checks.check_estimator(StandardScaler(), on_skip=None)
    assert {result["status"] for result in results} <= {"passed", "skipped"}


def pair(x, options=None, **fit):
    ours, theirs = (kind(**options or {}).fit(x, **fit) for kind in (StandardScaler, preprocessing.StandardScaler))
    return ours, theirs


def assert_same(ours, theirs):
    for name in ("mean_", "var_", "scale_", "n_samples_seen_"):
        a, b = getattr(ours, name), getattr(theirs, name)
        if b is None:
            assert a is None
        else:
            assert np.shape(a) == np.shape(b)
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("with_mean", [True, False])
@pytest.mark.parametrize("with_std", [True, False])
def test_attributes_and_results(dtype, with_mean, with_std):
    x = (rng.standard_normal((50, 4)) * [1, 10, 0, 100] + 3).astype(dtype)
    before = x.copy()
    ours, theirs = pair(x, {"with_mean": with_mean, "with_std": with_std})
    assert_same(ours, theirs)
    y = ours.transform(x)
    assert y.dtype == theirs.transform(x).dtype
    np.testing.assert_allclose(y, theirs.transform(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.inverse_transform(y), x, rtol=1e-5, atol=1e-5)
    assert np.array_equal(x, before)


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide")  # in scikit-learn
def test_batches():
    x = rng.standard_normal((100, 3))
    x[20:70, 1] = np.nan
    x[3:10, 2] = np.nan
    for cuts in ([0, 10, 30, 100], [0, 1, 2, 100]):
        ours, theirs = StandardScaler(), preprocessing.StandardScaler()
        for start, stop in itertools.pairwise(cuts):
            ours.partial_fit(x[start:stop])
            theirs.partial_fit(x[start:stop])
            assert_same(ours, theirs)
        np.testing.assert_allclose(ours.transform(x), theirs.transform(x), rtol=1e-9)


def test_in_place():
    x = rng.standard_normal((50, 3))
    y = StandardScaler().fit_transform(x)
    assert np.shares_memory(StandardScaler(copy=False).fit_transform(x), x)
    assert np.array_equal(x, y)


def test_sparse_and_weights_are_theirs():
    x = sparse.random(40, 5, 0.3, "csr", rng=rng)
    ours, theirs = pair(x, {"with_mean": False})
    assert_same(ours, theirs)
    assert np.array_equal(ours.transform(x).toarray(), theirs.transform(x).toarray())
    x, weights = rng.standard_normal((30, 2)), rng.random(30)
    assert_same(*pair(x, sample_weight=weights))


def test_more_digits():
    """Ones are counted by float32 sums to 2**24 in scikit-learn's place; ours are exact."""
    beyond = rng.integers(0, 3, (1000, 2))
    ours = StandardScaler().fit(1e8 + beyond)
    exact = (1000 * (beyond**2).sum(0) - beyond.sum(0) ** 2) / 1000**2  # NumPy's own var is 2e-14 off for some draws
    np.testing.assert_allclose(ours.var_, exact, rtol=1e-15)


@pytest.mark.parametrize("copy", [True, False])
def test_infinity_is_found_before_x_is_lost(copy):
    x = rng.standard_normal((40, 3))
    scaler = StandardScaler(copy=copy).fit(x)
    x[7, 1] = np.nan
    y = scaler.transform(x.copy())
    assert np.argwhere(np.isnan(y)).tolist() == [[7, 1]]
    x[39, 2] = np.inf
    before = x.copy()
    with pytest.raises(ValueError, match="infinity"):
        scaler.transform(x)
    assert np.array_equal(x, before, equal_nan=True)


def test_in_a_pipeline():
    x = rng.standard_normal((20, 2))
    steps = pipeline.make_pipeline(StandardScaler(), preprocessing.MinMaxScaler())
    assert steps.fit_transform(x).max() == pytest.approx(1)
    scaler = sklearn.base.clone(StandardScaler(with_mean=False)).set_output(transform="default").fit(x)
    assert scaler.get_feature_names_out().tolist() == ["x0", "x1"]
    assert scaler.get_params() == {"copy": True, "with_mean": False, "with_std": True}


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("infinity", lambda: StandardScaler().fit([[1.0], [np.inf]])),
        ("2D array", lambda: StandardScaler().fit([1.0, 2.0])),
        ("expecting 2 features", lambda: StandardScaler().fit([[1.0, 2.0]]).transform([[1.0]])),
        ("minimum of 1 is required", lambda: StandardScaler().fit(np.zeros((0, 2)))),
        ("with_mean", lambda: StandardScaler(with_mean=3).fit([[1.0]])),
    ],
)
def test_bad_input(message, call):
    with pytest.raises(ValueError, match=message):
        call()
