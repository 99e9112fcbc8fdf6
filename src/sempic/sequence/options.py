"""Options of sequence encoding."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from sempic.errors import InputError
from sempic.fields import option
from sempic.options import (
    DEFAULT_LABEL_QUALITY,
    DEFAULT_QUALITY,
    QUALITY,
    LabelQuality,
    SenderOptions,
    label_quality_option,
)

SLOWEST, FASTEST = Fraction(1, 100), 240
"""Frames in a second that can be coded."""


def bitrate(name: str, value: Any) -> float:
    """Bits in a second, from a number that k or M may follow. Raises InputError."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?)([kM]?)", str(value).strip())
    number = 0.0
    if match and not isinstance(value, bool):
        number = float(match[1]) * {"": 1, "k": 1e3, "M": 1e6}[match[2]]
    if not 1e3 <= number <= 1e9:
        raise InputError(f"{name} is bits in a second, such as 16k, 1k or more, not {value!r:.40}")
    return number


@dataclass(frozen=True, kw_only=True)
class SequenceOptions(SenderOptions):
    """How frames are encoded; raises InputError."""

    quality: int = option(
        "of the coarse pictures", DEFAULT_QUALITY, low=min(QUALITY), high=max(QUALITY)
    )
    bitrate: float | str | None = option(
        "bits in a second, such as 16k: the quality follows from it",
        None,
        check=bitrate,
        metavar="BITS",
    )
    label_quality: LabelQuality | None = label_quality_option(
        "how much a change of the label map must gain to be sent (1 the most), or lossless; "
        f"default {DEFAULT_LABEL_QUALITY}"
    )
    key_interval: float | None = option(
        "seconds between key frames, from which a receiver can begin or recover: fewer for links "
        "that lose frames; default 10",
        None,
        above=0,
        metavar="SECONDS",
    )
    parity: int = option(
        "for links that lose frames: adds this percentage of parity, from which a receiver "
        "restores lost frames; after a loss the picture waits for it, up to four seconds",
        0,
        low=0,
        high=100,
        metavar="PERCENT",
    )
    segment_every: int | None = option(
        "run the segmenter on every Nth frame, and move its labels along in between; default: "
        "about three times a second, or on each frame for lossless label maps",
        None,
        low=1,
        metavar="N",
    )
    model: int = option("number of the intended receiver, 0: any", 0, low=0, high=14)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_rates("bitrate")
