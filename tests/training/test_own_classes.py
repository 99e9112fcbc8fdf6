"""From pictures with classes of one's own to a codec: docs/guides/train.md runs all of it; here is
what it refuses."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from streets import TINY, trained

import sempic
from sempic import cli, palette
from sempic.errors import InputError, ModelError
from sempic.networks.compact import CompactNet
from sempic.networks.segmenter import SegmentationNet, SegmenterConfig
from sempic.networks.weights import load_receiver, save_network
from sempic.receive import Receiver
from sempic.segment import Segmenter
from sempic.training.data import taxonomy
from sempic.training.onnx import export_receiver

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
    return palette.read(tmp_path / "toys.json")


def receiver(path, own):
    network = CompactNet(SMALL)
    network.palette = own
    export_receiver(network, path)
    return Receiver(path)


def forget():
    for known in [p for p in palette.PALETTES.values() if p.id >= palette.OWN]:
        del palette.PALETTES[known.id], palette.BY_NAME[known.name]


def test_a_taxonomy_of_ones_own(toys):
    found = taxonomy.load("toys.json")
    assert found.palette == toys
    assert found.classes == 3
    assert found.rare == {"ball"}
    assert found.importance["ball"] == 2
    assert taxonomy.from_description(taxonomy.describe(found)) == found
    ids = np.array([[0, 2, 3, 255]], np.uint8)
    known = found.known(ids, toys)
    assert known.tolist() == [[0, 2, taxonomy.UNKNOWN, taxonomy.UNKNOWN]]
    assert found.settle(known).tolist() == [[0, 2, 3, 3]]
    bad = {**TOYS, "classes": [{"name": "a", "importance": 0}]}
    with pytest.raises(InputError, match="importance"):
        taxonomy.from_description({**bad, "name": "bad"})


def test_only_a_receiver_of_the_palette_paints_it(toys, tmp_path):
    image = np.full((48, 64, 3), 90, np.uint8)
    labels = np.zeros((48, 64), np.uint8)
    labels[20:, 30:] = 1
    stream = sempic.Codec().encode(image, labels=labels, palette="toys.json")
    assert sempic.info(stream)["palette"] == "toys"
    mine = receiver(tmp_path / "mine.onnx", toys)
    bundled = CompactNet(TINY)
    export_receiver(bundled, tmp_path / "camvid.onnx")
    forget()  # as in another process
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
    forget()
    other = palette.own("toys", [("ball", (0, 0, 0)), ("table", (0, 0, 0)), ("wall", (0, 0, 0))])
    with pytest.raises(ModelError, match="palette toys, this receiver knows toys, but other"):
        receiver(tmp_path / "other.onnx", other)(scene)


def test_the_palette_travels_with_weights_and_files(toys, tmp_path):
    network = SegmentationNet(SegmenterConfig(classes=3, width=16))
    network.palette = toys
    save_network(network, tmp_path / "s.safetensors")
    argv = ["export", str(tmp_path / "s.safetensors"), str(tmp_path / "s.onnx")]
    forget()
    assert cli.main(["train", *argv]) == 0
    forget()
    segmenter = Segmenter(tmp_path / "s.onnx")
    known = palette.PALETTES[segmenter.palette]
    assert known.identity == toys.identity
    with pytest.warns(sempic.SempicWarning, match="without a label map"):  # it learned nothing
        stream = sempic.Codec(segmenter).encode(np.zeros((48, 64, 3), np.uint8))
    assert sempic.info(stream)["palette"] == "toys"
    net = trained(SMALL)
    net.palette = toys
    save_network(net, tmp_path / "r.safetensors")
    assert (
        cli.main(["train", "export", str(tmp_path / "r.safetensors"), str(tmp_path / "r.onnx")])
        == 0
    )
    argv = ["restore", str(tmp_path / "r.onnx"), str(tmp_path / "again.safetensors")]
    assert cli.main(["train", *argv]) == 0
    assert load_receiver(tmp_path / "again.safetensors").palette == known


def test_a_map_is_painted_in_ones_own_colours(toys, tmp_path):
    from sempic import cli as program

    Image.fromarray(np.ones((16, 16, 3), np.uint8)).save("a.png")
    Image.fromarray(np.ones((16, 16), np.uint8)).save("m.png")
    argv = ["encode", "a.png", "--labels", "m.png", "--palette", "toys.json"]
    assert program.main(argv) == 0
    assert program.main(["decode", "a.sempic", "--only", "labels", "-o", "l.png"]) == 0
    assert np.asarray(Image.open("l.png").convert("RGB"))[0, 0].tolist() == list(toys.colours[1])
    with pytest.raises(SystemExit):
        program.main(["encode", "a.png", "--labels", "m.png", "--palette", "mars"])
