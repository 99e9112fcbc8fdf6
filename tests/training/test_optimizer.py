import pytest
import torch

from sempic.training.optimizer import Ema, Schedule


def test_a_schedule_warms_up_and_decays():
    schedule = Schedule(warmup=10, floor=0.1)
    assert schedule(0, 0) == pytest.approx(0.1)
    assert schedule(9, 0) == 1
    assert schedule(500, 0.5) == pytest.approx(0.55)
    assert schedule(999, 1) == pytest.approx(0.1)
    assert Schedule()(3, 0.7) == 1


def test_an_ema_follows_the_weights_and_copies_integers():
    module = torch.nn.BatchNorm1d(1)
    average = Ema(module, 0.5)
    start = average.state["weight"].clone()
    module.weight.data += 8
    module.num_batches_tracked += 3
    average.update(1)
    assert (average.state["weight"] - start).item() == pytest.approx(8 * (1 - 2 / 11))
    assert average.state["num_batches_tracked"] == 3
