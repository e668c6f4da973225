"""The tables of a run in a Markdown text: each replaces what stands between its markers there."""

import re

from . import tables
from .cases import IMAGES, NORMS, STATISTICS
from .figures import counted, variant

TABLES = {  # of cases, by the norms that they are of
    "cases": frozenset(NORMS),
    "images": frozenset(layer.norm for layer in IMAGES),
    "statistics": frozenset(layer.norm for layer, *_ in STATISTICS),
}


def of(norms, view):
    """The results of a view that are of some norms."""
    return [result for result in view.results if result["norm"] in norms]


def _table(rows):
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, re.sub("[^|]+", " --- ", head), *body])


def environment(run):
    """Where and when it was measured."""
    where = run["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    isa = ", ".join(filter(None, where["isa"].values()))
    return (
        f"{where['date'][:10]}, {where['cpu']}, {counted(where['cpus'], 'CPU')}, kernels {isa}, "
        f"{where['samples']} interleaved turns; {versions}."
    )


def glance(run):
    """Geometric means of the speed-ups of norms, a table for each view."""
    for view in tables.views(run):
        regions, blocks = tables.glance(of(NORMS, view))
        rows = [
            (f"{name}, {memory}", *(cell.text for cell in cells))
            for memory, block in blocks.items()
            for name, cells in block
        ]
        yield f"{view.title}:\n\n{_table([('', *regions, 'slower in'), *rows])}"


def cases(run, norms):
    """Time and speed-ups of each case of some norms, of the view with the most threads."""
    view = tables.views(run)[0]
    if not of(norms, view):
        return "The run had none of them."
    columns, regions = tables.heatmap(of(norms, view))
    head = [f"{name}, {memory}" for memory, names in columns for name in names]
    rows = [
        (
            f"{result['module']} {'x'.join(map(str, result['shape']))} {variant(result)}".rstrip(),
            *(c.text for c in cells),
        )
        for _, some in regions
        for _, result, cells in some
    ]
    return f"{view.title}:\n\n{_table([('case', *head), *rows])}"


def fill(text, run):
    """`text` with the tables of `run` between its markers, ``<!-- begin: glance -->`` and ``<!-- end -->``.

    Parameters
    ----------
    text : str
    run : dict
        What the JSON of a run says.
    """
    made = {
        "environment": environment(run),
        "glance": "\n\n".join(glance(run)),
        **{name: cases(run, norms) for name, norms in TABLES.items()},
    }
    return re.sub(
        rf"(<!-- begin: ({'|'.join(made)}) -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}\n{made[found[2]]}\n\n{found[3]}",
        text,
        flags=re.DOTALL,
    )
