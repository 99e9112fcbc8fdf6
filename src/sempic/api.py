"""The codec as people use it: pictures in, bytes out, and back.

encode = analyze (segmenter, coarse encoder) + pack
decode = unpack + synthesize (receiver)
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

from sempic import checks, coarse, codec, container, critical, fields, models, progress, texture
from sempic.codec import Draft
from sempic.critical import BUDGET, Receipt, Tally
from sempic.errors import BitstreamError, InputError, ModelError, warn
from sempic.models import runtime
from sempic.options import DEFAULT_QUALITY, LOSSLESS, DecodeOptions, EncodeOptions, LabelQuality
from sempic.palette import CAMVID, CITYSCAPES, PALETTES, Palette, alike, shown_name, translate
from sempic.roles import Receiver, Segmenter, as_receiver, as_segmenter
from sempic.scene import Image, LabelMap, Scene

if TYPE_CHECKING:
    from concurrent.futures import Future

    import numpy.typing as npt
    import PIL.Image
    from typing_extensions import Self

    from sempic.check import Verifier
    from sempic.drafts import Coded, Drafts
    from sempic.labels import Prior
    from sempic.segment.guess import Guess
    from sempic.windows.layout import Cells


_P = ParamSpec("_P")
_T = TypeVar("_T")


class Codec:
    """A segmenter and a receiver, loaded when first needed, around `pack` and `unpack`.

    A verifier and a prior of the label coder may be told with them.
    """

    def __init__(
        self,
        segmenter: Segmenter | Callable[[Image], LabelMap] | str | Path | None = None,
        receiver: Receiver | Callable[..., Image] | str | Path | None = None,
        verifier: Verifier | str | Path | None = None,
        prior: Prior | str | Path | None = None,
    ) -> None:
        """Each is None (the bundled one), a specification for `load` of `sempic.segment` or
        `sempic.receive` (a path to an ONNX file, "hf:NAME", a checkpoint of the paper's
        network), a `Segmenter` or `Receiver` of `sempic.roles`, or a plain function: uint8
        (H, W, 3) → uint8 (H, W), ids of CamVid; (scene, **controls) → uint8 (H, W, 3), with those
        of the controls steps, seed, guidance and fidelity that it has arguments for. The verifier,
        which only checks need, is an ONNX file or a `sempic.check.Verifier`. The prior is an
        .npz file of `sempic train label-prior`, or what `sempic.labels.own` reads of one: maps of
        its palette are coded with it where that saves bytes, and decoded by codecs that have it. A
        codec can be copied and pickled as far as these can; the copy loads its networks anew.
        Raises InputError for anything else."""
        self._segmenter = _model("segmenter", segmenter)
        self._receiver = _model("receiver", receiver)
        self._verifier = verifier
        self._prior = prior

    def __getstate__(self) -> dict[str, Any]:
        given = ("_segmenter", "_receiver", "_verifier", "_prior")
        return {name: getattr(self, name) for name in given}  # nothing that is loaded

    @functools.cached_property
    def segmenter(self) -> Segmenter:
        """Raises ModelError if it cannot be loaded."""
        if callable(self._segmenter):
            return as_segmenter(self._segmenter)
        from sempic import segment

        return segment.load(None if self._segmenter is None else str(self._segmenter))

    @functools.cached_property
    def receiver(self) -> Receiver:
        """Raises ModelError if it cannot be loaded."""
        if callable(self._receiver):
            return as_receiver(self._receiver)
        from sempic import receive

        return receive.load(None if self._receiver is None else str(self._receiver))

    @functools.cached_property
    def verifier(self) -> Verifier:
        """Raises ModelError if it cannot be loaded."""
        from sempic import check, segment

        if isinstance(self._verifier, check.Verifier):
            return self._verifier
        given = self._verifier
        path = models.find(models.VERIFIER) if given is None else Path(_named("verifier", given))
        network = segment.Segmenter(path, side=check.SIDE)
        content = path.read_bytes()
        named = models.find(models.SEGMENTER) if self._segmenter is None else self._segmenter
        coder = Path(named) if isinstance(named, (str, Path)) else None
        if coder is not None and coder.is_file() and coder.read_bytes() == content:
            raise ModelError(f"{path}: the segmenter itself, which does not see what it missed")
        digest = hashlib.sha256(content).hexdigest()[:8]
        return check.Verifier(predict=network.predict, palette=network.palette, digest=digest)

    @functools.cached_property
    def prior(self) -> Prior | None:
        """Of the label coder, if one was given. Raises ModelError if it cannot be loaded."""
        if self._prior is None:
            return None
        from sempic.labels import Prior, own

        given = self._prior
        return given if isinstance(given, Prior) else own.load(Path(_named("prior", given)))

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
        """Write the models, and the prior if there is one, to a folder, with a model card and a
        manifest with the hash of each file.

        Returns the SHA-256 of the manifest, which `from_pretrained` can be given.

        Raises:
            ModelError: a model is no file but a function or one of transformers.
            OutputError: the folder cannot be written.
        """
        from sempic import hub

        found = {}
        for role in (models.SEGMENTER, models.RECEIVER):
            given: Any = self._segmenter if role == models.SEGMENTER else self._receiver
            if callable(given) or str(given).startswith("hf:"):
                raise ModelError(f"only ONNX files can be saved, and the {role} is none")
            found[role] = models.find(role) if given is None else Path(given)
        if self._prior is not None:
            if not isinstance(self._prior, (str, os.PathLike)):
                raise ModelError("only files can be saved, and the prior is none")
            found[hub.PRIOR] = Path(self._prior)
        return hub.write(Path(_named("folder", folder)), found)

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
        target_bytes: int | None = None,
        max_side: int | None = None,
        label_quality: LabelQuality | None = None,
        importance: Mapping[str, float] | None = None,
        ignore_label: int | None = None,
        model: int = 0,
        keep: Collection[str] = (),
        keep_boxes: Collection[tuple[int, ...]] = (),
        imagine: Collection[str] = (),
        check: bool = False,
        critical: Mapping[str, Any] | str | os.PathLike[str] | None = None,
        check_budget: float = BUDGET,
    ) -> bytes:
        """The .sempic stream of a picture.

        Args:
            image: PIL image of any mode (see `sempic.pictures.to_rgb`), or uint8 (H, W, 3) in sRGB.
            labels: uint8 (H, W) ids of the palette, of the size of the upright picture; sent bit
                for bit, but for 255 where that is no id: that is void (and Cityscapes' license
                plate). None: the segmenter finds them; a picture of which it knows little has none,
                and warns, nor has one of a single class. "none": a stream without a map.
            palette: of `labels`, id or name (`sempic.palette`), or the path of a `.json` file with
                one of your own; CamVid if not given. Without `labels` it is the segmenter's;
                "camvid" maps the segmenter's classes to those.
            quality: 1…9, a level of QUALITY.
            coarse_codec: "bpg", "avif", "webp" or "jxl".
            target_bpp: bits per pixel of the whole stream: the best level at or below it, whatever
                `quality` is. Warns (SempicWarning) if even the finest level leaves bits over.
            target_bytes: the same in bytes of the whole stream.
            max_side: scale the picture down first so that its longer side is at most this.
            label_quality: 1 (fewest bits) … 5 (fewest changes) of `sempic.simplify`, or "lossless".
                None: "lossless" for `labels`, DEFAULT_LABEL_QUALITY for the segmenter's map.
            importance: what a pixel of a class is worth to `label_quality`; `math.inf`: all.
            ignore_label: an id, in `labels` or of the segmenter, that is sent as void.
            model: `model_id` of the receiver meant, 1…14; others decode it and warn. 0: any.
            keep: classes by name: what the map takes for them is sent in `sempic.windows`.
            keep_boxes: (left, top, width, height) in pixels of the upright picture: sent as well.
            imagine: classes by name; one kind of people stands for all. No window touches what the
                map, or the verifier, takes for them; without a map there are no windows.
            check: send windows where a verifier doubts it, and the verdict (`sempic.check`).
            critical: what the check looks for instead of `GROUPS`: see `sempic.critical.table`.
            check_budget: the share of the file by which these windows may enlarge it.

        Raises:
            ImageError, LabelMapError: input that cannot be coded.
            RateError: no level reaches the target; the message names the least that is reached.
            ModelError: the segmenter cannot be loaded, or gives what is no label map.
            InputError: an option out of range.
        """
        given = locals()
        return self._encode(
            image, labels, EncodeOptions(**{name: given[name] for name in fields.of(EncodeOptions)})
        )

    def _encode(
        self,
        image: PIL.Image.Image | npt.NDArray[np.uint8],
        labels: npt.NDArray[np.uint8] | Literal["none"] | None,
        options: EncodeOptions,
    ) -> bytes:
        from sempic import drafts, pictures

        size = getattr(image, "size", None)  # of a PIL image: before its pixels are decoded
        if isinstance(size, tuple) and len(size) == 2:
            drafts.levels(size, options)
        pixels = pictures.to_rgb(image)
        height, width = pixels.shape[:2]
        levels = drafts.levels((width, height), options)
        given = drafts.settled(labels, pixels, options)
        if options.max_side is not None:
            pixels, given = pictures.shrink(pixels, given, options.max_side)
        verifier = self._looking(pixels) if options.check else None
        palette, halved = options.known_palette.id, False
        ready: Future[Coded] | None = None
        if labels is None:
            halved = options.label_quality != LOSSLESS and pictures.is_soft(pixels)
            with progress.waiting("finding and simplifying labels", aloud=False):
                given, palette, ready = self._found(pixels, options, halved)
            halved = halved and given is not None
        elif given is not None and isinstance(options.label_quality, int):
            from sempic.simplify import simplify

            with progress.waiting("simplifying labels", aloud=False):
                given = simplify(
                    given, options.label_quality, palette=palette, importance=options.importance
                )
        if given is not None:
            self._heed_prior(PALETTES[palette])
        plain = Draft(
            width=pixels.shape[1],
            height=pixels.shape[0],
            labels=given,
            coarse_codec=options.coarse_codec,
            palette=palette,
            model=options.model,
            halved=halved,
            prior=self.prior,
        )
        made = drafts.Drafts(pixels, plain, options, full=(height, width), ready=ready)
        draft, stream = made.best(levels)
        if verifier is None:
            return stream
        return self._checked(pixels, draft, stream, made, verifier, options)

    def _looking(self, pixels: Image) -> Verifier:
        """The verifier, which looks at the original while that is coded, if threads may be used."""
        from sempic import check

        return self.verifier if runtime.threads() == 1 else check.looking(self.verifier, pixels)

    def _heed_prior(self, palette: Palette) -> None:
        """Warns if the prior that was given does not serve maps of a palette."""
        if self.prior is not None and self.prior.palette != palette.full_name:
            of, here = self.prior.palette, palette.full_name
            warn(f"the prior is of palette {of}: a map of {here} is coded without it")

    def _checked(
        self,
        pixels: Image,
        draft: Draft,
        stream: bytes,
        made: Drafts,
        verifier: Verifier,
        options: EncodeOptions,
    ) -> bytes:
        """The stream of a draft, mended, with a receipt."""
        from sempic import check
        from sempic.windows import choice

        seen_by = PALETTES[verifier.palette]
        known = [name for name in options.imagine if alike(name, seen_by) is not None]

        def forbidden(before: LabelMap) -> Cells:
            return made.never | choice.imagined(before, seen_by, known)

        with progress.waiting("checking what is lost", aloud=False):
            return check.checked(
                pixels,
                draft,
                stream,
                verifier=verifier,
                paint=self.synthesize,
                budget=options.check_budget,
                table=options.table,
                sent=made.sent,
                never=forbidden,
            )

    def _found(
        self, pixels: Image, options: EncodeOptions, halved: bool
    ) -> tuple[LabelMap | None, int, Future[Coded] | None]:
        """The segmenter's map as it is sent, None where it knows too little, its palette, and, if
        one level is asked for, its coarse picture: both are made at once."""
        from concurrent.futures import ThreadPoolExecutor

        from sempic import drafts

        small = coarse.downscale(pixels, 2) if halved else pixels
        guess, enough = self._guess(small, options)
        palette = guess.palette if options.palette is None else options.known_palette.id
        if palette != guess.palette and palette not in (CAMVID.id, CITYSCAPES.id):
            name = PALETTES[palette].name
            raise InputError(f"the segmenter's classes cannot be named in palette {name}")
        ready = None
        with ThreadPoolExecutor(1) as helper:
            if not options.targeted and enough and runtime.threads() != 1:
                ready = helper.submit(drafts.begun, pixels, palette, halved, options)
            labels = guess.sent_alone(options.found_quality, options.importance) if enough else None
        if labels is None:
            return None, palette, None
        if halved:
            labels = codec.repeated(labels, 2, pixels.shape[:2])
        return translate(labels, guess.palette, palette), palette, ready

    def find_labels(
        self, pixels: Image, options: EncodeOptions | None = None
    ) -> tuple[LabelMap | None, int]:
        """The segmenter's map as it would be sent, None where it knows too little, and the id of
        its palette."""
        options = options or EncodeOptions()
        guess, enough = self._guess(pixels, options)
        found = guess.sent_alone(options.found_quality, options.importance) if enough else None
        return found, guess.palette

    def _guess(self, pixels: Image, options: EncodeOptions) -> tuple[Guess, bool]:
        """What the segmenter finds, and whether it knows enough for that to be sent."""
        from sempic.segment.guess import look

        guess = look(self.segmenter, pixels, options.found_quality, options.ignore_label)
        if (why := guess.objection()) is not None:
            warn(f"sent without a label map: {why}")
        return guess, why is None

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

        options = DecodeOptions(steps=steps, seed=seed, guidance=guidance, fidelity=fidelity)
        scene = codec.unpack(stream, prior=self.prior)
        return PIL.Image.fromarray(self._synthesized(scene, options))

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
            mine = receiver.model_id
            warn(f"the stream was made for receiver {scene.model}, and this is {mine}")
        picture = self._painted(scene, controls)
        if not scene.windows:
            return picture
        from sempic import windows

        return windows.blend(picture, scene.windows)

    def _painted(self, scene: Scene, controls: dict[str, Any]) -> Image:
        """What the receiver paints, at half the size if the scene says so, with no more texture
        than it says."""
        if scene.halved:
            from sempic import pictures

            half = scene.half()
            # What the network would paint weaker is weaker yet when enlarged: it is not told
            # (docs/experiments/receiver.md).
            painted = self._painted(dataclasses.replace(half, texture={}), controls)
            painted = texture.heed(painted, half.labels, scene.texture)
            return pictures.doubled(painted)[: scene.height, : scene.width]
        picture: Any = self.receiver(scene, **controls)
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
        return texture.heed(picture, scene.labels, scene.texture)

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
        _need_scene(scene)
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

    _need_scene(scene)
    if scene.coarse is None:
        raise BitstreamError("the stream has no coarse picture")
    small = PIL.Image.fromarray(coarse.to_rgb(scene.coarse))
    size = (scene.width, scene.height)
    factor = coarse.factor(*size, *small.size)
    box = (0, 0, size[0] / factor, size[1] / factor) if factor else None
    return np.array(small.resize(size, PIL.Image.Resampling.BICUBIC, box))


def info(stream: bytes, *, shares: bool = False, prior: Prior | None = None) -> dict[str, Any]:
    """What a stream holds and what each part costs, without decoding any payload.

    Args:
        stream: a whole .sempic file.
        shares: decode the map, too, and add `classes`: which share of the picture each class
            that is in it takes, void too, the largest first; None if there is no map.
        prior: of the label coder, one's own, which the map may need.

    Keys: version, width, height (pixels), palette (name), model (id, 0 for any), coarse_codec
    (None if there is no coarse picture), bytes, bpp (of the whole stream), chunks ({"coarse": …,
    "labels": …, "windows": …, "texture": …} in bytes, of those that there are), overhead (bytes of
    all else), windows (where the original is shown: a list of [left, top, width, height] in
    pixels), receipt (None, or what a check found: {"verifier": …, "table": None or the digest of
    groups of the sender's own, "groups": {"people": {"seen": …, "kept": …, "lost": …,
    "invented": …}, …}, "all": {…}}).

    Raises BitstreamError as `unpack` does for a broken container.
    """
    from sempic import windows

    stream = checks.stream(stream)
    c = container.read(stream)
    chunks = {
        name: len(payload)
        for name in ("coarse", "labels", "windows", "texture")
        if (payload := getattr(c, name)) is not None
    }
    known = {
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
        else _receipt(critical.read(c.receipt, own=c.own_groups)),
    }
    if not shares:
        return known
    return known | {"classes": _shares(codec.unpack(stream, only="labels", prior=prior))}


def _shares(scene: Scene) -> dict[str, float] | None:
    if scene.labels is None:
        return None
    counts = np.bincount(scene.labels.ravel())
    names = PALETTES[scene.palette].classes
    largest = sorted(np.flatnonzero(counts).tolist(), key=lambda i: -counts[i])
    return {names[i]: float(counts[i] / scene.labels.size) for i in largest}


def _receipt(receipt: Receipt) -> dict[str, Any]:
    def counts(tally: Tally) -> dict[str, int]:
        return {name: getattr(tally, name) for name in ("seen", "kept", "lost", "invented")}

    return {
        "verifier": receipt.verifier,
        "table": receipt.table,
        "groups": {name: counts(tally) for name, tally in receipt.groups.items()},
        "all": counts(receipt.total),
    }


@functools.cache
def shared() -> Codec:
    """The codec with the bundled models that `sempic.encode` and `sempic.decode` use."""
    return Codec()


def codec_or_shared(given: Codec | None) -> Codec:
    """A codec that was given, or the one with the bundled models; raises InputError."""
    if given is not None and not isinstance(given, Codec):
        raise InputError(f"codec is a sempic.Codec, not {type(given).__name__}")
    return given or shared()


def _of_the_shared(method: Callable[Concatenate[Codec, _P], _T]) -> Callable[_P, _T]:
    """A method as a function: of the codec with the bundled models."""

    def function(*args: _P.args, **keywords: _P.kwargs) -> _T:
        return method(shared(), *args, **keywords)

    signature = inspect.signature(method)
    _, *parameters = signature.parameters.values()
    function.__name__ = function.__qualname__ = method.__name__
    function.__doc__ = f"`Codec.{method.__name__}` with the bundled models."
    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return function


encode = _of_the_shared(Codec.encode)
"""`Codec.encode`, where everything is explained, with the bundled segmenter."""

decode = _of_the_shared(Codec.decode)
"""`Codec.decode`, where everything is explained, with the bundled receiver."""


def _need_scene(given: object) -> None:
    if not isinstance(given, Scene):
        raise InputError(f"a scene is what unpack gives, not {type(given).__name__}")


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
