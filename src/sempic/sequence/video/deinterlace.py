"""Interlaced frames → progressive ones, by FFmpeg's filter bwdif."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

from av.filter import Graph


def deinterlaced(frames: Iterable[Any]) -> Iterator[Any]:
    """The same frames, progressive. Interlaced frames come one frame later, because the filter
    needs the next one."""
    for _, alike in itertools.groupby(frames, lambda f: (f.width, f.height, f.format.name)):
        graph = None
        for frame in alike:
            if graph is None and frame.interlaced_frame:
                graph = _graph(frame)
            if graph is None:
                yield frame
            else:
                yield from _filtered(graph, frame)
        if graph is not None:
            yield from _filtered(graph, None)


def _graph(frame: Any) -> Any:
    """A filter graph for frames of the size and pixel format of this one."""
    graph = Graph()
    buffer = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format,
        time_base=frame.time_base or Fraction(1, 1000),
    )
    bwdif = graph.add("bwdif", "mode=send_frame:deint=interlaced")
    graph.link_nodes(buffer, bwdif, graph.add("buffersink")).configure()
    return graph


def _filtered(graph: Any, frame: Any) -> Iterator[Any]:
    """The frames that a graph returns after this one; None flushes the graph."""
    from av.error import BlockingIOError, EOFError

    graph.push(frame)
    with contextlib.suppress(BlockingIOError, EOFError):
        while True:
            yield graph.pull()
