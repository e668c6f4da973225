"""`cpunorm.functional` inside functions that Numba compiles: the same names and arguments, the engine "numba".

Numba finds this by itself, through the entry point ``numba_extensions``, when it first compiles a function.  What
differs from a call from Python:

- a norm runs on the thread that calls it; the threads are the pipeline's, with `numba.prange` over the samples;
- what is not C-contiguous is copied before, ``out`` is filled by a copy after, a fresh output is C-contiguous;
- ``data_format`` is written in the call; weight and bias have one axis, or those of `normalized_shape`;
- the dtype and rank of an argument are checked when the call is compiled (TypingError), its lengths when it runs.
"""

import functools
import inspect
from types import SimpleNamespace

import numba
import numpy as np
from numba import types
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload
from numba.np.arrayobj import make_array

from cpunorm import functional
from cpunorm._numba import engine, loops  # noqa: F401, the engine gives `loops` its state
from cpunorm._numba.lanes import address_of, call, pointer, stack

__all__ = ["register"]

AXES = {"channels_first": 1, "channels_last": -1}
WORDS = loops.NORM_WORDS
ELEMENTS = {types.float32: 0, types.float64: 1}

jit = numba.njit(nogil=True)  # no fast math: `blend` is to round as the same line in C does


# What the type of an argument says: `kinds` are those of a call, by their names.


def _known(kind):
    """The value of an argument that is a default or written in the call, else its type."""
    if isinstance(kind, types.Omitted):
        return kind.value
    if isinstance(kind, types.NoneType):
        return None
    return kind.literal_value if isinstance(kind, types.Literal) else kind


def _check(function, kinds, expected, what, *names):
    for name in names:
        kind = getattr(kinds, name)
        if isinstance(kind, types.Type) and not isinstance(kind, types.Omitted | expected):
            raise TypingError(f"{function}: {name} must be {what}, got {kind}")


def _check_arrays(function, kinds, ndim, *names):
    """Those that are given have the dtype of the input and `ndim` axes."""
    dtype = kinds.input.dtype
    for name in names:
        kind = getattr(kinds, name)
        if _known(kind) is not None and not (
            isinstance(kind, types.Array) and kind.dtype == dtype and kind.ndim == ndim
        ):
            raise TypingError(f"{function}: {name} must be None or a {dtype} array of {ndim} dimensions, got {kind}")


def _check_common(function, kinds, ndim):
    """The input has at least `ndim` axes, `out` takes the result, eps is a number."""
    if not isinstance(kinds.input, types.Array) or kinds.input.dtype not in ELEMENTS:
        raise TypingError(f"{function}: input must be a float32 or float64 array, got {kinds.input}")
    if kinds.input.ndim < ndim:
        raise TypingError(f"{function}: input must have at least {ndim} dimensions, got {kinds.input}")
    _check(function, kinds, types.Number, "a float", "eps")
    _check_arrays(function, kinds, kinds.input.ndim, "out")
    if not (_known(kinds.out) is None or kinds.out.mutable):
        raise TypingError(f"{function}: out is read-only")


def _channel_axis(function, data_format):
    if _known(data_format) not in AXES:
        raise TypingError(
            f"{function}: data_format must be one of {tuple(AXES)}, written in the call, got {data_format}"
        )
    return AXES[_known(data_format)]


# What runs.


@intrinsic
def data(typing_context, array):
    """The address of the values of an array, which the caller keeps alive; 0 for None."""

    def code(context, builder, signature, arguments):
        if not isinstance(array, types.Array):
            return context.get_constant(types.intp, 0)
        memory = make_array(array)(context, builder, arguments[0]).data
        return builder.ptrtoint(memory, context.get_value_type(types.intp))

    return types.intp(array), code


@jit
def forward(norm, x, y, weight, bias, mean, var):
    """Run `norm` on these arrays, on this thread."""
    norm.x.data, norm.y.data, norm.weight, norm.bias = data(x), data(y), data(weight), data(bias)
    norm.mean, norm.var = data(mean), data(var)
    if call(loops.compiled(loops.FORWARD), address_of(norm), np.int32(1)):
        raise MemoryError("cpunorm: no memory for the scratch of a kernel")


@jit
def place(norm, samples, outer, channels, inner, last):
    """A C-contiguous array with its channels before or after the inner positions."""
    norm.samples, norm.outer, norm.middle, norm.channels, norm.inner = samples, outer, 1, channels, inner
    for operand in (norm.x, norm.y):
        operand.sample = operand.outer = operand.middle = channels * inner
        operand.channel, operand.inner = (1, channels) if last else (inner, 1)


@jit
def blend(running, batch, momentum, scale):
    """The running statistics moved towards the batch's, as `_running` does."""
    for c in range(running.size):
        running[c] = (1 - momentum) * running[c] + momentum * (batch[c] * scale)


def _vector(function, name, kind):
    """A function of a weight or bias and its shape: the contiguous vector, or None."""
    if _known(kind) is None:
        return jit(lambda parameter, shape: None)
    message = f"{function}: {name} has another shape than the channels or the normalized_shape"

    @jit
    def vector(parameter, shape):
        if parameter.shape != shape:
            raise RuntimeError(message)
        return np.ascontiguousarray(parameter).reshape(-1)

    return vector


def _given(kind):
    """A function that fills `out` with y and returns it; returns y for None."""
    if _known(kind) is None:
        return jit(lambda y, out: y)

    @jit
    def given(y, out):
        if out.shape != y.shape:
            raise RuntimeError("out must have the shape of the input")
        out[...] = y
        return out

    return given


def _new_norm(function, element):
    """A function of eps, and whether it may be 0, that fills in a Norm with neither arrays nor axes."""
    message = f"{function}: eps must be positive, or 0 where the batch's statistics are not used"

    @jit
    def new_norm(norm, eps, zero_allowed):
        if not (eps > 0 or (zero_allowed and eps == 0)):
            raise ValueError(message)
        words = pointer(address_of(norm), 0)
        for i in range(WORDS):
            words[i] = 0
        norm.element, norm.eps = element, eps

    return new_norm


def batch_norm(kinds):
    """`cpunorm.functional.batch_norm`."""
    _check_common("batch_norm", kinds, 2)
    axis = _channel_axis("batch_norm", kinds.data_format)
    _check_arrays("batch_norm", kinds, 1, "running_mean", "running_var", "weight", "bias")
    _check("batch_norm", kinds, types.Boolean, "a bool", "training")
    _check("batch_norm", kinds, types.Number, "a float", "momentum")
    running_given = _known(kinds.running_mean) is not None
    if running_given != (_known(kinds.running_var) is not None):
        raise TypingError("batch_norm: running_mean and running_var must both be given or both be None")
    new_norm, given = _new_norm("batch_norm", ELEMENTS[kinds.input.dtype]), _given(kinds.out)
    weight_of, bias_of, mean_of, var_of = (
        _vector("batch_norm", name, getattr(kinds, name)) for name in ("weight", "bias", "running_mean", "running_var")
    )

    def run(input, running_mean, running_var, weight, bias, training, momentum, eps, data_format, out, *_):
        x, words = np.ascontiguousarray(input), stack(WORDS, 0)
        channels, norm = x.shape[axis], loops.norm_at(address_of(words))
        scale, shift = weight_of(weight, (channels,)), bias_of(bias, (channels,))
        known_mean, known_var = mean_of(running_mean, (channels,)), var_of(running_var, (channels,))
        new_norm(norm, float(eps), not training)
        if training and x.size == channels and channels:
            raise ValueError("batch_norm: expected more than 1 value per channel in training")
        if not training and not running_given:
            raise RuntimeError("batch_norm: running_mean and running_var must be given in evaluation")
        y = np.empty_like(x)
        if x.size == 0:
            return given(y, out)
        count, mean, var = x.size // channels, np.empty(channels), np.empty(channels)
        if axis == 1:
            place(norm, 1, len(x), channels, count // len(x), False)
        else:
            place(norm, 1, 1, channels, count, True)
        norm.groups, norm.statistic = channels, 0 if training else loops.GIVEN
        if running_given and not training:
            mean[:], var[:] = known_mean, known_var
        forward(norm, x, y, scale, shift, mean, var)
        if running_given and training:
            blend(running_mean, mean, float(momentum), 1.0)
            blend(running_var, var, float(momentum), count / (count - 1))
        return given(y, out)

    return run


def layer_norm(kinds):
    """`cpunorm.functional.layer_norm`."""
    _check_common("layer_norm", kinds, 1)
    shape = kinds.normalized_shape
    if isinstance(shape, types.Integer):
        ndim, shape_of = 1, jit(lambda length: (length,))
    elif isinstance(shape, types.UniTuple) and isinstance(shape.dtype, types.Integer):
        ndim, shape_of = len(shape), jit(lambda shape: shape)
    else:
        raise TypingError(f"layer_norm: normalized_shape must be an int or a tuple of ints, got {shape}")
    if not 1 <= ndim <= kinds.input.ndim:
        raise TypingError(f"layer_norm: normalized_shape has {ndim} dimensions, input is {kinds.input}")
    _check_arrays("layer_norm", kinds, ndim, "weight", "bias")
    new_norm, given = _new_norm("layer_norm", ELEMENTS[kinds.input.dtype]), _given(kinds.out)
    weight_of, bias_of = (_vector("layer_norm", name, getattr(kinds, name)) for name in ("weight", "bias"))

    def run(input, normalized_shape, weight, bias, eps, out, *_):
        x, shape, words = np.ascontiguousarray(input), shape_of(normalized_shape), stack(WORDS, 0)
        norm, width = loops.norm_at(address_of(words)), 1
        for i in range(ndim):
            if x.shape[x.ndim - ndim + i] != shape[i]:
                raise RuntimeError("layer_norm: normalized_shape is not the end of the input's shape")
            width *= shape[i]
        scale, shift = weight_of(weight, shape), bias_of(bias, shape)
        new_norm(norm, float(eps), True)
        y = np.empty_like(x)
        if x.size:
            place(norm, 1, 1, x.size // width, width, False)
            norm.groups, norm.along = norm.channels, 1
            forward(norm, x, y, scale, shift, None, None)
        return given(y, out)

    return run


def group_norm(kinds):
    """`cpunorm.functional.group_norm`."""
    _check_common("group_norm", kinds, 2)
    axis = _channel_axis("group_norm", kinds.data_format)
    if not isinstance(kinds.num_groups, types.Integer):
        raise TypingError(f"group_norm: num_groups must be an int, got {kinds.num_groups}")
    _check_arrays("group_norm", kinds, 1, "weight", "bias")
    new_norm, given = _new_norm("group_norm", ELEMENTS[kinds.input.dtype]), _given(kinds.out)
    weight_of, bias_of = (_vector("group_norm", name, getattr(kinds, name)) for name in ("weight", "bias"))

    def run(input, num_groups, weight, bias, eps, data_format, out, *_):
        x, words = np.ascontiguousarray(input), stack(WORDS, 0)
        channels, norm = x.shape[axis], loops.norm_at(address_of(words))
        if num_groups < 1 or channels % num_groups:
            raise RuntimeError("group_norm: num_groups must divide the number of channels")
        scale, shift = weight_of(weight, (channels,)), bias_of(bias, (channels,))
        new_norm(norm, float(eps), True)
        if x.size == num_groups:
            raise ValueError("group_norm: expected more than 1 value per group")
        y = np.empty_like(x)
        if x.size:
            place(norm, len(x), 1, channels, x.size // (len(x) * channels), axis == -1)
            norm.groups = num_groups
            forward(norm, x, y, scale, shift, None, None)
        return given(y, out)

    return run


def _make_known(function, run_of):
    """Let Numba compile calls of `function`, whose parameters stand in `functional` alone, to what `run_of` returns."""
    # Those that are taken by name only are not so here: Numba mixes their defaults up with the others'.
    bare = {"kind": inspect.Parameter.POSITIONAL_OR_KEYWORD, "annotation": inspect.Parameter.empty}
    parameters = inspect.signature(function).parameters.values()
    signature = inspect.Signature([each.replace(**bare) for each in parameters])

    def typed(*arguments, **named):
        call = signature.bind(*arguments, **named)
        call.apply_defaults()
        scope = {"run": jit(run_of(SimpleNamespace(**call.arguments)))}
        exec(f"def implementation{signature}:\n    return run({', '.join(signature.parameters)})", scope)
        return scope["implementation"]

    typed.__signature__ = signature
    overload(function, prefer_literal=True)(typed)


@functools.cache  # once, whoever calls it besides the entry point
def register():
    """Make them known to Numba."""
    for run_of in (batch_norm, group_norm, layer_norm):
        _make_known(getattr(functional, run_of.__name__), run_of)
