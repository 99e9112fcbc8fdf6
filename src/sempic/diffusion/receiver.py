"""The paper's network as a receiver: labels and coarse picture → picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from sempic import coarse as coarse_codec
from sempic.diffusion.checkpoints import open_model
from sempic.diffusion.flags import SamplingConfig
from sempic.diffusion.gaussian import DiffusionConfig, make_diffusion
from sempic.diffusion.sampling import (
    ddim,
    ddpm,
    guided,
    multistep,
    paper_start,
    seeded_noise,
    to_uint8,
    to_unit,
)
from sempic.errors import InputError, ModelError
from sempic.networks.unet import SemanticUNet, make_condition
from sempic.palette import CITYSCAPES_FULL, PALETTES, Palette
from sempic.scene import Image, LabelMap, Scene, padded

PAPERS = SamplingConfig()
"""The paper's sampling."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """Inputs of one picture."""

    labels: LabelMap
    """uint8 (H, W), of any size: padded to the network's grid, and the picture cropped again."""
    coarse: Image
    """uint8 (h, w, 3), smaller by an integer factor (rounded up)."""
    edges: LabelMap | None = None
    """uint8 (H, W) in {0, 1}, for networks with instance edges; None: no edges."""
    seed: int = 0


def reconstruct(
    model: SemanticUNet,
    process: DiffusionConfig,
    conditions: Sequence[Condition],
    *,
    sampling: SamplingConfig = PAPERS,
) -> list[Image]:
    """Pictures, uint8 (H, W, 3), of the sizes of their labels; pictures of one size are a batch.

    The same seed gives the same picture, up to rounding in another batch. Sampling starts at the
    upsampled coarse picture, or at noise if `max_iter_time` is the process's number of steps, as in
    the original.

    Raises InputError if a coarse picture's size does not fit its labels.
    """
    by_size: dict[tuple[int, ...], list[int]] = {}
    for number, one in enumerate(conditions):
        by_size.setdefault((*one.labels.shape, *one.coarse.shape), []).append(number)
    pictures: dict[int, Image] = {}
    for numbers in by_size.values():
        batch = [conditions[number] for number in numbers]
        pictures |= zip(numbers, _batch(model, process, batch, sampling), strict=True)
    return [pictures[number] for number in range(len(conditions))]


def _batch(
    model: SemanticUNet,
    process: DiffusionConfig,
    conditions: Sequence[Condition],
    sampling: SamplingConfig,
) -> list[Image]:
    """`reconstruct` for inputs of one size."""
    height, width = conditions[0].labels.shape
    small_height, small_width = conditions[0].coarse.shape[:2]
    factor = coarse_codec.factor(width, height, small_width, small_height)
    if factor is None:
        raise InputError(
            f"a coarse picture of {small_width}×{small_height} does not fit one of {width}×{height}"
        )
    grid = math.lcm(model.config.size_multiple, factor)
    rows, columns = -(-height // grid) * grid, -(-width // grid) * grid
    config, device = model.config, next(model.parameters()).device

    def stacked(arrays: Sequence[npt.NDArray[np.uint8]], divisor: int = 1) -> torch.Tensor:
        whole = [padded(a, rows // divisor, columns // divisor) for a in arrays]
        return torch.from_numpy(np.stack(whole)).to(device)

    edges = None
    if config.instance_edges:
        edges = stacked(
            [np.zeros_like(g.labels) if g.edges is None else g.edges for g in conditions]
        )
    condition = make_condition(stacked([g.labels for g in conditions]), config.num_classes, edges)
    small = to_unit(stacked([g.coarse for g in conditions], factor))

    diffusion = make_diffusion(process, sampling.timestep_respacing, sampling.max_iter_time)
    denoise = guided(model, small, condition, sampling.s)
    noise = seeded_noise(*(torch.Generator().manual_seed(g.seed) for g in conditions))
    start, clip = paper_start(small, (rows, columns)), sampling.clip_denoised
    if sampling.max_iter_time == process.steps:
        start = noise(start)
    if sampling.solver == "ddpm":
        steps = ddpm(diffusion, denoise, start, noise=noise, clip=clip)
    elif sampling.solver == "ddim":
        steps = ddim(diffusion, denoise, start, eta=sampling.eta, noise=noise, clip=clip)
    else:
        steps = multistep(diffusion, denoise, start, solver=sampling.solver, clip=clip)
    *_, last = tqdm(steps, total=len(diffusion), unit="step", leave=False, disable=None)
    return list(to_uint8(last.sample[..., :height, :width]))


def ready(model: SemanticUNet) -> SemanticUNet:
    """The network on the GPU if there is one, else on the CPU, in float32 instead of float16."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if model.config.precision == "float16" and device == "cpu":
        model.config = replace(model.config, precision="float32")
    return model.to(device)


class PaperReceiver:
    """Decodes ordinary `.sempic` files: `Codec(receiver="PATH.safetensors")`."""

    controls = frozenset({"steps", "seed", "guidance"})
    model_id: int | None = None

    def __init__(self, path: Path, sampling: SamplingConfig = PAPERS) -> None:
        """Opens weights of ours or of the original (`checkpoints.open_model`, with its errors)."""
        model, self.process = open_model(path)
        self.model = ready(model)
        self.sampling = sampling
        self.steps = len(
            make_diffusion(self.process, sampling.timestep_respacing, sampling.max_iter_time)
        )
        """Number of steps of `sampling`: 20 by default, as in the paper."""

    def __call__(
        self,
        scene: Scene,
        *,
        steps: int | None = None,
        seed: int = 0,
        guidance: float | None = None,
        fidelity: float = 0.0,
    ) -> Image:
        """The picture of a scene.

        Args:
            steps: replaces the respacing: this many steps, spread over 0…max_iter_time.
            guidance: replaces the scale `s`.

        Raises:
            InputError: steps or seed are out of range, or the scene has no coarse picture.
            ModelError: the scene has another palette than the network, or fidelity is not 0.
        """
        if (steps is not None and steps < 1) or seed < 0:
            raise InputError(f"steps must be 1 or more and seed 0 or more, not {steps} and {seed}")
        if fidelity:
            raise ModelError("the paper's network was not trained for any fidelity but 0")
        if scene.coarse is None:
            raise InputError("this receiver starts at the coarse picture, which the file lacks")
        classes = self.model.config.num_classes
        palette = PALETTES[scene.palette]
        if scene.palette and not _knows(palette, classes):
            raise ModelError(
                f"the network knows {classes} classes, the file has those of {palette.name}"
            )
        labels = scene.labels
        if labels is None:
            labels = np.full((scene.height, scene.width), 255, np.uint8)
        sampling = self.sampling
        if steps is not None and steps != self.steps:
            span = min(sampling.max_iter_time, self.process.steps - 1) + 1
            respacing = str(min(self.process.steps, round(steps * self.process.steps / span)))
            sampling = replace(sampling, timestep_respacing=respacing)
        if guidance is not None:
            sampling = replace(sampling, s=guidance)
        condition = Condition(labels=labels, coarse=coarse_codec.to_rgb(scene.coarse), seed=seed)
        return reconstruct(self.model, self.process, [condition], sampling=sampling)[0]


def _knows(palette: Palette, classes: int) -> bool:
    """Whether a network with this number of classes fits a palette, whose last id may be missing:
    void, or the license plate of Cityscapes' 35 labelIds."""
    count = len(palette.classes)
    if palette is CITYSCAPES_FULL:
        return classes in (count, count - 1)
    return count - (palette.void == classes) == classes
