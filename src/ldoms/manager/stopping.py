"""How a guest is stopped: asked through its agent or the power button, given time, or ended at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import structlog

from ldoms.hypervisor.engine import Guest
from ldoms.hypervisor.states import GuestEvent, GuestEventKind, PowerWish
from ldoms.manager.guests import RunningGuest
from ldoms.manager.host import Host
from ldoms.migration.local import Observer
from ldoms.model.domain import Domain
from ldoms.model.errors import Cancelled, HostError, RequestError
from ldoms.model.stopping import STOP_S, StopMode, StopOptions

KIND = "stop-domain"
QUICK_S = 15.0
"""How long a guest may take that was told to write what it must and switch off."""
TICK_S = 1.0
PRESSES = 10
"""The power button is pressed so often, every second, after a guest was seen to come up: its button works later."""
YOUNG_S = 120.0
"""A guest that was started so lately may have its drivers, and nothing yet that heeds its button."""

_log = structlog.get_logger(__name__)


class Stopping:
    """Stops guests of domains that somebody holds."""

    def __init__(self, host: Host, start_again: Callable[[Domain], Awaitable[Domain]]) -> None:
        """Stop guests of `host`; `start_again` starts a bound domain that is held already."""
        self._host = host
        self._start_again = start_again

    def require(self, domain: Domain) -> RunningGuest:
        """The guest of a domain that can be stopped.

        Raises:
            RequestError: it has none, or is the control domain.
        """
        if domain.is_control:
            raise RequestError("LDom primary is the host itself: shut the host down instead", code="control-domain")
        running = self._host.guests.get(domain.uuid)
        if running is None:
            raise RequestError(f"LDom {domain.name} is not active", code="domain-not-active")
        return running

    async def stop(self, domain: Domain, options: StopOptions, follower: Observer) -> tuple[str, ...]:
        """Stop the guest of a domain, which stays bound, or have it restart.

        Returns:
            What the administrator should know although it has worked.

        Raises:
            HostError: code ``stop-timeout``: it did not do so in time, and goes on running.
            Cancelled: it was called off; the guest has been asked already, and may still do so.
        """
        running = self.require(domain)
        notes = await self._tell_users(domain.name, running.guest, options.message)
        if options.mode is StopMode.REBOOT:
            await self._reboot(domain, running, options, follower)
            return notes
        running.ending = True
        try:
            if options.mode is StopMode.FORCE or running.is_dead:
                await running.guest.quit()
            elif options.mode is StopMode.QUICK:
                await self._quickly(domain, running, follower, options.limit_s or QUICK_S)
            else:
                await self._in_good_order(domain, running, options, follower)
        finally:
            running.ending = running.guest.is_gone
        await running.ended.wait()
        return notes

    # Inside

    async def _in_good_order(
        self, domain: Domain, running: RunningGuest, options: StopOptions, follower: Observer
    ) -> None:
        name, guest = domain.name, running.guest
        limit_s = STOP_S if options.limit_s is None else options.limit_s
        again = await _ask(running, domain.started_at)
        if await _wait(guest.wait_gone(), limit_s, name, "shutting down", follower, again):
            return
        # As LDoms does when it was given a time: what did not end in it is switched off.
        quick = options.limit_s is not None and options.mode is StopMode.SHUT_DOWN and await guest.has_agent()
        if not quick:
            raise _late(name, limit_s)
        _log.info("stop-quickly", domain=name, after_s=limit_s)
        await self._quickly(domain, running, follower, QUICK_S)

    async def _quickly(self, domain: Domain, running: RunningGuest, follower: Observer, limit_s: float) -> None:
        name, guest, again = domain.name, running.guest, None
        try:
            if not await guest.has_agent():
                raise HostError(f"LDom {name} has no guest agent", code="no-agent")
            await guest.agent.switch_off()
        except HostError:
            # Without an agent that may run programs, asking in good order is all there is.
            limit_s = max(limit_s, STOP_S)
            again = await _ask(running, domain.started_at)
        if not await _wait(guest.wait_gone(), limit_s, name, "switching off", follower, again):
            raise _late(name, limit_s)

    async def _reboot(self, domain: Domain, running: RunningGuest, options: StopOptions, follower: Observer) -> None:
        name, guest = domain.name, running.guest
        limit_s = STOP_S if options.limit_s is None else options.limit_s
        if await guest.has_agent():
            async with _next(guest, GuestEventKind.RESET) as restarted:
                with suppress(HostError):
                    await guest.agent.shut_down(PowerWish.RESTART)
                if not await _wait(restarted(), limit_s, name, "restarting", follower):
                    raise _late(name, limit_s, "restart")
            if not guest.is_gone:
                return
        else:
            # There is no button for a restart: it is switched off in good order, and on again.
            running.ending = True
            try:
                again = await _ask(running, domain.started_at)
                if not await _wait(guest.wait_gone(), limit_s, name, "restarting", follower, again):
                    raise _late(name, limit_s, "restart")
            finally:
                running.ending = running.guest.is_gone
        follower.update(may_cancel=False)
        await running.ended.wait()
        await self._start_again(self._host.store.domain(name))

    async def _tell_users(self, name: str, guest: Guest, message: str) -> tuple[str, ...]:
        if not message:
            return ()
        try:
            if await guest.has_agent():
                await guest.agent.tell(message)
                return ()
            reason = "it has no guest agent"
        except HostError as error:
            reason = error.message
        return (f"the message was not shown to the users of LDom {name}: {reason}",)


async def _ask(running: RunningGuest, started_at: float) -> Callable[[], Awaitable[None]] | None:
    """Ask a guest to shut down: through its agent if there is one, else by the power button.

    Returns:
        What is to be repeated while the guest is waited for: one that is only just coming up does not see its button.
    """
    guest = running.guest
    if await guest.has_agent() and await guest.agent.ping():
        with suppress(HostError):
            await guest.agent.shut_down(PowerWish.OFF)
        return None
    may_miss_it = running.booting or time.time() - started_at < YOUNG_S
    left = PRESSES
    await guest.press_power_button()

    async def again() -> None:
        nonlocal left
        left -= not running.booting
        if left > 0:
            with suppress(HostError):  # it may have ended meanwhile
                await guest.press_power_button()

    return again if may_miss_it else None


async def _wait(
    end: Awaitable[object],
    limit_s: float,
    name: str,
    phase: str,
    follower: Observer,
    again: Callable[[], Awaitable[None]] | None = None,
) -> bool:
    """Whether it ends in time; the follower hears how much of that has passed. `again` is done every second.

    Raises:
        Cancelled: the follower has called it off.
    """
    clock = asyncio.get_running_loop().time
    began = clock()
    ended, cancelled = asyncio.ensure_future(end), asyncio.create_task(follower.cancelled.wait())
    try:
        while not ended.done() and not cancelled.done() and clock() - began < limit_s:
            passed = clock() - began
            follower.update(phase=phase, progress=min(99, int(100 * passed / limit_s)))
            await asyncio.wait(
                (ended, cancelled), timeout=min(TICK_S, limit_s - passed), return_when=asyncio.FIRST_COMPLETED
            )
            if again is not None and not ended.done():
                await again()
        if ended.done():
            return True
        if cancelled.done():
            raise Cancelled(
                f"LDom {name} has been asked already and may still stop; it is waited for no more"
                f" ('ldm list {name}' shows it)"
            )
        return False
    finally:
        ended.cancel()
        cancelled.cancel()


@asynccontextmanager
async def _next(guest: Guest, kind: GuestEventKind) -> AsyncIterator[Callable[[], Awaitable[GuestEvent]]]:
    """Waits for the next event of a kind from now on, or the end of the guest."""
    with guest.events() as events:

        async def look() -> GuestEvent:
            while (event := await events.get()).kind not in (kind, GuestEventKind.GONE):
                pass
            return event

        yield look


def _late(name: str, limit_s: float, what: str = "shut down") -> HostError:
    return HostError(
        f"LDom {name} did not {what} within {limit_s:g} s and goes on running; 'ldm stop-domain -f {name}'"
        " ends it at once",
        code="stop-timeout",
    )
