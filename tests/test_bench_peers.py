"""`cpunorm bench`'s libraries: each does the same work, and says what it doesn't have."""

import importlib.util
import os
from dataclasses import replace
from pathlib import Path
from unittest import mock

import fresh
import pytest
import tiny

from cpunorm.bench import cases, peers, runner
from cpunorm.bench.cases import Layer

CASES = cases.expand(tiny.LAYERS, "float32")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=tiny.NAMES)
def test_cpunorm_and_numpy_do_the_same_work(case, dtype, engine):
    case = replace(case, dtype=dtype)
    a = case.arrays()
    for peer, allowed in ((peers.CPUNorm(1, engine[0]), runner.PROMISED), (peers.NumPy(1), runner.SAME_WORK)):
        call, error = runner.checked(peer, case, a, case.expected(a), allowed)
        assert error <= 1.5 * allowed[dtype]
        assert (call.into is not None) == peer.takes_out


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=tiny.NAMES)
def test_torch_does_the_same_work_on_the_same_memory(case, dtype):
    torch = pytest.importorskip("torch")
    case = replace(case, dtype=dtype)
    a = case.arrays()
    peer, before = peers.Torch(1), torch.get_num_threads()
    with peer.context():
        call, _ = runner.checked(peer, case, a, case.expected(a), runner.SAME_WORK)
        assert torch.is_inference(call.fresh())
        assert torch.get_num_threads() == 1
        if case.channels_last:
            assert call.fresh().is_contiguous(memory_format=torch.channels_last)
    assert torch.get_num_threads() == before
    assert not torch.is_inference_mode_enabled()


FAMILY = (
    Layer("net", "add_layer_norm", (6, 8)),
    Layer("net", "add_rms_norm", (6, 8)),
    Layer("net", "batch_norm", (2, 3, 4, 5), residual=True, activation="relu"),
    Layer("net", "group_norm", (2, 4, 3, 3), groups=2, activation="silu"),
    Layer("net", "layer_norm", (6, 8), activation="gelu"),
    Layer("net", "rms_norm", (6, 8)),
    Layer("net", "instance_norm", (2, 4, 3, 3)),
)


@pytest.mark.parametrize("dtype", runner.PROMISED)
def test_the_same_work_before_and_after_the_norms(dtype):
    pytest.importorskip("torch")
    for case in cases.expand((*FAMILY, *tiny.LAYERS), dtype):
        a = case.arrays()
        for peer, allowed in ((peers.CPUNorm(1, "cython"), runner.PROMISED), (peers.Torch(1), runner.SAME_WORK)):
            with peer.context():
                call, _ = runner.checked(peer, case, a, case.expected(a), allowed)
            assert call is not None
        assert case.module.count("+") == (case.norm.startswith("add")) + case.layer.residual + bool(
            case.layer.activation
        )
        if dtype in ("float32", "float64"):
            call, _ = runner.checked(peers.NumPy(1), case, a, case.expected(a), runner.SAME_WORK)
            assert (call is None) == (case.layer.activation in ("silu", "gelu"))


ONNX = {"NHWC", "train"}  # what ONNX lacks


@pytest.mark.parametrize(
    ("name", "lacks"),
    [
        # it has them, but takes seconds for each
        pytest.param("torch.compile", {"eval", "NCHW", "GroupNorm-2", "float64"}, marks=pytest.mark.slow),
        ("onnxruntime", ONNX),
        ("onnxruntime-bound", ONNX),
        ("openvino", {*ONNX, "float64", "add + LayerNorm", "add + RMSNorm"}),
        ("jax", set()),
    ],
)
def test_the_others_do_the_same_work_or_none(name, lacks):
    """In a process of its own: they start threads, of which they or Python would warn at a later fork."""
    if not peers.PEERS[name].installed():
        pytest.skip(f"{name} is not installed")
    code = f"""
import os, test_bench_peers, tiny
import numpy as np
from cpunorm.bench import cases, peers, runner
peer = peers.PEERS[{name!r}](len(os.sched_getaffinity(0)) if {name!r} == "jax" else 1)
assert peer.version[0].isdigit()
for case in cases.expand(test_bench_peers.FAMILY, "float32") if {name!r} != "torch.compile" else ():
    a = case.arrays()
    with peer.context():
        call, error = runner.checked(peer, case, a, case.expected(a), runner.SAME_WORK)
    assert (call is None) == bool({lacks} & set(case.name.split("/"))), case.name
for case in cases.expand(tiny.LAYERS, "float32") + cases.expand(tiny.LAYERS, "float64"):
    if peer.compiles and {lacks} & set(case.name.split("/")):
        continue
    a = case.arrays()
    with peer.context():
        call, error = runner.checked(peer, case, a, case.expected(a), runner.SAME_WORK)
        if call is None:
            continue
        first = peer.to_numpy(case, call.fresh())
        second = peer.to_numpy(case, call.fresh())
        assert (first == second).all() and not np.shares_memory(first, second)
        assert (call.into is not None) == peer.takes_out
        if call.into:
            first, second = (peer.to_numpy(case, call.into()) for _ in range(2))
            assert np.shares_memory(first, second)
    print(case.name)
"""
    path = os.pathsep.join((str(fresh.PACKAGE.parent), str(Path(__file__).parent)))
    done = fresh.python(code, timeout=300, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    every = [*tiny.NAMES, *(case.replace("float32", "float64") for case in tiny.NAMES)]
    assert done.stdout.split() == [case for case in every if not lacks & set(case.split("/"))]


@pytest.mark.parametrize(
    ("name", "lacks"),
    [
        ("cpunorm", ()),
        ("numpy", ()),
        ("torch", ()),
        ("opencv", ("HWC->HWC", "x5/")),
        ("albucore", ()),
        ("onnxruntime", ("HWC",)),
    ],
)
def test_images(name, lacks, monkeypatch):
    """Each library normalises them as the formula, or says that it doesn't."""
    if name != "cpunorm" and not peers.PEERS[name].installed():
        pytest.skip(f"{name} is not installed")
    layers = [cases.Layer("net", "normalize_image", (6, 7, channels)) for channels in (1, 3, 4, 5)]
    monkeypatch.setattr(cases, "IMAGES", layers)
    for case in cases.image_cases():
        a = case.arrays()
        peer = peers.CPUNorm(1, "cython") if name == "cpunorm" else peers.PEERS[name](1)
        with peer.context():
            allowed = runner.PROMISED if name == "cpunorm" else runner.SAME_WORK
            call, error = runner.checked(peer, case, a, case.expected(a), allowed)
        assert (call is None) == any(text in case.name for text in lacks), case.name
        assert call is None or error < 1e-5


STATISTICS = [
    (Layer("net", "moments", (640, 5)), (0,), None),
    (Layer("net", "moments", (4, 5, 6, 7)), (0, 2, 3), None),
    (Layer("net", "moments", (5000,)), None, None),
    (Layer("net", "moments", (20, 30, 3)), (0, 1), "uint8"),
    (Layer("net", "standardize", (640, 5)), (0,), None),
    (Layer("net", "standardize", (20, 30, 3)), (0, 1), None),
    (Layer("net", "standardize_sliding", (400, 5)), (0,), None),
    (Layer("net", "sklearn_fit", (640, 5)), (0,), None),
    (Layer("net", "sklearn_transform", (640, 5)), (0,), None),
    (Layer("net", "dask_moments", (640, 5)), (0,), None),
    (Layer("net", "dask_standardize", (640, 5)), (0,), None),
]
EXTRAS = {"sklearn_fit", "sklearn_transform", "dask_moments", "dask_standardize"}


def statistics_of(name):
    """Which of `STATISTICS` the library has, after each was checked."""
    ours = name == "cpunorm"
    threads = len(os.sched_getaffinity(0)) if name == "jax" else 1
    peer = peers.CPUNorm(1, "cython") if ours else peers.PEERS[name](threads)
    with mock.patch.object(cases, "STATISTICS", STATISTICS):
        every = cases.statistics_cases("float32")
    has = []
    for case in every:
        a = case.arrays()
        before = a.x.copy()
        with peer.context():
            call, _ = runner.checked(peer, case, a, case.expected(a), runner.PROMISED if ours else runner.SAME_WORK)
        assert (a.x == before).all()
        if call is not None:
            assert not ours or call.into is not None
            has.append(f"{case.norm} {case.layout}")
    return has


@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("cpunorm", {"all", "axis 0", "axes 0,1", "axes 0,2,3", "standardize_sliding", *EXTRAS}),
        ("numpy", {"all", "axis 0", "axes 0,1", "axes 0,2,3", "standardize_sliding"}),
        ("torch", {"all", "axis 0", "axes 0,1", "axes 0,2,3", "standardize_sliding"}),
        ("jax", {"all", "axis 0", "axes 0,1", "axes 0,2,3"}),
        ("opencv", {"moments axes 0,1"}),
        ("albucore", {"standardize axes 0,1"}),
        ("numbagg", {"moments all", "moments axis 0", "moments axes 0,2,3", "standardize_sliding"}),
        ("bottleneck", {"moments all", "moments axis 0", "standardize_sliding"}),
        pytest.param("sklearn", {"axis 0", "sklearn_fit", "sklearn_transform"}, marks=pytest.mark.slow),
        pytest.param("dask", {"dask_moments", "dask_standardize"}, marks=pytest.mark.slow),
        ("onnxruntime", set()),
    ],
)
def test_statistics(name, has):
    """Each library takes the moments that are expected, or says that it doesn't; others in a process, as above."""
    if name in ("cpunorm", "numpy"):
        known = statistics_of(name)
    else:
        if not peers.PEERS[name].installed():
            pytest.skip(f"{name} is not installed")
        path = os.pathsep.join((str(fresh.PACKAGE.parent), str(Path(__file__).parent)))
        code = f"import test_bench_peers; print(*test_bench_peers.statistics_of({name!r}), sep='\\n')"
        done = fresh.python(code, timeout=300, PYTHONPATH=path)
        assert done.returncode == 0, done.stderr
        known = done.stdout.splitlines()
    installed = {extra for extra in EXTRAS if importlib.util.find_spec(extra.partition("_")[0])}
    expected = []
    for layer, axis, mode in STATISTICS:
        case = cases.StatisticsCase(layer, False, mode, "float32", axis=axis)
        plain = layer.norm in ("moments", "standardize")
        names = {f"{layer.norm} {case.layout}", *((case.layout,) if plain else (layer.norm,))}
        if names & has and (layer.norm not in EXTRAS or layer.norm in installed):
            expected.append(f"{case.norm} {case.layout}")
    assert [line for line in known if line] == expected


def test_jax_has_only_the_threads_of_its_process():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    peer = object.__new__(peers.PEERS["jax"])  # which may not be installed
    for peer.threads, has in ((cores, True), (cores + 1, False)):
        assert peer.has(CASES[0]) == has


def test_torch_compile_needs_a_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not peers.PEERS["torch.compile"].installed()
