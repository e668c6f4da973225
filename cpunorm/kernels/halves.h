/* float16 and bfloat16 to float32 and back, a register at a time: exact one way, to nearest even the other. */

#define HALF_WIDTH (VECTOR_BYTES / 4)
typedef float HalfFloats __attribute__((vector_size(VECTOR_BYTES)));
typedef uint32_t HalfBits __attribute__((vector_size(VECTOR_BYTES)));
typedef uint16_t Halves __attribute__((vector_size(VECTOR_BYTES / 2)));

#if VECTOR_BYTES == 64
ALWAYS HalfBits zero_extended(Halves h) { return (HalfBits) _mm512_cvtepu16_epi32((__m256i) h); }
#define STREAM_HALVES(p, h) _mm256_stream_si256((__m256i *) (p), (__m256i) (h))
#elif VECTOR_BYTES == 32
ALWAYS HalfBits zero_extended(Halves h) { return (HalfBits) _mm256_cvtepu16_epi32((__m128i) h); }
ALWAYS Halves truncated(HalfBits u) {  /* no value is above 65535 */
    return (Halves) _mm_packus_epi32(_mm256_castsi256_si128((__m256i) u), _mm256_extracti128_si256((__m256i) u, 1));
}
#define STREAM_HALVES(p, h) _mm_stream_si128((__m128i *) (p), (__m128i) (h))
#define AS_HALVES(eights) ((Halves) (eights))
#define FROM_HALVES(h) ((Eights) (h))
#else
ALWAYS HalfBits zero_extended(Halves h) { return __builtin_convertvector(h, HalfBits); }
ALWAYS Halves truncated(HalfBits u) {
#ifdef __SSE4_1__
    return (Halves) ((Eights) _mm_packus_epi32((__m128i) u, (__m128i) u))[0];
#else
    return __builtin_convertvector(u, Halves);
#endif
}
#define STREAM_HALVES(p, h) (*(Halves *) (p) = (h))
#define AS_HALVES(eights) ((Halves) (eights)[0])
#define FROM_HALVES(h) ((Eights) {(uint64_t) (h)})
#endif

/* At the last level in 1 and 5 instructions for 2 and 10, which took most of LayerNorm's time in cache; elsewhere in 1 and
   9, where a shuffle puts halves in place beside the load. */
#if VECTOR_BYTES == 64
typedef uint16_t HalfWords __attribute__((vector_size(VECTOR_BYTES)));
ALWAYS HalfFloats widened_bfloat(Halves h) {
    const HalfWords each = {0, 0, 0, 1, 0, 2,  0, 3,  0, 4,  0, 5,  0, 6,  0, 7,
                            0, 8, 0, 9, 0, 10, 0, 11, 0, 12, 0, 13, 0, 14, 0, 15};
    return (HalfFloats) _mm512_maskz_permutexvar_epi16(0xaaaaaaaa, (__m512i) each, _mm512_castsi256_si512((__m256i) h));
}
ALWAYS Halves narrowed_bfloat(HalfFloats v) {
    const __m512i u = (__m512i) v;
    const HalfWords upper = {1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
    const __mmask16 odd = _mm512_test_epi32_mask(u, _mm512_set1_epi32(0x10000));
    __m512i rounded = _mm512_add_epi32(u, _mm512_set1_epi32(0x7fff));
    rounded = _mm512_mask_add_epi32(rounded, odd, rounded, _mm512_set1_epi32(1));
    rounded = (__m512i) _mm512_fixupimm_ps((__m512) rounded, (__m512) v, _mm512_set1_epi32(0x22), 0);  /* NaN: v's, quiet */
    return (Halves) _mm512_castsi512_si256(_mm512_permutexvar_epi16((__m512i) upper, rounded));
}
#else
#if VECTOR_BYTES == 32
ALWAYS HalfFloats widened_bfloat(Halves h) {
    const __m256i each = _mm256_setr_epi8(-1, -1, 0, 1, -1, -1, 2, 3, -1, -1, 4, 5, -1, -1, 6, 7,
                                          -1, -1, 8, 9, -1, -1, 10, 11, -1, -1, 12, 13, -1, -1, 14, 15);
    return (HalfFloats) _mm256_shuffle_epi8(_mm256_broadcastsi128_si256((__m128i) h), each);
}
#elif defined(__SSE2__)
ALWAYS HalfFloats widened_bfloat(Halves h) {
    return (HalfFloats) _mm_unpacklo_epi16(_mm_setzero_si128(), (__m128i) FROM_HALVES(h));
}
#else
ALWAYS HalfFloats widened_bfloat(Halves h) { return (HalfFloats) (zero_extended(h) << 16); }
#endif
/* v is computed, so a NaN is quiet: nothing is added to it. */
ALWAYS Halves narrowed_bfloat(HalfFloats v) {
    const HalfBits u = (HalfBits) v, even = (HalfBits) ((u & 0x10000) == 0), number = (HalfBits) (v == v);
    return truncated((u + ((0x8000 + even) & number)) >> 16);
}
#endif

/* Without instructions of the level: exponents are moved by a multiplication, subnormal numbers by an addition, whose own
   rounding is that to nearest even. */
#if VECTOR_BYTES == 64
ALWAYS HalfFloats widened_half(Halves h) { return (HalfFloats) _mm512_cvtph_ps((__m256i) h); }
ALWAYS Halves narrowed_half(HalfFloats v) { return (Halves) _mm512_cvtps_ph((__m512) v, _MM_FROUND_TO_NEAREST_INT); }
#elif VECTOR_BYTES == 32
ALWAYS HalfFloats widened_half(Halves h) { return (HalfFloats) _mm256_cvtph_ps((__m128i) h); }
ALWAYS Halves narrowed_half(HalfFloats v) { return (Halves) _mm256_cvtps_ph((__m256) v, _MM_FROUND_TO_NEAREST_INT); }
#else
#define CHOOSE(mask, a, b) (((HalfBits) (mask) & (a)) | (~(HalfBits) (mask) & (b)))
ALWAYS HalfFloats widened_half(Halves h) {
    const HalfBits u = zero_extended(h), magnitude = (u & 0x7fff) << 13;
    const HalfFloats v = (HalfFloats) magnitude * 0x1p112f;
    const HalfBits special = (HalfBits) (magnitude >= 0x7c00u << 13) & 0x7f800000;
    return (HalfFloats) ((HalfBits) v | special | (u & 0x8000) << 16);
}
ALWAYS Halves narrowed_half(HalfFloats v) {
    const HalfBits u = (HalfBits) v, magnitude = u & 0x7fffffff, sign = (u & 0x80000000) >> 16;
    const HalfBits normal = (magnitude + 0xc8000fff + ((magnitude >> 13) & 1)) >> 13;
    const HalfBits subnormal = (HalfBits) ((HalfFloats) magnitude + 0.5f) - 0x3f000000;
    const HalfBits special = CHOOSE(magnitude > 0x7f800000, 0x7e00 | ((magnitude >> 13) & 0x3ff), (HalfBits) {} + 0x7c00);
    const HalfBits finite = CHOOSE(magnitude < 0x38800000, subnormal, normal);
    return truncated(CHOOSE(magnitude >= 0x47800000, special, finite) | sign);
}
#undef CHOOSE
#endif
