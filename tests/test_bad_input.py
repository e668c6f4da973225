"""Bad input to the functions: torch's type of error, the offending value in the message, and nothing touched.

Each case is a good call with one argument replaced. `torch` is what live torch raises for it, where that is not
our own type: another one, or None where torch has no such rule or takes what we refuse on purpose.
"""

import copy
from typing import Any, NamedTuple

import fresh
import numpy as np
import pytest
from arrays import memory, ramp

from cpunorm import functional

F32, F64, F16 = np.float32, np.float64, np.float16
NAN = float("nan")


# What a case starts from: a call that works, positional arguments in order.
GOOD = {
    "batch_norm": {
        "input": ramp((2, 3, 4)),
        "running_mean": np.zeros(3, F32),
        "running_var": np.ones(3, F32),
        "weight": np.ones(3, F32),
        "bias": np.zeros(3, F32),
        "training": True,
        "momentum": 0.1,
        "eps": 1e-5,
    },
    "layer_norm": {
        "input": ramp((2, 3, 4)),
        "normalized_shape": (3, 4),
        "weight": np.ones((3, 4), F32),
        "bias": np.zeros((3, 4), F32),
        "eps": 1e-5,
    },
    "group_norm": {
        "input": ramp((2, 3, 4)),
        "num_groups": 3,
        "weight": np.ones(3, F32),
        "bias": np.zeros(3, F32),
        "eps": 1e-5,
    },
}
VECTORS = [(f, v) for f in GOOD for v in ("running_mean", "running_var", "weight", "bias") if v in GOOD[f]]


class Case(NamedTuple):
    function: str
    error: type
    says: tuple[str, ...]
    given: dict[str, Any]
    torch: type | None


def case(function, error, *says, torch="same", **given):
    def short(value):
        return f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else repr(value)[:30]

    name = f"{function}-" + ",".join(f"{k}={short(v)}" for k, v in given.items())
    return pytest.param(Case(function, error, says, given, error if torch == "same" else torch), id=name)


def cases():
    for function in GOOD:
        attribute = TypeError if function == "layer_norm" else AttributeError
        for value in (None, [[1.0, 2.0]], 3.0, "x", F32(1)):
            rule = None if isinstance(value, F32) else attribute
            yield case(function, TypeError, "input", type(value).__name__, torch=rule, input=value)
        masked = np.ma.masked_equal(ramp((2, 3, 4)), 5)
        yield case(function, TypeError, "input", "masked", torch=None, input=masked)
        for dtype in (np.int8, np.int32, np.int64, np.uint8, np.bool, np.complex64, np.complex128):
            # torch looks at the parameters' dtype first
            alone = {"input": ramp((2, 3, 4), dtype), "weight": None, "bias": None}
            yield case(function, NotImplementedError, np.dtype(dtype).name, **alone)
        for dtype in (np.longdouble, ">i4"):
            yield case(
                function, NotImplementedError, str(np.dtype(dtype)), torch=None, input=np.zeros((2, 3, 4), dtype)
            )
        for dtype in (object, "U2", "S2", "M8[s]", "m8[s]", [("a", F32)], "V4", np.dtypes.StringDType()):
            given = np.zeros((2, 3, 4), dtype)
            yield case(function, TypeError, "input", str(given.dtype), torch=None, input=given)
        for eps in (NAN, -1e-5, -1, -np.inf):
            rule = "same" if function == "batch_norm" and eps < 0 else None
            yield case(function, ValueError, "eps", "NaN" if eps != eps else repr(eps), torch=rule, eps=eps)
        for eps in (None, "1e-5", b"1", 1j, [1e-5]):
            yield case(function, TypeError, "eps", repr(eps), eps=eps)
        for data_format in ("NCHW", None, 1, np.array(["channels_first", "channels_last"])):
            if function != "layer_norm":
                yield case(function, ValueError, repr(data_format), torch=None, data_format=data_format)

    for function, vector in VECTORS:
        rowwise = function == "layer_norm"
        for value in ([1.0] * 3, (1.0,) * 3, 1.0, "w"):
            yield case(function, TypeError, vector, type(value).__name__, **{vector: value})
        yield case(function, TypeError, vector, "masked", torch=None, **{vector: np.ma.ones(3, F32)})
        for shape in ((4,), (2,), (1,), (), (0,), (3, 2)) + (((12,), (4, 3)) if rowwise else ()):
            size = str(int(np.prod(shape))) if function == "batch_norm" else str(shape)
            yield case(function, RuntimeError, vector, size, **{vector: np.ones(shape, F32)})
        if function == "group_norm" or vector.startswith("running"):
            for shape in ((1, 3), (3, 1)):
                yield case(function, RuntimeError, vector, str(shape), **{vector: np.ones(shape, F32)})
        good = (3, 4) if rowwise else (3,)
        for dtype in (F64, F16, np.int64, np.bool, np.complex64):
            name = np.dtype(dtype).name
            yield case(function, RuntimeError, vector, name, "float32", **{vector: np.ones(good, dtype)})
        yield case(function, RuntimeError, vector, "object", torch=None, **{vector: np.ones(good, object)})

    yield case("batch_norm", RuntimeError, "float64", "float32", input=ramp((2, 3, 4), F64))
    for dtypes in ({"weight": F64}, {"running_mean": F64}, {"weight": F16}, {"running_mean": F16, "running_var": F16}):
        given = {name: np.ones(3, dtype) for name, dtype in dtypes.items()}
        dtype = "float64" if F64 in dtypes.values() else "float16"
        yield case("batch_norm", RuntimeError, dtype, input=ramp((2, 3, 4), F16), **given)
    for shape in ((), (5,)):
        yield case(
            "batch_norm", RuntimeError, str(shape), input=ramp(shape), torch=RuntimeError if shape else IndexError
        )
        yield case("batch_norm", RuntimeError, str(shape), input=ramp(shape), training=False)
        yield case("group_norm", RuntimeError, str(shape), input=ramp(shape))
    for training in (True, False):
        yield case("batch_norm", RuntimeError, "5", "got 3", input=ramp((2, 5, 4)), training=training)
        # torch returns an empty batch before it looks at the channels
        for shape in ((0, 5, 4), (2, 0, 4)):
            yield case("batch_norm", RuntimeError, str(shape[1]), torch=None, input=ramp(shape), training=training)
        for name in ("running_mean", "running_var"):
            error = ValueError if training else RuntimeError
            yield case("batch_norm", error, name, training=training, **{name: None})
        yield case("batch_norm", ValueError, "momentum", "NaN", torch=None, momentum=NAN, training=training)
        for momentum in (None, "0.1", 1j, [0.1]):
            yield case("batch_norm", TypeError, "momentum", repr(momentum), momentum=momentum, training=training)
    yield case("batch_norm", RuntimeError, "running_mean", training=False, running_mean=None, running_var=None)
    for eps in (0.0, 0):
        yield case("batch_norm", ValueError, "eps", repr(eps), eps=eps)
    yield case("batch_norm", ValueError, "eps", "-1e-05", eps=-1e-5, training=False)
    for shape in ((1, 3), (1, 3, 1), (1, 3, 1, 1)):
        yield case("batch_norm", ValueError, str(shape), input=ramp(shape))
        yield case("group_norm", ValueError, str(shape), input=ramp(shape))
    # torch says TypeError too; a momentum put in this place must not switch training on
    for training in (1, 0.1, "no", None):
        yield case("batch_norm", TypeError, "training", repr(training), training=training)

    for shape in ((4, 3), (3,), (2, 3), (3, 4, 1), (1, 2, 3, 4), (0,)):
        yield case("layer_norm", RuntimeError, str(shape), "(2, 3, 4)", normalized_shape=shape)
    for shape in ((), []):
        yield case("layer_norm", RuntimeError, repr(shape), normalized_shape=shape)
    yield case("layer_norm", RuntimeError, "-1", normalized_shape=(3, -1))
    yield case("layer_norm", RuntimeError, str(10**30), torch=TypeError, normalized_shape=(10**30,))
    for shape in (4.0, "4", None, {4}):
        yield case("layer_norm", TypeError, repr(shape), normalized_shape=shape)
    for element in (4.0, "4", None):
        yield case("layer_norm", TypeError, repr(element), normalized_shape=(3, element))
    yield case("layer_norm", TypeError, "True", torch=None, normalized_shape=(3, True))
    yield case("layer_norm", RuntimeError, "(3, 4)", "(2, 0)", input=ramp((2, 0)))
    yield case("layer_norm", RuntimeError, "(3, 4)", "()", input=ramp(()))

    for groups in (2, 4, 6, -1):
        yield case("group_norm", RuntimeError, "num_groups", str(groups), num_groups=groups)
    yield case("group_norm", RuntimeError, "num_groups", "0", torch=ZeroDivisionError, num_groups=0)
    for groups in (10**30, -(10**30)):
        yield case("group_norm", RuntimeError, "num_groups", str(groups), torch=ValueError, num_groups=groups)
    for groups in (1.0, "3", None, True):
        yield case("group_norm", TypeError, "num_groups", repr(groups), num_groups=groups)
    yield case("group_norm", RuntimeError, "num_groups", "got 3", "(0, 4)", input=ramp((0, 4)))


CASES = list(cases())


@pytest.mark.parametrize("case", CASES)
def test_raises_and_touches_nothing(engine, case):
    arguments = copy.deepcopy(GOOD[case.function] | case.given)
    data_format = {"data_format": arguments.pop("data_format")} if "data_format" in arguments else {}
    given = arguments["input"]
    floating = isinstance(given, np.ndarray) and given.dtype in (F16, F32, F64)
    out = np.full(given.shape, 7, given.dtype) if floating else np.full((2, 3, 4), 7, F32)
    before = memory(arguments | {"out": out})
    for more in ({}, {"out": out}):
        with pytest.raises(case.error) as caught:
            getattr(functional, case.function)(*arguments.values(), **data_format, **more)
        assert type(caught.value) is case.error
        for words in case.says:
            assert words in str(caught.value)
        assert memory(arguments | {"out": out}) == before


@pytest.mark.parametrize("case", [c for c in CASES if c.values[0].torch is not None])
def test_torch_raises_the_same_type(case):
    torch = pytest.importorskip("torch")
    arguments = copy.deepcopy(GOOD[case.function] | case.given)
    tensors = [torch.from_numpy(v) if isinstance(v, np.ndarray) else v for v in arguments.values()]
    with pytest.raises(case.torch) as caught:
        getattr(torch.nn.functional, case.function)(*tensors)
    assert type(caught.value) is case.torch


@pytest.mark.parametrize("function", GOOD)
def test_a_good_call_is_good(engine, function):
    """Else every case above could raise for another reason than its own."""
    arguments = copy.deepcopy(GOOD[function])
    assert np.isfinite(getattr(functional, function)(*arguments.values())).all()


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
def test_read_only_running_statistics(engine, name):
    arguments = copy.deepcopy(GOOD["batch_norm"])
    arguments[name].flags.writeable = False
    before = memory(arguments)
    with pytest.raises(ValueError, match="writeable"):
        functional.batch_norm(*arguments.values())
    assert memory(arguments) == before
    functional.batch_norm(**(arguments | {"training": False}))  # evaluation only reads them


@pytest.mark.parametrize(
    ("function", "shape", "more"),
    [
        ("batch_norm", (0, 3, 4), {}),
        ("batch_norm", (2, 3, 0), {}),
        ("batch_norm", (0, 3), {"training": False}),
        ("batch_norm", (2, 0, 4), dict.fromkeys(["running_mean", "running_var", "weight", "bias"], np.ones(0, F32))),
        ("layer_norm", (0, 3, 4), {}),
        ("layer_norm", (2, 0), {"normalized_shape": 0, "weight": np.ones(0, F32), "bias": np.ones(0, F32)}),
        ("group_norm", (0, 3, 4), {}),
        ("group_norm", (2, 3, 0), {}),
        ("group_norm", (2, 0, 4), {"weight": np.ones(0, F32), "bias": np.ones(0, F32)}),
    ],
)
@pytest.mark.parametrize("dtype", [F32, F64])
def test_an_axis_of_zero_gives_an_empty_output(engine, function, shape, more, dtype):
    arguments = copy.deepcopy(GOOD[function] | {"input": ramp(shape)} | more)
    arguments = {k: v.astype(dtype) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
    before = memory(arguments)
    y = getattr(functional, function)(**arguments)
    assert (y.shape, y.dtype) == (shape, dtype)
    assert memory(arguments) == before
    out = np.empty(shape, dtype)
    assert getattr(functional, function)(**arguments, out=out) is out


@pytest.mark.parametrize("momentum", [-1.0, 0, 1, 2.0, True, np.float32(0.5)])
@pytest.mark.parametrize("eps", [1, True, np.float32(1e-5), 1e300])
def test_any_real_number_is_taken(engine, momentum, eps):
    arguments = copy.deepcopy(GOOD["batch_norm"] | {"momentum": momentum, "eps": eps})
    functional.batch_norm(**arguments)
    batch = ramp((2, 3, 4)).mean(axis=(0, 2))
    np.testing.assert_allclose(arguments["running_mean"], float(momentum) * batch, rtol=1e-6)  # from 0: one rounding


def test_a_class_of_the_same_name_is_not_taken():
    code = """
import ml_dtypes
import numpy as np
from cpunorm import functional, moments

class bfloat16(np.void):
    pass

for call in (lambda x: functional.layer_norm(x, 4), moments):
    for size in (1, 2, 8):
        try:
            call(np.zeros((3, 4), np.dtype((bfloat16, size))))
        except TypeError:
            continue
        raise AssertionError(size)
print(functional.layer_norm(np.ones((3, 4), ml_dtypes.bfloat16), 4).dtype)
"""
    assert fresh.output(code) == "bfloat16"
