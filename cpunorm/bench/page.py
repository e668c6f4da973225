"""A run as one HTML page that needs nothing beside itself: page.jinja, filled with `tables` and `plots`."""

import statistics
from pathlib import Path

import jinja2

from . import plots, tables
from .cases import CALL_BOUND, NEW_PAGES
from .figures import OURS, counted, libraries, seconds, standing, variant
from .report import NOISY, REGIONS, three_digits
from .tables import FASTEST, versus

TEMPLATE = Path(__file__).with_name("page.jinja")


def sweeps(results, looks, caches):
    """(caption, plot) for each norm, layout and mode of the size sweep."""
    kinds = {}
    for result in results:
        kinds.setdefault(f"{result['module']} {variant(result)}".rstrip(), []).append(result)
    for i, (kind, some) in enumerate(kinds.items()):
        description = f"{kind}: bytes per second over bytes: cpunorm, {', '.join(libraries(some))}"
        yield kind, plots.sweep(f"sweep{i}", description, some, looks, caches)


def rooflines(view, caches):
    """(caption, plot) for each norm and mode: bytes per second of the view's cases, under the copy limit."""
    kinds = {}
    for number, result in enumerate(view.results, 1):
        if seconds(result, "out", OURS):
            kind = " ".join(filter(None, (tables.title(result["norm"]), result["mode"])))
            kinds.setdefault(kind, {})[number] = result
    for i, (kind, numbered) in enumerate(kinds.items()):
        description = f"{kind}: bytes per second of each case over its bytes, under the speed of a plain copy"
        yield kind, plots.roofline(f"roof{i}", description, numbered, view.results + view.sweep, caches)


def scalings(threads, rows, looks):
    """(caption, plot) for each region: speed over threads."""
    for i, region in enumerate(REGIONS):
        if some := [speeds for result, speeds in rows if result["region"] == region]:
            means = {}
            for library in looks:
                if curves := [speeds[library] for speeds in some if library in speeds]:
                    means[library] = [statistics.geometric_mean(column) for column in zip(*curves, strict=True)]
            description = f"{region}: speed over threads: {', '.join(means)}"
            ours = [speeds[OURS] for speeds in some if OURS in speeds]
            yield region, plots.scaling(f"threads{i}", description, threads, ours, means, looks)


def accuracies(kinds, looks):
    """(caption, plot) for each norm and layout: largest errors over the offset of the data."""
    known = [e for _, rows, _ in kinds for _, errors in rows for e in errors.values() if e]
    limits = min([*known, 1e-7]) / 2, max([*known, 1e-5]) * 2
    for i, (kind, rows, _) in enumerate(kinds):
        offsets = [offset for offset, _ in rows]
        errors = {library: [by_library.get(library) for _, by_library in rows] for library in looks}
        description = f"{kind}: largest error over the mean of the data: {', '.join(errors)}"
        yield kind, plots.accuracy(f"accuracy{i}", description, offsets, errors, looks, limits)


def answer(results):
    """How the results stand as called, in a sentence or two."""
    against = versus(results, "as_called")
    if not against:
        return "No other library was timed."
    peer, summaries = list(against.items())[-1]
    regions = {
        region: standing(s for s, result in zip(summaries, results, strict=True) if result["region"] == region)
        for region in REGIONS
    }
    by_region = ", ".join(f"{three_digits(some.mean)} {region}" for region, some in regions.items() if some)
    every = standing(summaries)
    each = standing(s for name, summaries in against.items() if name != FASTEST for s in summaries)
    whom = f"the fastest of {len(against) - 1} libraries in each case" if peer == FASTEST else peer
    return (
        f"cpunorm is {three_digits(every.mean)} times as fast as {whom} ({by_region}; geometric means of "
        f"{counted(every.cases, 'case')}). It is slower in {each.losses or 'none'} of {each.cases} comparisons."
    )


def page(run):
    """The HTML of a run; it refers to nothing outside of itself.

    Parameters
    ----------
    run : dict
        What the JSON of a run says.

    Returns
    -------
    str
    """
    where = run["environment"]
    views = tables.views(run) or [tables.View("", "", 0, [], [])]
    main = views[0]
    caches = {name: where[key] for name, key in (("L2", "l2_bytes"), ("LLC", "llc_bytes")) if where[key]}
    precise, kinds = tables.accuracy(run, main.results)
    looks = plots.looks(dict.fromkeys(library for library in (*libraries(run["results"]), *precise) if library != OURS))
    threads, scaled = tables.scaling([view for view in views if view[:2] == main[:2]])
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        run=run,
        where=where,
        views=views,
        main=main,
        caches=caches,
        looks=looks,
        answer=answer,
        swept=[OURS, *libraries(main.sweep)],
        sweeps=list(sweeps(main.sweep, looks, caches)),
        threads=threads,
        scaled=scaled,
        scaling=[library for library in looks if any(library in speeds for _, speeds in scaled)],
        scalings=list(scalings(threads, scaled, looks)) if len(threads) > 1 else [],
        rooflines=list(rooflines(main, caches)),
        precise=precise,
        kinds=kinds,
        accuracies=list(accuracies(kinds, {library: looks[library] for library in precise})),
        CALL_BOUND=CALL_BOUND,
        NEW_PAGES=NEW_PAGES,
        NOISY=NOISY,
        tables=tables,
        plots=plots,
        variant=variant,
        counted=counted,
    )
