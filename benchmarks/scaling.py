"""How time follows the number of threads and the size of the input."""

import cpunorm

from . import ALL, ROUNDS, THREADS, TIMEOUT, AsCalled, cases, copies, peer, prepared, ratio

EVERY = {case: f"{case.module} {case.mode or ''}".strip() for case in cases.expand(cases.LAYERS, "float32")}
LARGE = {
    name: case
    for case, name in EVERY.items()
    if case.shape in ("32x64x56x56", "4096x768", "2x320x64x64") and not case.channels_last
}
SWEEP = {
    (name, str(case.bytes // 2)): case
    for case, name in EVERY.items()
    if case.layer.source == cases.SWEEP and (ALL or case.bytes <= 2**25)
}


class RatioThreads:
    """Time on several threads as a share of that on one, turn by turn; 1 thread to 1 shows the noise."""

    params = (tuple(LARGE), tuple(n for n in range(1, THREADS + 1) if n & (n - 1) == 0 or n == THREADS))
    param_names = ("layer", "threads")
    version = "1"
    timeout = TIMEOUT

    def track_vs_one_thread(self, layer, threads):
        def on(number, call):
            def timed():
                cpunorm.set_num_threads(number)
                call()

            return timed

        prepared("cython", LARGE[layer])
        calls = copies(LARGE[layer], peer("cython"))
        return ratio((on(threads, call), on(1, call)) for (call,) in calls)

    track_vs_one_thread.unit = "n threads/1 thread"
    track_vs_one_thread.rounds = ROUNDS


class TimeSizes(AsCalled):
    cases = SWEEP
    params = (("cython", "torch"), *(tuple(dict.fromkeys(column)) for column in zip(*SWEEP, strict=True)))
    param_names = ("implementation", "layer", "bytes")
