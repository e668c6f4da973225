"""Where it was measured: what must stand beside every figure."""

import datetime
import os
import platform
import sys

import cpunorm


def _cpu_model():
    """The CPU's name: /proc/cpuinfo's where there is one."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


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
    threads : int
        That each library may use.
    samples : int
        Turns of each comparison.
    """
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "machine": platform.machine(),
        "system": platform.platform(),
        "isa": _isa_levels(engines),
        "threads": threads,
        "samples": samples,
        "openmp": cpunorm.show_config(mode="dicts")["openmp"],
        "allocator": os.environ.get("LD_PRELOAD") or " ".join(filter(None, platform.libc_ver())) or "the system's",
        "versions": {"python": sys.version.split()[0], "cpunorm": cpunorm.__version__}
        | {peer.name: peer.version for peer in peers},
    }
