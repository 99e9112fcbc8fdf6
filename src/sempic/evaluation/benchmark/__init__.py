"""Codecs side by side on a folder of pictures."""

from sempic.evaluation.benchmark.bench import Benchmark
from sempic.evaluation.benchmark.plan import RATES, Item, Plan, items
from sempic.evaluation.benchmark.results import run

__all__ = ["RATES", "Benchmark", "Item", "Plan", "items", "run"]
