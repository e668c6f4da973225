"""The engine "numba": `forward` and `steps`, compiled for this very CPU, and called as C functions without the GIL.

`FORWARD` is the address of `KernelSet.forward`.  What that calls is compiled when it is first called, or loaded from
Numba's cache on disk: one function for each element and kind of plan, which takes any strides.  Activations are done by
the compiled kernels, but for functions of the user's.
"""

import ctypes
import os
import pickle
import warnings
import zlib
from pathlib import Path
from types import FunctionType

import numpy as np

try:
    import llvmlite.binding
    import numba
except ModuleNotFoundError:
    message = 'the engine "numba" needs Numba; please run: pip install "cpunorm[numba]"'
    raise ModuleNotFoundError(message, name="numba") from None
from numba import types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.errors import NumbaError

from cpunorm._numba import forward
from cpunorm._numba.lanes import STATE, pointer
from cpunorm._numba.plan import KINDS
from cpunorm._numba.statistics import moments, slide, standardize
from cpunorm._numba.steps import STEPS

__all__ = [
    "FORWARD",  # noqa: F822, see __getattr__
    "address_of",
    "compile_for",
    "moments",
    "slide",
    "standardize",
    "use_activations",
]

CACHE_ERRORS = OSError, RuntimeError, EOFError, pickle.UnpicklingError  # no place, no room, a damaged file
ZEROS = np.float32(0), np.float64(0)  # of each element
SIGNATURES = {forward.FORWARD: types.intc(types.intp, types.intc), forward.SHARE: types.intc(*[types.intp] * 5)}
STEP = types.intc(*[types.intp] * 4)
ACTIVATION = types.void(types.intp, types.intp)
VERSION = zlib.crc32(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))))

state = np.zeros(forward.STATE_WORDS, np.intp)
compiled = {}  # the C functions, by their place in `state`
activated = {}  # functions of the user's, and the C functions for them, by id and element
_cached_on_disk = True


def _compile(index):
    """Put the address of a function into `state`; compiled through Numba's cache on disk, one warning if that fails."""
    global _cached_on_disk
    with global_compiler_lock:  # Numba's own, so that none waits for the other
        if state[index]:
            return
        if index == forward.FORWARD:
            function = forward.forward_of(VERSION)
        elif index == forward.SHARE:
            numba.set_num_threads(numba.get_num_threads())  # now there are the functions that it calls
            function = forward.share_of(VERSION)
        else:
            element, kind = divmod(index, KINDS)
            function = STEPS[kind](ZEROS[element], VERSION)
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
        if (
            index == forward.SHARE
            and state[forward.REGIONS] != forward.TAKEN
            and numba.threading_layer() == "workqueue"
        ):
            state[forward.REGIONS] = forward.FREE
        state[index] = compiled[index].address


def use_activations(kernels):
    """Do the activations as `kernels` does, a module of compiled ones."""
    state[forward.ACTIVATE] = kernels.ACTIVATE


def address_of(name, function, element):
    """The address of the C function that does `function`, of one number, to values of an element in place.

    A value that it raises an exception for becomes NaN.

    Raises
    ------
    TypeError
        Numba can't compile it: the message begins with `name`.
    """
    key = id(function), element  # which stay theirs, for what is compiled is kept, and keeps the function
    with global_compiler_lock:
        if key not in activated:
            scalar = numba.njit(function) if isinstance(function, FunctionType) else function
            zero = ZEROS[element]

            def activation(address, n):
                values = pointer(address, zero)
                for i in range(n):
                    try:
                        values[i] = type(zero)(scalar(values[i]))
                    except Exception:
                        values[i] = type(zero)(np.nan)

            try:
                activated[key] = function, numba.cfunc(ACTIVATION, error_model="numpy")(activation)
            except NumbaError as error:
                message = f"{name}: Numba can't compile the activation {function!r} for {ZEROS[element].dtype}"
                raise TypeError(message) from error
    return activated[key][1].address


def compile_for(dtype):
    """Compile ahead all that calls for "float32" or "float64" need."""
    element = ("float32", "float64").index(dtype)
    for index in (*range(element * KINDS, (element + 1) * KINDS), forward.SHARE):
        _compile(index)


def _after_fork_in_child():
    """A child stays serial: the threads did not come along, and Numba ends a child that asks OpenMP for them."""
    state[forward.REGIONS] = forward.TAKEN
    global_compiler_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(  # a child can't wait for a thread that did not come along to finish compiling
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=_after_fork_in_child,
    )

_callback = ctypes.CFUNCTYPE(None, ctypes.c_ssize_t)(_compile)
state[forward.COMPILE] = ctypes.cast(_callback, ctypes.c_void_p).value
state[forward.MOST_THREADS] = numba.config.NUMBA_NUM_THREADS
llvmlite.binding.add_symbol(STATE, state.ctypes.data)


def __getattr__(name):
    """`FORWARD`, compiled when it is asked for: not by users of Numba who import this for `overloads` alone."""
    if name != "FORWARD":
        raise AttributeError(name)
    _compile(forward.FORWARD)
    return int(state[forward.FORWARD])
