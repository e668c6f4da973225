"""Norms with what people do before and after them; NumPy has none of these as one call."""

from .norms import Ratio, Time


class TimeAddLayerNorm(Time):
    norm = "add_layer_norm"
    shapes = ("128x768",)
    float64_shapes = ()


class TimeAddRMSNorm(Time):
    norm = "add_rms_norm"
    shapes = ("512x1024",)
    float64_shapes = ()


class RatioAddLayerNorm(Ratio):
    norm = "add_layer_norm"
    shapes = TimeAddLayerNorm.shapes
    float64_shapes = ()
    track_vs_numpy = None


class RatioAddRMSNorm(Ratio):
    norm = "add_rms_norm"
    shapes = TimeAddRMSNorm.shapes
    float64_shapes = ()
    track_vs_numpy = None


class TimeBatchNormReLU(Time):
    norm = "batch_norm"
    shapes = ("8x256x28x28/residual/relu",)
    float64_shapes = ()


class TimeGroupNormSiLU(Time):
    norm = "group_norm"
    shapes = ("2x320x64x64/32/silu",)
    float64_shapes = ()
