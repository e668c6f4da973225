"""What differs between samples: scale and shift, lengths; and the statistics, returned."""

import functools
import itertools

import ml_dtypes
import numpy as np
import oracle
import pytest
from arrays import memory
from norms import EPS, NORMS, assert_close, parameter_dtype, running, values
from strided import LAYOUTS

import cpunorm
from cpunorm import functional

pytestmark = pytest.mark.usefixtures("engine")

DTYPES = [np.dtype(t) for t in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)]
MODULATED = [name for name, norm in NORMS.items() if "batch_norm" not in name]
FORMATS = ("channels_first", "channels_last")


def rows_of(norm):
    return not norm.has_channels


def formats(norm):
    return FORMATS if norm.has_channels else FORMATS[:1]


def in_format(array, data_format):
    """An array (N, C, ...) as a call takes it, and back again."""
    return np.ascontiguousarray(np.moveaxis(array, 1, -1)) if data_format == "channels_last" else array


def out_of_format(array, data_format):
    return np.moveaxis(array, -1, 1) if data_format == "channels_last" else array


def run(norm, x, data_format="channels_first", **options):
    """Of x (N, C, ...); residual and out, like x, are given in the format of the call."""
    form = {"data_format": data_format} if norm.has_channels else {}
    weight, bias = norm.affine(x)
    return norm.call(in_format(x, data_format), weight, bias, EPS, **form, **options)


def allowed(expected, x, grown=1.0):
    """The bound of a result whose weight and bias are grown by a scale and a shift."""
    bound = oracle.bound(expected, parameter_dtype(x), weight=1.5 * grown, bias=grown, kappa=1e5)
    if x.dtype.itemsize == 2:
        bound = bound + np.abs(expected) * 2.0 ** (-11 if x.dtype == np.float16 else -8)
    return bound


# Scale and shift.


def modulations(norm, shape):
    """(shape of scale and shift, that shape broadcast over x with its channels first) for each way to say them."""
    samples, channels, *positions = shape
    if norm.has_channels:
        ones = (1,) * len(positions)
        return [
            ((samples, channels), (samples, channels, *ones)),
            ((samples, channels, *ones),) * 2,
            ((channels, *ones),) * 2,
        ]
    width = shape[norm.parameters]
    ones = (1,) * (len(shape) - len(width) - 1)
    return [((samples, *ones, *width),) * 2, (width,) * 2, ((*shape[: len(shape) - len(width)], *width),) * 2]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", MODULATED)
def test_scale_and_shift(name, dtype):
    norm, rng = NORMS[name], np.random.default_rng(0)
    for shape in norm.of([(4, 6, 5), (3, 4, 70), (2, 4, 5, 7), (3, 2, 3, 2, 4)]):
        x = values(shape).astype(dtype)
        plain = norm.expected(x)
        for (given, seen), data_format in itertools.product(modulations(norm, shape), formats(norm)):
            scale, shift = (rng.uniform(-2, 2, given).astype(dtype) for _ in range(2))
            placed = [v.reshape(seen) for v in (scale, shift)]
            if data_format == "channels_last" and given == seen:
                scale, shift = (np.moveaxis(v, -len(shape) + 1, -1) for v in (scale, shift))
            for s, t in ((scale, shift), (scale, None), (None, shift)):
                expected = plain
                if s is not None:
                    expected = expected * (1 + placed[0].astype(float))
                if t is not None:
                    expected = expected + placed[1].astype(float)
                y = out_of_format(run(norm, x, data_format, scale=s, shift=t), data_format)
                assert y.dtype == dtype
                assert (np.abs(y.astype(float) - expected) <= allowed(expected, x, grown=3)).all()


@pytest.mark.parametrize("name", MODULATED)
def test_parameters_of_float32_with_halves(name):
    norm = NORMS[name]
    x = values((3, 4, 6)).astype(np.float16)
    shape = (3, 4) if norm.has_channels else (3, 1, 6) if norm.parameters == slice(-1, None) else (3, 4, 6)
    scale = np.linspace(-0.5, 0.5, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    y = run(norm, x, scale=scale, shift=scale)
    seen = scale.reshape(3, 4, 1) if norm.has_channels else scale
    expected = norm.expected(x) * (1 + seen.astype(float)) + seen
    assert (np.abs(y.astype(float) - expected) <= allowed(expected, x, grown=2)).all()


@pytest.mark.parametrize("name", MODULATED)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_outputs_residual_and_activation(name, layout):
    """After scale and shift the residual, then the activation; into any memory."""
    norm, rng = NORMS[name], np.random.default_rng(1)
    x = values((4, 6, 10))
    shape = (4, 6) if norm.has_channels else (4, 1, 10) if norm.parameters == slice(-1, None) else (4, 6, 10)
    scale, shift = rng.uniform(-0.5, 0.5, (2, *shape)).astype(np.float32)
    residual = rng.standard_normal(x.shape, np.float32)
    seen = [v.reshape(4, 6, 1) if norm.has_channels else v for v in (scale, shift)]
    before = norm.expected(x) * (1 + seen[0].astype(float)) + seen[1] + residual
    options = {"scale": scale, "shift": shift, "activation": "silu"}
    y = run(norm, x, residual=residual, **options)
    expected, bound = oracle.activated(before, "silu"), 1.1 * allowed(before, x, grown=2) + 1e-7
    assert (np.abs(y - expected) <= bound).all()
    strided = LAYOUTS[layout]
    for data in (strided(x), x):
        for out in (None, strided(x), data):
            data[...] = x
            got = run(norm, data, residual=strided(residual), out=out, **options)
            assert out is None or got is out
            assert (np.abs(got - expected) <= bound).all()
    other = strided(residual)
    assert run(norm, values(x.shape), residual=other, out=other, **options) is other
    np.testing.assert_array_equal(other, y)


def test_along_several_leading_axes():
    """(N, T, 1, D) for (N, T, L, D), and one that differs for every row."""
    x, rng = values((2, 3, 4, 10)), np.random.default_rng(2)
    for norm in (NORMS["layer_norm"], NORMS["rms_norm"]):
        for shape in ((2, 3, 1, 10), (1, 3, 1, 10), (3, 1, 10), (4, 10), (1, 1, 1, 1), (2, 3, 4, 1), (2, 1, 4, 10)):
            scale = rng.uniform(-0.5, 0.5, shape).astype(np.float32)
            expected = norm.expected(x) * (1 + scale.astype(float)) + scale
            y = run(norm, x, scale=scale, shift=scale)
            assert (np.abs(y - expected) <= allowed(expected, x, grown=2)).all()


# Lengths.


def ragged(norm, x, lengths, data_format, pad):
    """What the oracle expects, sample by sample, of x (N, C, L), or (N, L, D) of a norm of rows."""
    expected = np.full(x.shape, pad, np.float64)
    for sample, length in enumerate(lengths):
        part = (
            (slice(sample, sample + 1), slice(length))
            if rows_of(norm)
            else (slice(sample, sample + 1), slice(None), slice(length))
        )
        if length:
            expected[part] = norm.expected(x[part])
    return expected


RAGGED = [name for name in NORMS if name not in ("batch_norm training", "layer_norm of samples")]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", RAGGED)
def test_lengths(name, dtype):
    norm = NORMS[name]
    least = 2 if name == "instance_norm" else 1
    for lengths in ([5, 3, 0, 4], [5, 5, 5, 5], [0, 0, 0, 0], [least, 5, 0, 2], np.array([least, 2, 3, 5])):
        for data_format, pad in itertools.product(formats(norm), (0.0, -7.0)):
            x = values((4, 5, 6) if rows_of(norm) else (4, 6, 5)).astype(dtype)
            expected = ragged(norm, x, lengths, data_format, pad)
            valid = np.arange(5) < np.asarray(lengths)[:, None]
            valid = valid[:, :, None] if rows_of(norm) else valid[:, None]
            spoilt = np.where(valid, x, np.asarray(np.nan, dtype))  # padding takes no part
            given = in_format(spoilt, data_format)
            for out in (None, np.empty_like(given), given):
                y = run(norm, spoilt, data_format, lengths=lengths, pad_value=pad, out=out)
                assert out is None or y is out
                got = out_of_format(y, data_format).astype(float)
                assert (np.abs(got - expected) <= allowed(expected, x)).all()


@pytest.mark.parametrize("name", RAGGED)
def test_lengths_with_all_the_rest(name):
    """Scale and shift, a residual, an activation: padding is what is asked for all the same."""
    norm, rng = NORMS[name], np.random.default_rng(3)
    x = values((4, 5, 6) if rows_of(norm) else (4, 6, 5))
    lengths = [5, 3, 0, 2]
    residual = rng.standard_normal(x.shape, np.float32)
    options, before = {}, ragged(norm, x, lengths, None, 0.0)
    if name in MODULATED:
        scale, shift = rng.uniform(-0.5, 0.5, (2, 4, 1, 6) if rows_of(norm) else (2, 4, 6)).astype(np.float32)
        options = {"scale": scale, "shift": shift}
        seen = [v if rows_of(norm) else v[:, :, None] for v in (scale, shift)]
        before = before * (1 + seen[0].astype(float)) + seen[1]
    before = before + residual
    valid = np.arange(5) < np.asarray(lengths)[:, None]
    valid = valid[:, :, None] if rows_of(norm) else valid[:, None]
    expected = np.where(valid, oracle.activated(before, "gelu"), 9)
    for data_format in formats(norm):
        given = in_format(residual, data_format).copy()
        for out in (None, given):
            y, *stats = run(
                norm, x, data_format, residual=given, lengths=lengths, pad_value=9, activation="gelu", out=out,
                return_stats=True, **options,
            )  # fmt: skip
            assert (np.abs(out_of_format(y, data_format) - expected) <= 1.13 * allowed(before, x, grown=2) + 1e-6).all()
            assert len(stats) == 2
            if name != "batch_norm inference":
                for v in stats:
                    assert (np.isnan(v) == ~(valid[..., 0] if rows_of(norm) else valid[:, 0, :1])).all()


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("offset", [0, 100, 1e5])
def test_batch_norm_training_with_lengths(data_format, dtype, offset):
    """Statistics over the valid positions of all samples, far from zero too, and the running ones moved by them."""
    if dtype.itemsize == 2:
        offset = min(offset, 100)  # further out there is no variance left
    rng = np.random.default_rng(4)
    for shape in ((5, 4, 9), (7, 3, 300), (40, 5, 33)):
        lengths = [shape[2], 0, 1, *rng.integers(0, shape[2] + 1, shape[0] - 3).tolist()]
        x = (rng.standard_normal(shape) * 3 + offset + np.arange(shape[1])[:, None]).astype(dtype)
        valid = np.arange(shape[2]) < np.array(lengths)[:, None]
        channels = shape[1]
        inner = parameter_dtype(x)
        z = np.stack([x[:, c][valid] for c in range(channels)]).astype(np.longdouble)  # (C, values)
        mean, var = z.mean(1), z.var(1)
        weight, bias = np.linspace(0.5, 1.5, channels, dtype=inner), np.linspace(1, -1, channels, dtype=inner)
        normed = ((x - mean[:, None]) / np.sqrt(var + EPS)[:, None]).astype(float)
        expected = np.where(valid[:, None], normed * weight[:, None] + bias[:, None], 0)
        running_mean, running_var = running(channels, inner)
        moved = [
            0.75 * old + 0.25 * new
            for old, new in ((running_mean.astype(float), mean), (running_var.astype(float), z.var(1, ddof=1)))
        ]
        given = in_format(np.where(valid[:, None], x, np.asarray(np.nan, dtype)), data_format)
        y, got_mean, got_rstd = functional.batch_norm(
            given, running_mean, running_var, weight, bias, True, 0.25, EPS, data_format=data_format, lengths=lengths,
            return_stats=True,
        )  # fmt: skip
        got = out_of_format(y, data_format).astype(float)
        kappa = np.sqrt(1 + float(np.max(mean**2 / var)))
        bound = oracle.bound(expected, inner, 1.5, 1.0, kappa)
        if dtype.itemsize == 2:
            bound = bound + np.abs(expected) * 2.0 ** (-11 if dtype == np.float16 else -8)
        assert (np.abs(got - expected) <= bound).all()
        unit = 2 * oracle.UNIT[np.dtype(inner)]
        for now, wanted in zip((running_mean, running_var), moved, strict=True):
            np.testing.assert_allclose(now, wanted.astype(float), rtol=unit + 1e-10)
        np.testing.assert_allclose(got_mean, mean.astype(float), atol=1e-6 * 3, rtol=0)
        np.testing.assert_allclose(got_rstd, (1 / np.sqrt(var + EPS)).astype(float), rtol=2e-6)


def test_batch_norm_modules_with_lengths():
    """The counter goes up, running statistics move in training alone, evaluation takes them."""
    x, lengths = values((3, 4, 6)), [6, 2, 0]
    module = cpunorm.BatchNorm1d(4)
    module(x, lengths=lengths)
    assert module.num_batches_tracked == 1
    z = np.concatenate([x[0], x[1, :, :2]], 1).astype(float)
    np.testing.assert_allclose(module.running_mean, 0.1 * z.mean(1), rtol=1e-6)
    np.testing.assert_allclose(module.running_var, 0.9 + 0.1 * z.var(1, ddof=1), rtol=1e-6)
    kept = module.state_dict()
    module(x, lengths=[0, 0, 0])  # an empty batch: counted, and no more
    assert module.num_batches_tracked == 2
    np.testing.assert_array_equal(module.running_mean, kept["running_mean"])
    module.eval()
    y = module(x, lengths=lengths)
    assert module.num_batches_tracked == 2
    np.testing.assert_array_equal(y[0], module(x)[0])
    np.testing.assert_array_equal(y[1, :, :2], module(x)[1, :, :2])
    assert not y[1, :, 2:].any()
    assert not y[2].any()


def test_instance_norm_moves_running_statistics_by_valid_positions():
    x, lengths = values((3, 4, 6)), [6, 2, 0]
    mean, var = running(4)
    old = mean.astype(float), var.astype(float)
    functional.instance_norm(x, mean, var, momentum=0.25, lengths=lengths)
    parts = [x[0].astype(float), x[1, :, :2].astype(float)]
    np.testing.assert_allclose(mean, 0.75 * old[0] + 0.25 * np.mean([p.mean(1) for p in parts], 0), rtol=1e-6)
    np.testing.assert_allclose(var, 0.75 * old[1] + 0.25 * np.mean([p.var(1, ddof=1) for p in parts], 0), rtol=1e-6)
    y = functional.instance_norm(x, mean, var, use_input_stats=False, lengths=[1, 2, 3])
    np.testing.assert_array_equal(y[2, :, :3], functional.instance_norm(x, mean, var, use_input_stats=False)[2, :, :3])
    assert not y[2, :, 3:].any()


# Statistics.


def shape_of_statistics(norm, name, shape):
    if "batch_norm" in name:
        return (shape[1],)
    return {"group_norm": (shape[0], 2), "instance_norm": shape[:2]}.get(
        name, shape[: len(shape) - len(shape[norm.parameters])]
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", NORMS)
def test_return_stats(name, layout):
    """float64, in the order of the domains whatever the strides."""
    norm = NORMS[name]
    for shape, dtype in zip(
        norm.of([(9, 6), (3, 4, 70), (2, 34, 5), (2, 4, 5, 7), (2, 4, 3, 2, 5)] * 2), itertools.cycle(DTYPES)
    ):
        plain = values(shape).astype(dtype) + norm.domains(np.empty(shape)).astype(dtype) % 8
        plain = plain.astype(dtype)
        x = LAYOUTS[layout](plain)
        y, mean, rstd = run(norm, x, return_stats=True)
        alone = run(norm, x)
        assert y.strides == alone.strides
        if x.flags.c_contiguous:  # otherwise rows may be copied, so that they lie in the order of the statistics
            np.testing.assert_array_equal(y, alone)
        assert_close(y, norm, plain)
        assert mean.dtype == rstd.dtype == np.float64
        assert mean.shape == rstd.shape == shape_of_statistics(norm, name, shape)
        if name == "batch_norm inference":
            given = [v.astype(float) for v in running(shape[1], parameter_dtype(x))]
            np.testing.assert_array_equal(mean, given[0])
            np.testing.assert_allclose(rstd, 1 / np.sqrt(given[1] + EPS), rtol=1e-15)
            continue
        domains = norm.domains(plain).ravel()
        order = np.argsort(domains, kind="stable")
        z = plain.ravel()[order].reshape(domains.max() + 1, -1).astype(np.longdouble)
        mu = z.mean(1) if norm.has_mean else 0 * z.mean(1)
        sigma = np.sqrt(np.square(z - mu[:, None]).mean(1) + EPS)
        # float32 is shifted by a value of its own before it is summed: what is left is a few roundings of sigma
        assert (np.abs(mean.ravel() - mu) <= 1e-6 * sigma * (norm.has_mean)).all()
        assert (np.abs(rstd.ravel() * sigma - 1) <= 2e-6).all()


@pytest.mark.parametrize("name", NORMS)
def test_return_stats_of_channels_last_and_of_no_values(name):
    norm = NORMS[name]
    if norm.has_channels:
        x = values((2, 4, 5, 7))
        first, last = run(norm, x, return_stats=True), run(norm, x, "channels_last", return_stats=True)
        for a, b in zip(first[1:], last[1:], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
        np.testing.assert_allclose(first[0], out_of_format(last[0], "channels_last"), rtol=1e-5, atol=1e-5)
    for shape in norm.of([(0, 4, 3), (2, 4, 0)]):
        y, mean, rstd = run(norm, np.empty(shape, np.float32), return_stats=True)
        assert y.shape == shape
        assert mean.shape == rstd.shape


def test_given_statistics_return_the_same_norm():
    """batch_norm in evaluation is "apply given statistics"."""
    x = values((3, 4, 50), np.float64)
    y, mean, rstd = functional.batch_norm(x, None, None, training=True, return_stats=True)
    again = functional.batch_norm(x, mean, 1 / rstd**2 - EPS, eps=EPS)
    np.testing.assert_allclose(again, y, rtol=1e-9, atol=1e-9)


# Bad input: nothing is written.


def refused(norm, error, says, shape=(3, 4, 6), **options):
    x = values(shape).copy()
    arrays = {"x": x, "out": np.zeros_like(x), **options}
    before = memory(arrays)
    with pytest.raises(error) as caught:
        run(norm, x, out=arrays["out"], **options)
    assert type(caught.value) is error
    for word in says:
        assert word in str(caught.value)
    assert memory(arrays) == before


@pytest.mark.parametrize("what", ["scale", "shift"])
@pytest.mark.parametrize("name", MODULATED)
def test_a_wrong_scale_or_shift(name, what):
    norm = NORMS[name]
    for value, error, says in [
        ([[1.0]], TypeError, "list"),
        (2.0, TypeError, "float"),
        (np.ones((3, 5), np.float32), RuntimeError, "(3, 5)"),
        (np.ones((2, 4, 6), np.float32), RuntimeError, "(2, 4, 6)"),
        (np.ones((3, 4)), RuntimeError, "float64"),
        (np.ones((3, 4), np.float16), RuntimeError, "float16"),
        (np.ones((3, 4), np.int32), RuntimeError, "int32"),
    ]:
        refused(norm, error, [what, says], **{what: value})
    if norm.has_channels:
        refused(norm, RuntimeError, [what, "constant along positions"], **{what: np.ones((3, 4, 6), np.float32)})


@pytest.mark.parametrize("name", [*RAGGED, "batch_norm training"])
def test_wrong_lengths(name):
    norm = NORMS[name]
    positions = "4" if rows_of(norm) else "6"
    for lengths, error, says in [
        ([1, 2], RuntimeError, "[1, 2]"),
        ([2, 2, 2, 2], RuntimeError, "3 ints"),
        ([2, -1, 2], RuntimeError, "-1"),
        ([2, 7, 2], RuntimeError, "7"),
        ([2.0, 2, 2], TypeError, "2.0"),
        ([True, 2, 2], TypeError, "True"),
        (["2", 2, 2], TypeError, "2"),
        (2, TypeError, "2"),
        ("222", TypeError, "222"),
        (np.array([2.0, 2, 2]), TypeError, "2."),
    ]:
        refused(norm, error, ["lengths", says], lengths=lengths)
    refused(norm, RuntimeError, ["lengths", positions], lengths=[2, 7, 2])
    if norm.has_channels:
        refused(norm, RuntimeError, ["lengths", "(3, 4, 6, 2)"], shape=(3, 4, 6, 2), lengths=[1, 1, 1])
    else:
        refused(norm, RuntimeError, ["lengths", "(3, 4)"], shape=(3, 4), lengths=[1, 1, 1])


def test_one_value_of_which_there_is_no_variance():
    for name, lengths in (("batch_norm training", [1, 0, 0]), ("instance_norm", [6, 1, 3])):
        refused(NORMS[name], ValueError, ["expected more than 1", str(lengths)], lengths=lengths)


@pytest.mark.parametrize("name", NORMS)
def test_other_wrong_arguments(name):
    norm = NORMS[name]
    refused(norm, TypeError, ["return_stats", "1"], return_stats=1)
    refused(norm, TypeError, ["pad_value", "x"], pad_value="x")
    if name != "layer_norm of samples":
        for options in ({"lengths": [2, 2, 2]}, {"return_stats": True}):
            refused(norm, TypeError, ["pad_value", "x"], pad_value="x", **options)
            refused(norm, ValueError, ["activation", "swish"], activation="swish", **options)
            refused(norm, RuntimeError, ["residual", "(1, 4, 6)"], residual=np.ones((1, 4, 6), np.float32), **options)


@pytest.mark.parametrize(
    "function", [functools.partial(functional.batch_norm, training=True), functional.instance_norm]
)
def test_statistics_stay_behind_an_error(function):
    mean, var = np.zeros(4, np.float32), np.ones(4, np.float32)
    x = values((3, 4, 6))
    for options in (
        {"lengths": [2, 9, 2]},
        {"lengths": [2, 2, 2], "pad_value": "x"},
        {"lengths": [2, 2, 2], "activation": "swish"},
        {"lengths": [2, 2, 2], "out": x[:1]},
        {"lengths": [2, 2, 2], "residual": x[:1]},
        {"lengths": [2, 2, 2], "momentum": "x"},
        {"return_stats": True, "out": x[:1]},
        {"return_stats": 1},
    ):
        with pytest.raises((ValueError, TypeError, RuntimeError)):
            function(x, mean, var, **options)
        assert not mean.any()
        assert (var == 1).all()


def test_rows_of_no_values_have_no_statistics():
    """And not what the memory held."""
    for function in (functional.layer_norm, functional.rms_norm):
        for _ in range(3):
            np.full(40, 7.0)  # whose memory comes next
            y, *moments = function(np.empty((4, 10, 0), np.float32), 0, return_stats=True)
            assert y.shape == (4, 10, 0)
            assert np.isnan(moments).all()


@pytest.mark.parametrize("name", MODULATED)
def test_scale_of_no_values(name):
    norm = NORMS[name]
    for shape in ((0, 4, 6), (3, 0, 6), (3, 4, 0)):
        if norm.has_channels and shape[1] == 0:
            continue
        x = np.empty(shape, np.float32)
        for scale in (x[:1], x[:, :, :1]):
            if not norm.has_channels or scale.shape[2] == 1:
                y, mean, rstd = run(norm, x, scale=scale, shift=scale, return_stats=True)
                assert y.shape == shape
                assert np.isnan(mean).all()
                assert np.isnan(rstd).all()


class Shouting(np.ndarray):
    """Whose indexing gives other shapes, as np.matrix's does."""

    def __getitem__(self, index):
        return super().__getitem__(index)[None]


@pytest.mark.parametrize("name", MODULATED)
def test_subclasses_are_seen_as_their_memory(name):
    norm = NORMS[name]
    x, scale = values((3, 4, 6)), values((3, 4) if norm.has_channels else (3, 4, 6))
    given = {"scale": scale, "shift": scale, "residual": x, "return_stats": True}
    expected = run(norm, x, **given)
    out = np.empty_like(x).view(Shouting)
    given |= {k: given[k].view(Shouting) for k in ("scale", "shift", "residual")}
    found = run(norm, x.view(Shouting), out=out, **given)
    assert found[0] is out
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(a), b)


@pytest.mark.parametrize("name", RAGGED)
def test_numpys_error_state_is_not_looked_at(name):
    """By coefficients that are folded, padding and statistics that leave the range of a type."""
    norm = NORMS[name]
    x, extreme = values((3, 4, 6)), np.full((3, 4) if norm.has_channels else (3, 4, 6), 3e38, np.float32)
    for pad_value, scale in ((1e300, extreme), (1e-300, extreme * 0 - 1 + 2.0**-23)):
        options = {"lengths": [2, 3, 4], "pad_value": pad_value, "return_stats": True}
        if name in MODULATED:
            options |= {"scale": scale, "shift": extreme}
        found = []
        for state in ("ignore", "warn", "raise"):
            with np.errstate(all=state):
                found.append([a.tobytes() for a in run(norm, x, **options)])
        assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("name", RAGGED)
def test_out_over_what_is_still_read(name):
    """Each sample is written before the next one is read."""
    norm = NORMS[name]
    room = np.zeros(100, np.float32)
    x = room[:72].reshape(3, 4, 6)
    x[...] = values((3, 4, 6))
    for options, says in (
        ({"out": room[1:73].reshape(3, 4, 6)}, "overlaps the input"),
        ({"residual": room[20:92].reshape(3, 4, 6), "out": room[28:].reshape(3, 4, 6)}, "overlaps"),
        *(
            []
            if name not in MODULATED
            else [
                (
                    {"scale": room[:24].reshape(1, 4, 6) if rows_of(norm) else room[:12].reshape(3, 4), "out": x},
                    "overlaps",
                )
            ]
        ),
    ):
        before = room.tobytes()
        with pytest.raises(RuntimeError, match=says):
            run(norm, x, lengths=[2, 3, 2], **options)
        assert room.tobytes() == before
