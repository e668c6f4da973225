"""A norm as a value: what every engine is given, and the kernel set that takes it.

Every norm is one sentence: moments of domains, then y = (x - mean) / sqrt(var + eps) * weight + bias.  A domain is what
shares its moments: one sample's `channels // groups` neighbouring channels at all positions (outer, middle, inner).

    norm        samples  channels  groups    positions    parameters follow
    batch_norm  1        C         channels  N, spatial   channels
    group_norm  N        C         G         spatial      channels
    layer_norm  leading  leading   channels  normalized   positions (`along`)
    rms_norm    leading  leading   channels  normalized   positions; the mean is 0 (`ABOUT_ZERO`)
    instance_norm  N     C         channels  spatial      channels

A new option is a field whose zero means "as before".  An engine checks nothing and knows no error message.
"""

from cpunorm._reduction cimport Reduction, Sliding, Standardization

cdef enum Statistic:
    CENTRED  # mean and variance of each domain
    GIVEN  # `mean` and `var` of each channel
    ABOUT_ZERO  # mean squares of each domain, whose mean is taken to be 0

cdef enum Activation:  # the order of kernels/lines.h
    NO_ACTIVATION, RELU, RELU6, LEAKY_RELU, SILU, GELU, GELU_TANH, HARDSWISH, HARDSIGMOID, SIGMOID, TANH
    FUNCTION  # `function`, in kernel sets that take one

cdef struct Operand:
    # An array seen along the five axes: strides in elements.
    void* data
    Py_ssize_t sample, outer, middle, channel, inner

cdef struct Norm:
    Py_ssize_t samples, outer, middle, channels, inner  # lengths, all at least 1
    Operand x, y  # y may be x, or without data: moments alone
    int element  # of x, y, residual, addend, total. 0: float32, 1: float64; computed in float32, 2: float16, 3: bfloat16
    int statistic
    Py_ssize_t groups  # domains of a sample; divides channels
    bint along  # weight and bias follow the positions, not the channels
    const void* weight  # contiguous, channels or positions of them; or NULL: 1
    const void* bias  # or NULL: 0
    int parameter_element  # of weight and bias: x's, or what it is computed in
    const void* residual  # laid out as y, added after weight and bias; it may be y; or NULL: 0
    int activation  # of what is then y
    void (*function)(void* values, Py_ssize_t n) noexcept nogil  # of FUNCTION, in place
    # The norm of x + addend, if not NULL, unrounded; rounded, it is also written to total. x, addend, total (which may be
    # either) and y are contiguous then, samples, outer and middle 1.
    const void* addend
    void* total
    double* mean  # of each (sample, group), or of each channel if GIVEN; written, unless GIVEN, or NULL
    double* var  # biased
    double eps

cdef struct KernelSet:
    # y from x.  Returns 0, or -1 when there was no memory for its scratch; the bits of y depend neither on `threads`
    # nor on strides, only on the lengths, the order of the axes in memory, and the values.
    int (*forward)(const Norm* norm, int threads) noexcept nogil
    # The moments of slices.  Returns 0, or -1 without memory; the bits do not depend on `threads`.
    int (*moments)(const Reduction* reduction, int threads) noexcept nogil
    # y = (x - mean) * scale, clipped.
    void (*standardize)(const Standardization* job, int threads) noexcept nogil
    # The same by the moments of a window of frames around each.
    void (*slide)(const Sliding* job, int threads) noexcept nogil
