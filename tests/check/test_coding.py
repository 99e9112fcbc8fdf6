"""Encoding with keep, keep_boxes, window_qp, imagine, check and check_budget."""

import json
import re
from collections import Counter

import numpy as np
import PIL.Image
import pytest
from conftest import ROOT, FakeSegmenter, needs_models, street

import sempic
from sempic import (
    api,
    check,
    cli,
    coarse,
    container,
    critical,
    models,
    palette,
    texture,
    windows,
)
from sempic.batch import work
from sempic.critical import Tally
from sempic.errors import ImageError, InputError, ModelError, RateError
from sempic.options import EncodeOptions
from sempic.palette import CAMVID, CITYSCAPES

IMAGE, LABELS = street(96, 128)
CAR = (LABELS == 8, (64, 48, 24, 32))
"""Where the car is, and the left column, top row, height and width of its window."""


class Blurred:
    """A receiver that shows the coarse picture."""

    def __call__(self, scene, *, seed, steps=1):
        return api.preview(scene)


def sharp_car(image):
    """The map of a verifier that sees the car only where the car is sharp."""
    away = np.abs(image.astype(int) - IMAGE).mean(2) > 8
    near = np.pad(away, 1)
    rough = sum(near[y : y + 96, x : x + 128] for y in range(3) for x in range(3)) > 4
    return np.where(CAR[0] & ~rough, 8, 0).astype(np.uint8)


@pytest.fixture(scope="module")
def codec():
    verifier = check.Verifier(
        predict=lambda image: (sharp_car(image), None), palette=CAMVID.id, digest="0badcafe"
    )
    return sempic.Codec(FakeSegmenter(), Blurred(), verifier)


def shown(stream):
    return [(w.x, w.y, *w.picture.shape[:2]) for w in sempic.unpack(stream).windows]


def covered(stream, size=LABELS.shape):
    """Which pixels of a picture of (height, width) windows show."""
    sent = np.zeros(size, bool)
    for x, y, height, width in shown(stream):
        sent[y : y + height, x : x + width] = True
    return sent


def test_without_these_options_the_stream_is_unchanged(codec):
    payload = coarse.encode(coarse.downscale(IMAGE, 4), quality=36)
    said = texture.choose(IMAGE, LABELS, CAMVID)
    plain = sempic.pack(width=128, height=96, labels=LABELS, coarse=payload, texture=said)
    assert codec.encode(IMAGE, labels=LABELS) == plain
    assert codec.encode(IMAGE, labels=LABELS, imagine="person") == plain
    assert codec.encode(IMAGE, labels=LABELS, keep="pedestrian") == plain  # the map has none


@pytest.mark.parametrize("classes", ["car", ("car", "person"), ["truck , sign"]])
def test_kept_classes_are_sent_as_windows(codec, classes):
    stream = codec.encode(IMAGE, labels=LABELS, keep=classes)
    assert shown(stream) == [CAR[1]]
    picture = np.array(codec.decode(stream))
    error = np.abs(picture[CAR[0]].astype(int) - IMAGE[CAR[0]]).mean()
    blurred = np.array(codec.decode(codec.encode(IMAGE, labels=LABELS)))
    assert error < 0.6 * np.abs(blurred[CAR[0]].astype(int) - IMAGE[CAR[0]]).mean()


class Doubtful:
    """Sees a street with a car, a person that is not the likeliest class, and a truck."""

    palette, voids = CITYSCAPES.id, True
    person, truck = np.s_[40:60, 10:30], np.s_[10:20, 100:110]

    def __init__(self, certain=250):
        self.certain = certain

    def __call__(self, image):
        return self.predict(image)[0]

    def predict(self, image):
        labels = np.where(LABELS == 3, 0, 2).astype(np.uint8)  # road, building
        labels[self.truck] = 14
        probable = np.zeros((19, *labels.shape), np.uint8)
        np.put_along_axis(probable, labels[None].astype(np.intp), self.certain, 0)
        probable[11][self.person], probable[12][self.person] = 40, 30  # of 255; person, rider
        probable[14][self.truck] = 90  # becomes void in the map that is sent
        return labels, probable


@pytest.mark.parametrize(
    ("certain", "options", "truck"),
    [(250, {}, 14), (250, {"palette": "camvid"}, 8), (150, {}, None)],
    ids=["cityscapes", "camvid", "no map"],
)
@pytest.mark.filterwarnings("ignore:sent without a label map:sempic.SempicWarning")
def test_what_may_be_of_a_kept_class_is_sent_whatever_the_map_says(certain, options, truck):
    coder = sempic.Codec(Doubtful(certain), Blurred())
    stream = coder.encode(IMAGE, keep="truck", **options)
    labels = sempic.unpack(stream).labels
    assert labels is None if truck is None else not (labels == truck).any()
    assert covered(stream)[Doubtful.truck].all()
    assert covered(stream).mean() < 0.1
    both = covered(coder.encode(IMAGE, keep=["person", "rider"], **options))
    assert both[Doubtful.person].all()
    assert both.mean() < 0.2


@pytest.mark.parametrize("certain", [250, 150])
def test_a_lossless_map_changes_nothing_of_what_may_be_kept_or_imagined(certain):
    coder = sempic.Codec(Doubtful(certain), Blurred())
    lossless = {"label_quality": "lossless"}
    plain = sempic.unpack(coder.encode(IMAGE, **lossless)).labels
    assert np.array_equal(plain, coder.segmenter(IMAGE))
    kept = coder.encode(IMAGE, keep=["person", "rider"], **lossless)
    assert np.array_equal(sempic.unpack(kept).labels, plain)
    assert covered(kept)[Doubtful.person].all()
    box = {"keep_boxes": [(0, 0, 128, 96)]}
    sent = covered(coder.encode(IMAGE, imagine="person", **lossless, **box))
    assert not sent[Doubtful.person].any()
    assert sent.mean() > 0.7


def test_what_may_be_of_an_imagined_class_is_in_no_window():
    coder, everything = sempic.Codec(Doubtful(), Blurred()), {"keep_boxes": [(0, 0, 128, 96)]}
    sent = covered(coder.encode(IMAGE, imagine="person", **everything))
    assert not sent[Doubtful.person].any()
    assert sent.mean() > 0.7


def test_kept_boxes_scale_with_the_picture(codec):
    stream = codec.encode(IMAGE, labels=LABELS, keep_boxes=[(2, 3, 20, 10)])
    assert shown(stream) == [(0, 0, 16, 24)]
    stream = codec.encode(IMAGE, labels=LABELS, keep_boxes=[(2, 3, 31, 10)], max_side=64)
    assert shown(stream) == [(0, 0, 8, 24)]
    assert shown(codec.encode(IMAGE, labels="none", keep_boxes=[(0, 0, 1, 1)])) == [(0, 0, 8, 8)]


def test_more_windows_than_a_stream_may_have_are_joined(codec):
    picture = np.zeros((128, 544, 3), np.uint8)
    labels = np.zeros(picture.shape[:2], np.uint8)
    labels[:, :8] = 8
    spots = [(x, y, 1, 1) for x in range(32, 544, 16) for y in range(0, 128, 16)]
    options = {"labels": labels, "imagine": "car"}
    assert len(shown(codec.encode(picture, keep_boxes=spots[1:], **options))) == 255
    stream = codec.encode(picture, keep_boxes=[(0, 0, 1, 1), *spots], **options)
    sent = covered(stream, labels.shape)
    assert len(shown(stream)) < 255
    assert all(sent[y, x] for x, y, *_ in spots)
    assert not sent[:, :12].any()


def test_windows_that_cannot_be_joined_and_too_large_ones_are_refused_by_the_options_name(codec):
    tall, wide = np.zeros((8176, 24, 3), np.uint8), np.zeros((8, 4104, 3), np.uint8)
    labels = np.zeros(tall.shape[:2], np.uint8)
    labels[12::32] = 8  # a window between any two
    everywhere = {"keep_boxes": [(0, 0, 24, 8176)]}
    with pytest.raises(InputError, match="keep, keep_boxes: a stream has 1…255 windows, not 256"):
        codec.encode(tall, labels=labels, imagine="car", **everywhere)
    assert len(shown(codec.encode(wide, labels="none", keep_boxes=[(0, 0, 4104, 8)]))) == 2
    large = np.broadcast_to(np.uint8(0), (4104, 4104, 3))
    with pytest.raises(InputError, match="must fit into 4096×4096 pixels"):
        codec.encode(large, labels="none", keep_boxes=[(0, 0, 4104, 4104)])


def test_window_qp_without_windows_is_refused(tmp_path, capsys):
    picture = tmp_path / "a.png"
    PIL.Image.fromarray(IMAGE).save(picture)
    assert cli.main(["encode", str(picture), "--window-qp", "30"]) == 2
    said = capsys.readouterr().err
    assert said == "sempic: window_qp needs windows, by keep, keep_boxes or check\n"
    for wanted in ({"keep": "car"}, {"keep_boxes": [(0, 0, 8, 8)]}, {"check": True}):
        EncodeOptions(window_qp=30, **wanted)


def test_window_qp_is_the_precision_of_all_windows(codec):
    sizes, errors = [], []
    for options in ({"window_qp": 40}, {}, {"window_qp": 28}, {"window_qp": 4}):
        for wanted in ({"keep": "car"}, {"check": True, "check_budget": 99}):
            stream = codec.encode(IMAGE, labels=LABELS, **wanted, **options)
            (window,) = sempic.unpack(stream).windows
            rows, columns = window.picture.shape[:2]
            there = IMAGE[window.y : window.y + rows, window.x : window.x + columns]
            sizes.append(len(stream))
            errors.append(np.abs(window.picture - there.astype(int)).mean())
    assert sizes[2:4] == sizes[4:6]
    assert sizes[0::2] == sorted(sizes[0::2])
    assert errors[0::2] == sorted(errors[0::2], reverse=True)
    assert errors[1::2] == errors[0::2]
    assert errors[-1] < 1


def test_imagined_classes_are_in_no_kept_box(codec):
    stream = codec.encode(IMAGE, labels=LABELS, keep_boxes=[(0, 0, 128, 96)], imagine="car")
    assert not covered(stream)[CAR[0]].any()
    assert covered(stream).mean() > 0.7
    more = {"check": True, "check_budget": 9.0, "imagine": "car"}
    assert shown(codec.encode(IMAGE, labels=LABELS, **more)) == []
    with pytest.warns(sempic.SempicWarning, match="^without a label map no window is sent"):
        assert shown(codec.encode(IMAGE, labels="none", **more)) == []


def test_a_check_sends_lost_objects_and_writes_a_receipt(codec):
    stream = codec.encode(IMAGE, labels=LABELS, check=True, check_budget=5.0)
    assert shown(stream) == [CAR[1]]
    receipt = sempic.info(stream)["receipt"]
    assert receipt["verifier"] == "0badcafe"
    there = {"seen": 1, "kept": 1, "lost": 0, "invented": 0}
    assert receipt["all"] == receipt["groups"]["vehicles"] == there
    frugal = codec.encode(IMAGE, labels=LABELS, check=True, check_budget=0)
    assert sempic.info(frugal)["receipt"]["all"] == there | {"kept": 0, "lost": 1}
    assert len(frugal) < len(stream)


def counts(found, groups):
    """What a receipt says of objects."""
    every = Counter((one.group, one.verdict) for one in found)
    tallies = {
        name: Tally(every[name, "kept"] + every[name, "lost"], every[name, "lost"],
                    every[name, "invented"])
        for name in groups
    }  # fmt: skip
    return {name: tally.described() for name, tally in tallies.items()}


def test_objects_have_places_and_the_counts_of_the_receipt(codec):
    for options in ({}, {"critical": TABLE}):
        for budget, verdict in ((0, "lost"), (5.0, "kept")):
            stream = codec.encode(IMAGE, labels=LABELS, check=True, check_budget=budget, **options)
            (found,) = codec.objects(IMAGE, stream, **options)
            rows, columns = np.nonzero(sharp_car(IMAGE) == 8)
            left, top, width, height = found.box
            assert (left, left + width) == (columns.min(), columns.max() + 1)
            assert (top, top + height) == (rows.min(), rows.max() + 1)
            assert found.verdict == verdict
            groups = sempic.info(stream)["receipt"]["groups"]
            assert counts([found], groups) == groups
    assert codec.objects(IMAGE, codec.encode(IMAGE, labels=LABELS))  # without a receipt, too


@needs_models
def test_objects_of_the_bundled_networks_have_the_counts_of_the_receipt():
    image = PIL.Image.open(ROOT / "examples/street.jpg")
    for options in ({}, {"max_side": 400}):  # the original stays 512 wide
        stream = sempic.encode(image, check=True, check_budget=0, **options)
        groups = sempic.info(stream)["receipt"]["groups"]
        found = sempic.objects(image, stream)
        assert counts(found, groups) == groups
        assert found
        width, height = (sempic.info(stream)[side] for side in ("width", "height"))
        for left, top, across, down in (one.box for one in found):
            assert 0 <= left < left + across <= width
            assert 0 <= top < top + down <= height


def test_what_is_not_the_streams_original_is_refused_before_it_is_painted(codec):
    stream = codec.encode(IMAGE, labels=LABELS)

    def paints(scene):
        pytest.fail("a receiver ran")

    coder = sempic.Codec(FakeSegmenter(), paints, codec.verifier)
    for wrong, said in ((IMAGE[:, :120], "120×96"), (IMAGE[::2, ::2], "64×48")):
        with pytest.raises(InputError, match=f"original of {said} cannot .* of 128×96$"):
            coder.objects(wrong, stream)
    with pytest.raises(ImageError, match="an array must be uint8"):
        coder.objects(LABELS, stream)
    with pytest.raises(sempic.TruncatedStream):
        coder.objects(IMAGE, stream[:-1])
    with pytest.raises(InputError, match="critical: ghosts: class 'ghost' is not one of"):
        coder.objects(IMAGE, stream, critical={"ghosts": ["ghost"]})
    with pytest.raises(InputError, match="critical is a table of groups or its file, not list"):
        coder.objects(IMAGE, stream, critical=["car"])


def test_a_verifier_that_works_in_place_leaves_the_original():
    def predict(image):
        image[:] = 0
        return np.zeros(image.shape[:2], np.uint8), None

    verifier = check.Verifier(predict=predict, palette=CAMVID.id, digest="0badcafe")
    coder, image = sempic.Codec(FakeSegmenter(), Blurred(), verifier), IMAGE.copy()
    assert coder.objects(image, coder.encode(IMAGE, labels=LABELS)) == []
    assert np.array_equal(image, IMAGE)


def test_regions_too_large_for_windows_are_not_sent(codec, monkeypatch):
    monkeypatch.setattr(windows, "MAX_SIDE", 24)  # the car is 32 pixels high
    stream = codec.encode(IMAGE, labels=LABELS, check=True, check_budget=5.0)
    assert shown(stream) == []
    assert sempic.info(stream)["receipt"]["all"]["lost"] == 1


def test_a_checked_stream_stays_within_the_target(codec):
    with pytest.warns(sempic.SempicWarning, match="quality 9, the finest, takes 0.3"):
        stream = codec.encode(IMAGE, labels=LABELS, check=True, target_bpp=0.4)
    assert 0.2 < sempic.info(stream)["bpp"] <= 0.4
    assert container.read(stream).receipt is not None
    with pytest.raises(RateError, match=r"bytes, with a check's receipt; ") as error:
        codec.encode(IMAGE, labels=LABELS, check=True, target_bytes=20)
    least = int(re.search(r"is (\d+) bytes", str(error.value))[1])
    assert len(codec.encode(IMAGE, labels=LABELS, check=True, target_bytes=least)) <= least


def test_a_check_without_room_for_its_budget_takes_what_there_is(codec):
    options = {"labels": LABELS, "check": True, "check_budget": 50}
    least = len(codec.encode(IMAGE, labels=LABELS, quality=1))
    small, large = (codec.encode(IMAGE, target_bytes=least + more, **options) for more in (40, 400))
    assert shown(small) == []
    assert sempic.info(small)["receipt"]["all"]["lost"] == 1
    assert shown(large)
    assert sempic.info(large)["receipt"]["all"]["lost"] == 0
    assert len(large) <= least + 400


def test_room_that_a_check_leaves_goes_to_a_higher_quality(codec):
    options = {"labels": LABELS, "check": True}
    for quality in (6, 7, 8):
        stream = codec.encode(IMAGE, quality=quality, **options)
        assert codec.encode(IMAGE, target_bytes=len(stream), **options) == stream
        smaller = codec.encode(IMAGE, target_bytes=len(stream) - 1, **options)
        assert len(smaller) < len(stream)


def test_a_missing_verifier_and_the_segmenter_itself_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"none\.onnx"):
        sempic.Codec(verifier=tmp_path / "none.onnx").encode(IMAGE, labels=LABELS, check=True)
    itself = tmp_path / "copy.onnx"
    itself.write_bytes(models.find(models.SEGMENTER).read_bytes())
    with pytest.raises(ModelError, match="the segmenter itself"):
        sempic.Codec(verifier=itself).encode(IMAGE, labels=LABELS, check=True)


@pytest.mark.parametrize(
    "options",
    [
        {"keep": 5},
        {"keep": "car,,sign"},
        {"imagine": [8]},
        {"keep_boxes": "1,2,3,4"},
        {"keep_boxes": [(1, 2, 3)]},
        {"keep_boxes": [(1, 2, 0, 4)]},
        {"keep_boxes": [(1.5, 2, 3, 4)]},
        {"keep_boxes": ["1,2,x,4"]},
        {"keep_boxes": 7},
        {"window_qp": 52},
        {"window_qp": -1},
        {"window_qp": 30.5},
        {"check_budget": -1},
        {"check_budget": 0.5},  # without a check
    ],
)
def test_wrong_values_are_refused_by_name(options):
    with pytest.raises(InputError, match=next(iter(options))):
        EncodeOptions(**options)


@pytest.mark.parametrize("labels", [LABELS, "none"], ids=["map", "none"])
def test_unknown_classes_and_boxes_outside_the_picture_are_refused(codec, labels):
    for options in ({"keep": "ghost"}, {"imagine": "ghost"}, {"keep_boxes": [(200, 0, 5, 5)]}):
        with pytest.raises(InputError, match=r"'ghost' is not|not in the picture"):
            codec.encode(IMAGE, labels=labels, **options)


@pytest.mark.parametrize("own", [True, False], ids=["own", "found"])
def test_imagined_objects_that_the_sent_map_leaves_out_are_in_no_window(own):
    """Simplification merges them into their surroundings, and unsure ones become void."""
    cityscapes = palette.CITYSCAPES
    fence, person = (cityscapes.classes.index(name) for name in ("fence", "person"))
    known = np.where(LABELS == 3, 0, 2).astype(np.uint8)
    known[30:32, 60:62], known[60:80, 90:100] = fence, person

    class Unsure:
        palette, voids = cityscapes.id, True

        def __call__(self, image):
            return known

        def predict(self, image):
            sure = np.where(known == person, 60, 250).astype(np.uint8)  # of 255
            return known, np.where(known == np.arange(19)[:, None, None], sure, 0).astype(np.uint8)

    coder = sempic.Codec(Unsure(), Blurred())
    more = {"labels": known, "label_quality": 1, "palette": "cityscapes"} if own else {}
    name, number = ("fence", fence) if own else ("person", person)
    stream = coder.encode(IMAGE, keep_boxes=[(0, 0, 128, 96)], imagine=name, **more)
    scene = sempic.unpack(stream)
    assert scene.labels is not None
    assert not (scene.labels == number).any()
    assert covered(stream).any()
    assert not covered(stream)[known == number].any()


def test_an_ignored_class_is_imagined_where_the_map_would_have_it():
    """The map of least risk has more people than the likeliest classes."""

    class Risky:
        palette, voids = CITYSCAPES.id, True

        def __call__(self, image):
            return np.where(LABELS == 3, 0, 2).astype(np.uint8)

        def predict(self, image):
            labels = self(image)
            probable = np.where(labels == np.arange(19)[:, None, None], 250, 0).astype(np.uint8)
            probable[2, 8:24, 8:24], probable[11, 8:24, 8:24] = 130, 120
            return labels, probable

    coder, options = sempic.Codec(Risky(), Blurred()), {"keep_boxes": [(0, 0, 128, 96)]}
    people = sempic.unpack(coder.encode(IMAGE, **options)).labels == 11
    assert people.any()
    for ignored in (None, 11):
        stream = coder.encode(IMAGE, imagine="person", ignore_label=ignored, **options)
        assert covered(stream).any()
        assert not covered(stream)[people].any()


@pytest.mark.parametrize("own", [True, False], ids=["own", "found"])
def test_imagined_objects_that_are_ignored_are_in_no_window(own):
    coder = sempic.Codec(lambda image: LABELS, Blurred())
    more = {"labels": LABELS} if own else {}
    boxes = [(0, 0, 128, 96)]
    stream = coder.encode(IMAGE, keep_boxes=boxes, imagine="car", ignore_label=8, **more)
    assert not (sempic.unpack(stream).labels == 8).any()
    assert covered(stream).mean() > 0.7
    assert not covered(stream)[LABELS == 8].any()


def test_imagined_objects_that_only_the_verifier_finds_are_in_no_window():
    """Also those of which it is not sure, and of classes that are one in the map's palette."""
    cityscapes = palette.CITYSCAPES
    seen = np.full(LABELS.shape, cityscapes.classes.index("road"), np.uint8)
    seen[8:20, 8:20], unsure = cityscapes.classes.index("truck"), np.s_[60:70, 100:110]

    def predict(image):
        probabilities = np.where(seen == np.arange(19)[:, None, None], 255, 0).astype(np.uint8)
        for name in ("car", "bus"):
            probabilities[(cityscapes.classes.index(name), *unsure)] = 40  # of 255
        return seen, probabilities

    verifier = check.Verifier(predict=predict, palette=cityscapes.id, digest="0badcafe")
    coder = sempic.Codec(FakeSegmenter(), Blurred(), verifier)
    bare = np.where(LABELS == 8, 3, LABELS)
    options = {"labels": bare, "keep_boxes": [(0, 0, 128, 96)], "check": True}
    assert covered(coder.encode(IMAGE, **options)).all()
    there = seen == cityscapes.classes.index("truck")
    there[unsure] = True
    sent = covered(coder.encode(IMAGE, imagine="car", **options))
    assert not sent[there].any()
    assert sent.mean() > 0.8
    with_trucks = covered(coder.encode(IMAGE, imagine="bus", palette="cityscapes", **options))
    assert with_trucks[8:20, 8:20].all()


def test_the_texture_of_imagined_classes_is_not_sent():
    flat = np.full_like(IMAGE, 90)
    coder = sempic.Codec(FakeSegmenter(), Blurred())
    sent = sempic.unpack(coder.encode(flat, labels=LABELS)).texture
    rest = sempic.unpack(coder.encode(flat, labels=LABELS, imagine="road")).texture
    assert {**rest, 3: sent[3]} == sent != rest


def test_nor_is_that_of_the_whole_picture_without_a_map_or_of_void_that_stands_for_them():
    flat = np.full_like(IMAGE, 90)
    coder = sempic.Codec(FakeSegmenter(), Blurred())

    def said(labels, **options):
        return sempic.unpack(coder.encode(flat, labels=labels, **options)).texture

    assert said("none")
    assert not said("none", imagine="road")
    assert 11 in said(LABELS, ignore_label=3)
    assert 11 in said(LABELS, ignore_label=3, imagine="sky")
    assert 11 not in said(LABELS, ignore_label=3, imagine="road")
    cars = {"labels": np.full_like(LABELS, 26), "palette": "cityscapes-labelids"}
    assert 0 in said(**cars, ignore_label=26)
    assert 0 not in said(**cars, ignore_label=26, imagine="car")


@pytest.mark.parametrize("box", [(128, 0, 5, 5), (0, 96, 5, 5), (-5, 0, 5, 5), (0, -5, 5, 5)])
def test_a_box_outside_is_named_as_it_was_given(codec, box):
    said = f"the box {','.join(map(str, box))} is not in the picture of 128×96"
    for more in ({}, {"max_side": 64}):
        with pytest.raises(InputError, match=f"^{said}$"):
            codec.encode(IMAGE, labels=LABELS, keep_boxes=[box], **more)
    x, y = (side - (side > 0) for side in box[:2])
    assert shown(codec.encode(IMAGE, labels=LABELS, keep_boxes=[(x, y, 6, 6)], max_side=64))


def test_a_warning_tells_what_needs_a_label_map(codec):
    box = {"keep_boxes": [(0, 0, 8, 8)]}
    for options, said in (
        ({"keep": "car"}, "no class is kept"),
        ({"keep": "car", "imagine": "sign"}, "no window is sent"),
        (box | {"imagine": "sign"}, "no window is sent"),
    ):
        with pytest.warns(sempic.SempicWarning, match=f"^without a label map {said}"):
            stream = codec.encode(IMAGE, labels="none", **options)
        assert shown(stream) == []
    for labels, options in ((LABELS, {"keep": "car"}), ("none", box), ("none", {"imagine": "car"})):
        codec.encode(IMAGE, labels=labels, **options)  # no warning


@pytest.mark.parametrize("labels", [LABELS, "none"], ids=["map", "none"])
@pytest.mark.parametrize(
    ("keep", "imagine"), [("car", "car"), ("sign,car", "truck"), ("pedestrian", "rider")]
)
def test_a_class_is_not_kept_and_imagined_at_once(codec, labels, keep, imagine):
    """CamVid has no trucks, so that they are cars, and who imagines riders imagines all people."""
    name = keep.split(",")[-1]
    with pytest.raises(InputError, match=f"class '{name}' cannot be kept and imagined at once"):
        codec.encode(IMAGE, labels=labels, keep=keep, imagine=imagine)


def test_keep_and_keep_box_on_the_command_line(tmp_path, capsys):
    PIL.Image.fromarray(IMAGE).save(tmp_path / "a.png")
    PIL.Image.fromarray(LABELS).save(tmp_path / "map.png")
    line = ["encode", str(tmp_path / "a.png"), "--labels", str(tmp_path / "map.png")]
    line += ["--keep-box", "0,0,16,8", "--keep-box", "100,80,8,8", "--keep", "car,sign"]
    assert cli.main(line) == 0
    stream = (tmp_path / "a.sempic").read_bytes()
    assert sorted(shown(stream)) == [(0, 0, 8, 16), CAR[1], (96, 80, 8, 16)]
    capsys.readouterr()
    assert cli.main(["info", str(tmp_path / "a.sempic")]) == 0
    assert "windows" in capsys.readouterr().out
    for wrong in ("--keep-box 0,0,16", "--keep-box a,b,c,d", "--keep car,,sign", "--imagine ,"):
        with pytest.raises(SystemExit):
            cli.main([*line, *wrong.split()])
        assert f"argument {wrong.split()[0]}" in capsys.readouterr().err


def test_info_prints_the_receipt(codec, tmp_path, capsys):
    path = tmp_path / "a.sempic"
    path.write_bytes(codec.encode(IMAGE, labels=LABELS, check=True, check_budget=0))
    assert cli.main(["info", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "checked by 0badcafe: 0 of 1 kept, 1 lost, 0 invented" in shown
    assert "vehicles: 0 of 1 kept" in shown
    assert "people" not in shown


TABLE = {"what drives": {"classes": ["truck", "car"], "pixels": 200}, "who walks": ["person"]}


def test_a_table_of_groups_defines_the_receipt(codec, tmp_path, capsys):
    stream = codec.encode(IMAGE, labels=LABELS, check=True, check_budget=0, critical=TABLE)
    receipt = sempic.info(stream)["receipt"]
    assert list(receipt["groups"]) == ["what drives", "who walks"]
    there = {"seen": 1, "kept": 0, "lost": 1, "invented": 0}
    assert receipt["groups"]["what drives"] == receipt["all"] == there
    assert receipt["table"] == critical.table("critical", TABLE).digest
    assert sempic.unpack(stream).labels is not None
    path = tmp_path / "a.sempic"
    path.write_bytes(stream)
    assert cli.main(["info", str(path)]) == 0
    shown = capsys.readouterr().out
    assert f"checked by 0badcafe, groups of table {receipt['table']}: 0 of 1 kept" in shown
    assert "what drives: 0 of 1 kept, 1 lost" in shown


def test_only_objects_of_the_table_are_sent(codec):
    """The car is lost, but the tables ask for people, or for objects of half the picture."""
    for groups in ({"who walks": ["person"]}, {"cars": {"classes": ["car"], "share": 0.5}}):
        stream = codec.encode(IMAGE, labels=LABELS, check=True, check_budget=5.0, critical=groups)
        assert shown(stream) == []
        assert sempic.info(stream)["receipt"]["all"]["seen"] == 0
    stream = codec.encode(IMAGE, labels=LABELS, check=True, check_budget=5.0, critical=TABLE)
    assert shown(stream) == [CAR[1]]


def test_a_table_names_classes_of_the_verifiers_palette():
    toys = palette.own("toys", [("floor", (0, 0, 0)), ("brick", (200, 0, 0))])
    verifier = check.Verifier(
        predict=lambda image: ((sharp_car(image) == 8).astype(np.uint8), None),
        palette=toys.id,
        digest="0badcafe",
    )
    coder = sempic.Codec(FakeSegmenter(), Blurred(), verifier)
    options = {"labels": LABELS, "check": True, "check_budget": 0}
    stream = coder.encode(IMAGE, critical={"bricks": ["brick"]}, **options)
    assert sempic.info(stream)["receipt"]["groups"]["bricks"]["lost"] == 1
    with pytest.raises(InputError, match="critical: cars: class 'car' is not one of palette toys"):
        coder.encode(IMAGE, critical={"cars": ["car"]}, **options)
    for look in (lambda: coder.encode(IMAGE, **options), lambda: coder.objects(IMAGE, stream)):
        with pytest.raises(InputError, match="palette, toys, has no people"):
            look()  # a receipt of nothing would read as if all were kept
    unused = sempic.Codec(lambda image: pytest.fail("a segmenter ran"), Blurred(), verifier)
    with pytest.raises(InputError, match="critical: cars: class 'car'"):
        unused.encode(IMAGE, critical={"cars": ["car"]}, check=True)


def test_a_table_on_the_command_line(tmp_path, capsys, monkeypatch, codec):
    monkeypatch.setattr(work, "coder_with", lambda **_: codec)
    PIL.Image.fromarray(IMAGE).save(tmp_path / "a.png")
    table, picture = tmp_path / "mine.json", str(tmp_path / "a.png")
    table.write_text(json.dumps(TABLE))
    manifest = tmp_path / "manifest.jsonl"
    line = ["encode", picture, "--check", "--critical", str(table), "--manifest", str(manifest)]
    assert cli.main(line) == 0
    record = json.loads(manifest.read_text().splitlines()[1])
    assert list(record["receipt"]["groups"]) == ["what drives", "who walks"]
    (tmp_path / "a.sempic").unlink()
    capsys.readouterr()
    table.write_text(json.dumps(TABLE | {"ghosts": ["ghost"]}))
    assert cli.main(line) == 2
    assert "other settings, another critical; remove it" in capsys.readouterr().err
    table.write_text(json.dumps({"ghosts": ["ghost"]}))
    assert cli.main(line) == 2
    assert "other settings, critical [{'what drives': " in capsys.readouterr().err
    assert cli.main(line[:-2]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"sempic: {picture}: {table}: ghosts: class 'ghost' is not one of")
    assert said.count("\n") == 1
    assert not (tmp_path / "a.sempic").exists()
    assert cli.main(["encode", picture, "--critical", str(table)]) == 2
    assert capsys.readouterr().err == "sempic: --critical is for --check\n"
    with pytest.raises(InputError, match="critical needs check, which is off"):
        EncodeOptions(critical=TABLE)
    assert cli.main([*line[:-2], "-o", str(table)]) == 2
    assert "would replace" in capsys.readouterr().err
    assert table.read_text() == json.dumps({"ghosts": ["ghost"]})
    with pytest.raises(SystemExit):
        cli.main(["encode", picture, "--check", "--critical", str(tmp_path / "none.json")])
    assert f"{tmp_path / 'none.json'}: no table of groups" in capsys.readouterr().err


def test_the_check_decodes_with_the_given_receiver(tmp_path, monkeypatch, codec):
    given = {}
    monkeypatch.setattr(work, "coder_with", lambda **models: given.update(models) or codec)
    PIL.Image.fromarray(IMAGE).save(tmp_path / "a.png")
    line = ["encode", str(tmp_path / "a.png"), "--check", "--receiver", "mine.onnx"]
    assert cli.main(line) == 0
    assert given["receiver"] == "mine.onnx"


def test_a_receiver_that_cannot_paint_the_map_is_a_fault_of_the_check(codec):
    def refuses(scene):
        raise ModelError("this receiver knows no toys")

    coder = sempic.Codec(FakeSegmenter(), refuses, codec.verifier)
    with pytest.raises(ModelError, match="check: this receiver knows no toys"):
        coder.encode(IMAGE, labels=LABELS, check=True)


def test_the_verifier_sees_the_picture_that_is_decoded():
    """Windows of `keep` were blended twice, so that their borders faded less than decoded ones."""
    seen = []

    def predict(image):
        seen.append(image)
        return sharp_car(image), None

    verifier = check.Verifier(predict=predict, palette=CAMVID.id, digest="0badcafe")
    coder = sempic.Codec(FakeSegmenter(), Blurred(), verifier)
    for budget in (0, 5.0):
        options = {"keep_boxes": [(8, 8, 16, 16)], "check": True, "check_budget": budget}
        stream = coder.encode(IMAGE, labels=LABELS, **options)
        assert len(shown(stream)) == 1 + bool(budget)
        assert np.array_equal(seen[-1], np.asarray(coder.decode(stream)))


def test_synthesize_shows_windows_with_any_receiver(codec):
    scene = sempic.unpack(codec.encode(IMAGE, labels=LABELS, keep="car"))
    bare = sempic.Codec(FakeSegmenter(), lambda scene, **k: np.zeros((96, 128, 3), np.uint8))
    picture = bare.synthesize(scene)
    (window,) = scene.windows
    assert np.array_equal(picture[52:68, 68:92], window.picture[4:20, 4:28])
    assert windows.blend(np.zeros_like(IMAGE), scene.windows).sum() == picture.sum()
