"""The number of threads: its rules, where it comes from, forks, and many threads calling at once."""

import contextlib
import functools
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fresh
import numpy as np
import pytest
from norms import NORMS, values

import cpunorm
from cpunorm import _cpu
from cpunorm.functional import batch_norm

MOST = max(256, os.cpu_count())
openmp = pytest.mark.skipif(_cpu.openmp_runtime().startswith("none"), reason="built without OpenMP")
shared = pytest.mark.skipif((fresh.PACKAGE.parent / "cpunorm.libs").exists(), reason="a wheel's OpenMP is its own")
BAD = [
    *((n, RuntimeError) for n in (0, -1, MOST + 1, 10**9, 10**30, -(10**30), True, False)),
    *((n, TypeError) for n in (1.0, "2", None, [2], 1j)),
]


@pytest.mark.parametrize("number", [1, 2, 3, MOST, np.int64(2)])
def test_set_and_get(number):
    cpunorm.set_num_threads(number)
    assert cpunorm.get_num_threads() == number
    assert type(cpunorm.get_num_threads()) is int


@pytest.mark.parametrize(("number", "error"), BAD, ids=repr)
@pytest.mark.parametrize("function", [cpunorm.set_num_threads, lambda n: cpunorm.num_threads(n).__enter__()])
def test_bad_numbers(function, number, error):
    cpunorm.set_num_threads(2)
    with pytest.raises(error) as caught:
        function(number)
    assert type(caught.value) is error
    assert repr(number) in str(caught.value)
    assert cpunorm.get_num_threads() == 2


@pytest.mark.parametrize("number", [0, -1, True])
def test_bad_numbers_are_torchs(number):
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError):
        torch.set_num_threads(number)


def test_context():
    cpunorm.set_num_threads(3)
    with cpunorm.num_threads(1):
        assert cpunorm.get_num_threads() == 1
        with cpunorm.num_threads(2):
            assert cpunorm.get_num_threads() == 2
        assert cpunorm.get_num_threads() == 1
    with pytest.raises(ZeroDivisionError), cpunorm.num_threads(1):
        raise ZeroDivisionError
    assert cpunorm.get_num_threads() == 3


# Where the number comes from, in fresh processes

SHOW = "import cpunorm; c = cpunorm.show_config('dicts'); print(c['threads'], c['threads because of'], sep=';')"


@functools.cache
def unset():
    """What it is without a variable."""
    return fresh.output(SHOW)


@pytest.mark.parametrize(
    ("environment", "threads", "why"),
    [
        ({"CPUNORM_NUM_THREADS": "3"}, 3, "CPUNORM_NUM_THREADS"),
        ({"CPUNORM_NUM_THREADS": " +1 "}, 1, "CPUNORM_NUM_THREADS"),
        ({"CPUNORM_NUM_THREADS": "3", "OMP_NUM_THREADS": "2"}, 3, "CPUNORM_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "5"}, 5, "OMP_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "5,2"}, 5, "OMP_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "1000000000"}, MOST, "OMP_NUM_THREADS"),
    ],
    ids=str,
)
def test_environment(environment, threads, why):
    assert fresh.output(SHOW, **environment) == f"{threads};{why}"


@pytest.mark.parametrize(
    "given", ["0", "many", *(pytest.param(given, marks=pytest.mark.slow) for given in ("-1", "", "2.5", "²"))]
)
def test_a_malformed_omp_num_threads_is_ignored(given):
    """As OpenMP itself does; another program's variable is no reason to fail at import."""
    assert fresh.output(SHOW, OMP_NUM_THREADS=given) == unset()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no CPU affinity")
def test_affinity_is_respected():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " + SHOW
    assert fresh.output(code) in ("1;CPU affinity", "1;cgroup quota of 1 cores")


# What limits it later, or is mistaken for a limit

PINNED = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
LIMITED = """
import os, sys
import numpy as np
from threadpoolctl import threadpool_limits
{before}
import cpunorm
from cpunorm import _cpu
{after}
def used():
    assert _cpu.threads_for(1 << 22, 1) == cpunorm.get_num_threads()
    return cpunorm.get_num_threads()
def why():
    return cpunorm.show_config("dicts")["threads because of"]
"""
two_cpus = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs, and a say in them"
)


@two_cpus
@pytest.mark.parametrize(
    "binding",
    [
        {"OMP_PROC_BIND": "true"},
        *(
            pytest.param(binding, marks=pytest.mark.slow)
            for binding in (
                {"OMP_PROC_BIND": "close"},
                {"OMP_PROC_BIND": "spread"},
                {"OMP_PLACES": "cores"},
                {"OMP_PLACES": "threads", "OMP_PROC_BIND": "master"},
            )
        ),
        {"GOMP_CPU_AFFINITY": ",".join(map(str, sorted(os.sched_getaffinity(0))))},
    ]
    if hasattr(os, "sched_getaffinity")
    else [],
    ids=str,
)
def test_openmp_binds_threads_and_takes_no_cpu_away(binding):
    """It binds the importing thread to one core; the process still has what it was given."""
    assert fresh.output(SHOW, **binding) == unset()
    assert fresh.output(PINNED + SHOW, **binding).startswith("1;")


@openmp
@two_cpus
def test_places_of_one_cpu():
    cpu = min(os.sched_getaffinity(0))
    assert fresh.output(SHOW, OMP_PLACES=f"{{{cpu}}}") == "1;CPU affinity"


@openmp
@pytest.mark.parametrize("torch", [False, pytest.param(True, marks=shared)])
def test_openmp_s_own_number_is_a_limit(torch):
    """`threadpoolctl` sets it, for joblib and scikit-learn; `torch.set_num_threads` does where torch was first."""
    pytest.importorskip("threadpoolctl")
    if torch:
        pytest.importorskip("torch")
    limits = "torch.set_num_threads(1)" if torch else "threadpool_limits(1)"
    code = (
        LIMITED.format(before="import torch" if torch else "", after="")
        + f"""
def tasks():
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1
{limits}
before = tasks()
print(used(), why())
cpunorm.functional.group_norm(np.zeros((8, 64, 64, 64), np.float32), 4)
print(tasks() - before)
"""
    )
    assert fresh.output(code, OMP_NUM_THREADS="2") == "1 OpenMP's number of threads\n0"


@openmp
def test_the_number_set_last_wins():
    pytest.importorskip("threadpoolctl")
    code = (
        LIMITED.format(before="", after="")
        + """
print(used())
with threadpool_limits(1):
    print(used())
    with cpunorm.num_threads(3):
        print(used(), why())
    print(used())
print(used())
cpunorm.set_num_threads(4)
print(used(), why())
with threadpool_limits(1):
    print(used())
with threadpool_limits(3):
    print(used())
print(used())
"""
    )
    assert fresh.output(code, OMP_NUM_THREADS="2").split("\n") == [
        *("2", "1", "3 set_num_threads", "1", "2", "4 set_num_threads", "1", "3", "4")
    ]


@openmp
@shared
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="loads gcc's OpenMP by its name")
def test_imported_inside_a_limit():
    pytest.importorskip("threadpoolctl")
    before = "import ctypes; ctypes.CDLL('libgomp.so.1'); limits = threadpool_limits(1)"
    code = LIMITED.format(before=before, after="")
    code += "print(used()); limits.restore_original_limits(); print(used())"
    assert fresh.output(code, OMP_NUM_THREADS="2") == "1\n2"


@two_cpus
def test_pinned_after_import():
    pytest.importorskip("threadpoolctl")
    code = (
        LIMITED.format(before="", after="cpunorm.set_num_threads(3)")
        + """
import threading, time
cpus = os.sched_getaffinity(0)
print(used(), why())
os.sched_setaffinity(0, {min(cpus)})
print(cpunorm.get_num_threads(), why())
time.sleep(0.11)
print(_cpu.threads_for(1 << 22, 1))
thread = threading.Thread(target=lambda: (os.sched_setaffinity(0, cpus), print(used())))
thread.start()
thread.join()
print(used())
with cpunorm.num_threads(2):
    print(used())
os.sched_setaffinity(0, cpus)
time.sleep(0.11)
print(used())
"""
    )
    assert fresh.output(code).split("\n") == [*("3 set_num_threads", "1 CPU affinity", "1", "3", "1", "2", "3")]


# Forks: libgomp's threads don't come along, and a team started without them waits for ever

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
PARALLEL = """
import os, sys
import numpy as np
import cpunorm
cpunorm.set_num_threads(2)
x = np.random.default_rng(0).normal(size=(8, 16, 64, 64)).astype(np.float32)
module = cpunorm.BatchNorm2d(16, momentum=None)
def norms():
    return [module(x), cpunorm.functional.group_norm(x, 4), cpunorm.functional.layer_norm(x, (64, 64))]
expected = norms()
def check():
    return all(np.array_equal(y, z) for y, z in zip(norms(), expected))
"""


@forks
def test_a_forked_child_runs_on_one_thread_until_it_says_otherwise():
    code = (
        PARALLEL
        + """
child = os.fork()
if child == 0:
    assert cpunorm.get_num_threads() == 1
    assert "fork" in cpunorm.show_config("dicts")["threads because of"]
    assert check()
    cpunorm.set_num_threads(2)
    assert cpunorm.get_num_threads() == 2
    assert check()
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert cpunorm.get_num_threads() == 2
assert check()
print("alive")
"""
    )
    assert fresh.output(code) == "alive"


@forks
def test_fork_while_other_threads_are_in_a_kernel():
    code = (
        PARALLEL
        + """
import threading
stop = threading.Event()
def work():
    while not stop.is_set():
        cpunorm.functional.group_norm(x, 4)
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
children = []
for _ in range(5):
    child = os.fork()
    if child == 0:
        os._exit(7 if np.array_equal(cpunorm.functional.group_norm(x, 4), expected[1]) else 1)
    children.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
stop.set()
for thread in threads:
    thread.join()
print(codes)
"""
    )
    assert fresh.output(code) == "[7, 7, 7, 7, 7]"


@forks
def test_a_pool_of_forked_workers():
    code = (
        PARALLEL
        + """
import multiprocessing
def work(n):
    y = cpunorm.functional.group_norm(x, 4)
    return cpunorm.get_num_threads(), np.array_equal(y, expected[1])
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(set(pool.map(work, range(8))))
"""
    )
    assert fresh.output(code) == "{(1, True)}"


# Many threads calling at once


def test_a_storm_of_mixed_calls(engine):
    """Every call gives the bits that it gives alone, whatever else runs; the large ones are in parallel regions."""
    cpunorm.set_num_threads(2)
    work = []
    for shape in [(2, 6, 5), (3, 6, 7, 5), (8, 6, 40, 40), (2, 6, 96, 65)]:
        for dtype in (np.float32, np.float64):
            x = values(shape, dtype)
            work += [(norm.run, x, norm.run(x)) for norm in NORMS.values()]
    order = np.random.default_rng(0).permutation(4 * len(work)) % len(work)

    def call(index):
        run, x, expected = work[index]
        np.testing.assert_array_equal(run(x), expected)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(call, order))
    finally:
        sys.setswitchinterval(before)


def test_changing_the_number_while_others_call(engine):
    x = values((8, 6, 40, 40))
    expected = {name: norm.run(x) for name, norm in NORMS.items()}

    def change():
        for number in (1, 2, 3, 8) * 5:
            cpunorm.set_num_threads(number)

    def call():
        for name, norm in NORMS.items():
            np.testing.assert_array_equal(norm.run(x), expected[name])

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(task) for task in (change, call, call, call)]:
            future.result()


@pytest.mark.parametrize("name", NORMS)
def test_kernels_release_the_gil(engine, name):
    """With no forced switches, another Python thread runs during a call only if the call lets it."""
    x = values((2, 64, 64, 64))
    out = np.empty_like(x)
    seen = []

    def call(started):
        started.set()
        NORMS[name].run(x, out=out)
        seen.append("end")

    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        for _ in range(50):  # once is proof; the machine may be too busy to wake this thread in time
            seen.clear()
            started = threading.Event()
            thread = threading.Thread(target=call, args=[started])
            thread.start()
            started.wait()
            seen.append("meanwhile")
            thread.join()
            if seen[0] == "meanwhile":
                return
    finally:
        sys.setswitchinterval(before)
    pytest.fail("no other thread ran during any of 50 calls")


def allowed_cpus():
    """The CPUs that each thread of this process may run on."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # of a thread that has ended meanwhile
            lines = (task / "status").read_text().splitlines()
            found |= {line for line in lines if line.startswith("Cpus_allowed:")}
    return found


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads Linux's /proc")
def test_a_team_that_starts_cold_keeps_its_cpus():
    x = np.zeros((1, 64, 256, 256), np.float32)
    before = allowed_cpus()
    for _ in range(20):
        time.sleep(0.03)  # the team falls asleep, and is woken on the CPU of the caller, which it leaves
        batch_norm(x, None, None, training=True)
        assert allowed_cpus() == before


def test_small_work_waits_for_a_team_that_is_awake():
    cpunorm.set_num_threads(2)
    time.sleep(0.05)
    assert _cpu.threads_for(1 << 16, 1) == 1
    # A busy machine may let 2 ms pass between two calls, but hardly between any two.
    assert any(_cpu.threads_for(1 << 16, 1) == 2 for _ in range(100))
    time.sleep(0.05)
    assert _cpu.threads_for(1 << 22, 1) == 2
    assert _cpu.threads_for(1 << 14, 1) == 1
