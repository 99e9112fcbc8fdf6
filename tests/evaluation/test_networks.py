"""LPIPS, DISTS and Inception are read safely and agree with other implementations."""

import json
import os
import pickle
import sys
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch
from conftest import street

from sempic.errors import ModelError, OutputError
from sempic.evaluation import metrics, networks, weights


def is_fetched(name):
    try:
        weights.check(name)
    except ModelError:
        return False
    return True


needs_weights = pytest.mark.skipif(
    not all(is_fetched(name) for name in ("alexnet", "vgg16", "dists")),
    reason=f"the weights of LPIPS and DISTS are not fetched ({weights.FETCH})",
)


def checkpoint(depth=2):
    rng = np.random.default_rng(0)
    backbone = {
        f"Conv_{i}": {"kernel": rng.normal(size=(3, 5, 2, 4)), "bias": np.zeros(4)}
        for i in range(depth)
    }
    linear = {
        f"NetLinLayer_{i}": {"Conv_0": {"kernel": rng.normal(size=(1, 1, 7, 1))}} for i in range(5)
    }
    return {"AlexNet_0": backbone, **linear}


def test_lpips_weights_are_transposed():
    tree = checkpoint()
    found = weights.read_lpips(pickle.dumps(tree, protocol=4))
    assert found["backbone.1.weight"].shape == (4, 2, 3, 5)
    kernel = tree["AlexNet_0"]["Conv_1"]["kernel"]
    assert found["backbone.1.weight"][3, 1, 2, 4] == kernel[2, 4, 1, 3]
    assert found["linear.4"].shape == (7,)


def tfjs(**changes):
    kernel = np.arange(3 * 5 * 2 * 4, dtype="<f4").reshape(3, 5, 2, 4)
    entries = [
        {"name": "a/kernel", "shape": [3, 5, 2, 4], "dtype": "float32", **changes},
        {"name": "a/bias", "shape": [4], "dtype": "float32"},
    ]
    model = json.dumps({"weightsManifest": [{"weights": entries}]}).encode()
    return model, kernel.tobytes() + np.ones(4, "<f4").tobytes()


def test_tfjs_weights_are_transposed():
    found = weights.read_tfjs(*tfjs())
    assert found["a.weight"].shape == (4, 2, 3, 5)
    assert found["a.weight"][3, 1, 2, 4] == 3 * 5 * 2 * 4 - 1
    assert found["a.bias"].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (b"{}", b""),
        (b"no", b""),
        (tfjs()[0], tfjs()[1][:-4]),
        (tfjs()[0], tfjs()[1] + b"more"),
        tfjs(dtype="uint8"),
        tfjs(quantization={}),
    ],
)
def test_damaged_tfjs_files_are_refused(model, data):
    with pytest.raises(ModelError):
        weights.read_tfjs(model, data)


class Attack:
    def __reduce__(self):
        return os.mkdir, ("attacked",)


def test_a_pickle_that_runs_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="refused"):
        weights.read_lpips(pickle.dumps({**checkpoint(), "x": Attack()}))
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("data", [b"", b"abc", pickle.dumps([1]), pickle.dumps({"AlexNet_0": {}})])
def test_damaged_lpips_files_are_refused(data):
    with pytest.raises(ModelError):
        weights.read_lpips(data)


def test_missing_weights_name_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ModelError, match=r"python -m sempic\.evaluation\.weights"):
        networks.Lpips()
    with pytest.raises(ModelError, match="no such FID network"):
        weights.inception(tmp_path / "none.pt")


@needs_weights
@pytest.mark.parametrize("make", [networks.Lpips, lambda: networks.Lpips("vgg16"), networks.Dists])
def test_distances_are_symmetric_and_grow_with_noise(make):
    network = make()
    original = street(64, 96)[0]
    rng = np.random.default_rng(0)
    noisy = [
        np.clip(original + rng.normal(0, sigma, original.shape), 0, 255).astype(np.uint8)
        for sigma in (5, 40)
    ]
    a, b, c = (network.features(p) for p in (original, *noisy))
    assert network.distance(a, a) == pytest.approx(0, abs=1e-6)
    assert 0 < network.distance(a, b) < network.distance(a, c) < 1.5
    assert network.distance(a, c) == pytest.approx(network.distance(c, a), rel=1e-5)


@needs_weights
@pytest.mark.parametrize("grey", [0, 128, 200])
def test_equal_flat_pictures_have_no_distance(grey):
    network = networks.Dists()
    flat = network.features(np.full((48, 64, 3), grey, np.uint8))
    assert network.distance(flat, flat) == pytest.approx(0, abs=1e-6)


@needs_weights
@pytest.mark.parametrize(("backbone", "side"), [("alexnet", 31), ("vgg16", 16)])
def test_pictures_too_small_for_the_layers_have_no_lpips(backbone, side):
    network = networks.Lpips(backbone)
    for size, finite in (((side, 40), True), ((40, side - 1), False)):
        picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        a, b = network.features_of([picture, 255 - picture])
        assert np.isfinite(network.distance(a, b)) == finite


def test_damaged_weights_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "sempic").mkdir()
    (tmp_path / "sempic/vgg16.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match=r"vgg16.safetensors: damaged; fetch it: python -m"):
        networks.Lpips("vgg16")
    (tmp_path / "fid.pt").write_bytes(b"no network")
    with pytest.raises(ModelError, match=r"fid.pt: not a TorchScript network"):
        networks.Inception(tmp_path / "fid.pt")


@needs_weights
@pytest.mark.parametrize(("ours", "theirs"), [("alexnet", "alex"), ("vgg16", "vgg")])
def test_linear_layers_are_the_authors(ours, theirs):
    """torchmetrics ships the linear layers of the original package."""
    path = files("torchmetrics") / f"functional/image/lpips_models/{theirs}.pth"
    state = torch.load(str(path), weights_only=True, map_location="cpu")
    found = weights.load(ours)
    for i in range(5):
        expected = state[f"lin{i}.model.1.weight"].numpy().reshape(-1)
        assert np.allclose(found[f"linear.{i}"], expected, atol=1e-7)


def plain_lpips(a, b, arrays):
    """LPIPS on VGG-16 with torch.nn's layers, as in the paper."""
    modules, wanted = [], []
    number, channels = 0, 3
    for width in (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", *(512,) * 3, "M", *(512,) * 3):
        if width == "M":
            wanted.append(len(modules) - 1)
            modules.append(torch.nn.MaxPool2d(2, 2))
            continue
        layer = torch.nn.Conv2d(channels, width, 3, padding=1)
        layer.weight.data = torch.from_numpy(arrays[f"backbone.{number}.weight"])
        layer.bias.data = torch.from_numpy(arrays[f"backbone.{number}.bias"])
        modules += [layer, torch.nn.ReLU()]
        number, channels = number + 1, width
    wanted.append(len(modules) - 1)
    x = torch.from_numpy(np.stack([a, b])).permute(0, 3, 1, 2).float() / 255 * 2 - 1
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x = (x - shift[:, None, None]) / scale[:, None, None]
    total = 0.0
    for i, module in enumerate(modules):
        x = module(x)
        if i in wanted:
            unit = torch.nn.functional.normalize(x, dim=1)
            linear = torch.from_numpy(arrays[f"linear.{wanted.index(i)}"])
            total += float(((unit[0] - unit[1]) ** 2 * linear[:, None, None]).sum(0).mean())
    return total


@needs_weights
def test_lpips_agrees_with_plain_layers():
    a, b = street(48, 64, seed=1)[0], street(48, 64, seed=2)[0]
    network = networks.Lpips("vgg16")
    with torch.no_grad():
        expected = plain_lpips(a, b, weights.load("vgg16"))
    found = network.distance(network.features(a), network.features(b))
    assert found == pytest.approx(expected, rel=1e-4)


@needs_weights
def test_dists_has_the_authors_weights():
    """torchmetrics ships the two vectors of the original package."""
    folder = files("torchmetrics") / "functional/image"
    path = next(p for p in folder.rglob("weights.pt"))
    state = torch.load(str(path), weights_only=True, map_location="cpu")
    found = weights.load("dists")
    for key in ("alpha", "beta"):
        assert np.allclose(found[key], state[key].detach().numpy().reshape(-1), atol=1e-7)


def random_alexnet(name):
    """Random arrays in the shapes of LPIPS, so no weights need to be fetched."""
    rng = np.random.default_rng(0)
    shapes = [(8, 3, 11, 11), (12, 8, 5, 5), (16, 12, 3, 3), (10, 16, 3, 3), (10, 10, 3, 3)]
    found = {f"linear.{i}": rng.random(s[0]) for i, s in enumerate(shapes)}
    for i, shape in enumerate(shapes):
        found[f"backbone.{i}.weight"] = rng.normal(size=shape) / np.prod(shape[1:]) ** 0.5
        found[f"backbone.{i}.bias"] = rng.normal(size=shape[0])
    return {key: value.astype(np.float32) for key, value in found.items()}


class Pool(torch.nn.Module):
    """(B, 3, 299, 299) to (B, 3, 13, 13), in place of Inception's features."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(x, 23)


class Whole(torch.nn.Module):
    """In place of NVIDIA's file, which takes pictures of 0…255 and gives class probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = Pool()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers((x - 128) / 128).flatten(1)[:, :4].softmax(1)


def test_both_kinds_of_fid_networks_give_the_same_features(tmp_path):
    torch.jit.script(Pool()).save(str(tmp_path / "layers.pt"))
    torch.jit.script(Whole()).save(str(tmp_path / "whole.pt"))
    found = [
        networks.Inception(tmp_path / f"{kind}.pt").features(street(48, 64)[0])
        for kind in ("layers", "whole")
    ]
    assert np.array_equal(*found)


@pytest.mark.parametrize("version", ["2.13", "2.4"])
def test_convolutions_are_exact_while_networks_run(version, monkeypatch):
    """The flag of the surrounding program is restored afterwards."""
    if version == "2.4":
        monkeypatch.setattr(networks, "cudnn", SimpleNamespace(allow_tf32=True))
        home, flag, exact = networks.cudnn, "allow_tf32", False
    else:
        home, flag, exact = networks.cudnn.conv, "fp32_precision", "ieee"
    before = getattr(home, flag)
    assert before != exact

    class Network(networks._Network):
        def _forward(self, x):
            if len(x) > 1:
                raise ModelError("too many")
            return [getattr(home, flag)]

    picture = street(8, 8)[0]
    assert Network().features(picture) == exact
    assert getattr(home, flag) == before
    monkeypatch.setattr(networks, "batch_size", lambda picture: 2)
    with pytest.raises(ModelError):
        Network().features_of([picture, picture])
    assert getattr(home, flag) == before


def test_larger_pictures_come_in_smaller_batches(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    sizes = {(64, 64): 16, (256, 512): 16, (512, 512): 8, (1024, 2048): 1, (3000, 4000): 1}
    for size, expected in sizes.items():
        assert networks.batch_size(np.zeros((*size, 3), np.uint8)) == expected


@pytest.mark.parametrize("kind", ["lpips", "inception"])
def test_features_do_not_depend_on_the_batch(kind, monkeypatch, tmp_path):
    if kind == "lpips":
        monkeypatch.setattr(weights, "load", random_alexnet)
        network = networks.Lpips()
    else:
        torch.jit.script(Pool()).save(str(tmp_path / "pool.pt"))
        network = networks.Inception(tmp_path / "pool.pt")
    monkeypatch.setattr(networks, "batch_size", lambda picture: 2)  # as on a GPU
    sizes = [(64, 96), (64, 96), (64, 96), (72, 80), (64, 96)]
    pictures = [street(*size, seed=i)[0] for i, size in enumerate(sizes)]
    together = network.features_of(pictures)
    assert len(together) == len(pictures)
    for picture, several in zip(pictures, together, strict=True):
        alone = network.features(picture)
        if kind == "lpips":
            for a, b in zip(alone, several, strict=True):
                assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)
        else:
            assert several.shape == alone.shape == (3 * 13 * 13,)
            assert np.allclose(alone, several, rtol=1e-5)
    if kind == "lpips":
        assert network.distance(together[0], together[0]) == 0
        assert network.distance(together[0], together[1]) > 1e-3


def test_inception_features_depend_on_the_picture():
    try:
        network = networks.Inception()
    except ModelError as error:
        pytest.skip(str(error))
    a = network.features(street(48, 64)[0])
    assert a.shape == (2048,)
    assert a.dtype == np.float32
    assert np.array_equal(a, network.features(street(48, 64)[0]))
    assert not np.allclose(a, network.features(street(48, 64, seed=1)[0]), rtol=0.1)


def test_the_digest_of_a_model_is_that_of_all_its_files(tmp_path):
    """torch.onnx.export keeps weights in a second file; transformers' models may be folders."""
    path, data = tmp_path / "judge.onnx", tmp_path / "judge.onnx.data"
    entry = b"\x0a\x08location\x12" + bytes([len(data.name)]) + data.name.encode()
    path.write_bytes(b"graph" + entry + b"more")
    found = []
    for time in (1, 2):  # the same process looks again
        data.write_bytes(bytes([time]))
        os.utime(data, (time, time))
        found.append([weights.digest(spec) for spec in (path, Path(f"hf:{tmp_path}"))])
    assert all(first != second for first, second in zip(*found, strict=True))
    assert weights.digest(Path("hf:nvidia/some")) == "hf:nvidia/some"


def test_a_download_that_fails_says_why_and_not_the_hint_below_it():
    script = (
        "import sys; sys.exit('ERROR: No matching distribution\\n\\nnote: not a problem of pip')"
    )
    with pytest.raises(ModelError, match=r"^x cannot be downloaded: ERROR: No matching distr\w+$"):
        weights._execute([sys.executable, "-c", script], "x")


def test_nothing_is_downloaded_for_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_download", lambda *_: pytest.fail("downloaded"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file/below"))
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="not a writable folder"):
        weights.fetch()


@pytest.mark.skipif(not is_fetched("esrgan"), reason=f"ESRGAN is not fetched ({weights.FETCH})")
def test_esrgan_enlarges_smooth_pictures_like_bicubic():
    y, x = np.mgrid[0:24, 0:32]
    small = np.stack([8 * x, 10 * y, 4 * (x + y)], -1).astype(np.uint8)
    found = networks.Esrgan()(small)
    size = 4 * 32, 4 * 24
    plain = np.array(PIL.Image.fromarray(small).resize(size, PIL.Image.Resampling.BICUBIC))
    assert found.shape == plain.shape
    assert found.dtype == np.uint8
    assert 30 < metrics.psnr(plain, found) < 60
