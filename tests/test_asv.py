"""The asv suite: all combinations run, what is wrong fails by name, what is absent is n/a, what was measured stays."""

import contextlib
import importlib
import itertools
import json
import math
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("asv")
pytest.importorskip("asv_runner")

from asv.config import Config
from asv_runner._aux import update_sys_path
from asv_runner.discovery import disc_benchmarks
from asv_runner.run import _run

import cpunorm

ROOT = Path(__file__).parents[1]
SUITE = ROOT / "benchmarks"
QUICK = {"number": 1, "repeat": 1, "warmup_time": 0, "rounds": 1}  # asv's own for --quick


def small_cases(cases):
    """`cases.expand`, but for arrays that are small whatever the case's name says."""

    @dataclass(frozen=True)
    class Small(cases.Case):
        of: cases.Case = None
        shape = property(lambda self: self.of.shape)
        bytes = property(lambda self: self.of.bytes)

    def small(case):
        first, channels, *spatial = case.layer.shape
        layer = replace(case.layer, shape=(min(first, 2), channels, *(min(length, 4) for length in spatial)))
        return Small(layer, case.channels_last, case.mode, case.dtype, of=case)

    return lambda layers, dtype, expand=cases.expand: [small(case) for case in expand(layers, dtype)]


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """The package, with small cases and blocks that are over at once; for Numba one "fresh" cache that stays."""
    update_sys_path(str(SUITE))
    package = importlib.import_module("benchmarks")
    package.cases.expand = small_cases(package.cases)
    package.cases.STATISTICS = tuple(
        (replace(layer, shape=(min(layer.shape[0], 400), *layer.shape[1:])), *rest)
        for layer, *rest in package.cases.STATISTICS
    )
    package.cases.TRAPS = tuple(((len(cycle) * 100, 2), dtype, cycle) for _, dtype, cycle in package.cases.TRAPS)
    package.runner.BLOCK_SECONDS = 1e-5
    cold_start = importlib.import_module("benchmarks.cold_start")
    cold_start.SAMPLES = 1
    cache = tmp_path_factory.mktemp("numba")
    cold_start.tempfile = SimpleNamespace(TemporaryDirectory=lambda: contextlib.nullcontext(cache))
    yield package
    for name in [name for name in sys.modules if name.split(".")[0] in ("benchmarks", "cpunorm_bench")]:
        del sys.modules[name]


@pytest.fixture
def benchmarks(suite):
    """The benchmarks by name; a test's calls don't live on in the next."""
    yield {benchmark.name: benchmark for benchmark in disc_benchmarks(str(SUITE))}
    forget(suite)


def forget(suite):
    suite.prepared.cache_clear()
    suite.work.cache_clear()
    suite._contexts.close()


def combinations(benchmark):
    return list(itertools.product(*benchmark._params))


def result(benchmark, combination, folder):
    """What asv would read: None, or the samples or the value; NaN is n/a."""
    file = folder / "result.json"
    place = combinations(benchmark).index(combination)
    _run((str(SUITE), f"{benchmark.name}-{place}", json.dumps(QUICK), "None", str(file)))
    return json.loads(file.read_text())


def live(benchmark):
    """Its combinations but for those that asv shows as n/a without a try."""
    return [combination for combination in combinations(benchmark) if combination not in benchmark._skip_tuples]


# Every combination


@pytest.mark.usefixtures("numba_compiled")
@pytest.mark.parametrize(
    "module",
    [
        "accuracy",
        "batch_norm",
        pytest.param("cold_start", marks=pytest.mark.slow),
        "group_norm",
        pytest.param("images", marks=pytest.mark.slow),
        "instance_norm",
        "layer_norm",
        "memory",
        pytest.param("moments", marks=pytest.mark.slow),
        "rms_norm",
        "scaling",
    ],
)
def test_every_combination_runs(module, suite, benchmarks, tmp_path):
    of_module = [benchmark for name, benchmark in benchmarks.items() if name.startswith(f"{module}.")]
    assert of_module
    for benchmark in of_module:
        assert live(benchmark)
        for combination in live(benchmark):
            got = result(benchmark, combination, tmp_path)
            values = got["samples"] if isinstance(got, dict) else [got]
            absent = [name for name in ("numba", "torch") if importlib.util.find_spec(name) is None]
            overflow = combination == ("numpy", "moments", "1000")  # its float16 variance is infinite
            if overflow or any(re.search(rf"(\b|_){name}\b", f"{benchmark.name} {combination}") for name in absent):
                assert math.isnan(*values)
            elif benchmark.name != "cold_start.Installed.track_bytes":  # n/a unless the package is installed
                assert all(0 <= value < math.inf for value in values), (benchmark.name, combination, got)
            forget(suite)


def test_every_shape_that_is_followed_is_in_the_registry(suite, benchmarks):
    for benchmark in benchmarks.values():
        of_norm = benchmark.func.__self__
        if hasattr(of_norm, "float64_shapes"):
            shape = benchmark.param_names.index("shape")
            followed = {"float32": of_norm.shapes, "float64": of_norm.float64_shapes}
            for dtype, shapes in followed.items():
                assert {c[shape] for c in live(benchmark) if c[-1] == dtype} == set(shapes)


def test_no_two_cases_of_a_norm_have_the_same_parameters(suite, monkeypatch):
    norms = importlib.import_module("benchmarks.norms")
    layers = [layer for layer in suite.cases.LAYERS if layer.source != suite.cases.SWEEP]
    cases = {(layer.norm, norms._axes(case)) for layer in layers for case in suite.cases.expand([layer], "float32")}
    assert len(cases) == len(suite.cases.expand(layers, "float32"))


def test_benchmarks_keep_their_history_when_they_are_edited(benchmarks):
    assert all(re.fullmatch(r"\d+", benchmark.version) for benchmark in benchmarks.values())


def test_fifteen_processes_give_a_sample_of_a_ratio_each(suite, benchmarks, tmp_path):
    ratios = [benchmark for name, benchmark in benchmarks.items() if ".Ratio" in name]
    assert len(ratios) == 17
    assert all(benchmark.rounds >= 15 for benchmark in ratios)
    for benchmark in ratios:
        if suite.peers.Torch.installed() or "torch" not in benchmark.name:
            assert len(result(benchmark, live(benchmark)[0], tmp_path)["samples"]) == 1
            forget(suite)
    assert {benchmark.unit for benchmark in ratios} == {"ours/numpy", "ours/torch", "n threads/1 thread"}


def test_short_calls_are_not_timed_one_by_one(benchmarks):
    benchmark = benchmarks["layer_norm.TimeLayerNorm.time_as_called"]
    place = combinations(benchmark).index(("cython", "1x768", "float32"))
    benchmark.set_param_idx(place)
    assert benchmark.do_setup() is False
    benchmark.warmup_time, benchmark.repeat = 0, 1
    assert benchmark.do_run()["number"] > 100


@pytest.mark.slow
def test_the_suite_does_not_need_asv():
    """asv imports every module in an environment of its own, where there is only asv_runner."""
    code = f"""
import sys
sys.modules["asv"] = None
from asv_runner._aux import update_sys_path
from asv_runner.discovery import disc_benchmarks
update_sys_path({str(SUITE)!r})
print(len(list(disc_benchmarks({str(SUITE)!r}))))
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


# Ours against theirs, the right way up


def test_a_ratio_under_one_is_faster(suite):
    (sample,) = suite.ratio([(lambda: None, lambda: sum(range(1000)))] * 3)["samples"]
    assert 0 < sample < 1


def test_every_copy_of_an_input_lies_elsewhere(suite, monkeypatch):
    monkeypatch.setattr(suite, "COPIES", 4)

    class Addresses(suite.peers.Peer):
        def layer_norm(self, case, arrays):
            return suite.peers.Call(lambda: arrays.x)

    layer = suite.cases.Layer("net", "layer_norm", (512, 512))
    (case,) = suite.cases.expand([layer], "float32")
    addresses = {call().ctypes.data for (call,) in suite.copies(case, Addresses(1))}
    assert len(addresses) == 4


def test_growth_is_of_one_call(suite, benchmarks):
    benchmark = benchmarks["memory.LargeBatchNorm.track_peak_of_first_call"]
    readings = iter([1000, 1500, 2000, 2750])
    growth = benchmark.func.__self__.growth
    assert growth(lambda: next(readings), "numpy", "eval") == 500
    assert growth(lambda: next(readings), "numpy", "eval", first=False) == 750 / 5


# Wrong, absent, interrupted


@pytest.mark.parametrize(
    ("name", "combination"),
    [
        ("layer_norm.RatioLayerNorm.track_vs_numpy", ("1", "1x768", "float32")),
        ("layer_norm.TimeLayerNorm.time_as_called", ("cython", "1x768", "float32")),
    ],
)
def test_a_wrong_output_fails_by_name(name, combination, suite, benchmarks, tmp_path, monkeypatch):
    right = cpunorm.functional.layer_norm
    monkeypatch.setattr(cpunorm.functional, "layer_norm", lambda *a, **k: right(*a, **k) * 1.01)
    monkeypatch.setattr(suite.runner, "interleave", lambda *a: pytest.fail("timed"))
    with pytest.raises(suite.runner.WrongResult, match=r"^cpunorm: wrong result"):
        result(benchmarks[name], combination, tmp_path)


def test_a_wrong_output_of_a_large_call_fails(suite, benchmarks, tmp_path, monkeypatch):
    def wrong(x, *arguments, **named):
        return right(x, *arguments, **named) + (0.1 if x.shape[1] == 64 else 0)

    right = cpunorm.functional.batch_norm
    monkeypatch.setattr(cpunorm.functional, "batch_norm", wrong)
    with pytest.raises(suite.runner.WrongResult, match=r"^cpunorm: wrong result"):
        result(benchmarks["memory.LargeBatchNorm.track_peak_of_first_call"], ("cython", "eval"), tmp_path)


def test_errors_that_are_not_finite_fail(suite, benchmarks, tmp_path, monkeypatch):
    right = cpunorm.functional.layer_norm
    monkeypatch.setattr(cpunorm.functional, "layer_norm", lambda *a, **k: right(*a, **k) * math.nan)
    with pytest.raises(ArithmeticError, match="cython: nan in accuracy/LayerNorm"):
        result(benchmarks["accuracy.Accuracy.track_largest_error"], ("cython", "layer_norm", "100"), tmp_path)


def test_a_library_that_is_not_installed_is_not_available(suite, benchmarks, tmp_path, monkeypatch):
    monkeypatch.setattr(suite.peers.Torch, "installed", classmethod(lambda cls: False))
    for name, combination in (
        ("layer_norm.RatioLayerNorm.track_vs_torch", ("1", "1x768", "float32")),
        ("layer_norm.TimeLayerNorm.time_as_called", ("torch", "1x768", "float32")),
        ("accuracy.Accuracy.track_largest_error", ("torch", "layer_norm", "100")),
    ):
        assert math.isnan(result(benchmarks[name], combination, tmp_path))


def test_an_engine_that_a_commit_does_not_have_is_not_available(suite, benchmarks, tmp_path, monkeypatch):
    monkeypatch.setattr(cpunorm, "show_config", lambda mode: {"engines": ["cython", "reference"]})
    for name, combination in (
        ("layer_norm.TimeLayerNorm.time_as_called", ("numba", "1x768", "float32")),
        ("accuracy.Accuracy.track_largest_error", ("numba", "layer_norm", "100")),
        ("cold_start.FirstCall.track_seconds", ("numba, nothing compiled yet",)),
    ):
        assert math.isnan(result(benchmarks[name], combination, tmp_path))


def test_a_function_that_a_commit_does_not_have_is_not_available(suite, benchmarks, tmp_path, monkeypatch):
    monkeypatch.delattr(cpunorm, "moments")
    for name, combination in (
        ("moments.TimeMoments.time_as_called", ("cython", "moments 400x64 axis 0")),
        ("moments.RatioMoments.track_vs_numpy", ("1", "moments 400x64 axis 0")),
        ("accuracy.Accuracy.track_largest_error", ("cython", "moments", "1")),
    ):
        assert math.isnan(result(benchmarks[name], combination, tmp_path))


# asv itself


@pytest.fixture
def asv(tmp_path):
    """Runs asv on what is installed here, with results in a folder of the test's."""
    if not (ROOT / ".git").exists():
        pytest.skip("asv needs a git repository")
    settings = json.loads((ROOT / "asv.conf.json").read_text())
    settings |= {"repo": str(ROOT), "benchmark_dir": str(SUITE), "results_dir": "results", "plugins": []}
    settings["branches"] = ["HEAD"]  # a clone may have no main
    (tmp_path / "asv.conf.json").write_text(json.dumps(settings))
    package = Path(cpunorm.__file__).parents[1]  # what is tested here, wherever it is imported from
    environment = {**os.environ, "HOME": str(tmp_path), "ASV_PYTHONPATH": str(package)}
    machine = {"machine": "here", "arch": "", "cpu": "", "num_cpu": "", "os": "", "ram": ""}
    (tmp_path / ".asv-machine.json").write_text(json.dumps({"here": machine, "version": 1}))

    def start(*arguments):
        # Interrupts may be ignored here, as in what a script runs in the background; a child would ignore them, too.
        code = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        code += "runpy.run_module('asv', run_name='__main__')"
        command = [sys.executable, "-c", code, *arguments, "-E", f"existing:{sys.executable}"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=tmp_path, env=environment, process_group=0, **pipes)

    return start


@pytest.mark.slow
def test_asv_finds_nothing_wrong(asv):
    with asv("check") as process:
        shown = process.communicate()[0]
    assert process.returncode == 0, shown
    assert "No problems found" in shown


@pytest.mark.slow
def test_an_interrupted_run_leaves_earlier_results_whole(asv, tmp_path):
    run = ("run", "--machine", "here", "--quick", "--set-commit-hash", "HEAD", "--bench")
    with asv(*run, "accuracy.*numpy.*'layer_norm', '100'") as process:
        shown = process.communicate()[0]
    (file,) = (tmp_path / "results" / "here").glob("*-existing*.json")
    before = file.read_bytes()
    assert "accuracy.Accuracy.track_largest_error" in json.loads(before)["results"], shown
    with asv(*run, "accuracy.*numpy.*'layer_norm', '100'|Ratio") as process:  # of the latter more than can end before
        next(line for line in process.stdout if "track_largest_error" in line)  # done, and the next one begun
        while process.poll() is None:  # as people do: asv may miss the first
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=1)
    assert process.returncode != 0
    assert file.read_bytes() == before


def test_every_setting_is_one_that_asv_knows():
    settings = json.loads((ROOT / "asv.conf.json").read_text())
    known = {*vars(Config()), "build_cache_size", "version"}
    assert settings.keys() <= known  # asv ignores a misspelt one in silence


def test_every_ratio_and_time_has_a_threshold(benchmarks):
    thresholds = json.loads((ROOT / "asv.conf.json").read_text())["regressions_thresholds"]
    without = [name for name in benchmarks if not any(re.match(pattern, name) for pattern in thresholds)]
    assert without == []
