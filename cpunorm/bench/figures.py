"""What the JSON of a run says: the figures that the page and the comparison of two runs share."""

import statistics
from typing import NamedTuple

from .report import is_loss
from .runner import Summary

OURS = "cpunorm"
COPY = "copy"  # the limit: a plain copy of the same bytes, timed as if it were a peer
MEMORIES = {"as_called": "as called", "out": "out="}


class Standing(NamedTuple):
    """How several cases stand against a peer: the geometric mean of the speed-ups, and how many are losses."""

    mean: float
    cases: int
    losses: int


def libraries(results, memories=MEMORIES):
    """Names of the peers that were timed in some of `results`, in the order of the run."""
    named = {peer: None for result in results for memory in memories for peer in result[memory]["against"]}
    return [peer for peer in named if peer != COPY]


def speedup(result, memory, peer):
    """Summary of the speed-up over `peer`, None where it was not measured."""
    ratios = result[memory]["against"].get(peer)
    return ratios and Summary(*ratios)


def seconds(result, memory, library):
    """Summary of the seconds of a call of ours or (our median times the speed-ups) a peer's; None: not measured."""
    ours = result[memory]["seconds"]
    if library == OURS:
        return ours and Summary(*ours)
    ratios = speedup(result, memory, library)
    return ratios and Summary(*(Summary(*ours).median * ratio for ratio in ratios))


def standing(speedups):
    """The `Standing` of several summaries, of which some may be None; None if all are."""
    known = [summary for summary in speedups if summary is not None]
    if not known:
        return None
    mean = statistics.geometric_mean(summary.median for summary in known)
    return Standing(mean, len(known), sum(map(is_loss, known)))


def variant(result):
    """Layout and mode, as far as the norm has them."""
    return " ".join(filter(None, (result["layout"], result["mode"])))


def channels_last(result):
    """Whether the channels are on the last axis and could be elsewhere."""
    return len(result["shape"]) > 3 and result["layout"] is not None and result["layout"].endswith("C")


def counted(number, noun):
    """1 case, 2 cases."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
