"""What every module is: parameters, a training flag, a state_dict that torch can read and write."""

import copy
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Self, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cpunorm import _running
from cpunorm._arguments import HALVES, check_activation, check_array
from cpunorm._foreign import as_ndarray
from cpunorm._types import Activation, AnyArray, Array, Out, Scalar, Shape

__all__ = ["Module"]

MOST_BATCHES = np.iinfo(np.int64).max


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict(strict=False)` did not find, and found without a place for it."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def parameter_dtype(device, dtype):
    """The dtype for parameters: float32 for None.

    Raises
    ------
    RuntimeError
        A device other than the CPU, or a dtype that is no floating-point one.
    TypeError
        Not a dtype.
    """
    if device not in (None, "cpu"):
        raise RuntimeError(f"device must be None or 'cpu', got {device!r}")
    dtype = np.dtype(np.float32 if dtype is None else dtype)
    if dtype not in (np.float32, np.float64) and dtype.name not in HALVES:
        raise RuntimeError(f"dtype must be float32, float64, float16 or bfloat16, got {dtype}")
    return dtype


def _as_array(value):
    """A checkpoint's value as an ndarray of real numbers: NumPy's, torch's, or what gives itself away on the CPU.

    Raises
    ------
    TypeError
        It is something else.
    """
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if "bfloat16" in str(value.dtype):  # so that a checkpoint needs no ml_dtypes
            value = value.float()
    value = as_ndarray("it", np.asarray(value) if isinstance(value, np.generic) else value)
    check_array("it", value)
    if value.dtype.kind not in "biuf" and value.dtype.name not in HALVES:
        raise TypeError(f"it is of dtype {value.dtype}")
    return value


def _check_shape(shape, target):
    if tuple(shape) != target.shape and not (target.ndim == 0 and math.prod(shape) == 1):
        raise ValueError(f"size mismatch: shape {tuple(shape)} in the checkpoint, {target.shape} here")


def _converted(name, value, target):
    """`value` as `target` can take it: its dtype and shape, in memory of its own.

    Raises
    ------
    TypeError, ValueError
        It can't.
    """
    if hasattr(value, "shape"):  # before it is converted: a view may claim more values than there is memory for
        _check_shape(value.shape, target)
    value = _as_array(value)
    _check_shape(value.shape, target)
    if not target.flags.writeable:
        raise ValueError("that of this module is read-only")
    if name == "num_batches_tracked":
        number = value.item()
        if not (0 <= number <= MOST_BATCHES and number % 1 == 0):
            raise ValueError(f"it must be a whole number from 0 to {MOST_BATCHES}, got {number}")
    with np.errstate(all="ignore"):  # beyond the range of a parameter's dtype is infinite, as in torch, or 0
        return np.array(value.reshape(target.shape), target.dtype)


class Module:
    """The base of all modules; `_state` names what its state_dict holds, in torch's order."""

    _state: tuple[str, ...] = ("weight", "bias")
    _ranks: tuple[int, ...] = ()  # of its input, for classes named after them

    activation: Activation | None = None  # of what was pickled before there were any

    def __init__(
        self,
        shape: int | tuple[int, ...],
        affine: bool,
        bias: bool,
        dtype: DTypeLike,
        activation: Activation | None = None,
    ) -> None:
        if activation is not None:
            check_activation(type(self).__name__, activation)
        self.activation = activation
        self.training: bool = True
        self.weight: NDArray[Any] | None = np.ones(shape, dtype) if affine else None
        self.bias: NDArray[Any] | None = np.zeros(shape, dtype) if affine and bias else None

    def __init_subclass__(cls) -> None:
        """Calling a module is calling its `forward`, without a step between."""
        super().__init_subclass__()
        if "forward" in vars(cls):
            cls.__call__ = cls.forward  # type: ignore[assignment, method-assign]

    @overload
    def __call__(
        self, input: Array[Shape, Scalar], *, out: None = None, return_stats: Literal[False] = False, **options: Any
    ) -> Array[Shape, Scalar]: ...
    @overload
    def __call__(
        self, input: Array[Shape, Scalar], *, out: None = None, return_stats: Literal[True], **options: Any
    ) -> tuple[Array[Shape, Scalar], NDArray[np.float64], NDArray[np.float64]]: ...
    @overload
    def __call__(
        self, input: AnyArray, *, out: None = None, return_stats: Literal[False] = False, **options: Any
    ) -> NDArray[Any]: ...
    @overload
    def __call__(
        self, input: AnyArray, *, out: None = None, return_stats: Literal[True], **options: Any
    ) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]]: ...
    @overload
    def __call__(self, input: AnyArray, *, out: Out, return_stats: Literal[False] = False, **options: Any) -> Out: ...
    @overload
    def __call__(
        self, input: AnyArray, *, out: Out, return_stats: Literal[True], **options: Any
    ) -> tuple[Out, NDArray[np.float64], NDArray[np.float64]]: ...
    def __call__(self, input: Any, **options: Any) -> Any:
        """The same as `forward`."""
        return self.forward(input, **options)

    def forward(self, input: Any, *, out: Any = None, **options: Any) -> Any:
        """Normalise `input`, of the shape that each module says, with the keyword arguments of its function."""
        raise NotImplementedError

    def _checked(self, input):
        """`input` as an ndarray; raises TypeError if it is none, ValueError unless it has one of `_ranks`."""
        if type(input) is not np.ndarray:
            input = as_ndarray(f"{type(self).__name__}: input", input)
            check_array(f"{type(self).__name__}: input", input)
        if input.ndim not in self._ranks:
            ranks = " or ".join(f"{rank}-D" for rank in self._ranks)
            raise ValueError(f"{type(self).__name__} expects {ranks} input, got shape {input.shape}")
        return input

    def train(self, mode: bool = True) -> Self:
        """Switch to training (or, with False, to evaluation); returns self.

        Raises
        ------
        ValueError
            `mode` is not a bool.
        """
        if not isinstance(mode, bool):
            raise ValueError(f"training mode must be a bool, got {mode!r}")
        self.training = mode
        return self

    def eval(self) -> Self:
        """Switch to evaluation; returns self."""
        return self.train(False)

    def _arrays(self):
        """The parameters and buffers that exist, by their names."""
        arrays = {name: array for name in self._state if (array := getattr(self, name)) is not None}
        for name, array in arrays.items():
            check_array(name, array)
        return arrays

    def _fill(self, **values):
        """Set each of these that exists to one value, in place, all at one moment."""
        arrays = {name: array for name, array in self._arrays().items() if name in values}
        _running.write(list(arrays.values()), [np.full_like(array, values[name]) for name, array in arrays.items()])

    def reset_parameters(self) -> None:
        """Set weight to 1 and bias to 0, in place."""
        self._fill(weight=1, bias=0)

    def state_dict(self, prefix: str = "") -> dict[str, NDArray[Any]]:
        """The parameters and buffers that exist, by torch's names, each behind `prefix`.

        They are copies, all of one moment, whatever other threads train or load meanwhile. (In torch they are the
        module's own, which go on changing.)
        """
        arrays = self._arrays()
        return dict(zip([prefix + name for name in arrays], _running.snapshot(list(arrays.values())), strict=True))

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, *, prefix: str = ""
    ) -> IncompatibleKeys:
        """Copy a checkpoint into the parameters and buffers, in place: all of it or, on an error, nothing.

        Calls in other threads see the module as it was or as it will be, nothing in between.

        Parameters
        ----------
        state_dict : mapping of str to array
            From `state_dict` here or in torch, ``np.load("x.npz")``, ``safetensors.numpy.load_file("x.safetensors")``:
            arrays of NumPy, torch, JAX or whatever else has ``__array__`` or, on the CPU, ``__dlpack__``.
        strict : bool
            Whether missing and unexpected keys are errors. A missing ``num_batches_tracked`` (an old one) never is.
        prefix : str
            Take the keys that start with this alone, so that one layer can be loaded out of a whole model's checkpoint.

        Returns
        -------
        IncompatibleKeys
            ``missing_keys`` and ``unexpected_keys``.

        Raises
        ------
        RuntimeError
            All missing, unexpected, mis-shaped and non-numeric entries, and a ``num_batches_tracked`` that is no number
            of batches, in one message.
        TypeError
            `state_dict` is no mapping.

        Examples
        --------
        >>> import numpy as np, cpunorm
        >>> norm = cpunorm.LayerNorm(2)
        >>> norm.load_state_dict({"encoder.weight": np.ones(2), "encoder.bias": np.ones(2)}, prefix="encoder.")
        IncompatibleKeys(missing_keys=[], unexpected_keys=[])
        """
        if not hasattr(state_dict, "keys"):
            raise TypeError(f"state_dict must be a mapping, got {type(state_dict).__name__}")
        given = {key.removeprefix(prefix): key for key in state_dict.keys() if key.startswith(prefix)}  # noqa: SIM118
        own = self._arrays()
        missing = [prefix + name for name in own if name not in given and name != "num_batches_tracked"]
        unexpected = [key for name, key in given.items() if name not in own]
        errors, values = [], {}
        if strict and missing:
            errors.append(f"missing keys: {', '.join(missing)}")
        if strict and unexpected:
            errors.append(f"unexpected keys: {', '.join(unexpected)}")
        for name in [name for name in own if name in given]:
            value = state_dict[given[name]]
            try:
                values[name] = _converted(name, value, own[name])
            except MemoryError:
                raise
            except Exception as error:  # it may be of a library's own
                errors.append(f"{given[name]}: {error}")
        if errors:
            raise RuntimeError(f"can't load the state_dict into {type(self).__name__}: " + "; ".join(errors))
        keys = IncompatibleKeys(missing, unexpected)  # before the writing, which is the last that can fail
        _running.write([own[name] for name in values], list(values.values()))
        return keys

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | self.state_dict()

    def __copy__(self) -> Self:
        twin = object.__new__(type(self))  # it shares the arrays, so their moments too
        vars(twin).update(vars(self))
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        arrays = self._arrays()
        for array, copied in zip(arrays.values(), _running.snapshot(list(arrays.values())), strict=True):
            memo.setdefault(id(array), copied)
        memo[id(arrays)] = arrays  # an id stands for an array while that lives
        twin = memo[id(self)] = object.__new__(type(self))
        vars(twin).update(copy.deepcopy(vars(self), memo))
        return twin

    def extra_repr(self) -> str:
        """What stands between the brackets of the repr."""
        return ""

    def __repr__(self) -> str:
        activation = "" if self.activation is None else f", activation={self.activation!r}"
        return f"{type(self).__name__}({self.extra_repr()}{activation})"
