"""Torch itself as a second witness: the same call gives the same numbers, the same statistics, the same kind of error.

Deliberate differences, which the strategies leave out: an int as the function's normalized_shape; eps that is negative
or NaN; an empty batch with vectors that are missing or of the wrong size or dtype (an error here alone); num_groups 0.
Nor does BatchNorm get an input without channels, on which torch raises an IndexError or not.
"""

import hypothesis
import ml_dtypes
import numpy as np
import oracle
import pytest
from hypothesis import strategies as st
from strided import embed

import cpunorm
from cpunorm import functional

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("engine")


# What a call is given.

LENGTHS = st.sampled_from([0, 1, 1, 2, 2, 3, 4, 5, 8, 17, 40])
VALUES = {  # offset, scale, outlier: the conditioning, which N(0, 1) alone would leave at its best
    "plain": (0, 1, None),
    "offset": (3, 1, None),
    "far": (100, 1, None),
    "further": (-1e4, 2, None),
    "small": (0, 1e-4, None),
    "large": (1e3, 1e4, None),
    "outlier": (0, 1, 1e4),
    "constant": (7, 0, None),
}


def shapes(ranks):
    """Shapes of those ranks with few enough elements; an axis in five or so is empty or of length one."""
    return (
        st.sampled_from(ranks)
        .flatmap(lambda rank: st.tuples(*[LENGTHS] * rank))
        .filter(lambda shape: np.prod(shape) < 5000)
    )


@st.composite
def arrays(draw, shape, dtype):
    """Values of varying conditioning in memory of any order, with steps and margins that torch can take."""
    offset, scale, outlier = VALUES[draw(st.sampled_from(sorted(VALUES)))]
    values = np.random.default_rng(draw(st.integers(0, 99))).standard_normal(shape) * scale + offset
    if outlier is not None and values.size:
        values.flat[draw(st.sampled_from([0, values.size // 2, -1]))] = outlier
    order = draw(st.permutations(range(len(shape))) | st.just(range(len(shape))))
    steps = draw(st.tuples(*[st.sampled_from([1, 1, 1, 2])] * len(shape)))
    return embed(values.astype(dtype), order, steps, draw(st.sampled_from([0, 0, 1])))


def vectors(shape, dtype, *, positive=False):
    """A parameter of that shape, or None."""
    low = 0.1 if positive else -2
    generated = st.integers(0, 99).map(lambda seed: np.random.default_rng(seed).uniform(low, 3, shape).astype(dtype))
    return st.none() | generated


def dtypes():
    """(of the input, of the parameters), among them pairs that are an error."""
    single, double, half, brain = np.float32, np.float64, np.float16, ml_dtypes.bfloat16
    usual = [(single, single), (single, single), (double, double), (half, half), (half, single), (brain, brain)]
    return st.sampled_from([*usual, (brain, single), (single, double), (double, single), (single, half), (half, brain)])


def sizes(size):
    """Mostly `size`, sometimes another."""
    return st.sampled_from([size] * 12 + [size + 1])


# How the outcomes are compared.


def tensor(array):
    if array is None or array.dtype != ml_dtypes.bfloat16:
        return None if array is None else torch.from_numpy(array)
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)


def outcome(call):
    """What `call` returns, or the exception that it raises."""
    try:
        return call()
    except Exception as error:
        return error


def assert_same_outcome(ours, theirs):
    """Both are results, or ours is an exception of torch's type; returns whether they are results."""
    if isinstance(theirs, Exception):
        assert isinstance(ours, type(theirs)), f"{ours!r} for torch's {theirs!r}"
        return False
    assert not isinstance(ours, Exception), f"{ours!r}, while torch returns a result"
    return True


def conditioning(x, axes, eps):
    """The largest sqrt(sum x^2 / S) of any set of statistics, eps in S; at least 1."""
    if x.size == 0:
        return 1.0
    wide = x.astype(np.float64)
    return max(1.0, np.sqrt(np.max(np.square(wide).mean(axes) / (wide.var(axes) + eps))))


def assert_close(ours, theirs, expected, kappa, weight, bias):
    """Ours within the bound of float64; torch's of ours, as far as torch has digits left.

    Torch's kernels lose kappa of their units, those that take E[x^2] - E[x]^2 (channels_last) the square of it.
    """
    dtype, unit = ours.dtype, float(ml_dtypes.finfo(ours.dtype).eps) / 2
    inner = np.dtype(np.float32) if dtype.itemsize == 2 else dtype
    allowed = oracle.bound(expected, inner, weight, bias, kappa) * np.maximum(1, np.abs(expected) / 4)
    if dtype != inner:
        allowed = allowed + unit * np.abs(expected) + float(ml_dtypes.finfo(dtype).smallest_subnormal)
    assert (np.abs(ours.astype(float) - expected) <= allowed).all()
    loss = kappa**2 * oracle.UNIT[inner]
    if dtype != inner:
        loss += kappa * unit  # torch's coefficients are of half precision too
    if loss < 1e-2:
        scale = 1.0 if weight is None else np.max(np.abs(weight), initial=0.0)
        theirs_allowed = 2 * allowed + 64 * loss * (scale + np.abs(expected))
        assert (np.abs(theirs.double().numpy() - ours.astype(float)) <= theirs_allowed).all()


# The functions.


@hypothesis.given(st.data())
def test_batch_norm(data):
    shape = data.draw(shapes([2, 2, 3, 4, 5]).filter(lambda shape: shape[1] > 0))
    dtype, inner = data.draw(dtypes())
    x = data.draw(arrays(shape, dtype))
    wrong = data.draw(sizes(shape[1])) if x.size else shape[1]
    weight, bias = data.draw(vectors(wrong, inner)), data.draw(vectors(shape[1], inner))
    running_mean, running_var = data.draw(vectors(shape[1], inner)), data.draw(vectors(shape[1], inner, positive=True))
    training = data.draw(st.booleans())
    momentum, eps = data.draw(st.sampled_from([0.1, 0.0, 1.0, 0.37])), data.draw(st.sampled_from([1e-5, 1e-2, 1e-12]))
    if training:
        hypothesis.assume((running_mean is None) == (running_var is None))  # given one alone, torch updates it
    if x.size == 0:
        hypothesis.assume(dtype == inner and running_mean is not None and running_var is not None)

    copies = [None if v is None else v.copy() for v in (running_mean, running_var)]
    before = None if running_mean is None or running_var is None else (running_mean.copy(), running_var.copy())
    ours = outcome(lambda: functional.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps))
    theirs = outcome(
        lambda: torch.nn.functional.batch_norm(
            *map(tensor, (x, *copies, weight, bias)), training=training, momentum=momentum, eps=eps
        )
    )
    if not assert_same_outcome(ours, theirs) or x.size == 0:
        return
    axes = (0, *range(2, x.ndim))
    kappa = conditioning(x, axes, eps)
    if not training:
        mean, var = (statistic.astype(float).reshape(-1, *[1] * (x.ndim - 2)) for statistic in before)
        kappa = max(1.0, np.max((np.abs(x.astype(float)) + np.abs(mean)) / np.sqrt(var + eps)))
    expected = oracle.batch_norm(x, weight, bias, eps, None if training else before)
    assert_close(ours, theirs, expected, kappa, weight, bias)
    if running_mean is not None and running_var is not None:
        loss = max(
            float(ml_dtypes.finfo(inner).eps),
            64 * kappa**2 * oracle.UNIT[np.dtype(np.float32 if dtype != np.float64 else dtype)],
        )
        if loss < 1e-2:
            size = np.abs(x.astype(float)).max()
            np.testing.assert_allclose(running_mean.astype(float), copies[0].astype(float), rtol=loss, atol=loss * size)
            np.testing.assert_allclose(running_var.astype(float), copies[1].astype(float), rtol=loss)


@hypothesis.given(st.data())
def test_layer_norm(data):
    shape = data.draw(shapes([1, 2, 3, 4]))
    dtype, inner = data.draw(dtypes())
    x = data.draw(arrays(shape, dtype))
    ndim = data.draw(st.integers(1, len(shape)))
    normalized_shape = shape[len(shape) - ndim :]
    if data.draw(sizes(0)):
        normalized_shape = (2, *normalized_shape)
    parameters = (data.draw(sizes(normalized_shape[0])), *normalized_shape[1:])
    weight, bias = data.draw(vectors(parameters, inner)), data.draw(vectors(normalized_shape, inner))
    eps = data.draw(st.sampled_from([1e-5, 1e-2, 1e-12]))
    ours = outcome(lambda: functional.layer_norm(x, normalized_shape, weight, bias, eps))
    theirs = outcome(
        lambda: torch.nn.functional.layer_norm(tensor(x), normalized_shape, tensor(weight), tensor(bias), eps)
    )
    if assert_same_outcome(ours, theirs) and x.size:
        expected = oracle.layer_norm(x, normalized_shape, weight, bias, eps)
        kappa = conditioning(x, tuple(range(-ndim, 0)), eps)
        assert_close(ours, theirs, expected, kappa, weight, bias)


@hypothesis.given(st.data())
def test_group_norm(data):
    shape = data.draw(shapes([1, 2, 3, 4, 5]))
    dtype, inner = data.draw(dtypes())
    x = data.draw(arrays(shape, dtype))
    count = shape[1] if len(shape) > 1 else 1
    divisors = [groups for groups in range(1, count + 1) if count % groups == 0] or [1]
    groups = data.draw(st.sampled_from([*divisors * 3, 2, 3]))
    weight, bias = data.draw(vectors(data.draw(sizes(count)), inner)), data.draw(vectors(count, inner))
    eps = data.draw(st.sampled_from([1e-5, 1e-2, 1e-12]))
    ours = outcome(lambda: functional.group_norm(x, groups, weight, bias, eps))
    theirs = outcome(lambda: torch.nn.functional.group_norm(tensor(x), groups, tensor(weight), tensor(bias), eps))
    if assert_same_outcome(ours, theirs) and x.size:
        expected = oracle.group_norm(x, groups, weight, bias, eps)
        kappa = conditioning(x.reshape(shape[0], groups, -1), 2, eps)
        assert_close(ours, theirs, expected, kappa, weight, bias)


@hypothesis.given(st.data())
def test_instance_norm(data):
    shape = data.draw(shapes([3, 4, 5]).filter(lambda shape: 0 not in shape))
    dtype, inner = data.draw(dtypes())
    x = data.draw(arrays(shape, dtype))
    weight, bias = data.draw(vectors(shape[1], inner)), data.draw(vectors(shape[1], inner))
    eps = data.draw(st.sampled_from([1e-5, 1e-2, 1e-12]))
    ours = outcome(lambda: functional.instance_norm(x, weight=weight, bias=bias, eps=eps))
    theirs = outcome(
        lambda: torch.nn.functional.instance_norm(tensor(x), weight=tensor(weight), bias=tensor(bias), eps=eps)
    )
    if assert_same_outcome(ours, theirs):
        expected = oracle.instance_norm(x, weight, bias, eps)
        assert_close(ours, theirs, expected, conditioning(x, tuple(range(2, x.ndim)), eps), weight, bias)


@hypothesis.given(st.data())
def test_rms_norm(data):
    shape = data.draw(shapes([1, 2, 3, 4]))
    dtype, inner = data.draw(dtypes())
    x = data.draw(arrays(shape, dtype))
    ndim = data.draw(st.integers(1, len(shape)))
    normalized_shape = shape[len(shape) - ndim :]
    weight = data.draw(vectors(normalized_shape, inner))
    hypothesis.assume(weight is None or np.dtype(dtype) == inner)  # torch takes any mix, by its rules of promotion
    eps = data.draw(st.sampled_from([None, 1e-5, 1e-2, 1e-12]))
    ours = outcome(lambda: functional.rms_norm(x, normalized_shape, weight, eps))
    theirs = outcome(lambda: torch.nn.functional.rms_norm(tensor(x), normalized_shape, tensor(weight), eps))
    if assert_same_outcome(ours, theirs) and x.size:
        eps = float(ml_dtypes.finfo(dtype if dtype == np.float64 else np.float32).eps) if eps is None else eps
        assert_close(ours, theirs, oracle.rms_norm(x, normalized_shape, weight, eps), 1.0, weight, None)


# The modules.


@hypothesis.given(st.data())
def test_batch_norm_modules_through_a_life(data):
    """Training and evaluation in any order, with everything that moves compared after each call."""
    name, ranks = data.draw(
        st.sampled_from(
            [("BatchNorm1d", (2, 3)), ("BatchNorm2d", (4,)), ("BatchNorm3d", (5,)), ("BatchNorm2d", (3, 4, 5))]
        )
    )
    count, dtype = data.draw(st.sampled_from([1, 2, 3, 17])), data.draw(st.sampled_from(["float32", "float64"]))
    flags = {
        "momentum": data.draw(st.sampled_from([0.1, None, 1.0, 0.0, 0.5])),
        "affine": data.draw(st.booleans()),
        "bias": data.draw(st.booleans()),
        "track_running_stats": data.draw(st.booleans()),
        "eps": data.draw(st.sampled_from([1e-5, 1e-3])),
    }
    ours = getattr(cpunorm, name)(count, dtype=dtype, **flags)
    theirs = getattr(torch.nn, name)(count, dtype=getattr(torch, dtype), **flags)
    if ours.weight is not None:
        ours.weight[:] = np.linspace(-1, 2, count)
        theirs.weight.data[:] = torch.from_numpy(ours.weight)
    for _ in range(data.draw(st.integers(1, 5))):
        training = data.draw(st.booleans())
        ours.train(training)
        theirs.train(training)
        rank = data.draw(st.sampled_from(ranks))
        channels = data.draw(sizes(count))
        samples, *positions = data.draw(st.tuples(LENGTHS, *[st.sampled_from([0, 1, 2, 3, 5])] * (rank - 2)))
        shape = (samples, channels, *positions)
        hypothesis.assume(channels == count or 0 not in shape)
        # integers: two values of a channel are equal or well apart, so that kappa stays below some 30
        x = embed(np.random.default_rng(sum(shape)).integers(-4, 9, shape).astype(dtype), None, 1, 1)
        with torch.inference_mode():
            given = outcome(lambda x=x: theirs(tensor(x)))
        got = outcome(lambda x=x: ours(x))
        unit = 3000 * oracle.UNIT[np.dtype(dtype)]
        if assert_same_outcome(got, given):
            np.testing.assert_allclose(got, given.numpy(), rtol=unit, atol=10 * unit)
        state = ours.state_dict()
        assert list(state) == list(theirs.state_dict())
        for key, value in theirs.state_dict().items():
            np.testing.assert_allclose(state[key], value.numpy(), rtol=unit, atol=unit)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm_and_group_norm_modules(affine, bias):
    x = np.random.default_rng(0).standard_normal((3, 6, 5)).astype(np.float32) * 2 + 1
    pairs = [
        (cpunorm.LayerNorm((6, 5), 1e-3, affine, bias), torch.nn.LayerNorm((6, 5), 1e-3, affine, bias)),
        (cpunorm.LayerNorm(5, elementwise_affine=affine, bias=bias), torch.nn.LayerNorm(5, 1e-5, affine, bias)),
        (cpunorm.GroupNorm(3, 6, 1e-3, affine, bias=bias), torch.nn.GroupNorm(3, 6, 1e-3, affine, bias=bias)),
    ]
    for ours, theirs in pairs:
        assert list(ours.state_dict()) == list(theirs.state_dict())
        for key, value in theirs.state_dict().items():
            value.copy_(torch.linspace(-1, 2, value.numel()).reshape(value.shape) + (key == "bias"))
        ours.load_state_dict(theirs.state_dict())
        with torch.inference_mode():
            np.testing.assert_allclose(ours(x), theirs(torch.from_numpy(x)).numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 4, 5, 6)])
def test_channels_last_strides_come_back_as_from_torch(shape):
    x = embed(np.random.default_rng(0).standard_normal(shape).astype(np.float32), (0, *range(2, len(shape)), 1))
    for training in (True, False):
        statistics = np.zeros(3, np.float32), np.ones(3, np.float32)
        ours = functional.batch_norm(x, *statistics, training=training)
        theirs = torch.nn.functional.batch_norm(*map(tensor, (x, *statistics)), training=training)
        assert ours.strides == tuple(4 * stride for stride in theirs.stride())
