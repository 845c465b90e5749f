"""Disks and network interfaces of a fake guest."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ldoms.hypervisor.fake_process import FakeProcess
from ldoms.hypervisor.specs import DeviceSpec, DiskSpec, GuestSpec, NetworkSpec
from ldoms.hypervisor.states import DiskState, GuestEventKind, RunState
from ldoms.model.errors import HostError


class FakeDevices(FakeProcess):
    """A process with devices."""

    def __init__(self, spec: GuestSpec) -> None:
        super().__init__(spec)
        self.links: dict[str, bool] = {}
        self.plugged: dict[str, DeviceSpec] = {disk.device: disk for disk in spec.disks}
        self.plugged |= {network.device: network for network in spec.networks}
        self.held: set[str] = set()
        """Devices that it does not let go when it is asked to."""
        self.broken: set[Path] = set()
        """Back ends that cannot be opened."""
        self.failed: set[Path | None] = set()
        """Back ends whose requests fail."""
        self._kept: dict[str, DiskSpec] = {}

    @property
    def layout(self) -> tuple[int, frozenset[tuple[str, int, bool]]]:
        """What must be the same on both ends of a migration: root ports, what is behind which, and what has a ROM."""
        ports = frozenset((device.device, device.port, _has_rom(device)) for device in self.plugged.values())
        return max(self.spec.machine.root_ports, *(port + 1 for _, port, _ in ports), 0), ports

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
        if not device.port < root_ports or device.port in {port for _, port, _ in taken}:
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

    async def set_link(self, device: str, *, up: bool) -> None:
        """Note it."""
        await self._answer()
        if not isinstance(self.plugged.get(device), NetworkSpec):
            raise HostError(f"set_link on LDom {self.spec.name}: QEMU says: no {device}", code="qemu-refused")
        self.links[device] = up


def _has_rom(device: DeviceSpec) -> bool:
    return isinstance(device, NetworkSpec) and device.boot_index is not None
