"""A segmenter's checked output for a picture, and the map that is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sempic import codec, simplify
from sempic.options import LOSSLESS, LabelQuality
from sempic.palette import PALETTES
from sempic.roles import Segmenter
from sempic.scene import Image, LabelMap, Probabilities, padded
from sempic.segment import doubt
from sempic.segment.stakes import decide, small, thin


class Prediction(NamedTuple):
    """A segmenter's output for a picture."""

    labels: LabelMap
    """uint8 (H, W), ids of the palette."""
    probabilities: Probabilities | None
    """uint8 (classes, H, W) in 1/255; None if unknown or not requested."""
    palette: int
    voids: bool
    """As in `roles.Segmenter`."""
    area: int = 1
    """Pixels of the picture that a pixel stands for."""

    def reason_for_no_map(self) -> str | None:
        """The reason to send no map: the segmenter knows too little of the picture, or is not sure
        enough. None: send one."""
        if self.probabilities is None:
            return None
        share = doubt.known(self.labels, self.probabilities, self.palette)
        if share < doubt.STREET:
            return f"the segmenter knows {share:.0%} of the picture"
        if self.voids and (sure := doubt.certainty(self.probabilities)) < doubt.CERTAIN:
            return f"the segmenter is {sure:.0%} sure of the picture"
        return None

    def halved(self) -> Prediction:
        """The prediction at half its size, rounded up: of 2×2 pixels the mean probabilities and the
        likeliest of the four ids. Without probabilities it stays as it is.

        Segmenters see no outline as fine as a pixel, so receivers paint as well from such a map,
        which takes two thirds of the bits (docs/experiments/maps.md).
        """
        if self.probabilities is None:
            return self
        named, palette = _quarters(self.labels), PALETTES[self.palette]
        are_thin, are_small = thin(palette), small(palette)
        found = np.empty((len(self.probabilities), *named.shape[1:]), np.uint8)
        for number, plane in enumerate(self.probabilities):  # one by one: all take much memory
            four = _quarters(plane)
            pooled = four.sum(0, dtype=np.uint16) + 2 >> 2
            # The mean loses what is small or thin; the largest probability invents people.
            if number in are_thin:
                pooled = four.max(0)
            elif number in are_small:
                pooled = (pooled + four.max(0)) // 2
            found[number] = pooled
        odds = np.take_along_axis(found, np.minimum(named, len(found) - 1), 0)
        odds[named >= len(found)] = 0
        labels = np.take_along_axis(named, odds.argmax(0)[None], 0)[0]
        return self._replace(labels=labels, probabilities=found, area=4 * self.area)

    def map_to_send(self, quality: int, importance: Mapping[str, float] | None = None) -> LabelMap:
        """The map that is sent, uint8 (H, W); arguments as in `simplify`."""
        found = simplify.simplify(
            self.labels,
            quality,
            palette=self.palette,
            importance=importance,
            probabilities=self.probabilities,
            area=self.area,
        )
        if self.probabilities is None or not self.voids:
            return found
        # After simplification has merged regions: ragged void costs more than it saves.
        return doubt.void_where_unsure(found, self.probabilities, self.palette)

    def map_for_still(
        self,
        quality: LabelQuality,
        importance: Mapping[str, float] | None = None,
        ignore_label: int | None = None,
    ) -> LabelMap | None:
        """The map of least risk for a single picture; None if it is not worth its bits.

        ignore_label: an id that becomes void.
        """
        palette = PALETTES[self.palette]
        labels = palette.settle(self.labels, ignore_label)
        if quality == LOSSLESS:
            return labels
        if self.probabilities is None:
            return self._replace(labels=labels).map_to_send(quality, importance)
        labels = decide(self.labels, self.probabilities, palette)
        found = self._replace(labels=labels).map_to_send(quality, importance)
        found = palette.settle(found, ignore_label)  # last: least risk finds it again
        return found if self.is_informative(found) else None

    def is_informative(self, sent: LabelMap) -> bool:
        """Whether the map that would be sent, uint8 (H, W), is worth its bits."""
        return not self.voids or doubt.is_informative(sent, self.palette)


def _quarters(array: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The four pixels of each 2×2: (H, W) → (4, H / 2, W / 2), rounded up; the last row and column
    are repeated."""
    height, width = array.shape
    even = padded(array, height + height % 2, width + width % 2)
    return np.stack([even[y::2, x::2] for y in (0, 1) for x in (0, 1)])


def predict(
    segmenter: Segmenter, pixels: Image, ignore_label: int | None = None, *, probable: bool = True
) -> Prediction:
    """Runs a segmenter on a picture, uint8 (H, W, 3); an `ignore_label` outside the palette
    becomes void.

    probable: ask for probabilities, which takes time.

    Raises ModelError if the output is no label map of the segmenter's palette, or its
    probabilities are malformed.
    """
    image = pixels.copy()  # a segmenter may work in place; `pixels` are coded as well
    output = segmenter.predict(image) if probable else (segmenter(image), None)
    palette = segmenter.palette
    found = codec.check_prediction("segmenter", output, pixels, palette, ignore_label)
    return Prediction(*found, palette, segmenter.voids)
