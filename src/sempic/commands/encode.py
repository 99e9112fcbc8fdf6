"""`sempic encode`."""

from __future__ import annotations

import argparse

from sempic import batch, fields, processes
from sempic.commands import _files, _sequence
from sempic.errors import InputError
from sempic.jobs import TAR, find
from sempic.options import EncodeOptions

_RATE = ("quality", "target_bpp", "target_bytes")
_HELP = (
    "Writes NAME.sempic beside each picture, or where -o says. An existing file is replaced only "
    "when the new one is complete. Exit code 2 if any picture failed."
)
_EXAMPLES = """
examples:
  sempic encode photo.jpg                        # photo.sempic, quality 5
  sempic encode photo.jpg -o small.sempic -q 1     # the smallest
  sempic encode photo.jpg --target-bpp 0.15      # the best within a budget
  sempic encode photo.jpg --target-bytes 1000    # that fits into a packet
  sempic encode photo.jpg --keep sign,person     # shows these as they are
  sempic encode photo.jpg --imagine person       # and never more of these than the coarse picture
  sempic encode photo.png --labels map.png       # with a label map of your own
  sempic encode shots/ -o out/ --jobs 2          # a folder, two at a time
  sempic encode shots/ -o out/ --manifest m.jsonl  # goes on after an interruption
  sempic encode drive.mp4 --bitrate 16k          # a video, at 16 kbit a second
  sempic encode shots.tar -o coded.tar           # of WebDataset: KEY.jpg becomes KEY.sempic

The networks are at home at heights of 250 to 500 pixels; larger pictures work,
and --max-side makes them smaller and faster. Names with a scheme
(s3://bucket/folder) need the extra ray, and the library of that store, such as s3fs.
"""


def add(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = _HELP, _EXAMPLES
    _files.add_inputs(parser, "pictures, folders of them, tars, a video, or - for standard input")
    _files.add_output(parser, "photo.sempic")
    fields.add(parser.add_mutually_exclusive_group(), EncodeOptions, only=_RATE)
    parser.add_argument(
        "--labels",
        metavar="MAP",
        help="send this label map (a picture of ids, or a folder of them under the pictures' "
        "names) instead of the segmenter's",
    )
    fields.add(parser, EncodeOptions, but=_RATE)
    parser.add_argument(
        "--segmenter",
        metavar="SPEC",
        help="an ONNX file, or hf:NAME for a model of transformers; default: the bundled one",
    )
    parser.add_argument(
        "--verifier", metavar="PATH", help="an ONNX file of a segmenter, for --check"
    )
    _files.add_prior(parser, "code")
    parser.add_argument(
        "--images",
        metavar="ENDING",
        help="how the names of pictures end in tars, such as .jpg; default: label maps beside "
        "them are recognised",
    )
    _files.add_many(parser, "code")
    _sequence.add_encode(parser)


def run(args: argparse.Namespace) -> int:
    from sempic import formats, pictures
    from sempic.sequence.video import READ

    if _sequence.encodes(args):
        return _sequence.encode(args)
    if args.labels is not None and args.segmenter:
        raise InputError("--labels takes the place of what --segmenter finds: give one of them")
    options = EncodeOptions(**fields.given(args, EncodeOptions))
    if not options.check:
        given = [name for name in ("verifier", "check_budget") if vars(args).get(name) is not None]
        _files.only_for("--check", given)
    jobs = find(
        args.inputs,
        args.output,
        found=pictures.SUFFIXES | {TAR},
        suffix=".sempic",
        foreign=formats.FOREIGN | READ,  # of videos one at a time is coded
        reads=(args.labels, args.segmenter, args.verifier, args.prior, *options.files),
        writes=(args.manifest,),
        say=processes.say,
    )
    names = ("segmenter", "verifier", "prior", "labels", "images")
    chosen = {name: getattr(args, name) for name in names}
    work = batch.Encode(options=options, **chosen)
    return _files.run(args, work, jobs, options.keywords() | chosen)
