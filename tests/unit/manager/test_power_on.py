"""What comes back after the host was off: the configuration, its guests in order; never what another host has."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from ldoms.manager.config import Config, LdmdConfig
from ldoms.manager.manager import Manager
from ldoms.migration.peer import Credentials
from ldoms.model.domain import DomainState
from ldoms.model.events import EventKind
from ldoms.model.migration import MigrationOptions
from ldoms.model.ownership import OwnerState
from ldoms.model.services import Services
from unit.clock import run
from unit.manager.desk import at_desk, fake_host, furnish
from unit.migration.harness import DOMAIN, FakeHost, Gates, Pair, migrating

AUTO_BOOT = {"auto-boot?": "true"}


async def add_bound(manager: Manager, name: str, group: int, master: str = "", boots: bool = True) -> None:
    """A small domain, bound; `boots` is its auto-boot?."""
    await manager.domains.add(name, {"shutdown-group": str(group), "master": master})
    await manager.vcpus.set(name, 1)
    await manager.memory.set(name, 256)
    manager.domains.set_variables(name, {"auto-boot?": str(boots).lower()})
    await manager.life.bind(name)


def state(manager: Manager, name: str = "ldg1") -> DomainState:
    (view,) = manager.listing.domains([name])
    return view.status.state


def started(host: FakeHost, after: int = 0) -> list[str]:
    """Domains that were started, in order."""
    return [event.domain for event in host.store.events(after) if event.kind is EventKind.DOMAIN_STARTED]


def latest(host: FakeHost) -> int:
    return host.store.events()[-1].sequence


def with_policy(host: FakeHost, policy: int) -> None:
    host.config = replace(Config(), ldmd=LdmdConfig(autorecovery_policy=policy))


def test_a_host_that_saved_nothing_comes_up_as_it_went_down(tmp_path: Path) -> None:
    """Domains, services and bindings are there; those with auto-boot? start: masters first, then by group."""

    async def work() -> None:
        host = fake_host(tmp_path)
        manager = await host.start()
        await furnish(manager)
        manager.concentrators.add("primary-vcc1", "primary", "6000-6010")
        await manager.vcpus.set("primary", 1)
        for name, group, master, boots in (
            ("early", 1, "late", True),
            ("late", 9, "", True),
            ("first", 0, "", True),
            ("quiet", 0, "", False),
        ):
            if name == "early":
                await add_bound(manager, name, group, "", boots)
            else:
                await add_bound(manager, name, group, master, boots)
        await manager.domains.set("early", {"master": "late"})
        before = host.store.domains()
        await manager.life.start("first")
        mark = latest(host)
        manager = await host.power_cycle()
        await asyncio.sleep(10)
        assert started(host, mark) == ["first", "late", "early"]
        assert state(manager, "quiet") is DomainState.BOUND
        assert state(manager) is DomainState.INACTIVE
        assert [replace(domain, started_at=0.0) for domain in host.store.domains()] == list(before)
        await host.stop()

    run(work())


def test_a_restart_of_the_manager_is_no_power_on(tmp_path: Path) -> None:
    """The same boot: a stopped domain stays stopped, and changes that were not saved stay."""

    async def work(host: FakeHost, manager: Manager) -> None:
        manager.domains.set_variables("ldg1", AUTO_BOOT)
        manager.configurations.add("empty")
        await manager.life.bind("ldg1")
        before = host.store.domains()
        mark = latest(host)
        await host.restart()
        await asyncio.sleep(10)
        assert host.store.domains() == before
        assert started(host, mark) == []
        assert host.store.events(mark) == ()

    at_desk(tmp_path, work)


def test_a_new_boot_id_is_not_believed_while_a_guest_runs(tmp_path: Path) -> None:
    """A host with a guest cannot have been off: starting anything again could make it run twice."""

    async def work(host: FakeHost, manager: Manager) -> None:
        manager.configurations.add("empty")
        manager.domains.set_variables("ldg1", AUTO_BOOT)
        await manager.life.bind("ldg1")
        await manager.life.start("ldg1")
        await host.stop()
        host.boot_id = "boot-7"
        manager = await host.start()
        await asyncio.sleep(10)
        assert state(manager) is DomainState.ACTIVE
        assert not host.engine.world.doubles
        assert len(host.engine.world.guests) == 1

    at_desk(tmp_path, work)


def test_the_current_configuration_comes_back(tmp_path: Path) -> None:
    """As it was saved: what was made later is in its autosave, from which the next power-on can have it."""

    async def work(host: FakeHost, manager: Manager) -> None:
        manager.domains.set_variables("ldg1", AUTO_BOOT)
        await manager.life.bind("ldg1")
        saved = host.store.domains()
        manager.configurations.add("mine")
        await add_bound(manager, "later", 15)
        await manager.life.unbind("ldg1")
        manager.disk_services.add("primary-vds9", "primary")
        await manager.switches.add("primary-vsw9", "primary", {})
        manager = await host.power_cycle()
        await asyncio.sleep(10)
        assert [replace(domain, started_at=0.0) for domain in host.store.domains()] == list(saved)
        assert state(manager) is DomainState.ACTIVE
        services = host.store.services()
        assert [service.name for service in services.disk_services] == ["primary-vds0"]
        assert list(host.network.bridges) == ["vsw0"], "the bridge of a switch that is no more is gone"
        (event,) = [event for event in host.store.events() if event.kind is EventKind.CONFIGURATION_RESTORED]
        assert event.data == {"configuration": "mine", "domains": 1, "left_out": []}
        assert [view.is_newer for view in manager.configurations.list_autosaves("mine")] == [True]
        assert manager.power_on.take_notice() == ""
        manager.configurations.recover("mine", "")
        manager = await host.power_cycle()
        await asyncio.sleep(10)
        assert sorted(host.domain_names) == ["later", "ldg1"]
        assert (state(manager), state(manager, "later")) == (DomainState.INACTIVE, DomainState.ACTIVE)

    at_desk(tmp_path, work)


def test_policy_2_tells_the_next_command(tmp_path: Path) -> None:
    """Once, and with what to do."""

    async def work(host: FakeHost, manager: Manager) -> None:
        with_policy(host, 2)
        manager.configurations.add("mine")
        await manager.domains.add("later", {})
        manager = await host.power_cycle()
        assert host.domain_names == ["ldg1"]
        assert "'ldm add-spconfig -r mine'" in manager.power_on.take_notice()
        assert manager.power_on.take_notice() == ""

    at_desk(tmp_path, work)


@pytest.mark.parametrize("policy", [1, 2, 3])
def test_changes_that_were_recovered_come_back(tmp_path: Path, policy: int) -> None:
    """Whatever the policy: somebody has asked for them. Nothing is newer then, and nobody is told that something is."""

    async def work(host: FakeHost, manager: Manager) -> None:
        manager.configurations.add("mine")
        await manager.domains.add("later", {})
        manager = await host.power_cycle()
        assert host.domain_names == ["ldg1"]
        with_policy(host, policy)
        manager.configurations.recover("mine", "")
        await manager.domains.add("between", {})
        manager = await host.power_cycle()
        assert host.domain_names == ["ldg1", "later"]
        assert manager.power_on.take_notice() == ""
        assert [view.is_newer for view in manager.configurations.list_autosaves("mine")] == [False]
        manager.configurations.recover("mine", "what-was-between")
        await host.power_cycle()
        assert host.domain_names == ["ldg1", "between"], "what it replaced can still be had"

    at_desk(tmp_path, work)


def test_policy_3_brings_changes_back(tmp_path: Path) -> None:
    """The configuration has them then."""

    async def work(host: FakeHost, manager: Manager) -> None:
        with_policy(host, 3)
        manager.configurations.add("mine")
        await add_bound(manager, "later", 15)
        manager = await host.power_cycle()
        await asyncio.sleep(10)
        assert sorted(host.domain_names) == ["later", "ldg1"]
        assert state(manager, "later") is DomainState.ACTIVE
        assert [view.is_newer for view in manager.configurations.list_autosaves()] == [False]

    at_desk(tmp_path, work)


def test_a_domain_that_was_removed_comes_back_but_does_not_start(tmp_path: Path) -> None:
    """Somebody may have made it again elsewhere; unless the configuration was chosen: then all of it starts."""

    async def work(host: FakeHost, manager: Manager) -> None:
        manager.domains.set_variables("ldg1", AUTO_BOOT)
        await manager.life.bind("ldg1")
        await add_bound(manager, "other", 15)
        manager.configurations.add("mine")
        await manager.life.unbind("ldg1")
        manager.domains.remove("ldg1")
        manager = await host.power_cycle()
        await asyncio.sleep(10)
        assert (state(manager), state(manager, "other")) == (DomainState.BOUND, DomainState.ACTIVE)
        manager.configurations.set("factory-default")
        manager = await host.power_cycle()
        manager.configurations.set("mine")
        manager = await host.power_cycle()
        await asyncio.sleep(10)
        assert (state(manager), state(manager, "other")) == (DomainState.ACTIVE, DomainState.ACTIVE)

    at_desk(tmp_path, work)


def test_the_chosen_configuration_comes_instead(tmp_path: Path) -> None:
    """And is the current one; the factory default has nothing, and what there was is an autosave."""

    async def work(host: FakeHost, manager: Manager) -> None:
        manager.configurations.add("one")
        await manager.vcpus.set("primary", 3)
        await manager.domains.add("later", {})
        manager.configurations.add("two")
        manager.configurations.set("one")
        manager = await host.power_cycle()
        assert manager.configurations.current == "one"
        assert host.store.domain("primary").constraints.vcpus == 2
        assert host.domain_names == ["ldg1"]
        manager.configurations.set("factory-default")
        manager = await host.power_cycle()
        control = host.store.domain("primary")
        assert host.store.domains() == (control,)
        assert (control.constraints.vcpus, control.constraints.memory_mib) == (8, 8192)
        assert host.store.services() == Services()
        assert not host.network.bridges
        assert not manager.configurations.chosen
        manager.configurations.set("two")
        await host.power_cycle()
        assert sorted(host.domain_names) == ["later", "ldg1"]

    at_desk(tmp_path, work)


def test_one_that_cannot_start_does_not_stop_the_others(tmp_path: Path) -> None:
    """It is logged, and stays bound."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.switches.add("primary-vsw1", "primary", {"net-dev": "eth1"})
        await add_bound(manager, "good", 9)
        manager.domains.set_variables("ldg1", AUTO_BOOT)
        await manager.life.bind("ldg1")
        host.disks.images.clear()
        manager = await host.power_cycle()
        await asyncio.sleep(10)
        assert (state(manager), state(manager, "good")) == (DomainState.BOUND, DomainState.ACTIVE)

    at_desk(tmp_path, work)


def test_what_was_not_started_yet_is_started_after_a_restart(tmp_path: Path) -> None:
    """The manager ends in the middle of starting domains: the next one goes on, and starts none that was stopped."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.vcpus.set("primary", 1)
        manager.concentrators.add("primary-vcc1", "primary", "6000-6010")
        for name in ("one", "two", "three"):
            await add_bound(manager, name, 15)
        mark = latest(host)
        await host.power_cycle()
        while len(started(host, mark)) < 1:
            await asyncio.sleep(0)
        await host.stop()
        assert len(started(host, mark)) < 3, "it was too fast for this test"
        first = host.store.domain(started(host, mark)[0])
        guest = host.engine.guests[first.uuid]
        guest.die()
        manager = await host.start()
        await asyncio.sleep(10)
        assert sorted(started(host, mark)) == ["one", "three", "two"], "each once"
        assert state(manager, first.name) is DomainState.BOUND

    at_desk(tmp_path, work)


def test_a_moved_domain_does_not_come_back(tmp_path: Path) -> None:
    """It is in the saved configuration of the host that it has left, bound, with auto-boot?; it runs on the other."""

    async def work(pair: Pair) -> None:
        pair.manager.domains.set_variables(DOMAIN, AUTO_BOOT)
        pair.manager.configurations.add("mine")
        target = pair.target.manager
        assert target is not None
        target.configurations.add("theirs")
        await pair.wait(pair.migrate())
        await pair.settle()
        assert pair.runs_on() == ["t4-2"]
        manager = await pair.source.power_cycle()
        await asyncio.sleep(2000)
        assert pair.source.domain_names == []
        assert pair.runs_on() == ["t4-2"]
        (event,) = [event for event in pair.source.store.events() if event.kind is EventKind.CONFIGURATION_RESTORED]
        assert event.data["left_out"] == [DOMAIN]
        # The UUID was used again for a moment, which makes the host forget what it was to the domain.
        uuid = next(d.uuid for d in pair.target.store.domains() if d.name == DOMAIN)
        await manager.domains.add("again", {"uuid": uuid})
        manager.domains.remove("again")
        await pair.source.power_cycle()
        await asyncio.sleep(2000)
        assert pair.source.domain_names == []
        # And it is not lost where it is, although the configuration there was saved before it came.
        await pair.target.power_cycle()
        await asyncio.sleep(2000)
        assert pair.target.domain_names == [DOMAIN]
        assert pair.runs_on() == ["t4-2"]
        pair.check_sound()

    migrating(tmp_path, work)


def test_a_domain_that_came_back_is_restored(tmp_path: Path) -> None:
    """Moved away and back again: it is this host's."""

    async def work(pair: Pair) -> None:
        pair.manager.domains.set_variables(DOMAIN, AUTO_BOOT)
        pair.manager.configurations.add("mine")
        await pair.wait(pair.migrate())
        await pair.settle()
        pair.source, pair.target = pair.target, pair.source
        pair.link.passwords["tracy"] = "secret"
        operation = pair.manager.migrations.migrate(
            DOMAIN, MigrationOptions("t4-1", user="tracy"), Credentials("tracy", "secret"), "root"
        )
        await pair.wait(operation)
        await pair.settle()
        assert pair.runs_on() == ["t4-1"]
        pair.source, pair.target = pair.target, pair.source
        await pair.source.power_cycle()
        await asyncio.sleep(2000)
        assert pair.runs_on() == ["t4-1"]

    migrating(tmp_path, work)


@pytest.mark.parametrize("victim", ["source", "target", "both"])
@pytest.mark.parametrize(
    "gate",
    [
        *("source-check", "source-prepare", "target-prepare", "target-prepared", "source-copy", "source-suspend"),
        *("source-hand-off", "source-sent-all", "source-handing-off", "target-take-over", "target-taken"),
        *("target-running", "source-peer-took"),
    ],
)
def test_a_migration_is_settled_before_its_domain_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: str, victim: str
) -> None:
    """Power is lost at every stage of a migration: the guest runs once in the end, on the host that owns it."""

    async def work(pair: Pair) -> None:
        gates = Gates(monkeypatch)
        pair.manager.domains.set_variables(DOMAIN, AUTO_BOOT)
        pair.manager.configurations.add("mine")
        assert pair.target.manager is not None
        pair.target.manager.configurations.add("theirs")
        gates.closed = gate
        pair.migrate()
        await gates.reached.wait()
        hosts = [host for host, name in ((pair.source, "source"), (pair.target, "target")) if victim in (name, "both")]
        for host in hosts:
            await host.lose_power()
        gates.open(crashed=victim if victim != "both" else gate.partition("-")[0])
        await asyncio.sleep(5)
        for host in hosts:
            await host.start()
        await asyncio.sleep(3000)
        owners = [
            one.name
            for one in (pair.source, pair.target)
            for domain in one.store.domains()
            if not domain.is_control
            and ((known := one.store.ownership(domain.uuid)) is None or known.state is OwnerState.OWNER)
        ]
        assert len(owners) == 1, f"{gate} {victim}: {pair.describe()}"
        assert pair.runs_on() == owners, f"{gate} {victim}: {pair.describe()}"

    migrating(tmp_path, work)


def test_both_hosts_save_what_they_are_after_a_migration(tmp_path: Path) -> None:
    """As @post-migration, and it is current; again after the next one. Without -s nothing is saved."""

    async def work(pair: Pair) -> None:
        await pair.wait(pair.migrate(save_spconfig=True))
        await pair.settle()
        for host, names in ((pair.source, []), (pair.target, [DOMAIN])):
            manager = host.manager
            assert manager is not None
            assert manager.configurations.current == "@post-migration"
            saved = host.store.configuration("@post-migration")
            assert saved is not None
            assert [domain.name for domain in saved.domains if not domain.is_control] == names
            assert [view.is_newer for view in manager.configurations.list_autosaves()] == [False]
        manager.domains.set_variables(DOMAIN, AUTO_BOOT)
        manager.configurations.recover("@post-migration", "mine")
        await pair.target.power_cycle()
        await asyncio.sleep(100)
        assert pair.runs_on() == ["t4-2"]

    migrating(tmp_path, work)


def test_nothing_is_saved_after_a_migration_unless_it_is_wanted(tmp_path: Path) -> None:
    """Neither on the source nor on the target."""

    async def work(pair: Pair) -> None:
        await pair.wait(pair.migrate())
        await pair.settle()
        assert pair.source.store.configurations() == pair.target.store.configurations() == ()

    migrating(tmp_path, work)
