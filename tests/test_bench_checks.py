"""`cpunorm bench` times nothing that is wrong, and leaves the others alone."""

import functools
import json
import re

import numpy as np
import pytest
import tiny
from tiny import bench

pytest.importorskip("rich")

import cpunorm
from cpunorm.bench import cases, peers, runner


@pytest.fixture(autouse=True)
def small(monkeypatch):
    tiny.shrink(monkeypatch)


class Wrong(peers.NumPy):
    """NumPy, but for a layer norm that is off by ten percent."""

    name = "wrong"

    def layer_norm(self, case, a):
        call = super().layer_norm(case, a)
        return peers.Call(lambda: call.fresh() * a.x.dtype.type(1.1))


def test_a_peers_wrong_result_fails_that_case_by_name_and_no_other(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(peers.PEERS, "wrong", Wrong)
    assert bench("--json", str(tmp_path / "run.json")) == 1
    shown = capsys.readouterr().out
    failed = [line for line in shown.splitlines() if line.startswith("FAILED")]
    assert len(failed) == 2  # where it happened, and at the end
    assert set(failed) == {failed[0]}
    where = f"FAILED net/LayerNorm/6x8/float32 ({cpunorm.get_engine()}, threads: 1): WrongResult: wrong: wrong result: "
    assert failed[0].startswith(where)
    run = json.loads((tmp_path / "run.json").read_text())
    assert [result["case"] for result in run["results"]] == tiny.NAMES
    for result in run["results"]:  # and no other peer, in the same case
        assert ("wrong" in result["as_called"]["against"]) == ("wrong" in result["max_error"])
        assert ("wrong" in result["as_called"]["against"]) == ("LayerNorm" not in result["case"])
        assert "numpy" in result["as_called"]["against"]
    (failure,) = run["failures"]
    assert failure.pop("message").startswith("WrongResult: wrong: wrong result")
    engine = cpunorm.get_engine()
    assert failure == {"case": "net/LayerNorm/6x8/float32", "engine": engine, "threads": 1, "peer": "wrong"}


@pytest.mark.parametrize(("mean", "var"), [(1.01, 1), (1, 1.01), (np.nan, 1)])
def test_moments_are_wrong_if_one_of_them_is(monkeypatch, mean, var):
    class Wrong(peers.NumPy):
        def moments(self, case, a):
            return peers.Call(lambda: (a.x.mean(0) * np.float32(mean), a.x.var(0) * np.float32(var)))

    monkeypatch.setattr(runner, "interleave", lambda *arguments: [])
    monkeypatch.setitem(runner.SAME_WORK, "float32", 1e-4)
    case = cases.StatisticsCase(cases.Layer("net", "moments", (50, 3)), False, None, "float32", axis=(0,))
    result = runner.measure(case, peers.CPUNorm(1, cpunorm.get_engine()), [Wrong(1)], 7)
    assert re.match("WrongResult: numpy: wrong result: largest", result.failures["numpy"])


def test_nothing_is_timed_of_what_is_wrong(monkeypatch):
    monkeypatch.setattr(runner, "interleave", lambda *arguments: [])
    (case,) = cases.matching(cases.expand(tiny.LAYERS, "float32"), "layernorm")
    result = runner.measure(case, peers.CPUNorm(1, cpunorm.get_engine()), [Wrong(1), peers.NumPy(1)], 7)
    assert re.match(r"WrongResult: wrong: wrong result: largest \|error\| .* is 0\.", result.failures["wrong"])
    assert list(result.fresh) == ["numpy"]


@pytest.mark.parametrize("threads", [1, 2])
def test_only_pools_of_their_own_settle_and_only_if_they_have_threads(monkeypatch, threads):
    class Pool(peers.NumPy):
        name, settle = "pool", 0.04

    settled = []
    monkeypatch.setattr(runner, "interleave", lambda *arguments: settled.append(arguments[4:]) or [])
    (case,) = cases.matching(cases.expand(tiny.LAYERS, "float32"), "layernorm")
    runner.measure(case, peers.CPUNorm(threads, "reference"), [peers.NumPy(threads), Pool(threads)], 7)
    assert settled == [(0,), (0.04 if threads > 1 else 0,), ()]  # the last one is the copy


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
def test_our_own_wrong_result_fails(monkeypatch, capsys, spoil, message):
    right = cpunorm.functional.layer_norm
    monkeypatch.setattr(cpunorm.functional, "layer_norm", lambda *a, **k: spoil(right(*a, **k)))
    assert bench("--cases", "layernorm") == 1
    assert f"WrongResult: cpunorm: wrong result: {message}" in capsys.readouterr().out


def test_a_given_output_is_checked_too(monkeypatch, capsys):
    right = cpunorm.functional.layer_norm

    def wrong_into(*arguments, out=None):
        y = right(*arguments, out=out)
        if out is not None:
            out += 1
        return y

    monkeypatch.setattr(cpunorm.functional, "layer_norm", wrong_into)
    assert bench("--cases", "layernorm") == 1
    assert "cpunorm into a given output: wrong result" in capsys.readouterr().out


def test_running_statistics_are_checked_too(monkeypatch, capsys):
    right = cpunorm.functional.batch_norm

    def forgetful(x, running_mean, running_var, *arguments, **keywords):
        return right(x, running_mean, running_var.copy(), *arguments, **keywords)

    monkeypatch.setattr(cpunorm.functional, "batch_norm", forgetful)
    assert bench("--cases", "batchnorm") == 1
    shown = capsys.readouterr().out
    assert shown.count("cpunorm: running_var: wrong result") == 2 * 2
    assert "NCHW/train" in shown
    assert not re.search("FAILED.*eval", shown)


def test_a_peer_that_raises_fails_that_case_by_name(monkeypatch, capsys):
    class Raising(peers.NumPy):
        def layer_norm(self, case, a):
            raise RuntimeError("numpy can't")

    monkeypatch.setitem(peers.PEERS, "numpy", Raising)
    assert bench("--cases", "norm*6x8") == 1
    assert "FAILED net/LayerNorm/6x8/float32" in (shown := capsys.readouterr().out)
    assert "RuntimeError: numpy can't" in shown


def test_a_norm_that_a_peer_lacks_is_not_available(monkeypatch, capsys):
    class Lacking(peers.NumPy):
        name = "lacking"
        layer_norm = None

        def group_norm(self, case, a):
            return None

    monkeypatch.setitem(peers.PEERS, "lacking", Lacking)
    assert bench() == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("net ")]
    assert [line.count("n/a") for line in lines] == [0, 0, 0, 0, 2, 2, 2]


@pytest.mark.parametrize(("value", "right"), [(1.0, False), (20.0, True)])
def test_an_error_is_measured_by_the_value(value, right):
    y = np.full(3, value)
    look = functools.partial(runner.largest_error, "who", (y + 3e-6).astype(np.float32), y, "float32", 2e-6)
    if right:
        assert look() == pytest.approx(3e-6, rel=0.5)
    else:
        with pytest.raises(runner.WrongResult, match="largest"):
            look()
