"""Clips coded as sequences, as single pictures and by video codecs, and measured."""

from sempic.evaluation.clips.clip import Clip, find, read
from sempic.evaluation.clips.measuring import NAMES, Found, Options, Plan, measure

__all__ = ["NAMES", "Clip", "Found", "Options", "Plan", "find", "measure", "read"]
