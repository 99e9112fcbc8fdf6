"""The command line: parse, call, one line and exit code 2 for whatever goes wrong."""

from __future__ import annotations

import itertools
import sys

from sempic import commands, processes, progress
from sempic.commands import COMMANDS
from sempic.errors import InputError, SempicError, install_hint, reason, warnings_to


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, 0 or 2.

    Without arguments it is the program: those of the process are taken, and its streams and
    signals are seen to (`processes.as_program`).
    """
    if argv is None:
        return processes.as_program(lambda: _run(sys.argv[1:]))
    return _run(argv)


def _run(argv: list[str]) -> int:
    name = argv[0] if argv else ""
    with progress.shown(), warnings_to(processes.say):  # but for what a file's record takes
        try:
            if name in COMMANDS and not COMMANDS[name].trains:
                _refuse_empty(argv)
            args = commands.parsers(name)[0].parse_args(argv)
            return int(commands.load(name).run(args))
        except SempicError as error:
            return _fail(str(error))
        except ModuleNotFoundError as error:
            extra = COMMANDS[name].extra if name in COMMANDS else None
            if extra is None or (error.name or "").startswith("sempic"):
                raise
            return _fail(f"{name}: {error.name} is missing; {install_hint(extra)}")
        except OSError as error:
            if error.filename is None:  # of a stream
                raise
            return _fail(f"{error.filename}: {reason(error)}")
        except KeyboardInterrupt as stop:
            return _fail(f"interrupted; {stop}" if str(stop) else "interrupted")


def _refuse_empty(argv: list[str]) -> None:
    """Raises InputError for an argument that is empty, as those of unset variables are: as a path
    it would be the present folder."""
    for before, argument in itertools.pairwise(argv):
        option, equals, value = argument.partition("=")
        if argument and not (option.startswith("--") and equals and not value):
            continue
        option = option or before
        if option.startswith("-") and option.strip("-"):
            raise InputError(f"{option}: an empty value")
        raise InputError("an empty name instead of a file or a folder")


def _fail(message: str) -> int:
    processes.say(message)
    return 2


if __name__ == "__main__":
    sys.exit(main())
