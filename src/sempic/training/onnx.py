"""Trained networks ⇄ the ONNX files that the product runs.

`sempic train export` folds what only training needs: normalised filters become plain, batch norms
part of their convolutions. `sempic train restore` unfolds it again: the restored network computes
the same, up to the rounding of float16 or 8 bits, and can be trained on.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
import warnings
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper as oh
import onnx.numpy_helper
import onnxruntime as ort
import PIL.Image
import torch
from onnxruntime.quantization import (
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from torch import Tensor, nn

from sempic.diffusion import edm
from sempic.errors import ModelError
from sempic.networks import compact
from sempic.networks.compact import PATCH, CompactConfig, CompactNet
from sempic.networks.segmenter import SegmentationNet, SegmenterConfig
from sempic.networks.weights import (
    load_receiver,
    load_segmenter,
    save_receiver,
    save_segmenter,
)
from sempic.palette import CAMVID, CITYSCAPES, Palette, described, from_description
from sempic.training.data.batches import to_unit
from sempic.training.data.corpus import open_corpus
from sempic.training.data.readers import PICTURES, open_picture
from sempic.training.graph import simplify
from sempic.training.options import ExportOptions, GrowOptions, RestoreOptions
from sempic.training.recipes.receiver import as_cityscapes

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

    def __init__(self, conv: compact._Conv, gain: Tensor) -> None:
        super().__init__()
        norm = conv.weight.flatten(1).norm(dim=1).clamp_min(1e-4)
        self.weight = nn.Parameter(conv.weight * (gain / norm)[:, None, None, None])
        self.stride, self.padding = conv.stride, conv.padding

    def forward(self, x: Tensor, gain: Any = None) -> Tensor:
        return nn.functional.conv2d(x, self.weight, stride=self.stride, padding=self.padding)


def bake(network: CompactNet) -> CompactNet:
    """A copy for inference, with plain filters instead of normalised ones."""
    network = copy.deepcopy(network).eval()
    gains = {network.head: network.head_gain}
    if network.config.label_gains:
        gains |= {network.embed_labels: network.label_gain, network.embed_fine: network.fine_gain}
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, compact._Conv):
                gain = gains[child].detach() if child in gains else torch.ones(1)
                setattr(parent, name, _Plain(child, gain * child.scale))
    return network


class _Segmenter(nn.Module):
    """Bytes in, logits out."""

    def __init__(self, network: SegmentationNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        x = image.permute(0, 3, 1, 2).float() / 255
        logits: Tensor = self.network(x)
        return logits


def fold_pads(model: onnx.ModelProto, feed: dict[str, Any]) -> None:
    """Make what is padded with zeros before a convolution part of it: alone, each such step copies
    its tensor, and twice more for its layout (a seventh of a segmenter's time)."""
    graph = model.graph
    users = {name: node for node in graph.node for name in node.input}
    pads = [n for n in graph.node if n.op_type == "Pad" and users[n.output[0]].op_type == "Conv"]
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    for node in pads:
        sizes = oh.make_tensor_value_info(node.input[1], onnx.TensorProto.INT64, None)
        asked.graph.output.append(sizes)
    session = ort.InferenceSession(asked.SerializeToString(), providers=["CPUExecutionProvider"])
    for node in pads:
        (before,) = session.run([node.input[1]], feed)
        conv = users[node.output[0]]
        sides = next(a for a in conv.attribute if a.name == "pads")
        if any(sides.ints) or before[[0, 1, 4, 5]].any():
            continue
        sides.ints[:] = [int(n) for n in before[[2, 3, 6, 7]]]
        conv.input[0] = node.input[0]
        graph.node.remove(node)
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))


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


def quantise(
    model: Path, feeds: Iterable[dict[str, Any]], names: Collection[str] | None = None
) -> None:
    """Make convolutions of an ONNX file compute in 8-bit integers, in place: those in whose name
    one of `names` is, or all.

    Weights have a scale for each filter, activations one for each tensor, which covers what `feeds`
    bring about. Weights have seven bits: processors without VNNI add pairs of products in 16 bits,
    which eight would overflow.
    """
    convs = [n.name for n in onnx.load(model).graph.node if n.op_type == "Conv"]
    quantize_static(
        model,
        model,
        _Inputs(feeds),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "Relu"],
        nodes_to_quantize=[
            conv for conv in convs if names is None or any(name in conv for name in names)
        ],
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.Percentile,  # a few outliers would widen every step
    )


def first_inputs(folder: Path, config: CompactConfig, count: int = 24) -> Iterator[dict[str, Any]]:
    """What a receiver is given in the first step, of pictures that a corpus trains with.

    Ranges from there serve later steps as well: with theirs added, all would be wider and both
    worse (37 dB instead of 43 between the pictures in one step, instead of 42 in four).
    """
    samples = open_corpus([folder]).part(judged=False)
    rows, columns = 256, 336
    large = [s for s in samples if s.image.shape[0] >= rows and s.image.shape[1] >= columns]
    if large:
        samples = large
    else:  # calibration wants one size
        rows, columns = (min(s.image.shape[axis] for s in samples) for axis in (0, 1))
    rng = np.random.default_rng(0)
    for index in range(count):
        sample = samples[index * len(samples) // count]
        noise = rng.standard_normal((1, 3, rows, columns), np.float32)
        small = torch.from_numpy(sample.coarse[0][: rows // PATCH, : columns // PATCH].copy())
        yield {
            "noisy": np.float32(config.sigma_max) * noise,
            "coarse": to_unit(small)[None].numpy(),
            "labels": np.ascontiguousarray(sample.maps[-1][:rows, :columns])[None],
            "sigma": np.array([config.sigma_max], np.float32),
            "fidelity": np.array([index % 5 == 4], np.float32),
        }


def pictures_of(folder: Path, enlarge: float = 1.5, count: int = 24) -> Iterator[dict[str, Any]]:
    """What a segmenter is given, of pictures that a corpus trains with."""
    samples = open_corpus([folder]).part(judged=False)
    rows, columns = (min(s.image.shape[axis] for s in samples) for axis in (0, 1))
    size = [round(side * enlarge) // 32 * 32 for side in (columns, rows)]
    for index in range(count):
        image = samples[index * len(samples) // count].image[:rows, :columns]
        shown = PIL.Image.fromarray(np.ascontiguousarray(image)).resize(size)
        yield {"image": np.asarray(shown)[None]}


def _write(
    module: nn.Module,
    example: tuple[Tensor, ...],
    names: list[str],
    output: str,
    axes: dict[str, dict[int, str]],
    metadata: dict[str, Any],
    path: Path,
    feeds: Iterable[dict[str, Any]] | None = None,
    quantised: Collection[str] | None = None,
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
    model = onnx.load(part)
    fold_pads(model, {n: x.numpy() for n, x in zip(names, example, strict=True)})
    onnx.save(model, part)
    if feeds is not None:
        quantise(part, feeds, quantised)
        model = onnx.load(part)
    simplify(model)
    halve(model)
    onnx.helper.set_model_props(model, {"sempic": json.dumps(metadata)})
    onnx.checker.check_model(model)
    onnx.save(model, part)
    part.replace(path)


def export_receiver(
    network: CompactNet,
    path: Path,
    *,
    palette: Palette | None = None,
    model_id: int = 1,
    feeds: Iterable[dict[str, Any]] | None = None,
) -> None:
    """Write the denoiser with what `sempic.receive.Receiver` must know about sampling.

    With `feeds`, such as `first_inputs`, its convolutions are quantised (`quantise`). Without a
    palette, the number of classes tells which one of ours it is.
    """
    classes, sizes = network.config.classes, (48, 64)
    example = (
        torch.randn(1, 3, *sizes),
        torch.randn(1, 3, sizes[0] // PATCH, sizes[1] // PATCH),
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
        "sigma_min": edm.SIGMA_MIN,
        "rho": edm.RHO,
        "palette": described(palette or network.palette or _palette(classes)),
        "config": asdict(config),
    }
    names = ["noisy", "coarse", "labels", "sigma", "fidelity"]
    _write(_Denoiser(bake(network)), example, names, "residual", axes, metadata, path, feeds)


def export_segmenter(
    network: SegmentationNet,
    path: Path,
    *,
    palette: Palette | None = None,
    enlarge: float = 1.5,
    feeds: Iterable[dict[str, Any]] | None = None,
) -> None:
    """Write the segmenter: uint8 (1, H, W, 3) → logits (1, C, H / 2, W / 2), for sides that are
    multiples of 32, with how much small pictures are to be enlarged.

    With `feeds`, such as `pictures_of`, the wide convolutions of its decoder are quantised, half of
    its arithmetic; its backbone would suffer.
    """
    example = (torch.zeros(1, 64, 96, 3, dtype=torch.uint8).random_(256),)
    axes = {"image": {1: "height", 2: "width"}, "logits": {2: "rows", 3: "columns"}}
    metadata = {
        "palette": described(palette or network.palette or _palette(network.config.classes)),
        "enlarge": enlarge,
        "voids": True,  # receivers of today's recipes know void
        "config": asdict(network.config),
    }
    wide = ("/smooth.", "/head.0/")
    _write(_Segmenter(network), example, ["image"], "logits", axes, metadata, path, feeds, wide)


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
            stored[node.output[0]] = stored[name] = levels * scale.reshape(
                -1, *[1] * (levels.ndim - 1)
            )
    return stored


def _named(model: onnx.ModelProto, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    stored = {k.removeprefix("network."): v for k, v in _constants(model).items()}
    found = {k: _cropped(v, shapes[k]) for k, v in stored.items() if k in shapes}
    for name, value in found.items():
        if value.shape != shapes[name]:
            raise ModelError(f"{name}: {tuple(value.shape)}, expected {tuple(shapes[name])}")
    return found


def _cropped(weight: Tensor, shape: torch.Size) -> Tensor:
    """A weight without the channels of zeros that `simplify` may have added."""
    if weight.ndim != 4 or weight[:, shape[1] :].any():
        return weight
    return weight[:, : shape[1]]


def restore_receiver(model: onnx.ModelProto, network: CompactNet) -> None:
    """Fill `network` with the denoiser that `export_receiver` wrote.

    Raises:
        ModelError: the file holds another architecture.
    """
    shapes = {k: v.shape for k, v in network.state_dict().items()}
    found = _named(model, shapes)
    gains = {"head_gain", "label_gain", "fine_gain"} & shapes.keys()
    missing = shapes.keys() - found.keys() - gains
    if missing:
        raise ModelError(f"no receiver of this architecture: {sorted(missing)[0]} is missing")
    size = found["head.weight"].flatten(1).norm(dim=1).mean()  # the same for every filter
    found["head_gain"] = size[None] / network.head.scale
    for name, embed in (("label", "embed_labels"), ("fine", "embed_fine")):
        if f"{name}_gain" in gains:
            found[f"{name}_gain"] = found[f"{embed}.weight"].flatten(1).norm(dim=1)
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
    # Quantising sorts the nodes anew, but their weights are numbered as they were executed.
    nodes = [
        n for n in model.graph.node
        if n.op_type == "Conv" and not n.input[1].startswith("network.")
    ]  # fmt: skip
    nodes.sort(key=lambda n: [int(digits) for digits in re.findall(r"Conv_(\d+)", n.input[1])])
    folded = [(stored[n.input[1]], stored[n.input[2]]) for n in nodes]
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
        weight = _cropped(weight, conv.weight.shape)
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
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES)
    if not files:
        raise ModelError(f"{folder}: no pictures here")
    pictures = []
    for path in files[:: max(1, len(files) // count)]:
        pixels = np.array(open_picture(path).convert("RGB"))
        x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        pictures.append(x[..., : x.shape[2] // 32 * 32, : x.shape[3] // 32 * 32])
    return pictures


def _palette(classes: int) -> Palette:
    for palette in (CAMVID, CITYSCAPES):
        if palette.void == classes:
            return palette
    raise ModelError(f"no palette of ours has {classes} classes")


def export(options: ExportOptions) -> None:
    """`sempic train export`."""
    try:
        segmenter = load_segmenter(options.weights)
    except ModelError:
        receiver = load_receiver(options.weights)
        feeds = first_inputs(options.int8, receiver.config) if options.int8 else None
        export_receiver(receiver, options.output, model_id=options.model_id, feeds=feeds)
    else:
        looks = pictures_of(options.int8) if options.int8 else None
        export_segmenter(segmenter, options.output, feeds=looks)
    print(f"{options.output}: {options.output.stat().st_size / 1e6:.1f} MB")


def restore(options: RestoreOptions) -> None:
    """`sempic train restore`."""
    try:
        model = onnx.load(options.model)
    except Exception as error:  # protobuf raises its own classes
        raise ModelError(f"{options.model}: not an ONNX file ({error})") from error
    metadata = {p.key: p.value for p in model.metadata_props}
    about = json.loads(metadata.get("sempic", "{}"))
    config, palette = about.get("config"), None
    names = {i.name for i in model.graph.input}
    if config is None or not names & {"image", "noisy"}:
        raise ModelError(f"{options.model}: no network that `sempic train export` wrote")
    if about.get("palette") is not None:
        palette = from_description(about["palette"])
    if "image" not in names:
        config["widths"] = tuple(config["widths"])
        receiver = CompactNet(CompactConfig(**config))
        restore_receiver(model, receiver)
        save_receiver(receiver.state_dict(), receiver.config, options.output, palette)
        return
    if options.images is None:
        raise ModelError("a segmenter's norms are measured on pictures: say which with --images")
    segmenter = SegmentationNet(SegmenterConfig(**config))
    restore_segmenter(model, segmenter, _batches(options.images))
    save_segmenter(segmenter.state_dict(), segmenter.config, options.output, palette)


def grow_classes(options: GrowOptions) -> None:
    """`sempic train grow`."""
    grown = as_cityscapes(load_receiver(options.weights))
    save_receiver(grown.state_dict(), grown.config, options.output)
