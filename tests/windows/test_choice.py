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
    cells = choice.kept(LABELS == 6)
    assert found(cells) == [[y, x] for y in (1, 2, 3) for x in (1, 2, 3)]
    assert not choice.kept(LABELS == 7).any()


def test_boxes_select_cells():
    nothing = np.zeros((48, 64), bool)
    cells = choice.kept(nothing, [(7, 8, 2, 8), (-5, -5, 6, 6)])
    assert found(cells) == [[0, 0], [1, 0], [1, 1]]
    for box in ((64, 0, 5, 5), (0, -5, 5, 5), (3, 3, 0, 5), (3, 3, 5, 0)):
        with pytest.raises(InputError, match="not in the picture of 64×48"):
            choice.kept(nothing, [box])
    with pytest.raises(InputError, match="whole number"):
        choice.kept(nothing, [(1.5, 2, 3, 4)])


def test_imagining_people_includes_riders():
    for name in ("person", "pedestrian", "bicyclist", "rider", "Person"):
        ids = choice.imagined_numbers([name], CAMVID)
        cells = choice.apart(np.isin(LABELS, ids))
        assert found(cells) == [[y, x] for y in (4, 5) for x in (5, 6)]
    assert choice.imagined_numbers(["car"], CAMVID) == [8]


def test_possible_is_what_is_likeliest_or_together_not_unlikely():
    labels = np.array([[0, 1, 2, 3]], np.uint8)
    assert found(choice.possible(labels, None, [2, 3])) == [[0, 2], [0, 3]]
    probabilities = np.zeros((3, 1, 4), np.uint8)  # of all but the last class, say void
    probabilities[1:, 0, 0] = 32  # of 255: a quarter in all
    probabilities[1:, 0, 1] = 31
    assert found(choice.possible(labels, probabilities, [1, 2])) == [[0, 0], [0, 1], [0, 2]]
    assert found(choice.possible(labels, probabilities, [2, 3])) == [[0, 2], [0, 3]]


def test_grown_adds_neighbouring_cells():
    mask = np.zeros((5, 6), bool)
    mask[0, 4] = True
    assert found(choice.grown(mask, 1)) == [[y, x] for y in (0, 1) for x in (3, 4, 5)]
    assert found(choice.grown(mask, 0)) == [[0, 4]]
