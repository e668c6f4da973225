"""`explain`: how a call would be run, asked of the code that runs it, and what would make it faster."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from cpunorm import _call, _engine, functional
from cpunorm._arguments import HALVES, is_walkable
from cpunorm._foreign import as_ndarray
from cpunorm._memory import get_cache_limit
from cpunorm.modules._module import Module

__all__ = ["Explanation", "explain"]

AXES = ("samples", "outer", "middle", "channels", "inner")
WAYS = {
    "rows": "a vector runs along the values of a domain",
    "columns": "a vector runs across neighbouring domains",
    "lanes": "domains of few values, each of which takes a lane of a vector",
    "sum": "rows are summed with what is added, and normalised while they are in cache",
}


class Explanation(NamedTuple):
    """How a call would be run; its repr says so in sentences."""

    call: str  #: the name of the function or module
    engine: str  #: the engine in use
    isa: str | None  #: its ISA level, of the engine "cython"
    way: str | None  #: "rows", "columns", "lanes" or "sum": how vectors run over domains; None if the engine can't say
    layout: dict[str, int]  #: the lengths of the axes that the input is seen along
    domains: tuple[int, int]  #: how many there are, whose values share their moments, and of how many values
    threads: int  #: how many threads it would be given now ...
    why: str  #: ... and why
    passes: str  #: over memory
    copies: tuple[str, ...]  #: what is copied or converted around the kernel, and why
    advice: str  #: what to change to make it faster

    def __repr__(self) -> str:
        import textwrap

        seen = " x ".join(f"{length} {axis}" for axis, length in self.layout.items() if length > 1) or "one value"
        lines = {
            "call": self.call,
            "engine": self.engine if self.isa is None else f"{self.engine}, ISA level {self.isa}",
            "layout": f"{seen}; {self.domains[0]} domains of {self.domains[1]} values",
            "way": f"{self.way}: {WAYS[self.way]}" if self.way else f"the engine {self.engine} doesn't say",
            "threads": f"{self.threads}: {self.why}",
            "passes": self.passes,
            "copies": "; ".join(self.copies) or "none",
            "advice": self.advice,
        }
        return "\n".join(
            textwrap.fill(line, 100, initial_indent=f"{name:9}", subsequent_indent=9 * " ")
            for name, line in lines.items()
        )


def explain(call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Explanation:
    """How `call` with these arguments would be run: which kernel, layout, threads, passes, copies; and what to change.

    The call is checked and prepared as any other, up to where its kernel would start: nothing is computed, written or
    counted. What takes several kernels is explained by its first one.

    Parameters
    ----------
    call : function of `cpunorm.functional` or module
    *args, **kwargs
        What it would be called with.

    Returns
    -------
    Explanation
        Its attributes are ``engine``, ``isa``, ``way``, ``layout``, ``domains``, ``threads``, ``why``, ``passes``,
        ``copies`` and ``advice``; its repr shows them.

    Raises
    ------
    TypeError
        `call` is something else.
    ValueError
        No kernel would run: an empty input, or a norm that is plain NumPy.
    Exception
        What the call itself would raise.

    Examples
    --------
    >>> import numpy as np, cpunorm
    >>> from cpunorm import functional as F
    >>> x = np.ones((8, 64, 56, 56), np.float32)
    >>> cpunorm.explain(F.group_norm, x, 32).way
    'rows'
    >>> cpunorm.explain(F.layer_norm, x.transpose(0, 2, 3, 1), 64).way
    'columns'
    >>> print(*cpunorm.explain(F.layer_norm, x[..., ::-1].astype(">f4"), 56).copies)
    the input is copied: its bytes are swapped
    """
    if not (isinstance(call, Module) or call in [getattr(functional, name) for name in functional.__all__]):
        raise TypeError(f"explain takes a function of cpunorm.functional or a module, got {call!r}")
    told = _call.explain(call, args, kwargs)
    given = as_ndarray("input", args[0] if args else kwargs["input"])
    out = kwargs.get("out")
    summed = call in (functional.add_layer_norm, functional.add_rms_norm) and told.get("way") != "sum"
    copies = tuple(_copies(told, given, out, summed))
    domains = told["lengths"][0] * told["groups"]
    engine, isa = _engine.get_engine(), _engine._isa
    return Explanation(
        call=getattr(call, "__name__", type(call).__name__),
        engine=engine,
        isa=isa,
        way=told.get("way"),
        layout=dict(zip(AXES, told["lengths"], strict=True)),
        domains=(domains, math.prod(told["lengths"]) // domains),
        threads=told["threads"],
        why=told["why"],
        passes=_passes(told, summed),
        copies=copies,
        advice=_advice(told, engine, isa, given, out, copies),
    )


def _start(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def _copies(told: dict[str, Any], given: np.ndarray, out: Any, summed: bool) -> list[str]:
    copies, converted = [], given.dtype.name in HALVES and "way" not in told  # by an engine that has no halves
    if told["x"] != _start(given) and not (summed and not converted and given.dtype.isnative and is_walkable(given)):
        if converted:
            reason = f"{given.dtype} is computed in float32"
        elif not given.dtype.isnative:
            reason = "its bytes are swapped"
        elif not is_walkable(given):
            reason = "it is misaligned"
        else:
            seen = f"strides {given.strides} of shape {given.shape}"
            across = told["lengths"][0] == len(given) > 1 and abs(given.strides[0]) == given.itemsize
            if across:
                reason = f"{seen} have the samples innermost"
            elif _call.is_better_dense(given, told["given"]):
                reason = f"{seen} are short runs, which take longer than a copy"
            else:
                reason = f"{seen} are more uneven axes than a kernel walks"
        copies.append(f"the input is copied: {reason}")
    if out is not None and told["y"] != _start(as_ndarray("out", out)):
        copies.append("the result is computed in memory of its own and copied to out, which a kernel can't walk")
    elif out is None and copies and converted:
        copies.append(f"the result is rounded to {given.dtype}")
    return copies


def _passes(told: dict[str, Any], summed: bool) -> str:
    x = "x is read once" if told["given"] else "x is read twice, for the moments and for y"
    again = "" if told["given"] else ", the second time from cache as far as it fits"
    packed = "; values that don't follow each other are packed into cache first" if told.get("packed") else ""
    first = "the sum is made first, and is x then; " if summed else ""
    return f"{first}{x}{again}; y is written {'around the caches' if told.get('streamed') else 'once'}{packed}"


def _advice(
    told: dict[str, Any], engine: str, isa: str | None, given: np.ndarray, out: Any, copies: tuple[str, ...]
) -> str:
    if engine == "reference":
        return 'set_engine("cython"): the engine in use is for checking the others'
    if copies:
        return "keep arrays that kernels take as they are (np.array makes one of any), so that none is copied"
    if isa is not None and isa != _engine.isa_levels()[-1]:
        return f"don't force the ISA level {isa}: this CPU runs {_engine.isa_levels()[-1]}"
    if told.get("packed") and told["way"] != "lanes":
        return "keep what shares its moments together in memory (np.ascontiguousarray), so that nothing is packed"
    if out is None and given.nbytes > get_cache_limit():
        return "give out= or raise set_cache_limit: an output of this size is fresh memory, dearer than the norm"
    if told["threads"] == 1 and told["why"].startswith("the team sleeps"):
        return "call more often than that, or in larger batches, so that the team stays awake"
    if given.size < 1000:
        return "call it with more at once: of so few values, most of the time is the call itself"
    if told["given"]:
        return "after a convolution or linear layer, fold it into that: fuse_conv_bn_weights, fuse_linear_bn_weights"
    return "nothing: it is read and written where it is"
