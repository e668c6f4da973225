"""Images normalised for a network: absolute times, and ratios to what people write in NumPy and torch."""

from . import COMPETITORS, ROUNDS, THREADS, TIMEOUT, AsCalled, cases, copies, peer, prepared, ratio

FOLLOWED = ("224x224x3", "720x1280x3")
CASES = {(case.shape, case.layout, case.mode): case for case in cases.image_cases() if case.shape in FOLLOWED}
PARAMS = [list(dict.fromkeys(column)) for column in zip(*CASES, strict=True)]


class TimeImages(AsCalled):
    cases = CASES
    params = (["cython", *COMPETITORS], *PARAMS)
    param_names = ("implementation", "shape", "layout", "pixels")


class RatioImages:
    """Our time as a share of theirs, turn by turn in one process: under 1 is faster than they are."""

    version = "1"
    timeout = TIMEOUT
    params = (["1", "all"] if THREADS > 1 else ["1"], *PARAMS)
    param_names = ("threads", "shape", "layout", "pixels")

    def track_vs_numpy(self, threads, *axes):
        return self.against("numpy", threads, axes)

    def track_vs_torch(self, threads, *axes):
        return self.against("torch", threads, axes)

    def against(self, competitor, threads, axes):
        threads = THREADS if threads == "all" else 1
        both = "cython", competitor
        for implementation in both:
            prepared(implementation, CASES[axes], threads)
        return ratio(copies(CASES[axes], *(peer(implementation, threads) for implementation in both)))

    track_vs_numpy.unit, track_vs_torch.unit = "ours/numpy", "ours/torch"
    track_vs_numpy.rounds = track_vs_torch.rounds = ROUNDS
