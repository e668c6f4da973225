"""How many threads a call may use: what is asked for, where it is asked, and what a fork leaves of it."""

import contextlib
import operator
import os
from collections.abc import Iterator
from typing import Any

from cpunorm import _cpu

__all__ = ["get_num_threads", "num_threads", "set_num_threads", "start", "why"]

MAX_THREADS = max(256, os.cpu_count() or 1)  # libgomp ends the process when it can't start a thread

_asked: tuple[Any, ...] = ()  # the arguments of `_use`
_FORKED = 1, "forked: threads don't come along; set_num_threads starts new ones", 0, 0


def _now():
    """The arguments that `_use` might have been called with last."""
    return _FORKED if _cpu.is_alone() else _asked


def _use(threads, why, openmp, cpus):
    """Take `threads` because of `why`; `openmp` and `cpus` are what `_cpu.use_threads` says."""
    global _asked
    _cpu.use_threads(threads, openmp, cpus)
    _asked = threads, why, openmp, cpus


def _use_given(number, why):
    """Take what a user asked for: it wins over what OpenMP and the CPU affinity say now, not over later changes."""
    try:
        threads = operator.index(number)
    except TypeError:
        raise TypeError(f"the number of threads must be an int from 1 to {MAX_THREADS}, got {number!r}") from None
    if isinstance(number, bool) or not 1 <= threads <= MAX_THREADS:
        raise RuntimeError(f"the number of threads must be from 1 to {MAX_THREADS}, got {number!r}")
    _use(threads, why, _cpu.openmp_threads(), _cpu.cpus() or 0)


def set_num_threads(number: int) -> None:
    """Let a call use up to `number` threads; the bits of its result don't depend on it.

    Where the number is later limited in another way, a call keeps to that, too: OpenMP's own number for the calling
    thread (`omp_set_num_threads`, which `threadpoolctl.threadpool_limits` and `torch.set_num_threads` call), and the
    CPUs that this thread may run on, looked at every 0.1 seconds. What was so before `set_num_threads` limits only the
    number that the process starts with.

    Raises
    ------
    RuntimeError
        Less than 1, or more than 256 and more than this machine's CPUs.
    TypeError
        Not an int.
    """
    _use_given(number, "set_num_threads")


def get_num_threads() -> int:
    """How many threads a call from this thread may use now."""
    return _cpu.threads()


@contextlib.contextmanager
def num_threads(number: int) -> Iterator[None]:
    """Context manager: up to `number` threads inside the block, for the whole process.

    Examples
    --------
    >>> import cpunorm
    >>> with cpunorm.num_threads(1):
    ...     cpunorm.get_num_threads()
    1
    """
    before = _now()
    set_num_threads(number)
    try:
        yield
    finally:
        _use(*before)


def why():
    """Why `get_num_threads` is what it is."""
    threads, reason, *_ = _now()
    if get_num_threads() == threads:
        return reason
    return "OpenMP's number of threads" if get_num_threads() == _cpu.openmp_threads() else "CPU affinity"


def start(number):
    """Take the number of threads that CPUNORM_NUM_THREADS gives, or what OpenMP or the cores say if it is None."""
    if number is not None:
        _use_given(number, "CPUNORM_NUM_THREADS")
        return
    threads, reason = _cpu.usable_cores()
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # OpenMP ignores what is malformed
    if given.isascii() and given.isdigit() and int(given) > 0:
        threads, reason = int(given), "OMP_NUM_THREADS"
    _use(min(threads, MAX_THREADS), reason, 0, _cpu.cpus() or 0)
