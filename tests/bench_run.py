"""Made-up runs of `cpunorm bench`, in the form of their JSON."""

import math

import numpy as np

ENVIRONMENT = {
    "date": "2026-01-02T03:04:05+00:00",
    "cpu": "A <CPU> & more",
    "cpus": 4,
    "l2_bytes": 2**20,
    "llc_bytes": 2**25,
    "load": 0.5,
    "machine": "x86_64",
    "system": "Linux",
    "isa": {"cython": "v3"},
    "threads": [1, 2],
    "samples": 7,
    "openmp": "OpenMP 201511",
    "allocator": "glibc 2.36",
    "versions": {"python": "3.12.1", "cpunorm": "1.2.3", "numpy": "2.4.6", "torch": "2.13.0"},
}
MODULES = {"batch_norm": "BatchNorm2d", "layer_norm": "LayerNorm", "group_norm": "GroupNorm-2"}


def summary(values):
    return np.quantile(values, (0.25, 0.5, 0.75)).tolist()


def calls(ours, against, spread=0.01):
    """Ours take `ours` seconds and a peer's so many times as long, give or take `spread`."""
    noise = 1 + spread * np.linspace(-1, 1, 7)
    compared = {peer: summary(ratio * noise) for peer, ratio in against.items()}
    return {"seconds": summary([ours]), "against": compared}


def result(norm, shape, as_called, out, seconds=1e-3, layout=None, mode=None, threads=2, source="net", **other):
    """One case's result; `as_called` and `out`: peers' times over ours."""
    size = 4 * math.prod(shape)
    module = MODULES[norm]
    parts = source, module, "x".join(map(str, shape)), layout, mode, "float32"
    return {
        "case": "/".join(filter(None, parts)),
        "engine": "cython",
        "threads": threads,
        "source": source,
        "norm": norm,
        "shape": list(shape),
        "groups": 2 if norm == "group_norm" else None,
        "module": module,
        "layout": layout,
        "mode": mode,
        "dtype": "float32",
        "region": "call-bound" if size <= 2**16 else "memory-bound" if size >= 2**25 else "cache-bound",
        "bytes": 2 * size,
        "max_error": {"cpunorm": 4.3e-7, "torch": 1.2e-6},
        "as_called": calls(seconds, as_called),
        "out": calls(seconds, out),
        **other,
    }


def accuracy(norm, layout, offset, errors):
    return {"case": "", "engine": "cython", "norm": norm, "layout": layout, "offset": offset, "errors": errors}


def run(results, accuracy=(), failures=(), interrupted=False, **environment):
    return {
        "format": 3,
        "environment": ENVIRONMENT | environment,
        "interrupted": interrupted,
        "results": list(results),
        "accuracy": list(accuracy),
        "failures": list(failures),
    }
