"""The engine "numba": what `loops` says, compiled for this very CPU, and called as C functions without the GIL.

`FORWARD` is the address of `KernelSet.forward`.  What that calls is compiled when it is first called, or loaded from
Numba's cache on disk: one function for each element and kind of plan, which takes any strides.
"""

import ctypes
import os
import pickle
import warnings
import zlib
from pathlib import Path

import numpy as np

try:
    import llvmlite.binding
    import numba
except ModuleNotFoundError:
    message = 'the engine "numba" needs Numba; please run: pip install "cpunorm[numba]"'
    raise ModuleNotFoundError(message, name="numba") from None
from numba import types
from numba.core.compiler_lock import global_compiler_lock

from cpunorm._numba import lanes, loops
from cpunorm._numba.statistics import moments, slide, standardize

__all__ = ["FORWARD", "compile_for", "moments", "slide", "standardize"]  # noqa: F822, see __getattr__

CACHE_ERRORS = OSError, RuntimeError, EOFError, pickle.UnpicklingError  # no place, no room, a damaged file
ZEROS = np.float32(0), np.float64(0)  # of each element
SIGNATURES = {loops.FORWARD: types.intc(types.intp, types.intc), loops.SHARE: types.intc(*[types.intp] * 5)}
STEP = types.intc(*[types.intp] * 4)
VERSION = zlib.crc32(b"".join(Path(module.__file__).read_bytes() for module in (lanes, loops)))

state = np.zeros(loops.STATE_WORDS, np.intp)
compiled = {}  # the C functions, by their place in `state`
_cached_on_disk = True


def _compile(index):
    """Put the address of a function into `state`; compiled through Numba's cache on disk, one warning if that fails."""
    global _cached_on_disk
    with global_compiler_lock:  # Numba's own, so that none waits for the other
        if state[index]:
            return
        if index == loops.FORWARD:
            function = loops.forward_of(VERSION)
        elif index == loops.SHARE:
            numba.set_num_threads(numba.get_num_threads())  # now there are the functions that it calls
            function = loops.share_of(VERSION)
        else:
            element, kind = divmod(index, loops.KINDS)
            function = loops.STEPS[kind](ZEROS[element], VERSION)
        signature = SIGNATURES.get(index, STEP)
        if _cached_on_disk:
            try:
                compiled[index] = numba.cfunc(signature, cache=True, error_model="numpy")(function)
            except CACHE_ERRORS as error:
                message = f"the Numba kernels are compiled anew in each process: {error}"
                warnings.warn(message, RuntimeWarning, stacklevel=2)
                _cached_on_disk = False
        if index not in compiled:
            compiled[index] = numba.cfunc(signature, error_model="numpy")(function)
        if index == loops.SHARE and state[loops.REGIONS] != loops.TAKEN and numba.threading_layer() == "workqueue":
            state[loops.REGIONS] = loops.FREE
        state[index] = compiled[index].address


def compile_for(dtype):
    """Compile ahead all that calls for "float32" or "float64" need."""
    first = loops.KINDS * ("float32", "float64").index(dtype)
    for index in (*range(first, first + loops.KINDS), loops.SHARE):
        _compile(index)


def _after_fork_in_child():
    """A child stays serial: the threads did not come along, and Numba ends a child that asks OpenMP for them."""
    state[loops.REGIONS] = loops.TAKEN
    global_compiler_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(  # a child can't wait for a thread that did not come along to finish compiling
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=_after_fork_in_child,
    )

_callback = ctypes.CFUNCTYPE(None, ctypes.c_ssize_t)(_compile)
state[loops.COMPILE] = ctypes.cast(_callback, ctypes.c_void_p).value
state[loops.MOST_THREADS] = numba.config.NUMBA_NUM_THREADS
llvmlite.binding.add_symbol(lanes.STATE, state.ctypes.data)


def __getattr__(name):
    """`FORWARD`, compiled when it is asked for: not by users of Numba who import this for `overloads` alone."""
    if name != "FORWARD":
        raise AttributeError(name)
    _compile(loops.FORWARD)
    return int(state[loops.FORWARD])
