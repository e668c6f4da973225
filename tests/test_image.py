"""`normalize_image`: half an ulp from the float64 formula for all pixels, channels, layouts, strides and ISA levels."""

import itertools
import sys
import threading
from pathlib import Path

import fresh
import hypothesis
import numpy as np
import pytest
import strided
from engines import LEVELS
from hypothesis import strategies as st

import cpunorm
from cpunorm import _engine, _memory, normalize_image

ml_dtypes = pytest.importorskip("ml_dtypes")

LAYOUTS = ("HWC->CHW", "HWC->HWC", "CHW->CHW")
SCALES = {np.uint8: 1 / 255, np.uint16: 1 / 65535, np.float16: 1.0, np.float32: 1.0}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Roundings of a result of uint8, before the last one, in ulps: image.h says why. Others are computed in float64.
SLACK = 2.0**-11
PRECISION = {np.float32: (24, -126), np.float16: (11, -14), ml_dtypes.bfloat16: (8, -126)}


@pytest.fixture(params=LEVELS, autouse=True)
def isa(request):
    before = _engine._engine, _engine._isa
    _engine.select(*request.param)
    yield request.param[1]
    _engine.select(*before)


def pixels(shape, dtype, seed=0):
    """Any values of an integer type, or floats around 0."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "u":
        return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    return rng.standard_normal(shape).astype(dtype)


def formula(x, mean, std, scale, layout="HWC->CHW", swap=False):
    """The definition, in float64."""
    channels = x.ndim - (3 if layout == "CHW->CHW" else 1)
    y = np.moveaxis(x.astype(np.float64), channels, -1)
    if swap:
        y = y[..., [2, 1, 0, 3][: y.shape[-1]]]
    y = (y * scale - mean) / std
    return y if layout == "HWC->HWC" else np.moveaxis(y, -1, -3)


def ulp(values, dtype):
    """The distance of neighbours of `dtype` at float64 `values`."""
    digits, least = PRECISION[dtype]
    return np.exp2(np.maximum(np.frexp(values)[1] - 1, least) - (digits - 1))


def assert_rounded(y, expected, dtype=np.float32):
    """Half an ulp, and what was rounded before it; float16 and bfloat16 are rounded from float32."""
    assert y.dtype == dtype
    assert y.shape == expected.shape
    bound = (0.5 + SLACK) * ulp(expected, np.float32) + (dtype != np.float32) * 0.5 * ulp(expected, dtype)
    assert np.all(np.abs(y.astype(np.float64) - expected) <= bound)


# Precision


@pytest.mark.parametrize("dtype", SCALES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_value(dtype, layout):
    """All of 8 and 16 bits, beside means that meet values of the grid exactly, nearly, and not at all."""
    x = np.arange(256 if dtype == np.uint8 else 65536, dtype=np.uint8 if dtype == np.uint8 else np.uint16)
    if dtype in (np.float16, np.float32):
        x = x.view(np.float16)
        x = x[np.isfinite(x)].astype(dtype)
    rng = np.random.default_rng(0)
    scale = SCALES[dtype]
    means = [0.0, 1.0, 0.5, 128 * scale, 128 * scale * (1 + 2**-50), 127.5 * scale, 1e-30, -3.0, 1e4, *rng.random(7)]
    stds = [1.0, 0.5, scale, 3.0, 1e-6, 1e6, *rng.uniform(0.01, 2, 10)]
    image = np.repeat(x[None, :, None], 16, axis=2)
    if layout == "CHW->CHW":
        image = np.moveaxis(image, -1, 0).copy()
    for group in (range(16), range(3), range(3, 6), range(6, 9), range(9, 13), range(13, 15), [15]):
        axis = 0 if layout == "CHW->CHW" else 2
        chosen, mean, std = (np.take(a, list(group), i) for a, i in ((image, axis), (means, 0), (stds, 0)))
        assert_rounded(normalize_image(chosen, mean, std, layout=layout), formula(chosen, mean, std, scale, layout))


@hypothesis.given(
    st.floats(-2, 2), st.floats(1e-3, 10), st.floats(1e-4, 10) | st.sampled_from([1.0, 1 / 255, 1 / 256]), st.booleans()
)
def test_any_coefficients(isa, mean, std, scale, half):
    x = np.arange(256, dtype=np.uint8)[None, :, None]
    dtype = np.float16 if half else np.float32
    with np.errstate(over="ignore"):
        y, expected = normalize_image(x, mean, std, scale=scale, dtype=dtype), formula(x, mean, std, scale)
    inside = np.abs(expected) < 65000
    assert_rounded(y[inside], expected[inside], dtype)


@pytest.mark.parametrize(
    ("mean", "std", "scale"), [(1e30, 1.0, None), (0.5, 1e-35, None), (0.5, 0.5, 1e-36), (0, 1e38, 1)]
)
def test_far_from_one(mean, std, scale):
    """Where float32 would overflow or lose digits on the way, the way is float64's."""
    x = pixels((3, 50, 3), np.uint8)
    y = normalize_image(x, mean, std, scale=scale)
    assert_rounded(y, formula(x, mean, std, scale or 1 / 255))


def test_beyond_float32_is_infinite():
    y = normalize_image(np.array([[[0], [255]]], np.uint8), 0.5, 1e-40)
    np.testing.assert_array_equal(y, [[[-np.inf, np.inf]]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("out", PRECISION)
@pytest.mark.parametrize("scale", [None, 1 / 3])
def test_what_is_not_finite_stays_so(dtype, out, scale):
    special = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 1], dtype)
    x = np.resize(special, (5, 12, 3))
    y = normalize_image(x, 0, 2, scale=scale, dtype=out).astype(np.float32)
    np.testing.assert_allclose(y, np.moveaxis(x.astype(np.float32), -1, 0) * (scale or 1) / 2, rtol=2**-8)


@pytest.mark.parametrize("dtype", PRECISION)
def test_ties_and_ends_of_the_results_range(dtype):
    """Halfway to even, subnormal and infinite, as NumPy's and ml_dtypes' own conversions."""
    values = np.exp2(np.arange(-149.0, 127.0))[:, None] * np.array([1, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-11, 1.9999])
    x = np.concatenate([values, -values]).astype(np.float32).reshape(8, -1, 1)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(normalize_image(x, 0, 1, dtype=dtype)[0], x[..., 0].astype(dtype))


# Shapes and memory

EVERY = [
    (dtype, layout, swap, out)
    for dtype, layout, swap, out in itertools.product(SCALES, LAYOUTS, (False, True), PRECISION)
    if out == np.float32 or dtype in (np.uint8, np.float16)
]


@pytest.mark.parametrize(("dtype", "layout", "swap", "out"), EVERY)
def test_channels_and_tails(dtype, layout, swap, out):
    """1 to 16 channels, and rows that end anywhere in a vector."""
    rng = np.random.default_rng(1)
    for channels in (3, 4) if swap else range(1, 17):
        mean, std = rng.random(channels), rng.uniform(0.1, 1, channels)
        for rows, columns in ((1, 1), (2, 3), (1, int(rng.integers(4, 40))), (3, int(rng.integers(40, 200)))):
            x = pixels((rows, columns, channels), dtype, columns)
            if layout == "CHW->CHW":
                x = np.moveaxis(x, -1, 0).copy()
            y = normalize_image(x, mean, std, layout=layout, swap_channels=swap, dtype=out)
            assert y.flags.c_contiguous
            assert_rounded(y, formula(x, mean, std, SCALES[dtype], layout, swap), out)


def views(x):
    """`x`, (H, W, C) or (C, H, W), by the name of how it lies in memory."""
    yield from ((name, arrange(x)) for name, arrange in strided.LAYOUTS.items())
    for axes in ((2, 0, 1), (1, 0, 2), (0, 2, 1)):
        for step in (1, -1, 2, -3):
            for axis in range(3):
                steps = [step if a == axis else 1 for a in range(3)]
                yield f"{axes} {steps}", strided.embed(x, axes, steps, margin=1)
    for axis in range(3):
        yield f"axis {axis} repeated", np.broadcast_to(np.take(x, [0], axis), x.shape)
    yield "every other channel of few pixels", strided.embed(x, steps=(1, 1, 2))
    yield "the first of more channels", strided.embed(x, steps=1, margin=1)[..., :]


@pytest.mark.parametrize("dtype", SCALES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides_change_no_bit(dtype, layout):
    for channels in (1, 2, 3, 4, 7, 16):
        values = pixels((9, 37, channels), dtype)
        values = np.moveaxis(values, -1, 0).copy() if layout == "CHW->CHW" else values
        mean, std = np.linspace(0, 1, channels), np.linspace(0.2, 1, channels)
        for name, x in views(values):
            for swap in (False, True) if channels in (3, 4) else (False,):
                y = normalize_image(x, mean, std, layout=layout, swap_channels=swap)
                expected = normalize_image(np.ascontiguousarray(x), mean, std, layout=layout, swap_channels=swap)
                np.testing.assert_array_equal(y, expected, err_msg=f"{channels} channels, {name}, swapped: {swap}")


@pytest.mark.parametrize("dtype", SCALES)
@pytest.mark.parametrize("order", "<>")
def test_byte_order(dtype, order):
    x = pixels((5, 20, 3), dtype)
    swapped = x.astype(x.dtype.newbyteorder(order))
    np.testing.assert_array_equal(normalize_image(swapped, MEAN, STD), normalize_image(x, MEAN, STD))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_batches_and_lists(layout):
    batch = pixels((5, 4, 21, 3) if layout != "CHW->CHW" else (5, 3, 4, 21), np.uint8)
    each = [normalize_image(x, MEAN, STD, layout=layout) for x in batch]
    large = pixels((200, 300, 3), np.uint8)
    crops = [large[i : i + 4, 7 * i : 7 * i + 21] for i in range(5)]  # of one shape, in other strides than their copies
    for given, expected in (
        (batch, each),
        (list(batch), each),
        (tuple(batch), each),
        (batch[::-2], each[::-2]),
        (list(batch[:1]), each[:1]),
        *(
            [([*crops, crops[0].copy()], [normalize_image(x, MEAN, STD) for x in [*crops, crops[0]]])]
            * (layout == LAYOUTS[0])
        ),
    ):
        y = normalize_image(given, MEAN, STD, layout=layout)
        np.testing.assert_array_equal(y, np.stack(expected))
        out = np.empty_like(y)
        assert normalize_image(given, MEAN, STD, layout=layout, out=out) is out
        np.testing.assert_array_equal(out, y)


@pytest.mark.parametrize("shape", [(0, 4, 3), (4, 0, 3), (0, 4, 4, 3), (2, 0, 4, 3)])
def test_empty(shape):
    x = np.empty(shape, np.uint8)
    expected = (*shape[:-3], 3, *shape[-3:-1])
    y = normalize_image(x, MEAN, STD)
    assert (y.shape, y.dtype) == (expected, np.float32)
    assert normalize_image(x, MEAN, STD, out=y) is y


@pytest.mark.slow
def test_past_the_caches():
    """Stored around the caches: 32 MiB and more; planes of which some are aligned, some not."""
    for columns in (1600, 1601):
        for layout, channels, dtype in itertools.product(LAYOUTS[:2], (1, 3, 4), (np.uint8, np.float32)):
            x = pixels((1600, columns, channels), np.uint8).astype(dtype)
            y = normalize_image(x, MEAN[0], STD[0], layout=layout)
            rows = np.arange(0, 1600, 97)
            expected = normalize_image(x[rows], MEAN[0], STD[0], layout=layout)
            np.testing.assert_array_equal(y[rows] if layout == "HWC->HWC" else y[:, rows], expected)


# Arguments


@pytest.mark.parametrize("dtype", PRECISION)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_out_wherever_it_lies(dtype, layout):
    x = pixels((2, 6, 13, 3) if layout != "CHW->CHW" else (2, 3, 6, 13), np.uint8)
    expected = normalize_image(x, MEAN, STD, layout=layout, dtype=dtype)
    for name, arrange in strided.LAYOUTS.items():
        out = arrange(np.zeros_like(expected))
        around = strided.surroundings(out)
        assert normalize_image(x, MEAN, STD, layout=layout, dtype=dtype, out=out) is out
        np.testing.assert_array_equal(out, expected, err_msg=name)
        assert strided.surroundings(out) == around, name


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("layout", LAYOUTS[1:])
@pytest.mark.parametrize("arrange", ["contiguous", "backwards", "unaligned", "fortran"])
def test_in_place(dtype, layout, arrange):
    values = pixels((3, 11, 29), dtype)
    mean, std = (0.1, 0.5) if layout == "HWC->HWC" else (MEAN, STD)
    if layout == "HWC->HWC":
        values = values[..., :16]
    expected = normalize_image(values, mean, std, layout=layout, dtype=dtype)
    x = strided.LAYOUTS[arrange](values)
    assert normalize_image(x, mean, std, layout=layout, dtype=dtype, out=x) is x
    np.testing.assert_array_equal(x, expected)


def test_swapping_is_of_the_image():
    """mean and std are those of the result's channels, as OpenCV's blobFromImage has it; alpha stays."""
    bgra = pixels((5, 17, 4), np.uint8)
    mean, std = (*MEAN, 0.0), (*STD, 1.0)
    expected = normalize_image(np.ascontiguousarray(bgra[..., [2, 1, 0, 3]]), mean, std)
    np.testing.assert_array_equal(normalize_image(bgra, mean, std, swap_channels=True), expected)
    np.testing.assert_array_equal(normalize_image(bgra[..., :3], MEAN, STD, swap_channels=True), expected[:3])
    np.testing.assert_array_equal(normalize_image(bgra[..., 2::-1], MEAN, STD), expected[:3])


@pytest.mark.parametrize(
    "convert",
    [
        list,
        tuple,
        np.array,
        np.float32,
        lambda v: np.array(v)[::1],
        lambda v: np.repeat(v, 2)[::2],
        lambda v: [*map(np.float64, v)],
    ],
)
def test_mean_and_std_are_any_sequence(convert):
    x = pixels((4, 9, 3), np.uint8)
    mean, std = convert(MEAN), convert(STD)
    want = formula(x, np.asarray(mean, np.float64), np.asarray(std, np.float64), 1 / 255)
    assert_rounded(normalize_image(x, mean, std), want)


@pytest.mark.parametrize("one", [1, 0.5, np.float32(0.5), np.array(0.5), np.int64(2)])
def test_one_number_is_for_all_channels(one):
    x = pixels((4, 9, 3), np.uint8)
    np.testing.assert_array_equal(normalize_image(x, one, one), normalize_image(x, [one] * 3, [one] * 3))


@pytest.mark.parametrize("scale", [1, 1.0, np.float32(0.5), 1 / 255])
def test_scale(scale):
    x = pixels((4, 9, 3), np.uint8)
    assert_rounded(normalize_image(x, 0.25, 0.5, scale=scale), formula(x, 0.25, 0.5, float(scale)))


def test_layouts_and_dtypes_by_equal_names():
    """Not only by the very strings and types that the fast tests know."""
    x = pixels((4, 9, 3), np.uint8)
    layout = "->".join(["HWC", "HWC"])
    assert layout is not LAYOUTS[1]
    expected = normalize_image(x, 0.5, 0.5, layout="HWC->HWC")
    for dtype in ("float32", np.dtype(np.float32), "f4"):
        np.testing.assert_array_equal(normalize_image(x, 0.5, 0.5, layout=layout, dtype=dtype), expected)


def test_the_memory_is_the_pools():
    x = pixels((400, 400, 3), np.uint8)
    cpunorm.empty_cache()
    address = normalize_image(x, MEAN, STD).ctypes.data
    before = _memory.statistics()["reused"]
    y = normalize_image(x, MEAN, STD)
    assert y.ctypes.data == address
    assert y.flags.owndata
    assert _memory.statistics()["reused"] == before + 1


def test_threads_change_no_bit():
    images = [pixels(shape, np.uint8) for shape in ((500, 501, 3), (3, 7, 9001, 4), (2000, 33, 5), (40, 40, 40, 3))]
    for x, layout in itertools.product(images, LAYOUTS[:2]):
        results = []
        for threads in (1, 2, 3, 7):
            cpunorm.set_num_threads(threads)
            results += [normalize_image(x, 0.5, 0.25, layout=layout) for _ in range(2)]
        for y in results[1:]:
            np.testing.assert_array_equal(y, results[0])


def test_calls_from_many_threads():
    x = pixels((300, 301, 3), np.uint8)
    expected, wrong = normalize_image(x, MEAN, STD), []

    def work():
        for _ in range(20):
            if not np.array_equal(normalize_image([x, x], MEAN, STD)[1], expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("name", ["numba", "reference"])
def test_engines_have_no_part(name):
    if name == "numba":
        pytest.importorskip("numba")
    x = pixels((40, 41, 3), np.uint8)
    expected = normalize_image(x, MEAN, STD)
    with cpunorm.engine(name):
        np.testing.assert_allclose(normalize_image(x, MEAN, STD), expected, rtol=0, atol=1e-6)


@pytest.mark.skipif(sys.platform == "win32", reason="mprotect")
@pytest.mark.parametrize("share", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_no_byte_outside(isa, share):
    """Images that begin and end at pages that can't be read, results at ones that can't be written; one in `share`."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_image
test_image.attack({isa!r}, {share})
"""
    done = fresh.python(code, timeout=120, PYTHONFAULTHANDLER="1")
    last = done.stdout.strip().rpartition("\n")[2]
    assert done.returncode == 0, f"{last}: ended with {done.returncode}\n{done.stderr}"
    assert int(last) > 9000 / share


def attack(isa, share):
    """Prints each case before it is run, at last how many there were."""
    from test_guard_pages import SIDES, Guarded

    _engine.select("cython", isa)
    inputs, outputs = Guarded(2**17), Guarded(2**17)
    count = 0
    sizes = itertools.chain(
        itertools.product((1,), (2, 3, 4), (9, 15, 17)),  # an odd number of packed pixels, for rows may be one
        itertools.product((2,), range(1, 17), (1, 2, 3, 5, 8, 13, 16, 17, 31, 48, 65, 100)),
    )
    arrangements = "contiguous", "one axis backwards", "backwards", "cropped"
    cases = itertools.product(sizes, (np.uint8, np.uint16, np.float32), LAYOUTS, arrangements)
    for (rows, channels, columns), dtype, layout, arrange in itertools.islice(cases, 0, None, share):
        values = pixels((rows, columns, channels), dtype)
        values = np.moveaxis(values, -1, 0).copy() if layout == "CHW->CHW" else values
        ordinary = strided.LAYOUTS[arrange](values)
        expected = normalize_image(values, 0.5, 0.25, layout=layout)
        for side in SIDES:
            print(isa, rows, channels, columns, dtype.__name__, layout, arrange, side, flush=True)
            out = outputs.like(np.zeros_like(expected), side)
            normalize_image(inputs.like(ordinary, side), 0.5, 0.25, layout=layout, out=out)
            np.testing.assert_array_equal(out, expected)
            count += 1
    print(count)


# Bad input

X = pixels((4, 5, 3), np.uint8)
OUT = np.zeros((3, 4, 5), np.float32)
BAD = {
    "not an array": (TypeError, {"image": [[1, 2], [3, 4]]}, "list"),
    "nothing": (TypeError, {"image": None}, "NoneType"),
    "masked": (TypeError, {"image": np.ma.masked_array(X)}, "masked"),
    "objects": (TypeError, {"image": X.astype(object)}, "object"),
    "complex": (NotImplementedError, {"image": X.astype(complex)}, "complex128"),
    "float64": (NotImplementedError, {"image": X.astype(float)}, "float64"),
    "int8": (NotImplementedError, {"image": X.astype(np.int8)}, "int8"),
    "gray without channels": (ValueError, {"image": X[..., 0]}, r"\(4, 5\)"),
    "five axes": (ValueError, {"image": X[None, None]}, r"\(1, 1, 4, 5, 3\)"),
    "a list of batches": (ValueError, {"image": [X[None]]}, r"\(1, 4, 5, 3\)"),
    "an empty list": (ValueError, {"image": []}, "empty list"),
    "unlike shapes": (ValueError, {"image": [X, X[1:]]}, r"\(3, 5, 3\)"),
    "unlike dtypes": (ValueError, {"image": [X, X.astype(np.uint16)]}, "uint16"),
    "no channels": (ValueError, {"image": X[..., :0]}, r"\(4, 5, 0\)"),
    "17 channels": (ValueError, {"image": np.zeros((4, 5, 17), np.uint8)}, r"\(4, 5, 17\)"),
    "the channels elsewhere": (ValueError, {"image": np.zeros((3, 4, 20), np.uint8)}, r"\(3, 4, 20\)"),
    "mean of two": (RuntimeError, {"mean": (0.5, 0.5)}, r"\(2,\)"),
    "mean of one in a tuple": (RuntimeError, {"mean": (0.5,)}, r"\(1,\)"),
    "mean of three rows": (RuntimeError, {"mean": np.zeros((3, 1))}, r"\(3, 1\)"),
    "mean of nothing": (TypeError, {"mean": None}, "None"),
    "mean masked": (TypeError, {"mean": np.ma.array([0.5] * 3, mask=[1, 0, 0])}, "masked"),
    "mean of text": (TypeError, {"mean": "0.5"}, "'0.5'"),
    "mean NaN": (ValueError, {"mean": (0.5, np.nan, 0.5)}, "NaN"),
    "mean infinite": (ValueError, {"mean": np.inf}, "inf"),
    "std of four": (RuntimeError, {"std": [1.0] * 4}, r"\(4,\)"),
    "std zero": (ValueError, {"std": (0.5, 0.0, 0.5)}, r"0\.0"),
    "std negative": (ValueError, {"std": -0.5}, r"-0\.5"),
    "std NaN": (ValueError, {"std": float("nan")}, "NaN"),
    "std infinite": (ValueError, {"std": np.array([1, 1, np.inf])}, "inf"),
    "std complex": (TypeError, {"std": 1j}, "1j"),
    "scale zero": (ValueError, {"scale": 0.0}, r"0\.0"),
    "scale negative": (ValueError, {"scale": -1}, "-1"),
    "scale infinite": (ValueError, {"scale": np.inf}, "inf"),
    "scale of three": (TypeError, {"scale": (1.0, 1.0, 1.0)}, "1.0, 1.0"),
    "scale of one in a tuple": (TypeError, {"scale": (1.0,)}, r"\(1.0,\)"),
    "another layout": (ValueError, {"layout": "CHW->HWC"}, "CHW->HWC"),
    "layout of another type": (ValueError, {"layout": ["HWC->CHW"]}, "HWC->CHW"),
    "swap of another type": (TypeError, {"swap_channels": 1}, "1"),
    "swap of two": (ValueError, {"swap_channels": True, "image": X[..., :2], "mean": 0.5, "std": 0.5}, "2"),
    "dtype float64": (ValueError, {"dtype": np.float64, "out": None}, "float64"),
    "dtype of bytes swapped": (ValueError, {"dtype": ">f4", "out": None}, ">f4"),
    "no dtype": (TypeError, {"dtype": "pixels", "out": None}, "pixels"),
    "out of another type": (TypeError, {"out": [1]}, "list"),
    "out read-only": (ValueError, {"out": np.frombuffer(OUT.tobytes(), np.float32).reshape(OUT.shape)}, "read-only"),
    "out of another shape": (RuntimeError, {"out": np.zeros((4, 5, 3), np.float32)}, r"\(4, 5, 3\)"),
    "out of another dtype": (RuntimeError, {"out": OUT.astype(np.float16)}, "float16"),
    "out on itself": (RuntimeError, {"out": np.lib.stride_tricks.as_strided(OUT, OUT.shape, (0, 20, 4))}, "itself"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    error, changed, message = BAD[case]
    arguments = {"image": X, "mean": MEAN, "std": STD, "out": OUT, **changed}
    out = arguments["out"]
    before = out.copy() if isinstance(out, np.ndarray) else out
    with pytest.raises(error, match=f"normalize_image.*{message}") as caught:
        normalize_image(**arguments)
    assert type(caught.value) is error
    np.testing.assert_array_equal(out, before)


def test_out_must_lie_apart():
    x = pixels((8, 9, 3), np.float32)
    whole = np.zeros(4 * x.size, np.float32)
    image = whole[: x.size].reshape(x.shape)
    for out, layout, swap in (
        (image, "HWC->HWC", True),
        (image.reshape(3, 8, 9), "HWC->CHW", False),
        (whole[1 : 1 + x.size].reshape(x.shape), "HWC->HWC", False),
        (whole[x.size - 1 : 2 * x.size - 1].reshape(x.shape), "HWC->HWC", False),
    ):
        image[...] = x
        with pytest.raises(RuntimeError, match="overlaps the image"):
            normalize_image(image, 0.5, 0.5, layout=layout, swap_channels=swap, out=out)
        np.testing.assert_array_equal(image, x)
