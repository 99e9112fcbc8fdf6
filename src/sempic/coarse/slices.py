"""Short slice headers of predicted coarse pictures. docs/spec/sequence.md §4.

The slice headers of x265 take nine bytes, in slices of often twenty: the picture's place, its
reference picture, constant settings. A short slice has one byte for them.
"""

from __future__ import annotations

from sempic.bits import Bits, packed, ue
from sempic.coarse import hevc
from sempic.errors import BitstreamError, CorruptStream, TruncatedStream

_UNIT = b"\x02\x01"
"""Header of a NAL unit of type 1."""
_FIRST, _TYPE = "11", ue(1)
"""The first slice of a picture, with parameter set 0; a P slice."""
_LAST = ue(0) + ue(0) + "1"
"""No later reference picture; the first earlier one is the last picture, and used."""
_CANDIDATES = ue(2)
"""five_minus_max_num_merge_cand of x265's preset "slow"."""
_BASE_QP = 26
"""QP in x265's parameter sets; slices code their difference from it."""
_QPS = range(1, 52)
_WEIGHTED = 128
_UNWEIGHTED = "1100"
"""The shortest weight table: no weights."""
_OPENING = 32
"""The most bytes of a slice header."""


def shorten(unit: bytes, places: int) -> bytes | None:
    """The short form of a NAL unit, a slice that is predicted from the last picture; None if it has
    no short form. places: bits of a picture's place."""
    raw = hevc.payload(unit)
    bits = Bits(raw[:_OPENING])
    try:
        if unit[:2] != _UNIT or not _is(bits, _FIRST + _TYPE):
            return None
        bits.take(places)
        if not _is(bits, "0") or not _references(bits) or not _is(bits, "0"):
            return None
        weights = _weights(bits)
        if not _is(bits, _CANDIDATES):
            return None
        qp = _BASE_QP + _signed(bits)
        bits.take(1)  # loop filter across slices: no effect in a picture of one slice
        if qp not in _QPS or not _is(bits, "1" + "0" * (-(bits.at + 1) % 8)):
            return None
    except BitstreamError:
        return None
    data = raw[bits.at // 8 :]
    if weights is None:
        return bytes((qp,)) + data
    return bytes((qp | _WEIGHTED,)) + packed(weights) + data


def restore(short: bytes, place: int, places: int) -> bytes:
    """The NAL unit of a short form.

    place: number of pictures since the key frame. places: bits of a picture's place. Raises
    CorruptStream or TruncatedStream for other bytes.
    """
    if not short:
        raise TruncatedStream("a coarse picture is cut short")
    qp, data, weights = short[0] & ~_WEIGHTED, short[1:], None
    if qp not in _QPS:
        raise CorruptStream(f"a coarse picture has a QP of {qp}")
    if short[0] & _WEIGHTED:
        bits = Bits(data[:_OPENING], "a coarse picture")
        weights = _weights(bits)
        data = data[-(-bits.at // 8) :]
    place_bits = f"{place % (1 << places):0{places}b}"
    delta = qp - _BASE_QP
    delta_bits = ue(2 * delta - 1 if delta > 0 else -2 * delta)
    head = _FIRST + _TYPE + place_bits + "0" + ue(1) + _LAST + "0" + (weights or _UNWEIGHTED)
    head += _CANDIDATES + delta_bits + "11"
    return _UNIT + hevc.escaped(packed(head) + data)


def _is(bits: Bits, expected: str) -> bool:
    """Whether the next bits are these; takes them."""
    return bits.take(len(expected)) == expected


def _signed(bits: Bits) -> int:
    number = bits.ue()
    return (number + 1) // 2 if number % 2 else -(number // 2)


def _references(bits: Bits) -> bool:
    """Whether the last picture is the first reference picture (H.265 7.3.7). Others may be kept,
    but nothing is predicted from them."""
    count = bits.ue()
    if count < 1 or not _is(bits, _LAST):
        return False
    for _ in range(count - 1):
        bits.golomb()
        bits.take(1)
    return True


def _weights(bits: Bits) -> str | None:
    """The bits of pred_weight_table for one picture with chroma (H.265 7.3.6.3); None: no
    weights."""
    start = bits.at
    bits.golomb()
    bits.golomb()
    luma, chroma = bits.take(1) == "1", bits.take(1) == "1"
    for _ in range(2 * luma + 4 * chroma):
        bits.golomb()
    return bits.bits[start : bits.at] if luma or chroma else None
