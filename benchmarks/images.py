"""Images normalised for a network: absolute times, and ratios to what people write in NumPy and torch."""

from . import COMPETITORS, THREADS, Against, AsCalled, cases

FOLLOWED = ("224x224x3", "720x1280x3")
CASES = {(case.shape, case.layout, case.mode): case for case in cases.image_cases() if case.shape in FOLLOWED}
PARAMS = [list(dict.fromkeys(column)) for column in zip(*CASES, strict=True)]


class TimeImages(AsCalled):
    cases = CASES
    params = (["cython", *COMPETITORS], *PARAMS)
    param_names = ("implementation", "shape", "layout", "pixels")


class RatioImages(Against):
    cases = CASES
    params = (["1", "all"] if THREADS > 1 else ["1"], *PARAMS)
    param_names = ("threads", "shape", "layout", "pixels")
