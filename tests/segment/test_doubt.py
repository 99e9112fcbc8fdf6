import numpy as np
import pytest

from sempic.labels.regions import components
from sempic.palette import CAMVID, CITYSCAPES, INDICES
from sempic.segment.doubt import certainty, is_informative, known, void_where_unsure

ROAD, PERSON, VOID = 0, 11, 19


def test_regions_connect_by_sides_only():
    labels = np.array([[1, 1, 2, 1], [2, 1, 2, 1], [2, 2, 2, 1], [1, 2, 1, 1]], np.uint8)
    regions = components(labels)
    assert len(np.unique(regions)) == 4
    assert sorted(np.unique(regions)) == [0, 1, 2, 3]
    assert regions[0, 2] == regions[1, 0] == regions[3, 1]
    assert regions[0, 0] != regions[3, 0]
    assert regions[0, 3] == regions[3, 2]


def test_regions_agree_with_a_flood_fill(tmp_path):
    ndimage = pytest.importorskip("scipy.ndimage")
    labels = np.random.default_rng(0).integers(0, 3, (40, 57), np.uint8)
    count = sum(ndimage.label(labels == v)[1] for v in range(3))
    regions = components(labels)
    assert regions.max() + 1 == count
    for number in range(count):
        assert len(np.unique(labels[regions == number])) == 1


def two_regions(left: int, right: int):
    labels = np.full((10, 20), ROAD, np.uint8)
    labels[:, 10:] = PERSON
    probabilities = np.zeros((19, 10, 20), np.uint8)
    probabilities[ROAD, :, :10], probabilities[PERSON, :, 10:] = left, right
    return labels, probabilities


def test_only_unsure_regions_become_void():
    labels, probabilities = two_regions(250, 60)
    sent = void_where_unsure(labels, probabilities, CITYSCAPES.id)
    assert (sent[:, :10] == ROAD).all()
    assert (sent[:, 10:] == VOID).all()
    assert known(labels, probabilities, CITYSCAPES.id) == 0.5


def test_a_person_needs_less_certainty_than_a_road():
    labels, probabilities = two_regions(140, 140)
    sent = void_where_unsure(labels, probabilities, CITYSCAPES.id)
    assert (sent[:, :10] == VOID).all()
    assert (sent[:, 10:] == PERSON).all()


def test_one_unsure_pixel_is_not_enough():
    labels, probabilities = two_regions(250, 250)
    probabilities[ROAD, 3, 3] = 0
    assert (void_where_unsure(labels, probabilities, CITYSCAPES.id) == labels).all()


def test_void_pixels_count_as_unknown():
    labels = np.full((8, 8), CAMVID.void, np.uint8)
    sure = np.full((11, 8, 8), 255, np.uint8)
    assert (void_where_unsure(labels, sure, CAMVID.id) == CAMVID.void).all()
    assert known(labels, sure, CAMVID.id) == 0


def test_critical_pixels_of_low_probability_count_as_unknown():
    labels, probabilities = two_regions(250, 140)
    assert (void_where_unsure(labels, probabilities, CITYSCAPES.id) == labels).all()
    assert known(labels, probabilities, CITYSCAPES.id) == 0.5


def test_a_palette_without_void_is_unchanged():
    labels, probabilities = two_regions(0, 0)
    assert void_where_unsure(labels, probabilities, INDICES.id) is labels


def test_certainty_is_the_mean_probability_of_the_likeliest_class():
    assert certainty(two_regions(255, 0)[1]) == 0.5
    assert certainty(two_regions(255, 51)[1]) == pytest.approx(0.6)


def test_a_map_of_nearly_one_class_is_sent_only_for_critical_objects():
    labels = np.full((10, 20), ROAD, np.uint8)
    labels[0, :15] = VOID
    assert not is_informative(labels, CITYSCAPES.id)
    labels[1, :1] = 10  # sky
    assert is_informative(labels, CITYSCAPES.id)
    labels[:] = ROAD
    assert not is_informative(labels, CITYSCAPES.id)
    labels[5, 5] = PERSON
    assert is_informative(labels, CITYSCAPES.id)
    assert not is_informative(np.full_like(labels, PERSON), CITYSCAPES.id)
