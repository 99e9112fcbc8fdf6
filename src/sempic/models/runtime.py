"""The one place that starts ONNX Runtime."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sempic.errors import ModelError


def load(path: Path) -> tuple[Any, dict[str, Any]]:
    """An inference session of an ONNX file, and what its metadata says under "sempic" (or {}).

    Raises:
        ModelError: no such file, not an ONNX model, or metadata that is not ours.
    """
    import onnxruntime as ort

    if not path.is_file():
        raise ModelError(f"{path}: no such model")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # pictures of many sizes would each keep one
    # Threads that spin after a run take the cores from what comes next: decoding is a third faster.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Several processes share a machine better if each says how many threads it takes.
    options.intra_op_num_threads = int(os.environ.get("SEMPIC_THREADS", "0"))  # 0: all cores
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        metadata = session.get_modelmeta().custom_metadata_map
        return session, json.loads(metadata.get("sempic", "{}"))
    except Exception as error:  # onnxruntime raises its own classes, which share no base
        cause = str(error).strip().splitlines()[0]
        raise ModelError(f"{path}: not a usable ONNX model ({cause})") from error


_LARGE = 1 << 19
"""Numbers in an input above which a run gives its memory back: three for each of 175 000 pixels."""


def run(session: Any, output: str, feed: dict[str, Any]) -> Any:
    """One output of a session of `load`.

    Tensors share an arena (without, each is mapped and unmapped: a fifth of the time), which is
    kept for the next picture, or goes back if this one is large.
    """
    import onnxruntime as ort

    options = ort.RunOptions()
    if max(array.size for array in feed.values()) > _LARGE:
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    (array,) = session.run([output], feed, options)
    return array
