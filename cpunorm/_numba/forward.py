"""The kernel set of `_norm.pxd`: makes a plan, and takes its steps, on one thread or on many."""

import functools

import numba
import numpy as np

from cpunorm._numba.lanes import (
    address_of,
    call,
    exchange,
    free,
    get_threads,
    inlined,
    malloc,
    pointer,
    set_threads,
    stack,
    state,
    thread_id,
)
from cpunorm._numba.plan import (
    FINISH,
    FUNCTION,
    KINDS,
    NORM_WORDS,
    PHASES,
    PLAN_WORDS,
    ROWS,
    make_plan,
    plan_at,
    steps_of,
)

__all__ = [
    "ACTIVATE",
    "COMPILE",
    "FORWARD",
    "FREE",
    "MOST_THREADS",
    "REGIONS",
    "SHARE",
    "STATE_WORDS",
    "TAKEN",
    "compiled",
    "forward_of",
    "share_of",
]

# The memory `state`: addresses of functions (first those of the steps of each element and kind), and what is asked.
SHARE, FORWARD, COMPILE, REGIONS, MOST_THREADS, ACTIVATE = range(2 * KINDS, 2 * KINDS + 6)
STATE_WORDS = ACTIVATE + 1
ANY, FREE, TAKEN = range(3)  # parallel regions at a time: any number; one, and there is none; one or none, and no more


@functools.partial(numba.njit, parallel=True, nogil=True, error_model="numpy", no_cpython_wrapper=True)
def parallel_steps(step, plan, phase, steps):
    """All steps of a phase, by all threads."""
    for i in numba.prange(steps):
        call(step, plan, phase, np.intp(i), thread_id())


def share_of(version):
    """Take all steps of a phase, on up to `threads` threads: those that Numba has, and no more regions than it can."""

    def share(step, plan, phase, steps, threads):
        _ = version
        memory, before = pointer(state(), 0), get_threads()
        threads = min(threads, memory[MOST_THREADS])
        if threads > 1 and (memory[REGIONS] == ANY or exchange(memory, REGIONS, FREE, TAKEN)):
            set_threads(threads)
            parallel_steps(step, plan, phase, steps)
            set_threads(before)
            exchange(memory, REGIONS, TAKEN, FREE)
        else:
            for i in range(steps):
                call(step, plan, phase, i, 0)
        return 0

    return share


@inlined
def compiled(index):
    """The address of one of the functions in the state, compiled now if it isn't yet."""
    memory = pointer(state(), 0)
    if memory[index] == 0:
        call(memory[COMPILE], index)
    return memory[index]


def forward_of(version):
    """`KernelSet.forward`."""

    def forward(address, threads):
        _ = version
        norm, words = pointer(address, 0), stack(PLAN_WORDS, 0)
        for i in range(NORM_WORDS):
            words[i] = norm[i]
        here = address_of(words)
        plan = plan_at(here)
        plan.summand = plan.norm.x.data
        if plan.norm.addend:
            plan.norm.x.data = plan.norm.total
        if 0 < plan.norm.activation < FUNCTION:
            plan.norm.function = pointer(state(), 0)[ACTIVATE]
        make_plan(plan, threads)
        size = 8 if plan.norm.element else 4
        step = compiled(plan.norm.element * KINDS + plan.kind)
        plan.scratch = malloc(plan.bytes + 2 * plan.spread * size)
        if plan.scratch == 0 or step == 0:
            return -1
        plan.weight, plan.bias = plan.norm.weight, plan.norm.bias
        if plan.spread:
            plan.weight = plan.scratch + plan.bytes
            plan.bias = plan.weight + plan.spread * size
        for phase in range(PHASES):
            steps = steps_of(plan, phase)
            if threads == 1 or steps <= 1 or (phase == FINISH and plan.kind == ROWS):
                for i in range(steps):
                    call(step, here, phase, i, 0)
            else:
                call(compiled(SHARE), step, here, phase, steps, threads)
        free(plan.scratch)
        return 0

    return forward
