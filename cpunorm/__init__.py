"""Normalisation layers for NumPy arrays on CPUs, with the names and numbers of `torch.nn`."""

from cpunorm import functional
from cpunorm._config import get_include, show_config
from cpunorm._engine import engine, get_engine, set_engine, warmup
from cpunorm._explain import explain
from cpunorm._fusion import fuse_conv_bn_weights, fuse_linear_bn_weights
from cpunorm._memory import empty_cache, get_cache_limit, set_cache_limit
from cpunorm._moments import Moments
from cpunorm._statistics import moments, standardize, standardize_sliding
from cpunorm._threads import get_num_threads, num_threads, set_num_threads
from cpunorm._version import __version__
from cpunorm.images import normalize_image
from cpunorm.modules import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    FrozenBatchNorm2d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    LocalResponseNorm,
    RMSNorm,
)

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
    "Moments",
    "RMSNorm",
    "__version__",
    "empty_cache",
    "engine",
    "explain",
    "functional",
    "fuse_conv_bn_weights",
    "fuse_linear_bn_weights",
    "get_cache_limit",
    "get_engine",
    "get_include",
    "get_num_threads",
    "moments",
    "normalize_image",
    "num_threads",
    "set_cache_limit",
    "set_engine",
    "set_num_threads",
    "show_config",
    "standardize",
    "standardize_sliding",
    "warmup",
]
