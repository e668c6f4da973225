cpdef int threads_for(Py_ssize_t size, int reads) noexcept
