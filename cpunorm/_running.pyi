from typing import Any

import numpy as np
from numpy.typing import NDArray

def is_counter_array(counter: object) -> bool: ...
def count(counter: object) -> None: ...
def update_arrays(
    running_mean: NDArray[Any] | None,
    running_var: NDArray[Any] | None,
    counter: NDArray[np.int64] | None,
    mean: NDArray[np.float64],
    var: NDArray[np.float64],
    momentum: float | None,
    count: int,
) -> None: ...
def snapshot(arrays: list[NDArray[Any] | None]) -> list[NDArray[Any] | None]: ...
def write(targets: list[NDArray[Any]], values: list[NDArray[Any]]) -> None: ...
