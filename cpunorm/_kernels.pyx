# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The kernel set in Cython (`_norm.pxd` says what a kernel set promises to its callers).

Built once per ISA level: `_kernels_v3.pyx` and `_kernels_v4.pyx` include this file and are compiled with other flags.
Here is decided how an array is walked, cut, merged and shared by threads; what is done along one line of values stands
in `kernels/lines.h`, once.

Words
-----
domain: the values that share their moments.  segment: values of a domain that follow each other in memory order.  part:
what one thread takes of a domain that several share.  block: what is summed before it is merged in float64.  line: what
one call of `lines.h` walks.  rows: lines lie inside domains.  columns: lines run across domains.  lanes: domains so
short that each takes a lane.  strip: columns that one thread takes.  tile: columns whose sums or coefficients stay in
registers.

Numerics
--------
In a block, d = x - k is summed in lanes of the input's type: s = sum d, q = sum d^2; then mean = k + s/n and
M2 = q - s^2/n, and blocks are merged in float64:

    mean = mean_a + (mean_b - mean_a) n_b/n,    M2 = M2_a + M2_b + (mean_b - mean_a)^2 n_a n_b/n

(Welford 1962; Chan, Golub and LeVeque 1983).  The shift k is the mean of the block's first values, or of earlier ones.
If it turns out to be badly placed, the block is summed once more about its mean: so mu = |mean - k| / sigma, with
sigma^2 = M2/n, is at most 1/2 in rows and 1/sqrt(2) in columns, whatever the data.  (Where the mean found so is off
by a part of sigma itself, sigma is a few units in the last place of x, and sums of such d are exact.)  What left the
range of float32 is done again in float64; of float64, scaled.

A lane adds up CHAIN = 8 values; that goes into a sum of 4 such; then rows add 4 vectors pairwise and lanes in halves,
columns the two halves of a block.  So each d goes through c roundings, at most 14 in rows and 11 in columns; with
u = 2^-24, to first order, y = -1 (no y of more, in proportion, and no smaller one) moves by at most

    u ((1 + mu) mean((c + 1) |d|) / sigma + mean((c + 2) d^2) / (2 sigma^2) + 4)

for the mean and, through s^2/n, for M2; for q; for d, scale and the result.  Whatever the d, and whichever way the
roundings go, this is below 2e-6: `tests/test_accuracy.py` computes it.  What a search there finds is less than half.

The mean is applied in two parts, y = (x - high) scale + (bias - low scale), so that a large mean costs no digits.  That
and the shift die by reassociation: never build this with -ffast-math or -fassociative-math.

How a domain is cut depends on lengths and on the order of axes in memory alone: what isn't contiguous is packed, and
summed as if it were.  Parts are merged in a fixed tree.  So the bits depend neither on strides nor on threads.

Memory
------
What is past the caches costs most, so x is read again while it is still in cache (backwards, domain by domain), its
lines are fetched a page ahead, and y, where x and y don't fit the last-level cache, is stored around it.  Domains in
short segments are taken several at a time, those whose segments share a page: one by one they would read every page
many times, each time a part that hardware doesn't see coming.
"""

from cython.parallel cimport parallel
from cpython.pycapsule cimport PyCapsule_New
from libc.math cimport INFINITY, NAN, rint
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, labs, malloc
from libc.string cimport memcpy, memset

from cpunorm._image cimport MOST_CHANNELS, Image, Source
from cpunorm._norm cimport (
    ABOUT_ZERO, COLUMNS_WAY, FLOAT64, GIVEN, Axis, Copy, KernelSet, LANES_WAY, Norm, Operand, Plan, RELU, ROWS_WAY,
    SUM_WAY, Way)
from cpunorm._reduction cimport F32, F64, RECORD, U8, U64, Reduction, Sliding, Span, Standardization, Step

cdef extern from *:  # an array that begins with a line of the cache: a vector that lies in two is read twice
    ctypedef double Aligned "double __attribute__((aligned(64)))"

cdef extern from "kernels/lines.h":
    enum:
        ALONE_BYTES, MOST_LANES, MOST_BLOCK, MOST_TILE, ROWS, STEPS, TOGETHER, RUN_BYTES, TILE_BYTES, AHEAD
        VECTOR_BYTES
    ctypedef struct Moments:
        double count, mean, m2
    ctypedef struct Rule:
        double tiny
        bint about_zero
    ctypedef struct Traffic:
        Py_ssize_t x_ahead, y_ahead
        bint streamed, added
        int activation
        Py_ssize_t residual
    ctypedef struct Lines:
        int size, computed, width, lanes, block
        Moments (*block_moments)(
            const void* x, Py_ssize_t n, Py_ssize_t rows, Py_ssize_t pitch, bint far, Rule rule, bint estimate,
            double* shift) noexcept nogil
        void (*row_moments)(
            const void* x, Py_ssize_t n, int rows, Py_ssize_t pitch, bint far, Rule rule, Moments* m) noexcept nogil
        void (*column_moments)(
            const void* x, Py_ssize_t pitch, int lines, Py_ssize_t columns, bint far, Rule rule, double count,
            double* mean, double* m2) noexcept nogil
        void (*channel_coefficients)(
            Py_ssize_t n, const double* mean, const double* var, double eps, const void* weight, const void* bias,
            void* high, void* scale, void* shift) noexcept nogil
        void (*apply_constant)(
            const void* x, void* y, Py_ssize_t n, Py_ssize_t rows, Py_ssize_t x_pitch, Py_ssize_t y_pitch,
            const void* high, const void* scale, const void* shift, int step, const Traffic* t) noexcept nogil
        void (*apply_along)(
            const void* x, void* y, Py_ssize_t n, Py_ssize_t rows, Py_ssize_t x_pitch, Py_ssize_t y_pitch,
            const void* high, const void* scale, const void* shift, int step, const void* weight, const void* bias,
            const Traffic* t) noexcept nogil
        void (*apply_columns)(
            const void* x, void* y, Py_ssize_t n, Py_ssize_t rows, Py_ssize_t x_pitch, Py_ssize_t y_pitch,
            const void* high, const void* scale, const void* shift, const Traffic* t) noexcept nogil
        void (*apply_columns_along)(
            const void* x, void* y, Py_ssize_t n, Py_ssize_t rows, Py_ssize_t x_pitch, Py_ssize_t y_pitch,
            const void* high, const void* scale, const void* shift, const void* weight, const void* bias,
            Py_ssize_t matrix, const Traffic* t) noexcept nogil
        void (*widen)(const void* x, void* y, Py_ssize_t n) noexcept nogil
        void (*narrow)(const void* x, void* y, Py_ssize_t n, bint streamed) noexcept nogil
        void (*add)(
            const void* x, const void* addend, void* total, void* sum, Py_ssize_t n, const Traffic* t) noexcept nogil
    const Lines** lines_of
    ctypedef struct Next:
        pass
    void activate_float(
        int activation, const float* x, float* y, Py_ssize_t n, bint streamed, Next next) noexcept nogil
    void activate_double(
        int activation, const double* x, double* y, Py_ssize_t n, bint streamed, Next next) noexcept nogil
    void merge_columns_of(
        const double* mean, const double* m2, Py_ssize_t n, double lines, double* joint_mean, double* joint_m2
    ) noexcept nogil
    void fetch_bytes(const char* p, Py_ssize_t bytes, bint write) noexcept nogil
    void end_stream() noexcept nogil
    Py_ssize_t cache_bytes(unsigned level) noexcept nogil
    bint streaming_pays(Py_ssize_t bytes, int threads, bint again) noexcept nogil
    bint foresees, follows
    Py_ssize_t last_level
    bint hardware_foresees() noexcept nogil
    bint hardware_follows() noexcept nogil

cdef extern from "kernels/copy.h":
    void copy_block(
        char* y, const char* x, int size, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t y_row, Py_ssize_t y_column,
        Py_ssize_t x_row, Py_ssize_t x_column) noexcept nogil
    void copy_runs(
        char* y, const char* x, Py_ssize_t runs, Py_ssize_t bytes, Py_ssize_t y_pitch, Py_ssize_t x_pitch
    ) noexcept nogil
    void turn_run(
        char* y, const char* x, int size, const Py_ssize_t* places, Py_ssize_t lanes, Py_ssize_t run, bint back
    ) noexcept nogil
    void repeat(char* y, const char* x, Py_ssize_t count, Py_ssize_t width, int size) noexcept nogil

cdef extern from "kernels/team.h":
    ctypedef struct Team:
        pass
    void start_team(Team* team) noexcept nogil
    int join_team(Team* team) noexcept nogil
    int team_size() noexcept nogil
    void leave_team(Team* team) noexcept nogil

cdef enum:
    PART = 65536  # values of a part of rows
    COLUMNS_PART = 262144  # the same of columns, each of which is merged by itself
    ROWS_APART = 512  # lines of a part of columns that are rows: their number may not show in the bits of one
    ALIGNING_ROWS = 64  # of a thread, from which on weights that lie badly are copied
    ALIGNING_VALUES = 4095  # beyond which lines that follow each other begin where y is aligned
    PIECE = 8192  # values of the smallest piece of a long line that is worth a thread's while
    VALUES = 256  # that are rows of their own and normalised at once
    LANE_BYTES = 192  # of a row that takes a lane, as computed, at most; of one in one piece ALONE_BYTES
    SHORT_RUN = 16  # values below which runs with given statistics are columns; or below NARROW_RUN and FOLDED a sample
    ALONG_RUN = 256  # values below which runs whose weights run along them are packed to be applied: each is a call
    LANE_VALUES = 64  # the same of domains that lie scattered in short samples
    SHORT_SAMPLE = 256  # positions of a sample up to which ...
    FEW_CHANNELS = 3  # ... so many channels inside positions are rows, packed: columns are made ready in a microsecond
    FEW_LINES = 32  # positions of a sample up to which groups whose channels fill a step are rows in channels_last, too
    # (half as many of half types, whose tails take longer)
    FEW_ROWS = 15  # short rows of a sample that are turned into lanes though they lie across each other, as columns do:
    FEW_POSITIONS = 8  # if they are of so many values
    FEW_LONGER_ROWS = 8  # so many if they are of more
    TURNED_RUN = 4  # values of a run that are turned by tiles of so many
    FEW_GROUPS = 16  # of a sample below which lanes are filled one by one, however samples lie
    COLUMN_RUN = 32  # values of a segment below which those of all channels are columns, for moments ...
    NARROW_RUN = 64  # ... and for an apply alone
    FOLDED = 512  # columns, if lines of few channels can be walked as one
    STEP_BYTES = 64  # of a line of the cache, and what stores around the caches are aligned to, at every level
    PAGE = 4096  # bytes, as small as it may be
    STRIP_BYTES = 262144  # of a strip: what stays in L2
    NARROW = 256  # columns of the narrowest strip
    TALL_STRIP = 512  # lines of a strip above which all columns are read together
    FAR_BYTES = 1048576  # of x and y above which lines are fetched ahead; with several threads, half of L2 of each
    LONG_BYTES = 2048  # of a long run: `see` fetches and streams it otherwise than short ones
    NEAR_BYTES = 12288  # of rows whose moments are taken together: what stays in L1, with y
    FAR_NEAR_BYTES = 8192  # the same past L2 ...
    STREAMED_BYTES = 4096  # ... and where y is stored around the caches

cdef Py_ssize_t HALF_L2 = cache_bytes(2) // 2
last_level = cache_bytes(3)
foresees, follows = hardware_foresees(), hardware_follows()
cdef double HIDING = 1e-36  # eps that hides what underflow did to a variance
cdef double LEAST_VAR = 1e-280, MOST_VAR = 1.7e308  # where squares of float64 keep their digits
cdef double[4] TINY = [1e-36, 0.0, 1e-36, 1e-36]  # mean squares below this have lost digits to underflow

include "kernels/walk.pxi"
include "kernels/moments.pxi"
include "kernels/share.pxi"
include "kernels/rows.pxi"
include "kernels/columns.pxi"
include "kernels/lanes.pxi"
include "kernels/sum.pxi"
include "kernels/forward.pxi"
include "kernels/copy.pxi"
include "kernels/image.pxi"
include "kernels/statistics.pxi"
include "kernels/standardize.pxi"

cdef KernelSet kernel_set
kernel_set.forward, kernel_set.explain = &forward, &explain
kernel_set.copy = &copy_array
kernel_set.moments = &reduce_moments
kernel_set.standardize = &standardize
kernel_set.slide = &slide
KERNEL_SET = PyCapsule_New(&kernel_set, "cpunorm.KernelSet", NULL)
ACTIVATE = <Py_ssize_t> &activate
IMAGE_KERNEL = PyCapsule_New(<void*> &normalize_image, "cpunorm.image_kernel", NULL)
