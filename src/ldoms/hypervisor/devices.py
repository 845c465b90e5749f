"""Disks and network interfaces of a QEMU that runs: plugged, unplugged, cleared away when the guest lets them go."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from ldoms.hypervisor.command_line import (
    device_id,
    disk_back_end,
    disk_front_end,
    network_back_end,
    network_front_end,
    node_name,
    nothing,
)
from ldoms.hypervisor.image_locks import as_locked
from ldoms.hypervisor.qemu_mirrors import FILTER
from ldoms.hypervisor.qmp import SLOW_S, Monitor
from ldoms.hypervisor.specs import DeviceSpec, DiskSpec
from ldoms.hypervisor.states import DiskState
from ldoms.model.errors import HostError

_DEVICE = re.compile(r"^(disk|network)(\d+)-device$")
_BLOCK_PLACE = re.compile(r"^/machine/peripheral/([^/]+)/virtio-backend$")
_log = structlog.get_logger(__name__)


class Devices:
    """The disks and network interfaces of one QEMU."""

    def __init__(self, name: str, monitor: Monitor, on_gone: Callable[[str], None]) -> None:
        """Prepare for domain `name`; `on_gone` is called for each device that has gone, its back end included."""
        self._name = name
        self._monitor = monitor
        self._on_gone = on_gone
        self._waiting: dict[str, asyncio.Future[bool]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def known(self) -> frozenset[str]:
        """What the guest has."""
        entries = await self._monitor.execute("qom-list", {"path": "/machine/peripheral"})
        return frozenset(device for entry in entries if (device := _device_of(entry["name"])))

    async def plug(self, spec: DeviceSpec) -> None:
        """Open the back end of a device, and give it to the guest."""
        device = spec.device
        if device in await self.known():
            raise HostError(f"LDom {self._name} has a device {device} already", code="device-taken")
        await self._close_back_end(device)  # that of an earlier one, if nobody was there to see it go
        try:
            if isinstance(spec, DiskSpec):
                await self._monitor.execute("blockdev-add", disk_back_end(spec), limit_s=SLOW_S)
                await self._monitor.execute("device_add", disk_front_end(spec), limit_s=SLOW_S)
            else:
                await self._monitor.execute("netdev_add", network_back_end(spec))
                await self._monitor.execute("device_add", network_front_end(spec))
        except BaseException as error:
            with suppress(HostError):
                await self._monitor.execute("device_del", {"id": device_id(device)})
            await self._close_back_end(device)
            if isinstance(error, HostError):
                raise as_locked(error, self._name, device) from error
            raise

    async def unplug(self, device: str, limit_s: float) -> None:
        """Ask the guest to let a device go, and wait until it has."""
        answer = self._waiting.get(device)
        if answer is None or answer.done():
            answer = self._waiting[device] = asyncio.get_running_loop().create_future()
        try:
            await self._monitor.execute("device_del", {"id": device_id(device)})
        except HostError as error:
            if "in the process of unplug" not in error.message:
                raise
        try:
            async with asyncio.timeout(limit_s):
                has_let_go = await asyncio.shield(answer)
        except TimeoutError as error:
            raise self._held(device, f"has not let go of {device} within {limit_s:g} s") from error
        if not has_let_go:
            raise self._held(device, f"refuses to let go of {device}")

    async def disks(self) -> dict[str, DiskState]:
        """How each disk does."""
        states = {}
        for entry in await self._monitor.execute("query-block"):
            match = _BLOCK_PLACE.match(entry.get("qdev", ""))
            if match and (device := _device_of(match[1])):
                inserted = entry.get("inserted", {})
                own = (node_name(device), node_name(device) + FILTER)
                is_cut = inserted.get("node-name") not in own or inserted.get("drv") == "null-co"
                path = None if is_cut else Path(inserted["file"])
                is_direct = bool(inserted.get("cache", {}).get("direct")) and not is_cut
                states[device] = DiskState(path, entry.get("io-status", "ok") != "ok", is_direct)
        return states

    async def cut(self, device: str, *, close: bool) -> None:
        """Put nothing behind a disk that the guest keeps."""
        nodes = await self._nodes()
        if _empty_node(device) not in nodes and node_name(device) in nodes:
            await self._monitor.execute("blockdev-add", nothing(_empty_node(device)))
            await self._attach(device, _empty_node(device))
        if close and node_name(device) in nodes:
            await self._monitor.execute("blockdev-del", {"node-name": node_name(device)}, limit_s=SLOW_S)

    async def mend(self, spec: DiskSpec) -> None:
        """Put something behind a disk that was cut."""
        if node_name(spec.device) not in await self._nodes():
            await self._monitor.execute("blockdev-add", disk_back_end(spec), limit_s=SLOW_S)
        await self._attach(spec.device, node_name(spec.device))
        await self._monitor.execute("blockdev-del", {"node-name": _empty_node(spec.device)})

    def note(self, event: str, data: Mapping[str, Any]) -> None:
        """Take in that a device is gone, or that the guest does not let it go."""
        device = _device_of(str(data.get("device", "")))
        if not device:
            return
        if event == "DEVICE_DELETED":
            task = asyncio.create_task(self._clear_away(device), name=f"clear-{self._name}-{device}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._answer(device, has_let_go=False)

    def close(self) -> None:
        """Stop waiting."""
        for task in list(self._tasks):
            task.cancel()

    # Inside

    async def _clear_away(self, device: str) -> None:
        await self._close_back_end(device)
        _log.info("device-gone", domain=self._name, device=device)
        self._answer(device, has_let_go=True)
        self._on_gone(device)

    async def _nodes(self) -> frozenset[str]:
        nodes = await self._monitor.execute("query-named-block-nodes", {"flat": True})
        return frozenset(node["node-name"] for node in nodes)

    async def _attach(self, device: str, node: str) -> None:
        # Not blockdev-reopen: that flushes the old node first, which fails when its path has failed.
        place = {"path": f"/machine/peripheral/{device_id(device)}", "property": "drive", "value": node}
        try:
            await self._monitor.execute("qom-set", place, limit_s=SLOW_S)
        except BaseException:
            with suppress(HostError):
                await self._monitor.execute("blockdev-del", {"node-name": node}, limit_s=SLOW_S)
            raise

    async def _close_back_end(self, device: str) -> None:
        with suppress(HostError):
            if device.startswith("disk@"):
                for node in await self._nodes() & {node_name(device), _empty_node(device)}:
                    await self._monitor.execute("blockdev-del", {"node-name": node}, limit_s=SLOW_S)
            else:
                await self._monitor.execute("netdev_del", {"id": node_name(device)})

    def _answer(self, device: str, *, has_let_go: bool) -> None:
        answer = self._waiting.pop(device, None)
        if answer is not None and not answer.done():
            answer.set_result(has_let_go)

    def _held(self, device: str, what: str) -> HostError:
        return HostError(f"the guest of LDom {self._name} {what}: it still has it", code="device-held")


def _empty_node(device: str) -> str:
    return f"{node_name(device)}-nothing"


def _device_of(name: str) -> str:
    """``disk@0`` for ``disk0-device``; empty for what is neither a disk nor a network interface."""
    match = _DEVICE.match(name)
    return f"{match[1]}@{match[2]}" if match else ""
