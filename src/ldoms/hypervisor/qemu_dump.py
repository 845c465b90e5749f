"""The memory of a guest that runs, written to a file: begun, followed, and given up."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ldoms.hypervisor import core_file
from ldoms.hypervisor.qmp import SLOW_S, Monitor
from ldoms.model.errors import HostError

POLL_S = 0.2
STALL_S = 60.0
"""A dump of which nothing is written for so long is given up, and the guest goes on."""
PIPE = "core.pipe"
FORMAT = "kdump-zlib"
"""What can go through a pipe, see `core_file`; crash(8) reads what becomes of it."""


class QemuDump:
    """Dumps of one QEMU. The promises are those of `ldoms.hypervisor.engine.Guest.dump`."""

    def __init__(self, name: str, directory: Path, monitor: Monitor) -> None:
        """Prepare for domain `name`; the pipe is made in `directory`."""
        self._name = name
        self._pipe = directory / PIPE
        self._monitor = monitor

    async def write(self, path: Path, progress: Callable[[int], None]) -> None:
        """Write the guest's memory to a file that is not there yet.

        Raises:
            HostError: it cannot be written, or nothing was written for a minute.
        """
        what, stop = f"the memory of LDom {self._name} cannot be written to {path}", threading.Event()
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HostError(f"{what}: {error.strerror}", code="no-core") from error
        writing = None
        try:
            pipe = await self._begin()
            writing = asyncio.create_task(asyncio.to_thread(core_file.write, pipe, file, stop))
            await self._follow(writing, progress)
            if not writing.result():
                raise HostError(f"{what}: QEMU has ended it", code="no-core")
        except (OSError, ValueError) as error:
            raise HostError(f"{what}: {error}", code="no-core") from error
        finally:
            stop.set()
            if writing is not None:
                with suppress(OSError, ValueError):
                    await writing
                await self._wait_ended()
            os.close(file)

    async def _begin(self) -> int:
        """Have QEMU write into a pipe; the end of it to read from."""
        self._pipe.unlink(missing_ok=True)
        os.mkfifo(self._pipe, 0o600)
        # Before QEMU opens its end, which would else wait for ours.
        pipe = os.open(self._pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        arguments = {"paging": False, "protocol": f"file:{self._pipe}", "detach": True, "format": FORMAT}
        try:
            await self._monitor.execute("dump-guest-memory", arguments, limit_s=SLOW_S)
        except BaseException:
            os.close(pipe)
            raise
        finally:
            self._pipe.unlink(missing_ok=True)
        return pipe

    async def _follow(self, writing: asyncio.Task[bool], progress: Callable[[int], None]) -> None:
        """Return when it is over.

        Raises:
            HostError: nothing was written for too long.
        """
        done, moved_at, clock = -1, 0.0, asyncio.get_running_loop().time
        while not writing.done():
            answer = await self._monitor.execute("query-dump", limit_s=SLOW_S)
            if answer["completed"] != done:
                done, moved_at = answer["completed"], clock()
                progress(min(100, 100 * done // max(1, answer["total"])))
            elif clock() - moved_at > STALL_S:
                raise HostError(
                    f"of the memory of LDom {self._name} nothing was written for {STALL_S:g} s", code="no-core"
                )
            await asyncio.wait((writing,), timeout=POLL_S)

    async def _wait_ended(self) -> None:
        """A dump that was given up ends at its next write, and then the guest goes on."""
        with suppress(HostError, TimeoutError):
            async with asyncio.timeout(SLOW_S):
                while (await self._monitor.execute("query-dump"))["status"] == "active":
                    await asyncio.sleep(POLL_S)
