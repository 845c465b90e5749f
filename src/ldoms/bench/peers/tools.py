"""What moves guests: `ldm`, `virsh migrate`, and QEMU alone. Each starts the same guests, moves them, and ends them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from qemu.qmp import QMPClient, QMPError

from ldoms.bench.peers.hands import RemoteHand, Result
from ldoms.bench.peers.libvirts import PORT, SWITCH, Libvirts, describe
from ldoms.bench.peers.record import ENDLESS, FAILED, MOVED, REFUSED
from ldoms.bench.peers.scenario import Guest, Scenario
from ldoms.bench.stage import ADMINISTRATOR, SOURCE, TARGET
from ldoms.model.codec import from_wire
from ldoms.model.errors import HostError
from ldoms.model.migration import MigrationReport
from ldoms.model.phases import Phase

BEST = ("--parallel", "--parallel-connections", "2", "--auto-converge")
"""Of `virsh migrate --live`, for a guest that is large or busy."""
_FIRST_DATA_PORT = 8201
_POLL_S = 0.02
_QMP_S = 30.0


@dataclass(frozen=True, slots=True)
class World:
    """Where tools do their work.

    Attributes:
        hands: on the source, the target and where clients are.
        addresses: of the two hosts.
        home: a directory for files.
        password_file: as `ldm migrate-domain` wants it.
    """

    hands: Mapping[str, RemoteHand]
    addresses: Mapping[str, str]
    home: Path
    password_file: str
    libvirts: Libvirts | None

    @property
    def source(self) -> RemoteHand:
        """The hand on the source."""
        return self.hands[SOURCE]

    @property
    def target(self) -> RemoteHand:
        """The hand on the target."""
        return self.hands[TARGET]


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of the guests of a scenario.

    Attributes:
        began_at: seconds since 1970.
        seconds: of the whole command, or of all commands.
        outcome: of the worst of them.
        reason: in the tool's own words, where it did not succeed.
        copy_s, own_ms: where the tool tells: how long memory was copied while the guest ran; what it took between the
            stop of the guest and its resumption, beyond what QEMU did.
    """

    began_at: float
    seconds: float
    outcome: str
    reason: str = ""
    copy_s: float | None = None
    own_ms: float | None = None


class Tool(Protocol):
    """A way to move guests."""

    @property
    def name(self) -> str:
        """How it is called in tables."""

    @property
    def encrypted(self) -> bool:
        """Whether memory is encrypted on its way."""

    @property
    def limit_ms(self) -> float | None:
        """The suspension that QEMU was told to keep to; None = nobody has told it."""

    def start(self, world: World, guests: Sequence[Guest]) -> None:
        """Start guests on the source."""

    def move(self, world: World, guests: Sequence[Guest], scenario: Scenario) -> Moved:
        """Move them to the target; called off after the scenario's limit."""

    def end(self, world: World, guests: Sequence[Guest]) -> None:
        """End them, wherever they are. Never raises."""


def worst(results: Sequence[Result], refusal: Sequence[str] = ()) -> tuple[str, str]:
    """The worst outcome of commands, and the first line of what that one has said."""
    for result in results:
        if result.late:
            return ENDLESS, _first_line(result.err)
    for result in results:
        if result.status != 0:
            outcome = REFUSED if any(word in result.err for word in refusal) else FAILED
            return outcome, _first_line(result.err)
    return MOVED, ""


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


@dataclass(frozen=True, slots=True)
class Ldm:
    """`ldm migrate-domain`, as it is by default or without encryption."""

    encrypted: bool
    limit_ms: float | None = None

    @property
    def name(self) -> str:
        """See `Tool`."""
        return "ldm" if self.encrypted else "ldm --no-encryption"

    def start(self, world: World, guests: Sequence[Guest]) -> None:
        """See `Tool`."""
        for guest in guests:
            boot = [f"boot-file={guest.image.kernel}", f"boot-initrd={guest.image.initrd}"]
            world.source.do(
                ["ldm", "add-domain", guest.name],
                ["ldm", "set-vcpu", f"{guest.vcpus}", guest.name],
                ["ldm", "set-memory", f"{guest.memory_mib}M", guest.name],
                ["ldm", "add-vnet", "vnet0", "primary-vsw0", guest.name],
                ["ldm", "set-variable", *boot, f"boot-args={guest.image.boot_args}", guest.name],
            )
            if guest.disk:
                for hand in (world.source, world.target):
                    hand.do(["ldm", "add-vdsdev", str(guest.disk), _volume(guest)])
                world.source.do(["ldm", "add-vdisk", "vdisk0", _volume(guest), guest.name])
            world.source.do(
                ["ldm", "bind-domain", guest.name],
                ["ldm", "start-domain", guest.name],
            )

    def move(self, world: World, guests: Sequence[Guest], scenario: Scenario) -> Moved:
        """See `Tool`."""
        options = () if self.encrypted else ("--no-encryption",)
        to = f"{ADMINISTRATOR}@{TARGET}"
        ran = world.source.run(
            [["ldm", "migrate-domain", *options, "-p", world.password_file, guest.name, to] for guest in guests],
            limit_s=scenario.limit_s,
            at_once=scenario.at_once,
            off=[["ldm", "cancel-operation", "migration", guest.name] for guest in guests],
        )
        (listed,) = world.source.do(["ldm", "list-history", "-o", "migration", "--json"])
        names = {guest.name for guest in guests}
        reports = [
            from_wire(MigrationReport, one) for one in json.loads(listed) if one["started_at"] >= ran.began_at - 1
        ]
        reports = [one for one in reports if one.domain in names]
        outcome, reason = worst(ran.results, ("have to be suspended", "allowed", "promise"))
        return Moved(ran.began_at, ran.seconds, outcome, reason, _copy_s(reports), _own_ms(reports))

    def end(self, world: World, guests: Sequence[Guest]) -> None:
        """See `Tool`."""
        names = [guest.name for guest in guests]
        for hand in (world.source, world.target):
            commands = [["ldm", "stop-domain", "-f", *names]]
            commands += [["ldm", verb, name] for name in names for verb in ("unbind-domain", "remove-domain")]
            commands += [["ldm", "remove-vdsdev", "-f", _volume(guest)] for guest in guests if guest.disk]
            with suppress(HostError):
                hand.run(commands)


def _volume(guest: Guest) -> str:
    return f"{guest.name}-root@primary-vds0"


def _copy_s(reports: Sequence[MigrationReport]) -> float | None:
    times = [phase.seconds for one in reports for phase in one.phases if phase.name in (Phase.COPY, Phase.SUSPEND)]
    return sum(times) if len(reports) == 1 and times else None


def _own_ms(reports: Sequence[MigrationReport]) -> float | None:
    own = [
        (one.stop_resume_s - one.downtime_s) * 1000
        for one in reports
        if one.stop_resume_s is not None and one.downtime_s is not None
    ]
    return max(own, default=None)


@dataclass(frozen=True, slots=True)
class Virsh:
    """`virsh migrate --live` from one libvirt to the other."""

    options: tuple[str, ...] = ()
    encrypted: bool = False
    limit_ms: float | None = None

    @property
    def name(self) -> str:
        """See `Tool`."""
        words = [*(["best"] if self.options else []), *(["--tls"] if self.encrypted else [])]
        limit = f", limit {self.limit_ms:g} ms" if self.limit_ms is not None else ""
        return " ".join(["virsh", *words]) + limit

    def start(self, world: World, guests: Sequence[Guest]) -> None:
        """See `Tool`."""
        for guest in guests:
            described = world.home / f"{guest.name}.xml"
            described.write_text(describe(guest))
            world.source.do([*self._virsh(world, SOURCE), "create", str(described)])
            if self.limit_ms is not None:
                limit = f"{round(self.limit_ms)}"
                world.source.do([*self._virsh(world, SOURCE), "migrate-setmaxdowntime", guest.name, limit])

    def move(self, world: World, guests: Sequence[Guest], scenario: Scenario) -> Moved:
        """See `Tool`."""
        virsh, address = self._virsh(world, SOURCE), world.addresses[TARGET]
        options = [*self.options, *(["--tls"] if self.encrypted else [])]
        to = [f"qemu+tcp://{address}:{PORT}/system", "--migrateuri", f"tcp://{address}"]
        ran = world.source.run(
            # It takes a directory of this machine for storage that is not shared.
            [
                [*virsh, "migrate", "--live", *options, *(["--unsafe"] if guest.disk else []), guest.name, *to]
                for guest in guests
            ],
            limit_s=scenario.limit_s,
            at_once=scenario.at_once,
            off=[[*virsh, "domjobabort", guest.name] for guest in guests],
        )
        return Moved(ran.began_at, ran.seconds, *worst(ran.results))

    def end(self, world: World, guests: Sequence[Guest]) -> None:
        """See `Tool`."""
        for host, hand in ((SOURCE, world.source), (TARGET, world.target)):
            with suppress(HostError):
                hand.run([[*self._virsh(world, host), "destroy", guest.name] for guest in guests])

    @staticmethod
    def _virsh(world: World, host: str) -> tuple[str, ...]:
        assert world.libvirts is not None
        return world.libvirts.virsh[host]


@dataclass(slots=True)
class Plain:
    """QEMU by itself: its monitor is told ``migrate``, with all parameters as they are; the target starts at once."""

    name: str = "QEMU alone"
    encrypted: bool = False
    limit_ms: float | None = None
    _pids: list[tuple[str, int]] = field(default_factory=list)

    def start(self, world: World, guests: Sequence[Guest]) -> None:
        """See `Tool`."""
        for number, guest in enumerate(guests):
            self._start_one(world, SOURCE, guest, number)

    def move(self, world: World, guests: Sequence[Guest], scenario: Scenario) -> Moved:
        """See `Tool`."""
        began_at, began = time.time(), time.perf_counter()
        outcome, reason = asyncio.run(self._move_all(world, guests, scenario))
        return Moved(began_at, time.perf_counter() - began, outcome, reason)

    def end(self, world: World, guests: Sequence[Guest]) -> None:
        """See `Tool`."""
        for host, pid in self._pids:
            with suppress(HostError):
                world.hands[host].stop(pid)
        self._pids = []
        for hand in (world.source, world.target):
            with suppress(HostError):
                hand.run([["ip", "link", "del", _tap(number)] for number, _ in enumerate(guests)])

    def _start_one(self, world: World, host: str, guest: Guest, number: int) -> None:
        tap, hand, sock = _tap(number), world.hands[host], _socket(world, host, guest)
        sock.unlink(missing_ok=True)
        hand.do(
            ["ip", "tuntap", "add", "dev", tap, "mode", "tap"],
            ["ip", "link", "set", tap, "master", SWITCH, "up"],
        )
        words = qemu_words(guest, tap, sock)
        if host == TARGET:
            words += ["-incoming", f"tcp:{world.addresses[TARGET]}:{_FIRST_DATA_PORT + number}"]
        self._pids.append((host, hand.start(words, str(world.home / "qemu.log"))))

    async def _move_all(self, world: World, guests: Sequence[Guest], scenario: Scenario) -> tuple[str, str]:
        turn = asyncio.Semaphore(scenario.at_once)

        async def one(number: int, guest: Guest) -> tuple[str, str]:
            async with turn:
                return await self._move_one(world, number, guest, scenario.limit_s)

        done = await asyncio.gather(*(one(number, guest) for number, guest in enumerate(guests)))
        return next((one for one in done if one[0] != MOVED), (MOVED, ""))

    async def _move_one(self, world: World, number: int, guest: Guest, limit_s: float) -> tuple[str, str]:
        self._start_one(world, TARGET, guest, number)
        await _connected(_socket(world, TARGET, guest))  # so that it listens
        source = await _connected(_socket(world, SOURCE, guest), keep=True)
        assert source is not None
        deadline = time.monotonic() + limit_s
        try:
            await source.execute("migrate", {"uri": f"tcp:{world.addresses[TARGET]}:{_FIRST_DATA_PORT + number}"})
            while True:
                state = await source.execute("query-migrate")
                assert isinstance(state, dict)
                if state.get("status") == "completed":
                    with suppress(QMPError):
                        await source.execute("quit")
                    return MOVED, ""
                if state.get("status") == "failed":
                    return FAILED, str(state.get("error-desc", ""))
                if time.monotonic() > deadline:
                    await source.execute("migrate_cancel")
                    return ENDLESS, ""
                await asyncio.sleep(_POLL_S)
        finally:
            with suppress(QMPError, EOFError, OSError):
                await source.disconnect()


def qemu_words(guest: Guest, tap: str, sock: Path) -> list[str]:
    """The command line of a guest like those of the other tools, without what nobody needs here."""
    return [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35"),
        *("-accel", "tcg,thread=multi", "-cpu", "qemu64", "-smp", f"{guest.vcpus}", "-m", f"{guest.memory_mib}M"),
        *("-name", guest.name, "-uuid", guest.uuid, "-serial", "null"),
        *("-qmp", f"unix:{sock},server=on,wait=off"),
        *("-netdev", f"tap,id=net0,ifname={tap},script=no,downscript=no"),
        *("-device", f"virtio-net-pci,netdev=net0,mac={guest.mac},romfile="),
        *("-device", "virtio-balloon-pci,free-page-reporting=on", "-device", "virtio-rng-pci"),
        *("-kernel", str(guest.image.kernel), "-initrd", str(guest.image.initrd), "-append", guest.image.boot_args),
        *(_disk_words(guest.disk) if guest.disk else ()),
    ]


def _disk_words(disk: Path) -> tuple[str, ...]:
    drive = f"file={disk},format=qcow2,if=none,id=disk0,cache=none"
    return "-drive", drive, "-device", "virtio-blk-pci,drive=disk0"


def _tap(number: int) -> str:
    return f"peer{number}"


def _socket(world: World, host: str, guest: Guest) -> Path:
    return world.home / f"{guest.name}-{host}.qmp"


async def _connected(path: Path, *, keep: bool = False) -> QMPClient | None:
    """Connect to a monitor as soon as it is there; the client, if it is to be kept."""
    deadline = time.monotonic() + _QMP_S
    while True:
        client = QMPClient()
        try:
            await client.connect(str(path))
            break
        except (QMPError, OSError) as error:
            if time.monotonic() > deadline:
                raise HostError(f"QEMU does not answer: {error}", code="no-peer") from error
            await asyncio.sleep(_POLL_S)
    if keep:
        return client
    await client.disconnect()
    return None


def all_tools(limit_ms: float, *, virsh: bool) -> tuple[Tool, ...]:
    """Every tool; `limit_ms` is the suspension that virsh is told in half of its variants."""
    peers = [
        Virsh(options, encrypted, limit)
        for options in ((), BEST)
        for encrypted in (False, True)
        for limit in (None, limit_ms)
    ]
    return (Ldm(True), Ldm(False), *(peers if virsh else []), Plain())
