"""The page of a run: complete, self-contained, and whole whatever a run lacks."""

import copy
import functools
import html.parser
import re

import bench_run
import fresh
import pytest

pytest.importorskip("rich")
pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

import matplotlib

from cpunorm.bench import plots
from cpunorm.bench.page import page

pytestmark = pytest.mark.slow  # its pictures are drawn
BEFORE = [matplotlib.rcParams[name] for name in plots.STYLE]
VOID = {"meta", "link", "br", "hr", "img", "input"}
PEERS = {"numpy": 12.34, "torch": 1.5}
SMALL = bench_run.result("layer_norm", (1, 768), {"numpy": 8.0, "torch": 0.914}, {"copy": 0.512}, 1.5e-6)
IMAGE = (32, 64, 56, 56)
EVAL, TRAIN, LAST = (
    bench_run.result("batch_norm", IMAGE, PEERS | as_called, {"torch": out, "copy": 0.9}, layout=layout, mode=mode)
    for as_called, out, layout, mode in (
        ({}, 1.2, "NCHW", "eval"),
        ({"torch": 3.0}, 0.996, "NCHW", "train"),
        ({}, 2.0, "NHWC", "train"),
    )
)
LARGE = bench_run.result("group_norm", (8, 256, 64, 64), {"numpy": 30}, {"copy": 0.95}, 0.01, layout="NCHW")
SWEEP = [
    bench_run.result("layer_norm", (rows, 1024), {"torch": 0.2}, {"copy": 0.8}, 1e-7 * rows, source="sweep")
    for rows in (1, 16, 256)
]
ACCURACY = [
    bench_run.accuracy(norm, layout, offset, {"cpunorm": 4.0e-7, "torch": torch, "jax": None})
    for norm, layout in (("batch_norm", "NCHW"), ("batch_norm", "NHWC"), ("layer_norm", None))
    for offset, torch in ((0.0, 6.0e-7), (1e2, 3.1e-5), (1e6, 1.5e3))
]
FAILURE = {"case": "net/<i>", "engine": "cython", "threads": 2, "peer": "torch", "message": "WrongResult: a<b>"}


def on_one_thread(result, slower):
    """The same case on one thread, `slower` times slower for everyone."""
    peers = {memory: result[memory]["against"] for memory in ("as_called", "out")}
    ratios = {memory: {p: median for p, (_, median, _) in against.items()} for memory, against in peers.items()}
    seconds = result["as_called"]["seconds"][1] * slower
    calls = {memory: bench_run.calls(seconds, against) for memory, against in ratios.items()}
    return result | calls | {"threads": 1}


NETWORKS = [EVAL, TRAIN, LAST, SMALL, LARGE]
FULL = bench_run.run(
    [*NETWORKS, *SWEEP, *(on_one_thread(result, 1.6) for result in NETWORKS)], ACCURACY, [FAILURE], interrupted=True
)


class Parsed(html.parser.HTMLParser):
    """What a page consists of; every element must be closed in its place.

    Attributes
    ----------
    text : str
    attributes : list of (str, str, str)
        Element, name, value.
    rows : list of list of (str, dict)
        Text and attributes of each cell of each table's row.
    """

    def __init__(self, text):
        super().__init__()
        self.text, self.attributes, self.rows, self.open = "", [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attrs]
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append(("", dict(attrs)))

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, *attribute) for attribute in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data
        if {"td", "th"} & set(self.open):
            text, attributes = self.rows[-1][-1]
            self.rows[-1][-1] = text + data, attributes

    def row(self, case):
        """The cells of the first row that is this case's."""
        (cells, *_) = [row for row in self.rows if any(cell[1].get("title") == case for cell in row)]
        return cells


@functools.cache
def full_page():
    return page(FULL)


@functools.cache
def page_of_one():
    return page(bench_run.run([EVAL]))


@pytest.fixture(scope="module")
def full():
    return Parsed(full_page())


def headings(parsed_or_page):
    return re.findall(r"<h2[^>]*>(.*?)</h2>", parsed_or_page)


# Self-contained


def test_nothing_points_outside_and_every_pointer_inside_has_its_target(full):
    text = full_page()
    assert not re.search(r"https?:|//\w|@import|<script|\bsrc=", text)
    ids = [value for _, name, value in full.attributes if name == "id"]
    assert len(set(ids)) == len(ids)
    pointers = [value for _, name, value in full.attributes if name in ("href", "xlink:href")]
    pointers += re.findall(r"url\(([^)]*)\)", text)
    assert {pointer for pointer in pointers if pointer != "data:,"} <= {f"#{name}" for name in ids}


def test_the_same_run_gives_the_same_page():
    assert page(bench_run.run([copy.deepcopy(EVAL)])) == page_of_one()


def test_matplotlib_is_left_as_it_was():
    page_of_one()
    assert [matplotlib.rcParams[name] for name in plots.STYLE] == BEFORE
    assert fresh.output("import sys, cpunorm.bench.page; print('matplotlib.pyplot' in sys.modules)") == "False"


def test_text_of_a_run_stays_text(full):
    for text in (FAILURE["case"], FAILURE["message"], bench_run.ENVIRONMENT["cpu"]):
        assert text in full.text
    assert not [tag for tag, *_ in full.attributes if tag == "cpu"]
    named = SMALL | {"case": 'a"<b>', "module": "<b>", "engine": "<i>", "layout": "<u>"}
    parsed = Parsed(page(bench_run.run([named], versions={"<s>": "<s>"}, isa={"<i>": None})))
    assert len(parsed.row('a"<b>')) > 3


# Figures


def cells(row):
    """Texts of the cells that follow the case's name."""
    texts = [text.strip() for text, _ in row]
    return texts[2:]


def test_every_case_has_a_row_with_every_figure(full):
    # time, numpy, torch; time, torch, share of copy; error
    assert cells(full.row(EVAL["case"])) == ["1.00ms ±0%", "12.3x", "1.50x", "1.00ms ±0%", "1.20x", "90%", "4.3e-7"]
    assert cells(full.row(LAST["case"])) == ["1.00ms ±0%", "12.3x", "1.50x", "1.00ms ±0%", "2.00x", "90%", "4.3e-7"]
    assert cells(full.row(LARGE["case"])) == ["10.0ms ±0%", "30.0x", "n/a", "10.0ms ±0%", "n/a", "95%", "4.3e-7"]
    assert cells(full.row(SMALL["case"])) == ["1.50µs ±0%", "8.00x", "▼0.91x", "1.50µs ±0%", "n/a", "51%", "4.3e-7"]


def test_what_a_library_lacks_looks_like_no_figure(full):
    torch = full.row(LARGE["case"])[4]
    assert torch == ("n/a", {"class": "none"})


def test_what_quartiles_leave_open_is_slanted():
    against = {"a": 1.02, "b": 0.98, "c": 1.2, "d": 0.8}
    result = EVAL | {"as_called": bench_run.calls(1e-3, against, spread=0.1)}
    row = Parsed(page(bench_run.run([result]))).row(EVAL["case"])
    assert [cell[1]["class"] for cell in row[3:7]] == ["gain unsure", "loss unsure", "gain", "loss"]


def test_a_speed_up_tells_its_quartiles_and_the_peers_time(full):
    titles = [attributes.get("title") for _, attributes in full.row(EVAL["case"])]
    assert titles[4] == "torch: 1.50ms ±0%; quartiles 1.49 to 1.51"


def test_the_peers_time_is_our_median_times_the_speed_up():
    result = copy.deepcopy(EVAL)
    result["as_called"]["seconds"] = [0.9e-3, 1e-3, 1.3e-3]
    result["as_called"]["against"]["torch"] = [2.5, 3, 4]
    titles = [attributes.get("title") for _, attributes in Parsed(page(bench_run.run([result]))).row(EVAL["case"])]
    assert titles[4].startswith("torch: 3.00ms ±25%;")


def colour(cell):
    """Class and strength, in percent, of a cell's colour."""
    return cell[1]["class"].removesuffix(" unsure"), float(re.fullmatch(r"--t:(\d+)%", cell[1]["style"])[1])


def test_colours_are_logarithmic_and_losses_as_strong_as_gains():
    ratios = (16, 4, 1.1, 1.001, 1, 0.999, 1 / 1.1, 1 / 4, 1 / 16, 1 / 100)
    peers = {f"peer{i}": ratio for i, ratio in enumerate(ratios)}
    result = bench_run.result("layer_norm", (2, 8), peers, {})
    row = Parsed(page(bench_run.run([result]))).row(result["case"])
    kinds, strengths = zip(*map(colour, row[3 : 3 + len(ratios)]), strict=True)
    assert kinds == ("gain",) * 6 + ("loss",) * 4
    assert strengths[0] == strengths[8] == strengths[9] == 100
    assert strengths[1] == strengths[7] == pytest.approx(100 * 0.5**0.5, abs=0.5)
    assert strengths[2] == strengths[6] > 15
    assert strengths[3:6] == (0, 0, 0)


def test_the_first_table_has_the_geometric_means(full):
    """Of the networks' cases on two threads: the sweep and other settings have no part in them."""
    table = {row[0][0]: [text for text, _ in row[1:]] for row in full.rows[:10]}
    assert table["speed-up over"] == ["all", "call-bound", "cache-bound", "memory-bound", "slower in"]
    means = (12.34**3 * 8 * 30) ** (1 / 5), (12.34**3) ** (1 / 3)
    assert table["numpy"] == [f"{means[0]:.1f}x", "8.00x", f"{means[1]:.1f}x", "30.0x", "none"]
    assert full.rows[3][0][0] == "torch"
    assert [text for text, _ in full.rows[3][1:]] == ["1.58x", "▼0.91x", "1.89x", "n/a", "1 of 4"]
    assert table["the fastest of them"][0] == "2.84x"
    assert table["share of the copy limit"] == ["81%", "51%", "90%", "95%", ""]


def test_the_answer_comes_first(full):
    assert "cpunorm is 2.84 times as fast as the fastest of 2 libraries in each case" in full.text
    assert "It is slower in 1 of 9 comparisons" in full.text


def test_losses_are_listed_by_name_the_worst_first(full):
    rows = [[text for text, _ in row] for row in full.rows if len(row) == 5 and row[0][0].startswith("▼")]
    shown = rows[: len(SWEEP) + 1]
    assert [row[0] for row in shown] == ["▼0.20x"] * len(SWEEP) + ["▼0.91x"]
    assert shown[-1] == ["▼0.91x", "torch", "as called", SMALL["case"], "quartiles 0.91 to 0.92"]
    assert {row[3] for row in shown[:-1]} == {result["case"] for result in SWEEP}
    assert "net/BatchNorm2d/32x64x56x56/NCHW/train/float32" not in {row[3] for row in shown}  # 0.996 is shown as 1.00


def test_errors_over_the_promise_are_marked(full):
    rows = {row[0][0]: row for row in full.rows if row[0][0] in ("0", "100", "1e6")}
    assert [text for text, _ in rows["100"][1:]] == ["4.0e-7", "3.1e-5", "not finite"]
    assert [colour(cell)[0] for cell in rows["100"][1:]] == ["gain", "loss", "loss"]
    assert [text for text, _ in rows["1e6"][1:]] == ["4.0e-7", "1.5e+3", "not finite"]
    speed = [[text for text, _ in row] for row in full.rows if row[0][0] == "speed-up" and len(row) == 4]
    assert speed == [["speed-up", "", ratio, "n/a"] for ratio in ("3.00x", "1.50x", "▼0.91x")]


def test_threads_are_compared_case_by_case(full):
    rows = [row for row in full.rows if [text for text, _ in row[1:]] == ["1.60x", "1.60x", "1.60x"]]
    assert len(rows) == 4  # all but LARGE, which torch lacks


def test_any_number_of_threads_may_be_the_fewest():
    results = [EVAL | {"threads": 4}, on_one_thread(EVAL, 1.8) | {"threads": 2}, TRAIN]  # TRAIN on 2 alone
    text = page(bench_run.run(results))
    assert "4 threads against 2, case by case" in text
    assert "times as fast as on 2" in plotted(text, "speed over threads")
    parsed = Parsed(text)
    assert [cell[0] for cell in parsed.rows[-1]][1:] == ["1.80x", "1.80x", "1.80x"]
    assert not [row for row in parsed.rows if row[0][1].get("title") == TRAIN["case"]]


# Plots


def test_every_plot_says_what_it_shows_and_every_case_is_named_under_the_roof(full):
    plots = [value for tag, name, value in full.attributes if (tag, name) == ("svg", "aria-label")]
    kinds = "size sweep 1", "threads 3", "roof: evaluation, training, layer, group 4", "accuracy 3"
    assert len(plots) == sum(int(kind[-1]) for kind in kinds)
    links = {value for tag, name, value in full.attributes if name == "xlink:href" and value.startswith("#case-")}
    assert links == {f"#case-{number}" for number in range(1, len(NETWORKS) + 1)}


def plotted(text, name):
    """The texts in the plots whose description has `name` in it."""
    found = re.findall(rf'<svg [^>]*aria-label="[^"]*{name}[^"]*".*?</svg>', text, re.DOTALL)
    return {label for svg in found for label in re.findall(r"<text[^>]*>([^<]*)</text>", svg)}


def test_caches_are_marked_where_they_are_in_sight():
    assert {"L2 1 MiB"} <= plotted(full_page(), "bytes per second over bytes")
    assert {"L2 1 MiB", "LLC 32 MiB"} <= plotted(full_page(), "bytes per second of each case")
    unknown = page(bench_run.run([SMALL, EVAL], l2_bytes=None, llc_bytes=None))
    assert not {text for text in plotted(unknown, "bytes per second") if text.startswith("L")}


# What a run may lack

SIZES, ROOF = "From small to large", "Under the roof of memory"
EVERY = ["Speed-up, case by case", "Losses", "Other settings", SIZES, "Threads", ROOF, "Accuracy beside speed"]
EVERY += ["Failures", "How it was measured"]
TWICE = [EVAL, on_one_thread(EVAL, 1.6)]


def without(key, result):
    """The result without peers (key: memory) or without the copy."""
    result = copy.deepcopy(result)
    result[key]["against"] = {}
    return result


def test_a_full_run_has_every_part():
    assert headings(full_page()) == EVERY


@pytest.mark.parametrize(
    ("run", "missing"),
    [
        (bench_run.run([*TWICE, *SWEEP], ACCURACY[:3]), {"Failures"}),
        (bench_run.run([EVAL, *SWEEP]), {"Failures", "Other settings", "Threads", "Accuracy beside speed"}),
        (bench_run.run(TWICE, failures=[FAILURE]), {"Accuracy beside speed", SIZES}),
        (bench_run.run([], failures=[FAILURE]), {*EVERY} - {"Failures", "How it was measured"}),
        (bench_run.run([], ACCURACY), {*EVERY} - {"Accuracy beside speed", "How it was measured"}),
    ],
    ids=["no failures", "one number of threads", "no accuracy, no sweep", "failures alone", "accuracy alone"],
)
def test_what_a_run_lacks_is_left_out(run, missing):
    text = page(run)
    Parsed(text)
    assert headings(text) == [heading for heading in EVERY if heading not in missing]


def test_an_interrupted_run_says_so():
    assert "This run was interrupted" in full_page()
    assert "This run was interrupted" not in page_of_one()


def test_a_run_without_peers_shows_its_times():
    lonely = [without("as_called", EVAL) | {"out": bench_run.calls(1e-3, {"copy": 0.9})}]
    text = page(bench_run.run(lonely))
    assert "No other library was timed" in text
    assert cells(Parsed(text).row(EVAL["case"])) == ["1.00ms ±0%", "1.00ms ±0%", "90%", "4.3e-7"]
    untimed = copy.deepcopy(lonely)
    untimed[0]["as_called"]["seconds"] = None
    assert cells(Parsed(page(bench_run.run(untimed))).row(EVAL["case"])) == ["n/a", "1.00ms ±0%", "90%", "4.3e-7"]


def test_a_sweep_alone():
    text = page(bench_run.run(SWEEP))
    Parsed(text)
    assert headings(text) == ["Losses", SIZES, "How it was measured"]


def test_nothing_at_all():
    assert "Nothing was measured" in page(bench_run.run([]))


def test_noise_is_said():
    noisy = EVAL | {"as_called": bench_run.calls(1e-3, PEERS, spread=0.5)}
    assert "spread by ±25 % in the median" in page(bench_run.run([noisy, noisy | {"threads": 1}]))
    assert "in the median: the machine" not in full_page()
