"""`cpunorm bench` on three tiny layers in place of its own."""

from cpunorm.bench import cases, peers, runner
from cpunorm.bench.__main__ import main
from cpunorm.bench.cases import Layer

LAYERS = (
    Layer("net", "batch_norm", (2, 3, 4, 5), quick=True),
    Layer("net", "layer_norm", (6, 8), quick=True),
    Layer("net", "group_norm", (2, 4, 3, 3), groups=2, quick=True),
)
NAMES = [
    *(f"net/BatchNorm2d/2x3x4x5/{layout}/{mode}/float32" for layout in ("NCHW", "NHWC") for mode in ("eval", "train")),
    "net/LayerNorm/6x8/float32",
    *(f"net/GroupNorm-2/2x4x3x3/{layout}/float32" for layout in ("NCHW", "NHWC")),
]


def shrink(monkeypatch):
    """The command line sees those layers, NumPy, and blocks that are over at once."""
    monkeypatch.setattr(cases, "LAYERS", LAYERS)
    monkeypatch.setattr(cases, "IMAGES", ())
    monkeypatch.setattr(cases, "STATISTICS", ())
    monkeypatch.setattr(cases, "accuracy_cases", list)
    monkeypatch.setattr(peers, "PEERS", {"numpy": peers.NumPy})
    monkeypatch.setattr("cpunorm.bench.__main__.PEERS", peers.PEERS)
    monkeypatch.setattr(runner, "BLOCK_SECONDS", 1e-5)


def bench(*arguments):
    """The exit code of a run on one thread with as few samples as can be."""
    return main(["bench", "--samples", "7", "--threads", "1", *arguments])
