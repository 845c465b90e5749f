"""A guest in a QEMU process: followed, asked and told through its monitor."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import structlog
from qemu.qmp import Message

from ldoms.hypervisor.agent import QemuAgent
from ldoms.hypervisor.command_line import (
    ADDED_MEMORY,
    AGENT_SOCKET,
    CONSOLE,
    CONSOLE_SOCKET,
    LOG_FILE,
    QMP_SOCKET,
)
from ldoms.hypervisor.confinement import Confinement, set_affinity
from ldoms.hypervisor.devices import Devices
from ldoms.hypervisor.image_locks import as_locked
from ldoms.hypervisor.process import Process
from ldoms.hypervisor.qemu_dump import QemuDump
from ldoms.hypervisor.qemu_memory import QemuMemory
from ldoms.hypervisor.qemu_migration import QemuMigration
from ldoms.hypervisor.qemu_mirrors import QemuMirrors
from ldoms.hypervisor.qemu_vcpus import QemuVcpus
from ldoms.hypervisor.qmp import CONNECT_S, SLOW_S, Monitor
from ldoms.hypervisor.specs import ControlPlacement, DeviceSpec, DiskSpec, Placement
from ldoms.hypervisor.states import (
    AddedMemory,
    DiskState,
    GuestEvent,
    GuestEventKind,
    MigrationEnd,
    MirrorState,
    RunState,
)
from ldoms.model.errors import HostError
from ldoms.model.forecast import MemoryUse
from ldoms.model.migration import MigrationPlan, Progress
from ldoms.model.sizes import MIB

_log = structlog.get_logger(__name__)

FIND_S = 10.0
"""How long a QEMU that was found may take to answer, before its guest is taken for silent."""
SILENT_RETRY_S = 1.0
"""Between two tries to reach a silent one."""
BOOT_FAULT = "iotlb_to_section: Assertion"
"""With several virtual CPUs TCG may end so while the firmware sets up the memory map (QEMU's issue 1921)."""
QUIT_S = 5.0
CONTROL_GROUP = "primary"

_RUN_STATES = {
    "running": RunState.RUNNING,
    "inmigrate": RunState.INCOMING,
    "postmigrate": RunState.SENT,
    "finish-migrate": RunState.SENT,
    "shutdown": RunState.SHUT_DOWN,
    "guest-panicked": RunState.CRASHED,
    "internal-error": RunState.CRASHED,
    "io-error": RunState.STALLED,
}

_EVENTS = {
    "STOP": GuestEventKind.STOPPED,
    "RESUME": GuestEventKind.RESUMED,
    "RESET": GuestEventKind.RESET,
    "SHUTDOWN": GuestEventKind.SHUT_DOWN,
    "GUEST_PANICKED": GuestEventKind.PANICKED,
    "MIGRATION": GuestEventKind.MIGRATION,
    "MIGRATION_PASS": GuestEventKind.MIGRATION_PASS,
}

_DEVICE_EVENTS = frozenset({"DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR"})

# What `-msg timestamp=on` and QEMU's own name put in front of a message.
_LOG_PREFIX = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z (qemu-system-\w+: )?")
_ERROR = re.compile(r"^\S+Z qemu-system-\w+: (?!warning: |info: )")


class QemuGuest:
    """A guest in a QEMU process. See `ldoms.hypervisor.engine.Guest` for the promises."""

    def __init__(self, uuid: str, name: str, directory: Path, process: Process, confinement: Confinement) -> None:
        """Follow `process`; call `connect` before anything else."""
        self.uuid = uuid
        self.name = name
        self.directory = directory
        self.agent = QemuAgent(directory / AGENT_SOCKET, name)
        self.console = directory / CONSOLE_SOCKET
        self._process = process
        self._confinement = confinement
        self._monitor = Monitor(name, self._on_event)
        self._devices = Devices(name, self._monitor, self._on_device_gone)
        self._listeners: set[asyncio.Queue[GuestEvent]] = set()
        self._supervisor: asyncio.Task[None] | None = None
        self._reaching: asyncio.Task[None] | None = None
        self._vcpus = QemuVcpus(name, self._monitor)
        self._memory = QemuMemory(name, self._monitor, process.pid)
        self._dump = QemuDump(name, directory, self._monitor)
        self._migration = QemuMigration(name, directory, self._monitor, process.break_connections)
        self._mirrors = QemuMirrors(name, self._monitor, process.break_connections)

    async def connect(self, limit_s: float = CONNECT_S) -> None:
        """Connect to QEMU's monitor and learn its threads.

        Raises:
            HostError: QEMU ended, or does not answer; its log says why.
        """
        if not await self._monitor.connect(self.directory / QMP_SOCKET, self._process.gone, limit_s):
            said = f"LDom {self.name} cannot be started: QEMU says: {self._last_words()}"
            raise as_locked(HostError(said, code="qemu-refused"), self.name)
        await self._vcpus.learn_threads()
        self._supervisor = asyncio.create_task(self._supervise(), name=f"supervise-{self.name}")

    async def find(self, on_answer: Callable[[], None]) -> bool:
        """The same for a QEMU that an earlier manager has started; one that lives and is silent is followed as well.

        Args:
            on_answer: called when it has answered, be it much later.

        Returns:
            False if it has ended.
        """
        try:
            await self.connect(FIND_S)
        except HostError as error:
            if self.is_gone:
                return False
            _log.error("qemu-silent", domain=self.name, pid=self._process.pid, reason=error.message)
            self._reaching = asyncio.create_task(self._reach(on_answer), name=f"reach-{self.name}")
            self._supervisor = asyncio.create_task(self._supervise(), name=f"supervise-{self.name}")
            return True
        on_answer()
        return True

    @property
    def is_gone(self) -> bool:
        """Whether its process has ended."""
        return self._process.gone.is_set()

    @property
    def is_silent(self) -> bool:
        """Whether it has never answered yet, so that nobody knows its threads."""
        return not self._vcpus.threads

    @contextmanager
    def events(self) -> Iterator[asyncio.Queue[GuestEvent]]:
        """Subscribe to what it reports from now on."""
        queue: asyncio.Queue[GuestEvent] = asyncio.Queue()
        self._listeners.add(queue)
        if self.is_gone:
            queue.put_nowait(GuestEvent(GuestEventKind.GONE, time.time()))
        try:
            yield queue
        finally:
            self._listeners.discard(queue)

    async def state(self) -> RunState:
        """What it does."""
        answer = await self._monitor.execute("query-status")
        return _RUN_STATES.get(answer["status"], RunState.PAUSED)

    async def resume(self) -> float:
        """Let it run; the host's clock when it did."""
        with self.events() as events:
            await self._monitor.execute("cont", limit_s=SLOW_S)
            # QEMU answers when its virtual CPUs let it; it has said before when they began.
            while not events.empty():
                event = events.get_nowait()
                if event.kind is GuestEventKind.RESUMED:
                    return event.at
        return time.time()

    async def pause(self) -> None:
        """Stop its virtual CPUs."""
        await self._monitor.execute("stop", limit_s=SLOW_S)

    async def press_power_button(self) -> None:
        """Ask it to shut down, through ACPI."""
        await self._monitor.execute("system_powerdown")

    async def reset(self) -> None:
        """Restart it as the reset button does."""
        await self._monitor.execute("system_reset")

    async def inject_nmi(self) -> None:
        """Interrupt it in a way that it cannot mask."""
        await self._monitor.execute("inject-nmi")

    async def dump(self, path: Path, progress: Callable[[int], None]) -> None:
        """Write its memory to a file for a debugger."""
        await self._dump.write(path, progress)

    async def has_agent(self) -> bool:
        """Whether something in the guest has opened the agent's channel."""
        answer = await self._monitor.execute("query-chardev")
        return any(entry["label"] == "agent" and entry["frontend-open"] for entry in answer)

    async def has_driver(self) -> bool:
        """Whether a driver of the guest has taken over one of its virtual devices."""
        for device in ("balloon", "rng"):
            path = f"/machine/peripheral/{device}/virtio-backend"
            try:
                answer = await self._monitor.execute("x-query-virtio-status", {"path": path})
            except HostError:
                return True
            if any(word.startswith("VIRTIO_CONFIG_S_DRIVER_OK") for word in answer["status"]["statuses"]):
                return True
        return False

    async def send_break(self) -> None:
        """Send a break on its serial line."""
        await self._monitor.execute("chardev-send-break", {"id": CONSOLE})

    async def quit(self) -> None:
        """End the process at once, and return when it is gone."""
        with suppress(HostError):
            await self._monitor.execute("quit", limit_s=QUIT_S)
        try:
            async with asyncio.timeout(QUIT_S):
                await self._process.gone.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.gone.wait()
        await self.release()

    async def wait_gone(self) -> None:
        """Return when the process has ended."""
        await self._process.gone.wait()

    async def release(self) -> None:
        """Let go of it: it goes on if it runs; what it leaves behind is removed if it has ended."""
        self._devices.close()
        if self._reaching is not None:
            self._reaching.cancel()
            await asyncio.gather(self._reaching, return_exceptions=True)
        await self._monitor.close()
        if self._supervisor is not None and not self.is_gone:
            self._supervisor.cancel()
        if self.is_gone:
            self._confinement.remove_group(self.uuid)
        self._process.close()

    async def place(self, placement: Placement) -> None:
        """Move its virtual CPUs to the given host CPUs."""
        if self.is_silent:
            raise HostError(f"the QEMU of LDom {self.name} does not answer", code="qemu-silent")
        for thread, cpus in zip(self._vcpus.threads, placement.vcpus, strict=True):
            set_affinity([thread], cpus)
        self._confinement.set_group(self.uuid, placement.vcpu_quota, placement.share)
        self._confinement.add_threads(self.uuid, self._vcpus.threads)

    def place_control(self, placement: ControlPlacement) -> None:
        """Move everything but its virtual CPUs to the control domain's CPUs."""
        threads = self._process.thread_times().keys() - set(self._vcpus.threads)
        set_affinity(threads, placement.cpus)
        self._confinement.add_threads(CONTROL_GROUP, threads)

    def cpu_seconds(self) -> tuple[float, ...]:
        """CPU time that each virtual CPU has used so far."""
        times = self._process.thread_times()
        return tuple(times.get(thread, 0.0) for thread in self._vcpus.threads)

    def cpu_wait_seconds(self) -> tuple[float, ...]:
        """For how long each of them has wanted a CPU of the host so far, and had none."""
        return tuple(self._process.thread_wait_s(thread) for thread in self._vcpus.threads)

    # Virtual CPUs

    async def count_vcpus(self) -> int:
        """How many virtual CPUs its machine has."""
        return await self._vcpus.count()

    async def plug_vcpu(self) -> int:
        """Give its machine the next virtual CPU; its number."""
        return await self._vcpus.plug()

    async def unplug_vcpu(self, limit_s: float) -> bool:
        """Take the last virtual CPU out of its machine; False if the guest has not let go of it in time."""
        return await self._vcpus.unplug(limit_s)

    async def has_started(self, vid: int) -> bool:
        """Whether the guest has begun to use a virtual CPU."""
        return await self._vcpus.has_started(vid)

    # Devices

    async def devices(self) -> frozenset[str]:
        """Its disks and network interfaces."""
        return await self._devices.known()

    async def plug(self, device: DeviceSpec) -> None:
        """Give it a device, behind a root port that is free."""
        await self._devices.plug(device)

    async def unplug(self, device: str, limit_s: float) -> None:
        """Ask the guest to let go of a device, and return when its back end is closed, too."""
        await self._devices.unplug(device, limit_s)

    async def set_link(self, device: str, *, up: bool) -> None:
        """Plug the cable of a network interface in, or pull it out."""
        await self._monitor.execute("set_link", {"name": f"{device.replace('@', '')}-device", "up": up})

    async def disks(self) -> Mapping[str, DiskState]:
        """How each of its disks does."""
        return await self._devices.disks()

    async def cut_disk(self, device: str, *, close: bool = True) -> None:
        """Put nothing behind a disk; the guest keeps it, and every request fails."""
        await self._devices.cut(device, close=close)

    async def mend_disk(self, disk: DiskSpec) -> None:
        """Put something behind a disk that was cut."""
        await self._devices.mend(disk)

    # Memory

    async def added_memory(self) -> AddedMemory | None:
        """What it has beyond the memory that it was started with; None if nothing can be added."""
        for device in await self._monitor.execute("query-memory-devices"):
            if device["type"] == "virtio-mem":
                return _added_memory(device["data"])
        return None

    async def request_memory(self, size_mib: int) -> None:
        """Ask it to have so much beyond what it was started with."""
        wanted = {"path": f"/machine/peripheral/{ADDED_MEMORY}", "property": "requested-size", "value": size_mib * MIB}
        await self._monitor.execute("qom-set", wanted)

    async def memory_use(self) -> MemoryUse:
        """How much memory it has, and how much of that is not zero."""
        return await self._memory.use()

    async def dirty_rate(self, window_s: float) -> float:
        """Bytes per second of its memory that it changes."""
        return await self._memory.dirty_rate(window_s)

    # Disks that the other host has not

    async def offer_disks(self, devices: Sequence[str], host: str, port: int) -> None:
        """Let the other host write to disks."""
        await self._mirrors.offer(devices, host, port)

    async def withdraw_disks(self) -> None:
        """The end of that."""
        await self._mirrors.withdraw()

    async def mirror_disks(self, devices: Sequence[str], host: str, port: int, limit_bytes_s: int) -> None:
        """Begin to copy disks to a host that offers to take them."""
        await self._mirrors.begin(devices, host, port, limit_bytes_s)

    async def mirrors(self) -> Mapping[str, MirrorState]:
        """How far the copy of each disk is."""
        return await self._mirrors.states()

    async def limit_mirror(self, device: str, bytes_s: int) -> None:
        """Limit the speed of the copy of one disk."""
        await self._mirrors.limit(device, bytes_s)

    async def tie_mirrors(self) -> None:
        """Have each write of the guest wait until the other host has it."""
        await self._mirrors.tie()

    async def end_mirrors(self, limit_s: float) -> None:
        """End the copies of a guest that stands still."""
        await self._mirrors.end(limit_s)

    async def drop_mirrors(self) -> None:
        """End all copies of disks, however far they are."""
        await self._mirrors.drop()

    # Migration

    async def set_migration(self, end: MigrationEnd, plan: MigrationPlan, key: str) -> None:
        """Set capabilities and parameters, all of them, and read them back."""
        await self._migration.set_up(end, plan, key)

    async def clear_migration(self) -> None:
        """Take back what `set_migration` set, and forget the key."""
        await self._migration.clear()

    async def listen(self, host: str, port: int) -> None:
        """Wait for the memory of another host's guest."""
        await self._migration.listen(host, port)

    async def send(self, host: str, port: int) -> None:
        """Start to send the guest's memory."""
        await self._migration.send(host, port)

    async def continue_switchover(self) -> None:
        """Leave the state ``pre-switchover``: send the rest."""
        await self._migration.continue_switchover()

    async def cancel_migration(self) -> None:
        """Ask for an end of the migration."""
        await self._migration.cancel()

    async def cut_migration(self) -> None:
        """Break the connections of the migration, also when QEMU is blocked on them."""
        await self._migration.cut()

    async def start_postcopy(self) -> None:
        """Go over as soon as can be."""
        await self._migration.start_postcopy()

    async def pause_postcopy(self) -> None:
        """Break the connection of a postcopy."""
        await self._migration.pause_postcopy()

    async def listen_again(self, host: str, port: int) -> None:
        """Wait for the rest of the memory at another place."""
        await self._migration.listen_again(host, port)

    async def send_again(self, host: str, port: int) -> None:
        """Go on sending the rest, over a new connection."""
        await self._migration.send_again(host, port)

    async def progress(self) -> Progress:
        """How far the migration is."""
        return await self._migration.progress()

    def unsent_bytes(self) -> int:
        """What waits in the kernel."""
        return self._process.unsent_bytes()

    def limit_unsent(self, size: int) -> None:
        """Let less wait in the kernel."""
        self._process.limit_unsent(size)

    async def set_downtime_limit(self, seconds: float) -> None:
        """Allow a running migration to suspend the guest for so long."""
        await self._migration.set_downtime_limit(seconds)

    async def set_bandwidth(self, bytes_s: int) -> None:
        """Limit a running migration."""
        await self._migration.set_bandwidth(bytes_s)

    async def throttle(self, percent: int) -> None:
        """Hold the guest back."""
        await self._migration.throttle(percent)

    async def announce(self) -> None:
        """Tell the network where the guest's addresses are now."""
        await self._migration.announce()

    # Inside

    def _last_words(self) -> str:
        with suppress(OSError):
            lines = (self.directory / LOG_FILE).read_text(errors="replace").strip().splitlines()
            # An error may be followed by a hint that says nothing without it.
            errors = [line for line in lines if _ERROR.search(line)]
            if lines:
                return _LOG_PREFIX.sub("", (errors or lines)[-1])
        return "nothing"

    def _on_event(self, message: Message) -> None:
        event = str(message["event"])
        kind = _EVENTS.get(event)
        if event in _DEVICE_EVENTS:
            self._devices.note(event, _event_data(message))
        elif event == "BLOCK_IO_ERROR":
            if _event_data(message)["action"] == "stop":
                reason = {"reason": _event_data(message).get("reason", "")}
                self._emit(GuestEvent(GuestEventKind.DISK_FAILED, _event_time(message), reason))
        elif kind is not None:
            self._emit(GuestEvent(kind, _event_time(message), _event_data(message)))

    def _on_device_gone(self, device: str) -> None:
        self._emit(GuestEvent(GuestEventKind.DEVICE_GONE, time.time(), {"device": device}))

    def _emit(self, event: GuestEvent) -> None:
        for queue in self._listeners:
            queue.put_nowait(event)

    async def _reach(self, on_answer: Callable[[], None]) -> None:
        """Go on trying to reach a QEMU that is silent, until it answers or ends."""
        path, gone = self.directory / QMP_SOCKET, self._process.gone
        try:
            while not gone.is_set():
                with suppress(HostError):
                    if self._monitor.is_open or await self._monitor.connect(path, gone, FIND_S, SILENT_RETRY_S):
                        await self._vcpus.learn_threads()
                        _log.info("qemu-answers", domain=self.name)
                        on_answer()
                        return
                await asyncio.sleep(SILENT_RETRY_S)
        finally:
            if not self._monitor.is_open:
                self._monitor.lost.set()  # nothing was ever said

    async def _supervise(self) -> None:
        await self._process.gone.wait()
        await self._monitor.lost.wait()  # what QEMU said last comes first
        said = self._last_words()
        _log.info("qemu-ended", domain=self.name, status=self._process.status, said=said)
        self._emit(GuestEvent(GuestEventKind.GONE, time.time(), {"boot_fault": BOOT_FAULT in said}))


def _added_memory(device: Mapping[str, Any]) -> AddedMemory:
    return AddedMemory(
        address_mib=device["memaddr"] // MIB,
        size_mib=-(-device["size"] // MIB),
        requested_mib=device["requested-size"] // MIB,
        maximum_mib=device["max-size"] // MIB,
    )


def _event_time(message: Message) -> float:
    stamp = message["timestamp"]
    assert isinstance(stamp, Mapping)
    return float(stamp["seconds"] + stamp["microseconds"] / 1e6)


def _event_data(message: Message) -> Mapping[str, Any]:
    data = message.get("data", {})
    assert isinstance(data, Mapping)
    return data
