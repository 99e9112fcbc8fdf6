"""The segmenter's map of a single picture, as it is sent: at half the size, or not at all.

A soft picture is segmented at half its size; of others the map is halved, unless it is lossless.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection

import numpy as np

from sempic import coarse, codec, drafts, halving, processes
from sempic.codec import Draft
from sempic.errors import InputError, warn
from sempic.models import runtime
from sempic.options import LOSSLESS, EncodeOptions
from sempic.palette import CAMVID, CITYSCAPES, PALETTES, translate
from sempic.roles import Segmenter
from sempic.scene import Image, LabelMap
from sempic.segment.prediction import Prediction, predict
from sempic.windows.choice import Mask, possible


class Found:
    """What a segmenter finds in a picture. Maps have the picture's size and ids of `palette`."""

    def __init__(
        self, segmenter: Segmenter, pixels: Image, options: EncodeOptions, *, halves: bool = True
    ) -> None:
        """Runs the segmenter; warns if it recognises too little.

        pixels: uint8 (H, W, 3). halves: whether a soft picture is segmented at half its size.

        Raises as `predict`, and InputError for a palette without names of the segmenter's classes.
        """
        self._pixels, self._options = pixels, options
        self.palette = segmenter.palette if options.palette is None else options.known_palette.id
        if self.palette not in (segmenter.palette, CAMVID.id, CITYSCAPES.id):
            name = PALETTES[self.palette].name
            raise InputError(f"the segmenter's classes cannot be named in palette {name}")
        simplified = options.label_quality != LOSSLESS
        self._halved = halves and simplified and halving.is_soft(pixels)
        shown = coarse.downscale(pixels, 2) if self._halved else pixels
        probable = simplified or bool(options.keep or options.imagine)
        self._whole = predict(segmenter, shown, options.ignore_label, probable=probable)
        self._doubled = simplified and (self._halved or self._whole.probabilities is not None)
        why = self._whole.reason_for_no_map() if simplified else None
        self._is_sent = why is None
        if why is not None:
            warn(f"sent without a label map: {why}")

    @functools.cached_property
    def _sent(self) -> Prediction:
        """What is sent, unless it is not worth its bits."""
        return self._whole.halved() if self._doubled and not self._halved else self._whole

    def draft(self, plain: Draft) -> Draft:
        """A draft with the map, if it is sent, and for a fixed quality with the coarse picture,
        which a second thread codes at the same time."""
        plain = dataclasses.replace(plain, palette=self.palette)
        if not self._is_sent:
            return plain
        mapped = dataclasses.replace(plain, doubled=self._doubled, halved=self._halved)
        options, coding = self._options, None
        if not options.targeted and runtime.threads() != 1:
            coding = processes.begun(
                functools.partial(drafts.ahead_of_map, mapped, self._pixels, options.quality)
            )
        labels = self.labels(options.ignore_label)
        if labels is None:
            return plain
        return dataclasses.replace(mapped if coding is None else coding(), labels=labels)

    def labels(self, ignore_label: int | None = None) -> LabelMap | None:
        """The map that is sent, with an id that becomes void; None: it is not worth its bits."""
        how = self._options.found_quality, self._options.importance, ignore_label
        found = self._sent.map_for_still(*how) if self._is_sent else None
        return None if found is None else self._full(found)

    def seen(self) -> list[LabelMap]:
        """For classes to imagine: the map as found, and the sent one with its `ignore_label`."""
        if not self._options.imagine:
            return []
        kept = None if self._options.ignore_label is None else self.labels()
        return [self._full(self._whole.labels)] + ([] if kept is None else [kept])

    def may_show(self, ids: Collection[int]) -> Mask:
        """Where one of these ids of the palette is the likeliest or not unlikely, bool (H, W)."""
        labels, probabilities, palette, *_ = self._whole
        own = np.arange(len(PALETTES[palette].classes), dtype=np.uint8)
        numbers = np.flatnonzero(np.isin(translate(own, palette, self.palette), list(ids)))
        mask = possible(labels, probabilities, numbers)
        return self._enlarged(mask.view(np.uint8)).view(bool)

    def _full(self, labels: LabelMap) -> LabelMap:
        return translate(self._enlarged(labels), self._whole.palette, self.palette)

    def _enlarged(self, labels: LabelMap) -> LabelMap:
        """A map at the size of the picture, which it has, or half of it."""
        size = self._pixels.shape[:2]
        return labels if labels.shape == size else codec.repeated(labels, 2, size)
