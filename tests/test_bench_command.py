"""`cpunorm bench` as a command: its options, and what it shows and writes."""

import importlib.util
import json
import math
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import fresh
import numpy as np
import pytest
import tiny
from tiny import bench

pytest.importorskip("rich")

import cpunorm
from cpunorm.bench import cases, peers, runner
from cpunorm.bench.__main__ import main


@pytest.fixture(autouse=True)
def small(monkeypatch):
    tiny.shrink(monkeypatch)


def test_a_run_from_end_to_end(capsys, tmp_path):
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
    assert re.search(r"^vs numpy +[\d.!]+x \([\d.!]+x\) +- +- +[\d.!]+x$", shown.out, re.MULTILINE)
    assert re.search(r"^out= share of copy +\d+%", shown.out, re.MULTILINE)

    run = json.loads(file.read_text())
    assert run["format"] == 3
    assert run["accuracy"] == []
    assert not run["interrupted"]
    assert run["failures"] == []
    where = run["environment"]
    assert (where["threads"], where["samples"], where["isa"]) == ([1], 7, {"reference": None})
    assert where["versions"].keys() == {"python", "cpunorm", "numpy"}
    assert where["cpu"]
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$", where["date"])
    assert [result["case"] for result in run["results"]] == tiny.NAMES
    for result in run["results"]:
        assert (result["engine"], result["threads"], result["region"]) == ("reference", 1, "call-bound")
        assert result["bytes"] == 2 * 4 * math.prod(result["shape"])
        assert result["max_error"]["cpunorm"] <= 3e-6
        assert result["max_error"]["numpy"] <= 1e-3
        for memory, peer in (("as_called", "numpy"), ("out", "copy")):
            assert list(result[memory]["against"]) == [peer]
            for quartiles in (result[memory]["seconds"], result[memory]["against"][peer]):
                assert len(quartiles) == 3
                assert 0 < quartiles[0] <= quartiles[1] <= quartiles[2]


def test_accuracy_is_part_of_a_full_run(monkeypatch, capsys, tmp_path):
    threads = set()

    class Infinite(peers.NumPy):
        name = "infinite"

        def layer_norm(self, case, a):
            threads.add(self.threads)
            return peers.Call(lambda: np.full_like(a.x, np.inf) if case.offset else a.x)

        group_norm = None

    layer = cases.Layer("accuracy", "layer_norm", (2, 16))
    some = [cases.Case(layer, False, None, "float32", offset) for offset in (0.0, 1e4)]
    monkeypatch.setattr(cases, "accuracy_cases", lambda: some)
    monkeypatch.setitem(peers.PEERS, "infinite", Infinite)
    assert bench("--cases", "accuracy", "--threads", "1", "2", "--json", str(tmp_path / "run.json")) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("LayerNorm ")]
    assert [row[1] for row in rows] == ["0", "10000"]
    assert [row[4] for row in rows] == [rows[0][4], "inf"]
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["results"] == run["failures"] == []
    assert [(row["norm"], row["layout"], row["offset"]) for row in run["accuracy"]] == [
        ("layer_norm", None, 0),
        ("layer_norm", None, 1e4),
    ]
    for row in run["accuracy"]:
        assert row["errors"].keys() == {"cpunorm", "numpy", "infinite"}
        assert row["errors"]["cpunorm"] < 2e-6
    assert run["accuracy"][1]["errors"]["infinite"] is None
    assert threads == {2}  # jax has no fewer

    assert bench("--quick", "--cases", "layernorm", "--json", str(tmp_path / "run.json")) == 0
    assert json.loads((tmp_path / "run.json").read_text())["accuracy"] == []


def test_several_threads_and_dtypes_are_all_run(capsys, tmp_path):
    file = tmp_path / "run.json"
    options = ["--dtype", "float32", "float64", "--threads", "1", "2", "--json", str(file)]
    assert bench("--cases", "layernorm", *options) == 0
    shown = capsys.readouterr().out
    rows = [line.split() for line in shown.splitlines() if line.startswith("net ")]
    assert [(row[2], row[5]) for row in rows] == [
        ("float32", "1"),
        ("float32", "2"),
        ("float64", "1"),
        ("float64", "2"),
    ]
    for dtype, threads in (("float32", 1), ("float64", 2)):
        assert f"{cpunorm.get_engine()}, {dtype}, threads: {threads} " in shown
    run = json.loads(file.read_text())
    assert run["environment"]["threads"] == [1, 2]
    assert [(result["dtype"], result["threads"]) for result in run["results"]] == [
        (dtype, threads) for dtype in ("float32", "float64") for threads in (1, 2)
    ]


def test_one_and_all_threads_are_the_default_and_all_with_quick(capsys, tmp_path):
    with cpunorm.num_threads(3):
        for options, expected in (([], [1, 3]), (["--quick"], [3])):
            file = tmp_path / "run.json"
            assert main(["bench", "--samples", "7", "--cases", "layernorm", "--json", str(file), *options]) == 0
            assert json.loads(file.read_text())["environment"]["threads"] == expected


def test_a_sweep_is_in_no_mean(monkeypatch, capsys):
    monkeypatch.setattr(cases, "LAYERS", (*tiny.LAYERS[1:2], cases.Layer(cases.SWEEP, "layer_norm", (3, 5))))
    assert bench() == 0
    assert "(smallest), cases: 1\n" in capsys.readouterr().out
    assert bench("--cases", "sweep") == 0
    assert "(smallest), cases: 1\n" in capsys.readouterr().out


@pytest.fixture
def kept(tmp_path):
    """A run's JSON file and what is in it."""
    file = tmp_path / "kept.json"
    assert bench("--cases", "layernorm", "--json", str(file)) == 0
    return file, json.loads(file.read_text())


@pytest.mark.parametrize(("limit", "code"), [(1e-6, 0), (1e6, 1)])
def test_fail_under(kept, capsys, limit, code):
    assert bench("--cases", "layernorm", "--fail-under", str(limit)) == code
    assert bench("--from", str(kept[0]), "--fail-under", str(limit)) == code
    said = capsys.readouterr().err.splitlines()
    assert [re.sub(r"[\d.]+x", "#", line) for line in said] == 2 * code * [
        "against numpy: # in the geometric mean, under 1e+06"
    ]


def test_a_kept_run_is_read_for_something(kept, capsys):
    with pytest.raises(SystemExit):
        bench("--from", str(kept[0]))
    assert "argument --from: what for? --html, --tables or --fail-under" in capsys.readouterr().err


def test_a_page_is_written_of_a_run_and_of_a_kept_one(monkeypatch, kept, tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    drawn = []
    page = SimpleNamespace(page=lambda run: drawn.append(run) or "<html>µ")
    monkeypatch.setitem(sys.modules, "cpunorm.bench.page", page)
    file = tmp_path / "report.html"
    assert bench("--html", str(file), "--from", str(kept[0])) == 0
    assert file.read_text(encoding="utf-8") == "<html>µ"
    assert drawn == [kept[1]]
    assert bench("--html", str(file), "--json", str(tmp_path / "run.json")) == 0
    assert json.dumps(drawn[1]) == json.dumps(json.loads((tmp_path / "run.json").read_text()))


@pytest.mark.parametrize("slower", [False, True])
def test_compare_reads_both_and_runs_nothing(monkeypatch, kept, slower):
    compared = []
    compare = SimpleNamespace(compare=lambda *runs: compared.append(runs) or slower)
    monkeypatch.setitem(sys.modules, "cpunorm.bench.compare", compare)
    monkeypatch.setattr(runner, "measure", lambda *arguments: pytest.fail("measured"))
    assert bench("--compare", str(kept[0]), str(kept[0])) == slower
    assert compared == [(kept[1], kept[1])]


@pytest.mark.parametrize("option", ["--from", "--compare"])
@pytest.mark.parametrize("text", [None, "{", "[]", '{"format": 1}'])
def test_a_file_that_is_no_run_is_named(option, text, kept, tmp_path, capsys):
    file = tmp_path / "other.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SystemExit) as exit:
        bench(option, *([str(kept[0])] if option == "--compare" else []), str(file))
    assert exit.value.code == 2
    assert str(file) in capsys.readouterr().err.splitlines()[-1]


def test_every_engine_asked_for_is_run_with_the_threads_asked_for(monkeypatch, capsys):
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


def test_threads_and_engine_are_those_from_before_after_a_run():
    before = cpunorm.get_engine(), cpunorm.get_num_threads()
    assert bench("--cases", "layernorm", "--engine", "reference", "--threads", "3") == 0
    assert (cpunorm.get_engine(), cpunorm.get_num_threads()) == before


def test_against_torch(monkeypatch, capsys):
    pytest.importorskip("torch")
    monkeypatch.setitem(peers.PEERS, "torch", peers.Torch)
    assert bench("--cases", "nhwc", "--threads", "1", "--peers", "torch") == 0
    shown = capsys.readouterr().out
    assert re.search(r"^vs torch +[\d.!]+x", shown, re.MULTILINE)
    assert re.search(r"^out= vs torch +[\d.!]+x", shown, re.MULTILINE)
    assert "vs numpy" not in shown
    rows = [line for line in shown.splitlines() if line.startswith("net ")]
    assert [row.count("n/a") for row in rows] == [0, 0, 1]  # GroupNorm has no out= in torch


@pytest.mark.parametrize(
    "arguments",
    [
        ["--threads", "0"],
        ["--threads", "1000000000"],
        ["--threads", "two"],
        ["--threads", "1", "0"],
        ["--fail-under", "0"],
        ["--fail-under", "nan"],
        ["--html", "no/such/folder/page.html"],
        ["--from", "no-such-run.json"],
        ["--engine", "fortran"],
        ["--peers", "jax99"],
        ["--dtype", "int8"],
        ["--samples", "6"],
        ["--samples", "1.5"],
        ["--cases", "nothing-like-it"],
        ["--json", "no/such/folder/run.json"],
        ["--json", "."],
        ["--random", "0"],
        ["--random", "1", "--quick"],
        ["--random", "1", "--seed", "x"],
        ["--isa", "v9"],
        ["--against", "no/such/folder"],
        ["--fast"],
    ],
    ids=" ".join,
)
def test_a_bad_option_is_named_and_ends_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as exit:
        bench(*arguments)
    assert exit.value.code == 2
    assert arguments[-1] in capsys.readouterr().err.splitlines()[-1]


def test_a_peer_that_is_not_installed_is_not_run_unless_asked_for(monkeypatch, capsys):
    class Absent(peers.NumPy):
        name, packages = "absent", ("numpy", "cpunorm_absent_package")

    monkeypatch.setitem(peers.PEERS, "absent", Absent)
    assert bench("--cases", "layernorm") == 0
    assert "absent" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        bench("--peers", "absent")
    assert "absent is not installed" in capsys.readouterr().err


@pytest.mark.parametrize(("package", "options"), [("rich", []), ("matplotlib", ["--html", "page.html"])])
def test_what_is_missing_is_named_before_a_run(monkeypatch, capsys, package, options):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    monkeypatch.setattr(runner, "measure", lambda *arguments: pytest.fail("measured"))
    assert bench(*options) == 1
    assert capsys.readouterr().err == f'cpunorm bench needs {package}: pip install "cpunorm[bench]"\n'


def test_an_interrupt_keeps_what_is_done(monkeypatch, capsys, tmp_path):
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
    assert "geometric mean (smallest), cases: 2" in shown
    assert "Interrupted" in shown
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["interrupted"]
    assert [result["case"] for result in run["results"]] == tiny.NAMES[:2]


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
    assert "vs numpy LayerNorm 1x768" in text  # what is being run
    lines = re.sub(r"\x1b\[[\d;?]*[A-Za-z]|.*\r(?!\n)", "", text).splitlines()
    assert any(re.match(r"1x768 +[\d.]+(ns|µs) ±", line) for line in lines)
    assert all(len(line) <= 80 for line in lines)


def test_the_command_line_loads_no_more_than_it_needs():
    assert fresh.output("import cpunorm, sys; print([m for m in sys.modules if 'bench' in m])") == "[]"
    code = "import sys; from cpunorm.bench.__main__ import main\ntry: main(['bench', '--help'])\nfinally: print({})"
    loaded = fresh.output(code.format("sys.modules.keys() & {'rich', 'torch'}")).splitlines()[-1]
    assert loaded == "set()"
