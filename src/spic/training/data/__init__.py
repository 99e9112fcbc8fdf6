"""Datasets of the paper's experiments: files found (`readers`), scenes loaded (`scenes`)."""

from spic.training.data.readers import READERS, Entry, Source, open_source
from spic.training.data.scenes import SceneFolder, TrainingScene

__all__ = ["READERS", "Entry", "SceneFolder", "Source", "TrainingScene", "open_source"]
