# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The express lane: plain calls go from `functional` to their kernel with no Python in between.

Plain is: ndarrays (no subclass) of one dtype, float32 or float64, native, aligned and contiguous; or, in
channels_first, an input whose memory is channels_last. Shapes, eps and the rest are right. Each function returns the
result, or None for whatever it does not recognise, wrong or merely unusual: `functional` then takes the general way,
which gives the same bits or the error. So nothing here raises, and no rule is written here that is not written there.
"""

from cpython.float cimport PyFloat_CheckExact
from cpython.long cimport PyLong_AsSsize_t, PyLong_CheckExact
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_CheckExact
from libc.stdlib cimport free, malloc

cimport numpy as cnp

from cpunorm._kernel_set cimport KernelSet, Walk
from cpunorm._memory cimport new_like
from cpunorm._running cimport enter, is_counter, leave, read, update

cnp.import_array()

cdef extern from *:
    """
    #include <time.h>
    static long long nanoseconds(void) {
        struct timespec now;
    #ifdef CLOCK_MONOTONIC
        clock_gettime(CLOCK_MONOTONIC, &now);
    #else
        timespec_get(&now, TIME_UTC);
    #endif
        return now.tv_sec * 1000000000LL + now.tv_nsec;
    }
    """
    long long nanoseconds()

cdef enum:
    FIRST = 1  # channels_first, contiguous
    LAST = 2  # channels_last, contiguous
    FIRST_AS_LAST = 3  # channels_first, the memory of channels_last

# Values read, from which on several threads are faster than one: measured on two cores, where a second thread costs
# 1 us if it is awake, and some 200 us if it sleeps.
cdef Py_ssize_t parallel_from = 1 << 15
cdef Py_ssize_t parallel_asleep_from = 1 << 22
cdef long long AWAKE = 2_000_000  # nanoseconds after a call in which the team is surely awake
cdef long long last_worthy = 0  # when a call last was large enough for a team
cdef KernelSet* kernels = NULL
cdef int num_threads = 1


def use_kernels(module):
    """Send plain calls to the kernels of this compiled module; with None, decline every call."""
    global kernels
    kernels = NULL if module is None else <KernelSet*> PyCapsule_GetPointer(module.KERNEL_SET, "cpunorm.KernelSet")


def use_threads(int threads):
    """Let a call use up to `threads` threads."""
    global num_threads
    num_threads = threads


cpdef int threads_for(Py_ssize_t size, int reads) noexcept:
    """How many threads a kernel gets that reads `size` values `reads` times: a team must save more than it costs.

    That depends on whether the team is awake: its threads wait busily for some milliseconds after a call, then sleep.
    """
    global last_worthy
    cdef long long now, before = last_worthy
    if reads * size < parallel_from or num_threads == 1:
        return 1
    now = last_worthy = nanoseconds()
    return num_threads if now - before < AWAKE or reads * size >= parallel_asleep_from else 1


cdef inline bint is_plain(object array) noexcept:
    """Whether it is exactly an ndarray of native float32 or float64 whose memory can be walked."""
    if not cnp.PyArray_CheckExact(array):
        return False
    cdef int dtype = cnp.PyArray_TYPE(array)
    return (dtype == cnp.NPY_FLOAT32 or dtype == cnp.NPY_FLOAT64) and cnp.PyArray_ISBEHAVED_RO(array)


cdef inline bint is_plain_vector(object vector, object x, Py_ssize_t size) noexcept:
    """Whether it is None, or a contiguous vector of `size` values in the dtype of x."""
    return vector is None or (
        cnp.PyArray_CheckExact(vector) and cnp.PyArray_TYPE(vector) == cnp.PyArray_TYPE(x)
        and cnp.PyArray_ISCARRAY_RO(vector) and cnp.PyArray_NDIM(vector) == 1 and cnp.PyArray_DIM(vector, 0) == size)


cdef inline bint is_positive(object eps, bint zero_allowed) noexcept:
    return PyFloat_CheckExact(eps) and (<double> eps > 0 or (zero_allowed and <double> eps == 0))


cdef inline bint separate(object a, object b) noexcept:
    """Whether the memory of two contiguous arrays has no byte in common; None has no memory."""
    if b is None:
        return True
    cdef char* start_a = <char*> cnp.PyArray_DATA(a)
    cdef char* start_b = <char*> cnp.PyArray_DATA(b)
    return start_a + cnp.PyArray_NBYTES(a) <= start_b or start_b + cnp.PyArray_NBYTES(b) <= start_a


cdef inline bint same_strides(object x, object out) noexcept:
    cdef int axis
    for axis in range(cnp.PyArray_NDIM(x)):
        if (cnp.PyArray_DIM(x, axis) != cnp.PyArray_DIM(out, axis)
                or cnp.PyArray_STRIDE(x, axis) != cnp.PyArray_STRIDE(out, axis)):
            return False
    return True


cdef inline bint is_plain_out(object out, object x, object weight, object bias) noexcept:
    """Whether `out` is laid out as the dense x, and is x itself or apart from all other arguments."""
    return (
        is_plain(out) and cnp.PyArray_ISWRITEABLE(out) and cnp.PyArray_TYPE(out) == cnp.PyArray_TYPE(x)
        and cnp.PyArray_NDIM(out) == cnp.PyArray_NDIM(x) and same_strides(x, out)
        and (cnp.PyArray_DATA(out) == cnp.PyArray_DATA(x) or separate(out, x))
        and separate(out, weight) and separate(out, bias))


cdef inline void* data(object array) noexcept:
    return NULL if array is None else cnp.PyArray_DATA(array)


cdef inline int kind(object x) noexcept:
    return 0 if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32 else 1


cdef int layout_of(object x, object data_format) noexcept:
    """FIRST, LAST or FIRST_AS_LAST of a plain x with at least two axes and one element; 0 for any other."""
    cdef int axis, ndim = cnp.PyArray_NDIM(x)
    cdef Py_ssize_t stride
    if ndim < 2 or cnp.PyArray_SIZE(x) == 0 or not PyUnicode_CheckExact(data_format):
        return 0
    if cnp.PyArray_ISCONTIGUOUS(x):
        return FIRST if data_format == "channels_first" else LAST if data_format == "channels_last" else 0
    if data_format != "channels_first" or cnp.PyArray_STRIDE(x, 1) != cnp.PyArray_ITEMSIZE(x):
        return 0
    stride = cnp.PyArray_ITEMSIZE(x) * cnp.PyArray_DIM(x, 1)
    for axis in range(ndim - 1, 1, -1):
        if cnp.PyArray_STRIDE(x, axis) != stride:
            return 0
        stride *= cnp.PyArray_DIM(x, axis)
    return FIRST_AS_LAST if cnp.PyArray_STRIDE(x, 0) == stride else 0


cdef Walk walk_of(object x, int layout, bint samples) noexcept:
    """The Walk of a dense x and a y of the same strides, merged as `_layout` merges."""
    cdef Walk w = Walk(1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    cdef Py_ssize_t batch = cnp.PyArray_DIM(x, 0)
    w.channels = cnp.PyArray_DIM(x, cnp.PyArray_NDIM(x) - 1 if layout == LAST else 1)
    w.inner = cnp.PyArray_SIZE(x) // (batch * w.channels)
    w.x_channel = w.inner if layout == FIRST else 1
    w.x_inner = 1 if layout == FIRST else w.channels
    if samples:
        w.samples, w.x_sample = batch, w.channels * w.inner
    elif layout == FIRST and w.channels > 1:
        w.outer, w.x_outer = batch, w.channels * w.inner
    else:
        w.inner *= batch
    w.y_sample, w.y_outer, w.y_channel, w.y_inner = w.x_sample, w.x_outer, w.x_channel, w.x_inner
    return w


def batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps, data_format, out, counter):
    """`functional.batch_norm`, or None."""
    cdef KernelSet* chosen = kernels  # which another thread may change meanwhile
    if chosen == NULL or not is_plain(input) or (training is not True and training is not False):
        return None
    cdef bint train = training is True
    cdef int layout = layout_of(input, data_format), failed
    if layout == 0 or not is_positive(eps, not train) or momentum != momentum:
        return None
    if not (PyFloat_CheckExact(momentum) or momentum is None) or not (counter is None or is_counter(counter)):
        return None
    cdef Walk w = walk_of(input, layout, False)
    if not (is_plain_vector(weight, input, w.channels) and is_plain_vector(bias, input, w.channels)
            and is_plain_vector(running_mean, input, w.channels) and is_plain_vector(running_var, input, w.channels)):
        return None
    if (running_mean is None) != (running_var is None):
        return None
    if train:
        if cnp.PyArray_SIZE(input) == w.channels:
            return None
        if running_mean is not None and not (
            cnp.PyArray_ISWRITEABLE(running_mean) and cnp.PyArray_ISWRITEABLE(running_var)
        ):
            return None
    elif running_mean is None:
        return None
    if out is not None and not (
        is_plain_out(out, input, weight, bias) and separate(out, running_mean) and separate(out, running_var)
    ):
        return None

    y = new_like(input) if out is None else out
    cdef Py_ssize_t size = cnp.PyArray_SIZE(input)
    cdef int threads = threads_for(size, 2 if train else 1)
    cdef const void* source = data(input)
    cdef void* target = data(y)
    cdef const void* weights = data(weight)
    cdef const void* biases = data(bias)
    cdef double epsilon = eps
    cdef int dtype = kind(input)
    cdef double* mean = <double*> malloc(2 * w.channels * sizeof(double))
    cdef double* var = mean + w.channels
    if mean == NULL:
        return None
    enter()
    if train:
        with nogil:
            failed = chosen.grouped[dtype](
                source, target, &w, w.channels, mean, var, weights, biases, epsilon, threads)
        leave()
        if not failed:
            update(running_mean, running_var, counter, mean, var, momentum, size // w.channels)
    else:
        read(running_mean, mean)
        read(running_var, var)
        with nogil:
            failed = chosen.batch_norm_inference[dtype](
                source, target, &w, mean, var, weights, biases, epsilon, threads)
        leave()
    free(mean)
    return None if failed else y


def group_norm(input, num_groups, weight, bias, eps, data_format, out):
    """`functional.group_norm`, or None."""
    cdef KernelSet* chosen = kernels  # which another thread may change meanwhile
    if chosen == NULL or not is_plain(input) or not PyLong_CheckExact(num_groups) or not is_positive(eps, True):
        return None
    cdef int layout = layout_of(input, data_format), failed
    cdef Py_ssize_t groups = PyLong_AsSsize_t(num_groups) if -1 < num_groups < 1 << 31 else 0
    if layout == 0 or groups < 1:
        return None
    cdef Walk w = walk_of(input, layout, True)
    if w.channels % groups or cnp.PyArray_SIZE(input) == groups or not (
        is_plain_vector(weight, input, w.channels) and is_plain_vector(bias, input, w.channels)
    ):
        return None
    if out is not None and not is_plain_out(out, input, weight, bias):
        return None

    y = new_like(input) if out is None else out
    cdef int threads = threads_for(cnp.PyArray_SIZE(input), 2), dtype = kind(input)
    cdef const void* source = data(input)
    cdef void* target = data(y)
    cdef const void* weights = data(weight)
    cdef const void* biases = data(bias)
    cdef double epsilon = eps
    enter()
    with nogil:
        failed = chosen.grouped[dtype](source, target, &w, groups, NULL, NULL, weights, biases, epsilon, threads)
    leave()
    return None if failed else y


cdef inline bint has_shape(object array, object x, int ndim) noexcept:
    """Whether `array` is None, or contiguous with the dtype of x and the lengths of its last `ndim` axes."""
    cdef int axis
    if array is None:
        return True
    if not (cnp.PyArray_CheckExact(array) and cnp.PyArray_TYPE(array) == cnp.PyArray_TYPE(x)
            and cnp.PyArray_ISCARRAY_RO(array) and cnp.PyArray_NDIM(array) == ndim):
        return False
    for axis in range(ndim):
        if cnp.PyArray_DIM(array, axis) != cnp.PyArray_DIM(x, cnp.PyArray_NDIM(x) - ndim + axis):
            return False
    return True


def layer_norm(input, normalized_shape, weight, bias, eps, out):
    """`functional.layer_norm`, or None."""
    cdef KernelSet* chosen = kernels  # which another thread may change meanwhile
    if chosen == NULL or not is_plain(input) or not cnp.PyArray_ISCONTIGUOUS(input) or not is_positive(eps, True):
        return None
    if not PyTuple_CheckExact(normalized_shape) or cnp.PyArray_SIZE(input) == 0:
        return None
    cdef int axis, failed, ndim = <int> PyTuple_GET_SIZE(normalized_shape), leading = cnp.PyArray_NDIM(input) - ndim
    cdef Walk w = Walk(1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1)
    if leading < 0 or ndim == 0:
        return None
    for axis in range(ndim):
        length = <object> PyTuple_GET_ITEM(normalized_shape, axis)
        if not PyLong_CheckExact(length) or length != cnp.PyArray_DIM(input, leading + axis):
            return None
        w.inner *= cnp.PyArray_DIM(input, leading + axis)
    if not (has_shape(weight, input, ndim) and has_shape(bias, input, ndim)):
        return None
    if out is not None and not is_plain_out(out, input, weight, bias):
        return None

    y = new_like(input) if out is None else out
    w.samples = cnp.PyArray_SIZE(input) // w.inner
    w.x_sample = w.y_sample = w.inner
    cdef int threads = threads_for(cnp.PyArray_SIZE(input), 2), dtype = kind(input)
    cdef const void* source = data(input)
    cdef void* target = data(y)
    cdef const void* weights = data(weight)
    cdef const void* biases = data(bias)
    cdef double epsilon = eps
    enter()
    with nogil:
        failed = chosen.layer_norm[dtype](source, target, &w, weights, biases, epsilon, threads)
    leave()
    return None if failed else y
