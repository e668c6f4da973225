# A norm whose samples have a scale and a shift each, y (1 + scale) + shift: one norm, moved from sample to sample, each
# with a weight and a bias of its own.  And what comes back beside the result: mean and 1 / deviation.
# Included by _call.pyx.

@cython.internal
@cython.final
@cython.auto_pickle(False)
cdef class Samples:
    """The samples of x, and what is kept for them."""

    cdef int walked, axes  # the axes along which samples are told apart, before those of weight and bias; all of them
    cdef Py_ssize_t[MOST_AXES] lengths
    cdef Py_ssize_t[MOST_AXES] scale_strides  # in bytes, as all here; 0 where it is constant
    cdef Py_ssize_t[MOST_AXES] shift_strides
    cdef Py_ssize_t[MOST_AXES] x, y
    cdef Py_ssize_t count  # of samples
    cdef Py_ssize_t done  # of those, where a call goes on that there was no memory for
    cdef Py_ssize_t width  # of weight and bias
    cdef const char* scale_data  # or NULL
    cdef const char* shift_data
    cdef char* room  # for a weight and a bias
    cdef object weight, bias, scale, shift  # in what x is computed in
    cdef object memory  # of the room


cdef inline bint is_modulation(object value, object x, object dtype, int axis) noexcept:
    """Whether scale or shift is None, or in what x is computed in: (samples, channels), or for no `axis` as x."""
    cdef int a
    if value is None:
        return True
    if dtype is not None or not cnp.PyArray_CheckExact(value) or not is_behaved(value) or (
            type_of(value) != (cnp.NPY_FLOAT64 if type_of(x) == cnp.NPY_FLOAT64 else cnp.NPY_FLOAT32)):
        return False
    if axis >= 0:
        return ndim_of(value) == 2 and length_of(value, 0) == length_of(x, 0) and (
            length_of(value, 1) == length_of(x, axis))
    if ndim_of(value) != ndim_of(x):
        return False
    for a in range(ndim_of(x)):
        if length_of(value, a) != 1 and length_of(value, a) != length_of(x, a):
            return False
    return True


cdef inline object modulation(str function, str what, object value, object array, object x, object dtype, int axis):
    """scale or shift, checked, in what x is computed in; `axis` is that of the channels, -1 of a norm of rows."""
    if is_modulation(value, x, dtype, axis):
        return value
    return _arguments.as_modulation(function, what, value, array, axis)


cdef inline bint is_apart(object out, object value) noexcept:
    """Whether scale or shift is known to share no memory with `out`."""
    return value is None or cnp.PyArray_CheckExact(value) and separate(out, value)


cdef inline Py_ssize_t step_of(object value, int axis) noexcept:
    return 0 if value is None or length_of(value, axis) == 1 else stride_of(value, axis)


cdef Samples see_samples(
    str function, object array, object x, object dtype, int axis, int leading, object weight, object bias, object scale,
    object shift
):
    """The samples of x along its first axis, or of rows along the leading axes that scale or shift vary along."""
    cdef int a, i
    cdef Samples s = Samples.__new__(Samples)
    s.weight, s.bias = widened(weight), widened(bias)
    s.scale = modulation(function, "scale", scale, array, x, dtype, axis)
    s.shift = modulation(function, "shift", shift, array, x, dtype, axis)
    s.walked = 1 if axis >= 0 else 0
    for a in range(leading):
        if length_of(x, a) > 1 and (step_of(s.scale, a) or step_of(s.shift, a)):
            s.walked = a + 1
    s.axes = s.walked + (1 if axis >= 0 else ndim_of(x) - leading)
    s.count = s.width = 1
    for i in range(s.axes):
        a = i if i < s.walked else i - s.walked + leading  # of x
        s.lengths[i] = length_of(x, axis if axis >= 0 and i else a)
        a = i if axis >= 0 else a  # of scale and shift
        s.scale_strides[i], s.shift_strides[i] = step_of(s.scale, a), step_of(s.shift, a)
        if i < s.walked:
            s.count *= s.lengths[i]
        else:
            s.width *= s.lengths[i]
    s.scale_data, s.shift_data = <const char*> data(s.scale), <const char*> data(s.shift)
    cdef cnp.npy_intp doubles = 2 * s.width
    s.memory = cnp.PyArray_EMPTY(1, &doubles, cnp.NPY_FLOAT64, 0)
    s.room = <char*> data_of(s.memory)
    return s


cdef inline object widened(object vector):
    return vector.astype(np.float32) if vector is not None and is_half(vector) else vector


ctypedef fused Real:
    float
    double


cdef void fold_line(
    const Real* weight, const Real* bias, const char* scale, Py_ssize_t scale_stride, const char* shift,
    Py_ssize_t shift_stride, Py_ssize_t n, Real* w, Real* b
) noexcept nogil:
    """w, b = weight and bias of y (1 + scale) + shift, rounded once; any of those read may be NULL."""
    cdef Py_ssize_t i
    cdef double factor = 1
    for i in range(n):
        if scale != NULL:
            factor = 1 + <double> (<const Real*> (scale + i * scale_stride))[0]
        w[i] = <Real> (factor if weight == NULL else weight[i] * factor)
        b[i] = <Real> ((0 if bias == NULL else bias[i] * factor) + (
            0 if shift == NULL else <double> (<const Real*> (shift + i * shift_stride))[0]))


cdef void fold(
    Samples s, const Real* weight, const Real* bias, const char* scale, const char* shift, Real* w, Real* b
) noexcept nogil:
    """The same along all axes of weight and bias."""
    cdef Py_ssize_t at, left, i, n = s.lengths[s.axes - 1]
    cdef const char* scale_line
    cdef const char* shift_line
    cdef int axis
    for at in range(s.width // n):
        left, scale_line, shift_line = at, scale, shift
        for axis in range(s.axes - 2, s.walked - 1, -1):
            i, left = left % s.lengths[axis], left // s.lengths[axis]
            if scale != NULL:
                scale_line += i * s.scale_strides[axis]
            if shift != NULL:
                shift_line += i * s.shift_strides[axis]
        fold_line(NULL if weight == NULL else weight + at * n, NULL if bias == NULL else bias + at * n,
                  scale_line, s.scale_strides[s.axes - 1], shift_line, s.shift_strides[s.axes - 1], n,
                  w + at * n, b + at * n)


cdef Norm sample_of(const Norm* n, Samples s, Py_ssize_t index) noexcept nogil:
    """The norm at a sample, with its own weight and bias in `room`."""
    cdef Norm one = n[0]
    cdef const char* scale = s.scale_data
    cdef const char* shift = s.shift_data
    cdef Py_ssize_t i, left = index, y = 0
    cdef int axis
    for axis in range(s.walked - 1, -1, -1):
        i, left = left % s.lengths[axis], left // s.lengths[axis]
        one.x.data = <char*> one.x.data + i * s.x[axis]
        y += i * s.y[axis]
        if scale != NULL:
            scale += i * s.scale_strides[axis]
        if shift != NULL:
            shift += i * s.shift_strides[axis]
    one.y.data = <char*> one.y.data + y
    if one.residual != NULL:
        one.residual = <const char*> one.residual + y
    if n.statistic != GIVEN and n.mean != NULL:
        one.mean, one.var = n.mean + index * n.samples * n.groups, n.var + index * n.samples * n.groups
    one.parameter_element = n.element == FLOAT64
    if n.element == FLOAT64:
        fold(s, <const double*> n.weight, <const double*> n.bias, scale, shift,
             <double*> s.room, <double*> s.room + s.width)
    else:
        fold(s, <const float*> n.weight, <const float*> n.bias, scale, shift,
             <float*> s.room, <float*> s.room + s.width)
    if n.weight != NULL or scale != NULL:
        one.weight = s.room
    if n.bias != NULL or shift != NULL:
        one.bias = s.room + s.width * (sizeof(double) if n.element == FLOAT64 else sizeof(float))
    return one


cdef int forward_each(KernelSet* chosen, const Norm* n, Samples s, int threads) noexcept nogil:
    """The kernel for each sample that isn't done, or for all at once if they don't differ; -1 without memory."""
    cdef Norm one
    if s is None:
        return chosen.forward(n, threads)
    while s.done < s.count:
        one = sample_of(n, s, s.done)
        if chosen.forward(&one, threads):
            return -1
        s.done += 1
    return 0


cdef inline bint are_returned(str function, object moments) except -1:
    """Whether mean and 1 / deviation come back, as `moments` may say instead of being arrays for mean and variance."""
    if moments is False or PyTuple_CheckExact(moments):
        return False
    return moments is True or _scalars.boolean(f"{function}: return_stats", moments)


cdef tuple new_moments(object x, int ndim, cnp.npy_intp* lengths):
    """Arrays for the mean and the variance of x, NaN if it has no values."""
    mean = cnp.PyArray_EMPTY(ndim, lengths, cnp.NPY_FLOAT64, 0)
    var = cnp.PyArray_EMPTY(ndim, lengths, cnp.NPY_FLOAT64, 0)
    if size_of(x) == 0:
        mean[...] = var[...] = np.nan
    return mean, var


cdef tuple with_statistics(object y, tuple moments, double eps):
    """(y, mean, 1 / deviation); the variance becomes the latter."""
    cdef double* var = <double*> data_of(moments[1])
    cdef Py_ssize_t i
    for i in range(size_of(moments[1])):
        var[i] = 1 / sqrt(var[i] + eps)
    return y, moments[0], moments[1]
