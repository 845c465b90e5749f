"""Disks that the hosts do not share are copied, or everything stays, and nothing is left on the target."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ldoms.model.operation import Operation, OperationStatus
from ldoms.storage.fake import FakeDisks
from unit.clock import run
from unit.migration.harness import DOMAIN, Gates, Pair

VDS = "primary-vds0"
ROOT, DATA = "/shared/ldg1.qcow2", "/local/data.raw"


async def make_pair(directory: Path) -> Pair:
    """An active domain with two disks, on hosts that share nothing: one volume is known there, one is not."""
    pair = Pair(directory)
    pair.target.disks = FakeDisks(images={ROOT: "qcow2"})
    pair.disks.images[DATA] = "raw"
    await pair.set_up()
    del pair.target.disks.images[ROOT]
    assert pair.target.manager is not None
    pair.target.manager.disk_services.set_volume_format(VDS, "root", "")  # as add-vdsdev -q leaves it
    await pair.manager.disk_services.add_volume(VDS, "data", DATA, (), "", force=False, quick=False)
    await pair.manager.disks.add(DOMAIN, "vdisk1", "data", VDS, 0, None)
    guest = pair.source.guest
    assert guest is not None
    guest.write("disk@0", 7)
    guest.write("disk@1", 8)
    return pair


def moving(directory: Path, work: Callable[[Pair], Awaitable[None]]) -> None:
    async def main() -> None:
        pair = await make_pair(directory)
        try:
            await work(pair)
            await pair.settle()
            pair.check_sound()
            check_images(pair)
        finally:
            await pair.tear_down()

    run(main())


def migrate(pair: Pair, **options: Any) -> Operation:
    return pair.migrate(copy_storage=True, **options)


def volumes(pair: Pair) -> list[str]:
    """Of the target."""
    return [volume.name for volume in pair.target.store.services().disk_service(VDS).volumes]


def formats(pair: Pair) -> list[str]:
    """Of the volumes of the target."""
    return [volume.format for volume in pair.target.store.services().disk_service(VDS).volumes]


def check_images(pair: Pair) -> None:
    """The target has the images and the volume exactly if it has the domain; the source keeps its own."""
    assert not pair.target.disks.marks
    assert set(pair.disks.images) >= {ROOT, DATA}
    if pair.target.domain_names:
        assert pair.target.disks.images == {ROOT: "qcow2", DATA: "raw"}
        assert volumes(pair) == ["root", "data"]
        assert formats(pair) == ["qcow2", "raw"]
    else:
        assert pair.target.disks.images == {}
        assert volumes(pair) == ["root"]
        assert formats(pair) == [""]


async def until_copying(pair: Pair) -> None:
    """Wait until the disks are being copied."""
    while not (pair.source.guest and await pair.source.guest.mirrors()):
        await asyncio.sleep(0.01)


def test_disks_move_with_the_memory(tmp_path: Path) -> None:
    """What the guest writes meanwhile, too; the report has each disk, and the target whatever it needs for them."""

    async def work(pair: Pair) -> None:
        operation = migrate(pair)
        await until_copying(pair)
        assert pair.source.guest is not None
        await asyncio.sleep(0.3)
        figures = pair.manager.host.operations.get(operation.id).figures
        assert figures["status"] == "disks"
        assert [disk["disk"] for disk in figures["disks"]] == ["vdisk0", "vdisk1"]
        assert 0 < figures["disks"][0]["copied_bytes"] < figures["disks"][0]["total_bytes"]
        pair.source.guest.write("disk@0", 9)
        operation = await pair.wait(operation)
        assert operation.status is OperationStatus.SUCCESS, operation.error
        assert pair.runs_on() == ["t4-2"]
        assert pair.target.guest is not None
        assert pair.target.guest.contents == {"disk@0": 9, "disk@1": 8}
        report = operation.result["report"]
        assert [(disk["disk"], disk["path"]) for disk in report["storage"]] == [("vdisk0", ROOT), ("vdisk1", DATA)]
        assert all(disk["copied_bytes"] == disk["size_bytes"] and disk["seconds"] > 0 for disk in report["storage"])
        assert "vdisk0, vdisk1" in report["plan"]["reasons"]["disks"]

    moving(tmp_path, work)


def test_the_bandwidth_is_shared(tmp_path: Path) -> None:
    """By the disks that are copied."""

    async def work(pair: Pair) -> None:
        operation = migrate(pair, max_bandwidth_bytes_s=100)
        await until_copying(pair)
        assert pair.source.guest is not None
        assert pair.source.guest.limits == {"disk@0": 50, "disk@1": 50}
        assert (await pair.wait(operation)).status is OperationStatus.SUCCESS

    moving(tmp_path, work)


def test_the_bandwidth_may_change_on_the_way(tmp_path: Path) -> None:
    """The plan of the journal counts, as it is now."""

    async def work(pair: Pair) -> None:
        operation = migrate(pair, max_bandwidth_bytes_s=100)
        await until_copying(pair)
        journal = pair.manager.migrations._sources[DOMAIN]._journal
        journal.amend(plan=replace(journal.record.plan, max_bandwidth_bytes_s=60))  # type: ignore[type-var]
        await asyncio.sleep(0.3)
        assert pair.source.guest is not None
        assert pair.source.guest.limits == {"disk@0": 30, "disk@1": 30}
        assert (await pair.wait(operation)).status is OperationStatus.SUCCESS

    moving(tmp_path, work)


def test_a_dry_run_makes_nothing(tmp_path: Path) -> None:
    """It says that it would work."""

    async def work(pair: Pair) -> None:
        assert (await pair.wait(migrate(pair, dry_run=True))).status is OperationStatus.SUCCESS
        check_images(pair)

    moving(tmp_path, work)


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    """Neither when the check sees it, nor when it comes after the check; with force neither."""

    async def work(pair: Pair) -> None:
        images = pair.target.disks.images
        images[DATA] = "a stranger's"
        operation = await pair.wait(migrate(pair, force=True))
        assert "is there already on t4-2, and nothing is overwritten" in operation.error["message"]
        del images[DATA]
        survey = pair.target.manager.host.storage.survey  # type: ignore[union-attr]

        async def look_and_lose(*words: Any) -> Any:
            facts = await survey(*words)
            if facts.path == DATA:
                images[DATA] = "a stranger's"
            return facts

        pair.target.manager.host.storage.survey = look_and_lose  # type: ignore[union-attr, method-assign]
        operation = await pair.wait(migrate(pair))
        assert "is there already: it is not overwritten" in operation.error["message"]
        assert images == {DATA: "a stranger's"}
        assert volumes(pair) == ["root"]
        assert pair.runs_on() == ["t4-1"]
        del images[DATA]

    moving(tmp_path, work)


async def cancelled(pair: Pair) -> None:
    await pair.manager.migrations.cancel(DOMAIN, force=False)


async def target_killed(pair: Pair) -> None:
    assert pair.target.guest is not None
    pair.target.guest.die()


async def source_restarted(pair: Pair) -> None:
    await pair.source.restart()


async def target_powered_off(pair: Pair) -> None:
    await pair.target.lose_power()
    await asyncio.sleep(60)
    await pair.target.start()


async def nothing_arrives(pair: Pair) -> None:
    pair.world.shelf.is_stuck = True


@pytest.mark.parametrize(
    "trouble",
    [cancelled, target_killed, source_restarted, target_powered_off, nothing_arrives],
    ids=lambda trouble: trouble.__name__,
)
def test_trouble_while_disks_are_copied(trouble: Callable[[Pair], Awaitable[None]], tmp_path: Path) -> None:
    """The guest runs on, nothing of the copies is left in its QEMU, and nothing at all on the target."""

    async def work(pair: Pair) -> None:
        operation = migrate(pair)
        await until_copying(pair)
        await asyncio.sleep(0.2)
        await trouble(pair)
        await pair.settle()
        ended = pair.source.store.operation(operation.id)
        assert ended is not None
        assert ended.status is not OperationStatus.SUCCESS
        assert pair.runs_on() == ["t4-1"]
        assert pair.source.guest is not None
        assert await pair.source.guest.mirrors() == {}
        assert pair.source.guest.contents == {"disk@0": 7, "disk@1": 8}
        check_images(pair)
        pair.world.shelf.is_stuck = False
        assert (await pair.wait(migrate(pair))).status is OperationStatus.SUCCESS

    moving(tmp_path, work)


@pytest.mark.parametrize("is_cancelled", [True, False], ids=["cancelled", "done"])
@pytest.mark.parametrize("restarts", [True, False], ids=["after a restart", "soon"])
def test_images_whose_storage_is_away_are_not_forgotten(is_cancelled: bool, restarts: bool, tmp_path: Path) -> None:
    """They are kept or removed when it is back, as if it had never been away."""

    async def work(pair: Pair) -> None:
        operation = migrate(pair)
        await until_copying(pair)
        pair.target.disks.is_away = True
        if is_cancelled:
            await cancelled(pair)
        await pair.wait(operation)
        await pair.settle()
        await asyncio.sleep(60)
        assert set(pair.target.disks.marks) == {ROOT, DATA}
        if restarts:
            await asyncio.sleep(3600)
            await pair.target.stop()
        pair.target.disks.is_away = False
        if restarts:
            await asyncio.sleep(60)
            assert pair.target.disks.marks
            await pair.target.start()
        await asyncio.sleep(10)
        check_images(pair)
        assert pair.runs_on() == ["t4-1" if is_cancelled else "t4-2"]

    moving(tmp_path, work)


def test_a_target_whose_manager_restarts_goes_on(tmp_path: Path) -> None:
    """It finds its QEMU again, and what it had made for the disks."""

    async def work(pair: Pair) -> None:
        operation = migrate(pair)
        await until_copying(pair)
        await pair.target.restart()
        assert (await pair.wait(operation)).status is OperationStatus.SUCCESS
        assert pair.runs_on() == ["t4-2"]

    moving(tmp_path, work)


GATES = (
    *("target-prepare", "target-images-made", "target-prepared", "source-disks-copied", "source-suspend"),
    *("target-take-over", "target-taken", "target-running", "source-handing-off", "target-give-up"),
)


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("gate", GATES)
def test_a_manager_that_is_killed(gate: str, side: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At any point: after its restart the domain is on one host, and the images are where it is."""

    async def main() -> None:
        pair = await make_pair(tmp_path)
        gates = Gates(monkeypatch)
        gates.closed = gate
        operation = migrate(pair)
        if gate == "target-give-up":
            await until_copying(pair)
            assert pair.target.guest is not None
            pair.target.guest.die()
        async with asyncio.timeout(600):
            await gates.reached.wait()
        host = getattr(pair, side)
        await host.stop()
        gates.open(crashed=side)
        await host.start()
        await pair.settle()
        assert pair.source.store.operation(operation.id) is not None
        pair.check_sound()
        check_images(pair)
        assert len(pair.runs_on()) == 1
        if pair.runs_on() == ["t4-1"]:
            assert pair.source.guest is not None
            assert await pair.source.guest.mirrors() == {}
            assert pair.source.guest.contents == {"disk@0": 7, "disk@1": 8}
        else:
            assert pair.target.guest is not None
            assert pair.target.guest.contents == {"disk@0": 7, "disk@1": 8}
            assert not pair.target.guest.offered
        await pair.tear_down()

    run(main())


def test_a_write_that_does_not_arrive_keeps_the_guest_here(tmp_path: Path) -> None:
    """At the last moment: the suspension that was promised is not used up for it."""

    async def work(pair: Pair) -> None:
        operation = migrate(pair)
        await until_copying(pair)
        while not all(state.is_tied for state in (await pair.source.guest.mirrors()).values()):  # type: ignore[union-attr]
            await asyncio.sleep(0.01)
        pair.world.shelf.is_stuck = True
        operation = await pair.wait(operation)
        assert operation.status is OperationStatus.FAILURE
        assert "last writes have not reached the target" in operation.error["message"]
        assert pair.runs_on() == ["t4-1"]

    moving(tmp_path, work)


def test_a_shared_disk_is_not_copied(tmp_path: Path) -> None:
    """The option is about those that the hosts do not share."""

    async def main() -> None:
        pair = Pair(tmp_path)
        await pair.set_up()
        operation = await pair.wait(migrate(pair))
        assert operation.status is OperationStatus.SUCCESS, operation.error
        assert operation.result["report"]["storage"] == []
        await pair.settle()
        pair.check_sound()
        await pair.tear_down()

    run(main())


@pytest.mark.parametrize("state", ["inactive", "bound"])
def test_only_the_disks_of_a_guest_that_runs_are_copied(state: str, tmp_path: Path) -> None:
    """Otherwise it is refused, with the way to do it by hand."""

    async def main() -> None:
        pair = Pair(tmp_path)
        await pair.set_up(state)
        operation = await pair.wait(migrate(pair))
        assert "only the disks of a running guest are copied" in operation.error["message"]
        await pair.tear_down()

    run(main())


def test_a_device_is_overwritten_by_force_alone(tmp_path: Path) -> None:
    """And stays where it is, whatever becomes of the migration."""
    device = "/dev/sdz"

    async def main() -> None:
        pair = await make_pair(tmp_path)
        there = pair.target.disks
        there.images[device], there.sizes[device] = "raw", 1 << 30
        assert pair.target.manager is not None
        add = pair.target.manager.disk_services.add_volume
        await add(VDS, "data", device, (), "", force=False, quick=False)
        operation = await pair.wait(migrate(pair))
        assert f"whatever is on the device {device} of volume data@{VDS}" in operation.error["message"]
        operation = migrate(pair, force=True)
        await until_copying(pair)
        await pair.manager.migrations.cancel(DOMAIN, force=False)
        await pair.settle()
        assert (there.images, volumes(pair)) == ({device: "raw"}, ["root", "data"])
        assert pair.runs_on() == ["t4-1"]
        operation = await pair.wait(migrate(pair, force=True))
        assert operation.status is OperationStatus.SUCCESS, operation.error
        await pair.settle()
        assert there.images == {ROOT: "qcow2", device: "raw"}
        assert pair.target.guest is not None
        assert pair.target.guest.contents == {"disk@0": 7, "disk@1": 8}
        pair.check_sound()
        await pair.tear_down()

    run(main())
