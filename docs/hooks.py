"""What MkDocs runs while it builds the site: the command line's own help becomes its reference."""

from __future__ import annotations

import contextlib
import io
import os
import re
from typing import Any

from sempic import cli


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace each line `{{ sempic … }}` by what that command prints."""
    return re.sub(
        r"^\{\{ sempic (.*?) \}\}$", lambda m: _printed(m[1].split()), markdown, flags=re.M
    )


def _printed(arguments: list[str]) -> str:
    before = os.environ.copy()
    os.environ.update(COLUMNS="88", NO_COLOR="1")
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            cli.main(arguments)
    finally:
        os.environ.clear()
        os.environ.update(before)
    if not out.getvalue():
        raise ValueError(f"sempic {' '.join(arguments)} printed nothing")
    return f"```text\n{out.getvalue().rstrip()}\n```"
