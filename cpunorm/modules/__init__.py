"""The norms as classes that hold their parameters and running statistics; the arithmetic is `functional`'s."""

from cpunorm.modules.batchnorm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from cpunorm.modules.groupnorm import GroupNorm
from cpunorm.modules.layernorm import LayerNorm

__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "GroupNorm", "LayerNorm"]
