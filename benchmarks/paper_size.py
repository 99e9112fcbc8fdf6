"""How much time and memory does the paper's full configuration need on this machine?

    python benchmarks/paper_size.py [--num_channels 64] [--size 128x64]     # smaller, to try

Builds the network of the published flags (256 channels, 19 classes, pictures of 512×256), saves
and loads it, and runs one forward pass and one training step (AdamW, gradient checkpointing) with
one picture. After each stage it prints elapsed seconds, processor seconds, and the peak resident
memory so far. Needs about 16 GiB, and minutes on a CPU.
"""

from __future__ import annotations

import dataclasses
import resource
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from common import in_one_line, new_parser, now, parse_size, save

from sempic.diffusion.checkpoints import load_model, save_model
from sempic.diffusion.gaussian import DiffusionConfig, make_diffusion
from sempic.networks.unet import SemanticUNet, UNetConfig, make_condition

PAPER = UNetConfig(use_checkpoint=True)


def peak_gib() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


@contextmanager
def stage(name: str, report: dict[str, dict[str, float]]) -> Iterator[None]:
    start = now()
    yield
    seconds, cpu = (now() - start).tolist()
    report[name] = {"seconds": seconds, "cpu_seconds": cpu, "peak_gib": peak_gib()}
    print(
        f"{name:14s} {seconds:8.1f} s   {cpu:8.1f} s of CPU   peak {peak_gib():5.1f} GiB",
        flush=True,
    )


@in_one_line()
def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--num_channels", type=int, default=PAPER.num_channels)
    parser.add_argument("--size", type=parse_size, default=(512, 256), metavar="WxH")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    args = parser.parse_args()
    width, height = args.size
    config = dataclasses.replace(PAPER, num_channels=args.num_channels, precision=args.precision)
    if width % config.size_multiple or height % config.size_multiple:
        parser.error(f"--size takes multiples of {config.size_multiple}")
    process = DiffusionConfig()
    report: dict[str, dict[str, float]] = {}
    torch.manual_seed(0)

    with stage("build", report):
        model = SemanticUNet(config)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters:,} parameters; {width}×{height}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        with stage("save", report):
            save_model(path, model.state_dict(), config, process)
        del model
        with stage("load", report):
            model, process = load_model(path)

    x0 = torch.rand(1, 3, height, width) * 2 - 1
    coarse = torch.nn.functional.avg_pool2d(x0, 4)
    labels = torch.randint(0, 20, (1, height // 16, width // 16))
    labels = labels.repeat_interleave(16, 1).repeat_interleave(16, 2)
    condition = make_condition(labels, config.num_classes)
    diffusion, i, noise = make_diffusion(process), torch.tensor([500]), torch.randn_like(x0)
    x = diffusion.q_sample(x0, i, noise)
    with stage("forward", report), torch.no_grad():
        out = model(x, diffusion.network_time(i), coarse, condition)
    if not torch.isfinite(out).all():
        raise SystemExit("the forward pass is not finite")

    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    with stage("training step", report):
        out = model(x, diffusion.network_time(i), coarse, condition)
        loss = diffusion.losses(out, x0, x, i, noise).loss.mean()
        loss.backward()
        optimizer.step()
    if not torch.isfinite(loss):
        raise SystemExit("the loss is not finite")
    print(f"loss {loss.item():.4f}")
    save(args, {"parameters": parameters, **report})


if __name__ == "__main__":
    main()
