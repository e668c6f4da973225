"""The only place that chooses the engine, its ISA level and the number of threads.

`kernels` is the kernel set in use (see `_kernels_reference` for what one is); `functional` reads it at every call.
"""

import contextlib
import importlib.util
import operator
import os
import sys

import numpy as np

from cpunorm import _cpu, _call, _memory
from cpunorm._version import __version__

__all__ = [
    "engine",
    "get_engine",
    "get_num_threads",
    "num_threads",
    "set_engine",
    "set_num_threads",
    "show_config",
    "warmup",
]

ENGINES = ("cython", "numba", "reference")
NORMS = ("batch_norm", "group_norm", "layer_norm")
ISA_MODULES = {"baseline": "_kernels", "v3": "_kernels_v3", "v4": "_kernels_v4"}
MAX_THREADS = max(256, os.cpu_count() or 1)  # libgomp ends the process when it can't start a thread

kernels = None
_engine = None
_isa = None
_num_threads = 1
_why_threads = ""


def built_levels():
    """The ISA levels that this build has, lowest first."""
    return [level for level, name in ISA_MODULES.items() if importlib.util.find_spec(f"cpunorm.{name}")]


def isa_levels():
    """The ISA levels that are built and that this machine runs, lowest first."""
    return tuple(level for level in built_levels() if level in _cpu.isa_levels())


def _check_one_of(what, value, allowed):
    if value not in allowed:
        raise ValueError(f"{what} must be one of {allowed}, got {value!r}")


def select(engine, isa=None):
    """Use `engine`, compiled for `isa` (the best that runs here if None).

    Raises
    ------
    ValueError
        No engine or ISA level has that name.
    RuntimeError
        It exists but can't be used: not built, or not for this CPU.
    ModuleNotFoundError
        It needs a package that is not installed.
    """
    global kernels, _engine, _isa
    _check_one_of("engine", engine, ENGINES)
    if isa is not None:
        _check_one_of("ISA level", isa, tuple(ISA_MODULES))
    if engine == "cython":
        levels = isa_levels()
        if not levels or isa not in (None, *levels):
            raise RuntimeError(f"ISA level {isa!r} can't be used: this CPU and build run {levels}")
        isa = isa or levels[-1]
        module = ISA_MODULES[isa]
    else:
        isa, module = None, f"_kernels_{engine}"
    kernels, _engine, _isa = importlib.import_module(f"cpunorm.{module}"), engine, isa
    _call.use_kernels(kernels)


def set_engine(name):
    """Run all further calls on the engine `name`: ``"cython"``, ``"numba"`` or ``"reference"``.

    ``"cython"`` is what a process starts with unless the environment variable ``CPUNORM_ENGINE`` says otherwise, for
    its first call is as fast as any, and a plain one takes half a microsecond. ``"numba"`` is as fast on large arrays
    in cache, but each call takes some 20 microseconds more, importing Numba 0.2 seconds, and the first call for a dtype
    up to 8 seconds, or 0.2 from Numba's cache on disk; `warmup` does that ahead. ``"reference"`` is float64 NumPy.

    Raises
    ------
    ValueError
        No engine has that name.
    ModuleNotFoundError
        ``"numba"`` without Numba installed.

    Examples
    --------
    >>> import cpunorm
    >>> cpunorm.set_engine("cython")
    >>> cpunorm.get_engine()
    'cython'
    """
    select(name, os.environ.get("CPUNORM_ISA") if name == "cython" else None)


def get_engine():
    """The name of the engine in use."""
    return _engine


@contextlib.contextmanager
def engine(name):
    """Context manager: the engine `name` inside the block, for the whole process.

    Examples
    --------
    >>> import cpunorm
    >>> with cpunorm.engine("reference"):
    ...     cpunorm.get_engine()
    'reference'
    """
    before = _engine, _isa
    set_engine(name)
    try:
        yield
    finally:
        select(*before)


def warmup(norms=NORMS, dtypes=("float32",), *, engine=None):
    """Compile ahead what the first calls would have to; returns at once for engines that are compiled already.

    On a terminal a progress bar shows it, if rich is installed.

    Parameters
    ----------
    norms : str or sequence of str
        Names of `cpunorm.functional`.
    dtypes : dtype or sequence of dtypes
        ``"float32"``, which half precision is computed in too, or ``"float64"``.
    engine : str, optional
        The engine that will be used; the one in use if None.

    Raises
    ------
    ValueError
        No norm or engine has that name, or there are no kernels for that dtype.
    ModuleNotFoundError
        ``"numba"`` without Numba installed.

    Examples
    --------
    >>> import cpunorm
    >>> cpunorm.warmup("layer_norm", "float32")
    """
    engine = _engine if engine is None else engine
    norms = (norms,) if isinstance(norms, str) else tuple(norms)
    dtypes = dtypes if isinstance(dtypes, list | tuple) else (dtypes,)
    names = [np.dtype(dtype).name for dtype in dtypes]
    _check_one_of("engine", engine, ENGINES)
    for norm in norms:
        _check_one_of("norm", norm, NORMS)
    for name in names:
        _check_one_of("dtype", name, ("float32", "float64"))
    if engine == "numba":
        kernel_set = importlib.import_module("cpunorm._kernels_numba")
        kernels = dict.fromkeys(kernel for norm in norms for kernel in kernel_set.KERNELS[norm])
        for kernel, name in _with_progress([(kernel, name) for name in names for kernel in kernels]):
            kernel_set.compiled(kernel, np.dtype(name))


def _with_progress(steps):
    """`steps`, with a progress bar beside them on a terminal if rich is there to draw it."""
    if not sys.stderr.isatty() or importlib.util.find_spec("rich") is None:
        return steps
    from rich.console import Console
    from rich.progress import track

    return track(steps, "Compiling for Numba", console=Console(stderr=True), transient=True)


def _checked_threads(number, what="num_threads"):
    try:
        threads = operator.index(number)
    except TypeError:
        raise TypeError(f"{what} must be an int, got {number!r}") from None
    if isinstance(number, bool) or not 1 <= threads <= MAX_THREADS:
        raise RuntimeError(f"{what} must be from 1 to {MAX_THREADS}, got {number!r}")
    return threads


def _use_threads(threads, why):
    global _num_threads, _why_threads
    _num_threads, _why_threads = threads, why
    _call.use_threads(threads)


def set_num_threads(number):
    """Let a call use up to `number` threads; the bits of its result don't depend on it.

    Raises
    ------
    RuntimeError
        Less than 1, or more than 256 and more than this machine's CPUs.
    TypeError
        Not an int.
    """
    _use_threads(_checked_threads(number), "set_num_threads")


def get_num_threads():
    """How many threads a call may use."""
    return _num_threads


@contextlib.contextmanager
def num_threads(number):
    """Context manager: up to `number` threads inside the block, for the whole process.

    Examples
    --------
    >>> import cpunorm
    >>> with cpunorm.num_threads(1):
    ...     cpunorm.get_num_threads()
    1
    """
    before = _num_threads, _why_threads
    set_num_threads(number)
    try:
        yield
    finally:
        _use_threads(*before)


def _initial_threads():
    """The number of threads at import, and why that number."""
    given = os.environ.get("CPUNORM_NUM_THREADS")
    if given is not None:
        try:
            number = int(given)
        except ValueError:
            raise TypeError(f"CPUNORM_NUM_THREADS must be an int, got {given!r}") from None
        return _checked_threads(number, "CPUNORM_NUM_THREADS"), "CPUNORM_NUM_THREADS"
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # OpenMP ignores what is malformed
    if given.isascii() and given.isdigit() and int(given) > 0:
        return min(int(given), MAX_THREADS), "OMP_NUM_THREADS"
    cores, why = _cpu.usable_cores()
    return min(cores, MAX_THREADS), why


def _after_fork_in_child():
    _use_threads(1, "forked: threads don't come along; set_num_threads starts new ones")


def _kept_memory():
    kept, limit = _memory.statistics(), _memory.get_cache_limit()
    blocks = f"{kept['blocks']} block{'' if kept['blocks'] == 1 else 's'}"
    used = f"{kept['reused']} outputs took a kept one, {kept['made']} made one"
    return f"{kept['bytes'] / 2**20:.1f} MiB in {blocks}, at most {limit / 2**20:.1f} MiB; {used}"


def config():
    """What `show_config` shows, as a dict."""
    return {
        "cpunorm": __version__,
        "engine": _engine,
        "engines": list(ENGINES),
        "isa": _isa,
        "isa levels built": built_levels(),
        "isa levels runnable": list(_cpu.isa_levels()),
        "threads": _num_threads,
        "threads because of": _why_threads,
        "openmp": _cpu.openmp_runtime(),
        "output memory kept": _kept_memory(),
        "python": sys.version.split()[0],
    }


def show_config(mode="stdout"):
    """Print what cpunorm is and uses here: version, engine, ISA levels, threads and why, OpenMP runtime.

    Parameters
    ----------
    mode : {"stdout", "dicts"}
        ``"dicts"`` returns it as a dict instead (as `numpy.show_config` does).

    Raises
    ------
    ValueError
        Another `mode`.
    """
    _check_one_of("mode", mode, ("stdout", "dicts"))
    shown = config()
    if mode == "dicts":
        return shown
    width = max(map(len, shown))
    for name, value in shown.items():
        print(f"{name:{width}}  {', '.join(value) if isinstance(value, list) else value}")
    return None


select(os.environ.get("CPUNORM_ENGINE", "cython"), os.environ.get("CPUNORM_ISA"))
_use_threads(*_initial_threads())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_cpu.release_threads, after_in_child=_after_fork_in_child)
