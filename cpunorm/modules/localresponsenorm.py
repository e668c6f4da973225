"""LocalResponseNorm."""

from cpunorm import functional
from cpunorm._types import Array, DataFormat, Scalar, Shape
from cpunorm.modules._module import Module

__all__ = ["LocalResponseNorm"]


class LocalResponseNorm(Module):
    """Divide by a power of the mean square of neighbouring channels: `torch.nn.LocalResponseNorm`.

    The formula is in `functional.local_response_norm`. There are no parameters, so the state_dict is empty.

    Parameters
    ----------
    size : int
        The number of neighbours, positive.
    alpha, beta, k : float
    data_format : {"channels_first", "channels_last"}
        Where the channels of the input are.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        When it is called with what `functional.local_response_norm` refuses; a bad `size` too, as in torch.

    Examples
    --------
    >>> import numpy as np, cpunorm
    >>> norm = cpunorm.LocalResponseNorm(2, alpha=2, beta=1)
    >>> norm
    LocalResponseNorm(2, alpha=2, beta=1, k=1.0)
    >>> norm(np.ones((1, 4, 1), np.float32))[0, :, 0].round(4)
    array([0.5   , 0.3333, 0.3333, 0.3333], dtype=float32)
    """

    _state = ()

    def __init__(
        self,
        size: int,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 1.0,
        *,
        data_format: DataFormat = "channels_first",
    ) -> None:
        self.training = True
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k
        self.data_format = data_format

    def forward(self, input: Array[Shape, Scalar], *, out: Array[Shape, Scalar] | None = None) -> Array[Shape, Scalar]:
        """Normalise `input`, of shape (N, C, ...) or (N, ..., C); see `functional.local_response_norm`."""
        return functional.local_response_norm(
            input, self.size, self.alpha, self.beta, self.k, data_format=self.data_format, out=out
        )

    def extra_repr(self) -> str:
        """What stands between the brackets of the repr."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
