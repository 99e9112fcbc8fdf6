from dataclasses import dataclass
from pathlib import Path

import pytest

from sempic.fields import option, parse


@dataclass(frozen=True, kw_only=True)
class Options:
    """What it does."""

    source: Path = option("where from", positional=True)
    count: int = option("how many", 3)
    size: tuple[int, int] = option("height and width", (4, 5))
    names: tuple[str, ...] = option("any", ())
    share: float | None = option("or none", None)
    loud: bool = option("100 % loud", False)

    def __post_init__(self):
        if self.count < 1:
            raise ValueError("--count must be 1 or more")


def test_fields_become_options(capsys):
    assert parse(Options, ["a"], prog="x") == Options(source=Path("a"))
    argv = "a --count 7 --size 1 2 --names b c --share 0.5 --loud"
    assert parse(Options, argv.split(), prog="x") == Options(
        source=Path("a"), count=7, size=(1, 2), names=("b", "c"), share=0.5, loud=True
    )
    with pytest.raises(SystemExit):
        parse(Options, ["--help"], prog="x")
    shown = capsys.readouterr().out
    for words in ("What it does.", "how many; default 3", "width; default 4 5", "100 % loud"):
        assert words in shown
    assert "default False" not in shown


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("", "the following arguments are required: source"),
        ("a --count no", "argument --count: count is a whole number, not 'no'"),
        ("a --count 0", "--count must be 1 or more"),
        ("a --size 1", "argument --size: expected 2 arguments"),
        ("a --what", "unrecognized arguments: --what"),
    ],
)
def test_wrong_options_end_the_program(argv, said, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Options, argv.split(), prog="x")
    assert stop.value.code == 2
    assert capsys.readouterr().err.endswith(f"x: error: {said}\n")
