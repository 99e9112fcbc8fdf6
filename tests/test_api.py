import copy
import dataclasses
import io
import math
import os
import pathlib
import pickle
import re

import numpy as np
import PIL.Image
import pytest
from conftest import FakeReceiver, FakeSegmenter, needs_models, street
from priors import write_prior

import sempic
from sempic import api, coarse, container, halving, jobs, pictures
from sempic import labels as coding
from sempic.codec import Draft
from sempic.errors import (
    ImageError,
    InputError,
    LabelMapError,
    ModelError,
    RateError,
    UnsupportedChunk,
)
from sempic.labels import own
from sempic.options import DecodeOptions
from sempic.palette import own as own_palette

IMAGE, LABELS = street(96, 128)
GREY = np.full((32, 48, 3), 90, np.uint8)


@pytest.fixture
def codec():
    return sempic.Codec(FakeSegmenter(), FakeReceiver())


def test_encode_segments_the_picture(codec):
    scene = sempic.unpack(codec.encode(IMAGE))
    assert np.array_equal(scene.labels, FakeSegmenter()(IMAGE))
    found, palette = codec.find_labels(IMAGE)
    assert np.array_equal(found, scene.labels)
    assert palette == scene.palette
    assert scene.coarse.y.shape == (24, 32)
    assert (scene.width, scene.height, scene.palette) == (128, 96, 1)


@pytest.mark.parametrize("options", [{}, {"palette": "cityscapes"}, {"coarse_codec": "webp"}])
def test_one_thread_makes_the_same_stream(codec, options, monkeypatch):
    calls, compute = [], Draft.with_features
    monkeypatch.setattr(Draft, "with_features", lambda it: calls.append(it) or compute(it))
    monkeypatch.delenv("SEMPIC_THREADS", raising=False)
    at_once = codec.encode(IMAGE, **options)
    assert len(calls) == 1
    monkeypatch.setenv("SEMPIC_THREADS", "1")
    assert codec.encode(IMAGE, **options) == at_once
    assert len(calls) == 1


def test_given_labels_are_sent_unchanged(codec):
    scene = sempic.unpack(codec.encode(PIL.Image.fromarray(IMAGE), labels=LABELS))
    assert np.array_equal(scene.labels, LABELS)
    assert codec.segmenter.calls == 0


def test_palettes(codec):
    for palette in (3, "cityscapes-labelids"):
        assert sempic.unpack(codec.encode(IMAGE, labels=LABELS, palette=palette)).palette == 3
    codec.segmenter.palette = 2
    assert sempic.unpack(codec.encode(IMAGE)).palette == 2
    assert sempic.unpack(codec.encode(IMAGE, labels=LABELS)).palette == 1
    with pytest.raises(InputError, match="nowhere"):
        codec.encode(IMAGE, labels=LABELS, palette="nowhere")


def test_labels_that_do_not_fit_are_refused(codec):
    with pytest.raises(LabelMapError, match="100×96"):
        codec.encode(IMAGE, labels=LABELS[:, :100])
    exif = PIL.Image.Exif()
    exif[0x112] = 6  # orientation: turned by 90°
    turned = io.BytesIO()
    PIL.Image.fromarray(IMAGE).save(turned, "png", exif=exif)
    turned = PIL.Image.open(turned)
    with pytest.raises(LabelMapError, match=r"is 128×96, the picture 96×128: .* turned upright"):
        codec.encode(turned, labels=LABELS)
    assert codec.encode(turned, labels=np.ascontiguousarray(LABELS.T))
    with pytest.raises(LabelMapError, match="id 12"):
        codec.encode(IMAGE, labels=np.full_like(LABELS, 12))
    with pytest.raises(ImageError):
        codec.encode(IMAGE[..., 0])


def test_higher_quality_takes_more_bytes(codec):
    sizes = [
        sempic.info(codec.encode(IMAGE, labels=LABELS, quality=q))["chunks"]["coarse"]
        for q in sempic.QUALITY
    ]
    assert list(sempic.QUALITY) == list(range(1, 10))
    assert sizes == sorted(sizes)
    assert sizes[-1] > 2 * sizes[0]
    for wrong in (0, 10):
        with pytest.raises(InputError, match="1…9"):
            codec.encode(IMAGE, quality=wrong)


def test_target_bpp_takes_the_best_level_that_fits(codec):
    streams = {q: codec.encode(IMAGE, quality=q) for q in sempic.QUALITY}
    codec.segmenter.calls = 0
    for q in (1, 4, 9):
        target = 8 * len(streams[q]) / (128 * 96)
        best = max(level for level, s in streams.items() if len(s) <= len(streams[q]))
        assert codec.encode(IMAGE, target_bpp=target) == streams[best]
    assert codec.segmenter.calls == 3


@pytest.mark.parametrize("width", [128, 124, 120, 116])
def test_an_unreachable_target_bpp_names_the_least_possible(codec, width):
    image = IMAGE[:, :width]
    least = min(sempic.info(codec.encode(image, quality=q))["bpp"] for q in sempic.QUALITY)
    rounded_up = f"{math.ceil(least * 1e4) / 1e4:.4f}"
    with pytest.raises(RateError, match=f"is {rounded_up} bpp; no label map"):
        codec.encode(image, target_bpp=0.001)
    assert codec.encode(image, target_bpp=float(rounded_up))


def test_a_target_is_met_by_a_finer_level_if_that_is_smaller(codec):
    y, x = np.mgrid[:61, :123]  # so soft that a coarse picture twice as wide costs fewer bytes
    waves = 128 + 100 * np.stack([np.sin(x / 9), np.sin(y / 9), np.cos(x / 11)], 2)
    soft = waves.astype(np.uint8)
    streams = [codec.encode(soft, labels="none", quality=q) for q in sempic.QUALITY]
    least = min(streams, key=len)
    assert len(least) < len(streams[0])
    assert codec.encode(soft, labels="none", target_bytes=len(least)) == least
    with pytest.raises(RateError, match=f"is {len(least)} bytes; a lower --max-side may"):
        codec.encode(soft, labels="none", target_bytes=len(least) - 1)


def test_target_bytes_takes_the_best_level_that_fits(codec):
    streams = {q: codec.encode(IMAGE, quality=q) for q in sempic.QUALITY}
    for q in (1, 4):
        best = max(level for level, s in streams.items() if len(s) <= len(streams[q]))
        assert codec.encode(IMAGE, target_bytes=len(streams[q])) == streams[best]
    least = min(map(len, streams.values()))
    with pytest.raises(
        RateError, match=f"^12 bytes cannot .* is {least} bytes; no label map .* or"
    ):
        codec.encode(IMAGE, target_bytes=12)
    with pytest.raises(RateError, match="bytes; less to keep, a higher --window-qp, or no label"):
        codec.encode(IMAGE, target_bytes=12, keep_boxes=[(0, 0, 8, 8)])
    with pytest.raises(RateError, match="bytes; a lower --max-side may"):  # kept classes need a map
        codec.encode(IMAGE, target_bytes=12, keep=["car"])
    most = max(map(len, streams.values()))
    with pytest.warns(sempic.SempicWarning, match=f"takes {most} bytes of the 90000 given"):
        codec.encode(IMAGE, target_bytes=90000)


def test_max_side(codec):
    stream = codec.encode(IMAGE, labels=LABELS, max_side=64)
    assert (sempic.info(stream)["width"], sempic.info(stream)["height"]) == (64, 48)
    with pytest.raises(LabelMapError):  # checked before shrinking
        codec.encode(IMAGE, labels=LABELS[::2, ::2], max_side=64)


@pytest.mark.parametrize("size", [(1, 1), (3, 5000), (5000, 3), (2, 1), (17, 9)])
@pytest.mark.parametrize("quality", [1, 5, 9])
def test_odd_sizes(codec, size, quality):
    width, height = size
    image = np.full((height, width, 3), 90, np.uint8)
    stream = codec.encode(image, quality=quality)
    assert codec.decode(stream).size == size


def test_decode_passes_steps_and_seed(codec):
    picture = codec.decode(codec.encode(IMAGE, labels=LABELS), steps=2, seed=7)
    assert isinstance(picture, PIL.Image.Image)
    pixels = np.array(picture)
    assert np.array_equal(pixels[..., 0], LABELS)
    assert pixels[0, 0, 1:].tolist() == [2, 7]
    with pytest.raises(InputError, match="steps"):
        codec.decode(codec.encode(IMAGE), steps=0)


def test_only_given_controls_reach_the_receiver(codec):
    stream = codec.encode(IMAGE, labels=LABELS)
    codec.decode(stream)
    assert codec.receiver.wishes == {}
    codec.decode(stream, guidance=1.5, fidelity=0.25)
    assert codec.receiver.wishes == {"guidance": 1.5, "fidelity": 0.25}


def test_uncertainty_is_the_spread_over_seeds(codec):
    scene = sempic.unpack(codec.encode(IMAGE, labels=LABELS))
    spread = codec.uncertainty(scene, samples=3, seed=10)  # blue is the seed: 10, 11, 12
    assert spread.shape == (96, 128)
    np.testing.assert_allclose(spread, np.sqrt(1 / 3), rtol=1e-6)
    seeds = []
    counting = sempic.Codec(receiver=lambda scene, seed: seeds.append(seed) or black(scene))
    counting.uncertainty(scene, samples=2, seed=np.uint8(255))
    assert seeds == [255, 256]
    with pytest.raises(InputError, match="samples must be 2 or more"):
        codec.uncertainty(scene, samples=1)


def test_preview(codec):
    scene = sempic.unpack(codec.encode(IMAGE))
    preview = api.preview(scene)
    assert preview.shape == IMAGE.shape
    error = np.abs(preview.astype(float) - IMAGE).mean()
    assert error < np.abs(IMAGE.mean((0, 1)) - IMAGE).mean() / 2
    with pytest.raises(sempic.BitstreamError, match="no coarse"):
        api.preview(sempic.unpack(codec.encode(IMAGE), only="labels"))


def test_info(codec):
    stream = codec.encode(IMAGE, labels=LABELS)
    info = sempic.info(stream)
    assert info.pop("chunks").keys() == {"coarse", "labels", "texture"}
    assert info == {
        "version": 1,
        "width": 128,
        "height": 96,
        "palette": "camvid",
        "model": 0,
        "coarse_codec": "bpg",
        "bytes": len(stream),
        "bpp": 8 * len(stream) / (128 * 96),
        "overhead": 16,
        "windows": [],
        "receipt": None,
    }


@pytest.mark.parametrize("spec", ["no/such.onnx", "hf:"])
def test_missing_models_are_refused(spec):
    with pytest.raises(ModelError, match=f"^{spec}"):
        sempic.Codec(segmenter=spec).encode(IMAGE)


@needs_models
def test_the_bundled_models_code_a_picture():
    with pytest.warns(
        sempic.SempicWarning, match="the segmenter is [0-9]+% sure"
    ):  # it is a drawing
        stream = sempic.encode(IMAGE)
    a, b = (sempic.decode(stream, steps=2, seed=3) for _ in range(2))
    assert a.size == (128, 96)
    assert np.array_equal(np.array(a), np.array(b))


class Unsure:
    """A segmenter that is sure of five sixths of a picture, with probability `left` / 255."""

    palette = 2

    def __init__(self, left: int = 250, voids: bool = True) -> None:
        self.left, self.voids = left, voids

    def __call__(self, image):
        labels = np.zeros(image.shape[:2], np.uint8)
        labels[:, 5 * image.shape[1] // 6 :] = 8
        return labels

    def predict(self, image):
        probabilities = np.full((19, *image.shape[:2]), 4, np.uint8)
        probabilities[8] = 20
        probabilities[0, :, : 5 * image.shape[1] // 6] = self.left
        return self(image), probabilities


def test_unsure_regions_are_sent_as_void():
    scene = sempic.unpack(sempic.Codec(segmenter=Unsure()).encode(GREY))
    assert (scene.labels[:, :40] == 0).all()
    assert (scene.labels[:, 40:] == 19).all()
    all_of_it = sempic.Codec(segmenter=Unsure(voids=False)).encode(GREY)
    assert (sempic.unpack(all_of_it).labels[:, 40:] == 8).all()


def test_no_map_is_sent_if_most_pixels_are_unknown():
    codec = sempic.Codec(segmenter=Unsure(left=20))
    with pytest.warns(sempic.SempicWarning, match="sent without a label map: .* knows 0%"):
        stream = codec.encode(GREY)
    assert sempic.unpack(stream).labels is None
    whole = sempic.unpack(codec.encode(GREY, label_quality="lossless"))
    assert set(np.unique(whole.labels)) == {0, 8}


def test_no_map_is_sent_if_the_segmenter_is_unsure():
    codec = sempic.Codec(
        segmenter=Unsure(left=200)
    )  # sure of each known region, but only of 67 % overall
    with pytest.warns(sempic.SempicWarning, match="sent without a label map: .* is 67% sure"):
        assert sempic.unpack(codec.encode(GREY)).labels is None
    uncalibrated = sempic.Codec(segmenter=Unsure(left=200, voids=False))
    assert sempic.unpack(uncalibrated.encode(GREY)).labels is not None


@pytest.mark.parametrize(
    "options", [{}, {"label_quality": "lossless"}, {"labels": LABELS}, {"labels": "none"}]
)
def test_importance_of_an_unknown_class_is_refused_also_where_it_has_no_effect(options):
    codec = sempic.Codec(segmenter=Unsure(left=20))  # no map is sent
    with pytest.raises(InputError, match=r"importance: class 'dragon' is not one of palette c"):
        codec.encode(IMAGE, importance={"dragon": 2}, **options)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"label_quality": "lossless"}, "the label map is sent lossless"),
        ({"labels": LABELS}, "the label map is sent lossless"),
        ({"labels": "none"}, "no label map is sent"),
    ],
)
def test_importance_without_effect_is_said(codec, options, why):
    with pytest.warns(sempic.SempicWarning, match=f"importance has no effect: {why}"):
        stream = codec.encode(IMAGE, importance={"pole": 3}, **options)
    assert stream == codec.encode(IMAGE, **options)


@pytest.mark.parametrize(
    "options", [{"label_quality": 2}, {"label_quality": "lossless"}, {"ignore_label": 0}]
)
def test_options_of_the_map_without_effect_are_said(codec, options):
    (name,) = options
    words = name.replace("_", " ")
    with pytest.warns(sempic.SempicWarning, match=f"{words} has no effect: no label map is sent"):
        stream = codec.encode(IMAGE, labels="none", **options)
    assert stream == codec.encode(IMAGE, labels="none")


def test_a_path_in_place_of_a_picture_is_said(codec):
    for path in ("a.png", pathlib.Path("a.png")):
        with pytest.raises(
            ImageError, match=r"a PIL image \(PIL\.Image\.open\) or a uint8 array, not "
        ):
            codec.encode(path)


def test_an_ignore_label_that_no_segmenter_gives_is_said(codec):
    with pytest.warns(sempic.SempicWarning, match="ignore label has no effect: 200 is no id of"):
        stream = codec.encode(IMAGE, ignore_label=200)
    assert stream == codec.encode(IMAGE)
    unsure = sempic.Codec(lambda image: np.where(LABELS == 3, 200, LABELS).astype(np.uint8))
    sent = sempic.unpack(unsure.encode(IMAGE, ignore_label=200, label_quality="lossless"))
    assert np.array_equal(sent.labels == 11, LABELS == 3)
    codec.encode(IMAGE, ignore_label=3)  # no warning, whether the map has it or not


@pytest.mark.parametrize("quality", [1, 5, "lossless"])
def test_an_ignored_class_is_void_whatever_its_probability(quality):
    """The map of least risk had people and vehicles again, also in place of other classes."""

    class Risky(Unsure):
        def __call__(self, image):
            labels = super().__call__(image)
            labels[4:12, 4:12] = 11
            return labels

        def predict(self, image):
            labels, probabilities = super().predict(image)
            probabilities[:, 4:12, 4:12] = 4
            probabilities[11, 4:12, 4:12] = 180
            return labels, probabilities

    coder = sempic.Codec(Risky())
    whole = sempic.unpack(coder.encode(GREY, label_quality=quality)).labels
    for number in (0, 11):
        sent = sempic.unpack(coder.encode(GREY, label_quality=quality, ignore_label=number)).labels
        assert np.array_equal(sent, np.where(whole == number, 19, whole))


def test_a_map_of_one_class_is_not_sent():
    class Sure(Unsure):
        def __call__(self, image):
            return np.zeros(image.shape[:2], np.uint8)

        def predict(self, image):
            return self(image), np.full((19, *image.shape[:2]), 250, np.uint8)

    codec = sempic.Codec(segmenter=Sure())
    assert sempic.unpack(codec.encode(GREY)).labels is None
    assert (sempic.unpack(codec.encode(GREY, label_quality="lossless")).labels == 0).all()


def test_soft_large_pictures_are_labelled_at_half_their_size():
    sharp, labels = street(421, 500)
    soft = np.asarray(PIL.Image.fromarray(sharp).reduce(4).resize((500, 421)))
    sizes = []

    def segmenter(image):
        sizes.append(image.shape[:2])
        step = 500 // image.shape[1]
        return np.ascontiguousarray(labels[::step, ::step])

    codec = sempic.Codec(segmenter, FakeReceiver())
    scene = sempic.unpack(codec.encode(soft))
    assert scene.halved
    assert sizes == [(211, 250)]
    assert scene.labels.shape == (421, 500)
    assert scene.coarse.y.shape == (106, 125)  # of the whole picture
    for picture, options in (
        (sharp, {}),
        (soft, {"label_quality": "lossless"}),
        (soft, {"labels": labels}),
        (soft, {"labels": "none"}),
    ):
        assert not sempic.unpack(codec.encode(picture, **options)).halved
    assert sizes[1:] == [(421, 500)] * 2


def test_sharp_pictures_have_maps_of_half_their_size():
    picture, labels = street(96, 127)

    class Sure:
        palette, voids = sempic.palette.CITYSCAPES.id, True

        def __call__(self, image):
            return labels

        def predict(self, image):
            return labels, (np.arange(20)[:, None, None] == labels) * np.uint8(255)

    receiver = FakeReceiver()
    codec = sempic.Codec(Sure(), receiver)
    scene = sempic.unpack(codec.encode(picture))
    assert (scene.doubled, scene.halved) == (True, False)
    assert scene.labels.shape == labels.shape
    assert (scene.labels == labels).mean() > 0.95
    assert np.array_equal(codec.find_labels(picture)[0], scene.labels)
    assert codec.synthesize(scene).shape == picture.shape
    for options in ({"label_quality": "lossless"}, {"labels": labels, "palette": 2}):
        exact = sempic.unpack(codec.encode(picture, **options))
        assert not exact.doubled
        assert np.array_equal(exact.labels, labels)
    unsure = sempic.Codec(lambda image: LABELS, receiver)  # tells no probabilities
    assert not sempic.unpack(unsure.encode(IMAGE)).doubled


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": LABELS[:, :100]}, "is 100×96, the picture 128×96"),
        ({"labels": LABELS.astype(int)}, r"is uint8 \(height, width\), not "),
        ({"labels": LABELS + np.uint8(12)}, "palette camvid ends at 11"),
        ({"palette": 77}, "palette 77 is not one of"),
    ],
)
def test_a_changed_map_that_does_not_fit_its_scene_is_refused(changes, said, codec):
    scene = dataclasses.replace(sempic.unpack(codec.encode(IMAGE)), **changes)
    with pytest.raises(LabelMapError, match=said):
        codec.synthesize(scene)


@pytest.mark.parametrize("factor", [4, 8])
@pytest.mark.parametrize("size", [(3, 50), (33, 17), (96, 128)])
def test_halved_scenes_are_painted_at_half_their_size(size, factor):
    """Any receiver paints half the size; the result is enlarged."""
    asked = []

    def receiver(scene):
        asked.append(scene)
        return street(scene.height, scene.width)[0]

    height, width = size
    picture, labels = street(*size)
    labels = labels[::2, ::2].repeat(2, 0)[:height].repeat(2, 1)[:, :width]
    small = coarse.encode(coarse.downscale(picture, factor), quality=30)
    stream = sempic.pack(width=width, height=height, labels=labels, coarse=small, halved=True)
    shown = np.asarray(sempic.Codec(receiver=receiver).decode(stream))
    (half,) = asked
    assert not half.halved
    assert (half.width, half.height) == (-(-width // 2), -(-height // 2))
    assert np.array_equal(half.labels, labels[::2, ::2])
    assert coarse.factor(half.width, half.height, *half.coarse.y.shape[::-1]) == factor // 2
    assert np.array_equal(shown, halving.enlarged(receiver(half))[:height, :width])


def test_without_a_map_the_coarse_picture_is_finer(codec):
    sizes = {
        labels is None: [
            sempic.info(codec.encode(IMAGE, labels=labels, quality=q))["chunks"]["coarse"]
            for q in (4, 5, 6)
        ]
        for labels in (None, "none")
    }
    assert sizes[False][:2] == sizes[True][1:]  # three steps of QP are one level


def test_no_map_is_sent_on_request():
    stream = sempic.Codec(segmenter=Unsure()).encode(GREY, labels="none", max_side=24)
    scene = sempic.unpack(stream)
    assert scene.labels is None
    assert (scene.width, scene.height) == (24, 16)
    with pytest.raises(sempic.InputError, match="'nothing'"):
        sempic.encode(GREY, labels="nothing")


def test_the_segmenters_map_is_converted_to_the_palette():
    codec = sempic.Codec(segmenter=Unsure())
    scene = sempic.unpack(codec.encode(GREY, palette="camvid"))
    assert scene.palette == 1
    assert (scene.labels[:, :40] == 3).all()
    assert (scene.labels[:, 40:] == 11).all()
    with pytest.raises(sempic.InputError, match="palette indices"):
        codec.encode(GREY, palette="indices")


# ── checks of arguments ─────────────────────────────────────────────────────

STREAM = sempic.pack(width=128, height=96, labels=LABELS)


@pytest.mark.parametrize("read", [sempic.decode, sempic.info, sempic.unpack, container.read])
@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("photo.sempic", r"str; open\(path, 'rb'\)\.read\(\) gives them"),
        (pathlib.Path("photo.sempic"), r"\w+Path; open\(path, 'rb'\)\.read\(\) gives them"),
        (None, "NoneType"),
        (np.frombuffer(STREAM, np.uint8), r"ndarray; array\.tobytes\(\) gives them"),
        (np.zeros(0, np.uint8), r"ndarray; array\.tobytes\(\) gives them"),
        (io.BytesIO(STREAM), r"BytesIO; file\.read\(\) gives them"),
        (list(STREAM), "list"),
        (7, "int"),
    ],
)
def test_streams_must_be_bytes(read, given, hint):
    with pytest.raises(sempic.SempicError, match=f"^a stream is bytes, not {hint}$"):
        read(given)


def named(option):
    """A pattern of an option's name in an error."""
    return option.rstrip("s").replace("_", "[_ ]")


def test_bytearray_and_memoryview_are_streams():
    for kind in (bytearray, memoryview):
        assert sempic.info(kind(STREAM)) == sempic.info(STREAM)
        assert np.array_equal(sempic.unpack(kind(STREAM)).labels, LABELS)


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, "3", [], True, 10**400, 1j],
    ids=lambda v: repr(v)[:5],
)
@pytest.mark.parametrize(
    "name", ["quality", "max_side", "target_bpp", "target_bytes", "label_quality", "palette"]
)
def test_encode_options_of_wrong_type_or_range_are_refused(codec, name, value):
    with pytest.raises(InputError, match=f"^{name} "):
        codec.encode(IMAGE, labels=LABELS, **{name: value})


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 4.5},
        {"quality": None},
        {"max_side": 0},
        {"max_side": 50.0},
        {"target_bpp": 0},
        {"target_bpp": -1},
        {"target_bytes": 0},
        {"target_bytes": 100.5},
        {"target_bytes": 100, "target_bpp": 1},
        {"label_quality": "best"},
        {"label_quality": 6},
        {"label_quality": 3, "importance": {"car": math.nan}},
        {"label_quality": 3, "importance": {"car": "much"}},
        {"label_quality": 3, "importance": {"car": 10**400}},
        {"label_quality": 3, "importance": {"car": True}},
        {"label_quality": 3, "importance": {7: 1.0}},
        {"importance": ["car"]},
        {"coarse_codec": None},
        {"coarse_codec": ["bpg"]},
        {"palette": ["camvid"]},
        {"palette": 14},
        {"ignore_label": 256},
        {"ignore_label": "void"},
        {"ignore_label": 3, "palette": "indices"},
        {"labels": LABELS.astype(int)},
        {"labels": LABELS.tolist()},
        {"labels": "map.png"},
        {"keep": 5},
        {"keep_boxes": [(True, 0, 8, 8)]},
        {"max_side": 64, "keep_boxes": [(0, 0, 10**400, 8)]},
        {"keep_boxes": [(0, 0, 10**5000, 8)]},
        {"check": "yes"},
        {"check": 1},
    ],
)
def test_invalid_encode_options_are_refused(codec, options):
    """By the name of the last."""
    with pytest.raises(InputError, match=named(list(options)[-1])):
        codec.encode(IMAGE, **{"labels": LABELS, **options})


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"steps": 1.5},
        {"steps": "1"},
        {"steps": True},
        {"seed": -1},
        {"seed": None},
        {"seed": 0.5},
        {"guidance": math.nan},
        {"guidance": math.inf},
        {"guidance": "2"},
        {"fidelity": math.nan},
        {"fidelity": -0.1},
        {"fidelity": 1.1},
    ],
)
def test_invalid_decode_options_are_refused(codec, options):
    (name,) = options
    with pytest.raises(InputError, match=f"^{name} "):
        codec.decode(STREAM, **options)
    with pytest.raises(InputError, match=f"^{name} "):
        codec.synthesize(sempic.unpack(STREAM), **options)


def test_options_of_decode_are_checked_once(codec, monkeypatch):
    checked = []
    check = DecodeOptions.__post_init__
    monkeypatch.setattr(
        DecodeOptions, "__post_init__", lambda self: checked.append(self) or check(self)
    )
    codec.decode(STREAM, seed=3)
    assert [options.seed for options in checked] == [3]


SCENE = sempic.unpack(STREAM)
MASKED = np.ma.masked_equal(LABELS, LABELS[0, 0])


@pytest.mark.parametrize(
    "call",
    [
        lambda codec: codec.synthesize(STREAM),
        lambda codec: codec.uncertainty(STREAM),
        lambda _: sempic.PALETTES[1].paint(np.full((2, 2), 200, np.uint8)),
        lambda codec: codec.uncertainty(SCENE, samples=2.5),
        lambda codec: codec.uncertainty(SCENE, samples=1),
        lambda codec: codec.uncertainty(SCENE, seed="1"),
        lambda codec: codec.uncertainty(SCENE, seed=True),
        lambda _: sempic.unpack(STREAM, only="pixels"),
        lambda _: sempic.unpack(STREAM, max_pixels="all"),
        lambda _: sempic.pack(width=8.0, height=8, labels=np.zeros((8, 8), np.uint8)),
        lambda _: sempic.pack(width="8", height=8, coarse=b"x"),
        lambda _: sempic.pack(width=8, height=8, coarse="x"),
        lambda _: sempic.pack(width=128, height=96, labels=LABELS, receipt="x"),
        lambda _: sempic.pack(width=128, height=96, labels=LABELS, texture=[1]),
        lambda _: sempic.pack(width=128, height=96, labels=LABELS, texture={"road": (1, 2)}),
        lambda _: sempic.pack(width=128, height=96, labels=LABELS, texture={1: (1.0, 2.0)}),
        lambda _: sempic.pack(width=8, height=8, coarse=b"x", model=None),
        lambda _: sempic.pack(width=8, height=8, coarse=b"x", palette="camvid"),
        lambda codec: codec.encode(IMAGE, labels=MASKED),
        lambda codec: codec.encode(np.ma.masked_equal(IMAGE, 0)),
        lambda _: sempic.pack(width=128, height=96, labels=MASKED),
        lambda _: coarse.encode(np.ma.masked_equal(IMAGE, 0)),
        lambda _: coding.encode(MASKED),
        lambda _: sempic.Codec(segmenter=7),
        lambda _: sempic.Codec(receiver=b"net.onnx"),
        lambda _: sempic.Codec(segmenter=""),
        lambda _: sempic.Codec(verifier=5),
        lambda _: sempic.Codec(verifier=FakeSegmenter()),
        lambda _: sempic.Codec(prior=b"p.npz"),
        lambda _: sempic.Codec(prior=""),
        lambda _: sempic.Codec.from_pretrained(None),
        lambda _: sempic.Codec.from_pretrained(""),
        lambda codec: codec.save_pretrained(None),
        lambda _: pictures.read("photo.png"),
        lambda _: pictures.read_labels(None),
        lambda _: pictures.encode(None, ".png"),
        lambda _: pictures.encode(IMAGE.astype(float), ".png"),
        lambda _: pictures.encode(np.zeros((8, 8, 6), np.uint8), ".png"),
        lambda _: pictures.encode(np.zeros((8, 8, 2), np.uint8), ".png"),
        lambda _: pictures.encode(np.zeros((0, 8, 3), np.uint8), ".webp"),
        lambda _: pictures.decode(IMAGE),
        lambda _: pictures.palette_of(IMAGE),
        lambda _: pictures.shrink(None, None, 3),
        lambda _: pictures.shrink(IMAGE, None, "3"),
        lambda _: api.preview(STREAM),
        lambda _: coarse.encode(IMAGE.tolist()),
        lambda _: coarse.encode(IMAGE, codec=None),
        lambda _: coarse.encode(IMAGE, quality="35"),
        lambda _: coarse.encode(IMAGE, quality=float("nan")),
        lambda _: coarse.decode("x"),
        lambda _: coarse.open(None),
        lambda _: coding.encode(LABELS.tolist()),
        lambda _: coding.decode("x", 3, 3),
    ],
)
def test_other_invalid_arguments_are_refused(codec, call):
    with pytest.raises(sempic.SempicError):
        call(codec)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        np.zeros((96, 128)),
        np.zeros((96, 128), np.int64),
        np.zeros((96, 127), np.uint8),
        np.zeros((128, 96), np.uint8),
        np.zeros((1, 96, 128), np.uint8),
        np.full((96, 128), 12, np.uint8),
        np.full((96, 128), 254, np.uint8),
        [[0] * 128] * 96,
    ],
)
def test_segmenters_must_return_label_maps(answer):
    with pytest.raises(ModelError, match="segmenter"):
        sempic.Codec(segmenter=lambda image: answer).encode(IMAGE)
    looks = FakeSegmenter()
    looks.predict = lambda image: (answer, None)
    with pytest.raises(ModelError, match="segmenter"):
        sempic.Codec(segmenter=looks).encode(IMAGE)


def test_segmenters_with_false_palettes_or_probabilities_are_refused():
    for palette in (99, "camvid", None):
        segmenter = FakeSegmenter()
        segmenter.palette = palette
        with pytest.raises(ModelError, match="palette"):
            sempic.Codec(segmenter=segmenter).encode(IMAGE)
    for probabilities in (
        np.zeros((12, 96, 128)),
        np.zeros((96, 128), np.uint8),
        np.zeros((0, 96, 128), np.uint8),
        "sure",
    ):
        segmenter = FakeSegmenter()
        segmenter.predict = lambda image, probabilities=probabilities: (LABELS, probabilities)
        with pytest.raises(ModelError, match="probabilities"):
            sempic.Codec(segmenter=segmenter).encode(IMAGE)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        np.zeros((3, 3), np.uint8),
        np.zeros((96, 128), np.uint8),
        np.zeros((96, 128, 4), np.uint8),
        np.zeros((128, 96, 3), np.uint8),
        np.zeros((96, 128, 3)),
        PIL.Image.new("RGB", (128, 96)),
    ],
)
def test_receivers_must_return_pictures(answer):
    with pytest.raises(ModelError, match="receiver"):
        sempic.Codec(receiver=lambda scene, **controls: answer).decode(STREAM)


WITH_255 = np.where(np.eye(96, 128, dtype=bool), 255, LABELS).astype(np.uint8)


@pytest.mark.parametrize(
    ("palette", "void"),
    [("camvid", 11), ("cityscapes", 19), ("cityscapes-labelids", 34), ("eleven", 11)],
)
def test_255_means_void_unless_the_palette_has_it(codec, palette, void):
    own_palette("eleven", [(name, (0, 0, 0)) for name in "abcdefghijk"])
    given = WITH_255.copy()
    scene = sempic.unpack(codec.encode(IMAGE, labels=given, palette=palette))
    assert np.array_equal(scene.labels, np.where(WITH_255 == 255, void, LABELS))
    assert np.array_equal(given, WITH_255)


def test_255_of_a_segmenter_means_void():
    given = WITH_255.copy()
    codec = sempic.Codec(lambda image: given)
    scene = sempic.unpack(codec.encode(IMAGE, label_quality="lossless"))
    assert np.array_equal(scene.labels, np.where(WITH_255 == 255, 11, LABELS))
    assert np.array_equal(given, WITH_255)


def test_ignore_label_names_the_id_of_void(codec):
    labels = np.where(np.eye(96, 128, dtype=bool), 200, LABELS).astype(np.uint8)
    with pytest.raises(LabelMapError, match="void is 11"):
        codec.encode(IMAGE, labels=labels)
    scene = sempic.unpack(codec.encode(IMAGE, labels=labels, ignore_label=200))
    assert np.array_equal(scene.labels, np.where(labels == 200, 11, labels))
    indices = sempic.unpack(codec.encode(IMAGE, labels=labels, palette="indices")).labels
    assert np.array_equal(indices, labels)


@pytest.mark.parametrize("kind", [np.asarray, PIL.Image.fromarray])
@pytest.mark.parametrize("turned", [False, True])
def test_sides_beyond_the_limit_are_refused_before_segmentation(codec, kind, turned, monkeypatch):
    image = np.zeros((2, 17000, 3), np.uint8)
    image = np.ascontiguousarray(image.swapaxes(0, 1)) if turned else image
    with pytest.raises(ImageError, match="side may have 16384 pixels; max_side 16384"):
        codec.encode(kind(image))
    assert codec.segmenter.calls == 0
    assert sempic.info(codec.encode(kind(image), quality=1))["bytes"] > 0
    with pytest.warns(
        sempic.SempicWarning, match="quality 1, the finest"
    ):  # the finest for such sides
        assert sempic.info(codec.encode(kind(image), target_bpp=50.0))["bytes"] > 0
    assert (
        max(sempic.info(codec.encode(kind(image), max_side=16384))[k] for k in ("width", "height"))
        == 16384
    )
    with pytest.raises(ImageError, match="side may have 32768 pixels"):
        codec.encode(kind(np.zeros((1, 40000, 3), np.uint8)), quality=1)


def nothing(image):
    return np.zeros(image.shape[:2], np.uint8)


def black(scene, **controls):
    return np.zeros((scene.height, scene.width, 3), np.uint8)


class Named(sempic.Codec):
    def __init__(self, *models):
        super().__init__(*models)
        self.name = "mine"


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))]
)
def test_new_and_used_codecs_can_be_copied_and_pickled(duplicate):
    codec = sempic.Codec(nothing, black)
    stream = duplicate(codec).encode(IMAGE)
    assert codec.encode(IMAGE) == stream
    codec.decode(stream)
    assert duplicate(codec).encode(IMAGE) == stream
    assert duplicate(duplicate(codec)).decode(stream).size == (128, 96)
    assert duplicate(Named(nothing, black)).name == "mine"


def test_a_custom_prior(tmp_path):
    path = write_prior(tmp_path / "mine.npz", sempic.PALETTES[1], LABELS)
    for given in (path, str(path), own.load(path)):
        codec = sempic.Codec(FakeSegmenter(), FakeReceiver(), prior=given)
        stream = codec.encode(IMAGE, labels=LABELS)
        assert len(stream) < len(sempic.Codec().encode(IMAGE, labels=LABELS))
        again = pickle.loads(pickle.dumps(codec))
        assert np.array_equal(np.asarray(again.decode(stream))[..., 0], LABELS)
        with pytest.raises(UnsupportedChunk, match=f"begins with {codec.prior.digest}"):
            sempic.Codec(receiver=FakeReceiver()).decode(stream)
    shares = sempic.info(stream, shares=True, prior=codec.prior)["classes"]
    assert sum(shares.values()) == pytest.approx(1)
    with pytest.warns(sempic.SempicWarning, match="of palette camvid: a map of indices is coded"):
        other = codec.encode(IMAGE, labels=LABELS, palette="indices")
    assert other == sempic.Codec().encode(IMAGE, labels=LABELS, palette="indices")
    assert codec.encode(IMAGE, labels="none") == sempic.Codec().encode(IMAGE, labels="none")


def test_invalid_priors_are_refused(tmp_path):
    with pytest.raises(ModelError, match="absent"):
        sempic.Codec(nothing, prior=tmp_path / "absent.npz").encode(IMAGE)
    with pytest.raises(InputError, match="prior is a name or a path, not int"):
        sempic.Codec(nothing, prior=3)


@needs_models
@pytest.mark.filterwarnings("ignore:sent without a label map")  # it is a drawing
def test_used_networks_can_be_pickled():
    codec = sempic.Codec()
    stream = codec.encode(IMAGE)
    first = np.asarray(codec.decode(stream))
    for again in (pickle.loads(pickle.dumps(codec)), copy.deepcopy(codec)):
        assert np.array_equal(np.asarray(again.decode(stream)), first)
    for part in (codec.segmenter, codec.receiver):
        assert type(pickle.loads(pickle.dumps(part))) is type(part)


def test_results_can_be_copied_and_pickled():
    scene = sempic.unpack(sempic.Codec(nothing).encode(IMAGE))
    for value in (scene, scene.coarse, sempic.PALETTES[1], sempic.QUALITY[5]):
        again = pickle.loads(pickle.dumps(value))
        assert type(copy.deepcopy(value)) is type(again) is type(value)
    assert np.array_equal(pickle.loads(pickle.dumps(scene)).labels, scene.labels)
    job = jobs.Job(source=None, relative=pathlib.Path("a"), target=None, mkdir=False)
    assert pickle.loads(pickle.dumps(job)) == job
    error = sempic.CorruptStream("why")
    assert str(pickle.loads(pickle.dumps(error))) == "why"


class BytesPath:
    """As an entry of `os.scandir(b".")`."""

    def __init__(self, path):
        self._path = os.fsencode(path)

    def __fspath__(self):
        return self._path


def test_paths_of_networks_may_be_any_path_object(tmp_path):
    with pytest.raises(ModelError, match=re.escape(f"{tmp_path}/none: no such model")):
        _ = sempic.Codec(segmenter=BytesPath(tmp_path / "none")).segmenter
    for name in ("net.onnx", "other.onnx"):
        (tmp_path / name).write_bytes(b"")
    for entry in os.scandir(tmp_path):
        with pytest.raises(ModelError, match=re.escape(f"{entry.path}: not a usable ONNX model")):
            _ = sempic.Codec(segmenter=entry).segmenter
        with pytest.raises(ModelError, match=re.escape(f"{entry.path}: not a usable ONNX model")):
            _ = sempic.Codec(receiver=entry).receiver
