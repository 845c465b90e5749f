"""What the failure of a master means for its slaves: ``failure-policy`` of the master is carried out on them.

A domain fails when its guest panics, or when its QEMU ends though neither the guest nor anybody here wanted it. Each
failure counts once, until the guest starts anew. A guest that shuts down, is stopped or moves away has not failed.

What is to be done is written down until it is done, so that a restart of the manager goes on with it. A slave that has
started anew since the failure has nothing more to do with it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from ldoms.manager.background import Background
from ldoms.manager.guests import RunningGuest
from ldoms.manager.host import Host
from ldoms.model.codec import from_wire, to_wire
from ldoms.model.dependencies import Consequence, consequences
from ldoms.model.domain import Domain, FailurePolicy
from ldoms.model.errors import Busy, LdomsError
from ldoms.model.events import EventKind

KIND = "failure-policy"
PENDING = "failure-policies"
"""Under which the store remembers what is not done yet."""
BUSY_S = 60.0
"""A slave that is held by other work is waited for so long."""
BUSY_POLL_S = 1.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Pending:
    """A consequence that is not carried out yet; `at` is when its master has failed."""

    consequence: Consequence
    at: float


class FailurePolicies:
    """Carries out failure policies, in the background."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._background = Background()

    def failed(self, domain: Domain, cause: str) -> None:
        """A domain has failed: deal with those that depend on it."""
        concerned = consequences(domain.name, self._host.store.domains())
        _log.warning("domain-failed", domain=domain.name, cause=cause, concerned=[entry.slave for entry in concerned])
        new = tuple(_Pending(consequence, time.time()) for consequence in concerned)
        self._remember((*self._pending(), *new))
        self._start(new)

    def resume(self) -> None:
        """Go on with what an earlier manager had not done yet."""
        pending = self._pending()
        if pending:
            _log.info("failure-policies-found", concerned=[entry.consequence.slave for entry in pending])
        self._start(pending)

    async def close(self) -> None:
        """Let go of what is not done yet."""
        await self._background.close()

    # Inside

    def _start(self, pending: Sequence[_Pending]) -> None:
        for entry in pending:
            self._background.start(self._deal_with(entry), f"{KIND} {entry.consequence.slave}")

    def _pending(self) -> tuple[_Pending, ...]:
        known = self._host.store.recall(PENDING)
        return from_wire(tuple[_Pending, ...], json.loads(known)) if known else ()

    def _remember(self, pending: Sequence[_Pending]) -> None:
        self._host.store.remember(PENDING, json.dumps(to_wire(tuple(pending))) if pending else "")

    async def _deal_with(self, entry: _Pending) -> None:
        await self._carry_out(entry.consequence, entry.at)
        left = list(self._pending())
        left.remove(entry)
        self._remember(left)

    async def _carry_out(self, consequence: Consequence, failed_at: float) -> None:
        slave, policy = consequence.slave, consequence.policy
        deadline = asyncio.get_running_loop().time() + BUSY_S
        while True:
            try:
                with self._host.changing(slave, KIND) as domain:
                    running = self._host.guests.get(domain.uuid)
                    if running is None or domain.started_at > failed_at:
                        return  # nothing runs that could suffer
                    running.failed = True  # what comes of it now is no failure of its own
                    self._host.events.publish(
                        EventKind.FAILURE_POLICY_APPLIED, slave, master=consequence.master, policy=policy.value
                    )
                    _log.warning("failure-policy-applied", domain=slave, master=consequence.master, policy=policy.value)
                    await _act(running, policy)
                    return
            except Busy as busy:
                if asyncio.get_running_loop().time() > deadline:
                    _log.error("failure-policy-skipped", domain=slave, policy=policy.value, reason=busy.message)
                    return
                await asyncio.sleep(BUSY_POLL_S)
            except LdomsError as error:
                _log.error("failure-policy-skipped", domain=slave, policy=policy.value, reason=error.message)
                return


async def _act(running: RunningGuest, policy: FailurePolicy) -> None:
    match policy:
        case FailurePolicy.PANIC:
            await running.guest.inject_nmi()
        case FailurePolicy.RESET:
            await running.guest.reset()
        case FailurePolicy.STOP:
            running.ending = True
            await running.guest.quit()
            await running.ended.wait()
