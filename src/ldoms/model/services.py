"""The virtual services of a service domain: disk servers, switches, console concentrators."""

from __future__ import annotations

from dataclasses import dataclass

from ldoms.model.errors import NotFound
from ldoms.model.identity import CONTROL_DOMAIN

DEFAULT_MTU = 1500
MIN_MTU, MAX_MTU = 1500, 16000
DEFAULT_VLAN = 1


@dataclass(frozen=True, slots=True)
class Volume:
    """A back end that a disk service offers under a name.

    Attributes:
        backend: path of a raw or qcow2 image, or of a block device.
        options: of ``ro``, ``slice``, ``excl``.
        mpgroup: volumes of one group are paths to the same data.
        format: ``raw`` or ``qcow2``, found out once, when the volume was added or first bound: never again, because
            a guest can write anything into a raw image, also what looks like the head of another format.
    """

    name: str
    backend: str
    options: tuple[str, ...] = ()
    mpgroup: str = ""
    format: str = ""

    @property
    def is_read_only(self) -> bool:
        """Whether guests may only read it."""
        return "ro" in self.options

    @property
    def is_exclusive(self) -> bool:
        """Whether nothing else may have the same back end, and no second disk may be on it."""
        return "excl" in self.options


@dataclass(frozen=True, slots=True)
class VirtualDiskService:
    """A virtual disk server (vds)."""

    name: str
    domain: str = CONTROL_DOMAIN
    volumes: tuple[Volume, ...] = ()

    def volume(self, name: str) -> Volume:
        """The volume of that name.

        Raises:
            NotFound: there is none.
        """
        for volume in self.volumes:
            if volume.name == name:
                return volume
        raise NotFound(f"Volume {name}@{self.name} was not found: it does not exist")


@dataclass(frozen=True, slots=True)
class VirtualSwitch:
    """A virtual switch (vsw): a bridge of this host.

    Attributes:
        net_dev: the interface of the host that is its uplink, or an existing bridge to join; empty = none.
        default_vlan_id: VLAN of untagged frames at the uplink, and of every vnet that names none.
        pvid, vids: VLANs of the host's own interface at the switch: without and with a tag.
        mtu: bytes.
    """

    name: str
    id: int
    mac: str
    domain: str = CONTROL_DOMAIN
    net_dev: str = ""
    default_vlan_id: int = 1
    pvid: int = 1
    mtu: int = DEFAULT_MTU
    linkprop: str = ""
    mode: str = ""
    inter_vnet_link: str = "on"
    vids: tuple[int, ...] = ()

    @property
    def uses_vlans(self) -> bool:
        """Whether it tells VLANs apart by itself, whatever is connected to it."""
        return bool(self.vids) or (self.pvid, self.default_vlan_id) != (DEFAULT_VLAN, DEFAULT_VLAN)


@dataclass(frozen=True, slots=True)
class ConsoleConcentrator:
    """A console concentrator (vcc): a range of TCP ports on loopback, one for each console."""

    name: str
    port_min: int
    port_max: int
    domain: str = CONTROL_DOMAIN


@dataclass(frozen=True, slots=True)
class Services:
    """All services of a host, each kind in the order in which they were made."""

    disk_services: tuple[VirtualDiskService, ...] = ()
    switches: tuple[VirtualSwitch, ...] = ()
    concentrators: tuple[ConsoleConcentrator, ...] = ()

    def disk_service(self, name: str) -> VirtualDiskService:
        """The disk service of that name.

        Raises:
            NotFound: there is none.
        """
        for service in self.disk_services:
            if service.name == name:
                return service
        raise NotFound(f"Virtual disk service {name} was not found: it does not exist")

    def switch(self, name: str) -> VirtualSwitch:
        """The virtual switch of that name.

        Raises:
            NotFound: there is none.
        """
        for switch in self.switches:
            if switch.name == name:
                return switch
        raise NotFound(f"Virtual switch {name} was not found")

    def concentrator(self, name: str) -> ConsoleConcentrator:
        """The console concentrator of that name.

        Raises:
            NotFound: there is none.
        """
        for concentrator in self.concentrators:
            if concentrator.name == name:
                return concentrator
        raise NotFound(f"Virtual console concentrator {name} was not found")
