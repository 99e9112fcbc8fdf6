"""What is transmitted: a label map and a coarse picture. Knows no model and no bytes."""

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
"""uint8 (C, H, W), how likely each id is at each pixel, in 1/255."""
Plane: TypeAlias = npt.NDArray[np.uint8]
"""uint8 (h, w), one component of a picture."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Coarse:
    """A coarse picture as the decoder holds it: YCbCr planes, exact on every machine.

    BT.601, full range (as JPEG and BPG have it). Chroma planes are either as large as luma
    (4:4:4) or half as large, rounded up (4:2:0).
    """

    y: Plane
    cb: Plane
    cr: Plane

    @property
    def chroma(self) -> str:
        """ "444" or "420"."""
        return "444" if self.cb.shape == self.y.shape else "420"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Window:
    """A part of the picture that was sent as it is: exact on every machine, nearly the original."""

    x: int
    """Its left column in the picture."""
    y: int
    """Its top row."""
    picture: Image
    """uint8 (h, w, 3), sRGB."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scene:
    """One transmitted scene (DESIGN §1)."""

    width: int
    """Of the picture to be rebuilt, in pixels."""
    height: int
    palette: int
    """Id of the palette that the labels index (`sempic.palette`)."""
    own: str | None = None
    """Identity of the palette, if it is one of the sender's own; `palette` is its id where this
    process knows it, else that of plain indices."""
    model: int
    """Id of the receiver that the sender had in mind; 0 is whichever is bundled."""
    labels: LabelMap | None
    """uint8 (height, width), or None if the file carries none."""
    coarse: Coarse | None
    """The coarse planes, or None if the file carries none."""
    halved: bool = False
    """Whether the picture has no detail that half its size would lose: then labels are the same in
    each 2×2 pixels, and it is painted at half the size."""
    enlarged: bool = False
    """Whether what is painted of it is to be shown at twice its size, as `half` of a scene is."""
    windows: tuple[Window, ...] = ()
    """Parts of the picture that are shown as they are; no two overlap."""
    texture: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """How strong texture may be, by id (`sempic.texture`); nothing is said of other ids."""

    def half(self) -> Scene:
        """The same at half its size, rounded up, without windows; the coarse picture and what is
        said of texture stay as they are."""
        return dataclasses.replace(
            self,
            width=-(-self.width // 2),
            height=-(-self.height // 2),
            labels=None if self.labels is None else self.labels[::2, ::2],
            halved=False,
            enlarged=True,
            windows=(),
        )
