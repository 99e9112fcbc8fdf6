"""`sempic benchmark`."""

from __future__ import annotations

import argparse
from pathlib import Path

from sempic.commands import _measuring

_QUICK = ("miou", "fid", "psnr", "lpips")
"""What `--quick` measures, as far as it can be measured here."""


def add(parser: argparse.ArgumentParser) -> None:
    from sempic.evaluation import benchmark, codecs

    parser.description = (
        "Codes a folder of pictures with several codecs at several rates and reports "
        "rate and quality: report.html, report.json, pictures.csv, summary.md. What was "
        "done before is kept, so an interrupted run goes on and another codec costs one codec."
    )
    parser.epilog = (
        f"codecs: {', '.join(codecs.NAMES)}; sempic@N takes N steps, sempic+human sends the "
        "human labels."
    )
    parser.add_argument("folder", type=Path, help="pictures, or a data set with val/ and valannot/")
    parser.add_argument("-o", "--output", type=Path, default=Path("report"), metavar="DIR")
    parser.add_argument(
        "--codecs",
        type=_measuring.listed,
        metavar="A,B",
        help="default: all but those in 4:4:4 twice",
    )
    parser.add_argument(
        "--rates",
        type=lambda text: [float(part) for part in text.split(",")],
        metavar="BPP,…",
        help=f"the dials are set nearest to; default {','.join(map(str, benchmark.RATES))}",
    )
    parser.add_argument("--labels", type=Path, help="human label maps; default: FOLDERannot")
    parser.add_argument("--size", type=_size, metavar="WxH", help="scale to this first")
    parser.add_argument(
        "--short-side", type=int, metavar="N", help="without --size: scale larger ones down to it"
    )
    parser.add_argument("--glob", default="*", metavar="PATTERN", help="of the names to take")
    parser.add_argument("--limit", type=int, metavar="N", help="take N pictures, evenly spread")
    parser.add_argument(
        "--quick", action="store_true", help="8 pictures, 3 codecs, fast presets: about a minute"
    )
    parser.add_argument("--effort", choices=codecs.EFFORTS, help="of the others; default slowest")
    parser.add_argument("--receiver", metavar="SPEC", help="of sempic, as in sempic decode")
    parser.add_argument("--segmenter", metavar="SPEC", help="of sempic, as in sempic encode")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes; default one a core")
    parser.add_argument("--cache", type=Path, metavar="FILE", help="default ~/.cache/sempic")
    _measuring.add(parser)


def run(args: argparse.Namespace) -> int:
    from sempic import files, models
    from sempic.evaluation import benchmark, codecs, report
    from sempic.evaluation.benchmark import tables

    if args.quick:
        args.limit = args.limit or 8
        args.codecs = args.codecs or ["sempic", "bpg444", "avif"]
        args.rates = args.rates or [0.06, 0.12, 0.18]
        args.effort = args.effort or "fast"
    plan = benchmark.Plan(
        items=benchmark.items(args.folder, args.labels, args.limit, args.glob),
        size=args.size,
        short_side=args.short_side,
        settings=_measuring.settings(args, _QUICK if args.quick else None),
        effort=args.effort or codecs.EFFORTS[0],
        receiver=args.receiver,
        segmenter=args.segmenter,
    )
    names = args.codecs or list(benchmark.CODECS)
    for name in names:
        plan.codec(name)  # unknown names and missing libraries are told before the work
    cache = args.cache or models.cache() / "benchmark.sqlite"
    with benchmark.Benchmark(plan, cache=cache, jobs=args.jobs) as bench:
        results = benchmark.run(bench, names, args.rates or benchmark.RATES)
        parts = {
            "report.json": tables.dump(results),
            "pictures.csv": tables.pictures(bench, results),
            "summary.md": tables.summary(results) + "\n",
            "rd.svg": report.plot(results),
            "report.html": report.page(bench, results),
        }
    files.make_folder(args.output)
    for name, text in parts.items():
        files.write(args.output / name, text.encode())
    print(parts["summary.md"], end="")
    return 0


def _size(text: str) -> tuple[int, int]:
    width, height = text.lower().split("x")
    return int(width), int(height)
