"""`cpunorm bench --against`: another build of the package in the same process."""

import json
import re
import shutil
import sys
import zipfile
from pathlib import Path

import fresh
import numpy as np
import pytest
import tiny
from tiny import bench

pytest.importorskip("rich")

import cpunorm
from cpunorm.bench import cases, drawn
from cpunorm.bench.peers import Build, CPUNorm, OldCPUNorm


@pytest.fixture(autouse=True)
def small(monkeypatch):
    tiny.shrink(monkeypatch)
    monkeypatch.setattr(drawn, "VALUES", (300, 3000))


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(fresh.PACKAGE, tmp_path / "cpunorm", ignore=shutil.ignore_patterns("bench", "__pycache__"))
    return tmp_path


@pytest.fixture(params=["folder", "wheel"])
def path(request, folder, tmp_path):
    if request.param == "folder":
        return folder
    wheel = tmp_path / "cpunorm-0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in (folder / "cpunorm").rglob("*"):
            archive.write(file, file.relative_to(folder))
    shutil.rmtree(folder / "cpunorm")
    return wheel


def modules():
    return {name: module for name, module in sys.modules.items() if name.split(".")[0] == "cpunorm"}


def test_both_are_there_and_neither_sees_the_other(path):
    before, paths = modules(), list(sys.path)
    build = Build(str(path))
    assert modules() == before
    assert sys.path == paths
    assert build.package.functional is not cpunorm.functional
    x = np.random.default_rng(0).standard_normal((4, 64), np.float32)
    with build.package.engine("reference"), build.package.num_threads(3):
        assert (cpunorm.get_engine(), build.package.get_engine()) == ("cython", "reference")
        y = build.package.functional.layer_norm(x, (64,))
    np.testing.assert_allclose(y, cpunorm.functional.layer_norm(x, (64,)), rtol=0, atol=2e-6)


@pytest.mark.slow
def test_an_engine_that_it_imports_later_is_its_own(folder):
    pytest.importorskip("numba")
    build = Build(str(folder))
    with cpunorm.engine("numba"), OldCPUNorm(1, build).context():
        assert build.package.get_engine() == "numba"
    assert Path(build._modules["cpunorm._numba.engine"].__file__).parent == folder / "cpunorm" / "_numba"
    assert Path(sys.modules["cpunorm._numba.engine"].__file__).parent == fresh.PACKAGE / "_numba"


@pytest.mark.parametrize("arguments", [[], ["--random", "6"]], ids=["grid", "random"])
def test_from_end_to_end(folder, capsys, tmp_path, arguments):
    file = tmp_path / "run.json"
    assert bench("--against", str(folder), "--json", str(file), *arguments) == 0
    shown = capsys.readouterr().out
    run = json.loads(file.read_text())
    if arguments:
        assert f"into a given output, against old {cpunorm.__version__} ({folder})" in shown
        assert len(run["runs"][0]["results"]) == 6
    else:
        assert re.search(r"^vs old +[\d.!]+x", shown, re.MULTILINE)
        assert re.search(r"^out= vs old +[\d.!]+x", shown, re.MULTILINE)
        assert all(result["out"]["against"]["old"] for result in run["results"])


def test_both_write_into_the_same_memory(folder):
    (case, *_) = cases.expand(tiny.LAYERS, "float32")
    a = case.arrays()
    old, ours = OldCPUNorm(1, Build(str(folder))), CPUNorm(1, "cython")
    assert ours.prepare(case, a).into() is old.prepare(case, a).into() is a.out


def test_what_is_compared_with_is_that_build(folder, capsys):
    with open(folder / "cpunorm" / "__init__.py", "a", encoding="utf-8") as source:
        source.write("\n\nfunctional.layer_norm = lambda input, *arguments, **keywords: input\n")
    assert bench("--against", str(folder), "--cases", "layernorm") == 1
    assert "WrongResult: old: wrong result" in capsys.readouterr().out


def test_a_norm_that_it_lacks_is_not_available(folder, capsys):
    with open(folder / "cpunorm" / "__init__.py", "a", encoding="utf-8") as source:
        source.write("\n\ndel functional.group_norm\n")
    assert bench("--against", str(folder)) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("net ")]
    assert [("n/a" in row) for row in rows] == ["GroupNorm" in row for row in rows]


def test_no_build_is_refused_and_leaves_all_as_it_was(tmp_path, capsys):
    before, paths = modules(), list(sys.path)
    broken = tmp_path / "broken" / "cpunorm"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("import cpunorm._no_such_module\n")
    wheel = tmp_path / "no.whl"
    wheel.write_text("no archive")
    for path in (tmp_path, broken.parent, wheel):
        with pytest.raises(SystemExit) as exit:
            bench("--against", str(path))
        assert exit.value.code == 2
        assert f"argument --against: '{path}' can't be used: " in capsys.readouterr().err.splitlines()[-1]
    assert modules() == before
    assert sys.path == paths


def test_only_one_of_peers_and_against(folder, capsys):
    with pytest.raises(SystemExit):
        bench("--against", str(folder), "--peers", "numpy")
    assert "argument --against: not with --peers" in capsys.readouterr().err
