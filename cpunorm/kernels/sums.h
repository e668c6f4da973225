/* Sums along lines of values, and the moments that they are.  Included by lines.h once per type. */

/* The mean of the first values: a shift for their block that is seldom placed badly. */
ALWAYS R NAME(estimate)(const X *x, ptrdiff_t n) {
    VEC a = {0}, b = {0}, c = {0}, d = {0};
    if (n >= LANES) {
        n = n < GUESS ? LANES : GUESS;
        for (ptrdiff_t i = 0; i < n; i += LANES) {
            a += NAME(take)(x + i);
            b += NAME(take)(x + i + WIDTH);
            c += NAME(take)(x + i + 2 * WIDTH);
            d += NAME(take)(x + i + 3 * WIDTH);
        }
    } else {
        ptrdiff_t i = 0;
        for (; i + WIDTH <= n; i += WIDTH)
            a += NAME(take)(x + i);
        if (i < n)
            b = NAME(take_part)(x + i, (int) (n - i));
    }
    return (R) (NAME(fold)((a + b) + (c + d)) / (double) n);
}

/* total = sum d, squares = sum d^2 with d = x - k, over `rows` runs of n values: chains of CHAIN values in each lane,
   added pairwise to one vector, whose chain is STEPS / CHAIN long. */
ALWAYS void NAME(sums)(const X *x, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t pitch, int far, R k, double *total,
                       double *squares) {
    const VEC zero = {0};
    VEC s0 = zero, s1 = zero, s2 = zero, s3 = zero, q0 = zero, q1 = zero, q2 = zero, q3 = zero, s = zero, q = zero, d;
    const ptrdiff_t rest = n % LANES;
    const MASK mask = NAME(first)((int) (rest % WIDTH));
    int step = 0;
#define ADD(at, i)                                                                                                    \
    d = NAME(take)((at)) - k;                                                                                         \
    s##i += d;                                                                                                        \
    q##i += d * d;
#define JOIN                                                                                                          \
    s += (s0 + s1) + (s2 + s3);                                                                                       \
    q += (q0 + q1) + (q2 + q3);
    for (ptrdiff_t row = 0; row < rows; row++, x += pitch) {
        const X *p = x, *end = x + (n - rest);
        while (p < end) {
            if (far)
                for (int line = 0; line < LANES * (int) sizeof(X); line += 64)
                    __builtin_prefetch((const char *) p + SUMS_AHEAD + line);
            ADD(p, 0)
            ADD(p + WIDTH, 1)
            ADD(p + 2 * WIDTH, 2)
            ADD(p + 3 * WIDTH, 3)
            p += LANES;
            if (++step == CHAIN) {
                JOIN
                s0 = s1 = s2 = s3 = q0 = q1 = q2 = q3 = zero;
                step = 0;
            }
        }
        if (rest) {
            ptrdiff_t left = rest;
            if (far)
                for (int line = 0; line < LANES * (int) sizeof(X); line += 64)
                    __builtin_prefetch((const char *) p + SUMS_AHEAD + line);
            if (left >= WIDTH) {
                ADD(p, 0)
                p += WIDTH;
                left -= WIDTH;
            }
            if (left >= WIDTH) {
                ADD(p, 1)
                p += WIDTH;
                left -= WIDTH;
            }
            if (left >= WIDTH) {
                ADD(p, 2)
                p += WIDTH;
                left -= WIDTH;
            }
            if (left) {
                d = NAME(kept)(NAME(take_part)(p, (int) left) - k, mask);
                s3 += d;
                q3 += d * d;
            }
            if (++step == CHAIN) {
                JOIN
                s0 = s1 = s2 = s3 = q0 = q1 = q2 = q3 = zero;
                step = 0;
            }
        }
    }
    JOIN
    *total = NAME(fold)(s);
    *squares = NAME(fold)(q);
#undef ADD
#undef JOIN
}

/* Two passes in double: for what left the range of R. */
static __attribute__((noinline, cold)) Moments NAME(exact)(const X *x, ptrdiff_t stride, ptrdiff_t n, ptrdiff_t rows,
                                                           ptrdiff_t pitch, int about_zero) {
    Moments m = {(double) n * (double) rows, 0, 0};
    double total = 0, rest = 0, squares = 0;
    int different = 0;
    for (ptrdiff_t row = 0; row < rows; row++)
        for (ptrdiff_t i = 0; i < n; i++) {
            different |= VALUE(x + row * pitch + i * stride) != VALUE(x);
            total += VALUE(x + row * pitch + i * stride);
        }
    m.mean = about_zero ? 0 : total / m.count;
    if (!different && !about_zero) {
        m.mean = VALUE(x);
        m.m2 = m.mean - m.mean;  /* NaN for Inf */
        return m;
    }
    for (ptrdiff_t row = 0; row < rows; row++)
        for (ptrdiff_t i = 0; i < n; i++) {
            const double d = VALUE(x + row * pitch + i * stride) - m.mean;
            rest += d;
            squares += d * d;
        }
    m.m2 = about_zero ? squares : squares - rest * (rest / m.count);
    if (m.m2 < 0)
        m.m2 = 0;
    return m;
}

/* Whether k was so far from the mean that the sums lost digits: (mean - k)^2 is more than M2/n / (limit - 1). */
#define BADLY_PLACED(limit, count, total, squares) ((limit) * (total) * (total) > (count) * (squares))
/* Whether a sum of squares is Inf or NaN or, where eps doesn't hide it, has lost digits to underflow. */
#define OUT_OF_RANGE(count, squares, tiny) (!((squares) <= LARGEST) || (squares) < (count) * (tiny))

ALWAYS Moments NAME(settled)(const X *x, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t pitch, int far, Rule rule, R *k,
                             double total, double squares) {
    Moments m = {(double) n * (double) rows, 0, 0};
    if (rule.about_zero)
        total = 0;
    if (__builtin_expect(BADLY_PLACED(ROW_LIMIT, m.count, total, squares), 0)) {
        *k = (R) (*k + total / m.count);
        NAME(sums)(x, n, rows, pitch, far, *k, &total, &squares);
    }
    if (__builtin_expect(OUT_OF_RANGE(m.count, squares, rule.tiny), 0)) {
        const Moments exact = NAME(exact)(x, 1, n, rows, pitch, rule.about_zero);
        *k = (R) exact.mean;  /* the next block need not suffer from an outlier in this one */
        return exact;
    }
    const double offset = total / m.count, m2 = squares - total * offset;
    m.mean = (double) *k + offset;
    m.m2 = m2 > 0 ? m2 : 0;
    return m;
}

static Moments NAME(block_moments)(const void *x, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t pitch, int far, Rule rule,
                                   int estimate, double *shift) {
    double total, squares;
    R k = rule.about_zero ? 0 : estimate ? NAME(estimate)(x, n) : (R) *shift;
    if (far)
        NAME(sums)(x, n, rows, pitch, 1, k, &total, &squares);
    else
        NAME(sums)(x, n, rows, pitch, 0, k, &total, &squares);
    const Moments m = NAME(settled)(x, n, rows, pitch, 0, rule, &k, total, squares);
    *shift = k;
    return m;
}

static void NAME(row_moments)(const void *source, ptrdiff_t n, int rows, ptrdiff_t pitch, int far, Rule rule,
                              Moments *m) {
    const X *x = source;
    R k[TOGETHER];
    double total[TOGETHER], squares[TOGETHER];
    for (int i = 0; i < rows; i++)
        k[i] = rule.about_zero ? 0 : NAME(estimate)(x + i * pitch, n);
    if (far)
        for (int i = 0; i < rows; i++)
            NAME(sums)(x + i * pitch, n, 1, 0, 1, k[i], &total[i], &squares[i]);
    else
        for (int i = 0; i < rows; i++)
            NAME(sums)(x + i * pitch, n, 1, 0, 0, k[i], &total[i], &squares[i]);
    for (int i = 0; i < rows; i++)
        m[i] = NAME(settled)(x + i * pitch, n, 1, 0, 0, rule, &k[i], total[i], squares[i]);
}

/* s = sum d, q = sum d^2 with d = x - k, of `vectors` vectors of columns (the last of `part` values if not 0). */
ALWAYS void NAME(column_sums)(const X *x, ptrdiff_t pitch, int lines, const int vectors, int part, ptrdiff_t next,
                              const R *shift, R *s, R *q) {
    VEC k[TALL];
    for (int v = 0; v < vectors; v++)
        k[v] = NAME(load)(shift + v * WIDTH);
    for (int half = 0; half < lines; half += HALF) {
        const int end = lines - half < HALF ? lines : half + HALF;
        VEC total[TALL], squares[TALL];
        for (int v = 0; v < vectors; v++)
            total[v] = squares[v] = (VEC){0};
        for (int start = half; start < end; start += CHAIN) {
            VEC a[TALL], b[TALL];
            const int stop = end - start < CHAIN ? end : start + CHAIN;
            for (int v = 0; v < vectors; v++)
                a[v] = b[v] = (VEC){0};
            for (int line = start; line < stop; line++, x += pitch)
                for (int v = 0; v < vectors; v++) {
                    const VEC d = (part ? NAME(take_part)(x, part) : NAME(take)(x + v * WIDTH)) - k[v];
                    if (next)
                        __builtin_prefetch(x + next + v * WIDTH);
                    a[v] += d;
                    b[v] += d * d;
                }
            for (int v = 0; v < vectors; v++) {
                total[v] += a[v];
                squares[v] += b[v];
            }
        }
        for (int v = 0; v < vectors; v++) {
            NAME(store)(s + v * WIDTH, half ? NAME(load)(s + v * WIDTH) + total[v] : total[v]);
            NAME(store)(q + v * WIDTH, half ? NAME(load)(q + v * WIDTH) + squares[v] : squares[v]);
        }
    }
}

/* `column_sums` of up to COLUMNS columns, whose number becomes a constant, so that the sums stay in registers. */
static void NAME(tile_sums)(const X *x, ptrdiff_t pitch, int lines, int columns, ptrdiff_t next, const R *k, R *s,
                            R *q) {
    const int whole = columns / WIDTH, part = columns % WIDTH, at = whole * WIDTH;
    if (whole == TALL && next)
        NAME(column_sums)(x, pitch, lines, TALL, 0, next, k, s, q);
    else if (whole == TALL)
        NAME(column_sums)(x, pitch, lines, TALL, 0, 0, k, s, q);
    else if (TALL == 4 && whole == 3)
        NAME(column_sums)(x, pitch, lines, TALL - 1, 0, 0, k, s, q);
    else if (TALL == 4 && whole == 2)
        NAME(column_sums)(x, pitch, lines, 2, 0, 0, k, s, q);
    else if (whole == 1)
        NAME(column_sums)(x, pitch, lines, 1, 0, 0, k, s, q);
    if (part)
        NAME(column_sums)(x + at, pitch, lines, 1, part, 0, k + at, s + at, q + at);
}

/* mean + step, or the Inf or NaN that `mean` and `other` come to: there, step = (other - mean) * share is NaN. */
ALWAYS double NAME(moved)(double mean, double other, double step) { return mean + (step - step == 0 ? step : other); }

static void NAME(column_moments)(const void *source, ptrdiff_t pitch, int lines, ptrdiff_t columns, int far,
                                 Rule rule, double count, double *means, double *m2s) {
    const double n = lines, share = n / (count + n), between = count * share, inverse = 1 / n;
    if (lines == 1 && count == 0) {  /* without sums, which take several times as long to make ready */
        for (ptrdiff_t j = 0; j < columns; j++) {
            const double v = VALUE((const X *) source + j);
            means[j] = rule.about_zero ? 0 : v;
            m2s[j] = rule.about_zero ? v * v : v - v;  /* NaN for Inf */
        }
        return;
    }
    const int sample = lines > 2 * CHAIN ? 2 * CHAIN : lines < CHAIN ? lines : CHAIN;
    for (ptrdiff_t first = 0; first < columns; first += COLUMNS) {
        const X *x = (const X *) source + first;
        double *restrict mean = means + first, *restrict m2 = m2s + first, joined_mean[COLUMNS], joined_m2[COLUMNS];
        /* of these lines alone: at once to their place, or to be merged */
        double *restrict block_mean = count == 0 ? mean : joined_mean, *restrict block_m2 = count == 0 ? m2 : joined_m2;
        const int width = columns - first < COLUMNS ? (int) (columns - first) : COLUMNS;
        const ptrdiff_t next = far ? (columns - first > COLUMNS ? COLUMNS : lines * pitch - first) : 0;
        R k[COLUMNS] = {0}, s[COLUMNS], q[COLUMNS];
        int badly_placed = 0, out_of_range = 0;
        if (rule.about_zero) {
            /* k stays 0 */
        } else if (count == 0) {
            NAME(tile_sums)(x, pitch, sample, width, 0, k, s, q);
            for (int j = 0; j < width; j++)
                k[j] = s[j] / (R) sample;
        } else {
            for (int j = 0; j < width; j++)
                k[j] = (R) mean[j];
        }
        NAME(tile_sums)(x, pitch, lines, width, next, k, s, q);
        if (rule.about_zero)
            for (int j = 0; j < width; j++)
                s[j] = 0;
        else
            for (int j = 0; j < width; j++)
                badly_placed |= BADLY_PLACED(COLUMN_LIMIT, n, (double) s[j], (double) q[j]);
        if (badly_placed) {  /* the sums of the others come out as before */
            for (int j = 0; j < width; j++)
                k[j] = BADLY_PLACED(COLUMN_LIMIT, n, (double) s[j], (double) q[j]) ? (R) (k[j] + s[j] * inverse) : k[j];
            NAME(tile_sums)(x, pitch, lines, width, 0, k, s, q);
        }
        for (int j = 0; j < width; j++) {
            const double offset = s[j] * inverse, squares = q[j] - s[j] * offset;
            block_mean[j] = k[j] + offset;
            block_m2[j] = squares > 0 ? squares : 0;
            out_of_range |= OUT_OF_RANGE(n, (double) q[j], rule.tiny);
        }
        if (out_of_range)
            for (int j = 0; j < width; j++)
                if (OUT_OF_RANGE(n, (double) q[j], rule.tiny)) {
                    const Moments m = NAME(exact)(x + j, pitch, lines, 1, 0, rule.about_zero);
                    block_mean[j] = m.mean;
                    block_m2[j] = m.m2;
                }
        if (count != 0)
            for (int j = 0; j < width; j++) {
                const double delta = block_mean[j] - mean[j];
                mean[j] = NAME(moved)(mean[j], block_mean[j], delta * share);
                m2[j] += block_m2[j] + delta * delta * between;
            }
    }
}
