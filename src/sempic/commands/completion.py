"""`sempic completion`."""

from __future__ import annotations

import argparse
from pathlib import Path

from sempic.commands import COMMANDS, parsers, train
from sempic.console import need_stdout

_HELP = (
    "Prints a script for your shell (needs the extra completion). The examples say where to put it."
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
    for command in (*commands.values(), *_recipes(commands["train"])):
        for action in command._actions:
            named = action.metavar in ("FILE", "PATH", "MAP", "SPEC")
            if action.type is Path or named or action.dest == "arguments":
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, args.shell))
    return 0


def _recipes(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """Gives `train`, which takes any words, a command for each recipe; returns their parsers."""
    parser._actions.clear()
    commands, recipes = {"": parser.add_subparsers()}, []
    for name, training in train.TRAININGS.items():
        group, _, last = name.rpartition(" ")
        if group not in commands:
            commands[group] = commands[""].add_parser(group, help=f"{group} …").add_subparsers()
        recipe = commands[group].add_parser(last, help=training.summary)
        recipe.add_argument("arguments", nargs="*")
        recipes.append(recipe)
    return recipes
