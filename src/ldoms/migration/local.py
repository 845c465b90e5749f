"""This host, as a migration sees it: what it asks of the manager around it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from ldoms.hypervisor.engine import Guest
from ldoms.model.boost import BoostWish
from ldoms.model.domain import Domain
from ldoms.model.events import EventKind
from ldoms.model.forecast import LinkSpeed
from ldoms.model.host import HostFacts
from ldoms.model.migration import Description, DiskCopy, DomainFacts, MigrationReport, Preparation, TargetFacts
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


@dataclass(frozen=True, slots=True)
class ControlUse:
    """The CPUs of the control domain, as of a moment.

    Attributes:
        cpus: what it may use, in CPUs.
        at_s: the moment, by a clock that only goes on.
        busy_s: CPU time that was used on the CPUs it runs on since they began.
        count: of the CPUs it runs on.
        shared: guests run on these CPUs as well.
    """

    cpus: float
    at_s: float
    busy_s: float
    count: int
    shared: bool

    def busy_since(self, earlier: ControlUse) -> float:
        """The share of those CPUs that was busy since then, 0 to 1."""
        elapsed = (self.at_s - earlier.at_s) * self.count
        return min(1.0, max(0.0, (self.busy_s - earlier.busy_s) / elapsed)) if elapsed > 0 else 0.0


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

    @property
    def max_incoming(self) -> int:
        """How many active domains may come at the same time."""

    @property
    def bandwidth_bytes_s(self) -> int:
        """What all that comes may take of the network together; 0 = not limited."""

    # Boost

    def free_strands(self) -> int:
        """How many strands can be lent."""

    async def lend(self, migration: str, wish: BoostWish) -> tuple[int, str]:
        """Lend free strands to the control domain; how many there were to lend, and why so many.

        They stay free for whoever wants to hold them, who gets them at once.
        """

    async def give_back(self, migration: str) -> int:
        """End what was lent for a migration, if anything; how many strands a domain had needed meanwhile."""

    # As the source

    async def describe_domain(self, domain: Domain, beacon: str, content: str) -> DomainFacts:
        """What the target must know of a domain; leaves a beacon beside each of its images."""

    async def take_beacons_back(self, domain: Domain, beacon: str) -> None:
        """Remove what `describe_domain` has left."""

    async def mtu_towards(self, address: str) -> int:
        """The MTU of the way to another host."""

    async def remove(self, uuid: str) -> None:
        """End the guest of a domain, give everything back and forget the domain; may be repeated."""

    def past_migrations(self, uuid: str) -> tuple[MigrationReport, ...]:
        """The reports of the last migrations of a domain that this host knows of, the latest last."""

    def control_use(self) -> ControlUse:
        """How busy the control domain's CPUs are."""

    def remember_link(self, identity: str, encrypted: bool, link: LinkSpeed) -> None:
        """Keep what a trial of the link to a host has found, until this manager ends."""

    def recall_link(self, identity: str, encrypted: bool, within_s: float) -> LinkSpeed | None:
        """What a trial not longer ago than that has found; None if there was none."""

    # As either

    async def start_trial(self, size_mib: int, *, incoming: bool) -> Guest:
        """Start one end of a trial of a link; `end_trial` ends it.

        Raises:
            HostError: it cannot be started; nothing is left behind.
            NoResources: there is not enough memory to spare.
        """

    async def end_trial(self, guest: Guest) -> None:
        """End it, and give everything back. Never raises."""

    # As the target

    async def describe_self(self, description: Description, caller: str) -> TargetFacts:
        """What this host says of its fitness for a domain of another host, which calls from address `caller`."""

    def check_admits(self, preparation: Preparation) -> Domain:
        """The domain as it will be here, with what it is given.

        Raises:
            RequestError: its name or MAC is taken, or a service is missing.
            NoResources: there is not enough of something.
        """

    def make_volumes(self, disks: Sequence[DiskCopy]) -> None:
        """Offer the volumes that are missing for copies of disks; inside a transaction of the caller's.

        Raises:
            AlreadyExists: there is one of that name by now.
            NotFound: its service is not there.
        """

    async def make_images(self, migration: str, disks: Sequence[DiskCopy]) -> None:
        """Make the images that copies of disks need, each where nothing is yet.

        Raises:
            HostError: something is there, or it cannot be made.
        """

    async def listen_for_disks(self, guest: Guest, address: str, disks: Sequence[DiskCopy]) -> int:
        """Have a guest take copies of disks at a free port of the range, which is returned.

        Raises:
            NoResources: none is free.
        """

    async def keep_images(self, migration: str, disks: Sequence[DiskCopy]) -> bool:
        """The domain is ours: its images are like any other. May be repeated.

        Returns:
            Whether all were found: not if this was done before, or if their storage is away.
        """

    async def discard_images(self, migration: str, disks: Sequence[DiskCopy]) -> bool:
        """Remove the images that were made for a migration, and nothing else. May be repeated.

        Returns:
            Whether all were found, as with `keep_images`.
        """

    def discard_volumes(self, disks: Sequence[DiskCopy]) -> None:
        """Offer the volumes no more that were made for a migration. May be repeated."""

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

    async def listen_again(self, guest: Guest, address: str) -> int:
        """Have a guest that runs here wait for the rest of its memory at a free port of the range, which is returned.

        Raises:
            HostError: its QEMU is not in postcopy.
            NoResources: none is free.
        """

    def fetching(self, uuid: str) -> AbstractContextManager[None]:
        """A domain whose guest runs here while part of its memory is on another host: it can be stopped, no more."""

    def arrived(self, uuid: str) -> None:
        """The domain is ours now: tell everybody."""
