"""The promise of the README: float32 results within 2e-6 of float64, however the data are conditioned.

Every norm is the same sentence over other axes.  So a test makes rows (domains, width), one per set of statistics; a
place lays them out as the input of one norm in one layout and gathers the result back into rows.
"""

import functools
import importlib
import itertools
import re
from pathlib import Path

import adversarial
import numpy as np
import oracle
import pytest

from cpunorm.functional import batch_norm, group_norm, layer_norm

# Places: rows -> the norm's input -> its output -> rows.


def divisor(number):
    """The smallest prime up to 7 that divides `number` properly, or 1."""
    return next((prime for prime in (2, 3, 5, 7) if number % prime == 0 and number > prime), 1)


def channels_first(norm, x):
    return norm(np.ascontiguousarray(x))


def channels_last_strides(norm, x):
    return norm(np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1))


def channels_last(norm, x):
    return np.moveaxis(norm(np.ascontiguousarray(np.moveaxis(x, 1, -1)), data_format="channels_last"), -1, 1)


def as_batch_norm(layout, rows, eps):
    """A row is a channel: (samples, channels, length)."""
    domains, width = rows.shape
    x = rows.reshape(domains, divisor(width), -1).swapaxes(0, 1)
    y = layout(functools.partial(batch_norm, running_mean=None, running_var=None, training=True, eps=eps), x)
    return y.swapaxes(0, 1).reshape(rows.shape)


def as_group_norm(layout, rows, eps, wide=False):
    """A row is a group of a sample, of few channels or (`wide`) of few positions: (samples, channels, length)."""
    domains, width = rows.shape
    samples = divisor(domains)
    channels = width // divisor(width) if wide else divisor(width)
    x = rows.reshape(samples, domains // samples * channels, -1)
    return layout(functools.partial(group_norm, num_groups=domains // samples, eps=eps), x).reshape(rows.shape)


def as_layer_norm(order, rows, eps):
    """A row is a row, contiguous or with a stride."""
    return layer_norm(np.array(rows, order=order), rows.shape[1], eps=eps)


def as_layer_norm_of_two_axes(rows, eps):
    x = rows.reshape(len(rows), divisor(rows.shape[1]), -1)
    return layer_norm(x, x.shape[1:], eps=eps).reshape(rows.shape)


PLACES = {
    **{
        f"{norm.__name__[3:]} {layout.__name__}": functools.partial(norm, layout)
        for norm in (as_batch_norm, as_group_norm)
        for layout in (channels_first, channels_last_strides, channels_last)
    },
    "group_norm channels_first wide": functools.partial(as_group_norm, channels_first, wide=True),
    "group_norm channels_last wide": functools.partial(as_group_norm, channels_last, wide=True),
    "layer_norm": functools.partial(as_layer_norm, "C"),
    "layer_norm strided": functools.partial(as_layer_norm, "F"),
    "layer_norm of two axes": as_layer_norm_of_two_axes,
}


# Rows.


def normal(rng, shape, mean=0.0, std=1.0):
    """N(mean, std), the mean's sign alternating from row to row."""
    return (rng.standard_normal(shape) + mean * (-1.0) ** np.arange(shape[0])[:, None]) * std


def outlier(rng, shape, size, place):
    rows = rng.standard_normal(shape)
    rows[:, min(place, shape[1] - 1)] = size
    return rows


def start_elsewhere(rng, shape, size, count):
    """The first `count` values, from which a shift may be estimated, far from all the others."""
    rows = rng.standard_normal(shape)
    rows[:, :count] += size
    return rows


def halves(rng, shape, size):
    rows = np.zeros(shape)
    rows[:, shape[1] // 2 :] = size
    return rows


def steps(rng, shape, size, length):
    """Another level every `length` values."""
    return rng.standard_normal(shape) + size * (np.arange(shape[1]) // length % 3)


def ramp(rng, shape, noise):
    return np.arange(shape[1]) + noise * rng.standard_normal(shape)


def constant_but_one(rng, shape, level):
    rows = np.full(shape, level)
    rows[:, shape[1] // 3] = np.nextafter(np.float32(level), np.float32(np.inf))
    return rows


KINDS = {
    "mean/std 0": normal,
    "mean/std 1": functools.partial(normal, mean=1),
    "mean/std 1e2": functools.partial(normal, mean=1e2),
    "mean/std 1e4": functools.partial(normal, mean=1e4),
    "mean/std 1e6": functools.partial(normal, mean=1e6),
    "mean 1, std 1e-6": functools.partial(normal, mean=1e6, std=1e-6),
    "mean 1e8, std 1e4": functools.partial(normal, mean=1e4, std=1e4),
    "first 1e2": functools.partial(outlier, size=1e2, place=0),
    "first 1e6": functools.partial(outlier, size=1e6, place=0),
    "last -1e4": functools.partial(outlier, size=-1e4, place=1 << 20),
    "1e4 at 512": functools.partial(outlier, size=1e4, place=512),
    "1e6 at 1024": functools.partial(outlier, size=1e6, place=1024),
    "1e5 at 2048": functools.partial(outlier, size=1e5, place=2048),
    "first 8 by 1e4": functools.partial(start_elsewhere, size=1e4, count=8),
    "first 16 by 1e4": functools.partial(start_elsewhere, size=1e4, count=16),
    "first 32 by 1e4": functools.partial(start_elsewhere, size=1e4, count=32),
    "first 64 by 1e3": functools.partial(start_elsewhere, size=1e3, count=64),
    "first 64 by 1e6": functools.partial(start_elsewhere, size=1e6, count=64),
    "first 1024 by 1e4": functools.partial(start_elsewhere, size=1e4, count=1024),
    "halves": functools.partial(halves, size=1e6),
    "steps of 64": functools.partial(steps, size=1e3, length=64),
    "steps of 1000": functools.partial(steps, size=1e5, length=1000),
    "ramp": functools.partial(ramp, noise=0),
    "ramp with noise": functools.partial(ramp, noise=30),
    "sorted": lambda rng, shape: np.sort(rng.standard_normal(shape) * 1e3, axis=1),
    "heavy tails": lambda rng, shape: rng.standard_cauchy(shape),
    "alternating": lambda rng, shape: np.broadcast_to(1e6 * (-1.0) ** np.arange(shape[1]), shape),
    "alternating around 1e6": lambda rng, shape: np.broadcast_to(1e6 + (-1.0) ** np.arange(shape[1]), shape),
    "constant 0": lambda rng, shape: np.zeros(shape),
    "constant 0.1": lambda rng, shape: np.full(shape, 0.1),
    "constant 1e30": lambda rng, shape: np.full(shape, -1e30),
    "constant but one": functools.partial(constant_but_one, level=1e6),
    "1e18": functools.partial(normal, std=1e18),
    "1e30": functools.partial(normal, std=1e30),
    "1e30, mean/std 1e2": functools.partial(normal, mean=1e2, std=1e28),
    "1e30 first": functools.partial(outlier, size=1e30, place=0),
    "1e-18": functools.partial(normal, std=1e-18),
    "1e-30": functools.partial(normal, std=1e-30),
    "denormal": functools.partial(normal, std=1e-40),
}
TINY_EPS = {"1e-18": 1e-50, "1e-30": 1e-70, "1e-30, mean/std 1e2": 1e-70}  # leaves mean 0 and std 1 of tiny values
KINDS["1e-30, mean/std 1e2"] = functools.partial(normal, mean=1e2, std=1e-30)

# (domains, width): around vector widths and block lengths, with every tail; few and many channels.
SHAPES = [(1, 2), (3, 3), (2, 7), (16, 15), (17, 17), (5, 31), (33, 33), (6, 63), (65, 65), (48, 100), (257, 12)]
SHAPES += [(600, 6), (1, 1000), (4, 1023), (3, 1025), (2, 2047), (5, 2049), (1, 4099), (6, 4160)]


@functools.cache
def case(kind, shape, dtype, eps):
    """Rows, what float64 makes of them, and the error that is allowed in each value."""
    with np.errstate(over="raise"):
        rows = KINDS[kind](np.random.default_rng(shape[1]), shape).astype(dtype)
    rows.flags.writeable = False
    expected = oracle.layer_norm(rows, shape[1:], eps=eps)
    size = np.abs(expected)
    wide = rows.astype(np.longdouble)
    spread = np.sqrt(wide.var(axis=1, keepdims=True) + eps)
    if dtype == np.float32:
        # 2e-6 for values of a few units; in proportion for outliers, and where eps makes all values small. The last
        # term: the mean has no second part below the smallest denormal.
        promised = np.where(size < 5, 2e-6 * np.minimum(size.max(axis=1, keepdims=True), 1), 1e-6 * size)
        return rows, expected, promised + np.finfo(dtype).smallest_subnormal / spread.astype(float)
    kappa = np.sqrt(np.square(wide).mean(axis=1, keepdims=True)) / spread
    return rows, expected, oracle.bound(expected, dtype, kappa=1 + kappa.astype(float)) * np.maximum(1, size)


def failures(place, kinds, shapes, dtype, slack=1):
    """One line for each kind of rows and shape whose error is larger than allowed; kinds are {kind: eps}."""
    for (kind, eps), shape in itertools.product(kinds.items(), shapes):
        rows, expected, allowed = case(kind, shape, dtype, eps)
        allowed = allowed * slack
        error = np.abs(PLACES[place](rows, eps).astype(float) - expected)
        if not (error <= allowed).all():
            worst = np.argmax(np.nan_to_num(error / allowed, nan=np.inf, posinf=np.inf))
            yield f"{kind}, {shape}: {error.flat[worst]:.2e} at {worst}, {allowed.flat[worst]:.1e} allowed"


@pytest.mark.parametrize("place", PLACES)
def test_float32(engine, place):
    assert not list(failures(place, dict.fromkeys(KINDS, 1e-5), SHAPES, np.float32))


@pytest.mark.parametrize("place", PLACES)
def test_float32_with_tiny_eps(engine, place):
    assert not list(failures(place, TINY_EPS, SHAPES, np.float32))


@pytest.mark.parametrize("place", PLACES)
def test_float32_of_many_blocks(engine, place):
    kinds = ["mean/std 1e4", "first 64 by 1e6", "1e5 at 2048", "ramp with noise", "1e30"]
    assert not list(failures(place, dict.fromkeys(kinds, 1e-5), [(2, 70001)], np.float32))
    assert not list(failures(place, {"mean/std 1e6": 1e-5}, [(1, 300 * 1024 - 5)], np.float32))


@pytest.mark.parametrize("place", PLACES)
def test_float64(engine, place):
    slack = 64 if engine[0] == "reference" else 1  # NumPy sums one after another along a strided axis, not pairwise
    kinds = [kind for kind in KINDS if not kind.startswith("constant")]
    shapes = [(3, 3), (17, 17), (65, 65), (4, 1023), (2, 4099)]
    assert not list(failures(place, dict.fromkeys(kinds, 1e-5), shapes, np.float64, slack))


# By proof: the bound in the header of `_kernels.pyx`, for blocks of every length.

LINES = Path(__file__).parent.parent / "cpunorm" / "kernels" / "lines.h"
FOLDS = {"v4": 2, "v3": 1, "baseline": 0}  # additions of lanes in float32


def constant(name):
    return int(re.search(rf"\b{name} = (\d+)", LINES.read_text())[1])


def roundings(count):
    """How many roundings each of `count` values goes through when they are added up one by one; the first adds to 0."""
    return np.minimum(count - np.arange(count), max(count - 1, 0))


def nested(count, *lengths):
    """The same where chains of lengths[0] are added up, then lengths[1] of their sums, and so on."""
    if not lengths:
        return roundings(count)
    chains = [roundings(min(lengths[0], count - start)) for start in range(0, count, lengths[0])]
    return np.concatenate(chains) + np.repeat(nested(len(chains), *lengths[1:]), [len(chain) for chain in chains])


def most_moved(c, weights, mu, fused):
    """The header's bound for any d, of which a share of `weights` goes through c roundings: by Lagrange's multiplier,
    any that is large enough bounds it."""
    c_squares = c + (2 if fused else 3)
    multiplier = np.linspace(c_squares.max() / 2 + 0.05, c_squares.max() / 2 + 40, 2000)[:, None]
    moved = ((1 + mu) * (c + 1)) ** 2 / (4 * multiplier - 2 * c_squares)
    best = (multiplier[:, 0] * (1 + mu**2) + (moved * weights).sum(1) / weights.sum()).min()
    return (best + (3 if fused else 4)) * 2.0**-24


@pytest.mark.skipif(not LINES.exists(), reason="the sources aren't here")
@pytest.mark.parametrize("level", FOLDS)
def test_no_data_move_a_row_by_more(level):
    """A run is full steps and one of a few values or of almost all; a block is as many runs as fit."""
    chain, steps = constant("CHAIN"), constant("STEPS")
    mu = (constant("ROW_LIMIT") - 1) ** -0.5
    for full, last in itertools.product(range(steps + 1), (0, 1e-3, 1)):
        run = [1.0] * full + [last] * (last > 0)
        for runs in range(1, steps // len(run) + 1 if run else 1):
            weights = np.array(run * runs)
            c = nested(len(weights), chain) + 2 + FOLDS[level]
            assert most_moved(c, weights, mu, level != "baseline") < 2e-6


@pytest.mark.skipif(not LINES.exists(), reason="the sources aren't here")
@pytest.mark.parametrize("fused", [False, True])
def test_no_data_move_a_column_by_more(fused):
    chain, half = constant("CHAIN"), constant("HALF")
    mu = (constant("COLUMN_LIMIT") - 1) ** -0.5
    for lines in range(1, constant("ROWS") + 1):
        assert most_moved(nested(lines, chain, half // chain), np.ones(lines), mu, fused) < 2e-6


def test_no_data_move_a_value_of_numba_by_more():
    """Rows of blocks of BLOCK vectors, whose lanes are halved down to eight in float32; columns of TALL lines."""
    moments = pytest.importorskip("cpunorm._numba.moments")
    folds = int(np.log2(importlib.import_module("cpunorm._numba.lanes").REGISTERS // 4 // 8))
    for full, last in itertools.product(range(moments.BLOCK + 1), (0, 1e-3, 1)):
        weights = np.array([1.0] * full + [last] * (last > 0))[: moments.BLOCK]
        if full or last:
            c = nested(len(weights), moments.CHAIN) + folds
            assert most_moved(c, weights, (moments.ROW_LIMIT - 1) ** -0.5, True) < 2e-6
    for lines in range(1, moments.TALL + 1):
        mu = (moments.COLUMN_LIMIT - 1) ** -0.5
        assert most_moved(nested(lines, moments.CHAIN), np.ones(lines), mu, True) < 2e-6


# By search: see adversarial.py.


def chains_of(engine):
    """How many values a lane of columns adds up before its sum goes into another, and how many such sums that takes."""
    if engine == "numba":
        moments = pytest.importorskip("cpunorm._numba.moments")
        return moments.CHAIN, moments.TALL // moments.CHAIN
    return (constant("CHAIN"), max(1, constant("HALF") // constant("CHAIN"))) if LINES.exists() else (8, 4)


SEARCH_EPS = 1e-12


def worst_error(y, rows):
    """The largest error in each row, of max(1, |y|); `rows` are float32, so float64 is exact enough."""
    wide = rows.astype(np.float64)
    wide -= wide.mean(axis=1, keepdims=True)
    wide -= wide.mean(axis=1, keepdims=True)
    expected = wide / np.sqrt(np.square(wide).mean(axis=1, keepdims=True) + SEARCH_EPS)
    return (np.abs(y - expected) / np.maximum(1, np.abs(expected))).max(axis=1)


def error_of_columns(repeats, found):
    """Each column found is a channel, `repeats` times over."""
    lines, _, columns = found.shape
    x = np.tile(found.reshape(lines, columns), (repeats, 1))
    return worst_error(batch_norm(x, None, None, training=True, eps=SEARCH_EPS).T, x.T)


def error_of_folded_columns(repeats, found):
    """Two columns at a time, of two channels that are walked as many."""
    lines, _, columns = found.shape
    pairs = np.repeat(found.reshape(lines, columns // 2, 2).transpose(1, 0, 2), repeats, axis=1)
    y = [batch_norm(x, None, None, training=True, eps=SEARCH_EPS) for x in pairs]
    rows, y = (np.stack(a).transpose(0, 2, 1).reshape(columns, -1) for a in (pairs, y))
    return worst_error(y, rows)


def error_of_groups(found):
    """Four columns are a group of channels_last, so that their moments are merged."""
    lines, _, columns = found.shape
    x = np.repeat(found.reshape(1, lines, columns), 4, axis=2)
    y = group_norm(x, columns, eps=SEARCH_EPS, data_format="channels_last")
    return worst_error(*(a[0].reshape(lines, columns, 4).swapaxes(0, 1).reshape(columns, -1) for a in (y, x)))


def error_of_rows(width, repeats, tail, found):
    """All lanes of a vector of `width` are alike; the row is cut by `tail` values."""
    lines, vectors, columns = found.shape
    lanes = np.broadcast_to(found.transpose(2, 0, 1)[..., None], (columns, lines, vectors, width))
    rows = np.tile(lanes.reshape(columns, -1), (1, repeats))
    rows = np.ascontiguousarray(rows[:, : rows.shape[1] - tail])
    return worst_error(layer_norm(rows, rows.shape[1], eps=SEARCH_EPS), rows)


def error_of_lanes(found):
    """Each column found is a row, so short that it takes a lane."""
    rows = np.ascontiguousarray(found[:, 0].T)
    return worst_error(layer_norm(rows, rows.shape[1], eps=SEARCH_EPS), rows)


# lines, vectors, columns and what makes a norm's input of them
SEARCHES = {
    **{f"columns of {lines}": (lines, 1, 512, functools.partial(error_of_columns, 1)) for lines in (17, 32, 63, 64)},
    "columns of 5 blocks": (64, 1, 256, functools.partial(error_of_columns, 5)),
    "columns of 1100 lines": (64, 1, 128, functools.partial(error_of_columns, 18)),
    "folded columns": (64, 1, 64, functools.partial(error_of_folded_columns, 32)),
    "groups": (64, 1, 256, error_of_groups),
    "lanes of 9": (9, 1, 512, error_of_lanes),
    "lanes of 16": (16, 1, 512, error_of_lanes),
    **{
        f"rows of {steps} steps of {width}, {tail} fewer": (
            steps,
            4,
            64,
            functools.partial(error_of_rows, width, 1, tail),
        )
        for width, steps, tail in [(4, 32, 0), (8, 32, 0), (16, 32, 0), (16, 25, 0), (8, 17, 3), (16, 9, 15), (4, 8, 1)]
    },
    **{  # Numba's vectors
        f"rows of {steps} vectors of {width}": (steps, 1, 64, functools.partial(error_of_rows, width, 1, 0))
        for width, steps in [(32, 32), (64, 32), (64, 12)]
    },
    "rows of parts": (32, 4, 16, functools.partial(error_of_rows, 16, 40, 0)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SEARCHES)
def test_float32_made_to_make_roundings_add_up(engine, name):
    """It comes to a third of what is promised, with chains of 8 as with chains of 32: values that a chain of any length
    lets it steer are few. What a longer chain may do is shown by the bound above, not here."""
    lines, vectors, columns, error_of = SEARCHES[name]
    quiet, most = (16, 0.7) if vectors == 1 else (1, 0.5)
    chain, half = chains_of(engine[0])
    _, errors = adversarial.search(
        np.random.default_rng(lines), error_of, lines, vectors, columns, 6, quiet, most, chain, half
    )
    assert errors[0] <= 1e-6
