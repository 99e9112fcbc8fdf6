"""Times of frames: from timestamps, and from arrivals where there are no timestamps."""

from __future__ import annotations

MAX_BACKWARD, MAX_FORWARD = 1.0, 3600.0
"""Seconds by which a timestamp may be behind or ahead of the last one. Larger steps start another
clock: in files that were joined, or after a camera's clock was set."""
IDLE_SHARE = 0.05
"""A reader that waits for less than this share of the time is slower than the video."""


class Clock:
    """Timestamps → seconds since the first frame, never decreasing."""

    def __init__(self, period: float) -> None:
        """period: seconds from a frame to the next one, if that one has no timestamp or starts
        another clock."""
        self._period = period
        self.origin: float | None = None
        """Timestamp of second 0 by the present clock."""
        self._now: float | None = None
        self.jumps = 0
        """How often another clock started."""

    def read(self, timestamp: float | None) -> float:
        """timestamp: of the next frame in seconds, or None."""
        now = self._now
        expected = time = 0.0 if now is None else now + self._period
        if timestamp is not None:
            if self.origin is None:
                self.origin = timestamp - expected
            time = timestamp - self.origin
            if now is not None and not now - MAX_BACKWARD <= time <= now + MAX_FORWARD:
                self.jumps += 1
                self.origin, time = timestamp - expected, expected
        self._now = time if now is None else max(now, time)
        return self._now


class Arrivals:
    """Timestamps for pictures that have none, from the times at which they are read.

    A picture that the reader waits for arrives at the moment of its read. Others have waited in a
    buffer: they follow each other at the output rate. If the time of their reads counted, an
    encoder that is slower than its camera would repeat each picture longer than the one before.
    """

    def __init__(self, period: float) -> None:
        """period: seconds from one output frame to the next."""
        self._period = period
        self._dropped = 0.0
        """Seconds of delay that are left out of the timestamps for good."""
        self._last: tuple[float, float] | None = None
        """When the last picture was read, and its timestamp."""

    def read(self, asked: float, came: float) -> float:
        """The timestamp of a picture; asked, came: when its read started and ended, in seconds."""
        timestamp = came - self._dropped
        if self._last is not None:
            last_came, last_timestamp = self._last
            if came - asked < IDLE_SHARE * (came - last_came):
                timestamp = min(timestamp, last_timestamp + self._period)
        self._dropped = max(self._dropped, came - timestamp - MAX_BACKWARD)
        self._last = came, timestamp
        return timestamp
