"""Rate control by a leaky bucket."""

import warnings

import numpy as np
import pytest
from conftest import FakeSegmenter, street

from sempic import api, sequence
from sempic.errors import SempicWarning
from sempic.sequence.rate import Bucket


@pytest.mark.parametrize("wanted", [12e3, 16e3, 40e3])
def test_a_simulated_coder_keeps_to_the_rate(wanted):
    """Key frames cost ten times as much, and content gets harder half-way."""
    rng = np.random.default_rng(0)
    bucket, total = Bucket(wanted, 10), []
    for t in range(300):
        key = t % 100 == 0
        qp = bucket.choose(key=key)
        hard = 1.0 if t < 150 else 2.5
        coarse = (10 if key else 1) * hard * 1500 * 2 ** ((34 - qp) / 6) * rng.uniform(0.7, 1.3)
        while key and bucket.too_large(int(coarse)):
            coarse *= 2 ** ((qp - bucket.choose(key=True)) / 6)
            qp = bucket.choose(key=True)
        bits = int(coarse) + 400
        bucket.put(bits, int(coarse), key=key)
        total.append(bits)
    for start in (0, 100, 200):
        assert np.mean(total[start : start + 100]) * 10 == pytest.approx(wanted, rel=0.15)


@pytest.mark.parametrize(("interval", "most"), [(1, 3300), (3, 9900), (10, 9900)])
def test_a_key_frame_takes_a_third_of_the_window_or_of_its_interval(interval, most):
    bucket = Bucket(10e3, 10, interval)
    assert not bucket.too_large(most)
    assert bucket.choose(key=True) == 36
    assert bucket.too_large(2 * most)
    assert bucket.choose(key=True) == 41  # half the bits
    assert bucket.too_large(most + 1)
    assert bucket.choose(key=True) == 42
    bucket.qp = 48
    assert not bucket.too_large(2 * most)  # there is no coarser one


@pytest.mark.parametrize("parity", [0.0, 0.25])
def test_fine_frames_leave_no_debt(parity):
    """A short stream keeps to its rate, and ends there if fine frames stop."""
    bucket, sent = Bucket(16e3, 10, parity=parity), []
    for t in range(200):
        fine = 0 < t < 100 and t % 10 == 0
        qp = bucket.choose(key=fine)
        coarse = int((6 if t == 0 else 5 if fine else 1) * 1500 * 2 ** ((34 - qp) / 6))
        bucket.put(coarse + 200, coarse, key=t == 0, fine=fine)
        sent.append(coarse + 200)
    wanted = 16e3 / (1 + parity)
    assert 10 * np.mean(sent[:90]) == pytest.approx(wanted, rel=0.03)
    assert 10 * np.mean(sent[100:]) == pytest.approx(wanted, rel=0.03)


@pytest.mark.parametrize("expected", [0.0, 0.25])
def test_parity_counts_in_the_rate_once(expected):
    """It comes each four seconds, whether expected or not."""
    bucket, frames, sent = Bucket(16e3, 10, parity=expected), [], []
    for t in range(400):
        coarse = int(1500 * 2 ** ((34 - bucket.choose(key=t == 0)) / 6))
        frames.append(coarse + 200)
        parity = sum(frames[-40:]) // 4 if t % 40 == 39 else 0
        bucket.put(frames[-1], coarse, key=t == 0, parity=parity)
        sent.append(frames[-1] + parity)
    assert 10 * np.mean(sent[200:]) == pytest.approx(16e3, rel=0.03)


@pytest.mark.parametrize("frames", [1, 2, 10])
def test_the_rate_is_held_within_seconds_at_any_number_of_frames(frames):
    """A still street fills with traffic after thirty seconds."""
    bucket, sent = Bucket(frames * 1e3, frames), []
    for t in range(50 * frames):
        hard = 4 if t > 30 * frames else 1
        coarse = int(hard * 300 * 2 ** ((34 - bucket.choose(key=t == 0)) / 6))
        bucket.put(coarse + 40, coarse, key=t == 0)
        sent.append(coarse + 40)
    for seconds in range(33, 41):
        share = sum(sent[seconds * frames : (seconds + 10) * frames]) / (frames * 1e4)
        assert share == pytest.approx(1, rel=0.22)


@pytest.mark.parametrize("frames", [1, 2, 5, 10])
def test_the_rate_is_used_again_seconds_after_busy_ones(frames):
    """What pictures cost long ago does not count, however few they were since."""
    bucket, sent = Bucket(frames * 1e3, frames), []
    for t in range(30 * frames):
        hard = 8 if 20 <= t // frames < 25 else 1
        coarse = int(hard * 300 * 2 ** ((34 - bucket.choose(key=t == 0)) / 6))
        bucket.put(coarse + 40, coarse, key=t == 0)
        sent.append(coarse + 40)
    assert sum(sent[28 * frames : 29 * frames]) / (frames * 1e3) > 0.8


def test_a_stream_keeps_to_its_rate(monkeypatch):
    monkeypatch.setattr(api.Codec, "segmenter", FakeSegmenter())
    picture = street(96, 128 + 180)[0]
    frames = [picture[:, 3 * i : 3 * i + 128] for i in range(60)]
    for wanted, parity in ((3e3, 0), (4e3, 0), (4e3, 25)):  # 5e3 exceeds the finest QP
        how = {"bitrate": wanted, "parity": parity, "key_interval": 6}
        data = b"".join(sequence.encode(frames, codec=api.Codec(), **how))
        assert ("parity" in sequence.info(data)["chunks"]) == bool(parity)
        assert sequence.info(data)["kbps"] * 1000 == pytest.approx(wanted, rel=0.2)


def test_an_unreachable_rate_is_reported_once(monkeypatch):
    monkeypatch.setattr(api.Codec, "segmenter", FakeSegmenter())
    cells = np.random.default_rng(0).integers(0, 256, (60, 24, 32, 3), np.uint8)
    noise = cells.repeat(4, 1).repeat(4, 2)
    with pytest.warns(SempicWarning) as told:
        list(sequence.encode(noise, codec=api.Codec(), bitrate="1k"))
    said = [str(warning.message) for warning in told]
    assert [text for text in said if "1 kbit/s cannot be held" in text] == said[-1:]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*cannot be held", SempicWarning)
        list(sequence.encode(noise, codec=api.Codec(), bitrate="1M"))


def test_quality_recovers_soon_after_a_long_overload():
    """After a minute of overload, quality is back within seconds."""
    bucket, chosen = Bucket(16e3, 10, 2.0), []
    for t in range(900):
        key = t % 20 == 0
        hard = 60 if 100 <= t < 700 else 1
        qp = bucket.choose(key=key)
        coarse = hard * (10 if key else 1) * 2000 * 2 ** ((34 - qp) / 6)
        while key and bucket.too_large(int(coarse)):
            coarse *= 2 ** ((qp - bucket.choose(key=True)) / 6)
            qp = bucket.choose(key=True)
        bucket.put(int(coarse) + 20, int(coarse), key=key)
        chosen.append(qp)
        assert bucket.overflows or t < 150 or t >= 700
    before = np.mean(chosen[40:100])
    assert np.mean(chosen[750:]) == pytest.approx(before, abs=1.5)
