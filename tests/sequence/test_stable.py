"""Maps that change where the scene does."""

import numpy as np
import pytest
from scenes import drive, packer_of, planes

from sempic.sequence.stable import Stabiliser


def settled(maps, chances, pictures, **how):
    """What is sent of these maps."""
    packer = packer_of(maps[0])
    stabiliser = Stabiliser(1, **how)
    sent = []
    for labels, odds, picture in zip(maps, chances, pictures, strict=True):

        def choose(expected, labels=labels, odds=odds):
            sent.append(stabiliser.settle(labels, odds, expected))
            return sent[-1]

        packer.pack(planes(picture), choose, qp=28)
    return sent


def chances_of(labels, sure):
    """`sure` for each label, the rest for the one after it."""
    odds = np.zeros((12, *labels.shape), np.uint8)
    np.put_along_axis(odds, labels[None].astype(int), round(255 * sure), 0)
    np.put_along_axis(odds, (labels[None].astype(int) + 1) % 12, round(255 * (1 - sure)), 0)
    return odds


def test_flicker_is_not_sent():
    """A segmenter of two minds, frame by frame."""
    picture, labels = drive(1)[0]
    rng = np.random.default_rng(0)
    maps, chances = [], []
    for _ in range(8):
        odd = np.kron(rng.random((6, 8)) < 0.3, np.ones((8, 8), bool))
        maps.append(np.where(odd, (labels + 1) % 12, labels).astype(np.uint8))
        odds = chances_of(labels, 0.55)
        swapped = chances_of(labels, 0.45)
        chances.append(np.where(odd, swapped, odds))
    sent = settled(maps, chances, [picture] * 8)
    flicker = np.mean([(a != b).mean() for a, b in zip(sent[1:], sent, strict=False)])
    given = np.mean([(a != b).mean() for a, b in zip(maps[1:], maps, strict=False)])
    assert flicker < 0.2 * given


def test_what_is_new_and_certain_is_sent_within_frames():
    picture, labels = drive(1)[0]
    later = labels.copy()
    later[10:26, 20:40] = 8
    maps = [labels] * 3 + [later] * 4
    sent = settled(maps, [chances_of(m, 1.0) for m in maps], [picture] * 7)
    assert np.array_equal(sent[2], labels)
    assert np.array_equal(sent[-1], later)


def test_a_scene_that_moves_takes_its_labels_along():
    scenes = drive(6)
    maps = [labels for _, labels in scenes]
    sent = settled(maps, [chances_of(m, 0.9) for m in maps], [picture for picture, _ in scenes])
    assert (sent[-1] == maps[-1]).mean() > 0.9


@pytest.mark.parametrize("chances", [None, "some"])
def test_the_first_map_is_the_segmenter_s(chances):
    picture, labels = drive(1)[0]
    odds = None if chances is None else chances_of(labels, 0.7)
    assert np.array_equal(settled([labels], [odds], [picture])[0], labels)


def test_void_has_a_chance_where_it_is_sent():
    picture, labels = drive(1)[0]
    unsure = chances_of(labels, 1.0)[:11] // 3
    sent = settled(
        [labels] * 8, [chances_of(labels, 1.0)[:11]] + [unsure] * 7, [picture] * 8, voids=True
    )
    assert (sent[-1] == 11).mean() > 0.9
