"""`sempic train label-prior`: a prior of the label coder (`sempic.labels.prior`), in three steps.

The networks take hours, their integers (`export`) no time, the tables minutes. The loss of the
networks is the code length itself: bits per pixel of each label given the labels before it in
raster order and, with --coarse, the decoded coarse planes. The tables are what a label model adds
to the networks: the readout of the trunk, and the state of the coder after the training maps.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from sempic import coarse, files, models
from sempic.errors import InputError, ModelError, OutputError, refused
from sempic.jobs import apart
from sempic.labels import primed, prior, range_coder, trunk
from sempic.labels.causal import BANDS, HIDDEN, TEMPLATE, Causal
from sempic.labels.neighbourhood import PAD
from sempic.labels.primed import state
from sempic.labels.trunk import CELL, LAYERS
from sempic.networks.label_prior import LabelPriorNet
from sempic.networks.weights import load_tensors
from sempic.training.data import taxonomy
from sempic.training.data.render import JUDGED, digest, open_segmenter, sent_map
from sempic.training.data.sources import Item, Source, hold_out, open_sources, spread
from sempic.training.data.taxonomy import Taxonomy
from sempic.training.options import (
    LabelPriorOptions,
    PriorData,
    PriorExportOptions,
    PriorTablesOptions,
)
from sempic.training.trainer import Optimizer, Recipe, Schedule, autocast, set_up, train

SIZE = (341, 256)
VIEWS = ((35, "420"), (35, "444"), (41, "444"), (29, "444"))
"""QP and chroma of the coarse pictures that a prior learns from."""

Bytes = npt.NDArray[np.uint8]


class Maps(NamedTuple):
    """What a prior learns from, or is judged by."""

    labels: Bytes
    """(M, H, W): one map of a picture or two, a person's and the one that the encoder sends."""
    picture: npt.NDArray[np.int64]
    """(M,): which picture a map is of."""
    planes: Bytes
    """(N, VIEWS, 3, ⌈H/4⌉, ⌈W/4⌉): the coarse pictures of each."""
    weight: npt.NDArray[np.float64]
    """(M,): how often a map is drawn; they sum to 1."""


def corpus(
    sources: Sequence[Sequence[Item]],
    weights: Sequence[float],
    classes: Taxonomy,
    segmenter: Path | None,
    folder: Path,
) -> Maps:
    """The maps of pictures by source, rendered once: they are kept in the folder under a digest of
    all that they were made of. Raises InputError or ModelError."""
    items = [item for source in sources for item in source]
    made = [segmenter, *(p for item in items for p in (item.image, item.labels, item.teacher))]
    what = json.dumps([taxonomy.describe(classes), digest(made), list(map(len, sources))])
    cache = folder / f"prior-{hashlib.sha256(what.encode()).hexdigest()[:16]}.npz"
    if not cache.exists():
        files.make_folder(folder)
        part = files.part_of(cache)
        with files.removed_on_failure(part):
            with refused(OutputError, f"{cache}: cannot write"), part.open("wb") as file:
                np.savez(file, **_rendered(sources, classes, segmenter))  # type: ignore[arg-type]
            files.place(part, cache)
    with np.load(cache, allow_pickle=False) as file:
        labels, picture, planes, source = (
            file[name] for name in ("labels", "picture", "planes", "source")
        )
    share = np.array(weights)[source] / np.bincount(source, minlength=len(weights))[source]
    return Maps(labels, picture, planes, share / share.sum())


def _segmenter(options: PriorData, classes: Taxonomy) -> Path | None:
    """Whose maps are learned from: the one that was named, or the bundled one if it knows these
    classes; None: people's maps alone."""
    if options.segmenter is not None:
        return options.segmenter
    bundled = models.find(models.SEGMENTER)
    return bundled if open_segmenter(bundled).palette == classes.palette.id else None


def _rendered(
    sources: Sequence[Sequence[Item]], classes: Taxonomy, segmenter: Path | None
) -> dict[str, npt.NDArray[Any]]:
    sender = None if segmenter is None else open_segmenter(segmenter, classes)
    found: list[Bytes] = []
    planes: list[Bytes] = []
    picture: list[int] = []
    source: list[int] = []
    items = [(number, item) for number, source_ in enumerate(sources) for item in source_]
    for number, item in tqdm(items, desc="rendering", disable=None):
        image, known = item.opened(classes)
        rgb = _cut(image, Image.Resampling.BICUBIC)
        maps = [] if known is None else [_cut(classes.settle(known), Image.Resampling.NEAREST)]
        maps += [] if sender is None else [sent_map(sender, rgb)]
        maps = [m for m in maps if m.min() < m.max()]  # one label is coded by its name alone
        if not maps:
            continue
        small = coarse.downscale(rgb, 4)
        decoded = [coarse.decode(coarse.encode(small, quality=q, chroma=c)) for q, c in VIEWS]
        found += maps
        picture += [len(planes)] * len(maps)
        source += [number] * len(maps)
        planes.append(np.stack([trunk.grid(c, SIZE[1], SIZE[0]) for c in decoded]))
    if not found:
        raise InputError(
            "no label maps to learn the prior from: give two pictures at least whose maps "
            "have more than one class, or --segmenter"
        )
    return {
        "labels": np.stack(found),
        "picture": np.array(picture),
        "planes": np.stack(planes),
        "source": np.array(source),
    }


def _cut(array: Bytes, filter_: Image.Resampling) -> Bytes:
    """The middle of a picture or map that has the proportions of SIZE, at SIZE."""
    height, width = array.shape[:2]
    w, h = (
        min(width, round(height * SIZE[0] / SIZE[1])),
        min(height, round(width * SIZE[1] / SIZE[0])),
    )
    x, y = (width - w) // 2, (height - h) // 2
    resized = Image.fromarray(array).resize(SIZE, filter_, (x, y, x + w, y + h))
    return np.asarray(resized)


def opened(options: PriorData) -> tuple[Maps, Maps]:
    """What is learned from, and what is judged by: the folders' own `val`, or a few of each.

    Raises InputError or ModelError."""
    classes = taxonomy.load(options.classes)
    sources = open_sources(options.data, classes)
    weights = [source.weight for source in sources]
    segmenter = _segmenter(options, classes)
    splits = [_split(source, options.limit) for source in sources]
    learnt, judged = (
        corpus([split[part] for split in splits], weights, classes, segmenter, options.out.parent)
        for part in (0, 1)
    )
    return learnt, judged


def _split(source: Source, limit: int) -> tuple[Sequence[Item], Sequence[Item]]:
    items = spread(source.train, limit)
    if source.val:
        return items, spread(source.val, JUDGED)
    return hold_out(items, min(JUDGED, (len(items) + 9) // 10))


class Pixels:
    """Chooses pixels of a map and gathers what the network sees of them."""

    def __init__(self, maps: npt.NDArray[np.uint8], classes: int) -> None:
        self.n, self.h, self.w = maps.shape
        framed = np.full((self.n, self.h + PAD, self.w + 2 * PAD), classes, np.uint8)
        framed[:, PAD:, PAD:-PAD] = maps
        self.s = self.w + 2 * PAD
        self.maps = torch.from_numpy(framed.reshape(self.n, -1))
        self.offsets = torch.tensor([dy * self.s + dx for dy, dx in TEMPLATE])
        y, x = np.mgrid[: self.h, : self.w]
        self.centres = torch.from_numpy(((y + PAD) * self.s + x + PAD).ravel())

        flat = np.ones(maps.shape, bool)
        west = framed[:, PAD:, PAD - 1 : PAD - 1 + self.w]
        for dy, dx in TEMPLATE:
            flat &= west == framed[:, PAD + dy : PAD + dy + self.h, PAD + dx : PAD + dx + self.w]
        self.flat = torch.from_numpy(flat.reshape(self.n, -1))

    def around(self, i: int, chosen: Tensor | None = None) -> Tensor:
        """The neighbourhoods of (chosen) pixels of map i: uint8 (P, T)."""
        centres = self.centres if chosen is None else self.centres[chosen]
        return self.maps[i][centres[:, None] + self.offsets]

    def draw(self, i: int, g: torch.Generator, busy: int, calm: int) -> tuple[Tensor, ...]:
        """Random pixels: index, neighbours, target, weight; the weights sum to H·W.

        Pixels with one label all around that end there are drawn like the busy ones.
        """
        target = self.maps[i][self.centres]
        calm_ones = self.flat[i] & (target == self.maps[i][self.centres - 1])
        must, rest = torch.nonzero(~calm_ones)[:, 0], torch.nonzero(calm_ones)[:, 0]
        a = must[torch.randint(len(must), (busy,), generator=g)]
        b = rest[torch.randint(len(rest), (calm,), generator=g)]
        weight = torch.cat(
            [torch.full((busy,), len(must) / busy), torch.full((calm,), len(rest) / calm)]
        )
        chosen = torch.cat([a, b])
        return chosen, self.around(i, chosen).long(), target[chosen].long(), weight


def evaluate(
    net: LabelPriorNet, pixels: Pixels, maps: Maps, chosen: Sequence[int], informed: bool
) -> float:
    """Bytes for each of the chosen maps, over every pixel (flat ones too)."""
    total = 0.0
    with torch.no_grad():
        for i in chosen:
            planes = torch.from_numpy(maps.planes[maps.picture[i]][:1])
            f_all = net.features(planes)[0] if informed else None
            around = pixels.around(i)
            target = pixels.maps[i][pixels.centres].long()
            for part in torch.arange(len(target)).split(16384):
                y, x = part // pixels.w, part % pixels.w
                f = None if f_all is None else f_all[y, x]
                row, column = y * BANDS // pixels.h, x * BANDS // pixels.w
                logits = net(around[part].long(), row, column, f)
                total += F.cross_entropy(logits, target[part], reduction="sum").item()
    return total / math.log(2) / 8 / len(chosen)


def export(causal: dict[str, Tensor], informed: dict[str, Tensor], path: Path) -> None:
    """Writes the integers that `sempic.labels.prior.load` reads. Both are states of a
    `LabelPriorNet`."""

    def fixed(x: Tensor, scale: float = 256) -> npt.NDArray[np.int16]:
        return (x * scale).round().clamp(-2048, 2047).numpy().astype(np.int16)

    fields = Causal(
        template=fixed(causal["template"]).reshape(len(TEMPLATE), -1, HIDDEN[0]),
        rows=fixed(causal["rows"]),
        columns=fixed(causal["columns"]),
        second=fixed(causal["second.weight"].T),
        second_bias=fixed(causal["second.bias"]),
        last=fixed(causal["last.weight"].T),
        last_bias=fixed(causal["last.bias"]),
    )
    arrays: dict[str, npt.NDArray[Any]] = {"classes": np.array(causal["last.bias"].numel())}
    arrays |= {f"causal.{name}": field for name, field in fields._asdict().items()}
    for i in range(len(LAYERS)):
        weight, bias = informed[f"trunk.{i}.weight"], informed[f"trunk.{i}.bias"]
        layer = _integers(weight.permute(0, 2, 3, 1).flatten(1), 1, bias.double() * 32 + 0.5)
        # exact in float32
        assert np.abs(layer["weight"].astype(int)).sum(1).max() * 255 < 1 << 24
        arrays |= {f"layer{i}.{name}": array for name, array in layer.items()}
    _write(path, arrays)


def _integers(weight: Tensor, gain: int, bias: Tensor) -> dict[str, npt.NDArray[Any]]:
    """A layer as `prior.load` reads it: weights, (O, inputs), in eight bits, and what brings each
    sum of them to its scale, times a gain, and biases, both with 24 bits after the point."""
    scale = weight.abs().amax(1).clamp_min(1e-6) / 127
    return {
        "weight": (weight / scale[:, None]).round().numpy().astype(np.int8),
        "multiplier": (scale.double() * gain * (1 << 24)).round().numpy().astype(np.int32),
        "bias": (bias * (1 << 24)).round().numpy().astype(np.int64),
    }


def restored(known: prior.Prior) -> dict[str, Tensor]:
    """The state of a `LabelPriorNet` that `export` would make these integers of, but for what they
    do not keep: the trunk's last layer and what reads it."""

    def floats(x: Any) -> Tensor:
        return torch.from_numpy(np.array(x, np.float32) / 256)

    causal = known.causal
    found = {
        "template": floats(causal.template).flatten(0, 1),
        "rows": floats(causal.rows),
        "columns": floats(causal.columns),
        "second.weight": floats(causal.second).T.contiguous(),
        "second.bias": floats(causal.second_bias),
        "last.weight": floats(causal.last).T.contiguous(),
        "last.bias": floats(causal.last_bias),
    }
    for i, ((inputs, outputs, kernel, _), layer) in enumerate(
        zip(LAYERS, known.layers, strict=True)
    ):
        scale = torch.from_numpy(layer.multipliers / (1 << 24)).float()
        weight = torch.from_numpy(layer.weights) * scale[:, None]
        weight = weight.reshape(outputs, kernel, kernel, inputs).permute(0, 3, 1, 2)
        found[f"trunk.{i}.weight"] = weight.contiguous()
        bias = (layer.biases / (1 << 24) - 0.5) / 32
        found[f"trunk.{i}.bias"] = torch.from_numpy(bias).float()
    return found


def readout(known: prior.Prior, data: Maps) -> dict[str, npt.NDArray[Any]]:
    """Fits the layer that names the classes of each pixel to the trunk's last hidden layer, by
    cross-entropy; returns its integers, as `prior.load` reads them."""
    torch.manual_seed(0)
    steps, rng = min(600, 20 * len(data.planes)), np.random.default_rng(0)
    views = data.planes.shape[1]
    seen = np.stack(
        [
            trunk.convolve(known.layers, p[rng.integers(views)])
            for p in tqdm(data.planes, desc="trunk", disable=None)
        ]
    )
    inputs = seen.shape[1]
    scale = seen[::10].transpose(1, 0, 2, 3).reshape(inputs, -1).astype(np.float32).std(1) + 1
    net = nn.Conv2d(inputs, CELL * CELL * known.classes, 1)
    nn.init.zeros_(net.weight)
    optimizer = torch.optim.Adam(net.parameters())
    _, h, w = data.labels.shape
    for step in tqdm(range(steps), desc="readout", disable=None):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (1 - step / steps) + 1e-4
        batch = rng.choice(len(data.labels), 3, p=data.weight)
        x = torch.from_numpy(seen[data.picture[batch]].astype(np.float32) / scale[:, None, None])
        logits = F.pixel_shuffle(net(x), CELL)[:, :, :h, :w]
        loss = F.cross_entropy(logits, torch.from_numpy(data.labels[batch]).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    weight = (net.weight.detach()[:, :, 0, 0] / torch.from_numpy(scale)).double()
    assert net.bias is not None
    bias = net.bias.detach().double()
    # From (class, y, x) to (y, x, class); only differences between classes matter.
    weight = weight.reshape(known.classes, CELL * CELL, inputs)
    bias = bias.reshape(known.classes, CELL * CELL)
    weight = (weight - weight.mean(0)).transpose(0, 1).reshape(-1, inputs)
    bias = (bias - bias.mean(0)).T.reshape(-1)
    layer = _integers(weight, 8, bias * 8 + 128.5)
    return {f"readout.{name}": array for name, array in layer.items()}


def prime(known: prior.Prior, data: Maps) -> dict[str, npt.NDArray[Any]]:
    """The tables of a primed coder: its state after the maps and their mirror images, without and
    with their coarse pictures."""
    rng = np.random.default_rng(0)
    order = rng.permutation(2 * len(data.labels))
    views = rng.integers(data.planes.shape[1], size=len(order))
    states: list[state.State] = []
    for informed in (False, True):
        learnt = state.unprimed(known.classes)
        name = "informed" if informed else "causal"
        for turn, number in enumerate(tqdm(order, desc=name, disable=None)):
            i, mirror = number // 2, slice(None, None, -1 if number % 2 else 1)
            planes = data.planes[data.picture[i], views[turn], ..., mirror] if informed else None
            labels = data.labels[i, :, mirror]
            primed.code(
                range_coder.encoder(0),
                labels.astype(np.int64),
                np.bincount(labels.ravel(), minlength=known.classes).clip(0, 1),
                known,
                learnt,
                planes,
            )
        states.append(learnt)
    return {f"primed.{k}": v for k, v in state.tables_of(*states).items()}


class LabelPrior(Recipe):
    """The code length of label maps."""

    kind = "label-prior"
    decay = 0.998

    def __init__(self, options: LabelPriorOptions, device: torch.device) -> None:
        self.options, self.device = options, device
        self.classes = len(taxonomy.load(options.classes).palette.classes)
        self.data, self.val = opened(options)
        network = LabelPriorNet(self.classes, options.coarse).to(device)
        if options.init is not None:
            _begin(network, options.init)
        self.network: LabelPriorNet = network
        self.optimizer = Optimizer(
            [{"params": list(network.parameters()), "lr": options.lr}],
            schedule=Schedule(warmup=100, floor=0.01),
            weight_decay=1e-4,
            clip=2.0,
        )
        self.optimizers = {"network": self.optimizer}
        labels = self.data.labels
        self.pools = [Pixels(labels, self.classes), Pixels(labels[:, :, ::-1].copy(), self.classes)]
        self.judged = Pixels(self.val.labels, self.classes)

    def step(self, number: int) -> dict[str, Tensor]:
        options, maps = self.options, self.options.batch
        g = torch.Generator().manual_seed(options.seed * 1_000_003 + number)
        rng = np.random.default_rng((options.seed, 1, number))
        batch = rng.choice(len(self.data.labels), maps, p=self.data.weight)
        flips = rng.integers(0, 2, maps)
        drawn = [
            self.pools[m].draw(i, g, options.busy, options.calm)
            for i, m in zip(batch, flips, strict=True)
        ]
        chosen = torch.cat([d[0] for d in drawn])
        around, target, weight = (torch.cat([d[k] for d in drawn]) for k in (1, 2, 3))
        height, width = self.judged.h, self.judged.w
        y, x = chosen // width, chosen % width
        f, aux = None, torch.zeros((), device=self.device)
        around, target, weight, y, x = (t.to(self.device) for t in (around, target, weight, y, x))
        if options.coarse:
            quality = rng.integers(len(VIEWS), size=maps)
            planes = torch.from_numpy(self.data.planes[self.data.picture[batch], quality])
            view = torch.stack([p.flip(-1) if m else p for p, m in zip(planes, flips, strict=True)])
            with autocast(self.device):
                dense = self.network.features(view).float()
            mirrored = torch.from_numpy(flips)
            index = torch.repeat_interleave(
                torch.arange(maps), torch.tensor([len(d[0]) for d in drawn])
            )
            # The grid of a flipped picture starts 4⌈W/4⌉ - W pixels off.
            shift = (mirrored[index] * (dense.shape[2] - width)).to(self.device)
            f = dense[index.to(self.device), y, x + shift]
            yy = torch.randint(0, height, (4096,), generator=g)
            xx = torch.randint(0, width, (4096,), generator=g)
            which = torch.randint(0, maps, (4096,), generator=g)
            fa = dense[which, yy, xx + mirrored[which] * (dense.shape[2] - width)]
            ta = torch.stack([self.pools[m].maps[i] for i, m in zip(batch, flips, strict=True)])
            at = (yy + PAD) * self.judged.s + xx + PAD
            aux = F.cross_entropy(self.network.aux(fa), ta[which, at].long().to(self.device))
        logits = self.network(around, y * BANDS // height, x * BANDS // width, f)
        bits = (F.cross_entropy(logits, target, reduction="none") * weight).sum() / math.log(2)
        bytes_per_map = bits / 8 / maps
        norm = self.optimizer.minimise(bytes_per_map / 500 + 0.3 * aux)
        return {"bytes": bytes_per_map, "aux": aux, "norm": norm}

    def fixed(self) -> dict[str, Any]:
        return self.options.fixed()

    def validate(self, state: dict[str, Tensor], sheet: Path) -> dict[str, float]:
        some = range(0, self.judged.n, max(1, self.judged.n // 10))
        found = evaluate(self.averaged(state), self.judged, self.val, some, self.options.coarse)
        return {"val_bytes": found}

    def about(self) -> dict[str, Any]:
        return {"classes": self.classes, "coarse": self.options.coarse}


def _begin(net: LabelPriorNet, path: Path) -> None:
    """Takes over the weights of another run (.safetensors) or what a label model (.npz) keeps of
    them. Raises ModelError."""
    if path.suffix == ".npz":
        found = restored(prior.load(path))
    else:
        found = {k: v.float() for k, v in load_tensors(path, LabelPrior.kind)[0].items()}
    own = net.state_dict()
    for name, value in found.items():
        if name in own and own[name].shape != value.shape:
            raise ModelError(f"{path} is for another number of classes")
    net.load_state_dict(found, strict=False)


def run(options: LabelPriorOptions) -> None:
    """`sempic train label-prior network`."""
    train(LabelPrior(options, set_up(options)), options)


def run_export(options: PriorExportOptions) -> None:
    """`sempic train label-prior export`."""
    files.need_suffix(options.out, ".npz", "a label model")
    causal, informed = _averaged(options.causal), _averaged(options.informed)
    if "trunk.0.weight" not in informed:
        raise ModelError(f"{options.informed}: a run without --coarse, where one with it is needed")
    export(causal, informed, options.out)


def _averaged(folder: Path) -> dict[str, Tensor]:
    """The averaged weights of a run; raises ModelError."""
    return load_tensors(folder / "label-prior.safetensors", LabelPrior.kind)[0]


def run_tables(options: PriorTablesOptions) -> None:
    """`sempic train label-prior tables`."""
    files.need_suffix(options.out, ".npz", "a label model")
    apart((options.networks, options.segmenter, options.classes), options.out)
    torch.set_num_threads(1)
    data, _ = opened(options)
    known = prior.load(options.networks)
    palette = taxonomy.load(options.classes).palette
    if known.classes != len(palette.classes):
        raise ModelError(f"{options.networks} is for another number of classes")
    layer = readout(known, data)
    parsed = trunk.Layer(
        layer["readout.weight"].astype(np.float32),
        layer["readout.multiplier"].astype(np.int64),
        layer["readout.bias"].astype(np.int64),
    )
    with np.load(options.networks, allow_pickle=False) as file:
        networks = {k: v for k, v in file.items() if not k.startswith(("readout.", "primed."))}
    arrays: dict[str, Any] = networks | layer | prime(replace(known, readout=parsed), data)
    _write(options.out, arrays | {"palette": np.array(palette.full_name)})


def _write(path: Path, arrays: dict[str, Any]) -> None:
    """Writes a label model, whole or not at all."""
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    files.make_folder(path.parent)
    files.write(path, out.getvalue())
