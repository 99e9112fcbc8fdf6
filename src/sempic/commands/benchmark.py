"""`sempic benchmark`."""

from __future__ import annotations

import argparse
import contextlib
import math
from pathlib import Path

from tqdm import tqdm

from sempic import console, fields, files
from sempic.commands import _files, _measuring, _sequence
from sempic.container import MAX_PIXELS, MAX_SIDE
from sempic.evaluation import benchmark, clips, codecs, human_maps
from sempic.evaluation.benchmark import report, tables
from sempic.evaluation.clips import tables as clip_tables
from sempic.evaluation.measure import Measure, lacking
from sempic.options import Models
from sempic.places import need_folder
from sempic.sequence import SequenceOptions

_QUICK = ("miou", "fid", "psnr", "lpips")
"""Metrics of `--quick`; those without weights are skipped."""
_PARTS = ("report.json", "pictures.csv", "summary.md", "rd.svg", "report.html")
"""Files of a report; one of clips lacks the second and the fourth."""
_CLIP_METRICS = ("miou", "lpips", "objects")
"""Default metrics of clips; those without weights are skipped."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Codes a folder of pictures with several codecs at several rates and reports "
        "rate and quality: report.html, report.json, pictures.csv, summary.md. Results are "
        "cached: an interrupted run resumes, and a further codec costs only its own time. "
        "Clips are coded as sequences, as single pictures, and by AV1 and HEVC at the sequence's "
        "bit rate and at twice that."
    )
    parser.epilog = (
        f"codecs: {', '.join(codecs.NAMES)}; sempic@N takes N steps, sempic+human sends the "
        f"human labels. Of clips: {', '.join(clips.NAMES)}."
    )
    parser.add_argument(
        "inputs",
        type=Path,
        nargs="+",
        metavar="INPUT",
        help="a folder of pictures, a data set with val/ and valannot/, videos, or a folder of "
        "videos",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("report"),
        metavar="DIR",
        help="folder of the report; default report",
    )
    parser.add_argument(
        "--codecs",
        type=_measuring.listed,
        metavar="A,B",
        help=f"default: {', '.join(sorted({*codecs.DEFAULTS} - {*codecs.NAMES}))} and all but "
        + ", ".join(sorted({*codecs.NAMES} - {*codecs.DEFAULTS})),
    )
    parser.add_argument(
        "--rates",
        type=_rates,
        metavar="BPP,…",
        help=f"target rates; default {','.join(map(str, benchmark.RATES))}",
    )
    parser.add_argument("--labels", type=Path, help="human label maps; default: FOLDERannot")
    parser.add_argument(
        "--size", type=parse_size, metavar="WxH", help="scale pictures to this size first"
    )
    parser.add_argument(
        "--short-side",
        type=_files.positive,
        metavar="N",
        help="without --size: scale pictures with a longer short side down to N pixels",
    )
    parser.add_argument("--glob", default="*", metavar="PATTERN", help="take matching file names")
    parser.add_argument(
        "--limit",
        type=_files.positive,
        metavar="N",
        help="take N pictures, evenly spread; of a clip, the first N frames",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="8 pictures, 3 codecs, 4 metrics, fast presets: about a minute",
    )
    parser.add_argument(
        "--effort", choices=codecs.EFFORTS, help="presets of the other codecs; default slowest"
    )
    fields.add(parser.add_argument_group("of sempic"), Models, but=("verifier",))
    parser.add_argument(
        "--jobs", type=_files.positive, metavar="N", help="worker processes; default: one a core"
    )
    parser.add_argument("--cache", type=Path, metavar="FILE", help="default ~/.cache/sempic")
    _measuring.add(parser)
    group = parser.add_argument_group("clips")
    group.add_argument(
        "--fps", type=_sequence.rate, metavar="N", help="frames a second; default: the video's"
    )
    fields.add(group, clips.Options)
    fields.add(group, SequenceOptions)


def run(args: argparse.Namespace) -> int:
    need_folder(args.output)
    for name in _PARTS:
        files.check_writable(args.output / name)
    videos = clips.find(args.inputs)
    if videos:
        return _clips(args, videos)
    for_clips = [*fields.from_args(args, clips.Options), *fields.from_args(args, SequenceOptions)]
    _files.only_for("clips, and these are pictures", ["fps"] * bool(args.fps) + for_clips)
    if args.size:
        _files.only_for("pictures without --size", ["short_side"] * bool(args.short_side))
    return _pictures(args)


def _pictures(args: argparse.Namespace) -> int:
    (folder,) = args.inputs
    if args.quick:
        args.limit = args.limit or 8
        args.codecs = args.codecs or ["sempic", "bpg444", "avif"]
        args.rates = args.rates or [0.06, 0.12, 0.18]
        args.effort = args.effort or "fast"
    items = benchmark.items(folder, args.labels, args.limit, args.glob)
    usual = _QUICK if args.quick else None
    maps = items[0].labels
    settings = _measuring.settings(args, usual, of_maps=maps is not None)
    plan = benchmark.Plan(
        items=items,
        size=args.size,
        short_side=args.short_side,
        settings=settings,
        palettes=human_maps.palettes_of(maps, Measure(settings)),
        effort=args.effort or codecs.EFFORTS[0],
        models=Models(**fields.from_args(args, Models)),
    )
    names = args.codecs or list(codecs.DEFAULTS)
    for name in names:
        plan.codec(name)  # unknown names and missing libraries fail before the work
    with benchmark.Benchmark(plan, cache=args.cache, jobs=args.jobs) as bench:
        results = benchmark.run(bench, names, args.rates or benchmark.RATES)
        for note in lacking(settings.metrics, results.points, of_maps=maps is not None):
            console.say(note)
        parts = {
            "report.json": tables.dump(results),
            "pictures.csv": tables.pictures(bench, results),
            "summary.md": tables.summary(results) + "\n",
            "rd.svg": report.plot(results),
            "report.html": report.page(bench, results),
        }
    return _write(args.output, parts)


def _clips(args: argparse.Namespace, paths: list[Path]) -> int:
    others = ("rates", "labels", "short_side", "quick", "effort", "jobs", "cache", "prior")
    _files.only_for("pictures, and these are clips", filter(vars(args).get, others))
    plan = clips.Plan(
        settings=_measuring.settings(args, _CLIP_METRICS, of_sets=False, of_maps=False),
        names=tuple(args.codecs or clips.NAMES),
        options=SequenceOptions(**fields.from_args(args, SequenceOptions)),
        models=Models(**fields.from_args(args, Models)),
        **fields.from_args(args, clips.Options),
    )
    found = []
    for path in paths:  # a clip that cannot be read is named before the work
        with _sequence.noted(str(path)):
            found.append(
                clips.read(path, size=args.size, rate=args.fps, start=plan.start, count=args.limit)
            )
    results = []
    for path, clip in zip(paths, tqdm(found, "clips", unit="clip", disable=None), strict=True):
        with _sequence.noted(str(path)):
            results.append((clip, clips.measure(clip, plan)))
    rows = [way.row for _, ways in results for way in ways.values()]
    for note in lacking(plan.settings.metrics, rows, of_maps=False):
        console.say(note)
    parts = {
        "report.json": clip_tables.dump(results),
        "summary.md": clip_tables.summary(results),
        "report.html": clip_tables.page(results, plan),
    }
    return _write(args.output, parts)


def _write(folder: Path, parts: dict[str, str]) -> int:
    """Writes a report and prints its summary."""
    files.make_folder(folder)
    for name, text in parts.items():
        files.write(folder / name, console.readable(text).encode())
    print(parts["summary.md"], end="")
    return 0


def parse_size(text: str) -> tuple[int, int]:
    """argparse type of WxH, (width, height) in pixels."""
    with contextlib.suppress(ValueError):
        width, height = map(int, text.lower().split("x"))
        sides = 1 <= width <= MAX_SIDE, 1 <= height <= MAX_SIDE
        if all(sides) and width * height <= MAX_PIXELS:
            return width, height
    raise argparse.ArgumentTypeError(f"a size is WxH in pixels, such as 640x360, not {text!r}")


def _rates(text: str) -> list[float]:
    with contextlib.suppress(ValueError):
        rates = [float(part) for part in text.split(",")]
        if all(0 < rate < math.inf for rate in rates):
            return rates
    raise argparse.ArgumentTypeError(f"{text!r} are not bits per pixel, such as 0.06,0.12")
