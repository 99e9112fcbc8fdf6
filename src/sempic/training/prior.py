"""Trains the prior of the label coder (`sempic.labels.prior`), in three steps.

    sempic train prior network --data DATA --out RUN [--coarse]    the networks, hours
    sempic train prior export --causal RUN --informed RUN --out FILE.npz
    sempic train prior tables --data DATA [--networks FILE.npz] --out FILE.npz    minutes

The loss of the networks is the code length itself: bits per pixel of each human label given the
labels before it in raster order and, with --coarse, the decoded coarse planes. Trunk weights and
activations are quantised in the forward pass with straight-through gradients (Jacob et al., CVPR
2018), so the exported integers behave as the trained network did. The tables are what label model
3 adds to the networks: the readout of the trunk, and the state of the coder after the training
maps, human and predicted.
"""

from __future__ import annotations

import argparse
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from sempic import coarse, segment
from sempic.errors import InputError, ModelError
from sempic.labels import _model, _primed, prior
from sempic.training.corpus import sent_map
from sempic.training.run import Ema, Run

SIZE = (341, 256)
BUNDLED = Path(prior.__file__).parent / "camvid1.npz"
VIEWS = ((35, "420"), (35, "444"), (41, "444"), (29, "444"))
"""QP and chroma of the coarse pictures that a prior learns from."""


def corpus(
    data: Path, split: str, cache: Path, segmenter: Path | None = None
) -> dict[str, npt.NDArray[np.uint8]]:
    """CamVid's labels and predicted (N, H, W) as the encoder sends them, of the bundled segmenter
    or another, and planes (N, VIEWS, 3, ⌈H/4⌉, ⌈W/4⌉); built once."""
    if cache.exists():
        with np.load(cache, allow_pickle=False) as file:
            return dict(file)
    data = data / "camvid"
    network = segment.Segmenter(segmenter)
    maps, predicted, planes = [], [], []
    for path in tqdm(sorted((data / split).glob("*.png")), desc=split):
        with Image.open(data / f"{split}annot" / path.name) as file:
            maps.append(np.asarray(file.resize(SIZE, Image.Resampling.NEAREST)))
        with Image.open(path) as file:
            rgb = np.asarray(file.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC))
        small = coarse.downscale(rgb, 4)
        decoded = [coarse.decode(coarse.encode(small, quality=q, chroma=c)) for q, c in VIEWS]
        predicted.append(sent_map(network, rgb))
        planes.append(np.stack([prior.grid(c, SIZE[1], SIZE[0]) for c in decoded]))
    if not maps:
        raise InputError(f"{data / split}: no *.png")
    result = {
        "labels": np.stack(maps),
        "predicted": np.stack(predicted),
        "planes": np.stack(planes),
    }
    cache.parent.mkdir(parents=True, exist_ok=True)
    np.savez(cache, **result)  # type: ignore[arg-type]
    return result


def _ste(x: Tensor, rounded: Tensor) -> Tensor:
    return x + (rounded - x).detach()


def _activation(x: Tensor) -> Tensor:
    """uint8 in steps of 1/32."""
    x = x.clamp(0, 255 / 32)
    return _ste(x, (x * 32).round() / 32)


class QuantConv(nn.Conv2d):
    """int8 weights, one scale for each output channel."""

    def scale(self) -> Tensor:
        return self.weight.detach().abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-6) / 127

    def forward(self, x: Tensor) -> Tensor:
        s = self.scale()
        w = _ste(self.weight, (self.weight / s).round() * s)
        return _activation(F.conv2d(x, w, self.bias, self.stride, self.padding))


def _join(a: Tensor, b: Tensor) -> Tensor:
    double = F.interpolate(a, scale_factor=2, mode="nearest")
    return torch.cat([double[:, :, : b.shape[2], : b.shape[3]], b], 1)


class Network(nn.Module):
    """What `sempic.labels.prior` computes, in floats: logits of a label given those before it."""

    def __init__(self, classes: int, with_coarse: bool) -> None:
        super().__init__()
        h, h2 = prior.HIDDEN
        self.classes = classes
        t = len(prior.TEMPLATE)
        self.template = nn.Parameter(torch.randn(t * (classes + 1), h) * 0.1)
        self.rows = nn.Parameter(torch.zeros(prior.BANDS, h))
        self.columns = nn.Parameter(torch.zeros(prior.BANDS, h))
        self.second = nn.Linear(h, h2)
        self.last = nn.Linear(h2, classes)
        self.trunk = nn.ModuleList()
        if with_coarse:
            for inputs, outputs, kernel, stride in prior.LAYERS:
                layer = QuantConv(inputs, outputs, kernel, stride, kernel // 2)
                nn.init.kaiming_normal_(layer.weight)
                self.trunk.append(layer)
            self.mix = nn.Linear(prior.FEATURES, h, bias=False)
            self.aux = nn.Linear(prior.FEATURES, classes)

    def features(self, planes: Tensor) -> Tensor:
        """uint8 (B, 3, h, w) → (B, 4h, 4w, FEATURES)."""
        b, _, h, w = planes.shape
        signed = np.stack([prior.signed(p) for p in planes.numpy()])
        x = torch.from_numpy(signed).float() / 32
        x = prior.trunk(x, lambda i, x: self.trunk[i](x), _join)
        x = x.view(b, 4, 4, prior.FEATURES, h, w).permute(0, 4, 1, 5, 2, 3)
        return x.reshape(b, 4 * h, 4 * w, prior.FEATURES)

    def forward(self, neighbours: Tensor, row: Tensor, column: Tensor, f: Tensor | None) -> Tensor:
        """neighbours int64 (P, T) labels; row, column int64 (P,); f (P, FEATURES) → logits."""
        t = torch.arange(neighbours.shape[1]) * (self.classes + 1)
        x = F.embedding_bag(neighbours + t, self.template, mode="sum")
        x = x + self.rows[row] + self.columns[column]
        if f is not None:
            x = x + self.mix(f)
        x = x.clamp(0, 31)
        x = self.second(x).clamp(0, 31)
        return self.last(x)


class Pixels:
    """Chooses pixels of a map and gathers what the network sees of them."""

    def __init__(self, maps: npt.NDArray[np.uint8], classes: int) -> None:
        self.n, self.h, self.w = maps.shape
        pad = prior.PAD
        framed = np.full((self.n, self.h + pad, self.w + 2 * pad), classes, np.uint8)
        framed[:, pad:, pad:-pad] = maps
        self.s = self.w + 2 * pad
        self.maps = torch.from_numpy(framed.reshape(self.n, -1))
        self.offsets = torch.tensor([dy * self.s + dx for dy, dx in prior.TEMPLATE])
        y, x = np.mgrid[: self.h, : self.w]
        self.centres = torch.from_numpy(((y + pad) * self.s + x + pad).ravel())

        flat = np.ones(maps.shape, bool)
        west = framed[:, pad:, pad - 1 : pad - 1 + self.w]
        for dy, dx in prior.TEMPLATE:
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


def evaluate(net: Network, pixels: Pixels, planes: Tensor | None, step: int) -> float:
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
                row, column = y * prior.BANDS // pixels.h, x * prior.BANDS // pixels.w
                logits = net(around[part].long(), row, column, f)
                total += F.cross_entropy(logits, target[part], reduction="sum").item()
            count += 1
    net.train()
    return total / math.log(2) / 8 / count


def export(causal: dict[str, Tensor], informed: dict[str, Tensor] | None, path: Path) -> None:
    """Writes the integers that `sempic.labels.prior.load` reads. Both are states of `Network`."""
    arrays: dict[str, npt.NDArray[Any]] = {}

    def fixed(x: Tensor, scale: float = 256) -> npt.NDArray[np.int16]:
        return (x * scale).round().clamp(-2048, 2047).numpy().astype(np.int16)

    for name, state in (("causal", causal), ("informed", informed)):
        if state is None:
            continue
        classes = state["last.bias"].numel()
        t = len(prior.TEMPLATE)
        network = prior.Causal(
            template=fixed(state["template"]).reshape(t, classes + 1, -1),
            rows=fixed(state["rows"]),
            columns=fixed(state["columns"]),
            mix=fixed(state["mix.weight"].T)
            if name == "informed"
            else np.zeros((prior.FEATURES, prior.HIDDEN[0]), np.int16),
            second=fixed(state["second.weight"].T),
            second_bias=fixed(state["second.bias"]),
            last=fixed(state["last.weight"].T),
            last_bias=fixed(state["last.bias"]),
        )
        arrays |= {f"{name}.{k}": v for k, v in network._asdict().items()}
        arrays["classes"] = np.array(classes)
    if informed is not None:
        for i in range(len(prior.LAYERS)):
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
    known: prior.Prior, data: dict[str, npt.NDArray[np.uint8]], steps: int = 600
) -> dict[str, npt.NDArray[Any]]:
    """Fits the layer that names the classes of each pixel to the trunk's last hidden layer, by
    cross-entropy on human and predicted maps; returns its integers, as `prior.load` reads them."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    identity = prior.Layer(
        np.eye(prior.LAYERS[-1][0], dtype=np.float32),
        np.full(prior.LAYERS[-1][0], 1 << 24, np.int64),
        np.zeros(prior.LAYERS[-1][0], np.int64),
    )
    layers = (*known.layers[:-1], identity)
    views = data["planes"].shape[1]
    seen = np.stack(
        [prior.convolve(layers, p[rng.integers(views)]) for p in tqdm(data["planes"], desc="trunk")]
    )
    inputs = seen.shape[1]
    scale = seen[::10].transpose(1, 0, 2, 3).reshape(inputs, -1).astype(np.float32).std(1) + 1
    cell = prior.CELL
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
    """The tables of `_primed`: what its state is after the training maps and their mirror images,
    human and predicted in turn, without and with their coarse pictures."""
    rng = np.random.default_rng(0)
    order = rng.permutation(2 * len(data["labels"]))
    views = rng.integers(data["planes"].shape[1], size=len(order))
    states = []
    for informed in (False, True):
        state = _primed.unprimed(known.classes)
        for turn, number in enumerate(tqdm(order, desc="informed" if informed else "causal")):
            i, mirror = number // 2, slice(None, None, -1 if number % 2 else 1)
            planes = data["planes"][i, views[turn], ..., mirror] if informed else None
            for kind in ("labels", "predicted"):
                labels = data[kind][i, :, mirror]
                _primed.run(
                    labels.astype(np.int64),
                    _model.new_coder(),
                    np.zeros(labels.size, np.uint8),
                    np.bincount(labels.ravel(), minlength=known.classes).clip(0, 1),
                    state,
                    decode=False,
                    network=known.causal,
                    evidence=_primed.evidence(known, planes, *labels.shape),
                )
        states.append(state)
    return {f"primed.{k}": v for k, v in _primed.tables_of(*states).items()}


def main(argv: list[str] | None = None) -> None:
    """The command line; raises SempicError."""
    parser = argparse.ArgumentParser(
        prog="sempic train prior",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    steps = parser.add_subparsers(required=True, metavar="STEP")
    network = steps.add_parser("network", help="train a network; resumed if it has begun")
    network.add_argument("--data", type=Path, required=True, help="folder with camvid/")
    network.add_argument("--out", type=Path, required=True, help="folder of the run")
    network.add_argument("--coarse", action="store_true", help="one that sees the coarse picture")
    network.add_argument("--steps", type=int, default=4000)
    network.add_argument("--maps", type=int, default=4, help="maps in a batch")
    network.add_argument("--busy", type=int, default=3000, help="pixels at outlines, a map")
    network.add_argument("--calm", type=int, default=700, help="other pixels, a map")
    network.add_argument("--lr", type=float, default=3e-3)
    network.add_argument("--start", type=Path, help="run to take what fits from")
    network.set_defaults(run=_train)
    written = steps.add_parser("export", help="two networks as the integers of label model 1")
    written.add_argument("--causal", type=Path, required=True, help="run without --coarse")
    written.add_argument("--informed", type=Path, required=True, help="run with --coarse")
    written.add_argument("--out", type=Path, required=True, help="the file, .npz")
    written.set_defaults(run=_export)
    tables = steps.add_parser("tables", help="readout and tables of a label model")
    tables.add_argument("--data", type=Path, required=True, help="folder with camvid/")
    tables.add_argument("--networks", type=Path, default=BUNDLED, help="default: the bundled ones")
    tables.add_argument(
        "--segmenter", type=Path, help="ONNX file whose maps are learned from; default: the bundled"
    )
    tables.add_argument("--out", type=Path, required=True, help="the file, .npz")
    tables.set_defaults(run=_tables)
    args = parser.parse_args(argv)
    args.run(args)


def _export(args: argparse.Namespace) -> None:
    export(_averaged(args.causal), _averaged(args.informed), args.out)


def _tables(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    data = corpus(args.data, "train", args.out.parent / "prior-train.npz", args.segmenter)
    known = prior.load(args.networks)
    layer = readout(known, data)
    parsed = prior.Layer(
        layer["readout.weight"].astype(np.float32),
        layer["readout.multiplier"].astype(np.int64),
        layer["readout.bias"].astype(np.int64),
    )
    arrays: dict[str, Any] = layer | prime(known._replace(readout=parsed), data)
    np.savez_compressed(args.out, **arrays)


def _averaged(folder: Path) -> dict[str, Tensor]:
    """The averaged weights of a run; raises ModelError."""
    path = folder / "state.pt"
    try:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)["ema"]
    except (OSError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
        raise ModelError(f"{path} is no checkpoint of `sempic train prior network`") from error
    return state


def _train(args: argparse.Namespace) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    data = corpus(args.data, "train", args.out.parent / "prior-train.npz")
    val = corpus(args.data, "val", args.out.parent / "prior-val.npz")
    classes = 12
    net = Network(classes, args.coarse)
    if args.start:
        net.load_state_dict(_averaged(args.start), strict=False)
    ema = Ema(net, 0.998)
    optimizer = torch.optim.AdamW(net.parameters(), lr=args.lr, weight_decay=1e-4)
    run = Run(args.out, args.steps)
    if state := run.resume():
        net.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        ema.load(state["ema"], run.step)
    labels = data["labels"]
    pools = [Pixels(labels, classes), Pixels(labels[:, :, ::-1].copy(), classes)]
    judged = Pixels(val["labels"], classes)
    planes = torch.from_numpy(data["planes"]) if args.coarse else None
    val_planes = torch.from_numpy(val["planes"]) if args.coarse else None
    g = torch.Generator().manual_seed(run.step)
    rng = np.random.default_rng(run.step)
    order: list[int] = []
    losses = []
    while run.step < args.steps:
        for group in optimizer.param_groups:
            warm = min(1.0, (run.step + 1) / 100)
            group["lr"] = (
                args.lr
                * warm
                * (0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * run.step / args.steps)))
            )
        if len(order) < args.maps:
            order = list(rng.permutation(len(labels)))
        batch = [order.pop() for _ in range(args.maps)]
        flips = rng.integers(0, 2, args.maps)
        drawn = [
            pools[m].draw(i, g, args.busy, args.calm) for i, m in zip(batch, flips, strict=True)
        ]
        chosen = torch.cat([d[0] for d in drawn])
        around, target, weight = (torch.cat([d[k] for d in drawn]) for k in (1, 2, 3))
        h, w = judged.h, judged.w
        y, x = chosen // w, chosen % w
        f, aux = None, torch.zeros(())
        if planes is not None:
            quality = rng.integers(len(VIEWS), size=args.maps)
            view = torch.stack(
                [
                    planes[i, q].flip(-1) if m else planes[i, q]
                    for i, q, m in zip(batch, quality, flips, strict=True)
                ]
            )
            with torch.autocast("cpu", torch.bfloat16):
                dense = net.features(view).float()
            index = torch.repeat_interleave(
                torch.arange(args.maps), torch.tensor([len(d[0]) for d in drawn])
            )
            # The grid of a flipped picture starts 4⌈W/4⌉ - W pixels off.
            shift = torch.from_numpy(flips)[index] * (dense.shape[2] - w)
            f = dense[index, y, x + shift]
            yy = torch.randint(0, h, (4096,), generator=g)
            xx = torch.randint(0, w, (4096,), generator=g)
            which = torch.randint(0, args.maps, (4096,), generator=g)
            fa = dense[which, yy, xx + torch.from_numpy(flips)[which] * (dense.shape[2] - w)]
            ta = torch.stack([pools[m].maps[i] for i, m in zip(batch, flips, strict=True)])
            aux = F.cross_entropy(
                net.aux(fa), ta[which, (yy + prior.PAD) * judged.s + xx + prior.PAD].long()
            )
        logits = net(around, y * prior.BANDS // h, x * prior.BANDS // w, f)
        bits = (F.cross_entropy(logits, target, reduction="none") * weight).sum() / math.log(2)
        bytes_per_map = bits / 8 / args.maps
        loss = bytes_per_map / 500 + 0.3 * aux
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 2.0)
        optimizer.step()
        ema.update(net)
        run.step += 1
        losses.append((bytes_per_map.item(), aux.item()))
        if run.step % 50 == 0:
            a, b = np.mean(losses, 0)
            run.log(bytes=float(a), aux=float(b))
            losses.clear()
        if run.step % 500 == 0 or run.step == args.steps:
            judge = Network(classes, args.coarse)
            judge.load_state_dict(ema.state)
            step = 1 if run.step == args.steps else 10
            run.log(val_bytes=evaluate(judge, judged, val_planes, step))
        if run.step % 100 == 0 or run.step == args.steps:
            run.save(network=net.state_dict(), optimizer=optimizer.state_dict(), ema=ema.state)
