"""Random crops of the scenes of the paper's network, reproducible at any position."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from sempic.errors import InputError
from sempic.training.data.scenes import SceneFolder, TrainingScene


class CropStream:
    """An endless sequence of random crops; the crop at a position is the same in every run.

    Threads decode each scene once, before its first crop is due; decoded scenes stay in memory.
    """

    def __init__(
        self, scenes: SceneFolder, size: tuple[int, int], *, flip: bool, seed: int, threads: int
    ) -> None:
        """`size` is (height, width) of a crop; multiples of the coarse factor."""
        self.scenes, self.size, self.flip, self.seed = scenes, size, flip, seed
        self._threads = ThreadPoolExecutor(max(1, threads))
        self._decoded: dict[int, Future[TrainingScene]] = {}

    def prepare(self, positions: Sequence[int]) -> None:
        """Start to decode the scenes of these positions."""
        for index in {self._index(position) for position in positions} - self._decoded.keys():
            self._decoded[index] = self._threads.submit(self.scenes.__getitem__, index)

    def __getitem__(self, position: int) -> TrainingScene:
        self.prepare([position])
        scene = self._decoded[self._index(position)].result()
        rng = seeded(self.seed, "crop", position)
        return crop(scene, self.size, self.scenes.coarse_factor, rng, flip=self.flip)

    def _index(self, position: int) -> int:
        epoch, offset = divmod(position, len(self.scenes))
        return int(_order(self.seed, epoch, len(self.scenes))[offset])


_PURPOSES = {"order": 0, "crop": 1, "noise": 2, "time": 3, "dropout": 4, "drop": 5}


def seeded(seed: int, purpose: str, position: int) -> np.random.Generator:
    """A generator that depends on purpose and position alone, not on earlier draws."""
    return np.random.default_rng((seed, _PURPOSES[purpose], position))


@functools.lru_cache(4)
def _order(seed: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
    return seeded(seed, "order", epoch).permutation(count)


def crop(
    scene: TrainingScene,
    size: tuple[int, int],
    factor: int,
    rng: np.random.Generator,
    *,
    flip: bool,
) -> TrainingScene:
    """A random crop of (height, width), aligned to the coarse grid; half are mirrored if `flip`.

    Raises InputError if the scene is too small or its coarse picture has another size.
    """
    height, width = scene.labels.shape
    expected = (-(-height // factor), -(-width // factor))
    if scene.coarse.shape[:2] != expected:
        raise InputError(
            f"{scene.name}: its coarse picture is {scene.coarse.shape[1]}×{scene.coarse.shape[0]}, "
            f"expected {expected[1]}×{expected[0]}"
        )
    if height < size[0] or width < size[1]:
        raise InputError(
            f"{scene.name} is {width}×{height}, smaller than the crop of {size[1]}×{size[0]}: give "
            "a smaller --crop_size"
        )
    top = int(rng.integers((height - size[0]) // factor + 1)) * factor
    left = int(rng.integers((width - size[1]) // factor + 1)) * factor
    step = -1 if flip and rng.random() < 0.5 else 1

    def cut(array: npt.NDArray[np.uint8], scale: int = 1) -> npt.NDArray[np.uint8]:
        rows = slice(top // scale, (top + size[0]) // scale)
        columns = slice(left // scale, (left + size[1]) // scale)
        return np.ascontiguousarray(array[rows, columns][:, ::step])

    edges = None if scene.edges is None else cut(scene.edges)
    image, labels, coarse = cut(scene.image), cut(scene.labels), cut(scene.coarse, factor)
    return TrainingScene(name=scene.name, image=image, labels=labels, edges=edges, coarse=coarse)
