"""What the failure of a master means for its slaves: ``failure-policy`` of the master is carried out on them.

A domain fails when its guest panics, or when its QEMU ends though neither the guest nor anybody here wanted it. Each
failure counts once, until the guest starts anew. A guest that shuts down, is stopped or moves away has not failed.
"""

from __future__ import annotations

import asyncio

import structlog

from ldoms.manager.background import Background
from ldoms.manager.guests import RunningGuest
from ldoms.manager.host import Host
from ldoms.model.dependencies import Consequence, consequences
from ldoms.model.domain import Domain, FailurePolicy
from ldoms.model.errors import Busy, LdomsError
from ldoms.model.events import EventKind

KIND = "failure-policy"
BUSY_S = 60.0
"""A slave that is held by other work is waited for so long."""
BUSY_POLL_S = 1.0

_log = structlog.get_logger(__name__)


class FailurePolicies:
    """Carries out failure policies, in the background."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._background = Background()

    def failed(self, domain: Domain, cause: str) -> None:
        """A domain has failed: deal with those that depend on it."""
        concerned = consequences(domain.name, self._host.store.domains())
        _log.warning("domain-failed", domain=domain.name, cause=cause, concerned=[entry.slave for entry in concerned])
        for consequence in concerned:
            self._background.start(self._carry_out(consequence), f"{KIND} {consequence.slave}")

    async def close(self) -> None:
        """Let go of what is not done yet."""
        await self._background.close()

    # Inside

    async def _carry_out(self, consequence: Consequence) -> None:
        slave, policy = consequence.slave, consequence.policy
        deadline = asyncio.get_running_loop().time() + BUSY_S
        while True:
            try:
                with self._host.changing(slave, KIND) as domain:
                    running = self._host.guests.get(domain.uuid)
                    if running is None:
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
