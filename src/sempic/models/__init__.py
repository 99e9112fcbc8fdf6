"""The bundled weights, each with a model card."""

from __future__ import annotations

import os
from pathlib import Path

from sempic.errors import ModelError

SEGMENTER = "segmenter"
RECEIVER = "receiver"
VERIFIER = "verifier"
"""A segmenter that checks decoded pictures. No other model's training used it, and its training did
not use the judge."""
JUDGE = "judge"
"""A segmenter for measurements only (`sempic.evaluation`). Coding does not need it, so the wheel
leaves out its ten megabytes."""

RENOISE = 0.1
"""Noise that receivers add before each step after the first, as a share of the noise level. More
remains visible as grain; networks are trained with this share (`sempic.diffusion.edm`)."""

TERMS = "code: Apache-2.0; bundled weights: for research, not commercial (LICENSE-WEIGHTS)"


def cache() -> Path:
    """The folder of downloads and cached results: sempic/ in $XDG_CACHE_HOME or ~/.cache.

    Raises ModelError if there is no home folder.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not os.path.isabs(home):  # "~" remains if there is no home
        raise ModelError("there is no home folder for the cache: set XDG_CACHE_HOME to a folder")
    return Path(home) / "sempic"


def find(name: str) -> Path:
    """Path of a bundled ONNX model; the judge may also be in `cache()`.

    Raises:
        ModelError: the model is missing.
    """
    path = Path(__file__).with_name(f"{name}.onnx")
    if path.is_file():
        return path
    if name != JUDGE:
        raise ModelError(f"{path}: the bundled {name} is missing, reinstall sempic")
    kept = cache() / path.name
    if not kept.is_file():
        raise ModelError(
            f"the judge is not in the wheel ({kept} neither); get it: python -m "
            "sempic.evaluation.weights in sempic's source folder, or name one with --judge"
        )
    return kept
