"""The interfaces of segmenter and receiver, and adapters for plain functions."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

from sempic.palette import CAMVID
from sempic.scene import Image, LabelMap, Probabilities, Scene

CONTROLS = ("steps", "seed", "guidance", "fidelity")
"""The controls of receivers: the fields of `sempic.options.DecodeOptions`."""


@runtime_checkable
class Segmenter(Protocol):
    """Image → label map."""

    palette: int
    """Id of the palette that the maps index."""
    voids: bool
    """Whether uncertain pixels are sent as void; the receiver must know void."""

    def __call__(self, image: Image) -> LabelMap:
        """uint8 (H, W, 3) → uint8 (H, W), ids of the palette."""

    def predict(self, image: Image) -> tuple[LabelMap, Probabilities | None]:
        """The same map, and the probability of each id; None: unknown."""


@runtime_checkable
class Receiver(Protocol):
    """Scene → image."""

    controls: frozenset[str]
    """The supported CONTROLS."""
    model_id: int | None
    """The receiver's number in streams, 1…14; None: no number."""

    def __call__(self, scene: Scene, *_: Any, **controls: Any) -> Image:
        """The picture, uint8 (scene.height, scene.width, 3); the receiver has defaults for missing
        controls."""


class FunctionSegmenter:
    """A function as a segmenter. Attributes of `Segmenter` that it lacks: CamVid's palette, no void
    for uncertain pixels, no probabilities."""

    def __init__(self, function: Callable[[Image], LabelMap]) -> None:
        self.function = function
        self.palette: int = getattr(function, "palette", CAMVID.id)
        self.voids: bool = getattr(function, "voids", False)

    def __call__(self, image: Image) -> LabelMap:
        return self.function(image)

    def predict(self, image: Image) -> tuple[LabelMap, Probabilities | None]:
        own = getattr(self.function, "predict", lambda image: (self.function(image), None))
        predicted: tuple[LabelMap, Probabilities | None] = own(image)
        return predicted


class FunctionReceiver:
    """A function as a receiver. Attributes of `Receiver` that it lacks: no number, and the controls
    that its arguments name."""

    def __init__(self, function: Callable[..., Image]) -> None:
        self.function = function
        self.model_id: int | None = getattr(function, "model_id", None)
        arguments: Iterable[inspect.Parameter] = ()
        with contextlib.suppress(ValueError):  # functions in C may have no signature
            arguments = inspect.signature(function).parameters.values()
        any_name = any(a.kind is a.VAR_KEYWORD for a in arguments)
        named = {a.name for a in arguments if a.kind is not a.POSITIONAL_ONLY}
        found = CONTROLS if any_name else named.intersection(CONTROLS)
        self.controls = frozenset(getattr(function, "controls", found))

    def __call__(self, scene: Scene, **controls: Any) -> Image:
        return self.function(scene, **controls)


def as_segmenter(given: Segmenter | Callable[[Image], LabelMap]) -> Segmenter:
    """A segmenter unchanged, a function as a segmenter."""
    return given if isinstance(given, Segmenter) else FunctionSegmenter(given)


def as_receiver(given: Receiver | Callable[..., Image]) -> Receiver:
    """A receiver unchanged, a function as a receiver."""
    return given if isinstance(given, Receiver) else FunctionReceiver(given)
