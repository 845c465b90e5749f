"""Root ports: which device of a bound domain sits behind which, and how many are kept for devices that come later."""

from __future__ import annotations

from dataclasses import replace

from ldoms.hypervisor.command_line import PORTS
from ldoms.model.domain import Bindings, Domain, Port
from ldoms.model.errors import NoResources

SPARE_PORTS = 8
"""Root ports without a device that a domain is bound with. Each costs the guest time when it boots: under TCG the tiny
guest took 1.94 s of CPU without any, 2.00 s with 8, 2.24 s with 16, 2.67 s with 32."""


def devices_of(domain: Domain) -> tuple[str, ...]:
    """Every disk and network interface of a domain, as the guest counts them."""
    disks = tuple(f"disk@{disk.id}" for disk in domain.disks)
    return (*disks, *(f"network@{network.id}" for network in domain.networks))


def pick_ports(domain: Domain) -> tuple[Port, ...]:
    """A root port for each device of a domain that is being bound."""
    devices = devices_of(domain)
    assert len(devices) <= PORTS
    return tuple(Port(device, number) for number, device in enumerate(devices))


def root_ports(domain: Domain) -> int:
    """How many root ports a domain is bound with."""
    return min(PORTS, len(devices_of(domain)) + SPARE_PORTS)


def port_of(domain: Domain, device: str) -> Port:
    """The root port of a device of a bound domain."""
    assert domain.bindings is not None
    return next(port for port in domain.bindings.ports if port.device == device)


def taken_ids(domain: Domain, kind: str) -> list[int]:
    """The ids of a domain's disks or networks (`kind`), those among them that its guest has not let go of."""
    ports = domain.bindings.ports if domain.bindings is not None else ()
    devices = [*devices_of(domain), *(port.device for port in ports)]
    return [int(number) for one, _, number in (device.partition("@") for device in devices) if one == kind]


def with_port(domain: Domain, device: str) -> Domain:
    """A bound domain, with the lowest free root port for a device that it did not have.

    Raises:
        NoResources: none is free; a running guest cannot be given another one.
    """
    assert domain.bindings is not None
    taken = {port.number for port in domain.bindings.ports}
    there = _there(domain.bindings)
    free = next((number for number in range(there) if number not in taken), None)
    if free is None:
        raise NoResources(
            f"LDom {domain.name} has no root port left for {device}: it was bound with {there} and uses them all; stop,"
            " unbind and bind it, and it has new ones",
            code="no-root-port",
        )
    ports = (*domain.bindings.ports, Port(device, free))
    return replace(domain, bindings=replace(domain.bindings, ports=ports))


def without_port(domain: Domain, device: str) -> Domain:
    """A domain, bound or not, without the root port of a device that it has no more."""
    if domain.bindings is None:
        return domain
    ports = tuple(port for port in domain.bindings.ports if port.device != device)
    return replace(domain, bindings=replace(domain.bindings, ports=ports))


def without_device(domain: Domain, device: str) -> Domain:
    """A domain without a device, and without its root port."""
    disks = tuple(disk for disk in domain.disks if f"disk@{disk.id}" != device)
    networks = tuple(network for network in domain.networks if f"network@{network.id}" != device)
    return without_port(replace(domain, disks=disks, networks=networks), device)


def dead_disks(domain: Domain) -> tuple[str, ...]:
    """Disks that were removed by force, and that the guest still has because it did not let them go."""
    return _dead(domain, "disk@")


def dead_networks(domain: Domain) -> tuple[str, ...]:
    """The same of network interfaces."""
    return _dead(domain, "network@")


def without_dead_devices(domain: Domain) -> Domain:
    """A domain whose guest starts afresh: what was removed is not there any more."""
    for device in (*dead_disks(domain), *dead_networks(domain)):
        domain = without_port(domain, device)
    return domain


def _dead(domain: Domain, kind: str) -> tuple[str, ...]:
    if domain.bindings is None:
        return ()
    devices = [port.device for port in domain.bindings.ports]
    return tuple(device for device in devices if device.startswith(kind) and device not in devices_of(domain))


def _there(bindings: Bindings) -> int:
    spare = bindings.machine.root_ports if bindings.machine is not None else 0
    return max(spare, *(port.number + 1 for port in bindings.ports), 0)
