from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
from conftest import FakeSegmenter, street

from sempic.codec import Draft
from sempic.errors import InputError, SempicWarning
from sempic.options import EncodeOptions
from sempic.palette import CAMVID, CITYSCAPES, translate
from sempic.scene import Image, LabelMap, Probabilities
from sempic.segment.found import Found

CAR = CITYSCAPES.classes.index("car")


def cityscapes(height: int, width: int) -> tuple[Image, LabelMap]:
    """A picture, and its map in Cityscapes' classes."""
    picture, labels = street(height, width)
    return picture, translate(labels, CAMVID.id, CITYSCAPES.id)


PICTURE, LABELS = cityscapes(96, 127)


class Sure:
    """Sees `labels`, without a doubt, in pictures of any size."""

    palette, voids = CITYSCAPES.id, True

    def __init__(self, labels: LabelMap = LABELS, sure: int = 255) -> None:
        self.labels, self.sure = labels, sure

    def __call__(self, image: Image) -> LabelMap:
        step = -(-self.labels.shape[0] // image.shape[0])
        return np.ascontiguousarray(self.labels[::step, ::step])

    def predict(self, image: Image) -> tuple[LabelMap, Probabilities]:
        labels = self(image)
        there = np.arange(19)[:, None, None] == labels
        return labels, there * np.uint8(self.sure)


def plain(picture: Image) -> Draft:
    return Draft(width=picture.shape[1], height=picture.shape[0])


def test_a_draft_has_the_map_and_for_a_fixed_quality_the_coarse_picture(monkeypatch):
    monkeypatch.delenv("SEMPIC_THREADS", raising=False)  # with one thread it comes later
    found = Found(Sure(), PICTURE, EncodeOptions())
    draft = found.draft(plain(PICTURE))
    assert (draft.palette, draft.doubled, draft.halved) == (CITYSCAPES.id, True, False)
    assert np.array_equal(draft.labels, found.labels())
    assert draft.labels.shape == LABELS.shape
    assert draft.coarse is not None
    assert Found(Sure(), PICTURE, EncodeOptions(target_bpp=1)).draft(plain(PICTURE)).coarse is None


def test_a_lossless_map_keeps_its_size():
    found = Found(Sure(), PICTURE, EncodeOptions(label_quality="lossless"))
    assert np.array_equal(found.labels(), LABELS)
    assert not found.draft(plain(PICTURE)).doubled


def test_a_soft_picture_is_halved_unless_that_is_not_wanted():
    sharp, labels = cityscapes(421, 500)
    soft = np.asarray(PIL.Image.fromarray(sharp).reduce(4).resize((500, 421)))
    halved = Found(Sure(labels), soft, EncodeOptions())
    assert halved.draft(plain(soft)).halved
    assert halved.labels().shape == halved.may_show([CAR]).shape == (421, 500)
    whole = Found(Sure(labels), soft, EncodeOptions(), halves=False)
    assert not whole.draft(plain(soft)).halved


def test_an_unsure_segmenter_sends_no_map_but_says_what_it_may_see():
    with pytest.warns(SempicWarning, match="without a label map: the segmenter knows 0%"):
        found = Found(Sure(sure=100), PICTURE, EncodeOptions())
    draft = found.draft(plain(PICTURE))
    assert (draft.palette, draft.labels, draft.coarse) == (CITYSCAPES.id, None, None)
    assert found.labels() is None
    assert np.array_equal(found.may_show([CAR]), LABELS == CAR)


def test_maps_are_in_the_palette_of_the_options():
    found = Found(Sure(), PICTURE, EncodeOptions(palette="camvid", label_quality="lossless"))
    assert found.palette == CAMVID.id
    assert np.array_equal(found.labels(), street(96, 127)[1])
    assert (LABELS == CAR).any()
    assert np.array_equal(found.may_show([CAMVID.classes.index("car")]), LABELS == CAR)
    with pytest.raises(InputError, match="cannot be named in palette cityscapes-labelids"):
        Found(FakeSegmenter(), PICTURE, EncodeOptions(palette="cityscapes-labelids"))


def test_classes_to_imagine_are_seen_also_where_they_become_void():
    assert Found(Sure(), PICTURE, EncodeOptions()).seen() == []
    options = EncodeOptions(imagine=("car",), ignore_label=CAR, label_quality="lossless")
    found = Found(Sure(), PICTURE, options)
    assert not (found.draft(plain(PICTURE)).labels == CAR).any()
    assert [np.array_equal(seen, LABELS) for seen in found.seen()] == [True, True]
