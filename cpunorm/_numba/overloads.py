"""`cpunorm.functional` inside functions that Numba compiles: the same names and arguments, the engine "numba".

Numba finds this by itself, through the entry point ``numba_extensions``, when it first compiles a function.  What
differs from a call from Python:

- a norm runs on the thread that calls it; the threads are the pipeline's, with `numba.prange` over the samples;
- what is not C-contiguous is copied before, ``out`` is filled by a copy after, a fresh output is C-contiguous;
- ``data_format`` and ``activation``, a name, are written in the call; weight and bias have one axis, or those of
  `normalized_shape`; scale, shift, lengths, return_stats, unit_offset and instance_norm's statistics can't be given;
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

from cpunorm import _engine, functional
from cpunorm._arguments import ACTIVATIONS, default_eps
from cpunorm._numba import engine
from cpunorm._numba.forward import FORWARD, compiled
from cpunorm._numba.lanes import address_of, call, pointer, stack
from cpunorm._numba.plan import ABOUT_ZERO, GIVEN, NORM_WORDS, norm_at

__all__ = ["register"]

AXES = {"channels_first": 1, "channels_last": -1}
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
    """What all are given: an input of at least `ndim` axes, targets and a residual like it, an activation."""
    if not isinstance(kinds.input, types.Array) or kinds.input.dtype not in ELEMENTS:
        raise TypingError(f"{function}: input must be a float32 or float64 array, got {kinds.input}")
    if kinds.input.ndim < ndim:
        raise TypingError(f"{function}: input must have at least {ndim} dimensions, got {kinds.input}")
    _check_arrays(function, kinds, kinds.input.ndim, "out", "sum_out", "residual")
    for name in ("out", "sum_out"):
        target = getattr(kinds, name)
        if not (_known(target) is None or target.mutable):
            raise TypingError(f"{function}: {name} is read-only")
    if _known(kinds.activation) not in (None, *ACTIVATIONS):
        allowed = f"one of {', '.join(ACTIVATIONS)}, written in the call"
        raise TypingError(f"{function}: activation must be {allowed}, got {kinds.activation}")


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
def forward(norm, x, y, weight, bias, residual, total, mean, var):
    """Run `norm` on these arrays, on this thread; it is that of the total of x and residual if that is asked for."""
    norm.x.data, norm.y.data, norm.weight, norm.bias = data(x), data(y), data(weight), data(bias)
    norm.total, norm.mean, norm.var = data(total), data(mean), data(var)
    if total is None:
        norm.residual = data(residual)
    else:
        norm.addend = data(residual)
    if call(compiled(FORWARD), address_of(norm), np.int32(1)):
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


def _flat(function, name, kind, expected):
    """A function of an array and the shape that is expected: its values in C's order, or None."""
    if _known(kind) is None:
        return jit(lambda array, shape: None)
    message = f"{function}: {name} has another shape than {expected}"

    @jit
    def flat(array, shape):
        if array.shape != shape:
            raise RuntimeError(message)
        return np.ascontiguousarray(array).reshape(-1)

    return flat


def _parameters(function, kinds, expected):
    """`_flat` of weight, bias and residual."""
    parameters = (_flat(function, name, getattr(kinds, name), expected) for name in ("weight", "bias"))
    return *parameters, _flat(function, "residual", kinds.residual, "the input")


def _given(name, kind):
    """A function that fills an output with y and returns it; returns y for None."""
    if _known(kind) is None:
        return jit(lambda y, out: y)
    message = f"{name} must have the shape of the input"

    @jit
    def given(y, out):
        if out.shape != y.shape:
            raise RuntimeError(message)
        out[...] = y
        return out

    return given


def _new_norm(function, kinds):
    """A function of eps, and whether it may be 0, that fills in a Norm with neither arrays nor axes."""
    message = f"{function}: eps must be positive, or 0 where the batch's statistics are not used"
    element, activation = ELEMENTS[kinds.input.dtype], (None, *ACTIVATIONS).index(_known(kinds.activation))

    @jit
    def new_norm(norm, eps, zero_allowed):
        if not (eps > 0 or (zero_allowed and eps == 0)):
            raise ValueError(message)
        words = pointer(address_of(norm), 0)
        for i in range(NORM_WORDS):
            words[i] = 0
        norm.element, norm.eps, norm.activation = element, eps, activation

    return new_norm


def batch_norm(kinds):
    """`cpunorm.functional.batch_norm`."""
    _check_common("batch_norm", kinds, 2)
    axis = _channel_axis("batch_norm", kinds.data_format)
    _check_arrays("batch_norm", kinds, 1, "running_mean", "running_var", "weight", "bias")
    _check("batch_norm", kinds, types.Boolean, "a bool", "training")
    _check("batch_norm", kinds, types.Number, "a float", "momentum", "eps")
    running_given = _known(kinds.running_mean) is not None
    if running_given != (_known(kinds.running_var) is not None):
        raise TypingError("batch_norm: running_mean and running_var must both be given or both be None")
    new_norm, given = _new_norm("batch_norm", kinds), _given("out", kinds.out)
    weight_of, bias_of, residual_of = _parameters("batch_norm", kinds, "the channels")
    mean_of, var_of = (
        _flat("batch_norm", name, getattr(kinds, name), "the channels") for name in ("running_mean", "running_var")
    )

    def run(
        input, running_mean, running_var, weight, bias, training, momentum, eps, data_format, out, activation, residual
    ):
        x, words = np.ascontiguousarray(input), stack(NORM_WORDS, 0)
        channels, norm = x.shape[axis], norm_at(address_of(words))
        scale, shift = weight_of(weight, (channels,)), bias_of(bias, (channels,))
        known_mean, known_var = mean_of(running_mean, (channels,)), var_of(running_var, (channels,))
        addend = residual_of(residual, x.shape)
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
        norm.groups, norm.statistic = channels, 0 if training else GIVEN
        if running_given and not training:
            mean[:], var[:] = known_mean, known_var
        forward(norm, x, y, scale, shift, addend, None, mean, var)
        if running_given and training:
            blend(running_mean, mean, float(momentum), 1.0)
            blend(running_var, var, float(momentum), count / (count - 1))
        return given(y, out)

    return run


def _rows(function, kinds, statistic=0, *, adds=False):
    """A norm of rows; `adds`: of input + residual, which is returned, too."""
    _check_common(function, kinds, 1)
    number = types.Number | types.NoneType if statistic == ABOUT_ZERO else types.Number
    _check(function, kinds, number, "a float", "eps")
    shape, eps = kinds.normalized_shape, _known(kinds.eps)
    if isinstance(shape, types.Integer):
        ndim, shape_of = 1, jit(lambda length: (length,))
    elif isinstance(shape, types.UniTuple) and isinstance(shape.dtype, types.Integer):
        ndim, shape_of = len(shape), jit(lambda shape: shape)
    else:
        raise TypingError(f"{function}: normalized_shape must be an int or a tuple of ints, got {shape}")
    if not 1 <= ndim <= kinds.input.ndim:
        raise TypingError(f"{function}: normalized_shape has {ndim} dimensions, input is {kinds.input}")
    if adds and _known(kinds.residual) is None:
        raise TypingError(f"{function}: residual must be an array")
    _check_arrays(function, kinds, ndim, "weight", "bias")
    new_norm, given = _new_norm(function, kinds), _given("out", kinds.out)
    weight_of, bias_of, residual_of = _parameters(function, kinds, "the normalized_shape")
    if eps is None:
        least = default_eps(np.dtype(str(kinds.input.dtype)))
        eps_of = jit(lambda eps: least)
    else:
        eps_of = jit(lambda eps: float(eps))
    if adds:
        sum_given, new_total = _given("sum_out", kinds.sum_out), jit(lambda x: np.empty_like(x))
        result_of = jit(lambda y, out, total, sum_out: (given(y, out), sum_given(total, sum_out)))
    else:
        result_of, new_total = jit(lambda y, out, total, sum_out: given(y, out)), jit(lambda x: None)
    message = f"{function}: normalized_shape is not the end of the input's shape"

    def run(input, normalized_shape, weight, bias, eps, out, activation, residual, sum_out):
        x, shape, words = np.ascontiguousarray(input), shape_of(normalized_shape), stack(NORM_WORDS, 0)
        norm, width = norm_at(address_of(words)), 1
        for i in range(ndim):
            if x.shape[x.ndim - ndim + i] != shape[i]:
                raise RuntimeError(message)
            width *= shape[i]
        scale, shift, addend = weight_of(weight, shape), bias_of(bias, shape), residual_of(residual, x.shape)
        new_norm(norm, eps_of(eps), True)
        y, total = np.empty_like(x), new_total(x)
        if x.size:
            place(norm, 1, 1, x.size // width, width, False)
            norm.groups, norm.along, norm.statistic = norm.channels, 1, statistic
            forward(norm, x, y, scale, shift, addend, total, None, None)
        return result_of(y, out, total, sum_out)

    return run


def layer_norm(kinds):
    """`cpunorm.functional.layer_norm`."""
    return _rows("layer_norm", kinds)


def rms_norm(kinds):
    """`cpunorm.functional.rms_norm`."""
    return _rows("rms_norm", kinds, ABOUT_ZERO)


def add_layer_norm(kinds):
    """`cpunorm.functional.add_layer_norm`."""
    return _rows("add_layer_norm", kinds, adds=True)


def add_rms_norm(kinds):
    """`cpunorm.functional.add_rms_norm`."""
    return _rows("add_rms_norm", kinds, ABOUT_ZERO, adds=True)


def _samples(function, kinds, ndim, groups_of):
    """A norm of samples; `groups_of` checks and returns how many groups, of the input, its channels and num_groups."""
    _check_common(function, kinds, ndim)
    _check(function, kinds, types.Number, "a float", "eps")
    axis = _channel_axis(function, kinds.data_format)
    _check_arrays(function, kinds, 1, "weight", "bias")
    new_norm, given = _new_norm(function, kinds), _given("out", kinds.out)
    weight_of, bias_of, residual_of = _parameters(function, kinds, "the channels")

    def run(input, num_groups, weight, bias, eps, data_format, out, activation, residual):
        x, words = np.ascontiguousarray(input), stack(NORM_WORDS, 0)
        channels, norm = x.shape[axis], norm_at(address_of(words))
        groups = groups_of(x, channels, num_groups)
        scale, shift = weight_of(weight, (channels,)), bias_of(bias, (channels,))
        addend = residual_of(residual, x.shape)
        new_norm(norm, float(eps), True)
        y = np.empty_like(x)
        if x.size:
            place(norm, len(x), 1, channels, x.size // (len(x) * channels), axis == -1)
            norm.groups = groups
            forward(norm, x, y, scale, shift, addend, None, None, None)
        return given(y, out)

    return run


def group_norm(kinds):
    """`cpunorm.functional.group_norm`."""
    if not isinstance(kinds.num_groups, types.Integer):
        raise TypingError(f"group_norm: num_groups must be an int, got {kinds.num_groups}")

    @jit
    def groups_of(x, channels, num_groups):
        if num_groups < 1 or channels % num_groups:
            raise RuntimeError("group_norm: num_groups must divide the number of channels")
        if x.size == num_groups:
            raise ValueError("group_norm: expected more than 1 value per group")
        return num_groups

    return _samples("group_norm", kinds, 2, groups_of)


def instance_norm(kinds):
    """`cpunorm.functional.instance_norm`, with the input's statistics."""

    @jit
    def groups_of(x, channels, _):
        if x.size and x.size == len(x) * channels:
            raise ValueError("instance_norm: expected more than 1 position per channel")
        return channels

    return _samples("instance_norm", kinds, 3, groups_of)


def _make_known(function, run_of):
    """Let Numba compile calls of `function`, whose parameters stand in `functional` alone, to what `run_of` returns.

    What that has no parameter for must be left at its default; what `function` has none for is None.
    """
    # Those that are taken by name only are not so here: Numba mixes their defaults up with the others'.
    parameters = inspect.signature(function).parameters
    signature = inspect.Signature([each.replace(kind=each.POSITIONAL_OR_KEYWORD) for each in parameters.values()])

    def typed(*arguments, **named):
        call = signature.bind(*arguments, **named)
        call.apply_defaults()
        run = run_of(SimpleNamespace(**{"bias": None, "residual": None, "sum_out": None} | call.arguments))
        taken = inspect.signature(run).parameters
        for name, kind in call.arguments.items():
            if name not in taken and _known(kind) != parameters[name].default:
                raise TypingError(f"{function.__name__}: {name} can't be given in a jitted function, got {kind}")
        handed = ", ".join(name if name in parameters else "None" for name in taken)
        scope = {"run": jit(run)}
        exec(f"def implementation{signature}:\n    return run({handed})", scope)
        return scope["implementation"]

    typed.__signature__ = signature
    overload(function, prefer_literal=True)(typed)


@functools.cache  # once, whoever calls it besides the entry point
def register():
    """Make them known to Numba."""
    engine.use_activations(_engine.compiled_kernels())
    for run_of in (batch_norm, layer_norm, rms_norm, add_layer_norm, add_rms_norm, group_norm, instance_norm):
        _make_known(getattr(functional, run_of.__name__), run_of)
