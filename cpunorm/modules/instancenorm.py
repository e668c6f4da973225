"""InstanceNorm1d, InstanceNorm2d, InstanceNorm3d: one class, three ranks."""

import warnings
from typing import Any, Literal

from numpy.typing import DTypeLike

from cpunorm import functional
from cpunorm._foreign import is_foreign, with_ndarrays
from cpunorm._types import Activation, Array, DataFormat, Scalar, Shape
from cpunorm.modules.batchnorm import _BatchNorm

__all__ = ["InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"]


class _InstanceNorm(_BatchNorm):
    """Normalise each channel of each sample over all positions; the formula is in `functional.instance_norm`.

    Parameters
    ----------
    num_features : int
        C, the number of channels.
    eps : float
    momentum : float or None
        Weight of a batch in the running statistics; None acts as 0, as in torch.
    affine : bool
        Whether there is a weight (1 at first).
    track_running_stats : bool
        Whether there are running statistics, for evaluation; without, that uses the input's too.
    device : None or "cpu"
    dtype : dtype-like
        Of parameters and statistics; float32 by default.
    bias : bool
        Whether there is a bias too (0 at first).
    data_format : {"channels_first", "channels_last"}
        Where the channels of the input are.
    activation : str, optional
        What is done to the result: see `cpunorm.functional`.

    Raises
    ------
    RuntimeError
        A negative `num_features`; a device or dtype that is not supported.
    TypeError
        A `num_features` that is not an int.

    Notes
    -----
    The counter num_batches_tracked never moves, as in torch.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Literal["cpu"] | None = None,
        dtype: DTypeLike | None = None,
        *,
        bias: bool = True,
        data_format: DataFormat = "channels_first",
        activation: Activation | None = None,
    ) -> None:
        super().__init__(
            num_features,
            eps,
            momentum,
            affine,
            track_running_stats,
            device,
            dtype,
            bias=bias,
            data_format=data_format,
            activation=activation,
        )

    def forward(
        self, input: Array[Shape, Scalar], *, out: Array[Shape, Any] | None = None, **options: Any
    ) -> Array[Shape, Scalar]:
        """Normalise `input`, of shape (N, C, ...) or (N, ..., C), or one such sample; see `functional.instance_norm`.

        Raises
        ------
        ValueError
            Another rank than this class takes, or, if there is a weight, another number of channels.
        TypeError
            Not an ndarray.

        Warns
        -----
        UserWarning
            Another number of channels, without a weight.
        """
        input = self._checked(input)
        single = input.ndim == self._ranks[0]
        if single and (is_foreign(out) or is_foreign(options.get("residual"))):
            arrays = {"input": input, "out": out, "residual": options.pop("residual", None)}
            return with_ndarrays(self.forward, type(self).__name__, arrays, **options)
        if single and options.get("residual") is not None:
            options["residual"] = options["residual"][None]
        channels = input.shape[-1 if self.data_format == "channels_last" else 0 if single else 1]
        if channels != self.num_features:
            message = f"{type(self).__name__}: expected {self.num_features} channels, got shape {input.shape}"
            if self.affine:
                raise ValueError(message)
            warnings.warn(message, UserWarning, stacklevel=3)
        y: Any = functional.instance_norm(
            input[None] if single else input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
            data_format=self.data_format,
            out=out[None] if single and out is not None else out,
            activation=self.activation,
            **options,
        )
        if single and isinstance(y, tuple):
            y = tuple(array[0] for array in y)
        elif single:
            y = y[0] if out is None else out
        return y


class InstanceNorm1d(_InstanceNorm):  # noqa: D101 (its __doc__ is made of two parts)
    __doc__ = f"""InstanceNorm over (N, C, L) or (C, L): `torch.nn.InstanceNorm1d`.

    {_InstanceNorm.__doc__}
    Examples
    --------
    >>> import numpy as np, cpunorm
    >>> norm = cpunorm.InstanceNorm1d(2)
    >>> norm(np.arange(8, dtype=np.float32).reshape(1, 2, 4))[0, 1].round(4)
    array([-1.3416, -0.4472,  0.4472,  1.3416], dtype=float32)
    """
    _ranks = (2, 3)


class InstanceNorm2d(_InstanceNorm):  # noqa: D101
    __doc__ = f"""InstanceNorm over (N, C, H, W) or (C, H, W): `torch.nn.InstanceNorm2d`.

    {_InstanceNorm.__doc__}
    Examples
    --------
    >>> import numpy as np, cpunorm
    >>> norm = cpunorm.InstanceNorm2d(3)
    >>> norm(np.arange(12, dtype=np.float32).reshape(3, 2, 2))[2].round(4)
    array([[-1.3416, -0.4472],
           [ 0.4472,  1.3416]], dtype=float32)
    """
    _ranks = (3, 4)


class InstanceNorm3d(_InstanceNorm):  # noqa: D101
    __doc__ = f"""InstanceNorm over (N, C, D, H, W) or (C, D, H, W): `torch.nn.InstanceNorm3d`.

    {_InstanceNorm.__doc__}
    Examples
    --------
    >>> import numpy as np, cpunorm
    >>> norm = cpunorm.InstanceNorm3d(2)
    >>> norm(np.zeros((1, 2, 3, 4, 5), np.float32)).shape
    (1, 2, 3, 4, 5)
    """
    _ranks = (4, 5)
