/* What is done along lines of values: sums (sums.h), and y from x (apply.h, store.h).

   Compiled once per ISA level; below, the file includes itself once per type of value X in memory, which is computed in
   R.  Walking, cutting and merging are done in Cython: see _kernels.pyx, whose header says why the numerics hold. */

#ifndef X

#ifndef CPUNORM_LINES_H
#define CPUNORM_LINES_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define MM(name) CAT3(_mm512_, name, SUFFIX)
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#define MM(name) CAT3(_mm256_, name, SUFFIX)
#else
#define VECTOR_BYTES 16
#define MM(name) CAT3(_mm_, name, SUFFIX)
#endif
#define CAT3_(a, b, c) a##b##c
#define CAT3(a, b, c) CAT3_(a, b, c)
#define ALWAYS static inline __attribute__((always_inline))

enum {
    REGISTERS = VECTOR_BYTES == 64 ? 32 : 16,
    UNROLLED = 4,  /* vectors of a step: enough sums at once to hide the latency of an addition */
    TALL = REGISTERS == 32 ? 4 : 2,  /* vectors of a tile of columns: five registers each */
    SHARING = VECTOR_BYTES == 16 ? 2 : 4,  /* lines that share what is loaded of a weight: three registers each */
    ALIGNED_STEPS = VECTOR_BYTES == 64 ? 2 : 16,  /* steps of a line that begins where y is aligned, if it isn't streamed */
    CHAIN = 8,  /* values that a lane adds up before its sum is added to others: see the numerics */
    STEPS = 32,  /* steps of a block */
    GUESS = 64,  /* first values whose mean is the shift of a block of rows */
    ROWS = 64,  /* lines of a block of columns */
    HALF = 32,  /* lines whose sums are added up before they are added to others */
    ROW_LIMIT = 5,  /* of BADLY_PLACED */
    COLUMN_LIMIT = 3,
    TILE_ROWS = 16,  /* lines that a tile of columns is applied to before the next tile, where lines are longer, or ... */
    PAIR_ROWS = 2,  /* ... where they lie whole pages apart, so that ... */
    COMPARED = 4096,  /* ... a load from one seems to follow a store to another: CPUs compare addresses by so many bytes */
    TOGETHER = 8,  /* domains whose moments are taken at once, so that the latencies at their ends overlap */
    JOINT_BYTES = 4096,  /* of rows that are streamed as one by way of L1 */
    RUN_BYTES = 256,  /* of lines up to which tiles down them are read as the run that they are; of a tile ... */
    TILE_BYTES = UNROLLED * VECTOR_BYTES,  /* ... where all arrays exceed half of the last-level cache */
    AHEAD = 4096,  /* bytes ahead to fetch: Intel's own prefetch stops at the end of a page of this size */
    SUMS_AHEAD = 5120,  /* the same along sums, into L1: a page ahead are the very sets of it that are read, and read again */
    ALONE_BYTES = VECTOR_BYTES == 64 ? 192 : VECTOR_BYTES == 32 ? 160 : 96,  /* of a row to take a lane; doubles: less */
    MOST_LANES = UNROLLED * VECTOR_BYTES / 4,
    MOST_BLOCK = STEPS * MOST_LANES,
    MOST_TILE = ROWS * MOST_LANES,
};

typedef struct {
    double count, mean, m2;
} Moments;

/* How moments are taken: below which mean squares they have lost digits to underflow (see OUT_OF_RANGE), and whether
   they are about zero, the mean being that by definition. */
typedef struct {
    double tiny;
    int about_zero;
} Rule;

/* Activations: those up to RELU stand in the loops themselves.  The same order as `_norm.pxd`'s. */
enum { NO_ACTIVATION, RELU, RELU6, LEAKY_RELU, SILU, GELU, GELU_TANH, HARDSWISH, HARDSIGMOID, SIGMOID, TANH };

/* What y goes through before it is written, and whether that is around the caches, as a constant of a loop: bits. */
enum { PLAIN = 0, ADDED = 1, CUT = 2, STREAMED = 4 };

/* How lines are read and written: how many bytes ahead x is fetched and, for writing, y, which pays past the caches (0: not
   at all); whether y is stored around the caches, and what it goes through before: if `added`, what lies `residual` bytes
   from each of its values is added to it, then comes the activation. */
typedef struct {
    ptrdiff_t x_ahead, y_ahead;
    int streamed, added, activation;
    ptrdiff_t residual;
} Traffic;
#define FETCHES(t) ((t).x_ahead || (t).y_ahead)

/* Where what comes next lies, or NULL: x, y and what is added to it, in values of so many bytes. */
typedef struct {
    const char *x, *y, *added;
    ptrdiff_t size;
} Next;

/* What is done along lines, per type of value; x and y are of that type, coefficients, weight and bias of what is computed
   in; pitches in elements. */
typedef struct {
    int size;   /* bytes of a value in memory */
    int computed;  /* bytes of one that is computed with */
    int width;  /* values of a vector */
    int lanes;  /* of a step */
    int block;  /* values of a block */
    /* The moments of one block, `rows` runs of n values each. `shift` is a value about which to sum; it's bettered. */
    Moments (*block_moments)(const void *x, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t pitch, int far, Rule rule,
                             int estimate, double *shift);
    /* The same of `rows` <= TOGETHER blocks, each one run: m (rows). */
    void (*row_moments)(const void *x, ptrdiff_t n, int rows, ptrdiff_t pitch, int far, Rule rule, Moments *m);
    /* Mean and m2 of each of `columns`, known for `count` lines, with `lines` <= ROWS more. */
    void (*column_moments)(const void *x, ptrdiff_t pitch, int lines, ptrdiff_t columns, int far, Rule rule,
                           double count, double *mean, double *m2);
    /* high, scale, shift (n each) of channels: scale with weight and shift with bias, either may be NULL; so may mean, which
       is 0 then, where both are. */
    void (*channel_coefficients)(ptrdiff_t n, const double *mean, const double *var, double eps, const void *weight,
                                 const void *bias, void *high, void *scale, void *shift);
    /* y = (x - high) * scale + shift: `rows` lines of n values, coefficient i * step for line i. */
    void (*apply_constant)(const void *x, void *y, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t x_pitch, ptrdiff_t y_pitch,
                           const void *high, const void *scale, const void *shift, int step, const Traffic *t);
    /* y = ((x - high) * scale + shift) * weight + bias: the first three i * step for line i, weight and bias along it. */
    void (*apply_along)(const void *x, void *y, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t x_pitch, ptrdiff_t y_pitch,
                        const void *high, const void *scale, const void *shift, int step, const void *weight,
                        const void *bias, const Traffic *t);
    /* y = (x - high) * scale + shift, these along the line. */
    void (*apply_columns)(const void *x, void *y, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t x_pitch, ptrdiff_t y_pitch,
                          const void *high, const void *scale, const void *shift, const Traffic *t);
    /* y = ((x - high) * scale + shift) * weight + bias: the first three along the line; weight and bias one of each
       line, or, if `matrix` is not 0, along lines that far apart. */
    void (*apply_columns_along)(const void *x, void *y, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t x_pitch,
                                ptrdiff_t y_pitch, const void *high, const void *scale, const void *shift,
                                const void *weight, const void *bias, ptrdiff_t matrix, const Traffic *t);
    /* n values in memory to what is computed in, and back; stored around the caches if `streamed`. */
    void (*widen)(const void *x, void *y, ptrdiff_t n);
    void (*narrow)(const void *x, void *y, ptrdiff_t n, int streamed);
    /* sum (computed) = total (in memory) = x + addend, n of each; sum may be total where they are of one type. */
    void (*add)(const void *x, const void *addend, void *total, void *sum, ptrdiff_t n, const Traffic *t);
} Lines;

/* To be called by the thread that streamed, before others read what it stored. */
#if defined(__SSE2__)
#define end_stream() _mm_sfence()
#else
#define end_stream()
#endif

/* Bytes of the cache of this level, 2 or 3, that one core sees, or 0 where nobody tells.  The CPU is asked: the C library's answer
   is that of all cores on AMD. */
static ptrdiff_t cache_bytes(unsigned level) {
    ptrdiff_t bytes = 0;
#if defined(__SSE2__)
    unsigned a, b, c, d;
    for (int amd = 0; amd < 2; amd++)
        for (unsigned i = 0; __get_cpuid_count(amd ? 0x8000001d : 4, i, &a, &b, &c, &d) && (a & 31); i++)
            if ((a >> 5 & 7) == level)
                bytes = (ptrdiff_t) ((b >> 22) + 1) * ((b >> 12 & 1023) + 1) * ((b & 4095) + 1) * (c + 1);
#endif
    return bytes;
}

/* Fetches these bytes: into L2, or for writing. */
static void fetch_bytes(const char *p, ptrdiff_t bytes, int write) {
    for (const char *line = p - (size_t) p % 64; line < p + bytes; line += 64)
        if (write)
            __builtin_prefetch(line, 1, 3);
        else
            __builtin_prefetch(line, 0, 2);
}

/* Bytes of the last-level cache, or 0.  Set once, from what `cache_bytes` says. */
static ptrdiff_t last_level;

/* Whether stores around the caches pay, all arrays having so many bytes: of several threads from half more than the
   last-level cache on, of one from its size on (of 96 MiB where it is larger: it is shared with others); where x is read
   twice, row by row (`again`), earlier.  Measured where each norm reads what the one before wrote: a norm alone would be
   faster from less on. */
static int streaming_pays(ptrdiff_t bytes, int threads, int again) {
#if defined(__SSE2__)
    const ptrdiff_t most = 96 << 20, quarter = last_level / 4;
    const ptrdiff_t from = quarter * (threads > 1 ? (again ? 4 : 6) : (again ? 3 : 4));
    return bytes >= (from > 0 && from < most ? from : most);
#else
    (void) bytes, (void) threads, (void) again;
    return 0;
#endif
}

/* Whether hardware fetches by itself what is coming along a run that is read, beyond the end of a page, too, and fetching
   the same beside streamed stores is a loss: AMD's does, Intel's doesn't.  And whether it follows plain stores as well:
   AMD's with AVX-512 does (Zen 4; Zen 3 doesn't).  Set once, from what `hardware_foresees` and `hardware_follows` say. */
static int foresees, follows;

static int hardware_foresees(void) {
#if defined(__SSE2__)
    unsigned a, b, c, d;
    return __get_cpuid(0, &a, &b, &c, &d) && b != signature_INTEL_ebx;
#else
    return 1;
#endif
}

static int hardware_follows(void) {
#if defined(__SSE2__)
    return hardware_foresees() && __builtin_cpu_supports("avx512f");
#else
    return 1;
#endif
}

/* Mean and m2 of n columns together, each of `lines` values. */
static void merge_columns_of(const double *mean, const double *m2, ptrdiff_t n, double lines, double *joint_mean,
                             double *joint_m2) {
    enum { SUMS = 8 };
    double total[SUMS] = {0}, squares[SUMS] = {0}, sum = 0;
    const double first = mean[0];  /* from it on, so that a large mean costs no digits */
    ptrdiff_t i = 0;
    for (; i + SUMS <= n; i += SUMS)
        for (int j = 0; j < SUMS; j++)
            total[j] += mean[i + j] - first;
    for (; i < n; i++)
        total[0] += mean[i] - first;
    for (int j = 0; j < SUMS; j++)
        sum += total[j];
    sum = first + sum / (double) n;
    if (sum - sum != 0)  /* the Inf or NaN that all come to */
        for (i = 0, sum = 0; i < n; i++)
            sum += mean[i];
    for (i = 0; i + SUMS <= n; i += SUMS)
        for (int j = 0; j < SUMS; j++) {
            const double d = mean[i + j] - sum;
            squares[j] += m2[i + j] + lines * d * d;
        }
    for (; i < n; i++)
        squares[0] += m2[i] + lines * (mean[i] - sum) * (mean[i] - sum);
    *joint_mean = sum;
    *joint_m2 = ((squares[0] + squares[4]) + (squares[1] + squares[5]))
                + ((squares[2] + squares[6]) + (squares[3] + squares[7]));
}

#ifdef __FMA__
/* 1 / sqrt(v) to 42 bits, without root and quotient, for what is rounded to float; where v isn't positive and normal, the
   sign of `strange` becomes set.  A first guess from the exponent (Lomont 2003) is off by 3.5 %; one Newton step leaves
   e = 1 - v t^2 of 0.4 %; then the series of (1 - e)^(-1/2). */
ALWAYS double inverse_root(double v, uint64_t *strange) {
    const uint64_t least = (uint64_t) 1 << 52, most = (uint64_t) 0x7fe << 52;
    uint64_t bits;
    double t;
    memcpy(&bits, &v, sizeof v);
    *strange |= (bits - least) | (most - bits);
    bits = 0x5fe6eb50c7b537a9u - (bits >> 1);
    memcpy(&t, &bits, sizeof t);
    t = __builtin_fma(t, __builtin_fma(-0.5 * v * t, t, 0.5), t);
    const double e = __builtin_fma(-v * t, t, 1.0);
    const double series = __builtin_fma(__builtin_fma(e, 35.0 / 128, 5.0 / 16), e * e, __builtin_fma(e, 3.0 / 8, 0.5));
    return __builtin_fma(t * e, series, t);
}

/* The same of any v. */
ALWAYS double any_inverse_root(double v) {
    uint64_t strange = 0;
    const double root = inverse_root(v, &strange);
    return strange >> 63 ? 1 / sqrt(v) : root;
}
#endif

/* The first `bytes` bytes of 16, an even number, by pieces: memcpy of a number that is not a constant is a call, and a masked
   store of AVX takes AMD 40 operations. */
typedef uint64_t Eights __attribute__((vector_size(16)));
typedef uint32_t Fours __attribute__((vector_size(16)));
typedef uint16_t Twos __attribute__((vector_size(16)));

ALWAYS Eights load_first(const void *source, int bytes) {
    const char *p = source;
    uint64_t eight;
    uint32_t four;
    uint16_t two;
    Eights v = {0};
    if (bytes & 2) {
        memcpy(&two, p + bytes - 2, 2);
        v = (Eights) (Twos){two};
    }
    if (bytes & 4) {
        memcpy(&four, p + (bytes & 8), 4);
        v = (Eights) (Fours){four, ((Fours) v)[0]};
    }
    if (bytes & 8) {
        memcpy(&eight, p, 8);
        v = (Eights){eight, v[0]};
    }
    return v;
}

ALWAYS void store_first(void *target, Eights v, int bytes) {
    char *p = target;
    const uint64_t eight = v[0];
    if (bytes & 8) {
        memcpy(p, &eight, 8);
        p += 8;
        v = (Eights){v[1]};
    }
    const uint32_t four = ((Fours) v)[0];
    if (bytes & 4) {
        memcpy(p, &four, 4);
        p += 4;
        v = (Eights) (Fours){((Fours) v)[1]};
    }
    const uint16_t two = ((Twos) v)[0];
    if (bytes & 2)
        memcpy(p, &two, 2);
}

#include "halves.h"
#include "pieces.h"

#define R float
#define R_BYTES 4
#define INT int32_t
#define SUFFIX _ps
#define LARGEST FLT_MAX

#define X float
#define NAME(name) name##_float
#define COMPUTED(name) name##_float
#include "lines.h"
#undef X
#undef NAME

#define X uint16_t
#define NAME(name) name##_float16
#define HALF(name) name##_half
#include "lines.h"
#undef NAME
#undef HALF

#define NAME(name) name##_bfloat16
#define HALF(name) name##_bfloat
#include "lines.h"
#undef X
#undef NAME
#undef HALF

#undef R
#undef R_BYTES
#undef INT
#undef SUFFIX
#undef LARGEST
#undef COMPUTED

#define R double
#define R_BYTES 8
#define INT int64_t
#define SUFFIX _pd
#define LARGEST DBL_MAX
#define X double
#define NAME(name) name##_double
#define COMPUTED(name) name##_double
#include "lines.h"
#undef R
#undef R_BYTES
#undef INT
#undef SUFFIX
#undef LARGEST
#undef X
#undef NAME
#undef COMPUTED

static const Lines *const lines_of[] = {&lines_float, &lines_double, &lines_float16, &lines_bfloat16};

#endif

#else

#include "vectors.h"

#define LANES (UNROLLED * WIDTH)
#define BLOCK (STEPS * LANES)
#define RUN (8 * LANES)
#define JOINT (JOINT_BYTES / (int) sizeof(X))
#define COLUMNS (TALL * WIDTH)
#ifdef HALF
#define VALUE(p) NAME(take_part)(p, 1)[0]
#define COEFFICIENTS channel_coefficients_float
#else
#define VALUE(p) (*(p))
#define COEFFICIENTS NAME(channel_coefficients)
#include "activations.h"
#endif

#include "sums.h"
#include "store.h"
#include "apply.h"

static const Lines NAME(lines) = {
    sizeof(X),
    sizeof(R),
    WIDTH,
    LANES,
    BLOCK,
    NAME(block_moments),
    NAME(row_moments),
    NAME(column_moments),
    COEFFICIENTS,
    NAME(apply_constant),
    NAME(apply_along),
    NAME(apply_columns),
    NAME(apply_columns_along),
    NAME(widen),
    NAME(narrow),
    NAME(add),
};

#undef VEC
#undef MASK
#undef WIDTH
#undef LANES
#undef BLOCK
#undef RUN
#undef JOINT
#undef COLUMNS
#undef VALUE
#undef COEFFICIENTS
#undef BADLY_PLACED
#undef OUT_OF_RANGE
#undef CENTRED_AND_SCALED
#undef ALONG
#undef WITH_FINISH
#undef WITH_TRAFFIC
#undef IN_RUNS
#undef JOINED
#undef AS_COMPUTED

#endif
