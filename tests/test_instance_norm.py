"""`instance_norm` and the InstanceNorm modules: torch's rules; the numbers are those of the table in norms.py."""

import warnings

import numpy as np
import oracle
import pytest
from arrays import memory, ramp
from norms import affine, values
from strided import LAYOUTS

import cpunorm
from cpunorm.functional import group_norm, instance_norm

CLASSES = {"InstanceNorm1d": (4, 3, 5), "InstanceNorm2d": (4, 3, 2, 5), "InstanceNorm3d": (4, 3, 2, 2, 5)}


@pytest.mark.parametrize("momentum", [0.1, 1.0, np.float32(0.5), 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_running_statistics_are_the_mean_of_the_samples(engine, dtype, momentum):
    x = np.random.default_rng(0).normal(100, 3, (5, 7, 11, 3)).astype(dtype)
    mean, var = np.zeros(7, dtype), np.ones(7, dtype)
    instance_norm(x, mean, var, momentum=momentum)
    z = x.astype(np.longdouble)
    rate = float(momentum)
    expected_mean = rate * z.mean(axis=(2, 3)).mean(axis=0)
    expected_var = (1 - rate) + rate * z.var(axis=(2, 3), ddof=1).mean(axis=0)
    unit = np.finfo(dtype).eps
    np.testing.assert_allclose(mean, expected_mean.astype(np.float64), rtol=4 * unit)
    np.testing.assert_allclose(var, expected_var.astype(np.float64), rtol=32 * unit)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_bits_of_group_norm_with_a_group_for_each_channel(engine, layout, dtype):
    """So whatever the tests of group_norm show of layouts, bits and accuracy holds here."""
    weight, bias = affine(6, dtype)
    for shape in ((3, 6, 50), (2, 6, 7, 5), (5, 6, 2, 2), (2, 6, 40, 90), (1, 6, 3, 4, 5)):
        x = LAYOUTS[layout](values(shape, dtype))
        np.testing.assert_array_equal(instance_norm(x, None, None, weight, bias), group_norm(x, 6, weight, bias))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_small_samples_of_few_channels(engine, layout):
    """Channels inside positions: the Numba engine sees each channel of each sample as a short domain."""
    for channels, positions in ((2, 2), (3, 4), (3, 20), (2, 21), (4, 5)):
        weight, bias = affine(channels, np.float32)
        for samples in (1, 2, 37):
            x = LAYOUTS[layout](values((samples, positions, channels), np.float32))
            expected = oracle.group_norm(np.moveaxis(x, -1, 1), channels, weight, bias)
            y = instance_norm(x, None, None, weight, bias, data_format="channels_last")
            allowed = oracle.bound(expected, np.float32, weight=1.5, bias=1.0)
            assert (np.abs(np.moveaxis(y, -1, 1) - expected) <= allowed).all()


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_given_statistics(engine, data_format):
    x = np.random.default_rng(1).normal(5, 2, (3, 6, 9)).astype(np.float32)
    mean, var = np.linspace(4, 6, 6, dtype=np.float32), np.linspace(1, 5, 6, dtype=np.float32)
    expected = oracle.batch_norm(x, running=(mean, var))
    given = x if data_format == "channels_first" else np.ascontiguousarray(np.moveaxis(x, 1, -1))
    y = instance_norm(given, mean, var, use_input_stats=False, data_format=data_format)
    y = y if data_format == "channels_first" else np.moveaxis(y, -1, 1)
    assert (np.abs(y - expected) <= oracle.bound(expected, np.float32)).all()


BAD = {
    "no positions": ((ramp((2, 3)),), {}, ValueError, r"\(2, 3\)"),
    "one position": ((ramp((2, 3, 1)),), {}, ValueError, r"\(2, 3, 1\)"),
    "one axis": ((ramp((3,)), ramp((3,)), ramp((3,))), {"use_input_stats": False}, RuntimeError, r"\(3,\)"),
    "statistics missing": ((ramp((2, 3, 4)),), {"use_input_stats": False}, RuntimeError, "running_mean"),
    "one statistic": ((ramp((2, 3, 4)), ramp((3,))), {}, ValueError, "both"),
    "one given statistic": (
        (ramp((2, 3, 4)), ramp((3,))),
        {"use_input_stats": False},
        RuntimeError,
        "running_var",
    ),
    "statistics of another size": ((ramp((2, 3, 4)), ramp((4,)), ramp((4,))), {}, RuntimeError, "3 elements.*got 4"),
    "weight of another size": ((ramp((2, 3, 4)),), {"weight": ramp((4,))}, RuntimeError, "3 elements.*got 4"),
    "mixed dtypes": ((ramp((2, 3, 4), np.float64),), {"weight": ramp((3,))}, RuntimeError, "mixed dtypes"),
    "integers": ((np.ones((2, 3, 4), int),), {}, NotImplementedError, "int64"),
    "eps": ((ramp((2, 3, 4)),), {"eps": -1.0}, ValueError, "-1.0"),
    "momentum": ((ramp((2, 3, 4)),), {"momentum": np.nan}, ValueError, "momentum"),
    "use_input_stats": ((ramp((2, 3, 4)),), {"use_input_stats": 1}, TypeError, "use_input_stats"),
    "data_format": ((ramp((2, 3, 4)),), {"data_format": "NHWC"}, ValueError, "NHWC"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(engine, name):
    arguments, named, error, words = BAD[name]
    before = memory(dict(enumerate(arguments)) | named)
    with pytest.raises(error, match=words):
        instance_norm(*arguments, **named)
    assert memory(dict(enumerate(arguments)) | named) == before


@pytest.mark.parametrize("name", CLASSES)
def test_modules_as_torch(engine, name):
    torch = pytest.importorskip("torch")
    shape = CLASSES[name]
    for options in ({}, {"affine": True}, {"affine": True, "track_running_stats": True}, {"track_running_stats": True}):
        ours, theirs = getattr(cpunorm, name)(3, **options), getattr(torch.nn, name)(3, **options)
        assert repr(ours) == repr(theirs)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        for training in (True, True, False):
            x = np.random.default_rng(0).normal(3, 2, shape).astype(np.float32)
            for input in (x, x[0]):
                expected = theirs.train(training)(torch.from_numpy(input)).detach().numpy()
                np.testing.assert_allclose(ours.train(training)(input), expected, rtol=1e-5, atol=1e-5)
        for key, value in theirs.state_dict().items():
            np.testing.assert_allclose(ours.state_dict()[key], value.numpy(), rtol=1e-5, atol=1e-6)


def test_momentum_none_moves_nothing(engine):
    norm = cpunorm.InstanceNorm1d(3, momentum=None, track_running_stats=True)
    norm(ramp((2, 3, 4)))
    assert norm.num_batches_tracked == 0
    np.testing.assert_array_equal(norm.running_mean, 0)


def test_another_number_of_channels(engine):
    x = ramp((2, 3, 4))
    with pytest.warns(UserWarning, match="expected 5 channels"):
        y = cpunorm.InstanceNorm1d(5)(x)
    assert y.shape == x.shape
    with pytest.raises(ValueError, match="expected 5 channels"):
        cpunorm.InstanceNorm1d(5, affine=True)(x)


@pytest.mark.parametrize("name", CLASSES)
def test_rank(engine, name):
    with pytest.raises(ValueError, match="expects"):
        getattr(cpunorm, name)(3)(ramp((3, 3, 3, 3, 3, 3)))


def test_one_sample_into_out(engine):
    x = ramp((3, 2, 2))
    out, expected = np.empty_like(x), cpunorm.InstanceNorm2d(3)(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cpunorm.InstanceNorm2d(3)(x, out=out) is out
    np.testing.assert_array_equal(out, expected)
