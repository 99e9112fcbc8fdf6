from __future__ import annotations

import pickle
import shlex
from dataclasses import replace

import pytest
import torch
from tiny import inputs, tiny_unet

from sempic import cli
from sempic.diffusion.checkpoints import flags_from_configs, load_model, open_model, save_model
from sempic.diffusion.flags import command_line
from sempic.diffusion.gaussian import DiffusionConfig
from sempic.diffusion.original import read_original
from sempic.errors import ModelError

PROCESS = DiffusionConfig(schedule="cosine", prediction="x0", loss="rescaled_mse")


def test_original_checkpoints_convert_both_ways(tmp_path, capsys):
    model = tiny_unet()
    flags = command_line(flags_from_configs(model.config, PROCESS))
    names = ("ema_0.9999_000010.pt", "o.safetensors", "back.pt")
    theirs, ours, back = (tmp_path / name for name in names)
    torch.save(model.state_dict(), theirs)
    assert cli.main(["train", "convert", str(theirs), str(ours), *shlex.split(flags)]) == 0
    again, process = load_model(ours)
    assert (again.config, process) == (model.config, PROCESS)
    assert cli.main(["train", "convert", str(ours), str(back)]) == 0
    assert capsys.readouterr().out.strip() == flags
    assert cli.main(["train", "convert", "absent.pt", "ours.onnx"]) == 2
    assert "ours.onnx: the name of weights ends in .safetensors" in capsys.readouterr().err
    found = read_original(back)
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(v, found[k]) for k, v in model.state_dict().items())


def test_flags_beside_our_weights_must_fit_them(tmp_path, capsys):
    model = tiny_unet()
    ours, back = tmp_path / "o.safetensors", tmp_path / "back.pt"
    save_model(ours, model.state_dict(), model.config, PROCESS)
    convert = ["train", "convert", str(ours), str(back)]
    assert cli.main([*convert, "--num_classes", "34"]) == 2
    assert f"{ours}: its num_classes is " in capsys.readouterr().err
    assert not back.exists()
    assert cli.main([*convert, "--use_fp16", "True"]) == 0
    assert "--use_fp16 True" in capsys.readouterr().out
    assert cli.main([*convert, "--use_bf16", "True"]) == 2
    assert "knows no bfloat16: give --use_bf16 False" in capsys.readouterr().err
    save_model(ours, model.state_dict(), replace(model.config, precision="bfloat16"), PROCESS)
    assert cli.main([*convert, "--use_bf16", "False"]) == 0
    assert "--use_fp16 False" in capsys.readouterr().out


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
def test_the_shape_follows_from_the_tensors_of_a_pt(tmp_path, changes):
    wide = {"num_channels": 64, "num_head_channels": 64, **changes}
    model = tiny_unet(**wide)
    torch.save(model.state_dict(), tmp_path / "model000010.pt")
    again, process = open_model(tmp_path / "model000010.pt")
    assert process.variance == ("learned_range" if model.config.learn_sigma else "fixed_large")
    x = inputs(model.config)
    with torch.no_grad():
        assert torch.equal(model(*x), again(*x))


def test_a_pt_of_another_network_is_named(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match=r"other.pt: .*time_embed.0.weight is missing"):
        open_model(tmp_path / "other.pt")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("unpickled code ran",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_foreign_pickles_are_refused_and_run_no_code(tmp_path, capsys):
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
        # PyTorch's message would tell how to load the file unsafely.
        assert not any(word in str(caught.value).lower() for word in ("weights_only", "trust"))
    assert "unpickled" not in capsys.readouterr().out
