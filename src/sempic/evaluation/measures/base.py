"""The interface of metrics: a record for each picture, and figures over many records."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image

import sempic
from sempic import models, pictures
from sempic.evaluation import weights
from sempic.scene import Image, LabelMap

if TYPE_CHECKING:
    from sempic.evaluation.measure import Measure, Settings

JPEG_QUALITY = 90
"""Quality of `Reference.as_jpeg`."""
_MODULES = (
    *("critical.py", "palette.py", "pictures.py", "check/objects.py", "labels/regions.py"),
    *("models/runtime.py", "segment/*.py", "windows/choice.py"),
    *("evaluation/measure.py", "evaluation/metrics.py", "evaluation/networks.py"),
    "evaluation/measures/*.py",
)
"""Of `_modules`, in sempic's folder."""
Record = dict[str, Any]
"""Measurements of one picture: numbers and arrays by name, which can be cached."""
Row = dict[str, Any]
"""Figures over many pictures by name, and the counts behind them."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number in a Row."""

    name: str
    title: str
    digits: str
    """Format string for output."""
    lower: bool = False
    """Whether lower is better."""
    brief: bool = True
    """Whether the Markdown summary has the figure, too."""
    biased_by: str = ""
    """Key in the row of the sample size on which the figure depends; "": on none."""
    ceiling: str = ""
    """Title of the originals' figure, which is printed beside this one; "": none is."""

    def head(self, row: Row) -> str:
        """The title, with the sample size if the figure depends on that."""
        return self.title + (f" (N = {row[self.biased_by]})" if self.biased_by in row else "")

    def text(self, row: Row) -> str:
        """The formatted figure; "–" if it was not measured."""
        value = row.get(self.name)
        if value is None:
            return "–"
        return "∞" if value == math.inf else self.digits.format(value)


class Reference:
    """A picture, original or decoded, with the outputs of networks for it, computed on demand."""

    def __init__(self, measure: Measure, picture: Image, labels: LabelMap | None = None) -> None:
        self.measure, self.picture, self.labels = measure, picture, labels
        self.cached: dict[str, Any] = {}
        """The results of `features`."""

    @functools.cached_property
    def judged(self) -> LabelMap:
        """The judge's map."""
        return self.measure.judge(self.picture)

    @functools.cached_property
    def searched(self) -> LabelMap:
        """The map of `Measure.finder`, for objects."""
        is_bundled = self.measure.settings.judge is None  # another one sees it no larger
        return self.measure.finder(self.picture) if is_bundled else self.judged

    @functools.cached_property
    def as_jpeg(self) -> Reference:
        """The picture as JPEG of quality JPEG_QUALITY (Pillow, 4:2:0), decoded."""
        file = pictures.saved(PIL.Image.fromarray(self.picture), "JPEG", quality=JPEG_QUALITY)
        return Reference(self.measure, pictures.read(file))

    def features(self, metric: str) -> Any:
        """What the network of a metric computes of the picture."""
        if metric not in self.cached:
            self.cached[metric] = self.measure.network(metric).features(self.picture)
        return self.cached[metric]


class Metric(ABC):
    """A measurement of decoded pictures, without state."""

    name: str
    """On the command line."""
    figures: tuple[Figure, ...]
    weights: tuple[str, ...] = ()
    """Names of the necessary weights, as of `weights.check`."""
    costly = False
    """Whether the metric is measured only on request."""
    of_sets = ""
    """What the figures need at least two of; "": one picture is enough."""
    of_originals = True
    """Whether the figures need records of the originals, too."""
    of_maps = False
    """Whether the metric needs human maps."""
    judged = False
    """Whether the metric needs the judge."""
    inception = False
    """Whether the metric needs the FID network."""

    def networks(self, inception: str | None, judge: str | None) -> list[Path]:
        """The files of the necessary networks; arguments as in `Settings`. Raises ModelError if
        one is missing."""
        found = [weights.check(name) for name in self.weights]
        if self.judged:
            found.append(Path(judge or models.find(models.JUDGE)))
        if self.inception:
            found.append(weights.inception(inception))
        return found

    def key(self, settings: Settings) -> str:
        """Everything but picture and human map that determines a record; part of cache keys."""
        import onnxruntime

        files = [*self.networks(settings.inception, settings.judge), *_modules()]
        return " ".join([self.name, onnxruntime.__version__, *map(weights.digest, files)])

    def load(self, settings: Settings) -> Any:
        """The network of `sempic.evaluation.networks` that sees whole pictures for the metric, if
        it has one. Raises ModelError."""
        raise NotImplementedError

    def measured_in(self, record: Record) -> bool:
        """Whether a record has this metric: most have one value, under the metric's name."""
        return self.name in record

    @abstractmethod
    def measure(self, reference: Reference, shown: Reference) -> Record:
        """The record of a decoded picture, `shown`, of the reference's size."""

    def original(self, reference: Reference) -> Record:
        """The record of an original, if `of_originals`."""
        return self.measure(reference, reference)

    @abstractmethod
    def add_up(self, records: Sequence[Record], originals: Sequence[Record]) -> Row:
        """The figures over all pictures, and the counts behind them.

        Args:
            records: of the decoded pictures, with this metric.
            originals: of their originals, if `of_originals`; may be empty.
        """

    def details(self, rows: Sequence[tuple[str, Row]]) -> list[list[str]]:
        """A table, heads first, of the counts behind the figures of titled rows; [] for none."""
        return []


@functools.cache
def _modules() -> list[Path]:
    """Our modules that records depend on."""
    package = Path(sempic.__file__).parent
    return sorted(path for pattern in _MODULES for path in package.glob(pattern))


class Mean(Metric):
    """A metric with one figure, the mean over the pictures. It is infinite if it is that for all of
    them, as PSNR of the originals themselves; with only some of them, there is none."""

    of_originals = False

    def __init__(self, figure: Figure) -> None:
        self.name = figure.name
        self.figures = (figure,)

    def add_up(self, records: Sequence[Record], originals: Sequence[Record]) -> Row:
        values = [record[self.name] for record in records]
        mean = float(np.mean(values))
        return {self.name: mean} if np.isfinite(mean) or np.min(values) == np.inf else {}
