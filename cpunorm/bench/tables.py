"""The tables of the page: a run's figures as cells with text and colour.

A *view* is what can be compared with itself: one engine, dtype and number of threads. Layers of the size sweep are
synthetic: they have no part in any mean.
"""

import math
import statistics
from itertools import groupby
from typing import NamedTuple

from . import report
from .cases import SWEEP
from .figures import COPY, MEMORIES, OURS, channels_last, counted, libraries, seconds, speedup, standing
from .runner import PROMISED

FASTEST = "the fastest of them"
STRONGEST = 16  # the factor, or its inverse, that has the strongest colour


class Cell(NamedTuple):
    """A table's cell.

    Attributes
    ----------
    text, title : str
    tint : float, optional
        Its colour, from -1 (our loss) over 0 to 1 (our gain).
    unsure : bool
        Whether the quartiles don't say if it is a loss or a gain.
    """

    text: str
    tint: float | None = None
    title: str = ""
    unsure: bool = False


NOT_AVAILABLE = Cell("n/a")


class View(NamedTuple):
    """The results of one engine, dtype and number of threads: those of networks' layers, by region, norm and size."""

    engine: str
    dtype: str
    threads: int
    results: list
    sweep: list

    @property
    def title(self):
        """What they have in common."""
        return f"{counted(self.threads, 'thread')}, {self.dtype}, {self.engine} engine"


def error(value):
    """The cell of a float32 error, coloured by the decades that it is over the promise; None: it was not finite."""
    if value is None:
        return Cell("not finite", -1.0)
    decades = math.log10(max(1, value / PROMISED["float32"]))
    return Cell(report.error(value).plain, -min(1, decades / 6))


def factor(value, title="", unsure=False):
    """The cell of a speed-up; the root makes 10 % visible beside a factor of ten."""
    tint = math.sqrt(min(1, abs(math.log(value, STRONGEST)))) if round(value, 2) != 1 else 0.0
    return Cell(report.times(value).plain, math.copysign(tint, value - 1), title, unsure)


def title(norm):
    """The name of a norm as in its module: BatchNorm."""
    return norm.title().replace("_", "")


def quartiles(summary):
    """The quartiles of a speed-up as text."""
    return f"quartiles {report.three_digits(summary.q1)} to {report.three_digits(summary.q3)}"


def share(value, title=""):
    """The cell of a share of the copy limit."""
    return Cell(f"{value:.0%}", None, title)


def views(run):
    """The views of a run, for each engine and dtype the one with the most threads first."""

    def place(result):
        return report.REGIONS.index(result["region"]), result["module"], result["bytes"], result["case"]

    every = {}
    for result in run["results"]:
        every.setdefault((result["engine"], result["dtype"]), {}).setdefault(result["threads"], []).append(result)
    return [
        View(
            *key,
            threads,
            sorted((result for result in results if result["source"] != SWEEP), key=place),
            sorted((result for result in results if result["source"] == SWEEP), key=lambda result: result["bytes"]),
        )
        for key, by_threads in every.items()
        for threads, results in sorted(by_threads.items(), reverse=True)
    ]


def versus(results, memory):
    """Summaries of the speed-ups of `results` (None: not measured), by peer; with the fastest peer of each."""
    table = {peer: [speedup(result, memory, peer) for result in results] for peer in libraries(results, [memory])}
    if len(table) > 1:
        known = ([summary for summary in row if summary] for row in zip(*table.values(), strict=True))
        table[FASTEST] = [min(row, key=lambda summary: summary.median, default=None) for row in known]
    return table


def glance(results):
    """Geometric means by memory, peer and region.

    Returns
    -------
    columns : list of str
        "all" and the regions that `results` are in.
    blocks : dict of str to list of (str, list of Cell)
        For each kind of memory, of each peer and of the copy limit: a cell for each column and one for the losses.
    """
    regions = [region for region in report.REGIONS if any(result["region"] == region for result in results)]

    def row(name, summaries, cell=factor):
        known = list(zip(summaries, results, strict=True))
        by_region = ([summary for summary, result in known if result["region"] == region] for region in regions)
        every, *_ = stands = [standing(some) for some in (summaries, *by_region)]
        cells = [cell(s.mean, f"mean of {counted(s.cases, 'case')}") if s else NOT_AVAILABLE for s in stands]
        slower = f"{every.losses} of {every.cases}" if every.losses else "none"
        losses = Cell(slower, -math.sqrt(every.losses / every.cases)) if cell is factor else Cell("")
        return name, [*cells, losses]

    blocks = {MEMORIES[memory]: [row(*item) for item in versus(results, memory).items()] for memory in MEMORIES}
    copies = [speedup(result, "out", COPY) for result in results]
    if any(copies):
        blocks[MEMORIES["out"]].append(row("share of the copy limit", copies, share))
    return ["all", *regions], {memory: rows for memory, rows in blocks.items() if rows}


def heatmap(results):
    """The speed-up of every case over every peer.

    Returns
    -------
    columns : list of (str, list of str)
        For each kind of memory: its name and those of its columns.
    regions : list of (str, list of (int, dict, list of Cell))
        The cases of each region: number, result, cells.
    """
    peers = {memory: libraries(results, [memory]) for memory in MEMORIES}

    def cells(result):
        for memory, names in peers.items():
            yield Cell(report.timing(seconds(result, memory, OURS)).plain)
            for peer in names:
                if (summary := speedup(result, memory, peer)) is None:
                    yield NOT_AVAILABLE
                else:
                    theirs = report.timing(seconds(result, memory, peer)).plain
                    title = f"{peer}: {theirs}; {quartiles(summary)}"
                    yield factor(summary.median, title, summary.q1 < 1 < summary.q3)
        copy = speedup(result, "out", COPY)
        yield share(copy.median) if copy else NOT_AVAILABLE
        yield Cell(report.error(result["max_error"][OURS]).plain)

    columns = [(MEMORIES[memory], ["time", *names]) for memory, names in peers.items()]
    columns[-1][1].append("of copy")
    numbered = [(number, result, list(cells(result))) for number, result in enumerate(results, 1)]
    regions = [(region, list(rows)) for region, rows in groupby(numbered, key=lambda row: row[1]["region"])]
    return [*columns, ("error", ["ours"])], regions


def losses(view):
    """(Summary, memory, peer, result) of every comparison in which ours is slower, the worst first."""
    found = [
        (summary, MEMORIES[memory], peer, result)
        for result in [*view.results, *view.sweep]
        for memory in MEMORIES
        for peer in libraries([result], [memory])
        if report.is_loss(summary := speedup(result, memory, peer))
    ]
    return sorted(found, key=lambda loss: loss[0].median)


def spread(run):
    """The median over all comparisons of the spread of the speed-ups."""
    spreads = [
        speedup(result, memory, peer).spread
        for result in run["results"]
        for memory in MEMORIES
        for peer in libraries([result], [memory])
    ]
    return statistics.median(spreads or [0.0])


def scaling(same):
    """How speed grows with threads, as called.

    Parameters
    ----------
    same : sequence of View
        Of one engine and dtype, by threads, the most first.

    Returns
    -------
    threads : list of int
    rows : list of (dict, dict of str to list of float)
        For each case that was timed on all `threads`: the result on the most; and for each library that was, how many
        times as fast as on the fewest it is.
    """
    by_case = [{result["case"]: result for result in view.results} for view in reversed(same)]
    rows = []
    for case in by_case[-1]:
        if all(case in cases for cases in by_case):
            results = [cases[case] for cases in by_case]
            speeds = {}
            for library in (OURS, *libraries(results, ["as_called"])):
                times = [seconds(result, "as_called", library) for result in results]
                if all(times):
                    speeds[library] = [times[0].median / time.median for time in times]
            rows.append((results[-1], speeds))
    return [view.threads for view in reversed(same)], rows


def accuracy(run, results):
    """Errors over the offset of the data, of the run's first engine, with speed-ups beside them.

    Returns
    -------
    libraries : list of str
    kinds : list of (str, list of (float, dict of str to float), dict of str to Standing)
        For each norm and layout: its name; the error of each library by offset; how ours stands against each peer in
        those of `results` that are of that kind.
    """
    kinds = {}
    for entry in run["accuracy"]:
        if entry["engine"] == next(iter(run["environment"]["isa"])):
            kinds.setdefault((entry["norm"], entry["layout"]), []).append((entry["offset"], entry["errors"]))
    names = dict.fromkeys(library for rows in kinds.values() for _, errors in rows for library in errors)

    def kind(norm, layout, rows):
        name = " ".join(filter(None, (title(norm), "train" if norm == "batch_norm" else None, layout)))
        of_kind = norm, layout == "NHWC"
        same = [r for r in results if (r["norm"], channels_last(r)) == of_kind and r["mode"] != "eval"]
        standings = {peer: standing(summaries) for peer, summaries in versus(same, "as_called").items()}
        return name, sorted(rows, key=lambda row: row[0]), standings

    return list(names), [kind(*of_kind, rows) for of_kind, rows in kinds.items()]
