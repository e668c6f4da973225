"""What is shown: a table that grows, above a progress bar on a terminal and as plain lines elsewhere; and the JSON.

The columns are data, the same for both. The bar is drawn between the timed blocks only.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

PLAIN = str.maketrans({"µ": "u", "±": "+-", "▼": "!", "·": "-"})
NOT_AVAILABLE = Text("n/a", "dim")
GAP = "  "
REDRAW_SECONDS = 0.2
NOISY = 0.1  # a spread that says more about the machine than about the libraries


def three_digits(value):
    """`value` in about three digits, without an exponent."""
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def timing(summary):
    """A duration and its spread."""
    unit, size = next(((u, s) for u, s in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)) if summary.median >= s), ("ns", 1e-9))
    return Text(f"{three_digits(summary.median / size)}{unit} ±{summary.spread:.0%}")


def is_loss(summary):
    """Whether ours is slower, to the two digits that are shown."""
    return round(summary.median, 2) < 1


def speedup(summary):
    """How many times faster ours is and its spread; a loss is marked by more than its colour."""
    if summary is None:
        return NOT_AVAILABLE
    loss = is_loss(summary)
    text = f"{'▼' if loss else ''}{three_digits(summary.median)}x ±{summary.spread:.0%}"
    return Text(text, "bold red" if loss else "green")


LEGEND = """\
time: median of a call, ± half the distance of the quartiles; as called: output made by the call; out=: output given
vs: so many times faster is cpunorm (▼: slower), median of the ratios of {samples} interleaved turns
GB/s: input and output counted once; copy: share of the speed of a plain parallel copy; error: largest, against float64
"""


class Column(NamedTuple):
    """One column; a group's name stands over its first. When not all fit, those of the largest `rank` go first."""

    group: str
    header: str
    width: int
    rank: int
    cell: Callable
    left: bool = False


def columns(peers):
    """The columns of a run against `peers`."""

    def versus(memory, peer):
        return lambda result: speedup(result.speedup(memory, peer.name))

    def error(name):
        return lambda r: Text(f"{r.errors[name]:.1e}".replace("e-0", "e-")) if name in r.errors else NOT_AVAILABLE

    return [
        Column("", "shape", 13, 0, lambda result: Text(result.case.shape), left=True),
        Column("", "layout", 11, 0, lambda result: Text(_variant(result.case)), left=True),
        Column("as called", "time", 11, 0, lambda result: timing(result.seconds("fresh"))),
        *(Column("", f"vs {peer.name}", 11, 1, versus("fresh", peer)) for peer in peers),
        Column("", "GB/s", 4, 3, lambda result: Text(three_digits(result.bandwidth / 1e9))),
        Column("out=", "time", 11, 5, lambda result: timing(result.seconds("into"))),
        *(Column("", f"vs {peer.name}", 11, 5, versus("into", peer)) for peer in peers if peer.takes_out),
        Column("", "copy", 4, 4, lambda result: Text(f"{result.speedup('into', 'copy').median:.0%}")),
        Column("error", "ours", 6, 2, error("cpunorm")),
        *(Column("", peer.name, 6, 4 if peer.takes_out else 6, error(peer.name)) for peer in peers),
    ]


def _variant(case):
    return " ".join(filter(None, (case.layout, case.mode)))


def _place(case, engine):
    return f"{case.layer.source} {case.module} {case.dtype} {engine}"


def _effort(case):
    """About how long a case takes, in any unit: so many elements, and as many as its shortest blocks are worth."""
    return math.prod(case.layer.shape) + 2**21


def fitting(columns, width):
    """`columns`, without those that there is no room for."""
    kept = list(columns)
    while sum(column.width + len(GAP) for column in kept) - len(GAP) > width and any(column.rank for column in kept):
        kept.remove(max(kept, key=lambda column: column.rank))
    return kept


class Report:
    """Shows a run while it goes; a context manager around it.

    Parameters
    ----------
    environment : dict
        From `environment.environment`.
    peers : sequence of Peer
    work : sequence of (Case, str)
        What will be run, on which engine.
    """

    def __init__(self, environment, peers, work):
        self.environment = environment
        self.peers = [peer.name for peer in peers]
        self.terminal = sys.stdout.isatty() and sys.stdout.encoding.lower().startswith("utf")
        self.console = Console(force_terminal=self.terminal, highlight=False, soft_wrap=not self.terminal)
        self.columns = columns(peers)
        if self.terminal:
            self.columns = fitting(self.columns, self.console.width)
        else:
            width = max(len(_place(*run)) for run in work)
            layer = Column("", "layer", width, 0, lambda result: Text(_place(result.case, result.engine)), left=True)
            self.columns.insert(0, layer)
        self.heading = None
        self.doing = None
        self.redrawn = 0.0
        self.progress = Progress(
            BarColumn(bar_width=20),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=self.console,
            auto_refresh=False,
            transient=True,
            disable=not self.terminal,
        )
        self.task = self.progress.add_task("", total=sum(_effort(case) for case, _ in work))

    def __enter__(self):
        run = self.environment
        versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
        engines = ", ".join(f"{engine} {isa}" if isa else engine for engine, isa in run["isa"].items())
        self._print(f"{run['cpu']}, {run['cpus']} CPUs; threads: {run['threads']}; engine: {engines}")
        self._print(f"{versions}; {run['openmp']}, {run['allocator']}; {run['date']}")
        self._print()
        self._print_row(Text(column.group, "dim") for column in self.columns)
        self._print_row(Text(column.header, "bold") for column in self.columns)
        self.progress.start()
        return self

    def __exit__(self, *exception):
        self.progress.stop()

    def _print(self, text=""):
        text = text if isinstance(text, Text) else Text(text)
        self.console.print(text if self.terminal else text.plain.translate(PLAIN), markup=False)

    def _print_row(self, cells):
        row = Text()
        for column, cell in zip(self.columns, cells, strict=True):
            gap = " " * (column.width - len(cell))
            row += Text.assemble(cell, gap, GAP) if column.left else Text.assemble(gap, cell, GAP)
        row.rstrip()
        self._print(row)

    def _print_heading(self, case, engine):
        if self.terminal and self.heading != (heading := _place(case, engine)):
            self.heading = heading
            self._print(Text(heading, "bold cyan"))

    def tick(self, case, doing):
        """Tell what is being run; between the timed blocks."""
        description = " ".join(filter(None, (case.module, case.shape, _variant(case), doing)))
        if description != self.doing or time.monotonic() - self.redrawn > REDRAW_SECONDS:
            self.doing = description
            self.progress.update(self.task, description=description, refresh=True)
            self.redrawn = time.monotonic()

    def finished(self, result):
        """Show a result's row."""
        self._print_heading(result.case, result.engine)
        self._print_row(column.cell(result) for column in self.columns)
        self.progress.advance(self.task, _effort(result.case))

    def failed(self, case, engine, message):
        """Show a case that was not timed, and why."""
        self._print_heading(case, engine)
        self._print(Text(f"FAILED {case.name} ({engine}): {message}", "bold red"))
        self.progress.advance(self.task, _effort(case))

    def summary(self, results, failures, interrupted):
        """Show how to read the table, and how it stands: the losses by name."""
        self._print()
        for line in LEGEND.format(samples=self.environment["samples"]).splitlines():
            self._print(Text(line, "dim"))
        measured = {
            (memory, peer): [(r, r.speedup(memory, peer)) for r in results if peer in getattr(r, memory)]
            for memory in ("fresh", "into")
            for peer in self.peers
        }
        for (memory, peer), speedups in measured.items():
            if speedups:
                self._print_standing(f"{peer}, out=" if memory == "into" else peer, speedups)
        noise = float(np.median([s.spread for speedups in measured.values() for _, s in speedups] or [0.0]))
        if noise > NOISY:
            text = f"The ratios spread by ±{noise:.0%} in the median: this machine is busy, or its cores are shared."
            self._print(Text(text + " Run again when it is quiet, or with fewer --threads.", "bold yellow"))
        if interrupted:
            self._print(Text("Interrupted: this is what was finished.", "bold yellow"))
        for failure in failures:
            self._print(Text("FAILED {case} ({engine}): {message}".format(**failure), "bold red"))

    def _print_standing(self, against, speedups):
        """One line on the speed-ups over a peer, and one for each loss."""
        mean = math.exp(np.mean([math.log(s.median) for _, s in speedups]))
        losses = [(result, s) for result, s in speedups if is_loss(s)]
        slower = f"slower in {len(losses)}:" if losses else "slower in none"
        self._print(f"against {against}: {three_digits(mean)}x, geometric mean of {len(speedups)} cases; {slower}")
        for result, loss in losses:
            self._print(Text.assemble("  ", speedup(loss), f"  {result.case.name} ({result.engine})"))


def as_json(environment, results, failures, interrupted):
    """A run as one JSON text: seconds of every block, so that any other statistic can be made from it.

    Parameters
    ----------
    environment : dict
    results : sequence of Result
    failures : sequence of dict
        With "case", "engine" and "message".
    interrupted : bool
    """

    def comparison(result, memory):
        return {
            peer: {"speedup": result.speedup(memory, peer)._asdict(), "turns": [turn._asdict() for turn in turns]}
            for peer, turns in getattr(result, memory).items()
        }

    def as_dict(result):
        case = result.case
        return {
            "case": case.name,
            "engine": result.engine,
            **asdict(case.layer),
            "layout": case.layout,
            "mode": case.mode,
            "dtype": case.dtype,
            "max_error": result.errors,
            "bytes_per_second": result.bandwidth,
            **{
                key: {"seconds": result.seconds(memory)._asdict(), "against": comparison(result, memory)}
                for key, memory in (("as_called", "fresh"), ("out", "into"))
            },
        }

    run = {
        "environment": environment,
        "interrupted": interrupted,
        "results": [as_dict(result) for result in results],
        "failures": failures,
    }
    return json.dumps(run, indent=1, allow_nan=False) + "\n"
