"""Classes of a training: which are rare, how important they are, and which of them a label of
another palette may mean.

A **known map**, uint8 (H, W), joins labels from several origins. A pixel is an id of the taxonomy,
or GROUP + g if it may be any class of `groups[g]`, or UNKNOWN.
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
"""Classes of few pixels: many crops are centred on them."""
_CRITICAL = ("traffic light", "traffic sign", "person", "rider", "motorcycle", "bicycle")
_LARGE = ("car", "truck", "bus", "train", "pole")
_IMPORTANCE = dict.fromkeys((*_CRITICAL, "sign", "pedestrian", "bicyclist"), 1.5)
_IMPORTANCE |= dict.fromkeys(_LARGE, 1.125)
UNLABELLED = {"labelmefacade": (*_CRITICAL, "pole", "fence", "wall", "terrain")}
"""Unlabelled classes of datasets, by folder name: any label there may hide them."""


@dataclass(frozen=True, kw_only=True)
class Taxonomy:
    """The classes that a network learns."""

    palette: Palette
    rare: frozenset[str]
    importance: dict[str, float]
    """Factor of the segmenter's loss at pixels of a class, default 1. A factor above 1 raises the
    receiver's losses, too (`critical`)."""

    @property
    def classes(self) -> int:
        """Number of classes; void, if the palette has it, is the next id."""
        return self.palette.known

    def ids(self, names: Iterable[str]) -> tuple[int, ...]:
        """Ids of those names that are classes here."""
        own = self.palette.classes[: self.classes]
        return tuple(own.index(name) for name in names if name in own)

    def critical(self, palette: Palette | None = None) -> npt.NDArray[np.float32]:
        """Extra weight of pixels of each id, float32 (256,): max(0, importance - 1).

        Args:
            palette: palette of the ids, default: this taxonomy's. An id that may be several classes
                has the largest of their weights.
        """
        above = [self.importance.get(n, 1.0) - 1 for n in self.palette.classes[: self.classes]]
        own = np.maximum(np.array(above, np.float32), 0)
        found, allowed = np.zeros(256, np.float32), self.of(palette or self.palette)
        found[: len(allowed)] = (allowed * own).max(1)
        return found

    def of(self, palette: Palette) -> npt.NDArray[np.bool_]:
        """bool (ids of `palette`, classes): whether an id may be a class; void may be none."""
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
        """bool (G, classes): the classes that each CamVid label may mean; none (G = 0) unless this
        taxonomy is Cityscapes'."""
        return self.of(CAMVID) if self.palette.name == CITYSCAPES.name else self.of(CAMVID)[:0]

    def known(
        self,
        human: LabelMap | None,
        palette: Palette,
        teacher: LabelMap | None = None,
        hidden: Iterable[str] = (),
    ) -> LabelMap:
        """The known map, uint8 (H, W), of a human map, a teacher's map, or both.

        Where both agree, and where there is no human label, the teacher's class counts: its classes
        are finer. Where they disagree, the human label counts.

        Args:
            human: ids of `palette`.
            teacher: ids of this taxonomy; other ids mean that the teacher is unsure.
            hidden: classes that any human label may hide.
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
            return table[human]
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
        """Ids, uint8 (H, W), of a known map: for a group, its most frequent class; for unknown
        pixels void, the id `classes`."""
        table = np.full(256, self.classes, np.uint8)
        table[: self.classes] = np.arange(self.classes)
        usual = translate(np.arange(len(CAMVID.classes), dtype=np.uint8), CAMVID.id, CITYSCAPES.id)
        for number, row in enumerate(self.groups):
            if row.any():
                table[GROUP + number] = usual[number]
        return table[known]


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
    """A taxonomy as JSON values: a bundled one's name, or the content of a custom one."""
    described = palette.described(taxonomy.palette)
    if not isinstance(described, str):
        for entry in described["classes"]:
            entry["rare"] = entry["name"] in taxonomy.rare
            entry["importance"] = taxonomy.importance.get(entry["name"], 1.0)
    return described


def from_description(what: Any) -> Taxonomy:
    """The taxonomy of a value of `describe`. Raises InputError."""
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
