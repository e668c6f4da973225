cimport numpy as cnp


cdef object new_like(object prototype)
cdef object new_array(int ndim, cnp.npy_intp* lengths, cnp.dtype dtype)
cdef bint release() noexcept
