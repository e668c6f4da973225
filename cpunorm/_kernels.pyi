from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Float = TypeVar("_Float", np.float32, np.float64)

KERNEL_SET: object  # a capsule: the same functions for `_express`

# x and y are canonical views, see `_kernels_reference`; y is written, so are mean and var in training.
def batch_norm_training(
    x: NDArray[_Float],
    y: NDArray[_Float],
    mean: NDArray[np.float64],
    var: NDArray[np.float64],
    weight: NDArray[_Float] | None,
    bias: NDArray[_Float] | None,
    eps: float,
    num_threads: int,
) -> None: ...
def batch_norm_inference(
    x: NDArray[_Float],
    y: NDArray[_Float],
    mean: NDArray[np.float64],
    var: NDArray[np.float64],
    weight: NDArray[_Float] | None,
    bias: NDArray[_Float] | None,
    eps: float,
    num_threads: int,
) -> None: ...
def group_norm(
    x: NDArray[_Float],
    y: NDArray[_Float],
    groups: int,
    weight: NDArray[_Float] | None,
    bias: NDArray[_Float] | None,
    eps: float,
    num_threads: int,
) -> None: ...
def layer_norm(
    x: NDArray[_Float],
    y: NDArray[_Float],
    weight: NDArray[_Float] | None,
    bias: NDArray[_Float] | None,
    eps: float,
    num_threads: int,
) -> None: ...
