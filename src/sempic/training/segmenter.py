"""The bundled segmenter and the judge: EfficientNet-Lite with a small feature-pyramid decoder."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sempic.evaluation.metrics import confusion, iou
from sempic.training.efficientnet import EfficientNetLite, imagenet
from sempic.training.pairs import Pair, degrade, load_pairs, random_crop
from sempic.training.run import Ema, Run, add_options, compiled, fast, load_weights, save_weights

CLASSES = 11
VOID = 11
RARE = (2, 6, 7, 9, 10)
"""Pole, sign, fence, pedestrian, bicyclist: few pixels, much meaning."""
UNLABELLED_IN_FACADES = (2, 6, 7, 9, 10)
"""LabelMeFacade does not label these: any other label of its maps may hide them."""
HIDDEN = 0.05
"""Likelihood of what may hide behind another label, beside the label's own. At 1, a pole everywhere
is right on every facade, and soon so on every road that looks unlike CamVid's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmenterConfig:
    """Rides in the metadata of the weights."""

    backbone: int = 0
    """Version of EfficientNet-Lite."""
    classes: int = CLASSES
    width: int = 96
    """Channels of the pyramid."""


def _conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class SegmentationNet(nn.Module):
    """Feature pyramid network (Lin et al. 2017) with a head at stride 2, for poles and signs.

    There is no pooling over the whole picture: on the roads of the training set it earns nothing,
    and on others it can turn every pixel into one class.

    Input: float (B, 3, H, W) RGB in [0, 1]; H and W multiples of 32.
    Output: logits (B, classes, H / 2, W / 2).
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = EfficientNetLite(config.backbone)
        fine, *coarse = self.backbone.channels
        self.lateral = nn.ModuleList(nn.Conv2d(c, config.width, 1) for c in coarse)
        self.smooth = nn.ModuleList(_conv(config.width, config.width) for _ in coarse)
        self.skip = _conv(fine, config.width // 4, 1)
        self.head = nn.Sequential(
            _conv(config.width + config.width // 4, config.width // 2),
            nn.Dropout2d(0.1),
            nn.Conv2d(config.width // 2, config.classes, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        fine, *coarse = self.backbone(x)
        top = self.smooth[-1](self.lateral[-1](coarse[-1]))
        for level in range(len(coarse) - 2, -1, -1):
            top = self.smooth[level](self.lateral[level](coarse[level]) + _double(top))
        return self.head(torch.cat([_double(top), self.skip(fine)], 1))


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def partial_cross_entropy(
    logits: Tensor, labels: Tensor, partial: Tensor, weight: Tensor
) -> Tensor:
    """Cross-entropy where the labels of `partial` pictures may hide unlabelled classes.

    There, a pixel's likelihood is that of its label and HIDDEN times that of the classes nobody
    labelled, so that poles are not taught to be buildings. logits (B, C, H, W); labels (B, H, W),
    255 = ignore.
    """
    log_p = F.log_softmax(logits, 1)
    known = labels != 255
    target = labels.where(known, torch.zeros_like(labels))
    chosen = log_p.gather(1, target[:, None])[:, 0]
    hidden = torch.logsumexp(log_p[:, list(UNLABELLED_IN_FACADES)], 1) + math.log(HIDDEN)
    chosen = torch.where(partial[:, None, None], torch.logaddexp(chosen, hidden), chosen)
    weights = weight[target] * known
    return -(chosen * weights).sum() / weights.sum().clamp_min(1)


def soft_jaccard(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - mean over the present classes of the soft intersection over union of a batch."""
    known = labels != 255
    p = logits.softmax(1) * known[:, None]
    truth = F.one_hot(labels.where(known, torch.zeros_like(labels)), logits.shape[1])
    truth = truth.permute(0, 3, 1, 2) * known[:, None]
    inter = (p * truth).sum((0, 2, 3))
    union = (p + truth).sum((0, 2, 3)) - inter
    present = truth.sum((0, 2, 3)) > 0
    return 1 - ((inter + 1) / (union + 1))[present].mean()


@torch.no_grad()
def predict(network: nn.Module, image: np.ndarray, enlarge: float = 1.0) -> np.ndarray:
    """Label map, uint8 (H, W), of a picture, uint8 (H, W, 3), of any size."""
    size = image.shape[:2]
    height, width = (round(side * enlarge) for side in size)
    device = next(network.parameters()).device
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].to(device).float() / 255
    if enlarge != 1:
        x = F.interpolate(x, (height, width), mode="bicubic", align_corners=False).clamp(0, 1)
    x = F.pad(x, (0, -width % 32, 0, -height % 32), mode="replicate")
    logits = F.interpolate(network(x), scale_factor=2, mode="bilinear", align_corners=False)
    logits = logits[..., :height, :width]
    if enlarge != 1:
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    return logits[0].argmax(0).to(torch.uint8).cpu().numpy()


def evaluate(network: nn.Module, pairs: list[Pair], enlarge: float = 1.0) -> np.ndarray:
    """IoU of each class over all pairs together; NaN for a class in none of them."""
    network.eval()
    maps = ((p.labels, predict(network, p.image, enlarge)) for p in pairs)
    matrix = sum(confusion(truth, guess, CLASSES) for truth, guess in maps)
    assert isinstance(matrix, np.ndarray)
    return iou(matrix)


def save_segmenter(state: dict[str, Tensor], config: SegmenterConfig, path: Path) -> None:
    """Write the weights of a segmenter (`save_weights`)."""
    save_weights(state, "segmenter", config, path)


def load_segmenter(path: Path) -> SegmentationNet:
    """A segmenter that `save_segmenter` wrote, not training; raises ModelError if there is none."""
    state, fields = load_weights(path, "segmenter")
    network = SegmentationNet(SegmenterConfig(**fields))
    network.load_state_dict(state)
    return network.eval()


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="sempic train segmenter", description="Fine-tune an ImageNet backbone on CamVid."
    )
    add_options(parser)
    parser.add_argument("--backbone", type=int, default=0, choices=(0, 1, 2))
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--crop", type=int, nargs=2, default=(256, 320), metavar=("H", "W"))
    parser.add_argument(
        "--heights",
        type=int,
        nargs=2,
        default=(256, 620),
        metavar=("MIN", "MAX"),
        help="of the whole picture in pixels, between which crops are scaled",
    )
    parser.add_argument("--init", type=Path, help="segmenter.safetensors to start from")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument(
        "--enlarge",
        type=float,
        default=1.5,
        help="how much small pictures are enlarged before they are segmented",
    )
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    config = SegmenterConfig(backbone=args.backbone)
    camvid = load_pairs(args.data / "camvid/train", args.data / "camvid/trainannot")
    facades: list[Pair] = []
    if (args.data / "labelmefacade").exists():
        facades = load_pairs(args.data / "labelmefacade/images", args.data / "labelmefacade/labels")
    val = load_pairs(args.data / "camvid/val", args.data / "camvid/valannot", (341, 256))
    counts = sum(np.bincount(p.labels.ravel(), minlength=256)[:CLASSES] for p in camvid)
    rarity = torch.tensor((np.median(counts) / np.maximum(counts, 1)) ** 0.25, dtype=torch.float32)
    weight = rarity.to(args.device)

    network = SegmentationNet(config)
    if args.init:
        network.load_state_dict(load_segmenter(args.init).state_dict())
    else:
        network.backbone.load_state_dict(imagenet(args.backbone).state_dict())
    # The gradient of depthwise kernels is half of all the time on a CPU, and ImageNet's serve well.
    for block in network.backbone.modules():
        if isinstance(block, nn.Conv2d) and block.groups > 1:
            block.weight.requires_grad_(False)
    network.to(args.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    working = compiled(network, args.device)
    head = [p for n, p in network.named_parameters() if not n.startswith("backbone.")]
    optimizer = torch.optim.AdamW(
        [
            {"params": list(network.backbone.parameters()), "lr": args.lr / 3},
            {"params": head, "lr": args.lr},
        ],
        weight_decay=1e-2,
    )
    ema = Ema(network, 0.998)
    run = Run(args.out, args.steps, args.device)
    if state := run.resume():
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        ema.load(state["ema"], run.step)
    base = (args.lr / 3, args.lr)

    judge = SegmentationNet(config).to(args.device)
    losses: list[float] = []
    while run.step < args.steps:
        rng = np.random.default_rng((args.seed, run.step))
        crops, maps, partial = [], [], []
        for slot in range(args.batch):
            facade = bool(facades) and slot % 3 == 2  # a third: other cities, other cameras
            source = facades if facade else camvid
            image, labels = random_crop(
                source[rng.integers(len(source))],
                rng,
                size=tuple(args.crop),
                heights=tuple(args.heights),
                rare=() if facade else RARE,
            )
            crops.append(degrade(image, rng))
            maps.append(np.where(labels >= CLASSES, 255, labels).astype(np.int64))
            partial.append(facade)
        x = torch.from_numpy(np.stack(crops)).to(args.device).permute(0, 3, 1, 2).float() / 255
        y = torch.from_numpy(np.stack(maps)).to(args.device)
        progress = run.step / args.steps
        for group, lr in zip(optimizer.param_groups, base, strict=True):
            warm = min(1.0, (run.step + 1) / 100)
            group["lr"] = lr * warm * (0.5 + 0.5 * math.cos(math.pi * progress))
        network.train()
        with fast(args.device):
            logits = working(x.to(memory_format=torch.channels_last))
        logits = _double(logits.float())
        flags = torch.tensor(partial, device=args.device)
        loss = partial_cross_entropy(logits, y, flags, weight)
        if not flags.all():
            loss = loss + soft_jaccard(logits[~flags], y[~flags])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        ema.update(network)
        run.step += 1
        losses.append(loss.item())
        if run.step % 50 == 0:
            run.log(loss=float(np.mean(losses)))
            losses.clear()
        if run.step % 400 == 0 or run.step == args.steps:
            judge.load_state_dict(ema.state)
            scores = evaluate(judge, val if run.step == args.steps else val[::5], args.enlarge)
            run.log(
                miou=float(np.nanmean(scores)),
                **{f"iou{c}": float(s) for c, s in enumerate(scores)},
            )
        if run.step % 100 == 0 or run.step == args.steps:
            run.save(network=network.state_dict(), optimizer=optimizer.state_dict(), ema=ema.state)
            save_segmenter(ema.state, config, args.out / "segmenter.safetensors")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
