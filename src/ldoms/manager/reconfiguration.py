"""``start-reconf``, ``cancel-reconf``: changes of the control domain that wait for the next power-on.

Here every change of the control domain can be made at once, so nothing forces anybody to wait. Whoever asks for a
delayed reconfiguration gets what LDoms gives: from then on changes of primary's CPUs and memory are collected, other
domains are not changed, and the next power-on makes the changes.
"""

from __future__ import annotations

import json
from dataclasses import replace

import structlog

from ldoms.manager.host import RECONFIGURATION, Host
from ldoms.manager.memory import MIN_PRIMARY_MIB, MemoryVerbs
from ldoms.manager.vcpus import VcpuVerbs
from ldoms.model.codec import from_wire, to_wire
from ldoms.model.configuration import PendingChange
from ldoms.model.cores import CpuChange, asked, with_cpus
from ldoms.model.domain import Constraints
from ldoms.model.errors import Busy, LdomsError, RequestError
from ldoms.model.events import EventKind
from ldoms.model.identity import CONTROL_DOMAIN
from ldoms.model.named_cores import check_exist
from ldoms.model.sizes import ACTIVE_ALIGNMENT_MIB, align_up

_log = structlog.get_logger(__name__)


class Reconfiguration:
    """The delayed reconfiguration of a host's control domain, if one is pending."""

    def __init__(self, host: Host, vcpus: VcpuVerbs, memory: MemoryVerbs) -> None:
        self._host = host
        self._vcpus = vcpus
        self._memory = memory

    @property
    def pending(self) -> PendingChange | None:
        """What waits for the next power-on; None if no delayed reconfiguration was started."""
        known = self._host.store.recall(RECONFIGURATION)
        return from_wire(PendingChange, json.loads(known)) if known else None

    def delays(self, name: str) -> bool:
        """Whether a change of that domain's CPUs or memory waits for the next power-on."""
        return name == CONTROL_DOMAIN and self._host.is_reconfiguring

    def start(self, name: str) -> None:
        """Let changes of the control domain wait from now on.

        Raises:
            RequestError: it is another domain, or one is pending already.
            Busy: an operation is under way.
        """
        if not self._host.store.domain(name).is_control:
            raise RequestError(
                f"Delayed reconfiguration of LDom {name} is not permitted: only {CONTROL_DOMAIN} can wait for a reboot",
                code="no-delayed-reconfiguration",
            )
        if self._host.is_reconfiguring:
            raise RequestError(
                f"a delayed reconfiguration of LDom {name} is pending already", code="reconfiguration-pending"
            )
        for operation in self._host.operations.list():
            if not operation.is_over:
                raise Busy(
                    f"LDom {operation.domain} is busy: operation {operation.kind} is under way; wait for it to end"
                )
        self._put(PendingChange())

    def cancel(self, name: str) -> None:
        """Forget the changes that wait.

        Raises:
            RequestError: none is pending.
        """
        self._host.store.domain(name)
        if not self.delays(name):
            raise RequestError(f"no delayed reconfiguration of LDom {name} is pending", code="no-reconfiguration")
        self._put(None)

    def change_cpus(self, change: CpuChange) -> None:
        """Note which virtual CPUs or whole cores the control domain is to have.

        Raises:
            RequestError: it would have none, or more than the host has; or see `asked`.
        """
        pending, control = self._both()
        size = self._host.size
        now = with_cpus(control, pending.cpus) if pending.cpus else control
        wanted = asked(CONTROL_DOMAIN, now, change, size.strands_per_cpu, bound=False)
        check_exist(self._host.partition(), CONTROL_DOMAIN, wanted.core_ids)
        most = len(size.strands)
        if wanted.vcpus > most:
            raise RequestError(
                f"LDom {CONTROL_DOMAIN} is to have {now.vcpus} virtual CPUs after the reboot, and can have 1 to {most}",
                code="bad-amount",
            )
        self._put(replace(pending, cpus=with_cpus(Constraints(), wanted)))

    def change_memory(self, action: str, size_mib: int) -> None:
        """Note how much memory the control domain is to have, in steps of 256 MiB, rounded up.

        Raises:
            RequestError: it would have too little, or more than the host has.
        """
        pending, control = self._both()
        now = control.memory_mib if pending.memory_mib is None else pending.memory_mib
        wanted = align_up(_changed(action, now, size_mib), ACTIVE_ALIGNMENT_MIB)
        most = self._host.size.memory_mib
        if not MIN_PRIMARY_MIB <= wanted <= most:
            raise RequestError(
                f"LDom {CONTROL_DOMAIN} is to have {now}M of memory after the reboot, and can have {MIN_PRIMARY_MIB}M"
                f" to {most}M",
                code="bad-amount",
            )
        self._put(replace(pending, memory_mib=wanted))

    async def apply(self) -> None:
        """Make the changes, as the host was off; what cannot be made is logged."""
        pending = self.pending
        if pending is None:
            return
        try:
            if pending.cpus is not None:
                await self._vcpus.change_control(pending.cpus)
            if pending.memory_mib is not None:
                await self._memory.set(CONTROL_DOMAIN, pending.memory_mib)
        except LdomsError as error:
            _log.error("reconfiguration-failed", reason=error.message)
        self._put(None)

    def _both(self) -> tuple[PendingChange, Constraints]:
        return self.pending or PendingChange(), self._host.store.domain(CONTROL_DOMAIN).constraints

    def _put(self, pending: PendingChange | None) -> None:
        with self._host.store.transaction():
            self._host.store.remember(RECONFIGURATION, json.dumps(to_wire(pending)) if pending else "")
            self._host.events.publish(EventKind.DOMAIN_CHANGED, CONTROL_DOMAIN)


def _changed(action: str, now: int, amount: int) -> int:
    return {"add": now + amount, "remove": now - amount}.get(action, amount)
