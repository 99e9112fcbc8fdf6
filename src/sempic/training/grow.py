"""Networks made of trained ones: larger receivers, and receivers of other classes, with the same
function (`sempic train grow`); the mean of two (`sempic train average`)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sempic.errors import ModelError, naming
from sempic.networks.compact import CompactNet
from sempic.networks.weights import load_network, load_receiver, save_network
from sempic.palette import CAMVID, CITYSCAPES, translate
from sempic.places import apart
from sempic.training.options import AverageOptions, GrowOptions


def grow(network: CompactNet, **sizes: Any) -> CompactNet:
    """A larger network that computes the same function.

    `sizes`: fields of CompactConfig. Raises ModelError if the network does not fit into them.
    """
    grown = CompactNet(replace(network.config, **sizes))
    fresh = grown.state_dict()
    for key, value in network.state_dict().items():
        if key not in fresh or any(
            a > b for a, b in zip(value.shape, fresh[key].shape, strict=True)
        ):
            raise ModelError(f"{key} of the network has no place in one with {sizes}")
        if value.ndim == 4:  # new inputs of filters get weight 0
            fresh[key][: value.shape[0]] = 0
            fresh[key][: value.shape[0], : value.shape[1]] = value
        else:
            fresh[key] = value
    grown.load_state_dict(fresh)
    grown.normalise()
    return grown


def as_cityscapes(network: CompactNet) -> CompactNet:
    """A network of Cityscapes' 19 classes, each of which starts as the CamVid class that contains
    it. Raises ModelError unless `network` knows CamVid's 11."""
    known = network.config.classes
    if why := CAMVID.unlike(known, network.palette):
        raise ModelError(f"this receiver knows {why}")
    ids = np.arange(CITYSCAPES.known, dtype=np.uint8)
    begins_as = torch.from_numpy(translate(ids, CITYSCAPES.id, CAMVID.id)).long()
    grown = CompactNet(replace(network.config, classes=len(begins_as), label_gains=True))
    state = {**grown.state_dict(), **network.state_dict()}
    for name, embed in (("label", "embed_labels"), ("fine", "embed_fine")):
        weight = state[f"{embed}.weight"]
        void = torch.zeros_like(weight[:, :1])
        # Of the 11 classes, void, for classes that are none of them, and the plane of ones.
        wide = torch.cat([weight[:, :known], void], 1)[:, begins_as]
        wide = torch.cat([wide, weight[:, -1:]], 1)
        # Normalisation will shrink the longer filters; their gain compensates.
        before, after = (w.flatten(1).norm(dim=1) for w in (weight, wide))
        state[f"{name}_gain"] = state[f"{name}_gain"] * after / before
        state[f"{embed}.weight"] = wide
    grown.load_state_dict(state)
    grown.normalise()
    return grown


def run(options: GrowOptions) -> None:
    """`sempic train grow`."""
    apart((options.weights,), options.output)
    network = load_receiver(options.weights)
    with naming(options.weights):
        grown = as_cityscapes(network)
    save_network(grown, options.output)


def average(options: AverageOptions) -> None:
    """`sempic train average`. Raises ModelError unless both networks have the same configuration
    and palette, and OutputError."""
    apart((options.first, options.second), options.out)
    network, other = load_network(options.first), load_network(options.second)
    if (network.config, network.palette) != (other.config, other.palette):
        raise ModelError(
            f"{options.first} and {options.second} are of different networks, by their "
            "configuration (for a segmenter with its --enlarge) or palette"
        )
    other_state = other.state_dict()
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            value.lerp_(other_state[name], options.weight)
    if isinstance(network, CompactNet):
        network.normalise()
    save_network(network, options.out)
