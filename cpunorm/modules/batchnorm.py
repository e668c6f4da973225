"""BatchNorm1d, BatchNorm2d, BatchNorm3d: one class, three ranks."""

from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cpunorm import _call, _per_sample, _running
from cpunorm._moments import Moments
from cpunorm._scalars import dimension
from cpunorm._types import Activation, Array, DataFormat, Scalar, Shape
from cpunorm.modules._module import Module, parameter_dtype

__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d"]


NO_BATCHES = {"running_mean": 0, "running_var": 1, "num_batches_tracked": 0}


class _BatchNorm(Module):
    """Normalise each channel over the batch and all positions; the formula is in `functional.batch_norm`.

    Parameters
    ----------
    num_features : int
        C, the number of channels.
    eps : float
    momentum : float or None
        Weight of a batch in the running statistics; None for their cumulative average.
    affine : bool
        Whether there is a weight (1 at first).
    track_running_stats : bool
        Whether there are running statistics; without, evaluation uses the batch's too.
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
    A module may be called from many threads at once. Its counter and running statistics move together, when a batch
    is done: they are those of some order of the calls, and no thread ever sees half an update.
    """

    _state = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Literal["cpu"] | None = None,
        dtype: DTypeLike | None = None,
        *,
        bias: bool = True,
        data_format: DataFormat = "channels_first",
        activation: Activation | None = None,
    ) -> None:
        dtype = parameter_dtype(device, dtype)
        self.num_features: int = dimension("num_features", num_features)
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.data_format = data_format
        super().__init__(self.num_features, affine, bias, dtype, activation)
        self.running_mean: NDArray[Any] | None = np.zeros(num_features, dtype) if track_running_stats else None
        self.running_var: NDArray[Any] | None = np.ones(num_features, dtype) if track_running_stats else None
        self.num_batches_tracked: NDArray[np.int64] | None = np.zeros((), np.int64) if track_running_stats else None

    def reset_running_stats(self) -> None:
        """Set running_mean to 0, running_var to 1 and num_batches_tracked to 0, in place."""
        if self.track_running_stats:
            self._fill(**NO_BATCHES)

    def reset_parameters(self) -> None:
        """Set weight to 1 and bias to 0 and reset the running statistics, in place."""
        self._fill(weight=1, bias=0, **(NO_BATCHES if self.track_running_stats else {}))

    def set_statistics(self, moments: Moments) -> None:
        """Set running_mean and running_var, in place, to those of `moments`, and num_batches_tracked to 1.

        So a network is recalibrated: with the moments of all of its data instead of the average of the last batches.

        Parameters
        ----------
        moments : Moments
            Of `num_features` channels: ``cpunorm.moments(x, axis=(0, 2, 3))`` of (N, C, H, W). The variance is taken
            unbiased, as in training, of a single value 0.

        Raises
        ------
        TypeError
            Not Moments.
        ValueError
            Of another shape, or of nothing in some channel.
        RuntimeError
            A module without running statistics.
        """
        name = type(self).__name__
        if not isinstance(moments, Moments):
            raise TypeError(f"{name}.set_statistics takes Moments, got {type(moments).__qualname__}")
        if self.running_mean is None:
            raise RuntimeError(f"{name}.set_statistics: track_running_stats={self.track_running_stats}")
        if moments.shape != (self.num_features,):
            raise ValueError(f"{name}.set_statistics: expected shape ({self.num_features},), got {moments.shape}")
        if np.min(moments.count) == 0:
            raise ValueError(f"{name}.set_statistics: there are channels without values, counts are {moments.count}")
        var = np.where(moments.count == 1, 0, moments.var(ddof=1))
        values = {"running_mean": moments.mean, "running_var": var, "num_batches_tracked": 1}
        arrays = {key: array for key, array in self._arrays().items() if key in values}
        new = [np.asarray(values[key]).astype(array.dtype) for key, array in arrays.items()]
        _running.write(list(arrays.values()), new)

    def forward(
        self, input: Array[Shape, Scalar], *, out: Array[Shape, Any] | None = None, **options: Any
    ) -> Array[Shape, Scalar]:
        """Normalise `input`, of shape (N, C, ...) or (N, ..., C); see `functional.batch_norm`.

        Raises
        ------
        ValueError
            Another rank than this class takes. The counter does not move; any later error leaves it moved, as in torch.
        TypeError
            Not an ndarray.
        """
        input = self._checked(input)
        training, running_mean, running_var = self.training, self.running_mean, self.running_var
        counter: NDArray[np.int64] | None = None
        momentum: float | None = 0.0
        if training and self.track_running_stats:
            counter, momentum = self.num_batches_tracked, self.momentum
            if counter is None and momentum is None:
                momentum = 0.0
        elif training:
            running_mean = running_var = None
        weight, bias, eps, data_format = self.weight, self.bias, self.eps, self.data_format
        training = training or (running_mean is None and running_var is None)
        if options:
            extras = _per_sample.Extras(out, self.activation, **options)
            return _per_sample.batch_norm(
                input, running_mean, running_var, weight, bias, training, momentum, eps, data_format, extras, counter
            )
        return _call.batch_norm(
            input,
            running_mean,
            running_var,
            weight,
            bias,
            training,
            momentum,
            eps,
            data_format,
            out,
            self.activation,
            None,
            False,
            counter,
        )

    def extra_repr(self) -> str:
        """What stands between the brackets of the repr."""
        shown = f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}"
        return f"{shown}, bias={self.bias is not None}, track_running_stats={self.track_running_stats}"


class BatchNorm1d(_BatchNorm):  # noqa: D101 (its __doc__ is made of two parts)
    __doc__ = f"""BatchNorm over (N, C) or (N, C, L): `torch.nn.BatchNorm1d`.

    {_BatchNorm.__doc__}
    Examples
    --------
    >>> import numpy as np, cpunorm
    >>> norm = cpunorm.BatchNorm1d(5)
    >>> norm(np.arange(20, dtype=np.float32).reshape(4, 5))[0].round(4)
    array([-1.3416, -1.3416, -1.3416, -1.3416, -1.3416], dtype=float32)
    >>> norm.running_mean
    array([0.75, 0.85, 0.95, 1.05, 1.15], dtype=float32)
    """
    _ranks = (2, 3)


class BatchNorm2d(_BatchNorm):  # noqa: D101
    __doc__ = f"""BatchNorm over (N, C, H, W): `torch.nn.BatchNorm2d`.

    {_BatchNorm.__doc__}
    Examples
    --------
    >>> import numpy as np, cpunorm
    >>> norm = cpunorm.BatchNorm2d(3)
    >>> norm(np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2))[0, 2].round(4)
    array([[-1.3416, -0.4472],
           [ 0.4472,  1.3416]], dtype=float32)
    """
    _ranks = (4,)


class BatchNorm3d(_BatchNorm):  # noqa: D101
    __doc__ = f"""BatchNorm over (N, C, D, H, W): `torch.nn.BatchNorm3d`.

    {_BatchNorm.__doc__}
    Examples
    --------
    >>> import numpy as np, cpunorm
    >>> norm = cpunorm.BatchNorm3d(2)
    >>> norm(np.zeros((1, 2, 3, 4, 5), np.float32)).shape
    (1, 2, 3, 4, 5)
    """
    _ranks = (5,)
