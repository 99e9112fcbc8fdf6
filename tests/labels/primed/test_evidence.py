"""What the primed coder derives from the coarse picture."""

from __future__ import annotations

import numpy as np

from sempic.labels.neighbourhood import PAD
from sempic.labels.primed import evidence

average, between, edges = (
    getattr(f, "py_func", f) for f in (evidence.average, evidence.between, evidence.edges)
)


def test_a_flat_picture_is_enlarged_to_itself() -> None:
    grid = np.full((3, 2, 3), 200, np.uint8)
    assert (evidence.enlarge(grid, 7, 11) == 200).all()


def test_enlarging_is_bilinear_and_the_border_repeats_the_edge() -> None:
    grid = np.zeros((3, 1, 2), np.uint8)
    grid[:, :, 1] = 80
    plane = evidence.enlarge(grid, 4, 8)[0].reshape(4 + 2 * PAD, 8 + 2 * PAD)
    assert plane[PAD, PAD : PAD + 8].tolist() == [0, 0, 10, 30, 50, 70, 80, 80]
    assert (plane[:, :PAD] == 0).all()
    assert (plane[:, -PAD:] == 80).all()


def test_leaders_are_used_labels_and_the_lowest_id_wins_a_tie() -> None:
    scores = np.array([[9, 1, 4], [7, 7, 4], [8, 5, 4]], np.uint8)
    best, second, top = evidence.leaders(scores, np.array([0, 1, 1]))
    assert best.tolist() == [8, 7, 4]
    assert second.tolist() == [7, 5, 4]
    assert top.tolist() == [2, 1, 1]
    alone = evidence.leaders(scores, np.array([1, 0, 0]))
    assert alone[1].tolist() == [evidence.NONE] * 3


def test_edges_to_the_left_and_right_are_measured() -> None:
    planes = np.zeros((3, 20 * 20), np.uint8)
    planes.reshape(3, 20, 20)[:, :, 11:] = 10
    assert edges(planes, 10 * 20 + 10, 20) == (5, 0)  # 3 · 10 takes five bits


def test_a_colour_is_placed_between_those_of_two_candidates() -> None:
    """Planes are 20 on the left, 60 on the right: a pixel of 60 belongs to the right."""
    planes = np.full((3, 30 * 30), 20, np.uint8)
    planes.reshape(3, 30, 30)[:, :, 15:] = 60
    image = np.zeros(30 * 30, np.int64)
    image.reshape(30, 30)[:, 15:] = 1
    colours = np.zeros((4, 4), np.int64)
    o, s = 15 * 30 + 15, 30
    average(colours, planes, image, o, np.array([-1, -2, -s, -s + 1]), np.arange(2), 2)
    assert colours[:2, :3].tolist() == [[80] * 3, [240] * 3]
    own = between(planes, o, s, colours, 1, 2)
    other = between(planes, o, s, colours, 0, 2)
    assert (own.here, other.here) == (2, 10)
    assert own.contrast == other.contrast == 6
