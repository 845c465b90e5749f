"""Two who ask for the same at once: one gets it, whatever each of them has to wait for meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import pytest

from ldoms.hypervisor.fake import FakeGuest
from ldoms.hypervisor.states import GuestEventKind
from ldoms.manager.manager import Manager
from ldoms.model.errors import HostError, LdomsError
from ldoms.model.services import VirtualSwitch
from unit.manager.desk import at_desk
from unit.migration.harness import FakeHost

VDS, VSW = "primary-vds0", "primary-vsw0"


async def two_guests(host: FakeHost, manager: Manager) -> tuple[FakeGuest, FakeGuest]:
    """Those of ldg1 and ldg2, which run."""
    await manager.disk_services.add_volume(VDS, "b", "/images/b.raw", (), "", force=False, quick=False)
    await manager.domains.add("ldg2", {})
    await manager.vcpus.set("ldg2", 1)
    await manager.memory.set("ldg2", 1024)
    for name in ("ldg1", "ldg2"):
        await manager.life.bind(name)
        await manager.life.start(name)
    uuids = [manager.host.store.domain(name).uuid for name in ("ldg1", "ldg2")]
    first, second = (host.engine.guests[uuid] for uuid in uuids)
    return first, second


async def at_once(*works: Awaitable[object]) -> list[str]:
    """Do all of them; the codes of those that were refused."""
    answers = await asyncio.gather(*works, return_exceptions=True)
    codes = []
    for answer in answers:
        if isinstance(answer, BaseException):
            assert isinstance(answer, LdomsError), repr(answer)
            codes.append(answer.code)
    return codes


def test_a_volume_is_given_to_one(tmp_path: Path) -> None:
    """Also while the guest of the other is being given it, or has its disk put on it."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await two_guests(host, manager)
        added = [manager.disks.add(name, "data", "b", VDS, 0, None) for name in ("ldg1", "ldg2")]
        assert await at_once(*added) == ["volume-in-use"]
        holder = next(
            domain.name for domain in manager.host.store.domains() if any(disk.name == "data" for disk in domain.disks)
        )
        await manager.disks.remove(holder, "data", force=False)
        put = manager.disks.set("ldg1", "vdisk0", ("b", VDS), None)
        assert await at_once(put, manager.disks.add("ldg2", "data", "b", VDS, 0, None)) == ["volume-in-use"]

    at_desk(tmp_path, work)


def test_a_mac_address_is_given_to_one(tmp_path: Path) -> None:
    """Also while the guest of the other is being given it."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await two_guests(host, manager)
        mac = {"mac-addr": "00:14:4f:f9:00:77"}
        added = [manager.networks.add(name, "vnet1", VSW, mac) for name in ("ldg1", "ldg2")]
        assert await at_once(*added) == ["mac-in-use"]
        more = {"alt-mac-addrs": "00:14:4f:f9:00:88"}
        holder = "ldg1" if "vnet1" in {one.name for one in manager.host.store.domain("ldg1").networks} else "ldg2"
        other = "ldg2" if holder == "ldg1" else "ldg1"
        changed = (manager.networks.set(holder, "vnet1", more), manager.networks.add(other, "vnet1", VSW, more))
        assert await at_once(*changed) == ["mac-in-use"]

    at_desk(tmp_path, work)


def test_a_switch_that_goes_takes_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the moment on that it was found to be free; if the kernel keeps it, it is there as before."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.switches.add("other", "primary", {})
        remove, keeps = host.network.remove_switch, False

        async def slowly(switch: VirtualSwitch) -> None:
            await asyncio.sleep(1)
            if keeps:
                raise HostError("the kernel keeps it", code="no-interface")
            await remove(switch)

        monkeypatch.setattr(host.network, "remove_switch", slowly)
        gone = manager.switches.remove("other", force=False)
        assert await at_once(gone, manager.networks.add("ldg1", "vnet1", "other", {})) == ["not-found"]
        await manager.switches.add("other", "primary", {})
        keeps = True
        with pytest.raises(HostError):
            await manager.switches.remove("other", force=False)
        assert manager.host.store.services().switch("other")
        keeps = False

    at_desk(tmp_path, work)


def test_a_guest_that_hangs_holds_no_policy_up(tmp_path: Path) -> None:
    """What one domain is to be given does not wait for the guest of another."""

    async def work(host: FakeHost, manager: Manager) -> None:
        hung, busy = await two_guests(host, manager)
        hung.load = busy.load = 1.0
        eager = {"enable": "yes", "sample-rate": "2", "util-upper": "50", "util-lower": "20", "attack": "1"}
        for name in ("ldg1", "ldg2"):
            manager.policies.add(name, "follow", {**eager, "vcpu-max": "2"})
        hung.hangs = True
        await asyncio.sleep(3.5)  # a sample, and a look; a command that is not answered takes 5 s
        assert busy.vcpus == 2
        async with asyncio.timeout(1):
            await manager.host.operations.rest("ldg2")  # no command waits either
        hung.hangs = False

    at_desk(tmp_path, work)


def test_what_goes_wrong_at_the_end_of_a_guest_is_waited_for_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits until it is gone hears of it all the same."""

    async def work(host: FakeHost, manager: Manager) -> None:
        first, _ = await two_guests(host, manager)
        running = manager.host.guests.require(first.uuid, "ldg1")

        async def fails(running: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(manager.host.guests, "on_end", fails)
        with first.events() as events:
            first.die()
            assert (await events.get()).kind is GuestEventKind.GONE
        async with asyncio.timeout(5):
            await running.ended.wait()

    at_desk(tmp_path, work)


def test_a_guest_that_hangs_is_the_last_to_hear_of_a_cable(tmp_path: Path) -> None:
    """The others hear of it at once, not after the time that it may take to answer."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.switches.set("primary-vsw0", {"net-dev": "eth1", "linkprop": "phys-state"})
        first, second = await two_guests(host, manager)
        await manager.networks.add("ldg2", "vnet0", "primary-vsw0", {})
        await asyncio.sleep(0.1)
        first.hangs = True
        host.network.set_carrier("eth1", False)
        await asyncio.sleep(0.1)
        assert not second.links["network@0"]
        assert first.links.get("network@0", True)
        first.hangs = False
        await asyncio.sleep(10)
        manager.links.look()
        await asyncio.sleep(0.1)
        assert not first.links["network@0"], "it is told with the next news"

    at_desk(tmp_path, work)


def test_guests_that_hang_hold_a_restart_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one after the other: the manager of a host serves nobody before it has looked for its guests."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await two_guests(host, manager)

        find = host.engine.attach

        async def attach(uuid: str, name: str, directory: Path) -> FakeGuest | None:
            await asyncio.sleep(30)
            return await find(uuid, name, directory)

        for guest in host.engine.guests.values():
            guest.hangs = True
        with monkeypatch.context() as patched:
            patched.setattr(host.engine, "attach", attach)
            async with asyncio.timeout(36):
                assert await manager.life.find_guests()

    at_desk(tmp_path, work)
