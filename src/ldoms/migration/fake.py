"""Managers that reach each other without a network, for unit tests: calls can be cut, and answers lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from ldoms.migration.peer import Credentials
from ldoms.migration.target import TargetSide
from ldoms.model.errors import LdomsError, NotAuthorized, PeerError
from ldoms.model.migration import (
    ClockTimes,
    Description,
    DescriptionAnswer,
    MigrationReport,
    Preparation,
    TargetStatus,
    Ticket,
    Trial,
)
from ldoms.model.queue import Turn

T = TypeVar("T")

LATENCY_S = 0.001
TIMEOUT_S = 2.0
_ADDRESS = "192.0.2.1"


@dataclass
class FakeLink:
    """What is between the managers of one test.

    Attributes:
        targets: by host name; a host that is not there has no manager running.
        is_up: calls get through.
        lose_answers: names of calls that arrive, and whose answer is lost.
        passwords: of users.
        calls: names of all calls that arrived, for looking at.
    """

    targets: dict[str, TargetSide] = field(default_factory=dict)
    is_up: bool = True
    lose_answers: set[str] = field(default_factory=set)
    passwords: dict[str, str] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)


class FakeConnector:
    """See `ldoms.migration.peer.Connector`."""

    def __init__(self, link: FakeLink) -> None:
        self._link = link

    async def connect(self, host: str, credentials: Credentials, address: str = "") -> FakePeer:
        """A peer that calls the target directly."""
        return FakePeer(self._link, host, credentials)


class FakePeer:
    """See `ldoms.migration.peer.Peer`."""

    def __init__(self, link: FakeLink, host: str, credentials: Credentials) -> None:
        self._link = link
        self._host = host
        self._credentials = credentials
        self._token = credentials.token
        self.address = _ADDRESS

    def use_token(self, token: str) -> None:
        """Use a token from now on."""
        self._token = token

    async def describe(self, description: Description) -> DescriptionAnswer:
        """Describe."""
        user, password = self._credentials.user, self._credentials.password
        if not self._credentials.certificate and self._link.passwords.get(user) != password:
            await asyncio.sleep(LATENCY_S)
            raise NotAuthorized("Authentication failed", code="authentication-failed")
        return await self._call("describe", lambda target: target.describe(description, _ADDRESS))

    async def clock(self, migration: str) -> ClockTimes:
        """The same clock."""
        return ClockTimes(time.time(), time.time())

    async def begin_trial(self, trial: Trial) -> Ticket:
        """Begin a trial."""
        return await self._guarded(trial.migration, "trial", lambda target: target.begin_trial(trial, _ADDRESS))

    async def end_trial(self, migration: str) -> None:
        """End it."""
        await self._guarded(migration, "end-trial", lambda target: target.end_trial(migration))

    async def ask_turn(self, migration: str) -> Turn:
        """Ask for a turn."""

        async def ask(target: TargetSide) -> Turn:
            return target.ask_turn(migration)

        return await self._guarded(migration, "turn", ask)

    async def prepare(self, preparation: Preparation) -> Ticket:
        """Prepare."""
        return await self._guarded(
            preparation.migration, "prepare", lambda target: target.prepare(preparation, _ADDRESS)
        )

    async def status(self, migration: str, phase: str, progress: int) -> TargetStatus:
        """Status."""
        return await self._guarded(migration, "status", lambda target: target.status(migration, phase, progress))

    async def finish(self, migration: str) -> TargetStatus:
        """Finish."""
        return await self._guarded(migration, "finish", lambda target: target.finish(migration))

    async def abort(self, migration: str, reason: str) -> TargetStatus:
        """Abort."""
        return await self._guarded(migration, "abort", lambda target: target.abort(migration, reason))

    async def listen_again(self, migration: str) -> Ticket:
        """Listen again."""
        return await self._guarded(migration, "listen-again", lambda target: target.listen_again(migration, _ADDRESS))

    async def deliver_report(self, report: MigrationReport) -> None:
        """Keep the report."""

        async def keep(target: TargetSide) -> None:
            target.keep_report(report)

        await self._guarded(report.id, "report", keep)

    async def close(self) -> None:
        """Nothing to close."""

    async def _guarded(self, migration: str, name: str, work: Callable[[TargetSide], Awaitable[T]]) -> T:
        async def admitted(target: TargetSide) -> T:
            if not target.admits(migration, self._token):
                raise NotAuthorized("the token is not the one of this migration")
            return await work(target)

        return await self._call(name, admitted)

    async def _call(self, name: str, work: Callable[[TargetSide], Awaitable[T]]) -> T:
        target = self._link.targets.get(self._host)
        if not self._link.is_up or target is None:
            await asyncio.sleep(TIMEOUT_S)
            raise PeerError(f"no answer from {self._host}", code="no-connection")
        await asyncio.sleep(LATENCY_S)
        self._link.calls.append(name)
        # As in a real server, what has begun goes on although the caller may have gone.
        task = asyncio.ensure_future(work(target))
        try:
            async with asyncio.timeout(60):
                answer = await asyncio.shield(task)
        except TimeoutError as error:
            raise PeerError(f"no answer from {self._host}", code="no-connection") from error
        except asyncio.CancelledError:
            if task.cancelled():  # the other manager was stopped in the middle
                raise PeerError(f"{self._host} has hung up", code="no-connection") from None
            raise
        except LdomsError:
            raise
        if name in self._link.lose_answers or not self._link.is_up:
            await asyncio.sleep(TIMEOUT_S)
            raise PeerError(f"no answer from {self._host}", code="no-connection")
        return answer
