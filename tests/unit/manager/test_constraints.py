"""What becomes of a description: the same domain again, all of it or nothing, never a domain that is elsewhere."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from ldoms.constraints import write_description
from ldoms.manager.manager import Manager
from ldoms.model.domain import Constraints, Domain, DomainState, VirtualDisk, VirtualNetwork
from ldoms.model.errors import AlreadyExists, LdomsError, NotFound, RequestError
from ldoms.model.policy import Policy
from ldoms.model.services import Services, VirtualSwitch
from unit.clock import run
from unit.manager.desk import at_desk, fake_host, furnish
from unit.migration.harness import DOMAIN, FakeHost, Pair, migrating


def state(manager: Manager, name: str) -> DomainState:
    return manager.listing.domains([name])[0].status.state


def changed(domain: Domain, **fields: object) -> str:
    """The description of a domain in which something is different."""
    return write_description([replace(domain, **fields)], Services())  # type: ignore[arg-type]


def test_a_description_makes_the_same_domain_again(tmp_path: Path) -> None:
    """UUID, addresses, devices, variables, console: all as they were; also when it was bound meanwhile."""

    async def work(host: FakeHost, manager: Manager) -> None:
        manager.domains.set_variables("ldg1", {"boot-device": "disk net", "nvramrc": "one\n two"})
        await manager.domains.set("ldg1", {"master": "primary", "shutdown-group": "3", "boot-policy": "warning"})
        await manager.vcons.set("ldg1", {"group": "g", "port": "5001"})
        await manager.networks.set(
            "ldg1",
            "vnet0",
            {"pvid": "10", "vid": "20,30", "maxbw": "1.5G", "allowed-ips": "192.0.2.7", "protection": "ip-nospoof"}
            | {"pvlan": "100,isolated", "alt-mac-addrs": "00:14:4f:fc:00:05", "cos": "3"},
        )
        manager.policies.add(
            "ldg1", "day", {"enable": "yes", "tod-begin": "08:00", "vcpu-max": "3", "decay": "unlimited"}
        )
        await manager.life.bind("ldg1")
        text = manager.constraints.describe(["ldg1"])
        assert '<gprop:GenericProperty key="policy_tod_begin">08:00:00</gprop:GenericProperty>' in text
        await manager.life.unbind("ldg1")
        before = host.store.domain("ldg1")
        manager.domains.remove("ldg1")
        made = await manager.constraints.add(text)
        assert (made.domains, made.warnings) == (("ldg1",), ())
        assert replace(host.store.domain("ldg1"), order=before.order) == before
        with pytest.raises(AlreadyExists, match="already exists"):
            await manager.constraints.add(text)
        with pytest.raises(NotFound):
            manager.constraints.describe(["nobody"])

    at_desk(tmp_path, work)


def test_a_whole_host_is_made_of_its_description(tmp_path: Path) -> None:
    """On an empty host: services, the control domain's share, and the domains, as they are on the first one."""

    async def work() -> None:
        host = fake_host(tmp_path / "one")
        manager = await host.start()
        await furnish(manager)
        await manager.switches.add("up", "primary", {"net-dev": "eth1", "mtu": "9000", "id": "7", "vid": "5,6"})
        await manager.disk_services.add_volume(
            "primary-vds0", "b", "/images/b.raw", ("ro",), "", force=False, quick=False
        )
        text = manager.constraints.describe()
        before = host.store.domains(), host.store.services()
        await host.stop()
        host = fake_host(tmp_path / "two")
        manager = await host.start()
        await manager.vcpus.set("primary", 3)
        with pytest.raises(RequestError, match="not in its factory-default") as refused:
            await manager.constraints.init(text, force=False, services_only=False)
        assert refused.value.code == "not-factory-default"
        await manager.vcpus.set("primary", 8)
        made = await manager.constraints.init(text, force=False, services_only=True)
        assert made.domains == ()
        assert host.store.services() == before[1]
        assert host.domain_names == []
        made = await manager.constraints.init(text, force=True, services_only=False)
        assert made.domains == ("ldg1",)
        assert "vsw up already exists, and stays as it is" in made.warnings
        assert host.store.services() == before[1]
        assert host.store.domains()[1] == before[0][1]
        control = host.store.domain("primary").constraints
        assert (control.vcpus, control.memory_mib) == (2, 4096)
        assert host.network.bridges["vsw7"].mtu == 9000
        await host.stop()

    run(work())


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ((Policy("day", begin="noon"),), "tod-begin=noon is no time of day"),
        ((Policy("day", priority=0),), "priority=0 is out of range: it is from 1 to 9999"),
        ((Policy("day", util_lower=99, util_upper=1),), "util-lower=99 must be less than util-upper=1"),
        ((Policy("a day"),), "'a day' cannot name a policy"),
        ((Policy("day"), Policy("day")), "policy day is given twice in LDom ldg1"),
    ],
)
def test_policies_of_a_description_are_those_of_add_policy(
    policies: tuple[Policy, ...], message: str, tmp_path: Path
) -> None:
    """What makes no sense is refused: it would end the loop that carries policies out."""

    async def work(host: FakeHost, manager: Manager) -> None:
        text = changed(host.store.domain("ldg1"), policies=policies)
        manager.domains.remove("ldg1")
        with pytest.raises(LdomsError, match=message):
            await manager.constraints.add(text)
        assert host.domain_names == []

    at_desk(tmp_path, work)


def test_a_host_that_cannot_be_made_stays_as_it_was(tmp_path: Path) -> None:
    """Whatever was made before the failure is taken back."""

    async def work(host: FakeHost, manager: Manager) -> None:
        manager.disk_services.add("primary-vds7", "primary")
        await manager.domains.add("ldg2", {"mac-addr": "00:14:4f:fc:00:01"})
        text = manager.constraints.describe()
        other = fake_host(tmp_path / "other")
        again = await other.start()
        before = other.store.domains(), other.store.services()
        wrong = text.replace("00:14:4f:fc:00:01", "01:14:4f:fc:00:01")
        with pytest.raises(RequestError, match="is a group address"):
            await again.constraints.init(wrong, force=False, services_only=False)
        (control,) = other.store.domains()
        assert control.constraints == before[0][0].constraints
        assert other.store.services() == before[1]
        assert not other.network.bridges
        await other.stop()

    at_desk(tmp_path, work)


def test_bind_and_start_take_a_description(tmp_path: Path) -> None:
    """The domain is made, bound and started; if one step fails nothing is left of any."""

    async def work(host: FakeHost, manager: Manager) -> None:
        text = manager.constraints.describe(["ldg1"])
        manager.domains.remove("ldg1")
        await manager.constraints.bind(text)
        assert state(manager, "ldg1") is DomainState.BOUND
        await manager.life.unbind("ldg1")
        manager.domains.remove("ldg1")
        assert (await manager.constraints.start(text)).domains == ("ldg1",)
        assert state(manager, "ldg1") is DomainState.ACTIVE
        await manager.life.stop("ldg1", force=True)
        await manager.life.unbind("ldg1")
        manager.domains.remove("ldg1")
        second = write_description(
            [
                Domain("", "fine", "", "", 0, Constraints(1, 256)),
                Domain("", "huge", "", "", 0, Constraints(64, 256)),
            ],
            Services(),
        )
        free = len(manager.host.partition().free_strands)
        with pytest.raises(LdomsError, match="LDom huge cannot get 64 virtual CPUs"):
            await manager.constraints.start(second)
        assert host.domain_names == []
        assert host.guest is None
        assert len(manager.host.partition().free_strands) == free

    at_desk(tmp_path, work)


def test_what_is_not_given_is_picked(tmp_path: Path) -> None:
    """UUID, host id and MAC addresses: a description without them makes another domain."""

    async def work(host: FakeHost, manager: Manager) -> None:
        text = manager.constraints.describe(["ldg1"])
        text = re.sub(r"<uuid>.*</uuid>|<rasd:Address>.*</rasd:Address>|.*key=\"hostid\".*", "", text)
        text = text.replace('id="ldg1"', 'id="ldg2"').replace(
            '"service_name">primary-vds0', '"service_name">other-vds0'
        )
        await manager.constraints.add(text)
        first, second = host.store.domain("ldg1"), host.store.domain("ldg2")
        assert first.uuid != second.uuid
        assert first.hostid != second.hostid
        assert not set(first.macs) & set(second.macs)
        assert second.networks[0].name == "vnet0"

    at_desk(tmp_path, work)


def test_properties_are_set_from_a_description(tmp_path: Path) -> None:
    """Those of ldom_info, and nothing else; also while the domain is bound."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.life.bind("ldg1")
        before = host.store.domain("ldg1")
        constraints = replace(before.constraints, vcpus=7, shutdown_group=2, masters=("primary",))
        await manager.constraints.set(changed(before, constraints=constraints, disks=()))
        after = host.store.domain("ldg1")
        assert after.constraints == replace(before.constraints, shutdown_group=2, masters=("primary",))
        assert after.disks == before.disks
        with pytest.raises(RequestError, match="the description is of another domain"):
            await manager.constraints.set(changed(before, uuid="b0b0b0b0-0000-4000-8000-000000000001"))
        with pytest.raises(NotFound):
            await manager.constraints.set(changed(before, name="nobody"))

    at_desk(tmp_path, work)


WRONG: tuple[tuple[dict[str, object], str], ...] = (
    ({"name": "primary"}, "LDom primary already exists"),
    ({"name": "a b"}, "'a b' cannot name a domain"),
    ({"uuid": "x"}, "'x' is not a UUID"),
    ({"mac": "1:2"}, "'1:2' is not a MAC address"),
    ({"hostid": "xyz"}, "hostid=xyz is not a hexadecimal number"),
    ({"variables": (("a=b", "1"),)}, "'a=b' cannot name a variable"),
    ({"disks": (VirtualDisk("d", "a", "primary-vds0", 0),)}, "volume a@primary-vds0 is in use by LDom ldg1"),
    ({"disks": (VirtualDisk("d", "x", "y", 0), VirtualDisk("e", "x", "z", 0))}, "the id of a disk is taken twice"),
    ({"disks": (VirtualDisk("d", "x", "y", 64),)}, "higher than 63"),
    ({"disks": (VirtualDisk("d", "x", "y", 0), VirtualDisk("d", "x", "z", 1))}, "disk d is there twice"),
    ({"networks": (VirtualNetwork("n|", "s", 0, ""),)}, "cannot name a virtual network"),
    ({"networks": (VirtualNetwork("n", "s", 0, "", mtu=9),)}, "mtu=9 is out of range"),
    ({"networks": (VirtualNetwork("n", "s", 0, "", pvid=5000),)}, "pvid=5000 is not a VLAN"),
    ({"networks": (VirtualNetwork("n", "s", 0, "", allowed_ips=("1.2.3.4; drop",)),)}, "neither an IP address nor"),
    ({"networks": (VirtualNetwork("n", "s", 0, "", kept=(("cos", "9"),)),)}, "cos=9 has no meaning"),
    ({"networks": (VirtualNetwork("n", "s", 0, "00:14:4f:fc:00:09"),), "mac": "00:14:4f:fc:00:09"}, "is given twice"),
)


@pytest.mark.parametrize(("fields", "reason"), WRONG, ids=[case[1] for case in WRONG])
def test_what_cannot_be_is_refused(tmp_path: Path, fields: dict[str, object], reason: str) -> None:
    """In one sentence, and nothing is made."""

    async def work(host: FakeHost, manager: Manager) -> None:
        before = host.store.domains()
        wanted = Domain("", "ldg2", "", "", 0)
        with pytest.raises(LdomsError, match=re.escape(reason)) as refused:
            await manager.constraints.add(changed(wanted, **fields))
        assert "\n" not in refused.value.message
        assert host.store.domains() == before

    at_desk(tmp_path, work)


def test_wrong_services_are_refused(tmp_path: Path) -> None:
    """By the rules of the commands that make them."""

    async def work(host: FakeHost, manager: Manager) -> None:
        control = host.store.domain("primary")
        services = Services(switches=(VirtualSwitch("new", 0, "", net_dev="nowhere0"),))
        with pytest.raises(LdomsError, match="there is no network interface nowhere0"):
            await manager.constraints.init(write_description([control], services), force=True, services_only=True)

    at_desk(tmp_path, work)


def test_a_domain_that_has_moved_away_is_not_made_again(tmp_path: Path) -> None:
    """Its UUID is another host's now; a new domain of the same description is possible."""

    async def work(pair: Pair) -> None:
        text = pair.manager.constraints.describe([DOMAIN])
        await pair.wait(pair.migrate())
        await pair.settle()
        for verb in (pair.manager.constraints.add, pair.manager.constraints.start):
            with pytest.raises(RequestError, match="belongs to another host now") as refused:
                await verb(text)
            assert refused.value.code == "moved-away"
        assert pair.source.domain_names == []

    migrating(tmp_path, work)
