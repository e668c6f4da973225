/* Activations of a register of values.  Included by lines.h for float and for double.

   Of float, those with an exponential are computed in double and rounded once: what their polynomials leave out is below a
   thirtieth of that rounding, so they are within 0.54 ulp, subnormal results too.  Of double, lane by lane, by the C library.
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
ALWAYS VEC NAME(hardsigmoid)(VEC v) { return NAME(between)(v + 3, 0, 6) / 6; }
ALWAYS VEC NAME(hardswish)(VEC v) { return v * NAME(hardsigmoid)(v); }

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

ALWAYS Wide wide_between(Wide v, double low, double high) {
    v = CHOOSE_WIDE(v < low, WIDE(low), v);
    return CHOOSE_WIDE(v > high, WIDE(high), v);
}

/* exp(x) - 1, |x| <= 700, to 2^-31 of it: x = n log(2) + r, with a polynomial for exp(r) - 1. */
ALWAYS Wide exponential_minus_1(Wide x, Wide *power) {
    const double rounding = 6755399441055744.0;  /* 1.5 * 2^52: what is added to it is rounded, and its low bits */
    const Wide shifted = x * 1.4426950408889634 + rounding, r = x - (shifted - rounding) * 0.6931471805599453;
    const Wide p = ((((WIDE(0.00019845884362776063) * r + 0.001394072044761632) * r + 0.008333389575252191) * r
                     + 0.04166635981341429) * r + 0.1666666636883546) * r + 0.5000000044401736;
    *power = (Wide) (((WideBits) shifted << 52) + (WideBits) WIDE(1));  /* 2^n */
    return r + r * r * p;
}
ALWAYS Wide exponential(Wide x) {
    Wide power;
    const Wide e = exponential_minus_1(x, &power);
    return power + power * e;
}

ALWAYS Wide wide_sigmoid(Wide x) { return 1 / (1 + exponential(wide_between(-x, -150, 150))); }
ALWAYS Wide wide_silu(Wide x) {
    x = CHOOSE_WIDE(x < -150.0, WIDE(-150), x);
    return x / (1 + exponential(wide_between(-x, -150, 150)));
}
ALWAYS Wide wide_gelu_tanh(Wide x) {  /* z = sqrt(2/pi) (x + 0.044715 x^3): x (1 + tanh(z)) / 2 = x / (1 + exp(-2 z)) */
    x = CHOOSE_WIDE(x < -16.0, WIDE(-16), x);
    const Wide z = x * (1.5957691216057308 + 0.07135481627159587 * (x * x));
    return x / (1 + exponential(wide_between(-z, -400, 400)));
}
ALWAYS Wide wide_gelu(Wide x) {  /* x P(x) of the normal distribution; P(-t) = exp(-t^2 / 2) q(t), q to 2^-29 of it */
    x = CHOOSE_WIDE(x < -16.0, WIDE(-16), x);
    Wide t = (Wide) ((WideBits) x & INT64_MAX);
    t = CHOOSE_WIDE(t > 16.0, WIDE(16), t);
    const Wide s = (t - 3.5) / (t + 3.5);
    const Wide q = (((((((((WIDE(-1.96015237531754e-05) * s - 4.9889022749288906e-05) * s + 0.00013358764237576264) * s
                         + 0.00038826979391936136) * s - 0.0013817638718879952) * s - 0.0015608716053409182) * s
                      + 0.0190657010302543) * s - 0.06163948891982603) * s + 0.12585524734796294) * s
                   - 0.1871396966585236) * s + 0.10634515367353;
    const Wide tail = t * q * exponential(t * t * -0.5);
    return CHOOSE_WIDE(x < 0.0, -tail, x - tail);
}
ALWAYS Wide wide_tanh(Wide x) {  /* (exp(2 x) - 1) / (exp(2 x) + 1), without cancellation near 0 */
    Wide power;
    const Wide e = exponential_minus_1(wide_between(x + x, -50, 50), &power), w = power - 1 + power * e;
    return w / (w + 2);
}

#define IN_DOUBLE(name, where, value)                                                                                 \
    ALWAYS VEC name##_float(VEC v) {                                                                                  \
        const VEC y = BOTH(wide_##name(LOW(v)), wide_##name(HIGH(v)));                                                \
        return CHOOSE(where, ALL(value), y);                                                                          \
    }
IN_DOUBLE(sigmoid, v != v, NAN)
IN_DOUBLE(tanh, v != v, NAN)
IN_DOUBLE(silu, v == -INFINITY, NAN)
IN_DOUBLE(gelu, v == -INFINITY, NAN)
IN_DOUBLE(gelu_tanh, v == -INFINITY, NAN)

#else

#define LANE_BY_LANE(name, formula)                                                                                   \
    static VEC NAME(name)(VEC v) {                                                                                    \
        for (int i = 0; i < WIDTH; i++) {                                                                             \
            const double x = v[i];                                                                                    \
            v[i] = formula;                                                                                           \
        }                                                                                                             \
        return v;                                                                                                     \
    }
LANE_BY_LANE(sigmoid, 1 / (1 + exp(-x)))
LANE_BY_LANE(silu, x / (1 + exp(-x)))
LANE_BY_LANE(tanh, tanh(x))
LANE_BY_LANE(gelu, x * (0.5 * erfc(x * -0.7071067811865476)))
LANE_BY_LANE(gelu_tanh, x / (1 + exp(-1.5957691216057308 * (x + 0.044715 * x * x * x))))

#endif

#undef CHOOSE
#undef ALL
