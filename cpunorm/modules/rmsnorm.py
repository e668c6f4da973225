"""RMSNorm."""

from cpunorm import _call, functional
from cpunorm._arguments import as_normalized_shape
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
        normalized_shape,
        eps=None,
        elementwise_affine=True,
        device=None,
        dtype=None,
        *,
        unit_offset=False,
        activation=None,
    ):
        self.normalized_shape = as_normalized_shape(normalized_shape)
        self.elementwise_affine = elementwise_affine
        self.unit_offset = unit_offset
        dtype = parameter_dtype(device, dtype)
        super().__init__(self.normalized_shape, eps, elementwise_affine, False, dtype, activation)
        self.reset_parameters()

    def reset_parameters(self):
        """Set weight to what leaves values as they are, in place."""
        self._fill(weight=0 if self.unit_offset else 1)

    def forward(self, input, *, out=None, residual=None, **options):
        """Normalise `input`, of shape (..., *normalized_shape); see `functional.rms_norm`, of the other options too."""
        shape, weight, eps, offset = self.normalized_shape, self.weight, self.eps, self.unit_offset
        if not options:
            return _call.rms_norm(input, shape, weight, None, eps, offset, out, self.activation, residual, None)
        epilogue = {"activation": self.activation, "residual": residual}
        return functional.rms_norm(input, shape, weight, eps, unit_offset=offset, out=out, **epilogue, **options)

    def extra_repr(self):
        """What stands between the brackets of the repr."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
