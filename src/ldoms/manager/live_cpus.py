"""Virtual CPUs of a guest that runs: plugged and woken; put to sleep and parked, or unplugged."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

import structlog

from ldoms.hypervisor.engine import Guest
from ldoms.manager.background import Background
from ldoms.manager.host import Host
from ldoms.model.cores import cores_of, lay_out
from ldoms.model.domain import Bindings, Constraints, Domain, Machine
from ldoms.model.errors import HostError, NoResources, RequestError
from ldoms.model.named_cores import kept_names

WAKE_S = 10.0
"""How long a guest may take to bring new virtual CPUs online."""
UNPLUG_S = 10.0
"""How long a guest may take to let go of one."""
POLL_S = 0.02
PARK_AGAIN_S = 300.0
"""How long a guest that has booted may take until its agent answers."""
PARK_POLL_S = 1.0

_log = structlog.get_logger(__name__)


def why_parked(machine: Machine) -> str:
    """Why a virtual CPU that is taken from a guest stays in its machine; empty: it does not, it is unplugged."""
    if machine.accelerator == "tcg":
        return "under TCG, QEMU 10.0 that unplugs a virtual CPU may abort, and its later migrations hang"
    return ""


class LiveCpus:
    """What changes the virtual CPUs of a guest while it runs.

    What the domain is to hold is written down before its guest is given something, and after the guest has let go of
    something: strands are never held by two.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._background = Background()

    def start(self) -> None:
        """Follow the guests: one that has booted wakes what was parked."""
        self._host.guests.on_running = self._park_again
        for domain in self._host.store.domains():
            self._park_again(domain.uuid)

    async def close(self) -> None:
        """Stop what goes on by itself."""
        await self._background.close()

    async def compare(self, domain: Domain, guest: Guest) -> Domain:
        """Write down what the machine of a guest has, if that is not what is known: a change was interrupted."""
        try:
            known = as_plugged(domain, await guest.count_vcpus())
        except HostError as error:
            _log.warning("vcpus-unknown", domain=domain.name, reason=error.message)
            return domain
        known = self._without_spare_strands(known)
        if known == domain:
            return domain
        _log.warning("vcpus-differ", domain=domain.name, vcpus=known.constraints.vcpus)
        await guest.place(self._host.placement(_bindings(known)))
        return self._host.save(known)

    def _without_spare_strands(self, domain: Domain) -> Domain:
        """Without what a change that was interrupted has held for its guest."""
        bindings, partition = _bindings(domain), self._host.partition()
        cores = {vcpu.core for vcpu in bindings.vcpus} if domain.constraints.whole_core else set[int]()
        cores |= set(domain.constraints.core_ids)
        idle = tuple(strand for strand in bindings.idle if partition.core_of(strand) in cores)
        return replace(domain, bindings=replace(bindings, idle=idle))

    async def change(self, domain: Domain, wanted: Constraints, guest: Guest) -> Domain:
        """Have the guest of a domain use as many virtual CPUs as are wanted.

        Raises:
            RequestError: its machine was made by an earlier release.
            NoResources: nothing was changed.
            HostError: the guest has not done all of it, or none.
        """
        domain = await self.compare(domain, guest)
        if _machine(domain).max_vcpus == 0:
            raise RequestError(
                f"LDom {domain.name} was bound by an earlier release, and its CPUs cannot be changed while it runs:"
                " stop it, unbind it and bind it again",
                code="domain-active",
            )
        if wanted.vcpus < len(_bindings(domain).vcpus):
            return await self._shrink(domain, wanted, guest)
        return await self._grow(domain, wanted, guest)

    # More

    async def _grow(self, domain: Domain, wanted: Constraints, guest: Guest) -> Domain:
        name, bindings = domain.name, _bindings(domain)
        count = wanted.vcpus - len(bindings.vcpus)
        unparked, parked = bindings.parked[:count], bindings.parked[count:]
        plugged = len(bindings.plugged)
        new = range(plugged, plugged + count - len(unparked))
        most = _machine(domain).max_vcpus
        if new.stop > most:
            raise NoResources(
                f"LDom {name} cannot have more than {most} virtual CPUs until it is bound again: its guest was started"
                " on a machine with so many sockets",
                code="no-socket",
                wanted=wanted.vcpus,
                most=most,
            )
        added = (*unparked, *new)
        vids = sorted((*(vcpu.vid for vcpu in bindings.vcpus), *added))
        layout = lay_out(self._host.partition(), name, wanted, vids, bindings)
        given = replace(bindings, vcpus=layout.vcpus, idle=layout.idle, parked=parked)
        grown = self._host.save(_holding(replace(domain, constraints=wanted, bindings=given), bindings.held))
        await self._host.give_way()
        try:
            for _ in new:
                await guest.plug_vcpu()
        except HostError:
            await self.compare(grown, guest)
            raise
        await guest.place(self._host.placement(given))
        grown = self._host.save(replace(grown, bindings=given))
        awake = await wake(guest, added, fresh=new)
        if asleep := sorted(set(added) - awake):
            raise HostError(
                f"LDom {name} was given {_vcpus(count)}, and its guest has brought {len(awake)} online within"
                f" {WAKE_S:g} s: the others ({', '.join(f'cpu{vid}' for vid in asleep)}) wait for somebody in the guest"
                " to do it",
                code="partial-success",
                asked=count,
                done=len(awake),
            )
        return grown

    # Less

    async def _shrink(self, domain: Domain, wanted: Constraints, guest: Guest) -> Domain:
        name, bindings = domain.name, _bindings(domain)
        count = len(bindings.vcpus) - wanted.vcpus
        vids = [vcpu.vid for vcpu in bindings.vcpus]
        # Strands that it does not have yet are kept for it until the guest has let go of enough.
        layout = lay_out(self._host.partition(), name, wanted, vids[: wanted.vcpus], bindings)
        domain = self._host.save(_holding(domain, (*layout.idle, *(vcpu.strand for vcpu in layout.vcpus))))
        await self._host.give_way()
        try:
            if why_parked(_machine(domain)):
                gone = await put_to_sleep(name, guest, vids, count)
                parked = sorted({*bindings.parked, *gone})
            else:
                gone = await unplug(guest, vids, count)
                parked = [vid for vid in bindings.parked if vid < await guest.count_vcpus()]
        except HostError:
            self._host.save(replace(domain, bindings=bindings))
            raise
        if gone:
            domain = await self._give_back(domain, bindings, wanted, gone, tuple(parked), guest)
        else:
            domain = self._host.save(replace(domain, bindings=bindings))
        if len(gone) < count:
            raise HostError(
                f"LDom {name} was to give back {_vcpus(count)}, and its guest has let go of {len(gone) or 'none'}:"
                " the others are in use, or cannot be missed",
                code="partial-success",
                asked=count,
                done=len(gone),
            )
        return domain

    async def _give_back(
        self,
        domain: Domain,
        bindings: Bindings,
        wanted: Constraints,
        gone: Collection[int],
        parked: tuple[int, ...],
        guest: Guest,
    ) -> Domain:
        left = [vcpu.vid for vcpu in bindings.vcpus if vcpu.vid not in gone]
        wanted = replace(wanted, vcpus=len(left))
        if wanted.core_ids:
            cores = cores_of(wanted, self._host.size.strands_per_cpu)
            wanted = replace(wanted, core_ids=kept_names(domain.constraints, wanted, cores))
        layout = lay_out(self._host.partition(), domain.name, wanted, left, bindings)
        bindings = replace(bindings, vcpus=layout.vcpus, idle=layout.idle, parked=parked)
        await guest.place(self._host.placement(bindings))
        return self._host.save(replace(domain, constraints=wanted, bindings=bindings))

    # Parked ones stay asleep

    def _park_again(self, uuid: str) -> None:
        domain = self._host.store.domain_by_uuid(uuid)
        if domain is None or domain.bindings is None or not domain.bindings.parked:
            return
        name = f"park-vcpu {uuid}"
        if not self._background.is_at(name):
            self._background.start(self._keep_parked(uuid), name)

    async def _keep_parked(self, uuid: str) -> None:
        """A guest that boots wakes every virtual CPU of its machine: have it put the parked ones to sleep again."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + PARK_AGAIN_S
        while clock() < deadline:
            domain, running = self._host.store.domain_by_uuid(uuid), self._host.guests.get(uuid)
            if domain is None or running is None or not _bindings(domain).parked:
                return
            with suppress(HostError, RequestError):  # not up yet, or somebody is at work on it
                await running.guest.agent.vcpus()
                with (
                    self._host.operations.unasked(domain.name),
                    self._host.changing(domain.name, "park-vcpu") as domain,
                ):
                    parked = _bindings(domain).parked
                    awake = [cpu.vid for cpu in await running.guest.agent.vcpus() if cpu.online and cpu.vid in parked]
                    if awake:
                        await running.guest.agent.set_vcpus(awake, online=False)
                        _log.info("vcpus-parked-again", domain=domain.name, vcpus=awake)
                return
            await asyncio.sleep(PARK_POLL_S)
        _log.warning("parked-vcpus-awake", uuid=uuid, consequence="they share the strands of their domain")


async def wake(guest: Guest, vids: Sequence[int], fresh: Collection[int]) -> set[int]:
    """Have a guest bring virtual CPUs online; those that it has brought online in time.

    The agent is asked to. A guest without one may do it by itself, which shows for those that are new to the machine.
    """
    asking = asyncio.create_task(_wake_through_agent(guest, vids))
    awake: set[int] = set()
    try:
        async with asyncio.timeout(WAKE_S):
            while len(awake) < len(vids):
                if asking.done() and not asking.exception():
                    return asking.result()
                awake |= {vid for vid in fresh if vid not in awake and await guest.has_started(vid)}
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        pass
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    return awake


async def _wake_through_agent(guest: Guest, vids: Sequence[int]) -> set[int]:
    clock = asyncio.get_running_loop().time
    deadline = clock() + WAKE_S / 2
    while True:
        # The guest learns of a new one a moment after it was plugged.
        known = {cpu.vid: cpu.online for cpu in await guest.agent.vcpus()}
        asleep = [vid for vid in vids if known.get(vid) is False]
        if asleep:
            with suppress(HostError):
                await guest.agent.set_vcpus(asleep, online=True)
        elif all(known.get(vid) for vid in vids):
            return set(vids)
        if clock() > deadline:
            return {vid for vid in vids if known.get(vid)}
        await asyncio.sleep(POLL_S)


async def put_to_sleep(name: str, guest: Guest, vids: Sequence[int], count: int) -> list[int]:
    """Have a guest take `count` of its virtual CPUs offline, the last ones if it can; those that it has taken.

    Raises:
        HostError: code ``no-agent`` or ``agent-refused``: nobody in the guest can be asked; nothing was done.
    """
    try:
        known = {cpu.vid: cpu for cpu in await guest.agent.vcpus()}
    except HostError as error:
        raise HostError(
            f"LDom {name} cannot give back virtual CPUs while it runs, as that is for its guest to do: {error.message};"
            " run qemu-guest-agent in the guest, or stop the domain first",
            code=error.code,
        ) from error
    asleep = [vid for vid in vids if vid not in known or not known[vid].online][-count:]
    for vid in reversed(vids):
        if len(asleep) == count:
            break
        if vid in asleep or known[vid].fixed:
            continue
        with suppress(HostError):
            await guest.agent.set_vcpus([vid], online=False)
            asleep.append(vid)
    still_awake = {cpu.vid for cpu in await guest.agent.vcpus() if cpu.online}
    return [vid for vid in asleep if vid not in still_awake]


async def unplug(guest: Guest, vids: Collection[int], count: int) -> list[int]:
    """Unplug the last virtual CPUs of a machine until `count` of `vids` are gone, or the guest keeps one."""
    gone: list[int] = []
    while len(gone) < count:
        last = await guest.count_vcpus() - 1
        if not await guest.unplug_vcpu(UNPLUG_S):
            break
        if last in vids:
            gone.append(last)
    return gone


def as_plugged(domain: Domain, plugged: int) -> Domain:
    """A domain whose guest's machine has virtual CPUs 0 to `plugged` - 1: what is unknown of it is parked."""
    bindings = _bindings(domain)
    vcpus = tuple(vcpu for vcpu in bindings.vcpus if vcpu.vid < plugged)
    used = {vcpu.vid for vcpu in vcpus}
    return replace(
        domain,
        constraints=replace(domain.constraints, vcpus=len(vcpus)),
        bindings=replace(bindings, vcpus=vcpus, parked=tuple(vid for vid in range(plugged) if vid not in used)),
    )


def _holding(domain: Domain, strands: Iterable[int]) -> Domain:
    """A domain that holds further strands: nobody else is given what its guest still runs on, or is about to."""
    bindings = _bindings(domain)
    return replace(
        domain, bindings=replace(bindings, idle=tuple(sorted({*bindings.idle, *strands} - {*bindings.strands})))
    )


def _bindings(domain: Domain) -> Bindings:
    assert domain.bindings is not None, "a domain with a guest is bound"
    return domain.bindings


def _machine(domain: Domain) -> Machine:
    machine = _bindings(domain).machine
    assert machine is not None, "only the control domain has none"
    return machine


def _vcpus(count: int) -> str:
    return f"{count} virtual CPU{'' if count == 1 else 's'}"
