"""The codec as people use it: pictures in, bytes out, and back.

encode = analyze (segmenter, coarse encoder) + pack
decode = unpack + synthesize (receiver)
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar

import numpy as np

from sempic import checks, codec, container, progress
from sempic.errors import (
    BitstreamError,
    ImageError,
    InputError,
    LabelMapError,
    ModelError,
    RateError,
    SempicWarning,
)
from sempic.palette import CAMVID, CITYSCAPES, PALETTES, translate
from sempic.palette import find as find_palette
from sempic.scene import Chances, Image, LabelMap, Scene

if TYPE_CHECKING:
    import numpy.typing as npt
    import PIL.Image
    from typing_extensions import Self

Segmenter: TypeAlias = Callable[[Image], LabelMap]
"""uint8 (H, W, 3) → uint8 (H, W) ids of the palette in its attribute `palette` (1 if none)."""
Receiver: TypeAlias = Callable[..., Image]
"""(scene, **controls) → uint8 (H, W, 3); controls: those of steps, seed, guidance and fidelity that
the caller of `decode` gave. What is not given is as the receiver likes it."""


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

DEFAULT_QUALITY = 5

LOSSLESS: Final = "lossless"
NO_LABELS: Final = "none"
LabelQuality: TypeAlias = int | Literal["lossless"]
DEFAULT_LABEL_QUALITY = 3
"""Of the segmenter's maps; docs/experiments/labels.md has the curve that it was chosen on."""


class Codec:
    """A segmenter and a receiver, loaded when first needed, around `pack` and `unpack`."""

    def __init__(
        self,
        segmenter: Segmenter | str | Path | None = None,
        receiver: Receiver | str | Path | None = None,
    ) -> None:
        """Each is None (the bundled one), a specification for `load` of `sempic.segment` or
        `sempic.receive` (a path to an ONNX file, "hf:NAME", a checkpoint of the paper's
        network), or the function itself. A codec can be copied and pickled as far as these can; the
        copy loads its networks anew. Raises InputError for anything else."""
        self._segmenter = _model("segmenter", segmenter)
        self._receiver = _model("receiver", receiver)

    def __getstate__(self) -> dict[str, Any]:
        return {
            "_segmenter": self._segmenter,
            "_receiver": self._receiver,
        }  # nothing that is loaded

    @functools.cached_property
    def segmenter(self) -> Segmenter:
        """Raises ModelError if it cannot be loaded."""
        if callable(self._segmenter):
            return self._segmenter
        from sempic import segment

        return segment.load(None if self._segmenter is None else str(self._segmenter))

    @functools.cached_property
    def receiver(self) -> Receiver:
        """Raises ModelError if it cannot be loaded."""
        if callable(self._receiver):
            return self._receiver
        from sempic import receive

        return receive.load(None if self._receiver is None else str(self._receiver))

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, revision: str | None = None, sha256: str | None = None
    ) -> Self:
        """The codec with the models of a folder, or of a repository of the Hugging Face hub.

        Args:
            name_or_path: a folder that `save_pretrained` made, or "hf:OWNER/NAME"; the network is
                used for the latter only (extra `hub`).
            revision: branch, tag or commit of the repository; None is its main branch.
            sha256: of the manifest sempic.json, as `save_pretrained` returns it; pins all files.

        Raises:
            ModelError: it cannot be found, or a file is not the one that the manifest describes.
        """
        from sempic import hub

        name = str(_named("name_or_path", name_or_path))
        if name.startswith(hub.PREFIX):
            folder = hub.download(name.removeprefix(hub.PREFIX), revision=revision)
        elif revision is not None:
            raise InputError(f"{name}: a folder has no revision {revision!r}")
        else:
            folder = Path(name)
        return cls(**hub.read(folder, sha256=sha256))

    def save_pretrained(self, folder: str | Path) -> str:
        """Write the models, a model card and a manifest with the hash of each file to a folder.

        Returns the SHA-256 of the manifest, which `from_pretrained` can be given.

        Raises:
            ModelError: a model is no ONNX file but a function or one of transformers.
            OutputError: the folder cannot be written.
        """
        from sempic import hub, models

        networks = {}
        for role in (models.SEGMENTER, models.RECEIVER):
            given: Any = self._segmenter if role == models.SEGMENTER else self._receiver
            if callable(given) or str(given).startswith("hf:"):
                raise ModelError(f"only ONNX files can be saved, and the {role} is none")
            networks[role] = models.find(role) if given is None else Path(given)
        return hub.write(Path(_named("folder", folder)), networks)

    def push_to_hub(self, name: str, *, private: bool = True) -> str:
        """Upload what `save_pretrained` writes to OWNER/NAME on the Hugging Face hub.

        It is made if it is not there, and private unless told otherwise; `hf auth login` comes
        first. Returns the URL of the commit.

        Raises:
            ModelError: as `save_pretrained`, or the hub refuses.
        """
        import tempfile

        from sempic import hub

        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return hub.upload(Path(folder), name, private=private)

    def encode(
        self,
        image: PIL.Image.Image | npt.NDArray[np.uint8],
        *,
        labels: npt.NDArray[np.uint8] | Literal["none"] | None = None,
        palette: int | str | None = None,
        quality: int = DEFAULT_QUALITY,
        coarse_codec: str = "bpg",
        target_bpp: float | None = None,
        max_side: int | None = None,
        label_quality: LabelQuality | None = None,
        importance: Mapping[str, float] | None = None,
        ignore_label: int | None = None,
    ) -> bytes:
        """The .sempic stream of a picture.

        Args:
            image: PIL image of any mode, or uint8 (H, W, 3) in sRGB; `sempic.pictures.to_rgb` says
                how modes, rotation, colour profiles and transparency are dealt with.
            labels: uint8 (H, W) ids of the palette, of the size of the upright picture; sent bit
                for bit, but for 255 where that is no id: as in files of that palette it means void
                (and Cityscapes' license plate). None: the segmenter finds them; where it does not
                know the map says void, and a picture of which it knows little has none. "none": a
                stream without a map.
            palette: of `labels`, id or name (`sempic.palette`), or the path of a `.json` file with
                one of your own; CamVid if not given. Without `labels` it is the segmenter's;
                "camvid" maps the segmenter's classes to those.
            quality: 1…9, a level of QUALITY.
            coarse_codec: "bpg", "avif", "webp" or "jxl".
            target_bpp: bits per pixel of the whole stream; the best level that stays at or under
                it is taken, and `quality` is ignored. Warns (SempicWarning) if even the finest
                level leaves bits over.
            max_side: scale the picture down first so that its longer side is at most this.
            label_quality: 1 (fewest bits) … 5 (fewest changes): the label map is simplified where
                that saves most bits for each changed pixel (`sempic.simplify`); or
                "lossless". None: "lossless" for `labels`, DEFAULT_LABEL_QUALITY for the
                segmenter's map.
            importance: what a pixel of a class is worth to `label_quality`, by class name;
                `math.inf` for never removed.
            ignore_label: an id that is sent as the palette's void, in `labels` and in what the
                segmenter finds.

        Raises:
            ImageError, LabelMapError: input that cannot be coded.
            RateError: no level reaches `target_bpp`; the message names the least that is reached.
            ModelError: the segmenter cannot be loaded, or gives what is no label map.
            InputError: an option out of range.
        """
        from sempic import coarse, pictures

        checks.whole("quality", quality, min(QUALITY), max(QUALITY))
        checks.one_of("coarse codec", coarse_codec, codec.CODECS)
        if target_bpp is not None and checks.number("target_bpp", target_bpp) <= 0:
            raise InputError(f"target_bpp must be more than 0, not {target_bpp:g}")
        if max_side is not None:
            checks.whole("max_side", max_side, 1)
        if label_quality is not None and label_quality != LOSSLESS:
            checks.whole("label_quality", label_quality, 1, 5)
        if importance is not None and not isinstance(importance, Mapping):
            raise InputError(f"importance maps classes to weights, not {type(importance).__name__}")
        number = _palette_id(palette)
        size = getattr(image, "size", None)  # of a PIL image: before its pixels are decoded
        if isinstance(size, tuple) and len(size) == 2:
            levels = _levels(size, max_side, quality, target_bpp)
        pixels = pictures.to_rgb(image)
        levels = _levels(pixels.shape[1::-1], max_side, quality, target_bpp)
        if isinstance(labels, str):
            if labels != NO_LABELS:
                raise InputError(f"labels are an array or {NO_LABELS!r}, not {labels!r}")
        elif labels is not None:
            height, width = pixels.shape[:2]
            codec.check_map(labels, width=width, height=height)
            labels = PALETTES[number].settle(labels, ignore_label)
            codec.check_labels(labels, width=width, height=height, palette=number)
        if max_side is not None:
            given = None if isinstance(labels, str) else labels
            pixels, smaller = pictures.shrink(pixels, given, max_side)
            labels = labels if isinstance(labels, str) else smaller
        if labels is None:
            with progress.waiting("finding and simplifying labels", aloud=False):
                labels, found = self.find_labels(pixels, label_quality, importance, ignore_label)
            number = found if palette is None else number
            if number != found and number not in (CAMVID.id, CITYSCAPES.id):
                name = PALETTES[number].name
                raise InputError(f"the segmenter's classes cannot be named in palette {name}")
            if labels is not None:
                labels = translate(labels, found, number)
        elif isinstance(labels, str):
            labels = None
        elif label_quality is not None and label_quality != LOSSLESS:
            from sempic.simplify import simplify

            with progress.waiting("simplifying labels", aloud=False):
                labels = simplify(labels, label_quality, palette=number, importance=importance)

        def pack(level: int) -> bytes:
            small = coarse.downscale(pixels, QUALITY[level].factor)
            with progress.waiting(f"coding at quality {level}", aloud=False):
                return codec.pack(
                    width=pixels.shape[1],
                    height=pixels.shape[0],
                    labels=labels,
                    coarse=coarse.encode(small, codec=coarse_codec, quality=QUALITY[level].qp),
                    coarse_codec=coarse_codec,
                    palette=number,
                )

        return pack(quality) if target_bpp is None else _best_within(target_bpp, pack, levels)

    def _segment(
        self, pixels: Image, label_quality: LabelQuality, ignore_label: int | None
    ) -> tuple[LabelMap, Chances | None, int]:
        """The segmenter's map, checked, how sure it is if it says so, and its palette."""
        number = getattr(self.segmenter, "palette", CAMVID.id)
        if not isinstance(number, int) or number not in PALETTES:
            raise ModelError(f"the segmenter's palette {number!r} is not one of {list(PALETTES)}")
        look = getattr(self.segmenter, "look", None)
        found: Any
        if look is not None and label_quality != LOSSLESS:
            found, chances = look(pixels)
        else:
            found, chances = self.segmenter(pixels), None
        height, width = pixels.shape[:2]
        try:
            codec.check_map(found, width=width, height=height)
            found = PALETTES[number].settle(found, ignore_label)
            codec.check_labels(found, width=width, height=height, palette=number)
        except LabelMapError as error:
            raise ModelError(f"the segmenter is at fault: {error}") from error
        if chances is not None and (
            not isinstance(chances, np.ndarray)
            or chances.dtype != np.uint8
            or chances.ndim != 3
            or chances.shape[1:] != (height, width)
        ):
            raise ModelError("the segmenter's chances are not uint8 (classes, height, width)")
        return found, chances, number

    def find_labels(
        self,
        pixels: Image,
        label_quality: LabelQuality | None = None,
        importance: Mapping[str, float] | None = None,
        ignore_label: int | None = None,
    ) -> tuple[LabelMap | None, int]:
        """The segmenter's map as it is sent, None where it knows too little, and its palette."""
        label_quality = DEFAULT_LABEL_QUALITY if label_quality is None else label_quality
        labels, chances, number = self._segment(pixels, label_quality, ignore_label)
        if label_quality == LOSSLESS:
            return labels, number
        from sempic.simplify import simplify

        if chances is not None:
            from sempic.segment.doubt import STREET, void_where_unsure

            voided, known = void_where_unsure(labels, chances, number)
            if known < STREET:
                return None, number
            if getattr(self.segmenter, "voids", False):
                labels = voided
        sent = simplify(
            labels, label_quality, palette=number, importance=importance, chances=chances
        )
        return sent, number

    def decode(
        self,
        stream: bytes,
        *,
        steps: int | None = None,
        seed: int = 0,
        guidance: float | None = None,
        fidelity: float | None = None,
    ) -> PIL.Image.Image:
        """The picture that the receiver makes of a stream; RGB, of the size in the stream.

        Args:
            stream: a whole .sempic file.
            steps: sampling steps of the receiver, 1 or more; more is slower. The bundled
                one takes 1 if nothing is said.
            seed: of the receiver's noise; the same seed gives the same picture on one machine.
            guidance: how much the label map counts: 1 as trained, 0 not at all, above 1 stressed.
            fidelity: 0, a likely picture, sharp … 1, the mean of all likely ones, soft.

        Raises:
            BitstreamError: not a stream that this version decodes.
            InputError: an argument out of range.
            ModelError: the receiver cannot be loaded or cannot take this scene.
        """
        import PIL.Image

        return PIL.Image.fromarray(
            self.synthesize(
                codec.unpack(stream), steps=steps, seed=seed, guidance=guidance, fidelity=fidelity
            )
        )

    def synthesize(
        self,
        scene: Scene,
        *,
        steps: int | None = None,
        seed: int = 0,
        guidance: float | None = None,
        fidelity: float | None = None,
    ) -> Image:
        """The receiver's picture of a scene, uint8 (height, width, 3); arguments as `decode`."""
        if not isinstance(scene, Scene):
            raise InputError(f"a scene is what unpack gives, not {type(scene).__name__}")
        checks.whole("seed", seed, 0)
        wishes = {
            "steps": None if steps is None else checks.whole("steps", steps, 1),
            "guidance": None if guidance is None else checks.number("guidance", guidance, 0),
            "fidelity": None if fidelity is None else checks.number("fidelity", fidelity, 0, 1),
        }
        controls = {name: value for name, value in wishes.items() if value is not None}
        picture: Any = self.receiver(scene, seed=seed, **controls)
        if (
            not isinstance(picture, np.ndarray)
            or picture.dtype != np.uint8
            or picture.shape != (scene.height, scene.width, 3)
        ):
            given = type(picture).__name__
            if isinstance(picture, np.ndarray):
                given = f"{picture.dtype} {picture.shape}"
            raise ModelError(
                f"the receiver is at fault: a picture of this scene is uint8 "
                f"{(scene.height, scene.width, 3)}, not {given}"
            )
        return picture

    def uncertainty(
        self,
        scene: Scene,
        *,
        samples: int = 8,
        steps: int | None = None,
        seed: int = 0,
        guidance: float | None = None,
        fidelity: float | None = None,
    ) -> npt.NDArray[np.float32]:
        """Where decodes of several seeds differ: float32 (height, width), in grey levels.

        The standard deviation over pictures of the seeds from `seed` on, root mean square over the
        three channels. A low value says that the seeds agree, not that they are right: what the
        receiver always imagines in the same way has one, too.

        Raises InputError if `samples` is less than 2, else as `decode`.
        """
        if checks.whole("samples", samples, 1) < 2:
            raise InputError(f"a spread needs 2 samples or more, not {samples}")
        mean = np.zeros((scene.height, scene.width, 3), np.float32)
        spread = np.zeros_like(mean)
        for index in range(samples):  # Welford's update, so that one picture is held at a time
            picture = self.synthesize(
                scene, steps=steps, seed=seed + index, guidance=guidance, fidelity=fidelity
            ).astype(np.float32)
            change = picture - mean
            mean += change / (index + 1)
            spread += change * (picture - mean)
        deviation: npt.NDArray[np.float32] = np.sqrt(spread.mean(2) / (samples - 1))
        return deviation


def preview(scene: Scene) -> Image:
    """The coarse picture of a scene enlarged to its full size (bicubic), uint8 (height, width, 3).

    Raises BitstreamError if the scene has none.
    """
    import PIL.Image

    from sempic import coarse

    given: object = scene
    if not isinstance(given, Scene):
        raise InputError(f"a scene is what unpack gives, not {type(given).__name__}")
    if scene.coarse is None:
        raise BitstreamError("the stream has no coarse picture")
    small = PIL.Image.fromarray(coarse.to_rgb(scene.coarse))
    size = (scene.width, scene.height)
    factor = coarse.factor(*size, *small.size)
    box = (0, 0, size[0] / factor, size[1] / factor) if factor else None
    return np.array(small.resize(size, PIL.Image.Resampling.BICUBIC, box))


def info(stream: bytes) -> dict[str, Any]:
    """What a stream holds and what each part costs, without decoding any payload.

    Keys: version, width, height (pixels), palette (name), model (id, 0 for any), coarse_codec
    (None if there is no coarse picture), bytes, bpp (of the whole stream), chunks ({"coarse": …,
    "labels": …} in bytes, of those that there are), overhead (bytes of all else).

    Raises BitstreamError as `unpack` does for a broken container.
    """
    stream = checks.stream(stream)
    c = container.read(stream)
    chunks = {
        name: len(payload)
        for name, payload in (("coarse", c.coarse), ("labels", c.labels))
        if payload is not None
    }
    return {
        "version": container.VERSION,
        "width": c.width,
        "height": c.height,
        "palette": c.own.split("#")[0] if c.own else PALETTES[c.palette].name,
        "model": c.model,
        "coarse_codec": None if c.coarse is None else c.coarse_type.name.lower(),
        "bytes": len(stream),
        "bpp": 8 * len(stream) / (c.width * c.height),
        "chunks": chunks,
        "overhead": len(stream) - sum(chunks.values()),
    }


@functools.cache
def shared() -> Codec:
    """The codec with the bundled models that `sempic.encode` and `sempic.decode` use."""
    return Codec()


def encode(
    image: PIL.Image.Image | npt.NDArray[np.uint8],
    *,
    labels: npt.NDArray[np.uint8] | Literal["none"] | None = None,
    palette: int | str | None = None,
    quality: int = DEFAULT_QUALITY,
    coarse_codec: str = "bpg",
    target_bpp: float | None = None,
    max_side: int | None = None,
    label_quality: LabelQuality | None = None,
    importance: Mapping[str, float] | None = None,
    ignore_label: int | None = None,
) -> bytes:
    """`Codec.encode`, where everything is explained, with the bundled segmenter."""
    return shared().encode(
        image,
        labels=labels,
        palette=palette,
        quality=quality,
        coarse_codec=coarse_codec,
        target_bpp=target_bpp,
        max_side=max_side,
        label_quality=label_quality,
        importance=importance,
        ignore_label=ignore_label,
    )


def decode(
    stream: bytes,
    *,
    steps: int | None = None,
    seed: int = 0,
    guidance: float | None = None,
    fidelity: float | None = None,
) -> PIL.Image.Image:
    """`Codec.decode`, where everything is explained, with the bundled receiver."""
    return shared().decode(stream, steps=steps, seed=seed, guidance=guidance, fidelity=fidelity)


def _best_within(target_bpp: float, pack: Callable[[int], bytes], levels: list[int]) -> bytes:
    """The stream of the highest level at or under the target, by bisection; raises RateError."""
    streams = {levels[0]: pack(levels[0])}
    least = info(streams[levels[0]])["bpp"]
    if least > target_bpp:
        raise RateError(
            f"{target_bpp:g} bpp cannot be reached: the least for this picture is {least:.4f} bpp"
        )
    low, high = 0, len(levels)  # low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        stream = pack(levels[middle])
        if info(stream)["bpp"] <= target_bpp:
            low, streams[levels[middle]] = middle, stream
        else:
            high = middle
    best = streams[levels[low]]
    if low == len(levels) - 1 and (most := info(best)["bpp"]) < target_bpp:
        text = f"quality {levels[-1]}, the finest, takes {most:.4f} bpp of the {target_bpp:g} given"
        warnings.warn(text, SempicWarning, stacklevel=4)
    return best


def _levels(
    size: tuple[int, ...], max_side: int | None, quality: int, target_bpp: float | None
) -> list[int]:
    """The levels that may be used for a picture of this size: the one that was asked for, or, for
    a target, all whose coarse picture is not too large; raises ImageError where there is none."""
    from sempic.coarse.planes import MAX_SIDE

    longest = max(size) if max_side is None else min(max(size), max_side)
    wanted = [quality] if target_bpp is None else sorted(QUALITY)
    fit = [level for level in wanted if longest <= MAX_SIDE * QUALITY[level].factor]
    if not fit:
        most = MAX_SIDE * max(QUALITY[level].factor for level in wanted)
        raise ImageError(
            f"{size[0]}×{size[1]}: at quality {wanted[0]} a side may have {most} pixels; "
            f"max_side {most} (--max-side {most}) scales it down"
        )
    return fit


def _palette_id(palette: int | str | None) -> int:
    if palette is None:
        return CAMVID.id
    if isinstance(palette, str):
        return find_palette(palette).id
    if checks.whole("palette", palette) not in PALETTES:
        raise LabelMapError(f"palette {palette} is not one of {', '.join(map(str, PALETTES))}")
    return palette


_T = TypeVar("_T")


def _model(role: str, given: _T) -> _T:
    if given is not None and not callable(given):
        _named(role, given)
    return given


def _named(what: str, given: Any) -> str | os.PathLike[str]:
    """A name of something; raises InputError."""
    if not isinstance(given, (str, os.PathLike)):
        raise InputError(f"{what} is a name or a path, not {type(given).__name__}")
    if not os.fspath(given):
        raise InputError(f"{what} is an empty name")
    return given
