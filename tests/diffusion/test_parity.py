"""Agreement with the authors' implementation, on the vectors of the shared folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_unet

from sempic.networks.unet import SemanticUNet, UNetConfig, make_condition

ROOT = Path(__file__).parents[2]


def parity(folder: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own, because kernels are chosen before torch loads."""
    return subprocess.run(
        [sys.executable, "benchmarks/parity.py", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_network_agrees_with_the_original(shared):
    done = parity(shared / "reference/unet")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all within the bars" in done.stdout


def test_a_wrong_tensor_fails_the_comparison(tmp_path):
    """Vectors of our own network pass; changed by 3e-4 of their range, they fail."""
    model = tiny_unet()
    g = torch.Generator().manual_seed(0)
    io = {
        "x": torch.randn(1, 3, 8, 8, generator=g),
        "t": torch.tensor([40]),
        "low_res": torch.rand(1, 3, 2, 2, generator=g),
        "labels": torch.randint(0, 6, (1, 8, 8), generator=g).to(torch.uint8),
    }
    condition = make_condition(io["labels"], 5)
    with torch.no_grad():
        io["forward"] = model(io["x"], io["t"], io["low_res"], condition)
    flags = """{"config": {"image_size": 32, "num_channels": 32, "num_res_blocks": 1,
        "channel_mult": "1,2", "attention_resolutions": "16", "num_head_channels": 16,
        "num_classes": 5, "no_instance": true, "learn_sigma": true, "resblock_updown": true}}"""
    for name in ("right", "wrong"):
        (tmp_path / f"{name}.json").write_text(flags)
        save_file(model.state_dict(), tmp_path / f"{name}.weights.safetensors")
        save_file(io, tmp_path / f"{name}.io.safetensors")
        io["forward"][0, 0, 0, 0] += 3e-4 * io["forward"].abs().max()
    done = parity(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    right, wrong = done.stdout.split("\nwrong ")
    assert "FAIL" not in right
    assert right.endswith(" ok")
    assert "FAIL" in wrong


def test_weights_of_the_original_load_unchanged(shared):
    weights = load_file(shared / "reference/unet/unet32_image64.weights.safetensors")
    config = UNetConfig(image_size=64, num_channels=32, num_res_blocks=1, num_head_channels=16)
    SemanticUNet(config).load_state_dict(weights, strict=True)
