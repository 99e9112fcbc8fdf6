"""Drafts of the stream of one picture: one for each quality level; the label map is the same."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sempic import coarse, codec, critical, progress, simplify, texture, windows
from sempic.codec import Draft
from sempic.errors import ImageError, InputError, LabelMapError, RateError, naming, warn
from sempic.options import DOUBLED, LOSSLESS, QUALITY, UNMAPPED, EncodeOptions
from sempic.palette import PALETTES, Palette, numbers
from sempic.scene import Image, LabelMap, Scene, half_map
from sempic.windows import choice, layout
from sempic.windows.choice import Box, Mask
from sempic.windows.layout import Cells

if TYPE_CHECKING:
    from sempic.check import Verifier


class Drafts:
    """The drafts of one picture, each made at its first use."""

    def __init__(
        self,
        pixels: Image,
        plain: Draft,
        options: EncodeOptions,
        verifier: Verifier | None,
        paint: Callable[[Scene], Image],
        *,
        seen: Collection[LabelMap],
        may_show: Callable[[Collection[int]], Mask] | None,
        full: tuple[int, int],
    ) -> None:
        """
        Args:
            pixels: the picture to send, uint8 (H, W, 3).
            plain: the draft without windows and texture; a coarse picture is that of the one level.
            options: of the encoding.
            verifier: of the check; None: there is no check.
            paint: the receiver, for the check.
            seen: the map before it was simplified, and before a class became void, each uint8
                (H, W), if classes are to be imagined.
            may_show: where the segmenter sees, or may see, one of these ids of the palette; None:
                no segmenter has seen the picture.
            full: (height, width) of the picture that `keep_boxes` refer to.

        Raises InputError: a class that is not in the palette or that is to be kept and imagined, or
        a box outside the picture.
        """
        self._pixels, self._options = pixels, options
        self._verifier, self._paint = verifier, paint
        palette = PALETTES[plain.palette]
        keep, imagine = choice.apart_in(palette, options.keep, options.imagine)
        boxes = _scaled(options.keep_boxes, full, pixels.shape[:2])

        def shown(classes: list[int], *maps: LabelMap | None) -> Mask:
            """Where one of these classes is in a map or, by the segmenter, in the picture."""
            mask = np.zeros(pixels.shape[:2], bool)
            if classes:
                for labels in maps:
                    mask |= labels is not None and np.isin(labels, classes)
                mask |= may_show is not None and may_show(classes)
            return mask

        sent = choice.kept(shown(numbers(keep, palette), plain.labels), boxes)
        self._never: Cells
        """The cells that no window may touch."""
        if not imagine:
            self._never = np.zeros_like(sent)
        elif plain.labels is None:  # objects may be anywhere
            self._never = np.ones_like(sent)
        else:  # of objects that the sent map leaves out, too
            hidden = choice.imagined_numbers(imagine, palette)
            self._never = choice.apart(shown(hidden, plain.labels, *seen))
            if verifier is not None:
                from sempic import check

                self._never |= check.imagined(pixels, verifier, imagine, palette)
        self._sent = layout.covered(sent & ~self._never, self._never)
        """The cells that the options send in windows, and those between them if there are too many
        windows."""
        to_send = keep or options.keep_boxes or options.check
        if plain.labels is None and imagine and to_send:
            warn("without a label map no window is sent: classes to imagine may be anywhere")
        elif plain.labels is None and may_show is None and keep:
            warn("without a label map no class is kept: its objects cannot be located")
        levels = _texture(pixels, plain, palette, imagine, seen)
        self._plain = dataclasses.replace(plain, texture=levels)
        self._made: dict[int, tuple[Draft, bytes]] = {}

    def best(self, levels: list[int]) -> bytes:
        """The checked stream of the one level or, for a target, of the highest level that meets it.

        A level is sure to meet it that has room for all that a check may add; if there is none, the
        lowest is checked with the room that it has. Levels above are tried, from the highest down,
        that have room for what the check did add.

        Raises RateError if no level meets the target.
        """
        options = self._options
        budget = options.check_budget
        if not options.targeted:
            return self._checked(levels[0], budget)
        target = options.target_bpp or options.target_bytes or 0
        unit, digits = ("bytes", 0) if options.target_bytes is not None else ("bpp", 4)

        def most(size: int, share: float) -> float:
            room = share * size + critical.overhead(options.table)
            return self._rate(size + room * options.check)

        # A finer level of a soft picture may be smaller.
        if most(self._size(levels[0]), budget) > target:
            levels = levels[levels.index(min(levels, key=self._size)) :]
        if (least := most(self._size(levels[0]), 0)) > target:
            least = math.ceil(least * 10**digits) / 10**digits  # can be reached itself
            checked = ", with a check's receipt" if options.check else ""
            ways = ["less to keep, a higher --window-qp"] * bool(self._sent.any())
            mapped = self._plain.labels is not None and not options.keep  # which needs the map
            ways += ["no label map (--labels none)"] * mapped
            ways += ["a lower --max-side"] * (unit == "bytes")
            advice = f"; {', or '.join(ways)} may take less" if ways else ""
            raise RateError(
                f"{target:.10g} {unit} cannot be reached: the least for this picture is "
                f"{least:.{digits}f} {unit}{checked}{advice}"
            )
        level = self._highest(levels, lambda size: most(size, budget) <= target)
        size = self._size(level)
        if most(size, budget) > target:
            budget = (target - most(size, 0)) / self._rate(size)
        stream = self._checked(level, budget)
        added = len(stream) - size
        highest = self._highest(levels, lambda size: self._rate(size + added) <= target)
        for higher in range(highest, level, -1):
            if self._rate(len(other := self._checked(higher, options.check_budget))) <= target:
                level, stream = higher, other
                break
        if level == levels[-1] and (rate := self._rate(len(stream))) < target:
            warn(
                f"quality {level}, the finest, takes {rate:.{digits}f} {unit} of the "
                f"{target:.10g} given"
            )
        return stream

    def _highest(self, levels: list[int], fits: Callable[[int], bool]) -> int:
        """The highest level whose stream, by its bytes, fits; the lowest if none does."""
        low, high = 0, len(levels)  # low is taken as fitting, high does not fit
        while high - low > 1:
            middle = (low + high) // 2
            if fits(self._size(levels[middle])):
                low = middle
            else:
                high = middle
        return levels[low]

    def _checked(self, level: int, budget: float) -> bytes:
        """The stream of a level, with what a check adds: windows for missed objects, a receipt."""
        draft, stream = self._at(level)
        if self._verifier is None:
            return stream
        from sempic import check

        options = self._options
        with naming("check"), progress.waiting("checking what is lost", aloud=False):
            return check.run(
                self._pixels,
                draft,
                stream,
                verifier=self._verifier,
                paint=self._paint,
                budget=budget,
                table=options.table,
                sent=self._sent,
                never=self._never,
                qp=options.window_qp,
            )

    def _size(self, level: int) -> int:
        return len(self._at(level)[1])

    def _rate(self, size: float) -> float:
        """Bytes in the target's unit: bytes, or bits per pixel."""
        if self._options.target_bytes is not None:
            return size
        return 8 * size / (self._plain.width * self._plain.height)

    def _at(self, level: int) -> tuple[Draft, bytes]:
        if level not in self._made:
            with progress.waiting(f"coding at quality {level}", aloud=False):
                draft = self._draft(level)
                self._made[level] = draft, draft.pack()
        return self._made[level]

    def _draft(self, level: int) -> Draft:
        draft = self._plain
        if draft.coarse is None:
            draft = _with_coarse(draft, self._pixels, level, mapped=draft.labels is not None)
        if not self._sent.any():
            return draft
        places = layout.rectangles(self._sent)
        with naming("keep, keep_boxes"):
            payload = windows.encode(
                self._pixels, places, draft.planes(), qp=self._options.window_qp
            )
        return dataclasses.replace(draft, windows=payload)


def with_map(plain: Draft, labels: LabelMap, options: EncodeOptions) -> Draft:
    """A draft with the user's map of `settled`, as sent: with void, and maybe simplified."""
    sent = options.known_palette.settle(labels, options.ignore_label)
    if isinstance(options.label_quality, int):
        with progress.waiting("simplifying labels", aloud=False):
            sent = simplify.simplify(
                sent, options.label_quality, palette=plain.palette, importance=options.importance
            )
    return dataclasses.replace(plain, labels=sent)


def ahead_of_map(plain: Draft, pixels: Image, level: int) -> Draft:
    """A draft with all that depends on the coarse picture of a level, and not on the label map."""
    return _with_coarse(plain, pixels, level, mapped=True).with_features()


def settled(
    labels: npt.NDArray[np.uint8] | str | None, pixels: Image, options: EncodeOptions
) -> LabelMap | None:
    """The user's label map, checked, with 255 as void, and an `ignore_label` outside the palette;
    None for None or "none".

    Warns, for "none", of options that have no effect without a map. Raises InputError or
    LabelMapError.
    """
    if labels is None:
        return None
    if isinstance(labels, str):
        if labels != "none":
            raise InputError(f"labels are an array or 'none', not {labels!r}")
        for name in ("label_quality", "ignore_label"):
            if getattr(options, name) is not None:
                words = name.replace("_", " ")
                warn(f"the {words} has no effect: no label map is sent")
        return None
    height, width = pixels.shape[:2]
    palette = options.known_palette
    if getattr(labels, "shape", None) == (width, height) != (height, width):
        raise LabelMapError(
            f"the label map is {height}×{width}, the picture {width}×{height}: pictures are turned "
            "upright first (EXIF), and the map must be upright, too"
        )
    codec.check_map(labels, width=width, height=height)
    labels = palette.settle(labels, palette.unknown(options.ignore_label))
    codec.check_labels(labels, width=width, height=height, palette=palette.id)
    return labels


def check_importance(labels: object, palette: Palette, options: EncodeOptions) -> None:
    """Checks the classes of a given `importance` also where it has no effect, and warns of that.

    Args:
        labels: of `Codec.encode`.
        palette: of the map that would be simplified: the user's, or the segmenter's.

    Raises InputError: a class that the palette does not have.
    """
    with naming("importance"):
        simplify.class_weights(palette, options.importance)
    if isinstance(labels, str):
        warn("importance has no effect: no label map is sent")
    elif (options.found_quality if labels is None else options.label_quality) in (None, LOSSLESS):
        warn(
            "importance has no effect: the label map is sent lossless; label quality simplifies it"
        )


def levels(size: tuple[int, ...], options: EncodeOptions) -> list[int]:
    """The quality levels for a picture of this size (width, height): the requested level, or, for a
    target, all levels whose coarse picture is not too large. Raises ImageError if there is none."""
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


def _with_coarse(plain: Draft, pixels: Image, level: int, *, mapped: bool) -> Draft:
    """A draft with the coarse picture of a level; mapped: the stream has a label map."""
    small = coarse.downscale(pixels, QUALITY[level].factor)
    qp = QUALITY[level].qp
    if not mapped:
        qp -= UNMAPPED
    elif plain.doubled and not plain.halved:
        qp -= DOUBLED
    payload = coarse.encode(small, codec=plain.coarse_codec, quality=qp)
    return dataclasses.replace(plain, coarse=payload)


def _texture(
    pixels: Image,
    plain: Draft,
    palette: Palette,
    imagine: Collection[str],
    seen: Collection[LabelMap],
) -> texture.Texture:
    """The texture in the stream: of the picture that the receiver paints, half as large if the
    draft is halved; none of classes to imagine, which are anywhere if there is no map, nor of void
    where it stands for them, by `seen`."""
    labels = plain.labels
    if labels is None and imagine:
        return {}
    if plain.halved:
        assert labels is not None
        pixels, labels = coarse.downscale(pixels, 2), half_map(labels)
    levels = texture.choose(pixels, labels, palette)
    if not imagine:
        return levels
    never = choice.imagined_numbers(imagine, palette)
    void = palette.void
    if void is not None and any(np.isin(map_, never)[plain.labels == void].any() for map_ in seen):
        never.append(void)
    return {number: level for number, level in levels.items() if number not in never}


def _scaled(
    boxes: Collection[Box], full: tuple[int, int], size: tuple[int, int]
) -> Collection[Box]:
    """Boxes in a picture of (height, width) `full`, scaled with the picture to `size`; raises
    InputError for one outside."""
    if full == size:
        return boxes
    down, right = (small / large for small, large in zip(size, full, strict=True))
    found: list[Box] = []
    for box in boxes:
        choice.check_box(box, full[::-1])  # here, because a message has the user's numbers
        x, y, width, height = box
        left, top = math.floor(x * right), math.floor(y * down)
        end, bottom = math.ceil((x + width) * right), math.ceil((y + height) * down)
        found.append((left, top, end - left, bottom - top))
    return found
