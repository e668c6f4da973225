from types import ModuleType
from typing import Any

from numpy.typing import NDArray

def use_kernels(module: ModuleType | None) -> None: ...
def use_threads(threads: int) -> None: ...
def threads_for(size: int, reads: int) -> int: ...

# Whatever a caller wrote comes in here; None means that `functional` has to look at it.
def batch_norm(
    input: object,
    running_mean: object,
    running_var: object,
    weight: object,
    bias: object,
    training: object,
    momentum: object,
    eps: object,
    data_format: object,
    out: object,
    counter: object,
) -> NDArray[Any] | None: ...
def group_norm(
    input: object, num_groups: object, weight: object, bias: object, eps: object, data_format: object, out: object
) -> NDArray[Any] | None: ...
def layer_norm(
    input: object, normalized_shape: object, weight: object, bias: object, eps: object, out: object
) -> NDArray[Any] | None: ...
