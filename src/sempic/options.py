"""What may be asked of encoding and decoding, as values that are checked once.

Each option is a field here. The command line, the server's OpenAPI, the Pillow plugin,
`sempic.batch` and the pages of the docs are made of the fields; `Codec.encode` and `Codec.decode`
have them as keywords, with all that is to be said of them.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from sempic import checks, coarse, critical, fields
from sempic.critical import BUDGET, Table
from sempic.errors import InputError, LabelMapError
from sempic.fields import option
from sempic.palette import BY_NAME, CAMVID, PALETTES, Palette, find


@dataclass(frozen=True, slots=True)
class Quality:
    """How the coarse picture is made at one level of the dial."""

    factor: int
    """The picture is divided by this in width and height."""
    qp: int
    """Of `sempic.coarse.encode`, on the scale of `bpgenc -q`: 0…51, 6 more halve the precision."""


QUALITY = {
    1: Quality(8, 41),
    2: Quality(4, 45),
    3: Quality(4, 42),
    4: Quality(4, 39),
    5: Quality(4, 36),
    6: Quality(4, 33),
    7: Quality(4, 30),
    8: Quality(4, 27),
    9: Quality(4, 23),
}
"""The levels of `quality`; chroma is 4:4:4. README.md says what each costs (benchmarks/rate.py)."""
UNMAPPED: Final = 3
"""By how much QP is less in a stream without a map: its coarse picture then costs about what both
do elsewhere, and looks like it (docs/experiments/coarse.md)."""

DEFAULT_QUALITY: Final = 5

LOSSLESS: Final = "lossless"
LabelQuality: TypeAlias = int | Literal["lossless"]
DEFAULT_LABEL_QUALITY: Final = 3
"""Of the segmenter's maps; docs/experiments/labels.md has the curve that it was chosen on."""


class Options:
    """Base of the two: a frozen dataclass, made of keywords, checked when it is made."""

    def keywords(self) -> dict[str, Any]:
        """All of them by name, as `Codec.encode` or `Codec.decode` takes them."""
        return {name: getattr(self, name) for name in fields.of(self)}

    @classmethod
    def usual(cls, name: str) -> Any:
        """What it comes to most often if nothing is said."""
        part = fields.of(cls)[name]
        return fields.about(part).usual if part.default is None else part.default


class SenderOptions(Options):
    """Base of those that a segmenter's maps are sent with."""

    label_quality: LabelQuality | None

    @property
    def found_quality(self) -> LabelQuality:
        """The label quality of a map that the segmenter found."""
        return self.label_quality or DEFAULT_LABEL_QUALITY


def label_quality_option(help: str) -> Any:
    """A field for `label_quality`."""
    return option(help, None, low=1, high=5, check=_label_quality, metavar="1…5|lossless")


def _label_quality(name: str, value: Any) -> LabelQuality:
    return LOSSLESS if value == LOSSLESS else checks.whole(name, value, 1, 5)


def _importance(name: str, value: Any) -> Mapping[str, float]:
    if not isinstance(value, Mapping):
        raise InputError(f"{name} maps classes to weights, not {type(value).__name__}")
    return value


def _classes(name: str, value: Any) -> tuple[str, ...]:
    """Names, or texts with commas between names."""
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, (tuple, list, set, frozenset)) or not all(
        isinstance(text, str) for text in texts
    ):
        raise InputError(f"{name} is names of classes, not {value!r:.40}")
    found = tuple(part.strip() for text in texts for part in text.split(","))
    if not all(found):
        raise InputError(f"{name} has an empty name of a class")
    return found


def _boxes(name: str, value: Any) -> tuple[tuple[int, ...], ...]:
    """Boxes of four numbers, or texts of them."""
    try:
        boxes = [box.split(",") if isinstance(box, str) else box for box in value]
        found = tuple(tuple(map(operator.index, map(_number, box))) for box in boxes)
    except (TypeError, ValueError):
        found = ((),)
    if isinstance(value, str) or any(len(box) != 4 or min(box[2:]) < 1 for box in found):
        raise InputError(f"{name} is boxes X,Y,W,H of whole numbers, not {value!r:.40}")
    return found


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, str) else value


def _palette(name: str, value: Any) -> int | str:
    if isinstance(value, str):
        find(value)
        return value
    if checks.whole(name, value) not in PALETTES:
        raise LabelMapError(f"palette {value} is not one of {', '.join(map(str, PALETTES))}")
    return int(value)


@dataclass(frozen=True, kw_only=True)
class EncodeOptions(SenderOptions):
    """How a picture is coded; `Codec.encode` says more of each. Raises InputError."""

    quality: int = option(
        "of the coarse picture",
        DEFAULT_QUALITY,
        low=min(QUALITY),
        high=max(QUALITY),
        flags=("-q",),
    )
    target_bpp: float | None = option(
        "the best quality whose file has at most so many bits per pixel",
        None,
        above=0,
        metavar="BPP",
    )
    target_bytes: int | None = option(
        "the best quality whose file has at most so many bytes", None, low=1, metavar="N"
    )
    palette: int | str | None = option(
        "of the label map that is given, camvid if nothing is said; of the segmenter's, camvid or "
        "cityscapes, which its classes are then mapped to",
        None,
        check=_palette,
        metavar="PALETTE",
        console=f": {', '.join(BY_NAME)}, or a JSON file with one of your own",
    )
    ignore_label: int | None = option(
        "an id of the label map, given or found, that is sent as void; 255 is void anyway where "
        "the palette has one",
        None,
        low=0,
        high=255,
        metavar="ID",
    )
    label_quality: LabelQuality | None = label_quality_option(
        "simplify the label map where that saves most bits (1 the most); if nothing is said, "
        f"lossless for a map that is given, else {DEFAULT_LABEL_QUALITY}"
    )
    importance: Mapping[str, float] | None = option(
        "what a pixel of a class is worth to the label quality, 1 for most, inf for never changed",
        None,
        check=_importance,
        metavar="CLASS=WEIGHT",
        console="; repeatable",
    )
    coarse_codec: str = option("of the coarse picture", "bpg", choices=tuple(coarse.CODECS))
    keep: tuple[str, ...] = option(
        "send objects of these classes of the label map as they are, in windows",
        (),
        check=_classes,
        metavar="CLASS,…",
    )
    keep_boxes: tuple[tuple[int, ...], ...] = option(
        "send these parts of the picture as they are: left, top, width, height in pixels",
        (),
        check=_boxes,
        metavar="X,Y,W,H",
        flags=("--keep-box",),
        console="; repeatable",
    )
    imagine: tuple[str, ...] = option(
        "send nothing finer than the coarse picture of what a network takes for these classes",
        (),
        check=_classes,
        metavar="CLASS,…",
    )
    check: bool = option(
        "decode the stream, send what a verifier no longer finds as it is, and put its verdict "
        "into the stream",
        False,
    )
    critical: str | Table | None = option(
        "what the check looks for instead of people, two-wheelers, vehicles, signs and lights: "
        "classes of the verifier in groups, with the least size of an object",
        None,
        check=critical.table,
        metavar="FILE",
        console="; a JSON file",
    )
    check_budget: float = option(
        "what the check may add, as a share of the stream",
        BUDGET,
        low=0,
        high=100,
        metavar="SHARE",
    )
    max_side: int | None = option(
        "scale larger pictures down to this first", None, low=1, metavar="PIXELS"
    )
    model: int = option(
        "number of the receiver that the picture is meant for; another one decodes it, too, and "
        "says so. 0: any",
        0,
        low=0,
        high=14,
        metavar="ID",
    )

    def __post_init__(self) -> None:
        fields.check(self)
        if self.target_bpp is not None and self.target_bytes is not None:
            raise InputError("target_bpp and target_bytes exclude each other")
        if self.critical is not None and not self.check:
            raise InputError("critical says what a check looks for, and no check is asked for")

    @property
    def targeted(self) -> bool:
        """Whether the quality follows from a size."""
        return self.target_bpp is not None or self.target_bytes is not None

    @property
    def table(self) -> Table | None:
        """What a check looks for, if that is said."""
        return None if self.critical is None else critical.table("critical", self.critical)

    @property
    def files(self) -> tuple[str, ...]:
        """What is read for them."""
        palette = str(self.palette)
        own = (palette,) if palette.endswith(".json") else ()
        return own if self.table is None else (*own, self.table.source)

    @property
    def known_palette(self) -> Palette:
        """The palette of a map that is given."""
        if self.palette is None:
            return CAMVID
        return find(self.palette) if isinstance(self.palette, str) else PALETTES[self.palette]


@dataclass(frozen=True, kw_only=True)
class Models(Options):
    """What codes, as `Codec` takes it; None: the bundled ones, and no prior of one's own."""

    segmenter: str | None = option(
        "an ONNX file, or hf:NAME for a model of transformers; default: the bundled one",
        None,
        metavar="SPEC",
    )
    receiver: str | None = option(
        "an ONNX file, or a checkpoint of the paper's network (.safetensors, .pt; needs the extra "
        "train); default: the bundled receiver",
        None,
        metavar="SPEC",
    )
    verifier: str | None = option("an ONNX file of a segmenter, for --check", None, metavar="PATH")
    prior: str | None = option(
        "a prior of the label coder for maps of its palette, one's own (sempic train label-prior, "
        ".npz)",
        None,
        metavar="FILE",
    )


BUNDLED = Models()


@dataclass(frozen=True, kw_only=True)
class DecodeOptions(Options):
    """What a receiver is asked for; `Codec.decode` says more of each. Raises InputError."""

    steps: int | None = option(
        "of the receiver, more is slower and the map counts more",
        None,
        low=1,
        metavar="N",
        console="; the bundled one takes 1 by default and 100 at most, the paper's 20",
        usual=1,
    )
    seed: int = option("of the noise that detail is made from", 0, low=0, metavar="N")
    guidance: float | None = option(
        "how much the label map counts: 1 as trained, 1.5 stresses it at twice the time, 2 and "
        "more make noise",
        None,
        low=0,
        metavar="S",
        usual=1,
    )
    fidelity: float | None = option(
        "0, the default: a likely picture, sharp; 1: the mean of all likely ones, soft",
        None,
        low=0,
        high=1,
        usual=0,
    )

    def __post_init__(self) -> None:
        fields.check(self)
