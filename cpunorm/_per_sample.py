"""Norms whose samples differ in more than their values: scale and shift of each, lengths; and statistics returned.

Each is a few calls of `_call`, one per sample, of views; an empty slice goes first, so that all is checked before
anything is written.
"""

import functools
import itertools
from typing import Any, NamedTuple

import numpy as np

from cpunorm import _arguments, _call
from cpunorm._foreign import is_foreign, is_subclass, with_ndarrays
from cpunorm._memory import empty_like

__all__ = ["Extras", "batch_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm"]

ARRAYS = ("input", "running_mean", "running_var", "weight", "bias", "out", "residual", "scale", "shift")
UNBIASED = 2**62  # a count n for which n / (n - 1) is 1


class Extras(NamedTuple):
    """What a norm of several calls is given beside its own arguments: those of `cpunorm.functional`."""

    out: Any
    activation: Any
    residual: Any = None
    scale: Any = None
    shift: Any = None
    lengths: Any = None
    pad_value: Any = 0.0
    return_stats: Any = False


def _of_any_arrays(norm):
    """`norm` for arrays of other libraries and subclasses of ndarray too, in its arguments and extras."""
    names = norm.__code__.co_varnames[: norm.__code__.co_argcount]
    quiet = np.errstate(all="ignore")(norm)

    @functools.wraps(norm)
    def call(*arguments):
        given = dict(zip(names, arguments, strict=False))  # all but defaults
        arrays = {name: a for name, a in (given | given["extras"]._asdict()).items() if name in ARRAYS}
        if not any(is_foreign(a) or is_subclass(a) for a in arrays.values()):
            return quiet(*arguments)

        def of_ndarrays(**seen):
            extras = given["extras"]._replace(**{name: seen[name] for name in Extras._fields if name in seen})
            own = {name: seen[name] for name in given if name in seen}
            return quiet(**(given | own | {"extras": extras}))

        return with_ndarrays(of_ndarrays, norm.__name__, arrays)

    return call


@_of_any_arrays
def batch_norm(
    input, running_mean, running_var, weight, bias, training, momentum, eps, data_format, extras, counter=None
):
    """`functional.batch_norm` with lengths or statistics; `counter` as in `_call.batch_norm`."""
    name, vectors = "batch_norm", (running_mean, running_var, weight, bias)
    _check(name, input, extras)
    axis = _arguments.channel_axis(name, input, data_format)
    channels, activation = input.shape[axis], extras.activation
    moments = np.full((2, channels), np.nan)
    if extras.lengths is None:
        numbers = momentum, eps, data_format
        y = _call.batch_norm(
            input, *vectors, training, *numbers, extras.out, activation, extras.residual, tuple(moments), counter
        )
        return _result(y, moments, eps, extras)
    lengths = _as_lengths(name, extras.lengths, input, 3 - axis)
    others = dict(zip(("running_mean", "running_var", "weight", "bias"), vectors, strict=True))
    _call.batch_norm(input[:0], *vectors, training, momentum, eps, data_format, None, activation, None, None, None)
    y = _target(name, input, extras, **others)
    pieces = [_piece(sample, n, 3 - axis) for sample, n in enumerate(lengths) if n]
    if training and sum(lengths) == 1:
        raise ValueError(f"{name}: expected more than 1 value per channel in training, got lengths {lengths}")
    if training and pieces:
        parts = [
            (n, *_call.batch_moments(input[piece], data_format))
            for n, piece in zip(filter(None, lengths), pieces, strict=True)
        ]
        moments = _merged(parts)
    elif not training:
        moments = np.array(running_mean, np.float64), np.array(running_var, np.float64)
    for piece in pieces:
        residual = None if extras.residual is None else extras.residual[piece]
        _call.apply_moments(input[piece], moments, weight, bias, eps, data_format, y[piece], activation, residual)
    _pad(y, lengths, 3 - axis, extras.pad_value)
    if training:  # a batch of nothing is counted, and no more
        moved = (running_mean, running_var) if pieces else (None, None)
        _call.move_statistics(*moved, counter, *moments, momentum, sum(lengths))
    return _result(y, moments, eps, extras)


@_of_any_arrays
def group_norm(input, num_groups, weight, bias, eps, data_format, extras):
    """`functional.group_norm` with what differs between samples."""
    _arguments.check_array("group_norm: input", input)
    channels = input.shape[_arguments.channel_axis("group_norm", input, data_format)]
    num_groups = _arguments.integer("group_norm: num_groups", num_groups)
    _arguments.check_groups(input, channels, num_groups)

    def call(x, weight, bias, out, residual, moments):
        _call.group_norm(x, num_groups, weight, bias, eps, data_format, out, extras.activation, residual, moments)

    y, moments, _ = _of_samples("group_norm", call, input, num_groups, weight, bias, data_format, extras)
    return _result(y, moments, eps, extras)


@_of_any_arrays
def instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps, data_format, extras):
    """`functional.instance_norm` with what differs between samples."""
    name, vectors = "instance_norm", (running_mean, running_var)
    _arguments.check_array(f"{name}: input", input)
    axis = _arguments.channel_axis(name, input, data_format)
    channels = input.shape[axis]
    use_input_stats = _arguments.boolean(f"{name}: use_input_stats", use_input_stats)
    lengths = None if extras.lengths is None else _as_lengths(name, extras.lengths, input, 3 - axis)
    if use_input_stats and lengths is not None and 1 in lengths:
        raise ValueError(f"{name}: expected more than 1 position per channel in training, got lengths {lengths}")
    numbers = use_input_stats, momentum, eps, data_format
    _call.instance_norm(input[:0], *vectors, weight, bias, *numbers, None, extras.activation, None, None)
    given = (None, None) if use_input_stats else vectors

    def call(x, weight, bias, out, residual, moments):
        _call.instance_norm(x, *given, weight, bias, *numbers, out, extras.activation, residual, moments)

    y, (mean, var), lengths = _of_samples(name, call, input, channels, weight, bias, data_format, extras)
    used = np.asarray(lengths) > 0
    if use_input_stats and running_mean is not None and used.any():
        n = np.asarray(lengths)[used, None]
        unbiased = var[used] * (n / (n - 1))
        _call.move_statistics(*vectors, None, mean[used].mean(0), unbiased.mean(0), momentum, UNBIASED)
    return _result(y, (mean, var), eps, extras)


@_of_any_arrays
def layer_norm(input, normalized_shape, weight, bias, eps, extras):
    """`functional.layer_norm` with what differs between samples."""

    def call(x, weight, bias, out, residual, moments):
        _call.layer_norm(x, normalized_shape, weight, bias, eps, out, extras.activation, residual, moments)

    return _of_rows("layer_norm", call, input, normalized_shape, weight, bias, eps, extras)


@_of_any_arrays
def rms_norm(input, normalized_shape, weight, eps, unit_offset, extras):
    """`functional.rms_norm` with what differs between samples."""
    _arguments.check_array("rms_norm: input", input)
    eps = _arguments.default_eps(input.dtype) if eps is None else eps

    def call(x, weight, bias, out, residual, moments):
        _call.rms_norm(x, normalized_shape, weight, bias, eps, False, out, extras.activation, residual, moments)

    weight = _arguments.offset_weight("rms_norm", weight, unit_offset)
    return _of_rows("rms_norm", call, input, normalized_shape, weight, None, eps, extras)


def _of_samples(name, call, input, groups, weight, bias, data_format, extras):
    """y, mean and var (samples, groups), and the length of each sample, of a norm of samples by themselves."""
    _check(name, input, extras)
    axis = _arguments.channel_axis(name, input, data_format)
    samples, channels = input.shape[0], input.shape[axis]
    scale, shift = (_of_channels(name, what, getattr(extras, what), input, axis) for what in ("scale", "shift"))
    lengths = None if extras.lengths is None else _as_lengths(name, extras.lengths, input, 3 - axis)
    call(input[:0], weight, bias, None, None, None)
    y = _target(name, input, extras, weight=weight, bias=bias, scale=scale, shift=shift)
    mean, var = np.full((samples, groups), np.nan), np.full((samples, groups), np.nan)
    positions = input.size // max(1, samples * channels)
    if lengths is None and scale is None and shift is None:
        pieces = [(slice(samples), weight, bias)] if samples else []
    else:
        pieces = []
        for sample, n in enumerate([positions] * samples if lengths is None else lengths):
            if n:
                coefficients = _folded(weight, bias, *(v if v is None else v[sample] for v in (scale, shift)), input)
                pieces.append(
                    (slice(sample, sample + 1) if lengths is None else _piece(sample, n, 3 - axis), *coefficients)
                )
    for piece, w, b in pieces:
        some = piece if isinstance(piece, slice) else piece[0]
        residual = None if extras.residual is None else extras.residual[piece]
        call(input[piece], w, b, y[piece], residual, (mean[some], var[some]))
    if lengths is not None:
        _pad(y, lengths, 3 - axis, extras.pad_value)
    return y, (mean, var), [positions] * samples if lengths is None else lengths


def _of_rows(name, call, input, normalized_shape, weight, bias, eps, extras):
    """A norm of rows, in as many calls as scale, shift and lengths ask for."""
    _check(name, input, extras)
    leading = input.shape[: input.ndim - _arguments.trailing_axes(name, input, normalized_shape)]
    scale, shift = (_broadcast(name, what, getattr(extras, what), input) for what in ("scale", "shift"))
    depth = max(_varies_along(scale, leading), _varies_along(shift, leading))  # leading axes that are walked
    lengths = None
    if extras.lengths is not None:
        if len(leading) < 2:
            raise RuntimeError(f"{name}: lengths need an input (samples, positions, ...), got shape {input.shape}")
        lengths, depth = _as_lengths(name, extras.lengths, input, 1), max(depth, 1)
    if leading:
        call(input[:0], weight, bias, None, None, None)
    y = _target(name, input, extras, weight=weight, bias=bias, scale=scale, shift=shift)
    mean, var = np.full(leading, np.nan), np.full(leading, np.nan)
    for index in itertools.product(*map(range, leading[:depth])) if input.size or not leading else ():
        piece = index
        if lengths is not None:
            if depth == 1:
                piece = (*index, slice(lengths[index[0]]))
            elif index[1] >= lengths[index[0]]:
                continue
        first = (*index, *[0] * (len(leading) - depth))
        w, b = _folded(weight, bias, *(v if v is None else v[first] for v in (scale, shift)), input)
        residual = None if extras.residual is None else extras.residual[piece]
        moments = None
        x = input[piece]
        if extras.return_stats:
            x = np.ascontiguousarray(x)  # whose rows are in the order of the statistics
            moments = np.full(mean[piece].shape, np.nan), np.full(mean[piece].shape, np.nan)
        call(x, w, b, y[piece], residual, moments)
        if moments is not None:
            mean[piece], var[piece] = moments
    if lengths is not None:
        _pad(y, lengths, 1, extras.pad_value)
    return _result(y, (mean, var), eps, extras)


def _check(name, input, extras):
    _arguments.check_array(f"{name}: input", input)
    _arguments.boolean(f"{name}: return_stats", extras.return_stats)
    _arguments.real(f"{name}: pad_value", extras.pad_value)


def _as_lengths(name, lengths, input, axis):
    """`lengths` as a list of ints, one of each sample, none beyond the positions along `axis`.

    Raises
    ------
    TypeError
        Not a sequence of ints.
    RuntimeError
        Another number of them, negative or too large ones; an input without one axis of positions.
    """
    if axis not in (1, 2) or (name not in ("layer_norm", "rms_norm") and input.ndim != 3):
        raise RuntimeError(f"{name}: lengths need an input with one axis of positions, got shape {input.shape}")
    try:
        numbers = [_arguments.integer(f"{name}: lengths", n) for n in lengths]
    except TypeError:
        raise TypeError(f"{name}: lengths must be a sequence of ints, got {lengths!r}") from None
    if len(numbers) != input.shape[0] or any(not 0 <= n <= input.shape[axis] for n in numbers):
        allowed = f"{input.shape[0]} ints from 0 to {input.shape[axis]}"
        raise RuntimeError(f"{name}: lengths must be {allowed} for shape {input.shape}, got {lengths!r}")
    return numbers


def _piece(sample, length, axis):
    """The index of the valid positions of a sample, which stays an axis."""
    return slice(sample, sample + 1), *[slice(None)] * (axis - 1), slice(length)


def _pad(y, lengths, axis, value):
    for sample, n in enumerate(lengths):
        y[(sample, *[slice(None)] * (axis - 1), slice(n, None))] = value


def _broadcast(name, what, value, input):
    """scale or shift as seen from each element of the input."""
    if value is None:
        return None
    _arguments.check_dtypes(name, input.dtype, {what: value})
    try:
        return np.broadcast_to(value, input.shape)
    except ValueError:
        raise RuntimeError(
            f"{name}: {what} must broadcast to the input's shape {input.shape}, got {value.shape}"
        ) from None


def _varies_along(value, leading):
    """How many of the leading axes it takes to tell all values of `value` apart."""
    axes = [axis for axis, n in enumerate(leading) if value is not None and n > 1 and value.strides[axis]]
    return axes[-1] + 1 if axes else 0


def _of_channels(name, what, value, input, axis):
    """scale or shift (samples, channels); None for an input without values."""
    if value is None:
        return None
    if isinstance(value, np.ndarray) and value.shape == (input.shape[0], input.shape[axis]):
        _arguments.check_dtypes(name, input.dtype, {what: value})
        return value
    value = _broadcast(name, what, value, input)
    positions = [a for a in range(1, input.ndim) if a != axis]
    if any(value.strides[a] and value.shape[a] > 1 for a in positions):
        raise RuntimeError(f"{name}: {what} must be constant along positions of shape {input.shape}, got it along them")
    return value[tuple(0 if a in positions else slice(None) for a in range(input.ndim))] if input.size else None


def _folded(weight, bias, scale, shift, input):
    """weight and bias of y (1 + scale) + shift, in what the input is computed in."""
    if scale is None and shift is None:
        return weight, bias
    dtype = _arguments.computed_dtype(input.dtype)
    if scale is not None:
        factor = 1 + np.asarray(scale, np.float64)
        weight = factor if weight is None else weight * factor
        bias = None if bias is None else bias * factor
    if shift is not None:
        bias = np.asarray(shift, np.float64) if bias is None else bias + np.asarray(shift, np.float64)
    return tuple(v if v is None else np.ascontiguousarray(v, dtype) for v in (weight, bias))


def _target(name, input, extras, **others):
    """Where the result goes: `out`, checked with all that is read while it is written, or a new array.

    That, too, if `out` is read itself: a call that fails half way leaves it as it was.
    """
    dtype = input.dtype if input.dtype.isnative else input.dtype.newbyteorder("=")
    if extras.residual is not None:
        _arguments.check_residual(name, extras.residual, input, extras.out)
    if extras.out is None:
        return empty_like(input, dtype)
    wide = _arguments.computed_dtype(dtype)
    if isinstance(extras.out, np.ndarray) and extras.out.dtype == wide:
        dtype = wide
    out = _arguments.as_out(name, extras.out, input, dtype, **others)
    read = [a for a in (input, extras.residual) if a is not None and np.may_share_memory(a, out)]
    return empty_like(out, dtype) if read else out


def _merged(parts):
    """Mean and variance of all parts (count, mean, var): Chan's update, pairwise."""
    while len(parts) > 1:
        joined = []
        for (n, mean, var), (m, other_mean, other_var) in zip(parts[::2], parts[1::2], strict=False):
            delta, total = other_mean - mean, n + m
            with np.errstate(all="ignore"):
                joined.append(
                    (total, mean + delta * (m / total), (var * n + other_var * m + delta**2 * (n * m / total)) / total)
                )
        parts = joined + parts[len(parts) // 2 * 2 :]
    return parts[0][1:]


def _result(y, moments, eps, extras):
    """What is returned: `out`, if it was given, which nothing that can fail comes after."""
    mean, var = moments
    rstd = 1 / np.sqrt(var + eps) if extras.return_stats else None
    if extras.out is not None and y is not extras.out:
        np.copyto(extras.out, y)
        y = extras.out
    return (y, mean, rstd) if extras.return_stats else y
