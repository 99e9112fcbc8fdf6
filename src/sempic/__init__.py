"""A semantic image codec: what is in a picture, and a tiny coarse copy; the rest is rebuilt.

    stream = sempic.encode(image)        # PIL image or uint8 (H, W, 3) → bytes
    image = sempic.decode(stream)        # → PIL image
    scene = sempic.unpack(stream)        # labels and coarse planes, exact; no network involved
    sempic.info(stream)                  # what each part costs

Errors are all of `sempic.SempicError`. Neither torch nor a network runtime is loaded until one is
needed.
"""

from sempic import _start as _start  # before all others
from sempic.api import Codec, decode, encode, info
from sempic.codec import pack, unpack
from sempic.errors import (
    BitstreamError,
    CorruptStream,
    ImageError,
    InputError,
    LabelMapError,
    LimitExceeded,
    ModelError,
    NotSempic,
    OutputError,
    RateError,
    SempicError,
    SempicWarning,
    TruncatedStream,
    UnsupportedChunk,
    UnsupportedProfile,
    UnsupportedVersion,
)
from sempic.options import QUALITY, Quality
from sempic.palette import PALETTES, Palette
from sempic.scene import Coarse, Scene

__version__ = "0.1.0"

__all__ = [
    "PALETTES",
    "QUALITY",
    "BitstreamError",
    "Coarse",
    "Codec",
    "CorruptStream",
    "ImageError",
    "InputError",
    "LabelMapError",
    "LimitExceeded",
    "ModelError",
    "NotSempic",
    "OutputError",
    "Palette",
    "Quality",
    "RateError",
    "Scene",
    "SempicError",
    "SempicWarning",
    "TruncatedStream",
    "UnsupportedChunk",
    "UnsupportedProfile",
    "UnsupportedVersion",
    "__version__",
    "decode",
    "encode",
    "info",
    "pack",
    "unpack",
]
