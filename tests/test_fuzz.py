"""Arbitrary arguments and hostile checkpoints: the right result or an error of an allowed type, nothing else touched.

pytest tests/test_fuzz.py                        # some hundred inputs each
python tests/test_fuzz.py --seconds 600          # the same properties, new inputs, until the time is over
python tests/test_fuzz.py --atheris --seconds 60 # bytes of checkpoints, led by coverage (needs atheris)
"""

import argparse
import atexit
import contextlib
import io
import os
import pickle
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import engines
import fresh
import hypothesis
import ml_dtypes
import numpy as np
import oracle
import pytest
import strided
from arrays import memory
from hypothesis import strategies as st

pytest.importorskip("safetensors")

import safetensors.numpy

import cpunorm
from cpunorm import functional

ALLOWED = (TypeError, ValueError, RuntimeError, OverflowError)  # the last for 10**400 as eps, as in torch
DTYPES = ("f4", "f8", "f2", ">f4", ">f8", "i4", "u1", "?", "c8", "S3", "O", "m8[s]")
SPECIAL = (0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, 1e-300, 3.4e38, 1.7e308, -1e30)
LENGTHS = st.one_of(st.integers(1, 6), st.integers(0, 6), st.sampled_from([1, 2, 7, 16, 17, 33, 64, 65, 130]))
seen = Counter()


def mostly(usual, *others):
    """`usual` fifteen times out of sixteen: most calls have one fault or none."""
    return st.integers(0, 15).flatmap(lambda turn: usual if turn < 15 else st.one_of(*others))


NUMBERS = st.sampled_from(
    [
        0,
        1,
        -1,
        True,
        0.0,
        1e-30,
        1e30,
        -1e-5,
        np.nan,
        np.inf,
        10**400,
        2**70,
        "1",
        None,
        1j,
        [],
        np.float32(0.5),
        np.ones(1),
    ]
)
EPS = mostly(st.just(1e-5), NUMBERS, st.sampled_from([0.0, 0, 1e-12, 0.5]))


@st.composite
def arrays(draw, shape=None, dtype=None):
    """An array of any dtype, values and strides; it may be read-only."""
    shape = (
        tuple(draw(mostly(st.lists(LENGTHS, min_size=2, max_size=5), st.lists(LENGTHS, max_size=2))))
        if shape is None
        else shape
    )
    hypothesis.assume(np.prod(shape) <= 20_000)
    dtype = np.dtype(draw(mostly(st.sampled_from(DTYPES[:2]), st.sampled_from(DTYPES))) if dtype is None else dtype)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    numbers = np.asarray(
        rng.standard_normal(shape) * draw(st.sampled_from([1, 1e-3, 1e5])) + draw(st.sampled_from([0, 1, -1e4]))
    )
    if draw(st.integers(0, 4)) == 0 and numbers.size:
        numbers.flat[draw(st.integers(0, numbers.size - 1))] = draw(st.sampled_from(SPECIAL))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", np.exceptions.ComplexWarning)
        values = numbers.astype(np.int64).astype(dtype) if dtype.kind == "m" else numbers.astype(dtype)
    array = values
    if len(shape) > 1 and not dtype.hasobject:
        layout = draw(st.sampled_from([*strided.LAYOUTS, "broadcast"]))
        repeated = layout == "broadcast"
        array = np.broadcast_to(values[..., :1], shape) if repeated else strided.LAYOUTS[layout](values)
    if draw(st.integers(0, 9)) == 0:
        array.flags.writeable = False
    return array


def beside(draw, x, shape, usual):
    """A parameter for x: None, right, or anything."""
    return draw(mostly(st.one_of(st.none(), arrays(shape, x.dtype if usual else None)), arrays(), st.just([1.0])))


def outs(draw, x):
    """An `out`: none, new, x itself, part of x, or anything."""
    kind = draw(st.sampled_from(["none", "none", "new", "x"] * 3 + ["reversed", "shifted", "any"]))
    if kind == "new":
        return draw(arrays(x.shape, x.dtype))
    if kind == "x":
        return x
    if kind == "reversed":
        return x[::-1] if x.ndim else x
    if kind == "shifted" and x.size > 1 and x.flags.c_contiguous:
        return np.lib.stride_tricks.as_strided(x.reshape(-1)[1:], x.shape, (0,) * x.ndim)  # overlaps itself, too
    return draw(arrays()) if kind == "any" else None


@st.composite
def calls(draw):
    """(name of a function, its arguments)."""
    name = draw(st.sampled_from(["batch_norm", "group_norm", "layer_norm"]))
    x = draw(mostly(arrays(), st.sampled_from([None, 1.0, [1.0, 2.0], np.ma.ones((2, 3)), np.float32(1)])))
    given = {"input": x, "eps": draw(EPS)}
    if not isinstance(x, np.ndarray):
        x = np.ones((2, 3), np.float32)
    given["out"] = outs(draw, x)
    usual = draw(st.integers(0, 9)) > 0
    if name == "layer_norm":
        axes = draw(st.integers(0, x.ndim))
        shape = x.shape[x.ndim - axes :]
        given["normalized_shape"] = draw(mostly(st.just(shape), st.just(list(shape)), st.integers(-1, 2**65), NUMBERS))
    else:
        given["data_format"] = draw(
            mostly(st.sampled_from(["channels_first", "channels_last"]), st.just("NCHW"), NUMBERS)
        )
        shape = (x.shape[-1 if given["data_format"] == "channels_last" else 1] if x.ndim > 1 else 3,)
    given |= {"weight": beside(draw, x, shape, usual), "bias": beside(draw, x, shape, usual)}
    if name == "group_norm":
        divisors = [n for n in range(1, shape[0] + 1) if shape[0] % n == 0] or [1]
        given["num_groups"] = draw(mostly(st.sampled_from(divisors), NUMBERS, st.integers(-1, 9)))
    if name == "batch_norm":
        given["training"] = draw(mostly(st.booleans(), NUMBERS))
        given["momentum"] = draw(mostly(st.just(0.1), NUMBERS))
        if draw(st.integers(0, 3)) or given["training"] is False:
            given |= {
                f"running_{k}": draw(mostly(arrays(shape, x.dtype), st.none(), arrays())) for k in ("mean", "var")
            }
        else:
            given |= {"running_mean": None, "running_var": None}
    return name, given


def expected(name, given):
    """What the oracle makes of a call that was right, or None where its bound says nothing; and that bound."""
    x, w, b, eps = (given[k] for k in ("input", "weight", "bias", "eps"))
    arrays_given = [
        np.asarray(v, np.float64)
        for v in (x, w, b, given.get("running_mean"), given.get("running_var"))
        if v is not None
    ]
    if x.size == 0 or any(not np.isfinite(a).all() or np.abs(a).max() > 1e9 for a in arrays_given):
        return None, None
    if x.dtype.itemsize == 2 or not 1e-6 <= float(eps) <= 1:
        return None, None
    last = given.get("data_format") == "channels_last"
    first = np.moveaxis(x, -1, 1) if last else x
    if name == "layer_norm":
        shape = given["normalized_shape"]
        shape = tuple(shape) if np.ndim(shape) else (int(shape),)
        y = oracle.layer_norm(x, shape, w, b, float(eps))
    elif name == "group_norm":
        y = oracle.group_norm(first, int(given["num_groups"]), w, b, float(eps))
    elif given["training"]:
        y = oracle.batch_norm(first, w, b, float(eps))
    else:
        if given["running_var"].min() < 0:
            return None, None
        y = oracle.batch_norm(first, w, b, float(eps), (given["running_mean"], given["running_var"]))
    y = np.moveaxis(y, 1, -1) if last and name != "layer_norm" else y
    scale = 1 + float(np.abs(np.asarray(x, np.float64)).max()) / float(eps) ** 0.5  # conditioning, whatever the domain
    bound = oracle.bound(y, x.dtype.newbyteorder("="), 1 if w is None else w, b, kappa=scale)
    # the last term: a product of weight and 1 / std that is subnormal, times x - mean
    span = 1 + 2 * max(float(np.abs(a).max(initial=0)) for a in arrays_given)
    return y, bound * (1 + 1e-3) + 4 * np.finfo(x.dtype).smallest_subnormal * span


def check_call(name, given, error_state):
    """Make the call; the property of this file."""
    untouched = {
        k: v for k, v in given.items() if not (k == "out" or (k.startswith("running") and given.get("training")))
    }
    if all(isinstance(given[k], np.ndarray) for k in ("out", "input")) and np.may_share_memory(
        given["out"], given["input"]
    ):
        del untouched["input"]
    before, all_before = memory(untouched), memory(given)
    original = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in given.items()}
    try:
        with np.errstate(all=error_state):
            y = getattr(functional, name)(**given)
    except ALLOWED as error:
        if memory(given) != all_before:
            raise AssertionError("a call that failed left a trace") from error
        seen[f"{name}: {type(error).__name__}"] += 1
        return
    assert memory(untouched) == before
    assert y.shape == given["input"].shape
    assert y is given["out"] or (given["out"] is None and y.dtype == given["input"].dtype.newbyteorder("="))
    right, bound = expected(name, original)
    seen[f"{name}: {'runs' if right is None else 'right'}"] += 1
    if right is not None:
        error = np.abs(y.astype(np.float64) - right)
        assert (error <= bound).all(), f"error {np.max(error / bound):.3g} times what is allowed"


@pytest.mark.parametrize("engine", engines.COMPILED_FIRST, indirect=True)
@hypothesis.given(calls(), st.sampled_from(["warn", "raise", "ignore"]))
@hypothesis.settings(max_examples=8 * hypothesis.settings.default.max_examples)
def test_any_arguments(engine, call, error_state):
    check_call(*call, error_state)


# NumPy's error state: the norms don't look at it.

# Weights with which results underflow and overflow in each type.
EXTREME = {
    "float16": (1e-8, 6e4),
    "bfloat16": (1e-39, 3.4e38),
    "float32": (1e-45, 3.4e38),
    "float64": (5e-324, 1.7e308),
}


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("into", ["new", "out", "strided out"])
@pytest.mark.parametrize("dtype", EXTREME)
def test_numpys_error_state_is_not_looked_at(dtype, into):
    kind = np.dtype(getattr(ml_dtypes, dtype) if dtype == "bfloat16" else dtype)
    x = np.tile([[-1, 1, 3, 9]], (4, 9)).astype(kind)
    x[0, :4] = np.array([np.nan, np.inf, -np.inf, 0]).astype(kind)
    x[1] = 1
    inner = np.float64 if dtype == "float64" else np.float32
    calls = {
        "layer_norm": (functional.layer_norm, lambda w: (36, w, w, 0.0)),
        "group_norm": (functional.group_norm, lambda w: (4, w, w, 0.0)),
        "batch_norm": (functional.batch_norm, lambda w: (w, w, w, w, False, 0.1, 1e-5)),
        "training": (functional.batch_norm, lambda w: (w.copy(), w.copy(), w, w, True, 1e30, 1e-5)),
    }
    for extreme in EXTREME[dtype]:
        weight = np.full(36, extreme, inner)
        for name, (function, arguments) in calls.items():
            out = (
                None if into == "new" else np.ones((4, 72), kind)[:, ::2] if into == "strided out" else np.ones_like(x)
            )
            states = {}
            for state in ("ignore", "warn", "raise"):  # warnings are errors here
                with np.errstate(all=state):
                    states[state] = function(x, *arguments(weight), out=out).tobytes()
            assert len(set(states.values())) == 1, name


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_numpys_error_state_and_modules(dtype):
    """Running statistics that overflow their type, checkpoints that over- and underflow it."""
    kind = np.dtype(dtype)
    x = np.full((4, 3), np.finfo(kind).max / 2, kind)
    x[::2] = -x[::2]
    with np.errstate(all="raise"):
        module = cpunorm.BatchNorm1d(3, dtype=kind, momentum=0.5)
        module(x)
        module(x / kind.type(1000))
        tiny = {key: np.full(3, 1e-320) for key in ("weight", "running_mean", "running_var")}
        module.load_state_dict(tiny | {"bias": np.full(3, 1e308)}, strict=False)
        assert (module.bias == np.array(1e308 if dtype == "float64" else np.inf)).all()
        module(x)


# Checkpoints

CHANNELS = 6
HOSTILE = []  # what ran


FILE = Path(tempfile.gettempdir(), f"cpunorm-fuzz-{os.getpid()}.npz")
atexit.register(FILE.unlink, missing_ok=True)


class Code:
    """Its pickle runs code."""

    def __reduce__(self):
        return HOSTILE.append, (1,)


def batch_norm():
    return cpunorm.BatchNorm1d(CHANNELS)


def state_of(module):
    return {k: v.tobytes() for k, v in module.state_dict().items()}


VALUES = st.one_of(
    arrays((CHANNELS,)),
    arrays(()),
    arrays(),
    NUMBERS,
    st.builds(lambda n: np.broadcast_to(np.float32(1), (n,)), st.sampled_from([CHANNELS, 2**40, 2**50])),
    st.sampled_from([object(), lambda: 1, {"a": 1}, b"123456", np.ma.ones(CHANNELS)]),
)
KEYS = st.one_of(st.sampled_from(list(batch_norm().state_dict())), st.text(max_size=3))


def check_state(state, strict):
    """All of a checkpoint is loaded, or nothing."""
    module = batch_norm()
    before = state_of(module)
    try:
        module.load_state_dict(state, strict)
    except ALLOWED as error:
        seen[f"state: {type(error).__name__}"] += 1
        assert state_of(module) == before
    else:
        seen["state: loaded"] += 1
        for name, value in module.state_dict().items():
            if name in state:
                with np.errstate(all="ignore"):
                    np.testing.assert_array_equal(
                        value, np.asarray(state[name]).astype(value.dtype).reshape(value.shape)
                    )


@hypothesis.given(
    st.dictionaries(KEYS, VALUES, max_size=6).flatmap(
        lambda extra: st.sampled_from([{}, batch_norm().state_dict()]).map(lambda good: good | extra)
    ),
    st.booleans(),
)
@hypothesis.settings(max_examples=8 * hypothesis.settings.default.max_examples)
def test_any_state_dict(state, strict):
    check_state(state, strict)


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


FILES = {
    "npz": npz(**batch_norm().state_dict()),
    "npz with code": npz(**batch_norm().state_dict() | {"weight": np.array([Code()] * CHANNELS)}),
    "safetensors": safetensors.numpy.save(batch_norm().state_dict()),
    "pickle": pickle.dumps({"weight": Code()}),
    "moments": npz(record=np.zeros((7, 2)), same_count=np.int64(0), axis=np.array([0]), dtype=np.array("float64")),
    "moments of all": npz(record=np.ones(7), same_count=np.int64(1), axis=np.array("all"), dtype=np.array("float16")),
}


def load_bytes(data):
    """`check_bytes`, without the warnings of readers about what is wrong with the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_bytes(data)


def check_bytes(data):
    """Load a file of any kind; whatever it holds, no code runs, and the module is as before or sound."""
    module = batch_norm()
    before = state_of(module)
    for read in (lambda: np.load(io.BytesIO(data)), lambda: safetensors.numpy.load(data)):
        try:
            module.load_state_dict(read())
        except Exception as error:  # any of the reader's
            seen[f"file: {type(error).__name__}"] += 1
        else:
            seen["file: loaded"] += 1
            before = state_of(module)
        assert state_of(module) == before
        assert not HOSTILE
    FILE.write_bytes(data)
    try:
        found = cpunorm.Moments.load(FILE)
    except ValueError as error:
        seen["moments: refused"] += 1
        assert "holds no moments" in str(error)  # noqa: PT017
    else:
        seen["moments: loaded"] += 1
        repr(found)
        assert cpunorm.standardize(np.ones((1, *found.shape)), 0, moments=found).shape == (1, *found.shape)
    assert not HOSTILE
    assert [(v.shape, v.dtype) for v in module.state_dict().values()] == [
        (v.shape, v.dtype) for v in batch_norm().state_dict().values()
    ]


@st.composite
def files(draw):
    """A file with some bytes, or its length, changed."""
    data = bytearray(FILES[draw(st.sampled_from(list(FILES)))])
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data) - 1))
        data[at] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))])


@hypothesis.given(files())
@hypothesis.settings(max_examples=6 * hypothesis.settings.default.max_examples)
def test_any_bytes(data):
    load_bytes(data)


CLAIMS = {
    "npz": """
import io, zipfile
def claims(length):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({length},), }}".ljust(117) + "\\n"
        start = b"\\x93NUMPY\\x01\\x00" + len(header).to_bytes(2, "little")
        archive.writestr("weight.npy", start + header.encode() + bytes(24))
    file.seek(0)
    return np.load(file)
""",
    "safetensors": """
import json
import safetensors.numpy
def claims(length):
    entry = {"dtype": "F32", "shape": [length], "data_offsets": [0, 4 * length]}
    header = json.dumps({"weight": entry}).encode()
    return safetensors.numpy.load(len(header).to_bytes(8, "little") + header + bytes(24))
""",
    "a view that repeats one value": """
def claims(length):
    return {"weight": np.broadcast_to(np.float32(1), (length,))}
""",
    "torch's file of such a view": """
import io, torch
def claims(length):
    file = io.BytesIO()
    torch.save({"weight": torch.zeros(1, dtype=torch.bfloat16).expand(length)}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)
""",
}


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of resident memory as Linux has it")
@pytest.mark.slow
@pytest.mark.parametrize("source", CLAIMS)
def test_a_length_that_is_merely_claimed_takes_no_memory(source):
    if "torch" in source:
        pytest.importorskip("torch")
    code = f"""
import resource
import numpy as np
import cpunorm
{CLAIMS[source]}
def refused(length):
    try:
        module.load_state_dict(claims(length), strict=False)
    except Exception:
        assert module.weight.shape == (6,)
        return True
module = cpunorm.LayerNorm(6)
assert refused(7)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert refused(2**28) and refused(2**50)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16)  # KiB
"""
    assert fresh.output(code) == "True"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="the first of those that are taken, one after the other")
    parser.add_argument("--atheris", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("error")
    if given.atheris:
        import atheris

        with contextlib.suppress(SystemExit):
            atheris.instrument_all()
        corpus = Path(tempfile.mkdtemp(prefix="cpunorm-fuzz-"))
        atexit.register(shutil.rmtree, corpus, ignore_errors=True)
        for name, data in FILES.items():
            (corpus / name).write_bytes(data)
        options = {"max_total_time": f"{given.seconds:.0f}", "artifact_prefix": f"{tempfile.gettempdir()}/"}
        options |= {"seed": given.seed or 1, "max_len": 4096}
        atheris.Setup([sys.argv[0], *(f"-{k}={v}" for k, v in options.items()), str(corpus)], load_bytes)
        warnings.simplefilter("ignore")
        atheris.Fuzz()
        return
    end, seed = time.monotonic() + given.seconds, given.seed
    settings = hypothesis.settings(
        max_examples=1000,
        deadline=None,
        derandomize=False,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    import test_fuzz_family  # it takes strategies from here

    states = st.sampled_from(["warn", "raise", "ignore"])
    properties = (
        (calls(), lambda call, state: check_call(*call, state)),
        (test_fuzz_family.calls(), test_fuzz_family.check),
        (files(), lambda data, state: load_bytes(data)),
    )
    while time.monotonic() < end:
        for call, check in properties:
            with cpunorm.engine(("cython", "reference")[seed % 2]):
                hypothesis.seed(seed)(settings(hypothesis.given(call, states)(check)))()
        seed += 1
    print(f"seeds {given.seed} to {seed - 1}, {sum(seen.values())} inputs: {dict(sorted(seen.items()))}")


if __name__ == "__main__":
    import test_fuzz  # as test_fuzz_family sees it

    test_fuzz.main()
