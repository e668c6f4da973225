"""What is kept: a run as JSON, quartiles of times and speed-ups, to the digits that are shown."""

import json
import math
from dataclasses import asdict

FORMAT = 3


def rounded(value, digits):
    """To significant digits, as a float."""
    return float(f"{value:.{digits}g}")


def _quartiles(summary):
    return summary and [rounded(value, 4) for value in summary]


def _calls(result, memory):
    against = {peer: _quartiles(result.speedup(memory, peer)) for peer in getattr(result, memory)}
    return {"seconds": _quartiles(result.seconds(memory)), "against": against}


def _result(result):
    case = result.case
    layer = asdict(case.layer)
    del layer["both_layouts"], layer["quick"]
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
        "max_error": {name: rounded(error, 2) for name, error in result.errors.items()},
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
        "errors": {name: rounded(error, 2) if math.isfinite(error) else None for name, error in result.errors.items()},
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


def dumps(run):
    """A run as text, a case on each line.

    Parameters
    ----------
    run : dict
        From `record`, or `drawn.run`.
    """
    text = json.dumps(run, separators=(",", ":"), allow_nan=False)
    return text.replace('{"case"', '\n{"case"') + "\n"  # no string has an unescaped quote
