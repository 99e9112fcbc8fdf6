"""The HTTP application around the workers, and running it; `sempic.server` lists its endpoints."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import datetime
import functools
import hashlib
import json
import logging
import os
import re
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib import resources
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import prometheus_client as prometheus
import uvicorn
from fastapi import APIRouter, FastAPI, File, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, ConfigDict, Field, Json, create_model
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import sempic
from sempic import api, fields, sequence
from sempic.container import SEQUENCE_MAGIC
from sempic.errors import InputError, LimitExceeded, ModelError, OutputError, SempicError
from sempic.options import DecodeOptions, EncodeOptions
from sempic.palette import PALETTES
from sempic.sequence import SequenceOptions
from sempic.server import work
from sempic.server.settings import Settings
from sempic.server.work import Broken, Busy, Done, Gone, Pool, QueueFull, TooSlow

log = logging.getLogger("sempic.server")

SEMPIC = "image/x-sempic"
SCENES = {
    "street.jpg": "A street in Kathmandu (Shah et al., CC BY 4.0)",
    "street.sempic": "The same, coded before",
}
"""What the page offers, by file name in `scenes/`; it opens with the first."""
CONNECTIONS = 512
"""More connections than this at once are turned away (503)."""


# ── what clients may ask for; the page builds its controls from these ────────────────────────


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)  # a typo is told, not ignored


_NARROWER: dict[str, dict[str, Any]] = {
    "steps": {"le": 32},
    "seed": {"le": 2**32 - 1},
    "guidance": {"le": 2},  # what lies beyond makes noise
    "target_bpp": {"le": 1000},
    "target_bytes": {"le": 2**32 - 1},
    "max_side": {"le": 65535},
}
"""Limits of this server beyond those of the options themselves."""


def _parameters(kind: Any) -> dict[str, Any]:
    """The fields of an options dataclass as those of a pydantic model."""
    kinds = fields.hints(kind)
    return {name: _parameter(name, kinds[name], part) for name, part in fields.of(kind).items()}


def _parameter(name: str, kind: Any, part: dataclasses.Field[Any]) -> tuple[Any, Any]:
    told = fields.about(part)
    bounds = {"ge": told.low, "le": told.high, "gt": told.above} | _NARROWER.get(name, {})
    bounds = {rule: bound for rule, bound in bounds.items() if bound is not None}
    hint: Any
    if name == "palette":  # by name alone: no path of a client is opened
        hint = Literal[tuple(p.name for p in PALETTES.values())]
    elif name == "critical":  # the table itself, for the same reason
        hint = Json[dict[str, Any]]
    elif get_origin(kind) is Mapping or fields.repeats(kind, told):
        hint = list[str]
    elif told.choices is not None:
        hint = Literal[tuple(told.choices)]
    else:
        parts = get_args(kind) if get_origin(kind) is Union else (kind,)
        numbers = tuple(Annotated[k, Field(**bounds)] if k in (int, float) else k for k in parts)
        hint = Union[numbers]  # noqa: UP007 - of one it is that one
    default = part.default if told.usual is None else told.usual
    described = told.help[0].upper() + told.help[1:] + "."
    title = name.replace("_", " ").capitalize()
    return (
        hint if default is not None else hint | None,
        Field(default, title=title, description=described),
    )


Synthesis: Any = create_model("Synthesis", __base__=_Options, **_parameters(DecodeOptions))
"""Options for `Codec.synthesize`; the page has a slider for each that the receiver heeds."""


class _Part(_Options):
    only: Literal["labels", "ids", "coarse"] | None = Field(
        None,
        description="Just a part: the label map in its colours, its ids as an 8-bit grey PNG, or "
        "the coarse picture enlarged.",
    )
    format: Literal["png", "webp", "jpeg"] = "png"


Decoding: Any = create_model("Decoding", __base__=_Part, **_parameters(DecodeOptions))
"""Options of /decode."""

Encoding: Any = create_model("Encoding", __base__=_Options, **_parameters(EncodeOptions))
"""Options of /encode."""


def _given(query: BaseModel, kind: Any) -> dict[str, Any]:
    """What a query gives of the fields of an options dataclass, as that has them."""
    kinds = fields.hints(kind)
    found = query.model_dump(include=set(kinds), exclude_unset=True)
    return {name: fields.read(kinds[name], value) for name, value in found.items()}


class _Clip(_Options):
    fps: float = Field(10, ge=0.1, le=60, description="Frames in a second.")
    seconds: float = Field(10, gt=0, le=60, description="Of the clip, from its start on.")
    max_side: int | None = Field(None, ge=1, le=65535, description="As of /encode.")


Filming: Any = create_model("Filming", __base__=_Clip, **_parameters(SequenceOptions))
"""Options of /film."""


class Comparison(_Options):
    """Options of /compare."""

    max_side: int | None = Field(None, ge=1, le=65535, description="As of /encode.")
    codec: Literal["avif", "jpeg"] = "avif"
    bytes: int = Field(ge=1, le=1 << 25, description="The file is at most as long as this.")


class Problem(BaseModel):
    """What every answer from 400 on holds."""

    error: str
    """Class of the error, of `sempic.errors` where it is one of ours."""
    message: str
    request: str
    """Id of the request, as in the log and in X-Request-ID."""


_MEANINGS = {
    400: "Not a request that HTTP or multipart allows.",
    408: "The body did not arrive in time.",
    413: "More bytes or pixels than this server takes.",
    422: "Not a picture, a stream or an option that can be used; the message says why.",
    429: "The queue is full; Retry-After says when to come back.",
    500: "An internal error; the log knows more.",
    503: "No worker was free in time; Retry-After says when to come back.",
    504: "Stopped at the time limit.",
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text} for status, text in _MEANINGS.items()
}


def _body(*kinds: str) -> dict[str, Any]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"required": True, "content": dict.fromkeys(kinds, binary)}}


def _answers(*kinds: str) -> dict[int | str, dict[str, Any]]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {200: {"content": dict.fromkeys(kinds, binary)}, **_PROBLEMS}


# ── the application ──────────────────────────────────────────────────────────────────────────


def create_app(settings: Settings | None = None, pool: Pool | None = None) -> FastAPI:
    """The ASGI application.

    Args:
        settings: its limits and models.
        pool: of workers, started and ended with the application; made from `settings` if None.
    """
    s = settings or Settings()
    jobs = pool or _pool(s)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await jobs.start()  # if it has not been started
        app.state.controls = (await jobs.run("controls")).value
        log.info("ready", extra={"fields": {"workers": s.workers, "queue": s.queue}})
        yield
        jobs.kill()
        log.info("stopped")

    app = FastAPIOffline(  # its /docs has no script from elsewhere
        title="sempic",
        version=sempic.__version__,
        summary="A semantic image codec: pictures to .sempic files of about a kilobyte, and back.",
        lifespan=lifespan,
        redoc_url=None,
    )
    app.state.settings, app.state.jobs = s, jobs
    metrics = app.state.metrics = _Metrics(jobs)
    app.add_middleware(_Door, metrics=metrics, max_bytes=s.max_bytes, seconds=s.seconds)
    _add_error_handlers(app)
    app.include_router(router)
    return app


# ── the endpoints ────────────────────────────────────────────────────────────────────────────


router = APIRouter()


async def _run(request: Request, verb: str, *args: Any, **kwargs: Any) -> Done:
    state = request.app.state
    done: Done = await state.jobs.run(verb, *args, gone=request.is_disconnected, **kwargs)
    state.metrics.work.labels(verb).observe(done.worked)
    return done


@router.get("/", include_in_schema=False)
async def page() -> HTMLResponse:
    html, policy = _page()
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-cache"}
    return HTMLResponse(html, headers=headers)


@router.get("/scenes/{name}", include_in_schema=False)
async def scene(name: str) -> Response:
    if name not in SCENES:
        raise HTTPException(404, f"there is no scene {name!r}")
    media_type = SEMPIC if name.endswith(".sempic") else "image/jpeg"
    return Response(_resource("scenes", name), media_type=media_type)


@router.get("/healthz", summary="Whether the server serves")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def read_metrics(request: Request) -> Response:
    body = prometheus.generate_latest(request.app.state.metrics.registry)
    return Response(body, media_type=prometheus.CONTENT_TYPE_LATEST)


@router.get("/info", summary="What this server takes and offers")
async def about(request: Request) -> dict[str, Any]:
    s, heeded = request.app.state.settings, request.app.state.controls
    controls = Synthesis.model_json_schema()["properties"]
    return {
        "version": sempic.__version__,
        "limits": {
            "bytes": s.max_bytes,
            "pixels": s.max_pixels,
            "pixels_before_max_side": s.max_pixels * work.SHRINK,
            "seconds": s.seconds,
            "queue": s.queue,
        },
        "encode": {"quality": Encoding.model_json_schema()["properties"]["quality"]},
        "decode": {name: controls[name] for name in controls if name in heeded},
        "palettes": {
            p.name: {"classes": p.classes, "colours": p.colours} for p in PALETTES.values()
        },
        "scenes": SCENES,
    }


@router.post(
    "/info",
    summary="What a .sempic holds and what each part costs",
    openapi_extra=_body(SEMPIC, "application/octet-stream"),
    responses=_PROBLEMS,
)
async def info(request: Request) -> dict[str, Any]:
    data = await request.body()
    # Neither decodes a payload, so it needs no worker.
    return (sequence.info if data.startswith(SEQUENCE_MAGIC) else api.info)(data)


@router.post(
    "/encode",
    summary="A picture → .sempic",
    openapi_extra=_body("image/*", "application/octet-stream"),
    responses=_answers(SEMPIC),
    response_class=Response,
)
async def encode(request: Request, options: Annotated[Encoding, Query()]) -> Response:
    chosen = _given(options, EncodeOptions)
    done = await _run(request, "encode", await request.body(), **chosen)
    response = _answer(done, *done.value, kind=SEMPIC)
    if options.check:
        response.headers["X-Receipt"] = json.dumps(api.info(done.value[0])["receipt"])
    return response


@router.post(
    "/film",
    summary="A clip → a .sempic sequence",
    openapi_extra=_body("video/*", "application/octet-stream"),
    responses=_answers(SEMPIC),
    response_class=Response,
)
async def film(request: Request, options: Annotated[Filming, Query()]) -> Response:
    chosen = _given(options, SequenceOptions)
    how = {"fps": options.fps, "seconds": options.seconds, "max_side": options.max_side}
    done = await _run(request, "film", await request.body(), **how, **chosen)
    return _answer(done, *done.value, kind=SEMPIC)


@router.post(
    "/decode",
    summary="A .sempic → picture; a sequence → one that plays, png or webp",
    openapi_extra=_body(SEMPIC, "application/octet-stream"),
    responses=_answers("image/png", "image/webp", "image/jpeg"),
    response_class=Response,
)
async def decode(request: Request, options: Annotated[Decoding, Query()]) -> Response:
    format = "png" if options.only == "ids" else options.format
    chosen = _given(options, DecodeOptions)
    for name in chosen.keys() - set(request.app.state.controls):
        raise InputError(f"this server's receiver has no {name}")
    done = await _run(
        request,
        "decode",
        await request.body(),
        only=options.only,
        format=format,
        synthesis=chosen,
    )
    return _answer(done, *done.value, kind=f"image/{format}")


@router.post(
    "/relabel",
    summary="A .sempic with another label map",
    responses=_answers(SEMPIC),
    response_class=Response,
)
async def relabel(
    request: Request,
    sempic: Annotated[bytes, File(description="The stream.")],
    labels: Annotated[
        bytes, File(description="The new map: an 8-bit grey or palette picture of ids.")
    ],
) -> Response:
    done = await _run(request, "relabel", sempic, labels)
    return _answer(done, done.value, kind=SEMPIC)


@router.post(
    "/compare",
    summary="What AVIF or JPEG make of a picture in as many bytes",
    openapi_extra=_body("image/*", "application/octet-stream"),
    responses=_answers("image/avif", "image/jpeg"),
    response_class=Response,
)
async def compare(request: Request, options: Annotated[Comparison, Query()]) -> Response:
    done = await _run(
        request,
        "compare",
        await request.body(),
        codec=options.codec,
        budget=options.bytes,
        max_side=options.max_side,
    )
    data, factor = done.value
    response = _answer(done, data, kind=f"image/{options.codec}")
    response.headers["X-Scaled-Down"] = str(factor)
    return response


def _pool(s: Settings) -> Pool:
    make = functools.partial(
        work.Coder,
        segmenter=s.segmenter,
        receiver=s.receiver,
        verifier=s.verifier,
        max_pixels=s.max_pixels,
        threads=max(1, (os.cpu_count() or 1) // s.workers),
    )
    return Pool(make, workers=s.workers, queue=s.queue, seconds=s.seconds)


def _answer(done: Done, body: bytes, notes: Sequence[str] = (), *, kind: str) -> Response:
    timing = f"queue;dur={1000 * done.waited:.1f}, work;dur={1000 * done.worked:.1f}"
    headers = {"Server-Timing": timing} | ({"X-Notes": "; ".join(notes)} if notes else {})
    return Response(body, media_type=kind, headers=headers)


@functools.cache
def _resource(*path: str) -> bytes:
    return resources.files("sempic.server").joinpath(*path).read_bytes()


@functools.cache
def _page() -> tuple[str, str]:
    """The page, and the policy that lets it run what it holds and nothing else."""
    html = _resource("page.html").decode()

    def hashes(tag: str) -> str:
        parts = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digests = (hashlib.sha256(part.encode()).digest() for part in parts)
        return " ".join(f"'sha256-{base64.b64encode(d).decode()}'" for d in digests)

    return html, (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; "
        "img-src 'self' blob: data:; media-src blob:; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )


# ── errors ───────────────────────────────────────────────────────────────────────────────────

_STATUS: dict[type[Exception], int] = {
    LimitExceeded: 413,
    SempicError: 422,
    QueueFull: 429,
    Gone: 499,  # nobody is left to read it, but the log is
    Broken: 500,
    Busy: 503,
    TooSlow: 504,
}


def _problem(
    request: Request, status: int, error: str, message: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    problem = Problem(error=error, message=message, request=request.state.id)
    return JSONResponse(problem.model_dump(), status, headers)


def _add_error_handlers(app: FastAPI) -> None:
    async def ours(request: Request, error: Exception) -> JSONResponse:
        status = next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
        headers = {"Retry-After": str(error.retry_after)} if isinstance(error, Busy) else None
        return _problem(request, status, type(error).__name__, str(error), headers)

    for kind in _STATUS:
        app.add_exception_handler(kind, ours)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        faults = (f"{e['loc'][-1]}: {e['msg']}" for e in error.errors())
        return _problem(request, 422, "InputError", "; ".join(faults))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers or {})
        name = "LimitExceeded" if error.status_code == 413 else "HTTPError"
        return _problem(request, error.status_code, name, str(error.detail), headers)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        return _problem(request, 500, "InternalError", "an internal error")


# ── what every request passes: id, limits, log, metrics ──────────────────────────────────────


class _Metrics:
    """What /metrics shows, in a registry of its own so that one process can hold several apps."""

    def __init__(self, jobs: Pool) -> None:
        self.registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self.registry)
        seconds = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
        self.requests = prometheus.Counter(
            "sempic_requests", "Answered", ("route", "method", "status"), registry=self.registry
        )
        self.latency = prometheus.Histogram(
            "sempic_request_seconds",
            "From first byte in to last byte out",
            ("route",),
            buckets=seconds,
            registry=self.registry,
        )
        self.work = prometheus.Histogram(
            "sempic_work_seconds", "In a worker", ("verb",), buckets=seconds, registry=self.registry
        )
        for name, text, attribute in (
            ("sempic_jobs_accepted", "Jobs that wait or run", "accepted"),
            ("sempic_jobs_running", "Jobs that run", "running"),
            ("sempic_workers_replaced", "Workers ended since the start", "replaced"),
        ):
            gauge = prometheus.Gauge(name, text, registry=self.registry)
            gauge.set_function(functools.partial(getattr, jobs, attribute))


class _Door:
    """ASGI middleware: gives each request an id, bounds its body, logs and counts it."""

    def __init__(self, app: ASGIApp, *, metrics: _Metrics, max_bytes: int, seconds: float) -> None:
        self._app, self._metrics = app, metrics
        self._max_bytes, self._seconds = max_bytes, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        start = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if re.fullmatch(r"[\w.-]{1,64}", given, re.ASCII) else _new_id()
        scope.setdefault("state", {})["id"] = request_id
        method = scope["method"]
        if method == "HEAD":  # as GET, and the body is left out
            scope = {**scope, "method": "GET"}
        status, size_in, size_out = 500, 0, 0
        whole = False
        announced = headers.get(b"content-length", b"0")

        async def bounded_receive() -> Message:
            nonlocal size_in, whole
            if whole:  # nothing more comes but a disconnect
                return await receive()
            left = self._seconds - (time.perf_counter() - start)
            try:
                if announced.isdigit() and int(announced) > self._max_bytes:
                    raise OverflowError
                message = await asyncio.wait_for(receive(), max(0.0, left))
                size_in += len(message.get("body", b""))
                if size_in > self._max_bytes:
                    raise OverflowError
            except OverflowError:
                text = f"a body of more than the limit of {self._max_bytes} bytes"
                raise HTTPException(413, text, {"Connection": "close"}) from None
            except asyncio.TimeoutError:
                text = f"the body did not arrive within {self._seconds:g} s"
                raise HTTPException(408, text, {"Connection": "close"}) from None
            whole = not message.get("more_body", False)
            return message

        async def marked_send(message: Message) -> None:
            nonlocal status, size_out
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            elif method == "HEAD":
                message = {**message, "body": b""}
            size_out += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, bounded_receive, marked_send)
        finally:
            seconds = time.perf_counter() - start
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.requests.labels(route, method, status).inc()
            self._metrics.latency.labels(route).observe(seconds)
            fields = {
                "id": request_id,
                "method": method,
                "path": scope["path"],
                "status": status,
                "seconds": round(seconds, 4),
                "bytes_in": size_in,
                "bytes_out": size_out,
                "client": (scope.get("client") or ("",))[0],
            }
            log.info("request", extra={"fields": fields})


def _new_id() -> str:
    return secrets.token_hex(8)


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, message, and what `extra={"fields": …}` gave."""

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


# ── running it ───────────────────────────────────────────────────────────────────────────────


def serve(settings: Settings, *, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serves until SIGINT or SIGTERM; accepted work is finished first. A second signal ends it.

    The log goes to stderr, one JSON object a line.

    Raises InputError for a port that does not exist, OutputError if the address cannot be had,
    ModelError if a model cannot be loaded.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"a port is 0…65535, not {port}")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # until it is known that it can start
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=128)
    except (OSError, ValueError) as cause:  # a name that is none of a machine is a ValueError
        reason = getattr(cause, "strerror", None) or cause
        raise OutputError(f"cannot listen on {host}:{port}: {reason}") from cause
    pool = _pool(settings)
    config = uvicorn.Config(
        create_app(settings, pool),
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
    )
    server = _Server(config, pool)
    address = f"[{host}]" if ":" in host else host
    server.url = f"http://{address}:{listener.getsockname()[1]}"
    # uvicorn raises the signal again when it is done; by then there is nothing left to do.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    try:
        server.run([listener])
    except Broken as fault:
        raise ModelError(str(fault)) from fault
    finally:
        pool.kill()


class _Server(uvicorn.Server):
    url = ""

    def __init__(self, config: uvicorn.Config, pool: Pool) -> None:
        super().__init__(config)
        self._pool = pool

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # Before the application starts: of what fails within that, uvicorn logs a traceback.
        await self._pool.start()
        logging.getLogger("uvicorn").setLevel(logging.INFO)
        await super().startup(sockets)
        log.info("serving", extra={"fields": {"url": self.url}})
