"""A storm: threads do everything at once to a few modules; what each sees is whole, the end is some serial order.

    python tests/storm.py --seed 1 --seconds 600 --threads 8 --engines cython reference numba

Ends with an error at the first thing seen that no order of the operations explains. A hang prints all stacks.
"""

import argparse
import copy
import faulthandler
import io
import os
import pickle
import signal
import sys
import threading
import time
from collections import Counter

import numpy as np
import numpy.ma  # np.unique's lazy import of it would hang a child forked in the middle of it

import cpunorm

CHANNELS = 300
STEPS = (1, 3, 5)
VERSIONS = (1, 2, 4)
ZEROS = np.zeros((3, CHANNELS), np.float32)
HANG = 60  # seconds


def batch(step, rows=2):
    """Mean and, with 2 rows, unbiased variance are both 2 * step * step in every channel."""
    return np.full((rows, CHANNELS), 2 * step * step, np.float32) + np.array(
        [[-step], [step]] * (rows // 2), np.float32
    )


def checkpoint(version, step):
    """All of one version: statistics of `step`."""
    statistics = np.full(CHANNELS, 2 * step * step)
    parameters = np.full(CHANNELS, version)
    return {"weight": parameters, "bias": parameters, "running_mean": statistics, "running_var": statistics}


class Storm:
    """`shared` is trained with momentum 1, loaded without a counter, and failed at; `average` is only trained."""

    def __init__(self, engines):
        self.engines = engines
        self.shared = cpunorm.BatchNorm1d(CHANNELS, momentum=1.0)
        self.shared.load_state_dict(checkpoint(VERSIONS[0], STEPS[0]))
        self.observer = copy.copy(self.shared).eval()  # the same arrays, a flag of its own
        self.rows = cpunorm.LayerNorm(CHANNELS)
        self.average = cpunorm.BatchNorm1d(CHANNELS, momentum=None)
        self.outputs = [v - v * 2 * s * s / (2 * s * s + 1e-5) ** 0.5 for v in VERSIONS for s in STEPS]
        self.averaged = Counter()  # by thread and step
        self.counted = Counter()

    def train(self, rng, me):
        self.shared(batch(rng.choice(STEPS)))
        self.counted[me] += 1

    def fail(self, rng, me):
        try:
            self.shared(np.zeros((2, 7), np.float32))
        except RuntimeError:
            self.counted[me] += 1

    def add(self, rng, me):
        step = rng.choice(STEPS)
        self.average(batch(step)[:, ::-1] if rng.integers(2) else batch(step))
        self.averaged[me, step] += 1

    def evaluate(self, rng, me):
        y = self.observer(ZEROS.astype(rng.choice([np.float32, np.float16])))
        assert np.ptp(y) == 0, ("an evaluation saw two states", np.unique(y))
        assert np.abs(y[0, 0] - np.array(self.outputs)).min() < 1e-2, ("an evaluation saw a mixture", y[0, 0])

    def normalize(self, rng, me):
        y = self.rows(np.repeat(np.array([[1], [3], [9]], np.float32), CHANNELS, axis=1))
        assert np.ptp(y) == 0, ("rows saw two states", np.unique(y))

    def load(self, rng, me):
        state = checkpoint(rng.choice(VERSIONS), rng.choice(STEPS))
        self.shared.load_state_dict(state)
        self.rows.load_state_dict(state, strict=False)

    def check(self, state):
        parameters = np.unique([state["weight"], state["bias"]])
        statistics = np.unique([state["running_mean"], state["running_var"]])
        assert len(parameters) == 1, ("parameters of two versions", parameters)
        assert len(statistics) == 1, ("statistics of two batches", statistics)

    def copy(self, rng, me):
        self.check(vars(copy.deepcopy(self.shared)))

    def pickle(self, rng, me):
        self.check(vars(pickle.loads(pickle.dumps(self.shared))))

    def save(self, rng, me):
        file = io.BytesIO()
        np.savez(file, **self.shared.state_dict())
        file.seek(0)
        self.check(np.load(file))

    def fork(self, rng, me):
        child = os.fork()
        if child == 0:
            signal.alarm(HANG)  # faulthandler prints the stacks, then the child dies of it
            try:
                if rng.integers(2):
                    cpunorm.set_num_threads(2)
                for operation in (self.train, self.evaluate, self.load, self.copy, self.add):
                    operation(rng, me)
            except BaseException as error:
                print(f"in a child: {error!r}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == 0, f"a child ended with {status}"

    def set_num_threads(self, rng, me):
        cpunorm.set_num_threads(int(rng.integers(1, 4)))

    def empty_cache(self, rng, me):
        cpunorm.empty_cache()

    def set_engine(self, rng, me):
        cpunorm.set_engine(str(rng.choice(self.engines)))

    def end(self):
        """Counters and the average of all batches, which are those of any order."""
        self.check(self.shared.state_dict())
        self.check(self.average.state_dict() | {"weight": 1, "bias": 1})
        total, batches = sum(self.counted.values()), sum(self.averaged.values())
        assert self.shared.num_batches_tracked == total, (self.shared.num_batches_tracked, total)
        assert self.average.num_batches_tracked == batches, (self.average.num_batches_tracked, batches)
        if batches:
            mean = sum(2 * step * step * times for (_, step), times in self.averaged.items()) / batches
            off = abs(self.average.running_mean[0] - mean)
            assert off <= 50 * batches * 2**-24, ("the average of all batches", off)  # a rounding per batch


OPERATIONS = {
    **dict.fromkeys(("train", "add", "evaluate", "normalize", "load", "copy", "pickle"), 10),
    **dict.fromkeys(("fail", "save", "set_num_threads", "empty_cache", "set_engine"), 2),
    **({"fork": 0.3} if hasattr(os, "fork") else {}),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--threads", type=int, default=6)
    parser.add_argument("--engines", nargs="+", default=["cython", "reference"])
    parser.add_argument("--operations", nargs="+", default=list(OPERATIONS), help="only these")
    given = parser.parse_args()
    faulthandler.dump_traceback_later(given.seconds + 2 * HANG, exit=True)
    if hasattr(faulthandler, "register"):
        faulthandler.register(signal.SIGALRM, chain=True)
    sys.setswitchinterval(1e-5)
    storm, until, errors, done = Storm(given.engines), time.monotonic() + given.seconds, [], Counter()
    weights = np.array([OPERATIONS[name] for name in given.operations])

    def work(me):
        rng = np.random.default_rng([given.seed, me])
        mine = Counter()
        try:
            while time.monotonic() < until and not errors:
                name = rng.choice(given.operations, p=weights / weights.sum())
                getattr(storm, name)(rng, me)
                mine[name] += 1
        except BaseException as error:
            errors.append(error)
            raise
        finally:
            done.update(mine)

    threads = [threading.Thread(target=work, args=[me]) for me in range(given.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise SystemExit(f"storm: seed {given.seed}: {errors[0]!r}")
    storm.end()
    faulthandler.cancel_dump_traceback_later()
    counts = ", ".join(f"{name} {count}" for name, count in sorted(done.items()))
    print(f"storm: seed {given.seed}, {given.threads} threads, {given.seconds:g} s: {counts}")


if __name__ == "__main__":
    main()
