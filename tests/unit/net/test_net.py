"""Names of interfaces, and what becomes of the kernel's refusals. No interface is touched."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Awaitable, Callable

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from ldoms.model.errors import HostError
from ldoms.model.services import VirtualSwitch
from ldoms.net import linux
from ldoms.net.linux import LinuxNetwork
from ldoms.net.network import TapSpec, switch_device, tap_name

MAX_NAME = 15
"""Characters of an interface's name (linux/if.h: IFNAMSIZ, less its end)."""

SWITCH = VirtualSwitch("primary-vsw0", 3, "00:14:4f:f8:00:01", net_dev="up0")


def test_no_two_interfaces_have_one_name() -> None:
    """Neither two taps nor a tap and a switch, and the kernel takes all of them."""
    numbers = (0, 1, 10, 11, 110, 99999)
    taps = [tap_name(order, network) for order, network in itertools.product(numbers, (0, 1, 10, 110, 999))]
    switches = [switch_device(VirtualSwitch("vsw", number, "")) for number in numbers]
    names = taps + switches
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= MAX_NAME


class RefusingKernel:
    """Stands in for a netlink socket: every request fails in the same way."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __enter__(self) -> RefusingKernel:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __getattr__(self, name: str) -> object:
        raise self._error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NetlinkError(errno.EPERM, "Operation not permitted"), "the kernel says: Operation not permitted"),
        (NetlinkError(errno.EBUSY, "Device or resource busy"), "the kernel says: Device or resource busy"),
        (OSError(errno.ENOENT, "No such file or directory", "/dev/net/tun"), r".*No such file or directory.*tun"),
    ],
)
@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda network: network.put_switch(SWITCH), "make virtual switch primary-vsw0"),
        (lambda network: network.check_uplink("up0"), "look at interface up0"),
        (lambda network: network.remove_switch(SWITCH), "remove interface vsw3"),
        (lambda network: network.put_tap(TapSpec("vnet1.0", "vnet0 of ldg1", 1500), SWITCH), "make tap vnet1.0"),
        (lambda network: network.remove_tap("vnet1.0"), "remove interface vnet1.0"),
    ],
    ids=["put_switch", "check_uplink", "remove_switch", "put_tap", "remove_tap"],
)
async def test_what_the_kernel_refuses_is_told_with_what_was_tried(
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    reason: str,
    call: Callable[[LinuxNetwork], Awaitable[None]],
    what: str,
) -> None:
    """No error of the library or of the kernel reaches the rest of ldoms."""
    monkeypatch.setattr(linux, "IPRoute", lambda: RefusingKernel(error))
    with pytest.raises(HostError, match=f"^cannot {what}: {reason}") as caught:
        await call(LinuxNetwork())
    assert caught.value.code == "network-refused"
    assert caught.value.__cause__ is error


async def test_no_way_to_an_address_is_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no MTU to compare then."""
    unreachable = NetlinkError(errno.ENETUNREACH, "Network is unreachable")
    monkeypatch.setattr(linux, "IPRoute", lambda: RefusingKernel(unreachable))
    assert await LinuxNetwork().mtu_towards("192.0.2.1") == 0
