from collections.abc import Iterator, Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cpunorm._moments import Moments

__all__ = ["moments", "standardize", "standardize_sliding"]

def moments(
    x: NDArray[Any] | Iterator[NDArray[Any]],
    axis: int | Sequence[int] | None = None,
    *,
    where: NDArray[np.bool] | None = None,
    lengths: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    length_axis: int = 1,
    nan: Literal["propagate", "omit"] = "propagate",
    dtype: DTypeLike = np.float64,
    progress: bool = False,
) -> Moments: ...
@overload
def standardize(
    x: NDArray[Any],
    axis: int | Sequence[int] | None = None,
    *,
    moments: Moments | None = None,
    eps: float = 0.0,
    floor: float | None = None,
    ddof: int = 0,
    where: NDArray[np.bool] | None = None,
    lengths: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    length_axis: int = 1,
    nan: Literal["propagate", "omit"] = "propagate",
    clip: tuple[float, float] | None = None,
    dtype: DTypeLike | None = None,
    out: NDArray[Any] | None = None,
    return_moments: Literal[False] = False,
) -> NDArray[Any]: ...
@overload
def standardize(
    x: NDArray[Any],
    axis: int | Sequence[int] | None = None,
    *,
    moments: Moments | None = None,
    eps: float = 0.0,
    floor: float | None = None,
    ddof: int = 0,
    where: NDArray[np.bool] | None = None,
    lengths: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    length_axis: int = 1,
    nan: Literal["propagate", "omit"] = "propagate",
    clip: tuple[float, float] | None = None,
    dtype: DTypeLike | None = None,
    out: NDArray[Any] | None = None,
    return_moments: Literal[True],
) -> tuple[NDArray[Any], Moments]: ...
def standardize_sliding(
    x: NDArray[Any],
    window: int,
    axis: int = 0,
    *,
    center: bool = True,
    min_window: int = 100,
    var: bool = True,
    dtype: DTypeLike | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]: ...
