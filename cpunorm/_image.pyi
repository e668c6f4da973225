from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

def use_kernel(module: ModuleType) -> None: ...
def normalize_image(
    image: NDArray[Any] | Sequence[NDArray[Any]],
    mean: float | Sequence[float] | NDArray[np.floating],
    std: float | Sequence[float] | NDArray[np.floating],
    scale: float | None,
    layout: str,
    swap_channels: bool,
    dtype: DTypeLike,
    out: NDArray[Any] | None,
) -> NDArray[Any]: ...
