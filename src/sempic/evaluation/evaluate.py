"""The original's protocol: a folder of images/, labels/ and samples/ becomes one row of figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from sempic import api, pictures
from sempic.errors import InputError, SempicError
from sempic.evaluation.measure import Measure, Record, Settings, row
from sempic.palette import BY_NAME, PALETTES
from sempic.scene import LabelMap

_Array = TypeVar("_Array")


def evaluate(
    folder: Path, settings: Settings, *, palette: str | None = None
) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """(figures of the samples, figures of the originals, figures of each picture).

    Args:
        folder: has samples/ and images/, pictures of the same names; labels/, human index maps,
            if there are any; and anywhere below it NAME.sempic, or NAME.bpg and NAME.flif, whose
            sizes are the rate. Of each name there is one.
        palette: of labels/; None: what the .sempic files say, else the judge's.

    Raises:
        InputError: a folder or a file is missing, or does not fit the others.
        ModelError: a network cannot be loaded.
    """
    samples, images, labels = (folder / name for name in ("samples", "images", "labels"))
    paths = find(samples)
    originals = {path.stem: path for path in find(images)}
    maps = {path.stem: path for path in find(labels)} if labels.is_dir() else None
    sizes = _sizes(folder, [path.stem for path in paths])
    measure = Measure(settings)
    if maps is not None and "miou" in settings.metrics:
        known = PALETTES[measure.judge.palette]
        found = palette or (sizes and sizes[1]) or known.name
        if found not in BY_NAME:
            raise InputError(f"palette {found!r} is not one of {', '.join(BY_NAME)}")
        if found != known.name:
            raise InputError(
                f"{labels}: palette {found}, but the judge knows {known.name}: no mIoU; "
                "name another --judge, or the --palette that it has"
            )
    records: list[Record] = []
    ceiling: list[Record] = []
    table: list[dict[str, Any]] = []
    for path in tqdm(paths, unit="picture", disable=None):
        if path.stem not in originals:
            raise InputError(f"{images}: no picture {path.stem}")
        sample, original = read(path), read(originals[path.stem])
        reference = measure.reference(original, _labels(maps, labels, path.stem))
        try:
            records.append(measure(reference, sample))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        ceiling.append(
            measure(reference, original, [m for m in ("miou", "fid") if m in settings.metrics])
        )
        table.append({"name": path.stem, "pixels": sample.shape[0] * sample.shape[1]})
    rates = None
    if sizes is not None:
        rates = [8 * sizes[0][entry["name"]] / entry["pixels"] for entry in table]
    for index, (entry, record) in enumerate(zip(table, records, strict=True)):
        entry |= row([record], [ceiling[index]], rates and rates[index : index + 1])
        entry.pop("pictures")
    return row(records, ceiling, rates), row(ceiling, ceiling, None), table


def find(folder: Path) -> list[Path]:
    """The pictures of a folder by name; raises InputError if there are none."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in pictures.SUFFIXES)
    if not found:
        raise InputError(f"{folder}: no pictures")
    return found


def read(path: Path) -> Any:
    """A picture file as uint8 (H, W, 3); errors name it."""
    return _read(path, pictures.read)


def read_labels(path: Path) -> LabelMap:
    """A map of indices as uint8 (H, W); errors name it."""
    return _read(path, pictures.read_labels)


def _read(path: Path, parse: Callable[[bytes], _Array]) -> _Array:
    try:
        return parse(path.read_bytes())
    except OSError as cause:
        raise InputError(f"{path}: cannot read: {cause.strerror}") from cause
    except SempicError as error:
        raise type(error)(f"{path}: {error}") from error


def _labels(maps: dict[str, Path] | None, folder: Path, name: str) -> LabelMap | None:
    if maps is None:
        return None
    if name not in maps:
        raise InputError(f"{folder}: no label map {name}")
    return read_labels(maps[name])


def _sizes(folder: Path, names: list[str]) -> tuple[dict[str, int], str | None] | None:
    """Bytes of what was sent of each picture, and its palette if a .sempic file tells it."""
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
        palette = None
        if suffixes == (".sempic",):
            palette = str(api.info(files[names[0], ".sempic"].read_bytes())["palette"])
        return sizes, palette
    return None


def describe(found: dict[str, Any], ceiling: dict[str, Any], settings: Settings) -> str:
    """The figures as lines for a terminal."""
    count = found["pictures"]
    lines = [f"{count} picture{'s' * (count != 1)}"]

    def add(label: str, text: str) -> None:
        lines.append(f"  {label:<17}{text}")

    if "bpp" in found:
        add("bpp", f"{found['bpp']:.4f}{_interval(found, 'bpp_ci')}")
    if "miou" in found:
        add(
            "mIoU",
            f"{found['miou']:.4f}{_interval(found, 'miou_ci')}  originals {ceiling['miou']:.4f}",
        )
        add("pixel accuracy", f"{found['pixel_accuracy']:.4f}")
    if "agreement" in found:
        add("agreement", f"{found['agreement']:.4f}  (mIoU of the judge with its own original map)")
    if "fid" in found:
        add("FID", f"{found['fid']:.2f}  {sample_count(count)}")
        add("KID", f"{found['kid']:.5f}")
    for name, label in NAMES.items():
        if name in found:
            add(label, f"{found[name]:.4f}")
    if "iou" in found:
        classes = class_names(len(found["iou"]))
        for title, score in zip(classes, found["iou"], strict=True):
            add(f"IoU {title}", "–" if score is None else f"{score:.4f}")
    if "agreement" in found:
        lines.append(f"  judge: {settings.judge_name}")
    return "\n".join(lines)


NAMES = {
    "psnr": "PSNR",
    "ms_ssim": "MS-SSIM",
    "lpips": "LPIPS (AlexNet)",
    "lpips_vgg": "LPIPS (VGG-16)",
    "dists": "DISTS",
}
"""Metrics that are means over pictures, as tables call them."""


def sample_count(count: int) -> str:
    """What stands beside every FID."""
    from sempic.evaluation.metrics import FEW

    if count >= FEW:
        return f"(N = {count})"
    return f"(N = {count}: fewer than {FEW}, biased upwards; compare at equal N only)"


def class_names(count: int) -> list[str]:
    """What the classes of a judge with so many are called."""
    for palette in PALETTES.values():
        if len(palette.classes) - (palette.void is not None) == count:
            return [c for i, c in enumerate(palette.classes) if i != palette.void]
    return [str(i) for i in range(count)]


def _interval(found: dict[str, Any], key: str) -> str:
    return "  [{:.4f}, {:.4f}]".format(*found[key]) if key in found else ""
