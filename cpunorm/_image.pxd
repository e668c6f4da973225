"""The normalisation of images as a value: what the kernel of every ISA level is given.

y = (x * scale - mean) / std in float64, rounded once, for every pixel of every sample; `kernels/image.h` says how.
"""

cdef enum:
    MOST_CHANNELS = 16

cdef enum Value:  # types of x and y
    UINT8, UINT16, FLOAT16, FLOAT32, BFLOAT16

cdef struct Source:
    # A sample of x, whose strides may differ from the others': in elements.
    const char* data
    Py_ssize_t row, pixel, channel

cdef struct Image:
    Py_ssize_t samples, rows, columns  # lengths, all at least 1
    int channels  # at most MOST_CHANNELS
    const Source* sources  # of each sample
    char* y
    Py_ssize_t y_sample, y_row, y_channel  # strides in elements; y_channel is 0 where pixels lie packed, HWC
    int x_value, y_value
    const int* order  # of each channel of y: that of x
    double scale
    const double* mean  # of each channel of y
    const double* std

ctypedef void (*image_kernel)(const Image* image, int threads) noexcept nogil
