"""`sempic completion`."""

from __future__ import annotations

import argparse
from pathlib import Path

from sempic.commands import COMMANDS, parsers, train
from sempic.jobs import need_stdout

_HELP = (
    "Prints a script for your shell (needs the extra completion). Its place depends on the shell:"
)
_EXAMPLES = """
examples:
  sempic completion bash   # > ~/.local/share/bash-completion/completions/sempic
  sempic completion zsh    # > a file _sempic in a folder of your $fpath
  sempic completion fish   # > ~/.config/fish/completions/sempic.fish
"""


def add(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = _HELP, _EXAMPLES
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def run(args: argparse.Namespace) -> int:
    import shtab

    need_stdout()
    parser, commands = parsers()
    for name, command in commands.items():
        command.description = COMMANDS[name].help  # descriptions are paragraphs
        for action in command._actions:
            if action.type is Path or action.metavar in ("FILE", "PATH", "MAP", "SPEC"):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            elif name == "train" and action.dest == "arguments":
                action.choices = tuple(train.TRAININGS)
    print(shtab.complete(parser, args.shell))
    return 0
