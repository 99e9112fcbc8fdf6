"""Label map ⇄ payload, lossless. docs/spec/labels.md is the normative text.

`payload` chooses one of two coders, `adaptive` and `primed`, which share all that they can: a pixel
is a few yes/no questions about its `neighbourhood`, each is answered with a probability by `mixing`
(over the tables of `logistic`), and the `range_coder` takes it from there, in both directions.
"""

from __future__ import annotations

from sempic.labels.payload import MODELS, decode, encode, look
from sempic.labels.primed import Seen
from sempic.labels.prior import Prior

__all__ = ["MODELS", "Prior", "Seen", "decode", "encode", "look"]
