/* What is done along pixels: y = (x * scale - mean) / std, and channels brought side by side.

   The formula is float64's, rounded once to float32.  It costs float64 (`wide`) for all types of x but uint8, of which
   there are 256: there the origin m is the integer nearest to mean / scale, d = x - m, and y = d a + r with
   a = scale / std and |r| <= a / 2 (if m is not at an end).  Both are split at a unit g = 2^-24 of a power of two above
   all |y|: d high + high_shift is exact in float32, and what is left of a and r, at most g / 2 each, goes through
   another multiply-add before both are added.  So y is off by half an ulp and what the smaller term was rounded by,
   2^-24 (|d| + 1) g: less than 2^-12 of an ulp, as |y| >= |d| a / 2 and a > 2^15 g.

   Half precision is rounded from that float32: half an ulp of its own, and half a one of float32's. */

#ifndef CPUNORM_IMAGE_H
#define CPUNORM_IMAGE_H

#include <string.h>

#include "lines.h"

enum {
    FLOATS = VECTOR_BYTES / 4,  /* of a vector */
    FEW_STEPS = 3,
    GROUP = 4,  /* registers of pixels, of which a plane is written before the next */
    FLOAT_MAGIC = 0x4b000000,  /* 2^23 in float32: a byte x in its place of zeros makes it 2^23 + x */
};

/* M(lane, ...) of each lane: the lists of constants that shuffles are made of. */
#define EACH_2(M, from, ...) M((from), __VA_ARGS__), M((from) + 1, __VA_ARGS__)
#define EACH_4(M, from, ...) EACH_2(M, from, __VA_ARGS__), EACH_2(M, (from) + 2, __VA_ARGS__)
#define EACH_8(M, from, ...) EACH_4(M, from, __VA_ARGS__), EACH_4(M, (from) + 4, __VA_ARGS__)
#define EACH_16(M, from, ...) EACH_8(M, from, __VA_ARGS__), EACH_8(M, (from) + 8, __VA_ARGS__)
#if VECTOR_BYTES == 64
#define EACH_FLOAT(M, ...) EACH_16(M, 0, __VA_ARGS__)
#elif VECTOR_BYTES == 32
#define EACH_FLOAT(M, ...) EACH_8(M, 0, __VA_ARGS__)
#else
#define EACH_FLOAT(M, ...) EACH_4(M, 0, __VA_ARGS__)
#endif

/* As in `Value` of _image.pxd. */
enum { U8, U16, F16, F32, BF16, VALUES };

typedef Vec_float Floats;
typedef uint32_t Words __attribute__((vector_size(VECTOR_BYTES)));
typedef Vec_double Doubles;
typedef int32_t Ints __attribute__((vector_size(VECTOR_BYTES)));
typedef uint8_t Bytes __attribute__((vector_size(VECTOR_BYTES / 4)));
typedef Halves LooseHalves __attribute__((aligned(2), may_alias));
typedef Bytes LooseBytes __attribute__((aligned(1), may_alias));

/* How the formula is computed: `narrow`, or `wide` with a scale or without. */
enum { TWO_PART, SCALED, UNSCALED };

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
} Affine;

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

/* The coefficients of `channels`, and the way for values of the type `from`: uint8 must stay inside float32's range. */
static int image_channels(int from, int channels, double scale, const double *mean, const double *std, Channel *c) {
    int way = from == U8 ? TWO_PART : scale == 1 ? UNSCALED : SCALED;
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
            way = way == TWO_PART ? SCALED : way;
            continue;
        }
        frexp(most * (1 + 0x1p-10), &exponent);
        unit = ldexp(1.5, 52 - 24 + exponent);  /* what is added to it is rounded to a multiple of g */
        c[i].origin = (float) (0x1p23 + m);
        c[i].high = (float) ((a + unit) - unit), c[i].low = (float) (a - c[i].high);
        c[i].high_shift = (float) ((r + unit) - unit), c[i].low_shift = (float) (r - c[i].high_shift);
    }
    return way;
}

/* Steps of which each is one channel, or, if `packed`, of the pattern in which channels follow each other; how many
   there are. */
static int image_steps(int channels, int packed, int way, const Channel *c, Affine *steps) {
    int count = channels;
    if (packed)
        while (count % 2 == 0 && count * FLOATS / 2 % channels == 0)
            count /= 2;
    for (int i = 0; i < count; i++)
        for (int j = 0; j < FLOATS; j++) {
            const Channel *lane = c + (packed ? (i * FLOATS + j) % channels : i);
            if (way == TWO_PART) {
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

/* Between types: with the intrinsics of each level, for gcc takes vectors of other sizes apart. */

#if defined(__AVX512F__)
ALWAYS Words load_bytes(const char *x) { return (Words) _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *) x)); }
ALWAYS Doubles first_doubles(Floats v) { return _mm512_cvtps_pd(_mm512_castps512_ps256(v)); }
ALWAYS Doubles last_doubles(Floats v) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)); }
ALWAYS Floats to_floats(Doubles first, Doubles last) {
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(first)), _mm512_cvtpd_ps(last), 1);
}
#elif defined(__AVX2__)
ALWAYS Words load_bytes(const char *x) { return (Words) _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *) x)); }
ALWAYS Doubles first_doubles(Floats v) { return _mm256_cvtps_pd(_mm256_castps256_ps128(v)); }
ALWAYS Doubles last_doubles(Floats v) { return _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)); }
ALWAYS Floats to_floats(Doubles first, Doubles last) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(first)), _mm256_cvtpd_ps(last), 1);
}
#elif defined(__SSE4_1__)
ALWAYS Words load_bytes(const char *x) { return (Words) _mm_cvtepu8_epi32(_mm_loadu_si32(x)); }
ALWAYS Doubles first_doubles(Floats v) { return _mm_cvtps_pd(v); }
ALWAYS Doubles last_doubles(Floats v) { return _mm_cvtps_pd(_mm_movehl_ps(v, v)); }
ALWAYS Floats to_floats(Doubles first, Doubles last) { return _mm_movelh_ps(_mm_cvtpd_ps(first), _mm_cvtpd_ps(last)); }
#else
ALWAYS Words load_bytes(const char *x) { return __builtin_convertvector(*(const LooseBytes *) x, Words); }
ALWAYS Doubles first_doubles(Floats v) { return (Doubles) {v[0], v[1]}; }
ALWAYS Doubles last_doubles(Floats v) { return (Doubles) {v[2], v[3]}; }
ALWAYS Floats to_floats(Doubles first, Doubles last) {
    return (Floats) {(float) first[0], (float) first[1], (float) last[0], (float) last[1]};
}
#endif

/* One vector: loads, the formula, stores. */

ALWAYS int size_of_value(const int value) { return value == U8 ? 1 : value == F32 ? 4 : 2; }

ALWAYS Floats load_value(const char *x, const int value) {
    if (value == U8)
        return __builtin_convertvector((Ints) load_bytes(x), Floats);
    if (value == U16)
        return __builtin_convertvector((Ints) zero_extended(*(const LooseHalves *) x), Floats);
    if (value == F16)
        return widened_half(*(const LooseHalves *) x);
    return load_float((const float *) x);
}

ALWAYS void put_value(char *y, Floats v, const int value, const int streamed) {
    if (value != F32)
        *(LooseHalves *) y = value == F16 ? narrowed_half(v) : narrowed_bfloat(v);
    else if (streamed)
        stream_float((float *) y, v);
    else
        store_float((float *) y, v);
}

ALWAYS Floats narrow(Words byte, const Affine *s) {
    Floats d = (Floats) (byte | FLOAT_MAGIC) - s->narrow.origin;
    return (d * s->narrow.high + s->narrow.high_shift) + (d * s->narrow.low + s->narrow.low_shift);
}

ALWAYS Floats wide(Floats x, const Affine *s, const int way) {
    Doubles first = first_doubles(x), last = last_doubles(x);
    if (way == SCALED) {
        first *= s->wide.scale[0], last *= s->wide.scale[1];
        ROUNDED(first);
        ROUNDED(last);
    }
    return to_floats((first - s->wide.mean[0]) * s->wide.reciprocal[0],
                     (last - s->wide.mean[1]) * s->wide.reciprocal[1]);
}

/* Along a line: y from x, both contiguous, step after step and again from the first. */

ALWAYS Floats value_of(const char *x, const Affine *s, const int from, const int way) {
    if (way == TWO_PART)
        return narrow(load_bytes(x), s);
    return wide(load_value(x, from), s, way);
}

ALWAYS void walk_line(const char *x, char *y, ptrdiff_t n, const Affine *steps, const int period,
                      const int from, const int way, const int to, const int streamed) {
    const int x_size = size_of_value(from), y_size = size_of_value(to);
    char last_x[4 * FLOATS] = {0}, last_y[4 * FLOATS];
    Affine s[FEW_STEPS];
    ptrdiff_t i = 0;
    int at = 0;
    if (period <= FEW_STEPS) {  /* known to the compiler: they stay in registers */
        for (int k = 0; k < period; k++)
            s[k] = steps[k];
        const int group = streamed && period == 1 ? GROUP : period;  /* streams want loads before the stores */
        for (; i + group * FLOATS <= n; i += group * FLOATS) {
            Floats v[GROUP];
#pragma GCC unroll 4
            for (int k = 0; k < group; k++) {
                v[k] = value_of(x + (i + k * FLOATS) * x_size, s + k % period, from, way);
                if (!streamed)
                    put_value(y + (i + k * FLOATS) * y_size, v[k], to, 0);
            }
#pragma GCC unroll 4
            for (int k = 0; streamed && k < group; k++)
                put_value(y + (i + k * FLOATS) * y_size, v[k], to, 1);
        }
    }
    for (; i + FLOATS <= n; i += FLOATS) {
        put_value(y + i * y_size, value_of(x + i * x_size, steps + at, from, way), to, streamed);
        at = at + 1 < period ? at + 1 : 0;
    }
    if (i < n) {
        memcpy(last_x, x + i * x_size, (n - i) * x_size);
        put_value(last_y, value_of(last_x, steps + at, from, way), to, 0);
        memcpy(y + i * y_size, last_y, (n - i) * y_size);
    }
}

ALWAYS int is_aligned(const char *y, ptrdiff_t pitch) { return ((size_t) y | (size_t) pitch) % VECTOR_BYTES == 0; }

ALWAYS void line_of(const char *x, char *y, ptrdiff_t n, const Affine *steps, int period, int streamed,
                    const int from, const int way, const int to) {
    if (to == F32 && streamed && is_aligned(y, 0)) {
        if (period == 1)
            walk_line(x, y, n, steps, 1, from, way, to, 1);
        else
            walk_line(x, y, n, steps, period, from, way, to, 1);
    } else if (period == 1) {
        walk_line(x, y, n, steps, 1, from, way, to, 0);
    } else if (period == 3) {
        walk_line(x, y, n, steps, 3, from, way, to, 0);
    } else {
        walk_line(x, y, n, steps, period, from, way, to, 0);
    }
}

/* Packed pixels of two to four channels: the one in place k of a pixel goes to plane places[k].

   Of bytes, a register holds four pixels in each 16 bytes; a shuffle per channel leaves its four there, apart. */

#if defined(__SSSE3__)
enum { BYTE_SHUFFLES = 1 };

typedef struct {
    Words index;  /* of the 4-byte words that make up four pixels of each 16 bytes */
    Words bytes[4];  /* per channel: which byte of these 16 goes where */
} Shuffle;

static void image_shuffle(int channels, Shuffle *shuffle) {
    for (int j = 0; channels <= 4 && j < FLOATS; j++) {
        shuffle->index[j] = j / 4 * channels + (j % 4 < channels ? j % 4 : 0);
        for (int k = 0; k < channels; k++)
            shuffle->bytes[k][j] = 0x80808000 | (j % 4 * channels + k);
    }
}

/* The bytes of FLOATS pixels; reads SPAN(channels) bytes. */
ALWAYS Words load_pixels(const char *x, const int channels, Words index) {
#if defined(__AVX512BW__)
    return (Words) _mm512_permutexvar_epi32((__m512i) index, _mm512_maskz_loadu_epi32((1 << 4 * channels) - 1, x));
#elif defined(__AVX2__)
    (void) index;
    return (Words) _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *) x)),
                                           _mm_loadu_si128((const __m128i *) (x + 4 * channels)), 1);
#else
    (void) index, (void) channels;
    return (Words) _mm_loadu_si128((const __m128i *) x);
#endif
}
#define SPAN(channels) (VECTOR_BYTES == 64 ? 16 * (channels) : VECTOR_BYTES == 32 ? 16 + 4 * (channels) : 16)

ALWAYS Words shuffled(Words pixels, Words bytes) {
#if defined(__AVX512BW__)
    return (Words) _mm512_shuffle_epi8((__m512i) pixels, (__m512i) bytes);
#elif defined(__AVX2__)
    return (Words) _mm256_shuffle_epi8((__m256i) pixels, (__m256i) bytes);
#else
    return (Words) _mm_shuffle_epi8((__m128i) pixels, (__m128i) bytes);
#endif
}

/* `group` registers of pixels, each plane's after the other's: so that few lines of cache are written at once. */
ALWAYS void apply_bytes(const char *x, char *y, ptrdiff_t pitch, const int channels, const Affine *s,
                        const int *places, const Shuffle *shuffle, const int group, const int to, const int streamed) {
    Words pixels[GROUP];
#pragma GCC unroll 4
    for (int g = 0; g < group; g++)
        pixels[g] = load_pixels(x + g * FLOATS * channels, channels, shuffle->index);
#pragma GCC unroll 4
    for (int k = 0; k < channels; k++)
#pragma GCC unroll 4
        for (int g = 0; g < group; g++)
            put_value(y + places[k] * pitch + g * FLOATS * size_of_value(to),
                      narrow(shuffled(pixels[g], shuffle->bytes[k]), s + k), to, streamed);
}

ALWAYS void walk_bytes(const char *x, char *y, ptrdiff_t pitch, ptrdiff_t n, const int channels,
                       const Affine *steps, const int *places, const Shuffle *shuffle, const int to,
                       const int streamed) {
    enum { LAST = 4 * FLOATS * 4 };  /* bytes of y: what one register of pixels becomes */
    const int y_size = size_of_value(to), last_places[4] = {0, 1, 2, 3};
    const ptrdiff_t readable = n * channels - SPAN(channels);
    char last_x[LAST + VECTOR_BYTES] = {0}, last_y[LAST];
    ptrdiff_t i = 0, some;
    Affine s[4];
    for (int k = 0; k < channels; k++)
        s[k] = steps[places[k]];
    for (; (i + (GROUP - 1) * FLOATS) * channels <= readable; i += GROUP * FLOATS)
        apply_bytes(x + i * channels, y + i * y_size, pitch, channels, s, places, shuffle, GROUP, to, streamed);
    for (; i * channels <= readable; i += FLOATS)
        apply_bytes(x + i * channels, y + i * y_size, pitch, channels, s, places, shuffle, 1, to, streamed);
    memcpy(last_x, x + i * channels, (n - i) * channels);
    for (x = last_x; i < n; i += some, x += FLOATS * channels) {
        some = n - i < FLOATS ? n - i : FLOATS;
        apply_bytes(x, last_y, 4 * FLOATS, channels, s, last_places, shuffle, 1, to, 0);
        for (int k = 0; k < channels; k++)
            memcpy(y + places[k] * pitch + i * y_size, last_y + k * 4 * FLOATS, some * y_size);
    }
}
#else
enum { BYTE_SHUFFLES = 0 };
#define walk_bytes(...)
#define image_shuffle(...)
typedef int Shuffle;
#endif

/* Of all types of x: FLOATS pixels are as many registers as there are channels, and become registers of one each. */

#define EVEN(lane, odd) 2 * (lane) + (odd)
#define REGISTER(lane, channel) ((channel) + 48 - (lane)) * FLOATS % 3  /* of three, with this channel in that lane */
#define SECOND(lane, channel) (lane) + (REGISTER(lane, channel) == 1 ? FLOATS : 0)
#define THIRD(lane, channel) (lane) + (REGISTER(lane, channel) == 2 ? FLOATS : 0)
#define ORDERED(lane, channel) (3 * (lane) + (channel)) % FLOATS
#define EVENS(a, b) __builtin_shufflevector(a, b, EACH_FLOAT(EVEN, 0))
#define ODDS(a, b) __builtin_shufflevector(a, b, EACH_FLOAT(EVEN, 1))
#define CHANNEL(a, b, c, channel)                                                                                     \
    in_order(__builtin_shufflevector(__builtin_shufflevector(a, b, EACH_FLOAT(SECOND, channel)), c,                   \
                                     EACH_FLOAT(THIRD, channel)),                                                     \
             channel)
#define in_order(v, channel) __builtin_shufflevector(v, v, EACH_FLOAT(ORDERED, channel))

ALWAYS void part_channels(Floats *v, const int channels) {
    Floats a = v[0], b = v[1], c, d;
    if (channels == 2) {
        v[0] = EVENS(a, b), v[1] = ODDS(a, b);
    } else if (channels == 3) {
        c = v[2];
        v[0] = CHANNEL(a, b, c, 0), v[1] = CHANNEL(a, b, c, 1), v[2] = CHANNEL(a, b, c, 2);
    } else {
        c = EVENS(v[2], v[3]), d = ODDS(v[2], v[3]);
        v[0] = EVENS(a, b), v[1] = ODDS(a, b);
        v[2] = ODDS(v[0], c), v[0] = EVENS(v[0], c);
        v[3] = ODDS(v[1], d), v[1] = EVENS(v[1], d);
    }
}

ALWAYS void walk_values(const char *x, char *y, ptrdiff_t pitch, ptrdiff_t n, const int channels,
                        const Affine *steps, const int *places, const int from, const int way, const int to,
                        const int streamed) {
    const int x_size = size_of_value(from), y_size = size_of_value(to);
    char last_x[4 * 4 * FLOATS] = {0}, last_y[4 * FLOATS];
    ptrdiff_t i = 0;
    Floats v[4];
    for (; i + FLOATS <= n; i += FLOATS) {
#pragma GCC unroll 4
        for (int k = 0; k < channels; k++)
            v[k] = load_value(x + (i * channels + k * FLOATS) * x_size, from);
        part_channels(v, channels);
#pragma GCC unroll 4
        for (int k = 0; k < channels; k++)
            put_value(y + places[k] * pitch + i * y_size, wide(v[k], steps + places[k], way), to, streamed);
    }
    if (i < n) {
        memcpy(last_x, x + i * channels * x_size, (n - i) * channels * x_size);
#pragma GCC unroll 4
        for (int k = 0; k < channels; k++)
            v[k] = load_value(last_x + k * FLOATS * x_size, from);
        part_channels(v, channels);
#pragma GCC unroll 4
        for (int k = 0; k < channels; k++) {
            put_value(last_y, wide(v[k], steps + places[k], way), to, 0);
            memcpy(y + places[k] * pitch + i * y_size, last_y, (n - i) * y_size);
        }
    }
}

ALWAYS void pixels_of(const char *x, char *y, ptrdiff_t pitch, ptrdiff_t n, int channels, const Affine *steps,
                      const int *places, const Shuffle *shuffle, int streamed, const int from, const int way,
                      const int to) {
    const int around = to == F32 && streamed && is_aligned(y, pitch);
#define WALK(channels, streamed)                                                                                      \
    if (way == TWO_PART)                                                                                              \
        walk_bytes(x, y, pitch, n, channels, steps, places, shuffle, to, streamed);                                   \
    else                                                                                                              \
        walk_values(x, y, pitch, n, channels, steps, places, from, way, to, streamed);
    if (channels == 2 && around) {
        WALK(2, 1)
    } else if (channels == 2) {
        WALK(2, 0)
    } else if (channels == 3 && around) {
        WALK(3, 1)
    } else if (channels == 3) {
        WALK(3, 0)
    } else if (around) {
        WALK(4, 1)
    } else {
        WALK(4, 0)
    }
#undef WALK
}

/* Channels brought side by side: plane k of y, `pitch` values from the last, = what lies offsets[k] values from the
   start of each of n pixels of x, which are `step` values apart. Where the channels of a pixel follow each other
   (`places`, the plane of each; else NULL), squares of 16 bytes by as many pixels as these are values are turned. */

#define LOW(lane, E) (lane) / 2 + (lane) % 2 * (E)
#define HIGH(lane, E) LOW(lane, E) + (E) / 2

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
                        turned[2 * r] = __builtin_shufflevector(rows[r], rows[r + E / 2], EACH_##E(LOW, 0, E));       \
                        turned[2 * r + 1] = __builtin_shufflevector(rows[r], rows[r + E / 2], EACH_##E(HIGH, 0, E));  \
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
    static void pack_##T(const char *source, ptrdiff_t step, ptrdiff_t n, int channels, const ptrdiff_t *offsets,     \
                         char *target) {                                                                              \
        for (int k = 0; k < channels; k++)                                                                            \
            for (ptrdiff_t i = 0; i < n; i++)                                                                         \
                ((T *) target)[i * channels + k] = ((const T *) source)[i * step + offsets[k]];                       \
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

/* The same, but packed: the pixels of y follow each other, and there is room for 16 bytes after them.  A shuffle of
   bytes moves as many pixels as lie within 16 bytes of x, in whichever order. */
static void pack(int size, const char *x, ptrdiff_t step, ptrdiff_t n, int channels, const ptrdiff_t *offsets,
                 int adjacent, char *y) {
    const ptrdiff_t pixel = step * size, bytes = channels * size;
    ptrdiff_t i = 0, some = n;
#if defined(__SSSE3__)
    ptrdiff_t lowest = 0, first = 0, end = 0, group = 0;
    __attribute__((aligned(16))) uint8_t order[16] = {0};
    if (adjacent && bytes <= 16) {
        group = step == 0 ? 1 : 1 + (16 - bytes) / labs(pixel);
        for (int k = 0; k < channels; k++)
            lowest = offsets[k] * size < lowest ? offsets[k] * size : lowest;
        first = lowest + (pixel < 0 ? (group - 1) * pixel : 0);  /* of a group's bytes, from its first pixel on */
        end = lowest + bytes + (pixel > 0 ? (n - 1) * pixel : 0);
        for (int b = 0; b < group * bytes; b++)
            order[b] = (uint8_t) (b / bytes * pixel + offsets[b % bytes / size] * size + b % size - first);
        some = 1;
    }
#endif
    for (; i < n; i += some) {
#if defined(__SSSE3__)
        for (; group && i + group <= n && i * pixel + first + 16 <= end; i += group)
            _mm_storeu_si128((__m128i *) (y + i * bytes),
                             _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *) (x + i * pixel + first)),
                                              *(const __m128i *) order));
        if (i == n)
            break;
#endif
        (size == 1 ? pack_uint8_t : size == 2 ? pack_uint16_t : pack_uint32_t)(x + i * pixel, step, some, channels,
                                                                              offsets, y + i * bytes);
    }
}

/* What is done along lines, per type of x (wide, but the last) and of y. */

typedef void (*LineFunction)(const char *x, char *y, ptrdiff_t n, const Affine *steps, int period, int streamed);
typedef void (*PixelsFunction)(const char *x, char *y, ptrdiff_t pitch, ptrdiff_t n, int channels,
                               const Affine *steps, const int *places, const Shuffle *shuffle, int streamed);

#define LINES(name, from, way, to)                                                                                    \
    static void line_##name##_##to(const char *x, char *y, ptrdiff_t n, const Affine *steps, int period,              \
                                   int streamed) {                                                                    \
        line_of(x, y, n, steps, period, streamed, from, way, to);                                                     \
    }                                                                                                                 \
    static void pixels_##name##_##to(const char *x, char *y, ptrdiff_t pitch, ptrdiff_t n, int channels,              \
                                     const Affine *steps, const int *places, const Shuffle *shuffle, int streamed) {  \
        pixels_of(x, y, pitch, n, channels, steps, places, shuffle, streamed, from, way, to);                         \
    }
#define LINES_TO(to)                                                                                                  \
    LINES(u8, U8, SCALED, to)                                                                                         \
    LINES(u16, U16, SCALED, to)                                                                                       \
    LINES(f16, F16, SCALED, to)                                                                                       \
    LINES(f32, F32, SCALED, to)                                                                                       \
    LINES(unscaled, F32, UNSCALED, to)                                                                                \
    LINES(narrow, U8, TWO_PART, to)
LINES_TO(F16)
LINES_TO(F32)
LINES_TO(BF16)

typedef struct {
    LineFunction line;
    PixelsFunction pixels;
} ImageLines;

#define ONE(name, to) {line_##name##_##to, pixels_##name##_##to}
#define ROW(to) {ONE(u8, to), ONE(u16, to), ONE(f16, to), ONE(f32, to), ONE(unscaled, to), ONE(narrow, to)}

static const ImageLines *image_lines(int from, int way, int to) {
    static const ImageLines lines[3][6] = {ROW(F16), ROW(F32), ROW(BF16)};
    return &lines[to - F16][way == TWO_PART ? 5 : way == UNSCALED && from == F32 ? 4 : from];
}
#undef LINES
#undef LINES_TO
#undef ONE
#undef ROW

#endif
