"""Coders 2 and 3, for palettes with a trained prior. docs/spec/labels.md §6 to §8.

A pixel in a calm area is one question: "does the area continue?" (`calm`). A pixel at an outline
is one question for each candidate (`outline`). Other labels are escapes, coded by the causal
network's probabilities. `state` holds the learnt statistics, `evidence` features of the coarse
picture.
"""

from __future__ import annotations

from sempic.labels.primed.coder import code
from sempic.labels.primed.evidence import CoarseFeatures, coarse_features

__all__ = ["CoarseFeatures", "coarse_features", "code"]
