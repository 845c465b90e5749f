"""``ldoms-bench watch DOM``: what a host sees of a domain, as JSON lines (`lines.py`), until its input ends.

It asks the manager of its host, and looks at QEMU's threads. That a domain is not there yet, or not any more, is
nothing special: it may be on its way. Input that ends is how it is stopped, also over ssh.
"""

from __future__ import annotations

import contextlib
import math
import platform
import select
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import psutil

from ldoms.api.client import Client, part
from ldoms.bench.observe.lines import CopyLook, HostLook, Sort, write_line
from ldoms.bench.observe.usage import ThreadTime, Usage
from ldoms.model.codec import from_wire
from ldoms.model.domain import DomainView
from ldoms.model.errors import LdomsError
from ldoms.model.guest import GuestCpus
from ldoms.model.migration import Progress
from ldoms.model.operation import Operation

INTERVAL_S = 1.0
LOOKS_PER_S = 4
"""So often threads are looked at: one that ends takes what it did since the last look with it."""
FOLLOW_POLL_S = 0.5
"""How often it is asked whether a migration has begun; the checks before a copy take longer."""
SILENT_TIMES = 3
"""A guest that does not answer once or twice is busy, or is being handed over."""
_MIGRATION = "migrate-domain"
_NOT_HERE = frozenset({"not-found", "domain-not-active"})
_CONGESTION = Path("/proc/sys/net/ipv4/tcp_congestion_control")


class Watch:
    """Looks at one domain on this host, in three threads: its QEMU, its inside, its migration."""

    def __init__(self, domain: str, output: TextIO, client: Client) -> None:
        """Write lines about `domain` to `output`."""
        self._domain = domain
        self._output = output
        self._client = client
        self._writing = threading.Lock()
        self._noted: set[str] = set()
        self._over = threading.Event()

    def run(self, input_: TextIO) -> None:
        """Watch until `input_` ends."""
        self._write(Sort.BEGIN, self._about())
        for work in (self._ask_guest, self._follow):
            threading.Thread(target=work, daemon=True).start()
        self._look_at_threads(input_)
        self._over.set()

    # QEMU

    def _look_at_threads(self, input_: TextIO) -> None:
        usage, qemu = Usage(), None
        for tick in ticks(LOOKS_PER_S, input_):
            if qemu is None or not qemu.is_running():
                qemu = find_qemu(self._domain) if tick % LOOKS_PER_S == 0 else None
            usage.look(threads_of(qemu) if qemu is not None else ())
            if tick % LOOKS_PER_S == 0:
                self._write(Sort.HOST, HostLook(time.time(), dict(usage.seconds), busy_seconds()))

    # The guest

    def _ask_guest(self) -> None:
        failures = 0
        while not self._over.wait(_until_next(INTERVAL_S)):
            try:
                look = self._client.fetch(GuestCpus, f"/domains/{part(self._domain)}/guest-cpus")
            except LdomsError as error:
                failures = 0 if error.code in _NOT_HERE else failures + 1
                if failures == SILENT_TIMES:
                    self._note(f"the guest's own CPU figures: {error.message}")
            else:
                failures = 0
                self._write(Sort.GUEST, look)

    # The migration

    def _follow(self) -> None:
        while not self._over.wait(FOLLOW_POLL_S):
            try:
                for operation in self._migrations():
                    progress = from_wire(Progress, operation.figures) if operation.figures else None
                    self._write(Sort.COPY, CopyLook(time.time(), operation.phase, progress))
            except LdomsError as error:
                if error.code not in _NOT_HERE:
                    self._note(f"the progress of the copy: {error.message}")

    def _migrations(self) -> Iterator[Operation]:
        """A migration from this host, each time that it changes; nothing if there is none now."""
        (view,) = [from_wire(DomainView, one) for one in self._client.get("/domains", name=self._domain)]
        if view.status.migration is None or view.status.migration.role != "source":
            return
        operations = [from_wire(Operation, one) for one in self._client.get("/operations")]
        for one in operations:
            if one.kind == _MIGRATION and one.domain == self._domain and not one.is_over:
                for data in self._client.stream(f"/operations/{one.id}/events"):
                    yield from_wire(Operation, data)

    # Inside

    def _about(self) -> dict[str, Any]:
        about: dict[str, Any] = {
            "at": time.time(),
            "booted_at": psutil.boot_time(),
            "versions": {"kernel": platform.release(), "congestion control": _read(_CONGESTION)},
        }
        try:
            about["facts"] = self._client.get("/host")["facts"]
        except LdomsError as error:
            self._note(f"the manager of this host: {error.message}")
        return about

    def _note(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            self._write(Sort.NOTE, {"at": time.time(), "text": text})

    def _write(self, sort: Sort, value: object) -> None:
        line = write_line(sort, value)
        with self._writing, contextlib.suppress(BrokenPipeError):
            self._output.write(line + "\n")
            self._output.flush()


def ticks(per_second: int, input_: TextIO) -> Iterator[int]:
    """Numbers of parts of a second, each when the clock comes to it, until the input ends; a late one is left out.

    The number of a whole second is a multiple of `per_second`: all hosts look at the same moments, as far as their
    clocks agree.
    """
    while True:
        number = math.floor(time.time() * per_second) + 1
        while (left_s := number / per_second - time.time()) > 0:
            if select.select([input_], [], [], left_s)[0] and not input_.readline():
                return
        yield number


def find_qemu(domain: str) -> psutil.Process | None:
    """The QEMU of a domain on this host, by the name that it was given."""
    mark = f"guest={domain.replace(',', ',,')},"
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name().startswith("qemu-system") and any(word.startswith(mark) for word in process.cmdline()):
                return process
    return None


def threads_of(process: psutil.Process) -> list[ThreadTime]:
    """The threads that a process has now; none if it has ended."""
    found = []
    with contextlib.suppress(psutil.Error):
        for one in process.threads():
            with contextlib.suppress(OSError):  # it may end meanwhile
                # psutil does not tell the names of threads.
                name = Path(f"/proc/{process.pid}/task/{one.id}/comm").read_text().strip()
                found.append(ThreadTime(one.id, name, one.user_time + one.system_time))
    return found


def busy_seconds() -> float:
    """CPU seconds that everything on this machine has used since it was started."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def _until_next(interval_s: float) -> float:
    """The time until the clock is at the next multiple of an interval."""
    return interval_s - time.time() % interval_s


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return "unknown"


def main_watch(domain: str) -> int:
    """Watch a domain until the input ends."""
    Watch(domain, sys.stdout, Client()).run(sys.stdin)
    return 0
