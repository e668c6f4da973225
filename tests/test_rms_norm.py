"""`rms_norm` and RMSNorm: torch's rules, the unit offset, extremes; norms.py has them for what all norms share."""

import numpy as np
import oracle
import pytest
from arrays import memory, ramp

import cpunorm
from cpunorm.functional import rms_norm


@pytest.mark.parametrize("width", [1, 2, 7, 16, 17, 64, 100, 768, 2048, 5000, 70001])
def test_within_the_bound(engine, width):
    for scale in (1e-30, 1e-3, 1.0, 1e18):
        x = (np.random.default_rng(width).standard_normal((3, width)) * scale).astype(np.float32)
        expected = oracle.rms_norm(x, (width,), eps=0)
        y = rms_norm(x, width, eps=0.0)
        assert (np.abs(y - expected) <= 2e-6 * np.maximum(1, np.abs(expected))).all()


@pytest.mark.parametrize("value", [0.0, 1e-37, 3e38, 1.0])
def test_equal_values(engine, value):
    x = np.full((5, 33), value, np.float32)
    np.testing.assert_allclose(rms_norm(x, 33, eps=0.0 if value else None), 1 if value else 0, rtol=3e-7)


def test_eps_is_the_epsilon_of_the_type(engine):
    for dtype, computed in ((np.float32, np.float32), (np.float64, np.float64), (np.float16, np.float32)):
        x = np.full((1, 4), 1e-4, dtype)
        expected = x.astype(np.float64) / np.sqrt(np.square(x.astype(np.float64)).mean() + np.finfo(computed).eps)
        np.testing.assert_allclose(rms_norm(x, 4), expected, rtol=1e-3 if dtype == np.float16 else 1e-6)


def test_not_finite_spoils_its_row_alone(engine):
    x = ramp((4, 40)) + 1
    x[1, 3], x[2, 39] = np.nan, np.inf
    y = rms_norm(x, 40)
    assert np.isfinite(y[[0, 3]]).all()
    assert np.isnan(y[1]).all()
    assert np.isnan(y[2, 39])
    np.testing.assert_array_equal(y[2, :39], 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_as_torch(engine, dtype):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((5, 6, 32)).astype(dtype)
    weight = np.random.default_rng(1).standard_normal((6, 32)).astype(dtype)
    expected = torch.nn.functional.rms_norm(torch.from_numpy(x), (6, 32), torch.from_numpy(weight)).numpy()
    tolerance = 2e-3 if dtype == np.float16 else 1e-5
    np.testing.assert_allclose(rms_norm(x, (6, 32), weight), expected, rtol=tolerance, atol=tolerance)
    ours, theirs = (
        cpunorm.RMSNorm((6, 32), 1e-3, dtype=dtype),
        torch.nn.RMSNorm((6, 32), 1e-3).to(torch.from_numpy(x).dtype),
    )
    assert repr(ours) == repr(theirs)
    np.testing.assert_allclose(ours(x), theirs(torch.from_numpy(x)).detach().numpy(), rtol=tolerance, atol=tolerance)
    assert list(ours.state_dict()) == list(theirs.state_dict()) == ["weight"]


def test_unit_offset(engine):
    x, weight = ramp((3, 8)) - 7, np.linspace(-1, 1, 8, dtype=np.float32)
    np.testing.assert_array_equal(rms_norm(x, 8, weight, unit_offset=True), rms_norm(x, 8, 1 + weight))
    norm = cpunorm.RMSNorm(8, unit_offset=True)
    np.testing.assert_array_equal(norm(x), rms_norm(x, 8))
    norm.weight[:] = 1
    norm.reset_parameters()
    np.testing.assert_array_equal(norm.weight, 0)


BAD = {
    "too few axes": ((ramp((4,)), (3, 4)), {}, ValueError, r"\(4,\)"),
    "another width": ((ramp((2, 4)), (3,)), {}, RuntimeError, r"\(3,\)"),
    "no width": ((ramp((2, 4)), ()), {}, RuntimeError, r"\(\)"),
    "weight of another shape": ((ramp((2, 4)), 4, ramp((3,))), {}, RuntimeError, r"\(3,\)"),
    "mixed dtypes": ((ramp((2, 4)), 4, ramp((4,), np.float64)), {}, RuntimeError, "mixed dtypes"),
    "integers": ((np.ones((2, 4), int), 4), {}, NotImplementedError, "int64"),
    "eps": ((ramp((2, 4)), 4, None, -1.0), {}, ValueError, "-1.0"),
    "unit_offset without weight": ((ramp((2, 4)), 4), {"unit_offset": True}, RuntimeError, "unit_offset"),
    "unit_offset": ((ramp((2, 4)), 4, ramp((4,))), {"unit_offset": 1}, TypeError, "unit_offset"),
    "out overlaps weight": (
        (ramp((2, 4)), 4, ramp((4,))),
        {"out": ramp((2, 8))[:, ::2].astype(np.float64)},
        RuntimeError,
        "dtype",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(engine, name):
    arguments, named, error, words = BAD[name]
    before = memory(dict(enumerate(arguments)) | named)
    with pytest.raises(error, match=words):
        rms_norm(*arguments, **named)
    assert memory(dict(enumerate(arguments)) | named) == before
