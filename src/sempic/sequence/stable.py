"""Label maps that change where the scene does, and not where a segmenter is of two minds.

Probabilities are averaged along the motion, less where the coarse picture says that something is
new, and far more where nothing moved. A pixel is given another label than the one that moved there
if it is likelier by a margin; and each region of such pixels is sent only if what it gains pays for
its outline. Void is laid over the regions of that map which the segmenter does not know, and taken
from them, by a margin too: decided pixel by pixel it would come and go. The sender's business
alone: the format does not know of it, and floats are welcome.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sempic.compiling import kernel
from sempic.labels.regions import components
from sempic.palette import PALETTES
from sempic.scene import LabelMap, Probabilities
from sempic.segment import doubt, stakes
from sempic.sequence import motion
from sempic.sequence.pack import Expected
from sempic.simplify import IMPORTANCE

_UNIT = 64
"""Probabilities in 1/255 are kept in so many parts."""
_MOVED = np.array((2, 2, 2, 1, 1, 0), np.uint8)
"""How many earlier maps of what moved, or is another than it was, count at most, by the hint."""
_STILL = 31
"""The same of what neither moved nor changed: another map of the same tells little."""
_FIRST = 3
"""How many maps the first one counts for."""
_PARTS = 2
"""What hangs on a class is counted in so many parts."""
_MARGIN = 0.1
"""By how much a label must be likelier than the one that is expected."""
_REGION = 8.0
"""What a region of changes must gain, in pixels that are certain."""
_OUTLINE = 0.5
"""The same for each step of its outline."""
_CRITICAL = 0.3
"""Of both, at least, however important the classes are that a change concerns."""
_DOUBT = 0.12
"""By how much a region must be less known than void asks for, or more, to become void, or not."""
_VOID = 64
"""Pixels of the smallest region that becomes void."""


class Stabiliser:
    """Of the maps of one sequence."""

    def __init__(self, palette: int, *, thrift: float = 1.0, voids: bool = False) -> None:
        """thrift: what changes must gain, over what they do usually. voids: void is sent for what
        the segmenter does not know."""
        self._palette = PALETTES[palette]
        self._void = self._palette.void if voids else None
        self._average: npt.NDArray[np.int16] | None = None
        self._counts: npt.NDArray[np.uint8] | None = None
        """How many maps each pixel's average is of."""
        self._classes: LabelMap | None = None
        """The last map before void was laid over it."""
        importance = [IMPORTANCE.get(name, 1.0) for name in self._palette.classes]
        self._price = np.maximum(1 / np.array(importance), _CRITICAL) * thrift
        self._stakes = np.rint(_PARTS * stakes.worth(self._palette)).astype(np.int64)

    def settle(
        self, labels: LabelMap, probabilities: Probabilities | None, expected: Expected
    ) -> LabelMap:
        """The map to send: uint8 (H, W).

        labels: what the segmenter finds, uint8 (H, W).
        probabilities: how sure it is of each id; None: altogether.
        """
        odds = _odds(labels, probabilities)
        last, self._average = self._average, np.empty(odds.shape, np.int16)
        if last is None or self._classes is None or expected.labels is None:
            np.multiply(odds, _UNIT, out=self._average, dtype=np.int16)
            if probabilities is not None:
                labels = stakes.decide(labels, probabilities, self._palette)
            self._counts, self._classes = np.full(labels.shape, _FIRST, np.uint8), labels
            return labels
        assert expected.places is not None
        assert self._counts is not None
        counts = _counting(self._counts, expected)
        moved = expected.labels
        hidden = moved == (256 if self._void is None else self._void)
        if hidden.any():
            moved = np.where(hidden, motion.move(self._classes, expected.places), moved)
        best, gain = np.empty(labels.shape, np.uint8), np.zeros(labels.shape, np.int32)
        flat = (len(odds), -1)
        _settle(
            odds.reshape(flat), last.reshape(flat), self._average.reshape(flat),
            expected.places.ravel(), moved.ravel(), counts.ravel(), self._stakes,
            round(_MARGIN * 255 * _UNIT), best.ravel(), gain.ravel(),
        )  # fmt: skip
        self._counts, self._classes = counts + np.uint8(1), self._worth(best, gain, moved)
        return self._veiled(self._classes, self._average, hidden)

    def sent(self, labels: LabelMap) -> None:
        """Tells what was sent instead, uint8 (H, W), with void or without."""
        if self._void is not None and self._classes is not None:
            labels = np.where(labels == self._void, self._classes, labels)
        self._classes = labels

    def move(self, expected: Expected) -> None:
        """A frame goes by without a map of it."""
        if self._average is None or self._classes is None or expected.places is None:
            return
        self._average = motion.move(self._average, expected.places)
        assert self._counts is not None
        self._counts = _counting(self._counts, expected)
        self._classes = motion.move(self._classes, expected.places)

    def forget(self) -> None:
        """What comes has nothing to do with what was."""
        self._average = self._classes = None

    @property
    def known(self) -> tuple[LabelMap, Probabilities]:
        """The map without void, uint8 (H, W), and the probabilities averaged so far, uint8
        (classes, H, W) in 1/255; there are some once a map was settled."""
        assert self._average is not None
        assert self._classes is not None
        return self._classes, (self._average // _UNIT).astype(np.uint8)

    def _veiled(
        self, classes: LabelMap, average: npt.NDArray[np.int16], hidden: npt.NDArray[np.bool_]
    ) -> LabelMap:
        """With void over the regions that are unknown, and where it was (`hidden`) unless they are
        clearly known."""
        if self._void is None:
            return classes
        numbers, area, label, mean = doubt.regions_of(classes, average)
        lead = mean / (255 * _UNIT) - doubt.least(self._palette)[label]
        unknown = (lead < -_DOUBT) & (area >= _VOID)
        veiled = (hidden | unknown[numbers]) & (lead <= _DOUBT)[numbers]
        return np.where(veiled, np.uint8(self._void), classes)

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


@kernel
def _settle(odds: Any, last: Any, average: Any, places: Any, moved: Any, counts: Any, stakes: Any,
            margin: Any, best: Any, gain: Any) -> None:  # fmt: skip
    """The new average, the label of least risk by it, and by how much; all flat."""
    for o in range(moved.size):
        share, from_ = 256 // (counts[o] + 1), places[o]
        most, which = -1, 0
        for v in range(odds.shape[0]):
            old = np.int64(last[v, from_])
            new = old + ((odds[v, o] * _UNIT - old) * share >> 8)
            average[v, o] = new
            if new * stakes[v] > most:
                most, which = new * stakes[v], v
        lead = most
        if moved[o] < odds.shape[0]:
            lead -= np.int64(average[moved[o], o]) * stakes[moved[o]]
        lead //= _PARTS
        if lead > margin:
            best[o], gain[o] = which, lead - margin
        else:
            best[o] = moved[o]


def _counting(counts: npt.NDArray[np.uint8], expected: Expected) -> npt.NDArray[np.uint8]:
    """How many of the maps that an average is of still count, uint8 (H, W)."""
    assert expected.places is not None
    assert expected.hint is not None
    most = np.where(expected.still, np.uint8(_STILL), _MOVED[expected.hint])
    return np.minimum(motion.move(counts, expected.places), most)


def _odds(labels: LabelMap, probabilities: Probabilities | None) -> Probabilities:
    if probabilities is not None:
        return probabilities
    ids = np.arange(int(labels.max()) + 1)[:, None, None]
    return np.where(labels == ids, 255, 0).astype(np.uint8)
