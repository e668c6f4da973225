"""The engine "numba": that it is asked for and compiled when it should be, and works in threads and forks."""

import importlib.util
import os
import re
import sys

import fresh
import numpy as np
import pytest
from norms import NORMS, running, values

import cpunorm
from cpunorm.functional import batch_norm

pytestmark = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="Numba is not installed")
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

# Of short rows, whose kernel is compiled in a third of the time that others take.
CALL = """
import numpy as np, cpunorm
x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
y = cpunorm.functional.layer_norm(x, 4, eps=0.0)
assert np.abs(y - (np.arange(4) - 1.5) / np.sqrt(1.25)).max() < 1e-6
"""


@pytest.fixture
def numba_engine():
    """Everything inside the test runs on the engine "numba"."""
    with cpunorm.engine("numba"):
        yield


# Asked for, or not there


def test_nobody_asks_for_numba():
    assert fresh.output(CALL + "import sys; print('numba' in sys.modules)") == "False"


@pytest.mark.parametrize("ask", ["", pytest.param("cpunorm.set_engine('numba')", marks=pytest.mark.slow)])
def test_asked_for(ask):
    environment = {} if ask else {"CPUNORM_ENGINE": "numba"}
    code = f"import cpunorm, sys; {ask}\nassert 'numba' in sys.modules" + CALL + "print(cpunorm.get_engine())"
    assert fresh.output(code, **environment) == "numba"


HIDDEN = "import sys; sys.modules['numba'] = None\n"


def test_numba_is_not_installed():
    remedy = 'pip install "cpunorm[numba]"'
    assert fresh.error(HIDDEN + "import cpunorm", CPUNORM_ENGINE="numba").endswith(remedy)
    code = HIDDEN + "import cpunorm\n"
    for call in ("set_engine('numba')", "warmup(engine='numba')"):
        code += f"try: cpunorm.{call}\nexcept ModuleNotFoundError as error: print(cpunorm.get_engine(), error)\n"
    asked, warmed = fresh.output(code).splitlines()
    assert asked == warmed
    assert asked.startswith("cython ")
    assert asked.endswith(remedy)


# Compilation


COMPILED = """
from cpunorm._numba import engine, forward
print(sorted(set(engine.compiled) - {forward.FORWARD}))
"""


@pytest.mark.slow
def test_only_what_is_called_is_compiled():
    """For each element and kind of plan one function, whatever the strides."""
    code = CALL + "[cpunorm.functional.batch_norm(x[::n, :, ::n], x[0, :, 0], x[0, :, 1]) for n in (-1, 1, 2)]"
    assert fresh.output(code + COMPILED, CPUNORM_ENGINE="numba") == "[1, 2]"


@pytest.mark.slow
def test_warmup_compiles_what_is_named():
    code = """
import cpunorm
cpunorm.warmup("batch_norm", "float32", engine="cython")
import sys; assert "numba" not in sys.modules
cpunorm.warmup("layer_norm", "float32", engine="numba")
print(cpunorm.get_engine())
"""
    assert fresh.output(code + COMPILED) == "cython\n[0, 1, 2, 6]"


def test_warmup_of_everything(numba_engine):
    assert cpunorm.warmup() is None
    assert cpunorm.warmup(["group_norm"], [np.float32, "float64"]) is None


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("spectral_norm",), "spectral_norm"),
        ((["layer_norm", "LayerNorm"],), "LayerNorm"),
        (("layer_norm", "int32"), "int32"),
        (("layer_norm", ["float32", "float16"]), "float16"),
    ],
)
def test_warmup_of_what_is_not_there(engine, arguments, named):
    with pytest.raises(ValueError, match=f"got '{named}'"):
        cpunorm.warmup(*arguments)


def test_warmup_for_an_engine_that_is_not_there():
    with pytest.raises(ValueError, match="got 'Numba'"):
        cpunorm.warmup(engine="Numba")


def test_warmup_shows_progress_on_a_terminal(monkeypatch, capfd):
    pytest.importorskip("rich")
    cpunorm.warmup(engine="numba")
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    cpunorm.warmup(engine="numba")
    assert "Compiling for Numba" in capfd.readouterr().err


HITS = """
from cpunorm._numba import engine
print([function.cache_hits for function in engine.compiled.values()])
"""


@pytest.mark.slow
def test_the_next_process_finds_it_on_disk(tmp_path):
    environment = {"CPUNORM_ENGINE": "numba", "NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_OPT": "1"}  # compiles sooner
    assert fresh.output(CALL + HITS, **environment) == "[0, 0]"
    assert fresh.output(CALL + HITS, **environment) == "[1, 1]"


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["_CacheLocator.ensure_cache_path", "IndexDataCacheFile.save"])
def test_no_place_for_the_cache_is_one_warning(broken, tmp_path):
    """No directory that can be written to, and one that no longer can when the kernel is there."""
    code = f"""
import warnings
from numba.core import caching
def refuse(*arguments):
    raise PermissionError("read-only")
caching.{broken} = refuse
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    {CALL.strip().replace(chr(10), chr(10) + "    ")}
print(len(caught), caught[0].category.__name__, str(caught[0].message)[:45], sep=";")
"""
    printed = fresh.output(code, CPUNORM_ENGINE="numba", NUMBA_CACHE_DIR=str(tmp_path), NUMBA_OPT="1")
    assert printed == "1;RuntimeWarning;the Numba kernels are compiled anew in each p"


@pytest.mark.slow
def test_first_calls_from_many_threads_compile_once(tmp_path):
    code = """
from concurrent.futures import ThreadPoolExecutor
import numba
import numpy as np, cpunorm
x = np.ones((2, 3, 4), np.float32)
call = lambda _: cpunorm.functional.layer_norm(x, 4)
compile, compiled = numba.cfunc, []
numba.cfunc = lambda *arguments, **options: compiled.append(arguments) or compile(*arguments, **options)
with ThreadPoolExecutor(8) as pool:
    assert all((y == 0).all() for y in pool.map(call, range(8)))
print(len(compiled))
"""
    environment = {"CPUNORM_ENGINE": "numba", "NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_OPT": "0"}
    assert fresh.output(code, **environment) == "1"


# Threads


def test_numba_s_own_number_of_threads_is_left_alone(numba_engine):
    import numba

    x = values((8, 6, 60, 60))
    for number in (1, 2, 256):
        cpunorm.set_num_threads(number)
        before = numba.get_num_threads()
        for norm in NORMS.values():
            norm.run(x)
        assert numba.get_num_threads() == before


STORM = """
import sys
sys.path.insert(0, {tests!r})
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import cpunorm
from norms import NORMS, values
cpunorm.set_num_threads(2)
work = []
for shape in [(2, 6, 5), (3, 6, 7, 5), (8, 6, 40, 40)]:
    for dtype in (np.float32, np.float64):
        x = values(shape, dtype)
        work += [(norm.run, x, norm.run(x)) for norm in NORMS.values()]
order = np.random.default_rng(0).permutation({calls}) % len(work)
def call(index):
    run, x, expected = work[index]
    return np.array_equal(run(x), expected)
with ThreadPoolExecutor(8) as pool:
    print(sum(pool.map(call, order)))
{more}
"""


def storm(calls, more="", **environment):
    code = STORM.format(tests=os.path.dirname(__file__), calls=calls, more=more)
    return fresh.output(code, **environment)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["cython", "numba"])
def test_a_storm_of_ten_thousand_calls(engine):
    assert storm(10_000, CPUNORM_ENGINE=engine) == "10000"


@pytest.mark.slow
def test_a_storm_on_the_threading_layer_that_runs_one_region_at_a_time():
    """Numba's workqueue ends the process when two parallel regions meet."""
    more = "import numba; print(numba.threading_layer())"
    assert storm(1000, more, CPUNORM_ENGINE="numba", NUMBA_THREADING_LAYER="workqueue") == "1000\nworkqueue"


@pytest.mark.slow
@forks
@pytest.mark.parametrize("layer", ["default", "workqueue"])
def test_a_storm_of_forks(layer):
    """Numba ends a child that goes parallel after its parent did; ours stays serial, whatever number it sets."""
    more = """
children = []
with ThreadPoolExecutor(2) as pool:
    busy = pool.map(call, order)
    for _ in range(10):
        child = os.fork()
        if child == 0:
            cpunorm.set_num_threads(2)
            os._exit(7 if all(map(call, range(len(work)))) else 1)
        children.append(child)
    codes = {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children}
    print(codes, all(busy))
"""
    done = storm(300, "import os" + more, CPUNORM_ENGINE="numba", NUMBA_THREADING_LAYER=layer)
    assert done == "300\n{7} True"


@pytest.mark.slow
@forks
def test_a_fork_before_anything_is_compiled(tmp_path):
    """The child compiles for itself, though another thread of the parent was compiling when it was forked."""
    code = f"""
import os, threading, time
def first_call():
    {CALL.strip().replace(chr(10), chr(10) + "    ")}
import cpunorm
compiling = threading.Thread(target=first_call)
compiling.start()
time.sleep(0.3)
child = os.fork()
if child == 0:
    first_call()
    os._exit(7)
compiling.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    environment = {"CPUNORM_ENGINE": "numba", "NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_OPT": "0"}
    assert fresh.output(code, **environment) == "7"


def test_the_running_statistics_of_a_channel_of_each_kind(numba_engine):
    """Written in place, NaN and Inf as they are; the kernel's moments are float64."""
    x = values((4, 3, 1000))
    x[:, 1] = np.inf
    x[0, 2, 5] = np.nan
    statistics = running(3)
    batch_norm(x, *statistics, training=True, momentum=1.0)
    assert abs(statistics[0][0] - x[:, 0].mean(dtype=np.float64)) < 1e-4
    assert statistics[0][1] == np.inf
    assert np.isnan(statistics[0][2])


@pytest.mark.slow
def test_nothing_is_reordered(tmp_path):
    """The order of sums is written down in `moments`: LLVM may move no addition, and no subtraction of a shift.

    What it may is said before it optimises, which is left out here.
    """
    code = (
        CALL
        + """
from cpunorm._numba import engine
for kind in range(3):
    engine._compile(kind)
    print(engine.compiled[kind].inspect_llvm())
"""
    )
    llvm = fresh.output(code, CPUNORM_ENGINE="numba", NUMBA_CACHE_DIR=str(tmp_path), NUMBA_OPT="0")
    assert re.search(r"fsub <\d+ x float>", llvm)
    assert not re.search(r"= f(add|sub|mul|div) (fast|[a-z ]*(reassoc|contract))", llvm)
