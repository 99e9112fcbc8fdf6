"""The one place that starts ONNX Runtime."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from spic.errors import ModelError


def load(path: Path) -> tuple[Any, dict[str, Any]]:
    """An inference session of an ONNX file, and what its metadata says under "spic" (or {}).

    Raises:
        ModelError: no such file, not an ONNX model, or metadata that is not ours.
    """
    import onnxruntime as ort

    if not path.is_file():
        raise ModelError(f"{path}: no such model")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Without an arena, pictures of many sizes do not each keep their memory.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    # Several processes share a machine better if each says how many threads it takes.
    options.intra_op_num_threads = int(os.environ.get("SPIC_THREADS", "0"))  # 0: all cores
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        metadata = session.get_modelmeta().custom_metadata_map
        return session, json.loads(metadata.get("spic", "{}"))
    except Exception as error:  # onnxruntime raises its own classes, which share no base
        cause = str(error).strip().splitlines()[0]
        raise ModelError(f"{path}: not a usable ONNX model ({cause})") from error
