"""How accurate it is: the largest error against float64 for values far from 0."""

import numpy as np

from .runner import Result, prepared


def largest_error(peer, case):
    """Largest |error| of the peer's output against float64; None if it doesn't have the case.

    Of any size, infinite and NaN included: what a library gives is its own affair here.

    Parameters
    ----------
    peer : Peer
    case : Case
        One of `cases.accuracy_cases`.
    """
    arrays = case.arrays()
    with peer.context():
        call = prepared(peer, case, arrays.with_own_statistics())
        if call is None:
            return None
        with np.errstate(all="ignore"):
            y = peer.to_numpy(case, call.fresh())
    return float(np.max(np.abs(y - case.expected(arrays)[0])))


def measure(case, ours, peers, samples, tick=lambda text: None):
    """The `Result` of a case that is not timed; the parameters are those of `runner.measure`."""
    result = Result(case, ours.engine, ours.threads)
    for peer in (ours, *peers):
        tick(f"accuracy of {peer.name}")
        with result.blaming(peer.name):
            error = largest_error(peer, case)
            if error is not None:
                result.errors[peer.name] = error
    return result
