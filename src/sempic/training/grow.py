"""Larger receivers, and receivers of other classes, that start with a trained receiver's function;
`sempic train grow`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sempic.errors import ModelError
from sempic.jobs import apart
from sempic.networks.compact import CompactNet
from sempic.networks.weights import load_receiver, save_network
from sempic.palette import CAMVID, CITYSCAPES, translate
from sempic.training.options import GrowOptions


def grow(network: CompactNet, **sizes: Any) -> CompactNet:
    """A larger network that computes the same function.

    Args:
        sizes: fields of CompactConfig; None keeps the network's value.

    Raises:
        ModelError: the network does not fit into these sizes.
    """
    asked = {name: size for name, size in sizes.items() if size is not None}
    grown = CompactNet(replace(network.config, **asked))
    fresh = grown.state_dict()
    for key, value in network.state_dict().items():
        if key not in fresh or any(
            a > b for a, b in zip(value.shape, fresh[key].shape, strict=True)
        ):
            raise ModelError(f"{key} of the network has no place in one with {asked}")
        if value.ndim == 4:  # new inputs of filters get weight 0
            fresh[key][: value.shape[0]] = 0
            fresh[key][: value.shape[0], : value.shape[1]] = value
        else:
            fresh[key] = value
    grown.load_state_dict(fresh)
    grown.normalise()
    return grown


def regroup(network: CompactNet, begins_as: Sequence[int]) -> CompactNet:
    """A network of other classes, each of which starts as a class of `network`.

    Args:
        begins_as: for each class of the new network, a class of the old one; the number of the old
            classes stands for void.
    """
    config = replace(network.config, classes=len(begins_as), label_gains=True)
    grown = CompactNet(config)
    state = {**grown.state_dict(), **network.state_dict()}
    known = network.config.classes
    for name, embed in (("label", "embed_labels"), ("fine", "embed_fine")):
        weight = network.state_dict()[f"{embed}.weight"]
        planes = [
            weight[:, number] if number < known else torch.zeros_like(weight[:, 0])
            for number in begins_as
        ]
        wide = torch.stack([*planes, weight[:, -1]], 1)
        # Normalisation will shrink the longer filters; their gain compensates.
        before, after = (w.flatten(1).norm(dim=1) for w in (weight, wide))
        state[f"{name}_gain"] = state[f"{name}_gain"] * after / before
        state[f"{embed}.weight"] = wide
    grown.load_state_dict(state)
    grown.normalise()
    return grown


def as_cityscapes(network: CompactNet) -> CompactNet:
    """`regroup` from CamVid's 11 to Cityscapes' 19 classes. Raises ModelError for a receiver of
    other classes."""
    known = CAMVID.known
    if network.config.classes != known:
        raise ModelError(f"this receiver knows {network.config.classes} classes, not {known}")
    ids = np.arange(CITYSCAPES.known, dtype=np.uint8)
    return regroup(network, translate(ids, CITYSCAPES.id, CAMVID.id).tolist())


def run(options: GrowOptions) -> None:
    """`sempic train grow`."""
    apart((options.weights,), options.output)
    save_network(as_cityscapes(load_receiver(options.weights)), options.output)
