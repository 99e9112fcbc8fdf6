"""The interfaces of networks, and functions in their place."""

import numpy as np
import pytest
from conftest import FakeReceiver, FakeSegmenter, street

import sempic
from sempic import receive, roles, segment
from sempic.check import Verifier
from sempic.fields import of
from sempic.options import DecodeOptions
from sempic.palette import CITYSCAPES

IMAGE, LABELS = street(48, 64)
STREAM = sempic.pack(width=64, height=48, labels=LABELS)


def picture(scene):
    return np.zeros((scene.height, scene.width, 3), np.uint8)


def test_controls_are_the_options_of_decoding():
    assert set(roles.CONTROLS) == set(of(DecodeOptions))


def test_networks_with_the_interface_are_used_as_they_are():
    for kind in (segment.Segmenter, segment.HubSegmenter):
        assert callable(kind.predict)
    assert roles.as_segmenter(given := FakeSegmenter()) is given
    assert roles.as_receiver(given := FakeReceiver()) is given


def test_a_function_receives_the_controls_it_accepts():
    def receiver(scene, *, seed=0, fidelity=0.0, loud=False):
        return picture(scene)

    assert roles.as_receiver(picture).controls == frozenset()
    assert roles.as_receiver(receiver).controls == {"seed", "fidelity"}
    assert roles.as_receiver(lambda scene, **rest: None).controls == set(roles.CONTROLS)
    assert roles.as_receiver(lambda scene, seed=0, /: None).controls == frozenset()
    assert roles.as_receiver(dict).controls == frozenset()  # in C, without a signature
    segmenter = roles.as_segmenter(lambda image: image[..., 0])
    assert (segmenter.palette, segmenter.voids) == (1, False)
    assert segmenter.predict(IMAGE)[1] is None


def test_a_function_keeps_the_attributes_of_the_interface_that_it_has():
    def segmenter(image):
        return np.full(image.shape[:2], 18, np.uint8)  # of Cityscapes; CamVid has no 18

    segmenter.palette = CITYSCAPES.id
    codec = sempic.Codec(segmenter)
    assert sempic.unpack(codec.encode(IMAGE, label_quality="lossless")).palette == CITYSCAPES.id
    segmenter.voids = True
    segmenter.predict = lambda image: (segmenter(image), "probabilities")
    assert roles.as_segmenter(segmenter).voids
    assert roles.as_segmenter(segmenter).predict(IMAGE)[1] == "probabilities"

    def receiver(scene, **controls):
        return picture(scene)

    receiver.model_id, receiver.controls = 3, {"seed"}
    codec = sempic.Codec(FakeSegmenter(), receiver)
    with pytest.raises(sempic.ModelError, match="has no steps"):
        codec.decode(STREAM, steps=2)
    with pytest.warns(sempic.SempicWarning, match="for receiver 2; this is receiver 3"):
        codec.decode(codec.encode(IMAGE, model=2))


@pytest.mark.parametrize("quality", [3, "lossless"])
def test_networks_that_work_in_place_change_neither_the_picture_nor_the_stream(quality):
    def labels(image):
        return np.full(image.shape[:2], 3, np.uint8)

    def in_place(image):
        image[:] = 0
        return labels(image)

    def stream(image, found):
        verifier = Verifier(predict=lambda image: (found(image), None), palette=1, digest="0" * 8)
        codec = sempic.Codec(found, picture, verifier=verifier)
        return codec.encode(image, check=True, label_quality=quality)

    given = IMAGE.copy()
    assert stream(given, in_place) == stream(IMAGE, labels)
    assert np.array_equal(given, IMAGE)


def test_unsupported_controls_are_refused_unless_default():
    codec = sempic.Codec(receiver=picture)
    assert codec.decode(STREAM, fidelity=0, guidance=1).size == (64, 48)
    for wish in ({"seed": 1}, {"steps": 2}, {"fidelity": 0.5}, {"guidance": 0}):
        with pytest.raises(sempic.ModelError, match=f"has no {next(iter(wish))}"):
            codec.decode(STREAM, **wish)


def test_a_stream_names_its_receiver():
    codec = sempic.Codec(FakeSegmenter(), FakeReceiver())
    stream = codec.encode(IMAGE, model=3)
    assert sempic.info(stream)["model"] == 3
    codec.decode(stream)  # a receiver without a number: no warning
    codec.receiver.model_id = 3
    codec.decode(stream)
    codec.receiver.model_id = 1
    with pytest.warns(sempic.SempicWarning, match="for receiver 3; this is receiver 1"):
        codec.decode(stream)
    codec.decode(codec.encode(IMAGE))  # a stream for any receiver


def test_bundled_networks_fulfil_the_protocols():
    pytest.importorskip("onnxruntime")
    receiver = receive.load()
    assert isinstance(receiver, roles.Receiver)
    assert receiver.controls == set(roles.CONTROLS)
    assert isinstance(segment.load(), roles.Segmenter)
