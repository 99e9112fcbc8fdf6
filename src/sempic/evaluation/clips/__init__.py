"""Clips coded as sequences, as single pictures and by video codecs, and measured."""

from sempic.evaluation.clips.clip import Clip, find, read
from sempic.evaluation.clips.measuring import NAMES, Options, Plan, Way, measure

__all__ = ["NAMES", "Clip", "Options", "Plan", "Way", "find", "measure", "read"]
