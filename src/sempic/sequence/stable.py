"""Label maps that are stable in time.

Probabilities are averaged along the motion: over fewer frames where the coarse picture shows
something new, over many where nothing moved. A pixel changes its label if another one is likelier
by a margin. A region of such pixels is sent only if its gain pays for its outline. Void covers
whole regions that the segmenter is unsure of, also with a margin; pixel by pixel it would flicker.
Only senders use this module, so its floats need not be exact.
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
from sempic.simplify import class_weights

_UNIT = 64
"""Averages are in units of 1 / (255 × _UNIT)."""
_MOVED = np.array((2, 2, 2, 1, 1, 0), np.uint8)
"""The most earlier maps in the average of a pixel that moved or changed, by the hint."""
_STILL = 31
"""The same for a still pixel, of which another map tells little new."""
_FIRST = 3
"""Weight of the first map, in maps."""
_PARTS = 2
"""Stakes of classes are in units of 1 / _PARTS."""
_MARGIN = 0.1
"""Lead in probability that a label needs over the expected one."""
_REGION = 8.0
"""Gain that a region of changes needs, in certain pixels."""
_OUTLINE = 0.5
"""Further gain for each step of its outline."""
_CRITICAL = 0.3
"""Least factor of both, for changes of important classes."""
_DOUBT = 0.12
"""Margin around the threshold of void, for regions that become void or cease to be."""
_VOID = 64
"""Least pixels of a region that becomes void."""


class Stabiliser:
    """Stabilises the maps of one sequence."""

    def __init__(self, palette: int, *, thrift: float = 1.0, voids: bool = False) -> None:
        """thrift: factor of the gain that changes need. voids: whether unsure regions are sent as
        void."""
        self._palette = PALETTES[palette]
        self._void = self._palette.void if voids else None
        self._average: npt.NDArray[np.int16] | None = None
        self._counts: npt.NDArray[np.uint8] | None = None
        """Number of maps in each pixel's average."""
        self._classes: LabelMap | None = None
        """The last map without void."""
        self._price = np.maximum(1 / class_weights(self._palette), _CRITICAL) * thrift
        self._stakes = np.rint(_PARTS * stakes.worth(self._palette)).astype(np.int64)

    def settle(
        self, labels: LabelMap, probabilities: Probabilities | None, expected: Expected
    ) -> LabelMap:
        """The map to send: uint8 (H, W).

        labels: of the segmenter, uint8 (H, W).
        probabilities: of each id; None: the labels are certain.
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
        self._counts, self._classes = counts + np.uint8(1), self._worthwhile(best, gain, moved)
        return self._with_void(self._classes, self._average, hidden)

    def sent(self, labels: LabelMap) -> None:
        """Replaces the last map by the map that was sent, uint8 (H, W), with or without void."""
        if self._void is not None and self._classes is not None:
            labels = np.where(labels == self._void, self._classes, labels)
        self._classes = labels

    def move(self, expected: Expected) -> None:
        """Moves the state along, for a frame that is not segmented."""
        if self._average is None or self._classes is None or expected.places is None:
            return
        self._average = motion.move(self._average, expected.places)
        assert self._counts is not None
        self._counts = _counting(self._counts, expected)
        self._classes = motion.move(self._classes, expected.places)

    def forget(self) -> None:
        """Resets the state, before another scene."""
        self._average = self._classes = None

    @property
    def known(self) -> tuple[LabelMap, Probabilities]:
        """The last map without void, uint8 (H, W), and the averaged probabilities, uint8 (classes,
        H, W) in 1/255; only after `settle`."""
        assert self._average is not None
        assert self._classes is not None
        return self._classes, (self._average // _UNIT).astype(np.uint8)

    def _with_void(
        self, classes: LabelMap, average: npt.NDArray[np.int16], hidden: npt.NDArray[np.bool_]
    ) -> LabelMap:
        """The map with void over unsure regions, and over pixels that were void (`hidden`) unless
        their regions are clearly sure."""
        if self._void is None:
            return classes
        numbers, area, label, mean = doubt.regions_of(classes, average)
        lead = mean / (255 * _UNIT) - doubt.least(self._palette)[label]
        unsure = (lead < -_DOUBT) & (area >= _VOID)
        is_void = (hidden | unsure[numbers]) & (lead <= _DOUBT)[numbers]
        return np.where(is_void, np.uint8(self._void), classes)

    def _worthwhile(self, best: LabelMap, gain: npt.NDArray[np.int32], moved: LabelMap) -> LabelMap:
        """The expected map with the changed regions that gain enough."""
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
    """Updates the averages, and finds labels of least risk and their gains. All arrays are flat."""
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
    """Number of maps that still count in each moved average, uint8 (H, W)."""
    assert expected.places is not None
    assert expected.hint is not None
    most = np.where(expected.still, np.uint8(_STILL), _MOVED[expected.hint])
    return np.minimum(motion.move(counts, expected.places), most)


def _odds(labels: LabelMap, probabilities: Probabilities | None) -> Probabilities:
    """The probabilities, or certain ones from the labels."""
    if probabilities is not None:
        return probabilities
    ids = np.arange(int(labels.max()) + 1)[:, None, None]
    return np.where(labels == ids, 255, 0).astype(np.uint8)
