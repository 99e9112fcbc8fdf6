"""HEVC's parameter sets of moving coarse pictures in two bytes. docs/spec/sequence.md §4.

x265's parameter sets, 76 bytes before each key frame, differ only in the number of reference
pictures, chroma, size, the side of coding trees and the level. Frozen with the format: append,
never change.
"""

from __future__ import annotations

import itertools

from sempic.bits import packed, ue
from sempic.coarse.hevc import START, escaped
from sempic.errors import CorruptStream, TruncatedStream

LEAST = 24
"""Least side of a coded picture: more than x265's smallest coding tree."""
WHOLE = b"\0"
"""Precedes parameter sets and slices without a short form."""
_VPS, _SPS, _PPS = b"\x40\1", b"\x42\1", b"\x44\1"
_BUFFERS = {1: ue(2), 6: ue(6)}
"""sps_max_dec_pic_buffering_minus1, by the number of reference pictures."""
REFERENCES = tuple(_BUFFERS)
"""From how many of the last pictures a picture may be predicted."""

# By chroma: the general profile without the level; a sequence parameter set from its id up to the
# size; a picture parameter set.
_PROFILE = {
    "444": bytes.fromhex("04080000009e0800000000"),
    "420": bytes.fromhex("0160000000900000000000"),
}
_CHROMA = {"444": "1" + ue(3) + "0", "420": "1" + ue(1)}
_PICTURE = {"444": bytes.fromhex("c1731a350890"), "420": bytes.fromhex("c173d089")}
# A video parameter set before the profile; bits after the level, around the number of buffers.
_BEFORE, _BEHIND = bytes.fromhex("0c01ffff"), ("1", "10100000001001")
# A sequence parameter set after the size: bits up to the sizes of blocks, around the number of
# buffers; the sizes of blocks, by the side of coding trees; the rest.
_FIRST = "011001011", "10101"
_BLOCKS = {64: "00100100100101", 32: "011100100101", 16: "0101011101"}
_REST = "1000010011001101" + "0" * 7 + "1" + "0" * 31 + "1" + "0" * 31 + "100001"
_FORMS = tuple(itertools.product(_CHROMA, _BLOCKS))
"""Chroma and side of coding trees of forms 1, 2, …, which repeat for each of REFERENCES."""


def coded_size(width: int, height: int) -> tuple[int, int]:
    """Size of the coded picture for planes of a size: whole blocks of 8."""
    across, down = (max(LEAST, -(-side // 8) * 8) for side in (width, height))
    return across, down


def references(short: bytes) -> int:
    """From how many of the last pictures short slices with these parameter sets may be predicted.

    short: the short form of parameter sets, or WHOLE and the sets.
    """
    return REFERENCES[max(0, short[0] - 1) // len(_FORMS)]


def shorten(parameters: bytes, width: int, height: int) -> bytes:
    """The short form of parameter sets for planes of this size; WHOLE and the sets if they have
    none."""
    level = parameters.partition(START)[0][-4:-3]
    for number in range(len(REFERENCES) * len(_FORMS)):
        short = bytes((1 + number,)) + level
        if level and restore(short, width, height) == parameters:
            return short
    return WHOLE + parameters


def restore(short: bytes, width: int, height: int) -> bytes:
    """The parameter sets of a short form.

    Raises CorruptStream or TruncatedStream for other bytes.
    """
    if short[:1] == WHOLE:
        return short[1:]
    if len(short) < 2:
        raise TruncatedStream("the coarse pictures' parameter sets are cut short")
    if len(short) > 2 or short[0] > len(REFERENCES) * len(_FORMS):
        raise CorruptStream(f"the coarse pictures' parameter sets are of form {short[0]}")
    chroma, tree = _FORMS[(short[0] - 1) % len(_FORMS)]
    profile = _PROFILE[chroma] + short[1:]
    sizes = "".join(map(ue, coded_size(width, height)))
    buffers = _BUFFERS[references(short)]
    sps = _CHROMA[chroma] + sizes + buffers.join(_FIRST) + _BLOCKS[tree] + _REST
    units = (
        (_VPS, _BEFORE + profile + packed(buffers.join(_BEHIND))),
        (_SPS, b"\1" + profile + packed(sps)),
        (_PPS, _PICTURE[chroma]),
    )
    return START.join(head + escaped(payload) for head, payload in units)
