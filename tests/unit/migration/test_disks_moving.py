"""Disks that were added, changed or lost while the guest ran: it moves with what it has."""

from __future__ import annotations

from pathlib import Path

from ldoms.hypervisor.specs import DiskSpec
from ldoms.model.operation import OperationStatus
from unit.clock import run
from unit.migration.harness import DOMAIN, Pair

VDS = "primary-vds0"
EXTRA, ONE, TWO = "/shared/extra", "/shared/one", "/shared/two"


async def make_pair(directory: Path) -> Pair:
    """An active domain, and more volumes on both hosts: one with a path, one with two."""
    pair = Pair(directory)
    pair.disks.images |= dict.fromkeys((EXTRA, ONE, TWO), "raw")
    await pair.set_up()
    for host in (pair.source, pair.target):
        assert host.manager is not None
        add = host.manager.disk_services.add_volume
        await add(VDS, "extra", EXTRA, (), "", force=False, quick=False)
        await add(VDS, "one", ONE, (), "g", force=False, quick=False)
        await add(VDS, "two", TWO, (), "g", force=False, quick=False)
    return pair


async def moved(pair: Pair) -> dict[str, DiskSpec]:
    """Move the domain, and look at the disks that its guest has on the target."""
    operation = await pair.wait(pair.migrate())
    assert operation.status is OperationStatus.SUCCESS, operation.error
    await pair.settle()
    pair.check_sound()
    guest = pair.target.guest
    assert guest is not None
    return {device: spec for device, spec in guest.plugged.items() if isinstance(spec, DiskSpec)}


def test_a_disk_that_was_added_hot_moves_along(tmp_path: Path) -> None:
    """To the same port, although another one is free below it; the target needs its volume, or nothing moves."""

    async def main() -> None:
        pair = await make_pair(tmp_path)
        await pair.manager.disks.add(DOMAIN, "vdisk1", "one", VDS, 0, None)
        await pair.manager.disks.add(DOMAIN, "vdisk2", "extra", VDS, 0, None)
        await pair.manager.disks.remove(DOMAIN, "vdisk1", force=False)
        target = pair.target.manager
        assert target is not None
        target.disk_services.remove_volume(VDS, "extra", force=False)
        operation = await pair.wait(pair.migrate())
        assert operation.status is OperationStatus.FAILURE
        assert pair.runs_on() == ["t4-1"]
        await target.disk_services.add_volume(VDS, "extra", EXTRA, (), "", force=False, quick=False)
        disks = await moved(pair)
        assert {device: (str(spec.path), spec.port) for device, spec in disks.items()} == {
            "disk@0": ("/shared/ldg1.qcow2", 0),
            "disk@2": (EXTRA, 3),
        }
        await pair.tear_down()

    run(main())


def test_a_guest_moves_by_the_path_that_works(tmp_path: Path) -> None:
    """The first one has failed; the checks look at what there is."""

    async def main() -> None:
        pair = await make_pair(tmp_path)
        await pair.manager.disks.add(DOMAIN, "vdisk1", "one", VDS, 0, None)
        del pair.disks.images[ONE]
        assert str((await moved(pair))["disk@1"].path) == TWO
        await pair.tear_down()

    run(main())


def test_an_empty_disk_moves_along(tmp_path: Path) -> None:
    """It was removed by force, and the guest still has it: so must the target's."""

    async def main() -> None:
        pair = await make_pair(tmp_path)
        await pair.manager.disks.add(DOMAIN, "vdisk1", "extra", VDS, 0, None)
        assert pair.source.guest is not None
        pair.source.guest.held.add("disk@1")
        await pair.manager.disks.remove(DOMAIN, "vdisk1", force=True)
        disks = await moved(pair)
        assert (disks["disk@1"].path, disks["disk@1"].port) == (None, 2)
        await pair.tear_down()

    run(main())
