"""What a codec needs of its two networks, and what functions of one's own are as such."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from sempic.palette import CAMVID
from sempic.scene import Image, LabelMap, Probabilities, Scene

CONTROLS = ("steps", "seed", "guidance", "fidelity")
"""What a receiver may heed; the fields of `sempic.options.DecodeOptions`."""


@runtime_checkable
class Segmenter(Protocol):
    """Image → label map."""

    palette: int
    """Id of the palette that the maps index."""
    voids: bool
    """Whether what it does not know is to be sent as void: its receivers know void."""

    def __call__(self, image: Image) -> LabelMap:
        """uint8 (H, W, 3) → uint8 (H, W), ids of the palette."""

    def predict(self, image: Image) -> tuple[LabelMap, Probabilities | None]:
        """The same map, and how likely each id is; None where that is not known."""


@runtime_checkable
class Receiver(Protocol):
    """Scene → image."""

    controls: frozenset[str]
    """Those of CONTROLS that it heeds."""
    model_id: int | None
    """The number by which streams name it, 1…14; None: they do not."""

    def __call__(self, scene: Scene, *_: Any, **controls: Any) -> Image:
        """uint8 (scene.height, scene.width, 3). What is not given is as the receiver likes it."""


@dataclass
class FunctionSegmenter:
    """A function of one's own as a segmenter of one palette that is sure of all it says."""

    function: Callable[[Image], LabelMap]
    palette: int = CAMVID.id
    voids: bool = False

    def __call__(self, image: Image) -> LabelMap:
        return self.function(image)

    def predict(self, image: Image) -> tuple[LabelMap, Probabilities | None]:
        return self.function(image), None


class FunctionReceiver:
    """A function of one's own as a receiver; it heeds the controls that it has arguments for."""

    model_id: int | None = None

    def __init__(self, function: Callable[..., Image]) -> None:
        self.function = function
        arguments = inspect.signature(function).parameters
        any_name = any(a.kind is a.VAR_KEYWORD for a in arguments.values())
        self.controls = frozenset(CONTROLS if any_name else set(CONTROLS) & set(arguments))

    def __call__(self, scene: Scene, **controls: Any) -> Image:
        return self.function(scene, **controls)


def as_segmenter(given: Segmenter | Callable[[Image], LabelMap]) -> Segmenter:
    """What is given, if it is one, else the function as one of CamVid's classes."""
    return given if isinstance(given, Segmenter) else FunctionSegmenter(given)


def as_receiver(given: Receiver | Callable[..., Image]) -> Receiver:
    """What is given, if it is one, else the function as one."""
    return given if isinstance(given, Receiver) else FunctionReceiver(given)
