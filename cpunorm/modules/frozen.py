"""FrozenBatchNorm2d: what `torchvision.ops` has for trained networks whose statistics never move again."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpunorm import functional
from cpunorm._scalars import dimension
from cpunorm._types import Activation, Array, DataFormat, Scalar, Shape
from cpunorm.modules._module import IncompatibleKeys, Module

__all__ = ["FrozenBatchNorm2d"]


class FrozenBatchNorm2d(Module):
    """BatchNorm2d that always evaluates: `torchvision.ops.FrozenBatchNorm2d`; see `functional.batch_norm`.

    Its weight, bias, running_mean and running_var are float32 buffers, which `load_state_dict` alone changes. ``train``
    changes nothing but the flag.

    Parameters
    ----------
    num_features : int
        C, the number of channels.
    eps : float
        Not negative.
    data_format : {"channels_first", "channels_last"}
        Where the channels of the input are.
    activation : str, optional
        What is done to the result: see `cpunorm.functional`.

    Raises
    ------
    RuntimeError
        A negative `num_features`.
    TypeError
        A `num_features` that is not an int.

    Examples
    --------
    >>> import numpy as np, cpunorm
    >>> trained = cpunorm.BatchNorm2d(3)
    >>> x = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    >>> y = trained(x)
    >>> frozen = cpunorm.FrozenBatchNorm2d(3)
    >>> frozen
    FrozenBatchNorm2d(3, eps=1e-05)
    >>> frozen.load_state_dict(trained.state_dict())
    IncompatibleKeys(missing_keys=[], unexpected_keys=[])
    >>> np.array_equal(frozen(x), trained.eval()(x))
    True
    """

    _state = ("weight", "bias", "running_mean", "running_var")
    _ranks = (4,)

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        *,
        data_format: DataFormat = "channels_first",
        activation: Activation | None = None,
    ) -> None:
        super().__init__(dimension("num_features", num_features), True, True, np.float32, activation)
        self.eps = eps
        self.running_mean: NDArray[np.float32] = np.zeros_like(self.weight)
        self.running_var: NDArray[np.float32] = np.ones_like(self.weight)
        self.data_format = data_format

    def reset_parameters(self) -> None:
        """Set weight and running_var to 1, bias and running_mean to 0, in place."""
        self._fill(weight=1, bias=0, running_mean=0, running_var=1)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, *, prefix: str = ""
    ) -> IncompatibleKeys:
        """As all modules do, but a BatchNorm2d's ``num_batches_tracked`` is passed over."""
        counter = f"{prefix}num_batches_tracked"
        if hasattr(state_dict, "keys") and counter in state_dict.keys():  # noqa: SIM118
            keys = [key for key in state_dict.keys() if key.startswith(prefix) and key != counter]  # noqa: SIM118
            state_dict = {key: state_dict[key] for key in keys}
        return super().load_state_dict(state_dict, strict, prefix=prefix)

    def forward(
        self, input: Array[Shape, Scalar], *, out: Array[Shape, Any] | None = None, **options: Any
    ) -> Array[Shape, Scalar]:
        """Normalise `input`, of shape (N, C, H, W) or (N, H, W, C); see `functional.batch_norm`.

        Raises
        ------
        ValueError
            Another rank.
        TypeError
            Not an ndarray.
        """
        input = self._checked(input)
        return functional.batch_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            eps=self.eps,
            data_format=self.data_format,
            out=out,
            activation=self.activation,
            **options,
        )

    def extra_repr(self) -> str:
        """What stands between the brackets of the repr."""
        return f"{len(self.weight)}, eps={self.eps}"
