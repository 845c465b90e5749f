"""Network interfaces as ``list-netdev`` and ``list-netstat`` show them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class NetClass(StrEnum):
    """The CLASS column."""

    PHYS = "PHYS"
    """An interface of the machine, or one end of a virtual cable."""
    AGGR = "AGGR"
    """Several interfaces taken together (bond, team)."""
    VLAN = "VLAN"
    VSW = "VSW"
    """A bridge: a virtual switch, or one of the host's own."""
    VNET = "VNET"
    """The network interface of a guest."""
    ETHERSTUB = "ESTUB"
    """An interface that leads nowhere."""
    LOOPBACK = "LOOP"


@dataclass(frozen=True, slots=True)
class NetCounters:
    """What has passed, from the owner's side: a guest's `received` is what it has received."""

    received_packets: int = 0
    received_bytes: int = 0
    sent_packets: int = 0
    sent_bytes: int = 0
    received_errors: int = 0
    sent_errors: int = 0
    received_drops: int = 0
    sent_drops: int = 0


@dataclass(frozen=True, slots=True)
class NetDevice:
    """A network interface of the host or of a guest.

    Attributes:
        state: ``up``, ``down`` or ``unknown``.
        speed_mbit_s: 0 = it has none, or it is not known.
        over: what it leads to: the interfaces of an aggregation, the switch of a guest's interface.
        location: who uses it: ``SWITCH@primary`` of an uplink, the interface of the host behind a guest's.
        mtu, min_mtu, max_mtu: bytes; 0 = not known.
        addresses: IP addresses with the length of their network.
    """

    name: str
    kind: NetClass
    state: str
    mtu: int
    macs: tuple[str, ...] = ()
    speed_mbit_s: int = 0
    over: str = ""
    location: str = ""
    min_mtu: int = 0
    max_mtu: int = 0
    addresses: tuple[str, ...] = ()
    counters: NetCounters = NetCounters()


@dataclass(frozen=True, slots=True)
class NetDevices:
    """The network interfaces of one domain.

    Attributes:
        at: when the counters were read, in seconds since 1970.
    """

    domain: str
    at: float
    devices: tuple[NetDevice, ...]
