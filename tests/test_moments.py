"""`cpunorm.moments` and `Moments` against exact rational arithmetic."""

import io
import itertools
import math
import pickle
import re
import sys
import threading
import tracemalloc
import warnings
import weakref
import zipfile
from fractions import Fraction

import engines
import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import pytest

import cpunorm
from cpunorm import Moments, _reduction, _statistics, moments

DTYPES = [
    *(np.float32, np.float64, np.float16, ml_dtypes.bfloat16),
    *(np.bool, np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64),
]
FLOATS = DTYPES[:4]
rng = np.random.default_rng(15)


def exact(values):
    """Count, mean and variance as fractions."""
    values = values.tolist() if values.dtype.kind in "biu" else values.astype(np.float64).tolist()
    ratios = [value.as_integer_ratio() for value in values]
    unit, n = max(below for _, below in ratios), len(values)  # powers of 2
    whole = [above * (unit // below) for above, below in ratios]
    total = sum(whole)
    return n, Fraction(total, n * unit), Fraction(n * sum(v * v for v in whole) - total**2, (n * unit) ** 2)


def ulps(got, expected, dtype):
    """The distance in units in the last place of the dtype's result: float32 for what is at most that wide."""
    digits = 24 if np.dtype(dtype).kind not in "biu" and np.dtype(dtype).itemsize <= 4 else 53
    unit = Fraction(2) ** (math.frexp(float(expected))[1] - digits)
    return float(abs(Fraction(float(got)) - expected) / unit)


def assert_exact(found, values, index=()):
    count, mean, var = exact(values)
    assert np.broadcast_to(found.count, found.shape)[index] == count
    assert ulps(np.asarray(found.mean)[index], mean, values.dtype) <= 4
    assert ulps(np.asarray(found.var())[index], var, values.dtype) <= 4
    assert np.asarray(found.min)[index] == float(values.min())
    assert np.asarray(found.max)[index] == float(values.max())


def slices(x, axes):
    """Each index of the kept axes, with the values of its slice."""
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    rows = x.transpose(*kept, *axes).reshape(*(x.shape[axis] for axis in kept), -1)
    return [(index, rows[index]) for index in np.ndindex(rows.shape[:-1])]


def sample(dtype, shape, kind):
    """Data of a kind: spread, far from 0, sorted and of many scales."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.3
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        least, most = [(limits.min, limits.max), (limits.max - 3, limits.max), (0, 9)][kind]
        return rng.integers(least, most, shape, dtype, endpoint=True)
    x = rng.standard_normal(shape)
    return [x, 1000 + x, np.sort(np.exp(2 * x), axis=None).reshape(shape)][kind].astype(dtype)


# Every way into the kernels: rows, columns of a strip and of several, few columns, short slices, packed ones.
LAYOUTS = {
    "whole": ((1000,), (0,), None),
    "whole in parts": ((70_001,), (0,), None),
    "rows": ((3, 700), (1,), None),
    "short rows": ((70, 5), (1,), None),
    "short rows of several tiles": ((71, 46), (1,), None),
    "short rows of a crop": ((9, 12, 30), (2,), (slice(None), slice(1, 10), slice(2, 29))),
    "short rows backwards": ((70, 9), (1,), (Ellipsis, slice(None, None, -1))),
    "columns": ((130, 70), (0,), None),
    "strips": ((3, 2, 700), (0, 1), None),
    "columns in parts": ((9001, 33), (0,), None),
    "few columns": ((500, 3), (0,), None),
    "few columns of a crop": ((31, 20, 3), (0, 1), (slice(None), slice(2, 17))),
    "two of four columns": ((41, 9, 4), (0, 1), (Ellipsis, slice(1, 3))),
    "channels": ((5, 4, 6, 7), (0, 2, 3), None),
    "the middle": ((6, 50, 40), (1,), None),
    "every other": ((400, 6), (0,), (slice(None, None, 2), slice(None, None, -2))),
    "backwards": ((300,), (0,), (slice(None, None, -1),)),
    "nothing reduced": ((4, 5), (), None),
    "one value": ((), (), None),
    "runs": ((7, 2, 150), (0, 2), None),
    "runs of a crop": ((7, 3, 160), (0, 2), (Ellipsis, slice(1, 151))),
    "long runs": ((2, 2, 9000), (0, 2), None),
    "many runs": ((90, 2, 130), (0, 2), None),
}


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_every_dtype_and_layout(dtype):
    for number, (shape, axes, crop) in enumerate(LAYOUTS.values()):
        x = np.asarray(sample(dtype, shape, number % 3))
        x = x if crop is None else x[crop]
        found = moments(x, axes)
        assert found.axis == axes
        every = slices(x, axes)
        for index, values in every[:: max(1, len(every) // 5)]:
            assert_exact(found, values, index)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("engine", engines.COMPILED_FIRST, indirect=True)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda dtype: np.dtype(dtype).name)
@hypothesis.given(st.data())
@hypothesis.settings(max_examples=30)
def test_any_values(dtype, data):
    """Within 2^90 of each other, so that what cancels is still in a pair of float64; the deviation can be any."""
    width = 16 if dtype in (np.float16, ml_dtypes.bfloat16) else 8 * np.dtype(dtype).itemsize
    limit = {16: 6e4, 32: 2.0**60, 64: 2.0**60}[width]
    elements = st.floats(-limit, limit, width=width, allow_subnormal=False).map(
        lambda v: 0.0 if abs(v) < 2.0**-14 else v
    )
    shape = data.draw(hnp.array_shapes(max_dims=3, max_side=12))
    x = data.draw(hnp.arrays(np.float64, shape, elements=elements)).astype(dtype)
    axes = tuple(sorted(data.draw(st.sets(st.integers(0, x.ndim - 1)))))
    found = moments(x, axes)
    for index, values in slices(x, axes):
        assert_exact(found, values, index)


@pytest.mark.usefixtures("engine")
def test_traps():
    """What NumPy's float32, a sum without a shift, or squares in half precision get wrong."""
    ones = np.ones((2**20 + 3, 2), np.float32)
    assert moments(ones, 0).mean.tolist() == [1, 1]
    assert moments(ones, 0).var().tolist() == [0, 0]
    assert_exact(moments(1e8 + np.arange(3.0)), 1e8 + np.arange(3.0))
    assert_exact(moments(np.full(100, 1000, np.float16)), np.full(100, 1000, np.float16))
    for values in (
        np.tile([1.0, -1.0], 3000) + 1e-9,
        np.float32(1e30) * rng.standard_normal(99).astype(np.float32),
        np.sort(np.exp(5 * rng.standard_normal(5000))),
        np.array([2**63 - 1, 2**63 - 3], np.uint64),
        np.append(rng.standard_normal(5000) * 1e-6, 1e9).astype(np.float32),
        np.append(np.zeros(9000), [1e3, 1e3 + 1]).astype(np.float32) + np.float32(1e6),
        np.float32([2.0**60, 1, -(2.0**60)]),
        np.tile(np.float32([2.0**60, 1, -(2.0**60)]), 1000),  # of which a lane that adds quickly keeps nothing
    ):
        assert_exact(moments(values), values)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.int32, np.float32], ids=lambda dtype: np.dtype(dtype).name)
def test_sorted_values_whose_first_are_far_from_the_mean(dtype):
    for n in (600, 3090, 6179, 20_000):
        x = np.sort(1000 * rng.standard_normal(n)).astype(dtype)
        assert_exact(moments(x), x)
        assert_exact(moments(np.stack([x, x[::-1]] * 20, 1), 0), x, (0,))


@pytest.mark.slow
@pytest.mark.usefixtures("engine")
def test_values_at_the_end_of_float64():
    found = moments(np.full(1000, 1.5e308))
    assert (found.mean, found.var(), found.max) == (1.5e308, 0, 1.5e308)
    assert moments(np.array([1e308, -1e308, 1e308])).mean == pytest.approx(1e308 / 3)
    both_ways = [1.7e308, -1.7e308]  # so sums of lanes, or of parts, overflow
    for lanes in (np.tile(both_ways, 64), np.repeat(both_ways, 10**6)):
        lanes[0] = 1e-300
        found = moments(lanes)
        assert found.mean == pytest.approx(-1.7e308 / len(lanes))
        assert (found.min, found.max) == (-1.7e308, 1.7e308)
        lanes[5] = np.nan
        assert np.isnan([moments(lanes).mean, moments(lanes).min, moments(lanes).max]).all()
    small = np.array([3e-300, 1e-300, 2e-300])
    both = moments(np.stack([small, np.full(3, 1.7e308)]), 1)
    assert_exact(Moments(both._record[:, 0], 3, None), small)
    assert moments(np.array([1.7e308] * 3 + [1e-300])).min == 1e-300


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda dtype: np.dtype(dtype).name)
def test_not_finite(dtype):
    x = rng.standard_normal((40, 33)).astype(dtype)
    x[3, 4], x[5, 6], x[7, 6], x[9, 8] = np.nan, np.inf, -np.inf, np.inf
    for array, axis in ((x, 0), (np.ascontiguousarray(x.T), 1)):
        found = moments(array, axis)
        assert np.flatnonzero(np.isnan(found.mean)).tolist() == [4, 6]
        assert np.flatnonzero(np.isnan(found.var())).tolist() == [4, 6, 8]
        assert np.flatnonzero(np.isnan(found.min)).tolist() == [4]
        assert (found.mean[8], found.min[6], found.max[6]) == (np.inf, -np.inf, np.inf)
        finite = moments(np.where(np.isfinite(array), array, array.dtype.type(0)), axis)
        others = np.delete(np.stack([found._record, finite._record]), [4, 6, 8], -1)
        np.testing.assert_array_equal(others[0], others[1])
        omitted = moments(array, axis, nan="omit")
        assert omitted.count.tolist() == [40] * 4 + [39] + [40] * 28
        assert_exact(omitted, np.delete(x[:, 4], 3), (4,))


@pytest.mark.usefixtures("engine")
@pytest.mark.filterwarnings("ignore:.*empty slice")
@pytest.mark.parametrize("shape", [(50, 20), (1, 20), (50, 1)])
@pytest.mark.parametrize("axis", [0, 1, (0, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int64], ids=lambda dtype: np.dtype(dtype).name)
def test_where(shape, axis, dtype):
    x, where = sample(dtype, (50, 20), 0), rng.random(shape) < 0.5
    where[0] = True
    axes = (axis,) if isinstance(axis, int) else axis
    found = moments(x, axis, where=where)
    for (index, values), (_, chosen) in zip(
        slices(x, axes), slices(np.broadcast_to(where, x.shape), axes), strict=True
    ):
        if chosen.any():
            assert_exact(found, values[chosen], index)


@pytest.mark.usefixtures("engine")
def test_integers_of_64_bits_that_cancel():
    """Their mean is a millionth of them, as seen from any of them it is not."""
    x = np.random.default_rng(0).integers(-(2**62), 2**62, (300, 3, 20))
    x[:, 1] = -x[:, 0]
    x[:, 2, 1:] = 0
    x[:, 2, 0] = np.arange(300) * 2**40
    found = moments(x, (1, 2))
    for index in np.ndindex(300):
        assert_exact(found, x[index].ravel(), index)


@pytest.mark.usefixtures("engine")
def test_lengths():
    x = rng.standard_normal((4, 9, 3)).astype(np.float32)
    lengths = [9, 0, 4, 1]
    valid = np.concatenate([entry[:length] for entry, length in zip(x, lengths, strict=True)])
    assert moments(x, (0, 1), lengths=lengths) == moments(
        x, (0, 1), where=np.arange(9)[:, None] < np.reshape(lengths, (4, 1, 1))
    )
    for channel in range(3):
        assert_exact(moments(x, (0, 1), lengths=lengths), valid[:, channel], (channel,))
    with pytest.warns(RuntimeWarning, match="empty slice"):
        found = moments(np.moveaxis(x, 1, 2), 2, lengths=lengths, length_axis=2)
    assert found.count[:, 0].tolist() == lengths
    assert np.isnan(found.mean[1]).all()


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_nothing(shape):
    x = np.zeros(shape)
    with pytest.warns(RuntimeWarning, match="empty slice"):
        found = moments(x, 0) if shape[0] == 0 else moments(x)
    assert found.count == 0
    for value in (found.mean, found.var(), found.std(), found.m2, found.min, found.max):
        assert np.isnan(value).all()
    both = found + found
    assert both.count == 0
    assert np.isnan(both.mean).all()


def test_nothing_is_neutral():
    with pytest.warns(RuntimeWarning, match="empty slice"):
        nothing = moments(np.zeros((0, 2)), 0)
    some = moments(np.array([[0.1, np.inf], [0.7, 2.0]]), 0)
    assert nothing + some == some
    assert some + nothing == some


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("shape", [(300_000,), (70_000, 3), (2, 90_000), (40, 9000), (90_000, 7), (50, 40, 60)])
def test_bits_at_any_number_of_threads(shape):
    x = rng.standard_normal(shape).astype(np.float32)
    for axis in (None, 0, x.ndim - 1):
        found = []
        for threads in (1, 2, 3):
            with cpunorm.num_threads(threads):
                found.append(moments(x, axis))
        assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("offset", [0, 1e8])
def test_merge_in_any_order(offset):
    """In one tree the same bits; in any, within 2 units in the last place."""
    x = offset + rng.lognormal(0, 2, 3000)
    _, mean, var = exact(x)
    cuts = [0, 1, 2, 700, 701, 1500, 2999, 3000]
    parts = [moments(x[a:b]) for a, b in itertools.pairwise(cuts)]
    tree = Moments.merge(parts)
    assert tree == Moments.merge(iter(parts))
    chain = parts[0]
    for part in parts[1:]:
        chain = part + chain
    for found in (tree, chain, Moments.merge(parts[::-1])):
        assert found.count == 3000
        assert ulps(found.mean, mean, x.dtype) <= 2
        assert ulps(found.var(), var, x.dtype) <= 2
        assert (found.min, found.max) == (x.min(), x.max())


def test_a_long_stream_does_not_drift():
    x = 1e6 + rng.standard_normal((3000, 5, 2))
    running = moments(x[0], 0)
    for batch in x[1:]:
        running.update(batch)
    for channel in range(2):
        assert_exact(running, x[:, :, channel].ravel(), (channel,))


def test_update_fails_whole():
    running = moments(np.zeros((3, 2)), 0)
    before = pickle.loads(pickle.dumps(running))
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        running.update(np.zeros((3, 3)))
    assert running == before


def test_updates_at_once_all_count(monkeypatch):
    """Another update, as by another thread, in the middle of one."""
    found, merge = moments(np.ones((4, 3)), 0), _reduction.merge

    def interrupted(a, b):
        monkeypatch.setattr(_reduction, "merge", merge)
        found.update(np.zeros((2, 3)))
        return merge(a, b)

    monkeypatch.setattr(_reduction, "merge", interrupted)
    found.update(np.ones((3, 3)))
    assert found.count == 9
    assert (found.mean == 7 / 9).all()


def test_shown_dtype():
    x = np.array([1, 2], np.float32)
    assert moments(x).mean.dtype == np.float64
    for dtype in (np.float32, "float32"):
        found = moments(x, dtype=dtype)
        assert found.dtype == found.mean.dtype == found.std().dtype == found.max.dtype == np.float32
    assert (moments(x, dtype=np.float32) + moments(x)).dtype == np.float64


def test_repr():
    text = repr(moments(np.arange(6).reshape(2, 3), 0))
    assert text == "Moments(count=2, mean=[1.5 2.5 3.5], std=[1.5 1.5 1.5], min=[0. 1. 2.], max=[3. 4. 5.], axis=(0,))"
    assert len(repr(moments(np.zeros((2, 3000)), 0))) < 200


@pytest.mark.parametrize("where", [None, np.array([[True], [False]])])
@pytest.mark.parametrize("axis", [None, 0, (0, 1)])
def test_kept(tmp_path, axis, where):
    found = moments(rng.standard_normal((2, 3)), axis, where=where, dtype=np.float32)
    found.save(tmp_path / "m.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["m.npz"]
    for twin in (Moments.load(tmp_path / "m.npz"), pickle.loads(pickle.dumps(found))):
        assert twin == found
        assert repr(twin) == repr(found)


def test_a_failed_save_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "m.npz"
    moments(np.zeros(2)).save(path)
    before = path.read_bytes()

    def no_room(file, **arrays):
        file.write(b"half")
        raise OSError("no room")

    monkeypatch.setattr(np, "savez", no_room)
    with pytest.raises(OSError, match="no room"):
        moments(np.ones(3)).save(path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def archive(**entries):
    """A .npz file of arrays, or of bytes instead of one."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name, value in entries.items():
            content = io.BytesIO()
            if isinstance(value, bytes):
                content.write(value)
            else:
                np.lib.format.write_array(content, np.asarray(value), allow_pickle=True)
            made.writestr(f"{name}.npy", content.getvalue())
    return file.getvalue()


def header(shape):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue()


TRUE_SHAPE = b"{'descr': '<i8', 'fortran_order': False, 'shape': (True,)}\n"
GOOD = {"record": np.zeros((7, 2)), "same_count": np.int64(0), "axis": np.array([0]), "dtype": np.array("float64")}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive",
        archive(**GOOD)[:-40],
        archive(record=np.zeros((7, 2))),
        archive(**GOOD | {"record": np.zeros((6, 2))}),
        archive(**GOOD | {"record": np.zeros((7, 2), np.float32)}),
        archive(**GOOD | {"record": np.array([print], object)}),
        archive(**GOOD | {"record": header((7, 10**12))}),
        archive(**GOOD | {"record": header((7, -1))}),
        archive(**GOOD | {"record": b"\x93NUMPY\x01\x00" + (9000).to_bytes(2, "little") + b"-" * 9000}),
        archive(**GOOD | {"record": b"\x93NUMPY\x01\x00" + (8).to_bytes(2, "little") + b"{[]: 0}\n"}),
        archive(**GOOD | {"record": b"\x93NUMPY\x01\x00" + (4).to_bytes(2, "little") + b"({L\n"}),
        archive(**GOOD | {"record": b"\x93NUMPY\x01\x00" + (8).to_bytes(2, "little") + b" {1\n  2\n"}),
        archive(**GOOD)[:-6] + b"\xff\xff\xff\x7f\0\0",  # a directory that begins elsewhere
        archive(**GOOD | {"axis": b"\x93NUMPY\x01\x00" + bytes([len(TRUE_SHAPE), 0]) + TRUE_SHAPE + bytes(8)}),
        archive(**GOOD | {"dtype": np.frombuffer(b"\xff" * 28, "<U7").reshape(())}),
        archive(**GOOD | {"record": np.full((7, 2), np.nan)}),
        archive(**GOOD | {"same_count": np.int64(3)}),
        archive(**GOOD | {"same_count": np.int64(-9)}),
        archive(**GOOD | {"same_count": np.int64(-1), "record": np.full((7, 2), 0.5)}),
        archive(**GOOD | {"axis": np.array([0.5])}),
        archive(**GOOD | {"axis": np.array(0)}),
        archive(**GOOD | {"axis": np.array([[0]])}),
        archive(**GOOD | {"axis": np.array([-1])}),
        archive(**GOOD | {"axis": np.array([1, 1])}),
        archive(**GOOD | {"axis": np.array("none")}),
        archive(**GOOD | {"dtype": np.array("object")}),
        archive(**GOOD | {"same_count": np.array([1, 2])}),
    ],
)
def test_hostile_files(tmp_path, content):
    path = tmp_path / "m.npz"
    path.write_bytes(archive(**GOOD))
    assert Moments.load(path).shape == (2,)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="holds no moments"):
        Moments.load(path)


def test_records_of_other_memory(tmp_path):
    x = rng.standard_normal((5, 3, 2))
    found = moments(x, 0)
    record, expected = found._record, cpunorm.standardize(x, 0)
    (tmp_path / "m.npz").write_bytes(archive(**GOOD | {"record": np.asfortranarray(record), "same_count": np.int64(5)}))
    padded = np.stack([record, record], -1)[..., 0]
    for other in (Moments.load(tmp_path / "m.npz"), *(Moments(r, 5, (0,)) for r in (padded, record.astype(">f8")))):
        np.testing.assert_array_equal(cpunorm.standardize(x, 0, moments=other), expected)
    with pytest.raises(ValueError, match=r"7 fields, got shape \(6, 3\)"):
        Moments(np.zeros((6, 3)), 5, (0,))
    singles = Moments(record.astype(np.float32), 5, (0,))
    np.testing.assert_allclose(cpunorm.standardize(x, 0, moments=singles), expected, rtol=1e-4)


def test_saves_at_once_do_not_mix(tmp_path, monkeypatch):
    """Another save to the same path, in the middle of one."""
    path, savez = tmp_path / "m.npz", np.savez
    one, other = moments(np.ones((4, 3)), 0), moments(np.zeros((2, 500)), 0)

    def interrupted(file, **arrays):
        monkeypatch.setattr(np, "savez", savez)
        file.write(b"half")
        other.save(path)
        file.seek(0)
        savez(file, **arrays)

    monkeypatch.setattr(np, "savez", interrupted)
    one.save(path)
    assert Moments.load(path) == one
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.usefixtures("engine")
def test_numpys_error_state_is_not_looked_at():
    x = np.array([1.7e308, 1.7e308, 1e308, -1e-300, 1e-300])
    with np.errstate(all="raise"):
        found = moments(x)
        assert found.min == -1e-300
        small = moments(np.array([1e-5, -1e-5]), dtype=np.float16)
        assert small.m2 == 0
        assert moments(np.array([1e300]), dtype=np.float32).mean == np.inf
    assert moments(x) == found


def test_a_compressed_file_is_not_unpacked(tmp_path):
    np.savez_compressed(tmp_path / "m.npz", **GOOD | {"record": np.zeros((7, 10**6))})
    with pytest.raises(ValueError, match="compressed"):
        Moments.load(tmp_path / "m.npz")


def test_batch_norm_of_a_data_set():
    x = rng.standard_normal((50, 3, 4, 4)) * 5 + 2
    found = moments(x, (0, 2, 3))
    norm = found.to_batch_norm(eps=1e-9)
    assert type(norm) is cpunorm.BatchNorm2d
    assert not norm.training
    y = norm(x)
    np.testing.assert_allclose(y.mean((0, 2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(y.var((0, 2, 3), ddof=1), 1, rtol=1e-8)
    last = moments(np.moveaxis(x, 1, -1), (0, 1, 2)).to_batch_norm(eps=1e-9)
    np.testing.assert_allclose(np.moveaxis(last(np.moveaxis(x, 1, -1)), -1, 1), y)
    norm = cpunorm.BatchNorm2d(3)
    mean = norm.running_mean
    norm.set_statistics(found)
    assert norm.running_mean is mean
    np.testing.assert_allclose(mean, found.mean, rtol=1e-7)
    np.testing.assert_allclose(norm.running_var, found.var(ddof=1), rtol=1e-6)
    assert norm.num_batches_tracked == 1


def test_statistics_that_no_batch_norm_takes():
    norm, x = cpunorm.BatchNorm1d(3), np.ones((4, 3))
    before = norm.state_dict()
    with pytest.warns(RuntimeWarning, match="empty slice"):
        holes = moments(x, 0, where=np.array([True, True, False]))
    for error, given, message in (
        (TypeError, (1, 2), "takes Moments, got tuple"),
        (ValueError, moments(x), r"shape \(3,\), got \(\)"),
        (ValueError, holes, "without values"),
    ):
        with pytest.raises(error, match=message):
            norm.set_statistics(given)
    for name, value in norm.state_dict().items():
        assert np.array_equal(value, before[name])
    with pytest.raises(RuntimeError, match="track_running_stats=False"):
        cpunorm.BatchNorm1d(3, track_running_stats=False).set_statistics(moments(x, 0))
    for found in (moments(x), moments(x, 1), moments(np.ones((2, 3, 4)), 0)):
        with pytest.raises(ValueError, match="moments of channels"):
            found.to_batch_norm()


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TypeError, "must be a numpy.ndarray, got builtins.list", lambda: moments([1.0, 2.0])),
        (TypeError, "complex128", lambda: moments(np.zeros(3, complex))),
        (TypeError, "object", lambda: moments(np.array([1, None]))),
        (TypeError, "datetime64", lambda: moments(np.array(["2020-01-01"], "M8[D]"))),
        (TypeError, "masked array", lambda: moments(np.ma.masked_array([1.0]))),
        (np.exceptions.AxisError, "axis 2 is out of range for 2 dimensions", lambda: moments(np.zeros((2, 2)), 2)),
        (np.exceptions.AxisError, "axis -3 is out of range", lambda: moments(np.zeros((2, 2)), (0, -3))),
        (ValueError, r"axis 1 is named twice: \(1, -1\)", lambda: moments(np.zeros((2, 2)), (1, -1))),
        (TypeError, "axis must be an int, got 1.0", lambda: moments(np.zeros((2, 2)), 1.0)),
        (TypeError, "where must be a bool array, got int64", lambda: moments(np.zeros(2), where=np.array([1, 0]))),
        (TypeError, "where must be a bool array, got .*list", lambda: moments(np.zeros(2), where=[True, False])),
        (TypeError, "where .*masked array", lambda: moments(np.zeros(2), where=np.ma.ones(2, bool))),
        (TypeError, "lengths .*masked", lambda: moments(np.zeros((2, 3)), lengths=np.ma.array([1, 2], mask=[1, 0]))),
        (ValueError, r"where of shape \(3,\) does not broadcast", lambda: moments(np.zeros(2), where=np.ones(3, bool))),
        (ValueError, "from 0 to 3, got 4", lambda: moments(np.zeros((2, 3)), lengths=[1, 4])),
        (ValueError, "from 0 to 3, got -1", lambda: moments(np.zeros((2, 3)), lengths=[1, -1])),
        (ValueError, "expected 2 lengths", lambda: moments(np.zeros((2, 3)), lengths=[1])),
        (TypeError, "lengths must be ints, got float64", lambda: moments(np.zeros((2, 3)), lengths=[1.0, 2.0])),
        (ValueError, "other than 0, got 0", lambda: moments(np.zeros((2, 3)), lengths=[1, 2], length_axis=0)),
        (ValueError, "other than 0, got 1", lambda: moments(np.zeros(2), lengths=[1, 2])),
        (ValueError, "one of .*'omit'.*, got 'drop'", lambda: moments(np.zeros(2), nan="drop")),
        (ValueError, "got 'int8'", lambda: moments(np.zeros(2), dtype="int8")),
        (ValueError, "lengths are of one array", lambda: moments(iter([np.zeros((2, 3))]), lengths=[1, 2])),
        (ValueError, "there are no parts", lambda: moments(iter([]))),
        (TypeError, "must be a numpy.ndarray, got builtins.float", lambda: moments(iter([1.0]))),
        (ValueError, r"\(2,\) and \(3,\)", lambda: moments((np.zeros((2, n)) for n in (2, 3)), 0)),
        (TypeError, "progress must be a bool, got 1", lambda: moments(np.zeros(2), progress=1)),
        (ValueError, "there are no parts", lambda: Moments.merge([])),
        (TypeError, "merge with Moments, got builtins.int", lambda: Moments.merge([moments(np.zeros(2)), 1])),
        (ValueError, r"\(2,\) and \(3,\)", lambda: moments(np.zeros((2, 2)), 0) + moments(np.zeros((2, 3)), 0)),
    ],
)
def test_bad_input(error, message, call):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.usefixtures("engine")
def test_odd_arrays():
    x = rng.standard_normal((6, 5))
    expected = moments(x, 0)
    assert moments(x.astype(">f8"), 0) == expected
    odd = np.frombuffer(b"x" + x.tobytes(), np.uint8)[1:].view(np.float64).reshape(x.shape)
    assert not odd.flags.aligned
    assert moments(odd, 0) == expected
    x.flags.writeable = False
    assert moments(x, 0) == expected
    assert_exact(moments(np.broadcast_to(x[0], (7, 5))), np.tile(x[0], 7))


def test_memory_map(tmp_path):
    x = rng.standard_normal((100, 3)).astype(np.float32)
    x.tofile(tmp_path / "x")
    assert moments(np.memmap(tmp_path / "x", np.float32, "r", shape=x.shape), 0) == moments(x, 0)


@pytest.mark.usefixtures("engine")
def test_iterators():
    """One after the other is read and let go; the bits are those of `merge`."""
    parts = [1e6 + rng.standard_normal((n, 3)) for n in (1, 5, 700, 2, 1, 64, 3)]
    for count in range(1, len(parts) + 1):
        found = moments(iter(parts[:count]), 0)
        level = [moments(part, 0) for part in parts[:count]]
        while len(level) > 1:
            level = [level[i] + level[i + 1] if i + 1 < len(level) else level[i] for i in range(0, len(level), 2)]
        assert found == level[0] == Moments.merge(moments(part, 0) for part in parts[:count])
    with pytest.warns(RuntimeWarning, match="empty slice"):
        found = moments((part for part in parts), 0, dtype=np.float32, where=np.array([True, False, True]))
    assert (found.dtype, found.axis) == (np.float32, (0,))
    assert found.count.tolist() == [776, 0, 776]
    assert moments(iter(parts)).var() == pytest.approx(np.concatenate(parts).var(), rel=1e-12)
    some = moments(parts[0], 0)
    some.update(iter(parts[1:]))
    assert some.count == 776
    alive = []

    def arrays():
        for _ in range(50):
            assert sum(ref() is not None for ref in alive) <= 1
            x = np.ones(10)
            alive.append(weakref.ref(x))
            yield x
            del x

    assert moments(arrays()).count == 500


def test_only_an_iterator_of_nothing_is_nothing():
    assert moments(iter([np.zeros(0), np.ones(3), np.zeros(0)])).count == 3  # no warning
    with pytest.warns(RuntimeWarning, match="empty slice"):
        assert moments(iter([np.zeros(0)])).count == 0


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("axis", [None, 0, 1, 2, (0, 2), (1, 2), ()])
def test_pieces_of_a_large_array(axis, order, monkeypatch, tmp_path):
    pytest.importorskip("rich")
    monkeypatch.setattr(_statistics, "PIECE", 2000)
    seen = []
    monkeypatch.setattr(_statistics, "track", lambda pieces: seen.extend(pieces) or pieces)
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=(40, 30, 7), order=order)
    x[...] = 1e4 + rng.standard_normal(x.shape)
    x[3, 4, 5] = np.nan
    where = rng.random((30, 1)) < 0.9
    for options in ({"nan": "omit"}, {"where": where}, {"lengths": rng.integers(3, 31, 40), "nan": "omit"}):
        seen.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of empty slices
            expected, found = moments(x, axis, **options), moments(x, axis, progress=True, **options)
        assert len(seen) == {"C": 20, "F": 7}[order]
        assert found.axis == expected.axis
        np.testing.assert_array_equal(found.count, expected.count)
        np.testing.assert_array_equal((found.min, found.max), (expected.min, expected.max))
        np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-15)
        np.testing.assert_allclose(found.var(), expected.var(), rtol=1e-13, atol=1e-25)
    for small in (np.zeros(()), np.ones((0, 3)), np.ones(5)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert moments(small, progress=True) == moments(small)


def test_a_bar_is_shown_on_a_terminal_alone(monkeypatch, capsys):
    pytest.importorskip("rich")
    arrays = [np.ones(3)] * 4
    assert moments(iter(arrays), progress=True).count == 12
    assert capsys.readouterr() == ("", "")
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "90"}.items():
        monkeypatch.setenv(name, value)
    assert moments((x for x in arrays), progress=True).count == 12  # nobody knows how many there will be
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.search(r"reading.*4/\?", shown.err)
    moments(iter(arrays), progress=True)
    assert re.search(r"reading.*4/4", capsys.readouterr().err)


@pytest.mark.parametrize("x", [np.ones(3), iter([np.ones(3)])], ids=["array", "iterator"])
def test_a_bar_needs_rich_which_nothing_else_does(x, monkeypatch):
    for name in ("rich", "rich.console", "rich.progress"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=r'a progress bar needs rich.*pip install "cpunorm\[stats\]"'):
        moments(x, progress=True)
    assert moments(x).count == 3  # of the iterator nothing had been taken


def test_a_bar_is_gone_after_an_error(monkeypatch, capsys):
    pytest.importorskip("rich")
    monkeypatch.setenv("FORCE_COLOR", "1")
    before = set(threading.enumerate())
    with pytest.raises(ZeroDivisionError):
        moments((np.ones(3 // n) for n in (1, 0)), progress=True)
    assert capsys.readouterr().err.endswith("\x1b[2K")  # its line erased
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


def test_no_more_memory_than_x():
    """Nothing as large as x is made on the way."""
    x = np.zeros((300_000, 4), np.float32)
    tracemalloc.start()
    for axis in (None, 0):
        moments(x, axis)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.nbytes / 50
