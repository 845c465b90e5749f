"""This host, as a migration sees it: what it asks of the manager around it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from ldoms.hypervisor.engine import Guest
from ldoms.model.domain import Domain
from ldoms.model.events import EventKind
from ldoms.model.host import HostFacts
from ldoms.model.migration import Description, DomainFacts, Preparation, TargetFacts
from ldoms.store import Store


class Observer(Protocol):
    """Whoever follows a migration from outside, and may ask for its end."""

    cancelled: asyncio.Event

    def update(
        self,
        *,
        phase: str | None = None,
        progress: int | None = None,
        may_cancel: bool | None = None,
        figures: Mapping[str, Any] | None = None,
    ) -> None:
        """How far it is, whether it can still be cancelled, and for a copy its `Progress` as JSON data."""


class LocalHost(Protocol):
    """A host that sends or receives a domain."""

    @property
    def facts(self) -> HostFacts:
        """What is fixed about it."""

    @property
    def store(self) -> Store:
        """Its durable memory."""

    def guest(self, uuid: str) -> Guest | None:
        """The guest of a domain, if it runs here."""

    def publish(self, kind: EventKind, domain: str, **data: object) -> None:
        """Tell everybody what happened."""

    # As the source

    async def describe_domain(self, domain: Domain, beacon: str, content: str) -> DomainFacts:
        """What the target must know of a domain; leaves a beacon beside each of its images."""

    async def take_beacons_back(self, domain: Domain, beacon: str) -> None:
        """Remove what `describe_domain` has left."""

    async def mtu_towards(self, address: str) -> int:
        """The MTU of the way to another host."""

    async def remove(self, uuid: str) -> None:
        """End the guest of a domain, give everything back and forget the domain; may be repeated."""

    # As the target

    async def describe_self(self, description: Description, caller: str) -> TargetFacts:
        """What this host says of its fitness for a domain of another host, which calls from address `caller`."""

    def check_admits(self, preparation: Preparation) -> Domain:
        """The domain as it will be here, with what it is given.

        Raises:
            RequestError: its name or MAC is taken, or a service is missing.
            NoResources: there is not enough of something.
        """

    async def start_incoming(self, domain: Domain) -> Guest:
        """Start the guest of a domain that waits for its memory.

        Raises:
            HostError: it cannot be started; nothing is left behind.
        """

    async def open_console(self, domain: Domain) -> None:
        """Open the console of a domain that has just been made."""

    async def listen(self, guest: Guest, address: str) -> int:
        """Have a guest wait for its memory at a free port of the range, which is returned.

        Raises:
            NoResources: none is free.
        """

    def arrived(self, uuid: str) -> None:
        """The domain is ours now: tell everybody."""
