"""What it costs to begin: each sample is a fresh Python process."""

import importlib.metadata
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from asv_runner.benchmarks.mark import SkipNotImplemented

import cpunorm

from . import TIMEOUT, available

SAMPLES = 15

IMPORT = """
import time, numpy
start = time.perf_counter()
import cpunorm
print(time.perf_counter() - start)
"""

FIRST_CALL = """
import time, numpy, cpunorm
x = numpy.random.default_rng(0).standard_normal((8, 64), "float32")
start = time.perf_counter()
with cpunorm.engine({engine!r}):
    y = cpunorm.functional.layer_norm(x, (64,))
seconds = time.perf_counter() - start
z = x.astype("float64")
z = (z - z.mean(-1, keepdims=True)) / numpy.sqrt(z.var(-1, keepdims=True) + 1e-5)
numpy.testing.assert_allclose(y, z, rtol=0, atol=1e-5)
print(seconds)
"""


def seconds(code, samples, **variables):
    """The seconds that `code` prints, in processes of its own."""
    command = [sys.executable, "-P", "-c", code]  # -P: not the sources that may lie in the working directory
    ran = (
        subprocess.run(command, env={**os.environ, **variables}, check=True, stdout=subprocess.PIPE, text=True)
        for _ in range(samples)
    )
    return {"samples": [float(process.stdout) for process in ran], "number": 1}


class Import:
    version = "1"
    timeout = TIMEOUT

    def track_seconds(self):
        """Of `import cpunorm`, after NumPy's."""
        seconds(IMPORT, 1)  # Python files are compiled once
        return seconds(IMPORT, SAMPLES)

    track_seconds.unit = "seconds"


class FirstCall:
    """The first `layer_norm` of a process, with all that it has to load, start or compile."""

    params = ("cython", "numba, nothing compiled yet", "numba, compiled by an earlier process")
    param_names = ("engine",)
    version = "1"
    timeout = TIMEOUT

    def track_seconds(self, engine):
        engine, _, compiled = engine.partition(", ")
        if not available(engine):
            raise SkipNotImplemented(f"{engine} is not available")
        code = FIRST_CALL.format(engine=engine)
        with tempfile.TemporaryDirectory() as cache:
            first = seconds(code, 1, NUMBA_CACHE_DIR=cache)
            return first if compiled.startswith("nothing") else seconds(code, SAMPLES, NUMBA_CACHE_DIR=cache)

    track_seconds.unit = "seconds"


class Installed:
    version = "1"

    def track_bytes(self):
        """Of the files that the wheel installs."""
        try:
            files = [file.locate() for file in importlib.metadata.files("cpunorm") if file.suffix != ".pyc"]
        except importlib.metadata.PackageNotFoundError:
            files = []
        if Path(cpunorm.__file__) not in files:
            raise SkipNotImplemented("cpunorm is imported from its sources")
        return sum(file.stat().st_size for file in files)

    track_bytes.unit = "bytes"
