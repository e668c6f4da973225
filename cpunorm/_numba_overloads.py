"""`cpunorm.functional` inside functions that Numba compiles: the same names, and the bits of the engine "numba".

Numba finds this by itself, through the entry point ``numba_extensions``, when it first compiles a function.  What
differs from a call from Python:

- a norm runs on the thread that calls it; the threads are the pipeline's, with `numba.prange` over the samples;
- what is not C-contiguous is copied before, ``out`` is filled by a copy after, a fresh output is C-contiguous;
- ``data_format`` is written in the call; weight and bias have one axis, or those of `normalized_shape`;
- the dtype and rank of an argument are checked when the call is compiled (TypingError), its lengths when it runs.
"""

import functools

import numba
import numpy as np
from numba import types
from numba.core.errors import TypingError
from numba.extending import overload

from cpunorm import functional
from cpunorm._jitted import normalize_domains, normalize_given, normalize_lines
from cpunorm._kernels_numba import compiled

__all__ = ["register"]

# The arguments that `functional` takes by name only are not so here: Numba mixes their defaults up with the others'.

jit = numba.njit(nogil=True)  # no fast math: `blend` is to round as the same line in C does


def _is_none(kind):
    return kind is None or isinstance(kind, types.NoneType) or (isinstance(kind, types.Omitted) and kind.value is None)


def _known(kind):
    """The value of an argument that is a default or written in the call, else its type."""
    if isinstance(kind, types.Omitted):
        return kind.value
    return kind.literal_value if isinstance(kind, types.Literal) else kind


def _check_kind(function, name, kind, expected, what):
    if isinstance(kind, types.Type) and not isinstance(kind, types.Omitted | expected):
        raise TypingError(f"{function}: {name} must be {what}, got {kind}")


def _check_array(function, name, kind, dtype, ndim):
    if not (_is_none(kind) or (isinstance(kind, types.Array) and kind.dtype == dtype and kind.ndim == ndim)):
        raise TypingError(f"{function}: {name} must be None or a {dtype} array of {ndim} dimensions, got {kind}")


def _checked_input(function, kind, ndim):
    """The dtype of the input, an array of at least `ndim` dimensions."""
    if not isinstance(kind, types.Array) or kind.dtype not in (types.float32, types.float64):
        raise TypingError(f"{function}: input must be a float32 or float64 array, got {kind}")
    if kind.ndim < ndim:
        raise TypingError(f"{function}: input must have at least {ndim} dimensions, got {kind}")
    return np.dtype(kind.dtype.name)


def _check_out(function, kind, like):
    _check_array(function, "out", kind, like.dtype, like.ndim)
    if not (_is_none(kind) or kind.mutable):
        raise TypingError(f"{function}: out is read-only")


def _vector(function, name, kind, value, dtype):
    """A function of a weight or bias and its shape: the contiguous vector, `value` everywhere for None."""
    if _is_none(kind):
        return jit(lambda parameter, shape: np.full(shape, value, dtype).reshape(-1))
    message = f"{function}: {name} has another shape than the channels or the normalized_shape"

    @jit
    def vector(parameter, shape):
        if parameter.shape != shape:
            raise RuntimeError(message)
        return np.ascontiguousarray(parameter).reshape(-1)

    return vector


def _given(kind):
    """A function that fills `out` with y and returns it; returns y for None."""
    if _is_none(kind):
        return jit(lambda y, out: y)

    @jit
    def given(y, out):
        if out.shape != y.shape:
            raise RuntimeError("out must have the shape of the input")
        out[...] = y
        return out

    return given


def _check_eps(function):
    message = f"{function}: eps must be positive, or 0 where the batch's statistics are not used"

    @jit
    def check_eps(eps, zero_allowed):
        if not (eps > 0 or (zero_allowed and eps == 0)):
            raise ValueError(message)
        return float(eps)

    return check_eps


@jit
def _blend(running, batch, momentum, scale):
    """The running statistics moved towards the batch's, as `_running.blend` does."""
    for c in range(running.size):
        running[c] = (1 - momentum) * running[c] + momentum * (batch[c] * scale)


def _layout(function, data_format):
    """The axis of the channels."""
    axes = {"channels_first": 1, "channels_last": -1}
    if _known(data_format) not in axes:
        raise TypingError(
            f"{function}: data_format must be one of {tuple(axes)}, written in the call, got {data_format}"
        )
    return axes[_known(data_format)]


def _grouped(dtype):
    """A function that runs the training kernel for x in lines."""
    domains, lines = compiled(normalize_domains, dtype), compiled(normalize_lines, dtype)

    @jit
    def grouped(x, y, last, samples, groups, mean, var, weight, bias, eps):
        if last:
            lines(x, y, samples, groups, mean, var, weight, bias, eps, 1)
        else:
            domains(x, y, samples, groups, mean, var, weight, bias, eps, False, 1)

    return grouped


def batch_norm(
    input,
    running_mean,
    running_var,
    weight=None,
    bias=None,
    training=False,
    momentum=0.1,
    eps=1e-5,
    data_format="channels_first",
    out=None,
):
    """`cpunorm.functional.batch_norm`."""
    dtype = _checked_input("batch_norm", input, 2)
    axis = _layout("batch_norm", data_format)
    for name, kind in {
        "running_mean": running_mean,
        "running_var": running_var,
        "weight": weight,
        "bias": bias,
    }.items():
        _check_array("batch_norm", name, kind, input.dtype, 1)
    _check_kind("batch_norm", "training", training, types.Boolean, "a bool")
    _check_kind("batch_norm", "momentum", momentum, types.Number, "a float")
    _check_kind("batch_norm", "eps", eps, types.Number, "a float")
    _check_out("batch_norm", out, input)
    if _is_none(running_mean) != _is_none(running_var):
        raise TypingError("batch_norm: running_mean and running_var must both be given or both be None")
    running_given = not _is_none(running_mean)
    if _known(training) is False:
        grouped = jit(lambda x, y, last, samples, groups, mean, var, weight, bias, eps: None)
    else:
        grouped = _grouped(dtype)
    inference, check_eps = compiled(normalize_given, dtype), _check_eps("batch_norm")
    weight_of = _vector("batch_norm", "weight", weight, 1, dtype)
    bias_of = _vector("batch_norm", "bias", bias, 0, dtype)
    mean_of = _vector("batch_norm", "running_mean", running_mean, 0, dtype)
    var_of = _vector("batch_norm", "running_var", running_var, 1, dtype)
    given = _given(out)

    def implementation(
        input,
        running_mean,
        running_var,
        weight=None,
        bias=None,
        training=False,
        momentum=0.1,
        eps=1e-5,
        data_format="channels_first",
        out=None,
    ):
        x = np.ascontiguousarray(input)
        channels = x.shape[axis]
        scale, shift = weight_of(weight, (channels,)), bias_of(bias, (channels,))
        mean, var = (
            mean_of(running_mean, (channels,)).astype(np.float64),
            var_of(running_var, (channels,)).astype(np.float64),
        )
        epsilon = check_eps(eps, not training)
        if training and x.size == channels and channels:
            raise ValueError("batch_norm: expected more than 1 value per channel in training")
        if not training and not running_given:
            raise RuntimeError("batch_norm: running_mean and running_var must be given in evaluation")
        y = np.empty_like(x)
        if x.size == 0:
            return given(y, out)
        count = x.size // channels
        last = channels > 1 and (axis == -1 or count == len(x))  # (N, C) is both, and taken as Python takes it
        shape = (1, 1, count, channels) if last else (len(x), channels, 1, count // len(x))
        if channels == 1:
            shape = (1, 1, 1, count)
        lines, result = x.reshape(shape), y.reshape(shape)
        if training:
            grouped(lines, result, last, 1, channels, mean, var, scale, shift, epsilon)
            if running_given:
                _blend(running_mean, mean, float(momentum), 1.0)
                _blend(running_var, var, float(momentum), count / (count - 1))
        else:
            inference(lines, result, mean, var, scale, shift, epsilon, last, 1)
        return given(y, out)

    return implementation


def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5, out=None):
    """`cpunorm.functional.layer_norm`."""
    dtype = _checked_input("layer_norm", input, 1)
    if isinstance(normalized_shape, types.Integer):
        ndim, shape_of = 1, jit(lambda length: (length,))
    elif isinstance(normalized_shape, types.UniTuple) and isinstance(normalized_shape.dtype, types.Integer):
        ndim, shape_of = len(normalized_shape), jit(lambda shape: shape)
    else:
        raise TypingError(f"layer_norm: normalized_shape must be an int or a tuple of ints, got {normalized_shape}")
    if not 1 <= ndim <= input.ndim:
        raise TypingError(f"layer_norm: normalized_shape has {ndim} dimensions, input is {input}")
    for name, kind in {"weight": weight, "bias": bias}.items():
        _check_array("layer_norm", name, kind, input.dtype, ndim)
    _check_kind("layer_norm", "eps", eps, types.Number, "a float")
    _check_out("layer_norm", out, input)
    kernel, check_eps = compiled(normalize_domains, dtype), _check_eps("layer_norm")
    weight_of = _vector("layer_norm", "weight", weight, 1, dtype)
    bias_of = _vector("layer_norm", "bias", bias, 0, dtype)
    given = _given(out)

    def implementation(input, normalized_shape, weight=None, bias=None, eps=1e-5, out=None):
        x, shape = np.ascontiguousarray(input), shape_of(normalized_shape)
        for i in range(ndim):
            if x.shape[x.ndim - ndim + i] != shape[i]:
                raise RuntimeError("layer_norm: normalized_shape is not the end of the input's shape")
        scale, shift = weight_of(weight, shape), bias_of(bias, shape)
        epsilon = check_eps(eps, True)
        y, unasked = np.empty_like(x), np.empty(0)
        if x.size:
            rows = (1, x.size // scale.size, 1, scale.size)
            kernel(x.reshape(rows), y.reshape(rows), 1, rows[1], unasked, unasked, scale, shift, epsilon, True, 1)
        return given(y, out)

    return implementation


def group_norm(input, num_groups, weight=None, bias=None, eps=1e-5, data_format="channels_first", out=None):
    """`cpunorm.functional.group_norm`."""
    dtype = _checked_input("group_norm", input, 2)
    axis = _layout("group_norm", data_format)
    if not isinstance(num_groups, types.Integer):
        raise TypingError(f"group_norm: num_groups must be an int, got {num_groups}")
    for name, kind in {"weight": weight, "bias": bias}.items():
        _check_array("group_norm", name, kind, input.dtype, 1)
    _check_kind("group_norm", "eps", eps, types.Number, "a float")
    _check_out("group_norm", out, input)
    grouped, check_eps = _grouped(dtype), _check_eps("group_norm")
    weight_of = _vector("group_norm", "weight", weight, 1, dtype)
    bias_of = _vector("group_norm", "bias", bias, 0, dtype)
    given = _given(out)

    def implementation(input, num_groups, weight=None, bias=None, eps=1e-5, data_format="channels_first", out=None):
        x = np.ascontiguousarray(input)
        channels = x.shape[axis]
        if num_groups < 1 or channels % num_groups:
            raise RuntimeError("group_norm: num_groups must divide the number of channels")
        scale, shift = weight_of(weight, (channels,)), bias_of(bias, (channels,))
        epsilon = check_eps(eps, True)
        if x.size == num_groups:
            raise ValueError("group_norm: expected more than 1 value per group")
        y, unasked = np.empty_like(x), np.empty(0)
        if x.size:
            samples, count = len(x), x.size // (len(x) * channels)
            last = channels > 1 and (axis == -1 or count == 1)
            shape = (samples, 1, count, channels) if last else (samples, channels, 1, count)
            grouped(
                x.reshape(shape), y.reshape(shape), last, samples, num_groups, unasked, unasked, scale, shift, epsilon
            )
        return given(y, out)

    return implementation


@functools.cache  # once, whoever calls it besides the entry point
def register():
    """Make them known to Numba."""
    for function in (batch_norm, group_norm, layer_norm):
        overload(getattr(functional, function.__name__), prefer_literal=True)(function)
