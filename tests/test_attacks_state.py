"""Attacks on the state of modules: forks, signals, finalizers and trace functions that call the module they interrupt.

Each runs in a process of its own, whose end by a timeout is the failure: a hang.
"""

import os
import signal
import sys
from pathlib import Path

import fresh
import pytest

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

# A module that another thread trains, with constant batches whose mean and unbiased variance are both 2 * s * s.
TRAINED = """
import copy, gc, os, pickle, signal, sys, threading, time, warnings
import numpy as np
import cpunorm

sys.setswitchinterval(1e-5)
module = cpunorm.BatchNorm1d(512, momentum=1.0)
x = np.full((2, 512), 2, np.float32) + np.array([[-1], [1]], np.float32)
big = np.full((400, 512), 2, np.float32) + np.array([[-1], [1]] * 200, np.float32)
checkpoint = module.state_dict()
stop = threading.Event()

def train():
    while not stop.is_set():
        module(x)
        module(big)

def load():
    while not stop.is_set():
        module.load_state_dict(checkpoint)

def start(*targets):
    threads = [threading.Thread(target=target, daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    while module.num_batches_tracked == 0:
        module(x)
    return threads

def end(threads):
    stop.set()
    for thread in threads:
        thread.join()

def works():
    before = int(module.num_batches_tracked)
    module(x)
    assert module.num_batches_tracked == before + 1
    assert module.running_mean[0] == 2, module.running_mean
    module.load_state_dict(copy.deepcopy(module).state_dict())
    module.eval()(x)
    module.train()

def in_child(work, fork=os.fork):
    child = fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""

CHILDREN = {
    "a child": "works()",
    "a grandchild": "assert in_child(works) == 7",
    "two threads": "cpunorm.set_num_threads(2); works(); module(big)",
    "a thread that trains": "stop.clear(); threads = start(train, load); time.sleep(0.01); end(threads); works()",
}


@forks
@pytest.mark.parametrize(
    "child", [pytest.param(child, marks=[pytest.mark.slow] * (child != "a child")) for child in CHILDREN]
)
def test_fork_while_other_threads_train_and_load(child):
    code = f"""{TRAINED}
def work():
    {CHILDREN[child]}
codes = []
for others in ([train], [load], [train, load]):
    stop.clear()
    threads = start(*others)
    codes += [in_child(work) for _ in range(20)]
    end(threads)
print(set(codes))
"""
    assert fresh.output(code) == "{7}"


@forks
def test_fork_from_c_without_pythons_hooks():
    """The other thread is in a kernel: if it waited for the GIL, the child would have a Python that can't run."""
    code = f"""{TRAINED}
import ctypes
fork = ctypes.PyDLL(None).fork
large = np.ones((1 << 17, 512), np.float32)
cpunorm.set_num_threads(2)
module(large)
def more():
    assert cpunorm.get_num_threads() == 1 and "forked" in cpunorm.show_config("dicts")["threads because of"]
    works()
    with cpunorm.num_threads(2):
        module(large)
    assert cpunorm.get_num_threads() == 1
thread = threading.Thread(target=module, args=[large])
thread.start()
time.sleep(0.003)  # a tenth of what the call takes
print(in_child(more, fork))
thread.join()
"""
    assert fresh.output(code) == "7"


@pytest.mark.parametrize(
    "method", ["fork", *(pytest.param(method, marks=pytest.mark.slow) for method in ("forkserver", "spawn"))]
)
def test_multiprocessing_while_other_threads_train(method):
    code = f"""{TRAINED}
import multiprocessing
if __name__ == "__main__" and {method!r} in multiprocessing.get_all_start_methods():
    threads = start(train, load)
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        results = [pool.apply_async(module, [x]) for _ in range(20)]
        assert all(np.array_equal(result.get(), module(x)) for result in results)
    end(threads)
print("whole")
"""
    assert fresh.output(code) == "whole"


# What calls the module in the middle of a call of it
CALLS = "module(x); module.load_state_dict(checkpoint); copy.deepcopy(module); module.state_dict()"
INTERRUPTED = {
    "a signal handler": f"""
calls = 0
def handler(*_):
    global calls
    calls += 1
    {CALLS}
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
while calls < 100:
    module(big)
    module.load_state_dict(checkpoint)
    module.state_dict()
signal.setitimer(signal.ITIMER_REAL, 0)
""",
    "a finalizer": f"""
calls = 0
class Cycle:
    def __init__(self):
        self.me = self
    def __del__(self):
        global calls
        calls += 1
        {CALLS}
gc.set_threshold(1)
while calls < 500:
    Cycle()
    module(x)
    module(x.astype(np.float64).astype(np.float32)[::-1])
    module.load_state_dict(checkpoint)
gc.set_threshold(700)
""",
    "a trace function": f"""
calls = 0
def trace(frame, event, argument):
    global calls
    if "cpunorm" in frame.f_code.co_filename:
        calls += 1
        sys.settrace(None)
        {CALLS}
        sys.settrace(trace)
    return trace
sys.settrace(trace)
for _ in range(10):
    {CALLS}
    module(x[::-1])
sys.settrace(None)
assert calls > 100
""",
    "what shows a warning": f"""
calls = 0
def show(*_, **__):
    global calls
    calls += 1
    {CALLS}
class Warns:
    def __array__(self, dtype=None, copy=None):
        warnings.warn("an array", stacklevel=1)
        return np.ones(512)
warnings.simplefilter("always")
warnings.showwarning = show
for _ in range(100):
    module.load_state_dict(checkpoint | {{"weight": Warns()}})
assert calls == 100
""",
    "a checkpoint": f"""
class Lazy(dict):
    def __getitem__(self, key):
        {CALLS}
        return super().__getitem__(key)
for _ in range(100):
    module.load_state_dict(Lazy(checkpoint))
""",
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[pytest.mark.slow] * (case in ("a finalizer", "a trace function")))
        for case in INTERRUPTED
    ],
)
def test_the_module_is_called_by_what_interrupts_it(case):
    if "signal" in case and not hasattr(signal, "setitimer"):
        pytest.skip("this system has no timer signals")
    code = f"""{TRAINED}
for others in ([], [load], [train]):
    stop.clear()
    threads = start(*others)
    exec({INTERRUPTED[case]!r})
    end(threads)
    works()
print('alive')
"""
    assert fresh.output(code) == "alive"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timer signals")
def test_keyboard_interrupts_leave_no_trace():
    """Whatever is interrupted, every call has counted or not begun, and nothing stays locked."""
    code = f"""{TRAINED}
threads = start(load)
def handler(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, handler)
for turn in range(300):
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-4 * (1 + turn % 7))
        while True:
            module(big)
            module.load_state_dict(checkpoint)
            copy.deepcopy(module)
    except KeyboardInterrupt:
        pass
end(threads)
works()
print("alive")
"""
    assert fresh.output(code) == "alive"


def test_loads_are_not_put_off_by_calls_that_keep_coming():
    """Some kernel is always running here, if calls don't wait for a load that waits."""
    code = f"""{TRAINED}
module.eval()
large = np.zeros((4000, 512), np.float32)
cpunorm.set_num_threads(1)
def call():
    while not stop.is_set():
        module(large)
threads = [threading.Thread(target=call, daemon=True) for _ in range(8)]
for thread in threads:
    thread.start()
for _ in range(100):
    module.load_state_dict(checkpoint)
end(threads)
print("loaded")
"""
    assert fresh.output(code) == "loaded"


def test_the_end_of_python_waits_for_nobody():
    """Daemon threads vanish in the middle of calls and loads; what then still runs must not wait for them."""
    code = f"""{TRAINED}
class Last:
    def __del__(self):
        for _ in range(3):
            module.load_state_dict(checkpoint)
            module(x)
        os.write(1, b"done")
sys.last_value = Last()  # which Python drops after it has ended the other threads
large = np.zeros((20000, 512), np.float32)
def train_long():
    while True:
        module(large)
start(train_long, train_long, load)
time.sleep(0.05)
"""
    assert fresh.output(code) == "done"


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="calls glibc's on_exit")
def test_kernels_may_go_on_after_the_end_of_python():
    """Those of daemon threads that have begun: they enter a parallel region when there is no Python any more."""
    code = """
import ctypes, sys, threading, time
import numpy as np
import cpunorm
cpunorm.set_num_threads(2)
libc = ctypes.CDLL(None)
libc.on_exit(libc.sleep, None)  # when Python has ended, for as many seconds as the exit status says
module = cpunorm.BatchNorm1d(128)
def train(x):
    while True:
        module(x, out=x)
for _ in range(8):
    threading.Thread(target=train, args=[np.ones((1 << 15, 128), np.float32)], daemon=True).start()
time.sleep(0.1)
sys.exit(1)
"""
    for _ in range(8):
        done = fresh.python(code)
        assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.slow
@forks
def test_a_short_storm():
    """See storm.py; it takes a seed and a number of seconds."""
    code = (
        f"import runpy, sys; sys.argv = ['storm.py', '--seconds', '5', '--seed', '0']; "
        f"runpy.run_path({str(Path(__file__).with_name('storm.py'))!r}, run_name='__main__')"
    )
    assert fresh.output(code, timeout=60).startswith("storm: ")


def test_an_engine_is_set_at_once():
    """A fork, a call or another `set_engine` in the middle of one sees one engine or the other, and stays with it."""
    code = """
import numpy as np
import cpunorm
from cpunorm import _call, _engine, _kernels_reference, functional

x = np.ones((2, 4), np.float16)

class Interrupted:
    def __getattr__(self, name):
        functional.layer_norm(x, 4)
        return getattr(_kernels_reference, name)

for engine in ("cython", "reference"):
    _engine.select(engine)
    _call.use_kernels(Interrupted())
print(functional.layer_norm(x, 4).sum())
"""
    assert fresh.output(code) == "0.0"
