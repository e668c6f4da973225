# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The kernel set in Cython (see `_kernels_reference` for what the set promises to its callers).

Built once per ISA level: `_kernels_v3.pyx` and `_kernels_v4.pyx` include this file and are compiled with other flags.

Numerics
--------
Moments are taken over blocks.  In a block, d = x - k is summed in LANES independent lanes of the input's
type: s = sum d, q = sum d^2; then mean = k + s/n and M2 = q - s^2/n, and blocks are merged in float64:

    mean = mean_a + (mean_b - mean_a) n_b/n,    M2 = M2_a + M2_b + (mean_b - mean_a)^2 n_a n_b/n

(Welford 1962; Chan, Golub and LeVeque 1983).  The shift k is the mean of earlier values, taken anew whenever their
number has doubled; a block longer than all before it (so also the first) takes the mean of its first quarter, which
is then read twice, from L1.  (In channels_last, where a channel has one lane and its sums round more, it is the first
half.)  So k is always the mean of at least a quarter of the values that are summed with it, and what their q holds
beyond their own M2 is at most a few times what the merges add to the total: no cancellation, whatever the data.
float32 blocks whose q left the range of float32 are done again in float64.

The mean is applied in two parts, y = ((x - mean_hi) - mean_lo) * scale + bias, so a large mean costs no digits.
That, and the shift, die by reassociation: never build this with -ffast-math or -fassociative-math.

Where a domain is cut into parts depends on its shape alone, and parts are merged in a fixed tree: the same bits at any
number of threads.

Vectors
-------
Loops over LANES with a constant trip count are what the compiler turns into vectors: accumulators live in arrays of
LANES, and a result goes through such an array before it is stored, so that y may be x without an alias check.
What Cython can't say of vectors is in _vectors.h.

Memory
------
What is past the caches costs most, so x is read again while it is still in cache (backwards, domain by domain, sample
by sample), lines are fetched a page ahead (for the moments of channels_last, a tile ahead), and y, where x and y don't
fit the last-level cache, is stored around it.
"""

from cython.parallel cimport parallel
from cpython.pycapsule cimport PyCapsule_New
from libc.float cimport DBL_MAX, FLT_MAX
from libc.math cimport sqrt
from libc.stdlib cimport free, malloc

cimport numpy as cnp

from cpunorm._kernel_set cimport (
    KernelSet,
    Walk,
    inference_function,
    rows_function,
    training_function,
)

cnp.import_array()

cdef extern from "_vectors.h":
    enum: LANES
    void prefetch_read(const void* address) noexcept nogil
    void prefetch_write(const void* address) noexcept nogil
    double fold_floats(const float* lanes) noexcept nogil
    double fold_doubles(const double* lanes) noexcept nogil
    void stream(void* y, const void* z, int bytes) noexcept nogil
    void end_stream() noexcept nogil
    Py_ssize_t stream_bytes() noexcept nogil

cdef extern from "_team.h":
    ctypedef struct Team:
        pass
    void start_team(Team* team) noexcept nogil
    int join_team(Team* team) noexcept nogil
    int team_size() noexcept nogil
    void leave_team(Team* team) noexcept nogil

cdef enum:
    VECTOR = LANES // 4  # values of one vector register; LANES keeps four of them busy
    BLOCK = 32 * LANES  # elements that are summed in the input's type before they are merged in float64
    ROWS = 64  # the same in channels_last, where each channel has one lane
    AHEAD = 4096  # bytes ahead to fetch: hardware's own prefetch stops at the end of a page of this size
    TOGETHER = 1024  # values of the short domains whose moments are taken together
    MOST_TOGETHER = 4
    PART = 65536  # elements of a part: what one thread takes of a domain that several share
    FOLDED = 512  # values of a channels_last line, if lines of few channels can be walked as one
    PIECE = 8192  # elements of the smallest piece of a long line that is worth a thread's while

cdef Py_ssize_t STREAM_BYTES = stream_bytes()
cdef double TINY = 1e-36  # mean squares of float32 below this have lost digits to underflow

ctypedef fused real:
    float
    double


cdef inline void will_read(const real* x) noexcept nogil:
    """Fetch the LANES values from x on."""
    cdef int line
    for line in range(LANES * <int> sizeof(real) // 64):
        prefetch_read(<const char*> x + 64 * line)


cdef inline void will_write(const real* y) noexcept nogil:
    """Fetch the LANES values from y on, to be written."""
    cdef int line
    for line in range(LANES * <int> sizeof(real) // 64):
        prefetch_write(<const char*> y + 64 * line)


include "_moments.pxi"
include "_apply.pxi"


cdef int batch_norm_inference_of(
    const real* x, real* y, const Walk* w, const double* mean, const double* var,
    const real* weight, const real* bias, double eps, int threads,
) noexcept nogil:
    cdef Coefficients c
    cdef Py_ssize_t channel
    if not allocate(<real> 0, &c, w.channels):
        return -1
    for channel in range(w.channels):
        set_coefficients(&c, channel, mean[channel], 1 / sqrt(var[channel] + eps), weight, bias, channel)
    apply_all(x, y, w, &c, past_cache(x, y, w), threads)
    free(c.high)
    return 0


include "_grouped.pxi"
include "_rows.pxi"


# The kernel set, for C and for Python.

cdef KernelSet kernel_set
kernel_set.batch_norm_inference[0] = <inference_function> &batch_norm_inference_of[float]
kernel_set.batch_norm_inference[1] = <inference_function> &batch_norm_inference_of[double]
kernel_set.grouped[0] = <training_function> &grouped_of[float]
kernel_set.grouped[1] = <training_function> &grouped_of[double]
kernel_set.layer_norm[0] = <rows_function> &layer_norm_of[float]
kernel_set.layer_norm[1] = <rows_function> &layer_norm_of[double]

KERNEL_SET = PyCapsule_New(&kernel_set, "cpunorm.KernelSet", NULL)


cdef inline Walk channel_walk(cnp.ndarray x, cnp.ndarray y, bint samples):
    """The Walk of two canonical views; their first axis is the samples' or `outer`."""
    cdef Walk w = Walk(1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(x)
    if samples:
        w.samples, w.x_sample, w.y_sample = x.shape[0], x.strides[0] // size, y.strides[0] // size
    else:
        w.outer, w.x_outer, w.y_outer = x.shape[0], x.strides[0] // size, y.strides[0] // size
    w.middle, w.x_middle, w.y_middle = x.shape[1], x.strides[1] // size, y.strides[1] // size
    if x.ndim == 4:
        w.channels, w.x_channel, w.y_channel = x.shape[2], x.strides[2] // size, y.strides[2] // size
    w.inner, w.x_inner, w.y_inner = x.shape[x.ndim - 1], x.strides[x.ndim - 1] // size, y.strides[x.ndim - 1] // size
    return w


cdef inline void* data(object vector):
    return NULL if vector is None else cnp.PyArray_DATA(vector)


cdef inline int kind(cnp.ndarray x):
    return 0 if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32 else 1


cdef int raise_if(int failed) except -1:
    if failed:
        raise MemoryError("cpunorm: no memory for the scratch of a kernel")
    return 0


def batch_norm_training(
    cnp.ndarray x, cnp.ndarray y, cnp.ndarray mean, cnp.ndarray var, weight, bias, double eps, int num_threads
):
    """x, y: (outer, middle, channels, inner); writes the batch's moments to `mean` and `var`."""
    cdef Walk w = channel_walk(x, y, False)
    cdef training_function function = kernel_set.grouped[kind(x)]
    cdef const void* source = data(x)
    cdef void* target = data(y)
    cdef double* means = <double*> data(mean)
    cdef double* vars_ = <double*> data(var)
    cdef const void* weights = data(weight)
    cdef const void* biases = data(bias)
    cdef int failed
    with nogil:
        failed = function(source, target, &w, w.channels, means, vars_, weights, biases, eps, num_threads)
    raise_if(failed)


def batch_norm_inference(
    cnp.ndarray x, cnp.ndarray y, cnp.ndarray mean, cnp.ndarray var, weight, bias, double eps, int num_threads
):
    """x, y: (outer, middle, channels, inner)."""
    cdef Walk w = channel_walk(x, y, False)
    cdef inference_function function = kernel_set.batch_norm_inference[kind(x)]
    cdef const void* source = data(x)
    cdef void* target = data(y)
    cdef const double* means = <const double*> data(mean)
    cdef const double* vars_ = <const double*> data(var)
    cdef const void* weights = data(weight)
    cdef const void* biases = data(bias)
    cdef int failed
    with nogil:
        failed = function(source, target, &w, means, vars_, weights, biases, eps, num_threads)
    raise_if(failed)


def group_norm(cnp.ndarray x, cnp.ndarray y, Py_ssize_t groups, weight, bias, double eps, int num_threads):
    """x, y: (samples, middle, channels, inner); moments per sample over `channels // groups` channels."""
    cdef Walk w = channel_walk(x, y, True)
    cdef training_function function = kernel_set.grouped[kind(x)]
    cdef const void* source = data(x)
    cdef void* target = data(y)
    cdef const void* weights = data(weight)
    cdef const void* biases = data(bias)
    cdef int failed
    with nogil:
        failed = function(source, target, &w, groups, NULL, NULL, weights, biases, eps, num_threads)
    raise_if(failed)


def layer_norm(cnp.ndarray x, cnp.ndarray y, weight, bias, double eps, int num_threads):
    """x, y: (outer, middle, width); moments per row of `width` values."""
    cdef Walk w = channel_walk(x, y, True)
    cdef rows_function function = kernel_set.layer_norm[kind(x)]
    cdef const void* source = data(x)
    cdef void* target = data(y)
    cdef const void* weights = data(weight)
    cdef const void* biases = data(bias)
    cdef int failed
    with nogil:
        failed = function(source, target, &w, weights, biases, eps, num_threads)
    raise_if(failed)
