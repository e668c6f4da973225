"""What is done to y before it is written: the activations of `_norm.pxd`, as functions of one number.

Those of float32 with an exponential are computed in float64 and rounded once; the error of the polynomials is below a
thirtieth of that rounding.  Those of float64 use the C library.  What the formulas of real numbers make of Inf and NaN
comes out.
"""

import math

import numpy as np

from cpunorm._numba.lanes import inlined, pointer, power_of_2

__all__ = ["ACTIVATIONS", "FORMULAS", "activation_of", "own_activation_of"]


# The functions that formulas are made of, for float32.


@inlined
def bounded(x, low, high):
    """x, not below `low` nor above `high`; NaN stays."""
    return low if x < low else high if x > high else x


@inlined
def exponential_minus_1(x):
    """2^n and exp(r) - 1, where x = n log(2) + r, |x| <= 700, to 2^-31 of it."""
    rounding = 6755399441055744.0  # 1.5 * 2^52: what is added to it is rounded, and its low bits
    shifted = x * 1.4426950408889634 + rounding
    r = x - (shifted - rounding) * 0.6931471805599453
    p = 0.00019845884362776063 * r + 0.001394072044761632
    p = ((p * r + 0.008333389575252191) * r + 0.04166635981341429) * r + 0.1666666636883546
    return power_of_2(shifted), r + r * r * (p * r + 0.5000000044401736)


@inlined
def exp(x):
    """Infinite from 700 on."""
    power, e = exponential_minus_1(bounded(x, -700.0, 700.0))
    return math.inf if x > 700 else power + power * e


@inlined
def tanh(x):
    """(exp(2 x) - 1) / (exp(2 x) + 1), without cancellation near 0."""
    power, e = exponential_minus_1(bounded(x + x, -50.0, 50.0))
    w = power - 1 + power * e
    return w / (w + 2)


@inlined
def normal(x):
    """x P(x) of the normal distribution; P(-t) = exp(-t^2 / 2) q(t), q to 2^-29 of it."""
    t = bounded(abs(x), 0.0, 16.0)
    s = (t - 3.5) / (t + 3.5)
    q = (-1.96015237531754e-05 * s - 4.9889022749288906e-05) * s + 0.00013358764237576264
    q = ((q * s + 0.00038826979391936136) * s - 0.0013817638718879952) * s - 0.0015608716053409182
    q = ((q * s + 0.0190657010302543) * s - 0.06163948891982603) * s + 0.12585524734796294
    q = (q * s - 0.1871396966585236) * s + 0.10634515367353
    return (x if x > 0 else x * 0.0) - t * q * exp(t * t * -0.5)


# And for float64.


@inlined
def exact_exp(x):
    """Of the C library."""
    return math.exp(x)


@inlined
def exact_tanh(x):
    """Of the C library."""
    return math.tanh(x)


@inlined
def exact_normal(x):
    """x P(x) of the normal distribution."""
    return x * (0.5 * math.erfc(x * -0.7071067811865476))


# Formulas, of float64.


def formulas(exp, tanh, normal):
    """The activations, in the order of `_norm.pxd`."""

    @inlined
    def relu(x):
        return 0.0 if x < 0 else x

    @inlined
    def relu6(x):
        return bounded(x, 0.0, 6.0)

    @inlined
    def leaky_relu(x):
        return 0.01 * x if x < 0 else x

    @inlined
    def silu(x):
        return x / (1 + exp(-x))

    @inlined
    def gelu(x):
        return normal(x)

    @inlined
    def gelu_tanh(x):  # z = sqrt(2/pi) (x + 0.044715 x^3): x (1 + tanh(z)) / 2 = x / (1 + exp(-2 z))
        return x / (1 + exp(-1.5957691216057308 * (x + 0.044715 * (x * x * x))))

    @inlined
    def hardswish(x):
        return x * hardsigmoid(x)

    @inlined
    def hardsigmoid(x):
        return bounded(x + 3, 0.0, 6.0) / 6

    @inlined
    def sigmoid(x):
        return 1 / (1 + exp(-x))

    return relu, relu6, leaky_relu, silu, gelu, gelu_tanh, hardswish, hardsigmoid, sigmoid, tanh


# By number, of float32 and of float64. Were all of them functions, Numba would call one through a pointer.
FORMULAS = (None, *formulas(exp, tanh, normal), None, *formulas(exact_exp, exact_tanh, exact_normal))
ACTIVATIONS = len(FORMULAS) // 2


def activation_of(number, zero, version):
    """Do one of `FORMULAS` to n values of the type of `zero`, in place."""

    def activation(address, n):
        _ = version
        values = pointer(address, zero)
        for i in range(n):
            values[i] = type(zero)(FORMULAS[number](np.float64(values[i])))

    return activation


def own_activation_of(function, zero):
    """The same of a function of the user's; a value that it raises an exception for becomes NaN."""

    def activation(address, n):
        values = pointer(address, zero)
        for i in range(n):
            try:
                values[i] = type(zero)(function(values[i]))
            except Exception:
                values[i] = type(zero)(np.nan)

    return activation
