"""The `engine` fixture: one suite, run over every engine and every ISA level that this machine runs."""

import importlib.util

import hypothesis
import pytest

import cpunorm
from cpunorm import _engine

IMPLEMENTATIONS = [("cython", isa) for isa in _engine.isa_levels()] + [
    (name, None)
    for name in _engine.ENGINES
    if name == "reference" or (name == "numba" and importlib.util.find_spec("numba") is not None)
]

# Kernels are compiled and CI machines are noisy: no deadline. The engine fixture lasts for all examples of a test.
hypothesis.settings.register_profile(
    "cpunorm",
    deadline=None,
    max_examples=50,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("cpunorm")


@pytest.fixture(params=IMPLEMENTATIONS, ids=["-".join(filter(None, i)) for i in IMPLEMENTATIONS])
def engine(request):
    """Everything inside the test runs on this (engine, ISA level)."""
    before = _engine._engine, _engine._isa
    _engine.select(*request.param)
    yield request.param
    _engine.select(*before)


@pytest.fixture(autouse=True)
def _threads_restored():
    """No test leaves another number of threads behind."""
    before = cpunorm.get_num_threads()
    yield
    cpunorm.set_num_threads(before)
