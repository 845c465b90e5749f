"""What the guest lets go of when nobody waits any more: the record of its domain follows."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from ldoms.hypervisor.engine import Guest
from ldoms.manager.background import Background
from ldoms.manager.host import Host
from ldoms.manager.ports import without_device
from ldoms.manager.taps import tap_of
from ldoms.model.domain import Domain
from ldoms.model.errors import HostError, RequestError

LET_GO_S = 10.0
"""How long a guest may take to let go of a device. An idle one takes less than a second."""
RETRY_S = 0.5
"""Between looks at a domain that something else holds."""

_log = structlog.get_logger(__name__)


class HotPlug:
    """Keeps records right when devices go by themselves.

    QEMU cannot take the wish to unplug back, so that a guest that did not let go in time may do it much later: what
    was asked for is then done after all.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._background = Background()
        host.guests.on_device_gone = self._device_gone

    async def close(self) -> None:
        """Stop following; what goes meanwhile is found out when the guest is found again."""
        await self._background.close()

    async def look(self) -> None:
        """Compare guests that were found again with their records: a device may have gone, or come, meanwhile."""
        for domain in self._host.store.domains():
            running = self._host.guests.get(domain.uuid)
            if running is None or domain.bindings is None:
                continue
            recorded = {port.device for port in domain.bindings.ports}
            with suppress(HostError):
                there = await running.guest.devices()
                for device in recorded - there:
                    self._device_gone(domain.uuid, device)
                for device in there - recorded:  # given to the guest just before the manager was killed
                    _log.warning("device-not-recorded", domain=domain.name, device=device)
                    work = self._take_back(running.guest, device)
                    self._background.start(work, f"take-back {domain.uuid} {device}")

    def _device_gone(self, uuid: str, device: str) -> None:
        self._background.start(self._follow(uuid, device), f"device-gone {uuid} {device}")

    async def _take_back(self, guest: Guest, device: str) -> None:
        with suppress(HostError):
            await guest.unplug(device, LET_GO_S)

    async def _follow(self, uuid: str, device: str) -> None:
        # Whoever has asked for it holds the domain, and writes the record himself; so does a migration.
        while (domain := self._host.store.domain_by_uuid(uuid)) is not None and domain.is_bound:
            with suppress(RequestError), self._host.changing(domain.name, "device-gone") as held:
                await self._forget(held, device)
                return
            await asyncio.sleep(RETRY_S)

    async def _forget(self, domain: Domain, device: str) -> None:
        running = self._host.guests.get(domain.uuid)
        left = without_device(domain, device)
        if running is None or left == domain:
            return
        with suppress(HostError):
            if device in await running.guest.devices():
                return  # it has been given again
            if device.startswith("network@"):
                await self._host.network.remove_tap(tap_of(domain, device))
            _log.info("device-let-go-late", domain=domain.name, device=device)
            self._host.save(left)
