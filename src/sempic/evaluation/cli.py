"""`sempic benchmark`, `sempic evaluate` and `sempic compare`: parse, call, print."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from sempic.errors import InputError, OutputError, SempicError
from sempic.evaluation.measure import Settings, available
from sempic.evaluation.measures import METRICS


def main(argv: Sequence[str]) -> int:
    """Run one of the three commands; returns the exit code, 0 or 2."""
    command, *rest = argv
    try:
        return {"benchmark": _benchmark, "compare": _compare, "evaluate": _evaluate}[command](rest)
    except SempicError as error:
        print(f"sempic: {command}: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("sempic: interrupted", file=sys.stderr)
    return 2


def _evaluate(argv: Sequence[str]) -> int:
    from sempic.evaluation.evaluate import describe, evaluate

    parser = argparse.ArgumentParser(
        prog="sempic evaluate",
        description="Rate and quality of a folder with samples/ and images/ of the same names; "
        "with labels/, human maps, mIoU too; with NAME.sempic, or NAME.bpg and NAME.flif, "
        "anywhere in it, bpp too. As `sempic sample` writes it, or the original's code.",
    )
    parser.add_argument("folder", type=Path, metavar="RESULT_DIR")
    parser.add_argument("--palette", help="of labels/; default: the .sempic files', or the judge's")
    parser.add_argument(
        "--predictions",
        type=Path,
        metavar="DIR",
        help="what another segmenter finds in samples/, index maps or colours, instead of a judge",
    )
    parser.add_argument(
        "--num_classes", type=int, metavar="N", help="of the palette indices: ids below N; 255"
    )
    parser.add_argument("--json", action="store_true", help="print all, each picture too, as JSON")
    _options(parser)
    args = parser.parse_args(argv)
    if args.num_classes is not None and not 1 <= args.num_classes <= 255:
        raise InputError(f"num_classes must lie in 1…255, not {args.num_classes}")
    settings = replace(_settings(args), num_classes=args.num_classes)
    found = evaluate(args.folder, settings, palette=args.palette, predictions=args.predictions)
    for note in found.notes:
        print(f"sempic: {note}", file=sys.stderr)
    if args.json:
        judge = str(args.predictions) if args.predictions else settings.judge_name
        print(json.dumps({"judge": judge, **asdict(found)}, indent=1))
    else:
        print(describe(found.samples, found.originals, settings))
    return 0


def _benchmark(argv: Sequence[str]) -> int:
    from sempic import models
    from sempic.evaluation import benchmark, codecs, report
    from sempic.evaluation.benchmark import tables
    from sempic.pictures import write_file

    parser = argparse.ArgumentParser(
        prog="sempic benchmark",
        description="Codes a folder of pictures with several codecs at several rates and reports "
        "rate and quality: report.html, report.json, pictures.csv, summary.md. What was "
        "done before is kept, so an interrupted run goes on and another codec costs one codec.",
        epilog=f"codecs: {', '.join(codecs.NAMES)}; sempic@N takes N steps, sempic+human sends the "
        "human labels.",
    )
    parser.add_argument("folder", type=Path, help="pictures, or a data set with val/ and valannot/")
    parser.add_argument("-o", "--output", type=Path, default=Path("report"), metavar="DIR")
    parser.add_argument(
        "--codecs", type=_list, metavar="A,B", help="default: all but those in 4:4:4 twice"
    )
    parser.add_argument(
        "--rates",
        type=lambda text: [float(part) for part in text.split(",")],
        metavar="BPP,…",
        help=f"the dials are set nearest to; default {','.join(map(str, benchmark.RATES))}",
    )
    parser.add_argument("--labels", type=Path, help="human index maps; default: FOLDERannot")
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
    _options(parser)
    args = parser.parse_args(argv)
    if args.quick:
        args.limit = args.limit or 8
        args.codecs = args.codecs or ["sempic", "bpg444", "avif"]
        args.rates = args.rates or [0.06, 0.12, 0.18]
        args.effort = args.effort or "fast"
    plan = benchmark.Plan(
        items=benchmark.items(args.folder, args.labels, args.limit, args.glob),
        size=args.size,
        short_side=args.short_side,
        settings=_settings(args, _QUICK if args.quick else None),
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
        files = {
            "report.json": tables.dump(results),
            "pictures.csv": tables.pictures(bench, results),
            "summary.md": tables.summary(results) + "\n",
            "rd.svg": report.plot(results),
            "report.html": report.page(bench, results),
        }
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise OutputError(f"{args.output}: cannot be made ({cause.strerror})") from cause
    for name, text in files.items():
        write_file(args.output / name, text.encode())
    print(files["summary.md"], end="")
    return 0


def _compare(argv: Sequence[str]) -> int:
    from sempic.evaluation.compare import compare, describe
    from sempic.pictures import write_file

    parser = argparse.ArgumentParser(
        prog="sempic compare",
        description="Versions of one picture beside its original: figures, and a page on which one "
        "slides over another. Versions are pictures, .sempic and .bpg files.",
    )
    parser.add_argument("original", type=Path)
    parser.add_argument("versions", type=Path, nargs="+", metavar="VERSION")
    parser.add_argument("-o", "--output", type=Path, default=Path("compare.html"), metavar="PAGE")
    parser.add_argument("--labels", type=Path, metavar="MAP", help="human index map, for mIoU")
    parser.add_argument("--steps", type=int, default=1, metavar="N", help="for .sempic; default 1")
    parser.add_argument("--receiver", metavar="SPEC", help="for .sempic, as in sempic decode")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    _options(parser)
    args = parser.parse_args(argv)
    found, page = compare(
        args.original,
        args.versions,
        _settings(args),
        labels=args.labels,
        steps=args.steps,
        receiver=args.receiver,
    )
    write_file(args.output, page.encode())
    print(json.dumps(found, indent=1) if args.json else describe(found))
    return 0


def _list(text: str) -> list[str]:
    return text.split(",")


def _size(text: str) -> tuple[int, int]:
    width, height = text.lower().split("x")
    return int(width), int(height)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--judge",
        metavar="SPEC",
        help="the segmenter that judges: an ONNX file, or hf:NAME for one of transformers'; "
        "never the one that encodes",
    )
    parser.add_argument("--inception", metavar="PATH", help="TorchScript file of the FID network")
    parser.add_argument(
        "--metrics",
        type=_list,
        metavar="A,B",
        help=f"some of {', '.join(METRICS)}; default: all whose weights are there, but for the "
        "slow " + ", ".join(m.name for m in METRICS.values() if m.costly),
    )


_QUICK = ("miou", "fid", "psnr", "lpips")
"""What `--quick` measures, as far as it can be measured here."""


def _settings(args: argparse.Namespace, preferred: Sequence[str] | None = None) -> Settings:
    """The metrics that are asked for; else the preferred ones, and all by default, as there are."""
    found, missing = available(args.metrics, args.inception, args.judge)
    if args.metrics is None and preferred is not None:
        found = [name for name in found if name in preferred]
        missing = [
            line for line in missing if line.startswith(tuple(f"no {n}:" for n in preferred))
        ]
    for line in missing:
        print(f"sempic: {line}", file=sys.stderr)
    return Settings(judge=args.judge, inception=args.inception, metrics=tuple(found))
