"""Not one element outside an array is touched, reads included: arrays end, or begin, at a page that can't be read.

Each engine is attacked in a process of its own, which dies of the first element too far; its last line names the case.
"""

import ctypes
import functools
import itertools
import mmap
import signal
import sys
import warnings
from pathlib import Path

import engines
import fresh
import ml_dtypes
import numpy as np
import pytest
import strided

import cpunorm
from cpunorm import _engine, functional

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="mprotect")

SIDES = ("first", "last")


class Guarded:
    """Memory between two pages that can't be read; an array in it touches the one or the other."""

    def __init__(self, size):
        page = mmap.PAGESIZE
        self.size = -(-size // page) * page
        self.memory = mmap.mmap(-1, self.size + 2 * page)
        whole = np.frombuffer(self.memory, np.uint8)
        self.inside = whole[page : page + self.size]
        for guard in (whole[:page], whole[-page:]):
            failed = ctypes.CDLL(None).mprotect(
                ctypes.c_void_p(guard.ctypes.data), ctypes.c_size_t(page), 0
            )  # PROT_NONE
            assert not failed

    def like(self, values, side):
        """`values` with their strides, their first byte or their last one at a guard."""
        ends = [stride * (length - 1) for stride, length in zip(values.strides, values.shape, strict=True)]
        low, high = sum(min(0, end) for end in ends), sum(max(0, end) for end in ends) + values.itemsize
        start = -low if side == "first" else self.size - high
        view = np.ndarray(values.shape, values.dtype, self.inside, start, values.strides)
        view[...] = values
        return view


@functools.lru_cache(1)
def normal(shape):
    return np.random.default_rng(0).standard_normal(shape, np.float32)


@functools.lru_cache(16)
def lines(count, dtype):
    return [np.linspace(*ends, count, dtype=dtype) for ends in ((0.5, 1.5), (1, -1), (-1, 1), (1, 2))]


def vectors(count, dtype):
    """A weight, bias, mean and variance of `count` elements."""
    return [line.copy() for line in lines(count, dtype)]


def batch_norm(training, data_format):
    def run(x, out, place, **options):
        w, b, *statistics = vectors(x.shape[1 if data_format == "channels_first" else -1], x.dtype)
        # those of channels_last are strided: 0 1 0 2 0 3, without the first 0
        mean, var = (
            place(i, v if data_format == "channels_first" else np.repeat(v, 2)[1::2])
            for i, v in enumerate(statistics, 2)
        )
        functional.batch_norm(
            x, mean, var, place(0, w), place(1, b), training, data_format=data_format, out=out, **options
        )
        return mean, var

    return run


def group_norm(groups, data_format):
    def run(x, out, place, **options):
        channels = x.shape[1 if data_format == "channels_first" else -1]
        w, b, *_ = vectors(channels, x.dtype)
        number = {"one": 1, "all": channels, "two": 2, "pairs": channels // 2}[groups]
        if number and channels % number == 0 and x.size > number:
            functional.group_norm(x, number, place(0, w), place(1, b), data_format=data_format, out=out, **options)
        return ()

    return run


def layer_norm(axes):
    def run(x, out, place, **options):
        shape = x.shape[-axes:]
        w, b, *_ = (v.reshape(shape) for v in vectors(int(np.prod(shape)), x.dtype))
        functional.layer_norm(x, shape, place(0, w), place(1, b), out=out, **options)
        return ()

    return run


def with_residual(norm):
    def run(x, out, place):
        return norm(x, out, place, residual=place(4, x + x), activation=("relu", "silu")[x.size % 2])

    return run


def add_norm(function, bias):
    def run(x, out, place):
        w, b, *_ = vectors(x.shape[-1], x.dtype)
        total = place(5, np.zeros_like(x))
        parameters = (place(0, w), place(1, b))[: 1 + bias]
        function(x, place(4, x + x), x.shape[-1:], *parameters, eps=1e-5, out=out, sum_out=total)
        return (total,)

    return run


def rms_norm(x, out, place, **options):
    w, *_ = vectors(x.shape[-1], x.dtype)
    functional.rms_norm(x, x.shape[-1:], place(0, w), out=out, **options)
    return ()


def instance_norm(x, out, place, **options):
    if x.ndim > 2 and np.prod(x.shape[2:]) > 1:
        w, b, *statistics = vectors(x.shape[1], x.dtype)
        mean, var = (place(i, v) for i, v in enumerate(statistics, 2))
        functional.instance_norm(x, mean, var, place(0, w), place(1, b), out=out, **options)
        return mean, var
    return ()


def modulated(x, out, place):
    scale, shift = place(4, x[:, :1] + x[:, :1]), place(5, x[:1])
    functional.layer_norm(x, x.shape[-1:], *[None] * 2, 1e-5, out=out, scale=scale, shift=shift)
    return ()


def padded(x, out, place):
    lengths = [i % (x.shape[1] + 1) for i in range(x.shape[0])]
    if x.ndim > 2:
        functional.layer_norm(x, x.shape[-1:], place(0, vectors(x.shape[-1], x.dtype)[0]), out=out, lengths=lengths)
    return ()


def moments(axis, options):
    def run(x, out, place):
        where = {"where": place(4, x > 0)} if options == "where" else {"nan": options}
        if options == "integers":
            x, where = x.view(f"{'iu'[x.shape[0] % 2]}{x.itemsize}"), {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of slices of which nothing counts
            found = cpunorm.moments(x, axis, **where)
        return (found._record,)

    return run


def standardize(axis):
    def run(x, out, place):
        where = place(4, x > -1) if axis == 0 else None
        cpunorm.standardize(x, axis, where=where, out=out)
        return ()

    return run


def sliding(axis):
    def run(x, out, place):
        cpunorm.standardize_sliding(x, 7, axis, center=axis == 0, min_window=3, out=out)
        return ()

    return run


FORMATS = ("channels_first", "channels_last")
NORMS = {
    **{f"batch_norm training={t} {f}": batch_norm(t, f) for t in (True, False) for f in FORMATS},
    **{f"group_norm {g} {f}": group_norm(g, f) for g in ("one", "all", "two", "pairs") for f in FORMATS},
    **{f"layer_norm of {axes}": layer_norm(axes) for axes in (1, 2)},
}
NORMS |= {f"{name} and residual": with_residual(NORMS[name]) for name in list(NORMS)[2::3]}
NORMS |= {f.__name__: add_norm(f, "layer" in f.__name__) for f in (functional.add_layer_norm, functional.add_rms_norm)}
STATISTICS = {
    **{
        f"moments over {axis}, {o}": moments(axis, o)
        for axis in (0, -1, None)
        for o in ("propagate", "omit", "where", "integers")
    },
    **{f"standardize over {axis}": standardize(axis) for axis in (0, -1, None)},
    **{f"standardize_sliding over {axis}": sliding(axis) for axis in (0, -1)},
}
NORMS |= {f.__name__: f for f in (rms_norm, instance_norm, modulated, padded)} | STATISTICS
DTYPES = [np.dtype(t) for t in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)]

# Tails of 0 to 2 vectors of any level (16 floats at most) behind nothing, a step of 4 vectors and a block of 32 steps.
TAILS = (*range(1, 34), *range(64, 97), *range(2048, 2081, 5))
SHAPES = [
    *((3, n) for n in TAILS),  # rows, columns
    *((70, n) for n in range(1, 34)),  # lanes, folds, tiles of columns
    *((2, 3, n) for n in TAILS),
    *((9, n, 3) for n in range(1, 34)),
    *((2, 4, n, 5) for n in range(1, 20)),
    *((5, 6, 2, 3, n) for n in (1, 2, 3, 7, 16, 17)),
]
LARGE = [
    (2, 65541),
    (65541, 2),
    (3, 7, 40003),
    (2, 3, 211, 223),
    (100003, 3),
    (2051, 130),
    (4, 2, 70001),
]  # parts, strips
PAST_CACHES = [(3, 4400003), (130003, 103)]  # x and y are more than 96 MiB


# One case in so many is run of the larger scales, of which all take some minutes for each engine.
SHARE = {"small": 3, "every layout": 97, "large": 29, "past the caches": 13}
# Of an engine that is NumPy's reads and writes, which take five times as long, one in so many of those.
SHARE_OF_NUMPY = 7


def attack(engine, isa, scale, share):
    """Every norm on arrays that touch a guard; prints each case before it is run, at last how many there were."""
    _engine.select(engine, isa)
    shapes = {"small": SHAPES, "every layout": SHAPES, "large": LARGE, "past the caches": PAST_CACHES}[scale]
    dtypes = DTYPES[::2] if scale == "past the caches" else DTYPES
    layouts = list(strided.LAYOUTS)[: 1 if scale == "past the caches" else None]
    room = (8 if len(layouts) == 1 else 512) * max(int(np.prod(shape)) for shape in shapes)
    inputs, outputs, *parameters = (Guarded(room) for _ in range(8))
    count = 0
    for index, (shape, (name, norm), dtype) in enumerate(itertools.product(shapes, NORMS.items(), dtypes)):
        if index % share or (engine == "reference" and scale == "large" and "sliding" in name):
            continue  # nor windows one by one, of which one case takes a minute
        values = normal(shape).astype(dtype)
        cpunorm.set_num_threads(1 + index // 3 % 2)
        for number, layout in enumerate(layouts):
            if scale != "every layout" and number not in (0, index % len(layouts)):
                continue
            # `out` has now the strides of x, now others; weight or bias are now there, now not.
            ordinary = strided.LAYOUTS[layout](values)
            other = strided.LAYOUTS[layouts[(index + number) % len(layouts)] if index % 5 > 2 else layout](values)
            other[...] = 0
            without = (0, 1, None)[index % 3]
            expected = norm(ordinary, other, lambda i, v, without=without: None if i == without else v)
            for side in SIDES:
                print(engine, isa, name, shape, layout, dtype.name, f"{side} #{index}", flush=True)
                x, out = inputs.like(ordinary, side), outputs.like(other, side)
                out[...] = 0
                seen = norm(
                    x,
                    out,
                    lambda i, v, without=without, side=side: None if i == without else parameters[i].like(v, side),
                )
                count += 1
                for a, b in zip((out, *seen), (other, *expected), strict=True):
                    if a.tobytes() != b.tobytes():  # which is looked at sooner than by
                        np.testing.assert_array_equal(a, b)
    print(count)


def attacked(engine, isa, scale, share):
    """How many cases an attack in a fresh process came through."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_guard_pages as t; "
    done = fresh.python(
        code + f"t.attack({engine!r}, {isa!r}, {scale!r}, {share})", timeout=600, PYTHONFAULTHANDLER="1"
    )
    last = done.stdout.strip().rpartition("\n")[2]
    assert done.returncode == 0, f"{last}: ended with {done.returncode}\n{done.stderr}"
    return int(last)


@pytest.mark.parametrize("engine", engines.COMPILED_FIRST, indirect=True)
def test_some_small_arrays(engine):
    assert attacked(*engine, "small", 71) > 700


@pytest.mark.slow
@pytest.mark.parametrize("scale", SHARE)
def test_all(engine, scale):
    share = SHARE_OF_NUMPY if engine[0] == "reference" else 1
    assert attacked(*engine, scale, SHARE[scale] * share) > (20_000 // share if scale == "small" else 2)


@pytest.mark.parametrize("side", SIDES)
def test_an_element_too_far_dies(side):
    """The guards themselves."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np
import test_guard_pages
view = test_guard_pages.Guarded(100).like(np.ones(7, np.float32), {side!r})
print(view.sum(), flush=True)
step = 1 if {side!r} == "last" else -1
np.lib.stride_tricks.as_strided(view[::step], (8,)).sum()
"""
    done = fresh.python(code)
    assert done.stdout.strip() == "7.0"
    assert done.returncode in (-signal.SIGSEGV, -signal.SIGBUS)
