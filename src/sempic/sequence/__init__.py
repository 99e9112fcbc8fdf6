"""Pictures in time ⇄ bytes.

    for piece in sequence.encode(frames, rate=10, bitrate=16e3): …     # pictures → bytes, live
    for picture in sequence.decode(pieces): …                          # bytes → PIL images
    sequence.info(stream)                                              # what each part costs

A frame is written as soon as it is there, and shown as soon as its bytes are. `pack` has what
needs no network: maps and coarse pictures ⇄ bytes, exact on every machine (docs/spec/sequence.md).
"""

from __future__ import annotations

from sempic.sequence.options import SequenceOptions
from sempic.sequence.pack import Moment, Packer, Unpacker
from sempic.sequence.painter import decode
from sempic.sequence.sender import encode
from sempic.sequence.summary import info

__all__ = ["Moment", "Packer", "SequenceOptions", "Unpacker", "decode", "encode", "info"]
