# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Statistics: arguments -> Reduction -> kernel."""

from cpython.long cimport PyLong_CheckExact
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.tuple cimport PyTuple_CheckExact
from libc.math cimport NAN, isfinite, sqrt

import numpy as np

cimport numpy as cnp

from cpunorm._cpu cimport call_ends, threads_for
from cpunorm._memory cimport new_array, release
from cpunorm._norm cimport KernelSet

from cpunorm import _arguments, _statistics_arguments
from cpunorm._memory import made

cnp.import_array()

cdef extern from "kernels/records.h":
    void merge_records(
        double* a, Py_ssize_t a_pitch, const double* b, Py_ssize_t b_pitch, Py_ssize_t n) noexcept nogil

cdef cnp.dtype DOUBLE = np.dtype(np.float64)
cdef KernelSet* kernels = NULL  # never again once there are some, for calls read both without a lock
cdef object python_kernels = None  # of an engine in Python


def use_kernels(module):
    """Send calls to the kernels of a module: its capsule KERNEL_SET, or its Python functions."""
    global kernels, python_kernels
    if hasattr(module, "KERNEL_SET"):
        kernels, python_kernels = <KernelSet*> PyCapsule_GetPointer(module.KERNEL_SET, "cpunorm.KernelSet"), None
    else:
        python_kernels = module


ELEMENTS = {
    np.dtype(np.float32): F32, np.dtype(np.float64): F64, np.dtype(np.float16): F16,
    np.dtype(np.bool): U8, np.dtype(np.uint8): U8, np.dtype(np.int8): I8,
    np.dtype(np.uint16): U16, np.dtype(np.int16): I16, np.dtype(np.uint32): U32, np.dtype(np.int32): I32,
    np.dtype(np.uint64): U64, np.dtype(np.int64): I64,
}


cdef int element_of(object x) except -2:
    """The element of an array, -1 if it has none."""
    cdef int kind = cnp.PyArray_TYPE(x)
    if kind == cnp.NPY_FLOAT32:
        return F32
    if kind == cnp.NPY_FLOAT64:
        return F64
    dtype = x.dtype
    if _arguments.is_bfloat16(dtype):
        return BF16
    return ELEMENTS.get(dtype, -1)


cdef int set_axes(Reduction* r, object x, object where, const char* reduced) noexcept:
    """The axes of x, those that are marked being reduced."""
    cdef int axis, ndim = cnp.PyArray_NDIM(x)
    cdef Py_ssize_t slice_ = 1
    cdef Span one
    r.kept = r.reduced = 0
    for axis in range(ndim - 1, -1, -1):
        one.length, one.x = cnp.PyArray_DIM(x, axis), cnp.PyArray_STRIDE(x, axis)
        one.where = 0 if where is None else cnp.PyArray_STRIDE(where, axis)
        one.slice = 0
        if reduced[axis]:
            r.reduced_axes[r.reduced] = one
            r.reduced += 1
        else:
            one.slice = slice_
            slice_ *= one.length
            r.kept_axes[r.kept] = one
            r.kept += 1
    r.slices = slice_
    return 0


cdef bint overflowed(object found) noexcept:
    """Whether a sum of finite values left float64's range."""
    cdef const double* record = <const double*> cnp.PyArray_DATA(found)
    cdef Py_ssize_t i, slices = cnp.PyArray_SIZE(found) // RECORD
    for i in range(slices):
        if not isfinite(record[slices + i]) and isfinite(record[5 * slices + i]) and isfinite(record[6 * slices + i]):
            return True
    return False


FIELDS = RECORD  # of a record
UNIT = 64  # the exponent of 2 in whose units the mean of values near float64's limit is found


cpdef object moments(object x, tuple axes, object where, bint omit):
    """The record (RECORD, *kept) of an array that can be walked, `axes` of it reduced; `where` of its shape or None."""
    cdef Reduction r
    cdef char reduced[MOST_AXES]
    cdef cnp.npy_intp lengths[MOST_AXES + 1]
    cdef int axis, ndim = cnp.PyArray_NDIM(x), kept = 1, failed, threads
    cdef KernelSet* chosen = kernels  # both of the same engine: another thread may change it meanwhile
    python = python_kernels
    cdef Py_ssize_t size = cnp.PyArray_SIZE(x)
    for axis in range(ndim):
        reduced[axis] = False
    for axis in axes:
        reduced[axis] = True
    lengths[0] = RECORD
    for axis in range(ndim):
        if not reduced[axis]:
            lengths[kept] = cnp.PyArray_DIM(x, axis)
            kept += 1
    record = new_array(kept, lengths, DOUBLE)
    if size == 0:
        record[:5], record[5], record[6] = 0, np.inf, -np.inf
        return record
    r.element = element_of(x)
    if python is not None:
        record[...] = python.moments(x, axes, where, omit)
    else:
        set_axes(&r, x, where, reduced)
        r.x = <const char*> cnp.PyArray_DATA(x)
        r.where = NULL if where is None else <const uint8_t*> cnp.PyArray_DATA(where)
        r.omit = omit
        r.record = <double*> cnp.PyArray_DATA(record)
        threads = threads_for(size, 1)
        with nogil:
            failed = chosen.moments(&r, threads)
        if failed and release():
            with nogil:
                failed = chosen.moments(&r, threads)
        if failed:
            raise MemoryError("cpunorm: no memory for the scratch of a kernel")
        call_ends(size, 1)
    if r.element == F64 and overflowed(record):
        with np.errstate(all="ignore"):
            again = moments(np.ldexp(x, -UNIT), axes, where, omit)
            np.ldexp(again[1:3], UNIT, out=again[1:3])
            np.ldexp(again[3:5], 2 * UNIT, out=again[3:5])
            again[5:] = np.where(np.isnan(again[5:]), np.nan, record[5:])  # the units took digits of what is small
            far = ~np.isfinite(record[1]) & np.isfinite(record[5]) & np.isfinite(record[6])
            record = np.where(far, again, record)
    return record


cdef int set_steps(Step* steps, object x, object y, const char* left_out, const char* reduced) noexcept:
    """The axes of x and y but those that are left out; slices follow those that aren't reduced.  How many there are."""
    cdef int axis, count = 0
    cdef Py_ssize_t slice_ = 1
    for axis in range(cnp.PyArray_NDIM(x) - 1, -1, -1):
        if left_out == NULL or not left_out[axis]:
            steps[count] = Step(cnp.PyArray_DIM(x, axis), cnp.PyArray_STRIDE(x, axis), cnp.PyArray_STRIDE(y, axis), 0)
            if not reduced[axis]:
                steps[count].slice = slice_
            count += 1
        if not reduced[axis]:
            slice_ *= cnp.PyArray_DIM(x, axis)
    return count


cdef inline double variance_of(double count, double m2, double ddof) noexcept nogil:
    return m2 / (count - ddof) if count > ddof else NAN


cdef int find_coefficients(
    const double* record, Py_ssize_t slices, double ddof, double eps, double floor, double* scale, double* shift
) noexcept nogil:
    """scale = 1 / max(sqrt(var + eps), floor) of each slice, 1 if that is 0; shift = -mean_low * scale."""
    cdef Py_ssize_t i
    cdef double deviation
    for i in range(slices):
        deviation = sqrt(variance_of(record[i], record[3 * slices + i], ddof) + eps)
        if deviation == 0:
            deviation = 1
        scale[i] = 1 / (floor if deviation < floor else deviation)
        shift[i] = -record[2 * slices + i] * scale[i]
    return 0


cpdef bint standardize(
    object x, tuple axes, object record, double ddof, double eps, double floor, double least, double most, object y
) except -1:
    """y = (x - mean) / max(sqrt(var + eps), floor), clipped, of the moments in a record of the kept axes.

    Returns False if all of x is known to be finite.
    """
    cdef Standardization job
    cdef char reduced[MOST_AXES]
    cdef int axis, threads
    cdef bint odd
    cdef KernelSet* chosen = kernels
    python = python_kernels
    cdef Py_ssize_t size = cnp.PyArray_SIZE(x)
    if size == 0:
        return False
    cdef const double* fields = <const double*> cnp.PyArray_DATA(record)
    cdef Py_ssize_t slices = cnp.PyArray_SIZE(record) // RECORD
    cdef cnp.npy_intp* lengths = cnp.PyArray_DIMS(record)
    cdef int ndim = cnp.PyArray_NDIM(record) - 1
    scale, shift = new_array(ndim, lengths + 1, DOUBLE), new_array(ndim, lengths + 1, DOUBLE)
    job.mean, job.scale, job.shift = (
        fields + slices, <double*> cnp.PyArray_DATA(scale), <double*> cnp.PyArray_DATA(shift))
    find_coefficients(fields, slices, ddof, eps, floor, <double*> job.scale, <double*> job.shift)
    if python is not None:
        python.standardize(x, axes, record[1, ...], scale, shift, least, most, y)
        return True
    for axis in range(cnp.PyArray_NDIM(x)):
        reduced[axis] = False
    for axis in axes:
        reduced[axis] = True
    job.axes = set_steps(job.steps, x, y, NULL, reduced)
    job.x, job.y = <const char*> cnp.PyArray_DATA(x), <char*> cnp.PyArray_DATA(y)
    job.element, job.result = element_of(x), element_of(y)
    job.least, job.most = least, most
    threads = threads_for(size, 2)
    with nogil:
        odd = chosen.standardize(&job, threads)
    call_ends(size, 2)
    return odd


cpdef int slide(
    object x, int axis, Py_ssize_t window, Py_ssize_t least_window, bint centred, bint scaled, object y
) except -1:
    """y = x about, and by the deviation of, the window around (behind) each frame along `axis`."""
    cdef Sliding job
    cdef char chosen_axis[MOST_AXES]
    cdef int other, threads
    cdef KernelSet* chosen = kernels
    python = python_kernels
    cdef Py_ssize_t size = cnp.PyArray_SIZE(x)
    if size == 0:
        return 0
    if python is not None:
        python.slide(x, axis, window, least_window, centred, scaled, y)
        return 0
    for other in range(cnp.PyArray_NDIM(x)):
        chosen_axis[other] = other == axis
    job.axes = set_steps(job.steps, x, y, chosen_axis, chosen_axis)
    job.along = Step(cnp.PyArray_DIM(x, axis), cnp.PyArray_STRIDE(x, axis), cnp.PyArray_STRIDE(y, axis), 0)
    job.x, job.y = <const char*> cnp.PyArray_DATA(x), <char*> cnp.PyArray_DATA(y)
    job.element, job.result = element_of(x), element_of(y)
    job.window, job.least_window, job.centred, job.scaled = window, least_window, centred, scaled
    threads = threads_for(size, 4)
    with nogil:
        chosen.slide(&job, threads)
    call_ends(size, 4)
    return 0


def as_record(record):
    """A record as it is read here: contiguous float64.

    Raises
    ------
    ValueError
        Of another number of fields.
    """
    if not (cnp.PyArray_CheckExact(record) and cnp.PyArray_TYPE(record) == cnp.NPY_FLOAT64
            and cnp.PyArray_ISCARRAY_RO(record) and cnp.PyArray_NDIM(record) and cnp.PyArray_DIM(record, 0) == RECORD):
        record = np.require(record, np.float64, ("C", "A"))
        if record.shape[:1] != (RECORD,):
            raise ValueError(f"Moments: a record has {RECORD} fields, got shape {record.shape}")
    return record


cdef object FLOAT64 = np.float64


cdef object in_dtype(object values, object dtype):
    """What users see of float64 values: of `dtype`, a scalar if there is but one slice."""
    if dtype is not FLOAT64:
        with np.errstate(all="ignore"):
            values = values.astype(dtype)
    return values if cnp.PyArray_NDIM(values) else values[()]


def shown(record, int field, dtype):
    """A field of each slice, NaN of nothing."""
    cdef const double* fields = <const double*> cnp.PyArray_DATA(record)
    cdef Py_ssize_t i, slices = cnp.PyArray_SIZE(record) // RECORD
    values = new_array(cnp.PyArray_NDIM(record) - 1, cnp.PyArray_DIMS(record) + 1, DOUBLE)
    cdef double* found = <double*> cnp.PyArray_DATA(values)
    for i in range(slices):
        found[i] = fields[field * slices + i] if fields[i] > 0 else NAN
    return in_dtype(values, dtype)


def variance(record, double ddof, bint root, dtype):
    """The variance of each slice, or its root; NaN of nothing."""
    cdef const double* fields = <const double*> cnp.PyArray_DATA(record)
    cdef Py_ssize_t i, slices = cnp.PyArray_SIZE(record) // RECORD
    values = new_array(cnp.PyArray_NDIM(record) - 1, cnp.PyArray_DIMS(record) + 1, DOUBLE)
    cdef double* found = <double*> cnp.PyArray_DATA(values)
    for i in range(slices):
        found[i] = variance_of(fields[i], fields[3 * slices + i], ddof) if fields[i] > 0 else NAN
        if root:
            found[i] = sqrt(found[i])
    return in_dtype(values, dtype)


def merge(a, b):
    """The record of the data of two records together."""
    merged, other = as_record(a).copy(), as_record(b)
    cdef Py_ssize_t n = merged.size // RECORD
    merge_records(<double*> cnp.PyArray_DATA(merged), n, <double*> cnp.PyArray_DATA(other), n, n)
    return merged


cpdef object as_tallied(str function, object x):
    """x as a kernel can walk it.

    Raises
    ------
    TypeError
        Not an ndarray, or not of a dtype with an order and a mean.
    """
    if not isinstance(x, np.ndarray) or hasattr(x, "mask"):
        _arguments.check_array(f"{function}: x", x)
    if element_of(x) < 0 or not cnp.PyArray_ISBEHAVED_RO(x):
        if not x.dtype.isnative or not x.flags.aligned:
            x = made(np.array, x, dtype=x.dtype.newbyteorder("="), order="K", subok=False)
        if element_of(x) < 0:
            raise TypeError(f"{function}: x must be of bool, integers or floats up to 64 bits, got {x.dtype}")
    return x


cpdef bint is_walkable(object y) except -1:
    """Whether a kernel can write the array y as it lies."""
    return element_of(y) >= 0 and cnp.PyArray_ISBEHAVED(y)


cdef bint is_ascending(tuple axes, int ndim) noexcept:
    """Whether they are ints from 0 to ndim, the lesser first."""
    before = -1
    for axis in axes:
        if not (PyLong_CheckExact(axis) and before < axis < ndim):
            return False
        before = axis
    return True


cpdef tuple as_axes(str function, object axis, int ndim):
    """`axis` as a sorted tuple of the axes that it names."""
    if axis is None:
        return tuple(range(ndim))
    if PyLong_CheckExact(axis) and -ndim <= axis < ndim:
        return (axis if axis >= 0 else axis + ndim,)
    if PyTuple_CheckExact(axis) and is_ascending(axis, ndim):
        return axis
    return _statistics_arguments.reduced_axes(function, axis, ndim)
