"""What is kept of a run: quartiles, to so many digits, that the tables of a text are made from."""

import json

import bench_run
import pytest

pytest.importorskip("rich")

from cpunorm.bench import markdown, record
from cpunorm.bench.__main__ import main
from cpunorm.bench.cases import Case, Layer
from cpunorm.bench.runner import Result, Turn

RUN = bench_run.run(
    [
        bench_run.result("layer_norm", (2, 768), {"torch": 2.0}, {"copy": 0.5}, seconds=2e-6),
        bench_run.result("layer_norm", (9, 768), {"torch": 0.5}, {"copy": 0.4}, seconds=3e-6, threads=1),
    ]
)
TEXT = "a\n<!-- begin: {} -->\nold\n<!-- end -->\nb\n"


def test_a_case_is_kept_as_quartiles():
    case = Case(Layer("net", "layer_norm", (2, 3)), False, None, "float32")
    turns = [Turn((1e-3, 1e-3), (theirs, theirs)) for theirs in (1e-3, 2e-3, 3e-3, 7.12345e-3, 8e-3)]
    result = Result(case, "cython", 1, {"cpunorm": 1.234e-7}, {"torch": turns}, {"copy": turns})
    (kept,) = record.record({}, [result], False)["results"]
    assert kept["as_called"] == {"seconds": [1e-3] * 3, "against": {"torch": [2, 3, 7.123]}}
    assert kept["max_error"] == {"cpunorm": 1.2e-7}


def test_the_text_has_a_case_on_each_line():
    run = RUN | {"failures": [{"case": 'quoted {"case"', "message": '},{"case"'}]}
    text = record.dumps(run)
    assert json.loads(text) == run
    assert [line[:8] for line in text.splitlines()[1:]] == ['{"case":'] * 3


def test_a_table_replaces_what_is_between_its_markers():
    text = markdown.fill(TEXT.format("glance"), RUN)
    before, *lines, after = text.splitlines()
    assert (before, after) == ("a", "b")
    assert lines == [
        "<!-- begin: glance -->",
        "",
        "2 threads, float32, cython engine:",
        "",
        "|  | all | call-bound | slower in |",
        "| --- | --- | --- | --- |",
        "| torch, as called | 2.00x | 2.00x | none |",
        "| share of the copy limit, out= | 50% | 50% |  |",
        "",
        "1 thread, float32, cython engine:",
        "",
        "|  | all | call-bound | slower in |",
        "| --- | --- | --- | --- |",
        "| torch, as called | ▼0.50x | ▼0.50x | 1 of 1 |",
        "| share of the copy limit, out= | 40% | 40% |  |",
        "",
        "<!-- end -->",
    ]
    assert markdown.fill(text, RUN) == text


def test_each_case_of_the_most_threads_has_a_row():
    lines = markdown.fill(TEXT.format("cases"), RUN).splitlines()
    assert [line for line in lines if line.startswith("| LayerNorm")] == [
        "| LayerNorm 2x768 | 2.00µs ±0% | 2.00x | 2.00µs ±0% | 50% | 4.3e-7 |"
    ]


def test_statistics_have_a_table_of_their_own_and_no_part_in_the_means():
    one = bench_run.result("layer_norm", (9, 64), {"numpy": 9.0, "dask": 3.0}, {"copy": 0.5}, layout="axis 0")
    run = bench_run.run([*RUN["results"], one | {"norm": "moments", "module": "moments"}])
    assert markdown.fill(TEXT.format("glance"), run) == markdown.fill(TEXT.format("glance"), RUN)
    assert markdown.fill(TEXT.format("cases"), run) == markdown.fill(TEXT.format("cases"), RUN)
    lines = markdown.fill(TEXT.format("statistics"), run).splitlines()
    head = "| case | time, as called | numpy, as called | dask, as called | time, out= | of copy, out= | ours, error |"
    assert head in lines
    assert "| moments 9x64 axis 0 | 1.00ms ±0% | 9.00x | 3.00x | 1.00ms ±0% | 50% | 4.3e-7 |" in lines
    assert "The run had none of them." in markdown.fill(TEXT.format("images"), run)


def test_the_command_writes_the_tables_of_a_kept_run(tmp_path, capsys):
    kept, file = tmp_path / "run.json", tmp_path / "text.md"
    kept.write_text(record.dumps(RUN))
    file.write_text(TEXT.format("environment"))
    assert main(["bench", "--from", str(kept), "--tables", str(file)]) == 0
    assert file.read_text().startswith(
        "a\n<!-- begin: environment -->\n\n2026-01-02, A <CPU> & more, 4 CPUs, kernels v3, 7 "
    )
    file.write_text("no markers")
    with pytest.raises(SystemExit):
        main(["bench", "--from", str(kept), "--tables", str(file)])
    assert "text.md' has no tables' markers" in capsys.readouterr().err
