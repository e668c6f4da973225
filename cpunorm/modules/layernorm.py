"""LayerNorm."""

from collections.abc import Sequence
from typing import Any, Literal

from numpy.typing import DTypeLike

from cpunorm import _call, functional
from cpunorm._arguments import as_normalized_shape
from cpunorm._types import Activation, Array, Scalar, Shape
from cpunorm.modules._module import Module, parameter_dtype

__all__ = ["LayerNorm"]


class LayerNorm(Module):
    """Normalise over the trailing axes: `torch.nn.LayerNorm`; the formula is in `functional.layer_norm`.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        The trailing shape of the input that is normalised together.
    eps : float
    elementwise_affine : bool
        Whether there is a weight (1 at first).
    bias : bool
        Whether there is a bias too (0 at first).
    device : None or "cpu"
    dtype : dtype-like
        Of the parameters; float32 by default.
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
    >>> norm = cpunorm.LayerNorm(4)
    >>> norm(np.arange(4, dtype=np.float32)).round(4)
    array([-1.3416, -0.4472,  0.4472,  1.3416], dtype=float32)
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Literal["cpu"] | None = None,
        dtype: DTypeLike | None = None,
        *,
        activation: Activation | None = None,
    ) -> None:
        self.normalized_shape: tuple[int, ...] = as_normalized_shape(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        super().__init__(self.normalized_shape, elementwise_affine, bias, parameter_dtype(device, dtype), activation)

    def forward(
        self, input: Array[Shape, Scalar], *, out: Array[Shape, Any] | None = None, **options: Any
    ) -> Array[Shape, Scalar]:
        """Normalise `input`, of shape ``(..., *normalized_shape)``; see `functional.layer_norm`."""
        if options:
            options |= {"out": out, "activation": self.activation}
            return functional.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps, **options)
        return _call.layer_norm(
            input,
            self.normalized_shape,
            self.weight,
            self.bias,
            self.eps,
            out,
            self.activation,
            None,
            None,
            None,
            False,
        )

    def extra_repr(self) -> str:
        """What stands between the brackets of the repr."""
        bias = self.bias is not None
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, bias={bias}"
