"""The original's protocol: a folder of images/, labels/ and samples/ becomes one row of figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from tqdm import tqdm

from sempic import api, files, jobs, pictures
from sempic.errors import InputError, naming
from sempic.evaluation import metrics
from sempic.evaluation.measure import Measure, Settings, row
from sempic.evaluation.measures import FIGURES, METRICS, Figure, Record, Row
from sempic.evaluation.measures.base import Mean, Reference
from sempic.evaluation.measures.segmentation import count_classes
from sempic.palette import (
    CITYSCAPES,
    CITYSCAPES_FULL,
    PALETTES,
    Palette,
    named,
    translate,
)
from sempic.scene import LabelMap


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
        folder: has samples/ and images/, pictures of the same names, which may lie in folders of
            the same names (`by_name`); labels/, human maps as `read_map` reads them, if there are
            any; and anywhere below it NAME.sempic, or NAME.bpg and NAME.flif, whose sizes are the
            rate. Of each name there is one.
        palette: of labels/; None: what the .sempic files say, else Cityscapes' where the maps are
            those of the original's code, else the judge's.
        predictions: what another segmenter finds in the samples, maps of the same names or with
            `_color` after it, of any size. Then there is no judge, and nothing of the originals.

    Raises:
        InputError: a folder or a file is missing, or does not fit the others.
        ModelError: a network cannot be loaded.
    """
    samples = by_name(folder / "samples")
    sizes = _sizes(folder, list(samples))
    notes = [sizes.note] if sizes is not None and sizes.note else []
    measured = tuple(m for m in settings.metrics if predictions is None or not METRICS[m].judged)
    measure = Measure(replace(settings, metrics=measured))
    maps = None
    if (folder / "labels").is_dir() and "miou" in settings.metrics:
        judged_in = None if predictions is not None else PALETTES[measure.judge.palette]
        told = palette or (None if sizes is None else sizes.palette)
        found = _Maps.find(folder / "labels", told, judged_in, settings.num_classes)
        maps, notes = (None, [*notes, found]) if isinstance(found, str) else (found, notes)
    elif predictions is not None and not (folder / "labels").is_dir():
        raise InputError(
            f"{folder / 'labels'}: no such folder, and --predictions are compared with its maps"
        )
    guesses = None if predictions is None else by_name(predictions)
    records: list[Record] = []
    ceiling: list[Record] = []
    rates: list[float] = []
    table: list[dict[str, Any]] = []
    for name, reference, record in _measured(folder / "images", samples, measure, maps):
        if maps is not None and guesses is not None and reference.labels is not None:
            guess = guesses.get(name) or guesses.get(f"{name}_color")
            if guess is None:
                raise InputError(f"{predictions}: no prediction {name}")
            record["confusion"] = maps.confusion(reference.labels, guess)
        records.append(record)
        ceiling.append(measure.original(reference))
        height, width = reference.picture.shape[:2]
        if sizes is not None:
            rates.append(8 * sizes.bytes[name] / (height * width))
        figures = row(records[-1:], ceiling[-1:], rates[-1:] or None)
        figures.pop("pictures")
        table.append({"name": name, "pixels": height * width, **figures})
    return Evaluation(
        samples=row(records, ceiling, rates or None),
        originals=row(ceiling, ceiling, None),
        pictures=table,
        notes=notes + _lacking(records, measured),
    )


def _lacking(records: list[Record], measured: tuple[str, ...]) -> list[str]:
    """Which figures have no mean, and why."""
    notes = []
    for metric in (METRICS[name] for name in measured):
        if not isinstance(metric, Mean):
            continue
        if none := sum(not np.isfinite(record[metric.name]) for record in records):
            notes.append(
                f"no {metric.figures[0].title}: {none} of {len(records)} samples have none, as "
                "they are the same as their originals, or too small for it"
            )
    return notes


def _measured(
    images: Path, samples: dict[str, Path], measure: Measure, maps: _Maps | None
) -> Iterator[tuple[str, Reference, Record]]:
    """Every sample with its original and what was measured, as many at once as suits the
    networks."""
    originals = by_name(images)
    with tqdm(total=len(samples), unit="picture", disable=None) as bar:
        batch: list[tuple[str, Reference, Reference]] = []
        for number, (name, path) in enumerate(samples.items(), 1):
            if name not in originals:
                raise InputError(f"{images}: no picture {name}")
            original, human = jobs.read_picture(originals[name]), None
            if maps is not None:
                human = maps.read(name, original.shape[:2])
            shown = measure.reference(jobs.read_picture(path))
            batch.append((name, measure.reference(original, human), shown))
            if number < len(samples) and len(batch) < measure.batch(original):
                continue
            measure.show([one for _, *both in batch for one in both])
            for one, reference, shown in batch:
                try:
                    record = measure(reference, shown)
                except InputError as error:
                    raise InputError(f"{samples[one]}: {error}") from None
                yield one, reference, record
                bar.update()
            batch.clear()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Maps:
    """The human maps of a folder."""

    folder: Path
    paths: dict[str, Path]
    palette: Palette
    judged: Palette
    """In whose ids maps are compared."""
    classes: int
    """How many of them are."""

    @classmethod
    def find(
        cls, folder: Path, palette: str | None, known: Palette | None, wanted: int | None
    ) -> _Maps | str:
        """The maps, or why there is no mIoU of them: the judge has another palette.

        `palette`: of the maps, if it is told; `known`: the judge's, if there is a judge; `wanted`:
        `Settings.num_classes`. Raises InputError.
        """
        paths = by_name(folder)
        truth = _palette(palette, next(iter(paths.values())), known)
        as_train_ids = truth is CITYSCAPES_FULL and known in (None, CITYSCAPES)
        judged = CITYSCAPES if as_train_ids else truth
        if known is not None and known is not judged:
            return (
                f"no mIoU: {folder} has the palette {truth.name}, the judge knows {known.name}; "
                "name another --judge, the --palette that it has, or --predictions"
            )
        classes = count_classes(judged, wanted)
        return cls(folder=folder, paths=paths, palette=truth, judged=judged, classes=classes)

    def read(self, name: str, size: tuple[int, int]) -> LabelMap:
        """The map of a name in the ids of the palette that is judged in, void as 255."""
        if name not in self.paths:
            raise InputError(f"{self.folder}: no label map {name}")
        labels = read_map(self.paths[name], self.palette)
        if labels.shape != size:
            raise InputError(
                f"{self.paths[name]}: a label map of {labels.shape} for a picture of {size}"
            )
        labels = translate(labels, self.palette.id, self.judged.id, near=False)
        return np.where(labels < self.classes, labels, 255).astype(np.uint8)

    def confusion(self, truth: LabelMap, guess: Path) -> Any:
        """Of another segmenter's map, of any size, with a human one."""
        labels = read_map(guess, self.judged)
        if labels.shape != truth.shape:
            labels = pictures.resized(labels, (truth.shape[1], truth.shape[0]), "NEAREST")
        return metrics.confusion(truth, labels, self.classes)


def _palette(name: str | None, example: Path, known: Palette | None) -> Palette:
    """Of human maps, of which `example` is one; `known`: the judge's, if there is a judge."""
    if name is not None:
        return named(name)
    with naming(example):
        if _scaled(pictures.decode(jobs.read(example)), CITYSCAPES) is not None:
            return CITYSCAPES
    if known is None:
        raise InputError(f"{example}: nothing tells what its ids mean: name the --palette")
    return known


def find(folder: Path) -> list[Path]:
    """The pictures of a folder by name; raises InputError if there are none."""
    _need_folder(folder)
    named = (p for p in folder.iterdir() if p.suffix.lower() in pictures.SUFFIXES)
    found = sorted(p for p in named if p.name[0] != ".")  # macOS leaves ._NAME beside NAME
    if not found:
        raise InputError(f"{folder}: no pictures; folders within it are not looked into")
    return found


def _need_folder(path: Path) -> None:
    if not path.is_dir():
        raise InputError(f"{path}: {'not a' if path.exists() else 'no such'} folder")


def _below(folder: Path) -> list[Path]:
    """The pictures of a folder and of those within it; raises InputError if there are none."""
    _need_folder(folder)
    found = files.search(folder, pictures.SUFFIXES)
    for path, why in found.faults:
        raise InputError(f"{path}: {why}")
    if not found.files:
        raise InputError(f"{folder}: no pictures")
    return found.files


def by_name(folder: Path, *, deep: bool = True) -> dict[str, Path]:
    """The pictures below a folder, or without `deep` those in it, each under its path from there
    without suffix; InputError if there are none, or two have one name."""
    named: dict[str, Path] = {}
    for path in _below(folder) if deep else find(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if named.setdefault(name, path) != path:
            raise InputError(f"{path} and {named[name]} have the same name")
    return named


def read_map(path: Path, palette: Palette) -> LabelMap:
    """A map as uint8 (H, W): of indices, in the palette's colours, or as the original's code writes
    it, grey in RGB with 255/35 times the id, and 255 for void. Errors name it."""
    with naming(path):
        data = jobs.read(path)
        picture = pictures.decode(data)
        if picture.mode not in ("RGB", "RGBA"):
            return pictures.read_labels(data)
        found = _scaled(picture, palette)
        return palette.unpaint(np.array(picture.convert("RGB"))) if found is None else found


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


@dataclass(frozen=True, slots=True)
class _Sizes:
    bytes: dict[str, int]
    """Of what was sent of each picture."""
    palette: str | None = None
    """If a .sempic file tells it."""
    note: str = ""


def _sizes(folder: Path, names: list[str]) -> _Sizes | None:
    known = set(names)
    sent: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).with_suffix("").parts
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        name = next((end for end in ends if end in known), None)  # b/1 is not of 1 beside it
        if name is not None and path.is_file():
            sent[name, path.suffix.lower()] = path
    for suffixes in ((".sempic",), (".bpg", ".flif"), (".bpg",)):
        kept = {s for s in suffixes if any((name, s) in sent for name in names)}
        if kept != set(suffixes):
            continue
        for name in names:
            for suffix in suffixes:
                if (name, suffix) not in sent:
                    raise InputError(f"{folder}: no {name}{suffix}, but others of its kind")
        sizes = {n: sum(sent[n, s].stat().st_size for s in suffixes) for n in names}
        if suffixes == (".sempic",):
            told = [_palette_of(sent[name, ".sempic"]) for name in names]
            return _Sizes(sizes, told[0])
        note = "bpp is that of the coarse pictures alone: there is no .flif of a label map"
        return _Sizes(sizes, note=note if ".flif" not in suffixes else "")
    return None


def _palette_of(stream: Path) -> str:
    """What a .sempic file says; a damaged one, which nothing was decoded from, is an error."""
    with naming(stream):
        return str(api.info(jobs.read(stream))["palette"])


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
    if count >= metrics.FEW:
        return f"(N = {count})"
    return f"(N = {count}: fewer than {metrics.FEW}, biased upwards; compare at equal N only)"


def _interval(found: Row, name: str) -> str:
    return "  [{:.4f}, {:.4f}]".format(*found[f"{name}_ci"]) if f"{name}_ci" in found else ""
