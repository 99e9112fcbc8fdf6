"""Custom priors for any classes: networks of a bundled prior, with tables trained on one map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sempic.labels import primed, range_coder, trunk
from sempic.labels.payload import WEIGHTS
from sempic.labels.primed import state
from sempic.labels.prior import parsed
from sempic.palette import Palette
from sempic.scene import Coarse, LabelMap

PLANES = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)
COARSE = Coarse(y=PLANES, cb=PLANES[::-1], cr=PLANES[:, ::-1])


def arrays_for(palette: Palette, labels: LabelMap) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a prior file. The classes repeat those of CamVid; the tables are trained on
    `labels`, without and with COARSE."""
    n = len(palette.classes)
    with np.load(WEIGHTS[3]) as file:
        arrays = {k: v for k, v in file.items() if not k.startswith("primed.")}
    known = int(arrays["classes"])
    pick = np.arange(n) % known
    arrays |= {"classes": np.array(n), "palette": np.array(palette.full_name)}
    arrays["causal.template"] = arrays["causal.template"][:, [*pick, known]]
    arrays["causal.last"] = arrays["causal.last"][:, pick]
    arrays["causal.last_bias"] = arrays["causal.last_bias"][pick]
    for part in ("weight", "multiplier", "bias"):
        old = arrays[f"readout.{part}"]
        cells = old.reshape(16, known, *old.shape[1:])[:, pick]
        arrays[f"readout.{part}"] = cells.reshape(16 * n, *old.shape[1:])
    networks = parsed(arrays, "")
    allowed = np.bincount(labels.ravel(), minlength=n).clip(0, 1)
    states = [state.unprimed(n), state.unprimed(n)]
    for learnt, grid in zip(states, (None, trunk.grid(COARSE, *labels.shape)), strict=True):
        for _ in range(6):
            coder = range_coder.encoder(0)
            primed.code(coder, labels.astype(np.int64), allowed, networks, learnt, grid)
    return arrays | {f"primed.{k}": v for k, v in state.tables_of(*states).items()}


def write_prior(path: Path, palette: Palette, labels: LabelMap) -> Path:
    np.savez(path, **arrays_for(palette, labels))  # type: ignore[arg-type]
    return path
