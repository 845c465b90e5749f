"""What the source does while its guest runs on the target and lacks memory: sends it, and mends the connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum, auto

import structlog

from ldoms.hypervisor.engine import Guest
from ldoms.hypervisor.states import ENDED, MigrationStatus
from ldoms.migration.journal import Journal
from ldoms.migration.link import TargetLink, persist
from ldoms.migration.local import Observer
from ldoms.model.codec import to_wire
from ldoms.model.errors import HostError, LdomsError
from ldoms.model.migration import Pages, Progress
from ldoms.model.ownership import Verdict
from ldoms.model.phases import POSTCOPY
from ldoms.store import StoreFailed

POLL_S = 0.25
STILL_S = 5.0
"""A connection on which nothing has moved for so long is taken for cut: nobody says so by itself."""
RECOVERY_S = 10.0
"""The same for one that is being made anew: both ends compare what they have first."""
RETRY_S = 1.0
GIVE_UP_S = 5.0
"""QEMU notices within so long that its connection was broken."""

_log = structlog.get_logger(__name__)


class Step(Enum):
    """What is to be done about a postcopy that is under way."""

    WAIT = auto()
    MEND = auto()
    """Make another connection."""
    DONE = auto()
    """All of the memory was sent."""
    ASK = auto()
    """QEMU here has given up, for a reason of its own: the target knows what became of the guest."""


def next_step(status: str, still_s: float, left_bytes: int) -> Step:
    """What to do, by QEMU's word for where it is, the time for which nothing has moved, and what it has still to send.

    QEMU 10 gives up for good if the connection breaks when all is sent and only the target's last word is missing. Then
    the kernel still has what is not there, and sends it when the link is back.
    """
    if status == MigrationStatus.COMPLETED:
        return Step.DONE
    if status in ENDED or status == MigrationStatus.NONE:
        return Step.ASK
    if status == MigrationStatus.POSTCOPY_PAUSED:
        return Step.MEND
    if status == MigrationStatus.POSTCOPY_ACTIVE:
        return Step.MEND if left_bytes and still_s > STILL_S else Step.WAIT
    return Step.MEND if still_s > RECOVERY_S else Step.WAIT


@dataclass(frozen=True, slots=True)
class _Seen:
    """What moves as long as the connection is alive, and since when it has not."""

    what: tuple[object, ...] = ()
    at_s: float = 0.0

    def after(self, what: tuple[object, ...], now_s: float) -> _Seen:
        return self if what == self.what else _Seen(what, now_s)


class PageService:
    """Sends the rest of the memory of one guest, until the target has all of it or the guest has ended."""

    def __init__(
        self,
        guest: Callable[[], Guest | None],
        journal: Journal,
        link: TargetLink,
        observer: Observer,
        limit_unsent: int,
    ) -> None:
        """Serve the guest that `guest` finds, as long as its QEMU lives; so many bytes of it may wait in the kernel."""
        self._guest = guest
        self._journal = journal
        self._link = link
        self._observer = observer
        self._limit_unsent = limit_unsent
        self._loop = asyncio.get_running_loop()
        self._seen = _Seen(at_s=self._loop.time())
        # After a restart of the manager it began long ago, and only the other clock knows when.
        known = journal.report.postcopy
        assert known is not None, "somebody has noted that it has begun"
        self._began_s = self._loop.time() - max(0.0, time.time() - known.began_at)
        self._broken_since_s: float | None = None
        self._is_anew = False
        self._serving: asyncio.Task[Pages] | None = None

    async def __aenter__(self) -> PageService:
        """Begin; it ends with the context."""
        self._serving = asyncio.create_task(self._serve(), name=f"pages-{self._journal.record.name}")
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._serving is not None
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)

    async def wait(self) -> Pages:
        """The guest runs on the target: whether that has all of its memory in the end, or never will."""
        assert self._serving is not None
        self._observer.update(phase=POSTCOPY)
        return await self._serving

    # Inside

    async def _serve(self) -> Pages:
        self._link.phase = POSTCOPY
        async with self._link.heartbeat():
            while True:
                with suppress(HostError):  # a QEMU that is silent is asked again; one that has ended is found so
                    pages = await self._look()
                    if pages is not None:
                        self._note_end(pages)
                        return pages
                await asyncio.sleep(POLL_S)

    async def _look(self) -> Pages | None:
        guest = self._guest()
        if guest is None:
            return await self._ask_what_became(f"QEMU on {self._journal.report.source} has ended")
        progress = await guest.progress()
        self._observer.update(progress=progress.percent, figures=to_wire(progress))
        self._link.progress = progress.percent
        now_s = self._loop.time()
        self._seen = self._seen.after((progress.status, progress.transferred_bytes, guest.unsent_bytes()), now_s)
        self._note(progress, moves=self._seen.at_s == now_s)
        match next_step(progress.status, now_s - self._seen.at_s, progress.remaining_bytes):
            case Step.DONE:
                return Pages.WHOLE
            case Step.ASK:
                return await self._ask_what_became(progress.error or progress.status)
            case Step.MEND:
                return await self._mend(guest)
        return None

    async def _mend(self, guest: Guest) -> Pages | None:
        """Make another connection; one try.

        The old one is broken only when the target is ready for another: it may come back by itself, and what is on it
        may be what the target needs to run at all.
        """
        if self._broken_since_s is None:
            self._broken_since_s = self._seen.at_s
        try:
            status = await self._link.status()
            if status.verdict is Verdict.REFUSED:
                return Pages.LOST
            if status.pages in (Pages.WHOLE, Pages.LOST):
                return status.pages
            ticket = await self._link.peer.listen_again(self._journal.record.id)
            await _give_up_connection(guest)
            await guest.send_again(ticket.host, ticket.port)
        except (LdomsError, TimeoutError) as error:
            _log.warning("postcopy-not-mended", reason=str(error))
            await asyncio.sleep(RETRY_S)
            return None
        guest.limit_unsent(self._limit_unsent)
        self._is_anew = True
        self._seen = _Seen(at_s=self._loop.time())
        return None

    async def _ask_what_became(self, reason: str) -> Pages:
        """Nothing more will come from here: the target ends a guest that lacks something, and says so."""
        status = await persist(lambda: self._link.peer.abort(self._journal.record.id, reason))
        return Pages.WHOLE if status.pages is Pages.WHOLE else Pages.LOST

    # Notes

    def _note(self, progress: Progress, *, moves: bool) -> None:
        known = self._journal.report.postcopy
        assert known is not None
        known = replace(known, sent_bytes=max(0, progress.transferred_bytes - known.before_bytes))
        self._journal.note(postcopy=known)
        is_on = progress.status in (MigrationStatus.POSTCOPY_ACTIVE, MigrationStatus.COMPLETED)
        if moves and is_on and self._broken_since_s is not None:
            broken_s = self._loop.time() - self._broken_since_s
            recoveries = known.recoveries + self._is_anew  # else the link has come back by itself
            self._journal.note(postcopy=replace(known, recoveries=recoveries, broken_s=known.broken_s + broken_s))
            _log.info("postcopy-mended", seconds=round(broken_s, 1), connected_anew=self._is_anew)
            self._broken_since_s, self._is_anew = None, False
            with suppress(StoreFailed):  # only for those who read reports
                self._journal.write()

    def _note_end(self, pages: Pages) -> None:
        known = self._journal.report.postcopy
        assert known is not None
        seconds = self._loop.time() - self._began_s
        self._journal.note(postcopy=replace(known, seconds=seconds, is_lost=pages is Pages.LOST))


async def _give_up_connection(guest: Guest) -> None:
    """Break the connection of a postcopy, whatever it does, and wait until QEMU knows.

    Raises:
        TimeoutError: it does not.
    """
    async with asyncio.timeout(GIVE_UP_S):
        while (await guest.progress()).status != MigrationStatus.POSTCOPY_PAUSED:
            try:
                await guest.pause_postcopy()
            except HostError:  # it is not made yet, or is gone just now
                with suppress(HostError):
                    await guest.cut_migration()
            await asyncio.sleep(POLL_S)
