"""Routes about domains."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse

from ldoms.api import wire
from ldoms.api.access import OPERATION_KEY, Changer, Known, Reviewer
from ldoms.migration.peer import Credentials
from ldoms.model.codec import to_wire
from ldoms.model.cores import CpuChange, Unit
from ldoms.model.domain import Domain, DomainView
from ldoms.model.guest import GuestCpus
from ldoms.model.migration import LimitChanges, MigrationOptions
from ldoms.model.operation import Operation
from ldoms.model.stopping import StopOptions
from ldoms.model.tuning import parse_tuning

router = APIRouter(prefix=f"{wire.PREFIX}/domains", tags=["domains"])


def answer(value: object, status: int = 200) -> JSONResponse:
    """A value of the model as JSON."""
    return JSONResponse(to_wire(value), status)


def begun(request: Request, operation: Operation) -> JSONResponse:
    """An operation that goes on by itself: what becomes of it is what the command behind the request has done."""
    setattr(request.state, OPERATION_KEY, operation.id)
    return answer(operation, 202)


@router.get("", response_model=list[DomainView])
async def list_domains(known: Known, who: Reviewer, name: Annotated[list[str] | None, Query()] = None) -> Any:
    """Domains with their state: those named, or all."""
    return answer(known.manager.listing.domains(name or ()))


@router.post("", response_model=Domain, status_code=201)
async def add_domain(known: Known, who: Changer, body: wire.NewDomain) -> Any:
    """Make an inactive domain."""
    return answer(await known.manager.domains.add(body.name, body.properties), 201)


@router.patch("/{name}", response_model=Domain)
async def set_domain(known: Known, who: Changer, name: str, body: wire.Properties) -> Any:
    """Change properties of a domain."""
    return answer(await known.manager.domains.set(name, body.properties))


@router.delete("/{name}", status_code=204)
async def remove_domain(known: Known, who: Changer, name: str) -> None:
    """Remove an inactive domain."""
    known.manager.domains.remove(name)


@router.put("/{name}/vcpus", response_model=Domain)
async def change_vcpus(known: Known, who: Changer, name: str, body: wire.Amount) -> Any:
    """Change the number of virtual CPUs."""
    return answer(await _change_cpus(known, name, CpuChange(body.action, Unit.VCPUS, body.amount)))


@router.put("/{name}/cores", response_model=Domain)
async def change_cores(known: Known, who: Changer, name: str, body: wire.CoreChange) -> Any:
    """Change the whole cores of a domain: how many, or with `core_ids` which."""
    return answer(await _change_cpus(known, name, CpuChange(body.action, Unit.CORES, body.amount, body.core_ids)))


async def _change_cpus(known: Known, name: str, change: CpuChange) -> Domain:
    """Make a change, or note it for the next power-on."""
    if known.manager.reconfiguration.delays(name):
        known.manager.reconfiguration.change_cpus(change)
        return known.manager.host.store.domain(name)
    return await known.manager.vcpus.change(name, change)


@router.put("/{name}/memory", response_model=Domain, responses={202: {"model": Operation}})
async def change_memory(request: Request, known: Known, who: Changer, name: str, body: wire.MemoryAmount) -> Any:
    """Change the amount of memory, in MiB; while a guest runs that is an operation, which is returned."""
    if known.manager.reconfiguration.delays(name):
        known.manager.reconfiguration.change_memory(body.action, body.amount)
        return answer(known.manager.host.store.domain(name))
    verbs = known.manager.memory
    change = {"add": verbs.add, "set": verbs.set, "remove": verbs.remove}[body.action]
    done = await change(name, body.amount, adjusted=body.adjusted, user=who.user)
    return begun(request, done) if isinstance(done, Operation) else answer(done)


@router.post("/{name}/cancel-memory", status_code=204)
async def cancel_memory(known: Known, who: Changer, name: str) -> None:
    """Stop a change of a running guest's memory; what was changed stays. The answer comes when it is over."""
    await known.manager.memory.cancel(name)


@router.put("/{name}/crypto", response_model=Domain)
async def change_crypto(known: Known, who: Changer, name: str, body: wire.Amount) -> Any:
    """Change the number of cryptographic units, which is kept and has no effect."""
    verbs = known.manager.crypto
    change = {"add": verbs.add, "set": verbs.set, "remove": verbs.remove}[body.action]
    return answer(change(name, body.amount))


@router.post("/{name}/bind", response_model=Domain)
async def bind(known: Known, who: Changer, name: str, body: wire.Binding | None = None) -> Any:
    """Reserve what the domain asks for."""
    return answer(await known.manager.life.bind(name, quick=body is not None and body.quick))


@router.post("/{name}/unbind", response_model=Domain)
async def unbind(known: Known, who: Changer, name: str) -> Any:
    """Give back what was reserved."""
    return answer(await known.manager.life.unbind(name))


@router.post("/{name}/start", response_model=Domain)
async def start(known: Known, who: Changer, name: str, body: wire.Force) -> Any:
    """Start a bound domain; with force, a complete copy whose source is lost for good."""
    if body.force:
        await known.manager.migrations.claim(name)
        return answer(known.manager.host.store.domain(name))
    return answer(await known.manager.life.start(name))


@router.post("/{name}/stop", response_model=Operation, status_code=202)
async def stop(request: Request, known: Known, who: Changer, name: str, body: wire.Stop) -> Any:
    """Begin to stop a domain, or to restart its guest; follow the operation that is returned."""
    options = StopOptions(body.mode, body.limit_s, body.message)
    return begun(request, known.manager.life.begin_stop(name, options, who.user))


@router.post("/{name}/panic", response_model=Operation, status_code=202)
async def panic(request: Request, known: Known, who: Changer, name: str, body: wire.Panic) -> Any:
    """Begin to panic a guest, after its memory was kept if that is asked; follow the operation that is returned."""
    return begun(request, known.manager.panics.begin(name, body.core, who.user))


@router.put("/{name}/variables", response_model=Domain)
async def set_variables(known: Known, who: Changer, name: str, body: wire.Variables) -> Any:
    """Set boot variables."""
    return answer(known.manager.domains.set_variables(name, body.values))


@router.delete("/{name}/variables", response_model=Domain)
async def remove_variables(known: Known, who: Changer, name: str, variable: Annotated[list[str], Query()]) -> Any:
    """Remove boot variables."""
    return answer(known.manager.domains.remove_variables(name, variable))


@router.post("/{name}/disks", response_model=Domain, status_code=201)
async def add_disk(known: Known, who: Changer, name: str, body: wire.NewDisk) -> Any:
    """Give a domain a disk, also while its guest runs."""
    verbs = known.manager.disks
    return answer(await verbs.add(name, body.name, body.volume, body.service, body.timeout_s, body.id), 201)


@router.patch("/{name}/disks/{disk}", response_model=Domain)
async def set_disk(known: Known, who: Changer, name: str, disk: str, body: wire.DiskChange) -> Any:
    """Put a disk on another volume, or change how long it waits for its back end."""
    volume = (body.volume, body.service) if body.volume else None
    return answer(await known.manager.disks.set(name, disk, volume, body.timeout_s))


@router.delete("/{name}/disks/{disk}", response_model=Domain)
async def remove_disk(known: Known, who: Changer, name: str, disk: str, force: bool = False) -> Any:
    """Take a disk away; with `force` also if the guest does not let it go."""
    return answer(await known.manager.disks.remove(name, disk, force=force))


@router.post("/{name}/networks", response_model=Domain, status_code=201)
async def add_network(known: Known, who: Changer, name: str, body: wire.NewNetwork) -> Any:
    """Connect a domain to a virtual switch."""
    return answer(await known.manager.networks.add(name, body.name, body.switch, body.properties), 201)


@router.patch("/{name}/networks/{network}", response_model=Domain)
async def set_network(known: Known, who: Changer, name: str, network: str, body: wire.Properties) -> Any:
    """Change a network interface; that of a running guest at once."""
    return answer(await known.manager.networks.set(name, network, body.properties))


@router.delete("/{name}/networks/{network}", response_model=Domain)
async def remove_network(known: Known, who: Changer, name: str, network: str, force: bool = False) -> Any:
    """Disconnect a network interface; a guest that runs is asked to let it go."""
    return answer(await known.manager.networks.remove(name, network, force=force))


@router.get("/{name}/guest-cpus", response_model=GuestCpus)
async def show_guest_cpus(known: Known, who: Reviewer, name: str) -> Any:
    """What the virtual CPUs of a guest have done since it booted, by its agent."""
    return answer(await known.manager.inside.cpus(name))


@router.put("/{name}/console", response_model=Domain)
async def set_console(known: Known, who: Changer, name: str, body: wire.Properties) -> Any:
    """Say which console the domain is to have."""
    return answer(await known.manager.vcons.set(name, body.properties))


@router.post("/{name}/migrate", response_model=Operation, status_code=202)
async def migrate(request: Request, known: Known, who: Changer, name: str, body: wire.Migration) -> Any:
    """Begin to move a domain to another host; follow the operation that is returned."""
    options = MigrationOptions(
        host=body.host,
        user=body.user or who.user,
        new_name=body.new_name,
        force=body.force,
        dry_run=body.dry_run,
        certificates=body.certificates,
        max_suspend_s=body.max_suspend_s,
        max_bandwidth_bytes_s=body.max_bandwidth_bytes_s,
        encrypted=body.encrypted,
        save_spconfig=body.save_spconfig,
        core_map=body.core_map,
        copy_storage=body.copy_storage,
        max_time_s=body.max_time_s,
        on_stall=body.on_stall,
        tuning=parse_tuning(body.tuning),
        boost=body.boost,
    )
    credentials = Credentials(
        user="" if body.certificates else options.user,
        password=body.password.get_secret_value(),
        certificate=body.certificates,
    )
    return begun(request, known.manager.migrations.migrate(name, options, credentials, who.user))


@router.post("/{name}/cancel-migration", status_code=204)
async def cancel_migration(known: Known, who: Changer, name: str, body: wire.Force) -> None:
    """Stop the migration of a domain; the answer comes when everything is as before."""
    await known.manager.migrations.cancel(name, force=body.force)


@router.post("/{name}/set-migration", status_code=204)
async def set_migration(known: Known, who: Changer, name: str, body: wire.MigrationLimits) -> None:
    """Change limits of a migration that is under way, on its source; what is not given stays as it is."""
    changes = LimitChanges(body.max_bandwidth_bytes_s, body.max_suspend_s, body.max_time_s)
    known.manager.migrations.change_limits(name, changes, who.user)


@router.post("/{name}/policies", response_model=Domain, status_code=201)
async def add_policy(known: Known, who: Changer, name: str, body: wire.NewPolicy) -> Any:
    """Give a domain a resource management policy."""
    return answer(known.manager.policies.add(name, body.name, body.properties), 201)


@router.patch("/{name}/policies/{policy}", response_model=Domain)
async def set_policy(known: Known, who: Changer, name: str, policy: str, body: wire.Properties) -> Any:
    """Change properties of a policy."""
    return answer(known.manager.policies.set(name, policy, body.properties))


@router.delete("/{name}/policies", response_model=Domain)
async def remove_policies(known: Known, who: Changer, name: str, policy: Annotated[list[str], Query()]) -> Any:
    """Take policies from a domain."""
    return answer(known.manager.policies.remove(name, policy))
