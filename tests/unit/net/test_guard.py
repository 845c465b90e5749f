"""Rules of nftables, as values: what is written for which protection. No rule reaches a kernel."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

from ldoms.model.errors import HostError
from ldoms.model.vnet import Protection, Pvlan, PvlanType
from ldoms.net import guard
from ldoms.net.network import Guard

MAC = "00:14:4f:f8:00:01"
ADDRESSES = ("192.0.2.7", "198.51.100.0/24", "2001:db8::7")


def rules(spec: Guard, direction: str) -> list[list[dict[str, Any]]]:
    """The rules of one direction of a tap."""
    added = [
        command["add"]["rule"] for command in guard.installation("vnet1.0", spec) if "rule" in command.get("add", {})
    ]
    return [rule["expr"] for rule in added if rule["chain"] == f"{direction}-vnet1.0"]


def text(spec: Guard, direction: str) -> str:
    return json.dumps(rules(spec, direction))


@pytest.mark.parametrize(
    ("protection", "sent", "delivered"),
    [
        (Protection.MAC_NOSPOOF, 2, 1),
        (Protection.RESTRICTED, 1, 0),
        (Protection.DHCP_NOSPOOF, 3, 0),
        (Protection.IP_NOSPOOF, 6, 2),
    ],
)
def test_each_protection_has_its_rules(protection: Protection, sent: int, delivered: int) -> None:
    """And together they have all of them: none takes the place of another."""
    one = Guard((MAC,), ADDRESSES, (protection,))
    assert (len(rules(one, "from")), len(rules(one, "to"))) == (sent, delivered)
    everything = Guard((MAC,), ADDRESSES, tuple(Protection))
    for direction in ("from", "to"):
        for rule in rules(one, direction):
            assert rule in rules(everything, direction)


def test_whatever_may_pass_unseen_comes_last() -> None:
    """A request for an address is let through before addresses are looked at, and after everything else is."""
    found = rules(Guard((MAC,), ADDRESSES, tuple(Protection), Pvlan(5, PvlanType.ISOLATED)), "from")
    (passing,) = [number for number, rule in enumerate(found) if {"accept": None} in rule]
    before = json.dumps(found[:passing])
    assert all(word in before for word in ("saddr ether", "sport", '"mark"', "8021q", "saddr ip"))


def test_the_guest_has_its_own_addresses() -> None:
    """Those that are allowed, the link-local ones of its MAC addresses, and those of one that has none yet."""
    sent = text(Guard((MAC, "00:14:4f:f8:00:02"), ADDRESSES, (Protection.IP_NOSPOOF,)), "from")
    assert '"fe80::214:4fff:fef8:1"' in sent
    assert '"fe80::214:4fff:fef8:2"' in sent
    assert '{"prefix": {"addr": "198.51.100.0", "len": 24}}' in sent
    assert '"0.0.0.0"' in sent
    assert '"::"' in sent
    assert "0x20010db8000000000000000000000007" in sent, "announced to neighbours"


def test_without_an_address_of_a_family_nothing_of_it_passes() -> None:
    """IPv6 addresses alone: no IPv4 packet but a request for one."""
    found = rules(Guard((MAC,), ("2001:db8::7",), (Protection.IP_NOSPOOF,)), "from")
    ipv4 = [rule for rule in found if rule[0].get("match", {}).get("right") == "ip"]
    assert [rule[-1] for rule in ipv4] == [{"accept": None}, {"drop": None}]
    assert len(ipv4[1]) == 2 or ipv4[1][0] == ipv4[1][1]


def test_members_of_a_private_vlan_are_told_apart_by_marks() -> None:
    """Isolated ones get nothing from any member; a community gets what its own members send."""
    isolated, community = Pvlan(5, PvlanType.ISOLATED), Pvlan(5, PvlanType.COMMUNITY)
    marks = [rules(Guard((MAC,), pvlan=pvlan), "from")[0][0]["mangle"]["value"] for pvlan in (isolated, community)]
    assert len(set(marks)) == 2
    assert len(rules(Guard((MAC,), pvlan=isolated), "to")[0]) == 2
    assert str(marks[1]) in text(Guard((MAC,), pvlan=community), "to")


def test_what_is_added_is_removed() -> None:
    """Chains and elements by the names that they were given; the table with the last tap."""
    added = guard.installation("vnet1.0", Guard((MAC,), protection=(Protection.MAC_NOSPOOF,)))
    made = {command["add"]["chain"]["name"] for command in added if "chain" in command.get("add", {})}
    removed = guard.removal("vnet1.0", last=False)
    gone = {command["delete"]["chain"]["name"] for command in removed if "chain" in command.get("delete", {})}
    assert gone == {name for name in made if "vnet1.0" in name}
    elements = [command["add"]["element"] for command in added if "element" in command.get("add", {})]
    assert [command["delete"]["element"] for command in removed if "element" in command.get("delete", {})] == elements
    assert guard.removal("vnet1.0", last=True) == [{"delete": {"table": {"family": "bridge", "name": "ldoms"}}}]


@pytest.mark.skipif(shutil.which("nft") is None, reason="nftables is not installed")
def test_the_program_understands_every_rule() -> None:
    """It reads them, whether or not this user may write them."""
    spec = Guard((MAC,), ADDRESSES, tuple(Protection), Pvlan(5, PvlanType.COMMUNITY))
    commands = json.dumps({"nftables": guard.installation("vnet1.0", spec)})
    done = subprocess.run(
        ["nft", "--check", "-j", "-f", "-"], input=commands, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 or "Operation not permitted" in done.stderr, done.stderr


def test_without_the_program_a_guard_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plainly; and taps without one need no program, neither to be made nor to be removed."""

    def missing(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
        raise FileNotFoundError("nft")

    monkeypatch.setattr(subprocess, "run", missing)
    with pytest.raises(HostError, match=r"cannot guard vnet1.0: there is no program nft .* install") as caught:
        guard.put("vnet1.0", Guard((MAC,), protection=(Protection.RESTRICTED,)))
    assert caught.value.code == "no-packet-filter"
    assert not guard.is_possible()
    guard.put("vnet1.0", Guard((MAC,)))
    guard.remove("vnet1.0")
    guard.sweep(set())
