"""Arrays that no kernel walks are copied, and results into an `out` that none fills: in tiles, by threads."""

import engines
import ml_dtypes
import numpy as np
import pytest

import cpunorm
from cpunorm import _call

LENGTHS = [1, 2, 3, 7, 15, 16, 17, 33, 63, 64, 65, 130]


def anyhow(rng, shape, dtype):
    """Undefined memory seen as `shape`, and all of the memory: axes in any order, some backwards or with gaps."""
    order = rng.permutation(len(shape))
    gaps = rng.integers(1, 3, len(shape)) if rng.random() < 0.3 else np.ones(len(shape), int)
    memory = np.full([shape[axis] * gaps[axis] for axis in order], 77, dtype)
    view = memory.transpose(np.argsort(order))
    signs = rng.choice([1, -1], len(shape)) if rng.random() < 0.3 else np.ones(len(shape), int)
    return view[tuple(slice(None, None, int(step)) for step in gaps * signs)], memory


@pytest.mark.parametrize("engine", engines.COMPILED_FIRST, indirect=True)
@pytest.mark.parametrize(
    "dtype", [np.float32, np.float64, np.float16, pytest.param(ml_dtypes.bfloat16, marks=pytest.mark.slow)]
)
def test_any_order_of_axes(engine, dtype):
    cpunorm.set_num_threads(2)
    rng = np.random.default_rng(3)
    for _ in range(200):
        shape = ()
        while len(shape) < rng.integers(1, 7) and np.prod(shape, dtype=int) < 20_000:
            shape += (int(rng.choice(LENGTHS)),)
        y, _ = anyhow(rng, shape, dtype)
        y[...] = rng.integers(0, 60, shape)
        out, memory = anyhow(rng, shape, dtype)
        assert _call.deliver(y, out, y.dtype) is out
        np.testing.assert_array_equal(out.astype(float), y.astype(float))
        assert np.count_nonzero(memory != 77) == y.size


@pytest.mark.parametrize("shape", [(5, 8, 7, 9), (70, 96, 65), (3, 12, 300, 70), (200, 34)])
def test_samples_innermost(engine, shape):
    """Fortran order: the bits are those of samples one by one, and the result lies as the input does."""
    rng = np.random.default_rng(0)
    x = np.asfortranarray(rng.standard_normal(shape, np.float32))
    for y in (cpunorm.functional.group_norm(x, 2), cpunorm.functional.group_norm(x, 2, out=x.copy("F"))):
        assert y.strides == x.strides
        alone = [cpunorm.functional.group_norm(np.asfortranarray(x[i : i + 1]), 2)[0] for i in range(0, len(x), 3)]
        np.testing.assert_array_equal(y[::3], alone)
