/* Sums along lines of values of any type, for moments.  Compiled once per ISA level; below, the file includes itself
   once per element type.  What is walked, cut and shared is decided in statistics.pxi.

   Every value is a double in a lane, exactly (a 64-bit integer is two).  A line adds to S = sum x and to
   Q = sum (x - k)^2; the shift k is 0 where the first block's mean is small beside its deviation, else that mean, about
   which its squares are added anew, from L1.  Values of 24 bits or less are added as they are: a block adds some 256 to
   a lane, so S and Q have 45 bits.  `careful` adds exactly: S in two parts (Knuth's two-sum), Q by Kahan; the integers' k
   is whole, so the sums of 8 and 16 bits are exact in any case.

   A conversion costs most, then what adds share with comparisons: floats are compared before they are widened, and
   quick sums are multiply-adds, which other units do.

   In the end mean = S/n and M2 = Q - (S - nk)^2/n.  A k that turned out to be far from the mean is found out then, and
   the part is summed again about its mean.  Parts are merged as pairs of doubles (Chan, Golub and LeVeque, 1983). */

#ifndef T

#ifndef CPUNORM_STATISTICS_H
#define CPUNORM_STATISTICS_H

#include <string.h>

#include "doubles.h"
#include "records.h"

/* The fields of what is summed: those of a record, sums in the place of moments, and the shift, in two parts for 64-bit
   integers. */
enum { SUM = MEAN, SUM_LOW, SQUARES, SQUARES_LOW, SHIFT = RECORD_FIELDS, SHIFT_LOW, SUM_FIELDS };

enum {
    WIDE_TILE = REGISTERS == 32 ? 2 : 1,  /* steps of a tile of columns */
    LONG_BLOCK = 256 * 4 * DOUBLES,       /* values of a block of a row */
    FIRST_BLOCK = LONG_BLOCK / 8,         /* of the first one, which may be read twice */
    TALL_BLOCK = 64,                      /* lines of a block of columns */
};

/* mean^2 / var of a first block up to which k = 0, which costs M2 no digits. */
static const double NEAR_ZERO = 0.25;

/* What is done along lines, per element; pitches in bytes. */
typedef struct {
    int size;     /* bytes of a value */
    int careful;  /* 1: always; 0: when asked for; -1: never needed, the sums are exact */
    /* Adds `runs` runs of n values each, `stride` bytes apart, to a column of `sums`. */
    void (*row)(const void *x, ptrdiff_t n, ptrdiff_t runs, ptrdiff_t stride, int careful, double *sums,
                ptrdiff_t pitch);
    /* Adds `lines` <= TALL_BLOCK lines to `columns` >= PAIR columns of `sums`; what is `ahead` bytes is fetched. */
    void (*columns)(const void *x, ptrdiff_t x_pitch, int lines, ptrdiff_t columns, ptrdiff_t ahead, int careful,
                    double *sums, ptrdiff_t pitch);
    /* y = x, n values. */
    void (*widen)(const void *x, ptrdiff_t n, double *y);
    /* y = (x - mean) * scale + shift as floats if `single`, else as doubles; around the caches if `streamed` and aligned.
       Coefficients are `step` apart: 0 or 1.  Whether an x isn't finite. */
    int (*apply)(const void *x, ptrdiff_t n, const double *mean, const double *scale, const double *shift, int step,
                  int single, int streamed, void *y);
} Summation;

/* Adds x + x_low to vector j of the two-part sums at p. */
ALWAYS void add_lanes(double *p, ptrdiff_t pitch, int j, int from, Doubles x, Doubles x_low) {
    Doubles sum = doubles_at(p + j * DOUBLES), low = doubles_at(p + pitch + j * DOUBLES);
    ADD_EXACTLY(Doubles, sum, low, x);
    put_lanes(p, j, from, sum);
    put_lanes(p + pitch, j, from, low + x_low);
}

/* Settles the shift of what was summed so far, a first block about 0; whether its squares are to be added anew. */
ALWAYS int place_shift(double *sums, ptrdiff_t pitch, double count, int whole, int in_parts) {
    const double sum = sums[SUM * pitch], low = sums[SUM_LOW * pitch], mean = (sum + low) / count;
    const double off = mean * mean * count, m2 = sums[SQUARES * pitch] - off;
    sums[SHIFT * pitch] = 0;
    if (mean - mean != 0 || off <= NEAR_ZERO * m2)
        return 0;
    sums[SHIFT * pitch] = whole ? rint(mean) : mean;
    if (in_parts)
        sums[SHIFT_LOW * pitch] = rint((low - product_minus(sums[SHIFT * pitch], count, sum)) / count);
    sums[SQUARES * pitch] = sums[SQUARES_LOW * pitch] = 0;
    return 1;
}

/* Moments of `n` columns from their sums; whether some were summed about a shift too far off. The shift is bettered. */
static int finish_sums(double *restrict sums, ptrdiff_t pitch, ptrdiff_t n, double limit, double *restrict record,
                       ptrdiff_t record_pitch) {
    int badly_placed = 0;
    /* In vectors: no field lies on another, and nothing is skipped. */
#pragma GCC ivdep
    for (ptrdiff_t i = 0; i < n; i++) {
        const double count = sums[COUNT * pitch + i], sum = sums[SUM * pitch + i], low = sums[SUM_LOW * pitch + i];
        const double squares = sums[SQUARES * pitch + i], squares_low = sums[SQUARES_LOW * pitch + i];
        const double least = sums[LEAST * pitch + i], most = sums[MOST * pitch + i];
        const double many = count > 0 ? count : 1;
        const double high = sum / many, rest = (low - product_minus(high, many, sum)) / many, mean = high + rest;
        const double shift = sums[SHIFT * pitch + i], shift_low = sums[SHIFT_LOW * pitch + i];
        /* (S - nk)^2 / n in two parts */
        const double apart = -product_minus(shift, many, sum), left = low - shift_low * many, t = apart + left;
        const double t_moved = t - apart, t_low = (apart - (t - t_moved)) + (left - t_moved);
        const double p = t * t, p_low = product_minus(t, t, p) + 2 * t * t_low, off = p / many;
        const double off_low = (p_low - product_minus(off, many, p)) / many;
        const double m2 = squares - off, moved = m2 - squares;
        const double m2_low = ((squares - (m2 - moved)) + (-off - moved)) + (squares_low - off_low);
        const double total = m2 + m2_low;
        const int finite = sum - sum == 0, both_infinite = (least == -INFINITY) & (most == INFINITY);
        /* NaN of lanes that overflowed to either side: infinite, as of those to one side, and summed again in other units. */
        const double reach = least < -most ? -least : most;
        const int overflowed = (sum != sum) & (reach <= DBL_MAX) & (count * reach > DBL_MAX);
        const int unordered = (sum != sum) & !both_infinite & !overflowed;
        badly_placed |= finite & (off > limit * m2) & (off > 0);
        record[COUNT * record_pitch + i] = count;
        const double odd = overflowed ? INFINITY : sum, unknown = finite ? INFINITY : NAN;
        const double known = total - total == 0 ? total : unknown;
        record[MEAN * record_pitch + i] = finite ? mean : odd;
        record[MEAN_LOW * record_pitch + i] = finite ? rest - (mean - high) : 0;
        record[M2 * record_pitch + i] = (count == 0) | (m2 <= 0) ? 0 : known;
        record[M2_LOW * record_pitch + i] = (m2 > 0) & (total - total == 0) ? m2_low - (total - m2) : 0;
        record[LEAST * record_pitch + i] = unordered ? NAN : least;
        record[MOST * record_pitch + i] = unordered ? NAN : most;
    }
    return badly_placed;
}

/* The values of x where `where` isn't 0 (it may be NULL), but NaN if `omit`, one after the other; how many. */
#define CHOOSE(type, is_nan)                                                                                          \
    for (ptrdiff_t i = 0; i < n; i++) {                                                                               \
        const type value = *(const type *) (x + i * stride);                                                          \
        ((type *) target)[count] = value;                                                                             \
        count += (!where || where[i * where_stride]) & !(omit && (is_nan));                                           \
    }
static ptrdiff_t choose_values(char *target, const char *x, ptrdiff_t stride, const uint8_t *where,
                               ptrdiff_t where_stride, ptrdiff_t n, int element, int size, int omit) {
    enum { F32, F64, F16, BF16 };
    ptrdiff_t count = 0;
    if (element == F32)
        CHOOSE(float, value != value)
    else if (element == F64)
        CHOOSE(double, value != value)
    else if (size == 2)
        CHOOSE(uint16_t, (value & 0x7fff) > (element == F16 ? 0x7c00 : 0x7f80))
    else if (size == 1)
        CHOOSE(uint8_t, 0)
    else if (size == 4)
        CHOOSE(uint32_t, 0)
    else
        CHOOSE(uint64_t, 0)
    return count;
}
#undef CHOOSE

#define FLOATS 1
#define T float
#define NAME(name) name##_f32
#define CAREFUL 0
#define WHOLE 0
#define PARTS 1
#include "statistics.h"
#undef T
#undef NAME

#define T uint16_t
#define NAME(name) name##_bf16
#include "statistics.h"
#undef NAME
#undef CAREFUL

#define NAME(name) name##_f16
#define CAREFUL -1
#include "statistics.h"
#undef T
#undef NAME
#undef WHOLE
#undef FLOATS

#define FLOATS 0
#define WHOLE 1
#define T uint8_t
#define NAME(name) name##_u8
#include "statistics.h"
#undef T
#undef NAME

#define T int8_t
#define NAME(name) name##_i8
#include "statistics.h"
#undef T
#undef NAME

#define T uint16_t
#define NAME(name) name##_u16
#include "statistics.h"
#undef T
#undef NAME

#define T int16_t
#define NAME(name) name##_i16
#include "statistics.h"
#undef T
#undef NAME
#undef CAREFUL

#define CAREFUL 1
#define T uint32_t
#define NAME(name) name##_u32
#include "statistics.h"
#undef T
#undef NAME

#define T int32_t
#define NAME(name) name##_i32
#include "statistics.h"
#undef T
#undef NAME
#undef PARTS

#define PARTS 2
#define T uint64_t
#define NAME(name) name##_u64
#include "statistics.h"
#undef T
#undef NAME

#define T int64_t
#define NAME(name) name##_i64
#include "statistics.h"
#undef T
#undef NAME
#undef PARTS
#undef WHOLE

#define PARTS 1
#define WHOLE 0
#define T double
#define NAME(name) name##_f64
#include "statistics.h"
#undef T
#undef NAME
#undef PARTS
#undef WHOLE
#undef CAREFUL
#undef FLOATS

static const Summation *const summation_of[] = {
    &summation_f32, &summation_f64, &summation_f16, &summation_bf16, &summation_u8,  &summation_i8,
    &summation_u16, &summation_i16, &summation_u32, &summation_i32,  &summation_u64, &summation_i64,
};

#endif

#else

/* A step: PAIR values at p, as floats if they are compared so, and their halves as doubles. */
#if FLOATS
#define SEEN(p) NAME(singles)(p)
#define PART(p, seen, half) (sizeof(T) == 4 ? from_f32((const float *) (p) + (half) * DOUBLES)                        \
                                            : (half) ? high_half(seen) : low_half(seen))
#else
#define SEEN(p) (Singles) {0}
#define PART(p, seen, half) NAME(from)((p) + (half) * DOUBLES)
#endif
#if PARTS == 2
#define REST(p, half) low_of(*(const LooseULongs *) ((p) + (half) * DOUBLES))
#else
#define REST(p, half) (Doubles) {0}
#endif

/* Adds one vector, or its `lanes` if `mask`, to sums v in registers, about k or 0; the other lanes hold values that are
   among them.  `what` is one of these. */
enum { NAME(ABOUT_0), NAME(ABOUT_K), NAME(SQUARES_ABOUT_K) };
#define ADD_VECTOR(mask, lanes, high, rest, k, k_low, v)                                                              \
    do {                                                                                                              \
        const Doubles h_ = (mask) ? chosen_lanes(high, lanes) : (high);                                               \
        const Doubles r_ = (mask) ? chosen_lanes(rest, lanes) : (rest);                                               \
        if (what != NAME(SQUARES_ABOUT_K)) {                                                                          \
            if (!FLOATS) {                                                                                            \
                const Doubles value_ = PARTS == 2 ? (high) + (rest) : (high);                                         \
                least[v] = lesser(value_, least[v]);                                                                  \
                most[v] = greater(value_, most[v]);                                                                   \
            }                                                                                                         \
            if (careful) {                                                                                            \
                ADD_EXACTLY(Doubles, s[v], s_low[v], h_);                                                             \
                if (PARTS == 2)                                                                                       \
                    ADD_EXACTLY(Doubles, s[v], s_low[v], r_);                                                         \
            } else                                                                                                    \
                s[v] = h_ * one + s[v];                                                                               \
        }                                                                                                             \
        Doubles d_ = what == NAME(ABOUT_0) ? h_ : (high) * one - (k);                                                 \
        if (PARTS == 2)                                                                                               \
            d_ += what == NAME(ABOUT_0) ? r_ : (rest) - (k_low);                                                      \
        if ((mask) && what != NAME(ABOUT_0))                                                                          \
            d_ = chosen_lanes(d_, lanes);                                                                             \
        if (careful)                                                                                                  \
            ADD_SQUARE(q[v], q_low[v], d_);                                                                           \
        else                                                                                                          \
            q[v] = d_ * d_ + q[v];                                                                                    \
    } while (0)
#define ADD_STEP(p, mask, k, k_high, k_low, k_low_high, j, seen)                                                       \
    do {                                                                                                              \
        const T *p_ = (p);                                                                                            \
        const Singles seen_ = SEEN(p_);                                                                               \
        if (FLOATS && what != NAME(SQUARES_ABOUT_K)) {                                                                \
            low_singles[seen] = lesser_singles(seen_, low_singles[seen]);                                             \
            high_singles[seen] = greater_singles(seen_, high_singles[seen]);                                          \
        }                                                                                                             \
        ADD_VECTOR(mask, lanes, PART(p_, seen_, 0), REST(p_, 0), k, k_low, 2 * (j));                                  \
        ADD_VECTOR(mask, lanes_high, PART(p_, seen_, 1), REST(p_, 1), k_high, k_low_high, 2 * (j) + 1);               \
    } while (0)
#define NO_SUMS(steps)                                                                                                \
    Doubles s[2 * (steps)], s_low[2 * (steps)], q[2 * (steps)], q_low[2 * (steps)], least[2 * (steps)],               \
        most[2 * (steps)];                                                                                            \
    Singles low_singles[steps], high_singles[steps];                                                                  \
    const Doubles zero = {0}, one = unknown_one();                                                                    \
    for (int j = 0; j < (steps); j++) {                                                                               \
        low_singles[j] = (Singles) {0} + INFINITY;                                                                    \
        high_singles[j] = (Singles) {0} - INFINITY;                                                                   \
    }                                                                                                                 \
    for (int v = 0; v < 2 * (steps); v++) {                                                                           \
        s[v] = s_low[v] = q[v] = q_low[v] = zero;                                                                     \
        least[v] = splat(INFINITY), most[v] = splat(-INFINITY);                                                       \
    }                                                                                                                 \
    (void) one
#define LEAST_AND_MOST(steps)                                                                                         \
    if (FLOATS)                                                                                                       \
        for (int j = 0; j < (steps); j++) {                                                                           \
            least[2 * j] = low_half(low_singles[j]), least[2 * j + 1] = high_half(low_singles[j]);                    \
            most[2 * j] = low_half(high_singles[j]), most[2 * j + 1] = high_half(high_singles[j]);                    \
        }

/* Adds a block: runs of n values, `stride` bytes apart. */
ALWAYS void NAME(add_rows)(const char *x, ptrdiff_t n, ptrdiff_t runs, ptrdiff_t stride, int what, int careful,
                           double *sums, ptrdiff_t pitch) {
    enum { STEPS = 2, VECTORS = 2 * STEPS };
    const int second = what == NAME(ABOUT_0);  /* about k, 16 registers have no room for comparisons of their own */
    const Doubles k = splat(sums[SHIFT * pitch]), k_low = splat(sums[SHIFT_LOW * pitch]);
    const int from = (int) (PAIR - n % PAIR), few = n < PAIR;  /* of the last values some were added, if there are more */
    const Longs lanes = few ? ~lanes_from((int) n) : lanes_from(from);
    const Longs lanes_high = few ? ~lanes_from((int) n - DOUBLES) : lanes_from(from - DOUBLES);
    NO_SUMS(STEPS);
    for (; runs > 0; runs--, x += stride) {
        const T *line = (const T *) x;
        ptrdiff_t i = 0;
        for (; i + STEPS * PAIR <= n; i += STEPS * PAIR) {
            ADD_STEP(line + i, 0, k, k, k_low, k_low, 0, 0);
            ADD_STEP(line + i + PAIR, 0, k, k, k_low, k_low, 1, second);
        }
        if (i + PAIR <= n) {
            ADD_STEP(line + i, 0, k, k, k_low, k_low, 0, 0);
            i += PAIR;
        }
        if (i < n) {
            const T *p = line + n - PAIR;
            T last[PAIR];
            if (few) {
                for (int j = 0; j < PAIR; j++)
                    last[j] = line[j < n ? j : 0];
                p = last;
            }
            ADD_STEP(p, 1, k, k, k_low, k_low, 1, second);
        }
    }
    double squares = sums[SQUARES * pitch], squares_low = sums[SQUARES_LOW * pitch];
    if (what != NAME(SQUARES_ABOUT_K)) {
        double sum = sums[SUM * pitch], low = sums[SUM_LOW * pitch];
        LEAST_AND_MOST(STEPS)
        const double smallest = least_of(lesser(lesser(least[0], least[1]), lesser(least[2], least[3])));
        const double largest = most_of(greater(greater(most[0], most[1]), greater(most[2], most[3])));
        if (smallest < sums[LEAST * pitch])
            sums[LEAST * pitch] = smallest;
        if (largest > sums[MOST * pitch])
            sums[MOST * pitch] = largest;
        if (careful) {
            for (int v = 1; v < VECTORS; v++) {
                ADD_EXACTLY(Doubles, s[0], s_low[0], s[v]);
                s_low[0] += s_low[v];
            }
            for (int j = 0; j < DOUBLES; j++)
                ADD_EXACTLY(double, sum, low, s[0][j]);
            low += total_of(s_low[0]);
        } else
            ADD_EXACTLY(double, sum, low, total_of((s[0] + s[1]) + (s[2] + s[3])));
        sums[SUM * pitch] = sum, sums[SUM_LOW * pitch] = low;
    }
    if (careful) {
        Doubles rest = -q_low[0];
        for (int v = 1; v < VECTORS; v++) {
            ADD_EXACTLY(Doubles, q[0], rest, q[v]);
            rest -= q_low[v];
        }
        for (int j = 0; j < DOUBLES; j++)
            ADD_EXACTLY(double, squares, squares_low, q[0][j]);
        squares_low += total_of(rest);
    } else
        ADD_EXACTLY(double, squares, squares_low, total_of((q[0] + q[1]) + (q[2] + q[3])));
    sums[SQUARES * pitch] = squares, sums[SQUARES_LOW * pitch] = squares_low;
}

ALWAYS void NAME(rows_of)(const char *x, ptrdiff_t n, ptrdiff_t runs, ptrdiff_t stride, int careful, double *sums,
                          ptrdiff_t pitch) {
    double *shift = sums + SHIFT * pitch;
    for (ptrdiff_t some; runs > 0; runs -= some, x += some * stride) {
        const ptrdiff_t whole = *shift != *shift || n >= LONG_BLOCK ? 1 : LONG_BLOCK / n;
        some = runs < whole ? runs : whole;
        for (ptrdiff_t i = 0, many; i < n; i += many) {
            const int placed = *shift == *shift;
            const ptrdiff_t most = placed ? LONG_BLOCK : FIRST_BLOCK;
            const char *block = x + i * (ptrdiff_t) sizeof(T);
            many = n - i < most ? n - i : most;
            sums[COUNT * pitch] += (double) (many * some);
            if (placed && *shift != 0) {
                NAME(add_rows)(block, many, some, stride, NAME(ABOUT_K), careful, sums, pitch);
                continue;
            }
            NAME(add_rows)(block, many, some, stride, NAME(ABOUT_0), careful, sums, pitch);
            if (!placed && place_shift(sums, pitch, (double) many, WHOLE, PARTS == 2))
                NAME(add_rows)(block, many, some, stride, NAME(SQUARES_ABOUT_K), careful, sums, pitch);
        }
    }
}

static void NAME(row)(const void *x, ptrdiff_t n, ptrdiff_t runs, ptrdiff_t stride, int careful, double *sums,
                      ptrdiff_t pitch) {
#if CAREFUL == 0
    if (careful)
        NAME(rows_of)(x, n, runs, stride, 1, sums, pitch);
    else
#endif
        NAME(rows_of)(x, n, runs, stride, CAREFUL == 1, sums, pitch);
}

/* Adds lines to the neighbouring columns of `steps` steps; of the last one, from lane `from` on.  With each line as many
   bytes are fetched from `next` on, and that moves on. */
ALWAYS void NAME(add_columns)(const char *x, ptrdiff_t x_pitch, int lines, const int steps, int from, const char *next,
                              ptrdiff_t next_pitch, int what, int careful, double *sums, ptrdiff_t pitch) {
    const Longs lanes = {0}, lanes_high = {0};
    Doubles k[2 * WIDE_TILE], k_low[2 * WIDE_TILE];
    NO_SUMS(WIDE_TILE);
    for (int v = 0; v < 2 * steps; v++) {
        k[v] = doubles_at(sums + SHIFT * pitch + v * DOUBLES);
        k_low[v] = PARTS == 2 ? doubles_at(sums + SHIFT_LOW * pitch + v * DOUBLES) : zero;
    }
    for (int line = 0; line < lines; line++, x += x_pitch) {
        if (next) {
#pragma GCC unroll 4
            for (int byte = 0; byte < steps * PAIR * (int) sizeof(T); byte += 64)
                __builtin_prefetch(next + byte);
            next += next_pitch;
        }
#pragma GCC unroll 2
        for (int j = 0; j < steps; j++)
            ADD_STEP((const T *) x + j * PAIR, 0, k[2 * j], k[2 * j + 1], k_low[2 * j], k_low[2 * j + 1], j, j);
    }
    LEAST_AND_MOST(steps)
    for (int v = 0; v < 2 * steps; v++) {
        const int first = from - v * DOUBLES;
        if (what != NAME(SQUARES_ABOUT_K)) {
            add_lanes(sums + SUM * pitch, pitch, v, first, s[v], careful ? s_low[v] : zero);
            put_lanes(sums + LEAST * pitch, v, first, lesser(least[v], doubles_at(sums + LEAST * pitch + v * DOUBLES)));
            put_lanes(sums + MOST * pitch, v, first, greater(most[v], doubles_at(sums + MOST * pitch + v * DOUBLES)));
        }
        add_lanes(sums + SQUARES * pitch, pitch, v, first, q[v], careful ? -q_low[v] : zero);
    }
}

ALWAYS void NAME(tile)(const char *x, ptrdiff_t x_pitch, int lines, const int steps, int from,
                       const char *next, ptrdiff_t next_pitch, int careful, double *sums, ptrdiff_t pitch) {
    const int placed = sums[SHIFT * pitch + from] == sums[SHIFT * pitch + from];
    int shifted = 0;
    if (placed)
        for (int i = 0; i < steps * PAIR; i++)
            shifted |= sums[SHIFT * pitch + i] != 0;
    if (shifted) {
        NAME(add_columns)(x, x_pitch, lines, steps, from, next, next_pitch, NAME(ABOUT_K), careful, sums, pitch);
        return;
    }
    NAME(add_columns)(x, x_pitch, lines, steps, from, next, next_pitch, NAME(ABOUT_0), careful, sums, pitch);
    if (!placed) {
        for (int i = from; i < steps * PAIR; i++)
            shifted |= place_shift(sums + i, pitch, lines, WHOLE, PARTS == 2);
        if (shifted) {
            for (int i = from; i < steps * PAIR; i++)
                sums[SQUARES * pitch + i] = sums[SQUARES_LOW * pitch + i] = 0;
            NAME(add_columns)(x, x_pitch, lines, steps, from, NULL, 0, NAME(SQUARES_ABOUT_K), careful, sums, pitch);
        }
    }
}

ALWAYS void NAME(columns_of)(const char *x, ptrdiff_t x_pitch, int lines, ptrdiff_t columns, ptrdiff_t ahead,
                             int careful, double *sums, ptrdiff_t pitch) {
    /* Of lines that follow each other each tile fetches a stretch: memory likes those, and to be asked steadily. */
    const int dense = x_pitch == columns * (ptrdiff_t) sizeof(T);
    for (ptrdiff_t c = 0, step; c < columns; c += step) {
        const int wide = WIDE_TILE > 1 && c + WIDE_TILE * PAIR <= columns;
        step = (wide ? WIDE_TILE : 1) * PAIR;
        const ptrdiff_t at = c + step <= columns ? c : columns - step;  /* the last ones beside columns that are done */
        const char *next = ahead && at == c ? x + ahead + c * (ptrdiff_t) sizeof(T) * (dense ? lines : 1) : NULL;
        const ptrdiff_t next_pitch = dense ? step * (ptrdiff_t) sizeof(T) : x_pitch;
        if (wide)
            NAME(tile)(x + at * sizeof(T), x_pitch, lines, WIDE_TILE, 0, next, next_pitch, careful, sums + at, pitch);
        else
            NAME(tile)(x + at * sizeof(T), x_pitch, lines, 1, (int) (c - at), next, next_pitch, careful, sums + at, pitch);
    }
}

static void NAME(columns)(const void *x, ptrdiff_t x_pitch, int lines, ptrdiff_t columns, ptrdiff_t ahead, int careful,
                          double *sums, ptrdiff_t pitch) {
#if CAREFUL == 0
    if (careful)
        NAME(columns_of)(x, x_pitch, lines, columns, ahead, 1, sums, pitch);
    else
#endif
        NAME(columns_of)(x, x_pitch, lines, columns, ahead, CAREFUL == 1, sums, pitch);
}

/* A step of `apply`, of `widen` where step < 0. */
ALWAYS void NAME(apply_step)(const T *p, const double *mean, const double *scale, const double *shift, const int step,
                             const int single, const int streamed, Doubles *rest, char *y) {
    const Singles seen = SEEN(p);
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        const int at = half * DOUBLES;
        Doubles v = PART(p, seen, half);
        if (PARTS == 2)
            v += REST(p, half);
        if (!WHOLE && step >= 0)
            *rest = v * 0.0 + *rest;
        if (step == 0)
            v = (v - splat(*mean)) * splat(*scale) + splat(*shift);
        else if (step > 0)
            v = (v - doubles_at(mean + at)) * doubles_at(scale + at) + doubles_at(shift + at);
        if (single)
            put_as_singles((float *) y + at, v, streamed);
        else
            put_as_doubles((double *) y + at, v, streamed);
    }
}

ALWAYS int NAME(apply_line)(const T *x, ptrdiff_t n, const double *mean, const double *scale, const double *shift,
                             const int step, const int single, const int streamed, char *y) {
    const ptrdiff_t size = single ? sizeof(float) : sizeof(double);
    Doubles rest = {0};  /* 0 for all that is finite, else NaN */
    ptrdiff_t i = 0;
    for (; i + PAIR <= n; i += PAIR)
        NAME(apply_step)(x + i, mean + (step > 0 ? i : 0), scale + (step > 0 ? i : 0), shift + (step > 0 ? i : 0), step,
                         single, streamed, &rest, y + i * size);
    if (i < n) {
        const size_t left = n - i;
        double coefficients[3][PAIR] = {{0}};
        T last[PAIR] = {0};
        char result[PAIR * sizeof(double)];
        memcpy(last, x + i, left * sizeof(T));
        for (size_t j = 0; j < left && step >= 0; j++) {
            coefficients[0][j] = mean[step ? i + j : 0];
            coefficients[1][j] = scale[step ? i + j : 0];
            coefficients[2][j] = shift[step ? i + j : 0];
        }
        NAME(apply_step)(last, coefficients[0], coefficients[1], coefficients[2], step, single, 0, &rest, result);
        memcpy(y + i * size, result, left * size);
    }
    return total_of(rest) != 0;
}

static void NAME(widen)(const void *x, ptrdiff_t n, double *y) {
    NAME(apply_line)(x, n, NULL, NULL, NULL, -1, 0, 0, (char *) y);
}

static int NAME(apply)(const void *x, ptrdiff_t n, const double *mean, const double *scale, const double *shift,
                       int step, int single, int streamed, void *y) {
    streamed = streamed && (uintptr_t) y % VECTOR_BYTES == 0;
    if (step && single)
        return NAME(apply_line)(x, n, mean, scale, shift, 1, 1, streamed, y);
    if (step)
        return NAME(apply_line)(x, n, mean, scale, shift, 1, 0, streamed, y);
    if (single)
        return NAME(apply_line)(x, n, mean, scale, shift, 0, 1, streamed, y);
    return NAME(apply_line)(x, n, mean, scale, shift, 0, 0, streamed, y);
}

static const Summation NAME(summation) = {sizeof(T), CAREFUL, NAME(row), NAME(columns), NAME(widen), NAME(apply)};

#undef SEEN
#undef PART
#undef REST
#undef ADD_VECTOR
#undef ADD_STEP
#undef NO_SUMS
#undef LEAST_AND_MOST

#endif
