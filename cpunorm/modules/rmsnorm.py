"""RMSNorm."""

from collections.abc import Sequence
from typing import Any, Literal

from numpy.typing import DTypeLike

from cpunorm import _call, functional
from cpunorm._arguments import as_normalized_shape
from cpunorm._types import Activation, Array, Scalar, Shape
from cpunorm.modules._module import Module, parameter_dtype

__all__ = ["RMSNorm"]


class RMSNorm(Module):
    """Divide by the root mean square over the trailing axes: `torch.nn.RMSNorm`; see `functional.rms_norm`.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        The trailing shape of the input that is normalised together.
    eps : float or None
        None for the machine epsilon of the type computed in.
    elementwise_affine : bool
        Whether there is a weight (1 at first).
    device : None or "cpu"
    dtype : dtype-like
        Of the parameters; float32 by default.
    unit_offset : bool
        Whether to multiply by 1 + weight (Gemma); the weight is 0 at first then.
    activation : str, optional
        What is done to the result: see `cpunorm.functional`.

    Raises
    ------
    RuntimeError
        An empty or negative `normalized_shape`; a device or dtype that is not supported.
    TypeError
        A `normalized_shape` that is not made of ints.

    Examples
    --------
    >>> import numpy as np, cpunorm
    >>> norm = cpunorm.RMSNorm(2)
    >>> norm(np.array([3, 4], np.float32)).round(4)
    array([0.8485, 1.1314], dtype=float32)
    """

    _state = ("weight",)

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Literal["cpu"] | None = None,
        dtype: DTypeLike | None = None,
        *,
        unit_offset: bool = False,
        activation: Activation | None = None,
    ) -> None:
        self.normalized_shape: tuple[int, ...] = as_normalized_shape(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self.unit_offset = unit_offset
        super().__init__(self.normalized_shape, elementwise_affine, False, parameter_dtype(device, dtype), activation)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set weight to what leaves values as they are, in place."""
        self._fill(weight=0 if self.unit_offset else 1)

    def forward(
        self, input: Array[Shape, Scalar], *, out: Array[Shape, Any] | None = None, **options: Any
    ) -> Array[Shape, Scalar]:
        """Normalise `input`, of shape ``(..., *normalized_shape)``; see `functional.rms_norm`."""
        if options:
            options |= {"out": out, "activation": self.activation, "unit_offset": self.unit_offset}
            return functional.rms_norm(input, self.normalized_shape, self.weight, self.eps, **options)
        return _call.rms_norm(
            input,
            self.normalized_shape,
            self.weight,
            None,
            self.eps,
            self.unit_offset,
            out,
            self.activation,
            None,
            None,
            None,
            False,
        )

    def extra_repr(self) -> str:
        """What stands between the brackets of the repr."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
