from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

ELEMENTS: dict[np.dtype[Any], int]
FIELDS: int
UNIT: int

def use_kernels(module: ModuleType) -> None: ...
def moments(
    x: NDArray[Any], axes: tuple[int, ...], where: NDArray[np.bool] | None, omit: bool
) -> NDArray[np.float64]: ...
def standardize(
    x: NDArray[Any],
    axes: tuple[int, ...],
    record: NDArray[np.float64],
    ddof: float,
    eps: float,
    floor: float,
    least: float,
    most: float,
    y: NDArray[Any],
) -> bool: ...
def slide(
    x: NDArray[Any], axis: int, window: int, least_window: int, centred: bool, scaled: bool, y: NDArray[Any]
) -> None: ...
def merge(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]: ...
def as_tallied(function: str, x: object) -> NDArray[Any]: ...
def is_walkable(y: NDArray[Any]) -> bool: ...
def as_axes(function: str, axis: object, ndim: int) -> tuple[int, ...]: ...
