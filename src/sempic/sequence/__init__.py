"""Pictures in time ⇄ bytes.

    for piece in sequence.encode(frames, rate=10, bitrate=16e3): …     # pictures → bytes, live
    for picture in sequence.decode(pieces): …                          # bytes → PIL images
    sequence.info(stream)                                              # what each part costs

A frame is encoded as soon as it arrives, and decoded as soon as its bytes do. `pack` needs no
network: label maps and coarse pictures ⇄ bytes, exact on every machine (docs/spec/sequence.md).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sempic.sequence.options import SequenceOptions

if TYPE_CHECKING:
    from sempic.sequence.pack import Moment, Packer, Unpacker
    from sempic.sequence.painter import decode
    from sempic.sequence.sender import as_rate, encode
    from sempic.sequence.summary import info

# `sempic encode` always needs the options; the others load Pillow and the coders.
_LAZY = {
    "Moment": "pack",
    "Packer": "pack",
    "Unpacker": "pack",
    "as_rate": "sender",
    "decode": "painter",
    "encode": "sender",
    "info": "summary",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    return found


__all__ = [
    "Moment", "Packer", "SequenceOptions", "Unpacker", "as_rate", "decode", "encode", "info",
]  # fmt: skip
