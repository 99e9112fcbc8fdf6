"""A clip coded in several ways, and what is measured of each.

LPIPS, agreement and objects are those of every N-th frame, against the original. **Flicker** is the
mean difference of successive frames along the original's motion, over the original's own, where the
original differs by less than STATIC levels.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sempic import api, coarse, segment, sequence
from sempic.errors import InputError, SempicWarning
from sempic.evaluation import metrics
from sempic.evaluation.clips.clip import Clip
from sempic.evaluation.clips.rivals import RIVALS, first, nearest
from sempic.evaluation.measure import Measure, Settings, row
from sempic.evaluation.measures import Row
from sempic.options import BUNDLED, DEFAULT_QUALITY, Models
from sempic.scene import Image, LabelMap
from sempic.sequence import motion

STATIC = 8
"""Levels of grey."""
NAMES = ("sempic", "single", *(f"{name}{times}" for name in RIVALS for times in ("", "x2")))
"""Ways to code a clip: as a sequence, as single pictures, and by others in as many bytes as the
sequence, or twice as many."""
SEEDS = 10
"""Losses are tried so often."""
_FACTOR = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How clips are coded and what is measured."""

    settings: Settings
    names: tuple[str, ...] = NAMES
    """Of NAMES; the sequence is among them in any case."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of `SequenceOptions`."""
    every: int = 1
    """Each so many frames are looked at by the networks of the metrics."""
    drop: float = 0.0
    """The share of frames that are lost in a trial of that; 0: no trial."""
    models: Models = BUNDLED

    def __post_init__(self) -> None:
        if unknown := [name for name in self.names if name not in NAMES]:
            raise InputError(f"codec {unknown[0]!r} is not one of {', '.join(NAMES)}, for clips")


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A clip in one way."""

    title: str
    row: Row
    """As of `measure.row`, and: bytes, kbps (kbit in a second), flicker; of our own coarse, labels,
    parity if there is any, and overhead (bytes); of the sequence, with a trial of losses, losses
    (mean mIoU of the maps of frames that arrive against those without loss, one for each trial)."""
    pictures: list[Image]


def measure(clip: Clip, plan: Plan) -> dict[str, Found]:
    """What is found, by the names of the plan. Raises SempicErrors as coding does."""
    coder = api.Codec(_Seen(plan.models.segmenter), plan.models.receiver)
    coded: dict[str, tuple[str, Row, list[Image]]] = {"sempic": _sequence(clip, coder, plan)}
    size = coded["sempic"][1]["bytes"]
    for name in plan.names:
        if name == "single":
            coded[name] = _single(clip, coder, plan.options.get("quality", DEFAULT_QUALITY))
        elif name != "sempic":
            coded[name] = _rival(name, clip, size)
    judge = Measure(plan.settings)
    references = [judge.reference(frame) for frame in clip.frames[:: plan.every]]
    places = [_moved(*pair) for pair in zip(clip.frames, clip.frames[1:], strict=False)]
    found = {}
    for name, (title, told, pictures) in coded.items():
        shown = pictures[:: plan.every]
        records = [judge(r, picture) for r, picture in zip(references, shown, strict=True)]
        figures = row(records, [], None) | told
        figures["kbps"] = 8 * told["bytes"] / clip.seconds / 1000
        figures["flicker"] = flicker(clip.frames, pictures, places)
        found[name] = Found(title=title, row=figures, pictures=pictures)
    return found


class _Seen:
    """A segmenter that looks at each frame once."""

    def __init__(self, spec: str | None) -> None:
        self._inner = segment.load(spec)
        self.palette, self.voids = self._inner.palette, self._inner.voids
        self._found: dict[bytes, Any] = {}

    def __call__(self, image: Image) -> LabelMap:
        labels: LabelMap = self.predict(image)[0]
        return labels

    def predict(self, image: Image) -> Any:
        key = image.tobytes()
        if key not in self._found:
            self._found[key] = self._inner.predict(image)
        return self._found[key]


def _sequence(clip: Clip, coder: api.Codec, plan: Plan) -> tuple[str, Row, list[Image]]:
    pieces = list(sequence.encode(clip.frames, rate=clip.rate, codec=coder, **plan.options))
    pictures = [np.asarray(picture) for picture in sequence.decode(pieces, codec=coder)]
    told = sequence.info(b"".join(pieces))
    found: Row = {"bytes": told["bytes"], **told["chunks"], "overhead": told["overhead"]}
    if plan.drop:
        found["losses"] = losses(pieces, plan.drop)
    return "sempic", found, pictures


def _single(clip: Clip, coder: api.Codec, quality: int) -> tuple[str, Row, list[Image]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SempicWarning)  # each frame's own; the table has the bytes
        streams = [coder.encode(frame, quality=quality) for frame in clip.frames]
    parts = [api.info(stream)["chunks"] for stream in streams]
    found: Row = {"bytes": sum(map(len, streams))}
    found |= {name: sum(part.get(name, 0) for part in parts) for name in ("coarse", "labels")}
    found["overhead"] = found["bytes"] - found["coarse"] - found["labels"]
    return "sempic, single pictures", found, [np.asarray(coder.decode(s)) for s in streams]


def _rival(name: str, clip: Clip, size: int) -> tuple[str, Row, list[Image]]:
    rival = first(name.removesuffix("x2"))
    twice = name.endswith("x2")
    found = nearest(rival, clip, 2 * size if twice else size)
    title = rival.title + (" at twice the rate" if twice else "")
    if found.width != clip.frames[0].shape[1]:
        title += f", coded {found.width} wide"
    return title, {"bytes": found.size}, found.pictures


# ── in time ──────────────────────────────────────────────────────────────────────────────────


def _moved(last: Image, now: Image) -> npt.NDArray[np.int32]:
    """Where each pixel of a frame was in the one before."""
    before, after = (coarse.from_rgb(coarse.downscale(p, _FACTOR)).y for p in (last, now))
    height, width = now.shape[:2]
    return motion.enlarge(motion.estimate(before, after, version=1), _FACTOR, height, width)


def flicker(
    frames: Sequence[Image], pictures: Sequence[Image], places: Sequence[npt.NDArray[np.int32]]
) -> float:
    """As the module has it. places: for each frame but the first, as `motion.move` takes it."""
    ours = own = 0.0
    for t, where in enumerate(places, 1):
        before = _change(frames[t - 1], frames[t], where)
        after = _change(pictures[t - 1], pictures[t], where)
        static = before < STATIC
        own += float(before[static].sum())
        ours += float(after[static].sum())
    return ours / max(own, 1e-9)


def _change(last: Image, now: Image, places: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    moved = motion.move(np.moveaxis(last, 2, 0), places)
    change = np.moveaxis(now, 2, 0).astype(np.int16) - moved
    mean: npt.NDArray[np.float64] = np.abs(change).mean(0)
    return mean


# ── losses ───────────────────────────────────────────────────────────────────────────────────


def losses(pieces: Sequence[bytes], share: float) -> list[float]:
    """What the loss of frames at random does to the maps of those that arrive: for each of SEEDS
    trials their mean mIoU against the maps without loss. The first frame always arrives."""
    whole = {moment.number: moment.scene.labels for moment in _unpacked(pieces)}
    found = []
    for seed in range(SEEDS):
        lost = np.random.default_rng(seed).random(len(pieces)) < share
        lost[0] = False
        left = [piece for piece, gone in zip(pieces, lost, strict=True) if not gone]
        each = [
            agreement(whole[moment.number], moment.scene.labels)
            for moment in _unpacked(left)
            if not lost[moment.number]
        ]
        found.append(float(np.mean(each)))
    return found


def _unpacked(pieces: Sequence[bytes]) -> list[sequence.Moment]:
    return list(sequence.Unpacker().moments(pieces))


def agreement(truth: LabelMap | None, guess: LabelMap | None) -> float:
    """Mean intersection over union of the classes that the first map has; no map is one class. A
    class of ten pixels counts as much as the road."""
    a, b = (np.full(1, 256) if m is None else m.ravel().astype(np.int64) for m in (truth, guess))
    size = np.broadcast_shapes(a.shape, b.shape)
    matrix = metrics.confusion(np.broadcast_to(a, size), np.broadcast_to(b, size), 257)
    return float(metrics.iou(matrix)[matrix.any(1)].mean())
