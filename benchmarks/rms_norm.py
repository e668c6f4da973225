from .norms import Ratio


class RatioRMSNorm(Ratio):
    norm = "rms_norm"
    shapes = ("1x1024", "512x1024")
    float64_shapes = ()
