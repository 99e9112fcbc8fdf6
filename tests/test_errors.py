"""Warnings name the caller's line."""

import inspect

import numpy as np
import PIL.Image
import pytest
from conftest import FakeReceiver, FakeSegmenter, street

import sempic
from sempic import pictures
from sempic.errors import SempicWarning, notes_to, warn

IMAGE, LABELS = street(48, 64)
CODEC = sempic.Codec(FakeSegmenter(), FakeReceiver())
CODEC.receiver.model_id = 1
CLEAR = PIL.Image.fromarray(IMAGE).convert("RGBA")
CLEAR.putpixel((3, 3), (0, 0, 0, 0))
MEANT = CODEC.encode(IMAGE, labels=LABELS, model=3)


class Unsure(FakeSegmenter):
    def predict(self, image):
        return self(image), np.full((12, *image.shape[:2]), 20, np.uint8)


@pytest.mark.parametrize(
    "call",
    [
        lambda: warn("this"),
        lambda: pictures.to_rgb(CLEAR),
        lambda: CODEC.encode(CLEAR, labels=LABELS),
        lambda: sempic.encode(CLEAR, labels="none"),
        lambda: CODEC.encode(IMAGE, labels=LABELS, target_bytes=90000),
        lambda: sempic.encode(IMAGE, labels=LABELS, target_bpp=900),
        lambda: sempic.Codec(Unsure()).encode(IMAGE),
        lambda: sempic.Codec(Unsure()).find_labels(IMAGE),
        lambda: CODEC.decode(MEANT),
        lambda: CODEC.synthesize(sempic.unpack(MEANT)),
        lambda: CODEC.uncertainty(sempic.unpack(MEANT), samples=2),
    ],
)
def test_a_warning_names_the_callers_line(call):
    with pytest.warns(SempicWarning) as caught:
        call()
    _, line = inspect.getsourcelines(call)
    assert {(w.filename, w.lineno) for w in caught} == {(__file__, line)}


def test_a_warning_in_a_callback_names_the_callback():
    """sempic calls a function that calls sempic."""

    def segment(image):
        pictures.to_rgb(CLEAR)
        return LABELS

    with pytest.warns(SempicWarning) as caught:
        sempic.Codec(segment).encode(IMAGE)
    assert caught[0].lineno == inspect.getsourcelines(segment)[1] + 1


def test_each_note_comes_once_and_at_once():
    told = []
    with notes_to(told.append):
        for _ in range(2):
            warn("this")
            assert told == ["this"]
        warn("that")
    assert told == ["this", "that"]
