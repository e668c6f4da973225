"""Three tiny layers in place of `cpunorm bench`'s."""

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
