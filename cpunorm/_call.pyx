# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A call: arguments -> Norm -> kernel.

Each argument has a fast test in C; where that fails, one slow function of `_arguments` converts it or raises.  So what
is merely unusual costs its own conversion and nothing else.

An array, in whatever layout, is seen along the axes of `_norm.pxd` and not copied: neighbours that lie evenly in memory
are merged.  What is left over (more uneven axes than a Norm has, misaligned or byte-swapped memory, half precision in
engines that don't take it) goes through a copy that keeps the order of the axes.
"""

from cpython.float cimport PyFloat_CheckExact
from cpython.long cimport PyLong_CheckExact
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.float cimport DBL_EPSILON, FLT_EPSILON
from libc.math cimport sqrt
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, labs, malloc
from libc.string cimport memcpy

import numpy as np

cimport cython
cimport numpy as cnp

from cpunorm._cpu cimport call_ends, threads_for
from cpunorm._memory cimport new_like, release
from cpunorm._norm cimport (
    ABOUT_ZERO, CENTRED, FLOAT64, FUNCTION, GIVEN, MOST_AXES, RELU, Axis, Copy, KernelSet, Norm, Operand, Plan)
from cpunorm cimport _running
from cpunorm._running cimport count_up, enter, is_counter, leave, read, update

from cpunorm import _arguments, _memory, _scalars
from cpunorm._cpu import explained_threads
from cpunorm._foreign import as_ndarrays, with_ndarrays

cnp.import_array()

cdef extern from *:
    """
    /* Of what is known to be an ndarray: Cython's own declarations test that once more, 10 ns each. */
    #define ndim_of(a) PyArray_NDIM((PyArrayObject *) (a))
    #define lengths_of(a) PyArray_DIMS((PyArrayObject *) (a))
    #define length_of(a, axis) PyArray_DIM((PyArrayObject *) (a), axis)
    #define stride_of(a, axis) PyArray_STRIDE((PyArrayObject *) (a), axis)
    #define type_of(a) PyArray_TYPE((PyArrayObject *) (a))
    #define data_of(a) PyArray_DATA((PyArrayObject *) (a))
    #define size_of(a) PyArray_SIZE((PyArrayObject *) (a))
    #define itemsize_of(a) PyArray_ITEMSIZE((PyArrayObject *) (a))
    #define bytes_of(a) PyArray_NBYTES((PyArrayObject *) (a))
    #define is_behaved(a) PyArray_ISBEHAVED_RO((PyArrayObject *) (a))
    #define is_writeable(a) PyArray_ISWRITEABLE((PyArrayObject *) (a))
    #define is_contiguous(a) PyArray_ISCONTIGUOUS((PyArrayObject *) (a))
    #define is_carray(a) PyArray_ISCARRAY_RO((PyArrayObject *) (a))
    """
    int ndim_of(object a)
    cnp.npy_intp* lengths_of(object a)
    Py_ssize_t length_of(object a, int axis)
    Py_ssize_t stride_of(object a, int axis)
    int type_of(object a)
    void* data_of(object a)
    Py_ssize_t size_of(object a)
    Py_ssize_t itemsize_of(object a)
    Py_ssize_t bytes_of(object a)
    bint is_behaved(object a)
    bint is_writeable(object a)
    bint is_contiguous(object a)
    bint is_carray(object a)

cdef enum:
    COPIED_SIZE = 1024  # values from which on an input ...
    CENTRED_RUN = 32  # ... in runs of so many at most is copied before it is read twice ...
    GIVEN_RUN = 16  # ... or once ...
    NUMBA_RUN = 512  # ... or either way by an engine that packs values one by one
    EXPENSIVE = 4  # an activation with an exponential takes as long as so many readings of x

cdef Norm unset  # all zeros
cdef KernelSet given_set  # of an engine that tells the address of its function
cdef KernelSet* kernels = NULL  # never again once there are some, for calls read both without a lock
cdef object python_forward = None  # of an engine in Python


cdef bint takes_halves = False  # whether kernels take float16 and bfloat16
cdef object address_of = None  # of an engine that takes functions as activations: their address, for an element


def use_kernels(module):
    """Send calls to the kernels of a module: its capsule KERNEL_SET, address FORWARD or Python function forward."""
    global kernels, python_forward, takes_halves, address_of
    cdef KernelSet* chosen = kernels
    cdef bint compiled = hasattr(module, "KERNEL_SET")
    forward, address = None, getattr(module, "address_of", None)
    if compiled:
        chosen = <KernelSet*> PyCapsule_GetPointer(module.KERNEL_SET, "cpunorm.KernelSet")
    elif hasattr(module, "FORWARD"):
        given_set.forward = <int (*)(const Norm*, int) noexcept nogil> <size_t> module.FORWARD
        chosen = &given_set
    else:
        forward = module.forward
    # Plain stores, between which no thread is interrupted: one that calls, sets an engine too, or forks.
    kernels, python_forward, takes_halves, address_of = chosen, forward, compiled, address


cdef inline void* data(object array) noexcept:
    return NULL if array is None else data_of(array)


include "call/arguments.pxi"
include "call/views.pxi"
include "call/samples.pxi"
include "call/run.pxi"


cdef inline void put_moments(Norm* n, object moments) noexcept:
    """`moments` are float64 arrays for mean and variance, if they are a tuple."""
    if PyTuple_CheckExact(moments):
        n.mean, n.var = <double*> data_of(moments[0]), <double*> data_of(moments[1])


cpdef object batch_norm(
    input, running_mean, running_var, weight, bias, training, momentum, eps, data_format, out, activation, residual,
    moments, counter
):
    """`functional.batch_norm`, which also counts the batch, a failed one too; `momentum` may be None with a counter."""
    cdef bint counted = counter is None or not is_counter(counter)
    try:
        if (is_foreign(input) or is_foreign(running_mean) or is_foreign(running_var) or is_foreign(weight)
                or is_foreign(bias) or is_foreign(out) or is_foreign(residual)):
            seen = as_ndarrays(
                "batch_norm", {"input": input, "running_mean": running_mean, "running_var": running_var,
                               "weight": weight, "bias": bias, "out": out, "residual": residual})
            counted = True  # by the inner call
            y = batch_norm(
                **seen, training=training, momentum=momentum, eps=eps, data_format=data_format, activation=activation,
                moments=moments, counter=counter)
            return y if out is None else (out, *y[1:]) if isinstance(y, tuple) else out
        return counted_batch_norm(
            input, running_mean, running_var, weight, bias, training, momentum, eps, data_format, out, activation,
            residual, moments, counter, &counted)
    except Explained:
        raise
    except BaseException:
        if not counted:
            count_up(counter)
        raise


cdef inline bint are_channel_vectors(
    object x, Py_ssize_t channels, bint train, object running_mean, object running_var, object weight, object bias
) noexcept:
    """Whether the vectors of a norm with running statistics can be used as they are."""
    return (is_vector(weight, x, channels) and is_vector(bias, x, channels)
            and is_vector(running_mean, x, channels) and is_vector(running_var, x, channels)
            and (running_mean is None) == (running_var is None) and (train or running_mean is not None)
            and (not train or running_mean is None or is_writeable(running_mean) and is_writeable(running_var))
            and alike(weight, bias) and alike(weight, running_mean) and alike(bias, running_mean)
            and alike(running_mean, running_var))


cdef inline int parameter_element(object weight, object bias) noexcept:
    return element_of(weight) if weight is not None else element_of(bias) if bias is not None else 0


cdef object counted_batch_norm(
    object input, object running_mean, object running_var, object weight, object bias, object training, object momentum,
    object eps, object data_format, object out, object activation, object residual, object moments, object counter,
    bint* counted
):
    cdef Norm n = unset
    cdef object x = input, dtype = None, w = weight, b = bias
    cdef object mean = running_mean, var = running_var
    cdef bint usual = True
    if not is_simple(input, out):
        x, dtype = as_input("batch_norm", input, out)
    cdef int axis = channel_axis("batch_norm", x, data_format)
    cdef Py_ssize_t channels = length_of(x, axis), size = size_of(x)
    cdef bint train = training if training is True or training is False else _scalars.boolean(
        "batch_norm: training", training)
    if not (PyFloat_CheckExact(momentum) and momentum == momentum) and (momentum is not None or counter is None):
        momentum = _scalars.real("batch_norm: momentum", momentum)
    if counter is not None and not is_counter(counter):
        _arguments.check_counter(counter)
    n.eps = eps_of("batch_norm", eps, not train)
    cdef bint returned = are_returned("batch_norm", moments)
    cdef cnp.npy_intp domains = channels
    if train and size == channels and channels:
        raise ValueError(
            f"batch_norm: expected more than 1 value per channel in training, got shape {np.shape(input)}")
    if dtype is not None or not are_channel_vectors(x, channels, train, running_mean, running_var, weight, bias):
        usual = False
        w, b, mean, var = _arguments.channel_vectors(
            "batch_norm", x, input.dtype, channels, train, running_mean, running_var, weight, bias)
    if out is not None and not (usual and is_plain_out(out, x) and separate(out, weight) and separate(out, bias)
                                and separate(out, running_mean) and separate(out, running_var)):
        _arguments.as_out("batch_norm", out, input, x.dtype if dtype is None else dtype, weight=weight, bias=bias,
                          running_mean=running_mean, running_var=running_var)
    finish_of("batch_norm", &n, input, x, out, activation, residual)
    if returned:
        moments = new_moments(x, 1, &domains)
    if size == 0:
        counted[0] = True
        update(None, None, counter, NULL, NULL, momentum, 0)
        y = _arguments.empty(input, dtype, out)
        return with_statistics(y, moments, n.eps) if returned else y

    n.statistic, n.along = CENTRED if train else GIVEN, False
    n.weight, n.bias, n.parameter_element = data(w), data(b), parameter_element(w, b)
    n.mean = <double*> malloc(2 * channels * sizeof(double))
    if n.mean == NULL:
        raise MemoryError(f"batch_norm: no memory for the moments of {channels} channels")
    n.var = n.mean + channels
    try:
        if train:
            y = run(&n, BATCH, axis, x, out, dtype, residual, None)
            counted[0] = True
            update(mean, var, counter, n.mean, n.var, momentum, size // channels)
        else:
            y = run(&n, BATCH, axis, x, out, dtype, residual, None, mean, var)
        if returned:
            copy_row(moments[0], 0, n.mean, channels)
            copy_row(moments[1], 0, n.var, channels)
            return with_statistics(y, moments, n.eps)
        return y
    finally:
        free(n.mean)


cpdef object group_norm(
    input, num_groups, weight, bias, eps, data_format, out, activation, residual, scale, shift, moments
):
    """`functional.group_norm`."""
    if (is_foreign(input) or is_foreign(weight) or is_foreign(bias) or is_foreign(out) or is_foreign(residual)
            or is_foreign(scale) or is_foreign(shift)):
        return with_ndarrays(
            group_norm, "group_norm",
            {"input": input, "weight": weight, "bias": bias, "out": out, "residual": residual,
             "scale": scale, "shift": shift},
            num_groups=num_groups, eps=eps, data_format=data_format, activation=activation, moments=moments)
    cdef Norm n = unset
    cdef Samples each = None
    cdef cnp.npy_intp domains[2]
    cdef object x = input, dtype = None, w = weight, b = bias
    cdef bint usual = True
    if not is_simple(input, out):
        x, dtype = as_input("group_norm", input, out)
    cdef int axis = channel_axis("group_norm", x, data_format)
    cdef Py_ssize_t channels = length_of(x, axis), size = size_of(x)
    if not PyLong_CheckExact(num_groups):
        num_groups = _scalars.integer("group_norm: num_groups", num_groups)
    if not 0 < num_groups <= channels or channels % <Py_ssize_t> num_groups or (
            # A sample of several may have one value per group.
            size == <Py_ssize_t> num_groups and not PyTuple_CheckExact(moments)):
        _arguments.check_groups(x, channels, num_groups)
    cdef Py_ssize_t groups = num_groups
    n.eps = eps_of("group_norm", eps, True)
    cdef bint returned = are_returned("group_norm", moments)
    if not (is_vector(weight, x, channels) and is_vector(bias, x, channels) and alike(weight, bias) and dtype is None):
        usual = False
        w, b = _arguments.as_parameters("group_norm", x, input.dtype, (channels,), weight=weight, bias=bias)
    if out is not None and not (usual and is_plain_out(out, x) and separate(out, weight) and separate(out, bias)
                                and is_apart(out, scale) and is_apart(out, shift)):
        _arguments.as_out("group_norm", out, input, x.dtype if dtype is None else dtype, weight=weight, bias=bias,
                          scale=scale, shift=shift)
    if scale is not None or shift is not None:
        each = see_samples("group_norm", input, x, dtype, axis, 0, w, b, scale, shift)
        w, b = each.weight, each.bias
    finish_of("group_norm", &n, input, x, out, activation, residual)
    if returned:
        domains[0], domains[1] = length_of(x, 0), groups
        moments = new_moments(x, 2, domains)
    if size == 0:
        y = _arguments.empty(input, dtype, out)
        return with_statistics(y, moments, n.eps) if returned else y

    n.statistic, n.along, n.groups = CENTRED, False, groups
    n.weight, n.bias, n.parameter_element = data(w), data(b), parameter_element(w, b)
    put_moments(&n, moments)
    y = run(&n, SAMPLES, axis, x, out, dtype, residual, each)
    return with_statistics(y, moments, n.eps) if returned else y


cdef inline int trailing(str function, object x, object normalized_shape) except -1:
    """How many axes `normalized_shape` names: quickly, if it is the int or tuple of ints in which that of x ends."""
    cdef int axis, ndim = ndim_of(x), leading
    if PyLong_CheckExact(normalized_shape) and ndim and normalized_shape == length_of(x, ndim - 1):
        return 1
    if PyTuple_CheckExact(normalized_shape):
        ndim = <int> PyTuple_GET_SIZE(normalized_shape)
        leading = ndim_of(x) - ndim
        for axis in range(ndim if leading >= 0 else 0):
            length = <object> PyTuple_GET_ITEM(normalized_shape, axis)
            if not PyLong_CheckExact(length) or length != length_of(x, leading + axis):
                break
        else:
            if leading >= 0 and ndim > 0:
                return ndim
    return _arguments.trailing_axes(function, x, normalized_shape)


cpdef object layer_norm(
    input, normalized_shape, weight, bias, eps, out, activation, residual, scale, shift, moments
):
    """`functional.layer_norm`."""
    if (is_foreign(input) or is_foreign(weight) or is_foreign(bias) or is_foreign(out) or is_foreign(residual)
            or is_foreign(scale) or is_foreign(shift)):
        return with_ndarrays(
            layer_norm, "layer_norm",
            {"input": input, "weight": weight, "bias": bias, "out": out, "residual": residual,
             "scale": scale, "shift": shift},
            normalized_shape=normalized_shape, eps=eps, activation=activation, moments=moments)
    cdef Norm n = unset
    n.statistic = CENTRED
    return norm_of_rows("layer_norm", &n, input, normalized_shape, weight, bias, eps, False, out, activation, residual,
                        scale, shift, moments)


cpdef object rms_norm(
    input, normalized_shape, weight, bias, eps, unit_offset, out, activation, residual, scale, shift, moments
):
    """`functional.rms_norm`."""
    if (is_foreign(input) or is_foreign(weight) or is_foreign(bias) or is_foreign(out) or is_foreign(residual)
            or is_foreign(scale) or is_foreign(shift)):
        return with_ndarrays(
            rms_norm, "rms_norm",
            {"input": input, "weight": weight, "bias": bias, "out": out, "residual": residual,
             "scale": scale, "shift": shift},
            normalized_shape=normalized_shape, eps=eps, unit_offset=unit_offset, activation=activation, moments=moments)
    cdef Norm n = unset
    n.statistic = ABOUT_ZERO
    return norm_of_rows("rms_norm", &n, input, normalized_shape, weight, bias, eps, unit_offset, out, activation,
                        residual, scale, shift, moments)


cdef inline double eps_of_rows(str function, Norm* n, object eps, object x) except? -1:
    """`eps`; where the mean is not taken, None stands for what separates 1 from the next number."""
    return machine_epsilon(x) if eps is None and n.statistic == ABOUT_ZERO else eps_of(function, eps, True)


cdef object norm_of_rows(
    str function, Norm* n, object input, object normalized_shape, object weight, object bias, object eps,
    object unit_offset, object out, object activation, object residual, object scale, object shift, object moments
):
    cdef Samples each = None
    cdef object x = input, dtype = None, w = weight, b = bias
    cdef bint usual = True
    if not is_simple(input, out):
        x, dtype = as_input(function, input, out)
    cdef int ndim = trailing(function, x, normalized_shape)
    n.eps = eps_of_rows(function, n, eps, x)
    cdef bint returned = are_returned(function, moments)
    if not (fits(weight, x, ndim) and fits(bias, x, ndim) and alike(weight, bias) and dtype is None):
        usual = False
        w, b = _arguments.as_parameters(function, x, input.dtype, x.shape[x.ndim - ndim:], weight=weight, bias=bias)
    if unit_offset is not False:
        w = _arguments.offset_weight(function, w, unit_offset)
    if out is not None and not (usual and is_plain_out(out, x) and separate(out, weight) and separate(out, bias)
                                and is_apart(out, scale) and is_apart(out, shift)):
        _arguments.as_out(function, out, input, x.dtype if dtype is None else dtype, weight=weight, bias=bias,
                          scale=scale, shift=shift)
    if scale is not None or shift is not None:
        each = see_samples(function, input, x, dtype, -1, ndim_of(x) - ndim, w, b, scale, shift)
        w, b = each.weight, each.bias
    finish_of(function, n, input, x, out, activation, residual)
    if returned:
        moments = new_moments(x, ndim_of(x) - ndim, lengths_of(x))
    if size_of(x) == 0:
        y = _arguments.empty(input, dtype, out)
        return with_statistics(y, moments, n.eps) if returned else y

    n.along = True
    n.weight, n.bias, n.parameter_element = data(w), data(b), parameter_element(w, b)
    put_moments(n, moments)
    y = run(n, ROWS, ndim_of(x) - ndim, x, out, dtype, residual, each)
    return with_statistics(y, moments, n.eps) if returned else y


cpdef object instance_norm(
    input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps, data_format, out, activation,
    residual, scale, shift, moments
):
    """`functional.instance_norm`."""
    if (is_foreign(input) or is_foreign(running_mean) or is_foreign(running_var) or is_foreign(weight)
            or is_foreign(bias) or is_foreign(out) or is_foreign(residual) or is_foreign(scale) or is_foreign(shift)):
        return with_ndarrays(
            instance_norm, "instance_norm",
            {"input": input, "running_mean": running_mean, "running_var": running_var, "weight": weight,
             "bias": bias, "out": out, "residual": residual, "scale": scale, "shift": shift},
            use_input_stats=use_input_stats, momentum=momentum, eps=eps, data_format=data_format, activation=activation,
            moments=moments)
    cdef Norm n = unset
    cdef Samples each = None
    cdef cnp.npy_intp domains[2]
    cdef object x = input, dtype = None, w = weight, b = bias, mean = running_mean, var = running_var
    cdef bint usual = True
    if not is_simple(input, out):
        x, dtype = as_input("instance_norm", input, out)
    cdef bint train = use_input_stats if use_input_stats is True or use_input_stats is False else _scalars.boolean(
        "instance_norm: use_input_stats", use_input_stats)
    cdef Py_ssize_t size = size_of(x), samples, channels, positions, sample
    if ndim_of(x) < 3:
        _arguments.check_positions(x, 1, train)
    cdef int axis = channel_axis("instance_norm", x, data_format)
    samples, channels = length_of(x, 0), length_of(x, axis)
    positions = size // (samples * channels) if size else 0
    if positions == 1:
        _arguments.check_positions(x, positions, train)
    if not (PyFloat_CheckExact(momentum) and momentum == momentum):
        momentum = _scalars.real("instance_norm: momentum", momentum)
    n.eps = eps_of("instance_norm", eps, True)
    cdef bint returned = are_returned("instance_norm", moments)
    if dtype is not None or not are_channel_vectors(x, channels, train, running_mean, running_var, weight, bias):
        usual = False
        w, b, mean, var = _arguments.channel_vectors(
            "instance_norm", x, input.dtype, channels, train, running_mean, running_var, weight, bias)
    if out is not None and not (usual and is_plain_out(out, x) and separate(out, weight) and separate(out, bias)
                                and separate(out, running_mean) and separate(out, running_var)
                                and is_apart(out, scale) and is_apart(out, shift)):
        _arguments.as_out("instance_norm", out, input, x.dtype if dtype is None else dtype, weight=weight, bias=bias,
                          running_mean=running_mean, running_var=running_var, scale=scale, shift=shift)
    if scale is not None or shift is not None:
        each = see_samples("instance_norm", input, x, dtype, axis, 0, w, b, scale, shift)
        w, b = each.weight, each.bias
    finish_of("instance_norm", &n, input, x, out, activation, residual)
    if returned:
        domains[0], domains[1] = length_of(x, 0), channels
        moments = new_moments(x, 2, domains)
    if size == 0:
        y = _arguments.empty(input, dtype, out)
        return with_statistics(y, moments, n.eps) if returned else y

    n.statistic, n.along, n.groups = CENTRED if train else GIVEN, False, channels
    n.weight, n.bias, n.parameter_element = data(w), data(b), parameter_element(w, b)
    if train and running_mean is None:
        put_moments(&n, moments)
        y = run(&n, SAMPLES, axis, x, out, dtype, residual, each)
        return with_statistics(y, moments, n.eps) if returned else y
    n.mean = <double*> malloc(2 * samples * channels * sizeof(double))
    if n.mean == NULL:
        raise MemoryError(f"instance_norm: no memory for the moments of {samples} samples of {channels} channels")
    n.var = n.mean + samples * channels
    try:
        if not train:
            y = run(&n, BATCH, axis, x, out, dtype, residual, each, mean, var)
        else:
            y = run(&n, SAMPLES, axis, x, out, dtype, residual, each)
        if PyTuple_CheckExact(moments):
            for sample in range(samples):  # given ones are those of every sample
                copy_row(moments[0], sample, n.mean + (sample * channels if train else 0), channels)
                copy_row(moments[1], sample, n.var + (sample * channels if train else 0), channels)
        if train:
            average(n.mean, samples, channels)
            average(n.var, samples, channels)
            update(mean, var, None, n.mean, n.var, momentum, positions)
        return with_statistics(y, moments, n.eps) if returned else y
    finally:
        free(n.mean)


cdef inline void copy_row(object target, Py_ssize_t row, const double* source, Py_ssize_t length) noexcept:
    memcpy(<double*> data_of(target) + row * length, source, length * sizeof(double))


cdef void average(double* moments, Py_ssize_t samples, Py_ssize_t channels) noexcept:
    """The first row of moments (samples, channels) = the mean of all rows."""
    cdef Py_ssize_t sample, c
    for c in range(channels):
        for sample in range(1, samples):
            moments[c] += moments[sample * channels + c]
        moments[c] /= samples


def batch_moments(input, data_format):
    """Mean and biased variance of each channel of an input: what batch_norm takes in training."""
    cdef Norm n = unset
    x = as_input("batch_norm", input, None)[0]
    cdef int axis = channel_axis("batch_norm", x, data_format)
    mean, var = np.empty(length_of(x, axis)), np.empty(length_of(x, axis))
    put_moments(&n, (mean, var))
    run_moments(&n, axis, x)
    return mean, var


def apply_moments(input, moments, weight, bias, eps, data_format, out, activation, residual):
    """The norm of a batch with these mean and variance, float64, of each channel; arguments are known to be right."""
    cdef Norm n = unset
    x, dtype = as_input("batch_norm", input, out)
    cdef int axis = channel_axis("batch_norm", x, data_format)
    w, b = _arguments.as_parameters("batch_norm", x, input.dtype, (x.shape[axis],), weight=weight, bias=bias)
    finish_of("batch_norm", &n, input, x, out, activation, residual)
    n.statistic, n.eps = GIVEN, eps
    n.weight, n.bias, n.parameter_element = data(w), data(b), parameter_element(w, b)
    put_moments(&n, moments)
    return run(&n, BATCH, axis, x, out, dtype, residual, None)


def move_statistics(running_mean, running_var, counter, mean, var, momentum, count):
    """Running statistics and counter, any of them None, move towards mean and biased variance of `count` values."""
    update(running_mean, running_var, counter, <double*> data_of(mean), <double*> data_of(var), momentum, count)


cdef int run_moments(Norm* n, int axis, object x) except -1:
    """The moments of BATCH's view alone."""
    cdef int threads
    cdef KernelSet* chosen = kernels
    forward = python_forward
    if not place(n, BATCH, x, x, axis, 0, False):
        x = dense(x, "C")
        place(n, BATCH, x, x, axis, 0, True)
    n.x.data = data_of(x)
    set_element(n, x, chosen, forward)
    threads = team_for(chosen, n, size_of(x), 1)
    if forward is not None:
        forward_in_python(forward, n, x, None, None, None, None)
    elif kernel(chosen, n, None, None, None, threads):
        raise MemoryError("cpunorm: no memory for the scratch of a kernel")
    call_ends(size_of(x), 1)
    return 0


include "call/sums.pxi"
