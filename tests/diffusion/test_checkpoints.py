import dataclasses
import json

import pytest
import torch
from safetensors.torch import save_file
from tiny import TINY, inputs, tiny_unet

from sempic.diffusion.checkpoints import load_model, open_model, save_model
from sempic.diffusion.gaussian import DiffusionConfig
from sempic.errors import ModelError, OutputError

PROCESS = DiffusionConfig(schedule="cosine", prediction="x0", loss="rescaled_mse")


def test_a_checkpoint_keeps_weights_config_and_output(tmp_path):
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


def test_half_precision_files_load_as_float32(tmp_path):
    model = tiny_unet()
    half = {k: v.half() for k, v in model.state_dict().items()}
    save_model(tmp_path / "half.safetensors", half, model.config, PROCESS)
    again, _ = load_model(tmp_path / "half.safetensors")
    assert all(p.dtype == torch.float32 for p in again.parameters())


def test_damaged_and_unfit_files_are_named(tmp_path):
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
    for about, match in (
        ({"unet": {"width": 3}, "diffusion": {}}, "UNetConfig cannot be read"),
        ({"unet": {}}, "DiffusionConfig cannot be read"),
        (3, "not safetensors of ours"),
    ):
        save_file({"a": torch.zeros(1)}, path, metadata={"sempic.unet": json.dumps(about)})
        with pytest.raises(ModelError, match=match):
            load_model(path)
    path.write_bytes(b"junk")
    with pytest.raises(ModelError, match="not safetensors"):
        load_model(path)
    with pytest.raises(ModelError, match="absent"):
        load_model(tmp_path / "absent")
    with pytest.raises(OutputError):
        save_model(tmp_path / "no" / "m.safetensors", weights, TINY, PROCESS)


def test_flags_set_the_precision_but_not_the_shape(tmp_path):
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
