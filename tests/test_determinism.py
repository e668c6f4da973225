"""The same bits at any number of threads, in any batch, on every way into a kernel."""

import itertools

import hypothesis
import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import pytest
from norms import EPS, NORMS, affine, channels, first, last, running, values

import cpunorm
from cpunorm.functional import batch_norm, group_norm, layer_norm

pytestmark = pytest.mark.usefixtures("engine")

THREADS = (1, 2, 3, 8)

# Below and above the size that goes parallel (65536 elements): many domains, few and large ones, odd lengths.
SHAPES = [(3, 6, 50), (16, 32, 20, 21), (1, 4, 201, 199), (2, 70002), (70002, 2), (1, 2, 140001), (7, 12, 997)]


def bits_at_each_number_of_threads(run):
    for number in THREADS:
        with cpunorm.num_threads(number):
            yield [array.tobytes() for array in run()]


def assert_same_bits(run):
    one, *more = bits_at_each_number_of_threads(run)
    for number, bits in zip(THREADS[1:], more, strict=True):
        assert bits == one, f"{number} threads give other bits than one"


@pytest.mark.parametrize(("name", "shape"), [(name, shape) for name in NORMS for shape in NORMS[name].of(SHAPES)])
def test_any_number_of_threads(name, shape):
    for dtype in (np.float32, ml_dtypes.bfloat16):
        x = values(shape).astype(dtype)
        assert_same_bits(lambda x=x: [NORMS[name].run(x), NORMS[name].run(x, activation="silu", residual=x)])


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if len(shape) > 2])
@pytest.mark.parametrize("name", [name for name in NORMS if NORMS[name].has_channels])
def test_any_number_of_threads_with_channels_last(name, shape):
    x = last(values(shape))
    assert_same_bits(lambda: [NORMS[name].run(x, data_format="channels_last")])


@pytest.mark.parametrize("shape", [(1, 3, 512, 512), (2, 500_000), (32, 32, 33, 31)])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_training_statistics_at_any_number_of_threads(shape, layout):
    x = values(shape)
    if layout == "channels_last":
        x = first(last(x))

    def run():
        statistics = running(shape[1])
        return [batch_norm(x, *statistics, training=True), *statistics]

    assert_same_bits(run)


@pytest.mark.parametrize("name", NORMS)
def test_float64_and_strided_input_at_any_number_of_threads(name):
    wide = values((4, 10, 41, 57), np.float64)
    strided = values((4, 10, 82, 60))[:, :, ::-2, 1:-2]
    assert_same_bits(lambda: [NORMS[name].run(wide), NORMS[name].run(strided)])


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("name", [name for name in NORMS if NORMS[name].per_sample])
def test_a_sample_has_the_same_bits_in_any_batch(name, layout):
    for shape in NORMS[name].of([(5, 6, 50), (33, 4, 700), (3, 8, 91, 97), (3, 2, 70_001), (9000, 8)]):
        x = values(shape)
        if layout == "channels_last":
            x = first(last(x))
        whole = NORMS[name].run(x)
        for part in (slice(1), slice(2, 3), slice(1, 4), slice(-2, None)):
            np.testing.assert_array_equal(NORMS[name].run(x[part]), whole[part])


@pytest.mark.parametrize(("length", "count"), [(300, 2000), (5000, 130), (70, 9000)])
def test_a_row_that_lies_across_others_has_the_same_bits_beside_any_number_of_them(engine, length, count):
    rows = values((length, count)).T
    whole = layer_norm(rows, (length,))
    for some in (3, 40, count // 2):
        np.testing.assert_array_equal(layer_norm(rows[:some], (length,)), whole[:some])
        np.testing.assert_array_equal(layer_norm(rows[:some].copy(order="F"), (length,)), whole[:some])


@pytest.mark.parametrize("shape", [(256, 16), (3, 6, 50), (2, 4, 40001)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_spelling_of_the_arguments(shape, order):
    """An eps that is no plain float, a momentum that is an int, a list, keywords: all unusual, none different."""
    x, (weight, bias), eps = values(shape).copy(order), affine(shape[1]), np.float64(EPS)
    for training in (True, False):
        plain, unusual = running(shape[1]), running(shape[1])
        np.testing.assert_array_equal(
            batch_norm(x, *plain, weight, bias, training, 1.0, EPS),
            batch_norm(
                x, *unusual, eps=eps, momentum=1, bias=np.repeat(bias, 2)[::2], training=np.bool_(training),
                weight=weight.astype(">f4"),
            ),
        )  # fmt: skip
        np.testing.assert_array_equal(plain, unusual)
    np.testing.assert_array_equal(
        group_norm(x, 2, weight, bias, EPS), group_norm(x, bias=bias, eps=eps, weight=weight, num_groups=np.int32(2))
    )
    row = shape[2:] or shape[1:]
    np.testing.assert_array_equal(layer_norm(x, row, *affine(row), EPS), layer_norm(x, list(row), *affine(row), eps))


@pytest.mark.parametrize("name", NORMS)
def test_again_and_into_out_gives_the_same_bits(name):
    norm = NORMS[name]
    for shape in norm.of([(9, 4), (2, 4, 33), (3, 4, 5, 6), (2, 4, 2, 3, 4), (4, 6, 40, 90)]):
        x = values(shape)
        once = norm.run(x)
        np.testing.assert_array_equal(norm.run(x), once)
        np.testing.assert_array_equal(norm.run(x, out=np.full_like(x, np.nan)), once)
        np.testing.assert_array_equal(norm.run(x, out=x), once)


# Whatever the strides: for one shape and order of axes in memory.


def ways_to_lie(x, rng):
    """Arrays of the values of x, with its order of axes, that lie otherwise in memory."""
    corner = tuple(map(slice, x.shape))
    order = np.argsort([-stride for stride in x.strides], kind="stable")

    def room(shape):
        return np.zeros([shape[axis] for axis in order], x.dtype).transpose(np.argsort(order))

    yield "cropped", room([length + int(rng.integers(0, 3)) for length in x.shape])[corner]
    yield "stepped", room([2 * length for length in x.shape])[tuple(slice(None, None, 2) for _ in x.shape)]
    yield "flipped", room(x.shape)[tuple(slice(None, None, -1) for _ in x.shape)]
    bytes_ = np.zeros(x.nbytes + x.itemsize, np.uint8)[x.itemsize :]
    shifted = bytes_.view(x.dtype).reshape([x.shape[axis] for axis in order]).transpose(np.argsort(order))
    yield "off a vector's bounds", shifted


@st.composite
def arrays(draw):
    """Up to 30000 values in up to 5 axes, long and short ones, in any order in memory, far from zero or not."""
    size, shape = draw(st.integers(2, 30_000)), []
    for _ in range(draw(st.integers(2, 5))):
        shape.append(draw(st.integers(1, min(size, draw(st.sampled_from([4, 70, 3000]))))))
        size //= shape[-1]
    order = draw(st.permutations(range(len(shape))))
    dtype = draw(st.sampled_from([np.float32, np.float64, np.float16, ml_dtypes.bfloat16]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = rng.standard_normal([shape[axis] for axis in order]) + draw(st.sampled_from([0, 3, 1e4]))
    return x.astype(dtype).transpose(np.argsort(order)), rng


@st.composite
def calls(draw):
    """An array and a norm of it, with what is done to the result: run(x, out=None)."""
    x, rng = draw(arrays())
    data_format = draw(st.sampled_from(["channels_first", "channels_last"]))
    count = channels(x, data_format)
    name = draw(st.sampled_from(["training", "inference", "group_norm", "layer_norm"]))
    leading = draw(st.integers(0, x.ndim - 1))
    groups = draw(st.sampled_from([number for number in range(1, count + 1) if count % number == 0]))
    hypothesis.assume(x.size > {"training": count, "group_norm": groups * len(x)}.get(name, 0))
    shape = x.shape[leading:] if name == "layer_norm" else (count,)
    given_ = draw(st.tuples(st.booleans(), st.booleans()))
    weight, bias = (rng.uniform(0.5, 1.5, shape).astype(x.dtype) if given else None for given in given_)
    activation, residual = draw(st.sampled_from([None, "relu", "gelu"])), draw(st.booleans())

    def finish(x):  # of each element what depends on itself alone: a residual of every shape, in the order of x
        return {"activation": activation, "residual": x * x.dtype.type(0.5) if residual else None}

    if name == "layer_norm":
        return x, lambda x, **out: layer_norm(x, shape, weight, bias, EPS, **out, **finish(x)), leading > 0, rng
    options = {"weight": weight, "bias": bias, "eps": EPS, "data_format": data_format}
    if name == "group_norm":
        return x, lambda x, **out: group_norm(x, groups, **options, **out, **finish(x)), True, rng
    statistics = running(count, x.dtype)
    options["training"] = name == "training"

    def run(x, **out):
        return batch_norm(x, *map(np.copy, statistics), **options, **out, **finish(x))

    return x, run, name == "inference", rng


def test_few_channels_inside_positions_that_do_not_merge(engine):
    """Found by the fuzzer: such positions are one run, packed, and were cut where they don't lie evenly."""
    if engine[0] == "reference":
        pytest.skip("NumPy's sums depend on strides")
    rng = np.random.default_rng(0)
    for count, lengths in itertools.product((1, 2, 3, 4), ((7, 16), (3, 5, 9), (20, 12), (2, 2, 2))):
        room = np.zeros((3, *(2 * length for length in lengths), count), np.float32)
        x = room[(slice(None), *(slice(None, None, 2) for _ in lengths))]
        x[...] = rng.standard_normal(x.shape)
        for run in (
            lambda x, count=count: group_norm(x, count, data_format="channels_last"),
            lambda x: batch_norm(x, None, None, training=True, data_format="channels_last"),
            lambda x: batch_norm(x[:1], None, None, training=True, data_format="channels_last"),
        ):
            np.testing.assert_array_equal(run(x), run(x.copy()))


@pytest.mark.parametrize("shape", [(90, 2), (90, 2, 1, 1), (70, 3, 3), (50, 5, 2, 2), (40, 63, 1, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_a_few_short_groups_of_many_samples(engine, shape, dtype):
    """In lanes, those of all samples at once where these follow each other; each with its channel's weights."""
    rng = np.random.default_rng(7)
    whole = rng.standard_normal((shape[0], shape[1] + 1, *shape[2:])).astype(dtype)
    cut = whole[:, :-1]
    weight, bias = (rng.standard_normal(shape[1]).astype(dtype) for _ in range(2))
    for parameters in ((), (weight, bias), (weight, None), (None, bias)):
        for residual in (None, whole[:, 1:]):
            told = {"residual": residual, "activation": "relu"}
            y = group_norm(cut, shape[1], *parameters, **told)
            np.testing.assert_array_equal(group_norm(cut.copy(), shape[1], *parameters, **told), y)
            told["residual"] = None if residual is None else residual[6:9]
            np.testing.assert_array_equal(group_norm(cut[6:9], shape[1], *parameters, **told), y[6:9])


@hypothesis.given(calls())
def test_any_strides_alignment_threads_and_place_of_the_result(engine, call):
    if engine[0] == "reference":
        pytest.skip("NumPy's sums depend on strides")
    x, run, per_sample, rng = call
    expected = run(x)
    with cpunorm.num_threads(3):
        np.testing.assert_array_equal(run(x), expected, err_msg="three threads")
    for way, other in ways_to_lie(x, rng):
        other[...] = x
        np.testing.assert_array_equal(run(other), expected, err_msg=f"x {way}")
        run(x, out=other)
        np.testing.assert_array_equal(other, expected, err_msg=f"out {way}")
    again = x.copy("K")
    run(again, out=again)
    np.testing.assert_array_equal(again, expected, err_msg="in place")
    if per_sample and abs(x.strides[0]) == max(map(abs, x.strides)):  # else a sample alone is of another order
        stop = int(rng.integers(1, len(x) + 1))
        hypothesis.assume(x[:stop].size > 1)
        np.testing.assert_array_equal(
            run(x[:stop].copy("K")), expected[:stop], err_msg=f"{stop} samples alone of {x.shape} {x.strides}"
        )


@hypothesis.given(arrays())
def test_either_data_format_of_the_same_memory(engine, drawn):
    if engine[0] == "reference":
        pytest.skip("NumPy's sums depend on strides")
    x, _ = drawn
    last = np.moveaxis(x, 1, -1)
    hypothesis.assume(x.size > x.shape[1])
    hypothesis.assume(x.size > len(x))
    for norm in (
        lambda x, **form: batch_norm(x, None, None, training=True, **form),
        lambda x, **form: batch_norm(x, *running(channels(x, *form.values()), x.dtype), **form),
        lambda x, **form: group_norm(x, 1, **form),
    ):
        np.testing.assert_array_equal(np.moveaxis(norm(last, data_format="channels_last"), -1, 1), norm(x))
