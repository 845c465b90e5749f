"""A disk fails while the guest runs: another path, patience, or errors after a time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ldoms.hypervisor.fake import FakeGuest
from ldoms.hypervisor.specs import DiskSpec
from ldoms.hypervisor.states import RunState
from ldoms.manager.disk_errors import RETRY_S, SETTLE_S
from ldoms.manager.manager import Manager
from ldoms.model.domain import DomainState, DomainView
from ldoms.model.events import EventKind
from unit.manager.desk import at_desk
from unit.migration.harness import FakeHost

VDS = "primary-vds0"
ONE, TWO = "/paths/one", "/paths/two"
A_WHILE_S = RETRY_S + SETTLE_S + 0.1


async def make_active(host: FakeHost, manager: Manager, timeout_s: int = 0, image_format: str = "raw") -> None:
    """ldg1 runs, with vdisk1 on the first of two paths."""
    for name, path in (("one", ONE), ("two", TWO)):
        host.disks.images[path] = image_format
        await manager.disk_services.add_volume(VDS, name, path, (), "g", force=False, quick=False)
    await manager.life.bind("ldg1")
    await manager.life.start("ldg1")
    await manager.disks.add("ldg1", "vdisk1", "one", VDS, timeout_s, None)


def guest_of(host: FakeHost) -> FakeGuest:
    assert host.guest is not None
    return host.guest


def path_of(host: FakeHost) -> str | None:
    spec = guest_of(host).plugged["disk@1"]
    assert isinstance(spec, DiskSpec)
    return str(spec.path) if spec.path else None


def fail(host: FakeHost, *paths: str) -> None:
    """They can be opened all the same, as a block device can."""
    host.disks.broken |= set(paths)
    for path in paths:
        guest_of(host).fail(Path(path))
        guest_of(host).broken.discard(Path(path))


def recover(host: FakeHost, path: str) -> None:
    host.disks.broken.discard(path)
    guest_of(host).recover(Path(path))


def view(manager: Manager) -> DomainView:
    (found,) = manager.listing.domains(["ldg1"])
    return found


def told(host: FakeHost) -> list[tuple[str, object]]:
    kinds = (EventKind.DISK_FAILED, EventKind.DISK_RESTORED)
    events = [event for event in host.store.events() if event.kind in kinds]
    return [(event.kind.value, event.data.get("volume", event.data.get("tells_guest"))) for event in events]


def test_the_next_path_takes_over(tmp_path: Path) -> None:
    """The guest runs on, and listings show the path; when that fails, too, it goes back to the first."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await make_active(host, manager)
        assert view(manager).status.disk_paths == (("vdisk1", "one@primary-vds0"),)
        fail(host, ONE)
        await asyncio.sleep(SETTLE_S + 0.1)
        assert (guest_of(host).run_state, path_of(host)) == (RunState.RUNNING, TWO)
        assert view(manager).status.disk_paths == (("vdisk1", "two@primary-vds0"),)
        recover(host, ONE)
        fail(host, TWO)
        await asyncio.sleep(SETTLE_S + 0.1)
        assert (guest_of(host).run_state, path_of(host)) == (RunState.RUNNING, ONE)
        assert told(host) == [("disk-restored", "two@primary-vds0"), ("disk-restored", "one@primary-vds0")]

    at_desk(tmp_path, work)


def test_without_a_path_the_guest_stands_still(tmp_path: Path) -> None:
    """For as long as it takes; then it goes on by the path that works first."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await make_active(host, manager)
        fail(host, ONE, TWO)
        await asyncio.sleep(600)
        status = view(manager).status
        assert (status.state, status.softstate) == (DomainState.SUSPENDED, "waiting for a disk")
        assert guest_of(host).run_state is RunState.STALLED
        recover(host, TWO)
        await asyncio.sleep(A_WHILE_S)
        assert (guest_of(host).run_state, path_of(host)) == (RunState.RUNNING, TWO)
        assert view(manager).status.state is DomainState.ACTIVE
        assert told(host) == [("disk-failed", False), ("disk-restored", "two@primary-vds0")]

    at_desk(tmp_path, work)


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_after_its_timeout_the_guest_is_told(image_format: str, tmp_path: Path) -> None:
    """Not before; it runs on without the disk, which works again as soon as its back end does."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await make_active(host, manager, 30, image_format)
        fail(host, ONE, TWO)
        await asyncio.sleep(29)
        assert guest_of(host).run_state is RunState.STALLED
        await asyncio.sleep(1 + A_WHILE_S)
        assert (guest_of(host).run_state, path_of(host)) == (RunState.RUNNING, None)
        recover(host, ONE)
        await asyncio.sleep(A_WHILE_S)
        assert (guest_of(host).run_state, path_of(host)) == (RunState.RUNNING, ONE)
        assert told(host) == [("disk-failed", False), ("disk-failed", True), ("disk-restored", "one@primary-vds0")]

    at_desk(tmp_path, work)


def test_a_qcow2_image_waits_for_its_own_path(tmp_path: Path) -> None:
    """QEMU has tables of it that are not written yet: by another path they would be lost."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await make_active(host, manager, image_format="qcow2")
        fail(host, ONE)
        await asyncio.sleep(600)
        assert (guest_of(host).run_state, path_of(host)) == (RunState.STALLED, ONE)
        recover(host, ONE)
        await asyncio.sleep(A_WHILE_S)
        assert (guest_of(host).run_state, path_of(host)) == (RunState.RUNNING, ONE)

    at_desk(tmp_path, work)


def test_a_guest_that_waits_is_looked_after_by_the_next_manager(tmp_path: Path) -> None:
    """It knows the path from what the guest has open."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await make_active(host, manager)
        fail(host, ONE)
        await asyncio.sleep(SETTLE_S + 0.1)
        fail(host, TWO)
        await asyncio.sleep(1)
        await host.stop()
        again = await host.start()
        await asyncio.sleep(A_WHILE_S)
        assert view(again).status.disk_paths == (("vdisk1", "two@primary-vds0"),)
        assert guest_of(host).run_state is RunState.STALLED
        recover(host, ONE)
        await asyncio.sleep(A_WHILE_S)
        assert (guest_of(host).run_state, path_of(host)) == (RunState.RUNNING, ONE)

    at_desk(tmp_path, work)


def test_a_guest_can_be_stopped_while_it_waits(tmp_path: Path) -> None:
    """And nothing looks after it any more."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await make_active(host, manager)
        fail(host, ONE, TWO)
        await asyncio.sleep(60)
        await manager.life.stop("ldg1", force=True)
        assert view(manager).status.state is DomainState.BOUND
        await asyncio.sleep(A_WHILE_S)
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("disk-errors")]

    at_desk(tmp_path, work)
