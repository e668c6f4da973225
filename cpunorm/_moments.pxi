# Moments: of a block, of a part of a domain (channels_first), of the lines of a part (channels_last).
# Included by _kernels.pyx, whose header says how and why.

cdef struct Moments:
    double count, mean, m2


# Moments: every function below is called from the two layouts' `grouped_*` and from `layer_norm` alone.

cdef inline double moved(double mean, double other, double step) noexcept nogil:
    """mean + step, or the Inf or NaN that `mean` and `other` come to: there, step = (other - mean) * share is NaN."""
    return mean + (step if step - step == 0 else other)


cdef inline void merge(Moments* a, double count, double mean, double m2) noexcept nogil:
    """a = a and (count, mean, m2) together: Chan's update, in float64."""
    cdef double total = a.count + count
    cdef double share = count / total
    cdef double delta = mean - a.mean
    a.mean = moved(a.mean, mean, delta * share)
    a.m2 += m2 + delta * delta * (a.count * share)
    a.count = total


cdef void merge_tree(Moments* parts, Py_ssize_t count) noexcept nogil:
    """parts[0] = all parts, merged pairwise in an order that depends on their number alone."""
    cdef Py_ssize_t i, step = 1
    while step < count:
        i = 0
        while i + step < count:
            merge(&parts[i], parts[i + step].count, parts[i + step].mean, parts[i + step].m2)
            i += 2 * step
        step *= 2


cdef inline double fold(const real* lanes) noexcept nogil:
    """The sum of LANES lanes, pairwise."""
    if real is float:
        return fold_floats(lanes)
    else:
        return fold_doubles(lanes)


cdef struct Block:
    # `rows` runs of n contiguous values, `pitch` elements from one to the next.
    Py_ssize_t n, rows, pitch


cdef inline double shifted_sum(const real* x, Block b, real shift) noexcept nogil:
    """sum (x - shift) over a block."""
    cdef real s[LANES]
    cdef Py_ssize_t i, row, whole = b.n // LANES * LANES
    cdef int j, rest = <int> (b.n - whole)
    for j in range(LANES):
        s[j] = 0
    for row in range(b.rows):
        i = 0
        while i < whole:
            for j in range(LANES):
                s[j] += x[i + j] - shift
            i += LANES
        if rest:
            for j in range(LANES):
                s[j] += x[i + j] - shift if j < rest else 0
        x += b.pitch
    return fold(s)


cdef inline void shifted_squares(const real* x, Block b, real shift, double* total, double* squares) noexcept nogil:
    """total = sum d and squares = sum d^2 with d = x - shift, over a block."""
    cdef real s[LANES]
    cdef real q[LANES]
    cdef real d
    cdef Py_ssize_t i, row, whole = b.n // LANES * LANES, ahead = AHEAD // <Py_ssize_t> sizeof(real)
    cdef int j, rest = <int> (b.n - whole)
    if b.rows > 1:
        ahead = (ahead + b.n - 1) // b.n * b.pitch
    for j in range(LANES):
        s[j] = 0
        q[j] = 0
    for row in range(b.rows):
        i = 0
        while i < whole:
            will_read(x + i + ahead)
            for j in range(LANES):
                d = x[i + j] - shift
                s[j] += d
                q[j] += d * d
            i += LANES
        if rest:
            will_read(x + i + ahead)
            for j in range(LANES):
                d = x[i + j] - shift if j < rest else 0
                s[j] += d
                q[j] += d * d
        x += b.pitch
    total[0] = fold(s)
    squares[0] = fold(q)


cdef inline bint out_of_range(real tag, double squares, double n) noexcept nogil:
    """Whether a sum of n squares is Inf or NaN or, in float32, underflowed so far that digits are lost."""
    if real is float:
        return not (n * TINY <= squares <= FLT_MAX)
    else:
        return not (squares <= DBL_MAX)


cdef void exact_moments(const real* x, Py_ssize_t stride, Block b, double* mean, double* m2) noexcept nogil:
    """Two passes in float64 over values `stride` apart; constant values, the usual reason to be here, in one."""
    cdef Py_ssize_t i, row, different = 0
    cdef double total = 0, squares = 0, d
    for row in range(b.rows):
        for i in range(b.n):
            different += x[row * b.pitch + i * stride] != x[0]
    if different == 0:
        mean[0] = x[0]
        m2[0] = x[0] - x[0]  # NaN for Inf
        return
    for row in range(b.rows):
        for i in range(b.n):
            total += x[row * b.pitch + i * stride]
    mean[0] = total / (b.rows * b.n)
    for row in range(b.rows):
        for i in range(b.n):
            d = x[row * b.pitch + i * stride] - mean[0]
            squares += d * d
    m2[0] = squares


cdef inline real first_shift(const real* x, Block b) noexcept nogil:
    """About the mean of the first quarter of a block."""
    cdef Block quarter = b
    if b.rows >= 4:
        quarter.rows = (b.rows + 3) // 4
    else:
        quarter.n = min(b.n, max(<Py_ssize_t> LANES, b.rows * b.n // 4 // LANES * LANES))
        quarter.rows = 1
    return x[0] + <real> (shifted_sum(x, quarter, x[0]) / (quarter.rows * quarter.n))


cdef inline Moments block_moments(const real* x, Block b, real shift, double total, double squares) noexcept nogil:
    """Moments of a block from its `shifted_squares`."""
    cdef Moments moments = Moments(b.rows * b.n, 0, 0)
    if out_of_range(shift, squares, moments.count):
        exact_moments(x, 1, b, &moments.mean, &moments.m2)
    else:
        moments.mean = shift + total / moments.count
        moments.m2 = max(squares - total * (total / moments.count), 0.0)
    return moments


cdef struct Stream:
    # Moments of the blocks so far; the shift in use, and the count from which on it is taken anew.
    Moments moments
    double shift, due


cdef inline void add_block(Stream* stream, const real* x, Block b) noexcept nogil:
    """stream += a block of up to BLOCK values."""
    cdef Moments* moments = &stream.moments
    cdef Moments block
    cdef double total, squares
    cdef real shift
    if moments.count < b.rows * b.n:
        shift = first_shift(x, b)
    else:
        if moments.count >= stream.due:
            stream.shift, stream.due = moments.mean, 2 * moments.count
        shift = <real> stream.shift
    shifted_squares(x, b, shift, &total, &squares)
    block = block_moments(x, b, shift, total, squares)
    if moments.count == 0:
        moments[0] = block
    else:
        merge(moments, block.count, block.mean, block.m2)


# channels_first moments: a domain is `segments` runs of `length` values each.

cdef struct Domain:
    Py_ssize_t channels, length  # channels of the domain; values of one segment
    Py_ssize_t segments  # outer * channels * middle
    Py_ssize_t pitch  # from one segment to the next; 0 if that is not the same for all
    # How a domain is cut: `across` parts of `part_segments` segments, times `along` parts of `part_length` values.
    Py_ssize_t across, along, part_segments, part_length


cdef Domain cut_domain(const Walk* w, Py_ssize_t channels) noexcept nogil:
    cdef Domain d
    d.channels, d.length = channels, w.inner
    if w.outer == 1 and w.middle == 1 and w.x_channel == w.inner * w.x_inner:
        d.channels, d.length = 1, channels * w.inner  # the channels of a group follow each other: one run
    d.segments = w.outer * d.channels * w.middle
    if d.segments == w.outer:
        d.pitch = w.x_outer
    elif d.segments == d.channels:
        d.pitch = w.x_channel
    else:
        d.pitch = w.x_middle if d.segments == w.middle else 0
    d.along = (d.length + PART - 1) // PART
    d.part_length = (d.length + d.along - 1) // d.along
    d.part_segments = max(1, PART // d.length) if d.along == 1 else 1
    d.across = (d.segments + d.part_segments - 1) // d.part_segments
    return d


cdef Moments part_moments(const real* x, const Walk* w, const Domain* d, Py_ssize_t part) noexcept nogil:
    """Moments of one part of the domain that starts at x: blocks of as many segments as fit, or of pieces of one."""
    cdef Stream stream = Stream(Moments(0, 0, 0), 0, 0)
    cdef Py_ssize_t segment = part // d.along * d.part_segments
    cdef Py_ssize_t stop = min(segment + d.part_segments, d.segments)
    cdef Py_ssize_t first = part % d.along * d.part_length
    cdef Py_ssize_t length = min(d.part_length, d.length - first), i
    cdef Block b = Block(0, 1, d.pitch)
    if w.x_inner != 1 or (d.pitch == 0 and d.segments > 1):
        return gathered_moments(x + first * w.x_inner, w, d, segment, stop, length)
    while segment < stop:
        b.rows = min(max(<Py_ssize_t> 1, BLOCK // length), stop - segment)
        i = 0
        while i < length:
            b.n = min(<Py_ssize_t> BLOCK, length - i)
            add_block(&stream, x + first + segment * d.pitch + i, b)
            i += b.n
        segment += b.rows
    return stream.moments


cdef Moments gathered_moments(
    const real* x, const Walk* w, const Domain* d, Py_ssize_t segment, Py_ssize_t stop, Py_ssize_t length
) noexcept nogil:
    """Moments of the first `length` values of the segments up to `stop`, of any strides, gathered into blocks."""
    cdef Stream stream = Stream(Moments(0, 0, 0), 0, 0)
    cdef real gathered[BLOCK]
    cdef Py_ssize_t middle = segment % w.middle, channel = segment // w.middle % d.channels
    cdef Py_ssize_t outer = segment // (w.middle * d.channels), i, j, n, filled = 0
    cdef const real* source
    while segment < stop:
        source = x + outer * w.x_outer + channel * w.x_channel + middle * w.x_middle
        i = 0
        while i < length:
            n = min(BLOCK - filled, length - i)
            for j in range(n):
                gathered[filled + j] = source[(i + j) * w.x_inner]
            filled += n
            i += n
            if filled == BLOCK:
                add_block(&stream, &gathered[0], Block(filled, 1, 0))
                filled = 0
        segment += 1
        middle += 1
        if middle == w.middle:
            middle = 0
            channel += 1
            if channel == d.channels:
                channel = 0
                outer += 1
    if filled:
        add_block(&stream, &gathered[0], Block(filled, 1, 0))
    return stream.moments


cdef inline Moments domain_moments(
    const real* x, const Walk* w, const Domain* d, Moments* parts, Py_ssize_t index
) noexcept nogil:
    """Moments of the domain that starts at x, by one thread; `parts` has room for those of every domain, if need be."""
    cdef Py_ssize_t part, count = d.across * d.along
    if count == 1:
        return part_moments(x, w, d, 0)
    parts += index * count
    for part in range(count):
        parts[part] = part_moments(x, w, d, part)
    merge_tree(parts, count)
    return parts[0]


cdef inline int together(const Walk* w, const Domain* d) noexcept nogil:
    """How many domains have their moments taken at once; 0 if a domain is more than one contiguous block."""
    if d.segments > 1 or w.x_inner != 1 or d.length > BLOCK:
        return 0
    return <int> max(<Py_ssize_t> 1, min(<Py_ssize_t> MOST_TOGETHER, TOGETHER // d.length))


cdef inline void moments_together(const real* const* starts, int count, Py_ssize_t n, Moments* moments) noexcept nogil:
    """Moments of up to MOST_TOGETHER domains of n contiguous values: the long latencies at their ends overlap."""
    cdef Block b = Block(n, 1, 0)
    cdef real shifts[MOST_TOGETHER]
    cdef double totals[MOST_TOGETHER]
    cdef double squares[MOST_TOGETHER]
    cdef int i
    for i in range(count):
        shifts[i] = first_shift(starts[i], b)
    for i in range(count):
        shifted_squares(starts[i], b, shifts[i], &totals[i], &squares[i])
    for i in range(count):
        moments[i] = block_moments(starts[i], b, shifts[i], totals[i], squares[i])


# channels_last moments: each channel has a lane of its own, ROWS lines make a block.

cdef inline void sum_columns(
    const real* const* lines, Py_ssize_t n, int columns, Py_ssize_t next, const real* k, real* s, real* q
) noexcept nogil:
    """s = sum d and q = sum d^2 with d = x - k, each of `columns` over n lines.

    What lies `next` values on, in the tile to come, is fetched meanwhile: up to 1.3 times as fast past L2.
    """
    cdef real total[LANES]
    cdef real squares[LANES]
    cdef real d
    cdef const real* x
    cdef Py_ssize_t r
    cdef int j
    for j in range(columns):
        total[j] = 0
        squares[j] = 0
    for r in range(n):
        x = lines[r]
        will_read(x + next)
        for j in range(columns):
            d = x[j] - k[j]
            total[j] += d
            squares[j] += d * d
    for j in range(columns):
        s[j] = total[j]
        q[j] = squares[j]


cdef inline void sum_tile(
    const real* const* lines, Py_ssize_t n, int columns, Py_ssize_t next, const real* k, real* s, real* q
) noexcept nogil:
    """`sum_columns`, for whole vectors with a constant in the place of `columns`, which keeps them in registers."""
    if columns == LANES:
        sum_columns(lines, n, LANES, next, k, s, q)
    elif columns == 3 * VECTOR:
        sum_columns(lines, n, 3 * VECTOR, next, k, s, q)
    elif columns == 2 * VECTOR:
        sum_columns(lines, n, 2 * VECTOR, next, k, s, q)
    elif columns == VECTOR:
        sum_columns(lines, n, VECTOR, next, k, s, q)
    else:
        sum_columns(lines, n, columns, next, k, s, q)


cdef inline void tile_moments(
    const real* const* lines, Py_ssize_t n, int columns, Py_ssize_t next, bint first, double count,
    double* mean, double* m2,
) noexcept nogil:
    """mean and m2 of the channels of a tile, known for `count` lines, with n <= ROWS more lines."""
    cdef real k[LANES]
    cdef real s[LANES]
    cdef real q[LANES]
    cdef double block_mean[LANES]
    cdef double block_m2[LANES]
    cdef double share = n / (count + n), between = count * share, delta
    cdef Py_ssize_t half = (n + 1) // 2
    cdef int j, redo = 0
    if first:
        for j in range(columns):
            k[j] = lines[0][j]
        sum_tile(lines, half, columns, next, k, s, q)
        for j in range(columns):
            k[j] += s[j] / half
    else:
        for j in range(columns):
            k[j] = <real> mean[j]
    sum_tile(lines, n, columns, next, k, s, q)
    for j in range(columns):
        block_mean[j] = k[j] + <double> s[j] / n
        block_m2[j] = max(q[j] - <double> s[j] * s[j] / n, 0.0)
        redo += out_of_range(k[j], q[j], n)
    if redo:
        for j in range(columns):
            if out_of_range(k[j], q[j], n):
                exact_column(lines, j, n, &block_mean[j], &block_m2[j])
    for j in range(columns):
        delta = block_mean[j] - mean[j]
        mean[j] = moved(mean[j], block_mean[j], delta * share)
        m2[j] += block_m2[j] + delta * delta * between


cdef void exact_column(
    const real* const* lines, int lane, Py_ssize_t n, double* mean, double* m2
) noexcept nogil:
    """`exact_moments` of one channel of n <= ROWS lines."""
    cdef real column[ROWS]
    cdef Py_ssize_t r
    column[0] = lines[0][lane]
    for r in range(1, n):
        column[r] = lines[r][lane]
    exact_moments(&column[0], 1, Block(n, 1, 0), mean, m2)


cdef inline Py_ssize_t lines_of_part(Py_ssize_t channels) noexcept nogil:
    return max(<Py_ssize_t> ROWS, PART // channels // ROWS * ROWS)


cdef void lines_moments(
    const real* x, const Walk* w, Py_ssize_t start, Py_ssize_t stop, double* mean, double* m2
) noexcept nogil:
    """mean and m2 of every channel over the lines start..stop (outer, middle, inner) of one sample."""
    cdef const real* lines[ROWS]
    cdef Py_ssize_t inner = start % w.inner, middle = start // w.inner % w.middle
    cdef Py_ssize_t outer = start // (w.inner * w.middle), line = start, n, channel, next, r
    cdef int width
    for channel in range(w.channels):
        mean[channel] = 0
        m2[channel] = 0
    while line < stop:
        n = min(<Py_ssize_t> ROWS, stop - line)
        for r in range(n):
            lines[r] = x + outer * w.x_outer + middle * w.x_middle + inner * w.x_inner
            inner += 1
            if inner == w.inner:
                inner = 0
                middle += 1
                if middle == w.middle:
                    middle = 0
                    outer += 1
        channel = 0
        while channel < w.channels:
            width = <int> min(<Py_ssize_t> LANES, w.channels - channel)
            next = width if channel + width < w.channels else ROWS * w.x_inner - channel
            tile_moments(lines, n, width, next, line == start, <double> (line - start), mean + channel, m2 + channel)
            for r in range(n):
                lines[r] += width
            channel += width
        line += n


cdef void merge_lines(
    double* means, double* m2s, Py_ssize_t channels, Py_ssize_t parts, Py_ssize_t part_lines, Py_ssize_t lines
) noexcept nogil:
    """Row 0 of means and m2s (parts, channels) = all parts, merged pairwise in a fixed order."""
    cdef Py_ssize_t i, channel, step = 1
    cdef double n_a, n_b, delta
    cdef double* a
    cdef double* b
    while step < parts:
        i = 0
        while i + step < parts:
            n_a = step * part_lines
            n_b = min((i + 2 * step) * part_lines, lines) - (i + step) * part_lines
            a = means + i * channels
            b = means + (i + step) * channels
            for channel in range(channels):
                delta = b[channel] - a[channel]
                a[channel] = moved(a[channel], b[channel], delta * (n_b / (n_a + n_b)))
                m2s[i * channels + channel] += (
                    m2s[(i + step) * channels + channel] + delta * delta * (n_a * n_b / (n_a + n_b)))
            i += 2 * step
        step *= 2
