"""Contexts of a pixel: the labels coded before it."""

from __future__ import annotations

import numpy as np

from sempic.labels import neighbourhood
from sempic.labels.neighbourhood import CANDIDATES, NEIGHBOURS, PAD, Frame

rank_candidates, outlines = (
    getattr(f, "py_func", f) for f in (neighbourhood.rank_candidates, neighbourhood.outlines)
)
OUTSIDE = 9


def framed(*rows: str) -> Frame:
    return neighbourhood.frame(np.array([[int(c) for c in row] for row in rows]), OUTSIDE)


def at(frame: Frame, y: int, x: int) -> int:
    return (y + PAD) * frame.stride + x + PAD


def candidates_and_ranks(frame: Frame, y: int, x: int) -> tuple[list[int], np.ndarray]:
    rank, candidates = np.zeros(OUTSIDE + 1, np.int64), np.zeros(CANDIDATES, np.int64)
    steps = neighbourhood.steps(NEIGHBOURS, frame.stride)
    count = rank_candidates(frame.image, at(frame, y, x), steps, rank, candidates)
    return candidates[:count].tolist(), rank


def test_a_frame_surrounds_the_map_with_outside() -> None:
    frame = framed("123", "456")
    assert neighbourhood.inside(frame).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert (frame.image == OUTSIDE).sum() == frame.image.size - 6


def test_candidates_are_ordered_and_never_outside() -> None:
    frame = framed("10234", "55500")
    assert candidates_and_ranks(frame, 0, 0)[0] == []
    assert candidates_and_ranks(frame, 0, 2)[0] == [0, 1]  # W, WW
    found, rank = candidates_and_ranks(frame, 1, 2)
    assert found == [5, 2, 3, 0]  # W, N, NE, NW; no room for more
    assert rank.tolist() == [3, 4, 1, 2, 4, 0, 4, 4, 4, CANDIDATES + 1]


def test_outlines_are_read_from_the_rows_above() -> None:
    frame = framed("0000000", "0111110", "0111111", "1110000")
    y, x = 3, 3
    rank = candidates_and_ranks(frame, y, x)[1]
    found = outlines(frame.image, at(frame, y, x), frame.stride, x, frame.width, rank)
    assert (found.near, found.flat) == (0, 1 if found.six == 0 else 0)
    assert found.run_w == 3
    assert found.run_n == 4
    assert found.ends == (5, 5, 0)  # in the rows above: NW …; from NNWW …; from NNNWWW …
    assert found.equal & 31 == 0b11111


def test_contexts_depend_on_label_ranks_only() -> None:
    """The same outline between other labels gives the same context."""
    rows = ("0000111", "0001122", "0011122")
    other = tuple(row.translate(str.maketrans("012", "748")) for row in rows)
    looks = []
    for map_ in (rows, other):
        frame = framed(*map_)
        rank = candidates_and_ranks(frame, 2, 4)[1]
        looks.append(outlines(frame.image, at(frame, 2, 4), frame.stride, 4, 7, rank))
    assert looks[0] == looks[1]
