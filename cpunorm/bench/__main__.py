"""The command line: `cpunorm bench`, which `python -m cpunorm.bench` is too, and `cpunorm stats`."""

import argparse
import importlib.util
import json
import math
import os
import sys
import zipfile
from functools import partial
from pathlib import Path

import cpunorm
from cpunorm import stats

from . import cases as registry
from . import runner
from .peers import PEERS, Build, CPUNorm, OldCPUNorm
from .record import FORMAT, dumps, record

SAMPLES = 15
QUICK_SAMPLES = 7
RANDOM_SAMPLES = 9  # fewer than for cases that are shown one by one: there the figures are those of many
QUICK_PEERS = ("numpy", "torch")
ISA_LEVELS = {"baseline": "default", "v3": "avx2", "v4": "avx512"}  # ours, and torch's name for it


def _samples(text):
    number = int(text) if text.isdecimal() else 0
    if number < QUICK_SAMPLES:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer >= {QUICK_SAMPLES} (fewer say nothing)")
    return number


def _engine(text):
    try:
        with cpunorm.engine(text):
            return text
    except (ValueError, RuntimeError, ImportError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _threads(text):
    try:
        number = int(text)
        with cpunorm.num_threads(number):
            return number
    except (ValueError, RuntimeError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of threads that can be used here") from None


def _isa(text):
    runnable = cpunorm.show_config(mode="dicts")["isa levels runnable"]
    if text not in runnable:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(runnable)}, which this CPU and build run")
    return text


def _count(text):
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer >= 1")
    return int(text)


def _ratio(text):
    try:
        ratio = float(text)
    except ValueError:
        ratio = math.nan
    if not 0 < ratio < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return ratio


def _run(text):
    try:
        run = json.loads(Path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} can't be read: {error}") from None
    if not (isinstance(run, dict) and run.get("format") == FORMAT):
        raise argparse.ArgumentTypeError(f"{text!r} was not written by --json of this version")
    return run


def _installed_peer(text):
    if text not in PEERS:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(PEERS)}")
    if not PEERS[text].installed():
        raise argparse.ArgumentTypeError(f"{text} is not installed")
    return text


def _build(text):
    try:
        return Build(text)
    except (ImportError, zipfile.BadZipFile) as error:
        raise argparse.ArgumentTypeError(f"{text!r} can't be used: {error}") from None


def _writable_file(text):
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r} can't be written")
    return path


def _marked(text):
    path = _writable_file(text)
    if not (path.exists() and "<!-- begin: " in path.read_text(encoding="utf-8")):
        raise argparse.ArgumentTypeError(f"{text!r} has no tables' markers, such as docs/performance.md has")
    return path


def _parser():
    parser = argparse.ArgumentParser(prog="cpunorm", description="Normalisation layers for NumPy arrays on CPUs.")
    parser.add_argument("--version", action="version", version=f"cpunorm {cpunorm.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    bench = commands.add_parser(
        "bench",
        help="time cpunorm against other libraries on this machine",
        description="Time cpunorm against NumPy and whatever else is installed: real shapes of layers, images and "
        "tables, outputs checked against float64 first, then timed turn by turn. Exit code 1: a case failed, a mean is "
        "too small for --fail-under, or --compare found something slower; 130: interrupted.",
    )
    bench.add_argument(
        "--quick",
        action="store_true",
        help=f"fewer cases, {QUICK_SAMPLES} samples, one number of threads, against {' and '.join(QUICK_PEERS)}: "
        "under 30 seconds",
    )
    bench.add_argument(
        "--cases",
        metavar="PATTERN",
        default="",
        help='only cases with PATTERN in their name, such as "layernorm", "56x56/nhwc", "resnet*train", "sweep" or '
        '"accuracy"; a name is network/norm/shape/layout/mode/dtype',
    )
    bench.add_argument(
        "--random",
        metavar="N",
        type=_count,
        help="N cases of every seed that nobody tuned for, instead of networks' layers; against torch as called by "
        "default",
    )
    bench.add_argument("--seed", metavar="S", nargs="+", type=int, default=[0], help="of --random; default: 0")
    bench.add_argument(
        "--peers",
        metavar="PEER",
        nargs="+",
        type=_installed_peer,
        help=f"of {', '.join(PEERS)}; default: all installed",
    )
    bench.add_argument(
        "--engine", metavar="ENGINE", action="append", type=_engine, help="cpunorm's engine, may be given several times"
    )
    bench.add_argument(
        "--against",
        metavar="PATH",
        type=_build,
        help="time another build of cpunorm instead of other libraries: a wheel, or a folder that holds cpunorm/",
    )
    bench.add_argument(
        "--isa",
        metavar="LEVEL",
        type=_isa,
        help=f"of {', '.join(ISA_LEVELS)}: hold cpunorm and torch to that ISA level",
    )
    bench.add_argument(
        "--threads",
        metavar="N",
        nargs="+",
        type=_threads,
        help="threads for each library, one number or several; default: 1 and cpunorm's own",
    )
    bench.add_argument("--dtype", choices=tuple(runner.PROMISED), nargs="+", default=["float32"])
    bench.add_argument(
        "--samples",
        metavar="N",
        type=_samples,
        help=f"turns per comparison; default: {SAMPLES}, {RANDOM_SAMPLES} of --random",
    )
    bench.add_argument("--json", metavar="FILE", type=_writable_file, help="write all figures to FILE")
    bench.add_argument("--html", metavar="FILE", type=_writable_file, help="write a page with tables and plots to FILE")
    bench.add_argument(
        "--tables", metavar="FILE", type=_marked, help="write tables between the markers of FILE, a Markdown text"
    )
    bench.add_argument(
        "--fail-under",
        metavar="X",
        type=_ratio,
        help="exit code 1 if the geometric mean of the speed-ups over some library, as called, is under X",
    )
    bench.add_argument(
        "--from",
        dest="kept",
        metavar="JSON",
        type=_run,
        help="run nothing: --html, --tables or --fail-under of a run kept by --json",
    )
    bench.add_argument(
        "--compare", metavar="JSON", nargs=2, type=_run, help="run nothing: what changed from one kept run to another"
    )
    stats.add_parser(commands, _writable_file)
    return parser, bench


def main(arguments=None):
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments : list of str, optional
        Without the program's name; ``sys.argv``'s by default.
    """
    parser, bench = _parser()
    options = parser.parse_args(arguments)
    pages = ("matplotlib", "jinja2") if options.command == "bench" and options.html else ()
    for package in ("rich", *pages):
        if importlib.util.find_spec(package) is None:
            extra = f"cpunorm[{options.command}]"
            print(f'cpunorm {options.command} needs {package}: pip install "{extra}"', file=sys.stderr)
            return 1
    if options.command == "stats":
        return stats.run(options)
    if options.isa:
        _hold_to(options.isa)
    if options.compare:
        from .compare import compare

        return int(compare(*options.compare))
    if options.kept:
        if options.html is options.tables is options.fail_under is None:
            bench.error("argument --from: what for? --html, --tables or --fail-under")
        return _after(options.kept, options)
    if options.against and options.peers:
        bench.error("argument --against: not with --peers")
    if options.random:
        if options.quick or options.html or options.fail_under:
            bench.error("argument --random: not with --quick, --html or --fail-under")
        if not (options.against or options.peers or PEERS["torch"].installed()):
            bench.error("argument --random: torch is not installed; against whom? --peers or --against")
        return _run_random(options)
    layers = [layer for layer in registry.LAYERS if layer.quick or not options.quick]
    cases = [
        case
        for dtype in dict.fromkeys(options.dtype)
        for case in registry.expand(layers, dtype) + registry.statistics_cases(dtype, options.quick)
    ]
    if "float32" in options.dtype:
        cases += registry.image_cases(options.quick)
    cases = registry.matching(cases + ([] if options.quick else registry.accuracy_cases()), options.cases)
    if not cases:
        bench.error(f"argument --cases: no case has {options.cases!r} in its name")
    return run(cases, options)


def _hold_to(isa):
    """Start this process anew, unless it is at that level: libraries choose theirs when they are imported."""
    wanted = {"CPUNORM_ISA": isa, "ATEN_CPU_CAPABILITY": ISA_LEVELS[isa]}
    if not wanted.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **wanted})


def _peers(options, usual, threads):
    """Who is measured: another build, those asked for, or what is installed of the `usual`."""
    if options.against:
        return [OldCPUNorm(threads, options.against)]
    names = options.peers or [name for name in PEERS if name in usual and PEERS[name].installed()]
    return [PEERS[name](threads) for name in dict.fromkeys(names)]


def _run_random(options):
    """Measure what `drawn` draws; returns the exit code."""
    from . import drawn

    kept = drawn.run(
        options.random,
        dict.fromkeys(options.seed),
        options.cases,
        dict.fromkeys(options.dtype),
        dict.fromkeys(options.engine or [cpunorm.get_engine()]),
        {
            number: _peers(options, ("torch",), number)
            for number in dict.fromkeys(options.threads or [cpunorm.get_num_threads()])
        },
        options.samples or RANDOM_SAMPLES,
    )
    if options.json is not None:
        options.json.write_text(dumps(kept), encoding="utf-8")
    return (
        130 if kept["interrupted"] else int(bool(kept["failures"]) or not all(run["results"] for run in kept["runs"]))
    )


def run(cases, options):
    """Measure `cases` as the command line says; returns the exit code."""
    from . import accuracy, runner
    from .environment import environment
    from .report import Report

    every = cpunorm.get_num_threads()
    threads = list(dict.fromkeys(options.threads or ([every] if options.quick else [1, every])))
    samples = options.samples or (QUICK_SAMPLES if options.quick else SAMPLES)
    usual = QUICK_PEERS if options.quick else PEERS
    peers = {number: _peers(options, usual, number) for number in threads}
    used = {peer.name for some in peers.values() for peer in some if any(map(peer.has, cases))}
    peers = {number: [peer for peer in some if peer.name in used] for number, some in peers.items()}
    engines = dict.fromkeys(options.engine or [cpunorm.get_engine()])
    work = [
        (case, engine, number)
        for engine in engines
        for case in cases
        for number in (threads if case.offset is None else [max(threads)])
    ]
    where = environment(engines, peers[threads[0]], threads, samples)
    results, interrupted = [], False
    with Report(where, peers[threads[0]], work) as report:
        try:
            for case, engine, number in work:
                measure = runner.measure if case.offset is None else accuracy.measure
                told = partial(report.tick, case)
                results.append(measure(case, CPUNorm(number, engine), peers[number], samples, told))
                report.finished(results[-1])
        except KeyboardInterrupt:
            interrupted = True
    report.summary(results, interrupted)
    kept = record(where, results, interrupted)
    if options.json is not None:
        options.json.write_text(dumps(kept), encoding="utf-8")
    code = _after(kept, options)
    return 130 if interrupted else code or int(bool(kept["failures"]))


def _after(run, options):
    """What else is asked of a run, a new or a kept one; returns the exit code."""
    if options.html is not None:
        from .page import page

        options.html.write_text(page(run), encoding="utf-8")
    if options.tables is not None:
        from .markdown import fill

        options.tables.write_text(fill(options.tables.read_text(encoding="utf-8"), run), encoding="utf-8")
    if options.fail_under is None:
        return 0
    from .figures import libraries, speedup, standing

    code, results = 0, [result for result in run["results"] if result["source"] != registry.SWEEP]
    for peer in libraries(results, ["as_called"]):
        mean = standing([speedup(result, "as_called", peer) for result in results]).mean
        if mean < options.fail_under:
            print(f"against {peer}: {mean:.3g}x in the geometric mean, under {options.fail_under:g}", file=sys.stderr)
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
