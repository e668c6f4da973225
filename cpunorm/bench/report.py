"""What is shown: tables that grow, above a progress bar on a terminal and as plain lines elsewhere.

The columns are data, the same for both. The bar is drawn between the timed blocks only.
"""

import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column as TableColumn
from rich.text import Text

from .cases import SWEEP

PLAIN = str.maketrans({"µ": "u", "±": "+-", "▼": "!", "·": "-"})
NOT_AVAILABLE = Text("n/a", "dim")
GAP = "  "
REDRAW_SECONDS = 0.2
LOST = 0.97  # a ratio under it is more than a tie
NOISY = 0.1  # a spread that says more about the machine than about the libraries
REGIONS = ("call-bound", "cache-bound", "memory-bound")


def three_digits(value):
    """`value` in about three digits, without an exponent."""
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def timing(summary):
    """A duration and its spread."""
    if summary is None:
        return NOT_AVAILABLE
    unit, size = next(((u, s) for u, s in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)) if summary.median >= s), ("ns", 1e-9))
    return Text(f"{three_digits(summary.median / size)}{unit} ±{summary.spread:.0%}")


def _under_one(ratio):
    return round(ratio, 2) < 1  # to the two digits that are shown


def is_loss(summary):
    """Whether ours is slower, by the median."""
    return _under_one(summary.median)


def times(ratio):
    """How many times faster ours is; a loss is marked by more than its colour."""
    loss = _under_one(ratio)
    return Text(f"{'▼' if loss else ''}{three_digits(ratio)}x", "bold red" if loss else "green")


def speedup(summary):
    """A speed-up and its spread."""
    return NOT_AVAILABLE if summary is None else times(summary.median).append(f" ±{summary.spread:.0%}")


def versus_fastest(result):
    """The smallest of the speed-ups over other libraries as called, and over whom."""
    if not result.fresh:
        return NOT_AVAILABLE
    ratio, peer = min((result.speedup("fresh", peer).median, peer) for peer in result.fresh)
    return times(ratio).append(f" {peer}")


def error(value):
    """An error in two digits."""
    return NOT_AVAILABLE if value is None else Text(f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e+"))


LEGEND = """\
time: median of a call, ± half the distance of the quartiles; as called: output made by the call; out=: output given
vs: so many times faster is cpunorm (▼: slower), median of the ratios of {samples} interleaved turns
GB/s: input and output counted once; copy: share of the speed of the fastest copy of the same bytes
error: largest, against float64; thr: threads of each library
"""


class Column(NamedTuple):
    """One column; a group's name stands over its first. When not all fit, those of the largest `rank` go first."""

    group: str
    header: str
    width: int
    rank: float
    cell: Callable
    left: bool = False


def _versus(memory, peer, rank):
    header = f"vs {peer.name}"
    return Column("", header, max(11, len(header)), rank, lambda result: speedup(result.speedup(memory, peer.name)))


def _error(name, rank, group="", header=None):
    header = header or name
    return Column(group, header, max(7, len(header)), rank, lambda result: error(result.errors.get(name)))


def columns(peers, work):
    """The columns of a run of `work`, (case, engine, threads), against `peers`."""

    def bandwidth(result):
        return NOT_AVAILABLE if result.bandwidth is None else Text(three_digits(result.bandwidth / 1e9))

    shape = max(len(case.shape) for case, *_ in work)
    every = [
        Column("", "shape", shape, 0, lambda result: Text(result.case.shape), left=True),
        Column("", "layout", 11, 0, lambda result: Text(_variant(result.case)), left=True),
    ]
    if len({threads for *_, threads in work}) > 1:
        every.append(Column("", "thr", 3, 0, lambda result: Text(str(result.threads))))
    every.append(Column("as called", "time", 11, 0, lambda result: timing(result.seconds("fresh"))))
    if len(peers) > 2:
        width = len("▼0.00x ") + max(len(peer.name) for peer in peers)
        every.append(Column("", "vs fastest", width, 0, versus_fastest, left=True))
    return [
        *every,
        *(_versus("fresh", peer, 1 + i / 100) for i, peer in enumerate(peers)),
        Column("", "GB/s", 4, 3, bandwidth),
        Column("out=", "time", 11, 5, lambda result: timing(result.seconds("into"))),
        *(_versus("into", peer, 6) for peer in peers if peer.takes_out),
        Column("", "copy", 4, 4, lambda result: Text(f"{result.speedup('into', 'copy').median:.0%}")),
        _error("cpunorm", 2, "error", "ours"),
        *(_error(peer.name, 7) for peer in peers),
    ]


def accuracy_columns(peers):
    """The columns of the table of errors far from 0."""
    return [
        Column("", "norm", 12, 0, lambda result: Text(result.case.module), left=True),
        Column("", "layout", 6, 0, lambda result: Text(result.case.layout or ""), left=True),
        Column("", "mean", 5, 0, lambda result: Text(f"{result.case.offset:g}")),
        _error("cpunorm", 0, "largest error", "ours"),
        *(_error(peer.name, 1 + i) for i, peer in enumerate(peers)),
    ]


def _variant(case):
    return " ".join(filter(None, (case.layout, case.mode)))


def _place(case, engine):
    return f"{case.layer.source} {case.module} {case.dtype} {engine}"


def _setting(result):
    return f"{result.engine}, {result.case.dtype}, threads: {result.threads}"


def _effort(case):
    """About how long a case takes, in any unit: so many elements, and as many as its shortest blocks are worth."""
    return math.prod(case.layer.shape) + 2**21


def fitting(columns, width):
    """`columns`, without those that there is no room for."""
    kept = list(columns)
    while sum(column.width + len(GAP) for column in kept) - len(GAP) > width and any(column.rank for column in kept):
        kept.remove(max(kept, key=lambda column: column.rank))
    return kept


def grid(results):
    """The results that count in a mean: not a sweep's, which are one layer many times, unless there are no others."""
    return [result for result in results if result.case.layer.source != SWEEP] or results


def speedups(results, memory, peer):
    """The (result, speed-up) over `peer`, of those in which it was measured."""
    return [(result, result.speedup(memory, peer)) for result in results if peer in getattr(result, memory)]


class Report:
    """Shows a run while it goes; a context manager around it.

    Parameters
    ----------
    environment : dict
        From `environment.environment`.
    peers : sequence of Peer
    work : sequence of (Case, str, int)
        What will be run, on which engine, on how many threads.
    """

    def __init__(self, environment, peers, work):
        self.environment = environment
        self.peers = peers
        self.terminal = sys.stdout.isatty() and sys.stdout.encoding.lower().startswith("utf")
        self.console = Console(force_terminal=self.terminal, highlight=False, soft_wrap=not self.terminal)
        self.columns = columns(peers, work)
        if self.terminal:
            self.columns = fitting(self.columns, self.console.width)
        else:
            width = max(len(_place(case, engine)) for case, engine, _ in work)
            layer = Column("", "layer", width, 0, lambda result: Text(_place(result.case, result.engine)), left=True)
            self.columns.insert(0, layer)
        self.timed = any(case.offset is None for case, *_ in work)
        self.heading = None
        self.doing = None
        self.redrawn = 0.0
        self.progress = Progress(
            BarColumn(bar_width=20),
            TimeRemainingColumn(table_column=TableColumn(min_width=7)),
            TextColumn("left:"),
            TextColumn("{task.description}", table_column=TableColumn(no_wrap=True)),
            console=self.console,
            auto_refresh=False,
            transient=True,
            disable=not self.terminal,
        )
        self.task = self.progress.add_task("", total=sum(_effort(case) for case, *_ in work))

    def __enter__(self):
        run = self.environment
        versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
        engines = ", ".join(f"{engine} {isa}" if isa else engine for engine, isa in run["isa"].items())
        threads = ", ".join(map(str, run["threads"]))
        self._print(f"{run['cpu']}, {run['cpus']} CPUs; threads: {threads}; engine: {engines}")
        self._print(f"{versions}; {run['openmp']}, {run['allocator']}; {run['date']}")
        self._print()
        if self.timed:
            self._print_head(self.columns)
        self.progress.start()
        return self

    def __exit__(self, *exception):
        self.progress.stop()

    def _print(self, text=""):
        text = text if isinstance(text, Text) else Text(text)
        self.console.print(text if self.terminal else text.plain.translate(PLAIN), markup=False)

    def _print_row(self, columns, cells):
        row = Text()
        for column, cell in zip(columns, cells, strict=True):
            gap = " " * (column.width - len(cell))
            row += Text.assemble(cell, gap, GAP) if column.left else Text.assemble(gap, cell, GAP)
        row.rstrip()
        self._print(row)

    def _print_head(self, columns):
        self._print_row(columns, (Text(column.group, "dim") for column in columns))
        self._print_row(columns, (Text(column.header, "bold") for column in columns))

    def _print_heading(self, case, engine):
        if self.terminal and self.heading != (heading := _place(case, engine)):
            self.heading = heading
            self._print(Text(heading, "bold cyan"))

    def _print_failure(self, failure):
        self._print(Text("FAILED {case} ({engine}, threads: {threads}): {message}".format(**failure), "bold red"))

    def tick(self, case, doing):
        """Tell what is being run; between the timed blocks."""
        description = " ".join(filter(None, (doing, case.module, case.shape, _variant(case))))
        if description != self.doing or time.monotonic() - self.redrawn > REDRAW_SECONDS:
            self.doing = description
            self.progress.update(self.task, description=description, refresh=True)
            self.redrawn = time.monotonic()

    def finished(self, result):
        """Show a result's row, if it was timed, and what failed."""
        if result.timed or result.failures:
            self._print_heading(result.case, result.engine)
        if result.timed:
            self._print_row(self.columns, (column.cell(result) for column in self.columns))
        for failure in result.failed():
            self._print_failure(failure)
        self.progress.advance(self.task, _effort(result.case))

    def summary(self, results, interrupted):
        """Show the errors far from 0, how to read the tables, and how it stands: the losses by name."""
        accuracy = [result for result in results if result.case.offset is not None]
        timed = [result for result in results if result.timed]
        if accuracy:
            self._print_accuracy(accuracy)
        self._print()
        for line in LEGEND.format(samples=self.environment["samples"]).splitlines():
            self._print(Text(line, "dim"))
        for setting in dict.fromkeys(map(_setting, timed)):
            self._print_standing(setting, [result for result in timed if _setting(result) == setting])
        self._print()
        measured = itertools.product(("fresh", "into"), self.peers)
        spreads = [s.spread for memory, peer in measured for _, s in speedups(timed, memory, peer.name)]
        noise = float(np.median(spreads or [0.0]))
        if noise > NOISY:
            text = f"The ratios spread by ±{noise:.0%} in the median: this machine is busy, or its cores are shared."
            self._print(Text(text + " Run again when it is quiet, or with fewer --threads.", "bold yellow"))
        if interrupted:
            self._print(Text("Interrupted: this is what was finished.", "bold yellow"))
        for result in results:
            for failure in result.failed():
                self._print_failure(failure)

    def _print_accuracy(self, results):
        """One row of errors for each case."""
        table = accuracy_columns(self.peers)
        if self.terminal:
            table = fitting(table, self.console.width)
        self._print()
        self._print_head(table)
        for result in results:
            self._print_row(table, (column.cell(result) for column in table))

    def _print_standing(self, setting, results):
        """How it stands against each peer, region by region, and each loss."""
        measured = [
            (f"{prefix}vs {peer.name}", memory, peer.name)
            for memory, prefix in (("fresh", ""), ("into", "out= "))
            for peer in self.peers
            if speedups(results, memory, peer.name)
        ]
        width = max(map(len, (setting, *(text for text, *_ in measured))))
        table = [
            Column(f"geometric mean (smallest), cases: {len(grid(results))}", setting, width, 0, None, left=True),
            *(Column("", region, 13, 0, None) for region in REGIONS),
            Column("", "all", 6, 0, None),
        ]
        self._print()
        self._print_head(table)
        for text, memory, peer in (*measured, ("out= share of copy", "into", "copy")):
            shown = (lambda share: Text(f"{share:.0%}")) if peer == "copy" else times
            every = [(result.case.region, s.median) for result, s in speedups(grid(results), memory, peer)]
            cells = [Text(text)]
            for region in REGIONS:
                ratios = [ratio for where, ratio in every if where == region]
                cells.append(
                    Text.assemble(shown(statistics.geometric_mean(ratios)), " (", shown(min(ratios)), ")")
                    if ratios
                    else Text("-")
                )
            cells.append(shown(statistics.geometric_mean([ratio for _, ratio in every])))
            self._print_row(table, cells)
        for text, memory, peer in measured:
            losses = [(result, s) for result, s in speedups(results, memory, peer) if is_loss(s)]
            if losses:
                count, lost = len(speedups(results, memory, peer)), sum(loss.median < LOST for _, loss in losses)
                self._print(
                    f"{text}: slower in {len(losses)} of {count}, by over {1 - LOST:.0%} in {lost} ({lost / count:.0%})"
                )
            for result, loss in losses:
                quartiles = f"{three_digits(loss.q1)} to {three_digits(loss.q3)}"
                self._print(Text.assemble("  ", speedup(loss), f"  {quartiles}  {result.case.name}"))
