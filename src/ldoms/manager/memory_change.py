"""A change of a running guest's memory: asked of the guest, followed, and settled by what the guest has really done."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import structlog

from ldoms.hypervisor.engine import Guest
from ldoms.manager.host import Host
from ldoms.manager.operations import Handle
from ldoms.model.domain import Domain
from ldoms.model.errors import Cancelled, HostError, LdomsError
from ldoms.model.operation import Operation
from ldoms.model.partition import shrink_memory
from ldoms.model.sizes import ACTIVE_ALIGNMENT_MIB, BOUND_ALIGNMENT_MIB, align_up

KIND = "memdr"
"""Of the operation: memory dynamic reconfiguration, as ``cancel-operation`` and ``list -o status`` call it."""
STALL_S = 20.0
"""A guest that has taken or given back nothing for so long is not waited for any more."""
POLL_S = 0.05
_ROUNDS = 10

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MemoryChange:
    """The work of one operation, begun when its memory is reserved.

    Attributes:
        uuid, name: of the domain.
        before_mib: that it had when the change was asked for.
        wanted_mib: that it is to have.
    """

    host: Host
    uuid: str
    name: str
    before_mib: int
    wanted_mib: int

    @classmethod
    def of(cls, host: Host, operation: Operation) -> MemoryChange:
        """The change that an operation of an earlier manager was about."""
        asked = operation.asked
        return cls(host, str(asked["uuid"]), operation.domain, int(asked["before_mib"]), int(asked["wanted_mib"]))

    @property
    def asked(self) -> Mapping[str, Any]:
        """What must be known to go on after a restart of the manager."""
        return {"uuid": self.uuid, "before_mib": self.before_mib, "wanted_mib": self.wanted_mib}

    @property
    def _grows(self) -> bool:
        return self.wanted_mib > self.before_mib

    async def run(self, handle: Handle) -> Mapping[str, Any]:
        """Ask the guest, wait until it has done all or does no more, and keep the account of what it has done.

        Raises:
            HostError: code ``memory-partial``: the guest has done less than was asked, or nothing; ``qemu-silent``: it
                is not known what it has done, see `settle_broken`.
            Cancelled: somebody has asked for an end before it had done all.
        """
        guest = self.host.guests.require(self.uuid, self.name).guest
        try:
            await guest.request_memory(self.wanted_mib - self._boot_mib)
            await self._follow(guest, handle)
            handle.update(may_cancel=False)
            now = await self.settle(guest)
        except HostError as error:
            if guest.is_gone or error.code == "qemu-gone":
                give_back(self.host, self.uuid, self.before_mib)
                raise HostError(
                    f"the guest of LDom {self.name} ended while its memory was being changed", code="guest-ended"
                ) from error
            if error.code == "qemu-silent":
                raise HostError(
                    f"the QEMU of LDom {self.name} does not answer: how much memory its guest has is found out as soon"
                    " as it does; until then what was to be added is kept for it",
                    code=error.code,
                ) from error
            raise
        if now != self.wanted_mib:
            raise self._shortfall(now, cancelled=handle.cancelled.is_set())
        return self._amounts(now)

    async def settle(self, guest: Guest) -> int:
        """Have the guest stay with what it has, and give to others what it has not; that is what is returned."""
        boot, held = self._boot_mib, self.wanted_mib
        low, high = sorted((self.before_mib, self.wanted_mib))
        for _ in range(_ROUNDS):  # it may have taken or given back some more before it hears of it
            added = await guest.added_memory()
            assert added is not None
            held = min(high, max(low, boot + align_up(added.size_mib, ACTIVE_ALIGNMENT_MIB)))
            if boot + added.requested_mib == held:
                break
            await guest.request_memory(held - boot)
        give_back(self.host, self.uuid, held)
        return held

    # Inside

    @property
    def _domain(self) -> Domain:
        domain = self.host.store.domain_by_uuid(self.uuid)
        assert domain is not None, "nobody else may remove it meanwhile"
        return domain

    @property
    def _boot_mib(self) -> int:
        bindings = self._domain.bindings
        assert bindings is not None, "nobody else may unbind it meanwhile"
        return bindings.first_memory_mib

    async def _follow(self, guest: Guest, handle: Handle) -> None:
        """Return when the guest has done all, has done nothing for too long, or somebody wants an end."""
        clock, boot = asyncio.get_running_loop().time, self._boot_mib
        size, last_step = -1, clock()
        while not handle.cancelled.is_set():
            added = await guest.added_memory()
            assert added is not None
            if added.size_mib != size:
                size, last_step = added.size_mib, clock()
                handle.update(progress=self._percent(boot + size))
            elif clock() - last_step > STALL_S:
                return
            if boot + size >= self.wanted_mib if self._grows else boot + size <= self.wanted_mib:
                return
            await asyncio.sleep(POLL_S)

    def _percent(self, now_mib: int) -> int:
        share = (now_mib - self.before_mib) / (self.wanted_mib - self.before_mib)
        return round(100 * min(1.0, max(0.0, share)))

    def _amounts(self, now_mib: int) -> dict[str, Any]:
        return {
            "asked_mib": abs(self.wanted_mib - self.before_mib),
            "done_mib": abs(now_mib - self.before_mib),
            "memory_mib": now_mib,
        }

    def _shortfall(self, now_mib: int, *, cancelled: bool) -> LdomsError:
        amounts = self._amounts(now_mib)
        asked, done = amounts["asked_mib"], amounts["done_mib"]
        what = f"only {done}M of the {asked}M that were asked for" if done else f"none of the {asked}M asked for"
        was = f"LDom {self.name} has {now_mib}M now"
        if cancelled:
            verb = "added to" if self._grows else "removed from"
            return Cancelled(f"cancelled: {what} {'were' if done else 'was'} {verb} LDom {self.name}; {was}", **amounts)
        if self._grows:
            reason = (
                "is its first memory too small for the account of more?" if done else "has it the driver virtio_mem?"
            )
            sentence = f"the guest of LDom {self.name} has taken {what}: {reason} {was}"
        else:
            reason = "it uses the rest, or its kernel cannot let go of it"
            sentence = f"the guest of LDom {self.name} has given back {what}: {reason}; {was}"
        return HostError(sentence, code="memory-partial", **amounts)


async def is_settled(domain: Domain, guest: Guest) -> bool:
    """Whether the guest of a domain is asked for just as much as is kept for it, and the domain asks for that."""
    bindings, added = domain.bindings, await guest.added_memory()
    if bindings is None or added is None:
        return True
    wanted = align_up(domain.constraints.memory_mib, BOUND_ALIGNMENT_MIB)
    return bindings.first_memory_mib + added.requested_mib == bindings.memory_mib == wanted


async def settle_broken(host: Host, domain: Domain, guest: Guest) -> Domain:
    """Find out what has become of a change whose end is not known, if there was one, and keep the account of it.

    It shows: the guest is asked for another amount than is kept for the domain, or more is kept for it than it asks
    for.

    Raises:
        HostError: QEMU does not answer.
    """
    bindings = domain.bindings
    if bindings is None or await is_settled(domain, guest):
        return domain
    kept, boot = bindings.memory_mib, bindings.first_memory_mib
    held = await MemoryChange(host, domain.uuid, domain.name, boot, kept).settle(guest)
    _log.warning("memory-settled", domain=domain.name, kept_mib=kept, memory_mib=held)
    return host.store.domain(domain.name)


def give_back(host: Host, uuid: str, memory_mib: int) -> None:
    """Let a domain have no more than `memory_mib`, and remember that it asks for that."""
    domain = host.store.domain_by_uuid(uuid)
    if domain is None or domain.bindings is None:
        return
    constraints = domain.constraints
    if align_up(constraints.memory_mib, BOUND_ALIGNMENT_MIB) != memory_mib:
        constraints = replace(constraints, memory_mib=memory_mib)
    bindings = replace(domain.bindings, memory=shrink_memory(domain.bindings.memory, memory_mib))
    if not bindings.added_memory_mib:
        bindings = replace(bindings, boot_memory_mib=0)
    host.save(replace(domain, constraints=constraints, bindings=bindings))
