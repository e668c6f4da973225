/* Sums along lines of values of any type, for moments.  Compiled once per ISA level; below, the file includes itself
   once per element type.  What is walked, cut and shared is decided in statistics.pxi.

   Every value is a double in a lane, exactly (a 64-bit integer is two).  A line adds to S = sum x and to
   Q = sum (x - k)^2; the shift k is the mean of the first block, which is therefore read twice, from L1.  Values of 24 bits or less are
   added as they are: a block adds at most 128 to a lane, so S and Q have 46 bits.  `careful` adds exactly: S in two
   parts (Knuth's two-sum), Q by Kahan; the integers' k is whole, so the sums of 8 and 16 bits are exact in any case.

   In the end mean = S/n and M2 = Q - (S - nk)^2/n.  A k that turned out to be far from the mean is found out then, and
   the part is summed again about its mean.  Parts are merged as pairs of doubles (Chan, Golub and LeVeque, 1983). */

#ifndef T

#ifndef CPUNORM_STATISTICS_H
#define CPUNORM_STATISTICS_H

#include "lines.h"
#include "records.h"

/* The fields of what is summed: those of a record, sums in the place of moments, and the shift, in two parts for 64-bit
   integers. */
enum { SUM = MEAN, SUM_LOW, SQUARES, SQUARES_LOW, SHIFT = RECORD_FIELDS, SHIFT_LOW, SUM_FIELDS };

enum {
    DOUBLES = VECTOR_BYTES / 8,
    WIDE_TILE = REGISTERS == 32 ? 4 : 2,  /* vectors of a tile of columns */
    LONG_BLOCK = 128 * 4 * DOUBLES,       /* values of a block of a row */
    TALL_BLOCK = 64,                      /* lines of a block of columns */
};

typedef double Doubles __attribute__((vector_size(VECTOR_BYTES)));
typedef double LooseDoubles __attribute__((vector_size(VECTOR_BYTES), aligned(8), may_alias));
typedef int64_t Longs __attribute__((vector_size(VECTOR_BYTES)));
typedef uint64_t ULongs __attribute__((vector_size(VECTOR_BYTES)));

/* What is done along lines, per element; pitches in bytes. */
typedef struct {
    int size;     /* bytes of a value */
    int careful;  /* 1: always; 0: when asked for; -1: never needed, the sums are exact */
    /* Adds the n values of a row to column `at` of `sums`. */
    void (*row)(const void *x, ptrdiff_t n, int careful, double *sums, ptrdiff_t pitch);
    /* Adds `lines` <= TALL_BLOCK lines to `columns` >= DOUBLES columns of `sums`; what is `ahead` bytes is fetched. */
    void (*columns)(const void *x, ptrdiff_t x_pitch, int lines, ptrdiff_t columns, ptrdiff_t ahead, int careful,
                    double *sums, ptrdiff_t pitch);
    /* y = x, n values; to the next multiple of DOUBLES something is written. */
    void (*widen)(const void *x, ptrdiff_t n, double *y);
} Summation;

ALWAYS Doubles doubles_at(const double *p) { return *(const LooseDoubles *) p; }
ALWAYS void put_doubles(double *p, Doubles v) { *(LooseDoubles *) p = v; }
ALWAYS Doubles splat(double v) { return v - (Doubles) {0}; }
#if VECTOR_BYTES == 64
#define PD(name) _mm512_##name##_pd
#elif VECTOR_BYTES == 32
#define PD(name) _mm256_##name##_pd
#else
#define PD(name) _mm_##name##_pd
#endif
/* The lesser and the greater; `b` where `a` is NaN. */
#if defined(__SSE2__)
ALWAYS Doubles lesser(Doubles a, Doubles b) { return (Doubles) PD(min)(a, b); }
ALWAYS Doubles greater(Doubles a, Doubles b) { return (Doubles) PD(max)(a, b); }
#else
ALWAYS Doubles lesser(Doubles a, Doubles b) {
    const Longs mask = a < b;
    return (Doubles) (((Longs) a & mask) | ((Longs) b & ~mask));
}
ALWAYS Doubles greater(Doubles a, Doubles b) {
    const Longs mask = a > b;
    return (Doubles) (((Longs) a & mask) | ((Longs) b & ~mask));
}
#endif

/* sum + low += x, exactly but for the rounding of low. */
#define ADD_EXACTLY(type, sum, low, x)                                                                                \
    do {                                                                                                              \
        const type before_ = (sum), x_ = (x);                                                                         \
        const type total_ = before_ + x_, moved_ = total_ - before_;                                                  \
        (low) += (before_ - (total_ - moved_)) + (x_ - moved_);                                                       \
        (sum) = total_;                                                                                               \
    } while (0)
/* sum - low += d^2 (Kahan). */
#define ADD_SQUARE(sum, low, d)                                                                                       \
    do {                                                                                                              \
        const Doubles y_ = (d) * (d) - (low), total_ = (sum) + y_;                                                    \
        (low) = (total_ - (sum)) - y_;                                                                                \
        (sum) = total_;                                                                                               \
    } while (0)

/* All ones in the lanes from `from` on. */
ALWAYS Longs lanes_from(int from) {
    Longs lanes;
    for (int lane = 0; lane < DOUBLES; lane++)
        lanes[lane] = lane;
    return lanes >= (int64_t) from;
}
ALWAYS Doubles chosen_lanes(Doubles v, Longs lanes) { return (Doubles) ((Longs) v & lanes); }

/* The sum, the least and the most of all lanes: halves against halves. */
#if VECTOR_BYTES == 64
#define IN_HALVES(name, of)                                                                                           \
    ALWAYS double name(Doubles v) {                                                                                   \
        const __m256d a = _mm512_castpd512_pd256((__m512d) v), b = _mm512_extractf64x4_pd((__m512d) v, 1);             \
        const __m256d c = of(256, a, b);                                                                              \
        const __m128d d = of(, _mm256_castpd256_pd128(c), _mm256_extractf128_pd(c, 1));                                \
        return _mm_cvtsd_f64(of(, d, _mm_unpackhi_pd(d, d)));                                                          \
    }
#elif VECTOR_BYTES == 32
#define IN_HALVES(name, of)                                                                                           \
    ALWAYS double name(Doubles v) {                                                                                   \
        const __m128d d = of(, _mm256_castpd256_pd128((__m256d) v), _mm256_extractf128_pd((__m256d) v, 1));            \
        return _mm_cvtsd_f64(of(, d, _mm_unpackhi_pd(d, d)));                                                          \
    }
#endif
#if VECTOR_BYTES > 16
#define SUM_OF(size, a, b) _mm##size##_add_pd(a, b)
#define LEAST_OF(size, a, b) _mm##size##_min_pd(a, b)
#define MOST_OF(size, a, b) _mm##size##_max_pd(a, b)
IN_HALVES(total_of, SUM_OF)
IN_HALVES(least_of, LEAST_OF)
IN_HALVES(most_of, MOST_OF)
#else
ALWAYS double total_of(Doubles v) { return v[0] + v[1]; }
ALWAYS double least_of(Doubles v) { return v[0] < v[1] ? v[0] : v[1]; }
ALWAYS double most_of(Doubles v) { return v[0] > v[1] ? v[0] : v[1]; }
#endif

/* Writes a vector's lanes from `from` on. */
ALWAYS void put_lanes(double *p, int j, int from, Doubles v) {
    p += j * DOUBLES;
    if (from) {
        const Longs lanes = lanes_from(from);
        v = (Doubles) (((Longs) v & lanes) | ((Longs) doubles_at(p) & ~lanes));
    }
    put_doubles(p, v);
}

/* Adds x + x_low to vector j of the two-part sums at p. */
ALWAYS void add_lanes(double *p, ptrdiff_t pitch, int j, int from, Doubles x, Doubles x_low) {
    Doubles sum = doubles_at(p + j * DOUBLES), low = doubles_at(p + pitch + j * DOUBLES);
    ADD_EXACTLY(Doubles, sum, low, x);
    put_lanes(p, j, from, sum);
    put_lanes(p + pitch, j, from, low + x_low);
}

/* The shift of what was summed so far, a first block: its mean, near 0 if that isn't finite. */
ALWAYS void place_shift(double *sums, ptrdiff_t pitch, double count, int whole, int in_parts) {
    const double sum = sums[SUM * pitch], low = sums[SUM_LOW * pitch], mean = (sum + low) / count;
    const double shift = mean - mean != 0 ? 0 : whole ? rint(mean) : mean;
    sums[SHIFT * pitch] = shift;
    if (in_parts)
        sums[SHIFT_LOW * pitch] = rint((low - product_minus(shift, count, sum)) / count);
}

/* Moments of `n` columns from their sums; whether some were summed about a shift too far off. The shift is bettered. */
static int finish_sums(double *restrict sums, ptrdiff_t pitch, ptrdiff_t n, double limit, double *restrict record,
                       ptrdiff_t record_pitch) {
    int badly_placed = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        const double count = sums[COUNT * pitch + i], sum = sums[SUM * pitch + i], low = sums[SUM_LOW * pitch + i];
        const double squares = sums[SQUARES * pitch + i], squares_low = sums[SQUARES_LOW * pitch + i];
        const double least = sums[LEAST * pitch + i], most = sums[MOST * pitch + i];
        const double many = count > 0 ? count : 1;
        const double high = sum / many, rest = (low - product_minus(high, many, sum)) / many, mean = high + rest;
        const double shift = sums[SHIFT * pitch + i], shift_low = sums[SHIFT_LOW * pitch + i];
        const double t = (low - product_minus(shift, many, sum)) - shift_low * many, off = t * (t / many);
        const double m2 = squares - off, moved = m2 - squares;
        const double m2_low = ((squares - (m2 - moved)) + (-off - moved)) + squares_low, total = m2 + m2_low;
        const int finite = sum - sum == 0, both_infinite = least == -INFINITY && most == INFINITY;
        /* NaN of lanes that overflowed to either side: infinite, as of those to one side, and summed again in other units. */
        const double reach = least < -most ? -least : most;
        const int overflowed = sum != sum && reach <= DBL_MAX && count * reach > DBL_MAX;
        const int unordered = sum != sum && !both_infinite && !overflowed;
        badly_placed |= finite & (off > limit * m2) & (off > 0);
        record[COUNT * record_pitch + i] = count;
        record[MEAN * record_pitch + i] = finite ? mean : overflowed ? INFINITY : sum;
        record[MEAN_LOW * record_pitch + i] = finite ? rest - (mean - high) : 0;
        const double known = total - total == 0 ? total : finite ? INFINITY : NAN;
        record[M2 * record_pitch + i] = count == 0 || m2 <= 0 ? 0 : known;
        record[M2_LOW * record_pitch + i] = m2 > 0 && total - total == 0 ? m2_low - (total - m2) : 0;
        record[LEAST * record_pitch + i] = unordered ? NAN : least;
        record[MOST * record_pitch + i] = unordered ? NAN : most;
    }
    return badly_placed;
}

/* ---- One vector of each element as doubles ---- */

/* Half a register of 32-bit values, an eighth of bytes, a quarter of 16 bits. */
#if VECTOR_BYTES == 64
#define SINGLES_TO_DOUBLES(v) (Doubles) _mm512_cvtps_pd(v)
#define INTS_TO_DOUBLES(v) (Doubles) _mm512_cvtepi32_pd(v)
#define SINGLES_AT(p) _mm256_loadu_ps(p)
#define INTS_AT(p) _mm256_loadu_si256((const __m256i *) (p))
#define FROM_BYTES(kind, p) _mm256_cvtep##kind##8_epi32(_mm_loadl_epi64((const __m128i *) (p)))
#define FROM_SHORTS(kind, p) _mm256_cvtep##kind##16_epi32(_mm_loadu_si128((const __m128i *) (p)))
#define HALVES_AT(p) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) (p)))
#define BFLOATS_AT(p) _mm256_castsi256_ps(_mm256_slli_epi32(FROM_SHORTS(u, p), 16))
#elif VECTOR_BYTES == 32
#define SINGLES_TO_DOUBLES(v) (Doubles) _mm256_cvtps_pd(v)
#define INTS_TO_DOUBLES(v) (Doubles) _mm256_cvtepi32_pd(v)
#define SINGLES_AT(p) _mm_loadu_ps(p)
#define INTS_AT(p) _mm_loadu_si128((const __m128i *) (p))
#define FROM_BYTES(kind, p) _mm_cvtep##kind##8_epi32(_mm_loadu_si32(p))
#define FROM_SHORTS(kind, p) _mm_cvtep##kind##16_epi32(_mm_loadl_epi64((const __m128i *) (p)))
#define HALVES_AT(p) _mm_cvtph_ps(_mm_loadl_epi64((const __m128i *) (p)))
#define BFLOATS_AT(p) _mm_castsi128_ps(_mm_slli_epi32(FROM_SHORTS(u, p), 16))
#endif

/* A value of half precision, exactly. */
ALWAYS float half_value(uint16_t half) {
    union {
        uint32_t bits;
        float value;
    } v = {.bits = (uint32_t) (half & 0x7fff) << 13};
    const int infinite = v.bits >= 0x0f800000;
    v.value *= 0x1p112f;
    v.bits |= (uint32_t) (half & 0x8000) << 16 | (infinite ? 0x7f800000 : 0);
    return v.value;
}
ALWAYS float bfloat_value(uint16_t half) {
    union {
        uint32_t bits;
        float value;
    } v = {.bits = (uint32_t) half << 16};
    return v.value;
}
#define ONE_BY_ONE(value)                                                                                             \
    Doubles v;                                                                                                        \
    for (int j = 0; j < DOUBLES; j++)                                                                                 \
        v[j] = value;                                                                                                 \
    return v;

#if VECTOR_BYTES >= 32
ALWAYS Doubles from_f32(const float *p) { return SINGLES_TO_DOUBLES(SINGLES_AT(p)); }
ALWAYS Doubles from_f16(const uint16_t *p) { return SINGLES_TO_DOUBLES(HALVES_AT(p)); }
ALWAYS Doubles from_bf16(const uint16_t *p) { return SINGLES_TO_DOUBLES(BFLOATS_AT(p)); }
ALWAYS Doubles from_u8(const uint8_t *p) { return INTS_TO_DOUBLES(FROM_BYTES(u, p)); }
ALWAYS Doubles from_i8(const int8_t *p) { return INTS_TO_DOUBLES(FROM_BYTES(i, p)); }
ALWAYS Doubles from_u16(const uint16_t *p) { return INTS_TO_DOUBLES(FROM_SHORTS(u, p)); }
ALWAYS Doubles from_i16(const int16_t *p) { return INTS_TO_DOUBLES(FROM_SHORTS(i, p)); }
ALWAYS Doubles from_i32(const int32_t *p) { return INTS_TO_DOUBLES(INTS_AT(p)); }
#else
ALWAYS Doubles from_f32(const float *p) { ONE_BY_ONE(p[j]) }
ALWAYS Doubles from_f16(const uint16_t *p) { ONE_BY_ONE(half_value(p[j])) }
ALWAYS Doubles from_bf16(const uint16_t *p) { ONE_BY_ONE(bfloat_value(p[j])) }
ALWAYS Doubles from_u8(const uint8_t *p) { ONE_BY_ONE(p[j]) }
ALWAYS Doubles from_i8(const int8_t *p) { ONE_BY_ONE(p[j]) }
ALWAYS Doubles from_u16(const uint16_t *p) { ONE_BY_ONE(p[j]) }
ALWAYS Doubles from_i16(const int16_t *p) { ONE_BY_ONE(p[j]) }
ALWAYS Doubles from_i32(const int32_t *p) { ONE_BY_ONE(p[j]) }
#endif
#if VECTOR_BYTES == 64
ALWAYS Doubles from_u32(const uint32_t *p) { return (Doubles) _mm512_cvtepu32_pd(INTS_AT(p)); }
#else
ALWAYS Doubles from_u32(const uint32_t *p) { ONE_BY_ONE(p[j]) }
#endif
ALWAYS Doubles from_f64(const double *p) { return doubles_at(p); }

/* A 64-bit integer = its high 32 bits + its low ones, in the digits of doubles of fixed exponents. */
typedef uint64_t LooseULongs __attribute__((vector_size(VECTOR_BYTES), aligned(8), may_alias));
ALWAYS Doubles low_of(ULongs v) { return (Doubles) ((v & 0xffffffff) | 0x4330000000000000) - 0x1p52; }
ALWAYS Doubles from_u64(const uint64_t *p) {
    return (Doubles) (*(const LooseULongs *) p >> 32 | 0x4530000000000000) - 0x1p84;
}
ALWAYS Doubles from_i64(const int64_t *p) {
    return (Doubles) (*(const LooseULongs *) p >> 32 ^ 0x4530000080000000) - (0x1p84 + 0x1p63);
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

static const Summation *const summation_of[] = {
    &summation_f32, &summation_f64, &summation_f16, &summation_bf16, &summation_u8,  &summation_i8,
    &summation_u16, &summation_i16, &summation_u32, &summation_i32,  &summation_u64, &summation_i64,
};

#endif

#else

enum { NAME(LOOK) = 1, NAME(SQUARE) = 2, NAME(BOTH) = 3 };

/* Adds one vector, or its `lanes` if `mask`, to sums in registers; the other lanes hold values that are among them. */
#define ADD_VECTOR(what, careful, mask, high, rest, k, k_low, s, s_low, q, q_low, least, most)                        \
    do {                                                                                                              \
        const Doubles h_ = (high);                                                                                    \
        if ((what) & 1) {                                                                                             \
            const Doubles value_ = PARTS == 2 ? h_ + (rest) : h_;                                                     \
            least = lesser(value_, least);                                                                            \
            most = greater(value_, most);                                                                             \
            if (careful) {                                                                                            \
                ADD_EXACTLY(Doubles, s, s_low, (mask) ? chosen_lanes(h_, lanes) : h_);                                 \
                if (PARTS == 2)                                                                                       \
                    ADD_EXACTLY(Doubles, s, s_low, (mask) ? chosen_lanes(rest, lanes) : (rest));                       \
            } else                                                                                                    \
                s += (mask) ? chosen_lanes(h_, lanes) : h_;                                                           \
        }                                                                                                             \
        if ((what) & 2) {                                                                                             \
            Doubles d_ = h_ - (k);                                                                                    \
            if (PARTS == 2)                                                                                           \
                d_ += (rest) - (k_low);                                                                               \
            if (mask)                                                                                                 \
                d_ = chosen_lanes(d_, lanes);                                                                         \
            if (careful)                                                                                              \
                ADD_SQUARE(q, q_low, d_);                                                                             \
            else                                                                                                      \
                q += d_ * d_;                                                                                         \
        }                                                                                                             \
    } while (0)
#if PARTS == 2
#define REST(p) low_of(*(const LooseULongs *) (p))
#else
#define REST(p) (Doubles) {0}
#endif

ALWAYS void NAME(add_row)(const T *x, ptrdiff_t n, int what, int careful, double *sums, ptrdiff_t pitch) {
    enum { VECTORS = 4 };
    const Doubles zero = {0}, k = splat(sums[SHIFT * pitch]), k_low = splat(sums[SHIFT_LOW * pitch]);
    Doubles s[VECTORS] = {zero}, s_low[VECTORS] = {zero}, q[VECTORS] = {zero}, q_low[VECTORS] = {zero};
    Doubles least[VECTORS], most[VECTORS];
    Longs lanes = {0};
    for (int j = 0; j < VECTORS; j++)
        least[j] = splat(INFINITY), most[j] = splat(-INFINITY);
    ptrdiff_t i = 0;
    for (; i + VECTORS * DOUBLES <= n; i += VECTORS * DOUBLES)
#pragma GCC unroll 4
        for (int j = 0; j < VECTORS; j++) {
            const T *p = x + i + j * DOUBLES;
            ADD_VECTOR(what, careful, 0, NAME(from)(p), REST(p), k, k_low, s[j], s_low[j], q[j], q_low[j], least[j],
                       most[j]);
        }
    for (; i + DOUBLES <= n; i += DOUBLES)
        ADD_VECTOR(what, careful, 0, NAME(from)(x + i), REST(x + i), k, k_low, s[0], s_low[0], q[0], q_low[0], least[0],
                   most[0]);
    if (i < n) {
        const T *p = x + n - DOUBLES;  /* the last ones, of which some were added */
        T last[DOUBLES];
        lanes = lanes_from((int) (i + DOUBLES - n));
        if (n < DOUBLES) {
            for (int j = 0; j < DOUBLES; j++)
                last[j] = x[j < n ? j : 0];
            lanes = ~lanes_from((int) n);
            p = last;
        }
        ADD_VECTOR(what, careful, 1, NAME(from)(p), REST(p), k, k_low, s[1], s_low[1], q[1], q_low[1], least[1],
                   most[1]);
    }
    double sum = sums[SUM * pitch], low = sums[SUM_LOW * pitch];
    double squares = sums[SQUARES * pitch], squares_low = sums[SQUARES_LOW * pitch];
    double smallest = sums[LEAST * pitch], largest = sums[MOST * pitch];
    if (!careful) {
        s[0] = (s[0] + s[1]) + (s[2] + s[3]);
        q[0] = (q[0] + q[1]) + (q[2] + q[3]);
    }
    least[0] = lesser(lesser(least[0], least[1]), lesser(least[2], least[3]));
    most[0] = greater(greater(most[0], most[1]), greater(most[2], most[3]));
    if (what & 1) {
        const double one = least_of(least[0]), other = most_of(most[0]), total = total_of(s[0]);
        smallest = one < smallest ? one : smallest;
        largest = other > largest ? other : largest;
        if (careful)
            for (int v = 0; v < VECTORS; v++)
                for (int j = 0; j < DOUBLES; j++) {
                    ADD_EXACTLY(double, sum, low, s[v][j]);
                    low += s_low[v][j];
                }
        else
            ADD_EXACTLY(double, sum, low, total);
    }
    if (what & 2) {
        const double total = total_of(q[0]);
        if (careful)
            for (int v = 0; v < VECTORS; v++)
                for (int j = 0; j < DOUBLES; j++) {
                    ADD_EXACTLY(double, squares, squares_low, q[v][j]);
                    squares_low -= q_low[v][j];
                }
        else
            ADD_EXACTLY(double, squares, squares_low, total);
    }
    sums[SUM * pitch] = sum, sums[SUM_LOW * pitch] = low;
    sums[SQUARES * pitch] = squares, sums[SQUARES_LOW * pitch] = squares_low;
    sums[LEAST * pitch] = smallest, sums[MOST * pitch] = largest;
}

ALWAYS void NAME(rows_of)(const T *x, ptrdiff_t n, int careful, double *sums, ptrdiff_t pitch) {
    sums[COUNT * pitch] += (double) n;
    if (sums[SHIFT * pitch] != sums[SHIFT * pitch]) {
        const ptrdiff_t many = n < LONG_BLOCK / 2 ? n : LONG_BLOCK / 2;
        NAME(add_row)(x, many, 1, careful, sums, pitch);
        place_shift(sums, pitch, (double) many, WHOLE, PARTS == 2);
        NAME(add_row)(x, many, 2, careful, sums, pitch);
        x += many;
        n -= many;
    }
    for (; n > 0; n -= LONG_BLOCK, x += LONG_BLOCK)
        NAME(add_row)(x, n < LONG_BLOCK ? n : LONG_BLOCK, 3, careful, sums, pitch);
}

static void NAME(row)(const void *x, ptrdiff_t n, int careful, double *sums, ptrdiff_t pitch) {
#if CAREFUL == 0
    if (careful)
        NAME(rows_of)(x, n, 1, sums, pitch);
    else
#endif
        NAME(rows_of)(x, n, CAREFUL == 1, sums, pitch);
}

/* Adds lines to `vectors` neighbouring vectors of columns; of the last one, from lane `from` on. */
ALWAYS void NAME(add_columns)(const char *x, ptrdiff_t x_pitch, int lines, int vectors, int from, ptrdiff_t ahead,
                              ptrdiff_t fetched, int what, int careful, double *sums, ptrdiff_t pitch) {
    const Doubles zero = {0};
    Doubles s[WIDE_TILE], s_low[WIDE_TILE], q[WIDE_TILE], q_low[WIDE_TILE], least[WIDE_TILE], most[WIDE_TILE];
    Doubles k[WIDE_TILE], k_low[WIDE_TILE];
    const Longs lanes = {0};
    for (int j = 0; j < vectors; j++) {
        s[j] = s_low[j] = q[j] = q_low[j] = zero;
        least[j] = splat(INFINITY), most[j] = splat(-INFINITY);
        k[j] = doubles_at(sums + SHIFT * pitch + j * DOUBLES);
        k_low[j] = PARTS == 2 ? doubles_at(sums + SHIFT_LOW * pitch + j * DOUBLES) : zero;
    }
    for (int line = 0; line < lines; line++, x += x_pitch) {
        if ((what & 1) && ahead)
            for (ptrdiff_t byte = 0; byte < fetched; byte += 64)
                __builtin_prefetch(x + ahead + byte);
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) {
            const T *p = (const T *) x + j * DOUBLES;
            ADD_VECTOR(what, careful, 0, NAME(from)(p), REST(p), k[j], k_low[j], s[j], s_low[j], q[j], q_low[j],
                       least[j], most[j]);
        }
    }
    for (int j = 0; j < vectors; j++) {
        if (what & 1) {
            add_lanes(sums + SUM * pitch, pitch, j, from, s[j], careful ? s_low[j] : zero);
            put_lanes(sums + LEAST * pitch, j, from, lesser(least[j], doubles_at(sums + LEAST * pitch + j * DOUBLES)));
            put_lanes(sums + MOST * pitch, j, from, greater(most[j], doubles_at(sums + MOST * pitch + j * DOUBLES)));
        }
        if (what & 2)
            add_lanes(sums + SQUARES * pitch, pitch, j, from, q[j], careful ? -q_low[j] : zero);
    }
}

ALWAYS void NAME(tile)(const char *x, ptrdiff_t x_pitch, int lines, int vectors, int from, ptrdiff_t ahead,
                       ptrdiff_t fetched, int careful, double *sums, ptrdiff_t pitch) {
    if (sums[SHIFT * pitch + from] == sums[SHIFT * pitch + from]) {
        NAME(add_columns)(x, x_pitch, lines, vectors, from, ahead, fetched, 3, careful, sums, pitch);
        return;
    }
    NAME(add_columns)(x, x_pitch, lines, vectors, from, ahead, fetched, 1, careful, sums, pitch);
    for (int i = from; i < vectors * DOUBLES; i++)
        place_shift(sums + i, pitch, lines, WHOLE, PARTS == 2);
    NAME(add_columns)(x, x_pitch, lines, vectors, from, 0, 0, 2, careful, sums, pitch);
}

ALWAYS void NAME(columns_of)(const char *x, ptrdiff_t x_pitch, int lines, ptrdiff_t columns, ptrdiff_t ahead,
                             int careful, double *sums, ptrdiff_t pitch) {
    /* Of lines that follow each other the first tile fetches all: memory likes long stretches. */
    const int dense = x_pitch == columns * (ptrdiff_t) sizeof(T);
    const ptrdiff_t fetched = (dense ? columns : WIDE_TILE * DOUBLES) * (ptrdiff_t) sizeof(T);
    ptrdiff_t c = 0;
    for (; c + WIDE_TILE * DOUBLES <= columns; c += WIDE_TILE * DOUBLES)
        NAME(tile)(x + c * sizeof(T), x_pitch, lines, WIDE_TILE, 0, dense && c ? 0 : ahead, fetched, careful, sums + c,
                   pitch);
    for (; c + DOUBLES <= columns; c += DOUBLES)
        NAME(tile)(x + c * sizeof(T), x_pitch, lines, 1, 0, dense && c ? 0 : ahead, fetched, careful, sums + c, pitch);
    if (c < columns) {  /* what is left, beside columns that are done */
        const int from = (int) (c + DOUBLES - columns);
        NAME(tile)(x + (columns - DOUBLES) * sizeof(T), x_pitch, lines, 1, from, 0, 0, careful,
                   sums + columns - DOUBLES, pitch);
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

static void NAME(widen)(const void *source, ptrdiff_t n, double *y) {
    const T *x = source;
    ptrdiff_t i = 0;
    for (; i + DOUBLES <= n; i += DOUBLES) {
        const Doubles high = NAME(from)(x + i);
        put_doubles(y + i, PARTS == 2 ? high + REST(x + i) : high);
    }
    if (i < n) {
        T last[DOUBLES] = {0};
        for (int j = 0; j < n - i; j++)
            last[j] = x[i + j];
        const Doubles high = NAME(from)(last);
        put_doubles(y + i, PARTS == 2 ? high + REST(last) : high);
    }
}

static const Summation NAME(summation) = {sizeof(T), CAREFUL, NAME(row), NAME(columns), NAME(widen)};

#undef ADD_VECTOR
#undef REST

#endif
