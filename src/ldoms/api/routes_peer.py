"""Routes for the managers of other hosts: what the source of a migration asks of its target."""

from __future__ import annotations

import time
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Body, Depends, Request

from ldoms.api import wire
from ldoms.api.access import Changer, Known, bearer, connection
from ldoms.api.routes_domain import answer
from ldoms.model.codec import from_wire
from ldoms.model.errors import NotAuthorized, RequestError
from ldoms.model.migration import ClockTimes, Description, MigrationReport, Preparation, TargetStatus, Trial
from ldoms.model.queue import Turn

router = APIRouter(prefix=f"{wire.PREFIX}/peer", tags=["peer"])

T = TypeVar("T")
Document = Annotated[dict[str, Any], Body()]


async def _migration_of(known: Known, migration: str, token: Annotated[str, Depends(bearer)]) -> str:
    """The migration of the path, if the caller has its token."""
    if not known.manager.target.admits(migration, token):
        raise NotAuthorized("Authorization failed: the token is not the one of this migration")
    return migration


Admitted = Annotated[str, Depends(_migration_of)]


@router.post("/describe")
async def describe(known: Known, who: Changer, request: Request, body: Document) -> Any:
    """Describe what is to come; the answer describes this host, and has the token for what follows."""
    description = _read(Description, body)
    return answer(await known.manager.target.describe(description, connection(request).address))


@router.post("/migrations/{migration}/clock", response_model=ClockTimes)
async def clock(known: Known, migration: Admitted) -> Any:
    """Say what time it is here."""
    received_at = time.time()
    return answer(ClockTimes(received_at, time.time()))


@router.post("/migrations/{migration}/turn", response_model=Turn)
async def ask_turn(known: Known, migration: Admitted) -> Any:
    """Say whether the domain may come now, or has to wait for others."""
    return answer(known.manager.target.ask_turn(migration))


@router.post("/migrations/{migration}/prepare")
async def prepare(known: Known, migration: Admitted, request: Request, body: Document) -> Any:
    """Get ready for a domain."""
    preparation = _read(Preparation, body)
    if preparation.migration != migration:
        raise RequestError("the token is of another migration", code="bad-request")
    return answer(await known.manager.target.prepare(preparation, _data_address(known, request)))


@router.post("/migrations/{migration}/trial")
async def begin_trial(known: Known, migration: Admitted, request: Request, body: Document) -> Any:
    """Receive a trial of the link: the answer says where."""
    trial = _read(Trial, body)
    if trial.migration != migration:
        raise RequestError("the token is of another migration", code="bad-request")
    return answer(await known.manager.target.begin_trial(trial, _data_address(known, request)))


@router.delete("/migrations/{migration}/trial", status_code=204)
async def end_trial(known: Known, migration: Admitted) -> None:
    """End it."""
    await known.manager.target.end_trial(migration)


@router.post("/migrations/{migration}/status", response_model=TargetStatus)
async def status(known: Known, migration: Admitted, body: wire.SignOfLife) -> Any:
    """Hear how it stands on the source, and say how it stands here."""
    return answer(await known.manager.target.status(migration, body.phase, body.progress))


@router.post("/migrations/{migration}/finish", response_model=TargetStatus)
async def finish(known: Known, migration: Admitted) -> Any:
    """Take over."""
    return answer(await known.manager.target.finish(migration))


@router.post("/migrations/{migration}/abort", response_model=TargetStatus)
async def abort(known: Known, migration: Admitted, body: wire.Reason) -> Any:
    """Call it off."""
    return answer(await known.manager.target.abort(migration, body.reason))


@router.post("/migrations/{migration}/listen-again")
async def listen_again(known: Known, migration: Admitted, request: Request) -> Any:
    """Wait for the rest of a guest's memory at another place: the answer says where."""
    return answer(await known.manager.target.listen_again(migration, _data_address(known, request)))


@router.put("/migrations/{migration}/report", status_code=204)
async def keep_report(known: Known, migration: Admitted, body: Document) -> None:
    """Keep the source's report."""
    report = _read(MigrationReport, body)
    if report.id != migration:
        raise RequestError("the token is of another migration", code="bad-request")
    known.manager.target.keep_report(report)


def _data_address(known: Known, request: Request) -> str:
    """Where this host receives memory."""
    return known.manager.host.config.network.data_address or _local_address(request)


def _local_address(request: Request) -> str:
    """The address of this host that the caller has used."""
    server = request.scope["server"]
    return str(server[0])


def _read(kind: type[T], body: dict[str, Any]) -> T:
    try:
        return from_wire(kind, body)
    except ValueError as error:
        raise RequestError(f"the request is wrong: {error}") from error
