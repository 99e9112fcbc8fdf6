"""The commands: one module each, imported at use; train, distill and sample share one.

A module has `add(parser)`, which declares the arguments, and `run(args)`, which returns the exit
code, 0 or 2. `run` may raise SempicError, shown as one line, and ModuleNotFoundError if the
command's extra is not installed.
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
class Command:
    """A command, described without importing its module."""

    help: str
    extra: str | None = None
    """The extra that the command needs."""
    trains: bool = False
    """Whether the module is `train`, which parses the arguments (`args.arguments`) itself."""


COMMANDS = {
    "encode": Command("pictures → .sempic"),
    "decode": Command(".sempic → pictures"),
    "info": Command("what .sempic files hold and what each part costs"),
    "serve": Command("HTTP server with a demo page", "serve"),
    "completion": Command("a script that completes these commands in your shell", "completion"),
    "train": Command("train the networks", "train", True),
    "distill": Command("the same as train distill", "train", True),
    "sample": Command("sample the paper's network", "train", True),
    "benchmark": Command("this codec and others at the same rates", "eval"),
    "compare": Command("versions of one picture: figures and a page", "eval"),
    "evaluate": Command("bpp, mIoU, FID and more of a folder of results", "eval"),
}


def load(name: str) -> ModuleType:
    """The module of a command."""
    module = "train" if COMMANDS[name].trains else name
    return importlib.import_module(f"sempic.commands.{module}")


def parsers(*names: str) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The main parser and the parsers of all commands. Only the named commands (default: all) have
    their arguments, because that imports their modules."""
    parser = _Parser(
        prog="sempic",
        description="A semantic image codec: pictures to .sempic files and back.",
        epilog=_epilog,
        formatter_class=_Help,
    )
    version = f"sempic {sempic.__version__}\n{models.TERMS}"
    parser.add_argument("--version", action="version", version=version)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    commands: dict[str, argparse.ArgumentParser] = {}
    for name, about in COMMANDS.items():
        # `train` parses its arguments itself, so argparse must recognise no options there.
        own: dict[str, Any] = {"prefix_chars": "\0", "add_help": False} if about.trains else {}
        line = about.help + (f" (needs the extra {about.extra})" if about.extra else "")
        commands[name] = subparsers.add_parser(name, help=line, formatter_class=_Help, **own)
        if name in names or not names:
            load(name).add(commands[name])
    return parser, commands


class _Parser(argparse.ArgumentParser):
    """A parser whose help raises OSError if it cannot be written; argparse ignores the error."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if message and (file := file or sys.stderr) is not None:
            file.write(message)


class _Help(argparse.HelpFormatter):
    """Fills paragraphs of one line; paragraphs of several lines keep their layout."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        parts = text.strip("\n").split("\n\n")
        return "\n\n".join(p if "\n" in p else fill(p, width, indent) for p in parts)


_epilog = f"""
examples:
  sempic encode photo.jpg                    # photo.sempic beside it
  sempic info photo.sempic                   # what each part costs
  sempic decode photo.sempic -o decoded.png  # what the receiver makes of it

'sempic COMMAND --help' explains a command, with examples of its own.

exit status:
  0  success
  2  an error; one line on stderr for each file explains it
  after Ctrl-C and other signals, that signal, once the current file is cleaned up;
  so with SIGPIPE (141), if the reader of the output ends, such as head

environment:
  SEMPIC_THREADS  threads of each network; default: all cores
  RAY_ADDRESS     the cluster for 'sempic encode --engine ray'; default: one on this machine

extras:
  {install_hint("NAME")}, NAME one of
  serve, eval, train, ray, hf, hub, heic, jxl, completion
"""
