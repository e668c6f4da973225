"""The plots of the page: matplotlib's SVG, made to live inside HTML.

Text stays text in the page's own font, colours of ink and paper are the page's variables (so that a dark page has
readable plots), and ids are unique over all plots of a page.
"""

import io
import re
import statistics
from typing import NamedTuple

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from .figures import COPY, OURS, channels_last, seconds
from .runner import PROMISED

INK, RULE, PAPER = "#010101", "#020202", "#030303"  # stand for colours of the page, light or dark
PAGE_COLOURS = {INK: "var(--ink)", RULE: "var(--rule)", PAPER: "var(--paper)"}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cpunorm",
    "font.size": 11,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.color": RULE,
    "ytick.labelcolor": INK,
    "lines.markersize": 4.5,
    "lines.linewidth": 1.3,
}
LIMIT = {"color": INK, "linewidth": 1, "linestyle": (0, (1, 1.5))}
SIZE, WIDE = (420, 290), (620, 380)  # of plots, in CSS pixels


class Look(NamedTuple):
    """How a library is drawn: colour, matplotlib's marker, the same marker as text."""

    colour: str
    marker: str
    glyph: str

    @property
    def css(self):
        """The colour on the page."""
        return PAGE_COLOURS.get(self.colour, self.colour)


OUR_LOOK = Look(INK, "o", "●")
# Paul Tol's bright scheme, a little darker where it has to stand on white
PEER_LOOKS = (
    Look("#8c8c8c", "s", "■"),
    Look("#e4572e", "^", "▲"),
    Look("#b8860b", "v", "▼"),
    Look("#228833", "D", "◆"),
    Look("#2aa5a0", "*", "★"),
    Look("#4477cc", "P", "✚"),
    Look("#aa3d8f", "X", "✖"),
)


def looks(peers):
    """The `Look` of ours and of each peer."""
    return {OURS: OUR_LOOK} | {peer: PEER_LOOKS[i % len(PEER_LOOKS)] for i, peer in enumerate(peers)}


def binary(count, _=None):
    """A number of bytes as text: 64 KiB."""
    unit, size = next(((u, s) for u, s in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)) if count >= s), ("B", 1))
    return f"{count / size:.3g} {unit}"


def gigabytes_per_second(result, memory, library):
    """Bytes read and written in a call per second, None where it was not measured."""
    time = seconds(result, memory, library)
    return time and result["bytes"] / time.median / 1e9


class Plot:
    """One plot of a page; as a context manager its figure is drawn in the page's style.

    Parameters
    ----------
    name : str
        Unique in the page.
    description : str
        For those who can't see it.
    size : (int, int)
    """

    def __init__(self, name, description, size=SIZE):
        self.name = name
        self.description = description
        self.size = size
        self.style = mpl.rc_context(STYLE)

    def __enter__(self):
        self.style.__enter__()
        self.figure = Figure(figsize=[pixels / 72 for pixels in self.size], dpi=72, layout="constrained")
        self.axes = self.figure.add_subplot()
        self.axes.grid()
        return self

    def __exit__(self, *exception):
        if exception[0] is None:
            self.svg = self._svg()
        self.style.__exit__(*exception)

    def _svg(self):
        file = io.StringIO()
        self.figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
        drawn = file.getvalue()
        drawn = drawn[drawn.index(">", drawn.index("<svg")) + 1 :]
        drawn = re.sub(r'(\bid="|\burl\(#|xlink:href="#(?!case-))', rf"\g<1>{self.name}-", drawn)
        for colour, variable in PAGE_COLOURS.items():
            drawn = drawn.replace(colour, variable)
        viewed = f'viewBox="0 0 {self.size[0]} {self.size[1]}" role="img" aria-label="{escape(self.description)}"'
        return Markup(f"<svg {viewed}>{drawn}")

    def line(self, xs, ys, look, dashed=False, **keywords):
        """A library's curve; points that were not measured (None) are left out."""
        points = [(x, y) for x, y in zip(xs, ys, strict=True) if y is not None]
        if points:
            ours = {"linewidth": 2.2, "zorder": 3} if look is OUR_LOOK else {}
            filled = {"markerfacecolor": PAPER, "linestyle": "--"} if dashed else {}
            style = {"color": look.colour, "marker": look.marker} | ours | filled | keywords
            self.axes.plot(*zip(*points, strict=True), **style)

    def bandwidth_over_bytes(self, results, caches):
        """Axes of bytes per second over bytes; under what `results` say that a plain copy does, with cache sizes."""
        axes = self.axes
        limits = {}
        for result in results:
            if speed := gigabytes_per_second(result, "out", COPY):
                limits.setdefault(result["bytes"], []).append(speed)
        sizes = sorted(limits)
        limit = [statistics.median(limits[size]) for size in sizes]
        axes.plot(sizes, limit, **LIMIT)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        low, high = axes.get_xlim()
        bottom, top = axes.get_ylim()
        axes.fill_between(sizes, limit, bottom, color=RULE, alpha=0.35, linewidth=0)
        axes.set(xlim=(low, high), ylim=(bottom, top), xlabel="bytes read and written", ylabel="GB/s")
        axes.xaxis.set_major_locator(FixedLocator([4**k for k in range(20) if high / low < 4**6 or k % 2]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(binary))
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if top / bottom < 200 else (1,)))
        axes.yaxis.set_major_formatter(FuncFormatter(plain))
        axes.yaxis.set_minor_locator(NullLocator())
        for name, size in caches.items():
            if low < size < high:
                axes.axvline(size, **LIMIT)
                label = f"{name} {binary(size)}"
                above = {"xycoords": axes.get_xaxis_transform(), "ha": "right", "va": "bottom", "rotation": 90}
                axes.annotate(label, (size, 0), (-2, 4), textcoords="offset points", fontsize=9, **above)


def plain(value, _=None):
    """A number as an axis shows it: 0.5, 200, 1e6."""
    if value == 0 or 1e-3 < value < 1e3:
        return f"{value:.3g}"
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")


def sweep(name, description, results, looks, caches):
    """Bytes per second over bytes, ours and the peers', of one norm in several sizes."""
    with Plot(name, description) as plot:
        sizes = [result["bytes"] for result in results]

        def speeds(memory, library):
            return [gigabytes_per_second(result, memory, library) for result in results]

        for library, look in reversed(looks.items()):
            plot.line(sizes, speeds("as_called", library), look)
        plot.line(sizes, speeds("out", OURS), OUR_LOOK, dashed=True, linewidth=1.2)
        plot.bandwidth_over_bytes(results, caches)
    return plot.svg


def roofline(name, description, numbered, roof, caches):
    """Bytes per second of each case in its working set, under the roof of the plain copy.

    Parameters
    ----------
    numbered : dict of int to dict
        Results by the number that names them on the page.
    roof : sequence of dict
        Results whose copies make the roof.
    """
    with Plot(name, description, WIDE) as plot:
        places = {n: (r["bytes"], gigabytes_per_second(r, "out", OURS)) for n, r in numbered.items()}
        for number, place in places.items():
            plot.axes.plot(*place, "o", color=INK, markerfacecolor=PAPER if channels_last(numbered[number]) else INK)
        plot.bandwidth_over_bytes(roof, caches)
        plot.figure.draw_without_rendering()  # from here on it is known where points are
        labels = []
        for number, place in sorted(places.items(), key=lambda item: item[1][1]):
            x, y = plot.axes.transData.transform(place)
            right = channels_last(numbered[number])
            x += 6 if right else -6
            while any(abs(x - other) < 14 and abs(y - height) < 9 for other, height in labels):
                y += 1
            labels.append((x, y))
            align = {"ha": "left" if right else "right", "va": "center"}
            label = plot.axes.annotate(number, (x, y), xycoords="figure pixels", fontsize=9, **align)
            label.set(url=f"#case-{number}", in_layout=False)
    return plot.svg


def scaling(name, description, threads, by_case, means, looks):
    """Speed over that on the fewest threads, over threads.

    Parameters
    ----------
    threads : sequence of int
    by_case : sequence of sequence of float
        Ours for each case, by threads.
    means : dict of str to sequence of float
        Geometric mean over the cases of ours and of each peer, by threads.
    """
    with Plot(name, description) as plot:
        axes = plot.axes
        axes.plot(threads, [number / threads[0] for number in threads], **LIMIT)
        for speeds in by_case:
            axes.plot(threads, speeds, color=INK, linewidth=0.5, alpha=0.35)
        for library, speeds in reversed(means.items()):
            plot.line(threads, speeds, looks[library])
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_xlabel("threads")
        axes.set_ylabel(f"times as fast as on {threads[0]}")
        axes.xaxis.set_major_locator(FixedLocator(threads))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(plain))
        axes.yaxis.set_major_formatter(FuncFormatter(plain))
        axes.set_ylim(bottom=min(0.8, axes.get_ylim()[0]))
    return plot.svg


def accuracy(name, description, offsets, errors, looks, limits):
    """Largest errors over offsets, with the promised bound.

    Parameters
    ----------
    offsets : sequence of float
    errors : dict of str to sequence of float
        Of ours and each peer, by offset; None where there is none or it is not finite.
    limits : (float, float)
        The smallest and the largest error that the axis shows.
    """
    with Plot(name, description) as plot:
        axes, places = plot.axes, range(len(offsets))
        promised = PROMISED["float32"]
        axes.axhline(promised, **LIMIT)
        above = {"xytext": (0, 2), "textcoords": "offset points", "ha": "right", "va": "bottom", "fontsize": 9}
        axes.annotate(f"promised: {plain(promised)}", (places[-1], promised), **above)
        for library, values in reversed(errors.items()):
            plot.line(places, values, looks[library])
        axes.set(yscale="log", ylim=limits, xlabel="mean of the data, in standard deviations", ylabel="largest |error|")
        axes.xaxis.set_major_locator(FixedLocator(places))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: plain(offsets[int(place)])))
        axes.yaxis.set_major_formatter(FuncFormatter(plain))
        axes.yaxis.set_minor_locator(NullLocator())
    return plot.svg
