import shlex

import pytest

from sempic.diffusion.checkpoints import configs_from_flags, flags_from_configs
from sempic.diffusion.flags import command_line
from sempic.diffusion.gaussian import DiffusionConfig
from sempic.errors import ModelError
from sempic.networks.unet import UNetConfig

PAPER = """
    --data_dir D --dataset_mode cityscapes --lr 1e-4 --batch_size 8
    --attention_resolutions 32,16,8 --diffusion_steps 1000 --image_size 256 --learn_sigma True
    --noise_schedule linear --num_channels 256 --num_head_channels 64 --num_res_blocks 2
    --resblock_updown True --use_fp16 True --use_scale_shift_norm True --use_checkpoint True
    --num_classes 19 --class_cond True --large_size 128 --small_size 64 --no_instance True
"""


def test_the_papers_flags_are_the_defaults_of_our_configs():
    words = PAPER.split()
    flags = {k[2:]: v for k, v in zip(words[::2], words[1::2], strict=True)}
    unet, process = configs_from_flags(flags)
    assert unet == UNetConfig(use_checkpoint=True, precision="float16")
    assert process == DiffusionConfig()
    assert configs_from_flags(flags_from_configs(unet, process)) == (unet, process)


def test_flags_survive_a_shell():
    for changes in ({}, {"channel_mult": (1, 2)}, {"attention_resolutions": ()}):
        unet = UNetConfig(**changes)
        line = command_line(flags_from_configs(unet, DiffusionConfig()))
        words = shlex.split(line)
        assert ("--channel_mult" in words) == bool(unet.channel_mult)
        flags = {k[2:]: v for k, v in zip(words[::2], words[1::2], strict=True)}
        assert configs_from_flags(flags) == (unet, DiffusionConfig())


def test_flags_become_configs_and_wrong_values_are_named():
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
