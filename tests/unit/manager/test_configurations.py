"""Configurations: saved, chosen, recovered and forgotten; and what `ldm list-spconfig` says about them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ldoms.manager.manager import Manager
from ldoms.model.configuration import FACTORY_DEFAULT, ConfigurationView
from ldoms.model.cores import CpuChange, Unit
from ldoms.model.errors import AlreadyExists, Busy, LdomsError, RequestError
from ldoms.model.events import EventKind
from unit.clock import run
from unit.manager.desk import at_desk, fake_host, furnish
from unit.migration.harness import FakeHost


def marks(views: tuple[ConfigurationView, ...]) -> list[str]:
    """Each configuration with its marks, as one word each."""
    return [view.name + "*" * view.is_current + ">" * view.is_next + "+" * view.is_newer for view in views]


def test_a_configuration_is_saved_and_is_the_current_one(tmp_path: Path) -> None:
    """The factory default is always there, and current until something is saved."""

    async def work(host: FakeHost, manager: Manager) -> None:
        verbs = manager.configurations
        assert marks(verbs.list()) == ["factory-default*"]
        assert marks(verbs.list_autosaves()) == ["factory-default*+"], "there is a domain that nothing has saved"
        verbs.add("initial")
        assert marks(verbs.list()) == ["factory-default", "initial*"]
        assert verbs.list()[1].domains == 1
        assert marks(verbs.list_autosaves()) == ["initial*"]
        kinds = [event.data for event in host.store.events() if event.kind is EventKind.CONFIGURATIONS_CHANGED]
        assert kinds == [{"configuration": "initial"}]
        with pytest.raises(AlreadyExists, match="configuration initial already exists"):
            verbs.add("initial")

    at_desk(tmp_path, work)


def test_every_change_is_an_autosave_at_once(tmp_path: Path) -> None:
    """Without a second copy: the store of the host is the autosave of its current configuration."""

    async def work(host: FakeHost, manager: Manager) -> None:
        verbs = manager.configurations
        verbs.add("initial")
        await manager.domains.add("ldg2", {})
        assert marks(verbs.list_autosaves()) == ["initial*+"]
        manager.domains.remove("ldg2")
        assert marks(verbs.list_autosaves()) == ["initial*"], "everything is as it was saved"
        await manager.life.bind("ldg1")
        assert marks(verbs.list_autosaves("initial")) == ["initial*+"], "whether a domain is bound is part of it"
        verbs.recover("initial", "")
        assert marks(verbs.list_autosaves()) == ["initial*"]
        await manager.life.start("ldg1")
        assert marks(verbs.list_autosaves()) == ["initial*"], "whether a guest runs is not"

    at_desk(tmp_path, work)


def test_the_autosave_of_an_earlier_configuration_is_kept(tmp_path: Path) -> None:
    """When another one becomes current, what the earlier one did not have can still be had."""

    async def work(host: FakeHost, manager: Manager) -> None:
        verbs = manager.configurations
        verbs.add("one")
        manager.domains.set_variables("ldg1", {"boot-device": "net"})
        verbs.add("two")
        assert marks(verbs.list_autosaves()) == ["two*", "one+"]
        verbs.recover("one", "three")
        assert marks(verbs.list()) == ["factory-default", "one", "two*", "three>"]
        assert marks(verbs.list_autosaves()) == ["two*"]
        assert host.store.configuration("three").domains[1].variable("boot-device") == "net"  # type: ignore[union-attr]

    at_desk(tmp_path, work)


def test_a_configuration_is_chosen_and_forgotten(tmp_path: Path) -> None:
    """Forgetting the current one leaves the host as it is, and as if nothing had been saved."""

    async def work(host: FakeHost, manager: Manager) -> None:
        verbs = manager.configurations
        verbs.add("one")
        verbs.add("two")
        verbs.set("one")
        assert marks(verbs.list()) == ["factory-default", "one>", "two*"]
        verbs.set("two")
        assert marks(verbs.list()) == ["factory-default", "one", "two*"], "the current one comes back anyway"
        verbs.set(FACTORY_DEFAULT)
        assert marks(verbs.list())[0] == "factory-default>"
        verbs.remove("two", autosaved=False)
        assert marks(verbs.list()) == ["factory-default*>", "one"]
        verbs.set("one")
        verbs.remove("one", autosaved=False)
        assert marks(verbs.list()) == ["factory-default*"]
        assert host.domain_names == ["ldg1"]
        verbs.add("one")  # remove and add again: how scripts replace a configuration
        assert marks(verbs.list()) == ["factory-default", "one*"]

    at_desk(tmp_path, work)


def test_what_cannot_be_done_is_one_sentence(tmp_path: Path) -> None:
    """And changes nothing."""

    async def work(host: FakeHost, manager: Manager) -> None:
        verbs = manager.configurations
        verbs.add("x" * 64)
        before = host.store.configurations()
        for wrong, match in (
            (lambda: verbs.add("x" * 65), "cannot name a configuration"),
            (lambda: verbs.add("a b"), "cannot name a configuration"),
            (lambda: verbs.add(FACTORY_DEFAULT), "factory-default cannot be changed"),
            (lambda: verbs.add("@post-migration"), "written after migrations"),
            (lambda: verbs.recover(FACTORY_DEFAULT, ""), "autosave factory-default was not found"),
            (lambda: verbs.recover("y", ""), "autosave y was not found"),
            (lambda: verbs.set("y"), "configuration y was not found"),
            (lambda: verbs.remove("y", autosaved=False), "configuration y was not found"),
            (lambda: verbs.remove("y", autosaved=True), "autosave of configuration y was not found"),
            (lambda: verbs.remove(FACTORY_DEFAULT, autosaved=False), "it cannot be removed"),
            (lambda: verbs.list_autosaves("y"), "autosave y was not found"),
        ):
            with pytest.raises(LdomsError, match=match):
                wrong()
        assert host.store.configurations() == before

    at_desk(tmp_path, work)


def test_what_was_never_saved_can_be_given_a_name(tmp_path: Path) -> None:
    """The autosave of the factory default is what somebody has built and not saved."""

    async def work(host: FakeHost, manager: Manager) -> None:
        with pytest.raises(RequestError, match="cannot be changed"):
            manager.configurations.recover(FACTORY_DEFAULT, "")
        manager.configurations.recover(FACTORY_DEFAULT, "mine")
        assert marks(manager.configurations.list()) == ["factory-default", "mine*"]

    at_desk(tmp_path, work)


def test_changes_of_primary_wait_on_demand(tmp_path: Path) -> None:
    """They are collected, shown by a flag, and made by the next power-on; other domains stand still meanwhile."""

    async def work() -> None:
        host = fake_host(tmp_path)
        manager = await host.start()
        await furnish(manager)
        verbs = manager.reconfiguration
        with pytest.raises(RequestError, match="Delayed reconfiguration of LDom ldg1 is not permitted"):
            verbs.start("ldg1")
        with pytest.raises(RequestError, match="no delayed reconfiguration of LDom primary is pending"):
            verbs.cancel("primary")
        verbs.start("primary")
        assert manager.listing.domains(["primary"])[0].status.flags == "-ndcv-"
        with pytest.raises(RequestError, match="pending already"):
            verbs.start("primary")
        for refused in (manager.life.bind("ldg1"), manager.domains.add("ldg2", {})):
            with pytest.raises(RequestError, match=r"Delayed reconfiguration of LDom ldg. is not permitted"):
                await refused
        verbs.change_cpus(CpuChange("set", Unit.VCPUS, 4))
        verbs.change_cpus(CpuChange("add", Unit.VCPUS, 1))
        verbs.change_memory("remove", 1000)
        for wrong in (
            lambda: verbs.change_cpus(CpuChange("add", Unit.VCPUS, 4)),
            lambda: verbs.change_memory("set", 100_000),
        ):
            with pytest.raises(RequestError, match="is to have"):
                wrong()
        control = host.store.domain("primary")
        assert (control.constraints.vcpus, control.constraints.memory_mib) == (2, 4096), "nothing has changed yet"
        await host.restart()
        assert host.manager is not None
        manager = host.manager
        assert manager.reconfiguration.delays("primary"), "a restart of the manager is no reboot"
        manager = await host.power_cycle()
        control = host.store.domain("primary")
        assert (control.constraints.vcpus, control.constraints.memory_mib) == (5, 3328)
        assert not manager.reconfiguration.delays("primary")
        assert manager.listing.domains(["primary"])[0].status.flags == "-n-cv-"
        await manager.life.bind("ldg1")
        await host.stop()

    run(work())


def test_cores_of_primary_wait_too(tmp_path: Path) -> None:
    """By number and by name, each counted from what was asked for before; the next power-on gives just these."""

    async def work() -> None:
        host = fake_host(tmp_path)
        manager = await host.start()
        await furnish(manager)
        verbs = manager.reconfiguration
        verbs.start("primary")
        verbs.change_cpus(CpuChange("set", Unit.CORES, 2))
        with pytest.raises(RequestError, match="can have 1 to 8"):
            verbs.change_cpus(CpuChange("add", Unit.CORES, 1))
        verbs.change_cpus(CpuChange("set", Unit.CORES, core_ids=(1,)))
        for wrong in (CpuChange("add", Unit.CORES, core_ids=(2,)), CpuChange("add", Unit.VCPUS, 1)):
            with pytest.raises(LdomsError, match=r"the cores of this host are 0 to 1|has cores that were named \(1\)"):
                verbs.change_cpus(wrong)
        assert host.store.domain("primary").constraints.whole_core is False, "nothing has changed yet"
        await host.power_cycle()
        control = host.store.domain("primary")
        assert (control.constraints.vcpus, control.constraints.core_ids) == (4, (1,))
        assert control.bindings is not None
        assert control.bindings.strands == (4, 5, 6, 7)
        await host.stop()

    run(work())


def test_a_delayed_reconfiguration_is_cancelled(tmp_path: Path) -> None:
    """Then nothing waits any more."""

    async def work(host: FakeHost, manager: Manager) -> None:
        manager.reconfiguration.start("primary")
        manager.reconfiguration.change_cpus(CpuChange("set", Unit.VCPUS, 1))
        manager.reconfiguration.cancel("primary")
        await manager.life.bind("ldg1")
        await host.power_cycle()
        assert host.store.domain("primary").constraints.vcpus == 2

    at_desk(tmp_path, work)


def test_no_delayed_reconfiguration_while_something_is_under_way(tmp_path: Path) -> None:
    """An operation that is running would be refused its end."""

    async def work(host: FakeHost, manager: Manager) -> None:
        async def wait(handle: object) -> dict[str, str]:
            await asyncio.sleep(100)
            return {}

        manager.host.operations.start("migrate-domain", "ldg1", "root", wait, may_cancel=False)
        with pytest.raises(Busy, match="operation migrate-domain is under way"):
            manager.reconfiguration.start("primary")

    at_desk(tmp_path, work)
