"""Names, MAC addresses and host ids: how things are called and told apart."""

from __future__ import annotations

import random
import re
from collections.abc import Container

from ldoms.model.errors import HostError, RequestError

CONTROL_DOMAIN = "primary"

# LDoms: 512K addresses, F8-FB picked automatically, FC-FF free for picking by hand.
MAC_PREFIX = "00:14:4f"
_AUTOMATIC_FIRST, _AUTOMATIC_LAST = 0xF8_00_00, 0xFB_FF_FF

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+#.:;~()-]*")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
MAX_NAME = 64


def check_name(name: str, kind: str) -> str:
    """Return `name` if it can name a `kind` ("domain", "volume", ...).

    Raises:
        RequestError: it cannot.
    """
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise RequestError(
            f"'{name}' cannot name a {kind}: use at most {MAX_NAME} letters, digits and - _ + # . : ; ~ ( ),"
            " the first one a letter or a digit",
            code="bad-name",
        )
    return name


def check_mac(mac: str) -> str:
    """Return `mac` in lower case with two digits a byte, as ``0:14:4f:f9:c1:7d`` is accepted too.

    Raises:
        RequestError: it is not the address of one network interface.
    """
    normal = ":".join(part.rjust(2, "0") for part in mac.lower().split(":"))
    if not _MAC.fullmatch(normal):
        raise RequestError(
            f"'{mac}' is not a MAC address: give six hexadecimal bytes such as {MAC_PREFIX}:fc:00:01",
            code="bad-mac",
        )
    if int(normal[:2], 16) & 1:
        raise RequestError(
            f"MAC address {mac} is a group address: an interface needs one whose first byte is even",
            code="bad-mac",
        )
    return normal


def is_automatic_mac(mac: str) -> bool:
    """Whether the address is of the range that managers pick from by themselves."""
    return mac.startswith(MAC_PREFIX) and _AUTOMATIC_FIRST <= _low_bytes(mac) <= _AUTOMATIC_LAST


def pick_mac(taken: Container[str], source: random.Random) -> str:
    """A random address of the automatic range that is not `taken`.

    Raises:
        HostError: none was free in many tries.
    """
    for _ in range(1000):
        low = source.randint(_AUTOMATIC_FIRST, _AUTOMATIC_LAST)
        mac = f"{MAC_PREFIX}:{low >> 16:02x}:{low >> 8 & 0xFF:02x}:{low & 0xFF:02x}"
        if mac not in taken:
            return mac
    raise HostError("no MAC address of the automatic range is free", code="no-mac")


def hostid_of(mac: str) -> str:
    """The host id of a guest domain: 0x84, then the low three bytes of its MAC address."""
    return f"0x84{_low_bytes(mac):06x}"


def _low_bytes(mac: str) -> int:
    return int(mac.replace(":", "")[6:], 16)
