"""The norms as classes that hold their parameters and running statistics; the arithmetic is `functional`'s."""

from cpunorm.modules.batchnorm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from cpunorm.modules.frozen import FrozenBatchNorm2d
from cpunorm.modules.groupnorm import GroupNorm
from cpunorm.modules.layernorm import LayerNorm
from cpunorm.modules.localresponsenorm import LocalResponseNorm

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "FrozenBatchNorm2d",
    "GroupNorm",
    "LayerNorm",
    "LocalResponseNorm",
]
