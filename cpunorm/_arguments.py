"""The slow half of each check of `_call`: what converts an argument or raises, every rule and its words once.

Exceptions have torch's type; the message names what was given.
"""

import math
from typing import get_args

import numpy as np

from cpunorm import _running
from cpunorm._memory import made
from cpunorm._scalars import boolean, dimension
from cpunorm._types import ActivationName

__all__ = [
    "HALVES",
    "as_input",
    "as_modulation",
    "as_normalized_shape",
    "as_out",
    "as_parameters",
    "channel_axis",
    "channel_vectors",
    "check_activation",
    "check_array",
    "check_counter",
    "check_dtypes",
    "check_groups",
    "check_positions",
    "check_residual",
    "check_sum",
    "check_target",
    "computed_dtype",
    "default_eps",
    "empty",
    "empty_samples_first",
    "hits_itself",
    "is_bfloat16",
    "is_read",
    "is_walkable",
    "native",
    "offset_weight",
    "overlap",
    "plain",
    "same_elements",
    "trailing_axes",
]

DATA_FORMATS = ("channels_first", "channels_last")
COMPUTED = (np.dtype(np.float32), np.dtype(np.float64))
HALVES = ("float16", "bfloat16")  # computed in float32; bfloat16 is ml_dtypes' NumPy type, known by its name
ACTIVATIONS = get_args(ActivationName)


def native(dtype):
    return dtype if dtype.isnative else dtype.newbyteorder("=")


def is_bfloat16(dtype):
    """Whether it is ml_dtypes' type (whose `name` imports, which in a child of a fork may wait for ever)."""
    return dtype.type.__name__ == "bfloat16" and dtype.isbuiltin == 2  # registered by C: no class of Python is


def computed_dtype(dtype):
    """The dtype that the kernels compute `dtype` in, or None if they can't."""
    dtype = native(dtype)
    if dtype in COMPUTED:
        return dtype
    return COMPUTED[0] if dtype == np.float16 or is_bfloat16(dtype) else None


def is_walkable(array):
    """Whether a kernel can step through the memory of `array`: aligned, whole elements apart."""
    return array.flags.aligned and all(stride % array.itemsize == 0 for stride in array.strides)


def plain(array, dtype):
    """`array` as a kernel can walk it: native, aligned, whole elements apart. Copied only where it isn't that."""
    if array.dtype == dtype and is_walkable(array):
        return array.view(np.ndarray)
    with np.errstate(invalid="ignore"):  # signalling NaN of float16: on aarch64 NumPy warns of them
        return made(np.array, array, dtype=dtype, order="K", subok=False)


def check_array(name, value):
    """Raise TypeError unless `value` is an ndarray without a mask."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} must be a numpy.ndarray, got {type(value).__module__}.{type(value).__qualname__}")
    if hasattr(value, "mask"):
        raise TypeError(f"{name} must be a plain numpy.ndarray, got a masked array (masks are not supported)")


def as_input(function, array, out, halves=False):
    """The input as a kernel can walk it, and the dtype of a result to be converted or copied to `out`, or None.

    `halves`: whether kernels take half precision; what is for a float32 `out` is widened all the same.

    Raises
    ------
    TypeError
        Not an ndarray, a masked array, or one of objects, strings, times.
    NotImplementedError
        A numeric dtype that is not float16, bfloat16, float32 or float64 (torch's type: a RuntimeError).
    """
    check_array(f"{function}: input", array)
    result, dtype = native(array.dtype), computed_dtype(array.dtype)
    if dtype is None:
        numeric = array.dtype.kind in "biufc" or (array.dtype.kind == "V" and array.dtype.isbuiltin == 2)
        error = NotImplementedError if numeric else TypeError
        raise error(f"{function}: input must be float32, float64, float16 or bfloat16, got {array.dtype}")
    if result != dtype and isinstance(out, np.ndarray) and out.dtype == dtype:
        result = dtype
    elif halves:
        dtype = result
    x = plain(array, dtype)
    return x, None if out is None and result == dtype else result


def check_dtypes(function, input_dtype, vectors):
    """Check that the vectors that are not None, by their names, have a dtype that goes with the input's.

    Raises
    ------
    TypeError
        Not an ndarray.
    RuntimeError
        A dtype other than the input's (or float32, all of them, for a half-precision input).
    """
    given, input_dtype = {}, native(input_dtype)
    for name, vector in vectors.items():
        if vector is not None:
            check_array(f"{function}: {name}", vector)
            given[name] = native(vector.dtype)
    for name, dtype in given.items():
        if dtype not in (input_dtype, computed_dtype(input_dtype)) or dtype != next(iter(given.values())):
            dtypes = ", ".join(f"{n} {d}" for n, d in given.items())
            raise RuntimeError(f"{function}: mixed dtypes: {name} is {dtype} with input {input_dtype} ({dtypes})")


def _as_vector(parameter, x):
    """A checked weight or bias as a contiguous vector in what goes with x; None stays None."""
    if parameter is None:
        return None
    dtype = native(parameter.dtype) if x.dtype not in COMPUTED else x.dtype
    return np.require(parameter, dtype, ("C", "A")).view(np.ndarray).reshape(-1)


def as_parameters(function, x, input_dtype, shape, **named):
    """weight and bias as vectors that go with x, which is `input_dtype` as it was given.

    Raises
    ------
    TypeError
        Not an ndarray.
    RuntimeError
        A wrong dtype, or another shape than `shape`.
    """
    check_dtypes(function, input_dtype, named)
    for name, parameter in named.items():
        if parameter is not None and parameter.shape != shape:
            raise RuntimeError(f"{function}: {name} must have shape {shape}, got {parameter.shape}")
    return [_as_vector(parameter, x) for parameter in _running.snapshot(list(named.values()))]


def channel_vectors(function, x, input_dtype, channels, training, running_mean, running_var, weight, bias):
    """weight and bias as vectors that go with x, and the running statistics; in evaluation all are of one moment.

    Raises
    ------
    TypeError
        Not an ndarray.
    RuntimeError
        A wrong dtype or number of elements; missing running statistics in evaluation.
    ValueError
        Only one running statistic, or a read-only one, in training.
    """
    named = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    check_dtypes(function, input_dtype, named)
    for name, vector in named.items():
        if vector is not None and vector.size != channels:
            raise RuntimeError(f"{function}: {name} must have {channels} elements, one per channel, got {vector.size}")
        if vector is not None and vector.ndim != 1 and name.startswith("running"):
            raise RuntimeError(f"{function}: {name} must have one dimension, got shape {vector.shape}")
    if training:
        if (running_mean is None) != (running_var is None):
            raise ValueError(f"{function}: running_mean and running_var must both be given or both be None")
        if running_mean is not None and not (running_mean.flags.writeable and running_var.flags.writeable):
            raise ValueError(f"{function}: running_mean and running_var must be writeable in training")
    else:
        for name in ("running_mean", "running_var"):
            if named[name] is None:
                raise RuntimeError(f"{function}: {name} must be given in evaluation")
    weight, bias, *given = _running.snapshot([weight, bias, running_mean, running_var])
    weight, bias = _as_vector(weight, x), _as_vector(bias, x)
    return weight, bias, *((running_mean, running_var) if training else given)


def check_counter(counter):
    """Check that a batch can be counted.

    Raises
    ------
    TypeError
        Not a single int64.
    """
    if counter is not None and not _running.is_counter_array(counter):
        raise TypeError(f"num_batches_tracked must be an int64 array of one value, got {counter!r}")


def check_groups(x, channels, num_groups):
    """Check that `num_groups` divides the channels of x and leaves more than one value to all groups.

    Raises
    ------
    ValueError
        A single value per group in the whole batch.
    RuntimeError
        Not a positive divisor.
    """
    if num_groups > 0 and channels and x.shape[0] * channels // num_groups * (math.prod(x.shape[1:]) // channels) == 1:
        raise ValueError(f"group_norm: expected more than 1 value per group, got {x.shape} in {num_groups} groups")
    if num_groups < 1 or channels % num_groups:
        raise RuntimeError(f"group_norm: num_groups must divide the {channels} channels of {x.shape}, got {num_groups}")


def check_positions(x, positions, training):
    """Check that each channel has positions, and more than one to take statistics of.

    Raises
    ------
    ValueError
        One value per channel and sample, with the input's statistics.
    RuntimeError
        No axis of positions.
    """
    if training and x.ndim != 0 and positions == 1:
        raise ValueError(f"instance_norm: expected more than 1 position per channel in training, got shape {x.shape}")
    if x.ndim < 2:
        raise RuntimeError(f"instance_norm: expected at least 2 dimensions (samples, channels, ...), got {x.shape}")


def offset_weight(function, weight, unit_offset):
    """1 + weight, if `unit_offset`, in what is computed in.

    Raises
    ------
    TypeError
        Not a bool.
    RuntimeError
        No weight to add to.
    """
    if not boolean(f"{function}: unit_offset", unit_offset):
        return weight
    if weight is None:
        raise RuntimeError(f"{function}: unit_offset={unit_offset} needs a weight, got None")
    return weight.astype(computed_dtype(weight.dtype)) + 1


def default_eps(dtype):
    """torch's eps of rms_norm: the machine epsilon of what is computed in."""
    return float(np.finfo(computed_dtype(dtype)).eps)


def check_activation(function, activation, takes_functions=True):
    """Raise for what is neither the name of an activation nor, if the engine `takes_functions`, callable.

    Raises
    ------
    ValueError
        Another name.
    TypeError
        Neither, or a function that this engine can't take.
    """
    if isinstance(activation, str):
        if activation in ACTIVATIONS:
            return
        raise ValueError(f"{function}: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    if not callable(activation):
        raise TypeError(f"{function}: activation must be a str or a function, got {activation!r}")
    if not takes_functions:
        raise TypeError(f"{function}: a function as activation needs the engine 'numba', got {activation!r}")


def check_residual(function, residual, array, out):
    """Check that `residual` can be added to the result for `array`, which `out`, if not None, is to take.

    Raises
    ------
    TypeError
        Not an ndarray.
    RuntimeError
        Another shape or dtype than the input's, or memory shared with `out` unless it is the very same view.
    """
    _check_like(function, "residual", residual, array)
    if out is not None and not same_elements(residual, out) and overlap(residual, out):
        raise RuntimeError(f"{function}: out partly overlaps residual; give residual itself or separate memory")


def _check_like(function, name, other, array):
    """Raise unless `other` is an ndarray of the input's shape and dtype."""
    check_array(f"{function}: {name}", other)
    if other.shape != array.shape:
        raise RuntimeError(f"{function}: {name} must have the input's shape {array.shape}, got {other.shape}")
    if native(other.dtype) != native(array.dtype):
        raise RuntimeError(f"{function}: {name} must have the input's dtype {array.dtype}, got {other.dtype}")


def is_read(out, *arrays):
    """Whether `out` shares memory with one of those that are read, so that what fails half way would lose them."""
    return out is not None and any(a is not None and np.may_share_memory(a, out) for a in arrays)


def as_modulation(function, what, value, array, axis):
    """scale or shift in what the input is computed in.

    That of channels, along `axis`, is (samples, channels), None for an input without values; that of rows, for an
    `axis` of -1, has the input's shape.

    Raises
    ------
    TypeError
        Not an ndarray.
    RuntimeError
        Another dtype; it doesn't broadcast, or isn't constant along positions.
    """
    check_dtypes(function, array.dtype, {what: value})
    value = np.require(value, computed_dtype(array.dtype), "A").view(np.ndarray)
    if axis >= 0 and value.shape == (array.shape[0], array.shape[axis]):
        return value
    try:
        seen = np.broadcast_to(value, array.shape)
    except ValueError:
        shape = array.shape
        raise RuntimeError(
            f"{function}: {what} must broadcast to the input's shape {shape}, got {value.shape}"
        ) from None
    if axis < 0:
        return seen
    positions = [a for a in range(1, array.ndim) if a != axis]
    if any(seen.strides[a] and seen.shape[a] > 1 for a in positions):
        raise RuntimeError(
            f"{function}: {what} must be constant along positions of shape {array.shape}, got it along them"
        )
    return seen[tuple(0 if a in positions else slice(None) for a in range(array.ndim))] if array.size else None


def check_sum(function, array, residual, out, sum_out, weight, bias):
    """Check the arrays of a norm of array + residual: each of out and sum_out may be one of these, and not the other.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As `as_out` and `check_residual`.
    """
    _check_like(function, "residual", residual, array)
    for name, target in (("out", out), ("sum_out", sum_out)):
        if target is not None:
            check_target(function, name, target, array, array.dtype)
            for other_name, other in (("input", array), ("residual", residual)):
                if not same_elements(other, target) and overlap(other, target):
                    raise RuntimeError(f"{function}: {name} partly overlaps {other_name}; give it or separate memory")
            for other_name, other in (("weight", weight), ("bias", bias)):
                if other is not None and overlap(other, target):
                    raise RuntimeError(f"{function}: {name} overlaps {other_name}")
    if out is not None and sum_out is not None and overlap(out, sum_out):
        raise RuntimeError(f"{function}: out overlaps sum_out")


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


def trailing_axes(function, x, normalized_shape):
    """How many axes `normalized_shape` names.

    Raises
    ------
    TypeError
        Not made of ints.
    RuntimeError
        Empty, or not the end of the shape of x.
    ValueError
        More axes than x has, in rms_norm (torch's type).
    """
    lengths = as_normalized_shape(normalized_shape)
    if function == "rms_norm" and len(lengths) > x.ndim:
        raise ValueError(f"{function}: expected at least {len(lengths)} dimensions, got shape {x.shape}")
    if x.shape[-len(lengths) :] != lengths:
        raise RuntimeError(f"{function}: normalized_shape {lengths} is not the end of shape {x.shape}")
    return len(lengths)


def hits_itself(array):
    """Whether two elements of `array` may share memory: strides, smallest first, must step over what lies inside."""
    if array.size == 0:
        return False
    extent = array.itemsize
    for stride, length in sorted((abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1):
        if stride < extent:
            return True
        extent += stride * (length - 1)
    return False


def same_elements(a, b):
    """Whether two arrays of one shape and dtype are the same elements; the stride of a single one says nothing."""
    steps = zip(a.shape, a.strides, b.strides, strict=True)
    same_start = a.__array_interface__["data"][0] == b.__array_interface__["data"][0]
    return same_start and a.dtype == b.dtype and all(sa == sb for length, sa, sb in steps if length > 1)


def overlap(a, b):
    try:
        return np.may_share_memory(a, b) and np.shares_memory(a, b, max_work=10_000)
    except np.exceptions.TooHardError:
        return True
    except RuntimeError as error:  # NumPy's word for no memory here
        raise MemoryError(f"cpunorm: {error}") from None


def check_target(function, name, out, array, dtype):
    """Raise unless `out` is a writeable array of the shape of `array` and of `dtype`, no element lying on another."""
    check_array(f"{function}: {name}", out)
    if not out.flags.writeable:
        raise ValueError(f"{function}: {name} is read-only")
    if out.shape != array.shape:
        raise RuntimeError(f"{function}: {name} must have the input's shape {array.shape}, got {out.shape}")
    if out.dtype != dtype:
        raise RuntimeError(f"{function}: {name} must have dtype {dtype}, got {out.dtype}")
    if hits_itself(out):
        raise RuntimeError(f"{function}: {name} overlaps itself: shape {out.shape}, strides {out.strides}")


def as_out(function, out, array, dtype, **others):
    """Check that `out` can take the result for the input `array`, which it may be but not partly overlap.

    Raises
    ------
    TypeError
        Not an ndarray.
    ValueError
        Read-only.
    RuntimeError
        Another shape or dtype than the result's, or memory shared with itself, with one of `others`, or with the
        input unless it is the very same view.
    """
    check_target(function, "out", out, array, dtype)
    if not same_elements(array, out) and overlap(array, out):
        raise RuntimeError(f"{function}: out partly overlaps the input; give the input itself or separate memory")
    for name, other in others.items():
        if other is not None and overlap(other, out):
            raise RuntimeError(f"{function}: out overlaps {name}")
    return out


def channel_axis(function, array, data_format):
    """The axis of the channels.

    Raises
    ------
    RuntimeError
        Fewer than two axes.
    ValueError
        A `data_format` that does not exist.
    """
    if not isinstance(data_format, str) or data_format not in DATA_FORMATS:
        raise ValueError(f"{function}: data_format must be one of {DATA_FORMATS}, got {data_format!r}")
    if array.ndim < 2:
        raise RuntimeError(f"{function}: expected at least 2 dimensions (samples, channels, ...), got {array.shape}")
    return 1 if data_format == "channels_first" else array.ndim - 1


def empty(array, dtype, out):
    """The result for an input without elements."""
    return np.empty(array.shape, dtype or native(array.dtype)) if out is None else out


def empty_samples_first(x):
    """An array for a copy of x whose first axis is the outermost in memory, the others in the order that they have.

    Samples a power of 2 apart would share few places in L1, where the copy writes to as many as it can: such lie a line
    further apart.
    """
    order = [0, *sorted(range(1, x.ndim), key=lambda axis: -abs(x.strides[axis]))]
    lengths = [x.shape[axis] for axis in order]
    values = math.prod(lengths[1:])
    if values * x.itemsize % 1024:
        y = made(np.empty, lengths, x.dtype)
    else:
        y = made(np.empty, (lengths[0], values + 64 // x.itemsize), x.dtype)[:, :values].reshape(lengths)
    return y.transpose([order.index(axis) for axis in range(x.ndim)])
