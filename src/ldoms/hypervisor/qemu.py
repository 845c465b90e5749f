"""The real engine: each guest is a QEMU process of its own that outlives the manager."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
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
    PID_FILE,
    QMP_SOCKET,
    command_line,
)
from ldoms.hypervisor.confinement import Confinement, set_affinity
from ldoms.hypervisor.devices import Devices
from ldoms.hypervisor.engine import (
    AddedMemory,
    ControlPlacement,
    DeviceSpec,
    DiskSpec,
    DiskState,
    GuestEvent,
    GuestEventKind,
    GuestSpec,
    MigrationEnd,
    MigrationStatus,
    Placement,
    RunState,
)
from ldoms.hypervisor.process import Process
from ldoms.hypervisor.qmp import QUICK_S, SLOW_S, Monitor
from ldoms.model.errors import HostError
from ldoms.model.host import HypervisorFacts
from ldoms.model.migration import MigrationPlan, Progress
from ldoms.model.sizes import MIB

_log = structlog.get_logger(__name__)

START_S = 30.0
QUIT_S = 5.0
HANDSHAKE_S = 3.0
"""The other end of a copy may take so long to agree on TLS. The guest may stand still meanwhile."""
HANDSHAKE_POLL_S = 0.01
DUMP_POLL_S = 0.2
# Those that crash(8) reads as they are, the small one first; the plain "kdump-zlib" needs to be taken apart before.
_CORE_FORMATS = ("kdump-raw-zlib", "elf")
UNPLUG_POLL_S = 0.02
PAGING = 1 << 31
"""Bit of the register CR0 (Intel SDM 3A, 2.5): set by every operating system, not by firmware that waits."""
MAX_SOCKET_PATH = 107
"""Bytes of a Unix socket's path (unix(7))."""
KEYS_DIRECTORY = "keys"
KEY_USER = "ldoms"
TLS_OBJECT = "ldoms-tls"
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
        self._vcpu_threads: tuple[int, ...] = ()

    async def connect(self, limit_s: float = START_S) -> None:
        """Connect to QEMU's monitor and learn its threads.

        Raises:
            HostError: QEMU ended, or does not answer; its log says why.
        """
        if not await self._monitor.connect(self.directory / QMP_SOCKET, self._process.gone, limit_s):
            raise HostError(f"LDom {self.name} cannot be started: QEMU says: {self._last_words()}", code="qemu-refused")
        await self._learn_threads()
        self._supervisor = asyncio.create_task(self._supervise(), name=f"supervise-{self.name}")

    @property
    def is_gone(self) -> bool:
        """Whether its process has ended."""
        return self._process.gone.is_set()

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
        await self._monitor.execute("cont", limit_s=SLOW_S)
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
        known = (await self._monitor.execute("query-dump-guest-memory-capability"))["formats"]
        format = next((name for name in _CORE_FORMATS if name in known), "elf")
        arguments = {"paging": False, "protocol": f"file:{path}", "detach": True, "format": format}
        await self._monitor.execute("dump-guest-memory", arguments, limit_s=SLOW_S)
        while (answer := await self._monitor.execute("query-dump", limit_s=SLOW_S))["status"] == "active":
            progress(100 * answer["completed"] // max(1, answer["total"]))
            await asyncio.sleep(DUMP_POLL_S)
        if answer["status"] != "completed":
            raise HostError(f"the memory of LDom {self.name} cannot be written to {path}", code="no-core")

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
        await self._monitor.close()
        if self._supervisor is not None and not self.is_gone:
            self._supervisor.cancel()
        if self.is_gone:
            self._confinement.remove_group(self.uuid)
        self._process.close()

    async def place(self, placement: Placement) -> None:
        """Move its virtual CPUs to the given host CPUs."""
        for thread, cpus in zip(self._vcpu_threads, placement.vcpus, strict=True):
            set_affinity([thread], cpus)
        self._confinement.set_group(self.uuid, placement.vcpu_quota)
        self._confinement.add_threads(self.uuid, self._vcpu_threads)

    def place_control(self, placement: ControlPlacement) -> None:
        """Move everything but its virtual CPUs to the control domain's CPUs."""
        threads = self._process.thread_times().keys() - set(self._vcpu_threads)
        set_affinity(threads, placement.cpus)
        self._confinement.add_threads(CONTROL_GROUP, threads)

    def cpu_seconds(self) -> tuple[float, ...]:
        """CPU time that each virtual CPU has used so far."""
        times = self._process.thread_times()
        return tuple(times.get(thread, 0.0) for thread in self._vcpu_threads)

    # Virtual CPUs

    async def count_vcpus(self) -> int:
        """How many virtual CPUs its machine has."""
        return len(await self._monitor.execute("query-cpus-fast"))

    async def plug_vcpu(self) -> int:
        """Give its machine the next virtual CPU; its number."""
        free = [socket for socket in await self._sockets() if "qom-path" not in socket]
        if not free:
            raise HostError(f"the machine of LDom {self.name} has no place for another virtual CPU", code="no-socket")
        vid = _vid(free[0])
        await self._monitor.execute("device_add", {"driver": free[0]["type"], "id": f"vcpu{vid}", **free[0]["props"]})
        await self._learn_threads()
        return vid

    async def unplug_vcpu(self, limit_s: float) -> bool:
        """Take the last virtual CPU out of its machine; False if the guest has not let go of it in time."""
        # DEVICE_DELETED does not say which virtual CPU has gone: the sockets do.
        vid = await self.count_vcpus() - 1
        (path,) = [socket["qom-path"] for socket in await self._sockets() if _vid(socket) == vid]
        try:
            await self._monitor.execute("device_del", {"id": path})
        except HostError as error:
            if "already in the process of unplug" not in error.message:
                raise
        clock = asyncio.get_running_loop().time
        deadline = clock() + limit_s
        while clock() < deadline:
            if any(_vid(socket) == vid and "qom-path" not in socket for socket in await self._sockets()):
                await self._learn_threads()
                return True
            await asyncio.sleep(UNPLUG_POLL_S)
        return False

    async def has_started(self, vid: int) -> bool:
        """Whether the guest has begun to use a virtual CPU."""
        # No command of QMP tells it. A CPU begins in real mode, and only an operating system leaves that for good.
        registers = await self._monitor.execute(
            "human-monitor-command", {"command-line": "info registers", "cpu-index": vid}
        )
        found = re.search(r"\bCR0=([0-9a-f]+)", registers)
        return found is not None and bool(int(found[1], 16) & PAGING)

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

    # Migration

    async def set_migration(self, end: MigrationEnd, plan: MigrationPlan, key: str) -> None:
        """Set capabilities and parameters, all of them, and read them back."""
        await self._set_capabilities(plan.capabilities)
        if plan.encrypted:
            await self._add_key(end, plan.cipher, key)
        wanted = _parameters(plan)
        await self._monitor.execute("migrate-set-parameters", wanted)
        await self._read_back(plan, wanted)

    async def clear_migration(self) -> None:
        """Take back what `set_migration` set, and forget the key."""
        # What one attempt sets stays set in QEMU for the next.
        with suppress(HostError):
            await self._monitor.execute("migrate-set-parameters", {"tls-creds": ""})
        with suppress(HostError):
            await self._monitor.execute("object-del", {"id": TLS_OBJECT})
        with suppress(HostError):
            await self._set_capabilities(())
        self._forget_key()

    async def listen(self, host: str, port: int) -> None:
        """Wait for the memory of another host's guest."""
        try:
            await self._monitor.execute(
                # With exit-on-error a failed copy would end the process before we can ask it why.
                "migrate-incoming",
                {"channels": _channels(host, port), "exit-on-error": False},
                limit_s=SLOW_S,
            )
        except HostError as error:
            if "already in use" in error.message:
                raise HostError(f"port {port} is taken by another process", code="port-taken") from error
            raise

    async def send(self, host: str, port: int) -> None:
        """Start to send the guest's memory."""
        await self._monitor.execute("migrate", {"channels": _channels(host, port)}, limit_s=SLOW_S)
        await self._watch_handshake()

    async def continue_switchover(self) -> None:
        """Leave the state ``pre-switchover``: send the rest."""
        await self._monitor.execute("migrate-continue", {"state": "pre-switchover"}, limit_s=QUICK_S)

    async def cancel_migration(self) -> None:
        """Ask for an end of the migration."""
        await self._monitor.execute("migrate_cancel", limit_s=QUICK_S)

    async def cut_migration(self) -> None:
        """Break the connections of the migration, also when QEMU is blocked on them."""
        # From outside: QEMU's own `yank` knows a connection only once TLS has been agreed on. There are no others.
        self._process.break_connections()

    async def progress(self) -> Progress:
        """How far the migration is."""
        return _progress(await self._monitor.execute("query-migrate"))

    async def set_downtime_limit(self, seconds: float) -> None:
        """Allow a running migration to suspend the guest for so long."""
        await self._monitor.execute("migrate-set-parameters", {"downtime-limit": round(seconds * 1000)})

    async def announce(self) -> None:
        """Tell the network where the guest's addresses are now."""
        await self._monitor.execute("announce-self", {"initial": 50, "max": 550, "rounds": 5, "step": 100})

    # Inside

    async def _watch_handshake(self) -> None:
        # QEMU agrees on TLS in its main loop, and waits there for the other end; soon its virtual CPUs wait as well.
        clock = asyncio.get_running_loop().time
        deadline = clock() + HANDSHAKE_S
        try:
            while clock() < deadline:
                answer = await self._monitor.execute("query-migrate", limit_s=HANDSHAKE_S)
                if answer.get("status") not in (MigrationStatus.NONE, MigrationStatus.SETUP):
                    return
                await asyncio.sleep(HANDSHAKE_POLL_S)
        except HostError as error:
            if error.code == "qemu-silent":
                await self.cut_migration()
                raise HostError(
                    "the target has taken the connection for the memory and says nothing on it", code="target-mute"
                ) from error
            raise

    async def _learn_threads(self) -> None:
        cpus = await self._monitor.execute("query-cpus-fast")
        self._vcpu_threads = tuple(cpu["thread-id"] for cpu in sorted(cpus, key=lambda cpu: cpu["cpu-index"]))

    async def _sockets(self) -> list[dict[str, Any]]:
        """Places for virtual CPUs, by number; those that are taken have a ``qom-path``."""
        return sorted(await self._monitor.execute("query-hotpluggable-cpus"), key=_vid)

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

    async def _supervise(self) -> None:
        await self._process.gone.wait()
        await self._monitor.lost.wait()  # what QEMU said last comes first
        _log.info("qemu-ended", domain=self.name, status=self._process.status, said=self._last_words())
        self._emit(GuestEvent(GuestEventKind.GONE, time.time()))

    async def _set_capabilities(self, wanted: tuple[str, ...]) -> None:
        now = {
            entry["capability"]: entry["state"] for entry in await self._monitor.execute("query-migrate-capabilities")
        }
        missing = sorted(set(wanted) - set(now))
        if missing:
            raise HostError(
                f"the QEMU of LDom {self.name} has no migration capability {', '.join(missing)}", code="qemu-refused"
            )
        changes = [
            {"capability": name, "state": name in wanted} for name, is_on in now.items() if is_on != (name in wanted)
        ]
        if changes:
            await self._monitor.execute("migrate-set-capabilities", {"capabilities": changes})

    async def _add_key(self, end: MigrationEnd, cipher: str, key: str) -> None:
        directory = self.directory / KEYS_DIRECTORY
        self._forget_key()
        directory.mkdir(mode=0o700)
        file = os.open(directory / "keys.psk", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w") as keys:
            keys.write(f"{KEY_USER}:{key}\n")
        credentials = {"qom-type": "tls-creds-psk", "id": TLS_OBJECT, "dir": str(directory), "priority": cipher}
        if end is MigrationEnd.SEND:
            credentials |= {"endpoint": "client", "username": KEY_USER}
        else:
            credentials |= {"endpoint": "server"}
        await self._monitor.execute("object-add", credentials)
        if end is MigrationEnd.SEND:
            # Loaded; the receiving end reads its file anew for each channel that connects.
            self._forget_key()

    def _forget_key(self) -> None:
        shutil.rmtree(self.directory / KEYS_DIRECTORY, ignore_errors=True)

    async def _read_back(self, plan: MigrationPlan, wanted: Mapping[str, Any]) -> None:
        # Mismatched ends hang for ever instead of failing, so nothing is taken for granted.
        entries = await self._monitor.execute("query-migrate-capabilities")
        on = {entry["capability"] for entry in entries if entry["state"]}
        parameters = await self._monitor.execute("query-migrate-parameters")
        differing = {name for name, value in wanted.items() if parameters.get(name) != value}
        if on != set(plan.capabilities) or differing:
            raise HostError(
                f"the QEMU of LDom {self.name} did not keep the migration settings"
                f" {', '.join(sorted(differing | (on ^ set(plan.capabilities))))}",
                code="qemu-refused",
            )


class QemuEngine:
    """Starts guests in QEMU processes, and finds them again. See `ldoms.hypervisor.engine.Engine`."""

    def __init__(self, facts: HypervisorFacts, cpus: Mapping[str, tuple[str, ...]], confinement: Confinement) -> None:
        """Make an engine.

        Args:
            facts: from `ldoms.hypervisor.probe`.
            cpus: model and features for ``native`` and ``generic``, from the same probe.
            confinement: how CPU time is divided.
        """
        self.facts = facts
        self._cpus = cpus
        self._confinement = confinement
        self._guests: dict[str, QemuGuest] = {}
        self._control: ControlPlacement | None = None

    def resolve_cpu(self, arch: str) -> tuple[str, tuple[str, ...]]:
        """The versioned CPU model for ``native`` or ``generic``, and every feature that it turns on."""
        model, *features = self._cpus[arch]
        return model, tuple(features)

    async def start(self, spec: GuestSpec) -> QemuGuest:
        """Start a guest, stopped."""
        _prepare_directory(spec)
        process = Process.start(command_line(spec), spec.directory, spec.directory / LOG_FILE)
        guest = QemuGuest(spec.uuid, spec.name, spec.directory, process, self._confinement)
        try:
            self._confinement.add_process(process.pid)
            self._place_control_of(guest)
            await guest.connect()
            self._place_control_of(guest)
            await guest.place(spec.placement)
        except BaseException:
            process.kill()
            await process.gone.wait()
            await guest.release()
            raise
        self._follow(guest)
        return guest

    async def attach(self, uuid: str, name: str, directory: Path) -> QemuGuest | None:
        """Find a guest again that an earlier manager has started."""
        process = Process.find(directory / PID_FILE, mark=uuid)
        if process is None:
            return None
        guest = QemuGuest(uuid, name, directory, process, self._confinement)
        await guest.connect()
        self._place_control_of(guest)
        self._follow(guest)
        return guest

    async def place_control(self, placement: ControlPlacement) -> None:
        """Move what is not a virtual CPU, of every guest, to the CPUs of the control domain."""
        self._control = placement
        self._confinement.set_group(CONTROL_GROUP, placement.quota)
        for guest in self._guests.values():
            guest.place_control(placement)

    async def close(self) -> None:
        """Let go of all guests; they go on running."""
        for guest in list(self._guests.values()):
            await guest.release()
        self._confinement.close()

    def _place_control_of(self, guest: QemuGuest) -> None:
        if self._control is not None:
            guest.place_control(self._control)

    def _follow(self, guest: QemuGuest) -> None:
        self._guests = {uuid: known for uuid, known in self._guests.items() if not known.is_gone}
        self._guests[guest.uuid] = guest


def _prepare_directory(spec: GuestSpec) -> None:
    directory = spec.directory
    longest = max(len(name) for name in (QMP_SOCKET, CONSOLE_SOCKET, AGENT_SOCKET))
    if len(str(directory)) + 1 + longest > MAX_SOCKET_PATH:
        raise HostError(
            f"the path {directory} is too long for Unix sockets: use a shorter --root", code="path-too-long"
        )
    earlier = Process.find(directory / PID_FILE, mark=spec.uuid)
    if earlier is not None:
        earlier.close()
        raise HostError(
            f"LDom {spec.name} has a QEMU already, process {earlier.pid}: it cannot be started twice",
            code="already-running",
        )
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in (QMP_SOCKET, CONSOLE_SOCKET, AGENT_SOCKET, PID_FILE, LOG_FILE):
        (directory / name).unlink(missing_ok=True)


def _vid(socket: Mapping[str, Any]) -> int:
    return int(socket["props"]["core-id"])


def _channels(host: str, port: int) -> list[dict[str, Any]]:
    address = {"transport": "socket", "type": "inet", "host": host, "port": str(port)}
    return [{"channel-type": "main", "addr": address}]


def _parameters(plan: MigrationPlan) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "max-bandwidth": plan.max_bandwidth_bytes_s,
        "downtime-limit": round(plan.downtime_limit_s * 1000),
        "tls-creds": TLS_OBJECT if plan.encrypted else "",
    }
    if "multifd" in plan.capabilities:
        # Never changed while a migration runs: QEMU 10.0 crashes on it.
        parameters |= {"multifd-channels": plan.channels, "multifd-compression": plan.compression}
    return parameters


def _added_memory(device: Mapping[str, Any]) -> AddedMemory:
    return AddedMemory(
        address_mib=device["memaddr"] // MIB,
        size_mib=-(-device["size"] // MIB),
        requested_mib=device["requested-size"] // MIB,
        maximum_mib=device["max-size"] // MIB,
    )


def _progress(answer: Mapping[str, Any]) -> Progress:
    ram: Mapping[str, Any] = answer.get("ram", {})
    page = ram.get("page-size", 4096)
    return Progress(
        status=answer.get("status", "none"),
        elapsed_s=answer.get("total-time", 0) / 1000,
        passes=ram.get("dirty-sync-count", 0),
        transferred_bytes=ram.get("transferred", 0),
        remaining_bytes=ram.get("remaining", 0),
        total_bytes=ram.get("total", 0),
        dirty_bytes_s=float(ram.get("dirty-pages-rate", 0) * page),
        bandwidth_bytes_s=ram.get("mbps", 0) * 1e6 / 8,
        expected_downtime_s=answer.get("expected-downtime", 0) / 1000,
        downtime_s=answer.get("downtime", 0) / 1000,
        throttle_percent=answer.get("cpu-throttle-percentage", 0),
        error=answer.get("error-desc", ""),
    )


def _event_time(message: Message) -> float:
    stamp = message["timestamp"]
    assert isinstance(stamp, Mapping)
    return float(stamp["seconds"] + stamp["microseconds"] / 1e6)


def _event_data(message: Message) -> Mapping[str, Any]:
    data = message.get("data", {})
    assert isinstance(data, Mapping)
    return data
