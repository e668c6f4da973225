"""What the environment asks for, applied when the package is imported, and what is in use."""

import os
import sys
from typing import Any, Literal, overload

from cpunorm import _cpu, _engine, _memory, _threads
from cpunorm._levels import LEVELS
from cpunorm._version import __version__

__all__ = ["config", "get_include", "show_config"]


def _apply(variable, use, default, kind=str):
    """Call `use` with the value of an environment variable, or with `default` if that is not set, or empty."""
    given = os.environ.get(variable, "").strip()
    try:
        value = kind(given) if given else default
    except ValueError:
        value = given  # `use` says what it wants
    try:
        use(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise type(error)(f"{variable}: {error}" if given else str(error)) from None


def get_include() -> str:
    """The folder of ``cpunorm.h``, which extensions in C and Cython are compiled with.

    What that header and ``cimport cpunorm`` offer is described in docs/embedding.md.

    Examples
    --------
    >>> import cpunorm, pathlib
    >>> pathlib.Path(cpunorm.get_include(), "cpunorm.h").exists()
    True
    """
    return os.path.join(os.path.dirname(__file__), "include")


def _kept_memory():
    kept, limit = _memory.statistics(), _memory.get_cache_limit()
    blocks = f"{kept['blocks']} block{'' if kept['blocks'] == 1 else 's'}"
    used = f"{kept['reused']} outputs took a kept one, {kept['made']} made one"
    return f"{kept['bytes'] / 2**20:.1f} MiB in {blocks}, at most {limit / 2**20:.1f} MiB; {used}"


def config():
    """What `show_config` shows, as a dict."""
    return {
        "cpunorm": __version__,
        "engine": _engine.get_engine(),
        "engines": list(_engine.ENGINES),
        "isa": _engine._isa,
        "isa levels built": [name for name in LEVELS if _engine.is_built(name)],
        "isa levels runnable": [name for name in LEVELS if _engine.is_for_this_cpu(name)],
        "threads": _threads.get_num_threads(),
        "threads because of": _threads.why(),
        "openmp": _cpu.openmp_runtime(),
        "output memory kept": _kept_memory(),
        "python": sys.version.split()[0],
    }


@overload
def show_config(mode: Literal["stdout"] = "stdout") -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> dict[str, Any]: ...
def show_config(mode: Literal["stdout", "dicts"] = "stdout") -> dict[str, Any] | None:
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
    _engine.check_one_of("mode", mode, ("stdout", "dicts"))
    shown = config()
    if mode == "dicts":
        return shown
    width = max(map(len, shown))
    for name, value in shown.items():
        print(f"{name:{width}}  {', '.join(value) if isinstance(value, list) else value}")
    return None


_apply("CPUNORM_ISA", _engine.force_isa, None)
_apply("CPUNORM_ENGINE", _engine.set_engine, "cython")
_apply("CPUNORM_NUM_THREADS", _threads.start, None, int)
_apply("CPUNORM_CACHE_BYTES", _memory.set_cache_limit, _memory.default_limit(), int)
