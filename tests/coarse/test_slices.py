"""Short slices of predicted pictures."""

import numpy as np
import pytest
from conftest import same_planes, street

from sempic import coarse
from sempic.coarse import hevc, moving, sets, slices
from sempic.errors import BitstreamError

PLACES = 8
MOST = max(sets.REFERENCES)


def darker(count=5, height=36, width=50, chroma="444"):
    """Pictures that x265 predicts with weights."""
    large = street(4 * height, 4 * width + 8 * count)[0].astype(float)
    parts = (large[:, 8 * i : 8 * i + 4 * width] * (1 - 0.08 * i) for i in range(count))
    return [coarse.from_rgb(coarse.downscale(part.astype(np.uint8)), chroma) for part in parts]


def coded(planes, monkeypatch, shorten=slices.shorten, keys=(3,)):
    """Payloads of the pictures, their reconstructions, and the parameter sets."""
    monkeypatch.setattr(slices, "shorten", shorten)
    height, width = planes[0].y.shape
    encoder = moving.Encoder(width, height, planes[0].chroma)
    found = [encoder.encode(p, qp=28 + i, key=i in keys) for i, p in enumerate(planes)]
    return *zip(*found, strict=True), encoder.parameters


@pytest.mark.parametrize("chroma", ["444", "420"])
def test_short_slices_decode_like_whole_slices(monkeypatch, chroma):
    planes = darker(8, chroma=chroma)
    short, expected, parameters = coded(planes, monkeypatch)
    whole, same, _ = coded(planes, monkeypatch, lambda *_: None)
    assert all(same_planes(a, b) for a, b in zip(expected, same, strict=True))
    first = moving.Decoder(parameters, 50, 36)
    second = moving.Decoder(parameters, 50, 36)
    old = moving.Decoder(sets.restore(parameters, 50, 36), 50, 36, short=False)
    weighted = 0
    for number, (a, b, planes) in enumerate(zip(short, whole, expected, strict=True)):
        key = number in (0, 3)
        assert same_planes(first.decode(a, key=key), planes)
        assert same_planes(second.decode(b, key=key), planes)
        assert same_planes(old.decode(b if key else b[1:], key=key), planes)
        if key:
            assert a == b
        else:
            assert b[0] == 0
            assert len(b) - len(a) >= 5
            weighted += a[0] >> 7
    assert 0 < weighted < 6


def test_a_short_slice_does_not_name_its_position(monkeypatch):
    """A slice after a lost picture decodes as if it followed the last picture that arrived."""
    short, _, parameters = coded(darker(3), monkeypatch)
    decoder = moving.Decoder(parameters, 50, 36)
    decoder.decode(short[0], key=True)
    decoder.decode(short[2], key=False, lost=True)
    assert slices.shorten(slices.restore(short[2], 2, PLACES, MOST), PLACES, MOST) == short[2]
    late = b"\x1edata"
    unit, other = (slices.restore(late, place, PLACES, MOST) for place in (7, 6))
    assert sum(a != b for a, b in zip(unit, other, strict=True)) == 1
    assert slices.shorten(unit, PLACES, MOST) == slices.shorten(other, PLACES, MOST) == late


@pytest.mark.parametrize("lost", [(1,), (2, 3), (6,), (1, 2, 4, 9)])
def test_pictures_after_lost_ones_are_predicted_from_those_that_are_left(monkeypatch, lost):
    short, expected, parameters = coded(darker(12), monkeypatch, keys=())
    decoder = moving.Decoder(parameters, 50, 36)
    for number, (payload, planes) in enumerate(zip(short, expected, strict=True)):
        if number not in lost:
            found = decoder.decode(payload, key=number == 0, lost=number > lost[0])
            error = abs(found.y.astype(int) - planes.y).mean()
            assert error < (0.5 if number < lost[0] else 30)


def test_each_picture_has_as_many_reference_pictures_as_there_are(monkeypatch):
    short, expected, parameters = coded(darker(10), monkeypatch, keys=())
    assert [(p[0] >> 6 & 1, p[1]) for p in short[1:MOST]] == [(1, n) for n in range(1, MOST)]
    assert not any(p[0] >> 6 & 1 for p in short[MOST:])
    decoder = moving.Decoder(parameters, 50, 36)
    for number, (payload, planes) in enumerate(zip(short, expected, strict=True)):
        assert same_planes(decoder.decode(payload, key=number == 0), planes)


def test_the_place_of_a_picture_wraps():
    short = b"\x20data"
    assert slices.restore(short, 2**PLACES + 2, PLACES) == slices.restore(short, 2, PLACES)
    assert slices.restore(short, 2**PLACES - 1, PLACES) != slices.restore(short, 2, PLACES)


@pytest.mark.parametrize("references", sets.REFERENCES)
def test_invalid_short_slices_are_refused(references):
    for payload in (b"", b"\0", b"\x3f\x80", b"\xbf", b"\xa0", b"\xa0\0\0\0\0\0"):
        with pytest.raises(BitstreamError):
            slices.restore(payload, 1, PLACES, references)


def test_invalid_numbers_of_reference_pictures_are_refused():
    for payload in (b"\x5e", b"\x5e\0data", b"\x5e\6data", b"\x5e\xffdata"):
        with pytest.raises(BitstreamError):
            slices.restore(payload, 9, PLACES, MOST)
    with pytest.raises(BitstreamError):  # one alone is never fewer
        slices.restore(b"\x5e\1data", 9, PLACES, 1)


def test_other_slices_have_no_short_form(monkeypatch):
    whole, _, _ = coded(darker(2), monkeypatch, lambda *_: None)
    monkeypatch.undo()
    unit = whole[1][1:]
    assert slices.shorten(unit, PLACES) is not None
    third = slices.restore(b"\x5e\2data", 2, PLACES, MOST)
    assert slices.shorten(third, PLACES, MOST) == b"\x5e\2data"
    assert slices.shorten(third, PLACES) is None
    for at in range(0, 16 + PLACES):  # the fields before the reference pictures
        if 5 <= at - 16 < 5 + PLACES:
            continue
        number = int.from_bytes(unit, "big") ^ 1 << (8 * len(unit) - 1 - at)
        assert slices.shorten(number.to_bytes(len(unit), "big"), PLACES) is None
    assert slices.shorten(unit[:6], PLACES) is None
    assert slices.shorten(whole[0].split(hevc.START)[0], PLACES) is None
