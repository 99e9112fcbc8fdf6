"""The original's protocol: a folder of images/, labels/ and samples/ becomes one row of figures."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sempic import api, files, places
from sempic.errors import InputError, naming
from sempic.evaluation.folders import ENDINGS, by_name, twin
from sempic.evaluation.human_maps import HumanMaps
from sempic.evaluation.markup import BPP
from sempic.evaluation.measure import Measure, Settings, lacking, row
from sempic.evaluation.measures import FIGURES, METRICS, Figure, Record, Row, details
from sempic.evaluation.measures.base import Reference
from sempic.evaluation.measures.inception import sample_count

_COUNTED = (".sempic",), (".bpg", ".flif"), (".bpg",)
"""Suffixes of the files that are a picture's stream together; the first that are there count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """The figures of a folder, as `measure.row` gives them."""

    samples: Row
    originals: Row
    pictures: list[dict[str, Any]]
    """Name, pixels and figures of each sample."""
    notes: list[str]
    """What was not measured, or only in part, and why."""


def evaluate(
    folder: Path, settings: Settings, *, palette: str | None = None, predictions: Path | None = None
) -> Evaluation:
    """The figures of a folder of results.

    Args:
        folder: has samples/ and images/, pictures of the same relative names (`by_name`);
            optionally labels/, human maps (`read_map`); and, anywhere below it, NAME.sempic, or
            NAME.bpg and NAME.flif, whose sizes give the rate. Names are unique in each folder.
        palette: of labels/; None: see `HumanMaps.find`.
        predictions: maps of the samples by another segmenter, of any size, with the samples' names
            and one of `ENDINGS`. They replace the judge; no originals are judged.

    Raises:
        InputError: a folder or file is missing, or does not fit the others.
        ModelError: a network cannot be loaded.
    """
    samples = by_name(folder / "samples")
    sent, sent_palette, notes = _sent(folder, list(samples))
    originals = by_name(folder / "images")
    for name in samples:
        if name not in originals:
            raise InputError(f"{folder / 'images'}: no picture {name}")
    if without := originals.keys() - samples.keys():
        notes.append(
            f"{len(without)} of {len(originals)} originals have no sample and are left out"
        )
    measured = tuple(m for m in settings.metrics if predictions is None or not METRICS[m].judged)
    measure = Measure(replace(settings, metrics=measured))
    labels, maps = folder / "labels", None
    if predictions is not None and not labels.is_dir():
        raise InputError(f"{labels}: no such folder, and --predictions are compared with its maps")
    if labels.is_dir() and {"miou", "confirmed"} & {*settings.metrics}:
        judge = measure.palette if predictions is None else None
        maps = HumanMaps.find(labels, palette, sent_palette, judge, settings.num_classes)
        if judge is not None and judge.id != maps.compared.id:
            notes.append(
                f"no mIoU, and no object is confirmed: {labels} has the palette "
                f"{maps.palette.name}, the judge knows {judge.name}; name another --judge, the "
                "right --palette, or --predictions"
            )
            maps = None
    predicted = None if predictions is None else by_name(predictions)
    records, ceiling, rates, table = [], [], [], []
    pairs = _measured(originals, samples, measure, maps)
    for name, reference, record in tqdm(pairs, total=len(samples), unit="picture", disable=None):
        if maps is not None and predicted is not None and reference.labels is not None:
            path = twin(predicted, [name], ENDINGS)
            if path is None:
                raise InputError(f"{predictions}: no prediction {name}")
            record["confusion"] = maps.confusion(reference.labels, path)
            record["classes"] = maps.compared.classes[: maps.classes]
        records.append(record)
        ceiling.append(measure.original(reference))
        height, width = reference.picture.shape[:2]
        if sent:
            rates.append(8 * sent[name] / (height * width))
        figures = row(records[-1:], ceiling[-1:], rates[-1:] or None)
        for common in ("pictures", "classes"):
            figures.pop(common, None)
        table.append({"name": name, "pixels": height * width, **figures})
    found = row(records, ceiling, rates or None)
    return Evaluation(
        samples=found,
        originals=row(ceiling, ceiling, None),
        pictures=table,
        notes=[*notes, *lacking(settings.metrics, [found], records, of_maps=maps is not None)],
    )


def _measured(
    originals: dict[str, Path], samples: dict[str, Path], measure: Measure, maps: HumanMaps | None
) -> Iterator[tuple[str, Reference, Record]]:
    """(name, original, record) of every sample; networks see batches of `measure.batch`."""
    batch: list[tuple[str, Reference, Reference]] = []
    for number, (name, path) in enumerate(samples.items(), 1):
        original = places.read_picture(originals[name])
        human = None if maps is None else maps.read(name, original.shape[:2])
        sample = measure.reference(places.read_picture(path))
        batch.append((name, measure.reference(original, human), sample))
        if number < len(samples) and len(batch) < measure.batch(original):
            continue
        measure.show([picture for _, *pair in batch for picture in pair])
        for batched, reference, sample in batch:
            try:
                record = measure(reference, sample)
            except InputError as error:
                raise InputError(f"{samples[batched]}: {error}") from None
            yield batched, reference, record
        batch.clear()


def _sent(folder: Path, names: list[str]) -> tuple[dict[str, int], str | None, list[str]]:
    """(bytes sent of each picture, palette of the first .sempic file, notes).

    Counts .sempic files below the folder, else .bpg and .flif, else .bpg alone. Raises InputError
    if a picture lacks its file or has two of a kind, a link leads nowhere, or a .sempic file is
    damaged.
    """
    known = set(names)
    sent: dict[str, dict[str, Path]] = {".sempic": {}, ".bpg": {}, ".flif": {}}
    found = files.search(folder, sent)
    for path, fault in [*((path, "") for path in found.files), *found.faults]:
        parts = path.relative_to(folder).with_suffix("").parts
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        name = next((end for end in ends if end in known), None)  # b/1 does not belong to 1
        if name is None:
            continue
        if fault:
            raise InputError(f"{path}: {fault}")
        if (other := sent[path.suffix.lower()].setdefault(name, path)) != path:
            raise InputError(f"{path} and {other} are both of the picture {name}")
    counted = next((some for some in _COUNTED if all(map(sent.get, some))), None)
    if counted is None:
        return {}, None, []
    for name, suffix in itertools.product(names, counted):
        if name not in sent[suffix]:
            raise InputError(f"{folder}: no {name}{suffix}, but other {suffix} files")
    sizes = {n: sum(sent[s][n].stat().st_size for s in counted) for n in names}
    palettes = []
    for path in sent[".sempic"].values():  # all are read, since a damaged file has no rate
        with naming(path):
            palettes.append(str(api.info(places.read(path))["palette"]))
    note = "bpp is that of the coarse pictures alone: there is no .flif of a label map"
    return sizes, next(iter(palettes), None), [note] * (counted == (".bpg",))


def describe(samples: Row, originals: Row, settings: Settings) -> str:
    """The figures as lines for a terminal."""
    count = samples["pictures"]
    found = [
        (figure.title, _in_context(figure, samples, originals))
        for figure in (BPP, *FIGURES.values())
        if figure.name in samples
    ]
    for table in details([("", samples)]):
        found += [(head, "  ".join(texts)) for head, *texts in zip(*table, strict=True) if head]
    lines = [f"{count} picture{'s' * (count != 1)}", *(f"  {a:<20} {b}" for a, b in found)]
    if "agreement" in samples or "objects" in samples:
        lines.append(f"  judge: {settings.judge_name}")
    return "\n".join(lines)


def _in_context(figure: Figure, samples: Row, originals: Row) -> str:
    """A figure with its interval, the originals' figure and the sample count."""
    text = figure.text(samples)
    if f"{figure.name}_ci" in samples:
        text += "  [{:.4f}, {:.4f}]".format(*samples[f"{figure.name}_ci"])
    if figure.ceiling and figure.name in originals:
        text += f"  {figure.ceiling} {figure.text(originals)}"
    if figure.biased_by:
        text += f"  {sample_count(samples[figure.biased_by])}"
    return text
