"""The transmitted scene: label map, coarse picture, windows and texture, as arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Image: TypeAlias = npt.NDArray[np.uint8]
"""uint8 (H, W, 3), sRGB."""
LabelMap: TypeAlias = npt.NDArray[np.uint8]
"""uint8 (H, W), ids of a palette."""
Probabilities: TypeAlias = npt.NDArray[np.uint8]
"""uint8 (C, H, W), the probability of each id at each pixel, in 1/255."""
Plane: TypeAlias = npt.NDArray[np.uint8]
"""uint8 (h, w), one component of a picture."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Coarse:
    """A decoded coarse picture: YCbCr planes, exact on every machine.

    BT.601, full range, as in JPEG and BPG. Chroma planes have the size of luma (4:4:4) or half the
    size, rounded up (4:2:0).
    """

    y: Plane
    cb: Plane
    cr: Plane

    @property
    def planes(self) -> tuple[Plane, Plane, Plane]:
        """Y, Cb and Cr."""
        return self.y, self.cb, self.cr

    @property
    def chroma(self) -> str:
        """ "444" or "420"."""
        return "444" if self.cb.shape == self.y.shape else "420"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Window:
    """A part of the picture that is sent at full resolution; exact on every machine."""

    x: int
    """Left column in the picture."""
    y: int
    """Top row in the picture."""
    picture: Image
    """uint8 (h, w, 3), sRGB."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scene:
    """One transmitted scene."""

    width: int
    """Of the decoded picture, in pixels."""
    height: int
    palette: int
    """Id of the palette that the labels index (`sempic.palette`)."""
    own: str | None = None
    """Identity of a custom palette of the sender. Then `palette` is its id in this process, or the
    id of plain indices if this process does not know the palette."""
    model: int
    """Id of the intended receiver, 0: any."""
    labels: LabelMap | None
    """uint8 (height, width), or None if the stream has no label map."""
    coarse: Coarse | None
    """The coarse planes, or None if the stream has no coarse picture."""
    doubled: bool = False
    """Whether the stream has one id for each 2×2 pixels, in which labels are therefore equal."""
    halved: bool = False
    """Whether the picture loses no detail at half its size: labels are doubled, and the receiver
    paints at half the size."""
    enlarged: bool = False
    """Whether the painted picture will be shown at twice its size, as that of `half`."""
    windows: tuple[Window, ...] = ()
    """Parts of the picture at full resolution, without overlap."""
    texture: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """Strength of texture by id (`sempic.texture`); other ids are unlimited."""

    def half(self) -> Scene:
        """The scene at half its size, rounded up, without windows; coarse picture and texture stay
        unchanged."""
        return dataclasses.replace(
            self,
            width=-(-self.width // 2),
            height=-(-self.height // 2),
            labels=None if self.labels is None else half_map(self.labels),
            doubled=False,
            halved=False,
            enlarged=True,
            windows=(),
        )


def padded(array: npt.NDArray[np.uint8], rows: int, columns: int) -> npt.NDArray[np.uint8]:
    """A map or picture extended to (rows, columns) by repeating its last row and column."""
    pad = [(0, rows - array.shape[0]), (0, columns - array.shape[1])] + [(0, 0)] * (array.ndim - 2)
    return np.pad(array, pad, mode="edge")


def half_map(labels: LabelMap) -> LabelMap:
    """A map at half its size, rounded up: the top left id of each 2×2 pixels."""
    return labels[::2, ::2]
