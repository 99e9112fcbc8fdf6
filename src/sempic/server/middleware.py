"""Middleware of every request: id, limits, log, metrics."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import re
import secrets
import time
from collections.abc import Mapping

import prometheus_client as prometheus
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sempic.server.pool import Pool
from sempic.server.settings import Settings

log = logging.getLogger("sempic.server")


class Metrics:
    """The metrics of one application, in a registry of its own: a process may hold several."""

    def __init__(self, pool: Pool) -> None:
        self.registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self.registry)
        seconds = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
        self.requests = prometheus.Counter(
            "sempic_requests",
            "Requests answered",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self.latency = prometheus.Histogram(
            "sempic_request_seconds",
            "Seconds from the first byte in to the last byte out",
            ("route",),
            buckets=seconds,
            registry=self.registry,
        )
        self.work = prometheus.Histogram(
            "sempic_work_seconds",
            "Seconds in a worker",
            ("verb",),
            buckets=seconds,
            registry=self.registry,
        )
        for name, text, attribute in (
            ("sempic_jobs_accepted", "Jobs that wait or run", "accepted"),
            ("sempic_jobs_running", "Jobs that run", "running"),
            ("sempic_workers_replaced", "Workers ended since the start", "replaced"),
        ):
            gauge = prometheus.Gauge(name, text, registry=self.registry)
            gauge.set_function(functools.partial(getattr, pool, attribute))


METHODS = "GET", "HEAD", "POST"
"""Methods that metrics name; a client may send any word as a method."""
_FULL = "the queue is full: larger bodies wait than fit into memory"
SHOWN = 200
"""Most characters of a method and of a path in the log; a client may send 64 kB."""
LINGER = 5.0
"""Most seconds in which the rest of a body is dropped after an early answer. A connection that is
closed while its client sends is reset, and a reset can cost the client the answer."""


class RequestMiddleware:
    """ASGI middleware that gives each request an id, limits its body, logs and counts it."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, settings: Settings) -> None:
        self._app, self._metrics = app, metrics
        self._max_bytes, self._seconds = settings.max_bytes, settings.seconds
        self._free = settings.max_bytes * (settings.workers + settings.queue)  # bytes of bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        start = time.perf_counter()
        headers = dict(scope["headers"])
        given = re.fullmatch(rb"[\w.-]{1,64}", headers.get(b"x-request-id", b""))
        request_id = given[0].decode() if given else secrets.token_hex(8)
        scope.setdefault("state", {})["id"] = request_id
        method = scope["method"]
        if method == "HEAD":  # as GET; `marked_send` drops the body
            scope = {**scope, "method": "GET"}
        status, size_in, size_out = 500, 0, 0
        empty = headers.get(b"content-length", b"0") == b"0"
        complete = empty and b"transfer-encoding" not in headers
        unwanted = self._unwanted(headers)

        async def bounded_receive() -> Message:
            nonlocal size_in, complete
            if complete:  # only a disconnect can follow
                return await receive()
            if unwanted is not None:
                raise unwanted
            left = self._seconds - (time.perf_counter() - start)
            try:
                message = await asyncio.wait_for(receive(), max(0.0, left))
            except asyncio.TimeoutError:
                late = f"the body did not arrive within {self._seconds:g} s"
                raise HTTPException(408, late) from None
            if message["type"] == "http.disconnect":  # the answer is for the log
                raise HTTPException(499, "the client hung up in the middle of the body")
            complete = not message.get("more_body", False)
            size_in += (size := len(message.get("body", b"")))
            self._free -= size
            if size_in > self._max_bytes:
                raise self._too_long()
            if self._free < 0:
                raise HTTPException(429, _FULL, {"Retry-After": "1"})
            return message

        async def marked_send(message: Message) -> None:
            nonlocal status, size_out
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    *([] if complete else [(b"connection", b"close")]),
                ]
            else:
                body = b"" if method == "HEAD" else message.get("body", b"")
                size_out += len(body)
                more = message.get("more_body", False) or not complete  # the end is sent below
                message = {**message, "body": body, "more_body": more}
            await send(message)

        try:
            await self._app(scope, bounded_receive, marked_send)
        finally:
            self._free += size_in
            seconds = time.perf_counter() - start
            route = getattr(scope.get("route"), "path", "none")
            named = method if method in METHODS else "other"
            self._metrics.requests.labels(route, named, status).inc()
            self._metrics.latency.labels(route).observe(seconds)
            fields = {
                "id": request_id,
                "method": method[:SHOWN],
                "path": scope["path"][:SHOWN],
                "status": status,
                "seconds": round(seconds, 4),
                "bytes_in": size_in,
                "bytes_out": size_out,
                "client": (scope.get("client") or ("",))[0],
            }
            log.info("request", extra={"fields": fields})
        if not complete:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(_drop_body(receive), LINGER)
            await send({"type": "http.response.body", "body": b""})

    def _unwanted(self, headers: Mapping[bytes, bytes]) -> HTTPException | None:
        """The answer to a body that these headers announce, if it is refused."""
        coding = headers.get(b"content-encoding", b"identity").decode("latin-1")
        if coding != "identity":
            return HTTPException(415, f"bodies are taken as they are, not in {coding[:SHOWN]}")
        length = headers.get(b"content-length", b"")
        is_long = length.isdigit() and int(length) > self._max_bytes
        return self._too_long() if is_long else None

    def _too_long(self) -> HTTPException:
        return HTTPException(413, f"a body of more than the limit of {self._max_bytes} bytes")


async def _drop_body(receive: Receive) -> None:
    """Receive the rest of a body, up to its end or that of the connection."""
    while (await receive()).get("more_body", False):
        pass
