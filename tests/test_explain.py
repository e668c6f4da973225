"""`explain` says what a call would do, and does nothing of it."""

import threading

import numpy as np
import pytest
from arrays import memory
from norms import values

import cpunorm
from cpunorm import _cpu, functional

F32 = np.float32
EVALUATION = (np.zeros(6, F32), np.ones(6, F32))
LINES = ("call", "engine", "layout", "way", "threads", "passes", "copies", "advice")


@pytest.fixture(autouse=True)
def _cython():
    with cpunorm.engine("cython"):
        yield


def of(shape, dtype=F32):
    return values(shape, dtype)


@pytest.mark.parametrize(
    ("way", "call", "x", "more"),
    [
        ("rows", functional.layer_norm, of((4, 768)), {"normalized_shape": 768}),
        ("rows", functional.group_norm, of((2, 6, 9, 9)), {"num_groups": 3}),
        (
            "rows",
            functional.batch_norm,
            of((2, 6, 16, 16)),
            {"running_mean": None, "running_var": None, "training": True},
        ),
        ("columns", functional.batch_norm, of((500, 6)), {"running_mean": None, "running_var": None, "training": True}),
        ("columns", functional.instance_norm, of((2, 9, 9, 96)), {"data_format": "channels_last"}),
        ("columns", functional.layer_norm, of((2, 64, 9, 9)).transpose(0, 2, 3, 1), {"normalized_shape": 64}),
        (
            "columns",
            functional.batch_norm,
            of((9, 6)),
            dict(zip(("running_mean", "running_var"), EVALUATION, strict=True)),
        ),
        ("sum", functional.add_rms_norm, of((4, 96)), {"residual": of((4, 96)), "normalized_shape": 96}),
        ("columns", functional.add_rms_norm, of((96, 96)).T, {"residual": of((96, 96)).T, "normalized_shape": 96}),
        (
            "columns",
            functional.batch_norm,
            of((2, 9, 96)),
            {"running_mean": None, "running_var": None, "training": True}
            | {"data_format": "channels_last", "lengths": [9, 4]},
        ),
        ("lanes", functional.rms_norm, of((300, 8)), {"normalized_shape": 8}),
        ("lanes", functional.group_norm, of((30, 6, 4)), {"num_groups": 3}),
    ],
)
def test_ways(way, call, x, more):
    assert cpunorm.explain(call, x, **more).way == way


def test_what_a_domain_is():
    told = cpunorm.explain(functional.group_norm, of((2, 6, 9, 9)), 3)
    assert told.layout == {"samples": 2, "outer": 1, "middle": 1, "channels": 6, "inner": 81}
    assert told.domains == (6, 162)
    assert (told.call, told.engine, told.copies) == ("group_norm", "cython", ())
    assert told.isa == cpunorm.show_config("dicts")["isa"]


def test_sums_that_are_made_first_are_no_copies():
    x = of((96, 96)).T
    total = np.full_like(x, 7)
    told = cpunorm.explain(functional.add_rms_norm, x, x, 96, sum_out=total)
    assert told.copies == ()
    assert (total == 7).all()
    assert told.passes.startswith("the sum is made first")
    assert len(cpunorm.explain(functional.add_rms_norm, x, of((96, 96)), 96).copies) == 1


def shown(told):
    """The repr's lines by their names."""
    text = repr(told).replace("\n" + 9 * " ", " ")
    return {line[:9].strip(): line[9:] for line in text.splitlines()}


def test_the_repr_says_all_of_it():
    told = cpunorm.explain(cpunorm.LayerNorm(768), of((4, 768)))
    lines = shown(told)
    assert tuple(lines) == LINES
    assert lines["call"] == "LayerNorm"
    assert lines["layout"] == "4 channels x 768 inner; 4 domains of 768 values"
    assert lines["way"].startswith("rows: ")
    assert lines["copies"] == "none"
    assert lines["advice"] == told.advice
    assert max(map(len, repr(told).splitlines())) <= 100


@pytest.mark.parametrize("engine", ["numba", "reference"])
def test_other_engines(engine):
    if engine == "numba":
        pytest.importorskip("numba")
    with cpunorm.engine(engine):
        told = cpunorm.explain(functional.layer_norm, of((4, 768)), 768)
    assert (told.engine, told.isa, told.way) == (engine, None, None)
    assert shown(told)["way"] == f"the engine {engine} doesn't say"
    assert ("set_engine" in told.advice) == (engine == "reference")


def misaligned(x):
    raw = np.empty(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    raw[...] = x
    return raw


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (of((4, 6)).astype(">f4"), "swapped"),
        (misaligned(of((4, 6))), "misaligned"),
        (of((3, 3, 4, 4, 80))[::2, ::2, ::2, ::2, :40], "uneven axes"),
        (of((64, 768))[:, ::2], "short runs"),
        (of((64, 9, 40))[:, :, :24].astype(np.float16)[:, ::2], "short runs"),
    ],
)
def test_copies_of_the_input(x, says):
    told = cpunorm.explain(functional.layer_norm, x, x.shape[-1])
    assert len(told.copies) == 1
    assert says in told.copies[0]
    assert "np.array" in told.advice
    plain = cpunorm.explain(functional.layer_norm, np.array(x, F32), x.shape[-1])
    assert plain.copies == ()
    assert "np.array" not in plain.advice


def test_samples_that_lie_innermost():
    (told,) = cpunorm.explain(functional.group_norm, np.asfortranarray(of((9, 8, 7, 6))), 2).copies
    assert "samples innermost" in told


def test_an_out_that_is_copied_to():
    x = of((4, 6))
    assert cpunorm.explain(functional.layer_norm, x, 6, out=np.empty_like(x)).copies == ()
    assert cpunorm.explain(functional.layer_norm, x, 6, out=x).copies == ()
    (copy,) = cpunorm.explain(functional.layer_norm, x, 6, out=misaligned(x)).copies
    assert "copied to out" in copy
    assert cpunorm.explain(functional.layer_norm, x, 6, out=np.empty((4, 12), F32)[:, ::2]).copies == ()


def test_packed_values():
    told = cpunorm.explain(functional.layer_norm, of((16, 70, 50))[:, :, :40], (70, 40))
    assert "packed" in told.passes
    assert "ascontiguousarray" in told.advice
    assert "packed" not in cpunorm.explain(functional.layer_norm, of((64, 384)), 384).passes


def test_passes():
    x = of((4, 6, 9, 9))
    assert "read twice" in cpunorm.explain(functional.batch_norm, x, None, None, training=True).passes
    told = cpunorm.explain(functional.batch_norm, x, *EVALUATION)
    assert "read once" in told.passes
    assert "fuse_conv_bn_weights" in told.advice


def test_threads_are_those_that_the_call_would_get():
    small, large = of((4, 768)), np.zeros((1 << 11, 1 << 10), F32)  # read twice: worth waking a team
    with cpunorm.num_threads(2):
        assert cpunorm.explain(functional.layer_norm, small, 768).why.startswith("6144 values read are fewer than")
        told = cpunorm.explain(functional.layer_norm, large, 1 << 10)
        assert told.threads == cpunorm.get_num_threads() == _cpu.threads_for(large.size, 2)
        assert told.why == "4194304 values read are worth a team"
    with cpunorm.num_threads(1):
        assert cpunorm.explain(functional.layer_norm, large, 1 << 10)[6:8] == (
            1,
            "one thread is all that a call may use",
        )


def test_a_sleeping_team_is_not_woken(monkeypatch):
    """And to explain a call doesn't count as one."""
    x = np.zeros((1 << 8, 1 << 10), F32)
    with cpunorm.num_threads(2):
        threading.Event().wait(0.01)
        for _ in range(3):
            told = cpunorm.explain(functional.layer_norm, x, 1 << 10)
            assert told.threads == 1
            assert told.why.startswith("the team sleeps, 2 ms after")
            assert "more often" in told.advice


def test_an_output_that_is_fresh_memory():
    x, limit = of((4, 768)), cpunorm.get_cache_limit()
    cpunorm.set_cache_limit(0)
    try:
        assert "out=" in cpunorm.explain(functional.layer_norm, x, 768).advice
        assert "out=" not in cpunorm.explain(functional.layer_norm, x, 768, out=x).advice
    finally:
        cpunorm.set_cache_limit(limit)


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_done(engine, training):
    arrays = {"x": of((4, 6, 9, 9)), "out": np.full((4, 6, 9, 9), 7, F32)}
    module = cpunorm.BatchNorm2d(6).train(training)
    before = memory(arrays), memory(module.state_dict())
    assert cpunorm.explain(module, arrays["x"], out=arrays["out"]).call == "BatchNorm2d"
    assert cpunorm.explain(module, arrays["x"], out=arrays["x"]).call == "BatchNorm2d"
    instance = cpunorm.InstanceNorm2d(6, track_running_stats=True).train(training)
    kept = memory(instance.state_dict())
    cpunorm.explain(instance, arrays["x"])
    assert (memory(arrays), memory(module.state_dict())) == before
    assert memory(instance.state_dict()) == kept
    module(arrays["x"])  # and calls are calls again
    assert module.num_batches_tracked == training


def test_errors_are_those_of_the_call():
    module = cpunorm.BatchNorm2d(6)
    with pytest.raises(ValueError, match="4-D"):
        cpunorm.explain(module, of((4, 6)))
    with pytest.raises(RuntimeError, match="normalized_shape"):
        cpunorm.explain(functional.layer_norm, of((4, 6)), 5)
    with pytest.raises(TypeError, match="argument"):
        cpunorm.explain(functional.layer_norm, of((4, 6)))
    assert functional.layer_norm(of((4, 6)), 6).shape == (4, 6)  # they leave nothing behind


@pytest.mark.parametrize("call", [functional.normalize, cpunorm.LocalResponseNorm(2)], ids=["normalize", "lrn"])
def test_what_has_no_kernel(call):
    with pytest.raises(ValueError, match="no kernel"):
        cpunorm.explain(call, of((4, 6, 5)))
    with pytest.raises(ValueError, match="no kernel"):
        cpunorm.explain(functional.layer_norm, of((0, 6)), 6)


@pytest.mark.parametrize("call", [None, print, len, cpunorm.LayerNorm, "layer_norm", cpunorm.fuse_conv_bn_weights])
def test_what_is_no_norm(call):
    with pytest.raises(TypeError, match="explain takes"):
        cpunorm.explain(call, of((4, 6)))


def test_calls_of_other_threads_go_on():
    results = []

    class Slow:
        """An array that is converted in the middle of the call that is explained."""

        @property
        def __array_interface__(self):
            thread = threading.Thread(target=lambda: results.append(functional.layer_norm(of((4, 6)), 6)))
            thread.start()
            thread.join()
            return of((4, 6)).__array_interface__

    assert cpunorm.explain(functional.layer_norm, Slow(), 6).domains == (4, 6)
    assert results
    assert all(np.array_equal(result, functional.layer_norm(of((4, 6)), 6)) for result in results)
