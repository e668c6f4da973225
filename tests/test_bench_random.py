"""`cpunorm bench --random`: what is drawn, how it lies in memory, and what is shown and kept of it."""

import collections
import json
import os
import subprocess
import sys
from dataclasses import replace

import fresh
import numpy as np
import pytest
import tiny
from tiny import bench

pytest.importorskip("rich")

import cpunorm
from cpunorm.bench import __main__ as command
from cpunorm.bench import cases, drawn, peers, runner
from cpunorm.bench.cases import NORMS, VIEWS, Case, Layer

VOLUMES = [  # each norm in each mode and layout, on a volume whose extents all differ
    Case(Layer("net", norm, (2, 4, 3, 6, 5), 2 if value.grouped else None), channels_last, mode, "float32")
    for norm, value in NORMS.items()
    for mode in value.modes
    for channels_last in ((False, True) if value.axis == 1 else (False,))
]


def test_a_seed_draws_the_same_cases_and_another_seed_others():
    first = drawn.draw(20, 1, "float32")
    assert drawn.draw(20, 1, "float32") == first
    assert drawn.draw(10, 1, "float64") == [replace(case, dtype="float64") for case in first[:10]]
    assert not {case.name for case in first} & {case.name for case in drawn.draw(20, 2, "float32")}


def test_every_kind_is_drawn():
    every = drawn.draw(600, 0, "float32", lambda case: case.norm in NORMS)
    kinds = {(name, mode) for name, norm in NORMS.items() for mode in norm.modes}
    assert {(case.norm, case.mode) for case in every} == kinds
    assert {len(case.layer.shape) for case in every} == {2, 3, 4, 5}
    assert {case.channels_last for case in every} == {False, True}
    views = collections.Counter(case.view for case in every)
    assert views.keys() == {None, *VIEWS}
    assert 0.1 < 1 - views[None] / len(every) < 0.2
    channels = [case.layer.shape[NORMS[case.norm].axis] for case in every]
    assert 0.3 < np.mean([count % 8 == 0 for count in channels]) < 0.8  # round and odd ones
    assert min(channels) == 1
    for case in every:
        size = np.prod(case.layer.shape)
        assert 300 <= size <= 4_000_000
        assert case.layer.shape[NORMS[case.norm].axis] <= (8192 if NORMS[case.norm].axis == -1 else 2048)
        if case.norm == "group_norm":
            assert case.layer.shape[1] % case.layer.groups == 0
        if case.mode == "train":
            assert size > case.layer.shape[1]


def test_statistics_are_drawn():
    assert 20 < sum(case.norm not in NORMS for case in drawn.draw(200, 0, "float32")) < 60
    some = drawn.draw(300, 0, "float32", lambda case: case.norm not in NORMS)
    assert {case.norm for case in some} == {"moments", "standardize"}
    assert {len(case.layer.shape) for case in some} == {2, 3, 4}
    assert {case.view for case in some} == {None, *VIEWS}
    assert {"all", "axis 0", "axis 1", "axes 0,2"} <= {case.layout for case in some}
    for case in some:
        assert 300 <= np.prod(case.layer.shape) <= 4_000_000


@pytest.mark.parametrize("view", [None, *VIEWS])
def test_peers_take_moments_of_the_same_view(view):
    names = [name for name in ("numpy", "torch") if peers.PEERS[name].installed()]
    for norm in ("moments", "standardize"):
        layer = Layer("net", norm, (4, 3, 6, 5))
        case = cases.StatisticsCase(layer, False, None, "float32", view=view, axis=(0, 2))
        a = case.arrays()
        assert (view is None) == a.x.flags.c_contiguous
        for peer in (peers.CPUNorm(1, "reference"), *(peers.PEERS[name](1) for name in names)):
            with peer.context():
                runner.checked(peer, case, a, case.expected(a), runner.SAME_WORK, "fresh")


def test_only_those_wanted_are_drawn_and_none_if_there_are_none():
    wanted = drawn.draw(5, 0, "float32", lambda case: case.norm == "group_norm", lambda case: case.channels_last)
    assert [(case.norm, case.channels_last) for case in wanted] == [("group_norm", True)] * 5
    assert drawn.draw(2, 0, "float32", lambda case: False) == []


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("case", VOLUMES, ids=lambda case: case.name)
def test_a_view_has_the_same_values_and_strides_of_its_own(case, view):
    x, viewed = case.arrays().x, replace(case, view=view).arrays().x
    np.testing.assert_array_equal(viewed, x)
    assert x.flags.c_contiguous
    assert not viewed.flags.c_contiguous
    assert replace(case, view=view).name == f"{case.name}/{view}"
    if view == "channels moved":  # channels_first memory under channels_last axes, or the other way round
        to, back = (1, -1) if case.channels_last or NORMS[case.norm].axis == -1 else (-1, 1)
        assert np.moveaxis(viewed, back, to).flags.c_contiguous


@pytest.mark.parametrize("view", [None, *VIEWS])
@pytest.mark.parametrize("case", VOLUMES, ids=lambda case: case.name)
def test_peers_do_the_same_work_on_the_same_view(case, view):
    case = replace(case, view=view)
    a = case.arrays()
    names = [name for name in ("numpy", "torch") if peers.PEERS[name].installed()]
    for peer in (peers.CPUNorm(1, "reference"), *(peers.PEERS[name](1) for name in names)):
        with peer.context():
            call, _ = runner.checked(peer, case, a, case.expected(a), runner.SAME_WORK, "fresh")
        if peer.name == "torch":
            x = call.fresh.args[0]
            assert x.data_ptr() == a.x.ctypes.data
            assert sorted(x.stride()) == sorted(stride // 4 for stride in a.x.strides)


@pytest.fixture
def small(monkeypatch):
    tiny.shrink(monkeypatch)
    monkeypatch.setattr(drawn, "VALUES", (300, 3000))


@pytest.mark.usefixtures("small")
def test_a_run_from_end_to_end(capsys, tmp_path):
    file = tmp_path / "run.json"
    seen = ["--random", "12", "--seed", "1", "4", "--peers", "numpy", "--engine", "reference", "--json", str(file)]
    assert bench(*seen) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.isascii()
    head, everything, *rows = shown.out.splitlines()
    assert head == f"reference, float32, threads: 1, as called, against numpy {np.__version__}"
    (run,) = json.loads(file.read_text())["runs"]
    results = run["results"]
    assert [result["seed"] for result in results] == [1] * 12 + [4] * 12
    ratios = [result["speedup"]["median"] for result in results]
    lost = sum(ratio < 0.97 for ratio in ratios)
    mean = np.exp(np.mean(np.log(ratios)))
    assert everything.split() == (
        f"all: {mean:.2f}x slower {lost / 24:.0%} ({lost} of 24) worst {min(ratios):.2f}x".split()
    )
    assert {row.split("  ")[1] for row in rows} >= {"seed 1", "seed 4", "layer_norm", "batch_norm train"}
    worst = [row.split()[0] for row in rows[-10:]]
    assert worst == [f"{ratio:.2f}x" for ratio in sorted(ratios)[:10]]
    for result, case in zip(results, drawn.draw(12, 1, "float32", peers.NumPy(1).has), strict=False):
        assert result["case"] == case.name
        assert result["shape"] == list(case.layer.shape)
        assert (result["strides"] is None) == (case.view is None)
        assert result["ours"] > 0 < result["theirs"]
    assert (run["peer"], run["memory"], run["environment"]["samples"]) == ("numpy", "fresh", 7)


@pytest.mark.usefixtures("small")
def test_a_wrong_result_is_named_and_the_others_are_run(monkeypatch, capsys):
    right = cpunorm.functional.layer_norm
    monkeypatch.setattr(cpunorm.functional, "layer_norm", lambda *a, **k: right(*a, **k) * np.float32(1.1))
    assert bench("--random", "20", "--peers", "numpy") == 1
    shown = capsys.readouterr().out
    failed = [line for line in shown.splitlines() if "FAILED" in line]
    assert failed
    assert all("LayerNorm" in line and "cpunorm: wrong result" in line for line in failed)
    assert f"of {20 - len(failed)})" in shown


@pytest.mark.usefixtures("small")
def test_only_cases_with_the_pattern(capsys):
    assert bench("--random", "3", "--peers", "numpy", "--cases", "groupnorm*nhwc") == 0
    shown = capsys.readouterr().out
    assert shown.count("/NHWC/") == shown.count("GroupNorm-") == 3
    assert bench("--random", "3", "--peers", "numpy", "--cases", "nothing-like-it") == 1
    assert "nothing was measured" in capsys.readouterr().out


@pytest.mark.usefixtures("small")
def test_only_cases_that_the_peer_has(monkeypatch, capsys):
    has = peers.NumPy.has
    monkeypatch.setattr(peers.NumPy, "has", lambda peer, case: has(peer, case) and case.norm == "layer_norm")
    assert bench("--random", "4", "--peers", "numpy") == 0
    shown = capsys.readouterr().out
    assert shown.count("random/") == shown.count("random/LayerNorm") == 4


@pytest.mark.usefixtures("small")
def test_an_interrupt_keeps_what_is_done(monkeypatch, capsys, tmp_path):
    measure, done = runner.measure, []

    def interrupted(*arguments, **keywords):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(measure(*arguments, **keywords))
        return done[-1]

    monkeypatch.setattr(runner, "measure", interrupted)
    file = tmp_path / "run.json"
    assert bench("--random", "5", "--peers", "numpy", "--json", str(file)) == 130
    kept = json.loads(file.read_text())
    assert kept["interrupted"]
    assert len(kept["runs"][0]["results"]) == 2
    assert "of 2)" in capsys.readouterr().out


def test_into_a_given_output_is_what_bound_memory_is_compared_with(monkeypatch):
    class Bound(peers.NumPy):
        memory, takes_out = "into", True

        def _call(self, function, *arrays):
            call, out = super()._call(function, *arrays).fresh, np.empty_like(arrays[0])

            def into():
                np.copyto(out, call())
                return out

            return peers.Call(call, into)

    monkeypatch.setattr(runner, "BLOCK_SECONDS", 1e-5)
    case = next(case for case in VOLUMES if case.norm == "layer_norm")
    result = runner.measure(case, peers.CPUNorm(1, "reference"), [Bound(1)], 7, memory="into")
    assert (list(result.fresh), list(result.into)) == ([], ["numpy"])
    result = runner.measure(case, peers.CPUNorm(1, "reference"), [Bound(1)], 7, memory="fresh")
    assert (list(result.fresh), list(result.into)) == (["numpy"], [])


@pytest.mark.parametrize("isa", command.ISA_LEVELS)
def test_the_isa_level_is_set_before_anything_is_imported(monkeypatch, isa):
    started = []
    monkeypatch.setattr(os, "execve", lambda *arguments: started.append(arguments))
    monkeypatch.delenv("CPUNORM_ISA", raising=False)
    command._hold_to(isa)
    ((program, arguments, environment),) = started
    assert program == arguments[0] == sys.executable
    assert arguments[1:] == sys.orig_argv[1:]
    torchs = {"baseline": "default", "v3": "avx2", "v4": "avx512"}[isa]
    assert (environment["CPUNORM_ISA"], environment["ATEN_CPU_CAPABILITY"]) == (isa, torchs)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    command._hold_to(isa)  # it is so now
    assert len(started) == 1


def test_isa_from_end_to_end(tmp_path):
    file = tmp_path / "run.json"
    arguments = ["--random", "1", "--peers", "numpy", "--isa", "baseline", "--cases", "eval", "--json", str(file)]
    environment = {**os.environ, "PYTHONPATH": str(fresh.PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "cpunorm.bench", *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(file.read_text())["runs"]
    assert run["environment"]["isa"] == {"cython": "baseline"}


def test_an_added_norm_is_drawn(monkeypatch):
    monkeypatch.setitem(cases.NORMS, "rms_norm", NORMS["layer_norm"]._replace(module="RMSNorm"))
    assert any(case.module == "RMSNorm" for case in drawn.draw(50, 0, "float32"))
