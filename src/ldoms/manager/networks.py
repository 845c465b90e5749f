"""Network interfaces of domains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ldoms.manager.host import Host
from ldoms.manager.properties import (
    check_unbound,
    choice_property,
    free_number,
    int_property,
    refuse_unknown,
    without,
)
from ldoms.model.domain import Domain, VirtualNetwork
from ldoms.model.errors import AlreadyExists, RequestError
from ldoms.model.identity import check_name
from ldoms.model.services import MIN_MTU


class NetworkVerbs:
    """``add-vnet``, ``remove-vnet``."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def add(self, name: str, network: str, switch: str, properties: Mapping[str, str]) -> Domain:
        """Connect a domain to a virtual switch.

        Args:
            name: of the domain.
            network: name of the new interface.
            switch: to connect it to.
            properties: ``mac-addr``, ``mtu``, ``id``, ``linkprop``, ``pvid``.
        """
        given = dict(properties)
        mac = await self._host.pick_mac(given.pop("mac-addr", ""))
        with self._host.changing(name, "add-vnet") as domain:
            check_unbound(domain, "a network can be added")
            check_name(network, "virtual network")
            if any(known.name == network for known in domain.networks):
                raise AlreadyExists(f"virtual network {network} already exists in LDom {name}")
            known_switch = self._host.store.services().switch(switch)
            wished = int_property("id", given.pop("id")) if "id" in given else None
            mtu = int_property("mtu", given.pop("mtu", "0") or "0")
            if mtu and not MIN_MTU <= mtu <= known_switch.mtu:
                raise RequestError(
                    f"mtu={mtu} is out of range: virtual switch {switch} takes {MIN_MTU} to {known_switch.mtu}",
                    code="bad-property",
                )
            added = VirtualNetwork(
                name=network,
                switch=switch,
                id=free_number(wished, [known.id for known in domain.networks], f"network of LDom {name}"),
                mac=mac,
                mtu=mtu,
                linkprop=choice_property("linkprop", given.pop("linkprop", ""), ("", "phys-state")),
            )
            refuse_unknown(given)
            return self._host.save(replace(domain, networks=(*domain.networks, added)))

    def remove(self, name: str, network: str) -> Domain:
        """Disconnect an interface of a domain, and remove it."""
        with self._host.changing(name, "remove-vnet") as domain:
            check_unbound(domain, "a network can be removed")
            domain.network(network)
            left = without(domain.networks, network, lambda known: known.name)
            return self._host.save(replace(domain, networks=left))
