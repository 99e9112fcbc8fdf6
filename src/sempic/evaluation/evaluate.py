"""The original's protocol: a folder of images/, labels/ and samples/ becomes one row of figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import PIL.Image
from tqdm import tqdm

from sempic import api, pictures
from sempic.errors import InputError, SempicError
from sempic.evaluation import metrics
from sempic.evaluation.measure import Measure, Settings, row
from sempic.evaluation.measures import FIGURES, METRICS, Figure, Record, Row
from sempic.evaluation.measures.segmentation import count_classes
from sempic.palette import (
    CITYSCAPES,
    CITYSCAPES_FULL,
    INDICES,
    PALETTES,
    Palette,
    named,
    translate,
)
from sempic.scene import LabelMap

_Read = TypeVar("_Read")


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What `evaluate` finds: figures as `measure.row` has them."""

    samples: Row
    originals: Row
    pictures: list[dict[str, Any]]
    """The samples' figures of each picture, with its name."""
    notes: list[str]
    """What was not measured, or not wholly, and why."""


def evaluate(
    folder: Path,
    settings: Settings,
    *,
    palette: str | None = None,
    predictions: Path | None = None,
) -> Evaluation:
    """The figures of a folder of results.

    Args:
        folder: has samples/ and images/, pictures of the same names; labels/, human maps as
            `read_map` reads them, if there are any; and anywhere below it NAME.sempic, or NAME.bpg
            and NAME.flif, whose sizes are the rate. Of each name there is one.
        palette: of labels/; None: what the .sempic files say, else Cityscapes' where the maps are
            those of the original's code, else the judge's.
        predictions: what another segmenter finds in the samples, maps of the same names or with
            `_color` after it, of any size. Then there is no judge, and nothing of the originals.

    Raises:
        InputError: a folder or a file is missing, or does not fit the others.
        ModelError: a network cannot be loaded.
    """
    samples, images, labels = (folder / name for name in ("samples", "images", "labels"))
    paths = find(samples)
    originals = {path.stem: path for path in find(images)}
    maps = {path.stem: path for path in find(labels)} if labels.is_dir() else None
    sizes = _sizes(folder, [path.stem for path in paths])
    notes = [sizes.note] if sizes is not None and sizes.note else []
    guesses = None if predictions is None else {path.stem: path for path in find(predictions)}
    measured = tuple(m for m in settings.metrics if guesses is None or not METRICS[m].judged)
    measure = Measure(replace(settings, metrics=measured))
    if guesses is not None and maps is None:
        raise InputError(f"{labels}: no such folder, and --predictions are compared with its maps")
    truth = judged = None
    if maps is not None and "miou" in settings.metrics:
        known = None if guesses is not None else PALETTES[measure.judge.palette]
        told = palette or (None if sizes is None else sizes.palette)
        truth = _palette(told, next(iter(maps.values())), known)
        as_train_ids = truth is CITYSCAPES_FULL and known in (None, CITYSCAPES)
        judged = CITYSCAPES if as_train_ids else truth
        if known is not None and known is not judged:
            notes.append(
                f"no mIoU: {labels} has the palette {truth.name}, the judge knows {known.name}; "
                "name another --judge, the --palette that it has, or --predictions"
            )
            truth = None
    records: list[Record] = []
    ceiling: list[Record] = []
    table: list[dict[str, Any]] = []
    size = measure.batch
    bar = tqdm(total=len(paths), unit="picture", disable=None)
    for first in range(0, len(paths), size):
        pairs = []
        for path in paths[first : first + size]:
            if path.stem not in originals:
                raise InputError(f"{images}: no picture {path.stem}")
            human = None
            if truth is not None and judged is not None and maps is not None:
                human = _human(maps, labels, path.stem, truth, judged, settings.num_classes)
            original = read(originals[path.stem])
            try:
                reference = measure.reference(original, human)
            except InputError as error:
                raise InputError(f"{maps and maps[path.stem]}: {error}") from None
            pairs.append((path, reference, measure.reference(read(path))))
        measure.look([shown for _, *both in pairs for shown in both])
        for path, reference, sample in pairs:
            try:
                record = measure(reference, sample)
            except InputError as error:
                raise InputError(f"{path}: {error}") from None
            if guesses is not None and judged is not None:
                record["confusion"] = _guessed(
                    guesses, predictions, reference.labels, path.stem, judged, settings.num_classes
                )
            records.append(record)
            ceiling.append(measure.original(reference))
            height, width = sample.picture.shape[:2]
            table.append({"name": path.stem, "pixels": height * width})
            bar.update()
    bar.close()
    rates = None
    if sizes is not None:
        rates = [8 * sizes.bytes[entry["name"]] / entry["pixels"] for entry in table]
    for index, (entry, record) in enumerate(zip(table, records, strict=True)):
        entry |= row([record], [ceiling[index]], rates and rates[index : index + 1])
        entry.pop("pictures")
    return Evaluation(
        samples=row(records, ceiling, rates),
        originals=row(ceiling, ceiling, None),
        pictures=table,
        notes=notes,
    )


def _palette(name: str | None, example: Path, known: Palette | None) -> Palette:
    """Of human maps, of which `example` is one; `known`: the judge's, if there is a judge."""
    if name is not None:
        return named(name)
    if _scaled(_read(example, pictures.decode), CITYSCAPES) is not None:
        return CITYSCAPES
    if known is None:
        raise InputError(f"{example}: nothing tells what its ids mean: name the --palette")
    return known


def _human(
    maps: dict[str, Path],
    folder: Path,
    name: str,
    truth: Palette,
    judged: Palette,
    wanted: int | None,
) -> LabelMap:
    """The map of a name in the ids of the palette that is judged in, void as 255."""
    if name not in maps:
        raise InputError(f"{folder}: no label map {name}")
    found = read_map(maps[name], truth)
    found = translate(found, truth.id, judged.id, near=False)
    return np.where(found < count_classes(judged, wanted), found, 255).astype(np.uint8)


def _guessed(
    guesses: dict[str, Path],
    folder: Path | None,
    truth: LabelMap | None,
    name: str,
    palette: Palette,
    wanted: int | None,
) -> Any:
    """The confusion of the prediction of a name with the human map."""
    path = guesses.get(name) or guesses.get(f"{name}_color")
    if path is None or truth is None:
        raise InputError(f"{folder}: no prediction {name}")
    found = read_map(path, palette)
    if found.shape != truth.shape:
        height, width = truth.shape
        picture = PIL.Image.fromarray(found)
        found = np.asarray(picture.resize((width, height), PIL.Image.Resampling.NEAREST))
    return metrics.confusion(truth, found, count_classes(palette, wanted))


def find(folder: Path) -> list[Path]:
    """The pictures of a folder by name; raises InputError if there are none."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    named = (p for p in folder.iterdir() if p.suffix.lower() in pictures.SUFFIXES)
    found = sorted(
        p for p in named if not p.name.startswith(".")
    )  # macOS leaves ._NAME beside NAME
    if not found:
        raise InputError(f"{folder}: no pictures")
    return found


def read(path: Path) -> Any:
    """A picture file as uint8 (H, W, 3); errors name it."""
    return _read(path, pictures.read)


def read_labels(path: Path) -> LabelMap:
    """A map of indices as uint8 (H, W), by index whatever its colours; errors name it."""
    return _read(path, lambda data: pictures.read_labels(data, INDICES))


def read_map(path: Path, palette: Palette) -> LabelMap:
    """A map as uint8 (H, W): of indices, in the palette's colours, or as the original's code writes
    it, grey in RGB with 255/35 times the id, and 255 for void. Errors name it."""

    def parse(data: bytes) -> LabelMap:
        picture = pictures.decode(data)
        if picture.mode not in ("RGB", "RGBA"):
            return pictures.read_labels(data)
        found = _scaled(picture, palette)
        return palette.unpaint(np.array(picture.convert("RGB"))) if found is None else found

    return _read(path, parse)


def _scaled(picture: PIL.Image.Image, palette: Palette) -> LabelMap | None:
    """The ids of a map of the original's code; None if it is none."""
    if picture.mode not in ("RGB", "RGBA"):
        return None
    levels = np.array(picture.convert("RGB"))
    grey = levels[..., 0]
    scale = np.rint(np.arange(count_classes(palette)) * 255 / 35)
    if (levels != grey[..., None]).any() or not np.isin(grey, [*scale[scale < 255], 255]).all():
        return None
    return np.where(grey == 255, 255, np.rint(grey * (35 / 255))).astype(np.uint8)


def _read(path: Path, parse: Callable[[bytes], _Read]) -> _Read:
    try:
        return parse(path.read_bytes())
    except OSError as cause:
        raise InputError(f"{path}: cannot read: {cause.strerror}") from cause
    except SempicError as error:
        raise type(error)(f"{path}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Sizes:
    bytes: dict[str, int]
    """Of what was sent of each picture."""
    palette: str | None = None
    """If a .sempic file tells it."""
    note: str = ""


def _sizes(folder: Path, names: list[str]) -> _Sizes | None:
    files = {(p.stem, p.suffix.lower()): p for p in sorted(folder.rglob("*")) if p.is_file()}
    for suffixes in ((".sempic",), (".bpg", ".flif"), (".bpg",)):
        kept = {s for s in suffixes if any((name, s) in files for name in names)}
        if kept != set(suffixes):
            continue
        for name in names:
            for suffix in suffixes:
                if (name, suffix) not in files:
                    raise InputError(f"{folder}: no {name}{suffix}, but others of its kind")
        sizes = {n: sum(files[n, s].stat().st_size for s in suffixes) for n in names}
        if suffixes == (".sempic",):
            told = api.info(files[names[0], ".sempic"].read_bytes())["palette"]
            return _Sizes(sizes, str(told))
        note = "bpp is that of the coarse pictures alone: there is no .flif of a label map"
        return _Sizes(sizes, note=note if ".flif" not in suffixes else "")
    return None


def describe(found: Row, ceiling: Row, settings: Settings) -> str:
    """The figures as lines for a terminal."""
    count = found["pictures"]
    lines = [f"{count} picture{'s' * (count != 1)}"]

    def add(label: str, text: str) -> None:
        lines.append(f"  {label:<21}{text}")

    if "bpp" in found:
        add("bpp", f"{found['bpp']:.4f}{_interval(found, 'bpp')}")
    for figure in FIGURES.values():
        if figure.name in found:
            add(figure.title, _beside(figure, found, ceiling))
    for metric in METRICS.values():
        heads, *rows = metric.behind([("", found)]) or [[]]
        for head, *cells in zip(heads, *rows, strict=True):
            add(head, "  ".join(cells))
    if "agreement" in found or "objects" in found:
        lines.append(f"  judge: {settings.judge_name}")
    return "\n".join(lines)


def _beside(figure: Figure, found: Row, ceiling: Row) -> str:
    """A figure with all that it is to be read with."""
    text = figure.text(found) + _interval(found, figure.name)
    if figure.ceiling and figure.name in ceiling:
        text += f"  {figure.ceiling} {figure.text(ceiling)}"
    if figure.biased_by:
        text += f"  {sample_count(found[figure.biased_by])}"
    return text


def sample_count(count: int) -> str:
    """What stands beside every FID."""
    from sempic.evaluation.metrics import FEW

    if count >= FEW:
        return f"(N = {count})"
    return f"(N = {count}: fewer than {FEW}, biased upwards; compare at equal N only)"


def _interval(found: Row, name: str) -> str:
    return "  [{:.4f}, {:.4f}]".format(*found[f"{name}_ci"]) if f"{name}_ci" in found else ""
