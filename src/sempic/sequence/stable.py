"""Label maps that change where the scene does, and not where a segmenter is of two minds.

Chances are averaged along the motion, less where the coarse picture says that something is new. A
pixel is given another label than the one that moved there if it is likelier by a margin; and each
region of such pixels is sent only if what it gains pays for its outline. The sender's business
alone: the format does not know of it, and floats are welcome.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sempic.compiling import compiled
from sempic.labels.regions import components
from sempic.palette import PALETTES
from sempic.scene import Chances, LabelMap
from sempic.segment.doubt import KNOWN
from sempic.sequence.pack import Expected
from sempic.simplify import IMPORTANCE

_UNIT = 64
"""Chances in 1/255 are kept in so many parts."""
_FRESH = np.array((77, 77, 85, 110, 150, 200), np.int64)
"""How much the present frame counts, of 256, by the hint."""
_MARGIN = 0.1
"""By how much a label must be likelier than the one that is expected."""
_REGION = 8.0
"""What a region of changes must gain, in pixels that are certain."""
_OUTLINE = 0.5
"""The same for each step of its outline."""
_CRITICAL = 0.3
"""Of both, at least, however important the classes are that a change concerns."""
_UNKNOWN = round(255 * KNOWN)
"""The chance of void, in 1/255, where void is sent for what a segmenter does not know."""


class Stabiliser:
    """Of the maps of one sequence."""

    def __init__(self, palette: int, *, thrift: float = 1.0, voids: bool = False) -> None:
        """thrift: what changes must gain, over what they do usually. voids: void has a chance."""
        self._palette = PALETTES[palette]
        self._thrift = thrift
        self._voids = voids
        self._average: npt.NDArray[np.int16] | None = None
        worth = [IMPORTANCE.get(name, 1.0) for name in self._palette.classes]
        self._price = np.maximum(1 / np.array(worth), _CRITICAL) * thrift

    def settle(self, labels: LabelMap, chances: Chances | None, expected: Expected) -> LabelMap:
        """The map to send: uint8 (H, W).

        labels: what the segmenter finds, uint8 (H, W). chances: how sure it is; None: altogether.
        """
        odds = self._odds(labels, chances)
        last, self._average = self._average, np.empty(odds.shape, np.int16)
        if last is None or expected.labels is None:
            np.multiply(odds, _UNIT, out=self._average, dtype=np.int16)
            return labels
        assert expected.places is not None
        assert expected.hint is not None
        best, gain = np.empty(labels.shape, np.uint8), np.zeros(labels.shape, np.int32)
        flat = (len(odds), -1)
        _settle(
            odds.reshape(flat), last.reshape(flat), self._average.reshape(flat),
            expected.places.ravel(), expected.labels.ravel(), expected.hint.ravel(), _FRESH,
            round(_MARGIN * 255 * _UNIT), best.ravel(), gain.ravel(),
        )  # fmt: skip
        return self._worth(best, gain, expected.labels)

    def move(self, expected: Expected) -> None:
        """A frame goes by without a look at it."""
        from sempic.sequence.motion import move

        if self._average is not None and expected.places is not None:
            self._average = move(self._average, expected.places)

    def forget(self) -> None:
        """What comes has nothing to do with what was."""
        self._average = None

    @property
    def chances(self) -> Chances | None:
        """What has been averaged so far, uint8 (classes, H, W) in 1/255."""
        if self._average is None:
            return None
        found: Chances = (self._average // _UNIT).astype(np.uint8)
        return found

    def _odds(self, labels: LabelMap, chances: Chances | None) -> Chances:
        if chances is None:
            return np.where(labels == np.arange(labels.max() + 1)[:, None, None], 255, 0).astype(
                np.uint8
            )
        if self._voids and self._palette.void == len(chances):
            unknown = np.full((1, *labels.shape), _UNKNOWN, np.uint8)
            return np.concatenate((chances, unknown))
        return chances

    def _worth(self, best: LabelMap, gain: npt.NDArray[np.int32], moved: LabelMap) -> LabelMap:
        """The regions of changes that gain enough; elsewhere what is expected."""
        changed = best != moved
        if not changed.any():
            return moved
        regions = components(np.where(changed, best + np.uint8(1), np.uint8(0)))
        count = int(regions.max()) + 1
        gains = np.bincount(regions.ravel(), gain.ravel(), count) / (255 * _UNIT)
        outline = np.zeros(count)
        for a, b in ((regions[:, 1:], regions[:, :-1]), (regions[1:], regions[:-1])):
            differ = a != b
            outline += np.bincount(a[differ], minlength=count)
            outline += np.bincount(b[differ], minlength=count)
        price = np.full(count, np.inf)
        np.minimum.at(price, regions[changed], self._price[best[changed]])
        np.minimum.at(price, regions[changed], self._price[moved[changed]])
        sent = gains >= price * (_REGION + _OUTLINE * outline)
        return np.where(changed & sent[regions], best, moved)


@compiled()
def _settle(odds: Any, last: Any, average: Any, places: Any, moved: Any, hint: Any, fresh: Any,
            margin: Any, best: Any, gain: Any) -> None:  # fmt: skip
    """The new average, the label that it prefers, and by how much; all flat."""
    for o in range(moved.size):
        share, from_ = fresh[hint[o]], places[o]
        most, which = -1, 0
        for v in range(odds.shape[0]):
            old = np.int64(last[v, from_])
            new = old + ((odds[v, o] * _UNIT - old) * share >> 8)
            average[v, o] = new
            if new > most:
                most, which = new, v
        lead = most - (np.int64(average[moved[o], o]) if moved[o] < odds.shape[0] else 0)
        if lead > margin:
            best[o], gain[o] = which, lead - margin
        else:
            best[o] = moved[o]
