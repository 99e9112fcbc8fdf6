"""BPG files: one HEVC intra picture behind a dozen bytes. bellard.org/bpg, specification 0.9.1.

A BPG file has its own header, the few variable fields of an HEVC sequence parameter set, and the
picture's NAL units without the first start code: a picture parameter set, then slices. The header
implies the other parameters (§3.2). The writer therefore drops x265's parameter sets, and the
reader rebuilds them for libavcodec's decoder. HEVC (ITU-T H.265; clauses are cited below) defines
every sample, so planes are the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

from sempic.bits import Bits, from_golomb, packed, ue
from sempic.coarse import hevc
from sempic.coarse.codec import CoarseCodec, Opened
from sempic.coarse.hevc import CHROMA, CHROMA_QP, START
from sempic.coarse.planes import check_size, from_rgb
from sempic.errors import CorruptStream, InputError, TruncatedStream, UnsupportedProfile
from sempic.scene import Coarse, Image

MAGIC = b"BPG\xfb"

_VPS, _SPS, _PPS, _PREFIX_SEI, _SUFFIX_SEI = 32, 33, 34, 39, 40
_SLICES = range(16, 22)  # of intra random access pictures

# Bytes of a BPG file before its width, and after its height up to the first slice's NAL header, for
# 4:2:0 and 4:4:4 and coding trees of 64 and 32, by x265 4.2 with `hevc.X265`. The QP of chroma is 3
# above luma's in C1 and C3, and 6 below in C4 and C5. Frozen with the format: append, never change.
_OPENINGS = {
    0xC0: (b"\x20\0", bytes.fromhex("0003924740 4401c1758112 0000012801")),
    0xC1: (b"\x60\0", bytes.fromhex("0003924740 4401c174630112 0000012801")),
    0xC2: (b"\x20\0", bytes.fromhex("0003b91d00 4401c1758112 0000012801")),
    0xC3: (b"\x60\0", bytes.fromhex("0003b91d00 4401c174630112 0000012801")),
    0xC4: (b"\x60\0", bytes.fromhex("0003924740 4401c17434681120 0000012801")),
    0xC5: (b"\x60\0", bytes.fromhex("0003b91d00 4401c17434681120 0000012801")),
}

# Bytes after the height of a 4:4:4 file whose chroma has luma's QP, by side of the coding trees.
# Frozen with the format.
_WINDOWS = {
    64: bytes.fromhex("0003924740 4401c1758112 0000012801"),
    32: bytes.fromhex("0003b91d00 4401c1758112 0000012801"),
    16: bytes.fromhex("0002ab74 4401c1758112 0000012801"),
}


@dataclass(frozen=True, slots=True)
class _Sps:
    """The fields of a sequence parameter set that a BPG file contains, as bit strings."""

    sizes: str
    """Four sizes of coding and transform blocks."""
    depth: str
    """max_transform_hierarchy_depth_intra"""
    sao: str
    pcm: str
    smoothing: str
    extension: str
    min_block: int
    """Side of the smallest coding block; the sides of the coded picture are multiples of it."""


def encode(coarse: Coarse, *, qp: int = 33, chroma_qp: int | None = None) -> bytes:
    """The BPG file of a picture.

    qp: of luma, HEVC's, 0 (best) … 51. chroma_qp: chroma's QP less luma's, -12…12; None: as in
    coarse pictures (`hevc.CHROMA_QP`).

    Raises InputError if PyAV lacks x265; PyAV's own wheels include it.
    """
    height, width = coarse.y.shape
    (pixel_format,) = (number for number, name in CHROMA.items() if name == coarse.chroma)
    units = _x265(coarse, qp, CHROMA_QP[coarse.chroma] if chroma_qp is None else chroma_qp)
    sps = _read_x265_sps(units[_SPS])
    fields = packed(sps.sizes + sps.depth + sps.sao + sps.pcm + sps.smoothing + sps.extension)
    return b"".join(
        (
            MAGIC,
            bytes((pixel_format << 5, 0)),
            _ue7(width),
            _ue7(height),
            _ue7(0),  # picture_data_length: up to the end of the file
            _ue7(len(fields)),
            fields,
            START.join(units[kind] for kind in units if kind not in (_VPS, _SPS)),
        )
    )


def decode(file: bytes) -> Coarse:
    """The planes of a BPG file.

    Raises a BitstreamError: UnsupportedProfile for valid files with alpha or animation, or other
    than 8-bit full-range YCbCr 4:2:0 or 4:4:4; LimitExceeded as `check_size`.
    """
    return _read_header(file).decode()


def _decode(sides: tuple[int, int], chroma: str, data: bytes) -> Coarse:
    """The planes of a file. sides: width and height. data: hevc_header_and_data."""
    check_size(*sides)
    size, at = _read_ue7(data, 0, len(data))
    left = len(data) - at
    if size > left:
        raise TruncatedStream(f"the HEVC header claims {size} bytes, {left} are left")
    sps = _read_bpg_sps(data[at : at + size])
    coded = tuple(-(-side // sps.min_block) * sps.min_block for side in sides)
    units = *_parameter_sets(coded, chroma, sps), *_split(data[at + size :])
    frame = hevc.decoded(hevc.decoder(), units, "the HEVC picture")
    if (frame.width, frame.height) != coded or frame.format.name != f"yuv{chroma}p":
        raise CorruptStream("the HEVC picture is not of the announced size and format")
    return hevc.planes(frame, *sides)


def shorten(file: bytes) -> bytes:
    """The chunk payload of a BPG file: the file without its magic, and shorter if possible.

    If the bytes before the slice data, apart from the size, are a usual opening, one byte replaces
    this opening (docs/spec/format.md §6). This saves 22 of about 550 bytes.
    """
    width, height = _read_header(file).size
    at = 6 + len(_ue7(width)) + len(_ue7(height))
    for code, (flags, rest) in _OPENINGS.items():
        if file[4:6] == flags and file[at : at + len(rest)] == rest:
            return bytes((code,)) + file[6:at] + file[at + len(rest) :]
    return file[len(MAGIC) :]


def lengthen(payload: bytes) -> bytes:
    """The inverse of `shorten`; a complete BPG file is returned unchanged.

    Raises UnsupportedProfile for an unknown opening.
    """
    if payload[:4] == MAGIC:
        return payload
    if payload[:1] < b"\xc0":  # a pixel format; 6 and 7 are reserved
        return MAGIC + payload
    if payload[0] not in _OPENINGS:
        raise UnsupportedProfile(f"BPG opening {payload[0]:02x} is not known here")
    flags, rest = _OPENINGS[payload[0]]
    _, at = _read_ue7(payload, 1, len(payload))
    _, at = _read_ue7(payload, at, len(payload))
    return MAGIC + flags + payload[1:at] + rest + payload[at:]


def opening(width: int, height: int) -> bytes:
    """The bytes before the first slice's data in a 4:4:4 file by `encode` with chroma_qp 0.

    width, height: 16 or more (docs/spec/format.md §7).
    """
    return MAGIC + b"\x60\0" + _ue7(width) + _ue7(height) + _WINDOWS[hevc.tree(width, height)]


def _encode_payload(rgb: Image, quality: int, chroma: str) -> bytes:
    return shorten(encode(from_rgb(rgb, chroma), qp=max(quality - 2, 0)))


def _open(payload: bytes) -> Opened:
    return _read_header(lengthen(payload))


CODEC = CoarseCodec(name="bpg", chunk=2, exact=True, encode=_encode_payload, open=_open)


# ── the file (BPG §3) ─────────────────────────────────────────────────────────────────────────


def _read_header(file: bytes) -> Opened:
    if file[:4] != MAGIC[: len(file)]:
        raise CorruptStream("not a BPG file: the magic is missing")
    if len(file) < 6:
        raise TruncatedStream("the BPG file ends inside its header")
    pixel_format, alpha, depth = file[4] >> 5, file[4] >> 4 & 1, (file[4] & 15) + 8
    space, flags = file[5] >> 4, file[5] & 15
    if pixel_format not in CHROMA or depth != 8 or space != 0:
        raise UnsupportedProfile(
            f"BPG pixel format {pixel_format}, {depth} bits, color space {space}: only 8-bit "
            "YCbCr 4:2:0 and 4:4:4 are supported"
        )
    if alpha or flags & 0b0111:
        raise UnsupportedProfile("BPG with alpha, limited range or animation is not supported")
    width, at = _read_ue7(file, 6, len(file))
    height, at = _read_ue7(file, at, len(file))
    if width == 0 or height == 0:
        raise CorruptStream(f"a BPG picture of {width}×{height}")
    size, at = _read_ue7(file, at, len(file))
    if flags & 0b1000:
        skip, at = _read_ue7(file, at, len(file))
        at += skip
    left = len(file) - at
    if size > left or left <= 0:
        raise TruncatedStream(f"the BPG picture claims {size} bytes, {max(left, 0)} are left")
    sides, data = (width, height), file[at : at + (size or left)]
    return Opened(sides, lambda: _decode(sides, CHROMA[pixel_format], data))


def _ue7(value: int) -> bytes:
    out = [value & 0x7F]
    while value := value >> 7:
        out.append(value & 0x7F | 0x80)
    return bytes(reversed(out))


def _read_ue7(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The number at byte `at`, below 2^35, and the position after it."""
    value = 0
    for i in range(at, at + 5):
        if i >= end:
            raise TruncatedStream("the BPG file ends inside a number")
        if i == at and data[i] == 0x80:
            raise CorruptStream(f"the number at byte {at} is longer than need be")
        value = value << 7 | data[i] & 0x7F
        if data[i] < 0x80:
            return value, i + 1
    raise CorruptStream(f"the number at byte {at} is too large")


def _split(data: bytes) -> list[bytes]:
    """The NAL units of one intra picture: parameters, SEI and slices only (H.265 7.3.1)."""
    units = [unit.rstrip(b"\0") for unit in data.split(START)]
    firsts = 0
    for unit in units:
        if len(unit) < 3:
            raise TruncatedStream("an HEVC unit is cut short")
        kind = hevc.kind(unit)
        if kind not in (_PPS, _PREFIX_SEI, _SUFFIX_SEI, *_SLICES):
            raise CorruptStream(f"HEVC unit {unit[:2].hex()} does not belong into a BPG file")
        firsts += kind in _SLICES and unit[2] >> 7
    if firsts != 1:
        raise CorruptStream(f"{firsts} HEVC pictures where one is expected")
    return units


# ── parameter sets (H.265 7.3.2) ──────────────────────────────────────────────────────────────


def _read_bpg_sps(fields: bytes) -> _Sps:
    bits = Bits(fields)
    sizes = [bits.golomb() for _ in range(4)]
    rest = bits.golomb(), bits.take(1), bits.pcm(), bits.take(1), bits.take(1)
    sps = _Sps("".join(sizes), *rest, _min_block(sizes))
    if sps.extension == "1":
        raise UnsupportedProfile("BPG with HEVC range extensions is not supported")
    bits.end()
    return sps


def _min_block(sizes: list[str]) -> int:
    block, tree, transform, largest = (from_golomb(size) for size in sizes)
    block, transform = block + 3, transform + 2
    tree, largest = block + tree, transform + largest
    if not (4 <= tree <= 6 and transform < block <= tree and largest <= min(tree, 5)):
        raise CorruptStream("the HEVC header has inconsistent block sizes")
    return 1 << block


def _read_x265_sps(unit: bytes) -> _Sps:
    """The fields for BPG from x265's seq_parameter_set_rbsp (7.3.2.2) of one layer."""
    bits = Bits(hevc.payload(unit))
    hevc.read_sps(bits)  # BPG has its own fields for these
    bits.take(1)
    [bits.golomb() for _ in range(3)]  # buffering, reordering, latency
    sizes = [bits.golomb() for _ in range(4)]
    bits.golomb()  # max_transform_hierarchy_depth_inter
    depth = bits.golomb()
    if bits.take(2)[0] == "1":  # scaling lists; asymmetric partitions
        raise InputError("BPG has no scaling lists")
    sao, pcm = bits.take(1), bits.pcm()
    if bits.ue() or bits.take(1) == "1":
        raise InputError("x265 wrote reference pictures into an intra stream")
    bits.take(1)  # temporal motion vectors
    return _Sps("".join(sizes), depth, sao, pcm, bits.take(1), "0", _min_block(sizes))


def _parameter_sets(coded: tuple[int, ...], chroma: str, sps: _Sps) -> tuple[bytes, bytes]:
    """The video and sequence parameter sets that a BPG file implies.

    coded: width and height in whole blocks. chroma: "420" or "444".
    """
    idc = 3 if chroma == "444" else 1  # chroma_format_idc
    # Main, or the format range extensions with no constraint; intra only; level 8.5, no limit.
    profile = f"{1 if idc == 1 else 4:08b}" + f"{0b01111 << 27:032b}" + "0" * 48 + f"{255:08b}"
    order = "1" + ue(0) * 3  # one picture in the buffer, none reordered
    vps = "0000" + "11" + "0" * 6 + "000" + "1" + "1" * 16 + profile + order
    vps += "0" * 6 + ue(0) + "0" + "0"
    seq = "0000" + "000" + "1" + profile + ue(0) + ue(idc) + "0" * (idc == 3)
    seq += ue(coded[0]) + ue(coded[1]) + "0" + ue(0) * 2  # no cropping, 8 bits
    seq += ue(4) + order + sps.sizes + ue(0) + sps.depth + "0" + "0" + sps.sao + sps.pcm
    seq += ue(0) + "0" + "0" + sps.smoothing + "0" + sps.extension
    return _unit(_VPS, vps), _unit(_SPS, seq)


def _unit(kind: int, bits: str) -> bytes:
    return bytes((kind << 1, 1)) + hevc.escaped(packed(bits + "1"))


# ── the encoder ───────────────────────────────────────────────────────────────────────────────


def _x265(coarse: Coarse, qp: int, chroma_qp: int) -> dict[int, bytes]:
    """The NAL units of a picture by type, in order."""

    # x265 needs at least one coding tree block, with a side of 16 or more. For smaller pictures the
    # smallest coding block has this side, too, so that BPG's rule still gives the coded size.
    block = 8 if min(coarse.y.shape) > 8 else 16
    height, width = (-(-side // block) * block for side in coarse.y.shape)
    settings = hevc.X265 | {"qp": qp, "min-cu-size": block}
    encoder = hevc.encoder(width, height, coarse.chroma, chroma_qp, settings, preset="placebo")
    frame = hevc.frame(coarse, width, height)
    packets = *encoder.encode(frame), *encoder.encode(None)
    return {hevc.kind(unit): unit for unit in hevc.units(packets)}
