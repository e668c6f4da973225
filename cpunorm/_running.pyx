# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Running statistics: read together and written together.

Both hold the GIL from the first element of the mean to the last of the variance, so no Python thread ever sees the
mean of one batch beside the variance of another.
"""

import numpy as np

cimport numpy as cnp

cnp.import_array()


cdef struct Elements:
    # The elements of a vector in memory: float32 if `single`, else float64.
    char* first
    Py_ssize_t stride, count
    bint single


cdef bint find_elements(object running, Elements* e) noexcept:
    """Whether `running` is native, aligned float32 or float64, which can be read and written in place."""
    cdef int kind = cnp.PyArray_TYPE(running)
    e.first, e.stride = <char*> cnp.PyArray_DATA(running), cnp.PyArray_STRIDE(running, 0)
    e.count, e.single = cnp.PyArray_DIM(running, 0), kind == cnp.NPY_FLOAT32
    return (kind == cnp.NPY_FLOAT32 or kind == cnp.NPY_FLOAT64) and cnp.PyArray_ISBEHAVED_RO(running)


cdef inline double element(const Elements* e, Py_ssize_t c) noexcept:
    return (<float*> (e.first + c * e.stride))[0] if e.single else (<double*> (e.first + c * e.stride))[0]


cdef void read(object running, double* values):
    """values = running, a vector of any real dtype and byte order."""
    cdef Elements e
    cdef Py_ssize_t c
    if find_elements(running, &e):
        for c in range(e.count):
            values[c] = element(&e, c)
    else:
        for c in range(e.count):
            values[c] = running[c]


cdef void blend(object running, const double* batch, double momentum, double scale):
    """running = (1 - momentum) * running + momentum * (batch * scale), in double, whatever the dtype of `running`."""
    cdef Elements e
    cdef Py_ssize_t c
    cdef double value
    if find_elements(running, &e):
        for c in range(e.count):
            value = (1 - momentum) * element(&e, c) + momentum * (batch[c] * scale)
            if e.single:
                (<float*> (e.first + c * e.stride))[0] = <float> value
            else:
                (<double*> (e.first + c * e.stride))[0] = value
    else:
        for c in range(e.count):
            running[c] = (1 - momentum) * float(running[c]) + momentum * (batch[c] * scale)


def update(running_mean, running_var, cnp.ndarray mean, cnp.ndarray var, double momentum, Py_ssize_t count):
    """Move both running statistics towards a batch of `count` > 1 values per channel, in place.

    ``running = (1 - momentum) * running + momentum * batch``, the biased `var` made unbiased first. `mean` and `var`
    are contiguous float64.
    """
    with np.errstate(over="ignore"):  # a variance beyond the range of its dtype is infinite, as in torch
        blend(running_mean, <double*> cnp.PyArray_DATA(mean), momentum, 1.0)
        blend(running_var, <double*> cnp.PyArray_DATA(var), momentum, <double> count / (count - 1))


def snapshot(running_mean, running_var):
    """Both running statistics as new float64 arrays, of the same batch."""
    mean, var = np.empty(len(running_mean)), np.empty(len(running_var))
    read(running_mean, <double*> cnp.PyArray_DATA(mean))
    read(running_var, <double*> cnp.PyArray_DATA(var))
    return mean, var
