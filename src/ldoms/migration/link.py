"""The source's line to the target: kept open, listened to, and tried again when it is down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import structlog

from ldoms.migration.peer import Connector, Credentials, Peer
from ldoms.model.errors import LdomsError, NotFound, PeerError
from ldoms.model.migration import MigrationRecord, TargetStatus

HEARTBEAT_S = 1.0
FRESH_S = 2.5
"""A target that was heard so recently is handed the guest without being asked once more."""
PING_S = 0.5
FIRST_RETRY_S, LAST_RETRY_S = 0.2, 5.0

T = TypeVar("T")
_log = structlog.get_logger(__name__)


class TargetLink:
    """The connection of one migration to its target's manager.

    Attributes:
        phase, progress: how it stands here; the target is told with each sign of life.
        bandwidth_bytes_s: that it may take of the target's network, as that has said at last; 0 = not limited.
    """

    def __init__(self, connector: Connector, peer: Peer, migration: str) -> None:
        self._connector = connector
        self._loop = asyncio.get_running_loop()
        self._migration = migration
        self._heard_at = self._loop.time()
        self.peer = peer
        self.phase, self.progress = "", 0
        self.bandwidth_bytes_s = 0

    @classmethod
    @asynccontextmanager
    async def open(
        cls, connector: Connector, record: MigrationRecord, credentials: Credentials
    ) -> AsyncIterator[TargetLink]:
        """Connect to the target of a migration, and close the connection in the end."""
        peer = await connector.connect(record.peer, credentials, record.address)
        try:
            yield cls(connector, peer, record.id)
        finally:
            await peer.close()

    @property
    def silence_s(self) -> float:
        """Time since the target was last heard."""
        return self._loop.time() - self._heard_at

    def heard(self) -> None:
        """The target has given a sign of life."""
        self._heard_at = self._loop.time()

    async def status(self) -> TargetStatus:
        """How the migration stands on the target.

        Raises:
            PeerError: it does not answer.
        """
        status = await self.peer.status(self._migration, self.phase, self.progress)
        self.heard()
        self.bandwidth_bytes_s = status.bandwidth_bytes_s
        return status

    async def is_alive(self) -> bool:
        """Whether the target was heard a moment ago, or answers at once."""
        if self.silence_s <= FRESH_S:
            return True
        return await self.status_now() is not None

    async def status_now(self) -> TargetStatus | None:
        """How it stands on the target, or None if it does not answer at once."""
        with suppress(LdomsError, TimeoutError):
            async with asyncio.timeout(PING_S):
                return await self.status()
        return None

    @asynccontextmanager
    async def heartbeat(self) -> AsyncIterator[None]:
        """Ask the target for a sign of life now and then; it waits for ours, too."""
        task = asyncio.create_task(self._beat(), name="migration-heartbeat")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _beat(self) -> None:
        while True:
            with suppress(LdomsError):
                await self.status()
            await asyncio.sleep(HEARTBEAT_S)


async def persist(
    call: Callable[[], Awaitable[T]],
    *,
    limit_s: float = float("inf"),
    on_failure: Callable[[LdomsError], None] = lambda error: None,
) -> T:
    """Repeat a call to another host until it is answered.

    Args:
        call: to make.
        limit_s: how long to go on trying.
        on_failure: is told of every failure.

    Raises:
        LdomsError: the last failure, when the time is up.
    """
    loop = asyncio.get_running_loop()
    pause, deadline = FIRST_RETRY_S, loop.time() + limit_s
    while True:
        try:
            return await call()
        except LdomsError as error:
            on_failure(error)
            if loop.time() + pause > deadline:
                raise
        await asyncio.sleep(pause)
        pause = min(LAST_RETRY_S, pause * 2)


async def abort_target(connector: Connector, record: MigrationRecord, reason: str) -> TargetStatus | None:
    """Tell the target of a migration that it is off.

    Returns:
        How it stands there; a verdict is in it, which may be that the domain was taken already. None = the target
        knows nothing of the migration.

    Raises:
        PeerError: it could not be told.
    """
    try:
        async with TargetLink.open(connector, record, Credentials(token=record.token)) as link:
            return await link.peer.abort(record.id, reason)
    except NotFound:
        return None
    except PeerError:
        raise
    except LdomsError as error:
        raise PeerError(f"the target could not be told that the migration is off: {error.message}") from error
