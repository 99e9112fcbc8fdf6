"""The schedule of key frames and of fine frames, and their precision."""

import itertools
from fractions import Fraction

import pytest

from sempic.sequence.keys import Keys, Role


def schedule(still, rate=10, interval=None, cuts=()):
    """Roles and QP offsets of frames; still: the share of each frame after the first that stands
    still."""
    times = Keys(Fraction(rate), interval)
    for number, share in enumerate([None, *still]):
        role = times.next(cut=number in cuts)
        yield number, role, times.offset(role)
        times.saw(share)


def numbers(wanted, still, **options):
    """The frames of a role."""
    return [n for n, role, _ in schedule(still, **options) if role is wanted]


@pytest.mark.parametrize(("share", "rate", "every"), [(0.55, 10, 100), (0.9, 10, 100), (1, 5, 50)])
def test_key_frames_come_every_ten_seconds(share, rate, every):
    found = list(schedule([share] * 2 * every, rate=rate))
    keys = [(n, offset) for n, role, offset in found if role is Role.KEY]
    assert keys == [(0, -13), (every, -13), (2 * every, -13)]


@pytest.mark.parametrize("rate", [1, 10, 25])
def test_each_tenth_frame_of_a_moving_scene_is_fine(rate):
    offsets = [offset for _, _, offset in schedule([0.55] * 35, rate=rate, interval=100)]
    assert offsets == [-13] + [-5 if n % 10 == 0 else 0 for n in range(1, 36)]


def test_still_scenes_have_no_fine_frames_but_key_frames():
    """From when they are known to be still: after two seconds."""
    assert numbers(Role.FINE, [0.9] * 230) == [10]
    assert not numbers(Role.FINEST, [0.9] * 230)


@pytest.mark.parametrize(("rate", "other"), [(25, 3), (10, 3), (5, 2), (2, 0), (0.5, 0)])
def test_at_low_rates_all_frames_of_a_still_scene_are_finer(rate, other):
    found = {offset for _, role, offset in schedule([0.9] * 90, rate=rate) if role is Role.OTHER}
    assert found == {0, other}


def test_a_scene_that_becomes_still_gets_a_frame_as_fine_as_a_key_frame():
    found = list(schedule([0.2] * 30 + [0.9] * 60))
    finest = [n for n, role, offset in found if role is Role.FINEST and offset == -13]
    assert len(finest) == 1
    assert 40 < finest[0] <= 50
    assert {offset for n, _, offset in found if n > finest[0]} == {3}


def test_a_passing_bus_causes_no_fine_frame():
    still = [0.9] * 60 + [0.4] * 15 + [0.9] * 50
    assert [n for n, role, _ in schedule(still) if role is not Role.OTHER] == [0, 10, 100]


@pytest.mark.parametrize("stood", [70, 190, 400])
def test_a_moving_camera_gets_a_fine_frame_soon_and_then_every_ten_frames(stood):
    roles = schedule([0.9] * stood + [0.1] * 80)
    found = [n for n, role, _ in roles if role in (Role.FINE, Role.KEY) and n > stood]
    assert stood < found[0] < stood + 33
    assert {b - a for a, b in itertools.pairwise(found)} <= {*range(1, 11)}
    assert len(found) > 4


def test_a_cut_starts_the_schedule_again():
    assert numbers(Role.KEY, [1.0] * 160, cuts=[50]) == [0, 50, 150]
    assert numbers(Role.FINE, [1.0] * 90, cuts=[50]) == [10, 60]


def test_a_requested_interval_is_kept():
    assert numbers(Role.KEY, [1.0] * 65, interval=3) == [0, 30, 60]
    assert numbers(Role.KEY, [0.5] * 4, rate=1, interval=0.1) == [*range(5)]


def test_key_frames_may_never_come_again():
    assert numbers(Role.KEY, [0.5] * 4, interval=1e308) == [0]


@pytest.mark.parametrize(
    ("interval", "offset"), [(0.1, -6), (2, -6), (4, -9), (8, -12), (10, -13), (99, -13)]
)
def test_key_frames_that_last_are_finer(interval, offset):
    (first,) = schedule([], interval=interval)
    assert first == (0, Role.KEY, offset)


def test_a_frame_can_be_made_a_key_frame():
    times = Keys(Fraction(10), None)
    roles = []
    for number in range(25):
        role = times.next()
        roles.append(times.begin() if number == 5 else role)
        times.saw(0.5)
    assert [n for n, role in enumerate(roles) if role is Role.KEY] == [0, 5]
    assert [n for n, role in enumerate(roles) if role is Role.FINE] == [15]
