"""The command line: parse, call, write. One line and exit code 2 for whatever goes wrong."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np

import sempic
from sempic import api, batch, codec, container, extras, models, processes, progress
from sempic.batch import Done, Record
from sempic.errors import BitstreamError, InputError, OutputError, SempicError, install_hint
from sempic.jobs import STDOUT, TAR, Job, find, naming
from sempic.palette import BY_NAME, PALETTES

_CONTROLS = ("steps", "seed", "guidance", "fidelity")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, 0 or 2.

    Without arguments it is the program: those of the process are taken, and its streams and
    signals are seen to (`processes.as_program`).
    """
    if argv is None:
        return processes.as_program(lambda: _run(sys.argv[1:]))
    return _run(argv)


def _run(argv: list[str]) -> int:
    with progress.shown():
        if argv[:1] == ["distill"]:
            argv = ["train", *argv]
        if argv[:1] == ["train"] or argv[:1] == ["sample"]:
            return _train(argv[0], argv[1:])
        if argv[:1] and argv[0] in ("benchmark", "evaluate", "compare"):
            return _evaluation(argv)
        args = _parser().parse_args(argv)
        try:
            for name, value in vars(args).items():
                if value == "":
                    raise InputError(f"--{name.replace('_', '-')}: an empty value")
            return int(args.run(args))
        except SempicError as error:
            return _fail(str(error))


# ── the commands ─────────────────────────────────────────────────────────────────────────────


def _encode(args: argparse.Namespace) -> int:
    from sempic import formats, pictures

    if args.labels is not None and args.segmenter:
        raise InputError("--labels takes the place of what --segmenter finds: give one of them")
    jobs = find(
        args.inputs,
        args.output,
        found=pictures.SUFFIXES | {TAR},
        suffix=".sempic",
        foreign=formats.FOREIGN,
        reads=(args.labels, args.segmenter),
        writes=(args.manifest,),
        say=_note,
    )
    for job in jobs:
        if job.target is not None and job.target.suffix.lower() in pictures.SUFFIXES:
            raise OutputError(f"{job.target}: a .sempic file under the name of a picture")
    if args.quality is None:
        args.quality = api.DEFAULT_QUALITY
    names = [
        "palette",
        "quality",
        "coarse_codec",
        "target_bpp",
        "max_side",
        "label_quality",
        "ignore_label",
    ]
    options = {name: getattr(args, name) for name in names} | {"importance": dict(args.importance)}
    work = batch.Encode(
        segmenter=args.segmenter, labels=args.labels, images=args.images, options=options
    )
    path = args.manifest
    if path is None and args.engine == "ray":
        target = next((job.target for job in jobs if job.target is not None), Path())
        folder = Path(args.output) if jobs[0].mkdir else target.parent
        path = str(folder / "manifest.jsonl") if "://" not in str(target) else "manifest.jsonl"
    manifest = None
    todo = jobs
    if path is not None:
        if any(job.target == STDOUT for job in jobs):
            raise InputError("--manifest is for files, not for standard output")
        settings = options | {"segmenter": args.segmenter, "labels": args.labels}
        settings["images"] = args.images
        manifest = batch.Manifest(Path(path), settings | {"sempic": sempic.__version__})
        todo = manifest.remaining(jobs)
        if len(todo) < len(jobs):
            print(f"sempic: {len(jobs) - len(todo)} of {len(jobs)} are done", file=sys.stderr)
    if args.engine == "ray" and todo:
        done = batch.in_ray(work, todo, args.jobs)
    elif args.jobs > 1 and len(todo) > 1:
        done = batch.in_processes(work, todo, args.jobs)
    else:
        done = batch.here(work, todo)
    return _each(todo, done, _summary, args.json, manifest)


def _decode(args: argparse.Namespace) -> int:
    from sempic import pictures

    coder = api.Codec(receiver=args.receiver)
    if args.only:
        for name in (*_CONTROLS, "receiver"):
            if getattr(args, name) is not None:
                raise InputError(f"--{name} is for the receiver, which --only leaves out")
    if args.samples is not None and not args.uncertainty:
        raise InputError("--samples is for --uncertainty; a decode is one sample")
    controls = {name: getattr(args, name) for name in _CONTROLS}
    controls["seed"] = controls["seed"] or 0

    def run(job: Job) -> Record:
        assert job.target is not None
        stream = _stream(job)
        if args.output is None and job.target != STDOUT and job.target.exists():
            raise OutputError(f"{job.target} exists, maybe the original; name the output with -o")
        with progress.waiting("reading labels and coarse picture", aloud=False):
            scene = codec.unpack(stream, only=args.only)
        suffix = ".png" if job.target == STDOUT else job.target.suffix
        if args.only == "labels":
            if scene.labels is None:
                raise BitstreamError("the stream has no label map")
            data = pictures.encode_labels(scene.labels, PALETTES[scene.palette], suffix)
        elif args.only == "coarse":
            data = pictures.encode(api.preview(scene), suffix)
        else:
            data = pictures.encode(coder.synthesize(scene, **controls), suffix)
            if args.uncertainty:
                spread = coder.uncertainty(scene, samples=args.samples or 8, **controls)
                path = Path(args.uncertainty)
                grey = np.minimum(np.rint(4 * spread), 255).astype(np.uint8)
                with naming(path):
                    pictures.write_file(path, pictures.encode(grey, path.suffix))
        job.write(data)
        return batch.described(stream)

    suffix = f".{args.only}.png" if args.only else ".png"
    jobs = find(
        args.inputs,
        args.output,
        found={".sempic"},
        suffix=suffix,
        reads=(args.receiver,),
        writes=(args.uncertainty,),
    )
    if args.uncertainty and (len(jobs) > 1 or len(args.inputs) > 1 or args.only):
        raise InputError("--uncertainty is for one file, and not with --only")
    return _each(jobs, batch.here(run, jobs), _summary, args.json)


def _info(args: argparse.Namespace) -> int:
    _need_stdout()

    def run(job: Job) -> Record:
        return batch.described(_stream(job))

    jobs = find(args.inputs, None, found={".sempic"}, suffix=None)
    code = _each(jobs, batch.here(run, jobs), _details, args.json)
    if not args.json:
        print(models.TERMS)
    return code


def _stream(job: Job) -> bytes:
    """The bytes of what should be a .sempic file; a picture is told from other mistakes."""
    from sempic import pictures

    stream = job.read()
    if not stream.startswith(container.MAGIC) and (kind := pictures.kind(stream)):
        raise InputError(f"a picture ({kind}), not a .sempic file; sempic encode makes one of it")
    return stream


def _serve(args: argparse.Namespace) -> int:
    try:
        from sempic.server import app
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("sempic"):
            raise
        return _fail(f"serve: {error.name} is missing; {install_hint('serve')}")
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


def _completion(args: argparse.Namespace) -> int:
    try:
        import shtab
    except ModuleNotFoundError:
        return _fail(f"completion: shtab is missing; {install_hint('completion')}")
    _need_stdout()
    parser = _parser()
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    for command in commands.choices.values():
        for action in command._actions:
            if action.metavar in ("FILE", "PATH", "MAP", "SPEC"):
                action.complete = shtab.FILE
    print(shtab.complete(parser, args.shell))
    return 0


def _train(command: str, argv: list[str]) -> int:
    try:
        import sempic.training.cli as training

        run = training.sample if command == "sample" else training.main
        if {"-h", "--help"} & set(argv):
            with extras.pretended():
                return run(argv)
        return run(argv)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("sempic"):
            raise
        return _fail(f"{command}: {error.name} is missing; {install_hint('train')}")


def _evaluation(argv: list[str]) -> int:
    try:
        import sempic.evaluation.cli as evaluation

        return evaluation.main(argv)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("sempic"):
            raise
        return _fail(f"{argv[0]}: {error.name} is missing; {install_hint('eval')}")


# ── run and report ───────────────────────────────────────────────────────────────────────────


def _each(
    jobs: list[Job],
    done: Done,
    describe: Callable[[Record], str],
    as_json: bool,
    manifest: batch.Manifest | None = None,
) -> int:
    """Report what is done; a failure is reported and does not stop the rest."""
    out = sys.stderr if any(job.target == STDOUT for job in jobs) else sys.stdout
    bar: Any = contextlib.nullcontext(done)
    write: Callable[..., None] = print
    if len(jobs) > 1:
        from tqdm import tqdm

        bar, write = tqdm(done, total=len(jobs), unit="file", disable=None), tqdm.write
    unsaid: OSError | None = None

    def tell(text: str, file: Any) -> None:
        nonlocal unsaid
        try:
            if file is not None:  # one that is closed
                write(text, file=file)
        except BrokenPipeError:
            raise
        except OSError as cause:  # a full disk: what is written is no less worth for that
            unsaid = cause

    failed = count = 0
    with contextlib.closing(cast(Any, done)), bar as items:  # an interruption ends workers, too
        for _, records in items:
            if manifest is not None:
                manifest.add(records)
            for record in records:
                count += 1
                path = record["path"]
                for note in record.get("notes", ()):
                    tell(processes.printable(f"sempic: {path}: {note}"), sys.stderr)
                if "error" in record:
                    failed += 1
                    tell(processes.printable(f"sempic: {path}: {record['error']}"), sys.stderr)
                elif not as_json:
                    tell(describe(record), out)
                if as_json:
                    tell(json.dumps(record), out)
    if failed and count > 1:
        _note(f"{failed} of {count} files failed")
    if unsaid is not None:
        processes.leave_stdout()  # said once is enough
        return _fail(f"cannot write to standard output: {unsaid.strerror or unsaid}")
    return 2 if failed else 0


def _need_stdout() -> None:
    if sys.stdout is None:
        raise OutputError("standard output is closed")


def _fail(message: str) -> int:
    _note(message)
    return 2


def _note(message: str) -> None:
    print(processes.printable(f"sempic: {message}"), file=sys.stderr)


# ── reports ──────────────────────────────────────────────────────────────────────────────────


def _summary(record: Record) -> str:
    path, to = (processes.printable(record.get(key, "-")) for key in ("path", "output"))
    return (
        f"{path} → {to}: {record['width']}×{record['height']}, "
        f"{record['bytes']} bytes, {record['bpp']:.4f} bpp, {record['seconds']:.2f} s"
    )


def _details(record: Record) -> str:
    path = processes.printable(record["path"])
    pixels = record["width"] * record["height"]
    receiver = f"receiver {record['model']}" if record["model"] else "any receiver"
    parts = {
        f"coarse ({record['coarse_codec']})" if name == "coarse" else name: size
        for name, size in record["chunks"].items()
    }
    rows = [*parts.items(), ("header, checksum", record["overhead"]), ("all", record["bytes"])]
    return "\n".join(
        [
            f"{path}: version {record['version']}, {record['width']}×{record['height']}, "
            f"palette {record['palette']}, {receiver}",
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


def _palette(text: str) -> str:
    if text not in BY_NAME and not (text.endswith(".json") and Path(text).is_file()):
        raise argparse.ArgumentTypeError(
            f"{text!r} is none of {', '.join(BY_NAME)}, and no JSON file"
        )
    return text


def _label_quality(text: str) -> api.LabelQuality:
    if text == api.LOSSLESS:
        return api.LOSSLESS
    return int(text)


def _weight(text: str) -> tuple[str, float]:
    name, _, weight = text.rpartition("=")
    return name, float(weight)


_label_quality.__name__ = "level"
_weight.__name__ = "CLASS=WEIGHT"


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="sempic",
        description="A semantic image codec: pictures to .sempic files and back.",
        epilog=_epilog,
        formatter_class=_Help,
    )
    version = f"sempic {sempic.__version__}\n{models.TERMS}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    encode = commands.add_parser(
        "encode",
        help="pictures → .sempic",
        description=_encode_help,
        epilog=_encode_epilog,
        formatter_class=_Help,
    )
    _files(encode, "pictures, folders of them, or - for standard input", "photo.sempic")
    rate = encode.add_mutually_exclusive_group()
    rate.add_argument(
        "-q",
        "--quality",
        type=int,
        choices=api.QUALITY,
        metavar="1…9",
        help=f"of the coarse picture; default {api.DEFAULT_QUALITY}",
    )
    rate.add_argument(
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
    encode.add_argument(
        "--palette",
        type=_palette,
        metavar="PALETTE",
        help=f"of --labels: {', '.join(BY_NAME)}, or a JSON file with one of your own; "
        "default camvid",
    )
    encode.add_argument(
        "--ignore-label",
        type=int,
        metavar="ID",
        help="an id of --labels, or of the segmenter's, that is sent as void; 255 is void anyway "
        "where the palette has one",
    )
    encode.add_argument(
        "--label-quality",
        type=_label_quality,
        metavar="1…5|lossless",
        help="simplify the label map where that saves most bits (1 the most); default: lossless "
        f"with --labels, else {api.DEFAULT_LABEL_QUALITY}",
    )
    encode.add_argument(
        "--importance",
        type=_weight,
        action="append",
        default=[],
        metavar="CLASS=WEIGHT",
        help="what a pixel of a class is worth to --label-quality, 1 for most, inf for never "
        "changed; repeatable",
    )
    encode.add_argument(
        "--segmenter",
        metavar="SPEC",
        help="an ONNX file, or hf:NAME for a model of transformers; default: the bundled one",
    )
    encode.add_argument(
        "--images",
        metavar="ENDING",
        help="how the names of pictures end in tars, such as .jpg; default: label maps beside "
        "them are recognised",
    )
    encode.add_argument("--coarse-codec", choices=codec.CODECS, default="bpg", help="default bpg")
    encode.add_argument(
        "--max-side",
        type=_positive(int),
        metavar="PIXELS",
        help="scale larger pictures down to this first",
    )
    encode.add_argument(
        "-j",
        "--jobs",
        type=_positive(int),
        default=1,
        metavar="N",
        help="code so many files at a time, each in a process of one thread; default 1",
    )
    encode.add_argument(
        "--engine",
        choices=("pool", "ray"),
        default="pool",
        help="who runs them: processes of this machine (the default), or Ray Data (needs "
        "the extra ray) on this machine or the cluster that RAY_ADDRESS names",
    )
    encode.add_argument(
        "--manifest",
        metavar="FILE",
        help="record what came of each file as JSON lines, and skip what is recorded and there; "
        "with --engine ray the default is manifest.jsonl in the output folder, if that is local",
    )
    encode.set_defaults(run=_encode)

    decode = commands.add_parser(
        "decode",
        help=".sempic → pictures",
        description=_decode_help,
        epilog=_decode_epilog,
        formatter_class=_Help,
    )
    _files(decode, ".sempic files, folders of them, or - for standard input", "photo.png")
    decode.add_argument(
        "--only",
        choices=("labels", "coarse"),
        help="just the coloured label map, or the coarse picture enlarged; no receiver needed",
    )
    decode.add_argument(
        "--steps",
        type=_positive(int),
        metavar="N",
        help="of the receiver; the bundled one takes 1 by default and 100 at most, the paper's 20",
    )
    decode.add_argument("--seed", type=int, help="of the receiver's noise; default 0")
    decode.add_argument(
        "--guidance",
        type=float,
        metavar="S",
        help="how much the label map counts: 1 as trained, 1.5 stresses it at twice the time, 2 "
        "and more make noise",
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
        help="also write this grey picture of where decodes of other seeds differ: four times the "
        "standard deviation of each pixel over --samples of them. Black is where the seeds agree, "
        "which they may where all are wrong",
    )
    decode.add_argument(
        "--samples", type=_positive(int), metavar="N", help="of --uncertainty; default 8"
    )
    decode.add_argument(
        "--receiver",
        "--model",
        metavar="SPEC",
        help="an ONNX file, or a checkpoint of the paper's network (.safetensors, .pt; needs "
        "the extra train); default: the bundled receiver",
    )
    decode.set_defaults(run=_decode)

    info = commands.add_parser(
        "info",
        help="what .sempic files hold and what each part costs",
        description=_info_help,
        epilog=_info_epilog,
        formatter_class=_Help,
    )
    _files(info, ".sempic files, folders of them, or - for standard input", None)
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
    serve.add_argument("--segmenter", metavar="SPEC", help="as of sempic encode")
    serve.add_argument("--receiver", metavar="SPEC", help="as of sempic decode")
    serve.set_defaults(run=_serve)

    completion = commands.add_parser(
        "completion",
        help="a script that completes these commands in your shell",
        description=_completion_help,
        epilog=_completion_epilog,
        formatter_class=_Help,
    )
    completion.add_argument("shell", choices=_SHELLS)
    completion.set_defaults(run=_completion)

    train = commands.add_parser(
        "train", help="train the networks (needs the extra train)", add_help=False
    )
    train.add_argument("command", choices=_TRAININGS)  # parsed elsewhere; for completion
    commands.add_parser("distill", help="the same as train distill", add_help=False)
    commands.add_parser(
        "sample", help="sample the paper's network (needs the extra train)", add_help=False
    )
    for name, what in (
        ("benchmark", "this codec beside others at the same rates (needs the extra eval)"),
        ("compare", "versions of one picture: figures and a page (needs the extra eval)"),
        ("evaluate", "bpp, mIoU, FID and more of a folder of results (needs the extra eval)"),
    ):
        commands.add_parser(name, help=what, add_help=False)
    return parser


class _Parser(argparse.ArgumentParser):
    """One whose help fails where it cannot be written, as all else does."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if message and (file := file or sys.stderr) is not None:
            file.write(message)


class _Help(argparse.HelpFormatter):
    """Fills paragraphs, and leaves sections of several lines as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        parts = text.strip("\n").split("\n\n")
        return "\n\n".join(p if "\n" in p else fill(p, width, indent) for p in parts)


_epilog = f"""
examples:
  sempic encode photo.jpg                  # photo.sempic beside it
  sempic info photo.sempic                   # what each part costs
  sempic decode photo.sempic -o decoded.png  # what the receiver makes of it

'sempic COMMAND --help' explains a command, with examples of its own.

exit status:
  0  all is well
  2  something failed; one line on stderr for each file says what
  Ctrl-C and other signals end it as they end any program, when the file at hand is cleaned up

environment:
  SEMPIC_THREADS  threads of each network; default: all cores
  RAY_ADDRESS     the cluster for 'sempic encode --engine ray'; default: one on this machine

extras:
  {install_hint("NAME")}, NAME one of
  serve, eval, train, ray, hf, hub, jxl, completion
"""
_encode_epilog = """
examples:
  sempic encode photo.jpg                        # photo.sempic, quality 5
  sempic encode photo.jpg -o small.sempic -q 1     # the smallest
  sempic encode photo.jpg --target-bpp 0.9       # the best within a budget
  sempic encode photo.png --labels map.png       # with a label map of your own
  sempic encode shots/ -o out/ --jobs 2          # a folder, two at a time
  sempic encode shots/ -o out/ --manifest m.jsonl  # goes on after an interruption
  sempic encode shots.tar -o coded.tar           # of WebDataset: KEY.jpg becomes KEY.sempic

The networks are at home at heights of 250 to 500 pixels; larger pictures work,
and --max-side makes them smaller and faster. Names with a scheme
(s3://bucket/folder) need the extra ray, and the library of that store, such as s3fs.
"""
_decode_epilog = """
examples:
  sempic decode photo.sempic -o decoded.png              # 1 step
  sempic decode photo.sempic -o decoded.jpg --steps 4    # the map counts more
  sempic decode photo.sempic -o other.png --seed 7       # other details, as likely
  sempic decode photo.sempic --only labels               # photo.labels.png: what is where
  sempic decode photo.sempic -o decoded.png --uncertainty imagined.png --samples 2
  sempic decode out/ -o pictures/                      # a folder

The receiver invents detail. A decoded picture shows what is likely, not what was there.
"""
_info_help = "Prints size, rate and the cost of each part. No network runs and no pixel is decoded."
_info_epilog = """
examples:
  sempic info photo.sempic
  sempic info out/ --json    # one object a file, for programs
"""
_completion_help = (
    "Prints a script for your shell (needs the extra completion). Where it goes depends on "
    "the shell:"
)
_completion_epilog = """
examples:
  sempic completion bash   # > ~/.local/share/bash-completion/completions/sempic
  sempic completion zsh    # > a file _sempic in a folder of your $fpath
  sempic completion fish   # > ~/.config/fish/completions/sempic.fish
"""
_SHELLS = ("bash", "zsh", "fish")
_TRAININGS = (
    "segmenter", "corpus", "denoise", "distill", "label-prior", "paper", "restore", "grow",
    "export", "features", "convert",
)  # fmt: skip

_encode_help = (
    "Writes NAME.sempic beside each picture, or where -o says. An existing file is replaced only "
    "when the new one is complete. Exit code 2 if any picture failed."
)
_decode_help = (
    "Writes NAME.png beside each file, or where -o says; the suffix there chooses the format. "
    "Without -o no existing picture is replaced. Exit code 2 if any file failed."
)


_serve_help = (
    "Serves the codec over HTTP and a page to look at it (needs the extra serve). Ctrl-C or "
    "SIGTERM ends it when accepted work is finished. The log is JSON lines on stderr."
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
