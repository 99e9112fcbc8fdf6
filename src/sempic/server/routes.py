"""The endpoints (docs/guides/serve.md lists them)."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Annotated, Any

import prometheus_client as prometheus
from fastapi import APIRouter, Depends, File, Query, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser

import sempic
from sempic import api
from sempic.critical import FoundObject
from sempic.errors import InputError
from sempic.options import DecodeOptions, EncodeOptions
from sempic.palette import PALETTES
from sempic.sequence import SequenceOptions
from sempic.server import queries
from sempic.server.coder import SHRINK, Coder
from sempic.server.pool import Busy, Done
from sempic.server.problems import PROBLEMS, described

SEMPIC = "image/x-sempic"
SCENES = {
    "street.jpg": "A street in Kathmandu (Shah et al., CC BY 4.0)",
    "street.sempic": "The same, coded before",
}
"""Examples on the page, by file name in `scenes/`; the page opens with the first."""

SHORT = 1 << 15
"""Bytes of a body of `POST /info` that needs no worker: it is read within some ten milliseconds."""
_HEADERS = {
    "Server-Timing": "Milliseconds in the queue and in the worker.",
    "X-Notes": "Warnings of the work, separated by semicolons; absent without any.",
}
router = APIRouter()
MultiPartParser.spool_max_size = sys.maxsize  # forms stay in memory; the middleware limits them
_Route = Callable[[Callable[..., Any]], Callable[..., Any]]
_NoQuery = Annotated[queries.NoOptions, Query()]


def _refuse_repeated(request: Request) -> None:
    """Raises InputError for an option given twice, unless it is a list."""
    counts = Counter(name for name, _ in request.query_params.multi_items())
    for name in counts.keys() - queries.LISTS:
        if counts[name] > 1:
            raise InputError(f"{name}: given {counts[name]} times")


_CHECKS = [Depends(_refuse_repeated)]


def _get(path: str, summary: str, *statuses: int, **more: Any) -> _Route:
    """A GET route. statuses: of refusals, beside 422."""
    refusals: dict[int | str, Any] = {status: PROBLEMS[status] for status in (422, *statuses)}
    return router.get(path, summary=summary, responses=refusals, dependencies=_CHECKS, **more)


def _post(
    path: str, summary: str, *, takes: str | None, gives: Sequence[str], **headers: str
) -> _Route:
    """A POST route.

    takes: media type of the body; None: multipart. gives: media types of the answer; none: JSON.
    headers: descriptions of its own headers of the answer, with _ for -.
    """

    def files(kinds: Sequence[str]) -> dict[str, Any]:
        return {"content": {k: {"schema": {"type": "string", "format": "binary"}} for k in kinds}}

    body = {"required": True} | files([takes, "application/octet-stream"]) if takes else None
    own = {name.replace("_", "-"): text for name, text in headers.items()}
    answers = {status: PROBLEMS[status] for status in PROBLEMS if status != 400 or not takes}
    if gives:
        answers[200] = files(gives) | {"headers": described(_HEADERS | own)}
    return router.post(
        path,
        summary=summary,
        openapi_extra={"requestBody": body} if body else None,
        responses=answers,
        response_class=Response if gives else JSONResponse,
        dependencies=_CHECKS,
    )


async def _body(request: Request) -> bytes:
    """The body of a request, which is a file and not a form. Raises InputError."""
    body = await request.body()
    if request.headers.get("Content-Type", "").lower().startswith("multipart/"):
        raise InputError("the body is a form; send the file itself: curl --data-binary @FILE")
    return body


async def _need_files(request: Request, *names: str) -> None:
    """Raises InputError unless a form has exactly these parts, which are files."""
    parts = (await request.form()).multi_items()
    if len(parts) > len(names):
        raise InputError(f"the form has more than one {' and one '.join(names)}")
    for name, part in parts:
        if isinstance(part, str):  # the bytes of a part without a file name are lost: it is text
            raise InputError(f"{name}: sent as text, not as a file: curl -F {name}=@FILE")


async def _run(request: Request, verb: str, *args: Any, **kwargs: Any) -> Done:
    state = request.app.state
    done: Done = await state.pool.run(verb, *args, disconnected=request.is_disconnected, **kwargs)
    state.metrics.work.labels(verb).observe(done.worked)
    return done


@router.get("/", include_in_schema=False)
async def page() -> HTMLResponse:
    html, policy = _page_and_policy()
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-cache"}
    return HTMLResponse(html, headers=headers)


@router.get("/docs", include_in_schema=False)
async def reference() -> HTMLResponse:
    files = "static-offline-docs"
    answer = get_swagger_ui_html(
        openapi_url="openapi.json",
        title="sempic",
        swagger_js_url=f"{files}/swagger-ui-bundle.js",
        swagger_css_url=f"{files}/swagger-ui.css",
        swagger_favicon_url=f"{files}/favicon.png",
    )
    answer.headers["Content-Security-Policy"] = _policy(
        scripts=f"'self' {_hashes('script', bytes(answer.body).decode())}", styles="'self'"
    )
    return answer


@router.get("/scenes/{name}", include_in_schema=False)
async def scene(name: str) -> Response:
    if name not in SCENES:
        raise HTTPException(404, f"there is no scene {name!r}")
    media_type = SEMPIC if name.endswith(".sempic") else "image/jpeg"
    return Response(_resource("scenes", name), media_type=media_type)


@_get("/healthz", "Whether the server serves", 503)
async def healthz(request: Request, _: _NoQuery) -> dict[str, str]:
    if not request.app.state.pool.is_alive():
        raise Busy("no worker is alive", retry_after=1)
    return {"status": "ok"}


@_get("/metrics", "Metrics for Prometheus", response_class=Response)
async def read_metrics(request: Request, _: _NoQuery) -> Response:
    body = prometheus.generate_latest(request.app.state.metrics.registry)
    return Response(body, media_type=prometheus.CONTENT_TYPE_LATEST)


@_get("/info", "Limits, options and palettes of this server")
async def about(request: Request, _: _NoQuery) -> dict[str, Any]:
    s, supported = request.app.state.settings, request.app.state.controls
    controls = queries.Decoding.model_json_schema()["properties"]
    return {
        "version": sempic.__version__,
        "limits": {
            "bytes": s.max_bytes,
            "pixels": s.max_pixels,
            "pixels_before_max_side": s.max_pixels * SHRINK,
            "seconds": s.seconds,
            "queue": s.queue,
        },
        "encode": {"quality": queries.Encoding.model_json_schema()["properties"]["quality"]},
        "decode": {name: controls[name] for name in controls if name in supported},
        "palettes": {
            p.name: {"classes": p.classes, "colours": p.colours} for p in PALETTES.values()
        },
        "scenes": SCENES,
    }


@_post("/info", "What a .sempic holds and what each part costs", takes=SEMPIC, gives=[])
async def info(request: Request, _: _NoQuery) -> dict[str, Any]:
    data = await _body(request)
    if len(data) <= SHORT:
        return Coder.info(data)
    facts: dict[str, Any] = (await _run(request, "info", data)).value
    return facts


@_post(
    "/encode",
    "A picture → .sempic",
    takes="image/*",
    gives=[SEMPIC],
    X_Receipt="The verdict of the check, as JSON; only with `check`.",
)
async def encode(request: Request, options: Annotated[queries.Encoding, Query()]) -> Response:
    chosen = queries.from_query(options, EncodeOptions)
    EncodeOptions(**chosen)  # contradictions are refused before the body is read
    chosen |= options.model_dump(include={"labels"}, exclude_none=True)
    done = await _run(request, "encode", await _body(request), **chosen)
    response = _answer(done, done.value, kind=SEMPIC)
    if options.check:
        response.headers["X-Receipt"] = json.dumps(api.info(done.value)["receipt"])
    return response


@_post("/film", "A clip → a .sempic sequence", takes="video/*", gives=[SEMPIC])
async def film(request: Request, options: Annotated[queries.Filming, Query()]) -> Response:
    chosen = queries.from_query(options, SequenceOptions)
    SequenceOptions(**chosen)  # as in `encode`
    how = {"fps": options.fps, "seconds": options.seconds, "max_side": options.max_side}
    done = await _run(request, "film", await _body(request), **how, **chosen)
    return _answer(done, done.value, kind=SEMPIC)


@_post(
    "/decode",
    "A .sempic → picture; a sequence → one that plays, png or webp",
    takes=SEMPIC,
    gives=["image/png", "image/webp", "image/jpeg"],
)
async def decode(request: Request, options: Annotated[queries.Decoding, Query()]) -> Response:
    format = options.format
    if options.only == "ids" and format != "png":
        raise InputError(f"format: ids are a png, not {format}")
    chosen = queries.from_query(options, DecodeOptions)
    for name in chosen.keys() & queries.changed(options):
        if options.only:
            raise InputError(f"{name}: for the receiver, which only={options.only} leaves out")
        if name not in request.app.state.controls:
            raise InputError(f"this server's receiver has no {name}")
    chosen = {name: chosen[name] for name in chosen if name in request.app.state.controls}
    how = {"only": options.only, "format": format, "synthesis": chosen}
    done = await _run(request, "decode", await _body(request), **how)
    return _answer(done, done.value, kind=f"image/{format}")


@_post("/relabel", "A .sempic with another label map", takes=None, gives=[SEMPIC])
async def relabel(
    request: Request,
    _: _NoQuery,
    sempic: Annotated[bytes, File(description="The stream.")],
    labels: Annotated[
        bytes, File(description="The new map: an 8-bit grey or palette picture of ids.")
    ],
) -> Response:
    await _need_files(request, "sempic", "labels")
    done = await _run(request, "relabel", sempic, labels)
    return _answer(done, done.value, kind=SEMPIC)


@_post("/objects", "Critical objects that a .sempic keeps, loses and invents", takes=None, gives=[])
async def objects(
    request: Request,
    options: Annotated[queries.Finding, Query()],
    sempic: Annotated[bytes, File(description="The stream.")],
    original: Annotated[bytes, File(description="Its picture, or a larger one that was scaled.")],
) -> list[FoundObject]:
    await _need_files(request, "sempic", "original")
    chosen = queries.from_query(options, EncodeOptions)
    found: list[FoundObject] = (await _run(request, "objects", sempic, original, **chosen)).value
    return found


@_post(
    "/compare",
    "What AVIF or JPEG make of a picture in as many bytes",
    takes="image/*",
    gives=["image/avif", "image/jpeg"],
    X_Scaled_Down="The factor by which width and height were divided first.",
)
async def compare(request: Request, options: Annotated[queries.Comparison, Query()]) -> Response:
    how = {"codec": options.codec, "budget": options.bytes, "max_side": options.max_side}
    done = await _run(request, "compare", await _body(request), **how)
    data, factor = done.value
    response = _answer(done, data, kind=f"image/{options.codec}")
    response.headers["X-Scaled-Down"] = str(factor)
    return response


def _answer(done: Done, body: bytes, *, kind: str) -> Response:
    timing = f"queue;dur={1000 * done.waited:.1f}, work;dur={1000 * done.worked:.1f}"
    # Headers are ASCII.
    notes = "; ".join(done.notes).encode("ascii", "backslashreplace").decode()
    headers = {"Server-Timing": timing} | ({"X-Notes": notes} if notes else {})
    return Response(body, media_type=kind, headers=headers)


@functools.cache
def _resource(*path: str) -> bytes:
    return resources.files("sempic.server").joinpath(*path).read_bytes()


@functools.cache
def _page_and_policy() -> tuple[str, str]:
    """The page, and a content security policy that allows only its own scripts and styles."""
    html = _resource("page.html").decode()
    return html, _policy(scripts=_hashes("script", html), styles=_hashes("style", html))


def _hashes(tag: str, html: str) -> str:
    """The contents of all tags of a name without attributes, as sources of a policy."""
    parts = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    digests = (hashlib.sha256(part.encode()).digest() for part in parts)
    return " ".join(f"'sha256-{base64.b64encode(d).decode()}'" for d in digests)


def _policy(*, scripts: str, styles: str) -> str:
    """A content security policy with these sources; all else comes from this server or the page."""
    return (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; "
        "img-src 'self' blob: data:; media-src blob:; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
