"""Clips coded as sequences, as single pictures and by video codecs, and measured."""

from sempic.evaluation.clips.clip import Clip, find, read
from sempic.evaluation.clips.measuring import NAMES, Found, Plan, measure

__all__ = ["NAMES", "Clip", "Found", "Plan", "find", "measure", "read"]
