import itertools

import numpy as np
import onnx
import onnxruntime
import PIL.Image
import pytest
import torch
from streets import TINY, trained, write_camvid

from sempic import cli
from sempic.errors import OutputError
from sempic.networks.compact import denoise, one_hot
from sempic.networks.segmenter import SegmentationNet, SegmenterConfig
from sempic.networks.weights import load_receiver, load_segmenter, save_network
from sempic.receive import Receiver
from sempic.texture import CONDITION
from sempic.training.data.render import make
from sempic.training.grow import as_cityscapes, grow
from sempic.training.onnx import (
    bake,
    export,
    export_receiver,
    export_segmenter,
    first_inputs,
    pictures_of,
)
from sempic.training.options import CorpusOptions, ExportOptions


def inputs(classes=11):
    planes = one_hot(torch.randint(0, classes + 1, (1, 32, 32)), classes)
    return torch.randn(1, 3, 32, 32), torch.randn(1, 3, 8, 8), planes, torch.tensor([0.2])


def test_a_baked_network_is_the_same_function():
    for network in (trained(), as_cityscapes(trained())):
        args = inputs(network.config.classes)
        torch.testing.assert_close(denoise(bake(network), *args), denoise(network, *args))


@pytest.mark.parametrize("grown", [False, True])
def test_a_restored_receiver_is_the_same_function(tmp_path, grown):
    network = grow(as_cityscapes(trained()), texture=CONDITION) if grown else trained()
    export_receiver(network, tmp_path / "r.onnx")
    assert Receiver(tmp_path / "r.onnx")._palette.name == ("cityscapes" if grown else "camvid")
    assert (
        cli.main(["train", "restore", str(tmp_path / "r.onnx"), str(tmp_path / "r.safetensors")])
        == 0
    )
    again = load_receiver(tmp_path / "r.safetensors")
    args = inputs(network.config.classes)
    torch.testing.assert_close(  # filters are stored as float16
        denoise(again, *args), denoise(network, *args), rtol=0.01, atol=0.005
    )


def corpus(data, out):
    options = CorpusOptions(
        data=(str(data),), out=out, classes="camvid", renditions=1, side=144, workers=1
    )
    make(options)


def test_a_receiver_in_eight_bits_is_nearly_the_same(tmp_path):
    data = write_camvid(tmp_path / "camvid")
    corpus(data, tmp_path / "c")
    network, path = trained(), tmp_path / "r.onnx"
    save_network(network, tmp_path / "w.safetensors")
    argv = ["export", str(tmp_path / "w.safetensors"), str(path), "--int8", str(tmp_path / "c")]
    assert cli.main(["train", *argv]) == 0
    graph = onnx.load(path).graph
    assert {t.data_type for t in graph.initializer} >= {onnx.TensorProto.INT8}
    feed = next(first_inputs(tmp_path / "c", TINY))
    (found,) = onnxruntime.InferenceSession(path).run(None, feed)
    export_receiver(network, tmp_path / "f.onnx")
    (exact,) = onnxruntime.InferenceSession(tmp_path / "f.onnx").run(None, feed)
    assert 0 < np.abs(found - exact).mean() < 0.05 * np.abs(exact).mean()
    assert cli.main(["train", "restore", str(path), str(tmp_path / "again.safetensors")]) == 0
    again = load_receiver(tmp_path / "again.safetensors")
    export_receiver(again, tmp_path / "a.onnx")
    (restored,) = onnxruntime.InferenceSession(tmp_path / "a.onnx").run(None, feed)
    assert np.abs(restored - exact).mean() < 0.03 * np.abs(exact).mean()


def looked(steps):
    """A segmenter whose norms have seen something, and what they saw."""
    torch.manual_seed(3)
    network = SegmentationNet(SegmenterConfig(width=16))
    for norm in network.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(norm.weight, 0.7, 1.3)
            torch.nn.init.normal_(norm.bias, std=0.1)
    x = torch.rand(4, 3, 64, 64)
    network.train()
    with torch.no_grad():
        for _ in range(steps):
            network(x)
    return network.eval(), x


def test_a_restored_segmenter_is_the_same_function_and_can_train(tmp_path, capsys):
    data = write_camvid(tmp_path / "camvid")
    network, x = looked(steps=200)
    export_segmenter(network, tmp_path / "s.onnx")
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), np.uint8)
    (logits,) = onnxruntime.InferenceSession(tmp_path / "s.onnx").run(None, {"image": image})
    with torch.no_grad():
        exact = network(torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255).numpy()
    assert np.abs(logits - exact).max() < 0.02 * np.abs(exact).max()
    assert "Pad" not in {n.op_type for n in onnx.load(tmp_path / "s.onnx").graph.node}
    argv = ["restore", str(tmp_path / "s.onnx"), str(tmp_path / "s.safetensors")]
    assert cli.main(["train", *argv]) == 2  # without pictures
    (tmp_path / "small").mkdir()
    PIL.Image.new("RGB", (40, 31)).save(tmp_path / "small/a.png")
    for folder, why in (("none", "no such folder"), ("small", "a.png: a side is shorter than 32")):
        capsys.readouterr()
        assert cli.main(["train", *argv, "--images", str(tmp_path / folder)]) == 2
        assert why in capsys.readouterr().err
    assert cli.main(["train", *argv, "--images", str(data / "train")]) == 0
    again = load_segmenter(tmp_path / "s.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(again(x), network(x), rtol=0.02, atol=0.02)
    norms = [m for m in again.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert any((n.running_mean != 0).any() for n in norms)


def test_a_segmenter_with_an_8_bit_decoder(tmp_path):
    data = write_camvid(tmp_path / "camvid")
    corpus(data, tmp_path / "c")
    network, x = looked(steps=20)
    export_segmenter(network, tmp_path / "f.onnx")
    feeds = list(itertools.islice(pictures_of(tmp_path / "c", 1.5), 2))
    assert feeds[0]["image"].shape[3] == 3
    export_segmenter(network, tmp_path / "q.onnx", feeds=feeds)
    graph = onnx.load(tmp_path / "q.onnx").graph
    assert (
        sum(t.data_type == onnx.TensorProto.INT8 for t in graph.initializer) == 10
    )  # and zero points
    exact, found = (
        onnxruntime.InferenceSession(tmp_path / name).run(None, feeds[0])[0]
        for name in ("f.onnx", "q.onnx")
    )
    assert 0 < np.abs(found - exact).mean() < 0.05 * np.abs(exact).mean()
    argv = ["restore", str(tmp_path / "q.onnx"), str(tmp_path / "s.safetensors")]
    assert cli.main(["train", *argv, "--images", str(data / "train")]) == 0
    again = load_segmenter(tmp_path / "s.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(again(x), network(x), rtol=0.05, atol=0.05)


def test_what_is_no_network_is_refused(tmp_path, capsys):
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    assert (
        cli.main(["train", "restore", str(tmp_path / "x.onnx"), str(tmp_path / "y.safetensors")])
        == 2
    )
    assert "x.onnx: not an ONNX file" in capsys.readouterr().err
    assert not (tmp_path / "y.safetensors").exists()


def test_a_file_whose_configuration_is_damaged_is_named(tmp_path, capsys):
    noisy = onnx.helper.make_tensor_value_info("noisy", onnx.TensorProto.FLOAT, [1])
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [noisy], []))
    onnx.helper.set_model_props(model, {"sempic": '{"config": {"depth": 3}}'})
    onnx.save(model, tmp_path / "x.onnx")
    argv = ["train", "restore", str(tmp_path / "x.onnx"), str(tmp_path / "y.safetensors")]
    assert cli.main(argv) == 2
    assert "x.onnx: its CompactConfig cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["there.onnx", "no/x.onnx", "photo.png"])
def test_what_cannot_be_written_is_named_and_nothing_is_left(tmp_path, target):
    save_network(trained(), tmp_path / "w.safetensors")
    (tmp_path / "there.onnx").mkdir()
    with pytest.raises(OutputError, match=target):
        export(ExportOptions(weights=tmp_path / "w.safetensors", output=tmp_path / target))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["there.onnx", "w.safetensors"]


def test_ranges_are_of_a_corpus_of_the_same_classes(tmp_path, capsys):
    corpus(write_camvid(tmp_path / "camvid"), tmp_path / "c")
    save_network(as_cityscapes(trained()), tmp_path / "w.safetensors")
    argv = ["export", str(tmp_path / "w.safetensors"), str(tmp_path / "r.onnx")]
    assert cli.main(["train", *argv, "--int8", str(tmp_path / "c")]) == 2
    assert "c: 11 classes, but the receiver knows 19" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "camvid", "w.safetensors"]
