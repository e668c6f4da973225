# The norm of a sum of two arrays, and that sum.
# Included by _call.pyx.

cpdef object add_layer_norm(input, residual, normalized_shape, weight, bias, eps, activation, out, sum_out):
    """`functional.add_layer_norm`."""
    if (is_foreign(input) or is_foreign(residual) or is_foreign(weight)
            or is_foreign(bias) or is_foreign(out) or is_foreign(sum_out)):
        return with_ndarrays(
            add_layer_norm, "add_layer_norm",
            {"input": input, "residual": residual, "weight": weight,
             "bias": bias, "out": out, "sum_out": sum_out},
            normalized_shape=normalized_shape, eps=eps, activation=activation)
    cdef Norm n = unset
    n.statistic = CENTRED
    return sum_norm_of_rows("add_layer_norm", &n, input, residual, normalized_shape, weight, bias, eps, False,
                            activation, out, sum_out)


cpdef object add_rms_norm(input, residual, normalized_shape, weight, eps, unit_offset, activation, out, sum_out):
    """`functional.add_rms_norm`."""
    if is_foreign(input) or is_foreign(residual) or is_foreign(weight) or is_foreign(out) or is_foreign(sum_out):
        return with_ndarrays(
            add_rms_norm, "add_rms_norm",
            {"input": input, "residual": residual, "weight": weight,
             "out": out, "sum_out": sum_out},
            normalized_shape=normalized_shape, eps=eps, unit_offset=unit_offset, activation=activation)
    cdef Norm n = unset
    n.statistic = ABOUT_ZERO
    return sum_norm_of_rows("add_rms_norm", &n, input, residual, normalized_shape, weight, None, eps, unit_offset,
                            activation, out, sum_out)


cdef inline bint is_plain_row_major(object array, object x) noexcept:
    """Whether it is laid out as x, in one block of C's order."""
    return is_plain(array) and is_contiguous(array) and type_of(array) == type_of(x)


cdef enum:
    LONG_LINE = 64  # values of a row from which on a call for each of them is cheaper than a copy of all


cdef bint are_lines(object x, int leading) noexcept:
    """Whether the rows of x, along the axes from `leading` on, are each one long line, and in C's order."""
    cdef Py_ssize_t step = itemsize_of(x), length = 1
    cdef int axis
    for axis in range(leading, ndim_of(x)):
        length *= length_of(x, axis)
    if length < LONG_LINE:
        return False
    for axis in range(ndim_of(x) - 1, -1, -1):
        if length_of(x, axis) > 1:
            if stride_of(x, axis) < step or axis >= leading and stride_of(x, axis) != step:
                return False
            step = stride_of(x, axis) * length_of(x, axis)
    return True


cdef bint lie_across(object x, object addend) noexcept:
    """Whether the axes of both are in the same order in memory, which is not C's."""
    cdef bint across = False
    cdef int i, j
    for i in range(ndim_of(x)):
        for j in range(i):
            if length_of(x, i) > 1 and length_of(x, j) > 1:
                if stride_of(x, j) == stride_of(x, i) or stride_of(addend, j) == stride_of(addend, i):
                    return False
                if is_inside(x, j, i) != is_inside(addend, j, i):
                    return False
                across |= is_inside(x, j, i)
    return across


cdef bint is_one_block(object x) noexcept:
    """Whether the values of x follow each other in memory, whatever the order of its axes."""
    cdef Py_ssize_t step = itemsize_of(x)
    cdef int axis = 0
    while axis < ndim_of(x):
        if length_of(x, axis) > 1 and stride_of(x, axis) == step:
            step *= length_of(x, axis)
            axis = 0
        else:
            axis += 1
    return step == bytes_of(x)


cdef inline bint is_inside(object x, int axis, int other) noexcept:
    """Whether an axis lies inside another in memory."""
    return labs(stride_of(x, axis)) < labs(stride_of(x, other))


cdef inline bint is_plain_target(
    object target, object other, object x, object residual, object weight, object bias
) noexcept:
    """Whether a result of a norm of a sum is laid out as x, and apart from all else but for what it may stand for."""
    return target is None or (
        is_plain_out(target, x) and (target is residual or separate(target, residual)) and separate(target, weight)
        and separate(target, bias) and separate(target, other))


cdef tuple sum_norm_of_rows(
    str function, Norm* n, object input, object residual, object normalized_shape, object weight, object bias,
    object eps, object unit_offset, object activation, object out, object sum_out
):
    cdef object x = input, addend = residual, w = weight, b = bias, y = out, total = sum_out
    cdef KernelSet* chosen = kernels
    cdef int ndim, threads, reads
    cdef bint by_kernel = False
    forward = python_forward
    if not is_plain(input):
        x = as_input(function, input, None)[0]
    ndim = trailing(function, x, normalized_shape)
    n.eps = eps_of_rows(function, n, eps, x)
    cdef bint usual = fits(weight, x, ndim) and fits(bias, x, ndim) and alike(weight, bias) and x is input
    if not usual:
        w, b = _arguments.as_parameters(function, x, input.dtype, x.shape[x.ndim - ndim:], weight=weight, bias=bias)
    if unit_offset is not False:
        w = _arguments.offset_weight(function, w, unit_offset)
    if not (usual and is_plain_out(residual, x) and is_plain_target(sum_out, None, x, residual, weight, bias)
            and is_plain_target(out, sum_out, x, residual, weight, bias)):
        _arguments.check_sum(function, input, residual, out, sum_out, weight, bias)
    finish_of(function, n, input, x, None, activation, None)
    if size_of(x) == 0:
        return _arguments.empty(input, input.dtype, out), _arguments.empty(input, input.dtype, sum_out)
    # Rows follow each other in all four arrays, but for x, in which they may lie apart; or all lie alike, in one block.
    if not is_contiguous(x) and not (forward is None and chosen != &given_set and are_lines(x, ndim_of(x) - ndim)
                                     and place(n, ROWS, x, x, ndim_of(x) - ndim, 0, True)):
        if itemsize_of(x) < 4 or itemsize_of(x) != itemsize_of(input) or not lie_across(x, residual):
            x = dense(x, "C")
        else:  # the sum as both lie: to copy both takes longer
            total = new_like(x) if sum_out is None or not is_laid_out_as(sum_out, x) else sum_out
            by_kernel = (forward is None and chosen != &given_set and is_one_block(x) and is_laid_out_as(residual, x)
                         and is_laid_out_as(total, x) and place(n, ROWS, x, x, ndim_of(x) - ndim, 0, True))
            if not by_kernel:  # and then its norm
                if out is None or not is_plain(out):
                    y = None if sum_out is None else new_like(x)  # before the sum is written
                if not asked:
                    with np.errstate(all="ignore"):
                        np.add(x, residual, out=total)
                y = norm_of_rows(function, n, total, normalized_shape, weight, bias, eps, unit_offset, y, activation,
                                 None, None, None, False)
                return delivered(y, out, total, sum_out, input.dtype)
    if by_kernel:
        y = new_like(x) if out is None or not is_laid_out_as(out, x) else out
    else:
        if not is_plain_row_major(addend, x):
            addend = fill(_memory.made(np.empty, x.shape, x.dtype), addend)
        if out is None or not is_plain_row_major(out, x):
            y = new_like(x)
        if sum_out is None or not is_plain_row_major(sum_out, x):
            total = new_like(x)
    place(n, ROWS, x, y, ndim_of(x) - ndim, 0, True)
    n.along = True
    n.weight, n.bias, n.parameter_element = data(w), data(b), parameter_element(w, b)
    n.x.data, n.y.data, n.addend, n.total = data_of(x), data_of(y), data_of(addend), data_of(total)
    set_element(n, x, chosen, forward)
    reads = 3 + (EXPENSIVE if n.activation > RELU else 0)
    threads = team_for(chosen, n, size_of(x), reads)
    if forward is not None:
        with np.errstate(all="ignore"):
            np.add(x, addend, out=total)
        n.x.data, n.addend = data_of(total), NULL
        forward_in_python(forward, n, total, y, None, None, None)
    elif kernel(chosen, n, None, None, None, threads) and not (
            release() and kernel(chosen, n, None, None, None, threads) == 0):
        raise MemoryError("cpunorm: no memory for the scratch of a kernel")
    call_ends(size_of(x), reads)
    return delivered(y, out, total, sum_out, input.dtype)


cdef tuple delivered(object y, object out, object total, object sum_out, object dtype):
    """y and total, in `out` and `sum_out` if those are given, of the type that they are to be."""
    if y is not out and (out is not None or y.dtype != dtype):
        y = deliver(y, out, dtype)
    if total is not sum_out and (sum_out is not None or total.dtype != dtype):
        total = deliver(total, sum_out, dtype)
    return y, total
