# cython: language_level=3, boundscheck=False, wraparound=False
"""LayerNorm inside an extension of one's own: rows are gathered from a table of embeddings and normalised, no GIL."""

cimport cpunorm
from libc.string cimport memcpy, memset

cpunorm.import_cpunorm()


def embed(const int[::1] ids, const float[:, ::1] table, const float[::1] weight, const float[::1] bias,
          float[:, ::1] out, double eps=1e-5, int threads=1):
    """out[i] = layer_norm(table[ids[i]]) * weight + bias.

    Parameters
    ----------
    ids : int32 buffer, (rows,)
    table : float32 buffer, (entries, width)
    weight, bias : float32 buffers, (width,)
    out : float32 buffer, (rows, width)
        Written.
    """
    cdef Py_ssize_t rows = ids.shape[0], width = table.shape[1], i
    cdef cpunorm.Norm norm
    cdef int failed
    if out.shape[0] != rows or out.shape[1] != width or weight.shape[0] != width or bias.shape[0] != width:
        raise ValueError("shapes don't go together")
    for i in range(rows):
        if not 0 <= ids[i] < table.shape[0]:
            raise IndexError(f"there is no entry {ids[i]}")
    if rows == 0 or width == 0:
        return
    memset(&norm, 0, sizeof(norm))
    norm.samples = norm.outer = norm.middle = 1
    norm.channels = norm.groups = rows  # each row is a domain
    norm.inner = width
    norm.x.data = &out[0, 0]
    norm.x.channel, norm.x.inner = width, 1
    norm.y = norm.x  # in place
    norm.element, norm.statistic = cpunorm.FLOAT32, cpunorm.CENTRED
    norm.along = True
    norm.weight, norm.bias = &weight[0], &bias[0]
    norm.eps = eps
    with nogil:
        for i in range(rows):
            memcpy(&out[i, 0], &table[ids[i], 0], width * sizeof(float))
        failed = cpunorm.forward(&norm, threads)
    if failed:
        raise MemoryError
