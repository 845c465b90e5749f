"""Routes about the host itself, its operations, its history, and the hosts that it trusts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from ldoms.api import wire
from ldoms.api.access import Changer, Known, Reviewer
from ldoms.api.routes_domain import answer
from ldoms.auth.certificates import Trusted, fetch_certificate, fingerprint_of_pem
from ldoms.model.codec import to_wire
from ldoms.model.errors import RequestError
from ldoms.model.events import CommandRecord, Event
from ldoms.model.host import HostView
from ldoms.model.logs import LogSwitch
from ldoms.model.migration import MigrationReport
from ldoms.model.netdev import NetDevices
from ldoms.model.operation import Operation

router = APIRouter(prefix=wire.PREFIX, tags=["host"])

MAX_SEQUENCE = (1 << 63) - 1
"""The store numbers events with 64 bits."""


@router.get("/host", response_model=HostView)
async def show_host(known: Known, who: Reviewer) -> Any:
    """The host, and who holds which part of it."""
    return answer(known.manager.listing.host())


@router.get("/network-devices", response_model=list[NetDevices])
async def list_network_devices(known: Known, who: Reviewer, name: Annotated[list[str] | None, Query()] = None) -> Any:
    """Network interfaces with their counters: those of the domains named, or of all."""
    return answer(await known.manager.network_devices.of(name or ()))


@router.get("/operations", response_model=list[Operation])
async def list_operations(known: Known, who: Reviewer) -> Any:
    """Operations, running and over."""
    return answer(known.manager.host.operations.list())


@router.get("/operations/{identity}", response_model=Operation)
async def show_operation(known: Known, who: Reviewer, identity: str) -> Any:
    """One operation as it stands."""
    return answer(known.manager.host.operations.get(identity))


@router.get("/operations/{identity}/events")
async def follow_operation(known: Known, who: Reviewer, identity: str) -> StreamingResponse:
    """The operation now and after each change, as server-sent events, until it is over."""
    operations = known.manager.host.operations
    operations.get(identity)  # an unknown one is an error before the stream begins

    async def stream() -> AsyncIterator[str]:
        async for operation in operations.follow(identity):
            yield f"data: {json.dumps(to_wire(operation))}\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream")


@router.post("/operations/{identity}/cancel", response_model=Operation)
async def cancel_operation(known: Known, who: Changer, identity: str) -> Any:
    """Stop an operation, if it can be stopped; the answer comes when it is over."""
    operations = known.manager.host.operations
    operations.get(identity)
    operations.cancel(identity)
    return answer(await operations.wait(identity))


@router.get("/events", response_model=list[Event])
async def list_events(known: Known, who: Reviewer, after: int = 0, limit: int = 1000) -> Any:
    """What happened after the event with that sequence number."""
    return answer(known.manager.host.store.events(max(0, min(after, MAX_SEQUENCE)), max(0, min(limit, 1000))))


@router.get("/migrations", response_model=list[MigrationReport])
async def list_migrations(known: Known, who: Reviewer) -> Any:
    """The reports of all migrations that this host took part in."""
    return answer(known.manager.migrations.history())


@router.get("/migrations/{migration}", response_model=MigrationReport)
async def show_migration(known: Known, who: Reviewer, migration: str) -> Any:
    """The report of one migration; the beginning of its id is enough."""
    return answer(known.manager.migrations.report(migration))


@router.get("/history", response_model=list[CommandRecord])
async def list_commands(known: Known, who: Reviewer) -> Any:
    """Commands that changed something."""
    return answer(known.manager.host.store.commands())


@router.get("/log", response_model=list[LogSwitch])
async def list_log(known: Known, who: Reviewer) -> Any:
    """Which sorts of messages `ldmd` logs."""
    return answer(known.manager.logs.list())


@router.put("/log", response_model=list[LogSwitch])
async def set_log(known: Known, who: Changer, body: wire.LogSwitches) -> Any:
    """Switch sorts of messages on and off."""
    return answer(known.manager.logs.set(body.properties, defaults=body.defaults))


@router.get("/trust", response_model=list[Trusted])
async def list_trust(known: Known, who: Reviewer) -> Any:
    """The hosts that are trusted."""
    return answer(known.certificates.trusted())


@router.post("/trust", response_model=Trusted)
async def add_trust(known: Known, who: Changer, body: wire.NewTrust) -> Any:
    """Trust a host whose certificate has the given fingerprint; without one, only show what it has."""
    pem = await fetch_certificate(body.host, known.manager.host.config.network.port)
    shown = fingerprint_of_pem(pem)
    if not body.fingerprint:
        return answer(Trusted(body.host, shown))
    if body.fingerprint != shown:
        raise RequestError(
            f"host {body.host} shows the fingerprint {shown}, not {body.fingerprint}: it is not trusted",
            code="wrong-fingerprint",
        )
    return answer(known.certificates.add(body.host, pem))


@router.delete("/trust/{host}", status_code=204)
async def remove_trust(known: Known, who: Changer, host: str) -> None:
    """Trust a host no more."""
    known.certificates.remove(host)
