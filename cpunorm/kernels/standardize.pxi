# y = (x - mean) * scale over arrays of any strides and types, line by line through doubles in L1.
# Included by _kernels.pyx.

cdef extern from "kernels/standardize.h":
    void standardize_line(
        double* y, Py_ssize_t n, const double* mean, const double* low, const double* scale, int step, double least,
        double most) noexcept nogil
    void narrow_line(const double* x, Py_ssize_t n, int result, char* y) noexcept nogil
    enum: WINDOW_FIELDS
    void slide_line(const double* x, Py_ssize_t n, double sign, double* sums, Py_ssize_t pitch) noexcept nogil
    bint slide_is_worn(const double* sums, Py_ssize_t pitch, Py_ssize_t n) noexcept nogil
    void slide_apply(
        double* y, Py_ssize_t n, double count, bint scaled, const double* sums, Py_ssize_t pitch) noexcept nogil

cdef enum:
    LINE = 512  # values that are in L1 as doubles
    SLIDING_COLUMNS = 128  # slices that slide together

cdef int[4] RESULT_SIZE = [4, 8, 2, 2]


cdef inline int sort_steps(Step* steps, int count) noexcept nogil:
    """Outermost in y first; those that lie evenly are merged.  How many are left, at least one."""
    cdef int i, at, left = 0
    cdef Step one
    for i in range(count):
        one = steps[i]
        if one.length == 1:
            continue
        at = left
        while at > 0 and labs(steps[at - 1].y) < labs(one.y):
            steps[at] = steps[at - 1]
            at -= 1
        steps[at] = one
        left += 1
    count, left = left, 0
    for i in range(count):
        one = steps[i]
        if left and steps[left - 1].x == one.length * one.x and steps[left - 1].y == one.length * one.y and (
                steps[left - 1].slice == one.length * one.slice):
            steps[left - 1] = Step(steps[left - 1].length * one.length, one.x, one.y, one.slice)
        else:
            steps[left] = one
            left += 1
    if left == 0:
        steps[0] = Step(1, 0, 0, 0)
        left = 1
    return left


cdef inline Step step_to(const Step* steps, int count, Py_ssize_t index) noexcept nogil:
    """The offsets of an index that counts all of the axes, the last one fastest."""
    cdef Step at = Step(0, 0, 0, 0)
    cdef Py_ssize_t i
    cdef int axis
    for axis in range(count - 1, -1, -1):
        if index == 0:
            break
        i, index = index % steps[axis].length, index // steps[axis].length
        at.x += i * steps[axis].x
        at.y += i * steps[axis].y
        at.slice += i * steps[axis].slice
    return at


cdef inline void read_line(
    double* target, const char* x, Py_ssize_t stride, Py_ssize_t n, const Summation* kind
) noexcept nogil:
    """Up to LINE values of any type, `stride` bytes apart, as doubles."""
    cdef char packed[8 * LINE]
    if stride != kind.size and n > 1:
        gather_line(packed, x, stride, n, kind.size)
        x = packed
    kind.widen(x, n, target)


cdef inline void write_line(char* y, Py_ssize_t stride, double* source, Py_ssize_t n, int result) noexcept nogil:
    """The same of doubles, rounded."""
    cdef char packed[8 * LINE]
    cdef Py_ssize_t i
    cdef int size = RESULT_SIZE[result]
    if stride == size or n == 1:
        narrow_line(source, n, result, y)
        return
    narrow_line(source, n, result, packed)
    for i in range(n):
        memcpy(y + i * stride, packed + i * size, size)


cdef void work_standardize(void* context, int thread, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The values start..stop."""
    cdef const Standardization* job = <const Standardization*> context
    cdef const Summation* kind = summation_of[job.element]
    cdef const Step* inner = &job.steps[job.axes - 1]
    cdef double line[LINE + 16]
    cdef double coefficients[3 * LINE]
    cdef const double* mean
    cdef const double* low
    cdef const double* scale
    cdef Py_ssize_t k, many, i, slice_
    cdef Step at
    while start < stop:
        k = start % inner.length
        at = step_to(job.steps, job.axes - 1, start // inner.length)
        while k < inner.length and start < stop:
            many = min(inner.length - k, stop - start, <Py_ssize_t> LINE)
            slice_ = at.slice + k * inner.slice
            mean, low, scale = job.mean + slice_, job.mean_low + slice_, job.scale + slice_
            if inner.slice > 1:
                for i in range(many):
                    coefficients[i], coefficients[LINE + i] = mean[i * inner.slice], low[i * inner.slice]
                    coefficients[2 * LINE + i] = scale[i * inner.slice]
                mean, low, scale = coefficients, coefficients + LINE, coefficients + 2 * LINE
            read_line(line, job.x + at.x + k * inner.x, inner.x, many, kind)
            standardize_line(line, many, mean, low, scale, inner.slice != 0, job.least, job.most)
            write_line(job.y + at.y + k * inner.y, inner.y, line, many, job.result)
            k += many
            start += many


cdef void standardize(const Standardization* given, int threads) noexcept nogil:
    cdef Standardization job = given[0]
    cdef Py_ssize_t size = 1
    cdef int i
    job.axes = sort_steps(job.steps, job.axes)
    for i in range(job.axes):
        size *= job.steps[i].length
    share(work_standardize, &job, size, threads)


# Windows that slide

cdef inline void window_of(const Sliding* job, Py_ssize_t t, Py_ssize_t* first, Py_ssize_t* last) noexcept nogil:
    """The frames first..last whose moments frame t gets: those of Kaldi's sliding CMVN."""
    cdef Py_ssize_t length = job.along.length, beyond
    first[0] = t - (job.window // 2 if job.centred else job.window)
    last[0] = first[0] + job.window if job.centred else t + 1
    if first[0] < 0:
        last[0] -= first[0]
        first[0] = 0
    if not job.centred:
        last[0] = max(t + 1, job.least_window)
    beyond = last[0] - length
    if beyond > 0:
        first[0], last[0] = max(<Py_ssize_t> 0, first[0] - beyond), length


cdef void work_slide(void* context, int thread, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The units start..stop: up to SLIDING_COLUMNS neighbouring slices each."""
    cdef const Sliding* job = <const Sliding*> context
    cdef const Summation* kind = summation_of[job.element]
    cdef const Step* inner = &job.steps[job.axes - 1]
    cdef double sums[WINDOW_FIELDS * SLIDING_COLUMNS]
    cdef double line[SLIDING_COLUMNS + 16]
    cdef Py_ssize_t unit, k, many, t, first, last, from_, to, units = ceil_div(inner.length, SLIDING_COLUMNS)
    cdef const char* x
    cdef char* y
    cdef Step at
    for unit in range(start, stop):
        at = step_to(job.steps, job.axes - 1, unit // units)
        k = unit % units * SLIDING_COLUMNS
        many = min(inner.length - k, <Py_ssize_t> SLIDING_COLUMNS)
        x, y = job.x + at.x + k * inner.x, job.y + at.y + k * inner.y
        memset(sums, 0, sizeof(sums))
        first = last = 0
        for t in range(job.along.length):
            window_of(job, t, &from_, &to)
            for last in range(last, to):
                read_line(line, x + last * job.along.x, inner.x, many, kind)
                slide_line(line, many, 1, sums, SLIDING_COLUMNS)
            last = to
            for first in range(first, from_):
                read_line(line, x + first * job.along.x, inner.x, many, kind)
                slide_line(line, many, -1, sums, SLIDING_COLUMNS)
            if first < from_ and slide_is_worn(sums, SLIDING_COLUMNS, many):
                memset(sums, 0, sizeof(sums))
                for first in range(from_, to):
                    read_line(line, x + first * job.along.x, inner.x, many, kind)
                    slide_line(line, many, 1, sums, SLIDING_COLUMNS)
            first = from_
            read_line(line, x + t * job.along.x, inner.x, many, kind)
            slide_apply(line, many, to - from_, job.scaled, sums, SLIDING_COLUMNS)
            write_line(y + t * job.along.y, inner.y, line, many, job.result)


cdef void slide(const Sliding* given, int threads) noexcept nogil:
    cdef Sliding job = given[0]
    cdef Py_ssize_t units = 1
    cdef int i
    job.axes = sort_steps(job.steps, job.axes)
    for i in range(job.axes):
        units *= ceil_div(job.steps[i].length, SLIDING_COLUMNS) if i == job.axes - 1 else job.steps[i].length
    share(work_slide, &job, units, threads)
