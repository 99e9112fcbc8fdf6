import pytest

from sempic.fields import parse
from sempic.training.options import RunOptions


@pytest.mark.parametrize(
    "wish", ["", "--steps 1 --minutes 1", "--steps 1 --save-minutes 6", "--steps 1 --batch 0"]
)
def test_runs_need_one_end(wish, capsys):
    with pytest.raises(SystemExit):
        parse(RunOptions, ["--out", "x", *wish.split()], prog="x")
    assert "--" in capsys.readouterr().err
