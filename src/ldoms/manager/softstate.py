"""What is known of the software in a guest: looked at in the background, so that no listing waits for a guest."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from ldoms.hypervisor.states import RunState
from ldoms.manager.guests import RunningGuest
from ldoms.model.errors import HostError

BOOTING_S = 0.5
"""Between two looks at a guest that is in its firmware, as far as is known."""
SETTLING_S = 5.0
"""Between two looks at one whose agent has not said yet what system it is, in its first minutes."""
SETTLED_LOOKS = 60
"""After so many looks without an agent, there is probably none."""
SETTLED_S = 60.0


async def watch(running: RunningGuest) -> None:
    """Keep `RunningGuest.booting` and `RunningGuest.system` true, until cancelled."""
    looks = 0
    while True:
        if running.is_fresh:
            running.is_fresh, looks = False, 0
        if running.run_state is RunState.RUNNING:
            looks += 1
            with suppress(HostError):
                await _look(running)
        with suppress(TimeoutError):
            async with asyncio.timeout(_interval_s(running, looks)):
                await running.changed.wait()
        running.changed.clear()


async def _look(running: RunningGuest) -> None:
    guest = running.guest
    has_agent = await guest.has_agent()
    if running.booting:
        running.booting = not has_agent and not await guest.has_driver()
    if not has_agent:
        running.system = ""
    elif not running.system:
        running.system = await guest.agent.system()


def _interval_s(running: RunningGuest, looks: int) -> float:
    if running.booting:
        return BOOTING_S if looks < SETTLED_LOOKS else SETTLING_S
    if running.system or looks >= SETTLED_LOOKS:
        return SETTLED_S
    return SETTLING_S


def describe(running: RunningGuest) -> str:
    """The SOFTSTATE line; empty where nothing is known."""
    if running.panicked:
        return "panicked"
    if running.run_state is RunState.SILENT:
        return "its QEMU does not answer"
    if running.run_state is RunState.STALLED:
        return "waiting for a disk"
    return f"{running.system} running" if running.system and not running.booting else ""
