"""The options of encoding and decoding, one field each, checked once.

The command line, the server's OpenAPI, the Pillow plugin, `sempic.batch` and the pages of the docs
are generated from the fields. `Codec.encode` and `Codec.decode` take them as keywords and document
them in full.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from sempic import checks, coarse, critical, fields, windows
from sempic.critical import BUDGET, Table
from sempic.errors import InputError
from sempic.fields import option
from sempic.palette import BY_NAME, CAMVID, PALETTES, Palette, by_id, find


@dataclass(frozen=True, slots=True)
class Quality:
    """The coarse picture of one level of `quality`."""

    factor: int
    """Width and height of the picture are divided by this."""
    qp: int
    """Of `sempic.coarse.encode`, as `bpgenc -q`: 0…51, 6 more halve the precision."""


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
"""The levels of `quality`, with chroma 4:4:4; README.md has their rates (benchmarks/rate.py)."""
UNMAPPED: Final = 3
"""Subtracted from the QP of a stream without a label map, whose coarse picture then costs about as
much as both parts of other streams (docs/experiments/coarse.md)."""
DOUBLED: Final = 1
"""Subtracted from the QP of a sharp picture with a map of half its size: for most of the bits that
the map saves (docs/experiments/maps.md)."""

DEFAULT_QUALITY: Final = 5

LOSSLESS: Final = "lossless"
LabelQuality: TypeAlias = int | Literal["lossless"]
DEFAULT_LABEL_QUALITY: Final = 3
"""Label quality of the segmenter's maps (docs/experiments/labels.md)."""


class Options:
    """Base class of options: frozen dataclasses with keyword arguments, checked when made."""

    def __post_init__(self) -> None:
        fields.check(self)

    def keywords(self) -> dict[str, Any]:
        """All options by name, as keywords for `Codec`."""
        return {name: getattr(self, name) for name in fields.of(self)}

    @classmethod
    def usual(cls, name: str) -> Any:
        """The default of an option; for None, the value that None usually stands for."""
        part = fields.of(cls)[name]
        return fields.about(part).usual if part.default is None else part.default


class SenderOptions(Options):
    """Base class of the options of encoders: of pictures and of sequences."""

    quality: int
    label_quality: LabelQuality | None

    def _check_rates(self, *targets: str) -> None:
        """Raises InputError if several of these options are given, or one beside a quality."""
        rates = [name for name in targets if getattr(self, name) is not None]
        if rates and self.quality != DEFAULT_QUALITY:
            rates.insert(0, "quality")
        if len(rates) > 1:
            raise InputError(f"{' and '.join(rates)} exclude each other")

    @property
    def found_quality(self) -> LabelQuality:
        """The label quality of the segmenter's maps."""
        return self.label_quality or DEFAULT_LABEL_QUALITY


def label_quality_option(help: str) -> Any:
    """A field for `label_quality`."""
    return option(help, None, low=1, high=5, check=_label_quality, metavar="1…5|lossless")


def _label_quality(name: str, value: Any) -> LabelQuality:
    if isinstance(value, str) and value == LOSSLESS:
        return LOSSLESS
    with contextlib.suppress(InputError):
        return checks.whole(name, value, 1, 5)
    raise InputError(f"{name} is 1…5 or {LOSSLESS}, not {checks.shown(value)}")


def _importance(name: str, value: Any) -> Mapping[str, float]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InputError(f"{name} maps names of classes to weights, not {value!r:.40}")
    return {key: checks.weight(f"the {name} of {key!r}", weight) for key, weight in value.items()}


def _classes(name: str, value: Any) -> tuple[str, ...]:
    """Names of classes; a text may hold several, separated by commas."""
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, Collection) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{name} is names of classes, not {value!r:.40}")
    names = tuple(part.strip() for text in texts for part in text.split(","))
    if not all(names):
        raise InputError(f"{name} has an empty name of a class")
    return names


def _boxes(name: str, value: Any) -> tuple[tuple[int, ...], ...]:
    """Boxes of four numbers, each also as a text X,Y,W,H."""
    return tuple(_box(name, box) for box in checks.several(name, value))


def _box(name: str, value: Any) -> tuple[int, ...]:
    try:
        split = value.split(",") if isinstance(value, str) else value
        numbers = [int(n) if isinstance(n, str) else n for n in split]
    except (TypeError, ValueError):
        numbers = []
    box = tuple(checks.whole(f"{name}: a number of a box", n) for n in numbers)
    if len(box) != 4 or min(box[2:]) < 1:
        raise InputError(
            f"{name}: a box is X,Y,W,H, whole numbers, W and H 1 or more, not {value!r:.40}"
        )
    return box


def _palette(name: str, value: Any) -> int | str:
    if isinstance(value, os.PathLike):
        value = os.fsdecode(value)
    if isinstance(value, str):
        find(value)
        return value
    return by_id(value).id


@dataclass(frozen=True, kw_only=True)
class EncodeOptions(SenderOptions):
    """The options of `Codec.encode`, which explains them. Raises InputError."""

    quality: int = option(
        "level of the coarse picture, 9 the finest",
        DEFAULT_QUALITY,
        low=min(QUALITY),
        high=max(QUALITY),
        flags=("-q",),
    )
    target_bpp: float | None = option(
        "the highest quality whose file has at most this many bits per pixel",
        None,
        above=0,
        metavar="BPP",
    )
    target_bytes: int | None = option(
        "the highest quality whose file has at most this many bytes", None, low=1, metavar="N"
    )
    palette: int | str | None = option(
        "palette of your label map (default: of a file, that which has its colours; else camvid). "
        "Without a map: camvid or cityscapes, and the segmenter's classes are mapped to it",
        None,
        check=_palette,
        metavar="PALETTE",
        console=f". Your map may have {', '.join(BY_NAME)}, or a custom palette in a JSON file",
    )
    ignore_label: int | None = option(
        "an id of the label map that is sent as void; 255 is void by itself, if the palette has a "
        "void",
        None,
        low=0,
        high=255,
        metavar="ID",
    )
    label_quality: LabelQuality | None = label_quality_option(
        "simplify the label map where that saves most bits, 1 the most; default: lossless for your "
        f"own map, {DEFAULT_LABEL_QUALITY} for the segmenter's"
    )
    importance: Mapping[str, float] | None = option(
        "weight of a pixel of a class for the label quality; default 1, inf: never removed",
        None,
        check=_importance,
        metavar="CLASS=WEIGHT,…",
        console="; repeatable",
    )
    coarse_codec: str = option("codec of the coarse picture", "bpg", choices=tuple(coarse.CODECS))
    keep: tuple[str, ...] = option(
        "send objects of these classes in windows, nearly unchanged",
        (),
        check=_classes,
        metavar="CLASS,…",
    )
    keep_boxes: tuple[tuple[int, ...], ...] = option(
        "send these parts of the picture in windows: left, top, width, height in pixels",
        (),
        check=_boxes,
        metavar="X,Y,W,H",
        flags=("--keep-box",),
        console="; repeatable",
    )
    window_qp: int = option(
        "HEVC's QP of all windows; 6 more halve their precision",
        windows.QP,
        low=0,
        high=51,
        metavar="QP",
    )
    imagine: tuple[str, ...] = option(
        "send only the coarse picture, and no window, of objects of these classes",
        (),
        check=_classes,
        metavar="CLASS,…",
    )
    check: bool = option(
        "decode the stream, send in windows what a verifier no longer finds, and add the "
        "verdict to the stream",
        False,
    )
    critical: str | Table | None = option(
        "groups of the verifier's classes, with the least size of an object, that the check looks "
        "for instead of people, two-wheelers, vehicles, signs and lights",
        None,
        check=critical.table,
        metavar="FILE",
        console="; a JSON file",
    )
    check_budget: float = option(
        "most that windows of the check may add, as a share of the stream",
        BUDGET,
        low=0,
        high=100,
        metavar="SHARE",
    )
    max_side: int | None = option(
        "scale pictures whose longer side has more pixels down to this first",
        None,
        low=1,
        metavar="PIXELS",
    )
    model: int = option(
        "number of the intended receiver; other receivers decode with a warning. 0: any",
        0,
        low=0,
        high=14,
        metavar="ID",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_rates("target_bpp", "target_bytes")
        for name in ("critical", "check_budget"):
            if not self.check and getattr(self, name) != self.usual(name):
                raise InputError(f"{name} needs check, which is off")
        windowed = self.keep or self.keep_boxes or self.check
        if not windowed and self.window_qp != self.usual("window_qp"):
            raise InputError("window_qp needs windows, by keep, keep_boxes or check")

    @property
    def targeted(self) -> bool:
        """Whether a target rate chooses the quality."""
        return self.target_bpp is not None or self.target_bytes is not None

    @property
    def table(self) -> Table | None:
        """The custom groups of a check, if there are any."""
        return None if self.critical is None else critical.table("critical", self.critical)

    @property
    def files(self) -> tuple[str, ...]:
        """The files that the options name."""
        palette = str(self.palette)
        own = (palette,) if palette.endswith(".json") else ()
        return own if self.table is None else (*own, self.table.source)

    @property
    def known_palette(self) -> Palette:
        """The palette of the user's label map."""
        if self.palette is None:
            return CAMVID
        return find(self.palette) if isinstance(self.palette, str) else PALETTES[self.palette]


@dataclass(frozen=True, kw_only=True)
class Models(Options):
    """The arguments of `Codec`; None: the bundled networks, no custom prior."""

    segmenter: str | None = option(
        "an ONNX file, or hf:NAME for a model of transformers; default: the bundled segmenter",
        None,
        metavar="SPEC",
    )
    receiver: str | None = option(
        "an ONNX file, or a checkpoint of the paper's network (.safetensors, .pt; needs the extra "
        "train); default: the bundled receiver",
        None,
        metavar="SPEC",
    )
    verifier: str | None = option(
        "an ONNX file of a segmenter, for the check of the decoded picture", None, metavar="PATH"
    )
    prior: str | None = option(
        "a prior of the label coder for maps of its palette (.npz of sempic train label-prior)",
        None,
        metavar="FILE",
    )


BUNDLED = Models()


@dataclass(frozen=True, kw_only=True)
class DecodeOptions(Options):
    """The options of `Codec.decode`, which explains them. Raises InputError."""

    steps: int | None = option(
        "sampling steps of the receiver; more are slower and follow the label map more closely",
        None,
        low=1,
        metavar="N",
        console="; default 1 for the bundled receiver (at most 100), 20 for the paper's network",
        usual=1,
    )
    seed: int = option("seed of the receiver's noise", 0, low=0, metavar="N")
    guidance: float | None = option(
        "weight of the label map: 1 as trained; 1.5 exaggerates and takes twice the time; 2 and "
        "more make noise",
        None,
        low=0,
        metavar="S",
        usual=1,
    )
    fidelity: float | None = option(
        "from 0 (default), a likely picture, sharp, to 1, the mean of all likely pictures, soft",
        None,
        low=0,
        high=1,
        usual=0,
    )
