"""The schedule of key frames and of fine frames, and their precision."""

import itertools
from fractions import Fraction

import pytest

from sempic.sequence.keys import _MOVING, _STILL, Keys, Role


def roles(still, rate=10, interval=None, cuts=()):
    """The roles of frames; still: the share of each frame after the first that stands still."""
    times = Keys(Fraction(rate), interval)
    for number, share in enumerate([0, *still]):
        role = times.next(cut=number in cuts)
        yield number, role, times.precision
        times.saw(share)


def keys(still, **options):
    """The key frames: (number, precision)."""
    return [(n, precision) for n, role, precision in roles(still, **options) if role is Role.KEY]


def finer(still, **options):
    """The numbers of the fine frames that are no key frames."""
    return [n for n, role, _ in roles(still, **options) if role is Role.FINER]


def test_moving_scenes_have_a_key_frame_every_two_seconds():
    assert keys([0.55] * 65) == [(n, _MOVING) for n in (0, 20, 40, 60)]
    assert keys([0.55] * 25, rate=5) == [(n, _MOVING) for n in (0, 10, 20)]


def test_moving_scenes_have_no_other_fine_frames():
    assert not finer([0.55] * 65)


def test_still_scenes_have_a_fine_key_frame_every_ten_seconds():
    assert keys([0.9] * 230) == [(0, _MOVING), (100, _STILL), (200, _STILL)]
    assert _STILL.key < _MOVING.key


def test_a_scene_found_to_be_still_gets_a_fine_frame():
    assert finer([0.9] * 230) == [20]
    assert {precision for n, _, precision in roles([0.9] * 50) if n >= 20} == {_STILL}


@pytest.mark.parametrize(("rate", "other"), [(25, 3), (10, 3), (5, 2), (2, 0), (0.5, 0)])
def test_at_low_rates_all_frames_are_finer(rate, other):
    assert {precision for _, _, precision in roles([0.9] * 90, rate=rate)} == {
        _MOVING,
        (_STILL.key, other),
    }


def test_a_passing_bus_causes_no_key_frame():
    still = [0.9] * 60 + [0.4] * 15 + [0.9] * 50
    assert keys(still) == [(0, _MOVING), (100, _STILL)]
    assert finer(still) == [20]


@pytest.mark.parametrize("stood", [70, 190, 400])
def test_a_moving_camera_gets_a_key_frame_soon_and_then_every_two_seconds(stood):
    found = [n for n, p in keys([0.9] * stood + [0.1] * 80) if p is _MOVING and n > 0]
    assert stood < found[0] < stood + 33
    assert [b - a for a, b in itertools.pairwise(found)] == [20] * (len(found) - 1)
    assert len(found) > 2


def test_a_cut_starts_the_schedule_again():
    assert keys([1.0] * 90, cuts=[50]) == [(0, _MOVING), (50, _MOVING)]
    assert finer([1.0] * 90, cuts=[50]) == [20, 70]


def test_a_requested_interval_is_kept():
    assert keys([1.0] * 65, interval=3) == [(n, _MOVING) for n in (0, 30, 60)]
    assert keys([0.5] * 4, rate=1, interval=0.1) == [(n, _MOVING) for n in range(5)]
