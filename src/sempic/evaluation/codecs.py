"""Picture codecs behind one interface: ours and the competitors, which libraries bring.

One whole number sets a codec's quality. Rates count whole files where the codec has a file format,
and bare streams where it has none here (HEVC, SVT-AV1), which favours those two.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
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

import av
import numpy as np
import PIL.Image
from av.error import FFmpegError
from PIL import features

import sempic
from sempic import api, bits, coarse, formats, models
from sempic.check.objects import critical_ids
from sempic.coarse import hevc
from sempic.errors import InputError, install_hint, refused
from sempic.evaluation import weights
from sempic.options import BUNDLED, Models
from sempic.palette import CAMVID, PALETTES, Palette
from sempic.pictures import saved
from sempic.processes import no_real_time
from sempic.scene import Image, LabelMap

EFFORTS = ("slowest", "fast")
"""Presets of the competitors: the slowest for results, a fast one for trials."""
_QPS = range(51, 9, -1)


@dataclass(frozen=True)
class PictureCodec(ABC):
    """A codec with one dial."""

    title: str
    """For tables and legends."""
    settings: range
    """Values of the dial, by rising rate."""
    needs_labels = False
    """Whether `encode` needs the human label map."""

    @property
    def version(self) -> str:
        """Everything but name, picture and setting that determines stream and decoded picture; part
        of cache keys. Here the code of the codec's class."""
        code = "".join(map(inspect.getsource, type(self).__mro__[:-2]))  # without ABC and object
        return hashlib.sha256(code.encode()).hexdigest()[:16]

    @abstractmethod
    def encode(self, picture: Image, setting: int, labels: LabelMap | None = None) -> bytes:
        """The stream of a picture, uint8 (H, W, 3)."""

    @abstractmethod
    def decode(self, stream: bytes, width: int, height: int) -> Image:
        """The picture of a stream, uint8 (height, width, 3)."""


@dataclass(frozen=True)
class Pillow(PictureCodec):
    """A codec of Pillow or of a Pillow plugin."""

    format: str
    library: str
    """The underlying library, with its version."""
    fixed: dict[str, Any]
    """Options of `Image.save` besides the quality."""

    def options(self, setting: int) -> dict[str, Any]:
        """All options of `Image.save`."""
        return {"quality": setting, **self.fixed}

    @property
    def version(self) -> str:
        return f"{super().version} {self.library} {self.options(self.settings[0])}"

    def encode(self, picture: Image, setting: int, labels: LabelMap | None = None) -> bytes:
        return saved(PIL.Image.fromarray(picture), self.format, **self.options(setting))

    def decode(self, stream: bytes, width: int, height: int) -> Image:
        return np.array(PIL.Image.open(io.BytesIO(stream)).convert("RGB"))


class Jpeg2000(Pillow):
    """OpenJPEG, whose dial is the rate, in hundredths of a bit per pixel."""

    def options(self, setting: int) -> dict[str, Any]:
        return {"quality_mode": "rates", "quality_layers": [24 / (setting / 100)], **self.fixed}


@dataclass(frozen=True)
class Video(PictureCodec):
    """Intra pictures or clips of a video codec, 4:2:0, BT.601 full range, as a bare stream."""

    encoder: str
    decoder: str
    fixed: dict[str, str]
    """Options of the encoder besides its CRF."""

    def options(self, setting: int) -> dict[str, str]:
        return {"crf": str(setting), **self.fixed}

    @property
    def version(self) -> str:
        return f"{super().version} {self.options(self.settings[0])} {_version_of_coarse()}"

    def encode(self, picture: Image, setting: int, labels: LabelMap | None = None) -> bytes:
        return b"".join(self.packets([picture], setting))

    def decode(self, stream: bytes, width: int, height: int) -> Image:
        return self.frames([stream], width, height)[0]

    def packets(
        self, frames: Sequence[Image], setting: int, rate: Fraction = Fraction(25)
    ) -> list[bytes]:
        """Packets of frames, uint8 (H, W, 3), all of one size, `rate` a second, padded to even
        sides. Raises InputError if the encoder refuses them, as x265 does tiny ones."""
        os.environ.setdefault("SVT_LOG", "1")  # errors only; the default prints a page a picture
        height, width = (side + side % 2 for side in frames[0].shape[:2])
        context = hevc.context(self.encoder, "w")
        context.width, context.height = width, height
        context.pix_fmt, context.color_range = "yuv420p", 2
        context.time_base, context.framerate = 1 / rate, rate
        context.options = self.options(setting)
        packets: list[Any] = []
        refusal = f"{self.title} cannot encode {width}×{height} pixels"
        with no_real_time(), refused(InputError, refusal, FFmpegError):
            for number, picture in enumerate(frames):
                frame = hevc.frame(coarse.from_rgb(picture, "420"), width, height)
                frame.pts = number
                packets += context.encode(frame)
            packets += context.encode(None)
        return [bytes(packet) for packet in packets]

    def frames(self, packets: Sequence[bytes], width: int, height: int) -> list[Image]:
        """The frames of packets, uint8 (height, width, 3)."""
        context = hevc.context(self.decoder, "r")
        frames = [frame for packet in packets for frame in context.decode(av.Packet(packet))]
        frames += context.decode(None)
        return [coarse.to_rgb(hevc.planes(frame, width, height)) for frame in frames]


def encodable(*codecs: Video) -> Video:
    """The first of some codecs that PyAV can encode. Raises InputError if it has no encoder."""
    for codec in codecs:
        if codec.encoder in av.codecs_available:
            return codec
    encoders = " or ".join(codec.encoder for codec in codecs)
    raise InputError(f"this PyAV has no {encoders}, the encoder of {codecs[0].title}")


@dataclass(frozen=True)
class Bpg(PictureCodec):
    """Our BPG of the whole picture, or of a smaller copy that the decoder enlarges (bicubic)."""

    chroma: str
    factor: int = 1

    @property
    def version(self) -> str:
        return f"{super().version} {self.factor} {_version_of_coarse()}"

    def encode(self, picture: Image, setting: int, labels: LabelMap | None = None) -> bytes:
        small = coarse.downscale(picture, self.factor)
        return coarse.encode(small, quality=setting, chroma=self.chroma)

    def decode(self, stream: bytes, width: int, height: int) -> Image:
        small = PIL.Image.fromarray(coarse.to_rgb(coarse.decode(stream)))
        box = (0, 0, width / self.factor, height / self.factor)
        return np.array(small.resize((width, height), PIL.Image.Resampling.BICUBIC, box))


class Enlarged(Bpg):
    """Our BPG of a copy of a quarter of the size, which ESRGAN enlarges."""

    @functools.cached_property
    def _enlarge(self) -> Callable[[Image], Image]:
        from sempic.evaluation import networks

        return networks.Esrgan()

    @property
    def version(self) -> str:
        files = weights.check("esrgan"), Path(__file__).with_name("networks.py")
        return " ".join([super().version, *map(weights.digest, files)])

    def decode(self, stream: bytes, width: int, height: int) -> Image:
        whole = self._enlarge(coarse.to_rgb(coarse.decode(stream)))
        return np.ascontiguousarray(whole[:height, :width])


@dataclass(frozen=True)
class Sempic(PictureCodec):
    """Ours: whole .sempic files."""

    steps: int
    variant: str = ""
    """A key of VARIANTS."""
    models: Models = BUNDLED
    palette: int = CAMVID.id
    """Of human labels."""

    @property
    def needs_labels(self) -> bool:  # type: ignore[override]
        return self.variant == "human"

    @functools.cached_property
    def _codec(self) -> api.Codec:
        return api.Codec(**self.models.keywords())

    @property
    def version(self) -> str:
        import onnxruntime

        roles = [models.SEGMENTER, models.RECEIVER]
        roles += [models.VERIFIER] * (self.variant == "checked")
        networks = [getattr(self.models, role) or models.find(role) for role in roles]
        networks += [self.models.prior] * (self.models.prior is not None)
        digests = map(weights.digest, [*map(Path, networks), *_sources()])
        palette = self.palette if self.needs_labels else ""
        libraries = av.__version__, onnxruntime.__version__
        return " ".join(map(str, [super().version, *libraries, *digests, palette]))

    def encode(self, picture: Image, setting: int, labels: LabelMap | None = None) -> bytes:
        options: dict[str, Any] = {}
        if self.variant == "human":
            options = {"labels": labels, "palette": self.palette}
        elif self.variant == "none":
            options = {"labels": "none"}
        elif self.variant == "checked":
            options = {"check": True}
        elif self.variant == "kept":
            palette = PALETTES[self._codec.segmenter.palette]
            options = {"keep": [palette.classes[i] for i in critical_ids(palette)]}
        elif self.variant == "void":
            palette = PALETTES[self._codec.segmenter.palette]
            if palette.void is None:
                raise InputError(f"palette {palette.name} has no void")
            void = np.full(picture.shape[:2], palette.void, np.uint8)
            options = {"labels": void, "palette": palette.id}
        return self._codec.encode(picture, quality=setting, **options)

    def decode(self, stream: bytes, width: int, height: int) -> Image:
        return np.array(self._codec.decode(stream, steps=self.steps))


def _version_of_coarse() -> str:
    """Of PyAV, and digests of the modules that make our BPG, and the planes of a `Video`."""
    modules = [*sorted(Path(coarse.__file__).parent.glob("*.py")), Path(bits.__file__)]
    return " ".join([f"PyAV {av.__version__}", *map(weights.digest, modules)])


@functools.cache
def _sources() -> list[Path]:
    """Our modules and label models, except packages that neither encode nor decode."""
    package = Path(api.__file__).parent
    others = {package / name for name in ("evaluation", "server", "training")}
    files = [*package.rglob("*.py"), *package.rglob("*.npz")]
    return [path for path in sorted(files) if not others & set(path.parents)]


def _library(feature: str) -> str:
    """A library that Pillow was built with, and its version. Raises InputError without it."""
    if not features.check(feature):
        raise InputError(f"this Pillow was built without {feature}")
    return f"{feature} {features.version(feature)}"


def _avif(chroma: str, slow: bool) -> PictureCodec:
    library = _library("avif")
    from PIL import _avif

    library += f", {_avif.codec_versions()}"
    fixed = {"speed": 0 if slow else 8, "max_threads": 1, "subsampling": chroma}
    return Pillow(f"AVIF (libaom), {chroma}", range(101), "AVIF", library, fixed)


def _svt_av1(slow: bool) -> PictureCodec:
    fixed = {"preset": "0" if slow else "10", "svtav1-params": "avif=1:lp=1"}
    title, crf = "AV1 (SVT), bare stream", range(63, 5, -1)
    return encodable(Video(title, crf, "libsvtav1", "libdav1d", fixed))


def _hevc(slow: bool) -> PictureCodec:
    quiet = "log-level=none:pools=none:frame-threads=1:wpp=0:info=0:keyint=1"
    fixed = {"preset": "placebo" if slow else "fast", "x265-params": quiet}
    return encodable(Video("HEVC (x265), bare stream", _QPS, "libx265", "hevc", fixed))


def _jxl(slow: bool) -> PictureCodec:
    if not formats.has_jxl():
        raise InputError(f"JPEG XL needs a plugin: {install_hint('jxl')}")
    fixed = {"effort": 10 if slow else 4, "num_threads": 1, "use_container": False}
    library = f"pillow-jxl-plugin {metadata.version('pillow-jxl-plugin')}"
    return Pillow("JPEG XL", range(100), "JXL", library, fixed)


def _webp(slow: bool) -> PictureCodec:
    library, fixed = _library("webp"), {"method": 6 if slow else 2}
    return Pillow("WebP", range(101), "WEBP", library, fixed)


def _jpeg2000(slow: bool) -> PictureCodec:
    library = _library("jpg_2000")
    fixed = {"irreversible": True, "no_jp2": True}
    return Jpeg2000("JPEG 2000", range(2, 400), "JPEG2000", library, fixed)


def _jpeg(slow: bool) -> PictureCodec:
    fixed = {"optimize": True, "progressive": True}
    library = f"libjpeg_turbo {features.version('libjpeg_turbo')}"
    return Pillow("JPEG, progressive", range(1, 96), "JPEG", library, fixed)


def _esrgan(slow: bool) -> PictureCodec:
    weights.check("esrgan")
    return Enlarged("coarse, ESRGAN", _QPS, "444", 4)


@dataclass(frozen=True, slots=True)
class Style:
    """How charts draw a codec."""

    colour: str
    dashes: str = ""
    """As `stroke-dasharray`."""
    marker: str = ""
    """A key of `charts.MARKERS`, else a short text in a circle."""


@dataclass(frozen=True, slots=True)
class Competitor:
    """A codec of the benchmark that is not ours."""

    make: Callable[[bool], PictureCodec]
    """The argument is whether to use the slowest preset."""
    style: Style
    """No other codec has the same dashes and marker: some readers cannot tell the colours."""
    default: bool = True
    """Whether `sempic benchmark` takes it without --codecs."""


COMPETITORS = {
    "bpg": Competitor(
        lambda slow: Bpg("BPG, 4:2:0", _QPS, "420"), Style("#0b62a8", "5 3", "square")
    ),
    "bpg444": Competitor(
        lambda slow: Bpg("BPG, 4:4:4", _QPS, "444"), Style("#0b62a8", "", "square")
    ),
    "avif": Competitor(lambda slow: _avif("4:2:0", slow), Style("#1a7f37", "", "triangle")),
    "avif444": Competitor(
        lambda slow: _avif("4:4:4", slow), Style("#1a7f37", "5 3", "triangle"), False
    ),
    "svt-av1": Competitor(_svt_av1, Style("#4ac26b", "", "tip")),
    "hevc": Competitor(_hevc, Style("#54aeff", "", "diamond")),
    "jxl": Competitor(_jxl, Style("#8250df", "", "cross")),
    "webp": Competitor(_webp, Style("#9a6700", "", "plus")),
    "jpeg2000": Competitor(_jpeg2000, Style("#c297ff", "5 3", "cross")),
    "jpeg": Competitor(_jpeg, Style("#bf8700", "5 3")),
    "coarse": Competitor(
        lambda slow: Bpg("coarse, bicubic", _QPS, "444", 4),
        Style("#24292f", "2 3", "square"),
    ),
    "coarse+esrgan": Competitor(_esrgan, Style("#6e7781", "2 3", "diamond"), False),
}
"""All codecs but ours."""
NAMES = ("sempic", *COMPETITORS)
"""Names that `load` knows, without our suffixes."""
DEFAULTS = ("sempic", "sempic@4", *(name for name, c in COMPETITORS.items() if c.default))
"""The codecs of `sempic benchmark` without --codecs."""
_SVT = "pred-struct=1:lp=1:keyint=-1:scd=0:enable-tf=0"
_X265 = "log-level=none:pools=none:frame-threads=1:info=0:keyint=-1:scenecut=0"
_AOM = {"cpu-used": "4", "lag-in-frames": "0", "usage": "realtime"}
_SLOW = {"preset": "slow", "tune": "zerolatency", "x265-params": _X265}
_CRF = range(63, 19, -1)
OF_CLIPS = {
    "av1": (
        Video("AV1", _CRF, "libsvtav1", "libdav1d", {"preset": "4", "svtav1-params": _SVT}),
        Video("AV1", _CRF, "libaom-av1", "libdav1d", _AOM),
    ),
    "hevc": (Video("HEVC", range(51, 19, -1), "libx265", "hevc", _SLOW),),
}
"""The competitors of clips, where no frame waits for a later one: of several codecs the first that
is `encodable` is taken."""
VARIANTS = {
    "": ("", ""),
    "human": (", human labels", "2 3"),
    "void": (", all void", "12 4 2 4"),
    "none": (", no labels", "12 6"),
    "checked": (", checked", "12 4 2 4 2 4"),
    "kept": (", kept", "12 2 2 2 2 2"),
}
"""Suffixes of "sempic+", with their titles and dashes: the segmenter's labels, human labels, a map
that is all void, no map, and the segmenter's labels with `check=True` or all critical classes in
`keep`."""
_COLOURS = ("#d1242f", "#bc4c00", "#bf3989", "#82071e")
"""Of ours, by the number of binary digits of the steps."""


def _ours(name: str) -> tuple[int, str] | None:
    """(steps, variant) of a name of ours; None for other names."""
    match = re.fullmatch(rf"sempic(?:@([1-9]\d*))?(?:\+({'|'.join([*VARIANTS][1:])}))?", name)
    return (int(match[1] or 1), match[2] or "") if match else None


def is_ours(name: str) -> bool:
    """Whether a name is "sempic", maybe with suffixes."""
    return _ours(name) is not None


def style(name: str) -> Style:
    """The style of a codec; solid grey for names that are none, such as "originals"."""
    if (found := _ours(name)) is None:
        return COMPETITORS[name].style if name in COMPETITORS else Style("#afb8c1")
    steps, variant = found
    colour = _COLOURS[min(steps.bit_length(), len(_COLOURS)) - 1]
    return Style(colour, VARIANTS[variant][1], str(steps) * (steps > 1) + variant[:1])


def load(
    name: str, *, effort: str = EFFORTS[0], models: Models = BUNDLED, palette: Palette = CAMVID
) -> PictureCodec:
    """A codec by name.

    Args:
        name: one of NAMES; "sempic" may have the suffixes "@STEPS" and "+VARIANT", in this order.
        effort: one of EFFORTS.
        models: of "sempic".
        palette: of the human labels that "sempic+human" sends.

    Raises:
        InputError: an unknown name, or a missing library.
    """
    if (found := _ours(name)) is not None:
        steps, variant = found
        title = f"sempic, {steps} step{'s' * (steps > 1)}" + VARIANTS[variant][0]
        levels = range(min(sempic.QUALITY), max(sempic.QUALITY) + 1)
        return Sempic(title, levels, steps, variant, models, palette.id)
    if name not in COMPETITORS:
        raise InputError(f"codec {name!r} is not one of {', '.join(NAMES)}")
    return COMPETITORS[name].make(effort == EFFORTS[0])
