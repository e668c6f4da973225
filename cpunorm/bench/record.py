"""What is kept: a run as JSON, the seconds of every block included, so that any other statistic can be made from it."""

import math
from dataclasses import asdict

FORMAT = 2


def _calls(result, memory):
    seconds = result.seconds(memory)
    against = {
        peer: {"speedup": result.speedup(memory, peer)._asdict(), "turns": [turn._asdict() for turn in turns]}
        for peer, turns in getattr(result, memory).items()
    }
    return {"seconds": seconds and seconds._asdict(), "against": against}


def _result(result):
    case = result.case
    layer = asdict(case.layer)
    del layer["both_layouts"]
    return {
        "case": case.name,
        "engine": result.engine,
        "threads": result.threads,
        **layer,
        "module": case.module,
        "layout": case.layout,
        "mode": case.mode,
        "dtype": case.dtype,
        "region": case.region,
        "bytes": case.bytes,
        "max_error": result.errors,
        "bytes_per_second": result.bandwidth,
        "as_called": _calls(result, "fresh"),
        "out": _calls(result, "into"),
    }


def _accuracy(result):
    case = result.case
    return {
        "case": case.name,
        "engine": result.engine,
        "norm": case.norm,
        "layout": case.layout,
        "offset": case.offset,
        "errors": {name: error if math.isfinite(error) else None for name, error in result.errors.items()},
    }


def record(environment, results, interrupted):
    """A run as a dict of what JSON has.

    Parameters
    ----------
    environment : dict
    results : sequence of Result
    interrupted : bool
    """
    return {
        "format": FORMAT,
        "environment": environment,
        "interrupted": interrupted,
        "results": [_result(result) for result in results if result.timed],
        "accuracy": [_accuracy(result) for result in results if result.case.offset is not None],
        "failures": [failure for result in results for failure in result.failed()],
    }
