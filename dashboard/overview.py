"""An asv plugin: `asv publish` also writes overview.html, the page that a visitor of the site meets first.

It answers from asv's results: how far ahead of the other libraries, where, since when? A benchmark whose unit is
``ours/<library>`` is a ratio of times, shown as a speed-up. Absolute times are left to asv's graphs.
"""

import itertools
import json
import math
import statistics
import string
import subprocess
from collections import defaultdict
from html import escape
from pathlib import Path
from urllib.parse import urlencode

from asv.publishing import OutputPublisher
from asv.results import iter_results
from asv.step_detect import detect_steps
from asv.util import human_value, is_nan

LEVEL = 1.05  # nearer than this factor to 1 a speed-up is neither ahead nor behind, and to another value no change
SIDES = {1: ("ahead", "▲"), 0: ("level", "●"), -1: ("behind", "▼")}
RATIO = "ours/"
QUOTE = "'"  # asv keeps the repr of parameters
DRAWN = Path(__file__).parents[1] / "docs" / "random.json"  # `cpunorm bench --random --json`


def side(speed_up):
    """1 for ahead, -1 for behind, 0 for level."""
    return (speed_up > LEVEL) - (speed_up < 1 / LEVEL)


class Series:
    """One benchmark at one combination of its parameters.

    Attributes
    ----------
    benchmark, unit : str
        asv's.
    parameters : dict
        Their names and values, both text.
    values : dict
        By revision; None where it failed, NaN where it is n/a.
    """

    def __init__(self, benchmark, unit, parameters, values):
        self.benchmark, self.unit, self.parameters, self.values = benchmark, unit, parameters, values
        self.is_ratio = unit.startswith(RATIO)
        known = [(r, v) for r, v in sorted(values.items()) if v is not None and not is_nan(v)]
        self.points = [(r, 1 / v) for r, v in known] if self.is_ratio else known
        self.last_run = max(values, default=None)
        self.newest = self.points[-1][1] if self.points and self.points[-1][0] == self.last_run else None
        self.failed = bool(values) and values[self.last_run] is None

    @property
    def module(self):
        """Where asv found it: the norm, for most."""
        return self.benchmark.partition(".")[0].replace("_", " ")

    @property
    def link(self):
        """To asv's graph of it."""
        query = urlencode({f"p-{name}": text for name, text in self.parameters.items()})
        return escape(f"index.html#{self.benchmark or '/'}{'?' * bool(query)}{query}")

    def shown(self, value):
        """A value in its unit."""
        if self.is_ratio:
            return f"{value:.3g}\N{MULTIPLICATION SIGN}"
        if self.unit in ("seconds", "bytes"):
            return human_value(value, self.unit)
        return f"{value:.2g}" if value < 100 else f"{value:,.0f}"

    def levels(self):
        """The (first revision, level) of each stretch between significant changes: asv's steps that exceed LEVEL."""
        found = []
        for left, _, level, _, _ in detect_steps([value for _, value in self.points]):
            if not found or abs(level - found[-1][1]) > (LEVEL - 1) * min(level, found[-1][1]):
                found.append((self.points[left][0], level))
        return found


class History:
    """The results of one machine, the one that has measured the newest commit."""

    def __init__(self, conf, benchmarks, revisions):
        results = [result for result in iter_results(conf.results_dir) if result.commit_hash in revisions]
        self.environment = max(results, key=lambda result: revisions[result.commit_hash]).params
        results = [result for result in results if result.params["machine"] == self.environment["machine"]]
        results.sort(key=lambda result: result.params == self.environment)  # of two of one commit, the last one counts
        self.benchmarks = benchmarks
        self.results = {revisions[result.commit_hash]: result for result in results}
        self.place = {revision: i for i, revision in enumerate(sorted(self.results))}
        log = ["git", "log", "--no-walk", "--format=%H%x00%cs%x00%s", *(result.commit_hash for result in results)]
        lines = subprocess.run(log, cwd=conf.repo, check=True, capture_output=True, text=True).stdout.splitlines()
        self.commits = {revisions[commit]: (commit, *rest) for commit, *rest in (line.split("\0") for line in lines)}

    def series(self):
        """All of them but times, where there is a value or a failure."""
        for name, benchmark in self.benchmarks.items():
            if benchmark["type"] in ("time", "timeraw"):
                continue
            values = {
                revision: result.get_result_value(name, benchmark["params"])
                for revision, result in self.results.items()
                if name in result.get_result_keys(self.benchmarks)
            }
            for i, parameters in enumerate(itertools.product(*benchmark["params"])):
                parameters = dict(zip(benchmark["param_names"], parameters, strict=True))
                series = Series(name, benchmark["unit"], parameters, {r: v[i] for r, v in values.items()})
                if series.points or series.failed:
                    yield series

    def named(self, revision):
        """A commit, with its date and subject for those who point at it."""
        commit, date, subject = self.commits[revision]
        return f'<code title="{date} {escape(subject)}">{commit[:7]}</code>'

    def curve(self, series, width=120, height=30):
        """The values on a logarithmic scale (a linear one if there are zeros), and the line of equal speed."""
        scale = math.log if min(value for _, value in series.points) > 0 else float
        heights = [scale(value) for _, value in series.points] + [0.0] * series.is_ratio
        middle, spread = (max(heights) + min(heights)) / 2, max(max(heights) - min(heights), math.log(2))

        def y(value):
            return round(height / 2 - (height - 6) * (scale(value) - middle) / spread, 1)

        xs = [
            round(3 + (width - 6) * self.place[revision] / max(1, len(self.place) - 1), 1)
            for revision, _ in series.points
        ]
        path = " ".join(f"{x},{y(value)}" for x, (_, value) in zip(xs, series.points, strict=True))
        marks = [f'<svg width="{width}" height="{height}"><polyline points="{path}"/>']
        if series.is_ratio:
            marks.append(f'<line x2="{width}" y1="{y(1)}" y2="{y(1)}"/>')
        for x, (revision, value) in zip(xs, series.points, strict=True):
            commit, date, subject = self.commits[revision]
            text = escape(f"{series.shown(value)} at {commit[:7]} ({date}) {subject}")
            marks.append(f'<circle cx="{x}" cy="{y(value)}" r="1.7"><title>{text}</title></circle>')
        return "".join((*marks, "</svg>"))

    def cell(self, series, note="", **size):
        """The newest value, its curve, since when it is on its side of equal speed, the last significant change."""
        if series is None or not (series.points or series.failed):
            return '<td class="level">n/a'
        if series.newest is None:
            text = '<b class="behind">failed</b>' if series.failed else '<b class="level">n/a</b>'
            return f"<td>{text}{self.curve(series, **size) if series.points else ''}"
        name, notes, levels = "", [note] if note else [], series.levels()
        if series.is_ratio:
            name, sign = SIDES[side(series.newest)]
            held = list(itertools.takewhile(lambda level: side(level[1]) == side(series.newest), reversed(levels)))
            if held:
                notes.append(f'<span class="{name}">{sign} {name}</span> since {self.named(held[-1][0])}')
        if len(levels) > 1:
            (_, before), (revision, after) = levels[-2:]
            notes.append(f"{series.shown(before)} → {series.shown(after)} at {self.named(revision)}")
        if series.last_run != max(self.results):
            notes.append(f"measured at {self.named(series.last_run)}")
        value = f'<b class="{name}">{series.shown(series.newest)}</b>{self.curve(series, **size)}'
        return f'<td><a href="{series.link}">{value}</a><small>{"<br>".join(notes)}</small>'


def table(history, title, every):
    """A row per combination of parameters, a column per library or implementation."""
    rows, columns = defaultdict(dict), {}
    for series in every:
        row = {name: text.strip(QUOTE) for name, text in series.parameters.items()}
        method = series.benchmark.rpartition(".")[2].partition("_")[2].replace("_", " ")
        column = row.pop("implementation", method)
        columns[column] = series.unit
        rows[tuple(row.items())][column] = series
    names = list(dict.fromkeys(name for row in rows for name, _ in row))
    units = {unit for unit in columns.values() if not unit.startswith(RATIO)}
    about = ", ".join(units) or "times faster"
    lines = [f"<h2>{title.replace('.', ' ')}<small>{escape(about)}</small></h2>"]
    lines.append(f"<table{' class=many' * (len(columns) > 2)}><tr>")
    lines += [f"<th>{escape(text)}" for text in (*names, *columns)]
    for row, cells in rows.items():
        lines += ["<tr>", *(f"<td>{escape(dict(row).get(name, ''))}" for name in names)]
        lines += [history.cell(cells.get(column)) for column in columns]
    return "\n".join((*lines, "</table>"))


def summary(history, ratios):
    """A row per norm and number of threads, a column per library: geometric mean, and how many cases on which side."""
    groups = defaultdict(list)
    for series in ratios:
        threads = series.parameters.get("threads", "").strip(QUOTE)
        for norm in (series.module, "all"):
            groups[f"{norm}, threads: {threads}" if threads else norm, series.unit].append(series)
    units = list(dict.fromkeys(series.unit for series in ratios))
    lines = ["<table><tr><th>", *(f"<th>against {unit.removeprefix(RATIO)}" for unit in units)]
    for label in sorted({label for label, _ in groups}):
        lines.append(f"<tr><td>{label}")
        for unit in units:
            members = groups[label, unit]
            logs = defaultdict(list)
            for revision, speed_up in itertools.chain.from_iterable(series.points for series in members):
                logs[revision].append(math.log(speed_up))
            mean = Series("", unit, {}, {revision: math.exp(-sum(v) / len(v)) for revision, v in logs.items()})
            sides = [side(series.newest) for series in members if series.newest is not None]
            counts = (f'<span class="{name}">{sides.count(s)} {name}</span>' for s, (name, _) in SIDES.items())
            lines.append(history.cell(mean, ", ".join(counts), width=220, height=44))
    return "\n".join((*lines, "</table>"))


def drawn(path):
    """A row per norm of a kept run of `cpunorm bench --random`: geometric mean, how many lose, a dot per case."""
    if not path.exists():
        return ""
    lines = []
    for run in json.loads(path.read_text(encoding="utf-8"))["runs"]:
        groups, where = defaultdict(list), run["environment"]
        for result in run["results"]:
            for norm in ("all", " ".join(filter(None, (result["norm"].replace("_", " "), result["mode"])))):
                groups[norm].append((result["speedup"]["median"], result["case"]))
        logs = [0.0, *(math.log(speed_up) for speed_up, _ in groups["all"])]
        least, unit = min(logs), 390 / (max(logs) - min(logs))
        about = f"against {run['peer']}, threads: {where['threads'][0]}, {where['cpu']}, {where['date'][:10]}"
        lines.append(f"<h2>Shapes that nobody tuned for<small>times faster {escape(about)}</small></h2>")
        lines.append("<table><tr><th><th>geometric mean<th>worst<th>of each case, on a logarithmic scale")
        for norm, cases in sorted(groups.items()):
            ratios = [speed_up for speed_up, _ in cases]
            sides = [side(ratio) for ratio in ratios]
            counts = ", ".join(f'<span class="{name}">{sides.count(s)} {name}</span>' for s, (name, _) in SIDES.items())
            mean, worst = statistics.geometric_mean(ratios), min(ratios)
            dots = "".join(
                f'<circle cx="{5 + unit * (math.log(speed_up) - least):.1f}" cy="9" r="3" fill-opacity=".4">'
                f"<title>{speed_up:.3g}\N{MULTIPLICATION SIGN} {escape(case)}</title></circle>"
                for speed_up, case in cases
            )
            one = f'<line x1="{5 - unit * least:.1f}" x2="{5 - unit * least:.1f}" y2="18"/>'
            strip = f'<svg width="400" height="18">{one}{dots}</svg>'
            values = (f'<b class="{SIDES[side(v)][0]}">{v:.3g}\N{MULTIPLICATION SIGN}</b>' for v in (mean, worst))
            lines.append(f"<tr><td>{norm}<td>{next(values)}<small>{counts}</small><td>{next(values)}<td>{strip}")
        lines.append("</table>")
    return "\n".join(lines)


def losses(ratios):
    """Where another library is faster, the worst first."""
    behind = sorted((s for s in ratios if s.newest is not None and side(s.newest) < 0), key=lambda s: s.newest)
    items = (
        f'<li><b class="behind">{s.shown(s.newest)}</b>{s.unit.removeprefix(RATIO)}: <a href="{s.link}">{s.module}, '
        + escape(", ".join(f"{name} {text.strip(QUOTE)}" for name, text in s.parameters.items()))
        + "</a>"
        for s in behind
    )
    return f"<details open><summary>Behind in {len(behind)}</summary><ul>{''.join(items)}</ul></details>"


def commits(history):
    """What was measured, newest first."""
    lines = []
    for revision, result in sorted(history.results.items(), reverse=True):
        commit, date, subject = history.commits[revision]
        keys = result.get_all_result_keys()
        values = [value for key in keys for value in result.get_result_value(key, result.get_result_params(key))]
        found, failed = sum(value is not None and not is_nan(value) for value in values), values.count(None)
        count = f"{found} values" if found else '<b class="behind">did not build, or nothing ran</b>'
        count += f', <b class="behind">{failed} failed</b>' if found and failed else ""
        lines.append(f"<tr><td><code>{commit[:10]}</code><td>{date}<td>{escape(subject)}<td>{count}")
    return "\n".join(lines)


class Overview(OutputPublisher):
    """What asv runs when it publishes."""

    name = "overview"
    order = 4

    @classmethod
    def publish(cls, conf, repo, benchmarks, graphs, revisions):
        """Write the page, and lead visitors to it."""
        for name in [name for name in benchmarks if not graphs.get_graph_group(name)]:
            del benchmarks[name]  # never measured: asv's pages would ask for a graph that isn't there
        if not len(graphs):
            return
        history = History(conf, benchmarks, revisions)
        tables = defaultdict(list)
        for series in sorted(history.series(), key=lambda series: series.unit, reverse=True):  # torch before numpy
            title = series.benchmark if "implementation" in series.parameters else series.benchmark.rpartition(".")[0]
            tables[not series.is_ratio, title].append(series)
        ratios = [series for (others, _), members in tables.items() if not others for series in members]
        commit, date, subject = history.commits[max(history.commits)]
        page = string.Template(Path(__file__).with_suffix(".html.in").read_text(encoding="utf-8")).substitute(
            project=conf.project,
            newest=f"{commit[:10]} ({date}) {escape(subject)}",
            environment=escape(", ".join(f"{name} {value}" for name, value in history.environment.items() if value)),
            count=len(history.commits),
            level=f"{100 * (LEVEL - 1):.0f} %",
            summary=summary(history, ratios),
            losses=losses(ratios),
            drawn=drawn(DRAWN),
            tables="\n".join(table(history, title, members) for (_, title), members in sorted(tables.items())),
            commits=commits(history),
        )
        site = Path(conf.html_dir)
        (site / "overview.html").write_text(page, encoding="utf-8")
        tab = '<li id="nav-li-"'
        first = '<script>if (!location.hash) location.replace("overview.html");</script>'
        index = (site / "index.html").read_text(encoding="utf-8")
        index = index.replace(tab, f'<li><a href="overview.html">Overview</a></li>{tab}', 1)
        (site / "index.html").write_text(index.replace("<head>", f"<head>{first}", 1), encoding="utf-8")
