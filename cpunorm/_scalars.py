"""What converts a number or a flag that is an argument, or raises; `what` names it in the message."""

import math
import operator

import numpy as np

__all__ = ["boolean", "dimension", "integer", "positive_eps", "real"]


def integer(what, value):
    """`value` as an int.

    Raises
    ------
    TypeError
        Not an integer (bools are none).
    """
    if isinstance(value, bool | np.bool):
        raise TypeError(f"{what} must be an int, got {value!r}")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{what} must be an int, got {value!r}") from None


def boolean(what, value):
    """`value` as a bool.

    Raises
    ------
    TypeError
        Neither a bool nor NumPy's.
    """
    if not isinstance(value, bool | np.bool):
        raise TypeError(f"{what} must be a bool, got {value!r}")
    return bool(value)


def dimension(what, value):
    """`value` as an int that can be the length of an axis.

    Raises
    ------
    TypeError
        Not an integer.
    RuntimeError
        Negative.
    """
    number = integer(what, value)
    if number < 0:
        raise RuntimeError(f"{what} must not be negative, got {number}")
    return number


def real(what, value):
    """`value` as a float that is not NaN.

    Raises
    ------
    TypeError
        Not a real number.
    ValueError
        NaN.
    """
    if isinstance(value, str | bytes):
        raise TypeError(f"{what} must be a float, got {value!r}")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{what} must be a float, got {value!r}") from None
    if math.isnan(number):
        raise ValueError(f"{what} must not be NaN")
    return number


def positive_eps(function, eps, zero_allowed):
    """`eps` as a float.

    Raises
    ------
    ValueError
        NaN or negative; zero unless `zero_allowed`.
    """
    number = real(f"{function}: eps", eps)
    if number < 0 or (number == 0 and not zero_allowed):
        raise ValueError(f"{function}: eps must be {'>= 0' if zero_allowed else 'positive'}, got {eps!r}")
    return number
