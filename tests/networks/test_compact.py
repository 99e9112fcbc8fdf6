import pytest
import torch
from streets import TINY, inputs, trained

from sempic.networks.compact import CompactNet, denoise, one_hot
from sempic.networks.efficientnet import EfficientNetLite


def test_one_hot_leaves_void_empty():
    planes = one_hot(torch.tensor([[[0, 10, 11, 255]]], dtype=torch.uint8), 11)
    assert planes.shape == (1, 12, 1, 4)
    assert planes[0, :11].sum((0, 1)).tolist() == [1, 1, 0, 0]
    assert (planes[0, 11] == 1).all()


def test_a_new_network_is_the_wiener_filter():
    network = CompactNet(TINY)  # the gain of its head is still zero
    noisy, coarse = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 8, 8)
    planes = one_hot(torch.zeros(2, 32, 32, dtype=torch.uint8), 11)
    sigma = torch.tensor([0.05, 0.4])
    share = TINY.sigma_data**2 / (sigma**2 + TINY.sigma_data**2)
    out = denoise(network, noisy, coarse, planes, sigma)
    torch.testing.assert_close(out, noisy * share[:, None, None, None])


def test_the_scale_of_a_filter_does_not_change_the_output():
    network = trained()
    args = inputs()
    before = denoise(network, *args)
    network.stem.weight.data *= 3
    torch.testing.assert_close(denoise(network, *args), before)
    network.normalise()
    assert network.stem.weight.square().mean().item() == pytest.approx(1, rel=1e-4)


def test_the_backbone_halves_the_size_five_times():
    features = EfficientNetLite(2)(torch.zeros(1, 3, 64, 96))
    assert [f.shape[2:] for f in features] == [(64 // s, 96 // s) for s in (2, 4, 8, 16, 32)]
