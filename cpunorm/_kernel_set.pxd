"""The kernel set as C sees it: what `_express` calls without Python in between."""

cdef struct Walk:
    # Lengths, and strides in elements, of the five loops over x and y. LayerNorm's rows are samples x middle, its
    # width is `inner`; BatchNorm has one sample.
    Py_ssize_t samples, outer, middle, channels, inner
    Py_ssize_t x_sample, x_outer, x_middle, x_channel, x_inner
    Py_ssize_t y_sample, y_outer, y_middle, y_channel, y_inner

# Each returns 0, or -1 when there was no memory for its scratch.
# weight and bias are vectors in the dtype of x and y, or NULL.
ctypedef int (*inference_function)(
    const void* x, void* y, const Walk* walk, const double* mean, const double* var,
    const void* weight, const void* bias, double eps, int threads) noexcept nogil
ctypedef int (*training_function)(
    const void* x, void* y, const Walk* walk, Py_ssize_t groups, double* mean, double* var,
    const void* weight, const void* bias, double eps, int threads) noexcept nogil
ctypedef int (*rows_function)(
    const void* x, void* y, const Walk* walk,
    const void* weight, const void* bias, double eps, int threads) noexcept nogil

cdef struct KernelSet:
    # One function per dtype: [0] float32, [1] float64.
    inference_function batch_norm_inference[2]
    training_function grouped[2]  # group_norm; batch_norm_training is one sample whose groups are its channels
    rows_function layer_norm[2]
