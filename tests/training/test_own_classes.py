"""Codecs of one's own classes: what is refused. docs/guides/train.md runs the whole training."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from streets import TINY, train, trained

import sempic
from sempic import cli, palette
from sempic.errors import InputError, ModelError
from sempic.networks.compact import CompactNet
from sempic.networks.segmenter import SegmentationNet, SegmenterConfig
from sempic.networks.weights import load_receiver, load_segmenter, save_network
from sempic.receive import Receiver
from sempic.segment import Segmenter
from sempic.training.data import taxonomy
from sempic.training.data.taxonomy import Taxonomy
from sempic.training.onnx import export_receiver
from sempic.training.recipes import segmenter
from sempic.training.recipes.denoise import Denoise
from sempic.training.recipes.distill import SemanticLoss

TOYS = {
    "name": "toys",
    "classes": [
        {"name": "table"}, {"name": "ball", "rare": True, "importance": 2}, {"name": "wall"},
    ],
}  # fmt: skip

SMALL = dataclasses.replace(TINY, classes=3)


@pytest.fixture
def toys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toys.json").write_text(json.dumps(TOYS))
    return palette.find(str(tmp_path / "toys.json"))


def receiver_of(own, path):
    network = CompactNet(SMALL)
    network.palette = own
    export_receiver(network, path)
    return Receiver(path)


def forget_palettes():
    """As in another process."""
    for known in [p for p in palette.PALETTES.values() if p.id >= palette.OWN]:
        del palette.PALETTES[known.id], palette.BY_NAME[known.name]


def test_a_class_file_becomes_a_taxonomy(toys):
    found = taxonomy.load("toys.json")
    assert found.palette == toys
    assert found.classes == 3
    assert found.rare == {"ball"}
    assert (found.importance["ball"], found.importance["table"]) == (2, 1)
    assert taxonomy.from_description(taxonomy.describe(found)) == found
    ids = np.array([[0, 2, 3, 255]], np.uint8)
    known = found.known(ids, toys)
    assert known.tolist() == [[0, 2, taxonomy.UNKNOWN, taxonomy.UNKNOWN]]
    assert found.settle(known).tolist() == [[0, 2, 3, 3]]
    bad = {**TOYS, "classes": [{"name": "a", "importance": 0}]}
    with pytest.raises(InputError, match="importance"):
        taxonomy.from_description({**bad, "name": "bad"})


def test_a_run_is_only_continued_with_the_same_importance(toys, tmp_path):
    recipe = Denoise.__new__(Denoise)
    recipe.options = SimpleNamespace(fixed=dict)
    recipe.taxonomy = taxonomy.load("toys.json")
    began = recipe.fixed()
    assert began["importance"]["ball"] == 2
    for change, same in (({"colour": [1, 2, 3]}, True), ({"importance": 3}, False)):
        classes = [dict(entry) for entry in TOYS["classes"]]
        classes[1] |= change
        recipe.taxonomy = taxonomy.from_description({**TOYS, "classes": classes})
        assert (recipe.fixed() == began) == same


def test_only_a_receiver_of_the_same_palette_decodes_the_map(toys, tmp_path):
    image = np.full((48, 64, 3), 90, np.uint8)
    labels = np.zeros((48, 64), np.uint8)
    labels[20:, 30:] = 1
    stream = sempic.Codec().encode(image, labels=labels, palette="toys.json")
    assert sempic.info(stream)["palette"] == "toys"
    mine = receiver_of(toys, tmp_path / "mine.onnx")
    bundled = CompactNet(TINY)
    export_receiver(bundled, tmp_path / "camvid.onnx")
    forget_palettes()
    scene = sempic.unpack(stream)
    assert scene.palette == 0
    assert (scene.labels == labels).all()
    with pytest.raises(ModelError, match="palette toys, this receiver knows camvid"):
        Receiver(tmp_path / "camvid.onnx")(scene)
    assert Receiver(tmp_path / "mine.onnx")(scene).shape == (48, 64, 3)
    assert mine(sempic.unpack(stream)).shape == (48, 64, 3)
    plain = sempic.unpack(sempic.Codec().encode(image, labels=labels))
    with pytest.raises(ModelError, match="palette camvid, this receiver knows toys"):
        mine(plain)
    forget_palettes()
    other = palette.own("toys", [("ball", (0, 0, 0)), ("table", (0, 0, 0)), ("wall", (0, 0, 0))])
    with pytest.raises(ModelError, match="palette toys, this receiver knows toys, but other"):
        receiver_of(other, tmp_path / "other.onnx")(scene)


def test_the_palette_travels_with_weights_and_files(toys, tmp_path):
    network = SegmentationNet(SegmenterConfig(classes=3, width=16))
    network.palette = toys
    save_network(network, tmp_path / "s.safetensors")
    forget_palettes()
    assert train("export", tmp_path / "s.safetensors", tmp_path / "s.onnx") == 0
    forget_palettes()
    segmenter = Segmenter(tmp_path / "s.onnx")
    known = palette.PALETTES[segmenter.palette]
    assert known.identity == toys.identity
    with pytest.warns(sempic.SempicWarning, match="without a label map"):  # it learned nothing
        stream = sempic.Codec(segmenter).encode(np.zeros((48, 64, 3), np.uint8))
    assert sempic.info(stream)["palette"] == "toys"
    net = trained(SMALL)
    net.palette = toys
    save_network(net, tmp_path / "r.safetensors")
    assert train("export", tmp_path / "r.safetensors", tmp_path / "r.onnx") == 0
    assert train("restore", tmp_path / "r.onnx", tmp_path / "again.safetensors") == 0
    assert load_receiver(tmp_path / "again.safetensors").palette == known


def test_a_map_is_shown_in_the_colours_of_its_palette(toys, tmp_path):
    Image.fromarray(np.ones((16, 16, 3), np.uint8)).save("a.png")
    Image.fromarray(np.ones((16, 16), np.uint8)).save("m.png")
    argv = ["encode", "a.png", "--labels", "m.png", "--palette", "toys.json"]
    assert cli.main(argv) == 0
    assert cli.main(["decode", "a.sempic", "--only", "labels", "-o", "l.png"]) == 0
    assert np.asarray(Image.open("l.png").convert("RGB"))[0, 0].tolist() == list(toys.colours[1])
    with pytest.raises(SystemExit):
        cli.main(["encode", "a.png", "--labels", "m.png", "--palette", "mars"])


@pytest.fixture
def others():
    """As many classes as Cityscapes', by other names."""
    names = [{"name": f"thing {i}"} for i in range(palette.CITYSCAPES.known)]
    return palette.from_description({"name": "things", "classes": names})


def saved(own, path):
    network = SegmentationNet(SegmenterConfig(width=16)).eval()
    network.palette = own
    save_network(network, path)
    return load_segmenter(path)


def test_a_teacher_of_as_many_other_classes_is_refused(others, tmp_path):
    recipe = segmenter.Segmenter.__new__(segmenter.Segmenter)
    recipe.config, recipe.device = SegmenterConfig(width=16), torch.device("cpu")
    path = tmp_path / "teacher.safetensors"
    classes = Taxonomy(palette=others, rare=frozenset(), importance={})
    for own, mine in ((others, taxonomy.load("cityscapes")), (None, classes)):
        saved(own, path)
        recipe.taxonomy = mine
        known = "things" if own else "cityscapes"
        with pytest.raises(ModelError, match=f"knows the classes of {known}, not of "):
            recipe._load_teacher(path)
    with pytest.raises(ModelError, match="knows the classes of cityscapes, not of things"):
        SemanticLoss(path, classes, recipe.device)
    saved(others, path)
    assert recipe._load_teacher(path) is not None
    SemanticLoss(path, classes, recipe.device)


def test_the_last_layer_of_as_many_other_classes_is_not_copied(others, tmp_path):
    last = "head.2.weight"
    network = SegmentationNet(SegmenterConfig(width=16))
    network.palette = palette.CITYSCAPES
    own = {key: value.clone() for key, value in network.state_dict().items()}
    segmenter.grow_head(network, saved(others, tmp_path / "a.safetensors"), tmp_path, np.ones(19))
    assert torch.equal(network.state_dict()[last], own[last])
    assert not torch.equal(network.state_dict()["smooth.0.0.weight"], own["smooth.0.0.weight"])
    same = saved(None, tmp_path / "a.safetensors")
    segmenter.grow_head(network, same, tmp_path, np.ones(19))
    assert torch.equal(network.state_dict()[last], same.state_dict()[last])


def test_a_receiver_of_as_many_other_classes_begins_with_a_warning(toys, tmp_path):
    names = [{"name": name} for name in "abc"]
    own = palette.from_description({"name": "letters", "classes": names})
    network = CompactNet(SMALL)
    network.palette = own
    save_network(network, tmp_path / "w.safetensors")
    recipe = Denoise.__new__(Denoise)
    recipe.options = SimpleNamespace(init=tmp_path / "w.safetensors")
    recipe.taxonomy = taxonomy.load("toys.json")
    with pytest.warns(
        sempic.SempicWarning, match="the classes of letters, not of toys, which replace"
    ):
        assert recipe._begin().config.classes == 3
