"""Versions of one picture: figures, and a page on which one version slides over another."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sempic import api, coarse, codec, places
from sempic.console import printable
from sempic.errors import naming
from sempic.evaluation import human_maps, markup
from sempic.evaluation.measure import Measure, Settings, row
from sempic.evaluation.measures import details, measured
from sempic.options import BUNDLED, Models
from sempic.scene import Image

LOSSLESS = frozenset({".bmp", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff"})
"""Suffixes of files without rate: they hold decoded pictures."""


def compare(
    original: Path,
    versions: Sequence[Path],
    settings: Settings,
    *,
    labels: Path | None = None,
    steps: int = 1,
    models: Models = BUNDLED,
) -> tuple[list[dict[str, Any]], str]:
    """(figures of each version, the page as HTML).

    Args:
        versions: pictures of any type, .sempic and .bpg files, all of the original's size.
        labels: human label map, for mIoU.
        steps, models: for .sempic files.

    Raises:
        InputError, BitstreamError: a file cannot be read or does not fit; the message names it.
    """
    picture = places.read_picture(original)
    measure = Measure(settings)
    truth = None
    if labels is not None:
        truth = human_maps.read_as(labels, *human_maps.palettes_of(labels, measure))
    with naming(labels or original):
        reference = measure.reference(picture, truth)
        ceiling = measure.original(reference)
    found, shown = [], [picture]
    coder = api.Codec(**models.keywords())
    for path in versions:
        decoded, size = _decode(path, coder, steps)
        with naming(path):
            record = measure(reference, decoded)
        pixels = picture.shape[0] * picture.shape[1]
        figures = row([record], [ceiling], None if size is None else [8 * size / pixels])
        figures.pop("pictures")
        found.append({"path": str(path), "bytes": size, **figures})
        shown.append(decoded)
    return found, _page([original, *versions], found, shown)


def describe(found: Sequence[dict[str, Any]]) -> str:
    """The figures as a table for a terminal."""
    columns = [markup.BPP, *measured(found).values()]
    figures = [["", *(c.title for c in columns)]]
    names = [printable(line["path"]) for line in found]
    figures += [[n, *(c.text(line) for c in columns)] for n, line in zip(names, found, strict=True)]
    tables = details([*zip(names, found, strict=True)])
    return "\n\n".join(map(_aligned, [figures, *tables]))


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal."""
    first, *rest = (max(map(len, column)) for column in zip(*rows, strict=True))
    return "\n".join(
        "  ".join([row[0].ljust(first), *map(str.rjust, row[1:], rest)]) for row in rows
    )


def _decode(path: Path, coder: api.Codec, steps: int) -> tuple[Image, int | None]:
    """The picture of a file, and the file's size unless LOSSLESS."""
    if path.suffix.lower() not in (".sempic", ".bpg"):
        picture = places.read_picture(path)
        return picture, None if path.suffix.lower() in LOSSLESS else path.stat().st_size
    with naming(path):
        data = places.read(path)
        if path.suffix.lower() == ".bpg":
            return coarse.to_rgb(coarse.decode(data)), len(data)
        return coder.synthesize(codec.unpack(data, prior=coder.prior), steps=steps), len(data)


def _page(paths: Sequence[Path], found: Sequence[dict[str, Any]], shown: Sequence[Image]) -> str:
    columns, title = [*measured(found).values()], paths[0].name
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    rows = []
    for name, line, figures in zip(names[1:], found, markup.marked(found, columns), strict=True):
        size = "–" if line["bytes"] is None else str(line["bytes"])
        kind = "ours" if line["path"].endswith(".sempic") else ""
        rows.append((kind, [html.escape(name), size, markup.BPP.text(line), *figures]))
    options = "".join(
        f"<option value='{i}'>{html.escape(name)}</option>" for i, name in enumerate(names)
    )
    height, width = shown[0].shape[:2]
    embeds = ",".join(f"'{markup.embedded(picture)}'" for picture in shown)
    body = (
        f"<h1>{html.escape(title)}</h1><p class='dim'>{width}×{height} pixels. Move over "
        "the picture to slide, turn the wheel to zoom; or the arrow keys, + and −.</p>"
        "<div class='choose'>"
        f"<select aria-label='left'>{options}</select>"
        f"<select aria-label='right'>{options}</select></div>"
        "<div class='stage' tabindex='0' role='slider' aria-label='share of the left version' "
        "aria-valuenow='50'><img alt=''><div class='over'><img alt=''></div>"
        "<div class='bar'></div></div><h2>Figures</h2>"
        + markup.table(["", "bytes", "bpp", *markup.heads(columns, {})], rows)
        + "".join(map(markup.table_of_texts, details([(line["path"], line) for line in found])))
    )
    script = f"const pictures = [{embeds}];{markup.resource('slide.js')}"
    return markup.document(f"sempic compare: {title}", body, script, markup.resource("slide.css"))
