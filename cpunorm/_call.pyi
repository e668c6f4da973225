from collections.abc import Callable
from types import ModuleType
from typing import Any

from numpy.typing import NDArray

class Explained(BaseException): ...

def explain(call: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]: ...
def use_kernels(module: ModuleType) -> None: ...
def deliver(y: NDArray[Any], out: NDArray[Any] | None, dtype: object) -> NDArray[Any]: ...

# Whatever a caller wrote comes in here; `functional` says what comes out.
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
    activation: object,
    residual: object,
    moments: object,
    counter: object,
) -> Any: ...
def group_norm(
    input: object,
    num_groups: object,
    weight: object,
    bias: object,
    eps: object,
    data_format: object,
    out: object,
    activation: object,
    residual: object,
    scale: object,
    shift: object,
    moments: object,
) -> Any: ...
def layer_norm(
    input: object,
    normalized_shape: object,
    weight: object,
    bias: object,
    eps: object,
    out: object,
    activation: object,
    residual: object,
    scale: object,
    shift: object,
    moments: object,
) -> Any: ...
def rms_norm(
    input: object,
    normalized_shape: object,
    weight: object,
    bias: object,
    eps: object,
    unit_offset: object,
    out: object,
    activation: object,
    residual: object,
    scale: object,
    shift: object,
    moments: object,
) -> Any: ...
def instance_norm(
    input: object,
    running_mean: object,
    running_var: object,
    weight: object,
    bias: object,
    use_input_stats: object,
    momentum: object,
    eps: object,
    data_format: object,
    out: object,
    activation: object,
    residual: object,
    scale: object,
    shift: object,
    moments: object,
) -> Any: ...
def is_better_dense(x: NDArray[Any], given: bool) -> bool: ...
def batch_moments(input: object, data_format: object) -> tuple[NDArray[Any], NDArray[Any]]: ...
def apply_moments(
    input: object,
    moments: object,
    weight: object,
    bias: object,
    eps: object,
    data_format: object,
    out: object,
    activation: object,
    residual: object,
) -> Any: ...
def move_statistics(
    running_mean: object,
    running_var: object,
    counter: object,
    mean: object,
    var: object,
    momentum: object,
    count: object,
) -> None: ...
def add_layer_norm(
    input: object,
    residual: object,
    normalized_shape: object,
    weight: object,
    bias: object,
    eps: object,
    activation: object,
    out: object,
    sum_out: object,
) -> tuple[NDArray[Any], NDArray[Any]]: ...
def add_rms_norm(
    input: object,
    residual: object,
    normalized_shape: object,
    weight: object,
    eps: object,
    unit_offset: object,
    activation: object,
    out: object,
    sum_out: object,
) -> tuple[NDArray[Any], NDArray[Any]]: ...
