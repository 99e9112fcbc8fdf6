"""Objects in two maps. tests/evaluation/test_measures.py tests what is kept and invented."""

import numpy as np
import pytest

from sempic.check import objects
from sempic.critical import GROUPS, Tally, table
from sempic.errors import InputError
from sempic.palette import CAMVID, CITYSCAPES


@pytest.mark.parametrize("seed", range(6))
def test_regions_and_their_covered_shares_agree_with_scipy(seed):
    ndimage = pytest.importorskip("scipy.ndimage")
    rng = np.random.default_rng(seed)
    size = (40 + seed, 61)
    blurred = ndimage.gaussian_filter(rng.normal(size=(2, *size)), (0, 1, 1.5))
    mask, other = blurred > 0.05
    near = np.ones((3, 3), bool)
    numbers, _ = ndimage.label(mask, near)
    expected = []
    for number in range(1, numbers.max() + 1):
        region = numbers == number
        if region.sum() >= 0.001 * mask.size:
            grown = ndimage.binary_dilation(region, near, objects.GROWN)
            expected.append((region, (grown & other).sum() / region.sum()))
    found = objects.regions(mask, 0.001 * mask.size)
    assert len(found) == len(expected) > 3
    for (region, share), one in zip(
        sorted(expected, key=lambda e: e[0].argmax()),
        sorted(found, key=lambda f: f.rows.start * 1000 + np.argmax(f.shape[0]) + f.columns.start),
        strict=True,
    ):
        whole = np.zeros(size, bool)
        whole[one.rows, one.columns] = one.shape
        assert np.array_equal(whole, region)
        assert one.size == region.sum()
        assert one.covered(other) == pytest.approx(share)


def test_an_empty_mask_has_no_object():
    mask = np.zeros((5, 7), bool)
    assert objects.regions(mask, 0) == []
    mask[2, 3] = True
    assert [region.size for region in objects.regions(mask, 0)] == [1]


def test_lost_and_invented_objects_have_places():
    before = np.zeros((40, 60), np.uint8)
    before[5:15, 5:15] = 9  # pedestrian
    after = np.zeros_like(before)
    after[20:30, 40:52] = 8  # car
    changes = objects.compare(before, after, CAMVID)
    (lost,) = changes["people"].lost
    assert (lost.rows, lost.columns, lost.size) == (slice(5, 15), slice(5, 15), 100)
    (invented,) = changes["vehicles"].invented
    assert (invented.rows, invented.columns) == (slice(20, 30), slice(40, 52))
    assert changes["people"].tally.kept == 0
    assert not changes["two-wheelers"].tally.seen


def test_an_object_near_one_of_the_original_is_not_invented():
    before, after = np.zeros((2, 40, 60), np.uint8)
    before[5:15, 5:15], after[5:15, 16:26] = 9, 9
    assert objects.compare(before, after, CAMVID)["people"].tally == Tally(1, 1, 0)
    after = np.roll(after, 1, axis=1)
    assert objects.compare(before, after, CAMVID)["people"].tally == Tally(1, 1, 1)


def test_groups_become_ids_of_a_palette():
    assert objects.ids(GROUPS["people"], CITYSCAPES) == [11, 12]
    assert objects.ids(GROUPS["people"], CAMVID) == [9]


def test_a_table_of_groups_sets_classes_and_sizes():
    before = np.zeros((40, 60), np.uint8)
    before[5:8, 5:8] = 9  # pedestrian
    before[20:30, 40:52] = 8  # car
    after = np.zeros_like(before)
    mine = table("mine", {"small": {"classes": ["person"], "pixels": 9}, "wheels": ["car", "bus"]})
    groups = objects.within(mine, CAMVID)
    assert groups["small"].classes == ("pedestrian",)
    assert groups["wheels"].classes == ("car",)
    changes = objects.compare(before, after, CAMVID, groups)
    assert [(name, len(change.lost)) for name, change in changes.items()] == [
        ("small", 1), ("wheels", 1),
    ]  # fmt: skip
    mine = table("mine", {"small": {"classes": ["person"], "pixels": 10}})
    groups = objects.within(mine, CAMVID)
    assert not objects.compare(before, after, CAMVID, groups)["small"].tally.seen


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ({"a": ["ghost"]}, "mine.json: a: class 'ghost' is not one of palette camvid: sky, build"),
        ({"a": ["car"], "b": ["sign", "truck"]}, "mine.json: 'car' is in 'a' and in 'b'"),
    ],
)
def test_unknown_and_repeated_classes_are_refused(groups, said):
    with pytest.raises(InputError, match=said):
        objects.within(table("mine.json", groups), CAMVID)
