"""What `cpunorm bench --random` draws, against float64: shapes, groups and strides that nobody thought of.

Arrays lie anywhere in a line of the cache, between values of NaN: what is read beside them shows.
"""

import itertools

import numpy as np
import pytest
from arrays import lying_at

pytest.importorskip("rich")  # of the extra bench, as the draws are

import cpunorm
from cpunorm.bench import drawn, peers, runner
from cpunorm.bench.cases import Arrays

SEEDS = {0: 40, 1: 600}  # and how many of each
SIZE = 60_000  # values at most: of all kinds there are such


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_drawn(engine, dtype, seed):
    some = drawn.draw(SEEDS[seed], seed, dtype, lambda case: np.prod(case.layer.shape) <= SIZE)
    for index, case in enumerate(some):
        places = itertools.count(7 * index + 1, 5)
        every = vars(case.arrays()).items()
        arrays = Arrays(**{name: v if v is None else lying_at(next(places), v, np.nan) for name, v in every})
        threads = 1 + index % 2
        cpunorm.set_num_threads(threads)
        ours = peers.CPUNorm(threads, engine[0])
        runner.checked(ours, case, arrays, case.expected(arrays), runner.PROMISED)
