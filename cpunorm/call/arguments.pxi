# Fast tests of arguments: each in C; where it fails, a function of `_arguments` converts the argument or raises.
# Included by _call.pyx.

cdef inline bint is_foreign(object array) noexcept:
    """`_foreign.is_foreign`."""
    return array is not None and not cnp.PyArray_Check(array)


cdef inline int element_of(object array) noexcept:
    """What a Norm calls the native type of an ndarray, -1 if the kernels don't take it."""
    cdef int dtype = type_of(array)
    if dtype == cnp.NPY_FLOAT32:
        return 0
    if dtype == cnp.NPY_FLOAT64:
        return 1
    if takes_halves and dtype == cnp.NPY_FLOAT16:
        return 2
    return 3 if takes_halves and dtype == _running.bfloat16 else -1


cdef inline bint is_plain(object array) noexcept:
    """Whether it is exactly an ndarray of a native type of the kernels whose memory can be walked."""
    cdef int axis
    cdef Py_ssize_t size
    if not cnp.PyArray_CheckExact(array):
        return False
    if element_of(array) < 0 or not is_behaved(array):
        return False
    size = itemsize_of(array)
    for axis in range(ndim_of(array)):
        if stride_of(array, axis) & (size - 1):
            return False
    return True


cdef inline bint is_half(object array) noexcept:
    return element_of(array) > 1


cdef tuple as_input(str function, object array, object out):
    """The input as a kernel can walk it, and the dtype of a result to be converted or copied to `out`, or None."""
    if _running.bfloat16 < 0 and cnp.PyArray_CheckExact(array) and _arguments.is_bfloat16(array.dtype):
        _running.bfloat16 = type_of(array)
    if is_plain(array) and not is_wider(out, array):
        return array, None
    return _arguments.as_input(function, array, out, takes_halves)


cdef inline bint is_wider(object out, object array) noexcept:
    """Whether `out` is for the unrounded result of a half type."""
    return out is not None and is_half(array) and cnp.PyArray_Check(out) and type_of(out) == cnp.NPY_FLOAT32


cdef inline bint is_simple(object array, object out) noexcept:
    """Whether an input needs no conversion."""
    return is_plain(array) and not is_wider(out, array)


cdef inline bint goes_with(object vector, object x) noexcept:
    """Whether the type of a parameter is that of x, or what x is computed in."""
    return type_of(vector) == type_of(x) or is_half(x) and type_of(vector) == cnp.NPY_FLOAT32


cdef inline bint alike(object a, object b) noexcept:
    return a is None or b is None or type_of(a) == type_of(b)


cdef inline bint fits(object vector, object x, int ndim) noexcept:
    """Whether `vector` is None, or contiguous in the dtype of x with the lengths of its last `ndim` axes."""
    cdef int axis
    if vector is None:
        return True
    if not (cnp.PyArray_CheckExact(vector) and goes_with(vector, x)
            and is_carray(vector) and ndim_of(vector) == ndim):
        return False
    for axis in range(ndim):
        if length_of(vector, axis) != length_of(x, ndim_of(x) - ndim + axis):
            return False
    return True


cdef inline bint is_vector(object vector, object x, Py_ssize_t size) noexcept:
    """Whether `vector` is None, or a contiguous vector of `size` values in the dtype of x."""
    return vector is None or (
        cnp.PyArray_CheckExact(vector) and goes_with(vector, x)
        and is_carray(vector) and ndim_of(vector) == 1 and length_of(vector, 0) == size)


cdef inline double eps_of(str function, object eps, bint zero_allowed) except? -1:
    if PyFloat_CheckExact(eps) and (<double> eps > 0 or (zero_allowed and <double> eps == 0)):
        return <double> eps
    return _scalars.positive_eps(function, eps, zero_allowed)


cdef inline double machine_epsilon(object x) noexcept:
    """Of what x is computed in: torch's eps of rms_norm."""
    return DBL_EPSILON if type_of(x) == cnp.NPY_FLOAT64 else FLT_EPSILON


cdef inline int channel_axis(str function, object x, object data_format) except -1:
    if ndim_of(x) >= 2:
        if data_format is CHANNELS_FIRST:
            return 1
        if data_format is CHANNELS_LAST:
            return ndim_of(x) - 1
    return _arguments.channel_axis(function, x, data_format)


cdef str CHANNELS_FIRST = "channels_first"  # interned, as literals are
cdef str CHANNELS_LAST = "channels_last"


cdef inline void find_ends(object array, char** low, char** high) noexcept:
    """Where the memory of an array begins and ends, as far as its strides say."""
    cdef int axis
    cdef Py_ssize_t reach
    low[0] = high[0] = <char*> data_of(array)
    if is_contiguous(array):
        high[0] += bytes_of(array)
        return
    for axis in range(ndim_of(array)):
        reach = (length_of(array, axis) - 1) * stride_of(array, axis)
        if reach < 0:
            low[0] += reach
        else:
            high[0] += reach
    high[0] += itemsize_of(array)


cdef inline bint separate(object a, object b) noexcept:
    """Whether the ends of two arrays tell that no byte is in both; None has no memory."""
    cdef char* start_a
    cdef char* stop_a
    cdef char* start_b
    cdef char* stop_b
    if b is None:
        return True
    find_ends(a, &start_a, &stop_a)
    find_ends(b, &start_b, &stop_b)
    return stop_a <= start_b or stop_b <= start_a


cdef bint hits_itself(object array) noexcept:
    """`_arguments.hits_itself`."""
    cdef Py_ssize_t extent = itemsize_of(array), stride, least
    cdef uint64_t done = 0  # axes, a bit each
    cdef int axis, next_
    if is_contiguous(array):
        return False
    while True:
        next_, least = -1, 0
        for axis in range(ndim_of(array)):
            stride = labs(stride_of(array, axis))
            if not done >> axis & 1 and length_of(array, axis) > 1 and (next_ < 0 or stride < least):
                next_, least = axis, stride
        if next_ < 0:
            return False
        if least < extent:
            return True
        extent += least * (length_of(array, next_) - 1)
        done |= <uint64_t> 1 << next_


cdef bint is_plain_out(object out, object x) noexcept:
    """Whether `out` is writeable, no element lying on another, and is x itself or apart from it."""
    cdef int axis
    cdef bint same
    if not (is_plain(out) and is_writeable(out) and type_of(out) == type_of(x) and ndim_of(out) == ndim_of(x)):
        return False
    for axis in range(ndim_of(x)):
        if length_of(out, axis) != length_of(x, axis):
            return False
    same = data_of(out) == data_of(x)
    if not (is_contiguous(out) and is_contiguous(x)):
        for axis in range(ndim_of(x)):
            same = same and (stride_of(out, axis) == stride_of(x, axis) or length_of(x, axis) <= 1)
        if hits_itself(out):
            return False
    return same or separate(out, x)


cdef dict ACTIVATIONS = {name: number for number, name in enumerate(_arguments.ACTIVATIONS, 1)}


cdef int finish_of(
    str function, Norm* n, object array, object x, object out, object activation, object residual
) except -1:
    """Check activation and residual of a call, and note the former."""
    if activation is not None:
        number = ACTIVATIONS.get(activation) if isinstance(activation, str) else None
        if number is not None:
            n.activation = number
        else:
            _arguments.check_activation(function, activation, address_of is not None)
            n.activation = FUNCTION
            address = address_of(function, activation, element_of(x))
            n.function = <void (*)(void*, Py_ssize_t) noexcept nogil> <size_t> address
    if residual is not None and not (
            residual is out and array is x or is_plain_out(residual, x) and (out is None or separate(residual, out))):
        _arguments.check_residual(function, residual, array, out)
    return 0


cdef bint is_laid_out_as(object array, object y) noexcept:
    """Whether `array` has the type and strides of y."""
    cdef int axis
    if not (cnp.PyArray_CheckExact(array) and type_of(array) == type_of(y) and is_behaved(array)):
        return False
    for axis in range(ndim_of(y)):
        if length_of(y, axis) > 1 and stride_of(array, axis) != stride_of(y, axis):
            return False
    return True
