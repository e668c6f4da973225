"""`cpunorm.functional` in jitted functions: the bits and the errors of a call from Python on the engine "numba"."""

import os

import fresh
import numpy as np
import pytest
from norms import affine, running, values

import cpunorm
from cpunorm import functional

numba = pytest.importorskip("numba")

from cpunorm._numba import overloads  # noqa: E402

overloads.register()


@pytest.fixture(autouse=True)
def _numba_engine():
    with cpunorm.engine("numba"):
        yield


@numba.njit
def batch_norm(x, mean, var, weight, bias, training, momentum, eps):
    return cpunorm.functional.batch_norm(x, mean, var, weight, bias, training, momentum, eps)


@numba.njit
def batch_norm_inference_last(x, mean, var):
    return cpunorm.functional.batch_norm(x, mean, var, data_format="channels_last")


@numba.njit
def group_norm(x, groups, weight, bias, eps):
    return functional.group_norm(x, groups, weight, bias, eps, data_format="channels_last")


@numba.njit
def layer_norm(x, shape, weight, bias, eps):
    return functional.layer_norm(x, shape, weight, bias, eps)


@numba.njit
def layer_norm_into(x, out):
    return functional.layer_norm(x, x.shape[1], out=out)


def refused(error, named, function, *arguments):
    """`function` refuses its arguments, and says which."""
    with pytest.raises(error) as caught:
        function(*arguments)
    assert named in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape", [(3, 6, 5, 7), (2, 6, 300, 100), (1, 1, 4, 90000), (1, 6, 1, 2), (7, 1, 2, 2), (70000, 6, 1, 1)]
)
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(shape, training):
    x, parameters = values(shape), affine(shape[1])
    ours, theirs = running(shape[1]), running(shape[1])
    y = batch_norm(x, *ours, *parameters, training, 0.3, 1e-4)
    np.testing.assert_array_equal(y, functional.batch_norm(x, *theirs, *parameters, training, 0.3, 1e-4))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_batch_norm_refuses():
    x, statistics, parameters = values((3, 6, 5, 7)), running(6), affine(6)
    refused(ValueError, "eps", batch_norm, x, *statistics, *parameters, True, 0.1, 0.0)
    refused(ValueError, "eps", batch_norm, x, *statistics, *parameters, False, 0.1, -1.0)
    refused(ValueError, "more than 1 value", batch_norm, x[:1, :, :1, :1], *statistics, *parameters, True, 0.1, 1e-5)
    refused(RuntimeError, "weight", batch_norm, x, *statistics, parameters[0][1:], parameters[1], True, 0.1, 1e-5)
    refused(RuntimeError, "running_var", batch_norm, x, statistics[0], statistics[1][1:], *parameters, True, 0.1, 1e-5)
    typing = numba.TypingError
    rest = (*parameters, True, 0.1, 1e-5)
    refused(typing, "input must be a float32", batch_norm, x.astype(np.int32), *statistics, *rest)
    refused(typing, "input must have at least 2", batch_norm, x.ravel(), *statistics, *rest)
    refused(typing, "running_mean must be", batch_norm, x, statistics[0].astype(np.float64), statistics[1], *rest)
    refused(typing, "both be given", batch_norm, x, None, statistics[1], *rest)
    refused(typing, "bias must be", batch_norm, x, *statistics, parameters[0], parameters[1][:, None], True, 0.1, 1e-5)
    refused(typing, "training must be", batch_norm, x, *statistics, *parameters, 1.0, 0.1, 1e-5)
    refused(typing, "momentum must be", batch_norm, x, *statistics, *parameters, True, None, 1e-5)


@pytest.mark.slow
def test_an_empty_batch_leaves_the_running_statistics_alone():
    statistics = running(6)
    y = batch_norm(np.empty((0, 6, 5, 7), np.float32), *statistics, *affine(6), True, 0.3, 1e-4)
    assert y.shape == (0, 6, 5, 7)
    np.testing.assert_array_equal(statistics, running(6))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(3, 5, 7, 6), (2, 200, 200, 3), (4, 1, 1, 1)])
def test_batch_norm_inference_in_channels_last(shape):
    x, statistics = values(shape), running(shape[-1])
    expected = functional.batch_norm(x, *statistics, data_format="channels_last")
    np.testing.assert_array_equal(batch_norm_inference_last(x, *statistics), expected)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(3, 5, 7, 6), (2, 100, 300, 6), (2, 1, 1, 6)])
def test_group_norm(shape):
    x, parameters = values(shape, np.float64), affine(shape[-1], np.float64)
    expected = functional.group_norm(x, 2, *parameters, 1e-3, data_format="channels_last")
    np.testing.assert_array_equal(group_norm(x, 2, *parameters, 1e-3), expected)


@pytest.mark.slow
def test_group_norm_refuses():
    x, parameters = values((3, 5, 7, 6), np.float64), affine(6, np.float64)
    refused(RuntimeError, "num_groups", group_norm, x, 4, *parameters, 1e-5)
    refused(RuntimeError, "num_groups", group_norm, x, 0, *parameters, 1e-5)
    refused(RuntimeError, "bias", group_norm, x, 2, parameters[0], parameters[1][1:], 1e-5)
    refused(ValueError, "more than 1 value", group_norm, x[:1, :1, :1], 6, *parameters, 1e-5)
    refused(numba.TypingError, "num_groups must be an int", group_norm, x, 2.0, *parameters, 1e-5)
    refused(
        numba.TypingError, "weight must be", group_norm, x, 2, parameters[0].astype(np.float32), parameters[1], 1e-5
    )

    @numba.njit
    def elsewhere(x):
        return functional.group_norm(x, 2, data_format="NHWC")

    refused(numba.TypingError, "data_format must be one of", elsewhere, x)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(40, 768), (2, 100_000), (3, 5)])
def test_layer_norm(shape):
    x, parameters = values(shape), affine(shape[1:])
    expected = functional.layer_norm(x, shape[1:], *parameters, 1e-4)
    np.testing.assert_array_equal(layer_norm(x, shape[1:], *parameters, 1e-4), expected)


@pytest.mark.slow
def test_layer_norm_refuses():
    x, parameters = values((4, 6)), affine(6)
    refused(RuntimeError, "normalized_shape", layer_norm, x, (4,), *parameters, 1e-5)
    refused(RuntimeError, "weight", layer_norm, x, (6,), parameters[0][1:], parameters[1], 1e-5)
    refused(ValueError, "eps", layer_norm, x, (6,), *parameters, np.nan)
    refused(numba.TypingError, "normalized_shape must be", layer_norm, x, 6.0, *parameters, 1e-5)
    refused(numba.TypingError, "normalized_shape has 3", layer_norm, x, (2, 4, 6), *parameters, 1e-5)
    refused(numba.TypingError, "weight must be", layer_norm, x, (4, 6), *parameters, 1e-5)


@pytest.mark.slow
def test_out_and_strides():
    """Strided and read-only input; an output that is the input, transposed, or of another shape."""
    x = values((6, 40))[:, ::2]
    x.flags.writeable = False
    expected = functional.layer_norm(np.ascontiguousarray(x), 20)
    out = np.full((20, 6), np.nan, np.float32).T
    assert layer_norm_into(x, out) is not None
    np.testing.assert_array_equal(out, expected)
    own = x.copy().T.copy().T
    layer_norm_into(own, own)
    np.testing.assert_array_equal(own, expected)
    refused(RuntimeError, "out must have the shape", layer_norm_into, x, out[:3])
    refused(numba.TypingError, "out must be", layer_norm_into, x, out.astype(np.float64))
    refused(numba.TypingError, "out is read-only", layer_norm_into, x, x)


@pytest.mark.slow
def test_residual_and_activation():
    @numba.njit
    def fused(x, w, residual):
        y = functional.layer_norm(x, 5, activation="silu", residual=residual)
        z = functional.group_norm(x, 3, w, w, activation="gelu", residual=residual)
        return y, z, functional.batch_norm(x, w, w, w, w, activation="relu", residual=residual)

    x, (w, _) = values((2, 6, 5)), affine(6)
    expected = (
        functional.layer_norm(x, 5, activation="silu", residual=x),
        functional.group_norm(x, 3, w, w, activation="gelu", residual=x),
        functional.batch_norm(x, w, w, w, w, activation="relu", residual=x),
    )
    for y, same in zip(fused(x, w, np.asfortranarray(x)), expected, strict=True):
        np.testing.assert_array_equal(y, same)
    refused(RuntimeError, "residual", fused, x, w, x[:1])
    refused(numba.TypingError, "residual must be", fused, x, w, x.astype(np.float64))


@pytest.mark.slow
def test_rms_norm_instance_norm_and_sums():
    @numba.njit
    def several(x, residual, total, w):
        y, _ = functional.add_layer_norm(x, residual, 5, activation="relu", sum_out=total)
        z, _ = functional.add_rms_norm(x, residual, (6, 5), None, 1e-3)
        return y, total, z, functional.rms_norm(x, 5), functional.instance_norm(x, weight=w, bias=w)

    x, (w, _) = values((2, 6, 5)), affine(6)
    expected = (
        *functional.add_layer_norm(x, x[::-1], 5, activation="relu"),
        functional.add_rms_norm(x, x[::-1], (6, 5), None, 1e-3)[0],
        functional.rms_norm(x, 5),
        functional.instance_norm(x, weight=w, bias=w),
    )
    for y, same in zip(several(x, x[::-1], np.empty_like(x), w), expected, strict=True):
        np.testing.assert_array_equal(y, same)
    refused(ValueError, "more than 1 position", numba.njit(lambda x: functional.instance_norm(x)), x[:, :, :1])


@pytest.mark.parametrize(
    ("call", "named"),
    [
        ("layer_norm(x, 5, activation='swish')", "activation must be one of relu, "),
        ("layer_norm(x, 5, return_stats=True)", "return_stats can't be given"),
        ("rms_norm(x, 5, scale=x)", "scale can't be given"),
        ("rms_norm(x, 5, x[0, 0], unit_offset=True)", "unit_offset can't be given"),
        ("instance_norm(x, x[0, 0], x[0, 0])", "running_mean can't be given"),
        ("layer_norm(x, 5, eps=None)", "eps must be a float"),
        ("add_rms_norm(x, None, 5)", "residual must be an array"),
    ],
)
def test_what_cannot_be_given(call, named):
    scope = {"functional": functional}
    exec(f"def caller(x):\n    return functional.{call}", scope)
    refused(numba.TypingError, named, numba.njit(scope["caller"]), values((2, 6, 5)))


@pytest.mark.slow
def test_numba_finds_it_by_itself(entry_point, tmp_path):
    code = f"""
import sys; sys.path.insert(0, {os.fspath(entry_point)!r})
import numba, numpy as np, cpunorm.functional
@numba.njit
def f(x):
    return cpunorm.functional.batch_norm(x, x[0], x[0])
assert "cpunorm._numba.overloads" not in sys.modules
print(f(np.ones((2, 3), np.float32)).sum())
"""
    assert fresh.output(code) == "0.0"
