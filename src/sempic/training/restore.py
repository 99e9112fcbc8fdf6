"""`sempic train restore`: ONNX files of `sempic train export` → weights for further training.

The restored network computes the same as the file, up to rounding to float16 or 8 bits: folded
norms become separate again.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import torch
from torch import Tensor, nn

from sempic.errors import JSON_FAULTS, InputError, ModelError, naming, refused
from sempic.evaluation.folders import find_pictures, spread
from sempic.networks.compact import CompactConfig, CompactNet
from sempic.networks.segmenter import SegmentationNet, SegmenterConfig
from sempic.networks.weights import configured, save_network
from sempic.palette import from_description
from sempic.places import apart, read_picture
from sempic.training.options import RestoreOptions


def _constants(model: onnx.ModelProto) -> dict[str, Tensor]:
    """Every stored tensor by name, in float32 if stored as float16 or 8-bit integers."""
    stored = {
        t.name: torch.from_numpy(np.array(onnx.numpy_helper.to_array(t)))
        for t in model.graph.initializer
    }
    for node in model.graph.node:
        # torch's exporter stores equal tensors once: Identity gives them their other names.
        if node.op_type in ("Cast", "Identity") and node.input[0] in stored:
            stored[node.output[0]] = stored[node.input[0]].float()
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            levels, scale = (stored[name].float() for name in node.input[:2])
            name = node.input[0].removesuffix("_quantized")
            scale = scale.reshape(-1, *[1] * (levels.ndim - 1))
            stored[node.output[0]] = stored[name] = levels * scale
    return stored


def _named(model: onnx.ModelProto, own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The model's tensors that have names of the state `own`, in its shapes. Raises ModelError."""
    stored = {k.removeprefix("network."): v for k, v in _constants(model).items()}
    return {k: _cropped(k, v, own[k].shape) for k, v in stored.items() if k in own}


def _cropped(name: str, weight: Tensor, shape: torch.Size) -> Tensor:
    """A weight of this shape, without the zero channels that `graph.simplify` adds. Raises
    ModelError."""
    if weight.ndim == 4 and not weight[:, shape[1] :].any():
        weight = weight[:, : shape[1]]
    if weight.shape != shape:
        raise ModelError(f"{name}: {tuple(weight.shape)}, expected {tuple(shape)}")
    return weight


def restore_receiver(model: onnx.ModelProto, network: CompactNet) -> None:
    """Fill `network` with a denoiser of `export_receiver`. Raises ModelError for another
    architecture."""
    own = network.state_dict()
    found = _named(model, own)
    gains = {"head_gain", "label_gain", "fine_gain"} & own.keys()
    missing = own.keys() - found.keys() - gains
    if missing:
        raise ModelError(f"no receiver of this architecture: {sorted(missing)[0]} is missing")
    size = found["head.weight"].flatten(1).norm(dim=1).mean()  # the same for every filter
    found["head_gain"] = size[None] / network.head.scale
    for name, embed in (("label", "embed_labels"), ("fine", "embed_fine")):
        if f"{name}_gain" in gains:
            found[f"{name}_gain"] = found[f"{embed}.weight"].flatten(1).norm(dim=1)
    network.load_state_dict(found)
    network.normalise()


@torch.no_grad()
def restore_segmenter(
    model: onnx.ModelProto, network: SegmentationNet, pictures: list[Tensor]
) -> None:
    """Fill `network` with a segmenter of `export_segmenter`; its batch norms, which the export
    folded, get statistics of `pictures`.

    Args:
        pictures: float (B, 3, H, W) in [0, 1] each, like the training pictures.

    Raises:
        ModelError: the file holds another architecture.
    """
    folded, own, norm_of = _folded(model), network.eval().state_dict(), _norms(network)
    if len(folded) != len(norm_of):
        raise ModelError(f"{len(folded)} folded convolutions, the network has {len(norm_of)}")
    network.load_state_dict(own | _named(model, own))
    parts = iter(folded)
    moments: dict[nn.Conv2d, list[Tensor]] = {}

    def fill(conv: Any, _: object) -> None:
        if conv in moments:
            return
        weight, bias = next(parts)
        conv.weight.copy_(_cropped("a convolution", weight, conv.weight.shape))
        one, eps = torch.ones_like(bias), norm_of[conv].eps
        _set(norm_of[conv], 0 * one, one - eps, one, bias)  # adds the bias alone, for now
        moments[conv] = []

    def measure(conv: Any, _: object, out: Tensor) -> None:
        moments[conv].append(torch.stack([out.mean((0, 2, 3)), out.square().mean((0, 2, 3))]))

    with contextlib.ExitStack() as hooks:
        for conv in norm_of:
            hooks.enter_context(conv.register_forward_pre_hook(fill))
            hooks.enter_context(conv.register_forward_hook(measure))
        for batch in pictures:
            network(batch)
    for conv, norm in norm_of.items():
        mean, square = torch.stack(moments[conv]).mean(0)
        variance = square - mean.square()
        _set(norm, mean, variance, (variance + norm.eps).sqrt(), norm.bias + mean)


def _folded(model: onnx.ModelProto) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of each convolution with a folded norm, in order of execution."""
    stored = _constants(model)
    # Quantisation reorders the nodes; the numbers in their weights' names keep the order.
    nodes = [
        n for n in model.graph.node
        if n.op_type == "Conv" and not n.input[1].startswith("network.")
    ]  # fmt: skip
    nodes.sort(key=lambda n: [int(digits) for digits in re.findall(r"Conv_(\d+)", n.input[1])])
    return [(stored[n.input[1]], stored[n.input[2]]) for n in nodes]


def _norms(network: nn.Module) -> dict[nn.Conv2d, nn.BatchNorm2d]:
    """The batch norm after each convolution that has one."""
    modules = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    return {
        conv: norm
        for conv, norm in itertools.pairwise(modules)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    }


def _set(norm: nn.BatchNorm2d, *values: Tensor) -> None:
    """Set running mean, running variance, weight and bias."""
    names = ("running_mean", "running_var", "weight", "bias")
    norm.load_state_dict(dict(zip(names, values, strict=True)), strict=False)


def _batches(folder: Path) -> list[Tensor]:
    """At most 32 pictures of a folder, (1, 3, H, W), cropped to multiples of 32."""
    pictures = []
    for path in spread(find_pictures(folder), 32):
        pixels = read_picture(path)
        if min(pixels.shape[:2]) < 32:
            raise InputError(f"{path}: a side is shorter than 32 pixels")
        x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        pictures.append(x[..., : x.shape[2] // 32 * 32, : x.shape[3] // 32 * 32])
    return pictures


def run(options: RestoreOptions) -> None:
    """`sempic train restore`."""
    apart((options.model,), options.output)
    name = options.model
    with refused(ModelError, f"{name}: not an ONNX file", Exception, unfit=True):
        model = onnx.load(name)  # protobuf raises its own classes
    metadata = {p.key: p.value for p in model.metadata_props}
    with refused(ModelError, f"{name}: its metadata are damaged", *JSON_FAULTS, unfit=True):
        about = json.loads(metadata.get("sempic", "{}"))
        config = about.get("config")
    names = {i.name for i in model.graph.input}
    if config is None or not names & {"image", "noisy"}:
        raise ModelError(f"{name}: no network that `sempic train export` wrote")
    network: CompactNet | SegmentationNet
    if "image" not in names:
        network = CompactNet(configured(CompactConfig, config, name))
        with naming(name):
            restore_receiver(model, network)
    elif options.images is None:
        raise ModelError("a segmenter's norms are measured on pictures: say which with --images")
    else:
        network = SegmentationNet(configured(SegmenterConfig, config, name))
        pictures = _batches(options.images)
        with naming(name):
            restore_segmenter(model, network, pictures)
    if about.get("palette") is not None:
        with naming(name, ModelError):
            network.palette = from_description(about["palette"])
    save_network(network, options.output)
