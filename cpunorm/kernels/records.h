/* Records: moments as arrays of `pitch` values, field by field; mean and M2 are pairs of doubles.  Merging them. */

#ifndef CPUNORM_RECORDS_H
#define CPUNORM_RECORDS_H

#include <math.h>
#include <stddef.h>

enum { COUNT, MEAN, MEAN_LOW, M2, M2_LOW, LEAST, MOST, RECORD_FIELDS };

/* a * b - c, rounded once.  Dekker's product is for where there are no multiply-adds, of which it dies. */
static inline double product_minus(double a, double b, double c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    return __builtin_fma(a, b, -c);
#else
    const double big = 134217729.0, p = a * b;  /* Dekker's product, 1971 */
    const double ah = big * a - (big * a - a), al = a - ah, bh = big * b - (big * b - b), bl = b - bh;
    return (p - c) + (((ah * bh - p) + ah * bl + al * bh) + al * bl);
#endif
}

/* a = the moments of a and b together, of `n` columns. */
static void merge_records(double *restrict a, ptrdiff_t a_pitch, const double *restrict b, ptrdiff_t b_pitch,
                          ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) {
        const double n_a = a[COUNT * a_pitch + i], n_b = b[COUNT * b_pitch + i], count = n_a + n_b;
        const double many = count > 0 ? count : 1;
        const double a_high = a[MEAN * a_pitch + i], a_low = a[MEAN_LOW * a_pitch + i];
        const double b_high = b[MEAN * b_pitch + i], b_low = b[MEAN_LOW * b_pitch + i];
        /* The difference of the means, and the share of b, in two parts. */
        const double apart = b_high - a_high, apart_moved = apart - b_high;
        const double apart_low = ((b_high - (apart - apart_moved)) + (-a_high - apart_moved)) + (b_low - a_low);
        const double d = apart + apart_low, d_low = apart_low - (d - apart);
        const double share = n_b / many, share_low = -product_minus(share, many, n_b) / many;
        const double p = d * share, p_low = product_minus(d, share, p) + (d * share_low + d_low * share);
        const double sum = a_high + p, sum_moved = sum - a_high;
        const double low = ((a_high - (sum - sum_moved)) + (p - sum_moved)) + (a_low + p_low), mean = sum + low;
        /* d^2 n_a n_b / n */
        const double square = d * d, square_low = product_minus(d, d, square) + 2 * d * d_low;
        const double w = n_a * share, w_low = product_minus(n_a, share, w) + n_a * share_low;
        const double term = square * w, term_low = product_minus(square, w, term) + (square * w_low + square_low * w);
        const double a_m2 = a[M2 * a_pitch + i], b_m2 = b[M2 * b_pitch + i];
        const double m = a_m2 + b_m2, m_moved = m - a_m2, m_low = (a_m2 - (m - m_moved)) + (b_m2 - m_moved);
        const double m2 = m + term, m2_moved = m2 - m;
        const double m2_low = (((m - (m2 - m2_moved)) + (term - m2_moved)) + m_low)
                              + ((a[M2_LOW * a_pitch + i] + b[M2_LOW * b_pitch + i]) + term_low);
        const double total = m2 + m2_low;
        const double least_a = a[LEAST * a_pitch + i], least_b = b[LEAST * b_pitch + i];
        const double most_a = a[MOST * a_pitch + i], most_b = b[MOST * b_pitch + i];
        const int finite = mean - mean == 0, known = total - total == 0, empty = n_a == 0 || n_b == 0;
        a[COUNT * a_pitch + i] = count;
        a[MEAN * a_pitch + i] = finite ? mean : a_high + b_high;
        a[MEAN_LOW * a_pitch + i] = finite ? low - (mean - sum) : 0;
        a[M2 * a_pitch + i] = empty ? m : known ? total : finite ? INFINITY : m2;
        a[M2_LOW * a_pitch + i] = empty ? a[M2_LOW * a_pitch + i] + b[M2_LOW * b_pitch + i]
                                        : known ? m2_low - (total - m2) : 0;
        a[LEAST * a_pitch + i] = least_a != least_a || least_a < least_b ? least_a : least_b;
        a[MOST * a_pitch + i] = most_a != most_a || most_a > most_b ? most_a : most_b;
    }
}

#endif
