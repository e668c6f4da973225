"""GroupNorm."""

from typing import Any, Literal

from numpy.typing import DTypeLike

from cpunorm import _call, functional
from cpunorm._scalars import dimension, integer
from cpunorm._types import Activation, Array, DataFormat, Scalar, Shape
from cpunorm.modules._module import Module, parameter_dtype

__all__ = ["GroupNorm"]


class GroupNorm(Module):
    """Normalise groups of channels, each sample by itself: `torch.nn.GroupNorm`; see `functional.group_norm`.

    Parameters
    ----------
    num_groups : int
        Divides `num_channels`.
    num_channels : int
    eps : float
    affine : bool
        Whether there is a weight (1 at first).
    device : None or "cpu"
    dtype : dtype-like
        Of the parameters; float32 by default.
    bias : bool
        Whether there is a bias too (0 at first).
    data_format : {"channels_first", "channels_last"}
        Where the channels of the input are.
    activation : str, optional
        What is done to the result: see `cpunorm.functional`.

    Raises
    ------
    ValueError
        `num_groups` does not divide `num_channels`, or is not positive.
    RuntimeError
        A device or dtype that is not supported.
    TypeError
        Numbers that are not ints.

    Examples
    --------
    >>> import numpy as np, cpunorm
    >>> norm = cpunorm.GroupNorm(2, 4)
    >>> norm(np.arange(8, dtype=np.float32).reshape(1, 4, 2))[0, :2].round(4)
    array([[-1.3416, -0.4472],
           [ 0.4472,  1.3416]], dtype=float32)
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Literal["cpu"] | None = None,
        dtype: DTypeLike | None = None,
        *,
        bias: bool = True,
        data_format: DataFormat = "channels_first",
        activation: Activation | None = None,
    ) -> None:
        self.num_channels: int = dimension("num_channels", num_channels)
        self.num_groups: int = integer("num_groups", num_groups)
        if self.num_groups < 1 or self.num_channels % self.num_groups:
            raise ValueError(f"num_channels ({num_channels}) must be divisible by num_groups ({num_groups})")
        self.eps = eps
        self.affine = affine
        self.data_format = data_format
        super().__init__(self.num_channels, affine, bias, parameter_dtype(device, dtype), activation)

    def forward(
        self, input: Array[Shape, Scalar], *, out: Array[Shape, Any] | None = None, **options: Any
    ) -> Array[Shape, Scalar]:
        """Normalise `input`, of shape (N, C, ...) or (N, ..., C); see `functional.group_norm`."""
        if options:
            options |= {"out": out, "activation": self.activation, "data_format": self.data_format}
            return functional.group_norm(input, self.num_groups, self.weight, self.bias, self.eps, **options)
        return _call.group_norm(
            input,
            self.num_groups,
            self.weight,
            self.bias,
            self.eps,
            self.data_format,
            out,
            self.activation,
            None,
            None,
            None,
            False,
        )

    def extra_repr(self) -> str:
        """What stands between the brackets of the repr."""
        shown = f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"
        return f"{shown}, bias={self.bias is not None}"
