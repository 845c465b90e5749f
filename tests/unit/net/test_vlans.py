"""VLANs of a bridge, down to the netlink messages: recorded here, as not every kernel can tell VLANs apart."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from ldoms.model.errors import HostError
from ldoms.model.services import VirtualSwitch
from ldoms.net import guard, linux, vlans
from ldoms.net.network import TapSpec

BRIDGE, UPLINK, TAP = 10, 11, 12
SWITCH = VirtualSwitch("primary-vsw0", 0, "00:14:4f:f8:00:01", net_dev="up0")


class Attributes(dict[str, Any]):
    """What pyroute2 gives for a message: fields by name, attributes by theirs."""

    def get_attr(self, name: str) -> Any:
        return self.get(name)

    def get_attrs(self, name: str) -> list[Any]:
        return [value for key, value in self.get("attrs", []) if key == name]


class Kernel:
    """Stands in for a netlink socket: a bridge with an uplink and a tap, and every request written down."""

    def __init__(self, *, able: bool = True, members: Mapping[int, Mapping[int, int]] | None = None) -> None:
        self.able = able
        self.filters = False
        self.members = members or {}
        self.requests: list[tuple[str, int, str, dict[str, Any]]] = []
        self._names = {"vsw0": BRIDGE, "up0": UPLINK, "vnet1.0": TAP}

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def link_lookup(self, ifname: str) -> Sequence[int]:
        return [self._names[ifname]] if ifname in self._names else []

    def get_links(self, *indexes: int, master: int = 0) -> list[Attributes]:
        everything = [self._link(name, index) for name, index in self._names.items()]
        return [
            link
            for link in everything
            if (not indexes or link["index"] in indexes) and master in (0, link.get("IFLA_MASTER"))
        ]

    def _link(self, name: str, index: int) -> Attributes:
        data = Attributes(
            IFLA_BR_VLAN_FILTERING=int(self.filters), **({"IFLA_BR_VLAN_PROTOCOL": 1} if self.able else {})
        )
        info = Attributes(IFLA_INFO_KIND="bridge" if index == BRIDGE else "tun", IFLA_INFO_DATA=data)
        alias = "" if index == UPLINK else "ldoms x"
        return Attributes(
            index=index,
            IFLA_IFNAME=name,
            IFLA_IFALIAS=alias,
            IFLA_LINKINFO=info,
            IFLA_MASTER=BRIDGE * (index != BRIDGE),
        )

    def get_vlans(self, index: int) -> list[Attributes]:
        infos = [
            ("IFLA_BRIDGE_VLAN_INFO", {"vid": vid, "flags": bits}) for vid, bits in self.members.get(index, {}).items()
        ]
        return [Attributes(IFLA_AF_SPEC=Attributes(attrs=infos))]

    def link(self, command: str, **request: Any) -> None:
        if "br_vlan_filtering" in request:
            self.requests.append(("filtering", request["index"], command, request))
            self.filters = self.able  # a kernel that is not able says nothing

    def vlan_filter(self, command: str, **request: Any) -> None:
        if not self.able:
            raise NetlinkError(errno.EOPNOTSUPP, "Operation not supported")
        index = request.pop("index")
        self.requests.append(("vlan", index, command, request))

    def brport(self, command: str, **request: Any) -> None:
        pass

    def tc(self, *words: Any, **request: Any) -> None:
        raise AssertionError("nothing is limited here")

    def vlans_of(self, index: int) -> list[tuple[str, str, tuple[str, ...]]]:
        """The requests about a port: what, VLANs, flags."""
        return [
            (command, str(request["vlan_info"]["vid"]), tuple(request["vlan_info"].get("flags", ())))
            for kind, port, command, request in self.requests
            if kind == "vlan" and port == index
        ]


@pytest.fixture(autouse=True)
def no_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of nftables is touched."""
    monkeypatch.setattr(guard, "put", lambda tap, spec: None)


def use(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> linux.LinuxNetwork:
    monkeypatch.setattr(linux, "IPRoute", lambda: kernel)
    return linux.LinuxNetwork()


@pytest.mark.parametrize(
    ("members", "runs"),
    [
        (vlans.members(1, ()), [(1, 1, vlans.UNTAGGED)]),
        (vlans.members(10, (20, 21, 22, 30)), [(10, 10, vlans.UNTAGGED), (20, 22, ()), (30, 30, ())]),
        (vlans.members(21, (20, 21, 22)), [(20, 20, ()), (21, 21, vlans.UNTAGGED), (22, 22, ())]),
        (vlans.uplink_members(1), [(1, 1, vlans.UNTAGGED), (2, 4094, ())]),
        (vlans.uplink_members(7), [(1, 6, ()), (7, 7, vlans.UNTAGGED), (8, 4094, ())]),
    ],
)
def test_neighbours_with_the_same_flags_are_one_range(members: vlans.Members, runs: list[Any]) -> None:
    """A whole uplink is two or three messages, not four thousand."""
    assert list(vlans.runs(members)) == runs


async def test_a_tap_gets_its_vlans(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bridge is told to look at tags first; the uplink carries all VLANs, the host's interface its own."""
    kernel = Kernel(members={TAP: {1: 6}})
    tap = TapSpec("vnet1.0", "ldg1/vnet0", 1500, pvid=10, vids=(20, 21))
    await use(kernel, monkeypatch).put_tap(tap, SWITCH)
    kind, index, _, request = kernel.requests[0]
    assert (kind, index) == ("filtering", BRIDGE)
    assert (request["br_vlan_filtering"], request["br_vlan_default_pvid"]) == (1, 1)
    assert kernel.vlans_of(TAP) == [("del", "1", ()), ("add", "10", ("pvid", "untagged")), ("add", "20-21", ())]
    assert kernel.vlans_of(UPLINK) == [("add", "1", ("pvid", "untagged")), ("add", "2-4094", ())]
    assert kernel.vlans_of(BRIDGE) == [("add", "1", ("pvid", "untagged"))]


async def test_what_is_there_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tap that has its VLANs gets no message; one that has too many loses those."""
    kernel = Kernel(members={TAP: {10: 6, 20: 0, 30: 0}})
    kernel.filters = True
    await use(kernel, monkeypatch).put_tap(TapSpec("vnet1.0", "", 1500, pvid=10, vids=(20,)), SWITCH)
    assert kernel.vlans_of(TAP) == [("del", "30", ())]


async def test_the_host_has_the_vlans_of_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its interface is the bridge itself, which netlink calls the port's self."""
    kernel = Kernel()
    switch = VirtualSwitch("primary-vsw0", 0, "00:14:4f:f8:00:01", default_vlan_id=5, pvid=6, vids=(7,))
    await use(kernel, monkeypatch).put_switch(switch)
    assert kernel.requests[0][3]["br_vlan_default_pvid"] == 5
    assert kernel.vlans_of(BRIDGE) == [("add", "6", ("pvid", "untagged")), ("add", "7", ())]
    assert all(request["vlan_flags"] == "self" for kind, port, _, request in kernel.requests if kind == "vlan")


async def test_a_switch_without_vlans_sends_no_message_about_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it works on every kernel."""
    kernel = Kernel(able=False)
    network = use(kernel, monkeypatch)
    await network.put_switch(SWITCH)
    await network.put_tap(TapSpec("vnet1.0", "ldg1/vnet0", 1500), SWITCH)
    assert kernel.requests == []


@pytest.mark.parametrize(
    "tap", [TapSpec("vnet1.0", "", 1500, pvid=10), TapSpec("vnet1.0", "", 1500, vids=(20,))], ids=["pvid", "vid"]
)
async def test_a_kernel_that_cannot_is_named(tap: TapSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence with the kernel's option, whether the kernel says nothing or that it is not supported."""
    network = use(Kernel(able=False), monkeypatch)
    for call in (network.put_tap(tap, SWITCH), network.put_switch(VirtualSwitch("primary-vsw0", 0, "", pvid=9))):
        with pytest.raises(HostError, match=r"primary-vsw0 cannot .* \(CONFIG_BRIDGE_VLAN_FILTERING\)$") as caught:
            await call
        assert caught.value.code == "no-vlan-filtering"
    with pytest.raises(HostError, match="CONFIG_BRIDGE_VLAN_FILTERING"):
        vlans.set_members(Kernel(able=False), TAP, "primary-vsw0", vlans.members(10, ()))


async def test_a_bridge_of_the_host_must_be_set_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """We do not change it: the host's own interfaces on it would lose their VLAN."""
    kernel = Kernel()
    kernel._names = {"br0": BRIDGE, "vnet1.0": TAP}
    switch = VirtualSwitch("primary-vsw0", 0, "", net_dev="br0")
    network = use(kernel, monkeypatch)
    with pytest.raises(HostError, match="ip link set br0 type bridge vlan_filtering 1") as caught:
        await network.put_tap(TapSpec("vnet1.0", "", 1500, pvid=10), switch)
    assert caught.value.code == "no-vlan-filtering"
    kernel.filters = True
    await network.put_tap(TapSpec("vnet1.0", "", 1500, pvid=10), switch)
    assert kernel.vlans_of(TAP) == [("add", "10", ("pvid", "untagged"))]


@pytest.mark.parametrize(("able", "abilities"), [(True, True), (False, False)])
async def test_whether_a_kernel_can_is_known_beforehand(
    able: bool, abilities: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From what it shows of a bridge, without changing it."""
    kernel = Kernel(able=able)
    found = await use(kernel, monkeypatch).abilities((SWITCH,))
    assert ("vlan-filtering" in found) is abilities
    assert kernel.requests == []
