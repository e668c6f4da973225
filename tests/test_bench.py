"""`cpunorm bench`: what is measured, how, and how it is shown."""

import gc
import re
import time
from dataclasses import replace

import numpy as np
import oracle
import pytest
import tiny

pytest.importorskip("rich")

from cpunorm.bench import _copy, accuracy, cases, environment, peers, report, runner
from cpunorm.bench.cases import Case, Layer
from cpunorm.bench.runner import Result, Turn

# What is run


def test_a_layer_in_one_line_gives_a_case_for_each_layout_and_mode():
    assert [case.name for case in cases.expand(tiny.LAYERS, "float32")] == tiny.NAMES


def test_every_layer_has_its_own_names():
    names = [case.name for case in cases.expand(cases.LAYERS, "float64")]
    assert len(set(names)) == len(names)


def test_quick_runs_every_norm_and_the_cases_that_the_project_promises():
    quick = cases.expand([layer for layer in cases.LAYERS if layer.quick], "float32")
    modules = {case.module for case in quick}
    assert modules == {"BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "LayerNorm", "GroupNorm-32", "RMSNorm"}
    names = {case.name for case in quick}
    assert {"ResNet-50/BatchNorm2d/32x64x56x56/NCHW/train/float32", "BERT-base/LayerNorm/1x768/float32"} <= names


@pytest.mark.parametrize(
    ("pattern", "count"), [("", 7), ("layernorm", 1), ("nhwc/train", 1), ("batch*eval", 2), ("2x4x?x3", 2), ("none", 0)]
)
def test_pattern_is_looked_for_anywhere_in_the_name(pattern, count):
    assert len(cases.matching(cases.expand(tiny.LAYERS, "float32"), pattern)) == count


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", cases.expand(tiny.LAYERS, "float32"), ids=tiny.NAMES)
def test_expected_values_are_the_oracles(case, dtype):
    case = replace(case, dtype=dtype)
    a = case.arrays()
    y, mean, var = case.expected(a)
    x = np.moveaxis(a.x, -1, 1) if case.channels_last else a.x
    running = (a.running_mean, a.running_var)
    affine = a.weight, a.bias
    if case.norm == "layer_norm":
        expected = oracle.layer_norm(x, x.shape[-1:], *affine, cases.EPS)
    elif case.norm == "group_norm":
        expected = oracle.group_norm(x, case.layer.groups, *affine, cases.EPS)
    else:
        expected = oracle.batch_norm(x, *affine, cases.EPS, running if case.mode == "eval" else None)
    expected = np.moveaxis(expected, 1, -1) if case.channels_last else expected
    # both in float64, by other ways: a few roundings of values up to 8
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-14)
    if case.mode == "train":
        axes = (0, *range(2, x.ndim))
        exact = x.astype(np.float64)
        batch = exact.mean(axes), exact.var(axes, ddof=1)
        running = [0.9 * old.astype(np.float64) + 0.1 * new for old, new in zip(running, batch, strict=True)]
    np.testing.assert_allclose((mean, var), running, rtol=1e-14)


# How it is timed


def test_turns_are_ours_theirs_theirs_ours_in_blocks_of_at_least_2_ms(monkeypatch):
    now, order = 0.0, []

    def work(name, seconds):
        def call():
            nonlocal now
            now += seconds
            order.append(name)

        return call

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    ticks = []
    turns = runner.interleave(work("o", 0.0005), work("t", 0.0035), 15, lambda: (ticks.append(now), order.clear()))
    assert len(turns) == len(ticks) == 15
    for turn in turns:
        np.testing.assert_allclose(turn.ours + turn.theirs, [0.0005, 0.0005, 0.0035, 0.0035])
        assert turn.speedup == pytest.approx(7)

    order.clear()
    runner.interleave(work("o", 0.0005), work("t", 0.0035), 1, lambda: None)
    blocks = re.fullmatch(r"o*t*(o+)(t+)(o+)", "".join(order))  # the calls that chose the numbers come first
    assert blocks
    ours, theirs = len(blocks[3]), len(blocks[2]) // 2
    assert ours * 0.0005 >= 0.002
    assert theirs * 0.0035 >= 0.002


@pytest.mark.parametrize(("number", "wakes"), [(1, 0), (3, 2)])
def test_threads_settle_at_each_change_of_sides_and_are_woken(monkeypatch, number, wakes):
    order = []
    monkeypatch.setattr(runner, "calls_per_block", lambda call: number)
    monkeypatch.setattr(time, "sleep", lambda seconds: order.append(f"{seconds:g}"))
    runner.interleave(lambda: order.append("o"), lambda: order.append("t"), 2, lambda: None, 0.04)
    ours, theirs = (f"0.04{wakes * side}{number * side}" for side in "ot")
    assert "".join(order) == ours + theirs + number * "t" + ours + number * "o" + theirs + number * "t" + ours


def test_a_side_begins_when_the_others_threads_have_ceased_to_spin(monkeypatch):
    spins = iter([0.04, 0.02, 0.0])  # seconds that are burnt while the first change of sides waits
    burnt = [0.0]

    def sleep(seconds):
        burnt[0] += next(spins, 0.0)
        order.append("s")

    order = []
    monkeypatch.setattr(runner, "calls_per_block", lambda call: 1)
    monkeypatch.setattr(time, "process_time", lambda: burnt[0])
    monkeypatch.setattr(time, "sleep", sleep)
    runner.interleave(lambda: order.append("o"), lambda: order.append("t"), 1, lambda: None, 0.04)
    assert "".join(order) == "sssosttso"


def test_garbage_collection_is_off_while_timing_and_on_again_after():
    seen = []
    runner.interleave(lambda: time.sleep(0.001), lambda: time.sleep(0.001), 1, lambda: seen.append(gc.isenabled()))
    assert seen == [False]
    assert gc.isenabled()


def test_quartiles_and_spread():
    summary = runner.summarize([5, 1, 4, 2, 3])
    assert summary == (2, 3, 4)
    assert summary.spread == pytest.approx(1 / 3)


def test_a_turns_speedup_is_the_ratio_of_the_sums_not_the_mean_of_ratios():
    assert Turn(ours=(1.0, 3.0), theirs=(2.0, 10.0)).speedup == 3.0  # 2/1 and 10/3 would give 2.67


def result_of(turns, into, shape=(1000, 250)):
    case = Case(Layer("net", "layer_norm", shape), False, None, "float32")
    errors = {"cpunorm": 4e-7, "torch": 1.2e-6}
    return Result(case, "cython", 2, errors, {"torch": turns} if turns else {}, {"copy": into})


COPIED = [Turn((2e-3, 2e-3), (1e-3, 1e-3))]


def cells(result, *threads):
    work = [(result.case, result.engine, number) for number in threads]
    return [(column.header, column.cell(result).plain) for column in report.columns([peers.Torch], work)]


def test_a_results_figures():
    turns = [Turn((1e-3, 1e-3), (theirs, theirs)) for theirs in (1e-3, 2e-3, 3e-3)]
    result = result_of(turns, COPIED)
    assert result.speedup("fresh", "torch") == pytest.approx((1.5, 2, 2.5))
    assert result.speedup("fresh", "numpy") is None
    assert result.seconds("fresh").median == 1e-3
    assert result.seconds("into").median == 2e-3
    assert result.bandwidth == pytest.approx(2 * 1_000_000 / 1e-3)  # a million bytes in, a million out
    shown = [
        ("shape", "1000x250"),
        ("layout", ""),
        ("time", "1.00ms ±0%"),
        ("vs torch", "2.00x ±25%"),
        ("GB/s", "2.00"),
        ("time", "2.00ms ±0%"),
        ("vs torch", "n/a"),
        ("copy", "50%"),
        ("ours", "4.0e-7"),
        ("torch", "1.2e-6"),
    ]
    assert cells(result, 2) == shown
    assert cells(result, 1, 2) == [*shown[:2], ("thr", "2"), *shown[2:]]


def test_a_result_that_no_peer_has():
    result = result_of([], COPIED)
    assert result.seconds("fresh") is None
    assert result.bandwidth is None
    assert [cell for header, cell in cells(result, 2)[2:5]] == ["n/a"] * 3


def test_the_fastest_of_many_peers_is_named():
    result = result_of([], COPIED)
    for name, theirs in (("slow", 4e-3), ("fast", 5e-4), ("middle", 2e-3)):
        result.fresh[name] = [Turn((1e-3, 1e-3), (theirs, theirs))]
    assert report.versus_fastest(result).plain == "▼0.50x fast"


def test_losses_are_marked_without_colours_and_ties_are_none():
    assert report.speedup(runner.Summary(0.5, 0.5, 0.6)).plain == "▼0.50x ±10%"
    assert report.speedup(runner.Summary(0.998, 0.998, 0.998)).plain == "1.00x ±0%"
    assert report.speedup(runner.Summary(12, 12.34, 13)).plain == "12.3x ±4%"
    assert report.speedup(None).plain == "n/a"


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.14159, "3.14s"), (0.25, "250ms"), (1.5e-5, "15.0µs"), (9.99e-7, "999ns"), (4e-9, "4.00ns")]
)
def test_durations(seconds, text):
    assert report.timing(runner.Summary(seconds, seconds, seconds)).plain == f"{text} ±0%"


@pytest.mark.parametrize("width", [200, 120, 80, 20])
def test_columns_that_do_not_fit_are_left_out(width):
    work = [(Case(cases.LAYERS[0], False, "eval", "float32"), "cython", threads) for threads in (1, 2)]
    every = report.columns(list(peers.PEERS.values()), work)
    some = report.fitting(every, width)
    assert [column for column in every if column in some] == some
    headers = [column.header for column in some]
    assert headers[:5] == ["shape", "layout", "thr", "time", "vs fastest"]  # never left out
    used = sum(column.width for column in some) + len(report.GAP) * (len(some) - 1)
    assert used <= max(width, 80)
    assert len(some) == {200: 14, 120: 8, 80: 6, 20: 5}[width], headers


# Regions, accuracy, the copy


@pytest.mark.parametrize(
    ("shape", "dtype", "region"),
    [
        ((16, 1024), "float32", "call-bound"),  # 64 KiB
        ((17, 1024), "float32", "cache-bound"),
        ((16, 1024), "float64", "cache-bound"),
        ((2**13 - 1, 1024), "float32", "cache-bound"),
        ((2**13, 1024), "float32", "memory-bound"),  # 32 MiB
    ],
)
def test_regions(monkeypatch, shape, dtype, region):
    case = Case(Layer("net", "layer_norm", shape), False, None, dtype)
    monkeypatch.setattr(cases, "cache_bytes", lambda: (2**20, 2**30))
    assert case.region == region
    monkeypatch.setattr(cases, "cache_bytes", lambda: (None, None))
    assert case.region == region
    assert case.bytes == 2 * case.arrays().x.nbytes


def test_cache_sizes_are_linux_or_unknown(tmp_path):
    for index, (level, size) in enumerate([(1, "48K"), (1, "64K"), (3, "32M"), (2, "2048K")]):
        folder = tmp_path / "cache" / f"index{index}"
        folder.mkdir(parents=True)
        (folder / "level").write_text(f"{level}\n")
        (folder / "size").write_text(f"{size}\n")
    assert environment.cache_bytes(tmp_path / "cache") == (2 * 2**20, 32 * 2**20)
    assert environment.cache_bytes(tmp_path / "none") == (None, None)


def test_what_leaves_the_last_cache_is_memory_bound(monkeypatch):
    monkeypatch.setattr(cases, "cache_bytes", lambda: (2**20, 8 * 2**20))
    layers = [Layer("net", "layer_norm", (rows, 1024)) for rows in (1024, 1025)]  # in and out: 8 MiB, and more
    assert [case.region for case in cases.expand(layers, "float32")] == ["cache-bound", "memory-bound"]


def test_the_grid_has_every_region_and_the_sweep_every_size():
    every = cases.expand(cases.LAYERS, "float32")
    assert {case.region for case in every} == set(report.REGIONS)
    sweep = [case for case in every if case.layer.source == cases.SWEEP]
    assert {case.layout for case in sweep} == {"NCHW", None}
    for module, mode in (("BatchNorm2d", "eval"), ("BatchNorm2d", "train"), ("LayerNorm", None)):
        sizes = [case.bytes // 2 for case in sweep if (case.module, case.mode) == (module, mode)]
        assert sizes == [4096 * 4**i for i in range(9)]


def test_accuracy_is_of_float32_rows_of_4096_values_around_an_offset():
    every = [case for case in cases.accuracy_cases() if case.norm != "moments"]
    assert len({case.name for case in every}) == len(every) == 6 * 4
    assert {(case.norm, case.layout, case.mode) for case in every} == {
        ("batch_norm", "NCHW", "train"),
        ("batch_norm", "NHWC", "train"),
        ("layer_norm", None, None),
        ("group_norm", "NCHW", None),
        ("group_norm", "NHWC", None),
        ("standardize", "axis 0", None),
    }
    for case in every:
        a = case.arrays()
        assert a.x.dtype == np.float32
        assert a.x.size == 64 * 4096
        assert abs(a.x.mean(dtype=np.float64) - case.offset) < 0.01
        assert abs(a.x.std(dtype=np.float64) - 1) < 0.01
        assert (a.weight == 1).all()
        assert (a.bias == 0).all()


@pytest.mark.parametrize("case", [case for case in cases.accuracy_cases() if case.offset == 1e4], ids=lambda c: c.name)
def test_accuracy_of_ours_and_of_numpy(case):
    ours = peers.CPUNorm(1, "reference")
    assert accuracy.largest_error(ours, case) < runner.PROMISED["float32"]
    assert 1e-5 < accuracy.largest_error(peers.NumPy(1), case) < 1  # the mean has 10 bits less
    result = accuracy.measure(case, ours, [peers.NumPy(1), Lacking(1)], 7)
    assert result.errors.keys() == {"cpunorm", "numpy"}
    assert not result.timed


@pytest.mark.slow
def test_traps_are_those_of_sums(monkeypatch):
    """Their expected values come from the cycle; ours gives them, NumPy doesn't where it sums one after the other."""
    ones, wide, halves = cases.TRAPS
    assert ones[0] == (2**25, 2)
    monkeypatch.setattr(cases, "TRAPS", (((2**24 + 2**22, 2), *ones[1:]), wide, halves))
    traps = [case for case in cases.accuracy_cases() if case.norm == "moments"]
    assert [(case.mode or case.dtype, case.offset) for case in traps] == [
        ("float32", 1),
        ("float64", 10**8),
        ("float16", 1000),
    ]
    errors = {}
    for case, (mean, var) in zip(traps, [(1, 0), (10**8 + 1, 2 / 3), (1000, 0)], strict=True):
        a = case.arrays()
        assert (a.x.shape, a.x.dtype) == (case.layer.shape, case.mode or case.dtype)
        np.testing.assert_array_equal(case.expected(a)[0], [[mean] * 2, [var] * 2])
        errors[case.offset] = [
            accuracy.largest_error(peer, case) for peer in (peers.CPUNorm(1, "cython"), peers.NumPy(1))
        ]
    ours, numpy = zip(*errors.values(), strict=True)
    assert ours == (0, 0, 0)
    assert numpy[0] > 0.1
    assert numpy[1] == 0
    assert numpy[2] == np.inf


@pytest.mark.parametrize("case", cases.statistics_cases("float32"), ids=lambda case: case.name)
def test_expected_statistics_are_the_oracles(case):
    small = tuple(min(length, 7) for length in case.layer.shape)
    case = replace(case, layer=replace(case.layer, shape=(400, 5) if "sliding" in case.norm else small))
    a = case.arrays()
    (y,) = case.expected(a)
    x = a.x.astype(np.float64)
    if case.gives_moments:
        expected = np.stack([x.mean(case.axis), x.var(case.axis)])
    elif case.norm == "standardize_sliding":
        windows = [x[start : start + 300] for start in [0] * 150 + [*range(100)] + [100] * 150]
        expected = [(row - window.mean(0)) / window.std(0) for row, window in zip(x, windows, strict=True)]
    else:
        expected = (x - x.mean(case.axis, keepdims=True)) / x.std(case.axis, keepdims=True)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    assert a.x.dtype == (case.mode or case.dtype)
    assert case.bytes == a.x.nbytes + (0 if case.gives_moments else 4 * a.x.size)


def test_statistics_of_libraries_that_are_not_installed_are_no_cases(monkeypatch):
    every = {case.norm.partition("_")[0] for case in cases.statistics_cases("float32")}
    assert every >= {"moments", "standardize"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert {case.norm.partition("_")[0] for case in cases.statistics_cases("float32")} == {"moments", "standardize"}
    assert "uint8" not in {case.mode for case in cases.statistics_cases("float64")}


class Lacking(peers.Peer):
    name = "lacking"

    def has(self, case):
        return False


@pytest.mark.parametrize("size", [0, 1, 15, 63, 64, 1000, 100_003])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_copies_every_byte_and_no_other(size, threads):
    x = np.random.default_rng(0).integers(1, 255, size + 40, np.uint8)
    for streaming in {False, _copy.can_stream}:
        for start in (0, 1, 16):
            y = np.zeros(size + 40, np.uint8)
            _copy.copy(y[start : start + size], x[:size], threads, streaming)
            expected = np.zeros_like(y)
            expected[start : start + size] = x[:size]
            np.testing.assert_array_equal(y, expected)


def test_copy_checks_its_arrays():
    for y, x in ((np.zeros(3), np.zeros(4)), (np.zeros(8)[::2], np.zeros(4)), (np.zeros(4), np.zeros(8)[::2])):
        with pytest.raises(ValueError, match="contiguous and of the same size"):
            _copy.copy(y, x, 1, False)


def test_the_fastest_copy_is_one_of_all_ways(monkeypatch):
    tried = []
    monkeypatch.setattr(runner, "seconds_per_call", lambda call: tried.append(call.args[2:]) or len(tried))
    x = np.arange(1000.0)
    best = runner.fastest_copy(x, 2)
    assert set(tried) == {(threads, way) for threads in (1, 2) for way in {False, _copy.can_stream}}
    assert best.args[2:] == tried[0]
    best()
    assert (best.args[0] == x).all()
