"""Norms with what people do before and after them; NumPy has none of these as one call."""

from .norms import Time


class TimeAddLayerNorm(Time):
    norm = "add_layer_norm"
    shapes = ("128x768",)
    float64_shapes = ()


class TimeAddRMSNorm(Time):
    norm = "add_rms_norm"
    shapes = ("512x1024",)
    float64_shapes = ()


class TimeBatchNormReLU(Time):
    norm = "batch_norm"
    shapes = ("8x256x28x28/residual/relu",)
    float64_shapes = ()


class TimeGroupNormSiLU(Time):
    norm = "group_norm"
    shapes = ("2x320x64x64/32/silu",)
    float64_shapes = ()
