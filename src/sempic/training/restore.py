"""`sempic train restore`: a bundled ONNX file → weights that training can go on from.

The files that a product ships are folded: normalised filters are plain, batch norms are part of
their convolutions. Restored networks compute the same, up to the rounding of float16 or 8 bits,
and have what training needs again.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import torch
from PIL import Image
from torch import Tensor, nn

from sempic.diffusion.compact import CompactConfig, CompactNet
from sempic.errors import ModelError
from sempic.training.compact import save_network
from sempic.training.pairs import SUFFIXES
from sempic.training.segmenter import SegmentationNet, SegmenterConfig, save_segmenter


def _constants(model: onnx.ModelProto) -> dict[str, Tensor]:
    """Every stored tensor by name, float16 and 8-bit ones under their names in float32."""
    stored = {
        t.name: torch.from_numpy(np.array(onnx.numpy_helper.to_array(t)))
        for t in model.graph.initializer
    }
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] in stored:
            stored[node.output[0]] = stored[node.input[0]].float()
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            levels, scale = (stored[name].float() for name in node.input[:2])
            name = node.input[0].removesuffix("_quantized")
            stored[name] = levels * scale.reshape(-1, *[1] * (levels.ndim - 1))
    return stored


def _named(model: onnx.ModelProto, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    stored = {k.removeprefix("network."): v for k, v in _constants(model).items()}
    found = {k: v for k, v in stored.items() if k in shapes}
    for name, value in found.items():
        if value.shape != shapes[name]:
            raise ModelError(f"{name}: {tuple(value.shape)}, expected {tuple(shapes[name])}")
    return found


def restore_receiver(model: onnx.ModelProto, network: CompactNet) -> None:
    """Fill `network` with the denoiser that `sempic.training.export` wrote.

    Raises:
        ModelError: the file holds another architecture.
    """
    shapes = {k: v.shape for k, v in network.state_dict().items()}
    found = _named(model, shapes)
    missing = shapes.keys() - found.keys() - {"head_gain"}
    if missing:
        raise ModelError(f"no receiver of this architecture: {sorted(missing)[0]} is missing")
    size = found["head.weight"].flatten(1).norm(dim=1).mean()  # the same for every filter
    found["head_gain"] = size[None] / network.head.scale
    network.load_state_dict(found)
    network.normalise()


def _pairs(network: nn.Module) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions and the norms that follow them, in the order of their definition."""
    modules = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    for module, after in itertools.pairwise(modules):
        if isinstance(module, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
            yield module, after


@torch.no_grad()
def restore_segmenter(
    model: onnx.ModelProto, network: SegmentationNet, pictures: list[Tensor]
) -> None:
    """Fill `network` with a folded segmenter; measure on `pictures` what its norms had measured.

    Args:
        pictures: float (B, 3, H, W) in [0, 1] each, such as it will be trained on.

    Raises:
        ModelError: the file holds another architecture.
    """
    network.eval()
    stored = _constants(model)
    folded = [
        (stored[n.input[1]], stored[n.input[2]])
        for n in model.graph.node
        if n.op_type == "Conv" and not n.input[1].startswith("network.")
    ]
    order: list[nn.Conv2d] = []  # as executed, which is how the exporter wrote them
    follower = dict(_pairs(network))
    hooks = [
        conv.register_forward_hook(lambda module, _, __: order.append(module)) for conv in follower
    ]
    network(pictures[0][:1])
    for hook in hooks:
        hook.remove()
    if len(order) != len(folded):
        raise ModelError(f"{len(folded)} folded convolutions, the network has {len(order)}")
    network.load_state_dict(
        network.state_dict() | _named(model, {k: v.shape for k, v in network.state_dict().items()})
    )
    for conv, (weight, bias) in zip(order, folded, strict=True):
        if weight.shape != conv.weight.shape:
            raise ModelError(f"{tuple(weight.shape)}, expected {tuple(conv.weight.shape)}")
        norm = follower[conv]
        conv.weight.copy_(weight)
        norm.running_mean.zero_()  # type: ignore[union-attr]
        norm.running_var.fill_(1 - norm.eps)  # type: ignore[union-attr]
        norm.weight.fill_(1)
        norm.bias.copy_(bias)
    means: dict[nn.Conv2d, list[Tensor]] = {conv: [] for conv in order}
    squares: dict[nn.Conv2d, list[Tensor]] = {conv: [] for conv in order}

    def measure(conv: nn.Module, _: object, out: Tensor) -> None:
        assert isinstance(conv, nn.Conv2d)
        means[conv].append(out.mean((0, 2, 3)))
        squares[conv].append(out.square().mean((0, 2, 3)))

    hooks = [conv.register_forward_hook(measure) for conv in order]
    for batch in pictures:
        network(batch)
    for hook in hooks:
        hook.remove()
    for conv in order:
        norm = follower[conv]
        mean = torch.stack(means[conv]).mean(0)
        var = torch.stack(squares[conv]).mean(0) - mean.square()
        norm.running_mean.copy_(mean)  # type: ignore[union-attr]
        norm.running_var.copy_(var)  # type: ignore[union-attr]
        norm.weight.copy_((var + norm.eps).sqrt())
        norm.bias.add_(mean)


def _batches(folder: Path, count: int = 32) -> list[Tensor]:
    """Some pictures of a folder, one by one, with sides that are multiples of 32."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if not files:
        raise ModelError(f"{folder}: no pictures here")
    pictures = []
    for path in files[:: max(1, len(files) // count)]:
        pixels = np.array(Image.open(path).convert("RGB"))
        x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        pictures.append(x[..., : x.shape[2] // 32 * 32, : x.shape[3] // 32 * 32])
    return pictures


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="sempic train restore",
        description="Turn a bundled ONNX file into weights (safetensors) to train on from.",
    )
    parser.add_argument("model", type=Path, help="receiver.onnx or segmenter.onnx of ours")
    parser.add_argument("output", type=Path, help="the .safetensors file")
    parser.add_argument(
        "--images", type=Path, help="folder of pictures on which a segmenter's norms are measured"
    )
    args = parser.parse_args(argv)
    model = onnx.load(args.model)
    metadata = {p.key: p.value for p in model.metadata_props}
    config = json.loads(metadata.get("sempic", "{}")).get("config")
    names = {i.name for i in model.graph.input}
    if config is None or not names & {"image", "noisy"}:
        raise ModelError(f"{args.model}: no network that `sempic train export` wrote")
    if "image" not in names:
        config["widths"] = tuple(config["widths"])
        receiver = CompactNet(CompactConfig(**config))
        restore_receiver(model, receiver)
        save_network(receiver.state_dict(), receiver.config, args.output)
        return
    if args.images is None:
        raise ModelError("a segmenter's norms are measured on pictures: say which with --images")
    segmenter = SegmentationNet(SegmenterConfig(**config))
    restore_segmenter(model, segmenter, _batches(args.images))
    save_segmenter(segmenter.state_dict(), segmenter.config, args.output)
