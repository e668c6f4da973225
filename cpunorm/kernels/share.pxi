# What is shared by threads, and how.
# Included by _kernels.pyx.

cdef inline Py_ssize_t on_lines(Py_ssize_t bytes) noexcept nogil:
    """So many bytes, and on to the end of a line of the cache."""
    return ceil_div(bytes, STEP_BYTES) * STEP_BYTES


cdef inline char* on_line(void* room) noexcept nogil:
    """Where the first line of the cache in a room begins, which is `STEP_BYTES` larger for it."""
    return <char*> on_lines(<Py_ssize_t> room)


cdef inline Py_ssize_t apart(Py_ssize_t bytes) noexcept nogil:
    """From the room of one thread to that of the next, in no page of it: hardware fetches a page to its end."""
    return on_lines(bytes) + PAGE


ctypedef void (*work_function)(void* context, int thread, Py_ssize_t start, Py_ssize_t stop) noexcept nogil


cdef void share(work_function work, void* context, Py_ssize_t units, int threads) noexcept nogil:
    """work(context, thread, start, stop) over 0..units, shared evenly by up to `threads` threads."""
    cdef int thread = 0, size = 1
    cdef Team team
    if threads == 1 or units == 1:
        work(context, 0, 0, units)
    else:
        start_team(&team)
        with parallel(num_threads=threads):
            thread, size = join_team(&team), team_size()
            work(context, thread, units * thread // size, units * (thread + 1) // size)
            leave_team(&team)
