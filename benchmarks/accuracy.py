"""How accurate each implementation is: a kernel that got faster by being less exact shows here."""

import math

from . import COMPETITORS, ENGINES, TIMEOUT, cases, errors, peer

CASES = {
    (case.norm + (" channels_last" if case.channels_last else ""), f"{case.offset:g}"): case
    for case in cases.accuracy_cases()
}


class Accuracy:
    """Largest |error| against float64 of float32 values `offset + N(0, 1)`."""

    params = ((*ENGINES, *COMPETITORS), *(tuple(dict.fromkeys(column)) for column in zip(*CASES, strict=True)))
    param_names = ("implementation", "norm", "offset")
    unit = "largest |error|"
    version = "1"
    timeout = TIMEOUT

    def track_largest_error(self, implementation, *axes):
        error = errors.largest_error(peer(implementation), CASES[axes])
        if not math.isfinite(error):
            raise ArithmeticError(f"{implementation}: {error} in {CASES[axes].name}")
        return error
