"""Results of a benchmark: operating points, figures at equal rates, BD-rates."""

from __future__ import annotations

import contextlib
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import sempic
from sempic.evaluation import metrics
from sempic.evaluation.benchmark.bench import Benchmark
from sempic.evaluation.codecs import is_ours
from sempic.evaluation.measure import row
from sempic.evaluation.measures import FIGURES, Figure, Row, measured


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecResults:
    """Results of one codec."""

    title: str
    peak_bytes: int
    """Peak memory of a process that encodes and decodes one picture; 0: unknown."""
    points: list[Row]
    """One for each "setting", by rising rate, as of `Benchmark.row`."""

    def curve(self, figure: str) -> list[tuple[float, float]]:
        """(bpp, figure) of the points that have the figure, and not an infinite one."""
        points = (p for p in self.points if p.get(figure, math.inf) != math.inf)
        return [(p["bpp"], p[figure]) for p in points]

    def near(self, bpp: float) -> Row:
        """The point nearest to a rate."""
        return min(self.points, key=lambda p: abs(np.log(p["bpp"] / bpp)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """All results, as in report.json."""

    about: dict[str, Any]
    """Versions, folder, machine, judge and settings."""
    originals: Row
    codecs: dict[str, CodecResults]
    matched: list[dict[str, Any]]
    """See `matched`."""
    bd_rate: dict[str, dict[str, float | None]]
    """See `bd_rates`."""

    @property
    def points(self) -> list[Row]:
        """Those of all codecs."""
        return [point for codec in self.codecs.values() for point in codec.points]

    @property
    def figures(self) -> dict[str, Figure]:
        """The figures that any codec has, by name."""
        return measured(self.points)

    @property
    def anchor(self) -> str:
        """The name of the codec with which others are compared: see `anchor`."""
        return anchor(self.codecs)


def run(bench: Benchmark, names: Sequence[str], rates: Sequence[float]) -> Results:
    """Encodes and measures with each codec near each rate."""
    originals = bench.originals()
    settings = {
        name: bench.dial(name, rates)
        for name in tqdm(names, desc="rates", unit="codec", disable=None)
    }
    indices = range(len(bench.plan.items))
    bench.measure((i, name, at) for i in indices for name in names for at in settings[name])
    codecs = {}
    for name in names:
        points = [
            {"setting": at, **bench.row([(i, name, at) for i in indices], originals)}
            for at in settings[name]
        ]
        points.sort(key=lambda point: point["bpp"])
        peak = bench.memory(name, points[len(points) // 2]["setting"])
        codecs[name] = CodecResults(title=bench.codec(name).title, peak_bytes=peak, points=points)
    if is_ours(anchor(names)):
        rates = [point["bpp"] for point in codecs[anchor(names)].points]
    return Results(
        about=_about(bench),
        originals=row(originals, originals, None),
        codecs=codecs,
        matched=matched(codecs, rates),
        bd_rate=bd_rates(codecs, anchor(names)),
    )


def anchor(names: Iterable[str]) -> str:
    """The name of our first codec, else the first one."""
    return min(names, key=lambda name: not is_ours(name))


def matched(codecs: Mapping[str, CodecResults], rates: Sequence[float]) -> list[dict[str, Any]]:
    """The interpolated figures of every codec at each rate; None outside the codec's rates."""
    curves = {n: {f: c for f in FIGURES if (c := codec.curve(f))} for n, codec in codecs.items()}
    return [
        {"bpp": bpp, "codec": name, **{f: metrics.at_rate(c, bpp) for f, c in own.items()}}
        for bpp in rates
        for name, own in curves.items()
    ]


def bd_rates(codecs: Mapping[str, CodecResults], anchor: str) -> dict[str, dict[str, float | None]]:
    """{figure: {codec: `metrics.bd_rate` against the anchor}}."""
    return {
        figure.name: {
            name: metrics.bd_rate(anchor_curve, codec.curve(figure.name), falling=figure.lower)
            for name, codec in codecs.items()
            if name != anchor
        }
        for figure in FIGURES.values()
        if (anchor_curve := codecs[anchor].curve(figure.name))
    }


def _about(bench: Benchmark) -> dict[str, Any]:
    plan, sizes = bench.plan, set(bench.sizes)
    return {
        "sempic": sempic.__version__,
        "folder": str(plan.items[0].picture.parent),
        "pictures": len(plan.items),
        "size": list(*sizes) if len(sizes) == 1 else None,
        "labels": plan.items[0].labels is not None,
        "judge": plan.settings.judge_name,
        "effort": plan.effort,
        "metrics": list(plan.settings.metrics),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "settings": {k: v for k, v in asdict(plan.settings).items() if k != "metrics"},
    }


def processor() -> str:
    """The name of this machine's processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
