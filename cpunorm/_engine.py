"""The only place that chooses the engine and its ISA level.

`kernels` is the kernel set in use (see `_kernels_reference` for what one is); `functional` reads it at every call.
"""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import DTypeLike

from cpunorm import _call, _cpu, _image, _reduction
from cpunorm._levels import LEVELS
from cpunorm._types import EngineName

__all__ = [
    "check_one_of",
    "compiled_kernels",
    "engine",
    "force_isa",
    "get_engine",
    "isa_levels",
    "select",
    "set_engine",
    "warmup",
]

ENGINES = ("cython", "numba", "reference")
MODULES = {"numba": "_numba.engine", "reference": "_kernels_reference"}
NORMS = ("batch_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm")

kernels = None
_engine: EngineName  # set when `_config` selects one
_isa = None
_forced_isa = None


def is_built(isa):
    """Whether this build has the ISA level."""
    return importlib.util.find_spec(f"cpunorm.{LEVELS[isa].module}") is not None


def is_for_this_cpu(isa):
    """Whether this CPU and operating system run the ISA level."""
    return _cpu.features().issuperset(LEVELS[isa].features)


def isa_levels():
    """The ISA levels that are built and that this machine runs, lowest first."""
    return tuple(isa for isa in LEVELS if is_for_this_cpu(isa) and is_built(isa))


def check_one_of(what, value, allowed):
    """Raise a ValueError unless `value` is one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{what} must be one of {allowed}, got {value!r}")


def _usable_isa(isa):
    """`isa`, or the best level if it is None, checked to run here."""
    if isa is not None:
        check_one_of("ISA level", isa, tuple(LEVELS))
    levels = isa_levels()
    if not levels or isa not in (None, *levels):
        raise RuntimeError(f"ISA level {isa!r} can't be used: this CPU and build run {levels}")
    return isa or levels[-1]


def force_isa(isa):
    """Use this ISA level in `set_engine`, the best one if None."""
    global _forced_isa
    _forced_isa = None if isa is None else _usable_isa(isa)


def compiled_kernels():
    """The Cython kernels of the ISA level that is forced, else of the best one that runs here."""
    return importlib.import_module(f"cpunorm.{LEVELS[_usable_isa(_forced_isa)].module}")


def select(engine, isa=None):
    """Use `engine`, compiled for `isa` (the one forced, else the best that runs here, if None).

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
    check_one_of("engine", engine, ENGINES)
    isa = _usable_isa(isa or _forced_isa) if engine == "cython" else None
    chosen = importlib.import_module(f"cpunorm.{LEVELS[isa].module if isa else MODULES[engine]}")
    if engine == "numba":
        chosen.use_activations(compiled_kernels())
    kernels, _engine, _isa = chosen, engine, isa
    _call.use_kernels(kernels)
    _reduction.use_kernels(kernels)
    levels = isa_levels()
    if levels:  # images are no norm: their kernel is a compiled one in every engine
        _image.use_kernel(importlib.import_module(f"cpunorm.{LEVELS[isa or _forced_isa or levels[-1]].module}"))


def set_engine(name: EngineName) -> None:
    """Run all further calls on the engine `name`: ``"cython"``, ``"numba"`` or ``"reference"``.

    ``"cython"`` is what a process starts with unless the environment variable ``CPUNORM_ENGINE`` says otherwise, for
    its first call is as fast as any, and a plain one takes half a microsecond. ``"numba"`` compiles its own kernels
    for this very CPU: importing Numba takes 0.2 seconds, and the first call for a kind of shape and dtype up to 10, or
    0.1 from Numba's cache on disk; `warmup` does that ahead. ``"reference"`` is float64 NumPy.

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
    select(name)


def get_engine() -> EngineName:
    """The name of the engine in use."""
    return _engine


@contextlib.contextmanager
def engine(name: EngineName) -> Iterator[None]:
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


def warmup(
    norms: str | Sequence[str] = NORMS,
    dtypes: DTypeLike | Sequence[DTypeLike] = ("float32",),
    *,
    engine: EngineName | None = None,
) -> None:
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
    check_one_of("engine", engine, ENGINES)
    for norm in norms:
        check_one_of("norm", norm, NORMS)
    for name in names:
        check_one_of("dtype", name, ("float32", "float64"))
    if engine == "numba":
        compile_for = importlib.import_module("cpunorm._numba.engine").compile_for
        for name in _with_progress(names):
            compile_for(name)


def _with_progress(steps):
    """`steps`, with a progress bar beside them on a terminal if rich is there to draw it."""
    if not sys.stderr.isatty() or importlib.util.find_spec("rich") is None:
        return steps
    from rich.console import Console
    from rich.progress import track

    return track(steps, "Compiling for Numba", console=Console(stderr=True), transient=True)
