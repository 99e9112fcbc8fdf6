from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sempic.diffusion.checkpoints import configs_from_flags, load_model
from sempic.diffusion.gaussian import DiffusionConfig
from sempic.errors import InputError, ModelError, OutputError
from sempic.networks.unet import UNetConfig, make_condition
from sempic.networks.weights import load_tensors
from sempic.training import flags as original
from sempic.training.checkpoint import Folder
from sempic.training.data.scenes import coarse_factor, crop_size
from sempic.training.recipes import paper
from sempic.training.trainer import train

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Five small CamVid-like scenes whose colours follow the labels, so networks can learn them."""
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
        "drop_rate": 0.2, "steps": 6, "log_interval": 2, "save_interval": 3, "workers": 1,
        "sheet_size": 0, "ema_rate": "0.9,0.5", "schedule_sampler": "loss-second-moment",
        "lr_anneal_steps": 20,
    }  # fmt: skip
    chosen.update(changes)
    return [word for k, v in chosen.items() for word in (f"--{k}", str(v))]


def parsed(argv: list[str]) -> Any:
    given = original.paper(argv)
    return original.filled_in(original.PaperOptions, given), *configs_from_flags(given)


def trained(argv: list[str]) -> None:
    paper.run(original.paper(argv))


def newest(out: Path, rate: str = "0.9") -> Path:
    return max(out.glob(f"ema_{rate}_*.safetensors"))


def weights(out: Path, rate: str = "0.9") -> dict[str, torch.Tensor]:
    return dict(load_model(newest(out, rate))[0].state_dict())


def checkpoint(out: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    return load_tensors(out / "state.safetensors", "run")


def logged(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def largest_gap(a: Path, b: Path) -> float:
    one, two = weights(a), weights(b)
    return max(float((one[k] - two[k]).abs().max()) for k in one)


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("straight") / "run"
    trained(flags(data, out, steps=20, save_interval=5, sheet_size=2))
    return out


def test_a_run_writes_checkpoints_log_sheet_and_events(straight):
    assert sorted(p.name for p in straight.glob("*.safetensors")) == [
        *(f"ema_{rate}_{step:06}.safetensors" for rate in (0.5, 0.9) for step in (10, 15, 20)),
        "state.safetensors",
    ]
    log = logged(straight)
    assert [line["step"] for line in log] == list(range(2, 21, 2))
    assert {"loss", "mse", "vb"} < log[-1].keys()
    assert any(key.startswith("loss_q") for key in log[-1])
    with Image.open(straight / "sheet-000020.png") as sheet:
        assert sheet.size == (4 * 20, 2 * 16)
    assert list(straight.glob("events.*"))  # TensorBoard's
    about = checkpoint(straight)[1]
    assert about["step"] == 20
    assert about["fixed"]["drop_rate"] == 0.2
    assert about["fixed"]["num_classes"] == 11


def test_a_short_process_has_sheets_too(data, tmp_path):
    changes = {"steps": 1, "sheet_size": 1, "diffusion_steps": 30, "noise_schedule": "cosine"}
    trained(flags(data, tmp_path / "run", **changes))
    assert (tmp_path / "run/sheet-000001.png").exists()


def test_the_loss_falls(straight):
    log = logged(straight)
    assert np.mean([line["mse"] for line in log[-3:]]) < 0.95 * log[0]["mse"]


class Killed(Exception):
    pass


def test_an_interrupted_run_resumes_to_the_same_weights(straight, data, tmp_path, monkeypatch):
    """test_trainer kills a process."""
    step = paper.Paper.step

    def dies(recipe: paper.Paper, number: int) -> Any:
        if number == 12:
            raise Killed
        return step(recipe, number)

    out = tmp_path / "run"
    argv = flags(data, out, steps=20, save_interval=5, sheet_size=2, save_minutes=0)
    with monkeypatch.context() as patch:
        patch.setattr(paper.Paper, "step", dies)
        with pytest.raises(Killed):
            trained(argv)
    assert checkpoint(out)[1]["step"] == 12
    torch.rand(100)  # the state of global generators does not matter
    trained(argv)
    one, two = checkpoint(straight)[0], checkpoint(out)[0]
    assert one.keys() == two.keys()
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert largest_gap(straight, out) == 0
    assert [line["step"] for line in logged(out)] == list(range(2, 21, 2))


@pytest.mark.parametrize("moment", ["validate", "about", "save"])
def test_a_run_that_is_killed_while_saving_can_be_repeated(data, tmp_path, monkeypatch, moment):
    """The same command then writes all files of the last step."""
    place = {"validate": paper.Paper, "about": paper.Paper, "save": Folder}[moment]
    argv = flags(data, tmp_path / "run", save_interval=1, ema_rate="0", sheet_size=1)
    trained([*argv, "--steps", "1"])

    def dies(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(place, moment, dies)
        with pytest.raises(Killed):
            trained([*argv, "--steps", "2"])
    trained([*argv, "--steps", "2"])
    tensors, about = checkpoint(tmp_path / "run")
    now = weights(tmp_path / "run", "0.0")
    assert about["step"] == 2
    assert all(torch.equal(v, tensors[f"network/{k}"]) for k, v in now.items())
    assert (tmp_path / "run/sheet-000002.png").exists()


def test_sigterm_saves_and_ends_a_run(data, tmp_path):
    """Without --steps a run has no end, as in the original."""
    argv = flags(data, tmp_path, steps=0, lr_anneal_steps=0, save_interval=1000)
    recipe = paper.Paper(*parsed(argv))

    def step(number: int) -> dict[str, torch.Tensor]:
        if number == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return paper.Paper.step(recipe, number)

    recipe.step = step
    train(recipe, recipe.run_options)
    assert checkpoint(tmp_path)[1]["step"] == 4
    assert newest(tmp_path).name == "ema_0.9_000004.safetensors"
    assert recipe.optimizer.adam.param_groups[0]["lr"] == 1e-3


def test_maps_are_dropped_at_the_drop_rate(data, tmp_path, monkeypatch):
    recipe = paper.Paper(*parsed(flags(data, tmp_path, drop_rate=0.4, batch_size=50)))
    seen: list[torch.Tensor] = []

    def descend(*inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append(inputs[2].flatten(1).amax(1))
        return {"loss": torch.zeros(50)}

    monkeypatch.setattr(recipe, "_descend", descend)
    for number in range(4):
        recipe.step(number)
    # the pictures are not all void
    assert (torch.stack(seen) == 0).float().mean().item() == pytest.approx(0.4, abs=0.1)


def test_the_loss_scale_falls_on_overflow():
    scale = paper.LossScale(0.5)
    assert scale(torch.tensor(3.0)) == 3 * 2**20
    gradients = [torch.full((2,), 2.0**21), torch.ones(1)]
    assert scale.undo(gradients)
    assert gradients[0].tolist() == [2.0, 2.0]
    assert scale.log2 == 20.5
    assert not scale.undo([torch.tensor([math.inf])])
    assert scale.log2 == 19.5


def test_the_loss_scale_is_in_the_log(data, tmp_path):
    recipe = paper.Paper(*parsed(flags(data, tmp_path / "run", steps=3, log_interval=1)))
    assert "lg_loss_scale" not in recipe.step(0)
    recipe.unet = dataclasses.replace(recipe.unet, precision="float16")  # the network stays
    train(recipe, recipe.run_options)
    scales = [line["lg_loss_scale"] for line in logged(tmp_path / "run")]
    assert scales == pytest.approx([20, 20.001, 20.002])


def test_microbatches_change_nothing(data, tmp_path):
    for name, micro in (("whole", -1), ("micro", 1)):
        trained(flags(data, tmp_path / name, steps=3, batch_size=3, microbatch=micro))
    # AdamW's first steps have the size of lr, so rounding may flip the sign of tiny gradients.
    assert largest_gap(tmp_path / "whole", tmp_path / "micro") < 1e-4


def test_two_processes_do_what_one_does_with_twice_the_batch(data, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    trained(flags(data, one, steps=3, batch_size=4, log_interval=1))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    argv = flags(data, two, steps=3, batch_size=2, log_interval=1)
    done = subprocess.run(
        [*command, "-m", "sempic.cli", "train", *argv], env=ENVIRONMENT,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for a, b in zip(logged(one), logged(two), strict=True):
        assert a.keys() == b.keys()
        assert all(a[k] == pytest.approx(b[k], rel=1e-6) for k in a if k != "time")
    # AdamW's running means of the gradients and of their squares agree.
    states = [checkpoint(run)[0] for run in (one, two)]
    for name in (".exp_avg", ".exp_avg_sq"):
        a, b = (torch.cat([v.flatten() for k, v in s.items() if k.endswith(name)]) for s in states)
        # float32, summed in another order
        assert float((a - b).abs().max()) <= 1e-5 * float(a.abs().max())
    # The networks' outputs agree.
    models = [load_model(newest(run, "0.5"))[0] for run in (one, two)]
    g = torch.Generator().manual_seed(0)
    x, coarse = torch.randn(2, 3, 16, 24, generator=g), torch.rand(2, 3, 4, 6, generator=g)
    condition = make_condition(torch.randint(0, 12, (2, 16, 24), generator=g), 11)
    with torch.no_grad():
        a, b = (model(x, torch.tensor([3, 700]), coarse, condition) for model in models)
    assert float((a - b).abs().max()) <= 1e-5 * float(a.abs().max())
    # Weights differ more where they do not matter: the gradient of a bias before a normalisation is
    # only rounding, and AdamW scales this rounding up to steps of the size of lr.
    assert largest_gap(one, two) < 1e-4


def test_max_train_time_limits_the_timesteps(data, tmp_path):
    for sampler in ("uniform", "loss-second-moment"):
        argv = flags(data, tmp_path / sampler, max_train_time=9, schedule_sampler=sampler)
        recipe = paper.Paper(*parsed(argv))
        t, _ = recipe.sampler.draw(500, np.random.default_rng(0))
        assert set(t.tolist()) == set(range(10))


def test_fine_tuning_starts_from_the_checkpoint(straight, data, tmp_path):
    torch.save(weights(straight), tmp_path / "model.pt")
    fixed = []
    for number, given in enumerate((newest(straight), tmp_path / "model.pt")):
        argv = flags(data, tmp_path / f"tuned{number}", resume_checkpoint=given)
        recipe = paper.Paper(*parsed(argv))
        recipe.prepare()
        assert recipe.first == 0
        fixed.append(recipe.fixed())
        average = recipe.averages["ema_0.9"].state
        for state in (recipe.network.state_dict(), average):
            assert all(torch.equal(v, state[k]) for k, v in weights(straight).items())
    first, second = fixed  # a resumed run refuses another file
    assert {k for k in first if first[k] != second[k]} == {
        "content of --resume_checkpoint (SHA-256)"
    }


@pytest.mark.parametrize("flattened", [False, True], ids=["use_fp16 False", "use_fp16 True"])
def test_a_run_of_the_original_resumes(straight, data, tmp_path, flattened):
    """From modelNNNNNN.pt, with the step of its name and the ema_… and opt… files beside it."""
    first = paper.Paper(*parsed(flags(data, straight)))
    first_averages = {name: average.state for name, average in first.averages.items()}
    moving = {"network": first.network, "network.optimizer": first.optimizer.adam}
    Folder(straight).load({**moving, "average2": first_averages["ema_0.5"]}, {})
    model = first.network.state_dict()
    means = first.optimizer.adam.state_dict()["state"]
    torch.save(model, tmp_path / "model000020.pt")
    torch.save(first_averages["ema_0.5"], tmp_path / "ema_0.5_000020.pt")
    if flattened:  # guided-diffusion's mixed precision: all vectors as one, then all the rest
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
    argv = flags(
        data, tmp_path / "on", resume_checkpoint=tmp_path / "model000020.pt", lr=5e-4, steps=21,
        lr_anneal_steps=0,
    )  # fmt: skip
    recipe = paper.Paper(*parsed(argv))
    recipe.prepare()
    assert recipe.first == 20
    averages = {name: average.state for name, average in recipe.averages.items()}
    assert all(torch.equal(v, model[k]) for k, v in averages["ema_0.9"].items())  # no such file
    assert all(torch.equal(v, averages["ema_0.5"][k]) for k, v in first_averages["ema_0.5"].items())
    ours = recipe.optimizer.adam.state_dict()
    assert ours["param_groups"][0]["lr"] == 5e-4
    for number, entry in ours["state"].items():
        assert all(torch.equal(entry[key], means[number][key]) for key in entry)
    trained(argv)  # one more step, numbered as in the original
    assert checkpoint(tmp_path / "on")[1]["step"] == 21
    assert newest(tmp_path / "on").name == "ema_0.9_000021.safetensors"
    torch.save(model, tmp_path / "ema_0.99_000020.pt")
    with pytest.raises(ModelError, match=r"ema_0.99_000020.pt: add its rate to --ema_rate, or"):
        paper.Paper(*parsed(argv)).prepare()
    (tmp_path / "ema_0.99_000020.pt").unlink()
    (tmp_path / "opt000020.pt").write_bytes(b"junk")
    with pytest.raises(ModelError, match=r"opt000020.pt"):
        paper.Paper(*parsed(argv)).prepare()


def test_a_checkpoint_of_another_network_is_refused(straight, data, tmp_path):
    given = newest(straight)
    for changes, named in (
        ({"num_head_channels": 32}, "num_head_channels is 16, not 32"),
        ({"noise_schedule": "cosine"}, "noise_schedule is 'linear', not 'cosine'"),
    ):
        argv = flags(data, tmp_path / "run", resume_checkpoint=given, **changes)
        with pytest.raises(ModelError, match=rf"ema_0.9_000020.safetensors: its {named}"):
            trained(argv)


def test_a_loss_of_nan_stops_the_run_and_names_the_files(data, tmp_path):
    recipe = paper.Paper(*parsed(flags(data, tmp_path / "run")))
    with torch.no_grad():
        next(recipe.network.parameters()).fill_(float("nan"))
    with pytest.raises(ModelError, match=r"step 0: the loss is nan; in the batch: \d, \d"):
        train(recipe, recipe.run_options)


def test_a_folder_that_cannot_be_written_is_named_before_the_data_are_read(tmp_path):
    (tmp_path / "file").write_text("dear")
    with pytest.raises(OutputError, match="file/run: not a writable folder"):
        trained(flags(tmp_path / "no data", tmp_path / "file/run"))


def test_a_run_resumes_only_with_the_same_options(straight, data):
    with pytest.raises(ModelError, match=r"num_channels is 64, but .* began with 32"):
        trained(flags(data, straight, num_channels=64))
    with pytest.raises(ModelError, match="batch_size × processes is 3"):
        trained(flags(data, straight, batch_size=3))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_classes": 19}, "11 classes"),
        ({"batch_size": 0}, "batch_size"),
        ({"microbatch": 3}, "microbatch"),
        ({"ema_rate": "0.9,x"}, "ema_rate"),
        ({"lr": "fast"}, "lr takes float"),
        ({"lr": 0}, "lr must be more than 0"),
        ({"save_minutes": 6}, "save_minutes is 0…5"),
        ({"small_size": 7}, "small_size"),
        ({"crop_size": 20}, "crop_size 20"),
        ({"max_train_time": -1}, "max_train_time"),
        ({"use_bf16": True, "use_fp16": True}, "use_bf16"),
        ({"no_instance": False}, "no instance map: add it, or train with --no_instance True"),
        ({"num_channels": 20}, "num_channels"),
        ({"schedule_sampler": "best"}, "schedule sampler 'best'"),
        ({"resume_checkpoint": "absent.pt"}, "absent.pt"),
    ],
)
def test_wrong_flags_of_a_run_are_refused_by_name(data, tmp_path, changes, named):
    with pytest.raises((ModelError, InputError), match=named):
        trained(flags(data, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_the_preset_equals_the_published_flags():
    published = "--data_dir D " + original.PRESETS["paper-cityscapes"]
    config, unet, process = parsed(published.split())
    again = parsed(["--data_dir", "D", "--preset", "paper-cityscapes"])
    assert again == (config, unet, process)
    assert config.batch_size == 8
    assert unet.num_channels == 256
    assert coarse_factor(config, unet) == 4
    assert crop_size(config, unet) == (256, 512)
    assert (config.quality, config.chroma) == (35, "420")  # what bpgenc -q 35 makes
    config, _, _ = parsed(["--data_dir", "D", "--preset", "paper-cityscapes", "--lr", "2e-5"])
    assert config.lr == 2e-5
    config, unet, _ = parsed(["--data_dir", "D", "--preset", "camvid-small"])
    assert coarse_factor(config, unet) == 4
    assert crop_size(config, unet) == (72, 96)
    assert unet.precision == "bfloat16"


def test_flags_without_effect_are_named_if_the_user_gives_them(capsys):
    argv = ["--data_dir", "D", "--preset", "paper-cityscapes", "--use_fp16", "n"]
    _, unet, _ = parsed(argv)
    assert unet.precision == "float32"
    assert not capsys.readouterr().err  # --large_size is of the preset, not of the user
    config, _, _ = parsed([*argv, "--is_train", "True", "--compression_level", "28"])
    assert config.quality == 28
    assert capsys.readouterr().err.startswith("sempic train: --is_train has no effect here: ")


def test_only_old_averages_are_deleted(tmp_path):
    recipe = object.__new__(paper.Paper)
    recipe.options = original.PaperOptions(data_dir="", dataset_mode="", keep=2)
    recipe.unet, recipe.process = UNetConfig(), DiffusionConfig()
    backup = tmp_path / "ema_0.9_best.safetensors"
    backup.write_bytes(b"mine")
    foreign = tmp_path / "ema_0.9_2000000.safetensors"
    foreign.write_bytes(b"of a run whose checkpoint is gone")
    for step in (999_998, 999_999, 1_000_000):
        recipe.save({}, tmp_path, "ema_0.9", step)
    assert {path.name for path in tmp_path.iterdir()} == {
        "ema_0.9_999999.safetensors", "ema_0.9_1000000.safetensors", backup.name, foreign.name
    }  # fmt: skip
