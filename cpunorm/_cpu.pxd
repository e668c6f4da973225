cpdef int threads_for(Py_ssize_t size, int reads) noexcept
cdef void call_ends(Py_ssize_t size, int reads) noexcept
