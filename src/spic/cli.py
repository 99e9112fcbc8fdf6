"""The command line: parse, call, write. One line and exit code 2 for whatever goes wrong."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import spic
from spic import api, codec
from spic.errors import BitstreamError, InputError, OutputError, SpicError
from spic.palette import BY_NAME, PALETTES

_CONTROLS = ("steps", "seed", "guidance", "fidelity")
Record = dict[str, Any]
"""What is reported of one file; `--json` prints it."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, 0 or 2."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["train"] or argv[:1] == ["sample"]:
        return _train(argv[0], argv[1:])
    if argv[:1] and argv[0] in ("benchmark", "evaluate", "compare"):
        return _evaluation(argv)
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except SpicError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted")
    except BrokenPipeError:  # whoever read our output has gone; keep the shutdown quiet
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2


# ── the commands ─────────────────────────────────────────────────────────────────────────────


def _encode(args: argparse.Namespace) -> int:
    from spic import pictures

    coder = api.Codec(segmenter=args.segmenter)

    def run(job: Job) -> Record:
        picture = pictures.read(job.read())
        labels = None
        if args.labels:
            path = Path(args.labels)
            if path.is_dir():
                path = path / job.relative.with_suffix(".png")
            with _naming(path):
                labels = pictures.read_labels(_read(path))
        stream = coder.encode(
            picture,
            labels=labels,
            palette=args.palette,
            quality=args.quality,
            coarse_codec=args.coarse_codec,
            target_bpp=args.target_bpp,
            max_side=args.max_side,
        )
        job.write(stream)
        return _described(stream)

    jobs = _jobs(args.inputs, args.output, found=pictures.SUFFIXES, suffix=".spic")
    return _each(jobs, run, _summary, args.json)


def _decode(args: argparse.Namespace) -> int:
    from spic import pictures

    coder = api.Codec(receiver=args.receiver)

    def run(job: Job) -> Record:
        assert job.target is not None
        if args.output is None and job.target != STDOUT and job.target.exists():
            raise OutputError(f"{job.target} exists, maybe the original; name the output with -o")
        stream = job.read()
        scene = codec.unpack(stream, only=args.only)
        suffix = ".png" if job.target == STDOUT else job.target.suffix
        if args.only == "labels":
            if scene.labels is None:
                raise BitstreamError("the stream has no label map")
            data = pictures.encode_labels(scene.labels, PALETTES[scene.palette], suffix)
        elif args.only == "coarse":
            data = pictures.encode(api.preview(scene), suffix)
        else:
            controls = {name: getattr(args, name) for name in _CONTROLS}
            data = pictures.encode(coder.synthesize(scene, **controls), suffix)
            if args.uncertainty:
                spread = coder.uncertainty(scene, samples=args.samples, **controls)
                path = Path(args.uncertainty)
                grey = np.minimum(np.rint(4 * spread), 255).astype(np.uint8)
                with _naming(path):
                    pictures.write_file(path, pictures.encode(grey, path.suffix))
        job.write(data)
        return _described(stream)

    suffix = f".{args.only}.png" if args.only else ".png"
    jobs = _jobs(args.inputs, args.output, found={".spic"}, suffix=suffix)
    if args.uncertainty and (len(jobs) > 1 or args.only):
        raise InputError("--uncertainty is for one file, and not with --only")
    return _each(jobs, run, _summary, args.json)


def _info(args: argparse.Namespace) -> int:
    def run(job: Job) -> Record:
        return _described(job.read())

    jobs = _jobs(args.inputs, None, found={".spic"}, suffix=None)
    return _each(jobs, run, _details, args.json)


def _serve(args: argparse.Namespace) -> int:
    try:
        from spic.server import app
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("spic"):
            raise
        return _fail(f"serve: {error.name} is missing; pip install 'spic[serve]'")
    settings = app.Settings(
        workers=args.workers,
        queue=args.queue,
        seconds=args.seconds,
        max_bytes=args.max_bytes,
        max_pixels=args.max_pixels,
        segmenter=args.segmenter,
        receiver=args.receiver,
    )
    app.serve(settings, host=args.host, port=args.port)
    return 0


def _train(command: str, argv: list[str]) -> int:
    try:
        import spic.training.cli as training

        return training.sample(argv) if command == "sample" else training.main(argv)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("spic"):
            raise
        return _fail(f"{command}: {error.name} is missing; pip install 'spic[train]'")


def _evaluation(argv: list[str]) -> int:
    try:
        import spic.evaluation.cli as evaluation

        return evaluation.main(argv)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("spic"):
            raise
        return _fail(f"{argv[0]}: {error.name} is missing; pip install 'spic[eval]'")


# ── files in, files out ──────────────────────────────────────────────────────────────────────


STDOUT = Path("-")


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One file to be read and one to be written."""

    source: Path | None
    """None is standard input."""
    relative: Path
    """The source below the folder that was named."""
    target: Path | None
    """None: nothing is written; STDOUT is standard output."""
    mkdir: bool
    """Whether folders above the target are made."""

    @property
    def name(self) -> str:
        return "-" if self.source is None else str(self.source)

    def read(self) -> bytes:
        return sys.stdin.buffer.read() if self.source is None else _read(self.source)

    def write(self, data: bytes) -> None:
        assert self.target is not None
        if self.target == STDOUT:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        from spic.pictures import write_file

        with _naming(self.target):
            if self.mkdir:
                try:
                    self.target.parent.mkdir(parents=True, exist_ok=True)
                except OSError as cause:
                    raise OutputError(f"cannot make the folder: {cause.strerror}") from cause
            write_file(self.target, data)


def _jobs(
    inputs: list[str], output: str | None, *, found: Iterable[str], suffix: str | None
) -> list[Job]:
    """What to do for the files and folders that were named.

    In folders, files whose suffix is in `found` count, at any depth. Names are kept and the
    suffix changes; where that would give two sources one name (a.jpg and a.png), they keep their
    suffix before the new one (a.jpg.spic and a.png.spic).
    With `suffix` None nothing is to be written.
    """
    sources: list[tuple[Path | None, Path]] = []
    for name in inputs:
        path = Path(name)
        if name == "-":
            sources.append((None, Path("stdin")))
        elif path.is_dir():
            inside = sorted(
                p for p in path.rglob("*") if p.suffix.lower() in set(found) and p.is_file()
            )
            if not inside:
                raise InputError(f"{path}: no files of a type that is looked for")
            sources += [(p, p.relative_to(path)) for p in inside]
        else:
            sources.append((path, Path(path.name)))

    several = len(inputs) > 1 or Path(inputs[0]).is_dir()
    into = output is not None and (several or output.endswith(os.sep) or Path(output).is_dir())
    if several and output == "-":
        raise InputError("several files cannot go to standard output")
    if several and into and Path(str(output)).exists() and not Path(str(output)).is_dir():
        raise OutputError(f"{output}: not a folder")

    targets: list[Path | None] = []
    for source, relative in sources:
        if suffix is None:
            targets.append(None)
        elif output == "-" or (output is None and source is None):
            targets.append(STDOUT)
        elif into:
            targets.append(Path(str(output)) / relative.with_suffix(suffix))
        elif output is not None:
            targets.append(Path(output))
        else:
            assert source is not None
            targets.append(source.with_suffix(suffix))
    clashes = Counter(str(t).lower() for t in targets)
    return [
        Job(
            source=source,
            relative=relative,
            target=(
                target.with_name(relative.name + suffix)
                if target and suffix and clashes[str(target).lower()] > 1
                else target
            ),
            mkdir=into,
        )
        for (source, relative), target in zip(sources, targets, strict=True)
    ]


def _each(
    jobs: list[Job], run: Callable[[Job], Record], describe: Callable[[Record], str], as_json: bool
) -> int:
    """Run all jobs and report each; a failure is reported and does not stop the rest."""
    out = sys.stderr if any(job.target == STDOUT for job in jobs) else sys.stdout
    bar: Any = contextlib.nullcontext(jobs)
    write: Callable[..., None] = print
    if len(jobs) > 1:
        from tqdm import tqdm

        bar, write = tqdm(jobs, unit="file", disable=None), tqdm.write
    failed = 0
    with bar as items:
        for job in items:
            start = time.perf_counter()
            record: Record = {"path": job.name}
            try:
                record |= run(job)
            except (SpicError, MemoryError) as error:
                failed += 1
                record["error"] = str(error) or "not enough memory"
                write(f"spic: {job.name}: {record['error']}", file=sys.stderr)
            else:
                if job.target is not None:
                    record["output"] = str(job.target)
                record["seconds"] = round(time.perf_counter() - start, 4)
                if not as_json:
                    write(describe(record), file=out)
            if as_json:
                write(json.dumps(record, ensure_ascii=False), file=out)
    if failed and len(jobs) > 1:
        print(f"spic: {failed} of {len(jobs)} files failed", file=sys.stderr)
    return 2 if failed else 0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as cause:
        raise InputError(f"cannot read: {cause.strerror}") from cause


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Puts the file's name before the message of an error in another file than the source."""
    try:
        yield
    except SpicError as error:
        raise type(error)(f"{path}: {error}") from error


def _fail(message: str) -> int:
    print(f"spic: {message}", file=sys.stderr)
    return 2


# ── reports ──────────────────────────────────────────────────────────────────────────────────


def _described(stream: bytes) -> Record:
    record = api.info(stream)
    record["bpp"] = round(record["bpp"], 5)
    return record


def _summary(record: Record) -> str:
    to = record.get("output", "-")
    return (
        f"{record['path']} → {to}: {record['width']}×{record['height']}, "
        f"{record['bytes']} bytes, {record['bpp']:.4f} bpp, {record['seconds']:.2f} s"
    )


def _details(record: Record) -> str:
    pixels = record["width"] * record["height"]
    receiver = f"receiver {record['model']}" if record["model"] else "any receiver"
    parts = {
        f"coarse ({record['coarse_codec']})" if name == "coarse" else name: size
        for name, size in record["chunks"].items()
    }
    rows = [*parts.items(), ("header, checksum", record["overhead"]), ("all", record["bytes"])]
    return "\n".join(
        [
            f"{record['path']}: version {record['version']}, {record['width']}×"
            f"{record['height']}, palette {record['palette']}, {receiver}",
            *(f"  {name:<17}{size:>8} bytes{8 * size / pixels:>9.4f} bpp" for name, size in rows),
        ]
    )


# ── arguments ────────────────────────────────────────────────────────────────────────────────


def _positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError
        return value

    parse.__name__ = f"positive {'whole ' if kind is int else ''}number"
    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spic",
        description="A semantic image codec: pictures to .spic files and back.",
        epilog="'spic COMMAND --help' explains the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"spic {spic.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    encode = commands.add_parser("encode", help="pictures → .spic", description=_encode_help)
    _files(encode, "pictures, folders of them, or - for standard input", "photo.spic")
    encode.add_argument(
        "-q",
        "--quality",
        type=int,
        choices=api.QUALITY,
        default=api.DEFAULT_QUALITY,
        metavar="1…9",
        help=f"of the coarse picture; default {api.DEFAULT_QUALITY}",
    )
    encode.add_argument(
        "--target-bpp",
        type=_positive(float),
        metavar="BPP",
        help="find the best quality whose file has at most so many bits per pixel",
    )
    encode.add_argument(
        "--labels",
        metavar="MAP",
        help="send this label map (a picture of ids, or a folder of them under the pictures' "
        "names) instead of the segmenter's",
    )
    encode.add_argument("--palette", choices=BY_NAME, help="of --labels; default camvid")
    encode.add_argument(
        "--segmenter",
        metavar="SPEC",
        help="an ONNX file, or hf:NAME for a model of transformers; default: the bundled one",
    )
    encode.add_argument("--coarse-codec", choices=codec.CODECS, default="bpg", help="default bpg")
    encode.add_argument(
        "--max-side",
        type=_positive(int),
        metavar="PIXELS",
        help="scale larger pictures down to this first",
    )
    encode.set_defaults(run=_encode)

    decode = commands.add_parser("decode", help=".spic → pictures", description=_decode_help)
    _files(decode, ".spic files, folders of them, or - for standard input", "photo.png")
    decode.add_argument(
        "--only",
        choices=("labels", "coarse"),
        help="just the coloured label map, or the coarse picture enlarged; no receiver needed",
    )
    decode.add_argument(
        "--steps",
        type=_positive(int),
        metavar="N",
        help="of the receiver; the bundled one takes 4 by default (1 is fastest), the paper's 20",
    )
    decode.add_argument("--seed", type=int, default=0, help="of the receiver's noise; default 0")
    decode.add_argument(
        "--guidance",
        type=float,
        metavar="S",
        help="how much the label map counts: 1 as trained, 2 stresses it at twice the time",
    )
    decode.add_argument(
        "--fidelity",
        type=float,
        metavar="0…1",
        help="0, the default: a likely picture, sharp; 1: the mean of all likely ones, soft",
    )
    decode.add_argument(
        "--uncertainty",
        metavar="MAP",
        help="also write this grey picture of what was imagined: four times the standard deviation "
        "of each pixel over --samples decodes; black was transmitted",
    )
    decode.add_argument(
        "--samples", type=_positive(int), default=8, metavar="N", help="of --uncertainty; default 8"
    )
    decode.add_argument(
        "--receiver",
        "--model",
        metavar="SPEC",
        help="an ONNX file, or a checkpoint of the paper's network (.safetensors, .pt; needs "
        "spic[train]); default: the bundled receiver",
    )
    decode.set_defaults(run=_decode)

    info = commands.add_parser("info", help="what .spic files hold and what each part costs")
    _files(info, ".spic files, folders of them, or - for standard input", None)
    info.set_defaults(run=_info)

    serve = commands.add_parser(
        "serve", help="HTTP server with a page to look at it", description=_serve_help
    )
    serve.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1, this machine only")
    serve.add_argument("--port", type=int, default=8000, help="default 8000; 0 takes a free one")
    for flag, kind, default, text in (
        ("--workers", int, 2, "processes that code"),
        ("--queue", int, 16, "requests that may wait for one; more get 429"),
        ("--seconds", float, 60.0, "time limit of a request, waiting included"),
        ("--max-bytes", int, 1 << 25, "of a request's body"),
        ("--max-pixels", int, 1 << 22, "of a picture that is coded or decoded"),
    ):
        number = _positive(kind)
        serve.add_argument(
            flag, type=number, default=default, metavar="N", help=f"{text}; default {default:g}"
        )
    serve.add_argument("--segmenter", metavar="SPEC", help="as of spic encode")
    serve.add_argument("--receiver", metavar="SPEC", help="as of spic decode")
    serve.set_defaults(run=_serve)

    commands.add_parser("train", help="train the networks (needs spic[train])", add_help=False)
    commands.add_parser(
        "sample", help="sample the paper's network (needs spic[train])", add_help=False
    )
    for name, what in (
        ("benchmark", "this codec beside others at the same rates (needs spic[eval])"),
        ("compare", "versions of one picture: figures and a page (needs spic[eval])"),
        ("evaluate", "bpp, mIoU, FID and more of a folder of results (needs spic[eval])"),
    ):
        commands.add_parser(name, help=what, add_help=False)
    return parser


_encode_help = (
    "Writes NAME.spic beside each picture, or where -o says. An existing file is replaced only "
    "when the new one is complete. Exit code 2 if any picture failed."
)
_decode_help = (
    "Writes NAME.png beside each file, or where -o says; the suffix there chooses the format. "
    "Without -o no existing picture is replaced. Exit code 2 if any file failed."
)


_serve_help = (
    "Serves the codec over HTTP and a page to look at it (needs spic[serve]). Ctrl-C or SIGTERM "
    "ends it when accepted work is finished. The log is JSON lines on stderr."
)


def _files(parser: argparse.ArgumentParser, inputs: str, output: str | None) -> None:
    parser.add_argument("inputs", nargs="+", metavar="FILE", help=inputs)
    if output is not None:
        parser.add_argument(
            "-o",
            "--output",
            metavar="PATH",
            help=f"a file, a folder, or - for standard output; default: {output} beside photo",
        )
    parser.add_argument("--json", action="store_true", help="print one JSON object a file")


if __name__ == "__main__":
    sys.exit(main())
