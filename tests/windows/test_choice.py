"""Which cells are sent as windows, and which never."""

import numpy as np
import pytest

from sempic.errors import InputError
from sempic.palette import CAMVID
from sempic.windows import choice

LABELS = np.zeros((48, 64), np.uint8)
LABELS[17:23, 17:23] = 6  # a sign in one cell, less than MARGIN from its neighbours
LABELS[40, 50] = 10  # bicyclist


def found(cells):
    return np.argwhere(cells).tolist()


def test_objects_are_kept_with_a_margin():
    cells = choice.kept(LABELS, CAMVID, ["sign"], size=(64, 48))
    assert found(cells) == [[y, x] for y in (1, 2, 3) for x in (1, 2, 3)]
    assert not choice.kept(LABELS, CAMVID, [], size=(64, 48)).any()
    assert not choice.kept(None, CAMVID, ["sign"], size=(64, 48)).any()


def test_class_names_of_other_palettes_are_understood():
    there = choice.kept(LABELS, CAMVID, ["traffic sign"], size=(64, 48))
    assert np.array_equal(there, choice.kept(LABELS, CAMVID, ["sign"], size=(64, 48)))
    with pytest.raises(InputError, match="'ghost' is not one of palette"):
        choice.kept(None, CAMVID, ["ghost"], size=(64, 48))


def test_boxes_select_cells():
    cells = choice.kept(None, CAMVID, boxes=[(7, 8, 2, 8), (-5, -5, 6, 6)], size=(64, 48))
    assert found(cells) == [[0, 0], [1, 0], [1, 1]]
    for box in ((64, 0, 5, 5), (0, -5, 5, 5), (3, 3, 0, 5), (3, 3, 5, 0)):
        with pytest.raises(InputError, match="not in the picture of 64×48"):
            choice.kept(None, CAMVID, boxes=[box], size=(64, 48))
    with pytest.raises(InputError, match="whole number"):
        choice.kept(None, CAMVID, boxes=[(1.5, 2, 3, 4)], size=(64, 48))


def test_imagining_people_includes_riders():
    for name in ("person", "pedestrian", "bicyclist", "rider", "Person"):
        cells = choice.imagined(LABELS, CAMVID, [name])
        assert found(cells) == [[y, x] for y in (4, 5) for x in (5, 6)]
    assert not choice.imagined(LABELS, CAMVID, ["car"]).any()


def test_grown_adds_neighbouring_cells():
    mask = np.zeros((5, 6), bool)
    mask[0, 4] = True
    assert found(choice.grown(mask, 1)) == [[y, x] for y in (0, 1) for x in (3, 4, 5)]
    assert found(choice.grown(mask, 0)) == [[0, 4]]
