"""report.html: all results of a benchmark on one page that opens offline."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from sempic.check.objects import GROWN, KEPT
from sempic.critical import SHARE
from sempic.evaluation import charts, markup, metrics
from sempic.evaluation.benchmark.bench import Benchmark
from sempic.evaluation.benchmark.results import Results
from sempic.evaluation.codecs import is_ours
from sempic.evaluation.measures import FIGURES, METRICS, Figure, Row
from sempic.evaluation.measures.base import JPEG_QUALITY
from sempic.evaluation.measures.inception import PATCH, sample_count

MAIN = ("miou", "fid", "lpips", "psnr")
"""Figures of rd.svg."""


def plot(results: Results, figures: Sequence[str] = MAIN) -> str:
    """Rate and quality curves as one SVG, a panel a figure; "" if none was measured."""
    panels = []
    for figure in (results.figures[name] for name in figures if name in results.figures):
        curves = [
            charts.Curve(codec=name, title=codec.title, points=points)
            for name, codec in results.codecs.items()
            if (points := codec.curve(figure.name))
        ]
        if not curves:  # of infinite figures
            continue
        panels.append(
            charts.Panel(
                title=figure.head(results.originals),
                curves=curves,
                lower=figure.lower,
                ceiling=results.originals.get(figure.name) if figure.ceiling else None,
                ceiling_title=figure.ceiling,
            )
        )
    return charts.figure(panels) if panels else ""


def page(bench: Benchmark, results: Results) -> str:
    """The page as HTML, with all pictures and curves embedded."""
    about = results.about
    size = "{}×{} pixels".format(*about["size"]) if about["size"] else "of several sizes"
    count, codecs = about["pictures"], len(results.codecs)
    title = f"{count} picture{'s' * (count != 1)}, {codecs} codec{'s' * (codecs != 1)}"
    rates = "that were asked for"
    if is_ours(results.anchor):
        rates = f"of the points of {html.escape(results.codecs[results.anchor].title)}"
    fid_note = f" FID {html.escape(sample_count(count))}." if "fid" in results.figures else ""
    sections = [
        f"<h1>{title}</h1>",
        f"<p class='dim'>{html.escape(about['folder'])}, {size} · sempic "
        f"{about['sempic']} · judge: {html.escape(about['judge'])} · presets: {about['effort']} · "
        f"{html.escape(about['machine'])}</p>",
        "<h2>Rate and quality</h2>",
        plot(results),
        plot(results, [name for name in results.figures if name not in MAIN]),
        "<h2>At the same rate</h2>",
        f"<p class='dim'>At the rates {rates}. Other points are interpolated linearly in log(bpp). "
        f"“–”: the codec does not reach this rate. Bold: the best.{fid_note}</p>",
        _matched(results),
        "<h2>BD-rate</h2>",
        _bd_rates(results),
        "<h2>All operating points</h2>",
        "<p class='dim'>Intervals: 95 %, by bootstrap over pictures.</p>",
        _points(results),
        _classes(results),
        _objects(results),
        _pictures(bench, results),
        "<h2>Time and memory</h2>",
        _costs(results),
        "<h2>How this was measured</h2>",
        _notes(results),
    ]
    return markup.document(
        f"sempic benchmark: {title}", "".join(sections), markup.resource("zoom.js")
    )


def _line(results: Results, codec: str, *cells: str) -> tuple[str, list[str]]:
    """A row of `markup.table` with a codec's title and cells of HTML."""
    kind = "ours" if is_ours(codec) else ""
    return kind, [html.escape(results.codecs[codec].title), *cells]


def _matched(results: Results) -> str:
    figures = [*results.figures.values()]
    rows: list[tuple[str, list[str]]] = []
    for bpp in dict.fromkeys(line["bpp"] for line in results.matched):
        rows.append(("group", [f"{bpp:.4f} bpp"]))
        lines = [line for line in results.matched if line["bpp"] == bpp]
        for line, cells in zip(lines, markup.marked(lines, figures), strict=True):
            rows.append(_line(results, line["codec"], *cells))
    return markup.table(["", *markup.heads(figures, results.originals)], rows)


def _bd_rates(results: Results) -> str:
    columns = results.bd_rate
    if not columns:
        return "<p>Nothing to compare.</p>"
    rows = []
    for name in (n for n in results.codecs if n != results.anchor):
        values = [column.get(name) for column in columns.values()]
        cells = ["–" if v is None else f"{v:+.0f} %".replace("-", "−") for v in values]
        rows.append(_line(results, name, *cells))
    title = html.escape(results.codecs[results.anchor].title)
    return (
        f"<p class='dim'>Bits that a codec spends more (+) or less (−) than {title} for the same "
        "figure, averaged over the values that both reach (Bjøntegaard, PCHIP). “–”: the two "
        "curves do not overlap, or one of them has fewer than two rising points.</p>"
        + markup.table(["", *(FIGURES[f].title for f in columns)], rows)
    )


def _points(results: Results) -> str:
    figures = [*results.figures.values()]
    rows: list[tuple[str, list[str]]] = []
    for title in dict.fromkeys(f.ceiling for f in figures if f.ceiling):
        cells = [_interval(results.originals, f) if f.ceiling == title else "–" for f in figures]
        rows.append(("", [title, "–", "–", *cells]))
    for name, codec in results.codecs.items():
        for point in codec.points:
            cells = [_interval(point, f) for f in (markup.BPP, *figures)]
            rows.append(_line(results, name, str(point["setting"]), *cells))
    heads = markup.heads(figures, results.originals)
    return markup.table(["", "setting", "bpp", *heads], rows)


def _interval(row: Row, figure: Figure) -> str:
    text = figure.text(row)
    if f"{figure.name}_ci" not in row:
        return text
    low, high = row[f"{figure.name}_ci"]
    return f"{text} <span class='dim'>± {(high - low) / 2:.3f}</span>"


def _near_our_rate(results: Results, limit: int) -> list[tuple[str, Row]]:
    """Codecs for pictures and bars: the anchor at its point nearest to 0.09 bpp, then others below
    1.6 times its rate, ours first, at most `limit`."""
    bpp = results.codecs[results.anchor].near(0.09)["bpp"]
    nearest = [(name, codec.near(bpp)) for name, codec in results.codecs.items()]
    shown = [(name, point) for name, point in nearest if point["bpp"] < 1.6 * bpp]
    return sorted(shown, key=lambda pair: (pair[0] != results.anchor, not is_ours(pair[0])))[:limit]


def _classes(results: Results) -> str:
    ceiling = results.originals.get("iou")
    if ceiling is None:
        return ""
    series = [("originals", "originals", ceiling)]
    shown = _near_our_rate(results, 7)
    for name, point in shown:
        title = f"{results.codecs[name].title}, {point['bpp']:.3f}"
        series.append((name, title, point["iou"]))
    return (
        "<h2>Class by class</h2><p class='dim'>Intersection over union of each class. Each codec "
        f"is at its point nearest to {shown[0][1]['bpp']:.3f} bpp (its own in the legend).</p>"
        + charts.bars(results.originals["classes"], series)
    )


def _objects(results: Results) -> str:
    rows = [
        (f"{codec.title}, {point['bpp']:.3f}", point)
        for codec in results.codecs.values()
        for point in codec.points
    ]
    objects = METRICS["objects"].details(rows)
    if not objects:
        return ""
    section = (
        "<h2>Objects kept and invented</h2><p class='dim'>Objects are connected regions of at "
        f"least {SHARE:.1%} of the picture. Heads: objects of each group that the judge sees in "
        "the originals. Cells: objects that a codec keeps / invents.</p>"
        + markup.table_of_texts(objects)
    )
    if confirmed := METRICS["confirmed"].details(rows):
        section += (
            "<p class='dim'>The judge sees some objects that are not there. Kept objects among "
            "those that the human maps confirm:</p>" + markup.table_of_texts(confirmed)
        )
    return section


def _pictures(bench: Benchmark, results: Results) -> str:
    shown = _near_our_rate(results, 8)
    name, ours = shown[0]
    count = len(bench.plan.items)
    records = [bench.file(i, name, ours["setting"]).record for i in range(count)]
    measured = set[str].intersection(*map(set, records))
    figures = {"confusion": "mIoU", "agreement": "agreement", "psnr": "PSNR"}
    field = next((field for field in figures if field in measured), None)
    if field is None:
        return ""
    scores = [r[field] if field == "psnr" else metrics.miou(r[field]) for r in records]
    order = np.argsort(scores)[: count - int(np.isnan(scores).sum())][::-1]  # NaN are the last
    if not len(order):
        return ""
    picks: dict[int, str] = {}  # of one or two pictures fewer
    for word, place in (("best", 0), ("worst", -1), ("median", len(order) // 2)):
        picks.setdefault(int(order[place]), word)
    title = html.escape(results.codecs[name].title)
    parts = [
        f"<h2>Pictures</h2><p class='dim'>Best, worst and median picture by {figures[field]} of "
        f"{title}. Each codec is at its point nearest to {ours['bpp']:.3f} bpp. Click to zoom; all "
        "panes of a sheet move together.</p>"
    ]
    for index, word in picks.items():
        item = bench.plan.items[index]
        original, _ = bench.plan.load(index)
        panes = [markup.pane(markup.embedded(original), "original")]
        for other, point in shown:
            codec = bench.codec(other)
            file = bench.file(index, other, point["setting"])
            picture = codec.decode(file.stream, original.shape[1], original.shape[0])
            caption = f"{codec.title}, {file.bpp:.3f} bpp"
            if "confusion" in file.record:
                caption += f", mIoU {metrics.miou(file.record['confusion']):.3f}"
            panes.append(markup.pane(markup.embedded(picture), caption))
        parts.append(
            f"<h3>{word.capitalize()}: {html.escape(item.name)}</h3>"
            f"<div class='sheet'>{''.join(panes)}</div>"
        )
    return "".join(parts)


def _costs(results: Results) -> str:
    rows = []
    for name, codec in results.codecs.items():
        point = codec.points[len(codec.points) // 2]
        times = (f"{1000 * seconds:.0f} ms" for seconds in (point["encode_s"], point["decode_s"]))
        memory = f"{codec.peak_bytes / 2**20:.0f} MiB" if codec.peak_bytes else "–"
        rows.append(_line(results, name, f"{point['bpp']:.3f}", *times, memory))
    return (
        "<p class='dim'>Times: median processor time for one picture, at the middle point of each "
        "codec, on the machine named above. Peak memory: of a process that encodes and decodes one "
        "picture, with Python and all libraries.</p>"
        + markup.table(["", "bpp", "encode", "decode", "peak memory"], rows)
    )


def _notes(results: Results) -> str:
    about = results.about
    notes = [
        "Every figure is measured on files that were written and decoded. Rates count whole files. "
        "HEVC and SVT-AV1 have no file format here: their bare streams count, which favours them. "
        "AVIF spends some 300 bytes on its container.",
        f"mIoU compares the judge's map of the decoded picture with human labels. The judge "
        f"({html.escape(about['judge'])}) is another network than the encoder's segmenter. "
        "“Agreement” compares the judge's map with its own map of the original.",
        f"FID and KID compare Inception-2015 features of {about['pictures']} decoded pictures with "
        "those of their originals.",
        f"Patch FID is FID of patches of {PATCH}×{PATCH} pixels, on a grid and on one shifted by "
        "half a patch.",
        "An object is kept if the judge's map of the decoded picture has the object's group "
        f"there, on at least {KEPT:.0%} of the region's size. An object is invented if the "
        "original has no pixel of the group there. “There” is the region grown by "
        f"{GROWN} pixels. The judge wavers: the same figures of the originals as JPEG of quality "
        f"{JPEG_QUALITY} are the reference.",
        "LPIPS 0.1 has its authors' linear layers, DISTS its authors' weights. MS-SSIM is "
        "torchmetrics', BD-rates the package bjontegaard's.",
        "Each codec's dial is set on a few of the pictures, for rates near the requested ones; the "
        "same setting then codes every picture. Presets are the slowest, unless “fast” stands "
        "above.",
        "VVC is missing: neither PyPI nor this Debian has its encoder as a library.",
    ]
    return "<ul>" + "".join(f"<li>{note}</li>" for note in notes) + "</ul>"
