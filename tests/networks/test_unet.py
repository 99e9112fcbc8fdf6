from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny import TINY, inputs, tiny_unet

from sempic.errors import ModelError
from sempic.networks import unet
from sempic.networks.unet import SemanticUNet, UNetConfig, make_condition, timestep_embedding


def meta(config: UNetConfig) -> SemanticUNet:
    with torch.device("meta"):
        return SemanticUNet(config)


def parameter_count(model: SemanticUNet) -> int:
    return sum(p.numel() for p in model.parameters())


def test_the_vectors_network_has_the_originals_parameter_count():
    config = UNetConfig(image_size=64, num_channels=32, num_res_blocks=1, num_head_channels=16)
    assert parameter_count(meta(config)) == 12_028_678  # as the authors' code counts


def test_the_papers_network_builds():
    model = meta(UNetConfig())
    assert parameter_count(model) == sum(
        [
            conv(6, 256),
            256 * 1024 + 1024 + 1024 * 1024 + 1024,
            # encoder: plain blocks per level, with attention where 256 / 2^i is 32, 16 or 8
            2 * plain(256, 256) + plain(256, 256),
            2 * plain(256, 256) + plain(256, 256),
            plain(256, 512) + plain(512, 512) + plain(512, 512),
            2 * plain(512, 512) + 2 * attention(512) + plain(512, 512),
            plain(512, 1024) + plain(1024, 1024) + 2 * attention(1024) + plain(1024, 1024),
            2 * plain(1024, 1024) + 2 * attention(1024),
            2 * spade(1024, 1024) + attention(1024),
            # decoder: a skip enters each block
            2 * spade(2048, 1024) + spade(2048, 1024) + 3 * attention(1024) + spade(1024, 1024),
            2 * spade(2048, 1024) + spade(1536, 1024) + 3 * attention(1024) + spade(1024, 1024),
            spade(1536, 512) + spade(1024, 512) + spade(1024, 512),
            3 * attention(512) + spade(512, 512),
            spade(1024, 512) + spade(1024, 512) + spade(768, 512) + spade(512, 512),
            spade(768, 256) + 2 * spade(512, 256) + spade(256, 256),
            3 * spade(512, 256),
            2 * 256 + conv(256, 6),
        ]
    )


def conv(a: int, b: int, k: int = 3) -> int:
    return a * b * k * k + b


def plain(a: int, b: int) -> int:
    skip = 0 if a == b else conv(a, b, 1)
    return 2 * a + conv(a, b) + (1024 * 2 * b + 2 * b) + 2 * b + conv(b, b) + skip


def spade(a: int, b: int) -> int:
    def norm(n: int) -> int:
        return conv(19, 128) + 2 * conv(128, n)

    skip = 0 if a == b else conv(a, b, 1)
    return norm(a) + conv(a, b) + (1024 * 2 * b + 2 * b) + norm(b) + conv(b, b) + skip


def attention(n: int) -> int:
    return 2 * n + conv(n, 3 * n, 1) + conv(n, n, 1)


@pytest.mark.parametrize("size", [64, 128, 256, 512])
def test_every_size_of_the_original_builds(size):
    model = meta(UNetConfig(image_size=size, num_channels=64, num_res_blocks=1))
    assert len(model.config.widths) == {64: 4, 128: 5, 256: 6, 512: 7}[size]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_scale_shift_norm": False},
        {"resblock_updown": False},
        {"use_new_attention_order": True},
        {"learn_sigma": False},
        {"instance_edges": True},
        {"num_head_channels": -1, "num_heads": 2, "num_heads_upsample": 4},
    ],
)
def test_every_flag_changes_the_network_and_keeps_its_interface(changes):
    model = tiny_unet(**changes)
    x, t, coarse, condition = inputs(model.config)
    with torch.no_grad():
        out = model(x, t, coarse, condition)
        assert out.shape == (2, model.config.out_channels, 16, 24)
        assert out.dtype == torch.float32
        assert not torch.equal(out, model(x, t, coarse, torch.zeros_like(condition)))
        assert not torch.equal(out, model(x, t, -coarse, condition))
        assert not torch.equal(out, model(x, t + 1, coarse, condition))
        alone = model(x[1:], t[1:], coarse[1:], condition[1:])
        torch.testing.assert_close(out[1:], alone, rtol=1e-4, atol=1e-5)
        if changes:
            plain = tiny_unet()
            shapes, others = (
                {name: tensor.shape for name, tensor in network.state_dict().items()}
                for network in (plain, model)
            )
            if shapes == others:  # then the arithmetic differs
                model.load_state_dict(plain.state_dict())
                assert not torch.allclose(
                    model(x, t, coarse, condition), plain(x, t, coarse, condition)
                )


def test_half_precisions_stay_close_to_float32():
    args = inputs()
    with torch.no_grad():
        exact = tiny_unet()(*args)
        for precision, bound in (("bfloat16", 0.1), ("float16", 0.02)):
            out = tiny_unet(precision=precision)(*args)
            assert out.dtype == torch.float32
            error = (out - exact).abs().max() / exact.abs().max()
            assert 0 < error < bound


def test_a_float32_network_obeys_the_autocast_around_it():
    """That of `accelerate launch --mixed_precision bf16`, say."""
    computed = set()
    network, args = tiny_unet(), inputs()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda *call: computed.add(call[-1].dtype))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        network(*args)
    assert computed == {torch.bfloat16}


@pytest.mark.parametrize("new_order", [False, True])
def test_half_precision_attention_fits_fused_kernels(new_order, monkeypatch):
    """The output stays close to float32."""
    attend, seen = unet.F.scaled_dot_product_attention, []

    def watched(*qkv: torch.Tensor) -> torch.Tensor:
        seen.extend(qkv)
        return attend(*qkv)

    monkeypatch.setattr(unet.F, "scaled_dot_product_attention", watched)
    torch.manual_seed(0)
    block = unet.AttentionBlock(
        dataclasses.replace(TINY, use_new_attention_order=new_order, num_head_channels=16), 32
    )
    torch.nn.init.normal_(block.proj_out.weight)
    x = torch.randn(2, 32, 4, 6)
    unused = torch.zeros(0)
    with torch.no_grad():
        exact = block(x, unused, unused)
        assert not seen
        with torch.autocast("cpu", torch.bfloat16):
            half = block(x.bfloat16(), unused, unused)
    assert [tuple(tensor.shape) for tensor in seen] == 3 * [(1, 4, 24, 16)]
    assert all(tensor.stride(-1) == 1 for tensor in seen)
    torch.testing.assert_close(half.float(), exact, rtol=0.05, atol=0.05 * float(exact.abs().max()))


def test_checkpointing_changes_no_gradient():
    args = inputs()
    gradients = []
    for recompute in (False, True):
        model = tiny_unet(use_checkpoint=recompute).train()
        model(*args).square().mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_the_timestep_embedding_is_the_papers():
    e = timestep_embedding(torch.tensor([0, 5]), 8)
    assert e[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    angles = 5 * torch.tensor([1, 0.1, 0.01, 0.001])
    torch.testing.assert_close(e[1], torch.cat([angles.cos(), angles.sin()]))


def test_the_condition_is_one_hot_and_void_is_zero():
    labels = torch.tensor([[[0, 2], [3, 255]]], dtype=torch.uint8)
    edges = torch.tensor([[[1, 0], [0, 1]]])
    condition = make_condition(labels, 3, edges)
    assert condition.shape == (1, 4, 2, 2)
    assert condition[0, :3].permute(1, 2, 0).tolist() == [
        [[1, 0, 0], [0, 0, 1]],
        [[0, 0, 0], [0, 0, 0]],
    ]
    assert torch.equal(condition[:, 3], edges.float())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"image_size": 100, "channel_mult": ()}, "image_size"),
        ({"num_channels": 24}, "num_channels"),
        ({"num_head_channels": 48}, "attention"),
        ({"num_head_channels": -1, "num_heads": 4, "num_heads_upsample": 3}, "cut by 3"),
        ({"dropout": 1.0}, "dropout"),
        ({"precision": "float8"}, "precision"),
        ({"num_heads": 0}, "num_heads"),
        ({"attention_resolutions": (0,)}, "attention_resolutions"),
    ],
)
def test_impossible_configurations_are_refused_by_name(changes, named):
    with pytest.raises(ModelError, match=named):
        dataclasses.replace(TINY, **changes)


def test_inputs_of_wrong_shapes_are_refused():
    model = tiny_unet()
    x, t, coarse, condition = inputs()
    with pytest.raises(ModelError, match="multiples of 2"):
        model(x[..., :23], t, coarse, condition[..., :23])
    with pytest.raises(ModelError, match="condition has shape"):
        model(x, t, coarse, condition[:, :4])
    with pytest.raises(ModelError, match="coarse has shape"):
        model(x, t, coarse[:1], condition)
