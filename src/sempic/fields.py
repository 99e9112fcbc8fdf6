"""Options as frozen dataclasses: what a field says of itself is said once, for every interface.

A command line is made of the fields (`add`, `given`), their values are checked (`check`), and
whoever describes them (the server's OpenAPI, the pages of the docs) reads `about`.
"""

from __future__ import annotations

import contextlib
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
    """What is said of a field."""

    help: str
    """What it means, without its default."""
    console: str = ""
    """What the help of the command line adds to that."""
    metavar: str | tuple[str, ...] | None = None
    flags: tuple[str, ...] = ()
    """Other names on the command line, such as -q, in the order of its help."""
    positional: bool = False
    choices: Sequence[Any] | None = None
    low: float | None = None
    """The least value, and the greatest; of numbers."""
    high: float | None = None
    above: float | None = None
    """A number that values lie above."""
    check: Callable[[str, Any], Any] | None = None
    """(name, value) → the value, or InputError: instead of all that is above."""
    usual: Any = None
    """What None comes to most often, for interfaces that must show a value."""


def option(help: str, default: Any = dataclasses.MISSING, **about: Any) -> Any:
    """A field of an options dataclass; without a default it must be given. `about`: of `About`.

    The field's type says how it is read: `bool` is a switch, `tuple[int, int]` takes two numbers,
    `tuple[Path, ...]` any number of them, or texts as often as one likes where `check` makes values
    of them, `Mapping[str, float]` is NAME=NUMBER, as often as one likes, and `X | None` may be left
    out.
    """
    return field(default=default, metadata={"about": About(help=help, **about)})


def another(kind: Any, name: str, default: Any, **changes: Any) -> Any:
    """For another class: a field of the options dataclass `kind` with this default, and perhaps
    with other parts of `About`."""
    told = dataclasses.replace(about(of(kind)[name]), **changes)
    return field(default=default, metadata={"about": told})


def about(part: dataclasses.Field[Any]) -> About:
    """What a field made by `option` says of itself."""
    told: About = part.metadata["about"]
    return told


def of(kind: Any) -> dict[str, dataclasses.Field[Any]]:
    """The fields of an options dataclass, or of a value of one, by name."""
    return {part.name: part for part in dataclasses.fields(kind)}


def hints(kind: Any) -> dict[str, Any]:
    """The types of its fields, None left out, by name."""
    return {name: _without_none(hint) for name, hint in typing.get_type_hints(kind).items()}


# ── checking ─────────────────────────────────────────────────────────────────────────────────


def check(options: Any) -> None:
    """For `__post_init__`: each value as its field wants it; raises InputError naming the field."""
    kinds = hints(type(options))
    for name, part in of(options).items():
        value = getattr(options, name)
        if value is not None or part.default is not None:
            object.__setattr__(options, name, _checked(name, value, kinds[name], about(part)))


def _checked(name: str, value: Any, kind: Any, told: About) -> Any:
    if told.check is not None:
        return told.check(name, value)
    if told.choices is not None:
        return checks.one_of(name.replace("_", " "), value, told.choices)
    if kind is bool:
        return checks.switch(name, value)
    if kind is int:
        return checks.whole(name, value, told.low, told.high)
    if kind is float:
        found = checks.number(name, value, told.low, told.high)
        if told.above is not None and found <= told.above:
            raise InputError(f"{name} must be more than {told.above:g}, not {value:g}")
        return found
    return value


# ── the command line ─────────────────────────────────────────────────────────────────────────


def add(
    parser: argparse._ActionsContainer,
    kind: Any,
    *,
    only: Collection[str] | None = None,
    but: Collection[str] = (),
) -> None:
    """Each field becomes an argument of a parser or a group (or those of `only`, or all but some).
    What is not given is not in the namespace."""
    import argparse

    kinds = hints(kind)
    for name, part in of(kind).items():
        if name in but or (only is not None and name not in only):
            continue
        told = about(part)
        how = _how(name, kinds[name], told)
        how["help"] = (told.help + told.console + _default(part)).replace("%", "%%")
        if told.choices is not None:
            how["choices"] = told.choices
        if told.metavar is not None:
            how["metavar"] = told.metavar
        needed = part.default is dataclasses.MISSING
        if told.positional:
            if not needed:
                how["nargs"] = how.get("nargs", "?")
            parser.add_argument(name, default=argparse.SUPPRESS, **how)
        else:
            flags = dict.fromkeys((*told.flags, "--" + name.replace("_", "-")))
            parser.add_argument(
                *flags, dest=name, required=needed, default=argparse.SUPPRESS, **how
            )


def given(args: argparse.Namespace, kind: Any) -> dict[str, Any]:
    """What the command line gave of the fields, by name: keywords for `kind`."""
    kinds = hints(kind)
    return {n: read(kinds[n], value) for n, value in vars(args).items() if n in kinds}


def read(kind: Any, value: Any) -> Any:
    """A value as a field of this type has it, of what interfaces have instead: lists for tuples,
    and lists of NAME=NUMBER for mappings. Raises InputError."""
    if typing.get_origin(kind) is Mapping:
        return dict(pair(part) if isinstance(part, str) else part for part in value)
    return tuple(value) if isinstance(value, list) else value


def parse(kind: type[Options], argv: Sequence[str], *, prog: str) -> Options:
    """The options that a command line gives. Wrong ones end the program, as argparse does."""
    import argparse

    parser = argparse.ArgumentParser(
        prog=prog,
        description=kind.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add(parser, kind)
    try:
        return kind(**given(parser.parse_args(list(argv)), kind))
    except ValueError as error:
        parser.error(str(error))


def _how(name: str, kind: Any, told: About) -> dict[str, Any]:
    """Of `add_argument`."""
    if kind is bool:
        return {"action": "store_true"}
    if typing.get_origin(kind) is Mapping:
        return {"action": "append", "type": _reader(name, pair, About(help=""))}
    if repeats(kind, told):
        return {"action": "append"}
    if told.choices is not None:
        return {}
    if typing.get_origin(kind) is tuple:
        first, *rest = typing.get_args(kind)
        if rest == [...]:  # given twice, both count
            return {"type": first, "nargs": "+", "action": "extend"}
        return {"type": first, "nargs": 1 + len(rest)}
    how: dict[str, Any] = {"type": _reader(name, kind, told)}
    if told.low is not None and told.high is not None:
        how["metavar"] = f"{told.low:.12g}…{told.high:.12g}"
    return how


def repeats(kind: Any, told: About) -> bool:
    """Whether a field takes texts, each given for itself, that its own check makes values of."""
    return typing.get_origin(kind) is tuple and told.check is not None


def _reader(name: str, kind: Any, told: About) -> Callable[[str], Any]:
    """For argparse: text → value, checked as the dataclass will."""

    def read(text: str) -> Any:
        import argparse

        try:
            return _checked(name, _parsed(kind, text), kind, told)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"invalid value: {text!r}") from error

    return read


def _parsed(kind: Any, text: str) -> Any:
    """Raises ValueError."""
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        if text not in typing.get_args(kind):
            raise ValueError
        return text
    if origin not in (typing.Union, types.UnionType):
        return kind(text)
    for each in typing.get_args(kind):
        with contextlib.suppress(ValueError):
            return _parsed(each, text)
    raise ValueError


def pair(text: str) -> tuple[str, float]:
    """NAME=NUMBER. Raises InputError."""
    name, _, number = text.rpartition("=")
    try:
        return name, float(number)
    except ValueError as error:
        raise InputError(f"{text!r} is not NAME=NUMBER") from error


def _default(part: dataclasses.Field[Any]) -> str:
    if part.default is dataclasses.MISSING or part.default in (None, ()) or part.default is False:
        return ""
    several = isinstance(part.default, tuple)
    return f"; default {' '.join(map(str, part.default)) if several else part.default}"


def _without_none(kind: Any) -> Any:
    if typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return kind
    parts = tuple(part for part in typing.get_args(kind) if part is not type(None))
    return typing.Union[parts]  # noqa: UP007 - of one it is that one
