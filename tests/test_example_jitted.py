"""The jitted example finds the norms by itself, as an installed cpunorm lets Numba, and prints what is true."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cpunorm

EXAMPLE = Path(__file__).parent.parent / "examples" / "jitted_pipeline.py"


@pytest.mark.slow
def test_jitted_pipeline_reads_digits_in_any_light(entry_point):
    for module in ("numba", "sklearn"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f'{module} is not installed: pip install "cpunorm[examples,numba]"')
    folders = [str(entry_point), str(Path(cpunorm.__file__).parent.parent)]
    done = subprocess.run(
        [sys.executable, "-W", "error:::__main__", str(EXAMPLE)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    pixels, normalised = (float(share) for share in re.findall(r"([0-9.]+)% right", done.stdout))
    assert pixels < 80
    assert normalised > 95
    assert done.stdout.endswith("the same neighbours when layer_norm is called from Python\n")


@pytest.mark.parametrize("module", ["numba", pytest.param("sklearn", marks=pytest.mark.slow)])
def test_a_missing_package_is_named_with_its_remedy(module):
    pytest.importorskip("numba")  # which is asked for first
    hide = f"import runpy, sys; sys.modules[{module!r}] = None; runpy.run_path(sys.argv[1])"
    done = subprocess.run([sys.executable, "-P", "-c", hide, str(EXAMPLE)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert re.fullmatch(
        rf'{module}\S* is not installed; please run: pip install "cpunorm\[examples,numba\]"\n', done.stderr
    )
