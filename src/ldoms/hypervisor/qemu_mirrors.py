"""How QEMU copies disks that hosts do not share: NBD exports on the target, mirrors on the source."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ldoms.hypervisor.command_line import node_name
from ldoms.hypervisor.qemu_migration import HANDSHAKE_S, TLS_OBJECT
from ldoms.hypervisor.qmp import QUICK_S, SLOW_S, Monitor
from ldoms.hypervisor.states import MirrorState
from ldoms.model.errors import HostError

FILTER = "-mirror"
"""What the name of a disk's node gets while a mirror stands before it; its job has that name, too."""
COPY = "-copy"
"""And what it gets for the node of its copy on the target."""
QUIET_S = 1.0
"""QEMU is taken to wait for the other end when it says nothing for so long."""
DROP_S = 5.0
"""How long a mirror may take to end that was told to, and whose connection is broken."""
POLL_S = 0.005
_CONCLUDED = ("concluded", "null")


class QemuMirrors:
    """The disks of one QEMU, as either end of their copy. The promises are those of `ldoms.hypervisor.engine.Guest`."""

    def __init__(self, name: str, monitor: Monitor, break_connections: Callable[[], None]) -> None:
        """Prepare for domain `name`."""
        self._name = name
        self._monitor = monitor
        self._break_connections = break_connections

    # The end that receives

    async def offer(self, devices: Sequence[str], host: str, port: int) -> None:
        """Let another host write to disks, with the key that was set for the migration."""
        # Not limited in connections: one that is given up for a new attempt may still be there.
        server: dict[str, object] = {"addr": {"type": "inet", "data": {"host": host, "port": str(port)}}}
        if await self._has_key():
            server["tls-creds"] = TLS_OBJECT
        try:
            await self._monitor.execute("nbd-server-start", server)
        except HostError as error:
            if "already in use" in error.message:
                raise HostError(f"port {port} is taken by another process", code="port-taken") from error
            raise
        for device in devices:
            node = node_name(device)
            export = {"type": "nbd", "id": node, "node-name": node, "name": node, "writable": True}
            await self._monitor.execute("block-export-add", export, limit_s=SLOW_S)

    async def withdraw(self) -> None:
        """Let nobody write to the disks any more."""
        if await self._monitor.execute("query-block-exports"):
            await self._monitor.execute("nbd-server-stop", limit_s=SLOW_S)

    # The end that sends

    async def begin(self, devices: Sequence[str], host: str, port: int, limit_bytes_s: int) -> None:
        """Begin to copy disks."""
        has_key = await self._has_key()
        for device in devices:
            node = node_name(device)
            copy = {
                "driver": "nbd",
                "node-name": node + COPY,
                "server": {"type": "inet", "host": host, "port": str(port)},
                "export": node,
                # What is empty here stays empty there, also where it was written full of zeroes.
                "discard": "unmap",
                "detect-zeroes": "unmap",
                **({"tls-creds": TLS_OBJECT} if has_key else {}),
            }
            await self._connect(copy)
            job = {
                "job-id": node + FILTER,
                "filter-node-name": node + FILTER,
                "device": node,
                "target": node + COPY,
                "sync": "full",
                "speed": limit_bytes_s,
                # A failure is a failure of the migration: the guest must never notice it.
                "on-source-error": "report",
                "on-target-error": "report",
                # How it has ended can still be asked by a manager that was away then.
                "auto-dismiss": False,
            }
            await self._monitor.execute("blockdev-mirror", job, limit_s=SLOW_S)

    async def states(self) -> dict[str, MirrorState]:
        """How far each mirror is."""
        return {_device_of(job): _state(entry) for job, entry in (await self._jobs()).items()}

    async def limit(self, device: str, bytes_s: int) -> None:
        """Limit the speed of one; 0 = none."""
        await self._monitor.execute("block-job-set-speed", {"device": node_name(device) + FILTER, "speed": bytes_s})

    async def tie(self) -> None:
        """Have each write of the guest wait for the other end."""
        for job, entry in (await self._jobs()).items():
            if not entry["ready"]:
                raise HostError(f"the copy of {_device_of(job)} is not complete yet", code="not-mirrored")
            change = {"id": job, "type": "mirror", "copy-mode": "write-blocking"}
            await self._monitor.execute("block-job-change", change)

    async def end(self, limit_s: float) -> None:
        """End all, so that both sides are the same."""
        jobs = await self._jobs()
        for job, entry in jobs.items():
            if not entry["ready"] or "error" in entry:
                raise HostError(
                    f"the copy of {_device_of(job)} is not complete: {entry.get('error', 'not ready')}",
                    code="not-mirrored",
                )
        for job in jobs:
            # Cancelled without force when it is ready, it waits until both sides are the same, and keeps ours in use.
            await self._monitor.execute("block-job-cancel", {"device": job}, limit_s=max(QUICK_S, limit_s))
        try:
            async with asyncio.timeout(limit_s):
                ended = await self._wait_concluded(jobs)
        except TimeoutError as error:
            raise HostError(
                f"the last writes to the disks of LDom {self._name} have not reached the target within"
                f" {limit_s * 1000:.0f} ms",
                code="not-mirrored",
            ) from error
        for job, entry in ended.items():
            if "error" in entry:
                raise HostError(f"the copy of {_device_of(job)} has failed: {entry['error']}", code="not-mirrored")
        await self._dismiss(ended)

    async def drop(self) -> None:
        """End all, however far they are, and close the connections. Never raises."""
        with suppress(HostError):
            nodes = await self._monitor.execute("query-named-block-nodes", {"flat": True})
            copies = [node["node-name"] for node in nodes if node["node-name"].endswith(COPY)]
            if not copies:
                return
            jobs = await self._jobs()
            for job in jobs:
                with suppress(HostError):
                    await self._monitor.execute("block-job-cancel", {"device": job, "force": True}, limit_s=QUIET_S)
            # Cut, not closed: QEMU waits for the other end when it closes one, and the guest's writes wait for it, too.
            with suppress(HostError):
                self._break_connections()
            with suppress(TimeoutError):
                async with asyncio.timeout(DROP_S):
                    await self._wait_concluded(jobs)
            await self._dismiss(jobs)
            for name in copies:
                with suppress(HostError):
                    await self._monitor.execute("blockdev-del", {"node-name": name}, limit_s=SLOW_S)

    # Inside

    async def _connect(self, copy: Mapping[str, object]) -> None:
        # QEMU opens a connection in its main loop, and waits there for the other end.
        try:
            await self._monitor.execute("blockdev-add", copy, limit_s=HANDSHAKE_S)
        except HostError as error:
            if error.code != "qemu-silent":
                raise
            self._break_connections()
            raise HostError(
                "the target has taken the connection for a disk and says nothing on it", code="target-mute"
            ) from error

    async def _jobs(self) -> dict[str, Mapping[str, Any]]:
        entries = await self._monitor.execute("query-block-jobs")
        return {entry["device"]: entry for entry in entries if entry["device"].endswith(FILTER)}

    async def _wait_concluded(self, jobs: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        while True:
            known = await self._jobs()
            if all(known[job]["status"] in _CONCLUDED for job in jobs if job in known):
                return {job: known[job] for job in jobs if job in known}
            await asyncio.sleep(POLL_S)

    async def _dismiss(self, jobs: Iterable[str]) -> None:
        for job in jobs:
            with suppress(HostError):
                await self._monitor.execute("job-dismiss", {"id": job})

    async def _has_key(self) -> bool:
        entries = await self._monitor.execute("qom-list", {"path": "/objects"})
        return any(entry["name"] == TLS_OBJECT for entry in entries)


def _device_of(job: str) -> str:
    """``disk@0`` for ``disk0-mirror``."""
    return job.removesuffix(FILTER).replace("disk", "disk@")


def _state(entry: Mapping[str, Any]) -> MirrorState:
    return MirrorState(
        sent_bytes=entry["offset"],
        total_bytes=entry["len"],
        is_ready=entry["ready"],
        is_tied=entry.get("actively-synced", False),
        error=entry.get("error", "it has ended" if entry["status"] in _CONCLUDED else ""),
    )
