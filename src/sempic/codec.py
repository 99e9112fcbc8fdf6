"""Scene ⇄ bytes. Pure, exact on every machine, and without any network.

`unpack(pack(…))` gives back the label map bit for bit, and the planes that the coarse payload
decodes to. The inverse does not hold: a scene has the decoded coarse planes, and coding those
again would lose a little more. So `pack` takes the coarse picture as a payload of `sempic.coarse`,
and how well that was coded is the encoder's choice, not the format's.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

import numpy as np

from sempic import checks, container, critical
from sempic import coarse as coarse_codecs
from sempic import texture as textures
from sempic.container import MAX_PIXELS, Container
from sempic.critical import Receipt
from sempic.errors import CorruptStream, LabelMapError
from sempic.palette import CAMVID, PALETTES
from sempic.scene import Coarse, LabelMap, Scene, Window
from sempic.texture import Texture

if TYPE_CHECKING:
    from sempic.labels import Prior, Seen

# sempic.labels is imported where it is used: numba behind it takes long to load, which
# `import sempic` and `sempic info` need not pay.


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Draft:
    """What is to be packed; the fields are the arguments of `pack`."""

    width: int
    height: int
    labels: LabelMap | None = None
    coarse: bytes | None = None
    coarse_codec: str = "bpg"
    palette: int = CAMVID.id
    model: int = 0
    halved: bool = False
    windows: bytes | None = None
    receipt: Receipt | None = None
    texture: Texture | None = None
    prior: Prior | None = None
    seen: Seen | None = None

    def pack(self) -> bytes:
        """The stream; raises as `pack` does."""
        return pack(**{field.name: getattr(self, field.name) for field in fields(self)})

    def planes(self) -> Coarse | None:
        """The coarse planes that windows are coded with."""
        return exact_planes(self.coarse, coarse_codecs.CODECS[self.coarse_codec])

    def scene(self) -> Scene:
        """The scene that a receiver will have: what `unpack` makes of the stream, sooner."""
        from sempic import windows

        shown: tuple[Window, ...] = ()
        if self.windows is not None:
            shown = windows.decode(self.windows, self.width, self.height, self.planes())
        return Scene(
            width=self.width,
            height=self.height,
            palette=self.palette,
            own=PALETTES[self.palette].identity,
            model=self.model,
            halved=self.halved,
            labels=self.labels,
            coarse=None
            if self.coarse is None
            else coarse_codecs.decode(self.coarse, codec=self.coarse_codec),
            windows=shown,
            texture=dict(self.texture or {}),
        )


def pack(
    *,
    width: int,
    height: int,
    labels: LabelMap | None = None,
    coarse: bytes | None = None,
    coarse_codec: str = "bpg",
    palette: int = CAMVID.id,
    model: int = 0,
    halved: bool = False,
    windows: bytes | None = None,
    receipt: Receipt | None = None,
    texture: Texture | None = None,
    prior: Prior | None = None,
    seen: Seen | None = None,
) -> bytes:
    """The stream of a scene.

    Args:
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        labels: uint8 (height, width), ids of the palette; sent lossless.
        coarse: payload from `sempic.coarse.encode`.
        coarse_codec: which codec that payload is of, a name in `sempic.coarse.CODECS`.
        palette: id of the palette (`sempic.palette`).
        model: id of the receiver that the sender has in mind, 0 for any.
        halved: the picture has no detail that half its size would lose, and the labels have one id
            in each 2×2 pixels, which is sent.
        windows: payload from `sempic.windows.encode`, made with this coarse picture.
        receipt: what a check found.
        texture: what `sempic.texture.ask` found, if that is anything.
        prior: of the label coder, one's own (`sempic.labels.own`), which the decoder must have;
            used for labels of its palette where it saves bytes.
        seen: what `look` saw of this coarse picture, if it has looked before.

    Raises:
        LabelMapError: labels of another shape or type, with ids outside the palette, or `halved`
            and not the same in each 2×2 pixels.
        InputError: a size or an id that the format does not have.
    """
    checks.one_of("coarse codec", coarse_codec, coarse_codecs.CODECS)
    kind = coarse_codecs.CODECS[coarse_codec]
    for name, value in (("width", width), ("height", height)):
        checks.whole(name, value)
    checks.whole("palette", palette)
    checks.whole("model", model)
    if coarse is not None:
        coarse = checks.stream(coarse)
    if windows is not None:
        windows = checks.stream(windows)
    payload = None
    if halved and labels is None:
        raise LabelMapError("no labels that could be halved")
    if labels is not None:
        check_labels(labels, width=width, height=height, palette=palette)
        if halved and not is_doubled(labels):
            raise LabelMapError("halved labels have one id in each 2×2 pixels, and these have not")
        from sempic import labels as coder

        context = exact_planes(coarse, kind)
        payload = coder.encode(
            labels[::2, ::2] if halved else labels,
            coarse=context,
            model=PALETTES[palette].full_name,
            own=prior,
            seen=seen,
        )
    return container.write(
        Container(
            width=width,
            height=height,
            palette=palette,
            model=model,
            labels=payload,
            halved=halved,
            coarse=coarse,
            coarse_type=kind.chunk,
            windows=windows,
            receipt=None if receipt is None else critical.write(receipt),
            own_groups=receipt is not None and receipt.table is not None,
            texture=textures.write(texture) if texture else None,
        )
    )


def unpack(
    stream: bytes,
    *,
    only: Literal["labels", "coarse"] | None = None,
    max_pixels: int = MAX_PIXELS,
    prior: Prior | None = None,
) -> Scene:
    """The scene in a stream.

    Args:
        stream: a whole .sempic file.
        only: decode just this part and leave the other None.
        max_pixels: refuse pictures with more pixels than this.
        prior: of the label coder, one's own, which the stream may have been made with.

    Raises:
        BitstreamError: the stream is not one that this version decodes; its subclass says why.
    """
    if only is not None:
        checks.one_of("only", only, ("labels", "coarse"))
    c = container.read(checks.stream(stream), max_pixels=checks.whole("max_pixels", max_pixels, 1))
    if c.receipt is not None:
        critical.read(c.receipt, own=c.own_groups)
    said = {} if c.texture is None else textures.read(c.texture)
    scene_labels = scene_coarse = None
    scene_windows: tuple[Window, ...] = ()
    kind = coarse_codecs.BY_CHUNK[c.coarse_type]
    if c.coarse is not None and (only != "labels" or kind.exact):
        opened = kind.open(c.coarse)
        width, height = opened.size
        if width > c.width or height > c.height:
            raise CorruptStream(
                f"a coarse picture of {width}×{height} in a picture of {c.width}×{c.height}"
            )
        scene_coarse = opened.decode()
    if c.labels is not None and only != "coarse":
        from sempic import labels

        context = scene_coarse if kind.exact else None
        size = (-(-c.height // 2), -(-c.width // 2)) if c.halved else (c.height, c.width)
        scene_labels = labels.decode(c.labels, *size, coarse=context, own=prior)
        if c.halved:
            scene_labels = repeated(scene_labels, 2, (c.height, c.width))
        check_decoded(scene_labels, c.palette)
    if c.windows is not None and only is None:
        from sempic import windows

        known = scene_coarse if kind.exact else None
        scene_windows = windows.decode(c.windows, c.width, c.height, known)
    return Scene(
        width=c.width,
        height=c.height,
        palette=c.palette,
        own=c.own,
        model=c.model,
        halved=c.halved,
        labels=scene_labels,
        coarse=None if only == "labels" else scene_coarse,
        windows=scene_windows,
        texture=said,
    )


def look(
    coarse: bytes, coarse_codec: str, *, width: int, height: int, palette: int, halved: bool
) -> Seen | None:
    """What `pack` sees of a coarse picture, whatever the labels: sooner than they are known."""
    from sempic import labels as coder

    planes = exact_planes(coarse, coarse_codecs.CODECS[coarse_codec])
    if planes is None:
        return None
    rows, columns = (-(-side // 2) if halved else side for side in (height, width))
    return coder.look(planes, rows, columns, PALETTES[palette].full_name)


def exact_planes(payload: bytes | None, kind: coarse_codecs.CoarseCodec) -> Coarse | None:
    """The coarse planes that labels and windows are coded in the context of, as the decoder will
    have them."""
    return kind.open(payload).decode() if payload is not None and kind.exact else None


def check_decoded(labels: LabelMap, palette: int) -> None:
    """Raises CorruptStream if a map that was decoded has an id that the palette has not."""
    known = PALETTES[palette]
    if (highest := int(labels.max())) >= len(known.classes):
        raise CorruptStream(f"id {highest} is not in palette {known.name}")


def repeated(labels: LabelMap, factor: int, size: tuple[int, int]) -> LabelMap:
    """A map that is smaller by a factor, rounded up, at its size (height, width): each id in
    factor × factor pixels."""
    height, width = size
    return np.ascontiguousarray(labels.repeat(factor, 0)[:height].repeat(factor, 1)[:, :width])


def is_doubled(labels: LabelMap) -> bool:
    """Whether a map has one id in each 2×2 pixels, from its first pixel on."""
    rows, columns = (side // 2 for side in labels.shape)
    return np.array_equal(labels[1::2], labels[::2][:rows]) and np.array_equal(
        labels[:, 1::2], labels[:, ::2][:, :columns]
    )


def check_map(labels: LabelMap, *, width: int, height: int) -> None:
    """Raises LabelMapError unless `labels` is uint8 (height, width)."""
    if not isinstance(labels, np.ndarray) or labels.dtype != np.uint8 or labels.ndim != 2:
        kind = type(labels).__name__
        what = f"{labels.dtype} {labels.shape}" if isinstance(labels, np.ndarray) else kind
        raise LabelMapError(f"a label map is uint8 (height, width), not {what}")
    if labels.shape != (height, width):
        raise LabelMapError(
            f"the label map is {labels.shape[1]}×{labels.shape[0]}, the picture {width}×{height}"
        )


def check_labels(labels: LabelMap, *, width: int, height: int, palette: int) -> None:
    """Raises LabelMapError unless `labels` is uint8 (height, width) with ids of the palette."""
    if palette not in PALETTES:
        raise LabelMapError(f"palette {palette} is not one of {', '.join(map(str, PALETTES))}")
    check_map(labels, width=width, height=height)
    known = PALETTES[palette]
    last = len(known.classes) - 1
    if (highest := int(labels.max())) > last:
        void = ""
        if known.void is not None:
            void = f", and its void is {known.void} (ignore_label makes it of another id)"
        raise LabelMapError(
            f"the label map has id {highest}; palette {known.name} ends at {last}{void}"
        )
