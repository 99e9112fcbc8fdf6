"""Scene → image: few-step residual diffusion with the bundled network under ONNX Runtime.

The network is `sempic.networks.compact.denoise` exported; the sampler around it is plain NumPy.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from sempic import models, progress, roles, texture
from sempic.errors import InputError, ModelError, install_hint
from sempic.models import RENOISE, runtime
from sempic.palette import (
    CAMVID,
    CITYSCAPES,
    OWN,
    PALETTES,
    from_description,
    shown_name,
    translate,
)
from sempic.scene import Image, LabelMap, Scene

_Floats = npt.NDArray[np.float32]

HEEDED = 0.7
"""How much of what a coarse picture finer than the network's says otherwise is put right
(docs/experiments/scale.md)."""
TOLD = 1
"""Levels by which a network is told of more texture than was said, since what it paints beyond that
is taken back later (docs/experiments/receiver.md)."""
ENLARGED = 1.4
"""How much stronger noise is in what is enlarged afterwards, which weakens the texture it becomes
(docs/experiments/receiver.md)."""
TILE = 1024
"""Pictures with a longer side are painted in tiles of at most this, in pixels."""
OVERLAP = 128
"""By which tiles overlap; they are cross-faded there."""
MAX_STEPS = 100
"""Networks that were taught to do it in one gain nothing from more than a few."""
_PATCH = 4
_MULTIPLE = 16


_PAPER = (".safetensors", ".pt", ".pth")


def load(spec: str | None = None) -> roles.Receiver:
    """A receiver: None is the bundled one, else the path of a file.

    `.onnx` is a receiver of `sempic train export`; `.safetensors` and `.pt` are checkpoints of the
    paper's network, ours and the original's, which need PyTorch (`sempic.diffusion.receiver`).

    Raises:
        ModelError: it cannot be loaded.
    """
    if spec is None or Path(spec).suffix.lower() not in _PAPER:
        return Receiver(spec)
    try:  # with torch
        from sempic.diffusion.receiver import PaperReceiver
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("sempic"):
            raise
        raise ModelError(f"{spec}: needs {error.name}; {install_hint('train')}") from error
    return PaperReceiver(Path(spec))


class Receiver:
    """The compact receiver. Deterministic for a given scene, seed and machine."""

    def __init__(self, path: str | Path | None = None) -> None:
        """Raises ModelError if `path` is no receiver of ours; None is the bundled one."""
        path = Path(path) if path is not None else models.find(models.RECEIVER)
        self._session, metadata = runtime.load(path)
        try:
            self.model_id: int | None = int(metadata["model_id"])
            self._sigma_max, self._sigma_min = metadata["sigma_max"], metadata["sigma_min"]
            self._rho = metadata["rho"]
            self._palette = from_description(metadata.get("palette", CAMVID.name))
            """Whose classes it was trained on; maps of our other palettes are translated."""
        except KeyError as error:
            raise ModelError(f"{path}: not a receiver, its metadata lacks {error}") from error
        except InputError as error:
            raise ModelError(f"{path}: {error}") from error
        if self._palette.id < OWN and self._palette.id not in (CAMVID.id, CITYSCAPES.id):
            raise ModelError(f"{path}: a receiver cannot know palette {self._palette.name}")
        # Files of version 0.1 know only the likely picture.
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
            steps: evaluations of the network, 1…MAX_STEPS; what it was trained for most is 1.
            seed: of the noise, 0 or more.
            guidance: scale of classifier-free guidance on the label map (Ho and Salimans 2021): 1
                is what the network says, 0 ignores the map, more than 1 stresses it at twice the
                time, and from 2 on makes noise (measured on the street of the page).
            fidelity: 0, a likely picture, sharp with invented detail … 1, near the mean of all
                likely ones, soft and closest in error.

        Raises:
            InputError: an argument out of range.
            ModelError: the scene has no coarse picture to begin with, or the network is of an old
                kind that has no such fidelity.
        """
        if not (1 <= steps <= MAX_STEPS and seed >= 0):
            raise InputError(f"steps is 1…{MAX_STEPS} and seed 0 or more, not {steps} and {seed}")
        if not (0 <= fidelity <= 1 and 0 <= guidance <= 10):
            raise InputError(
                f"fidelity is 0…1 and guidance 0…10, not {fidelity:g} and {guidance:g}"
            )
        if fidelity and "fidelity" not in self.controls:
            raise ModelError("this receiver was not trained for any fidelity but 0")
        if scene.coarse is None:
            raise ModelError("this receiver needs a coarse picture, and the stream has none")
        rows, columns = (-(-side // _MULTIPLE) * _MULTIPLE for side in (scene.height, scene.width))
        rgb, factor = _sent(scene)
        small = _grid(scene, rgb, factor, rows // _PATCH, columns // _PATCH)
        known = None if scene.labels is None else self._understood(scene.labels, scene)
        labels = _spread(known, rows, columns, self._palette.void)
        ids = _spread(scene.labels, rows, columns, 0)  # the stream's
        if "texture" in self._inputs:
            told = texture.stronger(scene.texture, TOLD)
            small = np.concatenate([small, texture.cells(told, ids, _PATCH)])
        strength = self._strength(scene)
        noise = np.random.default_rng(seed)
        residual: _Floats | None = None
        count = len(tiles(rows)) * len(tiles(columns))
        with progress.bar(steps * count * (1 if guidance == 1 else 2), "tile") as advance:
            for number, sigma in enumerate(self.levels(steps)):
                denoise = functools.partial(self._denoise, sigma, fidelity)
                # In place, since a large picture has room for few of these arrays.
                noisy = noise.standard_normal((3, rows, columns), np.float32)
                weights = np.float32(RENOISE if number else 1) * sigma * strength
                for top in range(0, rows, _MULTIPLE):
                    strip = slice(top, top + _MULTIPLE)
                    noisy[:, strip] *= weights[ids[strip]]
                if residual is not None:
                    noisy += residual
                residual = tiled(denoise, noisy, small, labels, advance)
                if guidance != 1:
                    void = np.full_like(labels, self._palette.void)
                    free = tiled(denoise, noisy, small, void, advance)
                    residual -= free
                    residual *= np.float32(guidance)
                    residual += free
                    del free
                del noisy
        assert residual is not None
        levels = residual
        for plane, base in zip(levels, small[:3], strict=True):
            plane += _upsample(base)
        levels += 1
        levels *= np.float32(127.5)
        if factor is not None and factor < _PATCH and _PATCH % factor == 0:
            _heed(levels, rgb, factor)
        np.rint(levels, out=levels)
        np.clip(levels, 0, 255, out=levels)
        picture = np.empty((scene.height, scene.width, 3), np.uint8)
        for channel, plane in enumerate(levels):
            picture[..., channel] = plane[: scene.height, : scene.width]
        return picture

    def _strength(self, scene: Scene) -> _Floats:
        """How strong the noise of each id of a stream is, float32 (256,)."""
        if "texture" not in self._inputs:
            return np.ones(256, np.float32)
        if scene.enlarged:
            return np.full(256, ENLARGED, np.float32)
        palette = None if scene.labels is None else PALETTES[scene.palette]
        return texture.noise(texture.condition(scene.texture), texture.usual(palette))

    def _understood(self, labels: LabelMap, scene: Scene) -> LabelMap:
        """The labels as ids of the receiver's palette. Raises ModelError: palettes of somebody's
        own are taken by their own receivers alone, and these take no others."""
        mine = self._palette.identity
        if scene.own is None and mine is None:
            return translate(labels, scene.palette, self._palette.id)
        if (scene.own or PALETTES[scene.palette].identity) != mine:
            name = shown_name(scene.palette, scene.own)
            raise ModelError(
                f"the labels are of palette {name}, this receiver knows {self._palette.name}"
                + (", but other classes" if name == self._palette.name else "")
            )
        return labels

    def levels(self, steps: int) -> _Floats:
        """Falling noise levels (Karras et al. 2022, eq. 5), as `sempic.diffusion.edm.sigmas`."""
        top, bottom = self._sigma_max ** (1 / self._rho), self._sigma_min ** (1 / self._rho)
        ramp = np.arange(steps) / steps
        levels: _Floats = ((top + ramp * (bottom - top)) ** self._rho).astype(np.float32)
        return levels

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
        residual: _Floats = runtime.run(self._session, "residual", feed)[0]
        return residual


def _sent(scene: Scene) -> tuple[Image, int | None]:
    """The coarse picture, uint8 (h, w, 3), and by how much it is smaller; None: no such number."""
    from sempic import coarse  # PyAV behind it is nothing that training needs

    assert scene.coarse is not None
    rgb = coarse.to_rgb(scene.coarse)
    return rgb, coarse.factor(scene.width, scene.height, rgb.shape[1], rgb.shape[0])


def _grid(scene: Scene, rgb: Image, factor: int | None, rows: int, columns: int) -> _Floats:
    """The coarse picture in [-1, 1], (3, rows, columns), one sample per patch of the network."""
    if factor != _PATCH:
        size = -(-scene.width // _PATCH), -(-scene.height // _PATCH)
        box = None
        if factor is not None:
            width, height = (n * _PATCH / factor for n in size)
            box = (0.0, 0.0, min(width, rgb.shape[1]), min(height, rgb.shape[0]))
        # Of a finer one each sample is the mean of its patch, as the network was taught.
        finer = factor is not None and factor < _PATCH
        how = PIL.Image.Resampling.BOX if finer else PIL.Image.Resampling.BICUBIC
        rgb = np.asarray(PIL.Image.fromarray(rgb).resize(size, how, box))
    padded = _padded(rgb, rows, columns).astype(np.float32)
    return np.ascontiguousarray(padded.transpose(2, 0, 1)) / np.float32(127.5) - 1


def _spread(ids: LabelMap | None, rows: int, columns: int, otherwise: int | None) -> LabelMap:
    """A map on the whole grid, its edge repeated; without one, the same id everywhere."""
    if ids is None:
        return np.full((rows, columns), otherwise, np.uint8)
    return np.pad(ids, ((0, rows - ids.shape[0]), (0, columns - ids.shape[1])), mode="edge")


def _padded(rgb: Image, rows: int, columns: int) -> Image:
    pad = (0, rows - rgb.shape[0]), (0, columns - rgb.shape[1]), (0, 0)
    return np.pad(rgb, pad, mode="edge")


def _heed(levels: _Floats, rgb: Image, factor: int) -> None:
    """Brings what was painted, (3, rows, columns) in 0…255, nearer to a coarse picture that is
    finer than the network's (iterative back-projection; Irani and Peleg 1991, one step)."""
    _, rows, columns = levels.shape
    height, width = rows // factor, columns // factor
    sent = _padded(rgb[:height, :width], height, width)
    for channel, plane in enumerate(levels):
        means = plane.reshape(height, factor, width, factor).mean((1, 3))
        missing = PIL.Image.fromarray((sent[..., channel] - means) * np.float32(HEEDED))
        plane += np.asarray(missing.resize((columns, rows), PIL.Image.Resampling.BICUBIC))


def _upsample(small: _Floats) -> _Floats:
    """One channel bilinear, four times as large, as the network was trained (align_corners off)."""
    size = small.shape[1] * _PATCH, small.shape[0] * _PATCH
    return np.asarray(PIL.Image.fromarray(small).resize(size, PIL.Image.Resampling.BILINEAR))


def tiled(
    denoise: Callable[[_Floats, _Floats, LabelMap], _Floats],
    noisy: _Floats,
    small: _Floats,
    labels: LabelMap,
    advance: Callable[[], object],
) -> _Floats:
    """The residual, tile by tile and cross-faded; `advance` is called after each tile.

    Args:
        denoise: (noisy, small, labels) of a tile → its residual.
        noisy: (3, H, W). small: (C, H / 4, W / 4), what is known of each patch.
        labels: uint8 (H, W).
    """
    _, rows, columns = noisy.shape
    if max(rows, columns) <= TILE:
        whole = denoise(noisy, small, labels)
        advance()
        return whole
    total = np.zeros_like(noisy)
    weights = np.zeros((rows, columns), np.float32)
    for top, bottom in tiles(rows):
        for left, right in tiles(columns):
            part = denoise(
                noisy[:, top:bottom, left:right],
                small[:, top // _PATCH : bottom // _PATCH, left // _PATCH : right // _PATCH],
                labels[top:bottom, left:right],
            )
            fade = np.outer(_fade(top, bottom, rows), _fade(left, right, columns))
            total[:, top:bottom, left:right] += part * fade
            weights[top:bottom, left:right] += fade
            advance()
    total /= weights
    return total


def tiles(size: int) -> list[tuple[int, int]]:
    """Evenly spread stretches of at most TILE that overlap by at least OVERLAP and cover `size`."""
    count = max(1, -(-(size - OVERLAP) // (TILE - OVERLAP)))
    length = min(size, TILE)
    starts = [
        (size - length) * index // max(1, count - 1) // _MULTIPLE * _MULTIPLE
        for index in range(count)
    ]
    return [(start, start + length) for start in starts]


def _fade(start: int, end: int, size: int) -> _Floats:
    """Weights of a tile: at each end that meets another one, nothing and then a ramp.

    The outermost quarter of the overlap counts for nothing, since the network sees its padding.
    """
    ramp = (np.arange(end - start, dtype=np.float32) + 0.5 - OVERLAP / 4) / (OVERLAP / 2)
    ramp = np.clip(ramp, 0, 1)
    weight = np.ones(end - start, np.float32)
    if start > 0:
        weight = np.minimum(weight, ramp)
    if end < size:
        weight = np.minimum(weight, ramp[::-1])
    return weight
