/* y from x along lines of values: coefficients and the formula, into what store.h does with it.  Included by lines.h once
   per type. */

#ifndef HALF
static void NAME(channel_coefficients)(ptrdiff_t n, const double *mean, const double *var, double eps,
                                       const void *weight, const void *bias, void *highs, void *scales,
                                       void *shifts) {
    const R *restrict w = weight, *restrict b = bias;
    R *restrict high = highs, *restrict scale = scales, *restrict shift = shifts;
    /* Inf has no low part, and none at all is not to meet an infinite scale. */
#define EACH(root, weight, bias)                                                                                      \
    for (ptrdiff_t i = 0; i < n; i++) {                                                                               \
        const R h = (R) mean[i];                                                                                      \
        const double rstd = root, s = rstd * (weight), low = mean[i] - h;                                             \
        high[i] = h;                                                                                                  \
        scale[i] = (R) s;                                                                                             \
        shift[i] = (R) ((bias) - (low == low && low != 0 ? low * s : 0.0));                                           \
    }
/* About zero, without weights. */
#define SCALE_ALONE(root)                                                                                             \
    for (ptrdiff_t i = 0; i < n; i++) {                                                                               \
        high[i] = shift[i] = 0;                                                                                       \
        scale[i] = (R) (root);                                                                                        \
    }
/* Without a choice in the usual loops: a masked load of NULL is slow, though no value of it is read. */
#define ALL(root)                                                                                                     \
    if (!mean)                                                                                                        \
        SCALE_ALONE(root)                                                                                             \
    else if (w && b)                                                                                                  \
        EACH(root, w[i], (double) b[i])                                                                               \
    else if (!w && !b)                                                                                                \
        EACH(root, 1, 0.0)                                                                                            \
    else                                                                                                              \
        EACH(root, w ? w[i] : 1, b ? (double) b[i] : 0.0)
#if R_BYTES == 4 && defined(__FMA__)
    uint64_t strange = 0;
    ALL(inverse_root(var[i] + eps, &strange))
    if (strange >> 63 && !mean)
        SCALE_ALONE(any_inverse_root(var[i] + eps))
    else if (strange >> 63)
        EACH(any_inverse_root(var[i] + eps), w ? w[i] : 1, b ? (double) b[i] : 0.0)
#else
    ALL(1 / sqrt(var[i] + eps))
#endif
#undef ALL
#undef SCALE_ALONE
#undef EACH
}
#endif

/* The formula. */
#define CENTRED_AND_SCALED(x, h, s, c) (((x) - (h)) * (s) + (c))
#define ALONG(x, h, s, c, w, b) (CENTRED_AND_SCALED(x, h, s, c) * (w) + (b))

ALWAYS void NAME(constant_lines)(const X *x, X *y, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t x_pitch, ptrdiff_t y_pitch,
                                 const R *high, const R *scale, const R *shift, int step,
                                 const Traffic t, const int finish) {
    for (ptrdiff_t row = 0; row < rows; row++, x += x_pitch, y += y_pitch, high += step, scale += step, shift += step) {
        const R h = *high, s = *scale, b = *shift;
        const int head = NAME(head_of_line)(y, n, finish);
        ptrdiff_t i = head;
        if (head)
            NAME(finish)(y, CENTRED_AND_SCALED(NAME(take_part)(x, head), h, s, b), head, finish, t.residual);
        for (; i + LANES <= n; i += LANES) {
            if (FETCHES(t))
                NAME(fetch)(x + i, y + i, UNROLLED, t, finish, 1);
            VEC z[UNROLLED];
#pragma GCC unroll 4
            for (int v = 0; v < UNROLLED; v++)
                z[v] = CENTRED_AND_SCALED(NAME(take)(x + i + v * WIDTH), h, s, b);
#pragma GCC unroll 4
            for (int v = 0; v < UNROLLED; v++)
                NAME(finish)(y + i + v * WIDTH, z[v], 0, finish, t.residual);
        }
        if (FETCHES(t) && i < n)
            NAME(fetch)(x + i, y + i, UNROLLED, t, finish, 1);
        for (; i + WIDTH <= n; i += WIDTH)
            NAME(finish)(y + i, CENTRED_AND_SCALED(NAME(take)(x + i), h, s, b), 0, finish, t.residual);
#ifndef HALF
        if (i == n - 1 && !(finish & ADDED)) {
            /* By itself, as in images of 7 x 7: a mask spares no wait for the line of the cache that a vector ends in. */
            y[i] = NAME(finished)(CENTRED_AND_SCALED((VEC) {x[i]}, h, s, b), y, 0, finish, 0)[0];
            continue;
        }
#endif
        if (i < n)
            NAME(finish)(y + i, CENTRED_AND_SCALED(NAME(take_part)(x + i, (int) (n - i)), h, s, b), (int) (n - i),
                         finish, t.residual);
    }
}

static void NAME(apply_constant)(const void *source, void *target, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t x_pitch,
                                 ptrdiff_t y_pitch, const void *high, const void *scale, const void *shift, int step,
                                 const Traffic *t) {
    const X *x = source;
    X *y = target;
    const R *h = high, *s = scale, *c = shift;
    if (NAME(joins)(y, n, rows, y_pitch, t)) {
        JOINED(NAME(apply_constant)(x + row * x_pitch, z + lead, n, many, x_pitch, n, h + row * step, s + row * step,
                                    c + row * step, step, &within));
        return;
    }
    if (t->activation > RELU) {
        IN_RUNS(COMPUTED(apply_constant)(v, z, some, many, pitch, some, h + row * step, s + row * step, c + row * step,
                                         step, &within));
        return;
    }
    WITH_TRAFFIC(NAME(constant_lines), y, rows > 1 ? y_pitch : 0, t, x, y, n, rows, x_pitch, y_pitch, h, s, c, step);
}

/* `lines` lines, a constant: they share what is loaded of weight and bias. */
ALWAYS void NAME(lines_along)(const X *x, X *y, ptrdiff_t n, const int lines, ptrdiff_t x_pitch, ptrdiff_t y_pitch,
                              const R *high, const R *scale, const R *shift, int step, const R *weight, const R *bias,
                              const Traffic t, const int finish) {
    R h[SHARING], s[SHARING], c[SHARING];  /* in registers, but for parts: a store of y might be one to where they lie */
    for (int r = 0; r < lines; r++)
        h[r] = high[r * step], s[r] = scale[r * step], c[r] = shift[r * step];
    const int head = lines == 1 || y_pitch % WIDTH == 0 ? NAME(head_of_line)(y, n, finish) : 0;
    ptrdiff_t i = 0;
#define PART(part)                                                                                                    \
    _Pragma("GCC unroll 4") for (int r = 0; r < lines; r++)                                                           \
        NAME(finish)(y + r * y_pitch + i,                                                                             \
                     ALONG(NAME(take_part)(x + r * x_pitch + i, part), high[r * step], scale[r * step],               \
                           shift[r * step], NAME(load_part)(weight + i, part), NAME(load_part)(bias + i, part)),      \
                     part, finish, t.residual)
    if (head) {
        PART(head);
        i = head;
    }
    for (; lines == 1 && i + LANES <= n; i += LANES) {
        if (FETCHES(t))
            NAME(fetch)(x + i, y + i, UNROLLED, t, finish, 1);
        VEC z[UNROLLED];
#pragma GCC unroll 4
        for (int v = 0; v < UNROLLED; v++)
            z[v] = ALONG(NAME(take)(x + i + v * WIDTH), *h, *s, *c, NAME(load)(weight + i + v * WIDTH),
                         NAME(load)(bias + i + v * WIDTH));
#pragma GCC unroll 4
        for (int v = 0; v < UNROLLED; v++)
            NAME(finish)(y + i + v * WIDTH, z[v], 0, finish, t.residual);
    }
    for (; i + WIDTH <= n; i += WIDTH) {
        const VEC w = NAME(load)(weight + i), b = NAME(load)(bias + i);
#pragma GCC unroll 4
        for (int r = 0; r < lines; r++) {
            const X *p = x + r * x_pitch + i;
            X *o = y + r * y_pitch + i;
            if (FETCHES(t))
                NAME(fetch)(p, o, 1, t, finish, 1);
            NAME(finish)(o, ALONG(NAME(take)(p), h[r], s[r], c[r], w, b), 0, finish, t.residual);
        }
    }
    if (i < n)
        PART((int) (n - i));
#undef PART
}

ALWAYS void NAME(rows_along)(const X *x, X *y, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t x_pitch, ptrdiff_t y_pitch,
                             const R *high, const R *scale, const R *shift, int step, const R *weight, const R *bias,
                             const Traffic t, const int finish) {
    ptrdiff_t row = 0;
    for (; !(finish & STREAMED) && !FETCHES(t) && row + SHARING <= rows; row += SHARING)
        NAME(lines_along)(x + row * x_pitch, y + row * y_pitch, n, SHARING, x_pitch, y_pitch, high + row * step,
                          scale + row * step, shift + row * step, step, weight, bias, t, finish);
    for (; row < rows; row++)
        NAME(lines_along)(x + row * x_pitch, y + row * y_pitch, n, 1, x_pitch, y_pitch, high + row * step,
                          scale + row * step, shift + row * step, step, weight, bias, t, finish);
}

static void NAME(apply_along)(const void *source, void *target, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t x_pitch,
                              ptrdiff_t y_pitch, const void *high, const void *scale, const void *shift, int step,
                              const void *weight, const void *bias, const Traffic *t) {
    const X *x = source;
    X *y = target;
    const R *h = high, *s = scale, *c = shift, *w = weight, *b = bias;
    if (NAME(joins)(y, n, rows, y_pitch, t)) {
        JOINED(NAME(apply_along)(x + row * x_pitch, z + lead, n, many, x_pitch, n, h + row * step, s + row * step,
                                 c + row * step, step, w, b, &within));
        return;
    }
    if (t->activation > RELU) {
        IN_RUNS(COMPUTED(apply_along)(v, z, some, many, pitch, some, h + row * step, s + row * step, c + row * step,
                                      step, w + i, b + i, &within));
        return;
    }
    WITH_TRAFFIC(NAME(rows_along), y, rows > 1 ? y_pitch : 0, t, x, y, n, rows, x_pitch, y_pitch, h, s, c, step, w, b);
}

/* A tile of `vectors` vectors (a constant; the one is of `part` values if not 0) down the lines: its coefficients stay
   in registers.  If `along` (a constant), each line has a weight and a bias. */
ALWAYS void NAME(tile_columns)(const X *x, X *y, ptrdiff_t rows, ptrdiff_t x_pitch, ptrdiff_t y_pitch,
                               const int vectors, int part, const R *high, const R *scale, const R *shift,
                               const int along, const R *weight, const R *bias, const Traffic t, const int finish) {
    VEC h[UNROLLED], s[UNROLLED], b[UNROLLED];
    for (int v = 0; v < vectors; v++) {
        h[v] = part ? NAME(load_part)(high, part) : NAME(load)(high + v * WIDTH);
        s[v] = part ? NAME(load_part)(scale, part) : NAME(load)(scale + v * WIDTH);
        b[v] = part ? NAME(load_part)(shift, part) : NAME(load)(shift + v * WIDTH);
    }
    for (ptrdiff_t row = 0; row < rows; row++, x += x_pitch, y += y_pitch) {
        if (FETCHES(t))
            NAME(fetch)(x, y, vectors, t, finish, x_pitch * (int) sizeof(X) <= RUN_BYTES);
        for (int first = 0; first < vectors; first += TALL) {  /* as many as there are registers beside those */
            VEC z[TALL];
            const int some = vectors - first < TALL ? vectors - first : TALL;
            for (int i = 0, v = first; i < some; i++, v++) {
                z[i] = CENTRED_AND_SCALED(part ? NAME(take_part)(x, part) : NAME(take)(x + v * WIDTH), h[v], s[v], b[v]);
                if (along)
                    z[i] = z[i] * weight[row] + bias[row];
            }
            for (int i = 0, v = first; i < some; i++, v++)
                NAME(finish)(y + v * WIDTH, z[i], part, finish, t.residual);
        }
    }
}

ALWAYS void NAME(rows_columns)(const X *x, X *y, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t x_pitch, ptrdiff_t y_pitch,
                               const R *high, const R *scale, const R *shift, const int along, const R *weight,
                               const R *bias, const Traffic t, const int finish) {
    const int alike = (x_pitch | y_pitch) * (ptrdiff_t) sizeof(X) % COMPARED == 0;
    const ptrdiff_t chunk = n <= LANES ? rows : t.x_ahead ? 1 : alike ? PAIR_ROWS : TILE_ROWS;
    const int wide = along ? TALL : UNROLLED;
#define TILE(vectors, part)                                                                                           \
    NAME(tile_columns)(x + i, y + i, tall, x_pitch, y_pitch, vectors, part, high + i, scale + i, shift + i, along,     \
                       weight, bias, t, finish)
    for (ptrdiff_t row = 0; row < rows; row += chunk, x += chunk * x_pitch, y += chunk * y_pitch) {
        const ptrdiff_t tall = rows - row < chunk ? rows - row : chunk;
        /* NumPy's arrays are aligned to vectors of 16 bytes. */
        const int aligns = VECTOR_BYTES > 16 && (rows == 1 || y_pitch % WIDTH == 0);
        const int head = finish & STREAMED || aligns ? NAME(head_of_line)(y, n, finish) : 0;
        ptrdiff_t i = 0;
        if (head)
            TILE(1, head);
        i = head;
        for (; i + wide * WIDTH <= n; i += wide * WIDTH)
            TILE(wide, 0);
        for (; i + WIDTH <= n; i += WIDTH)
            TILE(1, 0);
        if (i < n)
            TILE(1, (int) (n - i));
        if (along)
            weight += chunk, bias += chunk;
    }
#undef TILE
}

static void NAME(apply_columns)(const void *source, void *target, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t x_pitch,
                                ptrdiff_t y_pitch, const void *high, const void *scale, const void *shift,
                                const Traffic *t) {
    const X *x = source;
    X *y = target;
    const R *h = high, *s = scale, *c = shift;
    if (NAME(joins)(y, n, rows, y_pitch, t)) {
        JOINED(NAME(apply_columns)(x + row * x_pitch, z + lead, n, many, x_pitch, n, h, s, c, &within));
        return;
    }
    if (t->activation > RELU) {
        IN_RUNS(COMPUTED(apply_columns)(v, z, some, many, pitch, some, h + i, s + i, c + i, &within));
        return;
    }
    WITH_TRAFFIC(NAME(rows_columns), y, rows > 1 ? y_pitch : 0, t, x, y, n, rows, x_pitch, y_pitch, h, s, c, 0,
                 (const R *) NULL, (const R *) NULL);
}

/* One vector down the lines, with weight and bias along each of them. */
ALWAYS void NAME(vector_along)(const X *x, X *y, ptrdiff_t rows, ptrdiff_t x_pitch, ptrdiff_t y_pitch, int part,
                               const R *high, const R *scale, const R *shift, const R *weight, const R *bias,
                               ptrdiff_t matrix, const int finish, const ptrdiff_t residual) {
    const VEC h = part ? NAME(load_part)(high, part) : NAME(load)(high);
    const VEC s = part ? NAME(load_part)(scale, part) : NAME(load)(scale);
    const VEC c = part ? NAME(load_part)(shift, part) : NAME(load)(shift);
    for (ptrdiff_t row = 0; row < rows; row++, x += x_pitch, y += y_pitch, weight += matrix, bias += matrix) {
        const VEC v = part ? NAME(take_part)(x, part) : NAME(take)(x);
        const VEC w = part ? NAME(load_part)(weight, part) : NAME(load)(weight);
        const VEC b = part ? NAME(load_part)(bias, part) : NAME(load)(bias);
        NAME(finish)(y, ALONG(v, h, s, c, w, b), part, finish, residual);
    }
}

static void NAME(apply_columns_along)(const void *source, void *target, ptrdiff_t n, ptrdiff_t rows,
                                      ptrdiff_t x_pitch, ptrdiff_t y_pitch, const void *high, const void *scale,
                                      const void *shift, const void *weight, const void *bias, ptrdiff_t matrix,
                                      const Traffic *t) {
    const X *x = source;
    const R *h = high, *s = scale, *c = shift, *w = weight, *b = bias;
    X *y = target;
    const ptrdiff_t of_line = matrix ? matrix : 1, along = matrix != 0;
    if (NAME(joins)(y, n, rows, y_pitch, t)) {
        JOINED(NAME(apply_columns_along)(x + row * x_pitch, z + lead, n, many, x_pitch, n, h, s, c, w + row * of_line,
                                         b + row * of_line, matrix, &within));
        return;
    }
    if (t->activation > RELU) {
        IN_RUNS(COMPUTED(apply_columns_along)(v, z, some, many, pitch, some, h + i, s + i, c + i,
                                              w + row * of_line + i * along, b + row * of_line + i * along, matrix,
                                              &within));
        return;
    }
    const int finish = (t->added ? ADDED : PLAIN) | (t->activation ? CUT : PLAIN);
    if (!matrix && finish) {  /* one copy of the loops, which don't stream, for all of that */
        NAME(rows_columns)(x, y, n, rows, x_pitch, y_pitch, h, s, c, 1, w, b, *t, finish);
        return;
    }
    if (!matrix) {
        const int streams = STREAMS(y, rows > 1 ? y_pitch : 0, t);
        WITH_PLAIN_TRAFFIC(NAME(rows_columns), streams, t, x, y, n, rows, x_pitch, y_pitch, h, s, c, 1, w, b);
        return;
    }
    for (ptrdiff_t i = 0; i < n; i += WIDTH) {
        const int part = n - i < WIDTH ? (int) (n - i) : 0;
#define VECTOR(part, finish)                                                                                          \
    NAME(vector_along)(x + i, y + i, rows, x_pitch, y_pitch, part, h + i, s + i, c + i, w + i, b + i, matrix, finish, \
                       t->residual)
        if (finish)
            VECTOR(part, finish);
        else if (part)
            VECTOR(part, PLAIN);
        else
            VECTOR(0, PLAIN);
#undef VECTOR
    }
}

static void NAME(add)(const void *source, const void *addends, void *totals, void *sums, ptrdiff_t n,
                      const Traffic *t) {
    const X *x = source, *addend = addends;
    X *total = totals;
    R *sum = sums;
    Traffic beside = *t;
    const int head = t->streamed && n >= WIDTH ? NAME(head_of)(total) : 0;
    ptrdiff_t i = 0;
    beside.residual = (const char *) addend - (const char *) total;
#define PART(part)                                                                                                    \
    do {                                                                                                              \
        const VEC v = NAME(take_part)(x + i, part) + NAME(take_part)(addend + i, part);                               \
        NAME(put_part)(total + i, v, part);                                                                           \
        NAME(store_part)(sum + i, v, part);                                                                           \
    } while (0)
#define ADD(streams)                                                                                                  \
    for (; i + WIDTH <= n; i += WIDTH) {                                                                              \
        if (t->x_ahead)                                                                                               \
            NAME(fetch)(x + i, total + i, 1, beside, streams | ADDED, 0);                                             \
        const VEC v = NAME(take)(x + i) + NAME(take)(addend + i);                                                     \
        NAME(put)(total + i, v, streams);                                                                             \
        if (sums != totals)                                                                                           \
            NAME(store)(sum + i, v);                                                                                  \
    }
    if (head)
        PART(head);
    i = head;
    if (t->streamed)
        ADD(STREAMED)
    else
        ADD(0)
    if (i < n)
        PART((int) (n - i));
#undef PART
#undef ADD
}
