"""The paper's network as a receiver: labels and coarse picture → picture."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from sempic import coarse as coarse_codec
from sempic.diffusion.checkpoints import open_model
from sempic.diffusion.gaussian import DiffusionConfig, make_diffusion
from sempic.diffusion.sampling import ddim, ddpm, guided, multistep, paper_start, seeded_noise
from sempic.diffusion.unet import SemanticUNet, make_condition
from sempic.errors import InputError, ModelError
from sempic.palette import PALETTES
from sempic.scene import Image, LabelMap, Scene

Solver = Literal["ddpm", "ddim", "dpmsolver++", "unipc"]
SOLVERS: tuple[Solver, ...] = ("ddpm", "ddim", "dpmsolver++", "unipc")


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """How a picture is sampled; the defaults are the paper's 20 steps from the coarse picture."""

    timestep_respacing: str = "100"
    max_iter_time: int = 200
    """Timesteps beyond this are left out; sampling starts at the upsampled coarse picture."""
    s: float = 1.0
    """Guidance scale; 1 is none, the paper's is 1.5."""
    solver: Solver = "ddpm"
    eta: float = 0.0
    """Of DDIM."""
    clip_denoised: bool = True
    """Keep what the network sees as the clean picture in [-1, 1]."""

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise ModelError(f"solver {self.solver!r} is none of {', '.join(SOLVERS)}")
        if not 0 <= self.eta <= 1:
            raise ModelError(f"eta must lie in [0, 1], not {self.eta}")


def reconstruct(
    model: SemanticUNet,
    process: DiffusionConfig,
    labels: LabelMap,
    coarse: Image,
    *,
    edges: LabelMap | None = None,
    sampling: SamplingConfig = SamplingConfig(),
    seed: int = 0,
) -> Image:
    """One picture, uint8 (H, W, 3), of the size of `labels`; the same for the same seed.

    Args:
        labels: uint8 (H, W), any size: it is padded to the network's grid and cropped again.
        coarse: uint8 (h, w, 3), smaller by a whole factor (rounded up).
        edges: uint8 (H, W) in {0, 1}, for networks with an instance channel; none are drawn else.

    Raises InputError if the coarse picture is of no such size.
    """
    height, width = labels.shape
    factor = coarse_codec.factor(width, height, coarse.shape[1], coarse.shape[0])
    if factor is None:
        raise InputError(
            f"a coarse picture of {coarse.shape[1]}×{coarse.shape[0]} does not fit one of "
            f"{width}×{height}"
        )
    grid = math.lcm(model.config.size_multiple, factor)
    rows, columns = -(-height // grid) * grid, -(-width // grid) * grid
    config, device = model.config, next(model.parameters()).device
    if config.instance_edges and edges is None:
        edges = np.zeros_like(labels)
    condition = make_condition(
        torch.from_numpy(_padded(labels, rows, columns))[None].to(device),
        config.num_classes,
        torch.from_numpy(_padded(edges, rows, columns))[None].to(device)
        if edges is not None and config.instance_edges
        else None,
    )
    padded = torch.from_numpy(_padded(coarse, rows // factor, columns // factor)).to(device)
    small = padded.permute(2, 0, 1)[None].float() / 127.5 - 1

    diffusion = make_diffusion(process, sampling.timestep_respacing, sampling.max_iter_time)
    denoise = guided(model, small, condition, sampling.s)
    noise = seeded_noise(torch.Generator().manual_seed(seed))
    start, clip = paper_start(small, (rows, columns)), sampling.clip_denoised
    if sampling.solver == "ddpm":
        steps = ddpm(diffusion, denoise, start, noise=noise, clip=clip)
    elif sampling.solver == "ddim":
        steps = ddim(diffusion, denoise, start, eta=sampling.eta, noise=noise, clip=clip)
    else:
        steps = multistep(diffusion, denoise, start, solver=sampling.solver, clip=clip)
    *_, last = tqdm(steps, total=len(diffusion), unit="step", leave=False, disable=None)
    picture = ((last.sample[0] + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(picture.permute(1, 2, 0).cpu().numpy()[:height, :width])


def ready(model: SemanticUNet, device: str | None = None) -> SemanticUNet:
    """The network on `device` (None: the GPU if there is one), in a precision that it has."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if model.config.precision == "float16" and device == "cpu":
        model.config = replace(model.config, precision="float32")
    return model.to(device)


class PaperReceiver:
    """Decodes ordinary `.sempic` files: `Codec(receiver="PATH.safetensors")`."""

    def __init__(
        self,
        path: Path,
        sampling: SamplingConfig = SamplingConfig(),
        device: str | None = None,
    ) -> None:
        """Weights of ours or of the original (`checkpoints.open_model`, which names its errors)."""
        model, self.process = open_model(path)
        self.model = ready(model, device)
        self.sampling = sampling
        self.steps = len(
            make_diffusion(self.process, sampling.timestep_respacing, sampling.max_iter_time)
        )
        """Of `sampling`: 20 by default, as in the paper."""

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

        `steps`, if given, replaces the respacing: so many, spread over 0…max_iter_time; `guidance`
        the scale s. Raises InputError if steps or seed are out of range or there is no coarse
        picture, ModelError if the scene's palette is not the network's or any fidelity but 0 is
        wanted.
        """
        if (steps is not None and steps < 1) or seed < 0:
            raise InputError(f"steps must be 1 or more and seed 0 or more, not {steps} and {seed}")
        if fidelity:
            raise ModelError("the paper's network was not trained for any fidelity but 0")
        if scene.coarse is None:
            raise InputError("this receiver starts at the coarse picture, which the file lacks")
        classes = self.model.config.num_classes
        palette = PALETTES[scene.palette]
        if scene.palette and len(palette.classes) - (palette.void == classes) != classes:
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
        return reconstruct(
            self.model,
            self.process,
            labels,
            coarse_codec.to_rgb(scene.coarse),
            sampling=sampling,
            seed=seed,
        )


def _padded(array: npt.NDArray[np.uint8], rows: int, columns: int) -> npt.NDArray[np.uint8]:
    """The last row and column repeated to (rows, columns)."""
    pad = [(0, rows - array.shape[0]), (0, columns - array.shape[1])] + [(0, 0)] * (array.ndim - 2)
    return np.pad(array, pad, mode="edge")
