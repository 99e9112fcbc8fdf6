"""Files of label models (`sempic.labels.prior`): `sempic train label-prior export` and `tables`.

`export` turns two trained networks into integers. `tables` adds a readout of the trunk, and the
state of the label coder after it has coded the training maps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from sempic import files
from sempic.errors import ModelError
from sempic.labels import primed, prior, range_coder, trunk
from sempic.labels.causal import HIDDEN, TEMPLATE
from sempic.labels.primed import state
from sempic.labels.trunk import CELL, LAYERS
from sempic.networks.label_prior import LabelPriorNet
from sempic.networks.weights import load_tensors
from sempic.palette import Palette, built_in
from sempic.places import apart
from sempic.training.data import taxonomy
from sempic.training.data.label_maps import Maps, opened
from sempic.training.options import PriorExportOptions, PriorTablesOptions

_CAUSAL = {
    "template": "template", "rows": "rows", "columns": "columns", "second": "second.weight",
    "second_bias": "second.bias", "last": "last.weight", "last_bias": "last.bias",
}  # fmt: skip
"""Tensors of `LabelPriorNet` by the fields of `Causal`, where weights are transposed."""


def export(
    causal: dict[str, Tensor], informed: dict[str, Tensor], palette: str | None, path: Path
) -> None:
    """Write two states of `LabelPriorNet` as the integers that `sempic.labels.prior.load` reads:
    the causal network of the first, the trunk of the second. palette: its full name, if known."""
    arrays: dict[str, npt.NDArray[Any]] = {"classes": np.array(causal["last.bias"].numel())}
    if palette is not None:
        arrays["palette"] = np.array(palette)
    for field, name in _CAUSAL.items():
        x = causal[name].T if name.endswith("weight") else causal[name]
        fixed = (x * 256).round().clamp(-2048, 2047).numpy().astype(np.int16)
        arrays[f"causal.{field}"] = fixed
    template = arrays["causal.template"]
    arrays["causal.template"] = template.reshape(len(TEMPLATE), -1, HIDDEN[0])
    for i in range(len(LAYERS)):
        weight, bias = informed[f"trunk.{i}.weight"], informed[f"trunk.{i}.bias"]
        layer = _integers(weight.permute(0, 2, 3, 1).flatten(1), 1, bias.double() * 32 + 0.5)
        # Sums up to 2^24 are exact in float32.
        assert np.abs(layer["weight"].astype(int)).sum(1).max() * 255 < 1 << 24
        arrays |= {f"layer{i}.{name}": array for name, array in layer.items()}
    _write(path, arrays)


def _integers(weight: Tensor, gain: int, bias: Tensor) -> dict[str, npt.NDArray[Any]]:
    """A layer as `prior.load` reads it: int8 weights (O, inputs); multipliers (the weights' scales
    times `gain`) and biases (O,), both in fixed point with 24 fractional bits."""
    scale = weight.abs().amax(1).clamp_min(1e-6) / 127
    return {
        "weight": (weight / scale[:, None]).round().numpy().astype(np.int8),
        "multiplier": (scale.double() * gain * (1 << 24)).round().numpy().astype(np.int32),
        "bias": (bias * (1 << 24)).round().numpy().astype(np.int64),
    }


def restored(known: prior.Prior) -> dict[str, Tensor]:
    """The inverse of `export`: the state of a `LabelPriorNet`, without the trunk's last layer and
    the layers after it, which label models do not keep."""
    found = {}
    for field, name in _CAUSAL.items():
        x = torch.from_numpy(np.array(getattr(known.causal, field), np.float32) / 256)
        found[name] = x.T.contiguous() if name.endswith("weight") else x
    found["template"] = found["template"].flatten(0, 1)
    layers = zip(LAYERS, known.layers, strict=True)
    for i, ((inputs, outputs, kernel, _), layer) in enumerate(layers):
        scale = torch.from_numpy(layer.multipliers / (1 << 24)).float()
        weight = torch.from_numpy(layer.weights) * scale[:, None]
        weight = weight.reshape(outputs, kernel, kernel, inputs).permute(0, 3, 1, 2)
        found[f"trunk.{i}.weight"] = weight.contiguous()
        bias = (layer.biases / (1 << 24) - 0.5) / 32
        found[f"trunk.{i}.bias"] = torch.from_numpy(bias).float()
    return found


def readout(known: prior.Prior, data: Maps) -> dict[str, npt.NDArray[Any]]:
    """Fit a layer from the trunk's last hidden layer to class scores, by cross-entropy. Returns its
    integers as `prior.load` reads them."""
    torch.manual_seed(0)
    steps, rng = min(600, 20 * len(data.planes)), np.random.default_rng(0)
    views = data.planes.shape[1]
    shown = tqdm(data.planes, desc="trunk", disable=None)
    hidden = np.stack([trunk.convolve(known.layers, p[rng.integers(views)]) for p in shown])
    inputs = hidden.shape[1]
    scale = hidden[::10].transpose(1, 0, 2, 3).reshape(inputs, -1).astype(np.float32).std(1) + 1
    net = nn.Conv2d(inputs, CELL * CELL * known.classes, 1)
    nn.init.zeros_(net.weight)
    optimizer = torch.optim.Adam(net.parameters())
    _, h, w = data.labels.shape
    for step in tqdm(range(steps), desc="readout", disable=None):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (1 - step / steps) + 1e-4
        batch = rng.choice(len(data.labels), 3, p=data.weight)
        x = torch.from_numpy(hidden[batch].astype(np.float32) / scale[:, None, None])
        logits = F.pixel_shuffle(net(x), CELL)[:, :, :h, :w]
        loss = F.cross_entropy(logits, torch.from_numpy(data.labels[batch]).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert net.bias is not None
    weight = net.weight.detach()[:, :, 0, 0] / torch.from_numpy(scale)
    joint = torch.cat([weight, net.bias.detach()[:, None]], 1).double()
    # From (class, y, x) to (y, x, class); only differences between classes matter.
    joint = joint.unflatten(0, (known.classes, -1))
    joint = (joint - joint.mean(0)).transpose(0, 1).flatten(0, 1)
    layer = _integers(joint[:, :-1], 8, joint[:, -1] * 8 + 128.5)
    return {f"readout.{name}": array for name, array in layer.items()}


def prime(known: prior.Prior, data: Maps) -> dict[str, npt.NDArray[Any]]:
    """Tables of the label coder's state after coding the maps and their mirror images: once without
    and once with coarse pictures."""
    rng = np.random.default_rng(0)
    order = rng.permutation(2 * len(data.labels))
    views = rng.integers(data.planes.shape[1], size=len(order))
    states: list[state.State] = []
    for informed in (False, True):
        coder = state.unprimed(known.classes)
        name = "informed" if informed else "causal"
        for turn, number in enumerate(tqdm(order, desc=name, disable=None)):
            i, mirror = number // 2, slice(None, None, -1 if number % 2 else 1)
            planes = data.planes[i, views[turn], ..., mirror] if informed else None
            labels = data.labels[i, :, mirror]
            primed.code(
                range_coder.encoder(0),
                labels.astype(np.int64),
                np.bincount(labels.ravel(), minlength=known.classes).clip(0, 1),
                known,
                coder,
                planes,
            )
        states.append(coder)
    return {f"primed.{k}": v for k, v in state.tables_of(*states).items()}


def run_export(options: PriorExportOptions) -> None:
    """`sempic train label-prior export`."""
    files.need_suffix(options.out, ".npz", "a label model")
    causal, of_causal = _averaged(options.causal)
    informed, of_informed = _averaged(options.informed)
    if "trunk.0.weight" not in informed:
        raise ModelError(f"{options.informed}: a run without --coarse, where one with it is needed")
    for key in ("classes", "palette"):
        if of_causal.get(key) != of_informed.get(key):
            raise ModelError(f"{options.causal} and {options.informed} are for different classes")
    export(causal, informed, of_causal.get("palette"), options.out)


def _averaged(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The averaged weights of a run, and what it says about them. Raises ModelError."""
    return load_tensors(folder / "label-prior.safetensors", LabelPriorNet.kind)


def need_palette(path: Path, classes: int, name: str | None, palette: Palette) -> None:
    """Raises ModelError if the networks of a file are for other classes than a palette's; name: of
    their palette, in full; None: the built-in one with as many."""
    if classes != len(palette.classes):
        raise ModelError(f"{path} is for another number of classes")
    name = name or (built_in(classes - 1) or palette).full_name  # without void
    if name != palette.full_name:
        raise ModelError(f"{path} is for the classes of {name}, not of {palette.full_name}")


def run_tables(options: PriorTablesOptions) -> None:
    """`sempic train label-prior tables`."""
    files.need_suffix(options.out, ".npz", "a label model")
    apart((options.networks, options.segmenter, options.classes), options.out)
    torch.set_num_threads(1)
    known = prior.load(options.networks)
    palette = taxonomy.load(options.classes).palette
    need_palette(options.networks, known.classes, known.palette, palette)
    data, _ = opened(options)
    old, _ = prior.contents(options.networks)
    arrays = {k: v for k, v in old.items() if not k.startswith(("readout.", "primed."))}
    arrays |= readout(known, data)
    arrays |= prime(prior.parsed(arrays, known.digest), data)
    _write(options.out, arrays | {"palette": np.array(palette.full_name)})


def _write(path: Path, arrays: dict[str, Any]) -> None:
    """Write a label model, whole or not at all."""
    files.make_folder(path.parent)
    with files.making(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **arrays)
