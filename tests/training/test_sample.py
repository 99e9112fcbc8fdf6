from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sempic import cli, coarse, pack, places, unpack
from sempic.api import Codec
from sempic.diffusion.checkpoints import flags_from_configs, load_model, save_model
from sempic.diffusion.flags import SamplingConfig
from sempic.diffusion.gaussian import DiffusionConfig
from sempic.diffusion.receiver import Condition, PaperReceiver, reconstruct
from sempic.errors import InputError, ModelError, OutputError, install_hint
from sempic.networks.unet import SemanticUNet, UNetConfig
from sempic.training import flags as original
from sempic.training import sample

CONFIG = UNetConfig(
    image_size=32,
    channel_mult=(1, 1),
    num_channels=32,
    num_res_blocks=1,
    attention_resolutions=(16,),
    num_head_channels=16,
    num_classes=11,
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    model = SemanticUNet(CONFIG)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    path = tmp_path_factory.mktemp("weights") / "ema.safetensors"
    save_model(path, model.state_dict(), CONFIG, DiffusionConfig())
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("camvid")
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        labels = np.repeat(np.repeat(rng.integers(0, 12, (4, 6), np.uint8), 8, 0), 8, 1)[:, :45]
        image = (labels[..., None] * [20, 10, 5]).astype(np.uint8)
        for folder, array in (("val", image), ("valannot", labels)):
            (root / folder).mkdir(exist_ok=True)
            Image.fromarray(array).save(root / folder / f"{name}.png")
    return root


def flags(weights: Path, data: Path, out: Path, **changes: Any) -> list[str]:
    chosen = {
        "model_path": weights, "results_path": out, "data_dir": data, "dataset_mode": "camvid",
        "num_samples": 2, "s": 1.5, "max_iter_time": 200, "timestep_respacing": 5,
    }  # fmt: skip
    chosen.update(changes)
    return [word for k, v in chosen.items() for word in (f"--{k}", str(v))]


def sampled(argv: list[str]) -> None:
    sample.run(original.sample(argv))


def test_every_folder_is_written_and_samples_are_decoded_from_the_streams(
    weights, data, tmp_path, capsys
):
    sampled(flags(weights, data, tmp_path))
    for folder in ("images", "labels", "samples", "compressed", "sempic"):
        suffix = "sempic" if folder == "sempic" else "png"
        names = sorted(path.name for path in (tmp_path / folder).iterdir())
        assert names == [f"a.{suffix}", f"b.{suffix}"]
    stream = (tmp_path / "sempic/b.sempic").read_bytes()
    scene = unpack(stream)
    assert (scene.width, scene.height) == (45, 32)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "labels/b.png")), scene.labels)
    receiver = PaperReceiver(weights, SamplingConfig(timestep_respacing="5", s=1.5))
    written = np.asarray(Image.open(tmp_path / "samples/b.png"))
    np.testing.assert_array_equal(receiver(scene, seed=1), written)
    assert f"{8 * len(stream) / (45 * 32):.4f} bpp" in capsys.readouterr().out


def test_a_later_run_leaves_no_streams_or_maps_of_an_earlier_one(weights, data, tmp_path):
    sampled(flags(weights, data, tmp_path, generated_semantic=data / "valannot"))
    assert len(list(tmp_path.glob("predicted/*"))) == len(list(tmp_path.glob("sempic/*"))) == 2
    sampled(flags(weights, data, tmp_path, num_samples=1, compression_type="resize"))
    assert [path.name for path in tmp_path.glob("predicted/*")] == ["b.png"]
    assert [path.name for path in tmp_path.glob("sempic/*")] == ["b.sempic"]


def test_results_of_nested_folders_can_be_evaluated(weights, data, tmp_path, capsys):
    for part in ("val", "valannot"):
        for name in ("bonn", "ulm"):
            (tmp_path / f"data/{part}/{name}").mkdir(parents=True)
            shutil.copy(data / f"{part}/a.png", tmp_path / f"data/{part}/{name}/a.png")
    sampled(flags(weights, tmp_path / "data", tmp_path / "out"))
    capsys.readouterr()
    command = ["evaluate", str(tmp_path / "out"), "--metrics", "psnr", "--json"]
    assert cli.main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert [picture["name"] for picture in found["pictures"]] == ["bonn/a", "ulm/a"]
    assert found["samples"]["bpp"] > 0


def test_batch_size_is_obeyed_and_each_scene_is_read_once(weights, data, tmp_path, monkeypatch):
    sizes: list[int] = []
    reconstruct_all = sample.reconstruct

    def counted(model, process, batch, **options):
        sizes.append(len(batch))
        return reconstruct_all(model, process, batch, **options)

    opened: list[str] = []

    def watch(module, function, name):
        original = getattr(module, function)
        watched = lambda *a, **k: opened.append(name(a[0])) or original(*a, **k)  # noqa: E731
        monkeypatch.setattr(module, function, watched)

    watch(places, "read_ids", lambda path: path.name)
    watch(places, "read_picture", lambda path: path.name)
    watch(coarse, "encode", lambda _: "coarse")
    monkeypatch.setattr(sample, "reconstruct", counted)
    sampled(flags(weights, data, tmp_path / "two", num_samples=3, batch_size=2))
    assert sizes == [2, 1]
    assert opened == [n for x in "abc" for n in (f"{x}.png", f"{x}.png", "coarse")]
    sampled(flags(weights, data, tmp_path / "one", num_samples=3))
    for name in ("a", "b", "c"):
        files = (tmp_path / f"{folder}/samples/{name}.png" for folder in ("one", "two"))
        one, two = (np.asarray(Image.open(file), int) for file in files)
        assert np.abs(one - two).max() <= 1


def test_the_originals_flags_work_and_flags_without_effect_are_named(
    weights, data, tmp_path, capsys
):
    given = {
        "compression_type": "down+bpg", "compression_level": 28, "input_img": "x.png",
        "large_size": 128, "use_ddim": "yes", "clip_denoised": "t", "class_cond": "y",
        "lr": 1e-4, "crop_size": 72, "num_channels": 32, "num_samples": 1,
    }  # fmt: skip
    sampled(flags(weights, data, tmp_path / "bpg", **given))
    said = capsys.readouterr().err
    for name in ("input_img", "large_size", "lr", "crop_size"):
        assert f"--{name} has no effect here" in said
    assert "compression" not in said
    scene = unpack((tmp_path / "bpg/sempic/a.sempic").read_bytes())
    assert scene.coarse is not None
    assert scene.coarse.cb.shape == (4, 6)  # 4:2:0, as bpgenc has it; the picture is 12×8
    image = np.asarray(Image.open(tmp_path / "bpg/images/a.png"))
    payload = coarse.encode(coarse.downscale(image, 4), quality=28, chroma="420")
    np.testing.assert_array_equal(coarse.decode(payload).y, scene.coarse.y)

    sampled(flags(weights, data, tmp_path / "raw", compression_type="resize", num_samples=1))
    assert not (tmp_path / "raw/sempic").exists()
    small = np.asarray(Image.open(tmp_path / "raw/compressed/a.png"))
    np.testing.assert_array_equal(small, coarse.downscale(image, 4))
    assert "bpp" not in capsys.readouterr().out.splitlines()[-1]


def test_predicted_maps_are_sent_and_human_maps_are_written(weights, data, tmp_path):
    (tmp_path / "maps").mkdir()
    for name in ("a", "b", "c"):
        Image.fromarray(np.full((32, 45), 3, np.uint8)).save(tmp_path / f"maps/{name}.png")
    out = tmp_path / "out"
    given = {"generated_semantic": tmp_path / "maps", "num_samples": 1, "clip_denoised": False}
    sampled(flags(weights, data, out, **given))
    assert (np.asarray(Image.open(out / "predicted/a.png")) == 3).all()
    assert (unpack((out / "sempic/a.sempic").read_bytes()).labels == 3).all()
    human = np.asarray(Image.open(data / "valannot/a.png"))
    np.testing.assert_array_equal(np.asarray(Image.open(out / "labels/a.png")), human)


def test_only_pictures_that_are_sampled_need_a_predicted_map(weights, data, tmp_path):
    (tmp_path / "maps").mkdir()
    Image.fromarray(np.full((32, 45), 3, np.uint8)).save(tmp_path / "maps/a.png")
    given = {"generated_semantic": tmp_path / "maps", "timestep_respacing": 1}
    sampled(flags(weights, data, tmp_path / "out", num_samples=1, **given))
    assert [path.name for path in (tmp_path / "out/samples").iterdir()] == ["a.png"]
    with pytest.raises(InputError, match=r"b\.png: its predicted label map .* is missing"):
        sampled(flags(weights, data, tmp_path / "out", num_samples=2, **given))


def test_a_checkpoint_of_the_original_gives_the_same_samples(weights, data, tmp_path):
    model, process = load_model(weights)
    torch.save(model.state_dict(), tmp_path / "ema_0.9999_000001.pt")
    shape = flags_from_configs(model.config, process)
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    sampled(flags(weights, data, ours, num_samples=1))
    sampled(flags(tmp_path / "ema_0.9999_000001.pt", data, theirs, num_samples=1, **shape))
    assert (ours / "samples/a.png").read_bytes() == (theirs / "samples/a.png").read_bytes()


def test_samples_depend_on_the_solver_and_ddpm_on_the_seed(weights):
    model, process = load_model(weights)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 12, (30, 45), np.uint8)
    small = rng.integers(0, 256, (8, 12, 3), np.uint8)
    seen = {}
    for solver in ("ddpm", "ddim"):
        sampling = SamplingConfig(timestep_respacing="20", solver=solver)
        pair = [
            reconstruct(
                model, process, [Condition(labels=labels, coarse=small, seed=s)], sampling=sampling
            )[0]
            for s in (1, 1, 2)
        ]
        assert pair[0].shape == (30, 45, 3)
        np.testing.assert_array_equal(pair[0], pair[1])
        assert (pair[0] == pair[2]).all() == (solver == "ddim")
        seen[solver] = pair[0]
    assert (seen["ddpm"] != seen["ddim"]).any()


def test_a_picture_of_odd_size_is_padded_and_cropped(weights):
    model, process = load_model(weights)
    small = np.full((9, 13, 3), 90, np.uint8)
    labels = np.zeros((33, 49), np.uint8)
    (picture,) = reconstruct(model, process, [Condition(labels=labels, coarse=small, seed=3)])
    assert picture.shape == (33, 49, 3)
    with pytest.raises(InputError, match="13×9 does not fit"):
        reconstruct(model, process, [Condition(labels=labels[:, :20], coarse=small)])


def test_a_picture_does_not_depend_on_its_batch(weights):
    """Sizes may differ within a batch; rounding differs with the batch size."""
    model, process = load_model(weights)
    rng = np.random.default_rng(2)
    given = [
        Condition(
            labels=rng.integers(0, 12, (rows, 45), np.uint8),
            coarse=rng.integers(0, 256, (-(-rows // 4), 12, 3), np.uint8),
            seed=seed,
        )
        for seed, rows in enumerate((30, 26, 30))
    ]
    sampling = SamplingConfig(timestep_respacing="5", s=1.5)
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    together = reconstruct(model, process, given, sampling=sampling)
    assert set(sizes) == {1, 2}
    for one, picture in zip(given, together, strict=True):
        (alone,) = reconstruct(model, process, [one], sampling=sampling)
        assert picture.shape == alone.shape
        assert np.abs(picture.astype(int) - alone).max() <= 1


def test_sampling_from_the_last_timestep_starts_at_noise(weights):
    """`max_iter_time` 1000 starts at noise, as in the original; 999 at the coarse picture."""
    model, process = load_model(weights)
    labels = np.zeros((16, 16), np.uint8)
    given = [Condition(labels=labels, coarse=np.full((4, 4, 3), 90, np.uint8), seed=7)]
    seen: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    starts = {}
    for ceiling in (999, 1000):
        sampling = SamplingConfig(timestep_respacing="2", max_iter_time=ceiling)
        reconstruct(model, process, given, sampling=sampling)
        assert len(seen) == 2
        starts[ceiling] = seen[0]
        seen.clear()
    assert (starts[999] - (90 / 127.5 - 1)).abs().max() < 1e-6
    noise = torch.randn((1, 3, 16, 16), generator=torch.Generator().manual_seed(7))
    assert torch.equal(starts[1000], noise)


def test_a_checkpoint_decodes_ordinary_files(weights):
    rng = np.random.default_rng(1)
    labels = np.zeros((30, 44), np.uint8)
    payload = coarse.encode(rng.integers(0, 256, (8, 11, 3), np.uint8))
    stream = pack(width=44, height=30, labels=labels, coarse=payload)
    picture = Codec(receiver=PaperReceiver(weights)).decode(stream, steps=2, seed=5)
    assert np.asarray(picture).shape == (30, 44, 3)
    receiver = PaperReceiver(weights)
    with pytest.raises(ModelError, match=r"11 classes, .* cityscapes"):
        receiver(unpack(pack(width=44, height=30, labels=labels, coarse=payload, palette=2)))
    with pytest.raises(InputError, match="coarse"):
        receiver(unpack(pack(width=44, height=30, labels=labels)))
    assert receiver(unpack(pack(width=44, height=30, coarse=payload)), steps=1).any()


def test_sempic_decode_takes_a_checkpoint(weights, tmp_path, capsys):
    """Files → files, from the command line; a `.pt` of the original gives the same picture."""
    rng = np.random.default_rng(1)
    payload = coarse.encode(rng.integers(0, 256, (8, 11, 3), np.uint8))
    labels = rng.integers(0, 12, (30, 44), np.uint8)
    (tmp_path / "a.sempic").write_bytes(pack(width=44, height=30, labels=labels, coarse=payload))
    model, process = load_model(weights)
    shape = flags_from_configs(model.config, process)
    flags = [word for k, v in shape.items() for word in (f"--{k}", str(v))]
    pt, back = tmp_path / "model000001.pt", tmp_path / "back.safetensors"
    assert cli.main(["train", "convert", str(weights), str(pt)]) == 0
    printed = capsys.readouterr().out
    assert "--num_head_channels 16" in printed
    assert "--use_kl False" in printed
    assert len(printed.split()) % 2 == 0  # each flag has a value
    assert cli.main(["train", "convert", str(pt), str(back), *flags]) == 0
    for path in (weights, back):
        out = tmp_path / f"{path.stem}.png"
        argv = ["decode", str(tmp_path / "a.sempic"), "--model", str(path), "-o", str(out)]
        assert cli.main([*argv, "--steps", "3", "--seed", "4"]) == 0
    direct = PaperReceiver(weights)(unpack((tmp_path / "a.sempic").read_bytes()), steps=3, seed=4)
    for name in ("ema", "back"):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"{name}.png")), direct)
    argv = ["decode", str(tmp_path / "a.sempic"), "-o", str(tmp_path / "no.png"), "--model"]
    # The published heads have 64 channels, this network has 32, so its .pt needs flags.
    for bad in (str(pt), str(tmp_path / "absent.pt"), str(tmp_path / "a.sempic")):
        assert cli.main([*argv, bad]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert bad in line
    assert not (tmp_path / "no.png").exists()


def test_a_checkpoint_without_torch_is_refused_in_one_line(weights):
    code = (
        "import sys; sys.modules['torch'] = None\nfrom sempic import receive\n"
        f"try: receive.load({str(weights)!r})\nexcept Exception as e: print(type(e).__name__, e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ModelError")
    assert f"needs torch; {install_hint('train')}" in done.stdout


def test_the_default_is_the_papers_20_steps(weights):
    labels = np.zeros((8, 8), np.uint8)
    payload = coarse.encode(np.full((2, 2, 3), 90, np.uint8))
    scene = unpack(pack(width=8, height=8, labels=labels, coarse=payload))
    receiver = PaperReceiver(weights)
    assert receiver.steps == 20
    codec = Codec(receiver=weights)
    expected = receiver(scene, seed=2)
    np.testing.assert_array_equal(codec.synthesize(scene, seed=2), expected)
    np.testing.assert_array_equal(codec.synthesize(scene, steps=20, seed=2), expected)
    answer = torch.zeros(1, 6, 8, 8)  # counting needs no network
    for steps in (1, 2, 4, 7, 50, 200):
        seen: list[torch.Tensor] = []
        receiver.model.forward = lambda x, t, *_, seen=seen: seen.append(t) or answer
        receiver(scene, steps=steps)
        assert len(seen) == steps
    for bad in ({"steps": 0}, {"seed": -1}):
        with pytest.raises(InputError, match="must be 1 or more"):
            receiver(scene, **bad)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"solver": "euler"}, "solver 'euler' is not one of"),
        ({"num_channels": 64}, r"ema.safetensors: its num_channels is 32, not '64'"),
        ({"noise_schedule": "cosine"}, "noise_schedule is 'linear', not 'cosine'"),
        ({"compression_type": "jpeg"}, "compression type"),
        ({"chroma": "422"}, "chroma"),
        ({"image_path": "pictures"}, "image_path is for cityscapes"),
        ({"eta": 2}, "eta"),
        ({"eta": 0.5}, "eta is for solver ddim, not for ddpm"),
        ({"use_ddim": True, "solver": "unipc"}, "use_ddim is solver ddim, not unipc"),
        ({"use_fp16": True, "use_bf16": True}, "use_fp16 and use_bf16 exclude each other"),
        ({"dropout": "some"}, "dropout takes float, not 'some'"),
        ({"timestep_respacing": "x"}, "timestep_respacing"),
        ({"dataset_mode": "cityscapes"}, "19 classes"),
        ({"model_path": "absent.safetensors"}, "absent"),
        ({"num_samples": -1}, "num_samples"),
    ],
)
def test_wrong_flags_are_refused_by_name(weights, data, tmp_path, changes, named):
    with pytest.raises((ModelError, InputError), match=named):
        sampled(flags(weights, data, tmp_path, **changes))


def test_the_sampling_defaults_are_the_papers():
    assert dataclasses.asdict(SamplingConfig()) == {
        "timestep_respacing": "100",
        "max_iter_time": 200,
        "s": 1.0,
        "solver": "ddpm",
        "eta": 0.0,
        "clip_denoised": True,
    }


def test_an_unwritable_folder_is_named_before_anything_is_sampled(
    weights, data, tmp_path, monkeypatch
):
    monkeypatch.setattr(sample, "reconstruct", None)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file: not a writable folder"):
        sampled(flags(weights, data, tmp_path / "file"))
    with pytest.raises(OutputError, match=r"out\.tar: a folder under the name of a file"):
        sampled(flags(weights, data, tmp_path / "out.tar"))


def test_results_do_not_replace_the_data(weights, tmp_path):
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
        shape = (64, 80, 3) if part == "images" else (64, 80)
        Image.fromarray(np.zeros(shape, np.uint8)).save(tmp_path / part / "a.png")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    with pytest.raises(OutputError, match=r"images/a\.png: would be replaced"):
        sampled(flags(weights, tmp_path, tmp_path, dataset_mode="folder"))
    with pytest.raises(OutputError, match=r"out/new: lies in .*, which is read"):
        sampled(flags(weights, tmp_path, tmp_path / "out/new", dataset_mode="folder"))
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*.*")}


@pytest.mark.parametrize("name", ["data_dir", "generated_semantic", "coarse_path", "image_path"])
def test_results_do_not_lie_where_a_later_run_reads(tmp_path, name):
    given = {"data_dir": "elsewhere", "dataset_mode": "cityscapes", name: str(tmp_path / "read")}
    with pytest.raises(OutputError, match=r"read/out: lies in \S+read, which is read"):
        sample._refuse_replacing([], original.PaperOptions(**given), tmp_path / "read/out")
