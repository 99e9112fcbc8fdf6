import numpy as np
import PIL.Image
import pytest
from conftest import FakeReceiver, FakeSegmenter, needs_models, street

import sempic
from sempic import api
from sempic.errors import ImageError, InputError, LabelMapError, ModelError, RateError

IMAGE, LABELS = street(96, 128)


@pytest.fixture
def codec():
    return sempic.Codec(FakeSegmenter(), FakeReceiver())


def test_encode_finds_labels(codec):
    scene = sempic.unpack(codec.encode(IMAGE))
    assert np.array_equal(scene.labels, FakeSegmenter()(IMAGE))
    assert scene.coarse.y.shape == (24, 32)
    assert (scene.width, scene.height, scene.palette) == (128, 96, 1)


def test_given_labels_are_sent_bit_for_bit(codec):
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


def test_labels_that_do_not_fit(codec):
    with pytest.raises(LabelMapError, match="100×96"):
        codec.encode(IMAGE, labels=LABELS[:, :100])
    with pytest.raises(LabelMapError, match="id 12"):
        codec.encode(IMAGE, labels=np.full_like(LABELS, 12))
    with pytest.raises(ImageError):
        codec.encode(IMAGE[..., 0])


def test_the_dial_runs_from_small_to_large(codec):
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


def test_target_bpp_out_of_reach_names_what_is_in_reach(codec):
    least = min(sempic.info(codec.encode(IMAGE, quality=q))["bpp"] for q in sempic.QUALITY)
    with pytest.raises(RateError, match=f"{least:.4f} bpp"):
        codec.encode(IMAGE, target_bpp=0.001)


def test_max_side(codec):
    stream = codec.encode(IMAGE, labels=LABELS, max_side=64)
    assert (sempic.info(stream)["width"], sempic.info(stream)["height"]) == (64, 48)
    with pytest.raises(LabelMapError):  # judged at the size that was given
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


def test_only_given_wishes_reach_the_receiver(codec):
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
    with pytest.raises(InputError, match="2 samples"):
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
    assert info.pop("chunks").keys() == {"coarse", "labels"}
    assert info == {
        "version": 1,
        "width": 128,
        "height": 96,
        "palette": "camvid",
        "model": 0,
        "coarse_codec": "bpg",
        "bytes": len(stream),
        "bpp": 8 * len(stream) / (128 * 96),
        "overhead": 15,
    }


@pytest.mark.parametrize("spec", ["no/such.onnx", "hf:"])
def test_missing_models(spec):
    pytest.importorskip("sempic.segment")
    with pytest.raises(ModelError):
        sempic.Codec(segmenter=spec).encode(IMAGE)


@needs_models
def test_the_bundled_models_code_a_picture():
    stream = sempic.encode(IMAGE)
    a, b = (sempic.decode(stream, steps=2, seed=3) for _ in range(2))
    assert a.size == (128, 96)
    assert np.array_equal(np.array(a), np.array(b))


class Unsure:
    """A segmenter that knows the left half of a picture, and that as much as it is told."""

    palette = 2

    def __init__(self, left: int = 250) -> None:
        self.left = left

    def __call__(self, image):
        labels = np.zeros(image.shape[:2], np.uint8)
        labels[:, image.shape[1] // 2 :] = 8
        return labels

    def look(self, image):
        chances = np.full((19, *image.shape[:2]), 20, np.uint8)
        chances[0, :, : image.shape[1] // 2] = self.left
        return self(image), chances


def test_what_the_segmenter_does_not_know_is_sent_as_void():
    picture = np.full((32, 48, 3), 90, np.uint8)
    scene = sempic.unpack(sempic.Codec(segmenter=Unsure()).encode(picture))
    assert (scene.labels[:, :24] == 0).all()
    assert (scene.labels[:, 24:] == 19).all()


def test_a_picture_of_which_little_is_known_has_no_map():
    picture = np.full((32, 48, 3), 90, np.uint8)
    codec = sempic.Codec(segmenter=Unsure(left=20))
    assert sempic.unpack(codec.encode(picture)).labels is None
    whole = sempic.unpack(codec.encode(picture, label_quality="lossless"))
    assert set(np.unique(whole.labels)) == {0, 8}


def test_no_labels_when_asked():
    picture = np.full((32, 48, 3), 90, np.uint8)
    stream = sempic.Codec(segmenter=Unsure()).encode(picture, labels="none", max_side=24)
    scene = sempic.unpack(stream)
    assert scene.labels is None
    assert (scene.width, scene.height) == (24, 16)
    with pytest.raises(sempic.InputError, match="'nothing'"):
        sempic.encode(picture, labels="nothing")


def test_the_segmenter_map_in_another_palette():
    picture = np.full((32, 48, 3), 90, np.uint8)
    codec = sempic.Codec(segmenter=Unsure())
    scene = sempic.unpack(codec.encode(picture, palette="camvid"))
    assert scene.palette == 1
    assert (scene.labels[:, :24] == 3).all()
    assert (scene.labels[:, 24:] == 11).all()
    with pytest.raises(sempic.InputError, match="palette indices"):
        codec.encode(picture, palette="indices")
