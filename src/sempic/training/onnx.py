"""`sempic train export`: trained networks → the ONNX files that the product runs.

The export replaces normalised filters by plain ones and folds batch norms into convolutions.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import warnings
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx.helper as oh
import onnx.numpy_helper
import torch
from onnx.utils import Extractor
from onnxruntime import quantization
from onnxruntime.quantization.quant_utils import add_pre_process_metadata
from torch import Tensor, nn

from sempic import files
from sempic.diffusion import edm
from sempic.diffusion.sampling import to_unit
from sempic.errors import InputError, ModelError
from sempic.networks import compact
from sempic.networks.compact import PATCH, CompactConfig, CompactNet
from sempic.networks.efficientnet import same_padding
from sempic.networks.segmenter import SegmentationNet
from sempic.networks.weights import load_network
from sempic.palette import Palette, described
from sempic.pictures import resized
from sempic.places import apart
from sempic.texture import condition_map
from sempic.training.data.corpus import common_size, open_corpus, sent_texture
from sempic.training.graph import simplify
from sempic.training.options import ExportOptions

OPSET = 18
CALIBRATION = 24
"""Number of pictures that determine the ranges of 8-bit activations."""


class _Denoiser(nn.Module):
    """`compact.denoise` with ids instead of one-hot planes."""

    def __init__(self, network: CompactNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, noisy: Tensor, coarse: Tensor, labels: Tensor, *others: Tensor) -> Tensor:
        """`others`: sigma, fidelity and, if the network takes it, texture."""
        planes = compact.one_hot(labels, self.network.config.classes)
        return compact.denoise(self.network, noisy, coarse, planes, *others)


class _Plain(nn.Module):
    """A `compact._Conv` with its normalisation, gain and scale multiplied into the weights."""

    def __init__(self, conv: compact._Conv, gain: Tensor) -> None:
        super().__init__()
        norm = conv.weight.flatten(1).norm(dim=1).clamp_min(1e-4)
        self.weight = nn.Parameter(conv.weight * (gain / norm)[:, None, None, None])
        self.stride, self.padding = conv.stride, conv.padding

    def forward(self, x: Tensor, gain: Any = None) -> Tensor:
        return nn.functional.conv2d(x, self.weight, stride=self.stride, padding=self.padding)


def bake(network: CompactNet) -> CompactNet:
    """A copy for inference whose filters are plain (`_Plain`)."""
    network = copy.deepcopy(network).eval()
    gains = {network.head: network.head_gain}
    if network.config.label_gains:
        gains |= {network.embed_labels: network.label_gain, network.embed_fine: network.fine_gain}
    for name, conv in list(network.named_modules()):
        if isinstance(conv, compact._Conv):
            gain = gains.get(conv, torch.ones(1))
            network.set_submodule(name, _Plain(conv, gain * conv.scale))
    return network


class _Segmenter(nn.Module):
    """The segmenter with uint8 (B, H, W, 3) input."""

    def __init__(self, network: SegmentationNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        x = image.permute(0, 3, 1, 2).float() / 255
        return self.network(x)


def fold_pads(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with each convolution's `same_padding` in the convolution. As a separate node,
    padding copies its tensor, twice more for its layout: a seventh of a segmenter's time."""
    graph = model.graph
    users = {name: node for node in graph.node for name in node.input}
    for pad in [node for node in graph.node if node.op_type == "Pad"]:
        conv = users[pad.output[0]]
        given = {attribute.name: attribute.ints for attribute in conv.attribute}
        before, after = same_padding(given["kernel_shape"][0], given["strides"][0])
        given["pads"][:] = [before, before, after, after]
        conv.input[0] = pad.input[0]
        graph.node.remove(pad)
    inputs, outputs = ([value.name for value in part] for part in (graph.input, graph.output))
    return Extractor(model).extract_model(inputs, outputs)  # without what computed the padding


def halve(model: onnx.ModelProto) -> None:
    """Store large float32 weights as float16 with a Cast, which the runtime folds at loading."""
    graph, count = model.graph, 0
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == "float32" and values.size >= 1024:
            name = tensor.name
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype("float16"), f"{name}.half"))
            cast = oh.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT)
            graph.node.insert(count, cast)
            count += 1


def quantise(
    model: Path,
    feeds: Iterable[dict[str, Any]],
    *,
    names: Collection[str] = ("",),
    apart: Collection[str] = (),
    kinds: Collection[str] = ("Conv",),
) -> None:
    """Make nodes of an ONNX file compute in 8-bit integers, in place.

    Weights have a scale per filter, activations one per tensor. Weights have seven bits: processors
    without VNNI add pairs of products in 16 bits, which eight-bit weights could overflow.

    Args:
        feeds: inputs of the model, which determine the ranges of activations.
        names: parts of the names of the nodes to quantise; default: all.
        apart: parts of the names of those that stay in float.
        kinds: types of these nodes. A Clip between two convolutions costs nothing if it is among
            them, else two conversions.
    """
    reader = SimpleNamespace(get_next=functools.partial(next, iter(feeds), None))
    nodes = [
        node.name
        for node in onnx.load(model).graph.node
        if node.op_type in kinds
        and any(name in node.name for name in names)
        and not any(name in node.name for name in apart)
    ]
    with contextlib.redirect_stdout(None):  # on which the calibrator prints its settings
        quantization.quantize_static(
            model,
            model,
            reader,
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Relu", *kinds],
            nodes_to_quantize=nodes,
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            # outliers would coarsen all steps
            calibrate_method=quantization.CalibrationMethod.Percentile,
        )


def first_inputs(
    folder: Path, config: CompactConfig, palette: Palette | None = None
) -> Iterator[dict[str, Any]]:
    """A receiver's inputs in the first sampling step, for training pictures of a corpus. palette:
    the receiver's; None: any with as many classes.

    Their ranges serve later steps as well. Inputs of later steps would widen all ranges: the PSNR
    against the unquantised network would fall to 37 dB, from 43 for one step and 42 for four.

    Raises InputError before the first one, for no corpus or one of other classes.
    """
    corpus = open_corpus([folder])
    if why := corpus.taxonomy.palette.unlike(config.classes, palette):
        raise InputError(f"{folder}: the receiver knows {why}")
    samples = corpus.part(judged=False)
    rows, columns = 256, 336
    large = [s for s in samples if s.image.shape[0] >= rows and s.image.shape[1] >= columns]
    samples = large or samples
    if not large:  # calibration needs inputs of one size
        rows, columns = common_size(samples)
    rng = np.random.default_rng(0)

    def feed(index: int) -> dict[str, Any]:
        sample = samples[index * len(samples) // CALIBRATION]
        noise = rng.standard_normal((1, 3, rows, columns), np.float32)
        small = torch.from_numpy(sample.coarse[0][: rows // PATCH, : columns // PATCH].copy())
        labels = np.ascontiguousarray(sample.maps[-1][:rows, :columns])
        inputs = {
            "noisy": np.float32(config.sigma_max) * noise,
            "coarse": to_unit(small)[None].numpy(),
            "labels": labels[None],
            "sigma": np.array([config.sigma_max], np.float32),
            "fidelity": np.array([index % 5 == 4], np.float32),
        }
        if config.texture:
            *_, with_map, _ = sample.textures
            inputs["texture"] = condition_map(sent_texture(with_map), labels)[None]
        return inputs

    return map(feed, range(CALIBRATION))


def pictures_of(folder: Path, enlarge: float) -> Iterator[dict[str, Any]]:
    """A segmenter's inputs, for training pictures of a corpus, enlarged by a factor. Raises
    InputError before the first one, for no corpus."""
    samples = open_corpus([folder]).part(judged=False)
    rows, columns = common_size(samples)
    size = round(columns * enlarge) // 32 * 32, round(rows * enlarge) // 32 * 32

    def feed(index: int) -> dict[str, Any]:
        image = samples[index * len(samples) // CALIBRATION].image[:rows, :columns]
        return {"image": resized(image, size)[None]}

    return map(feed, range(CALIBRATION))


def _write(
    module: nn.Module,
    example: dict[str, Tensor],
    output: str,
    axes: dict[str, dict[int, str]],
    metadata: dict[str, Any],
    path: Path,
    feeds: Iterable[dict[str, Any]] | None = None,
    **chosen: Collection[str],
) -> None:
    """Write an ONNX file, whole or not at all; quantised if `feeds` are given. Raises OutputError.

    Args:
        output: name of the only output.
        axes: names of the axes of variable size, by input or output.
        metadata: JSON values, under the key "sempic".
        chosen: the nodes to quantise, as `quantise` takes them.
    """
    files.need_suffix(path, ".onnx", "an ONNX file")
    with files.making(path) as part:  # torch would raise errors of its own for its folder
        with warnings.catch_warnings():
            # The tracing exporter is deprecated, but the new one cannot express that sides are
            # multiples of 16. torch is pinned: decide again when the pin moves.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module.cpu().eval(),  # where the example is
                tuple(example.values()),
                part,
                input_names=list(example),
                output_names=[output],
                dynamic_axes=axes,
                opset_version=OPSET,
                dynamo=False,
            )
        model = fold_pads(onnx.load(part))
        if feeds is not None:
            add_pre_process_metadata(model)  # else the quantiser prints advice
            onnx.save(model, part)
            quantise(part, feeds, **chosen)
            model = onnx.load(part)
        simplify(model)
        halve(model)
        onnx.helper.set_model_props(model, {"sempic": json.dumps(metadata)})
        onnx.checker.check_model(model)
        onnx.save(model, part)


def export_receiver(
    network: CompactNet,
    path: Path,
    *,
    model_id: int = 1,
    feeds: Iterable[dict[str, Any]] | None = None,
) -> None:
    """Write the denoiser, with metadata for the sampler of `sempic.receive.Receiver`.

    With `feeds` (`first_inputs`) its convolutions are quantised (`quantise`).
    """
    config, sizes, grid = network.config, (48, 64), (48 // PATCH, 64 // PATCH)
    example = {
        "noisy": torch.randn(1, 3, *sizes),
        "coarse": torch.randn(1, 3, *grid),
        "labels": torch.zeros(1, *sizes, dtype=torch.uint8).random_(config.classes + 1),
        "sigma": torch.tensor([0.5]),
        "fidelity": torch.tensor([0.0]),
    }
    axes = {
        "noisy": {2: "height", 3: "width"},
        "coarse": {2: "rows", 3: "columns"},
        "labels": {1: "height", 2: "width"},
        "residual": {2: "height", 3: "width"},
    }
    metadata = {
        "model_id": model_id,
        "sigma_max": config.sigma_max,
        "sigma_min": edm.SIGMA_MIN,
        "rho": edm.RHO,
        "palette": described(_palette(network)),
        "config": asdict(config),
    }
    if config.texture:
        axes["texture"] = axes["coarse"]
        example["texture"] = torch.zeros(1, config.texture, *grid)
    _write(_Denoiser(bake(network)), example, "residual", axes, metadata, path, feeds)


def export_segmenter(
    network: SegmentationNet,
    path: Path,
    *,
    feeds: Iterable[dict[str, Any]] | None = None,
    whole: bool = False,
) -> None:
    """Write the segmenter: uint8 (1, H, W, 3) → logits (1, C, H / 2, W / 2); H and W are multiples
    of 32. The metadata has the factor by which small pictures are enlarged.

    With `feeds` (`pictures_of`) the wide convolutions of its decoder are quantised, which are half
    of the arithmetic, or all (`whole`) but the first, which need precision: half the time.
    """
    example = {"image": torch.zeros(1, 64, 96, 3, dtype=torch.uint8).random_(256)}
    axes = {"image": {1: "height", 2: "width"}, "logits": {2: "rows", 3: "columns"}}
    metadata = {
        "palette": described(_palette(network)),
        "enlarge": network.config.enlarge,
        "voids": True,  # receivers trained by the present recipes accept void
        "config": asdict(network.config),
    }
    chosen: dict[str, Collection[str]] = {"names": ("/smooth.", "/head.0/")}
    if whole:
        chosen = {"apart": ("/_conv_stem/", "/_blocks.0/"), "kinds": ("Conv", "Clip", "Add")}
    _write(_Segmenter(network), example, "logits", axes, metadata, path, feeds, **chosen)


def _palette(network: CompactNet | SegmentationNet) -> Palette:
    if network.palette is None:
        raise ModelError(f"no palette of ours has {network.config.classes} classes")
    return network.palette


def export(options: ExportOptions) -> None:
    """`sempic train export`."""
    apart((options.weights,), options.output)
    network, corpus = load_network(options.weights), options.int8
    if options.int8_backbone and (corpus is None or isinstance(network, CompactNet)):
        raise ModelError("--int8-backbone is for segmenters, with --int8")
    if isinstance(network, CompactNet):
        feeds = first_inputs(corpus, network.config, network.palette) if corpus else None
        export_receiver(network, options.output, model_id=options.model_id, feeds=feeds)
    else:
        if options.model_id != ExportOptions.model_id:
            raise ModelError("--model-id is for receivers: a segmenter has none")
        feeds = pictures_of(corpus, network.config.enlarge) if corpus else None
        export_segmenter(network, options.output, feeds=feeds, whole=options.int8_backbone)
    print(f"{options.output}: {options.output.stat().st_size / 1e6:.1f} MB")
