"""Functions of the user's as activations of the engine "numba": what they give, and those that can't be compiled."""

import math

import numpy as np
import pytest
from norms import NORMS, values

import cpunorm
from cpunorm import functional
from cpunorm._arguments import ACTIVATIONS

numba = pytest.importorskip("numba")

from cpunorm._numba import engine, plan  # noqa: E402

SHAPES = (2, 6, 40, 40), (3, 6, 5, 2), (5, 6, 1, 90)  # whose norms are rows, columns and short domains


@pytest.fixture(autouse=True)
def _numba_engine():
    with cpunorm.engine("numba"):
        yield


@numba.njit
def halved_where_negative(x):
    return x if x > 0 else x / 2


def plain(x):
    return x if x > 0 else x / 2


def test_functions_come_after_the_names():
    assert len(ACTIVATIONS) + 1 == plan.FUNCTION


@pytest.mark.parametrize("function", [halved_where_negative, plain], ids=["jitted", "plain"])
@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow), np.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_function_is_done_to_what_the_norm_gives(shape, dtype, function):
    """Exactly, for halves are exact, but for what becomes subnormal in float16, which is rounded after it."""
    x, step = values(shape, dtype), 2**-24 if dtype == np.float16 else 0
    for norm in NORMS.values():
        y = norm.run(x)
        np.testing.assert_allclose(norm.run(x, activation=function), np.where(y > 0, y, y / 2), rtol=0, atol=step)


def test_it_comes_after_the_residual_which_may_be_the_output():
    x = values((7, 300))
    y = functional.layer_norm(x, 300) + x
    out = x.copy()
    functional.layer_norm(x, 300, residual=out, out=out, activation=plain)
    np.testing.assert_array_equal(out, np.where(y > 0, y, y / 2))


def test_it_is_given_values_of_the_norm_alone():
    """Not what lies beside them in a buffer: a table need not have more places than there are values."""
    table = np.array([5.0, 7.0])

    def looked_up(x):
        return table[int(x > 0)]

    for shape in SHAPES:
        x = values(shape)
        for norm in NORMS.values():
            assert set(np.unique(norm.run(x, activation=looked_up))) <= {5.0, 7.0}


def test_it_is_compiled_once_for_each_type(monkeypatch):
    def own(x):
        return x * 3

    compile, compiled = numba.cfunc, []
    monkeypatch.setattr(
        numba, "cfunc", lambda *arguments, **options: compiled.append(1) or compile(*arguments, **options)
    )
    for dtype in (np.float32, np.float64, np.float16):
        x = values((4, 6), dtype)
        for _ in range(2):
            functional.layer_norm(x, 6, activation=own)
            functional.rms_norm(x, 6, activation=own)
    assert len(compiled) == 2


def test_a_value_that_it_raises_for_is_nan():
    def strict(x):
        if x > 0:
            raise ValueError("positive")
        return x

    x = values((4, 60))
    y = functional.layer_norm(x, 60)
    np.testing.assert_array_equal(functional.layer_norm(x, 60, activation=strict), np.where(y > 0, np.nan, y))


def test_functions_of_libraries_that_numba_knows():
    x = values((4, 60))
    y = functional.layer_norm(x, 60)
    expected = [math.erf(value) for value in y.ravel().tolist()]
    np.testing.assert_allclose(functional.layer_norm(x, 60, activation=math.erf).ravel(), expected, rtol=1e-6)


class Unhashable:
    __hash__ = None

    def __call__(self, x):
        return x


@pytest.mark.parametrize(
    "function",
    [
        lambda: 0.0,
        numba.njit(lambda x: x.unknown),
        Unhashable(),
        *(
            pytest.param(function, marks=pytest.mark.slow)
            for function in (
                lambda x, y: x,
                lambda x: None,
                lambda x: "text",
                lambda x: 1j * x,
                lambda x: {}[x],
                str,
            )
        ),
    ],
)
def test_what_numba_cannot_compile_is_refused_before_anything_is_written(function):
    x = values((4, 60))
    out = np.full_like(x, 7)
    before = dict(engine.activated)
    with pytest.raises(TypeError, match=r"layer_norm: Numba can't compile the activation .* for float32"):
        functional.layer_norm(x, 60, activation=function, out=out)
    assert (out == 7).all()
    assert engine.activated == before
