"""The part that both trainings of the compact receiver share: network, crops and validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sempic import files, pictures, texture
from sempic.diffusion import edm
from sempic.diffusion.sampling import to_uint8, to_unit
from sempic.errors import ModelError, warn
from sempic.evaluation.folders import spread
from sempic.networks.compact import CompactConfig, CompactNet, one_hot, upsample
from sempic.networks.weights import load_receiver
from sempic.palette import CAMVID, CITYSCAPES
from sempic.training.data.batches import Batch, Crops, Drops, texture_inputs
from sempic.training.data.corpus import common_size, open_corpus, sent_texture
from sempic.training.device import compiled, to_device
from sempic.training.grow import grow
from sempic.training.onnx import export_receiver
from sempic.training.options import ReceiverOptions
from sempic.training.recipe import OwnRecipe


class ReceiverRecipe(OwnRecipe):
    """A compact receiver, and random crops of a corpus."""

    kind = CompactNet.kind
    decay = 0.999

    def __init__(self, options: ReceiverOptions, device: torch.device, offset: int = 0) -> None:
        """`offset` is added to the seed, so that two stages draw different crops."""
        corpus = open_corpus(options.corpus, options.threads)
        super().__init__(options, device, corpus.taxonomy)
        network = self._begin().to(device)
        network.normalise()
        network.palette = corpus.taxonomy.palette
        self.config = network.config
        self.network: CompactNet = network
        self.working = compiled(network, device)
        drops = Drops(options.label_drop, options.region_drop, options.region_wrong)
        self.crops = Crops(corpus, size=options.crop, device=device, drops=drops)
        self._seed = options.seed + offset
        judged = corpus.part(judged=True) or corpus.samples
        self._shown = spread(judged, options.sheet)
        self._shown_size = common_size(judged)  # upright pictures may be among broad ones

    def _begin(self) -> CompactNet:
        begin, classes = self.options.init, self.taxonomy.classes
        if begin is None:
            return CompactNet(CompactConfig(classes=classes, texture=texture.CONDITION))
        network = load_receiver(begin)
        known, mine = network.config.classes, self.taxonomy.palette
        if why := mine.unlike(known, None):
            can_grow = known == CAMVID.known and mine is CITYSCAPES
            how = ": `sempic train grow` gives a receiver these" if can_grow else ""
            raise ModelError(f"{begin} knows {why}{how}")
        if why := mine.unlike(known, network.palette):
            warn(f"{begin} knows {why}, which replace them")
        return grow(network, texture=texture.CONDITION)

    def draw(self, number: int) -> tuple[Batch, Tensor]:
        """The crops of a step, and the one-hot planes of their labels."""
        batch = self.crops.draw(self._seed, number, self.options.batch)
        image, coarse = (
            part.contiguous(memory_format=torch.channels_last)
            for part in (batch.image, batch.coarse)
        )
        planes = one_hot(batch.labels, self.config.classes)
        return batch._replace(image=image, coarse=coarse), planes

    @torch.no_grad()
    def validate(self, state: dict[str, Tensor], sheet: Path) -> dict[str, float]:
        """The PSNR in dB of some pictures of 4 steps. The sheet has them in rows: coarse | labels |
        1 step | 4 steps | original."""
        network, palette = self.averaged(state), self.taxonomy.palette
        height, width = self._shown_size
        rows, errors = [], []
        for scene in self._shown:
            image, labels = scene.image[:height, :width], scene.maps[0][:height, :width]
            small = scene.coarse[0][: height // 4, : width // 4]
            coarse = to_unit(to_device(small, self.device))[None]
            ids = to_device(labels, self.device)[None]
            planes = one_hot(ids, self.config.classes)
            sent = texture.condition(sent_texture(scene.textures[0]))
            tables = sent[None, : len(self.crops.usual)]
            fine, strength = texture_inputs(tables, self.crops.usual, ids)
            row = [to_uint8(upsample(coarse)[0]), palette.paint(labels)]
            for steps in (1, 4):
                levels = edm.sigmas(steps, self.config.sigma_max)
                generator = torch.Generator().manual_seed(0)
                *_, residual = edm.sample(
                    network, coarse, planes, levels, generator, texture=fine, strength=strength
                )
                row.append(to_uint8((upsample(coarse) + residual)[0]))
            errors.append(np.square(row[-1].astype(float) - image).mean())
            rows.append(np.concatenate([*row, image], 1))
        files.write(sheet, pictures.encode(np.concatenate(rows), ".png"))
        return {"psnr": float(10 * np.log10(255**2 / np.mean(errors)))}

    def export(self, state: dict[str, Tensor], folder: Path) -> None:
        export_receiver(self.averaged(state), folder / "receiver.onnx")


def parameter_groups(network: CompactNet, lr: float) -> list[dict[str, Any]]:
    """Optimizer groups: `lr` for the normalised filters and their gains, lr / 10 for the rest."""
    groups: tuple[list[Tensor], list[Tensor]] = ([], [])
    for name, parameter in network.named_parameters():
        groups[parameter.ndim < 4 and not name.endswith("_gain")].append(parameter)
    filters, others = groups
    return [{"params": filters, "lr": lr}, {"params": others, "lr": lr / 10}]
