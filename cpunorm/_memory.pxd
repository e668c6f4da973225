cdef object new_like(object prototype)
cdef bint release() noexcept
