"""BPG: exact planes, files of the reference encoder, and damaged bytes."""

from __future__ import annotations

import hashlib
import json
import threading

import numpy as np
import PIL.Image
import pytest
from conftest import ROOT, same_planes, street
from hypothesis import given
from hypothesis import strategies as st

from sempic import coarse
from sempic.bits import Bits, packed, ue
from sempic.coarse import bpg, hevc
from sempic.errors import (
    BitstreamError,
    CorruptStream,
    InputError,
    LimitExceeded,
    SempicError,
    TruncatedStream,
    UnsupportedProfile,
)
from sempic.evaluation.metrics import psnr
from sempic.scene import Coarse

VECTORS = sorted((ROOT / "vectors/coarse").glob("*.bpg"))
SMALL = bpg.encode(coarse.from_rgb(street(19, 27)[0], "420"), qp=38)


def planes_of(c: Coarse) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return c.y, c.cb, c.cr


def test_a_thread_that_the_system_refuses_is_an_error(monkeypatch):
    """x265 would wait for it for ever."""
    start, before = threading.Thread.start, threading.active_count()

    def refuse_the_second(thread):
        if threading.active_count() > before:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_the_second)
    with pytest.raises(SempicError, match="cannot start a thread: can't start new thread"):
        coarse.encode(street(19, 27)[0])


# ── exact ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_vectors_decode_bit_for_bit(path):
    expected = np.load(path.with_suffix(".npz"))
    file = path.read_bytes()
    for payload in (file, bpg.shorten(file), file[4:]):
        planes = coarse.decode(payload)
        for name in ("y", "cb", "cr"):
            assert np.array_equal(getattr(planes, name), expected[name])


def test_there_are_vectors():
    assert len(VECTORS) == 2


@pytest.mark.parametrize("chroma", ["420", "444"])
def test_decoded_planes_match_the_md5_of_the_encoder(chroma, monkeypatch):
    """x265 sends the MD5 of its own reconstruction (H.265 D.2.19)."""
    monkeypatch.setitem(hevc.X265, "hash", 1)
    file = bpg.encode(coarse.from_rgb(street(64, 88)[0], chroma), qp=30)
    sei = file[file.rindex(b"\0\0\1\x50\1") + 5 :].replace(b"\0\0\3", b"\0\0")
    assert sei[:3] == bytes((132, 49, 0))
    sent = [sei[at : at + 16] for at in (3, 19, 35)]
    assert sent == [hashlib.md5(p.tobytes()).digest() for p in planes_of(bpg.decode(file))]


def test_reference_files_decode_as_bpgdec_decodes_them(shared):
    """Files of bpgenc 0.9.8 and their pictures from bpgdec, sample for sample."""
    folder = shared / "reference/bpg"
    names = json.loads((folder / "bpg.json").read_text())
    assert names
    for name in names:
        planes = bpg.decode((folder / name).read_bytes())
        shown = np.array(PIL.Image.open(folder / name.replace(".bpg", ".decoded.png")))
        assert np.array_equal(coarse.to_rgb(planes), shown), name


def test_no_larger_than_the_reference(shared):
    """At the quality of the reference, our payload is smaller, and at most 0.5 dB worse."""
    folder = shared / "reference/bpg"
    for name, row in json.loads((folder / "bpg.json").read_text()).items():
        if name.endswith(".q35_420.bpg"):
            theirs = coarse.to_rgb(bpg.decode((folder / name).read_bytes()))
            source = np.array(PIL.Image.open(folder / f"{name.split('.')[0]}.png").convert("RGB"))
            payload = coarse.encode(source, quality=35, chroma="420")
            assert len(payload) < 0.95 * row["bytes"]
            ours = coarse.to_rgb(coarse.decode(payload))
            assert psnr(ours, source) > psnr(theirs, source) - 0.5


def test_the_same_bytes_every_time():
    image, _ = street(64, 86)
    assert len({coarse.encode(image) for _ in range(3)}) == 1


# ── any size, any quality ─────────────────────────────────────────────────────────────────────

SIZES = [(1, 1), (3, 5), (8, 8), (9, 8), (16, 17), (17, 33), (40, 33), (63, 57), (64, 86),
         (85, 63), (1, 1250), (1250, 1)]  # fmt: skip


@pytest.mark.parametrize("chroma", ["420", "444"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_any_size_survives_a_round_trip(size, chroma):
    image, _ = street(*size)
    payload = coarse.encode(image, quality=12, chroma=chroma)
    assert coarse.open(payload).size == size[::-1]
    source, planes = coarse.from_rgb(image, chroma), coarse.decode(payload)
    for a, b in zip(planes_of(planes), planes_of(source), strict=True):
        assert a.dtype == np.uint8
        assert a.shape == b.shape
        assert psnr(a, b) > 38


def test_quality_orders_size_and_fidelity():
    image, _ = street(64, 86)
    y = coarse.from_rgb(image).y
    payloads = [coarse.encode(image, quality=q) for q in (0, 20, 30, 40, 51)]
    sizes = [len(p) for p in payloads]
    fidelity = [psnr(coarse.decode(p).y, y) for p in payloads]
    assert sizes == sorted(sizes, reverse=True)
    assert fidelity == sorted(fidelity, reverse=True)


def test_a_pyav_without_x265_is_a_clear_error(monkeypatch):
    monkeypatch.setattr("av.codecs_available", {"hevc"})
    with pytest.raises(InputError, match="x265"):
        coarse.encode(street(16, 16)[0])


# ── the short form ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("size", "chroma", "offset", "code"),
    [((64, 86), "420", 0, 0xC0), ((64, 86), "444", 3, 0xC1), ((64, 86), "444", -6, 0xC4),
     ((40, 33), "420", 0, 0xC2), ((40, 33), "444", 3, 0xC3), ((40, 33), "444", -6, 0xC5)],
)  # fmt: skip
def test_usual_openings_take_one_byte(size, chroma, offset, code):
    planes = coarse.from_rgb(street(*size)[0], chroma)
    file = bpg.encode(planes, chroma_qp=offset)  # early files have an offset of 3
    short = bpg.shorten(file)
    assert short[0] == code
    assert len(short) <= len(file) - 21
    assert bpg.lengthen(short) == file == bpg.lengthen(file)


def test_other_openings_lose_only_the_magic():
    tiny = bpg.encode(coarse.from_rgb(street(5, 5)[0]))
    assert bpg.shorten(tiny) == tiny[4:]
    assert bpg.lengthen(tiny[4:]) == tiny


def test_unknown_openings_are_refused():
    with pytest.raises(UnsupportedProfile, match="c9"):
        coarse.decode(b"\xc9" + b"\1" * 40)


# ── bad bytes ─────────────────────────────────────────────────────────────────────────────────


def decodes_as_announced(file: bytes) -> bool:
    """False if a BitstreamError refuses the bytes; true if the planes fit the header."""
    try:
        planes = coarse.decode(file)
    except BitstreamError:
        return False
    width, height = coarse.open(file).size
    halves = ((height + 1) // 2, (width + 1) // 2)
    assert planes.y.shape == (height, width)
    assert planes.cb.shape == planes.cr.shape
    assert planes.cb.shape in ((height, width), halves)
    return True


def test_every_prefix_is_refused_or_fits_its_header(capfd):
    fits = [decodes_as_announced(SMALL[:cut]) for cut in range(len(SMALL))]
    assert not any(fits[:26])  # up to the slice header
    for payload in (bpg.shorten(SMALL), SMALL[4:]):
        for cut in range(len(payload)):
            decodes_as_announced(payload[:cut])
    assert capfd.readouterr() == ("", "")


def test_every_changed_byte_is_refused_or_fits_its_header(capfd):
    for at in range(len(SMALL)):
        for flip in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            changed = bytearray(SMALL)
            changed[at] ^= flip
            decodes_as_announced(bytes(changed))
    assert capfd.readouterr() == ("", "")


@given(st.binary(max_size=64), st.sampled_from([0, 4, 9, 13, 19, 24]))
def test_garbage_is_refused_or_fits_its_header(tail, keep):
    decodes_as_announced(SMALL[:keep] + tail)


@pytest.mark.parametrize("chroma", ["444", "420"])
@pytest.mark.parametrize("size", [(16, 16), (37, 29), (90, 65)])
def test_the_parameter_sets_of_the_specification(size, chroma):
    """format.md §6: HEVC."""
    file = bpg.encode(coarse.from_rgb(street(*size)[0], chroma))
    code, at = file[4], 6
    height, width = size
    for _ in range(3):  # the sides and the length
        while file[at] > 127:
            at += 1
        at += 1
    header, units = Bits(file[at + 1 : at + 1 + file[at]]), file[at + 1 + file[at] :]
    sizes = "".join(header.golomb() for _ in range(5))
    sizes += sizes[-3:]
    offset, _, smoothing, _ = header.take(4)
    tier = bytes.fromhex("04 08000000 900000000000 5D")
    bits = (
        "1"
        + {0x60: "001000", 0x20: "010"}[code]
        + "".join(ue(-(-s // 8) * 8) for s in (width, height))
    )
    bits += "011001011111" + sizes + "00" + offset + "0100" + smoothing + "001"
    sets = (
        bytes.fromhex("40010C01FFFF") + tier + b"\xf0\x24",
        bytes.fromhex("420101") + tier + packed(bits),
    )
    frame = hevc.decoded(hevc.decoder(), (*map(hevc.escaped, sets), units), "a picture")
    found = hevc.planes(frame, width, height)
    assert same_planes(found, bpg.decode(file))


def test_a_tiny_file_cannot_claim_a_huge_picture():
    side = b"\x83\xff\x7f"  # 65535
    file = SMALL[:6] + side + side + SMALL[8:40]
    assert coarse.open(file).size == (65535, 65535)
    with pytest.raises(LimitExceeded, match="65535"):
        coarse.decode(file)


@pytest.mark.parametrize("side", [127, 128, 16383, 16384])
def test_numbers_have_one_spelling(side):
    spelling = bpg._ue7(side)
    assert coarse.open(SMALL[:6] + 2 * spelling + SMALL[8:]).size == (side, side)
    with pytest.raises(CorruptStream, match="longer than need be"):
        coarse.open(SMALL[:6] + b"\x80" + 2 * spelling + SMALL[8:])


@pytest.mark.parametrize(
    ("at", "value", "what"),
    [(4, 0x00, "pixel format 0"), (4, 0x40, "pixel format 2"), (4, 0x22, "10 bits"),
     (5, 0x10, "color space 1"), (4, 0x30, "alpha"), (5, 0x01, "animation"),
     (5, 0x02, "limited range"), (5, 0x04, "alpha")],
)  # fmt: skip
def test_unsupported_bpg_features_are_named(at, value, what):
    file = bytearray(SMALL)
    file[at] = value
    with pytest.raises(UnsupportedProfile, match=what):
        bpg.decode(bytes(file))


def test_extensions_are_skipped():
    file = bytearray(SMALL)
    file[5] |= 0x08
    file[9:9] = b"\x04\x01\x02ab"  # length; then EXIF, two bytes
    assert np.array_equal(bpg.decode(bytes(file)).y, bpg.decode(SMALL).y)


def test_an_announced_length_must_match():
    assert SMALL[8] == 0  # up to the end of the file
    size = len(SMALL) - 9
    assert size < 128 * 128
    length = bytes((size >> 7 | 0x80, size & 0x7F)) if size > 127 else bytes((size,))
    file = SMALL[:8] + length + SMALL[9:]
    assert np.array_equal(bpg.decode(file + b"tail").y, bpg.decode(SMALL).y)
    for cut in range(len(file)):
        with pytest.raises((TruncatedStream, CorruptStream)):
            bpg.decode(file[:cut])


@pytest.mark.parametrize("insert", [b"\x42\1", b"\x40\1", b"\x02\1"], ids=["SPS", "VPS", "inter"])
def test_foreign_hevc_units_are_refused(insert):
    """A second parameter set could contradict the size in the header."""
    at = SMALL.index(b"\0\0\1")
    with pytest.raises(CorruptStream, match="does not belong"):
        bpg.decode(SMALL[:at] + b"\0\0\1" + insert + b"\1\1\1\1" + SMALL[at:])


def test_two_pictures_are_refused():
    at = SMALL.index(b"\0\0\1")
    with pytest.raises(CorruptStream, match="2 HEVC pictures"):
        bpg.decode(SMALL + SMALL[at:])
