"""`sempic train label-prior`: a prior of the label coder (`sempic.labels.prior`), in three steps.

The networks take hours, their integers (`export`) no time, the tables minutes. The loss of the
networks is the code length itself: bits per pixel of each human label given the labels before it in
raster order and, with --coarse, the decoded coarse planes. The tables are what a label model adds
to the networks: the readout of the trunk, and the state of the coder after the training maps, human
and predicted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from sempic import coarse, files, models, segment
from sempic.errors import InputError
from sempic.labels import network, payload, primed, prior, range_coder
from sempic.labels.neighbourhood import PAD
from sempic.labels.network import BANDS, CELL, LAYERS, TEMPLATE
from sempic.labels.primed import state
from sempic.networks.label_prior import LabelPriorNet
from sempic.networks.weights import load_tensors
from sempic.palette import CAMVID
from sempic.training.data import taxonomy
from sempic.training.data.render import digest, sent_map
from sempic.training.data.sources import Item, open_sources
from sempic.training.options import LabelPriorOptions, PriorExportOptions, PriorTablesOptions
from sempic.training.trainer import Optimizer, Recipe, Schedule, autocast, set_up, train

SIZE = (341, 256)
BUNDLED = payload.WEIGHTS[payload.MODELS[CAMVID.name]]
VIEWS = ((35, "420"), (35, "444"), (41, "444"), (29, "444"))
"""QP and chroma of the coarse pictures that a prior learns from."""


def corpus(
    items: Sequence[Item], folder: Path, segmenter: Path | None = None
) -> dict[str, npt.NDArray[np.uint8]]:
    """Human labels and predicted (N, H, W) as the encoder sends them, of the bundled segmenter or
    another, and planes (N, VIEWS, 3, ⌈H/4⌉, ⌈W/4⌉); kept in the folder under a digest of the files
    that they were made of."""
    segmenter = segmenter or models.find(models.SEGMENTER)
    used = [segmenter, *(path for item in items for path in (item.image, item.labels))]
    cache = folder / f"prior-{digest(used)[:16]}.npz"
    if cache.exists():
        with np.load(cache, allow_pickle=False) as file:
            return dict(file)
    sender = segment.Segmenter(segmenter)
    maps, predicted, planes = [], [], []
    for item in tqdm(items, desc="rendering"):
        human = item.human()
        if human is None:
            continue
        maps.append(np.asarray(Image.fromarray(human).resize(SIZE, Image.Resampling.NEAREST)))
        picture = Image.fromarray(item.picture()).resize(SIZE, Image.Resampling.BICUBIC)
        rgb = np.asarray(picture)
        small = coarse.downscale(rgb, 4)
        decoded = [coarse.decode(coarse.encode(small, quality=q, chroma=c)) for q, c in VIEWS]
        predicted.append(sent_map(sender, rgb))
        planes.append(np.stack([network.grid(c, SIZE[1], SIZE[0]) for c in decoded]))
    if not maps:
        raise InputError("no labelled pictures to learn the label prior from")
    result = {
        "labels": np.stack(maps),
        "predicted": np.stack(predicted),
        "planes": np.stack(planes),
    }
    files.make_folder(folder)
    np.savez(cache, **result)  # type: ignore[arg-type]
    return result


class Pixels:
    """Chooses pixels of a map and gathers what the network sees of them."""

    def __init__(self, maps: npt.NDArray[np.uint8], classes: int) -> None:
        self.n, self.h, self.w = maps.shape
        pad = PAD
        framed = np.full((self.n, self.h + pad, self.w + 2 * pad), classes, np.uint8)
        framed[:, pad:, pad:-pad] = maps
        self.s = self.w + 2 * pad
        self.maps = torch.from_numpy(framed.reshape(self.n, -1))
        self.offsets = torch.tensor([dy * self.s + dx for dy, dx in TEMPLATE])
        y, x = np.mgrid[: self.h, : self.w]
        self.centres = torch.from_numpy(((y + pad) * self.s + x + pad).ravel())

        flat = np.ones(maps.shape, bool)
        west = framed[:, pad:, pad - 1 : pad - 1 + self.w]
        for dy, dx in TEMPLATE:
            flat &= west == framed[:, pad + dy : pad + dy + self.h, pad + dx : pad + dx + self.w]
        self.flat = torch.from_numpy(flat.reshape(self.n, -1))

    def first(self, i: int) -> Tensor:
        return self.maps[i][self.centres - 1][:, None]

    def around(self, i: int, chosen: Tensor | None = None) -> Tensor:
        """The neighbourhoods of (chosen) pixels of map i: uint8 (P, T)."""
        centres = self.centres if chosen is None else self.centres[chosen]
        return self.maps[i][centres[:, None] + self.offsets]

    def draw(self, i: int, g: torch.Generator, busy: int, calm: int) -> tuple[Tensor, ...]:
        """Random pixels: index, neighbours, target, weight; the weights sum to H·W.

        Pixels with one label all around that end there are drawn like the busy ones.
        """
        target = self.maps[i][self.centres]
        calm_ones = self.flat[i] & (target == self.first(i)[:, 0])
        must, rest = torch.nonzero(~calm_ones)[:, 0], torch.nonzero(calm_ones)[:, 0]
        a = must[torch.randint(len(must), (busy,), generator=g)]
        b = rest[torch.randint(len(rest), (calm,), generator=g)]
        weight = torch.cat(
            [torch.full((busy,), len(must) / busy), torch.full((calm,), len(rest) / calm)]
        )
        chosen = torch.cat([a, b])
        return chosen, self.around(i, chosen).long(), target[chosen].long(), weight


def evaluate(net: LabelPriorNet, pixels: Pixels, planes: Tensor | None, step: int) -> float:
    """Bytes for each map, over every pixel (flat ones too)."""
    total, count = 0.0, 0
    net.eval()
    with torch.no_grad():
        for i in range(0, pixels.n, step):
            f_all = None if planes is None else net.features(planes[i : i + 1, 0])[0]
            around = pixels.around(i)
            target = pixels.maps[i][pixels.centres].long()
            for part in torch.arange(len(target)).split(16384):
                y, x = part // pixels.w, part % pixels.w
                f = None if f_all is None else f_all[y, x]
                row, column = y * BANDS // pixels.h, x * BANDS // pixels.w
                logits = net(around[part].long(), row, column, f)
                total += F.cross_entropy(logits, target[part], reduction="sum").item()
            count += 1
    net.train()
    return total / math.log(2) / 8 / count


def export(causal: dict[str, Tensor], informed: dict[str, Tensor], path: Path) -> None:
    """Writes the integers that `sempic.labels.prior.load` reads. Both are states of a
    `LabelPriorNet`."""
    arrays: dict[str, npt.NDArray[Any]] = {}

    def fixed(x: Tensor, scale: float = 256) -> npt.NDArray[np.int16]:
        return (x * scale).round().clamp(-2048, 2047).numpy().astype(np.int16)

    arrays["classes"] = np.array(causal["last.bias"].numel())
    fields = network.Causal(
        template=fixed(causal["template"]).reshape(len(TEMPLATE), -1, network.HIDDEN[0]),
        rows=fixed(causal["rows"]),
        columns=fixed(causal["columns"]),
        second=fixed(causal["second.weight"].T),
        second_bias=fixed(causal["second.bias"]),
        last=fixed(causal["last.weight"].T),
        last_bias=fixed(causal["last.bias"]),
    )
    arrays |= {f"causal.{name}": field for name, field in fields._asdict().items()}
    for i in range(len(LAYERS)):
        weight, bias = informed[f"trunk.{i}.weight"], informed[f"trunk.{i}.bias"]
        scale = weight.abs().amax((1, 2, 3)).clamp_min(1e-6) / 127
        q = (weight / scale[:, None, None, None]).round()
        assert q.abs().sum((1, 2, 3)).max() * 255 < 1 << 24  # exact in float32
        arrays[f"layer{i}.weight"] = q.permute(0, 2, 3, 1).flatten(1).numpy().astype(np.int8)
        arrays[f"layer{i}.multiplier"] = (
            (scale.double() * (1 << 24)).round().numpy().astype(np.int32)
        )
        arrays[f"layer{i}.bias"] = (
            ((bias.double() * 32 + 0.5) * (1 << 24)).round().numpy().astype(np.int64)
        )
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def readout(
    known: prior.Prior, data: dict[str, npt.NDArray[np.uint8]]
) -> dict[str, npt.NDArray[Any]]:
    """Fits the layer that names the classes of each pixel to the trunk's last hidden layer, by
    cross-entropy on human and predicted maps; returns its integers, as `prior.load` reads them."""
    torch.manual_seed(0)
    steps, rng = 600, np.random.default_rng(0)
    views = data["planes"].shape[1]
    seen = np.stack(
        [
            network.convolve(known.layers, p[rng.integers(views)])
            for p in tqdm(data["planes"], desc="trunk")
        ]
    )
    inputs = seen.shape[1]
    scale = seen[::10].transpose(1, 0, 2, 3).reshape(inputs, -1).astype(np.float32).std(1) + 1
    cell = CELL
    net = nn.Conv2d(inputs, cell * cell * known.classes, 1)
    nn.init.zeros_(net.weight)
    optimizer = torch.optim.Adam(net.parameters())
    _, h, w = data["labels"].shape
    for step in tqdm(range(steps), desc="readout"):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (1 - step / steps) + 1e-4
        batch = rng.choice(len(seen), 3)
        kind = ("labels", "predicted")[step % 2]
        x = torch.from_numpy(seen[batch].astype(np.float32) / scale[:, None, None])
        logits = F.pixel_shuffle(net(x), cell)[:, :, :h, :w]
        loss = F.cross_entropy(logits, torch.from_numpy(data[kind][batch]).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    weight = (net.weight.detach()[:, :, 0, 0] / torch.from_numpy(scale)).double()
    bias = net.bias.detach().double() if net.bias is not None else torch.zeros(len(weight))
    # From (class, y, x) to (y, x, class); only differences between classes matter.
    weight = weight.reshape(known.classes, cell * cell, inputs)
    bias = bias.reshape(known.classes, cell * cell)
    weight = (weight - weight.mean(0)).transpose(0, 1).reshape(-1, inputs)
    bias = (bias - bias.mean(0)).T.reshape(-1)
    steps_ = weight.abs().amax(1) / 127
    return {
        "readout.weight": (weight / steps_[:, None]).round().numpy().astype(np.int8),
        "readout.multiplier": (steps_ * 8 * (1 << 24)).round().numpy().astype(np.int32),
        "readout.bias": ((bias * 8 + 128.5) * (1 << 24)).round().numpy().astype(np.int64),
    }


def prime(
    known: prior.Prior, data: dict[str, npt.NDArray[np.uint8]]
) -> dict[str, npt.NDArray[Any]]:
    """The tables of a primed coder: its state after the training maps and their mirror images, in
    turn human and predicted, without and with their coarse pictures."""
    rng = np.random.default_rng(0)
    order = rng.permutation(2 * len(data["labels"]))
    views = rng.integers(data["planes"].shape[1], size=len(order))
    states: list[state.State] = []
    for informed in (False, True):
        learnt = state.unprimed(known.classes)
        for turn, number in enumerate(tqdm(order, desc="informed" if informed else "causal")):
            i, mirror = number // 2, slice(None, None, -1 if number % 2 else 1)
            planes = data["planes"][i, views[turn], ..., mirror] if informed else None
            for kind in ("labels", "predicted"):
                labels = data[kind][i, :, mirror]
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
    """The code length of human maps."""

    kind = "label-prior"
    decay = 0.998

    def __init__(self, options: LabelPriorOptions, device: torch.device) -> None:
        self.options, self.device = options, device
        train_items, val_items = _items(options.data)
        stored = options.out.parent
        data, val = corpus(train_items, stored), corpus(val_items, stored)
        self.classes = len(CAMVID.classes)
        network = LabelPriorNet(self.classes, options.coarse).to(device)
        if options.init is not None:
            state, _ = load_tensors(options.init, self.kind)
            network.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
        self.network: LabelPriorNet = network
        self.optimizer = Optimizer(
            [{"params": list(network.parameters()), "lr": options.lr}],
            schedule=Schedule(warmup=100, floor=0.01),
            weight_decay=1e-4,
            clip=2.0,
        )
        self.optimizers = {"network": self.optimizer}
        self.networks, self.memory = {}, {}
        labels = data["labels"]
        self.pools = [Pixels(labels, self.classes), Pixels(labels[:, :, ::-1].copy(), self.classes)]
        self.judged = Pixels(val["labels"], self.classes)
        self.planes = torch.from_numpy(data["planes"]) if options.coarse else None
        self.val_planes = torch.from_numpy(val["planes"]) if options.coarse else None
        self._averaged = LabelPriorNet(self.classes, options.coarse).to(device)

    def _maps(self, number: int) -> list[int]:
        """The maps of a step: each once before any comes again."""
        found = []
        for position in range(number * self.options.batch, (number + 1) * self.options.batch):
            epoch, offset = divmod(position, self.pools[0].n)
            order = np.random.default_rng((self.options.seed, 0, epoch)).permutation(
                self.pools[0].n
            )
            found.append(int(order[offset]))
        return found

    def step(self, number: int) -> dict[str, Tensor]:
        options, maps = self.options, self.options.batch
        g = torch.Generator().manual_seed(options.seed * 1_000_003 + number)
        rng = np.random.default_rng((options.seed, 1, number))
        batch, flips = self._maps(number), rng.integers(0, 2, maps)
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
        if self.planes is not None:
            quality = rng.integers(len(VIEWS), size=maps)
            view = torch.stack(
                [
                    self.planes[i, q].flip(-1) if m else self.planes[i, q]
                    for i, q, m in zip(batch, quality, flips, strict=True)
                ]
            )
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

    def validate(self, state: dict[str, Tensor], sheet: Path) -> dict[str, float]:
        self._averaged.load_state_dict(state)
        every = max(1, self.judged.n // 10)
        return {"val_bytes": evaluate(self._averaged, self.judged, self.val_planes, every)}

    def about(self) -> dict[str, Any]:
        return {"classes": self.classes, "coarse": self.options.coarse}


def _items(folders: Sequence[str]) -> tuple[list[Item], list[Item]]:
    """What is learned from and what is judged by: `val`, or every tenth."""
    sources = open_sources(folders, taxonomy.BUNDLED[CAMVID.name])
    items = [item for source in sources for item in source.train]
    val = [item for source in sources for item in source.val]
    if val:
        return items, val
    return [item for number, item in enumerate(items) if number % 10], items[::10]


def run(options: LabelPriorOptions) -> None:
    """`sempic train label-prior network`."""
    train(LabelPrior(options, set_up(options)), options)


def run_export(options: PriorExportOptions) -> None:
    """`sempic train label-prior export`."""
    export(_averaged(options.causal), _averaged(options.informed), options.out)


def _averaged(folder: Path) -> dict[str, Tensor]:
    """The averaged weights of a run; raises ModelError."""
    return load_tensors(folder / "label-prior.safetensors", LabelPrior.kind)[0]


def run_tables(options: PriorTablesOptions) -> None:
    """`sempic train label-prior tables`."""
    torch.set_num_threads(1)
    items, _ = _items(options.data)
    data = corpus(items, options.out.parent, options.segmenter)
    trained = options.networks or BUNDLED
    known = prior.load(trained)
    layer = readout(known, data)
    parsed = network.Layer(
        layer["readout.weight"].astype(np.float32),
        layer["readout.multiplier"].astype(np.int64),
        layer["readout.bias"].astype(np.int64),
    )
    with np.load(trained, allow_pickle=False) as file:
        networks = {k: v for k, v in file.items() if not k.startswith(("readout.", "primed."))}
    arrays: dict[str, Any] = networks | layer | prime(known._replace(readout=parsed), data)
    np.savez_compressed(options.out, **arrays)
