"""Five seconds of fuzzing, from the same seed; benchmarks/fuzz.py runs for as long as you like."""

import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import fuzz


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_damaged_files_give_a_result_or_a_sempic_error(target):
    for data in fuzz.seeds(target):
        fuzz.attempt(target, data)
    count, crash = fuzz.blind(target, 5 / len(fuzz.TARGETS))
    assert crash is None
    assert count > 3
