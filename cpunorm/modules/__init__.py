"""The norms as classes that hold their parameters and running statistics; the arithmetic is `functional`'s."""

from cpunorm.modules.batchnorm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from cpunorm.modules.frozen import FrozenBatchNorm2d
from cpunorm.modules.groupnorm import GroupNorm
from cpunorm.modules.instancenorm import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from cpunorm.modules.layernorm import LayerNorm
from cpunorm.modules.localresponsenorm import LocalResponseNorm
from cpunorm.modules.rmsnorm import RMSNorm

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "FrozenBatchNorm2d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LocalResponseNorm",
    "RMSNorm",
]
