"""Short parameter sets."""

import numpy as np
import pytest

from sempic.coarse import moving, sets
from sempic.errors import BitstreamError
from sempic.scene import Coarse

MOST = max(sets.REFERENCES)


def parameters_of(width, height, chroma, monkeypatch, references=MOST):
    """The whole parameter sets that x265 makes."""
    monkeypatch.setitem(moving._X265, "ref", references)
    monkeypatch.setattr(sets, "shorten", lambda whole, *_: sets.WHOLE + whole)
    encoder = moving.Encoder(width, height, chroma)
    half = (height + 1) // 2, (width + 1) // 2
    grey = np.full((height, width), 99, np.uint8)
    other = grey if chroma == "444" else np.full(half, 99, np.uint8)
    encoder.encode(Coarse(y=grey, cb=other, cr=other), qp=30, key=True)
    monkeypatch.undo()
    return encoder.parameters[1:]


@pytest.mark.parametrize("references", sets.REFERENCES)
@pytest.mark.parametrize("chroma", ["444", "420"])
@pytest.mark.parametrize("size", [(160, 90), (86, 64), (25, 24), (7, 500), (1000, 562), (1, 1)])
def test_parameter_sets_of_x265_take_two_bytes(monkeypatch, size, chroma, references):
    whole = parameters_of(*size, chroma, monkeypatch, references)
    short = sets.shorten(whole, *size)
    assert len(short) == 2
    assert sets.restore(short, *size) == whole
    assert sets.references(short) == references
    assert sets.references(sets.WHOLE + whole) == 1
    decoder = moving.Decoder(short, *size)
    assert decoder.chroma == chroma


def test_other_parameter_sets_are_sent_whole(monkeypatch):
    whole = bytearray(parameters_of(64, 40, "444", monkeypatch))
    whole[-1] ^= 1
    short = sets.shorten(bytes(whole), 64, 40)
    assert short == sets.WHOLE + whole
    assert sets.restore(short, 64, 40) == whole
    assert sets.shorten(b"", 64, 40) == sets.WHOLE


@pytest.mark.parametrize("short", [b"", b"\1", b"\x0d\x1e", b"\xff\x1e", b"\1\x1e\0"])
def test_invalid_short_forms_are_refused(short):
    with pytest.raises(BitstreamError):
        sets.restore(short, 64, 40)
