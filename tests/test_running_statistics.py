"""BatchNorm's running statistics: every momentum rule, the counter, changes by hand, many threads at once."""

import copy
import io
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import engines
import ml_dtypes
import numpy as np
import oracle
import pytest
from arrays import BATCH_NORMS, memory

import cpunorm
from cpunorm import _call, functional


def batches(count=5, shape=(4, 3), dtype=np.float32):
    """Batches of small integers, so that their sums are exact."""
    rng = np.random.default_rng(0)
    return [rng.integers(-8, 9, shape).astype(dtype) for _ in range(count)]


def moments(batch):
    """Mean and unbiased variance per channel, in float64."""
    values = np.moveaxis(batch.astype(np.float64), 1, 0).reshape(batch.shape[1], -1)
    return values.mean(axis=1), values.var(axis=1, ddof=1)


@pytest.mark.parametrize("kind", BATCH_NORMS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("momentum", [0.1, 1, 0, 0.0, 0.5, None])
def test_running_statistics(engine, kind, dtype, momentum):
    module = getattr(cpunorm, kind)(3, momentum=momentum, dtype=dtype)
    mean, var = np.zeros(3), np.ones(3)
    for number, batch in enumerate(batches(shape=BATCH_NORMS[kind], dtype=dtype), 1):
        np.testing.assert_allclose(module(batch), oracle.batch_norm(batch), rtol=0, atol=2e-6)
        factor = 1 / number if momentum is None else momentum
        mean, var = ((1 - factor) * old + factor * new for old, new in zip((mean, var), moments(batch), strict=True))
        assert module.num_batches_tracked == number
    # five batches, each rounded once to the dtype of the statistics
    tolerance = {"rtol": 5 * np.finfo(dtype).eps, "atol": 8 * np.finfo(dtype).eps}
    np.testing.assert_allclose(module.running_mean, mean, **tolerance)
    np.testing.assert_allclose(module.running_var, var, **tolerance)
    assert (module.running_mean.dtype, module.num_batches_tracked.dtype) == (dtype, np.int64)

    x = batches(6, BATCH_NORMS[kind], dtype)[-1]
    before = memory(module.state_dict())
    running = module.running_mean, module.running_var
    np.testing.assert_allclose(module.eval()(x), oracle.batch_norm(x, running=running), rtol=0, atol=1e-5)
    assert memory(module.state_dict()) == before


@pytest.mark.parametrize(
    "place",
    [
        lambda values: values.astype(np.float32).repeat(2)[::2],
        lambda values: values.astype(np.float32)[::-1].copy()[::-1],
        lambda values: values.astype(">f4"),
        lambda values: np.frombuffer(bytearray(13), np.uint8)[1:].view(np.float32),
        lambda values: values.astype(np.float32).view(type("Subclass", (np.ndarray,), {})),
    ],
    ids=["strided", "backwards", "big-endian", "misaligned", "subclass"],
)
def test_running_statistics_wherever_they_lie(engine, place):
    mean, var = place(np.zeros(3)), place(np.zeros(3))
    x = batches()[0]
    functional.batch_norm(x, mean, var, training=True, momentum=0.5)
    for running, batch in zip((mean, var), moments(x), strict=True):
        np.testing.assert_allclose(running, batch / 2, rtol=1e-6)
    seen = functional.batch_norm(x, mean, var)
    np.testing.assert_array_equal(seen, functional.batch_norm(x, mean.astype(np.float32), var.astype(np.float32)))


def test_half_precision_statistics(engine):
    module = cpunorm.BatchNorm1d(3, dtype=np.float16)
    x = batches(dtype=np.float16)[0]
    assert module(x).dtype == np.float16
    mean, var = moments(x)
    np.testing.assert_array_equal(module.running_mean, (mean / 10).astype(np.float16))
    np.testing.assert_allclose(module.running_var, 0.9 + var / 10, rtol=2.0**-11)  # one rounding
    assert module.running_var.dtype == np.float16


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_statistics_are_rounded_once(dtype):
    """To each half from all float64 around it: the middle between two goes to the even one."""
    halves = np.arange(2**16, dtype=np.uint16).view(dtype)
    with np.errstate(invalid="ignore"):  # NaN that signals
        exact = halves.astype(np.float64)
    finite = np.unique(np.abs(exact[np.isfinite(exact)]))
    largest = finite[-1] + (finite[-1] - finite[-2])  # what would come next
    low, high = finite, np.append(finite[1:], largest)
    middle = low + (high - low) / 2
    below, above = np.nextafter(middle, 0), np.nextafter(middle, np.inf)
    even = np.where(low.astype(dtype).view(np.uint16) % 2, high, low)
    values = np.concatenate([exact, below, above, middle, -middle, [1e-300, -1e-300, 1e300, 5e-324]])
    expected = np.concatenate([exact, low, high, even, -even, [0, -0.0, np.inf, 0]])
    expected[np.abs(expected) == largest] *= np.inf
    mean, var = np.zeros(len(values), dtype), np.ones(len(values), dtype)
    functional.batch_norm(np.ones((2, 1), dtype), None, None, training=True)  # from here on the type is known
    _call.move_statistics(mean, var, None, values, np.zeros(len(values)), 1.0, 2)
    np.testing.assert_array_equal(mean.astype(np.float64), expected)
    signs = ~np.isnan(expected)
    np.testing.assert_array_equal(
        np.signbit(mean.astype(np.float64))[signs & (values != 0)], np.signbit(expected)[signs & (values != 0)]
    )


def test_momentum_none_is_the_plain_average(engine):
    module = cpunorm.BatchNorm1d(3, momentum=None)
    given = batches(7)
    for batch in given:
        module(batch)
    means, variances = zip(*map(moments, given), strict=True)
    np.testing.assert_allclose(module.running_mean, np.mean(means, axis=0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(module.running_var, np.mean(variances, axis=0), rtol=1e-6)


def test_momentum_0_and_1(engine):
    module = cpunorm.BatchNorm1d(3, momentum=0)
    module(batches()[0])
    np.testing.assert_array_equal(module.running_mean, [0, 0, 0])
    np.testing.assert_array_equal(module.running_var, [1, 1, 1])
    assert module.num_batches_tracked == 1
    module.momentum = 1
    module(batches()[1])
    mean, var = moments(batches()[1])
    np.testing.assert_array_equal(module.running_mean, mean.astype(np.float32))
    np.testing.assert_array_equal(module.running_var, var.astype(np.float32))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(0, 3), (4, 3, 0)])
def test_empty_batch(engine, training, shape):
    module = cpunorm.BatchNorm1d(3).train(training)
    y = module(np.empty(shape, np.float32))
    assert (y.shape, y.dtype) == (shape, np.float32)
    np.testing.assert_array_equal(module.running_mean, [0, 0, 0])
    np.testing.assert_array_equal(module.running_var, [1, 1, 1])
    assert module.num_batches_tracked == training


def test_an_error_after_the_rank_check_counts(engine):
    """The cumulative average weighs the next batch by the counter, failed batches included, as in torch."""
    module = cpunorm.BatchNorm1d(3, momentum=None)
    with pytest.raises(RuntimeError):
        module(np.ones((4, 5), np.float32))
    module(batches()[0])
    assert module.num_batches_tracked == 2
    np.testing.assert_allclose(module.running_mean, moments(batches()[0])[0] / 2, rtol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_without_running_statistics(engine, training):
    module = cpunorm.BatchNorm1d(3, track_running_stats=False).train(training)
    assert module.running_mean is module.running_var is module.num_batches_tracked is None
    x = batches()[0]
    np.testing.assert_allclose(module(x), oracle.batch_norm(x), rtol=0, atol=2e-6)
    module.reset_running_stats()
    if not training:
        with pytest.raises(ValueError, match="more than 1 value"):  # evaluation uses the batch's statistics too
            module(x[:1])


def switch_off(module):
    module.track_running_stats = False


def forget(*names):
    def change(module):
        for name in names:
            setattr(module, name, None)

    return change


def off_and_forget(*names):
    def change(module):
        switch_off(module)
        forget(*names)(module)

    return change


BATCH, RUNNING = "batch", "running"
# (what is done to a module by hand, what training does then, what evaluation does then)
BY_HAND = {
    "switched off": (switch_off, BATCH, RUNNING),
    "both buffers None": (forget("running_mean", "running_var"), BATCH, BATCH),
    "running_mean None": (forget("running_mean"), ValueError, RuntimeError),
    "running_var None": (forget("running_var"), ValueError, RuntimeError),
    "counter None": (forget("num_batches_tracked"), BATCH, RUNNING),
    "off, both None": (off_and_forget("running_mean", "running_var"), BATCH, BATCH),
    "off, one None": (off_and_forget("running_mean"), BATCH, RuntimeError),
}


def changed(package, change, training, momentum=0.1):
    module = package.BatchNorm1d(3, momentum=momentum)
    change(module)
    return module.train(training)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", BY_HAND)
def test_changed_by_hand(engine, case, training):
    change, *does = BY_HAND[case]
    module, does, x = changed(cpunorm, change, training), does[not training], batches()[0]
    running_mean = module.running_mean
    if isinstance(does, type):
        with pytest.raises(does, match="running_"):
            module(x)
    else:
        running = None if does == BATCH else (np.zeros(3), np.ones(3))
        np.testing.assert_allclose(module(x), oracle.batch_norm(x, running=running), rtol=0, atol=1e-5)
    counter = None if case == "counter None" else int(training and "off" not in case)
    assert module.num_batches_tracked == counter
    if training and case == "counter None":
        np.testing.assert_allclose(running_mean, moments(x)[0] / 10, rtol=1e-6)
    elif running_mean is not None:
        np.testing.assert_array_equal(running_mean, [0, 0, 0])


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", BY_HAND)
def test_changed_by_hand_as_torch(case, training, momentum):
    torch = pytest.importorskip("torch")

    def seen(package, convert):
        module = changed(package, BY_HAND[case][0], training, momentum)
        try:
            y = module(convert(batches()[0]))
        except (ValueError, RuntimeError) as error:
            y = type(error)
        state = {name: np.asarray(value) for name, value in module.state_dict().items()}
        return y if isinstance(y, type) else np.asarray(y.detach() if package is torch.nn else y), state

    (ours, our_state), (theirs, their_state) = seen(cpunorm, np.asarray), seen(torch.nn, torch.from_numpy)
    if isinstance(theirs, type):
        assert ours is theirs
    else:
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=4e-6)  # torch's own error at these values is 1e-6
    assert our_state.keys() == their_state.keys()
    for name, value in their_state.items():
        np.testing.assert_allclose(our_state[name], value, rtol=1e-6)


def test_switched_on_by_hand(engine):
    module = cpunorm.BatchNorm1d(3, track_running_stats=False)
    module.track_running_stats = True
    np.testing.assert_allclose(module(batches()[0]), oracle.batch_norm(batches()[0]), rtol=0, atol=2e-6)


def test_resets_are_in_place(engine):
    module = cpunorm.BatchNorm1d(3)
    module.weight[:], module.bias[:] = 5, 6
    module(batches()[0])
    own = dict(vars(module))
    module.reset_running_stats()
    np.testing.assert_array_equal(own["running_mean"], [0, 0, 0])
    np.testing.assert_array_equal(own["running_var"], [1, 1, 1])
    assert own["num_batches_tracked"] == 0
    np.testing.assert_array_equal(own["weight"], [5, 5, 5])
    module(batches()[0])
    module.reset_parameters()
    np.testing.assert_array_equal(own["weight"], [1, 1, 1])
    np.testing.assert_array_equal(own["bias"], [0, 0, 0])
    np.testing.assert_array_equal(own["running_mean"], [0, 0, 0])
    assert own["num_batches_tracked"] == 0

    module(batches()[0])
    module.track_running_stats = False
    module.reset_running_stats()  # not tracking: left as they are, as in torch
    assert own["num_batches_tracked"] == 1


# Many threads


@pytest.fixture
def eager_switching():
    """Python changes threads as often as it can, not every 5 ms."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(*tasks):
    """Run the tasks at once; their results, or the first error."""
    with ThreadPoolExecutor(len(tasks)) as pool:
        return [future.result() for future in [pool.submit(task) for task in tasks]]


def test_evaluation_from_many_threads(engine, eager_switching):
    module = cpunorm.BatchNorm2d(16)
    rng = np.random.default_rng(0)
    module(rng.normal(size=(2, 16, 8, 8)).astype(np.float32))
    module.eval()
    inputs = [rng.normal(size=(2, 16, n, n)).astype(np.float32) for n in (1, 3, 8, 50)]  # the last in a parallel region
    expected = [module(x) for x in inputs]
    before = memory(module.state_dict())

    def evaluate():
        for _ in range(20):
            for x, y in zip(inputs, expected, strict=True):
                np.testing.assert_array_equal(module(x), y)

    in_threads(*[evaluate] * 8)
    assert memory(module.state_dict()) == before


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_running_statistics_never_tear(engine, eager_switching, dtype):
    """A batch of m - s and m + s with m = 2 * s * s has m as its mean and as its unbiased variance.

    So with momentum 1 an evaluation of 0 gives -sqrt(m) in every channel; one that saw the mean of one batch and the
    variance of another gives something else.
    """
    channels, steps = 512, (1, 3, 5)
    module = cpunorm.BatchNorm1d(channels, momentum=1, affine=False, dtype=dtype)
    given = [np.full((2, channels), 2 * s * s, dtype) + np.array([[-s], [s]], dtype) for s in steps]
    whole = np.array([-s * 2**0.5 for s in steps])
    module(given[0])

    def train():
        for turn in range(60):
            module(given[turn % 3])

    # evaluation takes the same buffers through another module, whose flag is its own
    observer = cpunorm.BatchNorm1d(channels, affine=False, dtype=dtype).eval()
    observer.running_mean, observer.running_var = module.running_mean, module.running_var
    zeros = np.zeros((1, channels), dtype)

    def observe():
        for _ in range(300):
            y = observer(zeros)
            assert np.ptp(y) == 0
            assert np.abs(y[0, 0] - whole).min() < 1e-4  # eps; a torn one is further away than 0.3

    in_threads(train, train, observe, observe)
    assert module.num_batches_tracked == 121


def test_training_from_many_threads_counts_every_batch_once(engine, eager_switching):
    """With momentum None the order doesn't matter, so the average is that of all batches, whoever brought them."""
    module = cpunorm.BatchNorm1d(3, momentum=None)
    given = batches(160)

    def train(part):
        return lambda: [module(batch) for batch in part]

    in_threads(*[train(given[start::8]) for start in range(8)])
    assert module.num_batches_tracked == 160
    means, variances = zip(*map(moments, given), strict=True)
    # 160 roundings to float32 of averages below 8 and 64
    np.testing.assert_allclose(module.running_mean, np.mean(means, axis=0), rtol=0, atol=160 * 8 * 2**-24)
    np.testing.assert_allclose(module.running_var, np.mean(variances, axis=0), rtol=0, atol=160 * 64 * 2**-24)


def saved(module):
    """What `np.savez` writes and `np.load` reads."""
    file = io.BytesIO()
    np.savez(file, **module.state_dict())
    file.seek(0)
    return dict(np.load(file))


def deep_copy_of_many(module):
    """In a copy of several modules, shared arrays stay shared."""
    first, second = copy.deepcopy([module, copy.copy(module)])
    assert first.running_mean is second.running_mean
    return vars(second)


COPIES = {
    "deepcopy": lambda module: vars(copy.deepcopy(module)),
    "deepcopy of many": deep_copy_of_many,
    "pickle": lambda module: vars(pickle.loads(pickle.dumps(module))),
    "state_dict": lambda module: module.state_dict(),
    "savez": saved,
}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float16, marks=pytest.mark.slow)])
def test_a_copy_is_one_moment(eager_switching, way, dtype):
    """While a thread trains with momentum 1, on batches of which mean and unbiased variance are both 2 * s * s."""
    channels, steps = 512, (1, 3, 5)
    module = cpunorm.BatchNorm1d(channels, momentum=1, affine=False, dtype=dtype)
    given = [np.full((2, channels), 2 * s * s, dtype) + np.array([[-s], [s]], dtype) for s in steps]
    module(given[0])
    stop = threading.Event()

    def train():
        while not stop.is_set():
            for batch in (given[1], given[2], given[0]):
                module(batch)

    def take():
        try:
            for _ in range(400):
                taken = COPIES[way](module)
                values = np.unique([taken["running_mean"], taken["running_var"]])
                assert len(values) == 1, values
                assert values[0] == (50, 2, 18)[taken["num_batches_tracked"] % 3]
        finally:
            stop.set()

    in_threads(train, take)


@pytest.mark.parametrize("engine", engines.COMPILED_FIRST, indirect=True)
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("BatchNorm2d", np.float32),
        ("LayerNorm", np.float16),
        *(
            pytest.param(kind, dtype, marks=pytest.mark.slow)
            for kind, dtype in [("BatchNorm1d", np.float16), ("BatchNorm3d", np.float32), ("GroupNorm", np.float32)]
        ),
    ],
)
def test_a_call_sees_one_checkpoint(engine, eager_switching, kind, dtype):
    """Parameters and statistics alike, while others load, reset and load again."""
    shape = BATCH_NORMS.get(kind, (4, 3))
    channels = 768
    shape = (16, channels, *shape[2:])
    module = getattr(cpunorm, kind)(*((2, channels) if kind == "GroupNorm" else (channels,))).eval()
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    checkpoints = [{name: np.full(channels, 4.0**k) for name in module.state_dict()} for k in (1, 2)]
    for state in checkpoints:
        state["num_batches_tracked"] = np.array(1)
    expected = [module(x)]
    for state in checkpoints:
        module.load_state_dict(state, strict=False)
        expected.append(module(x))
    stop = threading.Event()

    def load():
        while not stop.is_set():
            for state in checkpoints:
                module.load_state_dict(state, strict=False)
            module.reset_parameters()

    def call():
        try:
            for _ in range(200):
                y = module(x)
                assert any(np.array_equal(y, whole) for whole in expected)
        finally:
            stop.set()

    in_threads(load, load, call, call)


def test_a_reset_is_one_moment(eager_switching):
    module = cpunorm.BatchNorm1d(2048)
    module.load_state_dict({name: np.full_like(array, 7) for name, array in module.state_dict().items()})
    fresh = memory(cpunorm.BatchNorm1d(2048).state_dict())
    seven = memory(module.state_dict())
    stop = threading.Event()

    def reset():
        while not stop.is_set():
            module.reset_parameters()
            module.load_state_dict({name: np.full_like(array, 7) for name, array in module.state_dict().items()})

    def look():
        try:
            for _ in range(300):
                assert memory(module.state_dict()) in (fresh, seven)
        finally:
            stop.set()

    in_threads(reset, look)


@pytest.mark.parametrize("counter", [0, np.int64(3), np.zeros((), np.int32), np.zeros(2, np.int64)], ids=repr)
def test_a_counter_that_is_none(engine, counter):
    module = cpunorm.BatchNorm1d(3)
    module.num_batches_tracked = counter
    before = memory(vars(module))
    with pytest.raises(TypeError, match="num_batches_tracked"):
        module(batches()[0])
    assert memory(vars(module)) == before
