"""The command line: `cpunorm bench`, which `python -m cpunorm.bench` is too."""

import argparse
import importlib.util
import os
import sys
from pathlib import Path

import cpunorm

from . import cases as registry
from .peers import PEERS, CPUNorm

SAMPLES = 15
QUICK_SAMPLES = 7


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


def _installed_peer(text):
    if text not in PEERS:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(PEERS)}")
    if not PEERS[text].installed():
        raise argparse.ArgumentTypeError(f"{text} is not installed")
    return text


def _writable_file(text):
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r} can't be written")
    return path


def _parser():
    parser = argparse.ArgumentParser(prog="cpunorm", description="Normalisation layers for NumPy arrays on CPUs.")
    parser.add_argument("--version", action="version", version=f"cpunorm {cpunorm.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    bench = commands.add_parser(
        "bench",
        help="time cpunorm against other libraries on this machine",
        description="Time cpunorm against NumPy and, where it is installed, torch: real layer shapes, outputs checked "
        "against float64 first, then timed turn by turn. Exit code 1: a case failed; 130: interrupted.",
    )
    bench.add_argument("--quick", action="store_true", help=f"fewer cases, {QUICK_SAMPLES} samples: under 30 seconds")
    bench.add_argument(
        "--cases",
        metavar="PATTERN",
        default="",
        help='only cases with PATTERN in their name, such as "layernorm", "56x56/nhwc" or "resnet*train"; '
        "a name is network/norm/shape/layout/mode/dtype",
    )
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
    bench.add_argument("--threads", metavar="N", type=_threads, help="threads for each library; default: cpunorm's own")
    bench.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    bench.add_argument("--samples", metavar="N", type=_samples, help=f"turns per comparison; default: {SAMPLES}")
    bench.add_argument("--json", metavar="FILE", type=_writable_file, help="write all figures to FILE")
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
    cases = registry.expand([layer for layer in registry.LAYERS if layer.quick or not options.quick], options.dtype)
    cases = registry.matching(cases, options.cases)
    if not cases:
        bench.error(f"argument --cases: no case has {options.cases!r} in its name")
    if importlib.util.find_spec("rich") is None:
        print('cpunorm bench needs rich: pip install "cpunorm[bench]"', file=sys.stderr)
        return 1
    return run(cases, options)


def run(cases, options):
    """Measure `cases` as the command line says; returns the exit code."""
    from .environment import environment
    from .report import Report, as_json
    from .runner import measure

    threads = options.threads or cpunorm.get_num_threads()
    samples = options.samples or (QUICK_SAMPLES if options.quick else SAMPLES)
    names = dict.fromkeys(options.peers or [name for name, peer in PEERS.items() if peer.installed()])
    peers = [PEERS[name](threads) for name in names]
    engines = dict.fromkeys(options.engine or [cpunorm.get_engine()])
    work = [(case, engine) for engine in engines for case in cases]
    where = environment(engines, peers, threads, samples)
    results, failures, interrupted = [], [], False
    with Report(where, peers, work) as report:
        try:
            for case, engine in work:
                try:
                    ours = CPUNorm(threads, engine)
                    result = measure(case, ours, peers, samples, lambda doing, case=case: report.tick(case, doing))
                except Exception as error:
                    message = f"{type(error).__name__}: {error}"
                    failures.append({"case": case.name, "engine": engine, "message": message})
                    report.failed(case, engine, message)
                else:
                    results.append(result)
                    report.finished(result)
        except KeyboardInterrupt:
            interrupted = True
    report.summary(results, failures, interrupted)
    if options.json is not None:
        options.json.write_text(as_json(where, results, failures, interrupted), encoding="utf-8")
    return 130 if interrupted else int(bool(failures))


if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
