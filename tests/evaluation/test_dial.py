import numpy as np
import pytest

from sempic.evaluation import dial


@pytest.mark.parametrize("target", [0.001, 0.05, 0.31, 0.9, 5])
def test_the_nearest_setting_is_found_in_nine_tries(target):
    rates = 0.01 * 1.09 ** np.arange(60)
    tried = []

    def rate(at):
        tried.append(at)
        return float(rates[at])

    found = dial.nearest(rate, len(rates), target)
    best = np.abs(np.log(rates / target)).argmin()
    assert abs(np.log(rates[found] / target)) <= max(abs(np.log(rates[best] / target)), 0.03)
    assert len(set(tried)) <= 9
    assert dial.nearest(lambda at: rates[at], len(rates), target, near=0) == best
