# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The limit: a parallel copy of the same bytes, by the C library or with stores that go past the caches."""

from cython.parallel cimport prange
from libc.string cimport memcpy

cimport numpy as cnp

cdef extern from *:
    """
    #ifdef __SSE2__
    #include <emmintrin.h>
    /* Both ends are multiples of 16 bytes, y is aligned to them. */
    static void copy_streaming(char *y, const char *x, Py_ssize_t size) {
        for (Py_ssize_t i = 0; i < size; i += 16)
            _mm_stream_si128((__m128i *)(y + i), _mm_loadu_si128((const __m128i *)(x + i)));
        _mm_sfence();
    }
    #define CAN_STREAM 1
    #else
    #define copy_streaming memcpy
    #define CAN_STREAM 0
    #endif
    """
    void copy_streaming(char* y, const char* x, Py_ssize_t size) nogil
    bint CAN_STREAM

can_stream = CAN_STREAM

cdef enum:
    LINE = 64


def copy(cnp.ndarray y, cnp.ndarray x, int threads, bint streaming):
    """Copy `x` to `y` on `threads` threads, without the GIL.

    Parameters
    ----------
    y, x : ndarray
        Contiguous, of the same size in bytes.
    threads : int
    streaming : bool
        Past the caches; needs `can_stream`.

    Raises
    ------
    ValueError
        Arrays or instructions that are not like that.
    """
    cdef:
        char* to = <char*> cnp.PyArray_DATA(y)
        const char* source = <const char*> cnp.PyArray_DATA(x)
        Py_ssize_t size = cnp.PyArray_NBYTES(x), part, start, stop, i
        Py_ssize_t head = -<Py_ssize_t> to & (LINE - 1)  # so that every part begins with a cache line of y
    if not (cnp.PyArray_ISONESEGMENT(y) and cnp.PyArray_ISONESEGMENT(x) and cnp.PyArray_NBYTES(y) == size):
        raise ValueError("y and x must be contiguous and of the same size")
    if streaming and not CAN_STREAM:
        raise ValueError("there are no streaming stores on this architecture")
    head = min(head, size)
    part = ((size - head) // threads + LINE - 1) // LINE * LINE
    memcpy(to, source, head)
    for i in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        start = min(size, head + i * part)
        stop = size if i == threads - 1 else min(size, start + part)
        if streaming:
            copy_streaming(to + start, source + start, (stop - start) // 16 * 16)
            start = start + (stop - start) // 16 * 16
        memcpy(to + start, source + start, stop - start)
