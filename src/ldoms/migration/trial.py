"""A trial of the way that guest memory takes: QEMU to QEMU, with the plan's encryption, for a second or two.

Two QEMUs that have memory and no machine, one on each host, on the CPUs of the control domains: nothing else takes the
same way through QEMU, GnuTLS and the network, at the same price (docs/adr/0020-a-trial-of-the-link.md).
"""

from __future__ import annotations

import asyncio
import secrets
import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise

from ldoms.hypervisor.engine import Guest
from ldoms.hypervisor.states import ENDED, MigrationEnd, MigrationStatus
from ldoms.migration.local import LocalHost
from ldoms.migration.peer import Peer
from ldoms.model.errors import HostError, LdomsError
from ldoms.model.forecast import LinkSource, LinkSpeed
from ldoms.model.migration import MigrationPlan, Trial
from ldoms.model.sizes import MIB

TRIAL_S = 1.7
"""Sends for so long at most."""
LEAST_MIB, MOST_MIB = 32, 256
POLL_S = 0.01
CAPABILITIES = frozenset({"events", "return-path", "pause-before-switchover", "multifd"})
"""What a QEMU without a machine can do, and what decides how fast it sends."""
BUFFERS_BYTES, BUFFERS_SHARE = 12 * MIB, 0.4
"""What is sent first and fills buffers: so much, or that share of all, whichever is less."""
PARTS = 4
"""Of the time, whose speeds are compared."""
LEAST_SPREAD, SHORT_SPREAD = 0.08, 0.3

Samples = Sequence[tuple[float, int]]
"""Seconds, and bytes sent until then."""


def trial_plan(plan: MigrationPlan) -> MigrationPlan:
    """The plan for the trial of a plan: of the link, so what it sends is not compressed."""
    not_wanted = {"multifd"} if plan.channels == 1 else set()
    kept = tuple(name for name in plan.capabilities if name in CAPABILITIES - not_wanted)
    return replace(plan, capabilities=kept, compression="none", downtime_limit_s=0.0, stands_still=False)


async def try_link(local: LocalHost, peer: Peer, migration: str, plan: MigrationPlan, size_bytes: int) -> LinkSpeed:
    """How fast memory crosses.

    Args:
        local: the source.
        peer: the target.
        migration: that it is for.
        plan: as for the migration.
        size_bytes: of what the migration has to send; the trial sends no more, and not nearly as much of a large one.

    Raises:
        LdomsError: it could not be tried. Nothing is left behind.
    """
    size_mib = max(LEAST_MIB, min(MOST_MIB, size_bytes // MIB))
    key = secrets.token_hex(32) if plan.encrypted else ""
    tried = trial_plan(plan)
    asked = asyncio.create_task(peer.begin_trial(Trial(migration, tried, size_mib, key)), name="begin-trial")
    guest: Guest | None = None
    try:
        guest = await local.start_trial(size_mib, incoming=False)
        await guest.set_migration(MigrationEnd.SEND, tried, key)
        ticket = await asked
        return speed_of(await _send(guest, ticket.host, ticket.port))
    finally:
        with suppress(LdomsError):
            await asked
        if guest is not None:
            await local.end_trial(guest)
        with suppress(LdomsError):
            await peer.end_trial(migration)


async def _send(guest: Guest, host: str, port: int) -> Samples:
    clock = asyncio.get_running_loop().time
    await guest.send(host, port)
    began, samples = clock(), []
    while True:
        progress = await guest.progress()
        if progress.status in ENDED and progress.status != MigrationStatus.COMPLETED:
            raise HostError(f"the trial of the link failed: {progress.error or progress.status}", code="trial-failed")
        samples.append((clock() - began, progress.transferred_bytes))
        if progress.status in (MigrationStatus.PRE_SWITCHOVER, MigrationStatus.COMPLETED) or samples[-1][0] > TRIAL_S:
            return samples
        await asyncio.sleep(POLL_S)


def speed_of(samples: Samples) -> LinkSpeed:
    """The speed that samples show.

    What is sent at first does not count: it has only filled buffers on the way.

    Raises:
        HostError: nothing was sent.
    """
    end_s, end_bytes = samples[-1]
    if end_bytes <= 0 or end_s <= 0:
        raise HostError("the trial of the link has sent nothing", code="trial-failed")
    begin_bytes = min(BUFFERS_BYTES, end_bytes * BUFFERS_SHARE)
    begin_s = next(at for at, sent in samples if sent >= begin_bytes)
    begin_bytes = _sent_at(samples, begin_s)
    if end_s <= begin_s or end_bytes <= begin_bytes:
        return LinkSpeed(end_bytes / end_s, SHORT_SPREAD, LinkSource.PROBE)
    speed = (end_bytes - begin_bytes) / (end_s - begin_s)
    marks = [_sent_at(samples, begin_s + (end_s - begin_s) * part / PARTS) for part in range(PARTS + 1)]
    speeds = [(later - earlier) * PARTS / (end_s - begin_s) for earlier, later in pairwise(marks)]
    spread = statistics.stdev(speeds) / speed / PARTS**0.5
    return LinkSpeed(speed, max(LEAST_SPREAD, spread), LinkSource.PROBE)


def _sent_at(samples: Samples, moment_s: float) -> float:
    """Bytes sent until then, on the straight line between the samples around it."""
    before = (0.0, 0)
    for at, sent in samples:
        if at >= moment_s:
            span = at - before[0]
            return sent if span <= 0 else before[1] + (sent - before[1]) * (moment_s - before[0]) / span
        before = (at, sent)
    return before[1]
