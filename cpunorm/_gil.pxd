cdef extern from "gil.h":
    ctypedef struct Lock:  # all zeros at first: nobody holds it
        pass
    void lock(Lock* it) noexcept
    void unlock(Lock* it) noexcept
    void forget(Lock* it) noexcept
    void add(Py_ssize_t* number, Py_ssize_t more) noexcept
    Py_ssize_t value_of(Py_ssize_t* number) noexcept
    int at_fork_in_child(void (*function)() noexcept) noexcept
