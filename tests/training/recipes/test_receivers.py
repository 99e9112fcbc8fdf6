import dataclasses
import importlib
import json

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from streets import (
    TINY,
    TINY19,
    inputs,
    needs_imagenet,
    train,
    trained,
    write_camvid,
    write_corpus,
)

from sempic.errors import ModelError
from sempic.networks.compact import denoise, one_hot
from sempic.networks.segmenter import SegmentationNet, SegmenterConfig
from sempic.networks.weights import load_receiver, load_tensors, save_network, save_tensors
from sempic.palette import CAMVID, CITYSCAPES, translate
from sempic.training.data.taxonomy import BUNDLED
from sempic.training.grow import as_cityscapes, grow
from sempic.training.losses import Discriminator


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a corpus of Cityscapes' classes, and a receiver to begin with."""
    root = tmp_path_factory.mktemp("receivers")
    write_corpus(write_camvid(root / "camvid"), root / "corpus", "cityscapes")
    save_network(trained(TINY19), root / "begin.safetensors")
    return root


def test_a_grown_network_computes_the_same_before_training():
    network = trained()
    grown = grow(network, tail_blocks=2, narrow_width=12)
    assert grown.config == dataclasses.replace(TINY, tail_blocks=2, narrow_width=12)
    args = inputs()
    torch.testing.assert_close(denoise(grown, *args), denoise(network, *args))
    denoise(grown, *args).square().mean().backward()
    for gradient in (grown.refine_tail[1].emb.bias.grad, grown.tail.weight.grad[:, -4:]):
        assert gradient.abs().max() > 0  # weights that begin at zero can be learnt
    with pytest.raises(ModelError, match="no place"):
        grow(grown, tail_blocks=1)
    with pytest.raises(ModelError, match="no place"):
        grow(grown, narrow_width=8)


def test_each_cityscapes_class_begins_as_its_camvid_class():
    network = trained()
    grown = as_cityscapes(network)
    assert grown.config.classes == 19
    noisy, coarse, _, sigma = inputs(19)
    ids = torch.randint(0, 20, (1, 32, 32)).to(torch.uint8)
    eleven = torch.from_numpy(translate(ids.numpy(), CITYSCAPES.id, CAMVID.id))
    assert (eleven == CAMVID.void).any()
    before = denoise(network, noisy, coarse, one_hot(eleven, 11), sigma)
    after = denoise(grown, noisy, coarse, one_hot(ids, 19), sigma)
    torch.testing.assert_close(after, before)
    after.square().mean().backward()
    assert grown.label_gain.grad.abs().max() > 0
    with pytest.raises(ModelError, match="knows 19 classes, not 11"):
        as_cityscapes(grown)
    network.palette = dataclasses.replace(CAMVID, name="things", classes=tuple("abcdefghijkv"))
    with pytest.raises(ModelError, match="knows the classes of things, not of camvid"):
        as_cityscapes(network)


def test_grow_command_makes_a_receiver_of_cityscapes(tmp_path, capsys):
    save_network(trained(), tmp_path / "a.safetensors")
    assert train("grow", tmp_path / "a.safetensors", tmp_path / "b.safetensors") == 0
    assert load_receiver(tmp_path / "b.safetensors").config.classes == 19
    assert train("grow", tmp_path / "b.safetensors", tmp_path / "c.safetensors") == 2
    assert "b.safetensors: this receiver knows 19 classes, not 11" in capsys.readouterr().err


def run(made, name, command, *more):
    return train(
        command, "--corpus", made / "corpus", "--out", made / name,
        "--init", made / "begin.safetensors", "--batch", 2, "--threads", 1,
        "--log-every", 1, "--save-minutes", 0, "--reproducible", *more,
    )  # fmt: skip


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_an_average_lies_between_two_trainings(tmp_path, weight):
    one, other = trained(), trained()
    for parameter in other.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    other.normalise()
    for name, network in (("a", one), ("b", other)):
        save_network(network, tmp_path / f"{name}.safetensors")
    a, b, c = (tmp_path / f"{name}.safetensors" for name in "abc")
    assert train("average", a, b, "--weight", weight, "--out", c) == 0
    found = load_receiver(c)
    mine, theirs, between = (n.state_dict() for n in (one, other, found))
    for name, value in between.items():
        expected = (1 - weight) * mine[name] + weight * theirs[name]
        if value.ndim == 4:  # filters have unit norm, and keep their direction
            expected = expected / expected.flatten(1).norm(dim=1)[:, None, None, None]
            value = value / value.flatten(1).norm(dim=1)[:, None, None, None]
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-4)


def test_average_refuses_different_networks_and_replaces_no_input(tmp_path, capsys):
    eleven, nineteen, segmenter, out = (tmp_path / f"{name}.safetensors" for name in "absc")
    save_network(trained(), eleven)
    save_network(trained(TINY19), nineteen)
    save_network(SegmentationNet(SegmenterConfig(width=16)), segmenter)
    for other in (nineteen, segmenter):
        assert train("average", eleven, other, "--out", out) == 2
        assert "are of different networks" in capsys.readouterr().err
    assert not out.exists()
    assert train("average", segmenter, segmenter, "--out", out) == 0
    kept = eleven.read_bytes()
    for command, *more in (("average", "--out", eleven), ("grow",), ("export",)):
        assert train(command, eleven, eleven, *more) == 2
        assert "a.safetensors: would be replaced" in capsys.readouterr().err
    assert eleven.read_bytes() == kept


@needs_imagenet
def test_a_folder_of_another_recipe_is_refused(made, capsys):
    assert run(made, "denoised", *DENOISE, "--steps", 1) == 0
    assert run(made, "denoised", *DISTILL) == 2
    assert "recipe is 'Distill', but " in capsys.readouterr().err


def test_upright_pictures_are_validated_beside_broad_ones(tmp_path):
    data = write_camvid(tmp_path / "camvid")
    for path in (data / "val/0.png", data / "valannot/0.png"):
        with Image.open(path) as picture:
            picture.crop((0, 0, 72, 144)).save(path)
    write_corpus(data, tmp_path / "corpus")
    save_network(trained(), tmp_path / "begin.safetensors")
    assert run(tmp_path, "a", *DENOISE[:1], "--steps", 1, "--crop", 64, 64) == 0


DENOISE = ("denoise", "--steps", "4", "--crop", "64", "64")
DISTILL = (
    "distill", "--steps", "3", "--crop", "64", "64", "--vgg", "0", "--region-drop", "0.5",
    "--region-wrong", "0.5",
)  # fmt: skip


@pytest.mark.parametrize("recipe", [DENOISE, pytest.param(DISTILL, marks=needs_imagenet)])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(made, recipe, monkeypatch, capsys):
    if recipe[0] == "distill":
        torch.manual_seed(0)
        segmenter = SegmentationNet(SegmenterConfig(width=16))
        save_network(segmenter, made / "seg.safetensors")
        recipe = (*recipe, "--segmenter", made / "seg.safetensors")
    name = recipe[0]
    assert run(made, f"{name}-a", *recipe, "--export-dir", made / f"{name}-out") == 0
    from sempic.training.recipes import denoise, distill

    kind = denoise.Denoise if name == "denoise" else distill.Distill
    step = kind.step

    def dies(self, number):
        if number == 2:
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(kind, "step", dies)
    assert run(made, f"{name}-b", *recipe) == 2
    monkeypatch.setattr(kind, "step", step)
    assert run(made, f"{name}-b", *recipe) == 0
    a, b = (load_tensors(made / f"{name}-{x}/state.safetensors", "run")[0] for x in "ab")
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert torch.equal(value, b[key]), key
    before = (made / f"{name}-b/state.safetensors").read_bytes()
    capsys.readouterr()
    assert run(made, f"{name}-b", *recipe, "--lr", "0.5") == 2
    assert f"lr is 0.5, but {made / name}-b began with " in capsys.readouterr().err
    assert run(made, f"{name}-b", *recipe, "--init", made / f"{name}-a/compact.safetensors") == 2
    assert "content of --init (SHA-256) is '" in capsys.readouterr().err
    assert (made / f"{name}-b/state.safetensors").read_bytes() == before
    lines = [json.loads(x) for x in (made / f"{name}-a/log.jsonl").read_text().splitlines()]
    assert np.isfinite(lines[-1]["psnr"])
    names = {p.name for p in (made / f"{name}-out").iterdir()}
    assert {"compact.safetensors", "receiver.onnx", "log.jsonl"} <= names
    assert ("discriminator.safetensors" in names) == (name == "distill")
    begun = load_receiver(made / "begin.safetensors").state_dict()
    ended = load_receiver(made / f"{name}-a/compact.safetensors").state_dict()
    assert any((ended[k] != begun[k]).any() for k in begun)
    if name == "distill":
        again = (*DISTILL, "--discriminator", made / "distill-out/discriminator.safetensors")
        assert run(made, "distill-c", *again) == 0


def test_a_receiver_of_other_classes_than_the_corpus_is_refused(made, tmp_path, capsys):
    save_network(trained(), tmp_path / "a.safetensors")
    assert run(made, "no", *DENOISE, "--init", tmp_path / "a.safetensors") == 2
    assert "knows 11 classes, not 19: `sempic train grow` gives" in capsys.readouterr().err
    write_corpus(write_camvid(tmp_path / "camvid"), tmp_path / "corpus")
    save_network(trained(TINY19), tmp_path / "begin.safetensors")
    assert run(tmp_path, "no", *DENOISE) == 2
    assert capsys.readouterr().err.endswith("knows 19 classes, not 11\n")


@needs_imagenet
def test_a_discriminator_of_other_classes_is_refused(made, tmp_path, capsys):
    path = tmp_path / "d.safetensors"
    save_tensors(Discriminator([32], [4], 3).state_dict(), "discriminator", {}, path)
    assert run(made, "no", *DISTILL, "--discriminator", path) == 2
    assert f"{path} does not fit its configuration" in capsys.readouterr().err


@needs_imagenet
def test_the_semantic_loss_weighs_critical_pixels_more(tmp_path):
    from sempic.training.recipes.distill import SemanticLoss, segmenter_view, weighted

    torch.manual_seed(0)
    segmenter = SegmentationNet(SegmenterConfig(width=16))
    save_network(segmenter, tmp_path / "seg.safetensors")
    loss = SemanticLoss(tmp_path / "seg.safetensors", BUNDLED["cityscapes"], torch.device("cpu"))
    view = segmenter_view((96, 128), np.random.default_rng(0))
    image, made = torch.rand(2, 2, 3, 96, 128) * 2 - 1
    assert loss.divergence(image, image, 16, view).item() == pytest.approx(0, abs=1e-4)
    made.requires_grad_()
    apart = loss.divergence(made, image, 16, view)
    assert apart > 0
    apart.backward()
    assert made.grad.abs().max() > 0
    seen = view(image)
    assert seen.shape[2] % 32 == seen.shape[3] % 32 == 0
    assert 0 <= seen.min() <= seen.max() <= 1
    with pytest.raises(ModelError, match="knows 19 classes, not 11"):
        SemanticLoss(tmp_path / "seg.safetensors", BUNDLED["camvid"], torch.device("cpu"))

    apart = torch.zeros(1, 3, 4, 4)
    apart[..., 0, 0] = 1
    weight = torch.ones(1, 1, 4, 4)
    assert weighted(apart, weight).item() == pytest.approx(1 / 16)
    weight[..., 0, 0] = 9
    assert weighted(apart, weight).item() == pytest.approx(9 / 24)


def test_the_benchmarks_of_training_run(made, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    found = {}
    for name, *told in (
        ("short_runs", str(made / "corpus"), "--seconds", "0.2", "--only", "noise: wider"),
        ("step_overhead", "--batch", "2", "--steps", "2"),
    ):
        monkeypatch.setattr("sys.argv", [name, *told, "--json", str(tmp_path / name)])
        importlib.import_module(name).main()
        found[name] = json.loads((tmp_path / name).read_text())
    (wider,) = found["short_runs"].values()
    assert wider["steps"] >= 1
    assert wider["half"] > 0
    assert found["step_overhead"]
