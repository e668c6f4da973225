/* What is done along lines of values: sums, and y from x.  The formula, the ladder of vectors and the tail stand here.

   Compiled once per ISA level; below, the file includes itself once per type of value R.  Walking, cutting and merging
   are done in Cython: see _kernels.pyx, whose header says why the numerics hold. */

#ifndef R

#ifndef CPUNORM_LINES_H
#define CPUNORM_LINES_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define MM(name) CAT3(_mm512_, name, SUFFIX)
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#define MM(name) CAT3(_mm256_, name, SUFFIX)
#else
#define VECTOR_BYTES 16
#define MM(name) CAT3(_mm_, name, SUFFIX)
#endif
#define CAT3_(a, b, c) a##b##c
#define CAT3(a, b, c) CAT3_(a, b, c)
#define ALWAYS static inline __attribute__((always_inline))

enum {
    REGISTERS = VECTOR_BYTES == 64 ? 32 : 16,
    UNROLLED = 4,  /* vectors of a step: enough sums at once to hide the latency of an addition */
    TALL = REGISTERS == 32 ? 4 : 2,  /* vectors of a tile of columns: five registers each */
    CHAIN = 8,  /* values that a lane adds up before its sum is added to others: see the numerics */
    STEPS = 32,  /* steps of a block */
    GUESS = 64,  /* first values whose mean is the shift of a block of rows */
    ROWS = 64,  /* lines of a block of columns */
    HALF = 32,  /* lines whose sums are added up before they are added to others */
    ROW_LIMIT = 5,  /* of BADLY_PLACED */
    COLUMN_LIMIT = 3,
    TILE_ROWS = 16,  /* lines that a tile of columns is applied to before the next tile, where lines are longer */
    TOGETHER = 8,  /* domains whose moments are taken at once, so that the latencies at their ends overlap */
    AHEAD = 4096,  /* bytes ahead to fetch: hardware's own prefetch stops at the end of a page of this size */
    MOST_LANES = UNROLLED * VECTOR_BYTES / 4,
    MOST_BLOCK = STEPS * MOST_LANES,
    MOST_TILE = ROWS * MOST_LANES,
};

typedef struct {
    double count, mean, m2;
} Moments;

/* How moments are taken: below which mean squares they have lost digits to underflow (see OUT_OF_RANGE), and whether
   they are about zero, the mean being that by definition. */
typedef struct {
    double tiny;
    int about_zero;
} Rule;

/* How lines are read and written: how many bytes ahead they are fetched, which pays past the caches (0: not at all), and
   whether y is stored around the caches (if it is aligned to VECTOR_BYTES). */
typedef struct {
    ptrdiff_t ahead;
    int streamed;
} Traffic;

/* What is done along lines, per type of value; pointers are to that type, pitches in elements. */
typedef struct {
    int size;   /* bytes of a value */
    int width;  /* values of a vector */
    int lanes;  /* of a step */
    int block;  /* values of a block */
    /* The moments of one block, `rows` runs of n values each. `shift` is a value about which to sum; it's bettered. */
    Moments (*block_moments)(const void *x, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t pitch, int far, Rule rule,
                             int estimate, double *shift);
    /* The same of `rows` <= TOGETHER blocks, each one run: m (rows). */
    void (*row_moments)(const void *x, ptrdiff_t n, int rows, ptrdiff_t pitch, int far, Rule rule, Moments *m);
    /* Mean and m2 of each of `columns`, known for `count` lines, with `lines` <= ROWS more. */
    void (*column_moments)(const void *x, ptrdiff_t pitch, int lines, ptrdiff_t columns, int far, Rule rule,
                           double count, double *mean, double *m2);
    /* high, scale, shift (n each) of channels: scale with weight and shift with bias, either may be NULL. */
    void (*channel_coefficients)(ptrdiff_t n, const double *mean, const double *var, double eps, const void *weight,
                                 const void *bias, void *high, void *scale, void *shift);
    /* y = (x - high) * scale + shift: `rows` lines of n values, coefficient i * step for line i. */
    void (*apply_constant)(const void *x, void *y, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t x_pitch, ptrdiff_t y_pitch,
                           const void *high, const void *scale, const void *shift, int step, Traffic t);
    /* y = ((x - high) * scale + shift) * weight + bias: the first three of a line, weight and bias along it. */
    void (*apply_along)(const void *x, void *y, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t x_pitch, ptrdiff_t y_pitch,
                        const void *high, const void *scale, const void *shift, const void *weight, const void *bias,
                        Traffic t);
    /* y = (x - high) * scale + shift, these along the line. */
    void (*apply_columns)(const void *x, void *y, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t x_pitch, ptrdiff_t y_pitch,
                          const void *high, const void *scale, const void *shift, Traffic t);
    /* y = ((x - high) * scale + shift) * weight + bias: the first three along the line; weight and bias one of each
       line, or, if `matrix` is not 0, along lines that far apart. */
    void (*apply_columns_along)(const void *x, void *y, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t x_pitch,
                                ptrdiff_t y_pitch, const void *high, const void *scale, const void *shift,
                                const void *weight, const void *bias, ptrdiff_t matrix, Traffic t);
} Lines;

/* To be called by the thread that streamed, before others read what it stored. */
#if defined(__SSE2__)
#define end_stream() _mm_sfence()
#else
#define end_stream()
#endif

/* From how many bytes of x and y on stores around the caches pay at the latest (a larger last-level cache is shared
   with others); 0 where there are none. */
#if defined(__linux__)
#include <unistd.h>
#endif
static ptrdiff_t stream_bytes(void) {
#if defined(__SSE2__)
    const long share = 96 << 20;
    long cache = 0;
#ifdef _SC_LEVEL3_CACHE_SIZE
    cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    return cache > 0 && cache < share ? cache : share;
#else
    return 0;
#endif
}

/* Mean and m2 of n columns together, each of `lines` values. */
static void merge_columns_of(const double *mean, const double *m2, ptrdiff_t n, double lines, double *joint_mean,
                             double *joint_m2) {
    enum { SUMS = 8 };
    double total[SUMS] = {0}, squares[SUMS] = {0}, sum = 0;
    const double first = mean[0];  /* from it on, so that a large mean costs no digits */
    ptrdiff_t i = 0;
    for (; i + SUMS <= n; i += SUMS)
        for (int j = 0; j < SUMS; j++)
            total[j] += mean[i + j] - first;
    for (; i < n; i++)
        total[0] += mean[i] - first;
    for (int j = 0; j < SUMS; j++)
        sum += total[j];
    sum = first + sum / (double) n;
    if (sum - sum != 0)  /* the Inf or NaN that all come to */
        for (i = 0, sum = 0; i < n; i++)
            sum += mean[i];
    for (i = 0; i + SUMS <= n; i += SUMS)
        for (int j = 0; j < SUMS; j++) {
            const double d = mean[i + j] - sum;
            squares[j] += m2[i + j] + lines * d * d;
        }
    for (; i < n; i++)
        squares[0] += m2[i] + lines * (mean[i] - sum) * (mean[i] - sum);
    *joint_mean = sum;
    *joint_m2 = ((squares[0] + squares[4]) + (squares[1] + squares[5]))
                + ((squares[2] + squares[6]) + (squares[3] + squares[7]));
}

#define R float
#define R_BYTES 4
#define INT int32_t
#define SUFFIX _ps
#define NAME(name) name##_float
#define LARGEST FLT_MAX
#include "lines.h"
#undef R
#undef R_BYTES
#undef INT
#undef SUFFIX
#undef NAME
#undef LARGEST

#define R double
#define R_BYTES 8
#define INT int64_t
#define SUFFIX _pd
#define NAME(name) name##_double
#define LARGEST DBL_MAX
#include "lines.h"
#undef R
#undef R_BYTES
#undef INT
#undef SUFFIX
#undef NAME
#undef LARGEST

static const Lines *const lines_of[] = {&lines_float, &lines_double};

#endif

#else

#include "vectors.h"

#define LANES (UNROLLED * WIDTH)
#define BLOCK (STEPS * LANES)
#define COLUMNS (TALL * WIDTH)

/* ---- Moments ---- */

/* The mean of the first values: a shift for their block that is seldom placed badly. */
ALWAYS R NAME(estimate)(const R *x, ptrdiff_t n) {
    VEC a = {0}, b = {0}, c = {0}, d = {0};
    if (n >= LANES) {
        n = n < GUESS ? LANES : GUESS;
        for (ptrdiff_t i = 0; i < n; i += LANES) {
            a += NAME(load)(x + i);
            b += NAME(load)(x + i + WIDTH);
            c += NAME(load)(x + i + 2 * WIDTH);
            d += NAME(load)(x + i + 3 * WIDTH);
        }
    } else {
        ptrdiff_t i = 0;
        for (; i + WIDTH <= n; i += WIDTH)
            a += NAME(load)(x + i);
        if (i < n)
            b = NAME(load_part)(x + i, (int) (n - i));
    }
    return (R) (NAME(fold)((a + b) + (c + d)) / (double) n);
}

/* total = sum d, squares = sum d^2 with d = x - k, over `rows` runs of n values: chains of CHAIN values in each lane,
   added pairwise to one vector, whose chain is STEPS / CHAIN long. */
ALWAYS void NAME(sums)(const R *x, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t pitch, int far, R k, double *total,
                       double *squares) {
    const VEC zero = {0};
    VEC s0 = zero, s1 = zero, s2 = zero, s3 = zero, q0 = zero, q1 = zero, q2 = zero, q3 = zero, s = zero, q = zero, d;
    const ptrdiff_t rest = n % LANES;
    const MASK mask = NAME(first)((int) (rest % WIDTH));
    int step = 0;
#define ADD(at, i)                                                                                                    \
    d = NAME(load)((at)) - k;                                                                                         \
    s##i += d;                                                                                                        \
    q##i += d * d;
#define JOIN                                                                                                          \
    s += (s0 + s1) + (s2 + s3);                                                                                       \
    q += (q0 + q1) + (q2 + q3);
    for (ptrdiff_t row = 0; row < rows; row++, x += pitch) {
        const R *p = x, *end = x + (n - rest);
        while (p < end) {
            if (far)
                for (int line = 0; line < LANES * R_BYTES; line += 64)
                    __builtin_prefetch((const char *) p + AHEAD + line);
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
                for (int line = 0; line < LANES * R_BYTES; line += 64)
                    __builtin_prefetch((const char *) p + AHEAD + line);
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
                d = NAME(kept)(NAME(load_part)(p, (int) left) - k, mask);
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
static __attribute__((noinline, cold)) Moments NAME(exact)(const R *x, ptrdiff_t stride, ptrdiff_t n, ptrdiff_t rows,
                                                           ptrdiff_t pitch, int about_zero) {
    Moments m = {(double) n * (double) rows, 0, 0};
    double total = 0, rest = 0, squares = 0;
    int different = 0;
    for (ptrdiff_t row = 0; row < rows; row++)
        for (ptrdiff_t i = 0; i < n; i++) {
            different |= x[row * pitch + i * stride] != x[0];
            total += x[row * pitch + i * stride];
        }
    m.mean = about_zero ? 0 : total / m.count;
    if (!different && !about_zero) {
        m.mean = x[0];
        m.m2 = x[0] - x[0];  /* NaN for Inf */
        return m;
    }
    for (ptrdiff_t row = 0; row < rows; row++)
        for (ptrdiff_t i = 0; i < n; i++) {
            const double d = x[row * pitch + i * stride] - m.mean;
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

ALWAYS Moments NAME(settled)(const R *x, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t pitch, int far, Rule rule, R *k,
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
    const R *x = source;
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
ALWAYS void NAME(column_sums)(const R *x, ptrdiff_t pitch, int lines, const int vectors, int part, ptrdiff_t next,
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
                    const VEC d = (part ? NAME(load_part)(x, part) : NAME(load)(x + v * WIDTH)) - k[v];
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
static void NAME(tile_sums)(const R *x, ptrdiff_t pitch, int lines, int columns, ptrdiff_t next, const R *k, R *s,
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
    const int sample = lines > 2 * CHAIN ? 2 * CHAIN : lines < CHAIN ? lines : CHAIN;
    for (ptrdiff_t first = 0; first < columns; first += COLUMNS) {
        const R *x = (const R *) source + first;
        double *restrict mean = means + first, *restrict m2 = m2s + first;
        const int width = columns - first < COLUMNS ? (int) (columns - first) : COLUMNS;
        const ptrdiff_t next = far ? (columns - first > COLUMNS ? COLUMNS : lines * pitch - first) : 0;
        R k[COLUMNS] = {0}, s[COLUMNS], q[COLUMNS];
        double block_mean[COLUMNS], block_m2[COLUMNS];
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
        if (count == 0)
            for (int j = 0; j < width; j++) {
                mean[j] = block_mean[j];
                m2[j] = block_m2[j];
            }
        else
            for (int j = 0; j < width; j++) {
                const double delta = block_mean[j] - mean[j];
                mean[j] = NAME(moved)(mean[j], block_mean[j], delta * share);
                m2[j] += block_m2[j] + delta * delta * between;
            }
    }
}

/* ---- Coefficients ---- */

static void NAME(channel_coefficients)(ptrdiff_t n, const double *mean, const double *var, double eps,
                                       const void *weight, const void *bias, void *highs, void *scales,
                                       void *shifts) {
    const R *restrict w = weight, *restrict b = bias;
    R *restrict high = highs, *restrict scale = scales, *restrict shift = shifts;
    for (ptrdiff_t i = 0; i < n; i++) {
        const R h = (R) mean[i];
        const double rstd = 1 / sqrt(var[i] + eps), s = w ? rstd * w[i] : rstd, low = mean[i] - h;
        high[i] = h;
        scale[i] = (R) s;
        /* Inf has no low part, and none at all is not to meet an infinite scale. */
        shift[i] = (R) ((b ? (double) b[i] : 0.0) - (low == low && low != 0 ? low * s : 0.0));
    }
}

/* ---- Apply ---- */

ALWAYS void NAME(put)(R *y, VEC v, const int streamed) {
    if (streamed)
        NAME(stream)(y, v);
    else
        NAME(store)(y, v);
}

ALWAYS void NAME(fetch)(const R *x, const R *y, const int vectors, ptrdiff_t ahead, const int streamed) {
    for (ptrdiff_t byte = ahead; byte < ahead + vectors * VECTOR_BYTES; byte += 64) {
        __builtin_prefetch((const char *) x + byte, 0);
        if (!streamed)
            __builtin_prefetch((const char *) y + byte, 1);
    }
}

/* Calls `f` with constants in the place of a line's traffic. */
#define WITH_TRAFFIC(f, y, pitch, t, ...)                                                                             \
    if ((t).streamed && ((size_t) (y) | (size_t) (pitch) * sizeof(R)) % VECTOR_BYTES == 0)                            \
        f(__VA_ARGS__, (t).ahead, 1);                                                                                 \
    else if ((t).ahead)                                                                                               \
        f(__VA_ARGS__, (t).ahead, 0);                                                                                         \
    else                                                                                                              \
        f(__VA_ARGS__, 0, 0)

ALWAYS void NAME(constant_lines)(const R *x, R *y, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t x_pitch, ptrdiff_t y_pitch,
                                 const R *high, const R *scale, const R *shift, int step, const ptrdiff_t ahead,
                                 const int streamed) {
    for (ptrdiff_t row = 0; row < rows; row++, x += x_pitch, y += y_pitch, high += step, scale += step, shift += step) {
        const R h = *high, s = *scale, b = *shift;
        ptrdiff_t i = 0;
        for (; i + LANES <= n; i += LANES) {
            if (ahead)
                NAME(fetch)(x + i, y + i, UNROLLED, ahead, streamed);
#pragma GCC unroll 4
            for (int v = 0; v < UNROLLED; v++)
                NAME(put)(y + i + v * WIDTH, (NAME(load)(x + i + v * WIDTH) - h) * s + b, streamed);
        }
        if (ahead && i < n)
            NAME(fetch)(x + i, y + i, UNROLLED, ahead, streamed);
        for (; i + WIDTH <= n; i += WIDTH)
            NAME(put)(y + i, (NAME(load)(x + i) - h) * s + b, streamed);
        if (i < n)
            NAME(store_part)(y + i, (NAME(load_part)(x + i, (int) (n - i)) - h) * s + b, (int) (n - i));
    }
}

static void NAME(apply_constant)(const void *x, void *y, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t x_pitch,
                                 ptrdiff_t y_pitch, const void *high, const void *scale, const void *shift, int step,
                                 Traffic t) {
    WITH_TRAFFIC(NAME(constant_lines), y, rows > 1 ? y_pitch : 0, t, x, y, n, rows, x_pitch, y_pitch, high, scale,
                 shift, step);
}

#define ALONG(x, w, b) ((((x) - h[r]) * s[r] + c[r]) * (w) + (b))

/* `lines` lines, a constant: they share what is loaded of weight and bias. */
ALWAYS void NAME(lines_along)(const R *x, R *y, ptrdiff_t n, const int lines, ptrdiff_t x_pitch, ptrdiff_t y_pitch,
                              const R *h, const R *s, const R *c, const R *weight, const R *bias, const ptrdiff_t ahead,
                              const int streamed) {
    ptrdiff_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH) {
        const VEC w = NAME(load)(weight + i), b = NAME(load)(bias + i);
#pragma GCC unroll 4
        for (int r = 0; r < lines; r++) {
            const R *p = x + r * x_pitch + i;
            R *o = y + r * y_pitch + i;
            if (ahead)
                NAME(fetch)(p, o, 1, ahead, streamed);
            NAME(put)(o, ALONG(NAME(load)(p), w, b), streamed);
        }
    }
    if (i < n) {
        const int rest = (int) (n - i);
        const VEC w = NAME(load_part)(weight + i, rest), b = NAME(load_part)(bias + i, rest);
        for (int r = 0; r < lines; r++)
            NAME(store_part)(y + r * y_pitch + i, ALONG(NAME(load_part)(x + r * x_pitch + i, rest), w, b), rest);
    }
}

ALWAYS void NAME(rows_along)(const R *x, R *y, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t x_pitch, ptrdiff_t y_pitch,
                             const R *high, const R *scale, const R *shift, const R *weight, const R *bias,
                             const ptrdiff_t ahead, const int streamed) {
    ptrdiff_t row = 0;
    for (; !ahead && row + 4 <= rows; row += 4)
        NAME(lines_along)(x + row * x_pitch, y + row * y_pitch, n, 4, x_pitch, y_pitch, high + row, scale + row,
                          shift + row, weight, bias, ahead, streamed);
    for (; row < rows; row++)
        NAME(lines_along)(x + row * x_pitch, y + row * y_pitch, n, 1, x_pitch, y_pitch, high + row, scale + row,
                          shift + row, weight, bias, ahead, streamed);
}

static void NAME(apply_along)(const void *x, void *y, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t x_pitch,
                              ptrdiff_t y_pitch, const void *high, const void *scale, const void *shift,
                              const void *weight, const void *bias, Traffic t) {
    WITH_TRAFFIC(NAME(rows_along), y, rows > 1 ? y_pitch : 0, t, x, y, n, rows, x_pitch, y_pitch, high, scale, shift,
                 weight, bias);
}

/* A tile of `vectors` vectors (a constant; the one is of `part` values if not 0) down the lines: its coefficients stay
   in registers. */
ALWAYS void NAME(tile_columns)(const R *x, R *y, ptrdiff_t rows, ptrdiff_t x_pitch, ptrdiff_t y_pitch,
                               const int vectors, int part, const R *high, const R *scale, const R *shift,
                               const ptrdiff_t ahead, const int streamed) {
    VEC h[UNROLLED], s[UNROLLED], b[UNROLLED];
    for (int v = 0; v < vectors; v++) {
        h[v] = part ? NAME(load_part)(high, part) : NAME(load)(high + v * WIDTH);
        s[v] = part ? NAME(load_part)(scale, part) : NAME(load)(scale + v * WIDTH);
        b[v] = part ? NAME(load_part)(shift, part) : NAME(load)(shift + v * WIDTH);
    }
    for (ptrdiff_t row = 0; row < rows; row++, x += x_pitch, y += y_pitch) {
        if (ahead)
            NAME(fetch)(x, y, vectors, ahead, streamed);
        for (int v = 0; v < vectors; v++) {
            if (part)
                NAME(store_part)(y, (NAME(load_part)(x, part) - h[v]) * s[v] + b[v], part);
            else
                NAME(put)(y + v * WIDTH, (NAME(load)(x + v * WIDTH) - h[v]) * s[v] + b[v], streamed);
        }
    }
}

ALWAYS void NAME(rows_columns)(const R *x, R *y, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t x_pitch, ptrdiff_t y_pitch,
                               const R *high, const R *scale, const R *shift, const ptrdiff_t ahead, const int streamed) {
    const ptrdiff_t chunk = n <= LANES ? rows : ahead ? 1 : TILE_ROWS;
#define TILE(vectors, part, streamed)                                                                                 \
    NAME(tile_columns)(x + i, y + i, tall, x_pitch, y_pitch, vectors, part, high + i, scale + i, shift + i, ahead,    \
                       streamed)
    for (ptrdiff_t row = 0; row < rows; row += chunk, x += chunk * x_pitch, y += chunk * y_pitch) {
        const ptrdiff_t tall = rows - row < chunk ? rows - row : chunk;
        ptrdiff_t i = 0;
        for (; i + LANES <= n; i += LANES)
            TILE(UNROLLED, 0, streamed);
        for (; i + WIDTH <= n; i += WIDTH)
            TILE(1, 0, streamed);
        if (i < n)
            TILE(1, (int) (n - i), 0);
    }
#undef TILE
}

static void NAME(apply_columns)(const void *x, void *y, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t x_pitch,
                                ptrdiff_t y_pitch, const void *high, const void *scale, const void *shift,
                                Traffic t) {
    WITH_TRAFFIC(NAME(rows_columns), y, rows > 1 ? y_pitch : 0, t, x, y, n, rows, x_pitch, y_pitch, high, scale,
                 shift);
}

/* One vector down the lines; `matrix` as in Lines. */
ALWAYS void NAME(vector_along)(const R *x, R *y, ptrdiff_t rows, ptrdiff_t x_pitch, ptrdiff_t y_pitch, int part,
                               const R *high, const R *scale, const R *shift, const R *weight, const R *bias,
                               ptrdiff_t matrix) {
    const int r = 0;
    const VEC h[1] = {part ? NAME(load_part)(high, part) : NAME(load)(high)};
    const VEC s[1] = {part ? NAME(load_part)(scale, part) : NAME(load)(scale)};
    const VEC c[1] = {part ? NAME(load_part)(shift, part) : NAME(load)(shift)};
    for (ptrdiff_t row = 0; row < rows; row++, x += x_pitch, y += y_pitch) {
        const VEC v = part ? NAME(load_part)(x, part) : NAME(load)(x);
        VEC z;
        if (!matrix)
            z = ALONG(v, weight[row], bias[row]);
        else if (part)
            z = ALONG(v, NAME(load_part)(weight + row * matrix, part), NAME(load_part)(bias + row * matrix, part));
        else
            z = ALONG(v, NAME(load)(weight + row * matrix), NAME(load)(bias + row * matrix));
        if (part)
            NAME(store_part)(y, z, part);
        else
            NAME(store)(y, z);
    }
}

static void NAME(apply_columns_along)(const void *source, void *target, ptrdiff_t n, ptrdiff_t rows,
                                      ptrdiff_t x_pitch, ptrdiff_t y_pitch, const void *high, const void *scale,
                                      const void *shift, const void *weight, const void *bias, ptrdiff_t matrix,
                                      Traffic t) {
    const R *x = source, *h = high, *s = scale, *c = shift, *w = weight, *b = bias;
    R *y = target;
    ptrdiff_t i = 0;
    (void) t;
    for (; i + WIDTH <= n; i += WIDTH)
        NAME(vector_along)(x + i, y + i, rows, x_pitch, y_pitch, 0, h + i, s + i, c + i, matrix ? w + i : w,
                           matrix ? b + i : b, matrix);
    if (i < n)
        NAME(vector_along)(x + i, y + i, rows, x_pitch, y_pitch, (int) (n - i), h + i, s + i, c + i,
                           matrix ? w + i : w, matrix ? b + i : b, matrix);
}

static const Lines NAME(lines) = {
    sizeof(R),
    WIDTH,
    LANES,
    BLOCK,
    NAME(block_moments),
    NAME(row_moments),
    NAME(column_moments),
    NAME(channel_coefficients),
    NAME(apply_constant),
    NAME(apply_along),
    NAME(apply_columns),
    NAME(apply_columns_along),
};

#undef VEC
#undef MASK
#undef WIDTH
#undef LANES
#undef BLOCK
#undef COLUMNS
#undef ADD
#undef ALONG
#undef BADLY_PLACED
#undef OUT_OF_RANGE
#undef WITH_TRAFFIC

#endif
