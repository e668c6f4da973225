from .norms import Ratio, Time


class TimeGroupNorm(Time):
    norm = "group_norm"
    shapes = ("2x320x64x64/32",)
    float64_shapes = shapes


class RatioGroupNorm(Ratio):
    norm = "group_norm"
    shapes = float64_shapes = TimeGroupNorm.shapes
