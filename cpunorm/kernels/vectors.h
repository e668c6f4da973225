/* One register of values of the type R: loads, stores, tails, its sum; `take` and `put` are those of values as they lie in
   memory, of the type X, which is R or a half.  Included by lines.h once per type.

   Explicit vector types: gcc sends arrays of lanes through the stack instead.  What has no operator is said with the
   intrinsics of each level; what has neither is said value by value. */

#define VEC NAME(Vec)
#define MASK NAME(Mask)
typedef R VEC __attribute__((vector_size(VECTOR_BYTES)));
typedef R NAME(Loose) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(R)), may_alias));
typedef INT MASK __attribute__((vector_size(VECTOR_BYTES)));
#define WIDTH (VECTOR_BYTES / R_BYTES)

ALWAYS VEC NAME(load)(const R *p) { return *(const NAME(Loose) *) p; }
ALWAYS void NAME(store)(R *p, VEC v) { *(NAME(Loose) *) p = v; }

/* All ones in the first n values, else zeros. */
ALWAYS MASK NAME(first)(int n) {
    MASK index;
    for (int j = 0; j < WIDTH; j++)
        index[j] = j;
    return index < (INT) n;
}
ALWAYS VEC NAME(kept)(VEC v, MASK mask) { return (VEC) ((MASK) v & mask); }

/* The first n values, 0 < n < WIDTH, others 0: nothing past them is read or written. */
#if VECTOR_BYTES == 64
ALWAYS VEC NAME(load_part)(const R *p, int n) { return (VEC) MM(maskz_loadu)((1u << n) - 1, p); }
ALWAYS void NAME(store_part)(R *p, VEC v, int n) { MM(mask_storeu)(p, (1u << n) - 1, v); }
ALWAYS void NAME(stream)(R *p, VEC v) { MM(stream)(p, v); }
#elif VECTOR_BYTES == 32
ALWAYS VEC NAME(load_part)(const R *p, int n) { return (VEC) MM(maskload)(p, (__m256i) NAME(first)(n)); }
ALWAYS void NAME(store_part)(R *p, VEC v, int n) {
    __m128i low = _mm256_castsi256_si128((__m256i) v);
    if (n >= WIDTH / 2) {
        _mm_storeu_si128((__m128i *) p, low);
        low = _mm256_extracti128_si256((__m256i) v, 1);
        p += WIDTH / 2;
    }
    store_first(p, (Eights) low, n % (WIDTH / 2) * R_BYTES);
}
ALWAYS void NAME(stream)(R *p, VEC v) { MM(stream)(p, v); }
#else
ALWAYS VEC NAME(load_part)(const R *p, int n) {
    VEC v = {p[0]};
#if WIDTH > 2
    if (n > 1)
        v[1] = p[1];
    if (n > 2)
        v[2] = p[2];
#endif
    return v;
}
ALWAYS void NAME(store_part)(R *p, VEC v, int n) {
    p[0] = v[0];
#if WIDTH > 2
    if (n > 1)
        p[1] = v[1];
    if (n > 2)
        p[2] = v[2];
#endif
}
#ifdef __SSE2__
ALWAYS void NAME(stream)(R *p, VEC v) { MM(stream)(p, v); }
#else
ALWAYS void NAME(stream)(R *p, VEC v) { NAME(store)(p, v); }
#endif
#endif

/* Values in memory. */
#ifdef HALF
typedef uint16_t NAME(Halves) __attribute__((vector_size(WIDTH * 2)));
typedef uint16_t NAME(LooseHalves) __attribute__((vector_size(WIDTH * 2), aligned(2), may_alias));

ALWAYS NAME(Halves) NAME(halves)(const X *p) { return *(const NAME(LooseHalves) *) p; }
ALWAYS VEC NAME(take)(const X *p) { return HALF(widened)(NAME(halves)(p)); }
ALWAYS void NAME(put)(X *p, VEC v, const int streamed) {
    const NAME(Halves) h = HALF(narrowed)(v);
    if (streamed)
        STREAM_HALVES(p, h);
    else
        *(NAME(LooseHalves) *) p = h;
}
#if VECTOR_BYTES == 64
ALWAYS VEC NAME(take_part)(const X *p, int n) {
    return HALF(widened)((NAME(Halves)) _mm256_maskz_loadu_epi16((1u << n) - 1, p));
}
ALWAYS void NAME(put_part)(X *p, VEC v, int n) {
    _mm256_mask_storeu_epi16(p, (1u << n) - 1, (__m256i) HALF(narrowed)(v));
}
#else
ALWAYS VEC NAME(take_part)(const X *p, int n) {
    const Eights h = load_first(p, n * (int) sizeof(X));
    return HALF(widened)(AS_HALVES(h));
}
ALWAYS void NAME(put_part)(X *p, VEC v, int n) {
    store_first(p, FROM_HALVES(HALF(narrowed)(v)), n * (int) sizeof(X));
}
#endif
#else
ALWAYS VEC NAME(take)(const X *p) { return NAME(load)(p); }
ALWAYS VEC NAME(take_part)(const X *p, int n) { return NAME(load_part)(p, n); }
ALWAYS void NAME(put)(X *p, VEC v, const int streamed) {
    if (streamed)
        NAME(stream)(p, v);
    else
        NAME(store)(p, v);
}
ALWAYS void NAME(put_part)(X *p, VEC v, int n) { NAME(store_part)(p, v, n); }
#endif

/* The sum of all values: halves are added until four are left (two, of doubles); those in double. */
#if WIDTH >= 16
typedef R NAME(Vec8) __attribute__((vector_size(8 * sizeof(R))));
#define HALF8(v, at)                                                                                                  \
    __builtin_shufflevector(v, v, at, at + 1, at + 2, at + 3, at + 4, at + 5, at + 6, at + 7)
#endif
#if WIDTH >= 8
typedef R NAME(Vec4) __attribute__((vector_size(4 * sizeof(R))));
#endif
ALWAYS double NAME(fold)(VEC v) {
#if WIDTH == 16
    NAME(Vec8) a = HALF8(v, 0) + HALF8(v, 8);
    NAME(Vec4) b = __builtin_shufflevector(a, a, 0, 1, 2, 3) + __builtin_shufflevector(a, a, 4, 5, 6, 7);
#elif WIDTH == 8
    NAME(Vec4) b = __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
#else
    VEC b = v;
#endif
#if WIDTH == 2
    return (double) b[0] + (double) b[1];
#else
    return ((double) b[0] + (double) b[2]) + ((double) b[1] + (double) b[3]);
#endif
}
#undef HALF8
