/* A vector of doubles, and one of each element as doubles.  Compiled once per ISA level. */

#ifndef CPUNORM_DOUBLES_H
#define CPUNORM_DOUBLES_H

#include "lines.h"

enum {
    DOUBLES = VECTOR_BYTES / 8,
    PAIR = 2 * DOUBLES,  /* values of a step: two vectors of doubles, one of floats */
};

typedef float Singles __attribute__((vector_size(VECTOR_BYTES)));
typedef float LooseSingles __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
typedef double Doubles __attribute__((vector_size(VECTOR_BYTES)));
typedef double LooseDoubles __attribute__((vector_size(VECTOR_BYTES), aligned(8), may_alias));
typedef int64_t Longs __attribute__((vector_size(VECTOR_BYTES)));
typedef uint64_t ULongs __attribute__((vector_size(VECTOR_BYTES)));

ALWAYS Doubles doubles_at(const double *p) { return *(const LooseDoubles *) p; }
ALWAYS void put_doubles(double *p, Doubles v) { *(LooseDoubles *) p = v; }
ALWAYS Doubles splat(double v) { return v - (Doubles) {0}; }
/* The lesser and the greater; `b` where `a` is NaN. */
#if VECTOR_BYTES == 64
#define OF_REGISTERS(name, kind, a, b) _mm512_##name##_##kind(a, b)
#elif VECTOR_BYTES == 32
#define OF_REGISTERS(name, kind, a, b) _mm256_##name##_##kind(a, b)
#else
#define OF_REGISTERS(name, kind, a, b) _mm_##name##_##kind(a, b)
#endif
#if defined(__SSE2__)
ALWAYS Doubles lesser(Doubles a, Doubles b) { return (Doubles) OF_REGISTERS(min, pd, a, b); }
ALWAYS Doubles greater(Doubles a, Doubles b) { return (Doubles) OF_REGISTERS(max, pd, a, b); }
ALWAYS Singles lesser_singles(Singles a, Singles b) { return (Singles) OF_REGISTERS(min, ps, a, b); }
ALWAYS Singles greater_singles(Singles a, Singles b) { return (Singles) OF_REGISTERS(max, ps, a, b); }
#else
#define CHOOSE_LANES(type, mask_type, test)                                                                           \
    {                                                                                                                 \
        const mask_type mask = a test b;                                                                              \
        return (type) (((mask_type) a & mask) | ((mask_type) b & ~mask));                                              \
    }
typedef int32_t Ints __attribute__((vector_size(VECTOR_BYTES)));
ALWAYS Doubles lesser(Doubles a, Doubles b) CHOOSE_LANES(Doubles, Longs, <)
ALWAYS Doubles greater(Doubles a, Doubles b) CHOOSE_LANES(Doubles, Longs, >)
ALWAYS Singles lesser_singles(Singles a, Singles b) CHOOSE_LANES(Singles, Ints, <)
ALWAYS Singles greater_singles(Singles a, Singles b) CHOOSE_LANES(Singles, Ints, >)
#undef CHOOSE_LANES
#endif
#undef OF_REGISTERS

/* A 1 of which the compiler doesn't know that it is one: s + v as a multiply-add. */
ALWAYS Doubles unknown_one(void) {
    Doubles one = splat(1);
#ifdef __FMA__
    __asm__("" : "+v"(one));
#endif
    return one;
}

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
    if (from > 0) {
        const Longs lanes = lanes_from(from);
        v = (Doubles) (((Longs) v & lanes) | ((Longs) doubles_at(p) & ~lanes));
    }
    put_doubles(p, v);
}

/* Half a register of 32-bit values, an eighth of bytes, a quarter of 16 bits. */
#if VECTOR_BYTES == 64
#define SINGLES_TO_DOUBLES(v) (Doubles) _mm512_cvtps_pd(v)
#define LOW_HALF(v) _mm512_castps512_ps256((__m512) (v))
#define HIGH_HALF(v) _mm512_extractf32x8_ps((__m512) (v), 1)
#define INTS_TO_DOUBLES(v) (Doubles) _mm512_cvtepi32_pd(v)
#define SINGLES_AT(p) _mm256_loadu_ps(p)
#define INTS_AT(p) _mm256_loadu_si256((const __m256i *) (p))
#define FROM_BYTES(kind, p) _mm256_cvtep##kind##8_epi32(_mm_loadl_epi64((const __m128i *) (p)))
#define FROM_SHORTS(kind, p) _mm256_cvtep##kind##16_epi32(_mm_loadu_si128((const __m128i *) (p)))
#define HALVES_AT(p) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) (p)))
#define BFLOATS_AT(p) _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *) (p))), 16)
#elif VECTOR_BYTES == 32
#define SINGLES_TO_DOUBLES(v) (Doubles) _mm256_cvtps_pd(v)
#define LOW_HALF(v) _mm256_castps256_ps128((__m256) (v))
#define HIGH_HALF(v) _mm256_extractf128_ps((__m256) (v), 1)
#define INTS_TO_DOUBLES(v) (Doubles) _mm256_cvtepi32_pd(v)
#define SINGLES_AT(p) _mm_loadu_ps(p)
#define INTS_AT(p) _mm_loadu_si128((const __m128i *) (p))
#define FROM_BYTES(kind, p) _mm_cvtep##kind##8_epi32(_mm_loadu_si32(p))
#define FROM_SHORTS(kind, p) _mm_cvtep##kind##16_epi32(_mm_loadl_epi64((const __m128i *) (p)))
#define HALVES_AT(p) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) (p)))
#define BFLOATS_AT(p) _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *) (p))), 16)
#endif

/* Writes a vector, around the caches if `streamed`: p is aligned then. */
ALWAYS void put_as_singles(float *p, Doubles v, int streamed) {
#if VECTOR_BYTES == 64
    const __m256 narrow = _mm512_cvtpd_ps((__m512d) v);
    if (streamed)
        _mm256_stream_ps(p, narrow);
    else
        _mm256_storeu_ps(p, narrow);
#elif VECTOR_BYTES == 32
    const __m128 narrow = _mm256_cvtpd_ps((__m256d) v);
    if (streamed)
        _mm_stream_ps(p, narrow);
    else
        _mm_storeu_ps(p, narrow);
#else
    (void) streamed;
    for (int j = 0; j < DOUBLES; j++)
        p[j] = (float) v[j];
#endif
}
ALWAYS void put_as_doubles(double *p, Doubles v, int streamed) {
#if VECTOR_BYTES == 64
    if (streamed)
        _mm512_stream_pd(p, (__m512d) v);
    else
#elif VECTOR_BYTES == 32
    if (streamed)
        _mm256_stream_pd(p, (__m256d) v);
    else
#endif
        put_doubles(p, v);
}

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
#define ONE_BY_ONE(type, value)                                                                                       \
    type v;                                                                                                           \
    for (int j = 0; j < (int) (sizeof v / sizeof v[0]); j++)                                                          \
        v[j] = value;                                                                                                 \
    return v;

/* Floats of half precision are floats first. */
ALWAYS Singles singles_f32(const float *p) { return *(const LooseSingles *) p; }
#if VECTOR_BYTES >= 32
ALWAYS Singles singles_f16(const uint16_t *p) { return (Singles) HALVES_AT(p); }
ALWAYS Singles singles_bf16(const uint16_t *p) { return (Singles) BFLOATS_AT(p); }
ALWAYS Doubles low_half(Singles v) { return SINGLES_TO_DOUBLES(LOW_HALF(v)); }
ALWAYS Doubles high_half(Singles v) { return SINGLES_TO_DOUBLES(HIGH_HALF(v)); }
#else
ALWAYS Singles singles_f16(const uint16_t *p) { ONE_BY_ONE(Singles, half_value(p[j])) }
ALWAYS Singles singles_bf16(const uint16_t *p) { ONE_BY_ONE(Singles, bfloat_value(p[j])) }
ALWAYS Doubles low_half(Singles v) { return (Doubles) {v[0], v[1]}; }
ALWAYS Doubles high_half(Singles v) { return (Doubles) {v[2], v[3]}; }
#endif

#if VECTOR_BYTES >= 32
ALWAYS Doubles from_f32(const float *p) { return SINGLES_TO_DOUBLES(SINGLES_AT(p)); }
ALWAYS Doubles from_u8(const uint8_t *p) { return INTS_TO_DOUBLES(FROM_BYTES(u, p)); }
ALWAYS Doubles from_i8(const int8_t *p) { return INTS_TO_DOUBLES(FROM_BYTES(i, p)); }
ALWAYS Doubles from_u16(const uint16_t *p) { return INTS_TO_DOUBLES(FROM_SHORTS(u, p)); }
ALWAYS Doubles from_i16(const int16_t *p) { return INTS_TO_DOUBLES(FROM_SHORTS(i, p)); }
ALWAYS Doubles from_i32(const int32_t *p) { return INTS_TO_DOUBLES(INTS_AT(p)); }
#else
ALWAYS Doubles from_f32(const float *p) { ONE_BY_ONE(Doubles, p[j]) }
ALWAYS Doubles from_u8(const uint8_t *p) { ONE_BY_ONE(Doubles, p[j]) }
ALWAYS Doubles from_i8(const int8_t *p) { ONE_BY_ONE(Doubles, p[j]) }
ALWAYS Doubles from_u16(const uint16_t *p) { ONE_BY_ONE(Doubles, p[j]) }
ALWAYS Doubles from_i16(const int16_t *p) { ONE_BY_ONE(Doubles, p[j]) }
ALWAYS Doubles from_i32(const int32_t *p) { ONE_BY_ONE(Doubles, p[j]) }
#endif
#if VECTOR_BYTES == 64
ALWAYS Doubles from_u32(const uint32_t *p) { return (Doubles) _mm512_cvtepu32_pd(INTS_AT(p)); }
#else
ALWAYS Doubles from_u32(const uint32_t *p) { ONE_BY_ONE(Doubles, p[j]) }
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

#endif
