"""Parity with torch where torch isn't installed: its results and errors, recorded by record_torch.py."""

import builtins
import json

import numpy as np
import pytest
import record_torch

import cpunorm

pytestmark = pytest.mark.usefixtures("engine")

RECORDED = json.loads(record_torch.RECORD.read_text())


@pytest.mark.parametrize("name", record_torch.CASES)
def test_result(name):
    found, recorded = record_torch.CASES[name](cpunorm, lambda array: array), RECORDED["results"][name]
    assert list(found) == list(recorded)
    for key, value in found.items():
        expected = np.array(recorded[key]["values"]).reshape(recorded[key]["shape"])
        assert value.shape == expected.shape
        assert value.dtype == recorded[key]["dtype"]
        # weights to 9, conditioning to 15 (float64): some ten roundings of torch's at that scale
        tolerance = 1e-12 if value.dtype == np.float64 else 5e-6
        np.testing.assert_allclose(value, expected, rtol=tolerance, atol=tolerance, err_msg=key)


@pytest.mark.parametrize("name", record_torch.ERRORS)
def test_error(name):
    with pytest.raises(getattr(builtins, RECORDED["errors"][name])):
        record_torch.ERRORS[name](cpunorm, lambda array: array)


def test_the_record_is_complete():
    assert list(RECORDED["results"]) == list(record_torch.CASES)
    assert list(RECORDED["errors"]) == list(record_torch.ERRORS)
