"""Rate and quality curves and bars as SVG, without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from sempic.evaluation import codecs

MARKERS = {
    "square": (4, 45, 0.71),
    "diamond": (4, 0, 0.71),
    "triangle": (3, 0, 0.5),
    "tip": (3, 180, 0.5),
    "plus": (4, 0, 0.35),
    "cross": (4, 45, 0.35),
}
"""Stars by name: number of points, turn in degrees, and radius of the inner corners, of 1."""
_WIDTH, _HEIGHT = 460, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 34, 44
_RATES = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1, 2, 3, 5)
_INK, _GREY, _FRAME, _RULE, _FAINT = "#24292f", "#57606a", "#afb8c1", "#d8dee4", "#eef1f4"


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One codec in one panel."""

    codec: str
    title: str
    points: Sequence[tuple[float, float]]
    """(bpp, figure)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One figure against the rate."""

    title: str
    curves: Sequence[Curve]
    lower: bool = False
    """Whether lower is better."""
    ceiling: float | None = None
    """The originals' figure, drawn as a horizontal line."""
    ceiling_title: str = "originals"


def figure(panels: Sequence[Panel]) -> str:
    """An SVG document: panels in two columns above one legend."""
    columns, rows = 2, -(-len(panels) // 2)
    legend = {c.codec: c for p in panels for c in p.curves}
    per_row = columns * _WIDTH // 230
    svg = _document(columns * _WIDTH, rows * _HEIGHT + 22 * -(-len(legend) // per_row) + 12)
    for number, panel in enumerate(panels):
        x, y = number % columns * _WIDTH, number // columns * _HEIGHT
        _panel(_add(svg, "g", transform=f"translate({x} {y})"), panel)
    for number, curve in enumerate(legend.values()):
        x, y = 20 + number % per_row * 230, rows * _HEIGHT + 16 + number // per_row * 22
        _add(svg, "line", x1=x, x2=x + 28, y1=y, y2=y, **_stroke(curve))
        _mark(svg, curve.codec, x + 14, y)
        weight = "bold" if codecs.is_ours(curve.codec) else "normal"
        _add(svg, "text", curve.title, x=x + 36, y=y + 4, font_weight=weight)
    return ElementTree.tostring(svg, "unicode")


def _panel(svg: Element, panel: Panel) -> None:
    points = [point for curve in panel.curves for point in curve.points]
    rates = [r for r, _ in points]
    values = [v for _, v in points] + ([] if panel.ceiling is None else [panel.ceiling])
    low_x, high_x = math.log(min(rates) / 1.08), math.log(max(rates) * 1.08)
    margin = 0.05 * abs(values[0]) + 1e-3 if len(set(values)) == 1 else 0
    marks = ticks(min(values) - margin, max(values) + margin)
    step = marks[1] - marks[0]
    low_y, high_y = min(marks[0], min(values)), max(marks[-1], max(values) + 0.1 * step)
    right, base = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x(rate: float) -> float:
        return _LEFT + (right - _LEFT) * (math.log(rate) - low_x) / (high_x - low_x)

    def y(value: float) -> float:
        return base - (base - _TOP) * (value - low_y) / (high_y - low_y)

    title = _add(svg, "text", panel.title, x=_LEFT, y=20, font_size=14, font_weight="bold")
    better = f"  {'↓' if panel.lower else '↑'} is better"
    _add(title, "tspan", better, fill=_GREY, font_weight="normal", font_size=12)
    for tick in marks:
        _rule(svg, tick, y(tick), right)
    for rate in _marked_rates(min(rates), max(rates)):
        _add(svg, "line", x1=x(rate), x2=x(rate), y1=_TOP, y2=base, stroke=_FAINT)
        _label(svg, f"{rate:.3g}", x(rate), base + 16)
    _label(svg, "bits per pixel (whole files)", (_LEFT + right) / 2, _HEIGHT - 10)
    size = {"width": right - _LEFT, "height": base - _TOP}
    _add(svg, "rect", x=_LEFT, y=_TOP, **size, fill="none", stroke=_FRAME)
    if panel.ceiling is not None:
        at, text = y(panel.ceiling), f"{panel.ceiling_title} {panel.ceiling:.3f}"
        _add(svg, "line", x1=_LEFT, x2=right, y1=at, y2=at, stroke=_GREY, stroke_dasharray="7 4")
        _label(svg, text, _LEFT + 6, at + 14, "start")
    for curve in sorted(panel.curves, key=lambda c: codecs.is_ours(c.codec)):
        line = " ".join(f"{x(r):.1f},{y(v):.1f}" for r, v in sorted(curve.points))
        _add(svg, "polyline", points=line, fill="none", **_stroke(curve))
        for rate, value in curve.points:
            _add(
                _mark(svg, curve.codec, x(rate), y(value)),
                "title",
                f"{curve.title}: {value:.4g} at {rate:.4f} bpp",
            )


def bars(classes: Sequence[str], series: Sequence[tuple[str, str, Sequence[float | None]]]) -> str:
    """An SVG document: a group of bars for each class.

    Args:
        series: (codec, title, values 0…1; None: no bar).
    """
    bar, gap = 9, 16
    group = len(series) * bar + gap
    width, inner = _LEFT + _RIGHT + len(classes) * group, 196
    widths = [34 + 6.2 * len(title) for _, title, _ in series]
    width = max(width, math.ceil(_LEFT + max(widths)))
    places: list[tuple[float, float]] = []
    left, line = float(_LEFT), _TOP + inner + 48
    for needed in widths:  # the legend, in as many lines as it needs
        if left > _LEFT and left + needed > width:
            left, line = float(_LEFT), line + 22
        places.append((left, line))
        left += needed
    svg = _document(width, line + 22)
    for tick in (0, 0.25, 0.5, 0.75, 1):
        _rule(svg, tick, _TOP + inner * (1 - tick), width - _RIGHT)
    for number, name in enumerate(classes):
        left = _LEFT + gap / 2 + number * group
        for at, (codec, title, values) in enumerate(series):
            value = values[number]
            if value is None:
                continue
            x, y = left + at * bar, _TOP + inner * (1 - value)
            fill = codecs.style(codec).colour
            rect = _add(svg, "rect", x=x, y=y, width=bar - 1, height=inner * value, fill=fill)
            _mark(svg, codec, x + bar / 2 - 0.5, y)
            _add(rect, "title", f"{name}, {title}: {value:.3f}")
        middle = left + (group - gap) / 2
        _add(svg, "text", name, x=middle, y=_TOP + inner + 16, text_anchor="middle")
    for (codec, title, _), (x, y) in zip(series, places, strict=True):
        _mark(svg, codec, x + 6, y)
        _add(svg, "text", title, x=x + 16, y=y + 4)
    return ElementTree.tostring(svg, "unicode")


def _document(width: int, height: int) -> Element:
    svg = Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width} {height}")
    svg.attrib |= {"font-family": "Helvetica, Arial, sans-serif", "font-size": "12", "fill": _INK}
    _add(svg, "rect", width=width, height=height, fill="#fff")
    return svg


def _add(
    parent: Element, kind: str, text: str | None = None, /, **attributes: str | float
) -> Element:
    """An SVG element. Attribute names have _ for -; numbers are rounded to tenths."""
    rounded = {
        name.replace("_", "-"): value if isinstance(value, str) else f"{round(value, 1):g}"
        for name, value in attributes.items()
    }
    element = ElementTree.SubElement(parent, kind, rounded)
    element.text = text
    return element


def _rule(svg: Element, tick: float, y: float, right: float) -> None:
    """A horizontal line at a value, and the value on its left."""
    _add(svg, "line", x1=_LEFT, x2=right, y1=y, y2=y, stroke=_RULE)
    _label(svg, f"{tick:g}", _LEFT - 7, y + 4, "end")


def _label(svg: Element, text: str, x: float, y: float, anchor: str = "middle") -> None:
    _add(svg, "text", text, x=x, y=y, text_anchor=anchor, fill=_GREY)


def _stroke(curve: Curve) -> dict[str, str]:
    style = codecs.style(curve.codec)
    width = "3" if codecs.is_ours(curve.codec) else "1.8"
    return {"stroke": style.colour, "stroke_width": width, "stroke_dasharray": style.dashes}


def _mark(svg: Element, codec: str, x: float, y: float) -> Element:
    """The marker of a codec at a place."""
    style, radius = codecs.style(codec), 5 if codecs.is_ours(codec) else 3.5
    mark = _add(svg, "g", fill=style.colour, stroke="#fff", stroke_width=0.7)
    if style.marker not in MARKERS:
        _add(mark, "circle", cx=x, cy=y, r=max(radius, 2.3 * len(style.marker)))
        if style.marker:
            text = _add(mark, "text", style.marker, x=x, y=y + 3, font_size=8, fill="#fff")
            text.attrib |= {"text-anchor": "middle", "stroke": "none"}
        return mark
    points, turn, inner = MARKERS[style.marker]
    corners = []
    for number in range(2 * points):
        angle = math.pi * number / points + math.radians(turn)
        reach = 1.4 * radius * (inner if number % 2 else 1)
        corners.append(f"{x + reach * math.sin(angle):.1f},{y - reach * math.cos(angle):.1f}")
    _add(mark, "polygon", points=" ".join(corners))
    return mark


def _marked_rates(low: float, high: float) -> list[float]:
    """Round rates within some 8 % of a range, or its ends where these are fewer than two."""
    found = [rate for rate in _RATES if low / 1.08 <= rate <= 1.08 * high]
    if len(found) > 1:
        return found
    return [low, high] if high > 1.1 * low else [high]  # ends that are close would overlap


def ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers in equal steps, the first at or below `low`, the last at or below
    `high`."""
    span = max(high - low, 1e-6)
    power = 10 ** math.floor(math.log10(span / 4))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if span / (power * m) <= 6)
    first = math.floor(low / step + 1e-9)
    return [
        round((first + i) * step, 10) for i in range(math.floor(high / step + 1e-9) - first + 1)
    ]
