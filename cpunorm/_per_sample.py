"""Norms of samples of several lengths.

Each is a few calls of `_call`, one per sample, of views; an empty slice goes first, so that all is checked before
anything is written.
"""

import functools
from typing import Any, NamedTuple

import numpy as np

from cpunorm import _arguments, _call, _scalars
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
    """`functional.batch_norm`, with lengths or without; `counter` as in `_call.batch_norm`."""
    name, vectors = "batch_norm", (running_mean, running_var, weight, bias)
    _check(name, input, extras)
    activation, residual = extras.activation, extras.residual
    if extras.lengths is None:
        numbers, returned = (momentum, eps, data_format), extras.return_stats
        return _call.batch_norm(
            input, *vectors, training, *numbers, extras.out, activation, residual, returned, counter
        )
    axis = _arguments.channel_axis(name, input, data_format)
    moments = np.full((2, input.shape[axis]), np.nan)
    lengths = _as_lengths(name, extras.lengths, input, 3 - axis)
    others = dict(zip(("running_mean", "running_var", "weight", "bias"), vectors, strict=True))
    _call.batch_norm(input[:0], *vectors, training, momentum, eps, data_format, None, activation, None, False, None)
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
        added = None if residual is None else residual[piece]
        _call.apply_moments(input[piece], moments, weight, bias, eps, data_format, y[piece], activation, added)
    _pad(y, lengths, 3 - axis, extras.pad_value)
    if training:  # a batch of nothing is counted, and no more
        moved = (running_mean, running_var) if pieces else (None, None)
        _call.move_statistics(*moved, counter, *moments, momentum, sum(lengths))
    return _result(y, moments, eps, extras)


@_of_any_arrays
def group_norm(input, num_groups, weight, bias, eps, data_format, extras):
    """`functional.group_norm` with lengths."""
    _arguments.check_array("group_norm: input", input)
    channels = input.shape[_arguments.channel_axis("group_norm", input, data_format)]
    num_groups = _scalars.integer("group_norm: num_groups", num_groups)
    _arguments.check_groups(input, channels, num_groups)

    def call(x, *others):
        _call.group_norm(x, num_groups, weight, bias, eps, data_format, *others)

    y, moments = _of_samples("group_norm", call, input, num_groups, weight, bias, data_format, extras)
    return _result(y, moments, eps, extras)


@_of_any_arrays
def instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps, data_format, extras):
    """`functional.instance_norm` with lengths."""
    name, vectors = "instance_norm", (running_mean, running_var)
    _arguments.check_array(f"{name}: input", input)
    axis = _arguments.channel_axis(name, input, data_format)
    channels = input.shape[axis]
    use_input_stats = _scalars.boolean(f"{name}: use_input_stats", use_input_stats)
    lengths = _as_lengths(name, extras.lengths, input, 3 - axis)
    if use_input_stats and 1 in lengths:
        raise ValueError(f"{name}: expected more than 1 position per channel in training, got lengths {lengths}")
    numbers = use_input_stats, momentum, eps, data_format
    _call.instance_norm(input[:0], *vectors, weight, bias, *numbers, None, extras.activation, None, None, None, False)
    given = (None, None) if use_input_stats else vectors

    def call(x, *others):
        _call.instance_norm(x, *given, weight, bias, *numbers, *others)

    y, (mean, var) = _of_samples(name, call, input, channels, weight, bias, data_format, extras)
    used = np.asarray(lengths) > 0
    if use_input_stats and running_mean is not None and used.any():
        n = np.asarray(lengths)[used, None]
        unbiased = var[used] * (n / (n - 1))
        _call.move_statistics(*vectors, None, mean[used].mean(0), unbiased.mean(0), momentum, UNBIASED)
    return _result(y, (mean, var), eps, extras)


@_of_any_arrays
def layer_norm(input, normalized_shape, weight, bias, eps, extras):
    """`functional.layer_norm` with lengths."""

    def call(x, *others):
        _call.layer_norm(x, normalized_shape, weight, bias, eps, *others)

    return _of_rows("layer_norm", call, input, normalized_shape, weight, bias, eps, extras)


@_of_any_arrays
def rms_norm(input, normalized_shape, weight, eps, unit_offset, extras):
    """`functional.rms_norm` with lengths."""
    _arguments.check_array("rms_norm: input", input)
    eps = _arguments.default_eps(input.dtype) if eps is None else eps

    def call(x, *others):
        _call.rms_norm(x, normalized_shape, weight, None, eps, False, *others)

    weight = _arguments.offset_weight("rms_norm", weight, unit_offset)
    return _of_rows("rms_norm", call, input, normalized_shape, weight, None, eps, extras)


def _of_samples(name, call, input, groups, weight, bias, data_format, extras):
    """y, and mean and variance (samples, groups), of a norm of samples by themselves."""
    axis = _arguments.channel_axis(name, input, data_format)
    lengths = _as_lengths(name, extras.lengths, input, 3 - axis)
    pieces = [(_piece(sample, n, 3 - axis), slice(sample, sample + 1)) for sample, n in enumerate(lengths) if n]
    y, moments = _of_pieces(name, call, input, axis, (input.shape[0], groups), weight, bias, pieces, extras)
    _pad(y, lengths, 3 - axis, extras.pad_value)
    return y, moments


def _of_rows(name, call, input, normalized_shape, weight, bias, eps, extras):
    """A norm of rows."""
    _arguments.check_array(f"{name}: input", input)
    leading = input.shape[: input.ndim - _arguments.trailing_axes(name, input, normalized_shape)]
    if len(leading) < 2:
        raise RuntimeError(f"{name}: lengths need an input (samples, positions, ...), got shape {input.shape}")
    lengths = _as_lengths(name, extras.lengths, input, 1)
    pieces = [((sample, slice(n)),) * 2 for sample, n in enumerate(lengths) if n]
    y, moments = _of_pieces(name, call, input, -1, leading, weight, bias, pieces, extras)
    _pad(y, lengths, 1, extras.pad_value)
    return _result(y, moments, eps, extras)


def _of_pieces(name, call, input, axis, domains, weight, bias, pieces, extras):
    """y, and mean and variance of `domains`, NaN beside the pieces; each is an index of x and one of what is its own.

    That is, where `axis` is the channels', statistics, scale and shift; of rows, for an `axis` of -1, all is indexed
    as x.
    """
    _check(name, input, extras)
    scale, shift = (
        value if value is None else _arguments.as_modulation(name, what, value, input, axis)
        for what, value in (("scale", extras.scale), ("shift", extras.shift))
    )
    call(input[:0], None, extras.activation, None, None, None, False)
    y = _target(name, input, extras, weight=weight, bias=bias, scale=extras.scale, shift=extras.shift)
    moments = np.full((2, *domains), np.nan)
    for piece, own in pieces:
        residual, *modulation = (
            a if a is None else a[at] for a, at in ((extras.residual, piece), (scale, own), (shift, own))
        )
        found = moments[0][own], moments[1][own]
        call(input[piece], y[piece], extras.activation, residual, *modulation, found)
    return y, moments


def _check(name, input, extras):
    _arguments.check_array(f"{name}: input", input)
    _scalars.boolean(f"{name}: return_stats", extras.return_stats)
    _scalars.real(f"{name}: pad_value", extras.pad_value)


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
        numbers = [_scalars.integer(f"{name}: lengths", n) for n in lengths]
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
    return empty_like(out, dtype) if _arguments.is_read(out, input, extras.residual) else out


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
