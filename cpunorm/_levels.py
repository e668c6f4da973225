"""The table of ISA levels, lowest first. setup.py reads it too, by its path: it imports nothing of the package.

Flags go to the module that needs them alone, so that a wheel imports on any CPU of its architecture. Other
architectures than x86-64 have the baseline alone, with their own default flags.
"""

import platform
from typing import NamedTuple

__all__ = ["LEVELS", "Level"]


class Level(NamedTuple):
    """Kernels compiled for a CPU that has `features`, which are names of the compiler's ``__builtin_cpu_supports``."""

    module: str
    flags: tuple[str, ...] = ()
    features: tuple[str, ...] = ()


if platform.machine() in ("x86_64", "amd64"):
    V2 = ("ssse3", "sse4.1", "sse4.2", "popcnt")
    V3 = (*V2, "avx", "avx2", "fma", "bmi", "bmi2", "f16c")
    V4 = (*V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
    LEVELS = {
        "baseline": Level("_kernels", ("-march=x86-64-v2",), V2),
        "v3": Level("_kernels_v3", ("-march=x86-64-v3",), V3),
        "v4": Level("_kernels_v4", ("-march=x86-64-v4", "-mprefer-vector-width=512"), V4),
    }
else:
    LEVELS = {"baseline": Level("_kernels")}
