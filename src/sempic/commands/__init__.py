"""The commands: one module each, imported when it is used (three share that of training).

A module has `add(parser)`, which declares the arguments, and `run(args)`, which does the work and
returns the exit code, 0 or 2. It may raise SempicError, which ends it with one line, and
ModuleNotFoundError where the extra that the table names is not installed.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import sempic
from sempic import models
from sempic.errors import install_hint


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a command without importing it."""

    help: str
    extra: str | None = None
    """The extra whose packages it cannot do without."""
    trains: bool = False
    """Whether it is of the module `train`, which reads its arguments itself: all of them are in
    `args.arguments`."""


COMMANDS = {
    "encode": About("pictures → .sempic"),
    "decode": About(".sempic → pictures"),
    "info": About("what .sempic files hold and what each part costs"),
    "serve": About("HTTP server with a page to look at it", "serve"),
    "completion": About("a script that completes these commands in your shell", "completion"),
    "train": About("train the networks", "train", True),
    "distill": About("the same as train distill", "train", True),
    "sample": About("sample the paper's network", "train", True),
    "benchmark": About("this codec beside others at the same rates", "eval"),
    "compare": About("versions of one picture: figures and a page", "eval"),
    "evaluate": About("bpp, mIoU, FID and more of a folder of results", "eval"),
}


def load(name: str) -> ModuleType:
    """The module of a command."""
    module = "train" if COMMANDS[name].trains else name
    return importlib.import_module(f"sempic.commands.{module}")


def parsers(*names: str) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser, and those of the commands; only the named ones are whole, or, if none is named,
    all. To fill one in, its module is imported."""
    parser = _Parser(
        prog="sempic",
        description="A semantic image codec: pictures to .sempic files and back.",
        epilog=_epilog,
        formatter_class=_Help,
    )
    version = f"sempic {sempic.__version__}\n{models.TERMS}"
    parser.add_argument("--version", action="version", version=version)
    within = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    found: dict[str, argparse.ArgumentParser] = {}
    for name, about in COMMANDS.items():
        # One that reads its arguments itself: none of them looks like an option to argparse.
        how: dict[str, Any] = {"prefix_chars": "\0", "add_help": False} if about.trains else {}
        line = about.help + (f" (needs the extra {about.extra})" if about.extra else "")
        found[name] = within.add_parser(name, help=line, formatter_class=_Help, **how)
        if name in names or not names:
            load(name).add(found[name])
    return parser, found


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
