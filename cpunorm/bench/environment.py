"""Where it was measured: what must stand beside every figure."""

import datetime
import functools
import os
import platform
import sys
from pathlib import Path

import cpunorm


def _cpu_model():
    """The CPU's name: /proc/cpuinfo's where there is one."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


@functools.cache
def cache_bytes(folder="/sys/devices/system/cpu/cpu0/cache"):
    """Bytes of the level 2 and of the last-level cache of the first CPU, as Linux tells them; None where unknown."""
    sizes = {}
    for file in Path(folder).glob("index*/size"):
        size = file.read_text().strip()  # such as 2048K
        sizes[int((file.parent / "level").read_text())] = int(size[:-1]) << {"K": 10, "M": 20, "G": 30}[size[-1]]
    return sizes.get(2), sizes[max(sizes)] if sizes else None


def _isa_levels(engines):
    """The ISA level that each engine runs at, None for one that has no levels."""
    levels = {}
    for name in engines:
        with cpunorm.engine(name):
            levels[name] = cpunorm.show_config(mode="dicts")["isa"]
    return levels


def environment(engines, peers, threads, samples):
    """Machine, versions and settings of a run, as a dict of text and numbers.

    Parameters
    ----------
    engines : iterable of str
    peers : sequence of Peer
    threads : sequence of int
        Numbers that each library may use.
    samples : int
        Turns of each comparison.
    """
    l2, last = cache_bytes()
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "l2_bytes": l2,
        "llc_bytes": last,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "machine": platform.machine(),
        "system": platform.platform(),
        "isa": _isa_levels(engines),
        "threads": list(threads),
        "samples": samples,
        "openmp": cpunorm.show_config(mode="dicts")["openmp"],
        "allocator": os.environ.get("LD_PRELOAD") or " ".join(filter(None, platform.libc_ver())) or "the system's",
        "versions": {"python": sys.version.split()[0], "cpunorm": cpunorm.__version__}
        | {peer.name: peer.version for peer in peers},
    }
