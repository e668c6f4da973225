# y = (x - mean) * scale + shift over arrays of any strides and types, line by line, in doubles.
# Included by _kernels.pyx.

cdef extern from "kernels/standardize.h":
    void set_flag(bint* flag) noexcept nogil
    void clip_line(double* y, Py_ssize_t n, double least, double most) noexcept nogil
    void narrow_line(const double* x, Py_ssize_t n, int result, char* y) noexcept nogil
    enum: WINDOW_FIELDS
    void slide_line(const double* x, Py_ssize_t n, double sign, double* sums, Py_ssize_t pitch) noexcept nogil
    bint slide_is_worn(const double* sums, Py_ssize_t pitch, Py_ssize_t n) noexcept nogil
    void slide_apply(
        double* y, Py_ssize_t n, double count, bint scaled, const double* sums, Py_ssize_t pitch) noexcept nogil

cdef enum:
    LINE = 512  # values that are in L1 as doubles
    LINES = 128  # walked forwards, for memory likes long stretches
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


cdef inline void scatter_line(char* y, Py_ssize_t stride, const char* source, Py_ssize_t n, int size) noexcept nogil:
    """n values of `size` bytes, `stride` bytes apart, from one after the other."""
    cdef Py_ssize_t i
    if stride == size:
        memcpy(y, source, n * size)
        return
    for i in range(n):
        memcpy(y + i * stride, source + i * size, size)


cdef inline void write_line(char* y, Py_ssize_t stride, double* source, Py_ssize_t n, int result) noexcept nogil:
    """The same of doubles, rounded."""
    cdef char packed[8 * LINE]
    narrow_line(source, n, result, packed)
    scatter_line(y, stride, packed, n, RESULT_SIZE[result])


cdef struct Coefficients:
    # Of the values of a line, each its own.
    Py_ssize_t slice, laid  # of the first value, -1 before there is one; how many there are
    double mean[LINE]
    double scale[LINE]
    double shift[LINE]


cdef void lay_out(
    const Standardization* job, Py_ssize_t slice_, Py_ssize_t rows, Py_ssize_t outer, Py_ssize_t columns,
    Py_ssize_t inner, Coefficients* c
) noexcept nogil:
    """The coefficients of rows of columns from a slice on, whose slices lie `outer` and `inner` apart."""
    cdef Py_ssize_t row, at, to = 0
    cdef double mean, scale, shift
    for row in range(rows):
        at = slice_ + row * outer
        if row and outer == 0:  # those of the row before
            memcpy(c.mean + to, c.mean, columns * sizeof(double))
            memcpy(c.scale + to, c.scale, columns * sizeof(double))
            memcpy(c.shift + to, c.shift, columns * sizeof(double))
            to += columns
        elif inner == 0:
            mean, scale, shift = job.mean[at], job.scale[at], job.shift[at]
            for to in range(to, to + columns):
                c.mean[to], c.scale[to], c.shift[to] = mean, scale, shift
            to += 1
        else:
            for to in range(to, to + columns):
                c.mean[to], c.scale[to], c.shift[to] = job.mean[at], job.scale[at], job.shift[at]
                at += inner
            to += 1


cdef inline bint apply_line(
    const Standardization* job, const Summation* kind, const char* x, Py_ssize_t n, const double* mean,
    const double* scale, const double* shift, bint step, char* y
) noexcept nogil:
    """n values one after the other.  Whether one isn't finite."""
    cdef double line[LINE]
    cdef bint odd
    cdef bint clipped = job.least > -INFINITY or job.most < INFINITY
    if job.result <= F64 and not clipped:
        return kind.apply(x, n, mean, scale, shift, step, job.result == F32, job.streamed, y)
    odd = kind.apply(x, n, mean, scale, shift, step, False, False, line)
    if clipped:
        clip_line(line, n, job.least, job.most)
    narrow_line(line, n, job.result, y)
    return odd


cdef bint standardize_lines(const Standardization* job, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """Lines: several rows along the innermost axis each, if they are short, or a piece of one.

    Whether a value isn't finite.
    """
    cdef const Summation* kind = summation_of[job.element]
    cdef const Step* inner = &job.steps[job.axes - 1]
    cdef Step outer = job.steps[job.axes - 2] if job.axes > 1 else Step(1, 0, 0, 0)
    cdef int size = kind.size, y_size = RESULT_SIZE[job.result]
    cdef char packed[8 * LINE]
    cdef char result[8 * LINE]
    cdef Coefficients c
    cdef const double* mean
    cdef const double* scale
    cdef const double* shift
    cdef Py_ssize_t many = inner.length, rows = 1, row = 0, k = 0, index = -1, unit, slice_, n, i
    cdef bint x_dense, y_dense, odd = False
    cdef const char* x
    cdef char* y
    cdef Step at
    c.slice = -1
    for unit in range(start, stop):
        if unit // job.lines != index:
            index = unit // job.lines
            at = step_to(job.steps, job.axes - (2 if job.rows > 1 else 1), index)
        if job.rows > 1:
            row = unit % job.lines * job.rows
            rows = min(job.rows, outer.length - row)
        else:
            k = unit % job.lines * LINE
            many = min(<Py_ssize_t> LINE, inner.length - k)
        n = rows * many
        slice_ = at.slice + row * outer.slice + k * inner.slice
        x, y = job.x + at.x + row * outer.x + k * inner.x, job.y + at.y + row * outer.y + k * inner.y
        mean, scale, shift = job.mean + slice_, job.scale + slice_, job.shift + slice_
        if rows > 1 or inner.slice > 1:
            if slice_ != c.slice or n > c.laid:
                lay_out(job, slice_, rows, outer.slice, many, inner.slice, &c)
                c.slice, c.laid = slice_, n
            mean, scale, shift = c.mean, c.scale, c.shift
        x_dense = (inner.x == size or many == 1) and (rows == 1 or outer.x == many * size)
        y_dense = (inner.y == y_size or many == 1) and (rows == 1 or outer.y == many * y_size)
        if not x_dense:
            for i in range(rows):
                gather_line(packed + i * many * size, x + i * outer.x, inner.x, many, size)
            x = packed
        odd |= apply_line(
            job, kind, x, n, mean, scale, shift, rows > 1 or inner.slice != 0, y if y_dense else result)
        if not y_dense:
            for i in range(rows):
                scatter_line(y + i * outer.y, inner.y, result + i * many * y_size, many, y_size)
    return odd


cdef void work_standardize(void* context, int thread, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The lines start..stop, the last ones first: those are in cache of what moments were taken of."""
    cdef Standardization* job = <Standardization*> context
    cdef bint odd = False
    while start < stop:
        odd |= standardize_lines(job, max(start, stop - LINES), stop)
        stop -= LINES
    if odd:
        set_flag(&job.odd)
    if job.streamed:
        end_stream()


cdef bint standardize(const Standardization* given, int threads) noexcept nogil:
    """Whether an x isn't finite."""
    cdef Standardization job = given[0]
    cdef const Step* inner
    cdef Py_ssize_t size = 1, whole
    cdef int i
    job.axes = sort_steps(job.steps, job.axes)
    inner = &job.steps[job.axes - 1]
    for i in range(job.axes):
        size *= job.steps[i].length
    job.streamed = job.x != job.y and streaming_pays(
        size * (summation_of[job.element].size + RESULT_SIZE[job.result]), threads, False)
    job.odd, job.rows, job.lines = False, 1, ceil_div(inner.length, LINE)
    if job.axes > 1 and inner.length <= (LINE // 2 if inner.slice else LINE // 8 - 1):
        job.rows = LINE // inner.length
        whole = PAIR // min(<Py_ssize_t> PAIR, inner.length & -inner.length)  # so many rows fill vectors
        if job.rows > whole:
            job.rows -= job.rows % whole
        job.lines = ceil_div(job.steps[job.axes - 2].length, job.rows)
    share(work_standardize, &job, size // (inner.length * (job.steps[job.axes - 2].length if job.rows > 1 else 1))
          * job.lines, threads)
    return job.odd


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
