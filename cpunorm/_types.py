"""What annotations say of arrays and names; nothing here is looked at when a function is called."""

from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

__all__ = ["Activation", "ActivationName", "AnyArray", "Array", "DataFormat", "EngineName", "Out", "Scalar", "Shape"]

Shape = TypeVar("Shape", bound=tuple[Any, ...])
Scalar = TypeVar("Scalar", bound=np.generic)  # not np.floating, for ml_dtypes says no more than this of its bfloat16
Array = np.ndarray[Shape, np.dtype[Scalar]]  # an input, and the result like it: of one shape and dtype, no subclass


class SupportsDLPack(Protocol):
    """Shares its memory by DLPack: torch's tensors, JAX's and pyarrow's arrays."""

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any: ...
    def __dlpack_device__(self) -> tuple[Any, Any]: ...


class SupportsInterface(Protocol):
    """Shares its memory by NumPy's own protocol."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


class SupportsArray(Protocol):
    """Gives itself away as an ndarray."""

    def __array__(self, *args: Any, **kwargs: Any) -> Any: ...


class SupportsBuffer(Protocol):
    """Shares its memory as buffers do: memoryview, array.array."""

    def __buffer__(self, flags: int, /) -> memoryview: ...


AnyArray = SupportsDLPack | SupportsInterface | SupportsArray | SupportsBuffer  # an ndarray, too
Out = TypeVar("Out", bound=AnyArray)  # what comes back as it was given
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
