"""The codecs by name: AVIF, WebP, JPEG XL, and those that do not exist."""

from __future__ import annotations

import re
import sys
import warnings

import numpy as np
import pytest
from conftest import street

from sempic import coarse
from sempic.errors import (
    BitstreamError,
    CorruptStream,
    ImageError,
    InputError,
    LimitExceeded,
    UnsupportedChunk,
    install_hint,
)

IMAGE, _ = street(40, 53)


@pytest.fixture(params=["avif", "webp", "jxl"])
def codec(request):
    if request.param == "jxl":
        pytest.importorskip("pillow_jxl", reason="pillow-jxl-plugin is not installed")
    return request.param


def test_round_trip(codec):
    payloads = [coarse.encode(IMAGE, codec=codec, quality=q) for q in (5, 30, 45)]
    sizes = [len(p) for p in payloads]
    assert sizes == sorted(sizes, reverse=True)
    source = coarse.from_rgb(IMAGE).y.astype(float)
    for payload, bound in zip(payloads, (4, 12, 40), strict=True):
        assert coarse.open(payload, codec).size == (53, 40)
        planes = coarse.decode(payload, codec=codec)
        assert planes.y.shape == planes.cb.shape == planes.cr.shape == (40, 53)
        assert np.sqrt(np.mean((planes.y - source) ** 2)) < bound


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (64, 64), (1, 300), (48, 80)])
def test_every_size_is_coded(codec, size):
    payload = coarse.encode(street(*size)[0], codec=codec)
    assert coarse.open(payload, codec).size == size[::-1]
    assert coarse.decode(payload, codec=codec).y.shape == size


@pytest.mark.parametrize("quality", [0, 1, 2, 51])
def test_the_ends_of_the_scale_are_coded(codec, quality):
    payload = coarse.encode(IMAGE, codec=codec, quality=quality)
    assert coarse.decode(payload, codec=codec).y.shape == IMAGE.shape[:2]


def test_damaged_bytes_are_refused_or_fit_the_header(codec, capfd):
    payload = coarse.encode(IMAGE, codec=codec, quality=45)
    step = max(1, len(payload) // 60)
    bad = [payload[:cut] for cut in range(0, len(payload), step)]
    for at in range(0, len(payload), step):
        changed = bytearray(payload)
        changed[at] ^= 0x55
        bad.append(bytes(changed))
    for bytes_ in bad:
        try:
            planes = coarse.decode(bytes_, codec=codec)
        except BitstreamError:
            continue
        assert planes.y.shape == coarse.open(bytes_, codec).size[::-1]
    with pytest.raises(BitstreamError):
        coarse.decode(b"", codec=codec)
    assert capfd.readouterr() == ("", "")


def test_a_header_of_a_huge_picture_is_refused_before_decoding():
    payload = bytearray(coarse.encode(IMAGE, codec="webp"))
    assert payload[12:16] == b"VP8 "
    payload[26:28] = (5000).to_bytes(2, "little")
    with pytest.raises(LimitExceeded, match="5000"):
        coarse.decode(bytes(payload), codec="webp")


@pytest.mark.parametrize("side", [9000, 9800, 20000], ids=["large", "warned of", "refused"])
def test_an_avif_header_of_a_huge_picture_is_refused_without_a_warning_of_pillow(side):
    payload = bytearray(coarse.encode(IMAGE, codec="avif"))
    at = payload.index(b"ispe") + 8
    payload[at : at + 8] = 2 * side.to_bytes(4, "big")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with pytest.raises(BitstreamError):
            coarse.decode(bytes(payload), codec="avif")
    assert not told


def test_a_jxl_header_of_a_huge_picture_is_refused_before_decoding():
    pytest.importorskip("pillow_jxl", reason="pillow-jxl-plugin is not installed")
    # SizeHeader from the least significant bit: not small; height 18 bits, 99999; ratio 1:1.
    claim = (0 | 2 << 1 | 99999 << 3 | 1 << 21).to_bytes(10, "little")
    assert coarse.open(b"\xff\x0a" + claim, "jxl").size == (100000, 100000)
    with pytest.raises(LimitExceeded, match="100000"):
        coarse.decode(b"\xff\x0a" + claim, codec="jxl")


def test_a_codec_refuses_files_of_other_codecs():
    with pytest.raises(
        CorruptStream, match="the webp picture is broken: its header cannot be read"
    ):
        coarse.decode(coarse.encode(IMAGE, codec="avif"), codec="webp")


def test_jxl_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    with pytest.raises(InputError, match=re.escape(install_hint("jxl"))):
        coarse.encode(IMAGE, codec="jxl")
    with pytest.raises(UnsupportedChunk, match=re.escape(install_hint("jxl"))):
        coarse.decode(b"\xff\x0a", codec="jxl")


def test_unknown_codecs_are_refused():
    with pytest.raises(InputError, match="flif"):
        coarse.encode(IMAGE, codec="flif")
    with pytest.raises(UnsupportedChunk, match="flif"):
        coarse.decode(b"", codec="flif")
    with pytest.raises(UnsupportedChunk, match="flif"):
        coarse.open(b"", "flif")


@pytest.mark.parametrize("quality", [-1, 52])
def test_quality_has_a_range(quality):
    with pytest.raises(InputError, match="0…51"):
        coarse.encode(IMAGE, quality=quality)


def test_pictures_beyond_a_codecs_limit_are_refused():
    with pytest.raises(ImageError, match="4097"):
        coarse.encode(np.zeros((1, 4097, 3), np.uint8))
