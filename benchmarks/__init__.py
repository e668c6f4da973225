"""asv benchmarks. Cases and peers are `cpunorm bench`'s, loaded from this working tree under a name of their own.

asv imports the cpunorm of the commit that it measures; the cases must not change with it.
"""

import contextlib
import functools
import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("torch"):
    import torch  # noqa: F401 - before cpunorm, so that both use one OpenMP runtime

import cpunorm


def _load_registry():
    folder = Path(__file__).parents[1] / "cpunorm" / "bench"
    spec = importlib.util.spec_from_file_location(
        "cpunorm_bench", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    return (importlib.import_module(f"cpunorm_bench.{name}") for name in ("cases", "peers", "runner"))


cases, peers, runner = _load_registry()

CASES = {case.name: case for case in cases.expand(cases.LAYERS, "float32")}
ENGINES = ("cython",)
IMPLEMENTATIONS = (*ENGINES, *peers.PEERS)
THREADS = cpunorm.get_num_threads()
contexts = contextlib.ExitStack()


def available(implementation):
    """Whether the cpunorm of this commit has that engine, or this environment that library."""
    if implementation in peers.PEERS:
        return peers.PEERS[implementation].installed()
    try:
        with cpunorm.engine(implementation):
            return True
    except (ValueError, RuntimeError):
        return False


def names(norm):
    """The names of the norm's cases."""
    return [name for name, case in CASES.items() if case.norm == norm]


def missing(norm):
    """The parameters of a benchmark of `norm` that can't be run here: asv shows them as n/a."""
    absent = [implementation for implementation in IMPLEMENTATIONS if not available(implementation)]
    return [(implementation, name) for implementation in absent for name in names(norm)]


@functools.cache
def prepared(implementation, name):
    """The checked `Call` of a case. Its engine, threads and modes stay on: asv gives every parameter its own process.

    Cached instead of made in a `setup`, because with one asv_runner 0.3 times single calls. For the first call, which
    is slow, not to end asv's choice of the number of calls, `warmup_time` must be longer than it.

    Raises
    ------
    WrongResult
        Its output is not the case's.
    """
    case = CASES[name]
    if implementation in peers.PEERS:
        peer, allowed = peers.PEERS[implementation](THREADS), runner.SAME_WORK
    else:
        peer, allowed = peers.CPUNorm(THREADS, implementation), runner.PROMISED
    contexts.enter_context(peer.context())
    arrays = case.arrays()
    return runner.checked(peer, case, arrays, case.expected(arrays), allowed)[0]
