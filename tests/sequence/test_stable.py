"""Stabilised maps change only where the scene changes."""

import numpy as np
import pytest
from scenes import drive, packer_of, planes

from sempic.palette import PALETTES
from sempic.segment import stakes
from sempic.sequence.stable import Stabiliser


def settled(maps, probabilities, pictures, **how):
    """The maps that are sent."""
    packer = packer_of(maps[0])
    stabiliser = Stabiliser(1, **how)
    sent = []
    for labels, odds, picture in zip(maps, probabilities, pictures, strict=True):

        def choose(expected, labels=labels, odds=odds):
            sent.append(stabiliser.settle(labels, odds, expected))
            return sent[-1]

        packer.pack(planes(picture), choose, qp=28)
    return sent


def probabilities_of(labels, sure):
    """Probability `sure` for each label, the rest for the next class."""
    odds = np.zeros((12, *labels.shape), np.uint8)
    np.put_along_axis(odds, labels[None].astype(int), round(255 * sure), 0)
    np.put_along_axis(odds, (labels[None].astype(int) + 1) % 12, round(255 * (1 - sure)), 0)
    return odds


def test_flicker_is_not_sent():
    """A segmenter that wavers between two classes."""
    picture, labels = drive(1)[0]
    rng = np.random.default_rng(0)
    maps, probabilities = [], []
    for _ in range(8):
        odd = np.kron(rng.random((6, 8)) < 0.3, np.ones((8, 8), bool))
        maps.append(np.where(odd, (labels + 1) % 12, labels).astype(np.uint8))
        odds = probabilities_of(labels, 0.55)
        swapped = probabilities_of(labels, 0.45)
        probabilities.append(np.where(odd, swapped, odds))
    sent = settled(maps, probabilities, [picture] * 8)
    flicker = np.mean([(a != b).mean() for a, b in zip(sent[1:], sent, strict=False)])
    given = np.mean([(a != b).mean() for a, b in zip(maps[1:], maps, strict=False)])
    assert flicker < 0.2 * given


def test_new_and_certain_objects_are_sent_within_a_few_frames():
    picture, labels = drive(1)[0]
    later, changed = labels.copy(), picture.copy()
    later[10:26, 20:40], changed[10:26, 20:40] = 8, 255 - picture[10:26, 20:40]
    maps = [labels] * 3 + [later] * 4
    sent = settled(maps, [probabilities_of(m, 1.0) for m in maps], [picture] * 3 + [changed] * 4)
    assert np.array_equal(sent[2], labels)
    assert (sent[-1] == later)[10:26, 20:40].mean() > 0.8
    assert (sent[-1] == later).mean() > 0.95


def test_a_changed_label_on_an_unchanged_picture_takes_longer():
    picture, labels = drive(1)[0]
    later = labels.copy()
    later[10:26, 20:40] = 8
    maps = [labels] * 20 + [later] * 40
    sent = settled(maps, [probabilities_of(m, 1.0) for m in maps], [picture] * 60)
    assert np.array_equal(sent[28], labels)
    assert np.array_equal(sent[-1], later)


def test_labels_move_with_the_scene():
    scenes = drive(6)
    maps = [labels for _, labels in scenes]
    sent = settled(
        maps, [probabilities_of(m, 0.9) for m in maps], [picture for picture, _ in scenes]
    )
    assert (sent[-1] == maps[-1]).mean() > 0.9


@pytest.mark.parametrize("probabilities", [None, "some"])
def test_the_first_map_is_that_of_a_single_picture(probabilities):
    picture, labels = drive(1)[0]
    odds, expected = None, labels
    if probabilities is not None:
        odds = probabilities_of(labels, 0.7)
        expected = stakes.decide(labels, odds, PALETTES[1])
        assert not np.array_equal(expected, labels)
    assert np.array_equal(settled([labels], [odds], [picture])[0], expected)


def test_an_unsure_person_is_sent():
    """At a probability of two fifths, a person is sent and a tree is not."""
    picture, labels = drive(1)[0]
    changed = picture.copy()
    box = np.s_[20:44, 24:36]
    changed[box] = 255 - picture[box]
    found = {}
    for name in ("tree", "pedestrian"):
        number = PALETTES[1].classes.index(name)
        odds = probabilities_of(labels, 0.6)
        odds[(slice(None), *box)] = 0
        np.put_along_axis(odds[(slice(None), *box)], labels[box][None].astype(int), 153, 0)
        odds[(number, *box)] = 102
        before = probabilities_of(labels, 1.0)
        pictures = [picture] * 2 + [changed] * 4
        sent = settled([labels] * 6, [before] * 2 + [odds] * 4, pictures)
        found[name] = (sent[-1] == number)[box].mean()
    assert found["pedestrian"] > 0.8
    assert found["tree"] < 0.2


def test_void_covers_unknown_pixels_until_they_are_known():
    """The labels below return when the segmenter is sure again."""
    picture, labels = drive(1)[0]
    certain = probabilities_of(labels, 1.0)[:11]
    odds = {sure: np.rint(sure * certain).astype(np.uint8) for sure in (1.0, 0.45, 0.65)}
    levels = [1.0] + [0.45] * 60 + [0.65] * 60 + [1.0] * 60
    sent = settled([labels] * 181, [odds[v] for v in levels], [picture] * 181, voids=True)
    assert np.array_equal(sent[5], labels)
    large = np.isin(labels, [v for v in range(9) if (labels == v).sum() > 400])
    assert (sent[60][large] == 11).mean() > 0.9
    assert np.array_equal(sent[120], sent[60])
    assert (sent[180] == labels).mean() > 0.95


def test_void_does_not_flicker():
    """A segmenter whose probabilities vary around the threshold of void."""
    picture, labels = drive(1)[0]
    rng = np.random.default_rng(0)
    probabilities = []
    for _ in range(12):
        sure = 0.62 + 0.2 * (np.kron(rng.random((6, 8)), np.ones((8, 8))) - 0.5)
        odds = probabilities_of(labels, 1.0)[:11].astype(float)
        probabilities.append(np.rint(odds * sure).astype(np.uint8))
    sent = settled([labels] * 12, probabilities, [picture] * 12, voids=True)
    assert all(np.array_equal(found, sent[0]) for found in sent)
