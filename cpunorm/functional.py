"""The norms as functions, with the positional arguments of `torch.nn.functional`.

Each checks its arguments, sees the input as a canonical view and calls one kernel.  A plain call (contiguous
arrays of one dtype, every argument in order) is recognised and run by `cpunorm._express` at once; whatever that
declines comes here, where every rule and every error message is written once.

Common to all:

- the output has the input's shape, dtype and order of strides; it is computed in float64 for float64 and
  in float32 otherwise (float16 and ml_dtypes' bfloat16 are converted there and back);
- ``data_format`` says where the channels are: ``"channels_first"`` (N, C, ...) or ``"channels_last"`` (N, ..., C);
- ``out`` takes the result and is returned; it may be the input itself, but not partly overlap it.
"""

import math

import numpy as np

from cpunorm import _engine, _express, _memory, _running
from cpunorm._arguments import (
    as_input,
    as_out,
    as_vector,
    channel_axis,
    check_parameters,
    dimension,
    integer,
    positive_eps,
    real,
)
from cpunorm._layout import channel_view, is_walkable, row_view, sample_view

__all__ = ["batch_norm", "group_norm", "layer_norm"]


def _run(kernel, view, x, out, dtype, reads=2):
    """`out` = `kernel`, which reads its input `reads` times, of the canonical views; a fresh `out` if it is None.

    What no kernel can walk (half precision, misaligned or byte-swapped memory, too many uneven strides) goes
    through a contiguous array: the input is copied before, the result written into `out` after.
    """
    if out is None:
        out = _memory.empty_like(x) if x.dtype == dtype else np.empty_like(x, dtype)
    y = out.view(np.ndarray) if x.dtype == dtype and is_walkable(out) else np.empty_like(x)
    views = view(x, y)
    if views is None:
        x = np.ascontiguousarray(x)
        y = np.empty_like(x)
        views = view(x, y)
    kernel(*views, _express.threads_for(x.size, reads))
    if not np.may_share_memory(y, out):
        with np.errstate(over="ignore"):  # beyond the range of half precision is infinite, as in torch
            np.copyto(out, y, casting="unsafe")
    return out


def batch_norm(
    input,
    running_mean,
    running_var,
    weight=None,
    bias=None,
    training=False,
    momentum=0.1,
    eps=1e-5,
    *,
    data_format="channels_first",
    out=None,
):
    r"""Normalise each channel over the batch and all positions: `torch.nn.functional.batch_norm`.

    .. math:: y = \frac{x - \mu_c}{\sqrt{\sigma_c^2 + \epsilon}} \gamma_c + \beta_c

    with the batch's mean and biased variance when `training`, else with `running_mean` and `running_var`.

    Parameters
    ----------
    input : ndarray, (N, C, ...) or (N, ..., C)
        float32 or float64, any strides; float16 and bfloat16 are computed in float32.
    running_mean, running_var : ndarray of C elements, or None
        Used when not `training`. When `training`, updated in place, both or neither:
        ``running = (1 - momentum) * running + momentum * batch``, the variance with the unbiased batch variance.
    weight, bias : ndarray of C elements, or None
        In the dtype of the input; float32 is also taken for half-precision inputs.
    training : bool
    momentum : float
    eps : float
        Positive when `training`, else not negative.
    data_format : {"channels_first", "channels_last"}
    out : ndarray, optional
        Where to write the result: the input's shape and dtype, writeable; may be `input` itself.

    Returns
    -------
    ndarray
        Shape, dtype and stride order of the input, or `out`.

    Raises
    ------
    ValueError
        One value per channel in training; a bad `eps`, `momentum` or `data_format`; only one running statistic
        in training; a read-only running statistic (in training) or `out`.
    RuntimeError
        A wrong number of elements or rank; mixed dtypes; missing running statistics in evaluation; an `out` of another
        shape or dtype or that overlaps. Its subclass NotImplementedError for integer, bool and complex input.
    TypeError
        Arguments that are not arrays, or not numbers.

    References
    ----------
    Ioffe and Szegedy, Batch Normalization, ICML 2015 (arXiv:1502.03167).

    Examples
    --------
    >>> import numpy as np
    >>> from cpunorm.functional import batch_norm
    >>> x = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    >>> batch_norm(x, None, None, training=True)[0, 0].round(4)
    array([[-1.3416, -0.4472],
           [ 0.4472,  1.3416]], dtype=float32)
    """
    if momentum is None:  # which means something to `counted_batch_norm`
        raise TypeError("batch_norm: momentum must be a float, got None")
    return counted_batch_norm(
        input, running_mean, running_var, weight, bias, training, momentum, eps, data_format, out, None
    )


def counted_batch_norm(
    input, running_mean, running_var, weight, bias, training, momentum, eps, data_format, out, counter
):
    """`batch_norm` that counts the batch, failed ones too, with the running statistics; `momentum` may be None."""
    arguments = input, running_mean, running_var, weight, bias, training, momentum, eps, data_format, out, counter
    y = _express.batch_norm(*arguments)
    if y is not None:
        return y
    if counter is not None and not _running.is_counter_array(counter):
        raise TypeError(f"num_batches_tracked must be an int64 array of one value, got {counter!r}")
    try:
        y, mean, var, momentum = _general_batch_norm(*arguments[:-1])
    except BaseException:
        if counter is not None:
            _running.count(counter)
        raise
    count = y.size // mean.size if mean is not None and mean.size else 0
    if training:
        _running.update_arrays(running_mean, running_var, counter, mean, var, momentum, count)
    return y


def _general_batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps, data_format, out):
    x, dtype = as_input("batch_norm", input)
    axis = channel_axis("batch_norm", x, data_format)
    channels = x.shape[axis]
    if not isinstance(training, bool | np.bool):
        raise TypeError(f"batch_norm: training must be a bool, got {training!r}")
    if momentum is not None:
        momentum = real("batch_norm: momentum", momentum)
    eps = positive_eps("batch_norm", eps, zero_allowed=not training)
    if training and x.size == channels and channels:
        raise ValueError(f"batch_norm: expected more than 1 value per channel in training, got shape {x.shape}")
    named = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    check_parameters("batch_norm", dtype, named)
    for name, vector in named.items():
        if vector is not None and vector.size != channels:
            raise RuntimeError(f"batch_norm: {name} must have {channels} elements, one per channel, got {vector.size}")
        if vector is not None and vector.ndim != 1 and name.startswith("running"):
            raise RuntimeError(f"batch_norm: {name} must have one dimension, got shape {vector.shape}")
    if training:
        if (running_mean is None) != (running_var is None):
            raise ValueError("batch_norm: running_mean and running_var must both be given or both be None")
        if running_mean is not None and not (running_mean.flags.writeable and running_var.flags.writeable):
            raise ValueError("batch_norm: running_mean and running_var must be writeable in training")
    else:
        for name in ("running_mean", "running_var"):
            if named[name] is None:
                raise RuntimeError(f"batch_norm: {name} must be given in evaluation")
    if out is not None:
        as_out("batch_norm", out, input, dtype, **named)
    mean, var = np.empty(channels), np.empty(channels)
    if x.size == 0:
        return np.empty(x.shape, dtype) if out is None else out, np.empty(0), np.empty(0), momentum

    weight, bias, *running = _running.snapshot([weight, bias, running_mean, running_var])
    weight, bias = as_vector(weight, x.dtype), as_vector(bias, x.dtype)
    if not training:
        mean, var = (vector.astype(np.float64) for vector in running)

    def kernel(x, y, num_threads):
        norm = _engine.kernels.batch_norm_training if training else _engine.kernels.batch_norm_inference
        norm(x, y, mean, var, weight, bias, eps, num_threads)

    y = _run(kernel, lambda x, y: channel_view(x, y, axis), x, out, dtype, reads=2 if training else 1)
    return y, mean, var, momentum


def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5, *, out=None):
    r"""Normalise over the trailing axes: `torch.nn.functional.layer_norm`.

    .. math:: y = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} \gamma + \beta

    with the mean and biased variance of each row, a row being the values of one `normalized_shape`.

    Parameters
    ----------
    input : ndarray, (..., *normalized_shape)
        float32 or float64, any strides; float16 and bfloat16 are computed in float32.
    normalized_shape : int or sequence of int
    weight, bias : ndarray of shape `normalized_shape`, or None
        In the dtype of the input; float32 is also taken for half-precision inputs.
    eps : float
        Not negative.
    out : ndarray, optional
        Where to write the result: the input's shape and dtype, writeable; may be `input` itself.

    Returns
    -------
    ndarray
        Shape, dtype and stride order of the input, or `out`.

    Raises
    ------
    RuntimeError
        `normalized_shape` is empty or not the input's trailing shape; weight or bias of another shape; mixed dtypes; an
        `out` of another shape or dtype or that overlaps. Its subclass NotImplementedError for integer, bool and
        complex input.
    ValueError
        A negative or NaN `eps`; a read-only `out`.
    TypeError
        Arguments that are not arrays, or not numbers.

    References
    ----------
    Ba, Kiros and Hinton, Layer Normalization, 2016 (arXiv:1607.06450).

    Examples
    --------
    >>> import numpy as np
    >>> from cpunorm.functional import layer_norm
    >>> layer_norm(np.arange(8, dtype=np.float32).reshape(2, 4), 4).round(4)
    array([[-1.3416, -0.4472,  0.4472,  1.3416],
           [-1.3416, -0.4472,  0.4472,  1.3416]], dtype=float32)
    """
    y = _express.layer_norm(input, normalized_shape, weight, bias, eps, out)
    if y is not None:
        return y

    x, dtype = as_input("layer_norm", input)
    normalized_shape = as_normalized_shape(normalized_shape)
    ndim = len(normalized_shape)
    if x.shape[-ndim:] != normalized_shape:
        raise RuntimeError(f"layer_norm: normalized_shape {normalized_shape} is not the end of shape {x.shape}")
    eps = positive_eps("layer_norm", eps, zero_allowed=True)
    named = {"weight": weight, "bias": bias}
    check_parameters("layer_norm", dtype, named)
    for name, parameter in named.items():
        if parameter is not None and parameter.shape != normalized_shape:
            raise RuntimeError(
                f"layer_norm: {name} must have the normalized_shape {normalized_shape}, got {parameter.shape}"
            )
    if out is not None:
        as_out("layer_norm", out, input, dtype, **named)
    if x.size == 0:
        return np.empty(x.shape, dtype) if out is None else out

    weight, bias = _running.snapshot([weight, bias])
    weight, bias = as_vector(weight, x.dtype), as_vector(bias, x.dtype)

    def kernel(x, y, num_threads):
        _engine.kernels.layer_norm(x, y, weight, bias, eps, num_threads)

    return _run(kernel, lambda x, y: row_view(x, y, ndim), x, out, dtype)


def as_normalized_shape(normalized_shape):
    """`normalized_shape` as a tuple of ints.

    Raises
    ------
    TypeError
        Neither an int nor a sequence of ints.
    RuntimeError
        Empty, or with a negative length.
    """
    lengths = (normalized_shape,) if np.ndim(normalized_shape) == 0 else tuple(normalized_shape)
    if not lengths:
        raise RuntimeError(f"normalized_shape must have at least one dimension, got {normalized_shape!r}")
    return tuple(dimension("normalized_shape", length) for length in lengths)


def group_norm(input, num_groups, weight=None, bias=None, eps=1e-5, *, data_format="channels_first", out=None):
    r"""Normalise groups of channels, each sample by itself: `torch.nn.functional.group_norm`.

    .. math:: y = \frac{x - \mu_{n,g}}{\sqrt{\sigma_{n,g}^2 + \epsilon}} \gamma_c + \beta_c

    with the mean and biased variance over all positions of the ``C // num_groups`` channels of a group.

    Parameters
    ----------
    input : ndarray, (N, C, ...) or (N, ..., C)
        float32 or float64, any strides; float16 and bfloat16 are computed in float32.
    num_groups : int
        Divides C.
    weight, bias : ndarray, (C,), or None
        In the dtype of the input; float32 is also taken for half-precision inputs.
    eps : float
        Not negative.
    data_format : {"channels_first", "channels_last"}
    out : ndarray, optional
        Where to write the result: the input's shape and dtype, writeable; may be `input` itself.

    Returns
    -------
    ndarray
        Shape, dtype and stride order of the input, or `out`.

    Raises
    ------
    RuntimeError
        Fewer than two axes; `num_groups` < 1 or not a divisor of C; weight or bias not a vector of C elements; mixed
        dtypes; an `out` of another shape or dtype or that overlaps. Its subclass NotImplementedError for integer,
        bool and complex input.
    ValueError
        A single value per group in the whole batch; a negative or NaN `eps`; a bad `data_format`; a read-only `out`.
    TypeError
        Arguments that are not arrays, or not numbers.

    References
    ----------
    Wu and He, Group Normalization, ECCV 2018 (arXiv:1803.08494).

    Examples
    --------
    >>> import numpy as np
    >>> from cpunorm.functional import group_norm
    >>> group_norm(np.arange(8, dtype=np.float32).reshape(1, 4, 2), 2)[0, :2].round(4)
    array([[-1.3416, -0.4472],
           [ 0.4472,  1.3416]], dtype=float32)
    """
    y = _express.group_norm(input, num_groups, weight, bias, eps, data_format, out)
    if y is not None:
        return y

    x, dtype = as_input("group_norm", input)
    axis = channel_axis("group_norm", x, data_format)
    channels = x.shape[axis]
    num_groups = integer("group_norm: num_groups", num_groups)
    positions = math.prod(x.shape[1:axis] + x.shape[axis + 1 :])
    if num_groups > 0 and x.shape[0] * channels // num_groups * positions == 1:
        raise ValueError(f"group_norm: expected more than 1 value per group, got {x.shape} in {num_groups} groups")
    if num_groups < 1 or channels % num_groups:
        raise RuntimeError(f"group_norm: num_groups must divide the {channels} channels of {x.shape}, got {num_groups}")
    eps = positive_eps("group_norm", eps, zero_allowed=True)
    named = {"weight": weight, "bias": bias}
    check_parameters("group_norm", dtype, named)
    for name, parameter in named.items():
        if parameter is not None and parameter.shape != (channels,):
            raise RuntimeError(f"group_norm: {name} must have shape ({channels},), got {parameter.shape}")
    if out is not None:
        as_out("group_norm", out, input, dtype, **named)
    if x.size == 0:
        return np.empty(x.shape, dtype) if out is None else out

    weight, bias = _running.snapshot([weight, bias])
    weight, bias = as_vector(weight, x.dtype), as_vector(bias, x.dtype)

    def kernel(x, y, num_threads):
        _engine.kernels.group_norm(x, y, num_groups, weight, bias, eps, num_threads)

    return _run(kernel, lambda x, y: sample_view(x, y, axis), x, out, dtype)
