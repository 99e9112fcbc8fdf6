"""A clip coded in several ways, each measured.

Picture metrics compare every N-th frame with the original. **Flicker** is the mean difference of
successive frames along the original's motion, divided by the original's own, over pixels where the
original changes by less than STATIC grey levels.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import nan
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from sempic import api, coarse, sequence
from sempic.errors import InputError, noting
from sempic.evaluation import codecs, metrics
from sempic.evaluation.clips.clip import Clip
from sempic.evaluation.dial import nearest
from sempic.evaluation.measure import Measure, Settings, row
from sempic.evaluation.measures import Record, Row
from sempic.evaluation.measures.base import Reference
from sempic.fields import option
from sempic.options import Models
from sempic.pictures import resized
from sempic.scene import Image, LabelMap
from sempic.sequence import SequenceOptions, motion
from sempic.sequence.painter import Painter

STATIC = 8
"""Grey levels."""
NAMES = (
    "sempic",
    "single",
    *(f"{name}{times}" for name in codecs.OF_CLIPS for times in ("", "x2")),
)
"""Ways to code a clip: as a sequence, as single pictures, and by competitors in as many bytes as
the sequence, or twice as many."""
TRIALS = 10
"""Number of trials of frame losses, with seeds 0, 1, …"""
_SLACK = 1.1
"""If the smallest stream exceeds the wanted size by this factor, half the resolution is coded."""
_SMALLEST = 320
"""Clips up to this width are not halved: SVT-AV1 hangs at 160×90."""
_FACTOR = 4
"""Motion is estimated on pictures downscaled by this factor."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Options of the command line for clips alone, besides `SequenceOptions`."""

    start: float = option("start of each clip", 0.0, low=0, metavar="SECONDS")
    every: int = option("measure every N-th frame (flicker: all)", 1, low=1, metavar="N")
    drop: float = option(
        "also lose this share of the frames, in ten trials, and report the damage",
        0.0,
        low=0,
        high=1,
        metavar="SHARE",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan(Options):
    """How clips are coded and measured."""

    settings: Settings
    names: tuple[str, ...]
    """Out of NAMES; "sempic" is always coded."""
    options: SequenceOptions
    models: Models

    def __post_init__(self) -> None:
        if unknown := [name for name in self.names if name not in NAMES]:
            raise InputError(f"codec {unknown[0]!r} is not one of {', '.join(NAMES)}, for clips")


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """A clip coded in one way."""

    title: str
    row: Row
    """Bytes, and from `measure` on the figures of `measure.row`, kbps (kbit/s) and flicker. Ours
    also have coarse, labels, parity (if there is any) and overhead, in bytes. If `Plan.drop`, the
    sequence has those of `losses`."""
    pictures: list[Image]


def measure(clip: Clip, plan: Plan) -> dict[str, Way]:
    """The clip in each way of the plan, by name. Raises SempicErrors of coding."""
    coder = api.Codec(**plan.models.keywords())
    options = plan.options.keywords()
    pieces = list(sequence.encode(clip.frames, rate=clip.rate, codec=coder, **options))
    coded = {"sempic": _sequence(pieces, coder)}
    size = coded["sempic"].row["bytes"]
    for name in plan.names:
        if name == "single":
            coded[name] = _single(clip, coder, plan.options)
        elif name != "sempic":
            coded[name] = _competitor(name, clip, size)
    compare = Measure(plan.settings)
    references = [compare.reference(frame) for frame in clip.frames[:: plan.every]]
    places = [_moved(*pair) for pair in zip(clip.frames, clip.frames[1:], strict=False)]
    found = {}
    for name, way in coded.items():
        shown = way.pictures[:: plan.every]
        records = [compare(r, picture) for r, picture in zip(references, shown, strict=True)]
        figures = row(records, [], None) | way.row
        if name == "sempic" and plan.drop:
            figures |= losses(pieces, plan, coder, records, references)
        figures["kbps"] = 8 * figures["bytes"] / clip.seconds / 1000
        figures["flicker"] = flicker(clip.frames, way.pictures, places)
        found[name] = replace(way, row=figures)
    return found


def _sequence(pieces: list[bytes], coder: api.Codec) -> Way:
    pictures = [np.asarray(picture) for picture in sequence.decode(pieces, codec=coder)]
    info = sequence.info(b"".join(pieces))
    sizes: Row = {"bytes": info["bytes"], **info["chunks"], "overhead": info["overhead"]}
    return Way(title="sempic", row=sizes, pictures=pictures)


def _single(clip: Clip, coder: api.Codec, options: SequenceOptions) -> Way:
    shared: dict[str, Any] = {"quality": options.quality, "label_quality": options.label_quality}
    with noting():  # left out, since they would repeat for each frame
        streams = [coder.encode(frame, **shared) for frame in clip.frames]
    chunks = [api.info(stream)["chunks"] for stream in streams]
    sizes: Row = {"bytes": sum(map(len, streams))}
    sizes |= {name: sum(part.get(name, 0) for part in chunks) for name in ("coarse", "labels")}
    sizes["overhead"] = sizes["bytes"] - sizes["coarse"] - sizes["labels"]
    pictures = [np.asarray(coder.decode(stream)) for stream in streams]
    return Way(title="sempic, single pictures", row=sizes, pictures=pictures)


def _competitor(name: str, clip: Clip, size: int) -> Way:
    competitor = codecs.encodable(*codecs.OF_CLIPS[name.removesuffix("x2")])
    twice = name.endswith("x2")
    found, pictures, width = _nearest(competitor, clip, 2 * size if twice else size)
    title = competitor.title + (" at twice the rate" if twice else "")
    if width != clip.frames[0].shape[1]:
        title += f", coded {width} wide"
    return Way(title=title, row={"bytes": found}, pictures=pictures)


def _nearest(competitor: codecs.Video, clip: Clip, size: int) -> tuple[int, list[Image], int]:
    """(bytes, decoded frames, width when coded) of the competitor's stream nearest to a size in
    bytes. If all streams are too large, half the width and height are coded and enlarged again."""
    height, width = clip.frames[0].shape[:2]
    settings = competitor.settings

    @functools.cache
    def coded(at: int) -> list[bytes]:
        return competitor.packets(clip.frames, settings[at], clip.rate)

    def bytes_at(at: int) -> int:
        return sum(map(len, coded(at)))

    if bytes_at(0) > _SLACK * size and width > _SMALLEST:
        half = width // 4 * 2, height // 4 * 2
        frames = [resized(frame, half, "BOX") for frame in clip.frames]
        found, small, coded_width = _nearest(competitor, replace(clip, frames=frames), size)
        return found, [resized(p, (width, height)) for p in small], coded_width
    best = nearest(bytes_at, len(settings), size, near=0)
    return bytes_at(best), competitor.frames(coded(best), width, height), width


# ── flicker ──────────────────────────────────────────────────────────────────────────────────


def _moved(last: Image, now: Image) -> npt.NDArray[np.int32]:
    """Each pixel's place in the last frame, as `motion.move` takes it."""
    before, after = (coarse.from_rgb(coarse.downscale(p, _FACTOR)).y for p in (last, now))
    height, width = now.shape[:2]
    return motion.enlarge(motion.estimate(before, after, version=1), _FACTOR, height, width)


def flicker(
    frames: Sequence[Image], pictures: Sequence[Image], places: Sequence[npt.NDArray[np.int32]]
) -> float | None:
    """As defined above; None if the original stands entirely still.

    Args:
        frames, pictures: originals and decoded, uint8 (H, W, 3).
        places: for each frame but the first, as `motion.move` takes it.
    """
    originals = decoded = 0.0
    for t, moved in enumerate(places, 1):
        before = _change(frames[t - 1], frames[t], moved)
        after = _change(pictures[t - 1], pictures[t], moved)
        static = before < STATIC
        originals += float(before[static].sum())
        decoded += float(after[static].sum())
    return decoded / originals if originals else None


def _change(last: Image, now: Image, places: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    moved = motion.move(np.moveaxis(last, 2, 0), places)
    change = np.moveaxis(now, 2, 0).astype(np.int16) - moved
    return np.abs(change).mean(0)


# ── losses ───────────────────────────────────────────────────────────────────────────────────


def losses(
    pieces: Sequence[bytes],
    plan: Plan,
    coder: api.Codec,
    records: Sequence[Record],
    references: Sequence[Reference],
) -> Row:
    """TRIALS random losses of frames, of which the first always arrives. Only frames that arrive
    count.

    Args:
        records: of the pictures without loss, each `plan.every`-th.
        references: of the originals of these.

    Keys, each with a value for each trial:
        losses_of_maps: the mean `agreement` with the maps without loss.
        losses_of_pictures: the agreement of their judged pictures minus that of the same pictures
            without loss; absent if "miou" is not measured.
    """
    complete = [moment.scene.labels for moment in sequence.Unpacker().moments(pieces)]
    is_judged, compare = "miou" in plan.settings.metrics, references[0].measure
    found: Row = {"losses_of_maps": []} | ({"losses_of_pictures": []} if is_judged else {})
    for seed in tqdm(range(TRIALS), desc="losses", leave=False, disable=None):
        lost = np.random.default_rng(seed).random(len(pieces)) < plan.drop
        lost[0] = False
        arrived = [piece for piece, gone in zip(pieces, lost, strict=True) if not gone]
        moments = list(sequence.Unpacker().moments(arrived))
        pictures = Painter(coder).paint_all(moments) if is_judged else [None] * len(moments)
        scores, before, after = [], [], []
        for moment, picture in zip(moments, pictures, strict=True):
            if lost[moment.number]:
                continue
            scores.append(agreement(complete[moment.number], moment.scene.labels))
            at, skipped = divmod(moment.number, plan.every)
            if picture is not None and not skipped:
                before.append(records[at])
                after.append(compare(references[at], picture, ["miou"]))
        found["losses_of_maps"].append(float(np.mean(scores)))
        if is_judged:
            with_loss, without = (row(r, [], None).get("agreement", nan) for r in (after, before))
            found["losses_of_pictures"].append(with_loss - without)
    return found


def agreement(truth: LabelMap | None, guess: LabelMap | None) -> float:
    """Mean intersection over union of the classes in the first map; None is a map of one class."""
    ids = (np.full(1, 256) if m is None else m.ravel().astype(np.int64) for m in (truth, guess))
    a, b = np.broadcast_arrays(*ids)
    matrix = metrics.confusion(a, b, 257)
    return float(metrics.iou(matrix)[matrix.any(1)].mean())
