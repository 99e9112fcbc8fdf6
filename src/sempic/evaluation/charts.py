"""Rate and quality curves and bars as SVG, drawn here: no plotting library, no fonts to ship."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

STYLES = {
    "originals": ("#afb8c1", ""),
    "sempic": ("#d1242f", ""),
    "sempic@1": ("#f0883e", ""),
    "sempic+human": ("#d1242f", "2 3"),
    "sempic@1+human": ("#f0883e", "2 3"),
    "bpg444": ("#0b62a8", ""),
    "bpg": ("#0b62a8", "5 3"),
    "avif": ("#1a7f37", ""),
    "avif444": ("#1a7f37", "5 3"),
    "svt-av1": ("#4ac26b", ""),
    "hevc": ("#54aeff", ""),
    "jxl": ("#8250df", ""),
    "webp": ("#9a6700", ""),
    "jpeg2000": ("#c297ff", ""),
    "jpeg": ("#bf8700", "5 3"),
    "coarse": ("#24292f", "2 3"),
    "coarse+esrgan": ("#6e7781", "2 3"),
}
"""Colour and dashes of each codec."""

_WIDTH, _HEIGHT = 460, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 34, 44
_RATES = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1, 2, 3, 5)
_FONT = "font-family='Helvetica, Arial, sans-serif'"


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One codec in one panel."""

    codec: str
    title: str
    points: Sequence[tuple[float, float]]
    """(bpp, figure)."""
    ours: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One figure against the rate."""

    title: str
    better: str
    """"up" or "down"."""
    curves: Sequence[Curve]
    ceiling: float | None = None
    """What originals reach, drawn as a line."""
    ceiling_title: str = "originals"


def style(codec: str) -> tuple[str, str]:
    """Colour and dashes of a codec, known or not."""
    return STYLES.get(
        codec, STYLES.get("sempic" if codec.startswith("sempic") else "", ("#57606a", ""))
    )


def figure(panels: Sequence[Panel]) -> str:
    """Panels in two columns above one legend, as a whole SVG document."""
    columns, rows = 2, -(-len(panels) // 2)
    names = {c.codec: c.title for p in panels for c in p.curves}
    ours = {c.codec for p in panels for c in p.curves if c.ours}
    per_row = max(1, columns * _WIDTH // 230)
    legend_rows = -(-len(names) // per_row)
    width, height = columns * _WIDTH, rows * _HEIGHT + 22 * legend_rows + 12
    parts = []
    for number, panel in enumerate(panels):
        x, y = number % columns * _WIDTH, number // columns * _HEIGHT
        parts.append(f"<g transform='translate({x} {y})'>{_panel(panel)}</g>")
    for number, (codec, title) in enumerate(names.items()):
        x = 20 + number % per_row * 230
        y = rows * _HEIGHT + 16 + number // per_row * 22
        colour, dashes = style(codec)
        heavy = codec in ours
        weight = "bold" if heavy else "normal"
        parts.append(
            f"<line x1='{x}' x2='{x + 28}' y1='{y}' y2='{y}' stroke='{colour}' "
            f"stroke-width='{3 if heavy else 1.8}' stroke-dasharray='{dashes}'/>"
            f"<circle cx='{x + 14}' cy='{y}' r='{4.5 if heavy else 3}' fill='{colour}'/>"
            f"<text x='{x + 36}' y='{y + 4}' font-weight='{weight}'>"
            f"{html.escape(title)}</text>"
        )
    return _document(width, height, parts)


def _document(width: float, height: float, parts: Sequence[str]) -> str:
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' {_FONT} "
        f"font-size='12' fill='#24292f'><rect width='{width}' height='{height}' fill='#fff'/>"
        f"{''.join(parts)}</svg>"
    )


def _panel(panel: Panel) -> str:
    points = [point for curve in panel.curves for point in curve.points]
    rates = [r for r, _ in points]
    values = [v for _, v in points] + ([] if panel.ceiling is None else [panel.ceiling])
    low_x, high_x = math.log(min(rates) / 1.08), math.log(max(rates) * 1.08)
    margin = 0.05 * abs(values[0]) + 1e-3 if len(set(values)) == 1 else 0
    marks = ticks(min(values) - margin, max(values) + margin)
    step = marks[1] - marks[0]
    low_y, high_y = min(marks[0], min(values)), max(marks[-1], max(values) + 0.1 * step)
    inner_w, inner_h = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(rate: float) -> float:
        return _LEFT + inner_w * (math.log(rate) - low_x) / (high_x - low_x)

    def y(value: float) -> float:
        return _TOP + inner_h * (1 - (value - low_y) / (high_y - low_y))

    arrow = "↑" if panel.better == "up" else "↓"
    parts = [
        f"<text x='{_LEFT}' y='20' font-size='14' font-weight='bold'>{html.escape(panel.title)}"
        f"<tspan fill='#57606a' font-weight='normal' font-size='12'>  {arrow} is better</tspan>"
        "</text>"
    ]
    for tick in marks:
        parts.append(
            f"<line x1='{_LEFT}' x2='{_WIDTH - _RIGHT}' y1='{y(tick):.1f}' y2='{y(tick):.1f}' "
            f"stroke='#d8dee4'/><text x='{_LEFT - 7}' y='{y(tick) + 4:.1f}' text-anchor='end' "
            f"fill='#57606a'>{tick:g}</text>"
        )
    base = _HEIGHT - _BOTTOM
    for rate in _RATES:
        if low_x <= math.log(rate) <= high_x:
            parts.append(
                f"<line x1='{x(rate):.1f}' x2='{x(rate):.1f}' y1='{_TOP}' y2='{base}' "
                f"stroke='#eef1f4'/><text x='{x(rate):.1f}' y='{base + 16}' text-anchor='middle' "
                f"fill='#57606a'>{rate:g}</text>"
            )
    parts.append(
        f"<text x='{_LEFT + inner_w / 2}' y='{_HEIGHT - 10}' text-anchor='middle' fill='#57606a'>"
        "bits per pixel (whole files)</text>"
        f"<rect x='{_LEFT}' y='{_TOP}' width='{inner_w}' height='{inner_h}' fill='none' "
        "stroke='#afb8c1'/>"
    )
    if panel.ceiling is not None:
        at = y(panel.ceiling)
        parts.append(
            f"<line x1='{_LEFT}' x2='{_WIDTH - _RIGHT}' y1='{at:.1f}' y2='{at:.1f}' "
            "stroke='#57606a' stroke-dasharray='7 4'/>"
            f"<text x='{_LEFT + 6}' y='{at + 14:.1f}' fill='#57606a'>"
            f"{html.escape(panel.ceiling_title)} {panel.ceiling:.3f}</text>"
        )
    for curve in sorted(panel.curves, key=lambda c: c.ours):
        colour, dashes = style(curve.codec)
        line = " ".join(f"{x(r):.1f},{y(v):.1f}" for r, v in sorted(curve.points))
        parts.append(
            f"<polyline points='{line}' fill='none' stroke='{colour}' stroke-dasharray='{dashes}' "
            f"stroke-width='{3 if curve.ours else 1.8}'/>"
        )
        for rate, value in curve.points:
            parts.append(
                f"<circle cx='{x(rate):.1f}' cy='{y(value):.1f}' r='{4.5 if curve.ours else 3}' "
                f"fill='{colour}' stroke='#fff'><title>{html.escape(curve.title)}: {value:.4g} at "
                f"{rate:.4f} bpp</title></circle>"
            )
    return "".join(parts)


def bars(classes: Sequence[str], series: Sequence[tuple[str, str, Sequence[float | None]]]) -> str:
    """Groups of bars, one group a class, from 0 to 1; series are (codec, title, values)."""

    def fill(codec: str) -> str:
        colour, dashes = style(codec)
        return f"fill='{colour}' fill-opacity='{0.55 if dashes else 1}'"

    bar, gap = 9, 16
    group = len(series) * bar + gap
    width, height = _LEFT + _RIGHT + len(classes) * group, 300
    inner = height - _TOP - 70
    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        y = _TOP + inner * (1 - tick)
        parts.append(
            f"<line x1='{_LEFT}' x2='{width - _RIGHT}' y1='{y}' y2='{y}' stroke='#d8dee4'/>"
            f"<text x='{_LEFT - 7}' y='{y + 4}' text-anchor='end' fill='#57606a'>{tick:g}</text>"
        )
    for number, name in enumerate(classes):
        left = _LEFT + gap / 2 + number * group
        for at, (codec, title, values) in enumerate(series):
            value = values[number]
            if value is None:
                continue
            parts.append(
                f"<rect x='{left + at * bar:.1f}' y='{_TOP + inner * (1 - value):.1f}' "
                f"width='{bar - 1}' height='{inner * value:.1f}' {fill(codec)}>"
                f"<title>{html.escape(name)}, {html.escape(title)}: {value:.3f}</title></rect>"
            )
        parts.append(
            f"<text x='{left + (group - gap) / 2:.1f}' y='{_TOP + inner + 16}' "
            f"text-anchor='middle'>{html.escape(name)}</text>"
        )
    x = float(_LEFT)
    for codec, title, _ in series:
        parts.append(
            f"<rect x='{x}' y='{height - 28}' width='11' height='11' {fill(codec)}/>"
            f"<text x='{x + 16}' y='{height - 18}'>{html.escape(title)}</text>"
        )
        x += 34 + 6.2 * len(title)
    return _document(width, height, parts)


def ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers that cover low…high from below."""
    span = max(high - low, 1e-6)
    power = 10 ** math.floor(math.log10(span / 4))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if span / (power * m) <= 6)
    first = math.floor(low / step + 1e-9)
    return [
        round((first + i) * step, 10) for i in range(math.floor(high / step + 1e-9) - first + 1)
    ]
