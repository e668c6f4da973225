"""How it is measured: outputs are checked against float64 first, then two calls are timed turn by turn.

Times on shared machines wander by tens of percent, ratios of neighbours hardly: a turn is a block of at least 2 ms of
ours, two of theirs, one of ours, and its ratio is that of the sums. Not call by call: two thread pools would spin
against each other. Idle OpenMP threads do so for some 5 ms after a call, onnxruntime's for 30: they and we are let
settle before the other has its block.
"""

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
MEMORIES = ("fresh", "into")  # of an output: made by the call, or given

# Largest |error| of ours, for weight 1 (the project's promise), and of a peer that still does the same work: sums of 4
# million float32 values one after the other, as in channels_last, cost NumPy 8e-3 and torch 3e-3.
# Half types are rounded: half a unit in the last place of values below 32; by a peer perhaps in each of its steps.
PROMISED = {"float32": 2e-6, "float64": 64 * 2.0**-53, "float16": 2.0**-7, "bfloat16": 2.0**-4}
SAME_WORK = {"float32": 2e-2, "float64": 1e-10, "float16": 2.0**-5, "bfloat16": 2.0**-2}


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
    failures : dict of str to str
        What went wrong with a peer.
    """

    case: object
    engine: str
    threads: int
    errors: dict = field(default_factory=dict)
    fresh: dict = field(default_factory=dict)
    into: dict = field(default_factory=dict)
    failures: dict = field(default_factory=dict)

    @contextlib.contextmanager
    def blaming(self, name):
        """What is raised inside is a failure of `name`."""
        try:
            yield
        except Exception as error:
            self.failures[name] = f"{type(error).__name__}: {error}"

    def failed(self):
        """The failures, each as a dict."""
        where = {"case": self.case.name, "engine": self.engine, "threads": self.threads}
        return [{**where, "peer": peer, "message": message} for peer, message in self.failures.items()]

    @property
    def timed(self):
        """Whether it has figures: ours didn't fail."""
        return "copy" in self.into

    def seconds(self, memory):
        """Summary of our time in a call, None where no peer has the case; `memory` is "fresh" or "into"."""
        turns = list(itertools.chain(*getattr(self, memory).values()))
        return summarize([sum(turn.ours) / 2 for turn in turns]) if turns else None

    def speedup(self, memory, peer):
        """Summary of the speed-up over `peer`, None where it was not measured."""
        turns = getattr(self, memory).get(peer)
        return turns and summarize([turn.speedup for turn in turns])

    @property
    def bandwidth(self):
        """Bytes of input and output, each counted once, per second of a call with a fresh output; None as there."""
        seconds = self.seconds("fresh")
        return seconds and self.case.bytes / seconds.median


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


def interleave(ours, theirs, samples, tick, settle=0.0):
    """`samples` turns of the two calls; `tick` is called after each, outside the timed blocks.

    At each change of sides seconds to `settle` are let pass until no thread is busy in them, for a second at most, then
    two calls if they are short: they wake the threads.
    """
    n, m = calls_per_block(ours), calls_per_block(theirs)

    def change_to(call, number):
        stop = time.monotonic() + 1
        busy = settle
        while busy > settle / 4 and time.monotonic() < stop:
            before = time.process_time()
            time.sleep(settle)
            busy = time.process_time() - before
        if number > 1:
            block(call, 2)

    turns = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        change_to(ours, n)
        for _ in range(samples):
            a = block(ours, n)
            change_to(theirs, m)
            b, c = block(theirs, m), block(theirs, m)
            change_to(ours, n)
            d = block(ours, n)
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
        Another shape or dtype, or an error over `bound` (times the value, where that is more than 1); NaN always is.
    """
    if y.shape != expected.shape or y.dtype != dtype:
        raise WrongResult(f"{who}: wrong result: {y.dtype} {y.shape} instead of {dtype} {expected.shape}")
    difference = y - expected
    error = float(np.max(np.abs(difference, out=difference)))
    if not error <= bound and not np.all(difference <= bound * np.maximum(1, np.abs(expected))):
        raise WrongResult(f"{who}: wrong result: largest |error| against float64 is {error:.2g}, allowed {bound:.2g}")
    return error


def prepared(peer, case, arrays):
    """The peer's `Call` for the case, None if it has none."""
    return peer.prepare(case, arrays) if peer.has(case) else None


def checked(peer, case, arrays, expected, allowed, memory=None):
    """The peer's `Call` for the case and its largest |error|, or (None, None) if it has none.

    With `memory` "fresh" alone it is not asked for more: torch writes wrong values into a given output with strides.

    Raises
    ------
    WrongResult
        Its output, given or fresh, or its running statistics are not the expected ones.
    """
    arrays = arrays.with_own_statistics()
    call = prepared(peer, case, arrays)
    if call is None:
        return None, None
    y, *running = expected
    bound = allowed[case.dtype] * float(np.max(np.abs(arrays.weight)))
    error = largest_error(peer.name, peer.to_numpy(case, call.fresh()), y, case.dtype, bound)
    if case.norm == "batch_norm":
        given = call.running() if call.running else (arrays.running_mean, arrays.running_var)
        for name, got, values in zip(("running_mean", "running_var"), given, running, strict=True):
            limit = allowed[case.dtype] * max(1, np.max(np.abs(values)))
            largest_error(f"{peer.name}: {name}", got, values, case.dtype, limit)
    if call.into is not None and memory != "fresh":
        largest_error(f"{peer.name} into a given output", peer.to_numpy(case, call.into()), y, case.dtype, bound)
    return call, error


def fastest_copy(x, threads):
    """The call that copies `x` fastest: on one thread or on `threads`, past the caches or not."""
    from ._copy import can_stream, copy

    y = np.empty_like(x)
    ways = itertools.product({1, threads}, {False, can_stream})
    return min((partial(copy, y, x, *way) for way in ways), key=seconds_per_call)


def measure(case, ours, peers, samples, tick=lambda text: None, memory=None):
    """Check the case everywhere, and time ours against each of `peers`, one after the other.

    Parameters
    ----------
    case : Case
    ours : CPUNorm
    peers : sequence of Peer
    samples : int
        Turns against each peer.
    tick : callable, optional
        Told what is being run, never while something is timed.
    memory : {"fresh", "into"}, optional
        What alone is timed; both by default, and the copy.

    Returns
    -------
    Result
        What a library raises is in it, and leaves the others alone; nothing is timed if it was ours.
    """
    result = Result(case, ours.engine, ours.threads)
    with result.blaming(ours.name), ours.context():
        tick("checking")
        arrays = case.arrays()
        expected = case.expected(arrays)
        call, result.errors[ours.name] = checked(ours, case, arrays, expected, PROMISED, memory)
        for peer in peers:
            tick(f"{'compiling' if peer.compiles else 'checking'} {peer.name}")
            told = partial(tick, f"vs {peer.name}")
            settle = peer.settle if peer.threads > 1 else 0.0
            with result.blaming(peer.name), peer.context():
                theirs, error = checked(peer, case, arrays, expected, SAME_WORK, memory)
                if theirs is None:
                    continue
                result.errors[peer.name] = error
                for kind in MEMORIES if memory is None else (memory,):
                    if (calls := getattr(theirs, kind)) is not None:
                        turns = interleave(getattr(call, kind), calls, samples, told, settle)
                        getattr(result, kind)[peer.name] = turns
        if memory is None:
            copy = fastest_copy(arrays.x, ours.threads)
            result.into["copy"] = interleave(call.into, copy, samples, partial(tick, "vs copy"))
    return result
