"""`sempic train segmenter`: EfficientNet-Lite with a small pyramid, from human and teacher maps.

A human map may have coarser classes than the network: CamVid's car is Cityscapes' car, truck, bus
or train. A teacher's map has the network's classes, and void where the teacher is unsure. Known
maps join both (`data.taxonomy`); where a known map has a group of classes, a pixel's likelihood is
the sum over the group.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from sempic.errors import InputError, ModelError
from sempic.evaluation.metrics import confusion, iou
from sempic.networks.compact import double
from sempic.networks.efficientnet import imagenet
from sempic.networks.segmenter import SegmentationNet, SegmenterConfig, predict
from sempic.networks.weights import load_segmenter
from sempic.palette import CAMVID, CITYSCAPES, Palette, translate
from sempic.pictures import resized
from sempic.scene import Image, LabelMap
from sempic.segment import working_scale
from sempic.training.data import taxonomy
from sempic.training.data.readers import Item
from sempic.training.data.sources import Source, open_sources
from sempic.training.data.taxonomy import GROUP, UNKNOWN, Taxonomy
from sempic.training.data.views import Pictures, Views
from sempic.training.device import autocast, compiled
from sempic.training.onnx import export_segmenter
from sempic.training.optimizer import Optimizer, Schedule
from sempic.training.options import SegmenterOptions
from sempic.training.recipe import OwnRecipe

HEAVIEST = 3.0
"""Largest class weight before its importance."""


def cross_entropy(logits: Tensor, known: Tensor, groups: Tensor, weight: Tensor) -> Tensor:
    """Negative log-likelihood of known maps, a mean over pixels weighted by class.

    Args:
        logits: (B, C, H, W).
        known: uint8 (B, H, W), known maps (`taxonomy`); unknown pixels have weight 0.
        groups: bool (G, C) on the CPU, the classes of each group.
        weight: (C,), of each class; a group has the largest of its classes' weights.
    """
    log_p = F.log_softmax(logits, 1)
    is_exact = known < logits.shape[1]
    target = known.long() * is_exact
    chosen = log_p.gather(1, target[:, None])[:, 0]
    weights = weight[target] * is_exact
    for number, row in enumerate(groups):
        ids = row.nonzero()[:, 0].tolist()
        if len(ids) > 1:
            here = known == GROUP + number
            together = log_p[:, ids].logsumexp(1)
            chosen = torch.where(here, together, chosen)
            weights = torch.where(here, weight[ids].max(), weights)
    return -(chosen * weights).sum() / weights.sum().clamp_min(1)


def soft_jaccard(logits: Tensor, known: Tensor) -> Tensor:
    """1 - the mean over present classes of the soft intersection over union, of exact pixels."""
    classes = logits.shape[1]
    is_exact = known < classes
    p = logits.softmax(1) * is_exact[:, None]
    truth = F.one_hot(known.long() * is_exact, classes).permute(0, 3, 1, 2) * is_exact[:, None]
    inter = (p * truth).sum((0, 2, 3))
    union = (p + truth).sum((0, 2, 3)) - inter
    present = truth.sum((0, 2, 3)) > 0
    lost = 1 - (inter + 1) / (union + 1)
    return (lost * present).sum() / present.sum().clamp_min(1)


def frequencies(sources: Sequence[Pictures], classes: Taxonomy) -> npt.NDArray[np.float64]:
    """Share of each class among the pixels of exact class, (C,), sources by their shares."""
    total = np.zeros(classes.classes)
    for source in sources:
        pixels = np.sum([np.bincount(known.ravel(), minlength=256) for known in source.known], 0)
        counts = pixels[: classes.classes]
        total += source.share * counts / max(1, counts.sum())
    return total


def class_weights(frequency: npt.NDArray[np.float64], classes: Taxonomy) -> npt.NDArray[np.float32]:
    """Weights, float32 (C,): (median frequency / frequency)^¼ up to HEAVIEST, times importance."""
    median = np.median(frequency[frequency > 0]) if frequency.any() else 1.0
    weights = np.minimum((median / np.maximum(frequency, 1e-6)) ** 0.25, HEAVIEST)
    for name, factor in classes.importance.items():
        weights[list(classes.ids([name]))] *= factor
    return weights.astype(np.float32)


def grow_head(
    network: SegmentationNet, given: SegmentationNet, path: Path, frequency: npt.NDArray[np.float64]
) -> None:
    """Copy the weights of the segmenter `given`, read from `path`, into `network`.

    From CamVid's to Cityscapes' classes, each class begins as a share of the CamVid class that
    contains it, in proportion to its frequency, (C,). So all CamVid classes keep their
    probabilities. For other differences of classes the last layer is not copied. Raises
    ModelError for another backbone or width.
    """
    state, classes = given.state_dict(), network.config.classes
    last = f"head.{len(network.head) - 1}."
    before, after = given.palette, network.palette
    if (before, after) == (CAMVID, CITYSCAPES):
        order = translate(np.arange(classes, dtype=np.uint8), CITYSCAPES.id, CAMVID.id)
        frequency = np.maximum(frequency, 1e-6)
        share = frequency / np.bincount(order, frequency)[order]
        rows = torch.from_numpy(order.astype(np.int64))
        state = {**state, **{last + k: state[last + k][rows] for k in ("weight", "bias")}}
        state[last + "bias"] += torch.from_numpy(np.log(share)).to(state[last + "bias"])
    elif after is None or after.unlike(given.config.classes, before):
        state = {k: v for k, v in state.items() if not k.startswith(last)}
    try:
        unexpected = network.load_state_dict(state, strict=False).unexpected_keys
    except RuntimeError as error:
        raise ModelError(f"{path} has another backbone or width") from error
    if unexpected:
        raise ModelError(f"{path} has another backbone: {unexpected[0]}")


def _loaded(source: Source, classes: Taxonomy) -> Pictures:
    """A source's pictures with maps."""
    images, maps = [], []
    for item in tqdm(source.train, desc=source.name, leave=False, disable=None):
        image, known = item.opened(classes)
        if known is not None:
            images.append(image)
            maps.append(known)
    return Pictures(source.name, source.weight, images, maps)


class Validation:
    """IoU against human maps at a short side of 256 pixels: in the classes of the training, or in
    those of the maps if they are coarser, as a label of CamVid that several of Cityscapes share."""

    def __init__(self, items: Sequence[Item], classes: Taxonomy) -> None:
        """Pictures are left out without a human map, or if it does not tell these classes."""

        def is_exact(palette: Palette) -> bool:
            return bool((classes.of(palette).sum(1) <= 1).all())

        self.scenes: list[tuple[Image, LabelMap]] = []
        labelled = [item for item in items if item.labels is not None]
        exact = not labelled or is_exact(labelled[0].palette)
        palette = classes.palette if exact else labelled[0].palette
        self.names, self.count = palette.classes, palette.known
        allowed = classes.of(palette)
        self.table = np.full(256, self.count, np.uint8)
        self.table[: classes.classes] = np.where(allowed.any(0), allowed.argmax(0), self.count)
        for item in labelled:
            if is_exact(item.palette) if exact else item.palette.name == palette.name:
                image, truth = item.labelled()
                assert truth is not None
                if exact:
                    truth = classes.known(truth, item.palette)
                height, width = truth.shape
                scale = 256 / min(height, width)
                size = round(width * scale), round(height * scale)
                self.scenes.append((resized(image, size), resized(truth, size, "NEAREST")))

    def scores(self, network: SegmentationNet) -> dict[str, float]:
        """IoU of each class over all pictures, and the mean; empty without a labelled pixel."""
        matrix = np.zeros((self.count, self.count + 1), np.int64)
        for image, truth in self.scenes:
            scale = working_scale(truth.shape, enlarge=network.config.enlarge)
            guess = self.table[predict(network, image, scale)]
            matrix += confusion(truth, guess, self.count)
        ious = iou(matrix)
        named = {n: float(v) for n, v in zip(self.names, ious, strict=False) if np.isfinite(v)}
        return {"miou": float(np.mean(list(named.values()))), **named} if named else {}


class Segmenter(OwnRecipe):
    """Cross-entropy of known maps, and a soft Jaccard loss of pixels with an exact class."""

    kind = SegmentationNet.kind
    decay = 0.998

    def __init__(self, options: SegmenterOptions, device: torch.device) -> None:
        super().__init__(options, device, taxonomy.load(options.classes))
        begin = options.init and load_segmenter(options.init)
        self.teachers = [self._load_teacher(path) for path in options.teacher]
        opened = open_sources(options.data, self.taxonomy)
        val = [item for part in opened for item in part.divided(judged=options.judged)[1]]
        self.validation = Validation(val, self.taxonomy)
        if not self.validation.scenes:
            print("no folder has a split val with label maps: nothing is validated", flush=True)
        loaded = [_loaded(source, self.taxonomy) for source in opened]
        counts = ", ".join(f"{part.name} {len(part.images)}" for part in loaded)
        print(f"pictures with label maps: {counts}", flush=True)
        sources = [part for part in loaded if part.images]
        if not sources:
            raise InputError(f"{', '.join(options.data)}: no picture to learn from has a label map")
        if not any((map_ != UNKNOWN).any() for source in sources for map_ in source.known):
            raise InputError(
                f"{', '.join(options.data)}: no pixel of a map is of any class of "
                f"{self.taxonomy.palette.name}"
            )
        frequency = frequencies(sources, self.taxonomy)
        weights = class_weights(frequency, self.taxonomy)
        named = zip(self.taxonomy.palette.classes, weights, strict=False)
        print("class weights:", ", ".join(f"{n} {w:.2f}" for n, w in named), flush=True)
        found = (frequency > 0) | self.taxonomy.groups.any(0)
        if absent := [
            n for n, f in zip(self.taxonomy.palette.classes, found, strict=False) if not f
        ]:
            print(f"no map has {', '.join(absent)}: not learned", flush=True)
        self.weight = torch.from_numpy(weights).to(device)
        self.groups = torch.from_numpy(self.taxonomy.groups)
        self.views = Views(
            sources, self.taxonomy, size=options.crop, heights=options.heights, device=device
        )
        config = SegmenterConfig(
            backbone=options.backbone, classes=self.taxonomy.classes, enlarge=options.enlarge
        )
        network = SegmentationNet(config)
        network.palette = self.taxonomy.palette
        if options.init and begin:
            grow_head(network, begin, options.init, frequency)
        else:
            network.backbone = imagenet(options.backbone)
        if device.type == "cpu":
            # Gradients of depthwise kernels take half of the time on a CPU; ImageNet's kernels do.
            for block in network.backbone.modules():
                if isinstance(block, nn.Conv2d) and block.groups > 1:
                    block.weight.requires_grad_(False)
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network: SegmentationNet = network
        self.working = compiled(network, device)
        head = [p for n, p in network.named_parameters() if not n.startswith("backbone.")]
        backbone = [p for p in network.backbone.parameters() if p.requires_grad]
        self.optimizer = Optimizer(
            [{"params": backbone, "lr": options.lr / 3}, {"params": head, "lr": options.lr}],
            schedule=Schedule(warmup=100, floor=0.0),
            weight_decay=1e-2,
            clip=5.0,
        )
        self.optimizers = {"network": self.optimizer}

    def _load_teacher(self, path: Path) -> nn.Module:
        """Raises ModelError for a teacher of other classes."""
        teacher = load_segmenter(path).requires_grad_(False)
        if why := self.taxonomy.palette.unlike(teacher.config.classes, teacher.palette):
            raise ModelError(f"{path} knows {why}")
        teacher.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return compiled(teacher, self.device)

    def step(self, number: int) -> dict[str, Tensor]:
        x, known = self.views.draw(self.options.seed, number, self.options.batch)
        x = x.contiguous(memory_format=torch.channels_last)
        self.network.train()
        with autocast(self.device):
            answer = self.working(x).float()
        logits = double(answer)
        likelihood = cross_entropy(logits, known, self.groups, self.weight)
        parts = {"likelihood": likelihood, "jaccard": soft_jaccard(logits, known)}
        if self.teachers:
            apart = F.kl_div(answer.log_softmax(1), self._taught(x), reduction="none")
            parts["teacher"] = apart.sum(1).mean()
        loss = torch.stack(list(parts.values())).sum()
        norm = self.optimizer.minimise(loss)
        return {"loss": loss, **parts, "norm": norm}

    @torch.no_grad()
    def _taught(self, x: Tensor) -> Tensor:
        """The teachers' mean probabilities, (B, C, H / 2, W / 2), of crops and of their mirror
        images.

        Teachers see the same degraded crops: a consistent teacher is better than one that sees the
        clean picture (Beyer et al., "Knowledge distillation: a good teacher is patient and
        consistent", 2022).
        """
        total = torch.zeros((), device=self.device)
        for teacher in self.teachers:
            for mirrored in (False, True):
                with autocast(self.device):
                    answer = teacher(x.flip(3) if mirrored else x).float().softmax(1)
                total = total + (answer.flip(3) if mirrored else answer)
        return total / (2 * len(self.teachers))

    def validate(self, state: dict[str, Tensor], sheet: Path) -> dict[str, float]:
        return self.validation.scores(self.averaged(state))

    def export(self, state: dict[str, Tensor], folder: Path) -> None:
        export_segmenter(self.averaged(state), folder / "segmenter.onnx")
