"""The `engine` fixture: one suite, run over every engine and every ISA level that this machine runs."""

import gc
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import engines
import hypothesis
import pytest

import cpunorm
from cpunorm import _engine

# Kernels are compiled and CI machines are noisy: no deadline. The engine fixture lasts for all examples of a test.
hypothesis.settings.register_profile(
    "full",
    deadline=None,
    max_examples=50,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile("quick", hypothesis.settings.get_profile("full"), max_examples=10)


def pytest_configure(config):
    """Fewer examples, too, in the quick tier, unless --hypothesis-profile asks for more."""
    if not config.getoption("--hypothesis-profile", None):
        hypothesis.settings.load_profile("quick" if config.option.markexpr == "not slow" else "full")


@pytest.fixture(scope="session", autouse=True)
def compiling(request):
    """Numba's kernels, compiled into its cache on disk by a process beside the tests; those of Numba are run last.

    Of two processes of tests one begins with float32, the other with float64; each finds the other's in the cache then.
    Any two files that are there are the locks.
    """
    if not any("numba" in item.nodeid for item in request.session.items):
        yield None
        return
    locks = [("float32", __file__), ("float64", engines.__file__)]
    if os.environ.get("PYTEST_XDIST_WORKER", "gw0")[-1] in "13579":
        locks.reverse()
    code = f"""
import fcntl
import cpunorm
for dtype, path in {locks}:
    with open(path) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cpunorm.warmup(dtypes=(dtype,), engine="numba")
"""
    with subprocess.Popen([sys.executable, "-P", "-c", code]) as process:
        yield process
        process.terminate()


@pytest.fixture
def numba_compiled(compiling):
    """For a test that needs Numba's kernels but isn't named after it."""
    if compiling:
        compiling.wait()


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: "numba" in item.nodeid or "numba_compiled" in item.fixturenames)
    for item in engines.left_to_the_slow_tier(items):
        item.add_marker(pytest.mark.slow)


def pytest_collection_finish():
    """Thousands of tests live to the end: the garbage collector needn't walk through them again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=engines.LEVELS + engines.OTHERS)
def engine(request, compiling):
    """Everything inside the test runs on this (engine, ISA level)."""
    if request.param[0] == "numba":
        compiling.wait()
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


@pytest.fixture
def entry_point(tmp_path):
    """A folder that, on the path, tells Numba of cpunorm's jitted norms, as its installation does."""
    metadata = tmp_path / "cpunorm-0.dist-info"
    metadata.mkdir()
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    (init,) = project["entry-points"]["numba_extensions"].values()
    (metadata / "entry_points.txt").write_text(f"[numba_extensions]\ninit = {init}\n")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: cpunorm\nVersion: 0\n")
    return tmp_path
