import numpy as np
import torch
from conftest import street

from sempic.training.data.pool import Pool


def test_a_pool_cuts_the_same_as_slices():
    arrays = [street(40, 60, s)[0] for s in range(3)] + [street(50, 30)[0]]
    pool = Pool(arrays, torch.device("cpu"))
    plan = [(3, 7, 2, 0), (1, 0, 30, 1), (0, 8, 1, 1)]
    cut = pool.cut(np.array(plan), (32, 24)).numpy()
    for found, (n, top, left, mirror) in zip(cut, plan, strict=True):
        expected = arrays[n][top : top + 32, left : left + 24]
        assert (found == (expected[:, ::-1] if mirror else expected)).all()
