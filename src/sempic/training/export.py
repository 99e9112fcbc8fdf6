"""`sempic train export`: trained networks → the ONNX files that the product runs."""

from __future__ import annotations

import argparse
import copy
import json
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper as oh
import torch
from onnxruntime.quantization import (
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from torch import Tensor, nn

from sempic.diffusion import compact
from sempic.diffusion.compact import CompactConfig, CompactNet
from sempic.errors import ModelError
from sempic.training.compact import load_network, to_tensor
from sempic.training.corpus import transmit
from sempic.training.pairs import load_pairs
from sempic.training.segmenter import SegmentationNet, load_segmenter

OPSET = 18


class _Denoiser(nn.Module):
    """`compact.denoise` with ids instead of planes, as one graph."""

    def __init__(self, network: CompactNet) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, noisy: Tensor, coarse: Tensor, labels: Tensor, sigma: Tensor, fidelity: Tensor
    ) -> Tensor:
        planes = compact.one_hot(labels, self.network.config.classes)
        return compact.denoise(self.network, noisy, coarse, planes, sigma, fidelity)


class _Plain(nn.Module):
    """A convolution whose normalisation has been carried out."""

    def __init__(self, conv: compact._Conv, gain: float) -> None:
        super().__init__()
        norm = conv.weight.flatten(1).norm(dim=1).clamp_min(1e-4)[:, None, None, None]
        self.weight = nn.Parameter(conv.weight / norm * gain)
        self.stride, self.padding = conv.stride, conv.padding

    def forward(self, x: Tensor, gain: Any = None) -> Tensor:
        return nn.functional.conv2d(x, self.weight, stride=self.stride, padding=self.padding)


def bake(network: CompactNet) -> CompactNet:
    """A copy for inference, with plain filters instead of normalised ones."""
    network = copy.deepcopy(network).eval()
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, compact._Conv):
                gain = network.head_gain.item() if child is network.head else 1.0
                setattr(parent, name, _Plain(child, gain * child.scale))
    return network


class _Segmenter(nn.Module):
    """Bytes in, logits out: the mean over the picture and its mirror image."""

    def __init__(self, network: SegmentationNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        x = image.permute(0, 3, 1, 2).float() / 255
        logits: Tensor = self.network(torch.cat([x, x.flip(3)]))
        return (logits[:1] + logits[1:].flip(3)) / 2


def halve(model: onnx.ModelProto) -> None:
    """Store large float32 weights as float16 with a cast, which the runtime folds when it loads."""
    graph = model.graph
    kept, casts = [], []
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != "float32" or values.size < 1024:
            kept.append(tensor)
            continue
        half = onnx.numpy_helper.from_array(values.astype("float16"), f"{tensor.name}.half")
        kept.append(half)
        casts.append(oh.make_node("Cast", [half.name], [tensor.name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)


class _Inputs:
    """A calibration data reader, as ONNX Runtime calls it."""

    def __init__(self, feeds: Iterable[dict[str, Any]]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def quantise(model: Path, feeds: Iterable[dict[str, Any]]) -> None:
    """Make the convolutions of an ONNX file compute in 8-bit integers, in place.

    Weights have a scale for each filter, activations one for each tensor, which covers what `feeds`
    bring about. Weights have seven bits: processors without VNNI add pairs of products in 16 bits,
    which eight would overflow.
    """
    quantize_static(
        model,
        model,
        _Inputs(feeds),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "Relu"],
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.Percentile,  # a few outliers would widen every step
    )


def first_inputs(folder: Path, config: CompactConfig, count: int = 24) -> Iterator[dict[str, Any]]:
    """What a receiver is given in the first step, of pictures of CamVid's train.

    Ranges from there serve later steps as well: with theirs added, all would be wider and both
    worse (37 dB instead of 43 between the pictures in one step, instead of 42 in four).
    """
    pairs = load_pairs(folder / "camvid/train", folder / "camvid/trainannot", (341, 256))
    rng = np.random.default_rng(0)
    for index in range(count):
        pair = pairs[index * len(pairs) // count]
        image, labels = pair.image[:256, :336], pair.labels[:256, :336]
        noise = rng.standard_normal((1, 3, *labels.shape), np.float32)
        small = to_tensor([transmit(image, 4, int(rng.integers(24, 43)))])
        yield {
            "noisy": np.float32(config.sigma_max) * noise,
            "coarse": small.numpy(),
            "labels": np.ascontiguousarray(labels)[None],
            "sigma": np.array([config.sigma_max], np.float32),
            "fidelity": np.array([index % 5 == 4], np.float32),
        }


def _write(
    module: nn.Module,
    example: tuple[Tensor, ...],
    names: list[str],
    output: str,
    axes: dict[str, dict[int, str]],
    metadata: dict[str, Any],
    path: Path,
    feeds: Iterable[dict[str, Any]] | None = None,
) -> None:
    part = path.with_suffix(".part.onnx")
    with warnings.catch_warnings():
        # The tracing exporter is on its way out, but the new one cannot yet say that sides are
        # multiples of 16; torch is pinned, so this is settled when the pin moves.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            example,
            part,
            input_names=names,
            output_names=[output],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    if feeds is not None:
        quantise(part, feeds)
    model = onnx.load(part)
    halve(model)
    onnx.helper.set_model_props(model, {"sempic": json.dumps(metadata)})
    onnx.checker.check_model(model)
    onnx.save(model, part)
    part.replace(path)


def export_receiver(
    network: CompactNet,
    path: Path,
    *,
    model_id: int = 1,
    feeds: Iterable[dict[str, Any]] | None = None,
) -> None:
    """Write the denoiser with what `sempic.receive.Receiver` must know about sampling.

    With `feeds`, such as `first_inputs`, its convolutions are quantised (`quantise`).
    """
    classes, sizes = network.config.classes, (48, 64)
    example = (
        torch.randn(1, 3, *sizes),
        torch.randn(1, 3, sizes[0] // 4, sizes[1] // 4),
        torch.zeros(1, *sizes, dtype=torch.uint8).random_(classes + 1),
        torch.tensor([0.5]),
        torch.tensor([0.0]),
    )
    axes = {
        "noisy": {2: "height", 3: "width"},
        "coarse": {2: "rows", 3: "columns"},
        "labels": {1: "height", 2: "width"},
        "residual": {2: "height", 3: "width"},
    }
    config = network.config
    metadata = {
        "model_id": model_id,
        "sigma_max": config.sigma_max,
        "sigma_min": 0.02,
        "rho": 3.0,
        "config": asdict(config),
    }
    names = ["noisy", "coarse", "labels", "sigma", "fidelity"]
    _write(_Denoiser(bake(network)), example, names, "residual", axes, metadata, path, feeds)


def export_segmenter(
    network: SegmentationNet, path: Path, *, palette: str = "camvid", enlarge: float = 1.5
) -> None:
    """Write the segmenter: uint8 (1, H, W, 3) → logits (1, C, H / 2, W / 2), for sides that are
    multiples of 32, with how much small pictures are to be enlarged."""
    example = (torch.zeros(1, 64, 96, 3, dtype=torch.uint8).random_(256),)
    axes = {"image": {1: "height", 2: "width"}, "logits": {2: "rows", 3: "columns"}}
    metadata = {"palette": palette, "enlarge": enlarge, "config": asdict(network.config)}
    _write(_Segmenter(network), example, ["image"], "logits", axes, metadata, path)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="sempic train export", description="Write trained weights (safetensors) as ONNX."
    )
    parser.add_argument("weights", type=Path, help="compact.safetensors or segmenter.safetensors")
    parser.add_argument("output", type=Path, help="the .onnx file")
    parser.add_argument(
        "--model-id", type=int, default=1, help="number that names the receiver in a stream"
    )
    parser.add_argument(
        "--int8",
        type=Path,
        metavar="DATA",
        help="compute a receiver in 8-bit integers, with ranges from DATA/camvid/train",
    )
    args = parser.parse_args(argv)
    try:
        network = load_segmenter(args.weights)
    except ModelError:
        receiver = load_network(args.weights)
        feeds = first_inputs(args.int8, receiver.config) if args.int8 else None
        export_receiver(receiver, args.output, model_id=args.model_id, feeds=feeds)
    else:
        export_segmenter(network, args.output)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB")
