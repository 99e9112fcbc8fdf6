"""Scene ⇄ stream, exact on every machine, without networks.

`unpack(pack(…))` restores the label map bit for bit, and the planes that the coarse payload decodes
to. `pack` takes the coarse picture as a payload of `sempic.coarse`, because coding decoded planes
again would lose more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sempic import checks, container, critical, windows
from sempic import coarse as coarse_codecs
from sempic import texture as textures
from sempic.container import MAX_PIXELS, Container
from sempic.critical import Receipt
from sempic.errors import CorruptStream, InputError, LabelMapError, ModelError, naming, warn
from sempic.palette import CAMVID, PALETTES, by_id
from sempic.scene import Coarse, Image, LabelMap, Probabilities, Scene, Window
from sempic.texture import Texture

if TYPE_CHECKING:
    from sempic.labels import CoarseFeatures, Prior

# Functions import sempic.labels when they need it: `import sempic` and `sempic info` do without.


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Draft:
    """The arguments of `pack`, and `features`, which save time."""

    width: int
    height: int
    labels: LabelMap | None = None
    coarse: bytes | None = None
    coarse_codec: str = "bpg"
    palette: int = CAMVID.id
    model: int = 0
    doubled: bool = False
    halved: bool = False
    windows: bytes | None = None
    receipt: Receipt | None = None
    texture: Texture | None = None
    prior: Prior | None = None
    features: CoarseFeatures | None = None

    def pack(self) -> bytes:
        """The stream; raises as `pack`."""
        checks.one_of("coarse codec", self.coarse_codec, coarse_codecs.CODECS)
        for name in ("width", "height", "palette", "model"):
            checks.whole(name, getattr(self, name))
        return container.write(
            Container(
                width=self.width,
                height=self.height,
                palette=self.palette,
                model=self.model,
                coarse=_payload("coarse", self.coarse),
                coarse_type=coarse_codecs.CODECS[self.coarse_codec].chunk,
                windows=_payload("windows", self.windows),
                labels=self._packed_labels(),
                doubled=self.map_factor == 2,
                halved=self.halved,
                receipt=None if self.receipt is None else critical.write(self.receipt),
                own_groups=self.receipt is not None and self.receipt.table is not None,
                texture=textures.write(self.texture) if self.texture else None,
            )
        )

    def _packed_labels(self) -> bytes | None:
        """The payload of the labels."""
        factor = self.map_factor
        if self.labels is None:
            if factor > 1:
                raise LabelMapError("there are no labels to halve")
            return None
        from sempic import labels as coder

        check_labels(self.labels, width=self.width, height=self.height, palette=self.palette)
        if factor > 1 and not is_doubled(self.labels):
            raise LabelMapError("doubled labels are equal within each 2×2 pixels, these are not")
        return coder.encode(
            self.labels[::factor, ::factor],
            coarse=self.planes(),
            model=PALETTES[self.palette].full_name,
            own=self.prior,
            features=self.features,
        )

    @property
    def map_factor(self) -> int:
        """Side of the picture by that of the map in the stream, rounded up: 1 or 2."""
        return 2 if self.doubled or self.halved else 1

    def planes(self) -> Coarse | None:
        """The decoded coarse planes, the context of labels and windows; None: no coarse picture, or
        a codec that is not exact."""
        kind = coarse_codecs.CODECS[self.coarse_codec]
        if self.coarse is None or not kind.exact:
            return None
        return kind.open(checks.stream(self.coarse)).decode()

    def with_features(self) -> Draft:
        """The draft, maybe still without labels, with the part of packing that depends only on the
        coarse picture; unchanged if the coarse codec is not exact."""
        from sempic import labels as coder

        if (planes := self.planes()) is None:
            return self
        rows, columns = (-(-side // self.map_factor) for side in (self.height, self.width))
        features = coder.coarse_features(planes, rows, columns, PALETTES[self.palette].full_name)
        return replace(self, features=features)


def _payload(part: str, value: Any) -> bytes | None:
    """A payload as bytes; raises InputError for other types, such as the decoded planes."""
    if not isinstance(value, (bytes, bytearray, memoryview, type(None))):
        raise InputError(f"{part} is bytes of sempic.{part}.encode, not {type(value).__name__}")
    return None if value is None else bytes(value)


def pack(
    *,
    width: int,
    height: int,
    labels: LabelMap | None = None,
    coarse: bytes | None = None,
    coarse_codec: str = "bpg",
    palette: int = CAMVID.id,
    model: int = 0,
    doubled: bool = False,
    halved: bool = False,
    windows: bytes | None = None,
    receipt: Receipt | None = None,
    texture: Texture | None = None,
    prior: Prior | None = None,
) -> bytes:
    """The stream of a scene.

    Args:
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        labels: uint8 (height, width), ids of the palette; sent lossless.
        coarse: payload from `sempic.coarse.encode`.
        coarse_codec: the codec of that payload, a name in `sempic.coarse.CODECS`.
        palette: id of the palette (`sempic.palette`).
        model: id of the intended receiver, 0: any.
        doubled: labels are equal within each 2×2 pixels, counted from the top left corner; the
            stream then has one id for each, at fewer bytes.
        halved: the picture loses no detail at half its size; its labels are doubled.
        windows: payload from `sempic.windows.encode`, made with this coarse picture.
        receipt: the result of a check.
        texture: the result of `sempic.texture.choose`.
        prior: custom prior of the label coder (`sempic.labels.own`), which the decoder must have;
            used for labels of its palette where the prior saves bytes.

    Raises:
        LabelMapError: labels of another shape or type, with ids outside the palette, or `doubled`
            or `halved` labels that differ within 2×2 pixels.
        InputError: a size or id outside the format's range, a payload that is not bytes.
    """
    return Draft(**locals()).pack()


def unpack(
    stream: bytes | bytearray | memoryview,
    *,
    only: Literal["labels", "coarse"] | None = None,
    max_pixels: int = MAX_PIXELS,
    prior: Prior | None = None,
) -> Scene:
    """The scene in a stream.

    Args:
        stream: a whole .sempic file.
        only: decode only this part and leave the other None.
        max_pixels: reject pictures with more pixels.
        prior: custom prior of the label coder, if the stream was coded with one.

    Raises:
        BitstreamError: not a stream that this version decodes; the subclass says why.
    """
    if only is not None:
        checks.one_of("only", only, ("labels", "coarse"))
    c = container.read(checks.stream(stream), max_pixels=checks.whole("max_pixels", max_pixels, 1))
    if c.receipt is not None:
        critical.read(c.receipt, own=c.own_groups)
    texture = {} if c.texture is None else textures.read(c.texture)
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
    context = scene_coarse if kind.exact else None
    if c.labels is not None and only != "coarse":
        from sempic import labels

        size = (-(-c.height // 2), -(-c.width // 2)) if c.doubled else (c.height, c.width)
        scene_labels = labels.decode(c.labels, *size, coarse=context, own=prior)
        if c.doubled:
            scene_labels = repeated(scene_labels, 2, (c.height, c.width))
        check_decoded(scene_labels, c.palette)
    if c.windows is not None and only is None:
        scene_windows = windows.decode(c.windows, c.width, c.height, context)
    return Scene(
        width=c.width,
        height=c.height,
        palette=c.palette,
        own=c.own,
        model=c.model,
        doubled=c.doubled,
        halved=c.halved,
        labels=scene_labels,
        coarse=None if only == "labels" else scene_coarse,
        windows=scene_windows,
        texture=texture,
    )


def check_decoded(labels: LabelMap, palette: int) -> None:
    """Raises CorruptStream if a decoded map has an id outside the palette."""
    known = PALETTES[palette]
    if (highest := int(labels.max())) >= len(known.classes):
        raise CorruptStream(f"id {highest} is not in palette {known.name}")


def repeated(labels: LabelMap, factor: int, size: tuple[int, int]) -> LabelMap:
    """A map of size / factor, rounded up, at `size` (height, width): each id fills factor × factor
    pixels."""
    height, width = size
    return np.ascontiguousarray(labels.repeat(factor, 0)[:height].repeat(factor, 1)[:, :width])


def is_doubled(labels: LabelMap) -> bool:
    """Whether ids are equal within each 2×2 pixels, counted from the top left corner."""
    rows, columns = (side // 2 for side in labels.shape)
    return np.array_equal(labels[1::2], labels[::2][:rows]) and np.array_equal(
        labels[:, 1::2], labels[:, ::2][:, :columns]
    )


def check_map(labels: LabelMap, *, width: int, height: int) -> None:
    """Raises LabelMapError unless `labels` is uint8 (height, width)."""
    if not checks.is_uint8(labels, 2) or not labels.size:
        raise LabelMapError(f"a label map is uint8 (height, width), not {checks.kind(labels)}")
    if labels.shape != (height, width):
        raise LabelMapError(
            f"the label map is {labels.shape[1]}×{labels.shape[0]}, the picture {width}×{height}"
        )


def check_labels(labels: LabelMap, *, width: int, height: int, palette: int) -> None:
    """Raises LabelMapError unless `labels` is uint8 (height, width) with ids of the palette."""
    known = by_id(palette)
    check_map(labels, width=width, height=height)
    last = len(known.classes) - 1
    if (highest := int(labels.max())) > last:
        void = ""
        if known.void is not None:
            void = f", its void is {known.void} (ignore_label, --ignore-label, makes void of an id)"
        raise LabelMapError(
            f"the label map has id {highest}; palette {known.name} ends at {last}{void}; "
            "palette (--palette) names another"
        )


def check_prediction(
    network: str, found: Any, picture: Image, palette: int, ignore_label: int | None = None
) -> tuple[LabelMap, Probabilities | None]:
    """The map, with an `ignore_label` outside the palette as void, and the probabilities of
    `roles.Segmenter.predict`.

    Raises ModelError, which names the network's role, if they do not fit picture or palette.
    """
    height, width = picture.shape[:2]
    try:
        labels, probabilities = found
    except (TypeError, ValueError) as error:
        raise ModelError(f"the {network} predicts no pair of map and probabilities") from error
    with naming(f"the {network}'s map is invalid", ModelError):
        known = by_id(palette)
        check_map(labels, width=width, height=height)
    unknown = known.unknown(ignore_label)
    if unknown is not None and unknown not in labels:
        warn(f"the ignore label has no effect: {unknown} is no id of palette {known.name}")
    labels = known.settle(labels, unknown)
    with naming(f"the {network}'s map is invalid", ModelError):
        check_labels(labels, width=width, height=height, palette=palette)
    if probabilities is not None and (
        not checks.is_uint8(probabilities, 3)
        or probabilities.shape[1:] != labels.shape
        or not len(probabilities)
    ):
        raise ModelError(f"the {network}'s probabilities are not uint8 (classes, height, width)")
    return labels, probabilities
