"""When key frames are due, and how fine they are."""

import itertools
from fractions import Fraction

from sempic.sequence.keys import _MOVING, _STILL, Keys


def keys(still, rate=10, interval=None, cuts=()):
    """Of frames with these shares that stand still, the first one aside: (number, precision)."""
    found, times = [], Keys(Fraction(rate), interval)
    for number, share in enumerate([0, *still]):
        if number == 0 or number in cuts or times.due():
            times.begin(cut=number in cuts)
            found.append((number, times.precision))
        times.saw(share)
    return found


def test_what_moves_has_one_each_two_seconds():
    assert keys([0.55] * 65) == [(n, _MOVING) for n in (0, 20, 40, 60)]
    assert keys([0.55] * 25, rate=5) == [(n, _MOVING) for n in (0, 10, 20)]


def test_what_stands_has_a_fine_one_each_ten_seconds():
    assert keys([0.9] * 230) == [(0, _MOVING), (20, _STILL), (120, _STILL), (220, _STILL)]
    assert _STILL.key < _MOVING.key


def test_a_bus_that_passes_makes_none():
    assert keys([0.9] * 60 + [0.4] * 15 + [0.9] * 50) == [(0, _MOVING), (20, _STILL), (120, _STILL)]


def test_a_camera_that_begins_to_move_has_one_soon_and_then_each_two_seconds():
    found = keys([0.9] * 70 + [0.1] * 60)
    assert found[:2] == [(0, _MOVING), (20, _STILL)]
    assert 70 < found[2][0] < 90
    assert {precision for _, precision in found[2:]} == {_MOVING}
    assert [b - a for (a, _), (b, _) in itertools.pairwise(found[2:])] == [20] * 2


def test_a_cut_is_the_beginning_of_what_nobody_knows():
    assert keys([1.0] * 90, cuts=[50]) == [(0, _MOVING), (20, _STILL), (50, _MOVING), (70, _STILL)]


def test_who_asks_for_an_interval_gets_it():
    assert keys([1.0] * 65, interval=3) == [(n, _MOVING) for n in (0, 30, 60)]
    assert keys([0.5] * 4, rate=1, interval=0.1) == [(n, _MOVING) for n in range(5)]
