"""The real engine: each guest is a QEMU process of its own that outlives the manager."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from ldoms.hypervisor.command_line import (
    AGENT_SOCKET,
    CONSOLE_SOCKET,
    CONTENT_FILE,
    LOG_FILE,
    PID_FILE,
    QMP_SOCKET,
    command_line,
    trial_command_line,
)
from ldoms.hypervisor.confinement import Confinement
from ldoms.hypervisor.process import Process
from ldoms.hypervisor.qemu_guest import CONTROL_GROUP, QemuGuest
from ldoms.hypervisor.specs import ControlPlacement, GuestSpec, Placement, TrialSpec
from ldoms.model.errors import HostError
from ldoms.model.host import HypervisorFacts
from ldoms.model.sizes import MIB

MAX_SOCKET_PATH = 107
"""Bytes of a Unix socket's path (unix(7))."""


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
        words = command_line(spec, dirty_ring=self.facts.dirty_ring)
        guest = await self._start(spec.uuid, spec.name, spec.directory, words, spec.placement)
        self._follow(guest)
        return guest

    async def start_trial(self, spec: TrialSpec) -> QemuGuest:
        """Start one end of a trial of a link."""
        try:
            spec.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not spec.incoming:
                await asyncio.to_thread(_write_content, spec.directory / CONTENT_FILE, spec.memory_mib)
        except OSError as error:
            raise HostError(f"{error.filename} cannot be written: {error.strerror}", code="no-place") from error
        try:
            return await self._start(spec.uuid, "trial", spec.directory, trial_command_line(spec))
        finally:
            (spec.directory / CONTENT_FILE).unlink(missing_ok=True)  # QEMU has it open

    async def _start(
        self, uuid: str, name: str, directory: Path, words: list[str], placement: Placement | None = None
    ) -> QemuGuest:
        process = Process.start(words, directory, directory / LOG_FILE)
        guest = QemuGuest(uuid, name, directory, process, self._confinement)
        try:
            self._confinement.add_process(process.pid)
            self._place_control_of(guest)
            await guest.connect()
            self._place_control_of(guest)
            if placement is not None:
                await guest.place(placement)
        except BaseException:
            process.kill()
            await process.gone.wait()
            await guest.release()
            raise
        return guest

    async def attach(self, uuid: str, name: str, directory: Path) -> QemuGuest | None:
        """Find a guest again that an earlier manager has started."""
        process = Process.find(directory / PID_FILE, mark=uuid)
        if process is None:
            return None
        guest = QemuGuest(uuid, name, directory, process, self._confinement)
        if not await guest.find(lambda: self._place_control_of(guest)):
            await guest.release()
            return None
        self._follow(guest)
        return guest

    async def place_control(self, placement: ControlPlacement) -> None:
        """Move what is not a virtual CPU, of every guest, to the CPUs of the control domain."""
        self._control = placement
        self._confinement.set_group(CONTROL_GROUP, placement.quota, placement.share)
        for guest in self._guests.values():
            if not guest.is_silent:
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


def _write_content(path: Path, size_mib: int) -> None:
    """Fill a file with pages that are not zero."""
    with path.open("wb") as file:
        for _ in range(size_mib):
            file.write(b"\x5e" * MIB)


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
