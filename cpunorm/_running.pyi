from typing import Any

import numpy as np
from numpy.typing import NDArray

def update(
    running_mean: NDArray[Any],
    running_var: NDArray[Any],
    mean: NDArray[np.float64],
    var: NDArray[np.float64],
    momentum: float,
    count: int,
) -> None: ...
def snapshot(
    running_mean: NDArray[Any], running_var: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
