from asv_runner.benchmarks.mark import skip_for_params

from . import IMPLEMENTATIONS, missing, names, prepared


class TimeBatchNorm:
    """Absolute times, output made by the call: curves to look at, not to compare machines or days with."""

    params = (IMPLEMENTATIONS, names("batch_norm"))
    param_names = ("implementation", "case")
    version = "1"
    warmup_time = 1.0

    @skip_for_params(missing("batch_norm"))
    def time_as_called(self, implementation, case):
        prepared(implementation, case).fresh()
