"""The bundled weights; a model card stands beside each."""

from __future__ import annotations

from pathlib import Path

from sempic.errors import ModelError

SEGMENTER = "segmenter"
RECEIVER = "receiver"
JUDGE = "judge"
"""A segmenter for measuring only (`sempic.evaluation`); nothing else may use it."""

TERMS = "code: Apache-2.0; bundled weights: for research, not commercial (LICENSE-WEIGHTS)"


def find(name: str) -> Path:
    """Path of a bundled ONNX model.

    Raises:
        ModelError: this installation lacks it.
    """
    path = Path(__file__).with_name(f"{name}.onnx")
    if not path.is_file():
        raise ModelError(f"{path}: the bundled {name} is missing, reinstall sempic")
    return path
