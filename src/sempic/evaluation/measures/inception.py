"""FID and KID of whole pictures, and FID of their patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sempic.evaluation import metrics
from sempic.evaluation.measures.base import Figure, Metric, Record, Reference, Row
from sempic.scene import Image

if TYPE_CHECKING:
    from sempic.evaluation.measure import Settings

PATCH = 64
"""Side of the patches of the patch FID, in pixels."""
FEW = 2000
"""With fewer pictures, reports warn that FID is biased upwards."""


def sample_count(count: int) -> str:
    """The text beside an FID: its number of pictures, and a warning if they are few."""
    if count >= FEW:
        return f"(N = {count})"
    return f"(N = {count}: fewer than {FEW}, biased upwards; compare at equal N only)"


class Fid(Metric):
    """Record: float32 (2048,)."""

    name = "fid"
    of_sets = "pictures"
    inception = True
    figures = (
        Figure("fid", "FID", "{:.1f}", lower=True, biased_by="pictures"),
        Figure("kid", "KID", "{:.4f}", lower=True, brief=False),
    )

    def load(self, settings: Settings) -> Any:
        from sempic.evaluation import networks

        return networks.Inception(settings.inception)

    def measure(self, reference: Reference, shown: Reference) -> Record:
        return {self.name: shown.features(self.name)}

    def add_up(self, records: Sequence[Record], originals: Sequence[Record]) -> Row:
        if len(records) < 2 or not originals:
            return {}
        a, b = (np.stack([r[self.name] for r in rs]).astype(float) for rs in (originals, records))
        return {"fid": metrics.frechet(a, b), "kid": metrics.kernel_distance(a, b)}


class PatchFid(Metric):
    """FID of `patches`. Record: float16 (N, 2048). Row: also the number of "patches"."""

    name = "patch_fid"
    of_sets = f"windows of {PATCH}×{PATCH} pixels"
    inception = True
    costly = True
    figures = (Figure("patch_fid", "patch FID", "{:.1f}", lower=True, biased_by="patches"),)

    def measure(self, reference: Reference, shown: Reference) -> Record:
        found = shown.measure.network(Fid.name).features_of(patches(shown.picture))
        return {self.name: np.array(found, np.float16)}

    def add_up(self, records: Sequence[Record], originals: Sequence[Record]) -> Row:
        groups = [[r[self.name] for r in rs if len(r[self.name])] for rs in (originals, records)]
        count = sum(map(len, groups[1]))
        if count < 2 or not groups[0]:
            return {}
        a, b = (np.concatenate(group).astype(float) for group in groups)
        return {"patch_fid": metrics.frechet(a, b), "patches": count}


def patches(picture: Image) -> list[Image]:
    """PATCH×PATCH pieces: a grid from the upper left, and one shifted by half a patch.

    After Mentzer et al. 2020 (HiFiC), who take 256 pixels. Smaller pictures have no patches.
    """
    height, width = picture.shape[:2]
    return [
        np.ascontiguousarray(picture[y : y + PATCH, x : x + PATCH])
        for start in (0, PATCH // 2)
        for y in range(start, height - PATCH + 1, PATCH)
        for x in range(start, width - PATCH + 1, PATCH)
    ]
