import dataclasses
import itertools
import json

import numpy as np
import onnx
import onnxruntime
import PIL.Image
import pytest
import torch
from streets import TINY, inputs, train, trained, write_camvid, write_corpus

from sempic.errors import InputError, OutputError
from sempic.models import runtime
from sempic.networks.compact import denoise
from sempic.networks.segmenter import SegmentationNet, SegmenterConfig
from sempic.networks.weights import load_receiver, load_segmenter, save_network
from sempic.palette import CAMVID
from sempic.texture import CONDITION
from sempic.training.grow import as_cityscapes, grow
from sempic.training.onnx import (
    bake,
    export,
    export_receiver,
    export_segmenter,
    first_inputs,
    pictures_of,
)
from sempic.training.options import ExportOptions


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with pictures in CamVid's layout, and their corpus."""
    root = tmp_path_factory.mktemp("data")
    write_corpus(write_camvid(root / "camvid"), root / "corpus")
    return root


def test_a_baked_network_computes_the_same():
    for network in (trained(), as_cityscapes(trained())):
        args = inputs(network.config.classes)
        torch.testing.assert_close(denoise(bake(network), *args), denoise(network, *args))


@pytest.mark.parametrize("grown", [False, True])
def test_a_restored_receiver_computes_the_same(tmp_path, grown):
    network = grow(as_cityscapes(trained()), texture=CONDITION) if grown else trained()
    export_receiver(network, tmp_path / "r.onnx")
    _, about = runtime.load(tmp_path / "r.onnx")
    assert about["palette"] == ("cityscapes" if grown else "camvid")
    assert train("restore", tmp_path / "r.onnx", tmp_path / "r.safetensors") == 0
    again = load_receiver(tmp_path / "r.safetensors")
    args = inputs(network.config.classes)
    torch.testing.assert_close(  # filters are stored as float16
        denoise(again, *args), denoise(network, *args), rtol=0.01, atol=0.005
    )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"palette": {"name": "own"}}, "classes"),
        ({"config": {"tail_blocks": 2}}, "no receiver of this architecture: "),
        ({"config": {"narrow_width": 24}}, "narrow.weight: "),
    ],
)
def test_restore_names_the_file_of_a_fault(tmp_path, capsys, change, why):
    path = tmp_path / "r.onnx"
    export_receiver(trained(), path)
    model = onnx.load(path)
    (entry,) = (p for p in model.metadata_props if p.key == "sempic")
    about = json.loads(entry.value)
    for key, value in change.items():
        about[key] = {**about[key], **value} if key == "config" else value
    entry.value = json.dumps(about)
    onnx.save(model, path)
    assert train("restore", path, tmp_path / "r.safetensors") == 2
    said = capsys.readouterr().err
    assert f"{path}: " in said
    assert why in said
    assert said.count("\n") == 1
    assert not (tmp_path / "r.safetensors").exists()


def test_an_8_bit_receiver_computes_nearly_the_same(data, tmp_path, caplog, capsys, monkeypatch):
    monkeypatch.setattr("sempic.training.onnx.CALIBRATION", 3)
    network, path = trained(), tmp_path / "r.onnx"
    save_network(network, tmp_path / "w.safetensors")
    export = "export", tmp_path / "w.safetensors", path, "--int8", data / "corpus"
    assert train(*export, "--int8-backbone") == 2  # a receiver has none
    assert train(*export) == 0
    assert not caplog.messages
    assert len(capsys.readouterr().out.splitlines()) == 1  # of the file
    graph = onnx.load(path).graph
    assert {t.data_type for t in graph.initializer} >= {onnx.TensorProto.INT8}
    feed = next(first_inputs(data / "corpus", TINY))
    (found,) = onnxruntime.InferenceSession(path).run(None, feed)
    export_receiver(network, tmp_path / "f.onnx")
    (exact,) = onnxruntime.InferenceSession(tmp_path / "f.onnx").run(None, feed)
    assert 0 < np.abs(found - exact).mean() < 0.05 * np.abs(exact).mean()
    assert train("restore", path, tmp_path / "again.safetensors") == 0
    again = load_receiver(tmp_path / "again.safetensors")
    export_receiver(again, tmp_path / "a.onnx")
    (restored,) = onnxruntime.InferenceSession(tmp_path / "a.onnx").run(None, feed)
    assert np.abs(restored - exact).mean() < 0.03 * np.abs(exact).mean()


def segmenter_after(steps):
    """A segmenter whose batch norms have averaged over `steps` passes of a batch, and the batch."""
    torch.manual_seed(3)
    network = SegmentationNet(SegmenterConfig(width=16))
    for norm in network.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(norm.weight, 0.7, 1.3)
            torch.nn.init.normal_(norm.bias, std=0.1)
            norm.momentum = 1 - (1 - norm.momentum) ** steps  # one pass averages as all of them
    x = torch.rand(4, 3, 64, 64)
    network.train()
    with torch.no_grad():
        network(x)
        for _, norm, _ in network.smooth:  # equal biases, which an export stores once
            norm.running_mean.zero_()
            norm.bias.zero_()
    return network.eval(), x


def test_a_restored_segmenter_computes_the_same_and_can_train(data, tmp_path, capsys):
    network, x = segmenter_after(200)
    export_segmenter(network, tmp_path / "s.onnx")
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), np.uint8)
    (logits,) = onnxruntime.InferenceSession(tmp_path / "s.onnx").run(None, {"image": image})
    with torch.no_grad():
        exact = network(torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255).numpy()
    assert np.abs(logits - exact).max() < 0.02 * np.abs(exact).max()
    assert "Pad" not in {n.op_type for n in onnx.load(tmp_path / "s.onnx").graph.node}
    restore = ("restore", tmp_path / "s.onnx", tmp_path / "s.safetensors")
    assert train(*restore) == 2  # without pictures
    (tmp_path / "small").mkdir()
    PIL.Image.new("RGB", (40, 31)).save(tmp_path / "small/a.png")
    for folder, why in (("none", "no such folder"), ("small", "a.png: a side is shorter than 32")):
        capsys.readouterr()
        assert train(*restore, "--images", tmp_path / folder) == 2
        assert why in capsys.readouterr().err
    assert train(*restore, "--images", data / "camvid/train") == 0
    export = "export", tmp_path / "s.safetensors", tmp_path / "t.onnx"
    assert train(*export, "--model-id", 3) == 2
    assert "--model-id is for receivers" in capsys.readouterr().err
    assert train(*export, "--int8-backbone") == 2
    assert "--int8-backbone is for segmenters, with --int8" in capsys.readouterr().err
    again = load_segmenter(tmp_path / "s.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(again(x), network(x), rtol=0.02, atol=0.02)
    norms = [m for m in again.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert any((n.running_mean != 0).any() for n in norms)


def test_a_segmenter_is_exported_and_restored_with_the_factor_it_was_trained_for(data, tmp_path):
    network = SegmentationNet(SegmenterConfig(width=16, enlarge=1.0))
    save_network(network, tmp_path / "s.safetensors")
    assert train("export", tmp_path / "s.safetensors", tmp_path / "s.onnx") == 0
    (about,) = onnx.load(tmp_path / "s.onnx").metadata_props
    assert json.loads(about.value)["enlarge"] == 1
    restore = ("restore", tmp_path / "s.onnx", tmp_path / "again.safetensors")
    assert train(*restore, "--images", data / "camvid/train") == 0
    assert load_segmenter(tmp_path / "again.safetensors").config.enlarge == 1


@pytest.mark.parametrize("whole", [False, True])
def test_an_8_bit_segmenter_computes_nearly_the_same(data, tmp_path, whole):
    network, x = segmenter_after(20)
    export_segmenter(network, tmp_path / "f.onnx")
    feeds = list(itertools.islice(pictures_of(data / "corpus", 1.5), 2))
    assert feeds[0]["image"].shape[3] == 3
    export_segmenter(network, tmp_path / "q.onnx", feeds=feeds, whole=whole)
    graph = onnx.load(tmp_path / "q.onnx").graph
    integers = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.INT8}
    filters = [name for name in integers if not name.endswith("_zero_point")]
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(filters) == (len(convolutions) - 3 if whole else 5)
    exact, found = (
        onnxruntime.InferenceSession(tmp_path / name).run(None, feeds[0])[0]
        for name in ("f.onnx", "q.onnx")
    )
    assert 0 < np.abs(found - exact).mean() < 0.05 * np.abs(exact).mean()
    restored = tmp_path / "s.safetensors"
    assert train("restore", tmp_path / "q.onnx", restored, "--images", data / "camvid/train") == 0
    again = load_segmenter(restored)
    with torch.no_grad():
        torch.testing.assert_close(again(x), network(x), rtol=0.05, atol=0.05)


def test_a_file_that_is_not_onnx_is_refused(tmp_path, capsys):
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    assert train("restore", tmp_path / "x.onnx", tmp_path / "y.safetensors") == 2
    assert "x.onnx: not an ONNX file" in capsys.readouterr().err
    assert not (tmp_path / "y.safetensors").exists()


def test_a_damaged_configuration_is_named(tmp_path, capsys):
    noisy = onnx.helper.make_tensor_value_info("noisy", onnx.TensorProto.FLOAT, [1])
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [noisy], []))
    onnx.helper.set_model_props(model, {"sempic": '{"config": {"depth": 3}}'})
    onnx.save(model, tmp_path / "x.onnx")
    assert train("restore", tmp_path / "x.onnx", tmp_path / "y.safetensors") == 2
    assert "x.onnx: its CompactConfig cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["there.onnx", "no/x.onnx", "photo.png"])
def test_an_export_that_cannot_be_written_leaves_no_file(tmp_path, target):
    save_network(trained(), tmp_path / "w.safetensors")
    (tmp_path / "there.onnx").mkdir()
    with pytest.raises(OutputError, match=target):
        export(ExportOptions(weights=tmp_path / "w.safetensors", output=tmp_path / target))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["there.onnx", "w.safetensors"]


def test_an_8_bit_export_looks_for_its_corpus_before_the_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.onnx.export", None)
    save_network(trained(), tmp_path / "r.safetensors")
    save_network(SegmentationNet(SegmenterConfig(width=16)), tmp_path / "s.safetensors")
    for name in "rs":
        words = (tmp_path / f"{name}.safetensors", tmp_path / "x.onnx", "--int8", tmp_path / "no")
        assert train("export", *words) == 2
        assert "no/corpus.json: no corpus of" in capsys.readouterr().err


def test_the_corpus_of_an_8_bit_export_must_have_the_receivers_classes(data, tmp_path, capsys):
    save_network(as_cityscapes(trained()), tmp_path / "w.safetensors")
    export_words = ("export", tmp_path / "w.safetensors", tmp_path / "r.onnx")
    assert train(*export_words, "--int8", data / "corpus") == 2
    assert "corpus: the receiver knows 19 classes, not 11" in capsys.readouterr().err
    things = dataclasses.replace(CAMVID, name="things", classes=tuple("abcdefghijkl"))
    with pytest.raises(
        InputError, match="corpus: the receiver knows the classes of things, not of camvid"
    ):
        next(first_inputs(data / "corpus", TINY, things))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.safetensors"]
