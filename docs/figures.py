"""Draws the pictures of the documentation from what was measured, an SVG each that follows its page's colours.

python docs/figures.py            # speed.svg from record.json, errors.svg from errors.json
python docs/figures.py --measure  # first measures errors.json anew, against torch, onnxruntime and NumPy
"""

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path

from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from cpunorm.bench import accuracy, cases, peers, tables
from cpunorm.bench.figures import OURS
from cpunorm.bench.markdown import of
from cpunorm.bench.plots import INK, LIMIT, Plot, looks, plain
from cpunorm.bench.report import is_loss
from cpunorm.bench.runner import PROMISED

DOCS = Path(__file__).parent
RIVALS = "numpy", "torch", "onnxruntime"
OFFSETS = tuple(10.0**power for power in range(8))
ABOVE = {"textcoords": "offset points", "fontsize": 9.5}
# A picture by itself follows the reader's system; within a page that sets these variables, the page.
COLOURS = """<style>
.figure { --ink: #1f2328; --rule: #c4cad1; --paper: #ffffff; font-family: system-ui, sans-serif }
@media (prefers-color-scheme: dark) { .figure { --ink: #e6edf3; --rule: #4b525b; --paper: #0d1117 } }
</style>"""


def standalone(plot):
    """The SVG of a plot as a file of its own."""
    namespaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    width, height = plot.size
    opening = f'<svg class="figure" {namespaces} width="{width}" height="{height}" '
    drawn = plot.svg.removeprefix("<svg ")
    attributes, _, rest = drawn.partition(">")
    return f"{opening}{attributes}>{COLOURS}{rest}\n"


def kind(result):
    """The row of the picture that a case is in."""
    return ", ".join(filter(None, (cases.NORMS[result["norm"]].module, result["mode"])))


def speed(run):
    """How many times as fast as NumPy and torch: a dot for each layer, a line for the geometric mean."""
    view = tables.views(run)[0]
    view = view._replace(results=of(cases.NORMS, view))
    against = {peer: row for peer, row in tables.versus(view.results, "as_called").items() if peer in RIVALS}
    look = looks(against)
    kinds = sorted(set(map(kind, view.results)), reverse=True)
    description = f"Speed-up of cpunorm over {' and '.join(against)}, for each layer of the benchmark"
    with Plot("speed", description, (620, 64 + 44 * len(kinds))) as plot:
        axes = plot.axes
        axes.grid(axis="y", visible=False)
        axes.axvline(1, **LIMIT)
        for peer, row in against.items():
            lane = 0.17 if peer == "torch" else -0.17
            for place, name in enumerate(kinds):
                speeds = [s for s, r in zip(row, view.results, strict=True) if s and kind(r) == name]
                if not speeds:
                    continue
                mean = statistics.geometric_mean(s.median for s in speeds)
                height, colour = place + lane, look[peer].colour
                dots = {"alpha": 0.45, "markersize": 7, "markeredgewidth": 0}
                axes.plot([s.median for s in speeds], [height] * len(speeds), "o", color=colour, **dots)
                axes.plot([mean] * 2, [height - 0.16, height + 0.16], color=colour, linewidth=2.4)
                axes.annotate(f"{mean:.2g}x", (mean, height + 0.16), (0, 3), ha="center", color=INK, **ABOVE)
        slower = sum(is_loss(s) for s in against["torch"] if s)
        axes.set(xscale="log", ylim=(-0.6, len(kinds) - 0.3), xlim=(0.6, None))
        axes.set_xlabel(f"times as fast ({view.title}); torch is faster in {slower} of {len(view.results)} layers")
        axes.set_yticks(range(len(kinds)), kinds)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(plain))
        axes.xaxis.set_minor_locator(NullLocator())
        for peer in against:
            axes.plot([], [], "o", color=look[peer].colour, label=f"over {peer}", markeredgewidth=0)
        axes.legend(frameon=False, loc="upper right", labelcolor=INK)
    return standalone(plot)


def errors(measured):
    """The largest error of LayerNorm over the mean of the data, which has standard deviation 1."""
    libraries = measured["errors"]
    look = looks(library for library in libraries if library != OURS)
    with Plot("errors", "Largest error of LayerNorm over the mean of the data", (620, 380)) as plot:
        axes = plot.axes
        promised = PROMISED["float32"]
        axes.axhline(promised, **LIMIT)
        axes.annotate(f"promised: {plain(promised)}", (OFFSETS[0], promised), (0, 3), va="bottom", **ABOVE)
        for library, values in reversed(libraries.items()):
            plot.line(measured["offsets"], values, look[library])
        axes.set(xscale="log", yscale="log", ylim=(1e-7, 10))
        axes.set_xlabel("mean of the data, in standard deviations")
        axes.set_ylabel("largest |error| of LayerNorm")
        for axis in axes.xaxis, axes.yaxis:
            axis.set_major_formatter(FuncFormatter(plain))
            axis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(LogLocator(numticks=12))
        for library in libraries:
            axes.plot([], [], look[library].marker, color=look[library].colour, label=library)
        axes.legend(frameon=False, loc="upper left", labelcolor=INK)
    return standalone(plot)


def measure():
    """Errors of float32 LayerNorm against float64: 64 rows of 4096 values ``offset + N(0, 1)``."""
    layer = next(layer for layer in cases.ACCURACY_LAYERS if layer.norm == "layer_norm")
    every = [replace(cases.expand([layer], "float32")[0], offset=offset) for offset in OFFSETS]
    libraries = [peers.CPUNorm(1, "cython"), *(peers.PEERS[name](1) for name in RIVALS)]
    return {
        "versions": {library.name: library.version for library in libraries},
        "offsets": OFFSETS,
        "errors": {
            library.name: [float(f"{accuracy.largest_error(library, case):.2g}") for case in every]
            for library in libraries
        },
    }


def draw(folder):
    """Write the pictures into `folder`."""
    for name, figure, source in (("speed", speed, "record"), ("errors", errors, "errors")):
        measured = json.loads((DOCS / f"{source}.json").read_text(encoding="utf-8"))
        (folder / f"{name}.svg").write_text(figure(measured), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--measure", action="store_true", help="measure errors.json anew")
    if parser.parse_args().measure:
        (DOCS / "errors.json").write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    draw(DOCS)
