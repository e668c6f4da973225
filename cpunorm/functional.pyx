# cython: language_level=3, binding=True, embedsignature=False
"""The norms as functions, with the positional arguments of `torch.nn.functional`.

Common to all:

- the output has the input's shape, dtype and order of strides; it is computed in float64 for float64 and
  in float32 otherwise; float16 and ml_dtypes' bfloat16 are rounded once, to nearest even;
- ``data_format`` says where the channels are: ``"channels_first"`` (N, C, ...) or ``"channels_last"`` (N, ..., C);
- ``out`` takes the result and is returned; it may be the input itself, but not partly overlap it. For a half type it
  may be float32, which takes the result unrounded;
- ``activation`` is done to the result while it is in registers, after ``residual``, an array of the input's shape and
  dtype (it may be ``out``), is added to it: ``"relu"``, ``"relu6"``, ``"leaky_relu"`` (slope 0.01), ``"silu"``,
  ``"gelu"``, ``"gelu_tanh"``, ``"hardswish"``, ``"hardsigmoid"``, ``"sigmoid"`` or ``"tanh"``, each within 2 ulp of
  float32; with the engine numba also a function of one number, compiled by ``numba.njit`` and kept: NaN is what it
  raises an exception for;
- ``scale`` and ``shift``, of one sample each, are applied after weight and bias: y (1 + scale) + shift. They broadcast
  against the input and are constant along positions;
- ``lengths`` are the numbers of valid positions of each sample: what lies behind takes no part, and ``pad_value``
  comes out;
- ``return_stats`` returns (y, mean, rstd) with the float64 mean and 1 / sqrt(var + eps) of each domain;
- arrays may be those of another library in the CPU's memory, which is used as it is: torch tensors (that don't require
  grad), what has ``__dlpack__``, ``__array_interface__`` or ``__array__``, buffers. Results are ndarrays.
"""

# Here are names, defaults and what they mean; `_call` checks the arguments and runs the kernel, `_per_sample` what
# takes several. Compiled, since Python looks up each keyword's default in a dict at every call.

from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact

from cpunorm cimport _call

from cpunorm import _per_sample, _scalars
from cpunorm._plain import local_response_norm, normalize

__all__ = [
    "add_layer_norm",
    "add_rms_norm",
    "batch_norm",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "local_response_norm",
    "normalize",
    "rms_norm",
]


cdef inline int check_padding(str function, object pad_value) except -1:
    """Where there are no lengths nobody else looks at it."""
    if not (PyFloat_CheckExact(pad_value) and PyFloat_AS_DOUBLE(pad_value) == PyFloat_AS_DOUBLE(pad_value)):
        _scalars.real(f"{function}: pad_value", pad_value)
    return 0


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
    activation=None,
    residual=None,
    lengths=None,
    pad_value=0.0,
    return_stats=False,
):
    r"""Normalise each channel over the batch and all positions: `torch.nn.functional.batch_norm`.

    .. math:: y = \frac{x - \mu_c}{\sqrt{\sigma_c^2 + \epsilon}} \gamma_c + \beta_c

    with the batch's mean and biased variance when `training`, else with `running_mean` and `running_var`.

    Parameters
    ----------
    input : ndarray, (N, C, ...) or (N, ..., C)
        float32, float64, float16 or bfloat16, any strides.
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
    activation : str, optional
        What is done to the result: see `cpunorm.functional`.
    residual : ndarray, optional
        Of the input's shape and dtype, added before the activation.
    lengths : sequence of N int, optional
        Valid positions of each sample of a (N, C, L) or (N, L, C) input.
    pad_value : float
        What comes out behind them.
    return_stats : bool
        Return (y, mean, rstd), the last two float64 of shape (C,).

    Returns
    -------
    ndarray
        Shape, dtype and stride order of the input, or `out`; with `return_stats` a tuple.

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
    if lengths is None:
        check_padding("batch_norm", pad_value)
        return _call.batch_norm(
            input, running_mean, running_var, weight, bias, training, momentum, eps, data_format, out, activation,
            residual, return_stats, None)
    extras = _per_sample.Extras(
        out, activation, residual, lengths=lengths, pad_value=pad_value, return_stats=return_stats)
    return _per_sample.batch_norm(
        input, running_mean, running_var, weight, bias, training, momentum, eps, data_format, extras)


def layer_norm(
    input,
    normalized_shape,
    weight=None,
    bias=None,
    eps=1e-5,
    *,
    out=None,
    activation=None,
    residual=None,
    scale=None,
    shift=None,
    lengths=None,
    pad_value=0.0,
    return_stats=False,
):
    r"""Normalise over the trailing axes: `torch.nn.functional.layer_norm`.

    .. math:: y = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} \gamma + \beta

    with the mean and biased variance of each row, a row being the values of one `normalized_shape`.

    Parameters
    ----------
    input : ndarray, ``(..., *normalized_shape)``
        float32, float64, float16 or bfloat16, any strides.
    normalized_shape : int or sequence of int
    weight, bias : ndarray of shape `normalized_shape`, or None
        In the dtype of the input; float32 is also taken for half-precision inputs.
    eps : float
        Not negative.
    out : ndarray, optional
        Where to write the result: the input's shape and dtype, writeable; may be `input` itself.
    activation : str, optional
        What is done to the result: see `cpunorm.functional`.
    residual : ndarray, optional
        Of the input's shape and dtype, added before the activation.
    scale, shift : ndarray, optional
        Of each sample: y becomes y (1 + scale) + shift; (N, 1, D) for an input (N, L, D).
    lengths : sequence of N int, optional
        Valid positions of each sample of a (N, L, ...) input.
    pad_value : float
        What comes out behind them.
    return_stats : bool
        Return (y, mean, rstd), the last two float64, of the shape of the leading axes.

    Returns
    -------
    ndarray
        Shape, dtype and stride order of the input, or `out`; with `return_stats` a tuple.

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
    if lengths is None:
        check_padding("layer_norm", pad_value)
        return _call.layer_norm(
            input, normalized_shape, weight, bias, eps, out, activation, residual, scale, shift, return_stats)
    extras = _per_sample.Extras(out, activation, residual, scale, shift, lengths, pad_value, return_stats)
    return _per_sample.layer_norm(input, normalized_shape, weight, bias, eps, extras)


def group_norm(
    input,
    num_groups,
    weight=None,
    bias=None,
    eps=1e-5,
    *,
    data_format="channels_first",
    out=None,
    activation=None,
    residual=None,
    scale=None,
    shift=None,
    lengths=None,
    pad_value=0.0,
    return_stats=False,
):
    r"""Normalise groups of channels, each sample by itself: `torch.nn.functional.group_norm`.

    .. math:: y = \frac{x - \mu_{n,g}}{\sqrt{\sigma_{n,g}^2 + \epsilon}} \gamma_c + \beta_c

    with the mean and biased variance over all positions of the ``C // num_groups`` channels of a group.

    Parameters
    ----------
    input : ndarray, (N, C, ...) or (N, ..., C)
        float32, float64, float16 or bfloat16, any strides.
    num_groups : int
        Divides C.
    weight, bias : ndarray, (C,), or None
        In the dtype of the input; float32 is also taken for half-precision inputs.
    eps : float
        Not negative.
    data_format : {"channels_first", "channels_last"}
    out : ndarray, optional
        Where to write the result: the input's shape and dtype, writeable; may be `input` itself.
    activation : str, optional
        What is done to the result: see `cpunorm.functional`.
    residual : ndarray, optional
        Of the input's shape and dtype, added before the activation.
    scale, shift : ndarray, optional
        Of each sample: y becomes y (1 + scale) + shift; (N, C), or (N, C, 1, 1) for an input (N, C, H, W).
    lengths : sequence of N int, optional
        Valid positions of each sample of a (N, C, L) or (N, L, C) input.
    pad_value : float
        What comes out behind them.
    return_stats : bool
        Return (y, mean, rstd), the last two float64 of shape (N, num_groups).

    Returns
    -------
    ndarray
        Shape, dtype and stride order of the input, or `out`; with `return_stats` a tuple.

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
    if lengths is None:
        check_padding("group_norm", pad_value)
        return _call.group_norm(
            input, num_groups, weight, bias, eps, data_format, out, activation, residual, scale, shift, return_stats)
    extras = _per_sample.Extras(out, activation, residual, scale, shift, lengths, pad_value, return_stats)
    return _per_sample.group_norm(input, num_groups, weight, bias, eps, data_format, extras)


def instance_norm(
    input,
    running_mean=None,
    running_var=None,
    weight=None,
    bias=None,
    use_input_stats=True,
    momentum=0.1,
    eps=1e-5,
    *,
    data_format="channels_first",
    out=None,
    activation=None,
    residual=None,
    scale=None,
    shift=None,
    lengths=None,
    pad_value=0.0,
    return_stats=False,
):
    r"""Normalise each channel of each sample over all positions: `torch.nn.functional.instance_norm`.

    .. math:: y = \frac{x - \mu_{nc}}{\sqrt{\sigma_{nc}^2 + \epsilon}} \gamma_c + \beta_c

    with the mean and biased variance of the sample if `use_input_stats`, else with `running_mean` and `running_var`.

    Parameters
    ----------
    input : ndarray, (N, C, L, ...) or (N, L, ..., C)
        float32, float64, float16 or bfloat16, any strides.
    running_mean, running_var : ndarray of C elements, or None
        Used unless `use_input_stats`. Else updated in place, both or neither, towards the mean over the batch of the
        samples' means and unbiased variances.
    weight, bias : ndarray of C elements, or None
        In the dtype of the input; float32 is also taken for half-precision inputs.
    use_input_stats : bool
    momentum : float
    eps : float
        Not negative.
    data_format : {"channels_first", "channels_last"}
    out : ndarray, optional
        Where to write the result: the input's shape and dtype, writeable; may be `input` itself.
    activation : str, optional
        What is done to the result: see `cpunorm.functional`.
    residual : ndarray, optional
        Of the input's shape and dtype, added before the activation.
    scale, shift : ndarray, optional
        Of each sample: y becomes y (1 + scale) + shift; (N, C), or (N, C, 1, 1) for an input (N, C, H, W).
    lengths : sequence of N int, optional
        Valid positions of each sample of a (N, C, L) or (N, L, C) input.
    pad_value : float
        What comes out behind them.
    return_stats : bool
        Return (y, mean, rstd), the last two float64 of shape (N, C).

    Returns
    -------
    ndarray
        Shape, dtype and stride order of the input, or `out`; with `return_stats` a tuple.

    Raises
    ------
    ValueError
        One position per channel with the input's statistics; a bad `eps`, `momentum` or `data_format`; only one running
        statistic, or a read-only one; a read-only `out`.
    RuntimeError
        A wrong number of elements or rank; mixed dtypes; missing running statistics without the input's; an `out` of
        another shape or dtype or that overlaps. Its subclass NotImplementedError for integer, bool and complex input.
    TypeError
        Arguments that are not arrays, or not numbers.

    References
    ----------
    Ulyanov, Vedaldi and Lempitsky, Instance Normalization, 2016 (arXiv:1607.08022).

    Examples
    --------
    >>> import numpy as np
    >>> from cpunorm.functional import instance_norm
    >>> instance_norm(np.arange(8, dtype=np.float32).reshape(1, 2, 4))[0].round(4)
    array([[-1.3416, -0.4472,  0.4472,  1.3416],
           [-1.3416, -0.4472,  0.4472,  1.3416]], dtype=float32)
    """
    if lengths is None:
        check_padding("instance_norm", pad_value)
        return _call.instance_norm(
            input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps, data_format, out,
            activation, residual, scale, shift, return_stats)
    extras = _per_sample.Extras(out, activation, residual, scale, shift, lengths, pad_value, return_stats)
    return _per_sample.instance_norm(
        input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps, data_format, extras)


def rms_norm(
    input,
    normalized_shape,
    weight=None,
    eps=None,
    *,
    unit_offset=False,
    out=None,
    activation=None,
    residual=None,
    scale=None,
    shift=None,
    lengths=None,
    pad_value=0.0,
    return_stats=False,
):
    r"""Divide by the root mean square over the trailing axes: `torch.nn.functional.rms_norm`.

    .. math:: y = \frac{x}{\sqrt{\mathrm{mean}(x^2) + \epsilon}} \gamma

    Parameters
    ----------
    input : ndarray, ``(..., *normalized_shape)``
        float32, float64, float16 or bfloat16, any strides.
    normalized_shape : int or sequence of int
    weight : ndarray of shape `normalized_shape`, or None
        In the dtype of the input; float32 is also taken for half-precision inputs.
    eps : float or None
        Not negative; None for the machine epsilon of the type computed in.
    unit_offset : bool
        Multiply by 1 + weight (Gemma).
    out : ndarray, optional
        Where to write the result: the input's shape and dtype, writeable; may be `input` itself.
    activation : str, optional
        What is done to the result: see `cpunorm.functional`.
    residual : ndarray, optional
        Of the input's shape and dtype, added before the activation.
    scale, shift : ndarray, optional
        Of each sample: y becomes y (1 + scale) + shift; (N, 1, D) for an input (N, L, D).
    lengths : sequence of N int, optional
        Valid positions of each sample of a (N, L, ...) input.
    pad_value : float
        What comes out behind them.
    return_stats : bool
        Return (y, mean, rstd), the last two float64, of the shape of the leading axes.

    Returns
    -------
    ndarray
        Shape, dtype and stride order of the input, or `out`; with `return_stats` a tuple.

    Raises
    ------
    RuntimeError
        `normalized_shape` is empty or not the input's trailing shape; a weight of another shape; mixed dtypes;
        `unit_offset` without weight; an `out` of another shape or dtype or that overlaps. Its subclass
        NotImplementedError for integer, bool and complex input.
    ValueError
        Fewer axes than `normalized_shape` has; a negative or NaN `eps`; a read-only `out`.
    TypeError
        Arguments that are not arrays, or not numbers.

    References
    ----------
    Zhang and Sennrich, Root Mean Square Layer Normalization, NeurIPS 2019 (arXiv:1910.07467).

    Examples
    --------
    >>> import numpy as np
    >>> from cpunorm.functional import rms_norm
    >>> rms_norm(np.array([3, 4], np.float32), 2).round(4)
    array([0.8485, 1.1314], dtype=float32)
    """
    if lengths is None:
        check_padding("rms_norm", pad_value)
        return _call.rms_norm(
            input, normalized_shape, weight, None, eps, unit_offset, out, activation, residual, scale, shift,
            return_stats)
    extras = _per_sample.Extras(out, activation, residual, scale, shift, lengths, pad_value, return_stats)
    return _per_sample.rms_norm(input, normalized_shape, weight, eps, unit_offset, extras)


def add_layer_norm(
    input,
    residual,
    normalized_shape,
    weight=None,
    bias=None,
    eps=1e-5,
    *,
    activation=None,
    out=None,
    sum_out=None,
):
    r"""`layer_norm` of input + residual, and that sum, in one pass: what stands between the parts of a transformer.

    .. math:: s = x + r, \quad y = \frac{s - \mu}{\sqrt{\sigma^2 + \epsilon}} \gamma + \beta

    The norm reads the sum before it is rounded to the input's type.

    Parameters
    ----------
    input, residual : ndarray, ``(..., *normalized_shape)``
        Of one shape and dtype: float32, float64, float16 or bfloat16. What is not in C's order is copied.
    normalized_shape, weight, bias, eps : int or sequence of int, ndarray or None, ndarray or None, float
        As in `layer_norm`.
    activation : str, optional
        What is done to y: see `cpunorm.functional`.
    out, sum_out : ndarray, optional
        Where to write y and s: the input's shape and dtype; each may be `input` or `residual`, not both the same.

    Returns
    -------
    y, s : ndarray
        Shape and dtype of the input, or `out` and `sum_out`.

    Raises
    ------
    RuntimeError
        Arrays of another shape or dtype than the input's, or that overlap where they may not; as in `layer_norm`.
    ValueError
        An unknown `activation`; as in `layer_norm`.
    TypeError
        Arguments that are not arrays, or not numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from cpunorm.functional import add_layer_norm
    >>> y, total = add_layer_norm(np.arange(4, dtype=np.float32), np.ones(4, np.float32), 4)
    >>> y.round(4), total
    (array([-1.3416, -0.4472,  0.4472,  1.3416], dtype=float32), array([1., 2., 3., 4.], dtype=float32))
    """
    return _call.add_layer_norm(input, residual, normalized_shape, weight, bias, eps, activation, out, sum_out)


def add_rms_norm(
    input,
    residual,
    normalized_shape,
    weight=None,
    eps=None,
    *,
    unit_offset=False,
    activation=None,
    out=None,
    sum_out=None,
):
    r"""`rms_norm` of input + residual, and that sum, in one pass.

    .. math:: s = x + r, \quad y = \frac{s}{\sqrt{\mathrm{mean}(s^2) + \epsilon}} \gamma

    The norm reads the sum before it is rounded to the input's type.

    Parameters
    ----------
    input, residual : ndarray, ``(..., *normalized_shape)``
        Of one shape and dtype: float32, float64, float16 or bfloat16. What is not in C's order is copied.
    normalized_shape, weight, eps, unit_offset : int or sequence of int, ndarray or None, float or None, bool
        As in `rms_norm`.
    activation : str, optional
        What is done to y: see `cpunorm.functional`.
    out, sum_out : ndarray, optional
        Where to write y and s: the input's shape and dtype; each may be `input` or `residual`, not both the same.

    Returns
    -------
    y, s : ndarray
        Shape and dtype of the input, or `out` and `sum_out`.

    Raises
    ------
    RuntimeError
        Arrays of another shape or dtype than the input's, or that overlap where they may not; as in `rms_norm`.
    ValueError
        An unknown `activation`; as in `rms_norm`.
    TypeError
        Arguments that are not arrays, or not numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from cpunorm.functional import add_rms_norm
    >>> y, total = add_rms_norm(np.array([2, 3], np.float32), np.ones(2, np.float32), 2)
    >>> y.round(4), total
    (array([0.8485, 1.1314], dtype=float32), array([3., 4.], dtype=float32))
    """
    return _call.add_rms_norm(input, residual, normalized_shape, weight, eps, unit_offset, activation, out, sum_out)
