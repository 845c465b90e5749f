"""Networks of real guests: limits and protection while they run, networks that come and go, and all of it moved."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from support import SOURCE, TARGET, Hosts, wait_until

SWITCH = "primary-vsw0"
UPLINK = "net0"


@pytest.fixture
def guest(hosts: Hosts) -> Iterator[str]:
    """A tiny guest that runs on t4-1; its first network is as it was afterwards, wherever it is."""
    name = hosts.standing_guest()
    yield name
    (host,) = hosts.place(name)
    clear = ("protection=", "allowed-ips=", "maxbw=", "linkprop=", "alt-mac-addrs=")
    hosts.ldm(host, "set-vnet", *clear, "vnet0", name)


def chains(hosts: Hosts, host: str) -> set[str]:
    """The chains of nftables on a host that belong to taps."""
    rules = json.loads(hosts.run(host, "nft", "-j", "list", "ruleset", check=True).stdout)["nftables"]
    return {entry["chain"]["name"] for entry in rules if "chain" in entry} - {"sent", "delivered"}


def interfaces(hosts: Hosts, host: str) -> set[str]:
    """Taps, and what belongs to them."""
    links = json.loads(hosts.run(host, "ip", "-j", "link", check=True).stdout)
    return {link["ifname"] for link in links if link["ifname"].startswith(("vnet", "vifb"))}


def rates(hosts: Hosts, host: str) -> list[int]:
    """What taps of a host are limited to, in both directions."""
    qdiscs = json.loads(hosts.run(host, "tc", "-j", "qdisc", "show", check=True).stdout)
    return [qdisc["options"]["rate"] * 8 for qdisc in qdiscs if qdisc["kind"] == "tbf"]


def is_silent(hosts: Hosts, guest: str) -> bool:
    """Whether a guest does not answer, now."""
    with contextlib.suppress(Exception):
        hosts.ask(guest)
        return False
    return True


def test_protection_acts_while_a_guest_runs_and_moves_with_it(hosts: Hosts, guest: str) -> None:
    """With a wrong address it is cut off, with its own it is back; the target enforces the same, with a limit."""
    address = hosts.lab.guests[guest]
    protect = ("protection=mac-nospoof,ip-nospoof,restricted", "maxbw=50")
    hosts.ldm(SOURCE, "set-vnet", *protect, "allowed-ips=192.0.2.1", "vnet0", guest)
    assert is_silent(hosts, guest), "it speaks from an address that it may not use"
    hosts.ldm(SOURCE, "set-vnet", f"allowed-ips={address}", "vnet0", guest)
    count, errors = hosts.ask(guest)
    assert errors == 0
    assert len(chains(hosts, SOURCE)) == 2
    assert rates(hosts, SOURCE) == [50_000_000] * 2
    hosts.kill_manager(SOURCE)
    hosts.start_manager(SOURCE)
    assert len(chains(hosts, SOURCE)) == 2
    hosts.ldm(SOURCE, "add-vnet", "protection=mac-nospoof", "vnet1", SWITCH, guest)
    assert len(chains(hosts, SOURCE)) == 4

    moved = hosts.migrate(guest)
    assert moved.returncode == 0, moved.stderr
    assert chains(hosts, SOURCE) == set()
    assert interfaces(hosts, SOURCE) == set()
    assert len(chains(hosts, TARGET)) == 4
    assert rates(hosts, TARGET) == [50_000_000] * 2
    assert hosts.ask(guest)[0] > count
    hosts.ldm(TARGET, "set-vnet", "allowed-ips=192.0.2.1", "vnet0", guest)
    assert is_silent(hosts, guest), "the target does not enforce it"
    hosts.ldm(TARGET, "set-vnet", "protection=", "allowed-ips=", "maxbw=", "vnet0", guest)
    assert hosts.ask(guest)[1] == 0

    hosts.ldm(TARGET, "remove-vnet", "vnet1", guest)
    assert chains(hosts, TARGET) == set()
    assert rates(hosts, TARGET) == []
    assert len(interfaces(hosts, TARGET)) == 1


def test_the_guest_sees_the_link_of_the_uplink(hosts: Hosts, guest: str) -> None:
    """It has none while the cable is out, by its own counting: what QEMU has told it."""
    hosts.ldm(SOURCE, "set-vnet", "linkprop=phys-state", "vnet0", guest)
    log = hosts.lab.root(SOURCE) / "ldmd.log"

    def told() -> list[bool]:
        lines = [json.loads(line) for line in log.read_text().splitlines() if '"link-told"' in line]
        return [line["up"] for line in lines if line["domain"] == guest]

    start = len(told())
    try:
        hosts.run(SOURCE, "ip", "link", "set", UPLINK, "down", check=True)
        wait_until(lambda: told()[start:][-1:] == [False], 10, "the guest is not told that the cable is out")
    finally:
        hosts.run(SOURCE, "ip", "link", "set", UPLINK, "up", check=True)
    wait_until(lambda: told()[-1], 10, "the guest is not told that the cable is in again")
    wait_until(lambda: not is_silent(hosts, guest), 20, "the guest does not answer any more")


def test_counters_are_those_of_the_kernel(hosts: Hosts, guest: str) -> None:
    """What a guest has received and sent grows when it is asked something, and no sooner than that by as much."""

    def passed() -> tuple[int, int]:
        lines = hosts.ldm(SOURCE, "list-netstat", "-p", "-o", "vnet0", guest).splitlines()
        (line,) = [line for line in lines if line.startswith("|name=vnet0|")]
        values = dict(pair.split("=") for pair in line[1:].split("|"))
        return int(values["ipackets"]), int(values["opackets"])

    before = passed()
    for _ in range(5):
        hosts.ask(guest)
    after = passed()
    assert after[0] >= before[0] + 15, "five connections take at least three packets each"
    assert after[1] >= before[1] + 15
