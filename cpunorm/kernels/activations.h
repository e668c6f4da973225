/* Activations of a register of values.  Included by lines.h for float and for double.

   Of float, those with an exponential are computed in double and rounded once; what their polynomials leave out is a part
   of that rounding, so they are within 1 ulp, subnormal results too.  What norms give is computed in float where that takes
   less time, all of them in AVX-512, which looks up 32 polynomials; each to 1.9 ulp, the largest error of all values.  Of
   double, within 4 ulp, but for GELU's tail, which is the C library's, lane by lane.
   What the formulas of real numbers make of Inf and NaN is what comes out. */

#define CHOOSE(mask, a, b) ((VEC) (((MASK) (mask) & (MASK) (a)) | (~(MASK) (mask) & (MASK) (b))))
#define ALL(value) ((R) (value) - (VEC){0})

ALWAYS VEC NAME(relu)(VEC v) {
#ifdef __SSE2__
    return MM(max)((VEC){0}, v);  /* of the second operand, if one is NaN */
#else
    return CHOOSE(v < 0, (VEC){0}, v);
#endif
}
ALWAYS VEC NAME(between)(VEC v, R low, R high) {
    v = CHOOSE(v < low, ALL(low), v);
    return CHOOSE(v > high, ALL(high), v);
}
ALWAYS VEC NAME(relu6)(VEC v) { return NAME(between)(v, 0, 6); }
ALWAYS VEC NAME(leaky_relu)(VEC v) { return CHOOSE(v < 0, v * (R) 0.01, v); }
/* v / 6; a quotient of registers takes longer than what makes a product as exact. */
ALWAYS VEC NAME(sixth)(VEC v) {
#ifdef __FMA__
    const VEC q = v * (R) (1.0 / 6);
    return q + MM(fnmadd)(ALL(6), q, v) * (R) (1.0 / 6);  /* not left to the compiler: rounded twice is 2.4 ulp */
#else
    return v / 6;
#endif
}
ALWAYS VEC NAME(hardsigmoid)(VEC v) { return NAME(sixth)(NAME(between)(v + 3, 0, 6)); }
ALWAYS VEC NAME(hardswish)(VEC v) { return v * NAME(hardsigmoid)(v); }

ALWAYS VEC NAME(magnitude)(VEC v) { return (VEC) ((MASK) v & ~(MASK) -(VEC){0}); }

/* Whether a lane is beyond `limit`, or NaN. */
ALWAYS int NAME(any_beyond)(VEC v, R limit) {
#if VECTOR_BYTES == 64
    return CAT3(_mm512_cmp, SUFFIX, _mask)(v, ALL(limit), _CMP_NLE_UQ);
#elif defined(__SSE2__)
    return MM(movemask)((VEC) ~(v <= limit));
#else
    INT found = 0;
    for (int i = 0; i < WIDTH; i++)
        found |= ~(v <= limit)[i];
    return found != 0;
#endif
}

/* An activation by the formula `near` up to `limit`, else by name_far; each lane by itself, whatever the others are. */
#define NEAR(name, limit, near)                                                                                       \
    ALWAYS VEC NAME(name)(VEC v) {                                                                                    \
        const VEC y = near, a = NAME(magnitude)(v);                                                                   \
        return __builtin_expect(NAME(any_beyond)(a, limit), 0) ? CHOOSE(a <= limit, y, NAME(name##_far)(v)) : y;       \
    }

#if R_BYTES == 4

typedef double Wide __attribute__((vector_size(VECTOR_BYTES)));
typedef int64_t WideBits __attribute__((vector_size(VECTOR_BYTES)));
#define WIDE(value) ((double) (value) - (Wide){0})
#define CHOOSE_WIDE(mask, a, b) ((Wide) (((mask) & (WideBits) (a)) | (~(mask) & (WideBits) (b))))

/* f of a register, half by half, in double. */
#if VECTOR_BYTES == 64
#define LOW(v) ((Wide) _mm512_cvtps_pd(_mm512_castps512_ps256((__m512) (v))))
#define HIGH(v) ((Wide) _mm512_cvtps_pd(_mm512_extractf32x8_ps((__m512) (v), 1)))
#define BOTH(a, b)                                                                                                    \
    ((VEC) _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps((__m512d) (a))), _mm512_cvtpd_ps((__m512d) (b)), 1))
#elif VECTOR_BYTES == 32
#define LOW(v) ((Wide) _mm256_cvtps_pd(_mm256_castps256_ps128((__m256) (v))))
#define HIGH(v) ((Wide) _mm256_cvtps_pd(_mm256_extractf128_ps((__m256) (v), 1)))
#define BOTH(a, b) ((VEC) _mm256_set_m128(_mm256_cvtpd_ps((__m256d) (b)), _mm256_cvtpd_ps((__m256d) (a))))
#else
typedef float Pair __attribute__((vector_size(8)));
#define LOW(v) __builtin_convertvector(__builtin_shufflevector(v, v, 0, 1), Wide)
#define HIGH(v) __builtin_convertvector(__builtin_shufflevector(v, v, 2, 3), Wide)
#define BOTH(a, b)                                                                                                    \
    __builtin_shufflevector(__builtin_convertvector(a, Pair), __builtin_convertvector(b, Pair), 0, 1, 2, 3)
#endif

/* Neither changes NaN. */
ALWAYS Wide wide_at_least(Wide v, double low) {
#if VECTOR_BYTES == 64
    return (Wide) _mm512_max_pd((__m512d) WIDE(low), (__m512d) v);
#elif VECTOR_BYTES == 32
    return (Wide) _mm256_max_pd((__m256d) WIDE(low), (__m256d) v);
#else
    return CHOOSE_WIDE(v < low, WIDE(low), v);
#endif
}
ALWAYS Wide wide_at_most(Wide v, double high) { return -wide_at_least(-v, -high); }

/* 1 / v, 2^-140 <= v, to 2^-27 of it. */
ALWAYS Wide reciprocal(Wide v) {
#if VECTOR_BYTES == 64
    const Wide r = (Wide) _mm512_rcp14_pd((__m512d) v);
    return r + r * (1 - v * r);
#else
    return 1 / v;
#endif
}

/* exp(x) - 1, |x| <= 700, to 2^-26 of it: x = n log(2) + r, with a polynomial for exp(r) - 1. */
ALWAYS Wide exponential_minus_1(Wide x, Wide *power) {
    const double rounding = 6755399441055744.0;  /* 1.5 * 2^52: what is added to it is rounded, and its low bits */
    const Wide shifted = x * 1.4426950408889634 + rounding, r = x - (shifted - rounding) * 0.6931471805599453;
    const Wide p = (((WIDE(0.0013882507582336611) * r + 0.008366580475650575) * r + 0.0416672018164052) * r
                    + 0.16666543176576337) * r + 0.49999998143968133;
    *power = (Wide) (((WideBits) shifted << 52) + (WideBits) WIDE(1));  /* 2^n */
    return r + r * r * p;
}
ALWAYS Wide exponential(Wide x) {
    Wide power;
    const Wide e = exponential_minus_1(x, &power);
    return power + power * e;
}

ALWAYS Wide wide_sigmoid(Wide x) { return reciprocal(1 + exponential(wide_at_most(wide_at_least(-x, -150), 150))); }
ALWAYS Wide wide_silu(Wide x) {
    x = wide_at_least(x, -150);
    return x * reciprocal(1 + exponential(wide_at_least(-x, -150)));
}
ALWAYS Wide wide_gelu_tanh(Wide x) {  /* z = sqrt(2/pi) (x + 0.044715 x^3): x (1 + tanh(z)) / 2 = x / (1 + exp(-2 z)) */
    x = wide_at_least(x, -16);
    const Wide z = x * (-1.5957691216057308 - 0.07135481627159587 * (x * x));
    return x * reciprocal(1 + exponential(wide_at_least(z, -150)));
}
ALWAYS Wide wide_gelu(Wide x) {  /* x P(x) of the normal distribution; P(-t) = exp(-t^2 / 2) q(t), q to 2^-26 of it */
    x = wide_at_least(x, -16);
    const Wide t = wide_at_most((Wide) ((WideBits) x & INT64_MAX), 16), s = (t - 3) * reciprocal(t + 3);
    const Wide q = ((((((((WIDE(5.306273232429855e-05) * s + 0.00011491019609718026) * s - 0.00033891881878102097) * s
                        - 0.0009831946782645885) * s + 0.002904352932757193) * s + 0.006131916283374962) * s
                     - 0.04621325792743722) * s + 0.12322504339132011) * s - 0.20640262069962723) * s
                   + 0.12151394748981093;
    const Wide tail = t * q * exponential(t * t * -0.5);
    return wide_at_least(x, 0) - tail;
}
ALWAYS Wide wide_tanh(Wide x) {  /* (exp(2 x) - 1) / (exp(2 x) + 1), without cancellation near 0 */
    Wide power;
    const Wide e = exponential_minus_1(wide_at_most(wide_at_least(x + x, -50), 50), &power), w = power - 1 + power * e;
    return w * reciprocal(w + 2);
}

#define IN_DOUBLE(name, where, value)                                                                                 \
    ALWAYS VEC name##_float(VEC v) {                                                                                  \
        const VEC y = BOTH(wide_##name(LOW(v)), wide_##name(HIGH(v)));                                                \
        return CHOOSE(where, ALL(value), y);                                                                          \
    }

#define IN_FLOAT(name, limit, near, where, value)                                                                     \
    static __attribute__((noinline, cold)) VEC name##_far_float(VEC v) {                                              \
        return CHOOSE(where, ALL(value), BOTH(wide_##name(LOW(v)), wide_##name(HIGH(v))));                            \
    }                                                                                                                 \
    NEAR(name, limit, near)

#if VECTOR_BYTES == 64
#include "pieces.h"

/* Of a = |x| in piece number i: constant + rest * offset is the polynomial, `offset` that from the piece's middle.  a is
   less than 31.5 width, where piece 32, which is piece 0, would begin. */
typedef struct {
    VEC constant, rest, offset;
} Piece;

#define LOOKED_UP(row) ((VEC) _mm512_permutex2var_ps(_mm512_load_ps(row), i, _mm512_load_ps((row) + 16)))
/* a b + c and c - a b, rounded once: not left to the compiler, for twice is 2.2 ulp. */
#define PLUS(a, b, c) ((VEC) _mm512_fmadd_ps((__m512) (a), (__m512) (b), (__m512) (c)))
#define MINUS(a, b, c) ((VEC) _mm512_fnmadd_ps((__m512) (a), (__m512) (b), (__m512) (c)))
ALWAYS Piece piece_of(const float (*table)[32], const int degree, const float width, VEC a) {
    const float rounding = 12582912;  /* 1.5 * 2^23: what is added to it is rounded, and its low bits */
    const VEC shifted = PLUS(a, ALL(1 / width), ALL(rounding)), t = MINUS(shifted - rounding, ALL(width), a);
    const __m512i i = (__m512i) shifted;
    VEC p = LOOKED_UP(table[degree]);
#pragma GCC unroll 8
    for (int k = degree - 1; k > 0; k--)
        p = PLUS(p, t, LOOKED_UP(table[k]));
    return (Piece){LOOKED_UP(table[0]), p, t};
}

/* x P(x) = max(x, 0) - a P(-a), P the table's: of one rounding more than P(-a) where x is negative. */
ALWAYS VEC gated(VEC x, const float (*table)[32], const int degree, const float width) {
    const VEC a = magnitude_float(x);
    const Piece piece = piece_of(table, degree, width, a);
    return MINUS(a, piece.constant, MINUS(a, piece.rest * piece.offset, relu_float(x)));
}
ALWAYS VEC sigmoid_near(VEC x) {
    const Piece piece = piece_of(sigmoid_pieces, 5, 0.5f, magnitude_float(x));
    const VEC y = PLUS(piece.rest, piece.offset, piece.constant);
    return CHOOSE(x > 0, 1 - y, y);
}
ALWAYS VEC tanh_near(VEC x) {
    const Piece piece = piece_of(tanh_pieces, 5, 0.3125f, magnitude_float(x));
    return PLUS(x, piece.constant, x * (piece.rest * piece.offset));
}
#undef LOOKED_UP
#undef PLUS
#undef MINUS
IN_FLOAT(gelu, 4.92f, gated(v, gelu_pieces, 6, 0.15625f), v == -INFINITY, NAN)
IN_FLOAT(gelu_tanh, 4.42f, gated(v, gelu_tanh_pieces, 6, 0.140625f), v == -INFINITY, NAN)
IN_FLOAT(silu, 15.7f, gated(v, sigmoid_pieces, 5, 0.5f), v == -INFINITY, NAN)
IN_FLOAT(sigmoid, 15.7f, sigmoid_near(v), v != v, NAN)
IN_FLOAT(tanh, 9.8f, tanh_near(v), v != v, NAN)

#else

/* 2^n, n being the low bits of `shifted`; unsigned, for numbers that are too far for the formulas below overflow here. */
ALWAYS VEC power_of_2(VEC shifted) {
    typedef uint32_t Bits __attribute__((vector_size(VECTOR_BYTES)));
    return (VEC) (((Bits) shifted << 23) + (Bits) ALL(1));
}

/* 1 + exp(-x), |x| <= 16: as in double, but with log(2) in two parts, of which the first times n is exact, as is 1 + 2^n. */
ALWAYS VEC one_and_exponential(VEC x) {
    const float rounding = 12582912;  /* 1.5 * 2^23 */
    const VEC shifted = x * -1.44269504f + rounding, n = shifted - rounding;
    const VEC r = (-x - n * 0.693145752f) - n * 1.42860677e-06f;
    const VEC p = (((ALL(0.00138825076f) * r + 0.00836658048f) * r + 0.0416672018f) * r + 0.166665432f) * r + 0.49999998f;
    const VEC power = power_of_2(shifted);
    return (1 + power) + power * (r + r * r * p);
}

/* a b - c, rounded once, exactly where c is near a b: not left to the compiler, which may round the product or take it for
   one that was rounded before. */
#if VECTOR_BYTES == 32
#define FUSED_DIFFERENCE(a, b, c) ((VEC) _mm256_fmsub_ps((__m256) (a), (__m256) (b), (__m256) (c)))
#elif defined(__ARM_FEATURE_FMA)
#define FUSED_DIFFERENCE(a, b, c) ((VEC) vfmaq_f32(-(float32x4_t) (c), (float32x4_t) (a), (float32x4_t) (b)))
#endif

#ifdef FUSED_DIFFERENCE
/* max(x, 0) - t P(-t), t = |x| <= 10, with t P(-t) = exp(-t^2 / 2) w g(w), w = t / (t + 3.005), g to 2^-25.9 of it.  What
   is rounded away comes along: d_low of t + 3.005, w_low, g_low, p_low of w g, square_low of t^2; r = -2 (log(2) n - t^2 / 2)
   in two parts, of which the first is exact, and e = 2 - 2 exp(-r / 2). */
ALWAYS VEC gelu_near(VEC x) {
    const float rounding = 12582911;  /* 1.5 * 2^23 - 1: its low bits become n - 1 */
    const VEC t = magnitude_float(x), d = t + 3.00500011f, d_low = t - (d - 3.00500011f);
    const VEC inverse = 1 / d;
    const VEC w = t * inverse, w_low = (-FUSED_DIFFERENCE(w, d, t) - w * d_low) * inverse, s = (w - 0.5f) + w_low;
    const VEC q = ((((((ALL(-0.0760916919f) * s - 0.12368916f) * s + 0.0664734393f) * s + 0.224318206f) * s
                      - 0.164733812f) * s - 0.383292794f) * s + 0.923761427f) * s - 1.01995945f;
    const VEC g = 0.729266465f + s * q, g_low = (0.729266465f - g) + s * q;
    const VEC p = w * g, p_low = w_low * g + (w * g_low + FUSED_DIFFERENCE(w, g, p));
    const VEC square = t * t, square_low = FUSED_DIFFERENCE(t, t, square);
    const VEC shifted = square * -0.72134752f + rounding, n = shifted - rounding;
    const VEC high = square + n * (2 * 0.693145752f), low = square_low + n * (2 * 1.42860677e-06f), r = high + low;
    const VEC c = (((ALL(0.00138825076f / 32) * r - 0.00836658048f / 16) * r + 0.0416672018f / 8) * r
                   - 0.166665432f / 4) * r + 0.49999998f / 2;
    const VEC e = high + (low - r * r * c), twice = (p + p) + ((p_low + p_low - p_low * e) - p * e);
    return CHOOSE(x > 0, x, (VEC){0}) - power_of_2(shifted) * twice;
}
#endif

IN_FLOAT(sigmoid, 16, 1 / one_and_exponential(v), v != v, NAN)
IN_FLOAT(silu, 16, v / one_and_exponential(v), v == -INFINITY, NAN)
#ifdef FUSED_DIFFERENCE
IN_FLOAT(gelu, 10, gelu_near(v), v == -INFINITY, NAN)
#else
IN_DOUBLE(gelu, v == -INFINITY, NAN)
#endif
IN_DOUBLE(gelu_tanh, v == -INFINITY, NAN)
IN_DOUBLE(tanh, v != v, NAN)

#endif
#undef LOW
#undef HIGH
#undef BOTH

#else

typedef uint64_t UnsignedBits __attribute__((vector_size(VECTOR_BYTES)));  /* numbers too far for the formula overflow */

/* exp(x) - 1 = power (1 + e) - 1, |x| <= 700, e to 2^-54: x = n log(2) + r, log(2) in two parts (fdlibm's) of which the
   first times n is exact; the series of exp(r) - 1. */
ALWAYS VEC exponential_double(VEC x, VEC *power) {
    const double rounding = 6755399441055744.0;  /* 1.5 * 2^52: what is added to it is rounded, and its low bits */
    const VEC shifted = x * 1.4426950408889634 + rounding, n = shifted - rounding;
    const VEC r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
    VEC p = ALL(1.0 / 6227020800);
    p = p * r + 1.0 / 479001600;
    p = p * r + 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 1.0 / 2;
    *power = (VEC) (((UnsignedBits) shifted << 52) + (UnsignedBits) ALL(1));
    return r + r * r * p;
}
ALWAYS VEC one_and_exponential_double(VEC x) {
    VEC power;
    const VEC e = exponential_double(x, &power);
    return (1 + power) + power * e;
}
ALWAYS VEC tanh_of(VEC x) {  /* (exp(2 x) - 1) / (exp(2 x) + 1), without cancellation near 0 */
    VEC power;
    const VEC e = exponential_double(x + x, &power), w = (power - 1) + power * e;
    return w / (w + 2);
}
ALWAYS VEC gelu_tanh_exponent(VEC x) { return -1.5957691216057308 * (x + 0.044715 * x * x * x); }

/* Lane by lane, by the C library. */
#define LANE_BY_LANE(name, formula)                                                                                   \
    static __attribute__((noinline)) VEC name##_double(VEC v) {                                                       \
        for (int i = 0; i < WIDTH; i++) {                                                                             \
            const double x = v[i];                                                                                    \
            v[i] = formula;                                                                                           \
        }                                                                                                             \
        return v;                                                                                                     \
    }
#define BY_VECTORS(name, limit, near, formula)                                                                        \
    LANE_BY_LANE(name##_far, formula)                                                                                 \
    NEAR(name, limit, near)
BY_VECTORS(sigmoid, 700, 1 / one_and_exponential_double(-v), x < -700 ? exp(x) : 1 / (1 + exp(-x)))
BY_VECTORS(silu, 700, v / one_and_exponential_double(-v),
           x < -700 ? x * exp(0.5 * x) * exp(0.5 * x) : x / (1 + exp(-x)))
BY_VECTORS(tanh, 20, tanh_of(v), tanh(x))
BY_VECTORS(gelu_tanh, 20, v / one_and_exponential_double(gelu_tanh_exponent(v)),
           x / (1 + exp(-1.5957691216057308 * (x + 0.044715 * x * x * x))))
LANE_BY_LANE(gelu, x * (0.5 * erfc(x * -0.7071067811865476)))

#endif

#undef NEAR
#undef CHOOSE
#undef ALL
