"""Root ports: each device has one of its own, and some are kept for later."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ldoms.manager.ports import SPARE_PORTS, pick_ports, port_of, root_ports, with_port, without_port
from ldoms.model.domain import Bindings, CpuModel, Domain, Machine, VirtualDisk, VirtualNetwork
from ldoms.model.errors import NoResources

DOMAIN = Domain(
    uuid="u",
    name="ldg1",
    mac="00:14:4f:f8:00:01",
    hostid="0x84f80001",
    order=1,
    disks=(VirtualDisk("vdisk0", "a", "primary-vds0", 0), VirtualDisk("vdisk7", "b", "primary-vds0", 7)),
    networks=(VirtualNetwork("vnet0", "primary-vsw0", 0, "00:14:4f:f8:00:02"),),
)


def bound(root_ports: int) -> Domain:
    machine = Machine("pc-q35-10.0", "tcg", CpuModel("qemu64-v1"), "10.0.2", root_ports=root_ports)
    return replace(DOMAIN, bindings=Bindings((), (), machine=machine, ports=pick_ports(DOMAIN)))


def test_each_device_has_a_port_when_it_is_bound() -> None:
    """Disks first, then networks, and spare ones are kept."""
    domain = bound(root_ports(DOMAIN))
    assert [port_of(domain, device).number for device in ("disk@0", "disk@7", "network@0")] == [0, 1, 2]
    assert root_ports(DOMAIN) == 3 + SPARE_PORTS


def test_a_new_device_takes_the_lowest_free_port() -> None:
    """Also one that another device has left."""
    domain = with_port(bound(5), "disk@1")
    assert port_of(domain, "disk@1").number == 3
    domain = with_port(without_port(domain, "disk@7"), "network@1")
    assert (port_of(domain, "network@1").number, port_of(domain, "disk@1").number) == (1, 3)


@pytest.mark.parametrize("recorded", [0, 3])
def test_a_guest_without_a_free_port_is_told_of(recorded: int) -> None:
    """With what helps; one that was bound by an earlier release has none to spare."""
    with pytest.raises(NoResources, match="no root port left for disk@1: it was bound with 3 and uses them") as caught:
        with_port(bound(recorded), "disk@1")
    assert caught.value.code == "no-root-port"


def test_an_inactive_domain_has_no_ports() -> None:
    """Taking one away is no error."""
    assert without_port(DOMAIN, "disk@0") is DOMAIN
