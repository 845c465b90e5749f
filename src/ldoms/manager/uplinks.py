"""Uplinks that go and come back: a network card that is found late, or plugged in again."""

from __future__ import annotations

import structlog

from ldoms.manager.host import Host
from ldoms.model.errors import LdomsError
from ldoms.model.services import VirtualSwitch

_log = structlog.get_logger(__name__)


class Uplinks:
    """The uplinks of all switches: whoever was missed is taken again, once, when it is there."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._missed: set[str] = set()
        """Names of switches."""

    async def look(self) -> None:
        """Look at every uplink; called whenever something about the host's interfaces has changed."""
        for switch in self._host.store.services().switches:
            if not switch.net_dev:
                continue
            try:
                is_there = await self._host.network.has_interface(switch.net_dev)
                if is_there and switch.name in self._missed:
                    self._missed.discard(switch.name)  # before anything that may fail: no second attempt by itself
                    await self._take(switch)
                elif not is_there and switch.name not in self._missed:
                    self._missed.add(switch.name)
                    _log.warning("uplink-lost", switch=switch.name, interface=switch.net_dev)
            except LdomsError as error:
                _log.warning("uplink-not-taken", switch=switch.name, reason=error.message)

    async def _take(self, switch: VirtualSwitch) -> None:
        await self._host.network.check_uplink(switch.net_dev)
        await self._host.network.put_switch(switch)
        _log.info("uplink-back", switch=switch.name, interface=switch.net_dev)
