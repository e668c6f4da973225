# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Output arrays whose memory is kept for the next one: most of a large call's time is page faults otherwise.

An output is an ordinary ndarray that owns its data. NumPy gives the data back to the allocator that the array names
(NEP 49) when it and all its views are gone, and not before. (`PyDataMem_SetHandler` would have NumPy ask for the data,
too. But it sets a context variable, which crashes Python 3.11 if a finalizer that comes in between sets one.) This
allocator keeps the block, up to a limit in all, the
longest unused going first, and hands it out again to an output of about the same size. Everything here runs with the
GIL, which is the pool's lock; a Python without it has a lock of its own, around what is done in plain C.

A block is a memory mapping of its own, so that giving it back makes the process smaller at once: the C library's heap
would keep it between blocks that live on. Its first 64 bytes are its header. Data is aligned to 64 bytes, and begins
there or half a page later, whichever is not just ahead of the input within a page: a CPU that compares addresses by
these bits alone has a load wait for what was stored there (Zen 1: half the speed).
"""

import operator
import os

from cpython.object cimport PyTypeObject
from cpython.pycapsule cimport PyCapsule_New
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memmove, memset

import numpy as np

cimport numpy as cnp

from cpunorm._gil cimport Lock, at_fork_in_child, forget, lock, unlock

cnp.import_array()

cdef extern from *:
    """
    #include <stdint.h>
    #include <sys/mman.h>
    #include <unistd.h>
    #define page_size() sysconf(_SC_PAGESIZE)
    #define HUGE_PAGE ((size_t) 2 << 20)

    /* `size` bytes, whole pages, from a huge page's start if there is one in them; NULL without room. */
    static void *block_new(size_t size) {
        size_t spare = size < HUGE_PAGE ? 0 : HUGE_PAGE, before;
        char *start = mmap(NULL, size + spare, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (start == MAP_FAILED)
            return NULL;
        if (spare) {
            before = -(uintptr_t) start % HUGE_PAGE;
            if (before)
                munmap(start, before);
            munmap(start + before + size, spare - before);
            start += before;
    #ifdef MADV_HUGEPAGE
            madvise(start, size, MADV_HUGEPAGE);
    #endif
        }
        return start;
    }
    #define block_free(block, size) munmap(block, size)

    #define NUMPYS_DOMAIN 389047  /* of tracemalloc */
    /* The array owns its data, which goes back to `handler`. */
    static void give(PyObject *array, PyObject *handler) {
        Py_INCREF(handler);
        ((PyArrayObject_fields *) array)->mem_handler = handler;
        PyArray_ENABLEFLAGS((PyArrayObject *) array, NPY_ARRAY_OWNDATA);
        PyTraceMalloc_Track(NUMPYS_DOMAIN, (uintptr_t) PyArray_DATA((PyArrayObject *) array),
                            (size_t) PyArray_NBYTES((PyArrayObject *) array));
    }
    """
    Py_ssize_t PY_SSIZE_T_MAX
    size_t page_size()
    void* block_new(size_t size)
    void block_free(void* block, size_t size)
    void give(object array, object handler)

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
    cnp.ndarray PyArray_NewFromDescr(
        PyTypeObject* subtype, cnp.PyArray_Descr* descr, int ndim, cnp.npy_intp* lengths, cnp.npy_intp* strides,
        void* data, int flags, void* prototype)
    object PyArray_NewLikeArray(cnp.ndarray prototype, int order, cnp.PyArray_Descr* descr, int subok)
    int NPY_KEEPORDER

cdef enum:
    HEADER = 64  # bytes of a block before its data ...
    COMPARED = 4096  # ... and half of these, maybe: the bytes by which a CPU compares addresses
    SLOTS = 64  # blocks that are kept at most

cdef struct Block:
    size_t size
    size_t spare  # what the output in it leaves of it: at most a quarter of what it asked for, and two pages

cdef size_t page = page_size()
cdef size_t pooled_from = 262144  # bytes; smaller outputs are in the C library's own free lists
cdef Lock pool  # of all below
cdef size_t most = 0  # bytes that may be kept
cdef size_t kept = 0  # in free blocks
cdef size_t spare = 0  # in the blocks of living outputs
cdef int count = 0
cdef Block* blocks[SLOTS]  # the free ones, the longest unused first
cdef uint64_t reused = 0, fresh = 0


cdef Block* take(int slot) noexcept:
    """The free block in this slot, which closes up."""
    global count, kept
    cdef Block* block = blocks[slot]
    count -= 1
    kept -= block.size
    memmove(&blocks[slot], &blocks[slot + 1], (count - slot) * sizeof(Block*))
    return block


cdef void shrink(size_t target, int slots) noexcept:
    """Give blocks back to the system until at most `target` bytes and `slots` blocks are kept."""
    cdef Block* block
    while count and (kept + spare > target or count > slots):
        block = take(0)
        block_free(block, block.size)


cdef bint shrink_to_nothing() noexcept:
    """Give all blocks back; whether there were any, so that an allocation that failed may be repeated."""
    cdef bint any_kept = count > 0
    shrink(0, 0)
    return any_kept


cdef bint release() noexcept:
    """`shrink_to_nothing`, for others."""
    lock(&pool)
    cdef bint any_kept = shrink_to_nothing()
    unlock(&pool)
    return any_kept


cdef void unlock_in_child() noexcept:
    forget(&pool)


if at_fork_in_child(unlock_in_child):
    raise MemoryError("cpunorm: no memory to register what a forked child does")


cdef Block* block_for(size_t size) noexcept:
    """A block with room for `size` bytes and not a quarter more, the one used last if there are several."""
    global reused, fresh, spare
    cdef size_t needed = (size + HEADER + COMPARED // 2 + page - 1) // page * page
    cdef int slot
    cdef Block* block
    for slot in range(count - 1, -1, -1):
        if needed <= blocks[slot].size <= needed + needed // 4:
            reused += 1
            block = take(slot)
            break
    else:
        block = <Block*> block_new(needed)
        if block == NULL and shrink_to_nothing():
            block = <Block*> block_new(needed)
        if block == NULL:
            return NULL
        fresh += 1
        block.size = needed
    block.spare = block.size - size
    spare += block.spare
    shrink(most, SLOTS)
    return block


cdef void keep(Block* block) noexcept:
    """Keep a free block for another output, at the expense of those unused for longest."""
    global count, kept, spare
    spare -= block.spare
    if block.size + spare > most:
        block_free(block, block.size)
        return
    shrink(most - block.size, SLOTS - 1)
    blocks[count] = block
    count += 1
    kept += block.size


cdef inline Block* block_of(void* data) noexcept:
    return <Block*> (<size_t> data // page * page)


cdef void* room_for(size_t size, const void* beside) noexcept:
    """Data of a block with room for `size` bytes, which are written while those at `beside` are read."""
    lock(&pool)
    cdef Block* block = block_for(size)
    unlock(&pool)
    if block == NULL:
        return NULL
    cdef char* data = <char*> block + HEADER
    return data if (<size_t> data - <size_t> beside) % COMPARED >= COMPARED // 2 else data + COMPARED // 2


# What NumPy calls

cdef void* pool_malloc(void* ctx, size_t size) noexcept:
    return room_for(size, NULL)


cdef void pool_free(void* ctx, void* data, size_t size) noexcept:
    if data == NULL:
        return
    lock(&pool)
    keep(block_of(data))
    unlock(&pool)


cdef void* pool_calloc(void* ctx, size_t number, size_t size) noexcept:
    cdef void* data = pool_malloc(ctx, number * size)
    if data != NULL:
        memset(data, 0, number * size)
    return data


cdef void* pool_realloc(void* ctx, void* data, size_t size) noexcept:
    """What `ndarray.resize` asks for."""
    cdef void* moved = pool_malloc(ctx, size)
    if moved != NULL and data != NULL:
        memcpy(moved, data, min(size, <size_t> block_of(data) + block_of(data).size - <size_t> data))
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
        try:
            return PyArray_NewLikeArray(prototype, NPY_KEEPORDER, NULL, 0)
        except MemoryError:
            if not release():
                raise
        return PyArray_NewLikeArray(prototype, NPY_KEEPORDER, NULL, 0)
    cdef void* data = room_for(cnp.PyArray_NBYTES(prototype), cnp.PyArray_DATA(prototype))
    if data == NULL:
        raise MemoryError(f"cpunorm: no memory for an output of {cnp.PyArray_NBYTES(prototype)} bytes")
    try:
        array = with_data(prototype, data)
    except BaseException:
        pool_free(NULL, data, 0)
        raise
    give(array, capsule)
    return array


cdef object with_data(object prototype, void* data):
    """An array like `prototype`, but dense, in this memory, which it does not own."""
    cdef cnp.npy_intp strides[64]
    cdef int axes[64]
    cdef int ndim = cnp.PyArray_NDIM(prototype), i, axis
    cdef cnp.npy_intp stride = cnp.PyArray_ITEMSIZE(prototype)
    for i in range(ndim):  # the outermost first
        axis = i
        while axis and abs(cnp.PyArray_STRIDE(prototype, axes[axis - 1])) < abs(cnp.PyArray_STRIDE(prototype, i)):
            axes[axis] = axes[axis - 1]
            axis -= 1
        axes[axis] = i
    for i in range(ndim - 1, -1, -1):
        strides[axes[i]] = stride
        stride *= cnp.PyArray_DIM(prototype, axes[i])
    cdef cnp.PyArray_Descr* descr = cnp.PyArray_DESCR(prototype)
    cdef bint in_c = cnp.PyArray_IS_C_CONTIGUOUS(prototype), in_f = cnp.PyArray_IS_F_CONTIGUOUS(prototype)
    Py_INCREF(<object> descr)  # the new array takes it over
    return PyArray_NewFromDescr(
        <PyTypeObject*> cnp.ndarray, descr, ndim, cnp.PyArray_DIMS(prototype), NULL if in_c or in_f else strides, data,
        cnp.NPY_ARRAY_WRITEABLE | (cnp.NPY_ARRAY_F_CONTIGUOUS if in_f and not in_c else 0), NULL)


cdef object new_array(int ndim, cnp.npy_intp* lengths, cnp.dtype dtype):
    """A new array in C order, its values undefined."""
    cdef size_t size = cnp.PyArray_MultiplyList(lengths, ndim) * dtype.itemsize
    cdef void* data = NULL
    if size >= pooled_from and most:
        data = pool_malloc(NULL, size)
        if data == NULL:
            raise MemoryError(f"cpunorm: no memory for an output of {size} bytes")
    Py_INCREF(dtype)  # the new array takes it over
    try:
        array = PyArray_NewFromDescr(
            <PyTypeObject*> cnp.ndarray, <cnp.PyArray_Descr*> dtype, ndim, lengths, NULL, data,
            cnp.NPY_ARRAY_WRITEABLE if data != NULL else 0, NULL)
    except BaseException:
        pool_free(NULL, data, 0)
        raise
    if data != NULL:
        give(array, capsule)
    return array


def empty_like(prototype not None, cnp.dtype dtype=None):
    """A new array with the shape and order of strides of `prototype`, of its dtype if None, its values undefined."""
    if dtype is None or dtype == prototype.dtype:
        return new_like(prototype)
    return made(np.empty_like, prototype, dtype, subok=False)


def made(make, *arguments, **options):
    """A new array of NumPy's: what `make` gives, without the memory that is kept if there is no other."""
    try:
        return make(*arguments, **options)
    except MemoryError:
        if not release():
            raise
    return make(*arguments, **options)


def strided(cnp.ndarray array not None, Py_ssize_t offset, tuple lengths not None, tuple strides not None):
    """The memory of `array` from `offset` bytes on, with other axes.

    `numpy.lib.stride_tricks.as_strided`, in a tenth of its 2 us.

    `_call` is the caller, and answers for the memory that the axes reach.
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
        <PyTypeObject*> cnp.ndarray, descr, ndim, shape, steps, <char*> cnp.PyArray_DATA(array) + offset,
        cnp.PyArray_FLAGS(array) & cnp.NPY_ARRAY_WRITEABLE, NULL)
    cnp.set_array_base(view, array)
    return view


def set_cache_limit(limit):
    """Keep at most so many bytes of memory for outputs to come; 0 keeps none.

    The limit is on all that is held beyond living outputs: free blocks, and what each output leaves of its own, at
    most a quarter of its size and two pages. Outputs of less than 256 KiB are left to NumPy.

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
    lock(&pool)
    most = number
    shrink(most, SLOTS)
    unlock(&pool)


def get_cache_limit():
    """How many bytes of memory are kept at most for outputs to come."""
    return most


def empty_cache():
    """Give the memory that is kept for outputs to come back to the system, at once.

    What a living output leaves of its block (see `set_cache_limit`) goes with the output.
    """
    release()


def statistics():
    """Bytes and blocks kept, bytes spare beside living outputs, how many outputs took a kept block or made one."""
    lock(&pool)
    try:
        return {"bytes": kept, "spare": spare, "blocks": count, "reused": reused, "made": fresh}
    finally:
        unlock(&pool)


def default_limit():
    """The limit of a process that sets none."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**32
    return min(2**29, memory // 16)
