"""From a connection to a caller with a role: what each route asks for before it does anything."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import unquote

import structlog
from fastapi import Depends, Request

from ldoms.api.connections import STATE_KEY, Connection
from ldoms.api.wire import COMMAND_HEADER, RUN_HEADER
from ldoms.auth.callers import ANYBODY, Caller, Groups, Role, local_caller
from ldoms.auth.certificates import Certificates
from ldoms.auth.passwords import Gatekeeper
from ldoms.manager.manager import Manager
from ldoms.model.errors import NotAuthorized
from ldoms.model.events import CommandRecord

MAX_COMMAND = 500
"""Characters of a command line that go into the history."""

OPERATION_KEY = "operation"
"""Under which a request remembers the operation that it has begun."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """What the routes work with."""

    manager: Manager
    gatekeeper: Gatekeeper
    certificates: Certificates
    groups: Groups


def services(request: Request) -> Services:
    """What the application was made with."""
    found = request.app.state.services
    assert isinstance(found, Services)
    return found


def connection(request: Request) -> Connection:
    """The other end of the request's connection."""
    found = getattr(request.state, STATE_KEY, Connection())
    assert isinstance(found, Connection)
    return found


async def caller(request: Request) -> Caller:
    """Who is asking: by process on the local socket, by certificate or password over the network."""
    known, other = services(request), connection(request)
    if other.uid is not None:
        return local_caller(other.uid, known.groups)
    if other.fingerprint:
        host = next((host.host for host in known.certificates.trusted() if host.fingerprint == other.fingerprint), "")
        return Caller(f"host {host}", Role.MANAGE, "certificate") if host else ANYBODY
    user, password = _basic(request)
    if not user:
        return ANYBODY
    return await known.gatekeeper.admit(user, password, other.address)


def bearer(request: Request) -> str:
    """The token of the request.

    Raises:
        NotAuthorized: it has none.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise NotAuthorized("Authorization failed: this call needs the token of its migration")
    return token


async def may_review(request: Request, who: Annotated[Caller, Depends(caller)]) -> Caller:
    """The caller, who may look."""
    _require(request, who, Role.REVIEW, "look at the domains of this host")
    return who


async def may_manage(
    request: Request, known: Annotated[Services, Depends(services)], who: Annotated[Caller, Depends(caller)]
) -> AsyncIterator[Caller]:
    """The caller, who may change things; what it does with that goes into the history."""
    _require(request, who, Role.MANAGE, "change the domains of this host")
    await known.manager.host.operations.rest(request.path_params.get("name", ""))
    try:
        yield who
    except Exception:
        _remember(request, known, who, succeeded=False)
        raise
    _remember(request, known, who, succeeded=True)


def _require(request: Request, who: Caller, role: Role, what: str) -> None:
    try:
        who.require(role, what)
    except NotAuthorized:
        _log.warning(
            "access-denied",
            user=who.user,
            how=who.how,
            address=connection(request).address,
            call=f"{request.method} {request.url.path}",
            command=_command(request),
        )
        raise


def _command(request: Request) -> str:
    return unquote(request.headers.get(COMMAND_HEADER, ""))[:MAX_COMMAND]


def _remember(request: Request, known: Services, who: Caller, *, succeeded: bool) -> None:
    command = _command(request)
    if command:
        run, operation = request.headers.get(RUN_HEADER, ""), getattr(request.state, OPERATION_KEY, "")
        begun = (operation,) if operation else ()
        known.manager.history.note(CommandRecord(time.time(), who.user, command, succeeded, begun), run)


def _basic(request: Request) -> tuple[str, str]:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return user, password


Known = Annotated[Services, Depends(services)]
Reviewer = Annotated[Caller, Depends(may_review)]
Changer = Annotated[Caller, Depends(may_manage)]
