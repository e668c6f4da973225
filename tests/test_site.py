"""The documentation as a site: it builds without a warning, links lead somewhere, pictures show what was measured."""

import html.parser
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import cpunorm

ROOT = Path(__file__).parent.parent


class Page(html.parser.HTMLParser):
    """What a page links to, and what in it can be linked to."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self.anchors.add(named.get("id"))
        self.links += [named[name] for name in ("href", "src") if name in named and tag != "use"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built from a copy, with warnings as errors."""
    for package in ("sphinx", "furo", "myst_parser", "numpydoc", "sphinx_copybutton", "latex2mathml"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("site")
    generated = shutil.ignore_patterns("_build", "generated", "__pycache__")
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=generated)
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks", "examples"):
        (folder / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", "docs", "html"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.mark.slow
def test_links(site):
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert {"index.html", "numerics.html"} <= {path.name for path in pages}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if not (parts.scheme or parts.netloc):
                target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                found = target.is_file() and (not parts.fragment or unquote(parts.fragment) in pages[target].anchors)
                broken += [] if found else [(path.name, link)]
    assert not broken


@pytest.mark.slow
def test_needs_nothing_from_elsewhere(site):
    """It can be read without a network: no script, style, font or picture of another host."""
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|img|link)[^>]*(?:src|href)=\"(?:https?:)?//", text)


def test_pictures(tmp_path):
    """They say what record.json and errors.json say."""
    pytest.importorskip("matplotlib")
    specification = importlib.util.spec_from_file_location("figures", ROOT / "docs" / "figures.py")
    figures = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(figures)
    figures.draw(tmp_path)
    for path in tmp_path.iterdir():
        drawn, kept = (re.findall(r">([^<>]+)</text>", p.read_text()) for p in (path, ROOT / "docs" / path.name))
        assert len(drawn) > 10
        assert drawn == kept


def test_the_reference_has_every_public_name():
    listed = re.findall(r"^   (\w+)$", (ROOT / "docs" / "api" / "index.md").read_text(), re.MULTILINE)
    public = {*cpunorm.__all__, *cpunorm.functional.__all__} - {"__version__", "functional"}
    assert sorted(listed) == sorted(public)


def test_pictures_are_small():
    pictures = [path for kind in ("png", "svg") for path in (ROOT / "docs").rglob(f"*.{kind}")]
    assert pictures
    assert not [path for path in pictures if path.stat().st_size > 100_000 and "_build" not in path.parts]
