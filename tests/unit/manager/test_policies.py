"""Resource management policies: written, refused, and carried out by the manager's loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from ldoms.manager.manager import Manager
from ldoms.model.errors import LdomsError
from ldoms.model.events import EventKind
from ldoms.model.policy import PolicyStatus
from unit.manager.desk import at_desk
from unit.migration.harness import FakeHost

EAGER = {"enable": "yes", "sample-rate": "2", "vcpu-min": "1", "util-upper": "50", "util-lower": "20", "attack": "1"}


def vcpus(manager: Manager) -> int:
    bindings = manager.host.store.domain("ldg1").bindings
    assert bindings is not None
    return len(bindings.vcpus)


def status(manager: Manager) -> PolicyStatus:
    (view,) = manager.listing.domains(["ldg1"])
    (only,) = view.status.policies
    return only


async def make_busy(host: FakeHost, manager: Manager, load: float) -> None:
    """The guest runs, and its virtual CPUs are busy so much of the time."""
    await manager.life.bind("ldg1")
    await manager.life.start("ldg1")
    assert host.guest is not None
    host.guest.load = load


def test_more_for_a_busy_domain_and_less_for_an_idle_one(tmp_path: Path) -> None:
    """One at a time, as attack and decay say; each change is an event, and counted."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await make_busy(host, manager, 1.0)
        manager.policies.add("ldg1", "follow", {**EAGER, "vcpu-max": "3"})
        await asyncio.sleep(12)
        assert vcpus(manager) == 3
        assert status(manager).active
        assert (status(manager).added, status(manager).removed) == (2, 0)
        assert status(manager).utilisation == pytest.approx(100.0)
        assert host.guest is not None
        host.guest.load = 0.01
        await asyncio.sleep(12)
        assert vcpus(manager) == 1
        assert status(manager).removed == 2
        changes = [event for event in manager.host.store.events(0, 1000) if event.kind is EventKind.POLICY_APPLIED]
        assert [event.data["vcpus"] for event in changes] == [2, 3, 2, 1]

    at_desk(tmp_path, work)


def test_only_what_is_free_is_given(tmp_path: Path) -> None:
    """However busy the domain is, and nobody is disturbed."""

    async def work(host: FakeHost, manager: Manager) -> None:
        free = len(manager.host.partition().free_strands)
        await make_busy(host, manager, 1.0)
        manager.policies.add("ldg1", "follow", {**EAGER, "attack": "unlimited", "util-upper": "21"})
        await asyncio.sleep(30)
        assert vcpus(manager) == free
        assert not manager.host.partition().free_strands
        assert status(manager).note == ""

    at_desk(tmp_path, work)


def test_a_policy_waits_while_others_work(tmp_path: Path) -> None:
    """As long as an operation holds the domain nothing is changed, and what is used then is not counted."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await make_busy(host, manager, 1.0)
        manager.policies.add("ldg1", "follow", EAGER)
        with manager.host.operations.holding("ldg1", "migrate-domain"):
            await asyncio.sleep(20)
            assert (vcpus(manager), status(manager).samples) == (1, 0)
        await asyncio.sleep(5)
        assert vcpus(manager) == 2

    at_desk(tmp_path, work)


def test_nothing_is_asked_of_a_guest_without_an_agent(tmp_path: Path) -> None:
    """It could not give back a virtual CPU: the domain is not held for a try, and the statistics say why."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await make_busy(host, manager, 1.0)
        manager.policies.add("ldg1", "follow", {**EAGER, "vcpu-max": "2"})
        await asyncio.sleep(8)
        assert host.guest is not None
        host.guest.load, host.guest.agent.is_there = 0.01, False
        for _ in range(800):
            await asyncio.sleep(0.01)
            assert not manager.host.operations.holder("ldg1")
        assert vcpus(manager) == 2
        assert status(manager).note == "the guest agent, which gives virtual CPUs back, does not run in the guest"

    at_desk(tmp_path, work)


def test_whoever_changes_something_waits_for_a_policy(tmp_path: Path) -> None:
    """A change that a policy makes by itself makes no command fail: the command comes after it."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await make_busy(host, manager, 1.0)
        manager.policies.add("ldg1", "follow", {**EAGER, "vcpu-max": "2"})
        for _ in range(1000):
            await asyncio.sleep(0.01)
            if manager.host.operations.holder("ldg1"):
                break
        assert manager.host.operations.holder("ldg1")
        await manager.host.operations.rest("ldg1")
        assert vcpus(manager) == 2
        manager.policies.remove("ldg1", ["follow"])

    at_desk(tmp_path, work)


def test_a_policy_that_does_not_count_does_nothing(tmp_path: Path) -> None:
    """Disabled, or of a domain that does not run."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.life.bind("ldg1")
        manager.policies.add("ldg1", "follow", EAGER)
        await asyncio.sleep(10)
        await manager.life.start("ldg1")
        assert host.guest is not None
        host.guest.load = 1.0
        manager.policies.set("ldg1", "follow", {"enable": "no"})
        await asyncio.sleep(10)
        assert vcpus(manager) == 1
        assert not status(manager).active

    at_desk(tmp_path, work)


def test_policies_come_and_go(tmp_path: Path) -> None:
    """An empty value is the default; of several that are to go, none goes if one is not there."""

    async def work(host: FakeHost, manager: Manager) -> None:
        manager.policies.add("ldg1", "a", {"tod-begin": "09:00", "priority": "7", "vcpu-max": "16", "decay": "2"})
        manager.policies.add("ldg1", "b", {})
        a = manager.policies.set("ldg1", "a", {"priority": "", "vcpu-max": "", "decay": "", "tod-end": "18:00"}).policy(
            "a"
        )
        assert (a.priority, a.vcpu_max, a.decay, a.begin, a.end) == (99, None, 1, "09:00:00", "18:00:00")
        with pytest.raises(LdomsError, match="Policy c was not found in LDom ldg1"):
            manager.policies.remove("ldg1", ["a", "c"])
        assert [policy.name for policy in manager.policies.remove("ldg1", ["a"]).policies] == ["b"]

    at_desk(tmp_path, work)


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"enable": "maybe"}, "enable=maybe has no meaning: use one of yes, no"),
        ({"priority": "0"}, "priority=0 is out of range: it is from 1 to 9999"),
        ({"attack": "0"}, "attack=0 is out of range: it is at least 1, or unlimited"),
        ({"sample-rate": "unlimited"}, "sample-rate=unlimited is not a number"),
        ({"tod-begin": "25:00"}, "tod-begin=25:00 is no time of day: write hh:mm or hh:mm:ss"),
        ({"util-lower": "90"}, "util-lower=90 must be less than util-upper=85"),
        ({"vcpu-min": "4", "vcpu-max": "3"}, "vcpu-min=4 must not be more than vcpu-max=3"),
        ({"speed": "1"}, "property speed is not known here"),
    ],
)
def test_a_wrong_property_is_named(tmp_path: Path, properties: Mapping[str, str], message: str) -> None:
    """And the domain has no policy afterwards."""

    async def work(host: FakeHost, manager: Manager) -> None:
        with pytest.raises(LdomsError) as caught:
            manager.policies.add("ldg1", "p", properties)
        assert message in caught.value.message
        assert manager.host.store.domain("ldg1").policies == ()

    at_desk(tmp_path, work)


def test_what_has_no_policies(tmp_path: Path) -> None:
    """primary, and a name that is taken."""

    async def work(host: FakeHost, manager: Manager) -> None:
        with pytest.raises(LdomsError, match="LDom primary is the host itself"):
            manager.policies.add("primary", "p", {})
        manager.policies.add("ldg1", "p", {})
        with pytest.raises(LdomsError, match="policy p already exists in LDom ldg1"):
            manager.policies.add("ldg1", "p", {})

    at_desk(tmp_path, work)
