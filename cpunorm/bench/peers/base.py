"""What all libraries have in common."""

import contextlib
import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Call(NamedTuple):
    """A case as a library's users call it, ready to be called with no argument."""

    fresh: Callable  # returns a new output, as most people call it
    into: Callable | None = None  # writes into a given output and returns it
    running: Callable | None = None  # returns the running statistics, where they aren't in the given arrays


class Peer:
    """One library.

    Attributes
    ----------
    name : str
        In options, tables and JSON.
    packages : tuple of str
        What is imported.
    version : str
    takes_out : bool
        Whether some of its calls have an `into`.
    compiles : bool
        Whether its first call of a case takes seconds.
    settle : float
        Seconds of each look whether its idle threads, or our OpenMP ones, have ceased to spin on the other's cores; 0
        if it has none but those of our OpenMP.
    memory : {"fresh", "into"}
        How `--random` calls it: as most people do, unless it is there for its `into`.
    """

    name = version = ""
    packages: tuple[str, ...] = ()
    takes_out = compiles = False
    settle = 0.0
    memory = "fresh"

    def __init__(self, threads):
        self.threads = threads

    @classmethod
    def installed(cls):
        """Whether the library can be imported here."""
        return all(importlib.util.find_spec(package) for package in cls.packages)

    def has(self, case):
        """Whether the library has that norm, layout, mode and dtype, on that number of threads."""
        return getattr(self, case.norm, None) is not None

    def prepare(self, case, arrays):
        """The case's `Call`, by the method of its norm's name; None if that has none."""
        return getattr(self, case.norm)(case, arrays)

    def context(self):
        """A context manager in which the calls are made."""
        return contextlib.nullcontext()

    def to_numpy(self, case, y):
        """An output as an ndarray in the case's layout; mean and variance as one."""
        return np.stack(y).astype(case.dtype) if isinstance(y, tuple) else y
