cdef void read(object running, double* values)
cdef void blend(object running, const double* batch, double momentum, double scale)
