"""Memory: asked for, given, and taken back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ldoms.manager.host import Host
from ldoms.model.domain import Bindings, Domain
from ldoms.model.errors import RequestError
from ldoms.model.partition import Partition, shrink_memory
from ldoms.model.sizes import ACTIVE_ALIGNMENT_MIB, BOUND_ALIGNMENT_MIB, MIB, align_up, format_size

MIN_PRIMARY_MIB = 256

Change = Callable[[int], int]
"""From what a domain has to what it is to have."""


class MemoryVerbs:
    """``add-memory``, ``set-memory``, ``remove-memory``.

    An inactive domain only remembers the wish; a bound one is given or gives back at once; for the control domain it
    changes at once what the guests' QEMU processes may use.
    """

    def __init__(self, host: Host) -> None:
        self._host = host

    async def add(self, name: str, size_mib: int) -> Domain:
        """Give a domain `size_mib` more memory."""
        return await self._set(name, "add-memory", lambda now: now + size_mib)

    async def remove(self, name: str, size_mib: int) -> Domain:
        """Take `size_mib` memory from a domain."""
        return await self._set(name, "remove-memory", lambda now: now - size_mib)

    async def set(self, name: str, size_mib: int) -> Domain:
        """Make it `size_mib` memory."""
        return await self._set(name, "set-memory", lambda now: size_mib)

    # Inside

    async def _set(self, name: str, verb: str, change: Change) -> Domain:
        with self._host.changing(name, verb) as domain:
            now = domain.constraints.memory_mib
            wanted = change(now)
            least = MIN_PRIMARY_MIB if domain.is_control else BOUND_ALIGNMENT_MIB
            if wanted < least:
                raise RequestError(
                    f"LDom {name} has {now}M of memory and must keep at least {least}M",
                    code="last-memory",
                    now_mib=now,
                )
            self._host.check_not_active(domain, "memory")
            if domain.is_control:
                _check_alignment(name, verb, now, wanted)
            partition = self._host.partition()
            if wanted > partition.size.memory_mib:
                partition.pick_memory(wanted - now, name)  # says what is free
            changed = replace(domain, constraints=replace(domain.constraints, memory_mib=wanted))
            if domain.bindings is not None:
                changed = replace(changed, bindings=_with_memory(partition, domain, domain.bindings, wanted))
            return self._host.save(changed)


def _with_memory(partition: Partition, domain: Domain, bindings: Bindings, wanted_mib: int) -> Bindings:
    wanted_mib = align_up(wanted_mib, BOUND_ALIGNMENT_MIB)
    kept = shrink_memory(bindings.memory, wanted_mib)
    have = sum(block.size_mib for block in kept)
    if have == wanted_mib:
        return replace(bindings, memory=kept)
    return replace(bindings, memory=(*kept, *partition.pick_memory(wanted_mib - have, domain.name, have)))


def _check_alignment(name: str, verb: str, now_mib: int, wanted_mib: int) -> None:
    """The rule for a domain that runs, and its words, as scripts know them."""
    difference = abs(wanted_mib - now_mib)
    if difference % ACTIVE_ALIGNMENT_MIB == 0:
        return
    aligned = now_mib + (wanted_mib - now_mib) // ACTIVE_ALIGNMENT_MIB * ACTIVE_ALIGNMENT_MIB
    if wanted_mib < now_mib:
        aligned = now_mib - difference // ACTIVE_ALIGNMENT_MIB * ACTIVE_ALIGNMENT_MIB
    short = {"set-memory": "set-mem", "add-memory": "add-mem", "remove-memory": "rm-mem"}[verb]
    asked = wanted_mib if verb == "set-memory" else difference
    direction = "remove" if wanted_mib < now_mib else "add"
    raise RequestError(
        f"A ldm {short} {format_size(asked * MIB)} command would {direction} {difference}MB, which is not a\n"
        f"multiple of {ACTIVE_ALIGNMENT_MIB}MB. Instead, run ldm set-mem {aligned}M {name}\n"
        f"to ensure a {ACTIVE_ALIGNMENT_MIB}MB alignment.",
        code="bad-alignment",
        aligned_mib=aligned,
    )
