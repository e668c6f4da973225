"""Which engine, ISA level and cores are used, and what is said when that can't be."""

import shutil
import sys

import fresh
import pytest

import cpunorm
from cpunorm import _cpu, _engine, _threads
from cpunorm._levels import LEVELS

SHOW = "import cpunorm; c = cpunorm.show_config('dicts'); print(c['engine'], c['isa'])"
MOST = _threads.MAX_THREADS
RUNNABLE = tuple(isa for isa in LEVELS if _engine.is_for_this_cpu(isa))


# show_config


def test_show_config_prints(capsys):
    assert cpunorm.show_config() is None
    shown = capsys.readouterr().out
    facts = cpunorm.show_config("dicts")
    assert len(shown.splitlines()) == len(facts)
    for line, (name, value) in zip(shown.splitlines(), facts.items(), strict=True):
        assert line.startswith(name)
        assert line.endswith(", ".join(value) if isinstance(value, list) else str(value))


def test_show_config_as_dicts():
    facts = cpunorm.show_config(mode="dicts")
    assert facts["cpunorm"] == cpunorm.__version__
    assert facts["engine"] == cpunorm.get_engine()
    assert facts["engine"] in facts["engines"]
    assert facts["isa levels runnable"] == list(RUNNABLE)
    assert "baseline" in facts["isa levels built"]
    assert facts["threads"] == cpunorm.get_num_threads()
    assert facts["threads because of"]
    assert facts["openmp"].startswith(("OpenMP ", "none"))


@pytest.mark.parametrize("mode", ["dict", None, 1])
def test_show_config_of_another_kind(mode):
    with pytest.raises(ValueError, match=repr(mode)):
        cpunorm.show_config(mode)


def test_show_config_says_why_that_many_threads():
    with cpunorm.num_threads(3):
        facts = cpunorm.show_config("dicts")
        assert (facts["threads"], facts["threads because of"]) == (3, "set_num_threads")


# Engines


def test_set_engine(engine):
    for name in ("reference", "cython"):
        cpunorm.set_engine(name)
        assert cpunorm.get_engine() == name
        assert _engine.kernels.__name__.startswith("cpunorm._kernels")
        assert ("reference" in _engine.kernels.__name__) == (name == "reference")


@pytest.mark.parametrize("name", ["Cython", "torch", "", None, 1])
def test_an_unknown_engine(engine, name):
    before = _engine.kernels, _engine._isa, cpunorm.get_engine()
    for function in (cpunorm.set_engine, lambda name: cpunorm.engine(name).__enter__()):
        with pytest.raises(ValueError, match=f"got {name!r}"):
            function(name)
    assert (_engine.kernels, _engine._isa, cpunorm.get_engine()) == before


def test_engine_context(engine):
    before = _engine.kernels, _engine._isa, cpunorm.get_engine()
    with cpunorm.engine("reference"):
        assert cpunorm.get_engine() == "reference"
        with cpunorm.engine("cython"):
            assert cpunorm.get_engine() == "cython"
        assert cpunorm.get_engine() == "reference"
    assert (_engine.kernels, _engine._isa, cpunorm.get_engine()) == before
    with pytest.raises(ZeroDivisionError), cpunorm.engine("reference"):
        raise ZeroDivisionError
    assert (_engine.kernels, _engine._isa, cpunorm.get_engine()) == before  # the ISA level too


# Environment variables, in fresh processes


def test_the_best_level_by_default():
    assert fresh.output(SHOW) == f"cython {RUNNABLE[-1]}"


@pytest.mark.parametrize("isa", RUNNABLE)
def test_a_forced_isa_level(isa):
    code = f"{SHOW}\ncpunorm.set_engine('reference'); cpunorm.set_engine('cython'); {SHOW}"
    assert fresh.output(code, CPUNORM_ISA=isa).splitlines() == [f"cython {isa}"] * 2


def test_a_forced_engine():
    assert fresh.output(SHOW, CPUNORM_ENGINE="reference") == "reference None"
    assert fresh.output(SHOW, CPUNORM_ENGINE="cython") == f"cython {RUNNABLE[-1]}"


BAD = [
    *(("CPUNORM_ISA", v, f"ValueError: ISA level must be one of {tuple(LEVELS)}") for v in ("v5", "AVX2")),
    *(("CPUNORM_ENGINE", v, f"ValueError: engine must be one of {_engine.ENGINES}") for v in ("torch", "Cython")),
    *(("CPUNORM_NUM_THREADS", v, f"RuntimeError: the number of threads must be from 1 to {MOST}") for v in (0, -1)),
    *(
        ("CPUNORM_NUM_THREADS", v, f"TypeError: the number of threads must be an int from 1 to {MOST}")
        for v in ("many", "2.5", "1e3", "²")
    ),
    ("CPUNORM_NUM_THREADS", 10**30, f"RuntimeError: the number of threads must be from 1 to {MOST}"),
    ("CPUNORM_CACHE_BYTES", "much", "TypeError: the cache limit must be an int"),
    ("CPUNORM_CACHE_BYTES", -5, f"ValueError: the cache limit must be from 0 to {sys.maxsize} bytes"),
]


def test_a_bad_environment_variable():
    """Variable, value and what is allowed are named, by every attempt to import."""
    code = "import os\n"
    for variable, value, _ in BAD:
        attempt = "try: import cpunorm\nexcept Exception as error: print(type(error).__name__, error, sep=': ')\n"
        code += f"os.environ[{variable!r}] = {str(value)!r}\n{attempt * 2}del os.environ[{variable!r}]\n"
    expected = [f"{error.replace(': ', f': {variable}: ', 1)}, got {value!r}" for variable, value, error in BAD]
    assert fresh.output(code).splitlines() == [line for line in expected for _ in range(2)]


@pytest.mark.parametrize("empty", ["", pytest.param(" ", marks=pytest.mark.slow)])
def test_an_empty_environment_variable_is_not_set(empty):
    variables = ("CPUNORM_ISA", "CPUNORM_ENGINE", "CPUNORM_NUM_THREADS", "CPUNORM_CACHE_BYTES")
    code = "import cpunorm; c = cpunorm.show_config('dicts'); print(c, cpunorm.get_cache_limit())"
    assert fresh.output(code, **dict.fromkeys(variables, empty)) == fresh.output(code)


def test_numba_asked_for_and_not_there():
    """The package is imported as a whole or not at all, however often it is tried."""
    attempt = """
try:
    import cpunorm
except ModuleNotFoundError as error:
    print(error.name, error, "cpunorm" in sys.modules)
"""
    hidden = "import os, sys; sys.modules['numba'] = None"
    code = hidden + attempt * 2 + "os.environ['CPUNORM_ENGINE'] = ''\nimport cpunorm; print(cpunorm.get_engine())"
    printed = fresh.output(code, CPUNORM_ENGINE="numba").splitlines()
    remedy = 'numba the engine "numba" needs Numba; please run: pip install "cpunorm[numba]" False'
    assert printed == [remedy, remedy, "cython"]


LIMIT_FILES = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"  # as on a full disk


CALL = "import cpunorm\nimport numpy as np\ncpunorm.functional.layer_norm(np.ones((2, 8), np.float32), 8)\n"


@pytest.fixture(scope="module")
def numba_cache(tmp_path_factory):
    """Numba's, with what the call needs."""
    folder = tmp_path_factory.mktemp("numba")
    fresh.output(CALL, CPUNORM_ENGINE="numba", NUMBA_CACHE_DIR=str(folder), NUMBA_OPT="1")  # compiles sooner
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["full disk", "*.nbi", "*.nbc"])
def test_a_broken_cache_of_numba_is_one_warning(broken, tmp_path, request):
    """The engine works, and says why it compiles each time: there is no room, or a file of the cache is cut off."""
    pytest.importorskip("numba")
    pytest.importorskip("resource")
    environment = {"CPUNORM_ENGINE": "numba", "NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_OPT": "1"}
    if broken != "full disk":
        shutil.copytree(request.getfixturevalue("numba_cache"), tmp_path, dirs_exist_ok=True)
        assert list(tmp_path.rglob(broken))
        for path in tmp_path.rglob(broken):
            path.write_bytes(b"")
    code = (
        (LIMIT_FILES if broken == "full disk" else "")
        + f"""
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        exec({CALL!r})
print([str(w.message).split(":")[0] for w in caught if w.category is RuntimeWarning], cpunorm.get_engine())
"""
    )
    assert fresh.output(code, **environment) == "['the Numba kernels are compiled anew in each process'] numba"


def test_a_level_that_this_cpu_does_not_run():
    """Forcing it is an error, not an illegal instruction. Here the CPU is made older, for it may run every level."""
    code = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("cpunorm._cpu", {_cpu.__file__!r})
older = sys.modules["cpunorm._cpu"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(older)
older.features = lambda: frozenset({LEVELS["baseline"].features})
"""
    assert fresh.output(code + SHOW) == "cython baseline"
    last = fresh.error(code + SHOW, CPUNORM_ISA="v4")
    assert last.startswith("RuntimeError: ")
    assert "'v4'" in last
    assert "('baseline',)" in last


@pytest.fixture
def stripped(tmp_path):
    """A copy of the package without its kernels, and the kernels' files by module name."""
    package = shutil.copytree(fresh.PACKAGE, tmp_path / "cpunorm", ignore=shutil.ignore_patterns("__pycache__", "*.c"))
    kernels = {path.name.split(".")[0]: path for path in package.glob("_kernels*") if path.suffix in (".so", ".pyd")}
    contents = {name: (path, path.read_bytes()) for name, path in kernels.items()}
    for path in kernels.values():
        path.unlink()
    return tmp_path, contents


def test_a_level_that_is_not_built(stripped):
    folder, kernels = stripped
    path, content = kernels["_kernels"]
    path.write_bytes(content)
    assert fresh.python(SHOW, folder).stdout.strip() == "cython baseline"
    done = fresh.python(SHOW, folder, CPUNORM_ISA="v3")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("RuntimeError: CPUNORM_ISA: ISA level 'v3' can't be used")


def test_no_kernels_are_an_error_and_no_silent_fallback(stripped):
    folder, _ = stripped
    done = fresh.python(SHOW, folder)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("RuntimeError: ")
    assert fresh.python(SHOW, folder, CPUNORM_ENGINE="reference").stdout.strip() == "reference None"


def test_every_level_of_this_cpu_is_built():
    """So that the `engine` fixture runs every test on every level that this machine can run."""
    assert _engine.isa_levels() == RUNNABLE


# Cores


def test_usable_cores():
    cores, why = _cpu.usable_cores()
    assert cores >= 1
    assert why.startswith(("CPU affinity", "CPU count", "cgroup quota of"))


def tree(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V1 = {"cpu/docker/cpu.cfs_quota_us": "150000\n", "cpu/docker/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("files", "table", "quota"),
    [
        ({"a/b/cpu.max": "200000 100000\n"}, "0::/a/b\n", 2),
        ({"a/b/cpu.max": "50000 100000\n"}, "0::/a/b\n", 0.5),
        ({"a/b/cpu.max": "max 100000\n"}, "0::/a/b\n", None),
        ({"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}, "0::/a/b\n", 3),  # a parent's limit counts
        ({"a/cpu.max": "100000 100000\n", "a/b/cpu.max": "300000 100000\n"}, "0::/a/b\n", 1),  # the tightest
        ({"cpu.max": "250000 100000\n"}, "0::/\n", 2.5),  # a container that sees itself as the root
        ({"cpu.max": "250000 100000\n"}, "0::/not/seen/here\n", 2.5),
        ({}, "0::/a/b\n", None),
        ({}, "", None),
        ({"a/cpu.max": "nonsense\n"}, "0::/a\n", None),
        ({"a/cpu.max": "nonsense 100000\n"}, "0::/a\n", None),
        ({"a/cpu.max": ""}, "0::/a\n", None),
        (V1, "4:cpu,cpuacct:/docker\n", 1.5),
        (V1, "4:cpuacct,cpu:/docker\n3:memory:/docker\n", 1.5),
        (V1, "3:cpuset:/docker\n", None),
        (V1 | {"cpu/docker/cpu.cfs_quota_us": "-1\n"}, "4:cpu:/docker\n", None),
        (V1 | {"docker/cpu.max": "100000 100000\n"}, "4:cpu:/docker\n0::/docker\n", 1),  # both at once
        ({"a:b/cpu.max": "400000 100000\n"}, "0::/a:b\n", 4),
    ],
)
def test_cgroup_quota(tmp_path, files, table, quota):
    root = tree(tmp_path / "cgroup", files)
    listed = tmp_path / "self"
    listed.write_text(table)
    assert _cpu._cgroup_quota(str(root), str(listed)) == quota


def test_no_cgroups(tmp_path):
    assert _cpu._cgroup_quota(str(tmp_path), str(tmp_path / "missing")) is None
