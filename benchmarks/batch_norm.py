from .norms import Ratio, Time


class TimeBatchNorm(Time):
    norm = "batch_norm"
    shapes = ("1x8x4x4", "1x64x56x56", "32x64x56x56")
    float64_shapes = ("1x64x56x56",)


class RatioBatchNorm(Ratio):
    norm = "batch_norm"
    shapes = (*TimeBatchNorm.shapes, "256x1024", "8x256x28x28", "32x64x112x112")
    float64_shapes = TimeBatchNorm.float64_shapes
