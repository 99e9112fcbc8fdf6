import dataclasses
import json
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import street

from sempic import coarse, receive, texture
from sempic.errors import InputError, ModelError, SempicWarning
from sempic.models import runtime
from sempic.palette import CAMVID, INDICES
from sempic.receive import Receiver, tiling
from sempic.scene import Scene

torch = pytest.importorskip("torch")

from sempic.diffusion import edm  # noqa: E402
from sempic.networks.compact import CompactConfig, CompactNet, denoise, one_hot, upsample  # noqa: E402
from sempic.training.grow import grow  # noqa: E402
from sempic.training.onnx import export_receiver  # noqa: E402


@pytest.fixture(scope="module")
def network() -> CompactNet:
    torch.manual_seed(0)
    net = CompactNet(CompactConfig(widths=(8, 12), encoder_blocks=1, decoder_blocks=2))
    net.head_gain.data.fill_(0.5)
    for module in net.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.1)
    return net.eval()


@pytest.fixture(scope="module")
def path(network, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("receiver") / "tiny.onnx"
    export_receiver(network, path, model_id=7)
    return path


def scene(height=48, width=64, factor=4, palette=CAMVID.id, labels=True) -> Scene:
    image, map_ = street(height, width)
    small = coarse.from_rgb(coarse.downscale(image, factor), "444")
    return Scene(
        width=width,
        height=height,
        palette=palette,
        model=0,
        labels=map_ if labels else None,
        coarse=small,
    )


def test_one_step_is_what_torch_computes(network, path):
    s = scene()
    picture = Receiver(path)(s, steps=1, seed=3)
    noise = np.random.default_rng(3).standard_normal((3, 48, 64), np.float32)
    small = torch.from_numpy(coarse.to_rgb(s.coarse)).permute(2, 0, 1)[None].float() / 127.5 - 1
    level = edm.sigmas(1, network.config.sigma_max)
    with torch.no_grad():
        residual = denoise(
            network,
            level * torch.from_numpy(noise)[None],
            small,
            one_hot(torch.from_numpy(s.labels)[None], 11),
            level,
        )
        expected = (upsample(small) + residual)[0].clamp(-1, 1).permute(1, 2, 0)
    assert np.abs(picture - (expected.numpy() + 1) * 127.5).max() < 1


@pytest.fixture(scope="module")
def told(network, tmp_path_factory) -> Path:
    """A receiver whose network takes texture as an input."""
    torch.manual_seed(1)
    net = grow(network, texture=texture.CONDITION)
    torch.nn.init.normal_(net.stem.weight)
    path = tmp_path_factory.mktemp("told") / "told.onnx"
    export_receiver(net.eval(), path)
    return path


def noise_of(path, given: Scene, monkeypatch, **controls) -> list[np.ndarray]:
    """The noise that the network receives in each step, (3, rows, columns)."""
    seen = []
    monkeypatch.setattr(
        Receiver, "_denoise", lambda self, sigma, how, noisy, *_: seen.append(noisy) or 0 * noisy
    )
    Receiver(path)(given, **controls)
    return seen


def test_noise_is_as_strong_as_the_texture_it_becomes(path, told, monkeypatch):
    s = scene(50, 70)
    number = int(s.labels[40, 30])
    said = dataclasses.replace(s, texture={number: (5, 19)})
    (plain,), (silent,), (weak,) = (
        noise_of(file, given, monkeypatch)
        for file, given in ((path, said), (told, s), (told, said))
    )
    assert plain.shape == (3, 64, 80)
    for noise, of in ((silent, {}), (weak, {number: (5, 19)})):
        table = texture.noise_strength(texture.condition(of), texture.default_noise(CAMVID))
        np.testing.assert_allclose(
            noise[:, :50, :70], plain[:, :50, :70] * table[s.labels], rtol=1e-5
        )
        # Beyond the picture, the strength at its edge applies.
        np.testing.assert_allclose(
            noise[:, 63, :70], plain[:, 63, :70] * table[s.labels[49]], rtol=1e-5
        )
    for strong, even in zip(
        *(noise_of(file, said, monkeypatch, steps=2) for file in (told, path)), strict=True
    ):
        weakened = even[:, :50, :70] * table[s.labels]
        np.testing.assert_allclose(strong[:, :50, :70], weakened, rtol=1e-5)


def test_enlarged_pictures_get_more_noise(path, told, monkeypatch):
    half = dataclasses.replace(scene(96, 128), halved=True).half()
    (plain,), (strong,) = (noise_of(file, half, monkeypatch) for file in (path, told))
    np.testing.assert_allclose(strong, receive.ENLARGED_NOISE * plain, rtol=1e-5)


def test_texture_reaches_the_network(path, told, monkeypatch):
    receiver = Receiver(told)
    s = scene(160, 336)
    number = int(s.labels[60, 100])
    said = dataclasses.replace(s, texture={number: (5, 19)})
    silent, picture = receiver(s), receiver(said)
    near = np.abs(silent.astype(int) - picture).max(2)
    assert near[s.labels == number].mean() > 4 * near[s.labels != number].mean()
    monkeypatch.setattr(tiling, "AREA", 160 * 224)  # each tile receives the texture of its part
    assert np.abs(picture.astype(int) - receiver(said)).mean() < near[s.labels == number].mean() / 2
    # A network without this input ignores texture.
    assert (Receiver(path)(s) == Receiver(path)(said)).all()

    assert texture.strengthen({3: (5, 19), 4: (31, 31)}, 1) == {3: (6, 20), 4: (31, 31)}
    fine = torch.from_numpy(texture.condition_map(said.texture, s.labels))
    assert fine.shape == (4, 40, 84)
    middle = s.labels[2::4, 2::4]
    assert (fine[0].numpy() == (middle == number)).all()
    assert fine[1:, middle == number][:, 0].tolist() == [5 / 16 - 1, 19 / 16 - 1, 14 / 8 - 1]
    assert not fine[:, middle != number].any()


def test_noise_levels_are_those_of_training(network, path):
    receiver = Receiver(path)
    for steps in (1, 2, 4, 9):
        expected = edm.sigmas(steps, network.config.sigma_max).numpy()
        np.testing.assert_allclose(receiver.sigmas(steps), expected, rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 2])
def test_the_seed_determines_the_picture(path, steps):
    receiver = Receiver(path)
    first, again, other = (receiver(scene(), steps=steps, seed=s) for s in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_noise_that_is_not_kept_is_the_same(path, monkeypatch):
    receiver = Receiver(path)
    kept = receiver(scene())
    monkeypatch.setattr(receive, "_KEPT", 0)
    assert (receiver(scene()) == kept).all()


def test_guidance_interpolates_between_no_map_and_the_map(path):
    receiver = Receiver(path)
    given, free = (receiver(scene(labels=has), steps=1).astype(int) for has in (True, False))
    assert (receiver(scene(), steps=1, guidance=0) == free).all()
    half = receiver(scene(), steps=1, guidance=0.5)
    inside = (np.minimum(given, free) > 0) & (np.maximum(given, free) < 255)
    assert np.abs(half - (given + free) / 2)[inside].max() <= 1
    assert inside.mean() > 0.5


def test_guidance_without_a_map_is_said_and_takes_no_time(path, monkeypatch):
    receiver = Receiver(path)
    runs = []
    monkeypatch.setattr(runtime, "run", lambda *a, run=runtime.run: runs.append(a) or run(*a))
    with pytest.warns(SempicWarning, match="guidance has no effect: the stream has no label map"):
        guided = receiver(scene(labels=False), guidance=1.5)
    assert len(runs) == 1
    assert (guided == receiver(scene(labels=False))).all()


def test_fidelity_reaches_the_network(network, path):
    receiver = Receiver(path)
    likely, mean = (receiver(scene(), steps=1, fidelity=f) for f in (0, 1))
    assert (likely == receiver(scene(), steps=1)).all()
    assert (likely != mean).any()


@pytest.mark.parametrize("wish", [{"fidelity": 1.5}, {"guidance": -1}, {"guidance": float("nan")}])
def test_controls_out_of_range_are_refused(path, wish):
    with pytest.raises(InputError, match="fidelity is 0…1 and guidance 0…10"):
        Receiver(path)(scene(), **wish)


@pytest.mark.parametrize("factor", [4, 8])
@pytest.mark.parametrize("size", [(1, 1), (3, 50), (33, 17), (48, 64)])
def test_any_size_is_painted(path, size, factor):
    assert Receiver(path)(scene(*size, factor=factor), steps=1).shape == (*size, 3)


def test_a_finer_coarse_picture_changes_the_result(path, monkeypatch):
    receiver = Receiver(path)
    s = scene(64, 96, factor=2)
    sent = coarse.to_rgb(s.coarse).astype(int)
    errors = []
    for share in (0, 0.5, 1):
        monkeypatch.setattr(receive, "CORRECTED", share)
        means = receiver(s).astype(int).reshape(32, 2, 48, 2, 3).mean((1, 3))
        errors.append(np.abs(means - sent).mean())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.3 * errors[0]


def test_coarse_of_an_unrelated_size_is_stretched(path):
    image, _ = street(10, 11)
    s = scene()
    other = Scene(
        width=64, height=48, palette=1, model=0, labels=s.labels, coarse=coarse.from_rgb(image)
    )
    assert Receiver(path)(other, steps=1).shape == (48, 64, 3)


def test_labels_change_the_result_and_are_optional(path):
    receiver = Receiver(path)
    with_labels, without = receiver(scene(), steps=1), receiver(scene(labels=False), steps=1)
    assert (with_labels != without).any()
    unknown = receiver(scene(palette=INDICES.id), steps=1)
    assert (unknown == without).all()


def test_tiles_leave_no_seams(path, monkeypatch):
    receiver = Receiver(path)
    s = scene(160, 336)
    whole = receiver(s, steps=2)
    monkeypatch.setattr(tiling, "AREA", 160 * 224)
    tiled = receiver(s, steps=2)
    error = np.abs(whole.astype(int) - tiled)
    assert error.mean() < 1  # random weights have a large receptive field, so seams are not exact
    assert np.abs(whole.astype(int) - receiver(s, steps=2, seed=1)).mean() > 5 * error.mean()


def test_invalid_scenes_options_and_networks_are_refused(path, tmp_path):
    receiver = Receiver(path)
    bare = Scene(width=8, height=8, palette=1, model=0, labels=None, coarse=None)
    with pytest.raises(ModelError, match="coarse"):
        receiver(bare)
    for bad in ({"steps": 0}, {"steps": receive.MAX_STEPS + 1}, {"seed": -1}):
        with pytest.raises(InputError, match=r"steps is 1…100 and seed 0 or more"):
            receiver(scene(), **bad)
    with pytest.raises(ModelError, match="no such model"):
        Receiver(tmp_path / "none.onnx")
    (tmp_path / "junk.onnx").write_bytes(zlib.compress(b"junk" * 99))
    with pytest.raises(ModelError, match=r"junk\.onnx"):
        Receiver(tmp_path / "junk.onnx")
    foreign = onnx.load(path)
    onnx.helper.set_model_props(foreign, {"sempic": json.dumps({"model_id": 1})})
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(ModelError, match="sigma_max"):
        Receiver(tmp_path / "foreign.onnx")
    failing = onnx.load(path)
    failing.graph.input[0].name = "noise"
    for node in failing.graph.node:
        node.input[:] = ["noise" if name == "noisy" else name for name in node.input]
    onnx.save(failing, tmp_path / "failing.onnx")
    with pytest.raises(ModelError, match=r"failing\.onnx: the receiver failed"):
        Receiver(tmp_path / "failing.onnx")(scene())
