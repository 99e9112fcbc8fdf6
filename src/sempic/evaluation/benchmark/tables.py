"""Results of a benchmark as CSV, Markdown and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sempic.console import as_json
from sempic.evaluation.benchmark.bench import Benchmark
from sempic.evaluation.benchmark.results import Results
from sempic.evaluation.measures import measured


def pictures(bench: Benchmark, results: Results) -> str:
    """pictures.csv: one line for each file, with the figures that a single picture can have."""
    lines: list[dict[str, Any]] = []
    originals = bench.originals()
    for name, codec in results.codecs.items():
        for point in codec.points:
            for index, item in enumerate(bench.plan.items):
                setting = point["setting"]
                numbers = bench.row([(index, name, setting)], [originals[index]])
                line = {"codec": name, "setting": setting, "picture": item.name}
                line |= {k: f"{v:.6g}" for k, v in numbers.items() if isinstance(v, float)}
                lines.append(line)
    out = io.StringIO()
    names = ["codec", "setting", "picture", "bpp", "encode_s", "decode_s", *measured(lines)]
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def summary(results: Results) -> str:
    """summary.md: a table of the codecs at the same rates, and one of all operating points."""
    ceiling = results.originals
    figures = [figure for figure in results.figures.values() if figure.brief]
    heads = [figure.head(ceiling) for figure in figures]
    rates = list(dict.fromkeys(entry["bpp"] for entry in results.matched))
    main = figures[:3]
    matched = [[" / ".join(heads[:3]) + " at", *(f"{bpp:.3f} bpp" for bpp in rates)]]
    if "miou" in ceiling:
        matched.append([f"originals: mIoU {ceiling['miou']:.3f}", *([""] * len(rates))])
    points = [["", "bpp", *heads]]
    notes = []
    for name, codec in results.codecs.items():
        cells = [codec.title]
        for entry in (e for e in results.matched if e["codec"] == name):
            measured = any(entry.get(f.name) is not None for f in main)
            cells.append(" / ".join(f.text(entry) for f in main) if measured else "–")
        matched.append(cells)
        if "–" in cells and main:
            low, high = (f"{codec.points[at]['bpp']:.3f}" for at in (0, -1))
            reach = f"{low} bpp" if low == high else f"{low} to {high} bpp"
            notes.append(
                f"\n–: {codec.title} was measured at {reach}, as near as its settings come."
            )
        for point in codec.points:
            cells = [f.text(point) for f in figures]
            points.append([codec.title, f"{point['bpp']:.4f}", *cells])
    return "\n".join([*markdown(matched), *notes, "", *markdown(points)])


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table; the first row has the heads."""
    heads, *rest = ("| " + " | ".join(row) + " |" for row in rows)
    return [heads, "|" + " --- |" * len(rows[0]), *rest]


def dump(results: Results) -> str:
    """report.json: `Results`."""
    return as_json(asdict(results), indent=1, ensure_ascii=False)
