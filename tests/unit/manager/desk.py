"""A host on fakes with services and a domain, to type commands at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from ldoms.hypervisor.fake import FakeWorld
from ldoms.manager.manager import Manager
from ldoms.migration.fake import FakeLink
from ldoms.storage.fake import FakeDisks
from unit.clock import run
from unit.migration.harness import FakeHost

IMAGES = {"/images/a.qcow2": "qcow2", "/images/b.raw": "raw"}


def fake_host(directory: Path) -> FakeHost:
    """A host whose manager is not started yet: two CPUs of four strands, 8 GiB."""
    host = FakeHost("t4-1", FakeLink(), FakeWorld(), FakeDisks(images=dict(IMAGES)), directory)
    host.network.interfaces.add("eth1")
    return host


async def furnish(manager: Manager) -> None:
    """Leave two strands and half the memory to primary; make a service of each kind, and ldg1, inactive."""
    await manager.vcpus.set("primary", 2)
    await manager.memory.set("primary", 4096)
    manager.disk_services.add("primary-vds0", "primary")
    await manager.disk_services.add_volume("primary-vds0", "a", "/images/a.qcow2", (), "", force=False, quick=False)
    await manager.switches.add("primary-vsw0", "primary", {})
    manager.concentrators.add("primary-vcc0", "primary", "5000-5001")
    await manager.domains.add("ldg1", {})
    await manager.vcpus.set("ldg1", 1)
    await manager.memory.set("ldg1", 1024)
    await manager.disks.add("ldg1", "vdisk0", "a", "primary-vds0", 0, None)
    await manager.networks.add("ldg1", "vnet0", "primary-vsw0", {})


def at_desk(directory: Path, work: Callable[[FakeHost, Manager], Awaitable[None]]) -> None:
    """Do some work at a furnished host, and stop it again."""

    async def main() -> None:
        host = fake_host(directory)
        manager = await host.start()
        try:
            await furnish(manager)
            await work(host, manager)
        finally:
            await host.stop()

    run(main())
