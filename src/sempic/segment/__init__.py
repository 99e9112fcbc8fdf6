"""Image → label map: the bundled segmenter, another ONNX file, or a model of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import PIL.Image

from sempic import checks, models, roles
from sempic.errors import ModelError, install_hint, naming, refused
from sempic.models import runtime
from sempic.palette import CAMVID, CITYSCAPES, INDICES, from_description
from sempic.pictures import resized
from sempic.scene import Image, LabelMap, Probabilities, padded
from sempic.segment import fit

WORKING_SIDE = 512
"""Shorter side, in pixels, to which larger pictures are shrunk for segmentation. The model's factor
enlarges smaller pictures up to this side."""
LONGEST_SIDE = 2048
"""Limit on the longer side during segmentation, for panoramas."""
Side: TypeAlias = int | tuple[int, int]
"""Shorter side of every picture during segmentation, in pixels, or the least and the greatest one:
pictures between them keep their size."""
_MULTIPLE = 32
_MEAN = np.array((0.485, 0.456, 0.406), np.float32)  # ImageNet's, for other people's networks
_STD = np.array((0.229, 0.224, 0.225), np.float32)


def load(spec: str | None = None, *, side: Side | None = None) -> roles.Segmenter:
    """A segmenter: None is the bundled one, "hf:NAME" a model of transformers, else an ONNX file.

    Args:
        side: None: see WORKING_SIDE; ignored for transformers, which choose the size themselves.

    Raises:
        ModelError: the segmenter cannot be loaded.
    """
    if spec is not None and spec.startswith("hf:"):
        return HubSegmenter(spec[3:])
    return Segmenter(spec, side=side)


class Segmenter:
    """A segmentation network under ONNX Runtime.

    Input: one picture, uint8 (1, H, W, 3), or float (1, 3, H, W) with ImageNet's normalisation.
    Output: ids, integer (1, H, W), or logits, float (1, C, h, w).
    """

    def __init__(self, path: str | Path | None = None, *, side: Side | None = None) -> None:
        """path: None is the bundled network. Raises ModelError if the file is no such network.

        side: None: see WORKING_SIDE.
        """
        self._path = Path(path) if path is not None else models.find(models.SEGMENTER)
        self._session, metadata = runtime.load(self._path)
        session = self._session.inner()
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            raise ModelError(f"{self._path}: a segmenter must have one input, a picture")
        self._input, self._output = inputs[0].name, outputs[0].name
        self._bytes = inputs[0].type == "tensor(uint8)"
        self._side = side
        self.voids = bool(metadata.get("voids", False))
        """Whether uncertain regions are sent as void. Only receivers and priors that were trained
        with void understand this; the bundled ones were not."""
        description = metadata.get("palette")
        with naming(self._path, ModelError):
            self._enlarge = checks.number("enlarge", metadata.get("enlarge", 1), 0)
            own = from_description(description) if description is not None else None
        classes = outputs[0].shape[1] if len(outputs[0].shape) == 4 else 0
        by_classes = {11: CAMVID, 12: CAMVID, 19: CITYSCAPES}
        palette = own or by_classes.get(classes, INDICES)
        self.palette = palette.id
        """Id of the palette of the maps."""

    def __call__(self, image: Image) -> LabelMap:
        """Label map, uint8 (H, W), of a picture, uint8 (H, W, 3).

        Raises:
            ModelError: the network fails on this picture, or its output is no label map.
        """
        out, share = self._run(image)
        return self._labels(out, share, image.shape[:2])

    def predict(self, image: Image) -> tuple[LabelMap, Probabilities | None]:
        """The label map and the probabilities of all classes; None if the network gives ids."""
        out, share = self._run(image)
        size = image.shape[:2]
        probabilities = _probabilities(out[0], share, size) if out.ndim == 4 else None
        return self._labels(out, share, size), probabilities

    def _run(self, image: Image) -> tuple[npt.NDArray[Any], tuple[float, float]]:
        """The network's output, and the shares of its height and width without padding."""
        scale = working_scale(image.shape[:2], enlarge=self._enlarge, side=self._side)
        working = _resize(image, scale)
        rows, columns = working.shape[:2]
        whole = padded(working, rows + -rows % _MULTIPLE, columns + -columns % _MULTIPLE)
        x: npt.NDArray[Any] = whole[None]
        if not self._bytes:
            x = ((whole.astype(np.float32) / 255 - _MEAN) / _STD).transpose(2, 0, 1)[None]
        with refused(ModelError, f"{self._path}: the segmenter failed", Exception, unfit=True):
            out = runtime.run(self._session, self._output, {self._input: x})
        ids = out.dtype.kind in "biu" and out.shape == (1, *whole.shape[:2])
        if not ids and not (out.ndim == 4 and len(out) == 1 and 1 <= out.shape[1] <= 256):
            raise ModelError(f"{self._path}: output of {checks.kind(out)} is no label map")
        if ids and not 0 <= out.min() <= out.max() <= 255:
            raise ModelError(f"{self._path}: ids {out.min()}…{out.max()} are not 0…255")
        if not ids:
            out = out.astype(np.float32, copy=False)
            if not out.size or not np.isfinite(out.max(1)).all():  # so is the max with a NaN
                raise ModelError(f"{self._path}: the logits of a pixel are not finite")
        return out, (rows / whole.shape[0], columns / whole.shape[1])

    @staticmethod
    def _labels(
        out: npt.NDArray[Any], share: tuple[float, float], size: tuple[int, int]
    ) -> LabelMap:
        if out.ndim == 4:
            return fit.best(out[0], share, size)
        rows, columns = (round(n * part) for n, part in zip(out.shape[1:], share, strict=True))
        ids = np.ascontiguousarray(out[0, :rows, :columns], dtype=np.uint8)
        return resized(ids, (size[1], size[0]), "NEAREST")


class HubSegmenter:
    """A semantic segmentation model of transformers (extra `hf`).

    The palette is CITYSCAPES if all classes have its names, else INDICES.
    """

    voids = False

    def __init__(self, name: str) -> None:
        """Raises ModelError if transformers is missing or cannot load `name`."""
        try:
            from transformers import pipeline
        except ModuleNotFoundError as error:
            raise ModelError(f"hf:{name} needs transformers; {install_hint('hf')}") from error
        self._name = f"hf:{name}"
        what = f"{self._name}: transformers cannot load it"
        with refused(ModelError, what, Exception, unfit=True):
            self._pipe = pipeline("image-segmentation", model=name)
        names = self._pipe.model.config.id2label  # the pipeline's; `label2id` may be missing
        self._ids = {str(label).lower(): int(number) for number, label in names.items()}
        cityscapes = {label: number for number, label in enumerate(CITYSCAPES.classes)}
        known = set(self._ids) <= set(cityscapes)
        self._ids = {label: cityscapes[label] for label in self._ids} if known else self._ids
        if max(self._ids.values(), default=0) > 254:
            raise ModelError(f"hf:{name}: more than 255 classes do not fit a label map")
        self.palette = (CITYSCAPES if known else INDICES).id
        self._rest = CITYSCAPES.void if known else 255

    def __call__(self, image: Image) -> LabelMap:
        """Label map, uint8 (H, W), of a picture, uint8 (H, W, 3).

        Raises ModelError if the model fails on this picture, as one without semantic maps does.
        """
        labels = np.full(image.shape[:2], self._rest, np.uint8)
        with refused(ModelError, f"{self._name}: the segmenter failed", Exception, unfit=True):
            for part in self._pipe(PIL.Image.fromarray(image), subtask="semantic"):
                labels[np.asarray(part["mask"]) > 0] = self._ids[part["label"].lower()]
        return labels

    def predict(self, image: Image) -> tuple[LabelMap, Probabilities | None]:
        """The label map and None: the pipeline gives no probabilities."""
        return self(image), None


def working_scale(
    size: tuple[int, ...], *, enlarge: float = 1.0, side: Side | None = None
) -> float:
    """Factor by which a picture of (height, width) is scaled for segmentation.

    enlarge: the model's factor for small pictures. side: replaces `enlarge` and WORKING_SIDE.
    """
    short = min(size)
    if side is None:
        wanted = min(enlarge, WORKING_SIDE / short)
    else:
        least, greatest = (side, side) if isinstance(side, int) else side
        wanted = min(max(least / short, 1.0), greatest / short)
    return min(wanted, LONGEST_SIDE / max(size))


def _resize(image: Image, scale: float) -> Image:
    if scale == 1:
        return image
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return resized(image, size, "BICUBIC" if scale > 1 else "BOX")


def _probabilities(
    logits: npt.NDArray[np.float32], share: tuple[float, float], size: tuple[int, int]
) -> Probabilities:
    """Softmax of logits (C, h, w) without padding, in 1/255; uint8 (C, *size)."""
    odds = logits - logits.max(0)
    np.exp(odds, out=odds)
    total = odds.sum(0)
    odds *= 255
    odds /= total
    np.rint(odds, out=odds)
    return fit.enlarge(odds.astype(np.uint8), share, size)
