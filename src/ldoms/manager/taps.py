"""The host's ends of guests' network interfaces: what each is to be, from what domain and switch say."""

from __future__ import annotations

from contextlib import suppress

import structlog

from ldoms.hypervisor.specs import NetworkSpec
from ldoms.manager.host import Host
from ldoms.manager.ports import dead_networks, devices_of, port_of
from ldoms.model.boot import boot_index
from ldoms.model.domain import Domain, VirtualNetwork
from ldoms.model.errors import HostError, LdomsError
from ldoms.model.services import DEFAULT_MTU, DEFAULT_VLAN, VirtualSwitch
from ldoms.net.network import Guard, TapSpec, tap_name

_log = structlog.get_logger(__name__)


class Taps:
    """The taps of all domains of a host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def spec(self, domain: Domain, network: VirtualNetwork) -> TapSpec:
        """The tap of an interface, as it is to be.

        Raises:
            NotFound: its switch does not exist.
        """
        switch = self._host.store.services().switch(network.switch)
        return TapSpec(
            name=tap_name(domain.order, network.id),
            label=f"{domain.name}/{network.name}",
            mtu=network.mtu or switch.mtu,
            pvid=switch.default_vlan_id if network.pvid == DEFAULT_VLAN else network.pvid,
            vids=network.vids,
            limit_bits_s=network.maxbw_bits_s,
            is_isolated=self._is_isolated(switch),
            guard=Guard(network.macs, network.allowed_ips, network.protection, network.pvlan),
        )

    async def put(self, domain: Domain, network: VirtualNetwork) -> TapSpec:
        """Make the tap of an interface, or change it."""
        tap = self.spec(domain, network)
        await self._host.network.put_tap(tap, self._host.store.services().switch(network.switch))
        return tap

    async def connect(self, domain: Domain, network: VirtualNetwork) -> NetworkSpec:
        """Make the tap of an interface of a bound domain; what the guest is to be given."""
        return _spec(domain, f"network@{network.id}", await self.put(domain, network), network.mac)

    async def park(self, domain: Domain, device: str) -> NetworkSpec:
        """Have the tap of an interface that its guest does not let go lead nowhere; it is made if it is not there.

        What a target of a migration gives the guest: its MAC address comes with the memory.
        """
        tap = TapSpec(tap_of(domain, device), f"{domain.name}: removed", DEFAULT_MTU)
        await self._host.network.park_tap(tap)
        return _spec(domain, device, tap, domain.mac)

    async def remove(self, domain: Domain, network: VirtualNetwork) -> None:
        """Remove the tap of an interface."""
        await self._host.network.remove_tap(tap_name(domain.order, network.id))

    async def remove_all(self, domain: Domain) -> None:
        """Remove every tap of a domain; what the kernel keeps is found again at the next start of the manager."""
        for tap in _names(domain):
            with suppress(HostError):
                await self._host.network.remove_tap(tap)

    async def put_switch(self, old: VirtualSwitch, new: VirtualSwitch, *, quick: bool) -> None:
        """Change a switch and every tap on it that is in use; or, if that fails, nothing.

        `new` must be in the store already, because taps follow it. With `quick`, it may lack its uplink.

        Raises:
            HostError: the kernel refuses; the switch is as it was, as far as the kernel lets it.
        """
        try:
            try:
                await self._host.network.put_switch(new)
            except HostError as error:
                if not (quick and error.code == "no-interface"):
                    raise
            await self.follow_switch(new.name)
        except HostError:
            with suppress(HostError):
                await self._host.network.put_switch(old)
            raise

    async def follow_switch(self, name: str) -> None:
        """Make the taps on a switch what it says now."""
        for domain in self._host.store.domains():
            if self._host.guests.get(domain.uuid) is None:
                continue
            for network in domain.networks:
                if network.switch == name:
                    await self.put(domain, network)

    async def count_again(self, name: str) -> None:
        """After a vnet has come to a switch, or has gone: isolate the others, or do so no more, where that depends."""
        switch = self._host.store.services().switch(name)
        if self._host.config.network.isolate_vnets and switch.inter_vnet_link == "auto":
            await self.follow_switch(name)

    async def restore(self) -> None:
        """After a restart of the manager: every guest's taps as they should be, and no others.

        What cannot be mended is logged: the guests run on as they did.
        """
        kept: set[str] = set()
        for domain in self._host.store.domains():
            # Also of a guest that does not answer: it may be there, and needs its taps.
            kept |= _names(domain) if domain.is_bound else set()
            for network in domain.networks if self._host.guests.get(domain.uuid) is not None else ():
                try:
                    await self.put(domain, network)
                except LdomsError as error:
                    _log.error("tap-not-restored", domain=domain.name, network=network.name, reason=error.message)
        try:
            await self._host.network.sweep_taps(kept)
        except HostError as error:
            _log.warning("taps-not-swept", reason=error.message)

    def effective_inter_vnet_link(self, switch: VirtualSwitch) -> str:
        """Whether the vnets of a switch have direct links, when ``auto`` is resolved: ``on``, ``off``, ``isolated``."""
        if switch.inter_vnet_link != "auto":
            return switch.inter_vnet_link
        count = sum(
            1
            for domain in self._host.store.domains()
            if domain.is_bound
            for network in domain.networks
            if network.switch == switch.name
        )
        return "off" if count > self._host.config.network.auto_inter_vnet_link_limit else "on"

    def _is_isolated(self, switch: VirtualSwitch) -> bool:
        link = self.effective_inter_vnet_link(switch)
        return link == "isolated" or (link == "off" and self._host.config.network.isolate_vnets)


def tap_of(domain: Domain, device: str) -> str:
    """The name of the tap of ``network@ID``."""
    return tap_name(domain.order, int(device.partition("@")[2]))


def _spec(domain: Domain, device: str, tap: TapSpec, mac: str) -> NetworkSpec:
    port = port_of(domain, device)
    return NetworkSpec(device, tap.name, mac, tap.mtu, port.number, boot_index(domain, device) if port.boots else None)


def _names(domain: Domain) -> set[str]:
    """The taps that a guest of the domain has, those among them that lead nowhere."""
    return {
        tap_of(domain, device)
        for device in (*devices_of(domain), *dead_networks(domain))
        if device.startswith("network@")
    }
