"""Coders 2 and 3, for palettes with a trained prior: they know streets before the first pixel.

A pixel in a calm area is one question, "does the area go on?" (`calm`); at an outline there is one
for each candidate (`outline`); what is neither escapes to the network's chances. `state` is what
the coder knows when it begins, `evidence` what it sees of the coarse picture. docs/spec/labels.md
§5 to §8.
"""

from __future__ import annotations

from sempic.labels.primed.coder import code
from sempic.labels.primed.evidence import Seen, look

__all__ = ["Seen", "code", "look"]
