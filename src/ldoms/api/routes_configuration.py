"""Routes about configurations of the host, and the delayed reconfiguration of its control domain."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from ldoms.api import wire
from ldoms.api.access import Changer, Known, Reviewer
from ldoms.api.routes_domain import answer
from ldoms.manager.constraints import Made
from ldoms.model.configuration import ConfigurationView

router = APIRouter(prefix=wire.PREFIX, tags=["configurations"])


@router.get("/configurations", response_model=list[ConfigurationView])
async def list_configurations(known: Known, who: Reviewer) -> Any:
    """All configurations, the factory default first."""
    return answer(known.manager.configurations.list())


@router.post("/configurations", status_code=204)
async def add_configuration(known: Known, who: Changer, body: wire.NewConfiguration) -> None:
    """Save the host as it is under a new name, or make a configuration of an autosave."""
    if body.autosave:
        known.manager.configurations.recover(body.autosave, body.name)
    else:
        known.manager.configurations.add(body.name)


@router.put("/configurations/next", status_code=204)
async def choose_configuration(known: Known, who: Changer, body: wire.ConfigurationName) -> None:
    """Choose the configuration for the next power-on."""
    known.manager.configurations.set(body.name)


@router.delete("/configurations/{name}", status_code=204)
async def remove_configuration(known: Known, who: Changer, name: str) -> None:
    """Forget a configuration and its autosave; the host stays as it is."""
    known.manager.configurations.remove(name, autosaved=False)


@router.get("/autosaves", response_model=list[ConfigurationView])
async def list_autosaves(known: Known, who: Reviewer, name: str = "") -> Any:
    """Changes that were not saved, by the configuration that they belong to: all, or of one."""
    return answer(known.manager.configurations.list_autosaves(name))


@router.delete("/autosaves/{name}", status_code=204)
async def remove_autosave(known: Known, who: Changer, name: str) -> None:
    """Forget changes that a power-on has replaced."""
    known.manager.configurations.remove(name, autosaved=True)


@router.get("/constraints", response_model=wire.Constraints)
async def show_constraints(
    known: Known, who: Reviewer, name: Annotated[list[str] | None, Query()] = None
) -> wire.Constraints:
    """Domains as XML: those named, or all, with the services of the host."""
    return wire.Constraints(xml=known.manager.constraints.describe(name or ()))


@router.post("/constraints", response_model=Made)
async def use_constraints(known: Known, who: Changer, body: wire.UseOfConstraints) -> Any:
    """Make domains of XML, also bound or started; set properties of domains; or make all of the host."""
    verbs = known.manager.constraints
    if body.action == "init":
        return answer(await verbs.init(body.xml, force=body.force, services_only=body.services_only))
    if body.action == "bind":
        return answer(await verbs.bind(body.xml, quick=body.quick))
    use = {"add": verbs.add, "set": verbs.set, "start": verbs.start}[body.action]
    return answer(await use(body.xml))


@router.post("/domains/{name}/reconfiguration", status_code=204)
async def start_reconfiguration(known: Known, who: Changer, name: str) -> None:
    """Let changes of the control domain's CPUs and memory wait for the next power-on."""
    known.manager.reconfiguration.start(name)


@router.delete("/domains/{name}/reconfiguration", status_code=204)
async def cancel_reconfiguration(known: Known, who: Changer, name: str) -> None:
    """Forget the changes that wait for the next power-on."""
    known.manager.reconfiguration.cancel(name)
