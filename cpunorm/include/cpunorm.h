/* cpunorm from C and Cython: an array and a norm as a value, and the kernels that take it, without the GIL.

   Every norm is one sentence: moments of domains, then y = (x - mean) / sqrt(var + eps) * weight + bias.  A domain is
   what shares its moments: one sample's `channels / groups` neighbouring channels at all positions (outer, middle,
   inner).

       norm           samples  channels  groups    positions    parameters follow
       batch_norm     1        C         channels  N, spatial   channels
       group_norm     N        C         G         spatial      channels
       layer_norm     leading  leading   channels  normalized   positions (`along`)
       rms_norm       leading  leading   channels  normalized   positions; the mean is 0 (CPUNORM_ABOUT_ZERO)
       instance_norm  N        C         channels  spatial      channels

   Set a cpunorm_Norm to zero, fill it in, and give it to cpunorm_forward.  Nothing is checked.  Positions that lie
   evenly in memory are best one axis (`inner`); others outermost first, as cpunorm's functions place them: then the
   bits of y are theirs, too.

   A file that calls cpunorm_forward first calls cpunorm_import, once, with the GIL: usually where its module starts.
   Compile with -I `python -c "import cpunorm; print(cpunorm.get_include())"`; there is nothing to link.  */

#ifndef CPUNORM_H
#define CPUNORM_H

#include <Python.h>

/* Goes up with each field or value that is added below.  An extension runs with the version that it was compiled for
   and with later ones, until one says that it breaks with it (`oldest`): what a struct lacks counts as zero, which
   means "as before".  */
#define CPUNORM_ABI_VERSION 1

/* statistic */
enum cpunorm_Statistic {
    CPUNORM_CENTRED, /* mean and variance of each domain */
    CPUNORM_GIVEN, /* `mean` and `var` of each channel */
    CPUNORM_ABOUT_ZERO /* mean squares of each domain, whose mean is taken to be 0 */
};

/* element; the halves are computed in float32 */
enum cpunorm_Element { CPUNORM_FLOAT32, CPUNORM_FLOAT64, CPUNORM_FLOAT16, CPUNORM_BFLOAT16 };

/* activation */
enum cpunorm_Activation {
    CPUNORM_NO_ACTIVATION,
    CPUNORM_RELU,
    CPUNORM_RELU6,
    CPUNORM_LEAKY_RELU,
    CPUNORM_SILU,
    CPUNORM_GELU,
    CPUNORM_GELU_TANH,
    CPUNORM_HARDSWISH,
    CPUNORM_HARDSIGMOID,
    CPUNORM_SIGMOID,
    CPUNORM_TANH,
    CPUNORM_FUNCTION /* `function`, which the kernels behind cpunorm_forward don't take */
};

/* An array seen along the five axes: strides in elements.  */
struct cpunorm_Operand {
    void *data;
    Py_ssize_t sample, outer, middle, channel, inner;
};

struct cpunorm_Norm {
    Py_ssize_t samples, outer, middle, channels, inner; /* lengths, all at least 1 */
    struct cpunorm_Operand x, y; /* y may be x, or without data: moments alone */
    int element; /* of x, y, residual, addend and total */
    int statistic;
    Py_ssize_t groups; /* domains of a sample; divides channels */
    int along; /* weight and bias follow the positions, not the channels */
    const void *weight; /* contiguous, channels or positions of them; or NULL: 1 */
    const void *bias; /* or NULL: 0 */
    int parameter_element; /* of weight and bias: x's, or what that is computed in */
    const void *residual; /* laid out as y, added after weight and bias; it may be y; or NULL: 0 */
    int activation; /* of what is then y */
    void (*function)(void *values, Py_ssize_t n); /* of CPUNORM_FUNCTION, in place */
    /* The norm of x + addend, if not NULL, unrounded; rounded, it is also written to total (which may be either).  addend,
       total and y are contiguous then, outer and middle 1; the rows of x may lie apart.  Or, of float32 and float64, all
       four lie alike, in one block. */
    const void *addend;
    void *total;
    double *mean; /* of each (sample, group), or of each channel if GIVEN; written, unless GIVEN, or NULL */
    double *var; /* biased */
    double eps;
};

typedef struct cpunorm_Operand cpunorm_Operand;
typedef struct cpunorm_Norm cpunorm_Norm;

/* What the installed cpunorm gives: its version of this file, the oldest that it still runs, and its kernels.  */
struct cpunorm_Table {
    int version, oldest;
    int (*forward)(const struct cpunorm_Norm *norm, size_t size, int threads);
};

static const struct cpunorm_Table *cpunorm_table;

/* 0, or -1 with an ImportError set: cpunorm isn't installed, or not in a version that goes with this file.  */
static inline int cpunorm_import(void)
{
    const struct cpunorm_Table *table = NULL;
    PyObject *module = PyImport_ImportModule("cpunorm._embedding");
    PyObject *capsule = module == NULL ? NULL : PyObject_GetAttrString(module, "TABLE");
    if (capsule != NULL)
        table = (const struct cpunorm_Table *) PyCapsule_GetPointer(capsule, "cpunorm._embedding.TABLE");
    Py_XDECREF(capsule);
    Py_XDECREF(module);
    if (table == NULL)
        return -1;
    if (CPUNORM_ABI_VERSION < table->oldest || CPUNORM_ABI_VERSION > table->version) {
        PyErr_Format(
            PyExc_ImportError,
            "compiled for version %d of cpunorm's ABI, and the installed cpunorm has %d, which runs from %d on: %s",
            CPUNORM_ABI_VERSION, table->version, table->oldest,
            CPUNORM_ABI_VERSION > table->version ? "install a newer cpunorm" : "compile this extension again");
        return -1;
    }
    cpunorm_table = table;
    return 0;
}

/* y from x, by up to `threads` threads (at least 1; a team of OpenMP's pays from some 30000 values on), on the Cython
   kernels of the best ISA level that this CPU has, or of CPUNORM_ISA.  Returns 0, or -1 when there was no memory for
   its scratch.  The bits of y don't depend on `threads`.  Needs no GIL, and doesn't touch Python.  */
static inline int cpunorm_forward(const cpunorm_Norm *norm, int threads)
{
    return cpunorm_table->forward(norm, sizeof *norm, threads);
}

#endif
