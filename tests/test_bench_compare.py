"""Two runs of `cpunorm bench` compared: which changes are more than chance, and what is said of them."""

import bench_run
import pytest

pytest.importorskip("rich")

from cpunorm.bench.compare import change, compare
from cpunorm.bench.runner import Summary

CASES = {"a": (2, 8), "b": (4, 8), "c": (6, 8)}
NAMES = {key: f"net/LayerNorm/{rows}x8/float32 (cython, threads: 2)" for key, (rows, _) in CASES.items()}


def run(seconds=1e-3, copy=1.0, **ratios):
    """A run of the cases named; `ratios`: of the time of each peer to ours."""
    results = [
        bench_run.result("layer_norm", CASES[case], peers, {"copy": copy}, seconds) for case, peers in ratios.items()
    ]
    return bench_run.run(results)


def lines(capsys):
    out = capsys.readouterr().out
    assert out.isascii()  # whatever the encoding of a pipe
    assert "\x1b" not in out
    assert not [line for line in out.splitlines() if line.endswith(" ")]
    return out.splitlines()


def row(shown, case, memory="as called"):
    (line,) = [line for line in shown if f"{NAMES[case]}, {memory}  " in line]
    return line


# A verdict


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ((1.9, 2.0, 2.1), (1.7, 1.8, 1.85), "slower"),
        ((1.9, 2.0, 2.1), (2.15, 2.2, 2.3), "faster"),
        ((1.9, 2.0, 2.1), (1.7, 1.8, 1.95), "same"),  # quartiles overlap
        ((1.9, 2.0, 2.1), (2.0, 2.2, 2.3), "same"),
        ((1.99, 2.0, 2.01), (1.91, 1.92, 1.93), "same"),  # 4 %
        ((1.99, 2.0, 2.01), (2.07, 2.08, 2.09), "same"),
        ((1.9, 2.0, 2.1), (1.9, 2.0, 2.1), "same"),
    ],
)
def test_a_verdict_takes_quartiles_apart_and_five_percent(old, new, verdict):
    changed = change(Summary(*old), Summary(*new))
    assert changed.verdict == verdict
    assert changed.ratio == pytest.approx(new[1] / old[1])


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ({"p": 2, "q": 2, "r": 2}, {"p": 1, "q": 1, "r": 2}, "slower"),
        ({"p": 2, "q": 2, "r": 2}, {"p": 1, "q": 2, "r": 2}, ""),  # one peer's own progress
        ({"p": 2, "q": 2}, {"p": 1, "q": 2}, ""),
        ({"p": 2, "q": 2, "r": 2}, {"p": 4, "q": 4, "r": 1}, "faster"),
        ({"p": 2, "q": 2}, {"p": 1, "s": 9}, "slower"),  # q and s are in one run alone
        ({"p": 2}, {"q": 2}, "unknown"),
    ],
)
def test_most_libraries_decide(capsys, old, new, verdict):
    slower = compare(run(a=old), run(a=new))
    words = row(lines(capsys), "a").split("  net")[0].split()
    assert words[1:] == ([verdict] if verdict else [])
    assert slower == (verdict == "slower")


def test_the_same_run_twice_has_no_changes(capsys):
    same = run(a={"p": 2, "q": 3}, b={"p": 0.5})
    assert compare(same, same) is False
    shown = lines(capsys)
    assert not [line for line in shown if line.startswith(("1.00x slower", "1.00x faster"))]
    assert len([line for line in shown if line.startswith("1.00x  ")]) == 4
    assert not [line for line in shown if "->" in line and not line.startswith("1.00x")]


def test_a_busier_machine_is_no_slow_down(capsys):
    """Everyone took twice as long: our times tell so, the speed-ups don't."""
    assert compare(run(a={"p": 2}), run(2e-3, a={"p": 2})) is False
    shown = lines(capsys)
    assert "ours 1.00ms +-0% -> 2.00ms +-0%, vs p 1.00x" in row(shown, "a")
    assert "as called: speed-ups 1.00x, our times alone 0.50x (geometric means of 1 case" in shown[-2]


# What is shown


def test_slow_downs_come_first_then_by_ratio(capsys):
    old = run(a={"p": 2.0}, b={"p": 2.0}, c={"p": 2.0})
    assert compare(old, run(a={"p": 3.0}, b={"p": 1.97}, c={"p": 1.0})) is True
    shown = [line for line in lines(capsys) if "as called  " in line]
    assert [line.split("  ")[0] for line in shown] == ["0.50x slower", "0.98x", "1.50x faster"]
    assert [NAMES[case] in line for case, line in zip("cba", shown, strict=True)] == [True] * 3


def test_each_library_has_its_change(capsys):
    compare(run(a={"p": 2.0, "q": 4.0}), run(a={"p": 1.0, "q": 4.0}))
    assert row(lines(capsys), "a").endswith("vs p 0.50x slower, vs q 1.00x")


def test_a_slow_down_into_a_given_output_counts(capsys):
    assert compare(run(a={"p": 2}, copy=0.9), run(a={"p": 2}, copy=0.5)) is True
    shown = lines(capsys)
    assert row(shown, "a", "out=").startswith("0.56x slower")
    assert row(shown, "a", "out=").endswith("share of copy 0.56x slower")
    assert shown[-2].endswith("0 slower, 0 faster")
    assert shown[-1].endswith("1 slower, 0 faster")


def test_the_summary_has_the_geometric_mean(capsys):
    compare(run(a={"p": 2.0}, b={"p": 2.0}), run(a={"p": 4.0}, b={"p": 1.0}))
    assert lines(capsys)[-2].startswith("as called: speed-ups 1.00x, our times alone 1.00x (geometric means of 2 cases")


def test_cases_of_one_run_alone_are_named(capsys):
    compare(run(a={"p": 2}, b={"p": 2}), run(a={"p": 2}, c={"p": 2}))
    shown = lines(capsys)
    assert shown[:2] == [f"only in the old run: {NAMES['b']}", f"only in the new run: {NAMES['c']}"]
    assert not [line for line in shown[2:] if NAMES["b"] in line or NAMES["c"] in line]


def test_another_engine_or_number_of_threads_is_another_case(capsys):
    old, new = run(a={"p": 2}), run(a={"p": 1})
    new["results"][0]["threads"] = 1
    assert compare(old, new) is False
    assert len([line for line in lines(capsys) if line.startswith("only in the ")]) == 2


def test_what_differs_in_machine_and_versions_is_said_first(capsys):
    old, new = run(a={"p": 2}), run(a={"p": 2})
    new["environment"] |= {"cpu": "Another", "threads": [4], "date": "2027-01-01T00:00:00+00:00", "load": 3.0}
    new["environment"]["versions"] = {"python": "3.12.1", "cpunorm": "1.3.0", "torch": "2.13.0", "jax": "0.10.2"}
    new["interrupted"] = True
    compare(old, new)
    assert lines(capsys)[:6] == [
        "cpu: A <CPU> & more -> Another",
        "threads: [1, 2] -> [4]",
        "cpunorm: 1.2.3 -> 1.3.0",
        "numpy: 2.4.6 -> none",
        "jax: none -> 0.10.2",
        "the new run was interrupted",
    ]


def test_markup_in_names_is_text(capsys):
    odd = run(a={"p": 2})
    odd["results"][0]["case"] = "[red]net[/red]"
    compare(odd, odd)
    assert "[red]net[/red] (cython, threads: 2), as called" in capsys.readouterr().out


def test_runs_without_a_common_case(capsys):
    assert compare(run(a={"p": 2}), run()) is False
    assert lines(capsys)[0] == f"only in the old run: {NAMES['a']}"


def test_colours_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    compare(run(a={"p": 2}), run(a={"p": 1}))
    shown = capsys.readouterr().out
    assert "\x1b[1;31m0.50x slower" in shown
    assert "±" in shown
