"""The annotations, as type checkers read them: on calls as people write them, and of everything public."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import fresh
import pytest
import typed_use

USE = Path(typed_use.__file__)
UNTYPED = "cpunorm.bench", "cpunorm.stats", "cpunorm.sklearn"  # commands; a class whose base class has no types


@pytest.fixture
def folder(tmp_path):
    """Where a checker finds the package that is imported here, and those lines."""
    pytest.importorskip("torch")  # which those lines use, too
    (tmp_path / "cpunorm").symlink_to(fresh.PACKAGE)
    (tmp_path / USE.name).write_text(USE.read_text(encoding="utf-8"), encoding="utf-8")
    return tmp_path


def checked(tool, *arguments, folder):
    """What a checker prints, run in `folder` on this Python."""
    pytest.importorskip(tool)
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    command = [sys.executable, "-m", tool, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_mypy(folder, pytestconfig):
    cache = pytestconfig.cache.mkdir("mypy")
    options = "--strict", "--follow-imports=silent", f"--cache-dir={cache}"
    done = checked("mypy", *options, USE.name, folder=folder)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_pyright(folder):
    config = {"typeCheckingMode": "strict", "reportUnnecessaryTypeIgnoreComment": True, "include": [USE.name]}
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    done = checked("pyright", folder=folder)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_everything_public_is_typed(folder):
    done = checked("pyright", "--verifytypes", "cpunorm", "--ignoreexternal", "--outputjson", folder=folder)
    symbols = json.loads(done.stdout)["typeCompleteness"]["symbols"]
    public = [s for s in symbols if s["isExported"] and not s["name"].startswith(UNTYPED)]
    names = {s["name"] for s in public}
    assert {"cpunorm.functional.layer_norm", "cpunorm.modules.layernorm.LayerNorm.forward"} <= names
    assert not [s["name"] for s in public if not s["isTypeKnown"] or s["isTypeAmbiguous"]]


@pytest.mark.parametrize("name", [n for n, f in inspect.getmembers(typed_use, inspect.isfunction) if n != "mistakes"])
def test_the_same_lines_run(name, tmp_path):
    for package in {"other_libraries": ["torch"], "statistics": ["rich"]}.get(name, ()):
        pytest.importorskip(package)
    function = getattr(typed_use, name)
    if function.__module__ == typed_use.__name__:
        function(*[tmp_path] * len(inspect.signature(function).parameters))
