/* Activations of a register of values.  Included by lines.h for float and for double.

   Of float, those with an exponential are computed in float, by polynomials that are looked up (32 with AVX-512, 8 at AVX2,
   64 elsewhere: pieces.h) or by an exponential that takes less time: to 1.9 ulp, the largest error of all values.  GELU of
   large values is the value and tanh is 1, as at the end of the last piece; where results become tiny, or so large that a
   sigmoid is 1, they are computed in double and rounded once: what their polynomials leave out there is a part of that
   rounding, so they are within 1 ulp, subnormal results too.  Of double, within 4 ulp, GELU within 5; its tail is the C
   library's.
   What the formulas of real numbers make of Inf and NaN is what comes out. */

#define CHOOSE(mask, a, b) ((VEC) (((MASK) (mask) & (MASK) (a)) | (~(MASK) (mask) & (MASK) (b))))
#define ALL(value) ((R) (value) - (VEC){0})

/* v, if it is NaN. */
ALWAYS VEC NAME(at_least)(VEC low, VEC v) {
#ifdef __SSE2__
    return MM(max)(low, v);  /* of the second operand, if one is NaN */
#else
    return CHOOSE(v < low, low, v);
#endif
}
ALWAYS VEC NAME(at_most)(VEC high, VEC v) {
#ifdef __SSE2__
    return MM(min)(high, v);
#else
    return CHOOSE(v > high, high, v);
#endif
}
ALWAYS VEC NAME(relu)(VEC v) { return NAME(at_least)((VEC){0}, v); }
ALWAYS VEC NAME(relu6)(VEC v) { return NAME(at_most)(ALL(6), NAME(relu)(v)); }
ALWAYS VEC NAME(leaky_relu)(VEC v) { return NAME(at_least)(v * (R) 0.01, v); }
/* v / 6; a quotient of registers takes longer than what makes a product as exact. */
ALWAYS VEC NAME(sixth)(VEC v) {
#ifdef __FMA__
    const VEC q = v * (R) (1.0 / 6);
    return q + MM(fnmadd)(ALL(6), q, v) * (R) (1.0 / 6);  /* not left to the compiler: rounded twice is 2.4 ulp */
#else
    return v / 6;
#endif
}
ALWAYS VEC NAME(hardsigmoid)(VEC v) { return NAME(sixth)(NAME(relu6)(v + 3)); }
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

/* An activation by the formula `near` where `reach` is up to `limit`, else by name_far; each lane by itself, whatever the
   others are. */
#define NEAR(name, reach, limit, near)                                                                                \
    ALWAYS VEC NAME(name)(VEC v) {                                                                                    \
        const VEC y = near, r = reach;                                                                                \
        return __builtin_expect(NAME(any_beyond)(r, limit), 0) ? CHOOSE(r <= limit, y, NAME(name##_far)(v)) : y;       \
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

/* exp(x), |x| <= 700, to 2^-26 of it: x = n log(2) + r, with a polynomial for exp(r) - 1. */
ALWAYS Wide exponential(Wide x) {
    const double rounding = 6755399441055744.0;  /* 1.5 * 2^52: what is added to it is rounded, and its low bits */
    const Wide shifted = x * 1.4426950408889634 + rounding, r = x - (shifted - rounding) * 0.6931471805599453;
    const Wide p = (((WIDE(0.0013882507582336611) * r + 0.008366580475650575) * r + 0.0416672018164052) * r
                    + 0.16666543176576337) * r + 0.49999998143968133;
    const Wide power = (Wide) (((WideBits) shifted << 52) + (WideBits) WIDE(1));  /* 2^n */
    return power + power * (r + r * r * p);
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

#define IN_FLOAT(name, reach, limit, near, where, value)                                                              \
    static __attribute__((noinline, cold)) VEC name##_far_float(VEC v) {                                              \
        return CHOOSE(where, ALL(value), BOTH(wide_##name(LOW(v)), wide_##name(HIGH(v))));                            \
    }                                                                                                                 \
    NEAR(name, reach, limit, near)

/* a b + c and c - a b; rounded once where the CPU can, which is not left to the compiler: AVX-512's formulas need it. */
#if VECTOR_BYTES == 64
#define PLUS(a, b, c) ((VEC) _mm512_fmadd_ps((__m512) (a), (__m512) (b), (__m512) (c)))
#define MINUS(a, b, c) ((VEC) _mm512_fnmadd_ps((__m512) (a), (__m512) (b), (__m512) (c)))
#elif VECTOR_BYTES == 32
#define PLUS(a, b, c) ((VEC) _mm256_fmadd_ps((__m256) (a), (__m256) (b), (__m256) (c)))
#define MINUS(a, b, c) ((VEC) _mm256_fnmadd_ps((__m256) (a), (__m256) (b), (__m256) (c)))
#else
#define PLUS(a, b, c) ((a) * (b) + (c))
#define MINUS(a, b, c) ((c) - (a) * (b))
#endif
#define ROUNDING ALL(12582912)  /* 1.5 * 2^23: what is added to it is rounded, and its low bits */

ALWAYS VEC within(VEC v, float limit) { return at_most_float(ALL(limit), magnitude_float(v)); }

#if VECTOR_BYTES == 64

typedef struct {
    VEC constant, rest, offset;  /* constant + rest * offset is the polynomial */
} Piece;

#define LOOKED_UP(row) ((VEC) _mm512_permutex2var_ps(_mm512_load_ps(row), i, _mm512_load_ps((row) + 16)))
/* Of a in its piece, by the low bits of `shifted`.  It is less than 31.5 width, where piece 32, which is piece 0, would begin;
   the offset is that from the piece's middle. */
ALWAYS Piece piece_of(const float (*table)[32], const int degree, const float width, VEC a) {
    const VEC shifted = PLUS(a, ALL(1 / width), ROUNDING), t = MINUS(shifted - ROUNDING, ALL(width), a);
    const __m512i i = (__m512i) shifted;
    VEC p = LOOKED_UP(table[degree]);
#pragma GCC unroll 8
    for (int k = degree - 1; k > 0; k--)
        p = PLUS(p, t, LOOKED_UP(table[k]));
    return (Piece){LOOKED_UP(table[0]), p, t};
}
#undef LOOKED_UP

/* x P(x) = max(x, 0) - a P(-a), P the table's: of one rounding more than P(-a) where x is negative. */
ALWAYS VEC gated(VEC x, VEC a, Piece p) {
    return MINUS(a, p.constant, MINUS(a, p.rest * p.offset, relu_float(x)));
}
ALWAYS VEC sigmoid_near(VEC x) {
    const Piece p = piece_of(SIGMOID_PIECES, magnitude_float(x));
    const VEC y = PLUS(p.rest, p.offset, p.constant);
    return CHOOSE(x > 0, 1 - y, y);
}
ALWAYS VEC tanh_float(VEC v) {
    const VEC x = at_most_float(ALL(9.8f), at_least_float(ALL(-9.8f), v));
    const Piece p = piece_of(TANH_PIECES, magnitude_float(x));
    return PLUS(x, p.constant, x * (p.rest * p.offset));
}
#define GATED(pieces, limit) gated(v, within(v, limit), piece_of(pieces, within(v, limit)))
IN_FLOAT(gelu, -v, 5.4f, GATED(GELU_PIECES, 5.4f), v == -INFINITY, NAN)
IN_FLOAT(gelu_tanh, -v, 4.92f, GATED(GELU_TANH_PIECES, 4.92f), v == -INFINITY, NAN)
IN_FLOAT(silu, magnitude_float(v), 15.7f, GATED(SIGMOID_PIECES, 15.7f), v == -INFINITY, NAN)
IN_FLOAT(sigmoid, magnitude_float(v), 15.7f, sigmoid_near(v), v != v, NAN)
#undef GATED

#else

typedef struct {
    VEC constant, first, rest, offset;  /* constant + offset * (first + rest * offset) is the polynomial */
} Piece;

/* Of a in its piece, whose number is a (linear + square a), rounded.  A coefficient of eight pieces is a register, to be
   looked up in by one instruction; or else a row of a piece is two registers, of which those of four values are turned. */
#if VECTOR_BYTES == 32
#define LOOKED_UP(row) ((VEC) _mm256_permutevar8x32_ps(_mm256_load_ps(row), i))
ALWAYS Piece piece_of(const float (*table)[8], const int degree, const float linear, const float square, VEC a) {
    const __m256i i = (__m256i) PLUS(a, PLUS(a, ALL(square), ALL(linear)), ROUNDING);
    const VEC t = a - LOOKED_UP(table[degree + 1]);
    VEC p = LOOKED_UP(table[degree]);
#pragma GCC unroll 8
    for (int k = degree - 1; k > 1; k--)
        p = PLUS(p, t, LOOKED_UP(table[k]));
    return (Piece){LOOKED_UP(table[0]), LOOKED_UP(table[1]), p, t};
}
#undef LOOKED_UP
#else
ALWAYS Piece piece_of(const float (*table)[8], const float linear, const float square, VEC a) {
    const MASK i = (MASK) (a * (a * square + linear) + ROUNDING) & 63;
    VEC c[8];
#pragma GCC unroll 2
    for (int k = 0; k < 8; k += 4) {
#define ROW(lane) load_float(table[i[lane]] + k)
        const VEC low = __builtin_shufflevector(ROW(0), ROW(1), 0, 4, 1, 5);
        const VEC high = __builtin_shufflevector(ROW(0), ROW(1), 2, 6, 3, 7);
        const VEC next_low = __builtin_shufflevector(ROW(2), ROW(3), 0, 4, 1, 5);
        const VEC next_high = __builtin_shufflevector(ROW(2), ROW(3), 2, 6, 3, 7);
        c[k] = __builtin_shufflevector(low, next_low, 0, 1, 4, 5);
        c[k + 1] = __builtin_shufflevector(low, next_low, 2, 3, 6, 7);
        c[k + 2] = __builtin_shufflevector(high, next_high, 0, 1, 4, 5);
        c[k + 3] = __builtin_shufflevector(high, next_high, 2, 3, 6, 7);
#undef ROW
    }
    const VEC t = a - c[6];
    return (Piece){c[0], c[1], ((c[5] * t + c[4]) * t + c[3]) * t + c[2], t};
}
#endif

/* max(x, 0) - the polynomial. */
ALWAYS VEC gated(VEC x, Piece p) {
    return MINUS(PLUS(p.rest, p.offset, p.first), p.offset, relu_float(x) - p.constant);
}
ALWAYS VEC tanh_float(VEC v) {
    const Piece p = piece_of(TANH_PIECES, within(v, 9.2f));
    const VEC y = PLUS(PLUS(p.rest, p.offset, p.first), p.offset, p.constant);
    return (VEC) ((MASK) y | ((MASK) v & (MASK) -(VEC){0}));
}

/* 1 + exp(-x), |x| <= 16: as in double, but with log(2) in two parts, of which the first times n is exact, as is 1 + 2^n. */
ALWAYS VEC one_and_exponential(VEC x) {
    typedef uint32_t Bits __attribute__((vector_size(VECTOR_BYTES)));  /* numbers too far for the formula overflow */
    const VEC shifted = x * -1.44269504f + ROUNDING, n = shifted - ROUNDING;
    const VEC r = (-x - n * 0.693145752f) - n * 1.42860677e-06f;
    const VEC p = (((ALL(0.00138825076f) * r + 0.00836658048f) * r + 0.0416672018f) * r + 0.166665432f) * r + 0.49999998f;
    const VEC power = (VEC) (((Bits) shifted << 23) + (Bits) ALL(1));
    return (1 + power) + power * (r + r * r * p);
}

IN_FLOAT(gelu, -v, 5.3f, gated(v, piece_of(GELU_PIECES, within(v, 5.3f))), v == -INFINITY, NAN)
IN_FLOAT(gelu_tanh, -v, 4.9f, gated(v, piece_of(GELU_TANH_PIECES, within(v, 4.9f))), v == -INFINITY, NAN)
IN_FLOAT(silu, magnitude_float(v), 16, v / one_and_exponential(v), v == -INFINITY, NAN)
IN_FLOAT(sigmoid, magnitude_float(v), 16, 1 / one_and_exponential(v), v != v, NAN)

#endif
#undef PLUS
#undef MINUS
#undef ROUNDING
#undef LOW
#undef HIGH
#undef BOTH

#else

typedef uint64_t UnsignedBits __attribute__((vector_size(VECTOR_BYTES)));  /* numbers too far for the formula overflow */

/* Of x and its square: terms of even and of odd powers at once, for each waits for the one before. */
ALWAYS VEC polynomial_double(const double *terms, const int degree, VEC x, VEC square) {
    VEC high = ALL(terms[degree]), low = ALL(terms[degree - 1]);
#pragma GCC unroll 10
    for (int k = degree - 2; k > 0; k -= 2) {
        high = high * square + terms[k];
        low = low * square + terms[k - 1];
    }
    return degree % 2 ? high * x + low : low * x + (high * square + terms[0]);
}

/* exp(x + low) - 1 = power (1 + e) - 1, |x| <= 700, e to 2^-54: x + low = n log(2) + r, log(2) in two parts (fdlibm's) of
   which the first times n is exact; the series of exp(r) - 1. */
ALWAYS VEC exponential_double(VEC x, VEC low, VEC *power) {
    const double rounding = 6755399441055744.0;  /* 1.5 * 2^52: what is added to it is rounded, and its low bits */
    const VEC shifted = x * 1.4426950408889634 + rounding, n = shifted - rounding;
    const VEC r = ((x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10) + low;
    const double terms[] = {1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040, 1.0 / 40320, 1.0 / 362880,
                            1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};
    const VEC square = r * r, p = polynomial_double(terms, 11, r, square);
    *power = (VEC) (((UnsignedBits) shifted << 52) + (UnsignedBits) ALL(1));
    return r + square * p;
}
ALWAYS VEC one_and_exponential_double(VEC x) {
    VEC power;
    const VEC e = exponential_double(x, -(VEC){0}, &power);
    return (1 + power) + power * e;
}
ALWAYS VEC tanh_of(VEC x) {  /* (exp(2 x) - 1) / (exp(2 x) + 1), without cancellation near 0 */
    VEC power;
    const VEC e = exponential_double(x + x, -(VEC){0}, &power), w = (power - 1) + power * e;
    return w / (w + 2);
}
/* max(x, 0) - t P(-t), with P(-t) = exp(-t^2 / 2) q / (t + 1.25); t^2 in two parts, of which the first, of t's upper bits, is
   exact.  From 14 on P(-t) is nothing beside 1. */
ALWAYS VEC gelu_of(VEC x) {
    const VEC t = at_most_double(ALL(14), magnitude_double(x)), s = (t - 5) / (t + 5);
    const VEC upper = (VEC) ((MASK) t & -((INT) 1 << 27)), low = (t - upper) * (t + upper) * -0.5;
    const VEC q = polynomial_double(gelu_quotient, 20, s, s * s);
    VEC power;
    const VEC e = exponential_double(upper * upper * -0.5, low, &power), p = t / (t + 1.25) * q;
    return relu_double(x) - power * (p + p * e);
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
#define BY_VECTORS(name, reach, limit, near, formula)                                                                 \
    LANE_BY_LANE(name##_far, formula)                                                                                 \
    NEAR(name, reach, limit, near)
BY_VECTORS(sigmoid, magnitude_double(v), 700, 1 / one_and_exponential_double(-v), x < -700 ? exp(x) : 1 / (1 + exp(-x)))
BY_VECTORS(silu, magnitude_double(v), 700, v / one_and_exponential_double(-v),
           x < -700 ? x * exp(0.5 * x) * exp(0.5 * x) : x / (1 + exp(-x)))
BY_VECTORS(tanh, magnitude_double(v), 20, tanh_of(v), tanh(x))
BY_VECTORS(gelu_tanh, magnitude_double(v), 20, v / one_and_exponential_double(gelu_tanh_exponent(v)),
           x / (1 + exp(-1.5957691216057308 * (x + 0.044715 * x * x * x))))
BY_VECTORS(gelu, -v, 14, gelu_of(v), x * (0.5 * erfc(x * -0.7071067811865476)))

#endif

#undef NEAR
#undef CHOOSE
#undef ALL
