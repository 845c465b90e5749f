"""An engine without QEMU, for unit tests: guests are objects, their memory is a number, time is the event loop's.

All fake engines of one `FakeWorld` reach each other, and the world watches the one rule that matters: whenever two
guests with the same UUID run at the same time, it is written down in `FakeWorld.doubles`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from ldoms.hypervisor.engine import (
    AddedMemory,
    ControlPlacement,
    DeviceSpec,
    DiskSpec,
    DiskState,
    GuestEvent,
    GuestEventKind,
    GuestSpec,
    GuestVcpu,
    MigrationEnd,
    MigrationStatus,
    NetworkSpec,
    Placement,
    PowerWish,
    RunState,
)
from ldoms.model.errors import HostError
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
    migration_capabilities=("auto-converge", "events", "multifd", "pause-before-switchover", "return-path"),
    compressions=("none", "zstd"),
)


@dataclass
class FakeWorld:
    """What the fakes of one test share.

    Attributes:
        copy_s: how long the first pass takes; each later one takes a tenth.
        passes: before the source is ready to switch over.
        doubles: UUIDs of guests that ran twice at once.
        links_up: migration data flows.
    """

    copy_s: float = 1.0
    passes: int = 3
    doubles: list[str] = field(default_factory=list)
    links_up: bool = True
    listeners: dict[tuple[str, int], FakeGuest] = field(default_factory=dict)
    guests: list[FakeGuest] = field(default_factory=list)

    def running(self, uuid: str) -> list[FakeGuest]:
        """The guests with that UUID that run, anywhere."""
        return [guest for guest in self.guests if guest.uuid == uuid and guest.run_state is RunState.RUNNING]


class FakeAddedMemory:
    """Memory beyond what a guest was started with.

    Attributes:
        size_mib: that the guest has taken.
        requested_mib: that it is asked to have.
        step_mib: that it takes or gives back each time that somebody looks; 0 = it does not obey.
        least_mib: that it cannot give back.
    """

    def __init__(self, spec: GuestSpec) -> None:
        self._spec = spec
        self.size_mib = 0
        self.requested_mib = spec.added_memory_mib
        self.step_mib = 1 << 20
        self.least_mib = 0

    def look(self, *, runs: bool) -> AddedMemory | None:
        """Go a step towards what was asked, if the guest runs."""
        if not self._spec.memory_room_mib:
            return None
        if runs:
            wanted = max(self.requested_mib, min(self.least_mib, self.size_mib))
            self.size_mib += max(-self.step_mib, min(self.step_mib, wanted - self.size_mib))
        return AddedMemory(4096, self.size_mib, self.requested_mib, self._spec.memory_room_mib)

    def request(self, size_mib: int) -> None:
        """Note the wish."""
        if size_mib > self._spec.memory_room_mib:
            raise HostError("qom-set: QEMU says: more than the maximum", code="qemu-refused")
        self.requested_mib = size_mib


class FakeAgent:
    """A guest agent.

    Attributes:
        error_s: what the guest's clock is off.
        is_there: it answers.
        obeys: the guest does what it is asked to.
        told: what its users have been told.
        busy: virtual CPUs that cannot be taken offline now.
    """

    def __init__(self, guest: FakeGuest) -> None:
        self.error_s = 0.0
        self.is_there = True
        self.obeys = False
        self.told: list[str] = []
        self.busy: set[int] = set()
        self._guest = guest

    async def clock(self) -> float:
        """The host's time, and what the guest's is off."""
        return time.time() + self.error_s

    async def set_clock(self, at: float) -> None:
        """Set the guest's clock."""
        self.error_s = at - time.time()

    async def vcpus(self) -> tuple[GuestVcpu, ...]:
        """The virtual CPUs of the guest; the first one is fixed."""
        self._check()
        return tuple(
            GuestVcpu(vid, online=vid not in self._guest.offline, fixed=vid == 0) for vid in range(self._guest.vcpus)
        )

    async def set_vcpus(self, vids: Sequence[int], *, online: bool) -> None:
        """Bring virtual CPUs online or take them offline, up to the first one that cannot be."""
        self._check()
        for number, vid in enumerate(vids):
            if not 0 <= vid < self._guest.vcpus or (not online and (vid == 0 or vid in self.busy)):
                if number == 0:
                    raise HostError(f"guest-set-vcpus: the guest agent says: CPU {vid}", code="agent-refused")
                return
            if online:
                self._guest.offline.discard(vid)
                self._guest.started.add(vid)
            else:
                self._guest.offline.add(vid)

    async def ping(self) -> bool:
        """Whether it answers."""
        return self.is_there

    async def shut_down(self, wish: PowerWish = PowerWish.OFF) -> None:
        """Accept the wish; what comes of it is the guest's business: see `obeys`."""
        self._check()
        if self.obeys and wish is PowerWish.OFF:
            await self._guest.press_power_button()
        elif self.obeys:
            await self._guest.reset()

    async def switch_off(self) -> None:
        """It obeys, also when it does not obey otherwise."""
        self._check()
        await self._guest.press_power_button()

    async def tell(self, text: str) -> None:
        """Keep it."""
        self._check()
        self.told.append(text)

    async def system(self) -> str:
        """A system."""
        self._check()
        return "Fake OS 1"

    def _check(self) -> None:
        if not self.is_there:
            raise HostError("the guest agent does not answer", code="no-agent")


class FakeGuest:
    """A guest that is only an object. See `ldoms.hypervisor.engine.Guest`.

    Attributes:
        vcpus: plugged into its machine.
        offline: those that the guest does not use.
        started: those that it has begun to use.
        wakes_vcpus: it brings new ones online by itself.
        keeps_vcpus: it does not let go of one.
    """

    def __init__(self, spec: GuestSpec, world: FakeWorld) -> None:
        self.uuid = spec.uuid
        self.spec = spec
        self.console = spec.directory / "console.sock"
        self.agent = FakeAgent(self)
        self.vcpus = spec.vcpus
        self.offline: set[int] = set()
        self.started = set(range(spec.vcpus))
        self.wakes_vcpus = False
        self.keeps_vcpus = False
        self.run_state = RunState.INCOMING if spec.incoming else RunState.PAUSED
        self.status: str = MigrationStatus.NONE
        self.plan: MigrationPlan | None = None
        self.key = ""
        self.memory = 0
        self.added = FakeAddedMemory(spec)
        self.hangs = False
        self.passes = 0
        self.announced = 0
        self.breaks = 0
        self.links: dict[str, bool] = {}
        self.placement = spec.placement
        self.refuses_to_run = False
        self.interrupted = 0
        self.ignores_nmi = False
        self.has_booted = True
        self.load = 0.0
        """Of each virtual CPU, between 0 and 1."""
        self.plugged: dict[str, DeviceSpec] = {disk.device: disk for disk in spec.disks}
        self.plugged |= {network.device: network for network in spec.networks}
        self.held: set[str] = set()
        """Devices that it does not let go when it is asked to."""
        self.broken: set[Path] = set()
        """Back ends that cannot be opened."""
        self.failed: set[Path | None] = set()
        """Back ends whose requests fail."""
        self._kept: dict[str, DiskSpec] = {}
        self._is_dead = False
        self._world = world
        self._gone = asyncio.Event()
        self._queues: set[asyncio.Queue[GuestEvent]] = set()
        self._address: tuple[str, int] | None = None
        self._copy: asyncio.Task[None] | None = None
        self._receiver: FakeGuest | None = None
        self._switch = asyncio.Event()
        world.guests.append(self)

    @property
    def is_gone(self) -> bool:
        """Whether it has ended."""
        return self._gone.is_set()

    @contextmanager
    def events(self) -> Iterator[asyncio.Queue[GuestEvent]]:
        """Subscribe to what it reports from now on."""
        queue: asyncio.Queue[GuestEvent] = asyncio.Queue()
        self._queues.add(queue)
        if self.is_gone:
            queue.put_nowait(GuestEvent(GuestEventKind.GONE, self._now()))
        try:
            yield queue
        finally:
            self._queues.discard(queue)

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
        """Write something."""
        await self._answer()
        progress(50)
        try:
            path.write_text(f"core of {self.spec.name}: {self.memory}\n")
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
        self.die()

    async def wait_gone(self) -> None:
        """Return when it has ended."""
        await self._gone.wait()

    async def place(self, placement: Placement) -> None:
        """Note where it should run."""
        await self._answer()
        assert len(placement.vcpus) == self.vcpus, "every virtual CPU has a place"
        self.placement = placement

    async def set_link(self, device: str, *, up: bool) -> None:
        """Note it."""
        await self._answer()
        if not isinstance(self.plugged.get(device), NetworkSpec):
            raise HostError(f"set_link on LDom {self.spec.name}: QEMU says: no {device}", code="qemu-refused")
        self.links[device] = up

    def cpu_seconds(self) -> tuple[float, ...]:
        """As much as its `load` says, which is the same since the beginning of time."""
        return (self.load * asyncio.get_running_loop().time(),) * self.vcpus

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

    # Devices

    @property
    def layout(self) -> tuple[int, frozenset[tuple[str, int]]]:
        """What must be the same on both ends of a migration: root ports, and which device is behind which."""
        ports = frozenset((device.device, device.port) for device in self.plugged.values())
        return max(self.spec.machine.root_ports, *(port + 1 for _, port in ports), 0), ports

    async def devices(self) -> frozenset[str]:
        """Its disks and network interfaces."""
        await self._answer()
        return frozenset(self.plugged)

    async def plug(self, device: DeviceSpec) -> None:
        """Give it a device."""
        await self._answer()
        if device.device in self.plugged:
            raise HostError(f"LDom {self.spec.name} has a device {device.device} already", code="device-taken")
        root_ports, taken = self.layout
        if not device.port < root_ports or device.port in {port for _, port in taken}:
            raise HostError(f"device_add: QEMU says: no bus port{device.port} is free", code="qemu-refused")
        if isinstance(device, DiskSpec) and device.path in self.broken:
            raise HostError(f"blockdev-add: QEMU says: Could not open {device.path}", code="qemu-refused")
        self.plugged[device.device] = device

    async def unplug(self, device: str, limit_s: float) -> None:
        """Take a device away, unless the guest holds it."""
        await self._answer()
        if device not in self.plugged:
            raise HostError(f"device_del: QEMU says: Device {device} not found", code="qemu-refused")
        if device in self.held or self.run_state is not RunState.RUNNING:
            await asyncio.sleep(limit_s)
            raise HostError(f"the guest of LDom {self.spec.name} has not let go of {device}", code="device-held")
        self.let_go(device)
        await asyncio.sleep(0)

    async def disks(self) -> Mapping[str, DiskState]:
        """How each of its disks does."""
        await self._answer()
        disks = [device for device in self.plugged.values() if isinstance(device, DiskSpec)]
        return {
            disk.device: DiskState(disk.path, disk.path in self.failed, disk.direct and disk.path is not None)
            for disk in disks
        }

    async def cut_disk(self, device: str, *, close: bool = True) -> None:
        """Nothing is behind it any more."""
        await self._answer()
        disk = self._disk(device)
        if not close and disk.path is not None:
            self._kept[device] = disk
        if close:
            self._kept.pop(device, None)
        self.plugged[device] = replace(disk, path=None)

    async def mend_disk(self, disk: DiskSpec) -> None:
        """Something is behind it again."""
        await self._answer()
        missing = disk.path in self.broken or (disk.path is not None and disk.path.parts[:2] == ("/", "nowhere"))
        if missing and disk.device not in self._kept:
            raise HostError(f"blockdev-add: QEMU says: Could not open {disk.path}", code="qemu-refused")
        self._disk(disk.device)
        self.plugged[disk.device] = self._kept.pop(disk.device, disk)

    def fail(self, path: Path) -> None:
        """Have every request for what is at `path` fail; the guest does one at once."""
        self.broken.add(path)
        self.failed.add(path)
        self._stall()

    def recover(self, path: Path) -> None:
        """What is at `path` works again."""
        self.broken.discard(path)
        self.failed.discard(path)

    def _stall(self) -> None:
        behind = {device.path for device in self.plugged.values() if isinstance(device, DiskSpec)}
        if self.run_state is RunState.RUNNING and self.failed & behind:
            self.run_state = RunState.STALLED
            self._emit(GuestEventKind.DISK_FAILED, reason="Input/output error")
            self._emit(GuestEventKind.STOPPED)

    def _disk(self, device: str) -> DiskSpec:
        disk = self.plugged[device]
        assert isinstance(disk, DiskSpec)
        return disk

    def let_go(self, device: str) -> None:
        """Let a device go, perhaps long after it was asked to."""
        self.held.discard(device)
        del self.plugged[device]
        self._emit(GuestEventKind.DEVICE_GONE, device=device)

    async def added_memory(self) -> AddedMemory | None:
        """What it has beyond the memory that it was started with."""
        await self._answer()
        return self.added.look(runs=self.run_state is RunState.RUNNING)

    async def request_memory(self, size_mib: int) -> None:
        """Note the wish."""
        await self._answer()
        self.added.request(size_mib)

    def die(self, noticed_after_s: float = 0.0) -> None:
        """End as a killed process does: it answers no more at once, and is known to be gone somewhat later."""
        self.run_state = RunState.CRASHED
        self._is_dead = True
        if noticed_after_s:
            asyncio.get_running_loop().call_later(noticed_after_s, self._be_gone)
        else:
            self._be_gone()

    def _be_gone(self) -> None:
        if self.is_gone:
            return
        self._gone.set()
        if self._copy is not None:
            self._copy.cancel()
        if self._address is not None:
            self._world.listeners.pop(self._address, None)
        self._emit(GuestEventKind.GONE)

    # Migration

    async def set_migration(self, end: MigrationEnd, plan: MigrationPlan, key: str) -> None:
        """Take the plan."""
        await self._answer()
        missing = set(plan.capabilities) - set(FACTS.migration_capabilities)
        if missing:
            raise HostError(f"QEMU has no migration capability {sorted(missing)}", code="qemu-refused")
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
        if self._copy is not None and not self._copy.done():
            self._copy.cancel()
            with suppress(asyncio.CancelledError):
                await self._copy
            await self._end_copy(MigrationStatus.CANCELLED)

    async def cut_migration(self) -> None:
        """Break the connection."""
        if self._copy is not None and not self._copy.done():
            self._copy.cancel()
            with suppress(asyncio.CancelledError):
                await self._copy
            await self._end_copy(MigrationStatus.FAILED)

    async def progress(self) -> Progress:
        """How far it is."""
        await self._answer()
        total = self.spec.memory_mib << 20
        done = min(self.passes, self._world.passes) * total // self._world.passes
        return Progress(
            status=self.status,
            passes=self.passes,
            total_bytes=total,
            transferred_bytes=done,
            remaining_bytes=total - done,
            bandwidth_bytes_s=1e9,
            downtime_s=0.03 if self.status == MigrationStatus.COMPLETED else 0.0,
        )

    async def set_downtime_limit(self, seconds: float) -> None:
        """Note it."""
        await self._answer()

    async def announce(self) -> None:
        """Count it."""
        await self._answer()
        self.announced += 1

    # Inside

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
        for number in range(1, self._world.passes + 1):
            self.passes = number
            self._emit(GuestEventKind.MIGRATION_PASS, **{"pass": number})
            if not await self._transfer(receiver, self._world.copy_s if number == 1 else self._world.copy_s / 10):
                await self._end_copy(MigrationStatus.FAILED)
                return
        self.run_state = RunState.SENT
        self._emit(GuestEventKind.STOPPED)
        if self.plan is not None and "pause-before-switchover" in self.plan.capabilities:
            self._set_status(MigrationStatus.PRE_SWITCHOVER)
            await self._switch.wait()
        self._set_status("device")
        if not await self._transfer(receiver, 0.02):
            await self._end_copy(MigrationStatus.FAILED)
            return
        receiver.memory = self.memory
        receiver.added.size_mib, receiver.added.requested_mib = self.added.size_mib, self.added.requested_mib
        receiver.offline, receiver.started = set(self.offline), set(self.started)
        receiver.run_state = RunState.PAUSED
        receiver._set_status(MigrationStatus.COMPLETED)
        self._set_status(MigrationStatus.COMPLETED)

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
            await self.resume()

    def _set_status(self, status: str) -> None:
        self.status = status
        self._emit(GuestEventKind.MIGRATION, status=str(status))

    def _emit(self, kind: GuestEventKind, **data: object) -> None:
        for queue in self._queues:
            queue.put_nowait(GuestEvent(kind, self._now(), data))

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        if self._is_dead:
            raise HostError(f"the connection to the QEMU of LDom {self.spec.name} was lost", code="qemu-gone")
        if self.hangs:
            await asyncio.sleep(5)
            raise HostError(f"LDom {self.spec.name}: QEMU did not answer in time", code="qemu-silent")

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


class FakeEngine:
    """Starts guests that are only objects. See `ldoms.hypervisor.engine.Engine`."""

    def __init__(self, world: FakeWorld | None = None, facts: HypervisorFacts = FACTS) -> None:
        self.facts = facts
        self.world = world or FakeWorld()
        self.guests: dict[str, FakeGuest] = {}
        self.control: ControlPlacement | None = None

    async def start(self, spec: GuestSpec) -> FakeGuest:
        """Make a guest, stopped."""
        known = self.guests.get(spec.uuid)
        if known is not None and not known.is_gone:
            raise HostError(f"LDom {spec.name} has a QEMU already", code="already-running")
        guest = FakeGuest(spec, self.world)
        self.guests[spec.uuid] = guest
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
