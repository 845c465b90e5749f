"""A host that is watched: ``ldoms-bench watch`` is started there, read as it writes, and ended by closing its input."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ldoms.bench.observe.lines import HostLog, clock_offset_s, read_lines
from ldoms.model.errors import HostError

BEGIN_S = 20.0
END_S = 5.0
NEAR_S = 0.02
"""A clock that is off by less is taken for ours: that much a line may need on its way."""
PROGRAM = "ldoms-bench"


@dataclass(frozen=True, slots=True)
class Place:
    """A machine on which commands are run.

    Attributes:
        name: of the host, as listings show it.
        prefix: words in front of a command that run it there, such as ``ssh root@t4-2``; empty = this machine.
    """

    name: str
    prefix: tuple[str, ...] = ()

    def words(self, *words: str) -> list[str]:
        """The words that run one of our programs there; on this machine those beside this very program."""
        if self.prefix and Path(self.prefix[0]).name == "ssh":
            return [*self.prefix, *map(shlex.quote, words)]  # a shell reads them once more
        if self.prefix:
            return [*self.prefix, *words]
        return [str(Path(sys.executable).with_name(words[0])), *words[1:]]


class HostWatch:
    """The watch of one host, in the background."""

    def __init__(self, place: Place, domain: str, directory: Path) -> None:
        """Start it; what it writes is kept in `directory`, too.

        Raises:
            HostError: it cannot be started.
        """
        self._place = place
        self._lines: list[tuple[float, str]] = []
        self._begun = threading.Event()
        self._errors = directory / f"watch-{place.name}.err"
        self._kept = directory / f"watch-{place.name}.jsonl"
        try:
            with self._errors.open("wb") as errors:
                self._child = subprocess.Popen(
                    place.words(PROGRAM, "watch", domain),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    start_new_session=True,
                )
        except OSError as error:
            raise HostError(f"{place.name} cannot be watched: {error}", code="no-watch") from error
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_until_begun(self, timeout_s: float = BEGIN_S) -> None:
        """Wait for its first line.

        Raises:
            HostError: it ended before, or none came; the message has its own words.
        """
        if not self._begun.wait(timeout_s) or not self._lines:
            said = self._errors.read_text(errors="replace").strip().splitlines()
            self.stop()
            raise HostError(
                f"{self._place.name} cannot be watched: {said[-1] if said else 'nothing came from it'}", code="no-watch"
            )

    def stop(self) -> None:
        """End it, and keep what it has written. May be repeated."""
        assert self._child.stdin is not None
        with suppress(OSError):
            self._child.stdin.close()
        try:
            self._child.wait(END_S)
        except subprocess.TimeoutExpired:
            self._kill(signal.SIGKILL)
            self._child.wait()
        self._reader.join(END_S)
        self._kept.write_text("".join(line for _, line in self._lines))

    def log(self) -> HostLog:
        """What it has seen, by our clock."""
        lines = list(self._lines)
        offset_s = clock_offset_s(lines)
        if abs(offset_s) < NEAR_S:
            offset_s = 0.0
        return read_lines(self._place.name, (line for _, line in lines), offset_s)

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            self._lines.append((time.time(), line))
            self._begun.set()
        self._begun.set()

    def _kill(self, number: int) -> None:
        with suppress(OSError):
            os.killpg(self._child.pid, number)


def watch_hosts(places: Sequence[Place], domain: str, directory: Path) -> list[HostWatch]:
    """Watch a domain on several hosts; all of them have begun.

    Raises:
        HostError: one cannot be watched; the others are not watched any more.
    """
    watches: list[HostWatch] = []
    try:
        for place in places:
            watches.append(HostWatch(place, domain, directory))  # noqa: PERF401  known when the next one fails
        for watch in watches:
            watch.wait_until_begun()
    except BaseException:
        for watch in watches:
            watch.stop()
        raise
    return watches
