"""Arbitrary arguments of what goes beyond the norms of test_fuzz.py: epilogues, scale, lengths, sums, moments, images.

What a call makes of arrays of any memory, in any of NumPy's error states, it makes of plain copies too; or it raises
an allowed error. `python tests/test_fuzz.py` goes through these, too.
"""

import contextlib
import warnings

import engines
import hypothesis
import ml_dtypes
import numpy as np
import pytest
import test_fuzz
from arrays import memory
from hypothesis import strategies as st
from test_fuzz import ALLOWED, EPS, NUMBERS, arrays, beside, mostly, outs, seen

import cpunorm
from cpunorm import functional
from cpunorm._arguments import ACTIVATIONS

FLOATS = ("f4", "f8", "f2", ml_dtypes.bfloat16)
COUNTED = (*FLOATS, "i4", "u1", "?", "i8", "u2", ">f4", ">i2")
NORMS = ("rms_norm", "instance_norm", "layer_norm", "group_norm", "batch_norm", "add_layer_norm", "add_rms_norm")
STATISTICS = ("moments", "standardize", "standardize_sliding")
WRITTEN = ("out", "sum_out", "running_mean", "running_var")


def one_of(draw, *kinds):
    return draw(st.sampled_from(kinds))


def norm_of(draw, name):
    """Arguments of a norm, with what they have in common now and then."""
    x = draw(arrays(dtype=draw(mostly(st.sampled_from(FLOATS), st.sampled_from(COUNTED)))))
    given, usual = {"input": x, "eps": draw(EPS)}, draw(st.integers(0, 9)) > 0
    if name.endswith(("layer_norm", "rms_norm")):
        axes = draw(st.integers(0, x.ndim))
        shape = x.shape[x.ndim - axes :]
        given["normalized_shape"] = draw(mostly(st.just(shape), NUMBERS))
    else:
        last = draw(st.booleans())
        given["data_format"] = "channels_last" if last else "channels_first"
        shape = (x.shape[-1 if last else 1] if x.ndim > 1 else 3,)
    given["weight"] = beside(draw, x, shape, usual)
    if "rms" not in name:
        given["bias"] = beside(draw, x, shape, usual)
    if name == "group_norm":
        given["num_groups"] = draw(mostly(st.sampled_from([n for n in range(1, 9) if shape[0] % n == 0]), NUMBERS))
    if name in ("batch_norm", "instance_norm"):
        given["training" if name == "batch_norm" else "use_input_stats"] = draw(mostly(st.booleans(), NUMBERS))
        given |= {f"running_{k}": draw(mostly(arrays(shape, x.dtype), st.none())) for k in ("mean", "var")}
    given["out"] = outs(draw, x)
    given["activation"] = draw(mostly(st.sampled_from([None, *ACTIVATIONS]), NUMBERS))
    like = arrays(x.shape, x.dtype)
    if name.startswith("add"):
        given |= {"residual": draw(mostly(st.one_of(like, st.just(x)), arrays())), "sum_out": outs(draw, x)}
        return given
    given["residual"] = draw(mostly(st.one_of(st.none(), like, st.just(x), st.just(given["out"])), arrays()))
    if name != "batch_norm" and draw(st.integers(0, 2)) == 0:
        some = [n if draw(st.booleans()) else 1 for n in x.shape]
        whose = st.sampled_from([x.shape, tuple(some), x.shape[:2], (1,) * x.ndim])
        value = st.one_of(st.none(), whose.flatmap(lambda shape: arrays(shape, x.dtype)))
        given |= {"scale": draw(value), "shift": draw(value)}
    if draw(st.integers(0, 2)) == 0:
        given["lengths"] = lengths_of(draw, x, 1)
        given["pad_value"] = draw(mostly(st.sampled_from([0, -1.5, 1e300, 1e-300]), NUMBERS))
    if draw(st.integers(0, 3)) == 0:
        given["return_stats"] = True
    return given


def lengths_of(draw, x, axis):
    most = x.shape[axis] if x.ndim > axis else 3
    count = x.shape[0] if x.ndim else 1
    usual = st.lists(st.integers(0, most), min_size=count, max_size=count)
    return draw(mostly(usual, usual.map(np.array), st.lists(st.integers(-1, 2**65)), NUMBERS))


def statistics_of(draw, name):
    """Arguments of moments, standardize and standardize_sliding."""
    x = draw(arrays(dtype=draw(st.sampled_from(COUNTED))))
    axis = st.integers(-1, x.ndim)
    given = {"x": x}
    if name != "moments":
        dtype = draw(st.one_of(st.none(), st.sampled_from(FLOATS)))
        given |= {"dtype": dtype, "out": outs(draw, x if dtype is None else np.empty(x.shape, dtype))}
    if name == "standardize_sliding":
        window = mostly(st.sampled_from([1, 2, 5, 100, 2**62, 2**63 - 1]), NUMBERS)
        given |= {"window": draw(window), "min_window": draw(window), "axis": draw(axis)}
        return given | {"center": draw(st.booleans()), "var": draw(st.booleans())}
    given["axis"] = draw(mostly(st.one_of(st.none(), axis, st.lists(axis, unique=True)), NUMBERS))
    given["nan"] = draw(mostly(st.sampled_from(["propagate", "omit"]), NUMBERS))
    if draw(st.integers(0, 3)) == 0:
        given["lengths"], given["length_axis"] = lengths_of(draw, x, 1), draw(mostly(st.just(1), axis, NUMBERS))
    if draw(st.integers(0, 3)) == 0:
        some = tuple(n if draw(st.booleans()) else 1 for n in x.shape)
        given["where"] = draw(mostly(arrays(some, "?"), arrays(), st.just(x)))
    if name == "standardize":
        given |= {"eps": draw(EPS), "ddof": draw(mostly(st.integers(0, 2), NUMBERS))}
        given["clip"] = draw(st.one_of(st.none(), st.tuples(NUMBERS, NUMBERS), st.just((-1.0, 2.0))))
        given["floor"] = draw(mostly(st.sampled_from([None, 0.0, 1e-3]), NUMBERS))
    return given


def image_of(draw):
    """Arguments of normalize_image."""
    shape = draw(st.lists(st.integers(0, 20), min_size=3, max_size=4))
    shape[one_of(draw, 0, -1, -1, -3)] = draw(st.integers(0, 17))
    dtype = draw(mostly(st.sampled_from(["u1", "u2", "f2", "f4", ">u2"]), st.sampled_from(COUNTED)))
    x = draw(arrays(tuple(shape), dtype))
    layout = draw(mostly(st.sampled_from(["HWC->CHW", "HWC->HWC", "CHW->CHW"]), NUMBERS))
    channels = shape[-3 if layout == "CHW->CHW" else -1]
    number = st.floats(0.125, 2)
    values = mostly(st.one_of(number, st.lists(number, min_size=channels, max_size=channels)), NUMBERS)
    given = {"image": x, "mean": draw(values), "std": draw(values), "layout": layout}
    given |= {"scale": draw(mostly(st.one_of(st.none(), number), NUMBERS)), "swap_channels": channels in (3, 4)}
    given["dtype"] = draw(mostly(st.sampled_from(["f4", "f2", ml_dtypes.bfloat16]), st.just("f8")))
    if x.ndim == 3 and draw(st.booleans()):
        given["image"] = [x, x] if draw(st.booleans()) else [x, draw(arrays(tuple(shape), dtype))]
    order = [*range(x.ndim - 3), x.ndim - 1, x.ndim - 3, x.ndim - 2]
    like = np.empty([shape[a] for a in order] if layout == "HWC->CHW" else shape, given["dtype"])
    given["out"] = draw(mostly(st.sampled_from([None, like, x]), arrays(), arrays(like.shape, like.dtype)))
    return given


@st.composite
def calls(draw):
    """(name of a function, its arguments)."""
    name = draw(st.sampled_from([*NORMS, *STATISTICS, "normalize_image"]))
    if name == "normalize_image":
        return name, image_of(draw)
    return name, (statistics_of if name in STATISTICS else norm_of)(draw, name)


def plainly(given):
    """The arguments with plain copies of all arrays; those that were one still are."""
    copies = {}

    def copy(value):
        if isinstance(value, list):
            return [copy(one) for one in value]
        if not isinstance(value, np.ndarray) or value.dtype.hasobject:
            return value
        if id(value) not in copies:
            copies[id(value)] = np.array(value, value.dtype.newbyteorder("="), order="K")
        return copies[id(value)]

    return {name: copy(value) for name, value in given.items()}


def results(name, given):
    """What a call returns and writes, as a list of arrays."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "moments: mean of empty slice")
        y = getattr(cpunorm if name in (*STATISTICS, "normalize_image") else functional, name)(**given)
    y = list(y) if isinstance(y, tuple) else [y._record[[0, 1, 3, 5, 6]] if name == "moments" else y]
    return y + [given[key] for key in WRITTEN if given.get(key) is not None]


def check(call, error_state):
    """The property of this file."""
    name, given = call
    flat = [a for v in given.values() for a in (v if isinstance(v, list) else [v]) if isinstance(a, np.ndarray)]
    written = [given[k] for k in WRITTEN if isinstance(given.get(k), np.ndarray)]
    untouched = {str(i): a for i, a in enumerate(flat) if not any(np.may_share_memory(a, w) for w in written)}
    aliases = any(
        a is not b and np.may_share_memory(a, b) for i, a in enumerate(flat) for b in flat[:i] if a.size and b.size
    )
    repeats = any(0 in a.strides for a in flat)  # a copy has no order to keep there
    plain = plainly(given)
    before, all_before = memory(untouched), memory({str(i): a for i, a in enumerate(flat)})
    expected = None
    with contextlib.suppress(*ALLOWED), np.errstate(all="ignore"):
        expected = results(name, plain)
    try:
        with np.errstate(all=error_state):
            found = results(name, given)
    except ALLOWED as error:
        if memory({str(i): a for i, a in enumerate(flat)}) != all_before:
            raise AssertionError("a call that failed left a trace") from error
        if "encountered" in str(error):
            raise AssertionError("NumPy's warning") from error
        seen[f"{name}: {type(error).__name__}"] += 1
        return
    assert memory(untouched) == before
    seen[f"{name}: {'runs' if aliases or repeats or expected is None else 'right'}"] += 1
    if not (aliases or repeats or expected is None):
        for a, b in zip(found, expected, strict=True):
            # Sums of statistics are cut by strides, too: the digits are the same, but for the last.
            last = 8 * float(ml_dtypes.finfo(a.dtype).eps) if name in STATISTICS else 0
            a, b = a.astype(np.float64), b.astype(np.float64)  # a NaN of bfloat16 isn't its like
            largest = np.abs(b, where=np.isfinite(b), out=np.zeros_like(b)).max(initial=0)
            np.testing.assert_allclose(a, b, rtol=last, atol=last * largest)


@pytest.mark.parametrize("engine", engines.COMPILED_FIRST, indirect=True)
@hypothesis.given(calls(), st.sampled_from(["warn", "raise"]))
@hypothesis.settings(max_examples=8 * hypothesis.settings.default.max_examples)
def test_any_arguments(engine, call, error_state):
    check(call, error_state)


def test_the_command_goes_through_these(monkeypatch):
    monkeypatch.setattr("sys.argv", ["test_fuzz.py", "--seconds", "0.001"])
    test_fuzz.main()
    assert any(key.startswith(("moments", "standardize", "normalize_image")) for key in seen)
