"""Network interfaces of domains."""

from __future__ import annotations

from collections.abc import Container, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

import structlog

from ldoms.hypervisor.engine import Guest
from ldoms.manager.host import Host
from ldoms.manager.hotplug import LET_GO_S
from ldoms.manager.links import GuestLinks
from ldoms.manager.network_properties import MAX_ALT_MACS, changed_network
from ldoms.manager.ports import dead_networks, taken_ids, with_port, without_device
from ldoms.manager.properties import check_guest_domain, free_number, int_property, without
from ldoms.manager.taps import Taps
from ldoms.model.domain import Domain, VirtualNetwork
from ldoms.model.errors import AlreadyExists, HostError, LdomsError, NotFound, RequestError
from ldoms.model.identity import check_name

_log = structlog.get_logger(__name__)

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
        """Connect a domain to a virtual switch; a guest that runs sees the interface at once.

        Args:
            name: of the domain.
            network: name of the new interface.
            switch: to connect it to.
            properties: ``mac-addr``, ``alt-mac-addrs``, ``auto-alt-mac-addrs``, ``id``, and those of
                `changed_network`.

        Raises:
            NoResources: the running guest has no root port left.
            HostError: the kernel or QEMU refuses; the domain is as before.
        """
        given = dict(properties)
        mac = await self._host.pick_mac(given.pop("mac-addr", ""))
        alternatives = await self._alternatives(given, (), {mac})
        with self._host.changing(name, "add-vnet") as domain:
            check_guest_domain(domain)
            check_name(network, "virtual network")
            if any(known.name == network for known in domain.networks):
                raise AlreadyExists(f"virtual network {network} already exists in LDom {name}")
            known_switch = self._host.store.services().switch(switch)
            wished = int_property("id", given.pop("id")) if given.get("id") else None
            given.pop("id", None)
            number = free_number(wished, taken_ids(domain, "network"), f"network of LDom {name}")
            bare = VirtualNetwork(network, switch, number, mac, alt_macs=alternatives)
            added = changed_network(bare, given, known_switch)
            changed = replace(domain, networks=(*domain.networks, added))
            if domain.is_bound:
                changed = with_port(changed, f"network@{number}")
            self._check_macs(added, None)
            await self._plug(domain, changed, added)
        await self._taps.count_again(switch)
        self._links.look()
        return changed

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
            self._check_macs(new, old)
            changed = replace(
                domain, networks=tuple(new if known.name == network else known for known in domain.networks)
            )
            if self._host.guests.get(domain.uuid) is not None:
                await self._put(domain, changed, new, old)
            saved = self._host.save(changed)
        self._links.look()
        return saved

    async def remove(self, name: str, network: str, *, force: bool = False) -> Domain:
        """Disconnect an interface of a domain, and remove it; a guest that runs is asked to let it go.

        With `force` also if the guest does not: then its cable is pulled and leads nowhere, and the guest keeps the
        dead interface until it lets it go, or stops.

        Raises:
            HostError: code ``device-held``: the guest has not let it go, and has it as before.
        """
        with self._host.changing(name, "remove-vnet") as domain:
            found = domain.network(network)
            device = f"network@{found.id}"
            running = self._host.guests.get(domain.uuid)
            left = without_device(domain, device)
            if running is not None and device in await running.guest.devices():
                try:
                    await self._let_go(domain, found, running.guest)
                except HostError as error:
                    if error.code != "device-held" or not force:
                        raise
                    # The guest still has the device behind its port, and so must the target of a migration.
                    left = replace(domain, networks=without(domain.networks, network, lambda known: known.name))
                    await running.guest.set_link(device, up=False)
                    await self._taps.park(left, device)
                    _log.warning("network-cut", domain=name, network=network)
            if device not in dead_networks(left):
                with suppress(HostError):
                    await self._taps.remove(domain, found)
            saved = self._host.save(left)
        with suppress(NotFound):
            await self._taps.count_again(found.switch)
        return saved

    # Inside

    def _check_macs(self, new: VirtualNetwork, old: VirtualNetwork | None) -> None:
        """Make sure that nobody else has been given an address while another one was being picked."""
        taken, mine = self._host.macs(), old.macs if old is not None else ()
        for mac in new.macs:
            if mac in taken and mac not in mine:
                raise AlreadyExists(f"MAC address {mac} is in use by {taken[mac]}", code="mac-in-use")

    async def _plug(self, before: Domain, domain: Domain, network: VirtualNetwork) -> None:
        """Give a guest that runs an interface, and write the domain down; or leave nothing behind."""
        running = self._host.guests.get(domain.uuid)
        async with AsyncExitStack() as undo:
            if running is not None:
                self._host.store.put_domain(domain)  # before the first wait: nobody else gets the same address
                undo.callback(self._host.store.put_domain, before)
                undo.push_async_callback(self._taps.remove, domain, network)
                await running.guest.plug(await self._taps.connect(domain, network))
            self._host.save(domain)
            undo.pop_all()

    async def _let_go(self, domain: Domain, network: VirtualNetwork, guest: Guest) -> None:
        try:
            await guest.unplug(f"network@{network.id}", LET_GO_S)
        except HostError as error:
            if error.code != "device-held":
                raise
            raise HostError(
                f"network {network.name} is in use: the guest of LDom {domain.name} has not let it go within"
                f" {LET_GO_S:g} s, and has it as before. If it does so later, or is reset, the network is removed then",
                code="device-held",
            ) from error

    async def _put(self, before: Domain, domain: Domain, new: VirtualNetwork, old: VirtualNetwork) -> None:
        """Change the tap of a running guest; if that fails, back to what it was."""
        self._host.store.put_domain(domain)  # before the first wait: nobody else gets the same addresses
        try:
            await self._taps.put(domain, new)
        except BaseException:
            self._host.store.put_domain(before)
            with suppress(LdomsError):
                await self._taps.put(before, old)
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
