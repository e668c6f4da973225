from .norms import Ratio


class RatioInstanceNorm(Ratio):
    norm = "instance_norm"
    shapes = ("1x64x128x128",)
    float64_shapes = ()
