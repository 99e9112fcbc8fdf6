"""Which names mean videos, cameras and streams."""

from __future__ import annotations

from pathlib import Path

from sempic.formats import VIDEOS

WRITTEN = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Suffixes of videos that are written, with PyAV's names of their formats."""
CAMERA = "/dev/video"
HTTP = ("http://", "https://")
_LIVE = (
    *HTTP, "rtsp://", "rtsps://", "rtmp://", "rtmps://", "udp://", "tcp://", "srt://", CAMERA,
)  # fmt: skip


def is_video(name: str) -> bool:
    """Whether a name is that of a video file, a camera or a stream."""
    return is_live(name) or Path(name).suffix.lower() in VIDEOS


def is_live(name: str) -> bool:
    """Whether a name is that of a camera or a stream."""
    return name.startswith(_LIVE)


def ffmpeg_name(path: str) -> str:
    """The path of a local file for FFmpeg, which reads a protocol before a colon."""
    return f"file:{path}"
