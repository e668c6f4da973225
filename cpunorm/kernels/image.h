/* What is done along pixels: y = (x * scale - mean) / std, and channels brought side by side.

   The formula is float64's, rounded once to float32.  It costs float64 (`wide`) for all types of x but uint8, of which
   there are 256: there the origin m is the integer nearest to mean / scale, d = x - m, and y = d a + r with
   a = scale / std and |r| <= a / 2 (if m is not at an end).  Both are split at a unit g = 2^-24 of a power of two above
   all |y|: d high + r_high is exact in float32, and what is left of a and r, which is below g / 2 each, goes through
   another multiply-add before both are added.  So y is off by half an ulp and what the smaller term was rounded by,
   2^-25 (|d| + 1) g / 2: less than 2^-12 of an ulp, as |y| >= |d| a / 2 and a > 2^15 g.  tests/test_image.py measures it
   for all values of x.

   Half precision is rounded from that float32: half an ulp of its own, and half a one of float32's. */

#ifndef CPUNORM_IMAGE_H
#define CPUNORM_IMAGE_H

#include <string.h>

#include "lines.h"

enum {
    FLOATS = VECTOR_BYTES / 4,  /* of a vector */
    FEW_STEPS = 3,
    FLOAT_MAGIC = 0x4b000000,  /* 2^23 in float32: a byte x in its place of zeros makes it 2^23 + x */
};

#if VECTOR_BYTES == 64
#define FIRST_PART 0, 1, 2, 3, 4, 5, 6, 7
#define SECOND_PART 8, 9, 10, 11, 12, 13, 14, 15
#elif VECTOR_BYTES == 32
#define FIRST_PART 0, 1, 2, 3
#define SECOND_PART 4, 5, 6, 7
#else
#define FIRST_PART 0, 1
#define SECOND_PART 2, 3
#endif

/* As in `Value` of _image.pxd. */
enum { U8, U16, F16, F32, BF16, VALUES };

typedef Vec_float Floats;
typedef uint32_t Words __attribute__((vector_size(VECTOR_BYTES)));
typedef Vec_double Doubles;
typedef float FloatPart __attribute__((vector_size(VECTOR_BYTES / 2)));
typedef uint16_t Shorts __attribute__((vector_size(VECTOR_BYTES / 2)));
typedef uint8_t Bytes __attribute__((vector_size(VECTOR_BYTES / 4)));
typedef Shorts LooseShorts __attribute__((aligned(2), may_alias));
typedef Bytes LooseBytes __attribute__((aligned(1), may_alias));

/* The coefficients of one channel. */
typedef struct {
    float origin, high, low, high_shift, low_shift;  /* of `narrow`; origin is 2^23 + m */
    double scale, mean, reciprocal;  /* of `wide` */
} Channel;

/* The same of each lane of a vector. */
typedef union {
    struct {
        Floats origin, high, low, high_shift, low_shift;
    } narrow;
    struct {
        Doubles scale[2], mean[2], reciprocal[2];
    } wide;
} Step;

/* A value that isn't contracted with what it goes into: x * scale is rounded before the mean is taken off, as in the
   formula, whose zeros are then zeros here too. */
#if defined(__AVX512F__)
#define ROUNDED(v) __asm__("" : "+v"(v))
#elif defined(__SSE2__)
#define ROUNDED(v) __asm__("" : "+x"(v))
#elif defined(__aarch64__)
#define ROUNDED(v) __asm__("" : "+w"(v))
#else
#define ROUNDED(v) __asm__("" : "+m"(v))
#endif

/* The coefficients of `channels`; whether uint8 stays so far inside float32's range that `narrow` holds. */
static int image_channels(int channels, double scale, const double *mean, const double *std, Channel *c) {
    int narrow = 1;
    for (int i = 0; i < channels; i++) {
        double a = scale / std[i], m = nearbyint(mean[i] / scale), product, r, first, last, most, unit;
        int exponent;
        m = m > 0 ? (m < 255 ? m : 255) : 0;
        product = m * scale;
        ROUNDED(product);
        r = (product - mean[i]) / std[i];
        first = fabs(r - m * a), last = fabs(r + (255 - m) * a);
        most = first > last ? first : last;
        c[i].scale = scale, c[i].mean = mean[i], c[i].reciprocal = 1 / std[i];
        if (!(most > 0x1p-60 && most < 0x1p100)) {
            narrow = 0;
            continue;
        }
        frexp(most * (1 + 0x1p-10), &exponent);
        unit = ldexp(1.5, 52 - 24 + exponent);  /* what is added to it is rounded to a multiple of g */
        c[i].origin = (float) (0x1p23 + m);
        c[i].high = (float) ((a + unit) - unit), c[i].low = (float) (a - c[i].high);
        c[i].high_shift = (float) ((r + unit) - unit), c[i].low_shift = (float) (r - c[i].high_shift);
    }
    return narrow;
}

/* Steps of which each is one channel, or, if `packed`, of the pattern in which channels follow each other; how many. */
static int image_steps(int channels, int packed, int narrow, const Channel *c, Step *steps) {
    int count = channels;
    if (packed)
        while (count % 2 == 0 && count * FLOATS / 2 % channels == 0)
            count /= 2;
    for (int i = 0; i < count; i++)
        for (int j = 0; j < FLOATS; j++) {
            const Channel *lane = c + (packed ? (i * FLOATS + j) % channels : i);
            if (narrow) {
                steps[i].narrow.origin[j] = lane->origin;
                steps[i].narrow.high[j] = lane->high, steps[i].narrow.low[j] = lane->low;
                steps[i].narrow.high_shift[j] = lane->high_shift, steps[i].narrow.low_shift[j] = lane->low_shift;
            } else {
                const int part = j / (FLOATS / 2), at = j % (FLOATS / 2);
                steps[i].wide.scale[part][at] = lane->scale, steps[i].wide.mean[part][at] = lane->mean;
                steps[i].wide.reciprocal[part][at] = lane->reciprocal;
            }
        }
    return count;
}

/* Half precision. */

ALWAYS Floats select_floats(Words mask, Words a, Words b) { return (Floats) ((mask & a) | (~mask & b)); }

ALWAYS Floats from_float16(Shorts h) {
#if defined(__AVX512F__)
    return (Floats) _mm512_cvtph_ps((__m256i) h);
#elif defined(__F16C__)
    return (Floats) _mm256_cvtph_ps((__m128i) h);
#else
    Words w = __builtin_convertvector(h, Words), sign = (w & 0x8000) << 16, rest = w & 0x7fff;
    Words bits = (rest << 13) + (112u << 23);
    Floats small = __builtin_convertvector(rest, Floats) * 0x1p-24f;  /* subnormal */
    bits += (Words) (rest >= 0x7c00) & (112u << 23);  /* Inf and NaN */
    return (Floats) ((Words) select_floats((Words) (rest < 0x400), (Words) small, bits) | sign);
#endif
}

ALWAYS Shorts to_float16(Floats v) {
#if defined(__AVX512F__)
    return (Shorts) _mm512_cvtps_ph((__m512) v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__F16C__)
    return (Shorts) _mm256_cvtps_ph((__m256) v, _MM_FROUND_TO_NEAREST_INT);
#else
    Words w = (Words) v, sign = (w >> 16) & 0x8000, rest = w & 0x7fffffff;
    Words bits = (rest - (112u << 23) + 0xfff + ((rest >> 13) & 1)) >> 13;
    Words small = (Words) ((Floats) rest + 0.5f) - 0x3f000000;  /* subnormal: the sum's last place is 2^-24 */
    Words special = 0x7c00 | ((Words) (rest > 0x7f800000) & 0x200);
    bits = (Words) select_floats((Words) (rest < 0x38800000), small, bits);
    bits = (Words) select_floats((Words) (rest >= 0x47800000), special, bits);
    return __builtin_convertvector(bits | sign, Shorts);
#endif
}

ALWAYS Shorts to_bfloat16(Floats v) {
    Words w = (Words) v, bits = (w + 0x7fff + ((w >> 16) & 1)) >> 16, quiet = (w >> 16) | 0x40;
    return __builtin_convertvector((Words) select_floats((Words) (v != v), quiet, bits), Shorts);
}

/* One vector: loads, the formula, stores. */

ALWAYS int size_of_value(const int value) { return value == U8 ? 1 : value == F32 ? 4 : 2; }

ALWAYS Floats load_value(const char *x, const int value) {
    if (value == U8)
        return __builtin_convertvector(__builtin_convertvector(*(const LooseBytes *) x, Words), Floats);
    if (value == U16)
        return __builtin_convertvector(__builtin_convertvector(*(const LooseShorts *) x, Words), Floats);
    if (value == F16)
        return from_float16(*(const LooseShorts *) x);
    return load_float((const float *) x);
}

ALWAYS void put_value(char *y, Floats v, const int value, const int streamed) {
    if (value != F32)
        *(LooseShorts *) y = value == F16 ? to_float16(v) : to_bfloat16(v);
    else if (streamed)
        stream_float((float *) y, v);
    else
        store_float((float *) y, v);
}

ALWAYS Floats narrow(Words byte, const Step *s) {
    Floats d = (Floats) (byte | FLOAT_MAGIC) - s->narrow.origin;
    return (d * s->narrow.high + s->narrow.high_shift) + (d * s->narrow.low + s->narrow.low_shift);
}

ALWAYS FloatPart wide_part(FloatPart x, const Step *s, const int part) {
    Doubles product = __builtin_convertvector(x, Doubles) * s->wide.scale[part];
    ROUNDED(product);
    return __builtin_convertvector((product - s->wide.mean[part]) * s->wide.reciprocal[part], FloatPart);
}

ALWAYS Floats wide(Floats x, const Step *s) {
    FloatPart first = wide_part(__builtin_shufflevector(x, x, FIRST_PART), s, 0);
    FloatPart second = wide_part(__builtin_shufflevector(x, x, SECOND_PART), s, 1);
    return __builtin_shufflevector(first, second, FIRST_PART, SECOND_PART);
}

/* Along a line: y from x, both contiguous, step after step and again from the first. */

ALWAYS Floats value_of(const char *x, const Step *s, const int from, const int is_narrow) {
    if (is_narrow)
        return narrow(__builtin_convertvector(*(const LooseBytes *) x, Words), s);
    return wide(load_value(x, from), s);
}

ALWAYS void walk_line(const char *x, char *y, ptrdiff_t n, const Step *steps, const int period, const int from,
                      const int is_narrow, const int to, const int streamed) {
    const int x_size = size_of_value(from), y_size = size_of_value(to);
    char last_x[4 * FLOATS] = {0}, last_y[4 * FLOATS];
    Step s[FEW_STEPS];
    ptrdiff_t i = 0;
    int at = 0;
    if (period <= FEW_STEPS) {  /* known to the compiler: they stay in registers */
        for (int k = 0; k < period; k++)
            s[k] = steps[k];
        for (; i + period * FLOATS <= n; i += period * FLOATS)
#pragma GCC unroll 4
            for (int k = 0; k < period; k++)
                put_value(y + (i + k * FLOATS) * y_size, value_of(x + (i + k * FLOATS) * x_size, s + k, from, is_narrow),
                          to, streamed);
    }
    for (; i + FLOATS <= n; i += FLOATS) {
        put_value(y + i * y_size, value_of(x + i * x_size, steps + at, from, is_narrow), to, streamed);
        at = at + 1 < period ? at + 1 : 0;
    }
    if (i < n) {
        memcpy(last_x, x + i * x_size, (n - i) * x_size);
        put_value(last_y, value_of(last_x, steps + at, from, is_narrow), to, 0);
        memcpy(y + i * y_size, last_y, (n - i) * y_size);
    }
}

ALWAYS int is_aligned(const char *y, ptrdiff_t pitch) { return ((size_t) y | (size_t) pitch) % VECTOR_BYTES == 0; }

ALWAYS void line_of(const char *x, char *y, ptrdiff_t n, const Step *steps, int period, int streamed, const int from,
                    const int is_narrow, const int to) {
    if (to == F32 && streamed && is_aligned(y, 0)) {
        if (period == 1)
            walk_line(x, y, n, steps, 1, from, is_narrow, to, 1);
        else
            walk_line(x, y, n, steps, period, from, is_narrow, to, 1);
    } else if (period == 1) {
        walk_line(x, y, n, steps, 1, from, is_narrow, to, 0);
    } else if (period == 3) {
        walk_line(x, y, n, steps, 3, from, is_narrow, to, 0);
    } else {
        walk_line(x, y, n, steps, period, from, is_narrow, to, 0);
    }
}

/* Pixels of up to four bytes, packed: channel k to y + k pitch. A register holds four pixels in each 16 bytes; a byte
   shuffle per channel leaves its four bytes there, apart. */

#if defined(__SSSE3__)
#define HAS_PIXELS 1

typedef struct {
    Words index;  /* of the 4-byte words that make up four pixels of each 16 bytes */
    Words bytes[4];  /* per channel: which byte of these 16 goes where */
} Shuffle;

static Shuffle shuffle_of(int channels, const int *order) {
    Shuffle shuffle;
    for (int j = 0; j < FLOATS; j++) {
        shuffle.index[j] = j / 4 * channels + (j % 4 < channels ? j % 4 : 0);
        for (int k = 0; k < channels; k++)
            shuffle.bytes[k][j] = 0x80808000 | (j % 4 * channels + order[k]);
    }
    return shuffle;
}

/* The bytes of FLOATS pixels; reads SPAN(channels) bytes. */
ALWAYS Words load_pixels(const char *x, const int channels, Words index) {
#if defined(__AVX512BW__)
    return (Words) _mm512_permutexvar_epi32((__m512i) index, _mm512_loadu_si512(x));
#elif defined(__AVX2__)
    (void) index;
    return (Words) _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *) x)),
                                           _mm_loadu_si128((const __m128i *) (x + 4 * channels)), 1);
#else
    (void) index, (void) channels;
    return (Words) _mm_loadu_si128((const __m128i *) x);
#endif
}
#define SPAN(channels) (VECTOR_BYTES == 32 ? 16 + 4 * (channels) : VECTOR_BYTES)

ALWAYS Words shuffled(Words pixels, Words bytes) {
#if defined(__AVX512BW__)
    return (Words) _mm512_shuffle_epi8((__m512i) pixels, (__m512i) bytes);
#elif defined(__AVX2__)
    return (Words) _mm256_shuffle_epi8((__m256i) pixels, (__m256i) bytes);
#else
    return (Words) _mm_shuffle_epi8((__m128i) pixels, (__m128i) bytes);
#endif
}

ALWAYS void walk_pixels(const char *x, char *y, ptrdiff_t pitch, ptrdiff_t n, const int channels, const Step *steps,
                        const int *order, const int to, const int streamed) {
    enum { ROOM = 2 * 4 * FLOATS + 64 };
    const int y_size = size_of_value(to);
    const Shuffle shuffle = shuffle_of(channels, order);
    char last_x[ROOM] = {0}, last_y[4 * FLOATS];
    Step s[4];
    ptrdiff_t i = 0, some;
    for (int k = 0; k < channels; k++)
        s[k] = steps[k];
    for (; (n - i) * channels >= SPAN(channels); i += FLOATS) {
        const Words pixels = load_pixels(x + i * channels, channels, shuffle.index);
#pragma GCC unroll 4
        for (int k = 0; k < channels; k++)
            put_value(y + k * pitch + i * y_size, narrow(shuffled(pixels, shuffle.bytes[k]), s + k), to, streamed);
    }
    x += i * channels;
    memcpy(last_x, x, (n - i) * channels);
    for (x = last_x; i < n; i += some, x += FLOATS * channels) {
        const Words pixels = load_pixels(x, channels, shuffle.index);
        some = n - i < FLOATS ? n - i : FLOATS;
#pragma GCC unroll 4
        for (int k = 0; k < channels; k++) {
            put_value(last_y, narrow(shuffled(pixels, shuffle.bytes[k]), s + k), to, 0);
            memcpy(y + k * pitch + i * y_size, last_y, some * y_size);
        }
    }
}

ALWAYS void pixels_of(const char *x, char *y, ptrdiff_t pitch, ptrdiff_t n, int channels, const Step *steps,
                      const int *order, int streamed, const int to) {
    const int around = to == F32 && streamed && is_aligned(y, pitch);
#define WALK(channels)                                                                                                \
    if (around)                                                                                                       \
        walk_pixels(x, y, pitch, n, channels, steps, order, to, to == F32);                                           \
    else                                                                                                              \
        walk_pixels(x, y, pitch, n, channels, steps, order, to, 0);
    if (channels == 2) {
        WALK(2)
    } else if (channels == 3) {
        WALK(3)
    } else {
        WALK(4)
    }
#undef WALK
}
#else
#define HAS_PIXELS 0
#define pixels_of(...)
#endif

/* Channels brought side by side: plane k of y, `pitch` values from the last, = what lies offsets[k] values from the
   start of each of n pixels of x, which are `step` values apart. Where the channels of a pixel follow each other
   (`places`, the plane of each; else NULL), squares of 16 bytes by as many pixels as they have values are transposed. */

#define LOW_4 0, 4, 1, 5
#define HIGH_4 2, 6, 3, 7
#define LOW_8 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH_8 4, 12, 5, 13, 6, 14, 7, 15
#define LOW_16 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH_16 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31

#define SPLIT(T, E)                                                                                                   \
    typedef T Row_##T __attribute__((vector_size(16)));                                                               \
    typedef Row_##T LooseRow_##T __attribute__((aligned(sizeof(T)), may_alias));                                      \
    static void split_##T(const char *source, ptrdiff_t step, ptrdiff_t n, int channels, const ptrdiff_t *offsets,    \
                          const int *places, char *target, ptrdiff_t pitch) {                                         \
        const T *x = (const T *) source;                                                                              \
        T *y = (T *) target;                                                                                          \
        const ptrdiff_t lowest = places == NULL ? 0 : offsets[places[0]];                                             \
        const ptrdiff_t end = lowest + channels + (step > 0 ? (n - 1) * step : 0);                                    \
        for (ptrdiff_t i = 0, next; i < n; i = next) {                                                                \
            const ptrdiff_t top = (step > 0 ? i + E - 1 : i) * step + lowest;                                         \
            if (places == NULL || i + E > n || top + (channels + E - 1) / E * E > end) {                              \
                next = places == NULL ? n : i + 1;                                                                    \
                for (int k = 0; k < channels; k++)                                                                    \
                    for (ptrdiff_t j = i; j < next; j++)                                                              \
                        y[k * pitch + j] = x[j * step + offsets[k]];                                                  \
                continue;                                                                                             \
            }                                                                                                         \
            next = i + E;                                                                                             \
            for (int first = 0; first < channels; first += E) {                                                       \
                Row_##T rows[E], turned[E];                                                                           \
                _Pragma("GCC unroll 16") for (int r = 0; r < E; r++)                                                  \
                    rows[r] = *(const LooseRow_##T *) (x + (i + r) * step + lowest + first);                          \
                _Pragma("GCC unroll 4") for (int stage = 1; stage < E; stage *= 2) {                                  \
                    _Pragma("GCC unroll 8") for (int r = 0; r < E / 2; r++) {                                         \
                        turned[2 * r] = __builtin_shufflevector(rows[r], rows[r + E / 2], LOW_##E);                   \
                        turned[2 * r + 1] = __builtin_shufflevector(rows[r], rows[r + E / 2], HIGH_##E);              \
                    }                                                                                                 \
                    _Pragma("GCC unroll 16") for (int r = 0; r < E; r++)                                              \
                        rows[r] = turned[r];                                                                          \
                }                                                                                                     \
                _Pragma("GCC unroll 16") for (int r = 0; r < E; r++)                                                  \
                    if (first + r < channels)                                                                         \
                        *(LooseRow_##T *) (y + places[first + r] * pitch + i) = rows[r];                              \
            }                                                                                                         \
        }                                                                                                             \
    }                                                                                                                 \
    /* The same, but packed: pixels of y follow each other. */                                                        \
    static void pack_##T(const char *source, ptrdiff_t step, ptrdiff_t n, int channels, const ptrdiff_t *offsets,     \
                         char *target) {                                                                              \
        const T *x = (const T *) source;                                                                              \
        T *y = (T *) target;                                                                                          \
        for (ptrdiff_t i = 0; i < n; i++)                                                                             \
            for (int k = 0; k < channels; k++)                                                                        \
                *y++ = x[i * step + offsets[k]];                                                                      \
    }
SPLIT(uint8_t, 16)
SPLIT(uint16_t, 8)
SPLIT(uint32_t, 4)
#undef SPLIT

static void split(int size, const char *x, ptrdiff_t step, ptrdiff_t n, int channels, const ptrdiff_t *offsets,
                  const int *places, char *y, ptrdiff_t pitch) {
    (size == 1 ? split_uint8_t : size == 2 ? split_uint16_t : split_uint32_t)(x, step, n, channels, offsets, places, y,
                                                                              pitch);
}

static void pack(int size, const char *x, ptrdiff_t step, ptrdiff_t n, int channels, const ptrdiff_t *offsets, char *y) {
    (size == 1 ? pack_uint8_t : size == 2 ? pack_uint16_t : pack_uint32_t)(x, step, n, channels, offsets, y);
}

/* What is done along lines, per type of x (wide, but the last) and of y. */

typedef void (*LineFunction)(const char *x, char *y, ptrdiff_t n, const Step *steps, int period, int streamed);
typedef void (*PixelsFunction)(const char *x, char *y, ptrdiff_t pitch, ptrdiff_t n, int channels, const Step *steps,
                               const int *order, int streamed);

#define LINE(name, from, is_narrow, to)                                                                               \
    static void name(const char *x, char *y, ptrdiff_t n, const Step *steps, int period, int streamed) {              \
        line_of(x, y, n, steps, period, streamed, from, is_narrow, to);                                               \
    }
#define LINES_TO(to)                                                                                                  \
    LINE(line_u8_##to, U8, 0, to)                                                                                     \
    LINE(line_u16_##to, U16, 0, to)                                                                                   \
    LINE(line_f16_##to, F16, 0, to)                                                                                   \
    LINE(line_f32_##to, F32, 0, to)                                                                                   \
    LINE(line_narrow_##to, U8, 1, to)                                                                                 \
    static void pixels_##to(const char *x, char *y, ptrdiff_t pitch, ptrdiff_t n, int channels, const Step *steps,    \
                            const int *order, int streamed) {                                                         \
        pixels_of(x, y, pitch, n, channels, steps, order, streamed, to);                                              \
    }
LINES_TO(F16)
LINES_TO(F32)
LINES_TO(BF16)

static LineFunction line_function(int from, int is_narrow, int to) {
#define ROW(to) {line_u8_##to, line_u16_##to, line_f16_##to, line_f32_##to, line_narrow_##to}
    static const LineFunction functions[3][5] = {ROW(F16), ROW(F32), ROW(BF16)};
#undef ROW
    return functions[to - F16][is_narrow ? 4 : from];
}

static PixelsFunction pixels_function(int to) {
    static const PixelsFunction functions[3] = {pixels_F16, pixels_F32, pixels_BF16};
    return functions[to - F16];
}
#undef LINE
#undef LINES_TO

#endif
