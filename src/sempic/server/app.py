"""The HTTP application, and the process that serves it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import json
import logging
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

import sempic
from sempic import fields, processes
from sempic.errors import InputError, ModelError, OutputError, refused
from sempic.options import Models
from sempic.server import problems
from sempic.server.coder import Coder
from sempic.server.middleware import Metrics, RequestMiddleware
from sempic.server.pool import InternalError, Pool
from sempic.server.routes import router
from sempic.server.settings import Settings

log = logging.getLogger("sempic.server")

CONNECTIONS = 512
"""Most connections at once; more are rejected (503)."""
IDLE = CONNECTIONS // 2
"""Most connections without a request; those that have waited longest are closed."""
STALL = 10.0
"""Most seconds without a request's headers, or in which a client takes nothing of its answer."""


def create_app(settings: Settings | None = None, pool: Pool | None = None) -> FastAPI:
    """The ASGI application.

    Args:
        settings: limits and models.
        pool: workers, started and ended with the application; None: made from `settings`.
    """
    s = settings or Settings()
    workers = pool or make_pool(s)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await workers.start()
        app.state.controls = (await workers.run("controls")).value
        log.info("ready", extra={"fields": {"workers": s.workers, "queue": s.queue}})
        yield
        workers.kill()
        log.info("stopped")

    app = FastAPIOffline(  # with the files of /docs
        title="sempic",
        version=sempic.__version__,
        summary="A semantic image codec: pictures to .sempic files of about a kilobyte, and back.",
        description="An unknown path gets 404, another method 405; both answer a Problem, too.",
        lifespan=lifespan,
        servers=[{"url": "."}],  # a proxy may remove a path before all of these
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings, app.state.pool = s, workers
    metrics = app.state.metrics = Metrics(workers)
    app.add_middleware(RequestMiddleware, metrics=metrics, settings=s)
    problems.add_handlers(app)
    app.include_router(router)
    return app


def make_pool(s: Settings) -> Pool:
    make = functools.partial(
        Coder,
        Models(**{name: getattr(s, name) for name in fields.of(Models)}),
        max_pixels=s.max_pixels,
        threads=max(1, processes.cores() // s.workers),
    )
    return Pool(make, workers=s.workers, queue=s.queue, seconds=s.seconds)


class JsonLines(logging.Formatter):
    """One JSON object per line: time, level, message, and the items of `extra={"fields": …}`."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
        line = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def serve(settings: Settings, *, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve until a signal, then finish accepted jobs; a second SIGINT ends at once.

    Signals are SIGINT, SIGTERM and SIGHUP. The log goes to stderr as JSON lines.

    Raises InputError for a port out of range, OutputError if the address is not available, and
    ModelError if a model cannot be loaded.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"a port is 0…65535, not {port}")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # until the workers have started
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # A malformed host name is a ValueError.
    with refused(OutputError, f"cannot listen on {host}:{port}", OSError, ValueError):
        listener = socket.create_server((host, port), family=family, backlog=128)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        ws="none",
    )
    server = Server(config)
    address = f"[{host}]" if ":" in host else host
    server.url = f"http://{address}:{listener.getsockname()[1]}"
    # uvicorn raises the signal again at its end, when nothing is left to do.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    # A terminal that closes, of which uvicorn knows nothing; nohup ignores that.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, server.handle_exit)
    try:
        server.run([listener])
    except InternalError as fault:
        raise ModelError(str(fault)) from fault
    finally:
        app.state.pool.kill()


class Server(uvicorn.Server):
    """uvicorn with limits on connections that stand still, for which it has no setting."""

    url = ""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # Before the application starts, because uvicorn logs failures in there as tracebacks.
        app: Any = self.config.app
        await app.state.pool.start()
        logging.getLogger("uvicorn").setLevel(logging.INFO)
        await super().startup(sockets)
        log.info("serving", extra={"fields": {"url": self.url}})
        self._watch = asyncio.create_task(self._end_stalled())  # during the shutdown, too

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        app: Any = self.config.app
        app.state.pool.kill()  # a second SIGINT leaves out the end of the application

    async def _end_stalled(self) -> None:
        still: dict[tuple[Any, Any, int], float] = {}
        """Connections with their last request (None: none yet) and bytes unsent; since when."""
        while True:
            now, before, still = time.monotonic(), still, {}
            connection: Any  # of either of uvicorn's HTTP protocols
            for connection in self.server_state.connections:
                last, unsent = connection.cycle, connection.transport.get_write_buffer_size()
                if unsent or last is None or last.response_complete:
                    state = connection, last, unsent
                    still[state] = before.get(state, now)
            idle = sorted((s for s in still if not s[2]), key=lambda s: still[s])
            too_long = [s for s in still if now - still[s] > STALL]
            # From Python 3.12 on uvicorn, told twice to end, waits for connections nevertheless.
            ending = list(self.server_state.connections) if self.force_exit else []
            for connection in [state[0] for state in idle[:-IDLE] + too_long] + ending:
                connection.transport.abort()
            await asyncio.sleep(0.1)
