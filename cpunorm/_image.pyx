# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A call of `normalize_image`: arguments -> Image -> kernel, as `_call` does for norms.

An image is seen by its strides and not copied, whatever they are; only byte-swapped or misaligned ones are.  The kernel
is the compiled one of the ISA level in use, whichever engine runs the norms.
"""

from cpython.float cimport PyFloat_CheckExact
from cpython.list cimport PyList_CheckExact
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.tuple cimport PyTuple_CheckExact
from libc.stdlib cimport free, malloc

import numpy as np

cimport numpy as cnp

from cpunorm._cpu cimport call_ends, threads_for
from cpunorm._image cimport BFLOAT16, FLOAT16, FLOAT32, MOST_CHANNELS, UINT8, UINT16, Image, Source, image_kernel
from cpunorm._memory cimport new_array

from cpunorm import _image_arguments

cnp.import_array()

cdef extern from *:
    """
    /* Of what is known to be an ndarray. */
    #define ndim_of(a) PyArray_NDIM((PyArrayObject *) (a))
    #define length_of(a, axis) PyArray_DIM((PyArrayObject *) (a), axis)
    #define stride_of(a, axis) PyArray_STRIDE((PyArrayObject *) (a), axis)
    #define type_of(a) PyArray_TYPE((PyArrayObject *) (a))
    #define data_of(a) PyArray_BYTES((PyArrayObject *) (a))
    #define bytes_of(a) PyArray_NBYTES((PyArrayObject *) (a))
    #define itemsize_of(a) PyArray_ITEMSIZE((PyArrayObject *) (a))
    #define is_behaved(a) PyArray_ISBEHAVED_RO((PyArrayObject *) (a))
    #define is_carray(a) PyArray_ISCARRAY((PyArrayObject *) (a))
    #define is_carray_ro(a) PyArray_ISCARRAY_RO((PyArrayObject *) (a))
    """
    int ndim_of(object a)
    Py_ssize_t length_of(object a, int axis)
    Py_ssize_t stride_of(object a, int axis)
    int type_of(object a)
    char* data_of(object a)
    Py_ssize_t bytes_of(object a)
    Py_ssize_t itemsize_of(object a)
    bint is_behaved(object a)
    bint is_carray(object a)
    bint is_carray_ro(object a)

cdef image_kernel kernel = NULL
cdef object FLOAT32_TYPE = np.float32
cdef cnp.dtype FLOAT32_DTYPE = np.dtype(np.float32)


def use_kernel(module):
    """Send calls to the kernel of a compiled module, its capsule IMAGE_KERNEL."""
    global kernel
    kernel = <image_kernel> PyCapsule_GetPointer(module.IMAGE_KERNEL, "cpunorm.image_kernel")


cdef inline int value_of(int dtype) noexcept:
    """The type of an image as the kernel counts them, -1 if it doesn't."""
    if dtype == cnp.NPY_UINT8:
        return UINT8
    if dtype == cnp.NPY_FLOAT32:
        return FLOAT32
    if dtype == cnp.NPY_UINT16:
        return UINT16
    return FLOAT16 if dtype == cnp.NPY_FLOAT16 else -1


cdef inline bint is_image(object array) noexcept:
    """Whether it is exactly an ndarray of three or four axes that the kernel can walk."""
    cdef int axis
    if not (cnp.PyArray_CheckExact(array) and value_of(type_of(array)) >= 0 and is_behaved(array)
            and (ndim_of(array) == 3 or ndim_of(array) == 4)):
        return False
    for axis in range(ndim_of(array)):
        if stride_of(array, axis) & (itemsize_of(array) - 1):
            return False
    return True


cdef inline bint are_images(tuple images, bint listed) noexcept:
    """Whether all are images, of three axes if `listed`, and alike."""
    if not images:
        return False
    cdef object first = images[0]
    for image in images:
        if not is_image(image) or type_of(image) != type_of(first) or (listed and ndim_of(image) != 3):
            return False
        for axis in range(ndim_of(first)):
            if length_of(image, axis) != length_of(first, axis):
                return False
    return True


cdef inline bint fill(object values, int channels, double above, double* target) noexcept:
    """target = `values`: a float, or as many floats or a vector of them as there are channels. False for others."""
    cdef int k
    cdef bint is_tuple = PyTuple_CheckExact(values), is_list = PyList_CheckExact(values)
    if is_tuple or is_list:
        if len(<tuple> values if is_tuple else <list> values) != channels:
            return False
        for k in range(channels):
            value = (<tuple> values)[k] if is_tuple else (<list> values)[k]
            if not PyFloat_CheckExact(value):
                return False
            target[k] = <double> value
    elif PyFloat_CheckExact(values):
        for k in range(channels):
            target[k] = <double> values
    elif (cnp.PyArray_CheckExact(values) and ndim_of(values) == 1 and length_of(values, 0) == channels
          and is_carray_ro(values)):
        if type_of(values) == cnp.NPY_FLOAT64:
            for k in range(channels):
                target[k] = (<double*> data_of(values))[k]
        elif type_of(values) == cnp.NPY_FLOAT32:
            for k in range(channels):
                target[k] = (<float*> data_of(values))[k]
        else:
            return False
    else:
        return False
    for k in range(channels):
        if not (target[k] - target[k] == 0 and target[k] > above):
            return False
    return True


cdef inline bint is_apart(object out, tuple images) noexcept:
    """Whether the contiguous `out` shares no byte with any of the images, as far as their strides say."""
    cdef char* start = data_of(out)
    cdef char* stop = start + bytes_of(out)
    cdef char* low
    cdef char* high
    cdef int axis
    cdef Py_ssize_t reach
    for image in images:
        low = high = data_of(image)
        for axis in range(ndim_of(image)):
            reach = (length_of(image, axis) - 1) * stride_of(image, axis)
            if reach < 0:
                low += reach
            else:
                high += reach
        if low < stop and start < high + itemsize_of(image):
            return False
    return True


cdef inline bint is_plain_out(object out, int ndim, const cnp.npy_intp* shape, tuple images) noexcept:
    """Whether `out` is a contiguous, writeable float32 array of that shape, apart from the images."""
    cdef int axis
    if not (cnp.PyArray_CheckExact(out) and type_of(out) == cnp.NPY_FLOAT32 and is_carray(out)
            and ndim_of(out) == ndim):
        return False
    for axis in range(ndim):
        if length_of(out, axis) != shape[axis]:
            return False
    return is_apart(out, images)


cdef str HWC_TO_CHW = "HWC->CHW"  # interned, as literals are
cdef str HWC_TO_HWC = "HWC->HWC"
cdef str CHW_TO_CHW = "CHW->CHW"


def normalize_image(image, mean, std, scale, layout, swap_channels, dtype, out):
    """`images.normalize_image`."""
    cdef Image n
    cdef Source one
    cdef Source* sources = &one
    cdef cnp.npy_intp shape[4]
    cdef double means[MOST_CHANNELS]
    cdef double stds[MOST_CHANNELS]
    cdef int order[MOST_CHANNELS]
    cdef bint listed = PyTuple_CheckExact(image) or PyList_CheckExact(image), plain
    cdef int k, ndim, batch, row, column, channel, out_ndim, threads, work
    cdef Py_ssize_t sample, size, item
    cdef cnp.dtype y_dtype
    if layout is not HWC_TO_CHW and layout is not HWC_TO_HWC and layout is not CHW_TO_CHW:
        layout = _image_arguments.image_layout(layout)
    cdef bint planar_x = layout == CHW_TO_CHW, planar_y = layout != HWC_TO_HWC

    if kernel == NULL:
        raise RuntimeError("normalize_image: this build has no kernels for this CPU")
    cdef tuple images = tuple(image) if listed else (image,)
    if not are_images(images, listed):
        images = _image_arguments.as_images(image)
    first = images[0]
    ndim, item = ndim_of(first), itemsize_of(first)
    batch = ndim - 3  # axes before those of an image
    row, column, channel = batch, batch + 1, batch + 2
    if planar_x:
        row, column, channel = batch + 1, batch + 2, batch
    n.samples = length_of(first, 0) if batch else len(images)
    n.rows, n.columns = length_of(first, row), length_of(first, column)
    if not 1 <= length_of(first, channel) <= MOST_CHANNELS:
        _image_arguments.check_channels(first.shape, channel, MOST_CHANNELS)
    n.channels = <int> length_of(first, channel)
    n.x_value = value_of(type_of(first))

    if not fill(mean, n.channels, -np.inf, means):
        fill(_image_arguments.channel_values("mean", mean, n.channels, -np.inf), n.channels, -np.inf, means)
    if not fill(std, n.channels, 0, stds):
        fill(_image_arguments.channel_values("std", std, n.channels, 0), n.channels, 0, stds)
    if scale is None:
        n.scale = 1.0 / 255 if n.x_value == UINT8 else 1.0 / 65535 if n.x_value == UINT16 else 1
    elif not fill(scale, 1, 0, &n.scale) or not PyFloat_CheckExact(scale):
        n.scale = _image_arguments.image_scale(scale)
    n.mean, n.std, n.order = means, stds, order
    for k in range(n.channels):
        order[k] = k
    if swap_channels is not False and _image_arguments.is_swapped(swap_channels, n.channels):
        order[0], order[2] = 2, 0

    if dtype is FLOAT32_TYPE:
        y_dtype, n.y_value = FLOAT32_DTYPE, FLOAT32
    else:
        y_dtype = _image_arguments.image_dtype(dtype)
        n.y_value = value_of(y_dtype.num) if y_dtype.num in (cnp.NPY_FLOAT16, cnp.NPY_FLOAT32) else BFLOAT16
    out_ndim = 3 + (listed or batch)
    if out_ndim == 4:
        shape[0] = n.samples
    k = out_ndim - 3
    if planar_y:
        shape[k], shape[k + 1], shape[k + 2] = n.channels, n.rows, n.columns
    else:
        shape[k], shape[k + 1], shape[k + 2] = n.rows, n.columns, n.channels
    plain = out is None
    if out is not None:
        plain = n.y_value == FLOAT32 and is_plain_out(out, out_ndim, shape, images)
        if not plain:
            alike = planar_x == planar_y and order[0] == 0
            plain = _image_arguments.as_image_out(
                out, tuple([shape[k] for k in range(out_ndim)]), y_dtype, images, alike)
    size = n.samples * n.rows * n.columns * n.channels
    y = out if plain and out is not None else new_array(out_ndim, shape, y_dtype)
    if size == 0:
        return y

    n.y, item_y = data_of(y), itemsize_of(y)
    k = out_ndim - 3
    n.y_sample = stride_of(y, 0) // item_y if k else 0
    n.y_row = stride_of(y, k + planar_y) // item_y
    n.y_channel = stride_of(y, k) // item_y if planar_y else 0
    if n.samples > 1:
        sources = <Source*> malloc(n.samples * sizeof(Source))
        if sources == NULL:
            raise MemoryError(f"normalize_image: no memory for the strides of {n.samples} images")
    for sample in range(n.samples):
        if not batch:
            first = images[sample]
        sources[sample].data = data_of(first) + (sample * stride_of(first, 0) if batch else 0)
        sources[sample].row = stride_of(first, row) // item
        sources[sample].pixel = stride_of(first, column) // item
        sources[sample].channel = stride_of(first, channel) // item
    n.sources = sources
    work = 1 if n.x_value == UINT8 else 2  # what goes through float64 takes as long as two reads
    threads = threads_for(size, work)
    with nogil:
        kernel(&n, threads)
    call_ends(size, work)
    if sources != &one:
        free(sources)
    if y is not out and out is not None:
        np.copyto(out, y)
        return out
    return y
