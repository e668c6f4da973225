/* BatchNorm inside an extension of one's own: images (N, C, positions) by given statistics, in place, no GIL.  */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <cpunorm.h>
#include <string.h>

/* `buffer` of `count` contiguous values of `format`; 0, or -1 with an exception set.  */
static int take(PyObject *from, Py_buffer *buffer, const char *format, Py_ssize_t count, int flags)
{
    if (PyObject_GetBuffer(from, buffer, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | flags))
        return -1;
    if (!strcmp(buffer->format, format) && buffer->len == count * buffer->itemsize)
        return 0;
    PyErr_Format(PyExc_ValueError, "expected a buffer of %zd values '%s', got %zd bytes of '%s'", count, format,
                 buffer->len, buffer->format);
    PyBuffer_Release(buffer);
    return -1;
}

static PyObject *batch_norm(PyObject *self, PyObject *args)
{
    Py_ssize_t samples, channels, positions;
    PyObject *x_from, *mean_from, *var_from, *result = NULL;
    Py_buffer x = {0}, mean = {0}, var = {0};
    double eps = 1e-5;
    int threads = 1, failed;
    (void) self;
    if (!PyArg_ParseTuple(args, "OOOnnn|di", &x_from, &mean_from, &var_from, &samples, &channels, &positions, &eps,
                          &threads))
        return NULL;
    if (samples < 1 || channels < 1 || positions < 1 || threads < 1)
        PyErr_SetString(PyExc_ValueError, "lengths and threads must be positive");
    else if (!take(x_from, &x, "f", samples * channels * positions, PyBUF_WRITABLE)
             && !take(mean_from, &mean, "d", channels, 0) && !take(var_from, &var, "d", channels, 0)) {
        cpunorm_Norm norm = {0};
        norm.samples = norm.middle = 1;
        norm.outer = samples; /* samples are positions too: they share moments */
        norm.channels = norm.groups = channels;
        norm.inner = positions;
        norm.x.data = x.buf;
        norm.x.outer = channels * positions;
        norm.x.channel = positions;
        norm.x.inner = 1;
        norm.y = norm.x;
        norm.element = CPUNORM_FLOAT32;
        norm.statistic = CPUNORM_GIVEN;
        norm.mean = mean.buf;
        norm.var = var.buf;
        norm.eps = eps;
        Py_BEGIN_ALLOW_THREADS
        failed = cpunorm_forward(&norm, threads);
        Py_END_ALLOW_THREADS
        result = failed ? PyErr_NoMemory() : Py_NewRef(Py_None);
    }
    PyBuffer_Release(&x); /* nothing is done to those that were not taken */
    PyBuffer_Release(&mean);
    PyBuffer_Release(&var);
    return result;
}

static PyMethodDef methods[] = {
    {"batch_norm", batch_norm, METH_VARARGS,
     "batch_norm(x, mean, var, samples, channels, positions, eps=1e-5, threads=1)\n\n"
     "x, float32 (samples, channels, positions), is normalised in place by float64 mean and var of each channel."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "images", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_images(void)
{
    return cpunorm_import() ? NULL : PyModule_Create(&module);
}
