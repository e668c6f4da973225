from cpunorm._gil cimport add, value_of


cdef struct Gate:
    Py_ssize_t calls  # kernels that read parameters now, without the GIL
    Py_ssize_t writers  # threads that wait for those calls to end, before they write parameters

cdef Gate gate
cdef int bfloat16  # NumPy's number of ml_dtypes' type, once an array of it has come by a call

cdef void wait_for_writers() noexcept
cdef bint is_counter(object counter) noexcept
cdef void count_up(object counter) noexcept
cdef int read(object running_mean, object running_var, double* mean, double* var) except -1
cdef int update(
    object running_mean, object running_var, object counter, const double* mean, const double* var, object momentum,
    Py_ssize_t count) except -1


cdef inline void enter() noexcept:
    """Begin a call: until it leaves, no checkpoint is written into what it reads.

    From here to `leave` no Python code may run in this thread, and statistics are read after this, not before.
    """
    add(&gate.calls, 1)
    if value_of(&gate.writers):
        wait_for_writers()


cdef inline void leave() noexcept:
    add(&gate.calls, -1)
