"""Engines and ISA levels that this machine runs, as parameters.

The quick tier, which `pytest` alone runs, leaves out those levels that this CPU isn't given by itself: they are slow.
"""

import importlib.util

import pytest

from cpunorm import _engine

LEVELS = [
    pytest.param(("cython", isa), id=f"cython-{isa}", marks=[pytest.mark.slow] * (isa != _engine.isa_levels()[-1]))
    for isa in _engine.isa_levels()
]
OTHERS = [
    pytest.param((name, None), id=name)
    for name in _engine.ENGINES
    if name == "reference" or (name == "numba" and importlib.util.find_spec("numba") is not None)
]
