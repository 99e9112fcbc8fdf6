"""The command line: parse arguments and run a command.

An error is one line and exit code 2; argparse prints the usage above errors of usage.
"""

from __future__ import annotations

import itertools
import sys

from sempic import commands, console, processes, progress
from sempic.commands import COMMANDS
from sempic.errors import InputError, SempicError, install_hint, notes_to, reason


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, 0 or 2.

    None: the arguments of the process, with its streams and signals set up
    (`processes.as_program`).
    """
    if argv is None:
        return processes.as_program(lambda: _run(sys.argv[1:]))
    return _run(argv)


def _run(argv: list[str]) -> int:
    name = argv[0] if argv else ""
    with progress.shown(), notes_to(console.say):
        try:
            if name in COMMANDS and not COMMANDS[name].trains:
                _refuse_empty(argv)
            parser, parsers = commands.parsers(name)
            args, unknown = parser.parse_known_args(argv)
            if unknown:  # argparse would show the usage of `sempic`, which lists no option
                own = parsers.get(name, parser)
                own.error(f"unrecognized arguments: {' '.join(unknown)}")
            if vars(args).get("json"):
                console.need_stdout()
            return int(commands.load(name).run(args))
        except SempicError as error:
            return _fail(str(error))
        except ModuleNotFoundError as error:
            extra = COMMANDS[name].extra if name in COMMANDS else None
            if extra is None or (error.name or "").startswith("sempic"):
                raise
            return _fail(f"{name}: {error.name} is missing; {install_hint(extra)}")
        except OSError as error:
            where = error.filename
            if where is None and isinstance(error, FileNotFoundError):
                where = "the current folder"  # os.getcwd names no file
            if where is None:  # an error of a standard stream
                raise
            return _fail(f"{where}: {reason(error)}")
        except MemoryError:
            return _fail("not enough memory")
        except KeyboardInterrupt as stop:
            return _fail(f"interrupted; {stop}" if str(stop) else "interrupted")


def _refuse_empty(argv: list[str]) -> None:
    """Raises InputError for an empty argument, as of an unset variable: an empty path would mean
    the current folder."""
    for before, argument in itertools.pairwise(argv):
        option, equals, value = argument.partition("=")
        if argument and not (option.startswith("--") and equals and not value):
            continue
        option = option or before
        if option.startswith("-") and option.strip("-"):
            raise InputError(f"{option}: an empty value")
        raise InputError("an empty name instead of a file or a folder")


def _fail(message: str) -> int:
    console.say(message)
    return 2


if __name__ == "__main__":
    sys.exit(main())
