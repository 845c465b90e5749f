"""What the manager does: bind, start, stop, find again; and that a failure leaves nothing behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from ldoms.hypervisor.fake import FakeGuest
from ldoms.hypervisor.states import RunState
from ldoms.manager.control_domain import fit
from ldoms.manager.manager import Manager
from ldoms.model.domain import DomainState
from ldoms.model.errors import Busy, HostError, LdomsError, RequestError
from ldoms.model.events import EventKind
from ldoms.model.migration import MigrationOptions, Preparation
from ldoms.model.partition import HostSize
from unit.clock import run
from unit.manager.desk import at_desk, fake_host, furnish
from unit.migration.harness import FakeHost


def state(manager: Manager, name: str = "ldg1") -> DomainState:
    (view,) = manager.listing.domains([name])
    return view.status.state


async def make_active(manager: Manager) -> None:
    await manager.life.bind("ldg1")
    await manager.life.start("ldg1")


def test_a_domain_goes_through_its_states_and_back(tmp_path: Path) -> None:
    """What it is given when it is bound is given back when it is unbound; each step is an event."""

    async def work(host: FakeHost, manager: Manager) -> None:
        free = len(manager.host.partition().free_strands)
        bound = await manager.life.bind("ldg1")
        assert bound.bindings is not None
        assert bound.bindings.machine is not None
        assert bound.bindings.machine.type == "pc-q35-10.0", "a versioned machine type is recorded"
        assert bound.bindings.machine.cpu.model == "qemu64-v1"
        assert bound.bindings.machine.max_vcpus == 8, "there are sockets for what the host could give"
        assert bound.bindings.console_port == 5000
        assert (state(manager), len(manager.host.partition().free_strands)) == (DomainState.BOUND, free - 1)
        assert not host.network.taps
        await manager.life.start("ldg1")
        assert state(manager) is DomainState.ACTIVE
        assert host.guest is not None
        assert host.guest.run_state is RunState.RUNNING
        assert len(host.network.taps) == 1
        await manager.life.stop("ldg1", force=True)
        assert state(manager) is DomainState.BOUND
        assert (host.guest, host.network.taps) == (None, {})
        await manager.life.unbind("ldg1")
        assert (state(manager), len(manager.host.partition().free_strands)) == (DomainState.INACTIVE, free)
        directory = manager.host.places.domain(host.store.domain("ldg1").uuid)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "qemu.log").write_text("what QEMU has said")
        manager.domains.remove("ldg1")
        assert not directory.exists()
        kinds = [event.kind for event in host.store.events() if event.domain == "ldg1"]
        assert kinds[-5:] == [
            EventKind.DOMAIN_BOUND,
            EventKind.DOMAIN_STARTED,
            EventKind.DOMAIN_STOPPED,
            EventKind.DOMAIN_UNBOUND,
            EventKind.DOMAIN_REMOVED,
        ]

    at_desk(tmp_path, work)


def test_a_guest_that_ends_by_itself_leaves_its_domain_bound(tmp_path: Path) -> None:
    """Powered off, or crashed: the event tells them apart, and its taps are gone."""

    async def work(host: FakeHost, manager: Manager) -> None:
        for kind in (EventKind.DOMAIN_STOPPED, EventKind.DOMAIN_CRASHED):
            if state(manager) is DomainState.INACTIVE:
                await manager.life.bind("ldg1")
            await manager.life.start("ldg1")
            assert host.guest is not None
            if kind is EventKind.DOMAIN_STOPPED:
                await host.guest.press_power_button()
            else:
                host.guest.die()
            await asyncio.sleep(1)
            assert state(manager) is DomainState.BOUND
            assert not host.network.taps
            assert host.store.events()[-1].kind is kind

    at_desk(tmp_path, work)


def test_a_guest_that_a_fault_of_qemu_ends_while_it_boots_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few times in a row; it has done nothing yet. Later it is a crash like any other."""
    has_booted = False

    async def sign_of_life(guest: FakeGuest) -> bool:
        return has_booted

    monkeypatch.setattr(FakeGuest, "has_driver", sign_of_life)
    monkeypatch.setattr(FakeGuest, "has_agent", sign_of_life)

    async def work(host: FakeHost, manager: Manager) -> None:
        nonlocal has_booted

        async def fault() -> None:
            assert host.guest is not None
            host.guest.die(boot_fault=True)
            await asyncio.sleep(1)

        await manager.life.bind("ldg1")
        await manager.life.start("ldg1")
        for _ in range(3):
            first = host.guest
            await fault()
            assert state(manager) is DomainState.ACTIVE
            assert host.guest is not first
        await fault()
        assert state(manager) is DomainState.BOUND

        await manager.life.start("ldg1")
        await fault()
        assert state(manager) is DomainState.ACTIVE, "an administrator's start is a new beginning"
        has_booted = True
        await asyncio.sleep(10)
        await fault()
        assert state(manager) is DomainState.BOUND, "it had booted"

    at_desk(tmp_path, work)


def test_a_start_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it fails: the image, the tap, QEMU, or its first word."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.life.bind("ldg1")

        async def fail(*arguments: object, **more: object) -> None:
            raise HostError("it broke", code="broken")

        for part, method in (
            (host.disks.images, ""),
            (manager.host.storage, "open"),
            (manager.host.network, "put_tap"),
            (manager.host.engine, "start"),
        ):
            with monkeypatch.context() as patch:
                if method:
                    patch.setattr(part, method, fail)
                else:
                    patch.delitem(host.disks.images, "/images/a.qcow2")
                with pytest.raises(HostError):
                    await manager.life.start("ldg1")
            assert (state(manager), host.network.taps, host.guest) == (DomainState.BOUND, {}, None)
        await manager.life.start("ldg1")
        assert state(manager) is DomainState.ACTIVE

    at_desk(tmp_path, work)


def test_a_bind_that_fails_reserves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its console port was taken in the last moment."""

    async def work(host: FakeHost, manager: Manager) -> None:
        async def taken(domain: object) -> None:
            raise HostError("console port 5000 cannot be opened", code="port-taken")

        free = manager.host.partition().free_strands
        monkeypatch.setattr(manager.consoles, "open", taken)
        with pytest.raises(HostError):
            await manager.life.bind("ldg1")
        assert state(manager) is DomainState.INACTIVE
        assert manager.host.partition().free_strands == free

    at_desk(tmp_path, work)


def test_a_restart_finds_everything_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest that runs, its bridge, and the one that has ended meanwhile; a lost console port stops nobody."""

    async def main() -> None:
        host = fake_host(tmp_path)
        manager = await host.start()
        await furnish(manager)
        await make_active(manager)
        guest = host.guest
        assert guest is not None
        await host.stop()
        assert guest.run_state is RunState.RUNNING
        host.network.bridges.clear()

        async def taken(self: object, port: int) -> None:
            raise OSError(98, "Address already in use")

        monkeypatch.setattr("unit.migration.harness.NoPort.open", taken)
        manager = await host.start()
        assert state(manager) is DomainState.ACTIVE
        assert list(host.network.bridges) == ["vsw0"]
        await host.stop()
        guest.die()
        manager = await host.start()
        assert state(manager) is DomainState.BOUND
        assert not host.network.taps
        assert host.store.events()[-1].kind is EventKind.DOMAIN_CRASHED
        await host.stop()

    run(main())


def test_a_guest_whose_qemu_is_silent_is_not_taken_for_an_ended_one(tmp_path: Path) -> None:
    """It may run: nobody unbinds, removes, starts or moves its domain; it can be ended by force, or answers again."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await make_active(manager)
        guest = host.guest
        assert guest is not None
        await host.stop()
        guest.hangs = True
        manager = await host.start()
        (view,) = manager.listing.domains(["ldg1"])
        shown = (view.status.state, view.status.flags, view.status.softstate)
        assert shown == (DomainState.ACTIVE, "-t----", "its QEMU does not answer")
        assert guest.spec.networks[0].tap in host.network.taps
        for refused in (manager.life.unbind("ldg1"), manager.life.start("ldg1")):
            with pytest.raises(RequestError, match="LDom ldg1 is active"):
                await refused
        with pytest.raises(RequestError, match="LDom ldg1 is bound"):
            manager.domains.remove("ldg1")
        with pytest.raises(HostError, match="did not answer"):
            await manager.life.stop("ldg1", force=False)
        assert state(manager) is DomainState.ACTIVE
        assert host.store.events()[-1].kind is EventKind.DOMAIN_SILENT
        guest.hangs = False
        await asyncio.sleep(10)
        (view,) = manager.listing.domains(["ldg1"])
        assert (view.status.flags, view.status.softstate) == ("-n----", "Fake OS 1 running")
        assert EventKind.DOMAIN_ANSWERS in [event.kind for event in host.store.events()]
        await host.stop()
        guest.hangs = True
        manager = await host.start()
        await manager.life.stop("ldg1", force=True)
        assert (state(manager), guest.is_gone) == (DomainState.BOUND, True)

    at_desk(tmp_path, work)


def test_a_guest_that_does_not_obey_goes_on_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says how to end it; and then it does."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await make_active(manager)
        with pytest.raises(HostError, match="'ldm stop-domain -f ldg1' ends it at once") as caught:
            await manager.life.stop("ldg1", force=False, limit_s=5)
        assert caught.value.code == "stop-timeout"
        assert state(manager) is DomainState.ACTIVE
        await manager.life.stop("ldg1", force=True)
        assert state(manager) is DomainState.BOUND

    at_desk(tmp_path, work)


def test_two_changes_of_one_domain_do_not_meet(tmp_path: Path) -> None:
    """The second one is refused and names the first; another domain is not concerned."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await make_active(manager)
        stopping = asyncio.create_task(manager.life.stop("ldg1", force=False, limit_s=50))
        await asyncio.sleep(1)
        assert state(manager) is DomainState.STOPPING
        with pytest.raises(Busy, match="LDom ldg1 is busy: stop-domain is under way; try again"):
            manager.domains.set_variables("ldg1", {"a": "b"})
        await manager.domains.add("ldg2", {})
        stopping.cancel()
        with pytest.raises((HostError, asyncio.CancelledError)):
            await stopping
        manager.domains.set_variables("ldg1", {"a": "b"})

    at_desk(tmp_path, work)


def test_primary_owns_everything_at_first_and_frees_it(tmp_path: Path) -> None:
    """As on SPARC; shrinking it moves QEMU's own threads at once."""

    async def main() -> None:
        host = fake_host(tmp_path)
        manager = await host.start()
        primary = manager.host.store.domain("primary")
        assert (primary.constraints.vcpus, primary.constraints.memory_mib) == (8, 8192)
        assert manager.host.partition().free_strands == ()
        await manager.vcpus.set("primary", 2)
        assert manager.host.partition().free_strands == (2, 3, 4, 5, 6, 7)
        assert host.engine.control is not None
        assert host.engine.control.cpus == {0}
        assert host.engine.control.quota == 0.5
        await host.stop()

    run(main())


@pytest.mark.parametrize(("strands", "memory"), [((0,), 512), ((0, 1), 16384)])
def test_a_machine_that_has_changed_is_fitted(tmp_path: Path, strands: tuple[int, ...], memory: int) -> None:
    """After a restart with fewer CPUs or less memory the control domain has what is there; what is more stays free."""

    async def main() -> None:
        host = fake_host(tmp_path)
        await host.start()
        await host.stop()
        size = HostSize(strands, 4, memory)
        fitted = fit(host.store.domain("primary"), size)
        assert fitted.bindings is not None
        assert set(fitted.bindings.strands) <= set(size.strands)
        assert fitted.bindings.memory_mib == min(memory, 8192)

    run(main())


def test_a_bound_domain_is_given_more_and_gives_back_at_once(tmp_path: Path) -> None:
    """CPUs and memory; what does not fit is refused with the figures and changes nothing."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.life.bind("ldg1")
        free = len(manager.host.partition().free_strands)
        assert len(host.store.domain("ldg1").bindings.vcpus) == 1  # type: ignore[union-attr]
        await manager.vcpus.add("ldg1", 3)
        assert len(manager.host.partition().free_strands) == free - 3
        await manager.vcpus.set("ldg1", 2)
        assert len(manager.host.partition().free_strands) == free - 1
        await manager.memory.set("ldg1", 2048)
        assert manager.host.partition().free_memory_mib == 2048
        with pytest.raises(LdomsError, match="2048M of this host's 8192M are free"):
            await manager.memory.set("ldg1", 5000)
        await manager.memory.remove("ldg1", 1024)
        assert manager.host.partition().free_memory_mib == 3072

    at_desk(tmp_path, work)


class Picks(random.Random):
    """Chance, as it is told."""

    def __init__(self, numbers: Iterator[int]) -> None:
        super().__init__()
        self._numbers = numbers

    def randint(self, a: int, b: int) -> int:
        return next(self._numbers)


def test_a_switch_that_cannot_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a bridge nor a record of it; the name is free again."""

    async def work(host: FakeHost, manager: Manager) -> None:
        async def look_only(device: str) -> None:
            host.network.interfaces.discard(device)  # pulled out, the moment after

        monkeypatch.setattr(host.network, "check_uplink", look_only)
        with pytest.raises(HostError, match="lost its uplink"):
            await manager.switches.add("vsw1", "primary", {"net-dev": "eth1"})
        assert [switch.name for switch in manager.host.store.services().switches] == ["primary-vsw0"]
        assert len(host.network.bridges) == 1
        await manager.switches.add("vsw1", "primary", {})

    at_desk(tmp_path, work)


def test_a_mac_address_that_another_manager_has_is_not_picked(tmp_path: Path) -> None:
    """The next one is; neither is picked again, although both are free here."""

    async def work(host: FakeHost, manager: Manager) -> None:
        picks = iter([0xF8_00_01, 0xF8_00_02, 0xF8_00_01, 0xF8_00_02, 0xF8_00_03])
        manager.host.random = Picks(picks)
        host.neighbours.holders["00:14:4f:f8:00:01"] = "t4-2"
        added = await manager.domains.add("ldg2", {})
        assert (added.mac, added.hostid) == ("00:14:4f:f8:00:02", "0x84f80002")
        manager.domains.remove("ldg2")
        assert (await manager.domains.add("ldg2", {})).mac == "00:14:4f:f8:00:03"

    at_desk(tmp_path, work)


def test_a_wished_mac_address_is_nobody_elses_business(tmp_path: Path) -> None:
    """As in LDoms: a cluster may well describe the same domain on two hosts."""

    async def work(host: FakeHost, manager: Manager) -> None:
        host.neighbours.holders["00:14:4f:fc:00:01"] = "t4-2"
        assert (await manager.domains.add("ldg2", {"mac-addr": "0:14:4f:fc:0:1"})).mac == "00:14:4f:fc:00:01"

    at_desk(tmp_path, work)


def test_a_subnet_that_has_every_mac_address_is_told_so(tmp_path: Path) -> None:
    """One sentence, after some tries; the domain is not made."""

    class Everything(dict[str, str]):
        def get(self, key: str, default: object = None) -> str:  # type: ignore[override]
            return "t4-9"

    async def work(host: FakeHost, manager: Manager) -> None:
        host.neighbours.holders = Everything()
        with pytest.raises(HostError, match="host t4-9 says that it has every MAC address that was picked: give one"):
            await manager.domains.add("ldg2", {})
        assert [domain.name for domain in manager.host.store.domains()] == ["primary", "ldg1"]

    at_desk(tmp_path, work)


def test_a_host_that_lets_nobody_in_refuses_whatever_the_source_has_checked(tmp_path: Path) -> None:
    """The switch is the target's own: a source that does not ask, or asked before, is refused too."""

    async def main() -> None:
        host = fake_host(tmp_path)
        host.incoming_enabled = False
        manager = await host.start()
        try:
            guest = replace(manager.host.store.domain("primary"), name="ldg1", uuid=str(uuid4()))
            preparation = Preparation("m", 1, "t4-2", guest, "", True, "root", None, MigrationOptions("t4-1"), key="")
            with pytest.raises(RequestError, match="incoming migration is switched off on t4-1: set incoming = true"):
                manager.target._local.check_admits(preparation)
        finally:
            await host.stop()

    run(main())
