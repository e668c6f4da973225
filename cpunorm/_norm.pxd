"""A norm as a value: what every engine is given, and the kernel set that takes it.

What its fields mean says `include/cpunorm.h`, which other people's extensions are compiled with, too.  A new option is
a field at the end whose zero means "as before".  An engine checks nothing and knows no error message.
"""

from cpunorm._reduction cimport Reduction, Sliding, Standardization

cdef extern from "cpunorm.h":
    cdef enum Statistic "cpunorm_Statistic":
        CENTRED "CPUNORM_CENTRED"
        GIVEN "CPUNORM_GIVEN"
        ABOUT_ZERO "CPUNORM_ABOUT_ZERO"

    cdef enum Element "cpunorm_Element":
        FLOAT32 "CPUNORM_FLOAT32"
        FLOAT64 "CPUNORM_FLOAT64"
        FLOAT16 "CPUNORM_FLOAT16"
        BFLOAT16 "CPUNORM_BFLOAT16"

    cdef enum Activation "cpunorm_Activation":
        NO_ACTIVATION "CPUNORM_NO_ACTIVATION"
        RELU "CPUNORM_RELU"
        RELU6 "CPUNORM_RELU6"
        LEAKY_RELU "CPUNORM_LEAKY_RELU"
        SILU "CPUNORM_SILU"
        GELU "CPUNORM_GELU"
        GELU_TANH "CPUNORM_GELU_TANH"
        HARDSWISH "CPUNORM_HARDSWISH"
        HARDSIGMOID "CPUNORM_HARDSIGMOID"
        SIGMOID "CPUNORM_SIGMOID"
        TANH "CPUNORM_TANH"
        FUNCTION "CPUNORM_FUNCTION"

    cdef struct Operand "cpunorm_Operand":
        void* data
        Py_ssize_t sample, outer, middle, channel, inner

    cdef struct Norm "cpunorm_Norm":
        Py_ssize_t samples, outer, middle, channels, inner
        Operand x, y
        int element
        int statistic
        Py_ssize_t groups
        bint along
        const void* weight
        const void* bias
        int parameter_element
        const void* residual
        int activation
        void (*function)(void* values, Py_ssize_t n) noexcept nogil
        const void* addend
        void* total
        double* mean
        double* var
        double eps

cdef enum Way:
    ROWS_WAY, COLUMNS_WAY, LANES_WAY, SUM_WAY

cdef struct Plan:
    # How a norm is run.
    Way way
    bint packed  # values that a vector takes don't follow each other in memory: they are packed into L1 first
    bint far  # x and y don't fit the caches ...
    bint streamed  # ... and y is stored around them

cdef enum:
    MOST_AXES = 64  # of an ndarray

cdef struct Axis:
    Py_ssize_t length, x, y  # strides in values

cdef struct Copy:
    # y = x, arrays of values of `size` bytes.
    const char* x
    char* y
    int size, count
    Axis axes[MOST_AXES]

cdef struct KernelSet:
    # y from x.  Returns 0, or -1 when there was no memory for its scratch; the bits of y depend neither on `threads`
    # nor on strides, only on the lengths, the order of the axes in memory, and the values.
    int (*forward)(const Norm* norm, int threads) noexcept nogil
    # What `forward` would do; -1 as there.  NULL in kernel sets that can't say.
    int (*explain)(const Norm* norm, Plan* plan) noexcept nogil
    # Any two arrays that don't overlap, in whichever order their axes lie. NULL where NumPy is to do it.
    void (*copy)(const Copy* copy, int threads) noexcept nogil
    # The moments of slices.  Returns 0, or -1 without memory; the bits do not depend on `threads`.
    int (*moments)(const Reduction* reduction, int threads) noexcept nogil
    # y = (x - mean) * scale, clipped.
    bint (*standardize)(const Standardization* job, int threads) noexcept nogil  # whether an x isn't finite
    # The same by the moments of a window of frames around each.
    void (*slide)(const Sliding* job, int threads) noexcept nogil
