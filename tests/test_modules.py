"""The modules: torch's constructors, defaults and repr, the flags, copies."""

import copy
import inspect
import pickle

import numpy as np
import pytest
from arrays import BATCH_NORMS, memory, ramp

import cpunorm
from cpunorm import functional

BATCH_NORM = "eps=1e-05, momentum=0.1, affine=True, track_running_stats=True, device=None, dtype=None, *, bias=True"
SIGNATURES = {
    **dict.fromkeys(BATCH_NORMS, f"num_features, {BATCH_NORM}"),
    "LayerNorm": "normalized_shape, eps=1e-05, elementwise_affine=True, bias=True, device=None, dtype=None",
    "GroupNorm": "num_groups, num_channels, eps=1e-05, affine=True, device=None, dtype=None, *, bias=True",
}
# (class, arguments, keywords, torch's repr)
REPRS = [
    ("BatchNorm1d", (3,), {}, "3, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True"),
    ("BatchNorm2d", (3, 1e-3), {}, "3, eps=0.001, momentum=0.1, affine=True, bias=True, track_running_stats=True"),
    (
        "BatchNorm3d",
        (0, 1, None, False, False),
        {},
        "0, eps=1, momentum=None, affine=False, bias=False, track_running_stats=False",
    ),
    (
        "BatchNorm1d",
        (3,),
        {"bias": False, "momentum": 0.25},
        "3, eps=1e-05, momentum=0.25, affine=True, bias=False, track_running_stats=True",
    ),
    ("LayerNorm", (4,), {}, "(4,), eps=1e-05, elementwise_affine=True, bias=True"),
    ("LayerNorm", ([2, 3], 1e-12), {"bias": False}, "(2, 3), eps=1e-12, elementwise_affine=True, bias=False"),
    ("LayerNorm", (4, 1e-5, False), {}, "(4,), eps=1e-05, elementwise_affine=False, bias=False"),
    ("GroupNorm", (2, 4), {}, "2, 4, eps=1e-05, affine=True, bias=True"),
    ("GroupNorm", (2, 4, 0.1, False), {}, "2, 4, eps=0.1, affine=False, bias=False"),
    ("GroupNorm", (2, 4), {"bias": False}, "2, 4, eps=1e-05, affine=True, bias=False"),
]


def signature(constructor):
    """The parameters of a constructor as text, annotations left out."""
    parameters = [p.replace(annotation=p.empty) for p in inspect.signature(constructor).parameters.values()]
    return str(inspect.Signature(parameters))[1:-1]


@pytest.mark.parametrize("kind", SIGNATURES)
def test_constructor(kind):
    ours = signature(getattr(cpunorm, kind)).removesuffix(", activation=None").removesuffix(", *")
    ours = ours.removesuffix(", data_format='channels_first'")
    assert ours == SIGNATURES[kind]


@pytest.mark.parametrize("kind", SIGNATURES)
def test_constructor_is_torchs(kind):
    torch = pytest.importorskip("torch")
    assert signature(getattr(torch.nn, kind)) == SIGNATURES[kind]


@pytest.mark.parametrize(("kind", "arguments", "keywords", "shown"), REPRS)
def test_repr(kind, arguments, keywords, shown):
    assert repr(getattr(cpunorm, kind)(*arguments, **keywords)) == f"{kind}({shown})"


@pytest.mark.parametrize(("kind", "arguments", "keywords", "shown"), REPRS)
def test_repr_is_torchs(kind, arguments, keywords, shown):
    torch = pytest.importorskip("torch")
    assert repr(getattr(torch.nn, kind)(*arguments, **keywords)) == f"{kind}({shown})"


@pytest.mark.parametrize("dtype", [None, np.float32, "float64", np.float16])
def test_a_new_module(dtype):
    batch_norm = cpunorm.BatchNorm2d(3, dtype=dtype, device="cpu")
    layer_norm, group_norm = cpunorm.LayerNorm((2, 3), dtype=dtype), cpunorm.GroupNorm(3, 6, dtype=dtype)
    expected = np.dtype(dtype or np.float32)
    for module, shape in ((batch_norm, (3,)), (layer_norm, (2, 3)), (group_norm, (6,))):
        assert module.training is True
        assert (module.weight.dtype, module.bias.dtype) == (expected, expected)
        np.testing.assert_array_equal(module.weight, np.ones(shape), strict=False)
        np.testing.assert_array_equal(module.bias, np.zeros(shape), strict=False)
    assert (batch_norm.running_mean.dtype, batch_norm.running_var.dtype) == (expected, expected)
    np.testing.assert_array_equal(batch_norm.running_mean, [0, 0, 0])
    np.testing.assert_array_equal(batch_norm.running_var, [1, 1, 1])
    assert (batch_norm.num_batches_tracked.dtype, batch_norm.num_batches_tracked.shape) == (np.int64, ())


def test_bfloat16_parameters(engine):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    module = cpunorm.LayerNorm(4, dtype=ml_dtypes.bfloat16)
    assert module.weight.dtype == ml_dtypes.bfloat16
    assert module(np.ones((2, 4), ml_dtypes.bfloat16)).dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize(("affine", "bias"), [(True, True), (True, False), (False, True), (False, False)])
def test_affine_and_bias(engine, affine, bias):
    x = ramp((4, 6))
    for module in (
        cpunorm.BatchNorm1d(6, affine=affine, bias=bias),
        cpunorm.LayerNorm(6, elementwise_affine=affine, bias=bias),
        cpunorm.GroupNorm(2, 6, affine=affine, bias=bias),
    ):
        assert (module.weight is not None, module.bias is not None) == (affine, affine and bias)
        plain = module(x)
        if affine:
            module.weight[:] = 2
            np.testing.assert_array_equal(module(x), 2 * plain)
        if affine and bias:
            module.bias[:] = 0.5
            np.testing.assert_allclose(module(x), 2 * plain + 0.5, rtol=1e-6)  # one rounding
            module.reset_parameters()
            np.testing.assert_array_equal(module(x), plain)


def test_train_and_eval():
    module = cpunorm.BatchNorm1d(3)
    assert module.eval() is module
    assert module.training is False
    assert module.train() is module
    assert module.training is True
    assert module.train(False).training is False


@pytest.mark.parametrize("kind", SIGNATURES)
def test_a_module_is_its_function(engine, kind):
    x = np.random.default_rng(0).normal(size=BATCH_NORMS.get(kind, (4, 3))).astype(np.float32)
    module = getattr(cpunorm, kind)(*((3, 3) if kind == "GroupNorm" else (3,)))
    module.weight[:], module.bias[:] = [0.5, 1, 2], [1, 0, -1]
    if kind == "LayerNorm":
        expected = functional.layer_norm(x, (3,), module.weight, module.bias)
    elif kind == "GroupNorm":
        x = x[..., None].repeat(2, axis=2)
        expected = functional.group_norm(x, 3, module.weight, module.bias)
    else:
        expected = functional.batch_norm(x, None, None, module.weight, module.bias, True)
    np.testing.assert_array_equal(module(x), expected)
    np.testing.assert_array_equal(module.forward(x), expected)
    if kind in BATCH_NORMS:
        running = module.running_mean, module.running_var
        np.testing.assert_array_equal(
            module.eval()(x), functional.batch_norm(x, *running, module.weight, module.bias), strict=True
        )


@pytest.mark.parametrize("kind", [*BATCH_NORMS, "GroupNorm"])
@pytest.mark.parametrize("training", [True, False])
def test_channels_last(engine, kind, training):
    shape = BATCH_NORMS.get(kind, (4, 3, 5))
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    arguments = (3, 3) if kind == "GroupNorm" else (3,)
    first = getattr(cpunorm, kind)(*arguments).train(training)
    last = getattr(cpunorm, kind)(*arguments, data_format="channels_last").train(training)
    y = last(np.moveaxis(x, 1, -1).copy())
    np.testing.assert_allclose(np.moveaxis(y, -1, 1), first(x), rtol=0, atol=2e-6)  # the bound, twice over
    for name, array in first.state_dict().items():
        np.testing.assert_allclose(last.state_dict()[name], array, rtol=1e-6)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))], ids=["deepcopy", "pickle"]
)
@pytest.mark.parametrize("kind", SIGNATURES)
def test_a_copy_is_equal_and_independent(engine, kind, duplicate):
    module = getattr(cpunorm, kind)(*((3, 3) if kind == "GroupNorm" else (3,)), eps=1e-3)
    shape = BATCH_NORMS.get(kind, (4, 3, 3))
    module.weight[:] = [1, 2, 3]
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    module(x)
    double = duplicate(module.eval())
    assert repr(double) == repr(module)
    assert double.training is False
    assert memory(double.state_dict()) == memory(module.state_dict())
    np.testing.assert_array_equal(double(x), module(x))
    before = memory(module.state_dict())
    double.train()(x)
    double.weight[:] = 7
    assert memory(module.state_dict()) == before
