from __future__ import annotations

import dataclasses
import json
import pickle
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny import TINY, inputs, tiny_unet

from sempic.diffusion.checkpoints import load_model, open_model, save_model
from sempic.diffusion.flags import command_line, configs_from_flags, flags_from_configs
from sempic.diffusion.gaussian import DiffusionConfig
from sempic.diffusion.original import read_original
from sempic.errors import ModelError, OutputError
from sempic.networks.unet import UNetConfig
from sempic.training import cli

PROCESS = DiffusionConfig(schedule="cosine", prediction="x0", loss="rescaled_mse")


def test_round_trip_keeps_weights_config_and_output(tmp_path: Path) -> None:
    model = tiny_unet()
    path = tmp_path / "model.safetensors"
    save_model(path, model.state_dict(), model.config, PROCESS)
    again, process = load_model(path)
    assert again.config == model.config
    assert process == PROCESS
    with torch.no_grad():
        assert torch.equal(model(*inputs()), again(*inputs()))
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    again.train()(*inputs()).sum().backward()  # loaded weights can be trained on


def test_original_checkpoints_convert_both_ways(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_unet()
    flags = command_line(flags_from_configs(model.config, PROCESS))
    theirs, ours, back = (
        tmp_path / n for n in ("ema_0.9999_000010.pt", "o.safetensors", "back.pt")
    )
    torch.save(model.state_dict(), theirs)
    assert cli.main(["convert", str(theirs), str(ours), *shlex.split(flags)]) == 0
    again, process = load_model(ours)
    assert (again.config, process) == (model.config, PROCESS)
    assert cli.main(["convert", str(ours), str(back)]) == 0
    assert capsys.readouterr().out.strip() == flags
    found = read_original(back)
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(v, found[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_res_blocks": 2, "channel_mult": (1, 1, 2, 4), "attention_resolutions": (16, 8)},
        {"resblock_updown": False, "use_scale_shift_norm": False, "learn_sigma": False},
        {"instance_edges": True, "num_classes": 35, "channel_mult": (1,)},
        {"attention_resolutions": (), "channel_mult": (0.5, 1, 1), "num_classes": 19},
        {"num_classes": 34},
        {"num_classes": 35},
        {"num_classes": 35, "instance_edges": True},
    ],
)
def test_the_tensors_of_a_pt_tell_the_shape(tmp_path: Path, changes: dict[str, Any]) -> None:
    wide = {"num_channels": 64, "num_head_channels": 64, **changes}
    model = tiny_unet(**wide)
    torch.save(model.state_dict(), tmp_path / "model000010.pt")
    again, process = open_model(tmp_path / "model000010.pt")
    assert process.variance == ("learned_range" if model.config.learn_sigma else "fixed_large")
    x = inputs(model.config)
    with torch.no_grad():
        assert torch.equal(model(*x), again(*x))


def test_a_pt_of_something_else_says_so(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match=r"other.pt: .*time_embed.0.weight is missing"):
        open_model(tmp_path / "other.pt")


def test_half_precision_files_load_as_float32(tmp_path: Path) -> None:
    model = tiny_unet()
    half = {k: v.half() for k, v in model.state_dict().items()}
    save_model(tmp_path / "half.safetensors", half, model.config, PROCESS)
    again, _ = load_model(tmp_path / "half.safetensors")
    assert all(p.dtype == torch.float32 for p in again.parameters())


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    weights = tiny_unet().state_dict()
    path = tmp_path / "m.safetensors"
    wide = dataclasses.replace(TINY, num_classes=7)
    save_model(path, weights, wide, PROCESS)
    with pytest.raises(ModelError, match=r"mlp_shared.0.weight is .*expected"):
        load_model(path)
    save_model(path, {k: v for k, v in weights.items() if k != "out.0.bias"}, TINY, PROCESS)
    with pytest.raises(ModelError, match=r"out.0.bias is missing"):
        load_model(path)
    save_model(path, {**weights, "extra": torch.zeros(1)}, TINY, PROCESS)
    with pytest.raises(ModelError, match="extra is unknown"):
        load_model(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match="not the weights of a unet"):
        load_model(path)
    for said, match in (
        ({"unet": {"width": 3}, "diffusion": {}}, "UNetConfig cannot be read"),
        ({"unet": {}}, "DiffusionConfig cannot be read"),
        (3, "not safetensors of ours"),
    ):
        save_file({"a": torch.zeros(1)}, path, metadata={"sempic.unet": json.dumps(said)})
        with pytest.raises(ModelError, match=match):
            load_model(path)
    path.write_bytes(b"junk")
    with pytest.raises(ModelError, match="not safetensors"):
        load_model(path)
    with pytest.raises(ModelError, match="absent"):
        load_model(tmp_path / "absent")
    with pytest.raises(OutputError):
        save_model(tmp_path / "no" / "m.safetensors", weights, TINY, PROCESS)


def test_flags_may_say_how_ours_compute_but_not_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_model(path, tiny_unet().state_dict(), TINY, PROCESS)
    same = {"attention_resolutions": "16", "num_channels": "32", "channel_mult": "1,2"}
    model, _ = open_model(path, {**same, "use_bf16": "t", "dropout": "0.1", "use_kl": "y"})
    assert model.config == dataclasses.replace(TINY, precision="bfloat16")
    for name, value in (
        ("num_classes", "6"), ("predict_xstart", "no"), ("learn_sigma", "f"),
        ("image_size", "64"), ("no_instance", "False"), ("channel_mult", "1,4"),
    ):  # fmt: skip
        with pytest.raises(ModelError, match=rf"m.safetensors: its {name} is .*, not '{value}'"):
            open_model(path, {name: value})


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("unpickled code ran",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_foreign_pickles_run_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil()))
    torch.save({"a": torch.zeros(1), "b": Evil()}, tmp_path / "evil2.pt")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "evil2.pt").read_bytes()[:-30])
    torch.save({"a": 3}, tmp_path / "number.pt")
    names = ("evil.pt", "evil2.pt", "empty.pt", "junk.pt", "cut.pt", "number.pt", "absent.pt")
    for name in names:
        with pytest.raises(ModelError, match=name) as caught:
            read_original(tmp_path / name)
        # PyTorch's own words say how to load such a file all the same
        assert not any(word in str(caught.value).lower() for word in ("weights_only", "trust"))
    assert "unpickled" not in capsys.readouterr().out


PAPER = """
    --data_dir D --dataset_mode cityscapes --lr 1e-4 --batch_size 8
    --attention_resolutions 32,16,8 --diffusion_steps 1000 --image_size 256 --learn_sigma True
    --noise_schedule linear --num_channels 256 --num_head_channels 64 --num_res_blocks 2
    --resblock_updown True --use_fp16 True --use_scale_shift_norm True --use_checkpoint True
    --num_classes 19 --class_cond True --large_size 128 --small_size 64 --no_instance True
"""


def test_the_papers_flags_are_the_defaults_of_our_configs() -> None:
    words = PAPER.split()
    flags = {k[2:]: v for k, v in zip(words[::2], words[1::2], strict=True)}
    unet, process = configs_from_flags(flags)
    assert unet == UNetConfig(use_checkpoint=True, precision="float16")
    assert process == DiffusionConfig()
    assert configs_from_flags(flags_from_configs(unet, process)) == (unet, process)


def test_flags_as_a_shell_takes_them() -> None:
    for changes in ({}, {"channel_mult": (1, 2)}, {"attention_resolutions": ()}):
        unet = UNetConfig(**changes)  # type: ignore[arg-type]
        line = command_line(flags_from_configs(unet, DiffusionConfig()))
        words = shlex.split(line)
        assert ("--channel_mult" in words) == bool(unet.channel_mult)
        flags = {k[2:]: v for k, v in zip(words[::2], words[1::2], strict=True)}
        assert configs_from_flags(flags) == (unet, DiffusionConfig())


def test_flags_of_every_kind() -> None:
    unet, process = configs_from_flags(
        {
            "image_size": 64,
            "channel_mult": "1,2",
            "num_channels": 64,
            "predict_xstart": "y",
            "use_kl": True,
            "rescale_timesteps": "1",
            "attention_resolutions": [16, 8],
            "learn_sigma": False,
            "sigma_small": True,
        }
    )
    assert unet.channel_mult == (1, 2)
    assert unet.attention_resolutions == (16, 8)
    assert unet.instance_edges
    assert unet.num_classes == 151
    assert process == DiffusionConfig(
        prediction="x0", loss="rescaled_kl", rescale_timesteps=True, variance="fixed_small"
    )
    for name, value in (
        ("class_cond", "False"),
        ("num_channels", "many"),
        ("learn_sigma", "perhaps"),
        ("noise_schedule", "sigmoid"),
        ("attention_resolutions", "a,b"),
    ):
        with pytest.raises(ModelError, match=name.removeprefix("noise_")):
            configs_from_flags({name: value})
