"""Network interfaces of domains."""

from __future__ import annotations

from collections.abc import Container, Mapping
from contextlib import suppress
from dataclasses import replace

from ldoms.manager.host import Host
from ldoms.manager.links import GuestLinks
from ldoms.manager.network_properties import MAX_ALT_MACS, changed_network
from ldoms.manager.properties import check_unbound, free_number, int_property, without
from ldoms.manager.taps import Taps
from ldoms.model.domain import Domain, VirtualNetwork
from ldoms.model.errors import AlreadyExists, HostError, LdomsError, RequestError
from ldoms.model.identity import check_name

FIXED = ("mac-addr", "mtu")
"""What a guest is told once, when it sees the interface first."""
_PICK = "auto"


class NetworkVerbs:
    """``add-vnet``, ``set-vnet``, ``remove-vnet``."""

    def __init__(self, host: Host, links: GuestLinks) -> None:
        self._host = host
        self._links = links
        self._taps = Taps(host)

    async def add(self, name: str, network: str, switch: str, properties: Mapping[str, str]) -> Domain:
        """Connect a domain to a virtual switch.

        Args:
            name: of the domain.
            network: name of the new interface.
            switch: to connect it to.
            properties: ``mac-addr``, ``alt-mac-addrs``, ``auto-alt-mac-addrs``, ``id``, and those of
                `changed_network`.
        """
        given = dict(properties)
        mac = await self._host.pick_mac(given.pop("mac-addr", ""))
        alternatives = await self._alternatives(given, (), {mac})
        with self._host.changing(name, "add-vnet") as domain:
            check_unbound(domain, "a network can be added")
            check_name(network, "virtual network")
            if any(known.name == network for known in domain.networks):
                raise AlreadyExists(f"virtual network {network} already exists in LDom {name}")
            known_switch = self._host.store.services().switch(switch)
            wished = int_property("id", given.pop("id")) if given.get("id") else None
            given.pop("id", None)
            number = free_number(wished, [known.id for known in domain.networks], f"network of LDom {name}")
            bare = VirtualNetwork(network, switch, number, mac, alt_macs=alternatives)
            added = changed_network(bare, given, known_switch)
            return self._host.save(replace(domain, networks=(*domain.networks, added)))

    async def set(self, name: str, network: str, properties: Mapping[str, str]) -> Domain:
        """Change an interface of a domain; that of a running guest at once.

        Raises:
            RequestError: a property makes no sense, or cannot change while the guest runs.
            HostError: the kernel refuses; everything is as it was.
        """
        given = dict(properties)
        mac = await self._new_mac(name, network, given)
        old_macs = self._host.store.domain(name).network(network).alt_macs
        alternatives = await self._alternatives(given, old_macs, {mac} if mac else set())
        with self._host.changing(name, "set-vnet") as domain:
            old = domain.network(network)
            if self._host.guests.get(domain.uuid) is not None:
                for fixed in FIXED:
                    if fixed in properties:
                        raise RequestError(
                            f"{fixed} of network {network} cannot change while LDom {name} is active: the guest was"
                            f" told when it started; stop it first ('ldm stop-domain {name}')",
                            code="domain-active",
                        )
            switch = self._host.store.services().switch(given.pop("vswitch", "") or old.switch)
            new = changed_network(replace(old, switch=switch.name), given, switch)
            if new.mtu > switch.mtu:
                raise RequestError(
                    f"network {network} has MTU {new.mtu}, and virtual switch {switch.name} has {switch.mtu}",
                    code="bad-property",
                )
            new = replace(new, mac=mac or old.mac, alt_macs=alternatives)
            changed = replace(
                domain, networks=tuple(new if known.name == network else known for known in domain.networks)
            )
            if self._host.guests.get(domain.uuid) is not None:
                await self._put(changed, new, old)
            saved = self._host.save(changed)
        self._links.look()
        return saved

    def remove(self, name: str, network: str) -> Domain:
        """Disconnect an interface of a domain, and remove it."""
        with self._host.changing(name, "remove-vnet") as domain:
            check_unbound(domain, "a network can be removed")
            domain.network(network)
            left = without(domain.networks, network, lambda known: known.name)
            return self._host.save(replace(domain, networks=left))

    # Inside

    async def _put(self, domain: Domain, new: VirtualNetwork, old: VirtualNetwork) -> None:
        """Change the tap of a running guest; if that fails, back to what it was."""
        try:
            await self._taps.put(domain, new)
        except HostError:
            with suppress(LdomsError):
                await self._taps.put(domain, old)
            raise

    async def _new_mac(self, name: str, network: str, given: dict[str, str]) -> str:
        """The MAC address that an interface is to have; empty = the one that it has."""
        if "mac-addr" not in given:
            return ""
        wished = given.pop("mac-addr")
        if wished and wished == self._host.store.domain(name).network(network).mac:
            return ""
        return await self._host.pick_mac(wished)

    async def _alternatives(
        self, given: dict[str, str], now: tuple[str, ...], taken: Container[str]
    ) -> tuple[str, ...]:
        """The further MAC addresses that are asked for; what is not mentioned stays."""
        if "alt-mac-addrs" not in given and "auto-alt-mac-addrs" not in given:
            return now
        wished = [word for word in given.pop("alt-mac-addrs", "").split(",") if word]
        wished += [_PICK] * int_property("auto-alt-mac-addrs", given.pop("auto-alt-mac-addrs", "") or "0")
        if len(wished) > MAX_ALT_MACS:
            raise RequestError(
                f"{len(wished)} alternate MAC addresses are too many: {MAX_ALT_MACS} is the most", code="bad-property"
            )
        found: list[str] = []
        for word in wished:
            mac = word if word in now else await self._host.pick_mac("" if word == _PICK else word)
            if mac in found or mac in taken:
                raise AlreadyExists(f"MAC address {mac} is given twice", code="mac-in-use")
            found.append(mac)
        return tuple(found)
