/* A block of one array into another whose axes lie otherwise; values repeated.  Includes itself once per size of value. */

#ifndef T

#ifndef CPUNORM_COPY_H
#define CPUNORM_COPY_H

#include "lines.h"

enum { SIDE = 4 };  /* of a tile: a register of 32 bits each way, half of one of 16 */

typedef uint64_t Two __attribute__((vector_size(16), aligned(8), may_alias));

#define T uint32_t
#define OF_SIZE(name) name##_4
#include "copy.h"
#undef T
#undef OF_SIZE

#define T uint16_t
#define OF_SIZE(name) name##_2
#include "copy.h"
#undef T
#undef OF_SIZE

#define T uint64_t
#define OF_SIZE(name) name##_8
#include "copy.h"
#undef T
#undef OF_SIZE

static void copy_block(char *y, const char *x, int size, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t y_row,
                       ptrdiff_t y_column, ptrdiff_t x_row, ptrdiff_t x_column) {
    if (size == 4)
        copy_block_4((uint32_t *) y, (const uint32_t *) x, rows, columns, y_row, y_column, x_row, x_column);
    else if (size == 2)
        copy_block_2((uint16_t *) y, (const uint16_t *) x, rows, columns, y_row, y_column, x_row, x_column);
    else
        copy_block_8((uint64_t *) y, (const uint64_t *) x, rows, columns, y_row, y_column, x_row, x_column);
}

static void turn_run(char *y, const char *x, int size, const ptrdiff_t *places, ptrdiff_t lanes, ptrdiff_t run,
                     int back) {
    if (size == 4)
        turn_run_4((uint32_t *) y, (const uint32_t *) x, places, lanes, run, back);
    else if (size == 2)
        turn_run_2((uint16_t *) y, (const uint16_t *) x, places, lanes, run, back);
    else
        turn_run_8((uint64_t *) y, (const uint64_t *) x, places, lanes, run, back);
}

/* y = x: runs of so many bytes, an even number, each so many bytes after the one before.  Of a short one its first bytes
   and its last, as many as a register takes: neither one too many nor one by one. */
static void copy_runs(char *y, const char *x, ptrdiff_t runs, ptrdiff_t bytes, ptrdiff_t y_pitch, ptrdiff_t x_pitch) {
    typedef uint64_t Four __attribute__((vector_size(32), aligned(8), may_alias));
#define BY(Part)                                                                                                      \
    for (ptrdiff_t run = 0; run < runs; run++, y += y_pitch, x += x_pitch) {                                          \
        Part first, last;                                                                                             \
        memcpy(&first, x, sizeof first);                                                                              \
        memcpy(&last, x + bytes - sizeof last, sizeof last);                                                          \
        memcpy(y, &first, sizeof first);                                                                              \
        memcpy(y + bytes - sizeof last, &last, sizeof last);                                                          \
    }
    if (y_pitch == bytes && x_pitch == bytes)
        memcpy(y, x, (size_t) (runs * bytes));
    else if (bytes < 4)
        BY(uint16_t)
    else if (bytes <= 8)
        BY(uint32_t)
    else if (bytes <= 16)
        BY(uint64_t)
    else if (bytes <= 32)
        BY(Two)
    else if (bytes <= 64)
        BY(Four)
    else
        for (ptrdiff_t run = 0; run < runs; run++)
            memcpy(y + run * y_pitch, x + run * x_pitch, (size_t) bytes);
#undef BY
}

/* y (count, width) = x (count, 1), of 4 or 8 bytes; from the end on, for they may begin at the same place. */
static void repeat(char *y, const char *x, ptrdiff_t count, ptrdiff_t width, int size) {
    if (size == 4)
        repeat_4((uint32_t *) y, (const uint32_t *) x, count, width);
    else
        repeat_8((uint64_t *) y, (const uint64_t *) x, count, width);
}

#endif

#else

/* y[i][j] = x[j][i], a square. */
static inline void OF_SIZE(copy_tile)(T *const y[SIDE], const T *const x[SIDE]) {
    if (sizeof(T) < 8) {
        typedef T Side __attribute__((vector_size(SIDE * sizeof(T)), aligned(sizeof(T)), may_alias));
        const Side a = *(const Side *) x[0], b = *(const Side *) x[1], c = *(const Side *) x[2], d = *(const Side *) x[3];
        const Side ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
        const Side AB = __builtin_shufflevector(a, b, 2, 6, 3, 7), CD = __builtin_shufflevector(c, d, 2, 6, 3, 7);
        *(Side *) y[0] = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
        *(Side *) y[1] = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
        *(Side *) y[2] = __builtin_shufflevector(AB, CD, 0, 1, 4, 5);
        *(Side *) y[3] = __builtin_shufflevector(AB, CD, 2, 3, 6, 7);
    } else {
        for (int j = 0; j < SIDE; j += 2)
            for (int i = 0; i < SIDE; i += 2) {
                const Two a = *(const Two *) (x[j] + i), b = *(const Two *) (x[j + 1] + i);
                *(Two *) (y[i] + j) = __builtin_shufflevector(a, b, 0, 2);
                *(Two *) (y[i + 1] + j) = __builtin_shufflevector(a, b, 1, 3);
            }
    }
}

/* Of y's lines, which follow each other; where these are short, across them. */
static void OF_SIZE(copy_values)(T *y, const T *x, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t y_row,
                                 ptrdiff_t y_column, ptrdiff_t x_row, ptrdiff_t x_column) {
#define LINES(y_step, x_step)                                                                                         \
    for (ptrdiff_t i = 0; i < rows; i++, y += y_row, x += x_row)                                                      \
        for (ptrdiff_t j = 0; j < columns; j++)                                                                       \
            y[j * (y_step)] = x[j * (x_step)]
    if (columns < 8 && rows > columns)
        for (ptrdiff_t j = 0; j < columns; j++)
            for (ptrdiff_t i = 0; i < rows; i++)
                y[i * y_row + j * y_column] = x[i * x_row + j * x_column];
    else if (y_column != 1)
        LINES(y_column, x_column);
    else if (x_column == 2)
        LINES(1, 2);
    else if (x_column == -1)
        LINES(1, -1);
    else
        LINES(1, x_column);
#undef LINES
}

static void OF_SIZE(copy_block)(T *y, const T *x, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t y_row,
                                ptrdiff_t y_column, ptrdiff_t x_row, ptrdiff_t x_column) {
    const int across = x_row == 1 && y_column == 1;
    const ptrdiff_t tall = across ? rows / SIDE * SIDE : 0, wide = across ? columns / SIDE * SIDE : 0;
    for (ptrdiff_t j = 0; j < wide; j += SIDE)
        for (ptrdiff_t i = 0; i < tall; i += SIDE)
            OF_SIZE(copy_tile)((T *const[]){y + i * y_row + j, y + (i + 1) * y_row + j, y + (i + 2) * y_row + j,
                                            y + (i + 3) * y_row + j},
                               (const T *const[]){x + i + j * x_column, x + i + (j + 1) * x_column,
                                                  x + i + (j + 2) * x_column, x + i + (j + 3) * x_column});
    OF_SIZE(copy_values)(y + tall * y_row, x + tall * x_row, rows - tall, columns, y_row, y_column, x_row, x_column);
    OF_SIZE(copy_values)(y + wide * y_column, x + wide * x_column, tall, columns - wide, y_row, y_column, x_row,
                         x_column);
}

ALWAYS void OF_SIZE(turn_square)(T *y, const T *x, const ptrdiff_t *p, ptrdiff_t i, ptrdiff_t j, const int back) {
    if (back)
        OF_SIZE(copy_tile)((T *const[]){y + p[0] + i, y + p[1] + i, y + p[2] + i, y + p[3] + i},
                           (const T *const[]){x + i * MOST_LANES + j, x + (i + 1) * MOST_LANES + j,
                                              x + (i + 2) * MOST_LANES + j, x + (i + 3) * MOST_LANES + j});
    else
        OF_SIZE(copy_tile)((T *const[]){y + i * MOST_LANES + j, y + (i + 1) * MOST_LANES + j,
                                        y + (i + 2) * MOST_LANES + j, y + (i + 3) * MOST_LANES + j},
                           (const T *const[]){x + p[0] + i, x + p[1] + i, x + p[2] + i, x + p[3] + i});
}

/* Of runs of a constant length that follow each other: loops that the compiler turns into vectors. */
ALWAYS void OF_SIZE(turn_following)(T *restrict y, const T *restrict x, ptrdiff_t lanes, const int run, const int back) {
    for (ptrdiff_t j = 0; j < lanes; j++)
        for (ptrdiff_t i = 0; i < run; i++)
            if (back)
                y[j * run + i] = x[i * MOST_LANES + j];
            else
                y[i * MOST_LANES + j] = x[j * run + i];
}

ALWAYS void OF_SIZE(turn)(T *y, const T *x, const ptrdiff_t *places, ptrdiff_t lanes, ptrdiff_t run, const int back) {
    const ptrdiff_t wide = run < SIDE ? 0 : lanes / SIDE * SIDE, tall = run / SIDE * SIDE;
    const int follow = lanes > 1 && places[1] == run && places[lanes - 1] == (lanes - 1) * run;
    if (follow && run == 2) {
        OF_SIZE(turn_following)(y, x, lanes, 2, back);
        return;
    }
    if (follow && run == 3) {
        OF_SIZE(turn_following)(y, x, lanes, 3, back);
        return;
    }
    for (ptrdiff_t j = 0; j < wide; j += SIDE) {
        const ptrdiff_t *p = places + j;
        for (ptrdiff_t i = 0; i < tall; i += SIDE)
            OF_SIZE(turn_square)(y, x, p, i, j, back);
        if (tall < run)  /* the last ones, with some before */
            OF_SIZE(turn_square)(y, x, p, run - SIDE, j, back);
    }
    for (ptrdiff_t i = 0; i < run; i++)
        for (ptrdiff_t j = wide; j < lanes; j++)
            if (back)
                y[places[j] + i] = x[i * MOST_LANES + j];
            else
                y[i * MOST_LANES + j] = x[places[j] + i];
}

/* y (values, MOST_LANES) = the first `run` values from each of `places` on, or those = such an x if `back`. */
static void OF_SIZE(turn_run)(T *y, const T *x, const ptrdiff_t *places, ptrdiff_t lanes, ptrdiff_t run, int back) {
    if (back)
        OF_SIZE(turn)(y, x, places, lanes, run, 1);
    else
        OF_SIZE(turn)(y, x, places, lanes, run, 0);
}

static inline void OF_SIZE(repeat)(T *y, const T *x, ptrdiff_t count, ptrdiff_t width) {
    typedef T Some __attribute__((vector_size(16), aligned(sizeof(T)), may_alias));
    enum { SOME = 16 / sizeof(T) };
    while (count-- > 0) {
        const T value = x[count];
        T *to = y + count * width;
        if (width < SOME) {
            for (ptrdiff_t i = 0; i < width; i++)
                to[i] = value;
            continue;
        }
        for (ptrdiff_t i = 0; i < width - SOME; i += SOME)
            *(Some *) (to + i) = value - (Some){0};
        *(Some *) (to + width - SOME) = value - (Some){0};
    }
}

#endif
