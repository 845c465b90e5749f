"""The link of guests' network interfaces follows the uplink of their switch, where that is wished (``phys-state``)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

import structlog

from ldoms.hypervisor.states import RunState
from ldoms.manager.background import Background
from ldoms.manager.guests import RunningGuest
from ldoms.manager.host import Host
from ldoms.manager.uplinks import Uplinks
from ldoms.model.domain import VirtualNetwork
from ldoms.model.errors import HostError
from ldoms.model.services import VirtualSwitch

PHYS_STATE = "phys-state"

_log = structlog.get_logger(__name__)


class GuestLinks:
    """Tells guests whether the cable of their switch is plugged in.

    A vnet follows if it, or its switch, has ``linkprop=phys-state``, and the switch an uplink.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._uplinks = Uplinks(host)
        self._told: dict[tuple[RunningGuest, str], bool] = {}
        """What each interface was told, by its guest and name; what was told nothing is up."""
        self._background = Background()
        self._news = asyncio.Event()

    def start(self) -> None:
        """Begin to follow the interfaces of the host."""
        self._host.guests.on_resume = self.look
        self._background.start(self._follow(), "follow-links")

    async def close(self) -> None:
        """Stop following."""
        await self._background.close()

    def look(self) -> None:
        """Have everything looked at soon: something has changed that interfaces do not tell."""
        self._news.set()

    async def _follow(self) -> None:
        try:
            async with self._host.network.changes() as news:
                self._news = news
                while True:
                    news.clear()
                    await self._uplinks.look()
                    await self._tell_all()
                    await news.wait()
        except HostError as error:
            _log.error("links-not-followed", reason=error.message)

    async def _tell_all(self) -> None:
        """Tell every guest what has changed for it, all at once: one that is silent holds up no other."""
        carriers = await self._carriers()
        now: dict[tuple[RunningGuest, str], bool | None] = {}
        telling = []
        for domain in self._host.store.domains():
            running = self._host.guests.get(domain.uuid)
            if running is None or running.run_state is RunState.INCOMING or not self._host.is_owner(domain.uuid):
                continue
            for network in domain.networks:
                key, wanted = (running, network.name), self._is_up(network, carriers)
                now[key] = self._told.get(key, True if not self._follows(network) else None)
                if now[key] != wanted:
                    telling.append(self._tell(running, domain.name, network, now, up=wanted))
        await asyncio.gather(*telling)
        self._told = {key: told for key, told in now.items() if told is not None}

    async def _tell(
        self,
        running: RunningGuest,
        domain: str,
        network: VirtualNetwork,
        told: dict[tuple[RunningGuest, str], bool | None],
        *,
        up: bool,
    ) -> None:
        with suppress(HostError):
            await running.guest.set_link(f"network@{network.id}", up=up)
            told[running, network.name] = up
            _log.info("link-told", domain=domain, network=network.name, up=up)

    async def _carriers(self) -> Mapping[str, bool]:
        """Of the uplinks that somebody follows."""
        wanted = {
            switch.net_dev
            for domain in self._host.store.domains()
            if self._host.guests.get(domain.uuid) is not None
            for network in domain.networks
            if (switch := self._switch(network)) is not None and self._follows(network)
        }
        carriers = {}
        for device in wanted - {""}:
            try:
                carriers[device] = await self._host.network.has_carrier(device)
            except HostError as error:
                _log.warning("carrier-unknown", interface=device, reason=error.message)
        return carriers

    def _is_up(self, network: VirtualNetwork, carriers: Mapping[str, bool]) -> bool:
        switch = self._switch(network)
        return switch is None or not self._follows(network) or carriers.get(switch.net_dev, True)

    def _follows(self, network: VirtualNetwork) -> bool:
        switch = self._switch(network)
        return switch is not None and bool(switch.net_dev) and PHYS_STATE in (network.linkprop, switch.linkprop)

    def _switch(self, network: VirtualNetwork) -> VirtualSwitch | None:
        switches = self._host.store.services().switches
        return next((switch for switch in switches if switch.name == network.switch), None)
