"""`sempic train average`: the mean of two trainings' weights."""

from __future__ import annotations

import torch

from sempic.errors import ModelError
from sempic.jobs import apart
from sempic.networks.compact import CompactNet
from sempic.networks.weights import load_network, save_network
from sempic.training.options import AverageOptions


def run(options: AverageOptions) -> None:
    """`sempic train average`. Raises ModelError unless both networks have the same configuration
    and palette, and OutputError."""
    apart((options.first, options.second), options.out)
    network, other = load_network(options.first), load_network(options.second)
    if (network.config, network.palette) != (other.config, other.palette):
        raise ModelError(f"{options.first} and {options.second} are of different networks")
    other_state = other.state_dict()
    state = {
        name: torch.lerp(value, other_state[name], options.weight)
        if value.is_floating_point()
        else value
        for name, value in network.state_dict().items()
    }
    network.load_state_dict(state)
    if isinstance(network, CompactNet):
        network.normalise()
    save_network(network, options.out)
