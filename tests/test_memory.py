"""Outputs' memory is used again, but never while anything can still see it."""

import gc
import operator
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fresh
import numpy as np
import pytest

import cpunorm
from cpunorm import _kernels_reference, _memory
from cpunorm.functional import layer_norm

MIB = 2**20
LARGE = (4, MIB // 4)  # float32: 4 MiB


@pytest.fixture(autouse=True)
def _own_pool():
    """Each test starts with nothing kept, and leaves the limit as it was."""
    limit = cpunorm.get_cache_limit()
    cpunorm.set_cache_limit(64 * MIB)
    cpunorm.empty_cache()
    yield
    cpunorm.set_cache_limit(limit)
    cpunorm.empty_cache()


def address(array):
    return array.__array_interface__["data"][0]


def output(shape=LARGE, dtype=np.float32):
    """A fresh output that is 0 everywhere."""
    return layer_norm(np.ones(shape, dtype), shape[-1])


def since(before):
    """How many outputs took a kept block, and how many made one, after the statistics `before`."""
    after = _memory.statistics()
    return after["reused"] - before["reused"], after["made"] - before["made"]


@pytest.mark.usefixtures("engine")
def test_the_memory_of_a_dead_output_is_used_again():
    before = _memory.statistics()
    first = output()
    where = address(first)
    del first
    assert _memory.statistics()["bytes"] >= 4 * MIB
    assert address(output()) == where
    assert since(before) == (1, 1)


def test_an_output_is_an_ordinary_array():
    y = output()
    assert type(y) is np.ndarray
    assert y.flags.owndata
    assert y.flags.writeable
    assert y.base is None
    assert address(y) % 64 == 0
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(y)), y)
    y.fill(3)
    y.resize((8, MIB // 4), refcheck=False)  # NumPy asks the pool to move it
    np.testing.assert_array_equal(y[:4], 3)
    y.resize((1, 10), refcheck=False)
    np.testing.assert_array_equal(y, 3)


@pytest.mark.parametrize("offset", range(0, 1024, 112))
def test_an_output_does_not_lie_just_ahead_of_its_input_within_a_page(offset):
    """Many CPUs have a load wait for a store to where it would be in another page of 4096 bytes."""
    width = MIB // 4 - 4  # whole pages with 64 bytes before them
    x = np.zeros(MIB + 1024, np.float32)[offset:][: 4 * width].reshape(4, width)
    for _ in range(2):  # of new memory, and of that again
        before = _memory.statistics()["spare"]
        y = layer_norm(x, width)
        assert address(y) % 64 == 0
        assert (address(y) - address(x)) % 4096 >= 2048
        assert _memory.statistics()["spare"] - before >= address(y) % 4096  # so it ends within its block
        y.fill(offset)
        y.resize((8, width), refcheck=False)
        np.testing.assert_array_equal(y[:4], offset)
        del y


def by_dlpack(y):
    return np.from_dlpack(y)


def by_torch(y):
    return pytest.importorskip("torch").from_numpy(y)


VIEWS = {
    "slice": lambda y: y[1:3],
    "last element": lambda y: y[-1:, -1:],
    "transpose": operator.attrgetter("T"),
    "reshape": lambda y: y.reshape(-1, 64),
    "other dtype": lambda y: y.view(np.int32),
    "view of a view of a view": lambda y: y[1:][::-1][:, 3:9].T,
    "flat": operator.attrgetter("flat"),
    "memoryview": memoryview,
    "frombuffer": lambda y: np.frombuffer(y, np.uint8),
    "as_strided": lambda y: np.lib.stride_tricks.as_strided(y, (3,), (y.strides[0],)),
    "broadcast": lambda y: np.broadcast_to(y, (2, *y.shape)),
    "field of a record": lambda y: y.view([("a", "f4"), ("b", "f4")])["b"],
    "ctypes": lambda y: np.ctypeslib.as_ctypes(y),
    "cycle": lambda y: (cycle := [y], cycle.append(cycle))[0],
    "DLPack": by_dlpack,
    "torch": by_torch,
}


@pytest.mark.slow
@pytest.mark.parametrize("view", VIEWS)
def test_memory_that_a_view_sees_is_not_handed_out(view):
    y = output()
    start, end = address(y), address(y) + y.nbytes
    seen = VIEWS[view](y)
    del y
    gc.collect()
    others = [output() for _ in range(4)]
    for other in others:
        assert address(other) + other.nbytes <= start or address(other) >= end
    del seen, other, others
    gc.collect()
    assert _memory.statistics()["bytes"] >= 5 * 4 * MIB


@pytest.mark.slow
def test_outputs_and_views_at_random():
    """Thousands of outputs, views and deaths: what is alive keeps the value that was written to it."""
    random = np.random.default_rng(0)
    alive = {}
    before = _memory.statistics()
    for number in range(3000):
        if len(alive) < 8 and random.random() < 0.6:
            y = output((int(random.integers(1, 9)), int(random.integers(65536, 98304))))
            y.fill(number)
            alive[number] = y[:, :: int(random.integers(1, 4))] if random.random() < 0.5 else y
            del y
        elif alive:
            number = random.choice(list(alive))
            values = alive.pop(number)
            assert values[0, 0] == values[-1, -1] == number
            assert (values == number).all()
            del values
    reused, made = since(before)
    assert reused > made > 0


def test_an_error_after_the_allocation_gives_the_memory_back(monkeypatch):
    def broken(*arguments):
        raise MemoryError("as a kernel without scratch")

    output()
    kept = _memory.statistics()
    monkeypatch.setattr(_kernels_reference, "forward", broken)
    with cpunorm.engine("reference"):
        for _ in range(3):
            with pytest.raises(MemoryError, match="scratch"):
                output()
    gc.collect()
    assert _memory.statistics()["bytes"] == kept["bytes"]


def test_the_limit_holds_and_the_longest_unused_goes_first():
    cpunorm.set_cache_limit(11 * MIB)
    a, b, c = output(), output(), output((4, 3 * MIB // 8))  # 4, 4 and 6 MiB
    where = address(b)
    del a
    del b
    del c  # 14 MiB do not fit: a goes
    assert _memory.statistics()["blocks"] == 2
    assert _memory.statistics()["bytes"] <= 11 * MIB
    before = _memory.statistics()
    y = output()
    assert address(y) == where
    assert since(before) == (1, 0)
    del y
    cpunorm.set_cache_limit(MIB)
    assert _memory.statistics()["bytes"] == 0
    output()
    assert _memory.statistics()["bytes"] == 0  # larger than all that may be kept


def test_many_blocks_are_bounded_too():
    outputs = [output((1, 65536 * 5 // 4)) for _ in range(100)]
    del outputs
    statistics = _memory.statistics()
    assert 0 < statistics["blocks"] <= 64
    assert statistics["bytes"] <= cpunorm.get_cache_limit()


def test_a_limit_of_0_and_empty_cache():
    output()
    assert _memory.statistics()["blocks"] == 1
    cpunorm.empty_cache()
    assert _memory.statistics()["blocks"] == _memory.statistics()["bytes"] == 0
    cpunorm.set_cache_limit(0)
    before = _memory.statistics()
    output()
    output()
    assert since(before) == (0, 0)


def test_small_outputs_are_left_to_numpy():
    before = _memory.statistics()
    for _ in range(3):
        output((2, 100))
    assert since(before) == (0, 0)


def test_much_smaller_outputs_do_not_take_large_blocks():
    output()
    before = _memory.statistics()
    assert output((2, MIB // 4)).nbytes == 2 * MIB
    assert since(before) == (0, 1)


def test_stride_order_is_kept():
    x = np.ones((2, 64, 64, 32), np.float32).transpose(0, 3, 1, 2)
    assert cpunorm.functional.group_norm(x, 4).strides == x.strides


@pytest.mark.slow
@pytest.mark.usefixtures("engine")
def test_many_threads_and_sizes():
    def work(seed):
        random = np.random.default_rng(seed)
        for _ in range(30):
            rows, value = int(random.integers(1, 6)), float(random.integers(1, 100))
            x = np.tile(np.float32([-value, value]), (rows, 65536 // 2 * 3))
            y = layer_norm(x, x.shape[1:], eps=0.0)
            assert (np.abs(np.sign(x) - y) <= 2e-6).all()  # the accuracy that is promised everywhere

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(16)))


def test_statistics_are_shown(capsys):
    output()
    cpunorm.show_config()
    assert "4.0 MiB in 1 block, at most 64.0 MiB" in capsys.readouterr().out


@pytest.mark.parametrize("limit", [-1, 10**30])
def test_a_limit_out_of_range(limit):
    with pytest.raises(ValueError, match=str(limit)):
        cpunorm.set_cache_limit(limit)
    assert cpunorm.get_cache_limit() == 64 * MIB


@pytest.mark.parametrize("limit", [1.5, "1", None])
def test_a_limit_that_is_no_int(limit):
    with pytest.raises(TypeError, match=repr(limit)):
        cpunorm.set_cache_limit(limit)
    assert cpunorm.get_cache_limit() == 64 * MIB


def test_the_environment_variable():
    code = "import cpunorm; print(cpunorm.get_cache_limit())"
    assert fresh.output(code, CPUNORM_CACHE_BYTES="12345") == "12345"
    assert fresh.output(code, CPUNORM_CACHE_BYTES="0") == "0"
    assert 0 < int(fresh.output(code)) <= 512 * MIB


def test_a_forked_child_has_a_pool_of_its_own():
    code = """
import os
import numpy as np
from cpunorm.functional import layer_norm
x = np.tile(np.float32([-1, 1]), (4, 131072))
kept = layer_norm(x, x.shape[1:])
layer_norm(x, x.shape[1:])
child = os.fork()
values = [layer_norm(x * (child + 1), x.shape[1:]) for _ in range(4)]
good = all((np.sign(x) == np.sign(y)).all() for y in [kept, *values])
if child == 0:
    os._exit(0 if good else 1)
print(good and os.waitpid(child, 0)[1] == 0)
"""
    assert fresh.output(code) == "True"


# What the process holds, in fresh processes

linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
HELD = """
import resource
import numpy as np
import cpunorm
from cpunorm.functional import layer_norm
MIB = 2**20
def pages(column):
    with open("/proc/self/statm") as file:
        return int(file.read().split()[column]) * resource.getpagesize()
def size():
    return pages(0)
def resident():
    return pages(1)
"""


@linux
@pytest.mark.slow
@pytest.mark.parametrize("limit", [8, 0, 64])
def test_the_limit_is_on_what_the_process_holds(limit):
    """Outputs of random sizes, five held at a time: whatever the allocator keeps, rounds and splits counts."""
    code = (
        HELD
        + f"""
limit = {limit} * MIB
random = np.random.default_rng(0)
x = np.ones(6 * MIB, np.float32)
cpunorm.set_cache_limit(limit)
layer_norm(x, x.shape)
cpunorm.empty_cache()
before, most, held = resident(), 0, []
for _ in range(300):
    n = int(random.uniform(0.3, 24) * MIB / 4)
    if len(held) == 5:
        del held[random.integers(5)]
    held.append(layer_norm(x[:n], (n,)))
    most = max(most, resident() - before - sum(y.nbytes for y in held))
assert limit or cpunorm._memory.statistics()["made"] == 0
print(most < limit + 2 * MIB if limit else True, cpunorm._memory.statistics()["spare"] <= limit)
held.clear()
cpunorm.empty_cache()
print(resident() - before < 2 * MIB if limit else True)
"""
    )
    assert fresh.output(code).split() == ["True"] * 3


@linux
def test_kept_memory_is_given_back_before_an_output_fails():
    code = (
        HELD
        + """
x = np.ones(168 * MIB // 4, np.float32)
cpunorm.set_cache_limit(512 * MIB)
resource.setrlimit(resource.RLIMIT_AS, (size() + 400 * MIB,) * 2)
for n in (80, 104, 132, 168):
    n *= MIB // 4
    layer_norm(x[:n], (n,))
print("enough")
"""
    )
    assert fresh.output(code) == "enough"


@pytest.mark.slow
@linux
@pytest.mark.parametrize(
    "call", ["standardize(small[:n], dtype=np.float32)", "layer_norm(halves[:n], (n,), weight[:n])"]
)
def test_kept_memory_is_given_back_before_an_output_of_another_dtype_fails(call):
    code = (
        HELD
        + f"""
from cpunorm import standardize
size_of = 168 * MIB // 4
x, weight = np.ones(size_of, np.float32), np.ones(size_of, np.float32)
small, halves = np.ones(size_of, np.uint8), np.ones(size_of, ">f2")
cpunorm.set_cache_limit(512 * MIB)
resource.setrlimit(resource.RLIMIT_AS, (size() + 480 * MIB,) * 2)  # 352 needed, and what a thread reserves
for n in (80, 104, 132):
    n *= MIB // 4
    layer_norm(x[:n], (n,))
n = size_of
{call}
print("enough")
"""
    )
    assert fresh.output(code) == "enough"


@linux
def test_small_outputs_take_kept_memory_too():
    """NumPy makes them: the C library has no room for them when the pool has it all."""
    code = (
        HELD
        + """
x = np.ones(64 * MIB // 4, np.float32)
small = np.ones(160 * 256, np.float32)
cpunorm.set_cache_limit(512 * MIB)
resource.setrlimit(resource.RLIMIT_AS, (size() + 80 * MIB,) * 2)
layer_norm(x, x.shape)
held = [layer_norm(small, small.shape) for _ in range(300)]
print(cpunorm._memory.statistics()["blocks"])
"""
    )
    assert fresh.output(code) == "0"


@linux
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float16", marks=pytest.mark.slow)])
def test_no_memory_leaves_no_trace(dtype):
    """A call fails with MemoryError until there is enough; till then it changes nothing and keeps nothing."""
    code = (
        HELD
        + f"""
from cpunorm.functional import batch_norm
x = np.ones((8, 64, 64, 64), np.{dtype})
mean, var = np.zeros(64, np.float32), np.ones(64, np.float32)
batch_norm(x, None, None, training=True)
cpunorm.set_cache_limit(512 * MIB)
failed, start = 0, size()
for room in range(0, 64 * MIB, MIB):
    cpunorm.empty_cache()
    resource.setrlimit(resource.RLIMIT_AS, (size() + room, resource.RLIM_INFINITY))
    try:
        batch_norm(x, mean, var, training=True)
    except MemoryError:
        failed += 1
        assert (mean == 0).all() and (var == 1).all(), room
    else:
        assert (mean != 0).all() and (var != 1).all(), room
        mean[:], var[:] = 0, 1
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
    cpunorm.empty_cache()
print(0 < failed < 64, size() < start + 32 * MIB)  # half precision goes through the C library's heap, which keeps some
"""
    )
    assert fresh.output(code) == "True True"


# Every allocation made to fail

# What fails the n-th allocation that the package or NumPy asks the C library or the system for, and counts those of the
# package that live.
FAILING = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
void *__libc_malloc(size_t size);
void __libc_free(void *data);
static int left = -1, most = 0, live = 0;
void fail_from(int first, int number) { most = number; __atomic_store_n(&left, first, __ATOMIC_SEQ_CST); }
int allocations_left(void) { return left; }
int living(void) { return live; }
static int from(void *caller, const char *name) {
    Dl_info info;
    return dladdr(caller, &info) && info.dli_fname && strstr(info.dli_fname, name) != NULL;
}
static int ours(void *caller) { return from(caller, "/cpunorm/_") && !from(caller, "numpy"); }
static int fails(void *caller) {
    int number;
    if (most == 0 || !(ours(caller) || from(caller, "_multiarray_umath")))
        return 0;
    number = __atomic_fetch_sub(&left, 1, __ATOMIC_SEQ_CST);
    return number <= 0 && number > -most;
}
void *malloc(size_t size) {
    void *caller = __builtin_return_address(0), *data;
    if (fails(caller)) {
        errno = ENOMEM;
        return NULL;
    }
    data = __libc_malloc(size);
    if (data && most && ours(caller))
        __atomic_add_fetch(&live, 1, __ATOMIC_SEQ_CST);
    return data;
}
void free(void *data) {
    if (data && most && ours(__builtin_return_address(0)))
        __atomic_sub_fetch(&live, 1, __ATOMIC_SEQ_CST);
    __libc_free(data);
}
void *mmap(void *address, size_t size, int protection, int flags, int file, off_t offset) {
    if (fails(__builtin_return_address(0))) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return (void *) syscall(SYS_mmap, address, size, protection, flags, file, offset);
}
"""

# Calls that allocate in every way: scratch of rows, columns, lanes, parts and strips; pooled and small outputs.
CALLS = """
import ctypes, gc, sys
import numpy as np
import cpunorm
from cpunorm import _memory, _running
from cpunorm import moments, normalize_image, standardize, standardize_sliding
from cpunorm.functional import add_rms_norm, batch_norm, group_norm, layer_norm

rng = np.random.default_rng(0)
def values(*shape):
    return rng.standard_normal(shape, np.float32)
cpunorm.set_num_threads(2)
w = values(9000)
some = w.reshape(100, 90) > 0
calls = {
    "rows": (values(40, 300), lambda x, **o: layer_norm(x, 300, w[:300], None, **o)),
    "lanes": (values(4000, 8), lambda x, **o: layer_norm(x, 8, **o)),
    "parts": (values(2, 200000), lambda x, **o: layer_norm(x, 200000, **o)),
    "groups": (values(2, 8, 3, 5), lambda x, **o: group_norm(x, 2, w[:8], w[:8], **o)),
    "large groups": (values(2, 4, 300, 301), lambda x, **o: group_norm(x, 2, w[:4], w[:4], **o)),
    "strips": (values(300, 9000), lambda x, **o: batch_norm(x, None, None, w, w, True, **o)),
    "tall": (values(90000, 6), lambda x, **o: batch_norm(x, None, None, w[:6], w[:6], True, **o)),
    "samples": (values(9, 50, 40, 32), lambda x, **o: group_norm(x, 4, w[:32], None, data_format="channels_last", **o)),
    "evaluation": (values(300, 9000), lambda x, **o: batch_norm(x, w, w * w, w, w, **o)),
    "evaluation of planes": (values(4, 60, 40, 40), lambda x, **o: batch_norm(x, w[:60], w[:60] ** 2, **o)),
    "half": (values(40, 300).astype(np.float16), lambda x, **o: layer_norm(x, 300, **o)),
    "lengths": (values(3, 5, 70), lambda x, **o: layer_norm(x, 70, w[:70], lengths=[5, 0, 3], residual=x, **o)),
    "lengths of a batch": (values(3, 7, 9), lambda x, **o: batch_norm(x, w[:7], w[:7] ** 2, lengths=[9, 2, 0], **o)),
    "scale": (values(3, 8, 5), lambda x, **o: group_norm(x, 2, scale=x[..., 0].copy(), return_stats=True, **o)[0]),
    "sum": (values(40, 300), lambda x, out=None: add_rms_norm(x, x, 300, sum_out=out)[1]),
    "a sum across": (
        values(9, 300, 40),
        lambda x, out=None: add_rms_norm(*2 * (x.mT,), 300, sum_out=None if out is None else out.mT)[1],
    ),
    "image": (values(40, 50, 3), lambda x, **o: normalize_image(x, 0.5, 0.5, layout="HWC->HWC", **o)),
    "images": (np.ones((4, 9, 9, 3), np.uint8), lambda x, **o: normalize_image(list(x), 0.5, 0.5)),
    "moments": (values(4, 70000), lambda x, **o: moments(x, 1).mean),
    "some moments": (values(100, 90).astype(">f8"), lambda x, **o: moments(x, 0, where=some).m2),
    "standardize": (values(100, 90), lambda x, **o: standardize(x, 0, where=some, nan="omit", **o)),
    "sliding": (values(200, 90), lambda x, **o: standardize_sliding(x, 50, **o)),
    "strided": (values(4, 6, 5, 7, 2)[::2, :, ::2, :, 0], lambda x, **o: group_norm(x, 3, **o)),
}
kept = (np.ones(2**18, np.float32), 2**18)
module = cpunorm.BatchNorm1d(9000)

def state():
    return [v.tobytes() for v in module.state_dict().values()]

def closed():
    module.load_state_dict(module.state_dict())  # waits for ever if a call did not leave the gate
"""


@linux
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(1, id="one fails"),
        pytest.param(2, marks=pytest.mark.slow, id="two fail"),
        pytest.param(10**6, marks=pytest.mark.slow, id="all fail from there on"),
    ],
)
def test_any_allocation_in_c_may_fail(tmp_path, number):
    """MemoryError or the right result; `out=x` is that result or as it was; the gate is left."""
    library = tmp_path / "failing.so"
    subprocess.run(
        ["cc", "-O1", "-shared", "-fPIC", "-x", "c", "-", "-o", library, "-ldl"], input=FAILING.encode(), check=True
    )
    code = (
        CALLS
        + f"""
failing = ctypes.PyDLL({str(library)!r})
wrong, tried, errors = [], 0, 0
def attempt(name, run, right, untouched):
    global tried, errors
    for turn in range(1000):
        first = turn // 2
        _memory.empty_cache()
        if turn % 2:
            layer_norm(*kept)  # leaves memory that is given back, and then the call is tried again
        tried += 1
        failed = False
        living = failing.living()
        failing.fail_from(first, {number})
        try:
            y = run()
        except MemoryError:
            failed = True
        finally:
            over = failing.allocations_left() >= 0
            failing.fail_from(-1, 0)
        errors += failed
        if failed and not untouched():
            wrong.append((name, first, "not untouched"))
        if not failed and not right(y):
            wrong.append((name, first, "wrong"))
        if over and turn % 2:
            return
for name, (x, call) in calls.items():
    expected = call(x)
    attempt(name, lambda: call(x), lambda y: np.array_equal(y, expected), lambda: True)
    inside = x.copy()
    def in_place():
        inside[...] = x
        return call(inside, out=inside)
    attempt(name + " in place", in_place, lambda y: np.array_equal(y, expected), lambda: np.array_equal(inside, x))
x = calls["strips"][0]
before = [v for v in state()]
attempt("module", lambda: module(x), lambda y: module.reset_running_stats() is None, lambda: state()[:4] == before[:4])
closed()
print(tried, errors, wrong)
"""
    )
    done = fresh.python(code, LD_PRELOAD=str(library), timeout=200)
    assert done.returncode == 0, done.stderr
    tried, errors, wrong = done.stdout.split(maxsplit=2)
    assert wrong.strip() == "[]"
    assert int(tried) > int(errors) > 20


@linux
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="CPython crashes by itself there, of functions in Python alone")
def test_any_allocation_of_python_may_fail():
    """The same of objects, and without a compiler: CPython can make its own allocations fail."""
    pytest.importorskip("_testcapi")
    code = (
        CALLS
        + """
from _testcapi import remove_mem_hooks, set_nomemory
calls |= {
    "module": (values(4, 9000), lambda x: module(x)),
    "load": (module.state_dict(), lambda x: module.load_state_dict(x)),
    "copy": (None, lambda x: module.state_dict()),
    "unusual": (values(40, 300), lambda x: layer_norm(x, [np.int64(300)], eps=np.float32(1e-5))),
    "an error": (values(40, 300), lambda x: layer_norm(x, 7)),
}
for name in ("some moments", "standardize"):
    del calls[name]  # np.broadcast_to breaks by itself there
tried = errors = 0
for name, (x, call) in calls.items():
    if x is not None and not isinstance(x, dict) and x.size > 100000:
        x = x[:1] if name in ("parts", "large groups") else x[:40]
    for first in range(1000):
        before, failed = state(), False
        try:
            set_nomemory(first, first + 1)
            call(x)
            remove_mem_hooks()
        except MemoryError:
            remove_mem_hooks()
            failed = True
        except (RuntimeError, SystemError):  # the latter of Cython, if an error's traceback finds no memory
            remove_mem_hooks()
            assert name == "an error"
        tried += 1
        errors += failed
        if failed:
            assert state()[:4] == before[:4], (name, first)  # the counter counts it, as in torch
        elif first > 40:
            break
    closed()
print(tried, errors)
"""
    )
    tried, errors = map(int, fresh.output(code, timeout=120).split())
    assert tried > errors > 20
