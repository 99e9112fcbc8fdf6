"""Sequences in Python: pictures to bytes to pictures, with stand-ins for the networks."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from conftest import FakeReceiver, FakeSegmenter
from videos import FRAMES

from sempic import api, errors, sequence
from sempic.sequence import stream


@pytest.fixture
def coder(stand_ins):
    return api.Codec()


def test_encode_and_decode(coder):
    pieces = list(sequence.encode(FRAMES, codec=coder))
    assert len(pieces) == len(FRAMES)
    pictures = list(sequence.decode(pieces, codec=coder))
    assert [p.size for p in pictures] == [(64, 48)] * 6
    again = list(sequence.decode(b"".join(pieces), codec=coder))
    for a, b in zip(pictures, again, strict=True):
        assert np.array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"palette": 15}, errors.UnsupportedProfile),
        ({"model": 15}, errors.UnsupportedProfile),
        ({"width": 70000}, errors.LimitExceeded),
        ({"width": 65535, "height": 65535}, errors.LimitExceeded),
        ({"own": "street\n"}, errors.CorruptStream),
    ],
)
def test_info_refuses_the_heads_that_decoding_refuses(coder, changes, error):
    data = b"".join(sequence.encode(FRAMES[:2], codec=coder))
    head = next(stream.Reader().feed(data))
    data = stream.begin(replace(head, **changes)) + data[len(stream.begin(head)) :]
    with pytest.raises(error) as told:
        sequence.info(data)
    with pytest.raises(error) as decoded:
        list(sequence.decode(data, codec=coder))
    assert str(told.value) == str(decoded.value)


def test_a_frame_is_decoded_before_the_next_is_encoded(coder):
    gone_in = []

    def source():
        for frame in FRAMES:
            gone_in.append(frame)
            yield frame

    for count, _ in enumerate(
        sequence.decode(sequence.encode(source(), codec=coder), codec=coder), 1
    ):
        assert len(gone_in) == count


def test_a_late_receiver_begins_at_the_next_key_frame(coder):
    for parity in (0, 30):
        pieces = list(sequence.encode(FRAMES * 2, codec=coder, key_interval=0.4, parity=parity))
        whole = {m.number: m for m in sequence.Unpacker().moments(pieces)}
        late = [pieces[0][:3], pieces[1][7:], *pieces[2:]]
        found = list(sequence.Unpacker().moments(late))
        assert [(m.number, m.arrived) for m in found] == [(n, True) for n in range(4, 12)]
        for moment in found:
            same = whole[moment.number].scene
            assert np.array_equal(moment.scene.coarse.y, same.coarse.y)
            assert np.array_equal(moment.scene.labels, same.labels)


def test_drawing_on_a_frame_does_not_change_later_frames(coder):
    pieces = list(sequence.encode([*FRAMES, FRAMES[-1], FRAMES[-1]], codec=coder))
    whole = list(sequence.Unpacker().moments(pieces))
    for drawn, asked in zip(sequence.Unpacker().moments(pieces), whole, strict=True):
        for name in ("y", "cb", "cr"):
            plane = getattr(drawn.scene.coarse, name)
            assert np.array_equal(plane, getattr(asked.scene.coarse, name))
            plane[:] = 0
        assert np.array_equal(drawn.scene.labels, asked.scene.labels)
        drawn.scene.labels[:] = 0


def test_options_out_of_range_are_refused(coder):
    for wrong in ({"bitrate": "fast"}, {"bitrate": 10}, {"key_interval": 0}, {"segment_every": 0}):
        with pytest.raises(errors.InputError):
            next(sequence.encode(FRAMES, codec=coder, **wrong))
    with pytest.raises(errors.ImageError, match="frame 1 is 32×48"):
        list(sequence.encode([FRAMES[0], FRAMES[1][:, :32]], codec=coder))


def test_invalid_arguments_are_refused(coder):
    for call in (
        lambda: sequence.encode(None, codec=coder),
        lambda: sequence.encode(FRAMES[0], codec=coder),
        lambda: sequence.encode("drive.mp4", codec=coder),
        lambda: sequence.encode(FRAMES, codec="hf:x"),
        lambda: sequence.encode(FRAMES, codec=coder, rate=Fraction(0)),
        lambda: sequence.encode(FRAMES, codec=coder, rate="10"),
        lambda: sequence.decode(None, codec=coder),
        lambda: sequence.decode("drive.sempic", codec=coder),
        lambda: sequence.decode(Path("drive.sempic"), codec=coder),
        lambda: sequence.decode([10**12], codec=coder),
        lambda: sequence.decode(["piece"], codec=coder),
        lambda: sequence.decode(b"", codec=7),
        lambda: sequence.decode(b"", codec=coder, kept=float("nan")),
    ):
        with pytest.raises(errors.SempicError):
            list(call())


def test_a_blurred_street_is_not_painted_grainy(monkeypatch):
    """End to end, with a receiver that paints grain everywhere."""
    monkeypatch.setattr(api.Codec, "segmenter", FakeSegmenter())
    rng = np.random.default_rng(0)
    grain = rng.integers(-30, 31, (48, 64, 3))

    class Grainy(FakeReceiver):
        def __call__(self, scene, **how):
            return np.clip(api.preview(scene) + grain, 0, 255).astype(np.uint8)

    coder = api.Codec(receiver=Grainy())
    flat = [np.full((48, 64, 3), 90 + i, np.uint8) for i in range(3)]
    rough = [np.clip(f + grain, 0, 255).astype(np.uint8) for f in flat]
    for frames, least, most in ((flat, 0, 4), (rough, 8, 18)):
        pieces = list(sequence.encode(frames, codec=coder, key_interval=2))
        for picture in sequence.decode(pieces, codec=coder):
            assert least <= np.asarray(picture).astype(int).std(axis=(0, 1)).mean() <= most
