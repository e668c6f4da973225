"""How it is measured: outputs are checked against float64 first, then two calls are timed turn by turn.

Times on shared machines wander by tens of percent, ratios of neighbours hardly: a turn is a block of at least 2 ms of
ours, two of theirs, one of ours, and its ratio is that of the sums. Not call by call: two thread pools would spin
against each other.
"""

import concurrent.futures
import contextlib
import gc
import itertools
import math
import time
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np

BLOCK_SECONDS = 2e-3

# Largest |error| of ours, for weight 1 (the project's promise), and of a peer that still does the same work.
PROMISED = {"float32": 2e-6, "float64": 64 * 2.0**-53}
SAME_WORK = {"float32": 1e-3, "float64": 1e-10}


class WrongResult(Exception):  # noqa: N818
    """An output that is not the case's; the message names whose it is."""


class Summary(NamedTuple):
    """A median and the quartiles around it."""

    q1: float
    median: float
    q3: float

    @property
    def spread(self):
        """Half the distance of the quartiles, relative to the median."""
        return (self.q3 - self.q1) / 2 / self.median


def summarize(values):
    """The median and quartiles of `values`."""
    return Summary(*np.quantile(values, (0.25, 0.5, 0.75)).tolist())


class Turn(NamedTuple):
    """Seconds per call in the blocks of one turn: ours, theirs, theirs, ours."""

    ours: tuple[float, float]
    theirs: tuple[float, float]

    @property
    def speedup(self):
        """How many times faster ours is: the ratio of the sums."""
        return sum(self.theirs) / sum(self.ours)


@dataclass
class Result:
    """What one case gave on one engine.

    Attributes
    ----------
    errors : dict of str to float
        Largest |error| against float64, of ``"cpunorm"`` and each peer.
    fresh, into : dict of str to list of Turn
        Turns against each peer, for fresh outputs and into a given one; in `into` against ``"copy"`` too.
    """

    case: object
    engine: str
    errors: dict = field(default_factory=dict)
    fresh: dict = field(default_factory=dict)
    into: dict = field(default_factory=dict)

    def seconds(self, memory):
        """Summary of our time in a call; `memory` is "fresh" or "into"."""
        turns = itertools.chain(*getattr(self, memory).values())
        return summarize([sum(turn.ours) / 2 for turn in turns])

    def speedup(self, memory, peer):
        """Summary of the speed-up over `peer`, None where it was not measured."""
        turns = getattr(self, memory).get(peer)
        return turns and summarize([turn.speedup for turn in turns])

    @property
    def bandwidth(self):
        """Bytes of input and output, each counted once, per second of a call with a fresh output."""
        return 2 * math.prod(self.case.layer.shape) * np.dtype(self.case.dtype).itemsize / self.seconds("fresh").median


def block(call, number):
    """Seconds that `number` calls take."""
    calls = itertools.repeat(None, number)
    start = time.perf_counter()
    for _ in calls:
        call()
    return time.perf_counter() - start


def calls_per_block(call):
    """How many calls make a block; warms `call` up on the way."""
    number = 1
    while (seconds := min(block(call, number), block(call, number))) < BLOCK_SECONDS:
        number = math.ceil(number * min(10, 1.2 * BLOCK_SECONDS / seconds))
    return number


def seconds_per_call(call):
    """The fastest of three blocks."""
    number = calls_per_block(call)
    return min(block(call, number) for _ in range(3)) / number


def interleave(ours, theirs, samples, tick):
    """`samples` turns of the two calls; `tick` is called after each, outside the timed blocks."""
    n, m = calls_per_block(ours), calls_per_block(theirs)
    turns = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(samples):
            a, b, c, d = block(ours, n), block(theirs, m), block(theirs, m), block(ours, n)
            turns.append(Turn((a / n, d / n), (b / m, c / m)))
            tick()
    finally:
        if collecting:
            gc.enable()
    return turns


def largest_error(who, y, expected, dtype, bound):
    """Largest |y - expected|.

    Raises
    ------
    WrongResult
        Another shape or dtype, or an error over `bound`; NaN always is.
    """
    if y.shape != expected.shape or y.dtype != dtype:
        raise WrongResult(f"{who}: wrong result: {y.dtype} {y.shape} instead of {dtype} {expected.shape}")
    difference = y - expected
    error = float(np.max(np.abs(difference, out=difference)))
    if not error <= bound:
        raise WrongResult(f"{who}: wrong result: largest |error| against float64 is {error:.2g}, allowed {bound:.2g}")
    return error


def checked(peer, case, arrays, expected, allowed):
    """The peer's `Call` for the case and its largest |error|, or (None, None) if it has none.

    Raises
    ------
    WrongResult
        Its output, given or fresh, or its running statistics are not the expected ones.
    """
    prepare = getattr(peer, case.norm, None)
    arrays = arrays.with_own_statistics()
    call = prepare and prepare(case, arrays)
    if call is None:
        return None, None
    y, *running = expected
    bound = allowed[case.dtype] * float(np.max(np.abs(arrays.weight)))
    error = largest_error(peer.name, peer.to_numpy(case, call.fresh()), y, case.dtype, bound)
    if case.norm == "batch_norm":
        for name, values in zip(("running_mean", "running_var"), running, strict=True):
            limit = allowed[case.dtype] * max(1, np.max(np.abs(values)))
            largest_error(f"{peer.name}: {name}", getattr(arrays, name), values, case.dtype, limit)
    if call.into is not None:
        largest_error(f"{peer.name} into a given output", peer.to_numpy(case, call.into()), y, case.dtype, bound)
    return call, error


@contextlib.contextmanager
def fastest_copy(x, threads):
    """A call that copies `x` as fast as can be from Python: on one thread, or on `threads` of them.

    memcpy does it in either, with streaming stores where the C library finds them faster.
    """
    y = np.empty_like(x)
    parts = [np.array_split(array.reshape(-1), threads) for array in (y, x)]
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        copies = partial(np.copyto, y, x), lambda: list(pool.map(np.copyto, *parts))
        yield min(copies, key=seconds_per_call)


def measure(case, ours, peers, samples, tick=lambda text: None):
    """Check the case everywhere, then time ours against each of `peers`.

    Parameters
    ----------
    case : Case
    ours : CPUNorm
    peers : sequence of Peer
    samples : int
        Turns against each peer.
    tick : callable, optional
        Told what is being run, never while something is timed.

    Returns
    -------
    Result

    Raises
    ------
    WrongResult
        An output of ours or a peer's that is not the case's: nothing has been timed then.
    """
    tick("checking")
    arrays = case.arrays()
    expected = case.expected(arrays)
    result = Result(case, ours.engine)
    calls = {}
    for peer, allowed in ((ours, PROMISED), *((peer, SAME_WORK) for peer in peers)):
        with peer.context():
            call, error = checked(peer, case, arrays, expected, allowed)
        if call is not None:
            calls[peer] = call
            result.errors[peer.name] = error
    del expected
    call = calls.pop(ours)
    with ours.context():
        for peer, theirs in calls.items():
            with peer.context():
                told = partial(tick, f"vs {peer.name}")
                result.fresh[peer.name] = interleave(call.fresh, theirs.fresh, samples, told)
                if theirs.into is not None:
                    result.into[peer.name] = interleave(call.into, theirs.into, samples, told)
        with fastest_copy(arrays.x, ours.threads) as copy:
            result.into["copy"] = interleave(call.into, copy, samples, partial(tick, "vs copy"))
    return result
