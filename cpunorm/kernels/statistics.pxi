# Moments of slices of an array of any strides.  Included by _kernels.pyx; what is summed how is said in statistics.h.
#
# Vectors run along a slice whose values follow each other (rows), or across slices (columns).  What lies as neither is
# packed into L1 first, and so are slices of few values, transposed.  Where values are left out, those that stay are
# packed into rows.

cdef extern from "kernels/statistics.h":
    enum: COUNT, MEAN, MEAN_LOW, M2, SHIFT, SHIFT_LOW, LEAST, MOST, SUM_FIELDS, DOUBLES, PAIR, TALL_BLOCK
    ctypedef struct Summation:
        int size, careful
        void (*row)(
            const void* x, Py_ssize_t n, Py_ssize_t runs, Py_ssize_t stride, bint careful, double* sums,
            Py_ssize_t pitch) noexcept nogil
        void (*columns)(
            const void* x, Py_ssize_t x_pitch, int lines, Py_ssize_t columns, Py_ssize_t ahead, bint careful,
            double* sums, Py_ssize_t pitch) noexcept nogil
        void (*widen)(const void* x, Py_ssize_t n, double* y) noexcept nogil
        bint (*apply)(
            const void* x, Py_ssize_t n, const double* mean, const double* scale, const double* shift, bint step,
            bint single, bint streamed, void* y) noexcept nogil
    const Summation** summation_of
    Py_ssize_t choose_values(
        char* target, const char* x, Py_ssize_t stride, const uint8_t* where, Py_ssize_t where_stride, Py_ssize_t n,
        int element, int size, bint omit) noexcept nogil
    bint finish_sums(
        double* sums, Py_ssize_t pitch, Py_ssize_t n, double limit, double* record, Py_ssize_t record_pitch
    ) noexcept nogil
    void merge_records(
        double* a, Py_ssize_t a_pitch, const double* b, Py_ssize_t b_pitch, Py_ssize_t n) noexcept nogil

cdef enum:
    TALLY_STRIP = 128  # columns of the narrowest strip
    TALLY_COLUMNS = 256  # of the widest: their sums stay in L1
    TALLY_WHOLE = 1024  # of lines that are one strip where threads have enough to do: memory likes runs
    TALLY_PITCH = TALLY_WHOLE + 8  # of their sums: no power of 2, or all fields share one place in L1
    TALLY_PART = 65536  # values of a part of rows
    TALLY_COLUMNS_PART = 393216  # the same of columns, each of which is merged by itself
    TALLY_BUFFER = 16384  # bytes into which is packed
    TALLY_RUN = 128  # values of a run that isn't packed
    TALLY_SHORT = 48  # values of a slice up to which slices are packed as columns, or 12 registers of doubles
    TALLY_TOGETHER = 64  # slices whose sums are finished at once

cdef double[2] TALLY_LIMIT = [1e6, 1.0]  # of (mean - k)^2 / var, beyond which a part is summed again: quick, careful
cdef double CANCELLED = 2.0 ** -44  # of mean^2 / var, below which a quick mean may have lost digits

cdef struct Tally:
    # A reduction and how it is run.
    Reduction r
    const Summation* add
    bint careful, masked
    bint far  # past the caches
    bint columns, transposed  # vectors run across slices; short slices, which are packed so
    bint packed
    Py_ssize_t size  # values of a slice
    Py_ssize_t run, wide  # length of the innermost reduced axis, and of the innermost kept one, if columns
    Py_ssize_t fold  # lines of a few columns seen as one
    Py_ssize_t outer, strips  # kept indices outside the columns; cuts of these
    Py_ssize_t part, parts  # values, or lines, of a part
    double* records  # (parts, RECORD, slices), in the order of memory
    bint failed


cdef inline int sort_spans(Span* spans, int count) noexcept nogil:
    """Outermost in memory first; those that lie evenly are merged.  How many are left, at least one."""
    cdef int i, at, left = 0
    cdef Span one
    for i in range(count):
        one = spans[i]
        if one.length == 1:
            continue
        at = left
        while at > 0 and labs(spans[at - 1].x) < labs(one.x):
            spans[at] = spans[at - 1]
            at -= 1
        spans[at] = one
        left += 1
    count, left = left, 0
    for i in range(count):
        one = spans[i]
        if left and spans[left - 1].x == one.length * one.x and spans[left - 1].where == one.length * one.where and (
                spans[left - 1].slice == one.length * one.slice):
            spans[left - 1] = Span(spans[left - 1].length * one.length, one.x, one.where, one.slice)
        else:
            spans[left] = one
            left += 1
    if left == 0:
        spans[0] = Span(1, 0, 0, 0)
        left = 1
    return left


cdef inline Span place_in(const Span* spans, int count, Py_ssize_t index) noexcept nogil:
    """The offsets of an index that counts all of the axes, the last one fastest."""
    cdef Span at = Span(0, 0, 0, 0)
    cdef Py_ssize_t i
    cdef int axis
    for axis in range(count - 1, -1, -1):
        if index == 0:
            break
        i, index = index % spans[axis].length, index // spans[axis].length
        at.x += i * spans[axis].x
        at.where += i * spans[axis].where
        at.slice += i * spans[axis].slice
    return at


cdef void see_reduction(Tally* t) noexcept nogil:
    """Decide how it is run: of lengths and strides alone."""
    cdef Reduction* r = &t.r
    cdef Span* kept
    cdef Span* reduced
    cdef int i, size
    cdef bint dense
    t.add = summation_of[r.element]
    size = t.add.size
    r.kept = sort_spans(r.kept_axes, r.kept)
    r.reduced = sort_spans(r.reduced_axes, r.reduced)
    kept, reduced = &r.kept_axes[r.kept - 1], &r.reduced_axes[r.reduced - 1]
    t.size = 1
    for i in range(r.reduced):
        t.size *= r.reduced_axes[i].length
    t.masked = r.where != NULL or r.omit
    t.run = reduced.length
    t.far = t.size * r.slices * size > FAR_BYTES
    t.fold = 1
    t.transposed = not t.masked and t.size <= max(TALLY_SHORT, 12 * DOUBLES) and r.slices >= 4 * DOUBLES
    t.columns = t.transposed or not t.masked and (labs(kept.x) < labs(reduced.x) or t.size == 1) and (
        kept.length > 1 and kept.length * t.size >= 4 * DOUBLES)
    if t.transposed:
        t.packed = not (kept.x == size and kept.length >= 64)
        t.wide = kept.length if not t.packed else r.slices
    elif t.columns:
        t.wide = kept.length
        dense = r.reduced == 1 and reduced.x == t.wide * size and kept.x == size
        t.packed = kept.x != size or t.wide < 4 * DOUBLES and not dense
        if t.wide < 16 * DOUBLES and (dense or t.packed):
            t.fold = ceil_div(PAIR, t.wide)
            # More of them fill tiles, and steps to seven eighths.
            while t.fold < t.size // 32 and (
                    t.fold * t.wide < 2 * PAIR or ceil_div(t.fold * t.wide, PAIR) * 7 * PAIR > 8 * t.fold * t.wide):
                t.fold += 1
    else:
        t.wide = 1
        t.packed = t.masked or not (reduced.x == size and (r.reduced == 1 or t.run >= TALLY_RUN) or t.size == 1)
    t.outer = r.slices // t.wide
    t.part = TALLY_PART
    if t.columns:
        t.part = ceil_div(TALLY_COLUMNS_PART, min(t.wide, <Py_ssize_t> TALLY_COLUMNS))
    t.parts = ceil_div(t.size, t.part)
    if t.parts > 1:  # all alike, and so many that few threads get as many each
        t.part = ceil_div(t.size, ceil_div(t.parts, 4) * 4)
        t.part = ceil_div(t.part, t.fold) * t.fold
        t.parts = ceil_div(t.size, t.part)


cdef void clear_sums(double* sums, Py_ssize_t pitch, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef int field
    for field in range(SUM_FIELDS):
        memset(sums + field * pitch, 0, n * sizeof(double))
    for i in range(n):
        sums[LEAST * pitch + i], sums[MOST * pitch + i], sums[SHIFT * pitch + i] = INFINITY, -INFINITY, NAN


cdef void sum_anew(
    const Tally* t, double* sums, Py_ssize_t pitch, Py_ssize_t n, const double* record, Py_ssize_t record_pitch
) noexcept nogil:
    """Begin anew, about the means that were found."""
    cdef Py_ssize_t i
    cdef double mean
    clear_sums(sums, pitch, n)
    for i in range(n):
        mean = record[MEAN * record_pitch + i]
        if t.r.element >= U8:  # whole, as integers are: a part of one would be lost beside its high digits
            mean = rint(mean)
        sums[SHIFT * pitch + i] = 0 if mean - mean != 0 else mean
        if t.r.element >= U64:
            sums[SHIFT_LOW * pitch + i] = rint(record[MEAN_LOW * record_pitch + i])


cdef inline void gather_line(
    char* target, const char* source, Py_ssize_t stride, Py_ssize_t n, int size
) noexcept nogil:
    """n values of `size` bytes, `stride` bytes apart, one after the other."""
    cdef Py_ssize_t i
    if stride == size:
        memcpy(target, source, n * size)
    elif size == 4:
        for i in range(n):
            (<uint32_t*> target)[i] = (<const uint32_t*> (source + i * stride))[0]
    elif size == 8:
        for i in range(n):
            (<uint64_t*> target)[i] = (<const uint64_t*> (source + i * stride))[0]
    elif size == 2:
        for i in range(n):
            (<uint16_t*> target)[i] = (<const uint16_t*> (source + i * stride))[0]
    else:
        for i in range(n):
            target[i] = source[i * stride]


# Rows

cdef void sum_row(
    const Tally* t, Py_ssize_t slice_, Py_ssize_t start, Py_ssize_t stop, double* sums, Py_ssize_t pitch
) noexcept nogil:
    """Add the values start..stop of a slice to its sums."""
    cdef char packed[TALLY_BUFFER]
    cdef const Reduction* r = &t.r
    cdef const Span* inner = &r.reduced_axes[r.reduced - 1]
    cdef const Span* outer
    cdef const char* x = r.x + place_in(r.kept_axes, r.kept, slice_).x
    cdef Py_ssize_t k, many, runs, filled = 0, room = TALLY_BUFFER // t.add.size
    cdef Span at
    while start < stop:
        k = start % inner.length
        at = place_in(r.reduced_axes, r.reduced - 1, start // inner.length)
        many = min(inner.length - k, stop - start)
        if t.packed:
            many = min(many, room - filled)
            gather_line(packed + filled * t.add.size, x + at.x + k * inner.x, inner.x, many, t.add.size)
            filled += many
            if filled == room:
                t.add.row(packed, filled, 1, 0, t.careful, sums, pitch)
                filled = 0
        elif k == 0 and r.reduced > 1:  # runs that lie evenly
            outer = &r.reduced_axes[r.reduced - 2]
            runs = max(<Py_ssize_t> 1, min(outer.length - start // inner.length % outer.length, (stop - start) // many))
            t.add.row(x + at.x, many, runs, outer.x, t.careful, sums, pitch)
            many *= runs
        else:
            t.add.row(x + at.x + k * inner.x, many, 1, 0, t.careful, sums, pitch)
        start += many
    if filled:
        t.add.row(packed, filled, 1, 0, t.careful, sums, pitch)


cdef void sum_chosen(
    const Tally* t, Py_ssize_t slice_, Py_ssize_t start, Py_ssize_t stop, double* sums, Py_ssize_t pitch
) noexcept nogil:
    """The same of those values that count."""
    cdef char packed[TALLY_BUFFER]
    cdef const Reduction* r = &t.r
    cdef const Span* inner = &r.reduced_axes[r.reduced - 1]
    cdef Span base = place_in(r.kept_axes, r.kept, slice_), at
    cdef Py_ssize_t k, many, filled = 0, room = TALLY_BUFFER // t.add.size
    while start < stop:
        k = start % inner.length
        at = place_in(r.reduced_axes, r.reduced - 1, start // inner.length)
        many = min(inner.length - k, stop - start, room - filled)
        filled += choose_values(
            packed + filled * t.add.size, r.x + base.x + at.x + k * inner.x, inner.x,
            r.where + base.where + at.where + k * inner.where if r.where != NULL else NULL, inner.where, many,
            r.element, t.add.size, r.omit)
        start += many
        if 2 * filled > room:
            t.add.row(packed, filled, 1, 0, t.careful, sums, pitch)
            filled = 0
    if filled:
        t.add.row(packed, filled, 1, 0, t.careful, sums, pitch)


cdef void work_tally_rows(void* context, int thread, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The units start..stop, of all (part, slice)."""
    cdef Tally* t = <Tally*> context
    cdef double sums[SUM_FIELDS * TALLY_TOGETHER]
    cdef Py_ssize_t slices = t.r.slices, part, slice_, many, i, attempt
    cdef double* record
    while start < stop:
        part, slice_ = start // slices, start % slices
        many = min(stop - start, slices - slice_, <Py_ssize_t> TALLY_TOGETHER)
        record = t.records + part * RECORD * slices + slice_
        clear_sums(sums, TALLY_TOGETHER, many)
        for attempt in range(2):
            for i in range(many):
                if t.masked:
                    sum_chosen(t, slice_ + i, part * t.part, min(t.size, (part + 1) * t.part), sums + i, TALLY_TOGETHER)
                else:
                    sum_row(t, slice_ + i, part * t.part, min(t.size, (part + 1) * t.part), sums + i, TALLY_TOGETHER)
            if not finish_sums(sums, TALLY_TOGETHER, many, TALLY_LIMIT[t.careful], record, slices):
                break
            sum_anew(t, sums, TALLY_TOGETHER, many, record, slices)
        start += many


# Columns

cdef void sum_columns(
    const Tally* t, Py_ssize_t outer, Py_ssize_t column, Py_ssize_t columns, Py_ssize_t start, Py_ssize_t stop,
    double* sums, Py_ssize_t pitch,
) noexcept nogil:
    """Add the lines start..stop of some columns to their sums, `fold` lines as one of so many times the columns."""
    cdef char packed[TALLY_BUFFER + 64 * DOUBLES]
    cdef const Reduction* r = &t.r
    cdef const Span* inner = &r.reduced_axes[r.reduced - 1]
    cdef const Span* kept = &r.kept_axes[r.kept - 1]
    cdef int size = t.add.size
    cdef Py_ssize_t wide = columns * t.fold, k, many, lines, run, ahead, i
    cdef const char* x
    cdef Span at
    if not t.transposed or not t.packed:
        x = r.x + place_in(r.kept_axes, r.kept - 1, outer).x + column * kept.x
    if not t.packed:
        while start < stop:
            k = start % inner.length
            at = place_in(r.reduced_axes, r.reduced - 1, start // inner.length)
            lines = min(inner.length - k, stop - start, TALL_BLOCK * t.fold) // t.fold
            start += lines * t.fold
            ahead = 0
            if t.far:  # the next block, or the strip beside it
                ahead = lines * inner.x * t.fold if start < stop else columns * size
            t.add.columns(x + at.x + k * inner.x, inner.x * t.fold, <int> lines, wide, ahead, t.careful, sums, pitch)
        return
    many = min(<Py_ssize_t> TALL_BLOCK, max(<Py_ssize_t> 1, TALLY_BUFFER // (wide * size))) * t.fold
    while start < stop:
        lines = min(many, stop - start)
        i = 0
        while i < lines:
            k = (start + i) % inner.length
            at = place_in(r.reduced_axes, r.reduced - 1, (start + i) // inner.length)
            run = min(inner.length - k, lines - i)
            at.x += k * inner.x
            if not t.transposed and kept.x == size and inner.x == columns * size:
                gather_line(packed + i * columns * size, x + at.x, size, run * columns, size)
                i += run
                continue
            if t.transposed:
                gather_slices(t, packed + i * columns * size, at.x, run, column, columns)
                i += run
                continue
            for i in range(i, i + run):
                gather_line(packed + i * columns * size, x + at.x, kept.x, columns, size)
                at.x += inner.x
            i += 1
        t.add.columns(packed, wide * size, <int> (lines // t.fold), wide, 0, t.careful, sums, pitch)
        start += lines


cdef void gather_slices(
    const Tally* t, char* target, Py_ssize_t offset, Py_ssize_t lines, Py_ssize_t slice_, Py_ssize_t n
) noexcept nogil:
    """Lines of the values at an offset, and those behind it, of n slices from `slice_` on, in the order of memory."""
    cdef const Reduction* r = &t.r
    cdef const Span* kept = &r.kept_axes[r.kept - 1]
    cdef const Span* inner = &r.reduced_axes[r.reduced - 1]
    cdef Py_ssize_t k, many, line, done = 0
    cdef int size = t.add.size
    cdef const char* x
    while done < n:
        k = (slice_ + done) % kept.length
        many = min(kept.length - k, n - done)
        x = r.x + offset + place_in(r.kept_axes, r.kept - 1, (slice_ + done) // kept.length).x + k * kept.x
        if inner.x == size > 1 and kept.x % size == 0:
            copy_block(target + done * size, x, size, lines, many, n, 1, 1, kept.x // size)
        else:
            for line in range(lines):
                gather_line(target + (line * n + done) * size, x + line * inner.x, kept.x, many, size)
        done += many


cdef inline Py_ssize_t strip_start(const Tally* t, Py_ssize_t strip) noexcept nogil:
    """Where a strip begins: strips are about as wide as each other, of whole tiles but for the last."""
    return t.wide if strip == t.strips else t.wide * strip // t.strips // 32 * 32


cdef void work_tally_columns(void* context, int thread, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The units start..stop, of all (part, outer, strip)."""
    cdef Tally* t = <Tally*> context
    cdef double sums[SUM_FIELDS * TALLY_PITCH]
    cdef double folded[RECORD * TALLY_COLUMNS]
    cdef Py_ssize_t slices = t.r.slices, unit, strip, outer, part, column, columns, first, last, attempt, i
    cdef double* record
    cdef double* found
    cdef Py_ssize_t pitch, wide
    for unit in range(start, stop):
        strip, outer = unit % t.strips, unit // t.strips
        outer, part = outer % t.outer, outer // t.outer
        column = strip_start(t, strip)
        columns = strip_start(t, strip + 1) - column
        first, last = part * t.part, min(t.size, (part + 1) * t.part)
        last -= (last - first) % t.fold
        wide = columns * t.fold
        record = t.records + part * RECORD * slices + outer * t.wide + column
        found, pitch = record, slices
        if t.fold > 1:
            found, pitch = folded, TALLY_COLUMNS
        clear_sums(sums, TALLY_PITCH, wide)
        for attempt in range(2):
            sum_columns(t, outer, column, columns, first, last, sums, TALLY_PITCH)
            for i in range(wide):
                sums[i] = (last - first) // t.fold
            if not finish_sums(sums, TALLY_PITCH, wide, TALLY_LIMIT[t.careful], found, pitch):
                break
            sum_anew(t, sums, TALLY_PITCH, wide, found, pitch)
        if t.fold > 1:
            fold_records(folded, columns, t.fold)
            for i in range(RECORD):
                memcpy(record + i * slices, folded + i * TALLY_COLUMNS, columns * sizeof(double))
            if last < min(t.size, (part + 1) * t.part):
                sum_rest(t, outer, column, columns, last, record)


cdef void fold_records(double* records, Py_ssize_t columns, Py_ssize_t fold) noexcept nogil:
    """Merge `fold` times as many columns: each half with the other, and so on."""
    cdef Py_ssize_t half
    while fold > 1:
        half = (fold + 1) // 2
        merge_records(records, TALLY_COLUMNS, records + half * columns, TALLY_COLUMNS, (fold - half) * columns)
        fold = half


cdef void sum_rest(
    Tally* t, Py_ssize_t outer, Py_ssize_t column, Py_ssize_t columns, Py_ssize_t start, double* record
) noexcept nogil:
    """Merge the last lines of a part, fewer than are seen as one: as rows."""
    cdef double sums[SUM_FIELDS]
    cdef double rest[RECORD]
    cdef Py_ssize_t slices = t.r.slices, c, line
    cdef const Reduction* r = &t.r
    cdef const Span* kept = &r.kept_axes[r.kept - 1]
    cdef const char* x = r.x + place_in(r.kept_axes, r.kept - 1, outer).x + column * kept.x
    cdef char packed[32 * DOUBLES * 8]
    cdef Span at
    for c in range(columns):
        for line in range(t.size - start):
            at = place_in(r.reduced_axes, r.reduced, start + line)
            memcpy(packed + line * t.add.size, x + at.x + c * kept.x, t.add.size)
        clear_sums(sums, 1, 1)
        t.add.row(packed, t.size - start, 1, 0, t.careful, sums, 1)
        finish_sums(sums, 1, 1, INFINITY, rest, 1)
        merge_records(record + c, slices, rest, 1, 1)


cdef void work_merge(void* context, int thread, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """Merge the parts of the slices start..stop in a fixed tree."""
    cdef Tally* t = <Tally*> context
    cdef Py_ssize_t step = 1, i, slices = t.r.slices
    while step < t.parts:
        i = 0
        while i + step < t.parts:
            merge_records(t.records + i * RECORD * slices + start, slices,
                          t.records + (i + step) * RECORD * slices + start, slices, stop - start)
            i += 2 * step
        step *= 2


cdef bint has_cancelled(const Tally* t) noexcept nogil:
    """Whether a mean is so small beside its deviation that quick sums may have lost its digits."""
    cdef Py_ssize_t i, slices = t.r.slices
    cdef double mean, m2
    for i in range(slices):
        mean, m2 = t.records[MEAN * slices + i], t.records[M2 * slices + i]
        if mean * mean * t.records[COUNT * slices + i] < CANCELLED * m2:
            return True
    return False


cdef void tally(Tally* t, int threads) noexcept nogil:
    if t.columns:
        t.strips = max(<Py_ssize_t> 1, t.wide // TALLY_STRIP)
        if t.wide <= TALLY_WHOLE and t.parts * t.outer >= 4 * threads:
            t.strips = 1
        share(work_tally_columns, t, t.parts * t.outer * t.strips, threads)
    else:
        share(work_tally_rows, t, t.parts * t.r.slices, threads)
    if t.parts > 1:
        share(work_merge, t, t.r.slices, threads if t.r.slices > 4096 else 1)


cdef int reduce_moments(const Reduction* reduction, int threads) noexcept nogil:
    """The record of a reduction; -1 without memory."""
    cdef Tally t
    cdef Py_ssize_t i, at, field, slices
    cdef bint in_place
    t.r = reduction[0]
    see_reduction(&t)
    t.careful = t.add.careful == 1
    slices = t.r.slices
    in_place = t.parts == 1 and t.r.kept == 1 and t.r.kept_axes[0].slice <= 1 or slices == 1 and t.parts == 1
    t.records = t.r.record
    if not in_place:
        t.records = <double*> malloc(t.parts * RECORD * slices * sizeof(double))
        if t.records == NULL:
            return -1
    tally(&t, threads)
    if t.add.careful == 0 and has_cancelled(&t):
        t.careful = True
        tally(&t, threads)
    if not in_place:
        for i in range(slices):
            at = place_in(t.r.kept_axes, t.r.kept, i).slice
            for field in range(RECORD):
                t.r.record[field * slices + at] = t.records[field * slices + i]
        free(t.records)
    return 0
