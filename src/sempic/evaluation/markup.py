"""Parts of HTML reports: pages that open offline, tables, pictures."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from importlib import resources

import PIL.Image

from sempic.evaluation.measures import Figure, Row
from sempic.pictures import saved
from sempic.scene import Image

BPP = Figure("bpp", "bpp", "{:.4f}", lower=True)


def resource(name: str) -> str:
    """A script or style sheet out of pages/."""
    return resources.files("sempic.evaluation").joinpath("pages", name).read_text("utf-8")


def document(title: str, body: str, script: str, style: str = "") -> str:
    """A whole page; `style` is added to page.css."""
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>{html.escape(title)}</title><style>{resource('page.css')}{style}</style></head><body>{body}"
        f"<script>{script}</script></body></html>\n"
    )


def embedded(picture: Image) -> str:
    """A picture as a data URL, lossless."""
    return data_url(saved(PIL.Image.fromarray(picture), "WEBP", lossless=True, quality=50))


def data_url(webp: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(webp).decode()


def pane(source: str, caption: str) -> str:
    """A picture (a data URL) in a sheet."""
    return (
        "<figure><div class='pane' tabindex='0' role='button' aria-label='zoom'>"
        f"<img src='{source}' alt=''></div>"
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """An HTML table.

    Args:
        rows: (CSS class, cells). Cells are HTML. A row of class "group" has one cell, which spans
            the table.
    """
    head = "".join(f"<th>{html.escape(h)}</th>" for h in heads)
    lines = []
    for kind, cells in rows:
        if kind == "group":
            lines.append(f"<tr class='group'><td colspan='{len(heads)}'>{cells[0]}</td></tr>")
        else:
            filled = "".join(f"<td>{cell}</td>" for cell in cells)
            lines.append(f"<tr class='{kind}'>{filled}</tr>")
    return f"<div class='scroll'><table><tr>{head}</tr>{''.join(lines)}</table></div>"


def table_of_texts(rows: Sequence[Sequence[str]]) -> str:
    """An HTML table of plain texts; the first row has the heads."""
    heads, *rest = rows
    return table(heads, [("", [html.escape(cell) for cell in row]) for row in rest])


def heads(figures: Sequence[Figure], row: Row) -> list[str]:
    """`Figure.head` of each figure, with an arrow to the better values."""
    return [f"{figure.head(row)} {'↓' if figure.lower else '↑'}" for figure in figures]


def marked(rows: Sequence[Row], figures: Sequence[Figure]) -> list[list[str]]:
    """The figures of each row as cells of `table`, the best of several rows in bold."""
    best = {}
    for f in figures:
        values = [row[f.name] for row in rows if row.get(f.name) is not None]
        if values and len(rows) > 1:
            best[f.name] = min(values) if f.lower else max(values)

    def cell(row: Row, f: Figure) -> str:
        is_best = f.name in best and row.get(f.name) == best[f.name]
        return f"<b>{f.text(row)}</b>" if is_best else f.text(row)

    return [[cell(row, f) for f in figures] for row in rows]
