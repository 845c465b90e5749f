"""Disks and their volumes: given, changed and taken away, also while the guest runs; and nothing is done by halves."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from ldoms.hypervisor.fake import FakeGuest
from ldoms.hypervisor.specs import DiskSpec
from ldoms.manager.manager import Manager
from ldoms.model.domain import Domain
from ldoms.model.errors import HostError, LdomsError, NoResources, NotFound
from ldoms.model.services import Volume
from unit.manager.desk import at_desk
from unit.migration.harness import FakeHost

VDS = "primary-vds0"


async def make_active(manager: Manager) -> None:
    await manager.disk_services.add_volume(VDS, "b", "/images/b.raw", (), "", force=False, quick=False)
    await manager.life.bind("ldg1")
    await manager.life.start("ldg1")


def guest_of(host: FakeHost) -> FakeGuest:
    assert host.guest is not None
    return host.guest


def ports(domain: Domain) -> dict[str, int]:
    assert domain.bindings is not None
    return {port.device: port.number for port in domain.bindings.ports}


def disk_of(host: FakeHost, device: str) -> DiskSpec:
    spec = guest_of(host).plugged[device]
    assert isinstance(spec, DiskSpec)
    return spec


def volume_of(manager: Manager, name: str) -> Volume:
    return manager.host.store.services().disk_service(VDS).volume(name)


async def refused(code: str, work: object) -> LdomsError:
    with pytest.raises(LdomsError) as caught:
        await work  # type: ignore[misc]
    assert caught.value.code == code, caught.value.message
    return caught.value


def test_a_running_guest_is_given_a_disk_and_loses_it(tmp_path: Path) -> None:
    """Behind a port of its own, which is free again afterwards; the volume too."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await make_active(manager)
        added = await manager.disks.add("ldg1", "vdisk1", "b", VDS, 0, None)
        assert ports(added) == {"disk@0": 0, "network@0": 1, "disk@1": 2}
        spec = disk_of(host, "disk@1")
        assert (spec.path, spec.port, spec.boot_index, spec.format) == (Path("/images/b.raw"), 2, 2, "raw")
        removed = await manager.disks.remove("ldg1", "vdisk1", force=False)
        assert ports(removed) == {"disk@0": 0, "network@0": 1}
        assert set(guest_of(host).plugged) == {"disk@0", "network@0"}
        again = await manager.disks.add("ldg1", "other", "b", VDS, 0, 7)
        assert ports(again)["disk@7"] == 2

    at_desk(tmp_path, work)


def test_a_bound_domain_is_given_a_disk_and_loses_it(tmp_path: Path) -> None:
    """Its guest starts with what it has then."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await make_active(manager)
        await manager.life.stop("ldg1", force=True)
        await manager.disks.add("ldg1", "vdisk1", "b", VDS, 0, None)
        await manager.disks.remove("ldg1", "vdisk0", force=False)
        await manager.life.start("ldg1")
        assert {device: spec.port for device, spec in guest_of(host).plugged.items()} == {"network@0": 1, "disk@1": 2}

    at_desk(tmp_path, work)


def test_what_qemu_refuses_is_not_recorded(tmp_path: Path) -> None:
    """The domain is as before, and the volume is free."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await make_active(manager)
        before = manager.host.store.domain("ldg1")
        guest_of(host).broken.add(Path("/images/b.raw"))
        await refused("qemu-refused", manager.disks.add("ldg1", "vdisk1", "b", VDS, 0, None))
        assert manager.host.store.domain("ldg1") == before
        guest_of(host).broken.clear()
        await manager.disks.add("ldg1", "vdisk1", "b", VDS, 0, None)

    at_desk(tmp_path, work)


def test_a_guest_has_ports_for_so_many_disks_and_no_more(tmp_path: Path) -> None:
    """The last one is refused with what helps."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await make_active(manager)
        for number in range(1, 10):
            host.disks.images[f"/images/{number}"] = "raw"
            name, path = f"v{number}", f"/images/{number}"
            await manager.disk_services.add_volume(VDS, name, path, (), "", force=False, quick=False)
        for number in range(1, 9):
            await manager.disks.add("ldg1", f"vdisk{number}", f"v{number}", VDS, 0, None)
        with pytest.raises(NoResources, match="no root port left for disk@9: it was bound with 10"):
            await manager.disks.add("ldg1", "vdisk9", "v9", VDS, 0, None)
        assert len(guest_of(host).plugged) == 10
        await manager.life.stop("ldg1", force=True)
        await manager.life.unbind("ldg1")
        await manager.life.bind("ldg1")
        await manager.life.start("ldg1")
        await manager.disks.add("ldg1", "vdisk9", "v9", VDS, 0, None)

    at_desk(tmp_path, work)


def test_a_disk_that_the_guest_holds_stays(tmp_path: Path) -> None:
    """The record too; and when the guest lets it go at last, it is removed after all."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await make_active(manager)
        before = await manager.disks.add("ldg1", "vdisk1", "b", VDS, 0, None)
        guest_of(host).held.add("disk@1")
        error = await refused("device-held", manager.disks.remove("ldg1", "vdisk1", force=False))
        assert "disk vdisk1 is in use: the guest of LDom ldg1 has not let it go within 10 s" in error.message
        assert manager.host.store.domain("ldg1") == before
        assert disk_of(host, "disk@1").path == Path("/images/b.raw")
        guest_of(host).let_go("disk@1")
        await asyncio.sleep(0.1)
        left = manager.host.store.domain("ldg1")
        assert [disk.name for disk in left.disks] == ["vdisk0"]
        assert ports(left) == {"disk@0": 0, "network@0": 1}

    at_desk(tmp_path, work)


def test_a_disk_is_removed_by_force(tmp_path: Path) -> None:
    """Nothing is behind what the guest holds: its id and port stay taken until the guest lets go, or starts afresh."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await make_active(manager)
        await manager.disks.add("ldg1", "vdisk1", "b", VDS, 0, None)
        guest_of(host).held.add("disk@1")
        removed = await manager.disks.remove("ldg1", "vdisk1", force=True)
        assert [disk.name for disk in removed.disks] == ["vdisk0"]
        assert ports(removed) == {"disk@0": 0, "network@0": 1, "disk@1": 2}
        assert disk_of(host, "disk@1").path is None
        again = await manager.disks.add("ldg1", "vdisk1", "b", VDS, 0, None)
        assert ports(again)["disk@2"] == 3, "the volume is free, the id is not"
        guest_of(host).let_go("disk@1")
        await asyncio.sleep(0.1)
        assert "disk@1" not in ports(manager.host.store.domain("ldg1"))
        guest_of(host).held.add("disk@2")
        await manager.disks.remove("ldg1", "vdisk1", force=True)
        await manager.life.stop("ldg1", force=True)
        started = await manager.life.start("ldg1")
        assert ports(started) == {"disk@0": 0, "network@0": 1}
        assert set(guest_of(host).plugged) == {"disk@0", "network@0"}

    at_desk(tmp_path, work)


def test_the_medium_of_a_disk_is_changed(tmp_path: Path) -> None:
    """In the same place; the volume that it was on is free. In every state of the domain."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.disk_services.add_volume(VDS, "b", "/images/b.raw", (), "", force=False, quick=False)
        await manager.disks.set("ldg1", "vdisk0", ("b", VDS), None)
        await manager.life.bind("ldg1")
        await manager.disks.set("ldg1", "vdisk0", ("a", VDS), 30)
        await manager.life.start("ldg1")
        assert disk_of(host, "disk@0").path == Path("/images/a.qcow2")
        changed = await manager.disks.set("ldg1", "vdisk0", ("b", VDS), None)
        assert (changed.disk("vdisk0").volume, changed.disk("vdisk0").timeout_s) == ("b", 30)
        assert (disk_of(host, "disk@0").path, disk_of(host, "disk@0").port) == (Path("/images/b.raw"), 0)
        assert ports(changed) == {"disk@0": 0, "network@0": 1}
        await manager.disks.add("ldg1", "vdisk1", "a", VDS, 0, None)

    at_desk(tmp_path, work)


def test_a_medium_that_cannot_be_changed_stays(tmp_path: Path) -> None:
    """Held by the guest, not there, or refused by QEMU: the guest has the old one, and the record says so."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await make_active(manager)
        before = manager.host.store.domain("ldg1")
        guest_of(host).held.add("disk@0")
        await refused("device-held", manager.disks.set("ldg1", "vdisk0", ("b", VDS), None))
        guest_of(host).held.clear()
        guest_of(host).broken.add(Path("/images/b.raw"))
        await refused("qemu-refused", manager.disks.set("ldg1", "vdisk0", ("b", VDS), None))
        del host.disks.images["/images/b.raw"]
        await refused("no-image", manager.disks.set("ldg1", "vdisk0", ("b", VDS), None))
        assert manager.host.store.domain("ldg1") == before
        assert disk_of(host, "disk@0").path == Path("/images/a.qcow2")

    at_desk(tmp_path, work)


def test_volumes_for_readers_carry_many_disks(tmp_path: Path) -> None:
    """With ``ro``, unless ``excl`` says that one is enough."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.disk_services.add_volume(VDS, "iso", "/images/b.raw", ("ro",), "", force=False, quick=False)
        await manager.disks.add("ldg1", "cd0", "iso", VDS, 0, None)
        await manager.disks.add("ldg1", "cd1", "iso", VDS, 0, None)
        await manager.disk_services.set_volume(VDS, "iso", ("ro", "excl"), None, force=False)
        await refused("volume-in-use", manager.disks.add("ldg1", "cd2", "iso", VDS, 0, None))
        await manager.life.bind("ldg1")
        await manager.life.start("ldg1")
        assert disk_of(host, "disk@1").read_only

    at_desk(tmp_path, work)


def test_an_exclusive_back_end_is_offered_once(tmp_path: Path) -> None:
    """Whichever of the two says so, and whatever is insisted on."""

    async def work(host: FakeHost, manager: Manager) -> None:
        add = manager.disk_services.add_volume
        await add(VDS, "a2", "/images/a.qcow2", (), "", force=True, quick=False)
        await refused("backend-in-use", manager.disk_services.set_volume(VDS, "a", ("excl",), None, force=True))
        await add(VDS, "b", "/images/b.raw", ("excl",), "", force=False, quick=False)
        error = await refused("backend-in-use", add(VDS, "b2", "/images/b.raw", (), "", force=True, quick=False))
        assert "option excl of volume b forbids that, also with -f" in error.message
        await manager.disk_services.set_volume(VDS, "b", (), None, force=False)
        await add(VDS, "b2", "/images/b.raw", (), "", force=True, quick=False)
        assert volume_of(manager, "b").options == ()

    at_desk(tmp_path, work)


def test_a_volume_that_a_bound_domain_uses_is_not_changed(tmp_path: Path) -> None:
    """Nor removed, also with force; one that an inactive domain asks for can be."""

    async def work(host: FakeHost, manager: Manager) -> None:
        verbs = manager.disk_services
        await verbs.set_volume(VDS, "a", ("slice",), "g", force=False)
        assert (volume_of(manager, "a").options, volume_of(manager, "a").mpgroup) == (("slice",), "g")
        await make_active(manager)
        error = await refused("service-in-use", verbs.set_volume(VDS, "a", (), None, force=True))
        assert "volume a@primary-vds0 is attached to LDom ldg1" in error.message
        with pytest.raises(LdomsError, match="is attached to LDom ldg1"):
            verbs.remove_volume(VDS, "a", force=True)
        assert volume_of(manager, "a").options == ("slice",)

    at_desk(tmp_path, work)


def test_the_paths_of_a_group_must_look_alike(tmp_path: Path) -> None:
    """Format, size and options; what cannot be seen now is believed."""

    async def work(host: FakeHost, manager: Manager) -> None:
        add = manager.disk_services.add_volume
        host.disks.images["/paths/a2"] = "qcow2"
        await manager.disk_services.set_volume(VDS, "a", None, "g", force=False)
        error = await refused("bad-mpgroup", add(VDS, "b", "/images/b.raw", (), "g", force=False, quick=False))
        assert "differ in format" in error.message
        error = await refused("bad-mpgroup", add(VDS, "a2", "/paths/a2", ("ro",), "g", force=False, quick=False))
        assert "differ in options" in error.message
        await add(VDS, "a2", "/paths/a2", (), "g", force=False, quick=False)
        await add(VDS, "a3", "/paths/away", (), "g", force=False, quick=True)

    at_desk(tmp_path, work)


def test_the_first_path_that_works_is_used(tmp_path: Path) -> None:
    """At the start, and for a disk that is added; with none, the reason of the first is told."""

    async def work(host: FakeHost, manager: Manager) -> None:
        host.disks.images["/paths/a2"] = "qcow2"
        await manager.disk_services.set_volume(VDS, "a", None, "g", force=False)
        await manager.disk_services.add_volume(VDS, "a2", "/paths/a2", (), "g", force=False, quick=False)
        await refused("volume-in-use", manager.disks.add("ldg1", "vdisk1", "a2", VDS, 0, None))
        await manager.life.bind("ldg1")
        del host.disks.images["/images/a.qcow2"]
        await manager.life.start("ldg1")
        assert disk_of(host, "disk@0").path == Path("/paths/a2")
        await manager.disks.remove("ldg1", "vdisk0", force=False)
        await manager.disks.add("ldg1", "vdisk0", "a", VDS, 0, None)
        assert disk_of(host, "disk@0").path == Path("/paths/a2")
        await manager.life.stop("ldg1", force=True)
        host.disks.images.clear()
        with pytest.raises(HostError, match=r"/images/a\.qcow2"):
            await manager.life.start("ldg1")

    at_desk(tmp_path, work)


def test_a_guest_of_an_earlier_release_has_no_port_to_spare(tmp_path: Path) -> None:
    """It was bound when no root ports were kept, and is told what to do."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.disk_services.add_volume(VDS, "b", "/images/b.raw", (), "", force=False, quick=False)
        bound = await manager.life.bind("ldg1")
        assert bound.bindings is not None
        assert bound.bindings.machine is not None
        machine = replace(bound.bindings.machine, root_ports=0)
        manager.host.save(replace(bound, bindings=replace(bound.bindings, machine=machine)))
        await manager.life.start("ldg1")
        await refused("no-root-port", manager.disks.add("ldg1", "vdisk1", "b", VDS, 0, None))

    at_desk(tmp_path, work)


def test_what_came_or_went_while_no_manager_was_there_is_found_out(tmp_path: Path) -> None:
    """A disk that the guest has let go is not in the record any more; one that is in no record is taken back."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await make_active(manager)
        await manager.disks.add("ldg1", "vdisk1", "b", VDS, 0, None)
        await host.stop()
        guest = guest_of(host)
        unrecorded = replace(disk_of(host, "disk@1"), device="disk@5", port=4)
        guest.let_go("disk@1")
        guest.plugged["disk@5"] = unrecorded
        again = await host.start()
        await asyncio.sleep(1)
        domain = again.host.store.domain("ldg1")
        assert [disk.name for disk in domain.disks] == ["vdisk0"]
        assert ports(domain) == {"disk@0": 0, "network@0": 1}
        assert set(guest_of(host).plugged) == {"disk@0", "network@0"}

    at_desk(tmp_path, work)


def test_a_domain_is_bound_without_a_look_at_its_disks(tmp_path: Path) -> None:
    """The back end may come later, and is looked at when the domain is started; its volume must be there."""

    async def work(host: FakeHost, manager: Manager) -> None:
        add = manager.disk_services.add_volume
        await add("primary-vds0", "late", "/images/late", (), "", force=False, quick=True)
        await manager.disks.add("ldg1", "vdisk9", "late", "primary-vds0", 0, None)
        with pytest.raises(LdomsError):
            await manager.life.bind("ldg1")
        await manager.life.bind("ldg1", quick=True)
        with pytest.raises(LdomsError):
            await manager.life.start("ldg1")
        host.disks.images["/images/late"] = "raw"
        await manager.life.start("ldg1")
        await manager.life.stop("ldg1", force=True)
        await manager.life.unbind("ldg1")
        manager.disk_services.remove_volume("primary-vds0", "late", force=True)
        with pytest.raises(NotFound):
            await manager.life.bind("ldg1", quick=True)

    at_desk(tmp_path, work)
