import json
import sys
import types

import numpy as np
import onnx
import PIL.Image
import pytest
from onnx import TensorProto, helper

from sempic import segment
from sempic.errors import ModelError
from sempic.palette import CAMVID, CITYSCAPES, INDICES


def save(path, nodes, inputs, outputs, initializers=(), sempic=None):
    graph = helper.make_graph(list(nodes), "g", inputs, outputs, list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if sempic is not None:
        helper.set_model_props(model, {"sempic": json.dumps(sempic)})
    onnx.save(model, path)
    return path


def logits_model(path, classes, stride=1):
    """A network whose logits give class 1 to bright pixels and class 0 to dark ones."""
    weight = np.zeros((classes, 3, stride, stride), np.float32)
    weight[0], weight[1] = -1, 1
    return save(
        path,
        [helper.make_node("Conv", ["image", "w"], ["out"], strides=[stride, stride])],
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, classes, "a", "b"])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )


def ids_model(path, sempic=None):
    """A network that returns the red byte of each pixel as its id."""
    index = onnx.numpy_helper.from_array(np.array(0, np.int64), "zero")
    return save(
        path,
        [helper.make_node("Gather", ["image", "zero"], ["out"], axis=3)],
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "h", "w", 3])],
        [helper.make_tensor_value_info("out", TensorProto.UINT8, [1, "h", "w"])],
        [index],
        sempic,
    )


@pytest.fixture
def picture():
    picture = np.zeros((40, 50, 3), np.uint8)
    picture[:, 25:] = 250
    return picture


def test_networks_may_return_ids(tmp_path):
    image = np.random.default_rng(0).integers(0, 11, (37, 45, 3), np.uint8)
    model = segment.load(str(ids_model(tmp_path / "a.onnx", {"palette": "camvid"})))
    assert model.palette == CAMVID.id
    assert not model.voids
    assert segment.load(str(ids_model(tmp_path / "v.onnx", {"voids": True}))).voids
    assert (model(image) == image[..., 0]).all()


def test_large_pictures_are_segmented_at_reduced_size(tmp_path):
    image = np.zeros((1024, 1500, 3), np.uint8)
    image[:512] = 3
    labels = segment.load(str(ids_model(tmp_path / "a.onnx")))(image)
    assert labels.shape == (1024, 1500)
    assert (labels == image[..., 0]).mean() > 0.99


@pytest.mark.parametrize(
    ("side", "size"),
    [
        (None, (64, 64)),
        (128, (128, 160)),
        (32, (32, 64)),
        (1024, (1024, 1280)),
        ((32, 40), (64, 64)),  # as it is
        ((128, 160), (128, 160)),
        ((16, 32), (32, 64)),
    ],
)
def test_the_shorter_side_can_be_chosen(tmp_path, picture, monkeypatch, side, size):
    seen = []
    run = segment.runtime.run
    monkeypatch.setattr(
        segment.runtime, "run", lambda *a: seen.append(a[2]["image"].shape[1:3]) or run(*a)
    )
    image = picture // 125
    labels = segment.load(str(ids_model(tmp_path / "a.onnx")), side=side)(image)
    assert seen == [size]  # padded to multiples of 32
    assert labels.shape == (40, 50)
    assert (labels == image[..., 0]).mean() > 0.95


@pytest.mark.parametrize("stride", [1, 4])
def test_networks_may_return_float_logits(tmp_path, picture, stride):
    model = segment.load(str(logits_model(tmp_path / "b.onnx", 19, stride)))
    assert model.palette == CITYSCAPES.id
    labels = model(picture)
    assert labels.shape == (40, 50)
    assert (labels == picture[..., 0] // 250).mean() > 0.95


@pytest.mark.parametrize(("classes", "palette"), [(11, CAMVID), (12, CAMVID), (5, INDICES)])
def test_the_palette_follows_from_the_number_of_classes(tmp_path, classes, palette):
    assert segment.load(str(logits_model(tmp_path / "c.onnx", classes))).palette == palette.id


def test_invalid_networks_are_refused(tmp_path, picture, monkeypatch):
    with pytest.raises(ModelError, match="no such model"):
        segment.load(str(tmp_path / "none.onnx"))
    (tmp_path / "w.safetensors").touch()
    with pytest.raises(ModelError, match=r"w\.safetensors: not ONNX: `sempic train export` makes"):
        segment.load(str(tmp_path / "w.safetensors"))
    with pytest.raises(ModelError, match="palette"):
        segment.load(str(ids_model(tmp_path / "a.onnx", {"palette": "mars"})))
    for enlarge in (float("nan"), -2, "wide"):
        with pytest.raises(ModelError, match=r"b\.onnx: enlarge "):
            segment.load(str(ids_model(tmp_path / "b.onnx", {"enlarge": enlarge})))
    with pytest.raises(ModelError, match=r"c\.onnx: not a usable ONNX model"):
        segment.load(str(ids_model(tmp_path / "c.onnx", 5)))
    wide = logits_model(tmp_path / "d.onnx", 300)
    model = onnx.load(wide)
    weight = np.zeros((300, 3, 1, 1), np.float32)
    weight[0], weight[299] = -1, 1
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(model, wide)
    with pytest.raises(ModelError, match="no label map"):
        segment.load(str(wide))(picture)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelError, match=r"\.\[hf\]"):
        segment.load("hf:somebody/something")


def constant_model(path, output):
    """A network that returns this output for every picture."""
    value = onnx.numpy_helper.from_array(output)
    kind = helper.np_dtype_to_tensor_dtype(output.dtype)
    return save(
        path,
        [helper.make_node("Constant", [], ["out"], value=value)],
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "h", "w", 3])],
        [helper.make_tensor_value_info("out", kind, output.shape)],
    )


def with_one(value, output, at):
    output[at] = value
    return output


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (with_one(-3, np.zeros((1, 64, 64), np.int64), (0, 5, 5)), "ids -3…0 are not 0…255"),
        (with_one(256, np.zeros((1, 64, 64), np.int64), (0, 5, 5)), "ids 0…256 are not 0…255"),
        (np.full((1, 64, 64), 3.7, np.float32), "float32 .* is no label map"),
        (np.zeros((2, 64, 64), np.uint8), "is no label map"),
        (np.zeros((2, 11, 8, 8), np.float32), "is no label map"),
        (np.zeros((1, 11, 0, 8), np.float32), "not finite"),
        (with_one(np.nan, np.zeros((1, 11, 8, 8), np.float32), (0, 3, 5, 5)), "not finite"),
        (with_one(np.inf, np.zeros((1, 11, 8, 8), np.float32), (0, 3, 5, 5)), "not finite"),
        (np.full((1, 11, 8, 8), -np.inf, np.float32), "not finite"),
    ],
)
def test_an_output_without_sense_is_refused(tmp_path, picture, output, message):
    path = constant_model(tmp_path / "f.onnx", output)
    with pytest.raises(ModelError, match=rf"f\.onnx: .*{message}"):
        segment.load(str(path)).predict(picture)


def test_a_class_may_be_impossible(tmp_path, picture):
    logits = with_one(-np.inf, np.zeros((1, 11, 8, 8), np.float32), np.s_[0, 1:])
    labels, probabilities = segment.load(str(constant_model(tmp_path / "g.onnx", logits))).predict(
        picture
    )
    assert not labels.any()
    assert (probabilities[0] == 255).all()


def test_a_failing_network_is_named(tmp_path, picture):
    path = save(
        tmp_path / "e.onnx",
        [helper.make_node("Reshape", ["image", "s"], ["out"])],
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 11, 7, 7])],
        [onnx.numpy_helper.from_array(np.array([1, 11, 7, 7], np.int64), "s")],
    )
    with pytest.raises(ModelError, match=r"e\.onnx: the segmenter failed"):
        segment.load(str(path))(picture)


def test_a_model_of_transformers(picture, monkeypatch):
    """A stand-in for its pipeline; the second model has no semantic maps."""
    mask = PIL.Image.fromarray((picture[..., 0] > 0).astype(np.uint8) * 255)

    class Pipe:
        def __init__(self, task, model):
            names = {0: "road", 1: "Sky"} if model == "a/street" else {0: "dog"}
            config = types.SimpleNamespace(id2label=names, label2id=None)
            self.model = types.SimpleNamespace(config=config)

        def __call__(self, image, subtask):
            if "dog" in self.model.config.id2label.values():
                raise ValueError("Subtask semantic is not supported")
            return [{"label": "Sky", "mask": mask}]

    monkeypatch.setitem(sys.modules, "transformers", types.SimpleNamespace(pipeline=Pipe))
    model = segment.load("hf:a/street")
    assert model.palette == CITYSCAPES.id
    labels = np.where(picture[..., 0] > 0, CITYSCAPES.classes.index("sky"), CITYSCAPES.void)
    assert np.array_equal(model(picture), labels)
    said = r"hf:b/dogs: the segmenter failed \(Subtask semantic is not supported\)"
    with pytest.raises(ModelError, match=said):
        segment.load("hf:b/dogs").predict(picture)


@pytest.mark.parametrize(
    "size", [(500, 17000), (17000, 500), (16, 30000), (4000, 6000), (300, 400)]
)
def test_panoramas_are_segmented_at_a_bounded_size(size):
    scale = segment.working_scale(size, enlarge=2.0)
    working = segment._resize(np.zeros((*size, 3), np.uint8), scale)
    assert min(working.shape[:2]) <= segment.WORKING_SIDE
    assert max(working.shape[:2]) <= segment.LONGEST_SIDE
