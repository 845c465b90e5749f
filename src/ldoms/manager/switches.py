"""Virtual switches."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import structlog

from ldoms.manager.host import Host
from ldoms.manager.properties import choice_property, int_property, refuse_unknown
from ldoms.manager.services import ServiceBook
from ldoms.model.errors import AlreadyExists, HostError, RequestError
from ldoms.model.services import DEFAULT_MTU, MAX_MTU, MIN_MTU, VirtualSwitch

_log = structlog.get_logger(__name__)


class SwitchVerbs:
    """``add-vsw``, ``remove-vsw``."""

    def __init__(self, host: Host, book: ServiceBook) -> None:
        self._host = host
        self._book = book

    async def add(self, name: str, domain: str, properties: Mapping[str, str]) -> None:
        """Make a virtual switch, a bridge of this host.

        Args:
            name: of the switch.
            domain: ``primary``.
            properties: ``net-dev``, ``mtu``, ``mac-addr``, ``id``, ``linkprop``, ``mode``, ``inter-vnet-link``,
                ``default-vlan-id``, ``pvid``.
        """
        given = dict(properties)
        net_dev = given.pop("net-dev", "")
        if net_dev:
            await self._host.network.check_uplink(net_dev)
        mac = await self._host.pick_mac(given.pop("mac-addr", ""))
        services = self._book.new(name, domain, "virtual switch", self._book.known.switches)
        taken = [switch.id for switch in services.switches]
        wished = given.pop("id", "")
        number = int_property("id", wished) if wished else next(n for n in range(len(taken) + 1) if n not in taken)
        if number in taken:
            raise AlreadyExists(f"id {number} is taken by another virtual switch", code="id-in-use")
        mtu = int_property("mtu", given.pop("mtu", "") or str(DEFAULT_MTU))
        if not MIN_MTU <= mtu <= MAX_MTU:
            raise RequestError(f"mtu={mtu} is out of range: use {MIN_MTU} to {MAX_MTU}", code="bad-property")
        switch = VirtualSwitch(
            name=name,
            id=number,
            mac=mac,
            net_dev=net_dev,
            mtu=mtu,
            linkprop=choice_property("linkprop", given.pop("linkprop", ""), ("", "phys-state")),
            mode=choice_property("mode", given.pop("mode", ""), ("", "sc")),
            inter_vnet_link=choice_property(
                "inter-vnet-link", given.pop("inter-vnet-link", "") or "on", ("on", "off", "auto")
            ),
        )
        refuse_unknown(given)
        self._book.save(replace(services, switches=(*services.switches, switch)))
        try:
            await self._host.network.put_switch(switch)
        except HostError:
            with suppress(HostError):
                await self._host.network.remove_switch(switch)
            self._forget(name)
            raise

    async def remove(self, name: str, *, force: bool) -> None:
        """Remove a virtual switch; with `force` also if an inactive domain is to be connected to it."""
        services = self._book.known
        switch = services.switch(name)
        for domain in self._host.store.domains():
            if any(network.switch == name for network in domain.networks):
                self._book.check_may_go(domain, f"virtual switch {name}", force=force)
        await self._host.network.remove_switch(switch)
        self._forget(name)

    async def restore(self) -> None:
        """Make the bridges of all switches again, as a restart of the machine takes them away.

        What cannot be made is logged: guests that run, and migrations, need a manager all the same.
        """
        for switch in self._book.known.switches:
            try:
                await self._host.network.put_switch(switch)
            except HostError as error:
                _log.warning("switch-not-restored", switch=switch.name, reason=error.message)

    # Inside

    def _forget(self, name: str) -> None:
        services = self._book.known
        left = tuple(known for known in services.switches if known.name != name)
        self._book.save(replace(services, switches=left))
