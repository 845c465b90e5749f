"""Virtual switches and networks: what is set, what the host's network is told of it, and what stays when that fails."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ldoms.hypervisor.fake import FakeGuest
from ldoms.hypervisor.specs import NetworkSpec
from ldoms.manager.config import NetworkConfig
from ldoms.manager.manager import Manager
from ldoms.manager.taps import Taps
from ldoms.model.domain import Domain, VirtualNetwork
from ldoms.model.errors import LdomsError
from ldoms.model.netdev import NetClass, NetCounters
from ldoms.model.services import VirtualSwitch
from ldoms.model.vnet import NetworkAbility, Protection, Pvlan, PvlanType
from ldoms.net.network import TapSpec
from unit.manager.desk import at_desk
from unit.migration.harness import FakeHost

EVERYTHING = {
    "pvid": "10",
    "vid": "20,30",
    "pvlan": "100,community",
    "maxbw": "100",
    "allowed-ips": "192.0.2.7,2001:db8::/64",
    "protection": "ip-nospoof,mac-nospoof",
    "alt-mac-addrs": "0:14:4f:fc:0:9,auto",
    "linkprop": "phys-state",
    "cos": "3",
    "custom/max-vlans": "4",
}


def vnet(manager: Manager, name: str = "vnet0") -> VirtualNetwork:
    return manager.host.store.domain("ldg1").network(name)


def vsw(manager: Manager, name: str = "primary-vsw0") -> VirtualSwitch:
    return manager.host.store.services().switch(name)


def tap(host: FakeHost, name: str = "vnet1.0") -> TapSpec:
    return host.network.taps[name][0]


def guest(host: FakeHost) -> FakeGuest:
    assert host.guest is not None
    return host.guest


async def started(manager: Manager) -> Domain:
    await manager.life.bind("ldg1")
    return await manager.life.start("ldg1")


def test_everything_that_is_set_reaches_the_tap(tmp_path: Path) -> None:
    """And is kept as it was set; whatever has no meaning here, too."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.networks.set("ldg1", "vnet0", EVERYTHING)
        network = vnet(manager)
        assert network.pvlan == Pvlan(100, PvlanType.COMMUNITY)
        assert network.kept == (("cos", "3"), ("custom/max-vlans", "4"))
        assert network.alt_macs[0] == "00:14:4f:fc:00:09"
        assert len(network.macs) == 3
        assert set(network.macs) <= set(manager.host.macs())
        await started(manager)
        spec = tap(host)
        assert (spec.pvid, spec.vids, spec.limit_bits_s) == (10, (20, 30), 100_000_000)
        assert spec.guard.macs == network.macs
        assert spec.guard.addresses == ("192.0.2.7", "2001:db8::/64")
        assert spec.guard.protection == (Protection.MAC_NOSPOOF, Protection.IP_NOSPOOF)
        assert spec.guard.pvlan == network.pvlan

    at_desk(tmp_path, work)


def test_an_empty_value_clears(tmp_path: Path) -> None:
    """Each property, back to what it is without being set."""

    async def work(host: FakeHost, manager: Manager) -> None:
        before = vnet(manager)
        await manager.networks.set("ldg1", "vnet0", EVERYTHING)
        assert vnet(manager) != before
        await manager.networks.set("ldg1", "vnet0", dict.fromkeys(EVERYTHING, ""))
        assert vnet(manager) == before

    at_desk(tmp_path, work)


def test_a_running_guest_is_changed_at_once(tmp_path: Path) -> None:
    """Its tap, while it runs; it can also be moved to another switch."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.switches.add("primary-vsw1", "primary", {})
        await started(manager)
        await manager.networks.set("ldg1", "vnet0", {"maxbw": "10M", "vswitch": "primary-vsw1"})
        spec, bridge = host.network.taps["vnet1.0"]
        assert (spec.limit_bits_s, bridge) == (10_000_000, "vsw1")
        assert vnet(manager).switch == "primary-vsw1"
        for fixed in ("mac-addr", "mtu"):
            with pytest.raises(LdomsError, match=f"{fixed} of network vnet0 cannot change while LDom ldg1 is active"):
                await manager.networks.set("ldg1", "vnet0", {fixed: ""})

    at_desk(tmp_path, work)


def test_what_the_kernel_refuses_changes_nothing(tmp_path: Path) -> None:
    """Neither the record nor the tap of the guest that runs."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await started(manager)
        host.network.able = (NetworkAbility.PACKET_FILTER,)
        domain, before = manager.host.store.domain("ldg1"), tap(host)
        with pytest.raises(LdomsError) as caught:
            await manager.networks.set("ldg1", "vnet0", {"vid": "20", "maxbw": "10"})
        assert caught.value.code == "no-vlan-filtering"
        assert (manager.host.store.domain("ldg1"), tap(host)) == (domain, before)
        switch = vsw(manager)
        with pytest.raises(LdomsError):
            await manager.switches.set("primary-vsw0", {"vid": "20"})
        assert vsw(manager) == switch
        assert host.network.bridges["vsw0"] == switch
        assert tap(host) == before

    at_desk(tmp_path, work)


def test_a_start_that_is_refused_leaves_no_tap(tmp_path: Path) -> None:
    """As anything that fails while a guest starts."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.networks.set("ldg1", "vnet0", {"protection": "mac-nospoof"})
        await manager.life.bind("ldg1")
        host.network.able = ()
        with pytest.raises(LdomsError, match="cannot guard"):
            await manager.life.start("ldg1")
        assert host.network.taps == {}

    at_desk(tmp_path, work)


def test_taps_are_found_again_and_strays_removed(tmp_path: Path) -> None:
    """A restarted manager makes the taps of running guests what they should be, and removes what nobody uses."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.networks.set("ldg1", "vnet0", {"maxbw": "10", "protection": "restricted"})
        await started(manager)
        wanted = host.network.taps["vnet1.0"]
        host.network.taps = {"vnet1.0": (TapSpec("vnet1.0", "", 1500), "vsw0"), "vnet9.0": wanted}
        await host.restart()
        assert host.network.taps == {"vnet1.0": wanted}

    at_desk(tmp_path, work)


def test_a_switch_is_changed_with_the_taps_on_it(tmp_path: Path) -> None:
    """VLANs are added to those there are and taken away; a vnet without one of its own follows the default."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await started(manager)
        await manager.switches.set("primary-vsw0", {"vid": "20,30", "mtu": "9000", "default-vlan-id": "5"})
        await manager.switches.set("primary-vsw0", {"vid": "+40"})
        await manager.switches.set("primary-vsw0", {"vid": "-20", "net-dev": "eth1"})
        switch = vsw(manager)
        assert (switch.vids, switch.mtu, switch.default_vlan_id, switch.pvid) == ((30, 40), 9000, 5, 5)
        assert host.network.bridges["vsw0"] == switch
        assert (tap(host).pvid, tap(host).mtu) == (5, 9000)
        with pytest.raises(LdomsError, match="VLAN 20 is not there to be removed"):
            await manager.switches.set("primary-vsw0", {"vid": "-20"})
        with pytest.raises(LdomsError, match="network vnet0 of LDom ldg1 has MTU 9000; stop it first"):
            await manager.switches.set("primary-vsw0", {"mtu": "1500"})
        await manager.switches.set("primary-vsw0", {"net-dev": "", "vid": ""})
        assert (vsw(manager).net_dev, vsw(manager).vids) == ("", ())

    at_desk(tmp_path, work)


def test_a_switch_without_its_uplink_can_be_made_in_a_hurry(tmp_path: Path) -> None:
    """With -q; without it, neither made nor changed."""

    async def work(host: FakeHost, manager: Manager) -> None:
        with pytest.raises(LdomsError, match="no network interface eth7"):
            await manager.switches.set("primary-vsw0", {"net-dev": "eth7"})
        assert vsw(manager).net_dev == ""
        await manager.switches.set("primary-vsw0", {"net-dev": "eth7"}, quick=True)
        await manager.switches.add("primary-vsw1", "primary", {"net-dev": "eth8"}, quick=True)
        assert [switch.net_dev for switch in manager.host.store.services().switches] == ["eth7", "eth8"]

    at_desk(tmp_path, work)


def test_an_uplink_that_comes_late_is_taken(tmp_path: Path) -> None:
    """And one that was plugged out and in again: once each time, however much is told meanwhile."""

    async def work(host: FakeHost, manager: Manager) -> None:
        taken: list[str] = []
        put = host.network.put_switch

        async def put_switch(switch: VirtualSwitch) -> None:
            await put(switch)
            taken.append(switch.net_dev)

        host.network.put_switch = put_switch  # type: ignore[method-assign]
        await manager.switches.set("primary-vsw0", {"net-dev": "eth7"}, quick=True)
        for _ in range(2):
            host.network.interfaces.discard("eth7")
            host.network.tell()
            await _a_moment()
            taken.clear()
            host.network.interfaces.add("eth7")
            for _ in range(3):
                host.network.tell()
                await _a_moment()
            assert taken == ["eth7"], "once"

    at_desk(tmp_path, work)


@pytest.mark.parametrize(("linkprop_of", "follows"), [("vnet", True), ("vsw", True), ("", False)])
def test_the_link_follows_the_uplink(linkprop_of: str, follows: bool, tmp_path: Path) -> None:
    """Where the vnet or the switch says so: when the cable is pulled, plugged, and when the guest starts meanwhile."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.switches.set(
            "primary-vsw0", {"net-dev": "eth1", "linkprop": "phys-state" if linkprop_of == "vsw" else ""}
        )
        if linkprop_of == "vnet":
            await manager.networks.set("ldg1", "vnet0", {"linkprop": "phys-state"})
        await started(manager)
        for plugged in (False, True, False):
            host.network.set_carrier("eth1", plugged)
            await _a_moment()
            assert guest(host).links.get("network@0", True) is (plugged or not follows)
        await manager.life.stop("ldg1", force=True)
        await manager.life.start("ldg1")
        await _a_moment()
        assert guest(host).links.get("network@0", True) is not follows
        await manager.switches.set("primary-vsw0", {"net-dev": "", "linkprop": ""})
        await _a_moment()
        assert guest(host).links.get("network@0", True), "nothing to follow any more: up"

    at_desk(tmp_path, work)


async def _a_moment() -> None:
    """On the clock of the test."""
    await asyncio.sleep(0.1)


def test_a_guest_boots_from_the_network_that_boot_device_names(tmp_path: Path) -> None:
    """As long as it runs, also on another host; what is named or added meanwhile counts at its next start."""

    def booted_from(host: FakeHost) -> dict[str, int | None]:
        networks = [device for device in guest(host).plugged.values() if isinstance(device, NetworkSpec)]
        return {network.device: network.boot_index for network in networks}

    async def work(host: FakeHost, manager: Manager) -> None:
        manager.domains.set_variables("ldg1", {"boot-device": "net disk"})
        domain = await started(manager)
        assert booted_from(host) == {"network@0": 501}
        assert guest(host).spec.disks[0].boot_index == 1001
        assert domain.bindings is not None
        assert [port.boots for port in domain.bindings.ports] == [False, True]
        manager.domains.set_variables("ldg1", {"boot-device": "vnet1"})
        taps = Taps(manager.host)
        moved = await taps.connect(manager.host.store.domain("ldg1"), domain.networks[0])
        assert moved.boot_index is not None
        await manager.networks.remove("ldg1", "vnet0")
        await manager.networks.add("ldg1", "vnet0", "primary-vsw0", {})
        await manager.networks.add("ldg1", "vnet1", "primary-vsw0", {})
        assert booted_from(host) == {"network@0": None, "network@1": None}
        await manager.life.stop("ldg1", force=True)
        await manager.life.start("ldg1")
        assert booted_from(host) == {"network@0": None, "network@1": 502}

    at_desk(tmp_path, work)


def test_inter_vnet_link_keeps_guests_apart_only_where_that_is_configured(tmp_path: Path) -> None:
    """Or said for the switch. Scripts of LDoms say off to save channels, and their guests talk all the same."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await started(manager)
        for link, isolated in (("off", False), ("isolated", True), ("", False)):
            await manager.switches.set("primary-vsw0", {"inter-vnet-link": link})
            assert tap(host).is_isolated is isolated
        for limit, isolated in ((0, True), (1, False)):
            section = NetworkConfig(isolate_vnets=True, auto_inter_vnet_link_limit=limit)
            object.__setattr__(manager.host.config, "network", section)
            await manager.switches.set("primary-vsw0", {"inter-vnet-link": "auto"})
            assert tap(host).is_isolated is isolated
        await manager.switches.set("primary-vsw0", {"inter-vnet-link": "off"})
        assert tap(host).is_isolated

    at_desk(tmp_path, work)


@pytest.mark.parametrize(
    ("properties", "complaint"),
    [
        ({"pvid": "0"}, "pvid=0 is not a VLAN"),
        ({"pvid": "4095"}, "pvid=4095 is not a VLAN: use 1 to 4094"),
        ({"vid": "1,x"}, "vid=x is not a number"),
        ({"pvlan": "100"}, "write ID,TYPE, TYPE is isolated or community"),
        ({"pvlan": "100,secret"}, "pvlan=100,secret is not a private VLAN"),
        ({"maxbw": "fast"}, "maxbw=fast is not a bandwidth"),
        ({"maxbw": "1K"}, "maxbw=1K is too little: 64K is the least"),
        ({"allowed-ips": "192.0.2.300"}, "'192.0.2.300' is neither an IP address nor a network"),
        ({"allowed-ips": "192.0.2.1/24"}, "'192.0.2.1/24' is neither"),
        ({"protection": "all"}, "protection=all has no meaning: use one of mac-nospoof, restricted"),
        ({"protection": "ip-nospoof"}, "ip-nospoof needs allowed-ips="),
        ({"cos": "8"}, "cos=8 has no meaning"),
        ({"priority": "urgent"}, "priority=urgent has no meaning"),
        ({"alt-mac-addrs": "zz"}, "'zz' is not a MAC address"),
        ({"alt-mac-addrs": "0:14:4f:fc:0:1,00:14:4f:fc:00:01"}, "00:14:4f:fc:00:01 is given twice"),
        ({"auto-alt-mac-addrs": "33"}, "33 alternate MAC addresses are too many"),
        ({"vswitch": "nowhere"}, "Virtual switch nowhere was not found"),
        ({"colour": "red"}, "property colour is not known"),
    ],
)
def test_what_makes_no_sense_is_refused(properties: dict[str, str], complaint: str, tmp_path: Path) -> None:
    """With one sentence, and nothing changed."""

    async def work(host: FakeHost, manager: Manager) -> None:
        before = manager.host.store.domain("ldg1")
        with pytest.raises(LdomsError) as caught:
            await manager.networks.set("ldg1", "vnet0", properties)
        assert complaint in caught.value.message
        assert manager.host.store.domain("ldg1") == before

    at_desk(tmp_path, work)


@pytest.mark.parametrize(
    ("typed", "bits_s"),
    [("100", 100_000_000), ("100m", 100_000_000), ("1.5G", 1_500_000_000), ("64K", 64_000), ("0.1234567", 123_000)],
)
def test_a_bandwidth_is_in_megabits(typed: str, bits_s: int, tmp_path: Path) -> None:
    """Unless it says something else."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.networks.set("ldg1", "vnet0", {"maxbw": typed})
        assert vnet(manager).maxbw_bits_s == bits_s

    at_desk(tmp_path, work)


def test_a_running_guest_gets_a_network_and_gives_it_back(tmp_path: Path) -> None:
    """With tap and root port, protected before it is plugged; nothing of it is left afterwards."""

    async def work(host: FakeHost, manager: Manager) -> None:
        before = await started(manager)
        await manager.networks.add("ldg1", "vnet1", "primary-vsw0", {"protection": "mac-nospoof", "maxbw": "10"})
        assert await guest(host).devices() == {"disk@0", "network@0", "network@1"}
        assert tap(host, "vnet1.1").guard.macs == (vnet(manager, "vnet1").mac,)
        domain = manager.host.store.domain("ldg1")
        assert domain.bindings is not None
        assert [port.device for port in domain.bindings.ports] == ["disk@0", "network@0", "network@1"]
        await manager.networks.remove("ldg1", "vnet1")
        assert manager.host.store.domain("ldg1") == before
        assert await guest(host).devices() == {"disk@0", "network@0"}
        assert set(host.network.taps) == {"vnet1.0"}

    at_desk(tmp_path, work)


def test_a_network_that_cannot_be_plugged_leaves_nothing(tmp_path: Path) -> None:
    """Neither tap nor port nor record."""

    async def work(host: FakeHost, manager: Manager) -> None:
        before = await started(manager)
        host.network.able = ()
        with pytest.raises(LdomsError, match="cannot guard"):
            await manager.networks.add("ldg1", "vnet1", "primary-vsw0", {"protection": "mac-nospoof"})
        guest(host).hangs = True
        with pytest.raises(LdomsError, match="did not answer"):
            await manager.networks.add("ldg1", "vnet1", "primary-vsw0", {})
        guest(host).hangs = False
        assert manager.host.store.domain("ldg1") == before
        assert set(host.network.taps) == {"vnet1.0"}

    at_desk(tmp_path, work)


def test_a_guest_that_does_not_let_go_keeps_its_network(tmp_path: Path) -> None:
    """One that stands still cannot; the answer says so, and everything is as before."""

    async def work(host: FakeHost, manager: Manager) -> None:
        before = await started(manager)
        await guest(host).pause()
        with pytest.raises(LdomsError, match=r"network vnet0 is in use: .* has it as before") as caught:
            await manager.networks.remove("ldg1", "vnet0")
        assert caught.value.code == "device-held"
        assert manager.host.store.domain("ldg1") == before
        assert set(host.network.taps) == {"vnet1.0"}

    at_desk(tmp_path, work)


def test_by_force_the_cable_is_cut(tmp_path: Path) -> None:
    """The network is gone for the domain; what the guest keeps leads nowhere, also after a restart."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.networks.set("ldg1", "vnet0", {"protection": "mac-nospoof", "maxbw": "10"})
        await started(manager)
        await guest(host).pause()
        await manager.networks.remove("ldg1", "vnet0", force=True)
        assert manager.host.store.domain("ldg1").networks == ()
        assert guest(host).links == {"network@0": False}
        parked, bridge = host.network.taps["vnet1.0"]
        assert (bridge, parked.limit_bits_s, parked.guard.is_open) == ("", 0, True)
        await guest(host).resume()
        await host.restart()
        assert host.manager is not None
        assert set(host.network.taps) == {"vnet1.0"}
        await host.manager.networks.add("ldg1", "vnet0", "primary-vsw0", {})
        assert set(host.network.taps) == {"vnet1.0", "vnet1.1"}, "its number is not free yet"
        await guest(host).unplug("network@0", 1.0)
        await _a_moment()
        assert set(host.network.taps) == {"vnet1.1"}, "let go at last"
        await host.manager.life.stop("ldg1", force=True)
        assert host.network.taps == {}

    at_desk(tmp_path, work)


def test_a_stop_clears_what_was_cut(tmp_path: Path) -> None:
    """And a guest that starts afresh does not have it."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await started(manager)
        await guest(host).pause()
        await manager.networks.remove("ldg1", "vnet0", force=True)
        await manager.life.stop("ldg1", force=True)
        assert host.network.taps == {}
        await manager.life.start("ldg1")
        assert await guest(host).devices() == {"disk@0"}

    at_desk(tmp_path, work)


def test_a_bound_domain_gets_and_loses_networks(tmp_path: Path) -> None:
    """It starts with what it has then."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.life.bind("ldg1")
        await manager.networks.remove("ldg1", "vnet0")
        await manager.networks.add("ldg1", "vnet7", "primary-vsw0", {"id": "7"})
        await manager.life.start("ldg1")
        assert await guest(host).devices() == {"disk@0", "network@7"}
        assert set(host.network.taps) == {"vnet1.7"}

    at_desk(tmp_path, work)


def test_devices_are_seen_from_their_owners(tmp_path: Path) -> None:
    """A guest has received what its tap has sent; the host's list has its uplinks with their switches, and no taps."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.switches.set("primary-vsw0", {"net-dev": "eth1"})
        host.network.counters["vnet1.0"] = NetCounters(1, 2, 3, 4, 5, 6, 7, 8)
        (primary, ldg1) = await manager.network_devices.of()
        assert ldg1.devices[0].state == "unknown"
        await started(manager)
        (primary, ldg1) = await manager.network_devices.of()
        assert [(one.name, one.location) for one in primary.devices] == [
            ("eth1", "primary-vsw0@primary"),
            ("vsw0", "primary-vsw0@primary"),
        ]
        (vnet0,) = ldg1.devices
        assert (vnet0.name, vnet0.kind, vnet0.over) == ("vnet0", NetClass.VNET, "primary-vsw0@primary")
        assert (vnet0.state, vnet0.location) == ("up", "vnet1.0")
        assert vnet0.counters == NetCounters(3, 4, 1, 2, 6, 5, 8, 7)
        assert [entry.domain for entry in await manager.network_devices.of(["ldg1"])] == ["ldg1"]

    at_desk(tmp_path, work)
