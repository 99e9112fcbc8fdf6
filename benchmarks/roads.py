"""How do our pictures compare with AVIF at 1, 2 and 3 times the bytes, and with JPEG?

    python benchmarks/roads.py FOLDER [--glob 'nuscenes-*'] [--limit 10] [--short-side 384]
        [--segmenter ONNX] [--receiver ONNX] [--metrics lpips,dists,patch_fid,objects]
        [--verifier ONNX] [--labels MAPS] [--palette camvid]
        [--rows ours,checked,kept,void,none,avif,avif2,avif3,jpeg] [--json OUT]

FOLDER may be `skimage`: the photographs of scikit-image (pip install scikit-image). Rows of ours
are the default, with a check, with all critical classes kept (--keep), with a map that is all void,
and without labels. AVIF (libaom, slowest preset unless --effort fast) codes each picture at the
quality whose file is nearest in size. Objects are kept or invented according to the judge, with
JPEG at quality 90 as the reference; with human maps, --metrics confirmed counts those that the maps
confirm, too.
"Ours nearer" counts pictures in which ours has the lower LPIPS. Seconds are medians of processor
time. Results are cached in ~/.cache/sempic: another receiver costs only our own rows. The patch FID
takes about 0.15 s a window on one core, with 100 windows a picture at a short side of 384.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import operator
from pathlib import Path
from typing import Any

from common import add_folder, in_one_line, new_parser, positive, save

from sempic import fields
from sempic.commands import _measuring
from sempic.evaluation import benchmark, codecs
from sempic.evaluation.benchmark.tables import markdown
from sempic.evaluation.dial import nearest
from sempic.evaluation.folders import spread
from sempic.evaluation.human_maps import palettes_of
from sempic.evaluation.measure import Measure, Settings
from sempic.evaluation.measures import details, measured
from sempic.evaluation.measures.base import JPEG_QUALITY
from sempic.options import DEFAULT_QUALITY, Models
from sempic.palette import Palette, find

PHOTOGRAPHS = (
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "clock_motion.png", "coffee.png"),
    *("coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "moon.png"),
    *("motorcycle_left.png", "rocket.jpg"),
)
"""Files in scikit-image that need no download."""
MEASURED = ("lpips", "dists", "patch_fid", "objects")
ROWS = {
    "ours": ("ours", "sempic", 1),
    "checked": ("ours, checked", "sempic+checked", 1),
    "kept": ("ours, critical classes kept", "sempic+kept", 1),
    "void": ("ours, all void", "sempic+void", 1),
    "none": ("ours, no labels", "sempic+none", 1),
    "avif": ("AVIF, same bytes", "avif", 1),
    "avif2": ("AVIF, twice", "avif", 2),
    "avif3": ("AVIF, thrice", "avif", 3),
    "jpeg": (f"JPEG {JPEG_QUALITY}", "jpeg", 1),
}
"""Titles, codecs, and the size of AVIF files as a multiple of ours."""
USUAL = [name for name in ROWS if name not in ("checked", "kept")]
"""Default rows."""


@in_one_line()
def main() -> None:
    parser = new_parser(__doc__)
    add_folder(parser, scaled=False)
    parser.add_argument(
        "--short-side", type=positive, metavar="PIXELS", help="scale down to it first"
    )
    parser.add_argument("--quality", type=int, default=DEFAULT_QUALITY, help="of ours")
    fields.add(parser.add_argument_group("of ours"), Models)
    parser.add_argument("--labels", type=Path, metavar="MAPS", help="human maps of the same names")
    parser.add_argument("--palette", help="of --labels; default: the judge's")
    parser.add_argument("--judge", metavar="SPEC", help="the segmenter that finds the objects")
    parser.add_argument("--metrics", type=_measuring.listed, metavar="A,B", default=list(MEASURED))
    parser.add_argument("--rows", type=_measuring.listed, metavar="A,B", default=USUAL)
    parser.add_argument("--effort", choices=codecs.EFFORTS, default=codecs.EFFORTS[0])
    parser.add_argument("--jobs", type=positive, default=1, metavar="N", help="processes")
    parser.set_defaults(inception=None)
    args = parser.parse_args()
    if unknown := set(args.rows) - set(ROWS):
        parser.error(f"--rows: {', '.join(unknown)} is not one of {', '.join(ROWS)}")

    items = _items(args)
    settings = _measuring.settings(args, of_maps=items[0].labels is not None)
    plan = benchmark.Plan(
        items=items,
        palettes=_palettes(args, items[0].labels, settings),
        size=None,
        short_side=args.short_side,
        settings=settings,
        effort=args.effort,
        models=Models(**fields.from_args(args, Models)),
    )
    with benchmark.Benchmark(plan, jobs=args.jobs) as bench:
        lines = measure(bench, args.rows, args.quality)
    print(f"{len(plan.items)} pictures of {args.folder} {args.glob}")
    print(describe(lines))
    save(args, lines)


def measure(bench: benchmark.Benchmark, rows: list[str], quality: int) -> list[dict[str, Any]]:
    """The rows of the table, as `Benchmark.row`, with a title."""
    indices = range(len(bench.plan.items))

    def point(name: str, index: int) -> tuple[str, int]:
        _, codec, times = ROWS[name]
        if codec == "avif":
            return codec, near(bench, index, codec, times * bench.rate("sempic", quality, index))
        return codec, JPEG_QUALITY if codec == "jpeg" else quality

    points = {name: [point(name, index) for index in indices] for name in rows}
    bench.measure((i, *mine[i]) for i in indices for mine in points.values())
    originals = bench.originals()
    lines = []
    for name, mine in points.items():
        coded = [(i, *mine[i]) for i in indices]
        line = {"title": ROWS[name][0], **bench.row(coded, originals)}
        if name != "ours" and "ours" in points and "lpips" in bench.plan.settings.metrics:
            ours, other = (
                [bench.file(i, *some[i]).record["lpips"] for i in indices]
                for some in (points["ours"], mine)
            )
            line["ours_nearer"] = sum(map(operator.lt, ours, other))
        lines.append(line)
    return lines


def near(bench: benchmark.Benchmark, index: int, name: str, bpp: float) -> int:
    """The setting of a codec at which one picture is nearest to a rate. Tries no rate far above it,
    where codecs are slow."""
    settings = bench.codec(name).settings
    rate = functools.cache(lambda at: bench.rate(name, settings[at], index))
    last = len(settings) - 1
    high = next((at for at in (8, 16, 32, 64) if at >= last or rate(at) >= bpp), last)
    return settings[nearest(rate, min(high, last) + 1, bpp)]


def describe(lines: list[dict[str, Any]]) -> str:
    """Tables in Markdown: the figures, and the counts behind them."""
    figures = [*measured(lines).values()]
    heads = ["", "bpp", *(figure.head(lines[0]) for figure in figures)]
    nearer = any("ours_nearer" in line for line in lines)
    more = [f"ours nearer, of {lines[0]['pictures']}"] * nearer
    table = [[*heads, *more, "encode, s", "decode, s"]]
    for line in lines:
        cells = [line["title"], f"{line['bpp']:.3f}", *(figure.text(line) for figure in figures)]
        cells += [str(line.get("ours_nearer", ""))] * nearer
        table.append([*cells, f"{line['encode_s']:.2f}", f"{line['decode_s']:.2f}"])
    tables = [table, *details([(line["title"], line) for line in lines])]
    return "\n\n".join("\n".join(markdown(rows)) for rows in tables)


def _palettes(
    args: argparse.Namespace, labels: Path | None, settings: Settings
) -> tuple[Palette, Palette]:
    measure = Measure(settings)
    if args.palette is None:
        return palettes_of(labels, measure)
    return find(args.palette), measure.palette


def _items(args: argparse.Namespace) -> tuple[benchmark.Item, ...]:
    if str(args.folder) != "skimage":
        return benchmark.items(args.folder, args.labels, args.limit, args.glob)
    if args.labels or args.glob != "*":
        raise SystemExit("skimage: its photographs have no --labels, and take no --glob")
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise SystemExit("skimage: pip install scikit-image")
    data = Path(spec.origin).with_name("data")
    names = spread(PHOTOGRAPHS, args.limit)
    return tuple(benchmark.Item(name=n, picture=data / n, labels=None) for n in names)


if __name__ == "__main__":
    main()
