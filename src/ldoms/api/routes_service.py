"""Routes about virtual services."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from ldoms.api import wire
from ldoms.api.access import Changer, Known, Reviewer
from ldoms.api.routes_domain import answer
from ldoms.model.services import Services

router = APIRouter(prefix=wire.PREFIX, tags=["services"])


@router.get("/services", response_model=Services)
async def list_services(known: Known, who: Reviewer) -> Any:
    """All virtual services of the host."""
    return answer(known.manager.host.store.services())


@router.post("/disk-services", status_code=204)
async def add_disk_service(known: Known, who: Changer, body: wire.NewService) -> None:
    """Make a virtual disk service."""
    known.manager.disk_services.add(body.name, body.domain)


@router.delete("/disk-services/{name}", status_code=204)
async def remove_disk_service(known: Known, who: Changer, name: str, force: bool = False) -> None:
    """Remove a virtual disk service."""
    known.manager.disk_services.remove(name, force=force)


@router.post("/disk-services/{service}/volumes", status_code=204)
async def add_volume(known: Known, who: Changer, service: str, body: wire.NewVolume) -> None:
    """Offer a back end under a name."""
    await known.manager.disk_services.add_volume(
        service, body.name, body.backend, body.options, body.mpgroup, force=body.force, quick=body.quick
    )


@router.patch("/disk-services/{service}/volumes/{name}", status_code=204)
async def set_volume(known: Known, who: Changer, service: str, name: str, body: wire.VolumeChange) -> None:
    """Change the options or the multipath group of a volume."""
    await known.manager.disk_services.set_volume(service, name, body.options, body.mpgroup, force=body.force)


@router.delete("/disk-services/{service}/volumes/{name}", status_code=204)
async def remove_volume(known: Known, who: Changer, service: str, name: str, force: bool = False) -> None:
    """Offer a back end no more."""
    known.manager.disk_services.remove_volume(service, name, force=force)


@router.post("/switches", status_code=204)
async def add_switch(known: Known, who: Changer, body: wire.NewSwitch) -> None:
    """Make a virtual switch."""
    await known.manager.switches.add(body.name, body.domain, body.properties, quick=body.quick)


@router.patch("/switches/{name}", status_code=204)
async def set_switch(known: Known, who: Changer, name: str, body: wire.SwitchProperties) -> None:
    """Change a virtual switch, and the connections of the guests on it."""
    await known.manager.switches.set(name, body.properties, quick=body.quick)


@router.delete("/switches/{name}", status_code=204)
async def remove_switch(known: Known, who: Changer, name: str, force: bool = False) -> None:
    """Remove a virtual switch."""
    await known.manager.switches.remove(name, force=force)


@router.post("/concentrators", status_code=204)
async def add_concentrator(known: Known, who: Changer, body: wire.NewService) -> None:
    """Make a console concentrator; property ``port-range``."""
    known.manager.concentrators.add(body.name, body.domain, body.properties.get("port-range", ""))


@router.patch("/concentrators/{name}", status_code=204)
async def set_concentrator(known: Known, who: Changer, name: str, body: wire.Properties) -> None:
    """Give a console concentrator other ports; property ``port-range``."""
    known.manager.concentrators.set(name, body.properties.get("port-range", ""))


@router.delete("/concentrators/{name}", status_code=204)
async def remove_concentrator(known: Known, who: Changer, name: str, force: bool = False) -> None:
    """Remove a console concentrator."""
    known.manager.concentrators.remove(name, force=force)
