/* What Cython can't say of vectors: how many lanes there are, their sum, prefetch, stores past the caches. */

#ifndef CPUNORM_VECTORS_H
#define CPUNORM_VECTORS_H

#include <string.h>

#if defined(__AVX512F__)
enum { LANES = 64 };
#elif defined(__AVX2__)
enum { LANES = 32 };
#else
enum { LANES = 16 };
#endif

#ifdef __GNUC__
#define prefetch_read(address) __builtin_prefetch(address, 0)
#define prefetch_write(address) __builtin_prefetch(address, 1)
#else
#define prefetch_read(address)
#define prefetch_write(address)
#endif

/* The sum of LANES lanes, pairwise: halves are added until four are left, those in double.  Said with vector types
   where the compiler has them: gcc makes single values of the last loops otherwise (a third of a short row's time). */
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define CPUNORM_SHUFFLES
#endif
#endif
#ifdef CPUNORM_SHUFFLES
#define DEFINE_FOLD(name, type)                                                                                       \
    typedef type name##_16 __attribute__((vector_size(16 * sizeof(type))));                                           \
    typedef type name##_8 __attribute__((vector_size(8 * sizeof(type))));                                             \
    typedef type name##_4 __attribute__((vector_size(4 * sizeof(type))));                                             \
    static inline double name(const type *lanes) {                                                                    \
        name##_16 v[LANES / 16];                                                                                      \
        memcpy(v, lanes, sizeof v);                                                                                   \
        for (int n = LANES / 32; n; n /= 2)                                                                           \
            for (int i = 0; i < n; i++)                                                                               \
                v[i] += v[i + n];                                                                                     \
        name##_8 a = __builtin_shufflevector(v[0], v[0], 0, 1, 2, 3, 4, 5, 6, 7)                                      \
                   + __builtin_shufflevector(v[0], v[0], 8, 9, 10, 11, 12, 13, 14, 15);                               \
        name##_4 b = __builtin_shufflevector(a, a, 0, 1, 2, 3) + __builtin_shufflevector(a, a, 4, 5, 6, 7);           \
        return ((double) b[0] + (double) b[1]) + ((double) b[2] + (double) b[3]);                                     \
    }
#else
#define DEFINE_FOLD(name, type)                                                                                       \
    static inline double name(const type *lanes) {                                                                    \
        type v[LANES];                                                                                                \
        memcpy(v, lanes, sizeof v);                                                                                   \
        for (int n = LANES / 2; n >= 4; n /= 2)                                                                       \
            for (int i = 0; i < n; i++)                                                                               \
                v[i] += v[i + n];                                                                                     \
        return ((double) v[0] + (double) v[1]) + ((double) v[2] + (double) v[3]);                                     \
    }
#endif
DEFINE_FOLD(fold_floats, float)
DEFINE_FOLD(fold_doubles, double)

/* Stores that go around the caches: `bytes` is a multiple of 64, y aligned to 64.  STREAM_SHARE: from how many bytes of
   x and y on that pays at the latest (a larger last-level cache is shared with others), 0 where there are none. */
enum { STREAM_SHARE =
#if defined(__SSE2__)
    96 << 20
#else
    0
#endif
};
#if defined(__AVX512F__)
#include <immintrin.h>
static inline void stream(void *y, const void *z, int bytes) {
    for (int i = 0; i < bytes; i += 64)
        _mm512_stream_si512((void *) ((char *) y + i), _mm512_loadu_si512((const char *) z + i));
}
#elif defined(__AVX__)
#include <immintrin.h>
static inline void stream(void *y, const void *z, int bytes) {
    for (int i = 0; i < bytes; i += 32)
        _mm256_stream_si256((void *) ((char *) y + i), _mm256_loadu_si256((const void *) ((const char *) z + i)));
}
#elif defined(__SSE2__)
#include <emmintrin.h>
static inline void stream(void *y, const void *z, int bytes) {
    for (int i = 0; i < bytes; i += 16)
        _mm_stream_si128((void *) ((char *) y + i), _mm_loadu_si128((const void *) ((const char *) z + i)));
}
#else
#define stream memcpy
#endif

/* To be called by the thread that streamed, before others read what it stored. */
#if defined(__SSE2__)
#define end_stream() _mm_sfence()
#else
#define end_stream()
#endif

#if defined(__linux__)
#include <unistd.h>
#endif
static Py_ssize_t stream_bytes(void) {
    long cache = 0;
#ifdef _SC_LEVEL3_CACHE_SIZE
    cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    return cache > 0 && cache < STREAM_SHARE ? cache : STREAM_SHARE;
}

#endif
