"""Scene → image: few-step residual diffusion with the bundled network under ONNX Runtime.

The network is `sempic.networks.compact.denoise` exported; the sampler around it is plain NumPy.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from sempic import coarse, models, progress, roles, texture
from sempic.errors import InputError, ModelError, install_hint, refused, warn
from sempic.models import RENOISE, runtime
from sempic.palette import CAMVID, CITYSCAPES, PALETTES, from_description, shown_name, translate
from sempic.receive.tiling import MULTIPLE, PATCH, tiled, tiles
from sempic.scene import Image, LabelMap, Scene, padded

_Floats = npt.NDArray[np.float32]

CORRECTED = 0.7
"""Share of the difference to a finer coarse picture that is corrected
(docs/experiments/scale.md)."""
TEXTURE_OFFSET = 1
"""Texture levels that are added to the stream's for the network, above those of the noise;
`texture.weaken` removes any excess later (docs/experiments/receiver.md)."""
ENLARGED_NOISE = 1.4
"""Factor of the noise in pictures that are enlarged afterwards, because enlargement weakens texture
(docs/experiments/receiver.md)."""
_KEPT = 1 << 18
"""Most pixels of noise that is kept for the next picture: 3 MB, which take 8 ms to draw."""
MAX_STEPS = 100
"""Networks that are trained for one step gain nothing from more than a few."""
PAPER = (".safetensors", ".pt", ".pth")
"""Suffixes of checkpoints of the paper's network."""


def load(spec: str | None = None) -> roles.Receiver:
    """A receiver: None is the bundled one, else the path of a file.

    `.onnx`: a receiver by `sempic train export`. `.safetensors`, `.pt`, `.pth`: a checkpoint of the
    paper's network, ours or the original; these need PyTorch (`sempic.diffusion.receiver`).

    Raises:
        ModelError: it cannot be loaded.
    """
    if spec is None or Path(spec).suffix.lower() not in PAPER:
        return Receiver(spec)
    try:  # imports torch
        from sempic.diffusion.receiver import PaperReceiver
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("sempic"):
            raise
        raise ModelError(f"{spec}: needs {error.name}; {install_hint('train')}") from error
    return PaperReceiver(Path(spec))


class Receiver:
    """The compact receiver. Deterministic for a given scene, seed and machine."""

    def __init__(self, path: str | Path | None = None) -> None:
        """path: None is the bundled receiver. Raises ModelError if the file is no such receiver."""
        path = Path(path) if path is not None else models.find(models.RECEIVER)
        self._path = path
        self._session, metadata = runtime.load(path)
        try:
            self.model_id: int | None = int(metadata["model_id"])
            self._sigma_max, self._sigma_min = metadata["sigma_max"], metadata["sigma_min"]
            self._rho = metadata["rho"]
            self._palette = from_description(metadata.get("palette", CAMVID.name))
            """Palette of the training; maps of other built-in palettes are translated to it."""
        except KeyError as error:
            raise ModelError(f"{path}: not a receiver, its metadata lacks {error}") from error
        except InputError as error:
            raise ModelError(f"{path}: {error}") from error
        if self._palette.identity is None and self._palette not in (CAMVID, CITYSCAPES):
            raise ModelError(f"{path}: a receiver cannot know palette {self._palette.name}")
        # Files of version 0.1 lack the input for fidelity.
        self._inputs = {i.name for i in self._session.inner().get_inputs()}
        self.controls = frozenset(roles.CONTROLS) - ({"fidelity"} - self._inputs)

    def __call__(
        self,
        scene: Scene,
        *,
        steps: int = 1,
        seed: int = 0,
        guidance: float = 1.0,
        fidelity: float = 0.0,
    ) -> Image:
        """The picture of a scene, uint8 (height, width, 3).

        Args:
            steps: evaluations of the network, 1…MAX_STEPS; training favours 1.
            seed: of the noise, 0 or more.
            guidance: scale of classifier-free guidance on the label map (Ho and Salimans 2021),
                0…10. 1: no guidance. 0: ignores the map. Others take twice the time; more than 1
                stresses the map, and 2 or more adds noise (measured on the street of the page).
            fidelity: 0 (a likely picture: sharp, with invented detail) … 1 (near the mean of all
                likely pictures: soft, with the least error).

        Raises:
            InputError: an argument out of range.
            ModelError: the scene has no coarse picture, its palette is not the receiver's, the
                network has no input for fidelity, or it fails.
        """
        _check_controls(steps, seed, guidance, fidelity)
        if fidelity and "fidelity" not in self.controls:
            raise ModelError("this receiver was not trained for any fidelity but 0")
        if scene.coarse is None:
            raise ModelError("this receiver needs a coarse picture, and the stream has none")
        if scene.labels is None and guidance != 1:
            warn("guidance has no effect: the stream has no label map")
            guidance = 1.0
        rows, columns = (-(-side // MULTIPLE) * MULTIPLE for side in (scene.height, scene.width))
        rgb = coarse.to_rgb(scene.coarse)
        factor = coarse.factor(scene.width, scene.height, rgb.shape[1], rgb.shape[0])
        small = _grid(scene, rgb, factor, rows // PATCH, columns // PATCH)
        labels = np.full((rows, columns), self._palette.void, np.uint8)
        ids = np.zeros_like(labels)  # of the stream's palette
        if scene.labels is not None:
            labels = padded(self._translated(scene.labels, scene), rows, columns)
            ids = padded(scene.labels, rows, columns)
        if "texture" in self._inputs:
            condition = texture.strengthen(scene.texture, TEXTURE_OFFSET)
            small = np.concatenate([small, texture.condition_map(condition, ids, PATCH)])
        strength = self._strength(scene)
        noises = _noises(seed, rows, columns, steps)
        residual: _Floats | None = None
        count = len(tiles(rows, columns))
        with progress.bar(steps * count * (1 if guidance == 1 else 2), "tile") as advance:
            for number, sigma in enumerate(self.sigmas(steps)):
                denoise = functools.partial(self._denoise, sigma, fidelity)
                weights = np.float32(RENOISE if number else 1) * sigma * strength
                noisy = _weighted(next(noises), weights, ids)
                if residual is not None:
                    noisy += residual
                residual = tiled(denoise, noisy, small, labels, advance)
                if guidance != 1:
                    void = np.full_like(labels, self._palette.void)
                    unguided = tiled(denoise, noisy, small, void, advance)
                    residual -= unguided
                    residual *= np.float32(guidance)
                    residual += unguided
                    del unguided
                del noisy
        assert residual is not None
        for plane, base in zip(residual, small[:3], strict=True):
            plane += _upsample(base)
        residual += 1
        residual *= np.float32(127.5)
        if factor is not None and factor < PATCH and PATCH % factor == 0:
            _back_project(residual, rgb, factor)
        np.rint(residual, out=residual)
        np.clip(residual, 0, 255, out=residual)
        shown = residual[:, : scene.height, : scene.width]
        return shown.transpose(1, 2, 0).astype(np.uint8, order="C")

    def _strength(self, scene: Scene) -> _Floats:
        """Strength of the noise for each id of the stream's map, float32 (256,)."""
        if "texture" not in self._inputs:
            return np.ones(256, np.float32)
        if scene.enlarged:
            return np.full(256, ENLARGED_NOISE, np.float32)
        palette = None if scene.labels is None else PALETTES[scene.palette]
        return texture.noise_strength(
            texture.condition(scene.texture), texture.default_noise(palette)
        )

    def _translated(self, labels: LabelMap, scene: Scene) -> LabelMap:
        """The labels as ids of the receiver's palette.

        Raises ModelError if the scene or the receiver has a user's own palette, and the other has
        not the same one.
        """
        expected = self._palette.identity
        if scene.own is None and expected is None:
            return translate(labels, scene.palette, self._palette.id)
        if (scene.own or PALETTES[scene.palette].identity) != expected:
            name = shown_name(scene.palette, scene.own)
            raise ModelError(
                f"the labels are of palette {name}, this receiver knows {self._palette.name}"
                + (", but other classes" if name == self._palette.name else "")
            )
        return labels

    def sigmas(self, steps: int) -> _Floats:
        """Falling noise levels (Karras et al. 2022, eq. 5) as in `sempic.diffusion.edm.sigmas`."""
        top, bottom = self._sigma_max ** (1 / self._rho), self._sigma_min ** (1 / self._rho)
        ramp = np.arange(steps) / steps
        sigmas: _Floats = ((top + ramp * (bottom - top)) ** self._rho).astype(np.float32)
        return sigmas

    def _denoise(
        self, sigma: float, fidelity: float, noisy: _Floats, small: _Floats, labels: LabelMap
    ) -> _Floats:
        feed: dict[str, Any] = {
            "noisy": noisy[None],
            "coarse": small[None, :3],
            "labels": np.ascontiguousarray(labels)[None],
            "sigma": np.array([sigma], np.float32),
        }
        if "texture" in self._inputs:
            feed["texture"] = small[None, 3:]
        if "fidelity" in self.controls:
            feed["fidelity"] = np.array([fidelity], np.float32)
        with refused(ModelError, f"{self._path}: the receiver failed", Exception, unfit=True):
            residual: _Floats = runtime.run(self._session, "residual", feed)[0]
        return residual


def _check_controls(steps: int, seed: int, guidance: float, fidelity: float) -> None:
    """Raises InputError."""
    if not (1 <= steps <= MAX_STEPS and seed >= 0):
        raise InputError(f"steps is 1…{MAX_STEPS} and seed 0 or more, not {steps} and {seed}")
    if not (0 <= fidelity <= 1 and 0 <= guidance <= 10):
        raise InputError(f"fidelity is 0…1 and guidance 0…10, not {fidelity:g} and {guidance:g}")


def _grid(scene: Scene, rgb: Image, factor: int | None, rows: int, columns: int) -> _Floats:
    """The coarse picture, one sample in [-1, 1] per patch: (3, rows, columns)."""
    if factor != PATCH:
        size = -(-scene.width // PATCH), -(-scene.height // PATCH)
        box = None
        if factor is not None:
            width, height = (n * PATCH / factor for n in size)
            box = (0.0, 0.0, min(width, rgb.shape[1]), min(height, rgb.shape[0]))
        # Each sample of a finer picture is the mean of its patch, as in training.
        finer = factor is not None and factor < PATCH
        how = PIL.Image.Resampling.BOX if finer else PIL.Image.Resampling.BICUBIC
        rgb = np.asarray(PIL.Image.fromarray(rgb).resize(size, how, box))
    samples = padded(rgb, rows, columns).astype(np.float32)
    return np.ascontiguousarray(samples.transpose(2, 0, 1)) / np.float32(127.5) - 1


def _noises(seed: int, rows: int, columns: int, steps: int) -> Iterator[_Floats]:
    """Standard Gaussian noise for each step, float32 (3, rows, columns)."""
    if steps == 1 and rows * columns <= _KEPT:
        yield _usual_noise(seed, rows, columns).copy()
        return
    noise = np.random.default_rng(seed)
    for _ in range(steps):
        yield noise.standard_normal((3, rows, columns), np.float32)


@functools.lru_cache(maxsize=1)
def _usual_noise(seed: int, rows: int, columns: int) -> _Floats:
    """The first noise of a seed; pictures of one size and seed share it."""
    return np.random.default_rng(seed).standard_normal((3, rows, columns), np.float32)


def _weighted(noise: _Floats, weights: _Floats, ids: LabelMap) -> _Floats:
    """Gaussian noise, multiplied in place: the standard deviation of id v becomes weights[v]."""
    for top in range(0, len(ids), MULTIPLE):  # large pictures leave little memory
        strip = slice(top, top + MULTIPLE)
        noise[:, strip] *= weights[ids[strip]]
    return noise


def _back_project(painted: _Floats, rgb: Image, factor: int) -> None:
    """Moves a painted picture, (3, rows, columns) in 0…255, in place, towards a coarse picture that
    is finer than the network's input.

    One step of iterative back-projection (Irani and Peleg 1991).
    """
    _, rows, columns = painted.shape
    height, width = rows // factor, columns // factor
    target = padded(rgb[:height, :width], height, width)
    for channel, plane in enumerate(painted):
        means = plane.reshape(height, factor, width, factor).mean((1, 3))
        missing = PIL.Image.fromarray((target[..., channel] - means) * np.float32(CORRECTED))
        plane += np.asarray(missing.resize((columns, rows), PIL.Image.Resampling.BICUBIC))


def _upsample(small: _Floats) -> _Floats:
    """A channel enlarged PATCH times, bilinear with align_corners off, as in training."""
    size = small.shape[1] * PATCH, small.shape[0] * PATCH
    return np.asarray(PIL.Image.fromarray(small).resize(size, PIL.Image.Resampling.BILINEAR))
