"""Results of clips as Markdown, JSON, and a page with videos side by side."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import sempic
from sempic.console import as_json, printable
from sempic.evaluation import markup
from sempic.evaluation.benchmark.tables import markdown
from sempic.evaluation.clips.clip import Clip
from sempic.evaluation.clips.measuring import STATIC, Plan, Way
from sempic.evaluation.measures import Figure, measured
from sempic.pictures import animation
from sempic.scene import Image

Results = Sequence[tuple[Clip, Mapping[str, Way]]]

_RATE = Figure("kbps", "kbit/s", "{:.1f}")
_FLICKER = Figure("flicker", "flicker", "{:.2f}", lower=True)
_AGREEMENT = Figure("agreement", "mIoU against the original's map", "{:.4f}")
_LOSSES = {
    "losses_of_maps": "mean mIoU of the maps",
    "losses_of_pictures": "change of mIoU against the original's map",
}
_PARTS = ("coarse", "labels", "parity", "overhead")
_QUALITY = 75
"""Quality of the page's animated WebP."""


def _figures(results: Results) -> list[Figure]:
    figures = measured(found.row for _, ways in results for found in ways.values())
    if "agreement" in figures:
        figures["agreement"] = _AGREEMENT
    return [_RATE, *figures.values(), _FLICKER]


def dump(results: Results) -> str:
    """report.json: the figures of each clip in each way."""
    found = {
        clip.name: {
            "frames": len(clip.frames),
            "size": list(clip.frames[0].shape[1::-1]),
            "rate": float(clip.rate),
            "codecs": {name: {"title": way.title, **way.row} for name, way in ways.items()},
        }
        for clip, ways in results
    }
    return as_json(found, indent=1, ensure_ascii=False) + "\n"


def summary(results: Results) -> str:
    """summary.md: a table and notes for each clip."""
    figures = _figures(results)
    lines: list[str] = []
    for clip, ways in results:
        lines += [_described(clip), "", *markdown(_rows(ways, figures)), "", *_notes(ways), ""]
    return "\n".join(lines)


def _described(clip: Clip) -> str:
    height, width = clip.frames[0].shape[:2]
    size = f"{len(clip.frames)} frames of {width}×{height}, {float(clip.rate):g}/s"
    return f"{printable(clip.name)}: {size}"


def _rows(ways: Mapping[str, Way], figures: Sequence[Figure]) -> list[list[str]]:
    parts = [part for part in _PARTS if any(part in way.row for way in ways.values())]
    rows = [["", *(figure.title for figure in figures), *parts]]
    for way in ways.values():
        shares = (way.row[part] / way.row["bytes"] if part in way.row else None for part in parts)
        texts = ["–" if share is None else f"{share:.0%}" for share in shares]
        rows.append([way.title, *(figure.text(way.row) for figure in figures), *texts])
    return rows


def _notes(ways: Mapping[str, Way]) -> list[str]:
    notes = []
    ours, single = ways["sempic"].row, ways["single"].row if "single" in ways else None
    if "objects" in ours:
        counts = ", ".join(
            f"{way.title} {way.row['objects']['all']['kept']}" for way in ways.values()
        )
        notes.append(f"Objects kept, of {ours['objects']['all']['there']}: {counts}.")
    if single is not None:
        saved = f"Against single pictures: {ours['bytes'] / single['bytes']:.3f} of the bits"
        if single["labels"]:
            saved += f", {ours['labels'] / single['labels']:.3f} of the map's"
        if "lpips" in ours:
            saved += f", LPIPS {ours['lpips'] - single['lpips']:+.4f}"
        notes.append(saved + ".")
    if "parity" in ours:
        more = ours["parity"] / (ours["bytes"] - ours["parity"])
        notes.append(f"Parity: {more:.1%} more bits.")
    for name, what in _LOSSES.items():
        if name in ours:
            texts = ", ".join(f"{value:.3f}" for value in ours[name])
            notes.append(
                f"With losses, {what} of the frames that arrive, by trial: {texts}."
                if ours["labels"] or name != "losses_of_maps"
                else "No map was sent that losses could damage."
            )
    return notes


def page(results: Results, plan: Plan) -> str:
    """report.html, with all videos embedded."""
    figures = _figures(results)
    title = f"{len(results)} clip{'s' * (len(results) != 1)}"
    parts = [
        f"<h1>{title}</h1><p class='dim'>sempic {sempic.__version__} · judge: "
        f"{html.escape(plan.settings.judge_name)}</p>"
    ]
    for clip, ways in results:
        parts += [
            f"<h2>{html.escape(_described(clip))}</h2>",
            markup.table_of_texts(_rows(ways, figures)),
            *(f"<p class='dim'>{html.escape(note)}</p>" for note in _notes(ways)),
            "<div class='sheet'>",
            markup.pane(_animated(clip.frames, clip), "original"),
            *(
                markup.pane(
                    _animated(way.pictures, clip), f"{way.title}, {way.row['kbps']:.1f} kbit/s"
                )
                for way in ways.values()
            ),
            "</div>",
        ]
    parts.append(
        "<h2>How this was measured</h2><ul><li>AV1 and HEVC are coded with low delay: no frame "
        "waits for a later one. Their CRF is the one nearest in bytes to ours, or to twice ours; "
        "where even the smallest stream is larger, half the width and height are coded.</li>"
        f"<li>Networks see one frame of {plan.every}; mIoU compares the judge's map with its map "
        "of the original.</li><li>Flicker: the mean difference of successive frames along the "
        "original's motion, divided by the original's own, over pixels where the original changes "
        f"by less than {STATIC} grey levels.</li><li>The videos here are animated WebP of quality "
        f"{_QUALITY}.</li></ul>"
    )
    return markup.document(f"sempic benchmark: {title}", "".join(parts), markup.resource("zoom.js"))


def _animated(pictures: Sequence[Image], clip: Clip) -> str:
    """A data URL."""
    rate = float(clip.rate)
    return markup.data_url(animation(pictures, rate, "WEBP", quality=_QUALITY, method=2))
