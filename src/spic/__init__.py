"""spic, a semantic image codec: what is in a picture, and a tiny coarse copy; the rest is rebuilt.

    stream = spic.encode(image)        # PIL image or uint8 (H, W, 3) → bytes
    image = spic.decode(stream)        # → PIL image
    scene = spic.unpack(stream)        # labels and coarse planes, exact; no network involved
    spic.info(stream)                  # what each part costs

Errors are all of `spic.SpicError`. Loads neither torch nor a network runtime until one is needed.
"""

from spic.api import QUALITY, Codec, Quality, decode, encode, info
from spic.codec import pack, unpack
from spic.errors import (
    BitstreamError,
    CorruptStream,
    ImageError,
    InputError,
    LabelMapError,
    LimitExceeded,
    ModelError,
    NotSpic,
    OutputError,
    RateError,
    SpicError,
    TruncatedStream,
    UnsupportedChunk,
    UnsupportedProfile,
    UnsupportedVersion,
)
from spic.palette import PALETTES, Palette
from spic.scene import Coarse, Scene

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
    "NotSpic",
    "OutputError",
    "Palette",
    "Quality",
    "RateError",
    "Scene",
    "SpicError",
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
