"""`sempic distill`: the same as `sempic train distill`."""

from __future__ import annotations

import argparse

from sempic.commands import train
from sempic.commands.train import add as add


def run(args: argparse.Namespace) -> int:
    return train.call("distill", args.arguments)
