# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Output arrays whose memory is kept for the next one: most of a large call's time is page faults otherwise.

An output is an ordinary ndarray that owns its data. NumPy gives the data back to the allocator that made it (NEP 49)
when the array and all its views are gone, and not before. This allocator keeps the block, up to a limit in all, the
longest unused going first, and hands it out again to an output of about the same size. Blocks are aligned to 64 bytes
and, when large, advised to be huge pages. Everything here runs with the GIL, which is the pool's lock.
"""

import operator
import os

from cpython.object cimport PyTypeObject
from cpython.pycapsule cimport PyCapsule_New
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memmove, memset

cimport numpy as cnp

cnp.import_array()

cdef extern from *:
    """
    #if defined(_WIN32)
    #include <malloc.h>
    #define block_new(align, size) _aligned_malloc(size, align)
    #define block_free(block) _aligned_free(block)
    #else
    #include <stdlib.h>
    #include <sys/mman.h>
    static void *block_new(size_t align, size_t size) {
        void *block;
        if (posix_memalign(&block, align, size))
            return NULL;
    #ifdef MADV_HUGEPAGE
        if (size >= 2u << 20)
            madvise(block, size, MADV_HUGEPAGE);
    #endif
        return block;
    }
    #define block_free(block) free(block)
    #endif
    """
    Py_ssize_t PY_SSIZE_T_MAX
    void* block_new(size_t align, size_t size)
    void block_free(void* block)

cdef extern from "numpy/arrayobject.h":
    ctypedef struct PyDataMemAllocator:
        void* ctx
        void* (*malloc)(void* ctx, size_t size)
        void* (*calloc)(void* ctx, size_t count, size_t size)
        void* (*realloc)(void* ctx, void* data, size_t size)
        void (*free)(void* ctx, void* data, size_t size)
    ctypedef struct PyDataMem_Handler:
        char name[127]
        unsigned char version
        PyDataMemAllocator allocator
    object PyDataMem_SetHandler(object handler)
    cnp.ndarray PyArray_NewFromDescr(
        PyTypeObject* subtype, cnp.PyArray_Descr* descr, int ndim, cnp.npy_intp* lengths, cnp.npy_intp* strides,
        void* data, int flags, void* prototype)
    object PyArray_NewLikeArray(cnp.ndarray prototype, int order, cnp.PyArray_Descr* descr, int subok)
    int NPY_KEEPORDER

cdef enum:
    HEADER = 64  # bytes before the data, which hold the size of the block, and keep the data aligned
    SLOTS = 64  # blocks that are kept at most
    PAGE = 4096
    HUGE_PAGE = 2097152

cdef size_t pooled_from = 262144  # bytes; smaller outputs are in the C library's own free lists
cdef size_t most = 0  # bytes that may be kept
cdef size_t kept = 0
cdef int count = 0
cdef void* blocks[SLOTS]  # the free ones, the longest unused first
cdef uint64_t reused = 0, made = 0


cdef inline size_t size_of(void* block) noexcept:
    return (<size_t*> block)[0]


cdef void* take(int slot) noexcept:
    """The free block in this slot, which closes up."""
    global count, kept
    cdef void* block = blocks[slot]
    count -= 1
    kept -= size_of(block)
    memmove(&blocks[slot], &blocks[slot + 1], (count - slot) * sizeof(void*))
    return block


cdef void* pool_malloc(void* ctx, size_t size) noexcept:
    """A block with room for `size` bytes and not a quarter more, the one used last if there are several."""
    global reused, made
    cdef size_t needed = size + HEADER
    cdef int slot
    cdef void* block
    for slot in range(count - 1, -1, -1):
        if needed <= size_of(blocks[slot]) <= needed + needed // 4:
            reused += 1
            return <char*> take(slot) + HEADER
    needed = (needed + PAGE - 1) // PAGE * PAGE
    block = block_new(HUGE_PAGE if needed >= HUGE_PAGE else PAGE, needed)
    if block == NULL:
        return NULL
    made += 1
    (<size_t*> block)[0] = needed
    return <char*> block + HEADER


cdef void shrink(size_t target, int slots) noexcept:
    """Give blocks back to the system until at most `target` bytes and `slots` blocks are kept."""
    while count and (kept > target or count > slots):
        block_free(take(0))


cdef void pool_free(void* ctx, void* data, size_t size) noexcept:
    """Keep the block for another output, at the expense of those unused for longest."""
    global count, kept
    if data == NULL:
        return
    cdef void* block = <char*> data - HEADER
    if size_of(block) > most:
        block_free(block)
        return
    shrink(most - size_of(block), SLOTS - 1)
    blocks[count] = block
    count += 1
    kept += size_of(block)


cdef void* pool_calloc(void* ctx, size_t number, size_t size) noexcept:
    cdef void* data = pool_malloc(ctx, number * size)
    if data != NULL:
        memset(data, 0, number * size)
    return data


cdef void* pool_realloc(void* ctx, void* data, size_t size) noexcept:
    """What `ndarray.resize` asks for."""
    cdef void* moved = pool_malloc(ctx, size)
    if moved != NULL and data != NULL:
        memcpy(moved, data, min(size, size_of(<char*> data - HEADER) - HEADER))
        pool_free(ctx, data, 0)
    return moved


cdef PyDataMem_Handler handler
memcpy(handler.name, b"cpunorm", 8)
handler.version = 1
handler.allocator = PyDataMemAllocator(NULL, pool_malloc, pool_calloc, pool_realloc, pool_free)
cdef object capsule = PyCapsule_New(&handler, "mem_handler", NULL)


cdef object new_like(object prototype):
    """A new array with the shape, dtype and order of strides of `prototype`, its values undefined."""
    if <size_t> cnp.PyArray_NBYTES(prototype) < pooled_from or most == 0:
        return PyArray_NewLikeArray(prototype, NPY_KEEPORDER, NULL, 0)
    before = PyDataMem_SetHandler(capsule)
    try:
        return PyArray_NewLikeArray(prototype, NPY_KEEPORDER, NULL, 0)
    finally:
        PyDataMem_SetHandler(before)


def empty_like(prototype not None):
    """A new array with the shape, dtype and order of strides of `prototype`, its values undefined."""
    return new_like(prototype)


def strided(cnp.ndarray array not None, tuple lengths not None, tuple strides not None):
    """The memory of `array` with other axes: `numpy.lib.stride_tricks.as_strided`, in a tenth of its 2 us.

    `_layout` is the caller, and answers for the memory that the axes reach.
    """
    cdef cnp.npy_intp shape[8]
    cdef cnp.npy_intp steps[8]
    cdef int axis, ndim = <int> len(lengths)
    if ndim > 8 or len(strides) != ndim:
        raise ValueError(f"lengths and strides must be as many, and at most 8, got {lengths} and {strides}")
    for axis in range(ndim):
        shape[axis] = lengths[axis]
        steps[axis] = strides[axis]
    cdef cnp.PyArray_Descr* descr = cnp.PyArray_DESCR(array)
    Py_INCREF(<object> descr)  # the new array takes it over
    view = PyArray_NewFromDescr(
        <PyTypeObject*> cnp.ndarray, descr, ndim, shape, steps, cnp.PyArray_DATA(array),
        cnp.PyArray_FLAGS(array) & cnp.NPY_ARRAY_WRITEABLE, NULL)
    cnp.set_array_base(view, array)
    return view


def set_cache_limit(limit):
    """Keep at most so many bytes of memory for outputs to come; 0 keeps none.

    At first it is the environment variable ``CPUNORM_CACHE_BYTES``, else 512 MiB or a sixteenth of the machine's
    memory, whichever is less.

    Raises
    ------
    ValueError
        Negative, or more than this machine can address.
    TypeError
        Not an int.

    Examples
    --------
    >>> import cpunorm
    >>> cpunorm.set_cache_limit(2**28)
    >>> cpunorm.get_cache_limit()
    268435456
    """
    global most
    try:
        number = operator.index(limit)
    except TypeError:
        raise TypeError(f"the cache limit must be an int, got {limit!r}") from None
    if not 0 <= number <= PY_SSIZE_T_MAX:
        raise ValueError(f"the cache limit must be from 0 to {PY_SSIZE_T_MAX} bytes, got {limit!r}")
    most = number
    shrink(most, SLOTS)


def get_cache_limit():
    """How many bytes of memory are kept at most for outputs to come."""
    return most


def empty_cache():
    """Give the memory that is kept for outputs to come back to the system."""
    shrink(0, 0)


def statistics():
    """Bytes and blocks kept, and how many large outputs took a kept block or made one."""
    return {"bytes": kept, "blocks": count, "reused": reused, "made": made}


def _initial_limit():
    given = os.environ.get("CPUNORM_CACHE_BYTES")
    if given is None:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**32
        return min(2**29, memory // 16)
    try:
        return int(given)
    except ValueError:
        raise TypeError(f"CPUNORM_CACHE_BYTES must be an int, got {given!r}") from None


set_cache_limit(_initial_limit())
