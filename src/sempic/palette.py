"""What the ids of a label map mean. FORMAT.md §4.

A palette is named in the stream by its id; its colours serve for display only.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sempic.checks import whole
from sempic.errors import InputError, LabelMapError
from sempic.scene import Image, LabelMap

Colour = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Palette:
    """Classes of a label map, in the order of their ids."""

    id: int
    """The number in the stream, 0…14."""
    name: str
    classes: tuple[str, ...]
    colours: tuple[Colour, ...]
    """sRGB, 0…255, one for each class."""
    void: int | None
    """Id of what belongs to no class, if the palette has one."""
    last: int | None = None
    """What files mean by 255, where that is no id of the palette: mostly void."""

    def table(self) -> npt.NDArray[np.uint8]:
        """The colours as uint8 (len(classes), 3)."""
        return np.array(self.colours, np.uint8)

    def paint(self, labels: LabelMap) -> Image:
        """The label map in its colours, uint8 (H, W, 3); ids must be in the palette."""
        painted: Image = self.table()[labels]
        return painted

    def unpaint(self, picture: Image) -> LabelMap:
        """The label map that a picture, uint8 (H, W, 3), shows in these colours; of two ids of one
        colour the lower. Raises LabelMapError naming a colour that is none of them."""

        def packed(colours: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
            r, g, b = (colours[..., i].astype(np.int32) for i in range(3))
            return (r << 16) | (g << 8) | b

        known, first = np.unique(packed(self.table()), return_index=True)
        values = packed(picture)
        position = np.searchsorted(known, values).clip(max=len(known) - 1)
        strange = known[position] != values
        if strange.any():
            colour = tuple(int(v) for v in picture[strange][0])
            raise LabelMapError(f"{colour} is not a colour of {self.name}")
        ids: LabelMap = first[position].astype(np.uint8)
        return ids

    def settle(self, labels: LabelMap, ignore_label: int | None = None) -> LabelMap:
        """Ids as files have them, uint8 (H, W), as those of the palette.

        255 becomes what it stands for in such files, and `ignore_label` becomes void; other ids
        stay, whether they are of the palette or not.

        Raises InputError: an `ignore_label` that is no id, or a palette without void.
        """
        changes = {} if self.last is None else {255: self.last}
        if ignore_label is not None:
            whole("ignore_label", ignore_label, 0, 255)
            if self.void is None:
                raise InputError(
                    f"palette {self.name} has no void that {ignore_label} could become"
                )
            changes[ignore_label] = self.void
        for given, meant in changes.items():
            if (labels == given).any():
                labels = np.where(labels == given, np.uint8(meant), labels)
        return labels


def _named(
    number: int,
    name: str,
    void: int | None,
    *classes: tuple[str, Colour],
    last: int | None = None,
) -> Palette:
    return Palette(
        id=number,
        name=name,
        classes=tuple(title for title, _ in classes),
        colours=tuple(colour for _, colour in classes),
        void=void,
        last=last,
    )


def _spread(count: int) -> list[tuple[str, Colour]]:
    """`count` colours that differ well between neighbouring ids: hues a golden angle apart."""
    spread = []
    for i in range(count):
        r, g, b = colorsys.hsv_to_rgb(
            i * 0.618034 % 1, 0.45 + 0.4 * (i % 3) / 2, 1 - 0.15 * (i % 4)
        )
        spread.append((str(i), (round(255 * r), round(255 * g), round(255 * b))))
    return spread


INDICES = _named(0, "indices", None, *_spread(256))
"""Any ids, without a meaning that we know."""

CAMVID = _named(
    1,
    "camvid",
    11,
    ("sky", (128, 128, 128)),
    ("building", (128, 0, 0)),
    ("pole", (192, 192, 128)),
    ("road", (128, 64, 128)),
    ("pavement", (60, 40, 222)),
    ("tree", (128, 128, 0)),
    ("sign", (192, 128, 128)),
    ("fence", (64, 64, 128)),
    ("car", (64, 0, 128)),
    ("pedestrian", (64, 64, 0)),
    ("bicyclist", (0, 128, 192)),
    ("void", (0, 0, 0)),
    last=11,
)
"""The 11 classes of CamVid as SegNet groups and colours them, then void."""

CITYSCAPES = _named(
    2,
    "cityscapes",
    19,
    ("road", (128, 64, 128)),
    ("sidewalk", (244, 35, 232)),
    ("building", (70, 70, 70)),
    ("wall", (102, 102, 156)),
    ("fence", (190, 153, 153)),
    ("pole", (153, 153, 153)),
    ("traffic light", (250, 170, 30)),
    ("traffic sign", (220, 220, 0)),
    ("vegetation", (107, 142, 35)),
    ("terrain", (152, 251, 152)),
    ("sky", (70, 130, 180)),
    ("person", (220, 20, 60)),
    ("rider", (255, 0, 0)),
    ("car", (0, 0, 142)),
    ("truck", (0, 0, 70)),
    ("bus", (0, 60, 100)),
    ("train", (0, 80, 100)),
    ("motorcycle", (0, 0, 230)),
    ("bicycle", (119, 11, 32)),
    ("void", (0, 0, 0)),
    last=19,
)
"""The 19 trainIds of Cityscapes, then void, which files store as 255."""

CITYSCAPES_FULL = _named(
    3,
    "cityscapes-labelids",
    0,
    ("unlabeled", (0, 0, 0)),
    ("ego vehicle", (0, 0, 0)),
    ("rectification border", (0, 0, 0)),
    ("out of roi", (0, 0, 0)),
    ("static", (0, 0, 0)),
    ("dynamic", (111, 74, 0)),
    ("ground", (81, 0, 81)),
    ("road", (128, 64, 128)),
    ("sidewalk", (244, 35, 232)),
    ("parking", (250, 170, 160)),
    ("rail track", (230, 150, 140)),
    ("building", (70, 70, 70)),
    ("wall", (102, 102, 156)),
    ("fence", (190, 153, 153)),
    ("guard rail", (180, 165, 180)),
    ("bridge", (150, 100, 100)),
    ("tunnel", (150, 120, 90)),
    ("pole", (153, 153, 153)),
    ("polegroup", (153, 153, 153)),
    ("traffic light", (250, 170, 30)),
    ("traffic sign", (220, 220, 0)),
    ("vegetation", (107, 142, 35)),
    ("terrain", (152, 251, 152)),
    ("sky", (70, 130, 180)),
    ("person", (220, 20, 60)),
    ("rider", (255, 0, 0)),
    ("car", (0, 0, 142)),
    ("truck", (0, 0, 70)),
    ("bus", (0, 60, 100)),
    ("caravan", (0, 0, 90)),
    ("trailer", (0, 0, 110)),
    ("train", (0, 80, 100)),
    ("motorcycle", (0, 0, 230)),
    ("bicycle", (119, 11, 32)),
    ("license plate", (0, 0, 142)),
    last=34,
)
"""The labelIds of Cityscapes, 0…33, and its id -1 (license plate, 255 in files) as 34."""

PALETTES = {p.id: p for p in (INDICES, CAMVID, CITYSCAPES, CITYSCAPES_FULL)}
"""Every palette that the format names, by id."""

BY_NAME = {p.name: p for p in PALETTES.values()}
"""Every palette that the format names, by name."""

_AS_CAMVID = {
    "road": "road",
    "parking": "road",
    "sidewalk": "pavement",
    "building": "building",
    "bridge": "building",
    "tunnel": "building",
    "wall": "fence",
    "fence": "fence",
    "guard rail": "fence",
    "pole": "pole",
    "polegroup": "pole",
    "traffic light": "sign",
    "traffic sign": "sign",
    "vegetation": "tree",
    "terrain": "tree",
    "sky": "sky",
    "person": "pedestrian",
    "rider": "bicyclist",
    "bicycle": "bicyclist",
    "motorcycle": "bicyclist",
    "car": "car",
    "truck": "car",
    "bus": "car",
    "train": "car",
    "caravan": "car",
    "trailer": "car",
}
"""The nearest of CamVid's classes for each of Cityscapes'."""

_AS_CITYSCAPES = {
    "pavement": "sidewalk",
    "tree": "vegetation",
    "sign": "traffic sign",
    "pedestrian": "person",
    "bicyclist": "rider",
    "parking": "road",
    "bridge": "building",
    "tunnel": "building",
    "guard rail": "fence",
    "polegroup": "pole",
    "caravan": "car",
    "trailer": "truck",
    "license plate": "car",
}
"""The most usual of Cityscapes' 19 classes for names that it does not have."""

_TRANSLATIONS = {CAMVID.id: _AS_CAMVID, CITYSCAPES.id: _AS_CITYSCAPES}


def translate(labels: LabelMap, source: int, target: int, *, near: bool = True) -> LabelMap:
    """Ids of one palette, uint8 (H, W), as those of another; void where there is no such class.

    Classes keep their names, or take the nearest one of the target, which is CamVid or Cityscapes'
    19 classes, if `near`; else they become void, as what Cityscapes does not evaluate does in its
    trainIds. The ids of a palette without a meaning become void.
    """
    if source == target:
        return labels
    names, others = PALETTES[target].classes, _TRANSLATIONS[target]
    table = np.full(256, PALETTES[target].void, np.uint8)
    if source != INDICES.id:
        for number, name in enumerate(PALETTES[source].classes):
            alike = name if name in names else others.get(name) if near else None
            if alike is not None:
                table[number] = names.index(alike)
    known: LabelMap = table[labels]
    return known


def to_camvid(labels: LabelMap, palette: int) -> LabelMap:
    """`translate` to CamVid's classes."""
    return translate(labels, palette, CAMVID.id)
