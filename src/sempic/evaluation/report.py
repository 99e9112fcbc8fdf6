"""report.html: everything of a benchmark on one page that opens offline."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from importlib import resources

import numpy as np
import PIL.Image

from sempic.check.objects import GROWN, KEPT
from sempic.critical import SHARE
from sempic.evaluation import charts, metrics
from sempic.evaluation.benchmark import Benchmark, Point, Results
from sempic.evaluation.evaluate import sample_count
from sempic.evaluation.measures import FIGURES, METRICS, Figure, Row
from sempic.evaluation.measures.inception import PATCH
from sempic.evaluation.measures.objects import REFERENCE_QUALITY
from sempic.evaluation.measures.segmentation import class_names
from sempic.evaluation.metrics import FEW
from sempic.scene import Image

BPP = Figure(name="bpp", title="bpp", digits="{:.4f}", lower=True)


def plot(results: Results, figures: Sequence[str] = ("miou", "fid", "lpips", "psnr")) -> str:
    """The curves of a benchmark as one SVG; figures that were not measured are left out."""
    panels = []
    for figure in (FIGURES[name] for name in figures):
        curves = [
            charts.Curve(
                codec=name,
                title=codec.title,
                points=codec.curve(figure.name),
            )
            for name, codec in results.codecs.items()
            if codec.curve(figure.name)
        ]
        if not curves:
            continue
        panels.append(
            charts.Panel(
                title=results.title(figure),
                better="down" if figure.lower else "up",
                curves=curves,
                ceiling=results.originals.get(figure.name) if figure.ceiling else None,
                ceiling_title=figure.ceiling,
            )
        )
    return charts.figure(panels) if panels else ""


def page(bench: Benchmark, results: Results) -> str:
    """The whole page as HTML; pictures and curves are inside it."""
    about = results.about
    width, height = about["size"]
    count = about["pictures"]
    more = [f for f in ("patch_fid", "ms_ssim", "dists", "lpips_vgg", "kid") if results.measured(f)]
    sections = [
        f"<h1>{count} pictures, {len(results.codecs)} codecs</h1>",
        f"<p class='dim'>{html.escape(about['folder'])}, {width}×{height} pixels · sempic "
        f"{about['sempic']} · judge: {html.escape(about['judge'])} · presets: {about['effort']} · "
        f"{html.escape(about['machine'])}</p>",
        "<h2>Rate and quality</h2>",
        plot(results),
        plot(results, ("objects_kept", "objects_invented")),
        plot(results, more[:2]),
        "<h2>At the same rate</h2>",
        "<p class='dim'>At the rates of our own points; the others between theirs, on straight "
        "lines in log(bpp). “–”: out of that codec's reach at this size. Bold: the best."
        f"{_fid_note(results)}</p>",
        _matched(results),
        "<h2>BD-rate</h2>",
        _bd_rates(results),
        "<h2>All operating points</h2>",
        "<p class='dim'>Intervals: 95 %, bootstrap over pictures.</p>",
        _points(results),
        _classes(results),
        _objects(results),
        _pictures(bench, results),
        "<h2>Time and memory</h2>",
        _costs(results),
        "<h2>How this was measured</h2>",
        _notes(results),
    ]
    return document(f"sempic benchmark: {count} pictures", "".join(sections), resource("zoom.js"))


def resource(name: str) -> str:
    """A script or style of the pages."""
    return resources.files("sempic.evaluation").joinpath("pages", name).read_text("utf-8")


def document(title: str, body: str, script: str, style: str = "") -> str:
    """A page with our style, and more of it."""
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>{html.escape(title)}</title><style>{resource('page.css')}{style}</style></head><body>{body}"
        f"<script>{script}</script></body></html>\n"
    )


def embedded(picture: Image) -> str:
    """A picture as a data URL, lossless."""
    out = io.BytesIO()
    PIL.Image.fromarray(picture).save(out, "WEBP", lossless=True, quality=50)
    return data_url(out.getvalue())


def data_url(webp: bytes) -> str:
    """A WebP file inside a page."""
    return "data:image/webp;base64," + base64.b64encode(webp).decode()


def table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """An HTML table; a row is (its class, its cells), cells are HTML, the best begin with a *."""
    head = "".join(f"<th>{html.escape(h)}</th>" for h in heads)
    lines = []
    for kind, cells in rows:
        if kind == "group":
            lines.append(f"<tr class='group'><td colspan='{len(heads)}'>{cells[0]}</td></tr>")
        else:
            filled = "".join(
                f"<td class='best'>{c[1:]}</td>" if c.startswith("*") else f"<td>{c}</td>"
                for c in cells
            )
            lines.append(f"<tr class='{kind}'>{filled}</tr>")
    return f"<div class='scroll'><table><tr>{head}</tr>{''.join(lines)}</table></div>"


def table_of_texts(rows: Sequence[Sequence[str]]) -> str:
    """An HTML table of plain texts; the first row has the heads."""
    heads, *rest = rows
    return table(heads, [("", [html.escape(cell) for cell in row]) for row in rest])


def marked(lines: Sequence[Row], figures: Sequence[Figure]) -> list[list[str]]:
    """The figures of each line as cells of `table`; the best of several lines are marked."""
    best = {}
    for f in figures:
        there = [line[f.name] for line in lines if line.get(f.name) is not None]
        if there and len(lines) > 1:
            best[f.name] = min(there) if f.lower else max(there)

    def cell(line: Row, f: Figure) -> str:
        is_best = f.name in best and line.get(f.name) == best[f.name]
        return "*" * is_best + f.text(line)

    return [[cell(line, f) for f in figures] for line in lines]


def _columns(results: Results) -> list[Figure]:
    return [f for f in FIGURES.values() if results.measured(f.name)]


def _kind(codec: str) -> str:
    return "ours" if codec.startswith("sempic") else ""


def _matched(results: Results) -> str:
    figures = _columns(results)
    rows: list[tuple[str, list[str]]] = []
    for bpp in dict.fromkeys(line["bpp"] for line in results.matched):
        rows.append(("group", [f"{bpp:.4f} bpp"]))
        lines = [line for line in results.matched if line["bpp"] == bpp]
        for line, found in zip(lines, marked(lines, figures), strict=True):
            title = html.escape(results.codecs[line["codec"]].title)
            rows.append((_kind(line["codec"]), [title, *found]))
    return table(["", *(f.title for f in figures)], rows)


def _bd_rates(results: Results) -> str:
    table_ = results.bd_rate
    if not table_:
        return "<p>Nothing to compare.</p>"
    names = [n for n in results.codecs if any(n in column for column in table_.values())]
    anchor = next(n for n in results.codecs if n not in names)
    rows = []
    for name in names:
        cells = [html.escape(results.codecs[name].title)]
        for column in table_.values():
            value = column.get(name)
            cells.append("–" if value is None else f"{value:+.0f} %".replace("-", "−"))
        rows.append((_kind(name), cells))
    title = html.escape(results.codecs[anchor].title)
    return (
        f"<p class='dim'>Bits that a codec spends more (+) or less (−) than {title} for the same "
        "figure, averaged over the figures that both reach (Bjøntegaard, PCHIP). “–”: the two "
        "curves share no stretch of that figure, or one of them has no two rising points.</p>"
        + table(["", *(FIGURES[f].title for f in table_)], rows)
    )


def _points(results: Results) -> str:
    figures = _columns(results)
    rows: list[tuple[str, list[str]]] = []
    for title in dict.fromkeys(f.ceiling for f in figures if f.ceiling):
        cells = [_interval(results.originals, f) if f.ceiling == title else "–" for f in figures]
        rows.append(("", [title, "–", "–", *cells]))
    for name, codec in results.codecs.items():
        for point in codec.points:
            cells = [_interval(point.row, f) for f in figures]
            title = html.escape(codec.title)
            cells = [title, str(point.setting), _interval(point.row, BPP), *cells]
            rows.append((_kind(name), cells))
    return table(["", "setting", "bpp", *(f.title for f in figures)], rows)


def _interval(row: Row, figure: Figure) -> str:
    text = figure.text(row)
    if f"{figure.name}_ci" not in row:
        return text
    low, high = row[f"{figure.name}_ci"]
    return f"{text} <span class='dim'>± {(high - low) / 2:.3f}</span>"


def _operating_point(results: Results) -> tuple[str, Point]:
    """The codec that the pictures are about, and its point nearest to 0.09 bpp."""
    names = list(results.codecs)
    name = next((n for n in names if n.startswith("sempic")), names[0])
    return name, results.codecs[name].near(0.09)


def _beside(results: Results, most: int) -> list[tuple[str, Point]]:
    """The codecs that are shown in pictures and bars: ours, then those that come near its rate."""
    name, ours = _operating_point(results)
    shown = [(n, codec.near(ours.bpp)) for n, codec in results.codecs.items()]
    others = [(n, p) for n, p in shown if n != name and p.bpp < 1.6 * ours.bpp]
    others.sort(key=lambda pair: not pair[0].startswith("sempic"))
    return [(name, ours), *others][:most]


def _classes(results: Results) -> str:
    ceiling = results.originals.get("iou")
    if ceiling is None:
        return ""
    series = [("originals", "originals", ceiling)]
    for name, point in _beside(results, 7):
        if "iou" not in point.row:  # the originals' is kept from a run that wanted it
            return ""
        title = f"{results.codecs[name].title}, {point.bpp:.3f}"
        series.append((name, title, point.row["iou"]))
    classes = class_names(len(ceiling))
    return (
        "<h2>Class by class</h2><p class='dim'>Intersection over union of each class, each codec "
        "at its point nearest to our middle rate (bpp in the legend).</p>"
        + charts.bars(classes, series)
    )


def _objects(results: Results) -> str:
    rows = [
        (f"{codec.title}, {point.bpp:.3f}", point.row)
        for codec in results.codecs.values()
        for point in codec.points
    ]
    behind = METRICS["objects"].behind(rows)
    if behind is None:
        return ""
    found = (
        "<h2>Objects kept and invented</h2><p class='dim'>Connected regions of at least "
        f"{SHARE:.1%} of the picture that the judge sees in the originals: how many of "
        "each group there are, and how many of them each point of each codec keeps / how many it "
        "invents.</p>" + table_of_texts(behind)
    )
    confirmed = METRICS["confirmed"].behind(rows)
    if confirmed is None:
        return found
    return (
        found + "<p class='dim'>The judge sees some where there are none. Of those that the human "
        "maps show, too, are kept:</p>" + table_of_texts(confirmed)
    )


def _pictures(bench: Benchmark, results: Results) -> str:
    name, ours = _operating_point(results)
    count = len(bench.plan.items)
    records = [bench.file(i, name, ours.setting).record for i in range(count)]
    if all("confusion" in r for r in records):
        scores, figure = [metrics.miou(r["confusion"]) for r in records], "mIoU"
    elif all("agreement" in r for r in records):
        scores, figure = [metrics.miou(r["agreement"]) for r in records], "agreement"
    elif all("psnr" in r for r in records):
        scores, figure = [r["psnr"] for r in records], "PSNR"
    else:
        return ""
    order = np.argsort(scores)[::-1]
    picks = dict(zip(("best", "median", "worst"), order[[0, count // 2, -1]], strict=True))
    parts = [
        "<h2>Pictures</h2><p class='dim'>Best, median and worst picture by our "
        f"{figure}, each codec at its point nearest to our {ours.bpp:.3f} bpp. Click to zoom; all "
        "panes of a sheet move together.</p>"
    ]
    for word, index in picks.items():
        item = bench.plan.items[int(index)]
        original, _ = bench.plan.load(int(index))
        panes = [pane(embedded(original), "original")]
        for other, point in _beside(results, 8):
            codec = bench.codec(other)
            file = bench.file(int(index), other, point.setting)
            picture = codec.decode(file.stream, original.shape[1], original.shape[0])
            caption = f"{codec.title}, {file.bpp:.3f} bpp"
            if "confusion" in file.record:
                caption += f", mIoU {metrics.miou(file.record['confusion']):.3f}"
            panes.append(pane(embedded(picture), caption))
        parts.append(
            f"<h3>{word.capitalize()}: {html.escape(item.name)}</h3>"
            f"<div class='sheet'>{''.join(panes)}</div>"
        )
    return "".join(parts)


def pane(source: str, caption: str) -> str:
    """A picture, a data URL, in a sheet."""
    return (
        f"<figure><div class='pane'><img src='{source}' alt=''></div>"
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _costs(results: Results) -> str:
    rows = []
    for name, codec in results.codecs.items():
        point = codec.points[len(codec.points) // 2]
        cells = [
            html.escape(codec.title),
            f"{point.bpp:.3f}",
            f"{1000 * point.encode_s:.0f} ms",
            f"{1000 * point.decode_s:.0f} ms",
            f"{codec.peak_bytes / 2**20:.0f} MiB",
        ]
        rows.append((_kind(name), cells))
    return (
        "<p class='dim'>Medians of processor time for one picture, at the middle point of each "
        "codec, on the machine named above; peak memory of a process that codes and decodes one "
        "picture, Python and libraries included.</p>"
        + table(["", "bpp", "encode", "decode", "peak memory"], rows)
    )


def _fid_note(results: Results) -> str:
    if not results.measured("fid"):
        return ""
    return f" FID {html.escape(sample_count(results.about['pictures']))}."


def _notes(results: Results) -> str:
    about = results.about
    notes = [
        "Every figure is measured on files that were really written and decoded. Rates count whole "
        "files; HEVC and SVT-AV1 have no file format here, so their bare streams count, which "
        "favours them. AVIF spends some 300 bytes on its container.",
        f"mIoU: the judge ({html.escape(about['judge'])}) sees the decoded picture; its map is "
        "held against human labels. It is another network than the one that encodes. “Agreement” "
        "holds it against the judge's own map of the original.",
        f"FID and KID: Inception-2015 features of {about['pictures']} decoded pictures against "
        "those of their originals."
        + (
            f" With fewer than {FEW} pictures FID is biased upwards: compare within this page only."
            if about["pictures"] < FEW
            else ""
        ),
        f"Patch FID, where it stands: the same of patches of {PATCH}×{PATCH} pixels, on a grid "
        "and on one shifted by half a patch.",
        f"Objects: kept if the judge's map of the decoded picture has the group there, at least "
        f"{KEPT:.0%} of the region's size; invented if the original "
        "has no pixel of the group there; “there” is the region "
        f"grown by {GROWN} pixels. The judge wavers, so the originals as JPEG of quality "
        f"{REFERENCE_QUALITY} are the reference.",
        "LPIPS 0.1 with its authors' linear layers, DISTS with its authors' weights, MS-SSIM and "
        "KID by torchmetrics, BD-rates by the package bjontegaard.",
        "Each codec's dial is set on a few of the pictures, for rates near those asked for, and "
        "then the same setting codes every picture. Presets are the slowest, unless “fast” stands "
        "above.",
        "There is no VVC here: neither PyPI nor this Debian has an encoder to be driven as a "
        "library.",
    ]
    return "<ul>" + "".join(f"<li>{note}</li>" for note in notes) + "</ul>"
