# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The state of modules: several arrays that are read together, moved together and written together.

There is no lock that a fork, a signal handler or a finalizer could find locked. Each function here holds the GIL from
the first element of its first array to the last of its last one and runs no Python code in between, so what others
see is before it or after it. On a Python without the GIL it holds `whole` instead, for as long.

Kernels read weight and bias without the GIL. So calls pass a gate (`enter` and `leave`, two additions), and `write`
waits there for the calls in progress; calls that come meanwhile wait for it. Nobody runs Python code while waiting,
or in a call, so no thread ever waits for itself.
"""

import numpy as np

cimport numpy as cnp
from libc.stdint cimport int64_t, uint16_t, uint64_t
from libc.string cimport memcpy

from cpunorm._gil cimport Lock, add, at_fork_in_child, forget, lock, unlock, value_of

cnp.import_array()

cdef extern from *:
    """
    #if PY_VERSION_HEX < 0x030D0000
    #define Py_IsFinalizing _Py_IsFinalizing
    #endif
    #include <time.h>
    static void pause_briefly(void) {
        struct timespec time = {0, 50000};
        nanosleep(&time, NULL);
    }
    #include <stdint.h>
    #include <string.h>
    static float value_of_bits(uint32_t bits) {
        float value;
        memcpy(&value, &bits, sizeof value);
        return value;
    }
    static double value_of_float16(uint16_t h) {  /* the exponent is moved by a product, exactly */
        const uint32_t magnitude = (uint32_t) (h & 0x7fff) << 13;
        const float v = magnitude < 0x7c00u << 13 ? value_of_bits(magnitude) * 0x1p112f
                                                  : value_of_bits(magnitude | 0x7f800000);
        return h & 0x8000 ? -v : v;
    }
    static double value_of_bfloat16(uint16_t h) { return value_of_bits((uint32_t) h << 16); }
    /* v as a sign, an exponent of that bias and `digits` bits, 16 in all: rounded once, to nearest even. */
    static uint16_t rounded(double v, int digits, int bias) {
        const uint64_t one = (uint64_t) 1 << 52, infinite = ((uint64_t) 2 * bias + 1) << digits;
        uint64_t bits, magnitude;
        memcpy(&bits, &v, sizeof v);
        const uint64_t sign = bits >> 63 << 15;
        magnitude = bits & (((uint64_t) 1 << 63) - 1);
        if (magnitude > (uint64_t) 0x7ff << 52)
            return (uint16_t) (sign | infinite | (uint64_t) 1 << (digits - 1));
        const int exponent = (int) (magnitude >> 52) - 1023 + bias;
        int shift = 52 - digits;
        if (exponent > 2 * bias)
            return (uint16_t) (sign | infinite);
        if (exponent > 0)
            magnitude = ((uint64_t) exponent << 52) | (magnitude & (one - 1));
        else {
            magnitude = (magnitude & (one - 1)) | one;
            shift += 1 - exponent;
            if (shift > 54)
                return (uint16_t) sign;
        }
        magnitude += ((uint64_t) 1 << (shift - 1)) - 1 + (magnitude >> shift & 1);
        return (uint16_t) (sign | magnitude >> shift);
    }
    static uint16_t rounded_to_float16(double v) { return rounded(v, 10, 15); }
    static uint16_t rounded_to_bfloat16(double v) { return rounded(v, 7, 127); }
    """
    double value_of_float16(uint16_t h) noexcept
    double value_of_bfloat16(uint16_t h) noexcept
    uint16_t rounded_to_float16(double v) noexcept
    uint16_t rounded_to_bfloat16(double v) noexcept
    bint Py_IsFinalizing()
    void pause_briefly() nogil

cdef extern from "numpy/arrayobject.h":
    object PyArray_NewLikeArray(cnp.ndarray prototype, int order, cnp.PyArray_Descr* descr, int subok)
    bint PyDataType_REFCHK(cnp.PyArray_Descr* descr)
    int NPY_KEEPORDER


cdef Lock whole
bfloat16 = -1

# The gate. At the end of Python, threads vanish where they are, without leaving it: then nobody waits.

cdef void wait_for_writers() noexcept:
    """For a call that has been counted: it steps back while there are any."""
    while value_of(&gate.writers) and not Py_IsFinalizing():
        add(&gate.calls, -1)
        with nogil:
            pause_briefly()
        add(&gate.calls, 1)


cdef void wait_for_calls() noexcept:
    while value_of(&gate.calls) and not Py_IsFinalizing():
        with nogil:
            pause_briefly()


cdef void open_gate() noexcept:
    gate.calls = gate.writers = 0
    forget(&whole)


if at_fork_in_child(open_gate):
    raise MemoryError("cpunorm: no memory to register what a forked child does")


# Running statistics

cdef struct Elements:
    # The elements of a vector in memory, and NumPy's number of their type.
    char* first
    Py_ssize_t stride, count
    int type


cdef bint find_elements(object running, Elements* e) noexcept:
    """Whether `running` is native and aligned, of a type that is read and written in place: others are objects to that,
    which takes a hundred times as long."""
    e.first, e.stride = <char*> cnp.PyArray_DATA(running), cnp.PyArray_STRIDE(running, 0)
    e.count, e.type = cnp.PyArray_DIM(running, 0), cnp.PyArray_TYPE(running)
    return cnp.PyArray_ISBEHAVED_RO(running) and (
        e.type == cnp.NPY_FLOAT32 or e.type == cnp.NPY_FLOAT64 or e.type == cnp.NPY_FLOAT16 or e.type == bfloat16)


cdef int read_one(object running, double* values) except -1:
    """values = running, a vector of any real dtype and byte order."""
    cdef Elements e
    cdef Py_ssize_t c
    cdef bint found = find_elements(running, &e)
    if not found:
        for c in range(e.count):
            values[c] = cnp.PyArray_GETITEM(running, e.first + c * e.stride)
    elif e.type == cnp.NPY_FLOAT32:
        for c in range(e.count):
            values[c] = (<const float*> (e.first + c * e.stride))[0]
    elif e.type == cnp.NPY_FLOAT64:
        for c in range(e.count):
            values[c] = (<const double*> (e.first + c * e.stride))[0]
    elif e.type == cnp.NPY_FLOAT16:
        for c in range(e.count):
            values[c] = value_of_float16((<const uint16_t*> (e.first + c * e.stride))[0])
    else:
        for c in range(e.count):
            values[c] = value_of_bfloat16((<const uint16_t*> (e.first + c * e.stride))[0])
    return 0


cdef int read(object running_mean, object running_var, double* mean, double* var) except -1:
    """mean, var = both running statistics, of one moment."""
    lock(&whole)
    try:
        read_one(running_mean, mean)
        return read_one(running_var, var)
    finally:
        unlock(&whole)


cdef inline double blended(double running, double batch, double momentum, double scale) noexcept:
    return (1 - momentum) * running + momentum * (batch * scale)


cdef int blend(object running, const double* batch, double momentum, double scale) except -1:
    """running = (1 - momentum) * running + momentum * (batch * scale), in double, whatever the dtype of `running`."""
    cdef Elements e
    cdef Py_ssize_t c
    cdef double value
    cdef float* single
    cdef double* full
    cdef uint16_t* half
    cdef bint found = find_elements(running, &e)
    if not found:
        for c in range(e.count):
            value = cnp.PyArray_GETITEM(running, e.first + c * e.stride)
            value = blended(value, batch[c], momentum, scale)
            cnp.PyArray_SETITEM(running, e.first + c * e.stride, value)
    elif e.type == cnp.NPY_FLOAT32:
        for c in range(e.count):
            single = <float*> (e.first + c * e.stride)
            single[0] = <float> blended(single[0], batch[c], momentum, scale)
    elif e.type == cnp.NPY_FLOAT64:
        for c in range(e.count):
            full = <double*> (e.first + c * e.stride)
            full[0] = blended(full[0], batch[c], momentum, scale)
    elif e.type == cnp.NPY_FLOAT16:
        for c in range(e.count):
            half = <uint16_t*> (e.first + c * e.stride)
            half[0] = rounded_to_float16(blended(value_of_float16(half[0]), batch[c], momentum, scale))
    else:
        for c in range(e.count):
            half = <uint16_t*> (e.first + c * e.stride)
            half[0] = rounded_to_bfloat16(blended(value_of_bfloat16(half[0]), batch[c], momentum, scale))
    return 0


cdef bint is_counter(object counter) noexcept:
    """Whether it is a single int64 that can be counted up in place."""
    return (
        cnp.PyArray_Check(counter) and cnp.PyArray_TYPE(counter) == cnp.NPY_INT64
        and cnp.PyArray_ISBEHAVED(counter) and cnp.PyArray_SIZE(counter) == 1)


cdef int64_t next_number(object counter) noexcept:
    cdef int64_t* number = <int64_t*> cnp.PyArray_DATA(counter)
    number[0] = <int64_t> (<uint64_t> number[0] + 1)
    return number[0]


cdef void count_up(object counter) noexcept:
    """One more; `is_counter` must hold."""
    lock(&whole)
    next_number(counter)
    unlock(&whole)


cdef int move(
    object running_mean, object running_var, object counter, const double* mean, const double* var, object momentum,
    Py_ssize_t count,
) except -1:
    """`update` of statistics that are there, in one hold of the GIL."""
    cdef int64_t number
    cdef double factor
    lock(&whole)
    try:
        number = 0 if counter is None else next_number(counter)
        factor = 1 / <object> number if momentum is None else momentum
        blend(running_mean, mean, factor, 1)
        return blend(running_var, var, factor, <double> count / (count - 1))
    finally:
        unlock(&whole)


cdef int update(
    object running_mean, object running_var, object counter, const double* mean, const double* var, object momentum,
    Py_ssize_t count,
) except -1:
    """Count a batch of `count` values per channel and move both running statistics towards it, in place.

    ``running = (1 - momentum) * running + momentum * batch``, the biased `var` made unbiased first. A `momentum` of
    None is 1 / counter: the average of all batches. Without statistics, or with an empty batch, it is only counted.
    """
    cdef Elements e
    if running_mean is None or count == 0:
        if counter is not None:
            count_up(counter)
        return 0
    if find_elements(running_mean, &e) and find_elements(running_var, &e):
        return move(running_mean, running_var, counter, mean, var, momentum, count)
    with np.errstate(all="ignore"):  # beyond the range of a type is infinite, as in torch
        return move(running_mean, running_var, counter, mean, var, momentum, count)


def is_counter_array(counter):
    """`is_counter` from Python."""
    return is_counter(counter)


# All arrays of a module

cdef void copy_elements(
    char* to, const cnp.npy_intp* to_strides, const char* source, const cnp.npy_intp* strides,
    const cnp.npy_intp* lengths, int ndim, size_t itemsize,
) noexcept:
    cdef Py_ssize_t i
    if ndim == 0:
        memcpy(to, source, itemsize)
        return
    if ndim == 1 and to_strides[0] == strides[0] == <Py_ssize_t> itemsize:
        memcpy(to, source, lengths[0] * itemsize)
        return
    for i in range(lengths[0]):
        copy_elements(
            to + i * to_strides[0], to_strides + 1, source + i * strides[0], strides + 1, lengths + 1, ndim - 1,
            itemsize)


cdef void copy(object target, object source) noexcept:
    """target = source, of the same shape and dtype. (NumPy's own copies let go of the GIL.)"""
    copy_elements(
        <char*> cnp.PyArray_DATA(target), cnp.PyArray_STRIDES(target), <const char*> cnp.PyArray_DATA(source),
        cnp.PyArray_STRIDES(source), cnp.PyArray_DIMS(source), cnp.PyArray_NDIM(source), cnp.PyArray_ITEMSIZE(source))


cdef int check_numbers(object array) except -1:
    if not cnp.PyArray_Check(array):
        raise TypeError(f"must be a numpy.ndarray, got {type(array).__name__}")
    if PyDataType_REFCHK(cnp.PyArray_DESCR(array)):
        raise TypeError(f"must be an array of numbers, got {array.dtype}")
    return 0


def snapshot(list arrays not None):
    """Copies of `arrays` as plain ndarrays, all of one moment; None stays None."""
    cdef list copies = []
    cdef Py_ssize_t i
    for array in arrays:
        if array is not None:
            check_numbers(array)
        copies.append(None if array is None else PyArray_NewLikeArray(array, NPY_KEEPORDER, NULL, 0))
    lock(&whole)
    for i in range(len(arrays)):
        if arrays[i] is not None:
            copy(copies[i], arrays[i])
    unlock(&whole)
    return copies


def write(list targets not None, list values not None):
    """targets[i][...] = values[i], of the same dtype and shape, at one moment between calls of kernels.

    Raises
    ------
    ValueError
        Nothing is written: they are not of the same dtype and shape, or a target is read-only.
    """
    cdef Py_ssize_t i
    if len(targets) != len(values):
        raise ValueError(f"{len(values)} values for {len(targets)} targets")
    for target, value in zip(targets, values):
        check_numbers(target)
        check_numbers(value)
        if target.dtype != value.dtype or target.shape != value.shape:
            raise ValueError(f"{value.dtype} of shape {value.shape} for {target.dtype} of shape {target.shape}")
        if not cnp.PyArray_ISWRITEABLE(target):
            raise ValueError("the target is read-only")
    add(&gate.writers, 1)
    wait_for_calls()
    lock(&whole)
    for i in range(len(targets)):
        copy(targets[i], values[i])
    unlock(&whole)
    add(&gate.writers, -1)
