"""`cpunorm bench`: what it runs, that it checks before it times, its statistics, and what it shows."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import fresh
import numpy as np
import oracle
import pytest

pytest.importorskip("rich")

import cpunorm
from cpunorm.bench import cases, peers, report, runner
from cpunorm.bench.__main__ import main
from cpunorm.bench.cases import Case, Layer
from cpunorm.bench.runner import Result, Turn

ROOT = Path(__file__).parents[1]
TINY = (
    Layer("net", "batch_norm", (2, 3, 4, 5), quick=True),
    Layer("net", "layer_norm", (6, 8), quick=True),
    Layer("net", "group_norm", (2, 4, 3, 3), groups=2, quick=True),
)
TINY_NAMES = [
    *(f"net/BatchNorm2d/2x3x4x5/{layout}/{mode}/float32" for layout in ("NCHW", "NHWC") for mode in ("eval", "train")),
    "net/LayerNorm/6x8/float32",
    *(f"net/GroupNorm-2/2x4x3x3/{layout}/float32" for layout in ("NCHW", "NHWC")),
]


@pytest.fixture
def tiny(monkeypatch):
    """The command line sees three tiny layers, NumPy, and blocks that are over at once."""
    monkeypatch.setattr(cases, "LAYERS", TINY)
    monkeypatch.setattr(peers, "PEERS", {"numpy": peers.NumPy})
    monkeypatch.setattr("cpunorm.bench.__main__.PEERS", peers.PEERS)
    monkeypatch.setattr(runner, "BLOCK_SECONDS", 1e-5)


def bench(*arguments):
    return main(["bench", "--samples", "7", *arguments])


# What is run


def test_a_layer_in_one_line_gives_a_case_for_each_layout_and_mode():
    assert [case.name for case in cases.expand(TINY, "float32")] == TINY_NAMES


def test_every_layer_has_its_own_names():
    names = [case.name for case in cases.expand(cases.LAYERS, "float64")]
    assert len(set(names)) == len(names)


def test_quick_runs_every_norm_and_the_cases_that_the_project_promises():
    quick = cases.expand([layer for layer in cases.LAYERS if layer.quick], "float32")
    modules = {case.module for case in quick}
    assert modules == {"BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "LayerNorm", "GroupNorm-32"}
    names = {case.name for case in quick}
    assert {"ResNet-50/BatchNorm2d/32x64x56x56/NCHW/train/float32", "BERT-base/LayerNorm/1x768/float32"} <= names


@pytest.mark.parametrize(
    ("pattern", "count"), [("", 7), ("layernorm", 1), ("nhwc/train", 1), ("batch*eval", 2), ("2x4x?x3", 2), ("none", 0)]
)
def test_pattern_is_looked_for_anywhere_in_the_name(pattern, count):
    assert len(cases.matching(cases.expand(TINY, "float32"), pattern)) == count


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", cases.expand(TINY, "float32"), ids=TINY_NAMES)
def test_expected_values_are_the_oracles(case, dtype):
    case = replace(case, dtype=dtype)
    a = case.arrays()
    y, mean, var = case.expected(a)
    x = np.moveaxis(a.x, -1, 1) if case.channels_last else a.x
    running = (a.running_mean, a.running_var)
    affine = a.weight, a.bias
    if case.norm == "layer_norm":
        expected = oracle.layer_norm(x, x.shape[-1:], *affine, cases.EPS)
    elif case.norm == "group_norm":
        expected = oracle.group_norm(x, case.layer.groups, *affine, cases.EPS)
    else:
        expected = oracle.batch_norm(x, *affine, cases.EPS, running if case.mode == "eval" else None)
    expected = np.moveaxis(expected, 1, -1) if case.channels_last else expected
    # both in float64, by other ways: a few roundings of values up to 8
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-14)
    if case.mode == "train":
        axes = (0, *range(2, x.ndim))
        exact = x.astype(np.float64)
        batch = exact.mean(axes), exact.var(axes, ddof=1)
        running = [0.9 * old.astype(np.float64) + 0.1 * new for old, new in zip(running, batch, strict=True)]
    np.testing.assert_allclose((mean, var), running, rtol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", cases.expand(TINY, "float32"), ids=TINY_NAMES)
def test_cpunorm_and_numpy_do_the_same_work(case, dtype, engine):
    case = replace(case, dtype=dtype)
    a = case.arrays()
    for peer, allowed in ((peers.CPUNorm(1, engine[0]), runner.PROMISED), (peers.NumPy(1), runner.SAME_WORK)):
        call, error = runner.checked(peer, case, a, case.expected(a), allowed)
        assert error <= 1.5 * allowed[dtype]
        assert (call.into is not None) == peer.takes_out


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", cases.expand(TINY, "float32"), ids=TINY_NAMES)
def test_torch_does_the_same_work_on_the_same_memory(case, dtype):
    torch = pytest.importorskip("torch")
    case = replace(case, dtype=dtype)
    a = case.arrays()
    peer, before = peers.Torch(1), torch.get_num_threads()
    with peer.context():
        call, _ = runner.checked(peer, case, a, case.expected(a), runner.SAME_WORK)
        assert torch.is_inference(call.fresh())
        assert torch.get_num_threads() == 1
        if case.channels_last:
            assert call.fresh().is_contiguous(memory_format=torch.channels_last)
    assert torch.get_num_threads() == before
    assert not torch.is_inference_mode_enabled()


# Checked before it is timed


class Wrong(peers.NumPy):
    """NumPy, but for a layer norm that is off by a percent."""

    name = "wrong"

    def layer_norm(self, case, a):
        call = super().layer_norm(case, a)
        return peers.Call(lambda: call.fresh() * a.x.dtype.type(1.01))


def test_a_peers_wrong_result_fails_that_case_by_name_and_no_other(tiny, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(peers.PEERS, "wrong", Wrong)
    assert bench("--json", str(tmp_path / "run.json")) == 1
    shown = capsys.readouterr().out
    failed = [line for line in shown.splitlines() if line.startswith("FAILED")]
    assert len(failed) == 2  # where it happened, and at the end
    assert set(failed) == {failed[0]}
    assert failed[0].startswith(f"FAILED net/LayerNorm/6x8/float32 ({cpunorm.get_engine()}): WrongResult: wrong: ")
    run = json.loads((tmp_path / "run.json").read_text())
    assert [result["case"] for result in run["results"]] == [name for name in TINY_NAMES if "LayerNorm" not in name]
    assert [failure["case"] for failure in run["failures"]] == ["net/LayerNorm/6x8/float32"]


def test_nothing_of_a_wrong_case_is_timed(tiny, monkeypatch):
    monkeypatch.setattr(runner, "interleave", lambda *arguments: pytest.fail("timed"))
    (case,) = cases.matching(cases.expand(TINY, "float32"), "layernorm")
    with pytest.raises(runner.WrongResult, match=r"^wrong: wrong result: largest \|error\| against float64 is 0\.0"):
        runner.measure(case, peers.CPUNorm(1, cpunorm.get_engine()), [Wrong(1)], 7)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda y: y + np.float32(1e-5), "largest |error| against float64 is 1e-05"),
        (lambda y: np.where(y == y.max(), np.float32(np.nan), y), "largest |error| against float64 is nan"),
        (lambda y: y.astype(np.float64), "float64 (6, 8) instead of float32 (6, 8)"),
        (lambda y: y[:1], "float32 (1, 8) instead of"),
    ],
    ids=["1e-5 off", "nan", "dtype", "shape"],
)
def test_our_own_wrong_result_fails(tiny, monkeypatch, capsys, spoil, message):
    right = cpunorm.functional.layer_norm
    monkeypatch.setattr(cpunorm.functional, "layer_norm", lambda *a, **k: spoil(right(*a, **k)))
    assert bench("--cases", "layernorm") == 1
    assert f"WrongResult: cpunorm: wrong result: {message}" in capsys.readouterr().out


def test_a_given_output_is_checked_too(tiny, monkeypatch, capsys):
    right = cpunorm.functional.layer_norm

    def wrong_into(*arguments, out=None):
        y = right(*arguments, out=out)
        if out is not None:
            out += 1
        return y

    monkeypatch.setattr(cpunorm.functional, "layer_norm", wrong_into)
    assert bench("--cases", "layernorm") == 1
    assert "cpunorm into a given output: wrong result" in capsys.readouterr().out


def test_running_statistics_are_checked_too(tiny, monkeypatch, capsys):
    right = cpunorm.functional.batch_norm

    def forgetful(x, running_mean, running_var, *arguments, **keywords):
        return right(x, running_mean, running_var.copy(), *arguments, **keywords)

    monkeypatch.setattr(cpunorm.functional, "batch_norm", forgetful)
    assert bench("--cases", "batchnorm") == 1
    shown = capsys.readouterr().out
    assert shown.count("cpunorm: running_var: wrong result") == 2 * 2
    assert "NCHW/train" in shown
    assert not re.search("FAILED.*eval", shown)


def test_a_peer_that_raises_fails_that_case_by_name(tiny, monkeypatch, capsys):
    class Raising(peers.NumPy):
        def layer_norm(self, case, a):
            raise RuntimeError("numpy can't")

    monkeypatch.setitem(peers.PEERS, "numpy", Raising)
    assert bench("--cases", "norm*6x8") == 1
    assert "FAILED net/LayerNorm/6x8/float32" in (shown := capsys.readouterr().out)
    assert "RuntimeError: numpy can't" in shown


def test_a_norm_that_a_peer_lacks_is_not_available(tiny, monkeypatch, capsys):
    class Lacking(peers.NumPy):
        name = "lacking"
        layer_norm = None

        def group_norm(self, case, a):
            return None

    monkeypatch.setitem(peers.PEERS, "lacking", Lacking)
    assert bench() == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("net ")]
    assert [line.count("n/a") for line in lines] == [0, 0, 0, 0, 2, 2, 2]


# How it is timed


def test_turns_are_ours_theirs_theirs_ours_in_blocks_of_at_least_2_ms(monkeypatch):
    now, order = 0.0, []

    def work(name, seconds):
        def call():
            nonlocal now
            now += seconds
            order.append(name)

        return call

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    ticks = []
    turns = runner.interleave(work("o", 0.0005), work("t", 0.0035), 15, lambda: (ticks.append(now), order.clear()))
    assert len(turns) == len(ticks) == 15
    for turn in turns:
        np.testing.assert_allclose(turn.ours + turn.theirs, [0.0005, 0.0005, 0.0035, 0.0035])
        assert turn.speedup == pytest.approx(7)

    order.clear()
    runner.interleave(work("o", 0.0005), work("t", 0.0035), 1, lambda: None)
    blocks = re.fullmatch(r"o*t*(o+)(t+)(o+)", "".join(order))  # the calls that chose the numbers come first
    assert blocks
    ours, theirs = len(blocks[3]), len(blocks[2]) // 2
    assert ours * 0.0005 >= 0.002
    assert theirs * 0.0035 >= 0.002


def test_garbage_collection_is_off_while_timing_and_on_again_after():
    import gc

    seen = []
    runner.interleave(lambda: time.sleep(0.001), lambda: time.sleep(0.001), 1, lambda: seen.append(gc.isenabled()))
    assert seen == [False]
    assert gc.isenabled()


def test_quartiles_and_spread():
    summary = runner.summarize([5, 1, 4, 2, 3])
    assert summary == (2, 3, 4)
    assert summary.spread == pytest.approx(1 / 3)


def test_a_turns_speedup_is_the_ratio_of_the_sums_not_the_mean_of_ratios():
    assert Turn(ours=(1.0, 3.0), theirs=(2.0, 10.0)).speedup == 3.0  # 2/1 and 10/3 would give 2.67


def result_of(turns, into, shape=(1000, 250)):
    case = Case(Layer("net", "layer_norm", shape), False, None, "float32")
    return Result(case, "cython", {"cpunorm": 4e-7, "torch": 1.2e-6}, {"torch": turns}, {"copy": into})


def test_a_results_figures():
    turns = [Turn((1e-3, 1e-3), (theirs, theirs)) for theirs in (1e-3, 2e-3, 3e-3)]
    result = result_of(turns, [Turn((2e-3, 2e-3), (1e-3, 1e-3))])
    assert result.speedup("fresh", "torch") == pytest.approx((1.5, 2, 2.5))
    assert result.speedup("fresh", "numpy") is None
    assert result.seconds("fresh").median == 1e-3
    assert result.seconds("into").median == 2e-3
    assert result.bandwidth == pytest.approx(2 * 1_000_000 / 1e-3)  # a million bytes in, a million out
    cells = [(column.header, column.cell(result).plain) for column in report.columns([peers.Torch])]
    assert cells == [
        ("shape", "1000x250"),
        ("layout", ""),
        ("time", "1.00ms ±0%"),
        ("vs torch", "2.00x ±25%"),
        ("GB/s", "2.00"),
        ("time", "2.00ms ±0%"),
        ("vs torch", "n/a"),
        ("copy", "50%"),
        ("ours", "4.0e-7"),
        ("torch", "1.2e-6"),
    ]


def test_losses_are_marked_without_colours_and_ties_are_none():
    assert report.speedup(runner.Summary(0.5, 0.5, 0.6)).plain == "▼0.50x ±10%"
    assert report.speedup(runner.Summary(0.998, 0.998, 0.998)).plain == "1.00x ±0%"
    assert report.speedup(runner.Summary(12, 12.34, 13)).plain == "12.3x ±4%"
    assert report.speedup(None).plain == "n/a"


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.14159, "3.14s"), (0.25, "250ms"), (1.5e-5, "15.0µs"), (9.99e-7, "999ns"), (4e-9, "4.00ns")]
)
def test_durations(seconds, text):
    assert report.timing(runner.Summary(seconds, seconds, seconds)).plain == f"{text} ±0%"


@pytest.mark.parametrize(("width", "kept"), [(120, 11), (80, 7), (20, 3)])
def test_columns_that_do_not_fit_are_left_out(width, kept):
    every = report.columns([peers.NumPy, peers.Torch])
    some = report.fitting(every, width)
    assert len(some) == kept
    assert [column for column in every if column in some] == some
    if kept > 3:
        assert sum(column.width for column in some) + len(report.GAP) * (kept - 1) <= width


# The command line


def test_a_run_from_end_to_end(tiny, capsys, tmp_path):
    file = tmp_path / "run.json"
    assert main(["bench", "--quick", "--threads", "1", "--engine", "reference", "--json", str(file)]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.isascii()  # whatever the encoding of a pipe
    assert "\x1b" not in shown.out
    assert "\r" not in shown.out
    rows = [line.split() for line in shown.out.splitlines() if line.startswith("net ")]
    assert [row[1] for row in rows] == ["BatchNorm2d"] * 4 + ["LayerNorm"] + ["GroupNorm-2"] * 2
    assert rows[0][:7] == ["net", "BatchNorm2d", "float32", "reference", "2x3x4x5", "NCHW", "eval"]
    assert "against numpy: " in shown.out

    run = json.loads(file.read_text())
    assert not run["interrupted"]
    assert run["failures"] == []
    where = run["environment"]
    assert (where["threads"], where["samples"], where["isa"]) == (1, 7, {"reference": None})
    assert where["versions"].keys() == {"python", "cpunorm", "numpy"}
    assert where["cpu"]
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$", where["date"])
    assert [result["case"] for result in run["results"]] == TINY_NAMES
    for result in run["results"]:
        assert result["engine"] == "reference"
        assert result["max_error"]["cpunorm"] <= 3e-6
        assert result["max_error"]["numpy"] <= 1e-3
        turns = result["as_called"]["against"]["numpy"]["turns"]
        assert len(turns) == 7
        ratios = [sum(turn["theirs"]) / sum(turn["ours"]) for turn in turns]
        q1, median, q3 = np.quantile(ratios, (0.25, 0.5, 0.75))
        assert result["as_called"]["against"]["numpy"]["speedup"] == pytest.approx(
            {"q1": q1, "median": median, "q3": q3}
        )
        assert result["as_called"]["seconds"]["median"] == pytest.approx(np.median([sum(t["ours"]) / 2 for t in turns]))
        assert list(result["out"]["against"]) == ["copy"]


def test_every_engine_asked_for_is_run_with_the_threads_asked_for(tiny, monkeypatch, capsys):
    right, seen = cpunorm.functional.layer_norm, {}

    def spy(*arguments, **keywords):
        seen[cpunorm.get_engine(), cpunorm.get_num_threads()] = None
        return right(*arguments, **keywords)

    monkeypatch.setattr(cpunorm.functional, "layer_norm", spy)
    engines = dict.fromkeys(("reference", cpunorm.get_engine()))
    assert bench("--cases", "layernorm", "--threads", "3", *(f"--engine={engine}" for engine in engines)) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("net ")]
    assert [row[3] for row in rows] == list(engines)
    assert list(seen) == [(engine, 3) for engine in engines]


def test_threads_and_engine_are_those_from_before_after_a_run(tiny):
    before = cpunorm.get_engine(), cpunorm.get_num_threads()
    assert bench("--cases", "layernorm", "--engine", "reference", "--threads", "3") == 0
    assert (cpunorm.get_engine(), cpunorm.get_num_threads()) == before


def test_against_torch(tiny, monkeypatch, capsys):
    pytest.importorskip("torch")
    monkeypatch.setitem(peers.PEERS, "torch", peers.Torch)
    assert bench("--cases", "nhwc", "--threads", "1", "--peers", "torch") == 0
    shown = capsys.readouterr().out
    assert "against torch: " in shown
    assert "against torch, out=: " in shown
    assert "against numpy" not in shown
    rows = [line for line in shown.splitlines() if line.startswith("net ")]
    assert [row.count("n/a") for row in rows] == [0, 0, 1]  # GroupNorm has no out= in torch


@pytest.mark.parametrize(
    "arguments",
    [
        ["--threads", "0"],
        ["--threads", "1000000000"],
        ["--threads", "two"],
        ["--engine", "fortran"],
        ["--peers", "jax99"],
        ["--dtype", "float16"],
        ["--samples", "6"],
        ["--samples", "1.5"],
        ["--cases", "nothing-like-it"],
        ["--json", "no/such/folder/run.json"],
        ["--json", "."],
        ["--fast"],
    ],
    ids=" ".join,
)
def test_a_bad_option_is_named_and_ends_with_2(tiny, capsys, arguments):
    with pytest.raises(SystemExit) as exit:
        bench(*arguments)
    assert exit.value.code == 2
    assert arguments[-1] in capsys.readouterr().err.splitlines()[-1]


def test_a_peer_that_is_not_installed_is_not_run_unless_asked_for(tiny, monkeypatch, capsys):
    class Absent(peers.NumPy):
        name, package = "absent", "cpunorm_absent_package"

    monkeypatch.setitem(peers.PEERS, "absent", Absent)
    assert bench("--cases", "layernorm") == 0
    assert "absent" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        bench("--peers", "absent")
    assert "absent is not installed" in capsys.readouterr().err


def test_without_rich_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich", None)
    assert bench() == 1
    assert 'pip install "cpunorm[bench]"' in capsys.readouterr().err


def test_an_interrupt_keeps_what_is_done(tiny, monkeypatch, capsys, tmp_path):
    measure, done = runner.measure, []

    def interrupted(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(measure(*arguments))
        return done[-1]

    monkeypatch.setattr(runner, "measure", interrupted)
    assert bench("--json", str(tmp_path / "run.json")) == 130
    shown = capsys.readouterr().out
    assert len([line for line in shown.splitlines() if line.startswith("net ")]) == 2
    assert "geometric mean of 2 cases" in shown
    assert "Interrupted" in shown
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["interrupted"]
    assert [result["case"] for result in run["results"]] == TINY_NAMES[:2]


def test_on_a_terminal_there_is_a_bar_and_the_table_fits():
    pty = pytest.importorskip("pty")
    parent, child = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
    environment["PYTHONPATH"] = str(fresh.PACKAGE.parent)
    command = [sys.executable, "-P", "-m", "cpunorm.bench", "--quick", "--peers", "numpy", "--cases", "1x768"]
    with subprocess.Popen(command, stdout=child, stderr=child, env=environment) as process:
        os.close(child)
        shown = b""
        while True:
            try:
                if not (some := os.read(parent, 4096)):
                    break
            except OSError:  # Linux: the other side is closed
                break
            shown += some
    os.close(parent)
    assert process.returncode == 0
    text = shown.decode()
    assert "━" in text  # the bar
    assert "LayerNorm 1x768 vs numpy" in text  # what is being run
    lines = re.sub(r"\x1b\[[\d;?]*[A-Za-z]|.*\r(?!\n)", "", text).splitlines()
    assert any(re.match(r"1x768 +[\d.]+(ns|µs) ±", line) for line in lines)
    assert all(len(line) <= 80 for line in lines)


def test_the_command_line_loads_no_more_than_it_needs():
    assert fresh.output("import cpunorm, sys; print([m for m in sys.modules if 'bench' in m])") == "[]"
    code = "import sys; from cpunorm.bench.__main__ import main\ntry: main(['bench', '--help'])\nfinally: print({})"
    loaded = fresh.output(code.format("sys.modules.keys() & {'rich', 'torch'}")).splitlines()[-1]
    assert loaded == "set()"


# asv


def test_asv_finds_the_benchmarks_and_each_runs_in_every_implementation():
    pytest.importorskip("asv_runner")
    code = f"""
import math
from asv_runner._aux import update_sys_path
from asv_runner.discovery import disc_benchmarks
root = {str(ROOT / "benchmarks")!r}
update_sys_path(root)
for benchmark in disc_benchmarks(root):
    implementations, cases = benchmark.func.__self__.params
    smallest = min(cases, key=lambda name: math.prod(map(int, name.split("/")[2].split("x"))))
    for implementation in implementations:
        if (implementation, smallest) not in benchmark.func.skip_params:
            benchmark.func(implementation, smallest)
            print(benchmark.name, implementation)
"""
    ran = fresh.output(code).splitlines()
    assert {line.split()[0] for line in ran} == {
        "batch_norm.TimeBatchNorm.time_as_called",
        "group_norm.TimeGroupNorm.time_as_called",
        "layer_norm.TimeLayerNorm.time_as_called",
    }


def test_asv_check():
    pytest.importorskip("asv")
    if not (ROOT / ".git").exists():
        pytest.skip("asv needs a git repository")
    command = [sys.executable, "-m", "asv", "check", "-E", f"existing:{sys.executable}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No problems found" in done.stdout
