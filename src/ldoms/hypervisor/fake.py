"""An engine without QEMU, for unit tests: guests are objects, their memory is a number, time is the event loop's.

All fake engines of one `FakeWorld` reach each other, and the world watches the one rule that matters: whenever two
guests with the same UUID run at the same time, it is written down in `FakeWorld.doubles`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from ldoms.hypervisor.fake_agent import FakeAddedMemory, FakeAgent
from ldoms.hypervisor.fake_mirrors import FakeMirrors, FakeShelf
from ldoms.hypervisor.specs import ControlPlacement, GuestSpec, Placement, TrialSpec
from ldoms.hypervisor.states import (
    IN_POSTCOPY,
    AddedMemory,
    GuestEventKind,
    MigrationEnd,
    MigrationStatus,
    RunState,
)
from ldoms.model.domain import CpuModel, Machine
from ldoms.model.errors import HostError
from ldoms.model.forecast import MemoryUse
from ldoms.model.host import HypervisorFacts
from ldoms.model.migration import MigrationPlan, Progress

FACTS = HypervisorFacts(
    version="10.0.2",
    accelerator="tcg",
    accelerator_reason="it is a fake",
    machine_types=("pc-q35-10.0", "pc-q35-9.2"),
    default_machine_type="pc-q35-10.0",
    cpu_models=("Nehalem-v1", "qemu64-v1"),
    cpu_features=("aes", "lm", "nx", "sse2"),
    migration_capabilities=(
        *("auto-converge", "dirty-limit", "events", "late-block-activate", "multifd"),
        *("pause-before-switchover", "postcopy-ram", "return-path", "xbzrle"),
    ),
    compressions=("none", "zlib", "zstd"),
    migration_parameters=("avail-switchover-bandwidth", "zero-page-detection"),
    postcopy=True,
)


@dataclass
class FakeWorld:
    """What the fakes of one test share.

    Attributes:
        copy_s: how long the first pass takes; each later one takes a tenth.
        passes: before the source is ready to switch over.
        hot_bytes: that a running guest changes in each pass: it is never ready then; 0 = it changes little.
        calm_percent: unless it is held back by so much.
        last_s: how long the last part takes.
        late_s: by so much the last parts of the next copies are late, one after the other.
        rest_s: that the rest of the memory takes of a guest that has gone over before.
        doubles: UUIDs of guests that ran twice at once.
        links_up: migration data flows.
        shelf: what they know of disks that are copied.
    """

    copy_s: float = 1.0
    passes: int = 3
    hot_bytes: int = 0
    calm_percent: int = 100
    last_s: float = 0.02
    late_s: list[float] = field(default_factory=list)
    rest_s: float = 2.0
    doubles: list[str] = field(default_factory=list)
    links_up: bool = True
    listeners: dict[tuple[str, int], FakeGuest] = field(default_factory=dict)
    guests: list[FakeGuest] = field(default_factory=list)
    shelf: FakeShelf = field(default_factory=FakeShelf)

    def running(self, uuid: str) -> list[FakeGuest]:
        """The guests with that UUID that run, anywhere."""
        return [guest for guest in self.guests if guest.uuid == uuid and guest.run_state is RunState.RUNNING]


class FakeGuest(FakeMirrors):
    """A guest that is only an object. See `ldoms.hypervisor.engine.Guest`.

    Attributes:
        vcpus: plugged into its machine.
        offline: those that the guest does not use.
        started: those that it has begun to use.
        wakes_vcpus: it brings new ones online by itself.
        keeps_vcpus: it does not let go of one.
    """

    def __init__(self, spec: GuestSpec, world: FakeWorld) -> None:
        super().__init__(spec, world.shelf)
        self.console = spec.directory / "console.sock"
        self.agent = FakeAgent(self)
        self.vcpus = spec.vcpus
        self.offline: set[int] = set()
        self.started = set(range(spec.vcpus))
        self.wakes_vcpus = False
        self.keeps_vcpus = False
        self.status: str = MigrationStatus.NONE
        self.plan: MigrationPlan | None = None
        self.key = ""
        self.memory = 0
        self.added = FakeAddedMemory(spec)
        self.passes = 0
        self.announced = 0
        self.throttle_percent = 0
        self.unsent = 0
        self.bandwidths: list[int] = []
        self.downtime_limits: list[float] = []
        self.breaks = 0
        self.placement = spec.placement
        self.refuses_to_run = False
        self.interrupted = 0
        self.ignores_nmi = False
        self.dump_s = 0.0
        self.has_booted = True
        self.changes_bytes_s = 0.0
        """How fast it changes memory, always another page."""
        self.nonzero_bytes = spec.memory_mib << 20
        self.load = 0.0
        """Of each virtual CPU, between 0 and 1."""
        self._world = world
        self._address: tuple[str, int] | None = None
        self._copy: asyncio.Task[None] | None = None
        self._receiver: FakeGuest | None = None
        self._switch = asyncio.Event()
        self._goes_over = False
        self._rest_done_s = 0.0
        self._copy_began = 0.0
        self._ran = True
        world.guests.append(self)

    async def state(self) -> RunState:
        """What it does."""
        await self._answer()
        return self.run_state

    async def resume(self) -> float:
        """Let it run."""
        await self._answer()
        if self.refuses_to_run:
            raise HostError(f"cont on LDom {self.spec.name}: QEMU says: no", code="qemu-refused")
        if self.run_state is RunState.INCOMING:
            raise HostError(f"cont on LDom {self.spec.name}: QEMU says: no memory yet", code="qemu-refused")
        if self.offered:
            raise HostError(f"cont on LDom {self.spec.name}: QEMU says: another writes", code="qemu-refused")
        if self.run_state is RunState.SENT and self.status in IN_POSTCOPY:
            raise HostError(f"cont on LDom {self.spec.name}: QEMU says: not finalized yet", code="qemu-refused")
        if self.run_state is not RunState.RUNNING:
            self.run_state = RunState.RUNNING
            self._emit(GuestEventKind.RESUMED)
            if len(self._world.running(self.uuid)) > 1:
                self._world.doubles.append(self.uuid)
            self._stall()
            await asyncio.sleep(0)  # whoever listens hears of it before the caller has its answer, as with QEMU
        return self._now()

    async def pause(self) -> None:
        """Stop it."""
        await self._answer()
        if self.run_state is RunState.RUNNING:
            self.run_state = RunState.PAUSED
            self._emit(GuestEventKind.STOPPED)

    async def press_power_button(self) -> None:
        """It obeys at once."""
        await self._answer()
        self._emit(GuestEventKind.SHUT_DOWN, guest=True)
        self.die()

    async def reset(self) -> None:
        """Restart it."""
        await self._answer()
        self.added.size_mib = 0
        self.offline.clear()
        self.started = set(range(self.vcpus))
        self._emit(GuestEventKind.RESET)

    async def inject_nmi(self) -> None:
        """It panics, and starts anew by itself, unless it hangs then."""
        await self._answer()
        self.interrupted += 1
        if self.ignores_nmi:
            return
        self.panic()
        self._emit(GuestEventKind.RESET)

    def panic(self) -> None:
        """Report a panic."""
        self._emit(GuestEventKind.PANICKED)

    async def dump(self, path: Path, progress: Callable[[int], None]) -> None:
        """Write something, in its time."""
        await self._answer()
        progress(50)
        try:
            with path.open("x") as file:
                await asyncio.sleep(self.dump_s)
                file.write(f"core of {self.spec.name}: {self.memory}\n")
        except OSError as error:
            raise HostError(f"the core cannot be written to {path}", code="no-core") from error

    async def has_agent(self) -> bool:
        """As it is told."""
        await self._answer()
        return self.agent.is_there and self.has_booted

    async def has_driver(self) -> bool:
        """As it is told."""
        await self._answer()
        return self.has_booted

    async def send_break(self) -> None:
        """Count it."""
        await self._answer()
        self.breaks += 1

    async def quit(self) -> None:
        """End it."""
        if not self.is_gone:
            self._emit(GuestEventKind.SHUT_DOWN, guest=False)
        self.die()

    async def wait_gone(self) -> None:
        """Return when it has ended."""
        await self._gone.wait()

    async def place(self, placement: Placement) -> None:
        """Note where it should run."""
        await self._answer()
        assert len(placement.vcpus) == self.vcpus, "every virtual CPU has a place"
        self.placement = placement

    def cpu_seconds(self) -> tuple[float, ...]:
        """As much as its `load` says, which is the same since the beginning of time."""
        return (self.load * asyncio.get_running_loop().time(),) * self.vcpus

    def cpu_wait_seconds(self) -> tuple[float, ...]:
        """As long as they have run: it gets half of what it wants."""
        return self.cpu_seconds()

    # Virtual CPUs

    async def count_vcpus(self) -> int:
        """How many are plugged."""
        await self._answer()
        return self.vcpus

    async def plug_vcpu(self) -> int:
        """Plug the next one."""
        await self._answer()
        if self.vcpus >= self.spec.machine.max_vcpus:
            raise HostError(
                f"the machine of LDom {self.spec.name} has no place for another virtual CPU", code="no-socket"
            )
        vid = self.vcpus
        self.vcpus += 1
        if self.wakes_vcpus:
            self.started.add(vid)
        else:
            self.offline.add(vid)
        everywhere = frozenset[int]().union(*self.placement.vcpus)
        self.placement = replace(self.placement, vcpus=(*self.placement.vcpus, everywhere))
        return vid

    async def unplug_vcpu(self, limit_s: float) -> bool:
        """Unplug the last one."""
        await self._answer()
        if self.keeps_vcpus:
            await asyncio.sleep(limit_s)
            return False
        self.vcpus -= 1
        self.offline.discard(self.vcpus)
        self.started.discard(self.vcpus)
        self.placement = replace(self.placement, vcpus=self.placement.vcpus[: self.vcpus])
        return True

    async def has_started(self, vid: int) -> bool:
        """Whether it was ever online."""
        await self._answer()
        return vid in self.started

    async def added_memory(self) -> AddedMemory | None:
        """What it has beyond the memory that it was started with."""
        await self._answer()
        return self.added.look(runs=self.run_state is RunState.RUNNING)

    async def request_memory(self, size_mib: int) -> None:
        """Note the wish."""
        await self._answer()
        self.added.request(size_mib)

    async def memory_use(self) -> MemoryUse:
        """As it is told."""
        await self._answer()
        return MemoryUse(self.spec.memory_mib << 20, self.nonzero_bytes)

    async def dirty_rate(self, window_s: float) -> float:
        """As it is told."""
        await self._answer()
        await asyncio.sleep(window_s)
        return self.changes_bytes_s if self.run_state is RunState.RUNNING else 0.0

    # Migration

    async def set_migration(self, end: MigrationEnd, plan: MigrationPlan, key: str) -> None:
        """Take the plan."""
        await self._answer()
        missing = set(plan.capabilities) - set(FACTS.migration_capabilities)
        if missing:
            raise HostError(f"QEMU has no migration capability {sorted(missing)}", code="qemu-refused")
        for other in ("xbzrle", "postcopy-ram"):
            if {"multifd", other} <= set(plan.capabilities):
                raise HostError(f"Multifd is not compatible with {other}", code="qemu-refused")
        self.plan, self.key = plan, key

    async def clear_migration(self) -> None:
        """Forget the plan."""
        self.plan, self.key = None, ""

    async def listen(self, host: str, port: int) -> None:
        """Wait for memory."""
        await self._answer()
        if (host, port) in self._world.listeners:
            raise HostError(f"port {port} is taken by another process", code="port-taken")
        self._address = (host, port)
        self._world.listeners[self._address] = self

    async def send(self, host: str, port: int) -> None:
        """Start to send memory."""
        await self._answer()
        receiver = self._world.listeners.get((host, port))
        self._switch.clear()
        self._goes_over, self._rest_done_s = False, 0.0
        self._copy_began = self._now()
        self._set_status(MigrationStatus.SETUP)
        self._copy = asyncio.create_task(self._send_to(receiver))

    async def continue_switchover(self) -> None:
        """Send the rest."""
        await self._answer()
        if self.status != MigrationStatus.PRE_SWITCHOVER:
            raise HostError("migrate-continue: QEMU says: not in the expected state", code="qemu-refused")
        self._switch.set()

    async def cancel_migration(self) -> None:
        """Stop sending, if that is still possible."""
        await self._answer()
        if self.status in IN_POSTCOPY:
            raise HostError("migrate_cancel: QEMU says: Postcopy in progress", code="qemu-refused")
        if self._copy is not None and not self._copy.done():
            self._copy.cancel()
            with suppress(asyncio.CancelledError):
                await self._copy
            await self._end_copy(MigrationStatus.CANCELLED)

    async def cut_migration(self) -> None:
        """Break the connection."""
        if self.status in IN_POSTCOPY:
            await self._lose_connection()
        elif self._copy is not None and not self._copy.done():
            self._copy.cancel()
            with suppress(asyncio.CancelledError):
                await self._copy
            await self._end_copy(MigrationStatus.FAILED)

    async def start_postcopy(self) -> None:
        """Go over when the pass has ended."""
        await self._answer()
        if self.plan is None or not self.plan.may_postcopy:
            raise HostError("migrate-start-postcopy: QEMU says: enable it first", code="qemu-refused")
        self._goes_over = True

    async def pause_postcopy(self) -> None:
        """Break the connection."""
        if self._is_dead or self.status not in IN_POSTCOPY or self.status == MigrationStatus.POSTCOPY_PAUSED:
            raise HostError("migrate-pause: QEMU says: only during postcopy", code="qemu-refused")
        await self._lose_connection()

    async def listen_again(self, host: str, port: int) -> None:
        """Wait for the rest at another place."""
        if self._is_dead or self.status not in IN_POSTCOPY:
            raise HostError("migrate-recover: QEMU says: only when postcopy is paused", code="qemu-refused")
        if (host, port) in self._world.listeners:
            raise HostError(f"port {port} is taken by another process", code="port-taken")
        await self._lose_connection()
        self._unlisten()
        self._address = (host, port)
        self._world.listeners[self._address] = self

    async def send_again(self, host: str, port: int) -> None:
        """Go on sending the rest."""
        await self._answer()
        if self.status != MigrationStatus.POSTCOPY_PAUSED:
            raise HostError("migrate: QEMU says: not paused", code="qemu-refused")
        self._set_status(MigrationStatus.POSTCOPY_RECOVER_SETUP)
        self._copy = asyncio.create_task(self._send_again(self._world.listeners.get((host, port))))

    async def progress(self) -> Progress:
        """How far it is."""
        await self._answer()
        total = self.spec.memory_mib << 20
        done = min(self.passes, self._world.passes) * total // self._world.passes
        return Progress(
            status=self.status,
            elapsed_s=self._now() - self._copy_began,
            passes=self.passes,
            total_bytes=total,
            transferred_bytes=done + round(self._rest_done_s * 1e8),
            remaining_bytes=self._rest_bytes if self.status in IN_POSTCOPY else max(total - done, self._hot_bytes),
            dirty_bytes_s=2.0 * self._hot_bytes,
            bandwidth_bytes_s=1e9,
            throttle_percent=self.throttle_percent,
            downtime_s=0.03 if self.status == MigrationStatus.COMPLETED else 0.0,
        )

    def unsent_bytes(self) -> int:
        """As it is told."""
        return self.unsent

    def limit_unsent(self, size: int) -> None:
        """Obey."""
        self.unsent = min(self.unsent, size)

    async def set_downtime_limit(self, seconds: float) -> None:
        """Note it."""
        await self._answer()
        self.downtime_limits.append(seconds)

    async def set_bandwidth(self, bytes_s: int) -> None:
        """Note it."""
        await self._answer()
        self.bandwidths.append(bytes_s)

    async def throttle(self, percent: int) -> None:
        """Be held back from now on."""
        await self._answer()
        if self.plan is None or "auto-converge" not in self.plan.capabilities:
            raise HostError("migrate-set-parameters: it is not set up for that", code="qemu-refused")
        self.throttle_percent = percent

    async def announce(self) -> None:
        """Count it."""
        await self._answer()
        self.announced += 1

    # Inside

    @property
    def secret(self) -> str:
        """The key of the migration."""
        return self.key

    def _cut(self) -> None:
        super()._cut()
        if self._copy is not None:
            self._copy.cancel()
        self._unlisten()
        receiver = self._receiver
        if receiver is not None and receiver.status in IN_POSTCOPY:
            receiver._set_status(MigrationStatus.POSTCOPY_PAUSED)
            receiver.hangs = True  # its main loop waits for a page

    def _unlisten(self) -> None:
        if self._address is not None:
            self._world.listeners.pop(self._address, None)

    async def _send_to(self, receiver: FakeGuest | None) -> None:
        if receiver is None or receiver.is_gone or receiver.plan is None or receiver.key != self.key:
            await self._end_copy(MigrationStatus.FAILED)
            return
        mine, theirs = (
            (one.layout, one.vcpus, one.spec.machine.max_vcpus, one.spec.memory_mib, one.spec.memory_room_mib)
            for one in (self, receiver)
        )
        if mine != theirs:  # QEMU says so at the end of the copy, when it loads the state of devices
            await self._end_copy(MigrationStatus.FAILED)
            return
        self._receiver = receiver
        receiver._set_status(MigrationStatus.ACTIVE)
        self._set_status(MigrationStatus.ACTIVE)
        number = 0
        while (number < self._world.passes or self._hot_bytes) and not self._goes_over:
            number += 1
            self.passes = number
            self._emit(GuestEventKind.MIGRATION_PASS, **{"pass": number})
            if not await self._transfer(receiver, self._world.copy_s if number == 1 else self._world.copy_s / 10):
                await self._end_copy(MigrationStatus.FAILED)
                return
        self._ran = self.run_state is RunState.RUNNING
        self.run_state = RunState.SENT
        if self._ran:
            self._emit(GuestEventKind.STOPPED)
        if self.plan is not None and "pause-before-switchover" in self.plan.capabilities:
            self._set_status(MigrationStatus.PRE_SWITCHOVER)
            await self._switch.wait()
        self._set_status("device")
        late_s = self._world.late_s.pop(0) if self._world.late_s else 0.0
        if not await self._transfer(receiver, self._world.last_s + late_s):
            await self._end_copy(MigrationStatus.FAILED)
            return
        if self._goes_over:
            self._set_status(MigrationStatus.POSTCOPY_ACTIVE)  # before the other end has all that it needs to run
            if not await self._transfer(receiver, 0.02):
                self._set_status(MigrationStatus.POSTCOPY_PAUSED)
                return
        receiver.memory = self.memory
        receiver.added.size_mib, receiver.added.requested_mib = self.added.size_mib, self.added.requested_mib
        receiver.offline, receiver.started = set(self.offline), set(self.started)
        receiver.run_state = RunState.PAUSED
        if self._goes_over:
            receiver._set_status(MigrationStatus.POSTCOPY_ACTIVE)
            await self._send_rest(receiver)
            return
        receiver._set_status(MigrationStatus.COMPLETED)
        self._set_status(MigrationStatus.COMPLETED)

    async def _send_rest(self, receiver: FakeGuest) -> None:
        while self._rest_bytes > 0:
            self._rest_done_s += 0.1  # the kernel has it, and it is not there yet
            if not await self._transfer(receiver, 0.1):
                self._set_status(self._status_when_broken)
                return
        receiver._set_status(MigrationStatus.COMPLETED)
        self._set_status(MigrationStatus.COMPLETED)

    async def _send_again(self, receiver: FakeGuest | None) -> None:
        may = receiver is not None and receiver.status == MigrationStatus.POSTCOPY_PAUSED and receiver.key == self.key
        if receiver is None or not may or not await self._transfer(receiver, 0.02):
            self._set_status(MigrationStatus.POSTCOPY_PAUSED)
            return
        receiver._unlisten()
        receiver._set_status(MigrationStatus.POSTCOPY_ACTIVE)
        self._set_status(MigrationStatus.POSTCOPY_ACTIVE)
        await self._send_rest(receiver)

    async def _lose_connection(self) -> None:
        """As the end that it is; the other one hears of it if the link is there."""
        if self._copy is not None and not self._copy.done():
            self._copy.cancel()
            with suppress(asyncio.CancelledError):
                await self._copy
        if self.status != MigrationStatus.POSTCOPY_PAUSED:
            self._set_status(self._status_when_broken)
        receiver = self._receiver
        if receiver is not None and self._world.links_up and receiver.status == MigrationStatus.POSTCOPY_ACTIVE:
            receiver._set_status(MigrationStatus.POSTCOPY_PAUSED)

    @property
    def _status_when_broken(self) -> MigrationStatus:
        """It gives up for good when it has sent all, and waits for the target's last word."""
        has_sent_all = self.status == MigrationStatus.POSTCOPY_ACTIVE and self._rest_bytes == 0 and self._goes_over
        return MigrationStatus.FAILED if has_sent_all else MigrationStatus.POSTCOPY_PAUSED

    @property
    def _rest_bytes(self) -> int:
        return max(0, round((self._world.rest_s - self._rest_done_s) * 1e8))

    @property
    def _hot_bytes(self) -> int:
        """What it changes in each pass now."""
        is_calm = self.run_state is not RunState.RUNNING or self.throttle_percent >= self._world.calm_percent
        return 0 if is_calm else self._world.hot_bytes

    async def _transfer(self, receiver: FakeGuest, seconds: float) -> bool:
        """Whether the receiver was there to the end; a cut link makes it wait for ever."""
        passed = 0.0
        while passed < seconds:
            await asyncio.sleep(0.01)
            if receiver.is_gone:
                return False
            if self._world.links_up:
                passed += 0.01
        return True

    async def _end_copy(self, status: MigrationStatus) -> None:
        was_stopped = self.run_state is RunState.SENT
        self._set_status(status)
        if self._receiver is not None and self._world.links_up and not self._receiver.is_gone:
            self._receiver._set_status(MigrationStatus.FAILED)
        if was_stopped:
            # As QEMU does by itself when a migration fails before it is complete.
            self.run_state = RunState.PAUSED
            if self._ran:
                await self.resume()

    def _set_status(self, status: str) -> None:
        self.status = status
        self._emit(GuestEventKind.MIGRATION, status=str(status))


class FakeEngine:
    """Starts guests that are only objects. See `ldoms.hypervisor.engine.Engine`."""

    def __init__(self, world: FakeWorld | None = None, facts: HypervisorFacts = FACTS) -> None:
        self.facts = facts
        self.world = world or FakeWorld()
        self.guests: dict[str, FakeGuest] = {}
        self.trials: list[FakeGuest] = []
        self.control: ControlPlacement | None = None

    async def start(self, spec: GuestSpec) -> FakeGuest:
        """Make a guest, stopped."""
        known = self.guests.get(spec.uuid)
        if known is not None and not known.is_gone:
            raise HostError(f"LDom {spec.name} has a QEMU already", code="already-running")
        guest = FakeGuest(spec, self.world)
        self.guests[spec.uuid] = guest
        return guest

    async def start_trial(self, spec: TrialSpec) -> FakeGuest:
        """Make one end of a trial."""
        machine = Machine("none", "tcg", CpuModel("none"), FACTS.version)
        placement = Placement(())
        guest = FakeGuest(
            GuestSpec(
                spec.uuid, "trial", spec.directory, machine, 0, spec.memory_mib, placement, incoming=spec.incoming
            ),
            self.world,
        )
        self.trials.append(guest)
        return guest

    async def attach(self, uuid: str, name: str, directory: Path) -> FakeGuest | None:
        """Find a guest again."""
        guest = self.guests.get(uuid)
        return guest if guest is not None and not guest.is_gone else None

    async def place_control(self, placement: ControlPlacement) -> None:
        """Note it."""
        self.control = placement

    def resolve_cpu(self, arch: str) -> tuple[str, tuple[str, ...]]:
        """A CPU with three features."""
        return "qemu64-v1", ("lm", "nx", "sse2")

    async def close(self) -> None:
        """Nothing to let go of."""
