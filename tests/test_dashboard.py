"""The overview page that `asv publish` makes, from results whose story is known."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("asv")

from asv.machine import Machine

ROOT = Path(__file__).parents[1]
SUBJECTS = ("first", "not built", "slow", "quick", "quicker", "<newest> & best")
NA, TIMES = float("nan"), "\N{MULTIPLICATION SIGN}"


def benchmark(name, unit, **parameters):
    return {
        "name": name,
        "unit": unit,
        "type": "track",
        "version": "1",
        "code": "",
        "timeout": 60,
        "param_names": list(parameters),
        "params": [[repr(value) for value in values] for values in parameters.values()],
    }


RATIO = benchmark(
    "batch_norm.Ratio.track_vs_torch",
    "ours/torch",
    threads=("all",),
    layout=("NCHW", "NHWC", "NDHWC", "NCW", "NC", "NCL"),
)
ERROR = benchmark("accuracy.Errors.track_largest", "max |error|", implementation=("cython", "torch"))
SIZE = benchmark("cold_start.Installed.track_size", "bytes")
FAULTS = benchmark("memory.Large.track_page_faults", "page faults")
UNMEASURED = benchmark("memory.Large.track_peak", "bytes")
HISTORY = {  # by benchmark, commit by commit, combination by combination
    RATIO["name"]: (
        [1.25, 0.5, 0.2, 2.0, NA, 0.5],
        None,
        [1.25, 0.5, 0.2, 0.5, NA, 0.5],
        [0.5, 0.5, 0.2, 0.5, NA, 0.5],
        [0.5, 2.0, 0.2, 0.2, NA, 0.5],
        [0.5, 2.0, 0.2, 0.2, NA, None],
    ),
    ERROR["name"]: ([4e-7, 1e-3], None, *([[4e-7, 1e-3]] * 4)),
    SIZE["name"]: ([1_300_000], None, *([[1_300_000]] * 4)),
    FAULTS["name"]: ([32_000], None, [32_000], [32_000], [0], [0]),
}


DRAWN = {  # a run of `cpunorm bench --random`, as far as the page reads it
    "environment": {"cpu": "A&B", "date": "2026-11-28T12:00:00+00:00", "threads": [1]},
    "peer": "torch",
    "results": [
        {"case": f"random/{norm}/{i}", "norm": norm, "mode": mode, "speedup": {"median": speed_up}}
        for i, (norm, mode, speed_up) in enumerate(
            [("batch_norm", "eval", 4.0), ("batch_norm", "eval", 1.0), ("rms_norm", None, 0.5)]
        )
    ],
}


def git(folder, *arguments):
    who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def publish(folder):
    done = subprocess.run([sys.executable, "-m", "asv", "publish"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A repository with results, and the page that was made of them."""
    folder = tmp_path_factory.mktemp("project")
    git(folder, "init", "--quiet", "--initial-branch=main")
    for subject in SUBJECTS:
        git(folder, "commit", "--quiet", "--allow-empty", "-m", subject)
    commits = git(folder, "log", "--reverse", "--format=%H").split()
    shutil.copytree(ROOT / "dashboard", folder / "dashboard", ignore=shutil.ignore_patterns("node_modules"))
    shutil.copy(ROOT / "asv.conf.json", folder)
    machine = {"machine": "reference"}
    results = folder / json.loads((folder / "asv.conf.json").read_text())["results_dir"]
    (results / "reference").mkdir(parents=True)
    (results / "reference" / "machine.json").write_text(json.dumps({**machine, "version": 1}))
    benchmarks = {one["name"]: one for one in (RATIO, ERROR, SIZE, FAULTS, UNMEASURED)}
    (results / "benchmarks.json").write_text(json.dumps({**benchmarks, "version": 2}))
    for place, commit in enumerate(commits):
        result = {
            "commit_hash": commit,
            "date": 1_700_000_000_000 + place,
            "env_name": "env",
            "params": machine,
            "python": "3.11",
            "requirements": {},
            "result_columns": ["result", "params", "version"],
            "results": {name: [values[place], benchmarks[name]["params"], "1"] for name, values in HISTORY.items()},
            "version": 2,
        }
        (results / "reference" / f"{commit[:8]}-env.json").write_text(json.dumps(result))
    (folder / "docs").mkdir()
    (folder / "docs" / "random.json").write_text(json.dumps({"runs": [DRAWN]}))
    publish(folder)
    site = folder / ".asv" / "html"
    return site, (site / "overview.html").read_text(encoding="utf-8"), dict(zip(SUBJECTS, commits, strict=True))


def row(page, layout):
    """The text of a case's row of the table, without its curves."""
    found = re.search(rf"<tr>\s*<td>all\s*<td>{layout}\n(.*?)(?=<tr>|</table>)", page, re.DOTALL)[1]
    text = re.sub(r"<[^>]*>", " ", re.sub(r"<svg.*?</svg>", " ", found))
    return " ".join(text.split()).replace(TIMES, "x")


def test_since_when_it_is_ahead(project):
    _, page, commits = project
    quick = commits["quick"][:7]
    assert row(page, "NCHW") == f"2x ▲ ahead since {quick} 0.8x → 2x at {quick}"


def test_a_loss_is_as_visible_as_a_gain(project):
    _, page, commits = project
    since = commits["quicker"][:7]
    assert row(page, "NHWC") == f"0.5x ▼ behind since {since} 2x → 0.5x at {since}"
    losses = re.search(r"<details open>.*?</details>", page, re.DOTALL)[0]
    assert "Behind in 1" in losses
    assert re.search("torch: <a [^>]*>batch norm, threads all, layout NHWC</a>", losses)


def test_what_never_changed_holds_since_the_first_commit(project):
    _, page, commits = project
    assert row(page, "NDHWC") == f"5x ▲ ahead since {commits['first'][:7]}"


def test_ahead_at_several_speeds(project):
    _, page, commits = project
    slow, quicker = (commits[subject][:7] for subject in ("slow", "quicker"))
    assert row(page, "NCW") == f"5x ▲ ahead since {slow} 2x → 5x at {quicker}"


def test_failed_is_not_na(project):
    _, page, _ = project
    assert row(page, "NCL").startswith("failed")
    assert "<td>NC\n" not in page, "nothing to show where every result is n/a"


def test_summary(project):
    """The geometric mean of 2, 1/2, 5 and 5, and what it is made of."""
    _, page, _ = project
    summary = page[page.index("against torch") : page.index("<details")]
    assert summary.count(f">2.24{TIMES}<") == 2, "for the norm and for all"
    assert all(text in summary for text in ("3 ahead", "0 level", "1 behind", "batch norm, threads: all"))


def test_shapes_that_nobody_tuned_for(project):
    """A row per norm, a dot per case; a loss is to the left of the line of equal speed."""
    _, page, _ = project
    part = page[page.index("<h2>Shapes that nobody tuned for") :].partition("</table>")[0]
    assert "against torch, threads: 1, A&amp;B, 2026-11-28" in part
    norms = dict(re.findall(r"<tr><td>([^<]*)(<td>.*)", part))
    assert list(norms) == ["all", "batch norm eval", "rms norm"]
    assert f">1.26{TIMES}</b>" in norms["all"]
    assert all(text in norms["all"] for text in ("1 ahead", "1 level", "1 behind", f'behind">0.5{TIMES}</b><td>'))
    dots = re.findall(rf'cx="([\d.]+)"[^>]*><title>([\d.]+){TIMES} random/(\w+)', part)
    assert len(dots) == 2 * 3
    (one,) = set(re.findall(r'<line x1="([\d.]+)"', part))
    assert all((float(x) > float(one), float(x) < float(one)) == (float(r) > 1, float(r) < 1) for x, r, _ in dots)
    assert {x for x, *_ in dots} == {"5.0", one, "395.0"}
    assert {norm for *_, norm in dots} == {"batch_norm", "rms_norm"}


def test_without_a_run_of_random_shapes_there_is_no_such_table(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    overview = importlib.import_module("dashboard.overview")
    assert overview.drawn(tmp_path / "random.json") == ""


def test_other_lines(project):
    _, page, commits = project
    assert all(text in page for text in ("max |error|", ">4e-07<", ">0.001<", ">1.3M<"))
    assert re.search(rf"32,000 → 0 at <code[^>]*>{commits['quicker'][:7]}<", page)


def test_commits(project):
    _, page, commits = project
    table = page[page.index('<table class="commits">') :]
    places = [table.index(commits[subject][:10]) for subject in reversed(SUBJECTS)]
    assert places == sorted(places), "newest first"
    assert re.search("not built<td>[^\n]*did not build", table)
    assert re.search("&lt;newest&gt; &amp; best<td>8 values[^\n]*>1 failed<", table)
    assert "<newest>" not in page


def test_the_page_needs_nothing_from_elsewhere(project):
    _, page, _ = project
    assert "//" not in re.sub(r'title="[^"]*"', "", page)
    assert not re.search(r"<(script|img|iframe)", page)


def test_links_lead_into_the_graphs(project):
    site, page, _ = project
    assert 'href="index.html#batch_norm.Ratio.track_vs_torch?p-threads=%27all%27&amp;p-layout=%27NHWC%27"' in page
    index = (site / "index.html").read_text(encoding="utf-8")
    assert 'location.replace("overview.html")' in index
    assert '<li><a href="overview.html">Overview</a></li><li id="nav-li-"' in index


def test_asv_asks_for_no_graph_that_is_not_there(project):
    site, _, _ = project
    names = json.loads((site / "index.json").read_text())["benchmarks"].keys()
    assert names == HISTORY.keys()
    assert all((site / "graphs" / "summary" / f"{name}.json").exists() for name in names)


def test_offline(project):
    """With the npm packages at hand no page asks another host."""
    site, _, _ = project
    folder = site.parents[1]
    spec = importlib.util.spec_from_file_location("offline", folder / "dashboard" / "offline.py")
    offline = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(offline)
    for path in offline.FILES.values():
        (offline.MODULES / path).parent.mkdir(parents=True, exist_ok=True)
        (offline.MODULES / path).write_text(path)
    publish(folder)
    index = (site / "index.html").read_text(encoding="utf-8")
    assert not re.search(r'<(?:script|link)[^>]*"https?:', index)
    assert all((site / path).read_text() == path for path in offline.FILES.values())


@pytest.fixture
def track(tmp_path):
    """Runs `track.py --help` with a history of one machine; asv knows another already."""
    (tmp_path / "results" / "reference").mkdir(parents=True)
    (tmp_path / ".asv-machine.json").write_text(json.dumps({"mine": {"machine": "mine"}, "version": 1}))
    shutil.copy(ROOT / "benchmarks" / "track.py", tmp_path)

    def start(machine):
        file = tmp_path / "results" / "reference" / "machine.json"
        file.write_text(json.dumps({**machine, "machine": "reference", "version": 1}))
        environment = {**os.environ, "HOME": str(tmp_path)}
        return subprocess.run(
            [sys.executable, tmp_path / "track.py", "--help"], env=environment, capture_output=True, text=True
        )

    return start


def test_track_introduces_the_machine(track, tmp_path):
    """Asv knows the history's machine then, and those that it knew before; the arguments are `asv run`'s."""
    done = track(Machine.get_defaults() | {"ram": "as it was described by hand"})
    assert done.returncode == 0, done.stderr
    assert "usage: asv run" in done.stdout.lower()
    known = json.loads((tmp_path / ".asv-machine.json").read_text())
    assert known.pop("version") == 1
    assert {name: machine["machine"] for name, machine in known.items()} == {"mine": "mine", "reference": "reference"}


@pytest.mark.slow
@pytest.mark.parametrize("key", ["arch", "cpu", "num_cpu"])
def test_track_starts_a_history_on_another_machine(track, tmp_path, key):
    done = track({**Machine.get_defaults(), key: "another"})
    assert done.returncode == 0, done.stderr
    known = json.loads((tmp_path / ".asv-machine.json").read_text())
    (name,) = known.keys() - {"version", "mine"}
    assert name != "reference"
    assert known[name] == {**Machine.get_defaults(), "machine": name}
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)


def test_a_history_is_of_one_machine():
    for path in (ROOT / "benchmarks" / "results").glob("*/machine.json"):
        machine = json.loads(path.read_text())
        del machine["version"]
        for file in path.parent.glob("*-*.json"):
            params = json.loads(file.read_text())["params"]
            assert params | machine == params, file.name
