"""What annotations say of arrays and names; nothing here is looked at when a function is called."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import numpy as np

__all__ = ["Activation", "ActivationName", "Array", "DataFormat", "EngineName", "Scalar", "Shape"]

Shape = TypeVar("Shape", bound=tuple[Any, ...])
Scalar = TypeVar("Scalar", bound=np.generic)  # not np.floating, for ml_dtypes says no more than this of its bfloat16
Array = np.ndarray[Shape, np.dtype[Scalar]]  # an input, and the result like it: of one shape and dtype, no subclass
DataFormat = Literal["channels_first", "channels_last"]
ActivationName = Literal[  # the order of `_norm.pxd`; `_arguments.ACTIVATIONS` are these
    "relu",
    "relu6",
    "leaky_relu",
    "silu",
    "gelu",
    "gelu_tanh",
    "hardswish",
    "hardsigmoid",
    "sigmoid",
    "tanh",
]
Activation = ActivationName | Callable[[float], float]  # a function, too, where Numba is the engine
EngineName = Literal["cython", "numba", "reference"]
