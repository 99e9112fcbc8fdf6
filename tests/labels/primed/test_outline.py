"""Steps of contours between labels."""

import numpy as np
import pytest

from sempic.labels import neighbourhood
from sempic.labels.neighbourhood import PAD
from sempic.labels.primed import outline

upright, level = (getattr(f, "py_func", f) for f in (outline.upright, outline.level))


def place(rows, y, x):
    frame = neighbourhood.frame(np.array([[int(c) for c in row] for row in rows]), 9)
    return frame.image, (y + PAD) * frame.stride + x + PAD, frame.stride


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["00011"] * 20, (15, -4, 0)),  # a long straight contour
        (["00001", "00001", "00011", "00011"], (2, 1, 2)),  # a step to the right two rows above
        (["00111", "00111", "00011"], (1, -1, 2)),  # a step to the left
    ],
)
def test_steps_of_vertical_contours(rows, expected):
    length, step, before = expected
    image, at, s = place(rows, len(rows) - 1, 2)
    assert upright(image, at, s, 9) == (length * 8 + step + 4) * 16 + before


def test_steps_of_horizontal_contours():
    image, o, s = place(["1111111", "0001111", "0000002"], 2, 6)
    assert level(image, o, s) == 3 * 64 + 48 + 3  # three pixels level, then one up for three
    image, o, s = place(["1111111", "0111111", "2000002"], 2, 6)
    assert level(image, o, s) == 5 * 64 + 16  # its own row ends
    image, o, s = place(["1111111", "2111111", "0000002"], 2, 6)
    assert level(image, o, s) == 5 * 64 + 32  # a third label is above
