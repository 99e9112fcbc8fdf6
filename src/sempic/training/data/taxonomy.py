"""What classes mean to a training, by name: rare, important, hidden in others, parts of others.

A **known map** says what is known of each pixel, uint8: an id of the taxonomy; GROUP + g where any
class of its `groups[g]` may be right; UNKNOWN where nothing is known.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sempic import checks, palette
from sempic.errors import InputError
from sempic.palette import CAMVID, CITYSCAPES, Palette, alike, translate
from sempic.scene import LabelMap

GROUP = 128
UNKNOWN = 255

_RARE = {
    "pole", "sign", "fence", "pedestrian", "bicyclist", "traffic light", "traffic sign", "person",
    "rider", "truck", "bus", "train", "motorcycle", "bicycle",
}  # fmt: skip
"""Few pixels, much meaning: crops are made around them."""
_CRITICAL = ("traffic light", "traffic sign", "person", "rider", "motorcycle", "bicycle")
_LARGE = ("car", "truck", "bus", "train", "pole")
_IMPORTANCE = dict.fromkeys((*_CRITICAL, "sign", "pedestrian", "bicyclist"), 1.5)
_IMPORTANCE |= dict.fromkeys(_LARGE, 1.125)
UNLABELLED = {"labelmefacade": (*_CRITICAL, "pole", "fence", "wall", "terrain")}
"""Classes that nobody labelled in a set of pictures, by its folder's name: there they may hide
behind any label."""


@dataclass(frozen=True, kw_only=True)
class Taxonomy:
    """The classes that a network learns: a palette, and what its classes are worth."""

    palette: Palette
    rare: frozenset[str]
    importance: dict[str, float]
    """Factor of the segmenter's loss at pixels of a class, 1 unless said. What is above 1 counts
    more in the receiver's, too (`critical`)."""

    @property
    def classes(self) -> int:
        """How many there are; void, if the palette has one, is the id after the last."""
        return self.palette.known

    def ids(self, names: Iterable[str]) -> tuple[int, ...]:
        """Ids of the names that are classes here."""
        here = self.palette.classes[: self.classes]
        return tuple(here.index(name) for name in names if name in here)

    def critical(self, palette: Palette | None = None) -> npt.NDArray[np.float32]:
        """How much pixels of each id count above the rest, (256,): importance - 1, at least 0.

        Args:
            palette: of the ids, default: this taxonomy's. An id that may be several classes has
                the largest of theirs.
        """
        above = [self.importance.get(n, 1.0) - 1 for n in self.palette.classes[: self.classes]]
        own = np.maximum(np.array(above, np.float32), 0)
        found = np.zeros(256, np.float32)
        if palette is None:
            found[: self.classes] = own
        else:
            allowed = self.of(palette)
            found[: len(allowed)] = (allowed * own).max(1)
        return found

    def of(self, palette: Palette) -> npt.NDArray[np.bool_]:
        """Which classes (columns) an id of a palette (rows) may be; void may be none."""
        roads = {palette.name, self.palette.name} == {CAMVID.name, CITYSCAPES.name}

        def common(name: str) -> str | None:
            return alike(name, CAMVID) if roads else name

        mine = [common(name) for name in self.palette.classes[: self.classes]]
        allowed = np.array([[common(name) == own for own in mine] for name in palette.classes])
        if palette.void is not None:
            allowed[palette.void] = False
        return allowed

    @cached_property
    def groups(self) -> npt.NDArray[np.bool_]:
        """bool (G, classes): sets of classes that a human label may stand for."""
        return self.of(CAMVID) if self.palette.name == CITYSCAPES.name else self.of(CAMVID)[:0]

    def known(
        self,
        human: LabelMap | None,
        palette: Palette,
        teacher: LabelMap | None = None,
        hidden: Iterable[str] = (),
    ) -> LabelMap:
        """The known map, uint8 (H, W), of a human map, a teacher's, or both.

        Where the two agree the teacher's class is known, since it is the finer; where they do not,
        what the human label allows. Where there is no human label the teacher is believed.

        Args:
            human: ids of `palette`.
            teacher: ids of this taxonomy; others where the teacher was not sure.
            hidden: classes that a human label may hide.
        """
        allowed = self.of(palette)
        table = np.full(256, UNKNOWN, np.uint8)
        for number, row in enumerate(allowed):
            if row.sum() == 1:
                table[number] = row.argmax()
            elif row.any():
                table[number] = GROUP + (self.groups == row).all(1).argmax()
        if teacher is None:
            assert human is not None
            coarse: LabelMap = table[human]
            return coarse
        sure = np.where(teacher < self.classes, teacher, UNKNOWN).astype(np.uint8)
        if human is None:
            return sure
        fits = np.zeros((256, 256), bool)
        fits[: len(allowed), : self.classes] = allowed
        fits[:, list(self.ids(hidden))] = True
        labelled = table != UNKNOWN
        contradicted = labelled[human] & ~fits[human, sure]
        return np.where(contradicted, table[human], sure)

    def settle(self, known: LabelMap) -> LabelMap:
        """One id for each pixel of a known map: for a group, the class that is meant most often;
        void, `classes`, for the unknown."""
        table = np.full(256, self.classes, np.uint8)
        table[: self.classes] = np.arange(self.classes)
        usual = translate(np.arange(len(CAMVID.classes), dtype=np.uint8), CAMVID.id, CITYSCAPES.id)
        for number, row in enumerate(self.groups):
            if row.any():
                table[GROUP + number] = usual[number]
        settled: LabelMap = table[known]
        return settled


def _bundled(known: Palette) -> Taxonomy:
    names = frozenset(known.classes)
    return Taxonomy(
        palette=known,
        rare=names & _RARE,
        importance={k: v for k, v in _IMPORTANCE.items() if k in names},
    )


BUNDLED = {known.name: _bundled(known) for known in (CITYSCAPES, CAMVID)}


def load(spec: str) -> Taxonomy:
    """The taxonomy of one of our palettes, by name, or of a JSON file (docs/guides/train.md).

    Raises InputError.
    """
    if spec in BUNDLED:
        return BUNDLED[spec]
    if not spec.endswith(".json"):
        raise InputError(f"classes {spec!r} are none of {', '.join(BUNDLED)}, and no JSON file")
    return palette.understood(Path(spec), from_description)


def describe(taxonomy: Taxonomy) -> Any:
    """What JSON says of a taxonomy: a name, or all of one's own."""
    described = palette.described(taxonomy.palette)
    if not isinstance(described, str):
        for entry in described["classes"]:
            entry["rare"] = entry["name"] in taxonomy.rare
            entry["importance"] = taxonomy.importance.get(entry["name"], 1.0)
    return described


def from_description(what: Any) -> Taxonomy:
    """The taxonomy that `describe` described. Raises InputError."""
    if isinstance(what, str):
        return load(what)
    own = palette.from_description(what)
    rare, importance = set(), {}
    for entry in what["classes"]:
        name = entry["name"]
        if checks.switch(f"{name}: rare", entry.get("rare", False)):
            rare.add(name)
        importance[name] = checks.number(f"{name}: importance", entry.get("importance", 1.0))
        if importance[name] <= 0:
            raise InputError(f"{name}: importance must be above 0")
    return Taxonomy(palette=own, rare=frozenset(rare), importance=importance)
