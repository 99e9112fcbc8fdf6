"""What MkDocs runs while it builds the site: help texts and notebooks become pages."""

from __future__ import annotations

import contextlib
import html
import io
import json
import os
import re
from pathlib import Path
from typing import Any

from sempic import cli, fields
from sempic.commands import COMMANDS
from sempic.commands.train import TRAININGS
from sempic.options import DecodeOptions, EncodeOptions

_NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in `{{ sempic … }}`, `{{ trainings }}`, `{{ options … }}` and `{{ notebook NAME }}`,
    each on its line."""
    markdown = re.sub(r"^\{\{ trainings \}\}$", lambda m: _trainings(), markdown, flags=re.M)
    markdown = re.sub(
        r"^\{\{ sempic (.*?) \}\}$", lambda m: _printed(m[1].split()), markdown, flags=re.M
    )
    markdown = re.sub(r"^\{\{ options (.*?) \}\}$", lambda m: _options(m[1]), markdown, flags=re.M)
    return re.sub(r"^\{\{ notebook (.*?) \}\}$", lambda m: _notebook(m[1]), markdown, flags=re.M)


def _trainings() -> str:
    return "\n\n".join(
        f"### sempic train {name}\n\n{{{{ sempic train {name} --help }}}}" for name in TRAININGS
    )


def _options(name: str) -> str:
    """A table of the options of encoding or decoding."""
    kind = {"encode": EncodeOptions, "decode": DecodeOptions}[name]
    rows = ["| option | default | |", "|---|---|---|"]
    for option, part in fields.of(kind).items():
        about = fields.about(part)
        default = "" if part.default is None else f"`{part.default}`"
        text = (about.help + about.console).replace("|", "\\|")
        rows.append(f"| `{option}` | {default} | {text[0].upper()}{text[1:]}. |")
    return "\n".join(rows)


def _printed(arguments: list[str]) -> str:
    """What a command prints; where its extra is missing, a line that says so."""
    before = os.environ.copy()
    os.environ.update(COLUMNS="80", NO_COLOR="1")
    out, err = io.StringIO(), io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            contextlib.suppress(SystemExit),
        ):
            cli.main(arguments)
    finally:
        os.environ.clear()
        os.environ.update(before)
    if not out.getvalue():
        extra = COMMANDS[arguments[0]].extra if arguments[0] in COMMANDS else None
        if extra is None or "is missing" not in err.getvalue():
            raise ValueError(f"sempic {' '.join(arguments)} printed nothing: {err.getvalue()}")
        return f"*(This page was built without the extra `{extra}`, which the command needs.)*"
    return f"```text\n{out.getvalue().rstrip()}\n```"


def _notebook(name: str) -> str:
    """A notebook as Markdown: its cells, and what they printed and drew when it was last run."""
    cells = json.loads((_NOTEBOOKS / f"{name}.ipynb").read_text())["cells"]
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source.replace("](../docs/", "](../"))
        else:
            parts.append(f"```python\n{source}\n```")
            parts += [_output(output) for output in cell["outputs"]]
    return "\n\n".join(parts)


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    for kind in ("image/png", "image/jpeg"):
        if kind in data:
            picture = "".join(data[kind]).replace("\n", "")
            return f'<img alt="what the cell above draws" src="data:{kind};base64,{picture}">'
    text = "".join(output.get("text") or data.get("text/plain", ""))
    return f'<pre class="printed">{html.escape(text.rstrip())}</pre>'
