# cython: language_level=3
"""What `include/cpunorm.h` imports: the Cython kernels for extensions of other people, whatever `set_engine` says."""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.string cimport memcpy, memset

from cpunorm._norm cimport KernelSet, Norm

from cpunorm import _engine

cdef extern from "cpunorm.h":
    int CPUNORM_ABI_VERSION
    cdef struct Table "cpunorm_Table":
        int version, oldest
        int (*forward)(const Norm* norm, size_t size, int threads) noexcept nogil

cdef KernelSet* kernels = <KernelSet*> PyCapsule_GetPointer(
    _engine.compiled_kernels().KERNEL_SET, "cpunorm.KernelSet")


cdef int forward(const Norm* norm, size_t size, int threads) noexcept nogil:
    """`norm` has `size` bytes: an extension that was compiled before the last fields were added knows less of them."""
    cdef Norm whole
    memset(&whole, 0, sizeof(whole))
    memcpy(&whole, norm, min(size, sizeof(whole)))
    return kernels.forward(&whole, threads)


cdef Table table = Table(CPUNORM_ABI_VERSION, 1, forward)
TABLE = PyCapsule_New(&table, "cpunorm._embedding.TABLE", NULL)
