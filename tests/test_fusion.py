"""BatchNorm folded into the layer before it: float64 is the first witness, torch's layers and functions the second."""

import hypothesis
import ml_dtypes
import numpy as np
import pytest
from hypothesis import strategies as st

import cpunorm
from cpunorm import fuse_conv_bn_weights, fuse_linear_bn_weights

EPS = 1e-3
FLOATS = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]


def vectors(rng, count, dtype=np.float64):
    """mean, var, eps, weight, bias of a BatchNorm, in the order of the functions."""
    mean, weight, bias = (rng.standard_normal(count).astype(dtype) for _ in range(3))
    return mean, rng.uniform(0.1, 4, count).astype(dtype), EPS, weight, bias


def exact(w, b, bn, scale_of):
    """The fused weight and bias in extended precision; `scale_of` lays a vector along the weight."""
    mean, var, eps, weight, bias = (0 if a is None else np.asarray(a, np.longdouble) for a in bn)
    scale = (1 if bn[3] is None else weight) / np.sqrt(var + eps)
    return np.asarray(w, np.longdouble) * scale_of(scale), ((0 if b is None else b) - mean) * scale + bias


def along_outputs(ndim):
    return lambda scale: scale.reshape(-1, *[1] * (ndim - 1))


def as_torch(torch, array):
    if array is None or isinstance(array, float):
        return array
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.astype(np.float32)).bfloat16()
    return torch.from_numpy(array)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bn_dtype", FLOATS)
@pytest.mark.parametrize("missing", [(), ("b",), ("bn_w", "bn_b"), ("b", "bn_w", "bn_b")])
def test_rounded_once(dtype, bn_dtype, missing):
    rng = np.random.default_rng(0)
    mean, var, eps, bn_w, bn_b = vectors(rng, 6, bn_dtype)
    w, b = rng.standard_normal((6, 2, 3, 3)).astype(dtype), rng.standard_normal(6).astype(np.float32)
    b = None if "b" in missing else b
    bn = (mean, var, eps, *(None if "bn_w" in missing else v for v in (bn_w, bn_b)))
    for fuse, weight in ((fuse_conv_bn_weights, w), (fuse_linear_bn_weights, w[:, :, 0, 0])):
        fused_w, fused_b = fuse(weight, b, *bn)
        expected_w, expected_b = exact(weight, b, bn, along_outputs(weight.ndim))
        assert fused_w.dtype == dtype
        assert fused_b.dtype == (dtype if b is None else np.float32)
        for fused, expected in ((fused_w, expected_w), (fused_b, expected_b)):
            error = np.abs(fused.astype(np.longdouble) - expected)
            # bfloat16 is reached by way of float32, hence the little more; 1e-14 is float64's own arithmetic
            assert (error <= (0.5 + 2.0**-12) * np.spacing(np.abs(fused)).astype(np.float64) + 1e-14).all()


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("kernel", [(3,), (2, 3), (1, 2, 2)])
@hypothesis.settings(max_examples=15)
@hypothesis.given(
    groups=st.sampled_from([1, 2, 3, 4]),
    ins=st.sampled_from([1, 2, 3]),
    outs=st.sampled_from([1, 2, 5]),
    bias=st.booleans(),
    affine=st.booleans(),
    seed=st.integers(0, 99),
)
def test_one_torch_layer_does_what_two_did(transpose, kernel, groups, ins, outs, bias, affine, seed):
    """Grouped, depthwise, transposed, all of them at once; torch runs the layers."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    name = f"Conv{'Transpose' if transpose else ''}{len(kernel)}d"
    conv = getattr(torch.nn, name)(groups * ins, groups * outs, kernel, groups=groups, bias=bias).double()
    norm = getattr(torch.nn, f"BatchNorm{len(kernel)}d")(groups * outs, EPS, affine=affine).double().eval()
    mean, var, _, weight, shift = vectors(rng, groups * outs)
    x = torch.from_numpy(rng.standard_normal((2, groups * ins, *[4] * len(kernel))))
    with torch.no_grad():
        for target, value in ((norm.running_mean, mean), (norm.running_var, var)):
            target.copy_(torch.from_numpy(value))
        if affine:
            norm.weight.copy_(torch.from_numpy(weight))
            norm.bias.copy_(torch.from_numpy(shift))
        expected = norm(conv(x))
        numpy = [None if t is None else t.numpy() for t in (conv.weight, conv.bias, norm.weight, norm.bias)]
        fused_w, fused_b = fuse_conv_bn_weights(numpy[0], numpy[1], mean, var, EPS, *numpy[2:], transpose)
        assert fused_w.shape == conv.weight.shape
        conv.weight.copy_(torch.from_numpy(fused_w))
        conv.bias = torch.nn.Parameter(torch.from_numpy(fused_b))
        np.testing.assert_allclose(conv(x).numpy(), expected.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("missing", [(), ("b",), ("bn",), ("b", "bn")])
@pytest.mark.parametrize("call", ["conv", "conv transposed", "linear"])
def test_dtypes_and_values_of_torch(dtype, missing, call):
    fusion = pytest.importorskip("torch.nn.utils.fusion")
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    shape = {"conv": (4, 3, 2), "conv transposed": (3, 4, 2), "linear": (4, 3)}[call]
    w = rng.standard_normal(shape).astype(dtype)
    b = None if "b" in missing else rng.standard_normal(4).astype(np.float32)
    mean, var, eps, bn_w, bn_b = vectors(rng, 4, np.float32)
    ours_of_bn = theirs_of_bn = bn_w, bn_b
    if "bn" in missing:
        ours_of_bn = None, None
        theirs_of_bn = (np.ones_like(bn_w), np.zeros_like(bn_b)) if call == "linear" else (None, None)  # takes no None
    name = f"fuse_{call.split()[0]}_bn_weights"
    options = {"transpose": True} if "transposed" in call else {}
    theirs = (as_torch(torch, a) for a in (w, b, mean, var, eps, *theirs_of_bn))
    expected = getattr(fusion, name)(*theirs, **options)
    unit = {np.float16: 2e-3, ml_dtypes.bfloat16: 2e-2}.get(dtype, 1e-6)
    for ours, theirs in zip(
        getattr(cpunorm, name)(w, b, mean, var, eps, *ours_of_bn, **options), expected, strict=True
    ):
        assert str(theirs.dtype) == f"torch.{ours.dtype.name}"
        theirs = theirs.detach().double().numpy()
        np.testing.assert_allclose(ours.astype(np.float64), theirs, rtol=2 * unit, atol=unit)


def test_linear_with_one_channel():
    """BatchNorm1d(1) over (N, 1, features); torch's bias has one element then."""
    w = np.arange(6, dtype=np.float32).reshape(3, 2)
    one = [np.array([v], np.float32) for v in (1, 4, 3, 5)]
    weight, bias = fuse_linear_bn_weights(w, None, one[0], one[1], 0.0, *one[2:])
    np.testing.assert_array_equal(weight, w * 1.5)
    np.testing.assert_array_equal(bias, np.float32([3.5, 3.5, 3.5]))
    assert bias.flags.writeable


def test_arithmetic_in_float64():
    """In float32 the mean would take all digits of the bias."""
    tiny = np.float32([2.0**-30])
    one = np.ones(1, np.float32)
    _, bias = fuse_conv_bn_weights(one.reshape(1, 1, 1), one + 0, one, one, 0.0, tiny, tiny)
    assert bias == tiny
    _, bias = fuse_linear_bn_weights(one.reshape(1, 1), np.float32([2.0**24]), one, one, 0.0, one, one)
    assert bias == 2.0**24


def test_inputs_stay_and_outputs_are_new():
    rng = np.random.default_rng(2)
    arguments = [rng.standard_normal((2, 3, 4)).astype(np.float32), None, *vectors(rng, 2, np.float32)]
    before = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
    for output in fuse_conv_bn_weights(*arguments):
        output.fill(7)
    for now, then in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize(
    "layout", [lambda a: a[::-1][::-1], lambda a: a.astype(">f4"), lambda a: np.repeat(a, 2, 0)[::2]]
)
def test_any_memory(layout):
    rng = np.random.default_rng(3)
    plain = [rng.standard_normal((2, 3, 4)).astype(np.float32), None, *vectors(rng, 2, np.float32)]
    unusual = [layout(a) if isinstance(a, np.ndarray) else a for a in plain]
    for ours, expected in zip(fuse_conv_bn_weights(*unusual), fuse_conv_bn_weights(*plain), strict=True):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("var", [-1.0, 0.0, np.inf, np.nan])
def test_a_variance_that_makes_no_sense_is_as_in_torch(var):
    fusion, torch = pytest.importorskip("torch.nn.utils.fusion"), pytest.importorskip("torch")
    one = np.ones(1, np.float32)
    arguments = [one.reshape(1, 1, 1), one, one + 1, np.float32([var]), 0.0, one, one]
    expected = fusion.fuse_conv_bn_weights(*(as_torch(torch, a) for a in arguments))
    for ours, theirs in zip(fuse_conv_bn_weights(*arguments), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs.detach().numpy())


ONES = {name: np.ones(6, np.float32) for name in ("bn_rm", "bn_rv", "bn_w", "bn_b")} | {"bn_eps": EPS}


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"bn_rm": None}, TypeError, "bn_rm"),
        ({"bn_rv": None}, TypeError, "bn_rv"),
        ({"bn_rv": [1.0] * 6}, TypeError, "bn_rv must be a numpy.ndarray, got builtins.list"),
        ({"bn_w": np.ma.ones(6, np.float32)}, TypeError, "masked"),
        ({"bn_rv": np.ones(5, np.float32)}, RuntimeError, r"bn_rv must have shape \(6,\), got \(5,\)"),
        ({"bn_rm": np.ones((6, 1), np.float32)}, RuntimeError, r"bn_rm must have shape \(6,\), got \(6, 1\)"),
        ({"bn_w": np.ones(1, np.float32)}, RuntimeError, r"bn_w .* got \(1,\)"),
        ({"bn_b": np.ones((), np.float32)}, RuntimeError, r"bn_b .* got \(\)"),
        ({"b": np.ones(3, np.float32)}, RuntimeError, r"_b must have shape \(6,\), got \(3,\)"),
        ({"bn_rm": np.ones(6, np.int64)}, RuntimeError, "bn_rm .* got int64"),
        ({"w": np.ones((6, 2), np.complex64)}, RuntimeError, "_w .* got complex64"),
        ({"w": np.ones((6, 2), object)}, RuntimeError, "_w .* got object"),
        ({"w": None}, TypeError, "_w must be"),
        ({"w": np.ones((5, 2), np.float32)}, RuntimeError, "5"),
        ({"w": np.ones(6, np.float32)}, RuntimeError, r"\(6,\)"),
        ({"w": np.ones((), np.float32)}, RuntimeError, r"\(\)"),
        ({"bn_eps": -1.0}, ValueError, "-1.0"),
        ({"bn_eps": float("nan")}, ValueError, "NaN"),
        ({"bn_eps": None}, TypeError, "None"),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_refused(kind, changed, error, says):
    given = {"w": np.ones((6, 2), np.float32), "b": None} | ONES | changed
    given = {f"{kind}_{name}" if len(name) == 1 else name: value for name, value in given.items()}
    with pytest.raises(error, match=says) as caught:
        getattr(cpunorm, f"fuse_{kind}_bn_weights")(**given)
    assert type(caught.value) is error


@pytest.mark.parametrize("shape", [(3, 4, 1), (3, 2, 1), (2, 0, 1), (6, 7, 1), (6,)])
def test_transposed_shapes_refused(shape):
    """C = 6: 4 divides it not; 3 groups of 2 need inputs in threes; ..."""
    if shape == (3, 2, 1):
        fuse_conv_bn_weights(np.ones(shape, np.float32), None, **ONES, transpose=True)
        shape = (4, 2, 1)
    with pytest.raises(RuntimeError, match=rf"\({shape[0]},.*transposed convolution to 6 channels"):
        fuse_conv_bn_weights(np.ones(shape, np.float32), None, **ONES, transpose=True)
    with pytest.raises(TypeError, match="transpose must be a bool, got 1"):
        fuse_conv_bn_weights(np.ones((6, 1), np.float32), None, **ONES, transpose=1)


@pytest.mark.parametrize(("shape", "transpose"), [((0, 3, 2), False), ((3, 0, 2), True), ((4, 0, 2), False)])
def test_empty(shape, transpose):
    channels = shape[int(transpose)]
    weight, bias = fuse_conv_bn_weights(np.ones(shape), None, *[np.ones(channels)] * 2, EPS, None, None, transpose)
    assert weight.shape == shape
    assert bias.shape == (channels,)
