"""Virtual CPUs: asked for, given, and taken back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ldoms.manager.host import Host
from ldoms.model.domain import Bindings, Domain
from ldoms.model.errors import RequestError
from ldoms.model.partition import Partition

Change = Callable[[int], int]
"""From what a domain has to what it is to have."""


class VcpuVerbs:
    """``add-vcpu``, ``set-vcpu``, ``remove-vcpu``.

    An inactive domain only remembers the wish; a bound one is given or gives back at once; for the control domain it
    changes at once what the guests' QEMU processes may use.
    """

    def __init__(self, host: Host) -> None:
        self._host = host

    async def add(self, name: str, count: int) -> Domain:
        """Give a domain `count` more virtual CPUs."""
        return await self._set(name, "add-vcpu", lambda now: now + count)

    async def remove(self, name: str, count: int) -> Domain:
        """Take `count` virtual CPUs from a domain."""
        return await self._set(name, "remove-vcpu", lambda now: now - count)

    async def set(self, name: str, count: int) -> Domain:
        """Make it `count` virtual CPUs."""
        return await self._set(name, "set-vcpu", lambda now: count)

    # Inside

    async def _set(self, name: str, verb: str, change: Change) -> Domain:
        with self._host.changing(name, verb) as domain:
            now = domain.constraints.vcpus
            wanted = change(now)
            if wanted < 1:
                raise RequestError(
                    f"LDom {name} has {now} virtual CPUs and must keep at least one", code="last-vcpu", now=now
                )
            self._host.check_not_active(domain, "virtual CPUs")
            partition = self._host.partition()
            if wanted > len(partition.size.strands):
                partition.pick_strands(wanted - now, name, already=now)  # says what is free
            changed = replace(domain, constraints=replace(domain.constraints, vcpus=wanted))
            if domain.bindings is not None:
                changed = replace(changed, bindings=_with_vcpus(partition, domain, domain.bindings, wanted))
            self._host.save(changed)
            if changed.is_control:
                await self._host.engine.place_control(self._host.control_placement())
            return changed


def _with_vcpus(partition: Partition, domain: Domain, bindings: Bindings, wanted: int) -> Bindings:
    kept = bindings.vcpus[:wanted]
    added = partition.pick_strands(wanted - len(kept), domain.name, already=len(kept))
    return replace(bindings, vcpus=(*kept, *partition.bind_vcpus(added, first_vid=len(kept))))
