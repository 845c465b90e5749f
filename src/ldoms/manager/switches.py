"""Virtual switches."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import structlog

from ldoms.manager.host import Host
from ldoms.manager.links import GuestLinks
from ldoms.manager.network_properties import changed_switch
from ldoms.manager.properties import int_property
from ldoms.manager.services import ServiceBook
from ldoms.manager.taps import Taps
from ldoms.model.errors import AlreadyExists, HostError, LdomsError, RequestError
from ldoms.model.services import VirtualSwitch

MAX_ID = 99999
"""So that the name of the bridge fits into what the kernel takes."""

_log = structlog.get_logger(__name__)


class SwitchVerbs:
    """``add-vsw``, ``set-vsw``, ``remove-vsw``."""

    def __init__(self, host: Host, book: ServiceBook, links: GuestLinks) -> None:
        self._host = host
        self._book = book
        self._links = links
        self._taps = Taps(host)

    async def add(self, name: str, domain: str, properties: Mapping[str, str], *, quick: bool = False) -> None:
        """Make a virtual switch, a bridge of this host.

        Args:
            name: of the switch.
            domain: ``primary``.
            properties: ``mac-addr``, ``id``, and those of `changed_switch`.
            quick: an uplink that is not there yet is no obstacle.
        """
        given = dict(properties)
        if given.get("net-dev") and not quick:
            await self._host.network.check_uplink(given["net-dev"])
        mac = await self._host.pick_mac(given.pop("mac-addr", ""))
        services = self._book.new(name, domain, "virtual switch", self._book.known.switches)
        taken = [switch.id for switch in services.switches]
        wished = given.pop("id", "")
        number = int_property("id", wished) if wished else next(n for n in range(len(taken) + 1) if n not in taken)
        if number in taken:
            raise AlreadyExists(f"id {number} is taken by another virtual switch", code="id-in-use")
        if number > MAX_ID:
            raise RequestError(f"id {number} is too high: {MAX_ID} is the last", code="bad-property")
        switch = changed_switch(VirtualSwitch(name=name, id=number, mac=mac), given)
        self._book.save(replace(services, switches=(*services.switches, switch)))
        try:
            await self._host.network.put_switch(switch)
        except HostError as error:
            if quick and error.code == "no-interface":
                return
            with suppress(HostError):
                await self._host.network.remove_switch(switch)
            self._forget(name)
            raise

    async def set(self, name: str, properties: Mapping[str, str], *, quick: bool = False) -> None:
        """Change a virtual switch, and the taps of the guests on it.

        Raises:
            RequestError: a property makes no sense; a guest or a domain needs the MTU that there is.
            HostError: the kernel refuses; the switch is as it was.
        """
        given = dict(properties)
        old = self._book.known.switch(name)
        if given.get("net-dev") and given["net-dev"] != old.net_dev and not quick:
            await self._host.network.check_uplink(given["net-dev"])
        mac = given.pop("mac-addr", "")
        new = changed_switch(old, given)
        if mac and mac != old.mac:
            new = replace(new, mac=await self._host.pick_mac(mac))
        if new.mtu < old.mtu:
            self._check_mtu(new)
        self._put(new)
        try:
            await self._taps.put_switch(old, new, quick=quick)
        except HostError:
            self._put(old)
            with suppress(LdomsError):
                await self._taps.follow_switch(name)
            raise
        self._links.look()

    async def remove(self, name: str, *, force: bool) -> None:
        """Remove a virtual switch; with `force` also if an inactive domain is to be connected to it."""
        services = self._book.known
        switch = services.switch(name)
        for domain in self._host.store.domains():
            if any(network.switch == name for network in domain.networks):
                self._book.check_may_go(domain, f"virtual switch {name}", force=force)
        self._forget(name)  # before the first wait: nobody is connected to it any more
        try:
            await self._host.network.remove_switch(switch)
        except BaseException:
            services = self._book.known
            self._book.save(replace(services, switches=(*services.switches, switch)))
            raise

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

    def _put(self, switch: VirtualSwitch) -> None:
        services = self._book.known
        changed = tuple(switch if known.name == switch.name else known for known in services.switches)
        self._book.save(replace(services, switches=changed))

    def _check_mtu(self, switch: VirtualSwitch) -> None:
        """Make sure that nobody needs a higher MTU than a switch is to have."""
        old = self._book.known.switch(switch.name).mtu
        for domain in self._host.store.domains():
            active = self._host.guests.get(domain.uuid) is not None
            for network in domain.networks:
                mtu = network.mtu or (old if active else 0)
                if network.switch == switch.name and mtu > switch.mtu:
                    remedy = (
                        "stop it first" if active else f"change that first ('ldm set-vnet mtu= {network.name} ...')"
                    )
                    raise RequestError(
                        f"mtu={switch.mtu} is too low for virtual switch {switch.name}: network {network.name} of LDom"
                        f" {domain.name} has MTU {mtu}; {remedy}",
                        code="service-in-use",
                    )

    def _forget(self, name: str) -> None:
        services = self._book.known
        left = tuple(known for known in services.switches if known.name != name)
        self._book.save(replace(services, switches=left))
