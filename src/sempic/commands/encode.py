"""`sempic encode`."""

from __future__ import annotations

import argparse

from sempic import batch, fields
from sempic.commands import _files, _sequence
from sempic.errors import InputError
from sempic.jobs import TAR, find
from sempic.options import EncodeOptions

_RATE = ("quality", "target_bpp", "target_bytes")
_HELP = (
    "Writes NAME.sempic beside each picture, or to -o. An existing file is replaced when the new "
    "one is complete. Exit code 2 if any picture failed."
)
_EXAMPLES = """
examples:
  sempic encode photo.jpg                        # photo.sempic, quality 5
  sempic encode photo.jpg -o small.sempic -q 1   # the smallest
  sempic encode photo.jpg --target-bpp 0.15      # the best within a budget
  sempic encode photo.jpg --target-bytes 1000    # fits into a packet
  sempic encode photo.jpg --keep sign,person     # sends these nearly unchanged
  sempic encode photo.jpg --imagine person       # sends only a coarse picture of these
  sempic encode photo.png --labels map.png       # with a label map of your own
  sempic encode shots/ -o out/ --jobs 2          # a folder, two at a time
  sempic encode shots/ -o out/ --manifest m.jsonl  # continues after an interruption
  sempic encode drive.mp4 --bitrate 16k          # a video, at 16 kbit per second
  sempic encode shots.tar -o coded.tar           # a WebDataset: KEY.jpg becomes KEY.sempic

The networks work best at heights of 250 to 500 pixels; --max-side makes larger
pictures smaller and faster. Names with a scheme (s3://bucket/folder) need the
extra ray and the library of the store, such as s3fs.
"""


def add(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = _HELP, _EXAMPLES
    _files.add_inputs(parser, "pictures, folders of them, tars, a video, or - for standard input")
    _files.add_output(parser, "photo.sempic")
    fields.add(parser.add_mutually_exclusive_group(), EncodeOptions, only=_RATE)
    fields.add(parser, EncodeOptions, but=_RATE)
    fields.add(parser, batch.Encode, but=("options",))
    _files.add_many(parser, "code")
    _sequence.add_encode(parser)


def run(args: argparse.Namespace) -> int:
    from sempic import formats, pictures

    if _sequence.encodes(args):
        return _sequence.encode(args)
    given = vars(args)
    if "check" not in given:
        names = ("receiver", "verifier", "critical", "check_budget")
        _files.only_for("--check", [n for n in names if n in given])
    options = EncodeOptions(**fields.from_args(args, EncodeOptions))
    work = batch.Encode(options=options, **fields.from_args(args, batch.Encode))
    if work.labels is not None and work.segmenter:
        raise InputError("--labels replaces the map of --segmenter: give only one of them")
    if work.labels == "none":
        _files.only_for("label maps, and --labels none sends none", given.keys() & {"prior"})
    models = work.models
    jobs = find(
        args.inputs,
        args.output,
        accepted=pictures.SUFFIXES | {TAR},
        suffix=".sempic",
        # Videos are coded one at a time.
        foreign=formats.FOREIGN | formats.COMPRESSED | formats.VIDEOS,
        reads=(work.labels, *models.values(), *options.files),
        writes=(args.manifest,),
    )
    if not any(job.is_tar for job in jobs):
        _files.only_for("tars", given.keys() & {"images"})
    return _files.run(args, work, jobs)
