"""Moments and standardized arrays: absolute times, and ratios to what people write in NumPy and torch."""

from . import COMPETITORS, ENGINES, THREADS, Against, AsCalled, available, cases

FOLLOWED = ("table/moments", "ResNet-50/moments", "signal/moments", "table/standardize", "speech/standardize")
CASES = {
    (f"{case.norm} {case.shape} {case.layout}",): case
    for case in cases.statistics_cases("float32")
    if any(case.matches(pattern) for pattern in FOLLOWED)
}
PARAMS = ([name for (name,) in CASES],)


class TimeMoments(AsCalled):
    cases = CASES
    params = ([*filter(available, ENGINES), *COMPETITORS], *PARAMS)
    param_names = ("implementation", "work")


class RatioMoments(Against):
    cases = CASES
    params = (["1", "all"] if THREADS > 1 else ["1"], *PARAMS)
    param_names = ("threads", "work")
