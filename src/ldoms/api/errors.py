"""Errors on the wire: the one table of HTTP statuses, and the shape of an error's body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ldoms.model.codec import to_wire
from ldoms.model.errors import (
    AlreadyExists,
    Busy,
    CheckFailed,
    HostError,
    LdomsError,
    MigrationError,
    NoResources,
    NotAuthorized,
    NotFound,
    PeerError,
    RequestError,
)

# The first entry that fits, so that special ones come first.
STATUS: Mapping[type[LdomsError], int] = {
    NotFound: 404,
    AlreadyExists: 409,
    Busy: 409,
    NoResources: 409,
    NotAuthorized: 403,
    RequestError: 400,
    CheckFailed: 422,
    PeerError: 502,
    MigrationError: 500,
    HostError: 500,
}


def status_of(error: LdomsError) -> int:
    """The HTTP status for an error."""
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)


def body_of(error: LdomsError) -> dict[str, Any]:
    """An error as JSON data: its family, its code, its sentence, and what explains it."""
    body: dict[str, Any] = {
        "family": type(error).__name__,
        "code": error.code,
        "message": error.message,
        "details": to_wire(error.details),
    }
    if isinstance(error, CheckFailed):
        body["findings"] = to_wire(error.findings)
    return {"error": body}


def add_error_handlers(app: FastAPI) -> None:
    """Have `app` answer every error in the one shape."""

    @app.exception_handler(LdomsError)
    async def on_ldoms_error(request: Request, error: LdomsError) -> JSONResponse:
        return JSONResponse(body_of(error), status_of(error))

    @app.exception_handler(RequestValidationError)
    async def on_bad_body(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        # Only the place and the rule: the value may be a password.
        return JSONResponse(body_of(RequestError(f"the request is wrong at {where}: {first['msg']}")), 400)

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> JSONResponse:
        kind = NotFound if error.status_code == 404 else RequestError
        message = f"{request.method} {request.url.path}: {error.detail}"
        return JSONResponse(body_of(kind(message, code="no-such-call")), error.status_code, headers=error.headers)
