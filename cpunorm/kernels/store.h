/* What y goes through before it is written, and how: what is added, the activation, around the caches or not, and what is
   fetched meanwhile.  Included by lines.h once per type. */

ALWAYS VEC NAME(finished)(VEC v, const X *y, int part, const int finish, ptrdiff_t residual) {
    if (finish & ADDED) {
        const X *p = (const X *) ((const char *) y + residual);
        v += part ? NAME(take_part)(p, part) : NAME(take)(p);
    }
    return finish & CUT ? COMPUTED(relu)(v) : v;
}

/* Writes the vector v, or the first `part` values of it if not 0, to y. */
ALWAYS void NAME(finish)(X *y, VEC v, int part, const int finish, ptrdiff_t residual) {
    v = NAME(finished)(v, y, part, finish, residual);
    if (part)
        NAME(put_part)(y, v, part);
    else
        NAME(put)(y, v, finish & STREAMED);
}

/* The values before the first vector of y that is aligned: others are stored to two lines of a cache. */
ALWAYS int NAME(head_of)(const X *y) { return (int) (-(size_t) y / sizeof(X) % WIDTH); }

/* The same of a line, if that is long enough for a head and a tail to pay. */
ALWAYS int NAME(head_of_line)(const X *y, ptrdiff_t n, const int finish) {
    return n >= (finish & STREAMED ? 2 : ALIGNED_STEPS) * LANES ? NAME(head_of)(y) : 0;
}

/* What comes next: y, which is to be written, into L1; x, too, but into L2 beside streamed stores.  Where hardware fetches
   runs by itself it is the other way round. */
ALWAYS void NAME(fetch)(const X *x, const X *y, const int vectors, const Traffic t, const int finish, const int run) {
    if (vectors * WIDTH * sizeof(X) < 64 && (size_t) y % 64 >= WIDTH * sizeof(X))
        return;  /* the vectors before have fetched this line */
    const int near = finish & STREAMED ? run && foresees : !foresees;
#define EACH_LINE(p, write, level)                                                                                    \
    for (ptrdiff_t byte = 0; byte < vectors * WIDTH * (int) sizeof(X); byte += 64)                                     \
        __builtin_prefetch((const char *) (p) + byte, write, level)
    if (t.x_ahead && near)
        EACH_LINE((const char *) x + t.x_ahead, 0, 3);
    else if (t.x_ahead)
        EACH_LINE((const char *) x + t.x_ahead, 0, 2);
    if (t.y_ahead && !(finish & STREAMED))
        EACH_LINE((const char *) y + t.y_ahead, 1, 3);
    if (finish & ADDED && t.x_ahead)
        EACH_LINE((const char *) y + t.residual + t.x_ahead, 0, 2);
#undef EACH_LINE
}

/* Calls `f` with constants in the place of what a line's traffic is made of. */
#define WITH_FINISH(f, streams, t, finish, ...)                                                                       \
    if (streams)                                                                                                      \
        f(__VA_ARGS__, *(t), STREAMED | (finish));                                                                    \
    else                                                                                                              \
        f(__VA_ARGS__, *(t), finish)

#define STREAMS(y, pitch, t)                                                                                          \
    ((t)->streamed && (pitch) % WIDTH == 0 && (n >= 2 * LANES || NAME(head_of)(y) == 0))

#define WITH_PLAIN_TRAFFIC(f, streams, t, ...)                                                                        \
    if (streams || FETCHES(*(t))) {                                                                                   \
        WITH_FINISH(f, streams, t, PLAIN, __VA_ARGS__);                                                               \
    } else                                                                                                            \
        f(__VA_ARGS__, (Traffic) {0}, PLAIN)

#define WITH_TRAFFIC(f, y, pitch, t, ...)                                                                             \
    const int streams = STREAMS(y, pitch, t);                                                                         \
    if ((t)->added && (t)->activation) {                                                                              \
        WITH_FINISH(f, streams, t, ADDED | CUT, __VA_ARGS__);                                                         \
    } else if ((t)->added) {                                                                                          \
        WITH_FINISH(f, streams, t, ADDED, __VA_ARGS__);                                                               \
    } else if ((t)->activation) {                                                                                     \
        WITH_FINISH(f, streams, t, CUT, __VA_ARGS__);                                                                 \
    } else                                                                                                            \
        WITH_PLAIN_TRAFFIC(f, streams, t, __VA_ARGS__)

/* Values as they are in memory to what is computed in, and back. */
static void NAME(widen)(const void *source, void *target, ptrdiff_t n) {
    const X *x = source;
    R *y = target;
    ptrdiff_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH)
        NAME(store)(y + i, NAME(take)(x + i));
    if (i < n)
        NAME(store_part)(y + i, NAME(take_part)(x + i, (int) (n - i)), (int) (n - i));
}

static void NAME(narrow)(const void *source, void *target, ptrdiff_t n, int streamed) {
    const R *x = source;
    X *y = target;
    const int head = streamed && n >= WIDTH ? NAME(head_of)(y) : 0;
    ptrdiff_t i = head;
    if (head)
        NAME(put_part)(y, NAME(load_part)(x, head), head);
    for (; streamed && i + WIDTH <= n; i += WIDTH)
        NAME(put)(y + i, NAME(load)(x + i), 1);
    for (; i + WIDTH <= n; i += WIDTH)
        NAME(put)(y + i, NAME(load)(x + i), 0);
    if (i < n)
        NAME(put_part)(y + i, NAME(load_part)(x + i, (int) (n - i)), (int) (n - i));
}

#ifndef HALF
/* y = f(x) of n values; y may be x, and is aligned if it is streamed.  Meanwhile is fetched what comes next. */
static void NAME(activate)(int activation, const R *x, R *y, ptrdiff_t n, int streamed, Next next) {
#define EACH(kind, f)                                                                                                 \
    case kind:                                                                                                        \
        for (; i + WIDTH <= n; i += WIDTH) {                                                                          \
            if (next.x)                                                                                               \
                __builtin_prefetch(next.x + i * next.size, 0, 2);                                                     \
            if (next.y)                                                                                               \
                __builtin_prefetch(next.y + i * next.size, 1, 3);                                                     \
            if (next.added)                                                                                           \
                __builtin_prefetch(next.added + i * next.size, 0, 2);                                                 \
            const VEC v = NAME(f)(NAME(load)(x + i));                                                                 \
            if (streamed)                                                                                             \
                NAME(stream)(y + i, v);                                                                               \
            else                                                                                                      \
                NAME(store)(y + i, v);                                                                                \
        }                                                                                                             \
        if (i < n)                                                                                                    \
            NAME(store_part)(y + i, NAME(f)(NAME(load_part)(x + i, (int) (n - i))), (int) (n - i));                   \
        break;
    ptrdiff_t i = 0;
    switch (activation) {
        EACH(RELU, relu)
        EACH(RELU6, relu6)
        EACH(LEAKY_RELU, leaky_relu)
        EACH(SILU, silu)
        EACH(GELU, gelu)
        EACH(GELU_TANH, gelu_tanh)
        EACH(HARDSWISH, hardswish)
        EACH(HARDSIGMOID, hardsigmoid)
        EACH(SIGMOID, sigmoid)
        EACH(TANH, tanh)
    }
#undef EACH
}
#endif

/* y = activation(z + what is added to y): `lines` lines, n * lines <= RUN values that follow each other in z; x is where
   they come from. */
static void NAME(activate_lines)(R *z, const X *x, X *y, ptrdiff_t n, ptrdiff_t lines, ptrdiff_t y_pitch, int streams,
                                 const Traffic *t) {
    if (lines > 1 && y_pitch == n) {
        n *= lines;
        lines = 1;
    }
    for (ptrdiff_t line = 0; t->added && line < lines; line++) {
        const X *p = (const X *) ((const char *) (y + line * y_pitch) + t->residual);
        R *v = z + line * n;
        ptrdiff_t i = 0;
        for (; i + WIDTH <= n; i += WIDTH)
            NAME(store)(v + i, NAME(load)(v + i) + NAME(take)(p + i));
        if (i < n)
            NAME(store_part)(v + i, NAME(load_part)(v + i, (int) (n - i)) + NAME(take_part)(p + i, (int) (n - i)),
                             (int) (n - i));
    }
    const Next next = {
        t->x_ahead ? (const char *) x + t->x_ahead : NULL,
        t->y_ahead && !streams ? (const char *) y + t->y_ahead : NULL,
        t->x_ahead && t->added ? (const char *) y + t->residual + t->x_ahead : NULL,
        sizeof(X),
    };
#ifndef HALF
    if (lines == 1) {
        NAME(activate)(t->activation, z, y, n, streams, next);
        return;
    }
#endif
    COMPUTED(activate)(t->activation, z, z, n * lines, 0, next);
    for (ptrdiff_t line = 0; line < lines; line++)
        NAME(narrow)(z + line * n, y + line * y_pitch, n, streams);
}

/* `many` lines of `some` values as they are computed with: themselves, or in z. */
#ifdef HALF
#define AS_COMPUTED(v, pitch, xs)                                                                                     \
    const R *v = z;                                                                                                   \
    const ptrdiff_t pitch = some;                                                                                     \
    for (ptrdiff_t line = 0; line < many; line++)                                                                     \
        NAME(widen)(xs + line * x_pitch, z + line * some, some);
#else
#define AS_COMPUTED(v, pitch, xs)                                                                                     \
    const R *v = xs;                                                                                                  \
    const ptrdiff_t pitch = x_pitch;
#endif

/* Whether lines of y that follow each other are to be streamed as one: each by itself would begin or end where y isn't aligned,
   with a store as usual to a line of the cache that the next one completes, and all behind it wait (Zen 4: 60 ns each). */
ALWAYS int NAME(joins)(const X *y, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t pitch, const Traffic *t) {
    return t->streamed && rows > 1 && pitch == n && n >= WIDTH && n + WIDTH <= JOINT && (n % WIDTH || NAME(head_of)(y));
}

ALWAYS void NAME(pass_on)(X *y, const X *z) {
#ifdef HALF
    STREAM_HALVES(y, NAME(halves)(z));
#else
    NAME(stream)(y, NAME(load)(z));
#endif
}

/* Those, by `apply`, `many` at once, from `row` on, to z + lead; whole vectors go on from there. */
#define JOINED(apply)                                                                                                 \
    do {                                                                                                              \
        X z[JOINT] __attribute__((aligned(VECTOR_BYTES)));                                                            \
        Traffic within = *t;                                                                                          \
        ptrdiff_t head = NAME(head_of)(y), lead = (WIDTH - head) % WIDTH;                                             \
        X *next = y - lead;                                                                                           \
        within.streamed = 0;                                                                                          \
        within.y_ahead = 0;                                                                                           \
        for (ptrdiff_t row = 0, many; row < rows; row += many) {                                                      \
            const ptrdiff_t most = (JOINT - lead) / n;                                                                \
            many = rows - row < most ? rows - row : most;                                                             \
            within.residual = t->residual + ((const char *) (y + row * n) - (const char *) (z + lead));               \
            apply;                                                                                                    \
            const ptrdiff_t all = lead + many * n;                                                                    \
            ptrdiff_t i = 0;                                                                                          \
            if (head) {                                                                                               \
                memcpy(y, z + lead, head * sizeof(X));                                                                \
                head = 0;                                                                                             \
                i = WIDTH;                                                                                            \
            }                                                                                                         \
            for (; i + WIDTH <= all; i += WIDTH)                                                                      \
                NAME(pass_on)(next + i, z + i);                                                                       \
            lead = all - i;                                                                                           \
            memmove(z, z + i, lead * sizeof(X));                                                                      \
            next += i;                                                                                                \
        }                                                                                                             \
        memcpy(next, z, lead * sizeof(X));                                                                            \
    } while (0)

/* With an activation of tens of operations, y by runs that stay in L1: `norm`, z from v, then the activation, for one loop
   of both takes longer.  A run is `many` whole lines, or `some` values of one. */
#define IN_RUNS(norm)                                                                                                 \
    do {                                                                                                              \
        R z[RUN] __attribute__((aligned(VECTOR_BYTES)));                                                              \
        const Traffic within = {0};                                                                                   \
        const int streams = t->streamed && n >= 2 * LANES;                                                            \
        const ptrdiff_t most = streams || n > RUN ? 1 : RUN / n;                                                      \
        for (ptrdiff_t row = 0, many; row < rows; row += many) {                                                      \
            many = rows - row < most ? rows - row : most;                                                             \
            const int head = streams ? NAME(head_of)(y + row * y_pitch) : 0;                                          \
            for (ptrdiff_t i = 0, some; i < n; i += some) {                                                           \
                const X *xs = x + row * x_pitch + i;                                                                  \
                some = i < head ? head : n - i < RUN ? n - i : RUN;                                                   \
                AS_COMPUTED(v, pitch, xs)                                                                             \
                norm;                                                                                                 \
                NAME(activate_lines)(z, xs, y + row * y_pitch + i, some, many, y_pitch, streams, t);                  \
            }                                                                                                         \
        }                                                                                                             \
    } while (0)
