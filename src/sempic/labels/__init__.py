"""Label map ⇄ payload, lossless. docs/spec/labels.md is the normative text.

`payload` chooses one of two coders, `adaptive` and `primed`. Both turn a pixel into a few yes/no
questions about its `neighbourhood`. `mixing` gives each answer a probability (with the tables of
`logistic`), and `range_coder` encodes or decodes the answer.
"""

from __future__ import annotations

from sempic.labels.payload import MODELS, coarse_features, decode, encode
from sempic.labels.primed import CoarseFeatures
from sempic.labels.prior import Prior

__all__ = ["MODELS", "CoarseFeatures", "Prior", "coarse_features", "decode", "encode"]
