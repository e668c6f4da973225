"""Arrays of other libraries, seen as ndarrays of the same memory."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["as_ndarray", "as_ndarrays", "is_foreign", "is_subclass", "with_ndarrays"]

CPU = 1  # DLPack's number for it


def is_foreign(value: object) -> bool:
    """Whether `value` is neither an ndarray nor None."""
    return value is not None and not isinstance(value, np.ndarray)


def is_subclass(value: object) -> bool:
    """Whether `value` is of a subclass of ndarray, whose indexing may be another; with a mask it is to be refused."""
    return isinstance(value, np.ndarray) and type(value) is not np.ndarray and not hasattr(value, "mask")


def as_ndarray(what: str, value: Any) -> np.ndarray:
    """`value` as an ndarray of the same memory: that of a torch tensor, of DLPack's or NumPy's protocol, or a buffer.

    What NumPy's DLPack has no dtype for, which is bfloat16, comes by ml_dtypes' one.

    Raises
    ------
    TypeError
        It is no array (nor are a NumPy scalar and bytes), on another device than the CPU, or can't be shared.
    RuntimeError
        A tensor that requires grad (torch's type).
    ModuleNotFoundError
        A bfloat16 tensor without ml_dtypes installed.
    """
    if isinstance(value, np.ndarray):
        return value.view(np.ndarray) if is_subclass(value) else value
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _of_torch(torch, what, value)
    if hasattr(value, "__dlpack_device__") and value.__dlpack_device__()[0] != CPU:
        device = value.__dlpack_device__()
        raise TypeError(f"{what} must be in the CPU's memory, got a {kind} on another device: {device}")
    has_array = hasattr(value, "__array__") or hasattr(value, "__array_interface__")
    if hasattr(value, "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError) as error:
            if not has_array:
                raise TypeError(f"{what}: the memory of this {kind} can't be shared: {error}") from None
        except TypeError as error:
            raise TypeError(f"{what}: the memory of this {kind} can't be shared: {error}") from None
    if isinstance(value, np.generic | bytes | bytearray):
        raise TypeError(f"{what} must be a numpy.ndarray, got {kind}")
    if has_array:
        return np.asarray(value)
    try:
        return np.asarray(memoryview(value))
    except TypeError:
        raise TypeError(f"{what} must be a numpy.ndarray, got {kind}") from None


def _of_torch(torch: Any, what: str, tensor: Any) -> np.ndarray:
    if tensor.requires_grad:
        raise RuntimeError(f"{what} requires grad, and nothing here has a gradient: give tensor.detach()")
    try:
        if tensor.dtype != torch.bfloat16:
            return tensor.numpy()
        bits = tensor.view(torch.int16).numpy()
    except (TypeError, RuntimeError) as error:
        raise TypeError(f"{what}: the memory of this tensor can't be shared: {error}") from None
    try:
        import ml_dtypes
    except ModuleNotFoundError:
        message = f"{what} is bfloat16, which NumPy has from ml_dtypes; please run: pip install ml_dtypes"
        raise ModuleNotFoundError(message, name="ml_dtypes") from None
    return bits.view(ml_dtypes.bfloat16)


def as_ndarrays(function: str, arrays: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `function` by their names, each as an ndarray; None stays None."""
    return {name: None if array is None else as_ndarray(f"{function}: {name}", array) for name, array in arrays.items()}


def with_ndarrays(call: Callable[..., Any], function: str, arrays: dict[str, Any], **others: Any) -> Any:
    """`call` with `arrays`, by their names, as ndarrays; its result, with `out` and `sum_out` as they were given."""
    seen = as_ndarrays(function, arrays)
    given = {id(seen[name]): arrays[name] for name in ("out", "sum_out") if arrays.get(name) is not None}
    result = call(**seen, **others)
    if isinstance(result, tuple):
        return tuple(given.get(id(array), array) for array in result)
    return given.get(id(result), result)
