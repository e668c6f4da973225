"""What the documentation shows, run: the examples in docstrings, the README and the pages under docs/."""

import contextlib
import doctest
import importlib
import json
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

import cpunorm
from cpunorm import _engine

ROOT = Path(__file__).parent.parent
PERFORMANCE = ROOT / "docs" / "performance.md"
PAGES = {str(path.relative_to(ROOT)): path for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")))}
RUN = {"README.md", "docs/index.md", "docs/coming_from.md", "docs/embedding.md", "docs/numerics.md"}
MODULES = [
    module.name
    for module in pkgutil.walk_packages(cpunorm.__path__, "cpunorm.")
    if not re.search(r"\.(bench|_kernels_(numba|v\d))", module.name)  # need an extra, or another CPU
]
NEED_AN_EXTRA = ("cpunorm.dask", "cpunorm.sklearn", "cpunorm.torch", "cpunorm._numba.")


@pytest.fixture(autouse=True)
def _as_in_a_new_session():
    before = _engine._engine, _engine._isa
    with np.printoptions(precision=8, suppress=False, linewidth=75):
        yield
    _engine.select(*before)


def run(test):
    output = []
    result = doctest.DocTestRunner(optionflags=doctest.FAIL_FAST).run(test, out=output.append, clear_globs=False)
    assert not result.failed, "".join(output)
    return result.attempted


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    module = pytest.importorskip(name) if name.startswith(NEED_AN_EXTRA) else importlib.import_module(name)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module):
        run(test)


def test_there_are_examples():
    """Else the test above could be finding none."""
    names = [name for name in MODULES if not name.startswith(NEED_AN_EXTRA)]
    tests = [t for name in names for t in doctest.DocTestFinder().find(importlib.import_module(name)) if t.examples]
    shown = {test.name.rpartition(".")[2] for test in tests}
    assert {"batch_norm", "layer_norm", "group_norm", "BatchNorm2d", "LayerNorm", "GroupNorm", "num_threads"} <= shown


def blocks(page):
    """(line, code) of every Python block of a page."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text[: match.start(1)].count("\n") + 1, match[1]) for match in found]


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if blocks(page)])
def test_page(name, tmp_path, monkeypatch):
    """Its Python blocks, one after the other as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    page, names = PAGES[name], {"__name__": "__main__"}
    for line, code in blocks(page):
        bar = ["rich"] * ("progress=True" in code)
        for package in [*re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE), *bar]:
            pytest.importorskip(package)
        if ">>>" in code:
            test = doctest.DocTestParser().get_doctest(code, names, name, str(page), line - 1)
            run(test)
            names = test.globs
        else:
            with contextlib.redirect_stdout(None):
                exec(compile("\n" * (line - 1) + code, str(page), "exec"), names)


def test_pages_have_examples():
    """Else the test above could be finding none; a block in any other language is no Python."""
    assert {name for name, page in PAGES.items() if blocks(page)} >= RUN | {n for n in PAGES if "guide" in n}
    languages = {
        fence for page in PAGES.values() for fence in re.findall(r"^```(\w+)$", page.read_text(), re.MULTILINE)
    }
    assert languages <= {"python", "cython", "c", "console", "text"}


def test_performance_says_what_the_record_says():
    markdown = pytest.importorskip("cpunorm.bench.markdown")
    text, record = PERFORMANCE.read_text(encoding="utf-8"), PERFORMANCE.with_name("record.json")
    assert record.stat().st_size < 150_000
    assert markdown.fill(text, json.loads(record.read_text(encoding="utf-8"))) == text
    assert re.findall("<!-- begin: (.*) -->", text) == ["environment", "glance", "cases", "images", "statistics"]


@pytest.mark.parametrize("name", PAGES)
def test_links(name):
    """Files that it links to are there."""
    text = PAGES[name].read_text(encoding="utf-8")
    links = re.findall(r"(?:\]\(|src=\")(?!https?:|#|mailto:)([^)#\s\"]+)", text)
    assert not [link for link in links if not (PAGES[name].parent / link).exists()]
