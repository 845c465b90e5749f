"""What the system in a guest says of itself, asked through its agent: one question at a time goes through `ldmd`."""

from __future__ import annotations

import time

from ldoms.manager.guests import RunningGuest
from ldoms.manager.host import Host
from ldoms.model.errors import HostError, RequestError
from ldoms.model.guest import GuestCpus


class Inside:
    """Questions to guests of this host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def cpus(self, name: str) -> GuestCpus:
        """What the virtual CPUs of a guest have done so far.

        Raises:
            NotFound: there is no such domain.
            RequestError: its guest does not run on this host.
            HostError: it has no agent, or that does not answer or cannot tell.
        """
        running = self._running(name)
        if not await running.guest.has_agent():
            raise HostError(f"LDom {name} has no guest agent", code="no-agent")
        cpus = await running.guest.agent.cpu_times()
        return GuestCpus(time.time(), cpus)

    def _running(self, name: str) -> RunningGuest:
        domain = self._host.store.domain(name)
        running = self._host.guests.get(domain.uuid)
        if running is None or not self._host.is_owner(domain.uuid):
            raise RequestError(f"LDom {name} is not active", code="domain-not-active")
        return running
