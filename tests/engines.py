"""Engines and ISA levels that this machine runs, as parameters.

The quick tier, which `pytest` alone runs, leaves out those levels that this CPU isn't given by itself: they are slow.
So is, of the engines in Python, what is tested with two in three values of a parameter, or pairs of values of two; and
of the compiled kernels with two in three triples.
"""

import collections
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
# For what attacks the compiled kernels most of all, and takes long.
COMPILED_FIRST = [*LEVELS, *(pytest.param(*other.values, id=other.id, marks=pytest.mark.slow) for other in OTHERS)]


def left_to_the_slow_tier(items):
    """Two values in three for engines in Python, two triples in three for those compiled, in which all pairs remain."""
    instances = collections.defaultdict(list)
    for item in items:
        if "engine" in item.fixturenames:
            instances[item.function].append(item)
    for function, of_one_test in instances.items():
        values = {
            name: [id(item.callspec.params[name]) for item in of_one_test] for name in of_one_test[0].callspec.params
        }
        places = {name: list(map(list(dict.fromkeys(ids)).index, ids)) for name, ids in values.items()}
        many = {tuple(column) for name, column in places.items() if name != "engine" and max(column) > 1}
        # but for what another has settled, as in a list of cases
        many = [b for b in many if not any(a != b and len({*a}) == len({*zip(a, b, strict=True)}) for a in many)]
        for item, engine, *places_of_item in zip(of_one_test, places["engine"], *many, strict=True):
            shift = engine + len(function.__name__)  # not the same values in each test
            whole = 2 if item.callspec.params["engine"][0] == "cython" else 0  # parameters of which all values are kept
            if len(many) > whole and (shift + sum(places_of_item)) % 3:
                yield item
