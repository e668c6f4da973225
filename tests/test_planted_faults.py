"""The faults of planted_faults.py can be planted: what each replaces is there, and its tests are."""

import re

import planted_faults
import pytest


@pytest.mark.parametrize("fault", planted_faults.FAULTS, ids=lambda fault: fault.name)
def test_the_text_is_there(fault):
    assert fault.search in (planted_faults.ROOT / fault.file).read_text()
    for path in re.findall(r"tests/\w+\.py", fault.tests):
        assert (planted_faults.ROOT / path).exists()
