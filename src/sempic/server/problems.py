"""Error answers: status, JSON body, and the exceptions that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from sempic.errors import LimitExceeded, SempicError
from sempic.server.pool import Busy, Disconnected, InternalError, QueueFull, TooSlow


def described(headers: Mapping[str, str]) -> dict[str, Any]:
    """Headers of an answer for OpenAPI, from their descriptions."""
    return {k: {"description": v, "schema": {"type": "string"}} for k, v in headers.items()}


class Problem(BaseModel):
    """The body of every answer with status 400 or more."""

    error: str
    """Class of the error, from `sempic.errors` where possible."""
    message: str
    request: str
    """Id of the request, as in the log and in X-Request-ID."""


_MEANINGS = {
    400: "Not a form that multipart allows.",
    408: "The body did not arrive in time.",
    413: "More bytes or pixels than the limits of this server.",
    415: "The body has a Content-Encoding, which is not undone here.",
    422: "An unusable picture, stream or option; the message says why.",
    429: "The queue is full; Retry-After says when to try again.",
    500: "An internal error; the log says more.",
    503: "No worker was free in time, or none is alive; Retry-After says when to try again.",
    504: "Stopped at the time limit.",
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text} for status, text in _MEANINGS.items()
}
for _status in (429, 503):
    PROBLEMS[_status]["headers"] = described({"Retry-After": "Seconds."})

_STATUS: dict[type[Exception], int] = {
    LimitExceeded: 413,
    SempicError: 422,
    QueueFull: 429,
    Disconnected: 499,  # for the log: the client has disconnected
    InternalError: 500,
    Busy: 503,
    TooSlow: 504,
}


def _problem(
    request: Request, status: int, error: str, message: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    problem = Problem(error=error, message=message, request=request.state.id)
    return JSONResponse(problem.model_dump(), status, headers)


def add_handlers(app: FastAPI) -> None:
    async def ours(request: Request, error: Exception) -> JSONResponse:
        status = next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
        headers = {"Retry-After": str(error.retry_after)} if isinstance(error, Busy) else None
        return _problem(request, status, type(error).__name__, str(error), headers)

    for kind in _STATUS:
        app.add_exception_handler(kind, ours)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        unknown = {"extra_forbidden": "there is no such option"}
        faults: dict[str, list[str]] = {}  # an option of numbers or words has one of each
        for e in error.errors():
            faults.setdefault(str(e["loc"][:2][-1]), []).append(unknown.get(e["type"], e["msg"]))
        message = "; ".join(f"{name}: {', or '.join(whys)}" for name, whys in faults.items())
        return _problem(request, 422, "InputError", message)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers or {})
        if error.status_code == 405:  # Starlette names the methods of one of the path's routes
            methods = app.openapi()["paths"].get(request.url.path, {})
            # Static files are read only, which older versions do not say.
            allowed = {m.upper() for m in methods} or {*headers.get("Allow", "GET").split(", ")}
            if "GET" in allowed:
                allowed.add("HEAD")
            headers["Allow"] = ", ".join(sorted(allowed))
        name = {413: "LimitExceeded", 429: "QueueFull"}.get(error.status_code, "HTTPError")
        return _problem(request, error.status_code, name, str(error.detail), headers)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        # Starlette answers this outside the middleware, which adds the id to all other answers.
        headers = {"X-Request-ID": request.state.id}
        return _problem(request, 500, InternalError.__name__, "an internal error", headers)
