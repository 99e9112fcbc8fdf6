"""What may be sent of a picture whose label map is settled: a draft for each level of the dial."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from sempic import coarse, codec, critical, progress, texture, windows
from sempic.codec import Draft
from sempic.errors import ImageError, InputError, RateError, warn
from sempic.options import QUALITY, UNMAPPED, EncodeOptions
from sempic.palette import PALETTES, Palette
from sempic.scene import Image, LabelMap
from sempic.windows import choice, layout
from sempic.windows.choice import Box
from sempic.windows.layout import Cells

if TYPE_CHECKING:
    from concurrent.futures import Future

    from sempic.labels import Seen


class Coded(NamedTuple):
    """A coarse picture."""

    payload: bytes
    seen: Seen | None
    """By the coder of labels, if it has looked."""


class Drafts:
    """Each is made when it is first asked for."""

    sent: Cells
    """The cells that are sent as they are in any case."""
    never: Cells
    """Those that never are."""

    def __init__(
        self,
        pixels: Image,
        plain: Draft,
        options: EncodeOptions,
        *,
        full: tuple[int, int],
        ready: Future[Coded] | None,
    ) -> None:
        """Of a picture, uint8 (H, W, 3), and what is the same at all levels of the dial.

        Args:
            pixels: the picture as it is sent.
            plain: its labels, and whatever else is known of it.
            options: which windows are sent, and how the rest is coded.
            full: (height, width) of the picture that `keep_boxes` lie in.
            ready: the coarse picture, if that has been begun.

        Raises InputError: a class or a box of the options that the picture cannot have.
        """
        self._pixels, self._options, self._ready = pixels, options, ready
        size, palette = (plain.width, plain.height), PALETTES[plain.palette]
        boxes = _scaled(options.keep_boxes, full, size[::-1])
        sent = choice.kept(plain.labels, palette, options.keep, boxes, size=size)
        if not options.imagine:
            self.never = np.zeros_like(sent)
        elif plain.labels is None:  # who knows what is where
            choice.numbers(options.imagine, palette)
            self.never = np.ones_like(sent)
        else:
            self.never = choice.imagined(plain.labels, palette, options.imagine)
        self.sent = sent & ~self.never
        if plain.labels is None:
            _warn_without_map(options)
        self._plain = dataclasses.replace(plain, texture=_texture(pixels, plain, palette))
        self._made: dict[int, tuple[Draft, bytes]] = {}

    def best(self, levels: list[int]) -> tuple[Draft, bytes]:
        """The draft of the one level, or, for a target, of the highest whose stream stays at or
        under it, by bisection; and that stream. RateError: no level does."""
        if not self._options.targeted:
            return self._at(levels[0])
        target = self._options.target_bpp or self._options.target_bytes or 0
        unit, digits = ("bytes", 0) if self._options.target_bytes is not None else ("bpp", 4)
        if (least := self._most(levels[0])) > target:
            raise RateError(
                f"{target:.10g} {unit} cannot be reached: the least for this picture is "
                f"{least:.{digits}f} {unit}"
            )
        low, high = 0, len(levels)  # low fits, high does not
        while high - low > 1:
            middle = (low + high) // 2
            if self._most(levels[middle]) <= target:
                low = middle
            else:
                high = middle
        if low == len(levels) - 1 and (most := self._most(levels[low])) < target:
            warn(
                f"quality {levels[-1]}, the finest, takes {most:.{digits}f} {unit} of the "
                f"{target:.10g} given"
            )
        return self._at(levels[low])

    def _most(self, level: int) -> float:
        """Bits per pixel, or bytes, that a stream may have when it has been checked, if it is to
        be."""
        options, size = self._options, len(self._at(level)[1])
        most: float = size
        if options.target_bytes is None:
            most = 8 * size / (self._plain.width * self._plain.height)
        if not options.check:
            return most
        return most * (1 + options.check_budget + critical.overhead(options.table) / size)

    def _at(self, level: int) -> tuple[Draft, bytes]:
        if level not in self._made:
            with progress.waiting(f"coding at quality {level}", aloud=False):
                draft = self._draft(level)
                self._made[level] = draft, draft.pack()
        return self._made[level]

    def _draft(self, level: int) -> Draft:
        """With the coarse picture at a level of the dial, and the windows that are to be sent."""
        plain = self._plain
        if self._ready is None:
            mapped = plain.labels is not None
            coded = Coded(_coarse(self._pixels, level, plain.coarse_codec, mapped=mapped), None)
        else:
            coded = self._ready.result()
        draft = dataclasses.replace(plain, coarse=coded.payload, seen=coded.seen)
        if not self.sent.any():
            return draft
        places = layout.rectangles(self.sent)
        payload = windows.encode(self._pixels, places, draft.planes())
        return dataclasses.replace(draft, windows=payload)


def begun(pixels: Image, palette: int, halved: bool, options: EncodeOptions) -> Coded:
    """The coarse picture beside a label map that is not known yet."""
    payload = _coarse(pixels, options.quality, options.coarse_codec, mapped=True)
    height, width = pixels.shape[:2]
    seen = codec.look(
        payload, options.coarse_codec, width=width, height=height, palette=palette, halved=halved
    )
    return Coded(payload, seen)


def settled(
    labels: npt.NDArray[np.uint8] | str | None, pixels: Image, options: EncodeOptions
) -> LabelMap | None:
    """The map that is given, checked, with void where it says so; None if none is."""
    if labels is None:
        return None
    if isinstance(labels, str):
        if labels != "none":
            raise InputError(f"labels are an array or 'none', not {labels!r}")
        return None
    height, width = pixels.shape[:2]
    palette = options.known_palette
    codec.check_map(labels, width=width, height=height)
    labels = palette.settle(labels, options.ignore_label)
    codec.check_labels(labels, width=width, height=height, palette=palette.id)
    return labels


def levels(size: tuple[int, ...], options: EncodeOptions) -> list[int]:
    """The levels that may be used for a picture of this size: the one that was asked for, or, for
    a target, all whose coarse picture is not too large; raises ImageError where there is none."""
    longest = max(size) if options.max_side is None else min(max(size), options.max_side)
    wanted = sorted(QUALITY) if options.targeted else [options.quality]
    fit = [level for level in wanted if longest <= coarse.MAX_SIDE * QUALITY[level].factor]
    if not fit:
        most = coarse.MAX_SIDE * max(QUALITY[level].factor for level in wanted)
        raise ImageError(
            f"{size[0]}×{size[1]}: at quality {wanted[0]} a side may have {most} pixels; "
            f"max_side {most} (--max-side {most}) scales it down"
        )
    return fit


def _coarse(pixels: Image, level: int, coarse_codec: str, *, mapped: bool) -> bytes:
    """The coarse picture at a level of the dial; mapped: beside a label map."""
    small = coarse.downscale(pixels, QUALITY[level].factor)
    qp = QUALITY[level].qp - (0 if mapped else UNMAPPED)
    return coarse.encode(small, codec=coarse_codec, quality=qp)


def _texture(pixels: Image, plain: Draft, palette: Palette) -> texture.Texture:
    """What is said of texture: of the picture that is painted, which may be half as large."""
    labels = plain.labels
    if plain.halved:
        assert labels is not None
        pixels, labels = coarse.downscale(pixels, 2), labels[::2, ::2]
    return texture.ask(pixels, labels, palette)


def _warn_without_map(options: EncodeOptions) -> None:
    """Says which windows that were asked for are not sent."""
    if options.imagine and (options.keep or options.keep_boxes):
        warn("without a label map no window is sent: what is only imagined may be anywhere")
    elif options.keep:
        warn("without a label map no class is kept: nobody knows where its objects are")


def _scaled(
    boxes: Collection[Box], full: tuple[int, int], size: tuple[int, int]
) -> Collection[Box]:
    """Boxes in a picture of (height, width) `full` as they lie in it at `size`."""
    if full == size:
        return boxes
    down, right = (small / large for small, large in zip(size, full, strict=True))
    found: list[Box] = []
    for x, y, width, height in boxes:
        left, top = math.floor(x * right), math.floor(y * down)
        end, bottom = math.ceil((x + width) * right), math.ceil((y + height) * down)
        found.append((left, top, end - left, bottom - top))
    return found
