"""What a user would pick instead: other picture codecs behind one interface, through libraries.

Each codec turns a picture into the bytes of a file and back; one whole number sets its quality.
Rates count what a decoder needs: whole files where the codec has a file format of its own, the
bare stream where we would have to wrap it ourselves (HEVC, SVT-AV1), which favours those two.
"""

from __future__ import annotations

import functools
import io
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from PIL import features

import sempic
from sempic import api, coarse, formats, labels, models
from sempic.coarse import hevc
from sempic.errors import InputError, install_hint
from sempic.evaluation import weights
from sempic.options import BUNDLED, Models
from sempic.palette import PALETTES
from sempic.processes import no_real_time
from sempic.scene import Image, LabelMap

EFFORTS = ("slowest", "fast")
"""What every codec is told about time: its slowest preset, or one for trying things out."""
_QPS = range(51, 9, -1)


@dataclass(frozen=True)
class PictureCodec(ABC):
    """A codec with one dial."""

    name: str
    title: str
    """For tables and legends."""
    settings: range
    """The values of the dial, by rising rate."""
    needs_labels = False
    """Whether `encode` is to be given the human label map."""

    @property
    @abstractmethod
    def version(self) -> str:
        """All that its bytes depend on besides the picture and the setting; a cache's key."""

    @abstractmethod
    def encode(self, picture: Image, setting: int, labels: LabelMap | None = None) -> bytes:
        """The stream of a picture, uint8 (H, W, 3)."""

    @abstractmethod
    def decode(self, stream: bytes, width: int, height: int) -> Image:
        """The picture of a stream, uint8 (height, width, 3)."""


@dataclass(frozen=True)
class Pillow(PictureCodec):
    """A codec that Pillow, or a plugin of it, brings."""

    format: str
    library: str
    """Which is behind it, with its version."""
    told: dict[str, Any]
    """What `Image.save` is told at any setting."""

    def options(self, setting: int) -> dict[str, Any]:
        """What `Image.save` is told at a setting."""
        return {"quality": setting, **self.told}

    @property
    def version(self) -> str:
        return f"{self.library} {self.options(self.settings[0])}"

    def encode(self, picture: Image, setting: int, labels: LabelMap | None = None) -> bytes:
        out = io.BytesIO()
        PIL.Image.fromarray(picture).save(out, self.format, **self.options(setting))
        return out.getvalue()

    def decode(self, stream: bytes, width: int, height: int) -> Image:
        return np.array(PIL.Image.open(io.BytesIO(stream)).convert("RGB"))


class Jpeg2000(Pillow):
    """OpenJPEG is told a rate, so the dial is one: hundredths of a bit per pixel."""

    def options(self, setting: int) -> dict[str, Any]:
        return {"quality_mode": "rates", "quality_layers": [24 / (setting / 100)], **self.told}


@dataclass(frozen=True)
class Video(PictureCodec):
    """One intra picture of a video codec, 4:2:0, BT.601 full range, as a bare stream."""

    encoder: str
    decoder: str
    told: dict[str, str]
    """What the encoder is told at any setting, besides its CRF."""

    def options(self, setting: int) -> dict[str, str]:
        return {"crf": str(setting), **self.told}

    @property
    def version(self) -> str:
        import av

        return f"PyAV {av.__version__} {self.options(self.settings[0])}"

    def encode(self, picture: Image, setting: int, labels: LabelMap | None = None) -> bytes:
        return b"".join(encode_video(self.encoder, [picture], self.options(setting)))

    def decode(self, stream: bytes, width: int, height: int) -> Image:
        return decode_video(self.decoder, [stream], width, height)[0]


def encode_video(
    encoder: str, frames: Sequence[Image], options: dict[str, str], rate: Fraction = Fraction(25)
) -> list[bytes]:
    """Packets of frames in 4:2:0, BT.601 full range, their sides made even.

    Args:
        encoder: PyAV's name of it. options: what it is told.
        frames: uint8 (H, W, 3), all of one size.
        rate: frames in a second.
    """
    os.environ.setdefault("SVT_LOG", "1")  # errors only; it prints a page a picture otherwise
    height, width = (side + side % 2 for side in frames[0].shape[:2])
    context = hevc.context(encoder, "w")
    context.width, context.height = width, height
    context.pix_fmt, context.color_range = "yuv420p", 2
    context.time_base, context.framerate = 1 / rate, rate
    context.options = options
    packets: list[Any] = []
    with no_real_time():
        for number, picture in enumerate(frames):
            frame = hevc.frame(coarse.from_rgb(picture, "420"), width, height)
            frame.pts = number
            packets += context.encode(frame)
        packets += context.encode(None)
    return [bytes(packet) for packet in packets]


def decode_video(decoder: str, packets: Sequence[bytes], width: int, height: int) -> list[Image]:
    """The frames of packets, uint8 (height, width, 3); decoder: PyAV's name of it."""
    import av

    context = hevc.context(decoder, "r")
    frames = [frame for packet in packets for frame in context.decode(av.Packet(packet))]
    frames += context.decode(None)
    return [coarse.to_rgb(hevc.planes(frame, width, height)) for frame in frames]


@dataclass(frozen=True)
class Bpg(PictureCodec):
    """Our BPG: of the whole picture, or of a small copy that is enlarged again."""

    chroma: str
    factor: int = 1
    enlarge: Callable[[Image, int, int], Image] | None = None
    """(small, width, height) → picture; None: bicubic."""

    @property
    def version(self) -> str:
        import av

        return f"PyAV {av.__version__} {self.factor}"

    def encode(self, picture: Image, setting: int, labels: LabelMap | None = None) -> bytes:
        small = coarse.downscale(picture, self.factor) if self.factor > 1 else picture
        return coarse.encode(small, quality=setting, chroma=self.chroma)

    def decode(self, stream: bytes, width: int, height: int) -> Image:
        small = coarse.to_rgb(coarse.decode(stream))
        if self.factor == 1:
            return small
        if self.enlarge is not None:
            return self.enlarge(small, width, height)
        box = (0, 0, width / self.factor, height / self.factor)
        how = PIL.Image.Resampling.BICUBIC
        return np.array(PIL.Image.fromarray(small).resize((width, height), how, box))


@dataclass(frozen=True)
class Sempic(PictureCodec):
    """Ours: whole .sempic files with the bundled models, or with those that are named."""

    steps: int
    sent: str = ""
    """Which labels: "" the segmenter's, "human" those given, "void" everywhere, "none" at all; or
    "checked": the segmenter's, and what a check finds is sent, too."""
    models: Models = BUNDLED

    @property
    def needs_labels(self) -> bool:  # type: ignore[override]
        return self.sent == "human"

    @functools.cached_property
    def _codec(self) -> api.Codec:
        return api.Codec(**self.models.keywords())

    @property
    def version(self) -> str:
        told = self.models
        networks = [
            told.segmenter or models.find(models.SEGMENTER),
            told.receiver or models.find(models.RECEIVER),
        ]
        if self.sent == "checked":
            networks.append(told.verifier or models.find(models.VERIFIER))
        if told.prior is not None:
            networks.append(told.prior)
        coder = sorted(Path(labels.__file__).parent.glob("weights/*.npz"))
        files = [*map(Path, networks), *coder, *_sources()]
        return " ".join(
            [str(sempic.QUALITY), str(list(coarse.BY_CHUNK)), *map(weights.digest, files)]
        )

    def encode(self, picture: Image, setting: int, labels: LabelMap | None = None) -> bytes:
        if self.sent == "none":
            return self._codec.encode(picture, quality=setting, labels="none")
        if self.sent == "checked":
            return self._codec.encode(picture, quality=setting, check=True)
        palette = None
        if self.sent == "void":
            palette = self._codec.segmenter.palette
            void = PALETTES[palette].void
            if void is None:
                raise InputError(f"{self.name}: palette {PALETTES[palette].name} has no void")
            labels = np.full(picture.shape[:2], void, np.uint8)
        return self._codec.encode(picture, quality=setting, labels=labels, palette=palette)

    def decode(self, stream: bytes, width: int, height: int) -> Image:
        return np.array(self._codec.decode(stream, steps=self.steps))


@functools.cache
def _sources() -> list[Path]:
    """Our own code, but for what neither codes nor decodes."""
    package = Path(api.__file__).parent
    apart = [package / name for name in ("evaluation", "server", "training")]
    return [p for p in sorted(package.rglob("*.py")) if not set(apart) & set(p.parents)]


def _library(name: str, feature: str) -> str:
    """Which Pillow has for a codec, with its version. Raises InputError without it."""
    if not features.check(feature):
        raise InputError(f"{name}: this Pillow was built without it")
    return f"{feature} {features.version(feature)}"


def _avif(name: str, chroma: str, slow: bool) -> PictureCodec:
    _library(name, "avif")
    from PIL import _avif

    library = f"libavif {_avif.libavif_version}, {_avif.codec_versions()}"
    told = {"speed": 0 if slow else 8, "max_threads": 1, "subsampling": chroma}
    return Pillow(name, f"AVIF (libaom), {chroma}", range(101), "AVIF", library, told)


def _svt_av1(slow: bool) -> PictureCodec:
    told = {"preset": "0" if slow else "10", "svtav1-params": "avif=1:lp=1"}
    title = "AV1 (SVT), bare stream"
    return Video("svt-av1", title, range(63, 5, -1), "libsvtav1", "libdav1d", told)


def _hevc(slow: bool) -> PictureCodec:
    quiet = "log-level=none:pools=none:frame-threads=1:wpp=0:info=0:keyint=1"
    told = {"preset": "placebo" if slow else "fast", "x265-params": quiet}
    return Video("hevc", "HEVC (x265), bare stream", _QPS, "libx265", "hevc", told)


def _jxl(slow: bool) -> PictureCodec:
    if not formats.has_jxl():
        raise InputError(f"JPEG XL needs a plugin: {install_hint('jxl')}")
    told = {"effort": 10 if slow else 4, "num_threads": 1, "use_container": False}
    library = f"pillow-jxl-plugin {metadata.version('pillow-jxl-plugin')}"
    return Pillow("jxl", "JPEG XL", range(100), "JXL", library, told)


def _webp(slow: bool) -> PictureCodec:
    told = {"method": 6 if slow else 2}
    return Pillow("webp", "WebP", range(101), "WEBP", _library("webp", "webp"), told)


def _jpeg2000(slow: bool) -> PictureCodec:
    library = _library("jpeg2000", "jpg_2000")
    told = {"irreversible": True, "no_jp2": True}
    return Jpeg2000("jpeg2000", "JPEG 2000", range(2, 400), "JPEG2000", library, told)


def _jpeg(slow: bool) -> PictureCodec:
    told = {"optimize": True, "progressive": True}
    library = f"libjpeg_turbo {features.version('libjpeg_turbo')}"
    return Pillow("jpeg", "JPEG, progressive", range(1, 96), "JPEG", library, told)


def _esrgan(slow: bool) -> PictureCodec:
    weights.check("esrgan")

    @functools.cache
    def network() -> Callable[[Image], Image]:
        from sempic.evaluation import networks

        return networks.Esrgan()

    def enlarge(small: Image, width: int, height: int) -> Image:
        return np.ascontiguousarray(network()(small)[:height, :width])

    return Bpg("coarse+esrgan", "coarse, ESRGAN", _QPS, "444", 4, enlarge)


COMPETITORS: dict[str, Callable[[bool], PictureCodec]] = {
    "bpg": lambda slow: Bpg("bpg", "BPG, 4:2:0", _QPS, "420"),
    "bpg444": lambda slow: Bpg("bpg444", "BPG, 4:4:4", _QPS, "444"),
    "avif": lambda slow: _avif("avif", "4:2:0", slow),
    "avif444": lambda slow: _avif("avif444", "4:4:4", slow),
    "svt-av1": _svt_av1,
    "hevc": _hevc,
    "jxl": _jxl,
    "webp": _webp,
    "jpeg2000": _jpeg2000,
    "jpeg": _jpeg,
    "coarse": lambda slow: Bpg("coarse", "coarse, bicubic", _QPS, "444", 4),
    "coarse+esrgan": _esrgan,
}
"""Every codec but ours by its name: made with its slowest preset, or a fast one. Another codec is
another entry."""
NAMES = ("sempic", *COMPETITORS)
"""Every codec that `load` knows; "sempic@4" is ours in 4 steps, "sempic+human" with human labels,
"sempic+void" with a map that is all void, "sempic+none" without a map, "sempic+checked" as
`sempic encode --check`."""
_SENT = {
    "": "",
    "human": ", human labels",
    "void": ", all void",
    "none": ", no labels",
    "checked": ", checked",
}


def load(
    name: str,
    *,
    effort: str = EFFORTS[0],
    models: Models = BUNDLED,
) -> PictureCodec:
    """A codec by its name.

    Args:
        name: one of NAMES; "sempic" may be followed by "@STEPS", and that by "+human", "+void",
            "+none" or "+checked".
        effort: one of EFFORTS.
        models: of "sempic".

    Raises:
        InputError: an unknown name, or a library that is missing.
    """
    if match := re.fullmatch(r"sempic(?:@(\d+))?(?:\+(human|void|none|checked))?", name):
        steps, sent = int(match[1] or 1), match[2] or ""
        title = f"sempic, {steps} step{'s' * (steps > 1)}" + _SENT[sent]
        levels = range(min(sempic.QUALITY), max(sempic.QUALITY) + 1)
        return Sempic(name, title, levels, max(1, steps), sent, models)
    if name not in COMPETITORS:
        raise InputError(f"codec {name!r} is not one of {', '.join(NAMES)}")
    return COMPETITORS[name](effort == EFFORTS[0])
