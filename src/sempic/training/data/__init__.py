"""Datasets of the paper's experiments: files found (`readers`), scenes loaded (`scenes`)."""

from sempic.training.data.readers import READERS, Entry, Source, open_source
from sempic.training.data.scenes import SceneFolder, TrainingScene

__all__ = ["READERS", "Entry", "SceneFolder", "Source", "TrainingScene", "open_source"]
