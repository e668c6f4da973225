"""Cases that nobody tuned for, and how we stand in them: norm, layout, rank, odd and round sizes, strides by a seed."""

import itertools
import math
import random
import statistics
import sys
from operator import methodcaller

from rich.console import Console
from rich.progress import track

from . import runner
from .cases import NORMS, VIEWS, Case, Layer, StatisticsCase
from .environment import environment
from .peers import CPUNorm
from .record import rounded
from .report import LOST

VALUES = 300, 4_000_000  # of an input
CHANNELS, WIDTH = 2048, 8192  # at most
VIEWED = 0.15  # share of inputs that are not contiguous
STATISTICS = 0.2  # share of moments and standardized arrays
TOGETHER = 16  # values in a slice of these, at least
WORST = 10
TRIES = 1000  # draws for each case, until there are no more of those asked for
HOW = {"fresh": "as called", "into": "into a given output"}


def _extent(rng, most):
    """From 1 to `most`, each magnitude as likely; about half are multiples of 8 or powers of two."""
    extent = math.exp(rng.uniform(0, math.log(most)))
    unit = rng.choice((1, 1, 8, 2 ** round(math.log2(extent))))
    return min(max(1, round(extent / unit)) * unit, math.floor(most))


def _extents(rng, values, rank):
    """`rank` extents of about so many values; half of the images and volumes have sides of one length."""
    if rank == 1 or rng.random() < 0.5:
        return (max(1, round(values ** (1 / rank))),) * rank
    first = _extent(rng, values)
    return first, *_extents(rng, values / first, rank - 1)


def _case(rng, dtype):
    """A case, None if it is too large or small, or has one value per channel, of which there is no variance."""
    name, mode = rng.choice([(name, mode) for name, norm in NORMS.items() for mode in norm.modes])
    norm, rank, values = NORMS[name], rng.choice(NORMS[name].ranks), math.exp(rng.uniform(*map(math.log, VALUES)))
    channels = _extent(rng, min(values, CHANNELS if norm.axis == 1 else WIDTH))
    first = _extent(rng, values / channels) if rank > 2 else round(values / channels)
    shape = [first, *(_extents(rng, values / channels / first, rank - 2) if rank > 2 else ())]
    shape.insert(norm.axis % rank, channels)
    groups = rng.choice([n for n in range(1, channels + 1) if channels % n == 0]) if norm.grouped else None
    activations = [None] * 5 + ["gelu", "relu", "silu"]
    finish = {} if norm.sums else {"residual": rng.random() < 0.2, "activation": rng.choice(activations)}
    layer = Layer("random", name, tuple(shape), groups, **finish)
    channels_last = norm.axis == 1 and rank > 2 and rng.random() < 0.5
    view = rng.choice([view for view in VIEWS if rank > 2 or view != "channels moved"])
    size = math.prod(shape)
    domains = norm.domains(layer)
    if not VALUES[0] <= size <= VALUES[1] or (mode != "eval" and size == domains[1]):
        return None
    if norm.variances and size == math.prod(domains):
        return None
    return Case(layer, channels_last, mode, dtype, view=view if rng.random() < VIEWED else None)


def _statistics(rng, dtype):
    """Two to four axes, some of which are taken together; None if these or all are too few, or too many."""
    shape = _extents(rng, math.exp(rng.uniform(*map(math.log, VALUES))), rng.choice((2, 3, 4)))
    axes = tuple(axis for axis in range(len(shape)) if rng.random() < 0.5)
    if not VALUES[0] <= math.prod(shape) <= VALUES[1] or math.prod(shape[axis] for axis in axes) < TOGETHER:
        return None
    layer = Layer("random", rng.choice(("moments", "standardize")), shape)
    view = rng.choice([view for view in VIEWS if len(shape) > 2 or view != "channels moved"])
    axis = None if len(axes) == len(shape) else axes
    return StatisticsCase(layer, False, None, dtype, view=view if rng.random() < VIEWED else None, axis=axis)


def draw(number, seed, dtype, *wanted):
    """The first `number` cases of a seed of which all of `wanted` are true; fewer if hardly any is."""
    rng = random.Random(seed)
    every = ((_statistics if rng.random() < STATISTICS else _case)(rng, dtype) for _ in range(TRIES * number))
    return list(itertools.islice((case for case in every if case and all(want(case) for want in wanted)), number))


def described(result, peer, seed):
    """A result over `peer` as a dict for JSON: what was run, seconds of a call, quartiles of the speed-up."""
    case, turns = result.case, getattr(result, peer.memory)[peer.name]
    speedup = result.speedup(peer.memory, peer.name)
    return {
        "case": case.name,
        "seed": seed,
        "norm": case.norm,
        "shape": case.layer.shape,
        "groups": case.layer.groups,
        "layout": case.layout,
        "mode": case.mode,
        "dtype": case.dtype,
        "view": case.view,
        "strides": case.arrays().x.strides if case.view else None,
        "ours": rounded(statistics.median(sum(turn.ours) / 2 for turn in turns), 4),
        "theirs": rounded(statistics.median(sum(turn.theirs) / 2 for turn in turns), 4),
        "speedup": {name: rounded(value, 4) for name, value in speedup._asdict().items()},
    }


def line(found):
    """Geometric mean, share of losses and worst of some results."""
    ratios = [result["speedup"]["median"] for result in found]
    lost = sum(ratio < LOST for ratio in ratios)
    return (
        f"{statistics.geometric_mean(ratios):5.2f}x  slower {lost / len(ratios):4.0%} ({lost} of {len(ratios)})  "
        f"worst {min(ratios):.2f}x"
    )


def show(found):
    """Print how it stands: in all, by norm, by seed, and the worst cases."""

    def by(key):
        return {name: [result for result in found if key(result) == name] for name in sorted({*map(key, found)})}

    print(f"  all: {line(found)}")
    for key in (
        lambda result: " ".join(filter(None, (result["norm"], result["mode"]))),
        lambda result: "views" if result["view"] else "contiguous",
        lambda result: f"seed {result['seed']}",
    ):
        for name, some in by(key).items():
            print(f"  {name:<17} {line(some)}")
    print("     ratio  quartiles      ours us   theirs us  case")
    for result in sorted(found, key=lambda result: result["speedup"]["median"])[:WORST]:
        low, median, high = result["speedup"].values()
        strides = f" strides {result['strides']}" if result["strides"] else ""
        times = f"{result['ours'] * 1e6:11.1f} {result['theirs'] * 1e6:11.1f}"
        print(f"    {median:5.2f}x  {low:.2f}-{high:.2f} {times}  {result['case']}{strides}")


def run(number, seeds, pattern, dtypes, engines, peers, samples):
    """Measure what is drawn, print how it stands, and return what is kept as JSON.

    Parameters
    ----------
    number : int
        Of cases of each seed.
    seeds : sequence of int
    pattern : str
        What `Case.matches`.
    dtypes, engines : iterable of str
    peers : dict of int to list of Peer
        By number of threads.
    samples : int
        Turns of each case.
    """
    kept = {"format": "random 1", "interrupted": False, "runs": [], "failures": []}
    for engine, (threads, others), dtype in itertools.product(engines, peers.items(), dtypes):
        for peer in others:
            where = environment([engine], [peer], [threads], samples)
            level = " ".join(filter(None, (engine, where["isa"][engine])))
            print(f"{level}, {dtype}, threads: {threads}, {HOW[peer.memory]}, against {peer.name} {peer.version}")
            found, failures = [], []
            run = {"environment": where, "peer": peer.name, "memory": peer.memory, "results": found}
            kept["runs"].append(run)
            work = [
                (seed, case)
                for seed in seeds
                for case in draw(number, seed, dtype, peer.has, methodcaller("matches", pattern))
            ]
            try:
                for seed, case in track(work, "", console=Console(stderr=True), disable=not sys.stderr.isatty()):
                    result = runner.measure(case, CPUNorm(threads, engine), [peer], samples, memory=peer.memory)
                    failures += result.failed()
                    if not result.failures:
                        found.append(described(result, peer, seed))
            except KeyboardInterrupt:
                kept["interrupted"] = True
            if found:
                show(found)
            else:
                print("  nothing was measured")
            for failure in failures:
                print("  FAILED {case}: {message}".format(**failure))
            kept["failures"] += failures
            if kept["interrupted"]:
                return kept
    return kept
