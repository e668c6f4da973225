"""The number of threads: its rules, where it comes from, forks, and many threads calling at once."""

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
from cpunorm import _express
from cpunorm.functional import batch_norm

MOST = max(256, os.cpu_count())
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


@pytest.mark.parametrize("given", ["0", "-1", "many", "", "2.5", "²"])
def test_a_malformed_omp_num_threads_is_ignored(given):
    """As OpenMP itself does; another program's variable is no reason to fail at import."""
    assert fresh.output(SHOW, OMP_NUM_THREADS=given) == fresh.output(SHOW)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        *((given, "RuntimeError") for given in ("0", "-1", "1000000000", "9" * 30)),
        *((given, "TypeError") for given in ("many", "", "2.5", "1e3", "²")),
    ],
)
def test_a_bad_cpunorm_num_threads_is_an_error(given, error):
    last = fresh.error("import cpunorm", CPUNORM_NUM_THREADS=given)
    assert last.startswith(f"{error}: CPUNORM_NUM_THREADS must be")
    assert given.strip() in last


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no CPU affinity")
def test_affinity_is_respected():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " + SHOW
    assert fresh.output(code) in ("1;CPU affinity", "1;cgroup quota of 1 cores")


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
    return {
        line
        for task in Path("/proc/self/task").iterdir()
        for line in (task / "status").read_text().splitlines()
        if line.startswith("Cpus_allowed:")
    }


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
    assert _express.threads_for(1 << 16, 1) == 1
    # A busy machine may let 2 ms pass between two calls, but hardly between any two.
    assert any(_express.threads_for(1 << 16, 1) == 2 for _ in range(100))
    time.sleep(0.05)
    assert _express.threads_for(1 << 22, 1) == 2
    assert _express.threads_for(1 << 14, 1) == 1
