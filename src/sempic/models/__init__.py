"""The bundled weights; a model card stands beside each."""

from __future__ import annotations

import os
from pathlib import Path

from sempic.errors import ModelError

SEGMENTER = "segmenter"
RECEIVER = "receiver"
VERIFIER = "verifier"
"""A segmenter that checks what others lose; it took no part in their training, nor the judge in
its."""
JUDGE = "judge"
"""A segmenter for measuring only (`sempic.evaluation`); nothing else may use it. It is in the
source tree and not in the wheel: coding needs none of its ten megabytes."""

RENOISE = 0.1
"""Noise that receivers add again before each step but the first, as a share of what the level says.
More would stay in the picture as grain; networks learn with this share (`sempic.diffusion.edm`)."""

TERMS = "code: Apache-2.0; bundled weights: for research, not commercial (LICENSE-WEIGHTS)"


def cache() -> Path:
    """The folder of what is fetched or computed once: sempic/ in $XDG_CACHE_HOME or ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not os.path.isabs(home):  # "~" stays where there is no home
        raise ModelError("there is no home to keep anything in; XDG_CACHE_HOME names a folder")
    return Path(home) / "sempic"


def find(name: str) -> Path:
    """Path of a bundled ONNX model; the judge may also be in `cache()`.

    Raises:
        ModelError: this installation lacks it.
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
