"""The guests that run on this host: followed, measured, and missed when they end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import structlog

from ldoms.hypervisor.engine import Guest
from ldoms.hypervisor.states import GuestEvent, GuestEventKind, RunState
from ldoms.manager.background import Background
from ldoms.model.errors import HostError

SAME_RESET_S = 3.0
"""SeaBIOS follows a restart by the guest with one of its own, within so long."""

SILENT_S = 5.0
"""Between two looks at a guest whose QEMU does not answer."""

MIN_WINDOW_S = 1.0
"""Over which CPU use is measured at least."""

_log = structlog.get_logger(__name__)


class Meter:
    """The share of its virtual CPUs' time that a guest has used lately."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._last = (time.monotonic(), guest.cpu_seconds())
        self._shares: tuple[float, ...] = ()

    def read(self) -> tuple[float, ...]:
        """Percent for each virtual CPU, since the last reading that is at least a second old; empty before that."""
        now, seconds = time.monotonic(), self._guest.cpu_seconds()
        elapsed = now - self._last[0]
        if elapsed >= MIN_WINDOW_S:
            used = zip(seconds, (*self._last[1], *(0.0,) * len(seconds)), strict=False)  # a new one began at nothing
            self._shares = tuple(min(100.0, max(0.0, 100 * (after - before) / elapsed)) for after, before in used)
            self._last = (now, seconds)
        return self._shares


class RunningGuest:
    """A guest, and what is known of it without asking.

    Attributes:
        run_state: as its latest event tells.
        ending: somebody here has asked it to end.
        ended: set when it has ended and everything that belonged to it is cleared away.
        panicked: its kernel has said that it has panicked, and it has not started anew since.
        failed: its failure has been dealt with; for those that depend on it, it does not fail again before it starts
            anew.
        boot_fault: it has ended by a fault of QEMU's while it was booting, and has done nothing yet.
        booting: it has started here, and no driver of its own was seen since: it is in its firmware, or its kernel
            is only just coming up.
        system: the name of its operating system, as its agent says it; empty where that is not known.
        repeats_reset: its latest reset is the second half of the one before: firmware does it once more by itself.
        changed: set by whatever may make a difference to the last two; `is_fresh` if it has started anew.
    """

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.run_state = RunState.PAUSED
        self.ending = False
        self.ended = asyncio.Event()
        self.meter = Meter(guest)
        self.panicked = False
        self.failed = False
        self.boot_fault = False
        self.booting = False
        self.system = ""
        self.changed = asyncio.Event()
        self.is_fresh = True
        self.repeats_reset = False
        self._reset_at = float("-inf")
        self._shut_down = False

    def note(self, event: GuestEvent) -> None:
        """Take in what the guest reports."""
        match event.kind:
            case GuestEventKind.RESUMED:
                self.run_state = RunState.RUNNING
                self.changed.set()
            case GuestEventKind.STOPPED:
                self.run_state = RunState.PAUSED
            case GuestEventKind.PANICKED:
                self.panicked = True
            case GuestEventKind.RESET:
                self.panicked = self.failed = False
                self.repeats_reset = self.booting and event.at - self._reset_at < SAME_RESET_S
                self._reset_at = event.at
                self.note_start()
            case GuestEventKind.SHUT_DOWN:
                self._shut_down = True

    def note_start(self) -> None:
        """It begins anew, in its firmware."""
        self.booting, self.system, self.is_fresh = True, "", True
        self.changed.set()

    @property
    def is_dead(self) -> bool:
        """Whether it can do nothing more, by itself or when it is asked."""
        return self.panicked or self.run_state in (RunState.CRASHED, RunState.SHUT_DOWN)

    @property
    def ended_well(self) -> bool:
        """Whether its end was wanted: by the guest itself, or here."""
        return self._shut_down or self.ending


OnEnd = Callable[[RunningGuest], Awaitable[None]]
"""Called when a guest has ended; also when one that was silent answers."""
OnEvent = Callable[[RunningGuest], None]
OnDeviceGone = Callable[[str, str], None]
"""Called with a domain's UUID and ``disk@ID`` or ``network@ID`` when the guest has let that go."""
Watch = Callable[[RunningGuest], Coroutine[Any, Any, None]]


class GuestBook:
    """Every guest that runs here, by its domain's UUID."""

    def __init__(self, watch: Watch | None = None) -> None:
        """Have `watch` look after each guest, as long as it is followed."""
        self._watch = watch
        self._guests: dict[str, RunningGuest] = {}
        self._following = Background()
        self.on_end: OnEnd | None = None
        self.on_reset: OnEvent = lambda running: None
        self.on_panic: OnEvent = lambda running: None
        self.on_resume: Callable[[], None] = lambda: None
        self.on_disk_failed: OnEvent = lambda running: None
        self.on_device_gone: OnDeviceGone = lambda uuid, device: None
        self.on_running: Callable[[str], None] = lambda uuid: None
        self.on_silence: OnEvent = lambda running: None
        self.on_answer: OnEnd | None = None

    def get(self, uuid: str) -> RunningGuest | None:
        """The guest of a domain, or None if there is none."""
        return self._guests.get(uuid)

    def require(self, uuid: str, name: str) -> RunningGuest:
        """The guest of a domain.

        Raises:
            HostError: it has none.
        """
        running = self._guests.get(uuid)
        if running is None:
            raise HostError(f"LDom {name} does not run on this host", code="not-running")
        return running

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time that the virtual CPUs of each guest have used so far, by its domain's UUID."""
        return {uuid: sum(running.guest.cpu_seconds()) for uuid, running in self._guests.items()}

    async def enter(self, guest: Guest) -> RunningGuest:
        """Follow a guest until it ends."""
        running = RunningGuest(guest)
        self._guests[guest.uuid] = running
        started = asyncio.Event()
        self._following.start(self._follow(running, started), f"follow-{guest.uuid}")
        await started.wait()
        return running

    async def close(self) -> None:
        """Stop following; the guests go on."""
        await self._following.close()

    async def _follow(self, running: RunningGuest, started: asyncio.Event) -> None:
        watching = [asyncio.create_task(self._watch(running))] if self._watch is not None else []
        try:
            await self._follow_events(running, started, watching)
        finally:
            for task in watching:
                task.cancel()

    async def _listen(self, running: RunningGuest) -> None:
        """Wait until a silent guest answers."""
        self.on_silence(running)
        while running.run_state is RunState.SILENT:
            await asyncio.sleep(SILENT_S)
            with suppress(HostError):
                running.run_state = await running.guest.state()
        running.changed.set()
        if self.on_answer is not None:
            await self.on_answer(running)

    async def _follow_events(
        self, running: RunningGuest, started: asyncio.Event, tasks: list[asyncio.Task[None]]
    ) -> None:
        guest = running.guest
        with guest.events() as events:
            try:
                running.run_state = await guest.state()
            except HostError:
                running.run_state = RunState.SILENT
                tasks.append(asyncio.create_task(self._listen(running)))
            started.set()
            while (event := await events.get()).kind is not GuestEventKind.GONE:
                if event.data.get("reason") == "snapshot-load":
                    continue  # not the guest's own: it is about to be given another one's memory
                running.note(event)
                if event.kind is GuestEventKind.RESET and not running.repeats_reset:
                    self.on_reset(running)
                elif event.kind is GuestEventKind.PANICKED:
                    self.on_panic(running)
                elif event.kind is GuestEventKind.RESUMED:
                    self.on_resume()
                elif event.kind is GuestEventKind.DISK_FAILED:
                    self.on_disk_failed(running)
                elif event.kind is GuestEventKind.DEVICE_GONE:
                    self.on_device_gone(guest.uuid, event.data["device"])
                if event.kind in (GuestEventKind.RESET, GuestEventKind.RESUMED):
                    self.on_running(guest.uuid)
            running.boot_fault = running.booting and bool(event.data.get("boot_fault"))
        try:
            if self._guests.get(guest.uuid) is running:
                del self._guests[guest.uuid]
                if self.on_end is not None:
                    await self.on_end(running)
            await guest.quit()  # lets go of what was kept for it
        finally:
            running.ended.set()  # also if something went wrong: whoever waits has no other limit
