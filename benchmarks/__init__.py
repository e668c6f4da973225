"""asv benchmarks. Cases and peers are `cpunorm bench`'s, loaded from this working tree under a name of their own.

asv imports the cpunorm of the commit that it measures; the cases must not change with it.
"""

import abc
import contextlib
import dataclasses
import functools
import importlib.util
import os
import statistics
import sys
from pathlib import Path

from asv_runner.benchmarks.mark import SkipNotImplemented
from asv_runner.benchmarks.time import TimeBenchmark

if importlib.util.find_spec("torch"):
    import torch  # noqa: F401 - before cpunorm, so that both use one OpenMP runtime

import cpunorm


def _load_registry(*names):
    folder = Path(__file__).parents[1] / "cpunorm" / "bench"
    spec = importlib.util.spec_from_file_location(
        "cpunorm_bench", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    return [importlib.import_module(f"cpunorm_bench.{name}") for name in names]


cases, errors, peers, runner = _load_registry("cases", "accuracy", "peers", "runner")

# With a `setup` asv_runner 0.3 would time single calls, as is right where a call spoils its input; ours only prepares.
TimeBenchmark._setup_isolates_timed_calls = False

ALL = os.environ.get("CPUNORM_BENCHMARKS") == "all"
# The ratios of one process are alike, those of two differ by up to tens of percent. asv's test takes samples for
# independent, so that a process gives one: two processes with eight each would look like sixteen that agree.
ROUNDS = 16  # processes, and samples, of a ratio
COPIES = 2  # of the input in each process, a turn with each
TIMEOUT = 300  # seconds: Numba compiles for ten of them, large cases are checked in float64
ENGINES = ("cython", "numba")
COMPETITORS = ("numpy", "torch")
THREADS = cpunorm.get_num_threads()  # of the process that asv forks: the fork itself starts with one
_contexts = contextlib.ExitStack()


def available(implementation):
    """Whether the cpunorm of this commit has that engine, or this environment that library.

    Nothing is imported to find out: what Numba starts before a fork is lost to the child.
    """
    if implementation in COMPETITORS:
        return peers.PEERS[implementation].installed()
    known = implementation in cpunorm.show_config(mode="dicts")["engines"]
    return known and (implementation != "numba" or importlib.util.find_spec("numba") is not None)


def peer(implementation, threads=THREADS):
    """The implementation on that number of threads; one that is not available is n/a.

    Raises
    ------
    SkipNotImplemented
        It is not available: asv shows n/a.
    """
    if not available(implementation):
        raise SkipNotImplemented(f"{implementation} is not available")
    if implementation in COMPETITORS:
        return peers.PEERS[implementation](threads)
    return peers.CPUNorm(threads, implementation)


@functools.cache
def work(case):
    """A case's arrays and what they give in float64."""
    arrays = case.arrays()
    return arrays, case.expected(arrays)


@functools.cache
def prepared(implementation, case, threads=THREADS):
    """The checked `Call` of a case. Its engine, threads and modes stay on: asv gives every combination its own process.

    Raises
    ------
    SkipNotImplemented
        That library, or the cpunorm of that commit, has none: asv shows n/a.
    WrongResult
        Its output is not the case's.
    """
    who = peer(implementation, threads)
    allowed = runner.SAME_WORK if implementation in COMPETITORS else runner.PROMISED
    _contexts.enter_context(who.context())
    call, _ = runner.checked(who, case, *work(case), allowed)
    if call is None:
        raise SkipNotImplemented(f"{implementation} has no {case.name}")
    return call


def copies(case, *peers):
    """Calls of each of `peers` on one copy of the case's input after the other; none gives its memory to the next."""
    arrays, _ = work(case)
    kept = []
    for _ in range(COPIES):
        kept.append(dataclasses.replace(arrays, x=arrays.x.copy()))
        yield [runner.prepared(peer, case, kept[-1].with_own_statistics()).fresh for peer in peers]


def ratio(pairs):
    """This process's sample: the time of ours as a share of that of theirs, the median of a turn with each pair."""
    turns = [runner.interleave(ours, theirs, 1, lambda: None)[0] for ours, theirs in pairs]
    return {"samples": [statistics.median(1 / turn.speedup for turn in turns)], "number": 1}


class AsCalled(abc.ABC):
    """Absolute times, output made by the call: curves to look at, not to compare machines or days with."""

    version = "1"
    timeout = TIMEOUT
    rounds = 1

    @property
    @abc.abstractmethod
    def cases(self):
        """Those that are timed, by the parameters after the implementation."""

    def setup(self, implementation, *axes):
        self.call = prepared(implementation, self.cases[axes]).fresh

    def time_as_called(self, *_):
        self.call()


class Against(abc.ABC):
    """Our time as a share of theirs, turn by turn in one process: under 1 is faster than they are."""

    version = "1"
    timeout = TIMEOUT

    @property
    @abc.abstractmethod
    def cases(self):
        """Those that are timed, by the parameters after the threads, "1" or "all"."""

    def track_vs_numpy(self, threads, *axes):
        return self.against("numpy", threads, axes)

    def track_vs_torch(self, threads, *axes):
        return self.against("torch", threads, axes)

    def against(self, competitor, threads, axes):
        threads = THREADS if threads == "all" else 1
        both = "cython", competitor
        for implementation in both:
            prepared(implementation, self.cases[axes], threads)
        return ratio(copies(self.cases[axes], *(peer(implementation, threads) for implementation in both)))

    track_vs_numpy.unit, track_vs_torch.unit = "ours/numpy", "ours/torch"
    track_vs_numpy.rounds = track_vs_torch.rounds = ROUNDS  # asv looks for a track's at the function alone
