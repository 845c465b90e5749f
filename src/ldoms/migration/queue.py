"""Who may send, and who may receive: migrations that would be too many at once wait, first come, first served.

A migration takes its turn on the source first, then on the target, and gives the source's back while the target has
none for it. So nobody holds one place while waiting for the other, and two hosts that send to each other, or to the
same third one, cannot block each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from ldoms.model.queue import Turn, fair_shares, why_full

LOOK_S = 1.0
"""Between two looks of one that waits: a promise of another one may be safe by now."""
ASK_S = 1.0
"""Between two questions to a target that has no turn."""
GRANTED_S = 30.0
"""A source that does not prepare within so long has lost its turn on the target."""
HEARD_S = 10.0
"""A source that does not ask for so long waits no more."""


class SendingQueue:
    """The migrations that leave a host: those that are under way, and those that wait, in order."""

    def __init__(self, limit: int, at_risk: Callable[[], str], bandwidth_bytes_s: int = 0) -> None:
        """Let at most `limit` go at once.

        Args:
            limit: how many.
            at_risk: says whose promise another one would break, if anybody's.
            bandwidth_bytes_s: that they share; 0 = not limited.
        """
        self._bandwidth_bytes_s = bandwidth_bytes_s
        self._wanted: dict[str, int] = {}
        self._limit = limit
        self._at_risk = at_risk
        self._running: dict[str, str] = {}
        self._waiting: dict[str, str] = {}
        self._elsewhere: dict[str, str] = {}
        self._changed = asyncio.Event()

    @property
    def running(self) -> Mapping[str, str]:
        """Name of the domain of each migration that is under way, by its id."""
        return self._running

    def share(self, migration: str, wanted_bytes_s: int) -> int:
        """What one that is under way may send of what this host may, where it has a use for so much; 0 = no limit."""
        self._wanted[migration] = wanted_bytes_s
        wanted = {known: self._wanted.get(known, 0) for known in (*self._running, migration)}
        return fair_shares(self._bandwidth_bytes_s, wanted)[migration]

    def enter(self, migration: str, name: str) -> None:
        """One is under way already, from before a restart of the manager."""
        self._running[migration] = name

    def keep_place(self, migration: str, name: str) -> None:
        """One has waited before a restart of the manager: those that come later do not overtake its new check."""
        self._waiting[migration] = name

    def leave(self, migration: str) -> None:
        """One is over, or does not want to go any more."""
        for group in (self._running, self._waiting, self._elsewhere):
            group.pop(migration, None)
        self._wanted.pop(migration, None)
        self._wake()

    async def wait(
        self, migration: str, name: str, ask: Callable[[], Awaitable[Turn]], tell: Callable[[int, str], None]
    ) -> bool:
        """Return when it is this migration's turn, on both hosts.

        Args:
            migration: its id.
            name: of its domain.
            ask: the target for a turn.
            tell: hears the position in the queue and the reason, whenever one of them changes.

        Returns:
            Whether it had to wait.
        """
        self._waiting[migration] = name
        waited = False
        try:
            while True:
                # Cleared before the look: what changes from now on wakes.
                self._changed.clear()
                reason = self._why_not(migration)
                if reason:
                    waited = True
                    tell(self._position(migration), reason)
                    await self._pause(LOOK_S)
                    continue
                self._running[migration] = name
                turn = await ask()
                if turn.granted:
                    return waited
                del self._running[migration]
                self._elsewhere[migration] = turn.reason
                self._wake()
                waited = True
                tell(self._position(migration), f"{turn.reason} (number {turn.position} there)")
                await asyncio.sleep(ASK_S)
                self._elsewhere.pop(migration, None)
        except BaseException:
            self.leave(migration)
            raise
        finally:
            self._waiting.pop(migration, None)
            self._elsewhere.pop(migration, None)
            self._wake()

    def _position(self, migration: str) -> int:
        return self._order(migration).index(migration) + 1

    def _order(self, migration: str) -> list[str]:
        """Those that wait, without those that are just asking their target."""
        return [known for known in self._waiting if known == migration or known not in self._running]

    def _why_not(self, migration: str) -> str:
        """What it waits for on this host; empty: nothing."""
        others = {known: name for known, name in self._running.items() if known != migration}
        full = why_full(others.values(), self._limit, "outgoing")
        if full:
            return full
        before = self._order(migration)[: self._position(migration) - 1]
        ready = [known for known in before if known not in self._elsewhere]  # who waits for another host lets it pass
        if ready:
            return f"LDom {self._waiting[ready[-1]]} is before it in the queue"
        return self._at_risk() if others else ""

    def _wake(self) -> None:
        self._changed.set()

    async def _pause(self, limit_s: float) -> None:
        try:
            async with asyncio.timeout(limit_s):
                await self._changed.wait()
        except TimeoutError:
            return


class ReceivingQueue:
    """The migrations that come to a host: it grants turns, in the order in which they were asked for."""

    def __init__(self, limit: int, now: Callable[[], float]) -> None:
        """Let at most `limit` come at once, by the clock `now`."""
        self._limit = limit
        self._now = now
        self._granted: dict[str, tuple[str, float]] = {}
        self._heard: dict[str, float] = {}

    def ask(self, migration: str, name: str, under_way: Mapping[str, str]) -> Turn:
        """Whether a migration may come now.

        Args:
            migration: its id.
            name: of its domain.
            under_way: names of the domains that are coming, by the ids of their migrations.
        """
        now = self._now()
        self._granted = {
            known: entry
            for known, entry in self._granted.items()
            if now - entry[1] < GRANTED_S and known not in under_way
        }
        self._heard = {known: at for known, at in self._heard.items() if now - at < HEARD_S}
        self._heard[migration] = now
        coming = {**under_way, **{known: entry[0] for known, entry in self._granted.items()}}
        coming.pop(migration, None)
        order = list(self._heard)
        position = order.index(migration) + 1
        full = why_full(coming.values(), self._limit, "incoming")
        if full:
            return Turn(False, position, full)
        if position > self._limit - len(coming):
            return Turn(False, position, "others are before it in the queue")
        del self._heard[migration]
        self._granted[migration] = (name, now)
        return Turn(True)

    def forget(self, migration: str) -> None:
        """One does not come, or has come."""
        self._granted.pop(migration, None)
        self._heard.pop(migration, None)
