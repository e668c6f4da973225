"""Checkpoints: torch's keys and rules, exchanged with torch both ways, loaded whole or not at all."""

import copy
import pickle
import re
import warnings

import numpy as np
import pytest
from arrays import memory, ramp

import cpunorm

F32 = np.float32


def batch_norm(**more):
    return cpunorm.BatchNorm1d(3, **more)


def checkpoint(**more):
    """What torch saves of a BatchNorm1d(3), with other values than a new one has."""
    return {
        "weight": np.array([1, 2, 3], F32),
        "bias": np.array([4, 5, 6], F32),
        "running_mean": np.array([7, 8, 9], F32),
        "running_var": np.array([10, 11, 12], F32),
        "num_batches_tracked": np.array(13),
    } | more


def assert_loaded(module, expected):
    own = module.state_dict()
    assert own.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(own[name], value)


KEYS = [
    (batch_norm(), ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]),
    (batch_norm(affine=False), ["running_mean", "running_var", "num_batches_tracked"]),
    (batch_norm(bias=False), ["weight", "running_mean", "running_var", "num_batches_tracked"]),
    (batch_norm(track_running_stats=False), ["weight", "bias"]),
    (batch_norm(affine=False, track_running_stats=False), []),
    (cpunorm.LayerNorm((2, 3)), ["weight", "bias"]),
    (cpunorm.LayerNorm(3, bias=False), ["weight"]),
    (cpunorm.LayerNorm(3, elementwise_affine=False), []),
    (cpunorm.GroupNorm(2, 4), ["weight", "bias"]),
    (cpunorm.GroupNorm(2, 4, affine=False), []),
]


@pytest.mark.parametrize(("module", "keys"), KEYS, ids=repr)
def test_keys(module, keys):
    state = module.state_dict()
    assert list(state) == keys
    assert list(module.state_dict(prefix="encoder.norm.")) == ["encoder.norm." + key for key in keys]
    for key, array in state.items():
        assert not np.shares_memory(array, getattr(module, key))
        assert array.dtype == (np.int64 if key == "num_batches_tracked" else F32)
    assert module.load_state_dict(state) == ([], [])


@pytest.mark.parametrize(("module", "keys"), KEYS, ids=repr)
def test_keys_are_torchs(module, keys):
    torch = pytest.importorskip("torch")
    theirs = eval(f"torch.nn.{module!r}", {"torch": torch}).state_dict()  # a repr is a constructor call
    assert list(theirs) == keys
    for key, array in module.state_dict().items():
        assert (theirs[key].numpy().dtype, theirs[key].shape) == (array.dtype, array.shape)


def test_the_state_dict_is_a_moment():
    module = batch_norm()
    state = module.state_dict()
    module(ramp((4, 3)))
    assert_loaded(batch_norm(), state)
    state["weight"][:] = 7
    np.testing.assert_array_equal(module.weight, [1, 1, 1])


def test_load_copies_in_place():
    module, given = batch_norm(), checkpoint()
    own = dict(vars(module))
    loaded = module.load_state_dict(given)
    assert (loaded.missing_keys, loaded.unexpected_keys) == ([], [])
    assert_loaded(module, given)
    for name, value in given.items():
        assert getattr(module, name) is own[name]
        assert not np.shares_memory(own[name], value)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, ">f4", np.bool])
def test_other_dtypes_are_converted(dtype):
    module, given = batch_norm(), checkpoint(weight=np.array([1, 0, 1], dtype))
    module.load_state_dict(given)
    assert module.weight.dtype == F32
    assert_loaded(module, given)
    half = batch_norm(dtype=np.float16)
    half.load_state_dict(given)
    assert half.running_var.dtype == np.float16
    assert_loaded(half, given)


def test_any_layout():
    module = batch_norm()
    given = checkpoint(weight=ramp((6,))[::-2], num_batches_tracked=np.int64(7))
    given["weight"].flags.writeable = False
    module.load_state_dict(given)
    assert_loaded(module, given)
    module.load_state_dict(checkpoint(num_batches_tracked=np.array([8])))  # some exporters have no 0-d arrays
    assert module.num_batches_tracked == 8
    assert module.num_batches_tracked.shape == ()


@pytest.mark.parametrize("strict", [True, False])
def test_a_missing_counter_is_silent(strict):
    module = batch_norm()
    module.num_batches_tracked[...] = 5
    given = checkpoint()
    del given["num_batches_tracked"]
    assert module.load_state_dict(given, strict=strict) == ([], [])
    assert_loaded(module, given | {"num_batches_tracked": 5})


def test_not_strict():
    module = batch_norm()
    loaded = module.load_state_dict({"bias": np.ones(3, F32), "gamma": 1, "beta": None}, strict=False)
    assert loaded.missing_keys == ["weight", "running_mean", "running_var"]
    assert loaded.unexpected_keys == ["gamma", "beta"]
    assert_loaded(module, batch_norm().state_dict() | {"bias": [1, 1, 1]})


# (what differs from a good checkpoint, DROP for a key that isn't there; what the message names; also if not strict?)
DROP = object()
HALF_MATCHING = {
    "missing": ({"bias": DROP, "running_var": DROP}, ["missing", "bias", "running_var"], False),
    "unexpected": ({"gamma": np.ones(3), "beta": 1}, ["unexpected", "gamma", "beta"], False),
    "longer": ({"weight": np.ones(4, F32)}, ["weight", "(4,)", "(3,)"], True),
    "another rank": ({"running_mean": np.ones((1, 3), F32)}, ["running_mean", "(1, 3)", "(3,)"], True),
    "one value for all": ({"weight": np.ones(1, F32)}, ["weight", "(1,)", "(3,)"], True),
    "no value": ({"weight": np.ones(0, F32)}, ["weight", "(0,)", "(3,)"], True),
    "a scalar": ({"weight": F32(1)}, ["weight", "()", "(3,)"], True),
    "several counters": ({"num_batches_tracked": np.ones(3, int)}, ["num_batches_tracked", "(3,)"], True),
    "a list": ({"weight": [1.0, 2.0, 3.0]}, ["weight", "list"], True),
    "a float": ({"weight": 1.0}, ["weight", "float"], True),
    "None": ({"weight": None}, ["weight", "NoneType"], True),
    "complex": ({"weight": np.ones(3) * 1j}, ["weight", "complex128"], True),
    "objects": ({"weight": np.array([None] * 3)}, ["weight", "object"], True),
    "text": ({"weight": np.array(["1", "2", "3"])}, ["weight", "<U1"], True),
    "times": ({"weight": np.zeros(3, "M8[s]")}, ["weight", "datetime64[s]"], True),
    "all at once": (
        {"bias": DROP, "gamma": 1, "weight": np.ones(2), "running_mean": np.ones(5), "running_var": "x"},
        ["bias", "gamma", "weight", "(2,)", "running_mean", "(5,)", "running_var", "str"],
        True,
    ),
}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("case", HALF_MATCHING)
def test_half_matching(case, strict):
    differs, named, always = HALF_MATCHING[case]
    given = {name: value for name, value in checkpoint(**differs).items() if value is not DROP}
    module = batch_norm()
    before = memory(module.state_dict())
    if not strict and not always:
        module.load_state_dict(given, strict=False)
        return
    with pytest.raises(RuntimeError) as caught:
        module.load_state_dict(given, strict=strict)
    assert type(caught.value) is RuntimeError
    for words in named if strict else set(named) - {"bias", "gamma"}:
        assert words in str(caught.value)
    assert memory(module.state_dict()) == before


def test_what_is_there_and_not_here():
    """As when a checkpoint with running statistics meets a module that doesn't track them."""
    with pytest.raises(RuntimeError, match="unexpected keys: running_mean, running_var, num_batches_tracked"):
        batch_norm(track_running_stats=False).load_state_dict(checkpoint())


@pytest.mark.parametrize("given", [None, 3, [("weight", 1)], "weight"], ids=repr)
def test_no_mapping(given):
    with pytest.raises(TypeError, match=type(given).__name__):
        batch_norm().load_state_dict(given)


@pytest.mark.parametrize("name", ["weight", "running_var", "num_batches_tracked"])
def test_a_read_only_target(name):
    module = batch_norm()
    getattr(module, name).flags.writeable = False
    before = memory(module.state_dict())
    with pytest.raises(RuntimeError, match=f"{name}.*read-only"):
        module.load_state_dict(checkpoint())
    assert memory(module.state_dict()) == before


def test_values_out_of_range_become_infinite():
    """As in torch, and without a warning that -W error would turn into a module loaded half."""
    module, given = batch_norm(), checkpoint(running_mean=np.array([1e300, 0, -1e300]))
    module.load_state_dict(given)
    assert_loaded(module, given | {"running_mean": [np.inf, 0, -np.inf]})


@pytest.mark.parametrize("errors", ["raise", "warn"])
def test_no_error_state_stops_a_load_half_way(errors):
    """Overflow, underflow and NaN in the last arrays to be converted; pytest makes warnings errors."""
    given = checkpoint(running_mean=np.array([1e300, 1e-300, np.nan]), running_var=np.array([1e-40, 0, np.inf]))
    module, half = batch_norm(), batch_norm(dtype=np.float16)
    with np.errstate(all=errors):
        module.load_state_dict(given)
        half.load_state_dict(given | {"weight": np.array([1e30, 1e-30, 2], F32)})
    assert_loaded(
        module, given | {"running_mean": [np.inf, 0, np.nan], "running_var": given["running_var"].astype(F32)}
    )
    assert_loaded(
        half, given | {"weight": [np.inf, 0, 2], "running_mean": [np.inf, 0, np.nan], "running_var": [0, 0, np.inf]}
    )


NO_COUNTERS = [np.nan, np.inf, 1.5, -1, 2.0**63, 2.0**70, np.uint64(2**63), np.float16(-1), 2**70]


@pytest.mark.parametrize("errors", ["raise", "ignore"])
@pytest.mark.parametrize("number", NO_COUNTERS, ids=repr)
def test_no_number_of_batches(number, errors):
    module = batch_norm()
    before = memory(module.state_dict())
    with np.errstate(all=errors), pytest.raises(RuntimeError, match="num_batches_tracked") as caught:
        module.load_state_dict(checkpoint(num_batches_tracked=np.array(number)))
    assert (str(number) if np.array(number).dtype != object else "object") in str(caught.value)
    assert memory(module.state_dict()) == before


@pytest.mark.parametrize("number", [0, 7, np.float32(7), np.uint8(7), np.True_, 2**63 - 1, 2.0**62], ids=repr)
def test_numbers_of_batches(number):
    module = batch_norm()
    module.load_state_dict(checkpoint(num_batches_tracked=np.array(number)))
    assert module.num_batches_tracked == int(number)


class OnCpu:
    """An array that is no ndarray, as those of other libraries."""

    def __init__(self, values, device=1):
        self.values, self.device = np.asarray(values, F32), device


class WithArray(OnCpu):
    def __array__(self, dtype=None, copy=None):
        return self.values


class WithDlpack(OnCpu):
    def __dlpack_device__(self):
        return (self.device, 0)

    def __dlpack__(self, **more):
        return self.values.__dlpack__(**more)


class LikeCupy(WithDlpack):
    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")


class Broken(OnCpu):
    def __array__(self, dtype=None, copy=None):
        raise ZeroDivisionError("broken")


class Deprecated(WithArray):
    def __array__(self, dtype=None, copy=None):
        warnings.warn("an error in these tests", DeprecationWarning, stacklevel=1)
        return self.values


@pytest.mark.parametrize("kind", [WithArray, WithDlpack, LikeCupy])
def test_arrays_of_other_libraries(kind):
    module = batch_norm()
    module.load_state_dict(checkpoint(bias=kind([4, 5, 6]), num_batches_tracked=kind(13)))
    assert_loaded(module, checkpoint())


def test_arrays_of_jax():
    jax = pytest.importorskip("jax")
    module = batch_norm()
    module.load_state_dict({name: jax.numpy.asarray(value) for name, value in checkpoint().items()})
    assert_loaded(module, checkpoint())
    module.load_state_dict(checkpoint(bias=jax.numpy.asarray([4, 5, 2.0**100], jax.numpy.bfloat16)))
    assert_loaded(module, checkpoint(bias=[4, 5, 2.0**100]))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (np.ma.array([1.0, 2, 3], mask=[0, 1, 0]), "masked"),
        (np.ma.array([1.0, 2, 3]), "masked"),
        (WithDlpack([1, 2, 3], device=2), "WithDlpack on another device"),
        (LikeCupy([1, 2, 3], device=2), "LikeCupy on another device"),
        (Broken([1, 2, 3]), "broken"),
        (Deprecated([1, 2, 3]), "an error in these tests"),
        (WithArray([1, 2]), "(2,)"),
        ([1.0, 2, 3], "builtins.list"),
    ],
)
def test_arrays_that_cant_be_loaded(value, says):
    module = batch_norm()
    before = memory(module.state_dict())
    with pytest.raises(RuntimeError, match=r"running_var: .*" + re.escape(says)) as caught:
        module.load_state_dict(checkpoint(running_var=value, gamma=3))
    assert "unexpected keys: gamma" in str(caught.value)
    assert memory(module.state_dict()) == before


@pytest.mark.parametrize("way", [lambda m: m.state_dict(), copy.deepcopy, pickle.dumps], ids=["dict", "copy", "pickle"])
@pytest.mark.parametrize("value", [np.ma.array([1.0, 2, 3]), [1.0, 2, 3], np.array([None] * 3)])
def test_no_copy_of_what_is_no_parameter(way, value):
    module = batch_norm()
    module.weight = value
    with pytest.raises(TypeError):
        way(module)


def test_one_layer_of_a_whole_model():
    model = {f"encoder.1.{name}": value for name, value in checkpoint().items()}
    model |= {f"encoder.10.{name}": value + 1 for name, value in checkpoint().items()} | {"head.weight": np.ones(9)}
    module = batch_norm()
    assert module.load_state_dict(model, prefix="encoder.1.") == ([], [])
    assert_loaded(module, checkpoint())
    assert module.state_dict(prefix="encoder.1.").keys() <= model.keys()
    with pytest.raises(RuntimeError, match=re.escape("missing keys: encoder.2.weight, encoder.2.bias")):
        module.load_state_dict(model, prefix="encoder.2.")
    assert_loaded(module, checkpoint())


def test_npz(tmp_path):
    np.savez(tmp_path / "norm.npz", **checkpoint())
    module = batch_norm()
    module.load_state_dict(np.load(tmp_path / "norm.npz"))
    assert_loaded(module, checkpoint())
    np.savez(tmp_path / "again.npz", **module.state_dict())
    with np.load(tmp_path / "again.npz") as again:
        assert {name: again[name].tobytes() for name in again} == {
            name: array.tobytes() for name, array in module.state_dict().items()
        }


def test_safetensors(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    numpy.save_file(checkpoint(), tmp_path / "norm.safetensors")
    module = batch_norm()
    module.load_state_dict(numpy.load_file(tmp_path / "norm.safetensors"))
    assert_loaded(module, checkpoint())
    numpy.save_file(module.state_dict(), tmp_path / "again.safetensors")
    assert_loaded(module, numpy.load_file(tmp_path / "again.safetensors"))


# Exchange with torch, both ways

# (class, constructor's arguments, an input's shape)
EXCHANGED = [
    ("BatchNorm1d", (3,), {}, (4, 3)),
    ("BatchNorm2d", (3,), {"affine": False}, (4, 3, 5, 5)),
    ("BatchNorm2d", (3,), {"bias": False, "dtype": "float64"}, (4, 3, 5, 5)),
    ("BatchNorm3d", (3,), {"track_running_stats": False}, (4, 3, 2, 2, 2)),
    ("LayerNorm", ((3, 5),), {}, (4, 3, 5)),
    ("LayerNorm", (5,), {"bias": False}, (4, 3, 5)),
    ("GroupNorm", (2, 4), {}, (3, 4, 5)),
]


@pytest.fixture
def exchange(request):
    """Our module and torch's, and an input; torch's has parameters and statistics that no new one has."""
    torch = pytest.importorskip("torch")
    kind, arguments, more, shape = request.param
    dtype = more.get("dtype", "float32")
    ours = getattr(cpunorm, kind)(*arguments, **more | {"dtype": np.dtype(dtype)})
    theirs = getattr(torch.nn, kind)(*arguments, **more | {"dtype": getattr(torch, dtype)}).requires_grad_(False)
    for parameter in theirs.parameters():
        parameter.uniform_(0.5, 2)
    x = np.random.default_rng(1).normal(3, 2, shape).astype(dtype)
    theirs(torch.from_numpy(x + 1))
    return ours, theirs, x


exchanged = pytest.mark.parametrize("exchange", EXCHANGED, indirect=True, ids=lambda case: f"{case[0]}{case[2]}")
# Inputs of about N(3, 2), parameters below 2: torch is off by up to 2e-6 there, we by up to 2 * 2e-6.
CLOSE = {"rtol": 0, "atol": 6e-6}


@exchanged
def test_from_torch(engine, exchange):
    torch = pytest.importorskip("torch")
    ours, theirs, x = exchange
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    for name, value in theirs.state_dict().items():
        np.testing.assert_array_equal(ours.state_dict()[name], value.numpy())
    for training in (False, True, False):
        expected = theirs.train(training)(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(ours.train(training)(x), expected, **CLOSE)


@exchanged
def test_to_torch(engine, exchange):
    torch = pytest.importorskip("torch")
    ours, theirs, x = exchange
    for name in ("weight", "bias", "running_mean"):
        if name in ours.state_dict():
            getattr(ours, name)[...] = 1.25
    ours(x)
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in ours.state_dict().items()})
    for training in (False, True, False):
        expected = theirs.train(training)(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(ours.train(training)(x), expected, **CLOSE)


def test_tensors_of_any_kind():
    torch = pytest.importorskip("torch")
    module = batch_norm()
    module.load_state_dict(
        {
            "weight": torch.nn.Parameter(torch.tensor([1.0, 2, 3])),
            "bias": torch.tensor([4, 5, 2.0**100], dtype=torch.bfloat16, requires_grad=True),
            "running_mean": torch.arange(14.0, dtype=torch.float64)[7:10],
            "running_var": torch.arange(10.0, 16).reshape(3, 2).T[0] * 0.5 + 5,  # strided
            "num_batches_tracked": torch.tensor(13),
        }
    )
    assert_loaded(module, checkpoint(bias=[4, 5, 2.0**100]))


def test_a_torch_tensor_of_another_shape():
    torch = pytest.importorskip("torch")
    module = batch_norm()
    before = memory(module.state_dict())
    with pytest.raises(RuntimeError, match=r"weight.*\(4,\).*\(3,\)"):
        module.load_state_dict(checkpoint(weight=torch.ones(4)))
    assert memory(module.state_dict()) == before


@pytest.mark.parametrize(
    "case", sorted(HALF_MATCHING.keys() - {"complex"})
)  # torch drops imaginary parts, with a warning
def test_half_matching_in_torch(case):
    """The same checkpoints are errors there; torch leaves them loaded half, we don't."""
    torch = pytest.importorskip("torch")
    differs, _, always = HALF_MATCHING[case]
    given = {name: value for name, value in checkpoint(**differs).items() if value is not DROP}
    numeric = {k: v for k, v in given.items() if isinstance(v, np.ndarray) and v.dtype.kind in "fic"}
    given |= {name: torch.from_numpy(value) for name, value in numeric.items()}
    with pytest.raises(RuntimeError):
        torch.nn.BatchNorm1d(3).load_state_dict(given)
    if always:
        with pytest.raises(RuntimeError):
            torch.nn.BatchNorm1d(3).load_state_dict(given, strict=False)


def test_safetensors_from_torch(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    from safetensors.numpy import load_file
    from safetensors.torch import save_file

    theirs = torch.nn.BatchNorm1d(3)
    theirs(torch.arange(12.0).reshape(4, 3))
    save_file(theirs.state_dict(), tmp_path / "norm.safetensors")
    module = batch_norm()
    module.load_state_dict(load_file(tmp_path / "norm.safetensors"))
    assert_loaded(module, {name: value.numpy() for name, value in theirs.state_dict().items()})
