"""What a link between lab hosts is like: rate, delay, loss, and cuts.

The rate is a token bucket (``tbf``) on both ends of a host's link. Delay and loss are the kernel's ``netem`` where it
has that and there is no rate; elsewhere `ldoms.lab.relay` carries the packets by hand. A cut is silent, as a pulled
cable far away is: nftables drops packets in the switch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from ldoms.model.errors import RequestError

BUCKET_S = 0.005
"""Worth of traffic that a token bucket lets through at once; a few large packets at least."""
MIN_BUCKET = 128 * 1024
MAX_WAIT_S = 0.1
"""Worth of traffic that may wait in a token bucket before it is dropped."""
_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kmg])bit(?:/s)?", re.IGNORECASE)
_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s)")
_SHARE = re.compile(r"([0-9]+(?:\.[0-9]+)?)%")


class Cut(StrEnum):
    """What does not get through."""

    NONE = "none"
    ALL = "all"
    CONTROL = "control"
    """Calls between managers."""
    DATA = "data"
    """The memory of migrations."""
    OUT = "out"
    """What the host sends."""
    IN = "in"
    """What is sent to it."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How a host's link is.

    Attributes:
        rate_bit_s: 0 = as fast as the machine can.
        delay_s: one way, on top of what there is.
        loss: share of packets that vanish, 0 to 1.
    """

    rate_bit_s: int = 0
    delay_s: float = 0.0
    loss: float = 0.0
    cut: Cut = Cut.NONE

    @property
    def needs_relay(self) -> bool:
        """Whether packets must be held back or thrown away one by one."""
        return self.delay_s > 0 or self.loss > 0

    def __str__(self) -> str:
        parts = [f"{self.rate_bit_s / 1e6:g} Mbit/s" if self.rate_bit_s else "unlimited"]
        parts += [f"{self.delay_s * 1e3:g} ms delay"] if self.delay_s else []
        parts += [f"{self.loss:.3%} loss"] if self.loss else []
        parts += [f"cut: {self.cut}"] if self.cut is not Cut.NONE else []
        return ", ".join(parts)


def parse_rate(text: str) -> int:
    """Read ``100mbit`` or ``1gbit`` as bits per second."""
    match = _RATE.fullmatch(text)
    if match is None:
        raise RequestError(f"'{text}' is not a rate: write 200mbit or 1gbit", code="bad-shape")
    return round(float(match[1]) * {"k": 1e3, "m": 1e6, "g": 1e9}[match[2].lower()])


def parse_delay_s(text: str) -> float:
    """Read ``5ms`` as seconds."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise RequestError(f"'{text}' is not a delay: write 5ms", code="bad-shape")
    return float(match[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[match[2]]


def parse_loss(text: str) -> float:
    """Read ``0.5%`` as a share."""
    match = _SHARE.fullmatch(text)
    if match is None or not 0 <= float(match[1]) <= 100:
        raise RequestError(f"'{text}' is not a share of packets: write 0.5%", code="bad-shape")
    return float(match[1]) / 100


def bucket_bytes(rate_bit_s: int) -> int:
    """Size of a token bucket for a rate."""
    return max(MIN_BUCKET, round(rate_bit_s / 8 * BUCKET_S))


def drop_rules(cuts: dict[str, Cut], manager_port: int, data_ports: tuple[int, int]) -> str:
    """The nftables script that makes the cuts, and only these: a host's switch port by its name, and what is cut."""
    control = f"tcp dport {manager_port}", f"tcp sport {manager_port}"
    ports = f"{data_ports[0]}-{data_ports[1]}"
    data = f"tcp dport {ports}", f"tcp sport {ports}"
    both, everything = ("iifname", "oifname"), ("",)
    what = {
        Cut.ALL: (both, everything),
        Cut.CONTROL: (both, control),
        Cut.DATA: (both, data),
        Cut.OUT: (both[:1], everything),
        Cut.IN: (both[1:], everything),
    }
    rules = [
        f"add rule bridge lab cuts {way} {port} {match} drop"
        for port, cut in cuts.items()
        if cut is not Cut.NONE
        for way in what[cut][0]
        for match in what[cut][1]
    ]
    begin = ["add table bridge lab", "delete table bridge lab"]
    if not rules:
        return "\n".join(begin)
    chain = "add chain bridge lab cuts { type filter hook forward priority 0; }"
    return "\n".join([*begin, "add table bridge lab", chain, *rules])
