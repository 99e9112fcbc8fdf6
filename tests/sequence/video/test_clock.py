"""Times of frames from timestamps or arrival."""

import itertools
import time
from fractions import Fraction

import numpy as np
import pytest
from videos import camera, numbered, numbers

from sempic import cli, errors
from sempic.errors import InputError
from sempic.sequence import video
from sempic.sequence.video import clock


@pytest.mark.parametrize("rate", [24, Fraction(30000, 1001), 30, 60])
def test_millisecond_timestamps_neither_repeat_nor_drop_frames(clip, rate):
    numbered("x.mkv", 20, rate=rate)
    assert numbers(video.Source("x.mkv")) == list(range(20))


def test_jitter_neither_repeats_nor_drops_frames(clip):
    numbered("x.mkv", 20, times=[100 * n + (n * 7 % 15) for n in range(20)])
    assert numbers(video.Source("x.mkv", rate=Fraction(10))) == list(range(20))


def test_a_rate_that_no_container_states_is_that_of_the_first_frames(clip):
    """FFmpeg says 90000, the rate of the clock."""
    numbered("x.ts", 12, times=[100 * n + (n * 7 % 15) for n in range(12)], options={"bf": "0"})
    source = video.Source("x.ts")
    assert 9.8 < source.rate < 10.2
    assert numbers(source) == list(range(12))


def test_a_single_frame_needs_no_rate(clip):
    numbered("x.ts", 1, times=[0], options={"bf": "0"})
    assert numbers(video.Source("x.ts")) == [0]


@pytest.mark.parametrize(("format", "codec"), [("h264", "libx264"), ("hevc", "libx265")])
def test_without_timestamps_all_frames_and_the_rate_are_kept(clip, format, codec):
    numbered(f"x.{format}", 12, format=format, codec=codec)
    source = video.Source(f"x.{format}")
    assert source.rate == 10
    assert numbers(source) == list(range(12))


def test_reordered_frames_of_avi_are_in_order(clip):
    """FFmpeg makes timestamps up there."""
    numbered("x.avi", 12, options={"bf": "3", "b_strategy": "0"})
    assert numbers(video.Source("x.avi")) == list(range(12))


def test_gaps_repeat_the_last_frame_and_a_clock_reset_starts_anew(clip, capsys):
    numbered("gap.mkv", 4, times=[0, 100, 500, 600])
    assert numbers(video.Source("gap.mkv", rate=Fraction(10))) == [0, 1, 1, 1, 1, 2, 3]
    numbered("set.mkv", 4, times=[0, 100, 10**9, 10**9 + 100])
    with pytest.warns(errors.SempicWarning, match="jump"):
        assert numbers(video.Source("set.mkv", rate=Fraction(10))) == [0, 1, 2, 3]
    assert cli.main(["encode", "set.mkv", "--fps", "10"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "sempic: set.mkv: its timestamps jump (1 time): the next frame follows at once there"
    ]
    numbered("x.ts", 12)
    data = (clip / "x.ts").read_bytes()
    (clip / "x.ts").write_bytes(data + data)
    with pytest.warns(errors.SempicWarning, match="jump"):
        assert numbers(video.Source("x.ts")) == [*range(12), *range(12)]


def test_mjpeg_cameras_are_timed_by_arrival(place):
    """Without timestamps, FFmpeg assumes 25 Hz."""
    came = []
    with camera(10, 0.1) as address, pytest.raises(InputError, match="breaks off"):
        came.extend(video.Source(address, rate=Fraction(10)))
    assert len(came) >= 7


def test_a_slow_encoder_takes_each_mjpeg_picture_in_turn(place, monkeypatch):
    """Coding time must not count as a gap: filling it would take more coding time."""
    monkeypatch.setattr(clock, "IDLE_SHARE", 0.5)  # a busy machine delays the reads of the test
    shown = []
    with camera(31, 0.02) as address:
        for frame in itertools.islice(video.Source(address, rate=Fraction(25)), 12):
            shown.append(round(frame.mean() / 8))
            time.sleep(0.1)
    assert len(set(shown)) >= 8


def test_mjpeg_pictures_follow_the_clock(place):
    """A coder that is fast enough on average keeps pace; real gaps stay gaps."""
    arrivals, now, found = clock.Arrivals(0.1), 0.0, []
    for number in range(100):
        asked = now
        now = max(asked, 5.0 + 0.1 * number + (20.0 if number >= 50 else 0.0))
        found.append(arrivals.read(asked, now))
        now += 0.35 if number % 20 == 0 else 0.05
    steps = np.diff(found)
    assert steps[49] == pytest.approx(20.1)
    np.testing.assert_allclose(np.delete(steps, 49), 0.1, atol=1e-6)
