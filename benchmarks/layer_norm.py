from .norms import Ratio, Time


class TimeLayerNorm(Time):
    norm = "layer_norm"
    shapes = ("1x768", "128x768", "4096x768")
    float64_shapes = ("128x768",)


class RatioLayerNorm(Ratio):
    norm = "layer_norm"
    shapes = TimeLayerNorm.shapes
    float64_shapes = TimeLayerNorm.float64_shapes
