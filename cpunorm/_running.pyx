# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Running statistics: read together and written together.

Both functions hold the GIL from the first element to the last, so no Python thread ever sees the mean of one
batch beside the variance of another.
"""

import numpy as np

cimport numpy as cnp

cnp.import_array()


cdef bint is_blendable(object running) noexcept:
    """Whether `running` is native, aligned float32 or float64, which can be read and written in place."""
    cdef int kind = cnp.PyArray_TYPE(running)
    return (kind == cnp.NPY_FLOAT32 or kind == cnp.NPY_FLOAT64) and cnp.PyArray_ISBEHAVED_RO(running)


cdef void blend(object running, const double* batch, double momentum, double scale):
    """running = (1 - momentum) * running + momentum * (batch * scale), in double; `running` is_blendable."""
    cdef char* element = <char*> cnp.PyArray_DATA(running)
    cdef Py_ssize_t stride = cnp.PyArray_STRIDE(running, 0)
    cdef bint single = cnp.PyArray_TYPE(running) == cnp.NPY_FLOAT32
    cdef double value
    cdef Py_ssize_t c
    for c in range(cnp.PyArray_DIM(running, 0)):
        value = (<float*> element)[0] if single else (<double*> element)[0]
        value = (1 - momentum) * value + momentum * (batch[c] * scale)
        if single:
            (<float*> element)[0] = <float> value
        else:
            (<double*> element)[0] = value
        element += stride


cdef void _blend_any(object running, double[::1] batch, double momentum, double scale):
    """`blend` for any dtype and byte order, through item access (which keeps the GIL too)."""
    cdef Py_ssize_t c
    if is_blendable(running):
        blend(running, &batch[0], momentum, scale)
        return
    for c in range(batch.shape[0]):
        running[c] = (1 - momentum) * float(running[c]) + momentum * (batch[c] * scale)


def update(running_mean, running_var, double[::1] mean, double[::1] var, double momentum, Py_ssize_t count):
    """Move both running statistics towards a batch of `count` > 1 values per channel, in place.

    ``running = (1 - momentum) * running + momentum * batch``, the biased `var` made unbiased first.
    """
    if mean.shape[0] == 0:
        return
    _blend_any(running_mean, mean, momentum, 1.0)
    _blend_any(running_var, var, momentum, <double> count / (count - 1))


def snapshot(running_mean, running_var):
    """Both running statistics as new float64 arrays, of the same batch."""
    cdef Py_ssize_t c, channels = len(running_mean)
    mean, var = np.empty(channels), np.empty(channels)
    cdef double[::1] mean_view = mean
    cdef double[::1] var_view = var
    for c in range(channels):
        mean_view[c] = running_mean[c]
        var_view[c] = running_var[c]
    return mean, var
