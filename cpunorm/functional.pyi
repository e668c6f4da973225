from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from cpunorm._plain import local_response_norm as local_response_norm
from cpunorm._plain import normalize as normalize
from cpunorm._types import Activation, Array, DataFormat, Scalar, Shape

__all__ = [
    "add_layer_norm",
    "add_rms_norm",
    "batch_norm",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "local_response_norm",
    "normalize",
    "rms_norm",
]

@overload
def batch_norm(
    input: Array[Shape, Scalar],
    running_mean: NDArray[Any] | None,
    running_var: NDArray[Any] | None,
    weight: NDArray[Any] | None = None,
    bias: NDArray[Any] | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    data_format: DataFormat = "channels_first",
    out: Array[Shape, Any] | None = None,
    activation: Activation | None = None,
    residual: Array[Shape, Scalar] | None = None,
    lengths: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    pad_value: float = 0.0,
    return_stats: Literal[False] = False,
) -> Array[Shape, Scalar]: ...
@overload
def batch_norm(
    input: Array[Shape, Scalar],
    running_mean: NDArray[Any] | None,
    running_var: NDArray[Any] | None,
    weight: NDArray[Any] | None = None,
    bias: NDArray[Any] | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    data_format: DataFormat = "channels_first",
    out: Array[Shape, Any] | None = None,
    activation: Activation | None = None,
    residual: Array[Shape, Scalar] | None = None,
    lengths: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    pad_value: float = 0.0,
    return_stats: Literal[True],
) -> tuple[Array[Shape, Scalar], NDArray[np.float64], NDArray[np.float64]]: ...
@overload
def layer_norm(
    input: Array[Shape, Scalar],
    normalized_shape: int | Sequence[int],
    weight: NDArray[Any] | None = None,
    bias: NDArray[Any] | None = None,
    eps: float = 1e-5,
    *,
    out: Array[Shape, Any] | None = None,
    activation: Activation | None = None,
    residual: Array[Shape, Scalar] | None = None,
    scale: NDArray[Any] | None = None,
    shift: NDArray[Any] | None = None,
    lengths: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    pad_value: float = 0.0,
    return_stats: Literal[False] = False,
) -> Array[Shape, Scalar]: ...
@overload
def layer_norm(
    input: Array[Shape, Scalar],
    normalized_shape: int | Sequence[int],
    weight: NDArray[Any] | None = None,
    bias: NDArray[Any] | None = None,
    eps: float = 1e-5,
    *,
    out: Array[Shape, Any] | None = None,
    activation: Activation | None = None,
    residual: Array[Shape, Scalar] | None = None,
    scale: NDArray[Any] | None = None,
    shift: NDArray[Any] | None = None,
    lengths: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    pad_value: float = 0.0,
    return_stats: Literal[True],
) -> tuple[Array[Shape, Scalar], NDArray[np.float64], NDArray[np.float64]]: ...
@overload
def group_norm(
    input: Array[Shape, Scalar],
    num_groups: int,
    weight: NDArray[Any] | None = None,
    bias: NDArray[Any] | None = None,
    eps: float = 1e-5,
    *,
    data_format: DataFormat = "channels_first",
    out: Array[Shape, Any] | None = None,
    activation: Activation | None = None,
    residual: Array[Shape, Scalar] | None = None,
    scale: NDArray[Any] | None = None,
    shift: NDArray[Any] | None = None,
    lengths: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    pad_value: float = 0.0,
    return_stats: Literal[False] = False,
) -> Array[Shape, Scalar]: ...
@overload
def group_norm(
    input: Array[Shape, Scalar],
    num_groups: int,
    weight: NDArray[Any] | None = None,
    bias: NDArray[Any] | None = None,
    eps: float = 1e-5,
    *,
    data_format: DataFormat = "channels_first",
    out: Array[Shape, Any] | None = None,
    activation: Activation | None = None,
    residual: Array[Shape, Scalar] | None = None,
    scale: NDArray[Any] | None = None,
    shift: NDArray[Any] | None = None,
    lengths: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    pad_value: float = 0.0,
    return_stats: Literal[True],
) -> tuple[Array[Shape, Scalar], NDArray[np.float64], NDArray[np.float64]]: ...
@overload
def instance_norm(
    input: Array[Shape, Scalar],
    running_mean: NDArray[Any] | None = None,
    running_var: NDArray[Any] | None = None,
    weight: NDArray[Any] | None = None,
    bias: NDArray[Any] | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    data_format: DataFormat = "channels_first",
    out: Array[Shape, Any] | None = None,
    activation: Activation | None = None,
    residual: Array[Shape, Scalar] | None = None,
    scale: NDArray[Any] | None = None,
    shift: NDArray[Any] | None = None,
    lengths: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    pad_value: float = 0.0,
    return_stats: Literal[False] = False,
) -> Array[Shape, Scalar]: ...
@overload
def instance_norm(
    input: Array[Shape, Scalar],
    running_mean: NDArray[Any] | None = None,
    running_var: NDArray[Any] | None = None,
    weight: NDArray[Any] | None = None,
    bias: NDArray[Any] | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    data_format: DataFormat = "channels_first",
    out: Array[Shape, Any] | None = None,
    activation: Activation | None = None,
    residual: Array[Shape, Scalar] | None = None,
    scale: NDArray[Any] | None = None,
    shift: NDArray[Any] | None = None,
    lengths: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    pad_value: float = 0.0,
    return_stats: Literal[True],
) -> tuple[Array[Shape, Scalar], NDArray[np.float64], NDArray[np.float64]]: ...
@overload
def rms_norm(
    input: Array[Shape, Scalar],
    normalized_shape: int | Sequence[int],
    weight: NDArray[Any] | None = None,
    eps: float | None = None,
    *,
    unit_offset: bool = False,
    out: Array[Shape, Any] | None = None,
    activation: Activation | None = None,
    residual: Array[Shape, Scalar] | None = None,
    scale: NDArray[Any] | None = None,
    shift: NDArray[Any] | None = None,
    lengths: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    pad_value: float = 0.0,
    return_stats: Literal[False] = False,
) -> Array[Shape, Scalar]: ...
@overload
def rms_norm(
    input: Array[Shape, Scalar],
    normalized_shape: int | Sequence[int],
    weight: NDArray[Any] | None = None,
    eps: float | None = None,
    *,
    unit_offset: bool = False,
    out: Array[Shape, Any] | None = None,
    activation: Activation | None = None,
    residual: Array[Shape, Scalar] | None = None,
    scale: NDArray[Any] | None = None,
    shift: NDArray[Any] | None = None,
    lengths: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    pad_value: float = 0.0,
    return_stats: Literal[True],
) -> tuple[Array[Shape, Scalar], NDArray[np.float64], NDArray[np.float64]]: ...
def add_layer_norm(
    input: Array[Shape, Scalar],
    residual: Array[Shape, Scalar],
    normalized_shape: int | Sequence[int],
    weight: NDArray[Any] | None = None,
    bias: NDArray[Any] | None = None,
    eps: float = 1e-5,
    *,
    activation: Activation | None = None,
    out: Array[Shape, Scalar] | None = None,
    sum_out: Array[Shape, Scalar] | None = None,
) -> tuple[Array[Shape, Scalar], Array[Shape, Scalar]]: ...
def add_rms_norm(
    input: Array[Shape, Scalar],
    residual: Array[Shape, Scalar],
    normalized_shape: int | Sequence[int],
    weight: NDArray[Any] | None = None,
    eps: float | None = None,
    *,
    unit_offset: bool = False,
    activation: Activation | None = None,
    out: Array[Shape, Scalar] | None = None,
    sum_out: Array[Shape, Scalar] | None = None,
) -> tuple[Array[Shape, Scalar], Array[Shape, Scalar]]: ...
