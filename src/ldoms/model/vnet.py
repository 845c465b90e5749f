"""What a virtual network may be told to do, besides connecting a guest: protection, private VLANs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MAX_VLAN = 4094


class NetworkAbility(StrEnum):
    """What a host must be able to do for some properties of a virtual network."""

    VLAN_FILTERING = "vlan-filtering"
    """The kernel's bridges tell VLANs apart."""
    PACKET_FILTER = "packet-filter"
    """Rules of nftables on bridges."""


class Protection(StrEnum):
    """What a guest is kept from sending (``protection=``)."""

    MAC_NOSPOOF = "mac-nospoof"
    """Frames from, or answers for, MAC addresses that are not its own; it gets none that are for others either."""
    RESTRICTED = "restricted"
    """Frames that are neither IPv4, IPv6 nor ARP."""
    IP_NOSPOOF = "ip-nospoof"
    """Packets from, ARP and neighbour announcements of, addresses that are not in ``allowed-ips``."""
    DHCP_NOSPOOF = "dhcp-nospoof"
    """Answers of a DHCP server, and requests for the hardware address of another."""


class PvlanType(StrEnum):
    """Whom a member of a private VLAN reaches, apart from what is not in one: the uplink, and other vnets."""

    ISOLATED = "isolated"
    """No other member."""
    COMMUNITY = "community"
    """Members of the same community."""


@dataclass(frozen=True, slots=True)
class Pvlan:
    """The place of a virtual network in a private VLAN (``pvlan=ID,TYPE``)."""

    id: int
    type: PvlanType

    def __str__(self) -> str:
        """As it is typed."""
        return f"{self.id},{self.type}"
