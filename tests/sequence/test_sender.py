"""Decisions of the encoder: key frames, maps, texture, painted size."""

import warnings

import numpy as np
import PIL.Image
import pytest
from conftest import FakeSegmenter
from scenes import drive
from videos import FRAMES, panned

import sempic
from sempic import api, coarse, halving, sequence
from sempic.sequence import stream


@pytest.fixture
def coder(stand_ins):
    return api.Codec()


def keys(pieces):
    found = stream.Reader().feed(b"".join(pieces))
    return [f.number for f in found if isinstance(f, stream.Frame) and f.key]


def test_key_frames_come_at_intervals_and_at_cuts(coder):
    assert keys(sequence.encode(FRAMES, rate=10, codec=coder, key_interval=0.2)) == [0, 2, 4]
    cut = [*FRAMES[:2], 255 - FRAMES[2], *FRAMES[3:4]]
    assert keys(sequence.encode(cut, codec=coder)) == [0, 2, 3]


def test_a_new_scene_is_a_cut_and_new_light_is_not(coder):
    cells = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    here = cells.repeat(4, 0).repeat(4, 1)
    there = here[::-1, ::-1]  # of the same mean brightness
    covered = np.full_like(here, 30)
    frames = [here, here // 3 + 90, there, there // 2, covered, covered + 50, there, there]
    assert keys(sequence.encode(frames, codec=coder)) == [0, 2, 4, 6]


def test_a_camera_that_turns_makes_no_cuts(coder):
    frames = panned(192, 256, step=32, count=5)
    assert keys(sequence.encode(frames, codec=coder)) == [0]
    cells = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    elsewhere = cells.repeat(4, 0).repeat(4, 1)
    assert keys(sequence.encode([*frames, elsewhere], codec=coder)) == [0, 5]


def test_noise_makes_few_cuts(coder):
    frames = np.random.default_rng(0).integers(0, 256, (6, 96, 128, 3), np.uint8)
    assert keys(sequence.encode(list(frames), codec=coder)) == [0, 1, 2]


def test_still_scenes_have_few_key_frames_and_are_fine(coder):
    frames = [FRAMES[0]] * 22 + FRAMES
    assert keys(sequence.encode(frames, rate=10, codec=coder)) == [0]
    assert keys(sequence.encode(FRAMES * 4, rate=10, codec=coder, key_interval=2)) == [0, 20]
    whole = coarse.from_rgb(coarse.downscale(FRAMES[0], 4)).y.astype(int)

    def worst(options):
        pieces = sequence.encode([FRAMES[0]] * 22, rate=10, codec=coder, **options)
        *_, last = sequence.Unpacker().moments(pieces)
        return np.abs(last.scene.coarse.y - whole).max()

    assert worst({}) < worst({"key_interval": 2})


def test_still_frames_take_five_bytes_and_are_painted_once(coder):
    rng = np.random.default_rng(0)
    still = [
        np.clip(FRAMES[0] + rng.normal(0, 2, FRAMES[0].shape), 0, 255).astype(np.uint8)
        for _ in range(4)
    ]
    pieces = list(sequence.encode(still, codec=coder, label_quality=3))
    assert [len(piece) for piece in pieces[1:]] == [5] * 3
    pictures = list(sequence.decode(pieces, codec=coder))
    assert len(pictures) == 4
    assert len(coder.receiver.sizes) == 1


def test_the_segmenter_runs_a_few_times_a_second(coder):
    looks = []

    class Counting(FakeSegmenter):
        def predict(self, image):
            looks.append(1)
            return super().predict(image)

    coder.segmenter = Counting()
    for rate, options, count in (
        (10, {}, 2),
        (2, {}, 6),
        (10, {"segment_every": 2}, 3),
        (10, {"label_quality": "lossless"}, 0),  # asks for no probabilities
    ):
        looks.clear()
        list(sequence.encode(FRAMES, rate=rate, codec=coder, key_interval=10, **options))
        assert len(looks) == count


@pytest.mark.parametrize(("fault", "sent"), [("unsure", False), ("one class", False), ("", True)])
def test_key_frames_have_a_map_where_a_single_picture_has_one(monkeypatch, fault, sent):
    class Street(FakeSegmenter):
        voids = True

        def predict(self, image):
            labels, odds = super().predict(image)
            labels = np.full_like(labels, 3) if fault == "one class" else labels
            sure = 190 if fault == "unsure" else 255
            odds = np.where(np.arange(12)[:, None, None] == labels, sure, 0).astype(np.uint8)
            return labels, odds

    monkeypatch.setattr(api.Codec, "segmenter", Street())
    soft = [np.asarray(PIL.Image.fromarray(f).resize((640, 480))) for f in FRAMES[:2]]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        pieces = list(sequence.encode(soft, codec=api.Codec(), key_interval=0.1))
        single = api.Codec().encode(soft[0])
    scenes = [moment.scene for moment in sequence.Unpacker().moments(pieces)]
    assert {scene.labels is not None for scene in scenes} == {sent}
    assert {scene.halved for scene in scenes} == {sent}  # without a map, frames are not halved
    assert len(told) == 2 * (fault == "unsure")  # one warning for the sequence, one for the picture
    assert (sempic.unpack(single).labels is not None) == sent


@pytest.mark.parametrize(
    ("confidences", "said"),
    [((190, 255, 180, 255, 170), "map: "), ((255, 190, 180, 255, 170), "map from 0.1 s on: ")],
)
def test_a_missing_map_is_reported_once(confidences, said, monkeypatch):
    sure = iter(confidences)

    class Wavering(FakeSegmenter):
        voids = True

        def predict(self, image):
            labels, _ = super().predict(image)
            known = np.arange(12)[:, None, None] == labels
            return labels, np.where(known, next(sure), 0).astype(np.uint8)

    monkeypatch.setattr(api.Codec, "segmenter", Wavering())
    with pytest.warns(sempic.SempicWarning) as told:
        pieces = list(sequence.encode(FRAMES[:5], codec=api.Codec(), key_interval=0.1))
    assert len(told) == 1
    assert str(told[0].message).startswith(f"sent without a label {said}")
    has_map = [m.scene.labels is not None for m in sequence.Unpacker().moments(pieces)]
    assert has_map == [value == 255 for value in confidences]


@pytest.mark.parametrize("moves", [True, False])
def test_a_moving_scene_without_a_map_has_finer_pictures(monkeypatch, moves):
    class Street(FakeSegmenter):
        voids = True
        sure = 255

        def predict(self, image):
            labels, _ = super().predict(image)
            known = np.arange(12)[:, None, None] == labels
            return labels, np.where(known, self.sure, 0).astype(np.uint8)

    monkeypatch.setattr(api.Codec, "segmenter", Street())
    frames = FRAMES if moves else [FRAMES[0]] * 3
    coarse_bytes = {}
    for sure in (255, 190):
        monkeypatch.setattr(Street, "sure", sure)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sempic.SempicWarning)
            pieces = list(sequence.encode(frames, codec=api.Codec()))
        first, all_bytes = (
            sequence.info(data)["chunks"]["coarse"] for data in (pieces[0], b"".join(pieces))
        )
        coarse_bytes[sure] = all_bytes - first  # the first frame cannot tell whether it moves
    assert (coarse_bytes[190] > 1.1 * coarse_bytes[255]) == moves


def test_texture_is_sent_with_key_frames_and_on_change(coder):
    flat = [np.full((48, 64, 3), 90 + 30 * (i // 6), np.uint8) for i in range(12)]
    pieces = list(sequence.encode(flat, codec=coder, rate=10, key_interval=0.6))
    packets = [p for p in stream.Reader().feed(b"".join(pieces)) if not isinstance(p, stream.Head)]
    advice = [number for number, p in enumerate(packets) if isinstance(p, stream.Advice)]
    assert [packets[number + 1].number for number in advice] == [0, 6]
    assert all(packets[number + 1].key for number in advice)


@pytest.mark.parametrize("quality", [5, "lossless"])
def test_soft_frames_are_painted_at_half_their_size(coder, quality):
    """They are labelled at half their size too, unless labels are lossless."""
    small = [picture for picture, _ in drive(3, height=160, width=200)]
    frames = [np.asarray(PIL.Image.fromarray(p).resize((399, 319))) for p in small]
    pieces = list(sequence.encode(frames, codec=coder, label_quality=quality))
    pictures = list(sequence.decode(pieces, codec=coder))
    halved = quality != "lossless"
    assert {p.size for p in pictures} == {(399, 319)}
    assert set(coder.receiver.sizes) == ({(160, 200)} if halved else {(319, 399)})
    for moment in sequence.Unpacker().moments(pieces):
        assert moment.scene.labels.shape == (319, 399)
        assert moment.scene.halved == halved


def test_a_key_frame_changes_the_painted_size_when_the_camera_comes_into_focus(coder):
    sharp = np.stack([picture for picture, _ in drive(6, height=319, width=399)])
    soft = [np.asarray(PIL.Image.fromarray(p).resize((60, 48)).resize((399, 319))) for p in sharp]
    frames = [*soft[:2], *sharp[2:4], *soft[4:]]
    pieces = list(sequence.encode(frames, codec=coder, key_interval=0.2))
    scenes = [moment.scene for moment in sequence.Unpacker().moments(pieces)]
    assert [scene.halved for scene in scenes] == [True, True, False, False, True, True]
    assert {picture.size for picture in sequence.decode(pieces, codec=coder)} == {(399, 319)}
    assert set(coder.receiver.sizes) == {(160, 200), (319, 399)}


@pytest.mark.parametrize(("soft", "then"), [(True, 1.5), (False, 1 / 1.5)])
def test_the_painted_size_changes_only_for_clearly_more_or_less_detail(
    coder, monkeypatch, soft, then
):
    asked = []
    monkeypatch.setattr(halving, "is_soft", lambda _, factor: asked.append(factor) or soft)
    frames = [np.asarray(PIL.Image.fromarray(f).resize((400, 320))) for f in FRAMES[:4]]
    list(sequence.encode(frames, codec=coder, key_interval=0.1))
    assert asked == [1, then, then, then]
