/* What is done to a line of doubles: y from x, its rounding to other types, and moments of windows that slide. */

#ifndef CPUNORM_STANDARDIZE_H
#define CPUNORM_STANDARDIZE_H

#include <string.h>

#include "statistics.h"

/* *flag = 1, by any number of threads. */
static inline void set_flag(int *flag) { __atomic_store_n(flag, 1, __ATOMIC_RELAXED); }

/* y, from `least` to `most`; NaN stays. */
static void clip_line(double *y, ptrdiff_t n, double least, double most) {
    for (ptrdiff_t i = 0; i < n; i++) {
        const double v = y[i] < least ? least : y[i];
        y[i] = v > most ? most : v;
    }
}

static inline uint16_t half_of(float value) {
    union {
        float value;
        uint32_t bits;
    } v = {value}, magic = {.bits = 0x3f000000};
    const uint32_t sign = v.bits & 0x80000000;
    v.bits ^= sign;
    if (v.bits >= 0x47800000)  /* beyond the largest */
        return (uint16_t) (sign >> 16 | (v.bits > 0x7f800000 ? 0x7e00 : 0x7c00));
    if (v.bits < 0x38800000) {  /* denormal: an addition rounds */
        v.value += magic.value;
        return (uint16_t) (sign >> 16 | (v.bits - magic.bits));
    }
    return (uint16_t) (sign >> 16 | (v.bits + 0xc8000fff + (v.bits >> 13 & 1)) >> 13);
}

/* y = x rounded to the type of y: n values one after the other. */
static void narrow_line(const double *x, ptrdiff_t n, int result, char *y) {
    enum { F32, F64, F16, BF16 };
    ptrdiff_t i = 0;
    if (result == F64)
        memcpy(y, x, n * sizeof(double));
    else if (result == F32)
        for (i = 0; i < n; i++)
            ((float *) y)[i] = (float) x[i];
    else if (result == F16) {
#if VECTOR_BYTES == 64
        for (; i + 8 <= n; i += 8)
            _mm_storeu_si128((__m128i *) (y + 2 * i),
                             _mm256_cvtps_ph(_mm512_cvtpd_ps(_mm512_loadu_pd(x + i)), _MM_FROUND_TO_NEAREST_INT));
#endif
        for (; i < n; i++)
            ((uint16_t *) y)[i] = half_of((float) x[i]);
    } else
        for (i = 0; i < n; i++) {
            union {
                float value;
                uint32_t bits;
            } v = {(float) x[i]};
            const uint32_t rounded = (v.bits + 0x7fff + (v.bits >> 16 & 1)) >> 16;
            ((uint16_t *) y)[i] = (uint16_t) (v.value != v.value ? v.bits >> 16 | 0x40 : rounded);
        }
}

/* Sums of a window, per column, field by field: sum and squares in two parts, and the greatest of the squares. */
enum { WINDOW_SUM, WINDOW_SUM_LOW, WINDOW_SQUARES, WINDOW_SQUARES_LOW, WINDOW_PEAK, WINDOW_FIELDS };

/* += or -= the values and squares of a line. */
static void slide_line(const double *restrict x, ptrdiff_t n, double sign, double *restrict sums, ptrdiff_t pitch) {
    for (ptrdiff_t i = 0; i < n; i++) {
        const double sum = sums[WINDOW_SUM * pitch + i], squares = sums[WINDOW_SQUARES * pitch + i];
        const double v = sign * x[i], s = sum + v, s_moved = s - sum;
        const double p = x[i] * x[i], p_low = product_minus(x[i], x[i], p), signed_p = sign * p;
        const double q = squares + signed_p, q_moved = q - squares;
        const double s_low = sums[WINDOW_SUM_LOW * pitch + i] + ((sum - (s - s_moved)) + (v - s_moved));
        const double q_low = sums[WINDOW_SQUARES_LOW * pitch + i]
                             + (((squares - (q - q_moved)) + (signed_p - q_moved)) + sign * p_low);
        const double s_high = s + s_low, q_high = q + q_low, peak = sums[WINDOW_PEAK * pitch + i];
        sums[WINDOW_SUM * pitch + i] = s_high;
        sums[WINDOW_SUM_LOW * pitch + i] = s_low - (s_high - s);
        sums[WINDOW_SQUARES * pitch + i] = q_high;
        sums[WINDOW_SQUARES_LOW * pitch + i] = q_low - (q_high - q);
        sums[WINDOW_PEAK * pitch + i] = q_high > peak ? q_high : peak;
    }
}

/* Whether what left a window was so large, or no number, that what it left of the sums has lost digits. */
static int slide_is_worn(const double *sums, ptrdiff_t pitch, ptrdiff_t n) {
    int worn = 0;
    for (ptrdiff_t i = 0; i < n; i++)
        worn |= !(sums[WINDOW_SQUARES * pitch + i] >= 0x1p-40 * sums[WINDOW_PEAK * pitch + i]);
    return worn;
}

/* y = (y - mean) / deviation, or y - mean, of windows of `count` values; 0 where they are all the same. */
static void slide_apply(double *restrict y, ptrdiff_t n, double count, int scaled, const double *restrict sums,
                        ptrdiff_t pitch) {
    for (ptrdiff_t i = 0; i < n; i++) {
        const double sum = sums[WINDOW_SUM * pitch + i], low = sums[WINDOW_SUM_LOW * pitch + i];
        const double mean = sum / count, rest = (low - product_minus(mean, count, sum)) / count;
        const double d = (y[i] - mean) - rest, squares = sums[WINDOW_SQUARES * pitch + i];
        const double p = sum * mean, p_low = product_minus(sum, mean, p) + (sum * rest + low * mean);
        const double m2 = (squares - p) + (sums[WINDOW_SQUARES_LOW * pitch + i] - p_low);
        const double noise = 0x1p-75 * squares;  /* what is left of values that are all the same */
        const double z = m2 <= noise ? 0 : d / sqrt(m2 / count);
        y[i] = scaled ? z : d;
    }
}

#endif
