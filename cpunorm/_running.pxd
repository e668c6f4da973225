cdef bint is_blendable(object running) noexcept
cdef void blend(object running, const double* batch, double momentum, double scale)
