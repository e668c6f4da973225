"""A reduction as a value: moments of slices of an array of any strides, and what is made of them.

Axes are either kept, one slice for each of their indices, or reduced.  An engine checks nothing and knows no error
message.
"""

from libc.stdint cimport uint8_t

cdef enum:
    MOST_AXES = 64  # of an ndarray
    RECORD = 7  # fields of a record: count, mean in two parts, M2 in two parts, least, most

cdef enum Element:
    F32, F64, F16, BF16, U8, I8, U16, I16, U32, I32, U64, I64

cdef struct Span:
    # An axis: strides of values and of `where` in bytes, of slices in slices.
    Py_ssize_t length, x, where, slice

cdef struct Reduction:
    const char* x
    const uint8_t* where  # bytes, 0: not counted; or NULL
    int element
    bint omit  # NaN isn't counted
    int kept, reduced  # axes
    Span kept_axes[MOST_AXES]  # none of length 0
    Span reduced_axes[MOST_AXES]
    Py_ssize_t slices
    double* record  # (RECORD, slices): written; of no values 0, 0, 0, 0, 0, inf, -inf

cdef struct Step:
    # An axis of what is standardized: strides of x and y in bytes, of slices in slices.
    Py_ssize_t length, x, y, slice

cdef struct Standardization:
    const char* x
    char* y  # may be x
    int element, result  # of x, of y: one of the first four
    int axes
    Step steps[MOST_AXES]  # none of length 0
    Py_ssize_t rows, lines  # the kernel's own: rows of a line, lines of what a row is taken from
    bint streamed, odd  # y is stored around the caches; an x isn't finite
    const double* mean  # of each slice
    const double* scale
    const double* shift  # what that leaves of the mean, times -scale
    double least, most  # to which y is clipped; -inf, inf

cdef struct Sliding:
    # Windows along one axis of x, each slice by itself.
    const char* x
    char* y
    int element, result
    int axes  # others than that of the windows
    Step steps[MOST_AXES]
    Step along
    Py_ssize_t window, least_window
    bint centred, scaled  # windows around their frame, not behind it; by the deviation, not only about the mean

cdef int element_of(object x) except -2
cpdef object moments(object x, tuple axes, object where, bint omit)
cpdef bint standardize(
    object x, tuple axes, object record, double ddof, double eps, double floor, double least, double most, object y
) except -1
cpdef int slide(
    object x, int axis, Py_ssize_t window, Py_ssize_t least_window, bint centred, bint scaled, object y) except -1
cpdef object as_tallied(str function, object x)
cpdef bint is_walkable(object y) except -1
cpdef tuple as_axes(str function, object axis, int ndim)
