"""The public codec: pictures to streams and back.

    encode = analyze (segmenter, coarse encoder) + pack
    decode = unpack + synthesize (receiver)

A `Codec` holds the models; functions of the module share one with those that are bundled.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar

import numpy as np

from sempic import checks, coarse, codec, container, fields, models, progress, texture, windows
from sempic.codec import Draft
from sempic.critical import BUDGET, FoundObject, table
from sempic.critical import read as read_receipt
from sempic.errors import BitstreamError, InputError, ModelError, warn
from sempic.models import runtime
from sempic.options import DEFAULT_QUALITY, DecodeOptions, EncodeOptions, LabelQuality
from sempic.palette import PALETTES, by_id, shown_name
from sempic.roles import Receiver, Segmenter, as_receiver, as_segmenter
from sempic.scene import Image, LabelMap, Scene

if TYPE_CHECKING:
    import numpy.typing as npt
    import PIL.Image
    from typing_extensions import Self

    from sempic.check import Verifier
    from sempic.labels import Prior


_P = ParamSpec("_P")
_T = TypeVar("_T")


class Codec:
    """A segmenter and a receiver around `pack` and `unpack`; optionally a verifier and a prior.

    Networks are loaded at their first use. A codec can be copied and pickled if its arguments can;
    the copy loads its networks anew.
    """

    def __init__(
        self,
        segmenter: Segmenter | Callable[[Image], LabelMap] | str | Path | None = None,
        receiver: Receiver | Callable[..., Image] | str | Path | None = None,
        verifier: Verifier | str | Path | None = None,
        prior: Prior | str | Path | None = None,
    ) -> None:
        """
        Args:
            segmenter: a specification for `sempic.segment.load` (an ONNX file or "hf:NAME"), a
                `sempic.roles.Segmenter`, or a function uint8 (H, W, 3) → uint8 (H, W), CamVid ids.
            receiver: a specification for `sempic.receive.load` (an ONNX file or a checkpoint of
                the paper's network), a `sempic.roles.Receiver`, or a function
                (scene, **controls) → uint8 (H, W, 3). The function gets the controls (steps, seed,
                guidance, fidelity) that it has arguments for.
            verifier: an ONNX file of a segmenter, or a `sempic.check.Verifier`; used by checks.
            prior: an .npz file of `sempic train label-prior`, or a `sempic.labels.Prior`. Maps of
                its palette use the prior where it saves bytes; decoding them needs it, too.

        None stands for the bundled network, or for no prior. Raises InputError for other types.
        """
        self._segmenter = _model("segmenter", segmenter, "__call__")
        self._receiver = _model("receiver", receiver, "__call__")
        self._verifier = _model("verifier", verifier, "predict", "palette", "digest")
        self._prior = _model("prior", prior, "causal", "palette", "digest")

    def __getstate__(self) -> dict[str, Any]:
        loaded = {"segmenter", "receiver", "verifier", "prior"}
        return {name: value for name, value in vars(self).items() if name not in loaded}

    @functools.cached_property
    def segmenter(self) -> Segmenter:
        """Raises ModelError if it cannot be loaded."""
        if callable(self._segmenter):
            return as_segmenter(self._segmenter)
        from sempic import segment

        return segment.load(self._segmenter)

    @functools.cached_property
    def receiver(self) -> Receiver:
        """Raises ModelError if it cannot be loaded."""
        if callable(self._receiver):
            return as_receiver(self._receiver)
        from sempic import receive

        return receive.load(self._receiver)

    @functools.cached_property
    def verifier(self) -> Verifier:
        """Raises ModelError if it cannot be loaded."""
        from sempic import check, segment

        given: Verifier | str | None = self._verifier
        if given is not None and not isinstance(given, str):
            return given
        path = models.find(models.VERIFIER) if given is None else Path(given)
        network = segment.Segmenter(path, side=check.SIDES)
        content = path.read_bytes()
        segmenter = models.find(models.SEGMENTER) if self._segmenter is None else self._segmenter
        if not callable(segmenter):
            file = Path(segmenter)
            if file.is_file() and file.read_bytes() == content:
                raise ModelError(f"{path}: the segmenter itself cannot find its own errors")
        digest = hashlib.sha256(content).hexdigest()[:8]
        return check.Verifier(
            predict=network.predict, label=network, palette=network.palette, digest=digest
        )

    @functools.cached_property
    def prior(self) -> Prior | None:
        """Of the label coder, if there is one. Raises ModelError if it cannot be loaded."""
        given: Prior | str | None = self._prior
        if not isinstance(given, str):
            return given
        from sempic.labels import own

        return own.load(Path(given))

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, revision: str | None = None, sha256: str | None = None
    ) -> Self:
        """The codec with the models of a folder, or of a repository of the Hugging Face hub.

        Args:
            name_or_path: a folder that `save_pretrained` made, or a repository "hf:OWNER/NAME",
                which is downloaded (extra `hub`).
            revision: branch, tag or commit of the repository; None: its main branch.
            sha256: of the manifest sempic.json, as `save_pretrained` returns it; pins all files.

        Raises:
            ModelError: no such folder or repository, or a file differs from the manifest.
        """
        from sempic import hub

        name = _name("name_or_path", name_or_path)
        if name.startswith(hub.PREFIX):
            folder = hub.download(name.removeprefix(hub.PREFIX), revision=revision)
        elif revision is not None:
            raise InputError(f"{name}: a folder has no revision {revision!r}")
        else:
            folder = Path(name)
        return cls(**hub.read(folder, sha256=sha256))

    def save_pretrained(self, folder: str | Path) -> str:
        """Write the models, the codec's own verifier and prior if it has them, a model card and a
        manifest with the hash of each file to a folder.

        Returns the SHA-256 of the manifest, for `from_pretrained`.

        Raises:
            ModelError: a model is not a file: a function, or a model of transformers.
            OutputError: the folder cannot be written.
        """
        from sempic import hub, receive

        paths = {}
        given = {
            models.SEGMENTER: self._segmenter,
            models.RECEIVER: self._receiver,
            models.VERIFIER: self._verifier,
            hub.PRIOR: self._prior,
        }
        for role, model in given.items():
            if model is None:
                if role in (models.SEGMENTER, models.RECEIVER):
                    paths[role] = models.find(role)
                continue
            if not isinstance(model, str) or model.startswith("hf:"):
                raise ModelError(f"only files can be saved, and the {role} is not a file")
            if Path(model).suffix.lower() in receive.PAPER:
                raise ModelError(f"only ONNX files can be saved, and the {role} is {model}")
            paths[role] = Path(model)
        return hub.write(Path(_name("folder", folder)), paths)

    def push_to_hub(self, name: str, *, private: bool = True) -> str:
        """Upload the files of `save_pretrained` to the repository OWNER/NAME of the Hugging Face
        hub, which is created if missing. Run `hf auth login` first.

        Returns the URL of the commit.

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
        palette: int | str | os.PathLike[str] | None = None,
        quality: int = DEFAULT_QUALITY,
        coarse_codec: str = "bpg",
        target_bpp: float | None = None,
        target_bytes: int | None = None,
        max_side: int | None = None,
        label_quality: LabelQuality | None = None,
        importance: Mapping[str, float] | None = None,
        ignore_label: int | None = None,
        model: int = 0,
        keep: Collection[str] = (),
        keep_boxes: Collection[tuple[int, ...]] = (),
        window_qp: int = windows.QP,
        imagine: Collection[str] = (),
        check: bool = False,
        critical: Mapping[str, Any] | str | os.PathLike[str] | None = None,
        check_budget: float = BUDGET,
    ) -> bytes:
        """The .sempic stream of a picture.

        Args:
            image: PIL image of any mode (see `sempic.pictures.to_rgb`), or uint8 (H, W, 3) in sRGB.
            labels: label map, uint8 (H, W), of the size of the upright picture, sent lossless;
                255 becomes void unless it is an id of the palette (license plate in Cityscapes'
                labelIds). None: the segmenter's map; no map if it is nearly all one class or, with
                a warning, the segmenter recognises too little. "none": no map.
            palette: of `labels`: id or name (`sempic.palette`), or the path of a `.json` file with
                a custom palette; default: CamVid. Without `labels`: "camvid" or "cityscapes", to
                which the segmenter's classes are mapped; default: the segmenter's palette.
            quality: 1…9, a level of QUALITY.
            coarse_codec: "bpg", "avif", "webp" or "jxl".
            target_bpp: most bits per pixel of the whole stream: the highest level that fits is
                used; without `quality`. Warns (SempicWarning) if the highest level is smaller.
            target_bytes: the same in bytes of the whole stream.
            max_side: scale the picture down first so that its longer side is at most this.
            label_quality: 1 (fewest bits) … 5 (fewest changes) of `sempic.simplify`, or "lossless".
                None: "lossless" for `labels`, DEFAULT_LABEL_QUALITY for the segmenter's map.
            importance: weight of a pixel by class, for `label_quality`; default 1, `math.inf`:
                never removed. Here and below, names of classes are those of the map's palette, or
                of another for the same thing, in any case and with _ or - for spaces.
            ignore_label: an id, in `labels` or of the segmenter, that is sent as void.
            model: `model_id` of the intended receiver, 1…14; others decode with a warning. 0: any.
            keep: names of classes, whose objects are sent in windows (`sempic.windows`): those in
                the map and, without `labels`, those that the segmenter does not think unlikely.
            keep_boxes: (left, top, width, height) in pixels of the upright picture, sent likewise.
            window_qp: HEVC's QP of all windows, 0 (finest) … 51.
            imagine: names of classes (one class of people stands for all of them) whose objects, by
                map, segmenter or verifier, no window touches, and whose texture is not sent;
                without a map there are no windows and no texture.
            check: verify the decoded picture: send objects that the verifier misses in windows, and
                the verdict in the stream (`sempic.check`).
            critical: classes that the check looks for instead of `GROUPS`; see
                `sempic.critical.table`.
            check_budget: most growth of the stream by these windows, as a share of the stream.

        Raises:
            ImageError, LabelMapError: input that cannot be coded.
            RateError: no level reaches the target; the message says the lowest rate possible.
            ModelError: the segmenter cannot be loaded, or its output is not a label map.
            InputError: an option out of range.
        """
        arguments = locals()
        options = EncodeOptions(**{name: arguments[name] for name in fields.of(EncodeOptions)})
        return self._encode(image, labels, options)

    def _encode(
        self,
        image: PIL.Image.Image | npt.NDArray[np.uint8],
        labels: npt.NDArray[np.uint8] | Literal["none"] | None,
        options: EncodeOptions,
    ) -> bytes:
        from sempic import drafts, pictures

        size = getattr(image, "size", None)
        if isinstance(size, tuple) and len(size) == 2:  # of PIL: check before decoding
            drafts.levels(size, options)
        pixels = pictures.to_rgb(image)
        full = pixels.shape[:2]
        levels = drafts.levels(full[::-1], options)
        own = drafts.settled(labels, pixels, options)
        if options.importance:
            source = self.segmenter.palette if labels is None else options.known_palette.id
            drafts.check_importance(labels, by_id(source), options)
        if options.max_side is not None:
            pixels, own = pictures.shrink(pixels, own, options.max_side)
        verifier = self.verifier if options.check else None
        if verifier is not None:
            from sempic import check

            check.wanted(options.table, verifier)  # refused before long work
            verifier = check.once(verifier, pixels, ahead=runtime.threads() != 1)
        plain = Draft(
            width=pixels.shape[1],
            height=pixels.shape[0],
            coarse_codec=options.coarse_codec,
            palette=options.known_palette.id,
            model=options.model,
            prior=self.prior,
        )
        seen, found = [], None
        if own is not None:
            plain, seen = drafts.with_map(plain, own, options), [own]
        elif labels is None:
            from sempic.segment.found import Found

            with progress.waiting("finding and simplifying labels", aloud=False):
                found = Found(self.segmenter, pixels, options)
                plain, seen = found.draft(plain), found.seen()
        name = PALETTES[plain.palette].full_name
        if plain.labels is not None and self.prior is not None and self.prior.palette != name:
            warn(
                f"the prior is of palette {self.prior.palette}: a map of {name} is coded without it"
            )
        all_drafts = drafts.Drafts(
            pixels,
            plain,
            options,
            verifier,
            self.synthesize,
            seen=seen,
            may_show=None if found is None else found.may_show,
            full=full,
        )
        del found  # it holds the segmenter's probabilities
        return all_drafts.best(levels)

    def find_labels(self, pixels: Image) -> tuple[LabelMap | None, int]:
        """The segmenter's map as `encode` sends it by default for a sharp picture, None if the
        segmenter recognises too little, and the id of its palette."""
        from sempic.segment.found import Found

        found = Found(self.segmenter, pixels, EncodeOptions(), halves=False)
        return found.labels(), found.palette

    def decode(
        self,
        stream: bytes | bytearray | memoryview,
        *,
        steps: int | None = None,
        seed: int = 0,
        guidance: float | None = None,
        fidelity: float | None = None,
    ) -> PIL.Image.Image:
        """The receiver's picture of a stream; RGB, of the size in the stream.

        Args:
            stream: a whole .sempic file.
            steps: sampling steps of the receiver, 1 or more; more are slower. None: the receiver's
                default, 1 for the bundled receiver.
            seed: of the receiver's noise; the same seed gives the same picture on one machine.
            guidance: weight of the label map: 0 none, 1 as trained, more than 1 exaggerated.
            fidelity: from 0, a likely picture, sharp, to 1, the mean of all likely pictures, soft.

        Raises:
            BitstreamError: not a stream that this version decodes.
            InputError: an argument out of range.
            ModelError: the receiver cannot be loaded, or does not support this scene.
        """
        import PIL.Image

        options = DecodeOptions(steps=steps, seed=seed, guidance=guidance, fidelity=fidelity)
        scene = codec.unpack(stream, prior=self.prior)
        return PIL.Image.fromarray(self._synthesized(scene, options))

    def objects(
        self,
        original: PIL.Image.Image | npt.NDArray[np.uint8],
        stream: bytes | bytearray | memoryview,
        *,
        critical: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    ) -> list[FoundObject]:
        """The critical objects that the decoded picture keeps, loses and invents, by the verifier.
        A receipt of the same networks and groups has their counts, but not their places.

        original: the picture of the stream, as `encode` takes it; a larger one is scaled down as by
        `max_side`. critical: as of `encode`.

        Raises InputError: an original of another shape or smaller; otherwise as `encode`, `decode`.
        """
        from sempic import check, pictures

        own = None if critical is None else table("critical", critical)
        groups = check.wanted(own, self.verifier)
        scene = codec.unpack(stream, prior=self.prior)
        pixels = pictures.to_rgb(original)
        height, width = pixels.shape[:2]
        pixels, _ = pictures.shrink(pixels, None, max(scene.width, scene.height))
        if pixels.shape[:2] != (scene.height, scene.width):
            raise InputError(
                f"the original of {width}×{height} cannot be scaled down to the stream's picture "
                f"of {scene.width}×{scene.height}"
            )
        return check.find(pixels, self.synthesize(scene), verifier=self.verifier, groups=groups)

    def synthesize(
        self,
        scene: Scene,
        *,
        steps: int | None = None,
        seed: int = 0,
        guidance: float | None = None,
        fidelity: float | None = None,
    ) -> Image:
        """The receiver's picture of a scene, uint8 (height, width, 3); arguments and errors as
        `decode`, and LabelMapError for a changed map that does not fit scene or palette."""
        _need_scene(scene)
        options = DecodeOptions(steps=steps, seed=seed, guidance=guidance, fidelity=fidelity)
        return self._synthesized(scene, options)

    def _synthesized(self, scene: Scene, options: DecodeOptions) -> Image:
        receiver = self.receiver
        controls = {name: v for name, v in options.keywords().items() if v is not None}
        for name in controls.keys() - receiver.controls:
            if controls.pop(name) != options.usual(name):
                raise ModelError(f"this receiver has no {name}")
        if scene.model and receiver.model_id not in (None, scene.model):
            warn(f"the stream is for receiver {scene.model}; this is receiver {receiver.model_id}")
        picture = self._painted(scene, controls)
        return windows.blend(picture, scene.windows) if scene.windows else picture

    def _painted(self, scene: Scene, controls: dict[str, Any]) -> Image:
        """The receiver's picture without windows, its texture limited to the strength in the scene;
        painted at half the size and enlarged if the scene is `halved`."""
        if scene.halved:
            from sempic import halving

            half = scene.half()
            # Enlarging weakens texture once more, so the network does not see the texture
            # (docs/experiments/receiver.md).
            painted = self._painted(dataclasses.replace(half, texture={}), controls)
            painted = texture.weaken(painted, half.labels, scene.texture, patterns=False)
            return halving.enlarged(painted)[: scene.height, : scene.width]
        picture: Any = self.receiver(scene, **controls)
        if not checks.is_uint8(picture, 3) or picture.shape != (scene.height, scene.width, 3):
            raise ModelError(
                f"the receiver is at fault: a picture of this scene is uint8 "
                f"{(scene.height, scene.width, 3)}, not {checks.kind(picture)}"
            )
        return texture.weaken(picture, scene.labels, scene.texture)

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
        """How much pictures of different seeds differ: float32 (height, width), in grey levels.

        The standard deviation over `samples` seeds from `seed` on, root mean square over the three
        channels. A low value says that the seeds agree, not that the picture is right.

        Raises InputError if `samples` is less than 2; otherwise as `decode`.
        """
        _need_scene(scene)
        samples = checks.whole("samples", samples, 2)
        options = DecodeOptions(steps=steps, seed=seed, guidance=guidance, fidelity=fidelity)
        mean = np.zeros((scene.height, scene.width, 3), np.float32)
        spread = np.zeros_like(mean)
        for index in range(samples):  # Welford's update holds one picture at a time
            another = dataclasses.replace(options, seed=options.seed + index)
            picture = self._synthesized(scene, another).astype(np.float32)
            change = picture - mean
            mean += change / (index + 1)
            spread += change * (picture - mean)
        deviation: npt.NDArray[np.float32] = np.sqrt(spread.mean(2) / (samples - 1))
        return deviation


def preview(scene: Scene) -> Image:
    """The coarse picture at the full size of the scene (bicubic), uint8 (height, width, 3).

    Raises BitstreamError if the scene has no coarse picture.
    """
    import PIL.Image

    _need_scene(scene)
    if scene.coarse is None:
        raise BitstreamError("the stream has no coarse picture")
    small = PIL.Image.fromarray(coarse.to_rgb(scene.coarse))
    size = (scene.width, scene.height)
    factor = coarse.factor(*size, *small.size)
    box = (0, 0, size[0] / factor, size[1] / factor) if factor else None
    return np.array(small.resize(size, PIL.Image.Resampling.BICUBIC, box))


def info(
    stream: bytes | bytearray | memoryview, *, shares: bool = False, prior: Prior | None = None
) -> dict[str, Any]:
    """The parts of a stream and the bytes of each; no payload is decoded.

    Args:
        stream: a whole .sempic file.
        shares: decode the label map and add `classes`: the share of the picture that each class,
            void included, takes, largest first; None if there is no map.
        prior: custom prior of the label coder, if the map needs one.

    Keys: version, width, height (pixels), palette (name), model (id, 0: any), coarse_codec (None:
    no coarse picture), bytes, bpp (of the whole stream), chunks ({"coarse": …, "labels": …,
    "windows": …, "texture": …}: the bytes of each chunk present), overhead (all other bytes),
    windows (a list of [left, top, width, height] in pixels), receipt (None, or the result of a
    check: {"verifier": …, "table": None or the digest of custom groups, "groups": {"people":
    {"seen": …, "kept": …, "lost": …, "invented": …}, …}, "all": {…}}).

    Raises BitstreamError as `unpack` for a broken container.
    """
    stream = checks.stream(stream)
    c = container.read(stream)
    chunks = {
        name: len(payload)
        for name in ("coarse", "labels", "windows", "texture")
        if (payload := getattr(c, name)) is not None
    }
    described = {
        "version": container.VERSION,
        "width": c.width,
        "height": c.height,
        "palette": shown_name(c.palette, c.own),
        "model": c.model,
        "coarse_codec": None if c.coarse is None else coarse.BY_CHUNK[c.coarse_type].name,
        "bytes": len(stream),
        "bpp": 8 * len(stream) / (c.width * c.height),
        "chunks": chunks,
        "overhead": len(stream) - sum(chunks.values()),
        "windows": [] if c.windows is None else windows.where(c.windows, c.width, c.height),
        "receipt": None
        if c.receipt is None
        else read_receipt(c.receipt, own=c.own_groups).described(),
    }
    if not shares:
        return described
    return described | {"classes": _shares(codec.unpack(stream, only="labels", prior=prior))}


def _shares(scene: Scene) -> dict[str, float] | None:
    if scene.labels is None:
        return None
    counts = np.bincount(scene.labels.ravel())
    names = PALETTES[scene.palette].classes
    largest = sorted(np.flatnonzero(counts).tolist(), key=lambda i: -counts[i])
    return {names[i]: float(counts[i] / scene.labels.size) for i in largest}


@functools.cache
def shared() -> Codec:
    """The codec of `sempic.encode` and `sempic.decode`: the bundled models."""
    return Codec()


def codec_or_shared(given: Codec | None) -> Codec:
    """`given`, or the shared codec for None; raises InputError for other types."""
    if given is not None and not isinstance(given, Codec):
        raise InputError(f"codec is a sempic.Codec, not {type(given).__name__}")
    return given or shared()


def _of_the_shared(method: Callable[Concatenate[Codec, _P], _T]) -> Callable[_P, _T]:
    """A method of `Codec` as a function that uses the shared codec."""

    def function(*args: _P.args, **keywords: _P.kwargs) -> _T:
        return method(shared(), *args, **keywords)

    signature = inspect.signature(method)
    _, *parameters = signature.parameters.values()
    function.__name__ = function.__qualname__ = method.__name__
    function.__doc__ = f"`Codec.{method.__name__}` with the bundled models."
    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return function


encode = _of_the_shared(Codec.encode)
"""`Codec.encode` with the bundled models."""

decode = _of_the_shared(Codec.decode)
"""`Codec.decode` with the bundled models."""

objects = _of_the_shared(Codec.objects)
"""`Codec.objects` with the bundled models."""


def _need_scene(value: object) -> None:
    """Raises InputError for what is no scene, LabelMapError for one whose map does not fit it."""
    if not isinstance(value, Scene):
        raise InputError(f"a scene is a sempic.Scene of unpack, not {type(value).__name__}")
    if (labels := value.labels) is not None:
        size = {"width": value.width, "height": value.height}
        codec.check_labels(labels, **size, palette=value.palette)


def _model(role: str, model: Any, *attributes: str) -> Any:
    """The argument of `Codec` for a model: None, an object with these attributes (its class may be
    slow to import), or a path as text. Raises InputError for others."""
    fits = model is None or all(hasattr(model, attribute) for attribute in attributes)
    return model if fits else _name(role, model)


def _name(argument: str, value: Any) -> str:
    """A name or path that is not empty, as text; raises InputError."""
    if not isinstance(value, (str, os.PathLike)):
        raise InputError(f"{argument} is a name or a path, not {type(value).__name__}")
    if not (name := os.fsdecode(value)) or "\0" in name:
        raise InputError(f"{argument} is an empty name, or has a null character")
    return name
