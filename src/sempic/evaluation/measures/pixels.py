"""PSNR and MS-SSIM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sempic.evaluation import metrics
from sempic.evaluation.measures.base import Figure, Mean, Record

if TYPE_CHECKING:
    from sempic.evaluation.measure import Measure, Reference


class Psnr(Mean):
    """`metrics.psnr`."""

    def __init__(self) -> None:
        super().__init__(Figure(name="psnr", title="PSNR, dB", digits="{:.2f}"))

    def measure(self, measure: Measure, reference: Reference, shown: Reference) -> Record:
        return {self.name: metrics.psnr(reference.picture, shown.picture)}


class MsSsim(Mean):
    """`metrics.ms_ssim`; absent where one of the pictures is too small."""

    def __init__(self) -> None:
        super().__init__(Figure(name="ms_ssim", title="MS-SSIM", digits="{:.4f}"))

    def measure(self, measure: Measure, reference: Reference, shown: Reference) -> Record:
        found = metrics.ms_ssim(reference.picture, shown.picture)
        return {self.name: float("nan") if found is None else found}
