"""Bad input to the modules: torch's type of error, nothing touched, and the counter moved where torch moves it."""

import copy
import re
from typing import Any, NamedTuple

import numpy as np
import pytest
from arrays import memory, ramp

import cpunorm

F64 = np.float64
NAN = float("nan")


class Case(NamedTuple):
    kind: str
    arguments: tuple
    input: Any
    error: type
    says: tuple[str, ...]
    counted: int  # the counter goes up after the rank check and before the others
    training: bool
    torch: type | None  # what live torch raises; None where it has no such rule
    more: dict[str, Any]

    def build(self, package):
        return getattr(package, self.kind)(*self.arguments).train(self.training)


def case(kind, arguments, given, error, *says, counted=0, training=True, torch="same", **more):
    what = f"{getattr(given, 'dtype', type(given).__name__)}{list(np.shape(given))}"
    name = f"{kind}{arguments}-{what}-{'train' if training else 'eval'}" + "".join(more)
    rule = error if torch == "same" else torch
    return pytest.param(Case(kind, arguments, given, error, says, counted, training, rule, more), id=name)


def cases():
    for kind, shape, wrong in (
        ("BatchNorm1d", (2, 3), [(), (3,), (2, 3, 4, 5)]),
        ("BatchNorm2d", (2, 3, 4, 5), [(3,), (2, 3), (2, 3, 4), (2, 3, 4, 5, 6)]),
        ("BatchNorm3d", (2, 3, 4, 5, 6), [(2, 3, 4), (2, 3, 4, 5), (1, 2, 3, 4, 5, 6)]),
    ):
        more = {"counted": 1}
        for rank in wrong:
            for training in (True, False):
                yield case(kind, (3,), ramp(rank), ValueError, str(rank), kind, training=training)
        for given in (None, [1.0, 2.0]):
            yield case(kind, (3,), given, TypeError, type(given).__name__, torch=AttributeError)
        yield case(kind, (5,), ramp(shape), RuntimeError, "3", "5", **more)
        yield case(kind, (5,), ramp(shape), RuntimeError, "3", "5", training=False)
        single = (1, 3) + (1,) * (len(shape) - 2)
        yield case(kind, (3,), ramp(single), ValueError, str(single), **more)
        yield case(kind, (3,), ramp(shape, np.int64), NotImplementedError, "int64", **more)
        yield case(kind, (3,), ramp(shape, F64), RuntimeError, "float64", "float32", **more)
        yield case(kind, (3, 0.0), ramp(shape), ValueError, "eps", "0.0", **more)
        yield case(kind, (3, -1.0), ramp(shape), ValueError, "eps", "-1.0", training=False)
        yield case(kind, (3, 1e-5, NAN), ramp(shape), ValueError, "momentum", "NaN", torch=None, **more)
        yield case(kind, (3, 1e-5, "0.1"), ramp(shape), TypeError, "momentum", "'0.1'", **more)
        for out, error in ((ramp(shape, F64), RuntimeError), (ramp((2, 3, 1)), RuntimeError), ([], TypeError)):
            says = "list" if error is TypeError else str(out.dtype if out.dtype == F64 else out.shape)
            yield case(kind, (3,), ramp(shape), error, says, torch=None, out=out, **more)
    for shape in ((2, 4), (3, 5), (4, 4, 3), ()):
        yield case("LayerNorm", ((4, 5),), ramp(shape), RuntimeError, "(4, 5)", str(shape))
    yield case("LayerNorm", ((4, 5),), ramp((2, 4, 5), F64), RuntimeError, "float64")
    yield case("LayerNorm", (4, -1.0), ramp((2, 4)), ValueError, "-1.0", torch=None)
    for training in (True, False):
        yield case("GroupNorm", (2, 4), ramp((4,)), RuntimeError, "(4,)", training=training)
        yield case("GroupNorm", (2, 4), ramp((2, 6)), RuntimeError, "(6,)", "(4,)", training=training)
        yield case("GroupNorm", (2, 4), ramp((2, 3, 5)), RuntimeError, "(2, 3, 5)", training=training)
        yield case("GroupNorm", (4, 4), ramp((1, 4)), ValueError, "(1, 4)", training=training)


CASES = list(cases())


@pytest.mark.parametrize("case", CASES)
def test_raises_and_keeps_its_state(engine, case):
    module = case.build(cpunorm)
    arguments = copy.deepcopy({"input": case.input} | case.more)

    def state():
        counter = module.state_dict().get("num_batches_tracked")
        return memory(arguments | module.state_dict() | {"num_batches_tracked": None}), counter

    before, _ = state()
    with pytest.raises(case.error) as caught:
        module(**arguments)
    assert type(caught.value) is case.error
    for words in case.says:
        assert words in str(caught.value)
    after, counter = state()
    assert after == before
    assert (counter or 0) == case.counted


@pytest.mark.parametrize("case", [c for c in CASES if c.values[0].torch is not None])
def test_torch_raises_the_same_type_and_counts_the_same(case):
    torch = pytest.importorskip("torch")
    module = case.build(torch.nn)
    with pytest.raises(case.torch) as caught:
        module(torch.from_numpy(case.input) if isinstance(case.input, np.ndarray) else case.input)
    assert type(caught.value) is case.torch
    assert module.state_dict().get("num_batches_tracked", 0) == case.counted


# (kind, arguments, error, what the message says, torch's error or None)
CONSTRUCTORS = [
    *(("BatchNorm1d", (n,), TypeError, repr(n), TypeError) for n in (2.0, "2", None, True)),
    ("BatchNorm1d", ([2],), TypeError, "[2]", None),
    ("BatchNorm2d", (-1,), RuntimeError, "-1", RuntimeError),
    *(("LayerNorm", (n,), TypeError, repr(n), TypeError) for n in (2.0, "2", None, True)),
    ("LayerNorm", ((2, -1),), RuntimeError, "-1", RuntimeError),
    ("LayerNorm", ((),), RuntimeError, "()", None),  # torch raises it at the call
    *(("GroupNorm", (g, 4), ValueError, f"({g})", ValueError) for g in (3, 8, -3)),
    *(("GroupNorm", (g, 4), ValueError, f"({g})", None) for g in (0, -1)),
    *(("GroupNorm", (g, 4), TypeError, repr(g), None) for g in (2.0, True)),
    *(("GroupNorm", (g, 4), TypeError, repr(g), TypeError) for g in ("2", None)),
    ("GroupNorm", (2, -4), RuntimeError, "-4", RuntimeError),
    ("GroupNorm", (2, 4.0), TypeError, "4.0", TypeError),
]


@pytest.mark.parametrize(("kind", "arguments", "error", "says", "torch_error"), CONSTRUCTORS)
def test_constructors(kind, arguments, error, says, torch_error):
    with pytest.raises(error) as caught:
        getattr(cpunorm, kind)(*arguments)
    assert type(caught.value) is error
    assert says in str(caught.value)


@pytest.mark.parametrize(("kind", "arguments", "error", "says", "torch_error"), [c for c in CONSTRUCTORS if c[-1]])
def test_torch_constructors_raise_the_same_type(kind, arguments, error, says, torch_error):
    torch = pytest.importorskip("torch")
    with pytest.raises(torch_error) as caught:
        getattr(torch.nn, kind)(*arguments)
    assert type(caught.value) is torch_error


@pytest.mark.parametrize("kind", ["BatchNorm1d", "LayerNorm", "GroupNorm"])
@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"device": "cuda"}, RuntimeError, "'cuda'"),
        ({"device": 0}, RuntimeError, "got 0"),
        ({"dtype": np.int64}, RuntimeError, "int64"),
        ({"dtype": np.complex64}, RuntimeError, "complex64"),
        ({"dtype": np.longdouble}, RuntimeError, str(np.dtype(np.longdouble))),
        ({"dtype": "no such"}, TypeError, "no such"),
        ({"channels": 3}, TypeError, "channels"),
    ],
)
def test_devices_and_dtypes(kind, given, error, says):
    with pytest.raises(error, match=says):
        getattr(cpunorm, kind)(*((2, 4) if kind == "GroupNorm" else (4,)), **given)


@pytest.mark.parametrize("mode", [1, 0, None, "train", np.True_])
def test_training_mode(mode):
    module = cpunorm.LayerNorm(4)
    with pytest.raises(ValueError, match=re.escape(repr(mode))):
        module.train(mode)
    assert module.training is True
