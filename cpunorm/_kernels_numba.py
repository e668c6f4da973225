"""The kernel set in Numba (see `_kernels_reference` for what it promises): the loops of `_jitted`, compiled and called.

A kernel is compiled at the first call for its dtype, or in `cpunorm.warmup`, or loaded from Numba's cache on disk.  Its
one signature takes every array, so nothing is compiled twice for strides or for read-only memory.

Calls go through `functional`'s general way, 15 to 20 us of Python, for the express lane is C's: where a call computes
less than that, the engine is many times slower than the Cython one, whose kernels it otherwise follows (see `_jitted`).
"""

import inspect
import os
import pickle
import threading
import warnings
from collections.abc import Callable

import numpy as np

try:
    import numba
except ModuleNotFoundError:
    message = 'the engine "numba" needs Numba; please run: pip install "cpunorm[numba]"'
    raise ModuleNotFoundError(message, name="numba") from None
from numba import types
from numba.core.compiler_lock import global_compiler_lock
from numba.np.numpy_support import from_dtype

from cpunorm._jitted import OPTIONS, normalize_domains, normalize_given, normalize_lines

__all__ = ["KERNELS", "batch_norm_inference", "batch_norm_training", "compiled", "group_norm", "layer_norm"]

KERNELS = {  # of each norm
    "batch_norm": (normalize_domains, normalize_lines, normalize_given),
    "group_norm": (normalize_domains, normalize_lines),
    "layer_norm": (normalize_domains,),
}
NO_MOMENTS = np.empty(0)  # for `mean` and `var` where nobody asks for them

_compiled: dict[tuple[str, str], Callable] = {}
_cached_on_disk = True
_region = threading.Lock()  # held by the one parallel region that the threading layer "workqueue" can run at a time
_forked = False


def _signature(kernel, dtype):
    """The types of the kernel's parameters, by their names."""
    real, double = from_dtype(dtype), types.float64
    kinds = {
        "x": types.Array(real, 4, "A", readonly=True),
        "y": types.Array(real, 4, "A"),
        **dict.fromkeys(("samples", "groups", "threads"), types.intp),
        **dict.fromkeys(("mean", "var"), types.Array(double, 1, "C")),
        **dict.fromkeys(("weight", "bias"), types.Array(real, 1, "C", readonly=True)),
        **dict.fromkeys(("rows", "last"), types.boolean),
        "eps": double,
    }
    return types.void(*(kinds[name] for name in inspect.signature(kernel).parameters))


def _compile(kernel, signature):
    """`kernel` for `signature`, through Numba's cache on disk; one warning if that can't be used."""
    global _cached_on_disk
    function = numba.njit(parallel=True, **OPTIONS)(kernel)
    if _cached_on_disk:
        try:
            function.enable_caching()
            function.compile(signature)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:  # no place, no room, a damaged file
            _cached_on_disk = False
            if not function.signatures:
                function = numba.njit(parallel=True, **OPTIONS)(kernel)
            warnings.warn(f"the Numba kernels are compiled anew in each process: {error}", RuntimeWarning, stacklevel=2)
    function.compile(signature)  # unless it is
    function.disable_compile()
    return function


def compiled(kernel, dtype):
    """One of `KERNELS`, compiled for float32 or float64."""
    key = kernel.__name__, dtype.char
    if key not in _compiled:
        with global_compiler_lock:  # Numba's own, so that none waits for the other
            if key not in _compiled:
                _compiled[key] = _compile(kernel, _signature(kernel, dtype))
    return _compiled[key]


def _after_fork_in_child():
    """A child stays serial: the threads did not come along, and Numba ends a child that asks OpenMP for them."""
    global _forked
    _forked = True
    global_compiler_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(  # a child can't wait for a thread that did not come along to finish compiling
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=_after_fork_in_child,
    )


def _run(kernel, x, *arguments, num_threads):
    """Call `kernel` on up to `num_threads` threads, of the NUMBA_NUM_THREADS that Numba has."""
    function = compiled(kernel, x.dtype)
    threads = 1 if _forked else min(num_threads, numba.config.NUMBA_NUM_THREADS)
    exclusive = threads > 1 and numba.threading_layer() == "workqueue"
    if threads == 1 or (exclusive and not _region.acquire(blocking=False)):
        function(x, *arguments, 1)
        return
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        function(x, *arguments, threads)
    finally:
        numba.set_num_threads(before)
        if exclusive:
            _region.release()


def _affine(weight, bias, size, dtype):
    return np.ones(size, dtype) if weight is None else weight, np.zeros(size, dtype) if bias is None else bias


def _lines(x, y):
    """Whether x (outer, middle, channels, inner) is channels_last, and x and y as lines."""
    last = x.shape[2] > 1 and x.strides[2] == x.itemsize and (x.shape[3] == 1 or x.strides[3] != x.itemsize)
    axes = (0, 1, 3, 2) if last else (0, 2, 1, 3)
    return last, x.transpose(axes), y.transpose(axes)


def _grouped(x, y, samples, groups, mean, var, weight, bias, eps, num_threads):
    weight, bias = _affine(weight, bias, x.shape[2], x.dtype)
    last, x, y = _lines(x, y)
    arguments = x, y, samples, groups, mean, var, weight, bias, eps
    if last:
        _run(normalize_lines, *arguments, num_threads=num_threads)
    else:
        _run(normalize_domains, *arguments, False, num_threads=num_threads)


def batch_norm_training(x, y, mean, var, weight, bias, eps, num_threads):
    """x, y: (outer, middle, channels, inner); writes the batch's moments to `mean` and `var`."""
    _grouped(x, y, 1, x.shape[2], mean, var, weight, bias, eps, num_threads)


def batch_norm_inference(x, y, mean, var, weight, bias, eps, num_threads):
    """x, y: (outer, middle, channels, inner)."""
    weight, bias = _affine(weight, bias, x.shape[2], x.dtype)
    last, x, y = _lines(x, y)
    _run(normalize_given, x, y, mean, var, weight, bias, eps, last, num_threads=num_threads)


def group_norm(x, y, groups, weight, bias, eps, num_threads):
    """x, y: (samples, middle, channels, inner); moments per sample over `channels // groups` channels."""
    _grouped(x, y, x.shape[0], groups, NO_MOMENTS, NO_MOMENTS, weight, bias, eps, num_threads)


def layer_norm(x, y, weight, bias, eps, num_threads):
    """x, y: (outer, middle, width); moments per row of `width` values."""
    outer, middle, width = x.shape
    weight, bias = _affine(weight, bias, width, x.dtype)
    rows = x[:, :, None], y[:, :, None], outer, middle, NO_MOMENTS, NO_MOMENTS
    _run(normalize_domains, *rows, weight, bias, eps, True, num_threads=num_threads)
