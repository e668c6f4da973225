# From a Norm whose parameters are known to its result: views, threads, the kernel; or how that would go (`explain`).
# Included by _call.pyx.

class Explained(BaseException):
    """What a call would have done, instead of it."""


cdef extern from *:
    """
    #ifdef _MSC_VER
    #define THREAD_LOCAL __declspec(thread)
    #else
    #define THREAD_LOCAL _Thread_local
    #endif
    static THREAD_LOCAL int asked = 0;
    """
    int asked


def explain(call, tuple args, dict kwargs):
    """What the first kernel that call(*args, **kwargs) comes to would do, as a dict; it isn't run.

    Raises
    ------
    ValueError
        It comes to none.
    """
    global asked
    asked = True
    try:
        call(*args, **kwargs)
    except Explained as explained:
        return explained.args[0]
    finally:
        asked = False
    raise ValueError("no kernel runs in this call")


cdef int raise_explained(KernelSet* chosen, const Norm* n, Py_ssize_t size, int reads) except -1:
    cdef Plan plan
    threads, why = explained_threads(size * reads)
    told = {"lengths": (n.samples, n.outer, n.middle, n.channels, n.inner), "groups": n.groups, "threads": threads,
            "why": why, "given": n.statistic == GIVEN, "x": <size_t> n.x.data, "y": <size_t> n.y.data}
    if python_forward is None and chosen != NULL and chosen.explain != NULL:
        if chosen.explain(n, &plan):
            raise MemoryError("cpunorm: no memory for the scratch of a kernel")
        told |= {"way": ("rows", "columns", "lanes", "sum")[<int> plan.way], "packed": bool(plan.packed),
                 "far": bool(plan.far), "streamed": bool(plan.streamed)}
    raise Explained(told)


cdef inline int team_for(KernelSet* chosen, const Norm* n, Py_ssize_t size, int reads) except -1:
    """How many threads the kernel gets; where the call is only explained, that is as far as it comes."""
    if asked:
        raise_explained(chosen, n, size, reads)
    return threads_for(size, reads)


cdef inline int kernel(
    KernelSet* chosen, const Norm* n, Samples samples, object running_mean, object running_var, int threads
) except -2:
    """The engine's kernel, between writes of checkpoints; given statistics are read in the same moment."""
    cdef int failed
    enter()
    try:
        if running_mean is not None:
            read(running_mean, running_var, n.mean, n.var)
        with nogil:
            failed = forward_each(chosen, n, samples, threads)
    finally:
        leave()
    return failed


cdef int set_element(Norm* n, object x, const KernelSet* chosen, object forward) except -1:
    """The element of x, checked once more: another thread may have changed the engine since it was looked at."""
    cdef bint compiled = forward is None and chosen != &given_set
    n.element = element_of(x)
    if n.element < 0 or n.element > 1 and not compiled or n.activation == FUNCTION and chosen != &given_set:
        raise RuntimeError("cpunorm: another thread changed the engine as this call began, to one that can't go on")
    return 0


cdef object fill(object target, object source):
    """target = source, rounded to its type if that is another; they don't overlap."""
    cdef Copy c
    cdef KernelSet* chosen = kernels
    cdef int threads
    if (chosen == NULL or chosen.copy == NULL or type_of(target) != type_of(source) or size_of(source) == 0
            or not (is_plain(target) and is_plain(source))):
        with np.errstate(all="ignore"):  # beyond the range of half precision is infinite, as in torch
            np.copyto(target, source, casting="unsafe")
        return target
    c.x, c.y, c.size = <const char*> data_of(source), <char*> data_of(target), itemsize_of(source)
    c.count = see(c.axes, source, target, 0, ndim_of(source), -1, True)
    if c.count == 0:
        c.axes[0], c.count = Axis(1, 1, 1), 1
    threads = threads_for(size_of(source), 1)
    with nogil:
        chosen.copy(&c, threads)
    call_ends(size_of(source), 1)
    return target


cdef object dense(object x, str order):
    """A copy in C's order, in that of the axes of x (K), or in that but for samples, which are outermost (S)."""
    return fill(new_like(x) if order == "K" else _arguments.empty_samples_first(x) if order == "S"
                else _memory.made(np.empty, x.shape, x.dtype), x)


def deliver(y, out, dtype):
    """`out` (a new array in the order of y, if it is None) = y, rounded to `dtype`."""
    if out is None:
        out = _memory.empty_like(y, dtype)
    return fill(out, y)


cdef Py_ssize_t run_of(object x) noexcept:
    """How many bytes of x follow each other in memory, whatever the order of its axes."""
    cdef Py_ssize_t run = itemsize_of(x), before = 0
    cdef int axis
    while run != before:
        before = run
        for axis in range(ndim_of(x)):
            if length_of(x, axis) > 1 and stride_of(x, axis) == run:
                run *= length_of(x, axis)
    return run


cpdef bint is_better_dense(object x, bint given) noexcept:
    """Whether x, whose values follow each other in short runs, takes longer than a copy of it and the norm of that."""
    cdef KernelSet* chosen = kernels
    cdef Py_ssize_t run, most = GIVEN_RUN if given else CENTRED_RUN
    if size_of(x) < COPIED_SIZE or is_contiguous(x):
        return False
    if chosen != NULL and chosen.copy == NULL:
        most = NUMBA_RUN
    run = run_of(x)
    return run < bytes_of(x) and run <= most * itemsize_of(x)


cdef object run(
    Norm* n, View view, int axis, object x, object out, object dtype, object residual, Samples samples,
    object running_mean=None, object running_var=None
):
    """`out`, or a new array for None, = the norm of x; `dtype` is that of the result if it isn't that of x."""
    cdef int threads, reads, start = 0
    cdef KernelSet* chosen = kernels  # both of the same engine: another thread may change it meanwhile
    forward = python_forward
    cdef object given = x
    cdef object y = new_like(x) if out is None or dtype is not None or not is_plain(out) or (
        residual is not None and not is_laid_out_as(residual, out)) or (
        samples is not None and _arguments.is_read(out, x, residual)) else out
    cdef bint turned = False
    cdef Py_ssize_t size = size_of(x)
    if view == ROWS and n.mean != NULL and not is_contiguous(x):
        x = dense(x, "C")  # whose rows are in the order of the statistics
        if out is None:
            out = y if dtype is None else _memory.empty_like(given, dtype)
    if samples is not None:
        start = samples.walked
    # Rows are walked in logical order, so it may be that they must lie so; what lies across samples isn't walked.
    for order in ("S" if view == SAMPLES and is_across(x) else "KC"):
        if place(n, view, x, y, axis, start, order != "K"):
            if is_better_dense(x, n.statistic == GIVEN):
                x = dense(x, "K") if y is out or samples is not None else fill(y, x)
                place(n, view, x, y, axis, start, order != "K")
            break
        x, turned = dense(x, order), order != "K"
        y = x if residual is None else new_like(x)  # what is added lies as y does
    else:
        place(n, view, x, y, axis, start, True)
    if out is None and dtype is None:
        out = new_like(given) if turned else y
    n.x.data, n.y.data = data_of(x), data_of(y)
    set_element(n, x, chosen, forward)
    if residual is not None:
        if not is_laid_out_as(residual, y):
            residual = fill(new_like(y), residual)
        n.residual = data_of(residual)
    reads = 1 if n.statistic == GIVEN else 2
    if n.activation > RELU:
        reads += EXPENSIVE
    if samples is not None:
        size //= samples.count
        for axis in range(start):
            samples.x[axis], samples.y[axis] = stride_of(x, axis), stride_of(y, axis)
    threads = team_for(chosen, n, size, reads)
    if forward is not None and samples is not None:
        each_in_python(forward, n, samples, x, y, residual, running_mean, running_var)
    elif forward is not None:
        forward_in_python(forward, n, x, y, residual, running_mean, running_var)
    elif kernel(chosen, n, samples, running_mean, running_var, threads) and not (
            release() and kernel(chosen, n, samples, running_mean, running_var, threads) == 0):
        raise MemoryError("cpunorm: no memory for the scratch of a kernel")
    call_ends(size, reads)
    return y if out is y else deliver(y, out, dtype)


cdef object seen(const void* data, const Operand* a, const Norm* n, object base):
    """What lies at `data`, in the memory of `base`, as an ndarray (samples, outer, middle, channels, inner)."""
    cdef Py_ssize_t size = itemsize_of(base)
    strides = (a.sample * size, a.outer * size, a.middle * size, a.channel * size, a.inner * size)
    return _memory.strided(base, <const char*> data - <const char*> data_of(base),
                           (n.samples, n.outer, n.middle, n.channels, n.inner), strides)


cdef object room_for(const void* data, Py_ssize_t count, object dtype):
    """Room for a copy of a vector, None for NULL."""
    return None if data == NULL else np.empty(count, dtype)


cdef int forward_in_python(
    object forward, const Norm* n, object x, object y, object residual, object running_mean, object running_var
) except -1:
    """An engine in Python; it may be interrupted anywhere, so it gets copies, of one moment."""
    cdef Py_ssize_t weights = n.outer * n.middle * n.inner if n.along else n.channels
    cdef Py_ssize_t moments = n.channels if n.statistic == GIVEN else n.samples * n.groups
    weight, bias = room_for(n.weight, weights, x.dtype), room_for(n.bias, weights, x.dtype)
    mean, var = room_for(n.mean, moments, np.float64), room_for(n.var, moments, np.float64)
    enter()
    if n.weight != NULL:
        memcpy(data_of(weight), n.weight, bytes_of(weight))
    if n.bias != NULL:
        memcpy(data_of(bias), n.bias, bytes_of(bias))
    try:
        if running_mean is not None:
            read(running_mean, running_var, <double*> data_of(mean), <double*> data_of(var))
        elif n.statistic == GIVEN:
            memcpy(data_of(mean), n.mean, bytes_of(mean))
            memcpy(data_of(var), n.var, bytes_of(var))
    finally:
        leave()
    activation = _arguments.ACTIVATIONS[n.activation - 1] if n.activation else None
    forward(seen(n.x.data, &n.x, n, x), None if n.y.data == NULL else seen(n.y.data, &n.y, n, y), n.groups, n.along,
            n.statistic == GIVEN, n.statistic == ABOUT_ZERO, mean, var, weight, bias, n.eps,
            None if residual is None else seen(n.residual, &n.y, n, residual), activation)
    if n.mean != NULL:
        memcpy(n.mean, data_of(mean), bytes_of(mean))
        memcpy(n.var, data_of(var), bytes_of(var))
    return 0


cdef int each_in_python(
    object forward, const Norm* n, Samples samples, object x, object y, object residual, object running_mean,
    object running_var
) except -1:
    """The same of each sample."""
    cdef Norm one
    cdef Py_ssize_t i
    for i in range(samples.count):
        one = sample_of(n, samples, i)
        forward_in_python(forward, &one, x, y, residual, running_mean, running_var)
    return 0
