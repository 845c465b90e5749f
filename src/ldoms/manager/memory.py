"""Memory: asked for, given, and taken back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import structlog

from ldoms.hypervisor.engine import Guest
from ldoms.manager.background import Background
from ldoms.manager.host import Host
from ldoms.manager.memory_change import KIND, MemoryChange, give_back, is_settled, settle_broken
from ldoms.manager.operations import Handle
from ldoms.model.domain import Bindings, Domain
from ldoms.model.errors import Busy, HostError, NoResources, RequestError
from ldoms.model.memory import adjust, check_step
from ldoms.model.operation import Operation, OperationStatus
from ldoms.model.partition import Partition, shrink_memory
from ldoms.model.sizes import BOUND_ALIGNMENT_MIB, align_up

MIN_PRIMARY_MIB = 256
SETTLED = ("memory-partial", "guest-ended")
"""Codes of changes that have failed, and whose account is right."""
SETTLE_S = 600.0
"""How long QEMU may be silent after a change until nobody asks it any more before the next change."""
LOOK_S = 1.0

Rule = Callable[[int], int]
"""From what a domain has to what it is to have."""

_log = structlog.get_logger(__name__)


class MemoryVerbs:
    """``add-memory``, ``set-memory``, ``remove-memory``, ``cancel-operation memdr``.

    An inactive domain only remembers the wish; a bound one is given or gives back at once; for the control domain it
    changes at once what the guests' QEMU processes may use. The guest of an active domain takes and gives back in its
    own time: that is an operation.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._background = Background()

    async def close(self) -> None:
        """Let go of what goes on by itself."""
        await self._background.close()

    async def add(self, name: str, size_mib: int, *, adjusted: bool = False, user: str = "") -> Domain | Operation:
        """Give a domain `size_mib` more memory; `adjusted` rounds it (``--auto-adj``)."""
        return await self._change(name, "add-memory", lambda now: now + size_mib, adjusted, user)

    async def remove(self, name: str, size_mib: int, *, adjusted: bool = False, user: str = "") -> Domain | Operation:
        """Take `size_mib` memory from a domain."""
        return await self._change(name, "remove-memory", lambda now: now - size_mib, adjusted, user)

    async def set(self, name: str, size_mib: int, *, adjusted: bool = False, user: str = "") -> Domain | Operation:
        """Make it `size_mib` memory."""
        return await self._change(name, "set-memory", lambda now: size_mib, adjusted, user)

    async def cancel(self, name: str) -> None:
        """Stop a change of a running guest's memory; what was changed stays. Returns when it is over.

        Raises:
            RequestError: none is under way, or it was complete before.
        """
        self._host.store.domain(name)
        operation = self._host.operations.on(name, KIND)
        if operation is None:
            raise RequestError(f"no change of the memory of LDom {name} is under way", code="no-memory-change")
        self._host.operations.cancel(operation.id)
        ended = await self._host.operations.wait(operation.id)
        if ended.status is OperationStatus.SUCCESS:
            raise RequestError(
                f"the change of the memory of LDom {name} was complete before it could be cancelled", code="too-late"
            )

    async def recover(self) -> None:
        """Go on with every change that a restart of the manager has interrupted, or whose end is not known."""
        for operation in self._host.store.operations():
            if operation.is_over or operation.kind != KIND:
                continue
            change = MemoryChange.of(self._host, operation)
            running = self._host.guests.get(change.uuid)
            if running is not None:
                _log.info("memory-change-found", domain=operation.domain, wanted_mib=change.wanted_mib)
                self._start(change, operation.domain, operation.user, identity=operation.id)
                continue
            domain = self._host.store.domain_by_uuid(change.uuid)
            if domain is not None and not domain.started_at:  # else its QEMU is there, and does not answer
                give_back(self._host, change.uuid, change.before_mib)
            self._host.operations.abandon(operation)
        for domain in self._host.store.domains():
            if self._host.guests.get(domain.uuid) is not None:
                self._settle_later(domain.uuid)

    # Inside

    async def _change(self, name: str, verb: str, rule: Rule, adjusted: bool, user: str) -> Domain | Operation:
        with self._host.changing(name, verb) as domain:
            running = self._host.guests.get(domain.uuid)
            if running is None or domain.bindings is None:
                return self._set(domain, verb, rule, adjusted)
            domain = await settle_broken(self._host, domain, running.guest)
            assert domain.bindings is not None, "nobody else may unbind it meanwhile"
            now = domain.bindings.memory_mib
            wanted = self._wanted(domain, verb, rule, now, adjusted=adjusted, active=True)
            if wanted == now:
                return domain
            await self._reserve(domain, domain.bindings, running.guest, wanted)
            change = MemoryChange(self._host, domain.uuid, name, now, wanted)
        return self._start(change, name, user)

    def _start(self, change: MemoryChange, name: str, user: str, identity: str = "") -> Operation:
        async def work(handle: Handle) -> Mapping[str, Any]:
            try:
                return await change.run(handle)
            except HostError as error:
                if error.code not in SETTLED:
                    self._settle_later(change.uuid)
                raise

        return self._host.operations.start(
            KIND, name, user, work, may_cancel=True, identity=identity, asked=change.asked
        )

    def _settle_later(self, uuid: str) -> None:
        name = f"settle-memory {uuid}"
        if not self._background.is_at(name):
            self._background.start(self._settle(uuid), name)

    async def _settle(self, uuid: str) -> None:
        """See to a change whose end is not known, as soon as QEMU answers and nobody else is at work on the domain."""
        deadline = asyncio.get_running_loop().time() + SETTLE_S
        while asyncio.get_running_loop().time() < deadline:
            domain, running = self._host.store.domain_by_uuid(uuid), self._host.guests.get(uuid)
            if domain is None or domain.bindings is None:
                return
            with suppress(HostError, RequestError, Busy):
                if running is not None and await is_settled(domain, running.guest):
                    return
                with (
                    self._host.operations.unasked(domain.name),
                    self._host.changing(domain.name, "settle-memory") as domain,
                ):
                    if running is not None:
                        await settle_broken(self._host, domain, running.guest)
                    elif not domain.started_at:
                        give_back(self._host, uuid, align_up(domain.constraints.memory_mib, BOUND_ALIGNMENT_MIB))
                return
            await asyncio.sleep(LOOK_S)
        _log.error("memory-unsettled", uuid=uuid, consequence="the next change of its memory finds out what it has")

    def _set(self, domain: Domain, verb: str, rule: Rule, adjusted: bool) -> Domain:
        """The change of a domain that has no guest."""
        name, now = domain.name, domain.constraints.memory_mib
        wanted = self._wanted(domain, verb, rule, now, adjusted=adjusted, active=domain.is_control)
        partition = self._host.partition()
        if wanted > partition.size.memory_mib:
            partition.pick_memory(wanted - now, name)  # says what is free
            raise NoResources(
                f"LDom {name} cannot have more than the {partition.size.memory_mib}M of memory of this host",
                code="no-memory",
            )
        changed = replace(domain, constraints=replace(domain.constraints, memory_mib=wanted))
        if domain.bindings is not None:
            changed = replace(changed, bindings=_with_memory(partition, domain, domain.bindings, wanted))
        return self._host.save(changed)

    @staticmethod
    def _wanted(domain: Domain, verb: str, rule: Rule, now_mib: int, *, adjusted: bool, active: bool) -> int:
        name, wanted = domain.name, rule(now_mib)
        least = MIN_PRIMARY_MIB if domain.is_control else BOUND_ALIGNMENT_MIB
        if wanted < least:
            would = (
                f"has {now_mib}M of memory and must keep" if now_mib else f"would have {wanted}M of memory and needs"
            )
            raise RequestError(
                f"LDom {name} {would} at least {least}M",
                code="last-memory",
                now_mib=now_mib,
            )
        if adjusted:
            wanted = adjust(verb, name, now_mib, wanted, active=active)
        elif active:
            check_step(verb, name, now_mib, wanted)
        return wanted

    async def _reserve(self, domain: Domain, bindings: Bindings, guest: Guest, wanted_mib: int) -> None:
        """Make sure that a guest can have so much, and that nobody else is given what it is to get."""
        name, now = domain.name, bindings.memory_mib
        added = await guest.added_memory()
        if added is None:
            raise RequestError(
                f"the memory of LDom {name} cannot be changed while it runs: {_why_no_room(name)}",
                code="no-memory-room",
            )
        boot = bindings.first_memory_mib
        if wanted_mib < boot:
            raise RequestError(
                f"LDom {name} was started with {boot}M, which a running guest cannot give back: at most {now - boot}M"
                f" of its {now}M can be removed; stop it first ('ldm stop-domain {name}') to remove more",
                code="boot-memory",
                removable_mib=now - boot,
            )
        if wanted_mib > boot and not added.maximum_mib:
            raise RequestError(
                f"LDom {name} cannot get more memory while it runs: {_why_no_room(name)}",
                code="no-memory-room",
                maximum_mib=boot,
            )
        if wanted_mib > boot + added.maximum_mib:
            raise RequestError(
                f"LDom {name} cannot have more than {boot + added.maximum_mib}M while it runs: its machine was made for"
                f" so much when it was bound; stop it ('ldm stop-domain {name}') to give it more",
                code="no-memory-room",
                maximum_mib=boot + added.maximum_mib,
            )
        if wanted_mib > now:
            more = self._host.partition().pick_memory(wanted_mib - now, name, added.address_mib + now - boot)
            grown = replace(bindings, memory=(*bindings.memory, *more), boot_memory_mib=boot)
            self._host.save(replace(domain, bindings=grown))


def _why_no_room(name: str) -> str:
    return (
        f"its machine was made without room for more; stop it to change its memory ('ldm stop-domain {name}'), and"
        " unbind and bind it to give its machine room"
    )


def _with_memory(partition: Partition, domain: Domain, bindings: Bindings, wanted_mib: int) -> Bindings:
    wanted_mib = align_up(wanted_mib, BOUND_ALIGNMENT_MIB)
    kept = shrink_memory(bindings.memory, wanted_mib)
    have = sum(block.size_mib for block in kept)
    if have == wanted_mib:
        return replace(bindings, memory=kept)
    return replace(bindings, memory=(*kept, *partition.pick_memory(wanted_mib - have, domain.name, have)))
