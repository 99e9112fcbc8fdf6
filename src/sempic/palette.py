"""Palettes: the classes behind the ids of label maps (docs/spec/format.md §4), built in or custom.

Streams name a palette by its id. Colours are for display only.
"""

from __future__ import annotations

import colorsys
import hashlib
import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from sempic import processes
from sempic.checks import one_of, whole
from sempic.errors import JSON_FAULTS, InputError, LabelMapError, naming, refused
from sempic.scene import Image, LabelMap

Colour = tuple[int, int, int]
OWN = 256
"""First id of custom palettes, whose ids are valid in this process only."""
_Result = TypeVar("_Result")
IDENTITY = re.compile(r"[\w-]{1,32}#[0-9a-f]{8}")
_NAME = re.compile(r"[\w-]{1,32}")
_lock = processes.ForkSafeLock()
_KEYS = ("name", "colour", "rare", "importance")
"""Keys of a class in a palette file."""
MOST = 126
"""Most classes of a custom palette, without void."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Palette:
    """Classes of a label map, in the order of their ids."""

    id: int
    """The id in the stream, 0…14; OWN or more for a custom palette."""
    name: str
    classes: tuple[str, ...]
    colours: tuple[Colour, ...]
    """sRGB, 0…255, one for each class."""
    void: int | None
    """Id of pixels without a class; None: no such id."""
    last: int | None = None
    """The id that 255 stands for in files (usually void); None: 255 is unused or itself an id."""

    @property
    def identity(self) -> str | None:
        """NAME#DIGEST of a custom palette, as in streams; the digest is of the classes in their
        order. None for built-in palettes."""
        if self.id < OWN:
            return None
        digest = hashlib.sha256("\n".join(self.classes).encode()).hexdigest()
        return f"{self.name}#{digest[:8]}"

    @property
    def full_name(self) -> str:
        """A unique name: the identity of a custom palette, the name of a built-in palette."""
        return self.identity or self.name

    @property
    def known(self) -> int:
        """Number of classes without void."""
        return len(self.classes) - (self.void is not None)

    def unlike(self, classes: int, other: Palette | None) -> str | None:
        """The difference between a network's classes and these, such as "19 classes, not 11".

        None: there is no difference.

        Args:
            classes: their number, without void.
            other: their palette; None: they have no names.
        """
        if classes != self.known:
            return f"{classes} classes, not {self.known}"
        if other is not None and other.classes != self.classes:
            return f"the classes of {other.name}, not of {self.name}"
        return None

    def table(self) -> npt.NDArray[np.uint8]:
        """The colours as uint8 (len(classes), 3)."""
        return np.array(self.colours, np.uint8)

    def paint(self, labels: LabelMap) -> Image:
        """The label map in its colours, uint8 (H, W, 3); raises LabelMapError for unknown ids."""
        try:
            painted: Image = self.table()[labels]
        except IndexError:
            last = len(self.colours) - 1
            raise LabelMapError(f"ids of palette {self.name} are 0…{last}, not these") from None
        return painted

    def unpaint(self, picture: Image) -> LabelMap:
        """The label map of a picture in these colours, uint8 (H, W, 3). Ids that share a
        colour become the lowest of them. Raises LabelMapError naming an unknown colour."""

        def packed(colours: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
            r, g, b = (colours[..., i].astype(np.int32) for i in range(3))
            return (r << 16) | (g << 8) | b

        known, first = np.unique(packed(self.table()), return_index=True)
        values = packed(picture)
        position = np.searchsorted(known, values).clip(max=len(known) - 1)
        unknown = known[position] != values
        if unknown.any():
            colour = tuple(int(v) for v in picture[unknown][0])
            raise LabelMapError(f"{colour} is not a colour of {self.name}")
        ids: LabelMap = first[position].astype(np.uint8)
        return ids

    def unknown(self, number: int | None) -> int | None:
        """A number that is no id of the palette; None for an id or None."""
        return None if number is None or number < len(self.classes) else number

    def settle(self, labels: LabelMap, ignore_label: int | None = None) -> LabelMap:
        """The ids of a file, uint8 (H, W), as ids of the palette: 255 becomes `last`,
        `ignore_label` becomes void, and other ids stay, known or not.

        Raises InputError: an `ignore_label` outside 0…255, or a palette without void.
        """
        changes = {} if self.last is None else {255: self.last}
        if ignore_label is not None:
            whole("ignore_label", ignore_label, 0, 255)
            if self.void is None:
                raise InputError(
                    f"palette {self.name} has no void that {ignore_label} could become"
                )
            changes[ignore_label] = self.void
        for old, new in changes.items():
            if (labels == old).any():
                labels = np.where(labels == old, np.uint8(new), labels)
        return labels


def _palette(
    number: int,
    name: str,
    void: int | None,
    *classes: tuple[str, Colour],
    last: int | None = None,
) -> Palette:
    """last: default: void."""
    return Palette(
        id=number,
        name=name,
        classes=tuple(title for title, _ in classes),
        colours=tuple(colour for _, colour in classes),
        void=void,
        last=void if last is None else last,
    )


def _spread(count: int) -> list[tuple[str, Colour]]:
    """Classes with numbers for names and distinct colours: hues a golden angle apart."""
    spread = []
    for i in range(count):
        r, g, b = colorsys.hsv_to_rgb(
            i * 0.618034 % 1, 0.45 + 0.4 * (i % 3) / 2, 1 - 0.15 * (i % 4)
        )
        spread.append((str(i), (round(255 * r), round(255 * g), round(255 * b))))
    return spread


INDICES = _palette(0, "indices", None, *_spread(256))
"""256 ids without known meaning."""

CAMVID = _palette(
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
)
"""The 11 classes of CamVid with SegNet's groups and colours, then void."""

CITYSCAPES_FULL = _palette(
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

_EVALUATED = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
    "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle",
    "bicycle",
)  # fmt: skip
_COLOURS = dict(zip(CITYSCAPES_FULL.classes, CITYSCAPES_FULL.colours, strict=True))
CITYSCAPES = _palette(
    2,
    "cityscapes",
    19,
    *((name, _COLOURS[name]) for name in _EVALUATED),
    ("void", (0, 0, 0)),
)
"""The 19 trainIds of Cityscapes, then void, which files store as 255."""

PALETTES = {p.id: p for p in (INDICES, CAMVID, CITYSCAPES, CITYSCAPES_FULL)}
"""All known palettes by id."""

BY_NAME = {p.name: p for p in PALETTES.values()}
"""All known palettes by name."""

_AS_CAMVID = {
    name: nearest
    for nearest, names in {
        "road": ("road", "parking"),
        "pavement": ("sidewalk",),
        "building": ("building", "bridge", "tunnel"),
        "fence": ("wall", "fence", "guard rail"),
        "pole": ("pole", "polegroup"),
        "sign": ("traffic light", "traffic sign"),
        "tree": ("vegetation", "terrain"),
        "sky": ("sky",),
        "pedestrian": ("person",),
        "bicyclist": ("rider", "bicycle", "motorcycle"),
        "car": ("car", "truck", "bus", "train", "caravan", "trailer"),
    }.items()
    for name in names
}
"""Class of Cityscapes → nearest class of CamVid."""

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
"""Other class → nearest of the 19 classes of Cityscapes."""

_TRANSLATIONS = {CAMVID.id: _AS_CAMVID, CITYSCAPES.id: _AS_CITYSCAPES}


def built_in(known: int) -> Palette | None:
    """CamVid's or Cityscapes' palette, whichever has this many classes without void, or None."""
    return next((p for p in (CAMVID, CITYSCAPES) if p.known == known), None)


def alike(name: str, palette: Palette) -> str | None:
    """The class of a palette with this name, or the nearest class; None: no such class."""
    if name in palette.classes:
        return name
    nearest = _TRANSLATIONS.get(palette.id, {}).get(name)
    return nearest if nearest in palette.classes else None


def spelt(name: str, palette: Palette) -> str | None:
    """A class that `alike` knows, from a user's name of it: in any case, with _ or - for spaces.
    None: no such class, or several."""
    known = _known_names(palette)
    found = [name] if name in known else [n for n in known if folded(n) == folded(name)]
    return found[0] if len(found) == 1 else None


def folded(name: str) -> str:
    """The name of a class in lower case, with spaces for _ and -, and none around commas."""
    spaced = " ".join(re.split(r"[\s_-]+", name.strip()))
    return re.sub(" ?, ?", ",", spaced).casefold()


def numbers(classes: Collection[str], palette: Palette) -> list[int]:
    """The ids of the classes that a user names (`spelt`). Raises InputError, with the nearest names
    for an unknown one."""
    found = []
    for name in classes:
        known = spelt(name, palette)
        if known is None:
            import difflib

            listed = palette.classes
            names = {folded(n): n for n in _known_names(palette)}
            near = [names[n] for n in difflib.get_close_matches(folded(name), names, cutoff=0.7)]
            if palette is INDICES:  # no number is meant by another
                listed, near = ("0", "…", "255"), []
            raise InputError(
                f"class {name!r} is not one of palette {palette.name}: {', '.join(listed)}"
                + (f"; did you mean {' or '.join(near)}?" if near else "")
            )
        found.append(palette.classes.index(alike(known, palette)))
    return found


def rejoined(parts: Collection[str], palette: Palette) -> list[str]:
    """The classes of a list that was split at commas: names of the palette with commas in them are
    put together again."""
    rest, names = list(parts), []
    most = 1 + max(name.count(",") for name in palette.classes)
    while rest:
        counts = range(min(most, len(rest)), 1, -1)
        count = next((n for n in counts if spelt(", ".join(rest[:n]), palette)), 1)
        names.append(", ".join(rest[:count]))
        del rest[:count]
    return names


def _known_names(palette: Palette) -> list[str]:
    """The names that `alike` knows, each once."""
    return [*dict.fromkeys((*palette.classes, *_TRANSLATIONS.get(palette.id, ())))]


def translate(labels: LabelMap, source: int, target: int, *, near: bool = True) -> LabelMap:
    """Ids of one palette, uint8 (H, W), as ids of another: CamVid or the 19 classes of Cityscapes.

    A class becomes the class of the same name; otherwise the nearest class if `near`, else void.
    All ids of INDICES become void.
    """
    if source == target:
        return labels
    palette = PALETTES[target]
    table = np.full(256, palette.void, np.uint8)
    if source != INDICES.id:
        for number, name in enumerate(PALETTES[source].classes):
            match = alike(name, palette) if near or name in palette.classes else None
            if match is not None:
                table[number] = palette.classes.index(match)
    return table[labels]


# ── custom palettes ──────────────────────────────────────────────────────────────────────────


def own(name: str, classes: list[tuple[str, Colour]]) -> Palette:
    """Register a custom palette in this process; void is the id after the last class.

    Raises InputError: a malformed or used name, no or too many classes, or a class whose name is
    void, occurs twice, or is not a line of text.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(f"palette name {name!r} is not 1 to 32 letters, digits, _ or -")
    if not 1 <= len(classes) <= MOST:
        raise InputError(f"palette {name} has {len(classes)} classes, not 1 to {MOST}")
    titles = [title for title, _ in classes]
    for title in titles:
        if not isinstance(title, str) or not title.strip() or not title.isprintable():
            raise InputError(f"palette {name}: class {title!r} is not a line of text")
        if title == "void" or titles.count(title) > 1:
            raise InputError(f"palette {name}: class {title!r} is void, or occurs twice")
    with _lock():  # of several threads, each takes a number of its own
        known = BY_NAME.get(name)
        number = max(OWN, max(PALETTES) + 1) if known is None else known.id
        palette = _palette(number, name, len(classes), *classes, ("void", (0, 0, 0)))
        if known is not None and (known.id < OWN or known.identity != palette.identity):
            raise InputError(f"there is another palette called {name}: choose another name")
        PALETTES[number] = BY_NAME[name] = palette
    return palette


def by_identity(identity: str | None, default: int) -> int:
    """The id of the custom palette of this identity in this process; `default` if there is none."""
    if not identity:
        return default
    known = tuple(PALETTES.values())  # another thread may register a palette meanwhile
    return next((p.id for p in known if p.identity == identity), default)


def shown_name(number: int, identity: str | None) -> str:
    """The name of a palette for display: from the identity of a custom palette, else by id."""
    return identity.split("#")[0] if identity else PALETTES[number].name


def described(palette: Palette) -> Any:
    """A palette for JSON: the name of a built-in palette, all of a custom palette."""
    if palette.id < OWN:
        return palette.name
    classes = zip(palette.classes[:-1], palette.colours[:-1], strict=True)
    return {
        "name": palette.name,
        "classes": [{"name": title, "colour": list(colour)} for title, colour in classes],
    }


def from_description(what: Any) -> Palette:
    """The palette of JSON as from `described`; registers a custom palette in this process.

    Missing colours are spread over the hues. Raises InputError.
    """
    if isinstance(what, str):
        return named(what)
    expected = "not a palette, which has a name and classes with names"
    with refused(InputError, expected, KeyError, TypeError, ValueError, AttributeError, unfit=True):
        for key in what:  # "void", say, which is no class, but any other id
            one_of("its key", key, ("name", "classes"))
        listed = list(what["classes"])
        classes: list[tuple[str, Colour]] = []
        for entry, (_, default) in zip(listed, _spread(len(listed)), strict=True):
            if not isinstance(entry, dict):  # a bare name, say
                raise InputError(f'a class is an object with a "name", not {entry!r:.40}')
            title, colour = entry["name"], entry.get("colour", default)
            for key in entry:  # a misspelt `color` is an error
                one_of(f"{title}:", key, _KEYS)
            if not isinstance(colour, (list, tuple)) or len(colour) != 3:
                raise InputError(f"{title}: a colour has three values of 0…255")
            r, g, b = (whole(f"{title}: a value of its colour", v, 0, 255) for v in colour)
            classes.append((title, (r, g, b)))
        return own(what["name"], classes)


def find(name: str) -> Palette:
    """A palette by its name, or a custom palette by its `.json` file (docs/guides/train.md). Raises
    InputError."""
    return understood(Path(name), from_description) if name.endswith(".json") else named(name)


def by_id(number: Any) -> Palette:
    """A palette that this process knows, by its id. Raises LabelMapError, or InputError for another
    type."""
    if whole("palette", number) not in PALETTES:
        raise LabelMapError(f"palette {number} is not one of {', '.join(map(str, PALETTES))}")
    return PALETTES[number]


def named(name: str) -> Palette:
    """A palette that this process knows, by its name. Raises InputError."""
    if name not in BY_NAME:
        raise InputError(f"palette {name!r} is not one of {', '.join(BY_NAME)}")
    return BY_NAME[name]


def understood(path: Path, parse: Callable[[Any], _Result]) -> _Result:
    """`parse` of the JSON of a palette file. Raises InputError naming the file."""
    with naming(path):
        with refused(InputError, "not a palette file", *JSON_FAULTS, unfit=True):
            content = json.loads(path.read_text("utf-8-sig"))
        return parse(content)
