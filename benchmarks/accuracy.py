"""How accurate each implementation is: a kernel that got faster by being less exact shows here."""

import itertools
import math

from asv_runner.benchmarks.mark import SkipNotImplemented

from . import COMPETITORS, ENGINES, TIMEOUT, cases, errors, peer

CASES = {
    (case.norm + (" channels_last" if case.channels_last else ""), f"{case.offset:g}"): case
    for case in cases.accuracy_cases()
}


class Accuracy:
    """Largest |error| against float64 of float32 values `offset + N(0, 1)`; of moments in `cases.TRAPS`, by a value."""

    params = ((*ENGINES, *COMPETITORS), *(tuple(dict.fromkeys(column)) for column in zip(*CASES, strict=True)))
    param_names = ("implementation", "norm", "offset")
    skip_params = tuple(combination for combination in itertools.product(*params) if combination[1:] not in CASES)
    unit = "largest |error|"
    version = "1"
    timeout = TIMEOUT

    def track_largest_error(self, implementation, *axes):
        error = errors.largest_error(peer(implementation), CASES[axes])
        if error is None or not math.isfinite(error):
            message = f"{implementation}: {error} in {CASES[axes].name}"
            others = error is None or implementation in COMPETITORS
            raise SkipNotImplemented(message) if others else ArithmeticError(message)
        return error
