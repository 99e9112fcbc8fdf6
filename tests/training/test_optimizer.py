import pytest
import torch

from sempic.training.optimizer import Ema, Optimizer, Schedule


def test_a_schedule_warms_up_and_decays():
    schedule = Schedule(warmup=10, floor=0.1)
    assert schedule(0, 0) == pytest.approx(0.1)
    assert schedule(9, 0) == 1
    assert schedule(500, 0.5) == pytest.approx(0.55)
    assert schedule(999, 1) == pytest.approx(0.1)
    assert Schedule()(3, 0.7) == 1


def test_an_optimizer_clips_gradients_and_keeps_the_rates_of_groups():
    a, b = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    groups = [{"params": [a], "lr": 1.0}, {"params": [b], "lr": 0.1}]
    for clip, norm in ((1.0, 5), (None, 0)):
        optimizer = Optimizer(groups, schedule=Schedule(warmup=4), clip=clip)
        for parameter in (a, b):
            parameter.data.zero_()
        optimizer.set_rate(0, 0)
        assert optimizer.minimise(3 * a.sum() + 4 * b.sum()).item() == pytest.approx(norm)
        scale = 1 if clip is None else 5
        assert (a.grad.item(), b.grad.item()) == pytest.approx((3 / scale, 4 / scale))
        assert (a.item(), b.item()) == pytest.approx((-0.25, -0.025))  # Adam's first step


def test_weights_decay_apart_from_their_gradient():
    weight = torch.nn.Parameter(torch.full((1,), 2.0))
    groups = [{"params": [weight], "lr": 0.5}]
    Optimizer(groups, schedule=Schedule(), weight_decay=0.1).minimise(0 * weight.sum())
    assert weight.item() == pytest.approx(2 * (1 - 0.5 * 0.1))


def test_an_ema_follows_the_weights_and_copies_integers():
    module = torch.nn.BatchNorm1d(1)
    average = Ema(module, 0.5)
    start = average.state["weight"].clone()
    module.weight.data += 8
    module.num_batches_tracked += 3
    average.update(1)
    assert (average.state["weight"] - start).item() == pytest.approx(8 * (1 - 2 / 11))
    assert average.state["num_batches_tracked"] == 3
    average = Ema(module, 0.5)
    module.weight.data += 8
    average.update(100)
    assert (module.weight - average.state["weight"]).item() == pytest.approx(4)
    average = Ema(module, 0.5, warmup=False)
    module.weight.data += 8
    average.update(1)
    assert (module.weight - average.state["weight"]).item() == pytest.approx(4)
