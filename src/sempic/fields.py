"""Options as frozen dataclasses whose fields describe themselves, once for every interface.

`add` and `from_args` make a command line of the fields, `check` checks their values, and `about`
serves the server's OpenAPI and the pages of the docs.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from sempic import checks
from sempic.errors import InputError

if TYPE_CHECKING:
    import argparse

Options = TypeVar("Options")


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """The description of a field."""

    help: str
    """The meaning, without the default."""
    console: str = ""
    """Appended to `help` on the command line."""
    metavar: str | tuple[str, ...] | None = None
    flags: tuple[str, ...] = ()
    """Further names on the command line, such as -q, shown first."""
    positional: bool = False
    """Only for a field without a default."""
    choices: Sequence[Any] | None = None
    low: float | None = None
    """Least value of a number."""
    high: float | None = None
    """Greatest value of a number."""
    above: float | None = None
    """Exclusive lower bound of a number."""
    check: Callable[[str, Any], Any] | None = None
    """(name, value) → value, or InputError; replaces choices and bounds."""
    usual: Any = None
    """What None usually stands for, for interfaces that must show a value."""


def option(help: str, default: Any = dataclasses.MISSING, **about: Any) -> Any:
    """A field of an options dataclass, required without a default. about: fields of `About`.

    The type determines the argument on the command line: `bool` is a switch, `tuple[int, int]`
    takes two numbers, `tuple[Path, ...]` any number of paths, a tuple with a `check` any number of
    texts, one per flag, and `Mapping[str, float]` any number of NAME=NUMBER.
    """
    return field(default=default, metadata={"about": About(help=help, **about)})


def another(kind: Any, name: str, default: Any, **changes: Any) -> Any:
    """A copy of a field of the options dataclass `kind` for another class, with another default and
    with changes to its `About`."""
    changed = dataclasses.replace(about(of(kind)[name]), **changes)
    return field(default=default, metadata={"about": changed})


def about(part: dataclasses.Field[Any]) -> About:
    """The description of a field made by `option`."""
    description: About = part.metadata["about"]
    return description


def of(kind: Any) -> dict[str, dataclasses.Field[Any]]:
    """The fields of an options dataclass or of its instance, by name."""
    return {part.name: part for part in dataclasses.fields(kind)}


def hints(kind: Any) -> dict[str, Any]:
    """The types of the fields of an options dataclass, without None, by name."""
    return {name: _without_none(hint) for name, hint in typing.get_type_hints(kind).items()}


# ── checking ─────────────────────────────────────────────────────────────────────────────────


def check(options: Any) -> None:
    """For `__post_init__`: check and convert all values; raises InputError naming the field."""
    kinds = hints(type(options))
    for name, part in of(options).items():
        value = getattr(options, name)
        if value is not None or part.default is not None:
            object.__setattr__(options, name, _checked(name, value, kinds[name], about(part)))


def _checked(name: str, value: Any, kind: Any, about: About) -> Any:
    if about.check is not None:
        return about.check(name, value)
    if about.choices is not None:
        return checks.one_of(name.replace("_", " "), value, about.choices)
    if kind is bool:
        return checks.switch(name, value)
    if kind is int:
        return checks.whole(name, value, about.low, about.high)
    if kind is float:
        number = checks.number(name, value, about.low, about.high)
        if about.above is not None and number <= about.above:
            raise InputError(f"{name} must be more than {about.above:g}, not {value:g}")
        return number
    return value


# ── the command line ─────────────────────────────────────────────────────────────────────────


def add(
    parser: argparse._ActionsContainer,
    kind: Any,
    *,
    only: Collection[str] | None = None,
    but: Collection[str] = (),
) -> None:
    """Add an argument to a parser or group for each field (or for `only` some, or for all `but`
    some). Arguments that are not given are not in the namespace."""
    import argparse

    kinds = hints(kind)
    for name, part in of(kind).items():
        if name in but or (only is not None and name not in only):
            continue
        described = about(part)
        keywords = _keywords(name, kinds[name], described)
        text = described.help + described.console + _default(part)
        keywords["help"] = text.replace("%", "%%")
        if described.choices is not None:
            keywords["choices"] = described.choices
        if described.metavar is not None:
            keywords["metavar"] = described.metavar
        keywords["default"] = argparse.SUPPRESS
        if described.positional:
            parser.add_argument(name, **keywords)
        else:
            flags = dict.fromkeys((*described.flags, "--" + name.replace("_", "-")))
            required = part.default is dataclasses.MISSING
            parser.add_argument(*flags, dest=name, required=required, **keywords)


def from_args(args: argparse.Namespace, kind: Any) -> dict[str, Any]:
    """Keywords for `kind`: the fields that the command line gives."""
    kinds = hints(kind)
    return {n: read(kinds[n], value) for n, value in vars(args).items() if n in kinds}


def read(kind: Any, value: Any) -> Any:
    """The value of a field from the value of an interface: a tuple from a list, a mapping from a
    list of NAME=NUMBER. Raises InputError."""
    if typing.get_origin(kind) is Mapping:
        parts = (pairs(part) if isinstance(part, str) else [part] for part in value)
        return {name: number for part in parts for name, number in part}
    return tuple(value) if isinstance(value, list) else value


def parse(kind: type[Options], argv: Sequence[str], *, prog: str) -> Options:
    """The options of a command line; wrong options end the program, as argparse does."""
    import argparse

    parser = argparse.ArgumentParser(
        prog=prog,
        description=kind.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add(parser, kind)
    try:
        return kind(**from_args(parser.parse_args(list(argv)), kind))
    except ValueError as error:
        parser.error(str(error))


def _keywords(name: str, kind: Any, about: About) -> dict[str, Any]:
    """Of `add_argument`, by the type of the field."""
    if kind is bool:
        return {"action": "store_true"}
    if typing.get_origin(kind) is Mapping:
        return {"action": "extend", "type": _reader(name, pairs, About(help=""))}
    if repeats(kind, about):
        return {"action": "extend", "type": _reader(name, kind, about)}
    if about.choices is not None:
        return {}
    if typing.get_origin(kind) is tuple:
        first, *rest = typing.get_args(kind)
        if rest == [...]:
            return {"type": first, "nargs": "+", "action": "extend"}
        return {"type": first, "nargs": 1 + len(rest)}
    keywords: dict[str, Any] = {"type": _reader(name, kind, about)}
    if about.low is not None and about.high is not None:
        keywords["metavar"] = f"{about.low:.12g}…{about.high:.12g}"
    return keywords


def repeats(kind: Any, about: About) -> bool:
    """Whether the flag of a field is repeatable, with one text each for the field's `check`."""
    return typing.get_origin(kind) is tuple and about.check is not None


def _reader(name: str, kind: Any, about: About) -> Callable[[str], Any]:
    """For argparse: text → checked value."""

    def read(text: str) -> Any:
        import argparse

        try:
            value = (text,) if repeats(kind, about) else _parsed(kind, text)
            return _checked(name, value, kind, about)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"invalid value: {text!r}") from error

    return read


def _parsed(kind: Any, text: str) -> Any:
    """The text as the type, or as the first of several; what is no number stays a text, for
    `_checked` to refuse. Raises ValueError."""
    if typing.get_origin(kind) is typing.Union:
        kind = typing.get_args(kind)[0]
    try:
        return kind(text)
    except ValueError:
        if kind in (int, float):
            return text
        raise


def pairs(text: str) -> list[tuple[str, float]]:
    """NAME=NUMBER,… A name may have commas in it. Raises InputError."""
    found, before = [], ""
    for part in text.split(","):
        name, _, number = (before + part).rpartition("=")
        try:
            found.append((name, float(number)))
            before = ""
        except ValueError:  # of a name with a comma
            before += part + ","
    if before:
        raise InputError(f"{before[:-1]!r} is not NAME=NUMBER")
    return found


def _default(part: dataclasses.Field[Any]) -> str:
    if part.default is dataclasses.MISSING or part.default in (None, ()) or part.default is False:
        return ""
    several = isinstance(part.default, tuple)
    return f"; default {' '.join(map(str, part.default)) if several else part.default}"


def _without_none(kind: Any) -> Any:
    if typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return kind
    parts = tuple(part for part in typing.get_args(kind) if part is not type(None))
    return typing.Union[parts]  # noqa: UP007 - also for a single part
