cdef object new_like(object prototype)
