"""Memory of a large call: from 32 MB on, the page faults of a fresh output cost more than the arithmetic."""

import resource
from pathlib import Path

from asv_runner.benchmarks.mark import SkipNotImplemented

from . import COMPETITORS, TIMEOUT, cases, peer, prepared, runner, work

CASES = {(case.shape, case.mode): case for case in cases.expand(cases.LAYERS, "float32") if case.layout == "NCHW"}
SMALL, LARGE = "1x8x4x4", "32x64x112x112"
CALLS = 5
PEAK_RESET = Path("/proc/self/clear_refs")


def _page_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _peak_bytes():
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024


class LargeBatchNorm:
    """BatchNorm2d of 32x64x112x112, 103 MB in and 103 MB out."""

    params = (("cython", *COMPETITORS), ("eval", "train"))
    param_names = ("implementation", "mode")
    version = "1"
    timeout = TIMEOUT

    def track_peak_of_first_call(self, implementation, mode):
        """Beyond what was there before: the output's bytes and what is needed on the way."""
        if not PEAK_RESET.exists():
            raise SkipNotImplemented("only Linux can forget a process's peak")
        return self.growth(_peak_bytes, implementation, mode)

    def track_page_faults_of_first_call(self, implementation, mode):
        return self.growth(_page_faults, implementation, mode)

    def track_page_faults_of_a_repeated_call(self, implementation, mode):
        return self.growth(_page_faults, implementation, mode, first=False)

    def growth(self, read, implementation, mode, first=True):
        """How much `read` grows in a call whose result is right; library and threads have been started before."""
        prepared(implementation, CASES[SMALL, mode])
        who, case = peer(implementation), CASES[LARGE, mode]
        arrays, expected = work(case)
        call = runner.prepared(who, case, arrays.with_own_statistics()).fresh
        if not first:
            call()
            call()
        if PEAK_RESET.exists():
            PEAK_RESET.write_text("5")
        calls = 1 if first else CALLS
        before = read()
        for _ in range(calls):
            y = call()
        grown = (read() - before) / calls
        runner.largest_error(who.name, who.to_numpy(case, y), expected[0], case.dtype, runner.SAME_WORK[case.dtype])
        return grown

    track_peak_of_first_call.unit = "bytes"
    track_page_faults_of_first_call.unit = track_page_faults_of_a_repeated_call.unit = "page faults"
