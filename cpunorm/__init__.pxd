"""cpunorm from Cython: `cimport cpunorm`, then `cpunorm.import_cpunorm()` where the module starts.

What a Norm says, and what `forward` promises, is told by `include/cpunorm.h`; compile with `cpunorm.get_include()`.
"""

from cpunorm._norm cimport (
    ABOUT_ZERO, BFLOAT16, CENTRED, FLOAT16, FLOAT32, FLOAT64, GELU, GELU_TANH, GIVEN, HARDSIGMOID, HARDSWISH,
    LEAKY_RELU, NO_ACTIVATION, Norm, Operand, RELU, RELU6, SIGMOID, SILU, TANH)

cdef extern from "cpunorm.h":
    int import_cpunorm "cpunorm_import"() except -1
    int forward "cpunorm_forward"(const Norm* norm, int threads) noexcept nogil
