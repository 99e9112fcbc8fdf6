from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sempic.diffusion.checkpoints import load_model
from sempic.errors import InputError, ModelError
from sempic.networks.unet import make_condition
from sempic.training.recipes import paper

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five small CamVid-like scenes: colour follows the label, so there is something to learn."""
    root = tmp_path_factory.mktemp("camvid")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in range(5):
            labels = np.repeat(np.repeat(rng.integers(0, 12, (4, 6), np.uint8), 16, 0), 16, 1)
            image = (labels[..., None] * [20, 10, 5]).astype(np.uint8)
            for folder, array in ((split, image), (f"{split}annot", labels)):
                (root / folder).mkdir(exist_ok=True)
                Image.fromarray(array).save(root / folder / f"{name}.png")
    return root


def flags(data: Path, out: Path, **changes: Any) -> list[str]:
    chosen = {
        "data_dir": data, "dataset_mode": "camvid", "out": out, "image_size": 16,
        "channel_mult": "1,1", "num_channels": 32, "num_res_blocks": 1, "num_classes": 11,
        "attention_resolutions": "8", "num_head_channels": 16, "no_instance": True,
        "learn_sigma": True, "resblock_updown": True, "batch_size": 2, "lr": 1e-3,
        "drop_rate": 0.2, "steps": 6, "log_interval": 2, "save_interval": 3, "workers": 0,
        "sheet_size": 0, "ema_rate": "0.9,0.5", "schedule_sampler": "loss-second-moment",
        "lr_anneal_steps": 20,
    }  # fmt: skip
    chosen.update(changes)
    return [word for k, v in chosen.items() for word in (f"--{k}", str(v))]


def weights(out: Path, rate: str = "0.9") -> dict[str, torch.Tensor]:
    return dict(load_model(out / f"ema_{rate}.safetensors")[0].state_dict())


def largest_gap(a: Path, b: Path) -> float:
    one, two = weights(a), weights(b)
    return max(float((one[k] - two[k]).abs().max()) for k in one)


@pytest.fixture(scope="module")
def straight(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("straight") / "run"
    paper.main(flags(data, out, steps=20, save_interval=5, sheet_size=2))
    return out


def test_a_run_leaves_everything_behind(straight: Path) -> None:
    assert sorted(p.name for p in straight.glob("*.safetensors")) == [
        "ema_0.5.safetensors",
        "ema_0.9.safetensors",
    ]
    kept = sorted(p.name for p in (straight / "checkpoints").iterdir())
    assert kept == [f"state-{step:09d}.pt" for step in (10, 15, 20)]
    log = [json.loads(line) for line in (straight / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == list(range(2, 21, 2))
    assert {"loss", "mse", "vb", "images_per_s"} < log[-1].keys()
    assert any(key.startswith("loss_q") for key in log[-1])
    with Image.open(straight / "sheets/000000020.png") as sheet:
        assert sheet.size == (4 * 20, 2 * 16)
    config = json.loads((straight / "config.json").read_text())
    assert config["train"]["drop_rate"] == 0.2
    assert config["unet"]["num_classes"] == 11


def test_it_learns(straight: Path) -> None:
    log = [json.loads(line) for line in (straight / "log.jsonl").read_text().splitlines()]
    assert np.mean([line["mse"] for line in log[-3:]]) < 0.95 * log[0]["mse"]


def test_a_killed_run_goes_on_as_if_it_had_not_been(
    straight: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    argv = flags(data, out, steps=20, save_interval=5, sheet_size=2)
    process = subprocess.Popen(
        [sys.executable, "-m", "sempic.training.recipes.paper", *argv], env=ENVIRONMENT,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until = time.monotonic() + 240
    while not (out / "checkpoints/state-000000010.pt").exists() and time.monotonic() < until:
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    torch.rand(100)  # whatever happens to global generators in between
    paper.main(argv)
    assert largest_gap(straight, out) <= 1e-5
    steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(2, 21, 2))


class Killed(Exception):
    pass


@pytest.mark.parametrize("moment", ["save_model", "write_sheet", "torch.save", "os.replace"])
def test_a_run_that_dies_while_it_saves(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Whatever was written by then, the same command ends with everything of the last step."""
    place, name = {
        "save_model": (paper, "save_model"),
        "write_sheet": (paper.Trainer, "_write_sheet"),
        "torch.save": (torch, "save"),
        "os.replace": (paper.os, "replace"),
    }[moment]
    argv = flags(data, tmp_path / "run", steps=2, save_interval=1, ema_rate="0", sheet_size=1)
    paper.main([*argv, "--steps", "1"])
    with monkeypatch.context() as patch:
        rename = os.replace

        def dies(*args: Any, **_: Any) -> None:
            if moment == "os.replace" and "state-" not in str(args[1]):
                return rename(*args)
            raise Killed

        patch.setattr(place, name, dies)
        with pytest.raises(Killed):
            paper.main(argv)
    paper.main(argv)
    state = torch.load(tmp_path / "run/checkpoints/state-000000002.pt", weights_only=True)
    now = weights(tmp_path / "run", "0")
    assert all(torch.equal(now[k], v) for k, v in state["model"].items())
    assert (tmp_path / "run/sheets/000000002.png").exists()


def test_microbatches_change_nothing(data: Path, tmp_path: Path) -> None:
    for name, micro in (("whole", -1), ("micro", 1)):
        paper.main(flags(data, tmp_path / name, steps=3, batch_size=3, microbatch=micro))
    # AdamW's first steps have the size of lr whatever the gradient: signs of tiny ones may differ.
    assert largest_gap(tmp_path / "whole", tmp_path / "micro") < 1e-4


def test_two_processes_do_what_one_does_with_twice_the_batch(data: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    paper.main(flags(data, one, steps=3, batch_size=4, log_interval=1))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    argv = flags(data, two, steps=3, batch_size=2, log_interval=1)
    done = subprocess.run(
        [*command, "-m", "sempic.training.recipes.paper", *argv], env=ENVIRONMENT,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    logs = [
        [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        for run in (one, two)
    ]
    for a, b in zip(*logs, strict=True):
        assert a.keys() == b.keys()
        assert all(a[k] == pytest.approx(b[k], rel=1e-6) for k in a if k != "images_per_s")
    # What the steps are made of: the running means of the gradients and of their squares.
    states = [
        torch.load(run / "checkpoints/state-000000003.pt", weights_only=True)["optimizer"]["state"]
        for run in (one, two)
    ]
    for name in ("exp_avg", "exp_avg_sq"):
        a, b = (torch.cat([p[name].flatten() for p in s.values()]) for s in states)
        # float32, summed in another order
        assert float((a - b).abs().max()) <= 1e-5 * float(a.abs().max())
    # And what they come to: the networks' outputs.
    models = [load_model(run / "ema_0.5.safetensors")[0] for run in (one, two)]
    g = torch.Generator().manual_seed(0)
    x, coarse = torch.randn(2, 3, 16, 24, generator=g), torch.rand(2, 3, 4, 6, generator=g)
    condition = make_condition(torch.randint(0, 12, (2, 16, 24), generator=g), 11)
    with torch.no_grad():
        a, b = (model(x, torch.tensor([3, 700]), coarse, condition) for model in models)
    assert float((a - b).abs().max()) <= 1e-5 * float(a.abs().max())
    # The weights themselves stray further where they do not matter: the gradient of a bias before
    # a normalisation is nothing but rounding, which AdamW scales up to steps of the size of lr.
    assert largest_gap(one, two) < 1e-4


def test_a_ceiling_on_the_timesteps_that_are_learned(data: Path, tmp_path: Path) -> None:
    for sampler in ("uniform", "loss-second-moment"):
        config, unet, process = paper.parse(
            flags(data, tmp_path / sampler, max_train_time=9, schedule_sampler=sampler)
        )
        t, _ = paper.Trainer(config, unet, process).sampler.draw(500, np.random.default_rng(0))
        assert set(t.tolist()) == set(range(10))


def test_fine_tuning_begins_with_the_given_weights(
    straight: Path, data: Path, tmp_path: Path
) -> None:
    torch.save(weights(straight), tmp_path / "model.pt")
    for number, given in enumerate((straight / "ema_0.9.safetensors", tmp_path / "model.pt")):
        config, unet, process = paper.parse(
            flags(data, tmp_path / f"tuned{number}", resume_checkpoint=given)
        )
        trainer = paper.Trainer(config, unet, process)
        assert trainer.step == 0
        assert all(
            torch.equal(v, weights(straight)[k]) for k, v in trainer.network.state_dict().items()
        )
        average = trainer.ema[0.9]
        assert all(torch.equal(v, average[k]) for k, v in weights(straight).items())


@pytest.mark.parametrize("flattened", [False, True], ids=["use_fp16 False", "use_fp16 True"])
def test_a_run_of_the_original_goes_on(
    straight: Path, data: Path, tmp_path: Path, flattened: bool
) -> None:
    """With the step of modelNNNNNN.pt, and with ema_… and opt… beside it."""
    state = torch.load(straight / "checkpoints/state-000000020.pt", weights_only=True)
    model, means = state["model"], state["optimizer"]["state"]
    torch.save(model, tmp_path / "model000020.pt")
    torch.save(state["ema"]["0.5"], tmp_path / "ema_0.5_000020.pt")
    if flattened:  # as guided-diffusion's mixed precision keeps them: vectors, then the rest
        groups = [[i for i, w in enumerate(model.values()) if (w.dim() > 1) == r] for r in (0, 1)]
        theirs = {
            number: {"step": means[0]["step"]} | {
                key: torch.cat([means[i][key].flatten() for i in group]).view(*shape)
                for key in ("exp_avg", "exp_avg_sq")
            }
            for number, (group, shape) in enumerate(zip(groups, ((-1,), (1, -1)), strict=True))
        }  # fmt: skip
    else:
        theirs = means
    torch.save({"state": theirs, "param_groups": []}, tmp_path / "opt000020.pt")
    argv = flags(data, tmp_path / "on", resume_checkpoint=tmp_path / "model000020.pt", lr=5e-4)
    trainer = paper.Trainer(*paper.parse(argv))
    assert trainer.step == 20
    assert all(torch.equal(v, model[k]) for k, v in trainer.ema[0.9].items())  # no such file
    assert all(torch.equal(v, state["ema"]["0.5"][k]) for k, v in trainer.ema[0.5].items())
    ours = trainer.optimizer.state_dict()
    assert ours["param_groups"][0]["lr"] == 5e-4
    for number, entry in ours["state"].items():
        assert all(torch.equal(entry[key], means[number][key]) for key in entry)
    (tmp_path / "opt000020.pt").write_bytes(b"junk")
    with pytest.raises(ModelError, match=r"opt000020.pt"):
        paper.Trainer(*paper.parse(argv))


def test_weights_of_another_network_are_not_begun_with(
    straight: Path, data: Path, tmp_path: Path
) -> None:
    given = straight / "ema_0.9.safetensors"
    for changes, named in (
        ({"num_head_channels": 32}, "num_head_channels is 16, not 32"),
        ({"noise_schedule": "cosine"}, "noise_schedule is 'linear', not 'cosine'"),
    ):
        argv = flags(data, tmp_path / "run", resume_checkpoint=given, **changes)
        with pytest.raises(ModelError, match=rf"ema_0.9.safetensors: its {named}"):
            paper.main(argv)


def test_a_loss_that_is_not_finite_stops_and_names_the_files(data: Path, tmp_path: Path) -> None:
    config, unet, process = paper.parse(flags(data, tmp_path / "run"))
    trainer = paper.Trainer(config, unet, process)
    with torch.no_grad():
        next(trainer.network.parameters()).fill_(float("nan"))
    with pytest.raises(ModelError, match=r"step 0: the loss is nan; in the batch: \d, \d"):
        trainer.train()


def test_a_run_is_not_continued_as_another(straight: Path, data: Path) -> None:
    with pytest.raises(ModelError, match=r"num_channels is 64, but .* began with 32"):
        paper.main(flags(data, straight, num_channels=64))
    with pytest.raises(ModelError, match="batch_size × processes is 3"):
        paper.main(flags(data, straight, batch_size=3))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_classes": 19}, "11 classes"),
        ({"batch_size": 0}, "batch_size"),
        ({"microbatch": 3}, "microbatch"),
        ({"ema_rate": "0.9,x"}, "ema_rate"),
        ({"lr": "fast"}, "lr takes float"),
        ({"small_size": 7}, "small_size"),
        ({"crop_size": 20}, "crop_size 20"),
        ({"max_train_time": -1}, "max_train_time"),
        ({"use_bf16": True, "use_fp16": True}, "use_bf16"),
        ({"no_instance": False}, "no_instance"),
        ({"num_channels": 20}, "num_channels"),
        ({"schedule_sampler": "best"}, "schedule_sampler"),
        ({"resume_checkpoint": "absent.pt"}, "absent.pt"),
    ],
)
def test_impossible_runs_are_refused_by_name(
    data: Path, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises((ModelError, InputError), match=named):
        paper.main(flags(data, tmp_path / "run", **changes))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_published_flags_and_presets() -> None:
    published = "--data_dir D " + paper.CITYSCAPES
    config, unet, process = paper.parse(published.split())
    again = paper.parse(["--data_dir", "D", "--preset", "paper-cityscapes"])
    assert again == (config, unet, process)
    assert config.batch_size == 8
    assert unet.num_channels == 256
    assert paper.geometry(config, unet) == (4, (256, 512))
    assert (config.quality, config.chroma) == (35, "420")  # what bpgenc -q 35 makes
    config, _, _ = paper.parse(["--data_dir", "D", "--preset", "paper-cityscapes", "--lr", "2e-5"])
    assert config.lr == 2e-5
    config, unet, _ = paper.parse(["--data_dir", "D", "--preset", "camvid-small"])
    assert paper.geometry(config, unet) == (4, (72, 96))
    assert unet.precision == "bfloat16"


def test_flags_without_effect_are_said_once_they_are_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = ["--data_dir", "D", "--preset", "paper-cityscapes", "--use_fp16", "n"]
    _, unet, _ = paper.parse(argv)
    assert unet.precision == "float32"
    assert not capsys.readouterr().err  # the preset's own --large_size is none of the user's
    config, _, _ = paper.parse([*argv, "--is_train", "True", "--compression_level", "28"])
    assert config.quality == 28
    assert capsys.readouterr().err.startswith("sempic train: --is_train has no effect here: ")


def test_crops_keep_coarse_and_fine_together() -> None:
    from sempic.training.data.scenes import TrainingScene

    y, x = np.mgrid[0:64, 0:96].astype(np.uint8)
    image = np.stack([y, x, 0 * x], -1)
    scene = TrainingScene(name="s", image=image, labels=x, edges=y, coarse=image[::4, ::4])
    seen = set()
    for seed in range(20):
        part = paper.crop(scene, (32, 64), 4, np.random.default_rng(seed), flip=True)
        mirrored = part.labels[0, 0] > part.labels[0, 1]
        fine = part.image[::4, 3::4] if mirrored else part.image[::4, ::4]
        np.testing.assert_array_equal(fine, part.coarse)
        np.testing.assert_array_equal(part.labels, part.image[..., 1])
        np.testing.assert_array_equal(part.edges, part.image[..., 0])
        seen.add((bool(mirrored), int(part.image[0, 0, 0])))
    assert {m for m, _ in seen} == {True, False}
    assert len(seen) > 6
