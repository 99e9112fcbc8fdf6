"""The parts of a metric: what it measures of one picture, and how many pictures add up."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sempic import models
from sempic.evaluation import weights
from sempic.scene import Image, LabelMap

if TYPE_CHECKING:
    from sempic.evaluation.measure import Measure

Record = dict[str, Any]
"""Of one picture: numbers and arrays by name, which can be kept, and added up later."""
Row = dict[str, Any]
"""Of one operating point over all its pictures: figures by name, and what is behind them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A number in a Row."""

    name: str
    title: str
    digits: str
    """How it is printed: a format."""
    lower: bool = False
    """Whether less is better."""
    brief: bool = True
    """Whether it stands in the Markdown summary, too."""
    biased_by: str = ""
    """For a figure that depends on how many there are: the name of that number in the row."""
    ceiling: str = ""
    """What the same figure of the originals, which stands beside it, is called; "": none does."""

    def text(self, row: Row) -> str:
        """As it is printed; "–" where it was not measured."""
        return self.digits.format(row[self.name]) if row.get(self.name) is not None else "–"


class Reference:
    """A picture, above all an original, and what the networks say of it, found when first asked
    for."""

    def __init__(self, measure: Measure, picture: Image, labels: LabelMap | None = None) -> None:
        self.measure, self.picture, self.labels = measure, picture, labels
        self._found: dict[str, Any] = {}

    @functools.cached_property
    def judged(self) -> LabelMap:
        """The judge's map."""
        return self.measure.judge(self.picture)

    @functools.cached_property
    def searched(self) -> LabelMap:
        """The judge's map as it looks for objects."""
        return self.measure.finder(self.picture)

    def find(self, name: str, see: Callable[[Image], Any]) -> Any:
        """What `see` finds in the picture, found once under a name."""
        if name not in self._found:
            self._found[name] = see(self.picture)
        return self._found[name]

    def keep(self, name: str, found: Any) -> None:
        """What `find` is to give under a name."""
        self._found[name] = found


class Metric(ABC):
    """One thing that is measured of decoded pictures. Holds no state."""

    name: str
    """On the command line."""
    figures: tuple[Figure, ...]
    field: str
    """The entry of a record that says that this was measured."""
    weights: tuple[str, ...] = ()
    """The weights that it needs, names for `weights.check`."""
    costly = False
    """Measured only if asked for."""
    of_sets = False
    """Whether one picture alone has no such figure."""
    of_originals = False
    """Whether the originals' own records are needed."""
    judged = False
    """Whether it needs the judge."""
    has_network = False
    """Whether there is a `network`."""

    def check(self, inception: str | None, judge: str | None) -> None:
        """Raises ModelError where its weights are missing; arguments as of `Settings`."""
        if self.judged and judge is None:
            models.find(models.JUDGE)
        for part in self.weights:
            weights.check(part)

    def network(self, measure: Measure) -> Any:
        """What whole pictures are shown to, of `sempic.evaluation.networks`; if `has_network`.

        What it sees in a picture is kept in its Reference under this metric's name.
        """
        raise NotImplementedError

    def there(self, record: Record) -> bool:
        """Whether this was measured."""
        return self.field in record

    @abstractmethod
    def measure(self, reference: Reference, shown: Reference) -> Record:
        """Of a decoded picture, of the reference's size."""

    def original(self, reference: Reference) -> Record:
        """Of the original, for `of_originals`."""
        return self.measure(reference, reference)

    @abstractmethod
    def add_up(self, records: Sequence[Record], originals: Sequence[Record]) -> Row:
        """The figures over all pictures, and what is behind them; none of what was not measured.

        Args:
            records: of the decoded pictures, with this metric's field.
            originals: of their originals, for `of_originals`; or none.
        """

    def behind(self, rows: Sequence[tuple[str, Row]]) -> list[list[str]] | None:
        """What is behind the figures of titled rows, as a table with heads; None: nothing."""
        return None


class Mean(Metric):
    """A metric whose one figure is the mean over the pictures."""

    def __init__(self, figure: Figure) -> None:
        self.name = self.field = figure.name
        self.figures = (figure,)

    def add_up(self, records: Sequence[Record], originals: Sequence[Record]) -> Row:
        mean = float(np.mean([record[self.name] for record in records]))
        return {self.name: mean} if np.isfinite(mean) else {}
