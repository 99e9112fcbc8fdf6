"""What may be asked of coding a sequence, beside what is asked of a picture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from sempic import fields
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
    """Bits in a second: a number, or one with k or M after it."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?)([kM]?)", str(value).strip())
    number = 0.0
    if found and not isinstance(value, bool):
        number = float(found[1]) * {"": 1, "k": 1e3, "M": 1e6}[found[2]]
    if not 1e3 <= number <= 1e9:
        raise InputError(f"{name} is bits in a second, such as 16k, 1k or more, not {value!r:.40}")
    return number


@dataclass(frozen=True, kw_only=True)
class SequenceOptions(SenderOptions):
    """How frames are coded; raises InputError."""

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
        f"{DEFAULT_LABEL_QUALITY} if nothing is said"
    )
    key_interval: float | None = option(
        "seconds between key frames, from which a receiver can begin or recover; if nothing is "
        "said 2, and up to 10 where the scene stands still",
        None,
        above=0,
        metavar="SECONDS",
    )
    parity: int = option(
        "for links that lose frames: so many bits in a hundred are sent besides, from which lost "
        "frames are restored; where one is lost the picture waits for them, up to four seconds",
        0,
        low=0,
        high=100,
        metavar="PERCENT",
    )
    segment_every: int | None = option(
        "look for labels in every so many frames alone, and move them along in between; about "
        "three times a second if nothing is said, in each frame if --label-quality is lossless",
        None,
        low=1,
        metavar="N",
    )
    model: int = option(
        "number of the receiver that the sequence is meant for, 0: any", 0, low=0, high=14
    )

    def __post_init__(self) -> None:
        fields.check(self)
