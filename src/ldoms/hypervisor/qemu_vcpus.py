"""Virtual CPUs of a QEMU that runs: counted, plugged, unplugged, and which threads they are."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from ldoms.hypervisor.qmp import Monitor
from ldoms.model.errors import HostError

UNPLUG_POLL_S = 0.02
PAGING = 1 << 31
"""Bit of the register CR0 (Intel SDM 3A, 2.5): set by every operating system, not by firmware that waits."""


class QemuVcpus:
    """The virtual CPUs of one QEMU. The promises are those of `ldoms.hypervisor.engine.Guest`.

    Attributes:
        threads: of each virtual CPU, as they were when that was last looked at.
    """

    def __init__(self, name: str, monitor: Monitor) -> None:
        """Prepare for domain `name`; call `learn_threads` before anything else."""
        self._name = name
        self._monitor = monitor
        self.threads: tuple[int, ...] = ()

    async def learn_threads(self) -> None:
        """Ask QEMU which threads its virtual CPUs are."""
        cpus = await self._monitor.execute("query-cpus-fast")
        self.threads = tuple(cpu["thread-id"] for cpu in sorted(cpus, key=lambda cpu: cpu["cpu-index"]))

    async def count(self) -> int:
        """How many virtual CPUs its machine has."""
        return len(await self._monitor.execute("query-cpus-fast"))

    async def plug(self) -> int:
        """Give its machine the next virtual CPU; its number."""
        free = [socket for socket in await self._sockets() if "qom-path" not in socket]
        if not free:
            raise HostError(f"the machine of LDom {self._name} has no place for another virtual CPU", code="no-socket")
        vid = _vid(free[0])
        await self._monitor.execute("device_add", {"driver": free[0]["type"], "id": f"vcpu{vid}", **free[0]["props"]})
        await self.learn_threads()
        return vid

    async def unplug(self, limit_s: float) -> bool:
        """Take the last virtual CPU out of its machine; False if the guest has not let go of it in time."""
        # DEVICE_DELETED does not say which virtual CPU has gone: the sockets do.
        vid = await self.count() - 1
        (path,) = [socket["qom-path"] for socket in await self._sockets() if _vid(socket) == vid]
        try:
            await self._monitor.execute("device_del", {"id": path})
        except HostError as error:
            if "already in the process of unplug" not in error.message:
                raise
        clock = asyncio.get_running_loop().time
        deadline = clock() + limit_s
        while clock() < deadline:
            if any(_vid(socket) == vid and "qom-path" not in socket for socket in await self._sockets()):
                await self.learn_threads()
                return True
            await asyncio.sleep(UNPLUG_POLL_S)
        return False

    async def has_started(self, vid: int) -> bool:
        """Whether the guest has begun to use a virtual CPU."""
        # No command of QMP tells it. A CPU begins in real mode, and only an operating system leaves that for good.
        registers = await self._monitor.execute(
            "human-monitor-command", {"command-line": "info registers", "cpu-index": vid}
        )
        found = re.search(r"\bCR0=([0-9a-f]+)", registers)
        return found is not None and bool(int(found[1], 16) & PAGING)

    # Inside

    async def _sockets(self) -> list[dict[str, Any]]:
        """Places for virtual CPUs, by number; those that are taken have a ``qom-path``."""
        return sorted(await self._monitor.execute("query-hotpluggable-cpus"), key=_vid)


def _vid(socket: Mapping[str, Any]) -> int:
    return int(socket["props"]["core-id"])
