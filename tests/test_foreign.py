"""Arrays of other libraries: taken without a copy, refused where their memory can't be had, `out` returned as given."""

import array

import numpy as np
import pytest
from norms import affine, running, values

import cpunorm
from cpunorm import functional
from cpunorm._foreign import as_ndarray

SHAPE = (4, 6, 3, 5)
# Each norm with all its arrays by name; `out` is added.
CALLS = {
    "batch_norm": {"running_mean": 6, "running_var": 6, "weight": 6, "bias": 6, "training": True},
    "group_norm": {"num_groups": 2, "weight": 6, "bias": 6},
    "instance_norm": {"running_mean": 6, "running_var": 6, "weight": 6, "bias": 6},
    "layer_norm": {"normalized_shape": (3, 5), "weight": (3, 5), "bias": (3, 5)},
    "rms_norm": {"normalized_shape": 5, "weight": 5},
    "normalize": {},
    "local_response_norm": {"size": 2},
}
ARRAYS = ("running_mean", "running_var", "weight", "bias")


def arrays_of(function):
    """New arrays for a call of `function`, and its other arguments."""
    given = CALLS[function]
    made = {"input": values(SHAPE), "out": np.full(SHAPE, 7, np.float32)}
    for name in (name for name in given if name in ARRAYS):
        shape = given[name] if isinstance(given[name], tuple) else (given[name],)
        fixed = running(*shape) if name.startswith("running") else affine(shape)
        made[name] = fixed[name in ("running_var", "bias")].copy()
    return made, {name: value for name, value in given.items() if name not in ARRAYS}


class Wrapped:
    """An array that is no ndarray, and has what other libraries' have."""

    def __init__(self, values, device=1):
        self.values, self.device = values, device


class WithArray(Wrapped):
    def __array__(self, dtype=None, copy=None):
        return self.values


class WithInterface(Wrapped):
    @property
    def __array_interface__(self):
        return self.values.__array_interface__


class WithDlpack(Wrapped):
    def __dlpack_device__(self):
        return (self.device, 0)

    def __dlpack__(self, **more):
        return self.values.__dlpack__(**more)


class OnGpu(WithDlpack):
    def __array__(self, dtype=None, copy=None):
        raise AssertionError("this would copy what a GPU holds")


def of_torch(values):
    return pytest.importorskip("torch").from_numpy(values)


def of_arrow(values):
    return pytest.importorskip("pyarrow").Tensor.from_numpy(values)


def of_jax(values):
    return pytest.importorskip("jax").numpy.asarray(values)


WRITEABLE = [WithArray, WithInterface, WithDlpack, memoryview, of_torch]
SHARED = [*WRITEABLE, of_arrow]
if not np.from_dlpack(WithDlpack(np.ones(1))).flags.writeable:
    WRITEABLE.remove(WithDlpack)  # NumPy before 2.2.5 sees it so


def start(a):
    return a.__array_interface__["data"][0]


@pytest.mark.parametrize("kind", SHARED)
def test_the_memory_is_shared(kind):
    x = values((3, 4))
    assert start(as_ndarray("x", kind(x))) == start(x)


def test_the_memory_of_jax_is_shared():
    x = of_jax(values((3, 4)))
    assert start(as_ndarray("x", x)) == x.unsafe_buffer_pointer()


@pytest.mark.filterwarnings("ignore:Exporting an unversioned DLPack capsule:DeprecationWarning")  # as NumPy asks for it
def test_the_memory_of_arrow_columns_is_shared():
    pa = pytest.importorskip("pyarrow")
    column = pa.array(values((8,)))
    assert start(as_ndarray("x", column)) == column.buffers()[1].address
    assert cpunorm.LayerNorm(8)(column).tobytes() == cpunorm.LayerNorm(8)(values((8,))).tobytes()
    with pytest.raises(TypeError, match=r"input.*nulls"):  # which __array__ would copy into NaN
        cpunorm.LayerNorm(2)(pa.array([1.0, None]))


@pytest.mark.parametrize("kind", [*SHARED, of_jax])
@pytest.mark.parametrize("function", CALLS)
def test_all_arguments(engine, function, kind):
    """The same bits as of ndarrays, as an ndarray; running statistics move where they are."""
    plain, others = arrays_of(function)
    own, _ = arrays_of(function)
    del plain["out"], own["out"]
    expected = getattr(functional, function)(**plain, **others)
    frozen = kind not in WRITEABLE
    given = {name: a if frozen and name.startswith("running") else kind(a) for name, a in own.items()}
    y = getattr(functional, function)(**given, **others)
    assert type(y) is np.ndarray
    assert y.tobytes() == expected.tobytes()
    for name, moved in plain.items():
        assert own[name].tobytes() == moved.tobytes()


@pytest.mark.parametrize("kind", WRITEABLE)
@pytest.mark.parametrize("function", CALLS)
@pytest.mark.parametrize("place", ["fresh", "input"])
def test_out(engine, function, kind, place):
    """It is written where it is, and returned as it was given; also beside arguments that are ndarrays."""
    plain, others = arrays_of(function)
    expected = getattr(functional, function)(**plain, **others)
    own, _ = arrays_of(function)
    written = own["input" if place == "input" else "out"]
    out = kind(written)
    given = own | {"out": out} | ({"input": out} if place == "input" else {})
    assert getattr(functional, function)(**given, **others) is out
    assert written.tobytes() == expected.tobytes()


EXTRAS = {
    "batch_norm": {"return_stats": True},
    "group_norm": {"scale": (4, 6), "shift": (4, 6), "return_stats": True},
    "instance_norm": {"scale": (4, 6), "return_stats": True},
    "layer_norm": {"scale": (4, 1, 1, 1), "shift": (4, 1, 1, 1)},
    "rms_norm": {"shift": (4, 1, 1, 1), "return_stats": True},
}


@pytest.mark.parametrize("kind", WRITEABLE)
@pytest.mark.parametrize("function", EXTRAS)
def test_what_takes_several_calls(function, kind):
    """Also there the arrays of extras are taken, and `out` comes back as it was given."""
    plain, others = arrays_of(function)
    own, _ = arrays_of(function)
    for arrays in (plain, own):
        arrays["residual"] = values(SHAPE)
        arrays |= {
            name: np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
            for name, shape in EXTRAS[function].items()
            if shape is not True
        }
    others |= {name: True for name, shape in EXTRAS[function].items() if shape is True}
    with cpunorm.engine("cython"):
        getattr(functional, function)(**plain, **others)
        given = {name: kind(a) for name, a in own.items()}
        result = getattr(functional, function)(**given, **others)
    if "return_stats" in others:
        result, mean, rstd = result
        assert (type(mean), type(rstd)) == (np.ndarray, np.ndarray)
    assert result is given["out"]
    for name, moved in plain.items():
        assert own[name].tobytes() == moved.tobytes(), name


@pytest.mark.parametrize("kind", WRITEABLE)
@pytest.mark.parametrize("function", ["add_layer_norm", "add_rms_norm"])
def test_sums(function, kind):
    x, residual, weight = values((4, 6)), values((4, 6))[::-1].copy(), affine((6,))[0]
    with cpunorm.engine("cython"):
        expected = getattr(functional, function)(x, residual, 6, weight)
        fresh = getattr(functional, function)(kind(x), kind(residual), 6, kind(weight))
        out, total = kind(np.empty_like(x)), kind(np.empty_like(x))
        written = getattr(functional, function)(kind(x), residual, 6, weight, out=out, sum_out=total)
    assert written[0] is out
    assert written[1] is total
    for one, other, own in zip(expected, fresh, (out, total), strict=True):
        assert type(other) is np.ndarray
        assert other.tobytes() == one.tobytes() == as_ndarray("it", own).tobytes()


@pytest.mark.parametrize("kind", WRITEABLE)
def test_residual_and_activation(kind):
    x, residual = values(SHAPE), values(SHAPE)[::-1].copy()
    with cpunorm.engine("cython"):
        expected = functional.group_norm(x, 2, activation="silu", residual=residual)
        y = functional.group_norm(kind(x), 2, activation="silu", residual=kind(residual))
        assert functional.group_norm(x, 2, activation="silu", residual=kind(residual)).tobytes() == expected.tobytes()
    assert y.tobytes() == expected.tobytes()
    with pytest.raises(TypeError, match=r"group_norm: residual .*list"):
        functional.group_norm(x, 2, residual=[])


def test_torch_layouts_stay():
    torch = pytest.importorskip("torch")
    x = of_torch(values(SHAPE)).to(memory_format=torch.channels_last)
    y = functional.group_norm(x, 2)
    assert y.strides == tuple(4 * stride for stride in x.stride())
    assert np.array_equal(y, functional.group_norm(x.numpy(), 2))


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_bfloat16(library):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    kind = pytest.importorskip(library)
    x = values((4, 6)).astype(ml_dtypes.bfloat16)
    if library == "torch":
        given = kind.from_numpy(x.view(np.int16)).view(kind.bfloat16)
        out = kind.empty_like(given)
        assert functional.layer_norm(given, 6, out=out) is out
        assert out.view(kind.int16).numpy().tobytes() == functional.layer_norm(x, 6).tobytes()
    else:
        given = kind.numpy.asarray(x)
    y = functional.layer_norm(given, 6)
    assert y.dtype == ml_dtypes.bfloat16
    assert y.tobytes() == functional.layer_norm(x, 6).tobytes()


@pytest.mark.parametrize("function", CALLS)
@pytest.mark.parametrize("name", ["input", "out", *ARRAYS])
def test_what_is_no_array(engine, function, name):
    """Its kind and the argument are named, and nothing is touched."""
    arrays, others = arrays_of(function)
    if name not in arrays:
        pytest.skip("has no such argument")
    before = {key: a.tobytes() for key, a in arrays.items()}
    for value in ([1.0, 2.0], 3.0, "x", np.float32(1), {}, object()):
        with pytest.raises(TypeError, match=rf"{function}: {name} .*{type(value).__name__}"):
            getattr(functional, function)(**(arrays | {name: value}), **others)
    gpu = OnGpu(arrays[name], device=2)
    with pytest.raises(TypeError, match=rf"{function}: {name} .*OnGpu on another device: \(2, 0\)"):
        getattr(functional, function)(**(arrays | {name: gpu}), **others)
    assert {key: a.tobytes() for key, a in arrays.items()} == before


@pytest.mark.parametrize("function", CALLS)
def test_rules_hold_for_them_too(engine, function):
    arrays, others = arrays_of(function)
    call = getattr(functional, function)
    del arrays["out"]
    with pytest.raises(NotImplementedError, match="int32"):
        call(**(arrays | {"input": memoryview(array.array("i", range(360))).cast("B").cast("i", SHAPE)}), **others)
    with pytest.raises(RuntimeError, match=r"\(4, 6\)"):
        call(**arrays, **others, out=WithArray(values((4, 6))))
    read_only = values(SHAPE)
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        call(**arrays, **others, out=WithArray(read_only))


def tensors():
    """Torch tensors whose memory can't be had, by what the error says."""
    torch = pytest.importorskip("torch")
    x = torch.ones(4, 6, 3, 5)
    return {
        "requires grad": (RuntimeError, x.clone().requires_grad_()),
        "meta": (TypeError, x.to("meta")),
        "Sparse": (TypeError, x.to_sparse()),
        "negative bit": (TypeError, torch.complex(x, x).conj().imag),
    }


@pytest.mark.parametrize("says", ["requires grad", "meta", "Sparse", "negative bit"])
@pytest.mark.parametrize("function", CALLS)
def test_tensors_without_memory_of_their_own(function, says):
    error, tensor = tensors()[says]
    arrays, others = arrays_of(function)
    with pytest.raises(error, match=rf"{function}: input.*{says}") as caught:
        getattr(functional, function)(**(arrays | {"input": tensor}), **others)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (cpunorm.BatchNorm2d(6), SHAPE),
        (cpunorm.GroupNorm(2, 6), SHAPE),
        (cpunorm.InstanceNorm2d(6), SHAPE),
        (cpunorm.InstanceNorm2d(6), (6, 3, 5)),
        (cpunorm.LayerNorm(5), SHAPE),
        (cpunorm.RMSNorm(5), SHAPE),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("kind", WRITEABLE)
def test_modules(module, shape, kind):
    x = values(shape)
    module.eval()
    expected = module(x)
    assert module(kind(x)).tobytes() == expected.tobytes()
    out = kind(np.empty_like(x))
    assert module(kind(x), out=out) is out
    with pytest.raises(TypeError, match="list"):
        module(x.tolist())


def test_a_batch_is_counted_once():
    """Also one that fails after its rank is checked, as in torch."""
    module, x = cpunorm.BatchNorm2d(6), values(SHAPE)
    module(WithArray(x))
    with pytest.raises(TypeError, match="out"):
        module(x, out=[])
    with pytest.raises(RuntimeError, match="out"):
        module(WithArray(x), out=WithArray(values((2,))))
    with pytest.raises(TypeError, match="input"):
        module(OnGpu(x, device=2))
    assert module.num_batches_tracked == 3


@pytest.mark.parametrize("value", [b"123456", bytearray(24), np.float32(1), [1.0, 2.0]])
def test_what_is_no_array_is_refused(value):
    with pytest.raises(TypeError, match=type(value).__name__):
        functional.layer_norm(value, 6)
    with pytest.raises(RuntimeError, match="weight"):
        cpunorm.LayerNorm(6).load_state_dict({"weight": value, "bias": np.ones(6, np.float32)})
