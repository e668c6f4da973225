"""`cpunorm.dask`: the same numbers as in memory, and the same bits however they were computed."""

import numpy as np
import pytest

import cpunorm

da = pytest.importorskip("dask.array")
pytest.importorskip("cpunorm.dask")

rng = np.random.default_rng(4)
X = 1e3 + rng.standard_normal((23, 40, 7))


@pytest.mark.parametrize("axis", [None, 0, 1, (0, 2), (0, 1, 2), ()])
@pytest.mark.parametrize("chunks", [-1, (5, 40, 7), (6, 11, 3), 1])
def test_moments(axis, chunks):
    if chunks == 1 and axis in (0, 1):
        chunks = (3, 3, 7)
    x = X[:6, :5] if chunks == 1 else X
    found, expected = cpunorm.dask.moments(da.from_array(x, chunks), axis).compute(), cpunorm.moments(x, axis)
    assert (found.axis, found.count, found.shape) == (expected.axis, expected.count, expected.shape)
    for name in ("mean", "min", "max"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-15)
    np.testing.assert_allclose(found.var(), expected.var(), rtol=1e-14)


@pytest.mark.parametrize("axis", [None, 0, (0, 1)])
def test_standardize(axis):
    lazy = cpunorm.dask.standardize(da.from_array(X, (6, 11, 3)), axis, eps=1e-3)
    assert lazy.dtype == X.dtype
    assert lazy.chunks == da.from_array(X, (6, 11, 3)).chunks
    np.testing.assert_allclose(lazy.compute(), cpunorm.standardize(X, axis, eps=1e-3), rtol=1e-12, atol=1e-12)
    small = da.from_array(X.astype(np.uint8), 8)
    assert (
        cpunorm.dask.standardize(small, axis).dtype
        == cpunorm.dask.standardize(small, axis).compute().dtype
        == np.float32
    )
    given = cpunorm.moments(X, axis)
    lazy = cpunorm.dask.standardize(da.from_array(X, 9), axis, moments=given, dtype=np.float32, clip=(-1, 1))
    assert np.array_equal(lazy.compute(), cpunorm.standardize(X, axis, moments=given, dtype=np.float32, clip=(-1, 1)))


def test_nan():
    x = X.copy()
    x[3, 4, 5] = np.nan
    lazy = da.from_array(x, 8)
    found = cpunorm.dask.moments(lazy, (0, 1), nan="omit").compute()
    assert found.count.tolist() == [920] * 5 + [919, 920]
    assert np.isnan(cpunorm.dask.moments(lazy, (0, 1)).compute().mean).tolist() == [False] * 5 + [True, False]
    assert np.isnan(cpunorm.dask.standardize(lazy, (0, 1), nan="omit").compute()).sum() == 1


def test_nothing_is_read_before_compute_and_each_chunk_once():
    reads = []

    def read(block_info=None):
        reads.append(block_info[None]["chunk-location"])
        return X[: block_info[None]["chunk-shape"][0]]

    lazy = da.map_blocks(read, chunks=((5, 6, 7), 40, 7), dtype=X.dtype, meta=np.empty((0, 0, 0)))
    found = cpunorm.dask.moments(lazy, 0)
    assert reads == []
    found.compute()
    assert len(reads) == 3


def test_the_same_bits_from_any_number_of_threads():
    lazy = da.from_array(X, (2, 7, 7))
    found = [cpunorm.dask.moments(lazy, (0, 1)).compute(scheduler="threads", num_workers=n) for n in (1, 2, 4)]
    assert found[0] == found[1] == found[2] == cpunorm.dask.moments(lazy, (0, 1)).compute(scheduler="sync")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of distributed's own
def test_the_same_bits_from_processes():
    distributed = pytest.importorskip("distributed")
    lazy = da.from_array(X, (5, 20, 7))
    expected = cpunorm.dask.moments(lazy, (0, 1)).compute(scheduler="sync")
    for workers in (1, 2):
        with (
            distributed.LocalCluster(workers, threads_per_worker=1, dashboard_address=None) as cluster,
            distributed.Client(cluster),
        ):
            assert cpunorm.dask.moments(lazy, (0, 1)).compute() == expected
            y = cpunorm.dask.standardize(lazy, (0, 1)).compute()
    np.testing.assert_allclose(y, cpunorm.standardize(X, (0, 1)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["moments", "standardize"])
def test_bad_input(name):
    function = getattr(cpunorm.dask, name)
    lazy = da.from_array(X, 8)
    with pytest.raises(TypeError, match="expected a dask array, got ndarray"):
        function(X)
    with pytest.raises(np.exceptions.AxisError, match="axis 3"):
        function(lazy, 3)
    with pytest.raises(ValueError, match="named twice"):
        function(lazy, (0, 0))
    with pytest.raises(ValueError, match="got 'drop'"):
        function(lazy, nan="drop")
    with pytest.raises(ValueError, match="unknown size"):
        function(lazy[lazy[:, 0, 0] > 0])
