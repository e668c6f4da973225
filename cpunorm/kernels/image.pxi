# Images: how pixels are walked, cut and shared by threads. Included by _kernels.pyx; `kernels/image.h` has the formula.

cdef extern from "kernels/image.h":
    enum: BYTE_SHUFFLES, TWO_PART
    ctypedef struct Channel:
        pass
    ctypedef struct Affine:
        pass
    ctypedef struct Shuffle:
        pass
    ctypedef struct ImageLines:
        void (*line)(
            const char* x, char* y, Py_ssize_t n, const Affine* steps, int period, int streamed) noexcept nogil
        void (*pixels)(
            const char* x, char* y, Py_ssize_t pitch, Py_ssize_t n, int channels, const Affine* steps,
            const int* places, const Shuffle* shuffle, int streamed) noexcept nogil
    const ImageLines* image_lines(int x_value, int way, int y_value) noexcept nogil
    int size_of_value(int value) noexcept nogil
    int image_channels(
        int x_value, int channels, double scale, const double* mean, const double* std,
        Channel* coefficients) noexcept nogil
    void image_shuffle(int channels, Shuffle* shuffle) noexcept nogil
    int image_steps(int channels, bint packed, int way, const Channel* coefficients, Affine* steps) noexcept nogil
    void split(
        int size, const char* x, Py_ssize_t step, Py_ssize_t n, int channels, const Py_ssize_t* offsets,
        const int* places, char* y, Py_ssize_t pitch) noexcept nogil
    void pack(
        int size, const char* x, Py_ssize_t step, Py_ssize_t n, int channels, const Py_ssize_t* offsets, bint adjacent,
        char* y) noexcept nogil

cdef enum:
    GRANULE = 64  # pixels that are not cut: y stays aligned where it was
    CHUNK = 16384  # bytes of pixels that are brought in order at once: what stays in L1

cdef struct Walk:
    Image image  # whose rows are one where they follow each other
    Py_ssize_t pieces  # of a row, of GRANULE pixels
    int x_size, y_size
    int way  # of the formula
    bint packed, streamed  # y is HWC; it is stored around the caches
    int period
    Affine steps[MOST_CHANNELS]
    Shuffle shuffle
    const ImageLines* lines


cdef int[4] IN_ORDER = [0, 1, 2, 3]


cdef void walk_pixels(const Walk* walk, const Source* source, const char* x, char* y, Py_ssize_t n) noexcept nogil:
    """y from n pixels of x, which lie `source.pixel` values apart in x."""
    cdef char[CHUNK + 64] chunk
    cdef Py_ssize_t[MOST_CHANNELS] offsets
    cdef int[MOST_CHANNELS] places
    cdef const Image* image = &walk.image
    cdef int channels = image.channels, k
    cdef Py_ssize_t plane = image.y_channel * walk.y_size, some, lowest
    cdef bint adjacent = labs(source.channel) == 1, same = source.channel == 1
    cdef bint by_pixels = not walk.packed and 2 <= channels <= 4 and (BYTE_SHUFFLES or walk.way != TWO_PART)
    lowest = 1 - channels if source.channel == -1 else 0
    for k in range(channels):
        offsets[k] = image.order[k] * source.channel
        same = same and offsets[k] == k
        if adjacent:
            places[offsets[k] - lowest] = k
    if walk.packed and same and source.pixel == channels:
        walk.lines.line(x, y, n * channels, walk.steps, walk.period, walk.streamed)
    elif source.pixel == 1 and not walk.packed:
        for k in range(channels):
            walk.lines.line(x + offsets[k] * walk.x_size, y + k * plane, n, walk.steps + k, 1, walk.streamed)
    elif by_pixels and adjacent and source.pixel == channels:
        walk.lines.pixels(
            x + lowest * walk.x_size, y, plane, n, channels, walk.steps, places, &walk.shuffle, walk.streamed)
    else:
        some = CHUNK // (channels * walk.x_size) // GRANULE * GRANULE
        while n > 0:
            some = min(some, n)
            if walk.packed or channels == 1 or by_pixels:
                pack(walk.x_size, x, source.pixel, some, channels, offsets, adjacent, chunk)
            else:
                split(
                    walk.x_size, x, source.pixel, some, channels, offsets, places if adjacent else NULL, chunk, some)
            if walk.packed or channels == 1:
                walk.lines.line(chunk, y, some * channels, walk.steps, walk.period, walk.streamed)
            elif by_pixels:
                walk.lines.pixels(
                    chunk, y, plane, some, channels, walk.steps, IN_ORDER, &walk.shuffle, walk.streamed)
            else:
                for k in range(channels):
                    walk.lines.line(
                        chunk + k * some * walk.x_size, y + k * plane, some, walk.steps + k, 1, walk.streamed)
            x += some * source.pixel * walk.x_size
            y += some * (channels if walk.packed else 1) * walk.y_size
            n -= some


cdef void work_image(void* context, int thread, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    cdef const Walk* walk = <const Walk*> context
    cdef const Image* image = &walk.image
    cdef const Source* source
    cdef Py_ssize_t line, end, sample, row, first, last
    while start < stop:
        line = start // walk.pieces
        end = min(stop, (line + 1) * walk.pieces)
        sample, row = line // image.rows, line % image.rows
        source = image.sources + sample
        first, last = (start - line * walk.pieces) * GRANULE, (end - line * walk.pieces) * GRANULE
        walk_pixels(
            walk, source, source.data + (row * source.row + first * source.pixel) * walk.x_size,
            image.y + (sample * image.y_sample + row * image.y_row
                       + first * (image.channels if walk.packed else 1)) * walk.y_size,
            min(last, image.columns) - first)
        start = end
    if walk.streamed:
        end_stream()


cdef bint rows_follow(const Image* image, bint packed) noexcept nogil:
    """Whether each row starts where the one before it ends, in all of x and y."""
    cdef Py_ssize_t sample
    for sample in range(image.samples):
        if image.sources[sample].row != image.columns * image.sources[sample].pixel:
            return False
    return image.y_row == image.columns * (image.channels if packed else 1)


cdef void normalize_image(const Image* image, int threads) noexcept nogil:
    cdef Walk walk
    cdef Channel[MOST_CHANNELS] coefficients
    cdef Py_ssize_t values = image.samples * image.rows * image.columns * image.channels
    walk.image = image[0]
    walk.packed = image.y_channel == 0 and image.channels > 1
    if rows_follow(image, walk.packed):
        walk.image.columns, walk.image.rows = image.rows * image.columns, 1
    walk.x_size, walk.y_size = size_of_value(image.x_value), size_of_value(image.y_value)
    walk.way = image_channels(image.x_value, image.channels, image.scale, image.mean, image.std, coefficients)
    walk.period = image_steps(image.channels, walk.packed, walk.way, coefficients, walk.steps)
    walk.lines = image_lines(image.x_value, walk.way, image.y_value)
    image_shuffle(image.channels, &walk.shuffle)
    walk.streamed = streaming_pays(values * (walk.x_size + walk.y_size), threads, False)
    walk.pieces = (walk.image.columns + GRANULE - 1) // GRANULE
    share(work_image, &walk, image.samples * walk.image.rows * walk.pieces, threads)
