"""Coarse pictures in time."""

import os
import signal

import numpy as np
import pytest
from conftest import same_planes, street

from sempic import coarse
from sempic.bits import ue
from sempic.coarse import hevc, moving, sets
from sempic.coarse.hevc import START
from sempic.errors import CorruptStream, ImageError, InputError, LimitExceeded, UnsupportedProfile


def pictures(count=5, height=36, width=50, chroma="444"):
    large = street(4 * height, 4 * width + 8 * count)[0]
    parts = (large[:, 8 * i : 8 * i + 4 * width] for i in range(count))
    return [coarse.from_rgb(coarse.downscale(part), chroma) for part in parts]


def coded(planes, qps, keys=()):
    height, width = planes[0].y.shape
    encoder = moving.Encoder(width, height, planes[0].chroma)
    found = [
        encoder.encode(p, qp=q, key=i in keys)
        for i, (p, q) in enumerate(zip(planes, qps, strict=True))
    ]
    return encoder.parameters, found


@pytest.mark.parametrize(
    ("size", "chroma"), [((36, 50), "444"), ((7, 13), "420"), ((9, 70), "444")]
)
def test_decoded_planes_are_the_encoders_reconstruction(size, chroma):
    planes = pictures(5, *size, chroma)
    parameters, found = coded(planes, [30] * 5, keys=(3,))
    decoder = moving.Decoder(parameters, size[1], size[0])
    for number, (payload, expected) in enumerate(found):
        assert same_planes(decoder.decode(payload, key=number in (0, 3)), expected)
        assert expected.y.shape == size
        assert np.abs(expected.y.astype(int) - planes[number].y).mean() < 6


def test_decoding_begins_at_a_key_frame():
    parameters, found = coded(pictures(), [30] * 5, keys=(3,))
    decoder = moving.Decoder(parameters, 50, 36)
    with pytest.raises(CorruptStream):
        decoder.decode(found[1][0], key=False)
    assert same_planes(decoder.decode(found[3][0], key=True), found[3][1])
    assert same_planes(decoder.decode(found[4][0], key=False), found[4][1])


def test_each_picture_has_the_requested_qp():
    planes = pictures(6)
    _, found = coded(planes, [22, 44, 22, 44, 44, 22])
    error = [np.abs(p.y.astype(int) - q.y).mean() for p, (_, q) in zip(planes, found, strict=True)]
    size = [len(payload) for payload, _ in found]
    assert max(error[0], error[2], error[5]) < 0.9 * min(error[1], error[3], error[4])
    assert min(size[2], size[5]) > 2 * max(size[1], size[3], size[4])


def test_bytes_are_the_same_each_time():
    assert coded(pictures(), [30] * 5)[0] == coded(pictures(), [30] * 5)[0]
    first, second = (coded(pictures(), [34, 30, 40, 36, 36])[1] for _ in range(2))
    assert [p for p, _ in first] == [p for p, _ in second]


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="Linux counts threads there")
def test_more_qps_take_no_more_threads():
    """A live sequence with a bit rate uses most of them."""
    planes = pictures(4)
    encoder = moving.Encoder(50, 36)
    encoder.encode(planes[0], qp=30, key=True)
    before = len(os.listdir("/proc/self/task"))
    for qp, picture in enumerate(planes[1:], 31):
        encoder.encode(picture, qp=qp, key=False)
    assert len(os.listdir("/proc/self/task")) <= before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_may_drop_an_encoder():
    """Its threads do not exist there: x265 would wait for them forever. To go on is an error."""
    encoder = moving.Encoder(50, 36)
    encoder.encode(pictures(1)[0], qp=30, key=True)
    if (child := os.fork()) == 0:
        signal.alarm(10)
        with pytest.raises(InputError, match="a forked process cannot go on with it"):
            encoder.encode(pictures(1)[0], qp=30, key=False)
        del encoder
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def fill_heap(value):
    """Fill freed memory with a value: most of the next allocations begin with it."""
    blocks = [bytes([value]) * (size << 10) for size in (8, 16, 32, 64, 100) for _ in range(64)]
    del blocks


@pytest.mark.parametrize(
    ("size", "chroma"),
    [((64, 88), "444"), ((32, 60), "420"), ((50, 16), "420"), ((16, 16), "444")],
)
def test_bytes_do_not_depend_on_uninitialised_memory(size, chroma):
    """x265 leaves the margins of pictures one coding tree high or wide uninitialised."""
    height, width = (4 * side for side in size)
    large = street(height + 48, width + 48)[0]
    planes = []
    for i in range(6):  # the scene moves and darkens
        part = large[48 - 8 * i :, 48 - 8 * i :][:height, :width] * (1 - 0.08 * i)
        planes.append(coarse.from_rgb(coarse.downscale(part.astype(np.uint8)), chroma))
    found = []
    for value in (0, 77, 128, 255):
        fill_heap(value)
        found.append([payload for payload, _ in coded(planes, [30] * 6)[1]])
    assert found.count(found[0]) == len(found)
    assert max(map(len, found[0][1:])) < 0.8 * len(found[0][0])


def test_unexpected_nal_units_are_refused():
    parameters, found = coded(pictures(2), [30] * 2)
    decoder = moving.Decoder(parameters, 50, 36)
    for payload, key in (
        (found[1][0], True),
        (parameters, True),
        (b"\0" + found[0][0], False),
        (b"", True),
    ):
        with pytest.raises(CorruptStream, match="kind"):
            decoder.decode(payload, key=key)


def test_damaged_bytes_are_refused_or_decode_to_planes():
    parameters, found = coded(pictures(2), [30] * 2)
    for at in range(2, len(found[0][0]), 7):
        payload = bytearray(found[0][0])
        payload[at] ^= 255
        try:
            planes = moving.Decoder(parameters, 50, 36).decode(bytes(payload), key=True)
        except CorruptStream:
            continue
        assert planes.y.shape == (36, 50)


def test_invalid_parameter_sets_are_refused(monkeypatch):
    parameters = sets.WHOLE + sets.restore(coded(pictures(1), [30])[0], 50, 36)
    for wrong in (b"\0", parameters[:40], parameters + b"\0\0\1" + parameters[:20]):
        with pytest.raises(CorruptStream):
            moving.Decoder(wrong, 50, 36)
    with pytest.raises(CorruptStream, match="smaller"):
        moving.Decoder(parameters, 100, 36)
    vps, sps, pps = parameters[1:].split(START)
    raw = hevc.payload(sps)
    separate = 8 * 13 + len("1" + ue(3))  # behind profile, level and number
    depth = separate + 1 + len(ue(56) + ue(40)) + 1
    for bit in (separate, depth):
        other = (int.from_bytes(raw, "big") ^ 1 << 8 * len(raw) - 1 - bit).to_bytes(len(raw), "big")
        changed = START.join((vps, sps[:2] + hevc.escaped(other), pps))
        with pytest.raises(UnsupportedProfile):
            moving.Decoder(sets.WHOLE + changed, 50, 36)
    with pytest.raises(ImageError, match="4097"):
        moving.Encoder(4097, 16)
    large = coded(pictures(1, 36, 100), [30])[0]
    monkeypatch.setattr(moving, "MAX_SIDE", 0)
    with pytest.raises(LimitExceeded):
        moving.Decoder(large, 100, 36)
