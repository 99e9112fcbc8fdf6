"""A semantic image codec: streams hold a label map and a coarse picture; a receiver paints detail.

    stream = sempic.encode(image)        # PIL image or uint8 (H, W, 3) → bytes
    image = sempic.decode(stream)        # → PIL image
    scene = sempic.unpack(stream)        # labels and coarse planes, exact, without networks
    sempic.info(stream)                  # the bytes of each part
    sempic.objects(image, stream)        # critical objects kept, lost and invented

All errors are a `sempic.SempicError`. torch and onnxruntime are imported at their first use.
"""

from sempic import _start as _start  # before all other imports
from sempic.api import Codec, decode, encode, info, objects
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
    "objects",
    "pack",
    "unpack",
]
